//! Kafka's record batch, version 2: the unit of append, of storage and of transfer.
//!
//! 1. [`Header::parse`] reads the 61 fixed bytes; [`check`] proves one whole batch: lengths, magic, CRC, counts.
//! 2. [`patch`] writes base offset and leader epoch in place: both lie outside the CRC.
//! 3. [`stamp_append_time`] does what `message.timestamp.type=LogAppendTime` asks and computes the CRC anew.
//! 4. [`Builder`] and [`records`] write and read uncompressed batches, for the internal partitions only. What clients send is proved by
//!    [`crate::record_walk`].
//!
//! Invariants: 61 <= size; count = last offset delta + 1 in what [`check`] lets pass from a client; 0 <= delta.
//! Knows nothing of topics, compression codecs or of who sent the bytes.
//!
//! Source: Kafka's `RecordBatch` message format, magic 2.

use crate::crc::{crc32c, crc32c_of};
use crate::offset::{Epoch, Offset};
use std::fmt;

/// Byte places in the header; all integers are big-endian.
pub mod place {
    pub const BASE_OFFSET: usize = 0;
    pub const LENGTH: usize = 8;
    pub const EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const COUNT: usize = 57;
    pub const RECORDS: usize = 61;
}

/// Size of the fixed header.
pub const HEADER_BYTES: usize = place::RECORDS;
/// Bytes in front of what the length field counts.
pub const LENGTH_OVERHEAD: usize = 12;

const ATTRIBUTE_CODEC: i16 = 0b111;
const ATTRIBUTE_APPEND_TIME: i16 = 1 << 3;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;
const ATTRIBUTES_OF_CLIENTS: i16 = ATTRIBUTE_CODEC | ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL;

/// The fixed header of one batch, as found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub base_offset: Offset,
    /// Whole batch, header included.
    pub size: usize,
    pub epoch: Epoch,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

/// Why bytes are not a batch that may be appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// Fewer bytes than the header, or than its length field claims.
    Short {
        needed: usize,
        found: usize,
    },
    /// The length field is below the smallest batch or negative.
    Length {
        found: i32,
    },
    /// More bytes than one batch.
    Trailing {
        size: usize,
        found: usize,
    },
    Magic {
        found: i8,
    },
    Crc {
        expected: u32,
        found: u32,
    },
    /// Record count and last offset delta disagree, or a client's batch is empty.
    Count {
        count: i32,
        last_offset_delta: i32,
    },
    /// A producer id without a sequence or an epoch, or the reverse.
    Producer,
    /// Attributes that a client may not set: the timestamp type is the topic's, and bits above control are unassigned.
    Attributes {
        found: i16,
    },
    /// A record of an uncompressed batch is not what its lengths or the header say.
    Record {
        index: i32,
        reason: &'static str,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::Short { needed, found } => write!(f, "the batch is cut: it needs {needed} bytes, {found} are here"),
            BatchError::Length { found } => write!(f, "the batch length {found} is impossible"),
            BatchError::Trailing { size, found } => write!(f, "more than one batch: {found} bytes where the first batch has {size}"),
            BatchError::Magic { found } => {
                write!(f, "batch magic {found}: only version 2 is stored")
            }
            BatchError::Crc { expected, found } => write!(f, "the batch's CRC field says {expected:#010x}, its bytes have {found:#010x}"),
            BatchError::Count { count, last_offset_delta } => {
                write!(f, "the batch counts {count} records, but its last offset delta is {last_offset_delta}")
            }
            BatchError::Attributes { found } => {
                write!(f, "batch attributes {found:#06x}: a client sets codec, transactional and control bits")
            }
            BatchError::Record { index, reason } => write!(f, "record {index}: {reason}"),
            BatchError::Producer => write!(f, "producer id, epoch and sequence do not go together"),
        }
    }
}

impl std::error::Error for BatchError {}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl Header {
    /// Reads the fixed header; checks lengths and magic only.
    ///
    /// # Errors
    /// `Short` (of the header: never of the records), `Length`, `Magic`.
    pub fn parse(bytes: &[u8]) -> Result<Header, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Short { needed: HEADER_BYTES, found: bytes.len() });
        }
        let length = i32::from_be_bytes(array(bytes, place::LENGTH));
        if length < (HEADER_BYTES - LENGTH_OVERHEAD) as i32 {
            return Err(BatchError::Length { found: length });
        }
        let magic = bytes[place::MAGIC] as i8;
        if magic != 2 {
            return Err(BatchError::Magic { found: magic });
        }
        Ok(Header {
            base_offset: i64::from_be_bytes(array(bytes, place::BASE_OFFSET)),
            size: length as usize + LENGTH_OVERHEAD,
            epoch: i32::from_be_bytes(array(bytes, place::EPOCH)),
            crc: u32::from_be_bytes(array(bytes, place::CRC)),
            attributes: i16::from_be_bytes(array(bytes, place::ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(array(bytes, place::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(array(bytes, place::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(array(bytes, place::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(array(bytes, place::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(array(bytes, place::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(array(bytes, place::BASE_SEQUENCE)),
            count: i32::from_be_bytes(array(bytes, place::COUNT)),
        })
    }

    /// The last offset that this batch covers.
    pub fn last_offset(&self) -> Offset {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset after the last.
    pub fn next_offset(&self) -> Offset {
        self.last_offset() + 1
    }

    /// 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; 5-7 are unassigned.
    pub fn codec(&self) -> u8 {
        (self.attributes & ATTRIBUTE_CODEC) as u8
    }

    pub fn is_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// The sequence of the last record; wraps from 2^31 - 1 to 0 as Kafka's does.
    pub fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.last_offset_delta)
    }
}

/// `sequence` plus `steps`, in Kafka's arithmetic: the number after 2^31 - 1 is 0.
pub fn sequence_after(sequence: i32, steps: i32) -> i32 {
    ((i64::from(sequence) + i64::from(steps)) & i64::from(i32::MAX)) as i32
}

/// Proves that `bytes` is exactly one whole batch that a client may append: lengths, magic, CRC, counts, producer fields.
///
/// # Errors
/// Any [`BatchError`].
pub fn check(bytes: &[u8]) -> Result<Header, BatchError> {
    let header = check_stored(bytes)?;
    if header.size != bytes.len() {
        return Err(BatchError::Trailing { size: header.size, found: bytes.len() });
    }
    if header.attributes & !ATTRIBUTES_OF_CLIENTS != 0 {
        return Err(BatchError::Attributes { found: header.attributes });
    }
    if header.count <= 0 || header.last_offset_delta != header.count - 1 {
        return Err(BatchError::Count { count: header.count, last_offset_delta: header.last_offset_delta });
    }
    let idempotent = header.producer_id >= 0;
    if idempotent && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(BatchError::Producer);
    }
    Ok(header)
}

/// Proves that `bytes` begins with one whole intact batch, as a stored one may be (compaction leaves gaps in counts).
///
/// # Errors
/// `Short`, `Length`, `Magic`, `Crc`, and `Count` when the delta is negative.
pub fn check_stored(bytes: &[u8]) -> Result<Header, BatchError> {
    let header = Header::parse(bytes)?;
    if bytes.len() < header.size {
        return Err(BatchError::Short { needed: header.size, found: bytes.len() });
    }
    let found = crc32c(&bytes[place::ATTRIBUTES..header.size]);
    if found != header.crc {
        return Err(BatchError::Crc { expected: header.crc, found });
    }
    if header.last_offset_delta < 0 || header.count < 0 {
        return Err(BatchError::Count { count: header.count, last_offset_delta: header.last_offset_delta });
    }
    Ok(header)
}

/// The CRC of the header bytes that the batch's own CRC leaves out (base offset, length, epoch, magic), and of that CRC: two batches
/// that differ anywhere differ in it.
pub fn outer_crc(bytes: &[u8]) -> u32 {
    crc32c_of(&[&bytes[..place::ATTRIBUTES]])
}

/// Writes base offset and leader epoch in place.
pub fn patch(bytes: &mut [u8], base_offset: Offset, epoch: Epoch) {
    bytes[place::BASE_OFFSET..place::BASE_OFFSET + 8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[place::EPOCH..place::EPOCH + 4].copy_from_slice(&epoch.to_be_bytes());
}

/// Sets timestamp type LogAppendTime and the max timestamp, and computes the CRC anew. `batch` is one whole batch.
pub fn stamp_append_time(batch: &mut [u8], now: i64) {
    let attributes = i16::from_be_bytes(array(batch, place::ATTRIBUTES)) | ATTRIBUTE_APPEND_TIME;
    batch[place::ATTRIBUTES..place::ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    set_max_timestamp(batch, now);
}

/// The max timestamp that the header of a whole batch says.
pub fn max_timestamp(batch: &[u8]) -> i64 {
    i64::from_be_bytes(array(batch, place::MAX_TIMESTAMP))
}

/// Sets the max timestamp and computes the CRC anew. `batch` is one whole batch.
pub fn set_max_timestamp(batch: &mut [u8], max_timestamp: i64) {
    batch[place::MAX_TIMESTAMP..place::MAX_TIMESTAMP + 8].copy_from_slice(&max_timestamp.to_be_bytes());
    let crc = crc32c(&batch[place::ATTRIBUTES..]);
    batch[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

/// One record of an uncompressed batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    pub offset: Offset,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    /// None is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Writes one uncompressed batch without producer fields.
pub struct Builder {
    bytes: Vec<u8>,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
}

impl Builder {
    pub fn new(timestamp: i64) -> Builder {
        Builder { bytes: vec![0; HEADER_BYTES], base_timestamp: timestamp, max_timestamp: timestamp, count: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far, header included.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let mut body = Vec::with_capacity(32 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len));
        body.push(0);
        write_varint(&mut body, timestamp - self.base_timestamp);
        write_varint(&mut body, i64::from(self.count));
        for part in [key, value] {
            match part {
                None => write_varint(&mut body, -1),
                Some(part) => {
                    write_varint(&mut body, part.len() as i64);
                    body.extend_from_slice(part);
                }
            }
        }
        write_varint(&mut body, 0);
        write_varint(&mut self.bytes, body.len() as i64);
        self.bytes.extend_from_slice(&body);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
    }

    /// The whole batch with base offset 0 and epoch -1, to be patched on append. Must hold a record.
    pub fn finish(mut self) -> Vec<u8> {
        assert!(self.count > 0, "a batch holds at least one record");
        let length = (self.bytes.len() - LENGTH_OVERHEAD) as i32;
        let b = &mut self.bytes;
        b[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        b[place::EPOCH..place::EPOCH + 4].copy_from_slice(&(-1i32).to_be_bytes());
        b[place::MAGIC] = 2;
        b[place::LAST_OFFSET_DELTA..place::LAST_OFFSET_DELTA + 4].copy_from_slice(&(self.count - 1).to_be_bytes());
        b[place::BASE_TIMESTAMP..place::BASE_TIMESTAMP + 8].copy_from_slice(&self.base_timestamp.to_be_bytes());
        b[place::MAX_TIMESTAMP..place::MAX_TIMESTAMP + 8].copy_from_slice(&self.max_timestamp.to_be_bytes());
        b[place::PRODUCER_ID..place::PRODUCER_ID + 8].copy_from_slice(&(-1i64).to_be_bytes());
        b[place::PRODUCER_EPOCH..place::PRODUCER_EPOCH + 2].copy_from_slice(&(-1i16).to_be_bytes());
        b[place::BASE_SEQUENCE..place::BASE_SEQUENCE + 4].copy_from_slice(&(-1i32).to_be_bytes());
        b[place::COUNT..place::COUNT + 4].copy_from_slice(&self.count.to_be_bytes());
        let crc = crc32c(&b[place::ATTRIBUTES..]);
        b[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        self.bytes
    }
}

/// The records of one whole uncompressed batch. Stops at the first malformed record with `None` inside.
///
/// Each item borrows from `batch`; nothing is allocated.
pub fn records(batch: &[u8]) -> Records<'_> {
    let header = Header::parse(batch).ok().filter(|h| h.codec() == 0 && h.size <= batch.len());
    match header {
        Some(header) => Records { header: Some(header), rest: &batch[HEADER_BYTES..header.size], left: header.count },
        None => Records { header: None, rest: &[], left: 1 },
    }
}

/// The records of a batch with this header, of which `bytes` are what was compressed.
pub fn opened_records<'a>(header: &Header, bytes: &'a [u8]) -> Records<'a> {
    Records { header: Some(*header), rest: bytes, left: header.count }
}

/// Iterator of [`records`].
pub struct Records<'a> {
    header: Option<Header>,
    rest: &'a [u8],
    left: i32,
}

impl<'a> Iterator for Records<'a> {
    /// None: the bytes are not a record; iteration ends after it.
    type Item = Option<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        let record = self.header.and_then(|header| read_record(&header, &mut self.rest));
        self.left = if record.is_some() { self.left - 1 } else { 0 };
        Some(record)
    }
}

fn read_record<'a>(header: &Header, rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let size = usize::try_from(read_varint(rest)?).ok()?;
    let mut body = rest.get(..size)?;
    *rest = &rest[size..];
    body = body.get(1..)?;
    let timestamp = header.base_timestamp.checked_add(read_varint(&mut body)?)?;
    let offset = header.base_offset.checked_add(read_varint(&mut body)?)?;
    let key = read_part(&mut body)?;
    let value = read_part(&mut body)?;
    Some(Record { offset, timestamp, key, value })
}

fn read_part<'a>(body: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = read_varint(body)?;
    if length < 0 {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    let part = body.get(..length)?;
    *body = &body[length..];
    Some(Some(part))
}

/// Appends a zigzag varint, as records use them.
pub fn write_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Reads a zigzag varint of at most ten bytes and moves `bytes` past it.
pub fn read_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw: u64 = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        raw |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut builder = Builder::new(1000);
        builder.push(1000, Some(b"k"), Some(b"value"));
        builder.push(1007, None, None);
        builder.finish()
    }

    #[test]
    fn a_built_batch_passes_the_check_and_reads_back() {
        let mut batch = sample();
        patch(&mut batch, 40, 3);
        let header = check(&batch).unwrap();
        assert_eq!((header.base_offset, header.epoch, header.last_offset(), header.max_timestamp), (40, 3, 41, 1007));
        let read: Vec<_> = records(&batch).map(Option::unwrap).collect();
        assert_eq!(read[0], Record { offset: 40, timestamp: 1000, key: Some(b"k"), value: Some(b"value") });
        assert_eq!(read[1], Record { offset: 41, timestamp: 1007, key: None, value: None });
    }

    #[test]
    fn every_flipped_byte_under_the_crc_is_noticed() {
        let batch = sample();
        for place in place::MAGIC..batch.len() {
            let mut bad = batch.clone();
            bad[place] ^= 0x10;
            assert!(check(&bad).is_err(), "byte {place}");
        }
    }

    #[test]
    fn a_count_that_lies_is_refused() {
        let mut batch = sample();
        batch[place::COUNT + 3] = 9;
        let crc = crc32c(&batch[place::ATTRIBUTES..]);
        batch[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(check(&batch), Err(BatchError::Count { count: 9, last_offset_delta: 1 }));
    }

    #[test]
    fn append_time_keeps_the_batch_valid() {
        let mut batch = sample();
        stamp_append_time(&mut batch, 77);
        let header = check_stored(&batch).unwrap();
        assert!(header.is_append_time());
        assert_eq!(header.max_timestamp, 77);
    }

    #[test]
    fn attributes_that_are_the_brokers_are_refused() {
        for bit in [3, 6, 7, 14] {
            let mut batch = sample();
            batch[place::ATTRIBUTES..place::ATTRIBUTES + 2].copy_from_slice(&(1i16 << bit).to_be_bytes());
            let crc = crc32c(&batch[place::ATTRIBUTES..]);
            batch[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
            assert_eq!(check(&batch), Err(BatchError::Attributes { found: 1 << bit }));
        }
    }

    #[test]
    fn a_max_timestamp_can_be_set_right() {
        let mut batch = sample();
        set_max_timestamp(&mut batch, 9);
        assert_eq!((max_timestamp(&batch), check(&batch).unwrap().max_timestamp), (9, 9));
    }

    #[test]
    fn cut_batches_never_panic() {
        let batch = sample();
        for length in 0..batch.len() {
            assert!(check(&batch[..length]).is_err());
            records(&batch[..length]).for_each(drop);
        }
    }

    #[test]
    fn varints_round_trip_at_their_edges() {
        for value in [0, -1, 1, 63, 64, -64, -65, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            assert_eq!(read_varint(&mut bytes.as_slice()), Some(value));
        }
    }
}
