//! Answers are what kafka-protocol's client side reads: fetches byte for byte, refusals with the error where a client looks for it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::fetch_response as theirs;
use kafka_protocol::messages::{ApiKey, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use millrace_base::ids::Uuid;
use millrace_base::prng::Prng;
use millrace_kafka::wire::fetch_response::{
    self as ours, AbortedTransaction, CurrentLeader, EpochEnd, FetchResponse, FetchedPartition, FetchedTopic, Part,
};
use millrace_kafka::wire::header::{request_header_version, response_header_version};
use millrace_kafka::wire::response::{EncodeError, body_version, encode, encode_describe_log_dirs};
use millrace_kafka::wire::table::{APIS, Api};
use millrace_kafka::wire::unsupported;

const CORRELATION_ID: i32 = -559_038_737;

/// Reads size, header and body, and demands that nothing is left.
fn read(api: Api, version: i16, frame: &Bytes) -> ResponseKind {
    let mut rest = frame.clone();
    assert_eq!(usize::try_from(rest.get_i32()).unwrap(), rest.len());
    let header = ResponseHeader::decode(&mut rest, response_header_version(api, version)).unwrap();
    assert_eq!(header.correlation_id, CORRELATION_ID);
    let key = ApiKey::try_from(api.key()).unwrap();
    let body = ResponseKind::decode(key, &mut rest, body_version(api, version)).unwrap();
    assert!(rest.is_empty());
    body
}

#[test]
fn header_versions_are_kafkas() {
    for row in APIS {
        let key = ApiKey::try_from(row.key).unwrap();
        for version in row.min..=row.max {
            assert_eq!(request_header_version(row.api, version), key.request_header_version(version), "{row:?} {version}");
            assert_eq!(response_header_version(row.api, version), key.response_header_version(version), "{row:?} {version}");
        }
        // From the answers' side kafka-protocol knows every version but those named in `body_version`, and DescribeLogDirs 5.
        let known = key.valid_versions();
        assert_eq!(known.min, row.min, "{row:?}");
        let newest = if row.api == Api::DescribeLogDirs { 4 } else { body_version(row.api, row.max) };
        assert!(newest <= known.max, "{row:?}");
        assert!(newest == known.max || row.api == Api::InitProducerId, "{row:?}: version 6 is unstable, all others are served");
    }
}

fn random_fetch(prng: &mut Prng, version: i16, names: &'static [&'static str]) -> FetchResponse<'static, Bytes> {
    let mut response = FetchResponse { throttle_time_ms: int(prng), error_code: short(prng), session_id: int(prng), ..Default::default() };
    for name in names.iter().take(count(prng, names.len() + 1)) {
        let mut topic = FetchedTopic { name, topic_id: Uuid::from_entropy(prng.next_u64(), prng.next_u64()), partitions: Vec::new() };
        for index in 0..i32::try_from(count(prng, 4)).unwrap() {
            let mut partition = FetchedPartition {
                index,
                error_code: short(prng),
                high_watermark: long(prng),
                last_stable_offset: long(prng),
                log_start_offset: long(prng),
                preferred_read_replica: int(prng),
                ..Default::default()
            };
            if prng.one_in(2) {
                let aborted = |prng: &mut Prng| AbortedTransaction { producer_id: long(prng), first_offset: long(prng) };
                partition.aborted_transactions = Some((0..count(prng, 3)).map(|_| aborted(prng)).collect());
            }
            if version >= 12 && prng.one_in(3) {
                partition.diverging_epoch = Some(EpochEnd { epoch: int(prng), end_offset: long(prng) });
            }
            if version >= 12 && prng.one_in(3) {
                partition.current_leader = Some(CurrentLeader { leader_id: int(prng), leader_epoch: int(prng) });
            }
            for _ in 0..count(prng, 4) {
                let size = if prng.one_in(10) { 20_000 } else { count(prng, 300) };
                partition.records.push(Bytes::from(vec![prng.next_u64().to_le_bytes()[0]; size]));
            }
            topic.partitions.push(partition);
        }
        response.topics.push(topic);
    }
    if version >= 16 {
        let racks = [None, Some("rack"), Some("")];
        let endpoint =
            |prng: &mut Prng| ours::NodeEndpoint { node_id: int(prng), host: "host.example", port: int(prng), rack: racks[count(prng, 3)] };
        response.node_endpoints = (0..count(prng, 20)).map(|_| endpoint(prng)).collect();
    }
    response
}

fn count(prng: &mut Prng, bound: usize) -> usize {
    usize::try_from(prng.below(bound as u64)).unwrap()
}

fn short(prng: &mut Prng) -> i16 {
    i16::try_from(prng.below(100)).unwrap()
}

fn int(prng: &mut Prng) -> i32 {
    i32::from_be_bytes(*prng.next_u64().to_be_bytes().first_chunk().unwrap())
}

fn long(prng: &mut Prng) -> i64 {
    i64::from_be_bytes(prng.next_u64().to_be_bytes())
}

/// The same answer as kafka-protocol's struct, records copied together.
fn as_theirs(version: i16, response: &FetchResponse<'static, Bytes>) -> kafka::FetchResponse {
    let text = StrBytes::from_static_str;
    let mut answer = kafka::FetchResponse::default().with_throttle_time_ms(response.throttle_time_ms);
    if version >= 7 {
        answer = answer.with_error_code(response.error_code).with_session_id(response.session_id);
    }
    for topic in &response.topics {
        let mut to = theirs::FetchableTopicResponse::default();
        if version >= 13 {
            to.topic_id = uuid::Uuid::from_bytes(topic.topic_id.0);
        } else {
            to.topic = kafka::TopicName(text(topic.name));
        }
        to.partitions = topic.partitions.iter().map(|partition| partition_as_theirs(version, partition)).collect();
        answer.responses.push(to);
    }
    for endpoint in &response.node_endpoints {
        let mut to =
            theirs::NodeEndpoint::default().with_node_id(endpoint.node_id.into()).with_host(text(endpoint.host)).with_port(endpoint.port);
        to.rack = endpoint.rack.map(text);
        answer.node_endpoints.push(to);
    }
    answer
}

fn partition_as_theirs(version: i16, from: &FetchedPartition<Bytes>) -> theirs::PartitionData {
    let mut to = theirs::PartitionData::default()
        .with_partition_index(from.index)
        .with_error_code(from.error_code)
        .with_high_watermark(from.high_watermark)
        .with_last_stable_offset(from.last_stable_offset)
        .with_records(Some(Bytes::from(from.records.concat())));
    if version >= 5 {
        to.log_start_offset = from.log_start_offset;
    }
    if version >= 11 {
        to.preferred_read_replica = from.preferred_read_replica.into();
    }
    if let Some(diverging) = from.diverging_epoch {
        to.diverging_epoch = theirs::EpochEndOffset::default().with_epoch(diverging.epoch).with_end_offset(diverging.end_offset);
    }
    if let Some(leader) = from.current_leader {
        to.current_leader =
            theirs::LeaderIdAndEpoch::default().with_leader_id(leader.leader_id.into()).with_leader_epoch(leader.leader_epoch);
    }
    to.aborted_transactions = from.aborted_transactions.as_ref().map(|aborted| {
        let each = |a: &AbortedTransaction| {
            theirs::AbortedTransaction::default().with_producer_id(a.producer_id.into()).with_first_offset(a.first_offset)
        };
        aborted.iter().map(each).collect()
    });
    to
}

#[test]
fn fetch_answers_are_kafka_protocols_bytes_and_records_are_not_copied() {
    let mut prng = Prng::new(18);
    for version in 4..=18 {
        for _ in 0..200 {
            let response = random_fetch(&mut prng, version, &["orders", "", "a-topic-of-some-length", "four"]);
            let mut expected = BytesMut::new();
            expected.extend_from_slice(&encode(Api::Fetch, version, CORRELATION_ID, &as_theirs(version, &response)).unwrap());
            let handed: Vec<Bytes> =
                response.topics.iter().flat_map(|t| &t.partitions).flat_map(|p| &p.records).filter(|r| !r.is_empty()).cloned().collect();
            let parts = ours::encode(version, CORRELATION_ID, response).unwrap();
            let mut sent = BytesMut::new();
            let mut records = Vec::new();
            for part in &parts {
                match part {
                    Part::Bytes(bytes) => {
                        assert!(!bytes.is_empty());
                        sent.extend_from_slice(bytes);
                    }
                    Part::Records(slice) => {
                        sent.extend_from_slice(slice);
                        records.push(slice.as_ptr());
                    }
                }
            }
            assert_eq!(sent, expected, "version {version}");
            assert_eq!(records, handed.iter().map(|slice| slice.as_ptr()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn fetch_fields_that_a_version_lacks_are_left_out() {
    let mut response = random_fetch(&mut Prng::new(5), 18, &["orders", "other"]);
    response.topics = vec![FetchedTopic { name: "orders", topic_id: Uuid::ZERO, partitions: vec![FetchedPartition::default()] }];
    response.topics[0].partitions[0].diverging_epoch = Some(EpochEnd { epoch: 1, end_offset: 2 });
    for version in 4..=18 {
        let parts = ours::encode::<Bytes>(version, CORRELATION_ID, response.clone()).unwrap();
        let [Part::Bytes(frame)] = parts.as_slice() else { panic!("no records, one part") };
        assert!(matches!(read(Api::Fetch, version, frame), ResponseKind::Fetch(_)));
    }
}

#[test]
fn api_versions_of_an_unknown_version_names_the_range_to_choose_from() {
    let frame = unsupported::answer(Api::ApiVersions, 77, CORRELATION_ID).unwrap();
    // Size, correlation id, error 35, one entry: key 18, versions 0 to 5.
    assert_eq!(frame[..4], [0, 0, 0, 16]);
    assert_eq!(frame[8..], [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5]);
}

#[test]
fn describe_log_dirs_5_is_version_4_with_the_cordon_flag() {
    let partition = kafka::describe_log_dirs_response::DescribeLogDirsPartition::default().with_partition_size(9).with_is_future_key(true);
    let topic = kafka::describe_log_dirs_response::DescribeLogDirsTopic::default()
        .with_name(kafka::TopicName(StrBytes::from_static_str("orders")))
        .with_partitions(vec![partition; 2]);
    let result = kafka::describe_log_dirs_response::DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_static_str("/data"))
        .with_total_bytes(7)
        .with_usable_bytes(3)
        .with_topics(vec![topic; 200]);
    let body = kafka::DescribeLogDirsResponse::default().with_throttle_time_ms(5).with_results(vec![result]);
    let four = encode_describe_log_dirs(4, CORRELATION_ID, &body).unwrap();
    let five = encode_describe_log_dirs(5, CORRELATION_ID, &body).unwrap();
    assert!(matches!(read(Api::DescribeLogDirs, 4, &four), ResponseKind::DescribeLogDirs(_)));
    // The flag stands before the tags of the result, which stand before the tags of the answer.
    let mut expected = four.to_vec();
    expected.insert(expected.len() - 2, 0);
    let size = i32::try_from(expected.len() - 4).unwrap();
    expected[..4].copy_from_slice(&size.to_be_bytes());
    assert_eq!(five, expected);
}

/// The body that kafka-clients 4.4.0 writes for the same answer.
#[test]
fn describe_log_dirs_5_is_the_java_classes_bytes() {
    use kafka::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
    let partition =
        DescribeLogDirsPartition::default().with_partition_index(1).with_partition_size(9).with_offset_lag(2).with_is_future_key(true);
    let topic =
        DescribeLogDirsTopic::default().with_name(kafka::TopicName(StrBytes::from_static_str("orders"))).with_partitions(vec![partition]);
    let result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_static_str("/data"))
        .with_total_bytes(7)
        .with_usable_bytes(3)
        .with_topics(vec![topic]);
    let body = kafka::DescribeLogDirsResponse::default().with_throttle_time_ms(5).with_results(vec![result]);
    let frame = encode_describe_log_dirs(5, CORRELATION_ID, &body).unwrap();
    let hex: String = frame[9..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "000000050000020000062f6461746102076f726465727302000000010000000000000009000000000000000201000000000000000000070000000000000003000000"
    );
}

#[test]
fn versions_that_kafka_protocol_lacks_have_the_body_of_the_one_before() {
    let body = kafka::ListOffsetsResponse::default().with_throttle_time_ms(3);
    assert_eq!(encode(Api::ListOffsets, 11, CORRELATION_ID, &body), encode(Api::ListOffsets, 10, CORRELATION_ID, &body));
    let body = kafka::ApiVersionsResponse::default().with_throttle_time_ms(3);
    assert_eq!(encode(Api::ApiVersions, 5, CORRELATION_ID, &body), encode(Api::ApiVersions, 4, CORRELATION_ID, &body));
}

#[test]
fn a_field_that_the_version_lacks_is_an_error_and_not_a_panic() {
    let body = kafka::FindCoordinatorResponse::default().with_error_code(1);
    let result = encode(Api::FindCoordinator, 4, CORRELATION_ID, &body);
    assert!(matches!(result, Err(EncodeError::Body { api: Api::FindCoordinator, version: 4, .. })));
    let mut expected = BytesMut::new();
    body.encode(&mut expected, 0).unwrap();
    assert_eq!(encode(Api::FindCoordinator, 0, CORRELATION_ID, &body).unwrap()[8..], expected);
}
