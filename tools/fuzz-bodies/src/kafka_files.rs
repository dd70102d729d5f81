//! What Apache Kafka keeps: the files beside its segments, one by one, and a folder of all of them that the inspector reads.
//!
//! 1. Of a single file: what is decoded keeps the order that its format promises.
//! 2. Of a folder: `verify`, `show` and `export` come to an end and say something; what is exported raw is whole batches in order; what
//!    `verify` calls clean loses nothing.
//!
//! Batches and snapshots have their CRCs made right, so that what is behind them is reached.

use crate::batch::sealed;
use crate::input::Input;
use crate::meter;
use millrace_base::batch::{HEADER_BYTES, place};
use millrace_base::crc::crc32c;
use millrace_inspect::kafka_formats as formats;
use millrace_inspect::{As, Export, Format, Inspection, Outcome, Show, Verb, Window};
use millrace_log::walk;
use std::fs;
use std::path::{Path, PathBuf};

/// A larger batch is taken as not compressed: what codecs do with it is another target's.
const COMPRESSED_BYTES_MAX: usize = 256;
const SNAPSHOT_CRC: std::ops::Range<usize> = 2..6;

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let kind = choices.u8() % 8;
    if kind == 7 {
        return folder(choices);
    }
    let base = choices.i64();
    let bytes = choices.rest();
    // Every line of a checkpoint is noted, and so is a word of it.
    meter::bounded(128 * bytes.len() + 4096, || one(kind, base, bytes));
}

fn one(kind: u8, base: i64, bytes: &[u8]) {
    match kind {
        0 => {
            let (entries, _) = formats::index(bytes, base);
            assert!(entries.windows(2).all(|two| two[0].place < two[1].place && two[0].offset < two[1].offset));
            assert!(entries.len() * formats::INDEX_ENTRY_BYTES <= bytes.len());
        }
        1 => {
            let (entries, _) = formats::time_index(bytes, base);
            assert!(entries.windows(2).all(|two| two[0].timestamp <= two[1].timestamp && two[0].offset <= two[1].offset));
        }
        2 => {
            let (entries, _) = formats::transaction_index(bytes);
            assert!(entries.iter().all(|entry| 0 <= entry.first && entry.first <= entry.last));
            assert!(entries.windows(2).all(|two| two[0].last < two[1].last));
        }
        3 => {
            if let Ok(producers) = formats::snapshot(bytes) {
                assert_eq!(producers.len() * formats::PRODUCER_BYTES + formats::SNAPSHOT_HEAD_BYTES, bytes.len());
                assert_eq!(bytes[SNAPSHOT_CRC], crc32c(&bytes[SNAPSHOT_CRC.end..]).to_be_bytes());
            }
        }
        4 => {
            if let Ok(epochs) = formats::epochs(bytes) {
                assert!(epochs.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1));
            }
        }
        5 => {
            if let Ok(offsets) = formats::offsets(bytes) {
                assert!(offsets.iter().all(|(topic, _, _)| topic.len() <= bytes.len()));
            }
        }
        _ => {
            if let Ok(id) = formats::partition_metadata(bytes) {
                assert!(bytes.windows(id.to_string().len()).any(|part| part == id.to_string().as_bytes()), "the id stands in the file");
            }
        }
    }
}

/// A folder that goes when the body is through.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn folder(mut choices: Input<'_>) {
    let scratch = Scratch(std::env::temp_dir().join(format!("millrace-fuzz-kafka-{}", std::process::id())));
    let flags = choices.u8();
    let base = choices.i64().rem_euclid(if flags & 1 == 0 { 1 << 12 } else { i64::MAX });
    let partition = scratch.0.join("orders-0");
    fs::create_dir_all(&partition).expect("a temporary folder");
    let write = |path: PathBuf, bytes: &[u8]| fs::write(path, bytes).expect("a temporary folder");
    let beside = |kind: &str| partition.join(format!("{base:020}.{kind}"));
    for name in ["leader-epoch-checkpoint", "partition.metadata"] {
        let bytes = choices.sized();
        if !bytes.is_empty() {
            write(partition.join(name), bytes);
        }
    }
    let snapshot = choices.sized();
    if !snapshot.is_empty() {
        write(beside("snapshot"), &sealed_snapshot(snapshot));
    }
    for kind in ["index", "timeindex", "txnindex"] {
        let bytes = choices.sized();
        if flags & 2 == 0 {
            write(beside(kind), bytes);
        }
    }
    if flags & 4 != 0 {
        write(scratch.0.join(".kafka_cleanshutdown"), b"");
    }
    if flags & 8 != 0 {
        write(scratch.0.join("log-start-offset-checkpoint"), choices.sized());
    }
    write(scratch.0.join("meta.properties"), b"version=1\ncluster.id=c\nnode.id=1\n");
    write(beside("log"), &log(choices));
    all_commands(&scratch.0);
}

pub fn sealed_snapshot(bytes: &[u8]) -> Vec<u8> {
    let mut own = bytes.to_vec();
    if own.len() > SNAPSHOT_CRC.end {
        let crc = crc32c(&own[SNAPSHOT_CRC.end..]);
        own[SNAPSHOT_CRC].copy_from_slice(&crc.to_be_bytes());
    }
    own
}

/// Batches, and what is too short for one as it is.
fn log(mut choices: Input<'_>) -> Vec<u8> {
    let mut log = Vec::new();
    while !choices.is_empty() {
        let bytes = choices.sized();
        if bytes.len() <= HEADER_BYTES {
            log.extend(bytes);
            continue;
        }
        let mut batch = bytes.to_vec();
        if batch.len() > COMPRESSED_BYTES_MAX {
            batch[place::ATTRIBUTES + 1] &= !7;
        }
        log.extend(sealed(&batch));
    }
    log
}

fn all_commands(path: &Path) {
    let told = |verb: Verb, format: Format| {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let inspection = Inspection { path: path.to_owned(), verb, format, progress: false };
        let outcome = millrace_inspect::run(&inspection, &mut out, &mut talk).expect("files that can be read are judged");
        (outcome, out, String::from_utf8(talk).expect("remarks are text"))
    };
    let export = |how: As| {
        Verb::Export(Export { what: vec!["orders".to_owned()], offsets: 0..i64::MAX, times: Window::ALL, how, isolation: None, to: None })
    };
    let (verdict, _, _) = told(Verb::Verify { threads: 1 }, Format::Text);
    let (outcome, raw, talk) = told(export(As::Raw), Format::Text);
    assert!(verdict != Outcome::Clean || outcome == Outcome::Clean, "a clean segment loses nothing: {talk}");
    let mut next = i64::MIN;
    for found in walk::batches(&raw) {
        let header = found.expect("whole batches are exported").header;
        assert!(header.base_offset >= next, "batches are given in order");
        next = header.next_offset();
    }
    let (_, lines, _) = told(export(As::Json), Format::Text);
    assert!(lines.split_inclusive(|byte| *byte == b'\n').all(|line| line.starts_with(b"{\"topic\":\"orders\"") && line.ends_with(b"}\n")));
    let show = Verb::Show(Show { records: true, ..Show::default() });
    let (_, lines, _) = told(show, Format::Json);
    assert!(lines.split_inclusive(|byte| *byte == b'\n').all(|line| line.starts_with(b"{\"kind\":\"") && line.ends_with(b"}\n")));
}
