//! Computations off the turn.

use super::{Bench, Rig};
use millrace_io::{Op, job};

pub(super) fn each_job_runs_once_and_gives_its_product<R: Rig>(mut bench: Bench<R>) {
    let mut waiting = Vec::new();
    for number in 0..20u64 {
        let held = bench.slice(&number.to_le_bytes());
        let (job, product) = job(move || held.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        waiting.push((bench.submit(Op::Run { job }), product));
    }
    for (number, (token, product)) in (0..).zip(waiting) {
        assert_eq!(bench.await_token(token).result, Ok(0));
        assert_eq!(product.take(), Some(number));
    }
    assert_eq!(bench.pool.used(), 0, "what a job held it has let go of");
}
