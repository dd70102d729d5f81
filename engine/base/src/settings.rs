//! What a person may tune: one table, and the values in force.
//!
//! 1. Whoever reads a file, the environment or a command line hands over `Given`s: a key, the text of its value, where it came from.
//! 2. `Settings::new` looks each key up in `TABLE`, parses the text by its kind and lays the values over each other: default, file,
//!    environment, command line, and above all what was changed at run time. Within one source the last value wins.
//! 3. Use sites read fields (`settings.num_partitions`); whoever lists settings reads `entries`, help and sample come from the same rows.
//!
//! An error names the key, the value, where it came from and what is allowed; an unknown key names the nearest known one.
//!
//! Invariants: every row has a field and a layer list of its own; the first layer is in force; only a row without a default has none.
//! Knows nothing of files, the process environment, YAML or flags, nor of what the settings do.

mod table;
mod value;

use std::fmt;
use std::ops::Deref;

use crate::fault::Fault;

pub use table::{Fields, TABLE};
pub use value::{Kind, TEXT_CHARS_MAX, Value};

/// What the names of environment variables that are settings begin with.
pub const ENVIRONMENT_PREFIX: &str = "MILLRACE_";

/// Variables with that prefix which the repository's scripts or operator commands read, and the broker does not.
const ENVIRONMENT_OF_OTHERS: &[&str] = &["MILLRACE_CACHE", "MILLRACE_BROKERS", "MILLRACE_PROFILE", "MILLRACE_PROFILES"];

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Setting {
    /// Kafka's dotted name where Kafka has the setting.
    pub name: &'static str,
    pub kind: Kind,
    /// The text of the default; nothing if the setting is absent until given.
    pub default: Option<&'static str>,
    pub changes: Changes,
    /// The topic config whose default this is.
    pub topic: Option<TopicDefault>,
    /// One line for people.
    pub doc: &'static str,
}

/// When a setting can be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changes {
    /// By a restart only.
    AtStart,
    /// At run time, for all nodes or for one.
    PerNode,
    /// At run time, for all nodes at once or for one, though one value for all is what makes sense.
    PerCluster,
}

/// A topic config that takes its default from a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicDefault {
    pub config: &'static str,
    /// How many of the config's units are one of the setting's: 3,600,000 from hours to milliseconds. Negative values mean "never" in both.
    pub unit: i64,
}

/// Where a value came from, in rising precedence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The table.
    Default,
    /// A line (from 1) of the settings file.
    File { path: String, line: usize },
    /// An environment variable, by its name.
    Environment(String),
    /// The command line, by its flag.
    CommandLine(String),
    /// Changed at run time for all nodes.
    Cluster,
    /// Changed at run time for this node.
    Node,
}

impl Source {
    fn rank(&self) -> u8 {
        match self {
            Source::Default => 0,
            Source::File { .. } => 1,
            Source::Environment(_) => 2,
            Source::CommandLine(_) => 3,
            Source::Cluster => 4,
            Source::Node => 5,
        }
    }

    /// Whether the value was changed at run time.
    pub fn is_dynamic(&self) -> bool {
        matches!(self, Source::Cluster | Source::Node)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("the default"),
            Source::File { path, line } => write!(f, "{path} line {line}"),
            Source::Environment(variable) => write!(f, "environment variable {variable}"),
            Source::CommandLine(flag) => f.write_str(flag),
            Source::Cluster => f.write_str("a change for the cluster"),
            Source::Node => f.write_str("a change for this node"),
        }
    }
}

/// One value that somebody gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    pub key: String,
    pub value: String,
    pub source: Source,
}

impl Given {
    pub fn new(key: impl Into<String>, value: impl Into<String>, source: Source) -> Given {
        Given { key: key.into(), value: value.into(), source }
    }

    /// From `key=value`, the argument of `--set`.
    pub fn from_pair(pair: &str, flag: &str) -> Result<Given, Error> {
        let source = Source::CommandLine(flag.to_owned());
        match pair.split_once('=') {
            Some((key, value)) => Ok(Given::new(key.trim(), value, source)),
            None => Err(Error::NoValue { key: pair.to_owned(), source }),
        }
    }

    /// Those of `variables` (name, value) that are settings. Variables that Kubernetes makes for a service called millrace are passed over.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Result<Vec<Given>, Error> {
        let mut given = Vec::new();
        for (name, value) in variables {
            if !name.starts_with(ENVIRONMENT_PREFIX) || ENVIRONMENT_OF_OTHERS.contains(&name.as_str()) {
                continue;
            }
            match TABLE.iter().find(|setting| setting.variable() == name) {
                Some(setting) => given.push(Given::new(setting.name, value, Source::Environment(name))),
                None if is_service_variable(&name[ENVIRONMENT_PREFIX.len()..]) => {}
                None => {
                    let nearest = nearest(&name, TABLE.iter().map(Setting::variable));
                    return Err(Error::Unknown { key: name, source: Source::Environment(String::new()), nearest });
                }
            }
        }
        Ok(given)
    }
}

/// Whether Kubernetes makes such a name for a service (after `MILLRACE_`): SERVICE_HOST, SERVICE_PORT_KAFKA, PORT_9092_TCP_ADDR ...
fn is_service_variable(rest: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    words.iter().enumerate().any(|(at, word)| match (*word, words.get(at + 1)) {
        ("SERVICE", Some(next)) => *next == "HOST" || *next == "PORT",
        ("PORT", None) => true,
        ("PORT", Some(next)) => next.parse::<u16>().is_ok(),
        _ => false,
    })
}

/// Why settings were refused. All are for a person to put right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    Unknown {
        key: String,
        source: Source,
        nearest: Option<String>,
    },
    Bad {
        key: String,
        value: String,
        source: Source,
        allowed: String,
    },
    /// A key without `=value`.
    NoValue {
        key: String,
        source: Source,
    },
    /// Changed at run time though it holds from start to stop.
    Fixed {
        key: String,
    },
}

impl Error {
    pub fn fault(&self) -> Fault {
        match self {
            Error::Unknown { .. } | Error::Bad { .. } | Error::NoValue { .. } | Error::Fixed { .. } => Fault::Refuse,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unknown { key, source, nearest } => {
                match source {
                    Source::Environment(_) => write!(f, "environment variable {key:?} names no setting")?,
                    Source::Default | Source::File { .. } | Source::CommandLine(_) | Source::Cluster | Source::Node => {
                        write!(f, "{source}: there is no setting {key:?}")?;
                    }
                }
                match nearest {
                    Some(nearest) => write!(f, "; did you mean {nearest}?"),
                    None => f.write_str("; `millrace settings` lists them all"),
                }
            }
            Error::Bad { key, value, source, allowed } => {
                write!(f, "setting {key} cannot be {value:?} (from {source}); allowed: {allowed}")
            }
            Error::NoValue { key, source } => write!(f, "{source} {key:?} has no value; write {source} {key}=VALUE"),
            Error::Fixed { key } => write!(f, "setting {key} cannot be changed at run time; set it in the file and restart"),
        }
    }
}

impl std::error::Error for Error {}

impl Setting {
    /// The environment variable of this setting.
    pub fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The parsed value of `text`. Empty text takes an optional setting back to absent.
    fn parse(&self, text: &str, source: &Source) -> Result<Option<Value>, Error> {
        if text.trim().is_empty() && self.default.is_none() {
            return Ok(None);
        }
        self.kind.parse(text).map(Some).ok_or_else(|| self.bad(text, source, self.kind.allowed()))
    }

    fn bad(&self, value: &str, source: &Source, allowed: String) -> Error {
        Error::Bad { key: self.name.to_owned(), value: value.to_owned(), source: source.clone(), allowed }
    }
}

/// The row called `name`, or an error that names the nearest.
pub fn find(name: &str, source: &Source) -> Result<&'static Setting, Error> {
    TABLE.iter().find(|setting| setting.name == name).ok_or_else(|| Error::Unknown {
        key: name.to_owned(),
        source: source.clone(),
        nearest: nearest(name, TABLE.iter().map(|setting| setting.name.to_owned())),
    })
}

/// One value of a setting and where it came from. `None` is an optional setting taken back to absent.
#[derive(Clone, PartialEq, Debug)]
pub struct Layer {
    pub value: Option<Value>,
    pub source: Source,
}

/// A setting and its values, highest precedence first; never empty, the default is last.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub setting: &'static Setting,
    pub layers: &'a [Layer],
}

impl Entry<'_> {
    /// The value in force, in its canonical text.
    pub fn value(&self) -> Option<String> {
        self.in_force().value.as_ref().map(Value::to_string)
    }

    pub fn source(&self) -> &Source {
        &self.in_force().source
    }

    fn in_force(&self) -> &Layer {
        self.layers.first().expect("every setting has at least its default layer")
    }
}

/// The values in force. Fields are read through `Deref`: `settings.num_partitions`.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    fields: Fields,
    /// By row of `TABLE`.
    layers: Vec<Vec<Layer>>,
}

impl Deref for Settings {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.fields
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new([]).expect("the table's own defaults are allowed")
    }
}

impl Settings {
    /// The table's defaults with `given` laid over them by the precedence of their sources; of one source the last wins.
    pub fn new(given: impl IntoIterator<Item = Given>) -> Result<Settings, Error> {
        let defaults = TABLE.iter().map(|setting| {
            let value = setting.default.map(|text| setting.kind.parse(text).expect("every default in the table parses"));
            vec![Layer { value, source: Source::Default }]
        });
        Settings::lay(defaults.collect(), given)
    }

    /// These settings with `changes` in place of whatever was changed at run time so far. Their sources are `Cluster` or `Node`.
    pub fn changed(&self, changes: impl IntoIterator<Item = Given>) -> Result<Settings, Error> {
        let mut layers = self.layers.clone();
        layers.iter_mut().for_each(|layers| layers.retain(|layer| !layer.source.is_dynamic()));
        let changes: Vec<Given> = changes.into_iter().collect();
        for change in &changes {
            assert!(change.source.is_dynamic(), "changes at run time come for the cluster or for a node");
            if find(&change.key, &change.source)?.changes == Changes::AtStart {
                return Err(Error::Fixed { key: change.key.clone() });
            }
        }
        Settings::lay(layers, changes)
    }

    fn lay(mut layers: Vec<Vec<Layer>>, given: impl IntoIterator<Item = Given>) -> Result<Settings, Error> {
        for Given { key, value, source } in given {
            let setting = find(&key, &source)?;
            let row = TABLE.iter().position(|row| row.name == setting.name).expect("find answers rows of the table");
            let value = setting.parse(&value, &source)?;
            let layers = &mut layers[row];
            layers.retain(|layer| layer.source.rank() != source.rank());
            let at = layers.iter().take_while(|layer| layer.source.rank() > source.rank()).count();
            layers.insert(at, Layer { value, source });
        }
        let in_force = layers.iter().map(|layers| layers.first().and_then(|layer| layer.value.as_ref()));
        let fields = Fields::from_values(in_force).expect("every bound of a row fits its field");
        let settings = Settings { fields, layers };
        settings.agree()?;
        Ok(settings)
    }

    /// Rules between settings.
    fn agree(&self) -> Result<(), Error> {
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms {
            let least = self.group_min_session_timeout_ms;
            return Err(self.refuse("group.max.session.timeout.ms", format!("at least group.min.session.timeout.ms, which is {least}")));
        }
        if self.message_max_bytes > self.socket_request_max_bytes {
            let most = self.socket_request_max_bytes;
            return Err(self.refuse("message.max.bytes", format!("at most socket.request.max.bytes, which is {most}")));
        }
        let dirs = &self.log_dirs;
        if dirs.iter().enumerate().any(|(at, dir)| dirs[..at].contains(dir)) {
            return Err(self.refuse("log.dirs", "each data directory once".to_owned()));
        }
        Ok(())
    }

    /// An error about the value of `name` that is in force, for those who find more wrong with it than its kind can say.
    ///
    /// Panics if there is no setting `name`.
    pub fn refuse(&self, name: &str, allowed: String) -> Error {
        let entry = self.entry(name).expect("whoever refuses a value names a setting of the table");
        entry.setting.bad(&entry.value().unwrap_or_default(), entry.source(), allowed)
    }

    /// One setting.
    pub fn entry(&self, name: &str) -> Option<Entry<'_>> {
        self.entries().find(|entry| entry.setting.name == name)
    }

    /// All settings, in the table's order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        TABLE.iter().zip(&self.layers).map(|(setting, layers)| Entry { setting, layers })
    }

    /// The settings whose value topic config `config` takes as its default, the first one with a value in force first.
    pub fn topic_synonyms(&self, config: &str) -> impl Iterator<Item = Entry<'_>> {
        self.entries()
            .filter(move |entry| entry.setting.topic.is_some_and(|topic| topic.config == config) && entry.in_force().value.is_some())
    }

    /// Every topic config that a setting gives a default to, with that default in the config's own unit.
    pub fn topic_defaults(&self) -> Vec<(&'static str, String)> {
        let mut defaults: Vec<(&'static str, String)> = Vec::new();
        for entry in self.entries() {
            let (Some(topic), Some(value)) = (entry.setting.topic, &entry.in_force().value) else {
                continue;
            };
            if !defaults.iter().any(|(config, _)| *config == topic.config) {
                defaults.push((topic.config, topic.scale(value)));
            }
        }
        defaults
    }
}

impl Setting {
    /// A sentence about the topic config whose default this is, with a space before it; empty if it is none.
    fn topic_text(&self) -> String {
        self.topic.map_or(String::new(), |topic| format!(" A topic's own value: its config {}.", topic.config))
    }
}

impl TopicDefault {
    fn scale(self, value: &Value) -> String {
        match value {
            Value::Whole(whole) if *whole >= 0 => whole.saturating_mul(self.unit).to_string(),
            Value::Whole(_) | Value::Bool(_) | Value::Double(_) | Value::Text(_) | Value::List(_) => value.to_string(),
        }
    }
}

/// All settings for people: name, type, default, what it does, what is allowed.
pub fn help() -> String {
    let mut text = String::new();
    for setting in TABLE {
        let default = setting.default.map_or("absent".to_owned(), |default| format!("default {default}"));
        let changes = match setting.changes {
            Changes::AtStart => "",
            Changes::PerNode | Changes::PerCluster => ", can be changed at run time",
        };
        text.push_str(&format!(
            "{} ({}, {default}{changes})\n    {}{}\n",
            setting.name,
            setting.kind.word(),
            setting.doc,
            setting.topic_text()
        ));
        text.push_str(&format!("    Allowed: {}. Environment: {}\n", setting.kind.allowed(), setting.variable()));
    }
    text
}

/// A settings file in which every line is commented out and states the default.
pub fn sample() -> String {
    let mut text = String::from(
        "# Settings of a Millrace node. Take the # off a line to change it; what is left out has the value shown.\n\
         # The environment (MILLRACE_NUM_PARTITIONS=3) and the command line (--set num.partitions=3) win over this file.\n",
    );
    for setting in TABLE {
        let value = setting.default.map_or(String::new(), |default| format!(" {default}"));
        let (doc, topic, allowed) = (setting.doc, setting.topic_text(), setting.kind.allowed());
        text.push_str(&format!("\n# {doc}{topic}\n# Allowed: {allowed}.\n#{}:{value}\n", setting.name));
    }
    text
}

/// The candidate that differs least from `name`, if it is near enough to be meant.
pub fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    const CHARS_MAX: usize = 128;
    let name: Vec<char> = name.chars().take(CHARS_MAX).flat_map(char::to_lowercase).collect();
    let far = (name.len() / 3).max(2);
    candidates
        .map(|candidate| (distance(&name, &candidate.to_lowercase().chars().collect::<Vec<char>>()), candidate))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be put in, taken out or replaced to make one from the other; `_`, `-` and `.` count as the same.
fn distance(one: &[char], other: &[char]) -> usize {
    let same = |a: char, b: char| a == b || ("._-".contains(a) && "._-".contains(b));
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(!same(*a, *b));
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests;
