//! Consumer groups and their offsets.

use bytes::{BufMut, Bytes};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use millrace_kafka::wire::table::Api;

use super::data::TOPIC_ID;
use super::{Frame, by_hand, frames, put_compact, text};

fn group() -> GroupId {
    GroupId(text("group"))
}

fn some(full: bool, value: &'static str) -> Option<StrBytes> {
    full.then(|| text(value))
}

fn offset_commit(v: i16, full: bool) -> OffsetCommitRequest {
    let mut request =
        OffsetCommitRequest::default().with_group_id(group()).with_generation_id_or_member_epoch(7).with_member_id(text("member"));
    if v >= 7 {
        request.group_instance_id = some(full, "instance");
    }
    if v <= 4 {
        request.retention_time_ms = 86_400_000;
    }
    let mut partition = OffsetCommitRequestPartition::default().with_partition_index(1).with_committed_offset(99);
    partition.committed_metadata = some(full, "note");
    if v >= 6 {
        partition.committed_leader_epoch = 5;
    }
    let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text("orders"))).with_partitions(vec![partition; 2]);
    request.topics = vec![topic; 2];
    request
}

fn offset_fetch(v: i16, full: bool) -> OffsetFetchRequest {
    let mut request = OffsetFetchRequest::default();
    if v >= 7 {
        request.require_stable = true;
    }
    if v < 8 {
        request.group_id = group();
        let topic = OffsetFetchRequestTopic::default().with_name(TopicName(text("orders"))).with_partition_indexes(vec![0, 1, 2]);
        request.topics = if full || v < 2 { Some(vec![topic; 2]) } else { None };
        return request;
    }
    let mut each = OffsetFetchRequestGroup::default().with_group_id(group());
    if v >= 9 {
        each.member_id = some(full, "member");
        each.member_epoch = 3;
    }
    let topic = OffsetFetchRequestTopics::default().with_name(TopicName(text("orders"))).with_partition_indexes(vec![0, 1, 2]);
    each.topics = full.then(|| vec![topic; 2]);
    request.groups = vec![each; 2];
    request
}

fn find_coordinator(v: i16, full: bool) -> FindCoordinatorRequest {
    let mut request = FindCoordinatorRequest::default();
    if v >= 1 {
        request.key_type = 1;
    }
    if v < 4 {
        request.key = text("group");
    } else if full {
        request.coordinator_keys = vec![text("one"), text("two")];
    }
    request
}

fn join_group(v: i16, full: bool) -> JoinGroupRequest {
    let mut request = JoinGroupRequest::default().with_group_id(group()).with_session_timeout_ms(45_000).with_member_id(text("member"));
    request.protocol_type = text("consumer");
    if v >= 1 {
        request.rebalance_timeout_ms = 300_000;
    }
    if v >= 5 {
        request.group_instance_id = some(full, "instance");
    }
    if v >= 8 {
        request.reason = some(full, "because");
    }
    if full {
        let range = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(&[0, 1, 2, 0xff]));
        let sticky = JoinGroupRequestProtocol::default().with_name(text("cooperative-sticky"));
        request.protocols = vec![range, sticky];
    }
    request
}

fn heartbeat(v: i16, full: bool) -> HeartbeatRequest {
    let mut request = HeartbeatRequest::default().with_group_id(group()).with_generation_id(4).with_member_id(text("member"));
    if v >= 3 {
        request.group_instance_id = some(full, "instance");
    }
    request
}

fn leave_group(v: i16, full: bool) -> LeaveGroupRequest {
    let mut request = LeaveGroupRequest::default().with_group_id(group());
    if v < 3 {
        request.member_id = text("member");
        return request;
    }
    let mut member = MemberIdentity::default().with_member_id(text("member")).with_group_instance_id(some(full, "instance"));
    if v >= 5 {
        member.reason = some(full, "done");
    }
    request.members = vec![member; 3];
    request
}

fn sync_group(v: i16, full: bool) -> SyncGroupRequest {
    let mut request = SyncGroupRequest::default().with_group_id(group()).with_generation_id(4).with_member_id(text("member"));
    if v >= 3 {
        request.group_instance_id = some(full, "instance");
    }
    if v >= 5 {
        request.protocol_type = some(full, "consumer");
        request.protocol_name = some(full, "range");
    }
    if full {
        let assignment =
            SyncGroupRequestAssignment::default().with_member_id(text("member")).with_assignment(Bytes::from_static(b"\0\x01\"\\"));
        request.assignments = vec![assignment; 2];
    }
    request
}

fn describe_groups(v: i16, full: bool) -> DescribeGroupsRequest {
    let mut request = DescribeGroupsRequest::default();
    if full {
        request.groups = vec![group(); 3];
    }
    if v >= 3 {
        request.include_authorized_operations = true;
    }
    request
}

fn list_groups(v: i16, full: bool) -> ListGroupsRequest {
    let mut request = ListGroupsRequest::default();
    if v >= 4 && full {
        request.states_filter = vec![text("Stable"), text("Empty")];
    }
    if v >= 5 && full {
        request.types_filter = vec![text("classic")];
    }
    request
}

fn delete_groups(_v: i16, full: bool) -> DeleteGroupsRequest {
    DeleteGroupsRequest::default().with_groups_names(if full { vec![group(); 3] } else { Vec::new() })
}

fn offset_delete(_v: i16, full: bool) -> OffsetDeleteRequest {
    let mut request = OffsetDeleteRequest::default().with_group_id(group());
    if full {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(4);
        let topic = OffsetDeleteRequestTopic::default().with_name(TopicName(text("orders"))).with_partitions(vec![partition; 3]);
        request.topics = vec![topic; 2];
    }
    request
}

/// Version 10, by topic id: one topic, two partitions.
pub fn offset_commit_by_id() -> Frame {
    by_hand(Api::OffsetCommit, 10, |out| {
        put_compact(out, "group");
        out.put_i32(7);
        put_compact(out, "member");
        put_compact(out, "instance");
        out.put_u8(2);
        out.put_slice(TOPIC_ID.as_bytes());
        out.put_u8(3);
        for index in 0..2 {
            out.put_i32(index);
            out.put_i64(99);
            out.put_i32(5);
            put_compact(out, "note");
            out.put_u8(0);
        }
        out.put_slice(&[0, 0]);
    })
}

/// Version 10, by topic id: one group, one topic, two partitions.
pub fn offset_fetch_by_id() -> Frame {
    by_hand(Api::OffsetFetch, 10, |out| {
        out.put_u8(2);
        put_compact(out, "group");
        put_compact(out, "member");
        out.put_i32(3);
        out.put_u8(2);
        out.put_slice(TOPIC_ID.as_bytes());
        out.put_u8(3);
        out.put_i32(0);
        out.put_i32(1);
        out.put_slice(&[0, 0]); // tags of topic and group
        out.put_u8(1); // require stable
        out.put_u8(0);
    })
}

pub fn all() -> Vec<Frame> {
    let mut all = frames(Api::OffsetCommit, 9, offset_commit);
    all.extend(frames(Api::OffsetFetch, 9, offset_fetch));
    all.retain(|frame| frame.version < 10); // their version 10 differs from 9, and kafka-protocol lacks it
    all.push(offset_commit_by_id());
    all.push(offset_fetch_by_id());
    all.extend(frames(Api::FindCoordinator, 6, find_coordinator));
    all.extend(frames(Api::JoinGroup, 9, join_group));
    all.extend(frames(Api::Heartbeat, 4, heartbeat));
    all.extend(frames(Api::LeaveGroup, 5, leave_group));
    all.extend(frames(Api::SyncGroup, 5, sync_group));
    all.extend(frames(Api::DescribeGroups, 6, describe_groups));
    all.extend(frames(Api::ListGroups, 5, list_groups));
    all.extend(frames(Api::DeleteGroups, 2, delete_groups));
    all.extend(frames(Api::OffsetDelete, 0, offset_delete));
    all
}
