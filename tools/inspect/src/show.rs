//! `show`: entries of a journal, batches and records of a partition, and what one file says.
//!
//! Invariants: everything is printed as it is read, batch by batch, so that memory does not grow with what is shown.
//! Knows nothing of whether it should be there: `verify` does.

use crate::directory::{Directory, damage};
use crate::error::InspectError;
use crate::partition::{Kind, Partition};
use crate::read_only::ReadOnly;
use crate::segment::{Piece, SEGMENT_BYTES_MAX, Segment};
use crate::{Outcome, Output, Show, batches, files, ls};
use millrace_base::batch;
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::offset::Offset;
use millrace_io::Slice;
use millrace_log::image::PendingBytes;
use millrace_log::journal::layout::Header;
use millrace_log::journal::{Record, Touched};
use millrace_log::partition_state::{Checkpoint, Large, LargeAt, Note, PartitionState};
use millrace_log::{paths, walk};
use std::path::{Component, Path};

enum What {
    All,
    Journal(ShardId),
    Partition(PartitionId),
}

pub fn show(path: &Path, show: &Show, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let what = match &show.what {
        None if path.is_dir() => What::All,
        None => return files::show(&mut disk, path, show, output),
        Some(what) => match parse(what)? {
            Some(what) => what,
            None => return files::show(&mut disk, &path.join(what), show, output),
        },
    };
    let mut directory = Directory::open(&mut disk, path)?;
    ls::warn_in_use(&directory, output)?;
    let mut damaged = false;
    match what {
        What::All => {
            let shards: Vec<ShardId> = directory.journals.keys().copied().collect();
            for shard in shards {
                damaged |= journal(&directory, shard, show, output)?;
            }
            for partition in ls::load(&mut disk, &mut directory)? {
                damaged |= log(&mut disk, &directory, partition, show, output)?;
            }
        }
        What::Journal(shard) => damaged |= journal(&directory, shard, show, output)?,
        What::Partition(id) => {
            let found = directory.partitions.remove(&id);
            let told = directory.is_told_in_full();
            if found.is_none() && !paths::partition(path, id).is_dir() {
                let text = format!("{} has no partition {id}; `ls` lists those that are there", path.display());
                return Err(InspectError::Usage(text));
            }
            let partition = Partition::load(&mut disk, path, id, found, told);
            damaged |= log(&mut disk, &directory, partition, show, output)?;
        }
    }
    for note in &directory.notes {
        output.note(note)?;
    }
    Ok(Outcome::of(damaged))
}

/// None: the path of a file in the data directory.
fn parse(what: &str) -> Result<Option<What>, InspectError> {
    if let Some((first, second)) = what.split_once('/') {
        if let Some(shard) = paths::shard_named(second).filter(|_| first == "journal") {
            return Ok(Some(What::Journal(shard)));
        }
        if let (Some(topic), Some(index)) = (paths::topic_named(first), paths::partition_named(second)) {
            return Ok(Some(What::Partition(PartitionId { topic, index })));
        }
    }
    let is_inside = !what.is_empty() && Path::new(what).components().all(|part| matches!(part, Component::Normal(_)));
    if is_inside { Ok(None) } else { Err(files::unknown(Path::new(what))) }
}

/// Gives whether it is damaged.
fn journal(directory: &Directory, shard: ShardId, show: &Show, output: &mut Output<'_>) -> Result<bool, InspectError> {
    let Some(journal) = directory.journals.get(&shard) else {
        let text = format!("{} has no journal of shard {shard}; `ls` lists those that are there", directory.path.display());
        return Err(InspectError::Usage(text));
    };
    let found = match &journal.found {
        Ok(found) => found,
        Err(corrupt) => {
            output.line(corrupt)?;
            return Ok(true);
        }
    };
    output.line(format_args!("journal {shard}: {}; next entry {}", ls::verdict(&found.verdict), found.next))?;
    for opening in &found.openings.list {
        output.line(format_args!("opening: incarnation {:016x} from entry {} on", opening.incarnation, opening.first))?;
    }
    let mut is_there = false;
    for entry in found.entries.iter().filter(|entry| show.entry.is_none_or(|wanted| entry.sequence == wanted)) {
        is_there = true;
        print_header(output, &entry.header, entry.slot, entry.place)?;
        for record in &entry.records {
            print_record(output, record, &entry.payload, show.records)?;
        }
    }
    for damage in damage(&found.verdict) {
        let corrupt = &damage.corrupt;
        let touched = match &damage.touched {
            Touched::All => "any partition".to_owned(),
            Touched::Partitions(ids) => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        output.line(format_args!("lost entries {} to {}: {corrupt}; they held records of {touched}", damage.first, damage.last))?;
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

/// An entry's header as one line.
pub fn print_header(output: &mut Output<'_>, header: &Header, slot: u32, place: u64) -> std::io::Result<()> {
    output.line(format_args!(
        "entry {}: {slot}.journal at byte {place}, {} bytes; incarnation {:016x}, chain {:08x}, header crc {:08x}; oldest live {}, synced {}, extents {} of which durable {}",
        header.sequence,
        header.entry_bytes,
        header.incarnation,
        header.chain,
        header.header_crc,
        header.oldest_live,
        header.synced,
        header.extents_before,
        header.extents_durable
    ))
}

/// A record as one line, and what its payload holds.
pub fn print_record(output: &mut Output<'_>, record: &Record, payload: &[u8], whole: bool) -> std::io::Result<()> {
    let part = |range: &millrace_log::journal::PayloadRange| {
        let start = range.start as usize;
        payload.get(start..start.saturating_add(range.len as usize)).unwrap_or_default()
    };
    let id = record.partition();
    match record {
        Record::Batches { base, end, payload, .. } => {
            output.line(format_args!("  batches    {id} {base}..{end}, {} bytes", payload.len))?;
            if whole { print_batches(output, part(payload)) } else { Ok(()) }
        }
        Record::Raft { truncate, log_start, step, .. } => {
            let mut line = format!("  raft       {id} step of {} bytes", step.len);
            if let Some(to) = truncate {
                line.push_str(&format!(", truncates to offset {} of epoch {}", to.offset, to.epoch));
            }
            if let Some(offset) = log_start {
                line.push_str(&format!(", log start {offset}"));
            }
            output.line(line)?;
            if whole { hex(output, part(step)) } else { Ok(()) }
        }
        Record::Roll { base, .. } => output.line(format_args!("  roll       {id} a segment begins at {base}")),
        Record::Checkpoint { end, segment, segment_bytes, delta, .. } => {
            output.line(format_args!(
                "  checkpoint {id} durable below {end}; segment {segment} holds {segment_bytes} bytes; delta of {} bytes",
                delta.len
            ))?;
            match Checkpoint::decode(part(delta)) {
                Ok(told) => output.line(format_args!(
                    "             {} index entries, {} bytes of producers' changes, largest timestamp {}",
                    told.entries.len(),
                    told.producers.len(),
                    told.facts.max_timestamp
                )),
                Err(error) => output.line(format_args!("             {error}")),
            }
        }
        Record::State { state, .. } => {
            output.line(format_args!("  state      {id} {} bytes", state.len))?;
            match PartitionState::decode(part(state)) {
                Ok(told) => print_state(output, &told, whole),
                Err(error) => output.line(format_args!("             {error}")),
            }
        }
        Record::Deleted { .. } => output.line(format_args!("  deleted    {id}")),
        Record::Damaged { reason, .. } => match Note::decode(part(reason)) {
            Ok(Note { end: 0, reason }) => output.line(format_args!("  damaged    {id} {}", reason.escape_debug())),
            Ok(Note { end, reason }) => output.line(format_args!("  damaged    {id} was known up to {end}: {}", reason.escape_debug())),
            Err(error) => output.line(format_args!("  damaged    {id} {error}")),
        },
        Record::Extent { base, end, segment, place, bytes, crc, tail, .. } => output.line(format_args!(
            "  extent     {id} {base}..{end} in segment {segment} at byte {place}, {bytes} bytes with crc {crc:08x}, and {} here",
            tail.len
        )),
    }
}

fn print_batches(output: &mut Output<'_>, bytes: &[u8]) -> std::io::Result<()> {
    for found in walk::batches(bytes) {
        match found {
            Ok(found) => {
                let check = batch::check_stored(found.bytes).map(drop);
                batches::print(output, found.place as u64, &found.header, found.bytes, &check, true)?;
            }
            Err(error) => output.line(format_args!("  {error}"))?,
        }
    }
    Ok(())
}

fn print_state(output: &mut Output<'_>, state: &PartitionState, whole: bool) -> std::io::Result<()> {
    output.line(format_args!(
        "             log start {}, durable end {}, log end {}; segment {} of {} bytes; rolls {:?}; consensus of {} bytes",
        state.log_start,
        state.durable_end,
        state.log_end,
        state.segment,
        state.segment_bytes,
        state.rolls,
        state.consensus.len()
    ))?;
    if whole {
        hex(output, &state.consensus)?;
    }
    match &state.large {
        LargeAt::Here(large) => print_large(output, large, whole),
        LargeAt::File(reference) => {
            let (name, bytes, crc) = (reference.name, reference.bytes, reference.crc);
            output.line(format_args!("             index and producers in {name}, {bytes} bytes with crc {crc:08x}"))
        }
    }
}

/// Index and producers of a partition.
pub fn print_large(output: &mut Output<'_>, large: &Large, whole: bool) -> std::io::Result<()> {
    let producers = &large.producers;
    output.line(format_args!("             {} index entries, {} producers", large.index.entries().len(), producers.len()))?;
    if !whole {
        return Ok(());
    }
    files::print_index(output, &large.index)?;
    for (id, producer) in producers.committed() {
        output.line(format_args!("             producer {id} epoch {} last used {} ms", producer.epoch, producer.last_use))?;
        for batch in &producer.batches {
            output.line(format_args!("               {batch:?}"))?;
        }
    }
    Ok(())
}

fn hex(output: &mut Output<'_>, bytes: &[u8]) -> std::io::Result<()> {
    for line in bytes.chunks(32) {
        let digits: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        output.line(format_args!("             {digits}"))?;
    }
    Ok(())
}

/// Batches of a partition: those in segments, then those in the journal. Gives whether something is damaged.
fn log(
    disk: &mut ReadOnly,
    directory: &Directory,
    partition: Partition,
    show: &Show,
    output: &mut Output<'_>,
) -> Result<bool, InspectError> {
    output.line(format_args!("partition {}", partition.id))?;
    let mut damaged = !partition.problems.is_empty();
    for problem in &partition.problems {
        output.line(problem)?;
    }
    for note in &partition.notes {
        output.note(note)?;
    }
    for (at, segment) in partition.segments.iter().enumerate() {
        let next = partition.segments.get(at + 1).map(|next| next.base);
        if show.from.is_some_and(|from| next.is_some_and(|next| next <= from)) {
            continue;
        }
        let facts = partition.image.as_ref().map(|image| *image.large.index.summary());
        let end = facts.filter(|_| segment.kind == Kind::Active).map(|facts| facts.bytes);
        if end == Some(0) {
            continue;
        }
        let path = partition.segment_path(segment.base);
        let is_closed = segment.kind == Kind::Closed && !directory.is_in_use;
        match Segment::open(disk, &path, is_closed) {
            Ok(mut file) => damaged |= segment_batches(disk, &mut file, &path, end, show, output)?,
            Err(error) => {
                output.line(format_args!("{}: {error}", path.display()))?;
                damaged = true;
            }
        }
    }
    let pending = partition.image.as_ref().map_or(&[][..], |image| &image.pending);
    for pending in pending.iter().filter(|pending| show.from.is_none_or(|from| pending.end > from)) {
        let shard = partition.shard.unwrap_or_default();
        output.line(format_args!("journal {shard}, entry {}: {}..{}", pending.sequence, pending.base, pending.end))?;
        match &pending.bytes {
            PendingBytes::Journal(bytes) => damaged |= journal_batches(bytes, show, output)?,
            PendingBytes::Direct(direct) => {
                let (segment, place, bytes) = (direct.segment, direct.place, direct.bytes);
                output.line(format_args!("  written straight to segment {segment} at byte {place}, {bytes} bytes"))?;
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
    output: &mut Output<'_>,
) -> Result<bool, InspectError> {
    output.line(path.display())?;
    batches::heading(output)?;
    let end = end.unwrap_or(segment.len()).min(segment.len()).min(SEGMENT_BYTES_MAX);
    let mut damaged = false;
    segment.walk(disk, 0..end, &mut |piece| {
        match piece {
            Piece::Batch { place, header, bytes, check } => {
                damaged |= check.is_err();
                if is_wanted(&header, show.from) {
                    batches::print(output, place, &header, bytes, &check, show.records)?;
                }
            }
            Piece::Zeros { place } => output.line(format_args!("zeros from byte {place} on"))?,
            Piece::Corrupt(corrupt) => {
                damaged = true;
                output.line(corrupt)?;
            }
        }
        Ok(())
    })?;
    Ok(damaged)
}

fn journal_batches(bytes: &Slice, show: &Show, output: &mut Output<'_>) -> Result<bool, InspectError> {
    let mut damaged = false;
    batches::heading(output)?;
    for found in walk::batches(bytes) {
        match found {
            Ok(found) => {
                let check = batch::check_stored(found.bytes).map(drop);
                damaged |= check.is_err();
                if is_wanted(&found.header, show.from) {
                    batches::print(output, found.place as u64, &found.header, found.bytes, &check, show.records)?;
                }
            }
            Err(error) => {
                damaged = true;
                output.line(error)?;
            }
        }
    }
    Ok(damaged)
}
