//! Every planted bug is convicted by a named check within a few seeds, and the same seeds pass without it (those with all harms in
//! `power_cuts.rs`). Runs with `--features planted`.
//!
//! A run's course changes with the code: the seed that is told is where the search begins. `MILLRACE_SEEDS=from..to` shows what the
//! first of those seeds that convicts says of every bug, `MILLRACE_BUG=Name` of one. Bugs that only the journal's user can show stand in
//! `engine/log/tests/journal_planted.rs`.

#![allow(clippy::unwrap_used, reason = "a test")]

use millrace_base::planted::{Bug, plant};
use millrace_sim::checker::Rule;
use millrace_sim::run::{Check, Failure, Harm, Report, Scale, run};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bug that must be found, and how.
struct Row {
    bug: Bug,
    /// A check that convicts it.
    check: Check,
    /// A seed in which it did: the search begins there.
    first: u64,
    /// What happens to the node.
    harms: &'static [Harm],
}

const fn row(bug: Bug, check: Check, first: u64, harms: &'static [Harm]) -> Row {
    Row { bug, check, first, harms }
}

const ALL: &[Harm] = &Scale::ALL;
const CRASHES: &[Harm] = &[Harm::Kill, Harm::PowerCut];
const FAULTS: &[Harm] = &[Harm::Broken];

const BUGS: &[Row] = &[
    row(Bug::AcknowledgeOutOfOrder, Check::Assertion, 0, ALL),
    row(Bug::SkipSynced, Check::Start, 7, ALL),
    row(Bug::ServeUnsynced, Check::Rule(Rule::Damage), 152, CRASHES),
    row(Bug::IgnoreCrc, Check::Rule(Rule::Client), 52, ALL),
    row(Bug::SkipEntrySync, Check::Start, 17, ALL),
    row(Bug::ReleaseTooMuch, Check::Rule(Rule::Agreement), 82, ALL),
    row(Bug::SkipSegmentSync, Check::Start, 7, ALL),
    row(Bug::SkipDirectorySync, Check::Progress, 3, ALL),
    row(Bug::IgnoreSyncError, Check::Rule(Rule::Damage), 1012, FAULTS),
    row(Bug::IgnoreSettleError, Check::Start, 0, FAULTS),
    row(Bug::IgnoreWriteError, Check::Start, 10, FAULTS),
    row(Bug::LoseCheckpoint, Check::Progress, 1, ALL),
    row(Bug::IgnoreDirects, Check::Rule(Rule::Lost), 58, CRASHES),
    row(Bug::IgnoreExtentCrc, Check::Rule(Rule::Client), 183, ALL),
    row(Bug::ForgetTruncation, Check::Progress, 58, CRASHES),
    row(Bug::AnswerEarly, Check::Rule(Rule::Lost), 11, ALL),
    row(Bug::AnswerDuplicateEarly, Check::Rule(Rule::WentBack), 18, ALL),
    row(Bug::ReadUncommitted, Check::Rule(Rule::Time), 145, ALL),
    row(Bug::ReuseOffset, Check::Rule(Rule::Agreement), 2, ALL),
    row(Bug::RetainTooLittle, Check::Rule(Rule::Early), 1, ALL),
    row(Bug::SkipRetention, Check::Rule(Rule::Late), 5, ALL),
    row(Bug::AnswerCommitEarly, Check::Rule(Rule::CommittedOffset), 154, ALL),
    row(Bug::ForgetProducers, Check::Rule(Rule::Doubled), 44, ALL),
    row(Bug::ForgetSequence, Check::Rule(Rule::Lost), 3, ALL),
    row(Bug::ForgetBehindFile, Check::Rule(Rule::Lost), 11, ALL),
    row(Bug::RememberOne, Check::Rule(Rule::Lost), 18, ALL),
];

/// `power_cuts.rs` runs all below without a bug, under all harms.
const SEEDS_WITHOUT: u64 = 300;

/// Seeds tried for a bug.
const SEEDS: u64 = 60;

fn with(bug: Option<Bug>, harms: &[Harm], seed: u64) -> Result<Report, Box<Failure>> {
    plant(bug);
    let result = run(seed, &Scale::with(harms));
    plant(None);
    result
}

fn checks(failure: &Failure) -> BTreeSet<Check> {
    failure.found.iter().map(|found| found.check).collect()
}

/// Runs `work` on every bug, on two threads; gives what it said.
fn on_all(work: impl Fn(&Row) -> Option<String> + Sync) -> Vec<String> {
    let (next, said) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let one = std::env::var("MILLRACE_BUG").ok();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(row) = BUGS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if one.as_ref().is_none_or(|one| *one == format!("{:?}", row.bug)) {
                        said.lock().unwrap().extend(work(row));
                    }
                }
            });
        }
    });
    said.into_inner().unwrap()
}

/// What the first seed of a range that convicts a bug says of it.
fn show(Row { bug, harms, .. }: &Row, mut seeds: std::ops::Range<u64>) {
    let first = seeds.find_map(|seed| with(Some(*bug), harms, seed).err());
    println!("{bug:?}: {:?}", first.map(|failure| (failure.seed, checks(&failure))));
}

#[test]
fn every_planted_bug_is_convicted_by_a_named_check() {
    let asked = std::env::var("MILLRACE_SEEDS").ok();
    let asked = asked.as_deref().and_then(|text| text.split_once("..")).map(|(from, to)| from.parse().unwrap()..to.parse().unwrap());
    let wrong = on_all(|row| {
        let Row { bug, check, first, harms } = row;
        if let Some(seeds) = asked.clone() {
            show(row, seeds);
            return None;
        }
        let convicts = |seed: &u64| with(Some(*bug), harms, *seed).is_err_and(|failure| checks(&failure).contains(check));
        let Some(seed) = (*first..*first + SEEDS).find(convicts) else {
            return Some(format!("{bug:?}: {check:?} convicts it in none of {SEEDS} seeds from {first}"));
        };
        println!("{bug:?}: {check:?}, seed {seed}, {} seeds tried", seed - first + 1);
        if *harms == ALL && seed < SEEDS_WITHOUT {
            return None;
        }
        (*first..=seed).find_map(|seed| with(None, harms, seed).err()).map(|failure| format!("without {bug:?}: {failure}"))
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
