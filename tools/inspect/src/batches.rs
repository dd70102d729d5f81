//! Batches as lines: what their headers say, whether their bytes are intact, and their records.

use crate::Output;
use crate::records;
use millrace_base::batch::{BatchError, Header};
use millrace_log::codec::Codec;
use std::fmt::Write;
use std::io;

/// The heading of [`print`]'s lines.
pub fn heading(output: &mut Output<'_>) -> io::Result<()> {
    output.line(columns(["base", "last", "place", "bytes", "records", "epoch", "codec", "first ms", "last ms", "producer", "crc"]))
}

/// One batch, and its records if asked.
pub fn print(
    output: &mut Output<'_>,
    place: u64,
    header: &Header,
    bytes: &[u8],
    check: &Result<(), BatchError>,
    with_records: bool,
) -> io::Result<()> {
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
    let crc = match check {
        Ok(()) => format!("ok {:08x}", header.crc),
        Err(error) => format!("BAD {error}"),
    };
    output.line(columns([
        &header.base_offset.to_string(),
        &header.last_offset().to_string(),
        &place.to_string(),
        &header.size.to_string(),
        &header.count.to_string(),
        &header.epoch.to_string(),
        codec_name(header.codec()),
        &header.base_timestamp.to_string(),
        &header.max_timestamp.to_string(),
        &producer,
        &crc,
    ]))?;
    if with_records { records::print(output, header, bytes) } else { Ok(()) }
}

fn columns(cells: [&str; 11]) -> String {
    let [base, last, place, bytes, records, epoch, codec, first, max, producer, crc] = cells;
    format!("{base:<10} {last:<10} {place:>10} {bytes:>9} {records:>7} {epoch:>6} {codec:<6} {first:>14} {max:>14} {producer:<16} {crc}")
}

fn codec_name(number: u8) -> &'static str {
    match Codec::from_number(number) {
        Ok(Codec::None) => "none",
        Ok(Codec::Gzip) => "gzip",
        Ok(Codec::Snappy) => "snappy",
        Ok(Codec::Lz4) => "lz4",
        Ok(Codec::Zstd) => "zstd",
        Err(_) => "?",
    }
}
