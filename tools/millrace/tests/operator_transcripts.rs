//! Operator commands as a person types them: what was put in, what came out, with which exit code.
//!
//! 1. A transcript in `testdata/ops` is what a terminal would show: `$ ` and a command without `millrace`; `< ` lines for its standard input; its standard output; `! ` lines of
//!    standard error; `? ` and the exit code where it is not 0. `#` lines are comments. `<*>` stands for any text within a line, and a line that is
//!    `<...>` for any lines. `{folder}` in a command is a folder of the transcript's own, empty at first.
//! 2. `& ` begins a command that goes on beside those that follow, and `^ INT` or `^ TERM` sends that signal to the one begun last; what it has put
//!    out stands below. `~ ` is a command that is run again, for a while, until it comes out as written: for what takes its time.
//! 3. Each is run against a broker that has nothing in it yet. With `MILLRACE_TRANSCRIPTS_BROKERS` they run against the broker named there, one after
//!    the other: each cleans up what it made. `scripts/compat/operator-transcripts` does that with Apache Kafka.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Broker, PATIENCE, folder};

/// Seconds; no command takes as long.
const STEP_MAX: &str = "90";
const TRY_AGAIN: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Run,
    Begin,
    UntilAsWritten,
    /// Ends the one begun last.
    Signal,
}

struct Step {
    line: usize,
    how: How,
    arguments: Vec<String>,
    input: String,
    output: Vec<String>,
    errors: Vec<String>,
    code: i32,
}

fn steps(text: &str, folder: &Path) -> Vec<Step> {
    let text = text.replace("{folder}", folder.to_str().unwrap());
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let begun = line.split_at_checked(2).and_then(|(mark, command)| {
            let how = match mark {
                "$ " => How::Run,
                "& " => How::Begin,
                "~ " => How::UntilAsWritten,
                "^ " => How::Signal,
                _ => return None,
            };
            Some((how, words(command)))
        });
        if let Some((how, arguments)) = begun {
            steps.push(Step { line: number + 1, how, arguments, input: String::new(), output: vec![], errors: vec![], code: 0 });
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

fn are_like(expected: &[String], lines: &[String]) -> bool {
    match (expected, lines) {
        ([], lines) => lines.is_empty(),
        ([any, rest @ ..], lines) if any == "<...>" => (0..=lines.len()).any(|skipped| are_like(rest, &lines[skipped..])),
        ([first, rest @ ..], [line, lines @ ..]) => is_like(first, line) && are_like(rest, lines),
        (_, []) => false,
    }
}

fn begin(step: &Step, brokers: &str) -> Child {
    // It passes signals on.
    let mut command = Command::new("timeout");
    command.args([STEP_MAX, env!("CARGO_BIN_EXE_millrace")]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("MILLRACE_BROKERS", brokers).args(&step.arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run(step: &Step, brokers: &str) -> Result<(), String> {
    let mut child = begin(step, brokers);
    child.stdin.take().unwrap().write_all(step.input.as_bytes()).unwrap();
    compare(step, &child.wait_with_output().unwrap())
}

fn compare(step: &Step, output: &Output) -> Result<(), String> {
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<String>>();
    let (out, err) = (lines(&output.stdout), lines(&output.stderr));
    if are_like(&step.output, &out) && are_like(&step.errors, &err) && output.status.code() == Some(step.code) {
        return Ok(());
    }
    let errors: Vec<String> = err.iter().map(|line| format!("! {line}")).collect();
    let shown = [out, errors, vec![format!("? {}", output.status.code().unwrap_or(-1))]].concat().join("\n");
    Err(format!("line {}: $ {}\n{shown}", step.line, step.arguments.join(" ")))
}

fn until_as_written(step: &Step, brokers: &str) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match run(step, brokers) {
            Err(_) if began.elapsed() < PATIENCE => std::thread::sleep(TRY_AGAIN),
            result => return result,
        }
    }
}

/// Each step's difference from what is written. A command that was begun has its input left open until its signal.
fn differences(steps: &[Step], brokers: &str) -> Vec<String> {
    let mut going: Vec<Child> = Vec::new();
    let mut wrong = Vec::new();
    for step in steps {
        let result = match step.how {
            How::Run => run(step, brokers),
            How::UntilAsWritten => until_as_written(step, brokers),
            How::Begin => {
                let mut child = begin(step, brokers);
                child.stdin.as_mut().unwrap().write_all(step.input.as_bytes()).unwrap();
                going.push(child);
                Ok(())
            }
            How::Signal => {
                let mut child = going.pop().expect("a command was begun");
                let input = child.stdin.take(); // stays open: it is the signal that ends it
                assert!(Command::new("kill").args(["-s", &step.arguments[0], &child.id().to_string()]).status().unwrap().success());
                let output = child.wait_with_output().unwrap();
                drop(input);
                compare(step, &output)
            }
        };
        wrong.extend(result.err());
    }
    for mut child in going {
        wrong.push("a command was begun and not ended".to_owned());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    wrong
}

fn check(name: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/ops").join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let steps = steps(&text, &folder(&format!("transcript-{name}-own")));
    assert!(!steps.is_empty());
    let own = match std::env::var("MILLRACE_TRANSCRIPTS_BROKERS") {
        Ok(_) => None,
        Err(_) => Some(Broker::start(&[&folder(&format!("transcript-{name}"))], &["group.initial.rebalance.delay.ms=0"]).unwrap()),
    };
    let brokers = own.as_ref().map_or_else(|| std::env::var("MILLRACE_TRANSCRIPTS_BROKERS").unwrap(), |broker| broker.address.to_string());
    let wrong = differences(&steps, &brokers);
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
fn what_nobody_read_is_not_committed() {
    let own = Broker::start(&[&folder("transcript-gone")], &["group.initial.rebalance.delay.ms=0"]).unwrap();
    let brokers = own.address.to_string();
    let step = |line: &str, input: &str, output: &[&str]| {
        let output = output.iter().map(|line| (*line).to_owned()).collect();
        Step { line: 0, how: How::Run, arguments: words(line), input: input.to_owned(), output, errors: vec![], code: 0 }
    };
    run(&step("topic create t -p 1 --no-headings", "", &["t  created  -"]), &brokers).unwrap();
    run(&step("topic produce t", "a\nb\nc\n", &[]), &brokers).unwrap();
    let mut child = begin(&step("topic consume t -g g", "", &[]), &brokers);
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0), "a reader that has gone is no failure");
    run(&step("group lag g --no-headings", "", &["g  t  1  3"]), &brokers).unwrap();
    run(&step("topic consume t -g g -n 2", "", &["a", "b"]), &brokers).unwrap();
    run(&step("group lag g --no-headings", "", &["g  t  1  1"]), &brokers).unwrap();
}

#[test]
fn bench() {
    check("bench");
}

#[test]
fn host() {
    check("host");
}

#[test]
fn members() {
    check("members");
}

#[test]
fn wrong_use() {
    check("wrong-use");
}
