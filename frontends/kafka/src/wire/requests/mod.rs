//! Every served request as a plain struct that borrows from its frame.
//!
//! Declared as Kafka's schemas are, version ranges included, for the versions of [`super::table`] only: what older versions had is absent.
//! Bytes after the end of a body are passed over, as Kafka does: librdkafka (2.16, seen) leaves three of them behind when it asks for all
//! topics.
//! Knows nothing of what the fields mean; a struct says only what the wire says.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap)]

pub mod admin;
pub mod cluster;
pub mod data;
pub mod groups;
pub mod topics;

pub use admin::*;
pub use cluster::*;
pub use data::*;
pub use groups::*;
pub use topics::*;

use super::header::RequestHeader;
use super::message::Field;
use super::reader::{DecodeError, Reader};
use super::table::Api;

/// Reads the body behind `header` as `T`, which must be the struct of `header.api`. `budget`: memory for arrays, see [`super::reader::budget_for`].
pub fn decode<'a, T: Field<'a>>(header: &RequestHeader<'_>, frame: &'a [u8], budget: usize) -> Result<T, DecodeError> {
    let mut reader = Reader::new(frame, header.body_at, header.shape(), budget).with_elements_max(header.api.elements_max());
    T::read(&mut reader, false)
}

macro_rules! requests {
    ($($name:ident ( $ty:ty ),)*) => {
        /// A decoded request of any served API.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Request<'a> {
            $($name($ty),)*
        }

        impl<'a> Request<'a> {
            /// Reads the body behind `header`; `frame` is the whole frame after its size prefix, and ranges in the result count from its first byte.
            pub fn decode(header: &RequestHeader<'_>, frame: &'a [u8], budget: usize) -> Result<Request<'a>, DecodeError> {
                match header.api {
                    $(Api::$name => decode(header, frame, budget).map(Request::$name),)*
                }
            }

            pub fn api(&self) -> Api {
                match self {
                    $(Request::$name(_) => Api::$name,)*
                }
            }
        }
    };
}

requests! {
    Produce(ProduceRequest<'a>),
    Fetch(FetchRequest<'a>),
    ListOffsets(ListOffsetsRequest<'a>),
    Metadata(MetadataRequest<'a>),
    OffsetCommit(OffsetCommitRequest<'a>),
    OffsetFetch(OffsetFetchRequest<'a>),
    FindCoordinator(FindCoordinatorRequest<'a>),
    JoinGroup(JoinGroupRequest<'a>),
    Heartbeat(HeartbeatRequest<'a>),
    LeaveGroup(LeaveGroupRequest<'a>),
    SyncGroup(SyncGroupRequest<'a>),
    DescribeGroups(DescribeGroupsRequest<'a>),
    ListGroups(ListGroupsRequest<'a>),
    ApiVersions(ApiVersionsRequest<'a>),
    CreateTopics(CreateTopicsRequest<'a>),
    DeleteTopics(DeleteTopicsRequest<'a>),
    DeleteRecords(DeleteRecordsRequest<'a>),
    InitProducerId(InitProducerIdRequest<'a>),
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest<'a>),
    DescribeAcls(DescribeAclsRequest<'a>),
    DescribeConfigs(DescribeConfigsRequest<'a>),
    AlterConfigs(AlterConfigsRequest<'a>),
    DescribeLogDirs(DescribeLogDirsRequest<'a>),
    CreatePartitions(CreatePartitionsRequest<'a>),
    DeleteGroups(DeleteGroupsRequest<'a>),
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest<'a>),
    OffsetDelete(OffsetDeleteRequest<'a>),
    DescribeCluster(DescribeClusterRequest),
    DescribeProducers(DescribeProducersRequest<'a>),
    ListConfigResources(ListConfigResourcesRequest),
    DescribeTopicPartitions(DescribeTopicPartitionsRequest<'a>),
}
