//! See `tools/fuzz-bodies/src/meta_file.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::meta_file::run(input));
