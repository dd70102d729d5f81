//! The settings: one row each, and nothing about any of them elsewhere.
//!
//! A row makes the field of `Settings` and its entry in `TABLE` together, so neither can exist without the other:
//!
//! ```text
//! field: Type = "kafka.name", Kind, default, changes, topic config, "What it does.";
//! ```
//!
//! Kafka's names, units and defaults wherever Kafka has the setting; what differs says so in its text. `changes` follows Kafka's list
//! of what can be changed at run time. A topic config with several rows takes the first that has a value.
//!
//! Invariants: names are unique, also with dots read as underscores; every default parses; every bound fits its field.
//! Knows nothing of where values come from.

use super::value::{Field, Kind, Value};
use super::{Changes, Setting, TopicDefault};
use crate::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, TOPIC_PARTITIONS_MAX};

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const MIB: i64 = 1 << 20;

const fn int(min: i64, max: i64) -> Kind {
    Kind::Int { min, max }
}

const fn long(min: i64, max: i64) -> Kind {
    Kind::Long { min, max }
}

const fn bytes(min: i64, max: i64) -> Kind {
    Kind::Bytes { min, max }
}

/// The default of topic config `config`, in the same unit.
const fn of(config: &'static str) -> Option<TopicDefault> {
    Some(TopicDefault { config, unit: 1 })
}

/// The default of topic config `config`, which counts in units `unit` times smaller.
const fn scaled(config: &'static str, unit: i64) -> Option<TopicDefault> {
    Some(TopicDefault { config, unit })
}

use Changes::{AtStart, PerCluster, PerNode};

macro_rules! settings {
    ($($field:ident: $type:ty = $name:literal, $kind:expr, $default:expr, $changes:expr, $topic:expr, $doc:literal;)*) => {
        /// Every setting, parsed. Fields are the table's rows with dots as underscores.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Fields {
            $(#[doc = $doc] pub $field: $type,)*
        }

        /// Every setting, in the order in which help and sample show them.
        pub static TABLE: &[Setting] = &[
            $(Setting { name: $name, kind: $kind, default: $default, changes: $changes, topic: $topic, doc: $doc },)*
        ];

        impl Fields {
            /// The fields from one value per row, in the table's order. Nothing if a value does not fit its field.
            pub(super) fn from_values<'a>(mut values: impl Iterator<Item = Option<&'a Value>>) -> Option<Fields> {
                Some(Fields { $($field: <$type as Field>::from_value(values.next()?)?,)* })
            }
        }
    };
}

settings! {
    // The node.
    node_id: i32 = "node.id", int(0, INT), Some("1"), AtStart, None,
        "This node's number in its cluster.";
    cluster_id: Option<String> = "cluster.id", Kind::Text, None, AtStart, None,
        "The cluster's name; made up at the first start if absent, and fixed from then on.";
    broker_rack: Option<String> = "broker.rack", Kind::Text, None, AtStart, None,
        "Where this node stands, told to clients that read from the nearest replica.";
    log_dirs: Vec<String> = "log.dirs", Kind::List, Some("data"), AtStart, None,
        "The data directories, separated by commas; partitions are spread over them.";
    shards: u32 = "shards", int(0, 1024), Some("0"), AtStart, None,
        "Shards, each one thread on one core; 0 is one per core.";
    shard_pin_enable: bool = "shard.pin.enable", Kind::Bool, Some("true"), AtStart, None,
        "Bind each shard's thread to its core.";
    shard_spin_us: u32 = "shard.spin.us", int(0, 10_000), Some("50"), AtStart, None,
        "Microseconds for which a shard without work looks for more before it sleeps.";
    io_driver: String = "io.driver", Kind::Enum(&["auto", "uring", "portable"]), Some("auto"), AtStart, None,
        "What serves files and sockets: uring is io_uring, portable is epoll and threads, which keeps as much and is slower. auto is uring where the host allows it, else portable with a warning that says why.";
    logging_level: String = "logging.level", Kind::Enum(&["error", "warn", "info", "debug", "trace"]), Some("info"), AtStart, None,
        "The least important lines that are still logged.";

    // Memory and the journal.
    memory_max_bytes: u64 = "memory.max.bytes", bytes(0, LONG), Some("0"), AtStart, None,
        "Memory of all shards together; 0 is a quarter of the machine's, or of what a container may have. A shard takes 136 MiB at least. Beside it stands what connections, partitions, groups and topics take by their number.";
    journal_max_bytes: u64 = "journal.max.bytes", bytes(16 * MIB, 1 << 40), Some("536870912"), AtStart, None,
        "The live journals of all shards together; a quarter of memory.max.bytes is the bound if that is less.";
    journal_direct_append_min_bytes: u64 = "journal.direct.append.min.bytes", bytes(4096, LONG), Some("327680"), AtStart, None,
        "Bytes for one partition in one turn from which they are written straight to its segment, if twice as many are on their way in its data directory; after that an eighth of them will do, while as many are.";

    // Listeners and connections.
    listeners: Vec<String> = "listeners", Kind::List, Some("PLAINTEXT://127.0.0.1:9092"), AtStart, None,
        "Where to listen: NAME://host:port, separated by commas; an IPv6 host stands in brackets, an empty host is every IPv4 address.";
    advertised_listeners: Option<Vec<String>> = "advertised.listeners", Kind::List, None, AtStart, None,
        "What clients are told to connect to, by listener name; what is absent is as in listeners.";
    listener_security_protocol_map: Vec<String> = "listener.security.protocol.map", Kind::List, Some("PLAINTEXT:PLAINTEXT"), AtStart, None,
        "The protocol of each listener name, NAME:PROTOCOL separated by commas; only PLAINTEXT is served.";
    admin_listener: Option<String> = "admin.listener", Kind::Text, None, AtStart, None,
        "Where readiness and metrics are asked for over HTTP: host:port, or none; if absent 127.0.0.1:9644, unless another process has that port.";
    max_connections: u32 = "max.connections", int(1, INT), Some("65536"), PerNode, None,
        "Connections open at once; more are closed when they are accepted. (Kafka: 2147483647.)";
    connections_max_idle_ms: i64 = "connections.max.idle.ms", long(-1, LONG), Some("600000"), AtStart, None,
        "A connection silent for so long is closed; -1 is never.";
    socket_request_max_bytes: u32 = "socket.request.max.bytes", bytes(1024, FRAME_BYTES_MAX as i64), Some("104857600"), AtStart, None,
        "The largest request; a larger one closes its connection. Requests other than Produce have at most 16 MiB.";
    queued_max_requests: u32 = "queued.max.requests", int(1, 10_000), Some("100"), AtStart, None,
        "Requests that one connection may have waiting before it is not read any more. (Kafka: 500, all connections together.)";

    // Topics.
    auto_create_topics_enable: bool = "auto.create.topics.enable", Kind::Bool, Some("true"), AtStart, None,
        "Make a topic when a client first asks for it.";
    delete_topic_enable: bool = "delete.topic.enable", Kind::Bool, Some("true"), AtStart, None,
        "Whether topics can be deleted.";
    num_partitions: u32 = "num.partitions", int(1, TOPIC_PARTITIONS_MAX as i64), Some("1"), AtStart, None,
        "Partitions of a topic whose maker does not say.";
    default_replication_factor: i32 = "default.replication.factor", int(1, 32_767), Some("1"), AtStart, None,
        "Replicas of a topic whose maker does not say.";
    max_request_partition_size_limit: u32 = "max.request.partition.size.limit", int(1, INT), Some("2000"), AtStart, None,
        "Partitions in one answer that describes topics; the client asks again for the rest.";

    // Defaults of topic configs.
    log_cleanup_policy: Vec<String> = "log.cleanup.policy", Kind::EnumList(&["compact", "delete"]), Some("delete"), PerCluster, of("cleanup.policy"),
        "What happens to old segments: delete drops whole segments past retention.*. compact is not carried out yet: alone it keeps everything, with delete it adds nothing.";
    log_retention_ms: Option<i64> = "log.retention.ms", long(-1, LONG), None, PerCluster, of("retention.ms"),
        "How long records are kept; -1 is for ever. If absent, log.retention.minutes holds.";
    log_retention_minutes: Option<i32> = "log.retention.minutes", int(-1, INT), None, AtStart, scaled("retention.ms", 60_000),
        "How long records are kept; -1 is for ever. If absent, log.retention.hours holds.";
    log_retention_hours: i32 = "log.retention.hours", int(-1, INT), Some("168"), AtStart, scaled("retention.ms", 3_600_000),
        "How long records are kept; -1 is for ever.";
    log_retention_bytes: i64 = "log.retention.bytes", bytes(-1, LONG), Some("-1"), PerCluster, of("retention.bytes"),
        "How many bytes of a partition are kept; -1 is without bound.";
    log_segment_bytes: u32 = "log.segment.bytes", bytes(MIB, INT), Some("1073741824"), PerCluster, of("segment.bytes"),
        "The largest segment.";
    log_roll_ms: Option<i64> = "log.roll.ms", long(1, LONG), None, PerCluster, of("segment.ms"),
        "The oldest that an open segment gets. If absent, log.roll.hours holds.";
    log_roll_hours: i32 = "log.roll.hours", int(1, INT), Some("168"), AtStart, scaled("segment.ms", 3_600_000),
        "The oldest that an open segment gets.";
    log_roll_jitter_ms: Option<i64> = "log.roll.jitter.ms", long(0, LONG), None, PerCluster, of("segment.jitter.ms"),
        "At most so much is taken off log.roll.ms, of each segment another part. If absent, log.roll.jitter.hours holds.";
    log_roll_jitter_hours: i32 = "log.roll.jitter.hours", int(0, INT), Some("0"), AtStart, scaled("segment.jitter.ms", 3_600_000),
        "At most so much is taken off log.roll.ms, of each segment another part.";
    log_segment_delete_delay_ms: i64 = "log.segment.delete.delay.ms", long(0, LONG), Some("60000"), PerCluster, of("file.delete.delay.ms"),
        "Kafka's delay before a deleted segment's file goes, for readers that still have it. Accepted, without effect: files go at once here.";
    log_index_interval_bytes: u32 = "log.index.interval.bytes", bytes(0, INT), Some("4096"), PerCluster, of("index.interval.bytes"),
        "Bytes of a segment from one index entry to the next.";
    log_index_size_max_bytes: u32 = "log.index.size.max.bytes", bytes(4, INT), Some("10485760"), PerCluster, of("segment.index.bytes"),
        "The largest index, at 20 bytes an entry; a segment whose index is full is closed. Less than 5,120 counts as that: a segment of 1 MiB.";
    message_max_bytes: u32 = "message.max.bytes", bytes(0, BATCH_BYTES_MAX as i64), Some("1048588"), PerCluster, of("max.message.bytes"),
        "The largest batch.";
    log_message_timestamp_type: String = "log.message.timestamp.type", Kind::Enum(&["CreateTime", "LogAppendTime"]), Some("CreateTime"), PerCluster, of("message.timestamp.type"),
        "Whose clock a record's timestamp is: the producer's or the broker's.";
    log_message_timestamp_before_max_ms: i64 = "log.message.timestamp.before.max.ms", long(0, LONG), Some("9223372036854775807"), PerCluster, of("message.timestamp.before.max.ms"),
        "How far a producer's timestamp may lie before the broker's clock.";
    log_message_timestamp_after_max_ms: i64 = "log.message.timestamp.after.max.ms", long(0, LONG), Some("3600000"), PerCluster, of("message.timestamp.after.max.ms"),
        "How far a producer's timestamp may lie after the broker's clock.";
    compression_type: String = "compression.type", Kind::Enum(&["producer"]), Some("producer"), PerCluster, of("compression.type"),
        "The codec of stored batches; producer keeps them as they came, and nothing else is offered yet.";
    min_insync_replicas: i32 = "min.insync.replicas", int(1, 32_767), Some("1"), PerCluster, of("min.insync.replicas"),
        "Replicas that must hold a batch before acks=all is answered, if more than a majority.";
    unclean_leader_election_enable: bool = "unclean.leader.election.enable", Kind::Bool, Some("false"), PerCluster, of("unclean.leader.election.enable"),
        "Whether a replica that may lack acknowledged records can lead.";
    log_write_caching: bool = "log.write.caching", Kind::Bool, Some("false"), PerCluster, of("write.caching"),
        "Answer before the sync, which follows at once; log.flush.interval.* bound what a power cut can take.";
    log_flush_interval_messages: i64 = "log.flush.interval.messages", long(1, LONG), Some("9223372036854775807"), PerCluster, of("flush.messages"),
        "With write caching, an answer waits for the sync when so many records of its partition do. Without it every answer waits for one.";
    log_flush_interval_ms: i64 = "log.flush.interval.ms", long(0, LONG), Some("9223372036854775807"), PerCluster, of("flush.ms"),
        "With write caching, an answer waits for the sync when one of its data directory has taken so long. Without it every answer waits for one.";
    log_cleaner_delete_retention_ms: i64 = "log.cleaner.delete.retention.ms", long(0, LONG), Some("86400000"), PerCluster, of("delete.retention.ms"),
        "How long a compacted topic keeps the records that delete a key. Compaction does not run yet.";
    log_cleaner_min_cleanable_ratio: f64 = "log.cleaner.min.cleanable.ratio", Kind::Double { min: 0.0, max: 1.0 }, Some("0.5"), PerCluster, of("min.cleanable.dirty.ratio"),
        "The uncompacted part of a log from which it is compacted. Compaction does not run yet.";
    log_cleaner_min_compaction_lag_ms: i64 = "log.cleaner.min.compaction.lag.ms", long(0, LONG), Some("0"), PerCluster, of("min.compaction.lag.ms"),
        "How long a record stays uncompacted at least. Compaction does not run yet.";
    log_cleaner_max_compaction_lag_ms: i64 = "log.cleaner.max.compaction.lag.ms", long(1, LONG), Some("9223372036854775807"), PerCluster, of("max.compaction.lag.ms"),
        "How long a record stays uncompacted at most. Compaction does not run yet.";
    log_retention_check_interval_ms: u64 = "log.retention.check.interval.ms", long(1, LONG), Some("300000"), AtStart, None,
        "How often retention is applied.";

    // Producers and readers.
    producer_id_expiration_ms: u64 = "producer.id.expiration.ms", int(1, INT), Some("86400000"), PerCluster, None,
        "How long a silent producer's sequence is remembered.";
    fetch_max_bytes: u32 = "fetch.max.bytes", bytes(1024, INT), Some("57671680"), AtStart, None,
        "The most that one fetch answers, the first batch apart, which always comes whole.";
    max_incremental_fetch_session_cache_slots: u32 = "max.incremental.fetch.session.cache.slots", int(0, 1_000_000), Some("1000"), AtStart, None,
        "Fetch sessions that are remembered; clients without one send all their partitions each time.";

    // Consumer groups.
    group_initial_rebalance_delay_ms: u64 = "group.initial.rebalance.delay.ms", int(0, INT), Some("3000"), AtStart, None,
        "How long an empty group waits for more members before it first shares out partitions.";
    group_min_session_timeout_ms: u64 = "group.min.session.timeout.ms", int(1, INT), Some("6000"), AtStart, None,
        "The shortest session that a member may ask for.";
    group_max_session_timeout_ms: u64 = "group.max.session.timeout.ms", int(1, INT), Some("1800000"), AtStart, None,
        "The longest session that a member may ask for.";
    group_max_size: u32 = "group.max.size", int(1, INT), Some("2147483647"), AtStart, None,
        "Members of one group.";
    offset_metadata_max_bytes: u32 = "offset.metadata.max.bytes", int(0, 32_767), Some("4096"), AtStart, None,
        "The longest text that a member may commit beside an offset.";
    offsets_retention_minutes: u64 = "offsets.retention.minutes", int(1, INT), Some("10080"), AtStart, None,
        "How long the offsets of a group without members are kept.";
    offsets_retention_check_interval_ms: u64 = "offsets.retention.check.interval.ms", long(1, LONG), Some("600000"), AtStart, None,
        "How often offsets.retention.minutes is applied.";
    offsets_topic_num_partitions: u32 = "offsets.topic.num.partitions", int(1, 10_000), Some("50"), AtStart, None,
        "Partitions of __consumer_offsets, fixed when it is made.";
    offsets_topic_segment_bytes: u32 = "offsets.topic.segment.bytes", bytes(MIB, INT), Some("104857600"), AtStart, None,
        "The segments of __consumer_offsets.";
}
