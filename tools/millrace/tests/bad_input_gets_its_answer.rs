//! A catalogue of bad input against the real binary: each row gets the protocol's error, or a close with a reason in the log, and another
//! client is served after each of them.
//!
//! Decoding as such is tried harder beside the decoder (`frontends/kafka/tests/hostile_frames_are_refused_within_their_budget.rs`).

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest};
use kafka_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{ApiVersionsRequest, BrokerId, GroupId, HeartbeatRequest, InitProducerIdRequest, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use millrace_base::batch::{Builder, HEADER_BYTES, LENGTH_OVERHEAD, place, set_max_timestamp};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Broker, PATIENCE, ask, create, fetch, fetch_request, folder, framed, produce, topic};

const TIME: i64 = 1_700_000_000_000;

/// What bytes on a connection of their own lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Closed,
    /// Nothing at all: the connection stays.
    Silence,
    /// So many answers.
    Answers(usize),
}

/// A header of Kafka's first flexible version.
fn header(key: i16, version: i16, client: &[u8], tags: &[u8]) -> Vec<u8> {
    [&key.to_be_bytes()[..], &version.to_be_bytes(), &7i32.to_be_bytes(), client, tags].concat()
}

fn sized(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

const API_VERSIONS: i16 = 18;
const METADATA: i16 = 3;

/// Sends the bytes and sees what comes. What is expected may take long on a busy machine; nothing is expected to come behind it.
fn outcome(broker: &Broker, bytes: &[u8], expected: &Then) -> Then {
    let mut stream = broker.connect();
    // The broker may close before it has taken all.
    let _ = stream.write_all(bytes);
    let mut answers = 0;
    loop {
        let is_due = match expected {
            Then::Closed => true,
            Then::Answers(count) => answers < *count,
            Then::Silence => false,
        };
        stream.set_read_timeout(Some(if is_due { PATIENCE } else { Duration::from_millis(300) })).unwrap();
        let mut length = [0; 4];
        match stream.read_exact(&mut length) {
            Ok(()) => {
                stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).unwrap();
                answers += 1;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return if answers == 0 { Then::Silence } else { Then::Answers(answers) };
            }
            Err(_) => return Then::Closed,
        }
    }
}

fn served(broker: &Broker, row: &str) {
    let mut stream = broker.connect();
    assert_eq!(produce(&mut stream, 1, 100), 0, "after {row}");
}

#[test]
fn frames_and_headers() {
    let mut broker = Broker::start(&[&folder("bad-frames")], &["shards=1"]).unwrap();
    create(&mut broker.connect(), 2);
    let good = framed(0, &ApiVersionsRequest::default());
    let metadata = |version: i16, body: &[u8]| sized(&[&header(METADATA, version, &[0, 1, b'c'], &[0])[..], body].concat());
    let rows: Vec<(&str, Vec<u8>, Then)> = vec![
        ("length 0", vec![0; 4], Then::Closed),
        ("length 1", vec![0, 0, 0, 1, 0], Then::Closed),
        ("length -1", vec![0xff; 4], Then::Closed),
        ("length 0x7fffffff", vec![0x7f, 0xff, 0xff, 0xff], Then::Closed),
        ("length -2^31", vec![0x80, 0, 0, 0], Then::Closed),
        ("a body that is short, then silence", good[..good.len() - 1].to_vec(), Then::Silence),
        ("two frames in one packet", [good.clone(), good.clone()].concat(), Then::Answers(2)),
        ("ten thousand frames at once", good.repeat(10_000), Then::Answers(10_000)),
        ("a good frame, then garbage", [&good[..], &[0xde; 100]].concat(), Then::Closed),
        ("a TLS hello", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], Then::Closed),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Then::Closed),
        ("key -1", sized(&header(-1, 0, &[0, 0], &[])), Then::Closed),
        ("key 32767", sized(&header(i16::MAX, 0, &[0, 0], &[])), Then::Closed),
        ("a key of brokers alone", sized(&header(4, 0, &[0, 0], &[])), Then::Closed),
        ("version -1", sized(&header(METADATA, -1, &[0, 0], &[])), Then::Answers(1)),
        ("version 32767", sized(&header(METADATA, i16::MAX, &[0, 0], &[])), Then::Answers(1)),
        ("ApiVersions 32767", sized(&header(API_VERSIONS, i16::MAX, &[0, 0], &[])), Then::Answers(1)),
        ("Produce 2 with acks=-1", sized(&[&header(0, 2, &[0, 0], &[])[..], &[0xff, 0xff]].concat()), Then::Answers(1)),
        ("Produce 2 with acks=0, which expects no answer", sized(&[&header(0, 2, &[0, 0], &[])[..], &[0, 0]].concat()), Then::Closed),
        ("Produce 2, a header alone", sized(&header(0, 2, &[0, 0], &[])), Then::Answers(1)),
        ("Fetch 3", sized(&header(1, 3, &[0, 0], &[])), Then::Answers(1)),
        ("a header alone", sized(&header(METADATA, 9, &[0, 0], &[])), Then::Closed),
        ("a client id of length -2", sized(&header(METADATA, 1, &[0xff, 0xfe], &[])), Then::Closed),
        ("a client id past the end", sized(&header(METADATA, 1, &[0x7f, 0xff, b'c'], &[])), Then::Closed),
        ("a client id that is no UTF-8", sized(&header(METADATA, 1, &[0, 2, 0xc3, 0x28], &[0; 4])), Then::Closed),
        ("2^32-1 tagged fields", sized(&header(METADATA, 9, &[0, 0], &[0xff, 0xff, 0xff, 0xff, 0x0f])), Then::Closed),
        ("a tagged field past the end", sized(&header(METADATA, 9, &[0, 0], &[1, 0, 0x7f, 1])), Then::Closed),
        ("a varint of six bytes", metadata(9, &[0x80, 0x80, 0x80, 0x80, 0x80, 0]), Then::Closed),
        ("an array of 2^32-2 elements", metadata(9, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Then::Closed),
        ("arrays that each claim the rest", metadata(9, &[0x7f; 120]), Then::Closed),
        ("bytes behind the body, passed over as in Kafka", sized(&[&good[4..], &[0]].concat()), Then::Answers(1)),
        ("16 MiB of topic names", metadata(9, &vec![1; 16 << 20]), Then::Closed),
    ];
    for (row, bytes, then) in rows {
        assert_eq!(outcome(&broker, &bytes, &then), then, "{row}");
        served(&broker, row);
    }
    let mut dribble = broker.connect();
    for byte in &good {
        dribble.write_all(std::slice::from_ref(byte)).unwrap();
    }
    dribble.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    dribble.read_to_end(&mut answer).unwrap();
    assert!(answer.len() > 100, "a frame in packets of one byte, by a client that then sends no more, is answered");
    let said = broker.said().join("\n");
    for reason in ["TLS", "HTTP", "API key 4 is not served", "tagged", "Produce version 2"] {
        assert!(said.contains(reason), "the log says {reason:?}");
    }
}

/// One record with a key and a header, changed, its CRC set.
fn batch(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut builder = Builder::new(TIME);
    builder.push(TIME, Some(b"k"), Some(b"v"));
    let mut bytes = builder.finish();
    change(&mut bytes);
    let length = (bytes.len() - LENGTH_OVERHEAD) as i32;
    bytes[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    let time = i64::from_be_bytes(bytes[place::MAX_TIMESTAMP..place::MAX_TIMESTAMP + 8].try_into().unwrap());
    set_max_timestamp(&mut bytes, time);
    bytes
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// The codes of one request with these batches, all for partition 0.
fn produced(stream: &mut TcpStream, batches: &[Vec<u8>]) -> Vec<i16> {
    let data = |batch: &Vec<u8>| PartitionProduceData::default().with_index(0).with_records(Some(batch.clone().into()));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(batches.iter().map(data).collect());
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data]);
    ask(stream, 9, &request).responses[0].partition_responses.iter().map(|part| part.error_code).collect()
}

const CORRUPT: i16 = 2;
const INVALID_TIMESTAMP: i16 = 32;
const INVALID_REQUEST: i16 = 42;
const OUT_OF_ORDER: i16 = 45;
const NOT_AUTHORIZED: i16 = 53;
const UNSUPPORTED_CODEC: i16 = 76;
const INVALID_RECORD: i16 = 87;

#[test]
fn batches() {
    let broker = Broker::start(&[&folder("bad-batches")], &["shards=1"]).unwrap();
    create(&mut broker.connect(), 2);
    let mut stream = broker.connect();
    // A record: length, attributes, time, offset, key length, key, value length, value, header count.
    const RECORD: usize = HEADER_BYTES;
    let rows: Vec<(&str, Vec<u8>, i16)> = vec![
        ("good", batch(|_| ()), 0),
        ("no bytes", Vec::new(), INVALID_RECORD),
        (
            "a CRC that is wrong",
            {
                let mut b = batch(|_| ());
                b[RECORD] ^= 1;
                b
            },
            CORRUPT,
        ),
        (
            "a CRC of zero",
            {
                let mut b = batch(|_| ());
                put(&mut b, place::CRC, [0; 4]);
                b
            },
            CORRUPT,
        ),
        ("magic 0", batch(|b| b[place::MAGIC] = 0), INVALID_RECORD),
        ("magic 1", batch(|b| b[place::MAGIC] = 1), INVALID_RECORD),
        ("magic 3", batch(|b| b[place::MAGIC] = 3), INVALID_RECORD),
        (
            "a length below the header's",
            {
                let mut b = batch(|_| ());
                put(&mut b, place::LENGTH, 10i32.to_be_bytes());
                b
            },
            CORRUPT,
        ),
        (
            "a negative length",
            {
                let mut b = batch(|_| ());
                put(&mut b, place::LENGTH, [0xff; 4]);
                b
            },
            CORRUPT,
        ),
        (
            "a length past the end",
            {
                let mut b = batch(|_| ());
                put(&mut b, place::LENGTH, 1000i32.to_be_bytes());
                b
            },
            INVALID_RECORD,
        ),
        ("two batches", [batch(|_| ()), batch(|_| ())].concat(), INVALID_RECORD),
        ("count -1", batch(|b| put(b, place::COUNT, [0xff; 4])), INVALID_RECORD),
        ("count 0", batch(|b| put(b, place::COUNT, [0; 4])), INVALID_RECORD),
        ("count 2^31-1", batch(|b| put(b, place::COUNT, i32::MAX.to_be_bytes())), INVALID_RECORD),
        ("count 2 with one record", batch(|b| (b[place::COUNT + 3], b[place::LAST_OFFSET_DELTA + 3]) = (2, 1)), INVALID_RECORD),
        ("a last delta that is not count-1", batch(|b| b[place::LAST_OFFSET_DELTA + 3] = 1), INVALID_RECORD),
        ("a negative last delta", batch(|b| put(b, place::LAST_OFFSET_DELTA, [0xff; 4])), INVALID_RECORD),
        ("a record of length -1", batch(|b| b[RECORD] = 1), INVALID_RECORD),
        ("a record past the end", batch(|b| b[RECORD] = 100), INVALID_RECORD),
        ("an offset delta that is not 0", batch(|b| b[RECORD + 3] = 2), INVALID_RECORD),
        ("a key past the end", batch(|b| b[RECORD + 4] = 60), INVALID_RECORD),
        ("-1 headers", batch(|b| *b.last_mut().unwrap() = 1), INVALID_RECORD),
        ("a header that is not there", batch(|b| *b.last_mut().unwrap() = 2), INVALID_RECORD),
        ("bytes behind the records", batch(|b| b.push(0)), INVALID_RECORD),
        ("none compressed", batch(|b| (b[place::ATTRIBUTES + 1], b[place::COUNT + 3]) = (1, 0)), INVALID_RECORD),
        ("a control batch", batch(|b| b[place::ATTRIBUTES + 1] = 1 << 5), INVALID_RECORD),
        ("codec 5", batch(|b| b[place::ATTRIBUTES + 1] = 5), UNSUPPORTED_CODEC),
        ("codec 7", batch(|b| b[place::ATTRIBUTES + 1] = 7), UNSUPPORTED_CODEC),
        ("the broker's timestamp type", batch(|b| b[place::ATTRIBUTES + 1] = 1 << 3), INVALID_TIMESTAMP),
        ("a transactional batch without an id", batch(|b| b[place::ATTRIBUTES + 1] = 1 << 4), NOT_AUTHORIZED),
        ("base timestamp -2^63", batch(|b| put(b, place::BASE_TIMESTAMP, i64::MIN.to_be_bytes())), INVALID_TIMESTAMP),
        ("a producer that begins in the middle", batch(|b| producer(b, 9_000, 0, 5)), 0),
        ("its sequence with a gap", batch(|b| producer(b, 9_000, 0, 9)), OUT_OF_ORDER),
    ];
    for (row, bytes, code) in rows {
        assert_eq!(produced(&mut stream, &[bytes]), [code], "{row}");
        served(&broker, row);
    }
    assert_eq!(produced(&mut stream, &[batch(|_| ()), batch(|_| ())]), [0, INVALID_REQUEST], "a partition named twice");
    let last = |b: &mut Vec<u8>| producer(b, 9_001, 0, i32::MAX);
    assert_eq!(produced(&mut stream, &[batch(last)]), [0]);
    assert_eq!(produced(&mut stream, &[batch(|b| producer(b, 9_001, 0, 0))]), [0], "sequences go on from 2^31-1 to 0");
    assert_eq!(fetch(&mut stream, 0, 0).0, 0);
}

/// Records of an uncompressed batch are looked at one by one: the first and the latest may both be fine.
#[test]
fn a_record_that_is_too_old_refuses_its_batch_wherever_it_stands() {
    const HOUR: i64 = 3_600_000;
    let before = format!("log.message.timestamp.before.max.ms={HOUR}");
    let broker = Broker::start(&[&folder("old-records")], &["shards=1", &before]).unwrap();
    let mut stream = broker.connect();
    create(&mut stream, 1);
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let rows: [(&[i64], i16); 6] = [
        (&[now, now - HOUR / 2, now], 0),
        (&[now, now - 2 * HOUR, now], INVALID_TIMESTAMP),
        (&[now, now, now - 2 * HOUR], INVALID_TIMESTAMP),
        (&[now - 2 * HOUR, now], INVALID_TIMESTAMP),
        (&[now, -1, now], 0),
        (&[now, -1, now - 2 * HOUR], INVALID_TIMESTAMP),
    ];
    for (timestamps, code) in rows {
        let mut builder = Builder::new(timestamps[0]);
        timestamps.iter().for_each(|timestamp| builder.push(*timestamp, Some(b"k"), Some(b"v")));
        assert_eq!(produced(&mut stream, &[builder.finish()]), [code], "{timestamps:?}, now {now}");
    }
}

fn producer(batch: &mut [u8], id: i64, epoch: i16, sequence: i32) {
    put(batch, place::PRODUCER_ID, id.to_be_bytes());
    put(batch, place::PRODUCER_EPOCH, epoch.to_be_bytes());
    put(batch, place::BASE_SEQUENCE, sequence.to_be_bytes());
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn created(stream: &mut TcpStream, name: &str, partitions: i32, factor: i16) -> i16 {
    let topic = CreatableTopic::default().with_name(TopicName(text(name))).with_num_partitions(partitions).with_replication_factor(factor);
    ask(stream, 5, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)).topics[0].error_code
}

fn join(group: &str, instance: Option<&str>, bytes: usize) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(vec![0; bytes].into());
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_group_instance_id(instance.map(text))
        .with_protocols(vec![protocol])
}

/// Sends it on a connection of its own; whether the connection was closed for it.
fn is_closed<R: Request>(broker: &Broker, version: i16, request: &R) -> bool {
    outcome(broker, &framed(version, request), &Then::Closed) == Then::Closed
}

#[test]
fn requests_that_mean_nothing_good() {
    const NO_DELAY: &str = "group.initial.rebalance.delay.ms=0";
    let broker = Broker::start(&[&folder("bad-requests")], &["shards=1", "offsets.topic.num.partitions=1", NO_DELAY]).unwrap();
    let mut stream = broker.connect();
    create(&mut stream, 2);
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a/b", long.as_str(), "a\0b", "ä", "a b"] {
        assert_eq!(created(&mut stream, name, 1, 1), 17, "topic {name:?}");
    }
    assert_eq!(created(&mut stream, "many", 1_000_000, 1), 37);
    assert_eq!(created(&mut stream, "none", 0, 1), 37);
    assert_eq!(created(&mut stream, "factor", 1, -2), 38);
    assert_eq!(created(&mut stream, "factor", 1, 2), 38);
    let config = |name: &str, value: &str| {
        let config = AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
        let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(topic().0).with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    };
    let huge = "9".repeat(30_000);
    for (name, value) in [("no.such", "1"), ("retention.ms", "soon"), ("retention.ms", &huge), ("segment.bytes", "1")] {
        assert_eq!(ask(&mut stream, 1, &config(name, value)).responses[0].error_code, 40, "config {name}");
    }
    let delete = |offset| {
        let part = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
        let topics = vec![DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![part])];
        DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(10_000)
    };
    for offset in [1_000, i64::MAX, -2] {
        assert_eq!(ask(&mut stream, 1, &delete(offset)).topics[0].partitions[0].error_code, 1, "records below {offset}");
    }
    let offsets = |time| {
        let part = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(time);
        let topics = vec![ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![part])];
        ListOffsetsRequest::default().with_topics(topics)
    };
    for (time, code) in [(-1, 0), (-2, 0), (-3, 0), (-7, 35), (i64::MIN, 35), (i64::MAX, 0)] {
        assert_eq!(ask(&mut stream, 7, &offsets(time)).topics[0].partitions[0].error_code, code, "offset by time {time}");
    }
    served(&broker, "admin requests");
    // Fetches.
    let same = fetch_request((0..100_000).map(|_| (0, 0)), i32::MAX);
    assert!(is_closed(&broker, 12, &same), "with its topic it has one element too many");
    let same = fetch_request((0..90_000).map(|_| (0, 0)), i32::MAX);
    assert_eq!(ask(&mut stream, 12, &same).responses[0].partitions.len(), 1, "a partition counts once");
    let strangers = fetch_request((0..10_000).map(|index| (index + 2, 0)), i32::MAX);
    assert!(ask(&mut stream, 12, &strangers).responses[0].partitions.iter().all(|part| part.error_code == 3));
    let replica = fetch_request([(1, 0)].into_iter(), 1000).with_replica_id(BrokerId(7));
    assert_eq!(ask(&mut stream, 12, &replica).responses[0].partitions[0].error_code, 0);
    for (id, epoch, code) in [(5, 1, 70), (5, 0, 0), (0, 3, 70), (i32::MAX, i32::MAX, 70), (-1, 1, 70)] {
        let session = fetch_request([(1, 0)].into_iter(), 1000).with_session_id(id).with_session_epoch(epoch);
        assert_eq!(ask(&mut stream, 12, &session).error_code, code, "session {id} epoch {epoch}");
    }
    served(&broker, "fetches");
    // Groups. The first answers may be that the coordinator is being made.
    let patient = |stream: &mut TcpStream, request: &JoinGroupRequest| {
        for _ in 0..100 {
            let answer = ask(stream, 5, request);
            if ![14, 15, 16].contains(&answer.error_code) {
                return answer;
            }
            let find = kafka_protocol::messages::FindCoordinatorRequest::default().with_key(request.group_id.0.clone());
            ask(stream, 3, &find);
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no coordinator");
    };
    assert_eq!(patient(&mut stream, &join("g", None, 10)).error_code, 79, "a member id is required");
    assert_eq!(patient(&mut stream, &join("", None, 10)).error_code, 24);
    assert_eq!(patient(&mut stream, &join("g", None, 10 << 20)).error_code, INVALID_REQUEST);
    assert_eq!(patient(&mut stream, &join("g", None, 10).with_session_timeout_ms(1)).error_code, 26);
    let first = patient(&mut stream, &join("s", Some("i"), 10));
    let second = patient(&mut stream, &join("s", Some("i"), 10));
    assert_eq!((first.error_code, second.error_code), (0, 0));
    let heartbeat = |member: &StrBytes, instance: Option<&str>| {
        HeartbeatRequest::default()
            .with_group_id(GroupId(text("s")))
            .with_member_id(member.clone())
            .with_group_instance_id(instance.map(text))
            .with_generation_id(second.generation_id)
    };
    assert_eq!(ask(&mut stream, 4, &heartbeat(&first.member_id, Some("i"))).error_code, 82, "the one before is fenced");
    assert_eq!(ask(&mut stream, 4, &heartbeat(&text("stranger"), None)).error_code, 25);
    let ids: Vec<i64> =
        (0..500).map(|_| ask(&mut stream, 4, &InitProducerIdRequest::default().with_transactional_id(None)).producer_id.0).collect();
    let distinct: std::collections::BTreeSet<i64> = ids.iter().copied().filter(|id| *id >= 0).collect();
    assert_eq!(distinct.len(), ids.len(), "each producer has an id of its own");
    served(&broker, "groups and producers");
}
