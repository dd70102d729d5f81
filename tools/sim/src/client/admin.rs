//! An administrator: makes the topics, deletes records, and makes and deletes topics of its own with a few records in them.

use super::link::{Came, Link, decode};
use super::{Client, MS, Shared, is_retriable, text, topic_name};
use crate::history::{Event, Partition, Span};
use crate::value::{self, ValueId};
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_base::prng::Prng;

const CREATE: i16 = 7;
const DELETE: i16 = 6;
const DELETE_RECORDS: i16 = 2;
const PRODUCE: i16 = 9;

const TOPIC_EXISTS: i16 = 36;
const UNKNOWN_TOPIC: i16 = 3;
const OUT_OF_RANGE: i16 = 1;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Task {
    Create { name: String, partitions: i32, configs: Vec<(String, String)> },
    Fill { name: String, first: ValueId },
    Delete { name: String },
    DeleteRecords { partition: Partition, offset: i64 },
}

/// Name, partitions, configs.
pub type NewTopic = (String, i32, Vec<(String, String)>);

pub struct Admin {
    prng: Prng,
    link: Link,
    /// What is to be done, in order.
    tasks: Vec<Task>,
    asked: Option<u64>,
    /// Whether the first task was sent before, with an outcome that is not known.
    unknown: bool,
    next_at: u64,
    pause_ms: u64,
    main: Vec<Partition>,
    made: u32,
    number: u32,
    next_value: u32,
}

impl Admin {
    /// First makes `topics`.
    pub fn new(number: u32, topics: Vec<NewTopic>, pause_ms: u64, prng: Prng) -> Admin {
        let main = topics.iter().flat_map(|(name, partitions, _)| (0..*partitions).map(|index| (name.clone(), index))).collect();
        let mut tasks: Vec<Task> =
            topics.into_iter().map(|(name, partitions, configs)| Task::Create { name, partitions, configs }).collect();
        tasks.reverse();
        Admin { prng, link: Link::new(), tasks, asked: None, unknown: false, next_at: 0, pause_ms, main, made: 0, number, next_value: 0 }
    }

    fn think(&mut self, shared: &Shared) {
        self.next_at = shared.now() + self.prng.below(2 * self.pause_ms * MS);
        if self.prng.one_in(2) {
            let at = self.prng.below(self.main.len() as u64) as usize;
            let partition = self.main[at].clone();
            let high = shared.high.get(&partition).copied().unwrap_or(0);
            let offset = self.prng.below(high as u64 + 1) as i64;
            self.tasks.push(Task::DeleteRecords { partition, offset });
        } else {
            self.made += 1;
            let (name, partitions) = (format!("churn-{}", self.made), 1 + self.prng.below(4) as i32);
            if !self.prng.one_in(4) {
                self.tasks.push(Task::Delete { name: name.clone() });
            }
            for _ in 0..self.prng.below(3) {
                let first = ValueId::new(self.number, self.next_value);
                self.next_value += 3;
                self.tasks.push(Task::Fill { name: name.clone(), first });
            }
            self.tasks.push(Task::Create { name, partitions, configs: Vec::new() });
        }
    }

    fn ask(&mut self, shared: &mut Shared) {
        let now = shared.now();
        match self.tasks.last().expect("the caller saw a task") {
            Task::Create { name, partitions, configs } => {
                let config =
                    |(name, value): &(String, String)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
                let topic = CreatableTopic::default()
                    .with_name(topic_name(name))
                    .with_num_partitions(*partitions)
                    .with_replication_factor(1)
                    .with_configs(configs.iter().map(config).collect());
                self.link.ask(now, CREATE, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000));
            }
            Task::Fill { name, first } => {
                let bytes = value::batch(*first, 3, 100, shared.world.wall(crate::cluster::NODE), None);
                let data = PartitionProduceData::default().with_index(0).with_records(Some(bytes.into()));
                let topic = TopicProduceData::default().with_name(topic_name(name)).with_partition_data(vec![data]);
                self.link.ask(now, PRODUCE, &ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]));
            }
            Task::Delete { name } => {
                let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
                self.link.ask(now, DELETE, &DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000));
            }
            Task::DeleteRecords { partition, offset } => {
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
        let (code, is_done) = match &task {
            Task::Create { name, .. } => {
                let code = decode::<CreateTopicsRequest>(frame, CREATE).topics.first().map_or(-1, |topic| topic.error_code);
                let is_done = code == 0 || (code == TOPIC_EXISTS && self.unknown);
                if is_done {
                    shared.history.push(Event::TopicMade { name: name.clone() });
                }
                (code, is_done)
            }
            Task::Fill { .. } => {
                let answer = decode::<ProduceRequest>(frame, PRODUCE);
                let code =
                    answer.responses.iter().flat_map(|topic| &topic.partition_responses).map(|part| part.error_code).next().unwrap_or(-1);
                (code, code == 0)
            }
            Task::Delete { name } => {
                let code = decode::<DeleteTopicsRequest>(frame, DELETE).responses.first().map_or(-1, |topic| topic.error_code);
                let is_done = code == 0 || (code == UNKNOWN_TOPIC && self.unknown);
                if code == UNKNOWN_TOPIC && !self.unknown {
                    shared.wrong(format!("{name} was made, and is not known when it is to be deleted"));
                }
                if is_done {
                    shared.history.push(Event::TopicGone { name: name.clone() });
                }
                (code, is_done)
            }
            Task::DeleteRecords { partition, offset } => {
                let answer = decode::<DeleteRecordsRequest>(frame, DELETE_RECORDS);
                let part = answer.topics.first().and_then(|topic| topic.partitions.first()).cloned().unwrap_or_default();
                if part.error_code == 0 {
                    if part.low_watermark < *offset {
                        shared.wrong(format!(
                            "{partition:?}: records below {offset} are deleted, and the log starts at {}",
                            part.low_watermark
                        ));
                    }
                    shared.history.push(Event::Deleted { span, partition: partition.clone(), log_start: part.low_watermark });
                }
                // Out of range: another one has deleted more, or the log is shorter than was seen, which its bounds will tell.
                (part.error_code, matches!(part.error_code, 0 | OUT_OF_RANGE))
            }
        };
        if is_done {
            self.tasks.pop();
            self.unknown = false;
            return;
        }
        self.unknown = true;
        self.next_at = shared.now() + 50 * MS;
        if !is_retriable(code) {
            shared.wrong(format!("{task:?} was answered {code}"));
            self.tasks.pop();
            self.unknown = false;
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
