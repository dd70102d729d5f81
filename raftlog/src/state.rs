//! What a replica must find again after a crash, and the records by which it changes.
//!
//! 1. [`State`] is the whole: term, vote, marks, history. It stands in the state file, or is carried in the journal.
//! 2. [`Record`] is one step. The journal keeps records and appended batches in the order in which the core named them; recovery
//!    applies them in that order to the last state: `state.apply(&record)`, and `state.history.extend(end)` for batches.
//! 3. Within a record: term and vote, then truncation, then start, then marks. A record is kept whole or not at all.
//!
//! Layout, little-endian; checksums are the file's or the journal's:
//!
//! state:  version 1 | term 4 | vote | marks 24 | end 8 | starts 4 | start ...
//! record: version 1 | flags 1 | term 4 | vote | marks 24 | [epoch 4 offset 8: truncation] | [start]
//! vote:   0, or 1 and a member. member: node 4 disk 16.
//! start:  epoch 4 offset 8, 0 (the configuration of the start before) or 1 and a configuration.
//! configuration: voters 1 outgoing 1, members.
//!
//! Invariants: term >= last epoch held; marks only grow; a record's start or truncation fits the state it is applied to.
//! Knows nothing of files or peers.

use crate::configuration::{Configuration, Member};
use crate::history::{EPOCHS_MAX, History, Start};
use millrace_base::fault::Fault;
use millrace_base::ids::Uuid;
use millrace_base::offset::{Epoch, Offset, Position};
use std::fmt;

const VERSION: u8 = 1;

const FLAG_TRUNCATE: u8 = 1;
const FLAG_START: u8 = 2;

/// Values beside the log that only grow; of two replicas' marks the larger ones hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The first offset kept.
    pub log_start: Offset,
    /// Offsets before it are in object storage.
    pub archived_through: Offset,
    /// Offsets before it may have gaps.
    pub compacted_through: Offset,
}

impl Marks {
    /// Mark by mark the larger.
    pub fn max(self, other: Marks) -> Marks {
        Marks {
            log_start: self.log_start.max(other.log_start),
            archived_through: self.archived_through.max(other.archived_through),
            compacted_through: self.compacted_through.max(other.compacted_through),
        }
    }

    pub(crate) fn are_valid(&self) -> bool {
        self.log_start >= 0 && self.archived_through >= 0 && self.compacted_through >= 0
    }
}

/// Everything of a replica that outlives a crash, except the batches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub term: Epoch,
    /// Whom this replica chose in `term`.
    pub vote: Option<Member>,
    pub marks: Marks,
    pub history: History,
}

/// One step of a replica's state, to be journaled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub term: Epoch,
    pub vote: Option<Member>,
    pub marks: Marks,
    /// The log ends here now.
    pub truncate: Option<Position>,
    /// And then goes on with this epoch.
    pub start: Option<Start>,
}

/// Why a state cannot be the state of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreError {
    /// The log holds an epoch that this replica never heard of: term or history were lost.
    EpochAboveTerm { epoch: Epoch, term: Epoch },
    /// A record truncates to a position that the log does not hold.
    TruncatesTo(Position),
    /// A record starts an epoch elsewhere than at the log end, or not above the last epoch.
    StartsAt(Position),
    /// Negative term or mark, or a term lower than the one before.
    Negative,
}

impl RestoreError {
    pub fn fault(&self) -> Fault {
        Fault::Corrupt
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::EpochAboveTerm { epoch, term } => {
                write!(f, "the log holds epoch {epoch}, but the term is {term}")
            }
            RestoreError::TruncatesTo(to) => write!(f, "truncated to epoch {} offset {}, which is not held", to.epoch, to.offset),
            RestoreError::StartsAt(at) => write!(f, "epoch {} starts at offset {}, which is not where the log ends", at.epoch, at.offset),
            RestoreError::Negative => write!(f, "a term or mark is negative or went back"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl State {
    /// A replica of a set made with `configuration`, before anything happened.
    pub fn new(configuration: Configuration) -> State {
        State { term: 0, vote: None, marks: Marks::default(), history: History::new(configuration) }
    }

    /// An error leaves the state as it was.
    pub fn apply(&mut self, record: &Record) -> Result<(), RestoreError> {
        if record.term < self.term || !record.marks.are_valid() {
            return Err(RestoreError::Negative);
        }
        if let Some(to) = record.truncate
            && !self.history.holds(to)
        {
            return Err(RestoreError::TruncatesTo(to));
        }
        if let Some(start) = &record.start {
            let last = record.truncate.unwrap_or(self.history.last_position());
            if start.epoch <= last.epoch || start.offset != last.offset {
                return Err(RestoreError::StartsAt(start.position()));
            }
            if start.epoch > record.term {
                return Err(RestoreError::EpochAboveTerm { epoch: start.epoch, term: record.term });
            }
        }
        self.term = record.term;
        self.vote = record.vote;
        if let Some(to) = record.truncate {
            self.history.truncate(to);
        }
        if let Some(start) = &record.start {
            self.history.begin(start.clone());
        }
        self.marks = self.marks.max(record.marks);
        Ok(())
    }

    pub fn validate(&self) -> Result<(), RestoreError> {
        if self.term < 0 || !self.marks.are_valid() {
            return Err(RestoreError::Negative);
        }
        let epoch = self.history.last_epoch();
        if epoch > self.term {
            return Err(RestoreError::EpochAboveTerm { epoch, term: self.term });
        }
        Ok(())
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.term.to_le_bytes());
        encode_vote(self.vote, out);
        encode_marks(self.marks, out);
        out.extend_from_slice(&self.history.end().to_le_bytes());
        let starts = self.history.starts().len();
        out.extend_from_slice(&(starts as u32).to_le_bytes());
        let mut before = None;
        for at in 0..starts {
            let (position, configuration) = self.history.start_at(at);
            encode_start(position, (before != Some(configuration)).then_some(configuration), out);
            before = Some(configuration);
        }
    }

    /// The whole of `bytes`. Allocates no more than a small multiple of their length.
    pub fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
        let mut reader = Reader { bytes, place: 0 };
        reader.version()?;
        let term = reader.i32()?;
        let vote = reader.vote()?;
        let marks = reader.marks()?;
        let end = reader.i64()?;
        let place = reader.place;
        let count = reader.u32()? as usize;
        if count == 0 || count > EPOCHS_MAX {
            return Err(DecodeError { place, expected: "1 to 4096 epochs" });
        }
        let mut history = History::from_first(reader.start(None)?);
        for _ in 1..count {
            let place = reader.place;
            let start = reader.start(Some(history.configuration()))?;
            if start.epoch <= history.last_epoch() || start.offset < history.end() {
                return Err(DecodeError { place, expected: "a later epoch that starts no earlier" });
            }
            history.extend(start.offset);
            history.begin(start);
        }
        if end < history.end() {
            return Err(DecodeError { place, expected: "a log end not before the last start" });
        }
        history.extend(end);
        let state = State { term, vote, marks, history };
        state.validate().map_err(|_| DecodeError { place: 1, expected: "a term not below the last epoch, marks not below 0" })?;
        reader.finish()?;
        Ok(state)
    }
}

impl Record {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let truncate = if self.truncate.is_some() { FLAG_TRUNCATE } else { 0 };
        let start = if self.start.is_some() { FLAG_START } else { 0 };
        out.push(truncate | start);
        out.extend_from_slice(&self.term.to_le_bytes());
        encode_vote(self.vote, out);
        encode_marks(self.marks, out);
        if let Some(to) = self.truncate {
            encode_position(to, out);
        }
        if let Some(start) = &self.start {
            encode_start(start.position(), Some(&start.configuration), out);
        }
    }

    /// The whole of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        let mut reader = Reader { bytes, place: 0 };
        reader.version()?;
        let flags = reader.u8()?;
        if flags & !(FLAG_TRUNCATE | FLAG_START) != 0 {
            return Err(DecodeError { place: 1, expected: "flags 0 to 3" });
        }
        let term = reader.i32()?;
        let vote = reader.vote()?;
        let marks = reader.marks()?;
        let truncate = if flags & FLAG_TRUNCATE != 0 { Some(reader.position()?) } else { None };
        let start = if flags & FLAG_START != 0 { Some(reader.start(None)?) } else { None };
        if term < 0 || !marks.are_valid() {
            return Err(DecodeError { place: 2, expected: "a term and marks not below 0" });
        }
        reader.finish()?;
        Ok(Record { term, vote, marks, truncate, start })
    }
}

/// Bytes that are no state or record of a version known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// Byte at which it showed.
    pub place: usize,
    pub expected: &'static str,
}

impl DecodeError {
    pub fn fault(&self) -> Fault {
        Fault::Corrupt
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "raft state at byte {}: expected {}", self.place, self.expected)
    }
}

impl std::error::Error for DecodeError {}

fn encode_position(position: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(&position.epoch.to_le_bytes());
    out.extend_from_slice(&position.offset.to_le_bytes());
}

fn encode_member(member: &Member, out: &mut Vec<u8>) {
    out.extend_from_slice(&member.node.to_le_bytes());
    out.extend_from_slice(&member.disk.0);
}

fn encode_vote(vote: Option<Member>, out: &mut Vec<u8>) {
    match vote {
        None => out.push(0),
        Some(member) => {
            out.push(1);
            encode_member(&member, out);
        }
    }
}

fn encode_marks(marks: Marks, out: &mut Vec<u8>) {
    for mark in [marks.log_start, marks.archived_through, marks.compacted_through] {
        out.extend_from_slice(&mark.to_le_bytes());
    }
}

fn encode_start(position: Position, configuration: Option<&Configuration>, out: &mut Vec<u8>) {
    encode_position(position, out);
    let Some(configuration) = configuration else {
        out.push(0);
        return;
    };
    out.push(1);
    out.push(configuration.voters().len() as u8);
    out.push(configuration.outgoing().len() as u8);
    for member in configuration.voters().iter().chain(configuration.outgoing()) {
        encode_member(member, out);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = self.bytes.get(self.place..).unwrap_or_default();
        let taken = rest.first_chunk::<N>().ok_or(DecodeError { place: self.place, expected: "more bytes" })?;
        self.place += N;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_le_bytes(self.take()?))
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.take()?))
    }

    fn version(&mut self) -> Result<(), DecodeError> {
        let place = self.place;
        if self.u8()? != VERSION { Err(DecodeError { place, expected: "version 1" }) } else { Ok(()) }
    }

    /// Whether something optional follows.
    fn present(&mut self) -> Result<bool, DecodeError> {
        let place = self.place;
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError { place, expected: "0 or 1" }),
        }
    }

    fn position(&mut self) -> Result<Position, DecodeError> {
        let place = self.place;
        let position = Position::new(self.i32()?, self.i64()?);
        if position.epoch < 0 || position.offset < 0 {
            return Err(DecodeError { place, expected: "an epoch and an offset not below 0" });
        }
        Ok(position)
    }

    fn member(&mut self) -> Result<Member, DecodeError> {
        Ok(Member { node: self.i32()?, disk: Uuid(self.take()?) })
    }

    fn vote(&mut self) -> Result<Option<Member>, DecodeError> {
        if self.present()? { Ok(Some(self.member()?)) } else { Ok(None) }
    }

    fn marks(&mut self) -> Result<Marks, DecodeError> {
        Ok(Marks { log_start: self.i64()?, archived_through: self.i64()?, compacted_through: self.i64()? })
    }

    fn start(&mut self, before: Option<&Configuration>) -> Result<Start, DecodeError> {
        let at = self.position()?;
        let place = self.place;
        let configuration = if self.present()? {
            self.configuration()?
        } else {
            before.ok_or(DecodeError { place, expected: "a configuration with the first start" })?.clone()
        };
        Ok(Start { epoch: at.epoch, offset: at.offset, configuration })
    }

    fn configuration(&mut self) -> Result<Configuration, DecodeError> {
        let place = self.place;
        let (voters, outgoing) = (usize::from(self.u8()?), usize::from(self.u8()?));
        let mut members = Vec::new();
        for _ in 0..voters + outgoing {
            members.push(self.member()?);
        }
        Configuration::new(&members[..voters], &members[voters..]).ok_or(DecodeError { place, expected: "1 to 32 voters, each once" })
    }

    fn finish(&self) -> Result<(), DecodeError> {
        if self.place == self.bytes.len() {
            return Ok(());
        }
        Err(DecodeError { place: self.place, expected: "no more bytes" })
    }
}
