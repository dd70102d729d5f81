//! One data directory as one shard sees it: its journal, the entry being built, the entries in flight, and who waits for them.
//!
//! 1. Work of a turn appends records, each with what is to be told when they are durable ([`After`]).
//! 2. At the turn's end the entry is sealed and becomes one synced write; while as many as allowed are in flight, the next entry grows.
//! 3. A completed write makes a prefix durable; what waits for it is told in the order of appending.
//! 4. A failed write or sync fails the directory: nothing more is acknowledged by any log of it until the node has recovered it.
//!
//! Invariants: what was appended later is told later; nothing is told before everything appended before it is durable.
//! Knows nothing of what the records mean.

use crate::observe::EntryCounters;
use crate::token::{self, Purpose};
use millrace_base::clock::Nanos;
use millrace_base::ids::{DirectoryIndex, PartitionId, Uuid};
use millrace_base::offset::{Offset, Position};
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{Driver, File, IoError, Op, Pool, Slice};
use millrace_log::journal::{Journal, NoRoom, PayloadRange, Record, Sealed, SealedBatches, Urgency};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

/// Entries that may be in flight: one is being written while the next is on its way to the device.
const ENTRIES_IN_FLIGHT_MAX: usize = 2;

/// Entries that are let go together from the memory that readers are served from.
const CACHED_TOGETHER_BYTES: usize = 1 << 20;

/// The peak of what is on its way is forgotten by one part in so many with each write: some tenths of a second in a busy directory.
const PEAK_PART: usize = 1024;

/// What is told when an entry is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// Batches of the partition up to this position, when as many of its direct appends as `directs` are durable too.
    Persisted { id: PartitionId, position: Position, directs: u64 },
    /// The partition's consensus step with this number, likewise.
    Saved { id: PartitionId, sequence: u64, directs: u64 },
    /// The statement that batches below this offset are in segments.
    Checkpointed(PartitionId, Offset),
    /// The same of direct appends, which no script waits for.
    Stated(PartitionId, Offset),
    /// The partition's whole state stands in this entry.
    Carried(PartitionId),
    /// The partition is stated deleted: its files may go.
    Deleted(PartitionId),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    Healthy,
    /// Nothing of it is written or acknowledged any more.
    Failed {
        reason: String,
    },
}

/// Bytes on their way to the device, and how many there were lately at most.
#[derive(Default)]
struct Unsynced {
    bytes: usize,
    peak: usize,
}

impl Unsynced {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.peak = self.bytes.max(self.peak - self.peak / PEAK_PART);
    }
}

struct InFlight {
    sequence: u64,
    slot: u32,
    place: u64,
    sealed_at: Nanos,
    after: Vec<After>,
}

/// See the module's head.
pub struct Directory {
    pub index: DirectoryIndex,
    pub id: Uuid,
    pub path: PathBuf,
    pub health: Health,
    /// The file system had no room lately; produce is refused until a write succeeds again.
    pub full: bool,
    /// The first damaged entry of a journal that could not be copied elsewhere: its files cannot be used again before it is.
    pub unkept: Option<u64>,
    /// When that is tried again.
    pub keep_at: Nanos,
    /// Room for direct appends is not asked for before.
    pub direct_from: Nanos,
    pub entries: EntryCounters,
    journal: Journal,
    files: BTreeMap<u32, File>,
    after: Vec<After>,
    in_flight: VecDeque<InFlight>,
    /// Of the entry being built: batches that are written straight to a segment.
    direct: Vec<SealedBatches>,
    extents: Extents,
    unsynced: Unsynced,
    /// Entries whose batches are in memory, oldest first: the last sequence of some that follow on each other, and their bytes.
    cached: VecDeque<(u64, usize)>,
    cached_bytes: usize,
    /// Batches of entries below are not kept in memory once a segment has them.
    uncached_below: u64,
}

/// Which of the extents of a journal are durable in their segments: later entries state how many are, without a gap.
struct Extents {
    /// Number of the first of this start, of the first that is not known to be durable, and of the next one.
    begin: u64,
    first: u64,
    next: u64,
    done: VecDeque<bool>,
}

impl Extents {
    fn begin(&mut self) -> u64 {
        self.done.push_back(false);
        self.next += 1;
        self.next - 1
    }

    fn done(&mut self, number: u64) {
        self.done[(number - self.first) as usize] = true;
        while self.done.front() == Some(&true) {
            self.done.pop_front();
            self.first += 1;
        }
    }
}

impl Directory {
    /// `files`: the journal's files, open, by slot.
    pub fn new(index: DirectoryIndex, id: Uuid, path: PathBuf, journal: Journal, files: BTreeMap<u32, File>) -> Directory {
        // Recovery has found or cut off the extents of before, and synced them.
        let begin = journal.extents_before();
        let extents = Extents { begin, first: begin, next: begin, done: VecDeque::new() };
        Directory {
            index,
            id,
            path,
            health: Health::Healthy,
            full: false,
            unkept: None,
            keep_at: Nanos(0),
            direct_from: Nanos(0),
            entries: EntryCounters::default(),
            journal,
            files,
            after: Vec::new(),
            in_flight: VecDeque::new(),
            direct: Vec::new(),
            extents,
            unsynced: Unsynced::default(),
            cached: VecDeque::new(),
            cached_bytes: 0,
            uncached_below: 0,
        }
    }

    /// One that nothing is read from or written to.
    pub fn failed(index: DirectoryIndex, id: Uuid, path: PathBuf, reason: String, pool: &Pool) -> Directory {
        let health = Health::Failed { reason };
        Directory { health, ..Directory::new(index, id, path, Journal::nowhere(pool), BTreeMap::new()) }
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    pub fn is_failed(&self) -> bool {
        matches!(self.health, Health::Failed { .. })
    }

    /// Appends a record to the entry being built, sealing the one before if this one does not fit. Gives its entry's sequence.
    ///
    /// # Errors
    /// [`NoRoom::Journal`], [`NoRoom::TooLarge`]: nothing has changed.
    pub fn append(
        &mut self,
        urgency: Urgency,
        record: Record,
        payload: &[&[u8]],
        after: Option<After>,
        sealed: &mut Vec<Sealed>,
        now: Nanos,
    ) -> Result<(u64, PayloadRange), NoRoom> {
        let mut appended = self.append_to_entry(urgency, &record, payload);
        if appended == Err(NoRoom::Entry) {
            sealed.extend(self.seal(now));
            appended = self.append_to_entry(urgency, &record, payload);
        }
        let range = appended?;
        match (after, self.after.last_mut()) {
            // A later position of the same partition says all that the earlier one did.
            (Some(After::Persisted { id, position, directs }), Some(After::Persisted { id: last, position: end, directs: before }))
                if *last == id =>
            {
                (*end, *before) = (position, directs);
            }
            (Some(after), _) => self.after.push(after),
            (None, _) => {}
        }
        Ok((self.journal.next_sequence(), range))
    }

    fn append_to_entry(&mut self, urgency: Urgency, record: &Record, payload: &[&[u8]]) -> Result<PayloadRange, NoRoom> {
        match record {
            Record::Batches { partition, base, end, .. } => self.journal.append_batches(urgency, *partition, *base, *end, payload),
            other => self.journal.append(urgency, other.clone(), payload.first().copied().unwrap_or(&[])),
        }
    }

    /// Whether an entry may be sealed now: the ring is not busy with as many as allowed.
    pub fn may_seal(&self) -> bool {
        self.in_flight.len() < ENTRIES_IN_FLIGHT_MAX && !self.is_failed()
    }

    /// Ends the entry being built.
    pub fn seal(&mut self, now: Nanos) -> Option<Sealed> {
        let mut sealed = self.journal.seal(now)?;
        self.tell_extents(now);
        if !self.direct.is_empty() {
            sealed.batches.append(&mut self.direct);
            sealed.batches.sort_by_key(|batches| (batches.partition, batches.base));
        }
        let after = std::mem::take(&mut self.after);
        self.begin(&sealed, now, after);
        Some(sealed)
    }

    /// A sealed entry is on its way from now on.
    fn begin(&mut self, sealed: &Sealed, now: Nanos, after: Vec<After>) {
        let (sequence, slot, place) = (sealed.sequence, sealed.slot, sealed.place);
        self.unsynced.add(sealed.slice.len());
        self.in_flight.push_back(InFlight { sequence, slot, place, sealed_at: now, after });
    }

    /// An empty entry that states what is synced, when a quiet time asks for it.
    pub fn statement(&mut self, now: Nanos) -> Option<Sealed> {
        if self.is_failed() || !self.journal.statement_due(now) {
            return None;
        }
        let sealed = self.journal.seal_statement(now).ok()?;
        self.begin(&sealed, now, Vec::new());
        Some(sealed)
    }

    /// A direct append whose extent was just appended to the entry being built: its batches become readable with those of the entry.
    /// Gives its number among the journal's extents.
    pub fn begin_extent(&mut self, batches: SealedBatches) -> u64 {
        self.unsynced.add(batches.bytes.len());
        self.direct.push(batches);
        self.extents.begin()
    }

    /// The direct append with this number, of batches of so many bytes, is durable in its segment.
    pub fn extent_durable(&mut self, number: u64, bytes: usize, now: Nanos) {
        self.unsynced.bytes -= bytes;
        self.extents.done(number);
        self.tell_extents(now);
    }

    /// Recovery has found all extents of before this start, and synced them, or cut what was torn, and said so: no partition is damaged.
    pub fn state_found_extents(&mut self, now: Nanos) {
        self.journal.extents_durable(self.extents.begin, now);
    }

    /// One may be durable before the entry that names it is even sealed: that is told when it is.
    fn tell_extents(&mut self, now: Nanos) {
        let Extents { begin, first, .. } = self.extents;
        if first > begin {
            self.journal.extents_durable(first.min(self.journal.extents_before()), now);
        }
    }

    /// Submits a sealed entry's write; gives the batches that were in it, whose bytes can be read from now on once committed.
    pub fn write(&mut self, driver: &mut dyn Driver, sealed: Sealed) -> Vec<SealedBatches> {
        let file = *self.files.get(&sealed.slot).expect("every journal file is open");
        let generation = token::generation_of(sealed.sequence);
        let direct = sealed.batches.iter().filter(|batches| !batches.bytes.is_of_chunk(&sealed.slice));
        self.cache(sealed.sequence, sealed.slice.len() + direct.map(|batches| batches.bytes.chunk_bytes()).sum::<usize>());
        let op = Op::Write { file, place: sealed.place, from: sealed.slice, synced: !is_planted(Bug::SkipEntrySync) };
        driver.submit(op, token::pack(Purpose::Entry, u32::from(self.index), generation));
        sealed.batches
    }

    /// Submits an entry again whose write was cut short: the same bytes to the same place.
    pub fn write_again(&mut self, driver: &mut dyn Driver, generation: u32, entry: Slice) {
        let found = self.in_flight.iter().find(|entry| token::generation_of(entry.sequence) == generation);
        if let Some(found) = found {
            let file = *self.files.get(&found.slot).expect("every journal file is open");
            let op = Op::Write { file, place: found.place, from: entry, synced: true };
            driver.submit(op, token::pack(Purpose::Entry, u32::from(self.index), generation));
        }
    }

    /// Takes an entry's completion; gives what is durable now.
    ///
    /// # Errors
    /// The directory has failed.
    pub fn completed(&mut self, generation: u32, result: Result<u32, IoError>, bytes: usize, now: Nanos) -> Result<Vec<After>, IoError> {
        if self.is_failed() {
            return Ok(Vec::new());
        }
        match result {
            Ok(written) if written as usize == bytes => {}
            Err(_) if is_planted(Bug::IgnoreWriteError) => {}
            Ok(_) => return Err(IoError::DEVICE),
            Err(error) => return Err(error),
        }
        let found = self.in_flight.iter().find(|entry| token::generation_of(entry.sequence) == generation);
        self.entries.bytes += bytes as u64;
        self.unsynced.bytes -= bytes;
        let sequence = found.expect("a completion is of an entry in flight").sequence;
        let durable = self.journal.completed(sequence, now);
        let mut told = Vec::new();
        while self.in_flight.front().is_some_and(|entry| entry.sequence <= durable) {
            let Some(entry) = self.in_flight.pop_front() else { break };
            self.entries.entries += 1;
            self.entries.latency.add(now.since(entry.sealed_at));
            told.extend(entry.after);
        }
        Ok(told)
    }

    fn cache(&mut self, sequence: u64, bytes: usize) {
        self.cached_bytes += bytes;
        match self.cached.back_mut() {
            Some((last, together)) if *together < CACHED_TOGETHER_BYTES => (*last, *together) = (sequence, *together + bytes),
            _ => self.cached.push_back((sequence, bytes)),
        }
    }

    /// Bytes of entries whose batches may be in memory though segments have them.
    pub fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// Counts the oldest entries of at least `bytes` as gone; gives the first entry that is not.
    pub fn forget_cached(&mut self, bytes: usize) -> u64 {
        let mut forgotten = 0;
        while forgotten < bytes
            && let Some((last, bytes)) = self.cached.pop_front()
        {
            forgotten += bytes;
            self.uncached_below = last + 1;
        }
        self.cached_bytes -= forgotten;
        self.uncached_below
    }

    pub fn uncached_below(&self) -> u64 {
        self.uncached_below
    }

    /// For how long the oldest entry that is not durable has been on its way.
    pub fn unsynced_for(&self, now: Nanos) -> Duration {
        self.in_flight.front().map_or(Duration::ZERO, |entry| now.since(entry.sealed_at))
    }

    /// Bytes of entries and of direct appends that were on their way to the device at once lately.
    pub fn unsynced_lately(&self) -> usize {
        self.unsynced.peak
    }

    /// Entries written and not yet durable.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn fail(&mut self, reason: String) {
        log::error!("data directory {} failed: {reason}; its partitions are offline until the node is restarted", self.path.display());
        self.health = Health::Failed { reason };
        self.after.clear();
        self.in_flight.clear();
        self.direct.clear();
    }

    /// The file system has no room. It is said once, until there is room again.
    pub fn has_filled_up(&mut self) {
        if !std::mem::replace(&mut self.full, true) {
            log::error!("data directory {} is full: produce is refused until there is room", self.path.display());
        }
    }

    /// A journal file that was made in the background.
    pub fn add_file(&mut self, slot: u32, file: File) {
        self.files.insert(slot, file);
        self.journal.file_added(slot);
    }
}
