//! The first test of all: the same seed gives the same trace, with load, crashes and recoveries in it.

use millrace_sim::run::{Harm, Scale, run};

fn scale() -> Scale {
    Scale { rounds: 3, ..Scale::with(&[Harm::Kill, Harm::PowerCut]) }
}

#[test]
fn the_same_seed_gives_the_same_trace_with_produce_fetch_crash_and_recovery() {
    for seed in [2, 5] {
        let [first, second] = [(), ()].map(|()| run(seed, &scale()).unwrap_or_else(|failure| panic!("{failure}")));
        assert_eq!(first, second, "seed {seed}");
        assert!(first.acknowledged > 0 && first.read > 0, "{first:?}");
        assert_eq!(first.harms.values().sum::<u64>(), 3, "{first:?}");
    }
}

#[test]
fn different_seeds_give_different_traces() {
    let traces: Vec<u64> = (1..4).map(|seed| run(seed, &scale()).unwrap_or_else(|failure| panic!("{failure}")).trace).collect();
    assert!(traces[0] != traces[1] && traces[1] != traces[2] && traces[0] != traces[2], "{traces:x?}");
}
