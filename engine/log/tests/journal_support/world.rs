//! One journal on a simulated disk, and what its user was promised: which entries were acknowledged, which released.
//!
//! A violation is an `Err` with words, so that a planted bug's conviction can be asserted.

use super::disk::{SimDisk, choose};
use millrace_base::clock::Nanos;
use millrace_base::ids::{PartitionId, Uuid};
use millrace_base::limits::BLOCK;
use millrace_base::prng::Prng;
use millrace_io::{Disk, OpenHow, Pool};
use millrace_log::journal::record::{PayloadRange, Record};
use millrace_log::journal::{Journal, NoRoom, Options, Recovered, Sealed, Urgency, Verdict, layout, prepare, recover};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub const FOLDER: &str = "/data/journal/0";

pub fn small() -> Options {
    Options { file_bytes: 8 * BLOCK as u64, entry_bytes_max: 4 * BLOCK, files_first: 2, files_max: 4, reserve_bytes: 4 * BLOCK as u64 }
}

fn options(habits: Habits) -> Options {
    Options { files_max: if habits.keep_all { 1_000 } else { small().files_max }, ..small() }
}

pub fn partition(index: u32) -> PartitionId {
    PartitionId { topic: Uuid([3; 16]), index }
}

/// What was written as one entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    pub records: Vec<Record>,
    pub payload: Vec<u8>,
    pub slot: u32,
    pub place: u64,
    pub bytes: u64,
}

/// How the world behaves.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Entries differ in nothing but their sequence, so that a lost one can be written again to the byte.
    pub same_contents: bool,
    /// Every opening gets the same random number.
    pub same_incarnation: bool,
    /// Only entries of one block, for short runs with few loose sectors.
    pub one_block: bool,
    /// Nothing is released, so that the chain reaches back to the first entry.
    pub keep_all: bool,
    /// Writes in flight at a time.
    pub flights_max: usize,
}

pub const ROUGH: Habits = Habits { same_contents: false, same_incarnation: false, one_block: false, keep_all: false, flights_max: 4 };

#[derive(Clone)]
pub struct Flight {
    pub sequence: u64,
    pub write: (PathBuf, u64),
}

pub struct World {
    pub disk: SimDisk,
    pub journal: Journal,
    pub pool: Pool,
    pub rng: Prng,
    pub habits: Habits,
    /// Of this history: what recovery cut is gone from it.
    pub written: BTreeMap<u64, Written>,
    pub flights: Vec<Flight>,
    pub acknowledged: u64,
    pub released: u64,
    pub now: Nanos,
    pub images: u64,
    /// Times a file was filled again.
    pub recycled: u64,
    slots_seen: BTreeSet<u32>,
    slot_last: u32,
}

pub fn folder() -> &'static Path {
    Path::new(FOLDER)
}

pub fn file_path(slot: u32) -> PathBuf {
    folder().join(layout::file_name(slot))
}

impl World {
    pub fn new(seed: u64, habits: Habits) -> World {
        let mut rng = Prng::new(seed);
        let mut disk = SimDisk::default();
        let pool = Pool::new(1 << 30);
        let recovered = recover(&mut disk, folder(), &pool, 0).unwrap();
        let journal = prepare(&mut disk, folder(), &recovered, incarnation(habits, &mut rng), options(habits), &pool).unwrap();
        World {
            disk,
            journal,
            pool,
            rng,
            habits,
            written: BTreeMap::new(),
            flights: Vec::new(),
            acknowledged: 0,
            released: 1,
            now: Nanos(0),
            images: 0,
            recycled: 0,
            slots_seen: BTreeSet::new(),
            slot_last: u32::MAX,
        }
    }

    /// One random step.
    pub fn step(&mut self) {
        self.now = Nanos(self.now.0 + 1 + self.rng.below(400_000));
        match self.rng.below(10) {
            0..=3 if self.flights.len() < self.habits.flights_max => self.write(),
            0..=6 => self.complete_one(),
            7 => self.release(),
            8 => self.state(),
            _ => self.grow(),
        }
    }

    pub fn write(&mut self) {
        let count = 1 + self.rng.below(3);
        let mut records = Vec::new();
        for _ in 0..count {
            let index = self.rng.below(5) as u32;
            let (record, bytes) = self.record(index);
            let urgency = if matches!(record, Record::Batches { .. }) { Urgency::Data } else { Urgency::Reserved };
            match self.journal.append(urgency, record.clone(), &bytes) {
                Ok(range) => {
                    if !bytes.is_empty() {
                        assert_eq!(self.journal.payload_mut(range), &bytes[..]);
                    }
                    records.push(with_range(record, range));
                }
                Err(NoRoom::Entry | NoRoom::Journal) => break,
                Err(NoRoom::TooLarge) => panic!("records are small"),
            }
        }
        if let Some(sealed) = self.journal.seal(self.now) {
            self.submit(&sealed, records);
        }
    }

    fn record(&mut self, index: u32) -> (Record, Vec<u8>) {
        let partition = partition(index);
        let nowhere = PayloadRange { start: 0, len: 0 };
        let len = if self.habits.one_block { 1 + self.rng.below(300) } else { 1 + self.rng.below(5_000) } as usize;
        let (fill, len, kind) = if self.habits.same_contents { (7, 200, 9) } else { (self.rng.next_u64(), len, self.rng.below(10)) };
        let mut bytes: Vec<u8> = (0..len).map(|at| (fill >> (at % 8 * 8)) as u8).collect();
        let record = match kind {
            0 => Record::Raft { partition, truncate: None, log_start: Some(fill as i64 >> 1), step: nowhere },
            1 => Record::State { partition, state: nowhere },
            2 => {
                bytes.clear();
                Record::Deleted { partition }
            }
            _ => Record::Batches { partition, base: 1, end: 2, payload: nowhere },
        };
        (record, bytes)
    }

    pub fn submit(&mut self, sealed: &Sealed, records: Vec<Record>) {
        let bytes = &sealed.slice[..];
        let header = layout::Header::decode(bytes).unwrap();
        let payload = bytes[layout::HEADER_BYTES..header.contents_a()].to_vec();
        let in_batches = records.iter().filter(|record| matches!(record, Record::Batches { .. }));
        assert_eq!(in_batches.count(), sealed.batches.len());
        let written = Written { records, payload, slot: sealed.slot, place: sealed.place, bytes: bytes.len() as u64 };
        assert!(self.written.insert(sealed.sequence, written).is_none(), "a sequence is written once");
        if self.slot_last != sealed.slot {
            self.recycled += u64::from(!self.slots_seen.insert(sealed.slot));
            self.slot_last = sealed.slot;
        }
        let write = self.disk.submit(&file_path(sealed.slot), sealed.place, bytes);
        self.flights.push(Flight { sequence: sealed.sequence, write });
    }

    pub fn complete_one(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.swap_remove(self.rng.below(self.flights.len() as u64) as usize);
        self.disk.complete(&flight.write);
        self.acknowledged = self.journal.completed(flight.sequence, self.now);
    }

    pub fn complete_all(&mut self) {
        while !self.flights.is_empty() {
            self.complete_one();
        }
    }

    pub fn release(&mut self) {
        if self.acknowledged > self.released && !self.habits.keep_all {
            self.released += 1 + self.rng.below(self.acknowledged - self.released);
            self.journal.release(self.released);
        }
    }

    pub fn state(&mut self) {
        if self.rng.one_in(2) {
            self.now = self.now.plus_ms(1);
        }
        if self.journal.statement_due(self.now) {
            let sealed = self.journal.seal_statement(self.now).unwrap();
            self.submit(&sealed, Vec::new());
        }
    }

    pub fn grow(&mut self) {
        let Some(slot) = self.journal.wants_file() else { return };
        if self.rng.one_in(4) {
            self.journal.file_failed(slot);
            return;
        }
        let path = folder().join(layout::unfinished_name(slot));
        let file = self.disk.open(&path, OpenHow { write: true, create: true, exclusive: false, direct: true }).unwrap();
        self.disk.write(file, 0, &vec![0; small().file_bytes as usize]).unwrap();
        self.disk.sync(file).unwrap();
        self.disk.close(file);
        self.disk.rename(&path, &file_path(slot)).unwrap();
        self.disk.sync_directory(folder()).unwrap();
        self.journal.file_added(slot);
    }

    /// Whether `image`, a disk after a power cut, keeps every promise.
    pub fn check(&mut self, image: &mut SimDisk) -> Result<Recovered, String> {
        self.images += 1;
        let recovered = recover(image, folder(), &self.pool, 0).map_err(|error| format!("recovery failed: {error}"))?;
        self.check_recovered(&recovered)?;
        match &recovered.verdict {
            Verdict::Clean | Verdict::Torn(_) => Ok(recovered),
            Verdict::Damaged { each, .. } => Err(format!("a power cut is called damage: {each:?}")),
        }
    }

    fn check_recovered(&self, recovered: &Recovered) -> Result<(), String> {
        if recovered.oldest_live > self.released {
            return Err(format!("entries from {} are needed, recovery begins at {}", self.released, recovered.oldest_live));
        }
        if recovered.next <= self.acknowledged {
            return Err(format!("entry {} was acknowledged, recovery ends before {}", self.acknowledged, recovered.next));
        }
        for (index, entry) in recovered.entries.iter().enumerate() {
            if entry.sequence != recovered.oldest_live + index as u64 {
                let (stands, belongs) = (entry.sequence, recovered.oldest_live + index as u64);
                return Err(format!("entry {stands} stands where {belongs} belongs: {:?}", recovered.verdict));
            }
            let Some(written) = self.written.get(&entry.sequence) else {
                return Err(format!("entry {} was never written in this history", entry.sequence));
            };
            if written.records != entry.records || written.payload[..] != entry.payload[..] {
                return Err(format!("entry {} is not what was written", entry.sequence));
            }
        }
        let ends = recovered.oldest_live + recovered.entries.len() as u64;
        if ends == recovered.next { Ok(()) } else { Err(format!("entries end before {ends}, the next is {}", recovered.next)) }
    }

    /// Checks images of a power cut now: all of them when at most `loose_max` sectors are loose, else `some` seeded ones.
    pub fn check_cuts(&mut self, loose_max: usize, some: u64) -> Result<(), String> {
        let loose = self.disk.loose();
        for names in 0..=self.disk.name_changes() {
            let mut image = self.disk.durable(names);
            let all = loose.len() <= loose_max;
            let count = if all { 1 << loose.len() } else { some };
            for number in 0..count {
                let chosen = if all {
                    loose.iter().enumerate().filter(|(bit, _)| number >> bit & 1 == 1).map(|(_, sector)| sector.clone()).collect()
                } else {
                    choose(&loose, &mut self.rng)
                };
                let lens: Vec<(usize, usize)> = chosen.iter().map(|sector| (sector.inode, image.len_of(sector.inode))).collect();
                let before: Vec<_> = chosen.iter().map(|sector| image.swap(sector)).collect();
                self.check(&mut image)?;
                for (sector, (inode, len)) in before.iter().zip(&lens).rev() {
                    image.swap(sector);
                    image.shorten(*inode, *len);
                }
            }
        }
        Ok(())
    }

    /// Cuts the power, or only kills the process (what was written stays readable, and is not yet durable), recovers, opens again.
    /// With `cut_opening` the power is first cut at every step of the opening.
    pub fn crash(&mut self, cut_opening: bool) -> Result<(), String> {
        let mut rng = self.rng.fork();
        let mut image = if rng.one_in(3) { self.disk.clone() } else { self.disk.cut(&mut rng) };
        let recovered = self.check(&mut image)?;
        self.flights.clear();
        self.written.split_off(&recovered.next);
        let number = incarnation(self.habits, &mut self.rng);
        if cut_opening {
            for fuse in 0.. {
                let mut fused = image.clone();
                fused.fuse = Some(fuse);
                let opened = prepare(&mut fused, folder(), &recovered, number, options(self.habits), &self.pool);
                self.disk = fused;
                self.disk.fuse = None;
                if opened.is_ok() {
                    break;
                }
                self.check_cuts(9, 24)?;
            }
        }
        self.disk = image;
        self.journal =
            prepare(&mut self.disk, folder(), &recovered, number, options(self.habits), &self.pool).map_err(|e| e.to_string())?;
        // From here on it is served: what was recovered must survive the next cut.
        self.acknowledged = self.acknowledged.max(recovered.next - 1);
        if cut_opening { self.check_cuts(9, 24) } else { Ok(()) }
    }
}

fn incarnation(habits: Habits, rng: &mut Prng) -> u64 {
    if habits.same_incarnation { 77 } else { rng.next_u64() }
}

fn with_range(record: Record, range: PayloadRange) -> Record {
    match record {
        Record::Batches { partition, base, end, .. } => Record::Batches { partition, base, end, payload: range },
        Record::Raft { partition, truncate, log_start, .. } => Record::Raft { partition, truncate, log_start, step: range },
        Record::State { partition, .. } => Record::State { partition, state: range },
        other => other,
    }
}
