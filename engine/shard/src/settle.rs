//! A partition brought out of the journal by blocking storage: batches into the active segment and those that were to follow it, the rest into
//! one state.
//!
//! The bytes are those that a checkpoint would write, to the same places; doing it again after a crash writes them again. A roll behind all
//! batches is forgotten: the segment only grows larger than it would have.
//!
//! Invariants: nothing is changed in `found` before its batches are durable; no byte in front of them, nor behind, is changed.

use crate::boot::{PartitionFound, write_file};
use millrace_base::ids::PartitionId;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_io::{Disk, IoError, OpenHow};
use millrace_log::image::PendingBytes;
use millrace_log::index::{Index, Summary};
use millrace_log::partition_state::{Large, LargeAt, PartitionState};
use millrace_log::{paths, walk};
use std::path::Path;

/// One segment, and the bytes that it gets from byte `place` on.
struct Filled {
    index: Index,
    place: u64,
    bytes: Vec<u8>,
}

impl Filled {
    fn new(index: Index) -> Filled {
        Filled { place: index.summary().bytes, index, bytes: Vec::new() }
    }

    /// Whether a batch of so many bytes that ends at `end` can stand in it.
    fn takes(&self, end: Offset, bytes: usize) -> bool {
        let summary = self.index.summary();
        Summary::reaches(summary.base, end) && summary.bytes + bytes as u64 <= u64::from(u32::MAX)
    }

    fn write(&self, disk: &mut dyn Disk, folder: &Path, is_closed: bool) -> Result<(), IoError> {
        let summary = self.index.summary();
        let file = disk.open(&paths::segment(folder, summary.base), OpenHow { write: true, create: true, ..OpenHow::default() })?;
        let mut written = disk.write(file, self.place, &self.bytes);
        if is_closed {
            written = written.and_then(|()| disk.truncate(file, summary.bytes));
        }
        written = written.and_then(|()| disk.sync(file));
        disk.close(file);
        written?;
        if is_closed { write_file(disk, &paths::index(folder, summary.base), &self.index.encode()) } else { Ok(()) }
    }
}

/// Writes what is pending, which holds no extents any more, into the active segment, and from each stated roll on into the next.
///
/// # Errors
/// The disk's; nothing has changed but the segment behind the durable end, and files behind it.
pub fn settle(disk: &mut dyn Disk, data: &Path, id: PartitionId, found: &mut PartitionFound) -> Result<(), IoError> {
    let (active, mut producers) = (found.segments.active().clone(), found.image.large.producers.clone());
    let interval = active.interval();
    let mut rolls = found.image.rolls.iter().copied().peekable();
    let (mut closed, mut last) = (Vec::new(), Filled::new(active));
    for pending in &found.image.pending {
        let PendingBytes::Journal(batches) = &pending.bytes else { return Err(IoError::DEVICE) };
        for batch in walk::batches(batches) {
            let batch = batch.map_err(|_| IoError::DEVICE)?;
            let (base, end) = (batch.header.base_offset, batch.header.next_offset());
            let is_rolled = std::iter::from_fn(|| rolls.next_if(|roll| *roll <= base)).last() == Some(base);
            if (is_rolled && last.index.summary().bytes > 0) || !last.takes(end, batch.bytes.len()) {
                closed.push(std::mem::replace(&mut last, Filled::new(Index::new(base, interval))));
            }
            last.index.add(&batch.header, batch.bytes);
            last.bytes.extend_from_slice(batch.bytes);
            producers.append(&batch.header, batch.header.max_timestamp);
        }
    }
    producers.commit(found.image.log_end);
    if !last.bytes.is_empty() {
        let folder = paths::partition(data, id);
        disk.make_directories(&folder)?;
        for filled in &closed {
            filled.write(disk, &folder, true)?;
        }
        last.write(disk, &folder, false)?;
        for folder in folder.ancestors().take(3) {
            disk.sync_directory(folder)?;
        }
    }
    let summary = *last.index.summary();
    let part = if closed.is_empty() { [&found.part[..], &last.bytes].concat() } else { last.bytes };
    found.part = part[part.len() - (summary.bytes % BLOCK as u64) as usize..].to_vec();
    for filled in closed {
        *found.segments.active_mut() = filled.index;
        found.segments.roll(interval);
    }
    (found.image.durable_end, found.image.segment, found.image.segment_bytes) = (summary.end, summary.base, summary.bytes);
    found.image.pending.clear();
    found.image.rolls.clear();
    found.image.extents_end = None;
    found.image.large = Large { index: last.index.clone(), producers };
    *found.segments.active_mut() = last.index;
    Ok(())
}

/// The state of a settled partition.
pub fn state(found: &PartitionFound) -> PartitionState {
    assert!(found.image.pending.is_empty() && found.image.durable_end == found.image.log_end);
    let mut consensus = Vec::new();
    found.consensus.encode(&mut consensus);
    PartitionState {
        log_start: found.image.log_start,
        durable_end: found.image.durable_end,
        log_end: found.image.log_end,
        segment: found.image.segment,
        segment_bytes: found.image.segment_bytes,
        rolls: Vec::new(),
        consensus,
        large: LargeAt::Here(found.image.large.clone()),
    }
}
