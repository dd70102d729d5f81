//! `millrace topic consume`: the records of a topic, as they come or as they are.
//!
//! 1. Each partition begins where `--offset` says, and ends behind the end it had at the start with `--exit-at-end`.
//! 2. Rounds of fetches go to the leaders; what comes is printed in the order of each partition, and flushed after each round.
//! 3. Control batches are left out; with `--read-committed` also the records of transactions that were aborted.
//!
//! Invariant: a partition's place only grows.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;

use crate::arguments::{Context, flag, now_ms, one, partitions, switch, verb};
use crate::client::{Client, To, no_replica, topic_name};
use crate::failure::{Failure, Kind, Outcome};
use crate::offsets::{self, Place, Where};
use crate::output::Format;
use crate::percent::{HELP, Percent, base64};
use crate::records::{self, Record};
use crate::value::Value;

/// Version 13 knows topics by their id alone.
const FETCH: i16 = 12;
const WAIT_MS: i32 = 500;
/// Of one of several leaders, which are asked one after the other.
const WAIT_SHORT_MS: i32 = 50;
const FETCH_BYTES_MAX: i32 = 32 << 20;
const PARTITION_BYTES_MAX: i32 = 8 << 20;

pub fn command() -> Command {
    verb("consume", "Print a topic's records, and those that are still to come")
        .arg(Arg::new("topic").value_name("TOPIC").required(true).help("A topic"))
        .arg(flag("as", "FORMAT", HELP).short('f').default_value("%v\\n"))
        .arg(
            flag("offset", "WHERE", "Where to begin: start, end, a number, -N for N before the end, or @TIME")
                .short('o')
                .default_value("start")
                .allow_hyphen_values(true),
        )
        .arg(flag("num", "N", "Stop after so many records").short('n').value_parser(value_parser!(u64)))
        .arg(flag("partitions", "LIST", "These partitions only, as in 0,2,5-7").short('p').action(ArgAction::Set))
        .arg(switch("exit-at-end", "Stop at the ends that the partitions have now").short('e'))
        .arg(switch("read-committed", "Leave out records of transactions that are open or were aborted"))
}

struct Reading {
    place: Place,
    at: i64,
    end: Option<i64>,
    done: bool,
}

struct Consuming<'a> {
    context: Context<'a>,
    format: Percent,
    left: u64,
    committed: bool,
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topic = one(matches, "topic").unwrap_or_default().to_owned();
    let format = Percent::parse(one(matches, "as").unwrap_or_default())?;
    let chosen = one(matches, "partitions").map(partitions).transpose()?;
    let asked = one(matches, "offset").unwrap_or_default();
    let asked = asked.strip_prefix('-').map_or_else(|| asked.to_owned(), |back| format!("end-{back}"));
    let begin = offsets::parse(&asked, now_ms())?;
    let places = super::places(&mut context.client, &topic, chosen)?;
    let begins: Vec<(Place, Where)> = places.iter().map(|place| (place.clone(), begin)).collect();
    let begins = offsets::find(&mut context.client, &begins)?.into_iter().collect::<Outcome<Vec<_>>>()?;
    let ends = match matches.get_flag("exit-at-end") {
        true => offsets::ends(&mut context.client, &places)?.into_iter().map(|ends| ends.map(|(_, end)| Some(end))).collect(),
        false => Ok(vec![None; places.len()]),
    };
    let reading = |((place, at), end): ((Place, i64), Option<i64>)| Reading { place, at, end, done: end.is_some_and(|end| at >= end) };
    let mut readings: Vec<Reading> = places.into_iter().zip(begins).zip(ends?).map(reading).collect();
    let left = matches.get_one::<u64>("num").copied().unwrap_or(u64::MAX);
    let mut consuming = Consuming { context, format, left, committed: matches.get_flag("read-committed") };
    while consuming.left > 0 && readings.iter().any(|reading| !reading.done) {
        consuming.round(&mut readings)?;
        consuming.context.output.text("")?;
    }
    Ok(())
}

impl Consuming<'_> {
    fn round(&mut self, readings: &mut [Reading]) -> Outcome<()> {
        let open: Vec<usize> = (0..readings.len()).filter(|at| !readings[*at].done).collect();
        let things: Vec<(Place, i64)> = open.iter().map(|at| (readings[*at].place.clone(), readings[*at].at)).collect();
        let committed = self.committed;
        let answers = self.context.client.each(&things, |client, things| fetch(client, things, committed))?;
        for (at, answer) in open.into_iter().zip(answers) {
            let answer = answer?;
            if self.left > 0 {
                self.take(&mut readings[at], &answer)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, reading: &mut Reading, answer: &PartitionData) -> Outcome<()> {
        let bytes = answer.records.clone().unwrap_or_default();
        let before = reading.at;
        let mut aborted: Vec<(i64, i64)> =
            answer.aborted_transactions.iter().flatten().map(|one| (one.first_offset, one.producer_id.0)).collect();
        aborted.sort_unstable();
        let mut aborted = aborted.into_iter().peekable();
        let mut ended = BTreeSet::new();
        let mut out = Vec::new();
        for (header, batch) in records::batches(&bytes)? {
            while let Some((_, producer)) = aborted.next_if(|(first, _)| *first <= header.last_offset()) {
                ended.insert(producer);
            }
            if header.is_control() {
                ended.remove(&header.producer_id);
            } else if !(header.is_transactional() && ended.contains(&header.producer_id)) {
                for record in records::open(&header, batch)? {
                    let wanted = record.offset >= reading.at && reading.end.is_none_or(|end| record.offset < end);
                    if wanted && self.left > 0 {
                        self.write(&mut out, &reading.place, &record);
                        self.left -= 1;
                    }
                }
            }
            reading.at = reading.at.max(header.next_offset());
        }
        self.context.output.bytes(&out)?;
        if reading.at == before && !bytes.is_empty() {
            let (topic, partition) = &reading.place;
            return Err(Failure::new(
                Kind::Failed,
                format!("{topic}-{partition}: the broker sends no whole batch from offset {before} on"),
            ));
        }
        let stable_end = self.committed && bytes.is_empty() && reading.at >= answer.last_stable_offset;
        reading.done = reading.end.is_some_and(|end| reading.at >= end || stable_end);
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>, (topic, partition): &Place, record: &Record) {
        if self.context.output.format == Format::Text {
            return self.format.write(out, topic, *partition, record);
        }
        let headers =
            record.headers.iter().map(|(name, value)| Value::map([("name", shown(Some(name))), ("value", shown(value.as_deref()))]));
        let value = Value::map([
            ("topic", topic.as_str().into()),
            ("partition", (*partition).into()),
            ("offset", record.offset.into()),
            ("timestamp", record.timestamp.into()),
            ("key", shown(record.key.as_deref())),
            ("value", shown(record.value.as_deref())),
            ("headers", Value::List(headers.collect())),
        ]);
        out.extend_from_slice(value.json_line().as_bytes());
    }
}

/// Text as text; other bytes as `{"base64": ...}`.
fn shown(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(bytes)) => Value::map([("base64", base64(bytes).into())]),
    }
}

fn fetch(client: &mut Client, things: &[(Place, i64)], committed: bool) -> Outcome<Vec<Outcome<PartitionData>>> {
    let led = client.by_leader(things, |((topic, partition), _)| (topic, *partition))?;
    let mut results: Vec<Outcome<PartitionData>> = things.iter().map(|_| Err(Failure::new(Kind::Failed, "no answer"))).collect();
    led.without.into_iter().for_each(|(at, failure)| results[at] = Err(failure));
    let wait = if led.nodes.len() > 1 { WAIT_SHORT_MS } else { WAIT_MS };
    for (node, things) in led.nodes {
        let part = |(_, ((_, partition), at)): &(usize, (Place, i64))| {
            FetchPartition::default().with_partition(*partition).with_fetch_offset(*at).with_partition_max_bytes(PARTITION_BYTES_MAX)
        };
        let topic = FetchTopic::default().with_topic(topic_name(&things[0].1.0.0)).with_partitions(things.iter().map(part).collect());
        let request = FetchRequest::default()
            .with_replica_id(no_replica())
            .with_max_wait_ms(wait)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES_MAX)
            .with_isolation_level(i8::from(committed))
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let answer = client.call(To::Node(node), FETCH, |_| request);
        for (at, ((topic, partition), _)) in &things {
            let subject = format!("{topic}-{partition}");
            results[*at] = answer.clone().and_then(|answer| {
                Failure::check(&subject, answer.error_code, None)?;
                let mut parts = answer.responses.into_iter().flat_map(|topic| topic.partitions);
                let found = parts.find(|found| found.partition_index == *partition);
                let found = found.ok_or_else(|| Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out")))?;
                Failure::check(&subject, found.error_code, None)?;
                Ok(found)
            });
        }
    }
    Ok(results)
}
