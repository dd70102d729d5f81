//! See `tools/fuzz-bodies/src/state_file.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::state_file::run(input));
