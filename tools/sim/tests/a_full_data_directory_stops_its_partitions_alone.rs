//! One data directory of two is without room: produce to its partitions alone is refused, with a message, and goes on by itself when there is
//! room; the other's partitions do not notice.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use kafka_protocol::messages::{DescribeLogDirsRequest, FetchRequest};
use millrace_base::batch::Header;
use millrace_io::Disk;
use millrace_io::sim::{ClientEnd, Loss};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{FETCH, Node, PRODUCE, config, fetch, produce, topic};
use std::collections::BTreeSet;
use std::path::Path;

const PARTITIONS: i32 = 8;
const STORAGE: i16 = 56;
const RECORDS: u32 = 10;
/// Their coordinators lie in both.
const GROUPS: u32 = 4;

/// While one is full: what goes on there does so in the journal's reserve.
const ROUNDS: usize = 6;

/// Room that the data directory has left.
const ROOM: u64 = 600_000;

/// `log.retention.bytes` and `log.segment.bytes`: what is full stays below, the other goes beyond.
const KEPT: u64 = 1 << 20;

fn used(disk: &mut dyn Disk, path: &Path) -> u64 {
    let entries = disk.list(path).unwrap_or_default();
    entries.iter().map(|entry| if entry.is_directory { used(disk, &path.join(&entry.name)) } else { entry.len }).sum()
}

struct Scene {
    node: Node,
    end: ClientEnd,
    /// Acknowledged records, and where the log starts at least, by partition.
    ends: [i64; PARTITIONS as usize],
    starts: [i64; PARTITIONS as usize],
    record_bytes: usize,
    full: String,
}

impl Scene {
    /// The data directory with this number has little room.
    fn new(directory: usize, shards: u16, record_bytes: usize) -> Scene {
        let mut configured = config(shards, 2, 128 << 20);
        // What data may not take of the journal is what the others go on in, as long as it lasts.
        configured.journal.reserve_bytes = configured.journal.file_bytes / 2;
        configured.settings.retain(|setting| !setting.starts_with("log.segment.bytes"));
        let added = ["log.segment.bytes=1048576", "log.retention.bytes=1048576", "log.retention.check.interval.ms=100"];
        configured.settings.extend(added.map(str::to_owned));
        let mut node = Node::new(configured);
        node.start().unwrap();
        node.create("t", PARTITIONS);
        let end = node.connect();
        let full = Cluster::directory(directory).display().to_string();
        let mut scene = Scene { node, end, ends: [0; PARTITIONS as usize], starts: [0; PARTITIONS as usize], record_bytes, full };
        (0..GROUPS).for_each(|group| scene.load_coordinator(group));
        assert_eq!(scene.append_to_all(), BTreeSet::new());
        let path = Cluster::directory(directory);
        let capacity = used(&mut scene.node.world.disk(NODE), &path) + ROOM;
        scene.node.world.set_capacity(NODE, &path, Some(capacity));
        scene
    }

    /// The partitions that lie in the data directory without room.
    fn there(&mut self) -> BTreeSet<i32> {
        let answer = self.node.ask(&mut self.end, 4, &DescribeLogDirsRequest::default().with_topics(None), 5_000).unwrap();
        let of = |dir: &DescribeLogDirsResult| -> Vec<i32> {
            let topics = dir.topics.iter().filter(|found| found.name == topic("t"));
            topics.flat_map(|found| found.partitions.iter().map(|part| part.partition_index)).collect()
        };
        answer.results.iter().filter(|dir| *dir.log_dir == *self.full).flat_map(of).collect()
    }

    /// Whether a batch is taken; a refusal names the data directory.
    fn append(&mut self, partition: i32) -> bool {
        let index = partition as usize;
        let first = self.ends[index] as u32 + partition as u32 * 1_000_000;
        let request = produce("t", partition, first, RECORDS, self.record_bytes);
        let answer = self.node.ask(&mut self.end, PRODUCE, &request, 5_000).expect("produce is answered");
        let part = &answer.responses[0].partition_responses[0];
        let message = part.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
        if part.error_code == 0 {
            assert_eq!(part.base_offset, self.ends[index], "partition {partition}");
            self.ends[index] += i64::from(RECORDS);
            return true;
        }
        let is_told = message.contains(&format!("{} is full", self.full)) && message.contains("as soon as there is room");
        assert!(part.error_code == STORAGE && is_told, "partition {partition}: {} {message}", part.error_code);
        false
    }

    /// A batch to each partition; those that did not take it.
    fn append_to_all(&mut self) -> BTreeSet<i32> {
        (0..PARTITIONS).filter(|partition| !self.append(*partition)).collect()
    }

    /// All that was acknowledged and not deleted is there.
    fn read_all(&mut self) {
        for partition in 0..PARTITIONS {
            let (index, mut offset) = (partition as usize, None);
            loop {
                let request = fetch("t", [(partition, offset.unwrap_or(self.starts[index]))].into_iter(), 1 << 20);
                let answer = self.node.ask::<FetchRequest>(&mut self.end, FETCH, &request, 5_000).unwrap();
                let part = &answer.responses[0].partitions[0];
                // Retention goes on meanwhile.
                if part.error_code == 1 {
                    assert!(part.log_start_offset > offset.unwrap_or(self.starts[index]), "partition {partition}");
                    (self.starts[index], offset) = (part.log_start_offset, None);
                    continue;
                }
                assert_eq!(part.error_code, 0, "partition {partition} is read");
                let mut bytes = part.records.clone().unwrap_or_default();
                let mut next = offset.unwrap_or(self.starts[index]);
                while let Ok(header) = Header::parse(&bytes)
                    && header.size <= bytes.len()
                {
                    bytes = bytes.slice(header.size..);
                    next = header.next_offset();
                }
                offset = Some(next);
                if next >= self.ends[index] {
                    break;
                }
            }
        }
    }

    fn commit(&mut self, group: u32, offset: i64) -> i16 {
        self.node.commit(&mut self.end, &format!("g{group}"), offset)
    }

    fn load_coordinator(&mut self, group: u32) {
        let name = format!("g{group}");
        self.node.await_coordinator(&mut self.end, &name, |node, end| node.commit(end, &name, 1) == 0);
    }

    fn delete_topic(&mut self, name: &str) -> i16 {
        let gone = DeleteTopicState::default().with_name(Some(topic(name)));
        let delete = DeleteTopicsRequest::default().with_topics(vec![gone]).with_timeout_ms(5_000);
        self.node.ask(&mut self.end, 6, &delete, 5_000).unwrap().responses[0].error_code
    }

    /// Moves the log start of a partition by one record.
    fn delete_record(&mut self, partition: i32) {
        let to = self.starts[partition as usize] + 1;
        let part = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(to);
        let part = DeleteRecordsTopic::default().with_name(topic("t")).with_partitions(vec![part]);
        let request = DeleteRecordsRequest::default().with_topics(vec![part]).with_timeout_ms(5_000);
        let found = self.node.ask(&mut self.end, 2, &request, 10_000).unwrap().topics[0].partitions[0].clone();
        assert_eq!(found.error_code, 0, "records of partition {partition} are deleted");
        self.starts[partition as usize] = found.low_watermark;
    }
}

fn check(directory: usize, shards: u16, record_bytes: usize) {
    let mut scene = Scene::new(directory, shards, record_bytes);
    let there = scene.there();
    let elsewhere: Vec<i32> = (0..PARTITIONS).filter(|partition| !there.contains(partition)).collect();
    assert!(!there.is_empty() && !elsewhere.is_empty());
    let mut rounds = 0;
    while scene.append_to_all() != there {
        rounds += 1;
        assert!(rounds < 200, "the data directory is full at last, and nothing else is refused");
    }
    let before = scene.starts;
    let mut refused = 0;
    for round in 0..ROUNDS {
        // The others take twice what they keep.
        for partition in &elsewhere {
            for _ in 0..(2 * KEPT as usize / ROUNDS).div_ceil(RECORDS as usize * record_bytes) {
                assert!(scene.append(*partition), "partition {partition} takes what it is sent");
            }
        }
        // A batch may be taken that the journal has room for.
        refused += there.iter().filter(|partition| !scene.append(**partition)).count();
        for group in 0..GROUPS {
            assert_eq!(scene.commit(group, round as i64 + 2), 0, "commits of both go on, round {round}");
        }
        let made = format!("made-{round}");
        scene.node.create(&made, 1);
        assert_eq!(scene.delete_topic(&made), 0);
        scene.read_all();
        if round < 2 {
            (0..PARTITIONS).for_each(|partition| scene.delete_record(partition));
        }
    }
    assert!(refused >= ROUNDS * there.len() / 2, "{refused} batches were refused");
    scene.node.run(500, |_| false);
    scene.read_all();
    for partition in elsewhere {
        let (start, end) = (scene.starts[partition as usize], scene.ends[partition as usize]);
        assert!(start > before[partition as usize] + 3, "retention of partition {partition} goes on: {start}..{end}");
    }

    scene.node.world.set_capacity(NODE, &Cluster::directory(directory), None);
    let resumes = (0..100).any(|_| {
        scene.node.run(50, |_| false);
        scene.append_to_all().is_empty()
    });
    assert!(resumes, "all go on without a restart");
    for _ in 0..30 {
        assert_eq!(scene.append_to_all(), BTreeSet::new(), "and stay so");
    }
    scene.read_all();
    scene.node.cluster.cut_power(Loss::All);
    scene.node.start().unwrap();
    scene.end = scene.node.connect();
    scene.read_all();
    assert_eq!(scene.append_to_all(), BTreeSet::new());
}

#[test]
fn the_second_one() {
    check(1, 2, 5_000);
}

/// It holds replica set 0 too.
#[test]
fn the_first_one() {
    check(0, 1, 5_000);
}

#[test]
fn with_batches_that_go_straight_to_their_segment() {
    check(1, 1, 20_000);
}
