//! Load: connections that each keep some requests on their way, as fast as the server lets them.
//!
//! 1. Each connection is a thread with a blocking socket. It sends until its requests in flight are used up, then takes one answer for
//!    each further request. The batch was made before: sending costs a system call and no copy in this process.
//! 2. A request carries `batches_per_request` batches for as many partitions, in turn through the partitions of its connection.
//! 3. Counted are the answers that come within the [`Window`]; a latency runs from before the send to the answer's arrival.
//!
//! This loop is closed: a server that stalls is asked less. Throughput is its result; what latency a schedule would see is measured by
//! `end_to_end`. Any error code fails the run.

use crate::batches::batch;
use crate::connection::Connection;
use crate::failure::{Failure, Outcome, accepted};
use crate::histogram::Histogram;
use crate::report::Report;
use crate::window::{Phase, Window};
use crate::wire::{ProduceRequest, produce_request, produce_response};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    pub topic: String,
    pub partitions: u32,
    pub connections: u32,
    pub batch_bytes: usize,
    pub record_bytes: usize,
    pub batches_per_request: u32,
    /// Requests on their way per connection.
    pub in_flight: usize,
    pub acks: i16,
    pub warm_up: Duration,
    pub measured: Duration,
    pub server: Option<u32>,
}

/// What one connection counted.
pub struct Tally {
    pub latencies: Histogram,
    pub requests: u64,
    pub bytes: u64,
}

/// Milliseconds since 1970, for records' timestamps.
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// The partitions that connection `index` writes to; with more connections than partitions, several share one.
fn partitions_of(load: &Load, index: u32) -> Vec<i32> {
    let own: Vec<i32> = (0..load.partitions).filter(|p| p % load.connections == index).map(|p| p as i32).collect();
    if own.is_empty() { vec![(index % load.partitions) as i32] } else { own }
}

/// One request per group of partitions, which a connection sends in turn.
pub fn requests(topic: &str, acks: i16, partitions: &[i32], per_request: usize, batch_bytes: usize) -> Vec<ProduceRequest> {
    partitions.chunks(per_request).map(|group| produce_request(topic, acks, group, batch_bytes)).collect()
}

/// Fails on any error code, and when the answer is not for `expected` partitions.
pub fn check_answer(bytes: &[u8], expected: usize) -> Outcome<()> {
    let (mut count, mut code) = (0, 0);
    let walked = produce_response(bytes, |produced| {
        count += 1;
        code = if code == 0 { produced.error } else { code };
        Some(())
    });
    walked.ok_or_else(|| Failure::wrong("producing", "the answer is not a Produce response"))?;
    accepted("producing", code)?;
    if count != expected {
        return Err(Failure::wrong("producing", format!("the answer names {count} partitions, the request {expected}")));
    }
    Ok(())
}

pub fn run(load: &Load, address: SocketAddr) -> Outcome<Report> {
    let bytes = batch(load.batch_bytes, load.record_bytes, wall_ms());
    let connections: Vec<Connection> = (0..load.connections).map(|_| Connection::open(address)).collect::<Outcome<_>>()?;
    let (window, failed) = (Window::default(), AtomicBool::new(false));
    let (span, tallies) = std::thread::scope(|scope| {
        let workers: Vec<_> = connections
            .into_iter()
            .zip(0..)
            .map(|(connection, index)| {
                let (bytes, window, failed) = (&bytes, &window, &failed);
                scope.spawn(move || {
                    let tally = drive(connection, load, index, bytes, window);
                    failed.fetch_or(tally.is_err(), Ordering::Relaxed);
                    tally
                })
            })
            .collect();
        let span = window.run(load.warm_up, load.measured, load.server, &|| failed.load(Ordering::Relaxed));
        window.close();
        let tallies = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        (span, tallies.collect::<Vec<Outcome<Tally>>>())
    });
    let tallies = tallies.into_iter().collect::<Outcome<Vec<Tally>>>()?;
    let mut latencies = Histogram::new();
    tallies.iter().for_each(|tally| latencies.add(&tally.latencies));
    let report = Report::new("produce")
        .count("partitions", load.partitions.into())
        .count("connections", load.connections.into())
        .count("batch_bytes", load.batch_bytes as u64)
        .count("batches_per_request", load.batches_per_request.into())
        .count("in_flight", load.in_flight as u64);
    let total = |part: fn(&Tally) -> u64| tallies.iter().map(part).sum();
    let (requests, sent) = (total(|tally| tally.requests), total(|tally| tally.bytes));
    if requests == 0 {
        return Err(Failure::Late { doing: "waiting for an answer within the measured time", waited_s: load.measured.as_secs() });
    }
    Ok(span?.report(report, sent, requests).latencies(&latencies))
}

fn drive(mut connection: Connection, load: &Load, index: u32, batch: &[u8], window: &Window) -> Outcome<Tally> {
    let partitions = partitions_of(load, index);
    let mut requests = requests(&load.topic, load.acks, &partitions, load.batches_per_request as usize, batch.len());
    let mut on_their_way: VecDeque<(Instant, usize)> = VecDeque::with_capacity(load.in_flight);
    let mut tally = Tally { latencies: Histogram::new(), requests: 0, bytes: 0 };
    let batches = vec![batch; load.batches_per_request as usize];
    let mut next = 0;
    loop {
        let phase = window.phase();
        if phase != Phase::Over && on_their_way.len() < load.in_flight {
            let request = &mut requests[next];
            let count = request.heads.len();
            on_their_way.push_back((Instant::now(), count));
            connection.send_produce(request, &batches[..count])?;
            next = (next + 1) % requests.len();
            continue;
        }
        let Some((sent, count)) = on_their_way.pop_front() else { return Ok(tally) };
        check_answer(connection.receive()?, count)?;
        if window.phase() == Phase::Measured {
            tally.latencies.record(sent.elapsed());
            tally.requests += 1;
            tally.bytes += (count * batch.len()) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(partitions: u32, connections: u32) -> Load {
        let second = Duration::from_secs(1);
        Load {
            topic: "t".to_owned(),
            partitions,
            connections,
            batch_bytes: 4096,
            record_bytes: 1024,
            batches_per_request: 1,
            in_flight: 1,
            acks: -1,
            warm_up: second,
            measured: second,
            server: None,
        }
    }

    #[test]
    fn partitions_are_dealt_out_whole_and_no_connection_goes_without() {
        for (partitions, connections) in [(1, 1), (1, 4), (4, 1), (10, 4), (3, 4)] {
            let load = load(partitions, connections);
            let mut dealt: Vec<i32> = (0..connections).flat_map(|index| partitions_of(&load, index)).collect();
            dealt.sort_unstable();
            dealt.dedup();
            assert_eq!(dealt, (0..partitions as i32).collect::<Vec<_>>());
            assert!((0..connections).all(|index| !partitions_of(&load, index).is_empty()));
        }
    }

    #[test]
    fn the_last_request_of_a_turn_carries_what_is_left() {
        let heads: Vec<usize> = requests("t", -1, &[0, 1, 2, 3, 4], 2, 100).iter().map(|request| request.heads.len()).collect();
        assert_eq!(heads, [2, 2, 1]);
    }
}
