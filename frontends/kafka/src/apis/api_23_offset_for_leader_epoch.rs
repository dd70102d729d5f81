//! OffsetForLeaderEpoch: where an epoch ended.
//!
//! v2 current leader epoch; v3 replica id; v4 form only.
//!
//! An epoch that nothing is known of has epoch and end -1, without an error.

use kafka_protocol::messages::OffsetForLeaderEpochResponse;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use millrace_shard::api::{EpochEnd, EpochQuery, Reply, Request};

use crate::call::{Answer, Call, Outcome};
use crate::errors;
use crate::gather::{self, Gather, Named, by_topic};
use crate::names::{TopicRef, topic_name};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::OffsetForLeaderEpochRequest;

type Slot = Result<Option<EpochEnd>, ErrorCode>;

pub fn handle(call: &mut Call<'_, '_>, request: OffsetForLeaderEpochRequest<'_>) -> Outcome {
    let mut gathering: Gather<EpochQuery, Slot> = Gather::new();
    let mut named: Named = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        for asked in &topic.partitions {
            match TopicRef::Name(topic.topic).partition(call.meta(), asked.partition) {
                Err(code) => gathering.fill(Err(code)),
                Ok(_) if asked.leader_epoch < 0 => gathering.fill(Ok(None)),
                Ok(partition) => {
                    let query = EpochQuery { partition, epoch: asked.leader_epoch, current_epoch: asked.current_leader_epoch };
                    gathering.ask(call.owner_of(partition), query);
                }
            }
        }
        named.push((topic.topic.to_owned(), topic.partitions.iter().map(|partition| partition.partition).collect()));
    }
    gather::gather(call, gathering, None, Request::EpochEnds, unpack, move |call, slots| build(call, named, slots))
}

fn unpack(reply: Reply) -> Vec<Slot> {
    match reply {
        Reply::EpochEnds(results) => results.into_iter().map(|result| result.map_err(|error| errors::of_read(&error).0)).collect(),
        _ => Vec::new(),
    }
}

fn build(call: &mut Call<'_, '_>, named: Named, slots: Vec<Option<Slot>>) -> Answer {
    let row = |index: i32, slot: Option<Slot>| {
        let (code, end) = match slot.unwrap_or(Err(ErrorCode::UnknownServerError)) {
            Ok(end) => (ErrorCode::None, end),
            Err(code) => (code, None),
        };
        EpochEndOffset::default()
            .with_partition(index)
            .with_error_code(code.code())
            .with_leader_epoch(end.map_or(-1, |end| end.epoch))
            .with_end_offset(end.map_or(-1, |end| end.end))
    };
    let topic = |(name, partitions): (String, Vec<EpochEndOffset>)| {
        OffsetForLeaderTopicResult::default().with_topic(topic_name(&name)).with_partitions(partitions)
    };
    let topics = by_topic(named, slots, row).into_iter().map(topic).collect();
    call.asked.answer(&OffsetForLeaderEpochResponse::default().with_topics(topics))
}
