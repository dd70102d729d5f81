//! What a client asks of replica set 0, and its check against the state: a command to propose, or an error that says why not.
//!
//! The leader checks before it proposes. Placement happens here: each new partition goes to the data directory, among those the caller
//! says are live, that holds the fewest partitions; ties go to the earlier one in the caller's order.
//!
//! Invariants: a command from `check` applied to the same state is never refused.
//! Knows nothing of the wire, of broker settings other than defaults of topics, or of who asks.

use std::collections::{BTreeMap, BTreeSet};

use millrace_base::ids::{NodeId, TopicId, Uuid};
use millrace_base::limits::TOPIC_PARTITIONS_MAX;

use super::command::{Command, Node, NodeScope};
use super::error::MetaError;
use super::machine::{Meta, NODE_CONFIGS_MAX, NODES_MAX, Topic};
use super::topic_configs::{self, Kind, VALUE_BYTES_MAX, clip, list};
use super::topic_name;

const LISTENERS_MAX: usize = 64;
const DIRECTORIES_MAX: usize = 1_024;
const NODE_TEXT_BYTES_MAX: usize = 4_096;
/// Ids that are passed over where it cannot be told which were handed out: a thousand blocks.
const PRODUCER_IDS_PASSED_OVER: i64 = 1 << 20;
/// Ids from here on are no node's: a client that makes some up does not use up those that are left.
const PRODUCER_ID_SEEN_MAX: i64 = 1 << 62;
/// Changes in one request to alter settings.
const CHANGES_MAX: usize = 10_000;

/// How many partitions, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Layout {
    /// -1 means the default, in either.
    Count { partitions: i32, replication_factor: i16 },
    /// The nodes of each partition, by index.
    Assigned(BTreeMap<i32, Vec<NodeId>>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigChange {
    Set(String),
    /// Back to the default.
    Delete,
    /// Adds the items to a list.
    Append(String),
    /// Takes the items off a list.
    Subtract(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigChanges {
    /// What is not named stays (IncrementalAlterConfigs). A key may be named once.
    Incremental(Vec<(String, ConfigChange)>),
    /// What is not named goes back to its default (AlterConfigs).
    Replace(BTreeMap<String, String>),
}

/// Where partitions may be placed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Live {
    /// Usable data directories of this cluster, in order of preference.
    pub directories: Vec<Uuid>,
    /// Partitions that each may hold: what the reserves of its journals do for.
    pub partitions_max: usize,
}

/// What is asked of the controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    RegisterNode(Node),
    CreateTopic {
        /// Fresh and random.
        topic: TopicId,
        name: String,
        layout: Layout,
        /// `num.partitions` and `default.replication.factor`.
        default_partitions: u32,
        default_replication_factor: u16,
        configs: BTreeMap<String, String>,
        live: Live,
        /// The broker itself asks; only then may the name be an internal topic's.
        internal: bool,
    },
    DeleteTopic {
        topic: TopicId,
    },
    CreatePartitions {
        name: String,
        /// The total afterwards.
        total: i32,
        /// The nodes of each new partition, or empty.
        assigned: Vec<Vec<NodeId>>,
        live: Live,
    },
    AlterTopicConfigs {
        name: String,
        changes: ConfigChanges,
    },
    /// Values of settings that are no topic's default must have passed the table of broker settings already.
    AlterNodeConfigs {
        scope: NodeScope,
        changes: ConfigChanges,
    },
    AllocateProducerIds {
        count: u32,
        /// The largest id that any partition has seen a batch of, as far as the node knows; -1: none.
        seen: i64,
    },
    SetFeatureLevel {
        level: u32,
    },
    SetClusterId {
        id: Uuid,
    },
}

impl Meta {
    /// The command to propose. Changes nothing, so it also serves validate-only requests.
    pub fn check(&self, request: &Request) -> Result<Command, MetaError> {
        match request {
            Request::RegisterNode(node) => self.check_node(node),
            Request::CreateTopic { .. } => self.check_create_topic(request),
            Request::DeleteTopic { topic } => {
                let found = self.topic(*topic).ok_or(MetaError::UnknownTopicId { id: *topic })?;
                refuse_internal(&found.name)?;
                Ok(Command::DeleteTopic { topic: *topic })
            }
            Request::CreatePartitions { name, total, assigned, live } => self.check_create_partitions(name, *total, assigned, live),
            Request::AlterTopicConfigs { name, changes } => self.check_topic_configs(name, changes),
            Request::AlterNodeConfigs { scope, changes } => self.check_node_configs(*scope, changes),
            Request::AllocateProducerIds { count, seen } => {
                let at_least = self.producer_ids_above(*seen);
                at_least.checked_add(i64::from(*count)).ok_or(MetaError::NoProducerIds)?;
                Ok(Command::AllocateProducerIds { count: *count, at_least })
            }
            Request::SetFeatureLevel { level } if *level < self.feature_level => {
                Err(MetaError::FeatureLevel { current: self.feature_level, asked: *level })
            }
            Request::SetFeatureLevel { level } => Ok(Command::SetFeatureLevel { level: *level }),
            Request::SetClusterId { id } => match self.cluster_id {
                Some(id) => Err(MetaError::ClusterIdSet { id }),
                None => Ok(Command::SetClusterId { id: *id }),
            },
        }
    }

    /// Where the next block begins. An id that was seen and not handed out tells that blocks were given up as lost (or that a client made it
    /// up): what was handed out behind the last one seen is passed over too. An id twice would make one producer's batch the other's duplicate.
    fn producer_ids_above(&self, seen: i64) -> i64 {
        if (self.producer_id_next..PRODUCER_ID_SEEN_MAX).contains(&seen) { seen + PRODUCER_IDS_PASSED_OVER } else { self.producer_id_next }
    }

    fn check_node(&self, node: &Node) -> Result<Command, MetaError> {
        let invalid = |why: String| Err(MetaError::InvalidNode { why });
        if node.id < 0 {
            return invalid(format!("node.id {} is negative", node.id));
        }
        if node.directories.is_empty() || node.directories.len() > DIRECTORIES_MAX || node.listeners.len() > LISTENERS_MAX {
            return invalid(format!("it needs 1 to {DIRECTORIES_MAX} data directories and at most {LISTENERS_MAX} listeners"));
        }
        let texts = node.listeners.iter().flat_map(|listener| [&listener.name, &listener.host]);
        if texts.chain(node.directories.iter().map(|directory| &directory.path)).any(|text| text.len() > NODE_TEXT_BYTES_MAX) {
            return invalid(format!("a name, host or path is longer than {NODE_TEXT_BYTES_MAX} bytes"));
        }
        let mut ids = BTreeSet::new();
        for directory in &node.directories {
            if !ids.insert(directory.id) {
                return invalid(format!("data directory {} is listed twice", directory.id));
            }
            if let Some(owner) = self.node_of_directory(directory.id).filter(|owner| owner.id != node.id) {
                return invalid(format!("data directory {} belongs to node {}", directory.id, owner.id));
            }
        }
        if !self.nodes.contains_key(&node.id) && self.nodes.len() >= NODES_MAX {
            return Err(MetaError::TooMany { what: "nodes", limit: NODES_MAX });
        }
        Ok(Command::RegisterNode(node.clone()))
    }

    fn check_create_topic(&self, request: &Request) -> Result<Command, MetaError> {
        let Request::CreateTopic { topic, name, layout, default_partitions, default_replication_factor, configs, live, internal } = request
        else {
            unreachable!("the caller matched this variant");
        };
        if let Some(why) = topic_name::fault(name) {
            return Err(MetaError::InvalidTopicName { name: clip(name), why });
        }
        if self.topic_named(name).is_some() || self.topic(*topic).is_some() {
            return Err(MetaError::TopicExists { name: name.clone() });
        }
        if self.names_in_metrics.contains(&topic_name::in_metrics(name)) {
            let why = "a topic exists whose name differs from it in '.' and '_' only: they would be one in metrics";
            return Err(MetaError::InvalidTopicName { name: clip(name), why });
        }
        if !internal {
            refuse_internal(name)?;
        }
        check_topic_configs(name, configs)?;
        let directories = match layout {
            Layout::Count { partitions, replication_factor } => {
                let count = if *partitions == -1 { i64::from(*default_partitions) } else { i64::from(*partitions) };
                let factor =
                    if *replication_factor == -1 { i32::from(*default_replication_factor) } else { i32::from(*replication_factor) };
                self.check_replication_factor(factor)?;
                let count = usize::try_from(count).unwrap_or(0);
                self.check_room(0, count)?;
                self.place(&vec![None; count], live)?
            }
            Layout::Assigned(assigned) => {
                let mut nodes = Vec::new();
                for (expected, (index, replicas)) in (0..).zip(assigned) {
                    if *index != expected {
                        return Err(MetaError::InvalidAssignment { why: format!("partition {expected} is missing") });
                    }
                    nodes.push(Some(self.check_assigned(*index, replicas)?));
                }
                self.check_room(0, nodes.len())?;
                self.place(&nodes, live)?
            }
        };
        Ok(Command::CreateTopic { topic: *topic, name: name.clone(), directories, configs: configs.clone() })
    }

    /// Until partitions have several replicas the only factor is 1.
    fn check_replication_factor(&self, factor: i32) -> Result<(), MetaError> {
        let nodes = self.nodes.len();
        if factor < 1 || usize::try_from(factor).is_ok_and(|factor| factor > nodes) {
            return Err(MetaError::InvalidReplicationFactor { asked: factor, nodes });
        }
        if factor > 1 {
            return Err(MetaError::InvalidAssignment { why: format!("replication factor {factor}: partitions have one replica so far") });
        }
        Ok(())
    }

    fn check_assigned(&self, index: i32, replicas: &[NodeId]) -> Result<NodeId, MetaError> {
        for node in replicas {
            if !self.nodes.contains_key(node) {
                return Err(MetaError::InvalidAssignment { why: format!("partition {index} names node {node}, which is not registered") });
            }
        }
        match replicas {
            [node] => Ok(*node),
            _ => Err(MetaError::InvalidAssignment { why: format!("partition {index} names {} nodes and must name one", replicas.len()) }),
        }
    }

    /// A directory for each partition to place; `Some(node)` binds it to that node.
    fn place(&self, wanted: &[Option<NodeId>], live: &Live) -> Result<Vec<Uuid>, MetaError> {
        let mut homes: Vec<(NodeId, Uuid, usize)> = Vec::new();
        let mut rank = BTreeMap::new();
        for id in &live.directories {
            let node = self.node_of_directory(*id).ok_or(MetaError::UnknownDirectory { id: *id })?;
            rank.insert(*id, homes.len());
            homes.push((node.id, *id, 0));
        }
        for directory in self.topics.values().flat_map(|topic| &topic.directories) {
            if let Some(index) = rank.get(directory) {
                homes[*index].2 += 1;
            }
        }
        // A heap for each choice would be more code; the number of live directories is small.
        let mut placed = Vec::with_capacity(wanted.len());
        for node in wanted {
            let candidates = homes.iter_mut().filter(|home| node.is_none_or(|node| node == home.0));
            let home = candidates.min_by_key(|home| home.2).ok_or(MetaError::NoDirectory)?;
            if home.2 >= live.partitions_max {
                return Err(MetaError::DirectoryPartitions { limit: live.partitions_max });
            }
            home.2 += 1;
            placed.push(home.1);
        }
        Ok(placed)
    }

    fn topic_to_alter(&self, name: &str) -> Result<&Topic, MetaError> {
        self.topic_named(name).ok_or_else(|| MetaError::UnknownTopicName { name: clip(name) })
    }

    fn check_create_partitions(&self, name: &str, total: i32, assigned: &[Vec<NodeId>], live: &Live) -> Result<Command, MetaError> {
        let topic = self.topic_to_alter(name)?;
        refuse_internal(name)?;
        let present = topic.directories.len();
        let Some(more) = usize::try_from(total)
            .ok()
            .filter(|total| *total <= TOPIC_PARTITIONS_MAX as usize)
            .and_then(|total| total.checked_sub(present))
        else {
            let why = format!("topic '{name}' has {present} partitions; {total} is not between that and {TOPIC_PARTITIONS_MAX}");
            return Err(MetaError::InvalidPartitions { why });
        };
        if more == 0 {
            return Err(MetaError::InvalidPartitions { why: format!("topic '{name}' already has {present} partitions") });
        }
        self.check_room(present, more)?;
        let nodes = if assigned.is_empty() {
            vec![None; more]
        } else if assigned.len() == more {
            let check = |(index, replicas): (i32, &Vec<NodeId>)| self.check_assigned(index, replicas).map(Some);
            (i32::try_from(present).unwrap_or(0)..).zip(assigned).map(check).collect::<Result<_, _>>()?
        } else {
            return Err(MetaError::InvalidAssignment { why: format!("{more} new partitions, but {} assignments", assigned.len()) });
        };
        Ok(Command::CreatePartitions { topic: topic.id, first: topic.partitions(), directories: self.place(&nodes, live)? })
    }

    fn check_topic_configs(&self, name: &str, changes: &ConfigChanges) -> Result<Command, MetaError> {
        let topic = self.topic_to_alter(name)?;
        let list_default = |key: &str| {
            let row = topic_configs::row(key).ok_or_else(|| MetaError::UnknownConfig { key: clip(key) })?;
            Ok((row.kind == Kind::List).then(|| row.default.to_owned()))
        };
        let (set, remove) = resolve(&topic.configs, changes, list_default)?;
        let mut after = topic.configs.clone();
        remove.iter().for_each(|key| drop(after.remove(key)));
        after.extend(set.clone());
        check_topic_configs(name, &after)?;
        Ok(Command::AlterTopicConfigs { topic: topic.id, set, remove })
    }

    fn check_node_configs(&self, scope: NodeScope, changes: &ConfigChanges) -> Result<Command, MetaError> {
        if let NodeScope::One(node) = scope
            && !self.nodes.contains_key(&node)
        {
            return Err(MetaError::UnknownNode { node });
        }
        let present = self.node_configs.get(&scope).cloned().unwrap_or_default();
        let (set, remove) = resolve(&present, changes, |_| Ok(Some(String::new())))?;
        for (key, value) in &set {
            let too_long = key.is_empty() || key.len() > 256 || value.len() > VALUE_BYTES_MAX;
            if too_long {
                let allowed = format!("a name of 1 to 256 bytes and a value of at most {VALUE_BYTES_MAX}");
                return Err(MetaError::InvalidConfig { key: clip(key), value: clip(value), allowed });
            }
            if topic_configs::row_of_broker_setting(key).is_some() {
                topic_configs::check_broker_setting(key, value)?;
            }
        }
        if present.len() + set.len() > NODE_CONFIGS_MAX {
            return Err(MetaError::TooMany { what: "settings of a node", limit: NODE_CONFIGS_MAX });
        }
        Ok(Command::AlterNodeConfigs { scope, set, remove })
    }
}

fn refuse_internal(name: &str) -> Result<(), MetaError> {
    if topic_name::is_internal(name) {
        return Err(MetaError::InternalTopic { name: name.to_owned() });
    }
    Ok(())
}

fn check_topic_configs(name: &str, configs: &BTreeMap<String, String>) -> Result<(), MetaError> {
    for (key, value) in configs {
        topic_configs::check(key, value)?;
        if key == "write.caching" && value.trim().eq_ignore_ascii_case("true") {
            refuse_internal(name)?;
        }
    }
    Ok(topic_configs::check_together(configs, &BTreeMap::new())?)
}

/// Changes as what to set and what to remove. `list_default`: a list setting's default, None for a setting that is no list.
fn resolve(
    present: &BTreeMap<String, String>,
    changes: &ConfigChanges,
    list_default: impl Fn(&str) -> Result<Option<String>, MetaError>,
) -> Result<(BTreeMap<String, String>, Vec<String>), MetaError> {
    let (mut set, mut remove) = (BTreeMap::new(), Vec::new());
    match changes {
        ConfigChanges::Replace(all) => {
            set.extend(all.clone());
            remove.extend(present.keys().filter(|key| !all.contains_key(*key)).cloned());
        }
        ConfigChanges::Incremental(changes) => {
            if changes.len() > CHANGES_MAX {
                return Err(MetaError::TooMany { what: "changes in one request", limit: CHANGES_MAX });
            }
            let mut seen = BTreeSet::new();
            for (key, change) in changes {
                let invalid =
                    |allowed: &str| Err(MetaError::InvalidConfig { key: clip(key), value: String::new(), allowed: allowed.to_owned() });
                if !seen.insert(key) {
                    return invalid("a setting may be named once in a request");
                }
                if let ConfigChange::Append(items) | ConfigChange::Subtract(items) = change
                    && items.len() > VALUE_BYTES_MAX
                {
                    return invalid(&format!("at most {VALUE_BYTES_MAX} bytes"));
                }
                let default = list_default(key)?;
                let now = || default.clone().map(|default| present.get(key).cloned().unwrap_or(default));
                match change {
                    ConfigChange::Set(value) => drop(set.insert(key.clone(), value.clone())),
                    ConfigChange::Delete => remove.push(key.clone()),
                    ConfigChange::Append(items) => match now() {
                        Some(now) => drop(set.insert(key.clone(), appended(&now, items))),
                        None => return invalid("append is for lists only"),
                    },
                    ConfigChange::Subtract(items) => match now() {
                        Some(now) => drop(set.insert(key.clone(), subtracted(&now, items))),
                        None => return invalid("subtract is for lists only"),
                    },
                }
            }
        }
    }
    Ok((set, remove))
}

fn appended(now: &str, items: &str) -> String {
    let mut all: Vec<&str> = list(now).filter(|item| !item.is_empty()).collect();
    let mut seen: BTreeSet<&str> = all.iter().copied().collect();
    all.extend(list(items).filter(|item| seen.insert(*item)));
    all.join(",")
}

fn subtracted(now: &str, items: &str) -> String {
    let taken: BTreeSet<&str> = list(items).collect();
    list(now).filter(|item| !taken.contains(item)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
