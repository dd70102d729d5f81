//! Every seed and every input of the committed corpus, through its target. The only test of this binary, so that the counting allocator
//! counts nothing else.

use millrace_fuzz_bodies::TARGETS;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An input that takes longer hangs, on any machine.
const LONGEST: Duration = Duration::from_secs(10);

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

#[test]
fn the_corpus_is_replayed_within_bounds() {
    for folder in std::fs::read_dir(corpus()).expect("a folder of the repository") {
        let name = folder.expect("a folder of the repository").file_name();
        assert!(TARGETS.iter().any(|target| name == target.name), "fuzz/corpus/{} is of no target: nothing replays it", name.display());
    }
    let mut inputs = 0;
    for target in TARGETS {
        let mut all: Vec<(String, Vec<u8>)> =
            (target.seeds)().into_iter().enumerate().map(|(n, seed)| (format!("seed {n}"), seed)).collect();
        assert!(!all.is_empty(), "{} has no seeds", target.name);
        for file in std::fs::read_dir(corpus().join(target.name)).into_iter().flatten() {
            let path = file.expect("a folder of the repository").path();
            all.push((path.display().to_string(), std::fs::read(&path).expect("a file of the repository")));
        }
        for (name, input) in all {
            eprintln!("{} {name}, {} bytes", target.name, input.len());
            let began = Instant::now();
            (target.run)(&input);
            assert!(began.elapsed() < LONGEST, "{} {name} takes {:?}", target.name, began.elapsed());
            inputs += 1;
        }
    }
    println!("{inputs} inputs for {} targets", TARGETS.len());
}
