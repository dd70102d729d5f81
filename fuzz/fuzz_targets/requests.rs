//! See `tools/fuzz-bodies/src/requests.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::requests::run(input));
