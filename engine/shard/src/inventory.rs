//! The segments in a partition's folder at start, held against what the journal says of them.
//!
//! 1. What the journal knows nothing of is removed: leftovers of deeds that were stated.
//! 2. Closed segments are known by the facts in front of their indexes; an index that is absent or damaged is made again.
//! 3. Of the active segment the part-filled block behind its last whole one is read, and proved: it is written again in front of what comes
//!    next, and what was misread would then be what there is.
//!
//! Invariants: segments meet; each is as long as its batches; none is scanned for an end.

use crate::boot::write_file;
use millrace_base::batch;
use millrace_base::fault::Corrupt;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_io::{Disk, IoError, OpenHow};
use millrace_log::image::Recovered;
use millrace_log::index::{self, Index, REBUILT_INTERVAL_BYTES, Rebuild, Summary};
use millrace_log::segments::{self, Segments};
use millrace_log::{paths, walk};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes in front of a part-filled block that are read for its proof.
const PROVED_BYTES_MAX: usize = 2 << 20;

/// The segments in a folder: closed ones by their indexes' facts, and the part-filled block of the active one.
pub fn read_segments(disk: &mut dyn Disk, folder: &Path, image: &Recovered) -> Result<(Segments, Vec<u8>), String> {
    let files = list_files(disk, folder)?;
    let inventory =
        segments::inventory(files.keys().map(String::as_str), image.log_start, image.segment, image.state_file.map(|file| file.name()));
    for leftover in &inventory.leftovers {
        if let Err(error) = disk.unlink(&folder.join(leftover)) {
            log::warn!("{}, a leftover, cannot be removed: {error}", folder.join(leftover).display());
        }
    }
    let mut closed = Vec::new();
    let ends = inventory.closed.iter().skip(1).copied().chain([image.segment]);
    for (base, end) in inventory.closed.iter().zip(ends) {
        let summary = closed_summary(disk, folder, *base, end).map_err(|error| error.to_string())?;
        check_len(&files, folder, &summary).map_err(|error| error.to_string())?;
        closed.push(summary);
    }
    let segments = Segments::restore(closed, image.large.index.clone()).map_err(|error| error.to_string())?;
    if segments.begin() > image.log_start {
        return Err(format!("its log starts at offset {}, but its first segment at {}", image.log_start, segments.begin()));
    }
    let part = proved_part(disk, &paths::segment(folder, image.segment), segments.active())?;
    Ok((segments, part))
}

/// The files of a partition's folder and their bytes.
pub fn list_files(disk: &mut dyn Disk, folder: &Path) -> Result<BTreeMap<String, u64>, String> {
    match disk.list(folder) {
        Ok(entries) => Ok(entries.into_iter().filter(|entry| !entry.is_directory).map(|entry| (entry.name, entry.len)).collect()),
        Err(IoError::NOT_FOUND) => Ok(BTreeMap::new()),
        Err(error) => Err(format!("{}: {error}", folder.display())),
    }
}

/// That a segment's file is as long as its batches.
pub fn check_len(files: &BTreeMap<String, u64>, folder: &Path, summary: &Summary) -> Result<(), Corrupt> {
    let len = files.get(&paths::segment_name(summary.base)).copied().unwrap_or(0);
    if len >= summary.bytes {
        return Ok(());
    }
    let file = paths::segment(folder, summary.base).display().to_string();
    Err(Corrupt { file, place: len, expected: format!("{} bytes of batches", summary.bytes), found: format!("{len} bytes") })
}

/// [`active_part`], of which two readings agree if its batches are not whole: what is damaged on the disk stays as it is, and a misread is an
/// error.
fn proved_part(disk: &mut dyn Disk, path: &Path, index: &Index) -> Result<Vec<u8>, String> {
    let part = active_part(disk, path, index.summary().bytes)?;
    let is_whole = if part.is_empty() { Some(true) } else { has_whole_batches(disk, path, index, &part) };
    if is_whole == Some(true) {
        return Ok(part);
    }
    let place = index.summary().bytes - part.len() as u64;
    let mut again = vec![0; part.len()];
    let read = read_range(disk, path, OpenHow { direct: true, ..OpenHow::default() }, place, &mut again);
    match read {
        Ok(_) if again == part => {
            if is_whole.is_some() {
                log::warn!("{} at byte {place}: the batches there are damaged and are not served", path.display());
            }
            Ok(part)
        }
        Ok(_) => Err(format!("{} at byte {place}: expected what was read before, found other bytes", path.display())),
        Err(error) => Err(format!("{} at byte {place}: {error}", path.display())),
    }
}

/// Whether `part`, the end of an active segment, is that of whole batches, from the last index entry in front of it on. None: that entry is
/// too far away to look.
fn has_whole_batches(disk: &mut dyn Disk, path: &Path, index: &Index, part: &[u8]) -> Option<bool> {
    let facts = index.summary();
    let place = facts.bytes - part.len() as u64;
    let entry = index.entries().iter().rfind(|entry| u64::from(entry.place) <= place)?;
    let (from, mut next) = (u64::from(entry.place), facts.base + i64::from(entry.relative));
    let before = usize::try_from(place - from).ok().filter(|before| *before <= PROVED_BYTES_MAX)?;
    let mut bytes = vec![0; before];
    if read_range(disk, path, OpenHow::default(), from, &mut bytes) != Ok(before) {
        return Some(false);
    }
    bytes.extend_from_slice(part);
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let outer = index.at_place(from + at as u64).map(|entry| entry.outer_crc);
        let Ok(header) = walk::header_of(rest, next, outer) else { return Some(false) };
        if batch::check_stored(rest).is_err() {
            return Some(false);
        }
        (at, next) = (at + header.size, header.next_offset());
    }
    Some(next == facts.end)
}

fn read_range(disk: &mut dyn Disk, path: &Path, how: OpenHow, place: u64, into: &mut [u8]) -> Result<usize, IoError> {
    let file = disk.open(path, how)?;
    let read = disk.read(file, place, into);
    disk.close(file);
    read
}

pub fn active_part(disk: &mut dyn Disk, path: &Path, bytes: u64) -> Result<Vec<u8>, String> {
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let place = bytes / BLOCK as u64 * BLOCK as u64;
    let mut part = vec![0; (bytes - place) as usize];
    let read = disk.open(path, OpenHow::default()).and_then(|file| {
        let len = disk.len(file);
        let read = disk.read(file, place, &mut part);
        disk.close(file);
        Ok((len?, read?))
    });
    match read {
        Ok((len, read)) if len >= bytes && read == part.len() => Ok(part),
        Ok((len, _)) => Err(format!("{}: expected at least {bytes} bytes, found {len}", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The facts of a closed segment, which ends at offset `end`, from its index. When that is absent or damaged, closing is repeated: the
/// segment is cut to its batches and the index made again.
fn closed_summary(disk: &mut dyn Disk, folder: &Path, base: Offset, end: Offset) -> Result<Summary, Corrupt> {
    match decoded_summary(disk, folder, base) {
        Some(summary) => Ok(summary),
        None => {
            let (name, segment) = (paths::index(folder, base).display().to_string(), paths::segment(folder, base));
            log::warn!("{name} is absent or damaged and is made again from its segment");
            let index = rebuild_index(disk, &segment, base, end)?;
            let closed = cut_segment(disk, &segment, index.summary().bytes).and_then(|()| write_index(disk, folder, &index));
            if let Err(error) = closed {
                log::warn!("{name} cannot be written: {error}");
            }
            Ok(*index.summary())
        }
    }
}

/// What the index of a closed segment says of it; None: it is absent or damaged.
pub fn decoded_summary(disk: &mut dyn Disk, folder: &Path, base: Offset) -> Option<Summary> {
    let path = paths::index(folder, base);
    let mut block = vec![0; BLOCK];
    let file = disk.open(&path, OpenHow::default()).ok()?;
    let read = disk.read(file, 0, &mut block);
    disk.close(file);
    index::decode_summary(&block, base, &path.display().to_string()).ok().filter(|_| read == Ok(BLOCK))
}

/// Takes away what stands behind a segment's last batch.
fn cut_segment(disk: &mut dyn Disk, segment: &Path, bytes: u64) -> Result<(), IoError> {
    let file = disk.open(segment, OpenHow { write: true, ..OpenHow::default() })?;
    let cut = match disk.len(file) {
        Ok(len) if len == bytes => Ok(()),
        Ok(_) => disk.truncate(file, bytes).and_then(|()| disk.sync(file)),
        Err(error) => Err(error),
    };
    disk.close(file);
    cut
}

/// Walks the batch headers of a closed segment that ends at offset `end`.
pub fn rebuild_index(disk: &mut dyn Disk, segment: &Path, base: Offset, end: Offset) -> Result<index::Index, Corrupt> {
    let name = segment.display().to_string();
    let unreadable =
        |place: u64, error: IoError| Corrupt { file: name.clone(), place, expected: "a segment".to_owned(), found: error.to_string() };
    let file = disk.open(segment, OpenHow::default()).map_err(|error| unreadable(0, error))?;
    let mut rebuild = Rebuild::up_to(base, REBUILT_INTERVAL_BYTES, end);
    let result = disk.len(file).map_err(|error| unreadable(0, error)).and_then(|bytes| {
        let mut piece = vec![0; 1 << 20];
        while rebuild.wanted() < bytes && !rebuild.is_whole() {
            let place = rebuild.wanted();
            let read = disk.read(file, place, &mut piece).map_err(|error| unreadable(place, error))?;
            if read == 0 {
                break;
            }
            rebuild.push(place, &piece[..read], &name)?;
        }
        rebuild.finish(bytes, &name)
    });
    disk.close(file);
    result
}

fn write_index(disk: &mut dyn Disk, folder: &Path, index: &index::Index) -> Result<(), IoError> {
    write_file(disk, &paths::index(folder, index.summary().base), &index.encode())?;
    disk.sync_directory(folder)
}
