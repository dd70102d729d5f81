//! What the bare server says: where batches were put or stand, which requests it takes, and that it leads every partition itself.
//!
//! Answers to Produce and Fetch are written by hand, as they are part of what is measured; the others go through kafka-protocol.

use super::TOPIC;
use super::frames::{Head, Part, Target, VERSION_MAX, is_flexible};
use crate::failure::{Failure, Outcome};
use crate::topics::LIST_OFFSETS_VERSION;
use crate::wire::{FETCH_VERSION, put_uvarint};
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, BrokerId, ListOffsetsResponse, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use std::net::SocketAddr;

pub const API_VERSIONS_MAX: i16 = 4;
pub const METADATA_MAX: i16 = 12;
const UNSUPPORTED_VERSION: i16 = 35;
const NODE: BrokerId = BrokerId(1);

/// A request that is claimed to be served, from one version to another.
pub type Claim = (ApiKey, i16, i16);
/// At the ring. Fetch is not served there, but librdkafka sends batches of magic 2 only to who claims it.
pub const RING: &[Claim] = &[
    (ApiKey::Produce, 0, VERSION_MAX),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::Metadata, 0, METADATA_MAX),
    (ApiKey::ApiVersions, 0, API_VERSIONS_MAX),
];
/// Where reads are served.
pub const READS: &[Claim] = &[
    (ApiKey::Fetch, FETCH_VERSION, FETCH_VERSION),
    (ApiKey::ListOffsets, LIST_OFFSETS_VERSION, LIST_OFFSETS_VERSION),
    (ApiKey::Metadata, 0, METADATA_MAX),
    (ApiKey::ApiVersions, 0, API_VERSIONS_MAX),
];

/// A part's fate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fate {
    pub error: i16,
    pub base_offset: i64,
}

/// Appends the answer to a Produce request of version 3-12, frame size included. `fates` go with `parts`.
pub fn produce(out: &mut Vec<u8>, head: Head, frame: &[u8], parts: &[Part], fates: &[Fate]) {
    assert_eq!(parts.len(), fates.len());
    let flexible = is_flexible(head.version);
    let start = out.len();
    let put_len = |out: &mut Vec<u8>, len: usize| if flexible { put_uvarint(out, len as u32 + 1) } else { out.put_i32(len as i32) };
    let put_tags = |out: &mut Vec<u8>| out.extend_from_slice(if flexible { &[0] } else { &[] });
    out.put_i32(0);
    out.put_i32(head.correlation);
    put_tags(out);
    let topics = parts.chunk_by(|a, b| a.topic == b.topic);
    put_len(out, topics.clone().count());
    let mut at = 0;
    for topic in topics {
        let name = &frame[topic[0].topic.clone()];
        if flexible {
            put_uvarint(out, name.len() as u32 + 1)
        } else {
            out.put_i16(name.len() as i16)
        }
        out.extend_from_slice(name);
        put_len(out, topic.len());
        for (part, fate) in topic.iter().zip(&fates[at..]) {
            out.put_i32(part.partition);
            out.put_i16(fate.error);
            out.put_i64(fate.base_offset);
            out.put_i64(-1); // log append time
            if head.version >= 5 {
                out.put_i64(0); // log start
            }
            if head.version >= 8 {
                put_len(out, 0); // record errors
                out.extend_from_slice(if flexible { &[0] } else { &[0xff, 0xff] }); // message: null
            }
            put_tags(out);
        }
        at += topic.len();
        put_tags(out);
    }
    out.put_i32(0); // throttle time
    put_tags(out);
    let size = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// What follows the batches in the answer to Fetch: the tags of partition, topic and answer.
pub const FETCH_TAIL: &[u8] = &[0; 3];

/// Appends what precedes `len` bytes of batches in the answer to a Fetch request of version 12, frame size included; [`FETCH_TAIL`] follows them.
pub fn fetch(out: &mut Vec<u8>, head: Head, frame: &[u8], target: &Target, error: i16, tail: i64, len: usize) {
    let start = out.len();
    out.put_i32(0);
    out.put_i32(head.correlation);
    out.put_u8(0); // tags
    out.put_i32(0); // throttle time
    out.put_i16(0); // error of the whole
    out.put_i32(0); // session
    put_uvarint(out, 2);
    let name = &frame[target.topic.clone()];
    put_uvarint(out, name.len() as u32 + 1);
    out.extend_from_slice(name);
    put_uvarint(out, 2);
    out.put_i32(target.partition);
    out.put_i16(error);
    out.put_i64(tail); // commit
    out.put_i64(tail); // stable offset
    out.put_i64(0); // log start
    out.put_u8(0); // aborted transactions: null
    out.put_i32(-1); // preferred replica
    put_uvarint(out, len as u32 + 1);
    let size = (out.len() - start - 4 + len + FETCH_TAIL.len()) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends the answer to a ListOffsets request for one partition.
pub fn list_offsets(out: &mut Vec<u8>, head: Head, frame: &[u8], target: &Target, error: i16, offset: i64) -> Outcome<()> {
    let partition = ListOffsetsPartitionResponse::default()
        .with_partition_index(target.partition)
        .with_error_code(error)
        .with_offset(offset)
        .with_leader_epoch(0);
    let name = StrBytes::from_string(String::from_utf8_lossy(&frame[target.topic.clone()]).into_owned());
    let topic = ListOffsetsTopicResponse::default().with_name(name.into()).with_partitions(vec![partition]);
    append(out, head.correlation, &ListOffsetsResponse::default().with_topics(vec![topic]), head.version)
}

/// Appends the answer to ApiVersions; a version beyond ours gets version 0 and an error, as Kafka does it.
pub fn api_versions(out: &mut Vec<u8>, head: Head, claims: &[Claim]) -> Outcome<()> {
    let known = (0..=API_VERSIONS_MAX).contains(&head.version);
    let version = if known { head.version } else { 0 };
    let claimed = |(key, min, max): &Claim| ApiVersion::default().with_api_key(*key as i16).with_min_version(*min).with_max_version(*max);
    let error = if known { 0 } else { UNSUPPORTED_VERSION };
    let response = ApiVersionsResponse::default().with_error_code(error).with_api_keys(claims.iter().map(claimed).collect());
    append(out, head.correlation, &response, version)
}

/// Appends the answer to Metadata: one node, one topic, whatever was asked for.
pub fn metadata(out: &mut Vec<u8>, head: Head, advertised: SocketAddr, partitions: i32) -> Outcome<()> {
    let host = StrBytes::from_string(advertised.ip().to_string());
    let node = MetadataResponseBroker::default().with_node_id(NODE).with_host(host).with_port(advertised.port().into());
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(NODE)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE])
    };
    let topic = MetadataResponseTopic::default()
        .with_name(Some(StrBytes::from_static_str(TOPIC).into()))
        .with_partitions((0..partitions).map(partition).collect());
    let response = MetadataResponse::default().with_brokers(vec![node]).with_controller_id(NODE).with_topics(vec![topic]);
    append(out, head.correlation, &response, head.version)
}

fn append<R: Encodable + HeaderVersion>(out: &mut Vec<u8>, correlation: i32, response: &R, version: i16) -> Outcome<()> {
    let mut frame = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(correlation);
    let written = header.encode(&mut frame, R::header_version(version)).and_then(|()| response.encode(&mut frame, version));
    written.map_err(|error| Failure::wrong("writing an answer", error))?;
    out.put_u32(frame.len() as u32);
    out.extend_from_slice(&frame);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::frames::VERSION_MIN;
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::ProduceResponse;
    use kafka_protocol::protocol::Decodable;

    fn body<R: Decodable + HeaderVersion>(out: &[u8], version: i16) -> R {
        assert_eq!(out[..4], (out.len() as u32 - 4).to_be_bytes());
        let mut bytes = Bytes::copy_from_slice(&out[4..]);
        let header = ResponseHeader::decode(&mut bytes, R::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 42);
        let response = R::decode(&mut bytes, version).unwrap();
        assert!(bytes.is_empty());
        response
    }

    fn head(version: i16) -> Head {
        Head { key: 0, version, correlation: 42 }
    }

    #[test]
    fn produce_answers_are_read_by_kafka_protocol_in_every_version() {
        let part = |topic, partition| Part { topic, partition, batch: 0..0 };
        let parts = [part(0..3, 1), part(0..3, 2), part(3..5, 0)];
        let fates = [(0, 10), (2, -1), (0, 12)].map(|(error, base_offset)| Fate { error, base_offset });
        for version in VERSION_MIN..=VERSION_MAX {
            let mut out = Vec::new();
            produce(&mut out, head(version), b"onetw", &parts, &fates);
            let response: ProduceResponse = body(&out, version);
            let found: Vec<_> = response
                .responses
                .iter()
                .flat_map(|t| t.partition_responses.iter().map(|p| (t.name.0.to_string(), p.index, p.error_code, p.base_offset)))
                .collect();
            let expected = [("one", 1, 0, 10), ("one", 2, 2, -1), ("tw", 0, 0, 12)].map(|(t, p, e, o)| (t.to_owned(), p, e, o));
            assert_eq!(found, expected, "version {version}");
        }
    }

    #[test]
    fn clients_are_told_of_one_node_that_leads_everything() {
        let advertised: SocketAddr = "127.0.0.1:9092".parse().unwrap();
        for version in 0..=METADATA_MAX {
            let mut out = Vec::new();
            metadata(&mut out, head(version), advertised, 3).unwrap();
            let response: MetadataResponse = body(&out, version);
            assert_eq!((response.brokers[0].port, response.topics[0].partitions.len()), (9092, 3));
            assert!(response.topics[0].partitions.iter().all(|partition| partition.leader_id == response.brokers[0].node_id));
        }
    }

    #[test]
    fn an_unknown_version_of_api_versions_is_told_the_known_ones_in_version_0() {
        for (asked, answered, error) in [(0, 0, 0), (3, 3, 0), (4, 4, 0), (9, 0, UNSUPPORTED_VERSION), (-1, 0, UNSUPPORTED_VERSION)] {
            let mut out = Vec::new();
            api_versions(&mut out, head(asked), RING).unwrap();
            let response: ApiVersionsResponse = body(&out, answered);
            assert_eq!((response.error_code, response.api_keys.len()), (error, 4));
        }
    }
}
