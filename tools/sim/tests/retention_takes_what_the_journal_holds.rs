//! Records that no checkpoint has laid out yet go in their time like others: a topic with little traffic would keep them for as long as the
//! journal has room.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_log::journal::Options;
use millrace_sim::cluster::Cluster;
use millrace_sim::node::{Node, config};
use std::path::PathBuf;

const RETENTION_MS: u64 = 10_000;
/// Within which the node does what is due: it looks every 100 ms, and writes and removes files.
const SOON_MS: u64 = 1_000;
/// Behind which a segment of 1 MiB has no room for another batch.
const BATCHES_A_SEGMENT: u32 = 10;

/// A node whose journal holds all that a test appends.
fn node(settings: &[&str]) -> Node {
    let mut configured = config(1, 1, 128 << 20);
    configured.journal = Options { file_bytes: 8 << 20, ..configured.journal };
    let own = ["log.retention.check.interval.ms=100", "log.segment.bytes=1048576", "journal.direct.append.min.bytes=16777216"];
    configured.settings.extend(own.iter().chain(settings).map(|&setting| setting.to_owned()));
    let mut node = Node::new(configured);
    node.start().unwrap();
    node.create("t", 1);
    node
}

fn append(node: &mut Node, batches: std::ops::Range<u32>) {
    batches.for_each(|first| node.append("t", first, 1, 100_000));
}

fn pass(node: &mut Node, ms: u64) {
    node.run(ms, |_| false);
}

/// Segment files of the topic.
fn segments(node: &Node) -> usize {
    let data = Cluster::directory(0);
    let folders: Vec<PathBuf> = node.names(&data).into_iter().map(|name| data.join(name).join("0")).collect();
    folders.iter().flat_map(|folder| node.names(folder)).filter(|name| name.ends_with(".log")).count()
}

#[test]
fn a_few_records_go_when_their_time_has_passed() {
    let mut node = node(&[&format!("log.retention.ms={RETENTION_MS}")]);
    append(&mut node, 0..3);
    pass(&mut node, RETENTION_MS - SOON_MS);
    assert_eq!((node.log_start("t"), segments(&node)), (0, 0), "all is in the journal, and not before its time");
    append(&mut node, 3..4);
    pass(&mut node, 2 * SOON_MS);
    assert_eq!(node.log_start("t"), 0, "a younger one of the same segment keeps them");
    pass(&mut node, RETENTION_MS);
    assert_eq!(node.log_start("t"), 4);
}

#[test]
fn after_a_start_too() {
    let mut node = node(&[&format!("log.retention.ms={RETENTION_MS}")]);
    append(&mut node, 0..3);
    node.cluster.kill();
    node.start().unwrap();
    pass(&mut node, RETENTION_MS + SOON_MS);
    assert_eq!(node.log_start("t"), 3);
}

#[test]
fn closed_segments_go_before_the_newest_one() {
    let mut node = node(&[&format!("log.retention.ms={RETENTION_MS}")]);
    append(&mut node, 0..2 * BATCHES_A_SEGMENT);
    pass(&mut node, RETENTION_MS - SOON_MS);
    append(&mut node, 2 * BATCHES_A_SEGMENT..2 * BATCHES_A_SEGMENT + 1);
    assert_eq!(node.log_start("t"), 0);
    pass(&mut node, 2 * SOON_MS);
    assert_eq!(node.log_start("t"), i64::from(2 * BATCHES_A_SEGMENT));
}

#[test]
fn bytes_beyond_the_bound_go() {
    let mut node = node(&["log.retention.bytes=1500000"]);
    append(&mut node, 0..4 * BATCHES_A_SEGMENT + 1);
    pass(&mut node, 2 * SOON_MS);
    assert_eq!(node.log_start("t"), i64::from(2 * BATCHES_A_SEGMENT), "of four closed segments two hold the bytes to be kept");
}
