//! `millrace topic add-partitions`.

use clap::{ArgGroup, ArgMatches, Command, value_parser};
use kafka_protocol::messages::CreatePartitionsRequest;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;

use crate::arguments::{Context, dry_run, flag, verb};
use crate::client::{Client, NEWEST, To, topic_name};
use crate::failure::{Failure, Kind, Outcome};

pub fn command() -> Command {
    verb("add-partitions", "Add partitions to topics")
        .arg(super::topics())
        .arg(flag("num", "N", "So many more").short('n').value_parser(value_parser!(i32).range(1..)))
        .arg(flag("to", "N", "So many in all").value_parser(value_parser!(i32).range(1..)))
        .group(ArgGroup::new("count").args(["num", "to"]).required(true))
        .arg(dry_run("Ask the broker whether it would, and add nothing"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topics = super::named(matches);
    let found = super::existing(&mut context.client, &topics)?;
    let dry = matches.get_flag("dry-run");
    let count = |now: usize| match (matches.get_one::<i32>("to"), matches.get_one::<i32>("num")) {
        (Some(to), _) => *to,
        (None, Some(more)) => i32::try_from(now).unwrap_or(i32::MAX).saturating_add(*more),
        (None, None) => unreachable!("one of --num and --to is required"),
    };
    let wanted: Vec<(String, i32)> =
        topics.iter().zip(&found).map(|(topic, found)| (topic.clone(), count(found.partitions.len()))).collect();
    let results = context.client.each(&wanted, |client, wanted| add(client, wanted, dry))?;
    if !dry {
        let added: Vec<(String, i32)> =
            wanted.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(one, _)| one.clone()).collect();
        let names: Vec<String> = added.iter().map(|(topic, _)| topic.clone()).collect();
        super::await_news(&mut context.client, &names, |topic| {
            let name = topic.name.as_ref().map_or("", |name| name.as_str());
            let led = topic.partitions.iter().filter(|partition| partition.leader_id.0 >= 0).count();
            added.iter().any(|(known, count)| known == name && led >= usize::try_from(*count).unwrap_or(0))
        })?;
    }
    super::report(&mut context, if dry { "would be extended" } else { "extended" }, &topics, &results)
}

fn add(client: &mut Client, wanted: &[(String, i32)], dry: bool) -> Outcome<Vec<Outcome<()>>> {
    let timeout = i32::try_from(client.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
    let one = |(topic, count): &(String, i32)| {
        CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(*count).with_assignments(None)
    };
    let request =
        CreatePartitionsRequest::default().with_topics(wanted.iter().map(one).collect()).with_timeout_ms(timeout).with_validate_only(dry);
    let answer = client.call(To::Controller, NEWEST, |_| request)?;
    let result = |(topic, _): &(String, i32)| {
        let subject = format!("topic {topic:?}");
        match answer.results.iter().find(|found| found.name.as_str() == topic) {
            Some(found) => Failure::check(&subject, found.error_code, found.error_message.as_deref()),
            None => Err(Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out"))),
        }
    };
    Ok(wanted.iter().map(result).collect())
}
