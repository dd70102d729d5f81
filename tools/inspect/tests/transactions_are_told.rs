//! What became of a transaction is told with its records, and they are left out where a consumer would not get them.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/kafka.rs"]
mod kafka;
mod support;

use kafka::{batch, build, file, folder, marker, segment, transactional};
use millrace_inspect::{As, Export, Format, Isolation, Outcome, Show, Verb, Window};
use std::fs;
use std::path::Path;
use support::{NOW, Scratch, inspect, try_inspect_as};

fn export(path: &Path, isolation: Option<Isolation>) -> support::Gave {
    let export = Export { what: Vec::new(), offsets: 0..i64::MAX, times: Window::ALL, how: As::Json, isolation, to: None };
    inspect(&Verb::Export(export), path)
}

/// Offsets, and what became of the transaction of those that are in one.
fn told(path: &Path, isolation: Option<Isolation>) -> Vec<(i64, String)> {
    let text = |line: &str, name: &str| line.split(&format!("\"{name}\":")).nth(1).map(|rest| rest.split(',').next().unwrap().to_owned());
    let one = |line: &str| (text(line, "offset").unwrap().parse().unwrap(), text(line, "transaction").unwrap_or_default());
    export(path, isolation).out.lines().map(one).collect()
}

fn fates(path: &Path) -> Vec<(i64, String)> {
    told(path, None).into_iter().filter(|(_, fate)| !fate.is_empty()).map(|(offset, fate)| (offset, fate.replace('"', ""))).collect()
}

fn fate(offsets: &[i64], name: &str) -> Vec<(i64, String)> {
    offsets.iter().map(|offset| (*offset, name.to_owned())).collect()
}

/// One folder of one segment.
fn small(batches: &[Vec<u8>]) -> Scratch {
    let scratch = Scratch::new();
    fs::create_dir_all(folder(&scratch.0)).unwrap();
    segment(&folder(&scratch.0), 0, batches, &[]);
    scratch
}

#[test]
fn export_marks_what_was_committed_and_what_was_aborted() {
    let scratch = Scratch::new();
    build(&scratch.0);
    let expected = [fate(&[20, 21, 22, 23], "aborted"), fate(&[25, 26], "committed")].concat();
    assert_eq!(fates(&scratch.0), expected);
    // The markers alone say it too, and whatever part is asked for.
    fs::remove_file(file(&folder(&scratch.0), 20, "txnindex")).unwrap();
    assert_eq!(fates(&scratch.0), expected);
    let part = Export { what: Vec::new(), offsets: 22..24, times: Window::ALL, how: As::Json, isolation: None, to: None };
    let out = inspect(&Verb::Export(part), &scratch.0).out;
    assert_eq!(out.matches("\"transactional\":true,\"transaction\":\"aborted\"").count(), 2, "{out}");
}

#[test]
fn a_consumers_isolation_leaves_out_what_it_would_not_get() {
    let scratch = Scratch::new();
    build(&scratch.0);
    let offsets = |isolation| told(&scratch.0, Some(isolation)).into_iter().map(|(offset, _)| offset).collect::<Vec<_>>();
    let all = kafka::offsets();
    let without = |out: &[i64]| all.iter().copied().filter(|offset| !out.contains(offset)).collect::<Vec<_>>();
    assert_eq!(offsets(Isolation::ReadUncommitted), without(&[24, 27]));
    assert_eq!(offsets(Isolation::ReadCommitted), without(&[20, 21, 22, 23, 24, 27]));
    let gave = export(&scratch.0, Some(Isolation::ReadCommitted));
    assert!(gave.outcome == Outcome::Clean && gave.talk.contains("orders-0: 6 records are left out"), "{}", gave.talk);
    // As batches: the markers stay.
    let to = Scratch::new();
    let raw = Export {
        what: Vec::new(),
        offsets: 0..i64::MAX,
        times: Window::ALL,
        how: As::Raw,
        isolation: Some(Isolation::ReadCommitted),
        to: Some(to.0.join("raw")),
    };
    inspect(&Verb::Export(raw), &scratch.0);
    let again: Vec<i64> = told(&to.0.join("raw/orders-0"), None).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(again, without(&[20, 21, 22, 23]));
}

#[test]
fn what_has_no_marker_is_open_and_what_may_have_lost_it_is_unknown() {
    let open = small(&[batch(0, 0), transactional(2, 0), batch(4, 0)]);
    assert_eq!(fates(&open.0), fate(&[2, 3], "open"));
    assert_eq!(told(&open.0, Some(Isolation::ReadCommitted)).len(), 4);
    // One segment alone: its marker may be in the next.
    let alone = file(&folder(&open.0), 0, "log");
    assert_eq!(fates(&alone), fate(&[2, 3], "unknown"));
    let gave = export(&alone, Some(Isolation::ReadCommitted));
    assert!(gave.out.lines().count() == 6 && gave.talk.contains("2 records are of transactions whose end is lost"), "{}", gave.talk);
    // A marker whose batch is damaged, and one behind it.
    let batches = [transactional(0, 0), marker(2, 0, true), transactional(3, 0), marker(5, 0, false)];
    let lost = small(&batches);
    assert_eq!(fates(&lost.0), [fate(&[0, 1], "committed"), fate(&[3, 4], "aborted")].concat());
    support::flip(&file(&folder(&lost.0), 0, "log"), batches[0].len() + batches[1].len() - 2);
    assert_eq!(fates(&lost.0), [fate(&[0, 1], "unknown"), fate(&[3, 4], "aborted")].concat());
    assert_eq!(told(&lost.0, Some(Isolation::ReadCommitted)).len(), 2, "what is unknown is given");
}

#[test]
fn show_says_it_at_each_batch() {
    let scratch = Scratch::new();
    build(&scratch.0);
    let all = Verb::Show(Show::default());
    let out = inspect(&all, &scratch.0).out;
    let ends = |words: &str| out.lines().filter(|line| line.contains(words)).count();
    assert_eq!(
        (ends("transactional aborted ok"), ends("transactional committed ok"), ends("transactional control ok")),
        (2, 1, 2),
        "{out}"
    );
    let lines = try_inspect_as(&all, &scratch.0, Format::Json).unwrap().out;
    assert_eq!((lines.matches("\"transaction\":\"aborted\"").count(), lines.matches("\"transaction\":\"committed\"").count()), (2, 1));
    assert!(lines.contains(&NOW.to_string()));
}
