//! IncrementalAlterConfigs: SET, DELETE, APPEND and SUBTRACT of single settings. v0 and 1 differ in form only.
//!
//! 1. A resource named twice is INVALID_REQUEST, as is a type that has no settings to alter.
//! 2. Settings of a broker must be ones that can be changed at run time, and fit together; unknown ones are INVALID_CONFIG by name.
//! 3. Settings of a topic are checked by the controller.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kafka_protocol::messages::IncrementalAlterConfigsResponse;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use millrace_shard::api::MetaChange;
use millrace_shard::state::meta::Request;

use crate::call::{Answer, Call, Outcome};
use crate::configs::{self, Asked, BROKER, TOPIC};
use crate::controller::Changes;
use crate::errors::Refusal;
use crate::names::text;
use crate::wire::errors::ErrorCode;
use crate::wire::requests::IncrementalAlterConfigsRequest;

/// How long a change may take.
const TIMEOUT_MS: i32 = 30_000;

/// A resource and what is asked of it.
pub struct Resource<'a> {
    pub kind: i8,
    pub name: &'a str,
    pub asked: Asked<'a>,
}

/// What became of a resource's changes.
pub struct Altered {
    pub kind: i8,
    pub name: String,
    pub code: ErrorCode,
    pub message: Option<Cow<'static, str>>,
}

pub fn handle(call: &mut Call<'_, '_>, request: IncrementalAlterConfigsRequest<'_>) -> Outcome {
    let resources: Vec<Resource<'_>> = request
        .resources
        .iter()
        .map(|resource| Resource {
            kind: resource.resource_type,
            name: resource.resource_name,
            asked: Asked::Incremental(resource.configs.iter().map(|config| (config.name, config.config_operation, config.value)).collect()),
        })
        .collect();
    alter(call, &resources, request.validate_only, |call, rows| {
        let one = |row: Altered| {
            AlterConfigsResourceResponse::default()
                .with_resource_type(row.kind)
                .with_resource_name(text(&row.name))
                .with_error_code(row.code.code())
                .with_error_message(row.message.as_deref().map(text))
        };
        call.asked.answer(&IncrementalAlterConfigsResponse::default().with_responses(rows.into_iter().map(one).collect()))
    })
}

/// Checks and asks for the changes of all resources; `answer` makes the response of the API.
pub fn alter(
    call: &mut Call<'_, '_>,
    resources: &[Resource<'_>],
    validate_only: bool,
    answer: fn(&mut Call<'_, '_>, Vec<Altered>) -> Answer,
) -> Outcome {
    let mut times: BTreeMap<_, usize> = BTreeMap::new();
    for resource in resources {
        *times.entry(configs::resource(resource.kind, resource.name)).or_default() += 1;
    }
    let mut changes = Changes::new();
    for resource in resources {
        let request = if times.get(&configs::resource(resource.kind, resource.name)).is_some_and(|times| *times > 1) {
            Err((ErrorCode::InvalidRequest, "the resource is named twice in one request".into()))
        } else {
            request(call, resource)
        };
        match request {
            Ok(request) => changes.ask(call, MetaChange { request, validate_only }),
            Err(refusal) => changes.refuse(refusal),
        }
    }
    let named: Vec<(i8, String)> = resources.iter().map(|resource| (resource.kind, resource.name.to_owned())).collect();
    changes.answer(call, TIMEOUT_MS, move |call, results| {
        let rows = named.into_iter().zip(results).map(|((kind, name), result)| match result {
            Ok(_) => Altered { kind, name, code: ErrorCode::None, message: None },
            Err((code, message)) => Altered { kind, name, code, message: Some(message) },
        });
        let rows = rows.collect();
        answer(call, rows)
    })
}

fn request(call: &Call<'_, '_>, resource: &Resource<'_>) -> Result<Request, Refusal> {
    let changes = configs::changes(&resource.asked)?;
    match resource.kind {
        TOPIC => Ok(Request::AlterTopicConfigs { name: resource.name.to_owned(), changes }),
        BROKER => {
            let scope = configs::scope(resource.name, call.facts().node)?;
            let changes = configs::broker_changes(changes, scope, call.meta(), call.settings())?;
            Ok(Request::AlterNodeConfigs { scope, changes })
        }
        other => Err((ErrorCode::InvalidRequest, format!("resources of type {other} have no settings to alter here").into())),
    }
}
