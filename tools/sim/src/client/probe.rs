//! While one data directory fails: writes to every partition of the others, each of which must be done.
//!
//! 1. Before anything fails it asks where the partitions lie.
//! 2. Then it writes a batch to each that lies elsewhere, one request a partition, again and again until it is acknowledged.
//! 3. What is not acknowledged by the end is told to the history.

use super::link::{Came, Link, decode};
use super::{Client, MS, Shared, is_retriable, text, topic_name};
use crate::history::{Event, Partition, Span};
use crate::value::{self, ValueId};
use bytes::Bytes;
use kafka_protocol::messages::DescribeLogDirsRequest;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use std::collections::VecDeque;

const LOG_DIRS: i16 = 4;
const PRODUCE: i16 = 9;
const RECORDS: u32 = 2;

pub struct Probe {
    link: Link,
    number: u32,
    /// The path of the data directory that is to fail.
    failing: String,
    partitions: Vec<Partition>,
    beside: Option<VecDeque<Partition>>,
    /// Whether writing may begin.
    goes: bool,
    asked: Option<u64>,
    attempt: u32,
    next_value: u32,
    next_at: u64,
    done: u64,
}

impl Probe {
    pub fn new(number: u32, failing: String, partitions: Vec<Partition>, next_value: u32) -> Probe {
        Probe {
            link: Link::new(),
            number,
            failing,
            partitions,
            beside: None,
            goes: false,
            asked: None,
            attempt: 0,
            next_value,
            next_at: 0,
            done: 0,
        }
    }

    /// Whether it knows where the partitions lie.
    pub fn knows(&self) -> bool {
        self.beside.is_some()
    }

    pub fn go(&mut self) {
        self.goes = true;
    }

    /// Tells what is not done; the first value number that no batch has.
    pub fn end(self, shared: &mut Shared) -> u32 {
        for partition in self.beside.into_iter().flatten() {
            shared.history.push(Event::Beside { partition, what: "a write".to_owned(), is_done: false });
        }
        self.next_value + RECORDS
    }

    fn ask(&mut self, shared: &mut Shared) {
        let now = shared.now();
        let Some(beside) = &self.beside else {
            let topics = self
                .partitions
                .iter()
                .map(|(name, index)| DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(vec![*index]));
            self.link.ask(now, LOG_DIRS, &DescribeLogDirsRequest::default().with_topics(Some(topics.collect())));
            self.asked = Some(now);
            return;
        };
        let Some(partition) = beside.front().filter(|_| self.goes).cloned() else {
            self.next_at = now + 20 * MS;
            return;
        };
        let first = ValueId::new(self.number, self.next_value);
        self.attempt += 1;
        let bytes = value::batch(first, RECORDS, 50, shared.world.wall(crate::cluster::NODE), None, 0);
        let size = bytes.len();
        let data = PartitionProduceData::default().with_index(partition.1).with_records(Some(bytes.into()));
        let topic = TopicProduceData::default().with_name(topic_name(&partition.0)).with_partition_data(vec![data]);
        self.link.ask(now, PRODUCE, &ProduceRequest::default().with_acks(-1).with_timeout_ms(2_000).with_topic_data(vec![topic]));
        let attempt = self.attempt;
        shared.history.push(Event::Sent { at: now, partition, first, count: RECORDS, attempt, idempotent: false, bytes: size });
        self.asked = Some(now);
    }

    fn answered(&mut self, shared: &mut Shared, frame: &Bytes) {
        let Some(invoked) = self.asked.take() else { return };
        let Some(beside) = &mut self.beside else {
            let answer = decode::<DescribeLogDirsRequest>(frame, LOG_DIRS);
            let elsewhere = answer.results.iter().filter(|result| result.log_dir != text(&self.failing));
            let of = |topic: &kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsTopic| -> Vec<Partition> {
                topic.partitions.iter().map(|part| (topic.name.0.to_string(), part.partition_index)).collect()
            };
            let found: Vec<Partition> = elsewhere.flat_map(|result| result.topics.iter().flat_map(of)).collect();
            self.beside = Some(self.partitions.iter().filter(|partition| found.contains(partition)).cloned().collect());
            return;
        };
        let answer = decode::<ProduceRequest>(frame, PRODUCE);
        let part = answer.responses.first().and_then(|topic| topic.partition_responses.first()).cloned().unwrap_or_default();
        if part.error_code != 0 {
            if !is_retriable(part.error_code) {
                shared.wrong(format!("a write beside a failing data directory was answered {}", part.error_code));
            }
            self.next_at = shared.now() + 50 * MS;
            return;
        }
        let Some(partition) = beside.pop_front() else { return };
        let (span, first) = (Span { invoked, completed: shared.now() }, ValueId::new(self.number, self.next_value));
        let (base, append_time) = (part.base_offset, part.log_append_time_ms);
        shared.saw("write beside a failing data directory");
        shared.acknowledged_to(&partition, base + i64::from(RECORDS));
        shared.history.push(Event::Beside { partition: partition.clone(), what: "a write".to_owned(), is_done: true });
        shared.history.push(Event::Acknowledged { span, partition, first, count: RECORDS, base, append_time });
        self.next_value += RECORDS;
        self.attempt = 0;
        self.done += 1;
    }
}

impl Client for Probe {
    fn step(&mut self, shared: &mut Shared) -> u64 {
        if !self.link.connect(&shared.world) {
            return self.link.wake();
        }
        match self.link.look(&shared.world) {
            Came::Lost => {
                self.asked = None;
                return self.link.wake();
            }
            Came::Answers(answers) => answers.iter().for_each(|(_, frame)| self.answered(shared, frame)),
        }
        if self.asked.is_none() && shared.now() >= self.next_at && !self.is_done() {
            self.ask(shared);
            if let Came::Lost = self.link.look(&shared.world) {
                self.asked = None;
            }
        }
        if self.asked.is_some() || self.is_done() { self.link.wake() } else { self.next_at.min(self.link.wake()) }
    }

    fn is_done(&self) -> bool {
        self.beside.as_ref().is_some_and(VecDeque::is_empty)
    }

    fn state(&self) -> String {
        format!("probe: up {}, {} writes done, left {:?}", self.link.is_up(), self.done, self.beside)
    }
}
