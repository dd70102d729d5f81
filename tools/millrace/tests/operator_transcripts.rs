//! Operator commands as a person types them: what was put in, what came out, with which exit code.
//!
//! 1. A transcript in `testdata/ops` is what a terminal would show: `$ ` and a command without `millrace`; `< ` lines for its standard input; its standard output; `! ` lines of
//!    standard error; `? ` and the exit code where it is not 0. `#` lines are comments. `<*>` stands for any text within a line.
//! 2. Each is run against a broker that has nothing in it yet. With `MILLRACE_TRANSCRIPTS_BROKERS` they run against the broker named there, one after
//!    the other: each cleans up what it made. `scripts/compat/operator-transcripts` does that with Apache Kafka.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Broker, folder};

struct Step {
    line: usize,
    arguments: Vec<String>,
    input: String,
    output: Vec<String>,
    errors: Vec<String>,
    code: i32,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            let step = Step { line: number + 1, arguments: words(command), input: String::new(), output: vec![], errors: vec![], code: 0 };
            steps.push(step);
            continue;
        }
        let Some(step) = steps.last_mut() else { continue };
        match line.split_at_checked(2) {
            Some(("< ", rest)) => step.input.push_str(&format!("{rest}\n")),
            Some(("! ", rest)) => step.errors.push(rest.to_owned()),
            Some(("? ", rest)) => step.code = rest.parse().unwrap(),
            _ if line.starts_with('#') => {}
            _ => step.output.push(line.to_owned()),
        }
    }
    steps
}

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

fn is_like(expected: &str, line: &str) -> bool {
    let parts: Vec<&str> = expected.split("<*>").collect();
    let [first, middle @ .., last] = parts.as_slice() else { return expected == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

fn run(step: &Step, brokers: &str) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.env_clear().env("MILLRACE_BROKERS", brokers).args(&step.arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(step.input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<String>>();
    let (out, err) = (lines(&output.stdout), lines(&output.stderr));
    let same =
        |expected: &[String], found: &[String]| expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| is_like(e, f));
    if same(&step.output, &out) && same(&step.errors, &err) && output.status.code() == Some(step.code) {
        return Ok(());
    }
    let errors: Vec<String> = err.iter().map(|line| format!("! {line}")).collect();
    let shown = [out, errors, vec![format!("? {}", output.status.code().unwrap_or(-1))]].concat().join("\n");
    Err(format!("line {}: $ {}\n{shown}", step.line, step.arguments.join(" ")))
}

fn check(name: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/ops").join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let steps = steps(&text);
    assert!(!steps.is_empty());
    let own = match std::env::var("MILLRACE_TRANSCRIPTS_BROKERS") {
        Ok(_) => None,
        Err(_) => Some(Broker::start(&[&folder(&format!("transcript-{name}"))], &["group.initial.rebalance.delay.ms=0"]).unwrap()),
    };
    let brokers = own.as_ref().map_or_else(|| std::env::var("MILLRACE_TRANSCRIPTS_BROKERS").unwrap(), |broker| broker.address.to_string());
    let wrong: Vec<String> = steps.iter().filter_map(|step| run(step, &brokers).err()).collect();
    assert!(wrong.is_empty(), "{}\n\n{}", path.display(), wrong.join("\n\n"));
}

#[test]
fn topics() {
    check("topics");
}

#[test]
fn groups() {
    check("groups");
}

#[test]
fn cluster() {
    check("cluster");
}

#[test]
fn records() {
    check("records");
}

#[test]
fn a_hundred_thousand_records_come_out_as_they_went_in() {
    let own = Broker::start(&[&folder("transcript-round-trip")], &[]).unwrap();
    let millrace = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.env_clear().env("MILLRACE_BROKERS", own.address.to_string()).args(arguments);
        command
    };
    assert!(millrace(&["topic", "create", "trip", "-p", "1"]).output().unwrap().status.success());
    let text: String = (0..100_000).map(|number| format!("key-{number}\tvalue {}\n", number * 7919)).collect();
    let file = folder("transcript-round-trip-input").join("records.txt");
    std::fs::write(&file, &text).unwrap();
    let format = ["-f", "%k\\t%v\\n"];
    let produced = millrace(&[&["topic", "produce", "trip", file.to_str().unwrap(), "-z", "lz4"][..], &format].concat()).output().unwrap();
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    let consumed = millrace(&[&["topic", "consume", "trip", "-e"][..], &format].concat()).output().unwrap();
    assert!(consumed.status.success(), "{}", String::from_utf8_lossy(&consumed.stderr));
    assert!(consumed.stdout == text.as_bytes(), "{} bytes of {}", consumed.stdout.len(), text.len());
}

#[test]
fn bench() {
    check("bench");
}

#[test]
fn wrong_use() {
    check("wrong-use");
}
