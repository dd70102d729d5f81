//! Large batches that come as fast as they are acknowledged go straight to their segments. While one segment is closed and the next gets
//! room they go through the journal; if checkpoints were to catch up with them, those would hold up direct appends, and so for good.

use kafka_protocol::messages::ProduceRequest;
use millrace_base::limits::BLOCK;
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

/// For batches that are each sent when the one before is acknowledged, behind three large ones: entries of one block, which hold no batch.
fn without_a_batch(bytes: impl Iterator<Item = usize>) -> usize {
    let mut node = Node::in_world(World::new(5, Rates::CALM), config(1, 1, 1 << 30));
    node.start().expect("the node starts");
    node.create("t", 1);
    // The first of them makes the segment, which is given room meanwhile.
    let large = [300_000, 1_000, 300_000];
    (0..).zip(large).for_each(|(first, bytes)| node.append("t", first, 1, bytes));
    node.world.keep_happenings();
    (3..).zip(bytes).for_each(|(first, bytes)| node.append("t", first, 1, bytes));
    node.world.happenings().iter().filter(|happening| happening.what == "write" && happening.result == BLOCK as i64).count()
}

/// `journal.direct.append.min.bytes` is 64 KiB here.
#[test]
fn who_went_straight_goes_on_with_less_while_much_is_on_its_way() {
    let direct = without_a_batch([10_000; 20].into_iter());
    assert!(direct >= 19, "{direct} of 20 entries are without a batch");
    // Less than an eighth is not worth a write of its own.
    let direct = without_a_batch([5_000; 20].into_iter());
    assert!(direct <= 2, "{direct} of 20 entries are without a batch");
    // When no more has been on its way for some time, the journal is faster; and to begin takes more than to go on.
    let small = || std::iter::repeat_n(10_000, 1_200);
    let (alone, behind) = (without_a_batch(small()), without_a_batch(small().chain([70_000; 20])));
    assert!((500..1_100).contains(&alone), "{alone} of 1,200 entries are without a batch");
    assert!(behind < alone + 10, "{behind} of 1,220 entries are without a batch, {alone} of the first 1,200");
}
