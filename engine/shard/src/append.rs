//! Appending to partitions that are led here: batches get their offsets at once, and their place when the turn's entry is sealed.
//!
//! 1. A batch that is appended is held as it came, with its offsets, beside the others of its data directory: nothing is copied yet.
//! 2. Before anything else is journaled there, and when the entry is to be sealed, all that is held is laid out. What one partition has is
//!    one piece: straight to its segment if it is large ([`crate::direct`]), else into the entry, where it is patched.
//!
//! Invariants: what is held fits the entry being built; records of one directory are journaled in the order of what they tell.
//! Knows nothing of who waits for a batch.

use crate::directory::After;
use crate::engine::{Engine, Turn};
use millrace_base::batch::{self, Header};
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::ids::PartitionId;
use millrace_base::limits::BATCH_BYTES_MAX;
use millrace_base::offset::{Epoch, Offset, Position};
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{Driver, Slice};
use millrace_log::journal::{NoRoom, PayloadRange, Record, Urgency};

/// Journal bytes that a batch may take besides its own: its record, twice.
const AROUND_BYTES: usize = 256;

/// A batch that has its offsets and not yet its place.
pub struct Held {
    pub partition: PartitionId,
    pub batch: Slice,
    pub base: Offset,
    pub end: Offset,
    pub epoch: Epoch,
    /// The time that a LogAppendTime topic gives it.
    pub stamp: Option<WallMs>,
    /// The greatest timestamp of its records, where its header says another.
    pub max_timestamp: Option<WallMs>,
    pub urgency: Urgency,
}

/// What is held for one data directory.
#[derive(Default)]
pub struct Holding {
    pub batches: Vec<Held>,
    bytes: usize,
}

impl Holding {
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }
}

/// Whether a batch of so many bytes is no larger than any that is stored, nor than an entry of the journal.
pub fn fits_an_entry(batch_bytes: usize, entry_bytes_max: usize) -> bool {
    batch_bytes <= BATCH_BYTES_MAX && batch_bytes + 2 * AROUND_BYTES <= entry_bytes_max
}

/// Patches batches in their new place, `bytes`.
pub fn patch_all(held: &[Held], bytes: &mut [u8]) {
    let mut at = 0;
    for one in held {
        let copied = &mut bytes[at..at + one.batch.len()];
        let base = if is_planted(Bug::ReuseOffset) { held[0].base } else { one.base };
        batch::patch(copied, base, one.epoch);
        if let Some(now) = one.stamp {
            batch::stamp_append_time(copied, now);
        } else if let Some(max_timestamp) = one.max_timestamp {
            batch::set_max_timestamp(copied, max_timestamp);
        }
        at += one.batch.len();
    }
}

impl Engine {
    /// Appends one checked batch at the log end of a partition that is led here. Gives its first offset and the one after its last.
    /// Where `header` has another max timestamp than the batch the batch gets it, and a new CRC.
    ///
    /// # Errors
    /// The journal has no room: nothing has changed.
    pub fn append_batch(
        &mut self,
        t: &mut Turn<'_>,
        id: PartitionId,
        batch: Slice,
        mut header: Header,
        stamp: Option<WallMs>,
        urgency: Urgency,
    ) -> Result<(Offset, Offset), NoRoom> {
        let partition = self.partitions.get(&id).expect("the caller has found it");
        let (base, epoch) = (partition.core.log_end(), partition.core.epoch());
        let directory = usize::from(partition.directory);
        if batch.len() > BATCH_BYTES_MAX {
            return Err(NoRoom::TooLarge); // it could not be read again
        }
        self.roll_if_due(t, id, batch.len(), header.last_offset_delta + 1, urgency)?;
        self.make_room(t.driver, t.now, directory, batch.len() + AROUND_BYTES, urgency)?;
        let end = base + i64::from(header.last_offset_delta) + 1;
        let holding = &mut self.holding[directory];
        holding.bytes += batch.len() + AROUND_BYTES;
        let max_timestamp = (batch::max_timestamp(&batch) != header.max_timestamp).then_some(header.max_timestamp);
        holding.batches.push(Held { partition: id, batch, base, end, epoch, stamp, max_timestamp, urgency });
        header.base_offset = base;
        header.max_timestamp = stamp.unwrap_or(header.max_timestamp);
        let partition = self.partitions.get_mut(&id).expect("found above");
        partition.core.appended(end);
        partition.producers.append(&header, t.wall);
        partition.awaited.came(header.producer_id);
        partition.appended(&header, t.now);
        partition.traffic.produced_records += (end - base).unsigned_abs();
        partition.traffic.produced_bytes += header.size as u64;
        Ok((base, end))
    }

    /// Sees to it that one more batch fits the entry being built, with all that is held.
    pub fn make_room(
        &mut self,
        driver: &mut dyn Driver,
        now: Nanos,
        directory: usize,
        bytes: usize,
        urgency: Urgency,
    ) -> Result<(), NoRoom> {
        if bytes + AROUND_BYTES > self.directories[directory].journal().options().entry_bytes_max {
            return Err(NoRoom::TooLarge);
        }
        let fits = |engine: &Engine| engine.directories[directory].journal().room_for(urgency) >= engine.holding[directory].bytes + bytes;
        if fits(self) {
            return Ok(());
        }
        self.lay_out_held(driver, now, directory);
        if fits(self) {
            return Ok(());
        }
        if self.directories[directory].journal().room_in_all(urgency) < bytes {
            return Err(NoRoom::Journal); // nor behind this entry, which may be gathering
        }
        let sealed = self.directories[directory].seal(now);
        self.sealed.extend(sealed.map(|sealed| (directory, sealed)));
        if fits(self) { Ok(()) } else { Err(NoRoom::Journal) }
    }

    /// Gives every batch that is held for a directory its place.
    pub fn lay_out_held(&mut self, driver: &mut dyn Driver, now: Nanos, directory: usize) {
        if self.holding[directory].is_empty() {
            return;
        }
        let mut batches = std::mem::take(&mut self.holding[directory].batches);
        self.holding[directory].bytes = 0;
        // Room was found for each beside all that came before it: in another order there is room for what may use as much as the most urgent.
        let urgency = batches.iter().map(|held| held.urgency).max().unwrap_or(Urgency::Data);
        // A stable order by partition: each keeps its own, and none depends on another.
        batches.sort_by_key(|held| held.partition);
        for held in batches.chunk_by(|a, b| a.partition == b.partition) {
            if !self.append_directly(driver, now, held, urgency) && self.append_to_entry(now, directory, held, urgency).is_err() {
                let reason = "the journal has no room for batches that it had room for".to_owned();
                self.failing.push((directory, reason));
                break;
            }
        }
        batches.clear();
        self.holding[directory].batches = batches; // its memory is used again
    }

    /// Copies batches of one partition into the entry being built.
    fn append_to_entry(&mut self, now: Nanos, directory: usize, held: &[Held], urgency: Urgency) -> Result<(), NoRoom> {
        let (first, last) = (&held[0], &held[held.len() - 1]);
        let Some(partition) = self.partitions.get(&first.partition) else { return Ok(()) };
        let directs = partition.directs_begun;
        let record =
            Record::Batches { partition: partition.id, base: first.base, end: last.end, payload: PayloadRange { start: 0, len: 0 } };
        let after = After::Persisted { id: partition.id, position: Position::new(last.epoch, last.end), directs };
        let parts: Vec<&[u8]> = held.iter().map(|held| &*held.batch).collect();
        let (_, range) = self.journal_now(directory, urgency, record, &parts, Some(after), now)?;
        patch_all(held, self.directories[directory].journal_mut().payload_mut(range));
        Ok(())
    }
}
