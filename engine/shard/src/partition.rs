//! One partition on the shard that owns it: consensus core, tail, producers, segments, and who waits for its commit.
//!
//! 1. The core decides who leads and what is committed; its effects are carried out by the engine.
//! 2. An append takes offsets at the core's log end; what is durable is reported back to the core, which moves the commit.
//! 3. The commit settles producers, answers those who wait for it, and wakes readers.
//!
//! Invariants: log start <= commit <= log end; tail end = log end of what is sealed; a waiter is answered once.
//! Knows nothing of the ring: scripts and journal appends are the engine's.

use crate::waits::WaitId;
use millrace_base::clock::Nanos;
use millrace_base::ids::{DirectoryIndex, PartitionId};
use millrace_base::offset::{Epoch, Offset};
use millrace_io::File;
use millrace_log::producers::Producers;
use millrace_log::segments::Segments;
use millrace_log::segment_writer::SegmentWriter;
use millrace_raftlog::Core;
use millrace_state::meta::topic_configs::TopicConfig;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use crate::tail::Tail;

/// A produced batch that waits for the commit to pass it.
#[derive(Clone, Copy, Debug)]
pub struct CommitWaiter {
    /// Answered when the commit is at or above.
    pub end: Offset,
    pub what: Waiting,
}

#[derive(Clone, Copy, Debug)]
pub enum Waiting {
    /// Part `part` of a produce request.
    Produce { wait: WaitId, part: usize },
    /// A write of the partition's coordinator.
    Coordinator { token: u64 },
}

/// What a partition does with requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    Serving,
    /// Bytes were lost or altered: read as far as it is intact, not written.
    Damaged { reason: String },
    /// Its data directory failed or is absent.
    Offline { reason: String },
    /// Stated deleted; files are going.
    Deleting,
}

pub struct Partition {
    pub id: PartitionId,
    pub directory: DirectoryIndex,
    /// `<data dir>/<topic id>/<partition>`
    pub folder: PathBuf,
    /// Whether the folder is known to be there.
    pub has_folder: bool,
    pub standing: Standing,
    pub core: Core,
    pub config: Arc<TopicConfig>,
    pub tail: Tail,
    pub producers: Producers,
    pub segments: Segments,
    pub writer: SegmentWriter,
    /// The active segment's file, when open.
    pub active: Option<File>,
    /// In order of `end`.
    pub waiters: VecDeque<CommitWaiter>,
    /// Reads that wait for bytes of this partition.
    pub readers: Vec<WaitId>,
    /// The journal entry in which the whole state stands last.
    pub state_sequence: u64,
    /// File work of this partition under way: one at a time.
    pub busy: bool,
    pub last_epoch_told: Epoch,
    pub rolled_at: Nanos,
}

impl Partition {
    /// What a reader may read up to: nothing before a new leader's own start is committed, except what was known.
    pub fn read_bound(&self) -> Offset {
        self.core.commit()
    }

    pub fn log_start(&self) -> Offset {
        self.core.log_start()
    }

    pub fn is_writable(&self) -> bool {
        self.standing == Standing::Serving
    }

    /// Takes the waiters that a commit answers.
    pub fn answered(&mut self, commit: Offset) -> impl Iterator<Item = CommitWaiter> + use<> {
        let count = self.waiters.iter().take_while(|waiter| waiter.end <= commit).count();
        self.waiters.drain(..count).collect::<Vec<_>>().into_iter()
    }

    /// Adds a waiter; a duplicate may wait for an earlier end than the last.
    pub fn wait(&mut self, waiter: CommitWaiter) {
        let at = self.waiters.partition_point(|other| other.end <= waiter.end);
        self.waiters.insert(at, waiter);
    }

    /// The first journal entry that this partition still needs.
    pub fn oldest_sequence(&self) -> u64 {
        self.tail.oldest_sequence().map_or(self.state_sequence, |sequence| sequence.min(self.state_sequence))
    }
}
