//! From a frame to its handler.
//!
//! 1. The prelude names API, version and correlation id. An unknown key closes the connection; a known key at a version that is not served
//!    is answered in the nearest body ([`unsupported`]).
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
use crate::wire::table::Api;
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

/// The answer to a version that is not served.
pub fn unserved(asked: Asked) -> Answer {
    // Its answer has errors beside partitions only, and those were not read: an empty one would say that all is written.
    if asked.api == Api::Produce {
        return Answer::Close(format!(
            "Produce version {} is not served; versions {} to {} are",
            asked.version,
            Api::Produce.row().min,
            Api::Produce.row().max
        ));
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
    use super::*;

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

    #[test]
    fn every_unserved_version_has_an_answer_that_does_not_look_like_success() {
        for row in crate::wire::table::APIS {
            for version in [row.min - 1, row.max + 1, i16::MAX, i16::MIN] {
                let asked = Asked { api: row.api, version, correlation_id: 1 };
                let is_answered = matches!(unserved(asked), Answer::Frame(_));
                assert_eq!(is_answered, row.api != Api::Produce, "{asked:?}");
            }
        }
    }
}
