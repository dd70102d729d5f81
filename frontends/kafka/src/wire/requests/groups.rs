//! Requests of consumer groups and their offsets.

use millrace_base::ids::Uuid;

use crate::wire::reader::ByteRange;

message! {
    /// Key 8. From version 10 topics are named by id.
    OffsetCommitRequest<'a> {
        group_id: &'a str [0..];
        generation_id_or_member_epoch: i32 [1..] = -1;
        member_id: &'a str [1..];
        group_instance_id: Option<&'a str> [7..] null [7..];
        retention_time_ms: i64 [2..=4] = -1;
        topics: Vec<OffsetCommitRequestTopic<'a>> [0..];
    }

    OffsetCommitRequestTopic<'a> {
        name: &'a str [..=9];
        topic_id: Uuid [10..];
        partitions: Vec<OffsetCommitRequestPartition<'a>> [0..];
    }

    OffsetCommitRequestPartition<'a> {
        partition_index: i32 [0..];
        committed_offset: i64 [0..];
        committed_leader_epoch: i32 [6..] = -1;
        committed_metadata: Option<&'a str> [0..] null [0..];
    }

    /// Key 9. To version 7 one group (`group_id`, `topics`), from 8 many (`groups`).
    OffsetFetchRequest<'a> {
        group_id: &'a str [..=7];
        /// None is every topic, from version 2.
        topics: Option<Vec<OffsetFetchRequestTopic<'a>>> [..=7] null [2..=7] = Some(Vec::new());
        groups: Vec<OffsetFetchRequestGroup<'a>> [8..];
        require_stable: bool [7..];
    }

    OffsetFetchRequestTopic<'a> {
        name: &'a str [..=7];
        partition_indexes: Vec<i32> [..=7];
    }

    OffsetFetchRequestGroup<'a> {
        group_id: &'a str [8..];
        member_id: Option<&'a str> [9..] null [9..];
        member_epoch: i32 [9..] = -1;
        /// None is every topic.
        topics: Option<Vec<OffsetFetchRequestTopics<'a>>> [8..] null [8..];
    }

    OffsetFetchRequestTopics<'a> {
        name: &'a str [8..=9];
        topic_id: Uuid [10..];
        partition_indexes: Vec<i32> [8..];
    }

    /// Key 10. To version 3 one key, from 4 many.
    FindCoordinatorRequest<'a> {
        key: &'a str [..=3];
        /// 0 group, 1 transaction, 2 share.
        key_type: i8 [1..];
        coordinator_keys: Vec<&'a str> [4..];
    }

    /// Key 11.
    JoinGroupRequest<'a> {
        group_id: &'a str [0..];
        session_timeout_ms: i32 [0..];
        /// -1 in version 0: the session timeout stands for it.
        rebalance_timeout_ms: i32 [1..] = -1;
        member_id: &'a str [0..];
        group_instance_id: Option<&'a str> [5..] null [5..];
        protocol_type: &'a str [0..];
        protocols: Vec<JoinGroupRequestProtocol<'a>> [0..];
        reason: Option<&'a str> [8..] null [8..];
    }

    JoinGroupRequestProtocol<'a> {
        name: &'a str [0..];
        metadata: ByteRange [0..];
    }

    /// Key 12.
    HeartbeatRequest<'a> {
        group_id: &'a str [0..];
        generation_id: i32 [0..];
        member_id: &'a str [0..];
        group_instance_id: Option<&'a str> [3..] null [3..];
    }

    /// Key 13. To version 2 one member (`member_id`), from 3 many (`members`).
    LeaveGroupRequest<'a> {
        group_id: &'a str [0..];
        member_id: &'a str [..=2];
        members: Vec<MemberIdentity<'a>> [3..];
    }

    MemberIdentity<'a> {
        member_id: &'a str [3..];
        group_instance_id: Option<&'a str> [3..] null [3..];
        reason: Option<&'a str> [5..] null [5..];
    }

    /// Key 14.
    SyncGroupRequest<'a> {
        group_id: &'a str [0..];
        generation_id: i32 [0..];
        member_id: &'a str [0..];
        group_instance_id: Option<&'a str> [3..] null [3..];
        protocol_type: Option<&'a str> [5..] null [5..];
        protocol_name: Option<&'a str> [5..] null [5..];
        assignments: Vec<SyncGroupRequestAssignment<'a>> [0..];
    }

    SyncGroupRequestAssignment<'a> {
        member_id: &'a str [0..];
        assignment: ByteRange [0..];
    }

    /// Key 15.
    DescribeGroupsRequest<'a> {
        groups: Vec<&'a str> [0..];
        include_authorized_operations: bool [3..];
    }

    /// Key 16. An empty filter lets everything pass.
    ListGroupsRequest<'a> {
        states_filter: Vec<&'a str> [4..];
        types_filter: Vec<&'a str> [5..];
    }

    /// Key 42.
    DeleteGroupsRequest<'a> {
        groups_names: Vec<&'a str> [0..];
    }

    /// Key 47.
    OffsetDeleteRequest<'a> {
        group_id: &'a str [0..];
        topics: Vec<OffsetDeleteRequestTopic<'a>> [0..];
    }

    OffsetDeleteRequestTopic<'a> {
        name: &'a str [0..];
        partitions: Vec<OffsetDeleteRequestPartition> [0..];
    }

    OffsetDeleteRequestPartition {
        partition_index: i32 [0..];
    }
}
