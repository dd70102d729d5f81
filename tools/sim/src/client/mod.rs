//! Kafka clients in a world, in reading order.
//!
//! Each is a state machine that the harness steps whenever something may have happened; none waits.

pub(crate) mod link;

mod fetcher;
mod take;

mod admin;
mod probe;
mod producer;
mod reader;
mod scanner;
mod team;

pub use admin::{Admin, Named};
pub use fetcher::FetchStyle;
pub use probe::Probe;
pub use producer::{Producer, Style, Times};
pub use reader::Reader;
pub use scanner::Scanner;
pub use team::Team;

use crate::history::{Event, History, Partition};
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::protocol::StrBytes;
use millrace_io::sim::World;
use std::collections::{BTreeMap, BTreeSet};

/// What clients share.
pub struct Shared {
    pub world: World,
    pub history: History,
    /// The highest high watermark that anyone saw.
    pub high: BTreeMap<Partition, i64>,
    /// The highest offset acknowledged, and one more.
    pub acknowledged: BTreeMap<Partition, i64>,
    pub producer_ids: BTreeSet<i64>,
    /// Topics that were made, and their partitions, as the administrator knows them.
    pub topics: BTreeMap<String, MetadataResponseTopic>,
    pub partitions: BTreeMap<String, i32>,
    /// Topics whose records get their timestamps from the broker.
    pub append_time: BTreeSet<String>,
    /// What happened, and how often.
    pub seen: BTreeMap<&'static str, u64>,
    /// No new work is begun; what is begun is brought to its end.
    pub finishing: bool,
    /// Since when everything is written that will be.
    pub written_at: Option<u64>,
}

impl Shared {
    pub fn now(&self) -> u64 {
        self.world.now().0
    }

    /// How much more the node's clock shows than has passed in the world.
    pub fn ahead_ms(&self) -> i64 {
        self.world.wall(crate::cluster::NODE) - (self.now() / MS) as i64
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A batch was acknowledged up to `end`.
    pub fn acknowledged_to(&mut self, partition: &Partition, end: i64) {
        let held = self.acknowledged.entry(partition.clone()).or_insert(0);
        *held = (*held).max(end);
    }

    /// Whether a reader at `offset`, which fetched last at `asked`, has all that is there.
    pub fn is_all(&self, partition: &Partition, offset: i64, asked: u64) -> bool {
        let end = self.acknowledged.get(partition).copied().unwrap_or(0).max(self.high.get(partition).copied().unwrap_or(0));
        offset >= end && self.written_at.is_some_and(|at| asked >= at)
    }

    /// An answer that says of a partition what its storage has become. Retriable, for a disk may be full or fail; a healed one is neither.
    pub fn refused(&mut self, partition: &Partition, code: i16, message: &str) {
        if code == STORAGE && self.finishing && !message.contains(" is full") {
            let (at, partition, message) = (self.now(), partition.clone(), message.to_owned());
            self.history.push(Event::Unserved { at, partition, message });
        }
    }

    pub fn wrong(&mut self, what: String) {
        self.history.push(Event::Wrong { what });
    }
}

/// A client.
pub trait Client {
    /// Does what can be done now; when it wants to be stepped again though nothing comes.
    fn step(&mut self, shared: &mut Shared) -> u64;

    /// Nothing of what it has begun is open.
    fn is_done(&self) -> bool;

    /// What it waits for, for a report.
    fn state(&self) -> String;
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// KAFKA_STORAGE_ERROR
const STORAGE: i16 = 56;

/// Errors after which real clients try the same again.
pub(crate) fn is_retriable(code: i16) -> bool {
    // Unknown topic, leader not available, not leader, timed out, network, coordinator loading, not available, not coordinator,
    // not enough replicas (after append), not controller, storage, fenced or unknown epoch, offset not available.
    matches!(code, 3 | 5 | 6 | 7 | 13 | 14 | 15 | 16 | 19 | 20 | 41 | 56 | 74 | 75 | 78)
}

pub(crate) const MS: u64 = 1_000_000;
