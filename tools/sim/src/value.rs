//! Records that prove what they are: each value names its producer and its number, and the rest follows from that.

use millrace_base::batch::{self, Builder};
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

/// The bytes of a record's value, at least 8.
pub fn value(id: ValueId, len: usize) -> Vec<u8> {
    let mut bytes = id.0.to_be_bytes().to_vec();
    let mut prng = Prng::new(id.0);
    while bytes.len() < len {
        bytes.extend_from_slice(&prng.next_u64().to_le_bytes());
    }
    bytes.truncate(len.max(8));
    bytes
}

/// Whose value these bytes are; None: they are not as they were made.
pub fn read(bytes: &[u8]) -> Option<ValueId> {
    let id = ValueId(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?));
    (value(id, bytes.len()) == bytes).then_some(id)
}

/// Sequence fields of a batch; producer id -1: none.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    pub producer_id: i64,
    pub epoch: i16,
    pub first: i32,
}

/// A batch of `count` records with consecutive numbers.
pub fn batch(first: ValueId, count: u32, len: usize, timestamp: i64, sequence: Option<Sequence>) -> Vec<u8> {
    let mut builder = Builder::new(timestamp);
    for number in 0..count {
        builder.push(timestamp, None, Some(&value(ValueId(first.0 + u64::from(number)), len)));
    }
    let mut bytes = builder.finish();
    if let Some(sequence) = sequence {
        bytes[batch::place::PRODUCER_ID..][..8].copy_from_slice(&sequence.producer_id.to_be_bytes());
        bytes[batch::place::PRODUCER_EPOCH..][..2].copy_from_slice(&sequence.epoch.to_be_bytes());
        bytes[batch::place::BASE_SEQUENCE..][..4].copy_from_slice(&sequence.first.to_be_bytes());
        let crc = crc32c(&bytes[batch::place::ATTRIBUTES..]);
        bytes[batch::place::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    }
    bytes
}
