//! A fetch that asks for more than it may be given at once is answered at once when there is more: waiting would bring no more bytes. Who reads
//! old records finds the next on their way.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_io::sim::ClientEnd;
use millrace_sim::node::{FETCH, Node, config, fetch, produce};

const MS: u64 = 1_000_000;
const BATCHES: i64 = 40;

/// A node with `batches` in one partition, and who wrote them.
fn filled(batches: i64) -> (Node, ClientEnd) {
    let mut node = Node::new(config(1, 1, 128 << 20));
    node.start().unwrap();
    node.create("t", 1);
    let mut end = node.connect();
    for batch in 0..batches {
        assert_eq!(node.produce(&mut end, &produce("t", 0, batch as u32 * 10, 10, 10_000)), (0, batch * 10));
    }
    (node, end)
}

/// Milliseconds that a fetch takes, and the bytes that it brings.
fn took(node: &mut Node, end: &mut ClientEnd, offset: i64, part_bytes: i32, min_bytes: i32) -> (u64, usize) {
    let mut request = fetch("t", [(0, offset)].into_iter(), part_bytes);
    request = request.with_min_bytes(min_bytes).with_max_wait_ms(5_000).with_max_bytes(50 << 20);
    let before = node.world.now().0;
    let answer = node.ask(end, FETCH, &request, 20_000).unwrap();
    let part = &answer.responses[0].partitions[0];
    assert_eq!(part.error_code, 0);
    ((node.world.now().0 - before) / MS, part.records.as_ref().map_or(0, |records| records.len()))
}

#[test]
fn whether_the_records_are_in_memory_or_in_segments() {
    let (mut node, mut end) = filled(BATCHES);
    for round in ["in memory", "in segments"] {
        for (part_bytes, min_bytes) in [(1 << 20, 1 << 20), (150_000, 1 << 20), (1 << 20, 3 << 20)] {
            let (ms, bytes) = took(&mut node, &mut end, 0, part_bytes, min_bytes);
            assert!(
                ms < 1_000 && (100_000..=1 << 20).contains(&bytes),
                "{round}, {part_bytes} and {min_bytes}: {bytes} bytes after {ms} ms"
            );
        }
        // All that there is is less than what was asked for.
        let (ms, bytes) = took(&mut node, &mut end, BATCHES * 10 - 10, 1 << 20, 1 << 20);
        assert!(ms >= 5_000 && bytes < 200_000, "{round}: {bytes} bytes after {ms} ms");
        node.stop();
        node.start().unwrap();
        end = node.connect();
    }
}

#[test]
fn a_reader_that_goes_on_from_window_to_window_gets_all_of_it_in_order() {
    let (mut node, _) = filled(BATCHES);
    node.stop();
    node.start().unwrap();
    // Two readers, one of which leaves the other's windows behind.
    let mut ends = [node.connect(), node.connect()];
    let mut at = [0_i64, 0];
    while at != [BATCHES * 10, BATCHES * 10] {
        for (reader, step) in [(0, 1), (1, 2)] {
            for _ in 0..step {
                if at[reader] == BATCHES * 10 {
                    continue;
                }
                let request = fetch("t", [(0, at[reader])].into_iter(), 300_000).with_max_bytes(50 << 20);
                let answer = node.ask(&mut ends[reader], FETCH, &request, 20_000).unwrap();
                let records = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
                let mut found = 0;
                for batch in millrace_log::walk::batches(&records) {
                    let batch = batch.unwrap();
                    assert_eq!(batch.header.base_offset, at[reader]);
                    at[reader] = batch.header.next_offset();
                    found += 1;
                }
                assert!(found > 0, "reader {reader} is at {at:?}");
            }
        }
    }
}

/// Reads of files since it was last asked.
fn reads(node: &Node) -> usize {
    node.world.happenings().iter().filter(|happening| happening.what == "read").count()
}

#[test]
fn windows_are_read_before_they_are_asked_for_and_none_of_them_twice() {
    let (mut node, _) = filled(3 * BATCHES);
    node.stop();
    node.start().unwrap();
    let mut end = node.connect();
    // Beside a journal that is written to windows are read in pieces.
    node.run(2_000, |_| false);
    node.world.keep_happenings();
    let (mut at, mut all, mut after) = (0, 0, Vec::new());
    while at < 3 * BATCHES * 10 {
        let request = fetch("t", [(0, at)].into_iter(), 1 << 20).with_max_bytes(50 << 20);
        let answer = node.ask(&mut end, FETCH, &request, 20_000).unwrap();
        let records = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
        let last = millrace_log::walk::batches(&records).last().unwrap().unwrap();
        at = last.header.next_offset();
        node.run(50, |_| false);
        all += node.world.happenings().iter().filter(|happening| happening.what == "read" && happening.len <= 1 << 20).count();
        after.push(all);
    }
    // One ahead of who goes on, then three; at the end of a segment the next one's index is awaited. Each window is read once.
    let ahead = after.iter().enumerate().map(|(fetch, reads)| reads - (fetch + 1)).max();
    assert_eq!((all, ahead), (after.len(), Some(3)), "windows read after each fetch: {after:?}");
}

#[test]
fn readers_of_the_same_old_records_cost_the_device_one_read() {
    let mut node = Node::new(config(1, 1, 128 << 20));
    node.start().unwrap();
    node.create("t", 1);
    let mut end = node.connect();
    // More than the journal holds.
    for batch in 0..4_000 {
        assert_eq!(node.produce(&mut end, &produce("t", 0, batch * 10, 10, 100)), (0, i64::from(batch) * 10));
    }
    node.stop();
    node.start().unwrap();
    let mut ends = [node.connect(), node.connect(), node.connect()];
    // Beside a journal that is written to windows are read in pieces.
    node.run(2_000, |_| false);
    node.world.keep_happenings();
    let before = reads(&node);
    // A batch at a time, each of them asked for by each of them.
    for offset in (0..1_000).step_by(10) {
        for end in &mut ends {
            let answer = node.ask(end, FETCH, &fetch("t", [(0, offset)].into_iter(), 500), 5_000).unwrap();
            let records = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
            let batches: Vec<_> = millrace_log::walk::batches(&records).map(|batch| batch.unwrap().header.base_offset).collect();
            assert_eq!(batches, [offset]);
        }
    }
    let reads = reads(&node) - before;
    // The window, and one more if what was begun for the reader that went on first is not enough for the next.
    assert!((1..=4).contains(&reads), "{reads} reads for 300 fetches of what one window holds");
}
