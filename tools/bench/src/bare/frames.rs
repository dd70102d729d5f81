//! Finding the record batches in a Produce request.
//!
//! Versions 3-12 differ in one thing here: from 9 on, lengths are compact and tags follow each structure. What is not needed is stepped over.
//! Knows nothing of what is in a batch.

use crate::wire::{Reader, Width};
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};

    fn request(version: i16) -> BytesMut {
        let part = |index, records| PartitionProduceData::default().with_index(index).with_records(Some(Bytes::from_static(records)));
        let topic = |name, parts| TopicProduceData::default().with_name(StrBytes::from_static_str(name).into()).with_partition_data(parts);
        let topics = vec![topic("one", vec![part(0, b"first"), part(5, b"second")]), topic("two", vec![part(1, b"third")])];
        let header = RequestHeader::default()
            .with_request_api_version(version)
            .with_correlation_id(42)
            .with_client_id(Some(StrBytes::from_static_str("c")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, ProduceRequest::header_version(version)).unwrap();
        ProduceRequest::default().with_acks(-1).with_topic_data(topics).encode(&mut frame, version).unwrap();
        frame
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
    fn cut_and_flipped_requests_never_panic_and_cut_ones_are_refused() {
        for version in [VERSION_MIN, FLEXIBLE] {
            let frame = request(version);
            let mut parts = Vec::new();
            for len in 0..frame.len() {
                assert_eq!(produce(&frame[..len], &mut parts), None, "cut at {len}");
                for value in [0, 0x7f, 0x80, 0xff] {
                    let mut bad = frame.clone();
                    bad[len] = value;
                    produce(&bad, &mut parts);
                }
            }
        }
    }
}
