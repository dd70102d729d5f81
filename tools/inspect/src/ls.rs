//! `ls`: whose a data directory is, its journals, its partitions and their segments.
//!
//! Reads facts, not batches: of a segment without a readable index it counts batch headers.

use crate::directory::{Directory, damage};
use crate::error::InspectError;
use crate::partition::{Kind, Partition, SegmentFile};
use crate::read_only::ReadOnly;
use crate::segment::{Piece, SEGMENT_BYTES_MAX, Segment};
use crate::table::Table;
use crate::{Outcome, Output};
use millrace_base::ids::PartitionId;
use millrace_base::offset::Epoch;
use millrace_io::IoError;
use millrace_log::image::PendingBytes;
use millrace_log::index::{NO_TIMESTAMP, Summary};
use millrace_log::journal::Verdict;
use millrace_log::{index, paths, walk};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

pub fn ls(path: &Path, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let mut directory = Directory::open(&mut disk, path)?;
    warn_in_use(&directory, output)?;
    let mut damaged = identity(&directory, output)?;
    damaged |= journals(&directory, output)?;
    let partitions = load(&mut disk, &mut directory)?;
    print_partitions(&mut disk, &partitions, output)?;
    print_segments(&mut disk, &directory, &partitions, output)?;
    let notes = directory.notes.iter().chain(partitions.iter().flat_map(|partition| &partition.notes));
    for note in notes {
        output.note(note)?;
    }
    for problem in partitions.iter().flat_map(|partition| &partition.problems) {
        output.line(problem)?;
        damaged = true;
    }
    Ok(Outcome::of(damaged))
}

pub fn warn_in_use(directory: &Directory, output: &mut Output<'_>) -> io::Result<()> {
    if directory.is_in_use {
        let path = directory.path.display();
        output.note(format_args!("a broker runs on {path}; what it writes meanwhile may be missing here or look damaged"))?;
    }
    Ok(())
}

/// Every partition that a journal or a folder speaks of.
pub fn load(disk: &mut ReadOnly, directory: &mut Directory) -> Result<Vec<Partition>, InspectError> {
    let mut ids: BTreeSet<PartitionId> = directory.folders(disk)?.into_iter().collect();
    ids.extend(directory.partitions.keys());
    let told = directory.is_told_in_full();
    let mut partitions = Vec::new();
    for id in ids {
        let found = directory.partitions.remove(&id);
        partitions.push(Partition::load(disk, &directory.path, id, found, told));
    }
    Ok(partitions)
}

fn identity(directory: &Directory, output: &mut Output<'_>) -> io::Result<bool> {
    match &directory.meta {
        Ok(meta) => {
            let mut table = Table::new(&["data directory", "directory id", "cluster id", "node", "format"]);
            let path = directory.path.display().to_string();
            table.row(vec![path, meta.directory.to_string(), meta.cluster.to_string(), meta.node.to_string(), paths::FORMAT.to_string()]);
            table.print(output)?;
            Ok(false)
        }
        Err(corrupt) => {
            output.line(corrupt)?;
            Ok(true)
        }
    }
}

fn journals(directory: &Directory, output: &mut Output<'_>) -> io::Result<bool> {
    let mut table = Table::new(&["journal", "files", "bytes", "live entries", "oldest live", "next", "incarnation", "verdict"]);
    let mut is_damaged = false;
    for (shard, journal) in &directory.journals {
        let mut row = vec![shard.to_string()];
        match &journal.found {
            Ok(found) => {
                is_damaged |= !damage(&found.verdict).is_empty();
                let bytes: u64 = found.files.iter().map(|file| file.bytes).sum();
                let incarnation = found.openings.list.last().map_or("-".to_owned(), |opening| format!("{:016x}", opening.incarnation));
                row.extend([found.files.len().to_string(), bytes.to_string(), found.entries.len().to_string()]);
                row.extend([found.oldest_live.to_string(), found.next.to_string(), incarnation, verdict(&found.verdict)]);
            }
            Err(corrupt) => {
                is_damaged = true;
                row.extend((0..6).map(|_| "-".to_owned()));
                row.push(format!("unreadable: {corrupt}"));
            }
        }
        table.row(row);
    }
    output.line("")?;
    table.print(output)?;
    Ok(is_damaged)
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

fn print_partitions(disk: &mut ReadOnly, partitions: &[Partition], output: &mut Output<'_>) -> io::Result<()> {
    let mut table = Table::new(&[
        "partition",
        "shard",
        "log start",
        "durable end",
        "log end",
        "epoch",
        "segments",
        "pending bytes",
        "producers",
        "state",
    ]);
    for partition in partitions {
        let mut row = vec![partition.id.to_string(), partition.shard.map_or("-".to_owned(), |shard| shard.to_string())];
        match &partition.image {
            Some(image) => {
                let epoch = last_epoch(disk, partition).map_or("-".to_owned(), |epoch| epoch.to_string());
                row.extend([image.log_start, image.durable_end, image.log_end].map(|offset| offset.to_string()));
                row.extend([epoch, partition.segments.len().to_string(), partition.pending_bytes().to_string()]);
                row.push(image.large.producers.len().to_string());
                row.push(image.state_file.map_or("journal".to_owned(), |name| name.to_string()));
            }
            None => {
                row.extend((0..4).map(|_| "-".to_owned()));
                row.extend([partition.segments.len().to_string(), "-".to_owned(), "-".to_owned()]);
                row.push(if partition.is_deleted { "deleted".to_owned() } else { "not readable".to_owned() });
            }
        }
        table.row(row);
    }
    output.line("")?;
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
    let mut table = Table::new(&["segment", "kind", "end", "bytes", "file bytes", "max timestamp ms", "index"]);
    for partition in partitions {
        for segment in &partition.segments {
            let file_bytes = Segment::open(disk, &partition.segment_path(segment.base), false).map(|file| file.len());
            let (summary, told_by) = summary(disk, directory, partition, *segment);
            let kind = match segment.kind {
                Kind::Closed => "closed",
                Kind::Active => "active",
                Kind::Unknown => "unknown",
            };
            let timestamp = if summary.max_timestamp == NO_TIMESTAMP { "-".to_owned() } else { summary.max_timestamp.to_string() };
            table.row(vec![
                format!("{}/{}", partition.id, paths::segment_name(segment.base)),
                kind.to_owned(),
                summary.end.to_string(),
                summary.bytes.to_string(),
                match file_bytes {
                    Ok(bytes) => bytes.to_string(),
                    Err(IoError::NOT_FOUND) => "no file".to_owned(),
                    Err(error) => error.to_string(),
                },
                timestamp,
                told_by.to_owned(),
            ]);
        }
    }
    output.line("")?;
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
