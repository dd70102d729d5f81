//! `export`: every intact record of a range of partitions, around whatever damage there is, as JSON lines or Parquet, or as
//! the batches themselves.
//!
//! 1. Records of all partitions, or of those named, in the order of their offsets; journals included.
//! 2. To standard output, or into a folder that is made: a file or folder a partition.
//! 3. Records of transactions are marked with what became of them; as a consumer of an isolation level would get them, if that is asked for.
//! 4. What is lost is told on the way, and counted at the end.
//!
//! Invariants: nothing is written below the path that is inspected; memory as in [`crate::log`] and [`crate::transactions`], one opened batch, and
//! of Parquet a row group.

use crate::Outcome;
use crate::columns::Columns;
use crate::commands;
use crate::error::InspectError;
use crate::log::{Log, Lost, Seen};
use crate::output::Output;
use crate::read_only::ReadOnly;
use crate::records::{Opener, Record, Records, control_name};
use crate::source::Source;
use crate::spare::Spare;
use crate::time::Window;
use crate::transactions::{Fate, Fates};
use millrace_base::batch::Header;
use millrace_base::offset::Offset;
use millrace_base::value::{Value, quote};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How records are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum As {
    /// One object a line.
    Json,
    /// Batches as they are stored, back to back: a segment that Kafka's tools read.
    Raw,
    /// A Parquet file a partition: only into a folder.
    Parquet,
}

/// What consumers read of transactions. Control records are for none of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    ReadUncommitted,
    /// Not what is aborted or open.
    ReadCommitted,
}

/// What is exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    pub what: Vec<String>,
    pub offsets: Range<Offset>,
    pub times: Window,
    pub how: As,
    /// None: everything, control records too.
    pub isolation: Option<Isolation>,
    /// A folder that is made. None: standard output.
    pub to: Option<PathBuf>,
}

/// A raw file of a partition ends at this size and the next one begins: places are 31 bits.
const RAW_FILE_BYTES: u64 = 1 << 30;

pub fn export(path: &Path, export: &Export, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let mut source = Source::open(&mut disk, path)?;
    let logs = source.logs(&mut disk, &export.what)?;
    if let (As::Raw, None, true) = (export.how, &export.to, logs.len() > 1) {
        let text =
            format!("batches of {} partitions cannot be told apart on standard output: name one, or a folder with --out", logs.len());
        return Err(InspectError::Usage(text));
    }
    if let (As::Parquet, None) = (export.how, &export.to) {
        return Err(InspectError::Usage("a Parquet file is not for standard output: name a folder with --out".to_owned()));
    }
    if let Some(to) = &export.to {
        check_outside(path, to)?;
        std::fs::create_dir_all(to).map_err(|error| failed("make", to, &error))?;
    }
    let mut spare = source.spare();
    let mut outcome = Outcome::Clean;
    for log in logs {
        let fates = Fates::new(&log, source.spare());
        outcome = outcome.max(one(&mut disk, &log, export, &mut spare, fates, output)?);
    }
    Ok(outcome)
}

fn failed(doing: &'static str, path: &Path, error: &io::Error) -> InspectError {
    InspectError::Io { doing, path: path.to_owned(), error: millrace_io::IoError(error.raw_os_error().unwrap_or(5)) }
}

/// Nothing is written into what is inspected.
fn check_outside(path: &Path, to: &Path) -> Result<(), InspectError> {
    let inspected = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut above = to.to_owned();
    // The nearest folder that is there.
    while !above.exists() {
        above = match above.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
    }
    let inside = above.canonicalize().is_ok_and(|above| above.starts_with(&inspected));
    if inside {
        return Err(InspectError::Usage(format!(
            "{} lies in {}, where nothing is written: name another folder",
            to.display(),
            path.display()
        )));
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    records: u64,
    batches: u64,
    bytes: u64,
    first: Option<Offset>,
    last: Offset,
    closed: u64,
    lost: u64,
    /// Records that the isolation level leaves out.
    left_out: u64,
    /// Records of transactions of which it is not known how they ended.
    unknown: u64,
}

fn one(
    disk: &mut ReadOnly,
    log: &Log,
    export: &Export,
    spare: &mut Spare,
    mut fates: Fates<'_>,
    output: &mut Output<'_>,
) -> Result<Outcome, InspectError> {
    let mut counts = Counts::default();
    let mut target = Target::new(export, log);
    let mut opener = Opener::default();
    let name = log.name();
    log.scan(disk, spare, export.offsets.clone(), &mut |seen| match seen {
        Seen::Batch { header, bytes, file, place } => {
            if !export.times.may_have(&header) {
                return Ok(());
            }
            let is_known = export.how == As::Raw && export.isolation != Some(Isolation::ReadCommitted);
            let fate = if is_known { None } else { fates.of(&header)? };
            let records = u64::from(header.count.max(0).cast_unsigned());
            if is_left_out(export, &header, fate) {
                counts.left_out += records;
                return Ok(());
            }
            counts.unknown += if fate == Some(Fate::Unknown) { records } else { 0 };
            counts.batches += 1;
            counts.bytes += bytes.len() as u64;
            match export.how {
                As::Raw => {
                    counts.records += records;
                    counts.first = counts.first.or(Some(header.base_offset));
                    counts.last = header.last_offset();
                    target.write(header.base_offset, bytes, output)
                }
                As::Json | As::Parquet => records_of(log, &header, fate, bytes, &mut opener, &mut counts, &mut target, output).map(|why| {
                    if let Some(why) = why {
                        counts.closed += 1;
                        let _ = writeln!(
                            output.talk,
                            "lost: {name}: offsets {} to {} stay closed: {file} at byte {place}: {why}",
                            header.base_offset,
                            header.last_offset()
                        );
                    }
                }),
            }
        }
        Seen::Lost(lost) => {
            counts.lost += 1;
            Ok(tell_lost(&name, &lost, output)?)
        }
    })?;
    target.finish()?;
    let range = counts.first.map_or(String::new(), |first| format!(", offsets {first} to {}", counts.last));
    let lost = match counts.lost + counts.closed {
        0 => "nothing is lost".to_owned(),
        1 => "1 range is lost".to_owned(),
        ranges => format!("{ranges} ranges are lost"),
    };
    writeln!(output.talk, "{name}: {} records in {} batches of {} bytes{range}; {lost}", counts.records, counts.batches, counts.bytes)?;
    if counts.left_out > 0 {
        writeln!(output.talk, "note: {name}: {} records are left out, as --isolation says", counts.left_out)?;
    }
    if counts.unknown > 0 {
        writeln!(output.talk, "note: {name}: {} records are of transactions whose end is lost or not in what was given", counts.unknown)?;
    }
    Ok(if counts.lost + counts.closed > 0 { Outcome::Damaged } else { Outcome::Clean })
}

/// Whether a consumer of the level that was asked for would not get it. Batches keep their markers: who reads them wants those.
fn is_left_out(export: &Export, header: &Header, fate: Option<Fate>) -> bool {
    let Some(isolation) = export.isolation else { return false };
    if header.is_control() {
        return export.how != As::Raw;
    }
    isolation == Isolation::ReadCommitted && matches!(fate, Some(Fate::Aborted | Fate::Open))
}

/// A line on standard error.
pub fn tell_lost(name: &str, lost: &Lost, output: &mut Output<'_>) -> io::Result<()> {
    let range = match lost.to {
        Some(to) if to - lost.from == 1 => format!("offset {}", lost.from),
        Some(to) => format!("offsets {} to {}", lost.from, to - 1),
        None => format!("offsets from {} on, how many is not known", lost.from),
    };
    let why = lost.why.as_ref().map_or("they are nowhere", String::as_str);
    writeln!(output.talk, "lost: {name}: {range}: {why}")
}

/// The records of one batch. Gives why it stays closed, if it does.
fn records_of(
    log: &Log,
    header: &Header,
    fate: Option<Fate>,
    bytes: &[u8],
    opener: &mut Opener,
    counts: &mut Counts,
    target: &mut Target<'_>,
    output: &mut Output<'_>,
) -> Result<Option<String>, InspectError> {
    let opened = match opener.open(header, bytes) {
        Ok(opened) => opened,
        Err(why) => return Ok(Some(why.to_string())),
    };
    let (export, mut line) = (target.export, std::mem::take(&mut target.line));
    let mut why = None;
    for found in Records::new(header, opened) {
        let record = match found {
            Ok(record) => record,
            Err(error) => {
                why = Some(error.to_string());
                continue;
            }
        };
        if !export.offsets.contains(&record.offset) || record.offset < log.log_start || !export.times.has(record.timestamp) {
            continue;
        }
        counts.records += 1;
        counts.first = counts.first.or(Some(record.offset));
        counts.last = record.offset;
        if export.how == As::Parquet {
            target.row(log, header, &record, fate)?;
            continue;
        }
        record_json(log, header, &record, fate, &mut line);
        line.push('\n');
        if line.len() >= 1 << 16 {
            target.write(header.base_offset, line.as_bytes(), output)?;
            line.clear();
        }
    }
    target.write(header.base_offset, line.as_bytes(), output)?;
    line.clear();
    target.line = line;
    Ok(why)
}

/// A record as one JSON object. Bytes that are no UTF-8 stand as base64 in a field whose name says so, so that nothing is lost.
/// Those of internal partitions say what they mean too.
pub fn record_json(log: &Log, header: &Header, record: &Record<'_>, fate: Option<Fate>, out: &mut String) {
    out.push_str("{\"topic\":");
    quote(&log.topic, out);
    let kind = if header.is_append_time() { "append" } else { "create" };
    let _ = write!(
        out,
        ",\"partition\":{},\"offset\":{},\"timestamp\":{},\"timestamp_type\":\"{kind}\"",
        log.partition, record.offset, record.timestamp
    );
    if header.epoch >= 0 {
        let _ = write!(out, ",\"epoch\":{}", header.epoch);
    }
    if header.producer_id >= 0 {
        let _ = write!(out, ",\"producer_id\":{},\"producer_epoch\":{}", header.producer_id, header.producer_epoch);
    }
    if header.is_transactional() {
        out.push_str(",\"transactional\":true");
    }
    if let Some(fate) = fate {
        let _ = write!(out, ",\"transaction\":\"{}\"", fate.name());
    }
    if header.is_control() {
        let _ = write!(out, ",\"control\":\"{}\"", control_name(record.key));
    }
    if let Some(Ok(meant)) = commands::meaning(log.meaning, record) {
        out.push_str(",\"meaning\":");
        Value::Map(meant).json(out);
    }
    bytes_json("key", record.key, out);
    bytes_json("value", record.value, out);
    if record.header_count > 0 {
        out.push_str(",\"headers\":[");
        for (at, (name, value)) in record.headers().enumerate() {
            out.push_str(if at > 0 { ",{" } else { "{" });
            let before = out.len();
            bytes_json("name", Some(name), out);
            out.remove(before); // its comma
            bytes_json("value", value, out);
            out.push('}');
        }
        out.push(']');
    }
    out.push('}');
}

fn bytes_json(name: &str, bytes: Option<&[u8]>, out: &mut String) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => drop(write!(out, ",\"{name}\":null")),
        Some(Ok(text)) => {
            let _ = write!(out, ",\"{name}\":");
            quote(text, out);
        }
        Some(Err(bytes)) => drop(write!(out, ",\"{name}_base64\":\"{}\"", crate::records::base64(bytes))),
    }
}

/// A new file, in a folder that is made.
fn create(path: &Path) -> Result<BufWriter<File>, InspectError> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|error| failed("make", folder, &error))?;
    let made = File::options().write(true).create_new(true).open(path);
    let file = made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            InspectError::Usage(format!("{} is there already and is not overwritten: name another folder", path.display()))
        }
        _ => failed("make", path, &error),
    })?;
    Ok(BufWriter::with_capacity(1 << 18, file))
}

/// Where one partition's records go.
struct Target<'a> {
    export: &'a Export,
    /// File-name form of the partition.
    name: String,
    file: Option<(BufWriter<File>, PathBuf, u64)>,
    columns: Option<(Columns<BufWriter<File>>, PathBuf)>,
    line: String,
}

impl<'a> Target<'a> {
    fn new(export: &'a Export, log: &Log) -> Target<'a> {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
        let name = log.name().chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
        Target { export, name, file: None, columns: None, line: String::new() }
    }

    fn write(&mut self, base: Offset, bytes: &[u8], output: &mut Output<'_>) -> Result<(), InspectError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(to) = &self.export.to else { return Ok(output.out.write_all(bytes)?) };
        let is_full = self.file.as_ref().is_some_and(|(_, _, written)| self.export.how == As::Raw && *written >= RAW_FILE_BYTES);
        if is_full {
            self.finish()?;
        }
        if self.file.is_none() {
            let path = match self.export.how {
                As::Json | As::Parquet => to.join(format!("{}.jsonl", self.name)),
                As::Raw => to.join(&self.name).join(format!("{base:020}.log")),
            };
            self.file = Some((create(&path)?, path, 0));
        }
        let Some((file, path, written)) = &mut self.file else { return Ok(()) };
        *written += bytes.len() as u64;
        file.write_all(bytes).map_err(|error| failed("write", path, &error))
    }

    fn row(&mut self, log: &Log, header: &Header, record: &Record<'_>, fate: Option<Fate>) -> Result<(), InspectError> {
        let (columns, path) = match &mut self.columns {
            Some(open) => open,
            none => {
                let Some(to) = &self.export.to else { return Ok(()) };
                let path = to.join(format!("{}.parquet", self.name));
                let columns = Columns::new(create(&path)?, log).map_err(|error| failed("write", &path, &error))?;
                none.insert((columns, path))
            }
        };
        columns.push(header, record, fate).map_err(|error| failed("write", path, &error))
    }

    fn finish(&mut self) -> Result<(), InspectError> {
        if let Some((columns, path)) = self.columns.take() {
            columns.finish().map_err(|error| failed("write", &path, &error))?;
        }
        match self.file.take() {
            None => Ok(()),
            Some((mut file, path, _)) => file.flush().map_err(|error| failed("write", &path, &error)),
        }
    }
}
