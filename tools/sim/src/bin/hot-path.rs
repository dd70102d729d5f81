//! The hot paths of one node on simulated drivers, for a counter of instructions: `hot-path WORKLOAD BATCHES`.
//!
//! 1. A node of one shard starts and makes a topic; for fetches it also gets [`STORED`] batches.
//! 2. BATCHES batches are produced or fetched, with requests in flight so that turns have work, as under load.
//!
//! What the same workload costs for twice the batches, less what it costs for once, is the cost of the batches: `scripts/bench/guard` does
//! that, and counts only what runs inside `Shard::turn`. Same arguments, same instructions.

use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_io::sim::{ClientEnd, Rates, World};
use millrace_log::journal::Options;
use millrace_sim::cluster::Config;
use millrace_sim::node::{FETCH, Frames, Node, PRODUCE, fetch, framed, topic};
use millrace_sim::value::{self, ValueId};
use std::process::ExitCode;

/// Batches that a fetch workload finds.
const STORED: usize = 256;

/// Longer than checkpoints take.
const SETTLE_MS: u64 = 2_000;

const TOPIC: &str = "hot";

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
    node: Node,
    end: ClientEnd,
    shape: Shape,
}

impl Bench {
    fn start(shape: Shape) -> Bench {
        let journal = Options::new(16);
        let settings = vec!["shard.spin.us=0".to_owned()];
        let config = Config { shards: 1, directories: 1, journal, memory_bytes: 1 << 30, files_max: None, settings };
        let mut node = Node::in_world(World::new(1, Rates::CALM), config);
        if let Err(error) = node.start() {
            panic!("the node starts: {error}");
        }
        node.create(TOPIC, shape.partitions);
        let end = node.connect();
        Bench { node, end, shape }
    }

    /// Sends `request` so many times, `in_flight` at once, and takes that many answers.
    fn ask(&mut self, request: &[u8], times: usize) {
        let (mut frames, mut asked, mut answered) = (Frames::default(), 0, 0);
        let is_done = self.node.run(600_000, |_| {
            while asked < times && asked - answered < self.shape.in_flight {
                frames.queue(request);
                asked += 1;
            }
            answered += frames.exchange(&mut self.end).len();
            answered == times
        });
        assert!(is_done, "ten minutes of virtual time passed");
    }

    fn produce(&mut self, batches: usize) {
        let records = self.shape.batch_bytes / 1024;
        let batch = value::batch(ValueId::new(1, 1), records as u32, 1024 - 32, 1_700_000_000_000, None, 0);
        let data = |index| PartitionProduceData::default().with_index(index).with_records(Some(batch.clone().into()));
        let data = (0..self.shape.partitions).map(data).collect();
        let topic = TopicProduceData::default().with_name(topic(TOPIC)).with_partition_data(data);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        self.ask(&framed(PRODUCE, &request), batches / self.shape.partitions as usize);
        // What the batches leave to do behind them is theirs too, and not a later fetch's.
        self.node.run(SETTLE_MS, |_| false);
    }

    /// From the start, four batches of each partition a request.
    fn fetch(&mut self, batches: usize) {
        const AT_ONCE: usize = 4;
        let request = fetch(TOPIC, (0..self.shape.partitions).map(|index| (index, 0)), (self.shape.batch_bytes * AT_ONCE) as i32);
        self.ask(&framed(FETCH, &request), batches / AT_ONCE / self.shape.partitions as usize);
    }
}
