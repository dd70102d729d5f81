//! Each planted bug is convicted by the checks that the true journal passes. Runs with `--features planted`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod journal_support;

use journal_support::world::{Habits, ROUGH, World};
use millrace_base::planted::{Bug, plant};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn run(seed: u64, habits: Habits, steps: u64, crash_one_in: u64) -> Result<(), String> {
    let mut world = World::new(seed, habits);
    for _ in 0..steps {
        world.step();
        world.check_cuts(0, 6)?;
        if world.rng.one_in(crash_one_in) {
            world.crash(false)?;
        }
    }
    Ok(())
}

/// The first seed that convicts `bug`, and in which words. A failed assertion of the journal's own convicts too.
fn conviction(bug: Option<Bug>, habits: Habits, seeds: u64) -> Option<(u64, String)> {
    plant(bug);
    // Often for what comes back after a crash, seldom for what shows when files are filled again in one opening.
    let found = [8, 100].into_iter().find_map(|crash_one_in| first(habits, seeds, crash_one_in));
    plant(None);
    println!("{bug:?}: {found:?}");
    found
}

fn first(habits: Habits, seeds: u64, crash_one_in: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| run(seed, habits, 250, crash_one_in))) {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some((seed, violation)),
        Err(_) => Some((seed, "an assertion of the journal failed".to_string())),
    })
}

const SAME: Habits = Habits { same_contents: true, ..ROUGH };
const REPEATED: Habits = Habits { same_incarnation: true, keep_all: true, ..ROUGH };

#[test]
fn without_a_bug_nothing_is_convicted() {
    for habits in [ROUGH, SAME, REPEATED] {
        assert_eq!(conviction(None, habits, 6), None);
    }
}

#[test]
fn a_tail_that_keeps_its_incarnation_is_convicted() {
    assert!(conviction(Some(Bug::KeepIncarnation), SAME, 200).is_some());
}

#[test]
fn acknowledging_out_of_order_is_convicted() {
    assert!(conviction(Some(Bug::AcknowledgeOutOfOrder), ROUGH, 50).is_some());
}

#[test]
fn never_stating_what_is_synced_is_convicted() {
    assert!(conviction(Some(Bug::SkipSynced), ROUGH, 50).is_some());
}

#[test]
fn reusing_a_file_early_is_convicted() {
    assert!(conviction(Some(Bug::ReuseEarly), ROUGH, 200).is_some());
}

#[test]
fn ignoring_a_crc_is_convicted() {
    assert!(conviction(Some(Bug::IgnoreCrc), ROUGH, 50).is_some());
}

#[test]
fn ignoring_the_chain_is_convicted_when_entropy_repeats() {
    assert!(conviction(Some(Bug::IgnoreChain), REPEATED, 200).is_some());
}

#[test]
fn serving_what_was_read_without_a_sync_is_convicted() {
    assert!(conviction(Some(Bug::ServeUnsynced), ROUGH, 50).is_some());
}
