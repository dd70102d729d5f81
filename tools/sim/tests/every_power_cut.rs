//! Power cuts before every change of the disk of recorded runs, in every way. `MILLRACE_CUTS=from..to` for the long form of those seeds.

use millrace_sim::run::Failure;
use millrace_sim::run::cuts::{Breadth, Cuts, Recorded};
use std::time::Instant;

/// At once.
const THREADS: usize = 2;

fn seeds() -> Vec<(u64, Breadth)> {
    let asked = std::env::var("MILLRACE_CUTS").ok();
    let range = asked.as_deref().and_then(|text| text.split_once("..")).map(|(from, to)| (from.parse(), to.parse()));
    match range {
        Some((Ok(from), Ok(to))) => (from..to).map(|seed| (seed, Breadth::LONG)).collect(),
        // Two with every combination of up to twelve, the others for the variety of what is under way.
        _ => (0..6).map(|seed| (seed, if seed < 2 { Breadth::WHOLE } else { Breadth::SHORT })).collect(),
    }
}

fn cut_all(seed: u64, breadth: Breadth) -> Result<(usize, Cuts), Box<Failure>> {
    // Each thread records the run for itself: a recording stays where it was made.
    let part = |thread: usize| -> Result<(usize, Cuts), Box<Failure>> {
        let recorded = Recorded::new(seed)?;
        Ok((recorded.changes(), recorded.cut(breadth, thread, THREADS)?))
    };
    std::thread::scope(|scope| {
        let part = &part;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || part(thread))).collect();
        let (mut changes, mut sum) = (0, Cuts::default());
        for thread in threads {
            let (of, cuts) = thread.join().expect("a run catches its panics")?;
            changes = of;
            sum.moments += cuts.moments;
            sum.images += cuts.images;
            sum.again += cuts.again;
            sum.whole += cuts.whole;
        }
        Ok((changes, sum))
    })
}

#[test]
fn nothing_acknowledged_or_served_is_lost_by_a_power_cut_at_any_moment() {
    let began = Instant::now();
    let mut images = 0;
    for (seed, breadth) in seeds() {
        match cut_all(seed, breadth) {
            Ok((changes, cuts)) => {
                images += cuts.images;
                let Cuts { moments, images, again, whole } = cuts;
                println!(
                    "seed {seed}: {changes} changes, {moments} moments, {whole} of them whole, {images} disks, {again} the same again"
                );
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{images} disks in {:.1} s", began.elapsed().as_secs_f64());
    assert!(images > 0);
}
