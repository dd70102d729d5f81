//! Fetch requests of one client: by name or by topic id, each whole or in a session (KIP-227).
//!
//! 1. Without a session, or when there is none, a request names every partition wanted.
//! 2. In a session it names those of which something else is wanted than before, and those that are not wanted any more.
//! 3. After an error of the session or a lost connection the next request names all of them again, and ends the session left behind.
//!
//! Invariants: what the broker was told of a session is what it has acknowledged.

use super::link::{Link, decode};
use super::{Shared, text, topic_name};
use crate::history::Partition;
use bytes::Bytes;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use millrace_base::prng::Prng;
use std::collections::BTreeMap;

/// The first version that names topics by id.
pub const BY_ID: i16 = 13;

const SESSION_NOT_FOUND: i16 = 70;
const SESSION_EPOCH: i16 = 71;
const SESSION_TOPIC_ID: i16 = 106;

/// How a client fetches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchStyle {
    pub version: i16,
    pub in_session: bool,
}

impl FetchStyle {
    pub fn draw(prng: &mut Prng) -> FetchStyle {
        FetchStyle { version: [11, 12, 13, 15, 17][prng.below(5) as usize], in_session: prng.one_in(2) }
    }
}

struct Session {
    id: i32,
    epoch: i32,
    /// Offset and bytes wanted, as the broker knows them.
    told: BTreeMap<Partition, (i64, i32)>,
}

pub struct Fetcher {
    style: FetchStyle,
    session: Option<Session>,
    /// A session that may still be kept for us.
    left: i32,
    bytes_each: i32,
    asked: BTreeMap<Partition, (i64, i32)>,
}

/// What an answer says.
pub enum Fetched {
    Parts(Vec<(Partition, PartitionData)>),
    /// Of the session: to be asked again as it is.
    Again,
    Refused(i16),
}

impl Fetcher {
    pub fn new(style: FetchStyle) -> Fetcher {
        Fetcher { style, session: None, left: 0, bytes_each: 1 << 20, asked: BTreeMap::new() }
    }

    /// Whether every topic can be named.
    pub fn can_name(&self, shared: &Shared, wanted: &BTreeMap<Partition, i64>) -> bool {
        self.style.version < BY_ID || wanted.keys().all(|(name, _)| shared.topics.contains_key(name))
    }

    /// Queues a request for `wanted`; its correlation id.
    pub fn ask(&mut self, shared: &Shared, link: &mut Link, prng: &mut Prng, wanted: &BTreeMap<Partition, i64>, wait_ms: i32) -> i32 {
        if prng.one_in(if self.style.in_session { 8 } else { 2 }) {
            self.bytes_each = if shared.finishing { 1 << 20 } else { [1, 2_000, 70_000, 1 << 20][prng.below(4) as usize] };
        }
        if prng.one_in(40) {
            self.forget(); // and begin another one
        }
        self.asked = wanted.iter().map(|(partition, offset)| (partition.clone(), (*offset, self.bytes_each))).collect();
        let told = self.session.as_ref().map(|session| &session.told);
        let is_news = |(partition, what): &(&Partition, &(i64, i32))| told.is_none_or(|told| told.get(*partition) != Some(*what));
        let mut topics: BTreeMap<&String, Vec<FetchPartition>> = BTreeMap::new();
        for (partition, (offset, bytes)) in self.asked.iter().filter(is_news) {
            let asked = FetchPartition::default()
                .with_partition(partition.1)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(*offset)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(*bytes);
            topics.entry(&partition.0).or_default().push(asked);
        }
        let mut gone: BTreeMap<&String, Vec<i32>> = BTreeMap::new();
        for partition in told.into_iter().flat_map(BTreeMap::keys).filter(|partition| !self.asked.contains_key(*partition)) {
            gone.entry(&partition.0).or_default().push(partition.1);
        }
        let by_id = self.style.version >= BY_ID;
        let topic = |(name, partitions): (&String, Vec<FetchPartition>)| {
            let topic = FetchTopic::default().with_partitions(partitions);
            if by_id { topic.with_topic_id(shared.topics[name].topic_id) } else { topic.with_topic(topic_name(name)) }
        };
        let forgotten = |(name, partitions): (&String, Vec<i32>)| {
            let topic = ForgottenTopic::default().with_partitions(partitions);
            if by_id { topic.with_topic_id(shared.topics[name].topic_id) } else { topic.with_topic(topic_name(name)) }
        };
        let (id, epoch) = match &self.session {
            Some(session) => (session.id, session.epoch),
            None if self.style.in_session => (self.left, 0),
            None => (0, -1),
        };
        let request = FetchRequest::default()
            .with_max_wait_ms(wait_ms)
            .with_min_bytes([0, 1, 100_000][prng.below(3) as usize])
            .with_max_bytes(if prng.one_in(4) && !shared.finishing { 1 } else { 4 << 20 })
            .with_session_id(id)
            .with_session_epoch(epoch)
            .with_topics(topics.into_iter().map(topic).collect())
            .with_forgotten_topics_data(gone.into_iter().map(forgotten).collect())
            .with_rack_id(text(""));
        let request = if self.style.version < 15 { request.with_replica_id(BrokerId(-1)) } else { request };
        link.ask(shared.now(), self.style.version, &request)
    }

    pub fn answered(&mut self, shared: &mut Shared, frame: &Bytes) -> Fetched {
        let answer = decode::<FetchRequest>(frame, self.style.version);
        match answer.error_code {
            0 => {}
            SESSION_NOT_FOUND | SESSION_EPOCH | SESSION_TOPIC_ID if self.session.is_some() => {
                // Nobody else uses the session, and its epochs are counted here.
                if answer.error_code != SESSION_NOT_FOUND {
                    shared.wrong(format!("a fetch in a session was answered {}", answer.error_code));
                }
                self.forget();
                return Fetched::Again;
            }
            code => return Fetched::Refused(code),
        }
        let was_in = self.session.as_ref().map(|session| session.id);
        if was_in.is_some_and(|id| id != answer.session_id && !self.asked.is_empty()) {
            shared.wrong(format!("a fetch in session {was_in:?} was answered in session {}", answer.session_id));
        }
        let epoch = self.session.as_ref().map_or(1, |session| session.epoch + 1);
        self.session = (answer.session_id != 0).then(|| Session { id: answer.session_id, epoch, told: self.asked.clone() });
        self.left = 0;
        shared.saw(if was_in.is_some() {
            "fetch in a session"
        } else if self.style.in_session && answer.session_id == 0 {
            "no room for a session"
        } else {
            "fetch without a session"
        });
        let mut parts = Vec::new();
        for topic in answer.responses {
            let Some(name) = self.name_of(shared, &topic) else {
                shared.wrong(format!("a fetch answer names topic {:?} {}, which was not asked", topic.topic, topic.topic_id));
                continue;
            };
            for part in topic.partitions {
                let partition = (name.clone(), part.partition_index);
                if self.asked.contains_key(&partition) {
                    parts.push((partition, part));
                } else {
                    shared.wrong(format!("a fetch answer names {partition:?}, which was not asked"));
                }
            }
        }
        if was_in.is_none() && parts.len() != self.asked.len() {
            shared.wrong(format!("a whole fetch of {} partitions was answered for {}", self.asked.len(), parts.len()));
        }
        Fetched::Parts(parts)
    }

    fn name_of(&self, shared: &Shared, topic: &FetchableTopicResponse) -> Option<String> {
        if self.style.version < BY_ID {
            return Some(topic.topic.0.to_string());
        }
        shared.topics.iter().find(|(_, known)| known.topic_id == topic.topic_id).map(|(name, _)| name.clone())
    }

    /// The connection is gone, or the session is given up.
    pub fn forget(&mut self) {
        if let Some(session) = self.session.take() {
            self.left = session.id;
        }
    }
}
