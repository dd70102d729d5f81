//! See `tools/fuzz-bodies/src/producers.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::producers::run(input));
