//! A journal's recovery from its files.
//!
//! 1. A script from the input writes a journal with our own writer: records, seals, syncs that complete or not, releases, new openings.
//! 2. Bytes of the files are changed; chains and CRCs may be made right again. Or the input is the files as they are.
//! 3. What recovery says is held against the files: no entry whose CRC is wrong, every sequence from the oldest live one on is an entry or
//!    in the verdict, the same twice. An untouched journal gives back every entry whose write completed.
//! 4. It is opened for writing, written to, and recovered again. The records are folded into images as boot does it.

use crate::disk::MemoryDisk;
use crate::image;
use crate::input::Input;
use crate::meter;
use millrace_base::clock::Nanos;
use millrace_base::crc::crc32c;
use millrace_base::ids::{PartitionId, Uuid};
use millrace_base::limits::BLOCK;
use millrace_base::offset::{Offset, Position};
use millrace_io::{Pool, Slice};
use millrace_log::image::PartitionImage;
use millrace_log::journal::layout::{self, HEADER_BYTES, Header, Opening, Openings, Trailer, place};
use millrace_log::journal::record::{PayloadRange, Record};
use millrace_log::journal::{Damage, Journal, Options, Recovered, Touched, Urgency, Verdict, prepare, recover};
use millrace_log::partition_state::PartitionState;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/journal/0";
const OPTIONS: Options = Options { file_bytes: 32 << 10, entry_bytes_max: 12 << 10, files_first: 2, files_max: 4, reserve_bytes: 16 << 10 };
const MAGIC: &[u8] = b"mrJOURN\x01";

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let pool = Pool::new(64 << 20);
    let how = choices.u8();
    if how.is_multiple_of(4) {
        let mut disk = files_of(choices, how);
        judge(&mut disk, &pool, u64::from(how / 16), None);
        return;
    }
    let mut script = Script::new(pool.clone());
    let steps = usize::from(choices.u8() % 48);
    for _ in 0..steps {
        script.step(&mut choices);
    }
    let Script { mut disk, completed, opened_at, .. } = script;
    let is_untouched = choices.is_empty();
    mutate(&mut disk, &mut choices);
    judge(&mut disk, &pool, 0, is_untouched.then_some((opened_at, &completed)));
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The input as files: openings of one incarnation, or its first two blocks; then files of up to 32 KiB.
fn files_of(choices: Input<'_>, how: u8) -> MemoryDisk {
    let mut disk = MemoryDisk::default();
    let mut bytes = choices.rest();
    let openings = if how & 4 == 0 {
        let openings = Openings { version: 1, list: vec![Opening { incarnation: 7, first: 1 }] };
        [openings.encode(), openings.encode()].concat()
    } else {
        let (front, rest) = bytes.split_at(bytes.len().min(2 * BLOCK));
        bytes = rest;
        front.to_vec()
    };
    disk.files.insert(path(layout::OPENINGS_NAME), openings);
    for (slot, piece) in bytes.chunks(OPTIONS.file_bytes as usize).enumerate() {
        let mut file = piece.to_vec();
        if how & 8 == 0 {
            seal(&mut file, how & 64 == 0);
        }
        disk.files.insert(path(&layout::file_name(slot as u32)), file);
    }
    disk
}

/// Makes the CRCs of every entry right, and with `chained` what it follows on.
pub fn seal(file: &mut [u8], chained: bool) {
    let mut last = 0;
    for at in (0..file.len() / BLOCK * BLOCK).step_by(BLOCK) {
        if !file[at..].starts_with(MAGIC) {
            continue;
        }
        let field =
            |file: &[u8], place: usize| file[at + place..].first_chunk::<4>().map_or(0, |field| u32::from_le_bytes(*field)) as usize;
        let (len, payload, contents) =
            (field(file, place::ENTRY_BYTES), field(file, place::PAYLOAD_BYTES), field(file, place::CONTENTS_BYTES));
        let Some(entry) = file[at..].get_mut(..len).filter(|entry| entry.len() >= HEADER_BYTES) else { continue };
        if let Some(a) = payload.checked_add(HEADER_BYTES).and_then(|a| a.checked_add(contents)) {
            [a, len].into_iter().for_each(|end| seal_contents(entry, end));
        }
        let body = crc32c(&entry[HEADER_BYTES..]);
        entry[place::BODY_CRC..place::BODY_CRC + 4].copy_from_slice(&body.to_le_bytes());
        if chained && last != 0 {
            entry[place::CHAIN..place::CHAIN + 4].copy_from_slice(&u32::to_le_bytes(last));
        }
        last = crc32c(&entry[..place::HEADER_CRC]);
        entry[place::HEADER_CRC..place::HEADER_CRC + 4].copy_from_slice(&last.to_le_bytes());
    }
}

/// Makes the CRC of the contents copy that ends at byte `end` of an entry right.
fn seal_contents(entry: &mut [u8], end: usize) {
    let Some(trailer) = entry.get(..end).and_then(Trailer::peek) else { return };
    let Some(begin) = end.checked_sub(layout::TRAILER_BYTES + trailer.records_bytes as usize) else { return };
    let records = entry[begin..begin + trailer.records_bytes as usize].to_vec();
    trailer.encode(&records, &mut entry[begin..end]);
}

/// Changes bytes of files, as the rest of the input says.
fn mutate(disk: &mut MemoryDisk, choices: &mut Input<'_>) {
    let names: Vec<PathBuf> = disk.files.keys().cloned().collect();
    while !choices.is_empty() {
        let Some(name) = names.get(choices.below(names.len())) else { return };
        let kind = choices.u8() % 10;
        let from = names[choices.below(names.len())].clone();
        let donor = disk.files.get(&from).cloned().unwrap_or_default();
        let Some(file) = disk.files.get_mut(name).filter(|file| !file.is_empty()) else { continue };
        let at = choices.u32() as usize % file.len();
        let block = at / BLOCK * BLOCK;
        match kind {
            0 => file[at] ^= 1 << (choices.u8() % 8),
            1 => file[at] = choices.u8(),
            2 => {
                let bytes = choices.sized();
                let len = bytes.len().min(file.len() - at);
                file[at..at + len].copy_from_slice(&bytes[..len]);
            }
            // A field of a header, then the CRCs made right.
            3 | 4 => {
                let at = block + usize::from(choices.u8()) % HEADER_BYTES;
                if let Some(byte) = file.get_mut(at) {
                    *byte = choices.u8();
                }
                seal(file, kind == 3);
            }
            // Contents from the front or the end of an entry.
            5 | 6 => {
                let at = (block + BLOCK).saturating_sub(usize::from(choices.u8()) + 1);
                if let Some(byte) = file.get_mut(at) {
                    *byte = choices.u8();
                }
                seal(file, kind == 5);
            }
            7 => {
                let at = choices.u32() as usize / BLOCK * BLOCK % donor.len().max(1);
                let len = BLOCK.min(donor.len().saturating_sub(at)).min(file.len().saturating_sub(block));
                file[block..block + len].copy_from_slice(&donor[at..at + len]);
            }
            8 => file.truncate(at),
            _ => file[block..].iter_mut().take(BLOCK).for_each(|byte| *byte = 0),
        }
    }
}

/// Recovers, and holds what that says against the files. `completed`: the first sequence of the last opening and what must be there, of a journal
/// that nobody touched.
fn judge(disk: &mut MemoryDisk, pool: &Pool, stated: u64, completed: Option<(u64, &BTreeMap<u64, Slice>)>) {
    let files: usize = disk.files.values().map(Vec::len).sum();
    // The scan holds one file, each entry is read into a window of up to a mebibyte of the pool's, and what is noted is a part of the files.
    let granted = 64 * files + (256 << 10);
    let recovered = meter::bounded(granted, || recover(disk, Path::new(FOLDER), pool, stated));
    let Ok(recovered) = recovered else {
        assert!(completed.is_none(), "an untouched journal: {recovered:?}");
        return;
    };
    check(&recovered, disk);
    let again = recover(disk, Path::new(FOLDER), pool, stated).expect("it was read a moment ago");
    assert_eq!((told(&again), &again.verdict), (told(&recovered), &recovered.verdict), "the same bytes say the same");
    if let Some((opened_at, completed)) = completed {
        complete(&recovered, opened_at, completed);
    }
    fold(&recovered, pool);
    open_and_write(disk, recovered, pool, stated);
}

/// Sequences and records.
fn told(recovered: &Recovered) -> Vec<(u64, Vec<Record>)> {
    recovered.entries.iter().map(|entry| (entry.sequence, entry.records.clone())).collect()
}

fn check(recovered: &Recovered, disk: &MemoryDisk) {
    assert!(recovered.oldest_live <= recovered.next);
    let damaged: &[Damage] = match &recovered.verdict {
        Verdict::Damaged { each, .. } => each,
        Verdict::Clean | Verdict::Torn(_) => &[],
    };
    let entries = recovered.entries.iter().map(|entry| (entry.sequence, entry.sequence));
    let mut all: Vec<(u64, u64)> = entries.chain(damaged.iter().map(|damage| (damage.first, damage.last))).collect();
    all.sort_unstable();
    let mut next = recovered.oldest_live;
    for (first, last) in all {
        assert!(first == next && last >= first, "entry {next} is not told of, or twice: {first} to {last} comes");
        next = last + 1;
    }
    assert_eq!(next, recovered.next, "every entry up to the end is told of");
    for entry in &recovered.entries {
        let file = &disk.files[&path(&layout::file_name(entry.slot))];
        let bytes = &file[entry.place as usize..entry.place as usize + entry.header.entry_bytes as usize];
        assert_eq!(Header::decode(bytes), Ok(entry.header), "the header that stands there");
        assert_eq!(crc32c(&bytes[HEADER_BYTES..]), entry.header.body_crc, "an entry with a wrong CRC is not given out");
        assert_eq!(&entry.payload[..], &bytes[HEADER_BYTES..entry.header.contents_a()]);
        assert_eq!(recovered.openings.incarnation_of(entry.sequence).unwrap_or(entry.header.incarnation), entry.header.incarnation);
        for range in entry.records.iter().filter_map(range_of) {
            assert!(u64::from(range.start) + u64::from(range.len) <= entry.payload.len() as u64);
        }
    }
    for damage in damaged {
        assert!(matches!(damage.touched, Touched::Partitions(_)) || damage.records.is_empty());
    }
}

fn range_of(record: &Record) -> Option<PayloadRange> {
    match record {
        Record::Batches { payload, .. } => Some(*payload),
        Record::Raft { step, .. } => Some(*step),
        Record::Checkpoint { delta, .. } => Some(*delta),
        Record::State { state, .. } => Some(*state),
        Record::Damaged { reason, .. } => Some(*reason),
        Record::Extent { tail, .. } => Some(*tail),
        Record::Roll { .. } | Record::Deleted { .. } => None,
    }
}

/// Every entry whose write completed, with all before it since the last opening, and that was not released is there, byte for byte.
fn complete(recovered: &Recovered, opened_at: u64, completed: &BTreeMap<u64, Slice>) {
    assert!(!matches!(recovered.verdict, Verdict::Damaged { .. }), "an untouched journal: {:?}", recovered.verdict);
    let known: BTreeMap<u64, &Slice> = recovered.entries.iter().map(|entry| (entry.sequence, &entry.payload)).collect();
    let mut next = opened_at;
    for (sequence, bytes) in completed {
        next += u64::from(*sequence == next);
        if *sequence < next && *sequence >= recovered.oldest_live {
            let payload = known.get(sequence).unwrap_or_else(|| panic!("entry {sequence} was durable and is lost"));
            assert_eq!(&bytes[HEADER_BYTES..HEADER_BYTES + payload.len()], &payload[..]);
        }
    }
}

/// As boot: records by partition, oldest first, extents that are stated, damage where it touches.
fn fold(recovered: &Recovered, pool: &Pool) {
    let mut images: BTreeMap<PartitionId, PartitionImage> = BTreeMap::new();
    for entry in &recovered.entries {
        let mut stated = entry.extents_stated(recovered.extents_durable);
        for record in &entry.records {
            let image = images.entry(record.partition()).or_default();
            let _ = image.apply(record, &entry.payload, entry.sequence);
            if matches!(record, Record::Extent { .. }) && stated > 0 {
                stated -= 1;
                image.extent_is_stated();
            }
        }
    }
    images.into_values().for_each(|image| image::finish(image, None, pool));
}

/// Opens for writing, writes an entry, and finds it again, with all that was there before.
fn open_and_write(disk: &mut MemoryDisk, recovered: Recovered, pool: &Pool, stated: u64) {
    let before = told(&recovered);
    let oldest = recovered.oldest_live;
    let Ok(mut journal) = prepare(disk, Path::new(FOLDER), &recovered, 0x5eed, OPTIONS, pool) else { return };
    drop(recovered);
    let partition = PartitionId { topic: Uuid([9; 16]), index: 1 };
    if journal.append(Urgency::Relief, Record::Deleted { partition }, &[]).is_err() {
        return;
    }
    let sealed = journal.seal(Nanos(0)).expect("a record was appended");
    write(disk, &sealed);
    journal.completed(sealed.sequence, Nanos(0));
    let after = recover(disk, Path::new(FOLDER), pool, stated).expect("a journal that was opened is read");
    check(&after, disk);
    assert_eq!(after.next, sealed.sequence + 1);
    assert_eq!(after.oldest_live, oldest);
    let mut expected = before;
    expected.push((sealed.sequence, vec![Record::Deleted { partition }]));
    assert_eq!(told(&after), expected, "opening and writing changes nothing of what was there");
}

fn write(disk: &mut MemoryDisk, sealed: &millrace_log::journal::Sealed) {
    let file = disk.files.get_mut(&path(&layout::file_name(sealed.slot))).expect("the writer's files are there");
    let at = sealed.place as usize;
    file[at..at + sealed.slice.len()].copy_from_slice(&sealed.slice);
}

/// A journal that is written as the input says.
struct Script {
    pool: Pool,
    disk: MemoryDisk,
    journal: Journal,
    /// Sealed, and maybe not yet on the disk.
    flights: Vec<millrace_log::journal::Sealed>,
    completed: BTreeMap<u64, Slice>,
    /// The first sequence of this opening.
    opened_at: u64,
    ends: BTreeMap<u32, Offset>,
    incarnation: u64,
}

impl Script {
    fn new(pool: Pool) -> Script {
        let mut disk = MemoryDisk::default();
        let journal = opened(&mut disk, &pool, 1);
        let opened_at = journal.next_sequence();
        Script { pool, disk, journal, flights: Vec::new(), completed: BTreeMap::new(), opened_at, ends: BTreeMap::new(), incarnation: 1 }
    }

    fn step(&mut self, choices: &mut Input<'_>) {
        let kind = choices.u8();
        let now = Nanos(u64::from(choices.u8()) << 20);
        match kind % 16 {
            0..=5 => self.append(kind, choices),
            6..=8 => {
                self.flights.extend(self.journal.seal(now));
                self.complete_one(0, now);
            }
            9 => self.flights.extend(self.journal.seal(now)),
            10 => self.complete_one(choices.u8() as usize, now),
            11 => {
                let sequence = (self.journal.oldest_live() + u64::from(choices.u8() % 4)).min(self.journal.durable() + 1);
                self.journal.release(sequence);
            }
            12 if !self.journal.is_building() => self.flights.extend(self.journal.seal_statement(now)),
            13 => self.journal.extents_durable(self.journal.extents_before().min(u64::from(choices.u8())), now),
            14 => {
                if let Some(slot) = self.journal.wants_file() {
                    self.disk.files.insert(path(&layout::file_name(slot)), vec![0; OPTIONS.file_bytes as usize]);
                    self.journal.file_added(slot);
                }
            }
            // A crash: of what is in flight, some reached the disk in part.
            15 => {
                for flight in std::mem::take(&mut self.flights) {
                    let kept = usize::from(choices.u8()) * 512;
                    let file = self.disk.files.get_mut(&path(&layout::file_name(flight.slot))).expect("the writer's files are there");
                    let (at, len) = (flight.place as usize, kept.min(flight.slice.len()));
                    file[at..at + len].copy_from_slice(&flight.slice[..len]);
                }
                self.incarnation += 1;
                self.journal = opened(&mut self.disk, &self.pool, self.incarnation);
                self.opened_at = self.journal.next_sequence();
                self.completed.retain(|sequence, _| *sequence < self.opened_at);
            }
            _ => {}
        }
    }

    fn complete_one(&mut self, which: usize, now: Nanos) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.remove(which % self.flights.len());
        write(&mut self.disk, &flight);
        self.journal.completed(flight.sequence, now);
        self.completed.insert(flight.sequence, flight.slice);
    }

    fn append(&mut self, kind: u8, choices: &mut Input<'_>) {
        let index = u32::from(choices.u8() % 3);
        let partition = PartitionId { topic: Uuid([3; 16]), index };
        let nowhere = PayloadRange { start: 0, len: 0 };
        let urgency = [Urgency::Data, Urgency::Reserved, Urgency::Relief][usize::from(kind / 16 % 3)];
        let known = self.ends.get(&index).copied();
        let end = known.unwrap_or(0);
        let count = u16::from(choices.u8() % 12) + 1;
        let (record, payload) = match kind % 16 {
            _ if known.is_none() => {
                let state = PartitionState::birth(0, 100, Vec::new()).encode();
                (Record::State { partition, state: nowhere }, state)
            }
            0..=2 => {
                let payload = image::batches(end, count);
                (Record::Batches { partition, base: end, end: end + i64::from(count), payload: nowhere }, payload)
            }
            3 => {
                let base = end;
                let tail = image::batches(base, 2);
                let (crc, end) = (choices.u32(), base + 2);
                (Record::Extent { partition, base, end, segment: 0, place: 0, bytes: 4096, crc, tail: nowhere }, tail)
            }
            4 => {
                let truncate = (count % 4 == 0).then(|| Position::new(1, (end - i64::from(count)).max(0)));
                (Record::Raft { partition, truncate, log_start: None, step: nowhere }, choices.sized().to_vec())
            }
            _ => (Record::Roll { partition, base: end }, Vec::new()),
        };
        let after = match &record {
            Record::Batches { end, .. } | Record::Extent { end, .. } => *end,
            Record::Raft { truncate: Some(to), .. } => to.offset,
            _ => end,
        };
        if self.journal.append(urgency, record, &payload).is_ok() {
            self.ends.insert(index, after);
        }
    }
}

fn opened(disk: &mut MemoryDisk, pool: &Pool, incarnation: u64) -> Journal {
    let recovered = recover(disk, Path::new(FOLDER), pool, 0).expect("an own journal after a crash");
    prepare(disk, Path::new(FOLDER), &recovered, incarnation, OPTIONS, pool).expect("nothing fails here")
}
