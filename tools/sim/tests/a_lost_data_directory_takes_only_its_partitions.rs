//! A data directory that fails, is missing or has another in its place, at start and while the node runs.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::fetch_request::FetchRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{DescribeLogDirsRequest, FindCoordinatorRequest, MetadataRequest};
use kafka_protocol::protocol::StrBytes;
use millrace_io::Disk;
use millrace_io::sim::{Fault, On, SimDisk, World, Wrong};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{FETCH, Node, config, fetch, produce, topic};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const METADATA: i16 = 12;
const LOG_DIRS: i16 = 4;
const FIND: i16 = 4;

const PARTITIONS: i32 = 8;
const STORAGE: i16 = 56;
const NO_LEADER: i16 = 5;

fn path(index: usize) -> String {
    Cluster::directory(index).display().to_string()
}

fn remove(disk: &mut SimDisk, folder: &Path) {
    for entry in disk.list(folder).unwrap() {
        let path = folder.join(&entry.name);
        if entry.is_directory { remove(disk, &path) } else { disk.unlink(&path).unwrap() }
    }
    disk.remove_directory(folder).unwrap();
}

fn rename(world: &World, from: usize, to: &str) {
    world.disk(NODE).rename(&Cluster::directory(from), Path::new(to)).unwrap();
}

fn is_there(world: &World, index: usize) -> bool {
    world.disk(NODE).list(&Cluster::directory(index)).is_ok()
}

/// A node with a topic spread over its data directories, and what was acknowledged.
struct Scene {
    node: Node,
    acknowledged: BTreeMap<(String, i32), u32>,
    next: u32,
}

impl Scene {
    fn new(shards: u16) -> Scene {
        let mut node = Node::new(config(shards, 2, 128 << 20));
        node.start().unwrap();
        node.create("t", PARTITIONS);
        let mut scene = Scene { node, acknowledged: BTreeMap::new(), next: 0 };
        scene.produce_all("t");
        scene
    }

    /// A batch to each partition of a topic; those that took theirs.
    fn produce_all(&mut self, name: &str) -> BTreeSet<i32> {
        let mut end = self.node.connect();
        let mut taken = BTreeSet::new();
        for partition in 0..PARTITIONS {
            let (code, base) = self.node.produce(&mut end, &produce(name, partition, self.next, 7, 500));
            self.next += 7;
            if code == 0 {
                let acknowledged = self.acknowledged.entry((name.to_owned(), partition)).or_default();
                assert_eq!(base, i64::from(*acknowledged), "{name}-{partition} goes on where it ended");
                *acknowledged += 7;
                taken.insert(partition);
            } else {
                assert_eq!(code, STORAGE, "{name}-{partition}");
            }
        }
        taken
    }

    /// The partitions whose records are all there; of the others nothing is.
    fn read_all(&mut self, name: &str) -> BTreeSet<i32> {
        let mut end = self.node.connect();
        let mut whole = BTreeSet::new();
        for partition in 0..PARTITIONS {
            let answer =
                self.node.ask::<FetchRequest>(&mut end, FETCH, &fetch(name, [(partition, 0)].into_iter(), 1 << 20), 5_000).unwrap();
            let part = &answer.responses[0].partitions[0];
            match part.error_code {
                0 => {
                    assert_eq!(part.high_watermark, i64::from(self.acknowledged[&(name.to_owned(), partition)]), "{name}-{partition}");
                    assert!(part.records.as_ref().is_some_and(|records| !records.is_empty()));
                    whole.insert(partition);
                }
                code => assert_eq!(code, STORAGE, "{name}-{partition}"),
            }
        }
        whole
    }

    /// The partitions that metadata says are led; the others are offline replicas.
    fn led(&mut self, name: &str) -> BTreeSet<i32> {
        let mut end = self.node.connect();
        let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let answer = self.node.ask(&mut end, METADATA, &request, 5_000).unwrap();
        let (led, offline): (Vec<_>, Vec<_>) = answer.topics[0].partitions.iter().partition(|partition| partition.leader_id.0 == 1);
        for partition in offline {
            assert_eq!((partition.error_code, partition.leader_id.0), (NO_LEADER, -1));
            assert_eq!(partition.offline_replicas, partition.replica_nodes);
        }
        led.into_iter().map(|partition| partition.partition_index).collect()
    }

    /// By path: the error, and how many partitions are listed.
    fn log_dirs(&mut self) -> BTreeMap<String, (i16, usize)> {
        let mut end = self.node.connect();
        let answer = self.node.ask(&mut end, LOG_DIRS, &DescribeLogDirsRequest::default().with_topics(None), 5_000).unwrap();
        let count = |dir: &kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult| {
            dir.topics.iter().map(|topic| topic.partitions.len()).sum()
        };
        answer.results.iter().map(|dir| (dir.log_dir.to_string(), (dir.error_code, count(dir)))).collect()
    }

    /// What holds while the second data directory is not served from. Gives the partitions that are offline.
    fn check_second_is_lost(&mut self) -> BTreeSet<i32> {
        let served = self.produce_all("t");
        assert!(!served.is_empty() && served.len() < PARTITIONS as usize, "{served:?}");
        assert_eq!(self.read_all("t"), served);
        assert_eq!(self.led("t"), served);
        (0..PARTITIONS).filter(|partition| !served.contains(partition)).collect()
    }

    fn check_all_is_served(&mut self) {
        let all: BTreeSet<i32> = (0..PARTITIONS).collect();
        assert_eq!(self.read_all("t"), all, "everything acknowledged is there");
        assert_eq!(self.produce_all("t"), all);
        assert_eq!(self.led("t"), all);
        assert!(self.log_dirs().values().all(|(error, _)| *error == 0));
    }

    fn fault(&self, on: On, error: i32) {
        let fault = Fault { path: format!("{}/", path(1)), on, after: 0, times: u32::MAX, wrong: Wrong::Error(error) };
        self.node.world.add_fault(NODE, fault);
    }
}

#[test]
fn one_that_cannot_be_used_at_start_is_left_alone_until_it_is_repaired() {
    const EIO: i32 = 5;
    const EROFS: i32 = 30;
    for (on, error, shards) in [(On::Name, EIO, 1), (On::Name, EROFS, 2), (On::Read, EIO, 2), (On::Write, EROFS, 1), (On::Sync, EIO, 2)] {
        let mut scene = Scene::new(shards);
        scene.node.stop();
        scene.fault(on, error);
        scene.node.start().unwrap();
        let lost = scene.check_second_is_lost();
        assert_eq!(scene.log_dirs()[&path(1)], (STORAGE, 0), "{on:?}");
        // Nothing new is placed there, though it is asked for.
        scene.node.create("new", PARTITIONS);
        assert_eq!(scene.produce_all("new").len(), PARTITIONS as usize);
        scene.node.stop();
        scene.node.world.heal(NODE);
        scene.node.start().unwrap();
        scene.check_all_is_served();
        assert_eq!(scene.read_all("new").len(), PARTITIONS as usize);
        assert!(!lost.is_empty());
    }
}

#[test]
fn one_that_is_missing_is_not_made_anew() {
    let mut scene = Scene::new(2);
    scene.node.stop();
    rename(&scene.node.world, 1, "/elsewhere");
    for _ in 0..2 {
        scene.node.start().unwrap();
        scene.check_second_is_lost();
        assert_eq!(scene.log_dirs()[&path(1)], (STORAGE, 0));
        assert!(!is_there(&scene.node.world, 1));
        scene.node.stop();
    }
    scene.node.world.disk(NODE).rename(Path::new("/elsewhere"), &Cluster::directory(1)).unwrap();
    scene.node.start().unwrap();
    scene.check_all_is_served();
}

#[test]
fn an_empty_one_in_its_place_is_another() {
    let mut scene = Scene::new(2);
    scene.node.stop();
    rename(&scene.node.world, 1, "/elsewhere");
    scene.node.world.disk(NODE).make_directories(&Cluster::directory(1)).unwrap();
    scene.node.start().unwrap();
    let lost = scene.check_second_is_lost();
    assert_eq!(scene.log_dirs()[&path(1)], (0, 0), "the empty one is served from");
    scene.node.create("new", PARTITIONS);
    assert_eq!(scene.produce_all("new").len(), PARTITIONS as usize);
    assert!(scene.log_dirs()[&path(1)].1 > 0, "and takes what is new");
    scene.node.stop();
    scene.node.start().unwrap();
    assert_eq!(scene.check_second_is_lost(), lost, "the next start does not take it for the old one either");
    assert_eq!(scene.read_all("new").len(), PARTITIONS as usize);
    scene.node.stop();
    // Both at once, each under a path of its own.
    rename(&scene.node.world, 1, "/data/2");
    scene.node.world.disk(NODE).rename(Path::new("/elsewhere"), &Cluster::directory(1)).unwrap();
    scene.node.configure(config(2, 3, 128 << 20));
    scene.node.start().unwrap();
    scene.check_all_is_served();
    assert_eq!(scene.read_all("new").len(), PARTITIONS as usize);
    assert_eq!(scene.log_dirs().len(), 3);
}

#[test]
fn one_that_is_not_in_the_list_any_more_is_known_to_be_missing() {
    let mut scene = Scene::new(1);
    scene.node.stop();
    scene.node.configure(config(1, 1, 128 << 20));
    for _ in 0..2 {
        scene.node.start().unwrap();
        scene.check_second_is_lost();
        assert_eq!(scene.log_dirs()[&path(1)], (STORAGE, 0));
        scene.node.stop();
    }
    scene.node.configure(config(1, 2, 128 << 20));
    scene.node.start().unwrap();
    scene.check_all_is_served();
}

#[test]
fn one_without_its_journals_is_not_begun_anew() {
    let mut scene = Scene::new(2);
    scene.node.stop();
    let journals = Cluster::directory(1).join("journal");
    scene.node.world.disk(NODE).rename(&journals, Path::new("/elsewhere")).unwrap();
    scene.node.start().unwrap();
    scene.check_second_is_lost();
    scene.node.stop();
    scene.node.world.disk(NODE).rename(Path::new("/elsewhere"), &journals).unwrap();
    scene.node.start().unwrap();
    scene.check_all_is_served();
}

#[test]
fn a_node_does_not_start_without_replica_set_0() {
    let refused = |scene: &mut Scene| {
        let error = scene.node.start().unwrap_err();
        scene.node.cluster.kill();
        error
    };
    let mut scene = Scene::new(1);
    scene.node.stop();
    // Missing, then with an empty one in its place, twice: the first attempt must not make a new one of it.
    rename(&scene.node.world, 0, "/elsewhere");
    for _ in 0..2 {
        let error = refused(&mut scene);
        assert!(error.contains("replica set 0") && error.contains("is its disk mounted"), "{error}");
    }
    let mut disk = scene.node.world.disk(NODE);
    remove(&mut disk, &Cluster::directory(0));
    disk.rename(Path::new("/elsewhere"), &Cluster::directory(0)).unwrap();
    drop(disk);
    let fault = Fault { path: format!("{}/", path(0)), on: On::Read, after: 0, times: u32::MAX, wrong: Wrong::Error(5) };
    scene.node.world.add_fault(NODE, fault);
    assert!(refused(&mut scene).contains("/data/0"));
    scene.node.world.heal(NODE);
    // In the other order it is in the second, which is then needed too.
    rename(&scene.node.world, 0, "/data/a");
    rename(&scene.node.world, 1, "/data/0");
    rename_path(&scene.node.world, "/data/a", "/data/1");
    scene.node.start().unwrap();
    scene.check_all_is_served();
    scene.node.stop();
    scene.fault(On::Read, 5);
    assert!(refused(&mut scene).contains("/data/1"));
}

fn rename_path(world: &World, from: &str, to: &str) {
    world.disk(NODE).rename(Path::new(from), Path::new(to)).unwrap();
}

#[test]
fn one_that_another_broker_uses_is_a_refusal() {
    let mut scene = Scene::new(1);
    scene.node.stop();
    let mut other = scene.node.world.disk(NODE);
    assert!(other.lock(&Cluster::directory(1).join("millrace.lock")).unwrap());
    let error = scene.node.start().unwrap_err();
    assert!(error.contains("in use by another broker"), "{error}");
}

#[test]
fn one_that_fails_while_the_node_runs_takes_its_partitions_on_every_shard() {
    let mut scene = Scene::new(2);
    let mut end = scene.node.connect();
    // The partitions of __consumer_offsets are spread as well.
    let find = |keys: std::ops::Range<u32>| {
        let keys = keys.map(|key| StrBytes::from_string(format!("group-{key}"))).collect();
        FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(keys)
    };
    let found = scene.node.ask(&mut end, FIND, &find(0..1), 10_000).unwrap();
    assert_eq!(found.coordinators[0].error_code, 0);
    scene.fault(On::Write, 5);
    // One write in one shard is enough.
    let homes: BTreeSet<i32> = (0..PARTITIONS).collect();
    for partition in homes {
        let (code, _) = scene.node.produce(&mut end, &produce("t", partition, 900_000, 1, 10));
        if code != 0 {
            break;
        }
        *scene.acknowledged.get_mut(&("t".to_owned(), partition)).unwrap() += 1;
    }
    scene.node.run(100, |_| false);
    let lost = scene.check_second_is_lost();
    assert_eq!(lost.len(), PARTITIONS as usize / 2, "both shards' partitions: {lost:?}");
    assert_eq!(scene.log_dirs()[&path(1)], (STORAGE, 0));
    let offsets = scene.led("__consumer_offsets");
    assert!(!offsets.is_empty() && offsets.len() < 8, "{offsets:?}");
    let found = scene.node.ask(&mut end, FIND, &find(0..100), 10_000).unwrap();
    let codes: BTreeSet<i16> = found.coordinators.iter().map(|coordinator| coordinator.error_code).collect();
    assert_eq!(codes, BTreeSet::from([0, 15]), "the groups of the others are served, those there have no coordinator");
    scene.node.world.heal(NODE);
    scene.node.cluster.kill();
    scene.node.start().unwrap();
    // What was refused with an unknown outcome may be there too; nothing acknowledged is missing.
    assert_eq!(scene.led("t").len(), PARTITIONS as usize);
    assert_eq!(scene.led("__consumer_offsets").len(), 8);
    assert!(scene.log_dirs().values().all(|(error, _)| *error == 0));
}
