//! Which bytes answer a fetch: pure, so that the shard only moves them.
//!
//! 1. [`plan`] takes bytes from memory while the cached pieces go on, or names one read of a segment file.
//! 2. [`trim`] finds in what was read the whole batches to send; or says that more must be read, and where.
//! 3. The caller goes on from the offset that each gives, with what is left of its bytes.
//!
//! The answer begins with the batch that holds the offset asked for, which may begin before it: clients skip. It ends before the bound
//! (commit or stable offset) and within the bytes asked for, except that the first batch is always whole (KIP-74) where that is asked.
//! A batch that does not begin where the one before ended, or whose header is not the one that the index remembers, is corrupt.
//!
//! Invariants: what is given is whole batches, gapless, below the bound.
//! Knows nothing of files, of the wire, or of how the bound came about. Does not compute CRCs: clients do.

use crate::index::{Entry, Index};
use crate::paths;
use crate::segments::{Lookup, Segments};
use crate::walk::{self, WalkError};
use millrace_base::batch::{BatchError, Header, outer_crc};
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use millrace_io::memory::Slice;
use std::ops::Range;

/// Bytes that one read of a segment asks for, unless a single batch needs more.
pub const WINDOW_BYTES: u64 = 256 << 10;

/// Slices in one plan.
pub const PIECES_MAX: usize = 64;

/// Whole batches in memory.
#[derive(Clone, Debug)]
pub struct Cached {
    pub base: Offset,
    pub end: Offset,
    pub bytes: Slice,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    pub from: Offset,
    /// Nothing at or above it is given.
    pub bound: Offset,
    pub max_bytes: usize,
    /// The first batch is given whole even if it is larger than `max_bytes`.
    pub whole_first: bool,
}

/// One read of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRead {
    pub segment: Offset,
    pub place: u64,
    /// Up to the window or the end of the segment's batches.
    pub len: u64,
    /// What the batch at `place` must be: from the index, or known from a walk before.
    pub expected: Expected,
}

/// What is known of the batch at the place that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    pub base: Offset,
    /// CRC of the outer header, if the index has it.
    pub outer_crc: Option<u32>,
}

/// How the fetch is answered, or goes on being answered.
#[derive(Clone, Debug)]
pub enum Plan {
    /// From memory; `next` is the offset behind, from which to ask again if bytes are left.
    Memory {
        pieces: Vec<Slice>,
        bytes: usize,
        next: Offset,
    },
    File(FileRead),
    /// The index of this closed segment is needed first.
    NeedsIndex {
        segment: Offset,
    },
    /// Nothing below the bound, or the first batch is too large and need not be whole.
    Nothing,
    /// Below the first segment: offsets that are gone.
    Below,
    /// Below the bound and yet neither in memory nor in a segment: an invariant is broken.
    Nowhere,
}

/// `cached`: ordered by offset, not overlapping; gaps are allowed. `index`: the cached index of a closed segment, if there is one.
pub fn plan<'a>(segments: &Segments, cached: &[Cached], ask: &Ask, index: impl FnOnce(Offset) -> Option<&'a Index>) -> Plan {
    if ask.from >= ask.bound {
        return Plan::Nothing;
    }
    let at = cached.partition_point(|piece| piece.end <= ask.from);
    if cached.get(at).is_some_and(|piece| piece.base <= ask.from) {
        return from_memory(&cached[at..], ask);
    }
    match segments.for_offset(ask.from, index) {
        Lookup::Place { segment, place, entry } => {
            let end = segments.holding(ask.from).map_or(place, |summary| summary.bytes);
            let expected = entry.map_or(Expected { base: segment, outer_crc: None }, |entry: Entry| Expected {
                base: segment + i64::from(entry.relative),
                outer_crc: Some(entry.outer_crc),
            });
            Plan::File(FileRead { segment, place, len: WINDOW_BYTES.min(end - place), expected })
        }
        Lookup::NeedsIndex { segment } => Plan::NeedsIndex { segment },
        Lookup::Below => Plan::Below,
        Lookup::Above => Plan::Nowhere,
    }
}

fn from_memory(cached: &[Cached], ask: &Ask) -> Plan {
    let (mut pieces, mut bytes, mut next) = (Vec::new(), 0, ask.from);
    for piece in cached.iter().take(PIECES_MAX) {
        let goes_on = pieces.is_empty() || piece.base == next;
        if !goes_on || next >= ask.bound {
            break;
        }
        let rest =
            Ask { from: next, max_bytes: ask.max_bytes - bytes.min(ask.max_bytes), whole_first: ask.whole_first && bytes == 0, ..*ask };
        // Memory was checked when it was taken in; a piece that cannot be walked is a bug, and is not served.
        let Ok(Selected::Some { range, next: behind }) = select(&piece.bytes, &rest, None) else { break };
        let all = range.end == piece.bytes.len();
        bytes += range.len();
        pieces.push(piece.bytes.sub(range));
        next = behind;
        if !all {
            break;
        }
    }
    if pieces.is_empty() { Plan::Nothing } else { Plan::Memory { pieces, bytes, next } }
}

/// What a read gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trimmed {
    /// Send these bytes of the window; `next` is the offset behind them.
    Send { range: Range<usize>, next: Offset },
    /// Read this instead: the batch that holds the offset is not whole in the window, or lies behind it.
    Again(FileRead),
    /// Nothing below the bound, or the first batch is too large and need not be whole.
    Nothing,
}

/// `bytes`: what was read for `read`, exactly `read.len` of them. `segment_bytes`: where the segment's batches end.
///
/// # Errors
/// Bytes that are not the batches expected there.
pub fn trim(bytes: &[u8], read: &FileRead, segment_bytes: u64, ask: &Ask) -> Result<Trimmed, Corrupt> {
    let file = paths::segment_name(read.segment);
    if bytes.len() as u64 != read.len {
        let (expected, found) = (format!("{} bytes", read.len), format!("{} bytes", bytes.len()));
        return Err(Corrupt { file, place: read.place, expected, found });
    }
    let selected = select(bytes, ask, Some(read.expected));
    let again = |at: usize, base: Offset, needed: usize| {
        let place = read.place + at as u64;
        let left = segment_bytes.saturating_sub(place);
        let enough = needed as u64 <= left && (at > 0 || needed > bytes.len());
        let len = WINDOW_BYTES.max(needed as u64).min(left);
        let next = FileRead { segment: read.segment, place, len, expected: Expected { base, outer_crc: None } };
        if enough { Ok(Trimmed::Again(next)) } else { Err(corrupt_cut(&file, place, needed, left)) }
    };
    match selected {
        Ok(Selected::Some { range, next }) => Ok(Trimmed::Send { range, next }),
        Ok(Selected::None) => Ok(Trimmed::Nothing),
        Ok(Selected::Cut { at, base, needed }) => again(at, base, needed),
        Err((at, error)) => Err(error.in_file(&file, read.place + at as u64)),
    }
}

fn corrupt_cut(file: &str, place: u64, needed: usize, left: u64) -> Corrupt {
    Corrupt { file: file.to_owned(), place, expected: format!("a batch of {needed} bytes"), found: format!("{left} bytes of batches") }
}

enum Selected {
    Some {
        range: Range<usize>,
        next: Offset,
    },
    None,
    /// The batch at `at` goes past the bytes; nothing before it is wanted.
    Cut {
        at: usize,
        base: Offset,
        needed: usize,
    },
}

/// The whole batches from the one that holds `ask.from` on.
fn select(bytes: &[u8], ask: &Ask, expected: Option<Expected>) -> Result<Selected, (usize, WalkError)> {
    let mut at = 0;
    let mut expected_base = expected.map(|expected| expected.base);
    let mut chosen: Option<Range<usize>> = None;
    let mut next = ask.from;
    while at < bytes.len() {
        let header = match walk::header_at(&bytes[at..]) {
            Ok(header) => header,
            Err(WalkError::Batch(BatchError::Short { needed, .. })) => {
                return Ok(cut_or(chosen, next, at, expected_base.unwrap_or(ask.from), needed));
            }
            Err(error) => return Err((at, error)),
        };
        prove(&header, &bytes[at..], expected_base, expected.filter(|_| at == 0)).map_err(|error| (at, error))?;
        expected_base = Some(header.next_offset());
        if header.next_offset() <= ask.from {
            at += header.size;
            continue;
        }
        let taken = chosen.as_ref().map_or(0, |range| range.len());
        let fits = taken + header.size <= ask.max_bytes || (taken == 0 && ask.whole_first);
        if header.next_offset() > ask.bound || !fits {
            break;
        }
        if at + header.size > bytes.len() {
            return Ok(cut_or(chosen, next, at, header.base_offset, header.size));
        }
        chosen = Some(chosen.map_or(at, |range| range.start)..at + header.size);
        next = header.next_offset();
        at += header.size;
    }
    match chosen {
        Some(range) => Ok(Selected::Some { range, next }),
        None if at >= bytes.len() => Ok(Selected::Cut { at, base: expected_base.unwrap_or(ask.from), needed: walk::WALK_BYTES }),
        None => Ok(Selected::None),
    }
}

fn cut_or(chosen: Option<Range<usize>>, next: Offset, at: usize, base: Offset, needed: usize) -> Selected {
    match chosen {
        Some(range) => Selected::Some { range, next },
        None => Selected::Cut { at, base, needed },
    }
}

fn prove(header: &Header, bytes: &[u8], base: Option<Offset>, expected: Option<Expected>) -> Result<(), WalkError> {
    if let Some(base) = base
        && base != header.base_offset
    {
        return Err(WalkError::Gap { expected: base, found: header.base_offset });
    }
    match expected.and_then(|expected| expected.outer_crc) {
        Some(crc) if crc != outer_crc(bytes) => Err(WalkError::Outer { expected: crc, found: outer_crc(bytes) }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
