//! `millrace topic describe`: a topic's partitions, where they begin and end, and its configs.

use clap::{ArgMatches, Command};
use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

use crate::arguments::{Context, switch, verb};
use crate::client::Client;
use crate::configs::{self, Resource};
use crate::failure::{Failure, Outcome};
use crate::offsets;
use crate::output::{Document, Table};
use millrace_base::value::Value;

pub fn command() -> Command {
    verb("describe", "Show topics: partitions, offsets, configs")
        .arg(super::topics())
        .arg(switch("all-configs", "Configs that have their default value too"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topics = super::named(matches);
    let found = super::existing(&mut context.client, &topics)?;
    let mut documents = Vec::new();
    let mut failures = Vec::new();
    for topic in &found {
        documents.push(describe(&mut context.client, topic, matches.get_flag("all-configs"), &mut failures)?);
    }
    context.output.documents(&documents)?;
    match failures.into_iter().next() {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

fn describe(client: &mut Client, topic: &MetadataResponseTopic, every_config: bool, failures: &mut Vec<Failure>) -> Outcome<Document> {
    let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
    let mut partitions: Vec<&MetadataResponsePartition> = topic.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    let places: Vec<offsets::Place> = partitions.iter().map(|partition| (name.clone(), partition.partition_index)).collect();
    let ends = offsets::ends(client, &places)?;
    let mut table = Table::new(&["partition", "leader", "epoch", "replicas", "isr", "log_start", "log_end"]);
    for (partition, ends) in partitions.iter().zip(ends) {
        let nodes = |nodes: &[kafka_protocol::messages::BrokerId]| Value::from(nodes.iter().map(|node| node.0).collect::<Vec<_>>());
        let (start, end) = match ends {
            Ok((start, end)) => (start.into(), end.into()),
            Err(failure) => {
                failures.push(failure);
                (Value::Null, Value::Null)
            }
        };
        table.row(vec![
            partition.partition_index.into(),
            Some(partition.leader_id.0).filter(|node| *node >= 0).into(),
            Some(partition.leader_epoch).filter(|epoch| *epoch >= 0).into(),
            nodes(&partition.replica_nodes),
            nodes(&partition.isr_nodes),
            start,
            end,
        ]);
    }
    let mut shown = Table::new(&["config", "value", "source"]);
    let resource = Resource::Topic(name.clone());
    for config in configs::describe(client, &resource, None)? {
        if every_config || config.is_own(&resource) {
            shown.row(vec![config.key.as_str().into(), config.shown(), config.source.into()]);
        }
    }
    let replicas = topic.partitions.iter().map(|partition| partition.replica_nodes.len()).max().unwrap_or(0);
    let fields = vec![
        ("topic", name.into()),
        ("id", Some(topic.topic_id).filter(|id| !id.is_nil()).map(|id| id.to_string()).into()),
        ("internal", topic.is_internal.into()),
        ("partition_count", topic.partitions.len().into()),
        ("replica_count", replicas.into()),
    ];
    Ok(Document::new().fields(fields).table("partitions", table).table("configs", shown))
}
