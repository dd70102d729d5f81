//! Names and ids: from the request's to what exists, and from ours to kafka-protocol's types.
//!
//! Knows nothing of requests.

use kafka_protocol::messages::{BrokerId, GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;
use millrace_base::ids::{NodeId, PartitionId, Uuid};
use millrace_shard::state::meta::{Meta, Topic};

use crate::wire::errors::ErrorCode;

/// Bytes of a message.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// How a request names a topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TopicRef<'a> {
    Name(&'a str),
    Id(Uuid),
}

impl<'a> TopicRef<'a> {
    /// The topic, or the error for it.
    pub fn find(self, meta: &Meta) -> Result<&Topic, ErrorCode> {
        match self {
            TopicRef::Name(name) => meta.topic_named(name).ok_or(ErrorCode::UnknownTopicOrPartition),
            TopicRef::Id(id) => meta.topic(id).ok_or(ErrorCode::UnknownTopicId),
        }
    }

    /// The topic's partition, or the error for it.
    pub fn partition(self, meta: &Meta, index: i32) -> Result<PartitionId, ErrorCode> {
        partition_of(self.find(meta)?, index)
    }
}

/// A partition that exists.
pub fn partition_of(topic: &Topic, index: i32) -> Result<PartitionId, ErrorCode> {
    match u32::try_from(index) {
        Ok(index) if index < topic.partitions() => Ok(PartitionId { topic: topic.id, index }),
        _ => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// What a person reads in an answer. It may repeat what the client sent, and older versions write its length in 16 bits.
pub fn message(text: &str) -> StrBytes {
    StrBytes::from_string(text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

pub fn broker(node: NodeId) -> BrokerId {
    BrokerId(node)
}

pub fn uuid(id: Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(id.0)
}
