//! Requests that describe topics, make them or take them away.

use millrace_base::ids::Uuid;

message! {
    /// Key 3.
    MetadataRequest<'a> {
        /// None is every topic, from version 1; in version 0 an empty list is.
        topics: Option<Vec<MetadataRequestTopic<'a>>> [0..] null [1..] = Some(Vec::new());
        allow_auto_topic_creation: bool [4..] = true;
        include_cluster_authorized_operations: bool [8..=10];
        include_topic_authorized_operations: bool [8..];
    }

    /// By id (not zero, name null) or by name.
    MetadataRequestTopic<'a> {
        topic_id: Uuid [10..];
        name: Option<&'a str> [0..] null [10..] = Some("");
    }

    /// Key 75.
    DescribeTopicPartitionsRequest<'a> {
        topics: Vec<DescribeTopicPartitionsTopic<'a>> [0..];
        response_partition_limit: i32 [0..] = 2000;
        cursor: Option<TopicPartitionsCursor<'a>> [0..] null [0..];
    }

    DescribeTopicPartitionsTopic<'a> {
        name: &'a str [0..];
    }

    TopicPartitionsCursor<'a> {
        topic_name: &'a str [0..];
        partition_index: i32 [0..];
    }

    /// Key 19.
    CreateTopicsRequest<'a> {
        topics: Vec<CreatableTopic<'a>> [0..];
        timeout_ms: i32 [0..] = 60_000;
        validate_only: bool [1..];
    }

    CreatableTopic<'a> {
        name: &'a str [0..];
        /// -1 is the broker's default, from version 4.
        num_partitions: i32 [0..];
        /// -1 is the broker's default, from version 4.
        replication_factor: i16 [0..];
        assignments: Vec<CreatableReplicaAssignment> [0..];
        configs: Vec<CreatableTopicConfig<'a>> [0..];
    }

    CreatableReplicaAssignment {
        partition_index: i32 [0..];
        broker_ids: Vec<i32> [0..];
    }

    CreatableTopicConfig<'a> {
        name: &'a str [0..];
        value: Option<&'a str> [0..] null [0..];
    }

    /// Key 20. To version 5 `topic_names`, from 6 `topics`.
    DeleteTopicsRequest<'a> {
        topics: Vec<DeleteTopicState<'a>> [6..];
        topic_names: Vec<&'a str> [..=5];
        timeout_ms: i32 [0..];
    }

    /// By id (not zero, name null) or by name.
    DeleteTopicState<'a> {
        name: Option<&'a str> [6..] null [6..];
        topic_id: Uuid [6..];
    }

    /// Key 37.
    CreatePartitionsRequest<'a> {
        topics: Vec<CreatePartitionsTopic<'a>> [0..];
        timeout_ms: i32 [0..];
        validate_only: bool [0..];
    }

    CreatePartitionsTopic<'a> {
        name: &'a str [0..];
        /// The new number of partitions.
        count: i32 [0..];
        assignments: Option<Vec<CreatePartitionsAssignment>> [0..] null [0..];
    }

    CreatePartitionsAssignment {
        broker_ids: Vec<i32> [0..];
    }
}

impl<'a> crate::wire::message::Nullable<'a> for TopicPartitionsCursor<'a> {
    fn read_nullable(reader: &mut crate::wire::reader::Reader<'a>) -> Result<Option<Self>, crate::wire::reader::DecodeError> {
        if reader.present()? { crate::wire::message::Field::read(reader, false).map(Some) } else { Ok(None) }
    }

    fn size_min(_shape: crate::wire::message::Shape) -> usize {
        1
    }
}
