//! The command line of `millrace inspect`, and what it asks for. The binary only mounts it.
//!
//! Knows nothing of how it is done.

use crate::output::Format;
use crate::time;
use crate::{As, Export, Find, Inspection, Isolation, Show, Stats, Verb, Window};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ops::Range;
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
        .subcommand(export())
        .subcommand(find())
        .subcommand(stats())
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
    verb("ls", "List topics, journals, partitions and segments")
        .arg(path("A data directory of Millrace or of Kafka, a copy of one, a folder of segments, or a segment"))
        .arg(format())
}

fn show() -> Command {
    verb("show", "Print what they hold")
        .arg(path("A data directory of Millrace or of Kafka, a copy of one, a folder of segments, or a file"))
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
        .arg(path("A data directory of Millrace or of Kafka, a copy of one, a folder of segments, or a segment"))
        .arg(threads("Segments that are read at a time; as many as there are cores if left out"))
        .arg(format())
}

/// Which records are wanted, for commands that read them.
fn selection(command: Command) -> Command {
    let time = |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("TIME").value_parser(time::parse).help(help);
    let offset =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("OFFSET").value_parser(value_parser!(i64)).help(help);
    command
        .arg(path("A data directory of Millrace or of Kafka, a copy of one, a folder of segments, or a segment"))
        .arg(
            Arg::new("what")
                .value_name("WHAT")
                .num_args(0..)
                .help("Topics or partitions (TOPIC/PARTITION), by name or id; all but internal ones if left out"),
        )
        .arg(offset("from", "From this offset on"))
        .arg(offset("to", "Below this offset"))
        .arg(time("from-time", "From this time on: milliseconds since 1970, or UTC like 2026-11-28T10:30:00"))
        .arg(time("to-time", "Before this time"))
}

fn export() -> Command {
    selection(verb("export", "Write out every intact record, also around damage and what only journals hold"))
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(PossibleValuesParser::new(["json", "raw", "parquet"]))
                .default_value("json")
                .help(
                    "One JSON object a line; or the batches as they are stored, a segment that Kafka's tools read; or Parquet, with --out",
                ),
        )
        .arg(
            Arg::new("isolation")
                .long("isolation")
                .value_name("LEVEL")
                .value_parser(PossibleValuesParser::new(["read_committed", "read_uncommitted"]))
                .help(
                    "What a consumer of that level would get: without control records, and with read_committed without records of aborted \
                     and open transactions; everything, with what became of it, if left out",
                ),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .help("A folder that is made, with a file or folder a partition; standard output if left out"),
        )
}

fn find() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| Arg::new(name).long(name).value_name(value).help(help);
    selection(verb("find", "Find records by time, key or pattern"))
        .arg(text("key", "KEY", "The whole key"))
        .arg(text("pattern", "REGEX", "What the key, the value, or a header's name or value has"))
        .arg(text("limit", "N", "No more than so many").value_parser(value_parser!(u64)))
        .arg(format())
}

fn stats() -> Command {
    selection(verb("stats", "Count batches, codecs, producers, sizes and gaps in time, and plot them"))
        .arg(
            Arg::new("headers-only")
                .long("headers-only")
                .action(ArgAction::SetTrue)
                .help("Batch headers alone: faster, and nothing of ratios, keys and values"),
        )
        .arg(threads("Partitions that are read at a time; as many as there are cores if left out"))
        .arg(format())
}

fn threads(help: &'static str) -> Arg {
    Arg::new("threads").long("threads").value_name("N").value_parser(value_parser!(u16)).help(help)
}

fn threads_of(matches: &ArgMatches) -> usize {
    usize::from(matches.get_one::<u16>("threads").copied().unwrap_or(0))
}

fn offsets(matches: &ArgMatches) -> Range<i64> {
    let offset = |name: &str| matches.get_one::<i64>(name).copied();
    offset("from").unwrap_or(0)..offset("to").unwrap_or(i64::MAX)
}

fn times(matches: &ArgMatches) -> Window {
    let time = |name: &str| matches.get_one::<i64>(name).copied();
    Window { from: time("from-time"), to: time("to-time") }
}

fn whats(matches: &ArgMatches) -> Vec<String> {
    matches.get_many::<String>("what").into_iter().flatten().cloned().collect()
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
        "verify" => Verb::Verify { threads: threads_of(matches) },
        "export" => Verb::Export(Export {
            what: whats(matches),
            offsets: offsets(matches),
            times: times(matches),
            how: match matches.get_one::<String>("format").map(String::as_str) {
                Some("raw") => As::Raw,
                Some("parquet") => As::Parquet,
                _ => As::Json,
            },
            isolation: matches.get_one::<String>("isolation").map(|level| match level.as_str() {
                "read_committed" => Isolation::ReadCommitted,
                _ => Isolation::ReadUncommitted,
            }),
            to: matches.get_one::<PathBuf>("out").cloned(),
        }),
        "find" => Verb::Find(Find {
            what: whats(matches),
            offsets: offsets(matches),
            times: times(matches),
            key: matches.get_one::<String>("key").map(|key| key.clone().into_bytes()),
            pattern: matches.get_one::<String>("pattern").cloned(),
            limit: matches.get_one::<u64>("limit").copied(),
        }),
        "stats" => Verb::Stats(Stats {
            what: whats(matches),
            offsets: offsets(matches),
            times: times(matches),
            headers_only: matches.get_flag("headers-only"),
            threads: threads_of(matches),
        }),
        other => unreachable!("inspect has no subcommand {other}"),
    };
    Inspection { path, verb, format, progress: false }
}
