//! A fetch that waits for more bytes than come is told at its deadline what has come, and what comes to several shards counts together.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::{FetchRequest, FetchResponse};
use millrace_sim::node::{FETCH, Frames, Node, config, decode, fetch, framed, produce};

const MS: u64 = 1_000_000;
const BATCH: u32 = 10;

fn node(shards: u16) -> Node {
    let mut node = Node::new(config(shards, 1, 128 << 20));
    node.start().unwrap();
    node.create("t", 2);
    node
}

/// What a fetch of both partitions is answered while batches of these partitions come, each 100 ms after the one before; and after how many
/// milliseconds.
fn answered(node: &mut Node, request: &FetchRequest, batches: &[(i32, u32)]) -> (FetchResponse, u64) {
    let (mut reader, mut writer) = (node.connect(), node.connect());
    let mut frames = Frames::default();
    frames.queue(&framed(FETCH, request));
    let began = node.world.now().0;
    let mut left = batches.iter();
    let mut answer = None;
    for _ in 0..200 {
        answer = frames.exchange(&mut reader).pop();
        if answer.is_some() {
            break;
        }
        node.run(100, |_| false);
        if let Some((partition, first)) = left.next() {
            assert_eq!(node.produce(&mut writer, &produce("t", *partition, *first, BATCH, 1_000)).0, 0);
        }
    }
    let answer = decode::<FetchRequest>(&answer.expect("each fetch is answered"), FETCH);
    (answer, (node.world.now().0 - began) / MS)
}

/// Bytes and high watermark by partition.
fn given(answer: &FetchResponse) -> Vec<(usize, i64)> {
    let mut parts: Vec<_> = answer.responses[0].partitions.iter().collect();
    parts.sort_by_key(|part| part.partition_index);
    let bytes = |records: &Option<bytes::Bytes>| records.as_ref().map_or(0, |records| records.len());
    parts.into_iter().map(|part| (bytes(&part.records), part.high_watermark)).collect()
}

fn both(offsets: [i64; 2], min_bytes: i32, wait_ms: i32) -> FetchRequest {
    fetch("t", (0..).zip(offsets), 1 << 20).with_min_bytes(min_bytes).with_max_wait_ms(wait_ms)
}

#[test]
fn what_is_too_little_is_given_at_the_deadline() {
    for shards in [1, 2] {
        let mut node = node(shards);
        let (answer, ms) = answered(&mut node, &both([0, 0], 1 << 20, 2_000), &[(0, 0), (1, 0), (0, BATCH)]);
        let given = given(&answer);
        assert!((2_000..2_500).contains(&ms), "{shards} shards: after {ms} ms");
        assert!(given[0].0 > 20_000 && given[1].0 > 10_000, "{shards} shards: {given:?}");
        assert_eq!([given[0].1, given[1].1], [20, 10], "{shards} shards");
    }
}

#[test]
fn what_was_there_before_counts_with_what_comes() {
    for shards in [1, 2] {
        let mut node = node(shards);
        let mut writer = node.connect();
        assert_eq!(node.produce(&mut writer, &produce("t", 0, 0, BATCH, 1_000)), (0, 0));
        let (answer, ms) = answered(&mut node, &both([0, 0], 15_000, 5_000), &[(1, 0), (1, BATCH)]);
        let given = given(&answer);
        assert!(ms < 1_000, "{shards} shards: after {ms} ms, {given:?}");
        assert!(given[0].0 + given[1].0 >= 15_000, "{shards} shards: {given:?}");
    }
}

#[test]
fn the_sum_over_shards_is_what_a_fetch_waits_for() {
    let mut node = node(2);
    // Neither of them has as much as is asked for.
    let (answer, ms) = answered(&mut node, &both([0, 0], 35_000, 5_000), &[(0, 0), (0, BATCH), (1, 0), (1, BATCH)]);
    let first = given(&answer);
    assert!(ms < 1_000 && first[0].0 + first[1].0 >= 35_000, "after {ms} ms, {first:?}");
    // One alone, beyond its share and below the sum.
    let (answer, ms) = answered(&mut node, &both([20, 20], 35_000, 2_000), &[(0, 2 * BATCH), (0, 3 * BATCH)]);
    let second = given(&answer);
    assert!((2_000..2_500).contains(&ms), "after {ms} ms, {second:?}");
    assert!(second[0].0 > 20_000 && second[1].0 == 0, "{second:?}");
}
