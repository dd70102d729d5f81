//! CreateTopics.
//!
//! v2 is the lowest; v5 settings in the answer; v7 topic ids. A count or factor of -1 means the broker's default in any version, as in Kafka:
//! only its Java client asks for v4 first, and kafkajs sends it with v2 and v3.
//!
//! 1. A name that comes twice is INVALID_REQUEST for each of its topics.
//! 2. Counts stand beside no assignment; an assignment names each partition once.
//! 3. The rest (names, bounds, settings, replication factor against the nodes) is checked where it is decided, by the controller.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::CreateTopicsResponse;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use millrace_base::ids::Uuid;
use millrace_shard::api::{MetaChange, MetaDone};
use millrace_shard::state::meta::{Layout, Live, Request};

use crate::call::{Answer, Call, Outcome};
use crate::configs;
use crate::controller::{Changed, Changes};
use crate::errors::Refusal;
use crate::names::{self, text, topic_name, uuid};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::{CreatableTopic, CreateTopicsRequest};

/// Topics that one request may make: each is answered with all its settings.
const TOPICS_MAX: usize = 2_000;

/// A topic as it was asked for.
struct Named {
    name: String,
    configs: BTreeMap<String, String>,
}

pub fn handle(call: &mut Call<'_, '_>, request: CreateTopicsRequest<'_>) -> Outcome {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name).filter(|name| !seen.insert(*name)).collect();
    let mut changes = Changes::new();
    let mut named = Vec::with_capacity(request.topics.len());
    for (at, topic) in request.topics.iter().enumerate() {
        let checked = if at >= TOPICS_MAX {
            Err((ErrorCode::PolicyViolation, format!("more than {TOPICS_MAX} topics in one request").into()))
        } else if twice.contains(topic.name) {
            Err((ErrorCode::InvalidRequest, format!("topic '{}' is named twice in one request", topic.name).into()))
        } else {
            check(topic)
        };
        let mut own = BTreeMap::new();
        match checked {
            Err(refusal) => changes.refuse(refusal),
            Ok((layout, configs)) => {
                own.clone_from(&configs);
                let request_of = Request::CreateTopic {
                    topic: Uuid::ZERO,
                    name: topic.name.to_owned(),
                    layout,
                    default_partitions: 1,
                    default_replication_factor: 1,
                    configs,
                    live: Live::default(),
                    internal: false,
                };
                changes.ask(call, MetaChange { request: request_of, validate_only: request.validate_only });
            }
        }
        named.push(Named { name: topic.name.to_owned(), configs: own });
    }
    changes.answer(call, request.timeout_ms, move |call, results| build(call, named, results))
}

fn check(topic: &CreatableTopic<'_>) -> Result<(Layout, BTreeMap<String, String>), Refusal> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = config.value else {
            return Err((ErrorCode::InvalidConfig, format!("setting '{}' has no value", config.name).into()));
        };
        if configs.insert(config.name.to_owned(), value.to_owned()).is_some() {
            return Err((ErrorCode::InvalidRequest, format!("setting '{}' is named twice", config.name).into()));
        }
    }
    Ok((layout(topic)?, configs))
}

fn layout(topic: &CreatableTopic<'_>) -> Result<Layout, Refusal> {
    let (partitions, replication_factor) = (topic.num_partitions, topic.replication_factor);
    if topic.assignments.is_empty() {
        return Ok(Layout::Count { partitions, replication_factor });
    }
    if partitions != -1 || replication_factor != -1 {
        return Err((ErrorCode::InvalidRequest, "an assignment stands without counts: both must be -1".into()));
    }
    let mut assigned = BTreeMap::new();
    for assignment in &topic.assignments {
        if assigned.insert(assignment.partition_index, assignment.broker_ids.clone()).is_some() {
            let why = format!("partition {} is assigned twice", assignment.partition_index);
            return Err((ErrorCode::InvalidReplicaAssignment, why.into()));
        }
    }
    Ok(Layout::Assigned(assigned))
}

fn build(call: &mut Call<'_, '_>, named: Vec<Named>, results: Vec<Changed>) -> Answer {
    let topics = named.into_iter().zip(results).map(|(named, result)| topic(call, named, result)).collect();
    call.asked.answer(&CreateTopicsResponse::default().with_topics(topics))
}

fn topic(call: &Call<'_, '_>, named: Named, result: Changed) -> CreatableTopicResult {
    let version = call.version();
    let response = CreatableTopicResult::default().with_name(topic_name(&named.name)).with_num_partitions(-1).with_replication_factor(-1);
    let (id, partitions) = match result {
        Ok(MetaDone::TopicCreated { topic, partitions }) => (topic, partitions),
        Ok(MetaDone::ProducerIds { .. } | MetaDone::Changed) => (Uuid::ZERO, 0),
        Err((code, message)) => {
            let response = response.with_error_code(code.code()).with_error_message(Some(names::message(&message)));
            return if version >= 5 { response.with_configs(None) } else { response };
        }
    };
    if version < 5 {
        return response;
    }
    let response = response
        .with_num_partitions(i32::try_from(partitions).unwrap_or(i32::MAX))
        .with_replication_factor(1)
        .with_configs(Some(configs::of_topic(&named.configs, call.settings()).into_iter().map(config).collect()));
    if version >= 7 { response.with_topic_id(uuid(id)) } else { response }
}

fn config(described: configs::Described) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(text(described.name))
        .with_value(described.value.as_deref().map(text))
        .with_read_only(described.is_read_only)
        .with_config_source(described.source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::requests::{CreatableReplicaAssignment, CreatableTopicConfig};

    fn code(topic: CreatableTopic<'_>) -> Option<ErrorCode> {
        check(&topic).err().map(|refusal| refusal.0)
    }

    #[test]
    fn counts_and_assignments_exclude_each_other() {
        let assigned = |indexes: &[i32]| {
            let one = |index: &i32| CreatableReplicaAssignment { partition_index: *index, broker_ids: vec![1] };
            indexes.iter().map(one).collect::<Vec<_>>()
        };
        let topic = |num_partitions, replication_factor, indexes: &[i32]| CreatableTopic {
            name: "t",
            num_partitions,
            replication_factor,
            assignments: assigned(indexes),
            configs: vec![],
        };
        assert_eq!(code(topic(-1, -1, &[])), None);
        assert_eq!(code(topic(-1, 1, &[])), None);
        assert_eq!(code(topic(-1, -1, &[0, 1])), None);
        assert_eq!(code(topic(2, -1, &[0, 1])), Some(ErrorCode::InvalidRequest));
        assert_eq!(code(topic(-1, -1, &[0, 0])), Some(ErrorCode::InvalidReplicaAssignment));
    }

    #[test]
    fn a_setting_without_a_value_is_named() {
        let configs = vec![CreatableTopicConfig { name: "retention.ms", value: None }];
        let topic = CreatableTopic { name: "t", num_partitions: 1, replication_factor: 1, assignments: vec![], configs };
        let (code, message) = check(&topic).unwrap_err();
        assert_eq!(code, ErrorCode::InvalidConfig);
        assert!(message.contains("retention.ms"));
    }
}
