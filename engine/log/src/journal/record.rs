//! What an entry says: records, each of one partition, in the order in which they happened.
//!
//! The journal is the only authority on each partition's end, truncations, term, vote, epoch starts, log start, active segment and
//! checkpoints. Folding the live records of a partition in order gives its state: [`Record::State`] replaces all that earlier records of
//! the partition said except batches; the others change it.
//!
//! Knows nothing of files or of what the state's bytes mean.

use millrace_base::ids::PartitionId;
use millrace_base::offset::{Offset, Position};

/// One record. `payload` ranges are bytes in the entry's payload, counted from the payload's begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Whole batches, patched, back to back in the payload. They begin at `base` and end before `end`.
    Batches { partition: PartitionId, base: Offset, end: Offset, payload: PayloadRange },
    /// One step of the replica's consensus state (term, vote, epoch start with its configuration, marks), opaque here, in the payload.
    /// What the log must know of it stands beside it: every position after `truncate` is gone, starts at its offset of later epochs
    /// included; offsets below `log_start` are gone, and that only grows.
    Raft { partition: PartitionId, truncate: Option<Position>, log_start: Option<Offset>, step: PayloadRange },
    /// The segment before is closed; a new active segment begins at `base`.
    Roll { partition: PartitionId, base: Offset },
    /// Batches below `end` are durable in segments; the active segment `segment` holds `segment_bytes` of them.
    /// `delta`: what the partition's own code adds (new index entries, producer changes), opaque here, in the payload.
    Checkpoint { partition: PartitionId, end: Offset, segment: Offset, segment_bytes: u64, delta: PayloadRange },
    /// The partition's whole small state, opaque here, in the payload. Also its birth. Says nothing of batches at or above its own end.
    State { partition: PartitionId, state: PayloadRange },
    /// The partition is deleted: its files go after this is durable.
    Deleted { partition: PartitionId },
    /// Acknowledged batches or changes of the partition were lost behind what the state before this record says, in the same entry. It is
    /// read up to there and not written. `reason`: a [`crate::partition_state::Note`], in the payload.
    Damaged { partition: PartitionId, reason: PayloadRange },
    /// `bytes` written straight to `segment` at `place`, whole blocks, holding the front of the batches `base..end`, whose last
    /// `tail` bytes (the fragment that fills no block) are in the payload. `crc`: CRC-32C of the bytes in the segment.
    Extent { partition: PartitionId, base: Offset, end: Offset, segment: Offset, place: u64, bytes: u64, crc: u32, tail: PayloadRange },
}

/// A byte range in an entry's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadRange {
    pub start: u32,
    pub len: u32,
}

impl Record {
    pub fn partition(&self) -> PartitionId {
        match self {
            Record::Batches { partition, .. }
            | Record::Raft { partition, .. }
            | Record::Roll { partition, .. }
            | Record::Checkpoint { partition, .. }
            | Record::State { partition, .. }
            | Record::Deleted { partition }
            | Record::Damaged { partition, .. }
            | Record::Extent { partition, .. } => *partition,
        }
    }
}
