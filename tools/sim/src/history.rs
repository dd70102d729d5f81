//! What clients did and saw, in the order in which it completed.
//!
//! Times are the world's. A request whose answer never came has no event of its own: what it may have done is *unknown*.
//!
//! Knows nothing of the broker.

use crate::value::ValueId;

/// (topic, partition).
pub type Partition = (String, i32);

/// How long a request was under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub invoked: u64,
    pub completed: u64,
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
    },
    Acknowledged {
        span: Span,
        partition: Partition,
        first: ValueId,
        count: u32,
        base: i64,
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
    /// One batch, as read. `values` are None where the bytes are not as made.
    Read {
        span: Span,
        partition: Partition,
        reader: u32,
        asked: i64,
        base: i64,
        values: Vec<Option<ValueId>>,
    },
    /// A reader begins anew at some offset.
    Sought {
        reader: u32,
        offset: i64,
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
    CommitSent {
        group: String,
        partition: Partition,
        offset: i64,
    },
    Committed {
        group: String,
        partition: Partition,
        offset: i64,
    },
    /// -1: none.
    CommittedFetched {
        group: String,
        partition: Partition,
        offset: i64,
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
