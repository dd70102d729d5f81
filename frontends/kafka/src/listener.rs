//! Where clients are told to connect: each node's advertised addresses, by the listener on which the client came in.
//!
//! Knows nothing of what is bound where.

use millrace_base::ids::NodeId;
use millrace_shard::state::meta::Meta;

/// One listener of this node as it is advertised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertised {
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// A node as clients of one listener see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeAddress<'a> {
    pub node: NodeId,
    pub host: &'a str,
    pub port: u16,
}

/// This node's listeners, in the order of their index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listeners(pub Vec<Advertised>);

impl Listeners {
    /// Every node that has a listener of this name, by ascending id. This node is among them even before it has registered.
    pub fn nodes<'s>(&'s self, meta: &'s Meta, here: NodeId, listener: usize) -> Vec<NodeAddress<'s>> {
        let Some(own) = self.0.get(listener) else { return Vec::new() };
        let mut nodes = vec![NodeAddress { node: here, host: &own.host, port: own.port }];
        for node in meta.nodes().filter(|node| node.id != here) {
            if let Some(same) = node.listeners.iter().find(|other| other.name == own.name) {
                nodes.push(NodeAddress { node: node.id, host: &same.host, port: same.port });
            }
        }
        nodes.sort_by_key(|node| node.node);
        nodes
    }

    /// One node, if it has a listener of this name.
    pub fn node<'s>(&'s self, meta: &'s Meta, here: NodeId, listener: usize, wanted: NodeId) -> Option<NodeAddress<'s>> {
        self.nodes(meta, here, listener).into_iter().find(|node| node.node == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::ids::Uuid;
    use millrace_shard::state::meta::{Command, Directory, Listener, Node};

    #[test]
    fn clients_are_told_the_listener_of_the_name_they_came_in_on() {
        let mut meta = Meta::new();
        let listener = |name: &str, port| Listener { name: name.into(), host: format!("n2-{name}"), port };
        meta.apply(Command::RegisterNode(Node {
            id: 2,
            listeners: vec![listener("OUT", 7), listener("IN", 8)],
            directories: vec![Directory { id: Uuid([1; 16]), path: "d".into() }],
        }));
        let own = |name: &str, port| Advertised { name: name.into(), host: "here".into(), port };
        let listeners = Listeners(vec![own("IN", 1), own("OUT", 2), own("ALONE", 3)]);
        let seen = |at: usize| listeners.nodes(&meta, 3, at).iter().map(|n| (n.node, n.port)).collect::<Vec<_>>();
        assert_eq!(seen(0), [(2, 8), (3, 1)]);
        assert_eq!(seen(1), [(2, 7), (3, 2)]);
        assert_eq!(seen(2), [(3, 3)]);
        assert_eq!(seen(9), []);
    }
}
