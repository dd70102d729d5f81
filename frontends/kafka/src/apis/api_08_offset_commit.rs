//! OffsetCommit.
//!
//! v2 to 4 a retention, after which these offsets expire; without one, and from v5, expiry follows the group; v6 leader epochs; v7 static members;
//! v9 a group that does not exist is GROUP_ID_NOT_FOUND, before it was ILLEGAL_GENERATION; v10 topic ids.
//!
//! 1. A partition that does not exist has its error at once; the others go to the group's coordinator together.
//! 2. Answers are in the request's order.

use std::collections::BTreeMap;

use kafka_protocol::messages::OffsetCommitResponse;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use millrace_base::ids::Uuid;
use millrace_shard::state::groups::{self, Commit, CommitOffset, GroupError, PartitionAnswer};

use crate::call::{Answer, Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::errors;
use crate::names::{TopicRef, topic_name, uuid};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::OffsetCommitRequest;

/// A topic of the request; each partition with its error, if it has one before the group is asked.
struct Asked {
    /// Of the topic, if it is known.
    name: String,
    id: Uuid,
    partitions: Vec<(i32, Option<ErrorCode>)>,
}

pub fn handle(call: &mut Call<'_, '_>, request: OffsetCommitRequest<'_>) -> Outcome {
    let uses_ids = call.version() >= 10;
    let mut asked = Vec::with_capacity(request.topics.len());
    let mut offsets = Vec::new();
    for topic in &request.topics {
        let named = if uses_ids { TopicRef::Id(topic.topic_id) } else { TopicRef::Name(topic.name) };
        let found = named.find(call.meta());
        let name = found.as_ref().map_or(topic.name, |topic| topic.name.as_str());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let error = found.and_then(|topic| crate::names::partition_of(topic, index)).err();
            if error.is_none() {
                offsets.push(CommitOffset {
                    topic: name.to_owned(),
                    partition: index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.unwrap_or_default().to_owned(),
                });
            }
            partitions.push((index, error));
        }
        asked.push(Asked { name: name.to_owned(), id: topic.topic_id, partitions });
    }
    if offsets.is_empty() {
        return Outcome::Done(build(call, asked, Ok(groups::Answer::Committed(Vec::new()))));
    }
    let commit = Commit {
        group: request.group_id.to_owned(),
        member_id: request.member_id.to_owned(),
        instance_id: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id_or_member_epoch,
        retention_ms: (request.retention_time_ms >= 0).then_some(request.retention_time_ms),
        offsets,
    };
    coordinator::one(call, request.group_id, groups::Request::Commit(commit), move |call, result| build(call, asked, result))
}

fn build(call: &mut Call<'_, '_>, asked: Vec<Asked>, result: GroupResult) -> Answer {
    let version = call.version();
    let (whole, answers) = match result {
        Ok(groups::Answer::Committed(answers)) => (ErrorCode::UnknownServerError, answers),
        Ok(_) => (ErrorCode::UnknownServerError, Vec::new()),
        Err(code) => (code, Vec::new()),
    };
    let code = |answer: PartitionAnswer| ((answer.topic, answer.partition), commit_code(answer.result, version));
    let codes: BTreeMap<(String, i32), ErrorCode> = answers.into_iter().map(code).collect();
    let topic = |asked: Asked| {
        let name = asked.name;
        let partition = |(index, error): (i32, Option<ErrorCode>)| {
            let code = error.unwrap_or_else(|| codes.get(&(name.clone(), index)).copied().unwrap_or(whole));
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code.code())
        };
        let partitions = asked.partitions.into_iter().map(partition).collect();
        let response = OffsetCommitResponseTopic::default().with_partitions(partitions);
        if version >= 10 { response.with_topic_id(uuid(asked.id)) } else { response.with_name(topic_name(&name)) }
    };
    call.asked.answer(&OffsetCommitResponse::default().with_topics(asked.into_iter().map(topic).collect()))
}

fn commit_code(result: Result<(), GroupError>, version: i16) -> ErrorCode {
    match result {
        Ok(()) => ErrorCode::None,
        Err(GroupError::GroupIdNotFound) if version < 9 => ErrorCode::IllegalGeneration,
        Err(error) => errors::of_group(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_not_there_has_the_code_of_the_version() {
        assert_eq!(commit_code(Err(GroupError::GroupIdNotFound), 8), ErrorCode::IllegalGeneration);
        assert_eq!(commit_code(Err(GroupError::GroupIdNotFound), 9), ErrorCode::GroupIdNotFound);
        assert_eq!(commit_code(Ok(()), 9), ErrorCode::None);
    }
}
