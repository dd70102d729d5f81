//! What a broker left in order is listed, shown to the last record, found clean, and not changed.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use millrace_inspect::{Format, InspectError, Outcome, Show, Verb};
use millrace_log::paths;
use std::fs;
use std::io::{self, Write};
use support::{NOW, VERIFY, build, built, contents, first, inspect, second, show, try_inspect};

#[test]
fn nothing_is_written_whatever_is_asked() {
    let scratch = built();
    let before = contents(&scratch.0);
    for verb in [Verb::Ls, Verb::Show(Show::default()), Verb::Show(Show { records: true, ..Show::default() }), VERIFY] {
        assert_eq!(inspect(&verb, &scratch.0).outcome, Outcome::Clean);
    }
    assert!(contents(&scratch.0) == before);
}

#[test]
fn verify_says_clean_and_counts_what_it_read() {
    let scratch = built();
    let gave = inspect(&VERIFY, &scratch.0);
    assert_eq!(gave.talk, "");
    let expected = "clean; 1 journals with 6 live entries, 2 partitions, 4 segments, 257 batches";
    assert!(gave.out.lines().count() == 1 && gave.out.contains(expected), "{}", gave.out);
}

#[test]
fn ls_lists_identity_journals_partitions_and_segments() {
    let scratch = built();
    let out = inspect(&Verb::Ls, &scratch.0).out;
    let row = |begin: &str| {
        let line = out.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin} in\n{out}"));
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("0 "), ["2", "262144", "6", "1", "7", "000000000000abcd", "clean"]);
    // shard, log start, durable end, log end, epoch, segments, pending bytes, producers, state
    let pending = support::batch(50, 50).1.len() * 4;
    assert_eq!(row(&first().to_string()), ["-", "0", "0", "50", "54", "3", "3", &pending.to_string(), "50", "journal"]);
    assert_eq!(row(&second().to_string())[..5], ["-", "0", "5", "200", "203"]);
    assert_eq!(row(&second().to_string())[9], "00000000000000000200.state");
    let segment = |base| row(&format!("{}/{}", first(), paths::segment_name(base)));
    assert_eq!(segment(0)[..2], ["closed", "20"]);
    assert_eq!(segment(20)[4..], [(NOW + 39).to_string(), "file".to_owned()]);
    assert_eq!(segment(40)[..2], ["active", "50"]);
    assert_eq!(segment(40)[3], "4096", "{out}");
}

#[test]
fn show_prints_entries_batches_and_records() {
    let scratch = built();
    let all = inspect(&Verb::Show(Show { records: true, ..Show::default() }), &scratch.0).out;
    for offset in (0..54).chain(200..203) {
        let line = format!("  {offset} {} key=\"key\\n\" value=\"value {offset:054}\"", NOW + offset);
        assert!(all.contains(&line), "record {offset}");
    }
    let journal = show(&scratch.0, "journal/0").out;
    for word in ["entry 1:", "entry 6:", "state ", "batches ", "roll ", "checkpoint ", "incarnation 000000000000abcd", "log start 5"] {
        assert!(journal.contains(word), "{word}");
    }
    let one = Show { what: Some("journal/0".to_owned()), entry: Some(2), ..Show::default() };
    let one = inspect(&Verb::Show(one), &scratch.0).out;
    assert!(one.contains("entry 2:") && !one.contains("entry 1:") && !one.contains("entry 3:"));
    let from = Show { what: Some(first().to_string()), from: Some(41), ..Show::default() };
    let from = inspect(&Verb::Show(from), &scratch.0).out;
    let shown = from.lines().filter(|line| line.contains(" ok ")).count();
    assert_eq!(shown, 13, "41..54\n{from}");
}

#[test]
fn a_file_is_shown_by_its_own_name_inside_and_alone() {
    let scratch = built();
    let (a, b) = (paths::partition(&scratch.0, first()), paths::partition(&scratch.0, second()));
    let files = [
        (paths::segment(&a, 20), "producer", "1020/0@0"),
        (paths::index(&a, 20), "index of segment 20", "ends at offset 40"),
        (b.join("00000000000000000200.state"), "state up to offset 200", "producer 1199 epoch 0"),
        (paths::journal(&scratch.0, 0).join("0.journal"), "entry 1:", "checkpoint "),
        (paths::journal(&scratch.0, 0).join("openings"), "slot 0", "incarnation 000000000000abcd from entry 1 on"),
        (paths::meta(&scratch.0), "node.id=3", "format=1"),
    ];
    for (path, one, other) in files {
        let inside = show(&scratch.0, path.strip_prefix(&scratch.0).unwrap().to_str().unwrap());
        let alone = inspect(&Verb::Show(Show { records: true, ..Show::default() }), &path);
        assert_eq!((inside.outcome, &inside.out), (Outcome::Clean, &alone.out));
        assert!(alone.out.contains(one) && alone.out.contains(other), "{}: {}", path.display(), alone.out);
    }
}

#[test]
fn what_cannot_be_shown_is_refused_with_what_can() {
    let scratch = built();
    let refused = |what: &str| {
        let verb = Verb::Show(Show { what: Some(what.to_owned()), ..Show::default() });
        match try_inspect(&verb, &scratch.0) {
            Err(error) => error.to_string(),
            Ok(gave) => panic!("{what}: {}", gave.out),
        }
    };
    for what in ["", "../x", "/etc/passwd", "notes.txt"] {
        assert!(refused(what).contains("TOPIC/PARTITION"), "{what}");
    }
    assert!(refused("journal/4").contains("no journal of shard 4"));
    assert!(refused("journal/0/9.journal").contains("cannot read"));
    assert!(refused(&format!("{}/1", first().topic)).contains("has no partition"));
    let empty = support::Scratch::new();
    for verb in [Verb::Ls, VERIFY, Verb::Show(Show::default())] {
        assert!(matches!(try_inspect(&verb, &empty.0), Err(InspectError::Usage(text)) if text.contains("millrace.meta")));
        assert!(matches!(try_inspect(&verb, &empty.0.join("absent")), Err(InspectError::Io { .. } | InspectError::Usage(_))));
    }
}

#[test]
fn a_running_broker_is_noticed_not_disturbed_and_judged_below_its_checkpoints() {
    let scratch = built();
    let lock = fs::File::open(scratch.0.join("millrace.lock")).unwrap();
    lock.try_lock().unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    assert_eq!(gave.outcome, Outcome::Clean, "{}", gave.out);
    assert!(gave.talk.contains("a broker runs on") && gave.out.contains("clean; 1 journals"), "{}{}", gave.out, gave.talk);
    let live = support::batch(50, 50).1.len() * 4;
    assert!(gave.out.contains(&format!("{}: offsets 50 to 54 are live, {live} bytes", first())), "{}", gave.out);
    // What is behind the last checkpoint is live, whatever it looks like; what is below is not.
    let journal = paths::journal(&scratch.0, 0).join("0.journal");
    let before = fs::read(&journal).unwrap();
    for place in [3 * 4096 + 300, 40 * 4096 - 1] {
        support::flip(&journal, place.min(before.len() - 1));
        assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Clean);
    }
    fs::write(&journal, before).unwrap();
    let segment = paths::segment(&paths::partition(&scratch.0, first()), 20);
    support::flip(&segment, 500);
    let gave = inspect(&VERIFY, &scratch.0);
    assert!(gave.outcome == Outcome::Damaged && gave.out.starts_with(&segment.display().to_string()), "{}", gave.out);
    support::flip(&segment, 500);
    let gave = inspect(&Verb::Ls, &scratch.0);
    assert!(gave.talk.contains("a broker runs on") && gave.outcome == Outcome::Clean);
    drop(lock);
    assert_eq!(inspect(&VERIFY, &scratch.0).outcome, Outcome::Clean);
    let after = fs::File::open(scratch.0.join("millrace.lock")).unwrap();
    after.try_lock().unwrap(); // nothing is held when a command has ended
}

#[test]
fn what_a_crash_leaves_is_mentioned_and_clean() {
    let scratch = support::Scratch::new();
    build(&scratch.0);
    // A torn last entry.
    let journal = paths::journal(&scratch.0, 0).join("0.journal");
    let place = inspect(&Verb::Show(Show { what: Some("journal/0".to_owned()), entry: Some(6), ..Show::default() }), &scratch.0).out;
    let place: usize = place.split("0.journal at byte ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    support::flip(&journal, place + 200);
    // A segment that was not closed to the end: not cut, its index not written.
    let folder = paths::partition(&scratch.0, first());
    let mut bytes = fs::read(paths::segment(&folder, 20)).unwrap();
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    fs::write(paths::segment(&folder, 20), bytes).unwrap();
    fs::remove_file(paths::index(&folder, 20)).unwrap();
    fs::write(folder.join("00000000000000000010.state"), "leftover").unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    assert_eq!(gave.outcome, Outcome::Torn, "{}", gave.out);
    assert!(gave.out.contains("entry 6 is torn") && gave.out.contains("torn, 1 end that a start cuts off"), "{}", gave.out);
    for words in ["zeros behind the last batch", "00000000000000000020.index is not there", "is a leftover"] {
        assert!(gave.talk.contains(words), "{words}: {}", gave.talk);
    }
    assert!(gave.out.contains("5 live entries"));
    fs::write(paths::index(&folder, 20), [0; 4096]).unwrap();
    let gave = inspect(&VERIFY, &scratch.0);
    assert!(gave.outcome == Outcome::Torn && gave.talk.contains("was not finished"), "{}{}", gave.out, gave.talk);
}

/// Takes some bytes and then is gone.
struct Reader(usize);

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_unless_it_misses_a_verdict() {
    let scratch = built();
    let run = |verb: &Verb| millrace_inspect::run(&support::inspection(verb, &scratch.0, Format::Text), &mut Reader(30), &mut Vec::new());
    assert!(matches!(run(&Verb::Ls), Ok(Outcome::Clean)));
    assert!(matches!(run(&Verb::Show(Show::default())), Ok(Outcome::Clean)));
    assert!(matches!(run(&VERIFY), Err(InspectError::Output(_))));
}
