//! A cluster as a client sees it: its brokers, who leads what, and requests to the right one of them, tried again where that helps.
//!
//! 1. [`Client::call`] sends one request to one broker ([`To`]) at the newest version that both know, and gives its answer or why there is
//!    none. Connections are opened when they are first needed and kept.
//! 2. [`Client::retrying`] runs an attempt again, with growing pauses and fresh metadata, while it fails with what may pass by itself; for
//!    `default.api.timeout.ms` at most. [`Client::each`] does the same for several things, of which only those that failed are tried again.
//! 3. [`Client::metadata`] asks for topics; [`Client::by_leader`] sorts partitions by who leads them, for requests that go to leaders.
//!
//! A command that keeps connections of its own, as producing does, takes them from [`Client::connection`].
//!
//! Invariants: no broker at all is told at once and not after a long wait; what may be retried is decided by [`Failure::is_retriable`] alone.

use std::collections::BTreeMap;
use std::time::Instant;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::connection::Connection;
use crate::failure::{Failure, Kind, Outcome};
use crate::settings::ClientSettings;

/// The newest version that kafka-protocol knows.
pub const NEWEST: i16 = i16::MAX;

/// Metadata versions: 4 is the first that can be asked not to make topics.
const METADATA: std::ops::RangeInclusive<i16> = 4..=12;

/// Who is to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// Any broker.
    Any,
    /// The controller, where the cluster names one, else any.
    Controller,
    /// The node with this id.
    Node(i32),
}

/// What the cluster says of itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Cluster {
    pub id: Option<String>,
    pub controller: Option<i32>,
    /// Host, port and rack, by node id.
    pub brokers: BTreeMap<i32, (String, u16, Option<String>)>,
}

pub struct Client {
    pub settings: ClientSettings,
    /// By host and port.
    connections: BTreeMap<(String, u16), Connection>,
    cluster: Option<Cluster>,
    /// The brokers of the cluster when it was seen last, for when none that was named answers; empty: it never was.
    seen: Vec<(String, u16)>,
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(settings: ClientSettings) -> Client {
        Client { settings, connections: BTreeMap::new(), cluster: None, seen: Vec::new() }
    }

    /// One request, one try. `build` makes the request for the version that is used, which is `newest` at most.
    ///
    /// # Errors
    /// Who is to answer cannot be reached or does not serve the request.
    pub fn call<R: Request>(&mut self, to: To, newest: i16, build: impl FnOnce(i16) -> R) -> Outcome<R::Response> {
        let connection = self.connection(to)?;
        let version = connection.version::<R>(newest)?;
        let result = connection.call(&build(version), version);
        if result.is_err() {
            let name = connection.name().to_owned();
            self.connections.retain(|_, connection| connection.name() != name);
        }
        result
    }

    /// One request that gets no answer.
    ///
    /// # Errors
    /// Who it is for cannot be reached or does not serve it; nothing tells whether it came.
    pub fn tell<R: Request>(&mut self, to: To, newest: i16, request: &R) -> Outcome<()> {
        let connection = self.connection(to)?;
        let version = connection.version::<R>(newest)?;
        let result = connection.send(request, version);
        connection.expect_no_answer();
        if result.is_err() {
            let name = connection.name().to_owned();
            self.connections.retain(|_, connection| connection.name() != name);
        }
        result
    }

    /// The kept connection to who is to answer.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connection(&mut self, to: To) -> Outcome<&mut Connection> {
        let node = match to {
            To::Any => None,
            To::Node(node) => Some(node),
            To::Controller => self.cluster()?.controller.filter(|node| *node >= 0),
        };
        match node {
            None => self.any(),
            Some(node) => {
                let cluster = self.cluster()?;
                let Some((host, port, _)) = cluster.brokers.get(&node).cloned() else { return Err(not_there(node)) };
                let reached = self.open(&host, port);
                reached.map_err(|failure| {
                    failure.with_hint(format!("{host}:{port} is what the cluster tells clients of node {node} (advertised.listeners)"))
                })
            }
        }
    }

    /// A connection of its own, for whoever keeps several requests on their way.
    ///
    /// # Errors
    /// The node is not there or cannot be reached.
    pub fn dial(&mut self, node: i32) -> Outcome<Connection> {
        let (host, port, _) = self.cluster()?.brokers.get(&node).cloned().ok_or_else(|| not_there(node))?;
        Connection::open(&host, port, &self.settings)
    }

    fn open(&mut self, host: &str, port: u16) -> Outcome<&mut Connection> {
        let key = (host.to_owned(), port);
        if !self.connections.contains_key(&key) {
            let connection = Connection::open(host, port, &self.settings)?;
            self.connections.insert(key.clone(), connection);
        }
        Ok(self.connections.get_mut(&key).expect("it was there or has been put there"))
    }

    /// One of the brokers that were named, or else of those that there were, the first that answers; one that is connected already before
    /// others.
    fn any(&mut self) -> Outcome<&mut Connection> {
        let mut named = self.settings.brokers.clone();
        let others: Vec<(String, u16)> = self.seen.iter().filter(|broker| !named.contains(broker)).cloned().collect();
        named.extend(others);
        let connected = named.iter().find(|key| self.connections.contains_key(*key)).cloned();
        if let Some(key) = connected {
            return self.open(&key.0, key.1);
        }
        let mut first: Option<Failure> = None;
        for (host, port) in &named {
            match self.open(host, *port) {
                Ok(_) => return self.open(host, *port),
                Err(failure) => first = Some(first.unwrap_or(failure)),
            }
        }
        let failure = first.unwrap_or_else(|| Failure::usage("no brokers are named"));
        // Nobody waits half a minute for a mistyped port; a cluster that has been seen is another matter.
        if !self.seen.is_empty() || failure.kind != Kind::Unreachable {
            return Err(failure);
        }
        let list = named.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(", ");
        let failure = if named.len() == 1 { failure } else { Failure::unreachable(format!("none of {list} answers: {failure}")) };
        Err(failure.for_good().with_hint("name a broker that runs with --brokers HOST:PORT, MILLRACE_BROKERS or a profile"))
    }

    /// What the cluster says of itself, asked for once.
    ///
    /// # Errors
    /// No broker answers.
    pub fn cluster(&mut self) -> Outcome<&Cluster> {
        if self.cluster.is_none() {
            self.ask_metadata(Some(&[]))?;
        }
        Ok(self.cluster.as_ref().expect("metadata has been read"))
    }

    /// The topics with these names, or all; one that is not there comes with its error code.
    ///
    /// # Errors
    /// No broker answers.
    pub fn metadata(&mut self, topics: Option<&[String]>) -> Outcome<Vec<MetadataResponseTopic>> {
        Ok(self.ask_metadata(topics)?.topics)
    }

    fn ask_metadata(&mut self, topics: Option<&[String]>) -> Outcome<MetadataResponse> {
        let asked =
            topics.map(|topics| topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(topic)))).collect());
        let request = MetadataRequest::default().with_topics(asked).with_allow_auto_topic_creation(false);
        let answer = self.call(To::Any, *METADATA.end(), |_| request)?;
        let broker = |broker: &kafka_protocol::messages::metadata_response::MetadataResponseBroker| {
            let port = u16::try_from(broker.port).unwrap_or(0);
            (broker.node_id.0, (broker.host.to_string(), port, broker.rack.as_ref().map(ToString::to_string)))
        };
        let cluster = Cluster {
            id: answer.cluster_id.as_ref().map(ToString::to_string),
            controller: Some(answer.controller_id.0).filter(|node| *node >= 0),
            brokers: answer.brokers.iter().map(broker).collect(),
        };
        self.seen = cluster.brokers.values().map(|(host, port, _)| (host.clone(), *port)).collect();
        self.cluster = Some(cluster);
        Ok(answer)
    }

    /// Who coordinates a consumer group.
    ///
    /// # Errors
    /// There is nobody, or no broker answers.
    pub fn coordinator(&mut self, group: &str) -> Outcome<To> {
        let key = StrBytes::from_string(group.to_owned());
        // Version 4 asks for several keys at once; below it for one.
        let answer = self.call(To::Any, 4, |version| match version {
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![key]),
            _ => FindCoordinatorRequest::default().with_key(key),
        })?;
        let (code, message, node) = match answer.coordinators.first() {
            Some(found) => (found.error_code, found.error_message.as_deref(), found.node_id),
            None => (answer.error_code, answer.error_message.as_deref(), answer.node_id),
        };
        Failure::check(&format!("group {group:?}"), code, message)?;
        Ok(To::Node(node.0))
    }

    /// Tries again what may pass by itself.
    ///
    /// # Errors
    /// What the last try ended with.
    pub fn retrying<T>(&mut self, mut attempt: impl FnMut(&mut Client) -> Outcome<T>) -> Outcome<T> {
        let mut pause = Pause::new(&self.settings);
        loop {
            match attempt(self) {
                Err(failure) if failure.is_retriable() && pause.sleep() => self.cluster = None,
                other => return other,
            }
        }
    }

    /// An attempt at several things, tried again for those alone that failed with what may pass by itself. An attempt gives one result for
    /// each thing that it was given, in their order; so does this.
    ///
    /// # Errors
    /// Nothing can be said of any of them.
    ///
    /// # Panics
    /// When an attempt gives another number of results.
    pub fn each<K: Clone, T>(
        &mut self,
        things: &[K],
        mut attempt: impl FnMut(&mut Client, &[K]) -> Outcome<Vec<Outcome<T>>>,
    ) -> Outcome<Vec<Outcome<T>>> {
        let mut done: Vec<Option<Outcome<T>>> = things.iter().map(|_| None).collect();
        let mut pause = Pause::new(&self.settings);
        let mut answered = false;
        loop {
            let is_open = |result: &Option<Outcome<T>>| result.as_ref().is_none_or(|r| r.as_ref().is_err_and(Failure::is_retriable));
            let open: Vec<usize> = (0..things.len()).filter(|at| is_open(&done[*at])).collect();
            let asked: Vec<K> = open.iter().map(|at| things[*at].clone()).collect();
            match attempt(self, &asked) {
                Ok(results) => {
                    assert_eq!(results.len(), asked.len());
                    answered = true;
                    open.iter().zip(results).for_each(|(at, result)| done[*at] = Some(result));
                }
                Err(failure) if !(answered || failure.is_retriable() && pause.may()) => return Err(failure),
                Err(failure) => open.iter().for_each(|at| done[*at] = Some(Err(failure.clone()))),
            }
            if !done.iter().any(is_open) || !pause.sleep() {
                break;
            }
            self.cluster = None;
        }
        Ok(done.into_iter().map(|result| result.expect("every thing has been tried")).collect())
    }

    /// The things whose partitions one node leads, by node; with their place in `things`. `place` names a thing's topic and partition.
    ///
    /// # Errors
    /// No broker answers.
    pub fn by_leader<K: Clone>(&mut self, things: &[K], place: impl Fn(&K) -> (&str, i32)) -> Outcome<Led<K>> {
        let mut topics: Vec<String> = things.iter().map(|thing| place(thing).0.to_owned()).collect();
        topics.sort_unstable();
        topics.dedup();
        let found = self.metadata(Some(&topics))?;
        let mut led = Led { nodes: BTreeMap::new(), without: Vec::new() };
        for (at, thing) in things.iter().enumerate() {
            let (topic, partition) = place(thing);
            match leader(&found, topic, partition) {
                Ok(node) => led.nodes.entry(node).or_default().push((at, thing.clone())),
                Err(failure) => led.without.push((at, failure)),
            }
        }
        Ok(led)
    }
}

/// Things by the node that leads their partition, and those that nobody leads.
pub struct Led<K> {
    pub nodes: BTreeMap<i32, Vec<(usize, K)>>,
    pub without: Vec<(usize, Failure)>,
}

/// Who leads a partition.
///
/// # Errors
/// Nobody, or there is no such partition.
pub fn leader(topics: &[MetadataResponseTopic], topic: &str, partition: i32) -> Outcome<i32> {
    let missing = || Failure::refused(&format!("topic {topic:?}"), kafka_protocol::error::ResponseError::UnknownTopicOrPartition, None);
    let found = topics.iter().find(|found| found.name.as_ref().is_some_and(|name| name.as_str() == topic)).ok_or_else(missing)?;
    Failure::check(&format!("topic {topic:?}"), found.error_code, None).map_err(|failure| failure.with_hint(topic_hint()))?;
    let Some(found) = found.partitions.iter().find(|found| found.partition_index == partition) else {
        let last = found.partitions.len().saturating_sub(1);
        return Err(
            Failure::new(Kind::NotFound, format!("topic {topic:?} has no partition {partition}")).with_hint(format!("it has 0 to {last}"))
        );
    };
    if found.leader_id.0 < 0 {
        return Err(Failure::refused(&format!("{topic}-{partition}"), kafka_protocol::error::ResponseError::LeaderNotAvailable, None));
    }
    Ok(found.leader_id.0)
}

fn not_there(node: i32) -> Failure {
    Failure::new(Kind::NotFound, format!("node {node} is not among the brokers that live"))
        .with_hint("`millrace cluster info` shows which are")
}

pub fn topic_hint() -> &'static str {
    "`millrace topic list` shows what there is"
}

pub fn topic_name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Who asks is no replica.
pub fn no_replica() -> BrokerId {
    BrokerId(-1)
}

/// The pauses between tries: each is twice the last, and all together have a bound.
struct Pause {
    began: Instant,
    next: std::time::Duration,
    longest: std::time::Duration,
    patience: std::time::Duration,
}

impl Pause {
    fn new(settings: &ClientSettings) -> Pause {
        Pause { began: Instant::now(), next: settings.backoff, longest: settings.backoff_max, patience: settings.patience }
    }

    fn may(&self) -> bool {
        self.began.elapsed() + self.next < self.patience
    }

    /// Sleeps before the next try; `false` when there is to be none.
    fn sleep(&mut self) -> bool {
        let may = self.may();
        if may {
            std::thread::sleep(self.next);
            self.next = (self.next * 2).min(self.longest);
        }
        may
    }
}
