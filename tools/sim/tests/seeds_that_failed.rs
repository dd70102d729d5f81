//! Seeds that once failed stay passed: `testdata/seeds/sim`, one a line, and what was wrong.

use millrace_sim::run::{Scale, run};

#[test]
fn seeds_that_once_failed_pass() {
    let lines = include_str!("../../../testdata/seeds/sim").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let (seed, what) = line.split_once(' ').expect("a line is a seed and what was wrong");
        let seed = seed.parse().expect("a seed is a number");
        if let Err(failure) = run(seed, &Scale::short()) {
            panic!("{what} is back: {failure}");
        }
        count += 1;
    }
    assert!(count > 0);
}
