//! Kafka's error codes: number, name, whether a client may retry, and a default message.
//!
//! Numbers, names and retriability are Kafka 4.3's. Invariants: codes run from -1 to 133 without a gap.
//! Knows nothing of which error of the engine becomes which code: that is the handlers' one map.

macro_rules! errors {
    ($($name:ident = $code:literal, $text:literal, $retry:ident, $message:literal;)*) => {
        /// What an answer carries as `error_code`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        pub enum ErrorCode {
            $($name = $code,)*
        }

        impl ErrorCode {
            /// Every code, ascending.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            pub fn code(self) -> i16 {
                match self {
                    $(ErrorCode::$name => $code,)*
                }
            }

            pub fn from_code(code: i16) -> Option<ErrorCode> {
                match code {
                    $($code => Some(ErrorCode::$name),)*
                    _ => None,
                }
            }

            /// As Kafka writes it: `UNKNOWN_TOPIC_OR_PARTITION`.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $text,)*
                }
            }

            /// For answers that have room for a message and nothing more precise to say.
            pub fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $message,)*
                }
            }

            /// Whether Kafka's clients send the same request again by themselves.
            pub fn retriable(self) -> bool {
                match self {
                    $(ErrorCode::$name => errors!(@$retry),)*
                }
            }
        }
    };
    (@retriable) => { true };
    (@final) => { false };
}

errors! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", final, "an unforeseen error in the broker; its log says more";
    None = 0, "NONE", final, "no error";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", final, "the offset lies outside what the partition holds";
    CorruptMessage = 2, "CORRUPT_MESSAGE", retriable, "the batch does not match its CRC, or is not a batch that can be read";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", retriable, "this broker has no such topic or partition";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", final, "the fetch size is not valid";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", retriable, "the partition has no leader at the moment";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", retriable, "this broker is not the partition's leader or, for a follower's request, not a replica";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retriable, "the time allowed for the request has passed";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", final, "the broker is not available";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", retriable, "the replica is not available";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", final, "a batch is larger than the topic allows";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", final, "the controller that sent this has been replaced";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", final, "the metadata beside a committed offset is too large";
    NetworkException = 13, "NETWORK_EXCEPTION", retriable, "the connection ended before an answer came";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retriable, "the coordinator is still reading its state";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retriable, "no coordinator is available at the moment";
    NotCoordinator = 16, "NOT_COORDINATOR", retriable, "this broker does not coordinate that group or transaction";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", final, "the topic's name is not allowed, or the topic must not be used so";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", final, "the batches are larger than a segment may be";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retriable, "fewer replicas are in sync than the topic demands; nothing was written";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retriable, "the batch was written, but fewer replicas are in sync than the topic demands";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", final, "acks is neither 0, 1 nor -1";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", final, "the group is in another generation";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", final, "the member shares no protocol with the group, or names none";
    InvalidGroupId = 24, "INVALID_GROUP_ID", final, "the group id is not valid";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", final, "the group has no such member";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", final, "the session timeout lies outside the range that the broker allows";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", final, "the group is rebalancing; join again";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", final, "the offsets to commit are too large";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", final, "not authorized for the topic";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", final, "not authorized for the group";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", final, "not authorized for the cluster";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", final, "a record's timestamp lies outside the range that the topic allows";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", final, "the SASL mechanism is not enabled here";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", final, "the request does not fit the state of the SASL exchange";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", final, "this version of the API is not served";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", final, "a topic of this name exists";
    InvalidPartitions = 37, "INVALID_PARTITIONS", final, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", final, "the replication factor is below 1 or above the number of brokers";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", final, "the assignment of replicas is not valid";
    InvalidConfig = 40, "INVALID_CONFIG", final, "a setting is unknown or its value not allowed";
    NotController = 41, "NOT_CONTROLLER", retriable, "this broker is not the controller";
    InvalidRequest = 42, "INVALID_REQUEST", final, "the request contradicts itself or the protocol";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", final, "the format of the stored batches does not allow this";
    PolicyViolation = 44, "POLICY_VIOLATION", final, "a policy of the broker forbids this";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", final, "the producer's sequence number does not follow the last one";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", final, "the producer's sequence number was already written";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", final, "the producer's epoch is out of date";
    InvalidTxnState = 48, "INVALID_TXN_STATE", final, "the transaction's state does not allow this";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", final, "the producer id does not belong to the transactional id";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", final, "the transaction timeout is above what the broker allows";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", retriable, "another operation on the transaction is still running";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", final, "the coordinator that sent the marker has been replaced";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", final, "not authorized for the transactional id";
    SecurityDisabled = 54, "SECURITY_DISABLED", final, "no authorizer is configured on this broker";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", final, "not attempted, because an earlier part of the request failed";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", retriable, "the data directory of the partition cannot be read or written";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", final, "the broker has no such data directory";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", final, "authentication failed";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", final, "nothing is known of this producer id";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", final, "the partition is already being reassigned";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", final, "delegation tokens are not enabled";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", final, "there is no such delegation token";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", final, "the principal neither owns nor may renew the delegation token";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", final, "delegation tokens cannot be requested over this connection";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", final, "not authorized for the delegation token";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", final, "the delegation token has expired";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", final, "principals of this type are not known";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", final, "the group has members";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", final, "there is no such group";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retriable, "there is no such fetch session";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retriable, "the fetch session is at another epoch";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", retriable, "the partition's leader has no listener of this name";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", final, "deletion of topics is disabled";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", retriable, "the leader epoch in the request is older than the partition's";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retriable, "the leader epoch in the request is newer than the partition's";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", final, "the client's version cannot read this compression";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", final, "the broker epoch is out of date";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retriable, "the new leader does not yet know up to where records may be read";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", final, "join again with the member id given";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", retriable, "the preferred leader is not available";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", final, "the group has as many members as it may";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", final, "another member has taken over this group instance id";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", retriable, "no replica is eligible to lead the partition";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", retriable, "the partition already has the leader asked for";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", final, "the partition is not being reassigned";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", final, "the group is subscribed to the topic";
    InvalidRecord = 87, "INVALID_RECORD", final, "a batch breaks a rule of its topic or of the format";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retriable, "a transaction has offsets pending here";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retriable, "the quota is used up; retry later";
    ProducerFenced = 90, "PRODUCER_FENCED", final, "a newer producer uses the same transactional id";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", final, "there is no such resource";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", final, "a resource is named twice";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", final, "the credential does not meet the requirements";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", final, "sender or receiver is not among the voters expected";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", final, "the update's version is not valid";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", final, "the features could not be updated";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", final, "the forwarded principal cannot be read";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", final, "there is no such snapshot";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", final, "the position lies outside the snapshot";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", retriable, "this broker has no topic of this id";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", final, "a broker of this id is registered";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", final, "no broker of this id is registered";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", retriable, "the topic's id here differs from the one in the request";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", final, "the request is meant for another cluster";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", final, "there is no such transactional id";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retriable, "the fetch session mixes topic names and topic ids";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", final, "a replica in the new in-sync set is not eligible";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", final, "the partition changed, and its leader with it";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", final, "the offset is held in object storage only";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", final, "the member's epoch is fenced; give up all partitions and join again";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", final, "another member still holds this group instance id";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", final, "the group does not support this assignor";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", final, "the member's epoch is out of date; learn the new one by a heartbeat";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", final, "this endpoint serves another kind of request";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", final, "this kind of endpoint is not supported";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", final, "there is no such controller";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", final, "the telemetry subscription is unknown or out of date";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", final, "the telemetry is larger than the broker takes";
    InvalidRegistration = 119, "INVALID_REGISTRATION", final, "the broker's registration is not valid";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", final, "the transaction failed; abort it to go on";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", final, "the record's delivery state does not allow this";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", retriable, "there is no such share session";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", retriable, "the share session is at another epoch";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", final, "the share group's state epoch differs";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", final, "the voter's key is not this replica's";
    DuplicateVoter = 126, "DUPLICATE_VOTER", final, "the voter is already in the set";
    VoterNotFound = 127, "VOTER_NOT_FOUND", final, "the voter is not in the set";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", final, "the regular expression is not valid";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", final, "what the client knows of the cluster is out of date; start again from the bootstrap addresses";
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", final, "the streams topology is not valid";
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", final, "the streams topology's epoch is not valid";
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", final, "the streams topology's epoch is out of date";
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", retriable, "the broker has as many share sessions as it may";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.name(), self.code(), self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_run_without_a_gap() {
        let codes: Vec<i16> = ErrorCode::ALL.iter().map(|error| error.code()).collect();
        assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
        assert!(ErrorCode::ALL.iter().all(|error| ErrorCode::from_code(error.code()) == Some(*error)));
        assert_eq!(ErrorCode::from_code(134), None);
    }

    #[test]
    fn codes_agree_with_kafka_protocol() {
        for error in ErrorCode::ALL {
            let Some(theirs) = kafka_protocol::ResponseError::try_from_code(error.code()) else {
                assert_eq!(error.code(), 0);
                continue;
            };
            let name: String = format!("{theirs:?}").chars().take_while(|c| *c != '(').collect();
            if name != "Unknown" {
                assert_eq!(name.to_lowercase(), error.name().replace('_', "").to_lowercase());
            }
        }
    }

    #[test]
    fn retriable_codes_are_kafkas() {
        let codes: Vec<i16> = ErrorCode::ALL.iter().filter(|error| error.retriable()).map(|error| error.code()).collect();
        let kafka_4_3 = [
            2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88, 89, 100, 103, 106, 122, 123, 133,
        ];
        assert_eq!(codes, kafka_4_3);
    }
}
