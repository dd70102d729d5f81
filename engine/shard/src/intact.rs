//! What is intact of a damaged partition, read at start without changing anything.
//!
//! 1. The journal gives all that was stated before the damage ([`millrace_log::image::PartitionImage::finish_intact`]): nothing behind a gap
//!    counts.
//! 2. Batches that were written straight to a segment count up to the first that is not as the journal says.
//! 3. Segments are read as they are, up to the first that is missing or cut: what lies behind the intact end stays there, also what a later
//!    life of the partition has written. A state file that is lost took only the index with it, which is made again, and the producers.
//! 4. The term becomes one that no record that was lost can have been appended under, so that the next epoch is new to every reader.
//!
//! Invariants: no file is written, cut or removed; log start <= intact end.
//! Knows nothing of why it is damaged.

use crate::boot::{PartitionFound, replay_steps};
use crate::inventory::{active_part, check_len, decoded_summary, list_files, rebuild_index};
use millrace_base::batch;
use millrace_base::offset::{Epoch, Offset, Position};
use millrace_io::{Disk, IoError, OpenHow, Pool};
use millrace_log::image::Recovered;
use millrace_log::index::{Index, REBUILT_INTERVAL_BYTES, Summary};
use millrace_log::partition_state::{Large, Note};
use millrace_log::segments::{self, Segments};
use millrace_log::walk::{self, STORED_BYTES_MAX};
use millrace_log::{extent, paths};
use millrace_raftlog::{Record as ConsensusRecord, State};
use std::path::Path;

/// The partition as far as it is intact. `damage`: why no farther.
///
/// # Errors
/// Not even that can be read.
pub fn read(
    disk: &mut dyn Disk,
    folder: &Path,
    mut image: Recovered,
    damage: String,
    oldest_sequence: u64,
    pool: &Pool,
) -> Result<PartitionFound, String> {
    let reached = image.log_end.max(image.lost.end);
    // An extent that differs ends the log before it, stated durable or not: both are behind a damage that is known.
    let _ = image.take_extents(|direct, begin| extent::find(disk, &paths::segment(folder, direct.segment), direct, begin, pool));
    let segments = segments_as_they_are(disk, folder, &mut image)?;
    found(disk, folder, image, segments, damage, oldest_sequence, reached)
}

/// The same of a partition that was whole but for what its segments hold: all of that is proved, and the first batch that is not intact ends it.
///
/// # Errors
/// Likewise.
pub fn prove(disk: &mut dyn Disk, folder: &Path, whole: PartitionFound, damage: String) -> Result<PartitionFound, String> {
    let PartitionFound { mut image, mut segments, oldest_sequence, .. } = whole;
    let reached = image.log_end.max(image.lost.end);
    if let Some(bad) = first_bad(disk, folder, &segments) {
        let closed = segments.all().copied().take_while(|summary| summary.base < bad.base).collect();
        segments = up_to(disk, folder, &mut image, closed, bad.base, bad.end)?;
    }
    found(disk, folder, image, segments, damage, oldest_sequence, reached)
}

/// The first segment whose batches are not all intact.
pub fn first_bad(disk: &mut dyn Disk, folder: &Path, segments: &Segments) -> Option<Summary> {
    segments.all().copied().find(|summary| {
        let intact = longest(disk, &paths::segment(folder, summary.base), summary.base, summary.end, |_, _| {});
        intact.summary().end < summary.end
    })
}

fn found(
    disk: &mut dyn Disk,
    folder: &Path,
    image: Recovered,
    segments: Segments,
    damage: String,
    oldest_sequence: u64,
    reached: Offset,
) -> Result<PartitionFound, String> {
    let consensus = consensus_up_to(&image)?;
    let part = active_part(disk, &paths::segment(folder, image.segment), image.segment_bytes)?;
    let damage = Some(Note { end: reached.max(image.log_end), reason: damage });
    Ok(PartitionFound { image, consensus, segments, part, oldest_sequence, truncation: None, damage, may_return: false })
}

/// The consensus state, of which nothing behind the intact end counts but the term.
fn consensus_up_to(image: &Recovered) -> Result<State, String> {
    let (mut state, end) = (replay_steps(image)?, image.log_end);
    if state.history.end() < end {
        return Err(format!("its consensus state ends at offset {}, its batches at {end}", state.history.end()));
    }
    let epoch = state.history.starts().rev().find(|start| start.offset <= end).map(|start| start.epoch);
    let to = Position::new(epoch.ok_or_else(|| format!("no epoch is known to have begun by offset {end}"))?, end);
    if !state.history.holds(to) {
        return Err(format!("its consensus state does not reach offset {end}"));
    }
    state.history.truncate(to);
    state.marks.log_start = state.marks.log_start.max(image.log_start);
    let told = image.lost.steps.iter().filter_map(|step| ConsensusRecord::decode(step).ok()).map(|step| step.term);
    let term = told.chain([state.term, image.lost.epoch]).max().unwrap_or(0);
    // A start of the node begins one epoch, in one entry.
    let term = term.saturating_add(Epoch::try_from(image.lost.entries).unwrap_or(Epoch::MAX));
    if term > state.term {
        (state.term, state.vote) = (term, None);
    }
    Ok(state)
}

fn segments_as_they_are(disk: &mut dyn Disk, folder: &Path, image: &mut Recovered) -> Result<Segments, String> {
    let files = list_files(disk, folder)?;
    let inventory =
        segments::inventory(files.keys().map(String::as_str), image.log_start, image.segment, image.state_file.map(|file| file.name()));
    let ends = inventory.closed.iter().skip(1).copied().chain([image.segment]);
    let mut closed: Vec<Summary> = Vec::new();
    for (base, end) in inventory.closed.iter().copied().zip(ends) {
        let summary = match decoded_summary(disk, folder, base) {
            Some(summary) => Ok(summary),
            None => rebuild_index(disk, &paths::segment(folder, base), base, end).map(|index| *index.summary()),
        };
        match summary.and_then(|summary| check_len(&files, folder, &summary).map(|()| summary)) {
            Ok(summary) if summary.end == end => closed.push(summary),
            // The next one is missing, or this one is not whole.
            Ok(_) | Err(_) => return up_to(disk, folder, image, closed, base, end),
        }
    }
    let active = paths::segment(folder, image.segment);
    if image.is_large_lost {
        let index = rebuild_index(disk, &active, image.segment, image.durable_end);
        match index.ok().filter(|index| index.summary().bytes == image.segment_bytes) {
            Some(index) => image.large.index = index,
            None => return up_to(disk, folder, image, closed, image.segment, image.durable_end),
        }
    }
    if check_len(&files, folder, image.large.index.summary()).is_err() {
        return up_to(disk, folder, image, closed, image.segment, image.durable_end);
    }
    let segments = Segments::restore(closed, image.large.index.clone()).map_err(|error| error.to_string())?;
    let begin = segments.begin();
    if begin > image.log_start {
        return Err(format!("its log starts at offset {}, but its first segment at {begin}", image.log_start));
    }
    Ok(segments)
}

/// The log ends in segment `base`, which should have ended at offset `end`, behind its last intact batch.
fn up_to(
    disk: &mut dyn Disk,
    folder: &Path,
    image: &mut Recovered,
    closed: Vec<Summary>,
    base: Offset,
    end: Offset,
) -> Result<Segments, String> {
    let begin = closed.first().map_or(base, |first| first.base);
    let index = longest(disk, &paths::segment(folder, base), base, end, |_, _| {});
    let (facts, log_start) = (*index.summary(), image.log_start);
    if begin > log_start || facts.end <= log_start {
        return Err(format!("nothing of its segments is left from offset {log_start} on"));
    }
    image.lost.end = image.lost.end.max(image.log_end);
    (image.segment, image.segment_bytes, image.durable_end, image.log_end) = (facts.base, facts.bytes, facts.end, facts.end);
    image.pending.clear();
    image.rolls.clear();
    image.large.producers.truncate(facts.end);
    image.large = Large { index: index.clone(), producers: image.large.producers.clone() };
    (image.extents_end, image.is_large_lost) = (None, false);
    Segments::restore(closed, index).map_err(|error| error.to_string())
}

/// The index of the intact batches at the front of a segment, none at or above offset `end`. `each` is told of every one.
pub fn longest(disk: &mut dyn Disk, path: &Path, base: Offset, end: Offset, mut each: impl FnMut(&batch::Header, &[u8])) -> Index {
    let mut index = Index::new(base, REBUILT_INTERVAL_BYTES);
    let Ok(file) = disk.open(path, OpenHow::default()) else { return index };
    let mut bytes = Vec::new();
    while index.summary().end < end {
        let place = index.summary().bytes;
        let Ok(header) = read_at(disk, file, place, batch::HEADER_BYTES, &mut bytes).map(|()| walk::header_at(&bytes)) else { break };
        let Some(header) = header.ok().filter(|header| header.base_offset == index.summary().end && header.next_offset() <= end) else {
            break;
        };
        let reaches = Summary::reaches(base, header.next_offset()) && place + STORED_BYTES_MAX as u64 <= u64::from(u32::MAX);
        if !reaches || read_at(disk, file, place, header.size, &mut bytes).is_err() || batch::check_stored(&bytes).is_err() {
            break;
        }
        index.add(&header, &bytes);
        each(&header, &bytes);
    }
    disk.close(file);
    index
}

fn read_at(disk: &mut dyn Disk, file: millrace_io::File, place: u64, len: usize, bytes: &mut Vec<u8>) -> Result<(), IoError> {
    bytes.resize(len, 0);
    if disk.read(file, place, bytes)? == len { Ok(()) } else { Err(IoError::NOT_FOUND) }
}
