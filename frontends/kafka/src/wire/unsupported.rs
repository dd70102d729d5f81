//! The answer to a version that is not served: UNSUPPORTED_VERSION in the body of the nearest served version.
//!
//! The request's body is not read: its layout is unknown. So the error goes where an answer has one for the whole request. Where errors stand
//! only beside topics, groups or resources, which were not read, the answer has one of them without a name (partition 0): an empty array
//! would look like success.
//! ApiVersions is answered in version 0 with the one entry for itself, from which the client picks a version (KIP-511).
//!
//! A produce with acks=0 has no answer, nor has it in versions that are not served, as far as it can be told.
//!
//! Knows nothing of served versions beyond the table.

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::StrBytes;

use super::errors::ErrorCode;
use super::header::PRELUDE_BYTES;
use super::message::Shape;
use super::reader::Reader;
use super::response::{EncodeError, encode, encode_describe_log_dirs};
use super::table::Api;

const ERROR: i16 = ErrorCode::UnsupportedVersion as i16;

/// A whole frame for a request of `api` at a `version` that is not served.
pub fn answer(api: Api, version: i16, correlation_id: i32) -> Result<Bytes, EncodeError> {
    let v = if api == Api::ApiVersions { 0 } else { api.nearest(version) };
    let id = correlation_id;
    match api {
        Api::Produce => encode(api, v, id, &produce()),
        Api::Fetch => encode(api, v, id, &fetch(v)),
        Api::ListOffsets => encode(api, v, id, &list_offsets()),
        Api::Metadata => encode(api, v, id, &metadata(v)),
        Api::OffsetCommit => encode(api, v, id, &offset_commit()),
        Api::OffsetFetch => encode(api, v, id, &offset_fetch(v)),
        Api::FindCoordinator => encode(api, v, id, &find_coordinator(v)),
        Api::JoinGroup => encode(api, v, id, &join_group()),
        Api::Heartbeat => encode(api, v, id, &kafka::HeartbeatResponse::default().with_error_code(ERROR)),
        Api::LeaveGroup => encode(api, v, id, &kafka::LeaveGroupResponse::default().with_error_code(ERROR)),
        Api::SyncGroup => encode(api, v, id, &kafka::SyncGroupResponse::default().with_error_code(ERROR)),
        Api::DescribeGroups => encode(api, v, id, &describe_groups(v)),
        Api::ListGroups => encode(api, v, id, &kafka::ListGroupsResponse::default().with_error_code(ERROR)),
        Api::ApiVersions => encode(api, v, id, &api_versions()),
        Api::CreateTopics => encode(api, v, id, &create_topics()),
        Api::DeleteTopics => encode(api, v, id, &delete_topics(v)),
        Api::DeleteRecords => encode(api, v, id, &delete_records()),
        Api::InitProducerId => encode(api, v, id, &kafka::InitProducerIdResponse::default().with_error_code(ERROR)),
        Api::OffsetForLeaderEpoch => encode(api, v, id, &offset_for_leader_epoch()),
        Api::DescribeAcls => {
            encode(api, v, id, &kafka::DescribeAclsResponse::default().with_error_code(ERROR).with_error_message(message()))
        }
        Api::DescribeConfigs => encode(api, v, id, &describe_configs()),
        Api::AlterConfigs => encode(api, v, id, &alter_configs()),
        Api::DescribeLogDirs => encode_describe_log_dirs(v, id, &describe_log_dirs(v)),
        Api::CreatePartitions => encode(api, v, id, &create_partitions()),
        Api::DeleteGroups => encode(api, v, id, &delete_groups()),
        Api::IncrementalAlterConfigs => encode(api, v, id, &incremental_alter_configs()),
        Api::OffsetDelete => encode(api, v, id, &kafka::OffsetDeleteResponse::default().with_error_code(ERROR)),
        Api::DescribeCluster => {
            encode(api, v, id, &kafka::DescribeClusterResponse::default().with_error_code(ERROR).with_error_message(message()))
        }
        Api::DescribeProducers => encode(api, v, id, &describe_producers()),
        Api::ListConfigResources => encode(api, v, id, &kafka::ListConfigResourcesResponse::default().with_error_code(ERROR)),
        Api::DescribeTopicPartitions => encode(api, v, id, &describe_topic_partitions()),
    }
}

/// Whether a produce at a version that is not served has acks=0; `frame` begins after the size prefix. Below the served versions the layout is
/// known as far as that: a client id, then acks.
pub fn expects_no_answer(version: i16, frame: &[u8]) -> bool {
    let mut reader = Reader::new(frame, PRELUDE_BYTES, Shape { version, flexible: false }, 0);
    (0..Api::Produce.row().min).contains(&version) && reader.classic_string().is_ok() && reader.i16() == Ok(0)
}

fn message() -> Option<StrBytes> {
    Some(StrBytes::from_static_str(ErrorCode::UnsupportedVersion.message()))
}

fn produce() -> kafka::ProduceResponse {
    use kafka::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    // No message: only some versions have room for one, and the nearest is the lowest or the highest.
    let part = PartitionProduceResponse::default().with_error_code(ERROR).with_base_offset(-1);
    kafka::ProduceResponse::default().with_responses(vec![TopicProduceResponse::default().with_partition_responses(vec![part])])
}

/// From version 7 there is an error for all of it.
fn fetch(version: i16) -> kafka::FetchResponse {
    use kafka::fetch_response::{FetchableTopicResponse, PartitionData};
    if version >= 7 {
        return kafka::FetchResponse::default().with_error_code(ERROR);
    }
    let part = PartitionData::default().with_error_code(ERROR).with_high_watermark(-1);
    kafka::FetchResponse::default().with_responses(vec![FetchableTopicResponse::default().with_partitions(vec![part])])
}

fn list_offsets() -> kafka::ListOffsetsResponse {
    use kafka::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
    let part = ListOffsetsPartitionResponse::default().with_error_code(ERROR);
    kafka::ListOffsetsResponse::default().with_topics(vec![ListOffsetsTopicResponse::default().with_partitions(vec![part])])
}

/// From version 13 there is an error for all of it.
fn metadata(version: i16) -> kafka::MetadataResponse {
    use kafka::metadata_response::MetadataResponseTopic;
    if version >= 13 {
        return kafka::MetadataResponse::default().with_error_code(ERROR);
    }
    let topic = MetadataResponseTopic::default().with_error_code(ERROR).with_name(Some(kafka::TopicName::default()));
    kafka::MetadataResponse::default().with_topics(vec![topic])
}

fn offset_commit() -> kafka::OffsetCommitResponse {
    use kafka::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
    let part = OffsetCommitResponsePartition::default().with_error_code(ERROR);
    kafka::OffsetCommitResponse::default().with_topics(vec![OffsetCommitResponseTopic::default().with_partitions(vec![part])])
}

/// An error for all of it from version 2, one a group from version 8.
fn offset_fetch(version: i16) -> kafka::OffsetFetchResponse {
    use kafka::offset_fetch_response::{OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic};
    let answer = kafka::OffsetFetchResponse::default();
    match version {
        ..2 => {
            let part = OffsetFetchResponsePartition::default().with_error_code(ERROR).with_committed_offset(-1);
            answer.with_topics(vec![OffsetFetchResponseTopic::default().with_partitions(vec![part])])
        }
        2..8 => answer.with_error_code(ERROR),
        8.. => answer.with_groups(vec![OffsetFetchResponseGroup::default().with_error_code(ERROR)]),
    }
}

/// From version 4 errors stand beside the keys, which were not read.
fn find_coordinator(version: i16) -> kafka::FindCoordinatorResponse {
    use kafka::find_coordinator_response::Coordinator;
    let answer = kafka::FindCoordinatorResponse::default();
    if version >= 4 {
        let coordinator = Coordinator::default().with_error_code(ERROR).with_error_message(message()).with_node_id((-1).into());
        return answer.with_coordinators(vec![coordinator.with_port(-1)]);
    }
    let answer = answer.with_error_code(ERROR).with_node_id((-1).into());
    if version >= 1 { answer.with_error_message(message()) } else { answer }
}

/// To version 6 the protocol's name cannot be null.
fn join_group() -> kafka::JoinGroupResponse {
    kafka::JoinGroupResponse::default().with_error_code(ERROR).with_protocol_name(Some(StrBytes::new()))
}

fn describe_groups(version: i16) -> kafka::DescribeGroupsResponse {
    use kafka::describe_groups_response::DescribedGroup;
    let group = DescribedGroup::default().with_error_code(ERROR);
    let group = if version >= 6 { group.with_error_message(message()) } else { group };
    kafka::DescribeGroupsResponse::default().with_groups(vec![group])
}

fn create_topics() -> kafka::CreateTopicsResponse {
    use kafka::create_topics_response::CreatableTopicResult;
    let topic = CreatableTopicResult::default().with_error_code(ERROR).with_error_message(message());
    kafka::CreateTopicsResponse::default().with_topics(vec![topic])
}

fn delete_topics(version: i16) -> kafka::DeleteTopicsResponse {
    use kafka::delete_topics_response::DeletableTopicResult;
    let topic = DeletableTopicResult::default().with_error_code(ERROR).with_name(Some(kafka::TopicName::default()));
    let topic = if version >= 5 { topic.with_error_message(message()) } else { topic };
    kafka::DeleteTopicsResponse::default().with_responses(vec![topic])
}

fn delete_records() -> kafka::DeleteRecordsResponse {
    use kafka::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
    let part = DeleteRecordsPartitionResult::default().with_error_code(ERROR).with_low_watermark(-1);
    kafka::DeleteRecordsResponse::default().with_topics(vec![DeleteRecordsTopicResult::default().with_partitions(vec![part])])
}

fn offset_for_leader_epoch() -> kafka::OffsetForLeaderEpochResponse {
    use kafka::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
    let part = EpochEndOffset::default().with_error_code(ERROR);
    let topic = OffsetForLeaderTopicResult::default().with_partitions(vec![part]);
    kafka::OffsetForLeaderEpochResponse::default().with_topics(vec![topic])
}

fn describe_configs() -> kafka::DescribeConfigsResponse {
    use kafka::describe_configs_response::DescribeConfigsResult;
    let resource = DescribeConfigsResult::default().with_error_code(ERROR).with_error_message(message());
    kafka::DescribeConfigsResponse::default().with_results(vec![resource])
}

fn alter_configs() -> kafka::AlterConfigsResponse {
    use kafka::alter_configs_response::AlterConfigsResourceResponse;
    let resource = AlterConfigsResourceResponse::default().with_error_code(ERROR).with_error_message(message());
    kafka::AlterConfigsResponse::default().with_responses(vec![resource])
}

/// From version 3 there is an error for all of it.
fn describe_log_dirs(version: i16) -> kafka::DescribeLogDirsResponse {
    use kafka::describe_log_dirs_response::DescribeLogDirsResult;
    if version >= 3 {
        return kafka::DescribeLogDirsResponse::default().with_error_code(ERROR);
    }
    kafka::DescribeLogDirsResponse::default().with_results(vec![DescribeLogDirsResult::default().with_error_code(ERROR)])
}

fn create_partitions() -> kafka::CreatePartitionsResponse {
    use kafka::create_partitions_response::CreatePartitionsTopicResult;
    let topic = CreatePartitionsTopicResult::default().with_error_code(ERROR).with_error_message(message());
    kafka::CreatePartitionsResponse::default().with_results(vec![topic])
}

fn delete_groups() -> kafka::DeleteGroupsResponse {
    use kafka::delete_groups_response::DeletableGroupResult;
    kafka::DeleteGroupsResponse::default().with_results(vec![DeletableGroupResult::default().with_error_code(ERROR)])
}

fn incremental_alter_configs() -> kafka::IncrementalAlterConfigsResponse {
    use kafka::incremental_alter_configs_response::AlterConfigsResourceResponse;
    let resource = AlterConfigsResourceResponse::default().with_error_code(ERROR).with_error_message(message());
    kafka::IncrementalAlterConfigsResponse::default().with_responses(vec![resource])
}

fn describe_producers() -> kafka::DescribeProducersResponse {
    use kafka::describe_producers_response::{PartitionResponse, TopicResponse};
    let part = PartitionResponse::default().with_error_code(ERROR).with_error_message(message());
    kafka::DescribeProducersResponse::default().with_topics(vec![TopicResponse::default().with_partitions(vec![part])])
}

fn describe_topic_partitions() -> kafka::DescribeTopicPartitionsResponse {
    use kafka::describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic;
    let topic = DescribeTopicPartitionsResponseTopic::default().with_error_code(ERROR).with_name(Some(kafka::TopicName::default()));
    kafka::DescribeTopicPartitionsResponse::default().with_topics(vec![topic])
}

fn api_versions() -> kafka::ApiVersionsResponse {
    let row = Api::ApiVersions.row();
    let entry = kafka::api_versions_response::ApiVersion::default()
        .with_api_key(row.key)
        .with_min_version(row.advertised_min)
        .with_max_version(row.max);
    kafka::ApiVersionsResponse::default().with_error_code(ERROR).with_api_keys(vec![entry])
}
