//! See `tools/fuzz-bodies/src/group_records.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::group_records::run(input));
