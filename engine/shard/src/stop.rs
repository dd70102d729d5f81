//! A clean stop: open segments are cut to their bytes, so that whoever reads the files finds whole batches and nothing behind them.
//!
//! 1. What was appended directly is checkpointed first, since its last fragment stands in the journal.
//! 2. Then segments are cut to what is stated of them, some at a time: each is open meanwhile.
//!
//! What is acknowledged is durable already; a stop that is cut short loses nothing.
//!
//! Invariants: a segment that is being cut is written by nobody: the partition stays busy until the shard is gone.

use crate::engine::{Engine, Turn};
use crate::lifecycle::Finish;
use crate::memory::CHECKPOINTS_MAX;
use crate::partition::Partition;
use crate::script::{Handle, Outcome, Step};
use millrace_base::ids::PartitionId;
use millrace_io::{IoError, OpenHow};

/// Segments that are being cut at once.
const CUTS_MAX: usize = 64;

impl Engine {
    /// Called while nothing is under way. False: there is something now.
    pub fn cut_for_stop(&mut self, t: &mut Turn<'_>) -> bool {
        if self.is_cut {
            return true;
        }
        let is_direct = |partition: &Partition| !partition.unstated.is_empty() && partition.is_writable() && !partition.busy;
        let direct: Vec<PartitionId> = self.partitions.values().filter(|p| is_direct(p)).map(|p| p.id).collect();
        for id in direct.into_iter().take(CHECKPOINTS_MAX) {
            self.checkpoint(t, id);
        }
        if !self.is_quiet() {
            return false;
        }
        let mut cuts = 0;
        for partition in self.partitions.values_mut() {
            let active = *partition.store.segments.active().summary();
            if active.bytes == 0 || !partition.unstated.is_empty() || !partition.is_writable() || partition.busy {
                continue;
            }
            cuts += 1;
            if cuts > CUTS_MAX {
                break;
            }
            let mut steps: Vec<Step> = partition.store.file.take().map(|file| Step::Close(Handle::Open(file))).into_iter().collect();
            steps.extend([
                Step::Open { path: partition.store.segment_path(active.base), how: OpenHow { write: true, ..OpenHow::default() } },
                Step::Truncate { file: Handle::Nth(0), len: active.bytes },
                Step::Sync(Handle::Nth(0)),
                Step::Close(Handle::Nth(0)),
            ]);
            partition.busy = true;
            self.scripts.start(t.driver, steps, Finish::Cut(partition.id));
        }
        self.is_cut = cuts == 0;
        self.is_cut
    }

    /// A segment was cut. Nothing hangs on it, but what a failed sync has lost may be another log's.
    pub fn segment_cut(&mut self, t: &mut Turn<'_>, id: PartitionId, result: Result<Outcome, IoError>) {
        let Err(error) = result else { return };
        let Some(partition) = self.partitions.get(&id) else { return };
        let (directory, folder) = (usize::from(partition.directory), partition.folder.display());
        if error.is_full() || error.is_out_of_files() {
            log::warn!("the newest segment in {folder} is not cut to its batches: {error}; the next start knows where they end");
        } else {
            let reason = format!("cutting the newest segment of {folder} failed: {error}");
            self.device_failed(t, directory, reason);
        }
    }
}
