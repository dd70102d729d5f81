//! A partition whose state is too large for the journal has it in a file. Each time the journal comes round the state is said again; the
//! file is not written again for that, or partitions that nobody writes to would take the disk from those that are busy.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_base::ids::META_PARTITION;
use millrace_io::{Disk, OpenHow};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{Node, config};
use std::path::PathBuf;

/// An index entry of each goes beyond what a small journal takes of a state.
const BATCHES: u32 = 600;
/// Their entries stand beside the file's name, and those of `MANY` do not.
const FEW: u32 = 10;
const MANY: u32 = 500;
const ROUND: u32 = 60;

struct Scene {
    node: Node,
    /// Of the idle partition.
    folder: PathBuf,
    idle: u32,
    busy: u32,
}

impl Scene {
    fn new() -> Scene {
        let mut configured = config(1, 1, 128 << 20);
        configured.settings.extend(["log.index.interval.bytes=100", "journal.direct.append.min.bytes=16777216"].map(str::to_owned));
        let mut node = Node::new(configured);
        node.start().unwrap();
        node.create("idle", 1);
        let mut scene = Scene { node, folder: PathBuf::new(), idle: 0, busy: 0 };
        scene.append_idle(BATCHES);
        let data = Cluster::directory(0);
        let others = ["journal".to_owned(), META_PARTITION.topic.to_string()];
        let topic = scene.node.names(&data).into_iter().find(|name| !others.contains(name) && !name.starts_with("millrace.")).unwrap();
        scene.folder = data.join(topic).join("0");
        scene.node.create("busy", 1);
        scene
    }

    fn append_idle(&mut self, batches: u32) {
        for _ in 0..batches {
            self.node.append("idle", self.idle, 1, 200);
            self.idle += 1;
        }
    }

    /// Two times what the journal's files hold goes through it.
    fn round(&mut self) {
        for _ in 0..ROUND {
            self.node.append("busy", self.busy, 1, 100_000);
            self.busy += 1;
        }
    }

    /// Of the idle partition.
    fn state_files(&self) -> Vec<String> {
        self.node.names(&self.folder).into_iter().filter(|name| name.ends_with(".state")).collect()
    }

    fn start_again(&mut self) {
        self.node.cluster.kill();
        self.node.start().unwrap();
    }

    /// The partition is not damaged: it takes a batch, and each is found where its offset says.
    fn check(&mut self) {
        self.append_idle(1);
        for offset in (0..self.idle).step_by(97).chain([self.idle - 1]) {
            let (error, batches) = self.node.fetch_batches("idle", 0, i64::from(offset), 1 << 10);
            assert_eq!(error, 0);
            assert_eq!(batches[0][..8], u64::from(offset).to_be_bytes());
        }
    }
}

#[test]
fn however_often_the_journal_comes_round() {
    let mut scene = Scene::new();
    scene.round();
    let first = scene.state_files();
    assert_eq!(first.len(), 1);
    scene.round();
    assert_eq!(scene.state_files(), first);
    scene.start_again();
    scene.round();
    scene.check();
    assert_eq!(scene.state_files(), first, "a start goes on with it");

    scene.append_idle(FEW);
    scene.round();
    scene.start_again();
    scene.check();
    scene.round();
    assert_eq!(scene.state_files(), first, "what has changed since stands in the journal");
    scene.start_again();
    scene.check();

    scene.append_idle(MANY);
    scene.round();
    scene.round();
    let second = scene.state_files();
    assert!(second.len() == 1 && second != first, "more than goes to the journal has changed: {second:?}");
    scene.start_again();
    scene.check();
    scene.round();
    assert_eq!(scene.state_files(), second);
}

#[test]
fn over_one_that_was_never_named() {
    let mut scene = Scene::new();
    scene.round();
    // As one that was written when the journal had no room for its name, longer than what is written next.
    for end in BATCHES..=BATCHES + MANY {
        let mut disk = scene.node.world.disk(NODE);
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let file = disk.open(&scene.folder.join(format!("{end:020}.state")), how).unwrap();
        disk.write(file, 0, &[7; 64 << 10]).unwrap();
        disk.sync(file).unwrap();
        disk.close(file);
    }
    scene.append_idle(MANY);
    scene.round();
    scene.start_again();
    scene.check();
}
