//! The command line, parsed into what is asked for.
//!
//! Flags that are short for settings become `Given`s and are checked by the settings table like all others. Of `--set` and a flag for
//! the same setting the flag wins.
//!
//! Knows nothing of what the commands do.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use millrace_base::settings::{Given, Source, help};
use millrace_inspect::Inspection;
use millrace_shard::recover::Accept;

use crate::recover::Format;
use millrace::failure::Failure;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invocation {
    Start {
        config: Option<String>,
        given: Vec<Given>,
    },
    Recover {
        config: Option<String>,
        given: Vec<Given>,
        accept: Accept,
        format: Format,
    },
    Inspect(Inspection),
    Settings {
        sample: bool,
    },
    /// A command over the Kafka protocol, and its arguments.
    Operator {
        name: String,
        matches: ArgMatches,
    },
    /// What this host lacks.
    Check {
        config: Option<String>,
        given: Vec<Given>,
        format: String,
        headings: bool,
    },
    /// Whether a node is ready.
    Health {
        config: Option<String>,
        address: Option<String>,
    },
    Completions {
        shell: Shell,
    },
    Manual {
        directory: String,
    },
    /// Help or version.
    Print(String),
}

/// What the arguments, the program's name first, ask for.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Failure> {
    match command().try_get_matches_from(arguments) {
        Ok(matches) => invocation(&matches),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Invocation::Print(error.to_string())),
            _ => Err(Failure::Usage(one_line(&error.to_string()))),
        },
    }
}

/// All commands, for the parser and for what is made from the same definitions.
pub fn command() -> Command {
    Command::new("millrace")
        .about("A streaming storage engine that speaks the Kafka protocol")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(start())
        .subcommand(recover())
        .subcommand(millrace_inspect::command::command())
        .subcommands(millrace_ops::commands())
        .subcommand(check())
        .subcommand(health())
        .subcommand(
            Command::new("settings")
                .about("List every setting")
                .arg(Arg::new("sample").long("sample").action(ArgAction::SetTrue).help("Print a settings file with all defaults instead")),
        )
        .subcommand(
            Command::new("completions")
                .about("Print what a shell needs to complete commands and flags")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell)).help("The shell"))
                .after_help("For bash: source <(millrace completions bash)"),
        )
        .subcommand(
            Command::new("man")
                .about("Write a manual page for each command")
                .arg(Arg::new("directory").value_name("DIR").required(true).help("Where to; it is made if it is not there"))
                .after_help("To read one: man -l DIR/millrace-topic-create.1"),
        )
}

fn flag(name: &'static str, value: &'static str, about: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(about)
}

fn recover() -> Command {
    Command::new("recover")
        .about("Say what damaged partitions of a node that does not run have lost, and give it up")
        .arg(flag("config", "FILE", "The settings file that the node is started with"))
        .arg(flag("data-dir", "DIR", "A data directory (log.dirs); may be repeated").action(ArgAction::Append))
        .arg(flag("set", "KEY=VALUE", "Any setting; may be repeated").action(ArgAction::Append))
        .arg(
            Arg::new("accept-loss")
                .long("accept-loss")
                .action(ArgAction::SetTrue)
                .help("Give up what is lost: the partitions take writes again behind what is intact"),
        )
        .arg(
            flag("partition", "TOPIC-N", "Give up what this partition has lost only; may be repeated")
                .action(ArgAction::Append)
                .requires("accept-loss"),
        )
        .arg(flag("format", "FORMAT", "How it is told").value_parser(["text", "json"]).default_value("text"))
        .after_help("Without --accept-loss nothing is given up; the exit code is 1 when a partition is damaged.")
}

fn check() -> Command {
    Command::new("check")
        .about("Say what this host lacks to run a node well")
        .arg(flag("config", "FILE", "The settings file that the node is started with"))
        .arg(flag("data-dir", "DIR", "A data directory (log.dirs); may be repeated").action(ArgAction::Append))
        .arg(flag("set", "KEY=VALUE", "Any setting; may be repeated").action(ArgAction::Append))
        .arg(flag("format", "FORMAT", "How it is told").value_parser(millrace_ops::output::Format::NAMES).default_value("text"))
        .arg(Arg::new("no-headings").long("no-headings").action(ArgAction::SetTrue).help("A table without its first line"))
        .after_help(
            "Each line is ok, warn (slower, or at risk) or fail (a node would not run), with the value, the value wanted, and what mends it.\n\
             The exit code is 1 when a line is fail. A small file is written, synced and removed in each data directory.",
        )
}

fn health() -> Command {
    Command::new("health")
        .about("Say whether a node is ready, by its admin listener")
        .arg(flag("config", "FILE", "The settings file that the node is started with"))
        .arg(flag("admin-addr", "HOST:PORT", "Where it listens (admin.listener)"))
        .after_help("The exit code is 0 when it is ready and 1 when it is not or does not answer within 5 s: made for health checks.")
}

fn start() -> Command {
    Command::new("start")
        .about("Run a node")
        .arg(flag("config", "FILE", "A YAML file of settings, one `key: value` a line"))
        .arg(flag("data-dir", "DIR", "A data directory (log.dirs); may be repeated").action(ArgAction::Append))
        .arg(flag("kafka-addr", "HOST:PORT", "Where to listen for Kafka clients (listeners)"))
        .arg(flag("advertised-addr", "HOST:PORT", "What Kafka clients are told to connect to (advertised.listeners)"))
        .arg(flag("shards", "N", "Shards, 0 for one per core (shards)"))
        .arg(flag("set", "KEY=VALUE", "Any setting; may be repeated").action(ArgAction::Append))
        .after_help("Settings come from the file, the environment (MILLRACE_NUM_PARTITIONS=3) and flags; the last of these wins.")
        .after_long_help(format!(
            "Settings come from the file, the environment (MILLRACE_NUM_PARTITIONS=3) and flags; the last of these wins.\n\n{}",
            help()
        ))
}

fn invocation(matches: &ArgMatches) -> Result<Invocation, Failure> {
    match matches.subcommand() {
        Some(("start", matches)) => Ok(Invocation::Start { config: matches.get_one::<String>("config").cloned(), given: given(matches)? }),
        Some(("recover", matches)) => {
            let named: Vec<String> = matches.get_many::<String>("partition").into_iter().flatten().cloned().collect();
            let accept = match (matches.get_flag("accept-loss"), named.is_empty()) {
                (false, _) => Accept::Nothing,
                (true, true) => Accept::All,
                (true, false) => Accept::Named(named),
            };
            let is_json = matches.get_one::<String>("format").is_some_and(|format| format == "json");
            let format = if is_json { Format::Json } else { Format::Text };
            Ok(Invocation::Recover { config: matches.get_one::<String>("config").cloned(), given: given(matches)?, accept, format })
        }
        Some(("inspect", matches)) => Ok(Invocation::Inspect(millrace_inspect::command::inspection(matches))),
        Some(("settings", matches)) => Ok(Invocation::Settings { sample: matches.get_flag("sample") }),
        Some(("check", matches)) => Ok(Invocation::Check {
            config: matches.get_one::<String>("config").cloned(),
            given: given(matches)?,
            format: matches.get_one::<String>("format").cloned().unwrap_or_default(),
            headings: !matches.get_flag("no-headings"),
        }),
        Some(("health", matches)) => Ok(Invocation::Health {
            config: matches.get_one::<String>("config").cloned(),
            address: matches.get_one::<String>("admin-addr").cloned(),
        }),
        Some(("completions", matches)) => {
            Ok(Invocation::Completions { shell: *matches.get_one::<Shell>("shell").expect("SHELL is required") })
        }
        Some(("man", matches)) => {
            Ok(Invocation::Manual { directory: matches.get_one::<String>("directory").expect("DIR is required").clone() })
        }
        Some((name, matches)) if millrace_ops::has(name) => Ok(Invocation::Operator { name: name.to_owned(), matches: matches.clone() }),
        other => unreachable!("a subcommand is required and {other:?} is none"),
    }
}

fn given(matches: &ArgMatches) -> Result<Vec<Given>, Failure> {
    let all = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<String>>();
    let mut given = Vec::new();
    for pair in all("set") {
        given.push(Given::from_pair(&pair, "--set")?);
    }
    let dirs = all("data-dir");
    if let Some(dir) = dirs.iter().find(|dir| dir.contains(',')) {
        return Err(Failure::Usage(format!("--data-dir {dir:?} has a comma in it; repeat --data-dir for several data directories")));
    }
    if !dirs.is_empty() {
        given.push(from_flag("log.dirs", dirs.join(","), "--data-dir"));
    }
    for (flag, key) in [("kafka-addr", "listeners"), ("advertised-addr", "advertised.listeners")] {
        if let Ok(Some(address)) = matches.try_get_one::<String>(flag) {
            given.push(from_flag(key, format!("PLAINTEXT://{address}"), &format!("--{flag}")));
        }
    }
    if let Ok(Some(shards)) = matches.try_get_one::<String>("shards") {
        given.push(from_flag("shards", shards.clone(), "--shards"));
    }
    Ok(given)
}

fn from_flag(key: &str, value: String, flag: &str) -> Given {
    Given::new(key, value, Source::CommandLine(flag.to_owned()))
}

/// clap's message without its decoration, and with the usage's place named.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let joined = words.join(" ").replace(" tip: ", "; ");
    format!("{}; `millrace --help` shows what there is", joined.strip_prefix("error: ").unwrap_or(&joined))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, Failure> {
        parse(line.split(' ').map(OsString::from))
    }

    fn refused(line: &str) -> String {
        let failure = parsed(line).expect_err("arguments that must be refused");
        assert!(matches!(failure, Failure::Usage(_)), "{failure:?}");
        assert!(!failure.to_string().contains('\n'), "{failure:?} is not one line");
        failure.to_string()
    }

    #[test]
    fn flags_become_settings_and_win_over_set() {
        let line =
            "millrace start --data-dir a --data-dir b --kafka-addr [::1]:1 --advertised-addr h:2 --shards 3 --set shards=1 --set k=a=b";
        let Ok(Invocation::Start { config: None, given }) = parsed(line) else { panic!("{line} is a start") };
        let pairs: Vec<String> = given.iter().map(|given| format!("{}={} {}", given.key, given.value, given.source)).collect();
        let expected = [
            "shards=1 --set",
            "k=a=b --set",
            "log.dirs=a,b --data-dir",
            "listeners=PLAINTEXT://[::1]:1 --kafka-addr",
            "advertised.listeners=PLAINTEXT://h:2 --advertised-addr",
            "shards=3 --shards",
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn every_command_is_understood() {
        clap::Command::debug_assert(command());
        assert_eq!(parsed("millrace settings --sample"), Ok(Invocation::Settings { sample: true }));
        let Ok(Invocation::Inspect(inspection)) = parsed("millrace inspect verify d") else { panic!("verify is an inspection") };
        assert_eq!(inspection.path, std::path::Path::new("d"));
        let recover = |accept, format| Ok(Invocation::Recover { config: None, given: Vec::new(), accept, format });
        assert_eq!(parsed("millrace recover"), recover(Accept::Nothing, Format::Text));
        assert_eq!(parsed("millrace recover --accept-loss --format json"), recover(Accept::All, Format::Json));
        let named = Accept::Named(vec!["a-0".to_owned(), "b-1".to_owned()]);
        assert_eq!(parsed("millrace recover --accept-loss --partition a-0 --partition b-1"), recover(named, Format::Text));
        let (config, address) = (Some("f".to_owned()), Some("h:1".to_owned()));
        assert_eq!(parsed("millrace health --config f --admin-addr h:1"), Ok(Invocation::Health { config: config.clone(), address }));
        assert_eq!(parsed("millrace start --config f"), Ok(Invocation::Start { config, given: Vec::new() }));
        assert_eq!(parsed("millrace --version"), Ok(Invocation::Print(format!("millrace {}\n", env!("CARGO_PKG_VERSION")))));
        let Ok(Invocation::Print(help)) = parsed("millrace start --help") else { panic!("help is printed") };
        assert!(help.contains("num.partitions (int, default 1)"), "{help}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_one_line_with_a_hint() {
        assert!(refused("millrace start --data-dri x").contains("--data-dir"));
        assert!(refused("millrace begin").contains("begin"));
        assert!(refused("millrace").contains("subcommand"));
        assert!(refused("millrace inspect ls").contains("<PATH>"));
        assert!(refused("millrace start --set shards").contains("--set shards=VALUE"));
        assert!(refused("millrace start --data-dir a,b").contains("repeat --data-dir"));
        assert!(refused("millrace recover --partition a-0").contains("--accept-loss"));
        assert!(refused("millrace recover --format yaml").contains("json"));
        assert!(refused("millrace start --shards").contains("--shards"));
    }
}
