//! `millrace topic produce`: records from standard input or a file.
//!
//! 1. A record's text ends with the last text of `--as`; its partition is `-p`, else that of its `%p`, else its key's as with Java's clients,
//!    else one that changes with each request.
//! 2. What has been gathered is sent when it is enough, and before waiting for more input. A request that failed with what may pass is sent
//!    again, so a record may be there twice.
//!
//! Invariant: the records of one partition arrive in the order of the input.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

use crate::arguments::{Context, all, flag, now_ms, one, pair, switch, verb};
use crate::client::{Client, To, topic_name};
use crate::failure::{Failure, Kind, Outcome};
use crate::offsets::Place;
use crate::percent::{HELP, Percent};
use crate::records::{Codec, Packer, Record, RecordHeader, partition_of};

/// Version 13 knows topics by their id alone.
const PRODUCE: i16 = 12;
/// Below what brokers take by default (`message.max.bytes`).
const BATCH_BYTES: usize = 900 << 10;
const INPUT_BYTES: usize = 1 << 20;
const RECORD_BYTES_MAX: u64 = 128 << 20;

pub fn command() -> Command {
    verb("produce", "Write records from standard input or a file")
        .arg(Arg::new("topic").value_name("TOPIC").required(true).help("A topic"))
        .arg(Arg::new("file").value_name("FILE").help("Read this file and not standard input"))
        .arg(flag("as", "FORMAT", HELP).short('f').default_value("%v\\n"))
        .arg(flag("key", "KEY", "The key of records that have none of their own").short('k'))
        .arg(flag("header", "NAME=VALUE", "A header of every record; may be repeated").short('H').action(ArgAction::Append))
        .arg(flag("partition", "N", "The partition of every record").short('p').value_parser(value_parser!(i32).range(0..)))
        .arg(flag("compression", "CODEC", "How batches are compressed").short('z').value_parser(Codec::NAMES).default_value("none"))
        .arg(flag("acks", "ACKS", "Who has it before it counts").value_parser(["all", "-1", "1"]).default_value("all"))
        .arg(switch("null", "An empty key or value is none").short('Z'))
}

struct Producing<'a> {
    client: Client,
    topic: String,
    there: Vec<i32>,
    fixed: Option<i32>,
    codec: Codec,
    acks: i16,
    key: Option<&'a str>,
    headers: Vec<RecordHeader>,
    empty_is_none: bool,
    /// For records without a key; moves on with each request.
    turn: usize,
    packers: BTreeMap<i32, Packer>,
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topic = one(matches, "topic").unwrap_or_default().to_owned();
    let format = Percent::reading(one(matches, "as").unwrap_or_default())?;
    let header = |text: &String| pair("--header", text).map(|(name, value)| (name.into_bytes(), Some(value.into_bytes())));
    let headers = all(matches, "header").iter().map(header).collect::<Outcome<Vec<_>>>()?;
    let fixed = matches.get_one::<i32>("partition").copied();
    let input: Box<dyn Read> = match one(matches, "file") {
        None | Some("-") => Box::new(std::io::stdin()),
        Some(path) => {
            let opened = std::fs::File::open(path);
            Box::new(opened.map_err(|error| Failure::new(Kind::NotFound, format!("cannot read {path:?}: {error}")))?)
        }
    };
    super::places(&mut context.client, &topic, fixed.map(|partition| vec![partition]))?;
    let there = super::places(&mut context.client, &topic, None)?.into_iter().map(|(_, partition)| partition).collect();
    let mut producing = Producing {
        client: context.client,
        topic,
        there,
        fixed,
        codec: one(matches, "compression").and_then(Codec::from_name).unwrap_or_default(),
        acks: if one(matches, "acks") == Some("1") { 1 } else { -1 },
        key: one(matches, "key"),
        headers,
        empty_is_none: matches.get_flag("null"),
        turn: 0,
        packers: BTreeMap::new(),
    };
    producing.read(BufReader::with_capacity(INPUT_BYTES, input), &format)
}

impl Producing<'_> {
    fn read(&mut self, mut input: BufReader<Box<dyn Read>>, format: &Percent) -> Outcome<()> {
        let end = format.end().to_vec();
        let last = *end.last().expect("a text has bytes");
        let mut text = Vec::new();
        let mut number: u64 = 0;
        loop {
            let room = (RECORD_BYTES_MAX + 1).saturating_sub(text.len() as u64);
            let read = input.by_ref().take(room).read_until(last, &mut text);
            let read = read.map_err(|error| Failure::new(Kind::Failed, format!("cannot read the input: {error}")))?;
            if text.len() as u64 > RECORD_BYTES_MAX {
                return Err(Failure::new(Kind::Failed, format!("record {} has more than {RECORD_BYTES_MAX} bytes", number + 1)));
            }
            if read > 0 && !text.ends_with(&end) {
                continue;
            }
            if read == 0 && text.is_empty() {
                return self.send();
            }
            number += 1;
            let own = text.strip_suffix(end.as_slice()).unwrap_or(&text);
            let read = format.read(own).map_err(|failure| Failure::new(failure.kind, format!("record {number}: {failure}")));
            match read {
                Ok((record, partition, timed)) => self.add(record, partition, timed)?,
                // What stands before it is sent all the same.
                Err(failure) => return self.send().and(Err(failure)),
            }
            text.clear();
            // Whoever types does not wait for a full batch.
            if !input.buffer().contains(&last) {
                self.send()?;
            }
        }
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
            return Err(Failure::new(Kind::NotFound, format!("topic {:?} has no partition {partition}", self.topic)));
        }
        let packer = self.packers.entry(partition).or_default();
        packer.push(&record);
        if packer.size() >= BATCH_BYTES { self.send() } else { Ok(()) }
    }

    /// Sends what has been gathered, and waits until it is acknowledged.
    fn send(&mut self) -> Outcome<()> {
        self.turn += 1;
        let mut things: Vec<(Place, Vec<u8>)> = Vec::new();
        for (partition, packer) in std::mem::take(&mut self.packers) {
            things.push(((self.topic.clone(), partition), packer.finish(self.codec)?));
        }
        if things.is_empty() {
            return Ok(());
        }
        let acks = self.acks;
        let results = self.client.each(&things, |client, things| produce(client, things, acks))?;
        results.into_iter().collect()
    }
}

fn produce(client: &mut Client, things: &[(Place, Vec<u8>)], acks: i16) -> Outcome<Vec<Outcome<()>>> {
    let timeout = i32::try_from(client.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
    let led = client.by_leader(things, |((topic, partition), _)| (topic, *partition))?;
    let mut results: Vec<Outcome<()>> = things.iter().map(|_| Err(Failure::new(Kind::Failed, "no answer"))).collect();
    led.without.into_iter().for_each(|(at, failure)| results[at] = Err(failure));
    for (node, things) in led.nodes {
        let name = topic_name(&things[0].1.0.0);
        let places: Vec<(usize, Place)> = things.iter().map(|(at, (place, _))| (*at, place.clone())).collect();
        let part = |(_, ((_, partition), batch)): (usize, (Place, Vec<u8>))| {
            PartitionProduceData::default().with_index(partition).with_records(Some(batch.into()))
        };
        let topic = TopicProduceData::default().with_name(name).with_partition_data(things.into_iter().map(part).collect());
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(timeout).with_topic_data(vec![topic]);
        let answer = client.call(To::Node(node), PRODUCE, |_| request);
        for (at, (topic, partition)) in places {
            let subject = format!("{topic}-{partition}");
            let found = answer.as_ref().map_err(Clone::clone).map(|answer| {
                let parts = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
                parts.clone().find(|found| found.index == partition)
            });
            results[at] = match found {
                Ok(Some(found)) => Failure::check(&subject, found.error_code, found.error_message.as_ref().map(|text| text.as_str())),
                Ok(None) => Err(Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out"))),
                Err(failure) => Err(failure),
            };
        }
    }
    Ok(results)
}
