//! Making, configuring and deleting topics, and asking where a partition begins and ends.

use crate::connection::Connection;
use crate::failure::{Failure, Outcome, accepted};
use crate::report::Report;
use crate::window::Watch;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest,
    MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use millrace_ops::histogram::Histogram;
use std::ops::Range;
use std::time::{Duration, Instant};

const CREATE_VERSION: i16 = 5;
const DELETE_VERSION: i16 = 5;
const PARTITIONS_VERSION: i16 = 1;
const CONFIGURE_VERSION: i16 = 1;
const METADATA_VERSION: i16 = 9;
pub const LIST_OFFSETS_VERSION: i16 = 5;

/// Partitions made by one request: Kafka's controller writes at most 10,000 records for one.
const PARTITIONS_AT_ONCE: i32 = 5000;

const SERVER_WAIT_MS: i32 = 30_000;
/// A peer with 10,000 new partitions takes minutes; whoever waits has a bound of its own.
const READY_S_MAX: u64 = 600;
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// ConfigResource.Type TOPIC and AlterConfigOp SET, as the protocol numbers them.
const TOPIC_RESOURCE: i8 = 2;
const SET: i8 = 0;

/// Timestamps that stand for the ends of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Start = -2,
    Tail = -1,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

/// Makes a topic and waits until every partition of it has a leader that serves it.
pub fn create(connection: &mut Connection, topic: &str, partitions: i32, configs: &[(String, String)]) -> Outcome<()> {
    request_one(connection, topic, partitions.min(PARTITIONS_AT_ONCE), configs)?;
    let mut made = partitions.min(PARTITIONS_AT_ONCE);
    while made < partitions {
        made = partitions.min(made + PARTITIONS_AT_ONCE);
        let grown = CreatePartitionsTopic::default().with_name(name(topic)).with_count(made).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![grown]).with_timeout_ms(SERVER_WAIT_MS);
        let response = connection.call(&request, PARTITIONS_VERSION)?;
        response.results.iter().try_for_each(|topic| accepted("adding partitions", topic.error_code))?;
    }
    await_leaders(connection, topic, partitions)
}

fn request_one(connection: &mut Connection, topic: &str, partitions: i32, configs: &[(String, String)]) -> Outcome<()> {
    let configs = configs.iter().map(|(key, value)| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value))));
    let creatable = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(SERVER_WAIT_MS);
    let response = connection.call(&request, CREATE_VERSION)?;
    response.topics.iter().try_for_each(|topic| accepted("creating the topic", topic.error_code))
}

fn await_leaders(connection: &mut Connection, topic: &str, partitions: i32) -> Outcome<()> {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
    let began = Instant::now();
    while began.elapsed().as_secs() < READY_S_MAX {
        let asking = Instant::now();
        let response = connection.call(&request, METADATA_VERSION)?;
        let found = response.topics.iter().flat_map(|topic| &topic.partitions);
        let led = found.filter(|partition| partition.error_code == 0 && partition.leader_id.0 >= 0).count() == partitions as usize;
        // A leader may be named before it knows that it is one.
        if led && offsets(connection, topic, 0..partitions, End::Tail)?.iter().all(|partition| partition.error_code == 0) {
            return Ok(());
        }
        // Half of the time at most goes to asking, which is work for the server too.
        std::thread::sleep(ASK_AGAIN.max(asking.elapsed()));
    }
    Err(Failure::Late { doing: "waiting for leaders of all partitions", waited_s: READY_S_MAX })
}

/// Sets some of a topic's configuration, and leaves the rest as it is.
pub fn configure(connection: &mut Connection, topic: &str, configs: &[(String, String)]) -> Outcome<()> {
    let set = |(key, value): &(String, String)| {
        AlterableConfig::default().with_name(text(key)).with_config_operation(SET).with_value(Some(text(value)))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(topic))
        .with_configs(configs.iter().map(set).collect());
    let response = connection.call(&IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), CONFIGURE_VERSION)?;
    response.responses.iter().try_for_each(|topic| accepted("configuring the topic", topic.error_code))
}

pub fn delete(connection: &mut Connection, topic: &str) -> Outcome<()> {
    delete_all(connection, &[topic.to_owned()])
}

fn delete_all(connection: &mut Connection, topics: &[String]) -> Outcome<()> {
    let names = topics.iter().map(|topic| name(topic)).collect();
    let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(SERVER_WAIT_MS);
    let response = connection.call(&request, DELETE_VERSION)?;
    response.responses.iter().try_for_each(|topic| accepted("deleting the topic", topic.error_code))
}

/// Topics deleted in one request.
const DELETED_AT_ONCE: usize = 100;

/// Makes `count` topics one after the other, each with a request of its own, and tells how many a second; then deletes them, which does not
/// count. A topic counts when its answer has come; what its leaders need beyond that is not waited for.
pub fn make_many(connection: &mut Connection, prefix: &str, count: u32, partitions: i32, server: Option<u32>) -> Outcome<Report> {
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
    let mut latencies = Histogram::new();
    let watch = Watch::start(server)?;
    for topic in &names {
        let sent = Instant::now();
        request_one(connection, topic, partitions, &[])?;
        latencies.record(sent.elapsed());
    }
    let span = watch.stop()?;
    if let Some(last) = names.last() {
        await_leaders(connection, last, partitions)?;
    }
    names.chunks(DELETED_AT_ONCE).try_for_each(|some| delete_all(connection, some))?;
    let report = Report::new("make-topics").count("topics", count.into()).count("partitions", partitions as u64);
    Ok(report.figure("seconds", span.seconds).ratio("topics_per_s", f64::from(count), span.seconds).latencies(&latencies))
}

/// Where one partition begins or ends.
pub fn offset(connection: &mut Connection, topic: &str, partition: i32, end: End) -> Outcome<i64> {
    let found = offsets(connection, topic, partition..partition + 1, end)?;
    let [found] = found.as_slice() else { return Err(Failure::wrong("asking for an offset", "the answer is not for one partition")) };
    accepted("asking for an offset", found.error_code)?;
    Ok(found.offset)
}

fn offsets(connection: &mut Connection, topic: &str, partitions: Range<i32>, end: End) -> Outcome<Vec<ListOffsetsPartitionResponse>> {
    let response = connection.call(&list_offsets_request(topic, partitions, end), LIST_OFFSETS_VERSION)?;
    Ok(response.topics.into_iter().flat_map(|topic| topic.partitions).collect())
}

/// A request for where each of the partitions begins or ends.
pub fn list_offsets_request(topic: &str, partitions: Range<i32>, end: End) -> ListOffsetsRequest {
    let asked = |partition| {
        ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(end as i64).with_current_leader_epoch(-1)
    };
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(partitions.map(asked).collect());
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}
