//! OffsetFetch.
//!
//! v1 errors stand beside partitions only; v2 null is every topic, and an error for all; v5 leader epochs; v7 "require stable", which every
//! offset is, there being no transactions; v8 many groups; v9 member id and epoch, which mean nothing to classic groups; v10 topic ids.
//!
//! 1. Each group is asked of its coordinator. 2. A partition without an offset is -1 without an error.
//! 3. A topic id that is not known is UNKNOWN_TOPIC_ID for its partitions. In a list of all offsets, topics that are gone are left out where
//!    ids are spoken.

use std::collections::BTreeMap;

use kafka_protocol::messages::OffsetFetchResponse;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use millrace_base::ids::Uuid;
use millrace_shard::state::groups;
use millrace_shard::state::groups::records::CommittedOffset;
use millrace_shard::state::meta::Meta;

use crate::call::{Answer, Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::errors;
use crate::names::{TopicRef, group_id, text, topic_name, uuid};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::OffsetFetchRequest;

/// Groups that one request is answered for; each may have many offsets. Those behind are INVALID_REQUEST.
const GROUPS_MAX: usize = 10_000;

/// A topic that was asked for. `name` None: an id that is not known.
#[derive(Clone, Debug)]
struct AskedTopic {
    name: Option<String>,
    id: Uuid,
    indexes: Vec<i32>,
}

#[derive(Clone, Debug)]
struct AskedGroup {
    group: String,
    /// None: all.
    topics: Option<Vec<AskedTopic>>,
}

/// A topic of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    name: String,
    id: Uuid,
    partitions: Vec<(i32, ErrorCode, Option<CommittedOffset>)>,
}

pub fn handle(call: &mut Call<'_, '_>, request: OffsetFetchRequest<'_>) -> Outcome {
    let version = call.version();
    let asked = asked(call.meta(), &request, version);
    let mut gathering = coordinator::none();
    let mut seen = std::collections::BTreeSet::new();
    for group in &asked {
        // A group that is named often could make a large answer of a small request.
        if seen.len() >= GROUPS_MAX || !seen.insert(group.group.as_str()) {
            gathering.fill(Err(ErrorCode::InvalidRequest));
            continue;
        }
        let partitions = group.topics.as_ref().map(|topics| {
            let known = topics.iter().filter_map(|topic| Some((topic.name.clone()?, topic.indexes.clone())));
            known.collect::<Vec<(String, Vec<i32>)>>()
        });
        let fetch = groups::Request::FetchOffsets { group: group.group.clone(), partitions };
        coordinator::ask(call, &mut gathering, &group.group, fetch);
    }
    coordinator::answer(call, gathering, move |call, results| build(call, asked, results))
}

fn asked(meta: &Meta, request: &OffsetFetchRequest<'_>, version: i16) -> Vec<AskedGroup> {
    let by_name = |name: &str, indexes: &[i32]| {
        let id = meta.topic_named(name).map_or(Uuid::ZERO, |topic| topic.id);
        AskedTopic { name: Some(name.to_owned()), id, indexes: indexes.to_vec() }
    };
    if version < 8 {
        let topics = request.topics.as_ref().map(|topics| topics.iter().map(|t| by_name(t.name, &t.partition_indexes)).collect());
        return vec![AskedGroup { group: request.group_id.to_owned(), topics }];
    }
    let topic = |topic: &crate::wire::requests::OffsetFetchRequestTopics<'_>| {
        if version < 10 {
            return by_name(topic.name, &topic.partition_indexes);
        }
        let name = TopicRef::Id(topic.topic_id).find(meta).ok().map(|topic| topic.name.clone());
        AskedTopic { name, id: topic.topic_id, indexes: topic.partition_indexes.clone() }
    };
    let group = |group: &crate::wire::requests::OffsetFetchRequestGroup<'_>| AskedGroup {
        group: group.group_id.to_owned(),
        topics: group.topics.as_ref().map(|topics| topics.iter().map(topic).collect()),
    };
    request.groups.iter().map(group).collect()
}

/// The rows of one group, or the error for all of it.
fn rows(meta: &Meta, asked: Option<Vec<AskedTopic>>, result: GroupResult, version: i16) -> Result<Vec<Row>, ErrorCode> {
    let found = match result {
        Ok(groups::Answer::Offsets(Ok(found))) => found,
        Ok(groups::Answer::Offsets(Err(error))) => return Err(errors::of_group(error)),
        Ok(_) => return Err(ErrorCode::UnknownServerError),
        Err(code) => return Err(code),
    };
    let Some(topics) = asked else { return Ok(all_rows(meta, found, version)) };
    let mut offsets: BTreeMap<(String, i32), Option<CommittedOffset>> =
        found.into_iter().map(|(topic, index, offset)| ((topic, index), offset)).collect();
    let row = |topic: AskedTopic| {
        let mut partition = |index: i32| match &topic.name {
            None => (index, ErrorCode::UnknownTopicId, None),
            Some(name) => (index, ErrorCode::None, offsets.get_mut(&(name.clone(), index)).and_then(Option::as_mut).map(given)),
        };
        let partitions = topic.indexes.iter().map(|index| partition(*index)).collect();
        Row { name: topic.name.clone().unwrap_or_default(), id: topic.id, partitions }
    };
    Ok(topics.into_iter().map(row).collect())
}

/// An offset to answer with. If its partition is named again, only the metadata are left out: they could make a large answer of a small request,
/// and without an offset a client would begin anew.
fn given(offset: &mut CommittedOffset) -> CommittedOffset {
    let metadata = std::mem::take(&mut offset.metadata);
    CommittedOffset { metadata, ..offset.clone() }
}

fn all_rows(meta: &Meta, found: Vec<(String, i32, Option<CommittedOffset>)>, version: i16) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (name, index, offset) in found {
        let id = meta.topic_named(&name).map_or(Uuid::ZERO, |topic| topic.id);
        if version >= 10 && id.is_zero() {
            continue;
        }
        let partition = (index, ErrorCode::None, offset);
        match rows.last_mut() {
            Some(row) if row.name == name => row.partitions.push(partition),
            _ => rows.push(Row { name, id, partitions: vec![partition] }),
        }
    }
    rows
}

/// The error for a client whose coordinator is here or nowhere: it is to ask again. librdkafka (2.16) does so after no other one: a consumer that
/// is told here that there is no coordinator keeps its partitions and never reads them (its issue 5586).
fn as_retried(code: ErrorCode, is_elsewhere: impl Fn() -> bool) -> ErrorCode {
    match code {
        ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable if !is_elsewhere() => ErrorCode::CoordinatorLoadInProgress,
        code => code,
    }
}

fn build(call: &mut Call<'_, '_>, asked: Vec<AskedGroup>, results: Vec<GroupResult>) -> Answer {
    let version = call.version();
    let rows_of = |(asked, result): (&AskedGroup, GroupResult)| {
        let is_elsewhere = || coordinator::of_group(call, &asked.group) == Err(ErrorCode::NotCoordinator);
        rows(call.meta(), asked.topics.clone(), result, version).map_err(|code| as_retried(code, is_elsewhere))
    };
    let results: Vec<_> = asked.iter().zip(results).map(rows_of).collect();
    let response = OffsetFetchResponse::default();
    if version >= 8 {
        let groups = asked.into_iter().zip(results).map(|(asked, result)| {
            let group = OffsetFetchResponseGroup::default().with_group_id(group_id(&asked.group));
            match result {
                Ok(rows) => group.with_topics(rows.into_iter().map(|row| new_topic(row, version)).collect()),
                Err(code) => group.with_error_code(code.code()),
            }
        });
        return call.asked.answer(&response.with_groups(groups.collect()));
    }
    let Some((asked, result)) = asked.into_iter().zip(results).next() else { return call.asked.answer(&response) };
    let response = match result {
        Ok(rows) => response.with_topics(rows.into_iter().map(|row| old_topic(row, version)).collect()),
        Err(code) if version >= 2 => response.with_error_code(code.code()),
        // Version 1 has no error for all, so each partition carries it.
        Err(code) => {
            let failed = |topic: AskedTopic| Row {
                name: topic.name.unwrap_or_default(),
                id: topic.id,
                partitions: topic.indexes.into_iter().map(|index| (index, code, None)).collect(),
            };
            let topics = asked.topics.unwrap_or_default().into_iter().map(|topic| old_topic(failed(topic), version));
            response.with_topics(topics.collect())
        }
    };
    call.asked.answer(&response)
}

fn old_topic(row: Row, version: i16) -> OffsetFetchResponseTopic {
    let partition = |(index, code, offset): (i32, ErrorCode, Option<CommittedOffset>)| {
        let response = OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(code.code())
            .with_committed_offset(offset.as_ref().map_or(-1, |offset| offset.offset))
            .with_metadata(Some(text(offset.as_ref().map_or("", |offset| offset.metadata.as_str()))));
        if version >= 5 { response.with_committed_leader_epoch(offset.map_or(-1, |offset| offset.leader_epoch)) } else { response }
    };
    let partitions = row.partitions.into_iter().map(partition).collect();
    OffsetFetchResponseTopic::default().with_name(topic_name(&row.name)).with_partitions(partitions)
}

fn new_topic(row: Row, version: i16) -> OffsetFetchResponseTopics {
    let partition = |(index, code, offset): (i32, ErrorCode, Option<CommittedOffset>)| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_error_code(code.code())
            .with_committed_offset(offset.as_ref().map_or(-1, |offset| offset.offset))
            .with_metadata(Some(text(offset.as_ref().map_or("", |offset| offset.metadata.as_str()))))
            .with_committed_leader_epoch(offset.map_or(-1, |offset| offset.leader_epoch))
    };
    let response = OffsetFetchResponseTopics::default().with_partitions(row.partitions.into_iter().map(partition).collect());
    if version >= 10 { response.with_topic_id(uuid(row.id)) } else { response.with_name(topic_name(&row.name)) }
}
