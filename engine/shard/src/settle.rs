//! A partition brought out of the journal by blocking storage: batches into the active segment, the rest into one state.
//!
//! The bytes are those that a checkpoint would write, to the same place; doing it again after a crash writes them again. Rolls that were
//! stated and not begun are forgotten: the segment only grows larger than it would have.
//!
//! Invariants: nothing is changed in `found` before its batches are durable; no byte in front of them, nor behind, is changed.

use crate::boot::PartitionFound;
use millrace_base::ids::PartitionId;
use millrace_base::limits::BLOCK;
use millrace_io::{Disk, IoError, OpenHow};
use millrace_log::image::PendingBytes;
use millrace_log::partition_state::{Large, LargeAt, PartitionState};
use millrace_log::{paths, walk};
use std::path::Path;

/// Writes what is pending, which holds no extents any more, into the active segment.
///
/// # Errors
/// The disk's; nothing has changed but the segment behind the durable end.
pub fn settle(disk: &mut dyn Disk, data: &Path, id: PartitionId, found: &mut PartitionFound) -> Result<(), IoError> {
    let (mut index, mut producers) = (found.segments.active().clone(), found.image.large.producers.clone());
    let place = index.summary().bytes;
    let mut bytes = Vec::new();
    for pending in &found.image.pending {
        let PendingBytes::Journal(batches) = &pending.bytes else { return Err(IoError::DEVICE) };
        for batch in walk::batches(batches) {
            let batch = batch.map_err(|_| IoError::DEVICE)?;
            index.add(&batch.header, batch.bytes);
            producers.append(&batch.header, batch.header.max_timestamp);
        }
        bytes.extend_from_slice(batches);
    }
    producers.commit(found.image.log_end);
    if !bytes.is_empty() {
        let folder = paths::partition(data, id);
        disk.make_directories(&folder)?;
        let path = paths::segment(&folder, index.summary().base);
        let file = disk.open(&path, OpenHow { write: true, create: true, ..OpenHow::default() })?;
        let written = disk.write(file, place, &bytes).and_then(|()| disk.sync(file));
        disk.close(file);
        written?;
        for folder in folder.ancestors().take(3) {
            disk.sync_directory(folder)?;
        }
    }
    let summary = *index.summary();
    let part = [&found.part[..], &bytes].concat();
    found.part = part[part.len() - (summary.bytes % BLOCK as u64) as usize..].to_vec();
    (found.image.durable_end, found.image.segment_bytes) = (summary.end, summary.bytes);
    found.image.pending.clear();
    found.image.rolls.clear();
    found.image.extents_end = None;
    found.image.large = Large { index: index.clone(), producers };
    *found.segments.active_mut() = index;
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
