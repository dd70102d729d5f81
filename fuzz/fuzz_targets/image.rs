//! See `tools/fuzz-bodies/src/image.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::image::run(input));
