//! `millrace group`: one file for each verb.

mod delete;
mod describe;
mod lag;
mod list;
mod seek;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::arguments::{Context, all, noun};
use crate::failure::Outcome;

pub fn command() -> Command {
    noun("group", "Consumer groups: who reads what, and how far").subcommands([
        list::command(),
        describe::command(),
        lag::command(),
        seek::command(),
        delete::command(),
    ])
}

pub fn run(verb: &str, matches: &ArgMatches, context: Context<'_>) -> Outcome<()> {
    match verb {
        "list" => list::run(matches, context),
        "describe" => describe::run(matches, context),
        "lag" => lag::run(matches, context),
        "seek" => seek::run(matches, context),
        "delete" => delete::run(matches, context),
        other => unreachable!("group has no verb {other}"),
    }
}

/// One group or several.
fn groups() -> Arg {
    Arg::new("group").value_name("GROUP").action(ArgAction::Append).required(true).help("A group; may be repeated")
}

/// The groups that were named, each once.
fn named(matches: &ArgMatches) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for group in all(matches, "group") {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}
