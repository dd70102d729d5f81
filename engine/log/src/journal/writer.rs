//! The writing side of a journal: builds entries, places them, and knows what is durable and which files are free.
//!
//! 1. Appends go into the entry being built, in memory that the entry is then written from. [`Journal::seal`] ends it, places it behind
//!    the one before or at the begin of the next free file, and gives the caller one write to submit. Several may be in flight.
//! 2. [`Journal::completed`] takes the completion of that synced write. An entry is durable when all up to it are: [`Journal::durable`].
//! 3. [`Journal::release`] says that no entry below a sequence is needed. Entries sealed from then on state it; once one of them is
//!    durable, the files wholly below are free. Earlier, a crash could leave a newest entry that still asks for them.
//! 4. [`Journal::statement_due`]: after a quiet millisecond an empty entry states what was synced, so that its loss is known as damage.
//! 5. Every kind of append leaves a reserve to the more urgent ones: see [`Urgency`]. What lets files become free has the last word.
//!
//! Invariants: stated oldest live <= oldest live <= durable + 1 <= next; used files hold rising sequences, the last one is being written;
//! no byte of a file is written while an entry at or above the durably stated oldest live lies in it, except behind the last entry.
//! Knows nothing of rings: the caller submits what [`Sealed`] says. Nothing of what records mean.

use super::contents;
use super::files::Files;
pub use super::files::{FileRoom, Pressure};
use super::layout::{self, HEADER_BYTES, Header, TRAILER_BYTES, Trailer, entry_bytes};
use super::record::{PayloadRange, Record};
use millrace_base::clock::Nanos;
use millrace_base::crc::crc32c;
use millrace_base::fault::Fault;
use millrace_base::ids::PartitionId;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{Pool, Slice, Space};
use std::collections::VecDeque;
use std::fmt;

/// Memory taken at a time; holds many entries.
const CHUNK_BYTES: usize = 2 << 20;
/// The largest chunk that the pool recycles: more is taken only when one entry needs it.
const CHUNK_BYTES_MAX: usize = 4 << 20;
/// An entry is not begun in what is left of a chunk when that is less.
const CHUNK_REST_MIN: usize = 64 << 10;
/// Quiet time after which what was synced is stated.
pub const QUIET_MS: u64 = 1;

/// Bytes of the reserve that making a full journal free takes for one partition, by estimate: the statements of a checkpoint, a state file that is
/// named, and Raft state that is carried on.
const RELIEF_BYTES: u64 = 800;

/// Bounds of one journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Size of a new journal file. Whole blocks.
    pub file_bytes: u64,
    /// Whole blocks, at most a file.
    pub entry_bytes_max: usize,
    /// Files that a fresh journal begins with; at least one.
    pub files_first: u32,
    /// Files beyond which the journal does not grow; at least two.
    pub files_max: u32,
    /// Bytes kept from [`Urgency::Data`]; half of them are kept from [`Urgency::Reserved`] too. At least four blocks, at most a file.
    pub reserve_bytes: u64,
}

impl Options {
    /// The sizes that a broker uses; `files_max` follows from its memory.
    pub fn new(files_max: u32) -> Options {
        Options {
            file_bytes: layout::FILE_BYTES,
            entry_bytes_max: layout::ENTRY_BYTES_MAX,
            files_first: 1,
            files_max,
            reserve_bytes: layout::FILE_BYTES / 2,
        }
    }

    /// Partitions whose batches may all stand in the oldest file, and it still comes free out of the reserve.
    pub fn partitions_max(&self) -> usize {
        usize::try_from(self.reserve_bytes / RELIEF_BYTES).unwrap_or(usize::MAX)
    }

    /// # Panics
    /// When the numbers contradict each other.
    pub(super) fn check(&self) {
        assert!(self.file_bytes.is_multiple_of(BLOCK as u64) && self.entry_bytes_max.is_multiple_of(BLOCK));
        assert!(self.entry_bytes_max >= BLOCK && self.entry_bytes_max as u64 <= self.file_bytes);
        assert!(self.file_bytes <= layout::FILE_BYTES_MAX && self.files_first >= 1 && self.files_max >= self.files_first.max(2));
        assert!(self.reserve_bytes >= 4 * BLOCK as u64 && self.reserve_bytes <= self.file_bytes);
    }
}

/// Who may use the last room of a journal. Each leaves a reserve to those behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// Batches of clients.
    Data,
    /// Metadata, group commits, births: what a full disk may refuse or put off, but last.
    Reserved,
    /// What files become free by (checkpoints, carried states, statements, deletions), and what cannot be refused: steps of consensus.
    Relief,
}

/// Why an append was not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    /// Not into this entry: seal it, append to the next one.
    Entry,
    /// The journal's free files are used up to this urgency's reserve: push back until files become free.
    Journal,
    /// Larger than any entry: write it straight to its segment.
    TooLarge,
}

impl NoRoom {
    pub fn fault(self) -> Fault {
        match self {
            NoRoom::Entry | NoRoom::Journal => Fault::Retry,
            NoRoom::TooLarge => Fault::Refuse,
        }
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoRoom::Entry => write!(f, "the entry being built is full: seal it and append again"),
            NoRoom::Journal => write!(f, "no free journal file or no memory: wait for a checkpoint"),
            NoRoom::TooLarge => write!(f, "larger than a journal entry: write it to the segment directly"),
        }
    }
}

impl std::error::Error for NoRoom {}

/// Batches in a sealed entry.
#[derive(Clone, Debug)]
pub struct SealedBatches {
    pub partition: PartitionId,
    pub base: Offset,
    pub end: Offset,
    /// The bytes in the entry's own memory: the partition's tail cache may keep them.
    pub bytes: Slice,
}

/// An entry to be written: one synced write of `slice` at `place` of the journal file `slot`.
#[derive(Debug)]
pub struct Sealed {
    pub sequence: u64,
    pub slot: u32,
    pub place: u64,
    /// The whole entry, whole blocks, block-aligned memory.
    pub slice: Slice,
    /// In the order of appending.
    pub batches: Vec<SealedBatches>,
}

/// The entry being built.
#[derive(Default)]
struct Building {
    payload: usize,
    records: Vec<u8>,
    count: u32,
    batches: Vec<(PartitionId, Offset, Offset, PayloadRange)>,
    extents: u64,
    /// Holds something that is not for relief.
    is_urgent: bool,
    /// Something of it may be acknowledged: batches, births, or a step of consensus such as a log start.
    is_told: bool,
}

impl Building {
    fn bytes_with(&self, payload: usize, records: usize) -> usize {
        entry_bytes(self.payload + payload, self.records.len() + records)
    }
}

/// A sealed entry whose write has not completed, or not yet all before it.
struct Flight {
    sequence: u64,
    oldest_live: u64,
    completed: bool,
}

/// Where a journal goes on after recovery.
pub(super) struct Begin {
    pub incarnation: u64,
    /// The next entry's sequence and chain.
    pub next: u64,
    pub chain: u32,
    pub oldest_live: u64,
    pub extents_before: u64,
    pub extents_durable: u64,
    pub openings: usize,
}

/// The writing side of one journal.
pub struct Journal {
    options: Options,
    pool: Pool,
    incarnation: u64,
    space: Option<Space>,
    building: Option<Building>,
    entry_bytes_last: usize,
    next: u64,
    chain: u32,
    files: Files,
    flights: VecDeque<Flight>,
    durable: u64,
    oldest_live: u64,
    /// By a durable entry.
    oldest_stated: u64,
    /// By a sealed entry.
    synced_stated: u64,
    oldest_sealed: u64,
    /// The last entry of which something may have been acknowledged: what needs to be stated.
    told: u64,
    quiet_since: Nanos,
    extents_before: u64,
    extents_durable: u64,
    /// By a sealed entry.
    extents_stated: u64,
    openings: usize,
}

impl Journal {
    pub(super) fn new(options: Options, pool: Pool, begin: &Begin, files: Files) -> Journal {
        options.check();
        assert!(begin.oldest_live <= begin.next);
        Journal {
            options,
            pool,
            incarnation: begin.incarnation,
            space: None,
            building: None,
            entry_bytes_last: 0,
            next: begin.next,
            chain: begin.chain,
            files,
            flights: VecDeque::new(),
            durable: begin.next - 1,
            oldest_live: begin.oldest_live,
            oldest_stated: begin.oldest_live,
            synced_stated: begin.next - 1,
            oldest_sealed: begin.oldest_live,
            told: 0,
            quiet_since: Nanos(0),
            extents_before: begin.extents_before,
            extents_durable: begin.extents_durable,
            extents_stated: begin.extents_durable,
            openings: begin.openings,
        }
    }

    /// A journal without files: it has room for nothing. For a data directory that has failed.
    pub fn nowhere(pool: &Pool) -> Journal {
        let begin = Begin { incarnation: 0, next: 1, chain: 0, oldest_live: 1, extents_before: 0, extents_durable: 0, openings: 0 };
        Journal::new(Options::new(2), pool.clone(), &begin, Files::default())
    }

    /// Sequence of the next entry that is sealed, the one being built if there is one.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// All entries up to this one are durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Entries sealed and not yet durable.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Whether something was appended since the last seal.
    pub fn is_building(&self) -> bool {
        self.building.is_some()
    }

    /// Whether only the reserve is left, or less.
    pub fn is_on_reserve(&self) -> bool {
        self.room_in_all(Urgency::Data) == 0 || self.files.entry_limit(&self.options, Urgency::Data) == 0
    }

    /// Whether only the reserve is left and the entry being built holds nothing but relief. Each entry takes a block at least: what can wait
    /// for more of its kind should, or the last room goes before a file is free.
    pub fn should_gather(&self) -> bool {
        self.building.as_ref().is_some_and(|building| !building.is_urgent) && self.is_on_reserve()
    }

    /// Bytes of the entry being built, were it sealed now; 0 when there is none.
    pub fn building_bytes(&self) -> usize {
        self.building.as_ref().map_or(0, |building| building.bytes_with(0, 0))
    }

    /// Bytes that entries behind the one being built can hold together, but for the ends of files that they leave.
    pub fn room_in_all(&self, urgency: Urgency) -> usize {
        self.files.room_in_all(&self.options, urgency).saturating_sub(self.building_bytes())
    }

    /// Payload bytes that one more record of this urgency can bring into the entry being built (or the next one). Data is bounded by the
    /// memory there is, too: who has asked may append, and who has not is not refused for it.
    pub fn room_for(&self, urgency: Urgency) -> usize {
        let limit = self.files.entry_limit(&self.options, urgency);
        let limit = if urgency == Urgency::Data { limit.min(self.memory_limit()) } else { limit };
        let (payload, records) = self.building.as_ref().map_or((0, 0), |building| (building.payload, building.records.len()));
        let around = HEADER_BYTES + payload + 2 * (records + contents::RECORD_BYTES_MAX + TRAILER_BYTES);
        limit.saturating_sub(around)
    }

    /// [`Journal::room_for`] data.
    pub fn room(&self) -> usize {
        self.room_for(Urgency::Data)
    }

    /// Copies whole batches, `parts` back to back, into the entry. Patch them with [`Journal::payload_mut`] before sealing.
    ///
    /// # Errors
    /// [`NoRoom`]: nothing has changed.
    pub fn append_batches(
        &mut self,
        urgency: Urgency,
        partition: PartitionId,
        base: Offset,
        end: Offset,
        parts: &[&[u8]],
    ) -> Result<PayloadRange, NoRoom> {
        assert!(base < end);
        let nowhere = PayloadRange { start: 0, len: 0 };
        let range = self.append_parts(urgency, Record::Batches { partition, base, end, payload: nowhere }, parts)?;
        let building = self.building.as_mut().expect("something was just appended");
        building.batches.push((partition, base, end, range));
        Ok(range)
    }

    /// Appends a record and the payload that it names (empty for kinds without one). The range in `record` is replaced by the true one.
    ///
    /// # Errors
    /// [`NoRoom`]: nothing has changed.
    pub fn append(&mut self, urgency: Urgency, record: Record, payload: &[u8]) -> Result<PayloadRange, NoRoom> {
        match record {
            Record::Batches { partition, base, end, .. } => self.append_batches(urgency, partition, base, end, &[payload]),
            other => self.append_parts(urgency, other, &[payload]),
        }
    }

    fn append_parts(&mut self, urgency: Urgency, mut record: Record, parts: &[&[u8]]) -> Result<PayloadRange, NoRoom> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if entry_bytes(len, contents::RECORD_BYTES_MAX) > self.options.entry_bytes_max {
            return Err(NoRoom::TooLarge);
        }
        let limit = self.files.entry_limit(&self.options, urgency);
        let building = self.building.get_or_insert_default();
        let total = building.bytes_with(len, contents::RECORD_BYTES_MAX);
        if total > limit.min(self.options.entry_bytes_max) {
            let is_new = building.count == 0;
            if is_new {
                self.building = None;
            }
            let entry_is_full = !is_new && total > self.options.entry_bytes_max;
            return Err(if entry_is_full { NoRoom::Entry } else { NoRoom::Journal });
        }
        let start = building.payload;
        let range = PayloadRange { start: start as u32, len: len as u32 };
        match &mut record {
            Record::Batches { payload, .. } => *payload = range,
            Record::Checkpoint { delta, .. } => *delta = range,
            Record::State { state, .. } => *state = range,
            Record::Damaged { reason, .. } => *reason = range,
            Record::Extent { tail, .. } => {
                *tail = range;
                building.extents += 1;
            }
            Record::Raft { step, .. } => *step = range,
            Record::Roll { .. } | Record::Deleted { .. } => assert!(len == 0, "this kind of record has no payload"),
        }
        contents::encode(&record, &mut building.records);
        building.count += 1;
        building.payload += len;
        building.is_urgent |= urgency != Urgency::Relief;
        building.is_told |= urgency != Urgency::Relief || matches!(record, Record::Raft { .. });
        let filled = if building.count == 1 { 0 } else { HEADER_BYTES + start };
        let mut to = HEADER_BYTES + start;
        let memory = self.memory(filled, total);
        for part in parts {
            memory[to..to + part.len()].copy_from_slice(part);
            to += part.len();
        }
        Ok(range)
    }

    /// The chunk to be taken for an entry of at least `needed` bytes, the first `filled` of which are there; None: it fits the present one.
    fn chunk_for(&self, filled: usize, needed: usize) -> Option<usize> {
        let room = self.space.as_ref().map_or(0, Space::room);
        let wanted = if filled == 0 { needed.max(self.entry_bytes_last.min(CHUNK_BYTES_MAX)).max(CHUNK_REST_MIN) } else { needed };
        let growing = if filled == 0 { wanted } else { (needed * 2).min(self.options.entry_bytes_max).max(needed) };
        let growing = if self.pool.has_room(growing) { growing } else { wanted };
        (room < wanted).then_some(growing.max(CHUNK_BYTES))
    }

    /// The largest entry that the pool has room for, whatever the entry being built holds already.
    fn memory_limit(&self) -> usize {
        let room = self.space.as_ref().map_or(0, Space::room);
        let is_begun = self.building.is_some() || self.chunk_for(0, 0).is_none();
        let free = self.pool.budget().saturating_sub(self.pool.used());
        (if is_begun { room } else { 0 }).max(if free >= CHUNK_BYTES { free } else { 0 })
    }

    /// The memory of the entry being built, at least `needed` bytes of it; the first `filled` are kept.
    fn memory(&mut self, filled: usize, needed: usize) -> &mut [u8] {
        if let Some(chunk) = self.chunk_for(filled, needed) {
            let mut larger = self.pool.take(chunk);
            if let Some(old) = self.space.as_mut().filter(|_| filled > 0) {
                larger.unfrozen()[..filled].copy_from_slice(&old.unfrozen()[..filled]);
            }
            self.space = Some(larger);
        }
        self.space.as_mut().expect("taken above").unfrozen()
    }

    /// Bytes appended to the entry being built, to be patched in place.
    ///
    /// # Panics
    /// When `range` is not in the entry being built.
    pub fn payload_mut(&mut self, range: PayloadRange) -> &mut [u8] {
        let payload = self.building.as_ref().map_or(0, |building| building.payload);
        let (start, len) = (range.start as usize, range.len as usize);
        assert!(start + len <= payload);
        let space = self.space.as_mut().expect("an entry being built has memory");
        &mut space.unfrozen()[HEADER_BYTES + start..HEADER_BYTES + start + len]
    }

    /// Ends the entry being built. None when nothing was appended.
    pub fn seal(&mut self, now: Nanos) -> Option<Sealed> {
        let building = self.building.take()?;
        // Of checkpoints and carried states nothing was acknowledged: to state them as well would take as much of the reserve again.
        if building.is_told || !self.is_on_reserve() {
            self.told = self.next;
        }
        Some(self.seal_entry(building, now))
    }

    /// An entry without records, which only states what is synced and what is live.
    ///
    /// # Errors
    /// [`NoRoom::Journal`] when not one block is free. [`NoRoom::Entry`] when an entry is being built: sealing that states it too.
    pub fn seal_statement(&mut self, now: Nanos) -> Result<Sealed, NoRoom> {
        if self.building.is_some() {
            return Err(NoRoom::Entry);
        }
        if !self.files.has_room_to_state(&self.options, self.would_free()) {
            return Err(NoRoom::Journal);
        }
        self.memory(0, entry_bytes(0, 0));
        Ok(self.seal_entry(Building::default(), now))
    }

    fn seal_entry(&mut self, building: Building, now: Nanos) -> Sealed {
        let sequence = self.next;
        let bytes = building.bytes_with(0, 0);
        let synced = if is_planted(Bug::SkipSynced) { 0 } else { self.durable };
        let contents_bytes = building.records.len() + TRAILER_BYTES;
        let mut header = Header {
            chain: self.chain,
            incarnation: self.incarnation,
            sequence,
            oldest_live: self.oldest_live,
            synced,
            extents_before: self.extents_before,
            extents_durable: self.extents_durable,
            entry_bytes: bytes as u32,
            payload_bytes: building.payload as u32,
            contents_bytes: contents_bytes as u32,
            body_crc: 0,
            header_crc: 0,
        };
        let trailer = Trailer {
            count: building.count,
            records_bytes: building.records.len() as u32,
            entry_bytes: bytes as u32,
            incarnation: self.incarnation,
            sequence,
            payload_bytes: building.payload as u32,
        };
        let filled = if building.count == 0 { 0 } else { HEADER_BYTES + building.payload };
        let entry = &mut self.memory(filled, bytes)[..bytes];
        let (a, b) = (header.contents_a(), header.contents_b());
        trailer.encode(&building.records, &mut entry[a..a + contents_bytes]);
        entry[a + contents_bytes..b].fill(0);
        trailer.encode(&building.records, &mut entry[b..]);
        header.body_crc = crc32c(&entry[HEADER_BYTES..]);
        header.encode(entry);
        let slice = self.space.as_mut().expect("an entry has memory").freeze(bytes);
        let (slot, place) = self.files.place(sequence, bytes as u64);
        let batches = building.batches.iter().map(|(partition, base, end, range)| {
            let start = HEADER_BYTES + range.start as usize;
            SealedBatches { partition: *partition, base: *base, end: *end, bytes: slice.sub(start..start + range.len as usize) }
        });
        let batches = batches.collect();
        self.entry_bytes_last = bytes;
        self.next += 1;
        self.chain = header.header_crc;
        self.extents_before += building.extents;
        self.synced_stated = self.synced_stated.max(header.synced);
        self.extents_stated = header.extents_durable;
        self.oldest_sealed = header.oldest_live;
        self.flights.push_back(Flight { sequence, oldest_live: header.oldest_live, completed: false });
        self.quiet_since = now;
        Sealed { sequence, slot, place, slice, batches }
    }

    /// The synced write of entry `sequence` has completed. Gives [`Journal::durable`].
    ///
    /// # Panics
    /// When that entry is not in flight.
    pub fn completed(&mut self, sequence: u64, now: Nanos) -> u64 {
        let flight = self.flights.iter_mut().find(|flight| flight.sequence == sequence).expect("a completion is of an entry in flight");
        assert!(!flight.completed);
        flight.completed = true;
        self.quiet_since = now;
        while let Some(first) = self.flights.front().filter(|flight| flight.completed) {
            self.durable = self.durable.max(first.sequence);
            self.oldest_stated = first.oldest_live;
            self.flights.pop_front();
        }
        if is_planted(Bug::AcknowledgeOutOfOrder) {
            self.durable = self.durable.max(sequence);
        }
        self.files.free_below(self.oldest_stated);
        self.durable
    }

    /// No entry below `oldest_live` is needed any more: what it said is checkpointed or said again by a durable entry.
    ///
    /// # Panics
    /// When it is above the first entry that is not durable.
    pub fn release(&mut self, oldest_live: u64) {
        assert!(oldest_live <= self.durable + 1, "an entry that is not durable cannot be done with");
        self.oldest_live = self.oldest_live.max(oldest_live);
        if is_planted(Bug::ReuseEarly) {
            self.files.free_below(self.oldest_live);
        }
    }

    /// The first entry still needed.
    pub fn oldest_live(&self) -> u64 {
        self.oldest_live
    }

    /// When an empty entry has to state what was synced, extents included, or what is free: None while nothing waits for it.
    pub fn statement_at(&self) -> Option<Nanos> {
        let frees = self.would_free();
        let is_stated = self.durable.min(self.told) <= self.synced_stated && self.extents_durable <= self.extents_stated;
        let waits = (frees || !is_stated) && self.files.has_room_to_state(&self.options, frees);
        (waits && self.building.is_none() && self.flights.is_empty()).then(|| self.quiet_since.plus_ms(QUIET_MS))
    }

    /// Whether a file waits for nothing but the statement that its entries are released.
    fn would_free(&self) -> bool {
        self.files.would_free(self.oldest_live, self.oldest_sealed)
    }

    /// Whether [`Journal::seal_statement`] is due at `now`.
    pub fn statement_due(&self, now: Nanos) -> bool {
        self.statement_at().is_some_and(|at| at <= now)
    }

    /// The first `count` extents are durable in their segments. Only grows; later entries state it.
    pub fn extents_durable(&mut self, count: u64, now: Nanos) {
        assert!(count <= self.extents_before);
        self.extents_durable = self.extents_durable.max(count);
        self.quiet_since = now;
    }

    /// Extents in all sealed entries: the number of the first extent in the entry being built.
    pub fn extents_before(&self) -> u64 {
        self.extents_before
    }

    /// Free files.
    pub fn files_free(&self) -> usize {
        self.files.free()
    }

    /// How full the journal is, and what to relieve first.
    pub fn pressure(&self) -> Pressure {
        self.files.pressure(self.openings)
    }

    /// Slot of a file that should be made in the background, once; then [`Journal::file_added`] or [`Journal::file_failed`].
    ///
    /// To make it: write zeros over all `file_bytes` of [`layout::unfinished_name`], sync it, rename it to [`layout::file_name`], sync
    /// the folder.
    pub fn wants_file(&mut self) -> Option<u32> {
        self.files.wants_file(&self.options)
    }

    /// The file that was wanted is there, durable and named.
    pub fn file_added(&mut self, slot: u32) {
        self.files.added(slot, self.options.file_bytes);
    }

    /// The file that was wanted cannot be made now; it is wanted again later.
    pub fn file_failed(&mut self, slot: u32) {
        self.files.failed(slot);
    }

    pub fn options(&self) -> &Options {
        &self.options
    }
}
