//! Operator commands over the Kafka protocol, for any broker that speaks it.
//!
//! 1. [`commands`] defines them all: the binary mounts these, and completions and manual pages come from the same definitions.
//! 2. [`run`] does what one was asked to do. It makes a [`arguments::Context`] of the shared arguments (client and output) and hands it to the
//!    verb: `topic/list.rs` is `millrace topic list`.
//! 3. A verb is two functions: `command()`, its arguments, and `run(matches, context)`. It asks through [`client::Client`], prints through
//!    [`output::Output`], and fails with a [`failure::Failure`]. A new one is a file, and a line in its noun's `commands` and `run`.
//!
//! Invariants: data on standard output, talk on standard error; every verb has the same flags for the cluster, the profile and the format;
//! what is destroyed is confirmed first, or `--yes` is given.
//!
//! Knows nothing of the engine: Millrace is a broker like others here.

pub mod arguments;
pub mod assignment;
pub mod bench;
pub mod client;
pub mod cluster;
pub mod config;
pub mod configs;
pub mod connection;
pub mod failure;
pub mod group;
pub mod groups;
pub mod histogram;
pub mod json_record;
pub mod member;
pub mod moment;
pub mod offsets;
pub mod output;
pub mod percent;
pub mod profiles;
pub mod progress;
pub mod records;
pub mod settings;
pub mod stop;
pub mod topic;

use std::io::Write;

use clap::{ArgMatches, Command};

use crate::arguments::{Context, Variable};
use crate::failure::{Failure, Kind, Outcome};
use crate::stop::NoteStops;

/// All operator commands.
pub fn commands() -> Vec<Command> {
    vec![topic::command(), group::command(), cluster::command(), config::command(), bench::command()]
}

/// Whether [`commands`] has one of this name.
pub fn has(name: &str) -> bool {
    commands().iter().any(|command| command.get_name() == name)
}

/// Does what the command `name` was asked to do with `matches`; `variable` reads the environment, `note_stops` is for commands that a signal ends in
/// good order, data goes to `to`.
///
/// # Errors
/// What was asked for was not done; a reader that has gone is none.
///
/// # Panics
/// When there is no command of this name.
pub fn run(name: &str, matches: &ArgMatches, variable: Variable<'_>, note_stops: NoteStops<'_>, to: &mut dyn Write) -> Outcome<()> {
    // A command without verbs is its own.
    let (verb, matches) = matches.subcommand().unwrap_or((name, matches));
    match arguments::context(matches, variable, note_stops, to).and_then(|context| match context {
        None => Ok(()),
        Some(context) => dispatch(name, verb, matches, context),
    }) {
        Err(Failure { kind: Kind::Closed, .. }) => Ok(()),
        other => other,
    }
}

fn dispatch(name: &str, verb: &str, matches: &ArgMatches, context: Context<'_>) -> Outcome<()> {
    match name {
        "topic" => topic::run(verb, matches, context),
        "group" => group::run(verb, matches, context),
        "cluster" => cluster::run(verb, matches, context),
        "config" => config::run(verb, matches, context),
        "bench" => bench::run(matches, context),
        other => unreachable!("there is no command {other}"),
    }
}
