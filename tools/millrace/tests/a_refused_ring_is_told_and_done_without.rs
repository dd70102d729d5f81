//! The real binary where io_uring is refused, as containers refuse it: by a seccomp filter, which a child takes from the thread that starts it.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use std::collections::BTreeMap;
use std::path::Path;
use support::{Broker, create, fetch, folder, produce, start_command};

/// `io_uring_setup`, `io_uring_enter`, `io_uring_register`: the same numbers on every architecture.
const RING_CALLS: [i64; 3] = [425, 426, 427];

/// What an errno filter of a container's default profile answers.
const EPERM: u32 = 1;

const SETTINGS: [&str; 3] = ["shards=2", "shard.pin.enable=false", "memory.max.bytes=384MiB"];

fn start(folder: &Path, driver: &str) -> Result<Broker, String> {
    let driver = format!("io.driver={driver}");
    let settings: Vec<&str> = SETTINGS.into_iter().chain([driver.as_str()]).collect();
    Broker::run(start_command("127.0.0.1:0", &[folder], &settings))
}

fn start_without_ring(folder: &Path, driver: &'static str) -> Result<Broker, String> {
    let rules = RING_CALLS.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(EPERM), arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    let folder = folder.to_path_buf();
    let under_filter = move || {
        apply_filter(&program).unwrap();
        start(&folder, driver)
    };
    std::thread::spawn(under_filter).join().unwrap()
}

fn warnings(broker: &Broker) -> Vec<&String> {
    broker.log.iter().filter(|line| line.starts_with("WARN") && line.contains("io_uring")).collect()
}

fn serves(broker: &Broker, driver: &str) {
    assert!(broker.log.iter().any(|line| line.contains(" ready ") && line.contains(&format!(" driver={driver} "))), "{:?}", broker.log);
}

#[test]
fn one_warning_names_reason_and_remedy_and_what_one_driver_has_written_the_other_reads() {
    let folder = folder("refused-ring");
    let broker = start_without_ring(&folder, "auto").unwrap();
    serves(&broker, "portable");
    let [warning] = warnings(&broker)[..] else { panic!("{:?}", broker.log) };
    for part in ["refused", "seccomp", "io_uring_setup, io_uring_enter and io_uring_register", "portable"] {
        assert!(warning.contains(part), "{warning:?} does not say {part:?}");
    }
    let mut client = broker.connect();
    create(&mut client, 2);
    for partition in [0, 1, 1] {
        assert_eq!(produce(&mut client, partition, 300_000), 0);
    }
    drop(broker); // killed

    let broker = start(&folder, "auto").unwrap();
    serves(&broker, "uring");
    assert_eq!(warnings(&broker), Vec::<&String>::new());
    let mut client = broker.connect();
    for (partition, records) in [(0, 1), (1, 2)] {
        let (code, high_watermark, bytes) = fetch(&mut client, partition, 0);
        assert!(code == 0 && high_watermark == records && bytes > 300_000, "{code} {high_watermark} {bytes}");
    }
    assert_eq!(produce(&mut client, 0, 5_000), 0);
    broker.stop();

    let broker = start(&folder, "portable").unwrap();
    serves(&broker, "portable");
    assert_eq!(warnings(&broker), Vec::<&String>::new(), "it was asked for");
    let (code, high_watermark, _) = fetch(&mut broker.connect(), 0, 1);
    assert_eq!((code, high_watermark), (0, 2));
    broker.stop();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn who_insists_on_the_ring_is_told_why_there_is_none() {
    let folder = folder("ring-only");
    let said = start_without_ring(&folder, "uring").map(|broker| broker.log.clone()).unwrap_err();
    let line = said.lines().last().unwrap_or_default();
    for part in ["millrace: io_uring is refused", "seccomp", "io.driver=auto"] {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
