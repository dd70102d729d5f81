//! See `tools/fuzz-bodies/src/journal.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::journal::run(input));
