//! DescribeConfigs.
//!
//! v1 synonyms; v3 types and documentation; v4 form only.
//!
//! 1. Topics, this broker, and (empty name) what was changed for all brokers. Broker loggers have no levels to set: an empty list.
//! 2. Any other type of resource is INVALID_REQUEST; so is one named twice, and what is beyond [`ROWS_MAX`].

use std::collections::BTreeSet;

use kafka_protocol::messages::DescribeConfigsResponse;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym};
use millrace_shard::state::meta::NodeScope;

use crate::call::{Call, Outcome};
use crate::configs::{self, BROKER, BROKER_LOGGER, Described, OfTopics, TOPIC};
use crate::errors::{Refusal, plain};
use crate::names::{self, TopicRef, text};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::{DescribeConfigsRequest, DescribeConfigsResource};

pub fn handle(call: &mut Call<'_, '_>, request: DescribeConfigsRequest<'_>) -> Outcome {
    let shape = Shape {
        has_synonyms: request.include_synonyms,
        has_kind: call.version() >= 3,
        has_docs: call.version() >= 3 && request.include_documentation,
    };
    let mut seen = BTreeSet::new();
    let mut results = Vec::with_capacity(request.resources.len());
    let mut rows = 0;
    let topics = OfTopics::new(call.settings());
    for resource in &request.resources {
        let described = match seen.insert(configs::resource(resource.resource_type, resource.resource_name)) {
            false => Err((ErrorCode::InvalidRequest, "the resource is named twice in one request".into())),
            true if rows > ROWS_MAX => {
                Err((ErrorCode::InvalidRequest, format!("more than {ROWS_MAX} settings; ask for fewer resources").into()))
            }
            true => described(call, &topics, resource),
        };
        rows += described.as_ref().map_or(0, Vec::len).max(1);
        results.push(result(resource, described, shape));
    }
    Outcome::Done(call.asked.answer(&DescribeConfigsResponse::default().with_results(results)))
}

/// Settings in one answer: some 3,000 topics.
const ROWS_MAX: usize = 100_000;

#[derive(Clone, Copy)]
struct Shape {
    has_synonyms: bool,
    has_kind: bool,
    has_docs: bool,
}

fn result(resource: &DescribeConfigsResource<'_>, described: Result<Vec<Described>, Refusal>, shape: Shape) -> DescribeConfigsResult {
    let response =
        DescribeConfigsResult::default().with_resource_type(resource.resource_type).with_resource_name(text(resource.resource_name));
    match described {
        Err((code, message)) => response.with_error_code(code.code()).with_error_message(Some(names::message(&message))),
        Ok(rows) => response.with_configs(rows.into_iter().map(|row| entry(row, shape)).collect()),
    }
}

/// The rows that are asked for.
fn described(call: &Call<'_, '_>, topics: &OfTopics<'_>, resource: &DescribeConfigsResource<'_>) -> Result<Vec<Described>, Refusal> {
    let name = resource.resource_name;
    let keys: Option<BTreeSet<&str>> = resource.configuration_keys.as_ref().map(|keys| keys.iter().copied().collect());
    // Some clients send an empty list for "all".
    let is_wanted = |key: &str| keys.as_ref().is_none_or(|keys| keys.is_empty() || keys.contains(key));
    let wanted = |mut rows: Vec<Described>| {
        rows.retain(|row| is_wanted(row.name));
        rows
    };
    match resource.resource_type {
        TOPIC => {
            let topic = TopicRef::Name(name).find(call.meta()).map_err(plain)?;
            Ok(topics.rows(&topic.configs, is_wanted))
        }
        BROKER => match configs::scope(name, call.facts().node)? {
            NodeScope::Every => Ok(wanted(configs::of_cluster(call.meta()))),
            NodeScope::One(_) => Ok(wanted(configs::of_broker(call.settings()))),
        },
        BROKER_LOGGER => configs::scope(name, call.facts().node).map(|_| Vec::new()),
        other => Err((ErrorCode::InvalidRequest, format!("resources of type {other} have no settings here").into())),
    }
}

fn entry(row: Described, shape: Shape) -> DescribeConfigsResourceResult {
    let synonym = |synonym: configs::Synonym| {
        DescribeConfigsSynonym::default()
            .with_name(text(&synonym.name))
            .with_value(synonym.value.as_deref().map(text))
            .with_source(synonym.source)
    };
    let synonyms = if shape.has_synonyms { row.synonyms.into_iter().map(synonym).collect() } else { Vec::new() };
    let response = DescribeConfigsResourceResult::default()
        .with_name(text(row.name))
        .with_value(row.value.as_deref().map(text))
        .with_read_only(row.is_read_only)
        .with_config_source(row.source)
        .with_synonyms(synonyms);
    let response = if shape.has_kind { response.with_config_type(row.kind) } else { response };
    response.with_documentation(shape.has_docs.then(|| text(row.doc)))
}
