//! What one partition remembers of its idempotent producers: epochs, and the last five batches of each.
//!
//! 1. [`Producers::check`] says what is to be done with a batch before it is appended; [`Producers::append`] takes it in when it is.
//! 2. There are two layers: what is committed, and the uncommitted rest in order. `check` sees both. [`Producers::commit`] moves the
//!    rest over; [`Producers::truncate`] drops its end, as if it had never been appended.
//! 3. A checkpoint writes what changed ([`Producers::encode_delta`]); a whole state writes all, or what differs from its state file
//!    ([`Producers::encode_behind`]). Each names the offset through which it holds, so that batches replayed after it change nothing twice.
//!
//! Rules of `check` (Kafka's): the same first and last sequence as one of the last five is a duplicate; the sequence after the last, or
//! 0 after 2^31 - 1, is next; a newer epoch begins at 0; an older epoch is fenced; an unknown producer begins anywhere (KIP-360).
//!
//! Layout, little-endian:
//!
//! full:     version 1 | through 8 | count 4, (id 8, producer) ... | pending
//! delta:    version 1 | through 8 | count 4, (id 8, gone 0 or 1 and a producer) ... | pending
//! producer: epoch 2 | last use 8 | count 1, batch ...
//! batch:    first sequence 4 | last sequence 4 | base 8 | end 8 | timestamp 8
//! pending:  count 4, (id 8, epoch 2, last use 8, end 8, 0 or 1 and a batch) ...
//!
//! Invariants: at most five batches a producer, ends growing; pending ends grow; committed ends <= pending ends <= through.
//! Knows nothing of files, of the clock, or of who may write.

use crate::bytes::{Malformed, Put, Reader};
use crate::state_file;
use crate::walk::{self, WalkError};
use millrace_base::batch::{Header, sequence_after};
use millrace_base::clock::WallMs;
use millrace_base::limits::PRODUCER_BATCHES;
use millrace_base::offset::Offset;
use millrace_base::planted::{Bug, is_planted};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Producers remembered per partition; the one unused for longest goes first.
pub const PRODUCERS_MAX: usize = 10_000;

/// So many that differ from a state file are known; with more of them the next state takes another file.
const BEHIND_MAX: usize = 1_000;

const VERSION: u8 = 1;
const BATCH_BYTES: usize = 32;
const PRODUCER_BYTES_MIN: usize = 11;
const PENDING_BYTES_MIN: usize = 27;
/// More than a journal can hold of uncommitted batches, and of producers: those with uncommitted batches are kept beyond [`PRODUCERS_MAX`]. What is
/// read is bounded by its bytes.
const LISTED_MAX: usize = 1 << 23;

/// One batch as remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remembered {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base: Offset,
    /// The offset after the last.
    pub end: Offset,
    /// The batch's max timestamp.
    pub timestamp: i64,
}

/// One producer as of some offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Producer {
    pub epoch: i16,
    /// When its last batch was appended here.
    pub last_use: WallMs,
    /// At most five of this epoch, oldest first. Empty: only the epoch is known.
    pub batches: Vec<Remembered>,
}

/// What is to be done with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Append,
    /// It is here already. Answered as the first time, but not before it is committed.
    Duplicate {
        base_offset: Offset,
        end: Offset,
        timestamp: i64,
        committed: bool,
    },
    /// Kafka's OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrder {
        expected: i32,
    },
    /// Kafka's INVALID_PRODUCER_EPOCH.
    Fenced {
        current_epoch: i16,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Pending {
    id: i64,
    epoch: i16,
    last_use: WallMs,
    end: Offset,
    batch: Option<Remembered>,
}

/// A producer with its uncommitted batches applied, and how many they are.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ahead {
    producer: Producer,
    pending: u32,
}

/// All producers of one partition. Without producers it holds no heap memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Producers {
    committed: BTreeMap<i64, Producer>,
    pending: VecDeque<Pending>,
    /// Only producers with something pending.
    ahead: BTreeMap<i64, Ahead>,
    /// Committed producers that came, changed or went since the last delta or whole state, and whether they were there then. Who came and went
    /// again is not among them, so they are never more than those that were there and those that are.
    changed: BTreeMap<i64, bool>,
    /// The same since they all went to this state file. None: there is no file, or too much has changed.
    behind: Option<(state_file::Name, BTreeSet<i64>)>,
    /// Batches that end at or before it have been taken in.
    through: Offset,
}

impl Producer {
    fn new(epoch: i16, last_use: WallMs) -> Producer {
        Producer { epoch, last_use, batches: Vec::new() }
    }

    /// Where its last remembered batch ends; 0 without one.
    fn end(&self) -> Offset {
        self.batches.last().map_or(0, |batch| batch.end)
    }

    fn apply(&mut self, step: &Pending) {
        if step.epoch < self.epoch {
            return; // a replica takes what its leader appended, but an older epoch teaches nothing
        }
        if step.epoch > self.epoch {
            self.epoch = step.epoch;
            self.batches.clear();
        }
        self.last_use = self.last_use.max(step.last_use);
        if let Some(batch) = step.batch {
            let most = if is_planted(Bug::RememberOne) { 1 } else { PRODUCER_BATCHES };
            if self.batches.len() == most {
                self.batches.remove(0);
            }
            self.batches.reserve_exact(1);
            self.batches.push(batch);
        }
    }

    /// The sequence that the next batch of this epoch begins with.
    pub fn next_sequence(&self) -> i32 {
        self.batches.last().map_or(0, |batch| sequence_after(batch.last_sequence, 1))
    }
}

impl Producers {
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }

    /// Producers remembered, committed or not.
    pub fn len(&self) -> usize {
        self.committed.len() + self.ahead.keys().filter(|id| !self.committed.contains_key(id)).count()
    }

    /// Whether a batch of it is remembered, committed or not.
    pub fn knows(&self, producer_id: i64) -> bool {
        self.ahead.contains_key(&producer_id) || self.committed.contains_key(&producer_id)
    }

    /// Committed producers by id, for those who describe them.
    pub fn committed(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.committed.iter().map(|(id, producer)| (*id, producer))
    }

    /// Batches that end at or before this offset have been taken in.
    pub fn through(&self) -> Offset {
        self.through
    }

    /// What to do with a checked batch of a client. Offsets in `header` are not looked at.
    pub fn check(&self, header: &Header) -> Verdict {
        if header.producer_id < 0 {
            return Verdict::Append;
        }
        let ahead = self.ahead.get(&header.producer_id).map(|ahead| &ahead.producer);
        let Some(producer) = ahead.or_else(|| self.committed.get(&header.producer_id)) else {
            return Verdict::Append;
        };
        if header.producer_epoch < producer.epoch {
            return Verdict::Fenced { current_epoch: producer.epoch };
        }
        if header.producer_epoch > producer.epoch {
            return if header.base_sequence == 0 { Verdict::Append } else { Verdict::OutOfOrder { expected: 0 } };
        }
        let last = header.last_sequence();
        let same = |batch: &&Remembered| batch.first_sequence == header.base_sequence && batch.last_sequence == last;
        if let Some(batch) = producer.batches.iter().find(same) {
            let committed = self.pending.front().is_none_or(|first| batch.end < first.end);
            return Verdict::Duplicate { base_offset: batch.base, end: batch.end, timestamp: batch.timestamp, committed };
        }
        let expected = producer.next_sequence();
        if header.base_sequence == expected { Verdict::Append } else { Verdict::OutOfOrder { expected } }
    }

    /// Takes in a batch that was appended with its offsets assigned. Checks nothing: on a replica the leader has.
    /// A batch that ends at or before [`Producers::through`] has been taken in before and changes nothing.
    pub fn append(&mut self, header: &Header, now: WallMs) {
        let end = header.next_offset();
        if end <= self.through {
            return;
        }
        self.through = end;
        if header.producer_id < 0 {
            return;
        }
        let batch = (header.base_sequence >= 0 && !header.is_control()).then(|| Remembered {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base: header.base_offset,
            end,
            timestamp: header.max_timestamp,
        });
        self.push(Pending { id: header.producer_id, epoch: header.producer_epoch.max(0), last_use: now, end, batch });
    }

    /// [`Producers::append`] for whole batches back to back, as recovery and followers have them.
    ///
    /// # Errors
    /// What the walk found; the batches before it are taken in.
    pub fn append_all(&mut self, batches: &[u8], now: WallMs) -> Result<(), WalkError> {
        for found in walk::batches(batches) {
            self.append(&found?.header, now);
        }
        Ok(())
    }

    fn push(&mut self, step: Pending) {
        let committed = &self.committed;
        let ahead = self.ahead.entry(step.id).or_insert_with(|| {
            let known = committed.get(&step.id).cloned();
            Ahead { producer: known.unwrap_or_else(|| Producer::new(step.epoch, step.last_use)), pending: 0 }
        });
        ahead.producer.apply(&step);
        ahead.pending += 1;
        self.pending.push_back(step);
    }

    /// Everything that ends at or before `to` is committed.
    pub fn commit(&mut self, to: Offset) {
        while let Some(step) = self.pending.pop_front_if(|step| step.end <= to) {
            let was_there = self.committed.contains_key(&step.id);
            self.committed.entry(step.id).or_insert_with(|| Producer::new(step.epoch, step.last_use)).apply(&step);
            self.note(step.id, was_there);
            let ahead = self.ahead.get_mut(&step.id).expect("a producer with pending batches stands in `ahead`");
            ahead.pending -= 1;
            if ahead.pending == 0 {
                self.ahead.remove(&step.id);
            }
        }
        if self.pending.is_empty() && self.pending.capacity() > 8 {
            self.pending = VecDeque::new(); // an idle partition keeps no memory for it
        }
        self.evict(PRODUCERS_MAX);
    }

    /// The log ends at `to` now. Reaches into the committed layer only where committed data was given up: what ended above is forgotten.
    pub fn truncate(&mut self, to: Offset) {
        if to >= self.through {
            return;
        }
        self.through = to;
        let kept: Vec<Pending> = self.pending.drain(..).filter(|step| step.end <= to).collect();
        self.ahead.clear();
        let lost: Vec<i64> = self.committed.iter().filter(|(_, producer)| producer.end() > to).map(|(id, _)| *id).collect();
        for id in lost {
            let producer = self.committed.get_mut(&id).expect("listed a line above");
            producer.batches.retain(|batch| batch.end <= to);
            if producer.batches.is_empty() {
                self.committed.remove(&id);
            }
            self.note(id, true);
        }
        kept.into_iter().for_each(|step| self.push(step));
    }

    /// Forgets committed producers not used for `expiration_ms`; gives how many. A last use in the future (the clock was set back)
    /// counts from now.
    pub fn expire(&mut self, now: WallMs, expiration_ms: i64) -> usize {
        let before = self.committed.len();
        self.pending.iter_mut().for_each(|step| step.last_use = step.last_use.min(now));
        self.ahead.values_mut().for_each(|ahead| ahead.producer.last_use = ahead.producer.last_use.min(now));
        let (ahead, mut gone) = (&self.ahead, Vec::new());
        self.committed.retain(|id, producer| {
            producer.last_use = producer.last_use.min(now);
            let keep = now.saturating_sub(producer.last_use) < expiration_ms || ahead.contains_key(id);
            if !keep {
                gone.push(*id);
            }
            keep
        });
        gone.into_iter().for_each(|id| self.note(id, true));
        before - self.committed.len()
    }

    /// Down to `max` and a sixteenth less, so that the search for the oldest is paid once in many producers.
    fn evict(&mut self, max: usize) {
        if self.committed.len() <= max {
            return;
        }
        let mut by_use: Vec<(WallMs, i64)> = self.committed.iter().map(|(id, producer)| (producer.last_use, *id)).collect();
        by_use.sort_unstable();
        let surplus = self.committed.len() - (max - max / 16);
        let unused: Vec<i64> = by_use.into_iter().map(|(_, id)| id).filter(|id| !self.ahead.contains_key(id)).take(surplus).collect();
        for id in unused {
            self.committed.remove(&id);
            self.note(id, true);
        }
    }

    /// A committed producer came, changed or went. `was_there`: before that.
    fn note(&mut self, id: i64, was_there: bool) {
        if !*self.changed.entry(id).or_insert(was_there) && !self.committed.contains_key(&id) {
            self.changed.remove(&id);
        }
        self.note_behind(id);
    }

    fn note_behind(&mut self, id: i64) {
        if let Some((_, behind)) = &mut self.behind {
            behind.insert(id);
        }
        self.behind.take_if(|(_, behind)| behind.len() > BEHIND_MAX);
    }
}

/// Bytes in a state and in a checkpoint.
impl Producers {
    /// Everything.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_i64(self.through);
        out.put_u32(self.committed.len() as u32);
        for (id, producer) in &self.committed {
            out.put_i64(*id);
            put_producer(out, producer);
        }
        self.put_pending(out);
    }

    /// What changed since the last delta or [`Producers::forget_changes`]; the changes are then forgotten.
    pub fn encode_delta(&mut self, out: &mut Vec<u8>) {
        let changed = std::mem::take(&mut self.changed);
        self.put_delta(changed.keys(), out);
    }

    /// All that is here goes to this state file.
    pub fn filed(&mut self, file: state_file::Name) {
        self.behind = Some((file, BTreeSet::new()));
    }

    /// What differs from this state file, as a delta. Whether that is known.
    pub fn encode_behind(&self, file: state_file::Name, out: &mut Vec<u8>) -> bool {
        let behind = self.behind.as_ref().filter(|(name, _)| *name == file);
        let nothing = BTreeSet::new();
        let of = |behind| if is_planted(Bug::ForgetBehindFile) { &nothing } else { behind };
        behind.inspect(|(_, behind)| self.put_delta(of(behind).iter(), out)).is_some()
    }

    fn put_delta<'a>(&self, changed: impl ExactSizeIterator<Item = &'a i64>, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_i64(self.through);
        out.put_u32(changed.len() as u32);
        for id in changed {
            out.put_i64(*id);
            match self.committed.get(id) {
                Some(producer) => {
                    out.put_u8(1);
                    put_producer(out, producer);
                }
                None => out.put_u8(0),
            }
        }
        self.put_pending(out);
    }

    /// A whole state was written: the next delta starts from it.
    pub fn forget_changes(&mut self) {
        self.changed = BTreeMap::new();
    }

    fn put_pending(&self, out: &mut Vec<u8>) {
        out.put_u32(self.pending.len() as u32);
        for step in &self.pending {
            out.put_i64(step.id);
            out.put_i16(step.epoch);
            out.put_i64(step.last_use);
            out.put_i64(step.end);
            out.put_u8(u8::from(step.batch.is_some()));
            if let Some(batch) = &step.batch {
                put_batch(out, batch);
            }
        }
    }

    /// # Errors
    /// Bytes that [`Producers::encode`] cannot have written.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Producers, Malformed> {
        let mut producers = Producers { through: read_head(reader)?, ..Producers::default() };
        let count = reader.count(LISTED_MAX, 8 + PRODUCER_BYTES_MIN, "number of producers")?;
        for _ in 0..count {
            let id = reader.i64("producer id")?;
            producers.committed.insert(id, read_producer(reader, producers.through)?);
        }
        producers.read_pending(reader)?;
        Ok(producers)
    }

    /// Takes a delta in, as if it had happened here and been written.
    ///
    /// # Errors
    /// Bytes that [`Producers::encode_delta`] cannot have written; `self` is then not to be used.
    pub fn apply_delta(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let before = std::mem::replace(&mut self.through, read_head(reader)?);
        let count = reader.count(LISTED_MAX, 9, "number of changed producers")?;
        for _ in 0..count {
            let id = reader.i64("producer id")?;
            if reader.flag("whether the producer is here")? {
                self.committed.insert(id, read_producer(reader, self.through)?);
            } else {
                self.committed.remove(&id);
            }
            self.note_behind(id);
        }
        self.changed.clear();
        if self.through < before && self.committed.values().any(|producer| producer.end() > self.through) {
            return Err(reader.malformed("remembered batches below the log's end"));
        }
        self.pending.clear();
        self.ahead.clear();
        self.read_pending(reader)?;
        self.evict(PRODUCERS_MAX);
        Ok(())
    }

    fn read_pending(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let count = reader.count(LISTED_MAX, PENDING_BYTES_MIN, "number of uncommitted batches")?;
        let mut last_end = 0;
        for _ in 0..count {
            let (id, epoch) = (reader.i64("producer id")?, reader.i16("producer epoch")?);
            let (last_use, end) = (reader.i64("last use")?, reader.offset("end of an uncommitted batch")?);
            let batch = if reader.flag("whether a batch follows")? { Some(read_batch(reader)?) } else { None };
            let known = self.committed.get(&id).map_or(0, Producer::end).max(last_end);
            if end <= last_end || end > self.through || epoch < 0 || batch.is_some_and(|batch| batch.end != end || batch.base < known) {
                return Err(reader.malformed("uncommitted batches in order"));
            }
            last_end = end;
            self.push(Pending { id, epoch, last_use, end, batch });
        }
        Ok(())
    }
}

fn put_producer(out: &mut Vec<u8>, producer: &Producer) {
    out.put_i16(producer.epoch);
    out.put_i64(producer.last_use);
    out.put_u8(producer.batches.len() as u8);
    producer.batches.iter().for_each(|batch| put_batch(out, batch));
}

fn put_batch(out: &mut Vec<u8>, batch: &Remembered) {
    out.put_i32(batch.first_sequence);
    out.put_i32(batch.last_sequence);
    out.put_i64(batch.base);
    out.put_i64(batch.end);
    out.put_i64(batch.timestamp);
}

fn read_head(reader: &mut Reader<'_>) -> Result<Offset, Malformed> {
    match reader.u8("version of the producers' state")? {
        VERSION => reader.offset("offset that the producers' state goes to"),
        _ => Err(reader.malformed("version of the producers' state")),
    }
}

fn read_producer(reader: &mut Reader<'_>, through: Offset) -> Result<Producer, Malformed> {
    let (epoch, last_use) = (reader.i16("producer epoch")?, reader.i64("last use")?);
    let count = usize::from(reader.u8("number of remembered batches")?);
    if epoch < 0 || count > PRODUCER_BATCHES || count * BATCH_BYTES > reader.left() {
        return Err(reader.malformed("a producer"));
    }
    let mut producer = Producer { epoch, last_use, batches: Vec::with_capacity(count) };
    for _ in 0..count {
        let batch = read_batch(reader)?;
        if producer.batches.last().is_some_and(|before| before.end > batch.base) {
            return Err(reader.malformed("remembered batches in order"));
        }
        producer.batches.push(batch);
    }
    if producer.end() > through {
        return Err(reader.malformed("remembered batches below the log's end"));
    }
    Ok(producer)
}

fn read_batch(reader: &mut Reader<'_>) -> Result<Remembered, Malformed> {
    let batch = Remembered {
        first_sequence: reader.i32("first sequence")?,
        last_sequence: reader.i32("last sequence")?,
        base: reader.offset("base offset of a remembered batch")?,
        end: reader.offset("end of a remembered batch")?,
        timestamp: reader.i64("timestamp of a remembered batch")?,
    };
    let sound = batch.first_sequence >= 0 && batch.last_sequence >= 0 && batch.base < batch.end;
    if sound { Ok(batch) } else { Err(reader.malformed("a remembered batch")) }
}

#[cfg(test)]
mod tests;
