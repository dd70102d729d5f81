//! The hot paths of one node on simulated drivers, for a counter of instructions: `hot-path WORKLOAD BATCHES`.
//!
//! 1. A node of one shard starts and makes a topic; for fetches it also gets [`STORED`] batches.
//! 2. BATCHES batches are produced or fetched, with requests in flight so that turns have work, as under load.
//!
//! What the same workload costs for twice the batches, less what it costs for once, is the cost of the batches: `scripts/bench/guard` does
//! that, and counts only what runs inside `Shard::turn`. Same arguments, same instructions.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{BrokerId, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use millrace_base::clock::Nanos;
use millrace_io::sim::{ClientEnd, Rates, SimDriver, World};
use millrace_io::{Driver, Wait};
use millrace_log::journal::Options;
use millrace_sim::cluster::{Cluster, Config};
use millrace_sim::value::{self, ValueId};
use std::process::ExitCode;

const MS: u64 = 1_000_000;

/// Batches that a fetch workload finds.
const STORED: usize = 256;

const USAGE: &str = "usage: hot-path produce-64k|produce-16k|produce-1k-64|fetch-64k|fetch-1k-64 BATCHES";

/// Bytes of a batch, partitions of the topic (a request has one batch of each), and requests in flight.
struct Shape {
    batch_bytes: usize,
    partitions: i32,
    in_flight: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match arguments.as_slice() {
        [workload, batches] => {
            batches.parse::<usize>().ok().and_then(|batches| Some((shape(workload)?, workload.starts_with("fetch"), batches)))
        }
        _ => None,
    };
    let Some((shape, is_fetch, batches)) = parsed else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut bench = Bench::start(shape);
    if is_fetch {
        bench.produce(STORED);
        bench.fetch(batches);
    } else {
        bench.produce(batches);
    }
    ExitCode::SUCCESS
}

fn shape(workload: &str) -> Option<Shape> {
    let (batch_bytes, partitions, in_flight) = match workload {
        "produce-64k" | "fetch-64k" => (64 << 10, 1, 4),
        "produce-16k" => (16 << 10, 1, 4),
        "produce-1k-64" | "fetch-1k-64" => (1 << 10, 64, 2),
        _ => return None,
    };
    Some(Shape { batch_bytes, partitions, in_flight })
}

struct Bench {
    world: World,
    cluster: Cluster,
    clock: SimDriver,
    end: ClientEnd,
    shape: Shape,
}

impl Bench {
    fn start(shape: Shape) -> Bench {
        let world = World::new(1, Rates::CALM);
        let journal = Options::new(16);
        let config = Config { shards: 1, directories: 1, journal, memory_bytes: 1 << 30, settings: vec!["shard.spin.us=0".to_owned()] };
        let (mut cluster, clock) = (Cluster::new(&world, config), world.driver(99));
        if let Err(error) = cluster.start(1) {
            panic!("the node starts: {error}");
        }
        let end = world.connect(Cluster::address());
        let mut bench = Bench { world, cluster, clock, end, shape };
        bench.run(|bench| bench.cluster.is_open());
        let topic = CreatableTopic::default().with_name(name()).with_num_partitions(bench.shape.partitions).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        bench.ask(&framed(5, &request), 1);
        bench
    }

    /// Turns until `done`. Virtual time, so that no wait costs anything.
    fn run(&mut self, mut done: impl FnMut(&mut Bench) -> bool) {
        let limit = self.world.now().0 + 600_000 * MS;
        while !done(self) {
            let now = self.world.now().0;
            assert!(now < limit, "ten minutes of virtual time passed");
            self.clock.poll(Wait::Until(Nanos(now + MS)), &mut Vec::new());
            let runnable = self.world.runnable();
            if runnable.is_empty() {
                self.world.step();
            }
            for shard in runnable {
                self.cluster.turn(shard);
            }
        }
    }

    /// Sends `request` so many times, `in_flight` at once, and takes that many answers.
    fn ask(&mut self, request: &[u8], times: usize) {
        let (mut to_send, mut asked, mut answered) = (Vec::new(), 0, 0);
        let mut came: Vec<u8> = Vec::new();
        self.run(|bench| {
            while asked < times && asked - answered < bench.shape.in_flight {
                to_send.extend_from_slice(request);
                asked += 1;
            }
            let sent = bench.end.send(&to_send).expect("the connection stays");
            to_send.drain(..sent);
            came.extend(bench.end.receive().expect("the connection stays").unwrap_or_default());
            while let Some(length) = came.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)
                && came.len() >= length + 4
            {
                came.drain(..length + 4);
                answered += 1;
            }
            answered == times
        });
    }

    fn produce(&mut self, batches: usize) {
        let records = self.shape.batch_bytes / 1024;
        let batch: Bytes = value::batch(ValueId::new(1, 1), records as u32, 1024 - 32, 1_700_000_000_000, None, 0).into();
        let data = |index| PartitionProduceData::default().with_index(index).with_records(Some(batch.clone()));
        let topic = TopicProduceData::default().with_name(name()).with_partition_data((0..self.shape.partitions).map(data).collect());
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        self.ask(&framed(9, &request), batches / self.shape.partitions as usize);
    }

    /// From the start, 16 batches of each partition a request.
    fn fetch(&mut self, batches: usize) {
        const AT_ONCE: usize = 4;
        let partition = |index| {
            FetchPartition::default()
                .with_partition(index)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes((self.shape.batch_bytes * AT_ONCE) as i32)
        };
        let topic = FetchTopic::default().with_topic(name()).with_partitions((0..self.shape.partitions).map(partition).collect());
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        self.ask(&framed(12, &request), batches / AT_ONCE / self.shape.partitions as usize);
    }
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("hot"))
}

fn framed<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version).with_correlation_id(1);
    let mut body = BytesMut::new();
    header.encode(&mut body, R::header_version(version)).expect("a header that the version has");
    request.encode(&mut body, version).expect("a request that the version has");
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}
