//! The wire layer: frames of the Kafka protocol to plain structs, and answers to frames.
//!
//! One request: [`header::Prelude`] (key, version, correlation id) -> [`table::Api`] (served at that version?) -> [`header::RequestHeader`] ->
//! [`requests::Request`] -> a handler -> [`response`] or, for records, [`fetch_response`].
//!
//! Invariants: whatever the bytes, decoding neither panics nor allocates more than [`reader::budget_for`] of the frame's length.
//! Knows nothing of sockets, shards, topics or who is asking.

pub mod errors;
pub mod fetch_response;
pub mod header;
#[macro_use]
mod message;
pub mod reader;
pub mod requests;
pub mod response;
pub mod table;
pub mod unsupported;
