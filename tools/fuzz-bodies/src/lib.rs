//! One function for every decoder of bytes that a client, a disk or a person gave us.
//!
//! 1. A target's [`Target::run`] takes any bytes. It feeds them to a decoder and panics when the decoder does, or when what came out is not
//!    what it promises: decoding and encoding again gives the same, a checksum that is wrong is noticed, ranges lie in their bytes.
//! 2. [`meter::bounded`] holds a decoder to memory in proportion to its input.
//! 3. `fuzz/` runs each target under libFuzzer; the test of this crate replays the seeds ([`seeds`]) and the committed corpus on stable.
//!
//! Knows nothing of how inputs are found.

pub mod batch;
pub mod codec;
pub mod consensus;
pub mod frames;
pub mod group_records;
pub mod image;
pub mod index;
pub mod journal;
pub mod kafka_files;
pub mod meta_commands;
pub mod meta_file;
pub mod partition_state;
pub mod producers;
pub mod requests;
pub mod segment;
pub mod settings_file;
pub mod state_file;
pub mod time_lookup;

pub mod seeds;

mod disk;
mod input;
pub mod meter;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// All of them. A folder of `fuzz/corpus` and a file of `fuzz/fuzz_targets` bear each name.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name::run, seeds: seeds::$name }),*];
    };
}

targets! {
    batch,
    codec,
    consensus,
    frames,
    group_records,
    image,
    index,
    journal,
    kafka_files,
    meta_commands,
    meta_file,
    partition_state,
    producers,
    requests,
    segment,
    settings_file,
    state_file,
    time_lookup,
}
