//! A bounded cursor over one request frame.
//!
//! 1. Every length is compared with what is left of the frame (or of the tagged field in hand) before it is used.
//! 2. An array's count is compared with what is left divided by the least size of an element at this version, then with how many
//!    elements all arrays of the request may have together, and its memory is charged to the budget; only then is it allocated, once,
//!    exactly.
//! 3. Strings stay in the frame as `&str`, bytes and records as [`ByteRange`]: neither costs memory.
//!
//! Invariants: at <= end <= frame length; memory allocated <= budget given; no input panics.
//! Knows nothing of any particular message.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap)]

use std::fmt;

use millrace_base::fault::Fault;
use millrace_base::ids::Uuid;

use super::message::{Field, Shape};

/// More elements than this are refused in any array, as Kafka 4.4 does. What all arrays of a request may have together is less: see
/// [`super::table::Api::elements_max`].
pub const ELEMENTS_MAX: usize = 1_000_000;

/// Longer strings are refused, as Kafka does: classic ones have a signed 16-bit length, and compact ones may be no longer.
pub const STRING_BYTES_MAX: usize = 0x7fff;

/// More fields than this are refused in any tagged section, as Kafka 4.4 does.
pub const TAGS_MAX: usize = 10_000;

/// The memory that decoding a frame of this many bytes may take. The widest of our structs per byte on the wire is met only by names of
/// fewer than three characters, for which the constant part leaves room.
pub fn budget_for(frame_bytes: usize) -> usize {
    frame_bytes.saturating_mul(8).saturating_add(64 << 10)
}

/// Why a frame is not a request that we can read. `at` is a byte of the frame, counted from the first after the size prefix.
/// The connection that sent it is closed: nothing after the fault can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// A fixed-size field or a length does not fit what is left.
    Truncated { at: usize, needed: usize, left: usize },
    /// A length below -1.
    NegativeLength { at: usize, length: i32 },
    /// A string of more than [`STRING_BYTES_MAX`].
    LongString { at: usize, length: usize },
    /// A variable-length integer of more than 32 bits.
    Varint { at: usize },
    /// Null where this version has none.
    Null { at: usize },
    /// A string that is not UTF-8.
    Utf8 { at: usize },
    /// An array with more elements than the request may have, or than could stand in what is left.
    Elements { at: usize, count: usize, most: usize },
    /// A tagged section of more than [`TAGS_MAX`], or more than could stand in what is left.
    Tags { at: usize, count: usize, most: usize },
    /// A known tagged field whose content ends before its stated size.
    TagSize { at: usize, left: usize },
    /// The array at this byte would pass the memory granted.
    Memory { at: usize, needed: usize, left: usize },
    /// The presence byte of a nullable struct is neither -1 nor 1.
    Presence { at: usize, found: i8 },
    /// No API of this key is served.
    UnknownKey { key: i16 },
    /// The API is served, this version is not: see [`super::unsupported::answer`].
    UnsupportedVersion { key: i16, version: i16 },
}

impl DecodeError {
    /// The byte of the frame at which the fault lies.
    pub fn at(&self) -> usize {
        match *self {
            DecodeError::Truncated { at, .. }
            | DecodeError::NegativeLength { at, .. }
            | DecodeError::LongString { at, .. }
            | DecodeError::Varint { at }
            | DecodeError::Null { at }
            | DecodeError::Utf8 { at }
            | DecodeError::Elements { at, .. }
            | DecodeError::Tags { at, .. }
            | DecodeError::TagSize { at, .. }
            | DecodeError::Memory { at, .. }
            | DecodeError::Presence { at, .. } => at,
            DecodeError::UnknownKey { .. } => 0,
            DecodeError::UnsupportedVersion { .. } => 2,
        }
    }

    /// Always [`Fault::Refuse`]: the same bytes will never decode.
    pub fn fault(&self) -> Fault {
        Fault::Refuse
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated { needed, left, .. } => write!(f, "{needed} bytes are announced where {left} are left")?,
            DecodeError::NegativeLength { length, .. } => write!(f, "negative length {length}")?,
            DecodeError::LongString { length, .. } => write!(f, "string of {length} bytes where {STRING_BYTES_MAX} are possible")?,
            DecodeError::Varint { .. } => f.write_str("variable-length integer of more than 32 bits")?,
            DecodeError::Null { .. } => f.write_str("null where this version has none")?,
            DecodeError::Utf8 { .. } => f.write_str("string that is not UTF-8")?,
            DecodeError::Elements { count, most, .. } => write!(f, "array of {count} elements where {most} are possible")?,
            DecodeError::Tags { count, most, .. } => write!(f, "{count} tagged fields where {most} are possible")?,
            DecodeError::TagSize { left, .. } => write!(f, "tagged field with {left} bytes more than its type has")?,
            DecodeError::Memory { needed, left, .. } => write!(f, "array of {needed} bytes of memory where {left} are granted")?,
            DecodeError::Presence { found, .. } => write!(f, "presence byte {found} is neither -1 nor 1")?,
            DecodeError::UnknownKey { key } => write!(f, "API key {key} is not served")?,
            DecodeError::UnsupportedVersion { key, version } => write!(f, "version {version} of API key {key} is not served")?,
        }
        write!(f, " (at byte {})", self.at())
    }
}

impl std::error::Error for DecodeError {}

/// Bytes of the frame by their place in it, so that whoever holds the frame reference-counted can take a slice without a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ByteRange {
    /// First byte, counted from the first after the size prefix.
    pub offset: usize,
    pub len: usize,
}

impl ByteRange {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One past the last byte.
    pub fn end(&self) -> usize {
        self.offset.saturating_add(self.len)
    }

    /// The bytes, out of the frame that this was decoded from; empty if it is another and shorter one.
    pub fn of<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(self.offset..self.end()).unwrap_or_default()
    }
}

/// The cursor.
pub struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
    end: usize,
    shape: Shape,
    budget: usize,
    /// Elements that arrays may still have.
    elements: usize,
}

impl<'a> Reader<'a> {
    /// From byte `at` of the frame; `budget` is the memory that arrays may take.
    pub fn new(frame: &'a [u8], at: usize, shape: Shape, budget: usize) -> Reader<'a> {
        Reader { frame, at: at.min(frame.len()), end: frame.len(), shape, budget, elements: ELEMENTS_MAX }
    }

    /// With no more than so many elements in all arrays together.
    pub fn with_elements_max(self, elements: usize) -> Reader<'a> {
        Reader { elements, ..self }
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn version(&self) -> i16 {
        self.shape.version
    }

    /// The byte of the frame that is read next.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn left(&self) -> usize {
        self.end - self.at
    }

    fn take(&mut self, needed: usize) -> Result<&'a [u8], DecodeError> {
        let truncated = DecodeError::Truncated { at: self.at, needed, left: self.left() };
        if needed > self.left() {
            return Err(truncated);
        }
        let bytes = self.frame.get(self.at..self.at + needed).ok_or(truncated)?;
        self.at += needed;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        let left = self.left();
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or(DecodeError::Truncated { at, needed: N, left })
    }

    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    /// Any byte but 0 is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid(self.fixed()?))
    }

    /// Base-128, least significant group first, at most 32 bits in at most five bytes.
    pub fn varint(&mut self) -> Result<usize, DecodeError> {
        let at = self.at;
        let mut value: u32 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| DecodeError::Varint { at });
            }
        }
        Err(DecodeError::Varint { at })
    }

    /// -1 is null; below that is refused.
    fn classic_length(&self, at: usize, length: i32) -> Result<Option<usize>, DecodeError> {
        if length == -1 {
            return Ok(None);
        }
        usize::try_from(length).map(Some).map_err(|_| DecodeError::NegativeLength { at, length })
    }

    /// The length of a string; null is none. 16 bits, or a varint of length + 1 in flexible versions.
    fn string_length(&mut self) -> Result<Option<usize>, DecodeError> {
        let at = self.at;
        if self.shape.flexible {
            let length = self.varint()?.checked_sub(1);
            return match length {
                Some(length) if length > STRING_BYTES_MAX => Err(DecodeError::LongString { at, length }),
                length => Ok(length),
            };
        }
        let length = self.i16()?;
        self.classic_length(at, i32::from(length))
    }

    /// The length of bytes or the count of an array; null is none. 32 bits, or a varint of length + 1 in flexible versions.
    fn long_length(&mut self) -> Result<Option<usize>, DecodeError> {
        if self.shape.flexible {
            return Ok(self.varint()?.checked_sub(1));
        }
        let at = self.at;
        let length = self.i32()?;
        self.classic_length(at, length)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, DecodeError> {
        let at = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Utf8 { at })
    }

    pub fn string(&mut self) -> Result<Option<&'a str>, DecodeError> {
        match self.string_length()? {
            Some(length) => self.text(length).map(Some),
            None => Ok(None),
        }
    }

    /// A nullable string with a 16-bit length, whatever the version: the client id of every request header.
    pub fn classic_string(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let at = self.at;
        let length = self.i16()?;
        match self.classic_length(at, i32::from(length))? {
            Some(length) => self.text(length).map(Some),
            None => Ok(None),
        }
    }

    pub fn bytes(&mut self) -> Result<Option<ByteRange>, DecodeError> {
        let Some(len) = self.long_length()? else {
            return Ok(None);
        };
        let offset = self.at;
        self.take(len)?;
        Ok(Some(ByteRange { offset, len }))
    }

    pub fn array<T: Field<'a>>(&mut self) -> Result<Option<Vec<T>>, DecodeError> {
        let at = self.at;
        let Some(count) = self.long_length()? else {
            return Ok(None);
        };
        let least = T::size_min(self.shape).max(1);
        let most = (self.left() / least).min(self.elements);
        if count > most {
            return Err(DecodeError::Elements { at, count, most });
        }
        self.elements -= count;
        let needed = count.saturating_mul(size_of::<T>());
        self.budget = self.budget.checked_sub(needed).ok_or(DecodeError::Memory { at, needed, left: self.budget })?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(self, false)?);
        }
        Ok(Some(elements))
    }

    /// The presence byte of a nullable struct.
    pub fn present(&mut self) -> Result<bool, DecodeError> {
        let at = self.at;
        match self.i8()? {
            -1 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError::Presence { at, found }),
        }
    }

    /// A tagged section. `known` is asked for each field, reads it and returns true, or returns false and reads nothing: then it is skipped.
    /// Order and repetition of tags are not checked (Kafka does not either): the last one counts.
    pub fn tagged(&mut self, mut known: impl FnMut(&mut Reader<'a>, usize) -> Result<bool, DecodeError>) -> Result<(), DecodeError> {
        let at = self.at;
        let count = self.varint()?;
        let most = (self.left() / 2).min(TAGS_MAX);
        if count > most {
            return Err(DecodeError::Tags { at, count, most });
        }
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()?;
            let end = self.end;
            if size > self.left() {
                return Err(DecodeError::Truncated { at: self.at, needed: size, left: self.left() });
            }
            self.end = self.at + size;
            if !known(self, tag)? {
                self.at = self.end;
            }
            if self.at != self.end {
                return Err(DecodeError::TagSize { at: self.at, left: self.left() });
            }
            self.end = end;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may fail")]
mod tests {
    use super::*;

    fn reader(frame: &[u8], flexible: bool) -> Reader<'_> {
        Reader::new(frame, 0, Shape { version: 0, flexible }, budget_for(frame.len()))
    }

    #[test]
    fn varints_take_32_bits_and_no_more() {
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).varint(), Ok(0xffff_ffff));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x1f], true).varint(), Err(DecodeError::Varint { at: 0 }));
        assert_eq!(reader(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], true).varint(), Err(DecodeError::Varint { at: 0 }));
        assert_eq!(reader(&[0x80], true).varint(), Err(DecodeError::Truncated { at: 1, needed: 1, left: 0 }));
    }

    #[test]
    fn array_count_is_refused_before_allocation() {
        let frame = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1];
        assert_eq!(reader(&frame, false).array::<i32>(), Err(DecodeError::Elements { at: 0, count: 0x7fff_ffff, most: 1 }));
        let mut million = vec![0; 2_000_000];
        million[..4].copy_from_slice(&1_000_001i32.to_be_bytes());
        assert_eq!(reader(&million, false).array::<i8>(), Err(DecodeError::Elements { at: 0, count: 1_000_001, most: ELEMENTS_MAX }));
    }

    #[test]
    fn all_arrays_together_have_no_more_elements_than_granted() {
        let frame = [0, 0, 0, 2, 1, 2, 0, 0, 0, 2, 3, 4];
        let mut reader = reader(&frame, false).with_elements_max(3);
        assert_eq!(reader.array::<i8>(), Ok(Some(vec![1, 2])));
        assert_eq!(reader.array::<i8>(), Err(DecodeError::Elements { at: 6, count: 2, most: 1 }));
    }

    #[test]
    fn memory_is_charged_before_allocation() {
        let frame = [0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let mut reader = Reader::new(&frame, 0, Shape { version: 0, flexible: false }, 7);
        assert_eq!(reader.array::<i32>(), Err(DecodeError::Memory { at: 0, needed: 8, left: 7 }));
    }

    #[test]
    fn a_tagged_field_cannot_reach_past_its_size() {
        // One field, tag 0, size 2, and four more bytes behind it that an i32 must not take.
        let frame = [1, 0, 2, 0, 0, 0, 0];
        let result = reader(&frame, true).tagged(|r, _| r.i32().map(|_| true));
        assert_eq!(result, Err(DecodeError::Truncated { at: 3, needed: 4, left: 2 }));
        let result = reader(&[1, 0, 2, 0, 0], true).tagged(|r, _| r.i8().map(|_| true));
        assert_eq!(result, Err(DecodeError::TagSize { at: 4, left: 1 }));
    }

    #[test]
    fn strings_are_no_longer_than_16_bits_can_say() {
        // A length and one, of which the low seven bits are in the first byte.
        let frame = |low: u8, length: usize| [&[0x80 | low, 0x80, 0x02][..], &vec![b'a'; length]].concat();
        let longest = frame(0, STRING_BYTES_MAX);
        assert_eq!(reader(&longest, true).string().map(|text| text.map(str::len)), Ok(Some(STRING_BYTES_MAX)));
        let longer = frame(1, STRING_BYTES_MAX + 1);
        assert_eq!(reader(&longer, true).string(), Err(DecodeError::LongString { at: 0, length: STRING_BYTES_MAX + 1 }));
    }

    #[test]
    fn too_many_tags_are_refused() {
        let mut frame = vec![0; 40_000];
        frame[..2].copy_from_slice(&[0x91, 0x4e]); // 10,001
        assert_eq!(reader(&frame, true).tagged(|_, _| Ok(false)), Err(DecodeError::Tags { at: 0, count: 10_001, most: TAGS_MAX }));
        assert_eq!(reader(&[5, 0, 0], true).tagged(|_, _| Ok(false)), Err(DecodeError::Tags { at: 0, count: 5, most: 1 }));
    }
}
