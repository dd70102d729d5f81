//! Opening a journal for writing, after recovery and before anything is served.
//!
//! 1. What is to be cut, and the place behind the last entry, is read once more: a misread is no end of the journal. Everything that was
//!    read is synced: after a killed process it may be in the device's cache only.
//! 2. Free files of another size are removed, missing ones are made: written with zeros in full under another name, synced, renamed. On a
//!    full disk what the last file has left will do, as long as that is half of the reserve; more files are made once there is room.
//! 3. The new opening is written to one slot and synced, then to the other and synced: from then on either slot alone is enough. Each is
//!    read back: without it the entries to come would not count, and nothing in them says that they should.
//! 4. Only then is there a [`Journal`] whose entries bear the new incarnation and follow on the last live entry.
//!
//! What lay behind the cut is overwritten in time; until then its incarnation is not the one that the openings assign to its sequence.
//!
//! Invariants: no entry of an incarnation is written before the opening that records it is durable in both slots.
//! Knows nothing of what entries say.

use super::error::JournalError;
use super::files::{FileRoom, Files, Used};
use super::layout::{self, HEADER_BYTES, Header, Opening, Openings};
use super::recovery::{Recovered, TornReason, Verdict};
use super::writer::{Begin, Journal, Options};
use millrace_base::crc::crc32c;
use millrace_base::fault::Corrupt;
use millrace_base::limits::BLOCK;
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{Disk, File, OpenHow, Pool};
use std::collections::VecDeque;
use std::path::Path;

const ZEROS_BYTES: usize = 1 << 20;

/// Makes `recovered` durable and opens the journal in `folder`. `incarnation`: 64 fresh random bits.
///
/// # Errors
/// [`JournalError`]: nothing may be served from this journal. Calling it again after recovering again is safe.
pub fn prepare(
    disk: &mut dyn Disk,
    folder: &Path,
    recovered: &Recovered,
    incarnation: u64,
    options: Options,
    pool: &Pool,
) -> Result<Journal, JournalError> {
    options.check();
    let opening = Opening { incarnation, first: recovered.next };
    let openings = recovered.openings.with(opening, recovered.oldest_live);
    make_folder(disk, folder)?;
    confirm(disk, folder, recovered)?;
    let free = free_files(disk, folder, recovered, &options)?;
    let incarnation = if is_planted(Bug::KeepIncarnation) && !recovered.openings.list.is_empty() {
        recovered.openings.list.last().map_or(incarnation, |opening| opening.incarnation)
    } else {
        write_openings(disk, folder, &openings)?;
        incarnation
    };
    let begin = Begin {
        incarnation,
        next: recovered.next,
        chain: recovered.chain,
        oldest_live: recovered.oldest_live,
        extents_before: recovered.extents_before,
        extents_durable: recovered.extents_durable,
        openings: openings.list.len(),
    };
    Ok(Journal::new(options, pool.clone(), &begin, Files::new(used_files(recovered), free)))
}

/// Reads the end once more and makes durable what was read: before anything is done by it that cannot be undone, and before it is served.
///
/// # Errors
/// [`JournalError`]: the journal does not end where it was found to, or a file cannot be opened, read or synced.
pub fn confirm(disk: &mut dyn Disk, folder: &Path, recovered: &Recovered) -> Result<(), JournalError> {
    check_end(disk, folder, recovered)?;
    let writes = OpenHow { write: true, direct: true, ..OpenHow::default() };
    for file in &recovered.files {
        let path = folder.join(layout::file_name(file.slot));
        let handle = disk.open(&path, writes).map_err(JournalError::io("open", &path))?;
        let synced = if is_planted(Bug::ServeUnsynced) { Ok(()) } else { disk.sync(handle) };
        disk.close(handle);
        synced.map_err(JournalError::io("sync", &path))?;
    }
    Ok(())
}

/// That behind the last entry the disk still has what recovery found there: nothing that counts.
fn check_end(disk: &mut dyn Disk, folder: &Path, recovered: &Recovered) -> Result<(), JournalError> {
    let torn = match &recovered.verdict {
        Verdict::Clean => None,
        Verdict::Torn(torn) | Verdict::Damaged { torn: Some(torn), .. } => Some(torn),
        Verdict::Damaged { torn: None, .. } => None,
    };
    let (Some((slot, place)), reason) = (torn.map(|torn| (torn.slot, torn.place)).or(recovered.end), torn.map(|torn| torn.reason)) else {
        return Ok(());
    };
    let path = folder.join(layout::file_name(slot));
    let mut entry = vec![0; BLOCK];
    let read = read_at(disk, &path, place, &mut entry)?;
    let header = Header::decode(&entry[..read]).ok().filter(|header| header.sequence == recovered.next);
    let own = recovered.openings.incarnation_of(recovered.next);
    let misread = |found: String| {
        let expected = format!("what was there when it was read before: {reason:?}");
        Err(JournalError::Misread(Corrupt { file: path.display().to_string(), place, expected, found }))
    };
    match (reason, header) {
        (Some(TornReason::Body(_, before)), Some(header)) => {
            entry.resize(header.entry_bytes as usize, 0);
            let read = read_at(disk, &path, place, &mut entry)?;
            let crc = entry[..read].get(HEADER_BYTES..).map_or(0, crc32c);
            if crc == before { Ok(()) } else { misread(format!("CRC {crc:08x} of entry {}", header.sequence)) }
        }
        (Some(TornReason::Chain(_, before)), Some(header)) if header.chain == before => Ok(()),
        (Some(TornReason::Body(..) | TornReason::Chain(..)), _) => misread("another header, or none".to_owned()),
        (Some(TornReason::Missing) | None, Some(header)) if own == Some(header.incarnation) => {
            misread(format!("the header of entry {}", header.sequence))
        }
        (Some(TornReason::Missing) | None, _) => Ok(()),
    }
}

/// Bytes of a journal file; fewer at its end.
fn read_at(disk: &mut dyn Disk, path: &Path, place: u64, into: &mut [u8]) -> Result<usize, JournalError> {
    let file = disk.open(path, OpenHow { direct: true, ..OpenHow::default() }).map_err(JournalError::io("open", path))?;
    let read = disk.read(file, place, into);
    disk.close(file);
    read.map_err(JournalError::io("read", path))
}

/// The folder and the two above it (the data directory's `journal`, the data directory), so that their names are durable.
fn make_folder(disk: &mut dyn Disk, folder: &Path) -> Result<(), JournalError> {
    disk.make_directories(folder).map_err(JournalError::io("make", folder))?;
    for path in folder.ancestors().take(3).filter(|path| !path.as_os_str().is_empty()) {
        disk.sync_directory(path).map_err(JournalError::io("sync", path))?;
    }
    Ok(())
}

fn bytes_of(recovered: &Recovered, slot: u32) -> u64 {
    recovered.files.iter().find(|file| file.slot == slot).map_or(0, |file| file.bytes)
}

/// Files with entries that are needed, the one with the last entry at the end.
fn used_files(recovered: &Recovered) -> VecDeque<Used> {
    let mut used: Vec<Used> = recovered
        .needed
        .iter()
        .map(|(slot, (first, last))| {
            let file = FileRoom { slot: *slot, bytes: bytes_of(recovered, *slot) };
            Used { file, end: file.bytes, first: *first, last: *last }
        })
        .collect();
    let last = recovered.next - 1;
    if let Some((slot, end)) = recovered.end {
        let file = FileRoom { slot, bytes: bytes_of(recovered, slot) };
        let first = recovered.needed.get(&slot).map_or(last, |(first, _)| *first);
        used.retain(|used| used.file.slot != slot);
        used.push(Used { file, end, first, last });
    }
    used.sort_by_key(|used| (used.last, used.first));
    used.into()
}

/// The files that hold nothing needed, of the right size; makes what is missing.
fn free_files(disk: &mut dyn Disk, folder: &Path, recovered: &Recovered, options: &Options) -> Result<VecDeque<FileRoom>, JournalError> {
    for entry in disk.list(folder).map_err(JournalError::io("list", folder))? {
        if entry.name.ends_with(".unfinished") {
            let path = folder.join(&entry.name);
            disk.unlink(&path).map_err(JournalError::io("remove", &path))?;
        }
    }
    let is_used = |slot: u32| recovered.needed.contains_key(&slot) || recovered.end.is_some_and(|(last, _)| last == slot);
    let mut free = VecDeque::new();
    let mut slots: Vec<u32> = Vec::new();
    for file in &recovered.files {
        if is_used(file.slot) {
            slots.push(file.slot);
        } else if file.bytes == options.file_bytes {
            slots.push(file.slot);
            free.push_back(*file);
        } else {
            let path = folder.join(layout::file_name(file.slot));
            disk.unlink(&path).map_err(JournalError::io("remove", &path))?;
        }
    }
    while slots.len() < options.files_first as usize || free.is_empty() {
        let slot = (0..).find(|slot| !slots.contains(slot)).expect("fewer files than numbers");
        match make_file(disk, folder, slot, options.file_bytes) {
            Ok(()) => slots.push(slot),
            Err(JournalError::Io { error, .. }) if error.is_full() && can_do_without(recovered, &free, options) => {
                let path = folder.join(layout::unfinished_name(slot));
                disk.unlink(&path).map_err(JournalError::io("remove", &path))?;
                break;
            }
            Err(error) => return Err(error),
        }
        free.push_back(FileRoom { slot, bytes: options.file_bytes });
    }
    disk.sync_directory(folder).map_err(JournalError::io("sync", folder))?;
    Ok(free)
}

/// Whether what cannot be refused has room until a file comes free or the disk has room: in a free file, or behind the last entry.
fn can_do_without(recovered: &Recovered, free: &VecDeque<FileRoom>, options: &Options) -> bool {
    let behind_the_last = recovered.end.map_or(0, |(slot, end)| bytes_of(recovered, slot).saturating_sub(end));
    !free.is_empty() || behind_the_last >= options.reserve_bytes / 2
}

/// Makes one journal file of zeros, durable before it bears its name.
fn make_file(disk: &mut dyn Disk, folder: &Path, slot: u32, bytes: u64) -> Result<(), JournalError> {
    let path = folder.join(layout::unfinished_name(slot));
    let how = OpenHow { write: true, create: true, exclusive: false, direct: true };
    let file = disk.open(&path, how).map_err(JournalError::io("make", &path))?;
    let zeros = vec![0; ZEROS_BYTES.min(bytes as usize)];
    let mut place = 0;
    let mut done = Ok(());
    while done.is_ok() && place < bytes {
        let len = zeros.len().min((bytes - place) as usize);
        done = disk.write(file, place, &zeros[..len]);
        place += len as u64;
    }
    let done = done.and_then(|()| disk.sync(file));
    disk.close(file);
    done.map_err(JournalError::io("write", &path))?;
    let name = folder.join(layout::file_name(slot));
    disk.rename(&path, &name).map_err(JournalError::io("rename", &path))
}

/// One slot after the other, each durable before the next is touched: first the one that is older or unreadable.
fn write_openings(disk: &mut dyn Disk, folder: &Path, openings: &Openings) -> Result<(), JournalError> {
    let path = folder.join(layout::OPENINGS_NAME);
    let how = OpenHow { write: true, create: true, exclusive: false, direct: true };
    let file = disk.open(&path, how).map_err(JournalError::io("open", &path))?;
    let done = write_both(disk, file, folder, &path, openings);
    disk.close(file);
    done
}

fn write_both(disk: &mut dyn Disk, file: File, folder: &Path, path: &Path, openings: &Openings) -> Result<(), JournalError> {
    let failed = || JournalError::io("write", path);
    let mut slots = vec![0; 2 * BLOCK];
    disk.read(file, 0, &mut slots).map_err(failed())?;
    let (first, second) = slots.split_at(BLOCK);
    let version = |slot| Openings::decode(slot).map(|openings| openings.version);
    let order = if version(first) <= version(second) { [0, 1] } else { [1, 0] };
    for (turn, slot) in order.into_iter().enumerate() {
        let place = slot * BLOCK as u64;
        let written = Openings { version: openings.version + turn as u64, list: openings.list.clone() }.encode();
        disk.write(file, place, &written).and_then(|()| disk.sync(file)).map_err(failed())?;
        disk.sync_directory(folder).map_err(failed())?;
        let mut back = vec![0; BLOCK];
        disk.read(file, place, &mut back).map_err(failed())?;
        if back != written {
            let (expected, found) = ("the openings that were just written".to_owned(), "other bytes".to_owned());
            return Err(JournalError::File(Corrupt { file: path.display().to_string(), place, expected, found }));
        }
    }
    Ok(())
}
