//! Heartbeat. v3 static members; else the versions differ in form only.
//!
//! While the coordinator loads every heartbeat is good, as in Kafka: sessions begin anew when it has loaded.

use kafka_protocol::messages::HeartbeatResponse;
use millrace_shard::state::groups;

use crate::call::{Call, Outcome};
use crate::coordinator;
use crate::wire::errors::ErrorCode;
use crate::wire::requests::HeartbeatRequest;

pub fn handle(call: &mut Call<'_, '_>, request: HeartbeatRequest<'_>) -> Outcome {
    let heartbeat = groups::Request::Heartbeat {
        group: request.group_id.to_owned(),
        member_id: request.member_id.to_owned(),
        instance_id: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id,
    };
    coordinator::one(call, request.group_id, heartbeat, |call, result| {
        let code = match result {
            Ok(groups::Answer::Heartbeat(result)) => coordinator::code(result),
            Ok(_) => ErrorCode::UnknownServerError,
            Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
            Err(code) => code,
        };
        call.asked.answer(&HeartbeatResponse::default().with_error_code(code.code()))
    })
}
