//! The command line of `millrace inspect`, and what it asks for. The binary only mounts it.
//!
//! Knows nothing of how it is done.

use crate::output::Format;
use crate::{Inspection, Show, Verb};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::PathBuf;

/// What ends every help text.
pub const EXIT_CODES: &str = "\
Exit codes: 0 what was looked at is clean; 1 it could not be done; 2 it was asked wrongly; 3 something is damaged; 4 nothing is damaged, but an \
end is torn: written in part when a node was cut off, never acknowledged, and cut at its next start.";

/// `inspect` with its subcommands.
pub fn command() -> Command {
    Command::new("inspect")
        .about("Look into a data directory without changing it")
        .subcommand_required(true)
        .subcommand(ls())
        .subcommand(show())
        .subcommand(verify())
        .after_help(EXIT_CODES)
}

fn verb(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(EXIT_CODES)
}

fn path(help: &'static str) -> Arg {
    Arg::new("path").value_name("PATH").required(true).value_parser(value_parser!(PathBuf)).help(help)
}

fn format() -> Arg {
    Arg::new("format")
        .long("format")
        .value_name("FORMAT")
        .value_parser(PossibleValuesParser::new(["text", "json", "yaml"]))
        .default_value("text")
        .help("Text for people; JSON, one object a line; YAML, a list of the same")
}

fn ls() -> Command {
    verb("ls", "List topics, journals, partitions and segments").arg(path("A data directory, or a copy of one")).arg(format())
}

fn show() -> Command {
    verb("show", "Print what they hold")
        .arg(path("A data directory, a copy of one, or a file of one"))
        .arg(
            Arg::new("what")
                .value_name("WHAT")
                .help("journal/SHARD, TOPIC/PARTITION by the topic's name or id, or a file in PATH; everything if left out"),
        )
        .arg(Arg::new("entry").long("entry").value_name("N").value_parser(value_parser!(u64)).help("Of a journal: this entry only"))
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("OFFSET")
                .value_parser(value_parser!(i64))
                .help("Batches that end above this offset only"),
        )
        .arg(Arg::new("records").long("records").action(ArgAction::SetTrue).help("The records in the batches too, and whole payloads"))
        .arg(format())
}

fn verify() -> Command {
    verb("verify", "Recover in memory and report damage: what, where, and what a start would do")
        .arg(path("A data directory, or a copy of one"))
        .arg(
            Arg::new("threads")
                .long("threads")
                .value_name("N")
                .value_parser(value_parser!(u16))
                .help("Segments that are read at a time; as many as there are cores if left out"),
        )
        .arg(format())
}

/// What the arguments that [`command`] let through ask for.
pub fn inspection(matches: &ArgMatches) -> Inspection {
    let (name, matches) = matches.subcommand().expect("inspect requires a subcommand");
    let path = matches.get_one::<PathBuf>("path").expect("PATH is required").clone();
    let format = match matches.get_one::<String>("format").map(String::as_str) {
        Some("json") => Format::Json,
        Some("yaml") => Format::Yaml,
        _ => Format::Text,
    };
    let verb = match name {
        "ls" => Verb::Ls,
        "show" => Verb::Show(Show {
            what: matches.get_one::<String>("what").cloned(),
            entry: matches.get_one::<u64>("entry").copied(),
            from: matches.get_one::<i64>("from").copied(),
            records: matches.get_flag("records"),
        }),
        "verify" => Verb::Verify { threads: usize::from(matches.get_one::<u16>("threads").copied().unwrap_or(0)) },
        other => unreachable!("inspect has no subcommand {other}"),
    };
    Inspection { path, verb, format, progress: false }
}
