//! The words every crate shares, and leaf tools without I/O.
//!
//! Knows nothing of files, sockets, threads, the wall clock or any protocol's requests; time and seeds arrive as arguments.

pub mod batch;
pub mod clock;
pub mod crc;
pub mod fault;
pub mod ids;
pub mod lane;
pub mod limits;
pub mod offset;
pub mod planted;
pub mod prng;
pub mod record_walk;
pub mod settings;
pub mod value;
pub mod zstd;
