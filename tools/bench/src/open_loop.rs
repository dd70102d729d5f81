//! Records at a fixed rate: how long until each is acknowledged, and until its consumer has it.
//!
//! 1. Record i is due at start + i / rate, whatever the server does, for partition i mod partitions. The sender sleeps until the next is due,
//!    then puts all that are due into one request, a batch for each partition (so a batch of one while it keeps up).
//! 2. When all requests in flight are used up, records wait; they still count from when they were due. So a stall of the server
//!    is seen by every record that it held up, not by one (no coordinated omission).
//! 3. A second thread takes the acknowledgements. With `consume` a third reads all partitions, one long poll after the other; each value
//!    begins with the run's mark and the record's number.
//!
//! Every record must be acknowledged, and read once and in its partition's order, or the run fails.

use crate::connection::Connection;
use crate::failure::{Failure, Outcome};
use crate::fetch::{fetch_request, fetched, step_over};
use crate::produce::{check_answer, wall_ms};
use crate::report::Report;
use crate::topics::{End, offset};
use crate::window::Watch;
use crate::wire::{FETCH_VERSION, produce_request};
use millrace_base::batch::{Builder, Header, records};
use millrace_ops::histogram::Histogram;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// In front of each value: the run's mark and the record's number.
pub const VALUE_BYTES_MIN: usize = 16;

/// Records put into one request at most, when the sender has fallen behind.
const REQUEST_RECORDS_MAX: u64 = 1000;

const POLL_MS: i32 = 500;
const FETCH_BYTES_MAX: i32 = 4 << 20;
/// How long the last records may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(15);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    pub topic: String,
    pub partitions: u32,
    /// Whether a consumer reads along.
    pub consume: bool,
    pub rate: u64,
    pub value_bytes: usize,
    pub in_flight: usize,
    pub acks: i16,
    pub warm_up: Duration,
    pub measured: Duration,
    pub server: Option<u32>,
}

/// When each record is due.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    rate: u64,
}

impl Clock {
    fn due(self, number: u64) -> Instant {
        self.start + Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(self.rate)) as u64)
    }
}

pub fn run(asked: &Schedule, address: SocketAddr) -> Outcome<Report> {
    let records_in = |time: Duration| (time.as_nanos() * u128::from(asked.rate) / 1_000_000_000) as u64;
    let warm_up = records_in(asked.warm_up);
    let total = warm_up + records_in(asked.measured);
    let mark = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let consumer = if asked.consume { Some(Consumer::new(asked, address, mark)?) } else { None };
    let (sender, receiver) = Connection::open(address)?.split()?;
    let clock = Clock { start: Instant::now() + Duration::from_millis(100), rate: asked.rate };
    let failed = AtomicBool::new(false);
    // One more is on its way than the channel holds: the one whose answer is awaited.
    let (acknowledged, taken) = sync_channel(asked.in_flight - 1);
    let watch = Watch::start(asked.server)?;
    let noted = |succeeded: bool| failed.fetch_or(!succeeded, Ordering::Relaxed);
    let (sent, acknowledgements, consumed) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = send(sender, asked, clock, total, mark, acknowledged, &failed);
            noted(sent.is_ok());
            sent
        });
        let acknowledging = scope.spawn(|| {
            let taken = acknowledge(receiver, taken, clock, warm_up);
            noted(taken.is_ok());
            taken
        });
        let consumed = consumer.map(|consumer| {
            let consumed = consumer.run(clock, warm_up..total, &failed);
            noted(consumed.is_ok());
            consumed
        });
        let joined = "a worker does not panic";
        (sending.join().expect(joined), acknowledging.join().expect(joined), consumed.transpose())
    });
    let span = watch.stop()?;
    let late = sent?;
    let (requests, acknowledgements) = acknowledgements?;
    let bytes = total * asked.value_bytes as u64;
    let report = Report::new(if asked.consume { "end-to-end" } else { "open-loop" })
        .count("rate", asked.rate)
        .count("partitions", asked.partitions.into())
        .count("value_bytes", asked.value_bytes as u64)
        .figure("sender_late_max_ms", late.as_secs_f64() * 1e3);
    let report = span.report(report, bytes, requests);
    let Some(consumed) = consumed? else { return Ok(report.latencies(&acknowledgements)) };
    let ms = |share| acknowledgements.quantile(share).as_secs_f64() * 1e3;
    let report = report.figure("ack_p50_ms", ms(0.5)).figure("ack_p99_ms", ms(0.99)).figure("ack_p999_ms", ms(0.999));
    Ok(report.latencies(&consumed))
}

/// A request on its way: the numbers of its records, and how many partitions it names.
struct OnItsWay {
    records: Range<u64>,
    partitions: usize,
}

/// Sends all records; gives the longest time by which a record with nothing in its way went out late.
fn send(
    mut connection: Connection,
    asked: &Schedule,
    clock: Clock,
    total: u64,
    mark: u64,
    on_their_way: SyncSender<OnItsWay>,
    failed: &AtomicBool,
) -> Outcome<Duration> {
    let mut value = vec![0x5a; asked.value_bytes];
    value[..8].copy_from_slice(&mark.to_be_bytes());
    let mut late = Duration::ZERO;
    let mut next = 0;
    // For each partition, and those of them that have a record now.
    let mut builders: Vec<Option<Builder>> = (0..asked.partitions).map(|_| None).collect();
    let mut touched: Vec<usize> = Vec::new();
    while next < total && !failed.load(Ordering::Relaxed) {
        let due = clock.due(next);
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
            late = late.max(due.elapsed());
        }
        let first = next;
        let timestamp = wall_ms();
        let now = Instant::now();
        while next < total && next - first < REQUEST_RECORDS_MAX && (next == first || clock.due(next) <= now) {
            let partition = (next % u64::from(asked.partitions)) as usize;
            let builder = builders[partition].get_or_insert_with(|| {
                touched.push(partition);
                Builder::new(timestamp)
            });
            value[8..16].copy_from_slice(&next.to_be_bytes());
            builder.push(timestamp, None, Some(&value));
            next += 1;
        }
        let taken =
            touched.drain(..).filter_map(|partition| builders[partition].take().map(|builder| (partition as i32, builder.finish())));
        let batches: Vec<(i32, Vec<u8>)> = taken.collect();
        let parts: Vec<(i32, usize)> = batches.iter().map(|(partition, batch)| (*partition, batch.len())).collect();
        let bytes: Vec<&[u8]> = batches.iter().map(|(_, batch)| batch.as_slice()).collect();
        // A full channel is the server's doing: it blocks here, and what comes due meanwhile goes with the next request.
        if on_their_way.send(OnItsWay { records: first..next, partitions: parts.len() }).is_err() {
            break; // the other thread has failed, and says why
        }
        connection.send_produce(&mut produce_request(&asked.topic, asked.acks, &parts), &bytes)?;
    }
    Ok(late)
}

/// Takes acknowledgements until the sender is done; a latency for each record, from when it was due.
fn acknowledge(mut connection: Connection, on_their_way: Receiver<OnItsWay>, clock: Clock, warm_up: u64) -> Outcome<(u64, Histogram)> {
    let (mut requests, mut latencies) = (0, Histogram::new());
    for sent in on_their_way {
        check_answer(connection.receive()?, sent.partitions)?;
        let now = Instant::now();
        requests += 1;
        for number in sent.records.start.max(warm_up)..sent.records.end {
            latencies.record(now.saturating_duration_since(clock.due(number)));
        }
    }
    Ok((requests, latencies))
}

struct Consumer {
    connection: Connection,
    topic: String,
    mark: u64,
    parts: Vec<Part>,
}

/// How far one partition has been read.
struct Part {
    next_offset: i64,
    /// The number that its next record bears.
    next: u64,
}

impl Consumer {
    /// A consumer that begins where each partition ends now.
    fn new(asked: &Schedule, address: SocketAddr, mark: u64) -> Outcome<Consumer> {
        let mut connection = Connection::open(address)?;
        let mut part = |partition: u32| {
            let next_offset = offset(&mut connection, &asked.topic, partition as i32, End::Tail)?;
            Ok(Part { next_offset, next: partition.into() })
        };
        let parts = (0..asked.partitions).map(&mut part).collect::<Outcome<_>>()?;
        Ok(Consumer { connection, topic: asked.topic.clone(), mark, parts })
    }

    /// Reads until every record up to the end of `counted` has come; those below its start do not count.
    fn run(mut self, clock: Clock, counted: Range<u64>, failed: &AtomicBool) -> Outcome<Histogram> {
        let mut latencies = Histogram::new();
        let deadline = clock.due(counted.end) + ARRIVAL_MAX;
        let mut left = counted.end;
        while left > 0 && !failed.load(Ordering::Relaxed) {
            if Instant::now() > deadline {
                return Err(Failure::Late { doing: "waiting for the last records", waited_s: ARRIVAL_MAX.as_secs() });
            }
            let from = (0..).zip(&self.parts).map(|(partition, part)| (partition, part.next_offset));
            self.connection.send(&fetch_request(&self.topic, from, FETCH_BYTES_MAX, POLL_MS), FETCH_VERSION)?;
            let answer = self.connection.receive()?;
            let now = Instant::now();
            let steps = self.parts.len() as u64;
            for (partition, range) in fetched(answer)? {
                let part = usize::try_from(partition).ok().and_then(|partition| self.parts.get_mut(partition));
                let part = part.ok_or_else(|| Failure::wrong("consuming", format!("partition {partition}, which was not asked for")))?;
                let batches = &answer[range];
                let numbers = part.take(batches, self.mark, steps)?;
                left = left.saturating_sub(numbers.len() as u64);
                for number in numbers.into_iter().filter(|number| counted.contains(number)) {
                    latencies.record(now.saturating_duration_since(clock.due(number)));
                }
            }
        }
        Ok(latencies)
    }
}

impl Part {
    /// The numbers of the records in `batches`, which must go on where the partition was; from one to the next are `steps`.
    fn take(&mut self, batches: &[u8], mark: u64, steps: u64) -> Outcome<Vec<u64>> {
        let (after, whole) = step_over(batches, self.next_offset, true)?;
        let mut batches = &batches[..whole];
        self.next_offset = after;
        let mut numbers = Vec::new();
        while let Ok(header) = Header::parse(batches) {
            for record in records(&batches[..header.size]) {
                let value = record.and_then(|record| record.value).unwrap_or_default();
                let number = numbered(value, mark).ok_or_else(|| Failure::wrong("consuming", "a record that this run did not send"))?;
                if number != self.next {
                    return Err(Failure::wrong("consuming", format!("record {number} where {} is next", self.next)));
                }
                numbers.push(number);
                self.next += steps;
            }
            batches = &batches[header.size..];
        }
        Ok(numbers)
    }
}

/// The number of a record with this mark.
fn numbered(value: &[u8], mark: u64) -> Option<u64> {
    let (front, rest) = value.split_first_chunk::<8>()?;
    let number = rest.first_chunk::<8>()?;
    (u64::from_be_bytes(*front) == mark).then(|| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_even_steps_that_do_not_drift() {
        let clock = Clock { start: Instant::now(), rate: 3 };
        assert_eq!(clock.due(3_000_000) - clock.start, Duration::from_secs(1_000_000));
        assert_eq!(clock.due(1) - clock.start, Duration::from_nanos(333_333_333));
    }

    #[test]
    fn only_records_of_this_run_count() {
        let value = numbered_value(77, 9);
        assert_eq!((numbered(&value, 9), numbered(&value, 8), numbered(&value[..15], 9)), (Some(77), None, None));
    }

    fn numbered_value(number: u64, mark: u64) -> Vec<u8> {
        [mark.to_be_bytes(), number.to_be_bytes()].concat()
    }

    fn batch(numbers: &[u64]) -> Vec<u8> {
        let mut builder = Builder::new(0);
        numbers.iter().for_each(|number| builder.push(0, None, Some(&numbered_value(*number, 9))));
        builder.finish()
    }

    #[test]
    fn a_partition_gets_every_nth_record_in_order_or_the_run_fails() {
        let part = || Part { next_offset: 0, next: 2 };
        let mut reading = part();
        assert_eq!(reading.take(&batch(&[2, 5, 8]), 9, 3).unwrap(), [2, 5, 8]);
        assert_eq!((reading.next_offset, reading.next), (3, 11));
        assert!(part().take(&batch(&[5]), 9, 3).is_err(), "one is missing");
        assert!(part().take(&batch(&[2, 2]), 9, 3).is_err(), "one comes twice");
        assert!(part().take(&batch(&[2]), 8, 3).is_err(), "of another run");
    }
}
