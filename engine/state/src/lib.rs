//! Replicated state machines: pure.
//!
//! `meta` is what replica set 0 decides (nodes, topics, placement, settings, producer ids); `groups` are the consumer groups of one
//! partition of `__consumer_offsets`. Commands or records go in, effects come out; the shard executes them.
//!
//! Knows nothing of files, sockets, threads, clocks or entropy: time and fresh identifiers arrive as arguments.

pub mod meta;
