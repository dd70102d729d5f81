//! Records that prove what they are: each value names its producer, its number and its timestamp, and the rest follows from that.

use crate::packing;
use millrace_base::batch::{self, Builder, Header};
use millrace_base::crc::crc32c;
use millrace_base::prng::Prng;

/// One record that a producer has made: `producer << 32 | number`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ValueId(pub u64);

impl ValueId {
    pub fn new(producer: u32, number: u32) -> ValueId {
        ValueId(u64::from(producer) << 32 | u64::from(number))
    }

    pub fn producer(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub fn number(self) -> u32 {
        self.0 as u32
    }
}

/// Id and timestamp in front of every value.
const HEAD_BYTES: usize = 16;

/// How far a record's timestamp may lie before its batch's.
const EARLIER_MS_MAX: u64 = 400;

/// The bytes of a record's value, at least [`HEAD_BYTES`].
fn value(id: ValueId, timestamp: i64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len.max(HEAD_BYTES));
    bytes.extend(id.0.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.resize(len.max(HEAD_BYTES), 0);
    let mut prng = Prng::new(id.0);
    let (words, rest) = bytes[HEAD_BYTES..].as_chunks_mut::<8>();
    words.iter_mut().for_each(|word| *word = prng.next_u64().to_le_bytes());
    rest.copy_from_slice(&prng.next_u64().to_le_bytes()[..rest.len()]);
    bytes
}

/// Whose value these bytes are, and the timestamp it was made with; None: they are not as they were made.
fn read(bytes: &[u8]) -> Option<(ValueId, i64)> {
    let id = ValueId(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?));
    let timestamp = i64::from_be_bytes(bytes.get(8..HEAD_BYTES)?.try_into().ok()?);
    let mut prng = Prng::new(id.0);
    // A word at a time: a comparison of slices is a call, and this is where a run would spend much of its time.
    let (words, rest) = bytes[HEAD_BYTES..].as_chunks::<8>();
    let is_made = words.iter().all(|word| u64::from_le_bytes(*word) == prng.next_u64());
    (is_made && *rest == prng.next_u64().to_le_bytes()[..rest.len()]).then_some((id, timestamp))
}

/// Sequence fields of a batch; producer id -1: none.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    pub producer_id: i64,
    pub epoch: i16,
    pub first: i32,
}

/// A batch of `count` records with consecutive numbers, made at `now`: timestamps lie a little before it, and not in order.
pub fn batch(first: ValueId, count: u32, len: usize, now: i64, sequence: Option<Sequence>, codec: u8) -> Vec<u8> {
    let ids = || (0..u64::from(count)).map(|number| ValueId(first.0 + number));
    let timestamp = |id: ValueId| now - Prng::new(!id.0).below(EARLIER_MS_MAX) as i64;
    let mut builder = Builder::new(timestamp(first));
    for id in ids() {
        builder.push(timestamp(id), None, Some(&value(id, timestamp(id), len)));
    }
    let mut bytes = builder.finish();
    if codec != 0 {
        let packed = packing::pack(codec, &bytes[batch::place::RECORDS..]);
        bytes.truncate(batch::place::RECORDS);
        bytes.extend(packed);
        bytes[batch::place::ATTRIBUTES + 1] |= codec;
        let length = (bytes.len() - batch::LENGTH_OVERHEAD) as i32;
        bytes[batch::place::LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
    }
    if let Some(sequence) = sequence {
        bytes[batch::place::PRODUCER_ID..][..8].copy_from_slice(&sequence.producer_id.to_be_bytes());
        bytes[batch::place::PRODUCER_EPOCH..][..2].copy_from_slice(&sequence.epoch.to_be_bytes());
        bytes[batch::place::BASE_SEQUENCE..][..4].copy_from_slice(&sequence.first.to_be_bytes());
    }
    let crc = crc32c(&bytes[batch::place::ATTRIBUTES..]);
    bytes[batch::place::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The records of one whole batch as a reader sees them: whose each is, and its timestamp. None: not as it was made, the timestamp
/// included where the batch keeps its producer's.
pub fn records(bytes: &[u8], header: &Header) -> Vec<Option<(ValueId, i64)>> {
    let plain;
    let bytes = match header.codec() {
        0 => bytes,
        codec => {
            let Some(unpacked) = packing::unpack(codec, &bytes[batch::place::RECORDS..]) else {
                return vec![None; header.count.max(0) as usize];
            };
            plain = as_plain(&bytes[..batch::place::RECORDS], &unpacked);
            &plain
        }
    };
    let one = |record: batch::Record<'_>| {
        let (id, made) = read(record.value?)?;
        let shown = if header.is_append_time() { header.max_timestamp } else { record.timestamp };
        (header.is_append_time() || made == shown).then_some((id, shown))
    };
    batch::records(bytes).map(|record| one(record?)).collect()
}

/// The batch as it were without its codec.
fn as_plain(head: &[u8], records: &[u8]) -> Vec<u8> {
    let mut bytes = [head, records].concat();
    bytes[batch::place::ATTRIBUTES + 1] &= !0b111;
    let length = (bytes.len() - batch::LENGTH_OVERHEAD) as i32;
    bytes[batch::place::LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_the_same_records_and_an_altered_one_none() {
        let first = ValueId::new(3, 7);
        for codec in 0..packing::CODECS as u8 {
            let mut bytes = batch(first, 5, 100, 1_000_000, None, codec);
            let header = batch::check(&bytes).expect("a client may append it");
            assert_eq!(header.codec(), codec);
            let found = records(&bytes, &header);
            assert_eq!(found.len(), 5);
            assert!((0..5).all(|at| found[at].is_some_and(|(id, _)| id.0 == first.0 + at as u64)), "{found:?}");
            assert_eq!(found.iter().flatten().map(|(_, time)| *time).max(), Some(header.max_timestamp));
            let end = bytes.len() - 20;
            bytes[end] ^= 1;
            assert!(records(&bytes, &header).contains(&None), "codec {codec}");
        }
    }
}
