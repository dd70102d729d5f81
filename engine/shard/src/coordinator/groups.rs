//! The consumer groups of one partition of `__consumer_offsets`, joined with its log.
//!
//! 1. When the partition is led here its log is read from the start to the commit; until then requests are told to wait.
//! 2. A request goes to the machine; the machine's writes become batches; what it answers after a write waits for the commit.
//! 3. When the log has grown to several times what is live, the live records are appended again and the log start moves up to them.
//!
//! Invariants: writes are reported to the machine in the order in which it asked for them; the log start never passes a live record.
//! Knows nothing of the protocol: requests and answers are the machine's.

use crate::api::{GroupUnavailable, Reply};
use crate::append::fits_an_entry;
use crate::engine::{Engine, Turn};
use crate::observe::GroupFacts;
use crate::partition::{CommitWaiter, Standing, Waiting};
use crate::timers::{TimerFor, TimerKey};
use millrace_base::batch::{self, Builder};
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::ids::{PartitionId, ShardId, Uuid};
use millrace_base::offset::Offset;
use millrace_base::planted::{Bug, is_planted};
use millrace_log::journal::Urgency;
use millrace_state::groups::records::Record;
use millrace_state::groups::{Effect, Groups, Now, Request, Settings, WriteError};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes from which on a batch that a coordinator writes takes no further record.
const BATCH_BYTES: usize = 256 << 10;

/// The log is rewritten when it holds more bytes than this and than [`REWRITE_FACTOR`] times what was live at the last rewrite.
const REWRITE_BYTES_MIN: u64 = 4 << 20;
const REWRITE_FACTOR: u64 = 4;

/// See the module's head.
pub struct Coordinator {
    groups: Groups,
    /// Everything below has been replayed; while loading, the next offset to read.
    pub loaded_to: Offset,
    /// The commit when loading began; None: loaded.
    pub loading_to: Option<Offset>,
    /// Loading goes on when the timer fires.
    loads_later: bool,
    /// Requests of the machine: who asked.
    requests: BTreeMap<u64, (ShardId, u64)>,
    next_request: u64,
    /// The one timer of the machine.
    timer: Option<TimerKey>,
    /// Bytes appended since the log start.
    log_bytes: u64,
    /// Bytes of the last rewrite.
    live_bytes: u64,
    /// After a rewrite that found no room: none before the log has so many bytes.
    rewrite_from: u64,
    /// A rewrite is under way: its first offset.
    rewriting: Option<Offset>,
}

/// How long loading waits when no file can be opened.
const LOAD_PAUSE_MS: u64 = 100;

/// The token of the wait for a rewrite; the machine's own count from zero.
const REWRITE: u64 = u64::MAX;

fn now_of(t: &Turn<'_>) -> Now {
    Now { steady_ms: t.now.0 / 1_000_000, wall_ms: t.wall }
}

impl Coordinator {
    fn new(settings: Settings, from: Offset, to: Offset) -> Coordinator {
        Coordinator {
            groups: Groups::new(settings),
            loaded_to: from,
            loading_to: Some(to),
            loads_later: false,
            requests: BTreeMap::new(),
            next_request: 0,
            timer: None,
            log_bytes: 0,
            live_bytes: 0,
            rewrite_from: 0,
            rewriting: None,
        }
    }

    /// Its groups, once they are loaded.
    pub fn facts(&self) -> impl Iterator<Item = GroupFacts> {
        self.groups.committed().filter(|_| self.loading_to.is_none()).map(|(group, members, offsets)| GroupFacts {
            group: group.to_owned(),
            members,
            offsets: offsets.map(|(topic, partition, offset)| (topic.to_owned(), partition.unsigned_abs(), offset)).collect(),
        })
    }

    /// Takes whole batches of the log, in order.
    fn replay(&mut self, batches: &[u8]) {
        for found in millrace_log::walk::batches(batches) {
            let Ok(found) = found else { return };
            if found.header.next_offset() <= self.loaded_to {
                continue;
            }
            for record in batch::records(found.bytes).flatten() {
                let Some(key) = record.key else { continue };
                if let Err(error) = self.groups.replay(key, record.value) {
                    log::warn!("a group record at offset {} is passed over: {error}", record.offset);
                }
            }
            self.loaded_to = found.header.next_offset();
            self.log_bytes += found.header.size as u64;
        }
    }
}

impl Engine {
    fn group_settings(&self) -> Settings {
        let s = &self.settings;
        Settings {
            initial_rebalance_delay_ms: s.group_initial_rebalance_delay_ms,
            session_timeout_min_ms: i32::try_from(s.group_min_session_timeout_ms).unwrap_or(i32::MAX),
            session_timeout_max_ms: i32::try_from(s.group_max_session_timeout_ms).unwrap_or(i32::MAX),
            group_size_max: s.group_max_size as usize,
            offset_metadata_bytes_max: s.offset_metadata_max_bytes as usize,
            offsets_retention_ms: i64::try_from(s.offsets_retention_minutes).unwrap_or(i64::MAX).saturating_mul(60_000),
            offsets_retention_check_interval_ms: s.offsets_retention_check_interval_ms,
            state_bytes_max: self.memory.group_bytes,
        }
    }

    /// A partition of `__consumer_offsets` is led here: its log is read before requests are taken.
    pub fn start_coordinator(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(partition) = self.partitions.get(&id) else { return };
        let coordinator = Coordinator::new(self.group_settings(), partition.log_start(), partition.read_bound());
        self.coordinators.insert(id, coordinator);
        self.load_coordinator(t, id);
    }

    /// The partition is not served any more: who asked is told to look elsewhere.
    pub fn drop_coordinator(&mut self, id: PartitionId) {
        let Some(coordinator) = self.coordinators.remove(&id) else { return };
        for (from, ticket) in coordinator.requests.into_values() {
            self.routes.reply(from, ticket, Reply::Group(Err(GroupUnavailable::NotCoordinator)));
        }
    }

    /// Goes on reading, or begins to serve.
    pub fn load_coordinator(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(coordinator) = self.coordinators.get(&id) else { return };
        let Some(to) = coordinator.loading_to else { return };
        if coordinator.loaded_to < to {
            return self.read_for_coordinator(t, id, coordinator.loaded_to, to);
        }
        let now = now_of(t);
        let coordinator = self.coordinators.get_mut(&id).expect("found above");
        coordinator.loading_to = None;
        let effects = coordinator.groups.loaded(now);
        self.run_group_effects(t, id, effects);
    }

    /// No file can be opened now; there may be one later.
    pub fn load_coordinator_later(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        coordinator.loads_later = true;
        t.timers.add(t.now.plus_ms(LOAD_PAUSE_MS), TimerFor::Coordinator { partition: id });
    }

    /// Batches that [`Engine::load_coordinator`] asked for; empty when they cannot be read.
    pub fn coordinator_read(&mut self, t: &mut Turn<'_>, id: PartitionId, batches: &[&[u8]]) {
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        let before = coordinator.loaded_to;
        batches.iter().for_each(|batches| coordinator.replay(batches));
        if coordinator.loaded_to == before {
            return self.coordinator_unreadable(id, format!("its log cannot be read at offset {before}"));
        }
        self.load_coordinator(t, id);
    }

    /// A coordinator that has not all of its log does not serve.
    pub fn coordinator_unreadable(&mut self, id: PartitionId, reason: String) {
        log::error!("the group coordinator of {id} cannot start: {reason}");
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.standing = Standing::Damaged { reason };
        }
        self.drop_coordinator(id);
    }

    pub fn group_request(&mut self, t: &mut Turn<'_>, from: ShardId, ticket: u64, id: PartitionId, request: Request) {
        let serves = self.partitions.get(&id).is_some_and(|partition| partition.is_writable() && partition.core.is_leader());
        let refusal = match self.coordinators.get(&id) {
            Some(coordinator) if serves && coordinator.loading_to.is_none() => None,
            Some(_) if serves => Some(GroupUnavailable::Loading),
            _ => Some(GroupUnavailable::NotCoordinator),
        };
        if let Some(refusal) = refusal {
            return self.routes.reply(from, ticket, Reply::Group(Err(refusal)));
        }
        let fresh = Uuid::from_entropy(t.driver.entropy(), t.driver.entropy());
        let now = now_of(t);
        let others: usize = self.coordinators.iter().filter(|(other, _)| **other != id).map(|(_, other)| other.groups.bytes()).sum();
        let bytes_max = self.memory.group_bytes.saturating_sub(others);
        let coordinator = self.coordinators.get_mut(&id).expect("looked up above");
        coordinator.groups.set_bytes_max(bytes_max);
        let token = coordinator.next_request;
        coordinator.next_request += 1;
        coordinator.requests.insert(token, (from, ticket));
        let may_wait = matches!(request, Request::Join(_) | Request::Sync(_));
        let effects = coordinator.groups.handle(token, request, now, fresh);
        self.run_group_effects(t, id, effects);
        // A member waits for the others of its group as long as they like.
        if may_wait && self.coordinators.get(&id).is_some_and(|coordinator| coordinator.requests.contains_key(&token)) {
            self.routes.park(from, ticket);
        }
    }

    pub fn coordinator_timer(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let now = now_of(t);
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        if coordinator.loading_to.is_some() {
            if std::mem::take(&mut coordinator.loads_later) {
                self.load_coordinator(t, id);
            }
            return;
        }
        // Usually the one that fired; if it was left by a coordinator before this one, the present one is asked for anew.
        if let Some(present) = coordinator.timer.take() {
            t.timers.remove(present);
        }
        let effects = coordinator.groups.tick(now);
        self.run_group_effects(t, id, effects);
    }

    /// A topic is gone: so are the offsets committed for it.
    pub fn coordinators_forget_topic(&mut self, t: &mut Turn<'_>, name: &str) {
        self.forget_offsets(t, &[name.to_owned()], |_| true);
    }

    /// Offsets of topics that are not there, whatever kept them from going with their topic: a coordinator that was being read, a crash
    /// before that was durable, a journal without room, a commit that came later.
    pub fn coordinators_forget_lost_topics(&mut self, t: &mut Turn<'_>) {
        if !self.is_open {
            return; // replica set 0 may not be applied in full
        }
        let is_lost = |topic: &&str| self.meta.topic_named(topic).is_none();
        let named = self.coordinators.values().flat_map(|coordinator| coordinator.groups.topics());
        let lost: BTreeSet<String> = named.filter(is_lost).map(str::to_owned).collect();
        if !lost.is_empty() {
            let lost: Vec<String> = lost.into_iter().collect();
            // What is being written may be just that.
            self.forget_offsets(t, &lost, |groups| groups.writes_in_flight() == 0);
        }
    }

    /// `topics`: in order.
    fn forget_offsets(&mut self, t: &mut Turn<'_>, topics: &[String], is_meant: impl Fn(&Groups) -> bool) {
        let now = now_of(t);
        let ids: Vec<PartitionId> = self.coordinators.keys().copied().collect();
        for id in ids {
            let Some(coordinator) = self.coordinators.get_mut(&id) else { continue };
            if coordinator.loading_to.is_some() || !is_meant(&coordinator.groups) {
                continue;
            }
            let effects = coordinator.groups.topics_deleted(topics, now);
            self.run_group_effects(t, id, effects);
        }
    }

    fn run_group_effects(&mut self, t: &mut Turn<'_>, id: PartitionId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { request, answer } => {
                    let asked = self.coordinators.get_mut(&id).and_then(|coordinator| coordinator.requests.remove(&request));
                    if let Some((from, ticket)) = asked {
                        self.routes.reply(from, ticket, Reply::Group(Ok(answer)));
                    }
                }
                Effect::Write { token, records } => self.write_group_records(t, id, token, &records),
                Effect::Timer { at_ms } => {
                    let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
                    let key = t.timers.add(Nanos(at_ms.saturating_mul(1_000_000)), TimerFor::Coordinator { partition: id });
                    if let Some(earlier) = coordinator.timer.replace(key) {
                        t.timers.remove(earlier);
                    }
                }
            }
        }
    }

    fn write_group_records(&mut self, t: &mut Turn<'_>, id: PartitionId, token: u64, records: &[Record]) {
        match self.append_records(t, id, records) {
            Ok(_) if is_planted(Bug::AnswerCommitEarly) => self.coordinator_written(t, id, token),
            Ok((_, end)) => {
                if let Some(partition) = self.partitions.get_mut(&id) {
                    partition.wait(CommitWaiter { end, what: Waiting::Coordinator { token } });
                }
            }
            Err(error) => self.report_refused(t, id, token, error),
        }
    }

    /// Appends records in batches, all of them or none; gives the first offset and the end.
    fn append_records(&mut self, t: &mut Turn<'_>, id: PartitionId, records: &[Record]) -> Result<(Offset, Offset), WriteError> {
        let partition = self.partitions.get(&id).filter(|partition| partition.is_writable()).ok_or(WriteError::Unavailable)?;
        if !partition.core.is_leader() {
            return Err(WriteError::NotLeader);
        }
        let directory = usize::from(partition.directory);
        let urgency = Urgency::Reserved; // a full disk refuses them last
        let batches = batches_of(records, t.wall);
        let journal = self.directories[directory].journal();
        let entry_bytes_max = journal.options().entry_bytes_max;
        if batches.iter().any(|batch| !fits_an_entry(batch.len(), entry_bytes_max)) {
            return Err(WriteError::TooLarge);
        }
        // What the ends of files and entries cannot take is less than was asked for once more.
        let bytes: usize = batches.iter().map(Vec::len).sum();
        if batches.len() > 1 && journal.room_in_all(urgency) < 2 * bytes + entry_bytes_max {
            return Err(WriteError::Unavailable);
        }
        let mut appended: Option<(Offset, Offset)> = None;
        for bytes in batches {
            let header = batch::Header::parse(&bytes).expect("the builder made it");
            let batch = self.memory.work.take(bytes.len()).push(&bytes);
            let (base, end) = self.append_batch(t, id, batch, header, None, urgency).map_err(|_| WriteError::Unavailable)?;
            appended = Some((appended.map_or(base, |(first, _)| first), end));
            if let Some(coordinator) = self.coordinators.get_mut(&id) {
                coordinator.log_bytes += bytes.len() as u64;
            }
        }
        appended.ok_or(WriteError::Unavailable)
    }

    /// A write of the coordinator is committed.
    pub fn coordinator_written(&mut self, t: &mut Turn<'_>, id: PartitionId, token: u64) {
        if token == REWRITE {
            return self.rewritten(t, id);
        }
        let now = now_of(t);
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        let effects = coordinator.groups.written(token, Ok(()), now);
        self.run_group_effects(t, id, effects);
        self.rewrite_if_due(t, id);
    }

    /// A write of the coordinator never will be.
    pub fn coordinator_refused(&mut self, t: &mut Turn<'_>, id: PartitionId, token: u64) {
        self.report_refused(t, id, token, WriteError::Unavailable);
    }

    fn report_refused(&mut self, t: &mut Turn<'_>, id: PartitionId, token: u64, error: WriteError) {
        let now = now_of(t);
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        if token == REWRITE {
            coordinator.rewriting = None;
            return;
        }
        let effects = coordinator.groups.written(token, Err(error), now);
        self.run_group_effects(t, id, effects);
    }

    fn rewrite_if_due(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        let due = coordinator.log_bytes > REWRITE_BYTES_MIN.max(REWRITE_FACTOR * coordinator.live_bytes).max(coordinator.rewrite_from);
        if !due || coordinator.rewriting.is_some() {
            return;
        }
        let live: Vec<Record> = coordinator.groups.live_records().collect();
        let Some(end) = self.partitions.get(&id).map(|partition| partition.core.log_end()) else { return };
        let appended = if live.is_empty() { Ok((end, end)) } else { self.append_records(t, id, &live) };
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        let Ok((first, end)) = appended else {
            // Not at every commit: gathering all that is live costs much.
            coordinator.rewrite_from = coordinator.log_bytes + REWRITE_BYTES_MIN;
            return;
        };
        coordinator.rewriting = Some(first);
        coordinator.live_bytes = live.iter().map(|record| (record.key.len() + record.value.as_ref().map_or(0, Vec::len) + 16) as u64).sum();
        coordinator.log_bytes = coordinator.live_bytes;
        coordinator.rewrite_from = 0;
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.wait(CommitWaiter { end, what: Waiting::Coordinator { token: REWRITE } });
        }
    }

    /// What is live stands in the log again: what is below can go.
    fn rewritten(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let first = self.coordinators.get_mut(&id).and_then(|coordinator| coordinator.rewriting.take());
        if let Some(first) = first {
            self.raise_log_start(t, id, first); // or the next time that it is rewritten
        }
    }
}

/// The records in batches of some [`BATCH_BYTES`]; one that is larger stands alone, so that it is stored again as it was the first time.
fn batches_of(records: &[Record], wall: WallMs) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    let mut builder = Builder::new(wall);
    for record in records {
        let bytes = record.key.len() + record.value.as_ref().map_or(0, Vec::len);
        if !builder.is_empty() && builder.size() + bytes >= BATCH_BYTES {
            batches.push(std::mem::replace(&mut builder, Builder::new(wall)).finish());
        }
        builder.push(wall, Some(&record.key), record.value.as_deref());
        if builder.size() >= BATCH_BYTES {
            batches.push(std::mem::replace(&mut builder, Builder::new(wall)).finish());
        }
    }
    if !builder.is_empty() {
        batches.push(builder.finish());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_all_in_batches_which_end_when_they_are_large() {
        let record = |bytes: usize| Record { key: vec![1; 10], value: Some(vec![2; bytes]) };
        let records = [record(10), record(2 * BATCH_BYTES), record(20), record(30)];
        let batches = batches_of(&records, 1000);
        let counts: Vec<i32> = batches.iter().map(|bytes| batch::Header::parse(bytes).unwrap().count).collect();
        assert_eq!(counts, [1, 1, 2]);
        assert!(batches_of(&[], 1000).is_empty());
    }
}
