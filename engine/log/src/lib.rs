//! One partition's segments and indexes; the journal; recovery, retention, read plans.
//!
//! Decides and lays out bytes; the shard that owns the ring does the reading and writing.

pub mod journal;
