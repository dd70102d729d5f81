//! One partition's segments and indexes; the journal; recovery, retention.
//!
//! Decides and lays out bytes; the shard that owns the ring does the reading and writing.

pub mod bytes;
pub mod codec;
pub mod extent;
pub mod image;
pub mod index;
pub mod journal;
pub mod partition_state;
pub mod paths;
pub mod producers;
pub mod retention;
pub mod segments;
pub mod state_file;
pub mod time_lookup;
pub mod walk;
