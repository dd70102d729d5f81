//! ApiVersions.
//!
//! v3 the client's software; v4 features whose lowest level is 0; v5 the cluster and node that the client means (KIP-1242).
//! The answer to a version that is not served is the dispatcher's: version 0, UNSUPPORTED_VERSION, one entry (KIP-511).
//!
//! 1. Name and version of the software match Kafka's pattern, else INVALID_REQUEST.
//! 2. A cluster or node that is not this one is REBOOTSTRAP_REQUIRED: the client's addresses lead to somebody else.
//! 3. Every API of the table is listed; no feature is finalized or supported, so that clients keep to what is served.

use kafka_protocol::messages::ApiVersionsResponse;
use millrace_shard::api::NodeFacts;

use crate::call::{Call, Outcome};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::ApiVersionsRequest;
use crate::wire::response::advertised;

pub fn handle(call: &mut Call<'_, '_>, request: ApiVersionsRequest<'_>) -> Outcome {
    let code = check(&request, call.version(), call.facts());
    let answer = ApiVersionsResponse::default().with_error_code(code.code());
    let answer = if code == ErrorCode::None { answer.with_api_keys(advertised()) } else { answer };
    Outcome::Done(call.asked.answer(&answer))
}

fn check(request: &ApiVersionsRequest<'_>, version: i16, facts: &NodeFacts) -> ErrorCode {
    if version >= 3 && !(is_software(request.client_software_name) && is_software(request.client_software_version)) {
        return ErrorCode::InvalidRequest;
    }
    if version >= 5 {
        let is_other_cluster = request.cluster_id.is_some_and(|id| id != facts.cluster.to_string());
        if is_other_cluster || (request.node_id >= 0 && request.node_id != facts.node) {
            return ErrorCode::RebootstrapRequired;
        }
    }
    ErrorCode::None
}

/// Kafka's `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    is_end(text.chars().next()) && is_end(text.chars().next_back()) && text.chars().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::ids::Uuid;

    const FACTS: NodeFacts = NodeFacts { node: 3, cluster: Uuid([7; 16]), shards: 1 };

    #[test]
    fn software_names_match_kafkas_pattern() {
        for good in ["a", "apache-kafka-java", "2.15.0", "A1.b-c9"] {
            assert!(is_software(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a b", "a_b", "ä", "a."] {
            assert!(!is_software(bad), "{bad}");
        }
    }

    #[test]
    fn a_client_that_means_another_cluster_or_node_is_told_to_start_again() {
        let cluster = FACTS.cluster.to_string();
        let ask = |cluster_id, node_id, version| {
            let request = ApiVersionsRequest { client_software_name: "a", client_software_version: "1", cluster_id, node_id };
            check(&request, version, &FACTS)
        };
        assert_eq!(ask(None, -1, 5), ErrorCode::None);
        assert_eq!(ask(Some(&cluster), 3, 5), ErrorCode::None);
        assert_eq!(ask(Some("other"), 3, 5), ErrorCode::RebootstrapRequired);
        assert_eq!(ask(Some(&cluster), 4, 5), ErrorCode::RebootstrapRequired);
        assert_eq!(ask(Some("other"), 4, 4), ErrorCode::None);
    }

    #[test]
    fn versions_without_software_names_are_not_checked_for_them() {
        let request = ApiVersionsRequest { node_id: -1, ..Default::default() };
        assert_eq!(check(&request, 2, &FACTS), ErrorCode::None);
        assert_eq!(check(&request, 3, &FACTS), ErrorCode::InvalidRequest);
    }
}
