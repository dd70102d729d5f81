//! The state of replica set 0 and how committed commands change it.
//!
//! 1. `check` (in its own file) turns a request into a command on the leader.
//! 2. Between that and the commit another command may have come first: `apply` refuses what has become impossible, as an effect, and
//!    changes nothing. It is total and gives the same on every node.
//! 3. Whoever applies acts on the effects: opens partitions, deletes them, reads settings again, answers the client.
//!
//! Invariants: names and ids of topics are one to one; a producer id is never in two blocks; every walk is in ascending order.
//! Knows nothing of logs, shards, files or clients.

use std::collections::{BTreeMap, BTreeSet};

use millrace_base::ids::{NodeId, PartitionId, TopicId, Uuid};
use millrace_base::limits::TOPIC_PARTITIONS_MAX;

use super::command::{Command, Node, NodeScope};
use super::error::MetaError;
use super::topic_configs::TopicConfig;
use super::topic_name;

/// Partitions of all topics together.
pub(super) const PARTITIONS_MAX: usize = 1_000_000;
pub(super) const NODES_MAX: usize = 1_000;
/// Settings of one scope.
pub(super) const NODE_CONFIGS_MAX: usize = 1_000;

/// A topic as replica set 0 knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    /// The data directory of each partition, by index; at least one.
    pub directories: Vec<Uuid>,
    /// Overrides only.
    pub configs: BTreeMap<String, String>,
}

impl Topic {
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.directories.len()).expect("a topic has at most TOPIC_PARTITIONS_MAX partitions")
    }
}

/// What an applied command changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    NodeRegistered {
        node: NodeId,
    },
    TopicCreated {
        topic: TopicId,
    },
    /// One for each partition, in index order, after `TopicCreated` where the topic is new.
    PartitionCreated {
        partition: PartitionId,
        directory: Uuid,
    },
    /// The topic is gone from the state; it had the partitions 0..directories.len().
    TopicDeleted {
        topic: Topic,
    },
    TopicConfigsChanged {
        topic: TopicId,
    },
    NodeConfigsChanged {
        scope: NodeScope,
    },
    /// The ids start..start + len are the proposer's alone.
    ProducerIdBlock {
        start: i64,
        len: u32,
    },
    FeatureLevelChanged {
        level: u32,
    },
    ClusterIdSet {
        id: Uuid,
    },
    /// The command had become impossible; nothing changed.
    Refused {
        error: MetaError,
    },
}

/// The state of replica set 0.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Meta {
    pub(super) cluster_id: Option<Uuid>,
    pub(super) feature_level: u32,
    pub(super) producer_id_next: i64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) topics: BTreeMap<TopicId, Topic>,
    pub(super) names: BTreeMap<String, TopicId>,
    /// The names as metrics have them.
    pub(super) names_in_metrics: BTreeSet<String>,
    pub(super) node_configs: BTreeMap<NodeScope, BTreeMap<String, String>>,
    pub(super) partitions: usize,
}

impl Meta {
    pub fn new() -> Meta {
        Meta::default()
    }

    pub fn cluster_id(&self) -> Option<Uuid> {
        self.cluster_id
    }

    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    pub fn topic_named(&self, name: &str) -> Option<&Topic> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// Every topic, by ascending name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().map(|id| &self.topics[id])
    }

    /// Partitions of all topics together.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// Every node, by ascending id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node that registered this data directory.
    pub fn node_of_directory(&self, directory: Uuid) -> Option<&Node> {
        self.nodes.values().find(|node| node.directories.iter().any(|own| own.id == directory))
    }

    /// The settings that were altered at run time in this scope alone.
    pub fn node_configs(&self, scope: NodeScope) -> impl Iterator<Item = (&str, &str)> {
        self.node_configs.get(&scope).into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// What was altered at run time as one node sees it: its own over every node's.
    pub fn node_configs_in_force(&self, node: NodeId) -> BTreeMap<String, String> {
        let mut configs = self.node_configs.get(&NodeScope::Every).cloned().unwrap_or_default();
        configs.extend(self.node_configs.get(&NodeScope::One(node)).cloned().unwrap_or_default());
        configs
    }

    /// The settings in force of a topic on a node whose broker settings (file, flags; without what was altered at run time) are
    /// `settings`.
    pub fn topic_config(&self, topic: &Topic, node: NodeId, settings: &BTreeMap<String, String>) -> TopicConfig {
        let mut defaults = settings.clone();
        defaults.extend(self.node_configs_in_force(node));
        TopicConfig::effective(&topic.configs, &defaults)
    }

    /// Applies a committed command.
    pub fn apply(&mut self, command: Command) -> Vec<Effect> {
        let result = match command {
            Command::RegisterNode(node) => self.register_node(node),
            Command::CreateTopic { topic, name, directories, configs } => {
                self.create_topic(Topic { id: topic, name, directories, configs })
            }
            Command::DeleteTopic { topic } => self.delete_topic(topic),
            Command::CreatePartitions { topic, first, directories } => self.create_partitions(topic, first, &directories),
            Command::AlterTopicConfigs { topic, set, remove } => self.alter_topic_configs(topic, set, &remove),
            Command::AlterNodeConfigs { scope, set, remove } => self.alter_node_configs(scope, set, &remove),
            Command::AllocateProducerIds { count, at_least } => self.allocate_producer_ids(count, at_least),
            Command::SetFeatureLevel { level } => self.set_feature_level(level),
            Command::SetClusterId { id } => self.set_cluster_id(id),
        };
        result.unwrap_or_else(|error| vec![Effect::Refused { error }])
    }

    fn register_node(&mut self, node: Node) -> Result<Vec<Effect>, MetaError> {
        if !self.nodes.contains_key(&node.id) && self.nodes.len() >= NODES_MAX {
            return Err(MetaError::TooMany { what: "nodes", limit: NODES_MAX });
        }
        let id = node.id;
        self.nodes.insert(id, node);
        Ok(vec![Effect::NodeRegistered { node: id }])
    }

    pub(super) fn create_topic(&mut self, topic: Topic) -> Result<Vec<Effect>, MetaError> {
        if self.names.contains_key(&topic.name) || self.topics.contains_key(&topic.id) {
            return Err(MetaError::TopicExists { name: topic.name });
        }
        self.check_room(0, topic.directories.len())?;
        self.partitions += topic.directories.len();
        let mut effects = vec![Effect::TopicCreated { topic: topic.id }];
        effects.extend(partitions_created(topic.id, 0, &topic.directories));
        self.names.insert(topic.name.clone(), topic.id);
        self.names_in_metrics.insert(topic_name::in_metrics(&topic.name));
        self.topics.insert(topic.id, topic);
        Ok(effects)
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<Vec<Effect>, MetaError> {
        let topic = self.topics.remove(&id).ok_or(MetaError::UnknownTopicId { id })?;
        self.names.remove(&topic.name);
        self.names_in_metrics.remove(&topic_name::in_metrics(&topic.name));
        self.partitions -= topic.directories.len();
        Ok(vec![Effect::TopicDeleted { topic }])
    }

    fn create_partitions(&mut self, id: TopicId, first: u32, directories: &[Uuid]) -> Result<Vec<Effect>, MetaError> {
        let topic = self.topics.get(&id).ok_or(MetaError::UnknownTopicId { id })?;
        if first != topic.partitions() {
            let why = format!("topic '{}' has {} partitions by now", topic.name, topic.partitions());
            return Err(MetaError::InvalidPartitions { why });
        }
        self.check_room(topic.directories.len(), directories.len())?;
        self.partitions += directories.len();
        let topic = self.topics.get_mut(&id).ok_or(MetaError::UnknownTopicId { id })?;
        topic.directories.extend_from_slice(directories);
        Ok(partitions_created(id, first, directories).collect())
    }

    /// May a topic that has `present` partitions have `more`?
    pub(super) fn check_room(&self, present: usize, more: usize) -> Result<(), MetaError> {
        if more == 0 || present + more > TOPIC_PARTITIONS_MAX as usize {
            let why = format!("{} is not between {} and {TOPIC_PARTITIONS_MAX}", present + more, present + 1);
            return Err(MetaError::InvalidPartitions { why });
        }
        if self.partitions + more > PARTITIONS_MAX {
            return Err(MetaError::TooMany { what: "partitions", limit: PARTITIONS_MAX });
        }
        Ok(())
    }

    fn alter_topic_configs(&mut self, id: TopicId, set: BTreeMap<String, String>, remove: &[String]) -> Result<Vec<Effect>, MetaError> {
        let topic = self.topics.get_mut(&id).ok_or(MetaError::UnknownTopicId { id })?;
        alter(&mut topic.configs, set, remove);
        Ok(vec![Effect::TopicConfigsChanged { topic: id }])
    }

    fn alter_node_configs(&mut self, scope: NodeScope, set: BTreeMap<String, String>, remove: &[String]) -> Result<Vec<Effect>, MetaError> {
        let mut configs = self.node_configs.get(&scope).cloned().unwrap_or_default();
        alter(&mut configs, set, remove);
        if configs.len() > NODE_CONFIGS_MAX || (self.node_configs.len() > NODES_MAX && !self.node_configs.contains_key(&scope)) {
            return Err(MetaError::TooMany { what: "settings of a node", limit: NODE_CONFIGS_MAX });
        }
        if configs.is_empty() {
            self.node_configs.remove(&scope);
        } else {
            self.node_configs.insert(scope, configs);
        }
        Ok(vec![Effect::NodeConfigsChanged { scope }])
    }

    fn allocate_producer_ids(&mut self, len: u32, at_least: i64) -> Result<Vec<Effect>, MetaError> {
        let start = self.producer_id_next.max(at_least);
        self.producer_id_next = start.checked_add(i64::from(len)).ok_or(MetaError::NoProducerIds)?;
        Ok(vec![Effect::ProducerIdBlock { start, len }])
    }

    fn set_feature_level(&mut self, level: u32) -> Result<Vec<Effect>, MetaError> {
        if level < self.feature_level {
            return Err(MetaError::FeatureLevel { current: self.feature_level, asked: level });
        }
        self.feature_level = level;
        Ok(vec![Effect::FeatureLevelChanged { level }])
    }

    fn set_cluster_id(&mut self, id: Uuid) -> Result<Vec<Effect>, MetaError> {
        if let Some(id) = self.cluster_id {
            return Err(MetaError::ClusterIdSet { id });
        }
        self.cluster_id = Some(id);
        Ok(vec![Effect::ClusterIdSet { id }])
    }
}

fn partitions_created(topic: TopicId, first: u32, directories: &[Uuid]) -> impl Iterator<Item = Effect> {
    (first..)
        .zip(directories)
        .map(move |(index, directory)| Effect::PartitionCreated { partition: PartitionId { topic, index }, directory: *directory })
}

fn alter(configs: &mut BTreeMap<String, String>, set: BTreeMap<String, String>, remove: &[String]) {
    for key in remove {
        configs.remove(key);
    }
    configs.extend(set);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Request;

    fn create(id: u8, name: &str, partitions: usize) -> Command {
        Command::CreateTopic {
            topic: Uuid([id; 16]),
            name: name.into(),
            directories: vec![Uuid([9; 16]); partitions],
            configs: BTreeMap::new(),
        }
    }

    #[test]
    fn a_topic_is_created_grown_and_deleted() {
        let mut meta = Meta::new();
        let effects = meta.apply(create(1, "a", 2));
        assert_eq!(effects.len(), 3);
        assert_eq!(effects[0], Effect::TopicCreated { topic: Uuid([1; 16]) });
        let more = Command::CreatePartitions { topic: Uuid([1; 16]), first: 2, directories: vec![Uuid([8; 16])] };
        let partition = PartitionId { topic: Uuid([1; 16]), index: 2 };
        assert_eq!(meta.apply(more), [Effect::PartitionCreated { partition, directory: Uuid([8; 16]) }]);
        assert_eq!(meta.topic_named("a").unwrap().partitions(), 3);
        assert_eq!(meta.partitions(), 3);
        assert!(matches!(&meta.apply(Command::DeleteTopic { topic: Uuid([1; 16]) })[..], [Effect::TopicDeleted { .. }]));
        assert_eq!(meta, Meta::new());
    }

    #[test]
    fn what_became_impossible_changes_nothing() {
        let mut meta = Meta::new();
        meta.apply(create(1, "a", 1));
        let before = meta.clone();
        for command in [
            create(2, "a", 1),
            create(1, "b", 1),
            create(3, "c", 0),
            create(3, "c", 100_001),
            Command::DeleteTopic { topic: Uuid([2; 16]) },
            Command::CreatePartitions { topic: Uuid([1; 16]), first: 0, directories: vec![Uuid([9; 16])] },
            Command::CreatePartitions { topic: Uuid([1; 16]), first: 1, directories: vec![] },
            Command::AlterTopicConfigs { topic: Uuid([2; 16]), set: BTreeMap::new(), remove: vec![] },
        ] {
            assert!(matches!(&meta.apply(command.clone())[..], [Effect::Refused { .. }]), "{command:?}");
            assert_eq!(meta, before);
        }
    }

    #[test]
    fn producer_ids_that_were_seen_and_not_handed_out_are_passed_over() {
        let mut meta = Meta::new();
        let mut block = |seen| {
            let command = meta.check(&Request::AllocateProducerIds { count: 1000, seen }).unwrap();
            match meta.apply(command)[..] {
                [Effect::ProducerIdBlock { start, len: 1000 }] => start,
                _ => unreachable!("what was checked is not refused"),
            }
        };
        assert_eq!((block(-1), block(999), block(1999)), (0, 1000, 2000), "all of them were handed out");
        assert_eq!((block(3000), block(3000)), (3000 + (1 << 20), 4000 + (1 << 20)));
        assert_eq!(block(i64::MAX), 5000 + (1 << 20), "a client has made it up");
        assert_eq!(block((1 << 62) - 1), (1 << 62) - 1 + (1 << 20));
        assert!(block(-1) > 1 << 62, "as many again are left");
    }

    #[test]
    fn producer_id_blocks_never_overlap_and_end() {
        let mut meta = Meta::new();
        assert_eq!(
            meta.apply(Command::AllocateProducerIds { count: 1000, at_least: 0 }),
            [Effect::ProducerIdBlock { start: 0, len: 1000 }]
        );
        assert_eq!(
            meta.apply(Command::AllocateProducerIds { count: 1000, at_least: 0 }),
            [Effect::ProducerIdBlock { start: 1000, len: 1000 }]
        );
        meta.producer_id_next = i64::MAX - 5;
        assert_eq!(
            meta.apply(Command::AllocateProducerIds { count: 1000, at_least: 0 }),
            [Effect::Refused { error: MetaError::NoProducerIds }]
        );
    }

    #[test]
    fn cluster_id_is_set_once_and_levels_only_grow() {
        let mut meta = Meta::new();
        meta.apply(Command::SetClusterId { id: Uuid([1; 16]) });
        assert!(matches!(&meta.apply(Command::SetClusterId { id: Uuid([2; 16]) })[..], [Effect::Refused { .. }]));
        assert_eq!(meta.cluster_id(), Some(Uuid([1; 16])));
        meta.apply(Command::SetFeatureLevel { level: 2 });
        assert!(matches!(&meta.apply(Command::SetFeatureLevel { level: 1 })[..], [Effect::Refused { .. }]));
    }

    #[test]
    fn topics_are_listed_by_name() {
        let mut meta = Meta::new();
        for (id, name) in [(3, "a"), (1, "c"), (2, "b")] {
            meta.apply(create(id, name, 1));
        }
        let names: Vec<&str> = meta.topics().map(|topic| topic.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn a_nodes_own_setting_wins_over_every_nodes() {
        let mut meta = Meta::new();
        let set = |value: &str| [("log.retention.ms".to_owned(), value.to_owned())].into();
        meta.apply(Command::AlterNodeConfigs { scope: NodeScope::Every, set: set("1"), remove: vec![] });
        meta.apply(Command::AlterNodeConfigs { scope: NodeScope::One(0), set: set("2"), remove: vec![] });
        meta.apply(create(1, "a", 1));
        let topic = meta.topic_named("a").unwrap();
        assert_eq!(meta.topic_config(topic, 0, &set("3")).retention_ms, Some(2));
        assert_eq!(meta.topic_config(topic, 1, &set("3")).retention_ms, Some(1));
        meta.apply(Command::AlterNodeConfigs { scope: NodeScope::One(0), set: BTreeMap::new(), remove: vec!["log.retention.ms".into()] });
        assert_eq!(meta.node_configs(NodeScope::One(0)).count(), 0);
    }
}
