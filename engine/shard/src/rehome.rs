//! Journals for another number of shards: everything is recovered, checkpointed, and stated again in new journals before it is served.
//!
//! 1. Every partition's pending batches are written into its segments and synced. Doing it again after a crash writes the same bytes.
//! 2. New journals are made in `journal.next`, one entry each with the states of its partitions, synced.
//! 3. `journal` becomes `journal.old`, `journal.next` becomes `journal`; then the old ones are removed.
//!
//! Invariants: at every moment one complete set of journals is there: `journal`, or, between the two renames, `journal.next`.

use crate::boot::{BootError, PartitionBoot, write_file};
use crate::settle;
use millrace_base::clock::Nanos;
use millrace_base::ids::PartitionId;
use millrace_io::{Disk, IoError, OpenHow, Pool};
use millrace_log::journal::{self, Journal, Options, PayloadRange, Record, Urgency};
use millrace_log::partition_state::{PartitionState, StateFile};
use millrace_log::paths;
use millrace_log::state_file::INLINE_BYTES_MAX;
use std::path::{Path, PathBuf};

/// More than the records of a state take in an entry, besides their payload.
const RECORDS_BYTES: usize = 512;

/// What a state says in the journal itself in any case.
const INLINE_BYTES_MIN: usize = 256;

fn next_of(data: &Path) -> PathBuf {
    data.join("journal.next")
}

fn old_of(data: &Path) -> PathBuf {
    data.join("journal.old")
}

/// Ends a move that a crash has cut short.
///
/// # Errors
/// The disk's.
pub fn finish(disk: &mut dyn Disk, data: &Path) -> Result<(), IoError> {
    let present = paths::journals(data);
    let (has_present, has_next, has_old) = (is_there(disk, &present)?, is_there(disk, &next_of(data))?, is_there(disk, &old_of(data))?);
    if !has_present && has_next && has_old {
        disk.rename(&next_of(data), &present)?;
        disk.sync_directory(data)?;
    } else if has_present && has_next {
        remove(disk, &next_of(data))?;
    }
    if has_old {
        remove(disk, &old_of(data))?;
    }
    Ok(())
}

fn is_there(disk: &mut dyn Disk, path: &Path) -> Result<bool, IoError> {
    match disk.list(path) {
        Ok(_) => Ok(true),
        Err(IoError::NOT_FOUND) => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove(disk: &mut dyn Disk, folder: &Path) -> Result<(), IoError> {
    for entry in disk.list(folder)? {
        let path = folder.join(&entry.name);
        if entry.is_directory {
            remove(disk, &path)?;
        } else {
            disk.unlink(&path)?;
        }
    }
    disk.remove_directory(folder)
}

/// Moves the partitions of a data directory to `shards` journals.
///
/// # Errors
/// A partition that cannot be read, for it would be left behind; the disk's; the journals'.
pub fn rehome(
    disk: &mut dyn Disk,
    data: &Path,
    partitions: Vec<PartitionBoot>,
    shards: u16,
    options: Options,
    pools: &[Pool],
    entropy: &mut dyn FnMut() -> u64,
) -> Result<(), BootError> {
    let io = |error| BootError::Io { what: "move the journals of".to_owned(), path: data.to_owned(), error };
    let mut states: Vec<Vec<Settled>> = (0..shards).map(|_| Vec::new()).collect();
    for partition in partitions {
        let damaged = |reason: String| BootError::NotOurs {
            path: data.to_owned(),
            reason: format!("partition {} is damaged ({reason}); start with the number of shards it had", partition.id),
        };
        let mut found = partition.found.map_err(|reason| damaged(reason.to_string()))?;
        if let Some(damage) = found.damage {
            return Err(damaged(damage.reason));
        }
        settle::settle(disk, data, partition.id, &mut found).map_err(io)?;
        let (id, state, state_file) = (partition.id, settle::state(&found), found.image.state_file);
        states[usize::from(id.shard(shards))].push(Settled { id, state, state_file });
    }
    for (shard, states) in (0usize..).zip(states) {
        let folder = next_of(data).join(shard.to_string());
        let pool = &pools[shard];
        let fresh = journal::recover(disk, &folder, pool, 0)?;
        let mut journal = journal::prepare(disk, &folder, &fresh, entropy(), options, pool)?;
        write_states(disk, data, &folder, &mut journal, &states, Stand::Alone).map_err(io)?;
    }
    let present = paths::journals(data);
    disk.sync_directory(&next_of(data)).map_err(io)?;
    disk.rename(&present, &old_of(data)).map_err(io)?;
    disk.sync_directory(data).map_err(io)?;
    disk.rename(&next_of(data), &present).map_err(io)?;
    disk.sync_directory(data).map_err(io)?;
    remove(disk, &old_of(data)).map_err(io)
}

/// A partition to be stated.
pub struct Settled {
    pub id: PartitionId,
    pub state: PartitionState,
    /// The state file that a journal names now: it is not written to.
    pub state_file: Option<StateFile>,
}

/// Whether the journal that states are written to says anything of their partitions already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stand {
    Alone,
    /// It does, and all of that counts no more.
    InPlace,
}

/// States partitions of the data directory `data` in a journal, each in one entry, durable. Where there are many, more goes to state files: the
/// journal has one file for them.
///
/// # Errors
/// The disk's, or no room.
pub fn write_states(
    disk: &mut dyn Disk,
    data: &Path,
    folder: &Path,
    journal: &mut Journal,
    states: &[Settled],
    stand: Stand,
) -> Result<(), IoError> {
    let inline_max = (journal.options().file_bytes as usize / 4 / states.len().max(1)).clamp(INLINE_BYTES_MIN, INLINE_BYTES_MAX);
    for Settled { id, state, state_file } in states {
        let (bytes, file) = state.clone().split(state_file.map(|file| file.name()), inline_max);
        if let Some((reference, contents)) = file {
            let partition = paths::partition(data, *id);
            disk.make_directories(&partition)?;
            write_file(disk, &paths::state(&partition, reference.name), &contents)?;
            disk.sync_directory(&partition)?;
        }
        if journal.room_for(Urgency::Relief) < bytes.len() + RECORDS_BYTES {
            write_entry(disk, folder, journal)?;
        }
        let nowhere = PayloadRange { start: 0, len: 0 };
        let gone = (stand == Stand::InPlace).then_some(Record::Deleted { partition: *id });
        for (record, payload) in
            gone.map(|gone| (gone, &[][..])).into_iter().chain([(Record::State { partition: *id, state: nowhere }, &bytes[..])])
        {
            // Room for both was made: a deletion without the state would be one.
            journal.append(Urgency::Relief, record, payload).map_err(|_| IoError::DEVICE)?;
        }
    }
    write_entry(disk, folder, journal)
}

fn write_entry(disk: &mut dyn Disk, folder: &Path, journal: &mut Journal) -> Result<(), IoError> {
    let Some(sealed) = journal.seal(Nanos(0)) else { return Ok(()) };
    let path = folder.join(journal::layout::file_name(sealed.slot));
    let file = disk.open(&path, OpenHow { write: true, ..OpenHow::default() })?;
    let written = disk.write(file, sealed.place, &sealed.slice).and_then(|()| disk.sync(file));
    disk.close(file);
    written?;
    journal.completed(sealed.sequence, Nanos(0));
    Ok(())
}
