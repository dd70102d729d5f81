//! Batches: what their headers say, whether their bytes are intact, and their records.

use crate::commands::Meaning;
use crate::output::Output;
use crate::records::{self, Opener};
use crate::transactions::Fate;
use millrace_base::batch::{BatchError, Header};
use millrace_base::value::{Fields, field};
use millrace_log::codec::Codec;
use std::fmt::Write;
use std::io;

/// One whole batch, where it was found.
pub struct Found<'a> {
    /// Of its segment file, or of the payload of its journal entry.
    pub place: u64,
    pub header: Header,
    pub bytes: &'a [u8],
    /// Whether its bytes are those that its CRC was made of.
    pub check: Result<(), BatchError>,
    /// What became of its transaction, if it is of one and that was looked up.
    pub fate: Option<Fate>,
}

/// How batches are printed.
#[derive(Default)]
pub struct Printer {
    /// The records in them too, and what they mean.
    pub records: Option<Meaning>,
    /// Where they lie, for programs: fields of every batch.
    pub fields: Fields,
    opener: Opener,
}

impl Printer {
    pub fn new(records: Option<Meaning>, fields: Fields) -> Printer {
        Printer { records, fields, opener: Opener::default() }
    }

    /// The heading of [`Printer::print`]'s lines.
    pub fn heading(&self, output: &mut Output<'_>) -> io::Result<()> {
        if !output.is_text() {
            return Ok(());
        }
        output.line(columns(["base", "last", "place", "bytes", "records", "epoch", "codec", "first ms", "last ms", "producer", "crc"]))
    }

    /// One batch, and its records if asked.
    pub fn print(&mut self, output: &mut Output<'_>, batch: &Found<'_>) -> io::Result<()> {
        if output.is_text() {
            output.line(line(batch))?;
        } else {
            let fields = self.fields.iter().cloned().chain(fields(batch)).collect();
            output.item("batch", fields)?;
        }
        match self.records {
            Some(meaning) => records::print(output, &batch.header, batch.bytes, meaning, &mut self.opener),
            None => Ok(()),
        }
    }
}

fn line(batch: &Found<'_>) -> String {
    let header = &batch.header;
    let mut producer = String::from("-");
    if header.producer_id >= 0 {
        producer = format!("{}/{}@{}", header.producer_id, header.producer_epoch, header.base_sequence);
    }
    for (is_set, name) in
        [(header.is_append_time(), "append-time"), (header.is_transactional(), "transactional"), (header.is_control(), "control")]
    {
        if is_set {
            let _ = write!(producer, " {name}");
        }
    }
    if let Some(fate) = batch.fate {
        let _ = write!(producer, " {}", fate.name());
    }
    let crc = match &batch.check {
        Ok(()) => format!("ok {:08x}", header.crc),
        Err(error) => format!("BAD {error}"),
    };
    columns([
        &header.base_offset.to_string(),
        &header.last_offset().to_string(),
        &batch.place.to_string(),
        &header.size.to_string(),
        &header.count.to_string(),
        &header.epoch.to_string(),
        codec_name(header.codec()),
        &header.base_timestamp.to_string(),
        &header.max_timestamp.to_string(),
        &producer,
        &crc,
    ])
}

fn fields(batch: &Found<'_>) -> Fields {
    let header = &batch.header;
    let mut fields = vec![
        field("base", header.base_offset),
        field("last", header.last_offset()),
        field("place", batch.place),
        field("bytes", header.size),
        field("records", header.count),
        field("epoch", header.epoch),
        field("codec", codec_name(header.codec())),
        field("first_ms", header.base_timestamp),
        field("last_ms", header.max_timestamp),
        field("append_time", header.is_append_time()),
        field("transactional", header.is_transactional()),
        field("control", header.is_control()),
    ];
    if header.producer_id >= 0 {
        fields.extend([
            field("producer_id", header.producer_id),
            field("producer_epoch", header.producer_epoch),
            field("base_sequence", header.base_sequence),
        ]);
    }
    if let Some(fate) = batch.fate {
        fields.push(field("transaction", fate.name()));
    }
    fields.push(field("crc", format!("{:08x}", header.crc)));
    fields.push(field("intact", batch.check.is_ok()));
    fields
}

fn columns(cells: [&str; 11]) -> String {
    let [base, last, place, bytes, records, epoch, codec, first, max, producer, crc] = cells;
    format!("{base:<10} {last:<10} {place:>10} {bytes:>9} {records:>7} {epoch:>6} {codec:<6} {first:>14} {max:>14} {producer:<16} {crc}")
}

pub fn codec_name(number: u8) -> &'static str {
    match Codec::from_number(number) {
        Ok(Codec::None) => "none",
        Ok(Codec::Gzip) => "gzip",
        Ok(Codec::Snappy) => "snappy",
        Ok(Codec::Lz4) => "lz4",
        Ok(Codec::Zstd) => "zstd",
        Err(_) => "?",
    }
}
