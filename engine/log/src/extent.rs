//! Batches written straight to their segment: laid out for writing, and found again by recovery.
//!
//! 1. The write begins with the block in which the segment ends, so that its front is bytes that came before (the fragment of the extent
//!    before, or batches that stand in the journal), then the batches. Its whole blocks go to the segment.
//! 2. The fragment that fills no block goes into the journal entry, beside the extent: place, bytes and CRC-32C of the blocks.
//! 3. Recovery reads the blocks and compares the CRC, twice where they differ; [`crate::image::Recovered::take_extents`] decides what a
//!    difference means.
//!
//! Invariants: a write of blocks has one extent; each block of a segment is written by one extent only, or with the same bytes in front.
//! Knows nothing of who is told when an extent is durable.

use crate::image::{DirectBytes, ExtentFound};
use millrace_base::crc::crc32c;
use millrace_base::fault::Corrupt;
use millrace_base::limits::BLOCK;
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{Disk, File, IoError, OpenHow, Pool, Slice};
use std::path::Path;

/// Bytes on their way to a segment.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Of the first block.
    pub place: u64,
    /// Whole blocks, in memory that the device can read.
    pub blocks: Slice,
    /// What fills no block.
    pub fragment: Slice,
    /// The batches alone: the end of blocks and fragment together.
    pub batches: Slice,
    /// Of the blocks.
    pub crc: u32,
}

impl Layout {
    /// Lays `front`, which begins at byte `place` of the segment (a block's begin), and the batches behind it. `change` may patch the batches
    /// in their new place. None: together they fill no block.
    pub fn new(place: u64, front: &[&[u8]], batches: &[&[u8]], pool: &Pool, change: impl FnOnce(&mut [u8])) -> Option<Layout> {
        assert!(place.is_multiple_of(BLOCK as u64));
        let before: usize = front.iter().map(|part| part.len()).sum();
        let total = before + batches.iter().map(|part| part.len()).sum::<usize>();
        let whole = total / BLOCK * BLOCK;
        if whole == 0 {
            return None;
        }
        let mut space = pool.take(total);
        let memory = &mut space.unfrozen()[..total];
        let mut at = 0;
        for part in front.iter().chain(batches) {
            memory[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        change(&mut memory[before..]);
        let image = space.freeze(total);
        let blocks = image.sub(0..whole);
        let crc = crc32c(&blocks);
        Some(Layout { place, blocks, fragment: image.sub(whole..total), batches: image.sub(before..total), crc })
    }

    /// The byte of the segment behind the last.
    pub fn end(&self) -> u64 {
        self.place + (self.blocks.len() + self.fragment.len()) as u64
    }
}

/// Reads an extent whose batches begin at byte `begin` of the segment. Whoever serves from it syncs the file first: a process that was
/// killed may have left it in the device's cache only.
pub fn find(disk: &mut dyn Disk, path: &Path, extent: &DirectBytes, begin: u64, pool: &Pool) -> ExtentFound {
    let corrupt = |expected: String, found: String| Corrupt { file: path.display().to_string(), place: extent.place, expected, found };
    let expected = || format!("{} bytes with CRC {:08x}", extent.bytes, extent.crc);
    match read(disk, path, OpenHow::default(), extent, begin, pool) {
        Ok(Ok(bytes)) => ExtentFound::Whole(bytes),
        // Past the cache: a misread is not what is on the disk.
        Ok(Err(found)) => match read(disk, path, OpenHow { direct: true, ..OpenHow::default() }, extent, begin, pool) {
            Ok(Err(again)) if again == found => ExtentFound::Differs(corrupt(expected(), found)),
            Ok(Err(again)) => ExtentFound::Unreadable(corrupt(expected(), format!("{found}, and {again} in a second reading"))),
            Ok(Ok(_)) => ExtentFound::Unreadable(corrupt(expected(), format!("{found}, and nothing wrong in a second reading"))),
            Err(error) => ExtentFound::Unreadable(corrupt(expected(), error.to_string())),
        },
        Err(error) => ExtentFound::Unreadable(corrupt(expected(), error.to_string())),
    }
}

/// Its batches, or what is there instead.
fn read(
    disk: &mut dyn Disk,
    path: &Path,
    how: OpenHow,
    extent: &DirectBytes,
    begin: u64,
    pool: &Pool,
) -> Result<Result<Slice, String>, IoError> {
    let file = match disk.open(path, how) {
        Ok(file) => file,
        Err(IoError::NOT_FOUND) => return Ok(Err("no file".to_owned())),
        Err(error) => return Err(error),
    };
    let found = read_blocks(disk, file, extent, begin, pool);
    disk.close(file);
    found
}

fn read_blocks(disk: &mut dyn Disk, file: File, extent: &DirectBytes, begin: u64, pool: &Pool) -> Result<Result<Slice, String>, IoError> {
    let len = disk.len(file)?;
    let end = extent.place.checked_add(extent.bytes).filter(|end| *end <= len);
    let skip = begin.checked_sub(extent.place).and_then(|skip| usize::try_from(skip).ok());
    let (Some(end), Some(skip)) = (end, skip) else { return Ok(Err(format!("a file of {len} bytes"))) };
    let blocks = (end - extent.place) as usize;
    let total = blocks + extent.tail.len();
    if skip > total {
        return Ok(Err(format!("batches that begin behind them, at {begin}")));
    }
    let mut space = pool.take(total.max(1));
    let memory = &mut space.unfrozen()[..total];
    let read = disk.read(file, extent.place, &mut memory[..blocks])?;
    if read < blocks {
        return Ok(Err(format!("{read} bytes")));
    }
    let crc = crc32c(&memory[..blocks]);
    if crc != extent.crc && !is_planted(Bug::IgnoreExtentCrc) {
        return Ok(Err(format!("CRC {crc:08x}")));
    }
    memory[blocks..].copy_from_slice(&extent.tail);
    Ok(Ok(space.freeze(total).sub(skip..total)))
}
