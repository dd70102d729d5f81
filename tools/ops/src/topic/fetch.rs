//! Batches of several partitions, asked of their leaders.

use std::collections::BTreeMap;

use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;

use crate::client::{Client, To, no_replica, topic_name};
use crate::failure::{Failure, Kind, Outcome};
use crate::offsets::Place;

/// Version 13 knows topics by their id alone.
const FETCH: i16 = 12;
const WAIT_MS: i32 = 500;
/// Of one of several leaders, which are asked one after the other.
const WAIT_SHORT_MS: i32 = 50;
const FETCH_BYTES_MAX: i32 = 32 << 20;
const PARTITION_BYTES_MAX: i32 = 8 << 20;

/// What each partition has from an offset on; waits a moment for the first that has anything. With `committed` nothing of transactions that are open.
///
/// # Errors
/// No broker answers.
pub fn fetch(client: &mut Client, things: &[(Place, i64)], committed: bool) -> Outcome<Vec<Outcome<PartitionData>>> {
    let led = client.by_leader(things, |((topic, partition), _)| (topic, *partition))?;
    let mut results: Vec<Outcome<PartitionData>> = things.iter().map(|_| Err(Failure::new(Kind::Failed, "no answer"))).collect();
    led.without.into_iter().for_each(|(at, failure)| results[at] = Err(failure));
    let wait = if led.nodes.len() > 1 { WAIT_SHORT_MS } else { WAIT_MS };
    for (node, things) in led.nodes {
        let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
        for (_, ((topic, partition), at)) in &things {
            let part =
                FetchPartition::default().with_partition(*partition).with_fetch_offset(*at).with_partition_max_bytes(PARTITION_BYTES_MAX);
            topics.entry(topic).or_default().push(part);
        }
        let topic = |(topic, parts)| FetchTopic::default().with_topic(topic_name(topic)).with_partitions(parts);
        let request = FetchRequest::default()
            .with_replica_id(no_replica())
            .with_max_wait_ms(wait)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES_MAX)
            .with_isolation_level(i8::from(committed))
            .with_session_epoch(-1)
            .with_topics(topics.into_iter().map(topic).collect());
        let answer = client.call(To::Node(node), FETCH, |_| request);
        for (at, ((topic, partition), _)) in &things {
            let subject = format!("{topic}-{partition}");
            results[*at] = answer.as_ref().map_err(Clone::clone).and_then(|answer| {
                Failure::check(&subject, answer.error_code, None)?;
                let found = answer.responses.iter().find(|found| found.topic.as_str() == topic);
                let found = found.and_then(|found| found.partitions.iter().find(|found| found.partition_index == *partition));
                let found = found.ok_or_else(|| Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out")))?;
                Failure::check(&subject, found.error_code, None)?;
                Ok(found.clone())
            });
        }
    }
    Ok(results)
}
