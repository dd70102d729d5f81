//! What is intact of a damaged partition, read at start without changing anything.
//!
//! 1. The journal gives all that was stated before the damage ([`PartitionImage::finish_intact`]): nothing behind a gap counts.
//! 2. Batches that were written straight to a segment count up to the first that is not as the journal says.
//! 3. Segments are read as they are: what lies behind the intact end stays there, also what a later life of the partition has written.
//!
//! Invariants: no file is written, cut or removed; log start <= intact end.
//! Knows nothing of why it is damaged.

use crate::boot::{PartitionFound, active_part, decoded_summary, rebuild_index, replay_steps};
use millrace_base::offset::{Offset, Position};
use millrace_io::{Disk, IoError, Pool};
use millrace_log::image::Recovered;
use millrace_log::segments::{self, Segments};
use millrace_log::{extent, paths};
use millrace_raftlog::State;
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
    // An extent that differs ends the log before it, stated durable or not: both are behind a damage that is known.
    let _ = image.take_extents(|direct, begin| extent::find(disk, &paths::segment(folder, direct.segment), direct, begin, pool));
    let consensus = consensus_up_to(&image)?;
    let segments = segments_as_they_are(disk, folder, &image)?;
    let part = active_part(disk, &paths::segment(folder, image.segment), image.segment_bytes)?;
    Ok(PartitionFound { image, consensus, segments, part, oldest_sequence, truncation: None, damage: Some(damage) })
}

/// The consensus state, of which nothing behind the intact end counts.
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
    Ok(state)
}

fn segments_as_they_are(disk: &mut dyn Disk, folder: &Path, image: &Recovered) -> Result<Segments, String> {
    let names: Vec<String> = match disk.list(folder) {
        Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
        Err(IoError::NOT_FOUND) => Vec::new(),
        Err(error) => return Err(format!("{}: {error}", folder.display())),
    };
    let inventory = segments::inventory(names.iter().map(String::as_str), image.segment, image.state_file);
    let ends = inventory.closed.iter().skip(1).copied().chain([image.segment]);
    let mut closed = Vec::new();
    for (base, end) in inventory.closed.iter().copied().zip(ends) {
        let summary = match decoded_summary(disk, folder, base) {
            Some(summary) => summary,
            None => *rebuild_index(disk, &paths::segment(folder, base), base, end).map_err(|error| error.to_string())?.summary(),
        };
        closed.extend(Some(summary).filter(|summary| summary.end > image.log_start));
    }
    let segments = Segments::restore(closed, image.large.index.clone()).map_err(|error| error.to_string())?;
    let begin: Offset = segments.begin();
    if begin > image.log_start {
        return Err(format!("its log starts at offset {}, but its first segment at {begin}", image.log_start));
    }
    Ok(segments)
}
