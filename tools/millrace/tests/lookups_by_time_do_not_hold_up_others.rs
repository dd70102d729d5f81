//! ListOffsets by time opens batches that take long to open, from memory and from segments, while others are served.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_base::batch::{Builder, HEADER_BYTES, LENGTH_OVERHEAD, place, set_max_timestamp, write_varint};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Broker, ask, create, folder, topic};

const SETTINGS: &[&str] = &["shards=1", "memory.max.bytes=1GiB", "log.segment.bytes=1048576"];
const PARTITIONS: i32 = 12;
const RECORDS: i32 = 2_000_000;
const TIME: i64 = 1_700_000_000_000;
const SNAPPY: u8 = 2;

/// Many records of a few bytes, of which the last alone is as late as `TIME + 1`, compressed to a twentieth.
fn slow_batch() -> Vec<u8> {
    let record = |time: i64| {
        let mut body = vec![0];
        [time, 0, -1, -1, 0].into_iter().for_each(|value| write_varint(&mut body, value));
        let mut record = Vec::new();
        write_varint(&mut record, body.len() as i64);
        [record, body].concat()
    };
    let (early, mut late) = (record(0), record(1));
    let mut delta = Vec::new();
    write_varint(&mut delta, i64::from(RECORDS) - 1);
    late.splice(3..4, delta); // behind length, attributes and time
    late[0] = (late.len() as u8 - 1) * 2;
    // A block of snappy: a literal, copies of what lies one record before, a literal.
    let repeated = early.len() * (RECORDS as usize - 2);
    let mut block = Vec::new();
    let mut len = early.len() * (RECORDS as usize - 1) + late.len();
    while len >= 0x80 {
        block.push(len as u8 | 0x80);
        len >>= 7;
    }
    block.push(len as u8);
    let literal = |bytes: &[u8], block: &mut Vec<u8>| {
        block.push((bytes.len() as u8 - 1) << 2);
        block.extend_from_slice(bytes);
    };
    literal(&early, &mut block);
    let mut left = repeated;
    while left > 0 {
        let copied = left.min(64);
        block.extend([(copied as u8 - 1) << 2 | 2, early.len() as u8, 0]);
        left -= copied;
    }
    literal(&late, &mut block);
    let mut builder = Builder::new(TIME);
    builder.push(TIME, None, None);
    let mut batch = builder.finish();
    batch.truncate(HEADER_BYTES);
    batch.extend(block);
    let length = (batch.len() - LENGTH_OVERHEAD) as i32;
    batch[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    batch[place::ATTRIBUTES + 1] |= SNAPPY;
    batch[place::LAST_OFFSET_DELTA..place::LAST_OFFSET_DELTA + 4].copy_from_slice(&(RECORDS - 1).to_be_bytes());
    batch[place::COUNT..place::COUNT + 4].copy_from_slice(&RECORDS.to_be_bytes());
    set_max_timestamp(&mut batch, TIME + 1);
    batch
}

fn fill(broker: &Broker) {
    let mut stream = broker.connect();
    create(&mut stream, PARTITIONS);
    let batch = slow_batch();
    for index in 0..PARTITIONS {
        let data = PartitionProduceData::default().with_index(index).with_records(Some(batch.clone().into()));
        let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data]);
        assert_eq!(ask(&mut stream, 9, &request).responses[0].partition_responses[0].error_code, 0);
    }
}

/// The time that all lookups of one request take, and the longest that another client waits meanwhile, and how often it is answered.
fn look_up(broker: &Broker) -> (Duration, Duration, u32) {
    let done = AtomicBool::new(false);
    let (mut stream, mut other) = (broker.connect(), broker.connect());
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let (mut longest, mut answers) = (Duration::ZERO, 0);
            while !done.load(Ordering::SeqCst) {
                let asked = Instant::now();
                ask(&mut other, 0, &ApiVersionsRequest::default());
                longest = longest.max(asked.elapsed());
                answers += 1;
            }
            (longest, answers)
        });
        let part = |index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(TIME + 1);
        let topics = vec![ListOffsetsTopic::default().with_name(topic()).with_partitions((0..PARTITIONS).map(part).collect())];
        let began = Instant::now();
        let answer = ask(&mut stream, 5, &ListOffsetsRequest::default().with_topics(topics));
        let took = began.elapsed();
        done.store(true, Ordering::SeqCst);
        for part in &answer.topics[0].partitions {
            assert_eq!((part.error_code, part.offset, part.timestamp), (0, i64::from(RECORDS) - 1, TIME + 1));
        }
        let (longest, answers) = beside.join().unwrap();
        (took, longest, answers)
    })
}

fn segments(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |path: std::path::PathBuf| {
        if path.is_dir() {
            segments(&path)
        } else if path.extension().is_some_and(|end| end == "log") {
            path.metadata().unwrap().len()
        } else {
            0
        }
    };
    entries.flatten().map(|entry| of(entry.path())).sum()
}

#[test]
fn others_are_served_while_batches_are_opened() {
    let folder = folder("lookups");
    let check = |broker: &Broker| {
        let (took, longest, answers) = look_up(broker);
        assert!(took > Duration::from_millis(60), "the lookups are slow enough to be noticed: {took:?}");
        assert!(
            answers > 10 && longest < took / 3,
            "{answers} answers to another, who waited {longest:?} at most, beside lookups of {took:?}"
        );
    };
    let broker = Broker::start(&[&folder], SETTINGS).unwrap();
    fill(&broker);
    check(&broker);
    // A broker that was told to stop has all in segments.
    broker.stop();
    assert!(segments(&folder) > 100_000 * PARTITIONS as u64);
    check(&Broker::start(&[&folder], SETTINGS).unwrap());
}
