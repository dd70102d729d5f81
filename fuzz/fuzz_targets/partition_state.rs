//! See `tools/fuzz-bodies/src/partition_state.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::partition_state::run(input));
