//! Kafka clients in a world, in reading order.
//!
//! Each is a state machine that the harness steps whenever something may have happened; none waits.

mod link;

mod admin;
mod producer;
mod reader;
mod scanner;

pub use admin::Admin;
pub use producer::{Producer, Style};
pub use reader::Reader;
pub use scanner::Scanner;

use crate::history::{Event, History, Partition};
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use millrace_io::sim::World;
use std::collections::{BTreeMap, BTreeSet};

/// What clients share.
pub struct Shared {
    pub world: World,
    pub history: History,
    /// The highest high watermark that anyone saw.
    pub high: BTreeMap<Partition, i64>,
    pub producer_ids: BTreeSet<i64>,
    /// No new work is begun; what is begun is brought to its end.
    pub finishing: bool,
}

impl Shared {
    pub fn now(&self) -> u64 {
        self.world.now().0
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

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Errors after which real clients try the same again.
pub(crate) fn is_retriable(code: i16) -> bool {
    // Unknown topic, leader not available, not leader, timed out, network, coordinator loading, not available, not coordinator,
    // not enough replicas (after append), not controller, storage, fenced or unknown epoch, offset not available.
    matches!(code, 3 | 5 | 6 | 7 | 13 | 14 | 15 | 16 | 19 | 20 | 41 | 56 | 74 | 75 | 78)
}

pub(crate) const MS: u64 = 1_000_000;
