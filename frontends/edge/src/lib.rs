//! Listeners and who may speak on them.
//!
//! Knows nothing of any protocol's requests, of sockets or of name servers: it says what to bind and what to advertise.

pub mod listener;
