//! A small data directory, written by the writers that the broker uses, in a folder that goes with the test.

#![allow(dead_code, reason = "each test file uses its own part")]

use millrace_base::batch::{Builder, Header, patch, place};
use millrace_base::clock::Nanos;
use millrace_base::crc::crc32c;
use millrace_base::ids::{PartitionId, Uuid};
use millrace_base::limits::BLOCK;
use millrace_base::prng::Prng;
use millrace_inspect::{Format, InspectError, Inspection, Outcome, Show, Verb, run};
use millrace_io::{BlockingDisk, Disk, OpenHow, Pool};
use millrace_log::index::Index;
use millrace_log::journal::{self, Journal, Options, PayloadRange, Record, Urgency, layout};
use millrace_log::partition_state::{Checkpoint, Large, LargeAt, PartitionState};
use millrace_log::paths::{self, Meta};
use millrace_log::producers::Producers;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub const NOW: i64 = 1_700_000_000_000;
const NOWHERE: PayloadRange = PayloadRange { start: 0, len: 0 };
const INTERVAL: u32 = 300;

pub const VERIFY: Verb = Verb::Verify { threads: 2 };

/// A folder of this test's own.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("millrace-inspect-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Two closed segments, an active one, pending batches.
pub fn first() -> PartitionId {
    PartitionId { topic: Uuid::from_entropy(1, 1), index: 0 }
}

/// One segment, and a state that is too large for the journal.
pub fn second() -> PartitionId {
    PartitionId { topic: Uuid::from_entropy(2, 2), index: 7 }
}

/// One record of 60 bytes and a header, from producer 1000 + `producer`.
pub fn batch(offset: i64, producer: i64) -> (Header, Vec<u8>) {
    let mut builder = Builder::new(NOW + offset);
    builder.push(NOW + offset, Some(b"key\n"), Some(format!("value {offset:054}").as_bytes()));
    let mut bytes = builder.finish();
    bytes[place::PRODUCER_ID..place::PRODUCER_ID + 8].copy_from_slice(&(1000 + producer).to_be_bytes());
    bytes[place::PRODUCER_EPOCH..place::PRODUCER_EPOCH + 2].copy_from_slice(&0i16.to_be_bytes());
    bytes[place::BASE_SEQUENCE..place::BASE_SEQUENCE + 4].copy_from_slice(&0i32.to_be_bytes());
    let crc = crc32c(&bytes[place::ATTRIBUTES..]);
    bytes[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    patch(&mut bytes, offset, 3);
    (Header::parse(&bytes).unwrap(), bytes)
}

/// Bytes and index of the batches `base..end`.
fn segment(base: i64, end: i64, producers: &mut Producers) -> (Vec<u8>, Index) {
    let (mut bytes, mut index) = (Vec::new(), Index::new(base, INTERVAL));
    for offset in base..end {
        let (header, batch) = batch(offset, offset);
        index.add(&header, &batch);
        producers.append(&header, NOW);
        bytes.extend(batch);
    }
    producers.commit(end);
    (bytes, index)
}

pub struct Writer {
    disk: BlockingDisk,
    folder: PathBuf,
    journal: Journal,
}

impl Writer {
    pub fn open(data: &Path, incarnation: u64) -> Writer {
        let (mut disk, pool, folder) = (BlockingDisk::new(), Pool::new(1 << 30), paths::journal(data, 0));
        let recovered = journal::recover(&mut disk, &folder, &pool, 0).unwrap();
        let options = Options {
            file_bytes: 32 * BLOCK as u64,
            entry_bytes_max: 16 * BLOCK,
            files_first: 2,
            files_max: 4,
            reserve_bytes: 4 * BLOCK as u64,
        };
        let journal = journal::prepare(&mut disk, &folder, &recovered, incarnation, options, &pool).unwrap();
        Writer { disk, folder, journal }
    }

    /// One entry of these records.
    pub fn entry(&mut self, records: Vec<(Record, Vec<u8>)>) {
        for (record, payload) in records {
            self.journal.append(Urgency::Relief, record, &payload).unwrap();
        }
        let sealed = self.journal.seal(Nanos(0)).unwrap();
        self.write(&sealed);
    }

    /// An entry that says that all before it is synced.
    pub fn statement(&mut self) {
        let sealed = self.journal.seal_statement(Nanos(0)).unwrap();
        self.write(&sealed);
    }

    fn write(&mut self, sealed: &journal::Sealed) {
        let path = self.folder.join(layout::file_name(sealed.slot));
        let file = self.disk.open(&path, OpenHow { write: true, ..OpenHow::default() }).unwrap();
        self.disk.write(file, sealed.place, &sealed.slice).unwrap();
        self.disk.close(file);
        self.journal.completed(sealed.sequence, Nanos(0));
    }
}

fn batches(partition: PartitionId, base: i64, end: i64) -> (Record, Vec<u8>) {
    let bytes = (base..end).flat_map(|offset| batch(offset, offset).1).collect();
    (Record::Batches { partition, base, end, payload: NOWHERE }, bytes)
}

/// Writes the data directory: entries 1 to 6 of journal 0, the last without records.
pub fn build(data: &Path) {
    let meta = Meta { cluster: Uuid::from_entropy(8, 8), node: 3, directory: Uuid::from_entropy(9, 9) };
    fs::write(paths::meta(data), meta.encode()).unwrap();
    fs::write(data.join("millrace.lock"), "").unwrap();
    let mut writer = Writer::open(data, 0xabcd);
    // The first partition as it grows: born, rolled twice, three times checkpointed.
    let id = first();
    let born = PartitionState::birth(0, INTERVAL, b"consensus".to_vec());
    writer.entry(vec![(Record::State { partition: id, state: NOWHERE }, born.encode()), batches(id, 0, 20)]);
    let (mut producers, mut before) = (Producers::default(), (0, 0));
    for (base, end) in [(0, 20), (20, 40), (40, 50)] {
        let (mut bytes, index) = segment(base, end, &mut producers);
        let folder = paths::partition(data, id);
        fs::create_dir_all(&folder).unwrap();
        let facts = *index.summary();
        if end == 50 {
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        } else {
            fs::write(paths::index(&folder, base), index.encode()).unwrap();
        }
        fs::write(paths::segment(&folder, base), bytes).unwrap();
        let delta = Checkpoint::of(&index, INTERVAL, &mut producers, before).encode();
        before = (base, facts.bytes);
        let checkpoint = Record::Checkpoint { partition: id, end, segment: base, segment_bytes: facts.bytes, delta: NOWHERE };
        let mut records = Vec::new();
        if end < 50 {
            records.push((Record::Roll { partition: id, base: end }, Vec::new()));
            records.push(batches(id, end, if end == 20 { 40 } else { 54 }));
        }
        records.push((checkpoint, delta));
        writer.entry(records);
    }
    // The second one at once.
    let id = second();
    let mut producers = Producers::default();
    let (bytes, index) = segment(0, 200, &mut producers);
    producers.forget_changes();
    let facts = *index.summary();
    let state = PartitionState {
        log_start: 5,
        durable_end: 200,
        log_end: 200,
        segment: 0,
        segment_bytes: facts.bytes,
        rolls: Vec::new(),
        consensus: b"more of it".to_vec(),
        large: LargeAt::Here(Large { index, producers }),
    };
    let (inline, file) = state.split(None, millrace_log::state_file::INLINE_BYTES_MAX);
    let (reference, file) = file.expect("200 producers are a large state");
    let folder = paths::partition(data, id);
    fs::create_dir_all(&folder).unwrap();
    fs::write(paths::segment(&folder, 0), bytes).unwrap();
    fs::write(paths::state(&folder, reference.name), file).unwrap();
    writer.entry(vec![(Record::State { partition: id, state: NOWHERE }, inline), batches(id, 200, 203)]);
    writer.statement();
}

/// One partition of a random directory, and the values of its records from the log start on.
pub struct Random {
    pub id: PartitionId,
    pub values: BTreeMap<i64, String>,
}

/// A batch of `count` records from offset `base` on.
pub fn batch_of(base: i64, count: i64, prng: &mut Prng, values: &mut BTreeMap<i64, String>) -> (Header, Vec<u8>) {
    let mut builder = Builder::new(NOW + base);
    for offset in base..base + count {
        let value = format!("{offset}:{}", "x".repeat(prng.below(300) as usize));
        builder.push(NOW + offset, None, Some(value.as_bytes()));
        values.insert(offset, value);
    }
    let mut bytes = builder.finish();
    patch(&mut bytes, base, 3);
    (Header::parse(&bytes).unwrap(), bytes)
}

/// Writes a data directory of a few partitions, all in order.
pub fn build_random(data: &Path, prng: &mut Prng) -> Vec<Random> {
    let meta = Meta { cluster: Uuid::from_entropy(8, 8), node: 3, directory: Uuid::from_entropy(9, 9) };
    fs::write(paths::meta(data), meta.encode()).unwrap();
    let mut writer = Writer::open(data, 1 + prng.below(1 << 40));
    let mut all = Vec::new();
    for number in 0..=prng.below(3) {
        let id = PartitionId { topic: Uuid::from_entropy(number + 1, 4), index: prng.below(9) as u32 };
        let folder = paths::partition(data, id);
        fs::create_dir_all(&folder).unwrap();
        let (mut values, mut next, mut producers) = (BTreeMap::new(), 0, Producers::default());
        let closed = prng.below(4);
        let mut state = PartitionState::birth(0, INTERVAL, b"c".to_vec());
        for at in 0..=closed {
            let (base, mut bytes) = (next, Vec::new());
            let mut index = Index::new(base, INTERVAL);
            for _ in 0..prng.below(20) + u64::from(at < closed) {
                let (header, batch) = batch_of(next, 1 + prng.below(5) as i64, prng, &mut values);
                index.add(&header, &batch);
                producers.append(&header, NOW);
                bytes.extend(batch);
                next = header.next_offset();
            }
            producers.commit(next);
            if at < closed {
                if !prng.one_in(5) {
                    fs::write(paths::index(&folder, base), index.encode()).unwrap();
                }
            } else {
                let facts = *index.summary();
                producers.forget_changes();
                bytes.resize(bytes.len() + prng.below(9000) as usize, 0);
                (state.segment, state.segment_bytes, state.durable_end, state.log_end) = (base, facts.bytes, next, next);
                state.large = LargeAt::Here(Large { index, producers: std::mem::take(&mut producers) });
            }
            fs::write(paths::segment(&folder, base), bytes).unwrap();
        }
        // A batch may begin before the log start.
        state.log_start = if closed > 0 { prng.below(2) as i64 } else { 0 };
        values.retain(|offset, _| *offset >= state.log_start);
        let mut records = vec![(Record::State { partition: id, state: NOWHERE }, state.encode())];
        for _ in 0..prng.below(4) {
            let (header, batch) = batch_of(next, 1 + prng.below(5) as i64, prng, &mut values);
            records.push((Record::Batches { partition: id, base: next, end: header.next_offset(), payload: NOWHERE }, batch));
            next = header.next_offset();
        }
        writer.entry(records);
        all.push(Random { id, values });
    }
    writer.statement();
    all
}

pub fn built() -> Scratch {
    let scratch = Scratch::new();
    build(&scratch.0);
    scratch
}

/// What a command gave: outcome, standard output, talk.
pub struct Gave {
    pub outcome: Outcome,
    pub out: String,
    pub talk: String,
}

pub fn inspection(verb: &Verb, path: &Path, format: Format) -> Inspection {
    Inspection { path: path.to_owned(), verb: verb.clone(), format, progress: false }
}

pub fn try_inspect(verb: &Verb, path: &Path) -> Result<Gave, InspectError> {
    try_inspect_as(verb, path, Format::Text)
}

pub fn try_inspect_as(verb: &Verb, path: &Path, format: Format) -> Result<Gave, InspectError> {
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let outcome = run(&inspection(verb, path, format), &mut out, &mut talk)?;
    Ok(Gave { outcome, out: String::from_utf8(out).unwrap(), talk: String::from_utf8(talk).unwrap() })
}

pub fn inspect(verb: &Verb, path: &Path) -> Gave {
    try_inspect(verb, path).unwrap()
}

pub fn show(path: &Path, what: &str) -> Gave {
    inspect(&Verb::Show(Show { what: Some(what.to_owned()), records: true, ..Show::default() }), path)
}

/// Every file below `path` with its bytes.
pub fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// Changes one byte.
pub fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place] ^= 0x40;
    fs::write(path, bytes).unwrap();
}
