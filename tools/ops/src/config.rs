//! `millrace config`: configs of a topic, a node, or all brokers.

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use kafka_protocol::error::ResponseError;

use crate::arguments::{Context, all, dry_run, flag, noun, one, pair, switch, verb};
use crate::configs::{self, Change, Config, Resource};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::Table;

pub fn command() -> Command {
    let keys = || Arg::new("key").value_name("KEY").action(ArgAction::Append).required(true).help("A config; may be repeated");
    let pairs =
        Arg::new("pair").value_name("KEY=VALUE").action(ArgAction::Append).required(true).help("A config and its value; may be repeated");
    noun("config", "Configs of topics and brokers").subcommands([
        of(verb("list", "Show configs; those that are set, or all"))
            .alias("ls")
            .arg(switch("all", "Those that have their default value too")),
        of(verb("get", "Show some configs")).arg(keys()),
        of(verb("set", "Give configs a value; all of them or none"))
            .arg(pairs)
            .arg(dry_run("Ask the broker whether it would, and change nothing")),
        of(verb("delete", "Take configs back to their default"))
            .arg(keys())
            .arg(dry_run("Ask the broker whether it would, and change nothing")),
    ])
}

fn of(command: Command) -> Command {
    command
        .arg(flag("topic", "TOPIC", "Of this topic").short('t'))
        .arg(flag("node", "ID", "Of this node").value_parser(value_parser!(i32).range(0..)))
        .arg(switch("cluster", "Of all brokers, where they have no own value"))
        .group(ArgGroup::new("resource").args(["topic", "node", "cluster"]).required(true))
}

fn resource(matches: &ArgMatches) -> Resource {
    match (one(matches, "topic"), matches.get_one::<i32>("node")) {
        (Some(topic), _) => Resource::Topic(topic.to_owned()),
        (None, Some(node)) => Resource::Node(*node),
        (None, None) => Resource::Cluster,
    }
}

pub fn run(verb: &str, matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let resource = resource(matches);
    let hinted = |failure: Failure| match failure.code {
        Some(ResponseError::UnknownTopicOrPartition) => failure.with_hint(crate::client::topic_hint()),
        _ => failure,
    };
    match verb {
        "list" => {
            let every = matches.get_flag("all");
            let configs = configs::describe(&mut context.client, &resource, None).map_err(hinted)?;
            let is_shown = |config: &&Config| every || config.is_own(&resource);
            context.output.table(&table(configs.iter().filter(is_shown)))
        }
        "get" => {
            let keys = all(matches, "key");
            let configs = configs::describe(&mut context.client, &resource, Some(&keys)).map_err(hinted)?;
            if let Some(missing) = keys.iter().find(|key| !configs.iter().any(|config| config.key == **key)) {
                return Err(Failure::new(Kind::NotFound, format!("{} has no config {missing:?}", resource.subject()))
                    .with_hint("`millrace config list --all` shows what there is"));
            }
            context.output.table(&table(configs.iter()))
        }
        "set" | "delete" => {
            let changes = if verb == "set" {
                let pairs = all(matches, "pair");
                let pairs = pairs.iter().map(|text| pair("config", text).map(|(key, value)| (key, Change::Set(value))));
                pairs.collect::<Outcome<Vec<_>>>()?
            } else {
                all(matches, "key").into_iter().map(|key| (key, Change::Delete)).collect()
            };
            let dry = matches.get_flag("dry-run");
            configs::alter(&mut context.client, &resource, &changes, dry).map_err(hinted)?;
            let mut done = Table::new(&["config", "value", "status"]);
            for (key, change) in &changes {
                let (value, status) = match change {
                    Change::Set(value) => (Some(value.clone()), if dry { "would be set" } else { "set" }),
                    _ => (None, if dry { "would be deleted" } else { "deleted" }),
                };
                done.row(vec![key.as_str().into(), value.into(), status.into()]);
            }
            context.output.table(&done)
        }
        other => unreachable!("config has no verb {other}"),
    }
}

fn table<'a>(configs: impl Iterator<Item = &'a Config>) -> Table {
    let mut table = Table::new(&["config", "value", "source", "read_only"]);
    for config in configs {
        table.row(vec![config.key.as_str().into(), config.shown(), config.source.into(), config.read_only.into()]);
    }
    table
}
