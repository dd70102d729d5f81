//! ListGroups: the groups of every coordinator on this node, over all shards.
//!
//! v4 states as filter and in the answer; v5 types. Only classic groups exist; names in filters are compared without regard to case.

use std::collections::BTreeMap;

use kafka_protocol::messages::ListGroupsResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use millrace_shard::state::groups::{self, Listed};

use crate::call::{Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::names::{group_id, text};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::ListGroupsRequest;

const CLASSIC: &str = "classic";

pub fn handle(call: &mut Call<'_, '_>, request: ListGroupsRequest<'_>) -> Outcome {
    let version = call.version();
    let states: Vec<String> = request.states_filter.iter().map(|state| state.to_ascii_lowercase()).collect();
    let is_classic_wanted = request.types_filter.is_empty() || request.types_filter.iter().any(|kind| kind.eq_ignore_ascii_case(CLASSIC));
    let mut gathering = coordinator::none();
    if is_classic_wanted {
        for partition in coordinator::all_led_here(call) {
            gathering.ask(call.owner_of(partition), (partition, groups::Request::List));
        }
    }
    coordinator::answer(call, gathering, move |call, results| {
        let (code, groups) = merge(results, &states);
        let groups = groups.into_iter().map(|group| listed(group, version)).collect();
        call.asked.answer(&ListGroupsResponse::default().with_error_code(code.code()).with_groups(groups))
    })
}

/// All groups by name. A coordinator that is not one any more has nothing to say; one that loads makes the list incomplete.
fn merge(results: Vec<GroupResult>, states: &[String]) -> (ErrorCode, Vec<Listed>) {
    let mut code = ErrorCode::None;
    let mut all = Vec::new();
    for result in results {
        match result {
            Ok(groups::Answer::Listed(groups)) => all.extend(groups),
            Ok(_) => code = ErrorCode::UnknownServerError,
            Err(ErrorCode::NotCoordinator) => {}
            Err(error) => code = error,
        }
    }
    // There are few states, and as many filters as the client likes.
    let mut is_wanted: BTreeMap<&str, bool> = BTreeMap::new();
    all.retain(|group| {
        let name = group.state.name();
        *is_wanted.entry(name).or_insert_with(|| states.is_empty() || states.iter().any(|state| name.eq_ignore_ascii_case(state)))
    });
    all.sort_by(|a, b| a.group.cmp(&b.group));
    (code, all)
}

fn listed(group: Listed, version: i16) -> ListedGroup {
    let response = ListedGroup::default().with_group_id(group_id(&group.group)).with_protocol_type(text(&group.protocol_type));
    let response = if version >= 4 { response.with_group_state(text(group.state.name())) } else { response };
    if version >= 5 { response.with_group_type(text(CLASSIC)) } else { response }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_shard::state::groups::GroupState;

    #[test]
    fn lists_of_all_coordinators_are_one_and_states_filter_it() {
        let group = |name: &str, state| Listed { group: name.into(), protocol_type: String::new(), state };
        let results = || {
            vec![
                Ok(groups::Answer::Listed(vec![group("b", GroupState::Stable), group("c", GroupState::Empty)])),
                Err(ErrorCode::NotCoordinator),
                Ok(groups::Answer::Listed(vec![group("a", GroupState::Empty)])),
            ]
        };
        let names = |(code, groups): (ErrorCode, Vec<Listed>)| (code.code(), groups.into_iter().map(|g| g.group).collect::<String>());
        assert_eq!(names(merge(results(), &[])), (0, "abc".to_owned()));
        assert_eq!(names(merge(results(), &["empty".to_owned()])), (0, "ac".to_owned()));
        let loading = vec![Err(ErrorCode::CoordinatorLoadInProgress)];
        assert_eq!(merge(loading, &[]).0, ErrorCode::CoordinatorLoadInProgress);
    }
}
