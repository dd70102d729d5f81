//! Requests that move records or speak of offsets in a log: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, InitProducerId, DeleteRecords.

use millrace_base::ids::Uuid;

use crate::wire::reader::ByteRange;

message! {
    /// Key 0. From version 13 topics are named by id.
    ProduceRequest<'a> {
        transactional_id: Option<&'a str> [3..] null [3..];
        /// 0, 1 or -1 (all).
        acks: i16 [0..];
        timeout_ms: i32 [0..];
        topic_data: Vec<TopicProduceData<'a>> [0..];
    }

    TopicProduceData<'a> {
        name: &'a str [..=12];
        topic_id: Uuid [13..];
        partition_data: Vec<PartitionProduceData> [0..];
    }

    PartitionProduceData {
        index: i32 [0..];
        /// Batches, still in the frame and not looked at.
        records: Option<ByteRange> [0..] null [0..];
    }

    /// Key 1. From version 13 topics are named by id.
    FetchRequest<'a> {
        cluster_id: Option<&'a str> [12..] null [12..] tag 0;
        replica_id: i32 [..=14] = -1;
        replica_state: ReplicaState [15..] tag 1;
        max_wait_ms: i32 [0..];
        min_bytes: i32 [0..];
        max_bytes: i32 [3..] = i32::MAX;
        /// 0 read uncommitted, 1 read committed.
        isolation_level: i8 [4..];
        session_id: i32 [7..];
        session_epoch: i32 [7..] = -1;
        topics: Vec<FetchTopic<'a>> [0..];
        forgotten_topics_data: Vec<ForgottenTopic<'a>> [7..];
        rack_id: &'a str [11..];
    }

    /// Who fetches, if it is a replica; replica id -1 is a consumer.
    ReplicaState {
        replica_id: i32 [15..] = -1;
        replica_epoch: i64 [15..] = -1;
    }

    FetchTopic<'a> {
        topic: &'a str [..=12];
        topic_id: Uuid [13..];
        partitions: Vec<FetchPartition> [0..];
    }

    FetchPartition {
        partition: i32 [0..];
        /// -1 if unknown.
        current_leader_epoch: i32 [9..] = -1;
        fetch_offset: i64 [0..];
        last_fetched_epoch: i32 [12..] = -1;
        log_start_offset: i64 [5..] = -1;
        partition_max_bytes: i32 [0..];
        replica_directory_id: Uuid [17..] tag 0;
        high_watermark: i64 [18..] tag 1 = i64::MAX;
    }

    ForgottenTopic<'a> {
        topic: &'a str [7..=12];
        topic_id: Uuid [13..];
        partitions: Vec<i32> [7..];
    }

    /// Key 2.
    ListOffsetsRequest<'a> {
        replica_id: i32 [0..];
        isolation_level: i8 [2..];
        topics: Vec<ListOffsetsTopic<'a>> [0..];
        timeout_ms: i32 [10..];
    }

    ListOffsetsTopic<'a> {
        name: &'a str [0..];
        partitions: Vec<ListOffsetsPartition> [0..];
    }

    ListOffsetsPartition {
        partition_index: i32 [0..];
        current_leader_epoch: i32 [4..] = -1;
        /// Milliseconds, or -1 to -6 for a special place of the log.
        timestamp: i64 [0..];
    }

    /// Key 23.
    OffsetForLeaderEpochRequest<'a> {
        replica_id: i32 [3..] = -2;
        topics: Vec<OffsetForLeaderTopic<'a>> [0..];
    }

    OffsetForLeaderTopic<'a> {
        topic: &'a str [0..];
        partitions: Vec<OffsetForLeaderPartition> [0..];
    }

    OffsetForLeaderPartition {
        partition: i32 [0..];
        current_leader_epoch: i32 [2..] = -1;
        leader_epoch: i32 [0..];
    }

    /// Key 22. Version 6 (two-phase commit) is unstable and not served.
    InitProducerIdRequest<'a> {
        transactional_id: Option<&'a str> [0..] null [0..];
        transaction_timeout_ms: i32 [0..];
        producer_id: i64 [3..] = -1;
        producer_epoch: i16 [3..] = -1;
    }

    /// Key 21.
    DeleteRecordsRequest<'a> {
        topics: Vec<DeleteRecordsTopic<'a>> [0..];
        timeout_ms: i32 [0..];
    }

    DeleteRecordsTopic<'a> {
        name: &'a str [0..];
        partitions: Vec<DeleteRecordsPartition> [0..];
    }

    DeleteRecordsPartition {
        partition_index: i32 [0..];
        /// The new log start; -1 is the high watermark.
        offset: i64 [0..];
    }
}
