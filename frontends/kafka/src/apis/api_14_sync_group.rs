//! SyncGroup. v3 static members; v5 protocol type and name are stated, checked and answered.
//!
//! While the coordinator loads the answer is REBALANCE_IN_PROGRESS, as in Kafka: clients do not expect COORDINATOR_LOAD_IN_PROGRESS here, and
//! Java's throws on it.

use bytes::Bytes;
use kafka_protocol::messages::SyncGroupResponse;
use millrace_shard::state::groups::{self, Sync};

use crate::call::{Call, Outcome};
use crate::coordinator::{self, GroupResult};
use crate::errors;
use crate::names::text;
use crate::wire::errors::ErrorCode;
use crate::wire::requests::SyncGroupRequest;

pub fn handle(call: &mut Call<'_, '_>, request: SyncGroupRequest<'_>, frame: &[u8]) -> Outcome {
    let version = call.version();
    let assignment = |assignment: &crate::wire::requests::SyncGroupRequestAssignment<'_>| {
        (assignment.member_id.to_owned(), assignment.assignment.of(frame).to_vec())
    };
    let sync = Sync {
        group: request.group_id.to_owned(),
        member_id: request.member_id.to_owned(),
        instance_id: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(str::to_owned),
        protocol: request.protocol_name.map(str::to_owned),
        assignments: request.assignments.iter().map(assignment).collect(),
    };
    if version >= 5 && (sync.protocol_type.is_none() || sync.protocol.is_none()) {
        // As in Kafka: from this version a member says what it speaks.
        let refused = SyncGroupResponse::default().with_error_code(ErrorCode::InconsistentGroupProtocol.code());
        return Outcome::Done(call.asked.answer(&refused));
    }
    coordinator::one(call, request.group_id, groups::Request::Sync(sync), move |call, result| call.asked.answer(&response(result, version)))
}

fn response(result: GroupResult, version: i16) -> SyncGroupResponse {
    let response = SyncGroupResponse::default();
    match result {
        Ok(groups::Answer::Synced(Ok(synced))) => {
            let response = response.with_assignment(Bytes::from(synced.assignment));
            if version < 5 {
                return response;
            }
            response.with_protocol_type(synced.protocol_type.as_deref().map(text)).with_protocol_name(synced.protocol.as_deref().map(text))
        }
        Ok(groups::Answer::Synced(Err(error))) => response.with_error_code(errors::of_group(error).code()),
        Ok(_) => response.with_error_code(ErrorCode::UnknownServerError.code()),
        Err(ErrorCode::CoordinatorLoadInProgress) => response.with_error_code(ErrorCode::RebalanceInProgress.code()),
        Err(code) => response.with_error_code(code.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_coordinator_loads_the_member_is_told_to_join_again() {
        assert_eq!(response(Err(ErrorCode::CoordinatorLoadInProgress), 5).error_code, ErrorCode::RebalanceInProgress.code());
        assert_eq!(response(Err(ErrorCode::NotCoordinator), 5).error_code, ErrorCode::NotCoordinator.code());
    }
}
