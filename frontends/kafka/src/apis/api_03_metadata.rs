//! Metadata.
//!
//! v0 an empty list is every topic, from v1 null is; v1 controller, racks, internal topics; v2 cluster id; v4 auto-creation as a flag; v5 offline
//! replicas; v7 leader epochs; v8 authorized operations (of the cluster to v10); v10 topic ids; v12 look-up by id; v13 an error for all.
//!
//! 1. Names that do not exist are made, if request and `auto.create.topics.enable` allow; the answer waits for them at most a second.
//! 2. Topics are answered in the request's order, all of them in the order of their names.
//! 3. A partition without a leader has LEADER_NOT_AVAILABLE and leader -1.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use millrace_base::ids::{META_PARTITION, NodeId, PartitionId, Uuid};
use millrace_shard::api::{MetaChange, MetaRefusal, Reply, Request};
use millrace_shard::state::meta::{MetaError, Topic, is_internal, topic_name_fault};

use crate::authorize::{Resource, allowed_operations};
use crate::auto_create;
use crate::call::{Answer, Call, Outcome};
use crate::errors;
use crate::gather::{self, Gather};
use crate::names::{broker, text, topic_name, uuid};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::MetadataRequest;

/// What the request names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Wanted {
    Name(String),
    Id(Uuid),
    /// Neither: refused.
    Nothing,
}

struct Ask {
    /// None: every topic.
    topics: Option<Vec<Wanted>>,
    cluster_operations: bool,
    topic_operations: bool,
    may_create: bool,
}

pub fn handle(call: &mut Call<'_, '_>, request: MetadataRequest<'_>) -> Outcome {
    let version = call.version();
    let ask = Ask {
        topics: wanted(&request, version),
        cluster_operations: request.include_cluster_authorized_operations,
        topic_operations: request.include_topic_authorized_operations,
        may_create: request.allow_auto_topic_creation && call.settings().auto_create_topics_enable,
    };
    let mut gathering: Gather<MetaChange, Option<MetaRefusal>> = Gather::with_chunk(1);
    let mut missing: Vec<String> = Vec::new();
    if ask.may_create {
        for wanted in ask.topics.iter().flatten() {
            if let Wanted::Name(name) = wanted
                && call.meta().topic_named(name).is_none()
                && !missing.contains(name)
                && missing.len() < CREATED_MAX
                && let Some(change) = auto_create::change(name, call.settings())
            {
                missing.push(name.clone());
                gathering.ask(call.owner_of(META_PARTITION), change);
            }
        }
    }
    let deadline = (!missing.is_empty()).then(|| call.now().plus_ms(auto_create::WAIT_MS));
    gather::gather(call, gathering, deadline, Request::Meta, unpack, move |call, slots| {
        let outcomes = missing.into_iter().zip(slots.into_iter().map(Option::flatten));
        build(call, &ask, &outcomes.collect())
    })
}

/// Topics that one request can have made; the client asks again for the rest.
const CREATED_MAX: usize = 100;

fn wanted(request: &MetadataRequest<'_>, version: i16) -> Option<Vec<Wanted>> {
    let topics = request.topics.as_ref()?;
    if version == 0 && topics.is_empty() {
        return None;
    }
    let one = |topic: &crate::wire::requests::MetadataRequestTopic<'_>| match topic.name {
        _ if version < 12 && !topic.topic_id.is_zero() => Wanted::Nothing,
        _ if !topic.topic_id.is_zero() => Wanted::Id(topic.topic_id),
        Some(name) => Wanted::Name(name.to_owned()),
        None => Wanted::Nothing,
    };
    // A topic that is named often is answered once, as in Kafka: it may have many partitions.
    let mut seen = BTreeSet::new();
    Some(topics.iter().map(one).filter(|wanted| seen.insert(wanted.clone())).collect())
}

fn unpack(reply: Reply) -> Vec<Option<MetaRefusal>> {
    match reply {
        Reply::Meta(results) => results.into_iter().map(Result::err).collect(),
        _ => Vec::new(),
    }
}

/// `tried`: the names whose making was asked for, with what was said against it so far.
fn build(call: &mut Call<'_, '_>, ask: &Ask, tried: &BTreeMap<String, Option<MetaRefusal>>) -> Answer {
    let (meta, version) = (call.meta(), call.version());
    let topics: Vec<MetadataResponseTopic> = match &ask.topics {
        None => meta.topics().map(|topic| found(call, ask, topic)).collect(),
        Some(wanted) => {
            let one = |wanted: &Wanted| match wanted {
                Wanted::Name(name) => match meta.topic_named(name) {
                    Some(topic) => found(call, ask, topic),
                    None => not_found(Some(name), Uuid::ZERO, missing_code(name, tried.get(name)), version),
                },
                Wanted::Id(id) => match meta.topic(*id) {
                    Some(topic) => found(call, ask, topic),
                    None => not_found(None, *id, ErrorCode::UnknownTopicId, version),
                },
                Wanted::Nothing => not_found(None, Uuid::ZERO, ErrorCode::InvalidRequest, version),
            };
            wanted.iter().map(one).collect()
        }
    };
    let response = MetadataResponse::default()
        .with_brokers(brokers(call))
        .with_controller_id(broker(call.facts().node))
        .with_cluster_id(Some(text(&call.facts().cluster.to_string())))
        .with_topics(topics);
    let response = match version {
        8..=10 if ask.cluster_operations => response.with_cluster_authorized_operations(allowed_operations(Resource::Cluster)),
        _ => response,
    };
    call.asked.answer(&response)
}

/// The error of a name that does not exist.
pub fn missing_code(name: &str, tried: Option<&Option<MetaRefusal>>) -> ErrorCode {
    match tried {
        // A client would ask for ever for what can never be.
        None if topic_name_fault(name).is_some() => ErrorCode::InvalidTopicException,
        None => ErrorCode::UnknownTopicOrPartition,
        // Still being made, or made and gone, or about to be known here.
        Some(None) | Some(Some(MetaRefusal::Refused(MetaError::TopicExists { .. }))) => ErrorCode::LeaderNotAvailable,
        Some(Some(MetaRefusal::Unavailable { .. })) => ErrorCode::LeaderNotAvailable,
        Some(Some(refusal)) => errors::of_meta(refusal).0,
    }
}

/// The nodes and where this connection's clients reach them.
fn brokers(call: &Call<'_, '_>) -> Vec<MetadataResponseBroker> {
    let here = call.facts().node;
    let rack = call.settings().broker_rack.as_deref().map(text);
    let one = |node: crate::listener::NodeAddress<'_>| {
        MetadataResponseBroker::default()
            .with_node_id(broker(node.node))
            .with_host(text(node.host))
            .with_port(i32::from(node.port))
            .with_rack(rack.clone().filter(|_| node.node == here))
    };
    call.shared.listeners.nodes(call.meta(), here, call.listener).into_iter().map(one).collect()
}

fn found(call: &Call<'_, '_>, ask: &Ask, topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.partitions()).map(|index| {
        let state = partition_state(call, topic, index);
        let replicas = vec![broker(state.replica)];
        MetadataResponsePartition::default()
            .with_error_code(if state.leader >= 0 { 0 } else { ErrorCode::LeaderNotAvailable.code() })
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(broker(state.leader))
            .with_leader_epoch(state.epoch)
            .with_offline_replicas(if state.leader >= 0 { Vec::new() } else { replicas.clone() })
            .with_isr_nodes(replicas.clone())
            .with_replica_nodes(replicas)
    });
    let response = MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(uuid(topic.id))
        .with_is_internal(is_internal(&topic.name))
        .with_partitions(partitions.collect());
    if call.version() >= 8 && ask.topic_operations {
        response.with_topic_authorized_operations(allowed_operations(Resource::Topic(&topic.name)))
    } else {
        response
    }
}

fn not_found(name: Option<&str>, id: Uuid, code: ErrorCode, version: i16) -> MetadataResponseTopic {
    // Names cannot be null before version 12.
    let name = if version < 12 { Some(name.unwrap_or_default()) } else { name };
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(name.map(topic_name))
        .with_topic_id(uuid(id))
        .with_is_internal(name.is_some_and(is_internal))
}

/// A partition as metadata tells it.
pub struct PartitionState {
    /// -1: nobody leads.
    pub leader: NodeId,
    /// -1: not known.
    pub epoch: i32,
    pub replica: NodeId,
}

/// Who leads a partition that exists, and where its replica is.
pub fn partition_state(call: &Call<'_, '_>, topic: &Topic, index: u32) -> PartitionState {
    let leadership = call.leader(PartitionId { topic: topic.id, index });
    let home = topic.directories.get(index as usize).and_then(|directory| call.meta().node_of_directory(*directory));
    PartitionState {
        leader: leadership.and_then(|leadership| leadership.leader).unwrap_or(-1),
        epoch: leadership.map_or(-1, |leadership| leadership.epoch),
        replica: home.map_or(call.facts().node, |node| node.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::requests::MetadataRequestTopic;

    #[test]
    fn every_topic_is_an_empty_list_at_first_and_null_later() {
        let empty = MetadataRequest { topics: Some(vec![]), ..Default::default() };
        let null = MetadataRequest { topics: None, ..Default::default() };
        assert_eq!(wanted(&empty, 0), None);
        assert_eq!(wanted(&empty, 1), Some(vec![]));
        assert_eq!(wanted(&null, 1), None);
    }

    #[test]
    fn a_topic_named_twice_is_answered_once() {
        let name = |name| MetadataRequestTopic { topic_id: Uuid::ZERO, name: Some(name) };
        let request = MetadataRequest { topics: Some(vec![name("b"), name("a"), name("b")]), ..Default::default() };
        assert_eq!(wanted(&request, 9), Some(vec![Wanted::Name("b".into()), Wanted::Name("a".into())]));
    }

    #[test]
    fn ids_are_looked_up_from_version_twelve_only() {
        let id = Uuid([1; 16]);
        let by_id = MetadataRequest { topics: Some(vec![MetadataRequestTopic { topic_id: id, name: None }]), ..Default::default() };
        assert_eq!(wanted(&by_id, 11), Some(vec![Wanted::Nothing]));
        assert_eq!(wanted(&by_id, 12), Some(vec![Wanted::Id(id)]));
    }

    #[test]
    fn a_topic_on_its_way_is_retried_and_a_bad_name_is_not() {
        assert_eq!(missing_code("a", None), ErrorCode::UnknownTopicOrPartition);
        assert_eq!(missing_code("a b", None), ErrorCode::InvalidTopicException);
        assert_eq!(missing_code("a", Some(&None)), ErrorCode::LeaderNotAvailable);
        let bad = MetaRefusal::Refused(MetaError::InvalidTopicName { name: "a b".into(), why: "of its space" });
        assert_eq!(missing_code("a b", Some(&Some(bad))), ErrorCode::InvalidTopicException);
    }
}
