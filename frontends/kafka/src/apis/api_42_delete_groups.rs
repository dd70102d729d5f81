//! DeleteGroups. v0 to 2 differ in form only.

use kafka_protocol::messages::DeleteGroupsResponse;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use millrace_shard::state::groups;

use crate::call::{Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::names::group_id;
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DeleteGroupsRequest;

pub fn handle(call: &mut Call<'_, '_>, request: DeleteGroupsRequest<'_>) -> Outcome {
    let mut gathering = coordinator::none();
    for group in &request.groups_names {
        coordinator::ask(call, &mut gathering, group, groups::Request::DeleteGroup { group: (*group).to_owned() });
    }
    let names: Vec<String> = request.groups_names.iter().map(|group| (*group).to_owned()).collect();
    coordinator::answer(call, gathering, move |call, results| {
        let one = |(name, result): (&String, GroupResult)| {
            let code = match result {
                Ok(groups::Answer::GroupDeleted(result)) => coordinator::code(result),
                Ok(_) => ErrorCode::UnknownServerError,
                Err(code) => code,
            };
            DeletableGroupResult::default().with_group_id(group_id(name)).with_error_code(code.code())
        };
        let results = names.iter().zip(results).map(one).collect();
        call.asked.answer(&DeleteGroupsResponse::default().with_results(results))
    })
}
