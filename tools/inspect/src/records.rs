//! The records in a batch, headers included, as lines.
//!
//! Keys, values and header values are printed whole: printable ASCII as it is, other bytes escaped as `\xNN`, so that nothing is lost and
//! nothing that a producer sent reaches a terminal as more than text.
//!
//! Invariants: at most [`OPENED_BYTES_MAX`] of a compressed batch are opened.
//! Source: Kafka's record format, version 2.

use crate::Output;
use millrace_base::batch::{HEADER_BYTES, Header, read_varint};
use millrace_log::codec::Codec;
use std::borrow::Cow;
use std::io;

/// A compressed batch that holds more is not opened.
pub const OPENED_BYTES_MAX: usize = 256 << 20;

/// `batch`: one whole batch.
pub fn print(output: &mut Output<'_>, header: &Header, batch: &[u8]) -> io::Result<()> {
    let opened = match open(header, batch) {
        Ok(opened) => opened,
        Err(why) => return output.line(format_args!("  closed: {why}")),
    };
    let mut rest: &[u8] = &opened;
    for number in 0..header.count {
        match line(header, &mut rest) {
            Some(line) => output.line(line)?,
            None => return output.line(format_args!("  record {number} of {} cannot be read", header.count)),
        }
    }
    if rest.is_empty() { Ok(()) } else { output.line(format_args!("  {} bytes behind the last record", rest.len())) }
}

fn open<'a>(header: &Header, batch: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    let records = batch.get(HEADER_BYTES..).unwrap_or_default();
    match Codec::from_number(header.codec()) {
        Ok(Codec::None) => Ok(Cow::Borrowed(records)),
        Ok(codec) => codec.decompress(records, OPENED_BYTES_MAX).map(Cow::Owned).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn line(header: &Header, rest: &mut &[u8]) -> Option<String> {
    let size = usize::try_from(read_varint(rest)?).ok()?;
    let mut body = take(rest, size)?;
    take(&mut body, 1)?; // attributes, all unused
    let timestamp = header.base_timestamp.checked_add(read_varint(&mut body)?)?;
    let timestamp = if header.is_append_time() { header.max_timestamp } else { timestamp };
    let offset = header.base_offset.checked_add(read_varint(&mut body)?)?;
    let (key, value) = (part(&mut body)?, part(&mut body)?);
    let mut line = format!("  {offset} {timestamp} key={} value={}", text(key), text(value));
    for _ in 0..read_varint(&mut body)? {
        let name = part(&mut body)?;
        line.push_str(&format!(" {}={}", text(name), text(part(&mut body)?)));
    }
    body.is_empty().then_some(line)
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

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), |bytes| format!("\"{}\"", bytes.escape_ascii()))
}
