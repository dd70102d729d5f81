//! The whole state of replica set 0 as one protobuf message, so that its log can be cut.
//!
//! Invariants: restore(snapshot(m)) == m; equal states give equal bytes.
//! Knows nothing of where snapshots are kept; whoever writes them adds a checksum.

use protobuf::Message;

use super::command::{
    DecodeError, configs_from_wire, configs_to_wire, malformed, node_from_wire, node_to_wire, scope_from_wire, scope_to_wire,
    topic_from_wire, topic_to_wire, uuid_from_wire,
};
use super::generated as wire;
use super::machine::{Meta, Topic};

/// The newest version that this code writes and reads.
pub const SNAPSHOT_VERSION: u32 = 1;

impl Meta {
    pub fn snapshot(&self) -> Vec<u8> {
        let node_configs = |(scope, configs): (&super::NodeScope, &std::collections::BTreeMap<String, String>)| {
            let (every_node, node) = scope_to_wire(*scope);
            wire::NodeConfigs { every_node, node, configs: configs_to_wire(configs), ..Default::default() }
        };
        let state = wire::State {
            version: SNAPSHOT_VERSION,
            cluster_id: self.cluster_id.map(|id| id.0.to_vec()).unwrap_or_default(),
            feature_level: self.feature_level,
            producer_id_next: self.producer_id_next,
            nodes: self.nodes.values().map(node_to_wire).collect(),
            topics: self.topics.values().map(|topic| topic_to_wire(topic.id, &topic.name, &topic.directories, &topic.configs)).collect(),
            node_configs: self.node_configs.iter().map(node_configs).collect(),
            ..Default::default()
        };
        state.write_to_bytes().expect("a message without required fields always encodes")
    }

    pub fn restore(bytes: &[u8]) -> Result<Meta, DecodeError> {
        let state = wire::State::parse_from_bytes(bytes).map_err(|_| malformed("a snapshot is not protobuf"))?;
        if state.version != SNAPSHOT_VERSION {
            return Err(DecodeError::Version { found: state.version, newest: SNAPSHOT_VERSION });
        }
        let mut meta = Meta { feature_level: state.feature_level, producer_id_next: state.producer_id_next, ..Meta::default() };
        if state.producer_id_next < 0 {
            return Err(malformed("a negative producer id"));
        }
        if !state.cluster_id.is_empty() {
            meta.cluster_id = Some(uuid_from_wire(&state.cluster_id)?);
        }
        for node in state.nodes {
            let node = node_from_wire(node)?;
            meta.nodes.insert(node.id, node);
        }
        for topic in state.topics {
            let (id, name, directories, configs) = topic_from_wire(topic)?;
            let topic = Topic { id, name, directories, configs };
            meta.create_topic(topic).map_err(|_| malformed("topics that cannot be together"))?;
        }
        for configs in state.node_configs {
            let scope = scope_from_wire(configs.every_node, configs.node);
            meta.node_configs.insert(scope, configs_from_wire(configs.configs));
        }
        Ok(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Directory, Listener, Node, NodeScope};
    use super::*;
    use millrace_base::ids::Uuid;
    use millrace_base::prng::Prng;

    fn walk(seed: u64) -> Meta {
        let mut prng = Prng::new(seed);
        let mut meta = Meta::new();
        for _ in 0..200 {
            let topic = Uuid([prng.below(20) as u8; 16]);
            let configs = [(format!("k{}", prng.below(4)), prng.below(9).to_string())].into();
            let directories = vec![Uuid([prng.below(3) as u8; 16]); prng.below(4) as usize];
            meta.apply(match prng.below(9) {
                0 => Command::RegisterNode(Node {
                    id: prng.below(3) as i32,
                    listeners: vec![Listener { name: "A".into(), host: "h".into(), port: 1 }],
                    directories: vec![Directory { id: topic, path: "/".into() }],
                }),
                1 | 2 => Command::CreateTopic { topic, name: format!("t{}", prng.below(20)), directories, configs },
                3 => Command::DeleteTopic { topic },
                4 => Command::CreatePartitions { topic, first: prng.below(3) as u32, directories },
                5 => Command::AlterTopicConfigs { topic, set: configs, remove: vec![format!("k{}", prng.below(4))] },
                6 => Command::AlterNodeConfigs { scope: NodeScope::One(prng.below(3) as i32), set: configs, remove: vec![] },
                7 => Command::AllocateProducerIds { count: 1000, at_least: 0 },
                _ => Command::SetClusterId { id: topic },
            });
            let counted: usize = meta.topics().map(|topic| topic.directories.len()).sum();
            assert_eq!(counted, meta.partitions());
            assert_eq!(meta.topics.len(), meta.names.len());
        }
        meta
    }

    #[test]
    fn restore_gives_the_state_that_was_snapshot() {
        for seed in 0..50 {
            let meta = walk(seed);
            let bytes = meta.snapshot();
            assert_eq!(Meta::restore(&bytes).as_ref(), Ok(&meta), "seed {seed}");
            assert_eq!(walk(seed).snapshot(), bytes, "seed {seed}");
        }
        assert_eq!(Meta::restore(&Meta::new().snapshot()), Ok(Meta::new()));
    }

    #[test]
    fn damaged_snapshots_never_panic() {
        let bytes = walk(1).snapshot();
        let mut prng = Prng::new(2);
        for cut in 0..bytes.len() {
            let _ = Meta::restore(&bytes[..cut]);
        }
        for _ in 0..2000 {
            let mut bytes = bytes.clone();
            let at = prng.below(bytes.len() as u64) as usize;
            bytes[at] = prng.next_u64() as u8;
            let _ = Meta::restore(&bytes);
        }
        assert!(matches!(Meta::restore(&[]), Err(DecodeError::Version { found: 0, .. })));
    }
}
