//! What a partition needs to go on after a restart, besides its segments and the batches in the journal.
//!
//! 1. [`PartitionState`] is the whole, in the journal (`Record::State`). Its large parts, index and producers, stand in it or, beyond
//!    [`crate::state_file::INLINE_BYTES_MAX`], in a state file that it names; what has changed since the file was written stands beside
//!    the name ([`StateFile`]), so that a file is not written again for little or nothing.
//! 2. [`Checkpoint`] is what one checkpoint adds (`Record::Checkpoint`): the active segment's facts and new index entries, and the
//!    producers' changes.
//! 3. [`Large`] folds checkpoints in order on top of the last state.
//! 4. [`Note`] says that the partition is damaged, beside its state (`Record::Damaged`).
//!
//! Layout, little-endian; checksums are the journal's or the state file's:
//!
//! state:      version 1 | layout 1 | log start 8 | durable end 8 | log end 8 | segment 8 | segment bytes 8 | rolls: count 4, base 8 ...
//!             | consensus: length 4, bytes | 0 and the large parts, or 1 and a reference, or 2, a reference, length 4 and a checkpoint
//! reference:  end 8 | number 4 | bytes 4 | crc 4
//! large:      version 1 | facts 32 | interval 4 | count 4, entry 20 ... | producers (full)
//! note:       end 8 | reason, text
//! checkpoint: version 1 | facts 32 | interval 4 | count 4, entry 20 ... | producers (delta)
//!
//! Invariants: log start <= durable end unless everything was deleted; segment <= durable end <= log end; rolls grow and lie above the segment.
//! Knows nothing of files or of what the consensus bytes mean.

use crate::bytes::{Malformed, Put, Reader};
use crate::index::{ENTRIES_MAX, Entry, Index, Summary};
use crate::producers::Producers;
use crate::state_file::{self, BODY_BYTES_MAX, Reference};
use millrace_base::offset::Offset;

const VERSION: u8 = 1;
/// How a partition's directory is laid out; see `paths`.
pub const LAYOUT: u8 = 1;

/// Rolls that may wait for their first checkpoint.
pub const ROLLS_MAX: usize = 4096;

/// Bytes of consensus state: term, vote, marks, epoch history with configurations.
pub const CONSENSUS_BYTES_MAX: usize = 4 << 20;

/// The whole state of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionState {
    /// First offset kept.
    pub log_start: Offset,
    /// Batches below it are durable in segments.
    pub durable_end: Offset,
    /// Where the log ended when this was written: batches from `durable_end` up to it are in the journal.
    pub log_end: Offset,
    /// Base offset of the active segment, and its bytes below `durable_end`.
    pub segment: Offset,
    pub segment_bytes: u64,
    /// Segments that begin above `durable_end`, stated but not yet written.
    pub rolls: Vec<Offset>,
    /// The replica's consensus state, opaque.
    pub consensus: Vec<u8>,
    pub large: LargeAt,
}

/// Where the large parts are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LargeAt {
    Here(Large),
    File(Reference),
    /// In the file, but for these changes of its segment and producers.
    Changed(Reference, Checkpoint),
}

/// A state file that is there, and how much of its segment's index it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateFile {
    pub reference: Reference,
    segment: Offset,
    segment_bytes: u64,
    interval: u32,
    entries: usize,
    last: Option<Entry>,
}

impl StateFile {
    pub fn name(&self) -> state_file::Name {
        self.reference.name
    }

    /// `index`: the one that the file holds.
    pub fn of(reference: Reference, index: &Index) -> StateFile {
        let facts = index.summary();
        StateFile {
            reference,
            segment: facts.base,
            segment_bytes: facts.bytes,
            interval: index.interval(),
            entries: index.entries().len(),
            last: index.entries().last().copied(),
        }
    }

    /// What has changed since the file was written. None: it is of another segment, its entries are not all there any more (thinned or
    /// cut), too much of the producers has changed, or it comes to more than `max` bytes.
    pub fn changes(&self, index: &Index, producers: &Producers, max: usize) -> Option<Checkpoint> {
        let facts = *index.summary();
        let is_grown = facts.base == self.segment && facts.bytes >= self.segment_bytes && index.interval() == self.interval;
        let (before, since) = index.entries().split_at_checked(self.entries).filter(|_| is_grown)?;
        let is_prefix =
            before.last().copied() == self.last && since.first().is_none_or(|entry| u64::from(entry.place) >= self.segment_bytes);
        if !is_prefix || since.len() * Entry::BYTES > max {
            return None;
        }
        let mut changed = Vec::new();
        let is_known = producers.encode_behind(self.reference.name, &mut changed);
        let changes = Checkpoint { facts, interval: self.interval, entries: since.to_vec(), producers: changed };
        (is_known && changes.size() <= max).then_some(changes)
    }
}

/// That a partition is damaged: more of it was acknowledged than its state says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Its log was at least so long; 0: nothing told it.
    pub end: Offset,
    /// For people.
    pub reason: String,
}

/// Bytes of a note's reason in the journal; what is longer is cut.
const REASON_BYTES_MAX: usize = 1_000;

impl Note {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i64(self.end);
        out.extend_from_slice(&self.reason.as_bytes()[..self.reason.len().min(REASON_BYTES_MAX)]);
        out
    }

    /// # Errors
    /// Bytes that are shorter than any note.
    pub fn decode(bytes: &[u8]) -> Result<Note, Malformed> {
        let mut reader = Reader::new(bytes);
        let end = reader.offset("the end that a damaged log had reached")?;
        let reason = String::from_utf8_lossy(bytes.get(8..).unwrap_or_default()).into_owned();
        Ok(Note { end, reason })
    }
}

/// The parts that grow with use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Large {
    /// Of the active segment, below the durable end.
    pub index: Index,
    pub producers: Producers,
}

impl PartitionState {
    /// An empty partition that begins at `start`. `interval`: `index.interval.bytes`.
    pub fn birth(start: Offset, interval: u32, consensus: Vec<u8>) -> PartitionState {
        let large = Large { index: Index::new(start, interval), producers: Producers::default() };
        PartitionState {
            log_start: start,
            durable_end: start,
            log_end: start,
            segment: start,
            segment_bytes: 0,
            rolls: Vec::new(),
            consensus,
            large: LargeAt::Here(large),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(VERSION);
        out.put_u8(LAYOUT);
        out.put_i64(self.log_start);
        out.put_i64(self.durable_end);
        out.put_i64(self.log_end);
        out.put_i64(self.segment);
        out.put_u64(self.segment_bytes);
        out.put_u32(self.rolls.len() as u32);
        self.rolls.iter().for_each(|base| out.put_i64(*base));
        out.put_sized(&self.consensus);
        match &self.large {
            LargeAt::Here(large) => {
                out.put_u8(0);
                large.put(&mut out);
            }
            LargeAt::File(reference) => {
                out.put_u8(1);
                reference.put(&mut out);
            }
            LargeAt::Changed(reference, changes) => {
                out.put_u8(2);
                reference.put(&mut out);
                out.put_sized(&changes.encode());
            }
        }
        out
    }

    /// # Errors
    /// Bytes that [`PartitionState::encode`] cannot have written.
    pub fn decode(bytes: &[u8]) -> Result<PartitionState, Malformed> {
        let mut reader = Reader::new(bytes);
        let reader = &mut reader;
        if (reader.u8("version of a partition's state")?, reader.u8("layout of a partition's directory")?) != (VERSION, LAYOUT) {
            return Err(Malformed { what: "version 1 of a partition's state", place: 0 });
        }
        let (log_start, durable_end) = (reader.offset("log start")?, reader.offset("durable end")?);
        let log_end = reader.offset("log end")?;
        let (segment, segment_bytes) = (reader.offset("active segment")?, reader.u64("bytes of the active segment")?);
        let count = reader.count(ROLLS_MAX, 8, "number of rolls")?;
        let rolls = (0..count).map(|_| reader.offset("base of a rolled segment")).collect::<Result<Vec<_>, _>>()?;
        let consensus = reader.sized(CONSENSUS_BYTES_MAX, "consensus state")?.to_vec();
        let large = match reader.u8("where the large parts of a partition's state are")? {
            0 => LargeAt::Here(Large::read(reader)?),
            1 => LargeAt::File(Reference::read(reader)?),
            2 => {
                let reference = Reference::read(reader)?;
                LargeAt::Changed(reference, Checkpoint::decode(reader.sized(BODY_BYTES_MAX, "changes since a state file")?)?)
            }
            _ => return Err(reader.malformed("where the large parts of a partition's state are")),
        };
        reader.end("end of a partition's state")?;
        let state = PartitionState { log_start, durable_end, log_end, segment, segment_bytes, rolls, consensus, large };
        if state.is_sound() { Ok(state) } else { Err(Malformed { what: "a partition's state that fits together", place: 0 }) }
    }

    fn is_sound(&self) -> bool {
        let rolls = self.rolls.is_sorted_by(|a, b| a < b) && self.rolls.first().is_none_or(|first| *first > self.durable_end);
        let bytes = self.segment_bytes <= u64::from(u32::MAX) && (self.segment_bytes == 0) == (self.segment == self.durable_end);
        let index = match &self.large {
            LargeAt::Here(large) => large.fits(self.segment, self.durable_end, self.segment_bytes),
            LargeAt::File(reference) => reference.name.end == self.durable_end,
            LargeAt::Changed(_, changes) => {
                let facts = changes.facts;
                (facts.base, facts.end, facts.bytes) == (self.segment, self.durable_end, self.segment_bytes)
            }
        };
        rolls && bytes && index && self.segment <= self.durable_end && self.durable_end <= self.log_end
    }

    /// What goes to the journal, and the state file to be written and made durable before (how the journal is to name it, its bytes), if
    /// the state is too large for the journal.
    /// `current`: the state file that the journal names now; `inline_max`: so many bytes of large parts may go to the journal.
    ///
    /// # Panics
    /// When the large parts are not here.
    pub fn split(mut self, current: Option<state_file::Name>, inline_max: usize) -> (Vec<u8>, Option<(Reference, Vec<u8>)>) {
        let LargeAt::Here(large) = &self.large else { panic!("a state is written by who holds all of it") };
        let mut body = Vec::new();
        large.put(&mut body);
        if body.len() + self.consensus.len() <= inline_max {
            return (self.encode(), None);
        }
        let name = state_file::Name::next(self.durable_end, current);
        let (file, reference) = state_file::encode(name, &body);
        self.large = LargeAt::File(reference);
        (self.encode(), Some((reference, file)))
    }
}

impl Large {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        self.index.put(out);
        self.producers.encode(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Large, Malformed> {
        if reader.u8("version of a partition's large parts")? != VERSION {
            return Err(reader.malformed("version 1 of a partition's large parts"));
        }
        Ok(Large { index: Index::read(reader)?, producers: Producers::decode(reader)? })
    }

    /// From the body of a state file.
    ///
    /// # Errors
    /// Bytes that are not large parts.
    pub fn decode(body: &[u8]) -> Result<Large, Malformed> {
        let mut reader = Reader::new(body);
        let large = Large::read(&mut reader)?;
        reader.end("end of a state file")?;
        Ok(large)
    }

    /// Whether the index is that of this active segment.
    pub fn fits(&self, segment: Offset, durable_end: Offset, segment_bytes: u64) -> bool {
        let facts = self.index.summary();
        (facts.base, facts.end, facts.bytes) == (segment, durable_end, segment_bytes)
    }

    /// Takes in one checkpoint.
    ///
    /// # Errors
    /// It does not follow what is here.
    pub fn apply(&mut self, checkpoint: &Checkpoint) -> Result<(), Malformed> {
        if checkpoint.facts.base != self.index.summary().base {
            self.index = Index::new(checkpoint.facts.base, checkpoint.interval);
        }
        self.index.extend(checkpoint.facts, &checkpoint.entries)?;
        self.producers.apply_delta(&mut Reader::new(&checkpoint.producers))
    }
}

/// What one checkpoint adds to the state before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Of the active segment, as of this checkpoint.
    pub facts: Summary,
    /// `index.interval.bytes`, for a segment that is new.
    pub interval: u32,
    /// Entries that the checkpoint before did not have; all of a new segment's.
    pub entries: Vec<Entry>,
    /// As [`Producers::encode_delta`] wrote it.
    pub producers: Vec<u8>,
}

impl Checkpoint {
    /// `before`: the active segment and its bytes at the checkpoint before. Takes the producers' changes.
    pub fn of(index: &Index, interval: u32, producers: &mut Producers, before: (Offset, u64)) -> Checkpoint {
        let from = if before.0 == index.summary().base { before.1 } else { 0 };
        let mut changes = Vec::new();
        producers.encode_delta(&mut changes);
        Checkpoint { facts: *index.summary(), interval, entries: index.entries_from(from).to_vec(), producers: changes }
    }

    /// About the bytes that [`Checkpoint::encode`] gives.
    fn size(&self) -> usize {
        64 + self.entries.len() * Entry::BYTES + self.producers.len()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        out.put_u8(VERSION);
        self.facts.put(&mut out);
        out.put_u32(self.interval);
        out.put_u32(self.entries.len() as u32);
        self.entries.iter().for_each(|entry| entry.put(&mut out));
        out.extend_from_slice(&self.producers);
        out
    }

    /// # Errors
    /// Bytes that [`Checkpoint::encode`] cannot have written. The producers' changes are read when they are applied.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8("version of a checkpoint")? != VERSION {
            return Err(Malformed { what: "version 1 of a checkpoint", place: 0 });
        }
        let facts = Summary::read(&mut reader)?;
        let interval = reader.u32("index interval")?;
        let count = reader.count(ENTRIES_MAX, Entry::BYTES, "number of index entries")?;
        let entries = (0..count).map(|_| Entry::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let producers = reader.take(reader.left(), "producers' changes")?.to_vec();
        Ok(Checkpoint { facts, interval, entries, producers })
    }
}

#[cfg(test)]
mod tests;
