//! CreatePartitions: more partitions for topics that exist. v0 to 3 differ in form and in a quota error that is not raised here.

use std::collections::BTreeSet;

use kafka_protocol::messages::CreatePartitionsResponse;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use millrace_shard::api::MetaChange;
use millrace_shard::state::meta::{Live, Request};

use crate::call::{Call, Outcome};
use crate::controller::{Changed, Changes};
use crate::names::{self, topic_name};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::CreatePartitionsRequest;

pub fn handle(call: &mut Call<'_, '_>, request: CreatePartitionsRequest<'_>) -> Outcome {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name).filter(|name| !seen.insert(*name)).collect();
    let mut changes = Changes::new();
    for topic in &request.topics {
        if twice.contains(topic.name) {
            changes.refuse((ErrorCode::InvalidRequest, "the topic is named twice in one request".into()));
            continue;
        }
        if topic.assignments.as_ref().is_some_and(Vec::is_empty) {
            changes.refuse((ErrorCode::InvalidReplicaAssignment, "an assignment that is given names every new partition".into()));
            continue;
        }
        let assigned = topic.assignments.iter().flatten().map(|assignment| assignment.broker_ids.clone()).collect();
        let request_of = Request::CreatePartitions { name: topic.name.to_owned(), total: topic.count, assigned, live: Live::default() };
        changes.ask(call, MetaChange { request: request_of, validate_only: request.validate_only });
    }
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.to_owned()).collect();
    changes.answer(call, request.timeout_ms, move |call, results| {
        let one = |(name, result): (String, Changed)| {
            let response = CreatePartitionsTopicResult::default().with_name(topic_name(&name));
            match result {
                Ok(_) => response,
                Err((code, message)) => response.with_error_code(code.code()).with_error_message(Some(names::message(&message))),
            }
        };
        let results = names.into_iter().zip(results).map(one).collect();
        call.asked.answer(&CreatePartitionsResponse::default().with_results(results))
    })
}
