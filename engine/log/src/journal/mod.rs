//! The journal: the write-ahead file of a shard and data directory, in reading order.

pub mod record;
