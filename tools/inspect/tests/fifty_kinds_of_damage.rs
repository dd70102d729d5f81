//! Damage of every kind that a disk, an operator or a stray write may do to a data directory: each is found, and named with its file and byte.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use millrace_base::batch::{outer_crc, place};
use millrace_base::crc::crc32c;
use millrace_base::ids::{PartitionId, Uuid};
use millrace_base::limits::BLOCK;
use millrace_inspect::Outcome;
use millrace_log::index::Index;
use millrace_log::journal::layout::{self, HEADER_BYTES, Header};
use millrace_log::{paths, state_file};
use std::fs;
use std::path::{Path, PathBuf};
use support::{VERIFY, batch, built, first, flip, inspect, second};

/// The file in which it is found, the byte, and how it is planted.
type Kind = (&'static str, fn(&Path) -> PathBuf, usize, fn(&Path));

fn size() -> usize {
    batch(0, 0).0.size
}

fn at(number: usize) -> usize {
    number * size()
}

fn journal(data: &Path) -> PathBuf {
    paths::journal(data, 0).join("0.journal")
}

fn openings(data: &Path) -> PathBuf {
    paths::journal(data, 0).join("openings")
}

fn folder(data: &Path) -> PathBuf {
    paths::partition(data, first())
}

fn segment(data: &Path) -> PathBuf {
    paths::segment(&folder(data), 20)
}

fn oldest(data: &Path) -> PathBuf {
    paths::segment(&folder(data), 0)
}

fn active(data: &Path) -> PathBuf {
    paths::segment(&folder(data), 40)
}

fn other(data: &Path) -> PathBuf {
    paths::segment(&paths::partition(data, second()), 0)
}

fn index(data: &Path) -> PathBuf {
    paths::index(&folder(data), 20)
}

fn state(data: &Path) -> PathBuf {
    paths::state(&paths::partition(data, second()), state_file::Name { end: 200, again: 0 })
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A byte of batch `number` of the middle segment.
fn hit(data: &Path, number: usize, place: usize) {
    flip(&segment(data), at(number) + place);
}

/// Where each entry of the journal begins.
fn entries(data: &Path) -> Vec<usize> {
    let bytes = fs::read(journal(data)).unwrap();
    (0..bytes.len() / BLOCK).map(|block| block * BLOCK).filter(|at| Header::decode(&bytes[*at..]).is_ok()).collect()
}

/// Changes batch `number` of a segment and makes its CRC right again.
fn rewritten(path: &Path, number: usize, rewrite: impl FnOnce(&mut [u8])) {
    change(path, |bytes| {
        let batch = &mut bytes[at(number)..at(number + 1)];
        rewrite(batch);
        let crc = crc32c(&batch[place::ATTRIBUTES..]);
        batch[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        assert_ne!(outer_crc(batch), 0);
    });
}

fn kinds() -> Vec<Kind> {
    vec![
        ("meta: a value", paths::meta, 89, |data| flip(&paths::meta(data), 60)),
        ("meta: its CRC", paths::meta, 89, |data| change(&paths::meta(data), |bytes| *bytes.iter_mut().rev().nth(1).unwrap() ^= 1)),
        ("meta: cut", paths::meta, 60, |data| change(&paths::meta(data), |bytes| bytes.truncate(60))),
        ("meta: empty", paths::meta, 0, |data| fs::write(paths::meta(data), "").unwrap()),
        ("meta: gone", paths::meta, 0, |data| fs::remove_file(paths::meta(data)).unwrap()),
        ("meta: no text", paths::meta, 0, |data| fs::write(paths::meta(data), [0xff; 90]).unwrap()),
        ("meta: of a newer format", paths::meta, 0, |data| {
            let text = fs::read_to_string(paths::meta(data)).unwrap().replace("format=1", "format=9");
            let body = &text[..text.rfind("crc=").unwrap()];
            fs::write(paths::meta(data), format!("{body}crc={:08x}\n", crc32c(body.as_bytes()))).unwrap();
        }),
        ("openings: both slots", openings, 0, |data| [30, BLOCK + 30].into_iter().for_each(|byte| flip(&openings(data), byte))),
        ("openings: garbage", openings, 0, |data| fs::write(openings(data), vec![0x55; 2 * BLOCK]).unwrap()),
        ("entry: a header", journal, 4096, |data| flip(&journal(data), entries(data)[1] + layout::place::SEQUENCE)),
        ("entry: a magic", journal, 4096, |data| flip(&journal(data), entries(data)[1])),
        ("entry: a payload", journal, 4096 + HEADER_BYTES, |data| flip(&journal(data), entries(data)[1] + HEADER_BYTES + 10)),
        ("entry: its end", journal, 4096 + HEADER_BYTES, |data| flip(&journal(data), entries(data)[2] - 3)),
        (
            "entry: zeros",
            |data| paths::journal(data, 0),
            0,
            |data| {
                let (from, to) = (entries(data)[1], entries(data)[2]);
                change(&journal(data), |bytes| bytes[from..to].fill(0));
            },
        ),
        (
            "entry: another one in its place",
            |data| paths::journal(data, 0),
            0,
            |data| {
                let places = entries(data);
                change(&journal(data), |bytes| {
                    let other = bytes[places[2]..places[2] + BLOCK].to_vec();
                    bytes[places[1]..places[2]].fill(0);
                    bytes[places[1]..places[1] + BLOCK].copy_from_slice(&other);
                });
            },
        ),
        ("entry: of a newer format", journal, 4096, |data| {
            let place = entries(data)[1];
            change(&journal(data), |bytes| {
                bytes[place + layout::place::FORMAT] = 9;
                let crc = crc32c(&bytes[place..place + layout::place::HEADER_CRC]);
                bytes[place + layout::place::HEADER_CRC..place + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            });
        }),
        ("journal: the first file is gone", folder, 0, |data| fs::remove_dir_all(paths::journal(data, 0)).unwrap()),
        ("a record's byte", segment, 399, |data| hit(data, 3, place::RECORDS + 9)),
        ("a record's byte in the oldest segment", oldest, 399, |data| flip(&oldest(data), at(3) + place::RECORDS + 9)),
        ("a record's byte in the active segment", active, 399, |data| flip(&active(data), at(3) + place::RECORDS + 9)),
        ("the last byte of a segment", segment, 2527, |data| change(&segment(data), |bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("a batch's CRC", segment, 399, |data| hit(data, 3, place::CRC)),
        ("attributes", segment, 399, |data| hit(data, 3, place::ATTRIBUTES + 1)),
        ("a timestamp", segment, 399, |data| hit(data, 3, place::MAX_TIMESTAMP + 7)),
        ("a producer id", segment, 399, |data| hit(data, 3, place::PRODUCER_ID + 7)),
        ("a sequence", segment, 399, |data| hit(data, 3, place::BASE_SEQUENCE + 3)),
        ("a count", segment, 399, |data| hit(data, 3, place::COUNT + 3)),
        ("a magic", segment, 399, |data| hit(data, 3, place::MAGIC)),
        ("a length, too large", segment, 399, |data| hit(data, 3, place::LENGTH)),
        ("a length, negative", segment, 399, |data| change(&segment(data), |bytes| bytes[at(3) + place::LENGTH] = 0xff)),
        ("a length, too small", segment, 399, |data| change(&segment(data), |bytes| bytes[at(3) + place::LENGTH + 3] = 1)),
        ("a base offset", segment, 399, |data| hit(data, 3, place::BASE_OFFSET + 7)),
        ("a leader epoch", segment, 0, |data| hit(data, 0, place::EPOCH + 3)),
        ("a last offset, negative, CRC right", segment, 399, |data| {
            rewritten(&segment(data), 3, |batch| batch[place::LAST_OFFSET_DELTA] = 0xff);
        }),
        ("a last offset, too large, CRC right", segment, 532, |data| {
            rewritten(&segment(data), 3, |batch| batch[place::LAST_OFFSET_DELTA + 3] = 5);
        }),
        ("another value, CRC right", segment, 0, |data| rewritten(&segment(data), 0, |batch| batch[place::RECORDS + 20] ^= 1)),
        ("a batch in the place of the next", segment, 532, |data| {
            change(&segment(data), |bytes| bytes.copy_within(at(3)..at(4), at(4)));
        }),
        ("two batches that changed places", segment, 399, |data| {
            change(&segment(data), |bytes| bytes[at(3)..at(5)].rotate_left(size()));
        }),
        ("a batch of another partition", segment, 0, |data| {
            let other = fs::read(other(data)).unwrap();
            change(&segment(data), |bytes| bytes[..size()].copy_from_slice(&other[at(21)..at(22)]));
        }),
        ("a batch that is missing", segment, 399, |data| change(&segment(data), |bytes| drop(bytes.drain(at(3)..at(4))))),
        ("a block of zeros", segment, 399, |data| change(&segment(data), |bytes| bytes[at(3)..at(6)].fill(0))),
        ("a block of garbage", segment, 399, |data| change(&segment(data), |bytes| bytes[at(3)..at(6)].fill(0xa5))),
        ("a segment that is cut", segment, 2650, |data| change(&segment(data), |bytes| bytes.truncate(2650))),
        ("a segment that is empty", segment, 0, |data| fs::write(segment(data), "").unwrap()),
        ("a segment that is gone", active, 0, |data| fs::remove_file(segment(data)).unwrap()),
        ("the oldest segment is gone", folder, 0, |data| fs::remove_file(oldest(data)).unwrap()),
        ("the active segment is gone", active, 0, |data| fs::remove_file(active(data)).unwrap()),
        ("the active segment is cut", active, 1000, |data| change(&active(data), |bytes| bytes.truncate(1000))),
        ("bytes behind a segment", segment, 2660, |data| change(&segment(data), |bytes| bytes.extend(b"more"))),
        ("another segment under its name", segment, 0, |data| assert!(fs::copy(oldest(data), segment(data)).unwrap() > 0)),
        ("index: its facts", index, 0, |data| flip(&index(data), 30)),
        ("index: its entries", index, BLOCK, |data| flip(&index(data), BLOCK + 30)),
        (
            "index: cut",
            |data| paths::index(&folder(data), 0),
            0,
            |data| {
                change(&paths::index(&folder(data), 0), |bytes| bytes.truncate(100)); // a crash leaves that of the newest closed segment alone
            },
        ),
        ("index: another segment's", index, 0, |data| assert!(fs::copy(paths::index(&folder(data), 0), index(data)).unwrap() > 0)),
        ("index: of fewer batches, CRCs right", segment, 2527, |data| {
            let mut fewer = Index::new(20, 300);
            (20..39).for_each(|offset| fewer.add(&batch(offset, offset).0, &batch(offset, offset).1));
            fs::write(index(data), fewer.encode()).unwrap();
        }),
        ("index: of other batches, CRCs right", segment, 0, |data| {
            let mut others = Index::new(20, 300);
            (20..40).for_each(|offset| others.add(&batch(offset, 7).0, &batch(offset, 7).1));
            fs::write(index(data), others.encode()).unwrap();
        }),
        ("state file: its head", state, 0, |data| flip(&state(data), 9)),
        ("state file: its body", state, 0, |data| flip(&state(data), 900)),
        ("state file: cut", state, 0, |data| change(&state(data), |bytes| bytes.truncate(500))),
        ("state file: gone", state, 0, |data| fs::remove_file(state(data)).unwrap()),
        ("a partition's folder is gone", active, 0, |data| fs::remove_dir_all(folder(data)).unwrap()),
        (
            "a partition that no journal knows",
            |data| paths::partition(data, stranger()),
            0,
            |data| {
                fs::create_dir_all(paths::partition(data, stranger())).unwrap();
            },
        ),
    ]
}

fn stranger() -> PartitionId {
    PartitionId { topic: Uuid::from_entropy(7, 7), index: 2 }
}

#[test]
fn each_is_found_and_named() {
    let kinds = kinds();
    assert!(kinds.len() >= 50, "{}", kinds.len());
    let mut missed = Vec::new();
    for (name, file, byte, plant) in kinds {
        let scratch = built();
        plant(&scratch.0);
        let gave = inspect(&VERIFY, &scratch.0);
        let begin = format!("{} at byte {byte}: expected ", file(&scratch.0).display());
        if gave.outcome != Outcome::Damaged || !gave.out.lines().any(|line| line.starts_with(&begin)) {
            missed.push(format!("{name}: no {begin:?} in\n{}", gave.out));
        }
    }
    assert!(missed.is_empty(), "{} missed\n{}", missed.len(), missed.join("\n"));
}
