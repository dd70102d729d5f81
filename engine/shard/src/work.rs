//! What the loop calls: start, requests, the turn's work, housekeeping.
//!
//! Knows nothing of what the requests mean; each goes to the module that does.

use crate::api::{Leadership, MetaChange, Reply, Request};
use crate::append::Holding;
use crate::boot::{DirectoryBoot, JournalBoot, NotServed, PartitionBoot, ShardBoot};
use crate::cached::Cached;
use crate::checkpoint::Checkpoints;
use crate::controller::Controller;
use crate::directory::{Directory, Health};
use crate::engine::{Engine, Turn};
use crate::kept_windows::KeptWindows;
use crate::lifecycle::TIMING;
use crate::memory::Shares;
use crate::needed::Needed;
use crate::open_files::OpenFiles;
use crate::partition::{Partition, Standing};
use crate::room::Room;
use crate::routes::{Routes, Submitter};
use crate::script::Scripts;
use crate::store::Store;
use crate::tail::{Piece, Tail};
use crate::time_search::Searches;
use crate::token::{self, Purpose};
use crate::waits::Waits;
use millrace_base::clock::Nanos;
use millrace_base::ids::{DirectoryIndex, META_PARTITION, PartitionId, ShardId, Uuid};
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{File, IoError, OpenHow, Slice};
use millrace_log::image::PendingBytes;
use millrace_log::journal::{PayloadRange, Record, Urgency, layout};
use millrace_log::partition_state::{Note, PartitionState};
use millrace_raftlog::{Configuration, Core, Member, Record as ConsensusRecord, State};
use millrace_state::meta::{self, Request as MetaRequest};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A send that has stood still for so long gives its connection up.
const SEND_STALL_MS: u64 = 60_000;

/// What to do about a damaged partition.
const REMEDY: &str = "`millrace recover --accept-loss` takes writes again and says what is given up";

/// How long a data directory that had no room is left alone before produce is tried again.
const FULL_RETRY_MS: u64 = 1_000;

/// Memory for the newest batches, what no segment has included: beyond it the oldest cached ones go, though there is room. Memory that
/// was used before costs nothing to use again; fresh memory is cleared by the kernel first, which took 37 % of a producing shard's time.
const CACHE_BYTES_MAX: usize = 256 << 20;

impl Engine {
    /// What boot found becomes running state; the first epochs are appended, to be written in the first turn.
    pub fn start(t: &mut Turn<'_>, boot: ShardBoot, routes: Routes) -> Result<Engine, IoError> {
        let memory = &boot.memory;
        let directories = boot.directories.into_iter().enumerate().map(|(index, boot)| open_directory(t, memory, index, boot));
        let directories = directories.collect::<Result<Vec<_>, _>>()?;
        let mut engine = Engine {
            here: boot.here,
            controller: (boot.here == 0).then(|| Controller::new(boot.facts.shards)),
            facts: boot.facts,
            settings: boot.settings,
            topic_defaults: BTreeMap::new(),
            meta: boot.meta,
            leaders: BTreeMap::new(),
            memory: boot.memory,
            partitions: BTreeMap::new(),
            needed: Needed::default(),
            cached: Cached::default(),
            directories,
            scripts: Scripts::default(),
            routes,
            produces: Waits::default(),
            stalled: VecDeque::new(),
            reads: Waits::default(),
            read_tickets: BTreeMap::new(),
            room: Room::default(),
            windows_read: VecDeque::new(),
            kept_windows: KeptWindows::default(),
            queries: Waits::default(),
            searches: Searches::default(),
            open_files: OpenFiles::default(),
            woken: Vec::new(),
            coordinators: BTreeMap::new(),
            holding: Vec::new(),
            failing: Vec::new(),
            extents: BTreeMap::new(),
            extent_key: 0,
            direct_bytes: 0,
            wants_checkpoint: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            sealed: Vec::new(),
            leadership_news: Vec::new(),
            shards_ready: 0,
            ready_told: false,
            checkpoints: Checkpoints::default(),
            indexes: VecDeque::new(),
            index_bytes: 0,
            meta_applied: boot.meta_applied,
            register: Some(boot.register),
            producer_id_seen: boot.producer_id_seen,
            retention_at: t.now,
            full_until: Nanos(0),
            relief_at: Nanos(0),
            open_sent: false,
            is_open: false,
            owed: Vec::new(),
            stopping: false,
            is_cut: false,
        };
        engine.holding.resize_with(engine.directories.len(), Default::default);
        engine.refresh_settings();
        let mut gone = Vec::new();
        for partition in boot.partitions {
            let id = partition.id;
            engine.adopt(t, partition);
            if boot.deleted_topics.contains(&id.topic) {
                gone.push(id);
            }
        }
        // Of a partition that is damaged not every extent was looked at.
        let damaged: BTreeSet<DirectoryIndex> =
            engine.partitions.values().filter(|partition| partition.note.is_some()).map(|partition| partition.directory).collect();
        for directory in engine.directories.iter_mut().filter(|directory| !directory.is_failed() && !damaged.contains(&directory.index)) {
            directory.state_found_extents(t.now);
        }
        for id in gone {
            engine.delete_partition(t, id);
        }
        engine.create_missing(t);
        engine.retention_at = t.now.plus_ms(engine.settings.log_retention_check_interval_ms);
        engine.tell_ready();
        Ok(engine)
    }

    /// Partitions that set 0 says are ours and no journal knows: their birth was not durable when the node stopped.
    fn create_missing(&mut self, t: &mut Turn<'_>) {
        if self.here == 0 && !self.partitions.contains_key(&META_PARTITION) {
            let first = self.directories[0].id;
            self.create_partition(t, META_PARTITION, first);
        }
        let missing = |topic: &meta::Topic| {
            let of = |(index, directory): (u32, &Uuid)| (PartitionId { topic: topic.id, index }, *directory);
            (0..).zip(&topic.directories).map(of).collect::<Vec<_>>()
        };
        let all: Vec<(PartitionId, Uuid)> = self.meta.topics().flat_map(missing).collect();
        let ours: Vec<Uuid> = self.directories.iter().map(|directory| directory.id).collect();
        for (id, directory) in all {
            if ours.contains(&directory) {
                self.create_partition(t, id, directory);
            }
        }
    }

    fn adopt(&mut self, t: &mut Turn<'_>, boot: PartitionBoot) {
        let (id, index) = (boot.id, boot.directory);
        let (config, folder, member) = (self.config_of(id), self.folder_of(id, index), self.member(index));
        let failure = match &self.directories[index].health {
            Health::Failed { reason } => Some(reason.clone()),
            Health::Healthy => None,
        };
        let found = match (boot.found, failure) {
            (Err(NotServed::Directory(reason)), _) | (Ok(_), Some(reason)) => return self.adopt_offline(t, id, index, reason),
            (Err(NotServed::Damage(note)), _) => return self.adopt_unread(t, id, index, note, true),
            (Err(NotServed::Lost(note)), _) => return self.adopt_unread(t, id, index, note, false),
            (Ok(found), None) => found,
        };
        let seed = t.driver.entropy();
        let core = match found.damage {
            None => Core::restore(member, found.consensus, TIMING, seed, t.now),
            Some(_) => Core::restore_still(member, found.consensus, TIMING, seed, t.now),
        };
        let core = match core {
            Ok(core) => core,
            Err(error) => return self.adopt_unread(t, id, index, Note { end: found.image.log_end, reason: error.to_string() }, true),
        };
        let mut tail = Tail::new(found.image.durable_end);
        let mut producers = if is_planted(Bug::ForgetProducers) { Default::default() } else { found.image.large.producers };
        for pending in found.image.pending {
            if let PendingBytes::Journal(bytes) = pending.bytes {
                if let Err(error) = producers.append_all(&bytes, t.wall) {
                    log::error!("partition {id}: {error}");
                }
                tail.push(Piece::new(pending.base, pending.end, bytes, pending.sequence));
            }
        }
        let mut store = Store::recovered(folder.clone(), found.segments, found.image.rolls, found.part, t.now);
        store.state_file = found.image.state_file;
        let last_roll = store.rolls.back().copied().unwrap_or(found.image.durable_end);
        for piece in tail.pending().filter(|piece| piece.base >= last_roll) {
            for batch in millrace_log::walk::batches(&piece.bytes).flatten() {
                store.found(&batch.header, t.now);
            }
        }
        let state = PartitionState::birth(0, config.index_interval_bytes as u32, Vec::new());
        let mut partition = Partition::new(id, index as u16, folder, core, config, &state, found.oldest_sequence);
        if let Some(end) = found.image.extents_end {
            let bytes = tail.pending().take_while(|piece| piece.end <= end).map(|piece| piece.bytes.len()).sum();
            partition.unstated.push_back((end, bytes));
            self.direct_bytes += bytes;
        }
        partition.tail = tail;
        partition.producers = producers;
        partition.store = store;
        if let Some(damage) = found.damage {
            partition.may_return = found.may_return;
            return self.adopt_damaged(partition, damage);
        }
        self.add_partition(partition);
        if let Some(step) = found.truncation {
            self.state_truncation(t, id, &step);
        }
        self.run_core(t, id);
    }

    /// Recovery cut the log where a direct append was torn: said before anything else, for the journal still tells what is gone.
    fn state_truncation(&mut self, t: &mut Turn<'_>, id: PartitionId, step: &ConsensusRecord) {
        let mut bytes = Vec::new();
        step.encode(&mut bytes);
        let record = Record::Raft { partition: id, truncate: step.truncate, log_start: None, step: PayloadRange { start: 0, len: 0 } };
        let directory = usize::from(self.partitions[&id].directory);
        if self.journal(t, directory, Urgency::Relief, record, &[&bytes], None).is_err() {
            self.fail_directory(t, directory, "the journal has no room to state a truncation".to_owned());
        }
    }

    /// A partition of which something is lost is read up to there.
    fn adopt_damaged(&mut self, mut partition: Partition, damage: Note) {
        let (id, end, why) = (partition.id, partition.tail.end(), &damage.reason);
        log::error!("partition {id} in {} is damaged: {why}. It is read up to offset {end} and not written", partition.folder.display());
        let reason = format!("the partition is damaged ({why}) and read up to offset {end}; {REMEDY}");
        partition.standing = Standing::Damaged { reason };
        partition.note = Some(damage);
        self.direct_bytes -= partition.stated(None);
        let news = Leadership { partition: id, leader: Some(self.facts.node), epoch: partition.core.epoch() };
        self.leaders.insert(id, news);
        self.leadership_news.push(news);
        self.add_partition(partition);
    }

    /// A partition that is damaged, and cannot even be read up to there. `may_return`: its state is known, and what else it lacks may be there
    /// at another start.
    fn adopt_unread(&mut self, t: &Turn<'_>, id: PartitionId, index: usize, note: Note, may_return: bool) {
        log::error!("partition {id} in {} is damaged and is not served: {}", self.folder_of(id, index).display(), note.reason);
        self.adopt_offline(t, id, index, format!("the partition is damaged ({}) and not served; {REMEDY}", note.reason));
        if let Some(partition) = self.partitions.get_mut(&id) {
            (partition.note, partition.may_return) = (Some(note), may_return);
        }
    }

    /// A partition that cannot be served keeps its place, or it would be made anew.
    pub fn adopt_offline(&mut self, t: &Turn<'_>, id: PartitionId, index: usize, reason: String) {
        let (config, folder, member) = (self.config_of(id), self.folder_of(id, index), self.member(index));
        let mut consensus = Vec::new();
        State::new(Configuration::sole(member)).encode(&mut consensus);
        let state = PartitionState::birth(0, config.index_interval_bytes as u32, consensus);
        // A voter that is not alone never campaigns by itself: the core stands still.
        let nobody = Member { node: member.node, disk: Uuid::ZERO };
        let still = State::new(Configuration::new(&[member, nobody], &[]).expect("two members are a configuration"));
        let core = Core::restore(member, still, TIMING, 0, t.now).expect("a newborn state is sound");
        let mut partition = Partition::new(id, index as u16, folder, core, config, &state, 0);
        partition.standing = Standing::Offline { reason };
        self.leadership_news.push(Leadership { partition: id, leader: None, epoch: 0 });
        self.add_partition(partition);
    }

    /// A request from a shard.
    pub fn request(&mut self, t: &mut Turn<'_>, from: ShardId, ticket: u64, request: Request) {
        match request {
            Request::Produce(produce) => self.produce(t, from, ticket, produce),
            Request::Read(read) => self.read(t, from, ticket, read),
            Request::StopWaiting { token } => {
                self.stop_waiting(t, from, token);
                self.routes.reply(from, ticket, Reply::Done);
            }
            Request::ListOffsets(queries) => self.list_offsets(t, from, ticket, queries),
            Request::EpochEnds(queries) => self.epoch_ends(from, ticket, &queries),
            Request::DeleteRecords(parts) => self.delete_records(t, from, ticket, parts),
            Request::DescribeLogs(ids) => self.describe_logs(from, ticket, &ids),
            Request::DescribeProducers(ids) => self.describe_producers(from, ticket, &ids),
            Request::Meta(changes) => self.meta_request(from, ticket, changes),
            Request::Group { coordinator, request } => self.group_request(t, from, ticket, coordinator, request),
            Request::Apply(bytes) => {
                self.apply(t, &bytes);
                self.routes.reply(from, ticket, Reply::Done);
            }
            Request::Leadership(news) => {
                if self.controller.is_some() {
                    self.leadership_at_controller(news);
                } else {
                    for one in news {
                        self.leaders.insert(one.partition, one);
                    }
                }
                self.routes.reply(from, ticket, Reply::Done);
            }
            Request::DirectoryFailed { directory, reason } => {
                self.fail_directory(t, directory, reason);
                self.routes.reply(from, ticket, Reply::Done);
            }
            Request::Ready => {
                self.shards_ready += 1;
                self.routes.reply(from, ticket, Reply::Done);
            }
            Request::Open | Request::Connection(_) => unreachable!("the loop takes these itself"),
        }
    }

    /// When all shards have leaders for what is theirs, and set 0 knows this node as it is, connections may come.
    fn open_when_ready(&mut self) {
        if self.controller.is_none() || self.shards_ready < usize::from(self.facts.shards) {
            return;
        }
        if let Some(node) = self.register.take() {
            let mut changes = Vec::new();
            if self.meta.node(node.id) != Some(&node) {
                changes.push(MetaChange { request: MetaRequest::RegisterNode(node), validate_only: false });
            }
            if self.meta.cluster_id().is_none() {
                changes.push(MetaChange { request: MetaRequest::SetClusterId { id: self.facts.cluster }, validate_only: false });
            }
            self.routes.submit_for(self.here, Submitter::Nobody, Request::Meta(changes));
            return;
        }
        let is_known = self.meta.node(self.facts.node).is_some() && self.meta.cluster_id().is_some();
        if is_known && !self.open_sent {
            self.open_sent = true;
            for shard in 0..self.facts.shards {
                self.routes.submit_for(shard, Submitter::Nobody, Request::Open);
            }
        }
    }

    /// The turn's work, after everything that came was taken.
    pub fn work(&mut self, t: &mut Turn<'_>) {
        self.run_controller(t);
        self.look_again(t);
        self.resume_readers(t);
        self.begin_searches(t);
        self.open_when_ready();
        self.relieve_journals(t);
        self.write_journals(t);
        self.evict();
        if !self.stalled.is_empty() && !self.is_journal_short() {
            self.resume_stalled(t);
        }
        self.write_statements(t);
        self.take_windows(t);
        for (index, reason) in std::mem::take(&mut self.failing) {
            self.fail_directory(t, index, reason);
        }
        self.send_leadership();
        if let Some(job) = self.memory.whole.spare() {
            t.driver.run_aside(job, token::pack(Purpose::Nobody, 0, 0));
        }
    }

    fn write_statements(&mut self, t: &mut Turn<'_>) {
        for index in 0..self.directories.len() {
            if let Some(sealed) = self.directories[index].statement(t.now) {
                self.directories[index].write(t.driver, sealed);
            }
        }
    }

    /// An entry's write has completed.
    pub fn entry_completed(&mut self, t: &mut Turn<'_>, index: usize, generation: u32, result: Result<u32, IoError>, entry: Slice) {
        if let Ok(written) = result
            && (written as usize) < entry.len()
            && written > 0
        {
            return self.directories[index].write_again(t.driver, generation, entry);
        }
        match self.directories[index].completed(generation, result, entry.len(), t.now) {
            Ok(told) => {
                self.scripts.entry_ended(index as DirectoryIndex, generation, t.now);
                self.durable(t, told);
            }
            Err(error) => self.device_failed(t, index, format!("a journal write failed: {error}")),
        }
    }

    /// Whether there is something to do without waiting.
    pub fn has_work(&self) -> bool {
        self.routes.has_inward()
            || self.routes.has_late()
            || (0..self.directories.len()).any(|index| self.wants_seal(index))
            || !self.woken.is_empty()
            || !self.windows_read.is_empty()
            || self.searches.can_begin()
            || !self.sealed.is_empty()
    }

    /// Whether an entry of a journal is being written, which somebody may wait for.
    pub fn is_writing(&self) -> bool {
        self.directories.iter().any(|directory| directory.in_flight() > 0)
    }

    /// When a journal wants to state what is synced.
    pub fn journals_want(&self) -> Nanos {
        let at = |directory: &Directory| if directory.is_failed() { None } else { directory.journal().statement_at() };
        self.directories.iter().filter_map(at).min().unwrap_or(Nanos::NEVER)
    }

    /// Nothing is under way: a clean stop can end here.
    pub fn is_quiet(&self) -> bool {
        let journals = self
            .directories
            .iter()
            .all(|directory| directory.is_failed() || (directory.in_flight() == 0 && !directory.journal().is_building()));
        let none_held = self.holding.iter().all(Holding::is_empty);
        journals
            && none_held
            && self.scripts.running() == 0
            && self.extents.is_empty()
            && self.produces.is_empty()
            && !self.routes.has_inward()
    }

    /// This shard's share of max.connections and of the process's descriptors.
    pub fn connections_max(&self) -> usize {
        let share = (self.settings.max_connections as usize).div_ceil(usize::from(self.facts.shards).max(1));
        share.min(self.open_files.connections_max)
    }

    /// After how long without traffic, and after how long of a send that stands still, a connection is closed.
    pub fn connection_limits_ms(&self) -> (u64, u64) {
        let idle = u64::try_from(self.settings.connections_max_idle_ms).unwrap_or(u64::MAX / 2_000_000);
        (idle, SEND_STALL_MS)
    }

    /// Called a few times a second.
    pub fn keep_house(&mut self, t: &mut Turn<'_>) {
        self.time_out_produces(t.now);
        if self.full_until <= t.now {
            self.full_until = t.now.plus_ms(FULL_RETRY_MS);
            self.retry_unwritten(t);
            self.retry_full();
        }
        self.want_back(t.now);
        self.kept_windows.forget_old(t.now);
        if self.retention_at <= t.now {
            self.retention_at = t.now.plus_ms(self.settings.log_retention_check_interval_ms);
            self.apply_retention(t);
            self.coordinators_forget_lost_topics(t);
        }
        self.resume_stalled(t);
    }

    /// Whether there is nothing to look after before `retention_at` unless something happens. [`Engine::keep_house`] has just looked.
    pub fn is_at_rest(&self, now: Nanos) -> bool {
        let is_still = |index: usize| {
            let directory = &self.directories[index];
            directory.is_failed() || !(directory.full || self.is_pressed(index))
        };
        (0..self.directories.len()).all(is_still)
            && self.is_quiet()
            && !self.stopping
            && self.is_open
            && self.stalled.is_empty()
            && self.owed.is_empty()
            && self.unwritten.is_empty()
            && self.wants_checkpoint.is_empty()
            && self.kept_windows.is_empty()
            && self.room.is_at_rest()
            && self.open_files.grow_at <= now
    }

    /// Lets the oldest cached batches go before the journal's share is full, in the order of the journal: a chunk goes home when all
    /// that was written from it has gone, so partitions must let go together.
    fn evict(&mut self) {
        let (used, budget) = (self.memory.journal.used(), self.memory.journal.budget());
        let most = (budget / 8 * 7).min(CACHE_BYTES_MAX);
        if used <= most {
            return;
        }
        // So much at once that not every turn does it.
        let over = used - most + most / 16;
        let total: usize = self.directories.iter().map(Directory::cached_bytes).sum();
        for directory in self.directories.iter_mut().filter(|directory| directory.cached_bytes() > 0) {
            let below = directory.forget_cached((over as u128 * directory.cached_bytes() as u128).div_ceil(total as u128) as usize);
            self.cached.evict_below(directory.index, below, &mut self.partitions);
        }
    }
}

/// The first data directory is needed; another one that cannot be opened has failed.
fn open_directory(t: &mut Turn<'_>, memory: &Shares, index: usize, boot: DirectoryBoot) -> Result<Directory, IoError> {
    let opened = match boot.state {
        Ok(journal) => match open_files(t, &journal) {
            Ok(files) => Ok((journal, files)),
            Err(error) if index == 0 => return Err(error),
            Err(error) => {
                log::error!("data directory {} is not used: its journal cannot be opened: {error}", boot.path.display());
                Err(format!("data directory {}: its journal cannot be opened: {error}", boot.path.display()))
            }
        },
        Err(reason) => Err(format!("data directory {}: {reason}", boot.path.display())),
    };
    Ok(match opened {
        Ok((journal, files)) => {
            let mut directory = Directory::new(index as u16, boot.id, boot.path, journal.journal, files);
            directory.unkept = journal.unkept;
            directory
        }
        Err(reason) => Directory::failed(index as u16, boot.id, boot.path, reason, &memory.journal),
    })
}

fn open_files(t: &mut Turn<'_>, journal: &JournalBoot) -> Result<BTreeMap<u32, File>, IoError> {
    let how = OpenHow { write: true, direct: true, ..OpenHow::default() };
    let open = |slot: &u32| Ok((*slot, t.driver.disk().open(&journal.folder.join(layout::file_name(*slot)), how)?));
    journal.slots.iter().map(open).collect()
}
