//! One partition's segments and indexes; the journal; recovery, retention, read plans.
//!
//! Decides and lays out bytes; the shard that owns the ring does the reading and writing.

pub mod bytes;
pub mod index;
pub mod journal;
pub mod partition_state;
pub mod producers;
pub mod state_file;
pub mod walk;
