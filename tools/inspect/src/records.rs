//! The records in a batch: opened, read one by one, and told.
//!
//! As text, keys, values and header values are printed whole: printable ASCII as it is, other bytes escaped as `\xNN`, so that nothing is lost
//! and nothing that a producer sent reaches a terminal as more than text. For programs, what is UTF-8 is a text, other bytes are base64 in a
//! field whose name ends in `_base64`.
//!
//! Invariants: at most [`OPENED_BYTES_MAX`] of a compressed batch are opened; memory <= that and one record's line.
//! Source: Kafka's record format, version 2; control records as in KIP-98 and KIP-595.

use crate::commands::{self, Meaning};
use crate::output::Output;
use millrace_base::batch::{HEADER_BYTES, Header, read_varint};
use millrace_base::offset::Offset;
use millrace_base::value::{Fields, Value, field};
use millrace_base::zstd::CLIENT_WINDOW_MAX;
use millrace_log::codec::{Codec, CodecError};
use std::borrow::Cow;
use std::io;

/// A compressed batch that holds more is not opened.
pub const OPENED_BYTES_MAX: usize = 256 << 20;

/// What most batches open into; more is tried for those that hold more.
const OPENED_BYTES_FIRST: usize = 1 << 20;

/// Opens batches into memory that it keeps.
#[derive(Default)]
pub struct Opener {
    opened: Vec<u8>,
}

impl Opener {
    /// The records' bytes of one whole batch.
    ///
    /// # Errors
    /// Why they stay closed.
    pub fn open<'a>(&'a mut self, header: &Header, batch: &'a [u8]) -> Result<&'a [u8], CodecError> {
        let records = batch.get(HEADER_BYTES..header.size.min(batch.len())).unwrap_or_default();
        let codec = Codec::from_number(header.codec())?;
        if codec == Codec::None {
            return Ok(records);
        }
        let mut room = self.opened.len().max(OPENED_BYTES_FIRST);
        loop {
            self.opened.resize(room, 0);
            match codec.decompress_within(records, &mut self.opened, CLIENT_WINDOW_MAX) {
                Ok(len) => return Ok(&self.opened[..len]),
                Err(CodecError::TooLarge { .. }) if room < OPENED_BYTES_MAX => room = (room * 4).min(OPENED_BYTES_MAX),
                Err(error) => return Err(error),
            }
        }
    }
}

/// One record. What it holds is borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    pub offset: Offset,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    /// None: a tombstone.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
    pub header_count: usize,
}

/// A header's name and value.
pub type RecordHeader<'a> = (&'a [u8], Option<&'a [u8]>);

impl<'a> Record<'a> {
    pub fn headers(&self) -> impl Iterator<Item = RecordHeader<'a>> {
        let (mut rest, mut left) = (self.headers, self.header_count);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            read_header(&mut rest)
        })
    }
}

/// The records of opened bytes, as many as the header counts.
pub struct Records<'a> {
    header: Header,
    rest: &'a [u8],
    number: i32,
    is_over: bool,
}

/// What stands in a batch instead of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoRecord {
    /// Record `number` of `count` cannot be read; the rest is not tried.
    Unreadable { number: i32, count: i32 },
    /// All have been read and there is more.
    Behind { bytes: usize },
}

impl std::fmt::Display for NoRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoRecord::Unreadable { number, count } => write!(f, "record {number} of {count} cannot be read"),
            NoRecord::Behind { bytes } => write!(f, "{bytes} bytes behind the last record"),
        }
    }
}

impl<'a> Records<'a> {
    pub fn new(header: &Header, opened: &'a [u8]) -> Records<'a> {
        Records { header: *header, rest: opened, number: 0, is_over: false }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, NoRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        if self.number >= self.header.count {
            self.is_over = true;
            return (!self.rest.is_empty()).then_some(Err(NoRecord::Behind { bytes: self.rest.len() }));
        }
        let found = read(&self.header, &mut self.rest);
        self.is_over = found.is_none();
        self.number += 1;
        Some(found.ok_or(NoRecord::Unreadable { number: self.number - 1, count: self.header.count }))
    }
}

fn read<'a>(header: &Header, rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let size = usize::try_from(read_varint(rest)?).ok()?;
    let mut body = take(rest, size)?;
    take(&mut body, 1)?; // attributes, all unused
    let timestamp = header.base_timestamp.checked_add(read_varint(&mut body)?)?;
    let timestamp = if header.is_append_time() { header.max_timestamp } else { timestamp };
    let offset = header.base_offset.checked_add(read_varint(&mut body)?)?;
    let (key, value) = (part(&mut body)?, part(&mut body)?);
    let header_count = usize::try_from(read_varint(&mut body)?).ok()?;
    let headers = body;
    for _ in 0..header_count {
        read_header(&mut body)?;
    }
    body.is_empty().then_some(Record { offset, timestamp, key, value, headers, header_count })
}

fn read_header<'a>(rest: &mut &'a [u8]) -> Option<RecordHeader<'a>> {
    let name = part(rest)??;
    Some((name, part(rest)?))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(len)?;
    *rest = back;
    Some(front)
}

fn part<'a>(body: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match read_varint(body)? {
        -1 => Some(None),
        len => take(body, usize::try_from(len).ok()?).map(Some),
    }
}

/// What a record of a control batch says.
pub fn control_name(key: Option<&[u8]>) -> &'static str {
    match key.and_then(|key| key.get(2..4)) {
        Some([0, 0]) => "abort",
        Some([0, 1]) => "commit",
        Some([0, 2]) => "leader change",
        Some([0, 3]) => "snapshot header",
        Some([0, 4]) => "snapshot footer",
        Some([0, 5]) => "kraft version",
        Some([0, 6]) => "kraft voters",
        _ => "unknown",
    }
}

/// The records of `batch`, one whole batch, a line or thing each.
pub fn print(output: &mut Output<'_>, header: &Header, batch: &[u8], meaning: Meaning, opener: &mut Opener) -> io::Result<()> {
    let opened = match opener.open(header, batch) {
        Ok(opened) => opened,
        Err(why) => return output.tell("closed", || vec![field("why", why.to_string())], format_args!("  closed: {why}")),
    };
    for found in Records::new(header, opened) {
        match found {
            Ok(record) if output.is_text() => output.line(line(header, &record, meaning))?,
            Ok(record) => output.item("record", fields(header, &record, meaning))?,
            Err(why) => output.tell("unreadable", || vec![field("why", why.to_string())], format_args!("  {why}"))?,
        }
    }
    Ok(())
}

fn line(header: &Header, record: &Record<'_>, meaning: Meaning) -> String {
    let Record { offset, timestamp, .. } = record;
    if header.is_control() {
        return format!("  {offset} {timestamp} control: {} of producer {}", control_name(record.key), header.producer_id);
    }
    let mut line = match commands::meaning(meaning, record) {
        Some(Ok(meant)) => {
            let mut text = String::new();
            Value::Map(meant).json(&mut text);
            format!("  {offset} {timestamp} {text}")
        }
        Some(Err(why)) => format!("  {offset} {timestamp} {why}: key={} value={}", text(record.key), text(record.value)),
        None => format!("  {offset} {timestamp} key={} value={}", text(record.key), text(record.value)),
    };
    for (name, value) in record.headers() {
        line.push_str(&format!(" {}={}", text(Some(name)), text(value)));
    }
    line
}

fn fields(header: &Header, record: &Record<'_>, meaning: Meaning) -> Fields {
    let mut fields = vec![field("offset", record.offset), field("timestamp", record.timestamp)];
    if header.is_control() {
        fields.push(field("control", control_name(record.key)));
    }
    if let Some(Ok(meant)) = commands::meaning(meaning, record) {
        fields.push(field("meaning", meant));
    }
    bytes_fields(&mut fields, record);
    fields
}

/// Key, value and headers.
pub fn bytes_fields(fields: &mut Fields, record: &Record<'_>) {
    fields.extend([bytes("key", "key_base64", record.key), bytes("value", "value_base64", record.value)]);
    if record.header_count > 0 {
        let of = |(name, value): RecordHeader<'_>| {
            Value::Map(vec![bytes("name", "name_base64", Some(name)), bytes("value", "value_base64", value)])
        };
        fields.push(field("headers", record.headers().map(of).collect::<Vec<Value>>()));
    }
}

/// A field of bytes: a text if they are UTF-8.
fn bytes(name: &'static str, name_base64: &'static str, bytes: Option<&[u8]>) -> (Cow<'static, str>, Value) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => field(name, Value::Null),
        Some(Ok(text)) => field(name, text),
        Some(Err(bytes)) => field(name_base64, base64(bytes)),
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), |bytes| format!("\"{}\"", bytes.escape_ascii()))
}

/// Base64 with padding (RFC 4648, 4).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |number: u32, at: u32| DIGITS[(number >> (18 - 6 * at)) as usize & 63];
    let mut out = vec![b'='; bytes.len().div_ceil(3) * 4];
    let (threes, rest) = bytes.as_chunks::<3>();
    let (fours, end) = out.split_at_mut(threes.len() * 4);
    // Exports of records that are no text spend most of their time here.
    for ([a, b, c], four) in threes.iter().zip(fours.as_chunks_mut::<4>().0) {
        let number = u32::from_be_bytes([0, *a, *b, *c]);
        *four = [digit(number, 0), digit(number, 1), digit(number, 2), digit(number, 3)];
    }
    let number = rest.iter().chain(&[0, 0]).take(3).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    for (at, out) in (0..=rest.len() as u32).zip(end) {
        *out = digit(number, at);
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
