//! `millrace topic delete`.

use clap::{ArgMatches, Command};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::DeleteTopicsRequest;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;

use crate::arguments::{Context, confirm, switch, verb, yes};
use crate::client::{Client, NEWEST, To, topic_name};
use crate::failure::{Failure, Kind, Outcome};

/// From this version on topics are named one by one, or by id.
const ONE_BY_ONE: i16 = 6;

pub fn command() -> Command {
    verb("delete", "Delete topics and all their records")
        .alias("rm")
        .arg(super::topics())
        .arg(yes())
        .arg(switch("if-exists", "A topic that is not there is no failure"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topics = super::named(matches);
    confirm(matches, &format!("delete {} and all records?", topics.join(", ")))?;
    let mut results = context.client.each(&topics, delete)?;
    let is_missing =
        |result: &Outcome<()>| result.as_ref().is_err_and(|failure| failure.code == Some(ResponseError::UnknownTopicOrPartition));
    if matches.get_flag("if-exists") {
        results.iter_mut().filter(|result| is_missing(result)).for_each(|result| *result = Ok(()));
    }
    let deleted: Vec<String> = topics.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(topic, _)| topic.clone()).collect();
    super::await_news(&mut context.client, &deleted, |topic| topic.error_code != 0)?;
    let results: Vec<Outcome<()>> = results.into_iter().map(|result| result.map_err(super::hinted)).collect();
    super::report(&mut context, "deleted", &topics, &results)
}

/// Deletes one topic, asking nobody.
///
/// # Errors
/// The broker refuses, or none answers.
pub fn one(client: &mut Client, topic: &str) -> Outcome<()> {
    client.each(&[topic.to_owned()], delete)?.into_iter().collect()
}

fn delete(client: &mut Client, topics: &[String]) -> Outcome<Vec<Outcome<()>>> {
    let timeout = i32::try_from(client.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
    let answer = client.call(To::Controller, NEWEST, |version| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(timeout);
        if version < ONE_BY_ONE {
            return request.with_topic_names(topics.iter().map(|topic| topic_name(topic)).collect());
        }
        request.with_topics(topics.iter().map(|topic| DeleteTopicState::default().with_name(Some(topic_name(topic)))).collect())
    })?;
    let result = |topic: &String| {
        let subject = format!("topic {topic:?}");
        match answer.responses.iter().find(|found| found.name.as_ref().is_some_and(|name| name.as_str() == topic)) {
            Some(found) => Failure::check(&subject, found.error_code, found.error_message.as_deref()),
            None => Err(Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out"))),
        }
    };
    Ok(topics.iter().map(result).collect())
}
