//! What the journal's checkers share: a disk that loses what was not synced, and a world that writes, crashes and recovers on it.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "test support")]

pub mod disk;
pub mod world;
