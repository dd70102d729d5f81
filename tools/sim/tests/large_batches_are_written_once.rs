//! Large batches that come as fast as they are acknowledged go straight to their segments. While one segment is closed and the next gets
//! room they go through the journal; if checkpoints were to catch up with them, those would hold up direct appends, and so for good.

use kafka_protocol::messages::ProduceRequest;
use millrace_io::sim::{ClientEnd, Rates, World};
use millrace_log::journal::Options;
use millrace_sim::node::{Frames, Node, PRODUCE, config, decode, framed, produce};

const RECORD_BYTES: usize = 120_000;

/// What clients send, all of them the same.
struct Load {
    connections: usize,
    /// Batches on their way per connection.
    in_flight: u32,
    /// Of each connection.
    batches: u32,
    records: u32,
    /// A roll in every so many bytes.
    segment_bytes: usize,
}

/// A client that sends another batch for each that is acknowledged.
struct Client {
    end: ClientEnd,
    frames: Frames,
    sent: u32,
    acknowledged: u32,
}

impl Client {
    fn go_on(&mut self, load: &Load, request: &[u8]) {
        for answer in self.frames.exchange(&mut self.end) {
            let answer = decode::<ProduceRequest>(&answer, PRODUCE);
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
            self.acknowledged += 1;
        }
        while self.sent < load.batches.min(self.acknowledged + load.in_flight) {
            self.frames.queue(request);
            self.sent += 1;
        }
    }
}

/// Bytes of each write to a file, and the bytes produced.
fn written_for(seed: u64, load: &Load, files_max: u32) -> (Vec<i64>, i64) {
    let mut configured = config(1, 1, 1 << 30);
    configured.journal = Options { files_max, ..Options::new(files_max) };
    configured.settings.push(format!("log.segment.bytes={}", load.segment_bytes));
    let mut node = Node::in_world(World::new(seed, Rates::CALM), configured);
    node.start().expect("the node starts");
    node.create("t", 1);
    node.world.keep_happenings();
    let request = framed(PRODUCE, &produce("t", 0, 0, load.records, RECORD_BYTES));
    let client = |_| Client { end: node.connect(), frames: Frames::default(), sent: 0, acknowledged: 0 };
    let mut clients: Vec<Client> = (0..load.connections).map(client).collect();
    let is_done = node.run(60_000, |_| {
        clients.iter_mut().for_each(|client| client.go_on(load, &request));
        clients.iter().all(|client| client.acknowledged == load.batches)
    });
    assert!(is_done, "all are acknowledged");
    let written: Vec<i64> =
        node.world.happenings().iter().filter(|happening| happening.what == "write").map(|happening| happening.result).collect();
    let produced = (load.connections * request.len()) as i64 * i64::from(load.batches);
    assert!(written.iter().sum::<i64>() > produced, "less is written than is produced");
    (written, produced)
}

#[test]
fn beside_what_comes_while_segments_change() {
    let (written, produced) =
        written_for(11, &Load { connections: 8, in_flight: 1, batches: 40, records: 8, segment_bytes: 128 << 20 }, 16);
    let written: i64 = written.iter().sum();
    assert!(written < produced * 3 / 2, "{written} bytes are written for {produced}");
}

/// The last batch of a segment is often not committed yet when its direct append ends, or the partition's files are being worked on.
#[test]
fn and_a_segment_is_closed_when_its_last_batch_is_committed() {
    for seed in 1..=3 {
        let (written, _) = written_for(seed, &Load { connections: 4, in_flight: 4, batches: 400, records: 1, segment_bytes: 64 << 20 }, 64);
        let largest = written.iter().max().expect("something is written");
        assert!(*largest < 30_000_000, "seed {seed}: {largest} bytes waited to go in front of a direct append");
    }
}
