//! See `tools/fuzz-bodies/src/consensus.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::consensus::run(input));
