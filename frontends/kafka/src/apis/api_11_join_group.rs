//! JoinGroup.
//!
//! v0 no rebalance timeout (the session's stands for it); v4 a new member is told its id first (MEMBER_ID_REQUIRED); v5 static members; v7 the
//! protocol type comes back, and the protocol may be null; v8 a reason; v9 a static leader that comes back skips the assignment.

use bytes::Bytes;
use kafka_protocol::messages::JoinGroupResponse;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use millrace_shard::state::groups::{self, Join, JoinRefused, Joined};

use crate::call::{Answer, Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::errors;
use crate::names::text;
use crate::wire::errors::ErrorCode;
use crate::wire::requests::JoinGroupRequest;

pub fn handle(call: &mut Call<'_, '_>, request: JoinGroupRequest<'_>, client_id: &str, frame: &[u8]) -> Outcome {
    let version = call.version();
    let protocol =
        |protocol: &crate::wire::requests::JoinGroupRequestProtocol<'_>| (protocol.name.to_owned(), protocol.metadata.of(frame).to_vec());
    let join = Join {
        group: request.group_id.to_owned(),
        member_id: request.member_id.to_owned(),
        instance_id: request.group_instance_id.map(str::to_owned),
        client_id: client_id.to_owned(),
        client_host: call.host.to_owned(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms },
        protocol_type: request.protocol_type.to_owned(),
        protocols: request.protocols.iter().map(protocol).collect(),
        member_id_required: version >= 4,
        can_skip_assignment: version >= 9,
    };
    let member_id = request.member_id.to_owned();
    coordinator::one(call, request.group_id, groups::Request::Join(join), move |call, result| build(call, &member_id, result))
}

fn build(call: &mut Call<'_, '_>, member_id: &str, result: GroupResult) -> Answer {
    let version = call.version();
    let response = match result {
        Ok(groups::Answer::Joined(Ok(joined))) => joined_response(joined, version),
        Ok(groups::Answer::Joined(Err(JoinRefused { error, member_id }))) => refused(errors::of_group(error), &member_id, version),
        Ok(_) => refused(ErrorCode::UnknownServerError, member_id, version),
        Err(code) => refused(code, member_id, version),
    };
    call.asked.answer(&response)
}

fn joined_response(joined: Joined, version: i16) -> JoinGroupResponse {
    let member = |member: groups::JoinedMember| {
        let response =
            JoinGroupResponseMember::default().with_member_id(text(&member.member_id)).with_metadata(Bytes::from(member.metadata));
        if version >= 5 { response.with_group_instance_id(member.instance_id.as_deref().map(text)) } else { response }
    };
    let response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(protocol_name(joined.protocol.as_deref(), version))
        .with_leader(text(&joined.leader))
        .with_member_id(text(&joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect());
    let response = if version >= 7 { response.with_protocol_type(joined.protocol_type.as_deref().map(text)) } else { response };
    if version >= 9 { response.with_skip_assignment(joined.skip_assignment) } else { response }
}

fn refused(code: ErrorCode, member_id: &str, version: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol_name(None, version))
        .with_member_id(text(member_id))
}

/// To version 6 it cannot be null.
fn protocol_name(name: Option<&str>, version: i16) -> Option<kafka_protocol::protocol::StrBytes> {
    if version < 7 { Some(text(name.unwrap_or_default())) } else { name.map(text) }
}
