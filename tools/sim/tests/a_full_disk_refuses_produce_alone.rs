//! A disk without room: produce is refused, retriably and with a message; everything else goes on, and produce too as soon as there is room.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use kafka_protocol::messages::fetch_request::FetchRequest;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProducerId};
use millrace_io::Disk;
use millrace_io::sim::{ClientEnd, On, Wrong};
use millrace_sim::cluster::NODE;
use millrace_sim::node::{FETCH, Node, PRODUCE, config, fetch, produce, produce_batch, topic};
use millrace_sim::said;
use millrace_sim::value::{self, Sequence, ValueId};
use std::path::Path;

const STORAGE: i16 = 56;
const ENOSPC: i32 = 28;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;

fn used(disk: &mut dyn Disk, path: &Path) -> u64 {
    let entries = disk.list(path).unwrap_or_default();
    entries.iter().map(|entry| if entry.is_directory { used(disk, &path.join(&entry.name)) } else { entry.len }).sum()
}

/// Error code, message and base offset of one batch of 100 kB.
fn append(node: &mut Node, end: &mut ClientEnd, name: &str, first: i64) -> (i16, String, i64) {
    let answer = node.ask::<ProduceRequest>(end, PRODUCE, &produce(name, 0, first as u32, 10, 10_000), 20_000).unwrap();
    let part = &answer.responses[0].partition_responses[0];
    (part.error_code, part.error_message.as_ref().map(ToString::to_string).unwrap_or_default(), part.base_offset)
}

/// The log start of topic `t` after the records below `offset` were deleted.
fn delete_records(node: &mut Node, end: &mut ClientEnd, offset: i64) -> (i16, i64) {
    let part = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
    let part = DeleteRecordsTopic::default().with_name(topic("t")).with_partitions(vec![part]);
    let request = DeleteRecordsRequest::default().with_topics(vec![part]).with_timeout_ms(5_000);
    let found = node.ask(end, 2, &request, 10_000).unwrap().topics[0].partitions[0].clone();
    (found.error_code, found.low_watermark)
}

fn delete_topic(node: &mut Node, end: &mut ClientEnd, name: &str) -> i16 {
    let gone = DeleteTopicState::default().with_name(Some(topic(name)));
    let delete = DeleteTopicsRequest::default().with_topics(vec![gone]).with_timeout_ms(5_000);
    node.ask(end, 6, &delete, 5_000).unwrap().responses[0].error_code
}

/// The end of a topic's partition, which can be read.
fn high_watermark(node: &mut Node, end: &mut ClientEnd, name: &str, from: i64) -> i64 {
    let answer = node.ask::<FetchRequest>(end, FETCH, &fetch(name, [(0, from)].into_iter(), 1 << 20), 5_000).unwrap();
    let part = &answer.responses[0].partitions[0];
    assert_eq!(part.error_code, 0, "reads go on");
    part.high_watermark
}

/// Appends to topic `t` from `length` on until that is refused; gives the refusal and the length then.
fn fill(node: &mut Node, end: &mut ClientEnd, mut length: i64) -> ((i16, String), i64) {
    loop {
        let (code, message, base) = append(node, end, "t", length);
        if code != 0 {
            return ((code, message), length);
        }
        assert_eq!(base, length);
        length += 10;
        assert!(length < 10_000, "the disk is full at last");
    }
}

#[test]
fn metadata_deletes_reads_and_commits_go_on_and_produce_resumes_by_itself() {
    let mut small = config(1, 1, 128 << 20);
    // What data may not take of the journal is what the others go on in, as long as it lasts.
    small.journal.reserve_bytes = small.journal.file_bytes / 2;
    let mut node = Node::new(small);
    node.start().unwrap();
    node.create("t", 1);
    node.create("ballast", 1);
    let mut end = node.connect();
    node.await_coordinator(&mut end, "g", |node, end| node.commit(end, "g", 1) == 0);
    for batch in 0..40 {
        assert_eq!(append(&mut node, &mut end, "ballast", batch * 10).0, 0);
    }

    let full = used(&mut node.world.disk(NODE), Path::new("/")) + 400_000;
    node.world.set_capacity(NODE, Path::new("/"), Some(full));
    let (refusal, length) = fill(&mut node, &mut end, 0);
    assert_eq!(refusal.0, STORAGE);
    assert!(refusal.1.contains("/data/0 is full") && refusal.1.contains("as soon as there is room"), "{}", refusal.1);
    for round in 0..8 {
        assert_eq!(append(&mut node, &mut end, "t", length).0, STORAGE);
        assert_eq!(node.commit(&mut end, "g", round), 0, "commits go on");
        let init = InitProducerIdRequest::default().with_transactional_id(None).with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
        assert_eq!(node.ask(&mut end, 4, &init, 5_000).unwrap().error_code, 0, "producer ids are given");
        node.create(&format!("made-{round}"), 1);
        if round > 0 {
            assert_eq!(delete_topic(&mut node, &mut end, &format!("made-{}", round - 1)), 0, "topics are deleted");
        }
        assert_eq!(delete_records(&mut node, &mut end, round + 1), (0, round + 1), "records are deleted");
        assert!(high_watermark(&mut node, &mut end, "t", round + 1) >= length, "what was acknowledged is there");
    }

    // A deletion needs no room.
    assert_eq!(delete_topic(&mut node, &mut end, "ballast"), 0);
    let length = high_watermark(&mut node, &mut end, "t", 8);
    node.world.set_capacity(NODE, Path::new("/"), None);
    let mut resumed = None;
    for _ in 0..100 {
        let (code, _, base) = append(&mut node, &mut end, "t", length);
        if code == 0 {
            resumed = Some(base);
            break;
        }
        node.run(100, |_| false);
    }
    assert_eq!(resumed, Some(length), "produce goes on without a restart");
    for batch in 1..40 {
        assert_eq!(append(&mut node, &mut end, "t", length + batch * 10), (0, String::new(), length + batch * 10));
    }
}

/// A producer whose first batch was refused must not lose it to those that it sent behind it.
#[test]
fn what_was_refused_comes_before_what_was_sent_behind_it() {
    let mut node = Node::new(config(1, 1, 128 << 20));
    node.start().unwrap();
    node.create("t", 1);
    let mut end = node.connect();
    let full = used(&mut node.world.disk(NODE), Path::new("/")) + 400_000;
    node.world.set_capacity(NODE, Path::new("/"), Some(full));
    let (_, length) = fill(&mut node, &mut end, 0);
    let batch = |first: i32| {
        let sequence = Sequence { producer_id: 77, epoch: 0, first };
        produce_batch("t", 0, value::batch(ValueId::new(2, first as u32), 5, 100, 1_700_000_000_000, Some(sequence), 0))
    };
    assert_eq!(node.produce(&mut end, &batch(0)).0, STORAGE);
    node.world.set_capacity(NODE, Path::new("/"), None);
    let again = |node: &mut Node, end: &mut ClientEnd| {
        (0..100).any(|_| {
            node.run(100, |_| false);
            append(node, end, "t", length).0 == 0
        })
    };
    assert!(again(&mut node, &mut end), "there is room again");
    assert_eq!(node.produce(&mut end, &batch(5)).0, OUT_OF_ORDER_SEQUENCE);
    for first in [0, 5, 10] {
        assert_eq!(node.produce(&mut end, &batch(first)), (0, length + 10 + i64::from(first)));
    }
}

/// A start needs no room as long as the journal has some of its reserve, and then room for one journal file.
#[test]
fn a_start_without_room_goes_on_with_what_there_is_or_says_what_it_needs() {
    let mut node = Node::new(config(1, 1, 128 << 20));
    node.start().unwrap();
    node.create("t", 1);
    let mut end = node.connect();
    node.await_coordinator(&mut end, "g", |node, end| node.commit(end, "g", 1) == 0);
    assert_eq!(append(&mut node, &mut end, "t", 0).0, 0);
    node.stop();
    let full = used(&mut node.world.disk(NODE), Path::new("/"));
    node.world.set_capacity(NODE, Path::new("/"), Some(full));

    // There is a free one: every partition begins an epoch, and all goes on.
    node.start().unwrap();
    let mut end = node.connect();
    assert_eq!(high_watermark(&mut node, &mut end, "t", 0), 10);
    node.await_coordinator(&mut end, "g", |node, end| node.commit(end, "g", 1) == 0);
    node.create("made", 1);
    assert_eq!(delete_topic(&mut node, &mut end, "made"), 0);
    assert_eq!(delete_records(&mut node, &mut end, 3), (0, 3));
    let (refusal, length) = fill(&mut node, &mut end, 10);
    assert!(refusal.0 == STORAGE && refusal.1.contains("/data/0 is full"), "{}", refusal.1);
    assert!(length > 10, "what the journal has room for is taken");

    // Now all of them hold something that is needed: what data had to leave is what starts go on in, until half of it is used up.
    let mut starts = 0;
    let error = loop {
        node.cluster.kill();
        match node.start() {
            Ok(_) => starts += 1,
            Err(error) => break error,
        }
        let mut end = node.connect();
        assert!(high_watermark(&mut node, &mut end, "t", 3) >= length, "what was acknowledged is there");
        if starts == 1 {
            node.await_coordinator(&mut end, "g", |node, end| node.commit(end, "g", 1) == 0);
        }
        assert_eq!(append(&mut node, &mut end, "t", length).0, STORAGE);
        assert!(starts < 10_000, "each takes some of it");
    };
    assert!(starts > 3, "{starts}");
    assert!(error.contains("/data/0/journal/0/") && error.contains("No space left"), "{error}");
    assert_eq!(node.start().unwrap_err(), error);
    node.world.set_capacity(NODE, Path::new("/"), None);
    node.start().unwrap();
    let mut end = node.connect();
    let acknowledged = length;
    let length = high_watermark(&mut node, &mut end, "t", 3);
    assert!(length >= acknowledged, "what was acknowledged is there");
    for batch in 0..40 {
        assert_eq!(append(&mut node, &mut end, "t", length + batch * 10), (0, String::new(), length + batch * 10));
    }
}

/// Nothing of the data was refused yet, and still a user has to be told why produce is.
#[test]
fn a_journal_that_is_the_first_to_find_the_disk_full_says_so() {
    let mut node = Node::new(config(1, 1, 128 << 20));
    node.start().unwrap();
    node.create("t", 1);
    let mut end = node.connect();
    said::listen();
    node.fault(".unfinished", On::Write, 0, u32::MAX, Wrong::Error(ENOSPC));
    let ((code, _), _) = fill(&mut node, &mut end, 0);
    assert_eq!(code, STORAGE);
    let full: Vec<_> = said::listen().into_iter().filter(|line| line.contains("full")).collect();
    assert_eq!(full.len(), 1, "{full:?}");
    assert!(full[0].contains("data directory /data/0 is full: produce is refused until there is room"), "{}", full[0]);
}
