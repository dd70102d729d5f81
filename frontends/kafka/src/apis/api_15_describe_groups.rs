//! DescribeGroups.
//!
//! v3 authorized operations; v4 static members; v6 a message, and GROUP_ID_NOT_FOUND for what before was a group in state Dead.

use bytes::Bytes;
use kafka_protocol::messages::DescribeGroupsResponse;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use millrace_shard::state::groups::{self, Description, GroupError};

use crate::authorize::{Resource, allowed_operations};
use crate::call::{Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::errors;
use crate::names::{group_id, text};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DescribeGroupsRequest;

pub fn handle(call: &mut Call<'_, '_>, request: DescribeGroupsRequest<'_>) -> Outcome {
    let version = call.version();
    let mut gathering = coordinator::none();
    let mut seen = std::collections::BTreeSet::new();
    for group in &request.groups {
        // A group that is named often could make a large answer of a small request.
        if !seen.insert(*group) {
            gathering.fill(Err(ErrorCode::InvalidRequest));
            continue;
        }
        coordinator::ask(call, &mut gathering, group, groups::Request::Describe { group: (*group).to_owned() });
    }
    let names: Vec<String> = request.groups.iter().map(|group| (*group).to_owned()).collect();
    let has_operations = request.include_authorized_operations;
    coordinator::answer(call, gathering, move |call, results| {
        let groups = names.iter().zip(results).map(|(name, result)| described(name, result, version, has_operations)).collect();
        call.asked.answer(&DescribeGroupsResponse::default().with_groups(groups))
    })
}

fn described(name: &str, result: GroupResult, version: i16, has_operations: bool) -> DescribedGroup {
    let response = DescribedGroup::default().with_group_id(group_id(name));
    let response = if has_operations && version >= 3 {
        response.with_authorized_operations(allowed_operations(Resource::Group(name)))
    } else {
        response
    };
    let code = match result {
        Ok(groups::Answer::Described(Ok(description))) => return filled(response, description, version),
        Ok(groups::Answer::Described(Err(GroupError::GroupIdNotFound))) if version < 6 => ErrorCode::None,
        Ok(groups::Answer::Described(Err(error))) => errors::of_group(error),
        Ok(_) => ErrorCode::UnknownServerError,
        Err(code) => code,
    };
    let is_missing = matches!(code, ErrorCode::None | ErrorCode::GroupIdNotFound);
    let response = response.with_error_code(code.code());
    let response = if is_missing { response.with_group_state(text(groups::GroupState::Dead.name())) } else { response };
    match code {
        ErrorCode::None => response,
        code if version >= 6 => response.with_error_message(Some(text(code.message()))),
        _ => response,
    }
}

fn filled(response: DescribedGroup, description: Description, version: i16) -> DescribedGroup {
    let member = |member: groups::DescribedMember| {
        let response = DescribedGroupMember::default()
            .with_member_id(text(&member.member_id))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(Bytes::from(member.metadata))
            .with_member_assignment(Bytes::from(member.assignment));
        if version >= 4 { response.with_group_instance_id(member.instance_id.as_deref().map(text)) } else { response }
    };
    response
        .with_group_state(text(description.state.name()))
        .with_protocol_type(text(&description.protocol_type))
        .with_protocol_data(text(&description.protocol))
        .with_members(description.members.into_iter().map(member).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_not_there_was_dead_before_version_six() {
        let missing = || Ok(groups::Answer::Described(Err(GroupError::GroupIdNotFound)));
        let old = described("g", missing(), 5, false);
        assert_eq!((old.error_code, old.group_state.as_str()), (0, "Dead"));
        let new = described("g", missing(), 6, false);
        assert_eq!((new.error_code, new.group_state.as_str()), (69, "Dead"));
        assert!(new.error_message.is_some());
    }
}
