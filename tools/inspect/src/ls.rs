//! `ls`: whose a data directory is, its journals, its topics, their partitions and segments.
//!
//! Reads facts, not batches: of a segment without a readable index it counts batch headers.

use crate::Outcome;
use crate::directory::Directory;
use crate::error::InspectError;
use crate::kafka;
use crate::output::Output;
use crate::partition::{Kind, Partition, SegmentFile};
use crate::read_only::ReadOnly;
use crate::segment::{Piece, SEGMENT_BYTES_MAX, Segment};
use crate::source::Source;
use crate::table::Table;
use millrace_base::ids::TopicId;
use millrace_base::offset::{Epoch, Offset};
use millrace_base::value::Value;
use millrace_io::IoError;
use millrace_log::image::PendingBytes;
use millrace_log::index::{NO_TIMESTAMP, Summary};
use millrace_log::journal::Verdict;
use millrace_log::{index, paths, walk};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub fn ls(path: &Path, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let mut directory = match Source::open(&mut disk, path)? {
        Source::Ours(directory) => *directory,
        Source::Kafka(directory) => return kafka::list::ls(&directory, output),
    };
    warn_in_use(&directory, output)?;
    let mut outcome = identity(&directory, output)?.max(journals(&directory, output)?);
    let partitions = directory.take_all(&mut disk)?;
    print_topics(&directory, &partitions, output)?;
    print_partitions(&mut disk, &directory, &partitions, output)?;
    print_segments(&mut disk, &directory, &partitions, output)?;
    for note in &directory.notes {
        output.note(note)?;
    }
    for partition in &partitions {
        for note in &partition.notes {
            output.note(note)?;
        }
        for problem in &partition.problems {
            problem.tell(output, Some(&directory.names.both(partition.id)))?;
        }
        outcome = outcome.max(partition.outcome());
    }
    Ok(outcome)
}

pub fn warn_in_use(directory: &Directory, output: &mut Output<'_>) -> io::Result<()> {
    if directory.is_in_use {
        let path = directory.path.display();
        output.note(format_args!("a broker runs on {path}; what it writes meanwhile may be missing here or look damaged"))?;
    }
    Ok(())
}

fn identity(directory: &Directory, output: &mut Output<'_>) -> io::Result<Outcome> {
    match &directory.meta {
        Ok(meta) => {
            let mut table = Table::new("data_directory", &["data directory", "directory id", "cluster id", "node", "format"]);
            let path = directory.path.display().to_string();
            let ids = [meta.directory.to_string(), meta.cluster.to_string()].map(Value::Text);
            table.row([path.into()].into_iter().chain(ids).chain([meta.node.into(), paths::FORMAT.into()]).collect());
            table.print(output)?;
            Ok(Outcome::Clean)
        }
        Err(problem) => {
            problem.tell(output, None)?;
            Ok(Outcome::Damaged)
        }
    }
}

fn journals(directory: &Directory, output: &mut Output<'_>) -> io::Result<Outcome> {
    let heading = ["journal", "files", "bytes", "live entries", "oldest live", "next", "incarnation", "verdict"];
    let mut table = Table::new("journal", &heading);
    let mut outcome = Outcome::Clean;
    for (shard, journal) in &directory.journals {
        let mut row = vec![Value::from(*shard)];
        match &journal.found {
            Ok(found) => {
                outcome = outcome.max(verdict_outcome(&found.verdict));
                let bytes: u64 = found.files.iter().map(|file| file.bytes).sum();
                let incarnation = found.openings.list.last().map(|opening| format!("{:016x}", opening.incarnation));
                row.extend([found.files.len().into(), bytes.into(), found.entries.len().into()]);
                row.extend([found.oldest_live.into(), found.next.into(), incarnation.into(), verdict(&found.verdict).into()]);
            }
            Err(problem) => {
                outcome = Outcome::Damaged;
                row.extend((0..6).map(|_| Value::Null));
                row.push(format!("unreadable: {}", problem.corrupt).into());
            }
        }
        table.row(row);
    }
    gap(output)?;
    table.print(output)?;
    Ok(outcome)
}

/// A line between tables.
fn gap(output: &mut Output<'_>) -> io::Result<()> {
    if output.is_text() { output.line("") } else { Ok(()) }
}

fn verdict_outcome(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Clean => Outcome::Clean,
        Verdict::Torn(_) => Outcome::Torn,
        Verdict::Damaged { .. } => Outcome::Damaged,
    }
}

/// A verdict in words.
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Clean => "clean".to_owned(),
        Verdict::Torn(torn) => format!("torn at entry {}: never acknowledged", torn.sequence),
        Verdict::Damaged { each, .. } => {
            let entries: u64 = each.iter().map(|damage| damage.last - damage.first + 1).sum();
            format!("damaged: {entries} entries lost from {} on", each.first().map_or(0, |damage| damage.first))
        }
    }
}

/// Topics, if their names are known.
fn print_topics(directory: &Directory, partitions: &[Partition], output: &mut Output<'_>) -> io::Result<()> {
    let mut table = Table::new("topic", &["topic", "id", "partitions", "bytes", "log end"]);
    let mut topics: BTreeMap<(&str, TopicId), (u64, u64, Offset)> = BTreeMap::new();
    for partition in partitions {
        let Some(name) = directory.names.of(partition.id.topic) else { continue };
        let (count, bytes, ends) = topics.entry((name, partition.id.topic)).or_default();
        *count += 1;
        *bytes += partition.pending_bytes();
        for segment in &partition.segments {
            *bytes += std::fs::metadata(partition.segment_path(segment.base)).map_or(0, |about| about.len());
        }
        *ends += partition.image.as_ref().map_or(0, |image| image.log_end);
    }
    if topics.is_empty() {
        return Ok(());
    }
    for ((name, id), (count, bytes, ends)) in topics {
        table.row(vec![name.into(), id.to_string().into(), count.into(), bytes.into(), ends.into()]);
    }
    gap(output)?;
    table.print(output)
}

fn print_partitions(disk: &mut ReadOnly, directory: &Directory, partitions: &[Partition], output: &mut Output<'_>) -> io::Result<()> {
    let mut table = Table::new(
        "partition",
        &["partition", "name", "shard", "log start", "durable end", "log end", "epoch", "segments", "pending bytes", "producers", "state"],
    );
    for partition in partitions {
        let name = directory.names.partition(partition.id);
        let mut row = vec![partition.id.to_string().into(), name.into(), partition.shard.into()];
        match &partition.image {
            Some(image) => {
                row.extend([image.log_start, image.durable_end, image.log_end].map(Value::from));
                row.extend([last_epoch(disk, partition).into(), partition.segments.len().into(), partition.pending_bytes().into()]);
                row.push(image.large.producers.len().into());
                let state = image.state_file.map_or("journal".to_owned(), |file| file.name().to_string());
                let intact = if partition.is_damaged { format!("damaged: intact up to {}; {state}", image.log_end) } else { state };
                row.push(intact.into());
            }
            None => {
                row.extend((0..4).map(|_| Value::Null));
                row.extend([partition.segments.len().into(), Value::Null, Value::Null]);
                row.push(if partition.is_deleted { "deleted" } else { "not readable" }.into());
            }
        }
        table.row(row);
    }
    gap(output)?;
    table.print(output)
}

/// The epoch of the last batch, if a few headers tell it.
fn last_epoch(disk: &mut ReadOnly, partition: &Partition) -> Option<Epoch> {
    let image = partition.image.as_ref()?;
    if let Some(PendingBytes::Journal(bytes)) = image.pending.last().map(|pending| &pending.bytes) {
        return walk::batches(bytes).last()?.ok().map(|found| found.header.epoch);
    }
    let facts = image.large.index.summary();
    let from = u64::from(image.large.index.entries().last()?.place);
    let mut segment = Segment::open(disk, &partition.segment_path(facts.base), false).ok()?;
    let mut epoch = None;
    let mut see = |piece: Piece<'_>| {
        if let Piece::Batch { header, .. } = piece {
            epoch = Some(header.epoch);
        }
        Ok(())
    };
    segment.walk(disk, from..facts.bytes, &mut see).ok()?;
    epoch
}

fn print_segments(disk: &mut ReadOnly, directory: &Directory, partitions: &[Partition], output: &mut Output<'_>) -> io::Result<()> {
    let mut table = Table::new("segment", &["segment", "state", "end", "bytes", "file bytes", "max timestamp ms", "index"]);
    for partition in partitions {
        for segment in &partition.segments {
            let file_bytes = Segment::open(disk, &partition.segment_path(segment.base), false).map(|file| file.len());
            let (summary, told_by) = summary(disk, directory, partition, *segment);
            let kind = match segment.kind {
                Kind::Closed => "closed",
                Kind::Active => "active",
                Kind::Unknown => "unknown",
            };
            table.row(vec![
                format!("{}/{}", partition.id, paths::segment_name(segment.base)).into(),
                kind.into(),
                summary.end.into(),
                summary.bytes.into(),
                match file_bytes {
                    Ok(bytes) => bytes.into(),
                    Err(IoError::NOT_FOUND) => "no file".into(),
                    Err(error) => error.to_string().into(),
                },
                Some(summary.max_timestamp).filter(|timestamp| *timestamp != NO_TIMESTAMP).into(),
                told_by.into(),
            ]);
        }
    }
    gap(output)?;
    table.print(output)
}

/// The facts of a segment, and who told them.
fn summary(disk: &mut ReadOnly, directory: &Directory, partition: &Partition, segment: SegmentFile) -> (Summary, &'static str) {
    if segment.kind == Kind::Active
        && let Some(image) = &partition.image
    {
        return (*image.large.index.summary(), "in the journal");
    }
    let path = paths::index(&partition.folder, segment.base);
    let told = match disk.read_file(&path, crate::partition::INDEX_BYTES_MAX) {
        Ok(Ok(bytes)) => index::decode_summary(&bytes, segment.base, "").map_err(|_| "damaged"),
        Ok(Err(_)) => Err("damaged"),
        Err(_) => Err("absent"),
    };
    let why = match told {
        Ok(summary) => return (summary, "file"),
        Err(why) => why,
    };
    let mut summary = Summary::empty(segment.base);
    let is_closed = segment.kind == Kind::Closed && !directory.is_in_use;
    if let Ok(mut file) = Segment::open(disk, &partition.segment_path(segment.base), is_closed) {
        let mut see = |piece: Piece<'_>| {
            if let Piece::Batch { header, .. } = piece {
                summary.end = header.next_offset();
                summary.bytes += header.size as u64;
                summary.max_timestamp = summary.max_timestamp.max(header.max_timestamp);
            }
            Ok(())
        };
        let end = file.len().min(SEGMENT_BYTES_MAX);
        let _ = file.walk(disk, 0..end, &mut see); // what cannot be read is verify's to tell
    }
    (summary, why)
}
