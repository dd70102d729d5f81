//! Why a request to replica set 0 is refused: one variant for each thing that a client can act on.

use millrace_base::fault::Fault;
use millrace_base::ids::{NodeId, TopicId, Uuid};

use super::topic_configs::ConfigError;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetaError {
    TopicExists {
        name: String,
    },
    /// `why` is a clause: "the name is empty".
    InvalidTopicName {
        name: String,
        why: &'static str,
    },
    /// A partition count that is out of bounds or not an increase.
    InvalidPartitions {
        why: String,
    },
    InvalidReplicationFactor {
        asked: i32,
        nodes: usize,
    },
    /// A manual assignment that names an unknown node, skips a partition or repeats one.
    InvalidAssignment {
        why: String,
    },
    InvalidConfig {
        key: String,
        value: String,
        allowed: String,
    },
    UnknownConfig {
        key: String,
    },
    UnknownTopicName {
        name: String,
    },
    UnknownTopicId {
        id: TopicId,
    },
    /// The topic is the broker's own.
    InternalTopic {
        name: String,
    },
    /// The cluster would hold more than a bound of ours.
    TooMany {
        what: &'static str,
        limit: usize,
    },
    /// Every data directory in question holds as many partitions as its shards' journals may.
    DirectoryPartitions {
        limit: usize,
    },
    UnknownNode {
        node: NodeId,
    },
    /// No live data directory to place a partition in; may pass.
    NoDirectory,
    UnknownDirectory {
        id: Uuid,
    },
    /// A node that cannot be: negative id, no directory, twice the same.
    InvalidNode {
        why: String,
    },
    ClusterIdSet {
        id: Uuid,
    },
    /// Levels only grow.
    FeatureLevel {
        current: u32,
        asked: u32,
    },
    /// All 2^63 are handed out.
    NoProducerIds,
}

impl MetaError {
    pub fn fault(&self) -> Fault {
        match self {
            MetaError::NoDirectory => Fault::Retry,
            MetaError::TopicExists { .. }
            | MetaError::InvalidTopicName { .. }
            | MetaError::InvalidPartitions { .. }
            | MetaError::InvalidReplicationFactor { .. }
            | MetaError::InvalidAssignment { .. }
            | MetaError::InvalidConfig { .. }
            | MetaError::UnknownConfig { .. }
            | MetaError::UnknownTopicName { .. }
            | MetaError::UnknownTopicId { .. }
            | MetaError::InternalTopic { .. }
            | MetaError::TooMany { .. }
            | MetaError::DirectoryPartitions { .. }
            | MetaError::UnknownNode { .. }
            | MetaError::UnknownDirectory { .. }
            | MetaError::InvalidNode { .. }
            | MetaError::ClusterIdSet { .. }
            | MetaError::FeatureLevel { .. }
            | MetaError::NoProducerIds => Fault::Refuse,
        }
    }
}

impl From<ConfigError> for MetaError {
    fn from(error: ConfigError) -> MetaError {
        match error {
            ConfigError::Unknown { key } => MetaError::UnknownConfig { key },
            ConfigError::Invalid { key, value, allowed } => MetaError::InvalidConfig { key, value, allowed },
        }
    }
}

impl std::fmt::Display for MetaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MetaError::TopicExists { name } => write!(f, "Topic '{name}' already exists."),
            MetaError::InvalidTopicName { name, why } => {
                write!(f, "Topic name '{name}' is not allowed: {why}.")
            }
            MetaError::InvalidPartitions { why } => {
                write!(f, "The number of partitions is not allowed: {why}.")
            }
            MetaError::InvalidReplicationFactor { asked, nodes } => {
                write!(f, "Replication factor {asked} is not possible: {nodes} node(s) are registered, and it must be at least 1.")
            }
            MetaError::InvalidAssignment { why } => {
                write!(f, "The replica assignment is not allowed: {why}.")
            }
            MetaError::InvalidConfig { key, value, allowed } => write!(f, "Invalid value {value} for configuration {key}: {allowed}."),
            MetaError::UnknownConfig { key } => write!(f, "Unknown configuration '{key}'."),
            MetaError::UnknownTopicName { name } => write!(f, "Topic '{name}' does not exist."),
            MetaError::UnknownTopicId { id } => write!(f, "No topic has the id {id}."),
            MetaError::InternalTopic { name } => {
                write!(f, "Topic '{name}' is internal: the broker alone creates and deletes it, and its writes are never cached.")
            }
            MetaError::TooMany { what, limit } => {
                write!(f, "The cluster may hold at most {limit} {what}.")
            }
            MetaError::DirectoryPartitions { limit } => {
                write!(
                    f,
                    "A data directory may hold at most {limit} partitions with this number of shards; add a data directory or a shard."
                )
            }
            MetaError::UnknownNode { node } => write!(f, "Node {node} is not registered."),
            MetaError::NoDirectory => write!(f, "No data directory is available; try again when one is back."),
            MetaError::UnknownDirectory { id } => {
                write!(f, "No registered node has the data directory {id}.")
            }
            MetaError::InvalidNode { why } => write!(f, "The node cannot be registered: {why}."),
            MetaError::ClusterIdSet { id } => write!(f, "The cluster already has the id {id}."),
            MetaError::FeatureLevel { current, asked } => write!(f, "The feature level is {current} and never goes back to {asked}."),
            MetaError::NoProducerIds => write!(f, "All producer ids are used up."),
        }
    }
}

impl std::error::Error for MetaError {}
