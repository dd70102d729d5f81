//! Hundreds of seeds: kills, power cuts, failing and full disks, under load. `MILLRACE_SEEDS=from..to` for the long form.

use millrace_sim::run::{Report, Scale, run};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("MILLRACE_SEEDS").ok();
    let range = asked.as_deref().and_then(|text| text.split_once("..")).map(|(from, to)| (from.parse(), to.parse()));
    match range {
        Some((Ok(from), Ok(to))) => from..to,
        _ => 0..300,
    }
}

/// Seeds that run at once.
fn threads() -> usize {
    std::env::var("MILLRACE_THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(2)
}

#[test]
fn nothing_acknowledged_is_lost_doubled_altered_or_reordered() {
    let seeds = seeds();
    let (next, began) = (AtomicU64::new(seeds.start), Instant::now());
    let (reports, failures) = (Mutex::new(Vec::<Report>::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match run(seed, &Scale::short()) {
                        Ok(report) => reports.lock().unwrap().push(report),
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
            });
        }
    });
    let (reports, failures) = (reports.into_inner().unwrap(), failures.into_inner().unwrap());
    let sum = |what: fn(&Report) -> u64| reports.iter().map(what).sum::<u64>();
    println!(
        "{} seeds in {:.1} s: {} batches acknowledged, {} records read, {} crashes, {} virtual s",
        reports.len(),
        began.elapsed().as_secs_f64(),
        sum(|report| report.acknowledged),
        sum(|report| report.read),
        sum(|report| report.harms.values().sum()),
        sum(|report| report.virtual_ms) / 1000,
    );
    let mut seen = BTreeMap::new();
    for (what, times) in reports.iter().flat_map(|report| &report.seen) {
        *seen.entry(*what).or_insert(0) += times;
    }
    println!("{seen:?}");
    for failure in &failures {
        println!("{failure}");
    }
    let failed: Vec<u64> = failures.iter().map(|failure| failure.seed).collect();
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
}
