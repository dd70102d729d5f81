//! The ring: what a shard asks of the outside world, and the drivers that do it.
//!
//! Everything `unsafe` in the engine lives here: memory that a kernel operation owns ([`memory`]), the io_uring driver ([`uring`]),
//! and maps of closed files ([`map`]). Hosts that refuse io_uring have the driver on epoll and blocking threads ([`portable`]). The simulated driver ([`sim`]) gives the same trait in virtual time with a seeded disk and network.
//!
//! Knows nothing of batches, partitions or protocols.

pub mod driver;
pub mod job;
pub mod memory;
pub mod process;
pub mod system;

mod doorbell;
mod table;

pub mod blocking;
mod socket;

pub mod portable;
pub mod sim;
pub mod uring;

pub mod map;

pub use blocking::BlockingDisk;
pub use driver::*;
pub use job::{Job, Product, job};
pub use map::Map;
pub use memory::{Pool, Slice, Space};
pub use portable::PortableDriver;
pub use uring::{Config, SetupError, UringDriver};
