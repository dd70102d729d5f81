//! Everything one shard knows about its partitions, and what the modules around it do with that.
//!
//! `produce`, `read`, `queries`, `lifecycle`, `checkpoint`, `controller` and `coordinator` each add methods for one kind of work;
//! this file holds what they share: finding partitions, appending to journals, carrying out what a consensus core wants.
//!
//! Invariants: an effect of a core is carried out in the order given; what was journaled earlier is reported durable earlier.
//! Knows nothing of connections or protocols.

use crate::api::{Leadership, NodeFacts, ReadError, Request};
use crate::append::Holding;
use crate::cached::Cached;
use crate::checkpoint::Checkpoints;
use crate::controller::Controller;
use crate::coordinator::Coordinator;
use crate::direct::ExtentFlight;
use crate::directory::{After, Directory};
use crate::kept_windows::KeptWindows;
use crate::lifecycle::Finish;
use crate::memory::Shares;
use crate::needed::{Needed, Partitions};
use crate::open_files::OpenFiles;
use crate::partition::{Partition, Standing, Told, Waiting};
use crate::produce::{ProduceWait, Stalled};
use crate::queries::QueryWait;
use crate::read::{ReadWait, WindowRead};
use crate::room::Room;
use crate::routes::{Routes, Submitter};
use crate::script::Scripts;
use crate::tail::{Piece, Tail};
use crate::time_search::Searches;
use crate::timers::{TimerFor, Timers};
use crate::token::generation_of;
use crate::waits::Waits;
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::ids::{DirectoryIndex, META_PARTITION, PartitionId, ShardId};
use millrace_base::offset::Offset;
use millrace_base::settings::Settings;
use millrace_io::Driver;
use millrace_log::journal::{NoRoom, PayloadRange, Record, Sealed, Urgency};
use millrace_raftlog::{Effect, Member};
use millrace_state::meta::{Meta, Node};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a turn lends to whoever works in it.
pub struct Turn<'a> {
    pub driver: &'a mut dyn Driver,
    pub timers: &'a mut Timers<TimerFor>,
    pub now: Nanos,
    pub wall: WallMs,
}

pub struct Engine {
    pub here: ShardId,
    pub facts: NodeFacts,
    pub settings: Settings,
    /// The broker's defaults of topic configs, by config name.
    pub topic_defaults: BTreeMap<String, String>,
    pub meta: Meta,
    pub leaders: BTreeMap<PartitionId, Leadership>,
    pub memory: Shares,
    pub partitions: Partitions,
    pub needed: Needed,
    pub cached: Cached,
    /// By index; a shard has its own journal in each.
    pub directories: Vec<Directory>,
    pub scripts: Scripts<Finish>,
    pub routes: Routes,
    pub produces: Waits<ProduceWait>,
    /// Produce requests that a full journal holds back, in order.
    pub stalled: VecDeque<Stalled>,
    pub reads: Waits<ReadWait>,
    /// Those that wait, by their shard and its ticket.
    pub read_tickets: BTreeMap<(ShardId, u64), crate::waits::WaitId>,
    /// Who waits for memory to read into.
    pub room: Room,
    /// Windows that have come and are to be looked at, and those read before anybody asks.
    pub windows_read: VecDeque<WindowRead>,
    pub kept_windows: KeptWindows,
    /// Reads to look at again in this turn: bytes came.
    pub woken: Vec<(crate::waits::WaitId, PartitionId)>,
    /// On the shard that leads replica set 0.
    pub controller: Option<Controller>,
    pub coordinators: BTreeMap<PartitionId, Coordinator>,
    /// Batches appended and not yet laid out, by data directory.
    pub holding: Vec<Holding>,
    /// Data directories that fail at the end of this turn, and why.
    pub failing: Vec<(usize, String)>,
    /// Direct appends on their way, by their keys.
    pub extents: BTreeMap<u32, ExtentFlight>,
    pub extent_key: u32,
    /// Bytes of direct appends that no checkpoint states.
    pub direct_bytes: usize,
    /// Partitions with more in the journal than may go in front of a direct append, and those whose checkpoint waits for memory.
    pub wants_checkpoint: BTreeSet<PartitionId>,
    /// Partitions with a write that there was no room or no descriptor for, and some that had one.
    pub unwritten: BTreeSet<PartitionId>,
    /// Entries sealed before the turn's end, because they were full.
    pub sealed: Vec<(usize, Sealed)>,
    /// Leadership that the controller's shard has not been told.
    pub leadership_news: Vec<Leadership>,
    /// At start: shards of which it is known that their partitions have leaders (on the controller's shard).
    pub shards_ready: usize,
    pub ready_told: bool,
    pub checkpoints: Checkpoints,
    /// Indexes of closed segments that are in memory, in order of coming, and their bytes.
    pub indexes: VecDeque<(PartitionId, Offset, usize)>,
    pub index_bytes: usize,
    /// Replica set 0 is applied up to here, on the shard that leads it.
    pub meta_applied: Offset,
    pub queries: Waits<QueryWait>,
    pub searches: Searches,
    pub open_files: OpenFiles,
    /// How this node wants to be known.
    pub register: Option<Node>,
    /// The largest producer id that any partition of the node had seen at the start; -1: none.
    pub producer_id_seen: i64,
    pub retention_at: Nanos,
    /// A directory that had no room is not tried again before.
    pub full_until: Nanos,
    /// The journals' fill is not looked at before.
    pub relief_at: Nanos,
    /// The controller's shard has told all shards to open.
    pub open_sent: bool,
    /// Whether connections are accepted.
    pub is_open: bool,
    pub owed: Vec<crate::lifecycle::Owed>,
    pub stopping: bool,
    /// Open segments were cut to their bytes, or are being cut.
    pub is_cut: bool,
}

impl Engine {
    pub fn member(&self, directory: usize) -> Member {
        Member { node: self.facts.node, disk: self.directories[directory].id }
    }

    /// Appends a record to the journal of a directory, behind the batches that are held for it.
    ///
    /// # Errors
    /// [`NoRoom::Journal`], [`NoRoom::TooLarge`].
    pub fn journal(
        &mut self,
        t: &mut Turn<'_>,
        directory: usize,
        urgency: Urgency,
        record: Record,
        payload: &[&[u8]],
        after: Option<After>,
    ) -> Result<(u64, PayloadRange), NoRoom> {
        self.lay_out_held(t.driver, t.now, directory);
        self.journal_now(directory, urgency, record, payload, after, t.now)
    }

    /// Likewise, for who gives held batches their place.
    pub fn journal_now(
        &mut self,
        directory: usize,
        urgency: Urgency,
        record: Record,
        payload: &[&[u8]],
        after: Option<After>,
        now: Nanos,
    ) -> Result<(u64, PayloadRange), NoRoom> {
        let mut sealed = Vec::new();
        let appended = self.directories[directory].append(urgency, record, payload, after, &mut sealed, now);
        self.sealed.extend(sealed.into_iter().map(|sealed| (directory, sealed)));
        appended
    }

    pub fn add_partition(&mut self, partition: Partition) {
        let mut partition = Box::new(partition);
        self.needed.list(&mut partition);
        self.partitions.insert(partition.id, partition);
    }

    /// Carries out what the core of `id` wants.
    pub fn run_core(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        while let Some(effect) = self.partitions.get_mut(&id).and_then(|partition| partition.core.poll_effect()) {
            self.run_effect(t, id, effect);
        }
    }

    fn run_effect(&mut self, t: &mut Turn<'_>, id: PartitionId, effect: Effect) {
        match effect {
            Effect::Persist { sequence, record } => {
                let mut step = Vec::new();
                record.encode(&mut step);
                let log_start = Some(record.marks.log_start);
                let record = Record::Raft { partition: id, truncate: record.truncate, log_start, step: PayloadRange { start: 0, len: 0 } };
                let (directory, directs) = (usize::from(self.partitions[&id].directory), self.partitions[&id].directs_begun);
                let appended = self.journal(t, directory, Urgency::Relief, record, &[&step], Some(After::Saved { id, sequence, directs }));
                if appended.is_err() {
                    self.fail_directory(t, directory, "the journal has no room left for consensus; its reserve is spent".to_owned());
                }
            }
            Effect::BecameLeader { epoch, .. } => {
                let leader = Some(self.facts.node);
                self.tell_leadership(Leadership { partition: id, leader, epoch });
                self.became_leader(t, id);
            }
            Effect::SteppedDown { term } => self.tell_leadership(Leadership { partition: id, leader: None, epoch: term }),
            Effect::Committed { commit } => self.committed(t, id, commit),
            Effect::Settled { marks } => self.settled(t, id, marks.log_start),
            Effect::Truncate { .. } | Effect::Append { .. } | Effect::Send { .. } => {
                unreachable!("an only voter neither truncates, nor follows, nor has peers")
            }
        }
    }

    fn tell_leadership(&mut self, news: Leadership) {
        self.leaders.insert(news.partition, news);
        self.leadership_news.push(news);
    }

    fn committed(&mut self, t: &mut Turn<'_>, id: PartitionId, commit: Offset) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.producers.commit(commit);
        let answered = partition.answered(commit);
        self.woken.extend(partition.readers.drain(..).map(|reader| (reader, id)));
        for waiter in answered {
            match waiter.what {
                Waiting::Produce { wait, .. } => self.produce_committed(wait),
                Waiting::Coordinator { token } => self.coordinator_written(t, id, token),
            }
        }
        if id == META_PARTITION {
            self.meta_committed(t, commit);
        }
    }

    /// Takes what is durable now in a directory.
    pub fn durable(&mut self, t: &mut Turn<'_>, told: Vec<After>) {
        for after in told {
            match after {
                After::Persisted { id, position, directs } => self.tell_core(t, id, directs, Told::Persisted(position)),
                After::Saved { id, sequence, directs } => self.tell_core(t, id, directs, Told::Saved(sequence)),
                After::Checkpointed(id, end) => self.checkpoint_stated(t, id, end),
                After::Stated(id, end) => self.directs_stated(t, id, end),
                After::Carried(id) => self.unlink_below(t, id),
                After::Deleted(id) => self.deletion_stated(t, id),
            }
        }
        self.resume_stalled(t);
    }

    /// Seals what the turn has appended and submits it.
    pub fn write_journals(&mut self, t: &mut Turn<'_>) {
        for index in 0..self.directories.len() {
            if self.wants_seal(index) {
                self.lay_out_held(t.driver, t.now, index);
                let sealed = self.directories[index].seal(t.now);
                self.sealed.extend(sealed.map(|sealed| (index, sealed)));
            }
        }
        for (index, sealed) in std::mem::take(&mut self.sealed) {
            let sequence = sealed.sequence;
            let has_batches = !sealed.batches.is_empty();
            self.scripts.entry_began(index as DirectoryIndex, generation_of(sequence), has_batches, t.now);
            for batches in self.directories[index].write(t.driver, sealed) {
                if let Some(partition) = self.partitions.get_mut(&batches.partition) {
                    let piece = Piece::new(batches.base, batches.end, batches.bytes, sequence);
                    partition.sealed(piece);
                    self.needed.took(partition, sequence);
                }
            }
        }
    }

    /// Whether the turn's entry of a directory should be sealed now.
    pub fn wants_seal(&self, index: usize) -> bool {
        let directory = &self.directories[index];
        if !directory.may_seal() {
            return false;
        }
        // Statements of what is being written may go into the same entry.
        let gathers = directory.journal().should_gather()
            && (self.checkpoints.any(index)
                || self.partitions.values().any(|p| usize::from(p.directory) == index && p.store.is_writing_state));
        !self.holding[index].is_empty() || (directory.journal().is_building() && !gathers)
    }

    /// A write or sync of the directory has failed: that is fatal for every log in it, since a device's flush is not one file's.
    pub fn device_failed(&mut self, t: &mut Turn<'_>, index: usize, reason: String) {
        if !self.directories[index].is_failed() {
            for shard in (0..self.facts.shards).filter(|shard| *shard != self.here) {
                let request = Request::DirectoryFailed { directory: index, reason: reason.clone() };
                self.routes.submit_for(shard, Submitter::Nobody, request);
            }
        }
        self.fail_directory(t, index, reason);
    }

    /// Nothing of the directory is acknowledged or served for writing any more by this shard.
    pub fn fail_directory(&mut self, t: &mut Turn<'_>, index: usize, reason: String) {
        if self.directories[index].is_failed() {
            return;
        }
        self.directories[index].fail(reason.clone());
        self.holding[index].clear();
        let lost: Vec<PartitionId> = self.partitions.values().filter(|p| usize::from(p.directory) == index).map(|p| p.id).collect();
        for id in lost {
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.standing = Standing::Offline { reason: reason.clone() };
                self.direct_bytes -= partition.stated(None);
                // Nobody reads it any more, and its memory is wanted elsewhere.
                partition.tail = Tail::new(partition.tail.end());
                let epoch = partition.core.epoch();
                partition.held.clear();
                let waiters: Vec<_> = partition.waiters.drain(..).collect();
                let readers = std::mem::take(&mut partition.readers);
                self.woken.extend(readers.into_iter().map(|reader| (reader, id)));
                for waiter in waiters {
                    match waiter.what {
                        Waiting::Produce { wait, part } => self.produce_lost(wait, part),
                        Waiting::Coordinator { token } => self.coordinator_refused(t, id, token),
                    }
                }
                self.tell_leadership(Leadership { partition: id, leader: None, epoch });
            }
            self.drop_coordinator(id);
            self.refuse_start_waiters(id, &ReadError::Storage { reason: reason.clone() });
        }
        self.resume_stalled(t);
    }

    /// Sends what became known of leaders to the controller's shard, which tells all.
    pub fn send_leadership(&mut self) {
        if self.leadership_news.is_empty() {
            return;
        }
        let news = std::mem::take(&mut self.leadership_news);
        if self.controller.is_some() {
            self.leadership_at_controller(news);
        } else {
            self.routes.submit_for(0, Submitter::Nobody, Request::Leadership(news));
        }
    }

    /// Leadership came to the controller's shard: every other shard is told, and waiting changes go on.
    pub fn leadership_at_controller(&mut self, news: Vec<Leadership>) {
        for shard in 1..self.facts.shards {
            self.routes.submit_for(shard, Submitter::Nobody, Request::Leadership(news.clone()));
        }
        for one in &news {
            self.leaders.insert(one.partition, *one);
            if let Some(controller) = &mut self.controller {
                controller.led(one.partition);
            }
        }
    }
}
