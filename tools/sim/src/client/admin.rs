//! An administrator: makes the topics, changes them, deletes records, and makes and deletes topics of its own with a few records in them.
//!
//! 1. What is to be done is a list; the first is tried until it is done, by all codes that are retriable.
//! 2. A topic of its own is made, filled, altered, grown, read and deleted, and made again under the same name: in the history each time
//!    is another topic.
//! 3. What it has set it looks up again later: a configuration is part of what must outlast a crash.
//!
//! Invariants: one request at a time.

use super::link::{Came, Link, decode};
use super::{Client, MS, Shared, is_retriable, take, text, topic_name};
use crate::history::{Event, Partition, Span};
use crate::packing;
use crate::value::{self, ValueId};
use bytes::Bytes;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_base::prng::Prng;
use std::collections::BTreeMap;

const CREATE: i16 = 7;
const DELETE: i16 = 6;
const DELETE_RECORDS: i16 = 2;
const PRODUCE: i16 = 9;
const METADATA: i16 = 12;
const FETCH: i16 = 12;
const GROW: i16 = 3;
const ALTER: i16 = 1;
const DESCRIBE: i16 = 4;

const OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC: i16 = 3;
const TOO_LARGE: i16 = 10;
const TOPIC_EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;

/// Of resources in requests about configurations.
const TOPIC: i8 = 2;
const SET: i8 = 0;
const UNSET: i8 = 1;

/// A topic, as it is called, and as it stands in the history.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Named {
    pub name: String,
    pub known_as: String,
}

/// A key, and its value; None: it is unset.
type Change = (String, Option<String>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Task {
    Create {
        topic: Named,
        partitions: i32,
        configs: Vec<(String, String)>,
    },
    /// After a creation whose answer was lost.
    Learn {
        topic: Named,
    },
    Fill {
        topic: Named,
        index: i32,
        first: ValueId,
        count: u32,
        len: usize,
        codec: u8,
        is_too_large: bool,
        attempt: u32,
    },
    /// Reads all of a partition of an own topic.
    Check {
        topic: Named,
        index: i32,
        reader: u32,
        at: i64,
    },
    Grow {
        topic: Named,
        to: i32,
    },
    Alter {
        topic: Named,
        changes: Vec<Change>,
    },
    LookUp {
        topic: Named,
        changes: Vec<Change>,
    },
    Delete {
        topic: Named,
    },
    DeleteRecords {
        partition: Partition,
        offset: i64,
    },
}

/// Name, partitions, configs.
pub type NewTopic = (String, i32, Vec<(String, String)>);

pub struct Admin {
    prng: Prng,
    link: Link,
    /// What is to be done, the next one last.
    tasks: Vec<Task>,
    asked: Option<u64>,
    /// Whether the next task was sent before, with an outcome that is not known.
    unknown: bool,
    next_at: u64,
    pause_ms: u64,
    /// Topics stay as they were made.
    is_steady: bool,
    main: Vec<String>,
    /// What the main topics were made with.
    first: BTreeMap<String, Vec<(String, String)>>,
    /// Own topics that are there, by name: their history's name and their partitions.
    own: BTreeMap<String, (Named, i32)>,
    /// Set for the main topics, and acknowledged.
    set: BTreeMap<String, BTreeMap<String, Option<String>>>,
    made: u32,
    number: u32,
    next_value: u32,
    next_reader: u32,
}

/// What a topic is to keep with these changes.
fn policy(at: u64, topic: &Named, changes: &[Change]) -> Event {
    let of = |key: &str| changes.iter().find(|(changed, _)| changed == key).and_then(|(_, value)| value.as_ref()?.parse().ok());
    let (retention_ms, retention_bytes) = (of("retention.ms"), of("retention.bytes"));
    Event::Policy { at, topic: topic.known_as.clone(), retention_ms, retention_bytes }
}

fn named(name: &str) -> Named {
    Named { name: name.to_owned(), known_as: name.to_owned() }
}

impl Admin {
    /// First makes `topics`. `is_steady`: it makes no others, and lets none grow.
    pub fn new(number: u32, topics: Vec<NewTopic>, pause_ms: u64, is_steady: bool, prng: Prng) -> Admin {
        let main = topics.iter().map(|(name, ..)| name.clone()).collect();
        let first = topics.iter().map(|(name, _, configs)| (name.clone(), configs.clone())).collect();
        let create = |(name, partitions, configs): NewTopic| Task::Create { topic: named(&name), partitions, configs };
        let mut tasks: Vec<Task> = topics.into_iter().map(create).collect();
        tasks.reverse();
        Admin {
            prng,
            link: Link::new(),
            tasks,
            asked: None,
            unknown: false,
            next_at: 0,
            pause_ms,
            is_steady,
            main,
            first,
            own: BTreeMap::new(),
            set: BTreeMap::new(),
            made: 0,
            number,
            next_value: 0,
            next_reader: 2_000_000,
        }
    }

    /// Own topics that were not deleted, with their partitions: each is called otherwise in the history.
    pub fn own(&self) -> impl Iterator<Item = &(Named, i32)> {
        self.own.values()
    }

    /// What the main topics are to keep, once nothing is to be done any more.
    pub fn kept(&self) -> impl Iterator<Item = Event> {
        let of = |topic: &String, key: &str| -> Option<i64> {
            let first = || self.first.get(topic)?.iter().find(|(set, _)| set == key).map(|(_, value)| value.clone());
            let changed = self.set.get(topic).and_then(|set| set.get(key));
            changed.map_or_else(first, Clone::clone)?.parse().ok()
        };
        self.main.iter().map(move |topic| {
            let (retention_ms, retention_bytes) = (of(topic, "retention.ms"), of(topic, "retention.bytes"));
            Event::Keeps { topic: topic.clone(), retention_ms, retention_bytes }
        })
    }

    fn think(&mut self, shared: &Shared) {
        self.next_at = shared.now() + self.prng.below(2 * self.pause_ms * MS);
        let at = self.prng.below(self.main.len() as u64) as usize;
        let name = self.main[at].clone();
        match self.prng.below(8) {
            0..3 | 5 if self.is_steady => {}
            0..3 => self.think_of_own(),
            3..5 => {
                let index = self.prng.below(shared.partitions[&name] as u64) as i32;
                let partition = (name, index);
                let high = shared.high.get(&partition).copied().unwrap_or(0);
                let offset = self.prng.below(high as u64 + 1) as i64;
                self.tasks.push(Task::DeleteRecords { partition, offset });
            }
            5 if shared.partitions[&name] < 6 => self.tasks.push(Task::Grow { topic: named(&name), to: shared.partitions[&name] + 1 }),
            6 if self.set.contains_key(&name) => {
                let changes = self.set[&name].iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                self.tasks.push(Task::LookUp { topic: named(&name), changes });
            }
            _ => {
                let changes = self.draw_changes();
                self.tasks.push(Task::Alter { topic: named(&name), changes });
            }
        }
    }

    fn draw_changes(&mut self) -> Vec<Change> {
        let prng = &mut self.prng;
        let all = [
            ("retention.bytes", 100_000 + prng.below(2_000_000)),
            ("retention.ms", 200 + prng.below(3_000)),
            ("segment.bytes", 1_048_576 + prng.below(1_000_000)),
            ("segment.ms", 50 + prng.below(2_000)),
            ("max.message.bytes", 150_000 + prng.below(1_000_000)),
        ];
        let some = all.into_iter().filter(|_| prng.one_in(3)).collect::<Vec<_>>();
        some.into_iter().map(|(key, value)| (key.to_owned(), (!prng.one_in(4)).then(|| value.to_string()))).collect()
    }

    /// The life of a topic, or a part of it; pushed in reverse.
    fn think_of_own(&mut self) {
        self.made += 1;
        let name = format!("churn-{}", self.prng.below(4));
        if let Some((topic, partitions)) = self.own.get(&name).cloned() {
            self.tasks.push(Task::Delete { topic: topic.clone() });
            // Its end is read before it is deleted: what was acknowledged is all there, and nothing of an earlier topic of the name.
            for index in 0..partitions {
                let reader = self.next_reader;
                self.next_reader += 1;
                self.tasks.push(Task::Check { topic: topic.clone(), index, reader, at: 0 });
            }
            return;
        }
        let partitions = 1 + self.prng.below(3) as i32;
        let topic = Named { known_as: format!("{name}#{}", self.made), name };
        let bound = if self.prng.one_in(3) { Some(1_000 + self.prng.below(3_000) as usize) } else { None };
        if self.prng.one_in(3) {
            self.fill(&topic, partitions + 1, bound);
            self.tasks.push(Task::Grow { topic: topic.clone(), to: partitions + 1 });
        }
        for _ in 0..self.prng.below(4) {
            self.fill(&topic, partitions, bound);
        }
        if let Some(bound) = bound {
            let changes = vec![("max.message.bytes".to_owned(), Some(bound.to_string()))];
            self.tasks.push(Task::LookUp { topic: topic.clone(), changes: changes.clone() });
            self.tasks.push(Task::Alter { topic: topic.clone(), changes });
            self.fill(&topic, partitions, None);
        }
        self.tasks.push(Task::Create { topic, partitions, configs: Vec::new() });
    }

    fn fill(&mut self, topic: &Named, partitions: i32, bound: Option<usize>) {
        let index = self.prng.below(partitions as u64) as i32;
        let (count, len) = (1 + self.prng.below(5) as u32, 20 + self.prng.below(1_500) as usize);
        let first = ValueId::new(self.number, self.next_value);
        self.next_value += count;
        let codec = self.prng.below(packing::CODECS) as u8;
        let size = value::batch(first, count, len, 0, None, codec).len();
        // The size hangs a little on the timestamps: not asked where it is close.
        let is_too_large = bound.is_some_and(|bound| size > bound);
        if bound.is_none_or(|bound| size.abs_diff(bound) > 100) {
            self.tasks.push(Task::Fill { topic: topic.clone(), index, first, count, len, codec, is_too_large, attempt: 0 });
        }
    }

    fn ask(&mut self, shared: &mut Shared) {
        let now = shared.now();
        match self.tasks.last_mut().expect("the caller saw a task") {
            Task::Create { topic, partitions, configs } => {
                let set = configs.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
                shared.history.push(policy(now, topic, &set.collect::<Vec<_>>()));
                let config =
                    |(name, value): &(String, String)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
                let topic = CreatableTopic::default()
                    .with_name(topic_name(&topic.name))
                    .with_num_partitions(*partitions)
                    .with_replication_factor(1)
                    .with_configs(configs.iter().map(config).collect());
                self.link.ask(now, CREATE, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000));
            }
            Task::Learn { topic } => {
                let topic = MetadataRequestTopic::default().with_name(Some(topic_name(&topic.name)));
                self.link.ask(now, METADATA, &MetadataRequest::default().with_topics(Some(vec![topic])));
            }
            Task::Fill { topic, index, first, count, len, codec, attempt, .. } => {
                *attempt += 1;
                let partition = (topic.known_as.clone(), *index);
                let (first, count, attempt) = (*first, *count, *attempt);
                let bytes = value::batch(first, count, *len, shared.world.wall(crate::cluster::NODE), None, *codec);
                let size = bytes.len();
                shared.history.push(Event::Sent { at: now, partition, first, count, attempt, idempotent: false, bytes: size });
                let data = PartitionProduceData::default().with_index(*index).with_records(Some(bytes.into()));
                let topic = TopicProduceData::default().with_name(topic_name(&topic.name)).with_partition_data(vec![data]);
                self.link.ask(now, PRODUCE, &ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]));
            }
            Task::Check { topic, index, at, .. } => {
                let part = FetchPartition::default()
                    .with_partition(*index)
                    .with_current_leader_epoch(-1)
                    .with_fetch_offset(*at)
                    .with_last_fetched_epoch(-1)
                    .with_log_start_offset(-1)
                    .with_partition_max_bytes(1 << 20);
                let topic = FetchTopic::default().with_topic(topic_name(&topic.name)).with_partitions(vec![part]);
                let request = FetchRequest::default()
                    .with_replica_id(BrokerId(-1))
                    .with_min_bytes(0)
                    .with_max_bytes(1 << 20)
                    .with_session_epoch(-1)
                    .with_topics(vec![topic]);
                self.link.ask(now, FETCH, &request);
            }
            Task::Grow { topic, to } => {
                let topic = CreatePartitionsTopic::default().with_name(topic_name(&topic.name)).with_count(*to).with_assignments(None);
                self.link.ask(now, GROW, &CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000));
            }
            Task::Alter { topic, changes } => {
                shared.history.push(policy(now, topic, changes));
                let change = |(key, value): &Change| {
                    let operation = if value.is_some() { SET } else { UNSET };
                    let config = AlterableConfig::default().with_name(text(key)).with_config_operation(operation);
                    config.with_value(value.as_deref().map(text))
                };
                let resource = AlterConfigsResource::default()
                    .with_resource_type(TOPIC)
                    .with_resource_name(text(&topic.name))
                    .with_configs(changes.iter().map(change).collect());
                self.link.ask(now, ALTER, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]));
            }
            Task::LookUp { topic, changes } => {
                let resource = DescribeConfigsResource::default()
                    .with_resource_type(TOPIC)
                    .with_resource_name(text(&topic.name))
                    .with_configuration_keys(Some(changes.iter().map(|(key, _)| text(key)).collect()));
                self.link.ask(now, DESCRIBE, &DescribeConfigsRequest::default().with_resources(vec![resource]));
            }
            Task::Delete { topic } => {
                let topic = DeleteTopicState::default().with_name(Some(topic_name(&topic.name)));
                self.link.ask(now, DELETE, &DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000));
            }
            Task::DeleteRecords { partition, offset } => {
                shared.history.push(Event::DeletionSent { at: now, partition: partition.clone(), to: *offset });
                let part = DeleteRecordsPartition::default().with_partition_index(partition.1).with_offset(*offset);
                let topic = DeleteRecordsTopic::default().with_name(topic_name(&partition.0)).with_partitions(vec![part]);
                self.link.ask(now, DELETE_RECORDS, &DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000));
            }
        }
        self.asked = Some(now);
    }

    fn answered(&mut self, shared: &mut Shared, frame: &Bytes) {
        let Some(invoked) = self.asked.take() else { return };
        let span = Span { invoked, completed: shared.now() };
        let task = self.tasks.last().expect("one was asked").clone();
        let (code, is_done) = self.outcome(shared, &task, frame, span);
        if is_done {
            if self.tasks.last() == Some(&task) {
                self.tasks.pop();
            }
            self.unknown = false;
            return;
        }
        if code == 0 {
            return; // it goes on
        }
        self.unknown = true;
        self.next_at = shared.now() + 50 * MS;
        if !is_retriable(code) {
            shared.wrong(format!("{task:?} was answered {code}"));
            self.tasks.pop();
            self.unknown = false;
        }
    }

    /// The code, and whether the task is done.
    fn outcome(&mut self, shared: &mut Shared, task: &Task, frame: &Bytes, span: Span) -> (i16, bool) {
        match task {
            Task::Create { topic, partitions, .. } => {
                let answer = decode::<CreateTopicsRequest>(frame, CREATE);
                let made = answer.topics.first().cloned().unwrap_or_default();
                let is_done = made.error_code == 0 || (made.error_code == TOPIC_EXISTS && self.unknown);
                if is_done {
                    shared.history.push(Event::TopicMade { name: topic.name.clone() });
                    self.is_made(shared, topic, *partitions);
                    self.tasks.pop();
                    if made.error_code == 0 {
                        shared.topics.insert(topic.known_as.clone(), MetadataResponseTopic::default().with_topic_id(made.topic_id));
                    } else {
                        self.tasks.push(Task::Learn { topic: topic.clone() });
                    }
                }
                (made.error_code, is_done)
            }
            Task::Learn { topic } => {
                let answer = decode::<MetadataRequest>(frame, METADATA);
                let found = answer.topics.first().cloned().unwrap_or_default();
                if found.error_code == 0 {
                    shared.topics.insert(topic.known_as.clone(), found.clone());
                }
                (found.error_code, found.error_code == 0)
            }
            Task::Fill { topic, index, first, count, is_too_large, .. } => {
                let answer = decode::<ProduceRequest>(frame, PRODUCE);
                let part = answer.responses.first().and_then(|topic| topic.partition_responses.first()).cloned().unwrap_or_default();
                let (partition, first, count) = ((topic.known_as.clone(), *index), *first, *count);
                let is_refused = part.error_code == TOO_LARGE;
                if (part.error_code == 0 || is_refused) && is_refused != *is_too_large {
                    shared.wrong(format!("{task:?} was answered {}", part.error_code));
                }
                if part.error_code == 0 {
                    let (base, append_time) = (part.base_offset, part.log_append_time_ms);
                    shared.history.push(Event::Acknowledged { span, partition, first, count, base, append_time });
                } else if is_refused {
                    shared.saw("batch above the topic's bound");
                    shared.history.push(Event::Refused { at: span.completed, partition, first, count });
                }
                (part.error_code, part.error_code == 0 || is_refused)
            }
            Task::Check { topic, index, reader, at } => {
                let answer = decode::<FetchRequest>(frame, FETCH);
                let part = answer.responses.first().and_then(|topic| topic.partitions.first()).cloned().unwrap_or_default();
                if part.error_code != 0 {
                    return (part.error_code, false);
                }
                let partition = (topic.known_as.clone(), *index);
                let (next, _) = take::part(shared, &partition, *reader, *at, &part, span);
                if next >= part.high_watermark {
                    shared.saw("own topic read before it was deleted");
                    shared.history.push(Event::Scanned { partition, reader: *reader, from: 0, to: part.high_watermark });
                    return (0, true);
                }
                if let Some(Task::Check { at, .. }) = self.tasks.last_mut() {
                    *at = next;
                }
                (0, false)
            }
            Task::Grow { topic, to } => {
                let code = decode::<CreatePartitionsRequest>(frame, GROW).results.first().map_or(-1, |result| result.error_code);
                let is_done = code == 0 || (code == INVALID_PARTITIONS && self.unknown);
                if is_done {
                    shared.saw("topic has grown");
                    self.is_made(shared, topic, *to);
                }
                (code, is_done)
            }
            Task::Alter { topic, changes } => {
                let code = decode::<IncrementalAlterConfigsRequest>(frame, ALTER).responses.first().map_or(-1, |result| result.error_code);
                if code == 0 {
                    shared.saw("configuration altered");
                    self.set.entry(topic.name.clone()).or_default().extend(changes.iter().cloned());
                }
                (code, code == 0)
            }
            Task::LookUp { changes, .. } => {
                let answer = decode::<DescribeConfigsRequest>(frame, DESCRIBE);
                let found = answer.results.first().cloned().unwrap_or_default();
                if found.error_code == 0 {
                    for (key, value) in changes {
                        let held = found.configs.iter().find(|config| config.name == text(key));
                        let held = held.map(|config| (config.value.as_ref().map(ToString::to_string), config.config_source));
                        // The source of what is set for the topic is 1.
                        let is_right = match (value, &held) {
                            (Some(value), Some((held, 1))) => held.as_ref() == Some(value),
                            (None, Some((_, source))) => *source != 1,
                            _ => false,
                        };
                        if !is_right {
                            shared.wrong(format!("{task:?}: {key} is {held:?}"));
                        }
                    }
                }
                (found.error_code, found.error_code == 0)
            }
            Task::Delete { topic } => {
                let code = decode::<DeleteTopicsRequest>(frame, DELETE).responses.first().map_or(-1, |topic| topic.error_code);
                let is_done = code == 0 || (code == UNKNOWN_TOPIC && self.unknown);
                if code == UNKNOWN_TOPIC && !self.unknown {
                    shared.wrong(format!("{topic:?} was made, and is not known when it is to be deleted"));
                }
                if is_done {
                    shared.saw("own topic deleted");
                    shared.history.push(Event::TopicGone { name: topic.name.clone() });
                    self.own.remove(&topic.name);
                }
                (code, is_done)
            }
            Task::DeleteRecords { partition, offset } => {
                let answer = decode::<DeleteRecordsRequest>(frame, DELETE_RECORDS);
                let part = answer.topics.first().and_then(|topic| topic.partitions.first()).cloned().unwrap_or_default();
                if part.error_code == 0 {
                    if part.low_watermark < *offset {
                        let start = part.low_watermark;
                        shared.wrong(format!("{partition:?}: records below {offset} are deleted, and the log starts at {start}"));
                    }
                    shared.history.push(Event::Deleted { span, partition: partition.clone(), log_start: part.low_watermark });
                }
                // Out of range: another one has deleted more, or the log is shorter than was seen, which its bounds will tell.
                (part.error_code, matches!(part.error_code, 0 | OUT_OF_RANGE))
            }
        }
    }

    /// A topic has so many partitions.
    fn is_made(&mut self, shared: &mut Shared, topic: &Named, partitions: i32) {
        if topic.name == topic.known_as {
            shared.partitions.insert(topic.name.clone(), partitions);
        } else {
            self.own.insert(topic.name.clone(), (topic.clone(), partitions));
        }
    }
}

impl Client for Admin {
    fn step(&mut self, shared: &mut Shared) -> u64 {
        if !self.link.connect(&shared.world) {
            return self.link.wake();
        }
        match self.link.look(&shared.world) {
            Came::Lost => {
                self.unknown |= self.asked.take().is_some();
                return self.link.wake();
            }
            Came::Answers(answers) => answers.iter().for_each(|(_, frame)| self.answered(shared, frame)),
        }
        let now = shared.now();
        if self.asked.is_none() && now >= self.next_at {
            if self.tasks.is_empty() && !shared.finishing {
                self.think(shared);
            }
            if !self.tasks.is_empty() {
                self.ask(shared);
                if let Came::Lost = self.link.look(&shared.world) {
                    self.unknown |= self.asked.take().is_some();
                }
            }
        }
        let next = if self.asked.is_some() || (shared.finishing && self.tasks.is_empty()) { u64::MAX } else { self.next_at };
        next.min(self.link.wake())
    }

    fn is_done(&self) -> bool {
        self.tasks.is_empty()
    }

    fn state(&self) -> String {
        format!("admin: up {}, asked {:?}, task {:?}", self.link.is_up(), self.asked, self.tasks.last())
    }
}
