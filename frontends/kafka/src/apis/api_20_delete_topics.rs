//! DeleteTopics.
//!
//! v1 to 5 by name; v5 a message; v6 by name or id.
//!
//! 1. `delete.topic.enable` is on, else TOPIC_DELETION_DISABLED for each topic (INVALID_REQUEST before v3, which does not know that code).
//! 2. Each topic is named by one of name and id, once, exists, and is no internal one. One that is named twice stays, as in Kafka.

use std::collections::BTreeMap;

use kafka_protocol::messages::DeleteTopicsResponse;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use millrace_base::ids::{TopicId, Uuid};
use millrace_shard::api::MetaChange;
use millrace_shard::state::meta::{Meta, Request};

use crate::call::{Answer, Call, Outcome};
use crate::controller::{Changed, Changes};
use crate::errors::{Refusal, plain};
use crate::names::{self, TopicRef, topic_name, uuid};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DeleteTopicsRequest;

/// A topic as it was asked for; with what was found out about it.
struct Asked {
    name: Option<String>,
    id: Uuid,
}

pub fn handle(call: &mut Call<'_, '_>, request: DeleteTopicsRequest<'_>) -> Outcome {
    let by_name = request.topic_names.iter().map(|name| (Some(*name), Uuid::ZERO));
    let by_either = request.topics.iter().map(|topic| (topic.name, topic.topic_id));
    let disabled = if call.version() < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
    let find_one = |(name, id): (Option<&_>, Uuid)| {
        let found = if call.settings().delete_topic_enable {
            find(call.meta(), name, id)
        } else {
            Err((disabled, "delete.topic.enable is false".into()))
        };
        (name.map(|name: &str| name.to_owned()), id, found)
    };
    let all: Vec<_> = by_name.chain(by_either).map(find_one).collect();
    let mut times: BTreeMap<TopicId, usize> = BTreeMap::new();
    for (topic, _) in all.iter().filter_map(|(_, _, found)| found.as_ref().ok()) {
        *times.entry(*topic).or_default() += 1;
    }
    let mut changes = Changes::new();
    let mut asked = Vec::with_capacity(all.len());
    for (name, id, found) in all {
        match found {
            Ok((topic, found_name)) => {
                asked.push(Asked { name: Some(found_name), id: topic });
                if times.get(&topic) == Some(&1) {
                    changes.ask(call, MetaChange { request: Request::DeleteTopic { topic }, validate_only: false });
                } else {
                    changes.refuse((ErrorCode::InvalidRequest, "the topic is named twice in one request".into()));
                }
            }
            Err(refusal) => {
                asked.push(Asked { name, id });
                changes.refuse(refusal);
            }
        }
    }
    changes.answer(call, request.timeout_ms, move |call, results| build(call, asked, results))
}

fn find(meta: &Meta, name: Option<&str>, id: Uuid) -> Result<(TopicId, String), Refusal> {
    let named = match name {
        Some(_) if !id.is_zero() => Err((ErrorCode::InvalidRequest, "a topic is named by its name or by its id, not by both".into())),
        Some(name) => Ok(TopicRef::Name(name)),
        None if id.is_zero() => Err((ErrorCode::InvalidRequest, "a topic has neither name nor id".into())),
        None => Ok(TopicRef::Id(id)),
    };
    let topic = named?.find(meta).map_err(plain)?;
    Ok((topic.id, topic.name.clone()))
}

fn build(call: &mut Call<'_, '_>, asked: Vec<Asked>, results: Vec<Changed>) -> Answer {
    let version = call.version();
    let one = |(asked, result): (Asked, Changed)| {
        // A name cannot be null before version 6.
        let name = if version < 6 { Some(asked.name.unwrap_or_default()) } else { asked.name };
        let response = DeletableTopicResult::default().with_name(name.as_deref().map(topic_name));
        let response = if version >= 6 { response.with_topic_id(uuid(asked.id)) } else { response };
        match result {
            Ok(_) => response,
            Err((code, message)) => {
                response.with_error_code(code.code()).with_error_message((version >= 5).then(|| names::message(&message)))
            }
        }
    };
    let responses = asked.into_iter().zip(results).map(one).collect();
    call.asked.answer(&DeleteTopicsResponse::default().with_responses(responses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_named_by_exactly_one_of_name_and_id() {
        let meta = Meta::new();
        let code = |name, id| find(&meta, name, id).unwrap_err().0;
        assert_eq!(code(Some("t"), Uuid([1; 16])), ErrorCode::InvalidRequest);
        assert_eq!(code(None, Uuid::ZERO), ErrorCode::InvalidRequest);
        assert_eq!(code(Some("t"), Uuid::ZERO), ErrorCode::UnknownTopicOrPartition);
        assert_eq!(code(None, Uuid([1; 16])), ErrorCode::UnknownTopicId);
    }
}
