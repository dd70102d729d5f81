//! `show`: entries of a journal, batches and records of a partition, and what one file says.
//!
//! Invariants: everything is printed as it is read, batch by batch, so that memory does not grow with what is shown.
//! Knows nothing of whether it should be there: `verify` does.

use crate::batches::{Found, Printer};
use crate::commands::Meaning;
use crate::directory::{Directory, damage};
use crate::error::InspectError;
use crate::journal::{Told, print_header};
use crate::kafka;
use crate::log::Log;
use crate::output::Output;
use crate::partition::{Kind, Partition};
use crate::problem::Problem;
use crate::read_only::ReadOnly;
use crate::segment::{Piece, SEGMENT_BYTES_MAX, Segment};
use crate::source::Source;
use crate::spare::Spare;
use crate::transactions::{Fate, Fates};
use crate::{Outcome, Show, files, ls};
use millrace_base::batch;
use millrace_base::ids::{META_TOPIC, PartitionId, ShardId};
use millrace_base::offset::Offset;
use millrace_base::value::field;
use millrace_io::Slice;
use millrace_log::image::PendingBytes;
use millrace_log::journal::Touched;
use millrace_log::{paths, walk};
use std::path::{Component, Path};

enum What<'a> {
    Journal(ShardId),
    /// By its topic's id.
    Partition(PartitionId),
    /// By its topic's name.
    Named(&'a str, u32),
    /// A path in the data directory.
    File,
}

pub fn show(path: &Path, show: &Show, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    if path.is_dir() && !Directory::is_one(&mut disk, path) {
        match Source::open(&mut disk, path)? {
            Source::Kafka(directory) => return kafka::show::show(&directory, show, output),
            Source::Ours(_) => {}
        }
    }
    let what = match &show.what {
        None if path.is_dir() => None,
        None => return files::show(&mut disk, path, show, output),
        Some(what) => match parse(what)? {
            What::File => return files::show(&mut disk, &path.join(what), show, output),
            // A file may be called like that.
            What::Named(..) if path.join(what).is_file() => return files::show(&mut disk, &path.join(what), show, output),
            parsed => Some(parsed),
        },
    };
    let mut directory = Directory::open(&mut disk, path)?;
    ls::warn_in_use(&directory, output)?;
    let mut damaged = false;
    match what {
        None => {
            let shards: Vec<ShardId> = directory.journals.keys().copied().collect();
            for shard in shards {
                damaged |= journal(&directory, shard, show, output)?;
            }
            for id in directory.ids(&mut disk)? {
                let partition = directory.take(&mut disk, id);
                damaged |= log(&mut disk, &directory, partition, show, output)?;
            }
        }
        Some(What::Journal(shard)) => damaged |= journal(&directory, shard, show, output)?,
        Some(What::Partition(id)) => damaged |= one(&mut disk, &mut directory, id, show, output)?,
        Some(What::Named(name, index)) => {
            let ids = directory.ids(&mut disk)?;
            let topic = directory.names.id(name, |topic| ids.contains(&PartitionId { topic, index })).ok_or_else(|| {
                let text = format!("{} has no partition {name}-{index}; `ls` lists those that are there", path.display());
                InspectError::Usage(text)
            })?;
            damaged |= one(&mut disk, &mut directory, PartitionId { topic, index }, show, output)?;
        }
        Some(What::File) => unreachable!("shown above"),
    }
    for note in &directory.notes {
        output.note(note)?;
    }
    Ok(Outcome::of(damaged))
}

fn one(
    disk: &mut ReadOnly,
    directory: &mut Directory,
    id: PartitionId,
    show: &Show,
    output: &mut Output<'_>,
) -> Result<bool, InspectError> {
    if !directory.ids(disk)?.contains(&id) {
        let text = format!("{} has no partition {id}; `ls` lists those that are there", directory.path.display());
        return Err(InspectError::Usage(text));
    }
    let partition = directory.take(disk, id);
    log(disk, directory, partition, show, output)
}

fn parse(what: &str) -> Result<What<'_>, InspectError> {
    if let Some((first, second)) = what.split_once('/') {
        if let Some(shard) = paths::shard_named(second).filter(|_| first == "journal") {
            return Ok(What::Journal(shard));
        }
        match (paths::topic_named(first), paths::partition_named(second)) {
            (Some(topic), Some(index)) => return Ok(What::Partition(PartitionId { topic, index })),
            (None, Some(index)) if !first.is_empty() && !matches!(first, "." | "..") => return Ok(What::Named(first, index)),
            _ => {}
        }
    }
    let is_inside = !what.is_empty() && Path::new(what).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside {
        return Err(files::unknown(Path::new(what)));
    }
    match what.rsplit_once('-').map(|(name, index)| (name, paths::partition_named(index))) {
        Some((name, Some(index))) if !name.is_empty() && !name.contains('/') => Ok(What::Named(name, index)),
        _ => Ok(What::File),
    }
}

/// Gives whether it is damaged.
fn journal(directory: &Directory, shard: ShardId, show: &Show, output: &mut Output<'_>) -> Result<bool, InspectError> {
    let Some(journal) = directory.journals.get(&shard) else {
        let text = format!("{} has no journal of shard {shard}; `ls` lists those that are there", directory.path.display());
        return Err(InspectError::Usage(text));
    };
    let found = match &journal.found {
        Ok(found) => found,
        Err(problem) => {
            problem.tell(output, None)?;
            return Ok(true);
        }
    };
    let verdict = ls::verdict(&found.verdict);
    let fields = || vec![field("journal", shard), field("verdict", verdict.as_str()), field("next", found.next)];
    output.tell("journal", fields, format_args!("journal {shard}: {verdict}; next entry {}", found.next))?;
    for opening in &found.openings.list {
        let fields = || vec![field("incarnation", format!("{:016x}", opening.incarnation)), field("first", opening.first)];
        let line = format_args!("opening: incarnation {:016x} from entry {} on", opening.incarnation, opening.first);
        output.tell("opening", fields, line)?;
    }
    let mut is_there = false;
    for entry in found.entries.iter().filter(|entry| show.entry.is_none_or(|wanted| entry.sequence == wanted)) {
        is_there = true;
        print_header(output, &entry.header, entry.slot, entry.place)?;
        for record in &entry.records {
            let name = directory.names.partition(record.partition());
            Told { record, payload: &entry.payload, name, whole: show.records }.print(output)?;
        }
    }
    for damage in damage(&found.verdict) {
        let corrupt = &damage.corrupt;
        let touched = match &damage.touched {
            Touched::All => "any partition".to_owned(),
            Touched::Partitions(ids) => ids.iter().map(|id| directory.names.both(*id)).collect::<Vec<_>>().join(", "),
        };
        let fields = || {
            vec![
                field("first", damage.first),
                field("last", damage.last),
                field("file", corrupt.file.as_str()),
                field("place", corrupt.place),
                field("expected", corrupt.expected.as_str()),
                field("found", corrupt.found.as_str()),
                field("held_records_of", touched.as_str()),
            ]
        };
        let line = format_args!("lost entries {} to {}: {corrupt}; they held records of {touched}", damage.first, damage.last);
        output.tell("lost_entries", fields, line)?;
    }
    match show.entry {
        Some(wanted) if !is_there => Err(InspectError::Usage(format!(
            "journal {shard} has no readable live entry {wanted}; live are {} to {}",
            found.oldest_live,
            found.next - 1
        ))),
        Some(_) | None => Ok(!damage(&found.verdict).is_empty()),
    }
}

/// Batches of a partition: those in segments, then those in the journal. Gives whether something is damaged.
fn log(
    disk: &mut ReadOnly,
    directory: &Directory,
    partition: Partition,
    show: &Show,
    output: &mut Output<'_>,
) -> Result<bool, InspectError> {
    let who = directory.names.both(partition.id);
    if output.is_text() {
        output.line(format_args!("partition {who}"))?;
    }
    let mut damaged = !partition.problems.is_empty();
    for problem in &partition.problems {
        problem.tell(output, Some(&who))?;
    }
    for note in &partition.notes {
        output.note(note)?;
    }
    let meaning =
        Meaning::of(Some(partition.id.topic), directory.names.of(partition.id.topic).filter(|_| partition.id.topic != META_TOPIC));
    let whole = Log::of(directory, &partition);
    let mut fates = Fates::new(&whole, Spare::new(&directory.path));
    for (at, segment) in partition.segments.iter().enumerate() {
        let next = partition.segments.get(at + 1).map(|next| next.base);
        if show.from.is_some_and(|from| next.is_some_and(|next| next <= from)) {
            continue;
        }
        let end = partition.batches_end(*segment);
        if end == Some(0) {
            continue;
        }
        let path = partition.segment_path(segment.base);
        let is_closed = segment.kind == Kind::Closed && !directory.is_in_use;
        match Segment::open(disk, &path, is_closed) {
            Ok(mut file) => damaged |= segment_batches(disk, &mut file, &path, end, show, meaning, Some(&mut fates), output)?,
            Err(error) => {
                let text = error.to_string();
                let fields = || vec![field("file", path.display().to_string()), field("why", text.as_str())];
                output.tell("unreadable", fields, format_args!("{}: {text}", path.display()))?;
                damaged = true;
            }
        }
    }
    let pending = partition.image.as_ref().map_or(&[][..], |image| &image.pending);
    for pending in pending.iter().filter(|pending| show.from.is_none_or(|from| pending.end > from)) {
        let shard = partition.shard.unwrap_or_default();
        if output.is_text() {
            output.line(format_args!("journal {shard}, entry {}: {}..{}", pending.sequence, pending.base, pending.end))?;
        }
        match &pending.bytes {
            PendingBytes::Journal(bytes) => {
                let place = vec![field("partition", who.as_str()), field("journal", shard), field("entry", pending.sequence)];
                let mut printer = Printer::new(show.records.then_some(meaning), place);
                damaged |= journal_batches(bytes, show, &mut fates, &mut printer, output)?;
            }
            PendingBytes::Direct(direct) => {
                let (segment, place, bytes) = (direct.segment, direct.place, direct.bytes);
                let fields = || vec![field("segment", segment), field("place", place), field("bytes", bytes)];
                let line = format_args!("  written straight to segment {segment} at byte {place}, {bytes} bytes");
                output.tell("direct", fields, line)?;
            }
        }
    }
    Ok(damaged)
}

fn is_wanted(header: &batch::Header, from: Option<Offset>) -> bool {
    from.is_none_or(|from| header.next_offset() > from)
}

/// Batches of one segment file. `end`: the byte at which they end, if it is known. Gives whether something is damaged.
pub fn segment_batches(
    disk: &mut ReadOnly,
    segment: &mut Segment,
    path: &Path,
    end: Option<u64>,
    show: &Show,
    meaning: Meaning,
    mut fates: Option<&mut Fates<'_>>,
    output: &mut Output<'_>,
) -> Result<bool, InspectError> {
    let mut printer = Printer::new(show.records.then_some(meaning), vec![field("file", path.display().to_string())]);
    if output.is_text() {
        output.line(path.display())?;
    }
    printer.heading(output)?;
    let end = end.unwrap_or(segment.len()).min(segment.len()).min(SEGMENT_BYTES_MAX);
    let mut damaged = false;
    segment.walk(disk, 0..end, &mut |piece| {
        match piece {
            Piece::Batch { place, header, bytes, check } => {
                damaged |= check.is_err();
                if is_wanted(&header, show.from) {
                    let fate = fate_of(&mut fates, &header)?;
                    printer.print(output, &Found { place, header, bytes, check, fate })?;
                }
            }
            Piece::Zeros { place } => {
                output.tell("zeros", || vec![field("place", place)], format_args!("zeros from byte {place} on"))?;
            }
            Piece::Corrupt(corrupt) => {
                damaged = true;
                Problem { corrupt, at_start: None }.tell(output, None)?;
            }
        }
        Ok(())
    })?;
    Ok(damaged)
}

/// What became of the batch's transaction, where that is looked up.
fn fate_of(fates: &mut Option<&mut Fates<'_>>, header: &batch::Header) -> Result<Option<Fate>, InspectError> {
    fates.as_mut().map_or(Ok(None), |fates| fates.of(header))
}

fn journal_batches(
    bytes: &Slice,
    show: &Show,
    fates: &mut Fates<'_>,
    printer: &mut Printer,
    output: &mut Output<'_>,
) -> Result<bool, InspectError> {
    let mut damaged = false;
    printer.heading(output)?;
    for found in walk::batches(bytes) {
        match found {
            Ok(found) => {
                let check = batch::check_stored(found.bytes).map(drop);
                damaged |= check.is_err();
                if is_wanted(&found.header, show.from) {
                    let fate = fates.of(&found.header)?;
                    let (place, header, bytes) = (found.place as u64, found.header, found.bytes);
                    printer.print(output, &Found { place, header, bytes, check, fate })?;
                }
            }
            Err(error) => {
                damaged = true;
                output.tell("unreadable", || vec![field("why", error.to_string())], error)?;
            }
        }
    }
    Ok(damaged)
}
