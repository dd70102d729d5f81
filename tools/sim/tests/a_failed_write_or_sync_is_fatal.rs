//! A write or a sync that fails, of whatever file: no log of that data directory acknowledges anything more, on any shard, until the node is
//! started again and has recovered it.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::GroupId;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use kafka_protocol::protocol::StrBytes;
use millrace_base::batch::Header;
use millrace_io::sim::{ClientEnd, Loss, On, Wrong};
use millrace_sim::cluster::NODE;
use millrace_sim::node::{Node, config, produce, topic};
use millrace_sim::said;

const EIO: i32 = 5;
const STORAGE: i16 = 56;
const LOAD_IN_PROGRESS: i16 = 14;
const PARTITIONS: usize = 8;
const RECORDS: u32 = 10;

/// What one record of partition 0 weighs; those of the others make batches of 10 kB.
#[derive(Clone, Copy)]
enum First {
    Alike,
    /// Batches of 200 kB, which are appended directly.
    Large,
    /// Batches of 1 kB, each with an index entry, until its state is too large for the journal.
    Small,
}

struct Scene {
    node: Node,
    first: First,
    /// Acknowledged records, by partition.
    ends: [i64; PARTITIONS],
}

impl Scene {
    fn new(first: First) -> Scene {
        let mut configured = config(2, 1, 128 << 20);
        configured.settings.retain(|setting| !setting.starts_with("log.segment.bytes"));
        configured.settings.push("log.segment.bytes=1048576".to_owned());
        configured.settings.push("log.index.interval.bytes=100".to_owned());
        let mut node = Node::new(configured);
        node.start().unwrap();
        node.create("t", PARTITIONS as i32);
        Scene { node, first, ends: [0; PARTITIONS] }
    }

    /// Appends until a batch is refused, to one partition after the other; gives the message of the refusal that all give in the end.
    fn append_until_refused(&mut self, what: &str) -> String {
        let mut end = self.node.connect();
        let mut refused = Vec::new();
        for batch in 0..3_000 {
            let partition = match self.first {
                First::Small if batch < 800 => 0,
                First::Alike | First::Large | First::Small => batch % PARTITIONS,
            };
            let bytes = match self.first {
                First::Large if partition == 0 => 20_000,
                First::Small if batch < 800 => 100,
                First::Alike | First::Large | First::Small => 1_000,
            };
            let request = produce("t", partition as i32, self.ends[partition] as u32 + partition as u32 * 100_000, RECORDS, bytes);
            let Some((code, message)) = self.node.try_produce(&mut end, &request) else { continue };
            match code {
                0 => {
                    assert!(refused.is_empty(), "{what}: acknowledged after another log of the data directory had failed");
                    self.ends[partition] += i64::from(RECORDS);
                }
                _ => {
                    refused.push((code, message));
                    self.node.run(5, |_| false); // the other shard hears of it
                }
            }
            if refused.len() > 3 * PARTITIONS {
                break;
            }
        }
        let last = refused.len().saturating_sub(PARTITIONS);
        assert!(last > 0, "{what} is met");
        for (code, message) in &refused[last..] {
            assert_eq!((*code, message), (STORAGE, &refused[last].1), "{what}");
        }
        refused.swap_remove(last).1
    }

    /// All that was acknowledged is there when the power has gone and come again.
    fn check_whole(&mut self, what: &str) {
        if self.node.cluster.is_up() {
            self.node.cluster.cut_power(Loss::All);
        } else {
            self.node.world.cut_power(NODE, Loss::All);
        }
        self.node.world.heal(NODE);
        self.node.start().unwrap();
        for (partition, acknowledged) in (0..).zip(self.ends) {
            let mut offset = 0;
            while offset < acknowledged {
                let (code, batches) = self.node.fetch_batches("t", partition, offset, 1 << 20);
                assert_eq!(code, 0, "{what}: partition {partition} at {offset} of {acknowledged}");
                let last = batches.last().expect("what was acknowledged is there");
                offset = Header::parse(last).unwrap().next_offset();
            }
        }
    }
}

/// One operation fails; what the refusals say then.
fn check(first: First, path: &str, on: On, after: u32, said: &str) {
    let what = format!("{on:?} of {path} after {after}");
    let mut scene = Scene::new(first);
    scene.node.fault(path, on, after, 1, Wrong::Error(EIO));
    let message = scene.append_until_refused(&what);
    assert!(message.contains(said), "{what}: {message}");
    scene.check_whole(&what);
}

#[test]
fn of_a_journal() {
    check(First::Alike, "/journal/0/", On::Write, 3, "a journal write failed");
    check(First::Alike, "/journal/1/", On::Write, 3, "a journal write failed");
}

/// The write is there, and nobody is told whether it will be after a power cut.
#[test]
fn of_a_journals_sync() {
    check(First::Alike, "/journal/0/0.journal", On::Sync, 3, "a journal write failed");
    check(First::Alike, "/journal/1/", On::Sync, 20, "a journal write failed");
}

#[test]
fn of_a_journal_that_grows() {
    for on in [On::Write, On::Sync] {
        check(First::Alike, ".unfinished", on, 0, "making a journal file failed");
    }
    check(First::Alike, ".unfinished", On::Name, 1, "making a journal file failed"); // its renaming
    check(First::Alike, "/data/0/journal/0", On::Directory, 0, "making a journal file failed");
}

#[test]
fn of_a_segment() {
    check(First::Alike, ".log", On::Write, 3, "a checkpoint of");
    check(First::Alike, ".log", On::Sync, 3, "a checkpoint of");
    check(First::Alike, "/3", On::Directory, 0, "a checkpoint of"); // the folder that the segment's name stands in
}

#[test]
fn of_a_direct_append() {
    check(First::Large, ".log", On::Write, 0, "reserving room for a segment");
    check(First::Large, ".log", On::Sync, 0, "reserving room for a segment");
    check(First::Large, ".log", On::Write, 3, "a direct append failed");
    check(First::Large, ".log", On::Sync, 3, "a direct append failed");
}

#[test]
fn of_an_index() {
    check(First::Alike, ".index", On::Write, 0, "closing a segment of"); // its cutting
    check(First::Alike, ".index", On::Write, 1, "closing a segment of");
    check(First::Alike, ".index", On::Sync, 0, "closing a segment of");
}

#[test]
fn of_a_state_file() {
    check(First::Small, ".state", On::Write, 0, "a state file of");
    check(First::Small, ".state", On::Sync, 0, "a state file of");
}

/// What a member is told when it asks for its group's offsets.
fn committed(node: &mut Node, end: &mut ClientEnd) -> i16 {
    let topic = OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default().with_group_id(GroupId(StrBytes::from_static_str("g"))).with_topics(Some(vec![topic]));
    node.ask(end, 7, &request, 5_000).unwrap().error_code
}

/// librdkafka asks again after this one only: a consumer that was assigned its partitions just before would never read them.
#[test]
fn a_member_that_asks_for_offsets_then_is_told_to_ask_again() {
    let mut scene = Scene::new(First::Alike);
    let mut end = scene.node.connect();
    scene.node.await_coordinator(&mut end, "g", |node, end| committed(node, end) == 0);
    assert_eq!(committed(&mut scene.node, &mut end), 0, "the coordinator has loaded");
    scene.node.fault("/journal/0/", On::Write, 3, 1, Wrong::Error(EIO));
    scene.append_until_refused("a journal's write");
    assert_eq!(committed(&mut scene.node, &mut end), LOAD_IN_PROGRESS);
    drop(end);
    scene.check_whole("a journal's write");
    let mut end = scene.node.connect();
    scene.node.run(1_000, |_| false);
    assert_eq!(committed(&mut scene.node, &mut end), 0, "after the restart");
}

/// A clean stop is no end of the promise: other shards may still be answering.
#[test]
fn of_a_segment_that_is_cut_at_a_clean_stop() {
    for on in [On::Write, On::Sync] {
        let mut scene = Scene::new(First::Alike);
        let mut end = scene.node.connect();
        for batch in 0..600 {
            let partition = batch % PARTITIONS;
            let request = produce("t", partition as i32, scene.ends[partition] as u32, RECORDS, 1_000);
            assert_eq!(scene.node.produce(&mut end, &request), (0, scene.ends[partition]));
            scene.ends[partition] += i64::from(RECORDS);
        }
        drop(end);
        scene.node.run(1_000, |_| false);
        said::listen();
        scene.node.fault(".log", on, 0, 1, Wrong::Error(EIO));
        scene.node.stop();
        let lines = said::listen();
        let failed = |line: &String| line.contains("data directory /data/0 failed: cutting the newest segment of /data/0/");
        assert!(lines.iter().any(failed), "{on:?}: {lines:?}");
        scene.check_whole("the stop");
    }
}
