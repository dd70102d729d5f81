//! The engine's errors as Kafka's codes: one exhaustive match per enum, and nowhere else.
//!
//! Where an answer has room for a message it says what was found and what would be allowed.
//!
//! Knows nothing of requests.

use std::borrow::Cow;

use millrace_base::batch::BatchError;
use millrace_base::settings;
use millrace_shard::api::{GroupUnavailable, MetaRefusal, ProduceError, ReadError};
use millrace_shard::state::groups::GroupError;
use millrace_shard::state::meta::MetaError;

use crate::wire::errors::ErrorCode;

/// A code with a message for answers that carry one. Most messages are fixed texts, which cost no memory however often they are given.
pub type Refusal = (ErrorCode, Cow<'static, str>);

pub fn of_produce(error: &ProduceError) -> Refusal {
    match error {
        ProduceError::UnknownPartition => plain(ErrorCode::UnknownTopicOrPartition),
        ProduceError::NotLeader { .. } => plain(ErrorCode::NotLeaderOrFollower),
        ProduceError::BatchTooLarge { size, max } => {
            (ErrorCode::MessageTooLarge, format!("the batch has {size} bytes; max.message.bytes allows {max}").into())
        }
        ProduceError::Timestamp { found, oldest, newest } => {
            (ErrorCode::InvalidTimestamp, format!("timestamp {found} lies outside {oldest} to {newest}, which the topic allows now").into())
        }
        ProduceError::NullKey => (ErrorCode::InvalidRecord, "a record without a key, and the topic is compacted".into()),
        ProduceError::OutOfOrderSequence { expected, found } => {
            (ErrorCode::OutOfOrderSequenceNumber, format!("sequence {found} came where {expected} was next").into())
        }
        ProduceError::ProducerFenced { current, found } => {
            (ErrorCode::InvalidProducerEpoch, format!("producer epoch {found} is older than {current}").into())
        }
        ProduceError::TooFewReplicas { live, needed } => {
            (ErrorCode::NotEnoughReplicas, format!("{live} replica(s) are in sync, {needed} are needed").into())
        }
        ProduceError::DiskFull { directory } => {
            (ErrorCode::KafkaStorageError, format!("data directory {directory} is full; writes go on as soon as there is room").into())
        }
        ProduceError::Storage { reason } => (ErrorCode::KafkaStorageError, reason.clone().into()),
        ProduceError::TimedOut => {
            (ErrorCode::RequestTimedOut, "written, but not known to be committed within the request's timeout".into())
        }
        ProduceError::UnknownOutcome => {
            (ErrorCode::NotLeaderOrFollower, "leadership ended while the batch waited: it may or may not be in the log".into())
        }
    }
}

pub fn of_read(error: &ReadError) -> Refusal {
    match error {
        ReadError::UnknownPartition => plain(ErrorCode::UnknownTopicOrPartition),
        ReadError::NotLeader { .. } => plain(ErrorCode::NotLeaderOrFollower),
        ReadError::OutOfRange { log_start, commit } => {
            (ErrorCode::OffsetOutOfRange, format!("the partition holds offsets {log_start} to {commit}").into())
        }
        ReadError::EpochFenced { current } => (ErrorCode::FencedLeaderEpoch, format!("the leader epoch is {current}").into()),
        ReadError::EpochUnknown { current } => (ErrorCode::UnknownLeaderEpoch, format!("the leader epoch is {current}").into()),
        ReadError::NotAvailable => plain(ErrorCode::OffsetNotAvailable),
        ReadError::CompactedOnly => {
            (ErrorCode::PolicyViolation, "records of a topic without the cleanup policy 'delete' cannot be deleted by offset".into())
        }
        ReadError::Storage { reason } => (ErrorCode::KafkaStorageError, reason.clone().into()),
    }
}

/// What is wrong with a batch that a client sent.
pub fn of_batch(error: &BatchError) -> Refusal {
    let code = match error {
        BatchError::Length { .. } | BatchError::Crc { .. } => ErrorCode::CorruptMessage,
        BatchError::Short { .. }
        | BatchError::Trailing { .. }
        | BatchError::Magic { .. }
        | BatchError::Count { .. }
        | BatchError::Producer
        | BatchError::Record { .. } => ErrorCode::InvalidRecord,
        // As in Kafka, where a client may not say that its timestamps are the broker's.
        BatchError::Attributes { .. } => ErrorCode::InvalidTimestamp,
    };
    (code, error.to_string().into())
}

pub fn of_meta(refusal: &MetaRefusal) -> Refusal {
    let error = match refusal {
        MetaRefusal::Unavailable { reason } => return (ErrorCode::NotController, reason.clone().into()),
        MetaRefusal::Refused(error) => error,
    };
    let code = match error {
        MetaError::TopicExists { .. } => ErrorCode::TopicAlreadyExists,
        MetaError::InvalidTopicName { .. } | MetaError::InternalTopic { .. } => ErrorCode::InvalidTopicException,
        MetaError::InvalidPartitions { .. } => ErrorCode::InvalidPartitions,
        MetaError::InvalidReplicationFactor { .. } => ErrorCode::InvalidReplicationFactor,
        MetaError::InvalidAssignment { .. } => ErrorCode::InvalidReplicaAssignment,
        MetaError::InvalidConfig { .. } | MetaError::UnknownConfig { .. } => ErrorCode::InvalidConfig,
        MetaError::UnknownTopicName { .. } => ErrorCode::UnknownTopicOrPartition,
        MetaError::UnknownTopicId { .. } => ErrorCode::UnknownTopicId,
        MetaError::TooMany { .. } | MetaError::DirectoryPartitions { .. } => ErrorCode::PolicyViolation,
        MetaError::UnknownNode { .. } => ErrorCode::BrokerIdNotRegistered,
        MetaError::NoDirectory => ErrorCode::KafkaStorageError,
        MetaError::UnknownDirectory { .. } => ErrorCode::LogDirNotFound,
        MetaError::InvalidNode { .. } => ErrorCode::InvalidRegistration,
        MetaError::ClusterIdSet { .. } => ErrorCode::InconsistentClusterId,
        MetaError::FeatureLevel { .. } => ErrorCode::FeatureUpdateFailed,
        MetaError::NoProducerIds => ErrorCode::UnknownServerError,
    };
    (code, error.to_string().into())
}

pub fn of_settings(error: &settings::Error) -> Refusal {
    let code = match error {
        settings::Error::Unknown { .. } | settings::Error::Bad { .. } | settings::Error::NoValue { .. } | settings::Error::Fixed { .. } => {
            ErrorCode::InvalidConfig
        }
    };
    (code, error.to_string().into())
}

pub fn of_group(error: GroupError) -> ErrorCode {
    match error {
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::InvalidRequest => ErrorCode::InvalidRequest,
        GroupError::TooManyGroups => ErrorCode::PolicyViolation,
        GroupError::GroupTooLarge => ErrorCode::UnknownServerError,
        GroupError::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
    }
}

pub fn of_unavailable(error: GroupUnavailable) -> ErrorCode {
    match error {
        GroupUnavailable::NotCoordinator => ErrorCode::NotCoordinator,
        GroupUnavailable::Loading => ErrorCode::CoordinatorLoadInProgress,
        GroupUnavailable::Unavailable => ErrorCode::CoordinatorNotAvailable,
    }
}

/// The code with its own message.
pub fn plain(code: ErrorCode) -> Refusal {
    (code, Cow::Borrowed(code.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::fault::Fault;

    #[test]
    fn what_may_pass_is_retriable_for_clients_and_what_stays_wrong_is_not() {
        let retriable = [
            ProduceError::NotLeader { leader: None, epoch: 0 },
            ProduceError::TooFewReplicas { live: 1, needed: 2 },
            ProduceError::DiskFull { directory: "d".into() },
            ProduceError::TimedOut,
            ProduceError::UnknownOutcome,
        ];
        assert!(retriable.iter().all(|error| of_produce(error).0.retriable()));
        let refused = [ProduceError::BatchTooLarge { size: 2, max: 1 }, ProduceError::OutOfOrderSequence { expected: 1, found: 3 }];
        assert!(refused.iter().all(|error| !of_produce(error).0.retriable()));
        for unavailable in [GroupUnavailable::NotCoordinator, GroupUnavailable::Loading, GroupUnavailable::Unavailable] {
            assert_eq!(unavailable.fault(), Fault::Retry);
            assert!(of_unavailable(unavailable).retriable());
        }
    }

    #[test]
    fn a_replication_factor_above_the_node_count_names_both_numbers() {
        let error = MetaError::InvalidReplicationFactor { asked: 3, nodes: 1 };
        let (code, message) = of_meta(&MetaRefusal::Refused(error));
        assert_eq!(code, ErrorCode::InvalidReplicationFactor);
        assert!(message.contains('3') && message.contains('1'), "{message}");
    }

    #[test]
    fn a_wrong_crc_is_corrupt_and_a_wrong_magic_is_an_invalid_record() {
        assert_eq!(of_batch(&BatchError::Crc { expected: 1, found: 2 }).0.code(), 2);
        assert_eq!(of_batch(&BatchError::Magic { found: 1 }).0.code(), 87);
    }
}
