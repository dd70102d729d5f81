//! One partition as the journal tells it: its records folded in order.
//!
//! 1. [`PartitionImage::apply`] takes each record of the partition, oldest first, with the payload and the sequence of its entry.
//! 2. Records before the first `State` that is read belong to a state that a later one replaced: of them only batches count.
//! 3. Batches above the durable end are *pending*. A copy of them further on (carried to the journal's head) takes the place of the
//!    first. A truncation drops them, a checkpoint releases them.
//! 4. [`PartitionImage::finish`] proves that nothing is missing between durable end and log end, and folds checkpoints into the large
//!    parts. What it cannot do, as it reads no segment: cut segments ([`Recovered::cut`]), check extents ([`Recovered::take_extents`]), and
//!    teach the producers the pending batches ([`crate::producers::Producers::append_all`], in order; the producers skip what they know).
//!
//! 5. Behind a damage nothing is folded any more; what its records tell of the loss is kept ([`Lost`]). A state that follows stands for all
//!    that came before it, so that the damage is past, unless batches are missing or a `Damaged` record says that it is not.
//!
//! Invariants: pending ranges grow and do not overlap; durable end <= begin of the first; end of the last <= log end.
//! Knows nothing of files or of what consensus bytes mean.

use crate::bytes::Malformed;
use crate::index::{Index, REBUILT_INTERVAL_BYTES};
use crate::journal::Damage;
use crate::journal::record::{PayloadRange, Record};
use crate::partition_state::{Checkpoint, Large, LargeAt, Note, PartitionState, ROLLS_MAX, StateFile};
use crate::paths;
use crate::producers::Producers;
use crate::state_file::{self, Reference};
use crate::walk;
use millrace_base::fault::{Corrupt, Fault};
use millrace_base::ids::PartitionId;
use millrace_base::offset::{Epoch, Offset};
use millrace_io::memory::Slice;
use std::collections::BTreeSet;
use std::fmt;

mod extents;
pub use extents::{ExtentFound, TornExtent};

/// Number of a journal entry.
pub type Sequence = u64;

/// Batches that the journal holds for a partition, or vouches for.
#[derive(Clone, Debug)]
pub struct Pending {
    pub base: Offset,
    pub end: Offset,
    pub sequence: Sequence,
    pub bytes: PendingBytes,
}

#[derive(Clone, Debug)]
pub enum PendingBytes {
    /// Whole batches of exactly this range.
    Journal(Slice),
    /// Written straight to a segment.
    Direct(DirectBytes),
}

impl PendingBytes {
    /// Bytes of batches that the journal holds, or that were read for it.
    pub fn in_memory(&self) -> usize {
        match self {
            PendingBytes::Journal(bytes) => bytes.len(),
            PendingBytes::Direct(_) => 0,
        }
    }
}

impl Pending {
    /// Whether the bytes that are here are batches of its range. Those in a segment are read later.
    fn is_as_stated(&self) -> bool {
        !matches!(&self.bytes, PendingBytes::Journal(bytes) if !walk::covers(bytes, self.base, self.end))
    }
}

/// Bytes in a segment whose last fragment is in the journal.
#[derive(Clone, Debug)]
pub struct DirectBytes {
    pub segment: Offset,
    pub place: u64,
    pub bytes: u64,
    /// CRC-32C of the bytes in the segment.
    pub crc: u32,
    pub tail: Slice,
    /// Where the batches ended when they were written; a truncation inside lowers only [`Pending::end`].
    pub written_end: Offset,
    /// A later entry says that it is durable: if it is not there, that is damage.
    pub is_stated: bool,
}

impl DirectBytes {
    /// Of the bytes that were read, those up to `end`, if they are the batches from `base` to there.
    fn batches(&self, bytes: Slice, base: Offset, end: Offset) -> ExtentFound {
        let to = if end < self.written_end { walk::place_of(&bytes, end) } else { Some(bytes.len()) };
        match to.map(|to| bytes.sub(0..to)).filter(|bytes| walk::covers(bytes, base, end)) {
            Some(batches) => ExtentFound::Whole(batches),
            None => ExtentFound::Differs(Corrupt {
                file: paths::segment_name(self.segment),
                place: self.place,
                expected: format!("batches of offsets {base}..{end}"),
                found: format!("{} bytes that are not these", bytes.len()),
            }),
        }
    }
}

/// What the consensus core is told, in this order.
#[derive(Clone, Debug)]
pub enum Step {
    /// One step of its state.
    Consensus(Slice),
    /// Batches were appended: the log ends here.
    End(Offset),
}

enum Change {
    Checkpoint(Slice),
    Truncate(Offset),
}

/// What cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// Records are not in the order of the entries.
    Order { before: Sequence, found: Sequence },
    /// A payload range outside of its payload.
    Payload { range: PayloadRange, payload: usize },
    /// Batches do not begin where the log ends.
    Gap { expected: Offset, found: Offset },
    /// Batches overlap others without being a copy of them.
    Overlap { base: Offset, end: Offset },
    /// An offset at which no batch begins.
    Inside { offset: Offset },
    /// A truncation, checkpoint or roll at an offset that the log does not reach, or that it has left behind.
    Beyond { offset: Offset, log_end: Offset },
    /// A checkpoint into a segment that was not begun.
    Segment { expected: Offset, found: Offset },
    /// A state or checkpoint that cannot be read.
    Malformed(Malformed),
    /// The state file is not the one that the journal names.
    StateFile(Corrupt),
    /// No state among the records.
    NoState,
    /// The bytes that the journal holds for these offsets are not whole batches of them.
    Batches { base: Offset, end: Offset },
    /// Batches that the journal should hold are not there.
    Missing { from: Offset, to: Offset },
    /// An entry that held records of this partition is damaged.
    Damaged { sequence: Sequence },
    /// It was found damaged before, and a record says why.
    Noted { reason: String },
}

impl ImageError {
    pub fn fault(&self) -> Fault {
        Fault::Corrupt
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Order { before, found } => write!(f, "a record of entry {found} behind one of entry {before}"),
            ImageError::Payload { range, payload } => {
                write!(f, "bytes {}+{} of a payload of {payload} bytes", range.start, range.len)
            }
            ImageError::Gap { expected, found } => write!(f, "batches begin at offset {found} where the log ends at {expected}"),
            ImageError::Overlap { base, end } => write!(f, "batches {base}..{end} overlap others"),
            ImageError::Inside { offset } => write!(f, "no batch begins at offset {offset}"),
            ImageError::Beyond { offset, log_end } => write!(f, "offset {offset} does not fit a log that ends at {log_end}"),
            ImageError::Segment { expected, found } => write!(f, "a checkpoint into segment {found}, the active one is {expected}"),
            ImageError::Malformed(error) => error.fmt(f),
            ImageError::StateFile(error) => error.fmt(f),
            ImageError::NoState => write!(f, "the journal holds records of the partition, but no state"),
            ImageError::Batches { base, end } => {
                write!(f, "the journal's bytes for offsets {base}..{end} are not batches of these offsets")
            }
            ImageError::Missing { from, to } => write!(f, "batches {from}..{to} are missing in the journal"),
            ImageError::Damaged { sequence } => write!(f, "journal entry {sequence} is damaged"),
            ImageError::Noted { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for ImageError {}

/// What the records at and behind a damage tell of what is lost with it.
#[derive(Clone, Default, Debug)]
pub struct Lost {
    /// The log was at least so long; 0: nothing tells it.
    pub end: Offset,
    /// Entries that cannot be read and held records of the partition: each may have begun an epoch that nothing else names.
    pub entries: u64,
    /// Consensus steps, in order. The largest epoch of batches.
    pub steps: Vec<Slice>,
    pub epoch: Epoch,
}

impl Lost {
    fn reached(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }
}

/// The fold. See the module.
#[derive(Default)]
pub struct PartitionImage {
    state: Option<(Sequence, PartitionState)>,
    pending: Vec<Pending>,
    /// None until a state or a batch says it.
    log_end: Option<Offset>,
    steps: Vec<(Sequence, Step)>,
    changes: Vec<(Sequence, Change)>,
    cut: Option<Offset>,
    deleted: Option<Sequence>,
    damaged: Option<ImageError>,
    noted: Option<ImageError>,
    /// The first entry that is damaged, or that cannot be.
    damaged_from: Option<Sequence>,
    /// Batches behind the damage: they count if a state comes that stands for the rest.
    behind: Vec<Pending>,
    /// Batches before the damage that a truncation behind it has taken back begin here.
    cut_behind: Option<Offset>,
    /// What records behind the damage say of the log start: offsets below are gone, and rightly so.
    log_start_behind: Offset,
    lost: Lost,
    last: Sequence,
}

/// All that the records said.
#[derive(Debug)]
pub struct Recovered {
    pub log_start: Offset,
    pub durable_end: Offset,
    pub log_end: Offset,
    pub segment: Offset,
    pub segment_bytes: u64,
    pub rolls: Vec<Offset>,
    pub consensus: Vec<u8>,
    pub steps: Vec<Step>,
    /// The index is that of `segment` up to `durable_end`; with a cut it stands before it, see [`crate::index::Index::cut_back`].
    pub large: Large,
    /// Gapless from `durable_end` to `log_end`.
    pub pending: Vec<Pending>,
    /// Segments may still hold batches at or above this offset, which the journal took back: cut them (and remove segments that begin
    /// above) before anything is served. The active segment is then the one that holds this offset, and `segment`, `segment_bytes` are
    /// those before the cut.
    pub cut: Option<Offset>,
    /// The state file in use.
    pub state_file: Option<StateFile>,
    /// Where the last extent ends, once [`Recovered::take_extents`] was asked: its bytes stand in the segment alone, and what is written there
    /// until a checkpoint states them must be the same.
    pub extents_end: Option<Offset>,
    /// Of a damaged partition.
    pub lost: Lost,
    /// The state file is damaged: what `large` holds is empty, and the index is to be made again from the segment.
    pub is_large_lost: bool,
}

impl PartitionImage {
    pub fn new() -> PartitionImage {
        PartitionImage::default()
    }

    /// Takes the next record. `payload`: that of its entry. A record that cannot be damages the image from here on.
    ///
    /// # Errors
    /// What cannot be. Records behind a damage are passed over without an error, until a state starts afresh.
    pub fn apply(&mut self, record: &Record, payload: &Slice, sequence: Sequence) -> Result<(), ImageError> {
        let result = self.try_apply(record, payload, sequence);
        if let Err(error) = &result {
            self.damaged = Some(error.clone());
            self.damaged_from = self.damaged_from.or(Some(sequence));
            self.lost.entries += 1;
        }
        result
    }

    /// The extent that was applied last is stated durable.
    pub fn extent_is_stated(&mut self) {
        if let Some(Pending { bytes: PendingBytes::Direct(direct), .. }) = self.pending.last_mut() {
            direct.is_stated = true;
        }
    }

    /// Entries are damaged, and they held records of this partition, `id`, or may have. What is known of those records is taken in.
    pub fn damaged_at(&mut self, damage: &Damage, id: PartitionId) {
        if self.damaged.is_none() {
            self.damaged = Some(ImageError::Damaged { sequence: damage.first });
        }
        self.damaged_from = self.damaged_from.or(Some(damage.first));
        self.lost.entries += damage.last - damage.first + 1;
        for record in damage.records.iter().filter(|record| record.partition() == id) {
            self.told_of_loss(record);
        }
    }

    /// A record that is not folded: where the log started and ended by it still counts.
    fn told_of_loss(&mut self, record: &Record) {
        match record {
            Record::Raft { truncate, log_start, .. } => {
                self.log_start_behind = self.log_start_behind.max(log_start.unwrap_or(0));
                if let Some(to) = truncate {
                    self.behind.retain(|pending| pending.end <= to.offset);
                    self.cut_behind = Some(self.cut_behind.unwrap_or(to.offset).min(to.offset));
                }
            }
            Record::Batches { end, .. } | Record::Extent { end, .. } | Record::Checkpoint { end, .. } => self.lost.reached(*end),
            Record::Roll { .. } | Record::State { .. } | Record::Deleted { .. } | Record::Damaged { .. } => {}
        }
    }

    /// What is wrong, if anything is.
    pub fn damage(&self) -> Option<&ImageError> {
        self.damaged.as_ref().or(self.noted.as_ref())
    }

    /// The offset up to which the log is known to have been, whatever is left of it.
    pub fn reached(&self) -> Offset {
        let stated = self.state.as_ref().map_or(0, |(_, state)| state.log_end);
        self.behind.iter().map(|pending| pending.end).chain([self.log_end.unwrap_or(0), self.lost.end, stated]).max().unwrap_or(0)
    }

    /// Whether anything says what the partition was.
    pub fn has_state(&self) -> bool {
        self.state.is_some()
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.is_some()
    }

    /// The state file that [`PartitionImage::finish`] needs.
    pub fn state_file(&self) -> Option<&Reference> {
        match &self.state.as_ref()?.1.large {
            LargeAt::File(reference) | LargeAt::Changed(reference, _) => Some(reference),
            LargeAt::Here(_) => None,
        }
    }

    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// The journal entries that still hold something of this partition.
    pub fn needed(&self) -> BTreeSet<Sequence> {
        let mut needed: BTreeSet<Sequence> = self.pending.iter().map(|pending| pending.sequence).collect();
        needed.extend(self.state.iter().map(|(sequence, _)| *sequence));
        needed.extend(self.steps.iter().filter(|(_, step)| matches!(step, Step::Consensus(_))).map(|(sequence, _)| *sequence));
        needed.extend(self.changes.iter().map(|(sequence, _)| *sequence));
        needed.extend(self.deleted);
        needed
    }

    /// The oldest of [`PartitionImage::needed`].
    pub fn oldest_needed(&self) -> Option<Sequence> {
        let state = self.state.as_ref().map(|(sequence, _)| *sequence);
        state.into_iter().chain(self.pending.iter().map(|pending| pending.sequence)).chain(self.deleted).chain(self.damaged_from).min()
    }

    fn try_apply(&mut self, record: &Record, payload: &Slice, sequence: Sequence) -> Result<(), ImageError> {
        if sequence < self.last {
            return Err(ImageError::Order { before: self.last, found: sequence });
        }
        self.last = sequence;
        if self.damaged.is_some() && !matches!(record, Record::State { .. } | Record::Deleted { .. } | Record::Damaged { .. }) {
            self.told_of_loss(record);
            if let Record::Raft { step, .. } = record {
                self.lost.steps.push(part(payload, *step)?);
            }
            if let Some(pending) = pending_of(record, payload, sequence)?.filter(|pending| pending.base < pending.end) {
                self.lost.epoch = self.lost.epoch.max(last_epoch(&pending));
                self.behind.push(pending);
            }
            return Ok(());
        }
        match record {
            Record::Batches { .. } | Record::Extent { .. } => match pending_of(record, payload, sequence)? {
                Some(pending) => self.batches(pending),
                None => Ok(()),
            },
            Record::Raft { truncate, log_start, step, .. } => {
                let step = part(payload, *step)?;
                if let Some(to) = truncate {
                    self.truncate(to.offset, sequence)?;
                }
                if let Some((_, state)) = &mut self.state {
                    state.log_start = state.log_start.max(log_start.unwrap_or(0));
                    self.steps.push((sequence, Step::Consensus(step)));
                }
                Ok(())
            }
            Record::Roll { base, .. } => self.roll(*base),
            Record::Checkpoint { end, segment, segment_bytes, delta, .. } => {
                let delta = part(payload, *delta)?;
                self.checkpoint(*end, *segment, *segment_bytes)?;
                if self.state.is_some() {
                    self.changes.push((sequence, Change::Checkpoint(delta)));
                }
                Ok(())
            }
            Record::State { state, .. } => {
                let state = PartitionState::decode(&part(payload, *state)?).map_err(ImageError::Malformed)?;
                self.state(state, sequence)
            }
            Record::Damaged { reason, .. } => {
                let note = Note::decode(&part(payload, *reason)?).map_err(ImageError::Malformed)?;
                self.lost.reached(note.end);
                self.noted = Some(ImageError::Noted { reason: note.reason });
                self.cut_to_state()
            }
            Record::Deleted { .. } => {
                *self = PartitionImage { deleted: Some(sequence), last: sequence, ..PartitionImage::default() };
                Ok(())
            }
        }
    }

    fn batches(&mut self, new: Pending) -> Result<(), ImageError> {
        let mut new = new;
        let log_end = self.log_end.unwrap_or(new.base);
        if new.base >= new.end || (new.base < log_end && log_end < new.end) {
            return Err(ImageError::Overlap { base: new.base, end: new.end });
        }
        if new.base > log_end {
            return Err(ImageError::Gap { expected: log_end, found: new.base });
        }
        if new.base == log_end {
            self.log_end = Some(new.end);
            if self.state.is_some() {
                self.extend_steps(new.sequence, new.end);
            }
            self.pending.push(new);
            return Ok(());
        }
        // A copy of what came before, carried to the journal's head.
        let durable = self.state.as_ref().map_or(new.base, |(_, state)| state.durable_end);
        if new.end <= durable {
            return Ok(());
        }
        if new.base < durable {
            cut_front(&mut new, durable)?;
        }
        let partly = |old: &Pending| old.base < new.end && new.base < old.end && (old.base < new.base || new.end < old.end);
        if self.pending.iter().any(partly) {
            return Err(ImageError::Overlap { base: new.base, end: new.end });
        }
        self.pending.retain(|old| old.base < new.base || new.end < old.end);
        let at = self.pending.partition_point(|old| old.base < new.base);
        self.pending.insert(at, new);
        Ok(())
    }

    fn extend_steps(&mut self, sequence: Sequence, end: Offset) {
        match self.steps.last_mut() {
            Some((_, Step::End(last))) => *last = end,
            _ => self.steps.push((sequence, Step::End(end))),
        }
    }

    fn truncate(&mut self, to: Offset, sequence: Sequence) -> Result<(), ImageError> {
        if self.state.is_some() && self.log_end.is_some_and(|log_end| to > log_end) {
            return Err(ImageError::Beyond { offset: to, log_end: self.log_end.unwrap_or(0) });
        }
        let kept = self.pending.partition_point(|pending| pending.base < to);
        self.pending.truncate(kept);
        if let Some(last) = self.pending.last_mut() {
            cut_back(last, to)?;
        }
        self.log_end = self.log_end.map(|log_end| log_end.min(to));
        let Some((_, state)) = &mut self.state else {
            // What lay before the first record that is read may be gone too: the state to come says where the log ends.
            self.log_end = self.pending.last().map(|last| last.end);
            return Ok(());
        };
        self.changes.push((sequence, Change::Truncate(to)));
        state.rolls.retain(|base| *base <= to);
        if to < state.durable_end {
            state.durable_end = to;
            self.cut = Some(to);
        }
        Ok(())
    }

    fn roll(&mut self, base: Offset) -> Result<(), ImageError> {
        let Some((_, state)) = &mut self.state else { return Ok(()) };
        let log_end = self.log_end.unwrap_or(0);
        let last = state.rolls.last().copied().unwrap_or(state.segment);
        if base < state.durable_end || base > log_end || base < last || state.rolls.len() == ROLLS_MAX {
            return Err(ImageError::Beyond { offset: base, log_end });
        }
        if base > last {
            state.rolls.push(base);
        }
        begin_rolled(state);
        Ok(())
    }

    fn checkpoint(&mut self, end: Offset, segment: Offset, segment_bytes: u64) -> Result<(), ImageError> {
        let Some((_, state)) = &mut self.state else { return Ok(()) };
        let log_end = self.log_end.unwrap_or(0);
        if end < state.durable_end || end > log_end || segment > end {
            return Err(ImageError::Beyond { offset: end, log_end });
        }
        let begun = segment == state.segment || state.rolls.contains(&segment) || (self.cut.is_some() && segment <= state.durable_end);
        if !begun {
            return Err(ImageError::Segment { expected: state.segment, found: segment });
        }
        state.rolls.retain(|base| *base > segment);
        (state.segment, state.segment_bytes, state.durable_end) = (segment, segment_bytes, end);
        begin_rolled(state);
        self.cut = None;
        release(&mut self.pending, end)
    }

    fn state(&mut self, state: PartitionState, sequence: Sequence) -> Result<(), ImageError> {
        if self.damaged.is_some() {
            self.gather();
        }
        self.steps.clear();
        self.changes.clear();
        (self.cut, self.deleted, self.damaged, self.noted) = (None, None, None, None);
        (self.log_start_behind, self.lost) = (0, Lost::default());
        release(&mut self.pending, state.durable_end)?;
        let pending_end = self.pending.last().map_or(state.log_end, |last| last.end);
        self.log_end = Some(state.log_end.max(pending_end));
        self.state = Some((sequence, state));
        Ok(())
    }

    /// The state stands for all that is left: what entries that are still live hold behind its end is not to come back.
    fn cut_to_state(&mut self) -> Result<(), ImageError> {
        let Some((_, state)) = &self.state else { return Ok(()) };
        let end = state.log_end;
        let kept = self.pending.partition_point(|pending| pending.base < end);
        self.pending.truncate(kept);
        self.log_end = Some(end);
        match self.pending.last_mut() {
            Some(last) => cut_back(last, end),
            None => Ok(()),
        }
    }

    /// A state behind a damage: of what came before, also behind the damage, only batches count any more, as before the first state. What was
    /// lost is missing among them. A later copy takes the place of an earlier one; what contradicts it otherwise does not count.
    fn gather(&mut self) {
        if let Some(to) = self.cut_behind.take() {
            self.pending.retain(|pending| pending.end <= to);
        }
        for new in std::mem::take(&mut self.behind) {
            self.pending.retain(|old| old.base < new.base || new.end < old.end);
            if self.pending.iter().all(|old| old.end <= new.base || new.end <= old.base) {
                let at = self.pending.partition_point(|old| old.base < new.base);
                self.pending.insert(at, new);
            }
        }
    }

    /// The partition as it is to go on. `file`: the bytes of the state file, if [`PartitionImage::state_file`] names one.
    ///
    /// # Errors
    /// Damage, or something missing. Not to be asked of a deleted partition.
    pub fn finish(self, file: Option<&[u8]>) -> Result<Recovered, ImageError> {
        match self.finish_intact(file)? {
            (recovered, None) => Ok(recovered),
            (_, Some(damage)) => Err(damage),
        }
    }

    /// Likewise, but of a damaged partition what is intact: all that was stated before the damage, up to the first batch that is missing.
    /// The second is the damage, if there is any: nothing may follow then, and nothing that is there may be changed.
    ///
    /// # Errors
    /// Nothing can be said of the partition.
    pub fn finish_intact(mut self, file: Option<&[u8]>) -> Result<(Recovered, Option<ImageError>), ImageError> {
        let mut damage = self.damaged.take().or(self.noted.take());
        let Some((_, mut state)) = self.state else { return Err(damage.unwrap_or(ImageError::NoState)) };
        let mut log_end = self.log_end.unwrap_or(state.log_end);
        let mut at = state.durable_end;
        let mut whole = 0;
        while let Some(pending) = self.pending.get(whole).filter(|pending| pending.base == at && pending.is_as_stated()) {
            (at, whole) = (pending.end, whole + 1);
        }
        // Behind a state that did not fit, pending batches may be missing although the log ends here.
        if at != log_end || whole < self.pending.len() {
            let why = match self.pending.get(whole) {
                Some(pending) if pending.base == at => ImageError::Batches { base: at, end: pending.end },
                next => ImageError::Missing { from: at, to: next.map_or(log_end, |pending| pending.base) },
            };
            damage = damage.or(Some(why));
            self.lost.reached(log_end);
            self.pending.truncate(whole);
            state.rolls.retain(|base| *base <= at);
            log_end = at;
        }
        if damage.is_some() {
            state.log_start = state.log_start.max(self.log_start_behind).min(log_end);
        }
        let (large_at, changes) = match state.large {
            LargeAt::Here(large) => (Ok(large), None),
            LargeAt::File(reference) => (Err(reference), None),
            LargeAt::Changed(reference, changes) => (Err(reference), Some(changes)),
        };
        let (mut large, state_file, mut is_large_lost) = match large_at {
            Ok(large) => (large, None, false),
            Err(reference) => match read_large(file.unwrap_or_default(), &reference) {
                Ok(large) => {
                    let file = StateFile::of(reference, &large.index);
                    (large, Some(file), false)
                }
                Err(error) => {
                    damage = damage.or(Some(error));
                    let nothing = Large { index: Index::new(state.segment, REBUILT_INTERVAL_BYTES), producers: Producers::default() };
                    let file = StateFile::of(reference, &nothing.index);
                    (nothing, Some(file), true)
                }
            },
        };
        if let Some(changes) = changes.filter(|_| !is_large_lost) {
            large.apply(&changes).map_err(ImageError::Malformed)?;
        }
        for (_, change) in self.changes.iter().filter(|_| !is_large_lost) {
            fold(&mut large, change).map_err(ImageError::Malformed)?;
        }
        if is_large_lost {
            is_large_lost = state.segment_bytes > 0 || self.cut.is_some();
        } else if self.cut.is_some() {
            large.index.back_to_last_entry();
        } else if large.index.summary().base != state.segment {
            large.index = Index::new(state.segment, large.index.interval());
        }
        if self.cut.is_none() && !is_large_lost && !large.fits(state.segment, state.durable_end, state.segment_bytes) {
            return Err(ImageError::Malformed(Malformed { what: "an index of the active segment", place: 0 }));
        }
        let recovered = Recovered {
            log_start: state.log_start,
            durable_end: state.durable_end,
            log_end,
            segment: state.segment,
            segment_bytes: state.segment_bytes,
            rolls: state.rolls,
            consensus: state.consensus,
            steps: self.steps.into_iter().map(|(_, step)| step).collect(),
            large,
            pending: self.pending,
            cut: self.cut,
            state_file,
            extents_end: None,
            lost: self.lost,
            is_large_lost,
        };
        Ok((recovered, damage))
    }
}

fn read_large(file: &[u8], reference: &Reference) -> Result<Large, ImageError> {
    let body = state_file::decode(file, reference).map_err(ImageError::StateFile)?;
    let mut large = Large::decode(body).map_err(ImageError::Malformed)?;
    large.producers.filed(reference.name);
    Ok(large)
}

/// The epoch of the last batch, of those that the journal holds.
fn last_epoch(pending: &Pending) -> Epoch {
    let bytes = match &pending.bytes {
        PendingBytes::Journal(bytes) => walk::batches(bytes).flatten().last().map(|batch| batch.header.epoch),
        PendingBytes::Direct(_) => None, // its epoch began with a step in the journal
    };
    bytes.unwrap_or(0)
}

fn fold(large: &mut Large, change: &Change) -> Result<(), Malformed> {
    match change {
        Change::Checkpoint(delta) => large.apply(&Checkpoint::decode(delta)?),
        Change::Truncate(to) => {
            large.index.forget_behind(*to);
            large.producers.truncate(*to);
            Ok(())
        }
    }
}

/// A rolled segment whose base the checkpoints have reached is the active one.
fn begin_rolled(state: &mut PartitionState) {
    while state.rolls.first() == Some(&state.durable_end) {
        (state.segment, state.segment_bytes) = (state.rolls.remove(0), 0);
    }
}

/// The batches that a record brings, if any.
fn pending_of(record: &Record, payload: &Slice, sequence: Sequence) -> Result<Option<Pending>, ImageError> {
    Ok(match record {
        Record::Batches { base, end, payload: range, .. } => {
            let bytes = PendingBytes::Journal(part(payload, *range)?);
            Some(Pending { base: *base, end: *end, sequence, bytes })
        }
        Record::Extent { base, end, segment, place, bytes, crc, tail, .. } => {
            let tail = part(payload, *tail)?;
            let direct =
                DirectBytes { segment: *segment, place: *place, bytes: *bytes, crc: *crc, tail, written_end: *end, is_stated: false };
            Some(Pending { base: *base, end: *end, sequence, bytes: PendingBytes::Direct(direct) })
        }
        _ => None,
    })
}

fn part(payload: &Slice, range: PayloadRange) -> Result<Slice, ImageError> {
    let (start, len) = (range.start as usize, range.len as usize);
    match start.checked_add(len) {
        Some(end) if end <= payload.len() => Ok(payload.sub(start..end)),
        _ => Err(ImageError::Payload { range, payload: payload.len() }),
    }
}

/// Lets go of what lies below `end`.
fn release(pending: &mut Vec<Pending>, end: Offset) -> Result<(), ImageError> {
    pending.retain(|pending| pending.end > end);
    match pending.first_mut() {
        Some(first) if first.base < end => cut_front(first, end),
        _ => Ok(()),
    }
}

fn cut_front(pending: &mut Pending, offset: Offset) -> Result<(), ImageError> {
    let PendingBytes::Journal(bytes) = &mut pending.bytes else { return Err(ImageError::Inside { offset }) };
    let place = walk::place_of(bytes, offset).ok_or(ImageError::Inside { offset })?;
    *bytes = bytes.sub(place..bytes.len());
    pending.base = offset;
    Ok(())
}

fn cut_back(pending: &mut Pending, offset: Offset) -> Result<(), ImageError> {
    if offset >= pending.end {
        return Ok(());
    }
    if let PendingBytes::Journal(bytes) = &mut pending.bytes {
        let place = walk::place_of(bytes, offset).ok_or(ImageError::Inside { offset })?;
        *bytes = bytes.sub(0..place);
    }
    pending.end = offset;
    Ok(())
}

#[cfg(test)]
mod tests;
