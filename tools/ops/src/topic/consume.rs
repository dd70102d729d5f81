//! `millrace topic consume`: the records of topics, as they come or as they are.
//!
//! 1. Each partition begins where `--offset` says, and ends at the second half of a range, or behind the end it had at the start with
//!    `--exit-at-end`.
//! 2. With `--group` the partitions are those that the group assigns to this member ([`crate::member`]), and begin at what the group has
//!    committed; `--offset` is for those without. What was printed is committed every few seconds and at the end.
//! 3. Rounds of fetches go to the leaders; what comes is printed in the order of each partition, and flushed after each round.
//! 4. Control batches are left out; with `--read-committed` also the records of transactions that were aborted.
//! 5. SIGINT and SIGTERM end it in good order: what was printed is told, and committed.
//!
//! Invariant: a partition's place only grows, until it is assigned anew.

use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgAction, ArgMatches, Command, value_parser};
use kafka_protocol::messages::fetch_response::PartitionData;

use super::fetch::fetch;
use crate::arguments::{Context, flag, now_ms, one, partitions, switch, verb};
use crate::failure::{Failure, Kind, Outcome};
use crate::groups;
use crate::json_record;
use crate::member::Member;
use crate::offsets::{self, Place, Range, Where};
use crate::output::Format;
use crate::percent::{HELP, Percent};
use crate::progress::Progress;
use crate::records::{self, Record};
use crate::stop::Stop;
use millrace_base::value::Value;

/// Told of at the end; more partitions are summed up.
const TOLD_MAX: usize = 8;

pub fn command() -> Command {
    verb("consume", "Print the records of topics, and those that are still to come")
        .arg(super::topics())
        .arg(flag("as", "FORMAT", HELP).short('f').default_value("%v\\n"))
        .arg(flag("offset", "WHERE", offsets::RANGE_FORMS).short('o').default_value("start").allow_hyphen_values(true))
        .arg(flag("num", "N", "Stop after so many records").short('n').value_parser(value_parser!(u64)))
        .arg(flag("partitions", "LIST", "These partitions only, as in 0,2,5-7").short('p').action(ArgAction::Set))
        .arg(
            flag(
                "group",
                "GROUP",
                "Read as a member of this consumer group, and commit what was printed; --offset is for partitions without a commit",
            )
            .short('g')
            .conflicts_with("partitions"),
        )
        .arg(switch("exit-at-end", "Stop at the ends that the partitions have now").short('e'))
        .arg(switch("read-committed", "Leave out records of transactions that are open or were aborted"))
        .arg(switch("quiet", "No progress on a terminal").short('q'))
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
    range: Range,
    exit_at_end: bool,
    left: u64,
    read: u64,
    committed: bool,
    readings: Vec<Reading>,
    /// How far each partition has been printed for certain: whoever reads the output may have gone in the middle of a round.
    reached: BTreeMap<Place, i64>,
    progress: Progress,
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topics = super::named(matches);
    let format = Percent::parse(one(matches, "as").unwrap_or_default())?;
    let chosen = one(matches, "partitions").map(partitions).transpose()?;
    let range = offsets::parse_range(one(matches, "offset").unwrap_or_default(), now_ms())?;
    let group = one(matches, "group");
    if group.is_some() && range.end.is_some() {
        return Err(Failure::usage("a group reads on from what it has committed, and to no end")
            .with_hint("leave out --group, or the end of --offset"));
    }
    let mut places = Vec::new();
    for topic in &topics {
        places.extend(super::places(&mut context.client, topic, chosen.clone())?);
    }
    let stop = context.stop();
    let mut consuming = Consuming {
        format,
        range,
        exit_at_end: matches.get_flag("exit-at-end"),
        left: matches.get_one::<u64>("num").copied().unwrap_or(u64::MAX),
        read: 0,
        committed: matches.get_flag("read-committed"),
        readings: Vec::new(),
        reached: BTreeMap::new(),
        // Records that scroll by on the terminal are progress enough.
        progress: Progress::new(!matches.get_flag("quiet") && !std::io::IsTerminal::is_terminal(&std::io::stdout())),
        context,
    };
    match group {
        None => {
            consuming.begin(places, &BTreeMap::new())?;
            consuming.read_all(&stop)?;
        }
        Some(group) => consuming.as_member(Member::new(group, &topics), group, &stop)?,
    }
    if stop.is_asked() {
        consuming.tell();
    }
    Ok(())
}

impl Consuming<'_> {
    /// Finds where each partition begins and ends; `committed` comes before what was asked for, where the partition still has it. A number
    /// outside of what a partition holds is moved to its nearest end.
    fn begin(&mut self, places: Vec<Place>, committed: &BTreeMap<Place, i64>) -> Outcome<()> {
        let client = &mut self.context.client;
        let all = |which: Where| places.iter().map(|place| (place.clone(), which)).collect::<Vec<(Place, Where)>>();
        let mut begins = offsets::find(client, &all(self.range.begin))?.into_iter().collect::<Outcome<Vec<i64>>>()?;
        let mut last: Vec<Option<i64>> = vec![None; places.len()];
        if let Some(end) = self.range.end {
            let found = offsets::find(client, &all(end))?.into_iter().collect::<Outcome<Vec<i64>>>()?;
            last = found.into_iter().map(Some).collect();
        }
        let is_number = matches!(self.range.begin, Where::At(_));
        if self.exit_at_end || is_number || !committed.is_empty() {
            let ends = offsets::ends(client, &places)?.into_iter().collect::<Outcome<Vec<(i64, i64)>>>()?;
            for (at, (start, end)) in ends.into_iter().enumerate() {
                // Not every partition has the same numbers.
                begins[at] = begins[at].clamp(start, end.max(start));
                if let Some(offset) = committed.get(&places[at]).filter(|offset| (start..=end).contains(offset)) {
                    begins[at] = *offset;
                }
                if self.exit_at_end {
                    last[at] = Some(last[at].map_or(end, |last| last.min(end)));
                }
            }
        }
        let reading = |((place, at), end): ((Place, i64), Option<i64>)| Reading { place, at, end, done: end.is_some_and(|end| at >= end) };
        self.readings = places.into_iter().zip(begins).zip(last).map(reading).collect();
        self.note_reached();
        Ok(())
    }

    fn is_done(&self, stop: &Stop) -> bool {
        stop.is_asked() || self.left == 0 || self.readings.iter().all(|reading| reading.done)
    }

    fn read_all(&mut self, stop: &Stop) -> Outcome<()> {
        while !self.is_done(stop) {
            self.round()?;
        }
        Ok(())
    }

    fn as_member(&mut self, mut member: Member, group: &str, stop: &Stop) -> Outcome<()> {
        let result = self.turns(&mut member, group, stop);
        // Printed is printed, whatever ended it.
        let left = member.leave(&mut self.context.client, &self.reached);
        result.and(left)
    }

    fn turns(&mut self, member: &mut Member, group: &str, stop: &Stop) -> Outcome<()> {
        loop {
            if let Some(places) = member.turn(&mut self.context.client, &self.reached, stop)? {
                // What it had is others' now, whatever comes next.
                self.readings.clear();
                self.reached.clear();
                let committed = groups::committed(&mut self.context.client, group)?;
                self.begin(places, &committed)?;
            }
            // Whoever has no partition waits for one, but not with --exit-at-end.
            let is_idle = self.readings.is_empty() && !self.exit_at_end;
            if stop.is_asked() || !is_idle && self.is_done(stop) {
                return Ok(());
            }
            if is_idle {
                std::thread::sleep(super::ASK_AGAIN);
            } else {
                self.round()?;
            }
        }
    }

    fn note_reached(&mut self) {
        self.reached = self.readings.iter().map(|reading| (reading.place.clone(), reading.at)).collect();
    }

    /// For whoever stopped it.
    fn tell(&self) {
        let mut parts: Vec<String> = self
            .readings
            .iter()
            .take(TOLD_MAX)
            .map(|Reading { place: (topic, partition), at, .. }| format!("{topic}-{partition} up to {at}"))
            .collect();
        if self.readings.len() > TOLD_MAX {
            parts.push(format!("{} more partitions", self.readings.len() - TOLD_MAX));
        }
        eprintln!("millrace: stopped; {} records read: {}", self.read, parts.join(", "));
    }

    fn round(&mut self) -> Outcome<()> {
        let open: Vec<usize> = (0..self.readings.len()).filter(|at| !self.readings[*at].done).collect();
        let things: Vec<(Place, i64)> = open.iter().map(|at| (self.readings[*at].place.clone(), self.readings[*at].at)).collect();
        let committed = self.committed;
        let answers = self.context.client.each(&things, |client, things| fetch(client, things, committed))?;
        for (at, answer) in open.into_iter().zip(answers) {
            let answer = answer?;
            if self.left > 0 {
                self.take(at, &answer)?;
            }
        }
        self.context.output.text("")?;
        self.note_reached();
        self.progress.show(|| format!("{} records", self.read));
        Ok(())
    }

    fn take(&mut self, at: usize, answer: &PartitionData) -> Outcome<()> {
        let reading = &self.readings[at];
        let (place, from, end) = (reading.place.clone(), reading.at, reading.end);
        let bytes = answer.records.clone().unwrap_or_default();
        let mut aborted: Vec<(i64, i64)> =
            answer.aborted_transactions.iter().flatten().map(|one| (one.first_offset, one.producer_id.0)).collect();
        aborted.sort_unstable();
        let mut aborted = aborted.into_iter().peekable();
        let mut ended = BTreeSet::new();
        let mut out = Vec::new();
        let mut next = from;
        for (header, batch) in records::batches(&bytes)? {
            while let Some((_, producer)) = aborted.next_if(|(first, _)| *first <= header.last_offset()) {
                ended.insert(producer);
            }
            if header.is_control() {
                ended.remove(&header.producer_id);
            } else if !(header.is_transactional() && ended.contains(&header.producer_id)) {
                for record in records::open(&header, batch)? {
                    let wanted = record.offset >= from && end.is_none_or(|end| record.offset < end);
                    if wanted && self.left > 0 {
                        self.write(&mut out, &place, &record);
                        self.left -= 1;
                        self.read += 1;
                        next = record.offset + 1;
                    }
                }
            }
            // What lies behind the last record that was wanted has not been read.
            if self.left == 0 {
                break;
            }
            next = next.max(header.next_offset());
        }
        self.context.output.bytes(&out)?;
        if next == from && !bytes.is_empty() && self.left > 0 {
            let (topic, partition) = &place;
            return Err(Failure::new(Kind::Failed, format!("{topic}-{partition}: the broker sends no whole batch from offset {from} on")));
        }
        let next = end.map_or(next, |end| next.min(end.max(from)));
        let stable_end = self.committed && bytes.is_empty() && next >= answer.last_stable_offset;
        let reading = &mut self.readings[at];
        reading.at = next;
        reading.done = end.is_some_and(|end| next >= end || stable_end && self.exit_at_end);
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>, (topic, partition): &Place, record: &Record) {
        match self.context.output.format {
            Format::Text => self.format.write(out, topic, *partition, record),
            Format::Json => out.extend_from_slice(json_record::write(topic, *partition, record).json_line().as_bytes()),
            // All items together are one list.
            Format::Yaml => out.extend_from_slice(Value::List(vec![json_record::write(topic, *partition, record)]).yaml().as_bytes()),
        }
    }
}
