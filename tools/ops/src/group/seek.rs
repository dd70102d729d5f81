//! `millrace group seek`: sets what a group without members has committed.
//!
//! 1. Where to: a place for all partitions (`--to`), what another group has committed (`--to-group`), or a file of lines
//!    `TOPIC PARTITION OFFSET` (`--to-file`), as `millrace group lag --partitions` can be made into.
//! 2. Which partitions: those that the group has committed for, or all of the topics that `--topics` names. A file and another group name
//!    theirs themselves.
//!
//! Invariants: an offset outside of what a partition holds is moved to its nearest end; a group with members is left alone.

use std::collections::BTreeMap;
use std::io::Read;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};

use crate::arguments::{Context, all, dry_run, flag, now_ms, one, partitions, verb};
use crate::client::Client;
use crate::failure::{Failure, Kind, Outcome, name};
use crate::groups::{self, subject};
use crate::offsets::{self, Place, Where};
use crate::output::{Format, Table};
use crate::topic::existing;
use millrace_base::value::Value;

/// More lines are not a file of offsets.
const FILE_BYTES_MAX: u64 = 64 << 20;

pub fn command() -> Command {
    verb("seek", "Set the committed offsets of a group without members")
        .arg(Arg::new("group").value_name("GROUP").required(true).help("A group; it is made if it is not there"))
        .arg(flag("to", "WHERE", "start, end, a number, end-N, or @TIME (2026-01-31T12:00:00Z, seconds, milliseconds, -1h)"))
        .arg(flag("to-group", "GROUP", "What this group has committed"))
        .arg(flag("to-file", "FILE", "Lines of TOPIC PARTITION OFFSET, - for standard input"))
        .group(ArgGroup::new("place").args(["to", "to-group", "to-file"]).required(true))
        .arg(
            flag("topics", "TOPIC[:LIST]", "These topics, or partitions as in t:0,2,5-7; may be repeated")
                .action(ArgAction::Append)
                .conflicts_with("to-file"),
        )
        .arg(dry_run("Show what would be committed, and commit nothing"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let group = one(matches, "group").unwrap_or_default().to_owned();
    let client = &mut context.client;
    without_members(client, &group)?;
    let before = groups::committed(client, &group)?;
    let wanted = wanted(matches, client, &group, &before)?;
    let places: Vec<Place> = wanted.iter().map(|(place, _)| place.clone()).collect();
    let ends = offsets::ends(client, &places)?;
    let found = offsets::find(client, &wanted)?;
    let within = |(found, ends): (Outcome<i64>, Outcome<(i64, i64)>)| {
        let (start, end) = ends?;
        Ok(found?.clamp(start, end.max(start)))
    };
    let mut results: Vec<Outcome<i64>> = found.into_iter().zip(ends).map(within).collect();
    if !matches.get_flag("dry-run") {
        let at: Vec<usize> = (0..results.len()).filter(|at| results[*at].is_ok()).collect();
        let commits: Vec<(Place, i64)> =
            at.iter().filter_map(|at| Some((places[*at].clone(), results[*at].as_ref().ok().copied()?))).collect();
        let committed = if commits.is_empty() { Vec::new() } else { groups::commit_as(client, &group, &groups::NO_MEMBER, &commits)? };
        for (at, result) in at.into_iter().zip(committed) {
            results[at] = results[at].clone().and_then(|offset| result.map(|()| offset));
        }
    }
    let failures: Vec<Failure> = results.iter().filter_map(|result| result.as_ref().err().cloned()).collect();
    if places.len() == 1 && !failures.is_empty() && context.output.format == Format::Text {
        return Failure::of_many("partitions", 1, &failures);
    }
    let mut table = Table::new(&["topic", "partition", "committed_before", "committed", "error"]);
    for (place, result) in places.iter().zip(&results) {
        let was = before.get(place).copied();
        let (now, error) = match result {
            Ok(offset) => (Some(*offset), Value::Null),
            Err(failure) => (was, failure.code.map_or_else(|| failure.to_string(), name).into()),
        };
        table.row(vec![place.0.as_str().into(), place.1.into(), was.into(), now.into(), error]);
    }
    context.output.table(&table)?;
    Failure::of_many("partitions", places.len(), &failures)
}

/// A group that is not there has no members either.
fn without_members(client: &mut Client, group: &str) -> Outcome<()> {
    match groups::describe(client, group) {
        Err(Failure { kind: Kind::NotFound, .. }) => Ok(()),
        Err(failure) => Err(failure),
        Ok((_, found)) if found.members.is_empty() => Ok(()),
        Ok((_, found)) => {
            Err(Failure::new(Kind::Conflict, format!("{} has {} members ({})", subject(group), found.members.len(), found.state))
                .with_hint("stop them first: they would commit over it"))
        }
    }
}

fn wanted(matches: &ArgMatches, client: &mut Client, group: &str, before: &BTreeMap<Place, i64>) -> Outcome<Vec<(Place, Where)>> {
    let topics = all(matches, "topics");
    if let Some(file) = one(matches, "to-file") {
        return read(file);
    }
    if let Some(other) = one(matches, "to-group") {
        let committed = groups::committed(client, other)?;
        if committed.is_empty() {
            return Err(Failure::new(Kind::NotFound, format!("{} has committed nothing", subject(other))));
        }
        let chosen = if topics.is_empty() { None } else { Some(places(client, &topics)?) };
        let is_chosen = |place: &Place| chosen.as_ref().is_none_or(|chosen| chosen.contains(place));
        return Ok(committed.into_iter().filter(|(place, _)| is_chosen(place)).map(|(place, offset)| (place, Where::At(offset))).collect());
    }
    let to = offsets::parse(one(matches, "to").unwrap_or_default(), now_ms())?;
    let places = if topics.is_empty() { before.keys().cloned().collect() } else { places(client, &topics)? };
    if places.is_empty() {
        return Err(
            Failure::new(Kind::NotFound, format!("{} has committed nothing", subject(group))).with_hint("name topics with --topics")
        );
    }
    Ok(places.into_iter().map(|place| (place, to)).collect())
}

/// The partitions that `TOPIC` or `TOPIC:LIST` stand for.
fn places(client: &mut Client, topics: &[String]) -> Outcome<Vec<Place>> {
    let mut places = Vec::new();
    for text in topics {
        let (topic, list) = text.split_once(':').map_or((text.as_str(), None), |(topic, list)| (topic, Some(list)));
        let found = existing(client, &[topic.to_owned()])?.remove(0);
        let mut there: Vec<i32> = found.partitions.iter().map(|partition| partition.partition_index).collect();
        there.sort_unstable();
        let chosen = list.map(partitions).transpose()?.unwrap_or_else(|| there.clone());
        if let Some(missing) = chosen.iter().find(|partition| !there.contains(partition)) {
            return Err(Failure::new(Kind::NotFound, format!("topic {topic:?} has no partition {missing}"))
                .with_hint(format!("it has 0 to {}", there.len().saturating_sub(1))));
        }
        places.extend(chosen.into_iter().map(|partition| (topic.to_owned(), partition)));
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

fn read(file: &str) -> Outcome<Vec<(Place, Where)>> {
    let failed = |error: std::io::Error| Failure::usage(format!("cannot read {file}: {error}"));
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(file).and_then(|found| found.take(FILE_BYTES_MAX).read_to_string(&mut text)).map_err(failed)?;
    }
    parse(file, &text)
}

/// Empty lines and those that begin with `#` are passed over.
fn parse(file: &str, text: &str) -> Outcome<Vec<(Place, Where)>> {
    let mut wanted = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let wrong = || Failure::usage(format!("{file} line {}: {line:?} is not TOPIC PARTITION OFFSET", number + 1));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [topic, partition, offset] = words.as_slice() else { return Err(wrong()) };
        let partition = partition.parse::<i32>().ok().filter(|partition| *partition >= 0).ok_or_else(wrong)?;
        let offset = offset.parse::<i64>().ok().filter(|offset| *offset >= 0).ok_or_else(wrong)?;
        if wanted.insert(((*topic).to_owned(), partition), Where::At(offset)).is_some() {
            return Err(Failure::usage(format!("{file} line {}: {topic} {partition} for the second time", number + 1)));
        }
    }
    if wanted.is_empty() { Err(Failure::usage(format!("{file} has no offsets"))) } else { Ok(wanted.into_iter().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_topic_partition_and_offset() {
        let wanted = parse("f", "# mine\n\na 1 7\na\t0  5\n").expect("offsets");
        assert_eq!(wanted, [(("a".to_owned(), 0), Where::At(5)), (("a".to_owned(), 1), Where::At(7))]);
        for (text, part) in
            [("a 1\n", "line 1"), ("\na 1 x\n", "line 2"), ("a -1 5", "line 1"), ("a 1 1\na 1 2", "second time"), ("", "no offsets")]
        {
            assert!(parse("f", text).expect_err("refused").to_string().contains(part), "{text:?}");
        }
    }
}
