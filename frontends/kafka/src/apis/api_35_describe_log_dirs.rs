//! DescribeLogDirs: the bytes of partitions by data directory.
//!
//! v3 an error for all; v4 total and usable bytes of the file system, -1 where it does not say; v5 whether a directory is cordoned, which none
//! is.
//!
//! Every data directory of this node is listed, with or without partitions; one that has failed or is missing with KAFKA_STORAGE_ERROR and
//! without partitions. What was asked for and is not here is left out, as in Kafka.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::DescribeLogDirsResponse;
use kafka_protocol::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use millrace_base::ids::PartitionId;
use millrace_shard::api::{LogSize, ReadError, Reply, Request};

use crate::call::{Answer, Call, Outcome};
use crate::gather::{self, Gather};
use crate::names::{TopicRef, partition_of, text, topic_name};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DescribeLogDirsRequest;
use crate::wire::response::encode_describe_log_dirs;

/// Directory, topic, partition.
type Sizes = BTreeMap<String, BTreeMap<String, BTreeMap<u32, u64>>>;

pub fn handle(call: &mut Call<'_, '_>, request: DescribeLogDirsRequest<'_>) -> Outcome {
    let mut wanted: BTreeSet<PartitionId> = BTreeSet::new();
    match &request.topics {
        None => {
            for topic in call.meta().topics() {
                wanted.extend((0..topic.partitions()).map(|index| PartitionId { topic: topic.id, index }));
            }
        }
        Some(topics) => {
            for asked in topics {
                let Ok(topic) = TopicRef::Name(asked.topic).find(call.meta()) else { continue };
                wanted.extend(asked.partitions.iter().filter_map(|index| partition_of(topic, *index).ok()));
            }
        }
    }
    let mut gathering: Gather<PartitionId, Result<LogSize, ReadError>> = Gather::new();
    for partition in &wanted {
        gathering.ask(call.owner_of(*partition), *partition);
    }
    gather::gather(call, gathering, None, Request::DescribeLogs, unpack, move |call, slots| build(call, &wanted, slots))
}

fn unpack(reply: Reply) -> Vec<Result<LogSize, ReadError>> {
    match reply {
        Reply::Logs(results) => results,
        _ => Vec::new(),
    }
}

fn build(call: &mut Call<'_, '_>, wanted: &BTreeSet<PartitionId>, slots: Vec<Option<Result<LogSize, ReadError>>>) -> Answer {
    let meta = call.meta();
    let directories = call.directories();
    let healthy = || directories.iter().filter(|directory| !directory.is_failed);
    let mut sizes: Sizes = healthy().map(|directory| (directory.path.clone(), BTreeMap::new())).collect();
    for (partition, slot) in wanted.iter().zip(slots) {
        let (Some(Ok(log)), Some(topic)) = (slot, meta.topic(partition.topic)) else { continue };
        let topics = sizes.entry(log.directory).or_default();
        topics.entry(topic.name.clone()).or_default().insert(partition.index, log.bytes);
    }
    // One may be missing where another has taken its place.
    let failed = directories.iter().filter(|directory| directory.is_failed).map(|directory| &directory.path);
    let failed: BTreeSet<&String> = failed.filter(|path| !sizes.contains_key(*path)).collect();
    let of_failed =
        |path: &String| result(path, BTreeMap::new(), None, call.version()).with_error_code(ErrorCode::KafkaStorageError.code());
    let mut results: Vec<DescribeLogDirsResult> = failed.into_iter().map(of_failed).collect();
    results.extend(sizes.into_iter().map(|(path, topics)| {
        let space = healthy().find(|directory| directory.path == path).and_then(|directory| directory.space);
        result(&path, topics, space, call.version())
    }));
    let response = DescribeLogDirsResponse::default().with_results(results);
    Answer::from_frame(encode_describe_log_dirs(call.version(), call.asked.correlation_id, &response))
}

/// `space`: bytes free to us, and bytes in all.
fn result(directory: &str, topics: BTreeMap<String, BTreeMap<u32, u64>>, space: Option<(u64, u64)>, version: i16) -> DescribeLogDirsResult {
    let partition = |(index, bytes): (u32, u64)| {
        DescribeLogDirsPartition::default().with_partition_index(i32::try_from(index).unwrap_or(i32::MAX)).with_partition_size(long(bytes))
    };
    let topic = |(name, partitions): (String, BTreeMap<u32, u64>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        DescribeLogDirsTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    let response = DescribeLogDirsResult::default().with_log_dir(text(directory)).with_topics(topics.into_iter().map(topic).collect());
    if version < 4 {
        return response;
    }
    let (free, all) = space.map_or((-1, -1), |(free, all)| (long(free), long(all)));
    response.with_total_bytes(all).with_usable_bytes(free)
}

fn long(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
