//! What Apache Kafka wrote is listed, shown, verified and exported; what is damaged in it is found and named, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/kafka.rs"]
mod kafka;
mod support;

use kafka::{batch, build, file, folder, offsets, recrc, segment, snapshot};
use millrace_base::batch::{Builder, patch, place};
use millrace_base::prng::Prng;
use millrace_inspect::{As, Export, Format, Outcome, Show, Stats, Verb, Window};
use std::fs;
use std::path::{Path, PathBuf};
use support::{NOW, Scratch, VERIFY, contents, flip, inspect, show, try_inspect, try_inspect_as};

fn built() -> Scratch {
    let scratch = Scratch::new();
    build(&scratch.0);
    scratch
}

fn export() -> Verb {
    Verb::Export(Export { what: Vec::new(), offsets: 0..i64::MAX, times: Window::ALL, how: As::Json, isolation: None, to: None })
}

fn exported(path: &Path) -> Vec<i64> {
    let offset = |line: &str| line.split("\"offset\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    inspect(&export(), path).out.lines().map(offset).collect()
}

#[test]
fn a_clean_directory_is_clean_whatever_is_asked_and_not_changed() {
    let scratch = built();
    let before = contents(&scratch.0);
    let gave = inspect(&VERIFY, &scratch.0);
    assert_eq!((gave.outcome, gave.talk.as_str()), (Outcome::Clean, ""), "{}", gave.out);
    assert!(gave.out.contains("clean; 1 partitions, 3 segments, 27 batches"), "{}", gave.out);
    let ls = inspect(&Verb::Ls, &scratch.0);
    let expected =
        ["stopped cleanly: version 1, cluster.id abc, node.id 1", "orders-0   lb4FT2bSTeKNHx0xYbFRlw  0          60       2", "txnindex"];
    assert!(ls.outcome == Outcome::Clean && expected.iter().all(|words| ls.out.contains(words)), "{}", ls.out);
    assert_eq!(exported(&scratch.0), offsets());
    let gave = inspect(&export(), &scratch.0);
    assert_eq!(gave.outcome, Outcome::Clean, "{}", gave.talk);
    assert!(gave.out.lines().any(|line| line.contains("\"offset\":24,") && line.contains("\"control\":\"abort\"")), "{}", gave.out);
    assert!(gave.out.lines().any(|line| line.contains("\"offset\":27,") && line.contains("\"control\":\"commit\"")), "{}", gave.out);
    let all = Verb::Show(Show { records: true, ..Show::default() });
    let gave = inspect(&all, &scratch.0);
    assert!(gave.outcome == Outcome::Clean && gave.out.contains("24 1700000000024 control: abort of producer 9"), "{}", gave.out);
    let stats = Verb::Stats(Stats { what: Vec::new(), offsets: 0..i64::MAX, times: Window::ALL, headers_only: false, threads: 1 });
    assert!(inspect(&stats, &scratch.0).out.contains("3 transactional and 2 control batches"), "{}", inspect(&stats, &scratch.0).out);
    for verb in [VERIFY, Verb::Ls, all, stats] {
        for line in try_inspect_as(&verb, &scratch.0, Format::Json).unwrap().out.lines() {
            assert!(line.starts_with("{\"kind\":\""), "{line}");
        }
    }
    assert!(contents(&scratch.0) == before);
}

#[test]
fn every_file_is_shown_by_its_name() {
    let scratch = built();
    for (path, words) in [
        ("orders-0/00000000000000000000.index", "offset            3 at byte"),
        ("orders-0/00000000000000000000.timeindex", "timestamp 1700000000003 at offset 3"),
        ("orders-0/00000000000000000020.txnindex", "aborted: producer 9 offsets 20 to 24, last stable offset 24"),
        ("orders-0/00000000000000000040.snapshot", "producer 9 epoch 0 last sequence 5 at offset 27"),
        ("orders-0/leader-epoch-checkpoint", "epoch 2 begins at offset 30"),
        ("orders-0/partition.metadata", "topic id lb4FT2bSTeKNHx0xYbFRlw"),
        ("recovery-point-offset-checkpoint", "orders-0 40"),
        ("orders-0/00000000000000000040.log", "k40"),
    ] {
        let gave = show(&scratch.0, path);
        assert!(gave.outcome == Outcome::Clean && gave.out.contains(words), "{path}: {}", gave.out);
        let alone = Verb::Show(Show { records: true, ..Show::default() });
        assert_eq!(inspect(&alone, &scratch.0.join(path)).out, gave.out, "{path}");
    }
    assert!(show(&scratch.0, "orders/0").out.contains("k40") && show(&scratch.0, "orders-0").out.contains("k0"));
    assert!(try_inspect(&Verb::Show(Show { what: Some("orders-1".to_owned()), ..Show::default() }), &scratch.0).is_err());
}

#[test]
fn a_folder_and_a_segment_alone_are_read() {
    let scratch = built();
    for path in [folder(&scratch.0), file(&folder(&scratch.0), 40, "log")] {
        assert_eq!(inspect(&VERIFY, &path).outcome, Outcome::Clean);
        assert_eq!(inspect(&Verb::Ls, &path).outcome, Outcome::Clean);
    }
    assert_eq!(exported(&folder(&scratch.0)), offsets());
    assert_eq!(exported(&file(&folder(&scratch.0), 40, "log")), (40..60).collect::<Vec<_>>());
    // A segment of another name, without anything beside it.
    let alone = Scratch::new();
    let copy = file(&alone.0, 40, "log");
    fs::copy(file(&folder(&scratch.0), 40, "log"), &copy).unwrap();
    assert_eq!(inspect(&VERIFY, &copy).outcome, Outcome::Clean);
}

#[test]
fn a_cut_end_is_torn_unless_kafka_was_stopped_cleanly() {
    let scratch = built();
    let last = file(&folder(&scratch.0), 40, "log");
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() - 9]).unwrap();
    assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Damaged);
    fs::remove_file(scratch.0.join(".kafka_cleanshutdown")).unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    let place: usize = (20..29).map(|n| batch(2 * n, 2).len()).sum();
    assert!(
        gave.outcome == Outcome::Torn && gave.out.starts_with(&format!("{} at byte {place}: the end is torn", last.display())),
        "{}",
        gave.out
    );
    assert_eq!(exported(&scratch.0).last(), Some(&57));
    // Preallocated: zeros behind the batches and the entries.
    fs::write(&last, [&bytes[..], &[0; 5000]].concat()).unwrap();
    for kind in ["index", "timeindex"] {
        let path = file(&folder(&scratch.0), 40, kind);
        let mut bytes = fs::read(&path).unwrap();
        bytes.resize(bytes.len() + 12 * 8 * 50, 0);
        fs::write(path, bytes).unwrap();
    }
    let gave = inspect(&VERIFY, &scratch.0);
    assert!(gave.outcome == Outcome::Clean && gave.talk.contains("zeros behind the last batch"), "{}{}", gave.out, gave.talk);
}

/// A kind of damage: the file, the byte at which it is found, and how it is planted.
type Kind = (&'static str, fn(&Path) -> PathBuf, usize, fn(&Path));

fn log(data: &Path) -> PathBuf {
    file(&folder(data), 0, "log")
}

fn middle(data: &Path) -> PathBuf {
    file(&folder(data), 20, "log")
}

fn beside(data: &Path, kind: &str) -> PathBuf {
    file(&folder(data), if kind == "txnindex" { 20 } else { 0 }, kind)
}

fn size() -> usize {
    batch(0, 0).len()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_of_each_kind_is_found_and_named() {
    let third = 3 * size();
    let to = |batches: i64| (0..batches).map(|n| batch(2 * n, 0).len()).sum::<usize>();
    let epochs: fn(&Path) -> PathBuf = |data| folder(data).join("leader-epoch-checkpoint");
    let metadata: fn(&Path) -> PathBuf = |data| folder(data).join("partition.metadata");
    let recovery: fn(&Path) -> PathBuf = |data| data.join("recovery-point-offset-checkpoint");
    let properties: fn(&Path) -> PathBuf = |data| data.join("meta.properties");
    let snapshots: fn(&Path) -> PathBuf = |data| file(&folder(data), 40, "snapshot");
    let index: fn(&Path) -> PathBuf = |data| beside(data, "index");
    let times: fn(&Path) -> PathBuf = |data| beside(data, "timeindex");
    let transactions: fn(&Path) -> PathBuf = |data| beside(data, "txnindex");
    let kinds: Vec<Kind> = vec![
        ("a record", log, third, |data| flip(&log(data), 3 * size() + place::RECORDS + 9)),
        ("a batch's CRC", log, third, |data| flip(&log(data), 3 * size() + place::CRC)),
        ("a batch's length, too large", log, third, |data| flip(&log(data), 3 * size() + place::LENGTH)),
        ("a batch's length, other", log, third, |data| flip(&log(data), 3 * size() + place::LENGTH + 3)),
        ("a magic", log, third, |data| flip(&log(data), 3 * size() + place::MAGIC)),
        ("an older message format", log, third, |data| change(&log(data), |bytes| bytes[3 * size() + place::MAGIC] = 1)),
        ("an offset that goes back", log, third, |data| change(&log(data), |bytes| bytes[3 * size() + 7] = 1)),
        ("an offset of the next segment", log, third, |data| change(&log(data), |bytes| bytes[3 * size() + 6] = 1)),
        ("a negative last offset", log, third, |data| change(&log(data), |bytes| bytes[3 * size() + place::LAST_OFFSET_DELTA] = 0xff)),
        ("zeros in a segment", log, third, |data| change(&log(data), |bytes| bytes[3 * size()..4 * size()].fill(0))),
        ("a cut segment that is not the last", log, to(9), |data| change(&log(data), |bytes| bytes.truncate(bytes.len() - 1))),
        ("text behind the last batch", log, to(10), |data| change(&log(data), |bytes| bytes.extend(b"hello"))),
        ("batches of another segment", middle, 0, |data| assert!(fs::copy(log(data), middle(data)).unwrap() > 0)),
        ("an epoch that is not known", log, third, |data| change(&log(data), |bytes| bytes[3 * size() + place::EPOCH + 3] = 9)),
        ("an epoch that began later", log, third, |data| change(&log(data), |bytes| bytes[3 * size() + place::EPOCH + 3] = 2)),
        ("an index of a length that is none", index, 24, |data| change(&beside(data, "index"), |bytes| bytes.extend([1, 2, 3]))),
        ("an index entry that points elsewhere", index, 8, |data| flip(&beside(data, "index"), 8 + 6)),
        ("an index entry with another offset", index, 8, |data| change(&beside(data, "index"), |bytes| bytes[8 + 3] += 1)),
        ("index entries out of order", index, 16, |data| change(&beside(data, "index"), |bytes| bytes[16 + 3] = 1)),
        ("an index entry that is negative", index, 16, |data| change(&beside(data, "index"), |bytes| bytes[16 + 4] = 0xff)),
        ("an index behind the end", index, 24, |data| {
            change(&beside(data, "index"), |bytes| bytes.extend([0, 0, 0, 19, 0, 0, 0xff, 0]));
        }),
        ("a time index of a length that is none", times, 36, |data| change(&beside(data, "timeindex"), |bytes| bytes.extend([1; 5]))),
        ("a timestamp that no batch has", times, 0, |data| change(&beside(data, "timeindex"), |bytes| bytes[6] ^= 1)),
        ("timestamps out of order", times, 24, |data| change(&beside(data, "timeindex"), |bytes| bytes[24 + 3] = 0)),
        ("a timestamp of another offset", times, 12, |data| change(&beside(data, "timeindex"), |bytes| bytes[12 + 11] += 1)),
        ("a transaction index of another version", transactions, 0, |data| change(&beside(data, "txnindex"), |bytes| bytes[1] = 3)),
        ("a cut transaction index", transactions, 0, |data| change(&beside(data, "txnindex"), |bytes| bytes.truncate(33))),
        ("an aborted transaction without a marker", transactions, 0, |data| change(&beside(data, "txnindex"), |bytes| bytes[25] = 27)),
        ("an aborted transaction of another producer", transactions, 0, |data| change(&beside(data, "txnindex"), |bytes| bytes[9] = 8)),
        ("a transaction that ends before it begins", transactions, 0, |data| change(&beside(data, "txnindex"), |bytes| bytes[25] = 3)),
        ("a snapshot's byte", snapshots, 2, |data| flip(&file(&folder(data), 40, "snapshot"), 30)),
        ("a snapshot's version", snapshots, 0, |data| flip(&file(&folder(data), 40, "snapshot"), 1)),
        ("a cut snapshot", snapshots, 2, |data| change(&file(&folder(data), 40, "snapshot"), |bytes| bytes.truncate(50))),
        ("a snapshot beyond its offset", snapshots, 10, |data| fs::write(file(&folder(data), 40, "snapshot"), snapshot(40)).unwrap()),
        ("an epoch file with words", epochs, 8, |data| {
            fs::write(folder(data).join("leader-epoch-checkpoint"), "0\n2\n0 0\nx y\n").unwrap()
        }),
        ("an epoch file that is cut", epochs, 2, |data| fs::write(folder(data).join("leader-epoch-checkpoint"), "0\n2\n0 0\n").unwrap()),
        ("epochs that go back", epochs, 8, |data| fs::write(folder(data).join("leader-epoch-checkpoint"), "0\n2\n3 0\n2 30\n").unwrap()),
        ("a topic id that is none", metadata, 11, |data| {
            fs::write(folder(data).join("partition.metadata"), "version: 0\ntopic_id: x\n").unwrap()
        }),
        ("a checkpoint of another version", recovery, 0, |data| {
            fs::write(data.join("recovery-point-offset-checkpoint"), "7\n0\n").unwrap()
        }),
        ("a checkpoint with words", recovery, 4, |data| {
            fs::write(data.join("recovery-point-offset-checkpoint"), "0\n1\norders\n").unwrap()
        }),
        ("properties without a cluster", properties, 0, |data| fs::write(data.join("meta.properties"), "node.id=1\n").unwrap()),
    ];
    assert!(kinds.len() >= 40, "{}", kinds.len());
    for (name, path, at, plant) in kinds {
        let scratch = built();
        plant(&scratch.0);
        let gave = inspect(&VERIFY, &scratch.0);
        let begin = format!("{} at byte {at}: ", path(&scratch.0).display());
        assert!(
            gave.outcome == Outcome::Damaged && gave.out.lines().any(|line| line.starts_with(&begin)),
            "{name}: no {begin} in\n{}",
            gave.out
        );
    }
}

#[test]
fn all_but_the_damaged_batch_is_exported() {
    let lost = |offsets: &[i64]| offsets_without(offsets);
    for at in [place::RECORDS + 9, place::CRC, place::LENGTH, place::LENGTH + 2, place::MAGIC] {
        let scratch = built();
        flip(&log(&scratch.0), 3 * size() + at);
        assert_eq!(exported(&scratch.0), lost(&[6, 7]), "byte {at}");
        let gave = inspect(&export(), &scratch.0);
        assert!(gave.outcome == Outcome::Damaged && gave.talk.contains("lost: orders-0: offsets 6 to 7: "), "{}", gave.talk);
    }
    // The offset is not under the CRC, but what is around says it.
    let scratch = built();
    flip(&log(&scratch.0), 3 * size() + place::BASE_OFFSET + 1);
    assert_eq!(exported(&scratch.0), offsets());
    let scratch = built();
    fs::remove_file(middle(&scratch.0)).unwrap();
    assert_eq!(exported(&scratch.0), (0..20).chain(40..60).collect::<Vec<_>>());
}

fn offsets_without(lost: &[i64]) -> Vec<i64> {
    offsets().into_iter().filter(|offset| !lost.contains(offset)).collect()
}

#[test]
fn a_hundred_random_directories_are_clean_and_come_out_whole() {
    for seed in 0..100 {
        let (scratch, mut prng) = (Scratch::new(), Prng::new(seed));
        let folder = scratch.0.join("random-3");
        fs::create_dir_all(&folder).unwrap();
        fs::write(scratch.0.join("meta.properties"), "cluster.id=abc\nnode.id=1\n").unwrap();
        let (mut next, mut all, mut first) = (prng.below(1000) as i64, Vec::new(), None);
        for _ in 0..=prng.below(3) {
            let base = next;
            first = first.or(Some(base));
            let mut batches = Vec::new();
            for _ in 0..=prng.below(30) {
                next += if prng.one_in(4) { prng.below(10) as i64 } else { 0 }; // compacted away
                let mut builder = Builder::new(NOW + next);
                for offset in next..=next + prng.below(4) as i64 {
                    builder.push(NOW + offset, None, Some(&vec![b'v'; prng.below(500) as usize]));
                    all.push(offset);
                }
                let mut bytes = builder.finish();
                patch(&mut bytes, next, 1);
                recrc(&mut bytes);
                next = all.last().unwrap() + 1;
                batches.push(bytes);
            }
            segment(&folder, base, &batches, &[]);
        }
        fs::write(folder.join("leader-epoch-checkpoint"), format!("0\n1\n1 {}\n", first.unwrap())).unwrap();
        let gave = inspect(&VERIFY, &scratch.0);
        assert_eq!(gave.outcome, Outcome::Clean, "seed {seed}: {}", gave.out);
        assert_eq!(exported(&scratch.0), all, "seed {seed}");
    }
}

#[test]
fn whatever_the_bytes_it_ends_in_words() {
    let mut prng = Prng::new(17);
    for _ in 0..60 {
        let scratch = built();
        let files: Vec<PathBuf> = contents(&scratch.0).into_keys().collect();
        for _ in 0..=prng.below(5) {
            let path = &files[prng.below(files.len() as u64) as usize];
            change(path, |bytes| {
                if bytes.is_empty() {
                    return;
                }
                let at = prng.below(bytes.len() as u64) as usize;
                if prng.one_in(4) { bytes.truncate(at) } else { bytes[at] = prng.next_u64() as u8 }
            });
        }
        for verb in [VERIFY, Verb::Ls, export(), Verb::Show(Show { records: true, ..Show::default() })] {
            if let Err(error) = try_inspect(&verb, &scratch.0) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

#[test]
fn lengths_that_lie_cost_no_memory() {
    let scratch = built();
    for (path, len) in
        [(log(&scratch.0), 1u64 << 40), (beside(&scratch.0, "index"), 1 << 40), (folder(&scratch.0).join("partition.metadata"), 1 << 40)]
    {
        let before = fs::metadata(&path).unwrap().len();
        let file = fs::File::options().write(true).open(&path).unwrap();
        if path.extension().is_some_and(|kind| kind == "log") {
            // Sparse, and with something behind the zeros, so that they are read; not that much.
            file.set_len(64 << 20).unwrap();
        } else {
            file.set_len(len).unwrap();
        }
        let _ = inspect(&VERIFY, &scratch.0);
        file.set_len(before).unwrap();
    }
    change(&log(&scratch.0), |bytes| {
        bytes[3 * size() + place::LENGTH..3 * size() + place::LENGTH + 4].copy_from_slice(&i32::MAX.to_be_bytes())
    });
    assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Damaged);
    assert_eq!(exported(&scratch.0), offsets_without(&[6, 7]));
}
