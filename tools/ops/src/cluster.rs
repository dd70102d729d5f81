//! `millrace cluster`: its brokers, what they serve, and their data directories.

use std::collections::BTreeMap;

use clap::{ArgMatches, Command, value_parser};
use kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use kafka_protocol::messages::{ApiKey, DescribeLogDirsRequest};

use crate::arguments::{Context, flag, noun, switch, verb};
use crate::client::{NEWEST, To};
use crate::failure::{Failure, Outcome, name};
use crate::output::{Document, Table};
use millrace_base::value::Value;

/// From this version on data directories come with the bytes of their file systems.
const UNKNOWN_BYTES: i64 = -1;

pub fn command() -> Command {
    let node = || flag("node", "ID", "This node only").value_parser(value_parser!(i32).range(0..));
    noun("cluster", "The cluster: brokers, requests they serve, data directories").subcommands([
        verb("info", "Show the cluster's id, its controller and its brokers"),
        verb("api-versions", "Show which requests a broker serves, and at which versions").arg(node()),
        verb("log-dirs", "Show data directories: partitions, bytes, room")
            .arg(node())
            .arg(switch("partitions", "One line for each partition, and not for each data directory")),
    ])
}

pub fn run(verb: &str, matches: &ArgMatches, context: Context<'_>) -> Outcome<()> {
    match verb {
        "info" => info(context),
        "api-versions" => api_versions(matches, context),
        "log-dirs" => log_dirs(matches, context),
        other => unreachable!("cluster has no verb {other}"),
    }
}

fn info(mut context: Context<'_>) -> Outcome<()> {
    let cluster = context.client.retrying(|client| client.cluster().cloned())?;
    let mut brokers = Table::new(&["node", "host", "port", "rack", "controller"]);
    for (node, (host, port, rack)) in &cluster.brokers {
        let is_controller = cluster.controller == Some(*node);
        brokers.row(vec![(*node).into(), host.as_str().into(), i32::from(*port).into(), rack.clone().into(), is_controller.into()]);
    }
    let fields =
        vec![("cluster", cluster.id.into()), ("controller", cluster.controller.into()), ("broker_count", cluster.brokers.len().into())];
    context.output.document(&Document::new().fields(fields).table("brokers", brokers))
}

fn api_versions(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let to = matches.get_one::<i32>("node").map_or(To::Any, |node| To::Node(*node));
    let said = context.client.retrying(|client| Ok(client.connection(to)?.said.clone()))?;
    let mut keys = said.api_keys;
    keys.sort_by_key(|key| key.api_key);
    let mut table = Table::new(&["key", "request", "min", "max", "spoken_min", "spoken_max"]);
    for key in &keys {
        let known = ApiKey::try_from(key.api_key).ok();
        let spoken = known.map(|known| known.valid_versions());
        table.row(vec![
            i32::from(key.api_key).into(),
            known.map(|known| format!("{known:?}")).into(),
            i32::from(key.min_version).into(),
            i32::from(key.max_version).into(),
            spoken.map(|versions| i32::from(versions.min)).into(),
            spoken.map(|versions| i32::from(versions.max)).into(),
        ]);
    }
    context.output.table(&table)
}

fn log_dirs(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let nodes: Vec<i32> = match matches.get_one::<i32>("node") {
        Some(node) => vec![*node],
        None => context.client.retrying(|client| Ok(client.cluster()?.brokers.keys().copied().collect()))?,
    };
    let each = matches.get_flag("partitions");
    let mut table = if each {
        Table::new(&["node", "dir", "topic", "partition", "bytes", "offset_lag"])
    } else {
        Table::new(&["node", "dir", "partitions", "bytes", "total_bytes", "usable_bytes", "error"])
    };
    let asked = nodes.len();
    let (mut failures, mut silent) = (Vec::new(), 0);
    for node in nodes {
        let answer = context.client.retrying(|client| {
            let answer = client.call(To::Node(node), NEWEST, |_| DescribeLogDirsRequest::default().with_topics(None))?;
            Failure::check(&format!("data directories of node {node}"), answer.error_code, None)?;
            Ok(answer)
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                failures.push(failure);
                silent += 1;
                continue;
            }
        };
        let directory = |found: &DescribeLogDirsResult| format!("data directory {} of node {node}", found.log_dir.as_str());
        let failed = answer.results.iter().find_map(|found| Failure::check(&directory(found), found.error_code, None).err());
        failures.extend(failed);
        for found in &answer.results {
            let mut partitions: BTreeMap<(&str, i32), (i64, i64)> = BTreeMap::new();
            for topic in &found.topics {
                partitions
                    .extend(topic.partitions.iter().map(|p| ((topic.name.as_str(), p.partition_index), (p.partition_size, p.offset_lag))));
            }
            let dir = || Value::from(found.log_dir.as_str());
            if each {
                for ((topic, partition), (bytes, lag)) in partitions {
                    table.row(vec![node.into(), dir(), topic.into(), partition.into(), bytes.into(), lag.into()]);
                }
                continue;
            }
            let known = |bytes: i64| Value::from(Some(bytes).filter(|bytes| *bytes != UNKNOWN_BYTES));
            table.row(vec![
                node.into(),
                dir(),
                partitions.len().into(),
                partitions.values().map(|(bytes, _)| bytes).sum::<i64>().into(),
                known(found.total_bytes),
                known(found.usable_bytes),
                kafka_protocol::error::ResponseError::try_from_code(found.error_code).map(name).into(),
            ]);
        }
    }
    if asked > silent {
        context.output.table(&table)?;
    }
    Failure::of_many("nodes", asked, &failures)
}
