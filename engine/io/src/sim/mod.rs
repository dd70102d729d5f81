//! The simulated driver: disks, a network and time in one process, all from one seed.
//!
//! 1. A [`World`] holds virtual time, an ordered list of events, one disk per node, and the network. Nothing in it reads a clock or entropy.
//! 2. A [`SimDriver`] is one shard's driver; many live on one thread. Its poll never waits: it gives what has completed, notes until when
//!    the shard would sleep, and returns.
//! 3. The harness runs those shards that have something to do, in seeded order, and steps the world when none has ([`World::run_until`]).
//! 4. Operations take seeded times, so that they complete out of order; counts come short, accepts end by themselves, writes and syncs in
//!    flight are not ordered: what a ring does, more often.
//! 5. A node can be killed (its disk keeps what had completed) or lose power (its disk keeps what was synced, and a seeded part of the rest).
//!
//! Invariants: the same seed and the same calls give the same trace; time never goes back; an event's effect is at its time, not before.
//! Knows nothing of what the bytes mean.

mod client;
mod core;
mod disk;
mod driver;
mod image;
mod names;
mod network;
mod recording;
mod sockets;
mod storage;
mod trace;
mod world;

pub use client::ClientEnd;
pub use driver::SimDriver;
pub use recording::{CutDisk, Moment, Recording, Replay};
pub use storage::SimDisk;
pub use trace::Happening;
pub use world::{ShardId, World};

/// The unit that a device writes whole or not at all.
pub(crate) const SECTOR: usize = 512;

/// How often the world is odd. 0: never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// One read, write, receive or send in so many gives fewer bytes than it could.
    pub short_one_in: u64,
    /// One accepted connection in so many ends its accept.
    pub accept_ends_one_in: u64,
    /// One operation in so many takes fifty times as long.
    pub slow_one_in: u64,
}

impl Rates {
    /// Nothing odd but time.
    pub const CALM: Rates = Rates { short_one_in: 0, accept_ends_one_in: 0, slow_one_in: 0 };
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { short_one_in: 8, accept_ends_one_in: 10, slow_one_in: 100 }
    }
}

/// What a power cut takes of that which was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Each sector, and of each directory the end of its steps: kept or lost by the seed.
    Seeded,
    All,
    Nothing,
    /// Everything after a seeded step of the disk.
    Suffix,
    /// A seeded part of the last write's sectors.
    TornLast,
}

/// The operations that a [`Fault`] meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    Read,
    /// Writing and cutting.
    Write,
    /// Syncing files and directories, and the second step of a synced write.
    Sync,
    /// Syncing directories.
    Directory,
    /// Opening, making, renaming, unlinking.
    Name,
    /// Unlinking files.
    Unlink,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// The operation fails with this number. A write failing with EIO may have written a part; a failed sync leaves undurable what it
    /// was to cover, also for later syncs; a synced write whose sync fails has written its bytes.
    Error(i32),
    /// A write or sync says it was done, and was not.
    Lost,
    /// A read or write goes so many bytes away from where it should.
    Misdirected(i64),
    /// One bit of what is written or read is wrong.
    Flipped,
}

/// Something that is to go wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// For files whose path contains this.
    pub path: String,
    pub on: On,
    /// Such operations that go well first.
    pub after: u32,
    /// Such operations that go wrong then.
    pub times: u32,
    pub wrong: Wrong,
}
