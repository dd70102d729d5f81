//! Which partitions hold batches in memory that segments have too, found in the order of the journal without a walk over all partitions.
//!
//! 1. A partition is listed when its oldest batches in memory are a cache, with the journal entry that brought them or an earlier one.
//! 2. Who wants memory takes those that are listed below an entry; each lets go of what it may and is listed anew if more is a cache.
//!
//! Invariants: a partition whose oldest batches in memory are a cache is listed, at their entry or before; one is listed once.

use crate::needed::{FIRST, Partitions};
use crate::partition::Partition;
use millrace_base::ids::{DirectoryIndex, PartitionId};
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Cached {
    list: BTreeSet<(DirectoryIndex, u64, PartitionId)>,
}

impl Cached {
    /// Batches of the partition have come into a segment, or some have left memory.
    pub fn list(&mut self, partition: &mut Partition) {
        if partition.cached_from.is_none()
            && let Some(sequence) = partition.tail.cached_from()
        {
            partition.cached_from = Some(sequence);
            self.list.insert((partition.directory, sequence, partition.id));
        }
    }

    /// The partition is none of the engine's any more.
    pub fn forget(&mut self, partition: &Partition) {
        if let Some(sequence) = partition.cached_from {
            self.list.remove(&(partition.directory, sequence, partition.id));
        }
    }

    /// Lets go of all cached batches of a directory that entries below `sequence` brought.
    pub fn evict_below(&mut self, directory: DirectoryIndex, sequence: u64, partitions: &mut Partitions) {
        while let Some(&(found, at, id)) = self.list.range((directory, 0, FIRST)..).next()
            && found == directory
            && at < sequence
        {
            self.list.remove(&(directory, at, id));
            let Some(partition) = partitions.get_mut(&id) else { continue };
            partition.cached_from = None;
            partition.tail.evict_below(sequence);
            self.list(partition);
        }
        let is_left =
            |partition: &Partition| partition.directory == directory && partition.tail.cached_from().is_some_and(|at| at < sequence);
        debug_assert!(!partitions.values().any(|partition| is_left(partition)), "each is listed");
    }
}
