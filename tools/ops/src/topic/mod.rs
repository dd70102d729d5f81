//! `millrace topic`: one file for each verb.

mod add_partitions;
mod alter;
mod consume;
pub mod create;
pub mod delete;
mod describe;
mod fetch;
mod input;
mod list;
mod produce;
mod producer;
mod trim;

use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

use crate::arguments::{Context, noun};
use crate::client::Client;
use crate::failure::{Failure, Outcome, name};
use crate::output::{Format, Table};
use millrace_base::value::Value;

/// A cluster whose brokers have not all heard of a change after this time is left to itself.
const NEWS_MAX: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(20);

pub fn command() -> Command {
    noun("topic", "Topics: what there is, and changes to it").subcommands([
        list::command(),
        create::command(),
        describe::command(),
        alter::command(),
        add_partitions::command(),
        trim::command(),
        produce::command(),
        consume::command(),
        delete::command(),
    ])
}

pub fn run(verb: &str, matches: &ArgMatches, context: Context<'_>) -> Outcome<()> {
    match verb {
        "list" => list::run(matches, context),
        "create" => create::run(matches, context),
        "describe" => describe::run(matches, context),
        "alter" => alter::run(matches, context),
        "add-partitions" => add_partitions::run(matches, context),
        "produce" => produce::run(matches, context),
        "consume" => consume::run(matches, context),
        "trim" => trim::run(matches, context),
        "delete" => delete::run(matches, context),
        other => unreachable!("topic has no verb {other}"),
    }
}

/// One topic or several.
fn topics() -> Arg {
    Arg::new("topic").value_name("TOPIC").action(ArgAction::Append).required(true).help("A topic; may be repeated")
}

/// The topics that were named, each once.
fn named(matches: &ArgMatches) -> Vec<String> {
    let mut topics: Vec<String> = Vec::new();
    for topic in crate::arguments::all(matches, "topic") {
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    topics
}

/// What was done with each topic, as a table; a lone failure is told as such and not in a table.
fn report(context: &mut Context<'_>, done: &'static str, topics: &[String], results: &[Outcome<()>]) -> Outcome<()> {
    let failures: Vec<Failure> = results.iter().filter_map(|result| result.as_ref().err().cloned()).collect();
    if topics.len() == 1 && !failures.is_empty() && context.output.format == Format::Text {
        return Failure::of_many("topics", 1, &failures);
    }
    let mut table = Table::new(&["topic", "status", "error"]);
    for (topic, result) in topics.iter().zip(results) {
        let (status, error) = match result {
            Ok(()) => (done, Value::Null),
            Err(failure) => ("failed", failure.code.map_or_else(|| failure.to_string(), name).into()),
        };
        table.row(vec![topic.as_str().into(), status.into(), error]);
    }
    context.output.table(&table)?;
    Failure::of_many("topics", topics.len(), &failures)
}

/// Waits, for a few seconds at most, until the brokers that are asked show a change: what is done is then done for the next command too.
fn await_news(client: &mut Client, topics: &[String], is_known: impl Fn(&MetadataResponseTopic) -> bool) -> Outcome<()> {
    let began = Instant::now();
    while !topics.is_empty() && !client.metadata(Some(topics))?.iter().all(&is_known) && began.elapsed() < NEWS_MAX {
        std::thread::sleep(ASK_AGAIN);
    }
    Ok(())
}

/// Metadata of topics that must be there.
///
/// # Errors
/// One is not, or no broker answers.
pub fn existing(client: &mut Client, topics: &[String]) -> Outcome<Vec<MetadataResponseTopic>> {
    let found = client.retrying(|client| client.metadata(Some(topics)))?;
    let one = |topic: &String| {
        let found = found.iter().find(|found| found.name.as_ref().is_some_and(|name| name.as_str() == topic));
        let subject = format!("topic {topic:?}");
        let found = found.ok_or_else(|| Failure::refused(&subject, ResponseError::UnknownTopicOrPartition, None))?;
        Failure::check(&subject, found.error_code, None)?;
        Ok(found.clone())
    };
    topics.iter().map(|topic| one(topic).map_err(hinted)).collect()
}

/// The partitions of a topic, or those that were chosen of them, in order.
///
/// # Errors
/// One is not there, or no broker answers.
fn places(client: &mut Client, topic: &str, chosen: Option<Vec<i32>>) -> Outcome<Vec<(String, i32)>> {
    let found = existing(client, &[topic.to_owned()])?.remove(0);
    let mut there: Vec<i32> = found.partitions.iter().map(|partition| partition.partition_index).collect();
    there.sort_unstable();
    if let Some(missing) = chosen.iter().flatten().find(|partition| !there.contains(partition)) {
        let failure = Failure::new(crate::failure::Kind::NotFound, format!("topic {topic:?} has no partition {missing}"));
        return Err(failure.with_hint(format!("it has 0 to {}", there.len().saturating_sub(1))));
    }
    Ok(chosen.unwrap_or(there).into_iter().map(|partition| (topic.to_owned(), partition)).collect())
}

/// With the command that shows what there is, where a topic is missing.
fn hinted(failure: Failure) -> Failure {
    match failure.code {
        Some(ResponseError::UnknownTopicOrPartition) => failure.with_hint(crate::client::topic_hint()),
        _ => failure,
    }
}
