//! What a shard tells of itself to who asks from another thread.
//!
//! 1. Counters are plain numbers of the shard's own thread, kept where the work is done ([`Histogram`], [`Traffic`] and others).
//! 2. An [`Observer`] asks, and rings the shard; at the end of a turn the shard answers with a [`Snapshot`], a copy of all of them,
//!    which all who have asked by then share.
//!
//! Invariants: a shard that nobody asks pays for the counting alone; one that does not answer in time is told of, not waited for.
//! Knows nothing of how it is shown.

use crate::front::Front;
use crate::net::Net;
use crate::partition::{Partition, Standing};
use crate::{directory::Directory, engine::Engine};
use millrace_base::ids::ShardId;
use millrace_base::offset::Offset;
use millrace_io::Doorbell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Upper bounds of the classes of a [`Histogram`], in nanoseconds; what is longer is in one more class.
pub const BOUNDS_NS: [u64; 18] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// How many took how long, since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    /// Not cumulative.
    pub counts: [u64; BOUNDS_NS.len() + 1],
    pub sum_ns: u64,
}

impl Histogram {
    pub fn add(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_NS.partition_point(|bound| *bound < ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What came and went through sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    pub connections_accepted: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// What was appended to and read from a partition since the start, by clients or the broker itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartitionTraffic {
    pub produced_records: u64,
    pub produced_bytes: u64,
    pub fetched_bytes: u64,
}

/// Entries of a journal since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EntryCounters {
    pub entries: u64,
    pub bytes: u64,
    /// From the seal of an entry until it is durable.
    pub latency: Histogram,
}

/// Requests of one kind that a front has answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestCounters {
    pub name: &'static str,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// From when it had come whole until it was answered: what it waited behind others of its connection is in it.
    pub latency: Histogram,
    /// Partitions, or whole requests, that were answered with an error, by its name.
    pub errors: Vec<(&'static str, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionFacts {
    /// None for replica set 0.
    pub topic: Option<String>,
    pub index: u32,
    /// `serving`, `damaged` (read as far as it is intact), `offline` or `deleting`.
    pub standing: &'static str,
    pub is_led: bool,
    pub log_start: Offset,
    pub high_watermark: Offset,
    /// Bytes of records kept.
    pub bytes: u64,
    pub segments: usize,
    pub traffic: PartitionTraffic,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryFacts {
    pub path: String,
    pub is_failed: bool,
    pub is_full: bool,
    /// Files of this shard's journal that hold something needed, and free ones.
    pub journal_files: (usize, usize),
    pub entries: EntryCounters,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupFacts {
    pub group: String,
    pub members: usize,
    /// Topic, partition, offset.
    pub offsets: Vec<(String, u32, Offset)>,
}

/// A part of a shard's memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryFacts {
    pub name: &'static str,
    pub used: usize,
    pub budget: usize,
}

/// How a shard stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub shard: ShardId,
    /// Connections are accepted.
    pub is_open: bool,
    pub connections: usize,
    pub traffic: Traffic,
    pub memory: Vec<MemoryFacts>,
    pub directories: Vec<DirectoryFacts>,
    pub partitions: Vec<PartitionFacts>,
    /// Of the coordinators that are led here and loaded.
    pub groups: Vec<GroupFacts>,
    pub requests: Vec<RequestCounters>,
}

/// Asks one shard, from any thread.
#[derive(Clone)]
pub struct Observer {
    shard: ShardId,
    is_wanted: Arc<AtomicBool>,
    asks: Sender<Sender<Arc<Snapshot>>>,
    doorbell: Doorbell,
}

/// The shard's end.
pub struct Observed {
    is_wanted: Arc<AtomicBool>,
    asks: Receiver<Sender<Arc<Snapshot>>>,
}

/// Both ends, for a shard that `doorbell` wakes.
pub fn observation(shard: ShardId, doorbell: Doorbell) -> (Observer, Observed) {
    let (asks, taken) = channel();
    let is_wanted = Arc::new(AtomicBool::new(false));
    (Observer { shard, is_wanted: Arc::clone(&is_wanted), asks, doorbell }, Observed { is_wanted, asks: taken })
}

impl Observer {
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// How the shard stands; None: it does not answer within `wait`, or has ended.
    pub fn look(&self, wait: Duration) -> Option<Arc<Snapshot>> {
        let (answer, answered) = channel();
        self.asks.send(answer).ok()?;
        self.is_wanted.store(true, Ordering::Release);
        self.doorbell.ring();
        answered.recv_timeout(wait).ok()
    }
}

impl Observed {
    /// Who asks now.
    pub(crate) fn askers(&self) -> Vec<Sender<Arc<Snapshot>>> {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.is_wanted.swap(false, Ordering::AcqRel);
        self.asks.try_iter().collect()
    }
}

/// How everything of a shard stands.
pub(crate) fn snapshot(engine: &Engine, net: &Net, fronts: &[Box<dyn Front>]) -> Snapshot {
    let shares = &engine.memory;
    let memory = [
        ("journal", &shares.journal),
        ("receive", &shares.receive),
        ("read", &shares.read),
        ("answer", &shares.answer),
        ("work", &shares.work),
    ];
    let memory = memory.map(|(name, share)| MemoryFacts { name, used: share.used(), budget: share.budget() });
    let coordinators = engine.coordinators.values();
    Snapshot {
        shard: engine.here,
        is_open: engine.is_open && !engine.stopping,
        connections: net.open(),
        traffic: net.traffic(),
        memory: memory.to_vec(),
        directories: engine.directories.iter().map(directory_facts).collect(),
        partitions: engine.partitions.values().map(|partition| partition_facts(engine, partition)).collect(),
        groups: coordinators.flat_map(|coordinator| coordinator.facts()).collect(),
        requests: fronts.iter().flat_map(|front| front.requests()).collect(),
    }
}

fn directory_facts(directory: &Directory) -> DirectoryFacts {
    DirectoryFacts {
        path: directory.path.display().to_string(),
        is_failed: directory.is_failed(),
        is_full: directory.full,
        journal_files: directory.journal().pressure().files,
        entries: directory.entries.clone(),
    }
}

fn partition_facts(engine: &Engine, partition: &Partition) -> PartitionFacts {
    PartitionFacts {
        topic: engine.meta.topic(partition.id.topic).map(|topic| topic.name.clone()),
        index: partition.id.index,
        standing: match partition.standing {
            Standing::Serving => "serving",
            Standing::Damaged { .. } => "damaged",
            Standing::Offline { .. } => "offline",
            Standing::Deleting => "deleting",
        },
        is_led: partition.core.is_leader(),
        log_start: partition.log_start(),
        high_watermark: partition.read_bound(),
        bytes: partition.bytes(),
        segments: partition.store.segments.all().count(),
        traffic: partition.traffic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_in_the_first_class_that_holds_it() {
        let mut histogram = Histogram::default();
        for us in [0, 50, 51, 1_000, 40_000_000] {
            histogram.add(Duration::from_micros(us));
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[4], histogram.counts[18]), (2, 1, 1, 1));
        assert_eq!((histogram.count(), histogram.sum_ns), (5, 40_001_101_000));
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!((twice.count(), twice.counts[0]), (10, 4));
    }
}
