//! The real binary with two data directories, the second of which is missing, is no directory, is empty, or is in use.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use kafka_protocol::messages::DescribeLogDirsRequest;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use support::{Broker, ask, create, fetch, folder, produce};

const PARTITIONS: i32 = 4;
const STORAGE: i16 = 56;

const SETTINGS: &[&str] = &["shards=2", "shard.pin.enable=false"];

/// The partitions that take a record, which has to be their record number `have` + 1, and give all back.
fn served(broker: &Broker, have: i64) -> BTreeSet<i32> {
    let mut client = broker.connect();
    let mut served = BTreeSet::new();
    for partition in 0..PARTITIONS {
        let code = produce(&mut client, partition, 1_000);
        let (read, high_watermark, bytes) = fetch(&mut client, partition, 0);
        assert_eq!(read, code, "partition {partition}");
        if code == 0 {
            assert!(high_watermark > have && bytes > have as usize * 1_000, "{high_watermark} records, {bytes} bytes");
            served.insert(partition);
        } else {
            assert_eq!(code, STORAGE);
        }
    }
    served
}

/// Path, error, total and usable bytes.
fn log_dirs(broker: &Broker) -> Vec<(String, i16, i64, i64)> {
    let answer = ask(&mut broker.connect(), 4, &DescribeLogDirsRequest::default().with_topics(None));
    answer.results.iter().map(|dir| (dir.log_dir.to_string(), dir.error_code, dir.total_bytes, dir.usable_bytes)).collect()
}

/// Bytes in all and free, as the system's own tool has them.
fn file_system(path: &Path) -> (i64, i64) {
    let output = Command::new("df").args(["-B1", "--output=size,avail"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<i64> = text.lines().last().unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect();
    (numbers[0], numbers[1])
}

#[test]
fn one_that_is_missing_or_unusable_takes_its_partitions_and_not_the_node() {
    let folder = folder("lost-data-directory");
    let (first, second, away) = (folder.join("first"), folder.join("second"), folder.join("away"));
    let all: BTreeSet<i32> = (0..PARTITIONS).collect();
    let broker = Broker::start(&[&first, &second], SETTINGS).unwrap();
    create(&mut broker.connect(), PARTITIONS);
    assert_eq!(served(&broker, 0), all);
    drop(broker);

    std::fs::rename(&second, &away).unwrap();
    let broker = Broker::start(&[&first, &second], SETTINGS).unwrap();
    assert_eq!(served(&broker, 1).len(), 2);
    assert!(broker.log.iter().any(|line| line.contains("second is not used") && line.contains("Offline: t-")), "{:?}", broker.log);
    assert!(!second.exists());
    let told = log_dirs(&broker);
    let (total, free) = file_system(&first);
    let of_first = told.iter().find(|dir| dir.0 == first.to_str().unwrap()).unwrap();
    assert!(of_first.1 == 0 && of_first.2 == total && (0..=total).contains(&of_first.3), "{told:?}");
    assert!(of_first.3.abs_diff(free) < 8 << 30, "others may write meanwhile: {free}, {told:?}");
    assert!(told.contains(&(second.to_str().unwrap().to_owned(), STORAGE, -1, -1)), "{told:?}");
    drop(broker);

    std::fs::write(&second, b"no directory").unwrap();
    let broker = Broker::start(&[&first, &second], SETTINGS).unwrap();
    assert_eq!(served(&broker, 2).len(), 2);
    drop(broker);

    std::fs::remove_file(&second).unwrap();
    std::fs::create_dir(&second).unwrap();
    let broker = Broker::start(&[&first, &second], SETTINGS).unwrap();
    assert_eq!(served(&broker, 3).len(), 2, "an empty one is not taken for it");
    drop(broker);

    std::fs::remove_dir_all(&second).unwrap();
    std::fs::rename(&away, &second).unwrap();
    let broker = Broker::start(&[&first, &second], SETTINGS).unwrap();
    assert_eq!(served(&broker, 1), all, "what was acknowledged is back");
    let other = folder.join("other");
    let said = Broker::start(&[&other, &second], SETTINGS).err().unwrap();
    assert!(said.contains("in use by another broker"), "{said}");
    drop(broker);

    std::fs::rename(&first, &away).unwrap();
    let said = Broker::start(&[&first, &second], SETTINGS).err().unwrap();
    assert!(said.contains("replica set 0"), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();
}
