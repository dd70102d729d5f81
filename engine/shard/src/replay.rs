//! Replica set 0's log replayed at start, so that every shard begins with the whole of `state/meta`.
//!
//! Invariants: every batch is proved before its commands are applied: its CRC, and that it begins where the one before ended.

use crate::boot::{BootError, PartitionBoot, read_file};
use crate::claim::Claim;
use millrace_base::batch;
use millrace_base::ids::{META_PARTITION, TopicId};
use millrace_base::offset::Offset;
use millrace_io::Disk;
use millrace_log::image::PendingBytes;
use millrace_log::paths;
use millrace_log::walk::{self, WalkError};
use millrace_state::meta::{Command, Meta};
use std::collections::BTreeSet;

pub struct Replayed {
    pub meta: Meta,
    pub applied: Offset,
    pub deleted: BTreeSet<TopicId>,
}

/// Applies every command of replica set 0. `in_part`: those that are left of a damaged one do.
pub fn replay_meta(disk: &mut dyn Disk, partition: Option<&PartitionBoot>, claims: &[Claim], in_part: bool) -> Result<Replayed, BootError> {
    let mut replayed = Replayed { meta: Meta::new(), applied: 0, deleted: BTreeSet::new() };
    let Some(partition) = partition else { return Ok(replayed) };
    let bad = |reason: String| BootError::Meta { reason };
    let found = partition.found.as_ref().map_err(|reason| bad(reason.to_string()))?;
    if let Some(damage) = found.damage.as_ref().filter(|_| !in_part) {
        return Err(bad(format!("{}. `millrace recover` says what of it is left", damage.reason)));
    }
    let folder = paths::partition(&claims[partition.directory].path, META_PARTITION);
    for summary in found.segments.all().filter(|summary| summary.bytes > 0) {
        let path = paths::segment(&folder, summary.base);
        let bytes = read_file(disk, &path).map_err(BootError::io("read", &path))?;
        let whole = bytes.get(..summary.bytes as usize).ok_or_else(|| bad(format!("{} is cut", path.display())))?;
        replay_commands(whole, &path.display().to_string(), &mut replayed)?;
    }
    for pending in &found.image.pending {
        if let PendingBytes::Journal(bytes) = &pending.bytes {
            replay_commands(bytes, "the journal", &mut replayed)?;
        }
    }
    if replayed.applied != found.image.log_end {
        return Err(bad(format!("its commands end at offset {}, its log at {}", replayed.applied, found.image.log_end)));
    }
    Ok(replayed)
}

fn replay_commands(bytes: &[u8], file: &str, replayed: &mut Replayed) -> Result<(), BootError> {
    for found in walk::batches(bytes) {
        let found = found.map_err(|error| BootError::Meta { reason: error.in_file(file, 0).to_string() })?;
        let bad = |error: WalkError| BootError::Meta { reason: error.in_file(file, found.place as u64).to_string() };
        batch::check_stored(found.bytes).map_err(|error| bad(WalkError::Batch(error)))?;
        if found.header.base_offset != replayed.applied {
            return Err(bad(WalkError::Gap { expected: replayed.applied, found: found.header.base_offset }));
        }
        for record in batch::records(found.bytes) {
            let value = record.and_then(|record| record.value);
            let value = value.ok_or_else(|| BootError::Meta { reason: format!("{file}: a record without a command") })?;
            let command = Command::decode(value).map_err(|error| BootError::Meta { reason: error.to_string() })?;
            if let Command::DeleteTopic { topic } = &command {
                replayed.deleted.insert(*topic);
            }
            replayed.meta.apply(command);
        }
        replayed.applied = found.header.next_offset();
    }
    Ok(())
}
