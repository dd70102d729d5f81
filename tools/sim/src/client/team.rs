//! A consumer group: members that join, are given partitions, read them, commit, leave, fall silent, and come back.
//!
//! 1. A member joins (the classic protocol: the coordinator gives it an id first), and synchronizes; the leader brings the plan.
//! 2. It asks for the committed offsets of its partitions, reads on from there, and commits what it has read, with its generation.
//! 3. A heartbeat or a commit tells that the group is rebalancing, or that it is a member no more: it joins again.
//! 4. Now and then it leaves, or says nothing for longer than its session lasts.
//! 5. In the end all stay, until every partition is read to its end and that is committed.
//!
//! Invariants: one request at a time; a member commits only what it has read.

use super::fetcher::{FetchStyle, Fetched, Fetcher};
use super::link::{Came, Link, decode};
use super::{Client, MS, Shared, is_retriable, take, text, topic_name};
use crate::history::{Bound, Event, Partition, Span};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use kafka_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, GroupId, HeartbeatRequest};
use millrace_base::prng::Prng;
use std::collections::BTreeMap;

const FIND: i16 = 3;
const JOIN: i16 = 7;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
const LIST: i16 = 7;
const COMMITTED: i16 = 7;
const COMMIT: i16 = 8;

const OUT_OF_RANGE: i16 = 1;
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

const EARLIEST: i64 = -2;
/// Below what the broker allows.
const METADATA_BYTES_MAX: usize = 30_000;
const PROTOCOL: &str = "range";

/// What all members share.
struct Terms {
    group: String,
    /// Topics subscribed to.
    topics: Vec<String>,
    session_ms: u64,
    /// Of a commit, over all partitions: enough of it makes a coordinator write its log anew.
    metadata_bytes: usize,
}

impl Terms {
    /// All partitions that there are.
    fn all(&self, shared: &Shared) -> Vec<Partition> {
        let mut all = Vec::new();
        for name in &self.topics {
            let count = shared.partitions.get(name).copied().unwrap_or(0);
            all.extend((0..count).map(|index| (name.clone(), index)));
        }
        all
    }

    /// A consumer's subscription, version 0.
    fn subscription(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_i16(0);
        put_names(&mut bytes, &self.topics);
        bytes.put_i32(-1);
        bytes.freeze()
    }
}

/// What goes with the commit of an offset.
fn metadata(offset: i64, len: usize) -> String {
    let mut text = format!("{offset} ");
    text.extend(std::iter::repeat_n('m', len.min(METADATA_BYTES_MAX)));
    text
}

fn put_names(bytes: &mut BytesMut, names: &[String]) {
    bytes.put_i32(names.len() as i32);
    for name in names {
        bytes.put_i16(name.len() as i16);
        bytes.put_slice(name.as_bytes());
    }
}

/// An assignment: to the coordinator bytes like any others.
fn assignment(partitions: &[Partition]) -> Bytes {
    let list: Vec<String> = partitions.iter().map(|(name, index)| format!("{name} {index}")).collect();
    list.join(",").into_bytes().into()
}

/// None: not an assignment of ours.
fn assigned(bytes: &[u8]) -> Option<Vec<Partition>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let one = |part: &str| Some(part.split_once(' ')?).and_then(|(name, index)| Some((name.to_owned(), index.parse().ok()?)));
    text.split(',').filter(|part| !part.is_empty()).map(one).collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// No member, until then.
    Out(u64),
    Joining,
    Syncing,
    Member,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    Coordinator,
    Join,
    Sync,
    Heartbeat,
    Leave,
    Committed,
    Starts,
    Commit(Vec<(Partition, i64)>),
    Fetch,
}

struct Place {
    partition: Partition,
    reader: u32,
    offset: i64,
    /// Acknowledged.
    committed: i64,
    /// The committed offset is wanted first.
    is_new: bool,
    /// The log start is wanted first.
    lost: bool,
    fetched_at: u64,
}

struct Plan {
    of: BTreeMap<String, Vec<Partition>>,
    /// All partitions that there were.
    all: Vec<Partition>,
}

struct Member {
    prng: Prng,
    link: Link,
    fetcher: Fetcher,
    standing: Standing,
    id: String,
    generation: i32,
    /// Of the present generation, brought by the leader.
    plan: Option<Plan>,
    places: Vec<Place>,
    asked: Option<(Asked, u64)>,
    knows_coordinator: bool,
    heartbeat_at: u64,
    next_at: u64,
    next_reader: u32,
    records: u64,
}

impl Member {
    fn new(number: u32, style: FetchStyle, prng: Prng) -> Member {
        Member {
            prng,
            link: Link::new(),
            fetcher: Fetcher::new(style),
            standing: Standing::Out(u64::from(number % 10) * 30 * MS),
            id: String::new(),
            generation: -1,
            plan: None,
            places: Vec::new(),
            asked: None,
            knows_coordinator: false,
            heartbeat_at: 0,
            next_at: 0,
            next_reader: number * 10_000,
            records: 0,
        }
    }

    fn ask(&mut self, terms: &Terms, shared: &mut Shared) {
        let now = shared.now();
        if let Standing::Out(until) = self.standing {
            if now < until && !shared.finishing {
                self.next_at = until;
                return;
            }
            self.standing = Standing::Joining;
        }
        if terms.all(shared).is_empty() {
            self.next_at = now + 50 * MS;
            return;
        }
        let what = if !self.knows_coordinator {
            let request = FindCoordinatorRequest::default().with_key(text(&terms.group)).with_key_type(0);
            self.link.ask(now, FIND, &request);
            Asked::Coordinator
        } else {
            match self.standing {
                Standing::Joining => self.ask_join(terms, now),
                Standing::Syncing => self.ask_sync(terms, shared),
                Standing::Member => match self.ask_as_member(terms, shared) {
                    Some(asked) => asked,
                    None => return,
                },
                Standing::Out(_) => return,
            }
        };
        self.asked = Some((what, now));
    }

    fn ask_join(&mut self, terms: &Terms, now: u64) -> Asked {
        let protocol = JoinGroupRequestProtocol::default().with_name(text(PROTOCOL)).with_metadata(terms.subscription());
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&terms.group)))
            .with_session_timeout_ms(terms.session_ms as i32)
            .with_rebalance_timeout_ms(terms.session_ms as i32)
            .with_member_id(text(&self.id))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        self.link.ask(now, JOIN, &request);
        Asked::Join
    }

    fn ask_sync(&mut self, terms: &Terms, shared: &mut Shared) -> Asked {
        let entry = |(member, partitions): (&String, &Vec<Partition>)| {
            SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(assignment(partitions))
        };
        let assignments = self.plan.iter().flat_map(|plan| &plan.of).map(entry).collect();
        if let Some(plan) = &self.plan {
            let (group, all, plan) = (terms.group.clone(), plan.all.clone(), plan.of.clone());
            shared.history.push(Event::Planned { group, generation: self.generation, plan, all });
        }
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&terms.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text(PROTOCOL)))
            .with_assignments(assignments);
        self.link.ask(shared.now(), SYNC, &request);
        Asked::Sync
    }

    fn ask_as_member(&mut self, terms: &Terms, shared: &mut Shared) -> Option<Asked> {
        let now = shared.now();
        if !shared.finishing && self.prng.one_in(250) {
            if self.prng.one_in(2) {
                shared.saw("member leaves");
                let member = MemberIdentity::default().with_member_id(text(&self.id)).with_reason(Some(text("enough")));
                let request = LeaveGroupRequest::default().with_group_id(GroupId(text(&terms.group))).with_members(vec![member]);
                self.link.ask(now, LEAVE, &request);
                return Some(Asked::Leave);
            }
            shared.saw("member is silent");
            self.next_at = now + self.prng.below(2 * terms.session_ms * MS);
            return None;
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + terms.session_ms * MS / 4;
            let request = HeartbeatRequest::default()
                .with_group_id(GroupId(text(&terms.group)))
                .with_generation_id(self.generation)
                .with_member_id(text(&self.id));
            self.link.ask(now, HEARTBEAT, &request);
            return Some(Asked::Heartbeat);
        }
        if self.plan.as_ref().is_some_and(|plan| plan.all.len() != terms.all(shared).len()) {
            self.standing = Standing::Joining; // a leader that joins again has the partitions shared out anew
            return Some(self.ask_join(terms, now));
        }
        if self.places.iter().any(|place| place.is_new) {
            return Some(self.ask_committed(terms, now));
        }
        if self.places.iter().any(|place| place.lost) {
            return Some(self.ask_starts(now));
        }
        let is_open = self.places.iter().any(|place| place.offset != place.committed);
        if is_open && self.prng.one_in(if shared.finishing { 2 } else { 6 }) {
            return Some(self.ask_commit(terms, shared));
        }
        let wanted: BTreeMap<Partition, i64> = self.places.iter().map(|place| (place.partition.clone(), place.offset)).collect();
        if wanted.is_empty() || !self.fetcher.can_name(shared, &wanted) {
            self.next_at = now + 40 * MS;
            return None;
        }
        self.fetcher.ask(shared, &mut self.link, &mut self.prng, &wanted, 30);
        Some(Asked::Fetch)
    }

    fn by_topic<T>(&self, take: impl Fn(&Place) -> Option<T>) -> BTreeMap<&String, Vec<T>> {
        let mut topics: BTreeMap<&String, Vec<T>> = BTreeMap::new();
        for place in &self.places {
            if let Some(part) = take(place) {
                topics.entry(&place.partition.0).or_default().push(part);
            }
        }
        topics
    }

    fn ask_committed(&mut self, terms: &Terms, now: u64) -> Asked {
        let topics = self.by_topic(|place| place.is_new.then_some(place.partition.1));
        let topic = |(name, indexes): (&String, Vec<i32>)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(name)).with_partition_indexes(indexes)
        };
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(&terms.group)))
            .with_topics(Some(topics.into_iter().map(topic).collect()));
        self.link.ask(now, COMMITTED, &request);
        Asked::Committed
    }

    fn ask_starts(&mut self, now: u64) -> Asked {
        let part = |place: &Place| {
            let part = ListOffsetsPartition::default().with_partition_index(place.partition.1).with_timestamp(EARLIEST);
            place.lost.then(|| part.with_current_leader_epoch(-1))
        };
        let topics = self.by_topic(part);
        let topic = |(name, parts): (&String, Vec<_>)| ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(parts);
        let topics = topics.into_iter().map(topic).collect();
        self.link.ask(now, LIST, &ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics));
        Asked::Starts
    }

    fn ask_commit(&mut self, terms: &Terms, shared: &mut Shared) -> Asked {
        let now = shared.now();
        let bytes_each = terms.metadata_bytes / self.places.len().max(1);
        let part = |place: &Place| {
            let part = OffsetCommitRequestPartition::default().with_partition_index(place.partition.1).with_committed_offset(place.offset);
            (place.offset != place.committed).then(|| {
                let metadata = metadata(place.offset, bytes_each);
                part.with_committed_leader_epoch(-1).with_committed_metadata(Some(text(&metadata)))
            })
        };
        let topics = self.by_topic(part);
        let topic =
            |(name, parts): (&String, Vec<_>)| OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(parts);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&terms.group)))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.id))
            .with_topics(topics.into_iter().map(topic).collect());
        self.link.ask(now, COMMIT, &request);
        let open = self.places.iter().filter(|place| place.offset != place.committed);
        let sent: Vec<(Partition, i64)> = open.map(|place| (place.partition.clone(), place.offset)).collect();
        for (partition, offset) in sent.iter().cloned() {
            shared.history.push(Event::CommitSent { at: now, group: terms.group.clone(), partition, offset });
        }
        Asked::Commit(sent)
    }

    fn answered(&mut self, terms: &Terms, shared: &mut Shared, frame: &Bytes) {
        let Some((what, invoked)) = self.asked.take() else { return };
        let span = Span { invoked, completed: shared.now() };
        match what {
            Asked::Coordinator => {
                let code = decode::<FindCoordinatorRequest>(frame, FIND).error_code;
                self.knows_coordinator = code == 0;
                self.failed(shared, "FindCoordinator", code);
            }
            Asked::Join => self.joined(terms, shared, frame, span),
            Asked::Sync => self.synced(terms, shared, frame, span),
            Asked::Heartbeat => {
                let code = decode::<HeartbeatRequest>(frame, HEARTBEAT).error_code;
                self.failed(shared, "Heartbeat", code);
            }
            Asked::Leave => {
                let answer = decode::<LeaveGroupRequest>(frame, LEAVE);
                let code = answer.members.iter().map(|member| member.error_code).chain([answer.error_code]).find(|code| *code != 0);
                match code {
                    None | Some(UNKNOWN_MEMBER) => {
                        self.forget_membership();
                        self.standing = Standing::Out(shared.now() + self.prng.below(600) * MS);
                    }
                    Some(code) => self.failed(shared, "LeaveGroup", code),
                }
            }
            Asked::Committed => self.committed(terms, shared, frame, span),
            Asked::Starts => self.started(shared, frame, span),
            Asked::Commit(sent) => self.commit_answered(terms, shared, frame, sent, span),
            Asked::Fetch => match self.fetcher.answered(shared, frame) {
                Fetched::Again => {}
                Fetched::Refused(code) => self.failed(shared, "Fetch", code),
                Fetched::Parts(parts) => self.fetched(shared, parts, span),
            },
        }
    }

    /// What an error makes a member do.
    fn failed(&mut self, shared: &mut Shared, what: &str, code: i16) {
        match code {
            0 => {}
            UNKNOWN_MEMBER => {
                shared.saw("member is unknown");
                self.forget_membership();
            }
            ILLEGAL_GENERATION | REBALANCE => self.standing = Standing::Joining,
            code => {
                self.next_at = shared.now() + 20 * MS;
                if !is_retriable(code) {
                    shared.wrong(format!("{what} of a member was answered {code}"));
                }
            }
        }
    }

    fn forget_membership(&mut self) {
        (self.id, self.generation, self.plan) = (String::new(), -1, None);
        self.standing = Standing::Joining;
        self.places.clear();
        self.fetcher.forget();
    }

    fn joined(&mut self, terms: &Terms, shared: &mut Shared, frame: &Bytes, span: Span) {
        let answer = decode::<JoinGroupRequest>(frame, JOIN);
        match answer.error_code {
            0 => {}
            MEMBER_ID_REQUIRED => {
                self.id = answer.member_id.to_string();
                return;
            }
            code => return self.failed(shared, "JoinGroup", code),
        }
        (self.id, self.generation) = (answer.member_id.to_string(), answer.generation_id);
        shared.history.push(Event::Joined { span, group: terms.group.clone(), generation: self.generation });
        self.plan = (answer.leader == answer.member_id).then(|| {
            let members: Vec<String> = answer.members.iter().map(|member| member.member_id.to_string()).collect();
            let mut of: BTreeMap<String, Vec<Partition>> = members.iter().map(|member| (member.clone(), Vec::new())).collect();
            let all = terms.all(shared);
            for (at, partition) in all.iter().cloned().enumerate() {
                of.entry(members[at % members.len().max(1)].clone()).or_default().push(partition);
            }
            Plan { of, all }
        });
        self.standing = Standing::Syncing;
        self.heartbeat_at = shared.now() + terms.session_ms * MS / 4;
    }

    fn synced(&mut self, terms: &Terms, shared: &mut Shared, frame: &Bytes, span: Span) {
        let answer = decode::<SyncGroupRequest>(frame, SYNC);
        if answer.error_code != 0 {
            return self.failed(shared, "SyncGroup", answer.error_code);
        }
        let Some(partitions) = assigned(&answer.assignment) else {
            return shared.wrong(format!("{}: {:?} is no assignment", terms.group, answer.assignment));
        };
        shared.saw("member has an assignment");
        let (group, generation, member) = (terms.group.clone(), self.generation, self.id.clone());
        shared.history.push(Event::Assigned { span, group, generation, member, partitions: partitions.clone() });
        self.standing = Standing::Member;
        self.places.clear();
        for partition in partitions {
            let reader = self.next_reader;
            self.next_reader += 1;
            shared.history.push(Event::ReadsFor { reader, group: terms.group.clone() });
            self.places.push(Place { partition, reader, offset: 0, committed: -1, is_new: true, lost: false, fetched_at: 0 });
        }
    }

    fn committed(&mut self, terms: &Terms, shared: &mut Shared, frame: &Bytes, span: Span) {
        let answer = decode::<OffsetFetchRequest>(frame, COMMITTED);
        let parts = || answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (topic, part)));
        let code = parts().map(|(_, part)| part.error_code).chain([answer.error_code]).find(|code| *code != 0).unwrap_or(0);
        if code != 0 {
            return self.failed(shared, "OffsetFetch", code);
        }
        for (topic, part) in parts() {
            let (partition, offset) = ((*topic.name.0).to_owned(), part.partition_index);
            let (partition, offset) = ((partition, offset), part.committed_offset);
            let metadata = part.metadata.as_ref().map_or("", |metadata| metadata);
            if offset >= 0 && !metadata.starts_with(&format!("{offset} ")) {
                shared.wrong(format!("{} {partition:?}: offset {offset} came with the metadata {:.20}", terms.group, metadata));
            }
            if let Some(place) = self.places.iter_mut().find(|place| place.partition == partition) {
                (place.is_new, place.lost, place.committed) = (false, offset < 0, offset);
                place.offset = offset.max(0);
                shared.history.push(Event::Sought { reader: place.reader, offset: place.offset });
            }
            shared.history.push(Event::CommittedFetched { span, group: terms.group.clone(), partition, offset });
        }
    }

    fn started(&mut self, shared: &mut Shared, frame: &Bytes, span: Span) {
        let answer = decode::<ListOffsetsRequest>(frame, LIST);
        for topic in &answer.topics {
            for part in &topic.partitions {
                if part.error_code != 0 {
                    self.failed(shared, "ListOffsets", part.error_code);
                    continue;
                }
                let is_it = |place: &&mut Place| *place.partition.0 == *topic.name.0 && place.partition.1 == part.partition_index;
                if let Some(place) = self.places.iter_mut().find(is_it) {
                    (place.offset, place.lost) = (part.offset, false);
                    shared.history.push(Event::Sought { reader: place.reader, offset: place.offset });
                    let (partition, offset) = (place.partition.clone(), place.offset);
                    shared.history.push(Event::Listed { span, partition, bound: Bound::LogStart, offset });
                }
            }
        }
    }

    fn commit_answered(&mut self, terms: &Terms, shared: &mut Shared, frame: &Bytes, sent: Vec<(Partition, i64)>, span: Span) {
        let answer = decode::<OffsetCommitRequest>(frame, COMMIT);
        let codes: BTreeMap<Partition, i16> = answer
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|part| (((*topic.name.0).to_owned(), part.partition_index), part.error_code)))
            .collect();
        let mut failure = 0;
        for (partition, offset) in sent {
            match codes.get(&partition) {
                Some(0) => {
                    shared.saw("member has committed");
                    if let Some(place) = self.places.iter_mut().find(|place| place.partition == partition) {
                        place.committed = offset;
                    }
                    shared.history.push(Event::Committed { span, group: terms.group.clone(), partition, offset });
                }
                Some(code) => failure = *code,
                None => shared.wrong(format!("{}: a commit's answer lacks {partition:?}", terms.group)),
            }
        }
        self.failed(shared, "OffsetCommit", failure);
    }

    fn fetched(&mut self, shared: &mut Shared, parts: Vec<(Partition, PartitionData)>, span: Span) {
        self.places.iter_mut().for_each(|place| place.fetched_at = span.invoked);
        for (partition, part) in parts {
            let Some(place) = self.places.iter_mut().find(|place| place.partition == partition) else { continue };
            match part.error_code {
                0 => {
                    let (next, count) = take::part(shared, &partition, place.reader, place.offset, &part, span);
                    place.offset = next;
                    self.records += count;
                }
                OUT_OF_RANGE => {
                    place.lost = true;
                    shared.history.push(Event::OutOfRange { span, partition, offset: place.offset });
                }
                code => self.failed(shared, "Fetch of a partition", code),
            }
        }
    }

    fn lost(&mut self) {
        // A plan that went out, or did not, is sent again as it was.
        (self.asked, self.knows_coordinator) = (None, false);
        self.fetcher.forget();
    }

    fn step(&mut self, terms: &Terms, shared: &mut Shared) -> u64 {
        if !self.link.connect(&shared.world) {
            return self.link.wake();
        }
        match self.link.look(&shared.world) {
            Came::Lost => {
                if let Some((expected, found)) = self.link.out_of_order.take() {
                    shared.wrong(format!("answer {found} came where {expected} was next"));
                }
                self.lost();
                return self.link.wake();
            }
            Came::Answers(answers) => answers.iter().for_each(|(_, frame)| self.answered(terms, shared, frame)),
        }
        if self.asked.is_none() && shared.now() >= self.next_at {
            self.ask(terms, shared);
            if let Came::Lost = self.link.look(&shared.world) {
                self.lost();
            }
        }
        let next = if self.asked.is_some() { u64::MAX } else { self.next_at };
        next.min(self.link.wake())
    }

    /// Whether all that it was given is read to the end, and that is committed.
    fn has_all(&self, shared: &Shared) -> bool {
        let is_at_end = |place: &Place| {
            let has_all = shared.is_all(&place.partition, place.offset, place.fetched_at);
            !place.is_new && !place.lost && has_all && place.committed == place.offset
        };
        self.standing == Standing::Member && self.places.iter().all(is_at_end)
    }
}

/// See the module's head.
pub struct Team {
    terms: Terms,
    members: Vec<Member>,
    done: bool,
}

impl Team {
    pub fn new(number: u32, topics: Vec<String>, members: u32, session_ms: u64, prng: &mut Prng) -> Team {
        let metadata_bytes = if session_ms.is_multiple_of(3) { 60_000 } else { 0 };
        let terms = Terms { group: format!("team-{number}"), topics, session_ms, metadata_bytes };
        let members = (0..members).map(|index| Member::new(number * 10 + index, FetchStyle::draw(prng), prng.fork())).collect();
        Team { terms, members, done: false }
    }

    pub fn group(&self) -> &str {
        &self.terms.group
    }

    pub fn records(&self) -> u64 {
        self.members.iter().map(|member| member.records).sum()
    }

    /// Whether members that have read all they were given were given all there is, in one generation.
    fn has_all(&self, shared: &Shared) -> bool {
        let generation = self.members.iter().map(|member| member.generation).max().unwrap_or(-1);
        let present = || self.members.iter().filter(|member| member.generation == generation && member.has_all(shared));
        let given = |partition: &Partition| present().any(|member| member.places.iter().any(|place| place.partition == *partition));
        let all = self.terms.all(shared);
        !all.is_empty() && all.iter().all(given)
    }
}

impl Client for Team {
    fn step(&mut self, shared: &mut Shared) -> u64 {
        if self.done {
            return u64::MAX;
        }
        let wake = self.members.iter_mut().map(|member| member.step(&self.terms, shared)).min().unwrap_or(u64::MAX);
        if shared.finishing && self.has_all(shared) {
            self.done = true;
            let generation = self.members.iter().map(|member| member.generation).max().unwrap_or(-1);
            let present: Vec<&Member> =
                self.members.iter().filter(|member| member.generation == generation && member.has_all(shared)).collect();
            for place in present.into_iter().flat_map(|member| &member.places) {
                let (group, partition) = (self.terms.group.clone(), place.partition.clone());
                shared.history.push(Event::Consumed { group, partition, to: place.committed });
            }
        }
        wake
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn state(&self) -> String {
        let member = |member: &Member| {
            let places: Vec<String> =
                member.places.iter().map(|place| format!("{:?} at {} ({})", place.partition, place.offset, place.committed)).collect();
            format!("{:?} generation {} asked {:?}: {}", member.standing, member.generation, member.asked, places.join(", "))
        };
        format!("{}: {}", self.terms.group, self.members.iter().map(member).collect::<Vec<_>>().join("; "))
    }
}
