//! Reading: connections that go through their partitions from the first to the last offset, again and again.
//!
//! 1. The ends of each partition are asked for once, before the clock runs.
//! 2. A connection asks, takes the whole answer into memory that it uses again, steps over the batches' headers, and asks for the next
//!    offset. With `verify`, every batch's CRC is computed too. Offsets must follow each other, or the run fails.
//! 3. The first pass over the data is the warm-up: it brings into the server's memory what fits there; `cold` leaves it out. Then passes are
//!    made until the time is over, the last one being cut short. With a pace, connections pause so that all together read no faster.
//!
//! The client copies what it reads out of the socket, as any consumer must; the server's part is in its CPU figure.

use crate::connection::Connection;
use crate::failure::{Failure, Outcome, accepted};
use crate::placement::{Placement, Shards};
use crate::report::Report;
use crate::topics::{End, offset};
use crate::window::{Phase, Watch, Window};
use crate::wire::{FETCH_VERSION, fetch_response};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use millrace_base::batch::{Header, check_stored};
use millrace_ops::histogram::Histogram;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    pub topic: String,
    pub partitions: u32,
    pub connections: u32,
    pub max_bytes: i32,
    pub verify: bool,
    /// A pass reads about so much of a partition at most; so servers that hold different amounts read the same.
    pub pass_bytes: u64,
    /// None: one pass, all of it counted.
    pub measured: Option<Duration>,
    /// What is read counts from the first byte.
    pub cold: bool,
    /// Bytes a second of all connections together.
    pub bytes_per_s: Option<u64>,
    pub placement: Placement,
}

/// A request for partitions, each from an offset.
pub fn fetch_request(topic: &str, from: impl Iterator<Item = (i32, i64)>, max_bytes: i32, wait_ms: i32) -> FetchRequest {
    let asked = |(partition, offset)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(max_bytes)
    };
    let topic =
        FetchTopic::default().with_topic(TopicName(StrBytes::from_string(topic.to_owned()))).with_partitions(from.map(asked).collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Takes the answer to a [`fetch_request`] apart, into where each partition's batches stand; fails on any error code.
pub fn fetched(bytes: &[u8]) -> Outcome<Vec<(i32, Range<usize>)>> {
    let (mut found, mut code) = (Vec::new(), 0);
    let walked = fetch_response(bytes, |fetched| {
        code = if code == 0 { fetched.error } else { code };
        found.push((fetched.partition, fetched.records));
        Some(())
    });
    let whole = walked.ok_or_else(|| Failure::wrong("fetching", "the answer is not a Fetch response"))?;
    accepted("fetching", whole)?;
    accepted("fetching", code)?;
    Ok(found)
}

/// Steps over whole batches from `offset` on; the last may be cut. Gives the next offset and the bytes of whole batches.
pub fn step_over(mut bytes: &[u8], mut offset: i64, verify: bool) -> Outcome<(i64, usize)> {
    let len = bytes.len();
    while let Ok(header) = Header::parse(bytes) {
        if header.size > bytes.len() {
            break;
        }
        if verify {
            check_stored(bytes).map_err(|error| Failure::wrong("verifying a batch", error))?;
        }
        // A server may begin with the batch in which the offset lies.
        if header.base_offset > offset || header.next_offset() <= offset {
            let found = format!("offset {offset} is next, the batch covers {} to {}", header.base_offset, header.last_offset());
            return Err(Failure::wrong("fetching", found));
        }
        offset = header.next_offset();
        bytes = &bytes[header.size..];
    }
    Ok((offset, len - bytes.len()))
}

struct Part {
    partition: i32,
    start: i64,
    tail: i64,
}

struct Tally {
    latencies: Histogram,
    bytes: u64,
}

pub fn run(asked: &Reading, address: SocketAddr) -> Outcome<Report> {
    let mut connections = Vec::new();
    let mut shards = Shards::default();
    for index in 0..asked.connections {
        let mut own: Vec<u32> = (0..asked.partitions).filter(|p| p % asked.connections == index).collect();
        if own.is_empty() {
            own.push(index % asked.partitions);
        }
        let mut connection = asked.placement.open(address, &asked.topic, own[0] as i32, &mut shards)?;
        let mut parts = Vec::new();
        for partition in own {
            let partition = partition as i32;
            let start = offset(&mut connection, &asked.topic, partition, End::Start)?;
            let tail = offset(&mut connection, &asked.topic, partition, End::Tail)?;
            if start < tail {
                parts.push(Part { partition, start, tail });
            }
        }
        if parts.is_empty() {
            return Err(Failure::Usage(format!("topic {} holds nothing for connection {index}: produce to it first", asked.topic)));
        }
        connections.push((connection, parts));
    }
    let (window, failed, warm) = (Window::default(), AtomicBool::new(false), Barrier::new(asked.connections as usize + 1));
    let (span, tallies) = std::thread::scope(|scope| {
        let workers: Vec<_> = connections
            .into_iter()
            .map(|(connection, parts)| {
                let (window, failed, warm) = (&window, &failed, &warm);
                scope.spawn(move || {
                    let tally = drive(connection, asked, &parts, window, warm);
                    failed.fetch_or(tally.is_err(), Ordering::Relaxed);
                    tally
                })
            })
            .collect();
        warm.wait();
        let failed = || failed.load(Ordering::Relaxed);
        let (watch, span) = match asked.measured {
            Some(measured) => (None, Some(window.run(Duration::ZERO, measured, asked.placement.server, &failed))),
            None => (Some(Watch::start(asked.placement.server)), None),
        };
        let tallies = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect::<Vec<Outcome<Tally>>>();
        let span = span.or_else(|| watch.map(|watch| watch.and_then(Watch::stop))).expect("one of both was made");
        (span, tallies)
    });
    let tallies = tallies.into_iter().collect::<Outcome<Vec<Tally>>>()?;
    let mut latencies = Histogram::new();
    tallies.iter().for_each(|tally| latencies.add(&tally.latencies));
    let bytes = tallies.iter().map(|tally| tally.bytes).sum();
    let report = Report::new("fetch")
        .count("partitions", asked.partitions.into())
        .count("connections", asked.connections.into())
        .count("max_bytes", asked.max_bytes as u64)
        .count("bytes", bytes);
    let report = shards.tell(report);
    Ok(span?.report(report, bytes, latencies.count()).latencies(&latencies))
}

fn drive(mut connection: Connection, asked: &Reading, parts: &[Part], window: &Window, warm: &Barrier) -> Outcome<Tally> {
    let mut tally = Tally { latencies: Histogram::new(), bytes: 0 };
    // Whoever waits at the barrier must be let go, so a failed warm-up is told behind it.
    let warm_up = match asked.measured {
        Some(_) if !asked.cold => pass(&mut connection, asked, parts, |_, _| true),
        _ => Ok(()),
    };
    warm.wait();
    warm_up?;
    let mut pace = asked.bytes_per_s.map(|all| Pace::new(all as f64 / f64::from(asked.connections)));
    loop {
        pass(&mut connection, asked, parts, |latency, bytes| {
            if let Some(pace) = &mut pace {
                pace.keep(bytes);
            }
            let phase = window.phase();
            if asked.measured.is_none() || phase == Phase::Measured {
                tally.latencies.record(latency);
                tally.bytes += bytes as u64;
            }
            phase != Phase::Over
        })?;
        if asked.measured.is_none() || window.phase() == Phase::Over {
            return Ok(tally);
        }
    }
}

/// Holds a reader to a rate: whoever is ahead of it sleeps.
struct Pace {
    start: Instant,
    bytes_per_s: f64,
    read: usize,
}

impl Pace {
    fn new(bytes_per_s: f64) -> Pace {
        Pace { start: Instant::now(), bytes_per_s, read: 0 }
    }

    fn keep(&mut self, bytes: usize) {
        self.read += bytes;
        let due = self.start + Duration::from_secs_f64(self.read as f64 / self.bytes_per_s);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Reads every partition once, until `each` (latency and bytes of one answer) says false.
fn pass(connection: &mut Connection, asked: &Reading, parts: &[Part], mut each: impl FnMut(Duration, usize) -> bool) -> Outcome<()> {
    for part in parts {
        let (mut next, mut read) = (part.start, 0);
        while next < part.tail && read < asked.pass_bytes {
            let sent = Instant::now();
            let from = std::iter::once((part.partition, next));
            connection.send(&fetch_request(&asked.topic, from, asked.max_bytes, 1000), FETCH_VERSION)?;
            let answer = connection.receive()?;
            let latency = sent.elapsed();
            // Without the partition the answer is an empty one.
            let records =
                fetched(answer)?.into_iter().find(|(partition, _)| *partition == part.partition).map_or(0..0, |(_, records)| records);
            let records = &answer[records];
            let (after, bytes) = step_over(records, next, asked.verify)?;
            if after == next {
                return Err(Failure::wrong(
                    "fetching",
                    format!("no whole batch at offset {next}, though the log goes on to {}", part.tail),
                ));
            }
            next = after;
            read += bytes as u64;
            if !each(latency, bytes) {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::{Content, batch};
    use millrace_base::batch::{patch, place};

    fn log() -> (Vec<u8>, i64) {
        let one = batch(4096, 1024, 0, Content::Noise);
        let count = i64::from(Header::parse(&one).unwrap().count);
        let mut log = Vec::new();
        for i in 0..3 {
            log.extend_from_slice(&one);
            patch(&mut log[i * 4096..], 10 + i as i64 * count, 0);
        }
        (log, count)
    }

    #[test]
    fn whole_batches_are_stepped_over_and_a_cut_one_is_left() {
        let (log, count) = log();
        assert_eq!(step_over(&log, 10, true).unwrap(), (10 + 3 * count, 3 * 4096));
        assert_eq!(step_over(&log, 11, true).unwrap(), (10 + 3 * count, 3 * 4096));
        assert_eq!(step_over(&log[..8000], 10, true).unwrap(), (10 + count, 4096));
        assert_eq!(step_over(&[], 10, true).unwrap(), (10, 0));
    }

    #[test]
    fn who_keeps_a_pace_is_not_faster() {
        let mut pace = Pace::new(1e6);
        (0..5).for_each(|_| pace.keep(2000));
        assert!(pace.start.elapsed() >= Duration::from_millis(10));
    }

    #[test]
    fn gaps_repetitions_and_flipped_bytes_fail_the_run() {
        let (mut log, count) = log();
        assert!(step_over(&log, 9, false).is_err());
        assert!(step_over(&log, 10 + count, false).is_err());
        log[4096 + place::RECORDS + 5] ^= 1;
        assert!(step_over(&log, 10, false).is_ok());
        assert!(step_over(&log, 10, true).is_err());
    }
}
