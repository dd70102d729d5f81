//! The journal's bytes, version 1: golden bytes that every later version must read, and the drawing of the layout.

#![expect(clippy::disallowed_methods, reason = "a test reads files, its environment and the clock where the crate may not")]
#![allow(clippy::unwrap_used, reason = "a test")]

use millrace_base::clock::Nanos;
use millrace_base::ids::{PartitionId, Uuid};
use millrace_base::limits::BLOCK;
use millrace_base::offset::Position;
use millrace_io::{Disk, Pool};
use millrace_log::journal::layout::{self, Header, Opening, Openings, openings_place, place, trailer_place};
use millrace_log::journal::record::{PayloadRange, Record};
use millrace_log::journal::{Options, Urgency, Verdict, prepare, recover};
use std::fmt::Write;
use std::path::{Path, PathBuf};

mod journal_support;
use journal_support::disk::SimDisk;

const FOLDER: &str = "/data/journal/0";

fn golden_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/formats/journal-v1.hex")
}

fn options() -> Options {
    Options { file_bytes: 4 * BLOCK as u64, entry_bytes_max: 2 * BLOCK, files_first: 2, files_max: 2, reserve_bytes: 4 * BLOCK as u64 }
}

/// The records of the golden entries.
fn records(payload: PayloadRange) -> Vec<(Record, &'static [u8])> {
    let partition = PartitionId { topic: Uuid(*b"golden topic id."), index: 5 };
    vec![
        (Record::Batches { partition, base: 100, end: 103, payload }, b"three records, were this a batch"),
        (Record::Raft { partition, truncate: None, log_start: None, step: payload }, b"a vote"),
        (Record::Raft { partition, truncate: Some(Position::new(3, 90)), log_start: Some(40), step: payload }, b"a cut"),
        (Record::Roll { partition, base: 100 }, b""),
        (Record::Checkpoint { partition, end: 90, segment: 40, segment_bytes: 5_000, delta: payload }, b"delta"),
        (Record::State { partition, state: payload }, b"state"),
        (Record::Deleted { partition }, b""),
        (
            Record::Extent { partition, base: 103, end: 110, segment: 100, place: 4_096, bytes: 8_192, crc: 0x1234_5678, tail: payload },
            b"tail",
        ),
    ]
}

/// A journal with one entry of all records and one statement: the openings and the first file.
fn written() -> (Vec<u8>, Vec<u8>) {
    let (mut disk, pool) = (SimDisk::default(), Pool::new(1 << 20));
    let recovered = recover(&mut disk, Path::new(FOLDER), &pool, 0).unwrap();
    let mut journal = prepare(&mut disk, Path::new(FOLDER), &recovered, 0x0102_0304_0506_0708, options(), &pool).unwrap();
    for (record, payload) in records(PayloadRange { start: 0, len: 0 }) {
        journal.append(Urgency::Relief, record, payload).unwrap();
    }
    for statement in [false, true] {
        let now = Nanos(0);
        let sealed = if statement { journal.seal_statement(now).unwrap() } else { journal.seal(now).unwrap() };
        let path = Path::new(FOLDER).join(layout::file_name(sealed.slot));
        let write = disk.submit(&path, sealed.place, &sealed.slice);
        disk.complete(&write);
        journal.completed(sealed.sequence, now);
    }
    let path = Path::new(FOLDER).join(layout::file_name(0));
    let openings = disk.bytes(&Path::new(FOLDER).join(layout::OPENINGS_NAME)).clone();
    (openings, disk.bytes(&path).clone())
}

/// Lines of `file place: 32 bytes`; lines of zeros are left out.
fn to_hex(files: &[(&str, &[u8])]) -> String {
    let mut out = String::new();
    for (name, bytes) in files {
        writeln!(out, "{name} {}", bytes.len()).unwrap();
        for (line, chunk) in bytes.chunks(32).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0)) {
            let digits: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(out, "  {:06x} {digits}", line * 32).unwrap();
        }
    }
    out
}

fn from_hex(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        let (first, second) = line.trim().split_once(' ').unwrap();
        if line.starts_with(' ') {
            let place = usize::from_str_radix(first, 16).unwrap();
            for index in 0..second.len() / 2 {
                files.last_mut().unwrap().1[place + index] = u8::from_str_radix(&second[2 * index..2 * index + 2], 16).unwrap();
            }
        } else {
            files.push((first.to_string(), vec![0; second.parse().unwrap()]));
        }
    }
    files
}

#[test]
fn the_golden_journal_is_read_and_written_to_the_byte() {
    let (openings, file) = written();
    let text = to_hex(&[(layout::OPENINGS_NAME, &openings), ("0.journal", &file)]);
    if std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(golden_path(), &text).unwrap();
    }
    let golden = std::fs::read_to_string(golden_path()).unwrap();
    assert_eq!(text, golden, "the bytes written changed: that is a new format version");

    let (mut disk, pool) = (SimDisk::default(), Pool::new(1 << 20));
    disk.make_directories(Path::new(FOLDER)).unwrap();
    for (name, bytes) in from_hex(&golden) {
        let how = millrace_io::OpenHow { write: true, create: true, exclusive: true, direct: true };
        let file = disk.open(&Path::new(FOLDER).join(name), how).unwrap();
        disk.write(file, 0, &bytes).unwrap();
    }
    let recovered = recover(&mut disk, Path::new(FOLDER), &pool, 0).unwrap();
    assert_eq!(recovered.verdict, Verdict::Clean);
    assert_eq!((recovered.oldest_live, recovered.next, recovered.extents_before), (1, 3, 1));
    assert_eq!(recovered.openings.list, [Opening { incarnation: 0x0102_0304_0506_0708, first: 1 }]);
    let entry = &recovered.entries[0];
    let mut start = 0;
    for ((wanted, payload), found) in records(PayloadRange { start: 0, len: 0 }).into_iter().zip(&entry.records) {
        let len = payload.len();
        assert_eq!(&entry.payload[start..start + len], payload);
        assert_eq!(std::mem::discriminant(&wanted), std::mem::discriminant(found));
        assert_eq!(wanted.partition(), found.partition());
        start += len;
    }
    assert!(recovered.entries[1].records.is_empty());
    assert_eq!(recovered.entries[1].header.synced, 1);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (_, mut file) = written();
    file[place::FORMAT..place::FORMAT + 4].copy_from_slice(&(layout::FORMAT + 1).to_le_bytes());
    let crc = millrace_base::crc::crc32c(&file[..place::HEADER_CRC]);
    file[place::HEADER_CRC..place::PAYLOAD].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Header::decode(&file), Err(layout::NoHeader::Newer(layout::FORMAT + 1)));
}

#[test]
fn openings_are_trimmed_to_what_is_needed() {
    let openings =
        |list: &[(u64, u64)]| list.iter().map(|(incarnation, first)| Opening { incarnation: *incarnation, first: *first }).collect();
    let old = Openings { version: 7, list: openings(&[(1, 1), (2, 10), (3, 20)]) };
    assert_eq!(
        (old.incarnation_of(0), old.incarnation_of(9), old.incarnation_of(10), old.incarnation_of(99)),
        (None, Some(1), Some(2), Some(3))
    );
    let opening = Opening { incarnation: 4, first: 20 };
    assert_eq!(old.with(opening, 5).list, openings(&[(1, 1), (2, 10), (4, 20)]), "an opening that wrote nothing is replaced");
    assert_eq!(old.with(opening, 10).list, openings(&[(2, 10), (4, 20)]));
    assert_eq!(old.with(opening, 20).list, openings(&[(4, 20)]));
    assert_eq!(Openings::decode(&old.encode()), Some(old));
}

/// One line a field: place, width, name.
fn drawing(title: &str, end: usize, fields: &[(&str, usize)]) -> String {
    let mut out = format!("{title}\n");
    for (index, (name, at)) in fields.iter().enumerate() {
        let next = fields.get(index + 1).map_or(end, |(_, next)| *next);
        assert!(*at < next, "{name} has a width");
        writeln!(out, "  {at:>4}  {:>4}  {name}", next - at).unwrap();
    }
    out
}

#[test]
fn the_layout_is_drawn_from_its_constants() {
    let header = [
        ("magic", place::MAGIC),
        ("format", place::FORMAT),
        ("chain: header CRC of the entry before", place::CHAIN),
        ("incarnation", place::INCARNATION),
        ("sequence", place::SEQUENCE),
        ("oldest live sequence", place::OLDEST_LIVE),
        ("synced sequence", place::SYNCED),
        ("extents before", place::EXTENTS_BEFORE),
        ("extents durable", place::EXTENTS_DURABLE),
        ("entry bytes", place::ENTRY_BYTES),
        ("payload bytes", place::PAYLOAD_BYTES),
        ("contents bytes, each copy", place::CONTENTS_BYTES),
        ("place of contents A", place::CONTENTS_A),
        ("place of contents B", place::CONTENTS_B),
        ("body CRC", place::BODY_CRC),
        ("zero", place::ZERO),
        ("header CRC", place::HEADER_CRC),
    ];
    let trailer = [
        ("magic", trailer_place::MAGIC),
        ("records", trailer_place::COUNT),
        ("bytes of records in front", trailer_place::RECORDS_BYTES),
        ("entry bytes", trailer_place::ENTRY_BYTES),
        ("incarnation", trailer_place::INCARNATION),
        ("sequence", trailer_place::SEQUENCE),
        ("payload bytes", trailer_place::PAYLOAD_BYTES),
        ("CRC of records and trailer, rotated", trailer_place::CRC),
    ];
    let openings = [
        ("magic", openings_place::MAGIC),
        ("version", openings_place::VERSION),
        ("openings", openings_place::COUNT),
        ("CRC of the rest of the slot", openings_place::CRC),
        ("openings: incarnation 8, first sequence 8", openings_place::LIST),
    ];
    let drawn = [
        drawing("entry: header, payload, contents A, zeros, contents B", layout::HEADER_BYTES, &header),
        drawing("contents: records, trailer", layout::TRAILER_BYTES, &trailer),
        drawing("openings: two slots", BLOCK, &openings),
    ]
    .concat();
    println!("{drawn}");
    assert_eq!(layout::HEADER_BYTES, 96);
    assert_eq!(layout::TRAILER_BYTES, 40);
    let kept = std::fs::read_to_string(golden_path().with_extension("txt")).unwrap_or_default();
    if std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(golden_path().with_extension("txt"), &drawn).unwrap();
    } else {
        assert_eq!(drawn, kept, "the drawing beside the golden bytes");
    }
}
