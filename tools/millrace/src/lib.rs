//! The part of the one binary that reads what a person wrote, so that it is fuzzed like every other reader of foreign bytes.

pub mod failure;
pub mod settings_file;
