//! `millrace recover` as a person runs it.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::path::Path;
use std::process::{Command, Output};
use support::{Broker, create, fetch, folder, produce};

const STORAGE: i16 = 56;
const SETTINGS: &[&str] = &["shards=1", "shard.pin.enable=false"];

fn recover(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.env_clear().args(["recover", "--data-dir"]).arg(data).args(arguments);
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

/// Flips a bit of the `nth` record of 3,000 bytes in the journal.
fn damage(data: &Path, nth: usize) {
    for entry in std::fs::read_dir(data.join("journal/0")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let needle = [b'x'; 3_000];
        let (mut at, mut found) = (0, 0);
        while let Some(next) = bytes.get(at..).and_then(|rest| rest.windows(needle.len()).position(|window| window == needle)) {
            found += 1;
            if found == nth {
                bytes[at + next + 10] ^= 4;
                std::fs::write(&path, bytes).unwrap();
                return;
            }
            at += next + needle.len();
        }
    }
    panic!("the record is in the journal");
}

#[test]
fn it_tells_what_is_lost_and_gives_it_up_only_when_that_is_accepted() {
    let folder = folder("recover");
    let data = folder.join("data");
    let told = recover(&data, &[]);
    assert_eq!(told.status.code(), Some(1));
    assert!(last_line(&told).contains("there is no data directory") && !data.exists(), "{}", last_line(&told));

    let broker = Broker::start(&[&data], SETTINGS).unwrap();
    let mut client = broker.connect();
    create(&mut client, 2);
    for _ in 0..5 {
        assert_eq!(produce(&mut client, 0, 3_000), 0);
        assert_eq!(produce(&mut client, 1, 100), 0);
    }
    std::thread::sleep(std::time::Duration::from_millis(50)); // what is synced is stated
    let told = recover(&data, &[]);
    assert_eq!(told.status.code(), Some(1));
    assert!(last_line(&told).contains("is in use by another broker"), "{}", last_line(&told));
    drop(broker);
    let told = recover(&data, &[]);
    assert_eq!((told.status.code(), &*out(&told)), (Some(0), "no partition is damaged\n"));

    damage(&data, 3);
    let told = recover(&data, &[]);
    assert_eq!(told.status.code(), Some(1));
    let text = out(&told);
    assert!(text.starts_with("t-0 in ") && text.contains("lost: at least 3 records, offsets 2 to 4; offsets 0 to 1 are intact"), "{text}");
    assert!(text.contains("  reason: ") && text.contains("journal/0/0.journal at byte "), "{text}");
    assert_eq!(last_line(&told), "millrace: 1 partition is damaged; `millrace recover --accept-loss` gives up what is said above");
    let json = out(&recover(&data, &["--format", "json"]));
    assert!(
        json.starts_with("{\"partitions\":[{\"partition\":\"t-0\",")
            && json.contains("\"intact_end\":2,\"next_offset\":2,\"lost_end\":5,\"lost_records\":3"),
        "{json}"
    );
    let broker = Broker::start(&[&data], SETTINGS).unwrap();
    let mut client = broker.connect();
    assert_eq!((produce(&mut client, 0, 100), produce(&mut client, 1, 100)), (STORAGE, 0));
    assert_eq!(fetch(&mut client, 0, 0).1, 2);
    drop(broker);

    let told = recover(&data, &["--accept-loss", "--partition", "t-1"]);
    assert_eq!(told.status.code(), Some(1));
    assert_eq!(last_line(&told), "millrace: t-1 is not a damaged partition; those are t-0");
    let told = recover(&data, &["--accept-loss", "--partition", "t-0"]);
    assert_eq!(told.status.code(), Some(0), "{}", last_line(&told));
    assert!(out(&told).contains("given up: at least 3 records"), "{}", out(&told));
    assert_eq!(out(&recover(&data, &[])), "no partition is damaged\n");
    let broker = Broker::start(&[&data], SETTINGS).unwrap();
    let mut client = broker.connect();
    assert_eq!((produce(&mut client, 0, 100), produce(&mut client, 1, 100)), (0, 0));
    assert_eq!((fetch(&mut client, 0, 0).1, fetch(&mut client, 1, 0).1), (3, 7));
    assert!(data.join("damaged").read_dir().unwrap().next().is_some(), "the journal as it was found is kept");
    drop(broker);
    std::fs::remove_dir_all(&folder).unwrap();
}
