//! What a topic may set for itself: names, types, bounds and built-in defaults. Which broker settings give a default says the table of
//! settings (`millrace_base::settings::TABLE`), and it alone.
//!
//! A value in force is found in three steps, as in Kafka: the topic's own override; the first broker setting that gives its default
//! and is set (hours and minutes are multiplied to milliseconds); the built-in default. [`TopicConfig::effective`] does that for all rows.
//! Everything that is refused is refused by [`check`], before a command is proposed, with the key, the value and what is allowed.
//!
//! Invariants: every default passes its own row's check; names strictly ascend; a [`TopicConfig`] can be made of any input.
//! Knows nothing of topics, nodes, or how a front spells types and sources.

use std::collections::BTreeMap;

use millrace_base::limits::BATCH_BYTES_MAX;
use millrace_base::settings;

/// The least `segment.bytes`: smaller segments cost a file each for almost no data. Kafka's floor since 4.0 too.
pub const SEGMENT_BYTES_MIN: i64 = 1 << 20;

/// The longest value that any setting may have: a client that speaks older versions of Kafka's protocol can be told no longer one.
pub const VALUE_BYTES_MAX: usize = 0x7fff;

/// How a value is written. Kafka's type names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Boolean,
    Int,
    Long,
    Double,
    String,
    List,
}

/// Which values of the kind are allowed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Allowed {
    Any,
    /// Both included.
    Range(i64, i64),
    Ratio(f64, f64),
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these, not empty.
    Each(&'static [&'static str]),
    /// `*` or a list of `partition:node`.
    Throttled,
    /// Nothing but the default, and why.
    OnlyDefault(&'static str),
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Row {
    pub key: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub allowed: Allowed,
    pub doc: &'static str,
}

const LONG_MAX: &str = "9223372036854775807";
const NO_TIERING: &str = "tiered storage is not available yet";
const POLICIES: &[&str] = &["compact", "delete"];

const fn at_least(min: i64) -> Allowed {
    Allowed::Range(min, i64::MAX)
}

const fn at_least_int(min: i64) -> Allowed {
    Allowed::Range(min, i32::MAX as i64)
}

macro_rules! row {
    ($key:literal, $kind:ident, $default:expr, $allowed:expr, $doc:literal) => {
        Row { key: $key, kind: Kind::$kind, default: $default, allowed: $allowed, doc: $doc }
    };
}

/// Every topic setting, by ascending name.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row!("cleanup.policy", List, "delete", Allowed::Each(POLICIES),
        "What becomes of old data: delete drops whole segments past retention.*. compact is not carried out yet: alone it keeps everything, with delete it adds nothing."),
    row!("compression.type", String, "producer", Allowed::OnlyDefault("batches are kept as the producer compressed them: only 'producer'"),
        "The codec in which batches are stored; producer keeps the one they came in."),
    row!("delete.retention.ms", Long, "86400000", at_least(0),
        "How long the tombstones of a compacted topic stay readable."),
    row!("file.delete.delay.ms", Long, "60000", at_least(0),
        "Kafka's delay before a removed segment's file goes, for readers that still have it. Accepted, without effect: files go at once here."),
    row!("flush.messages", Long, LONG_MAX, at_least(1),
        "With write.caching: an answer waits for the sync when so many records do. Without it every acknowledged record is synced."),
    row!("flush.ms", Long, LONG_MAX, at_least(0),
        "With write.caching: an answer waits for the sync when one has taken so long. Syncs follow each other without a pause."),
    row!("follower.replication.throttled.replicas", List, "", Allowed::Throttled,
        "Replicas whose replication is throttled on the follower's side. Accepted, without effect."),
    row!("index.interval.bytes", Int, "4096", at_least_int(0),
        "Bytes of log between two entries of the offset index."),
    row!("leader.replication.throttled.replicas", List, "", Allowed::Throttled,
        "Replicas whose replication is throttled on the leader's side. Accepted, without effect."),
    row!("local.retention.bytes", Long, "-2", Allowed::OnlyDefault(NO_TIERING),
        "Bytes of a tiered partition that are kept locally; -2 means retention.bytes."),
    row!("local.retention.ms", Long, "-2", Allowed::OnlyDefault(NO_TIERING),
        "How long a tiered partition's segments are kept locally; -2 means retention.ms."),
    row!("max.compaction.lag.ms", Long, LONG_MAX, at_least(1),
        "The longest that a record of a compacted topic may stay uncompacted."),
    row!("max.message.bytes", Int, "1048588", Allowed::Range(0, BATCH_BYTES_MAX as i64),
        "The largest record batch that is accepted, as it is on the wire."),
    row!("message.timestamp.after.max.ms", Long, "3600000", at_least(0),
        "How far a record's timestamp may be ahead of the broker's clock."),
    row!("message.timestamp.before.max.ms", Long, LONG_MAX, at_least(0),
        "How far a record's timestamp may be behind the broker's clock."),
    row!("message.timestamp.type", String, "CreateTime", Allowed::OneOf(&["CreateTime", "LogAppendTime"]),
        "Whose time a record carries: the producer's or the time of the append."),
    row!("min.cleanable.dirty.ratio", Double, "0.5", Allowed::Ratio(0.0, 1.0),
        "The share of uncompacted bytes from which on a compacted log is cleaned."),
    row!("min.compaction.lag.ms", Long, "0", at_least(0),
        "The least time that a record of a compacted topic stays uncompacted."),
    row!("min.insync.replicas", Int, "1", at_least_int(1),
        "Replicas that must hold a record before a producer with acks=all is answered."),
    row!("preallocate", Boolean, "false", Allowed::Any,
        "Kafka's switch for files of full size; segments here always grow in allocated steps."),
    row!("remote.log.copy.disable", Boolean, "false", Allowed::OnlyDefault(NO_TIERING),
        "Stops uploading while the archive stays readable."),
    row!("remote.log.delete.on.disable", Boolean, "false", Allowed::OnlyDefault(NO_TIERING),
        "Deletes the archive when tiered storage is switched off."),
    row!("remote.storage.enable", Boolean, "false", Allowed::OnlyDefault(NO_TIERING),
        "Keeps closed segments in object storage."),
    row!("retention.bytes", Long, "-1", at_least(-1),
        "Bytes of a partition that are kept under cleanup.policy=delete; -1 means no bound."),
    row!("retention.ms", Long, "604800000", at_least(-1),
        "How long records are kept under cleanup.policy=delete; -1 means forever."),
    row!("segment.bytes", Int, "1073741824", Allowed::Range(SEGMENT_BYTES_MIN, i32::MAX as i64),
        "Bytes after which a new segment begins; at least 1048576 (1 MiB)."),
    row!("segment.index.bytes", Int, "10485760", at_least_int(4),
        "The largest index, at 20 bytes an entry; a segment whose index is full is closed. Less than 5120 counts as that: a segment of 1 MiB."),
    row!("segment.jitter.ms", Long, "0", at_least(0),
        "The most by which segment.ms is shortened, of each segment by another part, so that partitions do not roll together."),
    row!("segment.ms", Long, "604800000", at_least(1),
        "Time after which a new segment begins even if it is not full."),
    row!("unclean.leader.election.enable", Boolean, "false", Allowed::Any,
        "Kafka's switch for leaders that miss records. Accepted, without effect: a leader holds every committed record."),
    row!("write.caching", Boolean, "false", Allowed::Any,
        "Acknowledges before the sync, within flush.messages and flush.ms. Never on internal topics."),
];

/// The row of a topic setting.
pub fn row(key: &str) -> Option<&'static Row> {
    TABLE.binary_search_by(|row| row.key.cmp(key)).ok().map(|index| &TABLE[index])
}

/// The broker settings that give `row` its default, in the order in which they are looked at, and what their values are multiplied by.
fn broker_settings(row: &Row) -> impl Iterator<Item = (&'static str, i64)> {
    let key = row.key;
    settings::TABLE
        .iter()
        .filter_map(move |setting| setting.topic.filter(|topic| topic.config == key).map(|topic| (setting.name, topic.unit)))
}

/// The row whose default a broker setting gives, and what the setting's value is multiplied by.
pub fn row_of_broker_setting(key: &str) -> Option<(&'static Row, i64)> {
    let topic = settings::TABLE.iter().find(|setting| setting.name == key)?.topic?;
    Some((row(topic.config)?, topic.unit))
}

/// Why a value was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    Unknown { key: String },
    Invalid { key: String, value: String, allowed: String },
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigError::Unknown { key } => write!(f, "Unknown topic config name: {key}"),
            ConfigError::Invalid { key, value, allowed } => write!(f, "Invalid value {value} for configuration {key}: {allowed}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What a row allows, for messages and documentation.
pub fn allowed_text(row: &Row) -> String {
    match row.allowed {
        Allowed::Any if row.kind == Kind::Boolean => "true or false".to_owned(),
        Allowed::Any => "any value".to_owned(),
        Allowed::Range(min, i64::MAX) => format!("a whole number of at least {min}"),
        Allowed::Range(min, max) => format!("a whole number from {min} to {max}"),
        Allowed::Ratio(min, max) => format!("a number from {min} to {max}"),
        Allowed::OneOf(names) => format!("one of {}", names.join(", ")),
        Allowed::Each(names) => format!("a comma-separated list of {}", names.join(", ")),
        Allowed::Throttled => "* or a comma-separated list of partition:node".to_owned(),
        Allowed::OnlyDefault(why) => format!("only {} ({why})", row.default),
    }
}

/// Is `value` allowed for the topic setting `key`?
pub fn check(key: &str, value: &str) -> Result<(), ConfigError> {
    let row = row(key).ok_or_else(|| ConfigError::Unknown { key: clip(key) })?;
    if value.len() <= VALUE_BYTES_MAX && allows(row, value) {
        return Ok(());
    }
    Err(ConfigError::Invalid { key: key.to_owned(), value: clip(value), allowed: allowed_text(row) })
}

/// Is `value` allowed for a broker setting that gives a topic setting's default? `Unknown` if it gives none.
pub fn check_broker_setting(key: &str, value: &str) -> Result<(), ConfigError> {
    let (row, factor) = row_of_broker_setting(key).ok_or_else(|| ConfigError::Unknown { key: clip(key) })?;
    match multiplied(value, factor) {
        Some(text) if value.len() <= VALUE_BYTES_MAX && allows(row, &text) => Ok(()),
        _ => Err(ConfigError::Invalid { key: key.to_owned(), value: clip(value), allowed: allowed_text(row) }),
    }
}

/// What one topic's overrides must satisfy together.
pub fn check_together(overrides: &BTreeMap<String, String>, defaults: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let config = TopicConfig::effective(overrides, defaults);
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
        return Err(ConfigError::Invalid {
            key: "min.compaction.lag.ms".to_owned(),
            value: config.min_compaction_lag_ms.to_string(),
            allowed: format!("at most max.compaction.lag.ms, which is {}", config.max_compaction_lag_ms),
        });
    }
    Ok(())
}

/// At most 200 characters of what a client sent, for a message.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

fn allows(row: &Row, value: &str) -> bool {
    let value = value.trim();
    match row.allowed {
        Allowed::Any => row.kind != Kind::Boolean || boolean(value).is_some(),
        Allowed::Range(min, max) => value.parse::<i64>().is_ok_and(|number| (min..=max).contains(&number)),
        Allowed::Ratio(min, max) => value.parse::<f64>().is_ok_and(|number| (min..=max).contains(&number)),
        Allowed::OneOf(names) => names.contains(&value),
        Allowed::Each(names) => list(value).all(|item| names.contains(&item)),
        Allowed::Throttled => value.is_empty() || value == "*" || list(value).all(throttled_replica),
        Allowed::OnlyDefault(_) if row.kind == Kind::Boolean => boolean(value) == boolean(row.default),
        Allowed::OnlyDefault(_) => value == row.default,
    }
}

fn throttled_replica(item: &str) -> bool {
    item.split_once(':').is_some_and(|(partition, node)| partition.parse::<u32>().is_ok() && (node == "*" || node.parse::<u32>().is_ok()))
}

/// The items of a comma-separated list, trimmed.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

fn boolean(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") {
        Some(true)
    } else if value.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// A broker setting's value in the topic setting's unit. Negative means "no bound" and stays -1; None if it is no number.
fn multiplied(value: &str, factor: i64) -> Option<String> {
    if factor == 1 {
        return Some(value.to_owned());
    }
    let number = value.trim().parse::<i64>().ok()?;
    Some(if number < 0 { -1 } else { number.saturating_mul(factor) }.to_string())
}

/// Where a value in force comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Topic,
    /// The broker setting of this name.
    Broker(&'static str),
    Default,
}

/// The value in force of one row. `defaults`: the broker settings that were set, by name; one that does not pass is passed over, as the
/// table of broker settings refuses it earlier.
pub fn effective_value(row: &Row, overrides: &BTreeMap<String, String>, defaults: &BTreeMap<String, String>) -> (String, Source) {
    if let Some(value) = overrides.get(row.key).filter(|value| allows(row, value)) {
        return (value.clone(), Source::Topic);
    }
    for (setting, factor) in broker_settings(row) {
        let value = defaults.get(setting).and_then(|value| multiplied(value, factor));
        if let Some(value) = value.filter(|value| allows(row, value)) {
            return (value, Source::Broker(setting));
        }
    }
    (row.default.to_owned(), Source::Default)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The settings in force of one topic, as the engine reads them. Times in milliseconds.
#[derive(Clone, PartialEq, Debug)]
pub struct TopicConfig {
    pub cleanup_delete: bool,
    pub cleanup_compact: bool,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    /// None: no bound.
    pub retention_bytes: Option<u64>,
    /// None: forever.
    pub retention_ms: Option<u64>,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
    pub write_caching: bool,
}

impl TopicConfig {
    /// Of a topic's overrides and the broker settings that were set.
    pub fn effective(overrides: &BTreeMap<String, String>, defaults: &BTreeMap<String, String>) -> TopicConfig {
        let text = |key: &str| {
            let row = row(key).expect("only names of the table are asked for");
            effective_value(row, overrides, defaults).0.trim().to_owned()
        };
        let long = |key: &str| text(key).parse::<i64>().expect("effective_value gives only values that pass their row");
        let int = |key: &str| i32::try_from(long(key)).expect("the row's range is that of an int");
        let flag = |key: &str| boolean(&text(key)).expect("effective_value gives only values that pass their row");
        let policy = text("cleanup.policy");
        TopicConfig {
            cleanup_delete: list(&policy).any(|item| item == "delete"),
            cleanup_compact: list(&policy).any(|item| item == "compact"),
            delete_retention_ms: long("delete.retention.ms"),
            file_delete_delay_ms: long("file.delete.delay.ms"),
            flush_messages: long("flush.messages"),
            flush_ms: long("flush.ms"),
            index_interval_bytes: int("index.interval.bytes"),
            max_compaction_lag_ms: long("max.compaction.lag.ms"),
            max_message_bytes: int("max.message.bytes"),
            message_timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            message_timestamp_type: match text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio")
                .parse()
                .expect("effective_value gives only values that pass their row"),
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            min_insync_replicas: int("min.insync.replicas"),
            preallocate: flag("preallocate"),
            retention_bytes: u64::try_from(long("retention.bytes")).ok(),
            retention_ms: u64::try_from(long("retention.ms")).ok(),
            segment_bytes: int("segment.bytes"),
            segment_index_bytes: int("segment.index.bytes"),
            segment_jitter_ms: long("segment.jitter.ms"),
            segment_ms: long("segment.ms"),
            unclean_leader_election_enable: flag("unclean.leader.election.enable"),
            write_caching: flag("write.caching"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn names_ascend_and_every_default_passes() {
        assert!(TABLE.is_sorted_by(|a, b| a.key < b.key));
        for row in TABLE {
            assert_eq!(check(row.key, row.default), Ok(()), "{}", row.key);
            assert!(!row.doc.is_empty());
        }
    }

    #[test]
    fn every_broker_setting_of_a_topic_has_a_row_with_its_default() {
        let given: BTreeMap<&str, String> = millrace_base::settings::Settings::default().topic_defaults().into_iter().collect();
        assert_eq!(given.len(), TABLE.iter().filter(|row| broker_settings(row).next().is_some()).count());
        for (config, default) in given {
            assert_eq!(row(config).map(|row| row.default.to_owned()), Some(default), "{config}");
        }
    }

    #[test]
    fn effective_values_without_any_override_are_kafkas_defaults() {
        let config = TopicConfig::effective(&map(&[]), &map(&[]));
        assert!(config.cleanup_delete && !config.cleanup_compact);
        assert_eq!(config.retention_ms, Some(604_800_000));
        assert_eq!(config.retention_bytes, None);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert!(!config.write_caching);
    }

    #[test]
    fn topic_wins_over_broker_and_finer_units_over_coarser() {
        let defaults = map(&[("log.retention.hours", "2"), ("log.retention.minutes", "5")]);
        let row = row("retention.ms").unwrap();
        assert_eq!(effective_value(row, &map(&[]), &defaults), ("300000".into(), Source::Broker("log.retention.minutes")));
        assert_eq!(effective_value(row, &map(&[("retention.ms", "7")]), &defaults), ("7".into(), Source::Topic));
        let forever = map(&[("log.retention.hours", "-1")]);
        assert_eq!(TopicConfig::effective(&map(&[]), &forever).retention_ms, None);
        assert_eq!(TopicConfig::effective(&map(&[]), &map(&[("log.roll.hours", "1")])).segment_ms, 3_600_000);
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_what_is_allowed() {
        for (key, value) in [
            ("segment.bytes", "1048575"),
            ("retention.ms", "-2"),
            ("retention.ms", "a week"),
            ("cleanup.policy", "shrink"),
            ("cleanup.policy", ""),
            ("cleanup.policy", "delete,"),
            ("compression.type", "zstd"),
            ("compression.type", "uncompressed"),
            ("preallocate", "1"),
            ("min.cleanable.dirty.ratio", "1.01"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("max.message.bytes", "2147483647"),
            ("index.interval.bytes", "2147483648"),
            ("remote.storage.enable", "true"),
            ("local.retention.ms", "1000"),
            ("message.timestamp.type", "createtime"),
            ("min.insync.replicas", "0"),
            ("leader.replication.throttled.replicas", "nonsense"),
        ] {
            let Err(ConfigError::Invalid { allowed, .. }) = check(key, value) else { panic!("{key}={value} was accepted") };
            assert!(!allowed.is_empty());
        }
        assert!(check("segment.bytes", "1000").unwrap_err().to_string().contains("1048576"));
        assert!(check("compression.type", "gzip").unwrap_err().to_string().contains("only producer"));
        assert!(check("remote.storage.enable", "true").unwrap_err().to_string().contains("tiered storage"));
        assert_eq!(check("no.such", "1"), Err(ConfigError::Unknown { key: "no.such".into() }));
    }

    #[test]
    fn both_policies_and_throttled_replicas_are_accepted() {
        for (key, value) in [
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact, delete"),
            ("leader.replication.throttled.replicas", "*"),
            ("follower.replication.throttled.replicas", "0:1,1:2"),
            ("remote.storage.enable", "FALSE"),
            ("retention.ms", "-1"),
        ] {
            assert_eq!(check(key, value), Ok(()), "{key}={value}");
        }
        let both = TopicConfig::effective(&map(&[("cleanup.policy", "compact,delete")]), &map(&[]));
        assert!(both.cleanup_compact && both.cleanup_delete);
    }

    #[test]
    fn compaction_lags_that_contradict_are_refused() {
        let wrong = map(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]);
        assert!(check_together(&wrong, &map(&[])).is_err());
    }

    #[test]
    fn broker_settings_are_checked_in_their_own_unit() {
        assert_eq!(check_broker_setting("log.retention.hours", "168"), Ok(()));
        assert!(check_broker_setting("log.retention.hours", "x").is_err());
        assert!(check_broker_setting("log.segment.bytes", "10").is_err());
        assert!(matches!(check_broker_setting("num.io.threads", "8"), Err(ConfigError::Unknown { .. })));
    }
}
