//! `millrace topic produce` and `consume` where they must not give up: a broker that restarts, and records that are large.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{Broker, folder, start_command};

const SETTINGS: &[&str] = &["shards=1", "shard.pin.enable=false"];

/// A port that no connection of this machine is given by chance.
fn free_port() -> u16 {
    let first = 12_000 + (std::process::id() % 10_000) as u16;
    (first..first + 5_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn topic(broker: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.env_clear().env("MILLRACE_BROKERS", broker).arg("topic").args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn records_that_are_each_allowed_are_all_written() {
    let folder = folder("large-records");
    let broker = Broker::start(&[&folder.join("data")], SETTINGS).unwrap();
    let address = broker.address.to_string();
    done(&topic(&address, &["create", "t"]).output().unwrap());
    let sizes = [vec![600_000; 6], vec![300_000; 8], vec![130_000; 20], vec![1_000_000; 2]].concat();
    let lines: String = ('a'..='z').cycle().zip(sizes).map(|(letter, size)| format!("{}\n", letter.to_string().repeat(size))).collect();
    let input = folder.join("lines");
    std::fs::write(&input, &lines).unwrap();
    done(&topic(&address, &["produce", "t", input.to_str().unwrap()]).output().unwrap());
    assert!(done(&topic(&address, &["consume", "t", "-e"]).output().unwrap()) == lines);
}

#[test]
fn a_broker_that_restarts_is_waited_for() {
    let data = folder("restarts").join("data");
    let address = format!("127.0.0.1:{}", free_port());
    let start = || Broker::run(start_command(&address, &[&data], SETTINGS)).unwrap();
    let broker = start();
    done(&topic(&address, &["create", "t", "-p", "1"]).output().unwrap());
    let consume = topic(&address, &["consume", "t", "-n", "40"]).spawn().unwrap();
    let mut produce = topic(&address, &["produce", "t"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = produce.stdin.take().unwrap();
    let mut write = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            writeln!(input, "{number}").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    write(0..20);
    drop(broker); // killed
    write(20..30);
    std::thread::sleep(Duration::from_millis(700));
    let _broker = start();
    write(30..40);
    drop(input);
    done(&produce.wait_with_output().unwrap());
    let expected: String = (0..40).map(|number| format!("{number}\n")).collect();
    assert_eq!(done(&consume.wait_with_output().unwrap()), expected);
}
