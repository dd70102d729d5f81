//! The bytes of an entry's contents: its records, one after the other.
//!
//! A record is a kind (1 byte), the partition (20), and the kind's fields in the order of [`Record`]'s definition, little-endian.
//!
//! Invariants: every payload range that [`decode`] lets pass lies in the entry's payload.
//! Knows nothing of headers, copies or CRCs.

use super::record::{PayloadRange, Record};
use millrace_base::ids::PartitionId;
use millrace_base::offset::Position;

mod kind {
    pub const BATCHES: u8 = 1;
    pub const RAFT: u8 = 2;
    pub const ROLL: u8 = 3;
    pub const CHECKPOINT: u8 = 4;
    pub const STATE: u8 = 5;
    pub const DELETED: u8 = 6;
    pub const EXTENT: u8 = 7;
    pub const DAMAGED: u8 = 8;
}

/// Flags of a Raft record: which of its two optional fields follow, in this order.
const RAFT_TRUNCATES: u8 = 1;
const RAFT_MOVES_LOG_START: u8 = 2;

/// The smallest encoded record: kind and partition.
pub const RECORD_BYTES_MIN: usize = 21;
/// The largest encoded record: an extent.
pub const RECORD_BYTES_MAX: usize = RECORD_BYTES_MIN + 5 * 8 + 4 + 8;

/// Appends `record` to `out`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let begin = out.len();
    let mut head = |kind: u8| {
        out.push(kind);
        out.extend_from_slice(&record.partition().to_bytes());
    };
    match record {
        Record::Batches { base, end, payload, .. } => {
            head(kind::BATCHES);
            longs(out, &[*base, *end]);
            range(out, *payload);
        }
        Record::Raft { truncate, log_start, step, .. } => {
            head(kind::RAFT);
            let flags = if truncate.is_some() { RAFT_TRUNCATES } else { 0 } | if log_start.is_some() { RAFT_MOVES_LOG_START } else { 0 };
            out.push(flags);
            if let Some(to) = truncate {
                out.extend_from_slice(&to.epoch.to_le_bytes());
                longs(out, &[to.offset]);
            }
            if let Some(offset) = log_start {
                longs(out, &[*offset]);
            }
            range(out, *step);
        }
        Record::Roll { base, .. } => {
            head(kind::ROLL);
            longs(out, &[*base]);
        }
        Record::Checkpoint { end, segment, segment_bytes, delta, .. } => {
            head(kind::CHECKPOINT);
            longs(out, &[*end, *segment]);
            out.extend_from_slice(&segment_bytes.to_le_bytes());
            range(out, *delta);
        }
        Record::State { state, .. } => {
            head(kind::STATE);
            range(out, *state);
        }
        Record::Deleted { .. } => head(kind::DELETED),
        Record::Damaged { reason, .. } => {
            head(kind::DAMAGED);
            range(out, *reason);
        }
        Record::Extent { base, end, segment, place, bytes, crc, tail, .. } => {
            head(kind::EXTENT);
            longs(out, &[*base, *end, *segment]);
            out.extend_from_slice(&place.to_le_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(&crc.to_le_bytes());
            range(out, *tail);
        }
    }
    assert!((RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&(out.len() - begin)));
}

fn longs(out: &mut Vec<u8>, values: &[i64]) {
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn range(out: &mut Vec<u8>, range: PayloadRange) {
    out.extend_from_slice(&range.start.to_le_bytes());
    out.extend_from_slice(&range.len.to_le_bytes());
}

/// The `count` records in `bytes`, all of it. None when the bytes say anything else, or a range leaves a payload of `payload_bytes`.
pub fn decode(bytes: &[u8], count: u32, payload_bytes: u32) -> Option<Vec<Record>> {
    let mut reader = Reader { bytes, payload_bytes };
    let mut records = Vec::with_capacity((count as usize).min(bytes.len() / RECORD_BYTES_MIN));
    for _ in 0..count {
        records.push(reader.record()?);
    }
    reader.bytes.is_empty().then_some(records)
}

struct Reader<'a> {
    bytes: &'a [u8],
    payload_bytes: u32,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*front)
    }

    fn int(&mut self) -> Option<i32> {
        self.take().map(i32::from_le_bytes)
    }

    fn long(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn bytes_count(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn range(&mut self) -> Option<PayloadRange> {
        let start = self.take().map(u32::from_le_bytes)?;
        let len = self.take().map(u32::from_le_bytes)?;
        (start.checked_add(len)? <= self.payload_bytes).then_some(PayloadRange { start, len })
    }

    fn record(&mut self) -> Option<Record> {
        let [kind] = self.take()?;
        let partition = PartitionId::from_bytes(&self.take()?);
        Some(match kind {
            kind::BATCHES => Record::Batches { partition, base: self.long()?, end: self.long()?, payload: self.range()? },
            kind::RAFT => {
                let [flags] = self.take()?;
                if flags & !(RAFT_TRUNCATES | RAFT_MOVES_LOG_START) != 0 {
                    return None;
                }
                let truncate = match flags & RAFT_TRUNCATES {
                    0 => None,
                    _ => Some(Position { epoch: self.int()?, offset: self.long()? }),
                };
                let log_start = if flags & RAFT_MOVES_LOG_START == 0 { None } else { Some(self.long()?) };
                Record::Raft { partition, truncate, log_start, step: self.range()? }
            }
            kind::ROLL => Record::Roll { partition, base: self.long()? },
            kind::CHECKPOINT => Record::Checkpoint {
                partition,
                end: self.long()?,
                segment: self.long()?,
                segment_bytes: self.bytes_count()?,
                delta: self.range()?,
            },
            kind::STATE => Record::State { partition, state: self.range()? },
            kind::DELETED => Record::Deleted { partition },
            kind::DAMAGED => Record::Damaged { partition, reason: self.range()? },
            kind::EXTENT => Record::Extent {
                partition,
                base: self.long()?,
                end: self.long()?,
                segment: self.long()?,
                place: self.bytes_count()?,
                bytes: self.bytes_count()?,
                crc: self.take().map(u32::from_le_bytes)?,
                tail: self.range()?,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::ids::Uuid;

    fn one_of_each() -> Vec<Record> {
        let partition = PartitionId { topic: Uuid([7; 16]), index: 9 };
        let payload = PayloadRange { start: 3, len: 5 };
        vec![
            Record::Batches { partition, base: 1, end: 4, payload },
            Record::Raft { partition, truncate: None, log_start: None, step: payload },
            Record::Raft { partition, truncate: Some(Position::new(4, 44)), log_start: None, step: payload },
            Record::Raft { partition, truncate: Some(Position::new(4, 44)), log_start: Some(8), step: payload },
            Record::Roll { partition, base: 9 },
            Record::Checkpoint { partition, end: 10, segment: 11, segment_bytes: 12, delta: payload },
            Record::State { partition, state: payload },
            Record::Deleted { partition },
            Record::Damaged { partition, reason: payload },
            Record::Extent { partition, base: 1, end: 2, segment: 3, place: 4, bytes: 5, crc: 6, tail: payload },
        ]
    }

    #[test]
    fn every_record_round_trips() {
        let records = one_of_each();
        let mut bytes = Vec::new();
        records.iter().for_each(|record| encode(record, &mut bytes));
        assert_eq!(decode(&bytes, records.len() as u32, 8), Some(records));
    }

    #[test]
    fn foreign_contents_are_refused_and_allocate_little() {
        let records = one_of_each();
        let mut bytes = Vec::new();
        records.iter().for_each(|record| encode(record, &mut bytes));
        assert_eq!(decode(&bytes, records.len() as u32, 7), None, "a range leaves the payload");
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], records.len() as u32, 8), None);
        }
        assert_eq!(decode(&bytes, u32::MAX, 8), None);
        assert_eq!(decode(&[99; 21], 1, 8), None, "an unknown kind");
    }
}
