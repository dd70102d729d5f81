//! See `tools/fuzz-bodies/src/codec.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::codec::run(input));
