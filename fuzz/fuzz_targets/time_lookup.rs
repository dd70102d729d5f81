//! See `tools/fuzz-bodies/src/time_lookup.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::time_lookup::run(input));
