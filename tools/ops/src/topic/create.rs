//! `millrace topic create`.

use clap::{ArgAction, ArgMatches, Command, value_parser};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

use crate::arguments::{Context, all, dry_run, flag, pair, switch, verb};
use crate::client::{Client, NEWEST, To, text, topic_name};
use crate::failure::{Failure, Kind, Outcome};

/// From this version on a broker has defaults for partitions and replicas.
const WITH_DEFAULTS: i16 = 4;

pub fn command() -> Command {
    verb("create", "Create topics")
        .arg(super::topics())
        .arg(flag("partitions", "N", "Partitions; the broker's default if left out").short('p').value_parser(value_parser!(i32).range(1..)))
        .arg(
            flag("replicas", "N", "Replicas; the broker's default if left out")
                .short('r')
                .alias("replication-factor")
                .value_parser(value_parser!(i16).range(1..)),
        )
        .arg(
            flag("config", "KEY=VALUE", "A config of the topics; may be repeated")
                .short('c')
                .alias("topic-config")
                .action(ArgAction::Append),
        )
        .arg(switch("if-not-exists", "A topic that is there already is no failure"))
        .arg(dry_run("Ask the broker whether it would, and create nothing"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topics = super::named(matches);
    let configs = all(matches, "config").iter().map(|text| pair("--config", text)).collect::<Outcome<Vec<_>>>()?;
    let asked = Asked {
        partitions: matches.get_one::<i32>("partitions").copied(),
        replicas: matches.get_one::<i16>("replicas").copied(),
        configs,
        dry: matches.get_flag("dry-run"),
    };
    let mut results = context.client.each(&topics, |client, topics| create(client, topics, &asked))?;
    if matches.get_flag("if-not-exists") {
        for result in &mut results {
            if result.as_ref().is_err_and(|failure| failure.code == Some(ResponseError::TopicAlreadyExists)) {
                *result = Ok(());
            }
        }
    }
    if !asked.dry {
        let created: Vec<String> =
            topics.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(topic, _)| topic.clone()).collect();
        await_leaders(&mut context.client, &created)?;
    }
    super::report(&mut context, if asked.dry { "would be created" } else { "created" }, &topics, &results)
}

/// Makes one topic and waits until it is led.
///
/// # Errors
/// The broker refuses, or none answers.
pub fn one(client: &mut Client, topic: &str, partitions: Option<i32>, replicas: Option<i16>) -> Outcome<()> {
    let asked = Asked { partitions, replicas, configs: Vec::new(), dry: false };
    let topics = [topic.to_owned()];
    client.each(&topics, |client, topics| create(client, topics, &asked))?.into_iter().collect::<Outcome<Vec<()>>>()?;
    await_leaders(client, &topics)
}

fn await_leaders(client: &mut Client, topics: &[String]) -> Outcome<()> {
    super::await_news(client, topics, |topic| {
        topic.error_code == 0 && !topic.partitions.is_empty() && topic.partitions.iter().all(|partition| partition.leader_id.0 >= 0)
    })
}

struct Asked {
    partitions: Option<i32>,
    replicas: Option<i16>,
    configs: Vec<(String, String)>,
    dry: bool,
}

fn create(client: &mut Client, topics: &[String], asked: &Asked) -> Outcome<Vec<Outcome<()>>> {
    let timeout = i32::try_from(client.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
    let answer = client.call(To::Controller, NEWEST, |version| {
        let default = if version < WITH_DEFAULTS { 1 } else { -1 };
        let one = |topic: &String| {
            let configs =
                asked.configs.iter().map(|(key, value)| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value))));
            CreatableTopic::default()
                .with_name(topic_name(topic))
                .with_num_partitions(asked.partitions.unwrap_or(default.into()))
                .with_replication_factor(asked.replicas.unwrap_or(default))
                .with_configs(configs.collect())
        };
        CreateTopicsRequest::default().with_topics(topics.iter().map(one).collect()).with_timeout_ms(timeout).with_validate_only(asked.dry)
    })?;
    let result = |topic: &String| {
        let subject = format!("topic {topic:?}");
        match answer.topics.iter().find(|found| found.name.as_str() == topic) {
            Some(found) => Failure::check(&subject, found.error_code, found.error_message.as_deref()),
            None => Err(Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out"))),
        }
    };
    Ok(topics.iter().map(result).collect())
}
