//! DescribeProducers: the idempotent producers that a partition remembers. v0 alone.

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersResponse, ProducerId};
use millrace_base::ids::PartitionId;
use millrace_shard::api::{ProducerRow, Reply, Request};

use crate::call::{Answer, Call, Outcome};
use crate::errors::{self, Refusal, plain};
use crate::gather::{self, Gather, Named, by_topic};
use crate::names::{self, TopicRef, topic_name};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DescribeProducersRequest;

type Slot = Result<Vec<ProducerRow>, Refusal>;

/// Partitions in one request to a shard: each may remember thousands of producers.
const CHUNK: usize = 4;

/// Producers in one answer.
const ROWS_MAX: usize = 200_000;

fn rows(slot: &Slot) -> usize {
    slot.as_ref().map_or(0, Vec::len)
}

fn beyond() -> Slot {
    Err((ErrorCode::InvalidRequest, format!("more than {ROWS_MAX} producers; ask for fewer partitions").into()))
}

pub fn handle(call: &mut Call<'_, '_>, request: DescribeProducersRequest<'_>) -> Outcome {
    let mut gathering: Gather<PartitionId, Slot> = Gather::with_chunk(CHUNK).bounded(ROWS_MAX, rows, beyond);
    let mut seen = std::collections::BTreeSet::new();
    let mut named: Named = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        for index in &topic.partition_indexes {
            match TopicRef::Name(topic.name).partition(call.meta(), *index) {
                Err(code) => gathering.fill(Err(plain(code))),
                Ok(partition) if !seen.insert(partition) => gathering.fill(Err(plain(ErrorCode::InvalidRequest))),
                Ok(partition) => gathering.ask(call.owner_of(partition), partition),
            }
        }
        named.push((topic.name.to_owned(), topic.partition_indexes.clone()));
    }
    gather::gather(call, gathering, None, Request::DescribeProducers, unpack, move |call, slots| build(call, named, slots))
}

fn unpack(reply: Reply) -> Vec<Slot> {
    match reply {
        Reply::Producers(results) => results.into_iter().map(|result| result.map_err(|error| errors::of_read(&error))).collect(),
        _ => Vec::new(),
    }
}

fn build(call: &mut Call<'_, '_>, named: Named, slots: Vec<Option<Slot>>) -> Answer {
    let topic = |(name, partitions): (String, Vec<PartitionResponse>)| {
        TopicResponse::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    let topics = by_topic(named, slots, partition).into_iter().map(topic).collect();
    call.asked.answer(&DescribeProducersResponse::default().with_topics(topics))
}

fn partition(index: i32, slot: Option<Slot>) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    match slot.unwrap_or_else(|| Err(plain(ErrorCode::UnknownServerError))) {
        Ok(rows) => response.with_active_producers(rows.into_iter().map(state).collect()),
        Err((code, message)) => response.with_error_code(code.code()).with_error_message(Some(names::message(&message))),
    }
}

fn state(row: ProducerRow) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(row.producer))
        .with_producer_epoch(i32::from(row.epoch))
        .with_last_sequence(row.last_sequence)
        .with_last_timestamp(row.last_timestamp)
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(-1)
}
