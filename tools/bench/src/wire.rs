//! The few bytes of Kafka's protocol that a measured loop writes or reads by hand, so that nothing is allocated or copied in it.
//!
//! Requests: Produce 9 (flexible, topics by name). Responses: Fetch 12, walked in place. All else goes through kafka-protocol.
//! [`Reader`] takes bytes that others wrote: every step is checked, and nothing is allocated by what a length claims.

use bytes::{BufMut, BytesMut};
use std::ops::Range;

pub const PRODUCE: i16 = 0;
pub const PRODUCE_VERSION: i16 = 9;
pub const FETCH_VERSION: i16 = 12;
pub const CLIENT_ID: &str = "millrace-bench";

/// Steps through bytes in the protocol's types; None when they do not suffice or a length is impossible.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        let range = self.at..end;
        self.at = end;
        Some(range)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let range = self.take(N)?;
        self.bytes[range].try_into().ok()
    }

    pub fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn uvarint(&mut self) -> Option<u32> {
        let mut value: u32 = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The length of a string, of bytes or of an array; Some(None) is null.
    pub fn len(&mut self, width: Width) -> Option<Option<usize>> {
        match width {
            Width::Compact => self.uvarint().map(|len| len.checked_sub(1).map(|len| len as usize)),
            Width::Two => self.i16().map(|len| usize::try_from(len).ok()),
            Width::Four => self.i32().map(|len| usize::try_from(len).ok()),
        }
    }

    /// A string or bytes; null counts as empty.
    pub fn run(&mut self, width: Width) -> Option<Range<usize>> {
        let len = self.len(width)?.unwrap_or(0);
        self.take(len)
    }

    pub fn skip_tags(&mut self) -> Option<()> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = self.uvarint()?;
            self.take(len as usize)?;
        }
        Some(())
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

/// How a length is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    Compact,
    Two,
    Four,
}

pub fn put_uvarint(out: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_compact_string(out: &mut impl BufMut, text: &str) {
    put_uvarint(out, text.len() as u32 + 1);
    out.put_slice(text.as_bytes());
}

/// A Produce request in pieces, to be sent around its batches without copying them.
pub struct ProduceRequest {
    /// In front of each batch: of the first the frame's size, header and topic as well.
    pub heads: Vec<BytesMut>,
    pub tail: &'static [u8],
}

/// Bytes behind a partition's batch: its empty tags.
const PARTITION_TAIL: usize = 1;
/// Place of the correlation id in the first head.
const CORRELATION: Range<usize> = 8..12;

/// A request that puts one batch into each of `parts`: a partition, and how many bytes its batch has.
///
/// # Panics
/// Without parts, or when the frame is longer than a frame can be.
pub fn produce_request(topic: &str, acks: i16, parts: &[(i32, usize)]) -> ProduceRequest {
    assert!(!parts.is_empty());
    let tail: &[u8] = &[0, 0, 0]; // the tags of partition, topic and request
    let mut heads = Vec::with_capacity(parts.len());
    let mut head = BytesMut::new();
    head.put_i32(0);
    head.put_i16(PRODUCE);
    head.put_i16(PRODUCE_VERSION);
    head.put_i32(0);
    head.put_i16(CLIENT_ID.len() as i16);
    head.put_slice(CLIENT_ID.as_bytes());
    head.put_u8(0); // tags
    head.put_u8(0); // transactional id: null
    head.put_i16(acks);
    head.put_i32(30_000);
    put_uvarint(&mut head, 2);
    put_compact_string(&mut head, topic);
    put_uvarint(&mut head, parts.len() as u32 + 1);
    for (i, (partition, batch_bytes)) in parts.iter().enumerate() {
        if i > 0 {
            head.put_bytes(0, PARTITION_TAIL);
        }
        head.put_i32(*partition);
        put_uvarint(&mut head, *batch_bytes as u32 + 1);
        heads.push(std::mem::take(&mut head));
    }
    let batches: usize = parts.iter().map(|(_, batch_bytes)| batch_bytes).sum();
    let size = heads.iter().map(BytesMut::len).sum::<usize>() + batches + tail.len() - 4;
    let size = i32::try_from(size).expect("a frame's size is 31 bits");
    heads[0][..4].copy_from_slice(&size.to_be_bytes());
    ProduceRequest { heads, tail }
}

impl ProduceRequest {
    pub fn set_correlation(&mut self, correlation: i32) {
        self.heads[0][CORRELATION].copy_from_slice(&correlation.to_be_bytes());
    }
}

/// What a Produce 9 response says about one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Produced {
    pub partition: i32,
    pub error: i16,
    pub base_offset: i64,
}

/// Walks a Produce 9 response behind its correlation id. None: it is not one, or `each` returned None.
pub fn produce_response(bytes: &[u8], mut each: impl FnMut(Produced) -> Option<()>) -> Option<()> {
    let mut reader = Reader::new(bytes);
    reader.skip_tags()?;
    for _ in 0..reader.len(Width::Compact)?? {
        reader.run(Width::Compact)?;
        for _ in 0..reader.len(Width::Compact)?? {
            let (partition, error, base_offset) = (reader.i32()?, reader.i16()?, reader.i64()?);
            reader.take(16)?; // log append time, log start
            for _ in 0..reader.len(Width::Compact)?? {
                reader.i32()?;
                reader.run(Width::Compact)?;
                reader.skip_tags()?;
            }
            reader.run(Width::Compact)?;
            reader.skip_tags()?;
            each(Produced { partition, error, base_offset })?;
        }
        reader.skip_tags()?;
    }
    reader.i32()?;
    reader.skip_tags()?;
    reader.is_at_end().then_some(())
}

/// What a Fetch 12 response says about one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    pub partition: i32,
    pub error: i16,
    /// Where the batches stand in the bytes given; the last may be cut.
    pub records: Range<usize>,
}

/// Walks a Fetch 12 response behind its correlation id, and gives the error of the whole. None: it is not one, or `each` returned None.
pub fn fetch_response(bytes: &[u8], mut each: impl FnMut(Fetched) -> Option<()>) -> Option<i16> {
    let mut reader = Reader::new(bytes);
    reader.skip_tags()?;
    reader.i32()?; // throttle time
    let error = reader.i16()?;
    reader.i32()?; // session
    for _ in 0..reader.len(Width::Compact)?? {
        reader.run(Width::Compact)?;
        for _ in 0..reader.len(Width::Compact)?? {
            let (partition, error) = (reader.i32()?, reader.i16()?);
            reader.take(24)?; // commit, stable offset, log start
            for _ in 0..reader.len(Width::Compact)?.unwrap_or(0) {
                reader.take(16)?;
                reader.skip_tags()?;
            }
            reader.i32()?; // preferred replica
            let records = reader.run(Width::Compact)?;
            reader.skip_tags()?;
            each(Fetched { partition, error, records })?;
        }
        reader.skip_tags()?;
    }
    reader.skip_tags()?;
    reader.is_at_end().then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use kafka_protocol::messages::{FetchResponse, ProduceRequest as Decoded, ProduceResponse, RequestHeader, ResponseHeader};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    #[test]
    fn a_produce_request_in_pieces_is_what_kafka_protocol_reads() {
        let mut request = produce_request("topic", -1, &[(7, 300), (9, 200)]);
        request.set_correlation(77);
        let mut frame = Vec::new();
        for (head, batch) in request.heads.iter().zip([vec![1u8; 300], vec![2; 200]]) {
            frame.extend_from_slice(head);
            frame.extend_from_slice(&batch);
        }
        frame.extend_from_slice(request.tail);
        let mut bytes = Bytes::from(frame);
        assert_eq!(bytes.split_to(4), (bytes.len() as i32).to_be_bytes()[..]);
        let header = RequestHeader::decode(&mut bytes, 2).unwrap();
        assert_eq!((header.correlation_id, header.request_api_version), (77, PRODUCE_VERSION));
        let decoded = Decoded::decode(&mut bytes, PRODUCE_VERSION).unwrap();
        assert!(bytes.is_empty());
        let partitions = &decoded.topic_data[0].partition_data;
        let found: Vec<_> = partitions.iter().map(|p| (p.index, p.records.clone().unwrap())).collect();
        assert_eq!(found, [(7, Bytes::from(vec![1; 300])), (9, Bytes::from(vec![2; 200]))]);
        assert_eq!((decoded.acks, decoded.topic_data[0].name.0.as_str()), (-1, "topic"));
    }

    fn every_cut_is_refused(bytes: &[u8], walk: impl Fn(&[u8]) -> bool) {
        assert!(walk(bytes));
        for len in 0..bytes.len() {
            assert!(!walk(&bytes[..len]), "cut at {len} of {}", bytes.len());
        }
    }

    #[test]
    fn a_fetch_response_is_walked_as_kafka_protocol_wrote_it() {
        let records = Bytes::from_static(b"forty-two");
        let full = PartitionData::default().with_partition_index(5).with_high_watermark(42).with_records(Some(records.clone()));
        let refused = PartitionData::default().with_partition_index(6).with_error_code(3).with_records(None);
        let topic =
            FetchableTopicResponse::default().with_topic(StrBytes::from_static_str("t").into()).with_partitions(vec![full, refused]);
        let mut out = BytesMut::new();
        ResponseHeader::default().encode(&mut out, 1).unwrap();
        FetchResponse::default().with_error_code(70).with_responses(vec![topic]).encode(&mut out, FETCH_VERSION).unwrap();
        let body = &out[4..];
        let mut found = Vec::new();
        let error = fetch_response(body, |fetched| {
            found.push((fetched.partition, fetched.error, body[fetched.records].to_vec()));
            Some(())
        });
        assert_eq!((error, found), (Some(70), vec![(5, 0, records.to_vec()), (6, 3, Vec::new())]));
        every_cut_is_refused(body, |bytes| fetch_response(bytes, |_| Some(())).is_some());
    }

    #[test]
    fn a_produce_response_is_walked_as_kafka_protocol_wrote_it() {
        let partition = |index| PartitionProduceResponse::default().with_index(index).with_error_code(6).with_base_offset(11);
        let topic = TopicProduceResponse::default()
            .with_name(StrBytes::from_static_str("t").into())
            .with_partition_responses(vec![partition(1), partition(2)]);
        let mut out = BytesMut::new();
        ResponseHeader::default().encode(&mut out, 1).unwrap();
        ProduceResponse::default().with_responses(vec![topic]).encode(&mut out, PRODUCE_VERSION).unwrap();
        let mut found = Vec::new();
        produce_response(&out[4..], |produced| {
            found.push((produced.partition, produced.error, produced.base_offset));
            Some(())
        })
        .unwrap();
        assert_eq!(found, [(1, 6, 11), (2, 6, 11)]);
        every_cut_is_refused(&out[4..], |bytes| produce_response(bytes, |_| Some(())).is_some());
    }

    #[test]
    fn lengths_that_lie_end_the_walk() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(reader.run(Width::Compact), None);
        assert_eq!(Reader::new(&[0xff; 8]).uvarint(), None);
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff]).run(Width::Four), None);
        assert_eq!(Reader::new(&[0xff, 0xff]).run(Width::Two), Some(2..2));
    }
}
