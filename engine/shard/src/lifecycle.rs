//! What committed commands and the passing of time do to partitions: birth, new settings, deletion, retention.
//!
//! 1. Every shard applies every command to its own copy of `state/meta`; the owner of a partition acts on what concerns it.
//! 2. A new partition is a `State` record in its directory's journal, then an epoch start; it is led when that is durable.
//! 3. A deleted one is stated deleted in the journal first; when that is durable its folder goes.
//! 4. The log start moves by DeleteRecords, by retention, and when a coordinator has rewritten its log: a mark of the core, journaled
//!    before it is answered; segments wholly below it are unlinked after that.
//!
//! Invariants: a statement is durable before its deed; nothing is deleted because a statement is absent.

use crate::api::{MetaChange, ReadError, Reply, Request};
use crate::controller::{Controller, Defaults, Next};
use crate::directory::{After, Health};
use crate::engine::{Engine, Turn};
use crate::partition::{Partition, Standing, Waiting};
use crate::routes::Submitter;
use crate::script::{Outcome, Step};
use millrace_base::batch::{self, Builder};
use millrace_base::ids::{META_PARTITION, PartitionId, ShardId, Uuid};
use millrace_base::offset::Offset;
use millrace_base::settings::{Given, Settings, Source};
use millrace_io::IoError;
use millrace_log::journal::{PayloadRange, Record, Urgency};
use millrace_log::partition_state::PartitionState;
use millrace_raftlog::{Configuration, Core, State, Timing};
use millrace_state::meta::topic_configs::TopicConfig;
use millrace_state::meta::{Command, Effect, Live, NodeScope};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The internal topic of group coordinators.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Heartbeats and elections of replica sets; an only voter needs neither.
pub const TIMING: Timing = Timing { heartbeat_ms: 100, election_ms: 1000 };

/// More than the record of a raised mark takes.
const MARK_BYTES: usize = 2048;

/// What replica set 0 has decided and a journal had no room for: it is done when there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owed {
    /// Into this data directory.
    Birth(PartitionId, Uuid),
    Deletion(PartitionId),
}

/// What a script was for.
pub enum Finish {
    /// The segment writes of a partition's checkpoint.
    Checkpoint(PartitionId, crate::store::Write),
    /// A closed segment was cut to size and its index written.
    Closed(PartitionId),
    /// Bytes of a segment for a search by time.
    TimeSearch { query: crate::waits::WaitId, part: usize },
    /// Bytes of a segment for a read alone.
    ColdRead { read: crate::waits::WaitId, part: usize },
    /// Bytes of a segment for all who ask for them meanwhile.
    Window { key: crate::kept_windows::Key },
    /// The large parts of a partition's state.
    StateFile { partition: PartitionId, file: millrace_log::partition_state::StateFile, inline: Vec<u8> },
    /// The index of a closed segment; those who wait look again.
    IndexRead { partition: PartitionId, segment: Offset, then: Then },
    /// Bytes of a segment for a coordinator that loads its log.
    CoordinatorRead { partition: PartitionId, window: crate::window::Window },
    /// Room for direct appends, so many bytes of the active segment's file.
    Allocated { partition: PartitionId, bytes: u64 },
    /// A new journal file.
    JournalFile { directory: usize, slot: u32 },
    /// A segment was cut to its bytes at a clean stop.
    Cut(PartitionId),
    /// Files that were stated gone.
    Removed,
}

/// Who waits for an index.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    Read(crate::waits::WaitId),
    Query(crate::waits::WaitId),
    Coordinator,
}

impl Engine {
    /// A committed command, in order; the controller's shard has appended it.
    pub fn apply(&mut self, t: &mut Turn<'_>, bytes: &[u8]) -> Option<(Command, Vec<Effect>)> {
        let command = match Command::decode(bytes) {
            Ok(command) => command,
            Err(error) => {
                log::error!("a command of replica set 0 cannot be read and is passed over: {error}");
                return None;
            }
        };
        let effects = self.meta.apply(command.clone());
        for effect in &effects {
            self.act(t, effect);
        }
        Some((command, effects))
    }

    fn act(&mut self, t: &mut Turn<'_>, effect: &Effect) {
        match effect {
            Effect::PartitionCreated { partition, directory } => self.create_partition(t, *partition, *directory),
            Effect::TopicDeleted { topic } => {
                for index in 0..topic.partitions() {
                    let id = PartitionId { topic: topic.id, index };
                    self.leaders.remove(&id);
                    self.delete_partition(t, id);
                }
                self.coordinators_forget_topic(t, &topic.name);
            }
            Effect::TopicConfigsChanged { topic } => {
                self.refresh_configs(Some(*topic));
                self.warn_of_compaction(*topic);
            }
            Effect::TopicCreated { topic } => self.warn_of_compaction(*topic),
            Effect::NodeConfigsChanged { .. } => {
                self.refresh_settings();
                self.refresh_configs(None);
            }
            Effect::NodeRegistered { .. }
            | Effect::ProducerIdBlock { .. }
            | Effect::FeatureLevelChanged { .. }
            | Effect::ClusterIdSet { .. }
            | Effect::Refused { .. } => {}
        }
    }

    /// Compaction is accepted, as Connect, Streams and registries ask for it, and not carried out yet: said once a change, by one shard.
    fn warn_of_compaction(&self, id: Uuid) {
        let Some(topic) = self.meta.topic(id).filter(|_| self.controller.is_some()) else { return };
        let config = self.meta.topic_config(topic, self.facts.node, &self.topic_defaults);
        if let Some(kept) = kept_uncompacted(&config).filter(|_| topic.name != OFFSETS_TOPIC) {
            log::warn!("topic {}: cleanup.policy=compact is not carried out yet: {kept}", topic.name);
        }
    }

    /// Settings changed at run time win over what this node was started with.
    pub fn refresh_settings(&mut self) {
        let given = |scope, source: Source| {
            self.meta.node_configs(scope).map(move |(key, value)| Given::new(key, value, source.clone())).collect::<Vec<_>>()
        };
        let mut all = given(NodeScope::Every, Source::Cluster);
        all.extend(given(NodeScope::One(self.facts.node), Source::Node));
        match self.settings.changed(all) {
            Ok(settings) => self.settings = settings,
            Err(error) => log::warn!("a setting changed at run time is not taken: {error}"),
        }
        self.topic_defaults = topic_defaults(&self.settings);
    }

    fn refresh_configs(&mut self, topic: Option<Uuid>) {
        let ids: Vec<PartitionId> = self.partitions.keys().copied().filter(|id| topic.is_none_or(|topic| id.topic == topic)).collect();
        for id in ids {
            let config = self.config_of(id);
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.config = config;
            }
        }
    }

    /// The settings in force of a partition's topic.
    pub fn config_of(&self, id: PartitionId) -> Arc<TopicConfig> {
        let none = Default::default();
        match self.meta.topic(id.topic) {
            Some(topic) => {
                let config = self.meta.topic_config(topic, self.facts.node, &self.topic_defaults);
                // Coordinators bound their logs themselves; what retention would remove may be live.
                Arc::new(if topic.name == OFFSETS_TOPIC { kept(config) } else { config })
            }
            None => Arc::new(kept(TopicConfig::effective(&none, &none))), // replica set 0: snapshots bound its log
        }
    }

    /// Where a partition's files are.
    pub fn folder_of(&self, id: PartitionId, directory: usize) -> PathBuf {
        millrace_log::paths::partition(&self.directories[directory].path, id)
    }

    /// A partition that a committed command made, if it is ours. One that is there already (the command is applied again) stays as it is.
    pub fn create_partition(&mut self, t: &mut Turn<'_>, id: PartitionId, directory: Uuid) {
        if id.shard(self.facts.shards) != self.here || self.partitions.contains_key(&id) {
            return;
        }
        let Some(index) = self.directories.iter().position(|candidate| candidate.id == directory) else {
            log::error!("partition {id} belongs to data directory {directory}, which is not here: it is offline");
            self.leadership_news.push(crate::api::Leadership { partition: id, leader: None, epoch: 0 });
            return;
        };
        if let Health::Failed { reason } = &self.directories[index].health {
            return self.adopt_offline(t, id, index, reason.clone());
        }
        let config = self.config_of(id);
        let consensus = State::new(Configuration::sole(self.member(index)));
        let mut bytes = Vec::new();
        consensus.encode(&mut bytes);
        let state = PartitionState::birth(0, config.index_interval_bytes as u32, bytes);
        let record = Record::State { partition: id, state: PayloadRange { start: 0, len: 0 } };
        let appended = self.journal(t, index, Urgency::Reserved, record, &[&state.encode()], Some(After::Carried(id)));
        let Ok((sequence, _)) = appended else { return self.owed.push(Owed::Birth(id, directory)) };
        let core = Core::restore(self.member(index), consensus, TIMING, t.driver.entropy(), t.now).expect("a newborn state is sound");
        let folder = self.folder_of(id, index);
        let partition = Partition::new(id, index as u16, folder, core, config, &state, sequence);
        self.add_partition(partition);
        self.run_core(t, id);
    }

    /// The partition leads: its own start is committed with it, since it is the only voter.
    pub fn became_leader(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let is_coordinator = self.meta.topic(id.topic).is_some_and(|topic| topic.name == OFFSETS_TOPIC);
        if is_coordinator {
            self.start_coordinator(t, id);
        }
        self.tell_ready();
    }

    /// At start: says once that every partition here which can have a leader has one.
    pub fn tell_ready(&mut self) {
        let led = |partition: &Partition| partition.core.is_leader() || !matches!(partition.standing, Standing::Serving);
        if self.ready_told || !self.partitions.values().all(|partition| led(partition)) {
            return;
        }
        self.ready_told = true;
        self.send_leadership();
        self.routes.submit_for(0, Submitter::Nobody, Request::Ready);
    }

    pub fn delete_partition(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        self.drop_coordinator(id);
        self.refuse_start_waiters(id, &ReadError::UnknownPartition);
        self.owed.retain(|owed| !matches!(owed, Owed::Birth(born, _) if *born == id));
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.standing = Standing::Deleting;
        let waiters: Vec<_> = partition.waiters.drain(..).collect();
        let readers = std::mem::take(&mut partition.readers);
        self.woken.extend(readers.into_iter().map(|reader| (reader, id)));
        for waiter in waiters {
            if let Waiting::Produce { wait, part } = waiter.what {
                self.produce_lost(wait, part);
            }
        }
        self.state_deletion(t, id);
    }

    fn state_deletion(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(directory) = self.partitions.get(&id).map(|partition| usize::from(partition.directory)) else { return };
        if self.directories[directory].is_failed() {
            return;
        }
        let appended = self.journal(t, directory, Urgency::Relief, Record::Deleted { partition: id }, &[], Some(After::Deleted(id)));
        if appended.is_err() {
            self.owed.push(Owed::Deletion(id));
        }
    }

    /// Does what a journal had no room for.
    pub fn repeat_owed(&mut self, t: &mut Turn<'_>) {
        for owed in std::mem::take(&mut self.owed) {
            match owed {
                Owed::Birth(id, directory) => self.create_partition(t, id, directory),
                Owed::Deletion(id) => self.state_deletion(t, id),
            }
        }
    }

    /// The deletion is stated: the files go, as soon as no file work of the partition is under way.
    pub fn deletion_stated(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        // A write that a full disk refused is not under way, and never needs to be.
        let is_held_up = partition.store.unwritten.take().is_some();
        if (partition.busy && !is_held_up) || !partition.directs.is_empty() {
            partition.remove_when_idle = true;
            return;
        }
        let Some(mut partition) = self.partitions.remove(&id) else { return };
        self.needed.forget(&partition);
        self.cached.forget(&partition);
        self.direct_bytes -= partition.stated(None);
        let mut steps = Vec::new();
        if let Some(file) = partition.store.file {
            steps.push(Step::Close(crate::script::Handle::Open(file)));
        }
        steps.extend(partition.store.all_files().into_iter().map(Step::Unlink));
        steps.push(Step::RemoveDirectory(partition.folder.clone()));
        if let Some(topic) = partition.folder.parent() {
            steps.push(Step::RemoveDirectory(topic.to_owned()));
        }
        self.scripts.start_removal(t.driver, steps, Finish::Removed);
    }

    /// Moves the log start; the mark is journaled, and what waits for it is told when it is settled. False: the journal has no room for it.
    pub fn raise_log_start(&mut self, t: &mut Turn<'_>, id: PartitionId, to: Offset) -> bool {
        let Some(partition) = self.partitions.get(&id) else { return true };
        let (mut marks, directory) = (partition.core.marks(), usize::from(partition.directory));
        if to <= marks.log_start {
            return true;
        }
        // A mark can wait for room, a step of the core that is taken cannot.
        if self.make_room(t.driver, t.now, directory, MARK_BYTES, Urgency::Reserved).is_err() {
            return false;
        }
        marks.log_start = to;
        let raised = self.partitions.get_mut(&id).map(|partition| partition.core.raise_marks(marks));
        if raised.is_some_and(|raised| raised.is_ok()) {
            self.run_core(t, id);
        }
        true
    }

    /// Retention by time and size of every partition, expiry of producers.
    pub fn apply_retention(&mut self, t: &mut Turn<'_>) {
        let expiration = i64::try_from(self.settings.producer_id_expiration_ms).unwrap_or(i64::MAX);
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for id in ids {
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            if !partition.is_writable() {
                continue;
            }
            partition.producers.expire(t.wall, expiration);
            partition.awaited.forget(t.now, self.settings.producer_id_expiration_ms);
            let (start, commit) = (partition.core.log_start(), partition.core.commit());
            let due = partition.store.retention(&partition.config, start, commit, t.now, t.wall);
            if let Some(to) = due.log_start {
                self.raise_log_start(t, id, to);
            }
            self.roll_if_old(t, id, due.roll);
            if self.partitions.get(&id).is_some_and(|partition| partition.store.retention_waits(&partition.config)) {
                self.checkpoint(t, id);
            }
        }
    }

    /// A script's end.
    pub fn finished(&mut self, t: &mut Turn<'_>, finish: Finish, result: Result<Outcome, IoError>) {
        match finish {
            Finish::Checkpoint(id, write) => self.checkpoint_written(t, id, write, result),
            Finish::Closed(id) => self.segment_closed(t, id, result),
            Finish::ColdRead { read, part } => self.window_read(read, part, result),
            Finish::Window { key } => self.window_came(key, result),
            Finish::TimeSearch { query, part } => self.search_read(t, query, part, result),
            Finish::StateFile { partition, file, inline } => self.state_file_written(t, partition, file, &inline, result),
            Finish::IndexRead { partition, segment, then } => self.index_read(t, partition, segment, then, result),
            Finish::CoordinatorRead { partition, window } => {
                self.coordinator_window(t, partition, &window, result.map(Outcome::bytes));
            }
            Finish::Allocated { partition, bytes } => self.room_reserved(t, partition, bytes, result),
            Finish::JournalFile { directory, slot } => self.journal_file_made(t, directory, slot, result),
            Finish::Cut(id) => self.segment_cut(t, id, result),
            Finish::Removed => {
                let outcome = result.unwrap_or_else(|error| {
                    log::warn!("files that were deleted could not all be removed: {error}; the next start tries again");
                    Outcome::default()
                });
                for (path, error) in outcome.unremoved {
                    log::warn!("{} was deleted and cannot be removed: {error}; the next start tries again", path.display());
                }
            }
        }
    }
}

/// Replica set 0.
impl Engine {
    pub fn meta_request(&mut self, from: ShardId, ticket: u64, changes: Vec<MetaChange>) {
        match &mut self.controller {
            Some(controller) => controller.request(from, ticket, changes),
            None => {
                let refusal = crate::api::MetaRefusal::Unavailable { reason: "this shard does not lead replica set 0".to_owned() };
                let results = changes.iter().map(|_| Err(refusal.clone())).collect();
                self.routes.reply(from, ticket, Reply::Meta(results));
            }
        }
    }

    /// Lets the controller go on with its queue.
    pub fn run_controller(&mut self, t: &mut Turn<'_>) {
        let Some(mut controller) = self.controller.take() else { return };
        let leads = self.partitions.get(&META_PARTITION).is_some_and(|partition| partition.core.is_leader());
        while leads && !controller.is_idle() {
            let driver = &mut *t.driver;
            let mut fresh = || Uuid::from_entropy(driver.entropy(), driver.entropy());
            match controller.next(&self.meta, &self.meta_defaults(), &mut fresh) {
                Next::Nothing => break,
                Next::Reply { to, ticket, reply } => self.routes.reply(to, ticket, reply),
                Next::Append(command) => self.propose(t, &mut controller, &command),
            }
        }
        self.controller = Some(controller);
    }

    fn meta_defaults(&self) -> Defaults {
        let live = self.directories.iter().filter(|directory| !directory.is_failed());
        let live = Live { directories: live.map(|directory| directory.id).collect(), partitions_max: self.directory_partitions_max() };
        Defaults {
            partitions: self.settings.num_partitions,
            replication_factor: u16::try_from(self.settings.default_replication_factor).unwrap_or(1),
            live,
            producer_id_seen: self.producer_id_seen,
        }
    }

    /// Partitions that a data directory may hold: each of its journals does for as many as its reserve can relieve.
    fn directory_partitions_max(&self) -> usize {
        self.directories[0].journal().options().partitions_max() * usize::from(self.facts.shards)
    }

    fn propose(&mut self, t: &mut Turn<'_>, controller: &mut Controller, command: &Command) {
        let mut builder = Builder::new(t.wall);
        builder.push(t.wall, None, Some(&command.encode()));
        let bytes = builder.finish();
        let header = batch::Header::parse(&bytes).expect("the builder made it");
        let writable = self.partitions.get(&META_PARTITION).is_some_and(|partition| partition.is_writable());
        let batch = self.memory.work.take(bytes.len()).push(&bytes);
        let appended = if writable { self.append_batch(t, META_PARTITION, batch, header, None, Urgency::Reserved).ok() } else { None };
        match appended {
            Some(_) => controller.appended(),
            None => controller.refused("the log of replica set 0 takes no writes now: its data directory is full or failed".to_owned()),
        }
    }

    /// Set 0's commit moved: commands that are new are applied everywhere.
    pub fn meta_committed(&mut self, t: &mut Turn<'_>, commit: Offset) {
        let from = self.meta_applied;
        if commit <= from {
            return;
        }
        let slices = self.partitions.get(&META_PARTITION).and_then(|partition| partition.tail.read(from, commit, usize::MAX, true));
        let (slices, _) = slices.expect("what was appended since start is still in memory until applied");
        self.meta_applied = commit;
        for slice in slices {
            for found in millrace_log::walk::batches(&slice) {
                let found = found.expect("set 0's own batches are whole");
                if found.header.base_offset < from {
                    continue;
                }
                for record in batch::records(found.bytes).flatten() {
                    if let Some(value) = record.value {
                        self.apply_everywhere(t, value);
                    }
                }
            }
        }
    }

    fn apply_everywhere(&mut self, t: &mut Turn<'_>, bytes: &[u8]) {
        let shared: Arc<[u8]> = bytes.into();
        for shard in (0..self.facts.shards).filter(|shard| *shard != self.here) {
            self.routes.submit_for(shard, Submitter::Applied, Request::Apply(Arc::clone(&shared)));
        }
        let Some((command, effects)) = self.apply(t, bytes) else { return };
        let ours: Vec<Uuid> = self.meta.node(self.facts.node).map(|n| n.directories.iter().map(|d| d.id).collect()).unwrap_or_default();
        let here = |partition: &PartitionId| {
            let topic = self.meta.topic(partition.topic);
            topic.and_then(|topic| topic.directories.get(partition.index as usize)).is_some_and(|directory| ours.contains(directory))
        };
        if let Some(controller) = &mut self.controller {
            controller.applying(&command, &effects, here);
        }
        // Those of this shard may have leaders already; the controller counts only from now on.
        let led: Vec<PartitionId> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::PartitionCreated { partition, .. } if self.leaders.contains_key(partition) => Some(*partition),
                _ => None,
            })
            .collect();
        if let Some(controller) = &mut self.controller {
            led.into_iter().for_each(|partition| controller.led(partition));
        }
    }

    pub fn applied_elsewhere(&mut self) {
        if let Some(controller) = &mut self.controller {
            controller.applied();
        }
    }
}

/// The same without retention.
fn kept(config: TopicConfig) -> TopicConfig {
    TopicConfig { cleanup_delete: false, retention_ms: None, retention_bytes: None, ..config }
}

/// The broker settings that topics take their defaults from, by name, in their own units.
fn topic_defaults(settings: &Settings) -> BTreeMap<String, String> {
    let for_topics = settings.entries().filter(|entry| entry.setting.topic.is_some());
    for_topics.filter_map(|entry| Some((entry.setting.name.to_owned(), entry.value()?))).collect()
}

/// What a topic keeps while the compaction that it asks for is not carried out; None if it does not ask.
fn kept_uncompacted(config: &TopicConfig) -> Option<&'static str> {
    match (config.cleanup_compact, config.cleanup_delete) {
        (false, _) => None,
        (true, true) => Some("whole segments go by retention.* alone"),
        (true, false) => Some("all of it is kept, without retention"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_of_compaction_says_whether_retention_goes_on() {
        let kept = |policy: &str| {
            let policy = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
            kept_uncompacted(&TopicConfig::effective(&policy, &BTreeMap::new()))
        };
        assert_eq!(kept("delete"), None);
        assert!(kept("compact").is_some_and(|kept| kept.contains("without retention")));
        assert!(kept("compact,delete").is_some_and(|kept| kept.contains("retention.*")));
    }

    #[test]
    fn topics_without_settings_of_their_own_have_the_brokers() {
        let effective = |pairs: &[&str]| {
            let given = pairs.iter().map(|pair| Given::from_pair(pair, "a test").expect("key=value"));
            TopicConfig::effective(&BTreeMap::new(), &topic_defaults(&Settings::new(given).expect("allowed values")))
        };
        assert_eq!(effective(&[]), TopicConfig::effective(&BTreeMap::new(), &BTreeMap::new()), "Kafka's defaults");
        assert_eq!(effective(&["log.retention.ms=7"]).retention_ms, Some(7));
        assert_eq!(effective(&["log.retention.hours=1"]).retention_ms, Some(3_600_000));
        assert_eq!(effective(&["log.segment.bytes=2MiB"]).segment_bytes, 2 << 20);
        assert_eq!(effective(&["log.message.timestamp.after.max.ms=5"]).message_timestamp_after_max_ms, 5);
    }
}
