//! Checks on the repository itself: arrows between crates.

fn main() {}
