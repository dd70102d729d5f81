//! Every API at every version, through its handler, against shards that agree and shards that refuse: the answer is one that kafka-protocol
//! reads at that version, whatever exists.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod frames;
mod standin;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiKey, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::Decodable;
use millrace_base::ids::Uuid;
use millrace_kafka::call::Answer;
use millrace_kafka::wire::header::response_header_version;
use millrace_kafka::wire::response::body_version;
use millrace_kafka::wire::table::Api;
use standin::{Mood, TOPIC_ID, World, whole};

/// Reads size, header and body, and demands that nothing is left.
fn read(api: Api, version: i16, frame: Vec<u8>) -> Option<ResponseKind> {
    let mut rest = Bytes::from(frame);
    assert_eq!(usize::try_from(rest.get_i32()).unwrap(), rest.len());
    let header = ResponseHeader::decode(&mut rest, response_header_version(api, version)).unwrap();
    assert_eq!(header.correlation_id, frames::CORRELATION_ID);
    if (api, version) == (Api::DescribeLogDirs, 5) {
        return None; // kafka-protocol lacks it
    }
    let body = ResponseKind::decode(ApiKey::try_from(api.key()).unwrap(), &mut rest, body_version(api, version)).unwrap();
    assert!(rest.is_empty(), "{api:?} {version}");
    Some(body)
}

fn worlds() -> Vec<World> {
    let offsets = ("__consumer_offsets", Uuid([4; 16]), 50);
    vec![World::new(&[]), World::new(&[("orders", TOPIC_ID, 300), offsets]), World::new(&[("orders", Uuid([5; 16]), 1)])]
}

#[test]
fn every_request_is_answered_in_its_version() {
    let mut answered = std::collections::BTreeSet::new();
    for mut world in worlds() {
        for mood in [Mood::Good, Mood::Refusing] {
            for frame in frames::all() {
                match world.answer(&frame.bytes, mood) {
                    Answer::Close(reason) => {
                        let is_expected = frame.api == Api::DescribeTopicPartitions && reason.contains("cursor");
                        assert!(is_expected, "{:?} {}: {reason}", frame.api, frame.version);
                    }
                    Answer::Nothing => assert_eq!(frame.api, Api::Produce),
                    answer => {
                        read(frame.api, frame.version, whole(answer));
                        answered.insert((frame.api, frame.version));
                    }
                }
            }
        }
    }
    let served: usize = millrace_kafka::wire::table::APIS.iter().map(|row| (row.max - row.min + 1) as usize).sum();
    assert_eq!(answered.len(), served);
}
