//! Topics, settings, data directories, producers, rights, the cluster.

use bytes::BufMut;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeAclsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest, TopicName, alter_configs_request as alter,
    describe_producers_request as producers, incremental_alter_configs_request as incremental,
};
use millrace_kafka::wire::table::Api;

use super::data::TOPIC_ID;
use super::{Frame, by_hand, frames, put_compact, text};

fn name() -> TopicName {
    TopicName(text("orders"))
}

fn create_topics(v: i16, full: bool) -> CreateTopicsRequest {
    let mut request = CreateTopicsRequest::default().with_timeout_ms(5000).with_validate_only(true);
    if full {
        let mut topic = CreatableTopic::default().with_name(name()).with_num_partitions(3).with_replication_factor(1);
        topic.assignments =
            vec![CreatableReplicaAssignment::default().with_partition_index(1).with_broker_ids(vec![BrokerId(1), BrokerId(2)]); 2];
        topic.configs = vec![
            CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1"))),
            CreatableTopicConfig::default().with_name(text("segment.bytes")).with_value(None),
        ];
        if v >= 5 {
            topic.unknown_tagged_fields = [(9, bytes::Bytes::from_static(b"later"))].into();
        }
        request.topics = vec![topic; 2];
    }
    request
}

fn delete_topics(v: i16, full: bool) -> DeleteTopicsRequest {
    let mut request = DeleteTopicsRequest::default().with_timeout_ms(5000);
    if v >= 6 && full {
        request.topics =
            vec![DeleteTopicState::default().with_name(Some(name())), DeleteTopicState::default().with_name(None).with_topic_id(TOPIC_ID)];
    } else if full {
        request.topic_names = vec![name(); 3];
    }
    request
}

fn create_partitions(_v: i16, full: bool) -> CreatePartitionsRequest {
    let mut request = CreatePartitionsRequest::default().with_timeout_ms(5000).with_validate_only(true);
    let mut topic = CreatePartitionsTopic::default().with_name(name()).with_count(12);
    topic.assignments = full.then(|| vec![CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(3)]); 2]);
    request.topics = vec![topic; 2];
    request
}

fn describe_configs(v: i16, full: bool) -> DescribeConfigsRequest {
    let mut resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("orders"));
    resource.configuration_keys = full.then(|| vec![text("retention.ms"), text("segment.bytes")]);
    let mut request = DescribeConfigsRequest::default().with_resources(vec![resource; 2]).with_include_synonyms(true);
    if v >= 3 {
        request.include_documentation = true;
    }
    request
}

fn alter_configs(_v: i16, full: bool) -> AlterConfigsRequest {
    let config = alter::AlterableConfig::default().with_name(text("retention.ms")).with_value(full.then(|| text("5")));
    let resource =
        alter::AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("orders")).with_configs(vec![config; 2]);
    AlterConfigsRequest::default().with_resources(vec![resource; 2]).with_validate_only(true)
}

fn incremental_alter_configs(_v: i16, full: bool) -> IncrementalAlterConfigsRequest {
    let mut config = incremental::AlterableConfig::default().with_name(text("retention.ms")).with_config_operation(1);
    config.value = full.then(|| text("5"));
    let mut resource = incremental::AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("orders"));
    resource.configs = vec![config; 2];
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource; 2]).with_validate_only(true)
}

fn describe_log_dirs(_v: i16, full: bool) -> DescribeLogDirsRequest {
    let topic = DescribableLogDirTopic::default().with_topic(name()).with_partitions(vec![4, 5, 6]);
    DescribeLogDirsRequest::default().with_topics(full.then(|| vec![topic; 2]))
}

fn describe_producers(_v: i16, full: bool) -> DescribeProducersRequest {
    let topic = producers::TopicRequest::default().with_name(name()).with_partition_indexes(vec![4, 5, 6]);
    DescribeProducersRequest::default().with_topics(if full { vec![topic; 2] } else { Vec::new() })
}

fn list_config_resources(v: i16, full: bool) -> ListConfigResourcesRequest {
    ListConfigResourcesRequest::default().with_resource_types(if full && v >= 1 { vec![2, 4, 16] } else { Vec::new() })
}

fn describe_cluster(v: i16, full: bool) -> DescribeClusterRequest {
    let mut request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(full);
    if v >= 1 {
        request.endpoint_type = 2;
    }
    if v >= 2 {
        request.include_fenced_brokers = full;
    }
    request
}

fn describe_acls(_v: i16, full: bool) -> DescribeAclsRequest {
    let mut request = DescribeAclsRequest::default().with_resource_type_filter(2).with_pattern_type_filter(4);
    if full {
        request.resource_name_filter = Some(text("orders"));
        request.principal_filter = Some(text("User:a"));
        request.host_filter = Some(text("*"));
    }
    request.with_operation(3).with_permission_type(1)
}

fn api_versions(v: i16, full: bool) -> ApiVersionsRequest {
    let mut request = ApiVersionsRequest::default();
    if v >= 3 && full {
        request = request.with_client_software_name(text("a-client")).with_client_software_version(text("1.2.3"));
        request.unknown_tagged_fields = [(0, bytes::Bytes::from_static(b"x"))].into();
    }
    request
}

pub fn api_versions_with_cluster() -> Frame {
    by_hand(Api::ApiVersions, 5, |out| {
        put_compact(out, "a-client");
        put_compact(out, "1.2.3");
        put_compact(out, "cluster");
        out.put_i32(3);
        out.put_u8(0);
    })
}

pub fn all() -> Vec<Frame> {
    let mut all = frames(Api::ApiVersions, 4, api_versions);
    all.retain(|frame| frame.version < 5); // version 5 has two fields more, and kafka-protocol lacks it
    all.push(api_versions_with_cluster());
    all.extend(frames(Api::CreateTopics, 7, create_topics));
    all.extend(frames(Api::DeleteTopics, 6, delete_topics));
    all.extend(frames(Api::CreatePartitions, 3, create_partitions));
    all.extend(frames(Api::DescribeConfigs, 4, describe_configs));
    all.extend(frames(Api::AlterConfigs, 2, alter_configs));
    all.extend(frames(Api::IncrementalAlterConfigs, 1, incremental_alter_configs));
    all.extend(frames(Api::DescribeLogDirs, 4, describe_log_dirs));
    all.extend(frames(Api::DescribeProducers, 0, describe_producers));
    all.extend(frames(Api::ListConfigResources, 1, list_config_resources));
    all.extend(frames(Api::DescribeCluster, 2, describe_cluster));
    all.extend(frames(Api::DescribeAcls, 3, describe_acls));
    all
}
