//! From the time a record was due to its arrival at a consumer, at a fixed rate.
//!
//! 1. Record i is due at start + i / rate, whatever the server does. The sender sleeps until the next is due, then puts all that are due
//!    into one batch (so a batch of one while it keeps up). Each value begins with the run's mark and the record's number.
//! 2. When all requests in flight are used up, records wait; they still count from when they were due. So a stall of the server
//!    is seen by every record that it held up, not by one (no coordinated omission).
//! 3. A second thread takes the acknowledgements, a third is the consumer: one long poll after the other.
//!
//! Every record must arrive, once and in order, or the run fails.

use crate::connection::Connection;
use crate::failure::{Failure, Outcome};
use crate::fetch::{fetch_request, fetched, step_over};
use crate::histogram::Histogram;
use crate::produce::{check_answer, wall_ms};
use crate::report::Report;
use crate::topics::{End, offset};
use crate::window::Watch;
use crate::wire::{FETCH_VERSION, produce_request};
use millrace_base::batch::{Builder, Header, records};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// In front of each value: the run's mark and the record's number.
pub const VALUE_BYTES_MIN: usize = 16;

/// Records put into one batch at most, when the sender has fallen behind.
const BATCH_RECORDS_MAX: u64 = 1000;

const POLL_MS: i32 = 500;
const FETCH_BYTES_MAX: i32 = 4 << 20;
/// How long the last records may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(15);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    pub topic: String,
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
    let mut consumer = Connection::open(address)?;
    let from = offset(&mut consumer, &asked.topic, 0, End::Tail)?;
    let (sender, receiver) = Connection::open(address)?.split()?;
    let mark = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
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
            let taken = acknowledge(receiver, taken, warm_up);
            noted(taken.is_ok());
            taken
        });
        let consumed = consume(consumer, asked, clock, warm_up..total, (mark, from), &failed);
        noted(consumed.is_ok());
        let joined = "a worker does not panic";
        (sending.join().expect(joined), acknowledging.join().expect(joined), consumed)
    });
    let span = watch.stop()?;
    let late = sent?;
    let (requests, acknowledgements) = acknowledgements?;
    let bytes = total * asked.value_bytes as u64;
    let report = Report::new("end-to-end")
        .count("rate", asked.rate)
        .count("value_bytes", asked.value_bytes as u64)
        .figure("sender_late_max_ms", late.as_secs_f64() * 1e3)
        .figure("ack_p50_ms", acknowledgements.quantile(0.5).as_secs_f64() * 1e3)
        .figure("ack_p99_ms", acknowledgements.quantile(0.99).as_secs_f64() * 1e3);
    Ok(span.report(report, bytes, requests).latencies(&consumed?))
}

/// A request on its way: when its first record was due, and that record's number.
type OnItsWay = (Instant, u64);

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
    while next < total && !failed.load(Ordering::Relaxed) {
        let due = clock.due(next);
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
            late = late.max(due.elapsed());
        }
        // A full channel is the server's doing: it blocks here, and the records that come due meanwhile join the batch.
        if on_their_way.send((due, next)).is_err() {
            break; // the other thread has failed, and says why
        }
        let mut builder = Builder::new(wall_ms());
        let timestamp = wall_ms();
        let first = next;
        while next < total && next - first < BATCH_RECORDS_MAX && (next == first || clock.due(next) <= Instant::now()) {
            value[8..16].copy_from_slice(&next.to_be_bytes());
            builder.push(timestamp, None, Some(&value));
            next += 1;
        }
        let batch = builder.finish();
        connection.send_produce(&mut produce_request(&asked.topic, asked.acks, &[0], batch.len()), &[&batch])?;
    }
    Ok(late)
}

/// Takes acknowledgements until the sender is done; latencies from when a request's first record was due.
fn acknowledge(mut connection: Connection, on_their_way: Receiver<OnItsWay>, warm_up: u64) -> Outcome<(u64, Histogram)> {
    let (mut requests, mut latencies) = (0, Histogram::new());
    for (due, first) in on_their_way {
        check_answer(connection.receive()?, 1)?;
        requests += 1;
        if first >= warm_up {
            latencies.record(due.elapsed());
        }
    }
    Ok((requests, latencies))
}

fn consume(
    mut connection: Connection,
    asked: &Schedule,
    clock: Clock,
    counted: std::ops::Range<u64>,
    (mark, from): (u64, i64),
    failed: &AtomicBool,
) -> Outcome<Histogram> {
    let (mut next_offset, mut next) = (from, 0);
    let mut latencies = Histogram::new();
    let deadline = clock.due(counted.end) + ARRIVAL_MAX;
    while next < counted.end {
        if failed.load(Ordering::Relaxed) {
            return Ok(latencies);
        }
        if Instant::now() > deadline {
            return Err(Failure::Late { doing: "waiting for the last records", waited_s: ARRIVAL_MAX.as_secs() });
        }
        connection.send(&fetch_request(&asked.topic, 0, next_offset, FETCH_BYTES_MAX, POLL_MS), FETCH_VERSION)?;
        let answer = connection.receive()?;
        let now = Instant::now();
        let mut batches = &answer[fetched(answer)?.records];
        let (after, whole) = step_over(batches, next_offset, true)?;
        batches = &batches[..whole];
        next_offset = after;
        while let Ok(header) = Header::parse(batches) {
            for record in records(&batches[..header.size]) {
                let value = record.and_then(|record| record.value).unwrap_or_default();
                let number = numbered(value, mark).ok_or_else(|| Failure::wrong("consuming", "a record that this run did not send"))?;
                if number != next {
                    return Err(Failure::wrong("consuming", format!("record {number} where {next} is next")));
                }
                if counted.contains(&number) {
                    latencies.record(now.saturating_duration_since(clock.due(number)));
                }
                next += 1;
            }
            batches = &batches[header.size..];
        }
    }
    Ok(latencies)
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
        let mut value = vec![0; VALUE_BYTES_MIN];
        value[..8].copy_from_slice(&9u64.to_be_bytes());
        value[8..].copy_from_slice(&77u64.to_be_bytes());
        assert_eq!((numbered(&value, 9), numbered(&value, 8), numbered(&value[..15], 9)), (Some(77), None, None));
    }
}
