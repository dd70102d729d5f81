//! The bytes of one segment, batch by batch.
//!
//! A closed segment of a stopped broker is mapped; any other is read in windows, since a broker may cut it.
//!
//! Invariants: memory <= one window, or one batch; a walk goes on by at least one batch header or ends.
//! Knows nothing of indexes or of where the log ends.

use crate::error::InspectError;
use crate::read_only::{ReadOnly, check_plain};
use millrace_base::batch::{self, BatchError, Header};
use millrace_base::fault::Corrupt;
use millrace_io::{Disk, IoError, Map, OpenHow};
use millrace_log::walk::{self, WALK_BYTES};
use std::ops::Range;
use std::path::{Path, PathBuf};

const WINDOW_BYTES: usize = 1 << 20;

/// Places in a segment are 32 bits, and room is reserved ahead.
pub const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64 + (64 << 20);

pub struct Segment {
    path: PathBuf,
    len: u64,
    bytes: Bytes,
}

enum Bytes {
    Mapped(Map),
    Window { place: u64, bytes: Vec<u8> },
}

/// What stands at a place.
pub enum Piece<'a> {
    /// A batch; `check`: whether its bytes are those that its CRC was made of.
    Batch { place: u64, header: Header, bytes: &'a [u8], check: Result<(), BatchError> },
    /// Zeros up to the end: room that was not yet cut off.
    Zeros { place: u64 },
    /// Neither; the walk ends.
    Corrupt(Corrupt),
}

impl Segment {
    /// `is_closed`: no one changes it while this runs.
    ///
    /// # Errors
    /// The system's.
    pub fn open(disk: &mut ReadOnly, path: &Path, is_closed: bool) -> Result<Segment, IoError> {
        check_plain(path)?;
        let (len, bytes) = if is_closed {
            let map = Map::open(path)?;
            (map.len() as u64, Bytes::Mapped(map))
        } else {
            let file = disk.open(path, OpenHow::default())?;
            let len = disk.len(file);
            disk.close(file);
            (len?, Bytes::Window { place: 0, bytes: Vec::new() })
        };
        Ok(Segment { path: path.to_owned(), len, bytes })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// `wanted` bytes from `place` on, fewer at the end.
    fn at(&mut self, disk: &mut ReadOnly, place: u64, wanted: usize) -> Result<&[u8], IoError> {
        match &mut self.bytes {
            Bytes::Mapped(map) => {
                let from = usize::try_from(place).unwrap_or(usize::MAX).min(map.len());
                Ok(&map[from..(from + wanted).min(map.len())])
            }
            Bytes::Window { place: start, bytes } => {
                let inside = *start <= place && place + wanted as u64 <= *start + bytes.len() as u64;
                if !inside {
                    let file = disk.open(&self.path, OpenHow::default())?;
                    bytes.resize(wanted.max(WINDOW_BYTES), 0);
                    let read = disk.read(file, place, bytes);
                    disk.close(file);
                    bytes.truncate(read?);
                    *start = place;
                }
                let from = (place - *start) as usize;
                Ok(&bytes[from.min(bytes.len())..(from + wanted).min(bytes.len())])
            }
        }
    }

    /// Visits what stands in `range`, which begins with a batch. Gives the place of the first byte that belongs to no batch.
    ///
    /// # Errors
    /// The system's, or what `each` gives.
    pub fn walk(
        &mut self,
        disk: &mut ReadOnly,
        range: Range<u64>,
        each: &mut dyn FnMut(Piece<'_>) -> Result<(), InspectError>,
    ) -> Result<u64, InspectError> {
        let (mut place, path) = (range.start, self.path.clone());
        let io = |error| InspectError::Io { doing: "read", path: path.clone(), error };
        while place < range.end {
            let left = usize::try_from(range.end - place).unwrap_or(usize::MAX);
            let head = self.at(disk, place, WALK_BYTES.min(left)).map_err(io)?;
            let found = walk::header_at(head).and_then(|header| {
                let short = BatchError::Short { needed: header.size, found: left };
                if header.size <= left { Ok(header) } else { Err(walk::WalkError::Batch(short)) }
            });
            let header = match found {
                Ok(header) => header,
                Err(error) => {
                    let is_zero = head.iter().all(|byte| *byte == 0) && self.is_zero(disk, place..range.end).map_err(io)?;
                    let corrupt = error.in_file(&path.display().to_string(), place);
                    each(if is_zero { Piece::Zeros { place } } else { Piece::Corrupt(corrupt) })?;
                    return Ok(place);
                }
            };
            let bytes = self.at(disk, place, header.size).map_err(io)?;
            let check = batch::check_stored(bytes).map(drop);
            each(Piece::Batch { place, header, bytes, check })?;
            place += header.size as u64;
        }
        Ok(place)
    }

    fn is_zero(&mut self, disk: &mut ReadOnly, range: Range<u64>) -> Result<bool, IoError> {
        let mut place = range.start;
        while place < range.end {
            let wanted = usize::try_from(range.end - place).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            let bytes = self.at(disk, place, wanted)?;
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            place += bytes.len() as u64;
        }
        Ok(true)
    }

    /// Whether all bytes from `place` on are zeros.
    ///
    /// # Errors
    /// The system's.
    pub fn is_zero_from(&mut self, disk: &mut ReadOnly, place: u64) -> Result<bool, IoError> {
        self.is_zero(disk, place..self.len.min(SEGMENT_BYTES_MAX))
    }
}
