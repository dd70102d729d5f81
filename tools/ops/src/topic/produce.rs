//! `millrace topic produce`: records from standard input or a file.
//!
//! 1. A thread reads the input and cuts it into the texts of records ([`Input`]): up to the last text of `--as`, or lines of JSON with
//!    `--format json`.
//! 2. A record's partition is `-p`, else that of its text, else its key's as with Java's clients, else one that changes with each request.
//! 3. What has been gathered is sent when a batch is full, and `--linger` after the first record that waits. With acks=all batches are numbered
//!    (an idempotent producer), so that one that is sent again is there once.
//! 4. SIGINT and SIGTERM end the reading; what was read is sent, and told.
//!
//! Invariant: the records of one partition arrive in the order of the input.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::input::{Input, PIECES_MAX, Shape};
use super::producer::{Acks, Producer};
use crate::arguments::{Context, all, flag, now_ms, one, pair, switch, verb};
use crate::failure::{Failure, Kind, Outcome};
use crate::moment;
use crate::output::Format;
use crate::percent::{HELP, Percent};
use crate::progress::Progress;
use crate::records::{Codec, Packer, Record, RecordHeader, partition_of};
use crate::stop::Stop;

/// Below what brokers take by default (`message.max.bytes`).
const BATCH_BYTES: &str = "921600";
const LINGER_MS_MAX: i64 = 3_600_000;
/// How long a signal may go unseen.
const LOOK: Duration = Duration::from_millis(100);

pub fn command() -> Command {
    verb("produce", "Write records from standard input or a file")
        .arg(Arg::new("topic").value_name("TOPIC").required(true).help("A topic"))
        .arg(Arg::new("file").value_name("FILE").help("Read this file and not standard input"))
        .arg(flag("as", "FORMAT", HELP).short('f').default_value("%v\\n"))
        .arg(flag("key", "KEY", "The key of records that have none of their own").short('k'))
        .arg(flag("header", "NAME=VALUE", "A header of every record; may be repeated").short('H').action(ArgAction::Append))
        .arg(flag("partition", "N", "The partition of every record").short('p').value_parser(value_parser!(i32).range(0..)))
        .arg(flag("compression", "CODEC", "How batches are compressed").short('z').value_parser(Codec::NAMES).default_value("none"))
        .arg(
            flag("acks", "ACKS", "Who has it before it counts: all replicas, the leader, nobody")
                .value_parser(["all", "-1", "1", "0"])
                .default_value("all"),
        )
        .arg(switch("no-idempotence", "Do not number batches: one that is sent again may then be there twice"))
        .arg(flag("linger", "TIME", "How long a record waits for others to go with it").default_value("5ms"))
        .arg(
            flag("batch-bytes", "N", "A batch with so many bytes, not compressed, goes at once")
                .default_value(BATCH_BYTES)
                .value_parser(value_parser!(u64).range(1..=1 << 30)),
        )
        .arg(switch("null", "An empty key or value is none").short('Z'))
        .arg(switch("quiet", "No progress on a terminal").short('q'))
        .mut_arg("as", |arg| arg.long_help(format!("{HELP}. With --format json a record is a line as `consume --format json` prints it.")))
}

struct Producing<'a> {
    producer: Producer,
    there: Vec<i32>,
    fixed: Option<i32>,
    batch_bytes: usize,
    key: Option<&'a str>,
    headers: Vec<RecordHeader>,
    empty_is_none: bool,
    /// For records without a key; moves on with each request.
    turn: usize,
    packers: BTreeMap<i32, Packer>,
    /// Since when the oldest record waits.
    waits_since: Option<Instant>,
    /// Of the input, and how many bytes they were.
    number: u64,
    bytes: u64,
    progress: Progress,
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topic = one(matches, "topic").unwrap_or_default().to_owned();
    let shape = match context.output.format {
        Format::Text => Shape::Percent(Percent::reading(one(matches, "as").unwrap_or_default())?),
        Format::Json => Shape::Json,
        Format::Yaml => return Err(Failure::usage("records are not read as YAML").with_hint("there are --format json, and --as")),
    };
    let header = |text: &String| pair("--header", text).map(|(name, value)| (name.into_bytes(), Some(value.into_bytes())));
    let headers = all(matches, "header").iter().map(header).collect::<Outcome<Vec<_>>>()?;
    let fixed = matches.get_one::<i32>("partition").copied();
    let linger = linger(one(matches, "linger").unwrap_or_default())?;
    let acks = match one(matches, "acks") {
        Some("0") => Acks::None,
        Some("1") => Acks::Leader,
        _ => Acks::All,
    };
    let input: Box<dyn Read + Send> = match one(matches, "file") {
        None | Some("-") => Box::new(std::io::stdin()),
        Some(path) => {
            let opened = std::fs::File::open(path);
            Box::new(opened.map_err(|error| Failure::new(Kind::NotFound, format!("cannot read {path:?}: {error}")))?)
        }
    };
    // Whoever types sees what was typed.
    let is_typed = matches.get_one::<String>("file").is_none() && std::io::IsTerminal::is_terminal(&std::io::stdin());
    super::places(&mut context.client, &topic, fixed.map(|partition| vec![partition]))?;
    let there = super::places(&mut context.client, &topic, None)?.into_iter().map(|(_, partition)| partition).collect();
    let stop = context.stop();
    let codec = one(matches, "compression").and_then(Codec::from_name).unwrap_or_default();
    let mut producing = Producing {
        producer: Producer::new(context.client, topic, codec, acks, !matches.get_flag("no-idempotence"))?,
        there,
        fixed,
        batch_bytes: matches.get_one::<u64>("batch-bytes").and_then(|bytes| usize::try_from(*bytes).ok()).unwrap_or(usize::MAX),
        key: one(matches, "key"),
        headers,
        empty_is_none: matches.get_flag("null"),
        turn: 0,
        packers: BTreeMap::new(),
        waits_since: None,
        number: 0,
        bytes: 0,
        progress: Progress::new(!matches.get_flag("quiet") && !is_typed),
    };
    let texts = Input::begin(input, shape.end().to_vec());
    producing.all(&texts, &shape, linger, &stop)?;
    if stop.is_asked() {
        eprintln!("millrace: stopped; {} records written", producing.number);
    }
    Ok(())
}

fn linger(text: &str) -> Outcome<Duration> {
    let wrong =
        || Failure::usage(format!("--linger cannot be {text:?}")).with_hint("write a length of time up to an hour, as in 5ms or 1s");
    let ms = moment::duration(text).filter(|ms| *ms <= LINGER_MS_MAX).ok_or_else(wrong)?;
    Ok(Duration::from_millis(ms.unsigned_abs()))
}

impl Producing<'_> {
    fn all(&mut self, texts: &Receiver<Outcome<Vec<Vec<u8>>>>, shape: &Shape, linger: Duration, stop: &Stop) -> Outcome<()> {
        loop {
            let until_due = self.waits_since.map(|since| (since + linger).saturating_duration_since(Instant::now()));
            match texts.recv_timeout(until_due.unwrap_or(LOOK).min(LOOK)) {
                Ok(texts) => {
                    // What stands before a failure is sent all the same.
                    if let Err(failure) = texts.and_then(|texts| self.take(&texts, shape)) {
                        return self.send().and(Err(failure));
                    }
                    self.progress.show(|| format!("{} records, {} MB", self.number, self.bytes / 1_000_000));
                }
                Err(RecvTimeoutError::Disconnected) => return self.send(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.waits_since.is_some_and(|since| since.elapsed() >= linger) {
                self.send()?;
            }
            if stop.is_asked() {
                // What was read is sent, and no more is waited for.
                for texts in texts.try_iter().take(PIECES_MAX + 1) {
                    if let Err(failure) = texts.and_then(|texts| self.take(&texts, shape)) {
                        return self.send().and(Err(failure));
                    }
                }
                return self.send();
            }
        }
    }

    fn take(&mut self, texts: &[Vec<u8>], shape: &Shape) -> Outcome<()> {
        for text in texts {
            let number = self.number + 1;
            let numbered = |failure: Failure| Failure::new(failure.kind, format!("record {number}: {failure}"));
            let Some((record, partition, timed)) = shape.read(text).map_err(numbered)? else { continue };
            self.add(record, partition, timed)?;
            self.number = number;
            self.bytes += text.len() as u64;
        }
        Ok(())
    }

    fn add(&mut self, mut record: Record, partition: Option<i32>, timed: bool) -> Outcome<()> {
        if !timed {
            record.timestamp = now_ms();
        }
        record.key = record.key.or_else(|| self.key.map(|key| key.as_bytes().to_vec()));
        record.headers.extend(self.headers.iter().cloned());
        if self.empty_is_none {
            record.key = record.key.filter(|key| !key.is_empty());
            record.value = record.value.filter(|value| !value.is_empty());
        }
        let count = i32::try_from(self.there.len()).unwrap_or(i32::MAX);
        let partition = match (self.fixed.or(partition), &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, count),
            (None, None) => self.there[self.turn % self.there.len()],
        };
        if !self.there.contains(&partition) {
            return Err(Failure::new(
                Kind::NotFound,
                format!("record {}: topic {:?} has no partition {partition}", self.number + 1, self.producer.topic()),
            ));
        }
        let waits = self.packers.get(&partition).filter(|packer| !packer.is_empty());
        if waits.is_some_and(|packer| packer.size() + record.size() > self.batch_bytes) {
            self.send()?; // together they may be more than the topic takes, of which each takes its part
        }
        let packer = self.packers.entry(partition).or_default();
        packer.push(&record);
        self.waits_since.get_or_insert_with(Instant::now);
        if packer.size() >= self.batch_bytes { self.send() } else { Ok(()) }
    }

    /// Sends what has been gathered, and waits until it is acknowledged.
    fn send(&mut self) -> Outcome<()> {
        self.turn += 1;
        self.waits_since = None;
        self.producer.send(std::mem::take(&mut self.packers))
    }
}
