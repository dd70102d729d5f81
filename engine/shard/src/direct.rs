//! Large batches, written straight to their segment: each byte once, where the journal would write it twice.
//!
//! 1. When a partition has at least `journal.direct.append.min.bytes` in a turn, they are laid out behind what its segment holds
//!    ([`crate::store::Store::lay_out`]) and the whole blocks are written there, synced. An extent in the turn's journal entry says so,
//!    beside the fragment that fills no block. It takes two flushes beside each other, which pays when much is on its way: it begins with twice
//!    those bytes on their way in the directory, and goes on, with an eighth of them in a turn, while there are as many as they are. What
//!    goes through the journal in between has to be taken along by the next, and everybody waits for that.
//! 2. The core is told when the entry and all direct appends of the partition before it are durable: [`crate::partition::HeldBack`].
//! 3. What is durable is stated by a checkpoint record, without a script. The last fragment stays in the journal until a checkpoint writes it.
//! 4. Room is reserved ahead; where there is none, and in front of a segment that is yet to be begun, batches go through the journal. The next
//!    direct append takes them along, in front of its own; for that, checkpoints do not follow one another unless the journal needs it.
//!
//! Blocks are not written with zeros before, although a durable write into written blocks takes a third less time: the zeros cost the device
//! as much as the journal's copy does. See engine/README.md.
//!
//! Invariants: no direct append while a checkpoint's write is under way, and none begins while one is; within a partition nothing is told
//! before all direct appends in front of it are durable.

use crate::append::{Held, patch_all};
use crate::directory::After;
use crate::engine::{Engine, Turn};
use crate::lifecycle::Finish;
use crate::partition::{Direct, HeldBack, Told};
use crate::script::{Outcome, Step};
use crate::store::FRONT_BYTES_MAX;
use crate::token::{self, Purpose};
use millrace_base::clock::Nanos;
use millrace_base::ids::PartitionId;
use millrace_base::limits::BLOCK;
use millrace_base::offset::{Offset, Position};
use millrace_io::{Driver, File, IoError, Op, Pool, Slice};
use millrace_log::journal::{PayloadRange, Record, SealedBatches, Urgency};

/// Bytes of direct appends of one partition from which they are stated.
const STATED_BYTES_MIN: usize = 4 << 20;

/// Memory for direct appends that are not stated, of the journal's share: one part in so many. Beyond half of it they are stated at once.
const MEMORY_SHARE: usize = 3;

/// Journal bytes that stating direct appends may take.
const STATEMENT_BYTES: usize = 64 << 10;

/// Who has gone straight to the segment goes on so with one part in so many of the bytes that it takes to begin.
const GO_ON_PART: usize = 8;

/// How long a data directory without room for direct appends is left alone.
const ROOM_RETRY_MS: u64 = 1_000;

/// A direct append's write.
pub struct ExtentFlight {
    partition: PartitionId,
    directory: usize,
    /// Among the extents of its journal.
    number: u64,
    file: File,
    place: u64,
    /// Of its batches.
    bytes: usize,
}

impl Engine {
    /// Writes what one partition has in this turn straight to its segment, if that is its way; else it is to go through the journal.
    pub fn append_directly(&mut self, driver: &mut dyn Driver, now: Nanos, held: &[Held], urgency: Urgency) -> bool {
        let (first, last) = (&held[0], &held[held.len() - 1]);
        let (id, base, end) = (first.partition, first.base, last.end);
        let bytes: usize = held.iter().map(|held| held.batch.len()).sum();
        let min = usize::try_from(self.settings.journal_direct_append_min_bytes).unwrap_or(usize::MAX);
        let Some(partition) = self.partitions.get_mut(&id) else { return false };
        let unsynced = self.directories[usize::from(partition.directory)].unsynced_lately();
        partition.goes_direct = match partition.goes_direct {
            true => unsynced >= min && bytes >= (min / GO_ON_PART).max(BLOCK),
            false => unsynced >= 2 * min && bytes >= min,
        };
        if !partition.goes_direct || self.direct_bytes + bytes > self.memory.journal.budget() / MEMORY_SHARE {
            return false;
        }
        let directory = usize::from(partition.directory);
        // What waits in the journal goes in front, and is in memory twice until it is stated.
        let front: usize = partition.tail.from(partition.store.planned_end()).map(|piece| piece.bytes.len()).sum();
        self.reserve_room(driver, now, id, front + bytes);
        let Some(partition) = self.partitions.get_mut(&id) else { return false };
        partition.direct_waits = false;
        let has_memory = self.memory.journal.has_room(Pool::size_of(bytes + front));
        if !has_memory || self.directories[directory].journal().room_for(urgency) < 2 * BLOCK {
            return false;
        }
        let batches: Vec<&[u8]> = held.iter().map(|held| &*held.batch).collect();
        let Some(layout) = partition.store.lay_out(&partition.tail, &batches, base, &self.memory.journal, |bytes| patch_all(held, bytes))
        else {
            partition.direct_waits = true;
            self.wants_checkpoint.extend((front > FRONT_BYTES_MAX).then_some(id));
            return false;
        };
        let file = partition.store.file.expect("nothing is laid out for a file that is not open");
        let directs = partition.directs_begun + 1;
        let record = Record::Extent {
            partition: id,
            base,
            end,
            segment: partition.store.active(),
            place: layout.place,
            bytes: layout.blocks.len() as u64,
            crc: layout.crc,
            tail: PayloadRange { start: 0, len: 0 },
        };
        let after = After::Persisted { id, position: Position::new(last.epoch, end), directs };
        if self.journal_now(directory, urgency, record, &[&layout.fragment], Some(after), now).is_err() {
            return false;
        }
        let number = self.directories[directory].begin_extent(SealedBatches { partition: id, base, end, bytes: layout.batches.clone() });
        let key = self.extent_key;
        self.extent_key = self.extent_key.wrapping_add(1);
        let partition = self.partitions.get_mut(&id).expect("found above");
        partition.store.plan_direct(&layout, end);
        partition.directs_begun = directs;
        partition.directs.push_back(Direct { key, bytes: layout.place + layout.blocks.len() as u64, is_done: false });
        partition.unstated.push_back((end, bytes));
        self.direct_bytes += bytes;
        self.extents.insert(key, ExtentFlight { partition: id, directory, number, file, place: layout.place, bytes });
        driver.submit(Op::Write { file, place: layout.place, from: layout.blocks, synced: true }, token::pack(Purpose::Extent, key, 0));
        true
    }

    /// A direct append's write has completed.
    pub fn extent_completed(&mut self, t: &mut Turn<'_>, key: u32, result: Result<u32, IoError>, blocks: Slice) {
        let Some(flight) = self.extents.get_mut(&key) else { return };
        match result {
            Ok(written) if written > 0 && (written as usize) < blocks.len() => {
                // Whole blocks only: the device reads memory that is aligned.
                let done = written as usize / BLOCK * BLOCK;
                flight.place += done as u64;
                let op = Op::Write { file: flight.file, place: flight.place, from: blocks.sub(done..blocks.len()), synced: true };
                return t.driver.submit(op, token::pack(Purpose::Extent, key, 0));
            }
            Ok(written) if written as usize == blocks.len() => {}
            Ok(_) | Err(_) => {
                let directory = flight.directory;
                self.extents.remove(&key);
                let error = result.err().unwrap_or(IoError::DEVICE);
                return self.device_failed(t, directory, format!("a direct append failed: {error}"));
            }
        }
        let flight = self.extents.remove(&key).expect("seen above");
        if self.directories[flight.directory].is_failed() {
            return;
        }
        self.directories[flight.directory].extent_durable(flight.number, flight.bytes, t.now);
        let Some(partition) = self.partitions.get_mut(&flight.partition) else { return };
        if let Some(direct) = partition.directs.iter_mut().find(|direct| direct.key == key) {
            direct.is_done = true;
        }
        while let Some(direct) = partition.directs.pop_front_if(|direct| direct.is_done) {
            partition.directs_durable += 1;
            partition.store.direct_durable(direct.bytes);
        }
        self.release_held(t, flight.partition);
        self.state_directs(t, flight.partition, false);
        self.directs_ended(t, flight.partition);
    }

    /// Tells the core of a partition what its direct appends held back.
    fn release_held(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        while let Some(partition) = self.partitions.get_mut(&id) {
            match partition.released() {
                Some(Told::Persisted(position)) => partition.core.persisted(position),
                Some(Told::Saved(sequence)) => partition.core.saved(sequence),
                None => return,
            }
            self.run_core(t, id);
        }
    }

    /// The journal entry of `what` is durable: the core is told when its direct appends are too.
    pub fn tell_core(&mut self, t: &mut Turn<'_>, id: PartitionId, directs: u64, what: Told) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.held.push_back(HeldBack { directs, what });
        let direct_waits = partition.direct_waits;
        self.release_held(t, id);
        // A segment that is stated closed is closed with the commit of its last batch: until then, what comes waits to go in front.
        if direct_waits {
            self.directs_ended(t, id);
        }
    }

    /// When no direct append of a partition is on its way, what waited for its files to be left alone goes on.
    fn directs_ended(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(partition) = self.partitions.get(&id) else { return };
        if !partition.directs.is_empty() || partition.busy {
            return;
        }
        if partition.remove_when_idle {
            self.deletion_stated(t, id);
        } else if partition.store.is_behind_rolls() {
            self.checkpoint(t, id);
        }
    }

    /// States the direct appends that are durable, if they are many enough or `now`.
    pub fn state_directs(&mut self, t: &mut Turn<'_>, id: PartitionId, now: bool) {
        let is_pressed = self.direct_bytes > self.memory.journal.budget() / MEMORY_SHARE / 2;
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let (directory, indexed) = (usize::from(partition.directory), partition.store.segments.active().summary().end);
        let end = partition.store.statable(&partition.tail, partition.core.commit());
        let bytes: usize = partition.tail.from(indexed).take_while(|piece| piece.end <= end).map(|piece| piece.bytes.len()).sum();
        let min = if now || is_pressed { 1 } else { STATED_BYTES_MIN };
        let has_room = self.directories[directory].journal().room_for(Urgency::Relief) >= STATEMENT_BYTES;
        if bytes < min || !has_room || !partition.is_writable() || partition.store.is_writing_state {
            return;
        }
        partition.store.index_up_to(end, &partition.tail);
        if self.state_checkpoint(t, id, After::Stated(id, end)).is_err() {
            self.fail_directory(t, directory, "the journal has no room left to state a checkpoint; its reserve is spent".to_owned());
        }
    }

    /// Direct appends below `end` are stated: their memory is only a cache now.
    pub fn directs_stated(&mut self, t: &mut Turn<'_>, id: PartitionId, end: Offset) {
        self.relieve_for_stalled(t);
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.tail.checkpoint(end);
        partition.tail.evict_below(self.directories[usize::from(partition.directory)].uncached_below());
        self.cached.list(partition);
        self.direct_bytes -= partition.stated(Some(end));
        if partition.store.is_at_roll() && !partition.busy {
            self.close_segment(t, id);
        }
    }

    /// Gives the active segment room for the next direct appends, before they need it.
    fn reserve_room(&mut self, driver: &mut dyn Driver, now: Nanos, id: PartitionId, size: usize) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let directory = usize::from(partition.directory);
        let Some(bytes) = partition.store.wants_room(size, partition.config.segment_bytes as u64) else { return };
        if partition.busy || self.directories[directory].full || self.directories[directory].direct_from > now {
            return;
        }
        let (mut steps, file, synced_folders) = partition.open_active();
        steps.extend([Step::Allocate { file, len: bytes }, Step::Sync(file)]);
        steps.extend(synced_folders.into_iter().map(Step::SyncDirectory));
        partition.busy = true;
        self.scripts.start(driver, steps, Finish::Allocated { partition: id, bytes });
    }

    /// Room was reserved, or there is none.
    pub fn room_reserved(&mut self, t: &mut Turn<'_>, id: PartitionId, bytes: u64, result: Result<Outcome, IoError>) {
        let is_short = result.as_ref().err().is_some_and(|error| self.is_out_of_files(t.now, *error));
        if result.as_ref().is_ok_and(|outcome| !outcome.opened.is_empty()) {
            self.segment_opened(t, id);
        }
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let directory = usize::from(partition.directory);
        match result {
            Ok(outcome) => {
                partition.active_opened(&outcome);
                partition.store.allocated(bytes);
            }
            // Without room, or on a file system that reserves none, the journal takes all; it says so if it has no room either.
            Err(error) if error.is_full() || is_short => self.directories[directory].direct_from = t.now.plus_ms(ROOM_RETRY_MS),
            Err(IoError::NOT_SUPPORTED) => self.directories[directory].direct_from = millrace_base::clock::Nanos::NEVER,
            Err(error) => {
                let reason = format!("reserving room for a segment of {} failed: {error}", partition.folder.display());
                return self.device_failed(t, directory, reason);
            }
        }
        self.script_ended(t, id);
    }
}
