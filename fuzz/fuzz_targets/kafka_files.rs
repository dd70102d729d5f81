//! See `tools/fuzz-bodies/src/kafka_files.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::kafka_files::run(input));
