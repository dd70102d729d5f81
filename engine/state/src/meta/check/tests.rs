//! What the controller accepts and refuses.

use super::super::{Directory, Effect};
use super::*;

const D1: Uuid = Uuid([1; 16]);
const D2: Uuid = Uuid([2; 16]);

fn meta() -> Meta {
    let mut meta = Meta::new();
    let directories = vec![Directory { id: D1, path: "/1".into() }, Directory { id: D2, path: "/2".into() }];
    let command = meta.check(&Request::RegisterNode(Node { id: 0, listeners: vec![], directories })).unwrap();
    meta.apply(command);
    meta
}

fn live() -> Live {
    Live { directories: vec![D1, D2], partitions_max: 100_000 }
}

fn create(name: &str, layout: Layout, configs: &[(&str, &str)]) -> Request {
    let mut id = [0; 16];
    id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    Request::CreateTopic {
        topic: Uuid(id),
        name: name.into(),
        layout,
        default_partitions: 4,
        default_replication_factor: 1,
        configs: configs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        live: live(),
        internal: false,
    }
}

fn count(partitions: i32, replication_factor: i16) -> Layout {
    Layout::Count { partitions, replication_factor }
}

fn made(meta: &mut Meta, request: Request) {
    let command = meta.check(&request).unwrap();
    assert!(!matches!(meta.apply(command)[0], Effect::Refused { .. }));
}

#[test]
fn defaults_are_taken_for_minus_one() {
    let mut meta = meta();
    made(&mut meta, create("a", count(-1, -1), &[]));
    assert_eq!(meta.topic_named("a").unwrap().partitions(), 4);
}

#[test]
fn partitions_spread_over_live_directories_by_load() {
    let mut meta = meta();
    made(&mut meta, create("a", count(3, 1), &[]));
    assert_eq!(meta.topic_named("a").unwrap().directories, [D1, D2, D1]);
    made(&mut meta, create("b", count(1, 1), &[]));
    assert_eq!(meta.topic_named("b").unwrap().directories, [D2]);
    let Request::CreateTopic { topic, name, layout, configs, .. } = create("c", count(2, 1), &[]) else { unreachable!() };
    let request = |live| Request::CreateTopic {
        topic,
        name: name.clone(),
        layout: layout.clone(),
        default_partitions: 1,
        default_replication_factor: 1,
        configs: configs.clone(),
        live,
        internal: false,
    };
    assert_eq!(meta.check(&request(Live::default())), Err(MetaError::NoDirectory));
    assert_eq!(
        meta.check(&request(Live { directories: vec![Uuid([9; 16])], partitions_max: 1 })),
        Err(MetaError::UnknownDirectory { id: Uuid([9; 16]) })
    );
}

#[test]
fn counts_and_factors_out_of_bounds_are_refused_with_both_numbers() {
    let meta = meta();
    for partitions in [0, -2, 100_001, i32::MIN] {
        assert!(matches!(meta.check(&create("a", count(partitions, 1), &[])), Err(MetaError::InvalidPartitions { .. })));
    }
    for factor in [0, 2, -3, i16::MAX] {
        let asked = i32::from(factor);
        assert_eq!(meta.check(&create("a", count(1, factor), &[])), Err(MetaError::InvalidReplicationFactor { asked, nodes: 1 }));
    }
}

#[test]
fn names_and_doubles_are_refused() {
    let mut meta = meta();
    assert!(matches!(meta.check(&create("a b", count(1, 1), &[])), Err(MetaError::InvalidTopicName { .. })));
    assert!(matches!(meta.check(&create("__consumer_offsets", count(1, 1), &[])), Err(MetaError::InternalTopic { .. })));
    made(&mut meta, create("a", count(1, 1), &[]));
    assert_eq!(meta.check(&create("a", count(1, 1), &[])), Err(MetaError::TopicExists { name: "a".into() }));
}

#[test]
fn manual_assignments_are_checked() {
    let meta = meta();
    let assigned = |pairs: &[(i32, &[i32])]| Layout::Assigned(pairs.iter().map(|(index, nodes)| (*index, nodes.to_vec())).collect());
    assert!(meta.check(&create("a", assigned(&[(0, &[0]), (1, &[0])]), &[])).is_ok());
    for wrong in [assigned(&[(1, &[0])]), assigned(&[(0, &[7])]), assigned(&[(0, &[])]), assigned(&[(0, &[0, 0])])] {
        assert!(matches!(meta.check(&create("a", wrong, &[])), Err(MetaError::InvalidAssignment { .. })));
    }
    assert!(matches!(meta.check(&create("a", assigned(&[]), &[])), Err(MetaError::InvalidPartitions { .. })));
}

#[test]
fn settings_are_checked_at_creation_and_at_change() {
    let mut meta = meta();
    let unknown = meta.check(&create("a", count(1, 1), &[("nope", "1")]));
    assert_eq!(unknown, Err(MetaError::UnknownConfig { key: "nope".into() }));
    made(&mut meta, create("a", count(1, 1), &[("cleanup.policy", "compact")]));
    let change = |key: &str, change| Request::AlterTopicConfigs {
        name: "a".into(),
        changes: ConfigChanges::Incremental(vec![(key.into(), change)]),
    };
    let text = |text: &str| text.to_owned();
    assert!(matches!(meta.check(&change("segment.bytes", ConfigChange::Set(text("1")))), Err(MetaError::InvalidConfig { .. })));
    assert!(matches!(meta.check(&change("segment.bytes", ConfigChange::Append(text("1")))), Err(MetaError::InvalidConfig { .. })));
    assert!(matches!(meta.check(&change("nope", ConfigChange::Delete)), Err(MetaError::UnknownConfig { .. })));
    made(&mut meta, change("cleanup.policy", ConfigChange::Append(text("delete"))));
    assert_eq!(meta.topic_named("a").unwrap().configs["cleanup.policy"], "compact,delete");
    made(&mut meta, change("cleanup.policy", ConfigChange::Subtract(text("compact"))));
    assert_eq!(meta.topic_named("a").unwrap().configs["cleanup.policy"], "delete");
    let long = "compact,".repeat(5_000);
    for change in [change("cleanup.policy", ConfigChange::Append(long.clone())), change("cleanup.policy", ConfigChange::Subtract(long))] {
        assert!(matches!(meta.check(&change), Err(MetaError::InvalidConfig { .. })));
    }
    made(&mut meta, change("cleanup.policy", ConfigChange::Delete));
    assert!(meta.topic_named("a").unwrap().configs.is_empty());
    let twice = vec![("retention.ms".into(), ConfigChange::Delete); 2];
    let twice = Request::AlterTopicConfigs { name: "a".into(), changes: ConfigChanges::Incremental(twice) };
    assert!(meta.check(&twice).is_err());
    let gone = Request::AlterTopicConfigs { name: "b".into(), changes: ConfigChanges::Replace(BTreeMap::new()) };
    assert_eq!(meta.check(&gone), Err(MetaError::UnknownTopicName { name: "b".into() }));
}

#[test]
fn replacing_removes_what_is_not_named() {
    let mut meta = meta();
    made(&mut meta, create("a", count(1, 1), &[("retention.ms", "5"), ("segment.ms", "6")]));
    let all = [("segment.ms".to_owned(), "7".to_owned())].into();
    made(&mut meta, Request::AlterTopicConfigs { name: "a".into(), changes: ConfigChanges::Replace(all) });
    let configs = &meta.topic_named("a").unwrap().configs;
    assert_eq!((configs.len(), configs["segment.ms"].as_str()), (1, "7"));
}

#[test]
fn internal_topics_never_cache_writes_and_are_not_deleted() {
    let mut meta = meta();
    let Request::CreateTopic { topic, name, live, .. } = create("__consumer_offsets", count(1, 1), &[]) else { unreachable!() };
    let request = |configs: BTreeMap<String, String>| Request::CreateTopic {
        topic,
        name: name.clone(),
        layout: count(50, -1),
        default_partitions: 1,
        default_replication_factor: 1,
        configs,
        live: live.clone(),
        internal: true,
    };
    let caching: BTreeMap<String, String> = [("write.caching".to_owned(), "true".to_owned())].into();
    assert!(matches!(meta.check(&request(caching.clone())), Err(MetaError::InternalTopic { .. })));
    made(&mut meta, request([("cleanup.policy".to_owned(), "compact".to_owned())].into()));
    assert!(matches!(meta.check(&Request::DeleteTopic { topic }), Err(MetaError::InternalTopic { .. })));
    let alter = Request::AlterTopicConfigs { name, changes: ConfigChanges::Replace(caching) };
    assert!(matches!(meta.check(&alter), Err(MetaError::InternalTopic { .. })));
}

#[test]
fn a_directory_holds_no_more_partitions_than_its_journals_do_for() {
    let mut meta = meta();
    let bounded = |request| match request {
        Request::CreateTopic { topic, name, layout, default_partitions, default_replication_factor, configs, internal, .. } => {
            let live = Live { partitions_max: 3, ..live() };
            Request::CreateTopic { topic, name, layout, default_partitions, default_replication_factor, configs, live, internal }
        }
        other => other,
    };
    assert_eq!(meta.check(&bounded(create("b", count(7, 1), &[]))), Err(MetaError::DirectoryPartitions { limit: 3 }));
    made(&mut meta, bounded(create("a", count(5, 1), &[])));
    assert_eq!(meta.check(&bounded(create("b", count(2, 1), &[]))), Err(MetaError::DirectoryPartitions { limit: 3 }));
    made(&mut meta, bounded(create("b", count(1, 1), &[])));
    let grow = |partitions_max| {
        let live = Live { partitions_max, ..live() };
        Request::CreatePartitions { name: "a".into(), total: 6, assigned: Vec::new(), live }
    };
    assert_eq!(meta.check(&grow(3)), Err(MetaError::DirectoryPartitions { limit: 3 }));
    made(&mut meta, grow(4));
}

#[test]
fn partitions_only_grow() {
    let mut meta = meta();
    made(&mut meta, create("a", count(3, 1), &[]));
    let grow =
        |total, assigned: &[Vec<i32>]| Request::CreatePartitions { name: "a".into(), total, assigned: assigned.to_vec(), live: live() };
    for total in [-1, 0, 2, 3, 100_001, i32::MAX] {
        assert!(matches!(meta.check(&grow(total, &[])), Err(MetaError::InvalidPartitions { .. })), "{total}");
    }
    assert!(matches!(meta.check(&grow(5, &[vec![0]])), Err(MetaError::InvalidAssignment { .. })));
    made(&mut meta, grow(5, &[vec![0], vec![0]]));
    assert_eq!(meta.topic_named("a").unwrap().partitions(), 5);
}

#[test]
fn node_settings_that_are_topic_defaults_are_checked() {
    let mut meta = meta();
    let set = |scope, key: &str, value: &str| Request::AlterNodeConfigs {
        scope,
        changes: ConfigChanges::Incremental(vec![(key.into(), ConfigChange::Set(value.into()))]),
    };
    assert!(meta.check(&set(NodeScope::Every, "log.retention.ms", "x")).is_err());
    assert_eq!(meta.check(&set(NodeScope::One(5), "log.retention.ms", "1")), Err(MetaError::UnknownNode { node: 5 }));
    made(&mut meta, set(NodeScope::One(0), "log.retention.ms", "1"));
    assert_eq!(meta.node_configs(NodeScope::One(0)).collect::<Vec<_>>(), [("log.retention.ms", "1")]);
}

#[test]
fn a_directory_belongs_to_one_node() {
    let meta = meta();
    let node = |id, directories: &[Uuid]| {
        let directories = directories.iter().map(|id| Directory { id: *id, path: "/".into() }).collect();
        Request::RegisterNode(Node { id, listeners: vec![], directories })
    };
    for wrong in [node(1, &[D1]), node(-1, &[D1]), node(0, &[D1, D1]), node(0, &[])] {
        assert!(matches!(meta.check(&wrong), Err(MetaError::InvalidNode { .. })));
    }
    assert!(meta.check(&node(0, &[D1])).is_ok());
    assert!(meta.check(&node(1, &[Uuid([5; 16])])).is_ok());
}
