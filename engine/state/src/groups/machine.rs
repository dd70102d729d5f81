//! The groups of one partition of `__consumer_offsets`: a pure machine that the shard leading that partition drives.
//!
//! 1. At start: `replay` every record of the log in order, then `loaded`: members keep their ids and generation, sessions begin anew.
//! 2. `handle` takes a request and `tick` the time; both give effects. Long waits (join, sync) are replies that come later.
//! 3. Whatever is to be durable is written first: a `Write` effect now, the reply when `written` says that it is committed.
//! 4. To bound the log: append `live_records`, then move the log start up to where they begin.
//!
//! Invariants: durable state (offsets, each group's last record) changes only by `replay` and by `written(Ok)`, in the log's order, so that
//! replaying the log, or `live_records`, gives the same; every request gets one reply; generations of a group only grow.
//! Knows nothing of logs, shards, connections, or the wire's numbers.

use std::collections::{BTreeMap, BTreeSet};

use millrace_base::ids::Uuid;

use super::group::Group;
use super::membership::ID_BYTES;
use super::records::{Change, Record, RecordError};
use super::request::{
    Answer, DescribedMember, Description, Effect, GROUPS_MAX, GroupError, GroupState, JoinRefused, LeavingAnswer, Listed, Now,
    PartitionAnswer, Request, RequestToken, Settings, TEXT_BYTES_MAX, WriteError, WriteToken,
};
use super::{membership, offsets};

/// Groups looked at for expired offsets in one tick.
const EXPIRE_STEP: usize = 256;

/// Of one record on its way, besides its bytes; and of a member that joins, besides its protocols.
const WRITE_BYTES: usize = 128;
const JOIN_BYTES: usize = 2048;

/// What follows when a write is committed or refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Then {
    Nothing,
    Commit {
        request: RequestToken,
        answers: Vec<PartitionAnswer>,
    },
    Assign {
        generation: i32,
    },
    StaticMember(Box<membership::StaticRejoin>),
    Left {
        request: RequestToken,
        answers: Vec<LeavingAnswer>,
    },
    OffsetsDeleted {
        request: RequestToken,
        answers: Vec<PartitionAnswer>,
    },
    /// The group is Dead until then. Without a request: it expired.
    GroupDeleted {
        request: Option<RequestToken>,
    },
}

/// A write that is not yet reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct InFlight {
    pub(super) group: String,
    pub(super) changes: Vec<Change>,
    pub(super) then: Then,
    /// Of its records.
    bytes: usize,
}

/// What every handler needs beside the group: settings, time, and where effects go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) now: Now,
    effects: Vec<Effect>,
    pub(super) writes: BTreeMap<WriteToken, InFlight>,
    next_write: WriteToken,
    /// Memory of all groups, and of the writes in flight.
    groups_bytes: usize,
    writes_bytes: usize,
    deadlines: BTreeSet<(u64, String)>,
    announced: Option<u64>,
    expire_at: u64,
    /// The last group looked at in this round.
    expire_after: Option<String>,
}

impl Core {
    pub(super) fn reply(&mut self, request: RequestToken, answer: Answer) {
        self.effects.push(Effect::Reply { request, answer });
    }

    pub(super) fn write(&mut self, name: &str, group: &mut Group, changes: Vec<Change>, then: Then) -> WriteToken {
        let token = self.next_write;
        self.next_write += 1;
        group.writes_in_flight += 1;
        let records: Vec<Record> = changes.iter().map(Change::encode).collect();
        // Once as changes, once as records on their way.
        let bytes = records.iter().map(|record| 2 * (record.key.len() + record.value.as_ref().map_or(0, Vec::len) + WRITE_BYTES)).sum();
        self.writes_bytes += bytes;
        self.effects.push(Effect::Write { token, records });
        self.writes.insert(token, InFlight { group: name.to_owned(), changes, then, bytes });
        token
    }

    /// Looks at the group's deadlines no later than `at`.
    pub(super) fn arm(&mut self, name: &str, group: &mut Group, at: u64) {
        if group.wake.is_some_and(|wake| wake <= at) {
            return;
        }
        self.disarm(name, group);
        group.wake = Some(at);
        self.deadlines.insert((at, name.to_owned()));
    }

    /// Counts the group as it is now.
    fn count(&mut self, group: &mut Group) {
        let bytes = group.bytes();
        self.groups_bytes = self.groups_bytes + bytes - group.counted;
        group.counted = bytes;
    }

    /// Whether so many bytes more may be held. Those of writes go with them, so that one at least always may be.
    fn has_room(&self, bytes: usize) -> bool {
        self.groups_bytes.saturating_add(self.writes_bytes).saturating_add(bytes) <= self.settings.state_bytes_max
    }

    fn disarm(&mut self, name: &str, group: &mut Group) {
        if let Some(wake) = group.wake.take() {
            self.deadlines.remove(&(wake, name.to_owned()));
        }
    }

    /// Steady time in `ms` from now.
    pub(super) fn after(&self, ms: u64) -> u64 {
        self.now.steady_ms.saturating_add(ms)
    }
}

/// The groups of one partition.
#[derive(Clone, Debug)]
pub struct Groups {
    groups: BTreeMap<String, Group>,
    core: Core,
}

impl Groups {
    /// Every group: its name, how many members it has, and its committed offsets by topic and partition.
    pub fn committed(&self) -> impl Iterator<Item = (&str, usize, impl Iterator<Item = (&str, i32, i64)>)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group.members.len(), group.committed()))
    }

    pub fn new(settings: Settings) -> Groups {
        let core = Core {
            settings,
            now: Now { steady_ms: 0, wall_ms: 0 },
            effects: Vec::new(),
            writes: BTreeMap::new(),
            next_write: 0,
            groups_bytes: 0,
            writes_bytes: 0,
            deadlines: BTreeSet::new(),
            announced: None,
            expire_at: u64::MAX,
            expire_after: None,
        };
        Groups { groups: BTreeMap::new(), core }
    }

    /// New values from now on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.core.settings = settings;
    }

    /// One record of the log, in order, before `loaded`.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        let change = Change::decode(key, value)?;
        let name = match &change {
            Change::Offset { group, .. } | Change::Group { group, .. } => group.clone(),
        };
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group::new(&name));
        group.commit(change);
        if group.is_vacant() {
            self.groups.remove(&name);
        }
        Ok(())
    }

    /// The log is read: requests may come.
    pub fn loaded(&mut self, now: Now) -> Vec<Effect> {
        self.core.now = now;
        for (name, group) in &mut self.groups {
            group.resume(now.steady_ms);
            self.core.count(group);
            if let Some(at) = group.next_deadline() {
                self.core.arm(name, group, at);
            }
        }
        self.core.expire_at = self.core.after(self.core.settings.offsets_retention_check_interval_ms);
        self.take_effects()
    }

    /// A request. `fresh` is a random id, used if this is a member's first join.
    pub fn handle(&mut self, token: RequestToken, request: Request, now: Now, fresh: Uuid) -> Vec<Effect> {
        self.core.now = now;
        match request {
            Request::List => self.core.effects.push(Effect::Reply { request: token, answer: Answer::Listed(self.list()) }),
            Request::Describe { group } => {
                let answer = Answer::Described(self.describe(&group));
                self.core.reply(token, answer);
            }
            Request::FetchOffsets { group, partitions } => {
                let group = self.groups.get(&group);
                // While it is being deleted nobody can say whether it has offsets.
                let is_going = group.is_some_and(|group| group.state == GroupState::Dead);
                let answer = if is_going { Err(GroupError::CoordinatorNotAvailable) } else { Ok(offsets::fetch(group, partitions)) };
                self.core.reply(token, Answer::Offsets(answer));
            }
            other => self.change(token, other, fresh),
        }
        self.take_effects()
    }

    fn change(&mut self, token: RequestToken, request: Request, fresh: Uuid) {
        if let Err(error) = check_bounds(&request) {
            return self.core.reply(token, refusal(request, error));
        }
        let name = group_of(&request).to_owned();
        if !self.groups.contains_key(&name) {
            if let Request::Leave { members, .. } = request {
                // As in Kafka: nobody of an unknown group is a member of it.
                let unknown = members.into_iter().map(|member| (member, Err(GroupError::UnknownMemberId)));
                return self.core.reply(token, Answer::Left(Ok(unknown.collect())));
            }
            if !creates(&request) {
                let error = match &request {
                    Request::Commit(_) | Request::DeleteOffsets { .. } | Request::DeleteGroup { .. } => GroupError::GroupIdNotFound,
                    _ => GroupError::UnknownMemberId,
                };
                return self.core.reply(token, refusal(request, error));
            }
            if self.groups.len() >= GROUPS_MAX {
                return self.core.reply(token, refusal(request, GroupError::TooManyGroups));
            }
        }
        if let Err(error) = self.check_room(&name, &request) {
            return self.core.reply(token, refusal(request, error));
        }
        self.groups.entry(name.clone()).or_insert_with(|| Group::new(&name));
        let group = self.groups.get_mut(&name).expect("it was there or was just inserted");
        if group.state == GroupState::Dead {
            return self.core.reply(token, refusal(request, GroupError::CoordinatorNotAvailable));
        }
        let core = &mut self.core;
        match request {
            Request::Join(join) => membership::join(core, &name, group, token, join, fresh),
            Request::Sync(sync) => membership::sync(core, &name, group, token, sync),
            Request::Heartbeat { member_id, instance_id, generation, .. } => {
                let result = membership::heartbeat(core, &name, group, &member_id, instance_id.as_deref(), generation);
                core.reply(token, Answer::Heartbeat(result));
            }
            Request::Leave { members, .. } => membership::leave(core, &name, group, token, members),
            Request::Commit(commit) => offsets::commit(core, &name, group, token, commit),
            Request::DeleteOffsets { partitions, .. } => offsets::delete(core, &name, group, token, partitions),
            Request::DeleteGroup { .. } => offsets::delete_group(core, &name, group, token),
            Request::FetchOffsets { .. } | Request::Describe { .. } | Request::List => unreachable!("handle answers these itself"),
        }
        self.drop_if_vacant(&name);
    }

    /// Whether there is memory for what the request adds. Who asks for no more than it holds already is never refused for memory, so that
    /// groups that there are live on, and members that leave and offsets that expire make room.
    fn check_room(&self, name: &str, request: &Request) -> Result<(), GroupError> {
        let group = self.groups.get(name);
        match request {
            Request::Join(join) => {
                let bytes: usize = join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum();
                let held = group.and_then(|group| group.members.get(&join.member_id));
                let held: Option<usize> =
                    held.map(|member| member.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum());
                let names = name.len() + join.client_id.len() + join.instance_id.as_ref().map_or(0, String::len);
                let fits = held.is_some_and(|held| bytes <= held) || self.core.has_room(bytes + 4 * names + JOIN_BYTES);
                // Not GroupMaxSizeReached, which ends a consumer: there may be room later.
                if fits { Ok(()) } else { Err(GroupError::CoordinatorNotAvailable) }
            }
            Request::Commit(commit) => {
                let is_held = |offset: &super::CommitOffset| {
                    let partitions = group.and_then(|group| group.offsets().get(&offset.topic));
                    partitions.and_then(|held| held.get(&offset.partition)).is_some_and(|held| offset.metadata.len() <= held.metadata.len())
                };
                let each = |offset: &super::CommitOffset| name.len() + offset.topic.len() + offset.metadata.len() + WRITE_BYTES;
                let bytes: usize = commit.offsets.iter().map(each).sum();
                let is_first = self.core.writes.is_empty();
                let fits = self.core.has_room(4 * bytes) || (is_first && commit.offsets.iter().all(is_held));
                if fits { Ok(()) } else { Err(GroupError::CoordinatorNotAvailable) }
            }
            Request::Sync(sync) => {
                let bytes: usize = sync.assignments.iter().map(|(_, assignment)| assignment.len()).sum();
                let held =
                    || group.into_iter().flat_map(|group| group.members.values()).map(|member| member.assignment.len()).sum::<usize>();
                let fits = self.core.has_room(4 * bytes) || bytes <= held();
                if fits { Ok(()) } else { Err(GroupError::CoordinatorNotAvailable) }
            }
            _ => Ok(()),
        }
    }

    /// Memory that it takes, roughly, writes in flight included.
    pub fn bytes(&self) -> usize {
        self.core.groups_bytes + self.core.writes_bytes
    }

    /// Memory that it may take from now on.
    pub fn set_bytes_max(&mut self, bytes: usize) {
        self.core.settings.state_bytes_max = bytes;
    }

    /// The write is committed, or never will be. In the order of the `Write` effects.
    pub fn written(&mut self, token: WriteToken, result: Result<(), WriteError>, now: Now) -> Vec<Effect> {
        self.core.now = now;
        let Some(InFlight { group: name, changes, then, bytes }) = self.core.writes.remove(&token) else { return Vec::new() };
        self.core.writes_bytes -= bytes;
        let group = self.groups.get_mut(&name).expect("a group with a write in flight is kept");
        group.writes_in_flight -= 1;
        if group.assigning == Some(token) {
            group.assigning = None;
        }
        if result.is_ok() {
            changes.iter().cloned().for_each(|change| group.commit(change));
        }
        let core = &mut self.core;
        match then {
            Then::Nothing => {}
            Then::Commit { request, answers } => core.reply(request, Answer::Committed(with_result(answers, result))),
            Then::OffsetsDeleted { request, answers } => {
                core.reply(request, Answer::OffsetsDeleted(Ok(with_result(answers, result))));
            }
            Then::Left { request, answers } => {
                core.reply(request, Answer::Left(result.map(|()| answers).map_err(GroupError::from)));
            }
            Then::Assign { generation } => membership::assigned(core, &name, group, generation, &changes, result),
            Then::StaticMember(rejoin) => membership::static_rejoined(core, &name, group, *rejoin, result),
            Then::GroupDeleted { request } => {
                if result.is_err() {
                    let since = group.state_timestamp;
                    group.transition(GroupState::Empty, now.wall_ms);
                    group.state_timestamp = since;
                }
                if let Some(request) = request {
                    core.reply(request, Answer::GroupDeleted(result.map_err(GroupError::from)));
                }
            }
        }
        self.drop_if_vacant(&name);
        self.take_effects()
    }

    /// The time has come for something.
    pub fn tick(&mut self, now: Now) -> Vec<Effect> {
        self.core.now = now;
        // Whoever calls has no timer any more, also when it called early.
        self.core.announced = None;
        while let Some((at, name)) = self.core.deadlines.first().cloned() {
            if at > now.steady_ms {
                break;
            }
            let group = self.groups.get_mut(&name).expect("a dropped group is disarmed");
            self.core.disarm(&name, group);
            membership::expire(&mut self.core, &name, group);
            if let Some(at) = group.next_deadline() {
                self.core.arm(&name, group, at.max(now.steady_ms.saturating_add(1)));
            }
            self.drop_if_vacant(&name);
        }
        if self.core.expire_at <= now.steady_ms {
            self.expire_offsets();
        }
        self.take_effects()
    }

    /// A step over the groups, for offsets and groups past retention.
    fn expire_offsets(&mut self) {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.core.expire_after.take();
        let range = (after.as_ref().map_or(Unbounded, Excluded), Unbounded);
        let mut last = None;
        let mut seen = 0;
        for (name, group) in self.groups.range_mut::<String, _>(range).take(EXPIRE_STEP) {
            offsets::expire(&mut self.core, name, group);
            last = Some(name.clone());
            seen += 1;
        }
        let more = seen == EXPIRE_STEP;
        self.core.expire_after = if more { last } else { None };
        let wait = if more { 1 } else { self.core.settings.offsets_retention_check_interval_ms.max(1) };
        self.core.expire_at = self.core.after(wait);
    }

    /// Topics are gone, which are named in order: so are their offsets.
    pub fn topics_deleted(&mut self, topics: &[String], now: Now) -> Vec<Effect> {
        self.core.now = now;
        for (name, group) in &mut self.groups {
            offsets::delete_topics(&mut self.core, name, group, topics);
        }
        self.take_effects()
    }

    /// Topics for which there are committed offsets.
    pub fn topics(&self) -> BTreeSet<&str> {
        self.groups.values().flat_map(|group| group.offsets().keys().map(String::as_str)).collect()
    }

    /// Every record that must be in the log for the present state, in order of keys, writes in flight included: appended after them it
    /// changes nothing.
    pub fn live_records(&self) -> impl Iterator<Item = Record> {
        let mut live: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        let mut put = |change: Change| {
            let record = change.encode();
            live.insert(record.key, record.value);
        };
        for (name, group) in &self.groups {
            if let Some(record) = group.durable() {
                put(Change::Group { group: name.clone(), value: Some(record.clone()) });
            }
            for (topic, partitions) in group.offsets() {
                for (partition, offset) in partitions {
                    let value = Some(offset.clone());
                    put(Change::Offset { group: name.clone(), topic: topic.clone(), partition: *partition, value });
                }
            }
        }
        for write in self.core.writes.values() {
            write.changes.iter().cloned().for_each(&mut put);
        }
        live.into_iter().filter_map(|(key, value)| value.map(|value| Record { key, value: Some(value) }))
    }

    /// How many records `live_records` gives, writes in flight left out: what the log's length is to be compared with.
    pub fn live_count(&self) -> usize {
        let of = |group: &Group| usize::from(group.durable().is_some()) + group.offsets().values().map(BTreeMap::len).sum::<usize>();
        self.groups.values().map(of).sum()
    }

    pub fn writes_in_flight(&self) -> usize {
        self.core.writes.len()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &BTreeMap<String, Group> {
        &self.groups
    }

    fn list(&self) -> Vec<Listed> {
        let listed = |(name, group): (&String, &Group)| Listed {
            group: name.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
        };
        self.groups.iter().map(listed).collect()
    }

    fn describe(&self, name: &str) -> Result<Description, GroupError> {
        let group = self.groups.get(name).filter(|group| group.state != GroupState::Dead).ok_or(GroupError::GroupIdNotFound)?;
        let stable = group.state == GroupState::Stable;
        let protocol = group.protocol.clone().filter(|_| stable).unwrap_or_default();
        let members = group.members.iter().map(|(id, member)| DescribedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(&protocol).to_vec() } else { Vec::new() },
            assignment: if stable { member.assignment.clone() } else { Vec::new() },
        });
        Ok(Description {
            group: name.to_owned(),
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        })
    }

    fn drop_if_vacant(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        self.core.count(group);
        if group.is_vacant() {
            self.core.groups_bytes -= group.counted;
            self.core.disarm(name, group);
            self.groups.remove(name);
        }
    }

    fn take_effects(&mut self) -> Vec<Effect> {
        let group = self.core.deadlines.first().map_or(u64::MAX, |(at, _)| *at);
        let next = group.min(self.core.expire_at);
        if next != u64::MAX && self.core.announced != Some(next) {
            self.core.announced = Some(next);
            self.core.effects.push(Effect::Timer { at_ms: next });
        }
        std::mem::take(&mut self.core.effects)
    }
}

fn with_result(mut answers: Vec<PartitionAnswer>, result: Result<(), WriteError>) -> Vec<PartitionAnswer> {
    if let Err(error) = result {
        for answer in answers.iter_mut().filter(|answer| answer.result.is_ok()) {
            answer.result = Err(GroupError::from(error));
        }
    }
    answers
}

fn group_of(request: &Request) -> &str {
    match request {
        Request::Join(join) => &join.group,
        Request::Sync(sync) => &sync.group,
        Request::Commit(commit) => &commit.group,
        Request::Heartbeat { group, .. }
        | Request::Leave { group, .. }
        | Request::FetchOffsets { group, .. }
        | Request::DeleteOffsets { group, .. }
        | Request::DeleteGroup { group }
        | Request::Describe { group } => group,
        Request::List => "",
    }
}

/// May this request bring a group into being?
fn creates(request: &Request) -> bool {
    match request {
        Request::Join(join) => join.member_id.is_empty(),
        Request::Commit(commit) => commit.generation < 0,
        _ => false,
    }
}

/// Lengths of texts, and the group ids that Kafka refuses: offsets may be kept under an empty id, members may not.
fn check_bounds(request: &Request) -> Result<(), GroupError> {
    let fits = |text: &str| text.len() <= TEXT_BYTES_MAX;
    let optional = |text: &Option<String>| text.as_deref().is_none_or(fits);
    let membership = matches!(request, Request::Join(_) | Request::Sync(_) | Request::Heartbeat { .. } | Request::Leave { .. });
    if group_of(request).is_empty() && (membership || matches!(request, Request::DeleteOffsets { .. })) {
        return Err(GroupError::InvalidGroupId);
    }
    let good = fits(group_of(request))
        && match request {
            Request::Join(join) => {
                join.member_id.len() <= TEXT_BYTES_MAX + ID_BYTES
                    && [&join.client_id, &join.client_host, &join.protocol_type].into_iter().all(|text| fits(text))
                    && optional(&join.instance_id)
                    && membership::protocols_fit(&join.protocols)
            }
            Request::Commit(commit) => commit.offsets.iter().all(|offset| fits(&offset.topic)),
            _ => true,
        };
    if good { Ok(()) } else { Err(GroupError::InvalidRequest) }
}

/// The answer that refuses a request as a whole.
fn refusal(request: Request, error: GroupError) -> Answer {
    match request {
        Request::Join(join) => Answer::Joined(Err(JoinRefused { error, member_id: join.member_id })),
        Request::Sync(_) => Answer::Synced(Err(error)),
        Request::Heartbeat { .. } => Answer::Heartbeat(Err(error)),
        Request::Leave { .. } => Answer::Left(Err(error)),
        Request::Commit(commit) => Answer::Committed(offsets::refused(&commit, error)),
        Request::FetchOffsets { .. } => Answer::Offsets(Err(error)),
        Request::DeleteOffsets { .. } => Answer::OffsetsDeleted(Err(error)),
        Request::DeleteGroup { .. } => Answer::GroupDeleted(Err(error)),
        Request::Describe { .. } => Answer::Described(Err(error)),
        Request::List => Answer::Listed(Vec::new()),
    }
}
