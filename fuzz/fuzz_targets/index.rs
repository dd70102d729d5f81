//! See `tools/fuzz-bodies/src/index.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::index::run(input));
