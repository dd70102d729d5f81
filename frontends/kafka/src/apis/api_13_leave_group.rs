//! LeaveGroup.
//!
//! v0 to 2 one member, whose error is the answer's; v3 many, each with an error of its own; v5 a reason.

use kafka_protocol::messages::LeaveGroupResponse;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use millrace_shard::state::groups::{self, GroupError, Leaving};

use crate::call::{Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::errors;
use crate::names::text;
use crate::wire::errors::ErrorCode;
use crate::wire::requests::LeaveGroupRequest;

pub fn handle(call: &mut Call<'_, '_>, request: LeaveGroupRequest<'_>) -> Outcome {
    let version = call.version();
    let members = match version {
        ..=2 => vec![Leaving { member_id: request.member_id.to_owned(), instance_id: None }],
        _ => {
            let one = |member: &crate::wire::requests::MemberIdentity<'_>| Leaving {
                member_id: member.member_id.to_owned(),
                instance_id: member.group_instance_id.map(str::to_owned),
            };
            request.members.iter().map(one).collect()
        }
    };
    let leave = groups::Request::Leave { group: request.group_id.to_owned(), members };
    coordinator::one(call, request.group_id, leave, move |call, result| call.asked.answer(&response(result, version)))
}

fn response(result: GroupResult, version: i16) -> LeaveGroupResponse {
    let response = LeaveGroupResponse::default();
    let members = match result {
        Ok(groups::Answer::Left(Ok(members))) => members,
        Ok(groups::Answer::Left(Err(error))) => return response.with_error_code(errors::of_group(error).code()),
        Ok(_) => return response.with_error_code(ErrorCode::UnknownServerError.code()),
        Err(code) => return response.with_error_code(code.code()),
    };
    if version < 3 {
        let code = members.into_iter().next().map_or(ErrorCode::None, |(_, result)| coordinator::code(result));
        return response.with_error_code(code.code());
    }
    let member = |(leaving, result): (Leaving, Result<(), GroupError>)| {
        MemberResponse::default()
            .with_member_id(text(&leaving.member_id))
            .with_group_instance_id(leaving.instance_id.as_deref().map(text))
            .with_error_code(coordinator::code(result).code())
    };
    response.with_members(members.into_iter().map(member).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_members_error_is_the_answers_and_many_have_their_own() {
        let left = || {
            let leaving = Leaving { member_id: "m".into(), instance_id: None };
            Ok(groups::Answer::Left(Ok(vec![(leaving, Err(GroupError::UnknownMemberId))])))
        };
        let old = response(left(), 2);
        assert_eq!((old.error_code, old.members.len()), (25, 0));
        let new = response(left(), 3);
        assert_eq!((new.error_code, new.members[0].error_code), (0, 25));
    }
}
