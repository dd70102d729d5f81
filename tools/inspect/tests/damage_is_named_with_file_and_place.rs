//! One changed byte in each kind of file is found, and named with the file and the place; other partitions stay clean.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use millrace_base::batch::place;
use millrace_base::limits::BLOCK;
use millrace_base::prng::Prng;
use millrace_inspect::{Outcome, Show, Verb};
use millrace_log::journal::layout;
use millrace_log::{paths, state_file};
use std::fs;
use std::path::{Path, PathBuf};
use support::{Gave, VERIFY, batch, built, first, flip, inspect, second};

/// Flips byte `at` of the file and expects `problems` lines, the first of which begins with the file and `place`.
fn check(file: impl Fn(&Path) -> PathBuf, at: usize, place: usize, words: &str, problems: usize) -> Gave {
    let scratch = built();
    let path = file(&scratch.0);
    flip(&path, at);
    let gave = inspect(&VERIFY, &scratch.0);
    let begin = format!("{} at byte {place}: expected ", path.display());
    assert_eq!(gave.outcome, Outcome::Damaged, "{}", gave.out);
    let line = gave.out.lines().next().unwrap();
    assert!(line.starts_with(&begin) && line.contains(words), "byte {at}: not {begin:?} with {words:?} in\n{}", gave.out);
    assert_eq!(gave.out.lines().filter(|line| line.contains(" at byte ")).count(), problems, "{}", gave.out);
    assert!(gave.out.contains(&format!("DAMAGED, {problems} problem")), "{}", gave.out);
    gave
}

fn size() -> usize {
    batch(0, 0).0.size
}

fn segment(base: i64) -> impl Fn(&Path) -> PathBuf {
    move |data| paths::segment(&paths::partition(data, first()), base)
}

#[test]
fn a_record_in_a_segment() {
    let third = 3 * size();
    for base in [0, 20, 40] {
        check(segment(base), third + place::RECORDS + 9, third, &format!("batch {}..{}", base + 3, base + 4), 1);
    }
}

#[test]
fn a_header_byte_that_no_batch_crc_covers() {
    // The first batch is in the index, the leader epoch is under its outer CRC.
    check(segment(20), place::EPOCH + 3, 0, "header bytes with CRC", 1);
    // A base offset breaks the row twice: here, and behind it.
    check(segment(20), size() + place::BASE_OFFSET + 7, size(), "base offset 21", 2);
}

#[test]
fn a_length_ends_the_walk_until_the_next_batch_that_the_index_knows() {
    let gave = check(segment(0), size() + place::LENGTH, size(), "a batch of at most", 1);
    let read: u64 = gave.out.split(" batches of").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((251..257).contains(&read), "a few are passed over: {read}");
}

#[test]
fn a_segment_that_is_cut() {
    let scratch = built();
    let path = segment(20)(&scratch.0);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    let begin = format!("{} at byte {}: expected {} bytes", path.display(), bytes.len() - 10, bytes.len());
    assert!(gave.out.starts_with(&begin), "{}", gave.out);
    fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    let begin = format!("{} at byte {}: expected the end of a closed segment", path.display(), bytes.len());
    assert!(gave.out.starts_with(&begin), "{}", gave.out);
    fs::remove_file(&path).unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    assert!(gave.outcome == Outcome::Damaged && gave.out.contains("a segment that begins at offset 20, found offset 40"), "{}", gave.out);
}

#[test]
fn every_byte_of_an_index_file() {
    let file = |data: &Path| paths::index(&paths::partition(data, first()), 20);
    let mut prng = Prng::new(8);
    for _ in 0..20 {
        let at = prng.below(2 * BLOCK as u64) as usize;
        check(file, at, at / BLOCK * BLOCK, "CRC", 1);
    }
}

#[test]
fn every_byte_of_a_state_file() {
    let name = state_file::Name { end: 200, again: 0 };
    let file = |data: &Path| paths::state(&paths::partition(data, second()), name);
    let (scratch, mut prng) = (built(), Prng::new(9));
    let len = fs::metadata(file(&scratch.0)).unwrap().len();
    for _ in 0..20 {
        check(file, prng.below(len) as usize, 0, "", 1);
    }
}

#[test]
fn a_body_in_the_journal_costs_the_partition_that_it_names() {
    let file = |data: &Path| paths::journal(data, 0).join("0.journal");
    let gave = check(file, layout::HEADER_BYTES + 40, layout::HEADER_BYTES, "CRC", 2);
    assert!(gave.out.contains(&format!("it held records of {}", first())), "{}", gave.out);
    assert!(gave.out.contains("journal entry 1 is damaged"), "{}", gave.out);
    assert!(!gave.out.contains(&second().to_string()), "{}", gave.out);
}

#[test]
fn a_header_in_the_journal_is_told_by_the_copy_at_the_entrys_end() {
    let file = |data: &Path| paths::journal(data, 0).join("0.journal");
    let gave = check(file, layout::place::SEQUENCE, 0, "the header of entry 1", 2);
    assert!(gave.out.contains(&format!("it held records of {}", first())), "{}", gave.out);
}

#[test]
fn openings_one_slot_is_mentioned_and_both_are_fatal_to_the_journal() {
    let scratch = built();
    let path = paths::journal(&scratch.0, 0).join("openings");
    flip(&path, BLOCK + 30);
    let gave = inspect(&VERIFY, &scratch.0);
    assert_eq!(gave.outcome, Outcome::Clean, "{}", gave.out);
    assert!(gave.talk.contains(&format!("{} at byte {BLOCK}: expected a slot of openings", path.display())), "{}", gave.talk);
    flip(&path, 30);
    let gave = inspect(&VERIFY, &scratch.0);
    assert!(gave.out.starts_with(&format!("{} at byte 0: expected the openings", path.display())), "{}", gave.out);
    assert!(gave.out.contains("DAMAGED, 1 problem;") && gave.out.contains("2 partitions"), "segments are read all the same: {}", gave.out);
    for verb in [Verb::Ls, Verb::Show(Show::default())] {
        assert_eq!(inspect(&verb, &scratch.0).outcome, Outcome::Damaged);
    }
}

#[test]
fn every_line_of_the_meta_file() {
    let text_of = |data: &Path| fs::read_to_string(paths::meta(data)).unwrap();
    let text = text_of(&built().0);
    let crc_line = text.find("crc=").unwrap();
    check(paths::meta, text.find("node.id=").unwrap() + 8, crc_line, "the CRC line", 1);
    let scratch = built();
    fs::remove_file(paths::meta(&scratch.0)).unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    assert!(gave.out.starts_with(&format!("{} at byte 0: expected the file that says whose", paths::meta(&scratch.0).display())));
}

#[test]
fn a_partition_that_no_journal_knows() {
    let scratch = built();
    fs::remove_dir_all(paths::journals(&scratch.0)).unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    assert!(gave.out.contains("expected a journal, found none"), "{}", gave.out);
    assert!(gave.out.contains("expected records of this partition in a journal, found none"), "{}", gave.out);
    assert!(gave.out.contains("DAMAGED, 3 problems; 0 journals"), "{}", gave.out);
}
