//! An unlink that fails: it is told with its path, keeps nothing else from going, loses nothing, and the next start does it.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use millrace_base::batch::Header;
use millrace_io::Disk;
use millrace_io::sim::{On, Wrong};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{Node, config, produce, topic};
use millrace_sim::said;
use std::path::{Path, PathBuf};

const RECORDS: u32 = 10;
const EIO: Wrong = Wrong::Error(5);

struct Scene {
    node: Node,
    batches: u32,
}

impl Scene {
    /// A topic with some closed segments.
    fn new() -> Scene {
        let mut configured = config(1, 1, 128 << 20);
        configured.settings.retain(|setting| !setting.starts_with("log.segment.bytes"));
        configured.settings.push("log.segment.bytes=1048576".to_owned());
        let mut node = Node::new(configured);
        node.start().unwrap();
        node.create("t", 1);
        let mut scene = Scene { node, batches: 0 };
        scene.append(50);
        scene.node.run(1_000, |_| false);
        assert!(scene.files(".log").len() >= 4, "{:?}", scene.files(""));
        scene
    }

    /// Batches of 100 kB.
    fn append(&mut self, batches: u32) {
        let mut end = self.node.connect();
        for _ in 0..batches {
            let first = self.batches * RECORDS;
            assert_eq!(self.node.produce(&mut end, &produce("t", 0, first, RECORDS, 10_000)), (0, i64::from(first)));
            self.batches += 1;
        }
    }

    /// Files of topics, replica set 0's apart, whose names end so.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let data = Cluster::directory(0);
        let meta = millrace_base::ids::META_PARTITION.topic.to_string();
        let topics = self.node.names(&data).into_iter().filter(|name| *name != meta && name != "journal" && !name.starts_with("millrace."));
        let folders = topics.map(|name| data.join(name).join("0"));
        let of = |folder: PathBuf| self.node.names(&folder).into_iter().map(move |name| folder.join(name));
        folders.flat_map(of).filter(|path| path.display().to_string().ends_with(ending)).collect()
    }

    fn delete_records(&mut self, to: i64) {
        let mut end = self.node.connect();
        let part = DeleteRecordsPartition::default().with_partition_index(0).with_offset(to);
        let part = DeleteRecordsTopic::default().with_name(topic("t")).with_partitions(vec![part]);
        let request = DeleteRecordsRequest::default().with_topics(vec![part]).with_timeout_ms(5_000);
        let found = self.node.ask(&mut end, 2, &request, 10_000).unwrap().topics[0].partitions[0].clone();
        assert_eq!((found.error_code, found.low_watermark), (0, to));
        self.node.run(500, |_| false);
    }

    fn delete_topic(&mut self) {
        let mut end = self.node.connect();
        let gone = DeleteTopicState::default().with_name(Some(topic("t")));
        let delete = DeleteTopicsRequest::default().with_topics(vec![gone]).with_timeout_ms(5_000);
        assert_eq!(self.node.ask(&mut end, 6, &delete, 5_000).unwrap().responses[0].error_code, 0);
        self.node.run(500, |_| false);
    }

    /// All from an offset on is there, and a batch is taken.
    fn check_whole_from(&mut self, mut offset: i64) {
        let end = i64::from(self.batches * RECORDS);
        while offset < end {
            let (code, batches) = self.node.fetch_batches("t", 0, offset, 1 << 20);
            assert_eq!(code, 0, "at {offset} of {end}");
            offset = Header::parse(batches.last().expect("what was acknowledged is there")).unwrap().next_offset();
        }
        self.append(1);
    }

    fn restart(&mut self) {
        self.node.cluster.kill();
        self.node.start().unwrap();
    }
}

#[track_caller]
fn check_told(path: &Path) {
    let lines = said::listen();
    let told = |line: &String| line.starts_with("WARN") && line.contains(&path.display().to_string()) && line.contains("cannot be removed");
    assert!(lines.iter().any(told), "{} in {lines:?}", path.display());
}

#[test]
fn of_a_segment_below_the_log_start() {
    let mut scene = Scene::new();
    let victim = scene.files(".log")[1].clone();
    let start = 400;
    let name = victim.display().to_string();
    said::listen();
    scene.node.fault(&name, On::Unlink, 0, 1, EIO);
    scene.delete_records(start);
    check_told(&victim);
    let base = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<i64>().unwrap();
    let below: Vec<PathBuf> = scene.files(".log").into_iter().filter(|path| base(path) < start - 100).collect();
    assert_eq!(below, std::slice::from_ref(&victim), "all others have gone");
    scene.check_whole_from(start);
    // A start that meets it too tells it again, and the one after that has removed it.
    scene.node.fault(&name, On::Unlink, 0, 1, EIO);
    scene.restart();
    check_told(&victim);
    scene.check_whole_from(start);
    assert!(scene.files(".log").contains(&victim));
    scene.restart();
    assert!(!scene.files(".log").contains(&victim), "the next start does it");
    scene.check_whole_from(start);
}

#[test]
fn of_a_deleted_topic() {
    let mut scene = Scene::new();
    let victim = scene.files(".log")[1].clone();
    let name = victim.display().to_string();
    said::listen();
    scene.node.fault(&name, On::Unlink, 0, 1, EIO);
    scene.delete_topic();
    check_told(&victim);
    assert_eq!(scene.files(""), std::slice::from_ref(&victim), "all others have gone");
    // Another of that name has nothing to do with it.
    scene.node.create("t", 1);
    scene.batches = 0;
    scene.append(30);
    scene.check_whole_from(0);
    scene.node.fault(&name, On::Unlink, 0, 1, EIO);
    scene.restart();
    check_told(&victim);
    scene.check_whole_from(0);
    scene.restart();
    scene.check_whole_from(0);
    assert!(scene.node.names(victim.parent().unwrap().parent().unwrap()).is_empty(), "the next start does it");
    assert!(!scene.node.names(&Cluster::directory(0)).iter().any(|topic| name.contains(topic.as_str()) && topic.len() > 20));
}

/// A journal file that is not wanted any more, or was not finished, is removed by a start, which says what it cannot do.
#[test]
fn of_a_journal_file() {
    for leaves_unfinished in [true, false] {
        let mut scene = Scene::new();
        scene.node.cluster.kill();
        let folder = Cluster::directory(0).join("journal/0");
        let victim = if leaves_unfinished {
            let victim = folder.join("9.unfinished");
            let how = millrace_io::OpenHow { write: true, create: true, ..millrace_io::OpenHow::default() };
            let mut disk = scene.node.world.disk(NODE);
            let file = disk.open(&victim, how).unwrap();
            disk.close(file);
            victim
        } else {
            let mut changed = scene.node.cluster.config().clone();
            changed.journal.file_bytes *= 2;
            scene.node.configure(changed);
            folder.join(".journal")
        };
        scene.node.fault(victim.file_name().unwrap().to_str().unwrap(), On::Unlink, 0, 1, EIO);
        let error = scene.node.start().unwrap_err();
        assert!(error.contains("remove /data/0/journal/0/"), "{error}");
        assert_eq!(scene.node.world.faults_left(NODE), 0);
        scene.node.start().unwrap();
        scene.check_whole_from(0);
        assert!(!scene.node.names(&folder).iter().any(|name| name.ends_with(".unfinished")));
    }
}
