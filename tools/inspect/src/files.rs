//! `show` of a single file, by its name alone: whatever the journal says of it.
//!
//! Invariants: a file is read as far as its kind can be long, a segment in windows.
//! Knows nothing of which entries of a journal file are live.

use crate::commands::Meaning;
use crate::directory::meta_corrupt;
use crate::error::InspectError;
use crate::journal::{Told, print_header, print_large};
use crate::output::Output;
use crate::partition::INDEX_BYTES_MAX;
use crate::problem::Problem;
use crate::read_only::ReadOnly;
use crate::segment::Segment;
use crate::show::segment_batches;
use crate::{Outcome, Show};
use millrace_base::crc::crc32c;
use millrace_base::fault::Corrupt;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_base::value::field;
use millrace_log::index::Index;
use millrace_log::journal::layout::{self, HEADER_BYTES, Header, NoHeader, Openings, Trailer};
use millrace_log::journal::{Record, contents};
use millrace_log::partition_state::Large;
use millrace_log::paths::{self, Meta, Named};
use millrace_log::state_file::{self, Reference};
use std::path::Path;

pub fn unknown(what: &Path) -> InspectError {
    InspectError::Usage(format!(
        "{} cannot be shown: name journal/SHARD, TOPIC/PARTITION, or a file {}, openings, N.journal, BASE.log, BASE.index or END.state",
        what.display(),
        paths::META_NAME
    ))
}

pub fn show(disk: &mut ReadOnly, path: &Path, show: &Show, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| unknown(path))?;
    if let Some(outcome) = crate::kafka::show::file(disk, path, output)? {
        return Ok(outcome);
    }
    let damaged = match (paths::named(name), layout::slot_of(name)) {
        (Some(Named::Segment(_)), _) => {
            let mut segment = Segment::open(disk, path, false).map_err(InspectError::io("open", path))?;
            return segment_batches(disk, &mut segment, path, None, show, Meaning::Theirs, None, output).map(Outcome::of);
        }
        (Some(Named::Index(base)), _) => {
            with_file(disk, path, INDEX_BYTES_MAX, output, |bytes, file, output| index(bytes, base, file, output))?
        }
        (Some(Named::State(name)), _) => {
            let max = state_file::HEAD_BYTES + state_file::BODY_BYTES_MAX;
            with_file(disk, path, max, output, |bytes, file, output| state(bytes, name, file, output))?
        }
        (None, Some(slot)) => {
            with_file(disk, path, layout::FILE_BYTES_MAX as usize, output, |bytes, file, output| journal(bytes, slot, file, show, output))?
        }
        (None, None) if name == layout::OPENINGS_NAME => with_file(disk, path, 2 * BLOCK, output, openings)?,
        (None, None) if name == paths::META_NAME => with_file(disk, path, paths::META_BYTES_MAX, output, meta)?,
        (None, None) => return Err(unknown(path)),
    };
    Ok(Outcome::of(damaged))
}

/// Whether it is damaged, or why it cannot be read on.
type Shown = Result<Result<bool, Corrupt>, InspectError>;

fn with_file(
    disk: &mut ReadOnly,
    path: &Path,
    max: usize,
    output: &mut Output<'_>,
    show: impl FnOnce(&[u8], &str, &mut Output<'_>) -> Shown,
) -> Result<bool, InspectError> {
    let bytes = disk.read_file(path, max).map_err(InspectError::io("read", path))?;
    let shown = match bytes {
        Ok(bytes) => show(&bytes, &path.display().to_string(), output)?,
        Err(corrupt) => Err(corrupt),
    };
    match shown {
        Ok(damaged) => Ok(damaged),
        Err(corrupt) => {
            Problem { corrupt, at_start: None }.tell(output, None)?;
            Ok(true)
        }
    }
}

fn index(bytes: &[u8], base: Offset, file: &str, output: &mut Output<'_>) -> Shown {
    match Index::decode(bytes, base, file) {
        Ok(index) => {
            print_index(output, &index)?;
            Ok(Ok(false))
        }
        Err(corrupt) => Ok(Err(corrupt)),
    }
}

/// Facts and entries.
pub fn print_index(output: &mut Output<'_>, index: &Index) -> std::io::Result<()> {
    let facts = index.summary();
    if !output.is_text() {
        return index_items(output, index);
    }
    output.line(format_args!(
        "index of segment {}: ends at offset {}, {} bytes, largest timestamp {}; {} entries, one every {} bytes",
        facts.base,
        facts.end,
        facts.bytes,
        facts.max_timestamp,
        index.entries().len(),
        index.interval()
    ))?;
    if !index.entries().is_empty() {
        output.line(format_args!("{:>12} {:>10} {:>16} outer crc", "offset", "place", "ms before"))?;
    }
    for entry in index.entries() {
        let offset = facts.base + i64::from(entry.relative);
        output.line(format_args!("{offset:>12} {:>10} {:>16} {:08x}", entry.place, entry.timestamp_before, entry.outer_crc))?;
    }
    Ok(())
}

fn index_items(output: &mut Output<'_>, index: &Index) -> std::io::Result<()> {
    let facts = index.summary();
    output.item(
        "index",
        vec![
            field("segment", facts.base),
            field("end", facts.end),
            field("bytes", facts.bytes),
            field("max_timestamp", facts.max_timestamp),
            field("entries", index.entries().len()),
            field("interval", index.interval()),
        ],
    )?;
    index.entries().iter().try_for_each(|entry| {
        let fields = vec![
            field("offset", facts.base + i64::from(entry.relative)),
            field("place", entry.place),
            field("ms_before", entry.timestamp_before),
            field("outer_crc", format!("{:08x}", entry.outer_crc)),
        ];
        output.item("index_entry", fields)
    })
}

fn state(bytes: &[u8], name: state_file::Name, file: &str, output: &mut Output<'_>) -> Shown {
    // The journal would name length and CRC; without it the file is held against itself.
    let body = bytes.get(state_file::HEAD_BYTES..).unwrap_or_default();
    let reference = Reference { name, bytes: bytes.len() as u32, crc: crc32c(body) };
    let here = |corrupt: Corrupt| Corrupt { file: file.to_owned(), ..corrupt };
    let large = match state_file::decode(bytes, &reference) {
        Ok(body) => Large::decode(body).map_err(|error| error.in_file(file, state_file::HEAD_BYTES as u64)),
        Err(corrupt) => Err(here(corrupt)),
    };
    match large {
        Ok(large) => {
            let fields = || vec![field("end", name.end), field("bytes", reference.bytes), field("crc", format!("{:08x}", reference.crc))];
            let line = format_args!("state up to offset {}, {} bytes with crc {:08x}", name.end, reference.bytes, reference.crc);
            output.tell("state", fields, line)?;
            print_large(output, &large, true)?;
            Ok(Ok(false))
        }
        Err(corrupt) => Ok(Err(corrupt)),
    }
}

/// Every entry with a readable header, live or not.
fn journal(bytes: &[u8], slot: u32, file: &str, show: &Show, output: &mut Output<'_>) -> Shown {
    let (mut place, mut damaged) = (0, false);
    while let Some(rest) = bytes.get(place..).filter(|rest| !rest.is_empty()) {
        let mut step = BLOCK;
        let no_header = match Header::decode(rest) {
            Ok(header) => {
                let entry = rest.get(..header.entry_bytes as usize);
                let is_whole = entry.and_then(|entry| entry.get(HEADER_BYTES..)).map(crc32c) == Some(header.body_crc);
                if is_whole {
                    step = header.entry_bytes as usize;
                }
                if show.entry.is_none_or(|wanted| wanted == header.sequence) {
                    damaged |= !is_whole;
                    print_header(output, &header, slot, place as u64)?;
                    print_body(output, &header, entry, is_whole, show)?;
                }
                None
            }
            Err(NoHeader::Crc(expected, found)) => Some((format!("a header with CRC {expected:08x}"), format!("{found:08x}"))),
            Err(NoHeader::Newer(format)) => Some((format!("format {} or older", layout::FORMAT), format.to_string())),
            Err(NoHeader::Lengths) => Some(("a header whose lengths fit".to_owned(), "others".to_owned())),
            Err(NoHeader::Magic) => None,
        };
        if let Some((expected, found)) = no_header {
            damaged = true;
            let line = format!("byte {place}: expected {expected}, found {found}");
            let corrupt = Corrupt { file: file.to_owned(), place: place as u64, expected, found };
            if output.is_text() { output.line(line)? } else { Problem { corrupt, at_start: None }.tell(output, None)? }
        }
        place += step;
    }
    Ok(Ok(damaged))
}

fn print_body(output: &mut Output<'_>, header: &Header, entry: Option<&[u8]>, is_whole: bool, show: &Show) -> std::io::Result<()> {
    let unreadable = |output: &mut Output<'_>, why: &str| {
        output.tell("unreadable", || vec![field("entry", header.sequence), field("why", why)], format_args!("  {why}"))
    };
    if !is_whole {
        unreadable(output, &format!("its body is not what its CRC {:08x} was made of", header.body_crc))?;
    }
    let Some(entry) = entry else { return unreadable(output, "it goes on behind the end of the file") };
    match records(header, entry) {
        None => unreadable(output, "neither copy of its contents is readable"),
        Some(records) => {
            let payload = entry.get(HEADER_BYTES..header.contents_a()).unwrap_or_default();
            records.iter().try_for_each(|record| Told { record, payload, name: None, whole: show.records && is_whole }.print(output))
        }
    }
}

/// From whichever copy of the contents is readable.
fn records(header: &Header, entry: &[u8]) -> Option<Vec<Record>> {
    let ends = [header.contents_a() + header.contents_bytes as usize, header.entry_bytes as usize];
    ends.into_iter().find_map(|end| {
        let (trailer, records) = Trailer::decode(entry.get(..end)?)?;
        let is_own = trailer.sequence == header.sequence && trailer.incarnation == header.incarnation;
        if is_own { contents::decode(records, trailer.count, header.payload_bytes) } else { None }
    })
}

fn openings(bytes: &[u8], file: &str, output: &mut Output<'_>) -> Shown {
    let mut is_readable = false;
    for (slot, bytes) in bytes.chunks(BLOCK).enumerate() {
        match Openings::decode(bytes) {
            Some(openings) => {
                is_readable = true;
                let fields = || vec![field("slot", slot), field("readable", true), field("version", openings.version)];
                output.tell("openings", fields, format_args!("slot {slot}: version {}", openings.version))?;
                for opening in &openings.list {
                    let fields = || vec![field("incarnation", format!("{:016x}", opening.incarnation)), field("first", opening.first)];
                    let line = format_args!("  incarnation {:016x} from entry {} on", opening.incarnation, opening.first);
                    output.tell("opening", fields, line)?;
                }
            }
            None => {
                let fields = || vec![field("slot", slot), field("readable", false)];
                output.tell("openings", fields, format_args!("slot {slot}: not readable"))?;
            }
        }
    }
    let lost =
        Corrupt { file: file.to_owned(), place: 0, expected: "a slot of openings".to_owned(), found: "none that is readable".to_owned() };
    Ok(if is_readable { Ok(false) } else { Err(lost) })
}

fn meta(bytes: &[u8], file: &str, output: &mut Output<'_>) -> Shown {
    match Meta::decode(bytes) {
        Ok(_) => {
            let text = String::from_utf8_lossy(bytes);
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            let fields = || pairs.map(|(key, value)| (key.to_owned().into(), value.into())).collect();
            output.tell("meta", fields, text.trim_end())?;
            Ok(Ok(false))
        }
        Err(error) => Ok(Err(meta_corrupt(&error, bytes, file.to_owned()))),
    }
}
