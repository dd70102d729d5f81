//! The real binary beside clients that hold its memory: what it takes of the system stays within its budget, and others are served.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;
use support::{Broker, create, fetch, fetch_request, folder, framed, produce};

/// Memory of the only shard, and what may stand beside it: the program, its stacks, connections and partitions.
const MEMORY: usize = 192 << 20;
const BESIDE: usize = 48 << 20;

const SETTINGS: &[&str] = &["shards=1", "memory.max.bytes=192MiB", "shard.pin.enable=false", "log.segment.bytes=16777216"];

/// Sends as much as is taken without waiting.
fn send(stream: &mut TcpStream, mut bytes: &[u8]) {
    stream.set_nonblocking(true).unwrap();
    while let Ok(taken @ 1..) = stream.write(bytes) {
        bytes = &bytes[taken..];
    }
}

#[test]
fn clients_that_hold_memory_do_not_stop_others_nor_take_more_than_there_is() {
    let folder = folder("memory");
    let mut broker = Broker::start(&[&folder], SETTINGS).unwrap();
    let mut good = broker.connect();
    create(&mut good, 2);
    let records = 400;
    for _ in 0..records {
        assert_eq!(produce(&mut good, 1, 1_000_000), 0);
    }
    // Parts of large requests, dribbles, and answers of old data that nobody takes.
    let mut held = Vec::new();
    let part = [&(90u32 << 20).to_be_bytes()[..], &vec![0; 4 << 20]].concat();
    for _ in 0..40 {
        held.push((broker.connect(), part.clone()));
    }
    for _ in 0..400 {
        held.push((broker.connect(), vec![0, 0, 100]));
    }
    for client in 0..60 {
        let one = framed(12, &fetch_request([(1, client * 5)].into_iter(), 8 << 20));
        held.push((broker.connect(), [&one[..], &one, &one].concat()));
    }
    let mut most = 0;
    let began = Instant::now();
    for round in 0..30 {
        for (stream, bytes) in &mut held {
            send(stream, bytes);
        }
        let asked = Instant::now();
        assert_eq!(produce(&mut good, 0, 10_000), 0);
        // Old data that others wait for as well may come at a second try.
        let found = (0..20).any(|_| fetch(&mut good, 1, round * 5).2 > 0);
        assert!(found && asked.elapsed().as_secs() < 10, "round {round}: {:?}", asked.elapsed());
        most = most.max(broker.resident());
    }
    assert!(most <= MEMORY + BESIDE, "{} MiB resident", most >> 20);
    let closed = broker.said().iter().filter(|line| line.contains("while others waited for memory")).count();
    println!("{} MiB resident at most, {closed} connections closed, {:.1} s", most >> 20, began.elapsed().as_secs_f64());
    assert!(closed > 0);
    std::fs::remove_dir_all(&folder).unwrap();
}
