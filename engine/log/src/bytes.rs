//! Reading and writing the fields of our own files: little-endian, bounded, versioned by whoever uses it.
//!
//! Invariants: a reader never goes past its bytes; a count is believed only as far as the bytes behind it could hold that many items.
//! Knows nothing of what the fields mean.

use millrace_base::fault::{Corrupt, Fault};
use std::fmt;

/// Bytes that do not say what they should: which field, and where in the bytes it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    pub what: &'static str,
    pub place: usize,
}

impl Malformed {
    pub fn fault(&self) -> Fault {
        Fault::Corrupt
    }

    /// The same in terms of a file whose byte `start` is the first one read.
    pub fn in_file(self, file: &str, start: u64) -> Corrupt {
        Corrupt {
            file: file.to_owned(),
            place: start + self.place as u64,
            expected: self.what.to_owned(),
            found: "bytes that cannot be it".to_owned(),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} cannot be read", self.what, self.place)
    }
}

impl std::error::Error for Malformed {}

/// Takes fields from the front of some bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, place: 0 }
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.place
    }

    pub fn place(&self) -> usize {
        self.place
    }

    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, place: self.place }
    }

    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let end = self.place.checked_add(len).ok_or(Malformed { what, place: self.place })?;
        let taken = self.bytes.get(self.place..end).ok_or(Malformed { what, place: self.place })?;
        self.place = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub fn i16(&mut self, what: &'static str) -> Result<i16, Malformed> {
        Ok(i16::from_le_bytes(self.array(what)?))
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub fn i32(&mut self, what: &'static str) -> Result<i32, Malformed> {
        Ok(i32::from_le_bytes(self.array(what)?))
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array(what)?))
    }

    /// An offset: not negative, and far enough from the end of the numbers that any batch can be added to it.
    pub fn offset(&mut self, what: &'static str) -> Result<i64, Malformed> {
        let place = self.place;
        let offset = self.i64(what)?;
        if (0..=OFFSET_MAX).contains(&offset) { Ok(offset) } else { Err(Malformed { what, place }) }
    }

    /// A flag: 0 or 1.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, Malformed> {
        let place = self.place;
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed { what, place }),
        }
    }

    /// A number of items of at least `item_bytes` each, which the rest can hold and which is at most `max`.
    pub fn count(&mut self, max: usize, item_bytes: usize, what: &'static str) -> Result<usize, Malformed> {
        let place = self.place;
        let count = self.u32(what)? as usize;
        if count > max || count > self.left() / item_bytes.max(1) { Err(Malformed { what, place }) } else { Ok(count) }
    }

    /// A length of at most `max`, and that many bytes.
    pub fn sized(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let len = self.count(max, 1, what)?;
        self.take(len, what)
    }

    /// Nothing may be left.
    pub fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.left() == 0 { Ok(()) } else { Err(self.malformed(what)) }
    }
}

/// Offsets above this are refused wherever they are read.
pub const OFFSET_MAX: i64 = i64::MAX - (1 << 33);

/// Appends fields; the mirror of [`Reader`].
pub trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_i16(&mut self, value: i16);
    fn put_u32(&mut self, value: u32);
    fn put_i32(&mut self, value: i32);
    fn put_u64(&mut self, value: u64);
    fn put_i64(&mut self, value: i64);
    /// Length and bytes.
    fn put_sized(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_i16(&mut self, value: i16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_sized(&mut self, bytes: &[u8]) {
        self.put_u32(u32::try_from(bytes.len()).expect("parts of a state are far below 4 GiB"));
        self.extend_from_slice(bytes);
    }
}
