//! A stand-in for the engine: it answers what handlers ask of shards, at once and by a given mood.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use millrace_base::clock::Nanos;
use millrace_base::ids::{NodeId, PartitionId, ShardId, TopicId, Uuid};
use millrace_base::settings::Settings;
use millrace_io::{Pool, Slice};
use millrace_kafka::answered::Answered;
use millrace_kafka::call::{Answer, Asked, Call, CallId, Outcome, Pending, Shared, split_token};
use millrace_kafka::dispatch::{self, Found};
use millrace_kafka::engine::Engine;
use millrace_kafka::fetch_session::Sessions;
use millrace_kafka::listener::{Advertised, Listeners};
use millrace_kafka::producer_ids::ProducerIds;
use millrace_shard::api::*;
use millrace_shard::state::groups;
use millrace_shard::state::meta::{Command, Directory, Meta, MetaError, Node};

pub const NODE: NodeId = 1;
pub const SHARDS: u16 = 3;
pub const TOPIC_ID: Uuid = Uuid([7, 6, 5, 4, 3, 2, 1, 0, 9, 8, 7, 6, 5, 4, 3, 2]);

/// What shards say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Good,
    Refusing,
}

/// The state behind the stand-in.
pub struct World {
    pub facts: NodeFacts,
    pub settings: Settings,
    pub meta: Meta,
    pub leaders: BTreeMap<PartitionId, Leadership>,
    pub shared: Shared,
}

pub struct StandIn<'a> {
    pub now: Nanos,
    pub facts: &'a NodeFacts,
    pub settings: &'a Settings,
    pub meta: &'a Meta,
    pub leaders: &'a BTreeMap<PartitionId, Leadership>,
    pub submitted: Vec<(ShardId, u64, Request)>,
    pub seed: u64,
}

impl<'a> Engine<'a> for StandIn<'a> {
    fn now(&self) -> Nanos {
        self.now
    }
    fn shard(&self) -> ShardId {
        0
    }
    fn facts(&self) -> &'a NodeFacts {
        self.facts
    }
    fn settings(&self) -> &'a Settings {
        self.settings
    }
    fn meta(&self) -> &'a Meta {
        self.meta
    }
    fn leader(&self, partition: PartitionId) -> Option<Leadership> {
        self.leaders.get(&partition).copied()
    }
    fn directories(&mut self) -> Vec<DataDirectory> {
        let told = |path: &str, space: Option<_>| DataDirectory { path: path.to_owned(), is_failed: space.is_none(), space };
        vec![told("/failed", None), told("/data", Some((3_000, 7_000)))]
    }
    fn submit(&mut self, to: ShardId, token: u64, request: Request) {
        self.submitted.push((to, token, request));
    }
    fn entropy(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 11
    }
}

impl World {
    pub fn new(topics: &[(&str, TopicId, usize)]) -> World {
        let mut meta = Meta::new();
        let directory = Uuid([9; 16]);
        meta.apply(Command::RegisterNode(Node {
            id: NODE,
            listeners: vec![],
            directories: vec![Directory { id: directory, path: "/data".into() }],
        }));
        let mut leaders = BTreeMap::new();
        for (name, topic, partitions) in topics {
            let directories = vec![directory; *partitions];
            meta.apply(Command::CreateTopic { topic: *topic, name: (*name).into(), directories, configs: BTreeMap::new() });
            for index in 0..u32::try_from(*partitions).unwrap() {
                let partition = PartitionId { topic: *topic, index };
                leaders.insert(partition, Leadership { partition, leader: Some(NODE), epoch: 4 });
            }
        }
        let listener = Advertised { name: "PLAINTEXT".into(), host: "here".into(), port: 9092 };
        World {
            facts: NodeFacts { node: NODE, cluster: Uuid([3; 16]), shards: SHARDS },
            settings: Settings::default(),
            meta,
            leaders,
            shared: Shared {
                listeners: Listeners(vec![listener]),
                sessions: Sessions::new(10),
                producer_ids: ProducerIds::default(),
                waiting_partitions: Default::default(),
                warn_of_groups_at: Nanos(0),
                wake: Vec::new(),
                answered: Answered::default(),
            },
        }
    }

    /// Lets a handler begin; what it asks of shards comes back too.
    pub fn begin(&mut self, id: CallId, frame: &[u8], now: Nanos) -> Step {
        let Found::Served(asked) = dispatch::find(frame) else { panic!("a served request") };
        let frame: Slice = Pool::new(0).take(frame.len()).push(frame);
        self.step(id, asked, now, |call| match dispatch::begin(call, &frame) {
            Outcome::Done(answer) => (Some(answer), None),
            Outcome::Wait(pending) => (None, Some(pending)),
        })
    }

    pub fn step(
        &mut self,
        id: CallId,
        asked: Asked,
        now: Nanos,
        work: impl FnOnce(&mut Call<'_, '_>) -> (Option<Answer>, Option<Box<dyn Pending>>),
    ) -> Step {
        let World { facts, settings, meta, leaders, shared } = self;
        let (facts, settings, meta, leaders) = (&*facts, &*settings, &*meta, &*leaders);
        let mut engine = StandIn { now, facts, settings, meta, leaders, submitted: vec![], seed: 7 + id };
        let mut call = Call::new(id, asked, 0, "/127.0.0.1", shared, &mut engine);
        let (answer, pending) = work(&mut call);
        let (owner, timer) = (call.owner, call.timer);
        Step { asked, answer, pending, owner, submitted: engine.submitted, timer }
    }

    /// Lets a waiting handler go on.
    pub fn go_on(
        &mut self,
        id: CallId,
        step: &mut Step,
        now: Nanos,
        work: impl FnOnce(&mut dyn Pending, &mut Call<'_, '_>) -> Option<Answer>,
    ) {
        let mut pending = step.pending.take().expect("a handler that waits");
        let mut next = self.step(id, step.asked, now, |call| (work(pending.as_mut(), call), None));
        step.submitted.append(&mut next.submitted);
        step.timer = next.timer.or(step.timer);
        step.answer = next.answer;
        if step.answer.is_none() {
            step.pending = Some(pending);
        }
    }

    pub fn reply(&mut self, id: CallId, step: &mut Step, token: u64, reply: Reply, now: Nanos) {
        assert_eq!(split_token(token).0, id);
        self.go_on(id, step, now, |pending, call| pending.replied(call, split_token(token).1, reply));
    }

    /// From a frame to its answer, all shards being of one mood.
    pub fn answer(&mut self, frame: &[u8], mood: Mood) -> Answer {
        let id = 1;
        let mut step = self.begin(id, frame, Nanos(0));
        for _ in 0..1_000_000 {
            if let Some(answer) = step.answer.take() {
                return answer;
            }
            if step.submitted.is_empty() {
                self.go_on(id, &mut step, Nanos(0).plus_ms(60_000), |pending, call| pending.timer(call));
                continue;
            }
            let (_, token, request) = step.submitted.remove(0);
            let reply = said(request, mood);
            if !matches!(reply, Reply::Done) {
                self.reply(id, &mut step, token, reply, Nanos(0));
            }
        }
        panic!("no answer after a million replies");
    }
}

/// A handler after one step.
pub struct Step {
    pub asked: Asked,
    pub answer: Option<Answer>,
    pub pending: Option<Box<dyn Pending>>,
    pub owner: Option<ShardId>,
    pub submitted: Vec<(ShardId, u64, Request)>,
    pub timer: Option<Nanos>,
}

/// What a shard says to a request.
pub fn said(request: Request, mood: Mood) -> Reply {
    let good = mood == Mood::Good;
    let read_error = || ReadError::NotLeader { leader: Some(NODE), epoch: 5 };
    fn each<Q, R, E>(questions: Vec<Q>, good: bool, found: R, error: E) -> Vec<Result<R, E>>
    where
        R: Clone,
        E: Clone,
    {
        questions.iter().map(|_| if good { Ok(found.clone()) } else { Err(error.clone()) }).collect()
    }
    match request {
        Request::Produce(produce) => {
            let produced = Produced { base: 40, append_time: -1, log_start: 2 };
            Reply::Produced(each(produce.parts, good, produced, ProduceError::NotLeader { leader: Some(NODE), epoch: 5 }))
        }
        Request::Read(read) => {
            let data = || ReadData { commit: 9, stable: 9, log_start: 2, ..ReadData::default() };
            Reply::Read(read.parts.iter().map(|_| if good { Ok(data()) } else { Err(read_error()) }).collect())
        }
        Request::ListOffsets(queries) => {
            Reply::Offsets(each(queries, good, OffsetFound { offset: 5, timestamp: 6, epoch: 4 }, read_error()))
        }
        Request::EpochEnds(queries) => Reply::EpochEnds(each(queries, good, Some(EpochEnd { epoch: 4, end: 9 }), read_error())),
        Request::DeleteRecords(deletes) => Reply::Deleted(each(deletes, good, 3, ReadError::CompactedOnly)),
        Request::DescribeLogs(partitions) => {
            let size = LogSize { directory: "/data".into(), bytes: 77, log_start: 0, end: 9 };
            Reply::Logs(each(partitions, good, size, read_error()))
        }
        Request::DescribeProducers(partitions) => {
            let row = ProducerRow { producer: 1000, epoch: 2, last_sequence: 3, last_timestamp: 4 };
            Reply::Producers(each(partitions, good, vec![row], read_error()))
        }
        Request::Meta(changes) => Reply::Meta(changes.into_iter().map(|change| changed(change, good)).collect()),
        Request::Group { request, .. } => Reply::Group(if good { Ok(grouped(request)) } else { Err(GroupUnavailable::Loading) }),
        Request::StopWaiting { .. }
        | Request::Apply(_)
        | Request::Leadership(_)
        | Request::DirectoryFailed { .. }
        | Request::Ready
        | Request::Open
        | Request::Connection(_) => Reply::Done,
    }
}

fn changed(change: MetaChange, good: bool) -> Result<MetaDone, MetaRefusal> {
    if !good {
        return Err(MetaRefusal::Refused(MetaError::InvalidReplicationFactor { asked: 3, nodes: 1 }));
    }
    Ok(match change.request {
        millrace_shard::state::meta::Request::CreateTopic { .. } => MetaDone::TopicCreated { topic: TOPIC_ID, partitions: 3 },
        millrace_shard::state::meta::Request::AllocateProducerIds { count, .. } => MetaDone::ProducerIds { first: 5000, count },
        _ => MetaDone::Changed,
    })
}

fn grouped(request: groups::Request) -> groups::Answer {
    use groups::{Answer, Request};
    let instance = Some("instance".to_owned());
    let offset =
        groups::records::CommittedOffset { offset: 5, leader_epoch: 4, metadata: "m".into(), commit_timestamp: 1, expire_timestamp: None };
    let part = |topic: &str, partition| groups::PartitionAnswer { topic: topic.to_owned(), partition, result: Ok(()) };
    match request {
        Request::Join(_) => Answer::Joined(Ok(groups::Joined {
            member_id: "m".into(),
            generation: 3,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: "m".into(),
            members: vec![groups::JoinedMember { member_id: "m".into(), instance_id: instance, metadata: vec![1, 2] }],
            skip_assignment: true,
        })),
        Request::Sync(_) => Answer::Synced(Ok(groups::Synced {
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignment: vec![1],
        })),
        Request::Heartbeat { .. } => Answer::Heartbeat(Ok(())),
        Request::Leave { members, .. } => Answer::Left(Ok(members.into_iter().map(|member| (member, Ok(()))).collect())),
        Request::Commit(commit) => Answer::Committed(commit.offsets.iter().map(|o| part(&o.topic, o.partition)).collect()),
        Request::FetchOffsets { partitions: Some(partitions), .. } => {
            let all = partitions.iter().flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic.clone(), *index)));
            Answer::Offsets(Ok(all.map(|(topic, index)| (topic, index, Some(offset.clone()))).collect()))
        }
        Request::FetchOffsets { partitions: None, .. } => Answer::Offsets(Ok(vec![("orders".into(), 1, Some(offset))])),
        Request::DeleteOffsets { partitions, .. } => {
            let all = partitions.iter().flat_map(|(topic, indexes)| indexes.iter().map(move |index| part(topic, *index)));
            Answer::OffsetsDeleted(Ok(all.collect()))
        }
        Request::DeleteGroup { .. } => Answer::GroupDeleted(Ok(())),
        Request::Describe { group } => Answer::Described(Ok(groups::Description {
            group,
            state: groups::GroupState::Stable,
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            members: vec![groups::DescribedMember {
                member_id: "m".into(),
                instance_id: instance,
                client_id: "c".into(),
                client_host: "/1".into(),
                metadata: vec![1],
                assignment: vec![2],
            }],
        })),
        Request::List => {
            let state = groups::GroupState::Stable;
            Answer::Listed(vec![groups::Listed { group: "g".into(), protocol_type: "consumer".into(), state }])
        }
    }
}

/// An answer's frame in one piece.
pub fn whole(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Frame(frame) => frame.to_vec(),
        Answer::Parts(parts) => {
            let bytes = |part: &millrace_kafka::wire::fetch_response::Part<Slice>| match part {
                millrace_kafka::wire::fetch_response::Part::Bytes(bytes) => bytes.to_vec(),
                millrace_kafka::wire::fetch_response::Part::Records(slice) => slice.to_vec(),
            };
            parts.iter().flat_map(bytes).collect()
        }
        other => panic!("no frame: {other:?}"),
    }
}
