//! A small directory as Apache Kafka writes it.

use super::NOW;
use millrace_base::batch::{Builder, Header, patch, place};
use millrace_base::crc::crc32c;
use std::fs;
use std::path::{Path, PathBuf};

pub const TOPIC_ID: &str = "lb4FT2bSTeKNHx0xYbFRlw";

/// One batch of two records at `base`, of leader epoch `epoch`.
pub fn batch(base: i64, epoch: i32) -> Vec<u8> {
    let mut builder = Builder::new(NOW + base);
    for offset in base..base + 2 {
        builder.push(NOW + offset, Some(format!("k{offset}").as_bytes()), Some(format!("value {offset:040}").as_bytes()));
    }
    let mut bytes = builder.finish();
    patch(&mut bytes, base, epoch);
    bytes
}

/// A batch of producer 9, in a transaction.
pub fn transactional(base: i64, epoch: i32) -> Vec<u8> {
    of_producer(batch(base, epoch), 1 << 4)
}

/// Its marker.
pub fn marker(base: i64, epoch: i32, commit: bool) -> Vec<u8> {
    let mut builder = Builder::new(NOW + base);
    builder.push(NOW + base, Some(&[0, 0, 0, u8::from(commit)]), Some(&[0; 6]));
    let mut bytes = builder.finish();
    patch(&mut bytes, base, epoch);
    of_producer(bytes, (1 << 4) | (1 << 5))
}

fn of_producer(mut bytes: Vec<u8>, attributes: i16) -> Vec<u8> {
    bytes[place::ATTRIBUTES..place::ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    bytes[place::PRODUCER_ID..place::PRODUCER_ID + 8].copy_from_slice(&9i64.to_be_bytes());
    bytes[place::PRODUCER_EPOCH..place::PRODUCER_EPOCH + 2].copy_from_slice(&0i16.to_be_bytes());
    recrc(&mut bytes);
    bytes
}

pub fn recrc(bytes: &mut [u8]) {
    let crc = crc32c(&bytes[place::ATTRIBUTES..]);
    bytes[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

pub fn file(folder: &Path, base: i64, kind: &str) -> PathBuf {
    folder.join(format!("{base:020}.{kind}"))
}

/// Writes one segment with its indexes.
pub fn segment(folder: &Path, base: i64, batches: &[Vec<u8>], aborted: &[(i64, i64)]) {
    let (mut log, mut index, mut times, mut largest) = (Vec::new(), Vec::new(), Vec::new(), i64::MIN);
    for (number, bytes) in batches.iter().enumerate() {
        let header = Header::parse(bytes).unwrap();
        largest = largest.max(header.max_timestamp);
        let relative = (header.last_offset() - base) as i32;
        if number % 3 == 1 {
            index.extend(relative.to_be_bytes());
            index.extend((log.len() as i32).to_be_bytes());
        }
        if number % 4 == 1 && largest == header.max_timestamp {
            times.extend(largest.to_be_bytes());
            times.extend(relative.to_be_bytes());
        }
        log.extend(bytes);
    }
    let mut transactions = Vec::new();
    for (first, last) in aborted {
        transactions.extend(0i16.to_be_bytes());
        for number in [9, *first, *last, *last] {
            transactions.extend(number.to_be_bytes());
        }
    }
    fs::write(file(folder, base, "log"), log).unwrap();
    fs::write(file(folder, base, "index"), index).unwrap();
    fs::write(file(folder, base, "timeindex"), times).unwrap();
    if !aborted.is_empty() {
        fs::write(file(folder, base, "txnindex"), transactions).unwrap();
    }
}

/// A snapshot of producer 9, whose last offset is `last`.
pub fn snapshot(last: i64) -> Vec<u8> {
    let mut body = 1i32.to_be_bytes().to_vec();
    body.extend(9i64.to_be_bytes());
    body.extend(0i16.to_be_bytes());
    body.extend(5i32.to_be_bytes());
    body.extend(last.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend(NOW.to_be_bytes());
    body.extend(0i32.to_be_bytes());
    body.extend((-1i64).to_be_bytes());
    [&1i16.to_be_bytes()[..], &crc32c(&body).to_be_bytes(), &body].concat()
}

pub fn folder(data: &Path) -> PathBuf {
    data.join("orders-0")
}

/// Segments 0 (offsets 0 to 19), 20 (a transaction that is aborted at 24, one that is committed, and a gap) and 40, which is the last;
/// stopped cleanly.
pub fn build(data: &Path) {
    fs::write(data.join("meta.properties"), "#\nversion=1\ncluster.id=abc\nnode.id=1\n").unwrap();
    fs::write(data.join(".kafka_cleanshutdown"), "{}").unwrap();
    fs::write(data.join("recovery-point-offset-checkpoint"), "0\n1\norders 0 40\n").unwrap();
    fs::write(data.join("log-start-offset-checkpoint"), "0\n0\n").unwrap();
    let folder = folder(data);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("partition.metadata"), format!("version: 0\ntopic_id: {TOPIC_ID}")).unwrap();
    fs::write(folder.join("leader-epoch-checkpoint"), "0\n2\n0 0\n2 30\n").unwrap();
    segment(&folder, 0, &(0..10).map(|n| batch(2 * n, 0)).collect::<Vec<_>>(), &[]);
    let second = [
        transactional(20, 0),
        transactional(22, 0),
        marker(24, 0, false),
        transactional(25, 0),
        marker(27, 0, true),
        batch(30, 2),
        batch(36, 2),
    ];
    segment(&folder, 20, &second, &[(20, 24)]);
    segment(&folder, 40, &(20..30).map(|n| batch(2 * n, 2)).collect::<Vec<_>>(), &[]);
    fs::write(file(&folder, 40, "snapshot"), snapshot(27)).unwrap();
}

/// The offsets of its records, control records included.
pub fn offsets() -> Vec<i64> {
    (0..28).chain([30, 31, 36, 37]).chain(40..60).collect()
}
