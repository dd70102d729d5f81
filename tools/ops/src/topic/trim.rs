//! `millrace topic trim`: gives up the records before an offset.

use clap::{Arg, ArgMatches, Command};
use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

use crate::arguments::{Context, confirm, dry_run, flag, now_ms, one, partitions, verb, yes};
use crate::client::{Client, NEWEST, To, topic_name};
use crate::failure::{Failure, Kind, Outcome, name};
use crate::offsets::{self, Place, Where};
use crate::output::{Format, Table};
use millrace_base::value::Value;

pub fn command() -> Command {
    verb("trim", "Delete the records before an offset or a time")
        .alias("trim-prefix")
        .arg(Arg::new("topic").value_name("TOPIC").required(true).help("A topic"))
        .arg(flag("offset", "WHERE", "The first record to keep: start, end, a number, end-N, or @TIME").short('o').required(true))
        .arg(flag("partitions", "LIST", "These partitions only, as in 0,2,5-7").short('p'))
        .arg(yes())
        .arg(dry_run("Show what would be deleted, and delete nothing"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topic = one(matches, "topic").unwrap_or_default().to_owned();
    let wanted = offsets::parse(one(matches, "offset").unwrap_or_default(), now_ms())?;
    let chosen = one(matches, "partitions").map(partitions).transpose()?;
    let client = &mut context.client;
    let found = super::existing(client, std::slice::from_ref(&topic))?.remove(0);
    let mut there: Vec<i32> = found.partitions.iter().map(|partition| partition.partition_index).collect();
    there.sort_unstable();
    if let Some(missing) = chosen.iter().flatten().find(|partition| !there.contains(partition)) {
        let last = there.len().saturating_sub(1);
        return Err(
            Failure::new(Kind::NotFound, format!("topic {topic:?} has no partition {missing}")).with_hint(format!("it has 0 to {last}"))
        );
    }
    let places: Vec<Place> = chosen.unwrap_or(there).into_iter().map(|partition| (topic.clone(), partition)).collect();
    let ends = offsets::ends(client, &places)?.into_iter().collect::<Outcome<Vec<_>>>()?;
    let asked: Vec<(Place, Where)> = places.iter().map(|place| (place.clone(), wanted)).collect();
    let targets = offsets::find(client, &asked)?.into_iter().collect::<Outcome<Vec<_>>>()?;
    let cuts: Vec<(Place, i64)> = places.iter().cloned().zip(targets).collect();
    let records: i64 = cuts.iter().zip(&ends).map(|((_, cut), (start, end))| ((*cut).min(*end) - start).max(0)).sum();
    let dry = matches.get_flag("dry-run");
    if !dry {
        confirm(matches, &format!("delete offsets below those asked for, at most {records} records of {topic}?"))?;
    }
    let results: Vec<Outcome<i64>> = if dry {
        let within = |(((topic, partition), cut), (start, end)): (&(Place, i64), &(i64, i64))| match *cut > *end {
            true => Err(Failure::refused(&format!("{topic}-{partition}"), kafka_protocol::error::ResponseError::OffsetOutOfRange, None)),
            false => Ok((*start).max(*cut)),
        };
        cuts.iter().zip(&ends).map(within).collect()
    } else {
        // Below the start there is nothing to delete, which Kafka takes for no failure either.
        client.each(&cuts, delete)?
    };
    let failures: Vec<Failure> = results.iter().filter_map(|result| result.as_ref().err().cloned()).collect();
    if cuts.len() == 1 && !failures.is_empty() && context.output.format == Format::Text {
        return Failure::of_many("partitions", 1, &failures);
    }
    let mut table = Table::new(&["topic", "partition", "log_start_before", "log_start", "log_end", "error"]);
    for ((((topic, partition), _), (start, end)), result) in cuts.iter().zip(&ends).zip(&results) {
        let (now, error) = match result {
            Ok(now) => (Value::from(*now), Value::Null),
            Err(failure) => (Value::from(*start), failure.code.map_or_else(|| failure.to_string(), name).into()),
        };
        table.row(vec![topic.as_str().into(), (*partition).into(), (*start).into(), now, (*end).into(), error]);
    }
    context.output.table(&table)?;
    Failure::of_many("partitions", cuts.len(), &failures)
}

/// The first offset that each partition has afterwards.
fn delete(client: &mut Client, cuts: &[(Place, i64)]) -> Outcome<Vec<Outcome<i64>>> {
    let timeout = i32::try_from(client.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
    let led = client.by_leader(cuts, |((topic, partition), _)| (topic, *partition))?;
    let mut results: Vec<Outcome<i64>> = cuts.iter().map(|_| Err(Failure::new(Kind::Failed, "no answer"))).collect();
    led.without.into_iter().for_each(|(at, failure)| results[at] = Err(failure));
    for (node, things) in led.nodes {
        let part = |(_, ((_, partition), cut)): &(usize, (Place, i64))| {
            DeleteRecordsPartition::default().with_partition_index(*partition).with_offset(*cut)
        };
        let topic =
            DeleteRecordsTopic::default().with_name(topic_name(&things[0].1.0.0)).with_partitions(things.iter().map(part).collect());
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout);
        let answer = client.call(To::Node(node), NEWEST, |_| request);
        for (at, ((topic, partition), _)) in &things {
            let found = answer
                .as_ref()
                .map(|answer| answer.topics.iter().flat_map(|topic| &topic.partitions).find(|found| found.partition_index == *partition));
            let subject = format!("{topic}-{partition}");
            results[*at] = match found {
                Ok(Some(found)) => Failure::check(&subject, found.error_code, None).map(|()| found.low_watermark),
                Ok(None) => Err(Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out"))),
                Err(failure) => Err(failure.clone()),
            };
        }
    }
    Ok(results)
}
