//! What clients did and saw, in the order in which it completed.
//!
//! Times are the world's. A request whose answer never came has no event of its own: what it may have done is *unknown*.
//!
//! Knows nothing of the broker.

use crate::value::ValueId;
use std::collections::BTreeMap;

/// (topic, partition). A topic that was made again has another name here: `name#2`.
pub type Partition = (String, i32);

/// How long a request was under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub invoked: u64,
    pub completed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    LogStart,
    HighWatermark,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A batch went out, for the `attempt`-th time. Its values are `first` and the `count - 1` that follow.
    Sent {
        at: u64,
        partition: Partition,
        first: ValueId,
        count: u32,
        attempt: u32,
        idempotent: bool,
        /// Of the batch.
        bytes: usize,
    },
    Acknowledged {
        span: Span,
        partition: Partition,
        first: ValueId,
        count: u32,
        base: i64,
        /// Of a LogAppendTime topic; else -1.
        append_time: i64,
    },
    /// Refused for good: never in the log.
    Refused {
        at: u64,
        partition: Partition,
        first: ValueId,
        count: u32,
    },
    /// An idempotent producer was told that its next sequence is not the next.
    SequenceBroken {
        at: u64,
        partition: Partition,
        first: ValueId,
    },
    /// An answer to a fetch.
    Bounds {
        span: Span,
        partition: Partition,
        high_watermark: i64,
        stable: i64,
        log_start: i64,
    },
    /// One batch, as read. `values` are None where the bytes are not as made; with each goes its timestamp.
    Read {
        span: Span,
        partition: Partition,
        reader: u32,
        asked: i64,
        base: i64,
        append_time: bool,
        values: Vec<Option<(ValueId, i64)>>,
    },
    /// A reader begins anew at some offset.
    Sought {
        reader: u32,
        offset: i64,
    },
    /// DeleteRecords went out.
    DeletionSent {
        at: u64,
        partition: Partition,
        to: i64,
    },
    /// DeleteRecords was acknowledged.
    Deleted {
        span: Span,
        partition: Partition,
        log_start: i64,
    },
    /// An offset was told to be out of range: `offset`, and the bounds that ListOffsets gave then.
    OutOfRange {
        span: Span,
        partition: Partition,
        offset: i64,
    },
    /// ListOffsets gave the log start or the high watermark.
    Listed {
        span: Span,
        partition: Partition,
        bound: Bound,
        offset: i64,
    },
    /// ListOffsets gave the first record that is not older than `time`, or -1. `time` None: the newest record.
    Looked {
        span: Span,
        partition: Partition,
        time: Option<i64>,
        offset: i64,
        timestamp: i64,
    },
    CommitSent {
        at: u64,
        group: String,
        partition: Partition,
        offset: i64,
    },
    Committed {
        span: Span,
        group: String,
        partition: Partition,
        offset: i64,
    },
    /// -1: none.
    CommittedFetched {
        span: Span,
        group: String,
        partition: Partition,
        offset: i64,
    },
    /// The node's process is over: what it had not answered it has done by now, or never will.
    Down {
        at: u64,
    },
    /// A group's leader has sent who is to have which partitions.
    Planned {
        group: String,
        generation: i32,
        plan: BTreeMap<String, Vec<Partition>>,
        /// All that there are.
        all: Vec<Partition>,
    },
    /// A member was given its partitions.
    Assigned {
        span: Span,
        group: String,
        generation: i32,
        member: String,
        partitions: Vec<Partition>,
    },
    /// A join was answered.
    Joined {
        span: Span,
        group: String,
        generation: i32,
    },
    /// A reader that reads for a group.
    ReadsFor {
        reader: u32,
        group: String,
    },
    /// A group has come to the end of a partition, as it believes, and committed that.
    Consumed {
        group: String,
        partition: Partition,
        to: i64,
    },
    /// What a topic is to keep went out: from now on it may be in force. None: the broker's default, or what was in force before.
    Policy {
        at: u64,
        topic: String,
        retention_ms: Option<i64>,
        retention_bytes: Option<i64>,
    },
    /// The node's clock is set: it shows so many milliseconds more than have passed in the world.
    Clock {
        at: u64,
        ahead_ms: i64,
    },
    TopicMade {
        name: String,
    },
    TopicGone {
        name: String,
    },
    /// All topics at the end.
    Topics {
        names: Vec<String>,
    },
    /// The whole of a partition at the end: all that a scan from `from` to the high watermark `to` gave was recorded before as read.
    Scanned {
        partition: Partition,
        reader: u32,
        from: i64,
        to: i64,
    },
    /// Folders of topics in the data directories at the end, and the topics there are, both by id.
    Folders {
        found: Vec<String>,
        topics: Vec<String>,
    },
    /// What a topic is to keep, as all changes have left it, and nobody will change it any more. None: there is no bound.
    Keeps {
        topic: String,
        retention_ms: Option<i64>,
        retention_bytes: Option<i64>,
    },
    /// The file of a closed segment at the end: its first offset, the first of the segment behind it, its length, and the partition's log start.
    Segment {
        at: u64,
        partition: Partition,
        base: i64,
        next: i64,
        bytes: u64,
        log_start: i64,
    },
    /// A request to a data directory that had nothing wrong, while another one failed.
    Beside {
        partition: Partition,
        what: String,
        is_done: bool,
    },
    /// A partition is refused for its storage, though everything is healed.
    Unserved {
        at: u64,
        partition: Partition,
        message: String,
    },
    /// Something that must not be, seen by a client itself.
    Wrong {
        what: String,
    },
}

#[derive(Clone, Default, Debug)]
pub struct History {
    pub events: Vec<Event>,
}

impl History {
    pub fn push(&mut self, event: Event) {
        self.events.push(event);
    }
}
