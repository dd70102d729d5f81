//! Lists the topics, reads every partition from its log start to its high watermark, and asks for every group's commits: what is left.

use super::link::{Came, Link, decode};
use super::{Client, MS, Shared, is_retriable, take, text, topic_name};
use crate::history::{Event, Partition, Span};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, GroupId, MetadataRequest};
use millrace_base::ids::Uuid;
use std::collections::BTreeMap;

const FETCH: i16 = 12;
const LIST: i16 = 7;
const METADATA: i16 = 12;
const COMMITTED: i16 = 7;
const FIND: i16 = 3;

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

enum Stage {
    Topics,
    Start,
    /// `at` is where the scan stands when it has read all that it was told of: batches that were sent without waiting for an answer may
    /// have arrived since.
    End {
        from: i64,
        at: Option<i64>,
    },
    Read {
        from: i64,
        to: i64,
        at: i64,
    },
    Group,
    /// There is no coordinator yet; who asks for one makes it.
    Coordinator,
}

pub struct Scanner {
    link: Link,
    /// As they are called, and as they stand in the history.
    left: Vec<(Partition, Partition)>,
    /// Groups whose commits are to be asked for, of these partitions.
    groups: Vec<String>,
    of_groups: Vec<Partition>,
    /// Topics that there are, by id.
    pub topics: BTreeMap<String, String>,
    /// Where logs start, by partition as it is called.
    pub starts: BTreeMap<Partition, i64>,
    stage: Stage,
    asked: Option<u64>,
    next_at: u64,
    reader: u32,
    done: bool,
}

impl Scanner {
    /// `partitions`: as they are called, and as they stand in the history. `of_groups`: those that `groups` commit offsets of.
    pub fn new(partitions: Vec<(Partition, Partition)>, groups: Vec<String>, of_groups: Vec<Partition>) -> Scanner {
        Scanner {
            link: Link::new(),
            left: partitions,
            groups,
            of_groups,
            topics: BTreeMap::new(),
            starts: BTreeMap::new(),
            stage: Stage::Topics,
            asked: None,
            next_at: 0,
            reader: 1_000_000,
            done: false,
        }
    }

    fn ask(&mut self, now: u64) {
        let ((name, index), _) = self.left.last().cloned().unwrap_or_default();
        let list = |time: i64| {
            let part = ListOffsetsPartition::default().with_partition_index(index).with_current_leader_epoch(-1).with_timestamp(time);
            let topic = ListOffsetsTopic::default().with_name(topic_name(&name)).with_partitions(vec![part]);
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
        };
        match &self.stage {
            Stage::Topics => {
                self.link.ask(now, METADATA, &MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false))
            }
            Stage::Start => self.link.ask(now, LIST, &list(EARLIEST)),
            Stage::End { .. } => self.link.ask(now, LIST, &list(LATEST)),
            Stage::Read { at, .. } => {
                let part = FetchPartition::default()
                    .with_partition(index)
                    .with_current_leader_epoch(-1)
                    .with_fetch_offset(*at)
                    .with_last_fetched_epoch(-1)
                    .with_log_start_offset(-1)
                    .with_partition_max_bytes(1 << 20);
                let topic = FetchTopic::default().with_topic(topic_name(&name)).with_partitions(vec![part]);
                let request = FetchRequest::default()
                    .with_replica_id(BrokerId(-1))
                    .with_max_wait_ms(100)
                    .with_min_bytes(1)
                    .with_max_bytes(1 << 20)
                    .with_session_epoch(-1)
                    .with_topics(vec![topic]);
                self.link.ask(now, FETCH, &request)
            }
            Stage::Coordinator => {
                let group = self.groups.last().cloned().unwrap_or_default();
                self.link.ask(now, FIND, &FindCoordinatorRequest::default().with_key(text(&group)).with_key_type(0))
            }
            Stage::Group => {
                let group = self.groups.last().cloned().unwrap_or_default();
                let mut topics: BTreeMap<&String, Vec<i32>> = BTreeMap::new();
                self.of_groups.iter().for_each(|(name, index)| topics.entry(name).or_default().push(*index));
                let topic = |(name, indexes): (&String, Vec<i32>)| {
                    OffsetFetchRequestTopic::default().with_name(topic_name(name)).with_partition_indexes(indexes)
                };
                let request = OffsetFetchRequest::default()
                    .with_group_id(GroupId(text(&group)))
                    .with_topics(Some(topics.into_iter().map(topic).collect()));
                self.link.ask(now, COMMITTED, &request)
            }
        };
        self.asked = Some(now);
    }

    fn answered(&mut self, shared: &mut Shared, frame: &Bytes) {
        let Some(invoked) = self.asked.take() else { return };
        let span = Span { invoked, completed: shared.now() };
        let (code, next) = match self.stage {
            Stage::Topics => {
                let answer = decode::<MetadataRequest>(frame, METADATA);
                let names = answer.topics.iter().filter_map(|topic| topic.name.as_ref());
                shared.history.push(Event::Topics { names: names.map(|name| (*name.0).to_owned()).collect() });
                for topic in &answer.topics {
                    let name = topic.name.as_ref().map_or(String::new(), |name| name.0.to_string());
                    self.topics.insert(Uuid(*topic.topic_id.as_bytes()).to_string(), name);
                }
                (0, Some(Stage::Start))
            }
            Stage::Start | Stage::End { .. } => {
                let answer = decode::<ListOffsetsRequest>(frame, LIST);
                let part = answer.topics.first().and_then(|topic| topic.partitions.first()).cloned().unwrap_or_default();
                let next = match self.stage {
                    Stage::End { from, at: None } => {
                        shared.history.push(Event::Sought { reader: self.reader, offset: from });
                        Stage::Read { from, to: part.offset, at: from }
                    }
                    Stage::End { from, at: Some(at) } if at < part.offset => Stage::Read { from, to: part.offset, at },
                    Stage::End { from, .. } if part.error_code == 0 => {
                        self.scanned(shared, from, part.offset);
                        Stage::Start
                    }
                    _ => Stage::End { from: part.offset, at: None },
                };
                (part.error_code, Some(next))
            }
            Stage::Read { from, to, at } => {
                let answer = decode::<FetchRequest>(frame, FETCH);
                let part = answer.responses.first().and_then(|topic| topic.partitions.first()).cloned().unwrap_or_default();
                let (called, partition) = self.left.last().cloned().unwrap_or_default();
                if part.error_code == 0 {
                    self.starts.insert(called, part.log_start_offset);
                    let (at, _) = take::part(shared, &partition, self.reader, at, &part, span);
                    (0, Some(Stage::Read { from, to, at }))
                } else {
                    // The log start may have moved by retention: the scan of this partition begins again.
                    (part.error_code, (part.error_code == 1).then_some(Stage::Start))
                }
            }
            Stage::Coordinator => {
                decode::<FindCoordinatorRequest>(frame, FIND);
                self.next_at = shared.now() + 20 * MS;
                (0, Some(Stage::Group))
            }
            Stage::Group => {
                let answer = decode::<OffsetFetchRequest>(frame, COMMITTED);
                let parts = || answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (topic, part)));
                let code = parts().map(|(_, part)| part.error_code).chain([answer.error_code]).find(|code| *code != 0).unwrap_or(0);
                if code == 0 {
                    let group = self.groups.pop().unwrap_or_default();
                    for (topic, part) in parts() {
                        let (partition, offset) = (((*topic.name.0).to_owned(), part.partition_index), part.committed_offset);
                        shared.history.push(Event::CommittedFetched { span, group: group.clone(), partition, offset });
                    }
                }
                (code, None)
            }
        };
        if code != 0 {
            self.next_at = shared.now() + 20 * MS;
            if code != 1 && !is_retriable(code) {
                shared.wrong(format!("the scan was answered {code}"));
            }
            if matches!(self.stage, Stage::Group) {
                self.stage = Stage::Coordinator;
            }
            if code != 1 {
                return;
            }
        }
        if let Some(next) = next {
            self.stage = next;
        }
        self.advance();
    }

    fn scanned(&mut self, shared: &mut Shared, from: i64, to: i64) {
        if let Some((_, partition)) = self.left.pop() {
            shared.history.push(Event::Scanned { partition, reader: self.reader, from, to });
        }
        self.reader += 1;
    }

    fn advance(&mut self) {
        if let Stage::Read { from, to, at } = self.stage
            && at >= to
        {
            self.stage = Stage::End { from, at: Some(at) };
        }
        if self.left.is_empty() && !matches!(self.stage, Stage::Topics | Stage::Coordinator) {
            self.stage = Stage::Group;
            self.done = self.groups.is_empty();
        }
    }
}

impl Client for Scanner {
    fn step(&mut self, shared: &mut Shared) -> u64 {
        if self.done || !self.link.connect(&shared.world) {
            return if self.done { u64::MAX } else { self.link.wake() };
        }
        match self.link.look(&shared.world) {
            Came::Lost => {
                self.asked = None;
                return self.link.wake();
            }
            Came::Answers(answers) => answers.iter().for_each(|(_, frame)| self.answered(shared, frame)),
        }
        let now = shared.now();
        if self.asked.is_none() && now >= self.next_at && !self.done {
            self.ask(now);
            if let Came::Lost = self.link.look(&shared.world) {
                self.asked = None;
            }
        }
        if self.asked.is_some() { self.link.wake() } else { self.next_at }
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn state(&self) -> String {
        format!(
            "scanner: up {}, asked {:?}, {} partitions and {} groups left",
            self.link.is_up(),
            self.asked,
            self.left.len(),
            self.groups.len()
        )
    }
}
