//! See `tools/fuzz-bodies/src/frames.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::frames::run(input));
