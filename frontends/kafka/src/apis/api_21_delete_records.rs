//! DeleteRecords: raises a partition's log start.
//!
//! v0 to 2 differ in form only.
//!
//! 1. Internal topics are refused. 2. Offset -1 is the high watermark; no other negative one exists.
//! 3. Each partition has its own error; low watermark -1 where there is one.

use kafka_protocol::messages::DeleteRecordsResponse;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use millrace_base::ids::PartitionId;
use millrace_base::offset::Offset;
use millrace_shard::api::{DeleteRecords, Reply, Request};
use millrace_shard::state::meta::{Meta, is_internal};

use crate::authorize::{Operation, Resource, is_allowed};
use crate::call::{Answer, Call, Outcome};
use crate::errors;
use crate::gather::{self, Gather, Named, by_topic};
use crate::names::{TopicRef, topic_name};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DeleteRecordsRequest;

type Slot = Result<Offset, ErrorCode>;

pub fn handle(call: &mut Call<'_, '_>, request: DeleteRecordsRequest<'_>) -> Outcome {
    let mut gathering: Gather<DeleteRecords, Slot> = Gather::new();
    let mut named: Named = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        for asked in &topic.partitions {
            match check(call.meta(), topic.name, asked.partition_index, asked.offset) {
                Err(code) => gathering.fill(Err(code)),
                Ok(partition) => {
                    let before = (asked.offset >= 0).then_some(asked.offset);
                    gathering.ask(call.owner_of(partition), DeleteRecords { partition, before });
                }
            }
        }
        named.push((topic.name.to_owned(), topic.partitions.iter().map(|partition| partition.partition_index).collect()));
    }
    let wait_ms = u64::try_from(request.timeout_ms).unwrap_or(0).max(1_000);
    let deadline = Some(call.now().plus_ms(wait_ms));
    gather::gather(call, gathering, deadline, Request::DeleteRecords, unpack, move |call, slots| build(call, named, slots))
}

fn check(meta: &Meta, name: &str, index: i32, offset: Offset) -> Result<PartitionId, ErrorCode> {
    if !is_allowed(Operation::Delete, Resource::Topic(name)) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    if is_internal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = TopicRef::Name(name).partition(meta, index)?;
    if offset < -1 { Err(ErrorCode::OffsetOutOfRange) } else { Ok(partition) }
}

fn unpack(reply: Reply) -> Vec<Slot> {
    match reply {
        Reply::Deleted(results) => results.into_iter().map(|result| result.map_err(|error| errors::of_read(&error).0)).collect(),
        _ => Vec::new(),
    }
}

fn build(call: &mut Call<'_, '_>, named: Named, slots: Vec<Option<Slot>>) -> Answer {
    let row = |index: i32, slot: Option<Slot>| {
        let (code, low) = match slot.unwrap_or(Err(ErrorCode::RequestTimedOut)) {
            Ok(log_start) => (ErrorCode::None, log_start),
            Err(code) => (code, -1),
        };
        DeleteRecordsPartitionResult::default().with_partition_index(index).with_low_watermark(low).with_error_code(code.code())
    };
    let topic = |(name, partitions): (String, Vec<DeleteRecordsPartitionResult>)| {
        DeleteRecordsTopicResult::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    let topics = by_topic(named, slots, row).into_iter().map(topic).collect();
    call.asked.answer(&DeleteRecordsResponse::default().with_topics(topics))
}
