//! The bytes of every file format that was released stay readable, and are still what is written.
//!
//! `testdata/formats/README.md` says what each file holds and how it came about.

use millrace_base::batch::{Builder, Header, patch, place};
use millrace_base::crc::crc32c;
use millrace_base::ids::Uuid;
use millrace_base::offset::Offset;
use millrace_log::index::{self, Index};
use millrace_log::partition_state::{Checkpoint, Large, LargeAt, PartitionState, StateFile};
use millrace_log::paths::Meta;
use millrace_log::producers::Producers;
use millrace_log::state_file::{self, Name};

const INDEX: &[u8] = include_bytes!("../../../testdata/formats/index-v1.bin");
const STATE: &[u8] = include_bytes!("../../../testdata/formats/partition-state-v1.bin");
const STATE_BESIDE: &[u8] = include_bytes!("../../../testdata/formats/partition-state-beside-file-v1.bin");
const CHECKPOINT: &[u8] = include_bytes!("../../../testdata/formats/checkpoint-v1.bin");
const STATE_FILE: &[u8] = include_bytes!("../../../testdata/formats/state-file-v1.bin");
const META: &[u8] = include_bytes!("../../../testdata/formats/millrace-meta-v1.txt");

/// Offset 1000 + n: one record of producer 7, timestamp 1700000000000 + n.
fn produced(n: i64) -> (Header, Vec<u8>) {
    let mut builder = Builder::new(1_700_000_000_000 + n);
    builder.push(1_700_000_000_000 + n, Some(b"key"), Some(b"value"));
    let mut bytes = builder.finish();
    bytes[place::PRODUCER_ID..place::PRODUCER_ID + 8].copy_from_slice(&7i64.to_be_bytes());
    bytes[place::PRODUCER_EPOCH..place::PRODUCER_EPOCH + 2].copy_from_slice(&2i16.to_be_bytes());
    bytes[place::BASE_SEQUENCE..place::BASE_SEQUENCE + 4].copy_from_slice(&(n as i32).to_be_bytes());
    let crc = crc32c(&bytes[place::ATTRIBUTES..]);
    bytes[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    patch(&mut bytes, 1000 + n, 5);
    (Header::parse(&bytes).expect("just built"), bytes)
}

/// Ten batches, the last two uncommitted; an entry every 200 bytes.
fn large() -> Large {
    let mut large = Large { index: Index::new(1000, 200), producers: Producers::default() };
    for n in 0..10 {
        let (header, bytes) = produced(n);
        large.index.add(&header, &bytes);
        large.producers.append(&header, 1_700_000_100_000 + n);
    }
    large.producers.commit(1008);
    large
}

fn state(large: Large) -> PartitionState {
    let facts = *large.index.summary();
    PartitionState {
        log_start: 900,
        durable_end: facts.end,
        log_end: 1020,
        segment: facts.base,
        segment_bytes: facts.bytes,
        rolls: vec![1015],
        consensus: b"consensus".to_vec(),
        large: LargeAt::Here(large),
    }
}

fn check(name: &str, expected: &[u8], written: &[u8]) {
    let differs = expected.iter().zip(written).position(|(a, b)| a != b).unwrap_or(expected.len().min(written.len()));
    assert!(expected == written, "{name}: {} bytes expected, {} written, first difference at {differs}", expected.len(), written.len());
}

#[test]
fn the_index_file_is_version_1() {
    check("index", INDEX, &large().index.encode());
    assert_eq!(Index::decode(INDEX, 1000, "index").unwrap(), large().index);
    assert_eq!(index::decode_summary(INDEX, 1000, "index").unwrap(), *large().index.summary());
}

#[test]
fn the_partition_state_is_version_1() {
    check("state", STATE, &state(large()).encode());
    let mut expected = large();
    expected.producers.forget_changes();
    assert_eq!(PartitionState::decode(STATE).unwrap(), state(expected));
}

#[test]
fn the_partition_state_beside_its_file_is_version_1() {
    let mut large = large();
    let (reference, _) = state(large.clone()).split(None, 0).1.unwrap();
    let file = StateFile::of(reference, &large.index);
    large.producers.filed(reference.name);
    for n in 10..13 {
        let (header, bytes) = produced(n);
        large.index.add(&header, &bytes);
        large.producers.append(&header, 1_700_000_100_000 + n);
    }
    large.producers.commit(1012);
    let changes = file.changes(&large.index, &large.producers, 1 << 10).unwrap();
    let mut state = state(large);
    state.large = LargeAt::Changed(reference, changes);
    check("state beside its file", STATE_BESIDE, &state.encode());
    assert_eq!(PartitionState::decode(STATE_BESIDE).unwrap(), state);
}

#[test]
fn the_checkpoint_is_version_1() {
    let mut large = large();
    let written = Checkpoint::of(&large.index, 200, &mut large.producers, (1000, 300));
    check("checkpoint", CHECKPOINT, &written.encode());
    assert_eq!(Checkpoint::decode(CHECKPOINT).unwrap(), written);
}

#[test]
fn the_state_file_is_version_1() {
    let name = Name { end: 1010 as Offset, again: 0 };
    let (written, reference) = state_file::encode(name, b"body");
    check("state file", STATE_FILE, &written);
    assert_eq!(state_file::decode(STATE_FILE, &reference).unwrap(), b"body");
}

#[test]
fn the_meta_file_is_format_1() {
    let meta = Meta { cluster: Uuid::from_entropy(1, 2), node: 3, directory: Uuid::from_entropy(4, 5) };
    check("meta", META, meta.encode().as_bytes());
    assert_eq!(Meta::decode(META).unwrap(), meta);
}
