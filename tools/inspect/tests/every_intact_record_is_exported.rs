//! Whatever is damaged, every record in a batch that is intact somewhere is exported, once and in order, and what is not is named.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use millrace_base::batch::place;
use millrace_base::ids::PartitionId;
use millrace_base::limits::BLOCK;
use millrace_base::prng::Prng;
use millrace_inspect::{As, Export, Find, Format, InspectError, Outcome, Stats, Verb, Window};
use millrace_log::paths;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use support::{
    Gave, NOW, Scratch, VERIFY, batch, build_random, built, contents, first, flip, inspect, second, try_inspect, try_inspect_as,
};

fn export(how: As) -> Export {
    Export { what: Vec::new(), offsets: 0..i64::MAX, times: Window::ALL, how, isolation: None, to: None }
}

/// What comes out: offsets of each partition in the order in which they came.
fn offsets(gave: &Gave) -> BTreeMap<String, Vec<i64>> {
    let mut all: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for line in gave.out.lines() {
        let part = |name: &str| line.split(&format!("\"{name}\":")).nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
        let name = format!("{}/{}", part("topic").trim_matches('"'), part("partition"));
        all.entry(name).or_default().push(part("offset").parse().unwrap());
    }
    all
}

fn all_of(data: &Path) -> Gave {
    inspect(&Verb::Export(export(As::Json)), data)
}

fn of(gave: &Gave, id: PartitionId) -> Vec<i64> {
    offsets(gave).remove(&id.to_string()).unwrap_or_default()
}

fn size() -> usize {
    batch(0, 0).0.size
}

fn segment(data: &Path, id: PartitionId, base: i64) -> std::path::PathBuf {
    paths::segment(&paths::partition(data, id), base)
}

#[test]
fn a_clean_directory_is_exported_from_the_log_start_to_the_journals_last() {
    let scratch = built();
    let gave = all_of(&scratch.0);
    assert_eq!(gave.outcome, Outcome::Clean, "{}", gave.talk);
    assert_eq!(of(&gave, first()), (0..54).collect::<Vec<_>>());
    assert_eq!(of(&gave, second()), (5..203).collect::<Vec<_>>());
    let line = gave.out.lines().next().unwrap();
    for part in [
        "\"timestamp\":1700000000000,\"timestamp_type\":\"create\",\"epoch\":3,\"producer_id\":1000,\"producer_epoch\":0",
        "\"key\":\"key\\n\",\"value\":\"value 000",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(gave.talk.contains("54 records in 54 batches") && gave.talk.contains("offsets 0 to 53; nothing is lost"), "{}", gave.talk);
}

#[test]
fn a_range_of_offsets_and_of_times() {
    let scratch = built();
    let some = |offsets, times| inspect(&Verb::Export(Export { offsets, times, ..export(As::Json) }), &scratch.0);
    assert_eq!(of(&some(37..43, Window::ALL), first()), (37..43).collect::<Vec<_>>());
    assert_eq!(of(&some(52..90, Window::ALL), first()), [52, 53]);
    let times = Window { from: Some(NOW + 10), to: Some(NOW + 13) };
    assert_eq!(of(&some(0..i64::MAX, times), first()), [10, 11, 12]);
    let one = Export { what: vec![second().to_string()], offsets: 0..8, ..export(As::Json) };
    assert_eq!(of(&inspect(&Verb::Export(one), &scratch.0), second()), [5, 6, 7]);
    let none = Export { what: vec!["nothing".to_owned()], ..export(As::Json) };
    assert!(matches!(try_inspect(&Verb::Export(none), &scratch.0), Err(InspectError::Usage(text)) if text.contains("nothing")));
}

#[test]
fn a_hole_in_a_segment_is_filled_from_the_journal() {
    let scratch = built();
    // All batches of the first partition are still in live entries.
    flip(&segment(&scratch.0, first(), 20), 3 * size() + place::RECORDS + 9);
    flip(&segment(&scratch.0, first(), 0), size() + place::LENGTH);
    let gave = all_of(&scratch.0);
    assert_eq!((gave.outcome, of(&gave, first())), (Outcome::Clean, (0..54).collect()), "{}", gave.talk);
    fs::remove_file(segment(&scratch.0, first(), 0)).unwrap();
    assert_eq!(of(&all_of(&scratch.0), first()), (0..54).collect::<Vec<_>>());
}

#[test]
fn what_is_nowhere_is_lost_and_all_around_it_is_not() {
    let path = |data: &Path| segment(data, second(), 0);
    let without = |lost: &[i64]| (5..203).filter(|offset| !lost.contains(offset)).collect::<Vec<_>>();
    // The second partition's journal holds no batch of its segment.
    for (at, lost) in [
        (50 * size() + place::RECORDS + 9, vec![50]),
        (50 * size() + place::CRC, vec![50]),
        (50 * size() + place::LENGTH, vec![50]),
        (50 * size() + place::LENGTH + 3, vec![50]),
        (50 * size() + place::MAGIC, vec![50]),
        (50 * size() + place::LAST_OFFSET_DELTA, vec![50]),
    ] {
        let scratch = built();
        flip(&path(&scratch.0), at);
        let gave = all_of(&scratch.0);
        assert_eq!((gave.outcome, of(&gave, second())), (Outcome::Damaged, without(&lost)), "byte {at}: {}", gave.talk);
        assert!(
            gave.talk.contains(&format!("offset {}: {} at byte {}: ", lost[0], path(&scratch.0).display(), 50 * size())),
            "{}",
            gave.talk
        );
    }
    // The offset is not under the CRC, but the batches around say it.
    for byte in [place::BASE_OFFSET, place::BASE_OFFSET + 6, place::BASE_OFFSET + 7] {
        let scratch = built();
        flip(&path(&scratch.0), 50 * size() + byte);
        let gave = all_of(&scratch.0);
        assert_eq!((gave.outcome, of(&gave, second())), (Outcome::Clean, without(&[])), "byte {byte}: {}", gave.talk);
    }
    let scratch = built();
    let mut bytes = fs::read(path(&scratch.0)).unwrap();
    bytes[60 * size() + 7..64 * size() + 30].fill(0);
    bytes.truncate(190 * size() + 5);
    fs::write(path(&scratch.0), bytes).unwrap();
    let gave = all_of(&scratch.0);
    assert_eq!(of(&gave, second()), without(&[60, 61, 62, 63, 64, 190, 191, 192, 193, 194, 195, 196, 197, 198, 199]), "{}", gave.talk);
    assert!(gave.talk.contains("offsets 60 to 64:") && gave.talk.contains("offsets 190 to 199:"), "{}", gave.talk);
}

#[test]
fn without_a_journal_or_with_a_damaged_one_what_files_hold_comes_out() {
    let scratch = built();
    fs::remove_dir_all(paths::journals(&scratch.0)).unwrap();
    let gave = all_of(&scratch.0);
    assert_eq!((of(&gave, first()), of(&gave, second())), ((0..50).collect(), (0..200).collect()), "{}", gave.talk);
    let journal = |data: &Path| paths::journal(data, 0).join("0.journal");
    // Openings gone: recovery can say nothing, but entries are whole.
    let scratch = built();
    flip(&paths::journal(&scratch.0, 0).join("openings"), 30);
    flip(&paths::journal(&scratch.0, 0).join("openings"), BLOCK + 30);
    let gave = all_of(&scratch.0);
    assert_eq!(of(&gave, first()), (0..54).collect::<Vec<_>>(), "{}", gave.talk);
    assert_eq!(of(&gave, second()), (0..203).collect::<Vec<_>>(), "{}", gave.talk);
    // Each entry damaged in its turn: what the others and the segments hold.
    let scratch = built();
    let entries: Vec<usize> = (0..40)
        .map(|block| block * BLOCK)
        .filter(|at| {
            let bytes = fs::read(journal(&scratch.0)).unwrap();
            bytes.get(*at..).is_some_and(|rest| millrace_log::journal::layout::Header::decode(rest).is_ok())
        })
        .collect();
    assert_eq!(entries.len(), 6);
    for (number, at) in entries.into_iter().enumerate() {
        let scratch = built();
        flip(&journal(&scratch.0), at + 300);
        let gave = all_of(&scratch.0);
        let expected: Vec<i64> = if number == 2 { (0..50).collect() } else { (0..54).collect() };
        assert_eq!(of(&gave, first()), expected, "entry {}: {}", number + 1, gave.talk);
        let end = if number == 4 { 200 } else { 203 };
        assert_eq!(of(&gave, second()).last(), Some(&(end - 1)), "entry {}: {}", number + 1, gave.talk);
    }
}

#[test]
fn batches_come_out_as_they_are_and_stand_on_their_own() {
    let scratch = built();
    let one = Export { what: vec![first().to_string()], ..export(As::Raw) };
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let inspection = support::inspection(&Verb::Export(one.clone()), &scratch.0, Format::Text);
    assert_eq!(millrace_inspect::run(&inspection, &mut out, &mut talk).unwrap(), Outcome::Clean);
    assert!(out == (0..54).flat_map(|offset| batch(offset, offset).1).collect::<Vec<u8>>());
    let many = Verb::Export(export(As::Raw));
    assert!(matches!(try_inspect(&many, &scratch.0), Err(InspectError::Usage(text)) if text.contains("--out")));
    let to = Scratch::new();
    inspect(&Verb::Export(Export { to: Some(to.0.join("a")), ..export(As::Raw) }), &scratch.0);
    let folder = to.0.join("a").join(format!("{}-0", first().topic));
    let copy = inspect(&VERIFY, &folder);
    assert!(copy.outcome == Outcome::Clean && copy.out.contains("54 batches"), "{}", copy.out);
    let again = inspect(&Verb::Export(export(As::Json)), &folder);
    assert_eq!(offsets(&again).into_values().next().unwrap(), (0..54).collect::<Vec<_>>());
    let file = inspect(&Verb::Export(export(As::Json)), &folder.join("00000000000000000000.log"));
    assert_eq!(offsets(&file).into_values().next().unwrap().len(), 54);
    let lines = Verb::Export(Export { to: Some(to.0.join("b")), ..export(As::Json) });
    inspect(&lines, &scratch.0);
    assert_eq!(contents(&to.0.join("b")).len(), 2);
    let refused = try_inspect(&lines, &scratch.0);
    assert!(matches!(&refused, Err(InspectError::Usage(why)) if why.contains("not overwritten")), "what is there is not written over");
}

#[test]
fn nothing_is_written_into_what_is_inspected() {
    let scratch = built();
    let before = contents(&scratch.0);
    for to in [scratch.0.join("out"), scratch.0.join("a/b/c"), scratch.0.clone()] {
        let verb = Verb::Export(Export { to: Some(to), ..export(As::Raw) });
        assert!(matches!(try_inspect(&verb, &scratch.0), Err(InspectError::Usage(text)) if text.contains("nothing is written")));
    }
    assert!(contents(&scratch.0) == before);
}

#[test]
fn a_hundred_random_directories_are_clean_and_come_out_whole() {
    for seed in 0..100 {
        let (scratch, mut prng) = (Scratch::new(), Prng::new(seed));
        let all = build_random(&scratch.0, &mut prng);
        let gave = inspect(&VERIFY, &scratch.0);
        assert_eq!(gave.outcome, Outcome::Clean, "seed {seed}: {}", gave.out);
        assert_eq!(inspect(&Verb::Ls, &scratch.0).outcome, Outcome::Clean, "seed {seed}");
        let gave = all_of(&scratch.0);
        assert_eq!(gave.outcome, Outcome::Clean, "seed {seed}: {}", gave.talk);
        for random in all {
            assert_eq!(of(&gave, random.id), random.values.keys().copied().collect::<Vec<_>>(), "seed {seed}: {}", gave.talk);
            for (offset, value) in &random.values {
                let line = format!("\"partition\":{},\"offset\":{offset},", random.id.index);
                let topic = format!("\"topic\":\"{}\"", random.id.topic);
                let found = gave.out.lines().find(|found| found.contains(&line) && found.contains(&topic)).unwrap();
                assert!(found.contains(&format!("\"value\":\"{value}\"")), "seed {seed}: {found}");
            }
        }
    }
}

#[test]
fn records_are_found_by_key_time_and_pattern() {
    let scratch = built();
    let none = Find { what: Vec::new(), offsets: 0..i64::MAX, times: Window::ALL, key: None, pattern: None, limit: None };
    let found = |find: Find| inspect(&Verb::Find(find), &scratch.0);
    let lines = |gave: &Gave| gave.out.lines().count();
    assert_eq!(lines(&found(Find { key: Some(b"key\n".to_vec()), ..none.clone() })), 54 + 198);
    assert_eq!(lines(&found(Find { key: Some(b"key".to_vec()), ..none.clone() })), 0);
    let gave = found(Find { pattern: Some("value 0+4[12]$".to_owned()), ..none.clone() });
    assert_eq!(lines(&gave), 4, "{}", gave.out);
    assert!(gave.out.contains(&format!("{}-0 41 2023-11-14T22:13:20.041Z key=\"key\\n\" value=\"value 00", first().topic)), "{}", gave.out);
    let times = Window { from: Some(NOW + 20), to: Some(NOW + 22) };
    assert_eq!(lines(&found(Find { times, ..none.clone() })), 4);
    let gave = found(Find { limit: Some(3), ..none.clone() });
    assert!(lines(&gave) == 3 && gave.talk.contains("3 found"), "{}", gave.talk);
    let bad = Verb::Find(Find { pattern: Some("(".to_owned()), ..none });
    assert!(matches!(try_inspect(&bad, &scratch.0), Err(InspectError::Usage(text)) if text.contains("pattern")));
}

#[test]
fn stats_count_what_is_there() {
    let scratch = built();
    let stats = |headers_only| Verb::Stats(Stats { what: Vec::new(), offsets: 0..i64::MAX, times: Window::ALL, headers_only, threads: 2 });
    let gave = inspect(&stats(false), &scratch.0);
    assert_eq!(gave.outcome, Outcome::Clean);
    let total = 54 + 198;
    let words = [
        format!("{total} records in {total} batches of {} bytes", total * size()),
        format!("{} bytes, values {} bytes", 4 * total, 60 * total),
        "batch bytes\n  128 to 255".to_owned(),
        "records by time, from\n  2023-11-14T22:13:20.000Z".to_owned(),
        "busiest producers".to_owned(),
    ];
    for words in words {
        assert!(gave.out.contains(&words), "{words}: {}", gave.out);
    }
    let json = try_inspect_as(&stats(true), &scratch.0, Format::Json).unwrap().out;
    assert!(json.contains(&format!("{{\"kind\":\"stats\",\"records\":{total},\"batches\":{total}")), "{json}");
}
