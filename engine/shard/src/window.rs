//! A window: the bytes of a segment that are read for one part of a read, and the batches that may be given of them.
//!
//! Each batch that is given is proved: it begins where the one before ended, its CRC fits, and its header is the one that the index
//! remembers, where that has an entry of it. What does not fit is an error that names the place.
//!
//! A window that the device cannot read as a whole is read in half, down to what the batch wanted needs: a sector that is gone takes with it
//! only the batches of its block, and those behind it that are found by way of a header there.
//!
//! Knows nothing of who reads, or of memory that is short.

use crate::script::{Step, read_once};
use millrace_base::batch::{self, HEADER_BYTES};
use millrace_base::fault::Corrupt;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_io::{Pool, Slice};
use millrace_log::index::Index;
use millrace_log::walk::{self, WalkError};
use std::path::PathBuf;

/// Bytes of a segment that one read operation brings, unless a single batch is larger.
pub const WINDOW_BYTES: usize = 256 << 10;
pub const WINDOW_BYTES_MAX: usize = 1 << 20;

/// Bytes of a segment that are being read.
#[derive(Clone, Debug)]
pub struct Window {
    pub path: PathBuf,
    pub segment: Offset,
    /// Where the bytes asked for begin; the operation begins at the block before.
    pub place: u64,
    pub len: usize,
    /// What of that the batch at `place` needs, as far as is known.
    pub least: usize,
    /// Where the segment's batches end.
    pub end: u64,
    /// The base offset of the batch at `place`.
    pub base: Offset,
    /// The first offset wanted, and the bound.
    pub from: Offset,
    pub bound: Offset,
    pub max_bytes: usize,
    pub first_whole: bool,
    /// Its bytes are those of a read that began for somebody else.
    pub kept: bool,
    /// Half of one that cannot be read at once, which has been said.
    pub is_half: bool,
}

impl Window {
    pub fn block(&self) -> u64 {
        self.place / BLOCK as u64 * BLOCK as u64
    }

    /// Blocks that bring `len` bytes of it.
    fn blocks(&self, len: usize) -> usize {
        ((self.place - self.block()) as usize + len).div_ceil(BLOCK)
    }

    /// Bytes that reading it takes.
    pub fn memory(&self) -> usize {
        Pool::size_of((self.place - self.block()) as usize + self.len)
    }

    /// Opens the segment, reads the window, closes it.
    pub fn steps(&self, pool: &Pool) -> Vec<Step> {
        let len = self.blocks(self.len) * BLOCK;
        read_once(self.path.clone(), true, self.block(), pool.take(len), len)
    }

    /// What the bytes of the window hold. `index`: the segment's, if it is in memory.
    pub fn cut(&self, bytes: &Slice, index: Option<&Index>) -> Cut {
        let skip = (self.place - self.block()) as usize;
        if bytes.len() <= skip {
            return Cut::Bad(self.corrupt(self.place, "a record batch", "the end of the file"));
        }
        let body = &bytes[skip..];
        let (mut at, mut begin, mut base) = (0, None, self.base);
        // Behind the bound lie other batches, or the zeros of a segment that is open.
        while base < self.bound {
            let here = self.place + at as u64;
            let header = match self.header(body, at, base, index) {
                Ok(Some(header)) => header,
                Ok(None) if begin.is_none() => return self.further(here, HEADER_BYTES, base, body.len().saturating_sub(at)),
                Err(corrupt) if begin.is_none() => return Cut::Bad(corrupt),
                // It is met again by who asks for what lies behind the batches before it.
                Ok(None) | Err(_) => break,
            };
            let end = at + header.size;
            if header.next_offset() > self.from {
                let first = *begin.get_or_insert(at);
                let fits = end - first <= self.max_bytes || (first == at && self.first_whole);
                let proof = match body.get(at..end) {
                    None if first == at && fits => return self.further(here, header.size, base, body.len().saturating_sub(at)),
                    None => break,
                    Some(_) if !fits => break,
                    Some(batch) => batch::check_stored(batch).map_err(WalkError::Batch),
                };
                match proof {
                    Err(error) if first == at => return Cut::Bad(error.in_file(&self.path.display().to_string(), here)),
                    Err(_) => break,
                    Ok(_) => {}
                }
            }
            (at, base) = (end, header.next_offset());
        }
        match begin {
            Some(begin) if at > begin => Cut::Batches(bytes.sub(skip + begin..skip + at), base),
            _ => Cut::Nothing,
        }
    }

    /// The header of the batch that begins at offset `base`, at byte `at` of the window. None: it goes past the bytes.
    fn header(&self, body: &[u8], at: usize, base: Offset, index: Option<&Index>) -> Result<Option<batch::Header>, Corrupt> {
        let Some(rest) = body.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) else { return Ok(None) };
        let place = self.place + at as u64;
        let outer = index.and_then(|index| index.at_place(place)).map(|entry| entry.outer_crc);
        let header = walk::header_of(rest, base, outer);
        let header = header.map_err(|error| error.in_file(&self.path.display().to_string(), place))?;
        if header.next_offset() > self.bound || place + header.size as u64 > self.end {
            let expected = format!("a batch that ends at offset {} and byte {} at most", self.bound, self.end);
            let found = format!("offset {} and byte {}", header.next_offset(), place + header.size as u64);
            return Err(self.corrupt(place, &expected, &found));
        }
        Ok(Some(header))
    }

    /// So many bytes are needed from a place on, of which `here` are in this window. If it was asked for them all, the file has no more.
    fn further(&self, at: u64, size: usize, base: Offset, here: usize) -> Cut {
        if at == self.place && self.len >= size {
            return Cut::Bad(self.corrupt(at, &format!("{size} bytes of a batch"), &format!("{here} bytes and the end of the file")));
        }
        Cut::Further { at, size, base }
    }

    /// The window from a batch on that was not whole.
    pub fn behind(self, at: u64, size: usize, base: Offset) -> Window {
        Window { place: at, len: size.max(self.len), least: size, base, kept: false, ..self }
    }

    /// Half of one that cannot be read: what is wanted may lie before what is bad. None: it is as short as it may be.
    pub fn half(&self) -> Option<Window> {
        let (blocks, least) = (self.blocks(self.len), self.blocks(self.least));
        let len = (blocks / 2).max(least) * BLOCK - (self.place - self.block()) as usize;
        (blocks > least).then(|| Window { len, kept: false, is_half: true, ..self.clone() })
    }

    fn corrupt(&self, place: u64, expected: &str, found: &str) -> Corrupt {
        Corrupt { file: self.path.display().to_string(), place, expected: expected.to_owned(), found: found.to_owned() }
    }
}

/// What a window held.
pub enum Cut {
    /// Whole batches, and the offset behind them.
    Batches(Slice, Offset),
    /// No batch that may be given.
    Nothing,
    /// The batch wanted, which begins at offset `base`, lies at `at` and needs so many bytes.
    Further {
        at: u64,
        size: usize,
        base: Offset,
    },
    Bad(Corrupt),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_cannot_be_read_is_halved_down_to_what_its_first_batch_needs() {
        let path = PathBuf::from("0.log");
        let (place, len, end) = (3 * BLOCK as u64 + 100, 40 * BLOCK - 100, 1 << 20);
        let mut window = Window {
            path,
            segment: 0,
            place,
            len,
            least: HEADER_BYTES,
            end,
            base: 7,
            from: 7,
            bound: 9,
            max_bytes: 1,
            first_whole: true,
            kept: false,
            is_half: false,
        };
        let mut blocks = Vec::new();
        while let Some(half) = window.half() {
            window = half;
            blocks.push(window.blocks(window.len));
            assert_eq!(window.memory(), Pool::size_of(blocks[blocks.len() - 1] * BLOCK));
        }
        assert_eq!(blocks, [20, 10, 5, 2, 1]);
        // The batch there is of two blocks and a byte, with what lies before it.
        let mut window = Window { len: 9 * BLOCK, ..window }.behind(place, 2 * BLOCK - 99, 7);
        let mut blocks = Vec::new();
        while let Some(half) = window.half() {
            window = half;
            blocks.push(window.blocks(window.len));
        }
        assert_eq!(blocks, [5, 3]);
    }
}
