//! The bytes of one segment, batch by batch.
//!
//! A closed segment of a stopped broker is mapped; any other is read in windows, since a broker may cut it.
//!
//! Invariants: memory <= one window, or one batch; a walk goes on by at least one batch header or ends.
//! Knows nothing of indexes or of where the log ends.

use crate::error::InspectError;
use crate::read_only::{ReadOnly, check_plain};
use millrace_base::batch::{self, BatchError, Header, place};
use millrace_base::fault::Corrupt;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_io::{Disk, IoError, Map, OpenHow};
use millrace_log::walk::{STORED_BYTES_MAX, WALK_BYTES, WalkError};
use std::ops::Range;
use std::path::{Path, PathBuf};

const WINDOW_BYTES: usize = 1 << 20;

/// Places in a segment are 32 bits, and room is reserved ahead.
pub const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64 + (64 << 20);

/// The largest batch of Kafka's that is believed: its own bound is a setting, and no one has more than this.
pub const KAFKA_BATCH_BYTES_MAX: usize = 128 << 20;

/// So that arithmetic on offsets cannot overflow.
const BASE_MAX: Offset = i64::MAX - (1 << 33);

pub struct Segment {
    path: PathBuf,
    len: u64,
    bytes: Bytes,
    batch_bytes_max: usize,
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

/// What stands at a place.
pub enum At<'a> {
    Batch {
        header: Header,
        bytes: &'a [u8],
        check: Result<(), BatchError>,
    },
    /// Up to the end.
    Zeros,
    Nothing(Corrupt),
}

/// Whether bytes look like a batch's header, by the fields that say most.
fn is_likely(bytes: &[u8], offsets: &Range<Offset>) -> bool {
    if bytes[place::MAGIC] != 2 {
        return false;
    }
    Header::parse(bytes).is_ok_and(|header| offsets.contains(&header.base_offset) && header.count >= 0 && header.last_offset_delta >= 0)
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
        Ok(Segment { path: path.to_owned(), len, bytes, batch_bytes_max: STORED_BYTES_MAX })
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
                    let mut read = disk.read(file, place, bytes);
                    if read.is_err() && wanted < WINDOW_BYTES {
                        // A part of it can be read perhaps.
                        bytes.truncate(wanted);
                        read = disk.read(file, place, bytes);
                    }
                    disk.close(file);
                    bytes.truncate(read?);
                    *start = place;
                }
                let from = (place - *start) as usize;
                Ok(&bytes[from.min(bytes.len())..(from + wanted).min(bytes.len())])
            }
        }
    }

    /// Batches of at most so many bytes are believed; others are damage.
    pub fn with_batches_up_to(self, batch_bytes_max: usize) -> Segment {
        Segment { batch_bytes_max, ..self }
    }

    fn header_at(&self, head: &[u8], left: usize) -> Result<Header, WalkError> {
        let header = Header::parse(head).map_err(WalkError::Batch)?;
        if header.size > self.batch_bytes_max {
            return Err(WalkError::Size { found: header.size });
        }
        if !(0..=BASE_MAX).contains(&header.base_offset) || header.last_offset_delta < 0 {
            return Err(WalkError::Offsets { base: header.base_offset, last_offset_delta: header.last_offset_delta });
        }
        let short = BatchError::Short { needed: header.size, found: left };
        if header.size <= left { Ok(header) } else { Err(WalkError::Batch(short)) }
    }

    /// What stands at `place` of a segment whose batches end at byte `end`.
    ///
    /// # Errors
    /// The system's.
    pub fn batch_at(&mut self, disk: &mut ReadOnly, place: u64, end: u64) -> Result<At<'_>, IoError> {
        let left = usize::try_from(end.saturating_sub(place)).unwrap_or(usize::MAX);
        let head = self.at(disk, place, WALK_BYTES.min(left))?.to_vec();
        let header = match self.header_at(&head, left) {
            Ok(header) => header,
            Err(error) => {
                let corrupt = error.in_file(&self.path.display().to_string(), place);
                let is_zero = head.iter().all(|byte| *byte == 0) && self.is_zero(disk, place..end)?;
                return Ok(if is_zero { At::Zeros } else { At::Nothing(corrupt) });
            }
        };
        let bytes = self.at(disk, place, header.size)?;
        let check = batch::check_stored(bytes).map(drop);
        Ok(At::Batch { header, bytes, check })
    }

    /// [`Segment::at`], or a block where so much cannot be read.
    fn near(&mut self, disk: &mut ReadOnly, place: u64, wanted: usize) -> Result<&[u8], IoError> {
        let wanted = if self.at(disk, place, wanted).is_ok() { wanted } else { wanted.min(BLOCK) };
        self.at(disk, place, wanted)
    }

    /// The first place in `range` at which a whole batch with a right CRC stands whose base offset is in `offsets`. What cannot be read is
    /// passed over.
    pub fn find_batch(&mut self, disk: &mut ReadOnly, range: Range<u64>, offsets: Range<Offset>) -> Option<u64> {
        let mut place = range.start;
        while place + WALK_BYTES as u64 <= range.end {
            let wanted = usize::try_from(range.end - place).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            let candidates: Vec<u64> = match self.near(disk, place, wanted) {
                Ok(bytes) => {
                    let is_candidate = |at: &usize| is_likely(&bytes[*at..], &offsets);
                    let starts = bytes.len().saturating_sub(WALK_BYTES - 1);
                    let found = (0..starts).filter(is_candidate).map(|at| place + at as u64).collect();
                    place += starts.max(1) as u64;
                    found
                }
                Err(_) => {
                    place = (place / BLOCK as u64 + 1) * BLOCK as u64;
                    continue;
                }
            };
            let is_whole = |at: &u64| matches!(self.batch_at(disk, *at, range.end), Ok(At::Batch { check: Ok(()), .. }));
            if let Some(found) = candidates.into_iter().find(is_whole) {
                return Some(found);
            }
        }
        None
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
            match self.batch_at(disk, place, range.end).map_err(io)? {
                At::Batch { header, bytes, check } => {
                    each(Piece::Batch { place, header, bytes, check })?;
                    place += header.size as u64;
                }
                At::Zeros => {
                    each(Piece::Zeros { place })?;
                    return Ok(place);
                }
                At::Nothing(corrupt) => {
                    each(Piece::Corrupt(corrupt))?;
                    return Ok(place);
                }
            }
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
