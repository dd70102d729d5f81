//! Every planted bug is convicted by a named check within a few seeds, and the same seeds pass without it. Runs with `--features planted`.
//!
//! A run's course changes with the code: the seed that is told is where the search begins. `MILLRACE_SEEDS=from..to` shows what the
//! first of those seeds that convicts says of every bug, `MILLRACE_BUG=Name` of one. Bugs that only the journal's user can show stand in
//! `engine/log/tests/journal_planted.rs`.

#![allow(clippy::unwrap_used, reason = "a test")]

use millrace_base::planted::{Bug, plant};
use millrace_sim::checker::Rule;
use millrace_sim::run::{Check, Failure, Report, Scale, run};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bug, a check that convicts it, and the first seed that did.
const BUGS: &[(Bug, Check, u64)] = &[
    (Bug::AcknowledgeOutOfOrder, Check::Rule(Rule::Lost), 0),
    (Bug::SkipSynced, Check::Rule(Rule::Lost), 0),
    (Bug::ServeUnsynced, Check::Rule(Rule::Lost), 0),
    (Bug::IgnoreCrc, Check::Rule(Rule::Lost), 0),
    (Bug::SkipEntrySync, Check::Rule(Rule::Lost), 0),
    (Bug::ReleaseTooMuch, Check::Rule(Rule::Lost), 0),
    (Bug::SkipSegmentSync, Check::Rule(Rule::Lost), 0),
    (Bug::SkipDirectorySync, Check::Rule(Rule::Lost), 0),
    (Bug::IgnoreSyncError, Check::Rule(Rule::Lost), 0),
    (Bug::IgnoreWriteError, Check::Rule(Rule::Lost), 0),
    (Bug::LoseCheckpoint, Check::Rule(Rule::Lost), 0),
    (Bug::IgnoreDirects, Check::Rule(Rule::Lost), 0),
    (Bug::IgnoreExtentCrc, Check::Rule(Rule::Altered), 0),
    (Bug::ForgetTruncation, Check::Rule(Rule::Lost), 0),
    (Bug::LeaveBehindEnd, Check::Rule(Rule::Lost), 0),
    (Bug::AnswerEarly, Check::Rule(Rule::Lost), 0),
    (Bug::AnswerDuplicateEarly, Check::Rule(Rule::Lost), 0),
    (Bug::ReadUncommitted, Check::Rule(Rule::WentBack), 0),
    (Bug::ReuseOffset, Check::Rule(Rule::Agreement), 0),
    (Bug::TellLogStartEarly, Check::Rule(Rule::WentBack), 0),
    (Bug::UnlinkEarly, Check::Rule(Rule::Lost), 0),
    (Bug::RetainTooLittle, Check::Rule(Rule::Lost), 0),
    (Bug::AnswerCommitEarly, Check::Rule(Rule::CommittedOffset), 0),
    (Bug::ForgetProducers, Check::Rule(Rule::Doubled), 0),
    (Bug::ForgetSequence, Check::Rule(Rule::Doubled), 0),
    (Bug::RememberOne, Check::Rule(Rule::Lost), 0),
];

/// Seeds tried for a bug.
const SEEDS: u64 = 60;

fn with(bug: Option<Bug>, seed: u64) -> Result<Report, Box<Failure>> {
    plant(bug);
    let result = run(seed, &Scale::short());
    plant(None);
    result
}

fn checks(failure: &Failure) -> BTreeSet<Check> {
    failure.found.iter().map(|found| found.check).collect()
}

/// Runs `work` on every bug, on two threads; gives what it said.
fn on_all(work: impl Fn(&(Bug, Check, u64)) -> Option<String> + Sync) -> Vec<String> {
    let (next, said) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let one = std::env::var("MILLRACE_BUG").ok();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(row) = BUGS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if one.as_ref().is_none_or(|one| *one == format!("{:?}", row.0)) {
                        said.lock().unwrap().extend(work(row));
                    }
                }
            });
        }
    });
    said.into_inner().unwrap()
}

/// What the first seed of a range that convicts a bug says of it.
fn show(bug: Bug, mut seeds: std::ops::Range<u64>) {
    let first = seeds.find_map(|seed| with(Some(bug), seed).err());
    println!("{bug:?}: {:?}", first.map(|failure| (failure.seed, checks(&failure))));
}

#[test]
fn every_planted_bug_is_convicted_by_a_named_check() {
    let asked = std::env::var("MILLRACE_SEEDS").ok();
    let asked = asked.as_deref().and_then(|text| text.split_once("..")).map(|(from, to)| from.parse().unwrap()..to.parse().unwrap());
    let wrong = on_all(|(bug, check, first)| {
        if let Some(seeds) = asked.clone() {
            show(*bug, seeds);
            return None;
        }
        let convicts = |seed: &u64| with(Some(*bug), *seed).is_err_and(|failure| checks(&failure).contains(check));
        let Some(seed) = (*first..*first + SEEDS).find(convicts) else {
            return Some(format!("{bug:?}: {check:?} convicts it in none of {SEEDS} seeds from {first}"));
        };
        println!("{bug:?}: {check:?}, seed {seed}, {} seeds tried", seed - first + 1);
        (*first..=seed).find_map(|seed| with(None, seed).err()).map(|failure| format!("without {bug:?}: {failure}"))
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
