//! Questions about partitions: offsets by time, epochs, sizes, producers; and DeleteRecords.
//!
//! 1. Most are answered at once from what is in memory.
//! 2. An offset by time names a record: the batch that holds it is found by the index, or in memory, and that one batch is opened.
//! 3. DeleteRecords raises the log start, and is answered when that is settled.
//!
//! Invariants: no offset at or above the commit is named; each part is answered once.

use crate::api::{DeleteRecords, EpochEnd, EpochQuery, LogSize, OffsetAt, OffsetFound, OffsetQuery, ProducerRow, ReadError, Reply};
use crate::directory::Health;
use crate::engine::{Engine, Turn};
use crate::lifecycle::{Finish, Then};
use crate::partition::{Partition, StartWaiter};
use crate::read::{check_epoch, check_readable};
use crate::room::Asker;
use crate::script::{Handle, Outcome, Step};
use crate::waits::WaitId;
use millrace_base::batch::{self, BatchError, HEADER_BYTES};
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::limits::BLOCK;
use millrace_base::offset::{Epoch, Offset};
use millrace_io::{IoError, OpenHow, Pool, Slice, Space};
use millrace_log::index::Index;
use millrace_log::segments::Lookup;
use millrace_log::time_lookup;
use millrace_log::walk::{self, WalkError};
use std::path::PathBuf;

/// Bytes of a segment that a search by time reads at once: with what lies before them in their block, a whole chunk.
const WINDOW_BYTES: usize = (256 << 10) - BLOCK;

/// More than an index of the most entries takes.
pub const INDEX_BYTES_MAX: usize = 2 << 20;

/// Questions of one request that are not all answered.
pub struct QueryWait {
    from: ShardId,
    ticket: u64,
    open: usize,
    answers: Answers,
}

enum Answers {
    Offsets { queries: Vec<OffsetQuery>, found: Vec<Option<Result<OffsetFound, ReadError>>>, searches: Vec<Option<Search>> },
    Deleted(Vec<Option<Result<Offset, ReadError>>>),
}

/// A search by time in a segment.
#[derive(Clone)]
pub struct Search {
    time: i64,
    /// Batches that end at or below are passed over.
    from: Offset,
    bound: Offset,
    path: PathBuf,
    segment_end: Offset,
    place: u64,
    len: usize,
    /// The base offset of the batch at `place`, and the CRC of its outer header bytes, if the index has it.
    base: Offset,
    outer_crc: Option<u32>,
    /// For room to read.
    waits: bool,
}

impl Engine {
    pub fn list_offsets(&mut self, t: &mut Turn<'_>, from: ShardId, ticket: u64, queries: Vec<OffsetQuery>) {
        let count = queries.len();
        let found = (0..count).map(|_| None).collect();
        let searches = (0..count).map(|_| None).collect();
        let answers = Answers::Offsets { queries, found, searches };
        let id = self.queries.insert(QueryWait { from, ticket, open: count + 1, answers });
        for part in 0..count {
            self.find_offset(t, id, part);
        }
        self.query_part_done(id);
    }

    /// Answers one part, or starts to read for it.
    fn find_offset(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize) {
        let Some(QueryWait { answers: Answers::Offsets { queries, .. }, .. }) = self.queries.get_mut(id) else { return };
        let query = queries[part];
        let looked = match self.partitions.get(&query.partition) {
            None => Err(ReadError::UnknownPartition),
            Some(partition) => {
                check_readable(partition).and_then(|()| check_epoch(partition, query.current_epoch)).map(|()| look(partition, &query))
            }
        };
        match looked {
            Ok(Looked::Found(found)) => self.offset_found(id, part, Ok(found)),
            Ok(Looked::Search { time, from, bound }) => self.search(t, id, part, time, from, bound),
            Err(error) => self.offset_found(id, part, Err(error)),
        }
    }

    /// The first record at or after `from` with a timestamp of at least `time`.
    fn search(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, time: i64, from: Offset, bound: Offset) {
        let Some(partition) = self.query_partition(id, part) else { return };
        // A segment counts batches as soon as they are to be written: those that may still be on their way are all in memory.
        let written = partition.tail.checkpointed();
        let lookup = if from < written { partition.store.for_time(time, from) } else { Lookup::Above };
        match lookup {
            Lookup::Place { segment, place, entry } if entry.is_none_or(|entry| segment + i64::from(entry.relative) < written) => {
                let Some(summary) = partition.store.summary(segment).copied() else { return };
                let path = partition.store.segment_path(segment);
                let segment_end = summary.end.min(written);
                let base = entry.map_or(segment, |entry| segment + i64::from(entry.relative));
                let outer_crc = entry.map(|entry| entry.outer_crc);
                let search = Search { time, from, bound, path, segment_end, place, len: WINDOW_BYTES, base, outer_crc, waits: false };
                self.read_for_search(t, id, part, search);
            }
            Lookup::NeedsIndex { segment } => {
                let partition_id = partition.id;
                if self.has_room_to_read(INDEX_BYTES_MAX) {
                    let into = self.memory.read.take(INDEX_BYTES_MAX);
                    self.read_index(t, partition_id, segment, into, Then::Query(id));
                } else {
                    self.wait_for_room(Asker::Query { query: id, part }, INDEX_BYTES_MAX, t.now);
                }
            }
            Lookup::Place { .. } | Lookup::Above | Lookup::Below => {
                let found = search_memory(partition, time, from.max(written), bound);
                self.offset_found(id, part, Ok(found));
            }
        }
    }

    fn query_partition(&mut self, id: WaitId, part: usize) -> Option<&Partition> {
        let Some(QueryWait { answers: Answers::Offsets { queries, .. }, .. }) = self.queries.get_mut(id) else { return None };
        let partition = queries[part].partition;
        if !self.partitions.contains_key(&partition) {
            self.offset_found(id, part, Err(ReadError::UnknownPartition));
        }
        self.partitions.get(&partition).map(|partition| &**partition)
    }

    fn read_for_search(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, search: Search) {
        let block = search.place / BLOCK as u64 * BLOCK as u64;
        let len = ((search.place - block) as usize + search.len).next_multiple_of(BLOCK);
        if !self.has_room_to_read(Pool::size_of(len)) {
            if let Some(QueryWait { answers: Answers::Offsets { searches, .. }, .. }) = self.queries.get_mut(id) {
                searches[part] = Some(Search { waits: true, ..search });
            }
            return self.wait_for_room(Asker::Query { query: id, part }, Pool::size_of(len), t.now);
        }
        let steps = vec![
            Step::Open { path: search.path.clone(), how: OpenHow { direct: true, ..OpenHow::default() } },
            Step::Read { file: Handle::Nth(0), place: block, into: Some(self.memory.read.take(len)), len: len as u32 },
            Step::Close(Handle::Nth(0)),
        ];
        if let Some(QueryWait { answers: Answers::Offsets { searches, .. }, .. }) = self.queries.get_mut(id) {
            searches[part] = Some(search);
        }
        self.scripts.start(t.driver, steps, Finish::TimeSearch { query: id, part });
    }

    /// It has waited for room, and there is some: it goes on with its search, or finds anew what it needs.
    pub fn query_again(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize) {
        let Some(QueryWait { answers: Answers::Offsets { found, searches, .. }, .. }) = self.queries.get_mut(id) else { return };
        match searches[part].take_if(|search| search.waits) {
            Some(search) => self.read_for_search(t, id, part, Search { waits: false, ..search }),
            // What it waited for may have come for another part, so that it is answered or under way.
            None if found[part].is_none() && searches[part].is_none() => self.find_offset(t, id, part),
            None => {}
        }
    }

    pub fn search_read(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, result: Result<Outcome, IoError>) {
        let Some(QueryWait { answers: Answers::Offsets { searches, .. }, .. }) = self.queries.get_mut(id) else { return };
        let Some(search) = searches[part].take() else { return };
        let bytes: Slice = match result {
            Ok(mut outcome) => outcome.read.pop().map(|(mut space, len)| space.freeze(len)).expect("the script reads once"),
            Err(error) => {
                let reason = format!("{}: {error}", search.path.display());
                return self.offset_found(id, part, Err(ReadError::Storage { reason }));
            }
        };
        let skip = (search.place % BLOCK as u64) as usize;
        let scanned = search.scan(bytes.get(skip..).unwrap_or(&[]));
        drop(bytes); // whoever waits for room holds none
        match scanned {
            Scanned::Found(found) => self.offset_found(id, part, Ok(found)),
            Scanned::Further(further) => self.read_for_search(t, id, part, further),
            Scanned::NotHere => self.search(t, id, part, search.time, search.segment_end, search.bound),
            Scanned::Bad(reason) => self.offset_found(id, part, Err(ReadError::Storage { reason })),
        }
    }

    /// Reads the index of a closed segment for those who wait. `into`: of [`INDEX_BYTES_MAX`].
    pub fn read_index(&mut self, t: &mut Turn<'_>, partition: PartitionId, segment: Offset, into: Space, then: Then) {
        let Some(path) = self.partitions.get(&partition).map(|partition| partition.store.index_path(segment)) else { return };
        let steps = vec![
            Step::Open { path, how: OpenHow::default() },
            Step::Read { file: Handle::Nth(0), place: 0, into: Some(into), len: INDEX_BYTES_MAX as u32 },
            Step::Close(Handle::Nth(0)),
        ];
        self.scripts.start(t.driver, steps, Finish::IndexRead { partition, segment, then });
    }

    pub fn index_read(&mut self, t: &mut Turn<'_>, id: PartitionId, segment: Offset, then: Then, result: Result<Outcome, IoError>) {
        let mut damaged = None;
        if let Some(partition) = self.partitions.get_mut(&id) {
            let path = partition.store.index_path(segment);
            let file = path.display().to_string();
            let read = match result {
                Ok(mut outcome) => {
                    let (mut space, len) = outcome.read.pop().expect("the script reads once");
                    Index::decode(&space.freeze(len), segment, &file).map_err(|error| {
                        damaged = Some(path).filter(|_| partition.note.is_none());
                        error.to_string()
                    })
                }
                Err(error) => Err(format!("{file}: {error}")),
            };
            // Without its index a segment is walked from its front; it is made again at the next start.
            let index = match read {
                Ok(index) => Some(index),
                Err(error) => {
                    log::warn!(
                        "partition {id}: {error}; the segment is searched from its begin, and the index made again at the next start"
                    );
                    partition.store.summary(segment).copied().map(Index::without_entries)
                }
            };
            if let Some(index) = index {
                let bytes = index.memory();
                partition.store.keep_index(index);
                self.index_kept(id, segment, bytes);
            }
        }
        if let Some(path) = damaged {
            // A start looks at the facts in front only: what is not there it makes again.
            self.scripts.start(t.driver, vec![Step::Unlink(path)], Finish::Removed);
        }
        match then {
            Then::Read(read) => self.index_ready_for_read(t, read),
            Then::Coordinator => self.load_coordinator(t, id),
            Then::Query(query) => {
                let Some(QueryWait { answers: Answers::Offsets { queries, found, searches }, .. }) = self.queries.get_mut(query) else {
                    return;
                };
                let open = |part: &usize| queries[*part].partition == id && found[*part].is_none() && searches[*part].is_none();
                let parts: Vec<usize> = (0..queries.len()).filter(open).collect();
                for part in parts {
                    self.find_offset(t, query, part);
                }
            }
        }
    }

    fn offset_found(&mut self, id: WaitId, part: usize, result: Result<OffsetFound, ReadError>) {
        if let Some(QueryWait { answers: Answers::Offsets { found, .. }, .. }) = self.queries.get_mut(id)
            && found[part].is_none()
        {
            found[part] = Some(result);
            self.query_part_done(id);
        }
    }

    fn query_part_done(&mut self, id: WaitId) {
        let Some(wait) = self.queries.get_mut(id) else { return };
        wait.open -= 1;
        if wait.open > 0 {
            return;
        }
        let Some(wait) = self.queries.remove(id) else { return };
        let reply = match wait.answers {
            Answers::Offsets { found, .. } => {
                Reply::Offsets(found.into_iter().map(|found| found.unwrap_or(Err(ReadError::NotAvailable))).collect())
            }
            Answers::Deleted(starts) => {
                Reply::Deleted(starts.into_iter().map(|start| start.unwrap_or(Err(ReadError::NotAvailable))).collect())
            }
        };
        self.routes.reply(wait.from, wait.ticket, reply);
    }

    pub fn epoch_ends(&mut self, from: ShardId, ticket: u64, queries: &[EpochQuery]) {
        let answer = |query: &EpochQuery| {
            let partition = self.partitions.get(&query.partition).ok_or(ReadError::UnknownPartition)?;
            check_readable(partition)?;
            check_epoch(partition, query.current_epoch)?;
            let history = partition.core.history();
            if query.epoch > history.last_epoch() {
                return Ok(None);
            }
            let end = history.end_of(query.epoch);
            Ok(Some(match end {
                Some(end) if end.epoch == history.last_epoch() => EpochEnd { epoch: end.epoch, end: partition.read_bound() },
                Some(end) => EpochEnd { epoch: end.epoch, end: end.offset },
                None => EpochEnd { epoch: query.epoch, end: history.first_position().offset },
            }))
        };
        let answers = queries.iter().map(answer).collect();
        self.routes.reply(from, ticket, Reply::EpochEnds(answers));
    }

    pub fn delete_records(&mut self, t: &mut Turn<'_>, from: ShardId, ticket: u64, parts: Vec<DeleteRecords>) {
        let answers = Answers::Deleted(parts.iter().map(|_| None).collect());
        let id = self.queries.insert(QueryWait { from, ticket, open: parts.len() + 1, answers });
        for (part, delete) in parts.iter().enumerate() {
            match self.start_wanted(delete) {
                Ok((start, true)) => {
                    if !self.raise_log_start(t, delete.partition, start) {
                        let reason = "the journal has no room for a log start; it may later".to_owned();
                        self.start_settled(id, part, Err(ReadError::Storage { reason }));
                    } else if let Some(partition) = self.partitions.get_mut(&delete.partition) {
                        partition.start_waiters.push(StartWaiter { start, wait: id, part });
                    }
                }
                Ok((start, false)) => self.start_settled(id, part, Ok(start)),
                Err(error) => self.start_settled(id, part, Err(error)),
            }
        }
        self.query_part_done(id);
    }

    /// The log start that is asked for, and whether it is above the present one.
    fn start_wanted(&self, delete: &DeleteRecords) -> Result<(Offset, bool), ReadError> {
        let partition = self.partitions.get(&delete.partition).ok_or(ReadError::UnknownPartition)?;
        check_readable(partition)?;
        if !partition.is_writable() {
            return Err(ReadError::Storage { reason: "the partition takes no writes".to_owned() });
        }
        if partition.config.cleanup_compact && !partition.config.cleanup_delete {
            return Err(ReadError::CompactedOnly);
        }
        let (log_start, commit) = (partition.log_start(), partition.read_bound());
        let start = delete.before.unwrap_or(commit);
        if start < 0 || start > commit {
            return Err(ReadError::OutOfRange { log_start, commit });
        }
        Ok((start.max(log_start), start > log_start))
    }

    fn start_settled(&mut self, id: WaitId, part: usize, result: Result<Offset, ReadError>) {
        if let Some(QueryWait { answers: Answers::Deleted(starts), .. }) = self.queries.get_mut(id)
            && starts[part].is_none()
        {
            starts[part] = Some(result);
            self.query_part_done(id);
        }
    }

    /// No log start of the partition will be settled any more.
    pub fn refuse_start_waiters(&mut self, id: PartitionId, error: &ReadError) {
        let waiters = self.partitions.get_mut(&id).map(|partition| std::mem::take(&mut partition.start_waiters));
        for waiter in waiters.into_iter().flatten() {
            self.start_settled(waiter.wait, waiter.part, Err(error.clone()));
        }
    }

    /// A log start is journaled: what waits for it is answered, and segments below it go.
    pub fn settled(&mut self, t: &mut Turn<'_>, id: PartitionId, log_start: Offset) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let (done, waiting) = partition.start_waiters.drain(..).partition(|waiter| waiter.start <= log_start);
        partition.start_waiters = waiting;
        let done: Vec<StartWaiter> = done;
        for waiter in done {
            self.start_settled(waiter.wait, waiter.part, Ok(log_start));
        }
        self.unlink_below(t, id);
    }

    pub fn describe_logs(&mut self, from: ShardId, ticket: u64, ids: &[PartitionId]) {
        let size = |id: &PartitionId| {
            let partition = self.partitions.get(id).ok_or(ReadError::UnknownPartition)?;
            let directory = &self.directories[usize::from(partition.directory)];
            if let Health::Failed { reason } = &directory.health {
                return Err(ReadError::Storage { reason: reason.clone() });
            }
            Ok(LogSize {
                directory: directory.path.display().to_string(),
                bytes: partition.bytes(),
                log_start: partition.log_start(),
                end: partition.core.log_end(),
            })
        };
        let sizes = ids.iter().map(size).collect();
        self.routes.reply(from, ticket, Reply::Logs(sizes));
    }

    pub fn describe_producers(&mut self, from: ShardId, ticket: u64, ids: &[PartitionId]) {
        let rows = |id: &PartitionId| {
            let partition = self.partitions.get(id).ok_or(ReadError::UnknownPartition)?;
            check_readable(partition)?;
            let row = |(producer, known): (i64, &millrace_log::producers::Producer)| {
                let last = known.batches.last();
                ProducerRow {
                    producer,
                    epoch: known.epoch,
                    last_sequence: last.map_or(-1, |batch| batch.last_sequence),
                    last_timestamp: last.map_or(known.last_use, |batch| batch.timestamp),
                }
            };
            Ok(partition.producers.committed().map(row).collect())
        };
        let answers = ids.iter().map(rows).collect();
        self.routes.reply(from, ticket, Reply::Producers(answers));
    }
}

/// The epoch under which the record at `offset` was appended, or would be.
fn epoch_of(partition: &Partition, offset: Offset) -> Epoch {
    let starts = partition.core.history().starts();
    starts.take_while(|start| start.offset <= offset).last().map_or(partition.core.epoch(), |start| start.epoch)
}

enum Looked {
    Found(OffsetFound),
    Search { time: i64, from: Offset, bound: Offset },
}

const NONE: OffsetFound = OffsetFound { offset: -1, timestamp: -1, epoch: -1 };

fn look(partition: &Partition, query: &OffsetQuery) -> Looked {
    let (log_start, commit) = (partition.log_start(), partition.read_bound());
    let epoch_at = |offset: Offset| epoch_of(partition, offset);
    match query.at {
        OffsetAt::Earliest => Looked::Found(OffsetFound { offset: log_start, timestamp: -1, epoch: epoch_at(log_start) }),
        OffsetAt::Latest => Looked::Found(OffsetFound { offset: commit, timestamp: -1, epoch: partition.core.epoch() }),
        OffsetAt::Time(time) => Looked::Search { time, from: log_start, bound: commit },
        OffsetAt::MaxTimestamp => {
            let in_memory = partition.tail.pending().flat_map(|piece| walk::batches(&piece.bytes)).flatten();
            let in_memory = in_memory.filter(|found| found.header.next_offset() <= commit).map(|found| found.header.max_timestamp).max();
            match in_memory.into_iter().chain([partition.store.segments.max_timestamp()]).max() {
                // As in Kafka it may lie below the log start, as long as its segment is there: its time is the greatest all the same.
                Some(time) if time >= 0 && commit > log_start => {
                    Looked::Search { time, from: partition.store.segments.begin().min(log_start), bound: commit }
                }
                _ => Looked::Found(NONE),
            }
        }
    }
}

/// Searches the batches that are in memory only.
fn search_memory(partition: &Partition, time: i64, from: Offset, bound: Offset) -> OffsetFound {
    for piece in partition.tail.pending() {
        for found in walk::batches(&piece.bytes).flatten() {
            let header = found.header;
            if header.next_offset() > bound {
                return NONE;
            }
            if header.next_offset() > from
                && header.max_timestamp >= time
                && let Some(found) = record_in(found.bytes, time, from)
            {
                return found;
            }
        }
    }
    NONE
}

/// `batch`: its header promises a record that is late enough. None: that one lies below `from`.
fn record_in(batch: &[u8], time: i64, from: Offset) -> Option<OffsetFound> {
    let header = millrace_base::batch::Header::parse(batch).expect("it was walked");
    match time_lookup::first_from(batch, time, from) {
        Some(record) => Some(OffsetFound { offset: record.offset, timestamp: record.timestamp, epoch: header.epoch }),
        None if header.base_offset < from => None,
        // The promise was false; its base is never behind what was asked for.
        None => Some(OffsetFound { offset: header.base_offset, timestamp: header.max_timestamp, epoch: header.epoch }),
    }
}

enum Scanned {
    Found(OffsetFound),
    Further(Search),
    NotHere,
    Bad(String),
}

impl Search {
    fn scan(&self, bytes: &[u8]) -> Scanned {
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
                    Scanned::Further(Search { place, len, base, outer_crc: None, ..self.clone() })
                }
            };
            if rest.len() < HEADER_BYTES {
                return further(HEADER_BYTES);
            }
            let header = match walk::header_of(rest, base, self.outer_crc.filter(|_| at == 0)) {
                Ok(header) => header,
                Err(error) => return bad(error),
            };
            if header.next_offset() > self.bound {
                return Scanned::Found(NONE);
            }
            if header.next_offset() > self.from && header.max_timestamp >= self.time {
                let Some(batch) = rest.get(..header.size) else { return further(header.size) };
                if let Err(error) = batch::check_stored(batch) {
                    return bad(WalkError::Batch(error));
                }
                if let Some(found) = record_in(batch, self.time, self.from) {
                    return Scanned::Found(found);
                }
            }
            (at, base) = (at + header.size, header.next_offset());
        }
    }
}
