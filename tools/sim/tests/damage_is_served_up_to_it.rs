//! A journal that has lost acknowledged entries at rest: their partition is read up to them, the others are as before.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::fetch_request::FetchRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ProduceRequest};
use millrace_io::sim::{Fault, On, Wrong};
use millrace_io::{Disk, OpenHow};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{FETCH, Node, PRODUCE, config, fetch, produce, topic};
use millrace_sim::value::{self, ValueId};
use std::path::{Path, PathBuf};

const PARTITIONS: i32 = 4;
/// The partition that is damaged, and the batch of it.
const VICTIM: i32 = 2;
const LOST: u32 = 3;
const BATCHES: u32 = 6;
const RECORDS: u32 = 7;
const STORAGE: i16 = 56;

fn first_value(partition: i32, batch: u32) -> u32 {
    partition as u32 * 1_000 + batch * RECORDS
}

fn journal_files(node: &Node) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Cluster::directory(0).join("journal/0");
    let mut disk = node.world.disk(NODE);
    let names = disk.list(&folder).unwrap();
    let read = |entry: &millrace_io::Entry| {
        let path = folder.join(&entry.name);
        let file = disk.open(&path, OpenHow::default()).unwrap();
        let mut bytes = vec![0; disk.len(file).unwrap() as usize];
        disk.read(file, 0, &mut bytes).unwrap();
        disk.close(file);
        (path, bytes)
    };
    names.iter().filter(|entry| entry.name.ends_with(".journal")).map(read).collect()
}

/// Flips a bit of a batch wherever the journal holds it.
fn flip(node: &Node, partition: i32, batch: u32) {
    let bytes = value::batch(ValueId::new(1, first_value(partition, batch)), RECORDS, 500, 1_700_000_000_000, None, 0);
    let needle = &bytes[bytes.len() - 400..];
    let mut found = 0;
    for (path, bytes) in journal_files(node) {
        for place in (0..bytes.len().saturating_sub(needle.len())).filter(|place| bytes[*place..].starts_with(needle)) {
            assert!(node.world.flip(NODE, &path, place as u64 + 100, 3));
            found += 1;
        }
    }
    assert!(found > 0, "the batch is in the journal");
}

struct Scene {
    node: Node,
    /// Records acknowledged, by partition.
    ends: [i64; PARTITIONS as usize],
}

impl Scene {
    /// A node that was killed after each partition got some batches, and whose journal was damaged then. `before`: batches of 100 kB that each
    /// partition got earlier, most of which are in segments.
    fn damaged(before: u32) -> Scene {
        let mut node = Node::new(config(1, 1, 128 << 20));
        node.start().unwrap();
        node.create("t", PARTITIONS);
        let mut end = node.connect();
        let mut ends = [0; PARTITIONS as usize];
        for batch in 0..before {
            for partition in 0..PARTITIONS {
                assert_eq!(
                    node.produce(&mut end, &produce("t", partition, 900_000 + batch * 10, 10, 10_000)),
                    (0, ends[partition as usize])
                );
                ends[partition as usize] += 10;
            }
        }
        for batch in 0..BATCHES {
            for partition in 0..PARTITIONS {
                let request = produce("t", partition, first_value(partition, batch), RECORDS, 500);
                assert_eq!(node.produce(&mut end, &request), (0, ends[partition as usize]));
                ends[partition as usize] += i64::from(RECORDS);
            }
        }
        node.run(20, |_| false);
        drop(end);
        node.cluster.kill();
        flip(&node, VICTIM, LOST);
        Scene { node, ends }
    }

    /// The end of what is intact.
    fn intact(&self) -> i64 {
        self.ends[VICTIM as usize] - i64::from((BATCHES - LOST) * RECORDS)
    }

    fn fetch_from(&mut self, partition: i32, offset: i64) -> (i16, i64, usize) {
        let mut end = self.node.connect();
        let request = fetch("t", [(partition, offset)].into_iter(), 1 << 20);
        let answer = self.node.ask::<FetchRequest>(&mut end, FETCH, &request, 5_000).unwrap();
        let part = &answer.responses[0].partitions[0];
        (part.error_code, part.high_watermark, part.records.as_ref().map_or(0, bytes::Bytes::len))
    }

    /// Reads all of a partition; gives where that ended.
    fn read_through(&mut self, partition: i32) -> i64 {
        let mut end = self.node.connect();
        let mut offset = 0;
        loop {
            let request = fetch("t", [(partition, offset)].into_iter(), 1 << 20);
            let answer = self.node.ask::<FetchRequest>(&mut end, FETCH, &request, 5_000).unwrap();
            let part = answer.responses[0].partitions[0].clone();
            assert_eq!(part.error_code, 0, "partition {partition} at {offset}");
            let Some(records) = part.records.filter(|records| !records.is_empty()) else { return offset };
            let mut at = 0;
            while let Some(header) = records.get(at..).and_then(|rest| millrace_base::batch::Header::parse(rest).ok()) {
                assert!(header.base_offset <= offset);
                offset = header.next_offset();
                at += header.size;
            }
        }
    }

    fn check(&mut self) {
        let mut end = self.node.connect();
        let intact = self.intact();
        for partition in 0..PARTITIONS {
            let answer = self.node.ask::<ProduceRequest>(&mut end, PRODUCE, &produce("t", partition, 500_000, 1, 100), 5_000).unwrap();
            let part = &answer.responses[0].partition_responses[0];
            if partition == VICTIM {
                assert_eq!(part.error_code, STORAGE);
                let message = part.error_message.as_ref().unwrap().to_string();
                assert!(message.contains("millrace recover --accept-loss") && message.contains(&format!("offset {intact}")), "{message}");
            } else {
                assert_eq!((part.error_code, part.base_offset), (0, self.ends[partition as usize]));
                self.ends[partition as usize] += 1;
            }
        }
        for partition in 0..PARTITIONS {
            let expected = if partition == VICTIM { intact } else { self.ends[partition as usize] };
            assert_eq!(self.read_through(partition), expected, "partition {partition}");
        }
        assert_eq!(self.fetch_from(VICTIM, intact), (0, intact, 0));
        assert_eq!(self.fetch_from(VICTIM, intact + 1).0, STORAGE, "behind the damage nothing is out of range");
        let part = ListOffsetsPartition::default().with_partition_index(VICTIM).with_current_leader_epoch(-1).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(topic("t")).with_partitions(vec![part]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        assert_eq!(self.node.ask(&mut end, 7, &request, 5_000).unwrap().topics[0].partitions[0].offset, intact);
    }

    /// Writes so much to the other partitions that every journal file is used again.
    fn churn(&mut self) {
        let mut end = self.node.connect();
        for batch in 0..100 {
            for partition in (0..PARTITIONS).filter(|partition| *partition != VICTIM) {
                let (code, base) = self.node.produce(&mut end, &produce("t", partition, 600_000 + batch * 10, 10, 10_000));
                assert_eq!((code, base), (0, self.ends[partition as usize]));
                self.ends[partition as usize] += 10;
            }
        }
    }

    fn kept(&self) -> usize {
        self.node.world.disk(NODE).list(&Cluster::directory(0).join("damaged")).map_or(0, |entries| entries.len())
    }
}

#[test]
fn a_damaged_partition_is_read_up_to_the_damage_and_not_written() {
    for before in [0, 40] {
        let mut scene = Scene::damaged(before);
        scene.node.start().unwrap();
        scene.check();
        assert_eq!(scene.kept(), 1, "the journal as it was found is kept");
        scene.node.stop();
        scene.node.start().unwrap();
        scene.check();
        assert_eq!(scene.kept(), 1);
    }
}

#[test]
fn the_journal_is_used_again_and_still_says_that_it_is_damaged() {
    for before in [0, 40] {
        let mut scene = Scene::damaged(before);
        scene.node.start().unwrap();
        for _ in 0..2 {
            scene.churn();
            scene.check();
            scene.node.cluster.kill();
            scene.node.start().unwrap();
            scene.check();
        }
        assert_eq!(scene.kept(), 1);
    }
}

#[test]
fn what_cannot_be_kept_elsewhere_stays_in_the_journal() {
    let mut scene = Scene::damaged(0);
    let fault = |times| Fault { path: "/damaged/".to_owned(), on: On::Write, after: 0, times, wrong: Wrong::Error(28) };
    scene.node.world.add_fault(NODE, fault(u32::MAX));
    for _ in 0..2 {
        scene.node.start().unwrap();
        scene.check();
        scene.node.cluster.kill();
    }
    scene.node.world.heal(NODE);
    scene.node.start().unwrap();
    assert_eq!(scene.kept(), 1, "what was begun is finished");
    scene.churn();
    scene.check();
}

#[test]
fn others_go_on_as_soon_as_a_damaged_journal_can_be_copied() {
    let mut scene = Scene::damaged(0);
    let fault = Fault { path: "/damaged/".to_owned(), on: On::Write, after: 0, times: u32::MAX, wrong: Wrong::Error(28) };
    scene.node.world.add_fault(NODE, fault);
    scene.node.start().unwrap();
    let mut end = scene.node.connect();
    // The error, or -1 when there is no answer: what a full journal holds back waits.
    let mut append = |scene: &mut Scene, batch: u32| {
        let request = produce("t", 0, 700_000 + batch * 10, 10, 10_000);
        match scene.node.ask::<ProduceRequest>(&mut end, PRODUCE, &request, 15_000) {
            Some(answer) => answer.responses[0].partition_responses[0].error_code,
            None => {
                end = scene.node.connect();
                -1
            }
        }
    };
    let held_up = (0..100).find(|batch| append(&mut scene, *batch) != 0);
    assert!(held_up.is_some(), "the journal is full: it is neither used again nor copied");
    scene.node.world.heal(NODE);
    for batch in 100..200 {
        assert_eq!(append(&mut scene, batch), 0, "without a restart");
    }
    assert_eq!(scene.kept(), 1);
    assert_eq!(scene.read_through(VICTIM), scene.intact());
}

#[test]
fn one_that_cannot_be_read_returns_unless_others_needed_its_place() {
    for churns in [false, true] {
        let mut scene = Scene::damaged(40);
        // This time another one, whose segment is not there.
        let folders = scene.node.world.disk(NODE).list(&Cluster::directory(0)).unwrap();
        let folder = folders.iter().map(|entry| Cluster::directory(0).join(&entry.name).join("1")).find(|folder| {
            scene.node.world.disk(NODE).list(folder).is_ok_and(|entries| entries.iter().any(|entry| entry.name.ends_with(".log")))
        });
        let folder = folder.unwrap();
        scene.node.world.disk(NODE).rename(&folder, Path::new("/elsewhere")).unwrap();
        scene.node.start().unwrap();
        assert_eq!(scene.fetch_from(1, 0).0, STORAGE);
        if churns {
            let mut end = scene.node.connect();
            for batch in 0..100 {
                for partition in [0, 3] {
                    let (code, base) = scene.node.produce(&mut end, &produce("t", partition, 700_000 + batch * 10, 10, 10_000));
                    assert_eq!((code, base), (0, scene.ends[partition as usize]), "others are not held up");
                    scene.ends[partition as usize] += 10;
                }
            }
        }
        scene.node.cluster.kill();
        scene.node.world.disk(NODE).rename(Path::new("/elsewhere"), &folder).unwrap();
        scene.node.start().unwrap();
        match churns {
            true => assert_eq!(scene.fetch_from(1, 0).0, STORAGE, "what is left of it is in the copy"),
            false => scene.check(),
        }
        assert_eq!(scene.kept(), 1);
    }
}

#[test]
fn replica_set_0_is_not_served_up_to_a_damage() {
    let mut node = Node::new(config(1, 1, 128 << 20));
    node.start().unwrap();
    node.create("damaged-here", 1);
    node.create("t", 1);
    node.run(20, |_| false);
    node.cluster.kill();
    let mut found = false;
    for (path, bytes) in journal_files(&node) {
        let needle = b"damaged-here";
        for place in (0..bytes.len() - needle.len()).filter(|place| bytes[*place..].starts_with(needle)) {
            found |= node.world.flip(NODE, &path, place as u64, 1);
        }
    }
    assert!(found);
    let error = node.start().unwrap_err();
    assert!(error.contains("replica set 0"), "{error}");
}
