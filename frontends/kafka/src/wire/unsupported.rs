//! The answer to a version that is not served: UNSUPPORTED_VERSION in the body of the nearest served version.
//!
//! The request's body is not read: its layout is unknown. So the error goes where an answer has one for the whole request; where errors stand
//! only beside topics, groups or resources, which were not read, the arrays are empty.
//! ApiVersions is answered in version 0 with the one entry for itself, from which the client picks a version (KIP-511).
//!
//! Knows nothing of served versions beyond the table.

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::StrBytes;

use super::errors::ErrorCode;
use super::response::{EncodeError, encode, encode_describe_log_dirs};
use super::table::Api;

/// A whole frame for a request of `api` at a `version` that is not served.
pub fn answer(api: Api, version: i16, correlation_id: i32) -> Result<Bytes, EncodeError> {
    let v = if api == Api::ApiVersions { 0 } else { api.nearest(version) };
    let id = correlation_id;
    let error = ErrorCode::UnsupportedVersion.code();
    let message = Some(StrBytes::from_static_str(ErrorCode::UnsupportedVersion.message()));
    match api {
        Api::Produce => encode(api, v, id, &kafka::ProduceResponse::default()),
        Api::Fetch => encode(api, v, id, &kafka::FetchResponse::default().with_error_code(error)),
        Api::ListOffsets => encode(api, v, id, &kafka::ListOffsetsResponse::default()),
        Api::Metadata => encode(api, v, id, &kafka::MetadataResponse::default().with_error_code(error)),
        Api::OffsetCommit => encode(api, v, id, &kafka::OffsetCommitResponse::default()),
        Api::OffsetFetch => encode(api, v, id, &kafka::OffsetFetchResponse::default().with_error_code(error)),
        Api::FindCoordinator => encode(api, v, id, &find_coordinator(v, error, message)),
        Api::JoinGroup => encode(api, v, id, &join_group(error)),
        Api::Heartbeat => encode(api, v, id, &kafka::HeartbeatResponse::default().with_error_code(error)),
        Api::LeaveGroup => encode(api, v, id, &kafka::LeaveGroupResponse::default().with_error_code(error)),
        Api::SyncGroup => encode(api, v, id, &kafka::SyncGroupResponse::default().with_error_code(error)),
        Api::DescribeGroups => encode(api, v, id, &kafka::DescribeGroupsResponse::default()),
        Api::ListGroups => encode(api, v, id, &kafka::ListGroupsResponse::default().with_error_code(error)),
        Api::ApiVersions => encode(api, v, id, &api_versions(error)),
        Api::CreateTopics => encode(api, v, id, &kafka::CreateTopicsResponse::default()),
        Api::DeleteTopics => encode(api, v, id, &kafka::DeleteTopicsResponse::default()),
        Api::DeleteRecords => encode(api, v, id, &kafka::DeleteRecordsResponse::default()),
        Api::InitProducerId => encode(api, v, id, &kafka::InitProducerIdResponse::default().with_error_code(error)),
        Api::OffsetForLeaderEpoch => encode(api, v, id, &kafka::OffsetForLeaderEpochResponse::default()),
        Api::DescribeAcls => encode(api, v, id, &kafka::DescribeAclsResponse::default().with_error_code(error).with_error_message(message)),
        Api::DescribeConfigs => encode(api, v, id, &kafka::DescribeConfigsResponse::default()),
        Api::AlterConfigs => encode(api, v, id, &kafka::AlterConfigsResponse::default()),
        Api::DescribeLogDirs => encode_describe_log_dirs(v, id, &kafka::DescribeLogDirsResponse::default().with_error_code(error)),
        Api::CreatePartitions => encode(api, v, id, &kafka::CreatePartitionsResponse::default()),
        Api::DeleteGroups => encode(api, v, id, &kafka::DeleteGroupsResponse::default()),
        Api::IncrementalAlterConfigs => encode(api, v, id, &kafka::IncrementalAlterConfigsResponse::default()),
        Api::OffsetDelete => encode(api, v, id, &kafka::OffsetDeleteResponse::default().with_error_code(error)),
        Api::DescribeCluster => {
            encode(api, v, id, &kafka::DescribeClusterResponse::default().with_error_code(error).with_error_message(message))
        }
        Api::DescribeProducers => encode(api, v, id, &kafka::DescribeProducersResponse::default()),
        Api::ListConfigResources => encode(api, v, id, &kafka::ListConfigResourcesResponse::default().with_error_code(error)),
        Api::DescribeTopicPartitions => encode(api, v, id, &kafka::DescribeTopicPartitionsResponse::default()),
    }
}

/// From version 4 errors stand beside the keys, which were not read.
fn find_coordinator(version: i16, error: i16, message: Option<StrBytes>) -> kafka::FindCoordinatorResponse {
    let answer = kafka::FindCoordinatorResponse::default();
    if version >= 4 {
        return answer;
    }
    let answer = answer.with_error_code(error).with_node_id((-1).into());
    if version >= 1 { answer.with_error_message(message) } else { answer }
}

/// To version 6 the protocol's name cannot be null.
fn join_group(error: i16) -> kafka::JoinGroupResponse {
    kafka::JoinGroupResponse::default().with_error_code(error).with_protocol_name(Some(StrBytes::new()))
}

fn api_versions(error: i16) -> kafka::ApiVersionsResponse {
    let row = Api::ApiVersions.row();
    let entry = kafka::api_versions_response::ApiVersion::default()
        .with_api_key(row.key)
        .with_min_version(row.advertised_min)
        .with_max_version(row.max);
    kafka::ApiVersionsResponse::default().with_error_code(error).with_api_keys(vec![entry])
}
