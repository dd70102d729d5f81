//! Disk faults of the files that hold no records: indexes, states of partitions, the openings of a journal, the identity of a data directory.
//! Each is detected and named; an index is made again from its segment; nothing is guessed.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_base::batch::Header;
use millrace_io::sim::{ClientEnd, On, Wrong};
use millrace_log::index::{self, Index};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{Node, config, produce};
use millrace_sim::said;
use std::path::{Path, PathBuf};

const STORAGE: i16 = 56;
const RECORDS: u32 = 10;

struct Scene {
    node: Node,
    end: ClientEnd,
    batches: u32,
}

impl Scene {
    fn new(settings: &[&str]) -> Scene {
        let mut configured = config(1, 1, 128 << 20);
        configured.settings.retain(|setting| !setting.starts_with("log.segment.bytes"));
        configured.settings.push("log.segment.bytes=1048576".to_owned());
        configured.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let node = Node::new(configured);
        let end = node.connect();
        Scene { node, end, batches: 0 }
    }

    fn start(&mut self) -> Result<(), String> {
        self.node.world.heal(NODE);
        self.node.start()?;
        self.end = self.node.connect();
        Ok(())
    }

    fn append(&mut self, record_bytes: usize, batches: usize) {
        for _ in 0..batches {
            let request = produce("t", 0, self.batches * RECORDS, RECORDS, record_bytes);
            assert_eq!(self.node.produce(&mut self.end, &request), (0, i64::from(self.batches * RECORDS)));
            self.batches += 1;
        }
    }

    /// Batches of 10 kB for another partition, so that the journal is used again.
    fn churn(&mut self) {
        self.node.create("others", 1);
        for batch in 0..400 {
            assert_eq!(self.node.produce(&mut self.end, &produce("others", 0, batch * 10, 10, 1_000)).0, 0);
        }
        self.node.run(1_000, |_| false);
    }

    /// Files of topic partitions whose names end so.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let data = Cluster::directory(0);
        let folders = self.node.names(&data).into_iter().map(|name| data.join(name).join("0"));
        let of = |folder: PathBuf| self.node.names(&folder).into_iter().map(move |name| folder.join(name));
        folders.flat_map(of).filter(|path| path.display().to_string().ends_with(ending)).collect()
    }

    /// Every record of the partition is there.
    fn check_whole(&mut self) {
        let (mut offset, end) = (0, i64::from(self.batches * RECORDS));
        while offset < end {
            let (code, batches) = self.node.fetch_batches("t", 0, offset, 1 << 20);
            assert_eq!(code, 0, "at {offset} of {end}");
            offset = Header::parse(batches.last().expect("what was acknowledged is there")).unwrap().next_offset();
        }
    }
}

#[test]
fn an_index_whose_write_is_lost_or_goes_astray_is_made_again_from_its_segment() {
    for wrong in [Wrong::Lost, Wrong::Misdirected(4_096), Wrong::Misdirected(100), Wrong::Flipped] {
        let mut scene = Scene::new(&["log.index.interval.bytes=100"]);
        scene.start().unwrap();
        scene.node.create("t", 1);
        scene.node.fault(".index", On::Write, 0, u32::MAX, wrong);
        scene.append(1_000, 600);
        scene.node.run(500, |_| false);
        scene.node.stop();
        let indexes = scene.files(".index");
        assert!(indexes.len() >= 3, "{indexes:?}");
        // A start looks at their facts, a read at all of them; the start after that makes anew what the read has met.
        said::listen();
        for _ in 0..2 {
            scene.start().unwrap();
            scene.check_whole();
            scene.node.stop();
        }
        let lines = said::listen();
        for path in indexes {
            let told = format!("{} is absent or damaged and is made again from its segment", path.display());
            assert_eq!(lines.iter().filter(|line| line.contains(&told)).count(), 1, "{wrong:?}: {told}: {lines:?}");
            let segment = scene.node.bytes_of(&path.with_extension("log"));
            let base = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let again = Index::decode(&scene.node.bytes_of(&path), base, "").unwrap();
            index::verify(&again, &segment, "").unwrap();
        }
    }
}

impl Scene {
    /// A partition whose state is too large for the journal, stopped.
    fn with_state(meet: impl FnOnce(&Scene)) -> (Scene, PathBuf) {
        let mut scene = Scene::new(&["log.index.interval.bytes=100"]);
        scene.start().unwrap();
        scene.node.create("t", 1);
        meet(&scene);
        scene.append(50, 1_200);
        scene.node.run(1_000, |_| false);
        let folders = scene.files("");
        scene.churn();
        scene.node.stop();
        let is_own = |path: &PathBuf| folders.iter().any(|file| file.parent() == path.parent());
        let path = scene.files(".state").into_iter().find(is_own).expect("its state is in a file");
        (scene, path)
    }

    /// All is read, nothing is written, and the reason names the file.
    fn check_damaged_state(&mut self, path: &Path, what: &str) {
        self.start().unwrap();
        self.check_whole();
        let (code, message) = self.node.try_produce(&mut self.end, &produce("t", 0, 900_000, 1, 100)).unwrap();
        let told = format!("{} at byte ", path.display());
        assert!(code == STORAGE && message.contains(&told) && message.contains("expected"), "{what}: {message}");
        self.node.cluster.kill();
    }
}

#[test]
fn a_bit_flipped_anywhere_in_a_state_file_is_damage_and_all_records_are_read() {
    let (mut scene, path) = Scene::with_state(|_| {});
    let len = scene.node.bytes_of(&path).len();
    for at in (0..32).chain([100, len / 2, len - 1]) {
        assert!(scene.node.world.flip(NODE, &path, at as u64, 3));
        scene.check_damaged_state(&path, &format!("byte {at}"));
        assert!(scene.node.world.flip(NODE, &path, at as u64, 3));
    }
    scene.start().unwrap();
    scene.append(100, 1);
    scene.check_whole();
}

#[test]
fn a_state_file_whose_write_is_lost_or_goes_astray_is_damage_and_all_records_are_read() {
    for wrong in [Wrong::Lost, Wrong::Misdirected(4_096), Wrong::Flipped] {
        let (mut scene, path) = Scene::with_state(|scene| scene.node.fault(".state", On::Write, 0, u32::MAX, wrong));
        scene.check_damaged_state(&path, &format!("{wrong:?}"));
    }
}

#[test]
fn a_slot_of_a_journals_openings_that_is_damaged_is_told_and_written_again() {
    let mut scene = Scene::new(&[]);
    scene.start().unwrap();
    scene.node.create("t", 1);
    scene.append(1_000, 20);
    scene.node.cluster.kill();
    let path = Cluster::directory(0).join("journal/0/openings");
    for at in [0, 7, 8, 9, 16, 20, 28, 36, 44, 100, 4_095].into_iter().flat_map(|at| [at, at + 4_096]) {
        assert!(scene.node.world.flip(NODE, &path, at, 4));
        said::listen();
        scene.start().unwrap();
        let told = format!("{} at byte {}: expected", path.display(), at / 4_096 * 4_096);
        let lines = said::listen();
        assert!(lines.iter().any(|line| line.contains(&told)), "byte {at}: {lines:?}");
        scene.append(1_000, 1);
        scene.check_whole();
        scene.node.cluster.kill();
    }
    for at in [100, 4_196] {
        assert!(scene.node.world.flip(NODE, &path, at, 4));
    }
    let error = scene.start().unwrap_err();
    assert!(error.contains(&path.display().to_string()) && error.contains("expected"), "{error}");
    for at in [100, 4_196] {
        assert!(scene.node.world.flip(NODE, &path, at, 4));
    }
    scene.start().unwrap();
    scene.check_whole();
}

/// Without its opening nothing of a start would count at the next one, and no entry would say that it should.
#[test]
fn openings_whose_write_is_lost_or_goes_astray_end_the_start() {
    for wrong in [Wrong::Lost, Wrong::Misdirected(4_096), Wrong::Flipped] {
        for after in [0, 1] {
            let mut scene = Scene::new(&[]);
            scene.start().unwrap();
            scene.node.create("t", 1);
            scene.append(1_000, 20);
            scene.node.stop();
            scene.node.fault("/openings", On::Write, after, 2, wrong);
            let error = scene.node.start().unwrap_err();
            assert!(error.contains("/data/0/journal/0/openings at byte ") && error.contains("expected"), "{wrong:?}: {error}");
            scene.start().unwrap();
            scene.check_whole();
            scene.append(1_000, 20);
            scene.node.cluster.kill();
            scene.start().unwrap();
            scene.check_whole();
        }
    }
}

#[test]
fn an_identity_whose_write_is_lost_or_goes_astray_is_not_made_anew() {
    for wrong in [Wrong::Lost, Wrong::Misdirected(100), Wrong::Flipped] {
        let mut scene = Scene::new(&[]);
        scene.node.fault("millrace.meta", On::Write, 0, u32::MAX, wrong);
        scene.node.start().unwrap();
        scene.end = scene.node.connect();
        scene.node.create("t", 1);
        scene.append(1_000, 20);
        scene.node.stop();
        let error = scene.start().unwrap_err();
        assert!(error.contains("/data/0") && error.contains("expected"), "{wrong:?}: {error}");
        assert!(scene.start().unwrap_err() == error, "nothing was made in its place");
    }
}
