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
use crate::packing;
use crate::value::{self, Sequence, ValueId};
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use millrace_base::prng::Prng;
use std::collections::{BTreeMap, VecDeque};

/// The first version that names topics by id.
const BY_ID: i16 = 13;
const INIT: i16 = 4;

const OUT_OF_ORDER_SEQUENCE: i16 = 45;
/// Smaller than the smallest journal entry of a run.
const BATCH_BYTES_MAX: usize = 100_000;

/// What timestamps a producer gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// What the node's clock shows.
    Present,
    /// Of 1970.
    Past,
    /// Hours ahead of the clock.
    Future,
}

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct Style {
    pub idempotent: bool,
    pub in_flight_max: usize,
    pub records_max: u64,
    pub record_bytes_max: u64,
    /// Mean pause between batches.
    pub pause_ms: u64,
    /// -1: all; 1; 0: nothing is answered, nor sent again.
    pub acks: i16,
    /// Of Produce.
    pub version: i16,
    /// Batches are compressed with a codec drawn for each.
    pub compresses: bool,
    pub times: Times,
    /// One request in so many is the last of its connection, which goes without waiting for answers. 0: none is.
    pub breaks_one_in: u64,
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

impl Queue {
    fn new(partition: Partition) -> Queue {
        Queue { partition, next_sequence: 0, batches: VecDeque::new(), in_flight: 0, again_at: None }
    }
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
        let queues = partitions.into_iter().map(Queue::new).collect();
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
        let answer = decode::<ProduceRequest>(frame, self.style.version);
        let mut seen = 0;
        for topic in &answer.responses {
            for part in &topic.partition_responses {
                let of = |(queue, _): &&(usize, ValueId)| {
                    let (name, index) = &self.queues[*queue].partition;
                    let is_topic = if self.style.version >= BY_ID {
                        shared.topics.get(name).is_some_and(|known| known.topic_id == topic.topic_id)
                    } else {
                        **name == *topic.name.0
                    };
                    is_topic && *index == part.index
                };
                let Some((queue, first)) = parts.iter().find(of).copied() else {
                    shared.wrong(format!("a produce answer names {:?} {}, which was not asked", topic.name, part.index));
                    continue;
                };
                seen += 1;
                self.part_answered(shared, queue, first, part, span);
            }
        }
        if seen != parts.len() {
            shared.wrong(format!("a produce answer has {seen} of {} partitions", parts.len()));
        }
    }

    fn part_answered(&mut self, shared: &mut Shared, queue: usize, first: ValueId, part: &PartitionProduceResponse, span: Span) {
        let base = part.base_offset;
        let now = shared.now();
        let queue = &mut self.queues[queue];
        let partition = queue.partition.clone();
        queue.in_flight -= 1;
        let Some(at) = queue.batches.iter().position(|batch| batch.first == first) else { return };
        queue.batches[at].in_flight = false;
        match part.error_code {
            0 => {
                let batch = queue.batches.remove(at).expect("found above");
                self.acknowledged += 1;
                let (count, append_time) = (batch.count, part.log_append_time_ms);
                if (append_time >= 0) != shared.append_time.contains(&partition.0) {
                    shared.wrong(format!("{partition:?}: a produce was answered with the append time {append_time}"));
                }
                shared.acknowledged_to(&partition, base + i64::from(count));
                shared.history.push(Event::Acknowledged { span, partition, first, count, base, append_time });
            }
            OUT_OF_ORDER_SEQUENCE if at == 0 && queue.again_at.is_none() => {
                shared.history.push(Event::SequenceBroken { at: now, partition, first });
                queue.again_at = Some(now + 500 * MS);
            }
            OUT_OF_ORDER_SEQUENCE => queue.again_at = queue.again_at.or(Some(now)),
            code if is_retriable(code) => {
                shared.refused(&partition, code, part.error_message.as_deref().unwrap_or_default());
                queue.again_at = Some(now + 10 * MS + self.prng.below(40 * MS));
            }
            code => {
                shared.wrong(format!("{partition:?}: a produce of {first:?} was answered {code}"));
                queue.again_at = Some(now + 500 * MS);
            }
        }
    }

    /// A topic of ours may have grown; who writes to one partition alone stays there.
    fn find_new(&mut self, shared: &Shared) {
        if self.queues.len() < 2 || !self.prng.one_in(20) {
            return;
        }
        let at = self.prng.below(self.queues.len() as u64) as usize;
        let name = self.queues[at].partition.0.clone();
        let last = (name.clone(), shared.partitions.get(&name).copied().unwrap_or(0) - 1);
        if last.1 >= 0 && self.queues.iter().all(|queue| queue.partition != last) {
            self.queues.push(Queue::new(last));
        }
    }

    /// Makes a batch for some partition if it is time.
    fn make(&mut self, shared: &Shared) {
        let now = shared.now();
        if now < self.next_at || shared.finishing {
            return;
        }
        self.next_at = now + self.prng.below(2 * self.style.pause_ms * MS + 1);
        self.find_new(shared);
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
        let timestamp = match self.style.times {
            Times::Present => shared.world.wall(crate::cluster::NODE),
            Times::Past => 1_000 + self.prng.below(1_000_000) as i64,
            Times::Future => shared.world.wall(crate::cluster::NODE) + 5 * 3_600_000,
        };
        let codec = if self.style.compresses { self.prng.below(packing::CODECS) as u8 } else { 0 };
        let bytes = value::batch(first, count, len, timestamp, sequence, codec).into();
        queue.batches.push_back(Batch { first, count, bytes, attempts: 0, in_flight: false });
    }

    /// Sends one request with the next batch of every partition that has one; whether there was one.
    fn send(&mut self, shared: &mut Shared) -> bool {
        let now = shared.now();
        let mut topics: BTreeMap<String, Vec<PartitionProduceData>> = BTreeMap::new();
        let mut parts = Vec::new();
        let by_id = self.style.version >= BY_ID;
        for (at, queue) in self.queues.iter_mut().enumerate() {
            let (name, index) = &queue.partition;
            if (by_id && !shared.topics.contains_key(name)) || shared.partitions.get(name).is_none_or(|count| index >= count) {
                continue; // clients ask for metadata first
            }
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
            let bytes = batch.bytes.len();
            let data = PartitionProduceData::default().with_index(partition.1).with_records(Some(batch.bytes.clone()));
            topics.entry(partition.0.clone()).or_default().push(data);
            parts.push((at, first));
            let idempotent = self.style.idempotent;
            shared.history.push(Event::Sent { at: now, partition, first, count, attempt, idempotent, bytes });
        }
        if parts.is_empty() {
            return false;
        }
        let topic = |(name, data): (String, Vec<PartitionProduceData>)| {
            let topic = TopicProduceData::default().with_partition_data(data);
            if by_id { topic.with_topic_id(shared.topics[&name].topic_id) } else { topic.with_name(topic_name(&name)) }
        };
        let request = ProduceRequest::default()
            .with_acks(self.style.acks)
            .with_timeout_ms(10_000)
            .with_topic_data(topics.into_iter().map(topic).collect());
        if self.style.acks == 0 {
            shared.saw("batch without an answer");
            self.link.tell(self.style.version, &request);
            for (at, first) in parts {
                self.queues[at].in_flight -= 1;
                self.queues[at].batches.retain(|batch| batch.first != first);
            }
            return true;
        }
        let correlation = self.link.ask(now, self.style.version, &request);
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
            while self.link.in_flight() < self.style.in_flight_max && self.send(shared) {
                if self.style.breaks_one_in > 0 && self.prng.one_in(self.style.breaks_one_in) {
                    shared.saw("connection broken by its client");
                    self.link.break_off(&shared.world);
                    self.lost();
                    return self.link.wake();
                }
            }
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
