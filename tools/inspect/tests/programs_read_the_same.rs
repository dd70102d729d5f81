//! What people read as text, programs read as JSON and YAML: the same things, and names of topics where replica set 0 is.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use millrace_base::batch::{Builder, Header, patch};
use millrace_base::ids::{META_PARTITION, PartitionId, Uuid};
use millrace_inspect::{Format, InspectError, Outcome, Show, Verb};
use millrace_log::journal::{PayloadRange, Record};
use millrace_log::partition_state::PartitionState;
use millrace_state::meta::Command;
use std::path::Path;
use support::{Scratch, VERIFY, Writer, built, first, flip, inspect, show, try_inspect, try_inspect_as};

const NOWHERE: PayloadRange = PayloadRange { start: 0, len: 0 };

/// A directory with replica set 0 and the partitions of one topic, all in the journal.
fn named() -> (Scratch, PartitionId) {
    let scratch = Scratch::new();
    let meta = millrace_log::paths::Meta { cluster: Uuid::from_entropy(8, 8), node: 3, directory: Uuid::from_entropy(9, 9) };
    std::fs::write(millrace_log::paths::meta(&scratch.0), meta.encode()).unwrap();
    let topic = Uuid::from_entropy(5, 5);
    let id = PartitionId { topic, index: 1 };
    let create =
        Command::CreateTopic { topic, name: "my-topic".to_owned(), directories: vec![meta.directory; 2], configs: Default::default() };
    let mut builder = Builder::new(1000);
    builder.push(1000, None, Some(&create.encode()));
    let mut batch = builder.finish();
    patch(&mut batch, 0, 1);
    Header::parse(&batch).unwrap();
    let mut writer = Writer::open(&scratch.0, 7);
    let born = || PartitionState::birth(0, 300, Vec::new()).encode();
    let records = |partition, bytes| (Record::Batches { partition, base: 0, end: 1, payload: NOWHERE }, bytes);
    writer.entry(vec![(Record::State { partition: META_PARTITION, state: NOWHERE }, born()), records(META_PARTITION, batch)]);
    writer.entry(vec![(Record::State { partition: id, state: NOWHERE }, born()), records(id, support::batch(0, 0).1)]);
    writer.statement();
    (scratch, id)
}

fn json(verb: &Verb, path: &Path) -> Vec<String> {
    let out = try_inspect_as(verb, path, Format::Json).unwrap().out;
    out.lines().map(str::to_owned).collect()
}

fn of_kind<'a>(lines: &'a [String], kind: &str) -> Vec<&'a String> {
    lines.iter().filter(|line| line.starts_with(&format!("{{\"kind\":\"{kind}\","))).collect()
}

#[test]
fn every_line_of_json_is_an_object_with_a_kind() {
    let scratch = built();
    let all = Verb::Show(Show { records: true, ..Show::default() });
    for verb in [Verb::Ls, all, VERIFY] {
        for line in json(&verb, &scratch.0) {
            assert!(line.starts_with("{\"kind\":\"") && line.ends_with('}'), "{line}");
        }
        let yaml = try_inspect_as(&verb, &scratch.0, Format::Yaml).unwrap().out;
        assert!(yaml.lines().all(|line| line.starts_with("- kind: ") || line.starts_with("  ")), "{yaml}");
    }
}

#[test]
fn what_is_listed_shown_and_verified_is_the_same_as_in_text() {
    let scratch = built();
    let ls = json(&Verb::Ls, &scratch.0);
    assert_eq!((of_kind(&ls, "partition").len(), of_kind(&ls, "segment").len(), of_kind(&ls, "journal").len()), (2, 4, 1));
    assert!(of_kind(&ls, "partition")[0].contains("\"log_start\":0,\"durable_end\":50,\"log_end\":54"), "{ls:?}");
    let all = json(&Verb::Show(Show { records: true, ..Show::default() }), &scratch.0);
    let values: Vec<_> = of_kind(&all, "record").into_iter().filter(|line| line.contains("\"key\":\"key\\n\"")).collect();
    // Of the journal's entries and of the partitions' logs.
    assert!(values.len() > 257, "{}", values.len());
    let verdict = json(&VERIFY, &scratch.0).pop().unwrap();
    assert!(verdict.contains("\"verdict\":\"clean\",\"problems\":0") && verdict.contains("\"batches\":257"), "{verdict}");
    let segment = millrace_log::paths::segment(&millrace_log::paths::partition(&scratch.0, first()), 20);
    flip(&segment, 500);
    let found = json(&VERIFY, &scratch.0);
    let problem = of_kind(&found, "problem")[0];
    for part in [format!("\"file\":\"{}\",\"place\":399", segment.display()), format!("\"partition\":\"{}\"", first())] {
        assert!(problem.contains(&part), "{problem}");
    }
    assert!(problem.contains("\"at_start\":\"a start does not notice; reading it"), "{problem}");
    let intact = of_kind(&found, "intact")[0];
    assert!(intact.contains("\"from\":0,\"to\":23,\"reached\":54"), "{intact}");
}

#[test]
fn topics_are_known_by_name_where_replica_set_0_is() {
    let (scratch, id) = named();
    let out = inspect(&Verb::Ls, &scratch.0).out;
    assert!(out.lines().any(|line| line.starts_with("my-topic  ") && line.contains(&id.topic.to_string())), "{out}");
    assert!(out.contains("my-topic-1") && out.contains("replica set 0-0"), "{out}");
    for what in ["my-topic/1", "my-topic-1", &id.to_string()] {
        let gave = show(&scratch.0, what);
        assert_eq!(gave.outcome, Outcome::Clean);
        assert!(gave.out.contains(&format!("partition {id} (my-topic-1)")) && gave.out.contains("key=\"key\\n\""), "{what}: {}", gave.out);
    }
    let commands = show(&scratch.0, &META_PARTITION.to_string()).out;
    assert!(commands.contains("{\"command\":\"create topic\",\"topic\":\"my-topic\""), "{commands}");
    let what = Verb::Show(Show { what: Some("my-topic-0".to_owned()), ..Show::default() });
    assert!(matches!(try_inspect(&what, &scratch.0), Err(InspectError::Usage(text)) if text.contains("has no partition my-topic-0")));
}

#[test]
fn exit_codes_tell_clean_from_torn_from_damaged() {
    let codes = [Outcome::Clean, Outcome::Torn, Outcome::Damaged].map(Outcome::exit_code);
    assert_eq!(codes, [0, 4, 3]);
    let help = millrace_inspect::command::command().render_help().to_string();
    for code in ["0 what", "1 it could not", "2 it was asked", "3 something is damaged", "4 nothing is damaged"] {
        assert!(help.replace('\n', " ").contains(code), "{code}: {help}");
    }
}
