//! One consumer group: its members and generation (volatile), and its offsets and last record (durable).
//!
//! The durable half changes only by records that were committed or replayed. The volatile half runs ahead of it: members join and leave
//! without a record, and a generation becomes durable when its assignment is.
//!
//! Invariants: `awaiting` counts the members with a join to answer; `supported` counts each protocol's members; the leader, if any, is a
//! member; static members map to members; members exist only outside Empty and Dead.
//! Knows nothing of effects, timers' wheels or other groups.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::records::{Change, CommittedOffset, GroupRecord, MemberRecord, Reader};
use super::request::{GroupError, GroupState, JoinedMember, RequestToken, WriteToken};

/// The protocol type whose metadata is a consumer's subscription.
const CONSUMER: &str = "consumer";

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<(String, Vec<u8>)>,
    pub(super) assignment: Vec<u8>,
    /// Its first join is not answered yet, so it cannot send heartbeats.
    pub(super) is_new: bool,
    pub(super) awaiting_join: Option<RequestToken>,
    pub(super) awaiting_sync: Option<RequestToken>,
    /// Steady clock. None: nothing is expected of it until it is answered.
    pub(super) deadline: Option<u64>,
}

/// What a group, a member, an offset take besides their texts and bytes, roughly: keys, nodes of maps, lists.
const GROUP_BYTES: usize = 768;
const MEMBER_BYTES: usize = 640;
const OFFSET_BYTES: usize = 160;
const PENDING_BYTES: usize = 160;

impl Member {
    fn bytes(&self) -> usize {
        let protocols: usize = self.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum();
        // Its id begins with the client's or the instance's, and stands in several places.
        let names = 3 * (self.client_id.len() + self.instance_id.as_ref().map_or(0, String::len)) + self.client_host.len();
        MEMBER_BYTES + names + protocols + self.assignment.len()
    }

    pub(super) fn metadata(&self, protocol: &str) -> &[u8] {
        self.protocols.iter().find(|(name, _)| name == protocol).map_or(&[], |(_, metadata)| metadata)
    }
}

/// What ends a phase of joining.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JoinTimer {
    /// A new group waits for more members; `remaining_ms` may be added while they come.
    Initial {
        at: u64,
        delay_ms: u64,
        remaining_ms: u64,
    },
    Rebalance {
        at: u64,
    },
}

impl JoinTimer {
    pub(super) fn at(self) -> u64 {
        match self {
            JoinTimer::Initial { at, .. } | JoinTimer::Rebalance { at } => at,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Group {
    pub(super) state: GroupState,
    pub(super) previous_state: GroupState,
    /// Wall clock.
    pub(super) state_timestamp: Option<i64>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Member id by instance id.
    pub(super) static_members: BTreeMap<String, String>,
    /// Ids given out that have not joined yet, and until when.
    pub(super) pending: BTreeMap<String, u64>,
    /// Members of this generation that have not sent SyncGroup.
    pub(super) pending_sync: BTreeSet<String>,
    pub(super) supported: BTreeMap<String, usize>,
    pub(super) awaiting: usize,
    /// Of a consumer group whose members' subscriptions could be read.
    pub(super) subscribed: Option<BTreeSet<String>>,
    pub(super) new_member_added: bool,
    pub(super) join_timer: Option<JoinTimer>,
    pub(super) sync_deadline: Option<u64>,
    /// The write of this generation's assignment.
    pub(super) assigning: Option<WriteToken>,
    /// When the machine looks at this group's deadlines again.
    pub(super) wake: Option<u64>,
    pub(super) writes_in_flight: usize,
    offsets: BTreeMap<String, BTreeMap<i32, CommittedOffset>>,
    durable: Option<GroupRecord>,
    /// Of members, offsets and the last record.
    held: usize,
    /// What the machine counts for this group.
    pub(super) counted: usize,
    /// Of the group's name.
    name_bytes: usize,
}

/// `names`: the topic's and the group's, which stands in each record: all of them are gathered when the log is written anew.
fn offset_bytes(names: usize, offset: &CommittedOffset) -> usize {
    OFFSET_BYTES + names + offset.metadata.len()
}

fn record_bytes(record: &GroupRecord) -> usize {
    let member = |member: &MemberRecord| {
        let names = member.member_id.len() + member.client_id.len() + member.client_host.len();
        MEMBER_BYTES / 2 + names + member.subscription.len() + member.assignment.len()
    };
    GROUP_BYTES / 2 + record.members.iter().map(member).sum::<usize>()
}

impl Group {
    pub(super) fn new(name: &str) -> Group {
        Group {
            name_bytes: name.len(),
            state: GroupState::Empty,
            previous_state: GroupState::Empty,
            state_timestamp: None,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            supported: BTreeMap::new(),
            awaiting: 0,
            subscribed: None,
            new_member_added: false,
            join_timer: None,
            sync_deadline: None,
            assigning: None,
            wake: None,
            writes_in_flight: 0,
            offsets: BTreeMap::new(),
            durable: None,
            held: 0,
            counted: 0,
        }
    }

    /// Memory that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        GROUP_BYTES + 2 * self.name_bytes + self.held + self.pending_bytes()
    }

    fn pending_bytes(&self) -> usize {
        self.pending.keys().map(|id| PENDING_BYTES + id.len()).sum()
    }

    /// What is held, counted anew.
    #[cfg(test)]
    pub(super) fn bytes_anew(&self) -> usize {
        let members: usize = self.members.values().map(Member::bytes).sum();
        let of_topic = |(topic, held): (&String, &BTreeMap<i32, CommittedOffset>)| {
            held.values().map(|offset| offset_bytes(self.name_bytes + topic.len(), offset)).sum::<usize>()
        };
        let held = members + self.offsets.iter().map(of_topic).sum::<usize>() + self.durable.as_ref().map_or(0, record_bytes);
        GROUP_BYTES + 2 * self.name_bytes + held + self.pending_bytes()
    }

    /// Committed offsets: topic, partition, offset.
    pub(super) fn committed(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.offsets
            .iter()
            .flat_map(|(topic, held)| held.iter().map(|(partition, committed)| (topic.as_str(), *partition, committed.offset)))
    }

    pub(super) fn offsets(&self) -> &BTreeMap<String, BTreeMap<i32, CommittedOffset>> {
        &self.offsets
    }

    pub(super) fn durable(&self) -> Option<&GroupRecord> {
        self.durable.as_ref()
    }

    /// A committed record's effect on the durable half.
    pub(super) fn commit(&mut self, change: Change) {
        match change {
            Change::Offset { topic, partition, value: Some(offset), .. } => {
                let names = self.name_bytes + topic.len();
                self.held += offset_bytes(names, &offset);
                if let Some(before) = self.offsets.entry(topic).or_default().insert(partition, offset) {
                    self.held -= offset_bytes(names, &before);
                }
            }
            Change::Offset { topic, partition, value: None, .. } => {
                if let Some(partitions) = self.offsets.get_mut(&topic) {
                    if let Some(before) = partitions.remove(&partition) {
                        self.held -= offset_bytes(self.name_bytes + topic.len(), &before);
                    }
                    if partitions.is_empty() {
                        self.offsets.remove(&topic);
                    }
                }
            }
            Change::Group { value, .. } => {
                self.held += value.as_ref().map_or(0, record_bytes);
                self.held -= self.durable.as_ref().map_or(0, record_bytes);
                self.durable = value;
            }
        }
    }

    /// What the leader assigned to a member.
    pub(super) fn assign(&mut self, member_id: &str, assignment: &[u8]) {
        if let Some(member) = self.members.get_mut(member_id) {
            self.held = self.held + assignment.len() - member.assignment.len();
            member.assignment = assignment.to_vec();
        }
    }

    /// The volatile half as of the last record: members resume with their ids and generation, and new sessions.
    pub(super) fn resume(&mut self, steady_ms: u64) {
        let Some(record) = self.durable.clone() else { return };
        self.state_timestamp = record.state_timestamp;
        self.generation = record.generation;
        self.protocol_type = Some(record.protocol_type).filter(|kind| !kind.is_empty());
        self.protocol = record.protocol;
        for member in record.members {
            let protocol = self.protocol.clone().unwrap_or_default();
            let session = u64::try_from(member.session_timeout_ms).unwrap_or(0);
            self.add(
                member.member_id,
                Member {
                    instance_id: member.instance_id,
                    client_id: member.client_id,
                    client_host: member.client_host,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: vec![(protocol, member.subscription)],
                    assignment: member.assignment,
                    deadline: Some(steady_ms.saturating_add(session)),
                    ..Member::default()
                },
            );
        }
        if let Some(leader) = record.leader.filter(|leader| self.members.contains_key(leader)) {
            self.leader = Some(leader);
        }
        self.state = if self.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        self.previous_state = self.state;
        self.subscribed = self.subscriptions();
    }

    /// Nothing of it is worth keeping.
    pub(super) fn is_vacant(&self) -> bool {
        self.members.is_empty()
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.durable.is_none()
            && self.writes_in_flight == 0
            && matches!(self.state, GroupState::Empty | GroupState::Dead)
    }

    pub(super) fn transition(&mut self, state: GroupState, wall_ms: i64) {
        let legal = match state {
            GroupState::PreparingRebalance => {
                matches!(self.state, GroupState::Stable | GroupState::CompletingRebalance | GroupState::Empty)
            }
            GroupState::CompletingRebalance => self.state == GroupState::PreparingRebalance,
            GroupState::Stable => self.state == GroupState::CompletingRebalance,
            GroupState::Empty => matches!(self.state, GroupState::PreparingRebalance | GroupState::Dead),
            GroupState::Dead => self.state == GroupState::Empty,
        };
        assert!(legal, "a group never goes from {:?} to {state:?}", self.state);
        self.previous_state = self.state;
        self.state = state;
        self.state_timestamp = Some(wall_ms);
    }

    pub(super) fn add(&mut self, member_id: String, member: Member) {
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member_id.clone());
        }
        self.held += member.bytes();
        self.count_protocols(&member, true);
        self.awaiting += usize::from(member.awaiting_join.is_some());
        self.pending.remove(&member_id);
        let replaced = self.members.insert(member_id, member);
        assert!(replaced.is_none(), "a member is added once");
    }

    /// Takes the member out; the next one by id leads if it led.
    pub(super) fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.pending.remove(member_id);
        self.pending_sync.remove(member_id);
        let member = self.members.remove(member_id)?;
        self.held -= member.bytes();
        self.count_protocols(&member, false);
        self.awaiting -= usize::from(member.awaiting_join.is_some());
        if let Some(instance) = &member.instance_id {
            self.static_members.remove(instance);
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    fn count_protocols(&mut self, member: &Member, plus: bool) {
        for (name, _) in &member.protocols {
            let count = self.supported.entry(name.clone()).or_default();
            *count = if plus { *count + 1 } else { *count - 1 };
            if *count == 0 {
                self.supported.remove(name);
            }
        }
    }

    /// New metadata and timeouts; returns the protocols before.
    pub(super) fn update(
        &mut self,
        member_id: &str,
        protocols: Vec<(String, Vec<u8>)>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) -> Vec<(String, Vec<u8>)> {
        let Some(mut member) = self.members.remove(member_id) else { return Vec::new() };
        self.count_protocols(&member, false);
        self.held -= member.bytes();
        let before = std::mem::replace(&mut member.protocols, protocols);
        self.held += member.bytes();
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        self.count_protocols(&member, true);
        self.members.insert(member_id.to_owned(), member);
        before
    }

    /// The same static member under a new id. The waiting requests of the old id, for the caller to refuse.
    pub(super) fn replace_static(&mut self, old: &str, new: &str) -> (Option<RequestToken>, Option<RequestToken>) {
        let Some(mut member) = self.members.remove(old) else { return (None, None) };
        let waiting = (member.awaiting_join.take(), member.awaiting_sync.take());
        self.awaiting -= usize::from(waiting.0.is_some());
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), new.to_owned());
        }
        if self.leader.as_deref() == Some(old) {
            self.leader = Some(new.to_owned());
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.to_owned());
        }
        self.members.insert(new.to_owned(), member);
        waiting
    }

    /// Makes the member wait; the request that it waited with before, if any, is the caller's to refuse.
    pub(super) fn await_join(&mut self, member_id: &str, request: RequestToken) -> Option<RequestToken> {
        let member = self.members.get_mut(member_id)?;
        let before = member.awaiting_join.replace(request);
        self.awaiting += usize::from(before.is_none());
        before
    }

    pub(super) fn take_join(&mut self, member_id: &str) -> Option<RequestToken> {
        let request = self.members.get_mut(member_id)?.awaiting_join.take();
        self.awaiting -= usize::from(request.is_some());
        request
    }

    pub(super) fn all_joined(&self) -> bool {
        self.awaiting == self.members.len() && self.pending.is_empty()
    }

    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
        u64::try_from(longest).unwrap_or(0)
    }

    /// Is there a protocol that a member with these would share with everyone?
    pub(super) fn accepts_protocols(&self, protocol_type: &str, protocols: &[(String, Vec<u8>)]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(|(name, _)| self.shared_by_all(name))
    }

    fn shared_by_all(&self, protocol: &str) -> bool {
        self.supported.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// Each member votes for its first protocol among those all share; the most votes win, the first by name among equals.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| self.shared_by_all(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(name, count)| (*count, Reverse(*name))).map(|(name, _)| name.to_owned())
    }

    /// The leader if it has rejoined, else another that has. False: nobody has.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let Some(leader) = &self.leader else { return false };
        if self.members.get(leader).is_some_and(|member| member.awaiting_join.is_some()) {
            return true;
        }
        let joined = self.members.iter().find(|(_, member)| member.awaiting_join.is_some()).map(|(id, _)| id.clone());
        let found = joined.is_some();
        if found {
            self.leader = joined;
        }
        found
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Everyone with their metadata, for the leader.
    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let joined = |(id, member): (&String, &Member)| JoinedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol).to_vec(),
        };
        self.members.iter().map(joined).collect()
    }

    /// The record of this generation; `assignment` gives each member's.
    pub(super) fn record(&self, assignment: impl Fn(&str, &Member) -> Vec<u8>) -> GroupRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |(id, member): (&String, &Member)| MemberRecord {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol).to_vec(),
            assignment: assignment(id, member),
        };
        GroupRecord {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp: self.state_timestamp,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Is this who it says it is? An instance id that another member id holds is fenced.
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(holder) if holder != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    pub(super) fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// A consumer group whose subscriptions cannot be read is taken to subscribe to everything.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer_group(),
        }
    }

    pub(super) fn subscriptions(&self) -> Option<BTreeSet<String>> {
        if !self.is_consumer_group() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription(member.metadata(self.protocol.as_deref()?)).ok()?);
        }
        Some(topics)
    }

    /// The earliest deadline of all.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let members = self.members.values().filter_map(|member| member.deadline);
        let own = [self.join_timer.map(JoinTimer::at), self.sync_deadline];
        members.chain(self.pending.values().copied()).chain(own.into_iter().flatten()).min()
    }
}

/// The topics of a ConsumerProtocolSubscription: every version begins with version (int16) and an array of names.
fn subscription(metadata: &[u8]) -> Result<Vec<String>, super::records::RecordError> {
    let mut reader = Reader { rest: metadata, flexible: false };
    reader.i16()?;
    let count = reader.count()?;
    (0..count).map(|_| reader.string()).collect()
}
