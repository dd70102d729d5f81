//! The node as one: what its shards told at one look, and what follows from all of them together.

use millrace_base::ids::{NodeId, ShardId};
use millrace_base::offset::Offset;
use millrace_shard::observe::{GroupFacts, Observer, RequestCounters, Snapshot};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What never changes while the node runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    pub node: NodeId,
    pub version: String,
}

/// What is seen of the process and the machine at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Machine {
    pub uptime: Duration,
    /// Of all threads.
    pub cpu: Duration,
    pub resident_bytes: u64,
    pub open_files: u64,
    pub open_files_max: u64,
    /// Of each data directory's file system: path, bytes in all, bytes free for the node.
    pub disks: Vec<(String, u64, u64)>,
}

/// What was found.
pub struct Look {
    pub shards: Vec<Arc<Snapshot>>,
    /// Shards that did not answer.
    pub silent: Vec<ShardId>,
    pub machine: Machine,
}

/// A group's offset of one partition, and how far behind it the partition's end is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lag<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub partition: u32,
    pub committed: Offset,
    /// None: no such partition is known here.
    pub lag: Option<u64>,
}

impl Look {
    pub fn at(observers: &[Observer], wait: Duration, machine: Machine) -> Look {
        let (mut shards, mut silent) = (Vec::new(), Vec::new());
        for observer in observers {
            match observer.look(wait) {
                Some(snapshot) => shards.push(snapshot),
                None => silent.push(observer.shard()),
            }
        }
        Look { shards, silent, machine }
    }

    /// Why requests cannot be served.
    pub fn not_ready(&self) -> Option<String> {
        if !self.silent.is_empty() {
            return Some(silence(&self.silent));
        }
        if self.shards.is_empty() || self.shards.iter().any(|shard| !shard.is_open) {
            return Some("the node is starting or stopping".to_owned());
        }
        let failed = self.shards.iter().flat_map(|shard| &shard.directories).find(|directory| directory.is_failed);
        failed.map(|directory| format!("data directory {} has failed; its partitions are offline", directory.path))
    }

    /// The lag of every committed offset.
    pub fn lags(&self) -> Vec<Lag<'_>> {
        let partitions = self.shards.iter().flat_map(|shard| &shard.partitions);
        let ends: BTreeMap<(&str, u32), Offset> =
            partitions.filter_map(|found| Some(((found.topic.as_deref()?, found.index), found.high_watermark))).collect();
        let groups = self.shards.iter().flat_map(|shard| &shard.groups);
        groups.flat_map(|group| lags_of(group, &ends)).collect()
    }

    /// Requests by their name, of all shards together.
    pub fn requests(&self) -> Vec<RequestCounters> {
        let mut all: BTreeMap<&'static str, RequestCounters> = BTreeMap::new();
        for one in self.shards.iter().flat_map(|shard| &shard.requests) {
            let Some(sum) = all.get_mut(one.name) else {
                all.insert(one.name, one.clone());
                continue;
            };
            sum.request_bytes += one.request_bytes;
            sum.response_bytes += one.response_bytes;
            sum.latency.merge(&one.latency);
            for (error, count) in &one.errors {
                match sum.errors.iter_mut().find(|(name, _)| name == error) {
                    Some((_, known)) => *known += count,
                    None => sum.errors.push((error, *count)),
                }
            }
        }
        all.into_values().collect()
    }
}

fn lags_of<'a>(group: &'a GroupFacts, ends: &BTreeMap<(&str, u32), Offset>) -> Vec<Lag<'a>> {
    let lag = |(topic, partition, committed): &'a (String, u32, Offset)| {
        let end = ends.get(&(topic.as_str(), *partition)).copied();
        let lag = end.map(|end| end.saturating_sub(*committed).max(0).unsigned_abs());
        Lag { group: &group.group, topic, partition: *partition, committed: *committed, lag }
    };
    group.offsets.iter().map(lag).collect()
}

/// Which shards do not answer.
pub fn silence(shards: &[ShardId]) -> String {
    let names: Vec<String> = shards.iter().map(ToString::to_string).collect();
    format!("shard {} does not answer", names.join(", "))
}
