//! Power cuts: whatever subset of un-synced sectors survives, recovery gives every acknowledged entry, byte for byte, and nothing else.
//!
//! `MILLRACE_SEEDS` sets the number of seeds; the count below is the short form.

#![expect(clippy::disallowed_methods, reason = "a test reads files, its environment and the clock where the crate may not")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod journal_support;

use journal_support::world::{Habits, ROUGH, World, file_path, folder};
use millrace_log::journal::{Verdict, layout, recover};

fn seeds(short: u64) -> u64 {
    std::env::var("MILLRACE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(short)
}

fn run(seed: u64, habits: Habits, steps: u64, crash_one_in: u64, some: u64) -> Result<World, String> {
    let mut world = World::new(seed, habits);
    for _ in 0..steps {
        world.step();
        if some > 0 {
            world.check_cuts(if habits.one_block { 12 } else { 9 }, some)?;
        }
        if world.rng.one_in(crash_one_in) {
            let cut_opening = some > 0 && world.rng.one_in(4);
            world.crash(cut_opening)?;
        }
    }
    Ok(world)
}

fn must(seed: u64, result: Result<World, String>) -> World {
    result.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"))
}

#[test]
fn every_subset_of_loose_sectors_recovers_what_was_acknowledged() {
    let habits = Habits { one_block: true, flights_max: 2, ..ROUGH };
    let mut images = 0;
    for seed in 0..seeds(6) {
        images += must(seed, run(seed, habits, 100, 40, 64)).images;
    }
    println!("{images} images");
    assert!(images >= 60_000 || seeds(0) > 0, "{images} images");
}

#[test]
fn entries_of_many_blocks_in_recycled_files_recover() {
    let (mut images, mut recycled) = (0, 0);
    for seed in 1_000..1_000 + seeds(5) {
        let world = must(seed, run(seed, ROUGH, 400, 60, 12));
        images += world.images;
        recycled += world.recycled;
    }
    println!("{images} images, {recycled} files filled again");
    assert!((images >= 50_000 && recycled >= 50) || seeds(0) > 0, "{images} images, {recycled} files filled again");
}

#[test]
fn crash_after_crash_brings_nothing_back() {
    for seed in 2_000..2_000 + seeds(30) {
        must(seed, run(seed, ROUGH, 600, 6, 0));
        let habits = Habits { same_contents: true, ..ROUGH };
        must(seed, run(seed, habits, 600, 6, 0));
    }
}

#[test]
fn the_chain_alone_keeps_a_cut_tail_away_when_entropy_repeats() {
    for seed in 3_000..3_000 + seeds(40) {
        must(seed, run(seed, Habits { same_incarnation: true, keep_all: true, ..ROUGH }, 200, 6, 0));
    }
}

#[test]
fn a_journal_opens_however_often_it_was_opened_before() {
    let mut world = World::new(4_000, Habits { keep_all: true, ..ROUGH });
    for _ in 0..300 {
        world.grow();
        world.write();
        world.complete_all();
        world.write();
        world.crash(false).unwrap();
    }
    let mut image = world.disk.durable(0);
    let recovered = world.check(&mut image).unwrap();
    assert_eq!(recovered.openings.list.len(), layout::OPENINGS_MAX);
    assert!(recovered.openings.assigned_from() > 10 && recovered.oldest_live == 1);
    // Damage among those that only the chain counts: nothing wrong is served, all that is not served is reported.
    let written = world.written[&5].clone();
    image.bytes(&file_path(written.slot))[written.place as usize + 30] ^= 1;
    let recovered = recover(&mut image, folder(), &world.pool, 0).unwrap();
    let Verdict::Damaged { each, .. } = &recovered.verdict else { panic!("{:?}", recovered.verdict) };
    assert_eq!((each[0].first, each.last().map(|damage| damage.last)), (1, Some(5)));
    assert_eq!(recovered.entries.first().map(|entry| entry.sequence), Some(6));
}
