//! Settings of topics and brokers as Kafka's configuration entries, and changes to them.
//!
//! A topic's value is its own override, else that of the first broker setting that gives its default (`Settings::topic_synonyms`), else
//! the topic table's. Sources and types have Kafka's numbers.
//!
//! Knows nothing of requests.

use std::borrow::Cow;
use std::collections::BTreeMap;

use millrace_base::ids::NodeId;
use millrace_base::settings::{self, Changes, Entry, Given, Kind as BrokerKind, Layer, Setting, Settings, Source};
use millrace_shard::state::meta::topic_configs::{self, Kind, Row};
use millrace_shard::state::meta::{ConfigChange, ConfigChanges, Meta, NodeScope};

use crate::errors::{self, Refusal};
use crate::wire::errors::ErrorCode;

pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
pub const BROKER_LOGGER: i8 = 8;
pub const CLIENT_METRICS: i8 = 16;
pub const GROUP: i8 = 32;

/// Kafka's ConfigSource of a topic's own override; the only source that is not a broker setting's.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

/// One value and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: i8,
}

/// One setting as clients see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    pub name: &'static str,
    pub value: Option<String>,
    pub source: i8,
    pub is_read_only: bool,
    pub kind: i8,
    pub doc: &'static str,
    /// Every value that is set, the one in force first.
    pub synonyms: Vec<Synonym>,
}

/// Kafka's ConfigSource.
fn source(source: &Source) -> i8 {
    match source {
        Source::Node => 2,
        Source::Cluster => 3,
        Source::File { .. } | Source::Environment(_) | Source::CommandLine(_) => 4,
        Source::Default => SOURCE_DEFAULT,
    }
}

/// Kafka's ConfigType.
fn broker_kind(kind: BrokerKind) -> i8 {
    match kind {
        BrokerKind::Bool => 1,
        BrokerKind::Text | BrokerKind::Enum(_) => 2,
        BrokerKind::Int { .. } => 3,
        BrokerKind::Bytes { max, .. } if max <= i64::from(i32::MAX) => 3,
        BrokerKind::Long { .. } | BrokerKind::Bytes { .. } => 5,
        BrokerKind::Double { .. } => 6,
        BrokerKind::List | BrokerKind::EnumList(_) => 7,
    }
}

fn topic_kind(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::String => 2,
        Kind::Int => 3,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
    }
}

fn layer_synonym(setting: &Setting, layer: &Layer) -> Synonym {
    let value = layer.value.as_ref().map(ToString::to_string);
    Synonym { name: setting.name.to_owned(), value, source: source(&layer.source) }
}

/// The settings of a topic; `overrides` are its own.
pub fn of_topic(overrides: &BTreeMap<String, String>, settings: &Settings) -> Vec<Described> {
    OfTopics::new(settings).rows(overrides, |_| true)
}

/// The settings of many topics, whose defaults are the same.
pub struct OfTopics<'a> {
    settings: &'a Settings,
    defaults: BTreeMap<&'static str, String>,
}

impl OfTopics<'_> {
    pub fn new(settings: &Settings) -> OfTopics<'_> {
        OfTopics { settings, defaults: settings.topic_defaults().into_iter().collect() }
    }

    /// Those of one topic that are wanted, by name.
    pub fn rows(&self, overrides: &BTreeMap<String, String>, is_wanted: impl Fn(&str) -> bool) -> Vec<Described> {
        let wanted = topic_configs::TABLE.iter().filter(|row| is_wanted(row.key));
        wanted.map(|row| topic_row(row, overrides, self.settings, &self.defaults)).collect()
    }
}

fn topic_row(row: &Row, overrides: &BTreeMap<String, String>, settings: &Settings, defaults: &BTreeMap<&'static str, String>) -> Described {
    let own = overrides.get(row.key);
    let broker: Vec<Entry<'_>> = settings.topic_synonyms(row.key).collect();
    let default_source = broker.first().map_or(SOURCE_DEFAULT, |entry| source(entry.source()));
    let default = defaults.get(row.key).map_or(row.default, String::as_str);
    let mut synonyms: Vec<Synonym> = Vec::new();
    if let Some(value) = own {
        synonyms.push(Synonym { name: row.key.to_owned(), value: Some(value.clone()), source: SOURCE_TOPIC });
    }
    for entry in &broker {
        synonyms.extend(entry.layers.iter().filter(|layer| layer.value.is_some()).map(|layer| layer_synonym(entry.setting, layer)));
    }
    if broker.is_empty() {
        synonyms.push(Synonym { name: row.key.to_owned(), value: Some(row.default.to_owned()), source: SOURCE_DEFAULT });
    }
    Described {
        name: row.key,
        value: Some(own.map_or(default, String::as_str).to_owned()),
        source: own.map_or(default_source, |_| SOURCE_TOPIC),
        is_read_only: false,
        kind: topic_kind(row.kind),
        doc: row.doc,
        synonyms,
    }
}

/// The settings of this node.
pub fn of_broker(settings: &Settings) -> Vec<Described> {
    settings.entries().map(|entry| broker_row(&entry)).collect()
}

fn broker_row(entry: &Entry<'_>) -> Described {
    Described {
        name: entry.setting.name,
        value: entry.value(),
        source: source(entry.source()),
        is_read_only: entry.setting.changes == Changes::AtStart,
        kind: broker_kind(entry.setting.kind),
        doc: entry.setting.doc,
        synonyms: entry.layers.iter().map(|layer| layer_synonym(entry.setting, layer)).collect(),
    }
}

/// What was changed at run time for all nodes: the resource with an empty name.
pub fn of_cluster(meta: &Meta) -> Vec<Described> {
    let rows = meta.node_configs(NodeScope::Every).filter_map(|(key, value)| {
        let setting = settings::TABLE.iter().find(|setting| setting.name == key)?;
        let synonym = Synonym { name: key.to_owned(), value: Some(value.to_owned()), source: source(&Source::Cluster) };
        Some(Described {
            name: setting.name,
            value: synonym.value.clone(),
            source: synonym.source,
            is_read_only: false,
            kind: broker_kind(setting.kind),
            doc: setting.doc,
            synonyms: vec![synonym],
        })
    });
    rows.collect()
}

/// What a resource is known by: ids of brokers are numbers, so that "1" and "01" are one.
pub fn resource(kind: i8, name: &str) -> (i8, Cow<'_, str>) {
    match name.parse::<NodeId>() {
        Ok(node) if kind == BROKER || kind == BROKER_LOGGER => (kind, node.to_string().into()),
        Ok(_) | Err(_) => (kind, name.into()),
    }
}

/// Whose settings a broker resource of this name means.
pub fn scope(name: &str, here: NodeId) -> Result<NodeScope, Refusal> {
    if name.is_empty() {
        return Ok(NodeScope::Every);
    }
    match name.parse::<NodeId>() {
        Ok(node) if node == here => Ok(NodeScope::One(node)),
        Ok(node) => Err((
            ErrorCode::InvalidRequest,
            format!("broker id {node} is not this broker's, which is {here}; or leave it empty for all").into(),
        )),
        Err(_) => Err((ErrorCode::InvalidRequest, format!("broker resource '{name}' is not a broker id").into())),
    }
}

/// Changes that a client asks for, whatever the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked<'a> {
    Incremental(Vec<(&'a str, i8, Option<&'a str>)>),
    Replace(Vec<(&'a str, Option<&'a str>)>),
}

/// The changes as the controller takes them. What they mean for a topic it checks itself.
pub fn changes(asked: &Asked<'_>) -> Result<ConfigChanges, Refusal> {
    let null = |name: &str| (ErrorCode::InvalidRequest, format!("setting '{name}' has no value").into());
    match asked {
        Asked::Replace(pairs) => {
            let mut all = BTreeMap::new();
            for (name, value) in pairs {
                let value = value.ok_or_else(|| null(name))?;
                if all.insert((*name).to_owned(), value.to_owned()).is_some() {
                    return Err((ErrorCode::InvalidRequest, format!("setting '{name}' is named twice").into()));
                }
            }
            Ok(ConfigChanges::Replace(all))
        }
        Asked::Incremental(triples) => {
            let mut all: Vec<(String, ConfigChange)> = Vec::with_capacity(triples.len());
            let mut names = std::collections::BTreeSet::new();
            for (name, operation, value) in triples {
                if !names.insert(*name) {
                    return Err((ErrorCode::InvalidRequest, format!("setting '{name}' is named twice").into()));
                }
                let value = || value.map(str::to_owned).ok_or_else(|| null(name));
                let change = match operation {
                    0 => ConfigChange::Set(value()?),
                    1 => ConfigChange::Delete,
                    2 => ConfigChange::Append(value()?),
                    3 => ConfigChange::Subtract(value()?),
                    other => return Err((ErrorCode::InvalidRequest, format!("there is no operation {other} on settings").into())),
                };
                all.push(((*name).to_owned(), change));
            }
            Ok(ConfigChanges::Incremental(all))
        }
    }
}

/// Checks changes of broker settings against the table and each other, and makes additions to lists whole.
pub fn broker_changes(asked: ConfigChanges, scope: NodeScope, meta: &Meta, settings: &Settings) -> Result<ConfigChanges, Refusal> {
    let present: BTreeMap<String, String> = meta.node_configs(scope).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let mut after = present.clone();
    let changes = match asked {
        ConfigChanges::Replace(all) => {
            after = all.clone();
            ConfigChanges::Replace(all)
        }
        ConfigChanges::Incremental(all) => {
            let mut whole = Vec::with_capacity(all.len());
            for (key, change) in all {
                let change = whole_change(&key, change, &present, settings)?;
                match &change {
                    ConfigChange::Set(value) => drop(after.insert(key.clone(), value.clone())),
                    ConfigChange::Delete | ConfigChange::Append(_) | ConfigChange::Subtract(_) => drop(after.remove(&key)),
                }
                whole.push((key, change));
            }
            ConfigChanges::Incremental(whole)
        }
    };
    let source = match scope {
        NodeScope::Every => Source::Cluster,
        NodeScope::One(_) => Source::Node,
    };
    for key in after.keys() {
        let setting = settings::find(key, &source).map_err(|error| errors::of_settings(&error))?;
        if setting.changes == Changes::AtStart {
            return Err(errors::of_settings(&settings::Error::Fixed { key: key.clone() }));
        }
    }
    let (other, other_source) = match scope {
        NodeScope::Every => (None, Source::Node),
        NodeScope::One(_) => (Some(NodeScope::Every), Source::Cluster),
    };
    let others =
        other.into_iter().flat_map(|scope| meta.node_configs(scope)).map(|(key, value)| Given::new(key, value, other_source.clone()));
    let own = after.iter().map(|(key, value)| Given::new(key, value, source.clone()));
    settings.changed(others.chain(own).collect::<Vec<_>>()).map_err(|error| errors::of_settings(&error))?;
    Ok(changes)
}

/// Appending to and subtracting from a list of the broker begins with the value in force.
fn whole_change(key: &str, change: ConfigChange, present: &BTreeMap<String, String>, settings: &Settings) -> Result<ConfigChange, Refusal> {
    let (items, is_append) = match change {
        ConfigChange::Set(_) | ConfigChange::Delete => {
            settings::find(key, &Source::Cluster).map_err(|error| errors::of_settings(&error))?;
            return Ok(change);
        }
        ConfigChange::Append(items) => (items, true),
        ConfigChange::Subtract(items) => (items, false),
    };
    let setting = settings::find(key, &Source::Cluster).map_err(|error| errors::of_settings(&error))?;
    if !matches!(setting.kind, BrokerKind::List | BrokerKind::EnumList(_)) {
        return Err((ErrorCode::InvalidConfig, format!("setting '{key}' is no list; append and subtract are for lists only").into()));
    }
    let in_force = settings.entry(key).and_then(|entry| entry.value()).unwrap_or_default();
    let now = present.get(key).unwrap_or(&in_force);
    let named: Vec<&str> = topic_configs::list(&items).filter(|item| !item.is_empty()).collect();
    let mut list: Vec<&str> = topic_configs::list(now).filter(|item| !item.is_empty()).collect();
    if is_append {
        let new: Vec<&str> = named.into_iter().filter(|item| !list.contains(item)).collect();
        list.extend(new);
    } else {
        list.retain(|item| !named.contains(item));
    }
    Ok(ConfigChange::Set(list.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let given = pairs.iter().map(|(key, value)| Given::new(*key, *value, Source::CommandLine("--set".into())));
        Settings::new(given).expect("allowed settings")
    }

    fn named<'a>(rows: &'a [Described], name: &str) -> &'a Described {
        rows.iter().find(|row| row.name == name).expect("a row of the table")
    }

    #[test]
    fn a_topics_value_is_its_own_then_the_brokers_then_the_default() {
        let settings = settings(&[("log.retention.hours", "2")]);
        let plain = of_topic(&BTreeMap::new(), &settings);
        let retention = named(&plain, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.source), (Some("7200000"), 4));
        assert_eq!(retention.synonyms[0].name, "log.retention.hours");
        assert_eq!(named(&plain, "max.message.bytes").source, 5);
        let own = of_topic(&[("retention.ms".to_owned(), "7".to_owned())].into(), &settings);
        let retention = named(&own, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.source, retention.kind), (Some("7"), 1, 5));
        assert_eq!(retention.synonyms[0], Synonym { name: "retention.ms".into(), value: Some("7".into()), source: 1 });
        assert_eq!(plain.len(), topic_configs::TABLE.len());
    }

    #[test]
    fn a_brokers_setting_says_whether_it_can_be_changed() {
        let rows = of_broker(&settings(&[]));
        assert!(named(&rows, "node.id").is_read_only);
        assert!(!named(&rows, "log.retention.bytes").is_read_only);
        assert_eq!(named(&rows, "listeners").kind, 7);
        for (name, kind) in
            [("log.segment.bytes", 3), ("message.max.bytes", 3), ("socket.request.max.bytes", 3), ("log.retention.bytes", 5)]
        {
            assert_eq!(named(&rows, name).kind, kind, "{name}");
        }
    }

    #[test]
    fn changes_of_brokers_are_checked_against_the_table() {
        let (meta, settings) = (Meta::new(), settings(&[]));
        let change = |key: &str, change: ConfigChange| {
            let asked = ConfigChanges::Incremental(vec![(key.to_owned(), change)]);
            broker_changes(asked, NodeScope::Every, &meta, &settings)
        };
        let set = |value: &str| ConfigChange::Set(value.to_owned());
        assert!(change("log.retention.bytes", set("5")).is_ok());
        for (key, value) in [("node.id", "2"), ("log.retention.bytes", "x"), ("no.such", "1")] {
            let (code, message) = change(key, set(value)).expect_err("refused");
            assert_eq!(code, ErrorCode::InvalidConfig);
            assert!(message.contains(key), "{message}");
        }
        let appended = change("log.cleanup.policy", ConfigChange::Append("compact".into()));
        let whole = ConfigChanges::Incremental(vec![("log.cleanup.policy".into(), set("delete,compact"))]);
        assert_eq!(appended, Ok(whole));
        assert!(change("log.retention.bytes", ConfigChange::Append("1".into())).is_err());
    }

    #[test]
    fn only_this_broker_or_all_can_be_named() {
        assert_eq!(scope("", 1), Ok(NodeScope::Every));
        assert_eq!(scope("1", 1), Ok(NodeScope::One(1)));
        assert!(scope("2", 1).is_err() && scope("x", 1).is_err());
    }

    #[test]
    fn a_brokers_id_is_one_however_it_is_written() {
        assert_eq!(resource(BROKER, "01"), resource(BROKER, "1"));
        assert_ne!(resource(TOPIC, "01"), resource(TOPIC, "1"));
        assert_ne!(resource(BROKER, ""), resource(BROKER, "1"));
    }

    #[test]
    fn a_setting_named_twice_or_without_a_value_is_refused() {
        assert!(changes(&Asked::Replace(vec![("a", Some("1")), ("a", Some("2"))])).is_err());
        assert!(changes(&Asked::Incremental(vec![("a", 0, None)])).is_err());
        assert!(changes(&Asked::Incremental(vec![("a", 9, Some("1"))])).is_err());
        assert!(changes(&Asked::Incremental(vec![("a", 1, None)])).is_ok());
    }
}
