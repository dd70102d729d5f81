//! DescribeCluster: nodes, controller, cluster id. v1 the type of endpoint; v2 fenced brokers, of which there are none.
//!
//! A broker answers for brokers (type 1). Controllers (type 2) have no listeners of their own: MISMATCHED_ENDPOINT_TYPE, as from a Kafka broker.

use kafka_protocol::messages::DescribeClusterResponse;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;

use crate::authorize::{Resource, allowed_operations};
use crate::call::{Call, Outcome};
use crate::names::{broker, text};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DescribeClusterRequest;

pub fn handle(call: &mut Call<'_, '_>, request: DescribeClusterRequest) -> Outcome {
    let code = match request.endpoint_type {
        1 => ErrorCode::None,
        2 => ErrorCode::MismatchedEndpointType,
        _ => ErrorCode::UnsupportedEndpointType,
    };
    let facts = call.facts();
    let response = DescribeClusterResponse::default()
        .with_cluster_id(text(&facts.cluster.to_string()))
        .with_controller_id(broker(facts.node))
        .with_error_code(code.code());
    if code != ErrorCode::None {
        return Outcome::Done(call.asked.answer(&response.with_error_message(Some(text(code.message())))));
    }
    let rack = call.settings().broker_rack.as_deref().map(text);
    let one = |node: crate::listener::NodeAddress<'_>| {
        DescribeClusterBroker::default()
            .with_broker_id(broker(node.node))
            .with_host(text(node.host))
            .with_port(i32::from(node.port))
            .with_rack(rack.clone().filter(|_| node.node == facts.node))
    };
    let brokers = call.shared.listeners.nodes(call.meta(), facts.node, call.listener).into_iter().map(one).collect();
    let response = response.with_brokers(brokers);
    let response = if request.include_cluster_authorized_operations {
        response.with_cluster_authorized_operations(allowed_operations(Resource::Cluster))
    } else {
        response
    };
    Outcome::Done(call.asked.answer(&response))
}
