//! Identities: nodes, shards, data directories, topics, partitions.
//!
//! A topic made again under an old name has a new topic id, so nothing that is keyed by [`PartitionId`] is ever shared by two of them.

use std::fmt;
use std::str::FromStr;

/// One broker process; Kafka's `node.id`. Not negative.
pub type NodeId = i32;

/// One thread of the engine with its ring; counted from 0.
pub type ShardId = u16;

/// Index of a data directory in the order of `log.dirs`.
pub type DirectoryIndex = u16;

/// 128 bits, written as Kafka writes a Uuid: URL-safe base64 without padding, 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Kafka's "no topic id".
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// A random version-4 identifier from 128 bits of entropy. Never one whose text begins with `-`, as Kafka avoids those too.
    pub fn from_entropy(high: u64, low: u64) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        if bytes[0] >> 2 == 62 {
            bytes[0] &= 0x7f; // 62 is '-'
        }
        Uuid(bytes)
    }

    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for digit in 0..22u32 {
            // 128 bits are 21 digits of six and one of two, padded with zeros on the right.
            let six = if digit < 21 { (bits >> (122 - 6 * digit)) & 63 } else { (bits & 3) << 4 };
            write!(f, "{}", BASE64_URL[six as usize] as char)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ();

    fn from_str(text: &str) -> Result<Uuid, ()> {
        if text.len() != 22 {
            return Err(());
        }
        let mut bits: u128 = 0;
        for (digit, byte) in text.bytes().enumerate() {
            let six = BASE64_URL.iter().position(|b| *b == byte).ok_or(())? as u128;
            if digit < 21 {
                bits = (bits << 6) | six;
            } else if six & 15 == 0 {
                bits = (bits << 2) | (six >> 4);
            } else {
                return Err(());
            }
        }
        Ok(Uuid(bits.to_be_bytes()))
    }
}

/// A topic's identity; its name is only a label.
pub type TopicId = Uuid;

/// One partition of one topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId {
    pub topic: TopicId,
    /// Counted from 0.
    pub index: u32,
}

/// The topic id of replica set 0, whose one partition holds the commands of `state/meta`.
pub const META_TOPIC: TopicId = Uuid(*b"\0\0\0\0\0\0\x40\0\x80\0\0\0\0\0\0\x01");

/// Replica set 0.
pub const META_PARTITION: PartitionId = PartitionId { topic: META_TOPIC, index: 0 };

impl PartitionId {
    /// The shard that owns this partition: (hash(topic id) + index) mod shards, so that the partitions of a topic spread evenly.
    pub fn shard(&self, shards: u16) -> ShardId {
        assert!(shards > 0);
        if *self == META_PARTITION {
            return 0;
        }
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325; // FNV-1a: stable across versions, which a shard's files depend on
        for byte in self.topic.0 {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        ((hash >> 16).wrapping_add(u64::from(self.index)) % u64::from(shards)) as ShardId
    }

    /// 20 bytes: topic id, then index, big-endian.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..16].copy_from_slice(&self.topic.0);
        out[16..].copy_from_slice(&self.index.to_be_bytes());
        out
    }

    pub fn from_bytes(bytes: &[u8; 20]) -> PartitionId {
        let (topic, index) = bytes.split_at(16);
        let mut id = [0; 16];
        id.copy_from_slice(topic);
        PartitionId { topic: Uuid(id), index: u32::from_be_bytes([index[0], index[1], index[2], index[3]]) }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_round_trips_and_is_kafkas() {
        // Kafka: Uuid.fromString("lb4FT2bSTeKNHx0xYbFRlw").toString() is itself.
        let id: Uuid = "lb4FT2bSTeKNHx0xYbFRlw".parse().unwrap();
        assert_eq!(id.to_string(), "lb4FT2bSTeKNHx0xYbFRlw");
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid([0xff; 16]).to_string().parse::<Uuid>(), Ok(Uuid([0xff; 16])));
        assert!("lb4FT2bSTeKNHx0xYbFRl/".parse::<Uuid>().is_err());
    }

    #[test]
    fn random_uuids_never_begin_with_a_dash() {
        for high in 0..=255u64 {
            assert!(!Uuid::from_entropy(high << 56, 1).to_string().starts_with('-'));
        }
    }

    #[test]
    fn partitions_of_a_topic_spread_over_all_shards() {
        let topic = Uuid::from_entropy(7, 9);
        let owners: Vec<u16> = (0..4).map(|index| PartitionId { topic, index }.shard(4)).collect();
        let mut sorted = owners.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3]);
        assert_eq!(PartitionId::from_bytes(&META_PARTITION.to_bytes()), META_PARTITION);
    }
}
