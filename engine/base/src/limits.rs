//! Bounds that we chose, in one place. What a person may tune is a setting instead.

/// The unit in which files are written and aligned: the physical block of the devices measured.
pub const BLOCK: usize = 4096;

/// The largest request frame, Kafka's `socket.request.max.bytes`.
pub const FRAME_BYTES_MAX: usize = 104_857_600;

/// The largest batch that a topic may be set to accept: one journal entry holds it whole.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Sequences remembered per producer and partition (Kafka's clients keep at most five requests in flight).
pub const PRODUCER_BATCHES: usize = 5;

/// A topic name's length, as in Kafka.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Partitions that one topic may have.
pub const TOPIC_PARTITIONS_MAX: u32 = 100_000;
