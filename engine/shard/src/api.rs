//! The face of the engine: what fronts, coordinators and background work ask of a partition's shard, and what they get.
//!
//! Plain data, moved over lanes. A request goes to one shard and is answered exactly once, in any order; requests from one shard to
//! another arrive in the order sent. Bytes travel as slices: immutable, shared, freed by their last holder.
//!
//! Invariants: a produced batch is answered only when it is committed, or refused when it never will be;
//! log start <= stable <= commit; nothing at or above commit is ever read.
//! Knows nothing of protocols, principals or error codes.

use millrace_base::batch::Header;
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::fault::Fault;
use millrace_base::ids::{NodeId, PartitionId, TopicId, Uuid};
use millrace_base::offset::{Epoch, Offset};
use millrace_io::Slice;
use millrace_state::{groups, meta};

/// What one shard asks of another (or of itself).
#[derive(Debug)]
pub enum Request {
    Produce(Produce),
    Read(Read),
    /// Ends a [`Read`] of the same submitter that still waits, by its token; the read is answered with what there is.
    StopWaiting {
        token: u64,
    },
    ListOffsets(Vec<OffsetQuery>),
    EpochEnds(Vec<EpochQuery>),
    DeleteRecords(Vec<DeleteRecords>),
    DescribeLogs(Vec<PartitionId>),
    DescribeProducers(Vec<PartitionId>),
    /// To the controller's shard.
    Meta(Vec<MetaChange>),
    /// To the shard that owns the coordinator's partition of `__consumer_offsets`.
    Group {
        coordinator: PartitionId,
        request: groups::Request,
    },
    /// To every shard, from the controller's: a committed command, in order.
    Apply(std::sync::Arc<[u8]>),
    /// To the controller's shard, from the owner; and from there to every shard.
    Leadership(Vec<Leadership>),
    /// To every shard, from the one that has met it: a data directory, by its index, takes no writes any more.
    DirectoryFailed {
        directory: usize,
        reason: String,
    },
    /// To the controller's shard: all partitions of the sender that can have leaders have them.
    Ready,
    /// To every shard: connections may be accepted.
    Open,
    /// A connection that moves here.
    Connection(Box<Moved>),
}

/// Answers, one for one.
#[derive(Debug)]
pub enum Reply {
    Produced(Vec<Result<Produced, ProduceError>>),
    Read(Vec<Result<ReadData, ReadError>>),
    Offsets(Vec<Result<OffsetFound, ReadError>>),
    EpochEnds(Vec<Result<Option<EpochEnd>, ReadError>>),
    /// The new log start.
    Deleted(Vec<Result<Offset, ReadError>>),
    Logs(Vec<Result<LogSize, ReadError>>),
    Producers(Vec<Result<Vec<ProducerRow>, ReadError>>),
    Meta(Vec<Result<MetaDone, MetaRefusal>>),
    Group(Result<groups::Answer, GroupUnavailable>),
    /// Nothing to say: a notice was taken.
    Done,
}

/// Batches to append, each to its own partition of one shard.
#[derive(Debug)]
pub struct Produce {
    pub parts: Vec<ProducePart>,
    pub acks: Acks,
    /// When the submitter stops waiting for the commit.
    pub deadline: Nanos,
}

/// One whole batch that has passed [`millrace_base::batch::check`], and [`millrace_base::record_walk::check`] if it is uncompressed.
#[derive(Debug)]
pub struct ProducePart {
    pub partition: PartitionId,
    pub batch: Slice,
    /// The batch's own, but for the max timestamp, which is the true one where the records were walked.
    pub header: Header,
    /// Of the records that have one where they were walked, else the first record's; -1 if there is none.
    pub min_timestamp: WallMs,
    /// A record is known to have no key.
    pub has_null_key: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// Answered when appended in memory; a front sends nothing to the client.
    None,
    /// Synced at the leader.
    Leader,
    /// Committed: synced on a majority, and on `min.insync.replicas`.
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Produced {
    pub base: Offset,
    /// The log append time of a LogAppendTime topic; else -1.
    pub append_time: WallMs,
    pub log_start: Offset,
}

/// Why a batch was not appended. For all but `Unknown*` and `TimedOut` it is not in the log and never will be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProduceError {
    /// This shard has no such partition: not made yet, or deleted.
    UnknownPartition,
    /// Another node leads, or none.
    NotLeader {
        leader: Option<NodeId>,
        epoch: Epoch,
    },
    BatchTooLarge {
        size: usize,
        max: usize,
    },
    /// The record timestamps are outside what the topic allows.
    Timestamp {
        found: i64,
        oldest: i64,
        newest: i64,
    },
    /// A record without a key on a compacted topic.
    NullKey,
    OutOfOrderSequence {
        expected: i32,
        found: i32,
    },
    ProducerFenced {
        current: i16,
        found: i16,
    },
    /// Fewer live replicas than `min.insync.replicas`.
    TooFewReplicas {
        live: u32,
        needed: u32,
    },
    /// The data directory has no room; may succeed later.
    DiskFull {
        directory: String,
    },
    /// The data directory failed, the partition is damaged, or too many of its segments wait to be closed.
    Storage {
        reason: String,
    },
    /// In the log, but not known to be committed by the deadline.
    TimedOut,
    /// The node is stopping, or leadership was lost while the batch waited: it may or may not be in the log.
    UnknownOutcome,
}

/// Reads of partitions of one shard.
#[derive(Debug)]
pub struct Read {
    pub parts: Vec<ReadPart>,
    /// Over all parts; the first part with data may exceed it by one batch.
    pub max_bytes: usize,
    /// Wait until so many bytes are there, an error is, or `deadline` has come.
    pub min_bytes: usize,
    pub deadline: Nanos,
    /// Not beyond the last stable offset.
    pub committed_only: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct ReadPart {
    pub partition: PartitionId,
    pub offset: Offset,
    pub max_bytes: usize,
    /// The epoch in which the reader believes; -1: any.
    pub current_epoch: Epoch,
    /// The epoch of the last record that the reader has; -1: it does not say.
    pub last_read_epoch: Epoch,
}

#[derive(Debug, Default)]
pub struct ReadData {
    /// Whole batches back to back; the first may begin before the offset asked for.
    pub batches: Vec<Slice>,
    pub commit: Offset,
    pub stable: Offset,
    pub log_start: Offset,
    /// The reader's log left this one here: it must go back to this position.
    pub diverging: Option<EpochEnd>,
}

impl ReadData {
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(|slice| slice.len()).sum()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadError {
    UnknownPartition,
    NotLeader {
        leader: Option<NodeId>,
        epoch: Epoch,
    },
    /// Below the log start, or above the end.
    OutOfRange {
        log_start: Offset,
        commit: Offset,
    },
    /// The reader's epoch is older than the leader's.
    EpochFenced {
        current: Epoch,
    },
    /// The reader's epoch is newer than any this node knows.
    EpochUnknown {
        current: Epoch,
    },
    /// A new leader does not know yet what is committed.
    NotAvailable,
    /// This needs a delete policy: the topic is compacted only.
    CompactedOnly,
    Storage {
        reason: String,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct OffsetQuery {
    pub partition: PartitionId,
    pub at: OffsetAt,
    pub committed_only: bool,
    pub current_epoch: Epoch,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetAt {
    Earliest,
    Latest,
    /// The first record of the greatest timestamp.
    MaxTimestamp,
    /// The first record with a timestamp not below this.
    Time(WallMs),
}

/// `offset` -1: there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetFound {
    pub offset: Offset,
    pub timestamp: WallMs,
    pub epoch: Epoch,
}

#[derive(Clone, Copy, Debug)]
pub struct EpochQuery {
    pub partition: PartitionId,
    pub epoch: Epoch,
    pub current_epoch: Epoch,
}

/// The largest epoch not above the one asked for, and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    pub epoch: Epoch,
    pub end: Offset,
}

#[derive(Clone, Copy, Debug)]
pub struct DeleteRecords {
    pub partition: PartitionId,
    /// New log start; None: the commit.
    pub before: Option<Offset>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSize {
    /// The data directory's path.
    pub directory: String,
    pub bytes: u64,
    pub log_start: Offset,
    pub end: Offset,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerRow {
    pub producer: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: WallMs,
}

/// What a front wants changed in replica set 0. The controller fills in what is its own: a new topic's id, the defaults of partition
/// count and replication factor, the live data directories; whatever stands in those fields is not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaChange {
    pub request: meta::Request,
    /// Check only.
    pub validate_only: bool,
}

/// What came of it, committed and applied on every shard of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetaDone {
    /// Its partitions have leaders now. Also the answer of a valid `validate_only`, with what would be made.
    TopicCreated {
        topic: TopicId,
        partitions: u32,
    },
    ProducerIds {
        first: i64,
        count: u32,
    },
    Changed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetaRefusal {
    Refused(meta::MetaError),
    /// This node does not lead replica set 0, or cannot write to it now.
    Unavailable {
        reason: String,
    },
}

/// Why a coordinator did not take a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupUnavailable {
    /// This shard does not lead the coordinator's partition.
    NotCoordinator,
    /// It still reads its partition.
    Loading,
    /// It cannot write.
    Unavailable,
}

impl GroupUnavailable {
    pub fn fault(self) -> Fault {
        Fault::Retry
    }
}

/// Who leads a partition, as metadata tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    pub partition: PartitionId,
    /// None: nobody; the partition is offline.
    pub leader: Option<NodeId>,
    pub epoch: Epoch,
}

/// A connection on its way to another shard, with its front's state.
#[derive(Debug)]
pub struct Moved {
    pub detached: crate::net::DetachedConnection,
    pub state: Box<dyn std::any::Any + Send>,
}

/// A data directory of this node, as fronts tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDirectory {
    pub path: String,
    /// It is not served from.
    pub is_failed: bool,
    /// Bytes free to us and bytes in all on its file system; none where it has failed, or the system does not say.
    pub space: Option<(u64, u64)>,
}

/// Facts about this node that fronts tell their clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeFacts {
    pub node: NodeId,
    pub cluster: Uuid,
    pub shards: u16,
}
