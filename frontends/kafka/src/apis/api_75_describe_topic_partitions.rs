//! DescribeTopicPartitions: topics a page at a time. v0 alone.
//!
//! 1. Topics are answered in the order of their names; no names are all topics.
//! 2. A page has at most the client's limit of partitions and `max.request.partition.size.limit`; where it ends, the cursor begins.
//! 3. With a cursor, topics before its own are skipped, and partitions before its own of that topic.

use std::collections::BTreeSet;

use kafka_protocol::messages::DescribeTopicPartitionsResponse;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use millrace_shard::state::meta::{Topic, is_internal};

use super::api_03_metadata::{missing_code, partition_state};
use crate::authorize::{Resource, allowed_operations};
use crate::call::{Call, Outcome};
use crate::names::{broker, topic_name, uuid};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DescribeTopicPartitionsRequest;

/// A run of partitions of one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Run {
    name: String,
    from: u32,
    to: u32,
}

pub fn handle(call: &mut Call<'_, '_>, request: DescribeTopicPartitionsRequest<'_>) -> Outcome {
    let cursor = request.cursor.as_ref().map(|cursor| (cursor.topic_name, u32::try_from(cursor.partition_index).ok()));
    if matches!(cursor, Some((_, None))) {
        let code = ErrorCode::InvalidRequest.code();
        let refused = |topic: &crate::wire::requests::DescribeTopicPartitionsTopic<'_>| {
            DescribeTopicPartitionsResponseTopic::default().with_name(Some(topic_name(topic.name))).with_error_code(code)
        };
        let topics = request.topics.iter().map(refused).collect();
        return Outcome::Done(call.asked.answer(&DescribeTopicPartitionsResponse::default().with_topics(topics)));
    }
    let (from_topic, from_partition) = cursor.map_or(("", 0), |(topic, partition)| (topic, partition.unwrap_or(0)));
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(1).max(1);
    let limit = limit.min(call.settings().max_request_partition_size_limit as usize);
    let meta = call.meta();
    let named: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name).collect();
    let all = || -> Box<dyn Iterator<Item = &str>> {
        if named.is_empty() { Box::new(meta.topics().map(|topic| topic.name.as_str())) } else { Box::new(named.iter().copied()) }
    };
    let counted = all().map(|name| (name, meta.topic_named(name).map_or(0, Topic::partitions)));
    let (runs, next) = page(counted, from_topic, from_partition, limit);
    let topics = runs.iter().map(|run| described(call, run)).collect();
    let cursor = next.map(|(name, index)| {
        Cursor::default().with_topic_name(topic_name(&name)).with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
    });
    Outcome::Done(call.asked.answer(&DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(cursor)))
}

/// The runs of one page out of topics by ascending name with their partition counts, and where the next page begins.
fn page<'a>(
    topics: impl Iterator<Item = (&'a str, u32)>,
    from_topic: &str,
    from_partition: u32,
    limit: usize,
) -> (Vec<Run>, Option<(String, u32)>) {
    let mut left = limit;
    let mut runs = Vec::new();
    for (name, count) in topics.filter(|(name, _)| *name >= from_topic) {
        if left == 0 {
            return (runs, Some((name.to_owned(), 0)));
        }
        let from = if name == from_topic { from_partition.min(count) } else { 0 };
        let most = u32::try_from(left).unwrap_or(u32::MAX);
        let to = count.min(from.saturating_add(most));
        left -= (to - from) as usize;
        runs.push(Run { name: name.to_owned(), from, to });
        if to < count {
            return (runs, Some((name.to_owned(), to)));
        }
        // A topic that does not exist counts too, so that a page of them ends.
        left = if count == 0 { left - 1 } else { left };
    }
    (runs, None)
}

fn described(call: &Call<'_, '_>, run: &Run) -> DescribeTopicPartitionsResponseTopic {
    let response = DescribeTopicPartitionsResponseTopic::default().with_name(Some(topic_name(&run.name)));
    let Some(topic) = call.meta().topic_named(&run.name) else {
        return response.with_error_code(missing_code(&run.name, None).code());
    };
    let partitions = (run.from..run.to).map(|index| {
        let state = partition_state(call, topic, index);
        let replicas = vec![broker(state.replica)];
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(if state.leader >= 0 { 0 } else { ErrorCode::LeaderNotAvailable.code() })
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(broker(state.leader))
            .with_leader_epoch(state.epoch)
            .with_offline_replicas(if state.leader >= 0 { Vec::new() } else { replicas.clone() })
            .with_isr_nodes(replicas.clone())
            .with_replica_nodes(replicas)
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    response
        .with_topic_id(uuid(topic.id))
        .with_is_internal(is_internal(&topic.name))
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(allowed_operations(Resource::Topic(&topic.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_every_partition_once() {
        let topics = [("a", 3), ("b", 1), ("c", 7), ("d", 2)];
        for limit in 1..14 {
            let (mut topic, mut partition, mut seen) = (String::new(), 0, Vec::new());
            loop {
                let (runs, next) = page(topics.iter().copied(), &topic, partition, limit);
                let on_page: Vec<(String, u32)> =
                    runs.iter().flat_map(|run| (run.from..run.to).map(|index| (run.name.clone(), index))).collect();
                assert!(on_page.len() <= limit);
                seen.extend(on_page);
                match next {
                    Some(cursor) => (topic, partition) = cursor,
                    None => break,
                }
            }
            assert_eq!(seen.len(), 13, "limit {limit}");
            assert!(seen.is_sorted());
        }
    }

    #[test]
    fn a_page_of_unknown_topics_ends() {
        let (runs, next) = page([("a", 0), ("b", 0), ("c", 0)].into_iter(), "", 0, 2);
        assert_eq!((runs.len(), next), (2, Some(("c".to_owned(), 0))));
    }
}
