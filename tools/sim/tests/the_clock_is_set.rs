//! Somebody sets the node's clock, to 1970, back, or days ahead. Segments are rolled by the time that passes, whatever the clock shows. Retention
//! by time goes by the records' timestamps as the clock sees them, or by the time that has passed since they were written where it sees
//! them more than an hour ahead: it neither stops nor takes anything before its time.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{Node, config};
use std::path::PathBuf;

const RECORDS: u32 = 10;
const ROLL_MS: i64 = 2_000;
const RETENTION_MS: i64 = 10_000;
/// For ever.
const KEEP: i64 = -1;
/// Within which the node does what is due: it looks every 100 ms, and writes and removes files.
const SOON_MS: i64 = 1_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

struct Scene {
    node: Node,
    batches: u32,
}

impl Scene {
    fn new(retention_ms: i64) -> Scene {
        let mut configured = config(1, 1, 128 << 20);
        let settings = [
            format!("log.roll.ms={ROLL_MS}"),
            format!("log.retention.ms={retention_ms}"),
            "log.retention.check.interval.ms=100".to_owned(),
        ];
        configured.settings.extend(settings);
        let mut node = Node::new(configured);
        node.start().unwrap();
        node.create("t", 1);
        Scene { node, batches: 0 }
    }

    /// Appends a batch whose records are of now, as the clock shows it; gives the offset behind it.
    fn append(&mut self) -> i64 {
        self.node.append("t", self.batches * RECORDS, RECORDS, 100);
        self.batches += 1;
        i64::from(self.batches * RECORDS)
    }

    fn pass(&mut self, ms: i64) {
        self.node.run(ms as u64, |_| false);
    }

    fn step(&mut self, by_ms: i64) {
        self.node.world.step_wall(NODE, by_ms);
    }

    fn log_start(&mut self) -> i64 {
        self.node.log_start("t")
    }

    /// Nothing below `offset` goes for so long, and then all of it does, soon.
    fn goes_in(&mut self, offset: i64, ms: i64, what: &str) {
        let before = self.log_start();
        assert!(before < offset, "{what}: {before} is before {offset}");
        self.pass(ms - SOON_MS / 2);
        assert!(self.log_start() < offset, "{what}: not before its time");
        self.pass(SOON_MS);
        assert!(self.log_start() >= offset, "{what}: and not later");
    }

    /// Whether the segment that begins at `base` is closed.
    fn is_closed(&self, base: i64) -> bool {
        let data = Cluster::directory(0);
        let folders: Vec<PathBuf> = self.node.names(&data).into_iter().map(|name| data.join(name).join("0")).collect();
        let name = format!("{base:020}.index");
        folders.iter().any(|folder| self.node.names(folder).contains(&name))
    }
}

#[test]
fn a_segment_is_rolled_when_its_time_has_passed() {
    let now = Scene::new(KEEP).node.world.wall(NODE);
    for by_ms in [-now, -3 * DAY_MS, -HOUR_MS / 2, HOUR_MS / 2, 3 * DAY_MS] {
        let mut scene = Scene::new(KEEP);
        for _ in 0..2 {
            let base = scene.append() - i64::from(RECORDS);
            scene.pass(ROLL_MS / 2);
            scene.step(by_ms);
            scene.append();
            scene.pass(ROLL_MS / 2 - SOON_MS / 2);
            assert!(!scene.is_closed(base), "{by_ms} ms: not before its time");
            scene.pass(SOON_MS);
            assert!(scene.is_closed(base), "{by_ms} ms: and not later");
            scene.step(-by_ms); // the second time it has been set right meanwhile
        }
    }
}

#[test]
fn with_a_clock_set_far_back_what_seems_of_the_future_goes_when_its_time_has_passed() {
    let now = Scene::new(KEEP).node.world.wall(NODE);
    for by_ms in [-now, -3 * DAY_MS, -HOUR_MS - 60_000] {
        let mut scene = Scene::new(RETENTION_MS);
        let old = scene.append();
        scene.pass(3_000); // its segment is closed
        scene.step(by_ms);
        let new = scene.append();
        scene.goes_in(old, RETENTION_MS - 3_000, &format!("{by_ms} ms, what was there"));
        scene.goes_in(new, 3_000 - SOON_MS / 2, &format!("{by_ms} ms, what came"));
    }
}

#[test]
fn with_a_clock_set_back_a_little_timestamps_are_believed_and_go_when_it_has_come_to_them() {
    let back_ms = 120_000;
    let mut scene = Scene::new(RETENTION_MS);
    let old = scene.append();
    scene.pass(3_000);
    scene.step(-back_ms);
    scene.append();
    scene.pass(3_000);
    let new = scene.append(); // in a segment of its own
    scene.goes_in(old, back_ms + RETENTION_MS - 6_000, "what was there");
    scene.pass(SOON_MS);
    assert!(scene.log_start() >= new, "and with it what it has kept");
}

#[test]
fn a_clock_set_ahead_ends_the_time_of_what_is_older_by_it_and_of_nothing_else() {
    let mut scene = Scene::new(RETENTION_MS);
    let old = scene.append();
    scene.pass(3_000);
    scene.step(3 * DAY_MS);
    let new = scene.append();
    scene.pass(SOON_MS);
    assert!((old..new).contains(&scene.log_start()), "what was there is three days old by the clock");
    scene.goes_in(new, RETENTION_MS - SOON_MS, "what came");
    // Set right again, what was written meanwhile seems three days of the future.
    let wrong = scene.append();
    scene.pass(3_000);
    scene.step(-3 * DAY_MS);
    let right = scene.append();
    scene.goes_in(wrong, RETENTION_MS - 3_000, "what was written ahead");
    scene.goes_in(right, 3_000 - SOON_MS / 2, "what came then");
}
