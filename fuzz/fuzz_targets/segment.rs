//! See `tools/fuzz-bodies/src/segment.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::segment::run(input));
