//! Arguments that operator commands share, and what becomes of them.
//!
//! Every noun (`topic`, `group`) takes [`shared`], so that all its verbs have the same flags for the cluster, the profile and the format;
//! [`Context`] is what a verb is given.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::client::Client;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output::{Format, Output, Table};
use crate::profiles;
use crate::settings::{self, ClientSettings, Given};
use crate::stop::{NoteStops, Stop};

/// An environment variable's value.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a verb works with.
pub struct Context<'a> {
    pub client: Client,
    pub output: Output<'a>,
    note_stops: NoteStops<'a>,
}

impl Context<'_> {
    /// From now on SIGINT and SIGTERM are noted there, and do not end the process.
    pub fn stop(&self) -> Stop {
        Stop::new((self.note_stops)())
    }
}

/// A noun: its verbs share the flags for the cluster, the profile and the format.
pub fn noun(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).subcommand_required(true).args(shared()).after_help(format!(
        "The cluster is named by --brokers, MILLRACE_BROKERS, or a profile in ~/.config/millrace/profiles.yaml, in this order; else it is {}.\n{EXIT_CODES}",
        settings::value(&[], "brokers").value
    ))
}

/// A verb; its help ends with the exit codes too.
pub fn verb(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(EXIT_CODES)
}

/// The flags for the cluster, the profile and the format.
pub fn shared() -> [Arg; 5] {
    [
        flag("brokers", "HOST:PORT,...", "Brokers to begin with").alias("bootstrap-server").alias("bootstrap").global(true),
        flag("profile", "NAME", "Settings from this profile (MILLRACE_PROFILE)").global(true),
        Arg::new("setting")
            .short('X')
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .help("A client setting by librdkafka's name; may be repeated; -X list shows all")
            .global(true),
        flag("format", "FORMAT", "How it is told").value_parser(Format::NAMES).default_value(Format::NAMES[0]).global(true),
        switch("no-headings", "Tables without their first line").alias("no-headers").global(true),
    ]
}

pub fn flag(name: &'static str, value: &'static str, about: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(about)
}

pub fn switch(name: &'static str, about: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(about)
}

/// `--yes`, for verbs that [`confirm`].
pub fn yes() -> Arg {
    switch("yes", "Do not ask").short('y')
}

pub fn dry_run(about: &'static str) -> Arg {
    switch("dry-run", about)
}

/// The values of an argument that may be repeated.
pub fn all(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
}

pub fn one<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// `key=value` of a flag.
///
/// # Errors
/// There is no `=`, or no key.
pub fn pair(flag: &str, text: &str) -> Outcome<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{flag} {text:?} is not KEY=VALUE"))),
    }
}

/// Partition numbers: `0,2,5-7`.
///
/// # Errors
/// `text` is something else.
pub fn partitions(text: &str) -> Outcome<Vec<i32>> {
    const PARTITIONS_MAX: i32 = 1_000_000;
    let wrong = || Failure::usage(format!("{text:?} are no partitions")).with_hint("write numbers and ranges, as in 0,2,5-7");
    let number = |text: &str| text.trim().parse::<i32>().ok().filter(|number| (0..PARTITIONS_MAX).contains(number)).ok_or_else(wrong);
    let mut found = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => found.extend(number(first)?..=number(last)?),
            None => found.push(number(part)?),
        }
    }
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { Err(wrong()) } else { Ok(found) }
}

/// Asks a person whether to go on; without a terminal `--yes` is needed.
///
/// # Errors
/// The answer is no, or there is nobody to ask.
pub fn confirm(matches: &ArgMatches, question: &str) -> Outcome<()> {
    if matches.get_flag("yes") {
        return Ok(());
    }
    let (input, mut talk) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() || !talk.is_terminal() {
        return Err(Failure::usage(format!("nobody can be asked: {question}")).with_hint("repeat the command with --yes"));
    }
    let mut line = String::new();
    let asked = write!(talk, "{question} [y/N] ").and_then(|()| talk.flush()).and_then(|()| input.lock().read_line(&mut line));
    match asked {
        Ok(_) if ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()) => Ok(()),
        _ => Err(Failure::new(crate::failure::Kind::Failed, "nothing was done")),
    }
}

/// What the shared arguments say; `None` when they only asked what settings there are, which has been told.
///
/// # Errors
/// They cannot be meant.
pub fn context<'a>(
    matches: &ArgMatches,
    variable: Variable<'_>,
    note_stops: NoteStops<'a>,
    to: &'a mut dyn Write,
) -> Outcome<Option<Context<'a>>> {
    let format = one(matches, "format").and_then(Format::from_name).unwrap_or(Format::Text);
    let mut output = Output { format, headings: !matches.get_flag("no-headings"), to };
    let pairs = all(matches, "setting");
    if pairs.iter().any(|pair| pair == "list" || pair == "help") {
        output.table(&list())?;
        return Ok(None);
    }
    let mut given = Vec::new();
    if let Some(brokers) = one(matches, "brokers") {
        given.push(Given { key: "brokers".to_owned(), value: brokers.to_owned(), from: "--brokers".to_owned() });
    }
    for pair in &pairs {
        given.push(Given::from_pair(pair)?);
    }
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let asked = one(matches, "profile").map(str::to_owned);
    if let (Some(brokers), None) = (set("MILLRACE_BROKERS"), &asked) {
        given.push(Given { key: "brokers".to_owned(), value: brokers, from: "MILLRACE_BROKERS".to_owned() });
    }
    let profiles = profiles::read(variable)?;
    if let Some(profile) = profiles.in_use(asked.or_else(|| set("MILLRACE_PROFILE")).as_deref())? {
        given.extend(profile.given.iter().cloned());
    }
    Ok(Some(Context { client: Client::new(ClientSettings::new(&given)?), output, note_stops }))
}

fn list() -> Table {
    let mut table = Table::new(&["setting", "default", "also", "what_it_is"]);
    for row in settings::TABLE {
        table.row(vec![row.name.into(), row.default.into(), row.aliases.to_vec().into(), row.doc.into()]);
    }
    table
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_numbers_and_ranges() {
        assert_eq!(partitions("3,0,5-7,6"), Ok(vec![0, 3, 5, 6, 7]));
        for text in ["", "a", "-1", "1-", "7-5", "0-99999999999"] {
            assert!(partitions(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_profile() {
        let command = || noun("topic", "").subcommand(verb("list", ""));
        let brokers = |line: &str, variables: &[(&str, &str)]| {
            let matches = command().get_matches_from(line.split(' '));
            let (_, matches) = matches.subcommand().expect("a verb");
            let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let mut sink = Vec::new();
            let context = context(matches, &variable, &Default::default, &mut sink).expect("settings").expect("not a question");
            context.client.settings.brokers[0].0.clone()
        };
        assert_eq!(brokers("topic list", &[]), "127.0.0.1");
        assert_eq!(brokers("topic list", &[("MILLRACE_BROKERS", "b")]), "b");
        assert_eq!(brokers("topic list -X brokers=c", &[("MILLRACE_BROKERS", "b")]), "c");
        assert_eq!(brokers("topic --brokers d list -X brokers=c", &[("MILLRACE_BROKERS", "b")]), "d");
    }
}
