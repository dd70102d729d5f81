//! Damage: whatever happens to synced bytes, an entry is served as it was written or not at all, and its loss is never taken for a cut.
//!
//! The one bound: of entries that nothing states synced yet, loss cannot be told from a torn write. An empty entry states them after a
//! quiet millisecond, and from then on their loss is convicted too.

#![expect(clippy::disallowed_methods, reason = "a test reads files, its environment and the clock where the crate may not")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod journal_support;

use journal_support::disk::{SECTOR, SimDisk};
use journal_support::world::{ROUGH, World, file_path, folder, partition, small};
use millrace_base::fault::Fault;
use millrace_base::limits::BLOCK;
use millrace_base::prng::Prng;
use millrace_io::Pool;
use millrace_log::journal::record::{PayloadRange, Record};
use millrace_log::journal::{Damage, JournalError, Recovered, Touched, Urgency, Verdict, layout, prepare, recover};
use std::collections::BTreeSet;

fn seeds(short: u64) -> u64 {
    std::env::var("MILLRACE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(short)
}

/// A journal with some history, everything completed.
fn quiet_world(seed: u64, stated: bool) -> World {
    let mut world = World::new(seed, ROUGH);
    for step in 0..120 {
        world.step();
        if step % 40 == 39 && world.rng.one_in(2) {
            world.crash(false).unwrap();
        }
    }
    world.write();
    world.write();
    world.complete_all();
    world.now = world.now.plus_ms(1);
    if stated && world.journal.statement_due(world.now) {
        let sealed = world.journal.seal_statement(world.now).unwrap();
        world.submit(&sealed, Vec::new());
        world.complete_all();
    }
    world
}

fn damages(recovered: &Recovered) -> Vec<Damage> {
    match &recovered.verdict {
        Verdict::Damaged { each, .. } => each.clone(),
        Verdict::Clean | Verdict::Torn(_) => Vec::new(),
    }
}

/// Everything served is what was written, and each live entry is served or reported, with its partitions.
fn check(world: &World, recovered: &Recovered, stated: u64) -> Result<(), String> {
    let each = damages(recovered);
    for entry in &recovered.entries {
        let written = world.written.get(&entry.sequence).ok_or(format!("entry {} was never written", entry.sequence))?;
        if written.records != entry.records || written.payload[..] != entry.payload[..] {
            return Err(format!("entry {} is served and is not what was written", entry.sequence));
        }
    }
    for sequence in world.released..=stated {
        let served = recovered.entries.iter().any(|entry| entry.sequence == sequence);
        let reported = each.iter().find(|damage| (damage.first..=damage.last).contains(&sequence));
        let wanted: BTreeSet<_> = world.written[&sequence].records.iter().map(Record::partition).collect();
        match (served, reported) {
            (true, None) => {}
            (false, Some(Damage { touched: Touched::All, .. })) => {}
            (false, Some(Damage { touched: Touched::Partitions(partitions), .. })) if wanted.is_subset(partitions) => {}
            (served, reported) => return Err(format!("entry {sequence}: served {served}, reported {reported:?}")),
        }
    }
    if recovered.next <= stated { Err(format!("cut at {}, and {stated} was stated", recovered.next)) } else { Ok(()) }
}

fn live(world: &World) -> Vec<u64> {
    (world.released..=world.acknowledged).collect()
}

/// Damages what `spoil` says of a copy of the disk and recovers.
fn spoiled(world: &World, spoil: impl FnOnce(&mut SimDisk)) -> Result<Recovered, JournalError> {
    let mut disk = world.disk.durable(0);
    spoil(&mut disk);
    recover(&mut disk, folder(), &world.pool, 0)
}

#[test]
fn a_flipped_bit_anywhere_in_a_stated_entry_is_damage_and_names_its_partitions() {
    let mut images = 0;
    for seed in 0..seeds(25) {
        let world = quiet_world(seed, true);
        for sequence in live(&world) {
            let written = &world.written[&sequence];
            if written.records.is_empty() && sequence == world.acknowledged {
                continue; // the closing statement itself: see below
            }
            let step = if written.bytes as usize > BLOCK { 61 } else { 29 };
            let header = 0..layout::HEADER_BYTES as u64;
            for at in header.chain((layout::HEADER_BYTES as u64..written.bytes).step_by(step)) {
                let recovered =
                    spoiled(&world, |disk| disk.bytes(&file_path(written.slot))[(written.place + at) as usize] ^= 1 << (at % 8));
                let recovered = recovered.unwrap_or_else(|error| panic!("seed {seed}, entry {sequence}, byte {at}: {error}"));
                check(&world, &recovered, world.acknowledged - 1)
                    .unwrap_or_else(|violation| panic!("seed {seed}, entry {sequence}, byte {at}: {violation}"));
                let each = damages(&recovered);
                assert!(
                    each.iter().any(|damage| damage.first == sequence && damage.last == sequence),
                    "seed {seed}, entry {sequence}, byte {at}: {each:?}"
                );
                assert!(each.iter().all(|damage| damage.touched != Touched::All), "one copy of the contents is always readable");
                images += 1;
            }
        }
    }
    println!("{images} images");
}

#[test]
fn lost_sectors_and_blocks_and_files_are_damage() {
    let mut images = 0;
    for seed in 100..100 + seeds(25) {
        let world = quiet_world(seed, true);
        let mut rng = Prng::new(seed);
        let mut try_one = |slot: u32, begin: usize, len: usize, how: u64| {
            let recovered = spoiled(&world, |disk| {
                let bytes = &mut disk.bytes(&file_path(slot))[begin..begin + len];
                bytes.iter_mut().for_each(|byte| *byte = if how == 0 { 0 } else { rng.next_u64() as u8 });
            });
            let recovered = recovered.unwrap_or_else(|error| panic!("seed {seed}, slot {slot} {begin}+{len}: {error}"));
            // What the closing statement alone stated is unstated again when both are lost together: a second fault.
            let last = world.acknowledged;
            let statement = &world.written[&last];
            let lost_too = statement.slot == slot && (begin..begin + len).contains(&(statement.place as usize));
            let stated = if lost_too { stated_in_other_files(&world, slot) } else { last - 1 };
            check(&world, &recovered, stated).unwrap_or_else(|violation| panic!("seed {seed}, slot {slot} {begin}+{len}: {violation}"));
            images += 1;
        };
        for sequence in live(&world) {
            let written = &world.written[&sequence];
            for sector in 0..written.bytes as usize / SECTOR {
                try_one(written.slot, written.place as usize + sector * SECTOR, SECTOR, sector as u64 % 2);
            }
            for block in 0..written.bytes as usize / BLOCK {
                try_one(written.slot, written.place as usize + block * BLOCK, BLOCK, block as u64 % 2);
            }
            try_one(written.slot, written.place as usize, written.bytes as usize, 0);
            try_one(written.slot, 0, small().file_bytes as usize, 0);
        }
    }
    println!("{images} images");
}

/// What headers in other files than `slot`, or the openings, state synced.
fn stated_in_other_files(world: &World, slot: u32) -> u64 {
    let whole = recover(&mut world.disk.durable(0), folder(), &world.pool, 0).unwrap();
    let others = whole.entries.iter().filter(|entry| entry.slot != slot).map(|entry| entry.header.synced);
    others.max().unwrap_or(0).max(whole.openings.stated())
}

#[test]
fn only_what_nothing_states_yet_can_be_mistaken_for_torn() {
    for seed in 200..200 + seeds(40) {
        let mut world = quiet_world(seed, false);
        let last = world.acknowledged;
        if world.written[&last].records.is_empty() {
            continue; // a statement: promised to no one
        }
        let headers = |world: &World| recover(&mut world.disk.durable(0), folder(), &world.pool, 0).unwrap();
        let whole = headers(&world);
        let stated = whole.entries.iter().map(|entry| entry.header.synced).max().unwrap_or(0).max(whole.openings.stated());
        assert!(stated < last, "the last entry is stated by none");
        let damaged = |world: &World, sequence: u64| {
            let written = &world.written[&sequence];
            spoiled(world, |disk| disk.bytes(&file_path(written.slot))[written.place as usize + 100] ^= 1).unwrap()
        };
        for sequence in stated.max(world.released - 1) + 1..=last {
            let recovered = damaged(&world, sequence);
            assert!(matches!(recovered.verdict, Verdict::Torn(_)), "seed {seed}, entry {sequence}: {:?}", recovered.verdict);
            assert_eq!(recovered.next, sequence, "seed {seed}: cut there and nowhere before");
            // A checkpoint elsewhere that states it convicts too.
            let written = &world.written[&sequence];
            let mut disk = world.disk.durable(0);
            disk.bytes(&file_path(written.slot))[written.place as usize + 100] ^= 1;
            let recovered = recover(&mut disk, folder(), &world.pool, sequence).unwrap();
            assert_eq!(damages(&recovered).first().map(|damage| damage.first), Some(sequence));
        }
        world.now = world.now.plus_ms(2);
        assert!(world.journal.statement_due(world.now), "seed {seed}");
        let sealed = world.journal.seal_statement(world.now).unwrap();
        world.submit(&sealed, Vec::new());
        world.complete_all();
        assert!(!world.journal.statement_due(world.now.plus_ms(1_000)), "one statement is enough");
        for sequence in stated.max(world.released - 1) + 1..=last {
            let recovered = damaged(&world, sequence);
            check(&world, &recovered, last).unwrap();
            assert_eq!(damages(&recovered).first().map(|damage| damage.first), Some(sequence), "seed {seed}");
        }
        let recovered = damaged(&world, last + 1);
        assert_eq!(recovered.next, last + 1, "the statement itself was promised to no one");
        check(&world, &recovered, last).unwrap();
    }
}

#[test]
fn an_opening_states_everything_before_it() {
    for seed in 300..300 + seeds(20) {
        let mut world = quiet_world(seed, false);
        world.crash(false).unwrap();
        for sequence in live(&world) {
            let written = &world.written[&sequence];
            let recovered = spoiled(&world, |disk| disk.bytes(&file_path(written.slot))[written.place as usize + 20] ^= 1).unwrap();
            check(&world, &recovered, world.acknowledged).unwrap();
            assert!(!damages(&recovered).is_empty(), "seed {seed}, entry {sequence}");
        }
    }
}

#[test]
fn one_slot_of_the_openings_is_enough_and_none_is_an_error() {
    for seed in 400..400 + seeds(20) {
        let mut world = quiet_world(seed, true);
        world.crash(false).unwrap();
        world.write();
        world.complete_all();
        let path = folder().join(layout::OPENINGS_NAME);
        for slot in 0..2 {
            for sector in 0..BLOCK / SECTOR {
                let recovered = spoiled(&world, |disk| disk.bytes(&path)[slot * BLOCK + sector * SECTOR + 7] ^= 4).unwrap();
                check(&world, &recovered, world.acknowledged).unwrap();
                assert!(damages(&recovered).is_empty());
                let told = recovered.lost_slot.unwrap();
                assert_eq!((told.file, told.place), (path.display().to_string(), (slot * BLOCK) as u64), "it is told");
            }
        }
        assert_eq!(recover(&mut world.disk, folder(), &world.pool, 0).unwrap().lost_slot, None);
        for spoil in [
            (|bytes: &mut Vec<u8>| bytes.clear()) as fn(&mut Vec<u8>),
            |bytes| bytes.fill(0),
            |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1),
        ] {
            let error = spoiled(&world, |disk| spoil(disk.bytes(&path))).unwrap_err();
            assert!(matches!(error, JournalError::Openings(_)), "{error}");
            assert_eq!(error.fault(), Fault::Corrupt);
        }
    }
}

#[test]
fn damage_stays_known_until_it_is_released() {
    for seed in 500..500 + seeds(20) {
        let mut world = quiet_world(seed, true);
        let sequence = world.released.max(1);
        let written = world.written[&sequence].clone();
        world.disk.bytes(&file_path(written.slot))[written.place as usize + 60] ^= 1;
        for round in 0..4 {
            let recovered = recover(&mut world.disk, folder(), &world.pool, 0).unwrap();
            check(&world, &recovered, world.acknowledged - u64::from(round == 0)).unwrap();
            assert!(
                damages(&recovered).iter().any(|damage| damage.first == sequence),
                "seed {seed}, round {round}: {:?}",
                recovered.verdict
            );
            world.written.split_off(&recovered.next);
            world.journal = prepare(&mut world.disk, folder(), &recovered, 1_000 + round, small(), &world.pool).unwrap();
            let record = Record::Batches { partition: partition(9), base: 0, end: 1, payload: PayloadRange { start: 0, len: 0 } };
            let range = world.journal.append(Urgency::Data, record, &[round as u8; 100]).unwrap();
            let sealed = world.journal.seal(world.now).unwrap();
            world.submit(&sealed, vec![Record::Batches { partition: partition(9), base: 0, end: 1, payload: range }]);
            world.complete_all();
        }
        // Released and stated: forgotten.
        world.journal.release(world.acknowledged + 1);
        let sealed = world.journal.seal_statement(world.now).unwrap();
        world.submit(&sealed, Vec::new());
        world.complete_all();
        let recovered = recover(&mut world.disk, folder(), &world.pool, 0).unwrap();
        assert!(damages(&recovered).is_empty(), "seed {seed}");
    }
}

#[test]
fn what_is_written_behind_a_last_entry_that_lies_astray_hits_no_other() {
    let (mut moved, mut astray) = (0, 0);
    for seed in 700..700 + seeds(10) {
        let last = quiet_world(seed, true).written.into_values().next_back().unwrap();
        for (place, stays) in (0..last.place).step_by(BLOCK).flat_map(|place| [(place, true), (place, false)]) {
            let mut world = quiet_world(seed, true);
            let file = world.disk.bytes(&file_path(last.slot));
            let from = last.place as usize..(last.place + last.bytes) as usize;
            let entry = file[from.clone()].to_vec();
            if !stays {
                file[from].fill(0);
            }
            file[place as usize..place as usize + entry.len()].copy_from_slice(&entry);
            let recovered = recover(&mut world.disk, folder(), &world.pool, 0).unwrap();
            let sequences = |recovered: &Recovered| recovered.entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>();
            let (before, next) = (sequences(&recovered), recovered.next);
            astray += u64::from(recovered.end.is_none());
            world.written.split_off(&next);
            world.journal = prepare(&mut world.disk, folder(), &recovered, 2_000, small(), &world.pool).unwrap();
            let record = Record::Batches { partition: partition(9), base: 0, end: 1, payload: PayloadRange { start: 0, len: 0 } };
            let range = world.journal.append(Urgency::Reserved, record, &[7; 100]).unwrap();
            let sealed = world.journal.seal(world.now).unwrap();
            world.submit(&sealed, vec![Record::Batches { partition: partition(9), base: 0, end: 1, payload: range }]);
            world.complete_all();
            let after = sequences(&recover(&mut world.disk, folder(), &world.pool, 0).unwrap());
            assert_eq!(after, [before, vec![next]].concat(), "seed {seed}: the last entry at {place}, its own place too: {stays}");
            moved += 1;
        }
    }
    assert!(moved > 50 && astray > 0, "{moved} moved, {astray} were taken where they lay");
}

#[test]
fn foreign_bytes_never_panic_and_memory_stays_bounded() {
    let mut rng = Prng::new(600);
    for _ in 0..seeds(300) {
        let world = quiet_world(rng.below(5), true);
        let mut disk = world.disk.durable(0);
        let pool = Pool::new(1 << 20);
        for _ in 0..1 + rng.below(40) {
            let slot = rng.below(3) as u32;
            let bytes = if rng.one_in(8) { disk.bytes(&folder().join(layout::OPENINGS_NAME)) } else { disk.bytes(&file_path(slot)) };
            let at = (rng.below(bytes.len() as u64 / 8) * 8) as usize;
            match rng.below(4) {
                0 => bytes[at..at + 8].copy_from_slice(&rng.next_u64().to_le_bytes()),
                1 => bytes[at..at + 8].fill(0xff),
                2 => {
                    let from = (rng.below(bytes.len() as u64 / 512) * 512) as usize;
                    let to = (rng.below(bytes.len() as u64 / 512) * 512) as usize;
                    bytes.copy_within(from..from + 512, to);
                }
                _ => {
                    // A header whose numbers are foreign and whose CRC is right.
                    let place = at / BLOCK * BLOCK;
                    if let Ok(mut header) = layout::Header::decode(&bytes[place..]) {
                        match rng.below(4) {
                            0 => header.sequence = rng.next_u64() >> rng.below(64),
                            1 => header.synced = rng.next_u64() >> rng.below(64),
                            2 => header.oldest_live = rng.next_u64() >> rng.below(64),
                            _ => header.extents_before = rng.next_u64(),
                        }
                        header.encode(&mut bytes[place..]);
                    }
                }
            }
        }
        if let Ok(recovered) = recover(&mut disk, folder(), &pool, 0) {
            assert!(pool.used() <= 3 * 8 * BLOCK * 2);
            let opened = prepare(&mut disk, folder(), &recovered, 5, small(), &pool);
            assert!(opened.is_ok());
        }
    }
}
