//! Moving bytes and state out of the journal, so that its files can be used again.
//!
//! 1. When a journal grows past its mark, the partitions that hold its oldest file go first. Those with much pending are checkpointed:
//!    batches into the segment, a sync, then a `Checkpoint` record. Those with little are carried: their batches and their state are
//!    appended again at the journal's head, so that many small partitions do not cost a file sync each; when only the journal's reserve is
//!    left, they are checkpointed too. When only the state stands in the oldest file, it alone is carried, however much is pending behind it.
//! 2. A checkpoint stops at the base of a segment that is stated and not begun; there the active segment is closed: cut to its bytes,
//!    synced, its index written.
//! 3. The journal is released up to the oldest entry that any partition still needs.
//!
//! Invariants: one script a partition; a `Checkpoint` record follows the sync of what it states; memory goes after that record is durable.

use crate::directory::After;
use crate::engine::{Engine, Turn};
use crate::lifecycle::Finish;
use crate::memory::{CHECKPOINTS_MAX, SMALL_CHECKPOINTS_BYTES};
use crate::needed::Partitions;
use crate::open_files::GROW_PAUSE_MS;
use crate::partition::{Partition, Standing};
use crate::script::{Handle, Outcome, Step};
use crate::store::{FRONT_BYTES_MAX, WRITE_BYTES_MAX, Write};
use millrace_base::batch::HEADER_BYTES;
use millrace_base::ids::{DirectoryIndex, PartitionId};
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{IoError, OpenHow, Pool, Slice};
use millrace_log::journal::{NoRoom, PayloadRange, Record, Urgency};
use millrace_log::partition_state::Checkpoint;
use millrace_log::paths;
use std::collections::BTreeSet;
use std::time::Duration;

/// Pending bytes from which a partition is checkpointed rather than carried.
const CARRY_BYTES_MAX: usize = 16 << 10;

/// Pending bytes of a partition from which it is checkpointed without pressure: larger writes cost less.
const EAGER_BYTES: usize = 4 << 20;

/// What is written at a time outside the journal: a device takes requests in order, and an entry of the journal stands behind it.
const PIECE_BYTES: usize = 256 << 10;

/// How often the journals' fill is looked at.
const RELIEF_PAUSE: Duration = Duration::from_micros(500);

/// Journal files in use beyond which the oldest is relieved, or a quarter of those there may be: the more there are, the more of each of
/// many partitions goes into a segment at a time, and the fewer syncs that takes.
const FILES_USED_MAX: usize = 8;

pub const NOWHERE: PayloadRange = PayloadRange { start: 0, len: 0 };

/// One after the other, in pieces that a journal's entry does not wait long for.
fn write_steps(file: Handle, write: &Write) -> impl Iterator<Item = Step> {
    let len = write.bytes.len();
    (0..len).step_by(PIECE_BYTES).map(move |at| Step::Write {
        file,
        place: write.place + at as u64,
        from: write.bytes.sub(at..len.min(at + PIECE_BYTES)),
    })
}

/// Whether a write of this data directory that a full disk refused is kept, to be tried again.
fn waits_for_room(unwritten: &BTreeSet<PartitionId>, partitions: &Partitions, directory: DirectoryIndex) -> bool {
    let partitions = unwritten.iter().filter_map(|id| partitions.get(id));
    partitions.into_iter().any(|partition| partition.directory == directory && partition.store.unwritten.is_some())
}

/// Checkpoint scripts under way.
#[derive(Debug, Default)]
pub struct Checkpoints {
    large: usize,
    /// How many more of one write each, and the bytes of those.
    small: usize,
    small_bytes: usize,
    /// All of them, by data directory.
    of_directories: Vec<usize>,
}

impl Checkpoints {
    /// Whether one of this data directory is under way.
    pub fn any(&self, directory: usize) -> bool {
        self.of_directories.get(directory).is_some_and(|count| *count > 0)
    }

    /// Whether one of so many bytes may begin beside them; `hurry` is looked at when it makes a difference.
    fn have_room(&self, bytes: usize, hurry: impl FnOnce() -> bool) -> bool {
        let has_room_in_hurry = match bytes > PIECE_BYTES {
            true => self.large < CHECKPOINTS_MAX,
            false => self.small_bytes + bytes <= SMALL_CHECKPOINTS_BYTES,
        };
        self.large + self.small < CHECKPOINTS_MAX || (has_room_in_hurry && hurry())
    }

    fn begin(&mut self, directory: DirectoryIndex, write: &Write) {
        let directory = usize::from(directory);
        self.of_directories.resize(self.of_directories.len().max(directory + 1), 0);
        self.of_directories[directory] += 1;
        if write.bytes.len() > PIECE_BYTES {
            self.large += 1;
        } else {
            (self.small, self.small_bytes) = (self.small + 1, self.small_bytes + write.bytes.len());
        }
    }

    fn end(&mut self, directory: DirectoryIndex, write: &Write) {
        self.of_directories[usize::from(directory)] -= 1;
        if write.bytes.len() > PIECE_BYTES {
            self.large -= 1;
        } else {
            (self.small, self.small_bytes) = (self.small - 1, self.small_bytes - write.bytes.len());
        }
    }
}

impl Engine {
    /// A data directory without a write that waits for room is tried again: whether there is room, the next write tells.
    pub fn retry_full(&mut self) {
        for directory in self.directories.iter_mut().filter(|directory| directory.full) {
            // One that is written right now tells by itself; a checkpoint of another data directory says nothing of this one.
            let is_tried = self.partitions.values().any(|partition| partition.directory == directory.index && partition.busy);
            directory.full = waits_for_room(&self.unwritten, &self.partitions, directory.index) || is_tried;
        }
    }

    /// Whether a journal's oldest file is to be free soon.
    pub fn is_pressed(&self, index: usize) -> bool {
        let (used, free) = self.directories[index].journal().pressure().files;
        used > self.files_used_max(index) || (used > 1 && free == 0) || self.is_journal_short()
    }

    fn files_used_max(&self, index: usize) -> usize {
        (self.directories[index].journal().options().files_max as usize / 4).clamp(1, FILES_USED_MAX)
    }

    /// Starts the work that the journals' fill asks for.
    pub fn relieve_journals(&mut self, t: &mut Turn<'_>) {
        if self.relief_at > t.now {
            return;
        }
        self.relief_at = t.now + RELIEF_PAUSE;
        self.repeat_owed(t);
        for id in std::mem::take(&mut self.wants_checkpoint) {
            if self.may_checkpoint(id) {
                self.checkpoint(t, id);
            } else {
                self.wants_checkpoint.insert(id);
            }
        }
        for index in 0..self.directories.len() {
            if self.directories[index].is_failed() {
                continue;
            }
            self.grow_journal(t, index);
            self.relieve(t, index);
        }
    }

    /// A file of the journal may be free by what has just been stated: those that wait for it do not wait for the pause between two looks.
    pub fn relieve_for_stalled(&mut self, t: &mut Turn<'_>) {
        if !self.stalled.is_empty() {
            self.relief_at = t.now;
        }
    }

    /// A write for a partition has ended. When only the journal's reserve is left the next one begins in this turn, so that what they state
    /// goes into the same entry.
    pub fn relieve_at_once(&mut self, t: &mut Turn<'_>, id: PartitionId, is_written: bool) {
        if is_written && self.partitions.get(&id).is_some_and(|p| self.directories[usize::from(p.directory)].journal().is_on_reserve()) {
            self.relief_at = t.now;
        }
    }

    fn relieve(&mut self, t: &mut Turn<'_>, index: usize) {
        // The oldest file is worked on while others are free still, so that it is free before it is needed.
        let oldest_file = self.directories[index].journal().pressure().oldest_file;
        let Some((_, last)) = oldest_file.filter(|_| self.is_pressed(index)) else { return };
        for id in self.needed.up_to(index as DirectoryIndex, last, &mut self.partitions) {
            self.relieve_partition(t, id, last);
        }
        self.release(index);
    }

    /// Sees to it that a partition needs no entry up to `last` any more.
    fn relieve_partition(&mut self, t: &mut Turn<'_>, id: PartitionId, last: u64) {
        let Some(partition) = self.partitions.get(&id) else { return };
        let directory = usize::from(partition.directory);
        let is_being_carried = partition.state_sequence >= self.directories[directory].journal().next_sequence();
        if partition.note.is_some() && !partition.busy && !is_being_carried && !matches!(partition.standing, Standing::Deleting) {
            return self.carry_damaged(t, id);
        }
        // What is offline since the start has no state here that could stand for what the journal says of it.
        // And a state behind a deletion would be the birth of another partition.
        let has_no_state = matches!(partition.standing, Standing::Offline { .. } | Standing::Deleting);
        if partition.busy || is_being_carried || has_no_state {
            return;
        }
        if partition.store.is_at_roll() {
            // A state names no segment that is yet to be begun where it ends.
            if self.has_room_to_write(partition.store.segments.active().memory()) {
                self.close_segment(t, id);
            }
            return;
        }
        let holds_batches = partition.tail.oldest_sequence().is_some_and(|sequence| sequence <= last);
        if holds_batches && partition.tail.pending_bytes() > CARRY_BYTES_MAX {
            if self.may_checkpoint(id) {
                self.checkpoint(t, id);
            }
        } else if self.carry(t, id, holds_batches).is_err() {
            log::debug!("partition {id} cannot be carried now: the journal is full");
        }
    }

    /// States up to which entry the journal is not needed any more.
    fn release(&mut self, index: usize) {
        let journal = self.directories[index].journal();
        let durable = journal.durable();
        let needed = self.needed.oldest(index as DirectoryIndex, &mut self.partitions);
        debug_assert_eq!(needed, self.partitions.values().filter(|p| usize::from(p.directory) == index).map(|p| p.oldest_sequence()).min());
        let needed = needed.filter(|_| !is_planted(Bug::ReleaseTooMuch));
        let oldest = needed.unwrap_or(durable + 1).min(durable + 1);
        self.directories[index].journal_mut().release(oldest);
    }

    /// Whether there is memory to write so many bytes from that the journal does not hold.
    pub fn has_room_to_write(&self, bytes: usize) -> bool {
        self.memory.work.used() == 0 || self.memory.work.has_room(Pool::size_of(bytes))
    }

    /// Whether another checkpoint, of this partition, would not crowd out the journal's writes. One that is gone takes nothing.
    pub fn may_checkpoint(&self, id: PartitionId) -> bool {
        let has_room = |partition: &Partition| {
            let hurry = || self.is_behind(usize::from(partition.directory));
            self.checkpoints.have_room(partition.tail.pending_bytes(), hurry)
        };
        self.partitions.get(&id).is_none_or(|partition| has_room(partition))
    }

    /// Whether a journal fills faster than it is relieved.
    fn is_behind(&self, index: usize) -> bool {
        let journal = self.directories[index].journal();
        let room_min = (journal.options().file_bytes / 4) as usize;
        journal.pressure().files.0 > self.files_used_max(index) + 1
            || journal.room_in_all(Urgency::Data) < room_min
            || self.is_journal_short()
    }

    /// Writes a partition's pending batches into its segments, now or as soon as there is memory for it.
    pub fn checkpoint(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let pool = self.memory.work.clone();
        // What is durable already only needs to be said.
        self.state_directs(t, id, true);
        let Some(partition) = self.partitions.get(&id) else { return };
        let has_failed = self.directories[usize::from(partition.directory)].is_failed();
        if partition.busy || !partition.directs.is_empty() || has_failed {
            return;
        }
        // A full disk has refused a write of this directory, which is kept and tried again: others would be refused and kept too.
        let full = &self.directories[usize::from(partition.directory)];
        if full.full && waits_for_room(&self.unwritten, &self.partitions, full.index) {
            return;
        }
        let commit = partition.core.commit();
        let boundary = partition.store.boundary();
        let mut slices: Vec<Slice> = Vec::new();
        let (mut bytes, mut end) = (0, partition.store.planned_end());
        for piece in partition.tail.from(end) {
            // The first in any case; with it, what a chunk of memory that is used again holds.
            let is_enough = bytes > 0 && bytes + piece.bytes.len() > WRITE_BYTES_MAX - 2 * BLOCK;
            if piece.end > commit || piece.base >= boundary || is_enough {
                break;
            }
            bytes += piece.bytes.len();
            end = piece.end;
            slices.push(piece.bytes.clone());
        }
        if slices.is_empty() && !(partition.store.is_part_unwritten() && end <= commit) {
            if partition.store.is_at_roll() {
                self.close_segment(t, id);
            }
            return;
        }
        let has_room = self.has_room_to_write(bytes + BLOCK);
        let Some(partition) = self.partitions.get_mut(&id).filter(|_| has_room) else {
            self.wants_checkpoint.insert(id);
            return;
        };
        let (mut steps, file, synced_folders) = partition.open_active();
        let behind: Vec<Slice> = partition
            .tail
            .from(end)
            .take_while(|piece| piece.base < boundary)
            .map(|piece| piece.bytes.clone())
            .take(BLOCK / HEADER_BYTES + 1)
            .collect();
        let write = partition.store.plan(&slices, end, &behind, &pool);
        steps.extend(write_steps(file, &write));
        steps.extend((!is_planted(Bug::SkipSegmentSync)).then_some(Step::Sync(file)));
        steps.extend(synced_folders.into_iter().map(Step::SyncDirectory));
        partition.busy = true;
        self.checkpoints.begin(partition.directory, &write);
        self.scripts.start(t.driver, steps, Finish::Checkpoint(id, write));
    }

    /// The batches are durable in the segment: that is stated.
    pub fn checkpoint_written(&mut self, t: &mut Turn<'_>, id: PartitionId, write: Write, result: Result<Outcome, IoError>) {
        let partition = self.partitions.get(&id).expect("a partition stays while a script works on it");
        self.checkpoints.end(partition.directory, &write);
        self.relieve_at_once(t, id, result.is_ok());
        let is_short = result.as_ref().err().is_some_and(|error| self.is_out_of_files(t.now, *error));
        if result.as_ref().is_ok_and(|outcome| !outcome.opened.is_empty()) {
            self.segment_opened(t, id);
        }
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let directory = usize::from(partition.directory);
        if self.directories[directory].is_failed() {
            return self.script_ended(t, id);
        }
        match result {
            Ok(outcome) => {
                partition.active_opened(&outcome);
                partition.store.written();
                partition.store.index_up_to(write.end, &partition.tail);
                let index = partition.directory;
                // Another's write that waits for room is the one that tells.
                self.directories[directory].full &= waits_for_room(&self.unwritten, &self.partitions, index);
            }
            // The batches are safe in the journal: the same write is tried again until there is room, and produce is refused meanwhile.
            Err(error) if error.is_full() || is_short => {
                if !is_short {
                    self.directories[directory].has_filled_up();
                }
                if partition.remove_when_idle {
                    return self.script_ended(t, id); // its files go, which makes room
                }
                partition.store.unwritten = Some(write);
                self.unwritten.insert(id);
                return;
            }
            Err(error) => {
                let reason = format!("a checkpoint of {} failed: {error}", partition.folder.display());
                return self.device_failed(t, directory, reason);
            }
        }
        if is_planted(Bug::LoseCheckpoint) {
            return self.checkpoint_stated(t, id, write.end);
        }
        if self.state_checkpoint(t, id, After::Checkpointed(id, write.end)).is_err() {
            self.fail_directory(t, directory, "the journal has no room left to state a checkpoint; its reserve is spent".to_owned());
        }
    }

    /// Tries the writes again that a full disk refused, or for which there was no descriptor.
    pub fn retry_unwritten(&mut self, t: &mut Turn<'_>) {
        for id in std::mem::take(&mut self.unwritten) {
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            let Some(write) = partition.store.unwritten.take() else { continue };
            if self.directories[usize::from(partition.directory)].is_failed() {
                continue;
            }
            let path = partition.store.segment_path(partition.store.active());
            let mut steps: Vec<Step> = partition.store.file.take().map(|file| Step::Close(Handle::Open(file))).into_iter().collect();
            steps.extend([
                Step::MakeDirectories(partition.folder.clone()),
                Step::Open { path, how: OpenHow { write: true, create: true, exclusive: false, direct: true } },
            ]);
            steps.extend(write_steps(Handle::Nth(0), &write));
            steps.push(Step::Sync(Handle::Nth(0)));
            steps.extend(partition.folder.ancestors().take(3).map(|folder| Step::SyncDirectory(folder.to_owned())));
            self.checkpoints.begin(partition.directory, &write);
            self.scripts.start(t.driver, steps, Finish::Checkpoint(id, write));
        }
    }

    /// States that what is indexed of the active segment is durable in it.
    pub fn state_checkpoint(&mut self, t: &mut Turn<'_>, id: PartitionId, after: After) -> Result<(), NoRoom> {
        let Some(partition) = self.partitions.get_mut(&id) else { return Ok(()) };
        let index = partition.store.segments.active();
        let summary = *index.summary();
        if is_planted(Bug::ForgetSequence) {
            partition.producers.forget_changes();
        }
        let delta = Checkpoint::of(index, partition.config.index_interval_bytes as u32, &mut partition.producers, partition.store.stated);
        partition.store.stated = (summary.base, summary.bytes);
        let record =
            Record::Checkpoint { partition: id, end: summary.end, segment: summary.base, segment_bytes: summary.bytes, delta: NOWHERE };
        let directory = usize::from(partition.directory);
        self.journal(t, directory, Urgency::Relief, record, &[&delta.encode()], Some(after))?;
        Ok(())
    }

    /// The checkpoint is stated: the memory of its batches is only a cache now.
    pub fn checkpoint_stated(&mut self, t: &mut Turn<'_>, id: PartitionId, end: Offset) {
        self.relieve_for_stalled(t);
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.tail.checkpoint(end);
        partition.tail.evict_below(self.directories[usize::from(partition.directory)].uncached_below());
        self.cached.list(partition);
        self.direct_bytes -= partition.stated(Some(end));
        partition.busy = false;
        if partition.remove_when_idle {
            return self.deletion_stated(t, id);
        }
        if partition.store.is_at_roll() {
            return self.close_segment(t, id);
        }
        // Checkpoints one after the other would hold up direct appends, and what comes meanwhile would make for the next one.
        let eager = if partition.direct_waits { FRONT_BYTES_MAX } else { EAGER_BYTES };
        let more = partition.tail.pending_bytes() > eager || partition.store.is_behind_rolls();
        self.unlink_below(t, id);
        if more {
            self.checkpoint(t, id);
        }
    }

    /// Cuts the active segment to its bytes, writes its index, and begins the next one.
    pub fn close_segment(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let interval = partition.config.index_interval_bytes as u32;
        let path = partition.store.segment_path(partition.store.active());
        let bytes = partition.store.segments.active().summary().bytes;
        let file = partition.store.file.take();
        let index = partition.store.begin_next(interval);
        let base = index.summary().base;
        self.index_kept(id, base, index.memory());
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let encoded = index.encode();
        let mut space = self.memory.work.take(encoded.len());
        let image = space.push(&encoded);
        let mut steps = Vec::new();
        let segment = match file {
            Some(file) => Handle::Open(file),
            None => {
                steps.push(Step::Open { path, how: OpenHow { write: true, create: true, exclusive: false, direct: true } });
                Handle::Nth(0)
            }
        };
        let index_file = Handle::Nth(usize::from(file.is_none()));
        steps.extend([
            Step::Truncate { file: segment, len: bytes },
            Step::Sync(segment),
            Step::Close(segment),
            Step::Open {
                path: partition.store.index_path(index.summary().base),
                how: OpenHow { write: true, create: true, exclusive: false, direct: false },
            },
            Step::Truncate { file: index_file, len: 0 },
            Step::Write { file: index_file, place: 0, from: image },
            Step::Sync(index_file),
            Step::Close(index_file),
            Step::SyncDirectory(partition.folder.clone()),
        ]);
        partition.busy = true;
        self.scripts.start(t.driver, steps, Finish::Closed(id));
    }

    /// The index of a closed segment is in memory now. Those that came first go while they are too many.
    pub fn index_kept(&mut self, id: PartitionId, base: Offset, bytes: usize) {
        self.indexes.push_back((id, base, bytes));
        self.index_bytes += bytes;
        while self.index_bytes > self.memory.index_bytes && self.indexes.len() > 1 {
            let Some((id, base, memory)) = self.indexes.pop_front() else { return };
            self.index_bytes -= memory;
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.store.forget_index(base);
            }
        }
    }

    pub fn segment_closed(&mut self, t: &mut Turn<'_>, id: PartitionId, result: Result<Outcome, IoError>) {
        let is_short = result.as_ref().err().is_some_and(|error| self.is_out_of_files(t.now, *error));
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.busy = false;
        if let Err(error) = result.as_ref()
            && (error.is_full() || is_short)
        {
            log::warn!("the index of a segment in {} cannot be written: {error}; it is made again at a start", partition.folder.display());
        } else if let Err(error) = result {
            let directory = usize::from(partition.directory);
            let reason = format!("closing a segment of {} failed: {error}", partition.folder.display());
            return self.device_failed(t, directory, reason);
        }
        if partition.remove_when_idle {
            return self.deletion_stated(t, id);
        }
        self.unlink_below(t, id);
        if self.partitions.get(&id).is_some_and(|p| p.tail.pending().next().is_some() && p.store.is_behind_rolls()) {
            self.checkpoint(t, id);
        }
    }

    /// No script works on the partition's files any more.
    pub fn script_ended(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.busy = false;
        if partition.remove_when_idle {
            self.deletion_stated(t, id);
        } else if partition.store.is_at_roll() {
            self.close_segment(t, id);
        }
    }

    /// States a new segment before a batch that the newest one has no room for.
    pub fn roll_if_due(&mut self, t: &mut Turn<'_>, id: PartitionId, size: usize, records: i32, urgency: Urgency) -> Result<(), NoRoom> {
        let Some(partition) = self.partitions.get(&id) else { return Ok(()) };
        let base = partition.core.log_end();
        if !partition.store.is_roll_due(id, &partition.config, size, base + i64::from(records), t.now) {
            return Ok(());
        }
        self.state_roll(t, id, base, urgency)
    }

    /// A segment that is older than its topic allows is closed though nothing is appended.
    pub fn roll_if_old(&mut self, t: &mut Turn<'_>, id: PartitionId, force: bool) {
        let Some(partition) = self.partitions.get(&id) else { return };
        let base = partition.core.log_end();
        let due = force || partition.store.is_old(id, &partition.config, t.now);
        if due && partition.is_writable() && partition.store.newest_holds_something() && self.state_roll(t, id, base, Urgency::Data).is_ok()
        {
            self.checkpoint(t, id);
        }
    }

    fn state_roll(&mut self, t: &mut Turn<'_>, id: PartitionId, base: Offset, urgency: Urgency) -> Result<(), NoRoom> {
        if self.partitions[&id].store.has_rolls_max() {
            return Err(NoRoom::Journal);
        }
        let directory = usize::from(self.partitions[&id].directory);
        self.journal(t, directory, urgency, Record::Roll { partition: id, base }, &[], None)?;
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.store.rolled(base);
        }
        Ok(())
    }

    /// Unlinks segments that are wholly below the log start, which is durable.
    pub fn unlink_below(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(&id).filter(|partition| partition.note.is_none()) else { return };
        let settled = partition.core.marks_settled().log_start;
        let mut files = partition.store.cut_below(settled);
        let durable = self.directories[usize::from(partition.directory)].journal().durable();
        let old = partition.old_state_file.take_if(|(_, sequence)| *sequence <= durable);
        files.extend(old.map(|(name, _)| paths::state(&partition.folder, name)));
        if !files.is_empty() {
            self.scripts.start_removal(t.driver, files.into_iter().map(Step::Unlink).collect(), Finish::Removed);
        }
    }

    /// Makes another journal file in the background when it is wanted.
    fn grow_journal(&mut self, t: &mut Turn<'_>, index: usize) {
        if self.directories[index].full || self.open_files.grow_at > t.now {
            return;
        }
        let Some(slot) = self.directories[index].journal_mut().wants_file() else { return };
        let folder = paths::journal(&self.directories[index].path, self.here);
        let bytes = self.directories[index].journal().options().file_bytes;
        let unfinished = folder.join(millrace_log::journal::layout::unfinished_name(slot));
        let how = OpenHow { write: true, create: true, exclusive: false, direct: true };
        let mut steps = vec![Step::Open { path: unfinished.clone(), how }];
        let mut space = self.memory.work.take(PIECE_BYTES);
        space.unfrozen().fill(0);
        let zeros = space.freeze(PIECE_BYTES);
        for place in (0..bytes).step_by(PIECE_BYTES) {
            let len = (bytes - place).min(PIECE_BYTES as u64) as usize;
            steps.push(Step::Write { file: Handle::Nth(0), place, from: zeros.sub(0..len) });
        }
        steps.extend([
            Step::Sync(Handle::Nth(0)),
            Step::Rename { from: unfinished, to: folder.join(millrace_log::journal::layout::file_name(slot)) },
            Step::SyncDirectory(folder),
        ]);
        self.scripts.start(t.driver, steps, Finish::JournalFile { directory: index, slot });
    }

    pub fn journal_file_made(&mut self, t: &mut Turn<'_>, index: usize, slot: u32, result: Result<Outcome, IoError>) {
        match result {
            Ok(outcome) => {
                if let Some(file) = outcome.opened.first() {
                    self.directories[index].add_file(slot, *file);
                }
            }
            Err(error) if self.is_out_of_files(t.now, error) => {
                self.open_files.grow_at = t.now.plus_ms(GROW_PAUSE_MS);
                self.directories[index].journal_mut().file_failed(slot);
            }
            Err(error) if error.is_full() => {
                self.directories[index].has_filled_up();
                self.directories[index].journal_mut().file_failed(slot);
            }
            Err(error) => self.device_failed(t, index, format!("making a journal file failed: {error}")),
        }
    }
}
