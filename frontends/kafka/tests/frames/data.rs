//! Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, InitProducerId, DeleteRecords, Metadata, DescribeTopicPartitions.

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DescribeTopicPartitionsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, TopicName, TransactionalId,
};
use millrace_kafka::wire::table::Api;
use uuid::Uuid;

use super::{Frame, frames, text};

pub const TOPIC_ID: Uuid = Uuid::from_bytes([7, 6, 5, 4, 3, 2, 1, 0, 9, 8, 7, 6, 5, 4, 3, 2]);

fn name(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn junk() -> std::collections::BTreeMap<i32, Bytes> {
    [(7, Bytes::from_static(b"unknown")), (300, Bytes::from_static(&[0xff; 200])), (70_000, Bytes::new())].into()
}

fn produce(v: i16, full: bool) -> ProduceRequest {
    let mut request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000);
    if !full {
        return request;
    }
    request.transactional_id = Some(TransactionalId(text("tx")));
    for records in [Some(Bytes::from_static(b"batch one")), None, Some(Bytes::new())] {
        let mut partition = PartitionProduceData::default().with_index(5).with_records(records);
        let mut topic = TopicProduceData::default();
        if v >= 13 {
            topic.topic_id = TOPIC_ID;
        } else {
            topic.name = name("orders");
        }
        if v >= 9 {
            partition.unknown_tagged_fields = junk();
            topic.unknown_tagged_fields = junk();
            request.unknown_tagged_fields = junk();
        }
        topic.partition_data = vec![partition; 2];
        request.topic_data.push(topic);
    }
    request
}

fn fetch(v: i16, full: bool) -> FetchRequest {
    let mut request = FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_max_bytes(1 << 20).with_isolation_level(1);
    if v >= 7 {
        request = request.with_session_id(77).with_session_epoch(3);
    }
    if !full {
        return request;
    }
    if v >= 15 {
        request.replica_state = ReplicaState::default().with_replica_id(4.into()).with_replica_epoch(9);
    } else {
        request.replica_id = 4.into();
    }
    let mut partition = FetchPartition::default().with_partition(2).with_fetch_offset(1 << 40).with_partition_max_bytes(4096);
    let mut topic = FetchTopic::default();
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
    if v >= 13 {
        topic.topic_id = TOPIC_ID;
        forgotten.topic_id = TOPIC_ID;
    } else {
        topic.topic = name("orders");
        forgotten.topic = name("gone");
    }
    if v >= 5 {
        partition.log_start_offset = 12;
    }
    if v >= 9 {
        partition.current_leader_epoch = 8;
    }
    if v >= 11 {
        request.rack_id = text("rack");
    }
    if v >= 12 {
        partition.last_fetched_epoch = 6;
        request.cluster_id = Some(text("cluster"));
        partition.unknown_tagged_fields = junk();
        topic.unknown_tagged_fields = junk();
        request.unknown_tagged_fields = junk();
    }
    if v >= 17 {
        partition.replica_directory_id = TOPIC_ID;
    }
    if v >= 18 {
        partition.high_watermark = 1 << 41;
    }
    topic.partitions = vec![partition; 3];
    request.topics = vec![topic; 2];
    if v >= 7 {
        request.forgotten_topics_data = vec![forgotten; 2];
    }
    request
}

fn list_offsets(v: i16, full: bool) -> ListOffsetsRequest {
    let mut request = ListOffsetsRequest::default().with_replica_id((-1).into());
    if v >= 2 {
        request.isolation_level = 1;
    }
    if v >= 10 {
        request.timeout_ms = 1234;
    }
    if full {
        let mut partition = ListOffsetsPartition::default().with_partition_index(3).with_timestamp(-2);
        if v >= 4 {
            partition.current_leader_epoch = 11;
        }
        request.topics = vec![ListOffsetsTopic::default().with_name(name("orders")).with_partitions(vec![partition; 4]); 2];
    }
    request
}

fn offset_for_leader_epoch(v: i16, full: bool) -> OffsetForLeaderEpochRequest {
    let mut request = OffsetForLeaderEpochRequest::default();
    if v >= 3 {
        request.replica_id = 2.into();
    }
    if full {
        let partition = OffsetForLeaderPartition::default().with_partition(1).with_current_leader_epoch(4).with_leader_epoch(3);
        request.topics = vec![OffsetForLeaderTopic::default().with_topic(name("orders")).with_partitions(vec![partition; 2]); 2];
    }
    request
}

fn init_producer_id(v: i16, full: bool) -> InitProducerIdRequest {
    let mut request = InitProducerIdRequest::default().with_transaction_timeout_ms(60_000);
    request.transactional_id = full.then(|| TransactionalId(text("tx")));
    if v >= 3 {
        request = request.with_producer_id(4000.into()).with_producer_epoch(17);
    }
    request
}

fn delete_records(_v: i16, full: bool) -> DeleteRecordsRequest {
    let mut request = DeleteRecordsRequest::default().with_timeout_ms(9);
    if full {
        let partition = DeleteRecordsPartition::default().with_partition_index(1).with_offset(-1);
        request.topics = vec![DeleteRecordsTopic::default().with_name(name("orders")).with_partitions(vec![partition; 2])];
    }
    request
}

fn metadata(v: i16, full: bool) -> MetadataRequest {
    let mut request = MetadataRequest::default();
    if v >= 4 {
        request.allow_auto_topic_creation = false;
    }
    if v >= 8 {
        request.include_topic_authorized_operations = true;
    }
    if (8..=10).contains(&v) {
        request.include_cluster_authorized_operations = true;
    }
    let mut topics = vec![MetadataRequestTopic::default().with_name(Some(name("orders"))); 3];
    if v >= 10 {
        topics.push(MetadataRequestTopic::default().with_name(None).with_topic_id(TOPIC_ID));
    }
    request.topics = match (full, v) {
        (true, _) => Some(topics),
        (false, 0) => Some(Vec::new()),
        (false, _) => None,
    };
    request
}

fn describe_topic_partitions(_v: i16, full: bool) -> DescribeTopicPartitionsRequest {
    let mut request = DescribeTopicPartitionsRequest::default();
    if full {
        request.topics = vec![TopicRequest::default().with_name(name("orders")); 3];
        request.response_partition_limit = 10;
        request.cursor = Some(Cursor::default().with_topic_name(name("orders")).with_partition_index(6));
    }
    request
}

pub fn all() -> Vec<Frame> {
    let mut all = frames(Api::Produce, 13, produce);
    all.extend(frames(Api::Fetch, 18, fetch));
    all.extend(frames(Api::ListOffsets, 10, list_offsets));
    all.extend(frames(Api::OffsetForLeaderEpoch, 4, offset_for_leader_epoch));
    all.extend(frames(Api::InitProducerId, 5, init_producer_id));
    all.extend(frames(Api::DeleteRecords, 2, delete_records));
    all.extend(frames(Api::Metadata, 13, metadata));
    all.extend(frames(Api::DescribeTopicPartitions, 0, describe_topic_partitions));
    all
}
