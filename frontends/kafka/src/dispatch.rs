//! From a frame to its handler.
//!
//! 1. The prelude names API, version and correlation id. An unknown key closes the connection; a known key at a version that is not served
//!    is answered in the nearest body ([`unsupported`]), unless its client expects no answer.
//! 2. Header and body are decoded within a budget; what cannot be decoded closes the connection with a reason, since nothing after it can
//!    be trusted.
//! 3. The request goes to the one handler of its API.
//!
//! Knows nothing of connections.

use millrace_io::Slice;

use crate::apis;
use crate::call::{Answer, Asked, Call, Outcome};
use crate::wire::header::{Prelude, RequestHeader};
use crate::wire::reader::{DecodeError, budget_for};
use crate::wire::requests::Request;
use crate::wire::table::{Api, Row};
use crate::wire::unsupported;

/// Only a produce may be longer: what other requests name costs us many times its bytes.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// What the first bytes of a frame say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// To be given to [`begin`].
    Served(Asked),
    /// Known, but not at this version.
    Unserved(Asked),
    /// The connection is to be closed.
    Bad(String),
}

/// Reads the prelude; `frame` begins after the size prefix.
pub fn find(frame: &[u8]) -> Found {
    let Prelude { key, version, correlation_id } = match Prelude::decode(frame) {
        Ok(prelude) => prelude,
        Err(error) => return Found::Bad(format!("no request header: {error}")),
    };
    let Some(api) = Api::from_key(key) else {
        return Found::Bad(format!("{} (version {version})", DecodeError::UnknownKey { key }));
    };
    let asked = Asked { api, version, correlation_id };
    if api != Api::Produce && frame.len() > FRAME_BYTES_MAX {
        let bytes = frame.len();
        return Found::Bad(format!("a request of {bytes} bytes for {}; all but Produce have at most {FRAME_BYTES_MAX}", api.name()));
    }
    if api.serves(version) { Found::Served(asked) } else { Found::Unserved(asked) }
}

/// The answer to a version that is not served; `frame` begins after the size prefix.
pub fn unserved(asked: Asked, frame: &[u8]) -> Answer {
    if asked.api == Api::Produce && unsupported::expects_no_answer(asked.version, frame) {
        // As with any other error of an acks=0 produce: its client would take an answer for that of a later request.
        let Row { min, max, .. } = Api::Produce.row();
        return Answer::Close(format!("Produce version {} with acks=0 is not served; versions {min} to {max} are", asked.version));
    }
    Answer::from_frame(unsupported::answer(asked.api, asked.version, asked.correlation_id))
}

/// Decodes and handles a request that [`find`] called served; `frame` begins after the size prefix.
pub fn begin(call: &mut Call<'_, '_>, frame: &Slice) -> Outcome {
    let name = call.asked.api.name();
    let bad = |error: DecodeError| {
        let version = call.asked.version;
        Outcome::Done(Answer::Close(format!("{name} version {version} cannot be read: {error}")))
    };
    let header = match RequestHeader::decode(frame) {
        Ok(header) => header,
        Err(error) => return bad(error),
    };
    let request = match Request::decode(&header, frame, budget_for(frame.len())) {
        Ok(request) => request,
        Err(error) => return bad(error),
    };
    let client_id = header.client_id.unwrap_or_default();
    match request {
        Request::Produce(request) => apis::api_00_produce::handle(call, request, frame),
        Request::Fetch(request) => apis::api_01_fetch::handle(call, request),
        Request::ListOffsets(request) => apis::api_02_list_offsets::handle(call, request),
        Request::Metadata(request) => apis::api_03_metadata::handle(call, request),
        Request::OffsetCommit(request) => apis::api_08_offset_commit::handle(call, request),
        Request::OffsetFetch(request) => apis::api_09_offset_fetch::handle(call, request),
        Request::FindCoordinator(request) => apis::api_10_find_coordinator::handle(call, request),
        Request::JoinGroup(request) => apis::api_11_join_group::handle(call, request, client_id, frame),
        Request::Heartbeat(request) => apis::api_12_heartbeat::handle(call, request),
        Request::LeaveGroup(request) => apis::api_13_leave_group::handle(call, request),
        Request::SyncGroup(request) => apis::api_14_sync_group::handle(call, request, frame),
        Request::DescribeGroups(request) => apis::api_15_describe_groups::handle(call, request),
        Request::ListGroups(request) => apis::api_16_list_groups::handle(call, request),
        Request::ApiVersions(request) => apis::api_18_api_versions::handle(call, request),
        Request::CreateTopics(request) => apis::api_19_create_topics::handle(call, request),
        Request::DeleteTopics(request) => apis::api_20_delete_topics::handle(call, request),
        Request::DeleteRecords(request) => apis::api_21_delete_records::handle(call, request),
        Request::InitProducerId(request) => apis::api_22_init_producer_id::handle(call, request),
        Request::OffsetForLeaderEpoch(request) => apis::api_23_offset_for_leader_epoch::handle(call, request),
        Request::DescribeAcls(request) => apis::api_29_describe_acls::handle(call, request),
        Request::DescribeConfigs(request) => apis::api_32_describe_configs::handle(call, request),
        Request::AlterConfigs(request) => apis::api_33_alter_configs::handle(call, request),
        Request::DescribeLogDirs(request) => apis::api_35_describe_log_dirs::handle(call, request),
        Request::CreatePartitions(request) => apis::api_37_create_partitions::handle(call, request),
        Request::DeleteGroups(request) => apis::api_42_delete_groups::handle(call, request),
        Request::IncrementalAlterConfigs(request) => apis::api_44_incremental_alter_configs::handle(call, request),
        Request::OffsetDelete(request) => apis::api_47_offset_delete::handle(call, request),
        Request::DescribeCluster(request) => apis::api_60_describe_cluster::handle(call, request),
        Request::DescribeProducers(request) => apis::api_61_describe_producers::handle(call, request),
        Request::ListConfigResources(request) => apis::api_74_list_config_resources::handle(call, request),
        Request::DescribeTopicPartitions(request) => apis::api_75_describe_topic_partitions::handle(call, request),
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::{ApiKey, ResponseHeader, ResponseKind};
    use kafka_protocol::protocol::Decodable;

    use super::*;
    use crate::wire::header::{PRELUDE_BYTES, response_header_version};
    use crate::wire::response::body_version;

    #[test]
    fn keys_and_versions_are_told_apart_before_anything_is_decoded() {
        let prelude = |key: i16, version: i16| [&key.to_be_bytes()[..], &version.to_be_bytes(), &7i32.to_be_bytes()].concat();
        assert!(matches!(find(&prelude(3, 13)), Found::Served(Asked { api: Api::Metadata, version: 13, correlation_id: 7 })));
        assert!(matches!(find(&prelude(3, 14)), Found::Unserved(_)));
        assert!(matches!(find(&prelude(0, 2)), Found::Unserved(_)));
        assert!(matches!(find(&prelude(4, 0)), Found::Bad(reason) if reason.contains("key 4")));
        assert!(matches!(find(&[0, 3, 0]), Found::Bad(_)));
    }

    #[test]
    fn only_a_produce_may_be_long() {
        let long = |key: i16, version: i16| {
            let mut frame = vec![0; FRAME_BYTES_MAX + 1];
            frame[..2].copy_from_slice(&key.to_be_bytes());
            frame[2..4].copy_from_slice(&version.to_be_bytes());
            find(&frame)
        };
        assert!(matches!(long(0, 9), Found::Served(_)));
        assert!(matches!(long(3, 9), Found::Bad(reason) if reason.contains("Metadata")));
    }

    /// The frame of an unserved version, read by Kafka's own schema; None: the body of DescribeLogDirs 5, which kafka-protocol lacks.
    fn read(asked: Asked, nearest: i16, frame: &Bytes) -> Option<ResponseKind> {
        let mut rest = frame.clone();
        assert_eq!(usize::try_from(rest.get_i32()), Ok(rest.len()), "{asked:?}");
        let header = ResponseHeader::decode(&mut rest, response_header_version(asked.api, nearest)).unwrap();
        assert_eq!(header.correlation_id, asked.correlation_id);
        if asked.api == Api::DescribeLogDirs && nearest == 5 {
            // Throttle time, error, no results, tags.
            assert_eq!(rest[..], [0, 0, 0, 0, 0, 35, 1, 0]);
            return None;
        }
        let key = ApiKey::try_from(asked.api.key()).unwrap();
        let body = ResponseKind::decode(key, &mut rest, body_version(asked.api, nearest)).unwrap();
        assert!(rest.is_empty(), "{asked:?}: {body:?}");
        Some(body)
    }

    #[test]
    fn every_unserved_version_has_an_answer_that_does_not_look_like_success() {
        for row in crate::wire::table::APIS {
            for version in (-2..=row.max + 3).chain([i16::MIN, i16::MAX]).filter(|version| !row.api.serves(*version)) {
                let asked = Asked { api: row.api, version, correlation_id: 77 };
                let Answer::Frame(frame) = unserved(asked, &[0; 64]) else {
                    assert!(row.api == Api::Produce && (0..3).contains(&version), "{asked:?}: acks=0 alone has no answer");
                    continue;
                };
                let nearest = if row.api == Api::ApiVersions { 0 } else { row.api.nearest(version) };
                if let Some(body) = read(asked, nearest, &frame) {
                    assert_eq!(format!("{body:?}").matches("error_code: 35").count(), 1, "{asked:?}: {body:?}");
                }
            }
        }
    }

    #[test]
    fn an_unserved_produce_is_answered_unless_its_acks_are_0() {
        let outcome = |version: i16, client_id: &[u8], acks: i16| {
            let frame = [&[0; PRELUDE_BYTES], client_id, &acks.to_be_bytes(), &[0; 20]].concat();
            unserved(Asked { api: Api::Produce, version, correlation_id: 7 }, &frame)
        };
        for version in 0..3 {
            for client_id in [&[0xff, 0xff][..], &[0, 0], &[0, 2, b'i', b'd']] {
                let Answer::Close(reason) = outcome(version, client_id, 0) else { panic!("version {version}") };
                assert!(reason.contains(&format!("Produce version {version} with acks=0")), "{reason}");
                for acks in [-1, 1] {
                    let Answer::Frame(frame) = outcome(version, client_id, acks) else { panic!("version {version}, acks {acks}") };
                    // Size, correlation id; one topic "", one partition: 0, error 35, offset -1, no time; throttle time.
                    let topic = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 35][..], &[0xff; 16], &[0; 4]].concat();
                    assert_eq!(frame[..], [&[0, 0, 0, 40, 0, 0, 0, 7], &topic[..]].concat());
                }
            }
        }
        assert!(matches!(unserved(Asked { api: Api::Produce, version: 2, correlation_id: 7 }, &[0; PRELUDE_BYTES]), Answer::Frame(_)));
    }
}
