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
        let mut walk = self.walk();
        loop {
            if let Some(cut) = self.cut_on(&mut walk, usize::MAX, bytes, index) {
                return cut;
            }
        }
    }

    /// The beginning of its walk.
    pub fn walk(&self) -> Walk {
        Walk { at: 0, begin: None, base: self.base }
    }

    /// Goes on with the walk of [`Window::cut`] over the same bytes. None: `most` bytes or a batch have been gone over, and it has not come to
    /// its end.
    pub fn cut_on(&self, walk: &mut Walk, most: usize, bytes: &Slice, index: Option<&Index>) -> Option<Cut> {
        let skip = (self.place - self.block()) as usize;
        if bytes.len() <= skip {
            return Some(Cut::Bad(self.corrupt(self.place, "a record batch", "the end of the file")));
        }
        let body = &bytes[skip..];
        let began = walk.at;
        // Behind the bound lie other batches, or the zeros of a segment that is open.
        while walk.base < self.bound {
            if walk.at - began >= most {
                return None;
            }
            match self.batch(walk, body, index) {
                Ok(true) => {}
                Ok(false) => break,
                Err(cut) => return Some(cut),
            }
        }
        Some(match walk.begin {
            Some(begin) if walk.at > begin => Cut::Batches(bytes.sub(skip + begin..skip + walk.at), walk.base),
            _ => Cut::Nothing,
        })
    }

    /// Goes over one batch, and proves it if it is to be given. False: what is given ends before it. An error: nothing is given.
    fn batch(&self, walk: &mut Walk, body: &[u8], index: Option<&Index>) -> Result<bool, Cut> {
        let Walk { at, base, .. } = *walk;
        let here = self.place + at as u64;
        let header = match self.header(body, at, base, index) {
            Ok(Some(header)) => header,
            Ok(None) if walk.begin.is_none() => return Err(self.further(here, HEADER_BYTES, base, body.len().saturating_sub(at))),
            Err(corrupt) if walk.begin.is_none() => return Err(Cut::Bad(corrupt)),
            // It is met again by who asks for what lies behind the batches before it.
            Ok(None) | Err(_) => return Ok(false),
        };
        let end = at + header.size;
        if header.next_offset() > self.from {
            let first = *walk.begin.get_or_insert(at);
            let fits = end - first <= self.max_bytes || (first == at && self.first_whole);
            let proof = match body.get(at..end) {
                None if first == at && fits => return Err(self.further(here, header.size, base, body.len().saturating_sub(at))),
                None => return Ok(false),
                Some(_) if !fits => return Ok(false),
                Some(batch) => batch::check_stored(batch).map_err(WalkError::Batch),
            };
            match proof {
                Err(error) if first == at => return Err(Cut::Bad(error.in_file(&self.path.display().to_string(), here))),
                Err(_) => return Ok(false),
                Ok(_) => {}
            }
        }
        (walk.at, walk.base) = (end, header.next_offset());
        Ok(true)
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

/// How far the batches of a window have been gone over.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Behind the last of them, and its base offset there.
    at: usize,
    base: Offset,
    /// Where the first that is given begins.
    begin: Option<usize>,
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
    use millrace_base::batch::{Builder, patch};

    #[test]
    fn a_window_that_is_gone_over_in_steps_holds_what_it_holds_at_once() {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for offset in 0..6 {
            let mut builder = Builder::new(0);
            builder.push(0, None, Some(&vec![offset as u8; 700 * (1 + offset as usize)]));
            let mut batch = builder.finish();
            patch(&mut batch, offset, 0);
            places.push(bytes.len());
            bytes.extend_from_slice(&batch);
        }
        let end = bytes.len();
        let whole = Window {
            path: PathBuf::from("0.log"),
            segment: 0,
            place: 0,
            len: end,
            least: HEADER_BYTES,
            end: end as u64,
            base: 0,
            from: 1,
            bound: 6,
            max_bytes: end,
            first_whole: true,
            kept: false,
            is_half: false,
        };
        let pool = Pool::new(1 << 20);
        let slice = |bytes: &[u8]| {
            let mut space = pool.take(bytes.len());
            space.unfrozen()[..bytes.len()].copy_from_slice(bytes);
            space.freeze(bytes.len())
        };
        let mut flipped = bytes.clone();
        flipped[places[4] + 100] ^= 1;
        let few = Window { bound: 3, ..whole.clone() };
        let tight = Window { max_bytes: places[3] - places[1] + 1, ..whole.clone() };
        let from_bad = Window { from: 4, ..whole.clone() };
        let told = |cut: Cut| match cut {
            Cut::Batches(batches, end) => format!("{} bytes up to {end}", batches.len()),
            Cut::Nothing => "nothing".to_owned(),
            Cut::Further { at, size, base } => format!("{size} bytes at {at}, offset {base}"),
            Cut::Bad(corrupt) => format!("bad at {}", corrupt.place),
        };
        let cases = [
            (&whole, slice(&bytes), format!("{} bytes up to 6", end - places[1]), 6),
            (&few, slice(&bytes), format!("{} bytes up to 3", places[3] - places[1]), 3),
            (&tight, slice(&bytes), format!("{} bytes up to 3", places[3] - places[1]), 3),
            (&whole, slice(&flipped), format!("{} bytes up to 4", places[4] - places[1]), 4),
            (&from_bad, slice(&flipped), format!("bad at {}", places[4]), 4),
            (&whole, slice(&bytes[..places[1] + 20]), format!("{HEADER_BYTES} bytes at {}, offset 1", places[1]), 1),
        ];
        for (window, bytes, expected, batches) in cases {
            assert_eq!(told(window.cut(&bytes, None)), expected);
            let (mut walk, mut steps) = (window.walk(), 0);
            let cut = loop {
                match window.cut_on(&mut walk, 1, &bytes, None) {
                    Some(cut) => break cut,
                    None => steps += 1,
                }
            };
            assert_eq!(told(cut), expected);
            assert!((batches - 1..=batches).contains(&steps), "{expected}: a batch a step, {steps} steps");
        }
    }

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
