//! Going from batch to batch through bytes of a segment or of a journal record, by their headers.
//!
//! 1. [`header_at`] reads one header and refuses what no stored batch can say, so that arithmetic on it cannot overflow; [`header_of`] also
//!    refuses another batch than the one expected.
//! 2. [`batches`] walks whole batches back to back.
//!
//! Invariants: 61 <= size <= [`STORED_BYTES_MAX`]; 0 <= base offset < next offset.
//! Knows nothing of files; does not compute the batches' own CRCs (the inspector and recovery do).

use crate::bytes::OFFSET_MAX;
use millrace_base::batch::{BatchError, HEADER_BYTES, Header, outer_crc};
use millrace_base::fault::Corrupt;
use millrace_base::limits::BATCH_BYTES_MAX;
use millrace_base::offset::Offset;
use std::fmt;

/// The largest batch that any file of ours holds: what a topic may be set to accept, and room for its header.
pub const STORED_BYTES_MAX: usize = BATCH_BYTES_MAX + 4096;

/// Why the bytes at a place are not a batch of this log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkError {
    Batch(BatchError),
    /// Larger than any batch that is stored.
    Size {
        found: usize,
    },
    /// Offsets that are negative, too large, or that end before they begin.
    Offsets {
        base: Offset,
        last_offset_delta: i32,
    },
    /// The batch does not begin where the one before ends.
    Gap {
        expected: Offset,
        found: Offset,
    },
    /// The header bytes that no batch CRC covers are not those that the index remembers.
    Outer {
        expected: u32,
        found: u32,
    },
}

impl WalkError {
    /// The same in terms of a file.
    pub fn in_file(self, file: &str, place: u64) -> Corrupt {
        let (expected, found) = match self {
            WalkError::Batch(error) => ("a record batch".to_owned(), error.to_string()),
            WalkError::Size { found } => (format!("a batch of at most {STORED_BYTES_MAX} bytes"), format!("{found} bytes")),
            WalkError::Offsets { base, last_offset_delta } => {
                ("offsets that grow".to_owned(), format!("base offset {base}, last offset delta {last_offset_delta}"))
            }
            WalkError::Outer { expected, found } => (format!("header bytes with CRC {expected:#010x}"), format!("CRC {found:#010x}")),
            WalkError::Gap { expected, found } => (format!("base offset {expected}"), format!("base offset {found}")),
        };
        Corrupt { file: file.to_owned(), place, expected, found }
    }
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Corrupt { expected, found, .. } = self.in_file("", 0);
        write!(f, "expected {expected}, found {found}")
    }
}

impl std::error::Error for WalkError {}

/// The header at the front of `bytes`, which may end before the batch does.
///
/// # Errors
/// `Batch` with `Short` when the header itself is cut; anything that no stored batch can say.
pub fn header_at(bytes: &[u8]) -> Result<Header, WalkError> {
    let header = Header::parse(bytes).map_err(WalkError::Batch)?;
    if header.size > STORED_BYTES_MAX {
        return Err(WalkError::Size { found: header.size });
    }
    if !(0..=OFFSET_MAX).contains(&header.base_offset) || header.last_offset_delta < 0 {
        return Err(WalkError::Offsets { base: header.base_offset, last_offset_delta: header.last_offset_delta });
    }
    Ok(header)
}

/// [`header_at`] of the batch that is expected there: it begins at offset `base`, and its [`outer_crc`] is `outer`, if an index entry tells it.
///
/// # Errors
/// Likewise; `Gap` and `Outer` when it is another batch than the one expected.
pub fn header_of(bytes: &[u8], base: Offset, outer: Option<u32>) -> Result<Header, WalkError> {
    let header = header_at(bytes)?;
    if header.base_offset != base {
        return Err(WalkError::Gap { expected: base, found: header.base_offset });
    }
    match outer {
        Some(expected) if expected != outer_crc(bytes) => Err(WalkError::Outer { expected, found: outer_crc(bytes) }),
        Some(_) | None => Ok(header),
    }
}

/// One whole batch in the bytes that are walked.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Byte in the walked bytes.
    pub place: usize,
    pub header: Header,
    /// The whole batch.
    pub bytes: &'a [u8],
}

/// Whole batches back to back; an error ends the walk. Cut bytes at the end are an error (`Short`).
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, place: 0, failed: false }
}

/// Iterator of [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    place: usize,
    failed: bool,
}

impl Batches<'_> {
    /// Where the walk stands: behind the last batch given.
    pub fn place(&self) -> usize {
        self.place
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Found<'a>, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.place..];
        if self.failed || rest.is_empty() {
            return None;
        }
        let found = header_at(rest).and_then(|header| match rest.get(..header.size) {
            Some(bytes) => Ok(Found { place: self.place, header, bytes }),
            None => Err(WalkError::Batch(BatchError::Short { needed: header.size, found: rest.len() })),
        });
        match found {
            Ok(found) => self.place += found.header.size,
            Err(_) => self.failed = true,
        }
        Some(found)
    }
}

/// The byte in `bytes` (whole batches) at which the batch that begins at `offset` starts, or their length when they end there.
/// None when no batch begins there or the bytes are not batches: a cut inside a batch is never meant.
pub fn place_of(bytes: &[u8], offset: Offset) -> Option<usize> {
    let mut end = None;
    for found in batches(bytes) {
        let found = found.ok()?;
        if found.header.base_offset == offset {
            return Some(found.place);
        }
        end = Some(found.header.next_offset());
    }
    (end == Some(offset)).then_some(bytes.len())
}

/// Whether `bytes` are whole batches that cover the offsets from `base` to `end` without a gap.
pub fn covers(bytes: &[u8], base: Offset, end: Offset) -> bool {
    let mut at = base;
    for found in batches(bytes) {
        match found {
            Ok(found) if found.header.base_offset == at => at = found.header.next_offset(),
            Ok(_) | Err(_) => return false,
        }
    }
    at == end
}

/// Length of the fixed header, which is all that a walk needs of each batch.
pub const WALK_BYTES: usize = HEADER_BYTES;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use millrace_base::batch::{Builder, patch};
    use millrace_base::prng::Prng;

    /// One uncompressed batch of `count` records of `value_bytes` each.
    pub(crate) fn batch(base: Offset, count: usize, value_bytes: usize, timestamp: i64) -> Vec<u8> {
        let mut builder = Builder::new(timestamp);
        let value = vec![b'v'; value_bytes];
        for i in 0..count {
            builder.push(timestamp + i as i64, None, Some(&value));
        }
        let mut bytes = builder.finish();
        patch(&mut bytes, base, 1);
        bytes
    }

    #[test]
    fn a_walk_visits_every_batch_and_stops_at_a_cut_one() {
        let mut bytes = batch(0, 3, 10, 5);
        let second = bytes.len();
        bytes.extend(batch(3, 2, 10, 6));
        let places: Vec<_> = batches(&bytes).map(|b| b.unwrap().place).collect();
        assert_eq!(places, [0, second]);
        assert_eq!(place_of(&bytes, 3), Some(second));
        assert_eq!(place_of(&bytes, 5), Some(bytes.len()));
        assert_eq!(place_of(&bytes, 1), None);
        assert!(covers(&bytes, 0, 5) && covers(&[], 5, 5));
        assert!(![(0, 4), (0, 6), (1, 5), (0, 3)].into_iter().any(|(base, end)| covers(&bytes, base, end)));
        let cut = &bytes[..bytes.len() - 1];
        assert!(batches(cut).last().unwrap().is_err() && !covers(cut, 0, 5));
    }

    #[test]
    fn headers_at_the_edge_of_numbers_are_refused() {
        let mut bytes = batch(0, 1, 1, 0);
        patch(&mut bytes, i64::MAX, 0);
        assert!(matches!(header_at(&bytes), Err(WalkError::Offsets { .. })));
        patch(&mut bytes, -1, 0);
        assert!(matches!(header_at(&bytes), Err(WalkError::Offsets { .. })));
        patch(&mut bytes, 0, 0);
        bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(matches!(header_at(&bytes), Err(WalkError::Size { .. })));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut prng = Prng::new(3);
        let good = [batch(0, 3, 10, 5), batch(3, 2, 10, 6)].concat();
        for _ in 0..5000 {
            let mut bad = good.clone();
            for _ in 0..=prng.below(4) {
                let at = prng.below(bad.len() as u64) as usize;
                bad[at] = prng.next_u64() as u8;
            }
            let ends: Vec<_> = batches(&bad).flatten().map(|b| b.header.next_offset()).collect();
            assert!(ends.iter().all(|end| *end > 0));
            let _ = place_of(&bad, 3);
        }
    }
}
