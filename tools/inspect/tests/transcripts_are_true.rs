//! Every command of the inspector as a person types it: what came out, with which exit code.
//!
//! 1. A transcript in `testdata/inspect` is what a terminal would show: `$ ` and a command without `millrace`; its standard output; `! ` lines of
//!    standard error; `? ` and the exit code where it is not 0. `#` lines are comments. `% flip FILE PLACE`, `% cut FILE BYTES` and
//!    `% remove FILE` change the files that it is about.
//! 2. `data` is a data directory of ours and `kafka` one as Apache Kafka writes it, both made anew for each transcript.
//! 3. With `MILLRACE_TRANSCRIPTS=write` what came out replaces what stands there: read the difference before it is committed.

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "support/kafka.rs"]
mod kafka;
mod support;

use millrace_inspect::command::{command, inspection};
use std::fs;
use std::path::Path;

use support::{NOW, Scratch, flip};

/// At blanks, but for those between single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// What the command gives, as lines of a transcript.
fn run(line: &str) -> Vec<String> {
    let words = words(line);
    let marked = |text: &str| text.lines().map(|line| format!("! {line}").trim_end().to_owned()).collect::<Vec<_>>();
    let (lines, errors, code) = match command().try_get_matches_from(&words) {
        // The words for wrong use are clap's, but for the first line.
        Err(error) => (String::new(), error.to_string().lines().next().unwrap_or_default().to_owned(), error.exit_code() as u8),
        Ok(matches) => {
            let (mut out, mut talk) = (Vec::new(), Vec::new());
            let told = millrace_inspect::run(&inspection(&matches), &mut out, &mut talk);
            let (mut talk, out) = (String::from_utf8(talk).unwrap(), String::from_utf8_lossy(&out).into_owned());
            let code = match told {
                Ok(outcome) => outcome.exit_code(),
                Err(error) => {
                    talk.push_str(&format!("{error}\n"));
                    if matches!(error, millrace_inspect::InspectError::Usage(_)) { 2 } else { 1 }
                }
            };
            (out, talk, code)
        }
    };
    let mut all: Vec<String> = lines.lines().map(|line| line.trim_end().to_owned()).collect();
    all.extend(marked(&errors));
    if code != 0 {
        all.push(format!("? {code}"));
    }
    all
}

/// A `%` line.
fn change(line: &str) {
    let words = words(line);
    let path = Path::new(&words[1]);
    match words[0].as_str() {
        "flip" => flip(path, words[2].parse().unwrap()),
        "cut" => {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - words[2].parse::<usize>().unwrap()]).unwrap();
        }
        "remove" => fs::remove_file(path).unwrap(),
        other => panic!("a transcript has no % {other}"),
    }
}

/// Gives the transcript as it should be.
fn replayed(text: &str) -> String {
    let mut all: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            all.push(line.to_owned());
            all.extend(run(command));
        } else if line.starts_with('%') || line.starts_with('#') {
            line.strip_prefix("% ").into_iter().for_each(change);
            all.push(line.to_owned());
        }
    }
    all.join("\n") + "\n"
}

/// The only test of this binary: commands name files from where the process stands.
#[test]
fn transcripts_are_true() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/inspect").canonicalize().unwrap();
    let mut transcripts: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    transcripts.retain(|path| path.extension().is_some_and(|kind| kind == "txt"));
    transcripts.sort();
    assert!(!transcripts.is_empty());
    let is_written = std::env::var("MILLRACE_TRANSCRIPTS").is_ok_and(|how| how == "write");
    for path in transcripts {
        let scratch = Scratch::new();
        std::env::set_current_dir(&scratch.0).unwrap();
        for name in ["data", "kafka"] {
            fs::create_dir(name).unwrap();
        }
        support::build(Path::new("data"));
        kafka::build(Path::new("kafka"));
        let expected = fs::read_to_string(&path).unwrap();
        let found = replayed(&expected);
        std::env::set_current_dir("/").unwrap();
        if is_written {
            fs::write(&path, &found).unwrap();
            continue;
        }
        let differs = expected.lines().zip(found.lines()).position(|(one, other)| one != other);
        let at = differs.unwrap_or_else(|| expected.lines().count().min(found.lines().count()));
        let line = |text: &str| text.lines().nth(at).unwrap_or("(no more)").to_owned();
        assert!(expected == found, "{}, line {}\nexpected: {}\n   found: {}", path.display(), at + 1, line(&expected), line(&found));
    }
}
