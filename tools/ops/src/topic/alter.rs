//! `millrace topic alter`: the configs of topics.

use clap::{ArgAction, ArgGroup, ArgMatches, Command};

use crate::arguments::{Context, all, dry_run, flag, pair, verb};
use crate::configs::{Change, Resource, alter};
use crate::failure::Outcome;

pub fn command() -> Command {
    verb("alter", "Change configs of topics")
        .alias("alter-config")
        .arg(super::topics())
        .arg(flag("set", "KEY=VALUE", "Give a config a value; may be repeated").short('s').action(ArgAction::Append))
        .arg(flag("delete", "KEY", "Take a config back to its default; may be repeated").short('d').action(ArgAction::Append))
        .arg(flag("append", "KEY=VALUE", "Add to a config that is a list; may be repeated").action(ArgAction::Append))
        .arg(flag("subtract", "KEY=VALUE", "Take from a config that is a list; may be repeated").action(ArgAction::Append))
        .group(ArgGroup::new("change").args(["set", "delete", "append", "subtract"]).required(true).multiple(true))
        .arg(dry_run("Ask the broker whether it would, and change nothing"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let topics = super::named(matches);
    let changes = changes(matches)?;
    let dry = matches.get_flag("dry-run");
    let mut results = Vec::new();
    for topic in &topics {
        let result = alter(&mut context.client, &Resource::Topic(topic.clone()), &changes, dry);
        results.push(result.map_err(super::hinted));
    }
    super::report(&mut context, if dry { "would be altered" } else { "altered" }, &topics, &results)
}

/// What `--set`, `--delete`, `--append` and `--subtract` ask for.
///
/// # Errors
/// One is not KEY=VALUE.
pub fn changes(matches: &ArgMatches) -> Outcome<Vec<(String, Change)>> {
    let mut changes = Vec::new();
    for name in ["set", "append", "subtract"] {
        for text in all(matches, name) {
            let (key, value) = pair(&format!("--{name}"), &text)?;
            let change = match name {
                "set" => Change::Set(value),
                "append" => Change::Append(value),
                _ => Change::Subtract(value),
            };
            changes.push((key, change));
        }
    }
    changes.extend(all(matches, "delete").into_iter().map(|key| (key, Change::Delete)));
    Ok(changes)
}
