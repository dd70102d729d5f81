//! Questions about partitions: offsets by time, epochs, sizes, producers; and DeleteRecords.
//!
//! 1. Most are answered at once from what is in memory.
//! 2. An offset by time names a record, which is searched for: [`crate::time_search`].
//! 3. DeleteRecords raises the log start, and is answered when that is settled.
//!
//! Invariants: no offset at or above the commit is named; each part is answered once.

use crate::api::{DeleteRecords, EpochEnd, EpochQuery, LogSize, OffsetAt, OffsetFound, OffsetQuery, ProducerRow, ReadError, Reply};
use crate::directory::Health;
use crate::engine::{Engine, Turn};
use crate::lifecycle::{Finish, Then};
use crate::partition::{Partition, StartWaiter};
use crate::read::{check_epoch, check_readable};
use crate::script::{Outcome, Step, read_once};
use crate::tail::Piece;
use crate::time_search::{Goal, NONE, Part};
use crate::waits::WaitId;
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::offset::{Epoch, Offset};
use millrace_io::{IoError, Space};
use millrace_log::index::Index;
use millrace_log::walk;
use std::collections::VecDeque;

/// More than an index of the most entries takes.
pub const INDEX_BYTES_MAX: usize = 2 << 20;

/// Questions of one request that are not all answered.
pub struct QueryWait {
    from: ShardId,
    ticket: u64,
    open: usize,
    pub answers: Answers,
}

pub enum Answers {
    Offsets {
        queries: Vec<OffsetQuery>,
        parts: Vec<Part>,
        /// Parts that are to be searched for.
        line: VecDeque<usize>,
    },
    Deleted(Vec<Option<Result<Offset, ReadError>>>),
}

impl Engine {
    pub fn list_offsets(&mut self, t: &mut Turn<'_>, from: ShardId, ticket: u64, queries: Vec<OffsetQuery>) {
        let looked: Vec<_> = queries.iter().map(|query| self.look_for(query)).collect();
        let mut line = VecDeque::new();
        let part = |(part, looked)| match looked {
            Ok(Looked::Found(found)) => Part::Done(Ok(found)),
            Ok(Looked::Search(_)) => {
                line.push_back(part);
                Part::InLine
            }
            Err(error) => Part::Done(Err(error)),
        };
        let parts: Vec<Part> = looked.into_iter().enumerate().map(part).collect();
        let is_searched = !line.is_empty();
        let id = self.queries.insert(QueryWait { from, ticket, open: line.len() + 1, answers: Answers::Offsets { queries, parts, line } });
        if is_searched {
            self.searches.stand_in_line(id);
            self.begin_searches(t);
        }
        self.query_part_done(id);
    }

    fn look_for(&self, query: &OffsetQuery) -> Result<Looked, ReadError> {
        let partition = self.partitions.get(&query.partition).ok_or(ReadError::UnknownPartition)?;
        check_readable(partition).and_then(|()| check_epoch(partition, query.current_epoch)).map(|()| look(partition, query))
    }

    /// Answers one part that is at its turn, or starts to read for it.
    pub fn find_offset(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize) {
        let Some(QueryWait { answers: Answers::Offsets { queries, .. }, .. }) = self.queries.get(id) else { return };
        match self.look_for(&queries[part]) {
            Ok(Looked::Found(found)) => self.offset_found(id, part, Ok(found)),
            Ok(Looked::Search(goal)) => self.search(t, id, part, goal),
            Err(error) => self.offset_found(id, part, Err(error)),
        }
    }

    /// The goal of a search for the newest record, as of now: segments that held it may have gone since the search began.
    pub fn newest_now(&self, id: WaitId, part: usize) -> Option<Goal> {
        let Some(QueryWait { answers: Answers::Offsets { queries, .. }, .. }) = self.queries.get(id) else { return None };
        let query = queries.get(part).filter(|query| matches!(query.at, OffsetAt::MaxTimestamp))?;
        match look(self.partitions.get(&query.partition)?, query) {
            Looked::Search(goal) => Some(goal),
            Looked::Found(_) => None,
        }
    }

    pub fn query_partition(&mut self, id: WaitId, part: usize) -> Option<&Partition> {
        let Some(QueryWait { answers: Answers::Offsets { queries, .. }, .. }) = self.queries.get_mut(id) else { return None };
        let partition = queries[part].partition;
        if !self.partitions.contains_key(&partition) {
            self.offset_found(id, part, Err(ReadError::UnknownPartition));
        }
        self.partitions.get(&partition).map(|partition| &**partition)
    }

    /// Reads the index of a closed segment for those who wait. `into`: of [`INDEX_BYTES_MAX`].
    pub fn read_index(&mut self, t: &mut Turn<'_>, partition: PartitionId, segment: Offset, into: Space, then: Then) {
        let Some(path) = self.partitions.get(&partition).map(|partition| partition.store.index_path(segment)) else { return };
        let steps = read_once(path, false, 0, into, INDEX_BYTES_MAX);
        self.start_read(t, partition, steps, Finish::IndexRead { partition, segment, then });
    }

    pub fn index_read(&mut self, t: &mut Turn<'_>, id: PartitionId, segment: Offset, then: Then, result: Result<Outcome, IoError>) {
        let mut damaged = None;
        if let Some(partition) = self.partitions.get_mut(&id) {
            let path = partition.store.index_path(segment);
            let file = path.display().to_string();
            let read = match result {
                Ok(outcome) => Index::decode(&outcome.bytes(), segment, &file).map_err(|error| {
                    damaged = Some(path).filter(|_| partition.note.is_none());
                    error.to_string()
                }),
                Err(error) => {
                    damaged = Some(path).filter(|_| partition.note.is_none() && error == IoError::DEVICE);
                    Err(format!("{file}: {error}"))
                }
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
            self.scripts.start_removal(t.driver, vec![Step::Unlink(path)], Finish::Removed);
        }
        match then {
            Then::Read(read) => self.index_ready_for_read(t, read),
            Then::Coordinator => self.load_coordinator(t, id),
            Then::Query(query) => self.index_ready_for_query(t, query, id),
        }
    }

    /// One part is answered.
    pub fn offset_found(&mut self, id: WaitId, part: usize, result: Result<OffsetFound, ReadError>) {
        let Some(QueryWait { answers: Answers::Offsets { parts, .. }, .. }) = self.queries.get_mut(id) else { return };
        match std::mem::replace(&mut parts[part], Part::Done(result)) {
            Part::Done(_) | Part::InLine => unreachable!("only what is under way is answered, and once"),
            Part::Begun | Part::ForIndex(_) | Part::ForRoom(_) | Part::Reading(_) | Part::Opening => self.searches.ended(),
        }
        self.query_part_done(id);
    }

    fn query_part_done(&mut self, id: WaitId) {
        let Some(wait) = self.queries.get_mut(id) else { return };
        wait.open -= 1;
        if wait.open > 0 {
            return;
        }
        let Some(wait) = self.queries.remove(id) else { return };
        let reply = match wait.answers {
            Answers::Offsets { parts, .. } => {
                let found = |part| if let Part::Done(found) = part { found } else { Err(ReadError::NotAvailable) };
                Reply::Offsets(parts.into_iter().map(found).collect())
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
                    } else if let Some(partition) = self.partitions.get_mut(&delete.partition).filter(|partition| partition.is_writable()) {
                        partition.start_waiters.push(StartWaiter { start, wait: id, part });
                    } else {
                        let reason = "the data directory has failed".to_owned();
                        self.start_settled(id, part, Err(ReadError::Storage { reason }));
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
    Search(Goal),
}

fn look(partition: &Partition, query: &OffsetQuery) -> Looked {
    let (log_start, commit) = (partition.log_start(), partition.read_bound());
    let epoch_at = |offset: Offset| epoch_of(partition, offset);
    match query.at {
        OffsetAt::Earliest => Looked::Found(OffsetFound { offset: log_start, timestamp: -1, epoch: epoch_at(log_start) }),
        OffsetAt::Latest => Looked::Found(OffsetFound { offset: commit, timestamp: -1, epoch: partition.core.epoch() }),
        OffsetAt::Time(time) => Looked::Search(Goal { time, from: log_start, bound: commit }),
        OffsetAt::MaxTimestamp => {
            let in_memory = partition.tail.pending().filter(|piece| piece.base < commit).map(|piece| newest_below(piece, commit)).max();
            match in_memory.into_iter().chain([partition.store.segments.max_timestamp()]).max() {
                // As in Kafka it may lie below the log start, as long as its segment is there: its time is the greatest all the same.
                Some(time) if time >= 0 && commit > log_start => {
                    Looked::Search(Goal { time, from: partition.store.segments.begin().min(log_start), bound: commit })
                }
                _ => Looked::Found(NONE),
            }
        }
    }
}

/// The greatest timestamp of the batches that end at or below `bound`.
fn newest_below(piece: &Piece, bound: Offset) -> i64 {
    if piece.end <= bound {
        return piece.max_timestamp;
    }
    let ends_below = |found: &walk::Found<'_>| found.header.next_offset() <= bound;
    walk::batches(&piece.bytes).flatten().take_while(ends_below).map(|found| found.header.max_timestamp).max().unwrap_or(-1)
}
