//! See `tools/fuzz-bodies/src/settings_file.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::settings_file::run(input));
