//! OffsetDelete. v0 alone. A group that cannot be asked answers with one error for all.

use std::collections::BTreeMap;

use kafka_protocol::messages::OffsetDeleteResponse;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use millrace_shard::state::groups::{self, PartitionAnswer};

use crate::call::{Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::errors;
use crate::gather::{Named, by_topic};
use crate::names::{TopicRef, topic_name};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::OffsetDeleteRequest;

pub fn handle(call: &mut Call<'_, '_>, request: OffsetDeleteRequest<'_>) -> Outcome {
    let indexes = |topic: &crate::wire::requests::OffsetDeleteRequestTopic<'_>| {
        topic.partitions.iter().map(|partition| partition.partition_index).collect::<Vec<i32>>()
    };
    let named: Named = request.topics.iter().map(|topic| (topic.name.to_owned(), indexes(topic))).collect();
    let exists = |name: &str, index: i32| TopicRef::Name(name).partition(call.meta(), index).is_ok();
    let known: Named = named
        .iter()
        .map(|(name, indexes)| (name.clone(), indexes.iter().copied().filter(|index| exists(name, *index)).collect::<Vec<i32>>()))
        .filter(|(_, indexes)| !indexes.is_empty())
        .collect();
    let delete = groups::Request::DeleteOffsets { group: request.group_id.to_owned(), partitions: known };
    coordinator::one(call, request.group_id, delete, move |call, result| call.asked.answer(&response(named, result)))
}

fn response(named: Named, result: GroupResult) -> OffsetDeleteResponse {
    let response = OffsetDeleteResponse::default();
    let answers = match result {
        Ok(groups::Answer::OffsetsDeleted(Ok(answers))) => answers,
        Ok(groups::Answer::OffsetsDeleted(Err(error))) => return response.with_error_code(errors::of_group(error).code()),
        Ok(_) => return response.with_error_code(ErrorCode::UnknownServerError.code()),
        Err(code) => return response.with_error_code(code.code()),
    };
    let code = |answer: PartitionAnswer| ((answer.topic, answer.partition), coordinator::code(answer.result));
    let codes: BTreeMap<(String, i32), ErrorCode> = answers.into_iter().map(code).collect();
    // What was not asked of the group does not exist.
    let slots: Vec<ErrorCode> = named
        .iter()
        .flat_map(|(name, indexes)| indexes.iter().map(|index| (name.clone(), *index)))
        .map(|key| codes.get(&key).copied().unwrap_or(ErrorCode::UnknownTopicOrPartition))
        .collect();
    let row = |index, code: ErrorCode| OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code.code());
    let topic = |(name, partitions): (String, Vec<OffsetDeleteResponsePartition>)| {
        OffsetDeleteResponseTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    response.with_topics(by_topic(named, slots, row).into_iter().map(topic).collect())
}
