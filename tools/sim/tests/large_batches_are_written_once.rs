//! Large batches that come as fast as they are acknowledged go straight to their segments. While one segment is closed and the next gets
//! room they go through the journal; if checkpoints were to catch up with them, those would hold up direct appends, and so for good.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_io::sim::ClientEnd;
use millrace_log::journal::Options;
use millrace_sim::node::{Node, config, framed, produce};

const PRODUCE: i16 = 9;
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
    request: Vec<u8>,
    sent: usize,
    came: Vec<u8>,
    left: u32,
}

impl Client {
    fn advance(&mut self) {
        self.sent += self.end.send(&self.request[self.sent..]).unwrap();
        self.came.extend(self.end.receive().unwrap().unwrap_or_default());
        let length = self.came.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
        if self.left > 0 && length.is_some_and(|length| self.came.len() >= length + 4) {
            (self.left, self.came) = (self.left - 1, Vec::new());
            self.sent = if self.left > 0 { 0 } else { self.request.len() };
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
    let client = |_| Client { end: node.connect(), request: request.clone(), sent: 0, came: Vec::new(), left: BATCHES };
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(client).collect();
    let is_done = node.run(60_000, |_| {
        clients.iter_mut().for_each(Client::advance);
        clients.iter().all(|client| client.left == 0)
    });
    assert!(is_done, "all are acknowledged");
    let written: i64 = node.world.happenings().iter().filter(|happening| happening.what == "write").map(|happening| happening.result).sum();
    let produced = (CONNECTIONS * request.len()) as i64 * i64::from(BATCHES);
    assert!(written > produced, "{written} written for {produced}");
    assert!(written < produced * 3 / 2, "{written} bytes are written for {produced}");
}
