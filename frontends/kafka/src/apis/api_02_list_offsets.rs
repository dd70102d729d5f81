//! ListOffsets.
//!
//! v1 one offset and its timestamp; v2 isolation level; v4 leader epochs; v7 max timestamp (-3); v8 earliest local (-4); v9 latest tiered (-5);
//! v10 timeout; v11 earliest pending upload (-6).
//!
//! 1. A partition named twice is INVALID_REQUEST, as in Kafka; one that does not exist UNKNOWN_TOPIC_OR_PARTITION.
//! 2. A special timestamp that the version does not have is UNSUPPORTED_VERSION for its partition.
//! 3. Without tiered storage the earliest local offset is the earliest, and no offset is tiered or waits for an upload: -1 without an error.

use std::collections::BTreeMap;

use kafka_protocol::messages::ListOffsetsResponse;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use millrace_shard::api::{OffsetAt, OffsetFound, OffsetQuery, ReadError, Reply, Request};

use crate::call::{Answer, Call, Outcome};
use crate::errors;
use crate::gather::{self, Gather, Named, by_topic};
use crate::names::{TopicRef, topic_name};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::ListOffsetsRequest;

const NONE: OffsetFound = OffsetFound { offset: -1, timestamp: -1, epoch: -1 };

enum Slot {
    Refused(ErrorCode),
    Found(Result<OffsetFound, ReadError>),
}

/// What a timestamp asks for: a place, nothing (there is no tier), or an error.
fn place(timestamp: i64, version: i16) -> Result<Option<OffsetAt>, ErrorCode> {
    match timestamp {
        0.. => Ok(Some(OffsetAt::Time(timestamp))),
        -1 => Ok(Some(OffsetAt::Latest)),
        -2 => Ok(Some(OffsetAt::Earliest)),
        -3 if version >= 7 => Ok(Some(OffsetAt::MaxTimestamp)),
        -4 if version >= 8 => Ok(Some(OffsetAt::Earliest)),
        -5 if version >= 9 => Ok(None),
        -6 if version >= 11 => Ok(None),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

pub fn handle(call: &mut Call<'_, '_>, request: ListOffsetsRequest<'_>) -> Outcome {
    let mut times: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            *times.entry((topic.name, partition.partition_index)).or_default() += 1;
        }
    }
    let mut gathering: Gather<OffsetQuery, Slot> = Gather::new();
    let mut named: Named = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        for asked in &topic.partitions {
            let is_twice = times.get(&(topic.name, asked.partition_index)).is_some_and(|times| *times > 1);
            let partition = if is_twice {
                Err(ErrorCode::InvalidRequest)
            } else {
                TopicRef::Name(topic.name).partition(call.meta(), asked.partition_index)
            };
            match (partition, place(asked.timestamp, call.version())) {
                (Err(code), _) | (Ok(_), Err(code)) => gathering.fill(Slot::Refused(code)),
                (Ok(_), Ok(None)) => gathering.fill(Slot::Found(Ok(NONE))),
                (Ok(partition), Ok(Some(at))) => {
                    let query = OffsetQuery {
                        partition,
                        at,
                        committed_only: request.isolation_level == 1,
                        current_epoch: asked.current_leader_epoch,
                    };
                    gathering.ask(call.owner_of(partition), query);
                }
            }
        }
        named.push((topic.name.to_owned(), topic.partitions.iter().map(|partition| partition.partition_index).collect()));
    }
    gather::gather(call, gathering, None, Request::ListOffsets, unpack, move |call, slots| build(call, named, slots))
}

fn unpack(reply: Reply) -> Vec<Slot> {
    match reply {
        Reply::Offsets(results) => results.into_iter().map(Slot::Found).collect(),
        _ => Vec::new(),
    }
}

fn build(call: &mut Call<'_, '_>, named: Named, slots: Vec<Option<Slot>>) -> Answer {
    let version = call.version();
    let topic = |(name, partitions): (String, Vec<ListOffsetsPartitionResponse>)| {
        ListOffsetsTopicResponse::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    let topics = by_topic(named, slots, |index, slot| partition(index, slot, version)).into_iter().map(topic).collect();
    call.asked.answer(&ListOffsetsResponse::default().with_topics(topics))
}

fn partition(index: i32, slot: Option<Slot>, version: i16) -> ListOffsetsPartitionResponse {
    let (code, found) = match slot {
        Some(Slot::Found(Ok(found))) => (ErrorCode::None, found),
        Some(Slot::Found(Err(error))) => (errors::of_read(&error).0, NONE),
        Some(Slot::Refused(code)) => (code, NONE),
        None => (ErrorCode::UnknownServerError, NONE),
    };
    let response = ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code.code())
        .with_offset(found.offset)
        .with_timestamp(found.timestamp);
    if version >= 4 { response.with_leader_epoch(found.epoch) } else { response }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_are_those_of_the_version() {
        assert_eq!(place(0, 1), Ok(Some(OffsetAt::Time(0))));
        assert_eq!(place(-3, 6), Err(ErrorCode::UnsupportedVersion));
        assert_eq!(place(-3, 7), Ok(Some(OffsetAt::MaxTimestamp)));
        assert_eq!(place(-4, 8), Ok(Some(OffsetAt::Earliest)));
        assert_eq!(place(-5, 9), Ok(None));
        assert_eq!(place(-6, 10), Err(ErrorCode::UnsupportedVersion));
        assert_eq!(place(-6, 11), Ok(None));
        assert_eq!(place(i64::MIN, 11), Err(ErrorCode::UnsupportedVersion));
    }
}
