//! FindCoordinator.
//!
//! v0 groups only; v1 a type of key and a message; v4 many keys; v6 share groups.
//!
//! 1. Type 0, groups: `__consumer_offsets` is made when it is first needed, and the answer waits for that at most a second; until it has a leader
//!    COORDINATOR_NOT_AVAILABLE.
//! 2. Type 1, transactions: TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every client takes as fatal, with the reason as its message.
//!    librdkafka would ask again for ever after almost any other code.
//! 3. Any other type is INVALID_REQUEST.

use kafka_protocol::messages::FindCoordinatorResponse;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use millrace_base::ids::META_PARTITION;
use millrace_shard::api::{MetaChange, Reply, Request};
use millrace_shard::state::groups::records::partition_for;

use super::api_00_produce::NO_TRANSACTIONS;
use crate::auto_create::{self, OFFSETS_TOPIC};
use crate::call::{Answer, Call, Outcome};
use crate::errors::{Refusal, plain};
use crate::gather::{self, Gather};
use crate::names::{broker, text};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::FindCoordinatorRequest;

/// A node as it is found: id, host, port.
type Found = (i32, String, u16);

pub fn handle(call: &mut Call<'_, '_>, request: FindCoordinatorRequest<'_>) -> Outcome {
    let keys: Vec<String> = match call.version() {
        ..=3 => vec![request.key.to_owned()],
        _ => request.coordinator_keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    let refusal = refusal(request.key_type);
    let mut gathering: Gather<MetaChange, ()> = Gather::with_chunk(1);
    if refusal.is_none()
        && !keys.is_empty()
        && call.meta().topic_named(OFFSETS_TOPIC).is_none()
        && let Some(change) = auto_create::change(OFFSETS_TOPIC, call.settings())
    {
        gathering.ask(call.owner_of(META_PARTITION), change);
    }
    let deadline = Some(call.now().plus_ms(auto_create::WAIT_MS));
    gather::gather(call, gathering, deadline, Request::Meta, unpack, move |call, _| {
        let found: Vec<_> = keys.into_iter().map(|key| (find(call, &key, refusal.clone()), key)).collect();
        build(call, found)
    })
}

fn refusal(key_type: i8) -> Option<Refusal> {
    match key_type {
        0 => None,
        1 => Some((ErrorCode::TransactionalIdAuthorizationFailed, NO_TRANSACTIONS.into())),
        2 => Some((ErrorCode::InvalidRequest, "share groups are not served by this broker yet".into())),
        other => Some((ErrorCode::InvalidRequest, format!("there are no coordinators of type {other}").into())),
    }
}

fn unpack(_reply: Reply) -> Vec<()> {
    vec![()]
}

fn find(call: &Call<'_, '_>, group: &str, refusal: Option<Refusal>) -> Result<Found, Refusal> {
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let unavailable = || plain(ErrorCode::CoordinatorNotAvailable);
    let topic = call.meta().topic_named(OFFSETS_TOPIC).ok_or_else(unavailable)?;
    let partition = millrace_base::ids::PartitionId { topic: topic.id, index: partition_for(group, topic.partitions()) };
    let leader = call.leader(partition).and_then(|leadership| leadership.leader).ok_or_else(unavailable)?;
    let node = call.shared.listeners.node(call.meta(), call.facts().node, call.listener, leader).ok_or_else(unavailable)?;
    Ok((node.node, node.host.to_owned(), node.port))
}

fn build(call: &mut Call<'_, '_>, found: Vec<(Result<Found, Refusal>, String)>) -> Answer {
    let version = call.version();
    if version >= 4 {
        let coordinators = found.into_iter().map(|(result, key)| coordinator(&key, result)).collect();
        return call.asked.answer(&FindCoordinatorResponse::default().with_coordinators(coordinators));
    }
    let response = FindCoordinatorResponse::default();
    let response = match found.into_iter().next() {
        Some((Ok((node, host, port)), _)) => response.with_node_id(broker(node)).with_host(text(&host)).with_port(i32::from(port)),
        Some((Err((code, message)), _)) => response
            .with_error_code(code.code())
            .with_error_message((version >= 1).then(|| text(&message)))
            .with_node_id(broker(-1))
            .with_port(-1),
        None => response.with_error_code(ErrorCode::InvalidRequest.code()).with_node_id(broker(-1)).with_port(-1),
    };
    call.asked.answer(&response)
}

fn coordinator(key: &str, result: Result<Found, Refusal>) -> Coordinator {
    let response = Coordinator::default().with_key(text(key));
    match result {
        Ok((node, host, port)) => response.with_node_id(broker(node)).with_host(text(&host)).with_port(i32::from(port)),
        Err((code, message)) => {
            response.with_node_id(broker(-1)).with_port(-1).with_error_code(code.code()).with_error_message(Some(text(&message)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_have_coordinators_and_transactions_are_refused_for_good() {
        assert_eq!(refusal(0), None);
        let (code, message) = refusal(1).expect("transactions are refused");
        assert!(!code.retriable() && message.contains("transaction"));
        assert_eq!(refusal(2).map(|refusal| refusal.0), Some(ErrorCode::InvalidRequest));
        assert_eq!(refusal(-3).map(|refusal| refusal.0), Some(ErrorCode::InvalidRequest));
    }
}
