//! Whether the records of an uncompressed batch are what its header says: a batch that lies is a stone in the way of every consumer, for ever.
//!
//! 1. Records stand back to back: a length, then attributes, timestamp delta, offset delta, key, value, headers.
//! 2. Of each only the lengths and deltas are read: keys and values are stepped over. A record ends where its length says.
//! 3. Offset deltas are 0, 1, 2, ...; as many records as the header counts fill the batch to its last byte.
//! 4. Lengths are what Kafka's readers take: at most five bytes on the wire, and a number of 32 bits.
//!
//! Compressed batches are not opened: what is wrong inside them is their readers' to find, as it is in Kafka's own storage.
//!
//! Invariants: one pass, no allocation; no input panics.
//! Knows nothing of the header beyond the counts, the base timestamp and the size.

#![deny(clippy::indexing_slicing)]

use crate::batch::{BatchError, HEADER_BYTES, Header};
use crate::clock::WallMs;

/// A record's timestamp that is none.
const NO_TIMESTAMP: WallMs = -1;

/// What the records of a sound batch say together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walked {
    /// The greatest of their timestamps.
    pub max_timestamp: WallMs,
    /// The smallest of those that are not -1, which is none; -1 if all are.
    pub min_timestamp: WallMs,
    /// Some record has no key.
    pub has_null_key: bool,
}

/// Walks the records of a whole uncompressed batch whose header is sound.
///
/// # Errors
/// `Record` at the first thing that is wrong.
pub fn check(batch: &[u8], header: &Header) -> Result<Walked, BatchError> {
    let mut cursor = Cursor { bytes: batch.get(..header.size).unwrap_or_default(), at: HEADER_BYTES };
    let mut walked = Walked { max_timestamp: i64::MIN, min_timestamp: i64::MAX, has_null_key: false };
    for index in 0..header.count {
        let (timestamp, has_key) = cursor.record(index, header.base_timestamp).map_err(|reason| BatchError::Record { index, reason })?;
        walked.max_timestamp = walked.max_timestamp.max(timestamp);
        walked.min_timestamp = walked.min_timestamp.min(if timestamp == NO_TIMESTAMP { i64::MAX } else { timestamp });
        walked.has_null_key |= !has_key;
    }
    if cursor.at != cursor.bytes.len() {
        return Err(BatchError::Record { index: header.count, reason: "it is one more than the header counts" });
    }
    if walked.max_timestamp == NO_TIMESTAMP && walked.min_timestamp == i64::MAX {
        walked.min_timestamp = NO_TIMESTAMP;
    }
    Ok(walked)
}

/// Where the walk is. It only goes forward, so that one comparison at a record's end finds whatever reached beyond it.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// One record: its timestamp, and whether it has a key.
    #[inline]
    fn record(&mut self, index: i32, base_timestamp: i64) -> Result<(i64, bool), &'static str> {
        const CUT: &str = "it reaches past the end of the batch";
        let size = self.length().and_then(|size| usize::try_from(size).ok()).ok_or("its length cannot be read")?;
        let end = self.at.checked_add(size).filter(|end| *end <= self.bytes.len()).ok_or(CUT)?;
        self.at += 1; // attributes: none are assigned
        let delta = self.long().ok_or("its timestamp cannot be read")?;
        let timestamp = base_timestamp.checked_add(delta).ok_or("its timestamp is no number of 64 bits")?;
        if self.length() != Some(index) {
            return Err("its offset is not the one that follows");
        }
        let has_key = self.part().ok_or("its key is longer than the batch")?;
        self.part().ok_or("its value is longer than the batch")?;
        let headers = self.length().filter(|count| *count >= 0).ok_or("its count of headers is none")?;
        for _ in 0..headers {
            if self.part() != Some(true) {
                return Err("a header has no key");
            }
            self.part().ok_or("a header's value is longer than the batch")?;
        }
        if self.at == end { Ok((timestamp, has_key)) } else { Err("its length is not that of what it holds") }
    }

    /// Steps over a key or value; false if it is null. None: it does not fit.
    #[inline]
    fn part(&mut self) -> Option<bool> {
        let size = self.length()?;
        if size == -1 {
            return Some(false);
        }
        self.at = self.at.checked_add(usize::try_from(size).ok()?).filter(|at| *at <= self.bytes.len())?;
        Some(true)
    }

    /// A zigzag varint of 32 bits.
    #[inline]
    fn length(&mut self) -> Option<i32> {
        let raw = u32::try_from(self.groups(5)?).ok()?;
        Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A zigzag varint of 64 bits.
    #[inline]
    fn long(&mut self) -> Option<i64> {
        let raw = self.groups(10)?;
        Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// Groups of seven bits, the least significant first, in at most so many bytes. Nearly all take one or two.
    #[inline]
    fn groups(&mut self, bytes_max: usize) -> Option<u64> {
        let first = *self.bytes.get(self.at)?;
        if first < 0x80 {
            self.at += 1;
            return Some(u64::from(first));
        }
        match self.bytes.get(self.at + 1) {
            Some(second) if *second < 0x80 => {
                self.at += 2;
                Some(u64::from(first & 0x7f) | u64::from(*second) << 7)
            }
            _ => self.many_groups(bytes_max),
        }
    }

    #[cold]
    fn many_groups(&mut self, bytes_max: usize) -> Option<u64> {
        let mut raw = 0u64;
        for (at, byte) in self.bytes.get(self.at..)?.iter().take(bytes_max).enumerate() {
            raw |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.at += at + 1;
                return Some(raw);
            }
        }
        None
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test fails where it indexes")]
mod tests {
    use super::*;
    use crate::batch::{Builder, place, write_varint};
    use crate::prng::Prng;

    /// A batch of the given record bodies, each behind its true length.
    fn batch(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut records = Vec::new();
        for body in bodies {
            write_varint(&mut records, body.len() as i64);
            records.extend_from_slice(body);
        }
        with_records(&records, bodies.len() as i32)
    }

    fn with_records(records: &[u8], count: i32) -> Vec<u8> {
        let mut builder = Builder::new(1000);
        builder.push(1000, None, None);
        let mut bytes = builder.finish();
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(records);
        bytes[place::COUNT..place::COUNT + 4].copy_from_slice(&count.to_be_bytes());
        let length = (bytes.len() - crate::batch::LENGTH_OVERHEAD) as i32;
        bytes[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn body(numbers: &[i64]) -> Vec<u8> {
        let mut out = vec![0];
        numbers.iter().for_each(|number| write_varint(&mut out, *number));
        out
    }

    fn walk(bytes: &[u8]) -> Result<Walked, String> {
        let header = Header::parse(bytes).unwrap();
        check(bytes, &header).map_err(|error| error.to_string())
    }

    #[test]
    fn sound_records_give_their_greatest_and_smallest_timestamp_and_whether_a_key_is_null() {
        let mut builder = Builder::new(1000);
        builder.push(1000, Some(b"k"), Some(&[7; 300]));
        builder.push(1900, Some(b""), None);
        builder.push(500, Some(&[1; 70_000]), Some(b""));
        assert_eq!(walk(&builder.finish()), Ok(Walked { max_timestamp: 1900, min_timestamp: 500, has_null_key: false }));
        let headers = [body(&[0, 0, -1, -1, 2]), vec![2, b'h', 1, 0, 4, b'a', b'b']].concat();
        assert_eq!(walk(&batch(&[headers])), Ok(Walked { max_timestamp: 1000, min_timestamp: 1000, has_null_key: true }));
    }

    #[test]
    fn a_record_without_a_timestamp_has_no_part_in_the_smallest() {
        let smallest = |timestamps: &[i64]| {
            let mut builder = Builder::new(1000);
            timestamps.iter().for_each(|timestamp| builder.push(*timestamp, None, None));
            walk(&builder.finish()).unwrap().min_timestamp
        };
        assert_eq!(smallest(&[1000, -1, 7, 9]), 7);
        assert_eq!(smallest(&[-1, -1]), -1);
        assert_eq!(smallest(&[-1, -2]), -2);
        assert_eq!(smallest(&[i64::MAX]), i64::MAX);
    }

    #[test]
    fn whatever_a_header_or_a_length_says_wrongly_is_found() {
        let good = |index| body(&[0, index, -1, -1, 0]);
        let refused = |bytes: Vec<u8>, what: &str| {
            let found = walk(&bytes).unwrap_err();
            assert!(found.contains(what), "{found}");
        };
        let two = [good(0), good(1)];
        assert!(walk(&batch(&two)).is_ok());
        let records = &batch(&two)[HEADER_BYTES..];
        refused(with_records(records, 3), "record 2: its length cannot be read");
        refused(with_records(records, 1), "record 1: it is one more than the header counts");
        refused(with_records(&records[..records.len() - 1], 2), "past the end of the batch");
        refused(batch(&[good(0), good(2)]), "record 1: its offset");
        refused(batch(&[good(0), good(0)]), "record 1: its offset");
        refused(batch(&[[good(0), vec![0]].concat()]), "its length is not that");
        refused(batch(&[body(&[0, 0, 9, -1, 0])]), "its key");
        refused(batch(&[body(&[0, 0, -1, 9])]), "its value");
        refused(batch(&[body(&[0, 0, -1, -2, 0])]), "its value");
        refused(batch(&[body(&[0, 0, -1, -1, -1])]), "its count of headers");
        refused(batch(&[body(&[0, 0, -1, -1, 1, -1, -1])]), "a header has no key");
        refused(batch(&[body(&[0, 0, -1, -1, 1])]), "a header has no key");
        refused(batch(&[body(&[i64::MAX, 0, -1, -1, 0])]), "no number of 64 bits");
        refused(batch(&[vec![]]), "its timestamp cannot be read");
        refused(batch(&[vec![], good(1)]), "record 0");
        // Six bytes for one number, and 33 bits in five: Kafka's readers stop at both.
        refused(batch(&[vec![0, 0, 0, 0x81, 0x80, 0x80, 0x80, 0x80, 0, 1, 0]]), "its key");
        refused(batch(&[vec![0, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 1, 0]]), "its offset");
    }

    #[test]
    fn whatever_the_bytes_the_walk_ends_and_finds_what_the_reader_finds() {
        let mut prng = Prng::new(0x5eed);
        for _ in 0..20_000 {
            let mut builder = Builder::new(1000);
            for n in 0..=prng.below(5) {
                builder.push(1000 + n as i64, Some(&[1; 3]), (n % 2 == 0).then_some(&[2; 9]));
            }
            let mut bytes = builder.finish();
            for _ in 0..prng.below(3) {
                let at = HEADER_BYTES + prng.below((bytes.len() - HEADER_BYTES) as u64) as usize;
                bytes[at] = prng.next_u64() as u8;
            }
            if walk(&bytes).is_ok() {
                let read: Vec<_> = crate::batch::records(&bytes).collect();
                assert!(read.iter().enumerate().all(|(n, record)| record.is_some_and(|record| record.offset == n as i64)), "{bytes:02x?}");
            }
        }
    }
}
