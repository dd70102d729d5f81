//! Journals for another number of shards: everything is recovered, checkpointed, and stated again in new journals before it is served.
//!
//! 1. Every partition's pending batches are written into its segments and synced. Doing it again after a crash writes the same bytes.
//! 2. New journals are made in `journal.next`, one entry each with the states of its partitions, synced.
//! 3. `journal` becomes `journal.old`, `journal.next` becomes `journal`; then the old ones are removed.
//!
//! Invariants: at every moment one complete set of journals is there: `journal`, or, between the two renames, `journal.next`.

use crate::boot::{BootError, PartitionBoot, PartitionFound};
use millrace_base::clock::Nanos;
use millrace_base::ids::PartitionId;
use millrace_io::{Disk, IoError, OpenHow, Pool};
use millrace_log::image::PendingBytes;
use millrace_log::journal::{self, Journal, NoRoom, Options, PayloadRange, Record, Urgency};
use millrace_log::partition_state::{Large, LargeAt, PartitionState};
use millrace_log::{paths, walk};
use std::path::{Path, PathBuf};

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
    let mut states: Vec<Vec<(PartitionId, PartitionState)>> = (0..shards).map(|_| Vec::new()).collect();
    for partition in partitions {
        let damaged = |reason: String| BootError::NotOurs {
            path: data.to_owned(),
            reason: format!("partition {} is damaged ({reason}); start with the number of shards it had", partition.id),
        };
        let found = partition.found.map_err(|reason| damaged(reason.to_string()))?;
        if let Some(damage) = found.damage {
            return Err(damaged(damage));
        }
        let state = checkpoint(disk, data, partition.id, found).map_err(io)?;
        states[usize::from(partition.id.shard(shards))].push((partition.id, state));
    }
    for (shard, states) in (0usize..).zip(states) {
        let folder = next_of(data).join(shard.to_string());
        let pool = &pools[shard];
        let fresh = journal::recover(disk, &folder, pool, 0)?;
        let mut journal = journal::prepare(disk, &folder, &fresh, entropy(), options, pool)?;
        write_states(disk, &folder, &mut journal, &states).map_err(io)?;
    }
    let present = paths::journals(data);
    disk.sync_directory(&next_of(data)).map_err(io)?;
    disk.rename(&present, &old_of(data)).map_err(io)?;
    disk.sync_directory(data).map_err(io)?;
    disk.rename(&next_of(data), &present).map_err(io)?;
    disk.sync_directory(data).map_err(io)?;
    remove(disk, &old_of(data)).map_err(io)
}

/// Writes what is pending into the active segment. Rolls that were stated are forgotten: the segment only grows larger than it would have.
fn checkpoint(disk: &mut dyn Disk, data: &Path, id: PartitionId, mut found: PartitionFound) -> Result<PartitionState, IoError> {
    let folder = paths::partition(data, id);
    let index = found.segments.active_mut();
    let place = index.summary().bytes;
    let mut bytes = Vec::new();
    for pending in &found.image.pending {
        if let PendingBytes::Journal(batches) = &pending.bytes {
            for batch in walk::batches(batches) {
                let batch = batch.map_err(|_| IoError::DEVICE)?;
                index.add(&batch.header, batch.bytes);
            }
            bytes.extend_from_slice(batches);
        }
    }
    if !bytes.is_empty() {
        disk.make_directories(&folder)?;
        let path = paths::segment(&folder, index.summary().base);
        let file = disk.open(&path, OpenHow { write: true, create: true, ..OpenHow::default() })?;
        let written = disk.write(file, place, &bytes).and_then(|()| disk.sync(file));
        disk.close(file);
        written?;
        for folder in folder.ancestors().take(3) {
            disk.sync_directory(folder)?;
        }
    }
    let mut producers = found.image.large.producers;
    for pending in &found.image.pending {
        if let PendingBytes::Journal(batches) = &pending.bytes {
            producers.append_all(batches, 0).map_err(|_| IoError::DEVICE)?;
        }
    }
    producers.commit(found.image.log_end);
    let mut consensus = Vec::new();
    found.consensus.encode(&mut consensus);
    let summary = *index.summary();
    Ok(PartitionState {
        log_start: found.image.log_start,
        durable_end: summary.end,
        log_end: summary.end,
        segment: summary.base,
        segment_bytes: summary.bytes,
        rolls: Vec::new(),
        consensus,
        large: LargeAt::Here(Large { index: index.clone(), producers }),
    })
}

fn write_states(
    disk: &mut dyn Disk,
    folder: &Path,
    journal: &mut Journal,
    states: &[(PartitionId, PartitionState)],
) -> Result<(), IoError> {
    for (id, state) in states {
        let (bytes, file) = state.clone().split(None);
        if let Some((name, contents)) = file {
            let data = folder.parent().and_then(Path::parent).ok_or(IoError::NOT_FOUND)?;
            let partition = paths::partition(data, *id);
            disk.make_directories(&partition)?;
            let file = disk.open(&paths::state(&partition, name), OpenHow { write: true, create: true, ..OpenHow::default() })?;
            let written = disk.truncate(file, 0).and_then(|()| disk.write(file, 0, &contents)).and_then(|()| disk.sync(file));
            disk.close(file);
            written?;
            disk.sync_directory(&partition)?;
        }
        let record = Record::State { partition: *id, state: PayloadRange { start: 0, len: 0 } };
        let mut appended = journal.append(Urgency::Relief, record.clone(), &bytes);
        if appended == Err(NoRoom::Entry) {
            write_entry(disk, folder, journal)?;
            appended = journal.append(Urgency::Relief, record, &bytes);
        }
        appended.map_err(|_| IoError::DEVICE)?;
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
