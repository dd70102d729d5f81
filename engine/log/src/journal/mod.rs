//! The journal: the write-ahead file of a shard and data directory, in reading order.

pub mod record;

pub mod contents;
pub mod layout;

mod files;
pub mod writer;

pub mod planted;
