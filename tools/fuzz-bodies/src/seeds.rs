//! Inputs to begin with, from our own encoders, the golden files, and kafka-protocol's.

use crate::{batch, image, index as index_body, journal as journal_body};
use millrace_base::batch::{Builder, HEADER_BYTES, place};
use millrace_base::ids::Uuid;
use millrace_base::settings;
use millrace_log::index::Index;
use millrace_log::partition_state::PartitionState;
use millrace_log::paths::Meta;
use millrace_log::producers::Producers;
use millrace_log::walk;
use millrace_raftlog::{Configuration, Member, Record, State};
use millrace_state::groups::records::{Change, CommittedOffset, GroupRecord, MemberRecord};
use millrace_state::meta::{Command, Directory, Listener, Meta as MetaState, Node, NodeScope};
use std::io::Write;

#[allow(clippy::unwrap_used, reason = "the frames of the front's own tests")]
#[path = "../../../frontends/kafka/tests/frames/mod.rs"]
mod request_frames;

#[allow(dead_code, clippy::unwrap_used, reason = "the files of the inspector's own tests")]
#[path = "../../inspect/tests/support/kafka.rs"]
mod kafka_directory;

/// Of those files.
const NOW: i64 = 1_700_000_000_000;

const INDEX: &[u8] = include_bytes!("../../../testdata/formats/index-v1.bin");
const STATE: &[u8] = include_bytes!("../../../testdata/formats/partition-state-v1.bin");
const STATE_BESIDE: &[u8] = include_bytes!("../../../testdata/formats/partition-state-beside-file-v1.bin");
const CHECKPOINT: &[u8] = include_bytes!("../../../testdata/formats/checkpoint-v1.bin");
const STATE_FILE: &[u8] = include_bytes!("../../../testdata/formats/state-file-v1.bin");
const NODE: &str = include_str!("../../../testdata/settings/node.yaml");

/// Bytes behind their length.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes(), bytes].concat()
}

fn sample_batch(records: i64) -> Vec<u8> {
    let mut builder = Builder::new(1_000);
    for n in 0..records {
        builder.push(1_000 + n * 10, (n % 2 == 0).then_some(b"key"), (n % 3 != 0).then_some(b"a value that repeats, a value that repeats"));
    }
    builder.finish()
}

/// A batch by each codec, in the order of their numbers.
fn packed_batches() -> Vec<Vec<u8>> {
    let plain = sample_batch(8);
    let records = &plain[HEADER_BYTES..];
    let packed = packed(records);
    let mut all = vec![plain.clone()];
    for (bytes, codec) in packed.iter().zip(1u8..) {
        let mut batch = [&plain[..HEADER_BYTES], bytes].concat();
        batch[place::ATTRIBUTES + 1] |= codec;
        all.push(batch::sealed(&batch));
    }
    all
}

/// By gzip, snappy, lz4, zstd.
fn packed(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).expect("memory takes all");
    let snappy = snap::raw::Encoder::new().compress_vec(bytes).expect("memory takes all");
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(bytes).expect("memory takes all");
    let zstd = ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    vec![gzip.finish().expect("memory takes all"), snappy, lz4.finish().expect("memory takes all"), zstd]
}

pub fn batch() -> Vec<Vec<u8>> {
    let mut all = packed_batches();
    all.push(sample_batch(1));
    all.push(sample_batch(100));
    all
}

pub fn codec() -> Vec<Vec<u8>> {
    let bytes = sample_batch(20);
    let mut all = Vec::new();
    for (packed, number) in packed(&bytes).into_iter().zip(1u8..) {
        all.push([&[number, 255, 255], packed.as_slice()].concat());
        all.push([&[number, 10, 0], packed.as_slice()].concat());
        if number == 2 {
            let framed = [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".as_slice(), &(packed.len() as u32).to_be_bytes(), &packed].concat();
            all.push([&[number, 255, 255], framed.as_slice()].concat());
        }
    }
    all
}

pub fn time_lookup() -> Vec<Vec<u8>> {
    let from = |timestamp: i64, offset: i64, batch: &[u8]| [&timestamp.to_le_bytes(), &offset.to_le_bytes(), batch].concat();
    packed_batches().iter().flat_map(|batch| [from(1_035, 0, batch), from(0, 4, batch)]).collect()
}

pub fn producers() -> Vec<Vec<u8>> {
    let (mut state, mut delta) = (Vec::new(), Vec::new());
    let mut producers = Producers::default();
    for (n, found) in walk::batches(&produced(7)).filter_map(Result::ok).enumerate() {
        producers.append(&found.header, 5 + n as i64);
    }
    producers.commit(4);
    producers.encode(&mut state);
    producers.encode_delta(&mut delta);
    let steps = [0, 1, 2, 0, 0, 0, 2, 0, 1, 0, 1, 3, 3, 1, 2, 4, 4, 0, 0, 0, 0, 0];
    vec![[sized(&state), sized(&delta), steps.to_vec()].concat(), [sized(&[]), sized(&delta), steps.to_vec()].concat()]
}

/// Batches of an idempotent producer.
fn produced(count: u16) -> Vec<u8> {
    let mut all = image::batches(0, count);
    let mut at = 0;
    let mut sequence = 0i32;
    while at < all.len() {
        let size = walk::header_at(&all[at..]).expect("just built").size;
        let batch = &mut all[at..at + size];
        batch[place::PRODUCER_ID..place::PRODUCER_ID + 8].copy_from_slice(&7i64.to_be_bytes());
        batch[place::PRODUCER_EPOCH..place::PRODUCER_EPOCH + 2].copy_from_slice(&1i16.to_be_bytes());
        batch[place::BASE_SEQUENCE..place::BASE_SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
        (at, sequence) = (at + size, sequence + 1);
    }
    all
}

pub fn partition_state() -> Vec<Vec<u8>> {
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let large = &STATE[68..];
    let both = |large: &[u8]| {
        let mut padded = large.to_vec();
        padded.resize(large.len().next_multiple_of(4) + 3, 0);
        [&[3, ((padded.len() + 1) / 4) as u8], padded.as_slice(), CHECKPOINT].concat()
    };
    vec![
        with(0, STATE),
        with(0, STATE_BESIDE),
        with(0, &PartitionState::birth(5, 100, vec![1; 9]).encode()),
        with(1, large),
        with(2, CHECKPOINT),
        both(large),
    ]
}

pub fn state_file() -> Vec<Vec<u8>> {
    let with = |kind: u8, end: i64, bytes: &[u8]| [&[kind], end.to_le_bytes().as_slice(), &[0; 4], bytes].concat();
    let name = b"00000000000000000042-3.state";
    vec![
        with(0, 1010, STATE_FILE),
        with(1, 1010, STATE_FILE),
        with(0, -1, name),
        with(0, 0, b"00000000000000000042.log"),
        with(1, 0, b"12"),
    ]
}

pub fn index() -> Vec<Vec<u8>> {
    let with = |kind: u8, bytes: &[u8]| [&[kind], [0u8; 16].as_slice(), bytes].concat();
    let mut many = Index::new(0, 1);
    for found in walk::batches(&image::batches(0, 300)).filter_map(Result::ok) {
        many.add(&found.header, found.bytes);
    }
    let other = index_body::sealed(&many.encode(), 0);
    vec![with(0, INDEX), with(1, INDEX), with(1, &other), with(0, &Index::new(3, 9).encode())]
}

pub fn segment() -> Vec<Vec<u8>> {
    let with = |piece: u16, bytes: &[u8]| {
        let head = [[0u8; 8].as_slice(), &150u16.to_le_bytes(), &piece.to_le_bytes(), &[128]].concat();
        [head.as_slice(), bytes].concat()
    };
    let row = image::batches(0, 12);
    vec![with(100, &row), with(6, &row[..row.len() - 5]), with(4000, &produced(5)), with(64, &image::batches(500, 3))]
}

pub fn kafka_files() -> Vec<Vec<u8>> {
    let index = |entries: &[[i32; 2]]| entries.iter().flatten().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
    let times = |entries: &[(i64, i32)]| {
        entries.iter().flat_map(|(time, offset)| [&time.to_be_bytes()[..], &offset.to_be_bytes()].concat()).collect::<Vec<u8>>()
    };
    let aborted = [&0i16.to_be_bytes()[..], &[9i64, 20, 24, 24].map(i64::to_be_bytes).concat()].concat();
    let epochs = b"0\n2\n0 0\n2 30\n".to_vec();
    let metadata = format!("version: 0\ntopic_id: {}", kafka_directory::TOPIC_ID).into_bytes();
    let starts = b"0\n1\norders 0 20\n".to_vec();
    let batches = [
        kafka_directory::transactional(20, 0),
        kafka_directory::transactional(22, 0),
        kafka_directory::marker(24, 0, false),
        kafka_directory::transactional(25, 0),
        kafka_directory::marker(27, 0, true),
        kafka_directory::batch(30, 2),
        kafka_directory::batch(36, 2),
    ];
    let (second, third) = (batches[0].len() as i32, (batches[0].len() + batches[1].len()) as i32);
    let one = |kind: u8, bytes: &[u8]| [&[kind], 20i64.to_le_bytes().as_slice(), bytes].concat();
    let mut all = vec![
        one(0, &index(&[[3, second], [4, third]])),
        one(1, &times(&[(NOW + 21, 1), (NOW + 23, 3)])),
        one(2, &aborted),
        one(3, &kafka_directory::snapshot(27)),
        one(4, &epochs),
        one(5, &starts),
        one(6, &metadata),
    ];
    let beside = [&epochs, &metadata, &kafka_directory::snapshot(17), &index(&[[3, second]]), &times(&[(NOW + 23, 3)]), &aborted];
    let folder = |flags: u8, beside: &[Vec<u8>], batches: &[Vec<u8>]| {
        let parts: Vec<u8> = beside.iter().chain(batches).flat_map(|part| sized(part)).collect();
        [&[7, flags], 20i64.to_le_bytes().as_slice(), &parts].concat()
    };
    let beside: Vec<Vec<u8>> = beside.into_iter().cloned().collect();
    let none = vec![Vec::new(); 6];
    let with_start: Vec<Vec<u8>> = beside.iter().cloned().chain([starts]).collect();
    let mut damaged = batches.to_vec();
    damaged.insert(2, vec![7; 40]);
    all.extend([
        folder(4, &beside, &batches),
        folder(12, &with_start, &batches),
        folder(2, &none, &batches[..3]),
        folder(0, &beside, &damaged),
        folder(2, &none, &packed_batches()),
    ]);
    all
}

pub fn meta_file() -> Vec<Vec<u8>> {
    let text = Meta { cluster: Uuid::from_entropy(1, 2), node: 3, directory: Uuid::from_entropy(4, 5) }.encode();
    let body = text.split("crc=").next().unwrap_or_default();
    vec![text.as_bytes().to_vec(), body.as_bytes().to_vec(), body.replace("format=1", "format=2").into_bytes()]
}

pub fn group_records() -> Vec<Vec<u8>> {
    let offset = CommittedOffset { offset: 7, leader_epoch: 1, metadata: "m".to_owned(), commit_timestamp: 9, expire_timestamp: None };
    let member = MemberRecord {
        member_id: "a".to_owned(),
        instance_id: Some("i".to_owned()),
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        subscription: vec![1, 2],
        assignment: vec![3],
    };
    let group = GroupRecord {
        protocol_type: "consumer".to_owned(),
        generation: 3,
        protocol: Some("range".to_owned()),
        leader: Some("a".to_owned()),
        state_timestamp: Some(5),
        members: vec![member],
    };
    let at = |partition, value| Change::Offset { group: "g".to_owned(), topic: "t".to_owned(), partition, value };
    let changes = [
        Change::Group { group: "g".to_owned(), value: Some(group) },
        at(0, Some(offset.clone())),
        at(1, Some(CommittedOffset { expire_timestamp: Some(99), ..offset })),
        at(0, None),
        Change::Group { group: "g".to_owned(), value: None },
    ];
    let records: Vec<Vec<u8>> = changes
        .iter()
        .map(|change| {
            let record = change.encode();
            [sized(&record.key), sized(record.value.as_deref().unwrap_or(b"\0"))].concat()
        })
        .collect();
    let mut all = records.clone();
    all.push(records[..3].concat());
    all.push(records.concat());
    all
}

pub fn meta_commands() -> Vec<Vec<u8>> {
    let (topic, directory) = (Uuid([5; 16]), Uuid([6; 16]));
    let configs = || [("retention.ms".to_owned(), "5".to_owned())].into();
    let listeners = vec![Listener { name: "PLAINTEXT".to_owned(), host: "h".to_owned(), port: 9092 }];
    let directories = vec![Directory { id: directory, path: "/d".to_owned() }];
    let commands = [
        Command::SetClusterId { id: Uuid([1; 16]) },
        Command::RegisterNode(Node { id: 1, listeners, directories }),
        Command::CreateTopic { topic, name: "t".to_owned(), directories: vec![directory; 3], configs: configs() },
        Command::CreatePartitions { topic, first: 3, directories: vec![directory; 2] },
        Command::AlterTopicConfigs { topic, set: configs(), remove: vec!["segment.bytes".to_owned()] },
        Command::AlterNodeConfigs { scope: NodeScope::Every, set: configs(), remove: Vec::new() },
        Command::AllocateProducerIds { count: 1000, at_least: 5000 },
        Command::SetFeatureLevel { level: 1 },
        Command::DeleteTopic { topic },
    ];
    let log: Vec<u8> = commands.iter().flat_map(|command| sized(&command.encode())).collect();
    let mut meta = MetaState::new();
    commands[..8].iter().for_each(|command| drop(meta.apply(command.clone())));
    let mut all: Vec<Vec<u8>> = commands.iter().map(|command| [vec![0], sized(&command.encode())].concat()).collect();
    all.push([&[0], log.as_slice()].concat());
    all.push([&[1], meta.snapshot().as_slice()].concat());
    all
}

pub fn consensus() -> Vec<Vec<u8>> {
    let member = |n: u8| Member { node: i32::from(n), disk: Uuid([n; 16]) };
    let mut state = State::new(Configuration::sole(member(1)));
    let start = |epoch, offset| millrace_raftlog::Start { epoch, offset, configuration: Configuration::sole(member(1)) };
    let mut records = Vec::new();
    for epoch in 1..4 {
        let start = Some(start(epoch, state.history.end()));
        let record = Record { term: epoch, vote: Some(member(1)), marks: state.marks, truncate: None, start };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        records.extend(sized(&bytes));
        if state.apply(&record).is_ok() && epoch < 3 {
            state.history.extend(i64::from(epoch) * 10);
        }
    }
    let to = Some(millrace_base::offset::Position::new(1, 5));
    let record = Record { term: 9, vote: None, marks: state.marks, truncate: to, start: None };
    let (mut bytes, mut whole) = (Vec::new(), Vec::new());
    record.encode(&mut bytes);
    state.encode(&mut whole);
    vec![[sized(&whole), sized(&bytes)].concat(), [sized(&[]), records].concat()]
}

pub fn settings_file() -> Vec<Vec<u8>> {
    let few: Vec<String> = settings::sample()
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .map(str::to_owned)
        .collect();
    let mut all =
        vec![NODE.as_bytes().to_vec(), b"a: &x 1\nb: *x\n".to_vec(), b"a: [1, [2]]\n---\n".to_vec(), b"a: \"\\u263a\"\n".to_vec()];
    all.extend(few.chunks(12).map(|lines| lines.join("\n").into_bytes()));
    all
}

pub fn requests() -> Vec<Vec<u8>> {
    request_frames::all().into_iter().map(|frame| frame.bytes).collect()
}

pub fn frames() -> Vec<Vec<u8>> {
    let framed = |length: usize| [&(length as u32).to_be_bytes(), vec![7u8; length].as_slice()].concat();
    let row: Vec<u8> = [8, 100, 9, 500, 1000, 8].into_iter().flat_map(framed).collect();
    let with = |longest: u8, cuts: &[u16], stream: &[u8]| {
        let cuts: Vec<u8> =
            [&[longest, cuts.len() as u8], cuts.iter().flat_map(|cut| cut.to_le_bytes()).collect::<Vec<u8>>().as_slice()].concat();
        [cuts.as_slice(), stream].concat()
    };
    vec![
        with(0, &[], &row),
        with(1, &[0, 1, 2, 3, 100, 5], &row),
        with(4, &[3, 500], &[framed(9_000), framed(8)].concat()),
        with(0, &[2], b"GET / HTTP/1.1\r\n\r\n"),
        with(0, &[], &[framed(8), vec![0x16, 3, 1, 2], framed(8)].concat()),
        with(2, &[40], &framed(1_000)[..900]),
    ]
}

pub fn image() -> Vec<Vec<u8>> {
    // A state, batches, a checkpoint, more batches, a roll, an extent, a truncation, another state.
    let apt = [1u8, 0];
    let state = [[141].as_slice(), &apt[..1], &[5, 0, 3, 0, 1, 2, 3]].concat();
    let batches = [132, 1, 2];
    let checkpoint = [139, 1];
    let extent = [136, 1, 9, 0, 0, 0];
    let roll = [138, 1];
    let cut = [137, 0, 1, 2, 1, 0, 0];
    let second = [142, 1, 0];
    let row = |parts: &[&[u8]]| parts.concat();
    vec![
        row(&[&state, &batches, &batches, &checkpoint, &batches]),
        row(&[&state, &batches, &roll, &batches, &extent, &batches]),
        row(&[&state, &batches, &batches, &cut, &batches, &checkpoint, &second]),
        row(&[&state, &batches, &[0], &batches, &second, &batches]),
        row(&[&state, &extent, &[1], &extent, &[143, 1, 1, 0, b'x']]),
        row(&[&batches, &batches, &state, &batches, &[143, 0]]),
    ]
}

pub fn journal() -> Vec<Vec<u8>> {
    // kind, time, then its own choices; 0: an append (partition, count), 6: seal and complete, 9: seal, 15: crash.
    let append = |partition: u8| [0, 0, partition, 5];
    let seal = [6u8, 0];
    let script = |steps: &[&[u8]], mutations: &[u8]| [[1, steps.len() as u8].as_slice(), &steps.concat(), mutations].concat();
    let (a, b) = (append(0), append(1));
    let release: &[u8] = &[11, 0, 2];
    let statement: &[u8] = &[12, 0];
    let crash: &[u8] = &[15, 0, 4, 255];
    let fly: &[u8] = &[9, 0];
    let flip = |file: u8, kind: u8, at: u32| [&[file, 0, kind, 0, 0], at.to_le_bytes().as_slice(), &[3, 9]].concat();
    let long: Vec<&[u8]> = std::iter::repeat_n([a.as_slice(), &seal, release, statement], 8).flatten().collect();
    let mut all = vec![
        script(&[&a, &seal, &a, &seal, &b, &seal], &[]),
        script(&[&a, &seal, &a, &b, fly, &a, fly, crash, &a, &seal], &[]),
        script(&long, &[]),
        script(&[&a, &seal, &a, &seal, &b, &seal], &flip(0, 0, 200)),
        script(&[&a, &seal, &a, &seal, &b, &seal], &flip(0, 3, 4100)),
        script(&[&a, &seal, &[3, 0, 0, 1, 1, 2, 3, 4], &seal, &[13, 0, 1], &a, &seal], &flip(0, 5, 8192)),
        script(&[&a, &seal, &a, &seal, &b, &seal], &[flip(0, 9, 4096), flip(2, 8, 4096)].concat()),
    ];
    let golden = golden_journal();
    let mut sealed = golden.clone();
    journal_body::seal(&mut sealed, true);
    all.push([&[0u8], sealed.as_slice()].concat());
    all.push([&[8u8], golden.as_slice()].concat());
    all
}

/// The golden journal's file with its entries.
fn golden_journal() -> Vec<u8> {
    const HEX: &str = include_str!("../../../testdata/formats/journal-v1.hex");
    let mut file = Vec::new();
    for line in HEX.split("0.journal").nth(1).unwrap_or_default().lines().skip(1) {
        let Some((place, digits)) = line.trim().split_once(' ') else { continue };
        let at = usize::from_str_radix(place, 16).expect("a place of the golden file");
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Vec<u8> = digits.as_bytes().chunks(2).filter_map(byte).collect();
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    file.resize(file.len().next_multiple_of(millrace_base::limits::BLOCK), 0);
    file
}
