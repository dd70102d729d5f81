//! What handlers may know and ask of the engine: the part of [`Cx`] that is not about connections, as a trait that tests can stand in for.
//!
//! Knows nothing of connections, frames or Kafka.

use millrace_base::clock::Nanos;
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::settings::Settings;
use millrace_shard::api::{DataDirectory, Leadership, NodeFacts, Request};
use millrace_shard::front::Cx;
use millrace_shard::state::meta::Meta;

/// The engine as one handler sees it during one call. What it lends lives as long as the call (`'a`).
pub trait Engine<'a> {
    fn now(&self) -> Nanos;
    fn shard(&self) -> ShardId;
    fn facts(&self) -> &'a NodeFacts;
    fn settings(&self) -> &'a Settings;
    fn meta(&self) -> &'a Meta;
    fn leader(&self, partition: PartitionId) -> Option<Leadership>;
    /// The data directories of this node.
    fn directories(&mut self) -> Vec<DataDirectory>;
    fn submit(&mut self, to: ShardId, token: u64, request: Request);
    fn entropy(&mut self) -> u64;
}

impl<'a> Engine<'a> for Cx<'a> {
    fn now(&self) -> Nanos {
        self.now
    }

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn facts(&self) -> &'a NodeFacts {
        self.facts
    }

    fn settings(&self) -> &'a Settings {
        self.settings
    }

    fn meta(&self) -> &'a Meta {
        self.meta
    }

    fn leader(&self, partition: PartitionId) -> Option<Leadership> {
        Cx::leader(self, partition)
    }

    fn directories(&mut self) -> Vec<DataDirectory> {
        Cx::directories(self)
    }

    fn submit(&mut self, to: ShardId, token: u64, request: Request) {
        Cx::submit(self, to, token, request);
    }

    fn entropy(&mut self) -> u64 {
        Cx::entropy(self)
    }
}
