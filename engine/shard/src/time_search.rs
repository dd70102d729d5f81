//! Offsets by time: the first record that is late enough.
//!
//! 1. A part of a question that names a record stands in line until fewer than [`SEARCHES_MAX`] are under way. The line goes from request to
//!    request: one that names many partitions does not hold up another.
//! 2. The batch is found by headers: in a segment by its index and windows of it, in memory by what each piece says of itself.
//! 3. That one batch is opened: in the turn if that is quick, else by a job off the turn, into memory of the share "work".
//! 4. Should it hold no such record at or above the log start, the search goes on behind it.
//!
//! Invariants: who stands in line holds no memory; a part is in line, under way or done; each job is told once.

use crate::api::{OffsetFound, ReadError};
use crate::engine::{Engine, Turn};
use crate::lifecycle::{Finish, Then};
use crate::partition::Partition;
use crate::queries::{Answers, INDEX_BYTES_MAX, QueryWait};
use crate::room::Asker;
use crate::script::{Outcome, read_once};
use crate::token::{self, Purpose};
use crate::waits::WaitId;
use millrace_base::batch::{self, BatchError, HEADER_BYTES};
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_io::{IoError, Op, Pool, Product, Slice, job};
use millrace_log::segments::Lookup;
use millrace_log::time_lookup;
use millrace_log::walk::{self, WalkError};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;

/// Searches of one shard that hold memory, or wait for it, at once.
const SEARCHES_MAX: usize = 4;

/// Searches that begin in one turn.
const SEARCHES_PER_TURN: usize = 8;

/// A piece in memory whose headers are walked within a turn.
const PIECE_BYTES_MAX: usize = 128 << 10;

/// Bytes of a segment that a search reads at once: with what lies before them in their block, a whole chunk.
const WINDOW_BYTES: usize = (256 << 10) - BLOCK;

pub const NONE: OffsetFound = OffsetFound { offset: -1, timestamp: -1, epoch: -1 };

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Goal {
    pub time: i64,
    /// Batches that end at or below are passed over, and records below do not count.
    pub from: Offset,
    /// Nothing at or above is named.
    pub bound: Offset,
}

/// How far a part of a question is.
pub enum Part {
    InLine,
    /// Begun, and at its turn.
    Begun,
    ForIndex(Goal),
    ForRoom(Wanting),
    Reading(Window),
    Opening,
    Done(Result<OffsetFound, ReadError>),
}

pub enum Wanting {
    Index(Goal),
    Bytes(Window),
}

/// A part of a segment that is searched.
#[derive(Clone)]
pub struct Window {
    goal: Goal,
    path: PathBuf,
    segment_end: Offset,
    place: u64,
    len: usize,
    /// The base offset of the batch at `place`, and the CRC of its outer header bytes, if the index has it.
    base: Offset,
    outer_crc: Option<u32>,
}

/// A batch, or batches, that a job searches.
struct Opening {
    query: WaitId,
    part: usize,
    goal: Goal,
    /// Where the search goes on if nothing is found.
    end: Offset,
    product: Product<Result<Option<OffsetFound>, String>>,
}

/// The searches of one shard.
#[derive(Default)]
pub struct Searches {
    /// Questions with parts in line.
    line: VecDeque<WaitId>,
    under_way: usize,
    jobs: BTreeMap<u32, Opening>,
    next_job: u32,
}

impl Searches {
    pub fn stand_in_line(&mut self, query: WaitId) {
        self.line.push_back(query);
    }

    pub fn can_begin(&self) -> bool {
        !self.line.is_empty() && self.under_way < SEARCHES_MAX
    }

    pub fn ended(&mut self) {
        self.under_way -= 1;
    }
}

impl Engine {
    /// Lets those begin that are next.
    pub fn begin_searches(&mut self, t: &mut Turn<'_>) {
        for _ in 0..SEARCHES_PER_TURN {
            if !self.searches.can_begin() {
                return;
            }
            let Some(id) = self.searches.line.pop_front() else { return };
            let Some(QueryWait { answers: Answers::Offsets { parts, line, .. }, .. }) = self.queries.get_mut(id) else { continue };
            let Some(part) = line.pop_front() else { continue };
            if !line.is_empty() {
                self.searches.line.push_back(id);
            }
            parts[part] = Part::Begun;
            self.searches.under_way += 1;
            self.find_offset(t, id, part);
        }
    }

    fn set_part(&mut self, id: WaitId, part: usize, now: Part) {
        if let Some(QueryWait { answers: Answers::Offsets { parts, .. }, .. }) = self.queries.get_mut(id) {
            parts[part] = now;
        }
    }

    pub fn search(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, goal: Goal) {
        let goal = self.newest_now(id, part).filter(|now| now.time < goal.time).unwrap_or(goal);
        let Some(partition) = self.query_partition(id, part) else { return };
        // A segment counts batches as soon as they are to be written: those that may still be on their way are all in memory.
        let written = partition.tail.checkpointed();
        let lookup = if goal.from < written { partition.store.for_time(goal.time, goal.from) } else { Lookup::Above };
        match lookup {
            Lookup::Place { segment, place, entry } if entry.is_none_or(|entry| segment + i64::from(entry.relative) < written) => {
                let Some(summary) = partition.store.summary(segment).copied() else {
                    let reason = format!("segment {segment} is gone");
                    return self.offset_found(id, part, Err(ReadError::Storage { reason }));
                };
                let path = partition.store.segment_path(segment);
                let segment_end = summary.end.min(written);
                let base = entry.map_or(segment, |entry| segment + i64::from(entry.relative));
                let outer_crc = entry.map(|entry| entry.outer_crc);
                self.read_for_search(t, id, part, Window { goal, path, segment_end, place, len: WINDOW_BYTES, base, outer_crc });
            }
            Lookup::NeedsIndex { segment } => {
                let partition_id = partition.id;
                if self.has_room_to_read(INDEX_BYTES_MAX) {
                    let into = self.memory.read.take(INDEX_BYTES_MAX);
                    self.set_part(id, part, Part::ForIndex(goal));
                    self.read_index(t, partition_id, segment, into, Then::Query(id));
                } else {
                    self.set_part(id, part, Part::ForRoom(Wanting::Index(goal)));
                    self.wait_for_room(Asker::Query { query: id, part }, INDEX_BYTES_MAX, t.now);
                }
            }
            Lookup::Place { .. } | Lookup::Above | Lookup::Below => {
                let goal = Goal { from: goal.from.max(written), ..goal };
                match search_memory(partition, &goal) {
                    Searched::Found(found) => self.offset_found(id, part, Ok(found)),
                    Searched::ToOpen { bytes, end } => self.open_for_search(t, id, part, goal, bytes, end, "memory".to_owned()),
                }
            }
        }
    }

    fn read_for_search(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, window: Window) {
        let Some(partition) = self.query_partition(id, part).map(|partition| partition.id) else { return };
        let block = window.place / BLOCK as u64 * BLOCK as u64;
        let len = ((window.place - block) as usize + window.len).next_multiple_of(BLOCK);
        if !self.has_room_to_read(Pool::size_of(len)) {
            self.set_part(id, part, Part::ForRoom(Wanting::Bytes(window)));
            return self.wait_for_room(Asker::Query { query: id, part }, Pool::size_of(len), t.now);
        }
        let steps = read_once(window.path.clone(), true, block, self.memory.read.take(len), len);
        self.set_part(id, part, Part::Reading(window));
        self.start_read(t, partition, steps, Finish::TimeSearch { query: id, part });
    }

    /// It has waited for room, and there is some.
    pub fn query_again(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize) {
        let Some(QueryWait { answers: Answers::Offsets { parts, .. }, .. }) = self.queries.get_mut(id) else { return };
        if !matches!(parts[part], Part::ForRoom(_)) {
            return;
        }
        let Part::ForRoom(wanting) = std::mem::replace(&mut parts[part], Part::Begun) else { return };
        match wanting {
            Wanting::Index(goal) => self.search(t, id, part, goal),
            Wanting::Bytes(window) => self.read_for_search(t, id, part, window),
        }
    }

    /// An index has come for all parts of the question that wait for one of this partition.
    pub fn index_ready_for_query(&mut self, t: &mut Turn<'_>, id: WaitId, partition: millrace_base::ids::PartitionId) {
        let Some(QueryWait { answers: Answers::Offsets { queries, parts, .. }, .. }) = self.queries.get_mut(id) else { return };
        let mut ready = Vec::new();
        for (part, now) in parts.iter_mut().enumerate() {
            if let Part::ForIndex(goal) = now
                && queries[part].partition == partition
            {
                ready.push((part, *goal));
                *now = Part::Begun;
            }
        }
        for (part, goal) in ready {
            self.search(t, id, part, goal);
        }
    }

    pub fn search_read(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, result: Result<Outcome, IoError>) {
        let Some(QueryWait { answers: Answers::Offsets { parts, .. }, .. }) = self.queries.get_mut(id) else { return };
        let Part::Reading(window) = std::mem::replace(&mut parts[part], Part::Begun) else { return };
        let bytes: Slice = match result {
            Ok(outcome) => outcome.bytes(),
            Err(error) => {
                let reason = format!("{}: {error}", window.path.display());
                return self.offset_found(id, part, Err(ReadError::Storage { reason }));
            }
        };
        let skip = (window.place % BLOCK as u64) as usize;
        let scanned = window.scan(bytes.get(skip..).unwrap_or(&[]));
        if let Scanned::ToOpen { range, end } = scanned {
            let whence = format!("{} at byte {}", window.path.display(), window.place + range.start as u64);
            let batch = bytes.sub(skip + range.start..skip + range.end);
            return self.open_for_search(t, id, part, window.goal, batch, end, whence);
        }
        drop(bytes); // whoever waits for room holds none
        match scanned {
            Scanned::Found(found) => self.offset_found(id, part, Ok(found)),
            Scanned::Further(further) => self.read_for_search(t, id, part, further),
            Scanned::NotHere => self.search(t, id, part, Goal { from: window.segment_end, ..window.goal }),
            Scanned::Bad(reason) => self.offset_found(id, part, Err(ReadError::Storage { reason })),
            Scanned::ToOpen { .. } => unreachable!("taken above"),
        }
    }

    /// Searches whole batches off the turn. `end`: where they end; `whence`: where they lie, for an error.
    fn open_for_search(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, goal: Goal, bytes: Slice, end: Offset, whence: String) {
        let (work, opened_bytes) = (self.memory.work.clone(), self.memory.opened_bytes);
        let (job, product) = job(move || {
            let mut scratch = work.take(opened_bytes);
            search_batches(&bytes, &goal, &mut scratch.unfrozen()[..opened_bytes]).map_err(|error| format!("{whence}: {error}"))
        });
        self.set_part(id, part, Part::Opening);
        let key = self.searches.next_job;
        self.searches.next_job = key.wrapping_add(1);
        self.searches.jobs.insert(key, Opening { query: id, part, goal, end, product });
        t.driver.submit(Op::Run { job }, token::pack(Purpose::Job, key, 0));
    }

    /// A job has ended.
    pub fn batch_searched(&mut self, t: &mut Turn<'_>, key: u32, result: Result<u32, IoError>) {
        let Some(Opening { query, part, goal, end, product }) = self.searches.jobs.remove(&key) else { return };
        match (product.take(), result) {
            (Some(Ok(Some(found))), _) => self.offset_found(query, part, Ok(found)),
            (Some(Ok(None)), _) => self.search(t, query, part, Goal { from: end, ..goal }),
            (Some(Err(reason)), _) => self.offset_found(query, part, Err(ReadError::Storage { reason })),
            (None, result) => {
                let why = result.err().map_or_else(|| "it was not run".to_owned(), |error| error.to_string());
                let reason = format!("a batch could not be opened for a search by time: {why}");
                self.offset_found(query, part, Err(ReadError::Storage { reason }));
            }
        }
    }
}

enum Searched {
    Found(OffsetFound),
    /// These batches, which end at `end`.
    ToOpen {
        bytes: Slice,
        end: Offset,
    },
}

/// Searches the batches that are in memory only.
fn search_memory(partition: &Partition, goal: &Goal) -> Searched {
    for piece in partition.tail.pending().skip_while(|piece| piece.end <= goal.from) {
        if piece.base >= goal.bound {
            break;
        }
        if piece.max_timestamp < goal.time {
            continue;
        }
        if piece.bytes.len() > PIECE_BYTES_MAX {
            return Searched::ToOpen { bytes: piece.bytes.clone(), end: piece.end };
        }
        for found in walk::batches(&piece.bytes).flatten() {
            let header = found.header;
            if header.next_offset() > goal.bound {
                return Searched::Found(NONE);
            }
            if header.next_offset() <= goal.from || header.max_timestamp < goal.time {
                continue;
            }
            if !time_lookup::is_quick(&header) {
                let bytes = piece.bytes.sub(found.place..found.place + header.size);
                return Searched::ToOpen { bytes, end: header.next_offset() };
            }
            if let Some(found) = record_in(found.bytes, goal, &mut []) {
                return Searched::Found(found);
            }
        }
    }
    Searched::Found(NONE)
}

/// Searches whole batches back to back. None: go on behind them.
///
/// # Errors
/// One that would be opened is not what its CRC says.
fn search_batches(bytes: &[u8], goal: &Goal, scratch: &mut [u8]) -> Result<Option<OffsetFound>, BatchError> {
    for found in walk::batches(bytes).flatten() {
        let header = found.header;
        if header.next_offset() > goal.bound {
            return Ok(Some(NONE));
        }
        if header.next_offset() > goal.from && header.max_timestamp >= goal.time {
            batch::check_stored(found.bytes)?;
            if let Some(found) = record_in(found.bytes, goal, scratch) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

/// `batch`: its header promises a record that is late enough. None: that one lies below the first that counts.
fn record_in(batch: &[u8], goal: &Goal, scratch: &mut [u8]) -> Option<OffsetFound> {
    let header = millrace_base::batch::Header::parse(batch).expect("it was walked");
    match time_lookup::first_from(batch, goal.time, goal.from, scratch) {
        Some(record) => Some(OffsetFound { offset: record.offset, timestamp: record.timestamp, epoch: header.epoch }),
        None if header.base_offset < goal.from => None,
        // The promise was false; its base is never behind what was asked for.
        None => Some(OffsetFound { offset: header.base_offset, timestamp: header.max_timestamp, epoch: header.epoch }),
    }
}

enum Scanned {
    Found(OffsetFound),
    /// The batch at these bytes of the window, which ends at `end`.
    ToOpen {
        range: Range<usize>,
        end: Offset,
    },
    Further(Window),
    NotHere,
    Bad(String),
}

impl Window {
    fn scan(&self, bytes: &[u8]) -> Scanned {
        let goal = &self.goal;
        let (mut at, mut base) = (0, self.base);
        loop {
            if base >= self.segment_end {
                return Scanned::NotHere;
            }
            let rest = bytes.get(at..).unwrap_or(&[]);
            let bad = |error: WalkError| Scanned::Bad(error.in_file(&self.path.display().to_string(), self.place + at as u64).to_string());
            let further = |needed: usize| match at == 0 && self.len >= needed {
                // It was asked for: the file has no more.
                true => bad(WalkError::Batch(BatchError::Short { needed, found: rest.len() })),
                false => {
                    let (place, len) = (self.place + at as u64, needed.max(WINDOW_BYTES));
                    Scanned::Further(Window { place, len, base, outer_crc: None, ..self.clone() })
                }
            };
            if rest.len() < HEADER_BYTES {
                return further(HEADER_BYTES);
            }
            let header = match walk::header_of(rest, base, self.outer_crc.filter(|_| at == 0)) {
                Ok(header) => header,
                Err(error) => return bad(error),
            };
            if header.next_offset() > self.segment_end {
                return bad(WalkError::Gap { expected: self.segment_end, found: header.next_offset() });
            }
            if header.next_offset() > goal.bound {
                return Scanned::Found(NONE);
            }
            if header.next_offset() > goal.from && header.max_timestamp >= goal.time {
                let Some(batch) = rest.get(..header.size) else { return further(header.size) };
                if !time_lookup::is_quick(&header) {
                    return Scanned::ToOpen { range: at..at + header.size, end: header.next_offset() };
                }
                if let Err(error) = batch::check_stored(batch) {
                    return bad(WalkError::Batch(error));
                }
                if let Some(found) = record_in(batch, goal, &mut []) {
                    return Scanned::Found(found);
                }
            }
            (at, base) = (at + header.size, header.next_offset());
        }
    }
}
