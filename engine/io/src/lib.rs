//! The ring: what a shard asks of the outside world, and the two drivers that do it.
//!
//! Everything `unsafe` in the engine lives here: memory that a kernel operation owns ([`memory`]), the io_uring driver ([`uring`]),
//! and maps of closed files ([`map`]). The simulated driver ([`sim`]) gives the same trait in virtual time with a seeded disk and network.
//!
//! Knows nothing of batches, partitions or protocols.

pub mod driver;
pub mod memory;

pub use driver::*;
pub use memory::{Pool, Slice, Space};
