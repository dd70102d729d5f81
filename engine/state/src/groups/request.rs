//! What is asked of the groups of one partition, and what they answer.
//!
//! Versions of the wire stop in the front: where Kafka's versions differ, a flag here says which behaviour is asked for.
//!
//! Knows nothing of the wire's numbers.

use super::records::{CommittedOffset, Record};

/// Chosen by the shard; comes back with the answer.
pub type RequestToken = u64;

/// Chosen by the groups; comes back with `Groups::written`.
pub type WriteToken = u64;

/// Both clocks, in milliseconds: deadlines run on the steady one, timestamps of records on the wall's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    pub steady_ms: u64,
    pub wall_ms: i64,
}

/// Settings, by Kafka's names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `group.max.size`; never more than [`MEMBERS_MAX`].
    pub group_size_max: usize,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: u64,
    /// Memory of all groups of one partition, of the shard's.
    pub state_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            group_size_max: MEMBERS_MAX,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
            state_bytes_max: usize::MAX,
        }
    }
}

/// Members of one group, whatever `group.max.size` says.
pub const MEMBERS_MAX: usize = 10_000;
/// Groups of one partition.
pub const GROUPS_MAX: usize = 100_000;
/// Names and metadata of all protocols of one member.
pub const PROTOCOLS_BYTES_MAX: usize = 1 << 20;
/// Protocols of one member.
pub const PROTOCOLS_MAX: usize = 100;
/// Any identifier or name in a request: they are held for as long as there are members or offsets, and a group's stands in every record of it.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// A request about one group; requests about several are split by the caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    Join(Join),
    Sync(Sync),
    Heartbeat {
        group: String,
        member_id: String,
        instance_id: Option<String>,
        generation: i32,
    },
    Leave {
        group: String,
        members: Vec<Leaving>,
    },
    Commit(Commit),
    /// `partitions` None: every one that has an offset.
    FetchOffsets {
        group: String,
        partitions: Option<Vec<(String, Vec<i32>)>>,
    },
    DeleteOffsets {
        group: String,
        partitions: Vec<(String, Vec<i32>)>,
    },
    DeleteGroup {
        group: String,
    },
    Describe {
        group: String,
    },
    /// Every group of this partition.
    List,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    pub group: String,
    /// Empty: not yet known.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    /// The session timeout where the wire has none (version 0).
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// Name and metadata, in the member's order of preference.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// Versions from 4 on: a new dynamic member is told its id first.
    pub member_id_required: bool,
    /// Versions from 9 on: a static leader that comes back is told to skip the assignment.
    pub can_skip_assignment: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sync {
    pub group: String,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    /// Checked where the wire has them (version 5).
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// The leader's: assignment by member id.
    pub assignments: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaving {
    /// Empty: whoever has the instance id.
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    pub group: String,
    /// Empty, with generation -1: a simple consumer or an administrator.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    /// These offsets expire so long after now; None: with the group.
    pub retention_ms: Option<i64>,
    /// Partitions that exist; the caller has answered for others.
    pub offsets: Vec<CommitOffset>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitOffset {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

/// Why a request is refused. Each is Kafka's error of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupError {
    UnknownMemberId,
    IllegalGeneration,
    RebalanceInProgress,
    InconsistentGroupProtocol,
    InvalidSessionTimeout,
    InvalidGroupId,
    /// The group's id does not exist. For commits below version 9 Kafka says IllegalGeneration, for DescribeGroups below 6 a Dead group.
    GroupIdNotFound,
    NonEmptyGroup,
    GroupSubscribedToTopic,
    GroupMaxSizeReached,
    FencedInstanceId,
    MemberIdRequired,
    OffsetMetadataTooLarge,
    /// Retriable: the group is being deleted, or its record could not be written now.
    CoordinatorNotAvailable,
    /// Retriable after a look-up: another node leads this partition.
    NotCoordinator,
    /// A text or a list of protocols beyond our bounds.
    InvalidRequest,
    /// This partition holds [`GROUPS_MAX`] groups. Kafka has no such bound; PolicyViolation is nearest.
    TooManyGroups,
    /// The group's record is larger than the topic accepts: UnknownServerError, as in Kafka.
    GroupTooLarge,
    UnknownTopicOrPartition,
}

impl GroupError {
    pub fn fault(&self) -> millrace_base::fault::Fault {
        use millrace_base::fault::Fault;
        match self {
            GroupError::RebalanceInProgress
            | GroupError::MemberIdRequired
            | GroupError::CoordinatorNotAvailable
            | GroupError::NotCoordinator => Fault::Retry,
            GroupError::UnknownMemberId
            | GroupError::IllegalGeneration
            | GroupError::InconsistentGroupProtocol
            | GroupError::InvalidSessionTimeout
            | GroupError::InvalidGroupId
            | GroupError::GroupIdNotFound
            | GroupError::NonEmptyGroup
            | GroupError::GroupSubscribedToTopic
            | GroupError::GroupMaxSizeReached
            | GroupError::FencedInstanceId
            | GroupError::OffsetMetadataTooLarge
            | GroupError::InvalidRequest
            | GroupError::TooManyGroups
            | GroupError::GroupTooLarge
            | GroupError::UnknownTopicOrPartition => Fault::Refuse,
        }
    }
}

/// How a write ended that did not become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// Full, too few replicas, timed out.
    Unavailable,
    NotLeader,
    TooLarge,
}

impl From<WriteError> for GroupError {
    fn from(error: WriteError) -> GroupError {
        match error {
            WriteError::Unavailable => GroupError::CoordinatorNotAvailable,
            WriteError::NotLeader => GroupError::NotCoordinator,
            WriteError::TooLarge => GroupError::GroupTooLarge,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    /// Being deleted.
    Dead,
}

impl GroupState {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    pub member_id: String,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    /// The leader's alone: everyone, with the metadata for the protocol.
    pub members: Vec<JoinedMember>,
    pub skip_assignment: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Vec<u8>,
}

/// With `MemberIdRequired` the id to come back with; else the id to state in the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRefused {
    pub error: GroupError,
    pub member_id: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    pub group: String,
    pub state: GroupState,
    pub protocol_type: String,
    /// Only when Stable, as the metadata.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Vec<u8>,
    pub assignment: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    pub group: String,
    /// Empty for groups that only hold offsets.
    pub protocol_type: String,
    pub state: GroupState,
}

/// Answer for one partition of a commit or of a deletion of offsets, in the request's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionAnswer {
    pub topic: String,
    pub partition: i32,
    pub result: Result<(), GroupError>,
}

/// Who was to leave, and whether it did.
pub type LeavingAnswer = (Leaving, Result<(), GroupError>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Joined(Result<Joined, JoinRefused>),
    Synced(Result<Synced, GroupError>),
    Heartbeat(Result<(), GroupError>),
    /// For each member of the request, in its order.
    Left(Result<Vec<LeavingAnswer>, GroupError>),
    /// A refusal of the whole request is stated for each partition.
    Committed(Vec<PartitionAnswer>),
    /// None: no offset. All, by topic and partition, if none were named.
    Offsets(Result<Vec<(String, i32, Option<CommittedOffset>)>, GroupError>),
    OffsetsDeleted(Result<Vec<PartitionAnswer>, GroupError>),
    GroupDeleted(Result<(), GroupError>),
    Described(Result<Description, GroupError>),
    Listed(Vec<Listed>),
}

/// What the shard is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Exactly one for each request, now or later.
    Reply { request: RequestToken, answer: Answer },
    /// Append these, in the order in which effects come; say `written` with the token when they are committed or cannot be, in that
    /// same order. They need not be atomic: a long list may be split into batches.
    Write { token: WriteToken, records: Vec<Record> },
    /// Call `tick` at this time of the steady clock or soon after; replaces earlier ones, sooner or later. A `tick` takes it back, also one that
    /// comes early, and announces the next.
    Timer { at_ms: u64 },
}
