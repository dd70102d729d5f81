//! AlterConfigs: what is not named goes back to its default. v0 to 2 differ in form only. Checks are IncrementalAlterConfigs'.

use kafka_protocol::messages::AlterConfigsResponse;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;

use super::api_44_incremental_alter_configs::{Resource, alter};
use crate::call::{Call, Outcome};
use crate::configs::Asked;
use crate::names::{self, text};
use crate::wire::requests::AlterConfigsRequest;

pub fn handle(call: &mut Call<'_, '_>, request: AlterConfigsRequest<'_>) -> Outcome {
    let resources: Vec<Resource<'_>> = request
        .resources
        .iter()
        .map(|resource| Resource {
            kind: resource.resource_type,
            name: resource.resource_name,
            asked: Asked::Replace(resource.configs.iter().map(|config| (config.name, config.value)).collect()),
        })
        .collect();
    alter(call, &resources, request.validate_only, |call, rows| {
        let one = |row: super::api_44_incremental_alter_configs::Altered| {
            AlterConfigsResourceResponse::default()
                .with_resource_type(row.kind)
                .with_resource_name(text(&row.name))
                .with_error_code(row.code.code())
                .with_error_message(row.message.as_deref().map(names::message))
        };
        call.asked.answer(&AlterConfigsResponse::default().with_responses(rows.into_iter().map(one).collect()))
    })
}
