//! Topics that are made because a client asks for them: by name in Metadata, or `__consumer_offsets` by a group.
//!
//! The controller answers once the partitions have leaders; a caller waits for that at most [`WAIT_MS`], then the client asks again.
//!
//! Knows nothing of answers.

use std::collections::BTreeMap;

use millrace_base::ids::Uuid;
use millrace_base::settings::Settings;
use millrace_shard::api::MetaChange;
use millrace_shard::state::meta::{Layout, Live, Request, is_internal};

/// The internal topic of consumer groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// How long a request waits for a topic to be made.
pub const WAIT_MS: u64 = 1_000;

/// How to make a topic that was asked for by name. None: clients cannot have it made.
pub fn change(name: &str, settings: &Settings) -> Option<MetaChange> {
    if name == OFFSETS_TOPIC {
        return Some(offsets_topic(settings));
    }
    let layout = Layout::Count { partitions: -1, replication_factor: -1 };
    (!is_internal(name)).then(|| create(name, layout, BTreeMap::new(), false))
}

fn offsets_topic(settings: &Settings) -> MetaChange {
    let partitions = i32::try_from(settings.offsets_topic_num_partitions).unwrap_or(50);
    let configs = [
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        ("segment.bytes".to_owned(), settings.offsets_topic_segment_bytes.to_string()),
    ];
    create(OFFSETS_TOPIC, Layout::Count { partitions, replication_factor: -1 }, configs.into(), true)
}

fn create(name: &str, layout: Layout, configs: BTreeMap<String, String>, internal: bool) -> MetaChange {
    let request = Request::CreateTopic {
        topic: Uuid::ZERO,
        name: name.to_owned(),
        layout,
        default_partitions: 1,
        default_replication_factor: 1,
        configs,
        live: Live::default(),
        internal,
    };
    MetaChange { request, validate_only: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_topic_is_compacted_and_other_internal_topics_are_not_made() {
        let settings = Settings::default();
        let made = change(OFFSETS_TOPIC, &settings).expect("it can be made").request;
        let Request::CreateTopic { layout, configs, internal, .. } = made else { panic!("not a creation: {made:?}") };
        assert_eq!(layout, Layout::Count { partitions: 50, replication_factor: -1 });
        assert!(internal && configs["cleanup.policy"] == "compact" && configs["segment.bytes"] == "104857600");
        assert_eq!(change("__transaction_state", &settings), None);
        assert!(change("orders", &settings).is_some());
    }
}
