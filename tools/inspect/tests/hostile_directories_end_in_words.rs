//! Whatever stands in a data directory: every command ends, soon, with words instead of a panic, and memory stays bounded.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use millrace_base::crc::crc32c;
use millrace_base::prng::Prng;
use millrace_inspect::{Outcome, Show, Verb};
use millrace_log::journal::layout::{self, place};
use millrace_log::paths;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use support::{Scratch, VERIFY, built, contents, first, inspect, second, try_inspect};

/// Runs everything; an error in words is as good as an answer.
fn everything(data: &Path) {
    let show = |what: Option<String>| Verb::Show(Show { what, records: true, ..Show::default() });
    let mut verbs = vec![Verb::Ls, VERIFY, show(None), show(Some("journal/0".to_owned()))];
    verbs.extend([first(), second()].map(|id| show(Some(id.to_string()))));
    for file in contents(data).into_keys() {
        verbs.push(show(Some(file.strip_prefix(data).unwrap().display().to_string())));
    }
    for verb in verbs {
        if let Err(error) = try_inspect(&verb, data) {
            assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn files_of_garbage() {
    let mut prng = Prng::new(11);
    for round in 0..12 {
        let scratch = built();
        for path in contents(&scratch.0).into_keys() {
            if prng.one_in(2) {
                let garbage: Vec<u8> = (0..prng.below(20_000)).map(|_| prng.next_u64() as u8).collect();
                fs::write(&path, &garbage).unwrap();
            }
        }
        println!("round {round}");
        everything(&scratch.0);
    }
}

#[test]
fn bytes_changed_at_random() {
    let mut prng = Prng::new(12);
    for round in 0..60 {
        let scratch = built();
        let files: Vec<_> = contents(&scratch.0).into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
        for _ in 0..=prng.below(6) {
            let (path, bytes) = &files[prng.below(files.len() as u64) as usize];
            // Most of a journal file is not written yet: aim at its front.
            let at = prng.below(bytes.len().min(30_000) as u64) as usize;
            let mut bytes = fs::read(path).unwrap();
            bytes[at] = prng.next_u64() as u8;
            fs::write(path, bytes).unwrap();
        }
        println!("round {round}");
        everything(&scratch.0);
    }
}

#[test]
fn files_cut_anywhere() {
    let mut prng = Prng::new(13);
    for _ in 0..30 {
        let scratch = built();
        for (path, bytes) in contents(&scratch.0) {
            if prng.one_in(3) {
                fs::write(path, &bytes[..prng.below(bytes.len() as u64 + 1) as usize]).unwrap();
            }
        }
        everything(&scratch.0);
    }
}

#[test]
fn headers_with_a_right_crc_and_lengths_that_lie() {
    for (field, value) in [
        (place::ENTRY_BYTES, u32::MAX - 4095),
        (place::ENTRY_BYTES, 0),
        (place::PAYLOAD_BYTES, u32::MAX),
        (place::CONTENTS_BYTES, u32::MAX / 2),
        (place::FORMAT, 2),
        (place::SEQUENCE, u32::MAX),
    ] {
        let scratch = built();
        let path = paths::journal(&scratch.0, 0).join("0.journal");
        let mut bytes = fs::read(&path).unwrap();
        bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
        let crc = crc32c(&bytes[..place::HEADER_CRC]);
        bytes[place::HEADER_CRC..layout::HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Damaged);
        everything(&scratch.0);
    }
}

#[test]
fn files_that_are_huge() {
    let scratch = built();
    let (a, b) = (paths::partition(&scratch.0, first()), paths::partition(&scratch.0, second()));
    let journal = paths::journal(&scratch.0, 0);
    let huge = [
        paths::segment(&a, 0),
        paths::index(&a, 20),
        b.join("00000000000000000200.state"),
        journal.join("1.journal"),
        journal.join("openings"),
        paths::meta(&scratch.0),
    ];
    for path in huge {
        let len = fs::metadata(&path).unwrap().len();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(1 << 42).unwrap(); // sparse
        let is_slot = path.ends_with("openings"); // of which two blocks are read
        let outcome = inspect(&VERIFY, &scratch.0).outcome;
        assert_eq!(outcome, if is_slot { Outcome::Clean } else { Outcome::Damaged }, "{}", path.display());
        file.set_len(len).unwrap();
    }
    assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Clean);
}

#[test]
fn names_of_ours_that_are_no_files() {
    for name in ["0.journal", "openings"] {
        let scratch = built();
        let path = paths::journal(&scratch.0, 0).join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Damaged);
        fs::remove_dir(&path).unwrap();
        symlink("/dev/zero", &path).unwrap(); // as a pipe would: opened it would never end
        assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Damaged);
        assert_eq!(inspect(&Verb::Ls, &scratch.0).outcome, Outcome::Damaged);
    }
    let scratch = built();
    let folder = paths::partition(&scratch.0, first());
    for path in [paths::segment(&folder, 0), paths::index(&folder, 20), paths::meta(&scratch.0), scratch.0.join("millrace.lock")] {
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
    }
    let gave = inspect(&VERIFY, &scratch.0);
    assert!(gave.outcome == Outcome::Damaged && gave.out.lines().count() >= 4, "{}", gave.out);
    assert_eq!(inspect(&Verb::Ls, &scratch.0).outcome, Outcome::Damaged);
}

#[test]
fn a_directory_with_names_only() {
    let scratch = Scratch::new();
    for name in ["journal/0", "journal/65535", "journal/x", "AAAAAAAAAAAAAAAAAAAAAQ/0", "AAAAAAAAAAAAAAAAAAAAAQ/4294967295"] {
        fs::create_dir_all(scratch.0.join(name)).unwrap();
    }
    everything(&scratch.0);
    assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Damaged);
}
