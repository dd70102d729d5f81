//! ListConfigResources: what has settings. v0 knows client metrics alone, of which there are none; v1 lists by type, an empty list being all.

use kafka_protocol::messages::ListConfigResourcesResponse;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;

use crate::call::{Call, Outcome};
use crate::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::names::text;
use crate::wire::errors::ErrorCode;
use crate::wire::requests::ListConfigResourcesRequest;

const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub fn handle(call: &mut Call<'_, '_>, request: ListConfigResourcesRequest) -> Outcome {
    if request.resource_types.iter().any(|kind| !TYPES.contains(kind)) {
        let response = ListConfigResourcesResponse::default().with_error_code(ErrorCode::UnsupportedVersion.code());
        return Outcome::Done(call.asked.answer(&response));
    }
    let is_wanted = |kind: i8| call.version() >= 1 && (request.resource_types.is_empty() || request.resource_types.contains(&kind));
    let one = |kind: i8, name: &str| ConfigResource::default().with_resource_type(kind).with_resource_name(text(name));
    let mut resources = Vec::new();
    if is_wanted(TOPIC) {
        resources.extend(call.meta().topics().map(|topic| one(TOPIC, &topic.name)));
    }
    let node = call.facts().node.to_string();
    for kind in [BROKER, BROKER_LOGGER] {
        if is_wanted(kind) {
            resources.push(one(kind, &node));
        }
    }
    Outcome::Done(call.asked.answer(&ListConfigResourcesResponse::default().with_config_resources(resources)))
}
