//! One seed alone, with the broker's log: `MILLRACE_SEED=7 cargo test -p millrace-sim --test one_seed -- --nocapture`.

use millrace_sim::run::{Scale, run};

struct Sink;

impl log::Log for Sink {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("{} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

static SINK: Sink = Sink;

#[test]
fn the_seed_that_is_asked_for_passes() {
    log::set_logger(&SINK).expect("this is the only sink");
    log::set_max_level(log::LevelFilter::Debug);
    let seed = std::env::var("MILLRACE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    match run(seed, &Scale::short()) {
        Ok(report) => println!("{report:?}"),
        Err(failure) => panic!("{failure}"),
    }
}
