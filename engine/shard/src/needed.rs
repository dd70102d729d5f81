//! Which partitions need the oldest journal entries, found without a walk over all partitions.
//!
//! 1. Each partition is listed once, with an entry at or before the oldest that it needs: entries are let go of without a word here.
//! 2. Who asks looks at the oldest of the list only, and lists anew those that need no such entry any more.
//!
//! Invariant: `listed` <= `oldest_sequence()` of every partition of the engine; batches of an earlier entry that come later list it again.

use crate::partition::Partition;
use millrace_base::ids::{DirectoryIndex, PartitionId, Uuid};
use std::collections::{BTreeMap, BTreeSet};

/// Before every other.
pub const FIRST: PartitionId = PartitionId { topic: Uuid::ZERO, index: 0 };

pub type Partitions = BTreeMap<PartitionId, Box<Partition>>;

#[derive(Default)]
pub struct Needed {
    list: BTreeSet<(DirectoryIndex, u64, PartitionId)>,
}

impl Needed {
    /// Lists a partition with the oldest entry that it needs.
    pub fn list(&mut self, partition: &mut Partition) {
        self.list.remove(&(partition.directory, partition.listed, partition.id));
        partition.listed = partition.oldest_sequence();
        self.list.insert((partition.directory, partition.listed, partition.id));
    }

    /// The partition is none of the engine's any more.
    pub fn forget(&mut self, partition: &Partition) {
        self.list.remove(&(partition.directory, partition.listed, partition.id));
    }

    /// A partition of the engine has taken in batches of entry `sequence`.
    pub fn took(&mut self, partition: &mut Partition, sequence: u64) {
        if sequence < partition.listed {
            self.list(partition);
        }
    }

    /// The oldest entry of a directory that a partition needs.
    pub fn oldest(&mut self, directory: DirectoryIndex, partitions: &mut Partitions) -> Option<u64> {
        loop {
            let first = *self.first_of(directory).filter(|(found, ..)| *found == directory)?;
            if self.is_needed(first, partitions) {
                return Some(first.1);
            }
        }
    }

    /// Partitions of a directory that need entry `last` or one before it, in the order of their ids.
    pub fn up_to(&mut self, directory: DirectoryIndex, last: u64, partitions: &mut Partitions) -> Vec<PartitionId> {
        let candidates: Vec<_> =
            self.from(directory).take_while(|(found, sequence, _)| *found == directory && *sequence <= last).copied().collect();
        let mut holders = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let needs = self.is_needed(candidate, partitions) || partitions.get(&candidate.2).is_some_and(|found| found.listed <= last);
            if needs {
                holders.push(candidate.2);
            }
        }
        holders.sort_unstable();
        holders
    }

    fn from(&self, directory: DirectoryIndex) -> impl Iterator<Item = &(DirectoryIndex, u64, PartitionId)> {
        self.list.range((directory, 0, FIRST)..)
    }

    fn first_of(&self, directory: DirectoryIndex) -> Option<&(DirectoryIndex, u64, PartitionId)> {
        self.from(directory).next()
    }

    /// Whether the partition needs just this entry. If not, it is listed anew, or is gone.
    fn is_needed(&mut self, listed: (DirectoryIndex, u64, PartitionId), partitions: &mut Partitions) -> bool {
        let found = partitions.get_mut(&listed.2).filter(|found| (found.directory, found.listed) == (listed.0, listed.1));
        match found {
            Some(partition) if partition.oldest_sequence() == listed.1 => true,
            Some(partition) => {
                self.list(partition);
                false
            }
            None => {
                self.list.remove(&listed);
                false
            }
        }
    }
}
