//! Handlers that need several replies, through their steps.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod frames;
mod standin;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use millrace_base::batch::Builder;
use millrace_base::clock::Nanos;
use millrace_base::ids::Uuid;
use millrace_io::Pool;
use millrace_kafka::call::Answer;
use millrace_kafka::wire::header::response_header_version;
use millrace_kafka::wire::table::Api;
use millrace_shard::api::*;
use standin::{Mood, SHARDS, TOPIC_ID, World, said, whole};

const PARTITIONS: usize = 6;

fn world() -> World {
    World::new(&[("orders", TOPIC_ID, PARTITIONS), ("__consumer_offsets", Uuid([4; 16]), 5)])
}

fn frame<M: Encodable>(api: Api, version: i16, request: &M) -> Vec<u8> {
    let mut out = BytesMut::from(frames::header(api, version).as_slice());
    request.encode(&mut out, version).unwrap();
    out.to_vec()
}

fn body<M: Decodable>(api: Api, version: i16, answer: Answer) -> M {
    let mut rest = Bytes::from(whole(answer));
    rest.advance(4);
    ResponseHeader::decode(&mut rest, response_header_version(api, version)).unwrap();
    M::decode(&mut rest, version).unwrap()
}

fn batch(value: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new(1000);
    builder.push(1000, None, Some(value));
    builder.finish()
}

fn orders() -> TopicName {
    TopicName(frames::text("orders"))
}

fn produce(acks: i16, indexes: &[i32]) -> kafka::ProduceRequest {
    let part = |index: &i32| PartitionProduceData::default().with_index(*index).with_records(Some(Bytes::from(batch(b"v"))));
    let topic = TopicProduceData::default().with_name(orders()).with_partition_data(indexes.iter().map(part).collect());
    kafka::ProduceRequest::default().with_acks(acks).with_timeout_ms(0).with_topic_data(vec![topic])
}

#[test]
fn log_dirs_are_told_with_the_space_of_their_file_systems() {
    for version in [3, 4] {
        let request = frame(Api::DescribeLogDirs, version, &kafka::DescribeLogDirsRequest::default().with_topics(None));
        let answer = world().answer(&request, Mood::Good);
        let answer: kafka::DescribeLogDirsResponse = body(Api::DescribeLogDirs, version, answer);
        let told: Vec<_> = answer.results.iter().map(|dir| (&*dir.log_dir, dir.error_code, dir.total_bytes, dir.usable_bytes)).collect();
        let (all, free) = if version < 4 { (-1, -1) } else { (7_000, 3_000) };
        assert_eq!(told, [("/failed", 56, -1, -1), ("/data", 0, all, free)], "version {version}");
    }
}

#[test]
fn a_produce_goes_once_to_each_owner_and_is_answered_in_request_order() {
    let mut world = world();
    let request = frame(Api::Produce, 9, &produce(-1, &[5, 0, 3, 0, 99, 1]));
    let mut step = world.begin(1, &request, Nanos(0));
    let sent = std::mem::take(&mut step.submitted);
    assert_eq!(sent.len(), usize::from(SHARDS));
    for (shard, token, request) in sent.into_iter().rev() {
        assert!(step.answer.is_none());
        let Request::Produce(produce) = request else { panic!("no produce") };
        assert!(produce.parts.iter().all(|part| part.partition.shard(SHARDS) == shard));
        assert!(produce.deadline >= Nanos(0).plus_ms(1_000));
        let base = |part: &ProducePart| i64::from(part.partition.index) * 10;
        let results = produce.parts.iter().map(|part| Ok(Produced { base: base(part), append_time: -1, log_start: 0 })).collect();
        world.reply(1, &mut step, token, Reply::Produced(results), Nanos(0));
    }
    let response: kafka::ProduceResponse = body(Api::Produce, 9, step.answer.unwrap());
    let parts = &response.responses[0].partition_responses;
    let rows: Vec<(i32, i16, i64)> = parts.iter().map(|part| (part.index, part.error_code, part.base_offset)).collect();
    assert_eq!(rows, [(5, 0, 50), (0, 0, 0), (3, 0, 30), (0, 42, -1), (99, 3, -1), (1, 0, 10)]);
}

#[test]
fn a_produce_without_acks_is_silent_or_closes() {
    let mut world = world();
    let good = frame(Api::Produce, 9, &produce(0, &[1]));
    assert!(matches!(world.answer(&good, Mood::Good), Answer::Nothing));
    assert!(matches!(world.answer(&good, Mood::Refusing), Answer::Close(_)));
    let unknown = frame(Api::Produce, 9, &produce(0, &[99]));
    assert!(matches!(world.answer(&unknown, Mood::Good), Answer::Close(_)));
}

#[test]
fn leader_hints_come_with_addresses() {
    let mut world = world();
    let request = frame(Api::Produce, 10, &produce(1, &[0]));
    let response: kafka::ProduceResponse = body(Api::Produce, 10, world.answer(&request, Mood::Refusing));
    let part = &response.responses[0].partition_responses[0];
    assert_eq!((part.error_code, part.current_leader.leader_id.0, part.current_leader.leader_epoch), (6, 1, 5));
    assert_eq!((response.node_endpoints[0].host.as_str(), response.node_endpoints[0].port), ("here", 9092));
}

fn fetch(version: i16, indexes: &[i32], min_bytes: i32) -> Vec<u8> {
    let part = |index: &i32| FetchPartition::default().with_partition(*index).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(orders()).with_partitions(indexes.iter().map(part).collect());
    let request =
        kafka::FetchRequest::default().with_max_wait_ms(500).with_min_bytes(min_bytes).with_max_bytes(1 << 20).with_topics(vec![topic]);
    frame(Api::Fetch, version, &request)
}

fn data(bytes: &[u8]) -> ReadData {
    let batches = if bytes.is_empty() { vec![] } else { vec![Pool::new(0).take(bytes.len()).push(bytes)] };
    ReadData { batches, commit: 9, stable: 9, log_start: 0, diverging: None }
}

#[test]
fn a_fetch_from_one_shard_waits_there() {
    let mut world = world();
    let mut step = world.begin(1, &fetch(11, &[2], 1), Nanos(0));
    let (shard, token, request) = step.submitted.pop().unwrap();
    assert!(step.submitted.is_empty());
    assert_eq!(step.owner, Some(shard));
    let Request::Read(read) = request else { panic!("no read") };
    assert_eq!((read.min_bytes, read.deadline), (1, Nanos(0).plus_ms(500)));
    world.reply(1, &mut step, token, Reply::Read(vec![Ok(data(&batch(b"x")))]), Nanos(5));
    let response: kafka::FetchResponse = body(Api::Fetch, 11, step.answer.unwrap());
    assert_eq!(response.responses[0].partitions[0].records.as_ref().unwrap().len(), batch(b"x").len());
}

#[test]
fn a_fetch_from_several_shards_looks_first_then_waits_and_the_first_stops_the_others() {
    let mut world = world();
    let mut step = world.begin(1, &fetch(11, &[0, 1, 2], 1), Nanos(0));
    let looks = std::mem::take(&mut step.submitted);
    assert_eq!(looks.len(), 3);
    for (_, token, request) in looks {
        let Request::Read(read) = request else { panic!("no read") };
        assert_eq!((read.min_bytes, read.deadline), (0, Nanos(0)));
        let empty = read.parts.iter().map(|_| Ok(data(b""))).collect();
        world.reply(1, &mut step, token, Reply::Read(empty), Nanos(1));
    }
    let waits = std::mem::take(&mut step.submitted);
    assert_eq!(waits.len(), 3);
    let tokens: Vec<u64> = waits.iter().map(|(_, token, _)| *token).collect();
    world.reply(1, &mut step, tokens[1], Reply::Read(vec![Ok(data(&batch(b"x")))]), Nanos(2));
    assert!(step.answer.is_none());
    let stopped = |(_, _, request): &(u16, u64, Request)| match request {
        Request::StopWaiting { token } => *token,
        other => panic!("{other:?}"),
    };
    let stops: Vec<u64> = step.submitted.iter().map(stopped).collect();
    assert_eq!(stops, [tokens[0], tokens[2]]);
    for token in [tokens[0], tokens[2]] {
        world.reply(1, &mut step, token, Reply::Read(vec![Ok(data(b""))]), Nanos(3));
    }
    let response: kafka::FetchResponse = body(Api::Fetch, 11, step.answer.unwrap());
    let indexes: Vec<i32> = response.responses[0].partitions.iter().map(|part| part.partition_index).collect();
    assert_eq!(indexes, [0, 1, 2]);
    // Empty records, never null: some clients trip over null.
    assert!(response.responses[0].partitions.iter().all(|part| part.records.is_some()));
}

#[test]
fn enough_at_the_first_look_is_answered_at_once() {
    let mut world = world();
    let mut step = world.begin(1, &fetch(11, &[0, 1, 2], 1), Nanos(0));
    for (_, token, _) in std::mem::take(&mut step.submitted) {
        world.reply(1, &mut step, token, Reply::Read(vec![Ok(data(&batch(b"x")))]), Nanos(1));
        if step.answer.is_some() {
            break;
        }
    }
    assert!(step.answer.is_some() && step.submitted.is_empty());
}

#[test]
fn a_name_that_no_topic_can_have_is_kept_nowhere() {
    let mut world = world();
    let part = || vec![FetchPartition::default().with_partition_max_bytes(1 << 20)];
    let long = FetchTopic::default().with_topic(kafka::TopicName(StrBytes::from_string("n".repeat(250)))).with_partitions(part());
    let good = FetchTopic::default().with_topic(orders()).with_partitions(part());
    let request = kafka::FetchRequest::default().with_session_epoch(0).with_max_wait_ms(500).with_min_bytes(1);
    let step = world.begin(1, &frame(Api::Fetch, 11, &request.with_topics(vec![good, long])), Nanos(0));
    assert!(step.submitted.is_empty() && world.shared.sessions.is_empty());
    let response: kafka::FetchResponse = body(Api::Fetch, 11, step.answer.unwrap());
    assert_eq!((response.error_code, response.session_id, response.responses.len()), (17, 0, 0));
}

#[test]
fn a_client_that_goes_stops_its_reads() {
    let mut world = world();
    let mut step = world.begin(1, &fetch(11, &[2], 1), Nanos(0));
    let token = step.submitted.pop().unwrap().1;
    world.go_on(1, &mut step, Nanos(1), |pending, call| {
        pending.cancelled(call);
        None
    });
    assert!(matches!(step.submitted[..], [(_, _, Request::StopWaiting { token: stopped })] if stopped == token));
}

#[test]
fn unknown_topics_are_made_and_awaited_for_a_second() {
    let mut world = World::new(&[]);
    let topic = kafka::metadata_request::MetadataRequestTopic::default().with_name(Some(orders()));
    let request = kafka::MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true);
    let request = frame(Api::Metadata, 9, &request);
    let mut step = world.begin(1, &request, Nanos(0));
    assert!(matches!(&step.submitted[..], [(0, _, Request::Meta(changes))] if changes.len() == 1));
    assert_eq!(step.timer, Some(Nanos(0).plus_ms(1_000)));
    world.go_on(1, &mut step, Nanos(0).plus_ms(1_000), |pending, call| pending.timer(call));
    let late: kafka::MetadataResponse = body(Api::Metadata, 9, step.answer.take().unwrap());
    assert_eq!(late.topics[0].error_code, 5);
    // In time, and known here by then.
    let mut step = world.begin(2, &request, Nanos(0));
    let made = World::new(&[("orders", TOPIC_ID, 3)]);
    (world.meta, world.leaders) = (made.meta, made.leaders);
    let (_, token, asked) = step.submitted.pop().unwrap();
    world.reply(2, &mut step, token, said(asked, Mood::Good), Nanos(1));
    let found: kafka::MetadataResponse = body(Api::Metadata, 9, step.answer.unwrap());
    assert_eq!((found.topics[0].error_code, found.topics[0].partitions.len(), found.topics[0].partitions[0].leader_epoch), (0, 3, 4));
    assert_eq!(found.brokers[0].host.as_str(), "here");
}

#[test]
fn a_group_finds_its_coordinator_and_makes_the_offsets_topic_first() {
    let mut world = World::new(&[]);
    let request = kafka::FindCoordinatorRequest::default().with_coordinator_keys(vec![frames::text("g"), frames::text("h")]);
    let request = frame(Api::FindCoordinator, 4, &request);
    let mut step = world.begin(1, &request, Nanos(0));
    world.go_on(1, &mut step, Nanos(0).plus_ms(1_000), |pending, call| pending.timer(call));
    let late: kafka::FindCoordinatorResponse = body(Api::FindCoordinator, 4, step.answer.take().unwrap());
    assert_eq!(late.coordinators.iter().map(|row| row.error_code).collect::<Vec<_>>(), [15, 15]);
    let mut world = self::world();
    let found: kafka::FindCoordinatorResponse = body(Api::FindCoordinator, 4, world.answer(&request, Mood::Good));
    assert_eq!(found.coordinators.iter().map(|row| (row.error_code, row.node_id.0, row.port)).collect::<Vec<_>>(), [(0, 1, 9092); 2]);
}

#[test]
fn producers_that_start_together_share_one_block() {
    let mut world = world();
    let request = frame(
        Api::InitProducerId,
        4,
        &kafka::InitProducerIdRequest::default().with_transactional_id(None).with_producer_id((-1).into()).with_producer_epoch(-1),
    );
    let mut first = world.begin(1, &request, Nanos(0));
    let mut second = world.begin(2, &request, Nanos(0));
    assert!(second.submitted.is_empty());
    let (_, token, asked) = first.submitted.pop().unwrap();
    world.reply(1, &mut first, token, said(asked, Mood::Good), Nanos(1));
    assert_eq!(std::mem::take(&mut world.shared.wake), [2]);
    world.go_on(2, &mut second, Nanos(1), |pending, call| pending.woken(call));
    let id = |answer: Answer| body::<kafka::InitProducerIdResponse>(Api::InitProducerId, 4, answer).producer_id.0;
    assert_eq!((id(first.answer.unwrap()), id(second.answer.unwrap())), (5000, 5001));
}

#[test]
fn many_partitions_are_asked_for_in_bounded_pieces() {
    let mut world = World::new(&[("orders", TOPIC_ID, 99_000)]);
    let part = |index: i32| kafka::list_offsets_request::ListOffsetsPartition::default().with_partition_index(index).with_timestamp(-1);
    let topic =
        kafka::list_offsets_request::ListOffsetsTopic::default().with_name(orders()).with_partitions((0..99_000).map(part).collect());
    let request = frame(Api::ListOffsets, 5, &kafka::ListOffsetsRequest::default().with_topics(vec![topic]));
    let step = world.begin(1, &request, Nanos(0));
    assert!(step.submitted.len() <= 8);
    assert!(step.submitted.iter().all(|(_, _, request)| matches!(request, Request::ListOffsets(queries) if queries.len() <= 512)));
    let response: kafka::ListOffsetsResponse = body(Api::ListOffsets, 5, world.answer(&request, Mood::Good));
    assert!(response.topics[0].partitions.iter().enumerate().all(|(at, part)| part.partition_index as usize == at && part.offset == 5));
}
