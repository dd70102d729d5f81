//! A producer: batches in order to a few partitions, several requests in flight, retries as real clients do.
//!
//! 1. Each partition has a queue of batches that are not answered for good. Those not in flight go out in order.
//! 2. After a retriable refusal a partition waits until nothing of it is in flight, and sends its whole queue again with the same sequences.
//! 3. After a loss of the connection everything not answered goes out again.
//!
//! Invariants: the first batch of a queue carries the first sequence that the broker has not acknowledged.

use super::link::{Came, Link, decode};
use super::{Client, MS, Shared, is_retriable, topic_name};
use crate::history::{Event, Partition, Span};
use crate::value::{self, Sequence, ValueId};
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use millrace_base::prng::Prng;
use std::collections::{BTreeMap, VecDeque};

const PRODUCE: i16 = 9;
const INIT: i16 = 4;

const OUT_OF_ORDER_SEQUENCE: i16 = 45;
/// Smaller than the smallest journal entry of a run.
const BATCH_BYTES_MAX: usize = 100_000;

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct Style {
    pub idempotent: bool,
    pub in_flight_max: usize,
    pub records_max: u64,
    pub record_bytes_max: u64,
    /// Mean pause between batches.
    pub pause_ms: u64,
    /// Requests with acks=1 instead of all.
    pub leader_only: bool,
}

struct Batch {
    first: ValueId,
    count: u32,
    bytes: Bytes,
    attempts: u32,
    in_flight: bool,
}

struct Queue {
    partition: Partition,
    next_sequence: i32,
    batches: VecDeque<Batch>,
    in_flight: usize,
    /// Refused: everything is sent again when nothing is in flight, and not before this time.
    again_at: Option<u64>,
}

pub struct Producer {
    number: u32,
    style: Style,
    prng: Prng,
    link: Link,
    queues: Vec<Queue>,
    next_value: u32,
    producer: Option<(i64, i16)>,
    asked_id: Option<i32>,
    /// By correlation: the queues and first values in the request, and when it went out.
    asked: BTreeMap<i32, (u64, Vec<(usize, ValueId)>)>,
    next_at: u64,
    acknowledged: u64,
}

impl Producer {
    pub fn new(number: u32, style: Style, partitions: Vec<Partition>, mut prng: Prng) -> Producer {
        let queue = |partition| Queue { partition, next_sequence: 0, batches: VecDeque::new(), in_flight: 0, again_at: None };
        let queues = partitions.into_iter().map(queue).collect();
        let next_at = prng.below(200 * MS);
        Producer {
            number,
            style,
            prng,
            link: Link::new(),
            queues,
            next_value: 0,
            producer: None,
            asked_id: None,
            asked: BTreeMap::new(),
            next_at,
            acknowledged: 0,
        }
    }

    /// Batches acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    fn lost(&mut self) {
        self.asked.clear();
        self.asked_id = None;
        for queue in &mut self.queues {
            queue.in_flight = 0;
            queue.again_at = None;
            queue.batches.iter_mut().for_each(|batch| batch.in_flight = false);
        }
    }

    fn answered(&mut self, shared: &mut Shared, correlation: i32, frame: &Bytes) {
        if self.asked_id == Some(correlation) {
            self.asked_id = None;
            let answer = decode::<InitProducerIdRequest>(frame, INIT);
            if answer.error_code == 0 {
                if !shared.producer_ids.insert(answer.producer_id.0) {
                    shared.wrong(format!("producer id {} was given twice", answer.producer_id.0));
                }
                self.producer = Some((answer.producer_id.0, answer.producer_epoch));
            } else {
                if !is_retriable(answer.error_code) {
                    shared.wrong(format!("InitProducerId was answered {}", answer.error_code));
                }
                self.next_at = shared.now() + 20 * MS;
            }
            return;
        }
        let Some((invoked, parts)) = self.asked.remove(&correlation) else { return };
        let span = Span { invoked, completed: shared.now() };
        let answer = decode::<ProduceRequest>(frame, PRODUCE);
        let mut seen = 0;
        for topic in &answer.responses {
            for part in &topic.partition_responses {
                let of = |(queue, _): &&(usize, ValueId)| {
                    let (name, index) = &self.queues[*queue].partition;
                    **name == *topic.name.0 && *index == part.index
                };
                let Some((queue, first)) = parts.iter().find(of).copied() else {
                    shared.wrong(format!("a produce answer names {} {}, which was not asked", &*topic.name.0, part.index));
                    continue;
                };
                seen += 1;
                self.part_answered(shared, queue, first, part.error_code, part.base_offset, span);
            }
        }
        if seen != parts.len() {
            shared.wrong(format!("a produce answer has {seen} of {} partitions", parts.len()));
        }
    }

    fn part_answered(&mut self, shared: &mut Shared, queue: usize, first: ValueId, code: i16, base: i64, span: Span) {
        let now = shared.now();
        let queue = &mut self.queues[queue];
        let partition = queue.partition.clone();
        queue.in_flight -= 1;
        let Some(at) = queue.batches.iter().position(|batch| batch.first == first) else { return };
        queue.batches[at].in_flight = false;
        match code {
            0 => {
                let batch = queue.batches.remove(at).expect("found above");
                self.acknowledged += 1;
                shared.history.push(Event::Acknowledged { span, partition, first, count: batch.count, base });
            }
            OUT_OF_ORDER_SEQUENCE if at == 0 && queue.again_at.is_none() => {
                shared.history.push(Event::SequenceBroken { at: now, partition, first });
                queue.again_at = Some(now + 500 * MS);
            }
            OUT_OF_ORDER_SEQUENCE => queue.again_at = queue.again_at.or(Some(now)),
            code if is_retriable(code) => queue.again_at = Some(now + 10 * MS + self.prng.below(40 * MS)),
            code => {
                shared.wrong(format!("{partition:?}: a produce of {first:?} was answered {code}"));
                queue.again_at = Some(now + 500 * MS);
            }
        }
    }

    /// Makes a batch for some partition if it is time.
    fn make(&mut self, shared: &Shared) {
        let now = shared.now();
        if now < self.next_at || shared.finishing {
            return;
        }
        self.next_at = now + self.prng.below(2 * self.style.pause_ms * MS + 1);
        let at = self.prng.below(self.queues.len() as u64) as usize;
        if self.queues[at].batches.len() >= 5 {
            return;
        }
        let count = 1 + self.prng.below(self.style.records_max) as u32;
        let len = (8 + self.prng.below(self.style.record_bytes_max) as usize).min(BATCH_BYTES_MAX / count as usize);
        let first = ValueId::new(self.number, self.next_value);
        self.next_value += count;
        let queue = &mut self.queues[at];
        let sequence = self.producer.map(|(producer_id, epoch)| Sequence { producer_id, epoch, first: queue.next_sequence });
        queue.next_sequence += count as i32;
        let timestamp = shared.world.wall(crate::cluster::NODE);
        let bytes = value::batch(first, count, len, timestamp, sequence).into();
        queue.batches.push_back(Batch { first, count, bytes, attempts: 0, in_flight: false });
    }

    /// Sends one request with the next batch of every partition that has one; whether there was one.
    fn send(&mut self, shared: &mut Shared) -> bool {
        let now = shared.now();
        let mut topics: BTreeMap<String, Vec<PartitionProduceData>> = BTreeMap::new();
        let mut parts = Vec::new();
        for (at, queue) in self.queues.iter_mut().enumerate() {
            match queue.again_at {
                Some(_) if queue.in_flight > 0 => continue,
                Some(time) if time > now => continue,
                Some(_) | None => queue.again_at = None,
            }
            // Behind one that is in flight, but never one before it.
            let last = queue.batches.iter().rposition(|batch| batch.in_flight).map_or(0, |last| last + 1);
            let Some(batch) = queue.batches.get_mut(last) else { continue };
            batch.in_flight = true;
            batch.attempts += 1;
            queue.in_flight += 1;
            let (partition, first, count, attempt) = (queue.partition.clone(), batch.first, batch.count, batch.attempts);
            let data = PartitionProduceData::default().with_index(partition.1).with_records(Some(batch.bytes.clone()));
            topics.entry(partition.0.clone()).or_default().push(data);
            parts.push((at, first));
            let idempotent = self.style.idempotent;
            shared.history.push(Event::Sent { at: now, partition, first, count, attempt, idempotent });
        }
        if parts.is_empty() {
            return false;
        }
        let topic = |(name, data): (String, Vec<PartitionProduceData>)| {
            TopicProduceData::default().with_name(topic_name(&name)).with_partition_data(data)
        };
        let request = ProduceRequest::default()
            .with_acks(if self.style.leader_only { 1 } else { -1 })
            .with_timeout_ms(10_000)
            .with_topic_data(topics.into_iter().map(topic).collect());
        let correlation = self.link.ask(now, PRODUCE, &request);
        self.asked.insert(correlation, (now, parts));
        true
    }
}

impl Client for Producer {
    fn step(&mut self, shared: &mut Shared) -> u64 {
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
            Came::Answers(answers) => {
                for (correlation, frame) in answers {
                    self.answered(shared, correlation, &frame);
                }
            }
        }
        let now = shared.now();
        if self.style.idempotent && self.producer.is_none() {
            if self.asked_id.is_none() && now >= self.next_at && !shared.finishing {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(60_000)
                    .with_producer_id(ProducerId(-1))
                    .with_producer_epoch(-1);
                self.asked_id = Some(self.link.ask(now, INIT, &request));
            }
        } else {
            self.make(shared);
            while self.link.in_flight() < self.style.in_flight_max && self.send(shared) {}
        }
        if let Came::Lost = self.link.look(&shared.world) {
            self.lost();
        }
        let again = self.queues.iter().filter(|queue| queue.in_flight == 0).filter_map(|queue| queue.again_at).min().unwrap_or(u64::MAX);
        let next = if shared.finishing || (self.style.idempotent && self.asked_id.is_some()) { u64::MAX } else { self.next_at };
        again.min(next).min(self.link.wake())
    }

    fn is_done(&self) -> bool {
        self.queues.iter().all(|queue| queue.batches.is_empty())
    }

    fn state(&self) -> String {
        let queues: Vec<String> = self
            .queues
            .iter()
            .map(|queue| {
                format!("{:?} {} batches, {} in flight, again {:?}", queue.partition, queue.batches.len(), queue.in_flight, queue.again_at)
            })
            .collect();
        format!("producer {}: up {}, {} requests in flight; {}", self.number, self.link.is_up(), self.link.in_flight(), queues.join("; "))
    }
}
