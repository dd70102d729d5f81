//! Load: connections that each keep some requests on their way, as fast as the server lets them.
//!
//! 1. Each connection is a thread with a blocking socket. It sends until its requests in flight are used up, then takes one answer for
//!    each further request. The batch was made before: sending costs a system call and no copy in this process. An idempotent producer
//!    stamps its batch and computes the CRC before each sending.
//! 2. A request carries `batches_per_request` batches for as many partitions, in turn through the partitions of its connection.
//! 3. Counted are the answers that come within the [`Window`]; a latency runs from before the send to the answer's arrival.
//! 4. With `touch`, a small batch goes to each partition first: what a partition's first batch costs (its files) is then not measured.
//!
//! This loop is closed: a server that stalls is asked less. Throughput is its result; what latency a schedule would see is measured by
//! `open_loop`. Any error code fails the run.

use crate::batches::{BATCH_BYTES_MIN, Content, Stamp, batch, compressed, stamp};
use crate::connection::Connection;
use crate::failure::{Failure, Outcome, accepted};
use crate::placement::{Placement, Shards};
use crate::report::Report;
use crate::window::{Phase, Window};
use crate::wire::{ProduceRequest, produce_request, produce_response};
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use millrace_base::batch::{Header, sequence_after};
use millrace_ops::histogram::Histogram;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    pub topic: String,
    pub partitions: u32,
    pub connections: u32,
    /// Of a batch before it is compressed.
    pub batch_bytes: usize,
    pub record_bytes: usize,
    pub batches_per_request: u32,
    /// Requests on their way per connection.
    pub in_flight: usize,
    pub acks: i16,
    pub idempotent: bool,
    /// Values that compress, as one lz4 frame a batch.
    pub lz4: bool,
    pub touch: bool,
    pub warm_up: Duration,
    pub measured: Duration,
    /// Ends the run when so much has been sent, all connections together.
    pub total_bytes: Option<u64>,
    pub placement: Placement,
}

/// What one connection counted.
pub struct Tally {
    pub latencies: Histogram,
    pub requests: u64,
    pub batches: u64,
}

const INIT_PRODUCER_ID_VERSION: i16 = 4;
/// Kafka's COORDINATOR_LOAD_IN_PROGRESS.
const LOAD_IN_PROGRESS: i16 = 14;
const PRODUCER_ID_WAIT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Partitions named in one request that touches them.
const TOUCHED_AT_ONCE: usize = 100;

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
fn requests(topic: &str, acks: i16, partitions: &[i32], per_request: usize, batch_bytes: usize) -> Vec<ProduceRequest> {
    let parts: Vec<(i32, usize)> = partitions.iter().map(|partition| (*partition, batch_bytes)).collect();
    parts.chunks(per_request).map(|group| produce_request(topic, acks, group)).collect()
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
    let plain = batch(load.batch_bytes, load.record_bytes, wall_ms(), if load.lz4 { Content::Words } else { Content::Noise });
    let bytes = if load.lz4 { compressed(&plain)? } else { plain };
    let records = Header::parse(&bytes).map_err(|error| Failure::wrong("making a batch", error))?.count;
    let (mut connections, mut shards) = (Vec::new(), Shards::default());
    for index in 0..load.connections {
        let partitions = partitions_of(load, index);
        let mut connection = load.placement.open(address, &load.topic, partitions[0], &mut shards)?;
        if load.touch {
            touch(&mut connection, &load.topic, &partitions)?;
        }
        let stamps = if load.idempotent { Some(Stamps::new(&mut connection, &bytes, records, load, partitions.len())?) } else { None };
        connections.push((connection, partitions, stamps));
    }
    let (window, failed, ended) = (Window::default(), AtomicBool::new(false), AtomicUsize::new(0));
    let (span, tallies) = std::thread::scope(|scope| {
        let workers: Vec<_> = connections
            .into_iter()
            .map(|(connection, partitions, stamps)| {
                let (bytes, window, failed, ended) = (&bytes, &window, &failed, &ended);
                scope.spawn(move || {
                    let tally = drive(connection, load, &partitions, bytes, stamps, window);
                    failed.fetch_or(tally.is_err(), Ordering::Relaxed);
                    ended.fetch_add(1, Ordering::Relaxed);
                    tally
                })
            })
            .collect();
        let is_over = || failed.load(Ordering::Relaxed) || ended.load(Ordering::Relaxed) == load.connections as usize;
        let span = window.run(load.warm_up, load.measured, load.placement.server, &is_over);
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
        .count("batch_bytes", bytes.len() as u64)
        .count("batches_per_request", load.batches_per_request.into())
        .count("in_flight", load.in_flight as u64);
    let report = shards.tell(report);
    let total = |part: fn(&Tally) -> u64| tallies.iter().map(part).sum::<u64>();
    let (requests, batches) = (total(|tally| tally.requests), total(|tally| tally.batches));
    if requests == 0 {
        return Err(Failure::Late { doing: "waiting for an answer within the measured time", waited_s: load.measured.as_secs() });
    }
    let span = span?;
    let report = span
        .report(report, batches * bytes.len() as u64, requests)
        .count("bytes", batches * bytes.len() as u64)
        .ratio("records_per_s", (batches * records as u64) as f64, span.seconds)
        .ratio("uncompressed_mb_per_s", (batches * load.batch_bytes as u64) as f64 / 1e6, span.seconds);
    Ok(report.latencies(&latencies))
}

/// A small batch to each partition.
fn touch(connection: &mut Connection, topic: &str, partitions: &[i32]) -> Outcome<()> {
    let bytes = batch(BATCH_BYTES_MIN, BATCH_BYTES_MIN, wall_ms(), Content::Noise);
    for mut request in requests(topic, -1, partitions, TOUCHED_AT_ONCE, bytes.len()) {
        let count = request.heads.len();
        connection.send_produce(&mut request, &vec![bytes.as_slice(); count])?;
        check_answer(connection.receive()?, count)?;
    }
    Ok(())
}

/// What an idempotent producer keeps: its id, the next sequence of each of its partitions, and a copy of the batch for each of a request.
struct Stamps {
    stamp: Stamp,
    records: i32,
    sequences: Vec<i32>,
    copies: Vec<Vec<u8>>,
}

impl Stamps {
    fn new(connection: &mut Connection, batch: &[u8], records: i32, load: &Load, partitions: usize) -> Outcome<Stamps> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let began = Instant::now();
        let mut answer = connection.call(&request, INIT_PRODUCER_ID_VERSION)?;
        // A server that has not handed out an id before may have to fetch some first.
        while answer.error_code == LOAD_IN_PROGRESS && began.elapsed() < PRODUCER_ID_WAIT {
            std::thread::sleep(ASK_AGAIN);
            answer = connection.call(&request, INIT_PRODUCER_ID_VERSION)?;
        }
        accepted("asking for a producer id", answer.error_code)?;
        let stamp = Stamp { producer_id: answer.producer_id.0, producer_epoch: answer.producer_epoch, sequence: 0 };
        let copies = vec![batch.to_vec(); load.batches_per_request as usize];
        Ok(Stamps { stamp, records, sequences: vec![0; partitions], copies })
    }

    /// The batches of one request, for `count` partitions from the one at `first` on.
    fn next(&mut self, first: usize, count: usize) -> Vec<&[u8]> {
        for (copy, sequence) in self.copies.iter_mut().zip(&mut self.sequences[first..first + count]) {
            stamp(copy, Stamp { sequence: *sequence, ..self.stamp });
            *sequence = sequence_after(*sequence, self.records);
        }
        self.copies[..count].iter().map(Vec::as_slice).collect()
    }
}

fn drive(
    mut connection: Connection,
    load: &Load,
    partitions: &[i32],
    batch: &[u8],
    mut stamps: Option<Stamps>,
    window: &Window,
) -> Outcome<Tally> {
    let per_request = load.batches_per_request as usize;
    let mut requests = requests(&load.topic, load.acks, partitions, per_request, batch.len());
    let mut on_their_way: VecDeque<(Instant, usize)> = VecDeque::with_capacity(load.in_flight);
    let mut tally = Tally { latencies: Histogram::new(), requests: 0, batches: 0 };
    let batches = vec![batch; per_request];
    let mut left = load.total_bytes.map_or(u64::MAX, |bytes| bytes.div_ceil(u64::from(load.connections)).div_ceil(batch.len() as u64));
    // What fills a topic counts whole: its first answers may come before the window has opened.
    let fills = load.total_bytes.is_some();
    let mut next = 0;
    loop {
        let phase = window.phase();
        if phase != Phase::Over && left > 0 && on_their_way.len() < load.in_flight {
            let request = &mut requests[next];
            let count = request.heads.len();
            on_their_way.push_back((Instant::now(), count));
            match &mut stamps {
                Some(stamps) => connection.send_produce(request, &stamps.next(next * per_request, count))?,
                None => connection.send_produce(request, &batches[..count])?,
            }
            left = left.saturating_sub(count as u64);
            next = (next + 1) % requests.len();
            continue;
        }
        let Some((sent, count)) = on_their_way.pop_front() else { return Ok(tally) };
        check_answer(connection.receive()?, count)?;
        if fills || window.phase() == Phase::Measured {
            tally.latencies.record(sent.elapsed());
            tally.requests += 1;
            tally.batches += count as u64;
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
            idempotent: false,
            lz4: false,
            touch: false,
            warm_up: second,
            measured: second,
            total_bytes: None,
            placement: Placement { home: crate::placement::Home::Any, server: None },
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

    #[test]
    fn sequences_go_on_in_each_partition_and_wrap_as_kafka_counts() {
        let bytes = batch(4096, 1024, 0, Content::Noise);
        let records = Header::parse(&bytes).unwrap().count;
        let stamp = Stamp { producer_id: 5, producer_epoch: 0, sequence: 0 };
        let mut stamps = Stamps { stamp, records, sequences: vec![0, i32::MAX - records + 1, 0], copies: vec![bytes; 2] };
        let sequences =
            |batches: Vec<&[u8]>| -> Vec<i32> { batches.iter().map(|batch| Header::parse(batch).unwrap().base_sequence).collect() };
        assert_eq!(sequences(stamps.next(0, 2)), [0, i32::MAX - records + 1]);
        assert_eq!(sequences(stamps.next(2, 1)), [0]);
        assert_eq!(sequences(stamps.next(0, 2)), [records, 0]);
    }
}
