//! See `tools/fuzz-bodies/src/batch.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::batch::run(input));
