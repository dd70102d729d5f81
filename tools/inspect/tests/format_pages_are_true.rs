//! The pages on file formats in `engine/log/README.md` are drawn from the layout's constants and from the golden bytes, to the last byte.
//!
//! A page that is not true any more is printed as it should be.

#![allow(clippy::unwrap_used, reason = "a test")]

use millrace_base::batch::{Builder, HEADER_BYTES, Header, patch, place};
use millrace_base::ids::{PartitionId, Uuid};
use millrace_base::limits::BLOCK;
use millrace_base::offset::Position;
use millrace_log::index::Index;
use millrace_log::journal::{PayloadRange, Record, contents};
use millrace_log::partition_state::{Checkpoint, LargeAt, PartitionState};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../../engine/log/README.md");

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/formats").join(name)).unwrap()
}

/// How a field's golden bytes are printed.
#[derive(Clone, Copy)]
enum As {
    Text,
    Number,
    BigEndian,
    Crc,
    /// Not printed.
    Bytes,
}

/// Fields back to back from byte 0 to the last one: place, width, name, and what stands in the golden file.
fn drawing(title: &str, bytes: &[u8], fields: &[(&str, usize, As)]) -> String {
    let mut out = format!("{title}\n");
    let mut at = 0;
    for (name, width, how) in fields {
        let field = &bytes[at..at + width];
        let number = |digits: &mut dyn Iterator<Item = &u8>| digits.fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let value = match how {
            As::Text => format!("{:?}", String::from_utf8_lossy(field)),
            As::Number => number(&mut field.iter().rev()).to_string(),
            As::BigEndian => (number(&mut field.iter()) as i64).to_string(),
            As::Crc => format!("{:08x}", number(&mut field.iter().rev())),
            As::Bytes => String::new(),
        };
        writeln!(out, "{}", format!("  {at:>4} {width:>5}  {name:<44} {value}").trim_end()).unwrap();
        at += width;
    }
    assert_eq!(at, bytes.len(), "{title} is drawn whole");
    out
}

fn check(page: &str) {
    assert!(PAGE.contains(page), "engine/log/README.md does not have\n\n{page}");
}

#[test]
fn the_journal_and_the_meta_file() {
    check(&String::from_utf8(golden("journal-v1.txt")).unwrap());
    check(&String::from_utf8(golden("millrace-meta-v1.txt")).unwrap());
}

#[test]
fn the_records_of_an_entry() {
    let (partition, payload) = (PartitionId { topic: Uuid([0; 16]), index: 0 }, PayloadRange { start: 0, len: 0 });
    let raft = |truncate, log_start| Record::Raft { partition, truncate, log_start, step: payload };
    let kinds = [
        ("batches", "base 8, end 8, range 8", Record::Batches { partition, base: 0, end: 1, payload }),
        ("raft", "flags 1 (1: truncates, 2: log start), range 8", raft(None, None)),
        ("raft, truncates", "flags 1, epoch 4, offset 8, range 8", raft(Some(Position::new(0, 0)), None)),
        ("raft, log start", "flags 1, log start 8, range 8", raft(None, Some(0))),
        ("roll", "base 8", Record::Roll { partition, base: 0 }),
        (
            "checkpoint",
            "end 8, segment 8, its bytes 8, range 8",
            Record::Checkpoint { partition, end: 0, segment: 0, segment_bytes: 0, delta: payload },
        ),
        ("state", "range 8", Record::State { partition, state: payload }),
        ("deleted", "", Record::Deleted { partition }),
        (
            "extent",
            "base 8, end 8, segment 8, place 8, bytes 8, crc 4, range 8",
            Record::Extent { partition, base: 0, end: 0, segment: 0, place: 0, bytes: 0, crc: 0, tail: payload },
        ),
        ("damaged", "range 8", Record::Damaged { partition, reason: payload }),
    ];
    let mut page = String::from("record: kind 1, topic id 16, partition 4 (big-endian), then\n");
    for (name, fields, record) in kinds {
        let mut bytes = Vec::new();
        contents::encode(&record, &mut bytes);
        let width: usize = fields.split(", ").filter_map(|field| field.split(' ').find_map(|word| word.parse::<usize>().ok())).sum();
        let width = if name == "raft" { 9 } else { width };
        assert_eq!(bytes.len(), 21 + width, "{name}");
        writeln!(page, "{}", format!("  {:>4} {:>5}  {name:<16} {fields}", bytes[0], bytes.len()).trim_end()).unwrap();
    }
    check(&page);
}

#[test]
fn a_segments_batches() {
    let mut builder = Builder::new(1_700_000_000_000);
    builder.push(1_700_000_000_000, None, Some(b"value"));
    let mut bytes = builder.finish();
    patch(&mut bytes, 1000, 5);
    assert_eq!(place::LENGTH, 8);
    assert_eq!([place::EPOCH, place::MAGIC, place::CRC, place::ATTRIBUTES, place::LAST_OFFSET_DELTA], [12, 16, 17, 21, 23]);
    assert_eq!([place::BASE_TIMESTAMP, place::MAX_TIMESTAMP, place::PRODUCER_ID, place::PRODUCER_EPOCH], [27, 35, 43, 51]);
    assert_eq!([place::BASE_SEQUENCE, place::COUNT, place::RECORDS, HEADER_BYTES], [53, 57, 61, 61]);
    let records = Header::parse(&bytes).unwrap().size - HEADER_BYTES;
    check(&drawing(
        "batch, big-endian",
        &bytes,
        &[
            ("base offset (patched by us)", 8, As::BigEndian),
            ("length: bytes behind this field", 4, As::BigEndian),
            ("leader epoch (patched by us)", 4, As::BigEndian),
            ("magic", 1, As::BigEndian),
            ("CRC-32C of all that follows", 4, As::Bytes),
            ("attributes: codec 3 bits, append time, ...", 2, As::BigEndian),
            ("last offset delta", 4, As::BigEndian),
            ("base timestamp, ms", 8, As::BigEndian),
            ("max timestamp, ms", 8, As::BigEndian),
            ("producer id", 8, As::Bytes),
            ("producer epoch", 2, As::Bytes),
            ("base sequence", 4, As::Bytes),
            ("records", 4, As::BigEndian),
            ("the records, compressed or not", records, As::Bytes),
        ],
    ));
}

fn entry_fields() -> [(&'static str, usize, As); 4] {
    [
        ("entry: offset behind the base", 4, As::Number),
        ("  place", 4, As::Number),
        ("  largest timestamp before it", 8, As::Bytes),
        ("  CRC of the batch's first 21 bytes", 4, As::Crc),
    ]
}

fn facts_fields() -> [(&'static str, usize, As); 4] {
    [
        ("base offset of the segment", 8, As::Number),
        ("end: offset after the last", 8, As::Number),
        ("bytes of batches", 8, As::Number),
        ("largest timestamp, ms; -1: none", 8, As::Number),
    ]
}

#[test]
fn an_index() {
    let bytes = golden("index-v1.bin");
    let index = Index::decode(&bytes, 1000, "index").unwrap();
    let others = 20 * (index.entries().len() - 1);
    let mut fields = vec![("magic", 4, As::Text), ("version", 2, As::Number), ("zero", 2, As::Number)];
    fields.extend(facts_fields());
    fields.extend([("bytes between entries", 4, As::Number), ("entries", 4, As::Number)]);
    fields.extend([("zeros", BLOCK - 4 - 48, As::Bytes), ("CRC of base, block number 0 and this block", 4, As::Crc)]);
    fields.extend(entry_fields());
    fields.extend([
        ("other entries, 204 in a block", others, As::Bytes),
        ("zeros", BLOCK - 4 - 20 - others, As::Bytes),
        ("CRC of base, block number 1 and this block", 4, As::Crc),
    ]);
    check(&drawing("index, little-endian, blocks of 4,096 bytes", &bytes, &fields));
}

#[test]
fn a_state_file() {
    let bytes = golden("state-file-v1.bin");
    check(&drawing(
        "state file, little-endian",
        &bytes,
        &[
            ("magic", 4, As::Text),
            ("version", 2, As::Number),
            ("zero", 2, As::Number),
            ("end of the state", 8, As::Number),
            ("bytes of the body", 4, As::Number),
            ("CRC of the body", 4, As::Crc),
            ("CRC of all in front", 4, As::Crc),
            ("body: the large parts of a partition's state", 4, As::Text),
        ],
    ));
}

#[test]
fn a_partitions_state() {
    let bytes = golden("partition-state-v1.bin");
    let state = PartitionState::decode(&bytes).unwrap();
    let LargeAt::Here(large) = &state.large else { panic!("the golden state is whole") };
    let mut fields = vec![
        ("version", 1, As::Number),
        ("layout of the partition's folder", 1, As::Number),
        ("log start", 8, As::Number),
        ("durable end", 8, As::Number),
        ("log end", 8, As::Number),
        ("base of the active segment", 8, As::Number),
        ("its bytes below the durable end", 8, As::Number),
        ("rolls", 4, As::Number),
        ("  base of a segment that is stated", 8, As::Number),
        ("bytes of consensus state", 4, As::Number),
        ("  consensus state", 9, As::Text),
        ("0: large parts follow, 1, 2: a reference", 1, As::Number),
        ("large parts: version", 1, As::Number),
    ];
    fields.extend(facts_fields());
    fields.extend([("bytes between entries", 4, As::Number), ("entries", 4, As::Number)]);
    fields.push(("  entries as in an index file", 20 * large.index.entries().len(), As::Bytes));
    fields.extend([
        ("producers: version", 1, As::Number),
        ("  through: the offset up to which they hold", 8, As::Number),
        ("  producers", 4, As::Number),
        ("    id", 8, As::Number),
        ("    epoch", 2, As::Number),
        ("    last use, ms", 8, As::Number),
        ("    remembered batches", 1, As::Number),
        ("      first and last sequence, base, end, ms", 5 * 32, As::Bytes),
        ("  uncommitted batches", 4, As::Number),
    ]);
    for _ in 0..2 {
        fields.extend([
            ("    producer id", 8, As::Number),
            ("    epoch", 2, As::Number),
            ("    last use, ms", 8, As::Number),
            ("    end", 8, As::Number),
            ("    1: a batch follows", 1, As::Number),
            ("      first and last sequence, base, end, ms", 32, As::Bytes),
        ]);
    }
    check(&drawing("state, little-endian", &bytes, &fields));
}

#[test]
fn a_partitions_state_beside_its_file() {
    let bytes = golden("partition-state-beside-file-v1.bin");
    let state = PartitionState::decode(&bytes).unwrap();
    let LargeAt::Changed(_, changes) = &state.large else { panic!("the golden state stands beside a file") };
    let in_front = 67; // as in a state that is whole
    let fields = [
        ("0: large parts follow, 1, 2: a reference", 1, As::Number),
        ("  state file: end", 8, As::Number),
        ("    number", 4, As::Number),
        ("    bytes", 4, As::Number),
        ("    CRC of the body", 4, As::Crc),
        ("  2: bytes of what changed since", 4, As::Number),
        ("    as in a checkpoint", changes.encode().len(), As::Bytes),
    ];
    check(&drawing("state beside its file, from byte 67 on", &bytes[in_front..], &fields));
}

#[test]
fn a_checkpoint() {
    let bytes = golden("checkpoint-v1.bin");
    let checkpoint = Checkpoint::decode(&bytes).unwrap();
    let mut fields = vec![("version", 1, As::Number)];
    fields.extend(facts_fields());
    fields.extend([
        ("bytes between entries", 4, As::Number),
        ("new entries", 4, As::Number),
        ("  entries as in an index file", 20 * checkpoint.entries.len(), As::Bytes),
        ("producers' changes", checkpoint.producers.len(), As::Bytes),
    ]);
    check(&drawing("checkpoint, little-endian", &bytes, &fields));
}
