//! The records of one node's partitions: one thread sends them when they are due, one takes the acknowledgements.
//!
//! The channel between the two holds what is on its way. When it is full the sender waits, and what comes due meanwhile goes with the next
//! request: its latency counts from when it was due all the same.
//!
//! Invariants: acknowledgements are taken in the order of requests; every record is acknowledged or the run fails.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use millrace_base::batch::Builder;
use millrace_base::prng::Prng;

use super::Progress;
use crate::arguments::now_ms;
use crate::client::topic_name;
use crate::connection::Connection;
use crate::failure::{Failure, Outcome};

/// Later versions name topics by id.
const PRODUCE_NEWEST: i16 = 12;
/// Put into one request at most when the sender has fallen behind: records, and bytes of their values.
const REQUEST_RECORDS_MAX: u64 = 10_000;
const REQUEST_BYTES_MAX: usize = 512 << 10;
/// A broker that cannot keep up is not waited for without end: no record is sent that late.
const LATE_MAX: Duration = Duration::from_secs(30);
const TIMEOUT_MS: i32 = 30_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    pub topic: String,
    /// Of all nodes together.
    pub partitions: u64,
    pub rate: u64,
    pub value_bytes: usize,
    pub in_flight: usize,
    pub acks: i16,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// When each record is due.
#[derive(Clone, Copy)]
pub struct Clock {
    pub start: Instant,
    pub rate: u64,
}

impl Clock {
    fn due(self, number: u64) -> Instant {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A node and the partitions that it leads, in order.
pub struct Node {
    pub connection: Connection,
    pub partitions: Vec<i32>,
}

/// What one node has acknowledged of the records that count.
pub struct Sent {
    pub latencies: Histogram,
    pub records: u64,
    pub requests: u64,
    /// From the end of the warm-up to the last acknowledgement.
    pub last: Duration,
    /// By how much a record with nothing in its way went out late at most.
    pub late: Duration,
}

/// The number of the `at`-th record of these partitions, among those of all.
fn number(at: u64, partitions: &[i32], all: u64) -> u64 {
    let count = partitions.len() as u64;
    let within = usize::try_from(at % count).unwrap_or(0);
    at / count * all + u64::try_from(partitions[within]).unwrap_or(0)
}

/// How many of the records below `total` belong to these partitions.
fn share(total: u64, partitions: &[i32], all: u64) -> u64 {
    let rest = partitions.iter().filter(|partition| u64::try_from(**partition).is_ok_and(|partition| partition < total % all)).count();
    total / all * partitions.len() as u64 + rest as u64
}

/// # Errors
/// The node refuses a record, or is lost.
pub fn run(node: Node, asked: &Schedule, clock: Clock, progress: &Progress) -> Outcome<Sent> {
    let records_in = |time: Duration| u64::try_from(time.as_nanos() * u128::from(asked.rate) / 1_000_000_000).unwrap_or(u64::MAX);
    let warm_up = records_in(asked.warm_up);
    let total = share(warm_up + records_in(asked.measured), &node.partitions, asked.partitions);
    let version = node.connection.version::<ProduceRequest>(PRODUCE_NEWEST)?;
    let (sender, receiver) = node.connection.split()?;
    // One more is on its way than the channel holds: the one whose answer is awaited.
    let (on_their_way, taken) = sync_channel(asked.in_flight - 1);
    let load = Load { asked, clock, partitions: &node.partitions, total, warm_up, version, progress };
    let noted = |failed: bool| progress.failed.fetch_or(failed, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = load.send(sender, on_their_way);
            noted(sent.is_err());
            sent
        });
        let acknowledged = load.acknowledge(receiver, taken);
        noted(acknowledged.is_err());
        let sent = sending.join().expect("the sender does not panic");
        // Whoever failed first made the other end; a refusal says more than a lost connection.
        let acknowledged = acknowledged?;
        Ok(Sent { late: sent?, ..acknowledged })
    })
}

struct Load<'a> {
    asked: &'a Schedule,
    clock: Clock,
    partitions: &'a [i32],
    /// Records of these partitions.
    total: u64,
    /// Records of all partitions that do not count.
    warm_up: u64,
    version: i16,
    progress: &'a Progress,
}

impl Load<'_> {
    fn due(&self, at: u64) -> Instant {
        self.clock.due(number(at, self.partitions, self.asked.partitions))
    }

    fn send(&self, mut connection: Connection, on_their_way: SyncSender<Range<u64>>) -> Outcome<Duration> {
        let mut value = vec![0; self.asked.value_bytes];
        // Noise: a codec or a device that compresses gains nothing.
        let mut noise = Prng::new(self.asked.value_bytes as u64);
        value.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&noise.next_u64().to_be_bytes()[..chunk.len()]));
        let most = REQUEST_RECORDS_MAX.min((REQUEST_BYTES_MAX / self.asked.value_bytes.max(1)).max(1) as u64);
        let mut late = Duration::ZERO;
        let mut next = 0;
        while next < self.total && !self.progress.failed.load(Ordering::Relaxed) && !self.progress.stop.is_asked() {
            let due = self.due(next);
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait);
                late = late.max(due.elapsed());
            } else if due.elapsed() > LATE_MAX {
                break;
            }
            let first = next;
            let now = Instant::now();
            while next < self.total && next - first < most && (next == first || self.due(next) <= now) {
                next += 1;
            }
            let request = self.request(first..next, &value);
            // A full channel is the broker's doing.
            if on_their_way.send(first..next).is_err() {
                break; // the other thread has failed, and says why
            }
            connection.send(&request, self.version)?;
        }
        Ok(late)
    }

    fn request(&self, records: Range<u64>, value: &[u8]) -> ProduceRequest {
        let timestamp = now_ms();
        let mut builders: Vec<Option<Builder>> = self.partitions.iter().map(|_| None).collect();
        for at in records {
            let within = usize::try_from(at % self.partitions.len() as u64).unwrap_or(0);
            builders[within].get_or_insert_with(|| Builder::new(timestamp)).push(timestamp, None, Some(value));
        }
        let batch = |(partition, builder): (&i32, Option<Builder>)| {
            let batch = builder?.finish();
            Some(PartitionProduceData::default().with_index(*partition).with_records(Some(batch.into())))
        };
        let data = self.partitions.iter().zip(builders).filter_map(batch).collect();
        let topic = TopicProduceData::default().with_name(topic_name(&self.asked.topic)).with_partition_data(data);
        ProduceRequest::default().with_acks(self.asked.acks).with_timeout_ms(TIMEOUT_MS).with_topic_data(vec![topic])
    }

    fn acknowledge(&self, mut connection: Connection, on_their_way: Receiver<Range<u64>>) -> Outcome<Sent> {
        let counts_from = self.clock.due(self.warm_up);
        let mut sent = Sent { latencies: Histogram::new(), records: 0, requests: 0, last: Duration::ZERO, late: Duration::ZERO };
        for records in on_their_way {
            let answer = connection.receive::<ProduceRequest>(self.version)?;
            for topic in &answer.responses {
                for found in &topic.partition_responses {
                    Failure::check(&format!("{}-{}", self.asked.topic, found.index), found.error_code, found.error_message.as_deref())?;
                }
            }
            let now = Instant::now();
            self.progress.acknowledged.fetch_add(records.end - records.start, Ordering::Relaxed);
            let before = sent.records;
            for at in records {
                let due = self.due(at);
                if due >= counts_from {
                    sent.latencies.record(now.saturating_duration_since(due));
                    sent.records += 1;
                }
            }
            if sent.records > before {
                sent.requests += 1;
                sent.last = now.saturating_duration_since(counts_from);
            }
        }
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_share_all_records_and_each_has_one_of_them() {
        let nodes: [&[i32]; 3] = [&[0, 3], &[1], &[2, 4]];
        for total in 0..23 {
            let mut found: Vec<u64> = Vec::new();
            for partitions in nodes {
                let count = share(total, partitions, 5);
                let mut last = None;
                for at in 0..count {
                    let number = number(at, partitions, 5);
                    assert!(last.is_none_or(|last| last < number), "they come due in order");
                    last = Some(number);
                    found.push(number);
                }
            }
            found.sort_unstable();
            assert_eq!(found, (0..total).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn records_are_due_at_the_rate() {
        let clock = Clock { start: Instant::now(), rate: 400 };
        assert_eq!(clock.due(400) - clock.start, Duration::from_secs(1));
        assert_eq!(clock.due(1) - clock.start, Duration::from_micros(2500));
    }
}
