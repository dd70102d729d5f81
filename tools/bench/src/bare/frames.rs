//! Finding the record batches in a Produce request, and the offset that a reader asks for or from.
//!
//! Produce 3-12 differ in one thing here: from 9 on, lengths are compact and tags follow each structure. Readers are `fetch.rs`, so Fetch and
//! ListOffsets are taken in its versions, for one partition. What is not needed is stepped over.
//! Knows nothing of what is in a batch.

use crate::topics::LIST_OFFSETS_VERSION;
use crate::wire::{FETCH_VERSION, Reader, Width};
use std::ops::Range;

pub const VERSION_MIN: i16 = 3;
/// From 13 on topics have ids, which this server does not give out.
pub const VERSION_MAX: i16 = 12;
const FLEXIBLE: i16 = 9;

/// The first fields of every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub key: i16,
    pub version: i16,
    pub correlation: i32,
}

/// One partition's part of a request. Ranges are places in the frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub topic: Range<usize>,
    pub partition: i32,
    pub batch: Range<usize>,
}

pub fn is_flexible(version: i16) -> bool {
    version >= FLEXIBLE
}

/// `frame` begins behind its size.
pub fn head(frame: &[u8]) -> Option<Head> {
    let mut reader = Reader::new(frame);
    Some(Head { key: reader.i16()?, version: reader.i16()?, correlation: reader.i32()? })
}

/// Fills `parts`, in order, and gives `acks`. None: the frame is no Produce request of versions 3-12.
pub fn produce(frame: &[u8], parts: &mut Vec<Part>) -> Option<i16> {
    parts.clear();
    let mut reader = Reader::new(frame);
    reader.i16()?;
    let flexible = is_flexible(reader.i16().filter(|version| (VERSION_MIN..=VERSION_MAX).contains(version))?);
    let (short, long) = if flexible { (Width::Compact, Width::Compact) } else { (Width::Two, Width::Four) };
    let tags = |reader: &mut Reader| if flexible { reader.skip_tags() } else { Some(()) };
    reader.i32()?;
    reader.run(Width::Two)?; // client id: a short string in both
    tags(&mut reader)?;
    reader.run(short)?; // transactional id
    let acks = reader.i16()?;
    reader.i32()?; // timeout
    for _ in 0..reader.len(long)?? {
        let topic = reader.run(short)?;
        for _ in 0..reader.len(long)?? {
            let partition = reader.i32()?;
            let batch = reader.run(long)?;
            tags(&mut reader)?;
            parts.push(Part { topic: topic.clone(), partition, batch });
        }
        tags(&mut reader)?;
    }
    tags(&mut reader)?;
    reader.is_at_end().then_some(acks)
}

/// The one partition that a reader asks about. The topic is a place in the frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub topic: Range<usize>,
    pub partition: i32,
}

/// The partition, the first offset wanted, and the lesser of both bounds in bytes. None: the frame is no Fetch request of version 12 for one
/// partition.
pub fn fetch(frame: &[u8]) -> Option<(Target, i64, i32)> {
    let mut reader = behind_client_id(frame, FETCH_VERSION)?;
    reader.skip_tags()?;
    reader.take(12)?; // replica, wait, least bytes
    let max_bytes = reader.i32()?;
    reader.take(9)?; // isolation, session
    one(reader.len(Width::Compact)?)?;
    let topic = reader.run(Width::Compact)?;
    one(reader.len(Width::Compact)?)?;
    let partition = reader.i32()?;
    reader.i32()?; // leader epoch
    let offset = reader.i64()?;
    reader.take(12)?; // epoch fetched last, log start
    let max_bytes = max_bytes.min(reader.i32()?);
    reader.skip_tags()?;
    reader.skip_tags()?;
    reader.len(Width::Compact)?.filter(|forgotten| *forgotten == 0)?;
    reader.run(Width::Compact)?; // rack
    reader.skip_tags()?;
    reader.is_at_end().then_some((Target { topic, partition }, offset, max_bytes))
}

/// The partition, and a timestamp or what stands for an end of the log. None: the frame is no ListOffsets request of version 5 for one partition.
pub fn list_offsets(frame: &[u8]) -> Option<(Target, i64)> {
    let mut reader = behind_client_id(frame, LIST_OFFSETS_VERSION)?;
    reader.take(5)?; // replica, isolation
    one(reader.len(Width::Four)?)?;
    let topic = reader.run(Width::Two)?;
    one(reader.len(Width::Four)?)?;
    let partition = reader.i32()?;
    reader.i32()?; // leader epoch
    let timestamp = reader.i64()?;
    reader.is_at_end().then_some((Target { topic, partition }, timestamp))
}

/// None: the request is of another version.
fn behind_client_id(frame: &[u8], version: i16) -> Option<Reader<'_>> {
    let mut reader = Reader::new(frame);
    reader.i16()?;
    reader.i16().filter(|found| *found == version)?;
    reader.i32()?;
    reader.run(Width::Two)?;
    Some(reader)
}

fn one(len: Option<usize>) -> Option<()> {
    (len == Some(1)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::fetch_request;
    use crate::topics::{End, list_offsets_request};
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::{Encodable, Request, StrBytes};

    fn framed<R: Request>(request: &R, version: i16) -> BytesMut {
        let header = RequestHeader::default()
            .with_request_api_version(version)
            .with_correlation_id(42)
            .with_client_id(Some(StrBytes::from_static_str("c")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        frame
    }

    fn request(version: i16) -> BytesMut {
        let part = |index, records| PartitionProduceData::default().with_index(index).with_records(Some(Bytes::from_static(records)));
        let topic = |name, parts| TopicProduceData::default().with_name(StrBytes::from_static_str(name).into()).with_partition_data(parts);
        let topics = vec![topic("one", vec![part(0, b"first"), part(5, b"second")]), topic("two", vec![part(1, b"third")])];
        framed(&ProduceRequest::default().with_acks(-1).with_topic_data(topics), version)
    }

    #[test]
    fn batches_are_found_in_every_version_as_kafka_protocol_writes_it() {
        for version in VERSION_MIN..=VERSION_MAX {
            let frame = request(version);
            let mut parts = Vec::new();
            assert_eq!(produce(&frame, &mut parts), Some(-1), "version {version}");
            let found: Vec<_> = parts.iter().map(|p| (&frame[p.topic.clone()], p.partition, &frame[p.batch.clone()])).collect();
            assert_eq!(found, [(&b"one"[..], 0, &b"first"[..]), (b"one", 5, b"second"), (b"two", 1, b"third")]);
            assert_eq!(head(&frame), Some(Head { key: 0, version, correlation: 42 }));
        }
    }

    #[test]
    fn a_reader_is_understood_for_one_partition() {
        let fetching = |partitions: &[(i32, i64)]| framed(&fetch_request("topic", partitions.iter().copied(), 99, 1000), FETCH_VERSION);
        let frame = fetching(&[(7, 42)]);
        let (target, offset, max_bytes) = fetch(&frame).unwrap();
        assert_eq!((&frame[target.topic], target.partition, offset, max_bytes), (&b"topic"[..], 7, 42, 99));
        assert_eq!(fetch(&fetching(&[(7, 42), (8, 42)])), None);
        assert_eq!(fetch(&fetching(&[])), None);
        let frame = framed(&list_offsets_request("topic", 7..8, End::Start), LIST_OFFSETS_VERSION);
        let (target, timestamp) = list_offsets(&frame).unwrap();
        assert_eq!((&frame[target.topic], target.partition, timestamp), (&b"topic"[..], 7, End::Start as i64));
        assert_eq!(list_offsets(&framed(&list_offsets_request("topic", 7..9, End::Start), LIST_OFFSETS_VERSION)), None);
    }

    #[test]
    fn cut_and_flipped_requests_never_panic_and_cut_ones_are_refused() {
        fn tried(frame: &BytesMut, mut is_taken: impl FnMut(&[u8]) -> bool) {
            for len in 0..frame.len() {
                assert!(!is_taken(&frame[..len]), "cut at {len}");
                for value in [0, 0x7f, 0x80, 0xff] {
                    let mut bad = frame.clone();
                    bad[len] = value;
                    is_taken(&bad);
                }
            }
        }
        for version in [VERSION_MIN, FLEXIBLE] {
            let mut parts = Vec::new();
            tried(&request(version), |frame| produce(frame, &mut parts).is_some());
        }
        tried(&framed(&fetch_request("topic", [(7, 42)].into_iter(), 99, 1000), FETCH_VERSION), |frame| fetch(frame).is_some());
        let offsets = framed(&list_offsets_request("topic", 7..8, End::Tail), LIST_OFFSETS_VERSION);
        tried(&offsets, |frame| list_offsets(frame).is_some());
    }
}
