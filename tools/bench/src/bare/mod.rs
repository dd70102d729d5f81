//! The bare ring server: what a broker cannot beat on the same machine and ring.
//!
//! One thread receives Produce requests, computes each batch's CRC-32C, writes the batches durably and answers. It has no partitions, no
//! index, no recovery, and its file is overwritten from the front when full: nothing can be read back. What is read at a second address is
//! another file, written before the start.
//!
//! [`frames`] finds the batches in a request, [`answers`] writes what clients want to hear, [`server`] is the loop, [`reads`] the other address.

mod answers;
mod frames;
mod reads;
mod server;

pub use reads::Config as Reads;
pub use server::{Config, FILE_BYTES_MIN, serve};

/// The one topic that clients are told of. Produce requests may name any.
pub const TOPIC: &str = "bench";
