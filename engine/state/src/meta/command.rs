//! The commands of replica set 0, and their bytes: one protobuf message as the value of one record.
//!
//! The types here are plain; the generated ones stop in this file and in `snapshot`.
//!
//! Invariants: decode(encode(c)) == c; what a newer version wrote is refused, never skipped.
//! Knows nothing of the state that commands act on.

use std::collections::BTreeMap;

use millrace_base::ids::{NodeId, TopicId, Uuid};
use protobuf::Message;

use super::generated as wire;
use wire::command::Body;

/// The newest version that this code writes and reads.
pub const COMMAND_VERSION: u32 = 1;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    pub name: String,
    /// The advertised address.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    pub id: Uuid,
    pub path: String,
}

/// One broker process as it registered last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub id: NodeId,
    pub listeners: Vec<Listener>,
    pub directories: Vec<Directory>,
}

/// Whose settings: every node's default or one node's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NodeScope {
    Every,
    One(NodeId),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Adds the node or replaces what it said before.
    RegisterNode(Node),
    /// `directories[i]` holds partition i.
    CreateTopic {
        topic: TopicId,
        name: String,
        directories: Vec<Uuid>,
        configs: BTreeMap<String, String>,
    },
    DeleteTopic {
        topic: TopicId,
    },
    /// `directories[i]` holds partition `first + i`; `first` is the number of partitions before.
    CreatePartitions {
        topic: TopicId,
        first: u32,
        directories: Vec<Uuid>,
    },
    AlterTopicConfigs {
        topic: TopicId,
        set: BTreeMap<String, String>,
        remove: Vec<String>,
    },
    AlterNodeConfigs {
        scope: NodeScope,
        set: BTreeMap<String, String>,
        remove: Vec<String>,
    },
    AllocateProducerIds {
        count: u32,
        /// The block begins here or above.
        at_least: i64,
    },
    SetFeatureLevel {
        level: u32,
    },
    SetClusterId {
        id: Uuid,
    },
}

/// Why bytes are not a command or a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Not protobuf, or a field cannot be what it is.
    Malformed { what: &'static str },
    /// Written by a newer release.
    Version { found: u32, newest: u32 },
}

impl DecodeError {
    pub fn fault(&self) -> millrace_base::fault::Fault {
        match self {
            DecodeError::Malformed { .. } => millrace_base::fault::Fault::Corrupt,
            DecodeError::Version { .. } => millrace_base::fault::Fault::Broken,
        }
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DecodeError::Malformed { what } => write!(f, "malformed metadata: {what}"),
            DecodeError::Version { found, newest } => {
                write!(f, "metadata of version {found}, and this release reads up to {newest}: start the newer release that wrote it")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

impl Command {
    pub fn encode(&self) -> Vec<u8> {
        let body = match self {
            Command::RegisterNode(node) => Body::RegisterNode(node_to_wire(node)),
            Command::CreateTopic { topic, name, directories, configs } => {
                Body::CreateTopic(topic_to_wire(*topic, name, directories, configs))
            }
            Command::DeleteTopic { topic } => Body::DeleteTopic(wire::DeleteTopic { topic: topic.0.to_vec(), ..Default::default() }),
            Command::CreatePartitions { topic, first, directories } => Body::CreatePartitions(wire::CreatePartitions {
                topic: topic.0.to_vec(),
                placement: placement_to_wire(*first, directories),
                ..Default::default()
            }),
            Command::AlterTopicConfigs { topic, set, remove } => Body::AlterTopicConfigs(wire::AlterTopicConfigs {
                topic: topic.0.to_vec(),
                set: configs_to_wire(set),
                remove: remove.clone(),
                ..Default::default()
            }),
            Command::AlterNodeConfigs { scope, set, remove } => {
                let (every_node, node) = scope_to_wire(*scope);
                let (set, remove) = (configs_to_wire(set), remove.clone());
                Body::AlterNodeConfigs(wire::AlterNodeConfigs { every_node, node, set, remove, ..Default::default() })
            }
            Command::AllocateProducerIds { count, at_least } => {
                Body::AllocateProducerIds(wire::AllocateProducerIds { count: *count, at_least: *at_least, ..Default::default() })
            }
            Command::SetFeatureLevel { level } => Body::SetFeatureLevel(wire::SetFeatureLevel { level: *level, ..Default::default() }),
            Command::SetClusterId { id } => Body::SetClusterId(wire::SetClusterId { id: id.0.to_vec(), ..Default::default() }),
        };
        let message = wire::Command { version: COMMAND_VERSION, body: Some(body), ..Default::default() };
        message.write_to_bytes().expect("a message without required fields always encodes")
    }

    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let message = wire::Command::parse_from_bytes(bytes).map_err(|_| malformed("a command is not protobuf"))?;
        if message.version != COMMAND_VERSION {
            return Err(DecodeError::Version { found: message.version, newest: COMMAND_VERSION });
        }
        Ok(match message.body.ok_or(malformed("a command without a body"))? {
            Body::RegisterNode(node) => Command::RegisterNode(node_from_wire(node)?),
            Body::CreateTopic(topic) => {
                let (topic, name, directories, configs) = topic_from_wire(topic)?;
                Command::CreateTopic { topic, name, directories, configs }
            }
            Body::DeleteTopic(body) => Command::DeleteTopic { topic: uuid_from_wire(&body.topic)? },
            Body::CreatePartitions(body) => {
                let (first, directories) = placement_from_wire(&body.placement)?;
                Command::CreatePartitions { topic: uuid_from_wire(&body.topic)?, first, directories }
            }
            Body::AlterTopicConfigs(body) => {
                Command::AlterTopicConfigs { topic: uuid_from_wire(&body.topic)?, set: configs_from_wire(body.set), remove: body.remove }
            }
            Body::AlterNodeConfigs(body) => Command::AlterNodeConfigs {
                scope: scope_from_wire(body.every_node, body.node),
                set: configs_from_wire(body.set),
                remove: body.remove,
            },
            Body::AllocateProducerIds(body) => Command::AllocateProducerIds { count: body.count, at_least: body.at_least },
            Body::SetFeatureLevel(body) => Command::SetFeatureLevel { level: body.level },
            Body::SetClusterId(body) => Command::SetClusterId { id: uuid_from_wire(&body.id)? },
        })
    }
}

pub(super) fn malformed(what: &'static str) -> DecodeError {
    DecodeError::Malformed { what }
}

pub(super) fn uuid_from_wire(bytes: &[u8]) -> Result<Uuid, DecodeError> {
    bytes.try_into().map(Uuid).map_err(|_| malformed("an identifier is not of 16 bytes"))
}

pub(super) fn configs_to_wire(configs: &BTreeMap<String, String>) -> Vec<wire::Config> {
    let pair = |(key, value): (&String, &String)| wire::Config { key: key.clone(), value: value.clone(), ..Default::default() };
    configs.iter().map(pair).collect()
}

pub(super) fn configs_from_wire(configs: Vec<wire::Config>) -> BTreeMap<String, String> {
    configs.into_iter().map(|config| (config.key, config.value)).collect()
}

pub(super) fn scope_to_wire(scope: NodeScope) -> (bool, NodeId) {
    match scope {
        NodeScope::Every => (true, 0),
        NodeScope::One(node) => (false, node),
    }
}

pub(super) fn scope_from_wire(every_node: bool, node: NodeId) -> NodeScope {
    if every_node { NodeScope::Every } else { NodeScope::One(node) }
}

pub(super) fn node_to_wire(node: &Node) -> wire::RegisterNode {
    let listener = |listener: &Listener| wire::Listener {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: u32::from(listener.port),
        ..Default::default()
    };
    let directory =
        |directory: &Directory| wire::Directory { id: directory.id.0.to_vec(), path: directory.path.clone(), ..Default::default() };
    wire::RegisterNode {
        node: node.id,
        listeners: node.listeners.iter().map(listener).collect(),
        directories: node.directories.iter().map(directory).collect(),
        ..Default::default()
    }
}

pub(super) fn node_from_wire(node: wire::RegisterNode) -> Result<Node, DecodeError> {
    let listener = |listener: wire::Listener| {
        let port = u16::try_from(listener.port).map_err(|_| malformed("a port above 65535"))?;
        Ok(Listener { name: listener.name, host: listener.host, port })
    };
    let directory = |directory: wire::Directory| Ok(Directory { id: uuid_from_wire(&directory.id)?, path: directory.path });
    Ok(Node {
        id: node.node,
        listeners: node.listeners.into_iter().map(listener).collect::<Result<_, _>>()?,
        directories: node.directories.into_iter().map(directory).collect::<Result<_, _>>()?,
    })
}

fn placement_to_wire(first: u32, directories: &[Uuid]) -> protobuf::MessageField<wire::Placement> {
    let directories = directories.iter().flat_map(|id| id.0).collect();
    protobuf::MessageField::some(wire::Placement { first, directories, ..Default::default() })
}

fn placement_from_wire(placement: &wire::Placement) -> Result<(u32, Vec<Uuid>), DecodeError> {
    let (ids, rest) = placement.directories.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(malformed("a placement is not of whole identifiers"));
    }
    Ok((placement.first, ids.iter().copied().map(Uuid).collect()))
}

pub(super) fn topic_to_wire(id: TopicId, name: &str, directories: &[Uuid], configs: &BTreeMap<String, String>) -> wire::CreateTopic {
    wire::CreateTopic {
        topic: id.0.to_vec(),
        name: name.to_owned(),
        placement: placement_to_wire(0, directories),
        configs: configs_to_wire(configs),
        ..Default::default()
    }
}

type TopicParts = (TopicId, String, Vec<Uuid>, BTreeMap<String, String>);

pub(super) fn topic_from_wire(topic: wire::CreateTopic) -> Result<TopicParts, DecodeError> {
    let (first, directories) = placement_from_wire(&topic.placement)?;
    if first != 0 {
        return Err(malformed("a new topic's partitions do not begin at 0"));
    }
    Ok((uuid_from_wire(&topic.topic)?, topic.name, directories, configs_from_wire(topic.configs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::prng::Prng;

    fn samples() -> Vec<Command> {
        let topic = Uuid([7; 16]);
        let configs: BTreeMap<String, String> = [("retention.ms".to_owned(), "1".to_owned())].into();
        let node = Node {
            id: 3,
            listeners: vec![Listener { name: "PLAINTEXT".into(), host: "::1".into(), port: 9092 }],
            directories: vec![Directory { id: Uuid([9; 16]), path: "/data".into() }],
        };
        vec![
            Command::RegisterNode(node),
            Command::CreateTopic { topic, name: "t".into(), directories: vec![Uuid([9; 16]); 3], configs: configs.clone() },
            Command::DeleteTopic { topic },
            Command::CreatePartitions { topic, first: 3, directories: vec![Uuid([8; 16])] },
            Command::AlterTopicConfigs { topic, set: configs.clone(), remove: vec!["segment.ms".into()] },
            Command::AlterNodeConfigs { scope: NodeScope::Every, set: configs.clone(), remove: vec![] },
            Command::AlterNodeConfigs { scope: NodeScope::One(0), set: configs, remove: vec![] },
            Command::AllocateProducerIds { count: 1000, at_least: 0 },
            Command::AllocateProducerIds { count: 1000, at_least: 1 << 40 },
            Command::SetFeatureLevel { level: 1 },
            Command::SetClusterId { id: topic },
        ]
    }

    #[test]
    fn every_command_round_trips() {
        for command in samples() {
            assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
    }

    #[test]
    fn bytes_of_a_command_are_these() {
        let bytes = Command::AllocateProducerIds { count: 1000, at_least: 0 }.encode();
        assert_eq!(bytes, [0x08, 1, 0x42, 3, 0x08, 0xe8, 0x07]);
    }

    #[test]
    fn a_newer_version_is_refused_and_not_skipped() {
        let newer = wire::Command { version: 2, ..Default::default() }.write_to_bytes().unwrap();
        assert_eq!(Command::decode(&newer), Err(DecodeError::Version { found: 2, newest: 1 }));
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let mut prng = Prng::new(5);
        for command in samples() {
            let bytes = command.encode();
            for cut in 0..bytes.len() {
                let _ = Command::decode(&bytes[..cut]);
            }
            for _ in 0..200 {
                let mut bytes = bytes.clone();
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] = prng.next_u64() as u8;
                let _ = Command::decode(&bytes);
            }
        }
    }
}
