//! One partition on the shard that owns it: consensus core, tail, producers, segments, and who waits for its commit.
//!
//! 1. The core decides who leads and what is committed; its effects are carried out by the engine.
//! 2. An append takes offsets at the core's log end; what is durable is reported back to the core, which moves the commit.
//! 3. The commit settles producers, answers those who wait for it, and wakes readers.
//!
//! Invariants: log start <= commit <= log end; tail end <= log end; a waiter is answered once; at most one script works on its files.
//! Knows nothing of the ring: scripts and journal appends are the engine's.

use crate::awaited::Awaited;
use crate::observe::PartitionTraffic;
use crate::script::{Handle, Outcome, Step};
use crate::store::Store;
use crate::tail::{Piece, Tail};
use crate::waits::WaitId;
use millrace_base::batch::Header;
use millrace_base::clock::Nanos;
use millrace_base::ids::{DirectoryIndex, PartitionId};
use millrace_base::offset::{Offset, Position};
use millrace_base::planted::{Bug, is_planted};
use millrace_io::OpenHow;
use millrace_log::partition_state::{Note, PartitionState};
use millrace_log::producers::Producers;
use millrace_raftlog::Core;
use millrace_state::meta::topic_configs::TopicConfig;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// Readers of a partition among which no dead ones are looked for.
const READERS_MIN: usize = 64;

/// Readers of a partition that are followed from window to window.
const WINDOW_ENDS_MAX: usize = 8;

/// Something that waits for the commit to pass an offset.
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

/// A direct append on its way to the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Direct {
    /// Names its operation.
    pub key: u32,
    /// The active segment is durable up to this byte with it.
    pub bytes: u64,
    pub is_done: bool,
}

/// What the core is to be told once as many direct appends as `directs` are durable: its journal entry is already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldBack {
    pub directs: u64,
    pub what: Told,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    Persisted(Position),
    Saved(u64),
}

/// Who waits for a log start to be settled.
#[derive(Clone, Copy, Debug)]
pub struct StartWaiter {
    pub start: Offset,
    pub wait: WaitId,
    pub part: usize,
}

/// What a partition does with requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    Serving,
    /// Bytes were lost or altered: read as far as it is intact, not written.
    Damaged {
        reason: String,
    },
    /// Its data directory failed.
    Offline {
        reason: String,
    },
    /// To be deleted; files are going.
    Deleting,
}

pub struct Partition {
    pub id: PartitionId,
    pub directory: DirectoryIndex,
    /// `<data dir>/<topic id>/<partition>`
    pub folder: PathBuf,
    pub standing: Standing,
    pub core: Core,
    pub config: Arc<TopicConfig>,
    pub tail: Tail,
    pub producers: Producers,
    pub awaited: Awaited,
    /// Its segments.
    pub store: Store,
    /// In order of `end`.
    pub waiters: VecDeque<CommitWaiter>,
    pub start_waiters: Vec<StartWaiter>,
    /// Reads that wait for bytes of this partition, and some that did.
    pub readers: Vec<WaitId>,
    /// With so many the dead among them are taken out.
    readers_max: usize,
    /// Where windows ended that were read from segments, the latest last: who goes on there reads on.
    window_ends: Vec<Offset>,
    /// The journal entry in which the whole state stands last.
    pub state_sequence: u64,
    /// What it stands in [`crate::needed`] with.
    pub listed: u64,
    /// What it stands in [`crate::cached`] with.
    pub cached_from: Option<u64>,
    /// Whether it stands among those whose segment was opened, in [`crate::open_files`].
    pub is_among_open: bool,
    pub traffic: PartitionTraffic,
    /// Direct appends that are not known to be durable, in order; how many have begun, and how many are durable without a gap.
    pub directs: VecDeque<Direct>,
    pub directs_begun: u64,
    pub directs_durable: u64,
    /// What came last was to go straight to its segment.
    pub goes_direct: bool,
    /// It went through the journal all the same: the next direct append takes it along.
    pub direct_waits: bool,
    pub held: VecDeque<HeldBack>,
    /// Offset after, and bytes of, direct appends that are not stated: memory that no journal bounds.
    pub unstated: VecDeque<(Offset, usize)>,
    /// A script works on its files.
    pub busy: bool,
    /// The state file that was named before the present one: it can go when the entry that names the present one is durable.
    pub old_state_file: Option<(millrace_log::state_file::Name, u64)>,
    /// Its deletion is stated; its files go when the script ends.
    pub remove_when_idle: bool,
    /// Why it is damaged: said in the journal with its state, in place of the entries that are.
    pub note: Option<Note>,
    /// What it lacks may be there at another start: it keeps its place in the journal as long as others do not need it.
    pub may_return: bool,
}

impl Partition {
    /// A partition that holds nothing yet; its birth is in journal entry `sequence`.
    pub fn new(
        id: PartitionId,
        directory: DirectoryIndex,
        folder: PathBuf,
        core: Core,
        config: Arc<TopicConfig>,
        state: &PartitionState,
        sequence: u64,
    ) -> Partition {
        let store = Store::new(folder.clone(), state.segment, config.index_interval_bytes as u32);
        Partition {
            id,
            directory,
            folder,
            standing: Standing::Serving,
            core,
            config,
            tail: Tail::new(state.durable_end),
            producers: Producers::default(),
            awaited: Awaited::default(),
            store,
            waiters: VecDeque::new(),
            start_waiters: Vec::new(),
            readers: Vec::new(),
            readers_max: READERS_MIN,
            window_ends: Vec::new(),
            state_sequence: sequence,
            listed: sequence,
            cached_from: None,
            is_among_open: false,
            traffic: PartitionTraffic::default(),
            directs: VecDeque::new(),
            directs_begun: 0,
            directs_durable: 0,
            goes_direct: false,
            direct_waits: false,
            held: VecDeque::new(),
            unstated: VecDeque::new(),
            busy: false,
            old_state_file: None,
            remove_when_idle: false,
            note: None,
            may_return: false,
        }
    }

    /// What a reader may read up to.
    pub fn read_bound(&self) -> Offset {
        let is_unbounded = self.is_damaged() || is_planted(Bug::ReadUncommitted);
        if is_unbounded { self.tail.end() } else { self.core.commit().min(self.tail.end()) }
    }

    /// Notes a window that was given from `from` to `end`; whether it begins where one of the last ended.
    pub fn reads_on(&mut self, from: Offset, end: Offset) -> bool {
        let before = self.window_ends.iter().position(|end| *end == from);
        if before.is_some() || self.window_ends.len() == WINDOW_ENDS_MAX {
            self.window_ends.remove(before.unwrap_or(0));
        }
        self.window_ends.push(end);
        before.is_some()
    }

    /// Whether it is served up to its damage only.
    pub fn is_damaged(&self) -> bool {
        matches!(self.standing, Standing::Damaged { .. })
    }

    /// What clients are told: a start that is not settled yet could go back with a crash.
    pub fn log_start(&self) -> Offset {
        if self.is_damaged() { self.core.log_start() } else { self.core.marks_settled().log_start }
    }

    pub fn is_writable(&self) -> bool {
        self.standing == Standing::Serving
    }

    /// The steps that make its folder, if it is not known to be there, and the folders to sync after them.
    pub fn make_folders(&self) -> (Vec<Step>, Vec<PathBuf>) {
        if self.store.has_folder {
            return (Vec::new(), Vec::new());
        }
        let synced = self.folder.ancestors().skip(1).take(2).map(ToOwned::to_owned).collect();
        (vec![Step::MakeDirectories(self.folder.clone())], synced)
    }

    /// The steps that open the active segment to write to it, if it is not open, and the folders to sync before what is written counts.
    pub fn open_active(&self) -> (Vec<Step>, Handle, Vec<PathBuf>) {
        let (mut steps, mut synced) = self.make_folders();
        if let Some(file) = self.store.file {
            return (steps, Handle::Open(file), synced);
        }
        // Without `create` a file that is there is opened at once; with it the ring leaves that to a worker.
        let create = !self.store.has_file;
        steps.push(Step::Open {
            path: self.store.segment_path(self.store.active()),
            how: OpenHow { write: true, create, exclusive: false, direct: true },
        });
        if create {
            synced.push(self.folder.clone());
        }
        (steps, Handle::Nth(0), synced)
    }

    /// The steps of [`Self::open_active`] are done, and what they name is synced.
    pub fn active_opened(&mut self, outcome: &Outcome) {
        (self.store.has_folder, self.store.has_file) = (true, true);
        self.store.file = self.store.file.or(outcome.opened.first().copied());
    }

    /// A batch was appended to the journal entry being built.
    pub fn appended(&mut self, header: &Header, now: Nanos) {
        self.store.appended(header, now);
    }

    /// The entry with batches of this partition is sealed: their bytes can be lent.
    /// Batches that were carried take the place of their first copy.
    pub fn sealed(&mut self, piece: Piece) {
        if piece.base < self.tail.end() {
            self.tail.carry(piece);
        } else {
            self.tail.push(piece);
        }
    }

    /// A read waits for bytes. Of those that came before only the live ones are kept, once they may be half of all.
    pub fn add_reader(&mut self, reader: WaitId, is_live: impl Fn(WaitId) -> bool) {
        if self.readers.len() >= self.readers_max {
            self.readers.retain(|reader| is_live(*reader));
            self.readers_max = READERS_MIN + 2 * self.readers.len();
        }
        self.readers.push(reader);
    }

    /// Takes the waiters that a commit answers.
    pub fn answered(&mut self, commit: Offset) -> Vec<CommitWaiter> {
        let count = self.waiters.iter().take_while(|waiter| waiter.end <= commit).count();
        self.waiters.drain(..count).collect()
    }

    /// Takes what the core may be told now.
    pub fn released(&mut self) -> Option<Told> {
        let durable = if is_planted(Bug::IgnoreDirects) { u64::MAX } else { self.directs_durable };
        self.held.pop_front_if(|held| held.directs <= durable).map(|held| held.what)
    }

    /// Direct appends below `end` are stated, or gone with all (None): gives their bytes.
    pub fn stated(&mut self, end: Option<Offset>) -> usize {
        let mut bytes = 0;
        while let Some((_, size)) = self.unstated.pop_front_if(|(until, _)| end.is_none_or(|end| *until <= end)) {
            bytes += size;
        }
        bytes
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

    /// Bytes that its segments and its part of the journal hold above the log start's segment.
    pub fn bytes(&self) -> u64 {
        self.store.bytes() + self.tail.pending_bytes() as u64
    }
}
