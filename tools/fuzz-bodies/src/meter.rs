//! How much memory a decoder takes for what it was given.
//!
//! The allocator of every program that links this crate counts. The count is the process's, so one target runs at a time.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Runs `decode`; all that it allocates, freed or not, together is at most `bytes`.
///
/// # Panics
/// When it allocates more.
pub fn bounded<T>(bytes: usize, decode: impl FnOnce() -> T) -> T {
    let region = Region::new(ALLOCATOR);
    let result = decode();
    let taken = region.change().bytes_allocated;
    assert!(taken <= bytes, "{taken} bytes were allocated where {bytes} are granted");
    result
}
