//! Large batches that come as fast as they are acknowledged go straight to their segments. While one segment is closed and the next gets
//! room they go through the journal; if checkpoints were to catch up with them, those would hold up direct appends, and so for good.

use kafka_protocol::messages::ProduceRequest;
use millrace_io::sim::ClientEnd;
use millrace_log::journal::Options;
use millrace_sim::node::{Frames, Node, PRODUCE, config, decode, framed, produce};

const CONNECTIONS: usize = 8;
/// Of each connection, one after the other.
const BATCHES: u32 = 40;
const RECORDS: u32 = 8;
const RECORD_BYTES: usize = 120_000;
/// A roll in every so many batches.
const SEGMENT_BYTES: usize = 128 << 20;

/// A client that sends its next batch when the last one is acknowledged.
struct Client {
    end: ClientEnd,
    frames: Frames,
    acknowledged: u32,
}

impl Client {
    fn go_on(&mut self, request: &[u8]) {
        let Some(answer) = self.frames.exchange(&mut self.end).pop() else { return };
        let answer = decode::<ProduceRequest>(&answer, PRODUCE);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        self.acknowledged += 1;
        if self.acknowledged < BATCHES {
            self.frames.queue(request);
        }
    }
}

#[test]
fn beside_what_comes_while_segments_change() {
    let mut configured = config(1, 1, 1 << 30);
    configured.journal = Options { files_max: 16, ..Options::new(16) };
    configured.settings.push(format!("log.segment.bytes={SEGMENT_BYTES}"));
    let mut node = Node::new(configured);
    node.start().unwrap();
    node.create("t", 1);
    node.world.keep_happenings();
    let request = framed(PRODUCE, &produce("t", 0, 0, RECORDS, RECORD_BYTES));
    let client = |_| {
        let mut frames = Frames::default();
        frames.queue(&request);
        Client { end: node.connect(), frames, acknowledged: 0 }
    };
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(client).collect();
    let is_done = node.run(60_000, |_| {
        clients.iter_mut().for_each(|client| client.go_on(&request));
        clients.iter().all(|client| client.acknowledged == BATCHES)
    });
    assert!(is_done, "all are acknowledged");
    let written: i64 = node.world.happenings().iter().filter(|happening| happening.what == "write").map(|happening| happening.result).sum();
    let produced = (CONNECTIONS * request.len()) as i64 * i64::from(BATCHES);
    assert!(written > produced, "{written} written for {produced}");
    assert!(written < produced * 3 / 2, "{written} bytes are written for {produced}");
}
