//! Descriptors: how many connections and open segments a shard may have, and what is done when there are none left.
//!
//! 1. A segment is opened when it is first written to and stays open for the next write. When more are open than this shard's share, the one
//!    opened first is closed, unless it is being written; its next write opens it again.
//! 2. When the process or the system has no descriptor left, whatever needed one is tried again, and it is said once a minute. No data directory
//!    fails for it: nothing was written.
//!
//! Invariants: open segments <= their share, but for those that are being written.
//! Knows nothing of what is written.

use crate::engine::{Engine, Turn};
use crate::token::{self, Purpose};
use millrace_base::clock::Nanos;
use millrace_base::ids::PartitionId;
use millrace_io::{IoError, Op};
use std::collections::VecDeque;

/// How often it is said that there are no descriptors.
const WARN_PAUSE_MS: u64 = 60_000;

/// How long a journal that could not grow for want of one is left as it is.
pub const GROW_PAUSE_MS: u64 = 1_000;

/// See the module's head.
pub struct OpenFiles {
    pub connections_max: usize,
    segments_max: usize,
    /// Partitions whose active segment was opened, in that order; it may have been closed since.
    opened: VecDeque<PartitionId>,
    warn_at: Nanos,
    /// Journals do not grow before: there was no descriptor.
    pub grow_at: Nanos,
}

impl Default for OpenFiles {
    /// Without a bound: for drivers whose files are none of the system's.
    fn default() -> OpenFiles {
        OpenFiles { connections_max: usize::MAX, segments_max: usize::MAX, opened: VecDeque::new(), warn_at: Nanos(0), grow_at: Nanos(0) }
    }
}

impl OpenFiles {
    /// This shard's share of the descriptors that the process may have. Nine sixteenths are for connections, an eighth for segments that stay open;
    /// the rest is for journals, which have up to 64 files in each data directory, and for files that are open for one read or write.
    pub fn bound(&mut self, files_max: u64, shards: u16) {
        let share = usize::try_from(files_max).unwrap_or(usize::MAX) / usize::from(shards.max(1));
        self.connections_max = (share / 16 * 9).max(1);
        self.segments_max = (share / 8).max(1);
    }
}

impl Engine {
    /// The active segment of a partition was opened, to stay open.
    pub fn segment_opened(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let files = &mut self.open_files;
        if let Some(partition) = self.partitions.get_mut(&id)
            && !std::mem::replace(&mut partition.is_among_open, true)
        {
            files.opened.push_back(id);
        }
        for _ in 0..files.opened.len().saturating_sub(files.segments_max) {
            let Some(first) = files.opened.pop_front() else { return };
            let Some(partition) = self.partitions.get_mut(&first) else { continue };
            if partition.busy || !partition.directs.is_empty() {
                files.opened.push_back(first);
                continue;
            }
            partition.is_among_open = false;
            if let Some(file) = partition.store.file.take() {
                t.driver.submit(Op::Close { file }, token::pack(Purpose::Nobody, 0, 0));
            }
        }
    }

    /// Whether an operation failed for want of a descriptor, so that it is to be tried again.
    pub fn is_out_of_files(&mut self, now: Nanos, error: IoError) -> bool {
        if !error.is_out_of_files() {
            return false;
        }
        if self.open_files.warn_at <= now {
            self.open_files.warn_at = now.plus_ms(WARN_PAUSE_MS);
            log::warn!(
                "{error}: connections and writes wait for others to be closed; raise the limit of open files (ulimit -n, LimitNOFILE)"
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_shards_leave_descriptors_for_the_rest() {
        for (files_max, shards) in [(256, 1), (1024, 4), (1 << 20, 64)] {
            let mut files = OpenFiles::default();
            files.bound(files_max, shards);
            let taken = (files.connections_max + files.segments_max) as u64 * u64::from(shards);
            assert!(taken <= files_max / 16 * 11 && taken >= files_max / 16 * 10, "{files_max} {shards}");
        }
    }
}
