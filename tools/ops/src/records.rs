//! Records as a producer packs them into batches and a consumer takes them out again.
//!
//! 1. [`Packer`] gathers the records of one partition and makes them one batch, compressed by a [`Codec`].
//! 2. [`open`] checks a batch and gives its records; headers stay in their order, and one name may come twice.
//!
//! Invariants: nothing that a length claims is believed before the bytes are there; what is unpacked has a bound.
//!
//! Knows nothing of topics and connections.

use std::io::{Read, Write};

use millrace_base::batch::{self, HEADER_BYTES, Header, LENGTH_OVERHEAD, place, read_varint, write_varint};
use millrace_base::crc::crc32c;
use millrace_base::zstd::CLIENT_WINDOW_MAX;

use crate::failure::{Failure, Kind, Outcome};

/// A batch that unpacks to more is refused.
const UNPACKED_BYTES_MAX: u64 = 256 << 20;

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEAD_BYTES: usize = 16;

/// A name and a value that may be absent.
pub type RecordHeader = (Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Record {
    /// Set by the broker.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<RecordHeader>,
}

impl Record {
    /// Bytes that it takes in a batch, at most, not compressed.
    pub fn size(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + len(value) + 10).sum();
        len(&self.key) + len(&self.value) + headers + 36
    }
}

/// How a batch is compressed; the numbers are the format's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Codec {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    pub const NAMES: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// `None` for a name that is not in [`Codec::NAMES`].
    pub fn from_name(name: &str) -> Option<Codec> {
        Codec::ALL.into_iter().zip(Codec::NAMES).find(|(_, known)| *known == name).map(|(codec, _)| codec)
    }

    fn pack(self, bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
        Ok(match self {
            Codec::None => bytes,
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&bytes)?;
                encoder.finish()?
            }
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(&bytes)?,
            Codec::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(&bytes)?;
                encoder.finish()?
            }
            Codec::Zstd => ruzstd::encoding::compress_to_vec(bytes.as_slice(), ruzstd::encoding::CompressionLevel::Fastest),
        })
    }

    fn unpack(self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Codec::None => Ok(bytes.to_vec()),
            Codec::Gzip => all(flate2::read::MultiGzDecoder::new(bytes)),
            Codec::Snappy => snappy(bytes),
            Codec::Lz4 => all(lz4_flex::frame::FrameDecoder::new(bytes)),
            Codec::Zstd => zstd(bytes),
        }
    }
}

fn all(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    from.take(UNPACKED_BYTES_MAX + 1).read_to_end(&mut out)?;
    if out.len() as u64 > UNPACKED_BYTES_MAX { Err(std::io::Error::other("it unpacks to too much")) } else { Ok(out) }
}

/// Frame after frame. Until its window is full a frame gives nothing, so a window is memory before the bound on what is unpacked counts.
fn zstd(mut bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        if millrace_base::zstd::window(bytes).is_none_or(|window| window > CLIENT_WINDOW_MAX) {
            return Err(std::io::Error::other("it is no zstd frame, or its window is too large"));
        }
        let decoder = ruzstd::decoding::StreamingDecoder::new(&mut bytes).map_err(std::io::Error::other)?;
        out.append(&mut all(decoder)?);
        if out.len() as u64 > UNPACKED_BYTES_MAX {
            return Err(std::io::Error::other("it unpacks to too much"));
        }
    }
    Ok(out)
}

/// Java's clients frame their blocks, others send one block bare.
fn snappy(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let block = |bytes: &[u8]| {
        if snap::raw::decompress_len(bytes)? as u64 > UNPACKED_BYTES_MAX {
            return Err(std::io::Error::other("it unpacks to too much"));
        }
        Ok(snap::raw::Decoder::new().decompress_vec(bytes)?)
    };
    if !bytes.starts_with(XERIAL_MAGIC) {
        return block(bytes);
    }
    let mut rest = bytes.get(XERIAL_HEAD_BYTES..).ok_or_else(short)?;
    let mut out = Vec::new();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        out.extend(block(behind.get(..len).ok_or_else(short)?)?);
        rest = &behind[len..];
        if out.len() as u64 > UNPACKED_BYTES_MAX {
            return Err(std::io::Error::other("it unpacks to too much"));
        }
    }
    Ok(out)
}

/// What an idempotent producer writes into a batch: who it is, and the number of the batch's first record in its partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbering {
    pub id: i64,
    pub epoch: i16,
    pub first: i32,
}

const NOT_NUMBERED: Numbering = Numbering { id: -1, epoch: -1, first: -1 };

/// Gathers records of one partition.
#[derive(Default)]
pub struct Packer {
    bytes: Vec<u8>,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
}

impl Packer {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes so far, not compressed.
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.bytes.len()
    }

    pub fn push(&mut self, record: &Record) {
        if self.count == 0 {
            (self.base_timestamp, self.max_timestamp) = (record.timestamp, record.timestamp);
        }
        let mut body = vec![0];
        write_varint(&mut body, record.timestamp.wrapping_sub(self.base_timestamp));
        write_varint(&mut body, i64::from(self.count));
        write_part(&mut body, record.key.as_deref());
        write_part(&mut body, record.value.as_deref());
        write_varint(&mut body, record.headers.len() as i64);
        for (name, value) in &record.headers {
            write_part(&mut body, Some(name));
            write_part(&mut body, value.as_deref());
        }
        write_varint(&mut self.bytes, body.len() as i64);
        self.bytes.extend_from_slice(&body);
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.count += 1;
    }

    /// One batch of all records so far.
    ///
    /// # Errors
    /// They cannot be compressed, or are more than a batch can hold.
    pub fn finish(self, codec: Codec, numbering: Option<Numbering>) -> Outcome<Vec<u8>> {
        let Numbering { id, epoch, first } = numbering.unwrap_or(NOT_NUMBERED);
        let failed = |what: String| Failure::new(Kind::Failed, format!("a batch cannot be made: {what}"));
        let packed = codec.pack(self.bytes).map_err(|error| failed(error.to_string()))?;
        let length = i32::try_from(HEADER_BYTES - LENGTH_OVERHEAD + packed.len()).map_err(|_| failed("it is too long".to_owned()))?;
        let mut out = vec![0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(place::LENGTH, &length.to_be_bytes());
        put(place::EPOCH, &(-1i32).to_be_bytes());
        put(place::MAGIC, &[2]);
        put(place::ATTRIBUTES, &(codec as i16).to_be_bytes());
        put(place::LAST_OFFSET_DELTA, &(self.count - 1).to_be_bytes());
        put(place::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(place::MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        put(place::PRODUCER_ID, &id.to_be_bytes());
        put(place::PRODUCER_EPOCH, &epoch.to_be_bytes());
        put(place::BASE_SEQUENCE, &first.to_be_bytes());
        put(place::COUNT, &self.count.to_be_bytes());
        out.extend_from_slice(&packed);
        let crc = crc32c(&out[place::ATTRIBUTES..]);
        out[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        Ok(out)
    }
}

fn write_part(out: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        None => write_varint(out, -1),
        Some(part) => {
            write_varint(out, part.len() as i64);
            out.extend_from_slice(part);
        }
    }
}

/// The records of one whole batch; `batch` is exactly as long as its header says.
///
/// # Errors
/// The checksum is wrong, or the bytes are no records.
pub fn open(header: &Header, batch: &[u8]) -> Outcome<Vec<Record>> {
    let failed = |what: &str| Failure::new(Kind::Failed, format!("the batch at offset {} cannot be read: {what}", header.base_offset));
    if crc32c(&batch[place::ATTRIBUTES..]) != header.crc {
        return Err(failed("its checksum is wrong"));
    }
    let codec = Codec::ALL.get(usize::from(header.codec())).ok_or_else(|| failed("its codec is unknown"))?;
    let unpacked = codec.unpack(&batch[HEADER_BYTES..]).map_err(|error| failed(&error.to_string()))?;
    let mut rest = unpacked.as_slice();
    (0..header.count).map(|_| read_record(header, &mut rest).ok_or_else(|| failed("a record is malformed"))).collect()
}

fn read_record(header: &Header, rest: &mut &[u8]) -> Option<Record> {
    let size = usize::try_from(read_varint(rest)?).ok()?;
    let mut body = rest.get(..size)?.get(1..)?;
    *rest = &rest[size..];
    let timestamp = header.base_timestamp.checked_add(read_varint(&mut body)?)?;
    let timestamp = if header.is_append_time() { header.max_timestamp } else { timestamp };
    let offset = header.base_offset.checked_add(read_varint(&mut body)?)?;
    let (key, value) = (read_part(&mut body)?, read_part(&mut body)?);
    let mut headers = Vec::new();
    for _ in 0..read_varint(&mut body)? {
        headers.push((read_part(&mut body)??, read_part(&mut body)?));
    }
    Some(Record { offset, timestamp, key, value, headers })
}

fn read_part(body: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let length = read_varint(body)?;
    if length < 0 {
        return Some(None);
    }
    let (part, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
    *body = rest;
    Some(Some(part.to_vec()))
}

/// The batches that stand whole in `bytes`, with their headers; a cut one at the end is left out.
///
/// # Errors
/// What stands there is no batch.
pub fn batches(mut bytes: &[u8]) -> Outcome<Vec<(Header, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let header = match Header::parse(bytes) {
            Ok(header) => header,
            Err(batch::BatchError::Short { .. }) => break,
            Err(error) => return Err(Failure::new(Kind::Failed, error.to_string())),
        };
        let Some((own, rest)) = bytes.split_at_checked(header.size) else { break };
        found.push((header, own));
        bytes = rest;
    }
    Ok(found)
}

/// The hash by which Java's clients choose a key's partition.
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ (bytes.len() as u32);
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition that Java's clients give a key; `partitions` is not 0.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_with_any_codec_is_taken_out_again() {
        let header = |name: &str, value: Option<&[u8]>| (name.as_bytes().to_vec(), value.map(<[u8]>::to_vec));
        let record = |offset: i64| Record {
            offset,
            timestamp: 1_000 - offset,
            key: (offset % 2 == 0).then(|| vec![0, 255]),
            value: (offset % 3 != 0).then(|| vec![b'v'; 300]),
            headers: vec![header("twice", Some(b"a")), header("twice", None)],
        };
        let records: Vec<Record> = (0..100).map(record).collect();
        for codec in Codec::ALL {
            let mut packer = Packer::default();
            records.iter().for_each(|record| packer.push(record));
            let numbering = Numbering { id: 7, epoch: 1, first: 5 };
            let bytes = packer.finish(codec, Some(numbering)).unwrap();
            let header = batch::check(&bytes).unwrap();
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 1, 5));
            let twice = [bytes.as_slice(), &bytes[..bytes.len() - 1]].concat();
            let found = batches(&twice).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(open(&found[0].0, found[0].1), Ok(records.clone()), "{codec:?}");
            let mut hurt = bytes.clone();
            hurt[HEADER_BYTES + 3] ^= 1;
            assert!(open(&found[0].0, &hurt).is_err());
        }
    }

    #[test]
    fn a_zstd_window_has_a_bound_and_frames_follow_each_other() {
        // Magic, no single segment, a window of 2 GiB, then of 128 MiB; one empty last block.
        let frame = |window: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x00, window, 0x01, 0x00, 0x00];
        assert!(Codec::Zstd.unpack(&frame(0xa8)).is_err());
        assert!(Codec::Zstd.unpack(&frame(0x88)).unwrap().is_empty());
        // One segment of 4 GiB less a byte, as the frame says, in an empty block.
        assert!(Codec::Zstd.unpack(&[0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00, 0x00]).is_err());
        let one = Codec::Zstd.pack(b"one".to_vec()).unwrap();
        assert_eq!(Codec::Zstd.unpack(&[one.as_slice(), &one].concat()).unwrap(), b"oneone");
    }

    #[test]
    fn keys_hash_as_with_javas_clients() {
        // The values of Kafka's own test of its hash.
        for (key, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)] {
            assert_eq!(murmur2(key.as_bytes()), i32::cast_unsigned(hash), "{key}");
        }
    }
}
