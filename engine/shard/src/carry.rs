//! Carrying: what a partition still needs of the journal's oldest file is said again at its head.
//!
//! 1. Small pending batches and the state go into one entry. A state too large for the journal goes to a state file first; when that is
//!    durable, the journal names it. While little has changed since, the name and the changes are the state.
//! 2. Of a damaged partition what is known stands again with a note that it is damaged, once the damaged journal is copied aside.
//!
//! Invariants: a carried partition stands whole in one entry; no state names a segment that is to begin where it ends.

use crate::checkpoint::NOWHERE;
use crate::directory::After;
use crate::engine::{Engine, Turn};
use crate::lifecycle::Finish;
use crate::partition::Standing;
use crate::script::{Handle, Outcome, Step};
use crate::tail::Piece;
use millrace_base::ids::PartitionId;
use millrace_io::{IoError, OpenHow};
use millrace_log::journal::{NoRoom, Record, Urgency};
use millrace_log::partition_state::{Large, LargeAt, PartitionState, StateFile};
use millrace_log::paths;
use millrace_log::state_file::{INLINE_BYTES_MAX, Reference};

/// Large parts of a state go to the journal up to such a share of one of its files, so that those of many partitions have room in it.
const INLINE_SHARE: usize = 2048;

/// Large parts of a state beyond this go to a state file when only the journal's reserve is left, and always in a journal of small files.
const INLINE_BYTES_TIGHT: usize = 512;

/// More than a record takes in an entry, besides its payload: it stands there twice.
const RECORD_BYTES_MAX: usize = 96;

/// How long after a damaged journal could not be copied that is tried again.
const KEEP_PAUSE_MS: u64 = 1_000;

impl Engine {
    /// Appends a small partition again at the journal's head: its state, and, `with_batches`, those that no segment has. Without, they stay
    /// where they are: a state says nothing of batches above its durable end.
    pub fn carry(&mut self, t: &mut Turn<'_>, id: PartitionId, with_batches: bool) -> Result<(), NoRoom> {
        let Some(partition) = self.partitions.get(&id) else { return Ok(()) };
        let directory = usize::from(partition.directory);
        let is_live = |piece: &&Piece| with_batches && piece.sequence < self.directories[directory].journal().next_sequence();
        let pending: Vec<Piece> = partition.tail.pending().filter(is_live).cloned().collect();
        // When only the reserve is left it has to do for the states of all partitions. A full disk takes no files.
        let is_tight = self.directories[directory].journal().is_on_reserve() && !self.directories[directory].full;
        let file_bytes = self.directories[directory].journal().options().file_bytes as usize;
        let inline_max = if is_tight { 0 } else { file_bytes / INLINE_SHARE }.clamp(INLINE_BYTES_TIGHT, INLINE_BYTES_MAX);
        let (inline, file) = self.state_to_carry(id, inline_max);
        if let Some((reference, bytes)) = file {
            if !self.has_room_to_write(bytes.len()) {
                return Ok(());
            }
            // A file does not hold what is pending: that goes to the segment first, or the oldest entry would be needed for ever.
            if pending.is_empty() {
                self.carry_with_file(t, id, reference, &bytes, inline);
            } else if self.may_checkpoint(id) {
                self.checkpoint(t, id);
            }
            return Ok(());
        }
        self.lay_out_held(t.driver, t.now, directory);
        let total = inline.len() + pending.iter().map(|piece| piece.bytes.len()).sum::<usize>();
        // Batches do not go into the reserve: it has to hold what lets the oldest file go, of all partitions.
        if !pending.is_empty() && self.directories[directory].journal().room_in_all(Urgency::Data) < total {
            if self.may_checkpoint(id) {
                self.checkpoint(t, id);
            }
            return Ok(());
        }
        // Room for all of it in one entry: half a carried partition would be worth nothing.
        if self.directories[directory].journal().room_for(Urgency::Relief) < total + RECORD_BYTES_MAX * (pending.len() + 1) {
            let sealed = self.directories[directory].seal(t.now);
            self.sealed.extend(sealed.map(|sealed| (directory, sealed)));
        }
        let record = Record::State { partition: id, state: NOWHERE };
        let (sequence, _) = self.journal(t, directory, Urgency::Relief, record, &[&inline], Some(After::Carried(id)))?;
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.producers.forget_changes(); // they stand in the state that is in the journal now
        }
        for piece in pending {
            let record = Record::Batches { partition: id, base: piece.base, end: piece.end, payload: NOWHERE };
            self.journal(t, directory, Urgency::Relief, record, &[&piece.bytes], None)?;
        }
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.state_sequence = sequence;
        }
        Ok(())
    }

    /// What is known of a damaged partition stands again at the journal's head, with a note that it is damaged. Nothing else of it is written,
    /// and only if what the journal says of it now stands elsewhere too.
    pub fn carry_damaged(&mut self, t: &mut Turn<'_>, id: PartitionId) {
        let Some(partition) = self.partitions.get(&id) else { return };
        let directory = &self.directories[usize::from(partition.directory)];
        let (used, free) = directory.journal().pressure().files;
        let is_needed = free == 0 && used >= directory.journal().options().files_max as usize;
        if partition.may_return && !is_needed {
            return;
        }
        let index = usize::from(partition.directory);
        if directory.unkept.is_some() && !(is_needed && self.keep_evidence(t, index)) {
            return;
        }
        let Some(partition) = self.partitions.get(&id) else { return };
        if !partition.is_damaged() {
            if self.state_damaged(t, id, &[]) {
                log::error!("unserved partition {id} gives up its place in the journal; what is kept in `damaged` still has it");
            }
            return;
        }
        let present = partition.store.state_file.map(|file| file.name());
        let (inline, file) = self.whole_state(id).split(present, INLINE_BYTES_MAX);
        match file {
            Some((reference, bytes)) if self.has_room_to_write(bytes.len()) => self.carry_with_file(t, id, reference, &bytes, inline),
            Some(_) => {}
            None => drop(self.state_damaged(t, id, &inline)),
        }
    }

    /// Copies a damaged journal that could not be copied at start. Nothing else of it can go on before, so it is done at once. Whether it is.
    fn keep_evidence(&mut self, t: &mut Turn<'_>, index: usize) -> bool {
        let (here, directory) = (self.here, &mut self.directories[index]);
        let Some(first) = directory.unkept else { return true };
        if directory.keep_at > t.now {
            return false;
        }
        match crate::evidence::keep(t.driver.disk(), &directory.path, here, first) {
            Ok(()) => directory.unkept = None,
            Err(error) => {
                let path = directory.path.display();
                log::warn!("the damaged journal in {path} holds up its other partitions, and still cannot be copied: {error}");
                directory.keep_at = t.now.plus_ms(KEEP_PAUSE_MS);
            }
        }
        directory.unkept.is_none()
    }

    /// Appends batches, then the state (if there is one) and the note in one entry. Whether it is said.
    fn state_damaged(&mut self, t: &mut Turn<'_>, id: PartitionId, state: &[u8]) -> bool {
        let Some(partition) = self.partitions.get(&id) else { return false };
        let (directory, Some(note)) = (usize::from(partition.directory), partition.note.clone()) else { return false };
        let pending: Vec<Piece> = partition.tail.pending().cloned().collect();
        let note = note.encode();
        // All of it, or it would be begun again and again.
        let journal = self.directories[directory].journal();
        let needed = pending.iter().map(|piece| piece.bytes.len()).sum::<usize>() + state.len() + note.len();
        if journal.room_in_all(Urgency::Relief) < 2 * needed {
            return false;
        }
        for piece in pending {
            let record = Record::Batches { partition: id, base: piece.base, end: piece.end, payload: NOWHERE };
            if self.journal(t, directory, Urgency::Relief, record, &[&piece.bytes], None).is_err() {
                return false;
            }
        }
        self.lay_out_held(t.driver, t.now, directory);
        let total = state.len() + note.len() + 128;
        if self.directories[directory].journal().room_for(Urgency::Relief) < total {
            let sealed = self.directories[directory].seal(t.now);
            self.sealed.extend(sealed.map(|sealed| (directory, sealed)));
        }
        if self.directories[directory].journal().room_for(Urgency::Relief) < total {
            return false;
        }
        if !state.is_empty() {
            let record = Record::State { partition: id, state: NOWHERE };
            if self.journal(t, directory, Urgency::Relief, record, &[state], None).is_err() {
                return false;
            }
        }
        match self.journal(t, directory, Urgency::Relief, Record::Damaged { partition: id, reason: NOWHERE }, &[&note], None) {
            Ok((sequence, _)) => {
                if let Some(partition) = self.partitions.get_mut(&id) {
                    partition.state_sequence = sequence;
                }
                true
            }
            Err(_) => {
                // A state without its note would be taken for a whole one.
                self.fail_directory(t, directory, "the journal has no room for a note that it had room for".to_owned());
                false
            }
        }
    }

    /// The large parts go to a state file first; when it is durable the journal names it.
    fn carry_with_file(&mut self, t: &mut Turn<'_>, id: PartitionId, reference: Reference, bytes: &[u8], inline: Vec<u8>) {
        let image = self.memory.work.take(bytes.len()).push(bytes);
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let file = StateFile::of(reference, partition.store.segments.active());
        partition.producers.filed(reference.name);
        let path = paths::state(&partition.folder, reference.name);
        let (mut steps, synced_folders) = partition.make_folders();
        steps.extend(synced_folders.into_iter().map(Step::SyncDirectory));
        steps.extend([
            Step::Open { path, how: OpenHow { write: true, create: true, exclusive: false, direct: false } },
            Step::Truncate { file: Handle::Nth(0), len: 0 }, // one of this name that was never named may be there
            Step::Write { file: Handle::Nth(0), place: 0, from: image },
            Step::Sync(Handle::Nth(0)),
            Step::Close(Handle::Nth(0)),
            Step::SyncDirectory(partition.folder.clone()),
        ]);
        partition.busy = true;
        partition.store.is_writing_state = true;
        self.scripts.start(t.driver, steps, Finish::StateFile { partition: id, file, inline });
    }

    /// What came between the snapshot and now stands before the record in the journal, and a state replaces all that stands before it: so the
    /// record is made of the partition as it is now, and only the large parts are those of the file. Their changes since then stay to be told.
    pub fn state_file_written(
        &mut self,
        t: &mut Turn<'_>,
        id: PartitionId,
        file: StateFile,
        inline: &[u8],
        result: Result<Outcome, IoError>,
    ) {
        self.relieve_at_once(t, id, result.is_ok());
        let is_short = result.as_ref().err().is_some_and(|error| self.is_out_of_files(t.now, *error));
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.store.is_writing_state = false;
        let directory = usize::from(partition.directory);
        if self.directories[directory].is_failed() {
            return self.script_ended(t, id);
        }
        if let Err(error) = result.as_ref()
            && (error.is_full() || is_short)
        {
            log::debug!("a state file of {} cannot be written: {error}", partition.folder.display());
            self.directories[directory].full |= !is_short;
            return self.script_ended(t, id);
        }
        if let Err(error) = result {
            let reason = format!("a state file of {} failed: {error}", partition.folder.display());
            return self.device_failed(t, directory, reason);
        }
        if matches!(partition.standing, Standing::Deleting) {
            return self.script_ended(t, id); // a state behind a deletion would be the birth of another partition
        }
        partition.store.has_folder = true;
        if partition.note.is_some() {
            let is_stated = self.state_damaged(t, id, inline);
            if let Some(partition) = self.partitions.get_mut(&id).filter(|_| is_stated) {
                partition.store.state_file = Some(file); // the one before stays, as all that is damaged does
            }
            return self.script_ended(t, id);
        }
        if partition.store.is_at_roll() {
            return self.script_ended(t, id); // rolled since: no state can say so, and the next one is of the segment that begins here
        }
        let state = self.state(id, LargeAt::File(file.reference));
        let record = Record::State { partition: id, state: NOWHERE };
        match self.journal(t, directory, Urgency::Relief, record, &[&state.encode()], Some(After::Carried(id))) {
            Ok((sequence, _)) => {
                if let Some(partition) = self.partitions.get_mut(&id) {
                    let old = partition.store.state_file.replace(file);
                    partition.old_state_file = old.map(|old| (old.name(), sequence));
                    partition.state_sequence = sequence;
                }
            }
            Err(_) => log::debug!("partition {id} cannot be carried now: the journal is full"),
        }
        self.script_ended(t, id);
    }

    /// A state for the journal, and the state file to be written before it, if it takes one. Of a segment that fills, the file that is there
    /// is written again only when more has changed than goes to the journal.
    fn state_to_carry(&self, id: PartitionId, inline_max: usize) -> (Vec<u8>, Option<(Reference, Vec<u8>)>) {
        let partition = &self.partitions[&id];
        let (file, index) = (partition.store.state_file, partition.store.segments.active());
        let changes = file.and_then(|file| Some((file.reference, file.changes(index, &partition.producers, inline_max)?)));
        match changes {
            Some((reference, changes)) => (self.state(id, LargeAt::Changed(reference, changes)).encode(), None),
            None => self.whole_state(id).split(file.map(|file| file.name()), inline_max),
        }
    }

    /// The state that stands for all that was journaled so far.
    fn whole_state(&self, id: PartitionId) -> PartitionState {
        let partition = &self.partitions[&id];
        let (index, producers) = (partition.store.segments.active().clone(), partition.producers.clone());
        self.state(id, LargeAt::Here(Large { index, producers }))
    }

    fn state(&self, id: PartitionId, large: LargeAt) -> PartitionState {
        let partition = &self.partitions[&id];
        let mut consensus = Vec::new();
        partition.core.state().encode(&mut consensus);
        let summary = *partition.store.segments.active().summary();
        PartitionState {
            log_start: partition.core.log_start(),
            durable_end: summary.end,
            segment: summary.base,
            segment_bytes: summary.bytes,
            log_end: partition.core.log_end(),
            rolls: partition.store.rolls.iter().copied().collect(),
            consensus,
            large,
        }
    }
}
