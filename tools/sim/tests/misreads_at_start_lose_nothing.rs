//! A read that fails, goes astray or comes with a wrong bit while a node starts, of whatever file: an error or a damage that names the file,
//! never served, never the end of the log. Nothing is written because of it: the next start is whole.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_base::batch::{self, Header};
use millrace_io::sim::{ClientEnd, On, Wrong};
use millrace_log::journal::Options;
use millrace_sim::cluster::NODE;
use millrace_sim::node::{Node, PRODUCE, config, produce};
use millrace_sim::said;

const EIO: i32 = 5;
const STORAGE: i16 = 56;
const CORRUPT: i16 = 2;
const RECORDS: u32 = 10;

/// Reads of a file in one start that go wrong, each in a start of its own.
const READS_MAX: u32 = 12;

struct Scene {
    node: Node,
    /// Acknowledged batches, by topic.
    batches: [u32; 2],
}

const TOPICS: [&str; 2] = ["t", "small"];

impl Scene {
    /// Closed segments, a state file, an active segment with a part-filled block, and what stands in the journal alone.
    fn new() -> Scene {
        let mut configured = config(1, 1, 128 << 20);
        configured.journal = Options { files_max: 4, ..configured.journal };
        configured.settings.retain(|setting| !setting.starts_with("log.segment.bytes"));
        configured.settings.extend(["log.segment.bytes=1048576", "log.index.interval.bytes=100"].map(str::to_owned));
        let mut node = Node::new(configured);
        node.start().unwrap();
        TOPICS.iter().for_each(|name| node.create(name, 1));
        let mut scene = Scene { node, batches: [0; 2] };
        scene.append(1, 50, 1_200);
        scene.append(0, 1_000, 500);
        scene.node.run(1_000, |_| false);
        scene.append(0, 20_000, 1);
        scene.append(1, 100, 20);
        scene.node.run(100, |_| false);
        scene.node.cluster.kill();
        scene
    }

    fn append(&mut self, topic: usize, record_bytes: usize, batches: usize) {
        let mut end = self.node.connect();
        for _ in 0..batches {
            assert_eq!(self.try_append(&mut end, topic, record_bytes), Ok(()));
        }
    }

    /// A batch, or why it is refused.
    fn try_append(&mut self, end: &mut ClientEnd, topic: usize, record_bytes: usize) -> Result<(), String> {
        let first = self.batches[topic] * RECORDS;
        let request = produce(TOPICS[topic], 0, first, RECORDS, record_bytes);
        let answer = self.node.ask(end, PRODUCE, &request, 10_000).expect("produce is answered");
        let part = &answer.responses[0].partition_responses[0];
        if part.error_code == 0 {
            assert_eq!(part.base_offset, i64::from(first), "the log of {} goes on where it ended", TOPICS[topic]);
            self.batches[topic] += 1;
            return Ok(());
        }
        let message = part.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
        if part.error_code == STORAGE { Err(message) } else { Err(format!("code {}: {message}", part.error_code)) }
    }

    /// Reads until the end or the first error; all that comes is what was written. Whether it was all.
    fn read(&mut self, topic: usize) -> bool {
        let (mut offset, end) = (0, i64::from(self.batches[topic] * RECORDS));
        let mut retries = 0;
        while offset < end {
            let (code, batches) = self.node.fetch_batches(TOPICS[topic], 0, offset, 1 << 20);
            assert!([0, STORAGE, CORRUPT].contains(&code), "{} at {offset}: {code}", TOPICS[topic]);
            for bytes in &batches {
                let header: Header = batch::check_stored(bytes).expect("what is served is intact");
                assert_eq!(header.base_offset, offset, "{}", TOPICS[topic]);
                offset = header.next_offset();
            }
            if batches.is_empty() {
                retries += 1;
                if retries > 2 {
                    return false;
                }
            }
        }
        true
    }

    /// A start with a fault, then one without. Whether the fault was met.
    fn check(&mut self, path: &str, after: u32, times: u32, wrong: Wrong) -> bool {
        let what = format!("{wrong:?} of {path} after {after}, {times} times");
        // Of an entry whose header is gone nobody knows the file.
        let named = if path == ".journal" { "/data/0/journal/0" } else { path };
        self.node.fault(path, On::Read, after, times, wrong);
        said::listen();
        let started = self.node.start();
        let is_met = self.node.world.faults_left(NODE) < u64::from(times);
        match started {
            Err(error) => {
                assert!(is_met, "{what}: {error}");
                assert!(error.contains(named), "{what}: {error}");
                assert!(wrong == Wrong::Error(EIO) || error.contains("expected"), "{what}: {error}");
            }
            Ok(()) => {
                for (topic, name) in TOPICS.iter().enumerate() {
                    let is_whole = self.read(topic);
                    let mut end = self.node.connect();
                    match self.try_append(&mut end, topic, 100) {
                        Ok(()) => assert!(is_whole || times > 1, "{what}: {name} ends early and is written"),
                        Err(message) => {
                            assert!(is_met && message.contains(named), "{what}: {name}: {message}");
                            assert!(wrong == Wrong::Error(EIO) || message.contains("at byte"), "{what}: {name}: {message}");
                        }
                    }
                }
            }
        }
        self.node.cluster.kill();
        self.node.world.heal(NODE);
        let told = said::listen();
        self.node.start().unwrap_or_else(|error| panic!("{what}: {error}"));
        for (topic, name) in TOPICS.iter().enumerate() {
            assert!(self.read(topic), "{what}: {name} is whole without the fault; said before: {told:#?}");
            self.append(topic, 100, 1);
        }
        self.node.run(100, |_| false);
        self.node.cluster.kill();
        is_met
    }

    /// Every read of a kind of file goes wrong once, and then all of them.
    fn check_all(&mut self, path: &str, wrongs: &[Wrong]) {
        for wrong in wrongs {
            let met = (0..READS_MAX).take_while(|after| self.check(path, *after, 1, *wrong)).count();
            assert!(met > 0, "{path} is read");
            println!("{path}: {wrong:?} of {met} reads");
        }
        self.check(path, 0, u32::MAX, Wrong::Error(EIO));
    }
}

const ALL: [Wrong; 4] = [Wrong::Error(EIO), Wrong::Misdirected(4_096), Wrong::Misdirected(-512), Wrong::Flipped];

#[test]
fn of_a_journal() {
    let mut scene = Scene::new();
    scene.check_all(".journal", &ALL);
    scene.check_all("/openings", &ALL);
}

#[test]
fn of_a_segment() {
    Scene::new().check_all(".log", &ALL);
}

#[test]
fn of_the_files_beside_them() {
    let mut scene = Scene::new();
    for path in [".index", ".state", "millrace.meta"] {
        scene.check_all(path, &ALL);
    }
}
