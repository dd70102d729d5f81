//! A reader: tails a few partitions in one fetch, commits offsets in a group of its own, and now and then begins elsewhere.
//!
//! 1. On a new connection it asks for the coordinator and for the committed offsets.
//! 2. It fetches all its partitions; what comes is recorded batch by batch.
//! 3. Out of range: it asks for the log start and goes on there.

use super::link::{Came, Link, decode};
use super::{Client, MS, Shared, is_retriable, text, topic_name};
use crate::history::{Event, Partition, Span};
use crate::value;
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use kafka_protocol::messages::{BrokerId, FetchResponse, FindCoordinatorRequest, GroupId};
use millrace_base::batch;
use millrace_base::prng::Prng;
use std::collections::BTreeMap;

const FETCH: i16 = 12;
const LIST: i16 = 7;
const FIND: i16 = 3;
const COMMIT: i16 = 8;
const COMMITTED: i16 = 7;

const OUT_OF_RANGE: i16 = 1;

struct Place {
    partition: Partition,
    /// Recorded as a reader of its own.
    reader: u32,
    offset: i64,
    /// The log start is wanted first.
    lost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Coordinator,
    Committed,
    Fetch,
    Start,
    Commit(usize, i64),
}

pub struct Reader {
    group: String,
    prng: Prng,
    link: Link,
    places: Vec<Place>,
    asked: Option<(i32, Asked, u64)>,
    /// The coordinator is known and the committed offsets were seen, on this connection.
    ready: bool,
    next_at: u64,
    records: u64,
}

impl Reader {
    pub fn new(number: u32, partitions: Vec<Partition>, prng: Prng) -> Reader {
        let place = |(index, partition)| Place { partition, reader: number * 1000 + index, offset: 0, lost: true };
        let places = (0..).zip(partitions).map(place).collect();
        Reader { group: format!("group-{number}"), prng, link: Link::new(), places, asked: None, ready: false, next_at: 0, records: 0 }
    }

    /// Records read.
    pub fn records(&self) -> u64 {
        self.records
    }

    fn ask(&mut self, now: u64) {
        let (what, correlation) = if !self.ready {
            if self.prng.one_in(2) {
                let request = FindCoordinatorRequest::default().with_key(text(&self.group)).with_key_type(0);
                (Asked::Coordinator, self.link.ask(now, FIND, &request))
            } else {
                (Asked::Committed, self.ask_committed(now))
            }
        } else if self.places.iter().any(|place| place.lost) {
            (Asked::Start, self.ask_start(now))
        } else if self.prng.one_in(8) {
            let at = self.prng.below(self.places.len() as u64) as usize;
            (Asked::Commit(at, self.places[at].offset), self.ask_commit(now, at))
        } else {
            (Asked::Fetch, self.ask_fetch(now))
        };
        self.asked = Some((correlation, what, now));
    }

    fn ask_committed(&mut self, now: u64) -> i32 {
        let mut topics: BTreeMap<&String, Vec<i32>> = BTreeMap::new();
        self.places.iter().for_each(|place| topics.entry(&place.partition.0).or_default().push(place.partition.1));
        let topic = |(name, indexes): (&String, Vec<i32>)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(name)).with_partition_indexes(indexes)
        };
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_topics(Some(topics.into_iter().map(topic).collect()));
        self.link.ask(now, COMMITTED, &request)
    }

    fn ask_start(&mut self, now: u64) -> i32 {
        let mut topics: BTreeMap<&String, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for place in self.places.iter().filter(|place| place.lost) {
            let asked =
                ListOffsetsPartition::default().with_partition_index(place.partition.1).with_current_leader_epoch(-1).with_timestamp(-2);
            topics.entry(&place.partition.0).or_default().push(asked);
        }
        let topic = |(name, partitions): (&String, Vec<ListOffsetsPartition>)| {
            ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        };
        let topics = topics.into_iter().map(topic).collect();
        self.link.ask(now, LIST, &ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics))
    }

    fn ask_commit(&mut self, now: u64, at: usize) -> i32 {
        let place = &self.places[at];
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(place.partition.1)
            .with_committed_offset(place.offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("")));
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name(&place.partition.0)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        self.link.ask(now, COMMIT, &request)
    }

    fn ask_fetch(&mut self, now: u64) -> i32 {
        let most = [1, 2_000, 70_000, 1 << 20][self.prng.below(4) as usize];
        let mut topics: BTreeMap<&String, Vec<FetchPartition>> = BTreeMap::new();
        for place in &self.places {
            let asked = FetchPartition::default()
                .with_partition(place.partition.1)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(place.offset)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(most);
            topics.entry(&place.partition.0).or_default().push(asked);
        }
        let topic = |(name, partitions): (&String, Vec<FetchPartition>)| {
            FetchTopic::default().with_topic(topic_name(name)).with_partitions(partitions)
        };
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms([0, 20, 500][self.prng.below(3) as usize])
            .with_min_bytes([0, 1, 100_000][self.prng.below(3) as usize])
            .with_max_bytes(if self.prng.one_in(4) { 1 } else { 4 << 20 })
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(topics.into_iter().map(topic).collect());
        self.link.ask(now, FETCH, &request)
    }

    fn answered(&mut self, shared: &mut Shared, frame: &Bytes) {
        let Some((_, what, invoked)) = self.asked.take() else { return };
        let span = Span { invoked, completed: shared.now() };
        match what {
            Asked::Coordinator => {
                let code = decode::<FindCoordinatorRequest>(frame, FIND).error_code;
                self.check_code(shared, "FindCoordinator", code);
            }
            Asked::Committed => self.committed(shared, frame),
            Asked::Start => self.started(shared, frame, span),
            Asked::Commit(at, offset) => {
                let answer = decode::<OffsetCommitRequest>(frame, COMMIT);
                let code = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).next().unwrap_or(-1);
                if code == 0 {
                    let (group, partition) = (self.group.clone(), self.places[at].partition.clone());
                    shared.history.push(Event::Committed { group, partition, offset });
                }
                self.check_code(shared, "OffsetCommit", code);
            }
            Asked::Fetch => self.fetched(shared, &decode::<FetchRequest>(frame, FETCH), span),
        }
    }

    fn check_code(&mut self, shared: &mut Shared, what: &str, code: i16) {
        if code != 0 {
            self.next_at = shared.now() + 20 * MS;
            if !is_retriable(code) {
                shared.wrong(format!("{what} was answered {code}"));
            }
        }
    }

    fn committed(&mut self, shared: &mut Shared, frame: &Bytes) {
        let answer = decode::<OffsetFetchRequest>(frame, COMMITTED);
        let parts = || answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (topic, part)));
        let code = parts().map(|(_, part)| part.error_code).chain([answer.error_code]).find(|code| *code != 0).unwrap_or(0);
        if code != 0 {
            return self.check_code(shared, "OffsetFetch", code);
        }
        for (topic, part) in parts() {
            let partition = ((*topic.name.0).to_owned(), part.partition_index);
            let begin_there = part.committed_offset >= 0 && self.prng.one_in(3);
            if let Some(place) = self.places.iter_mut().find(|place| place.partition == partition && begin_there) {
                place.offset = part.committed_offset;
                place.lost = false;
                shared.history.push(Event::Sought { reader: place.reader, offset: place.offset });
            }
            shared.history.push(Event::CommittedFetched { group: self.group.clone(), partition, offset: part.committed_offset });
        }
        self.ready = true;
    }

    fn started(&mut self, shared: &mut Shared, frame: &Bytes, span: Span) {
        let answer = decode::<ListOffsetsRequest>(frame, LIST);
        for topic in &answer.topics {
            for part in &topic.partitions {
                if part.error_code != 0 {
                    self.check_code(shared, "ListOffsets", part.error_code);
                    continue;
                }
                let found =
                    self.places.iter_mut().find(|place| *place.partition.0 == *topic.name.0 && place.partition.1 == part.partition_index);
                if let Some(place) = found {
                    (place.offset, place.lost) = (part.offset, false);
                    shared.history.push(Event::Sought { reader: place.reader, offset: place.offset });
                }
                let _ = span; // a log start alone is not an answer with all bounds
            }
        }
    }

    fn fetched(&mut self, shared: &mut Shared, answer: &FetchResponse, span: Span) {
        self.check_code(shared, "Fetch", answer.error_code);
        for topic in &answer.responses {
            for part in &topic.partitions {
                let found =
                    self.places.iter_mut().find(|place| *place.partition.0 == *topic.topic.0 && place.partition.1 == part.partition_index);
                let Some(place) = found else {
                    shared.wrong("a fetch answer names a partition that was not asked".to_owned());
                    continue;
                };
                let partition = place.partition.clone();
                match part.error_code {
                    0 => {}
                    OUT_OF_RANGE => {
                        place.lost = true;
                        shared.history.push(Event::OutOfRange { span, partition, offset: place.offset });
                        continue;
                    }
                    code => {
                        self.check_code(shared, "Fetch of a partition", code);
                        continue;
                    }
                }
                let (high_watermark, stable, log_start) = (part.high_watermark, part.last_stable_offset, part.log_start_offset);
                let high = shared.high.entry(partition.clone()).or_insert(0);
                *high = (*high).max(high_watermark);
                shared.history.push(Event::Bounds { span, partition: partition.clone(), high_watermark, stable, log_start });
                let read = record(shared, &partition, place.reader, place.offset, part.records.as_ref(), high_watermark, span);
                place.offset = read.0;
                self.records += read.1;
                if self.prng.one_in(200) {
                    place.lost = true;
                }
            }
        }
    }
}

/// Takes down what a fetch brought; the next offset and the number of records.
pub(super) fn record(
    shared: &mut Shared,
    partition: &Partition,
    reader: u32,
    asked: i64,
    records: Option<&Bytes>,
    high_watermark: i64,
    span: Span,
) -> (i64, u64) {
    let (mut next, mut count) = (asked, 0);
    let mut rest: &[u8] = records.map_or(&[], |records| records);
    while !rest.is_empty() {
        let header = match batch::Header::parse(rest).and_then(|header| batch::check_stored(&rest[..header.size.min(rest.len())])) {
            Ok(header) => header,
            Err(error) => {
                shared.wrong(format!("{partition:?}: a fetch from {asked} gave a batch that is none: {error}"));
                break;
            }
        };
        let values: Vec<_> =
            batch::records(&rest[..header.size]).map(|record| value::read(record.and_then(|record| record.value).unwrap_or(&[]))).collect();
        if values.len() as i64 != header.next_offset() - header.base_offset {
            shared.wrong(format!("{partition:?}: the batch at {} has {} records", header.base_offset, values.len()));
        }
        if header.next_offset() > high_watermark {
            shared.wrong(format!("{partition:?}: offset {} was shown, the high watermark is {high_watermark}", header.last_offset()));
        }
        count += values.len() as u64;
        next = header.next_offset();
        shared.history.push(Event::Read { span, partition: partition.clone(), reader, asked, base: header.base_offset, values });
        rest = &rest[header.size..];
    }
    (next, count)
}

impl Client for Reader {
    fn step(&mut self, shared: &mut Shared) -> u64 {
        if !self.link.connect(&shared.world) {
            return self.link.wake();
        }
        match self.link.look(&shared.world) {
            Came::Lost => {
                if let Some((expected, found)) = self.link.out_of_order.take() {
                    shared.wrong(format!("answer {found} came where {expected} was next"));
                }
                (self.asked, self.ready) = (None, false);
                return self.link.wake();
            }
            Came::Answers(answers) => answers.iter().for_each(|(_, frame)| self.answered(shared, frame)),
        }
        let now = shared.now();
        if self.asked.is_none() && now >= self.next_at && !shared.finishing {
            self.ask(now);
            if let Some((_, Asked::Commit(at, offset), _)) = self.asked {
                let (group, partition) = (self.group.clone(), self.places[at].partition.clone());
                shared.history.push(Event::CommitSent { group, partition, offset });
            }
            if let Came::Lost = self.link.look(&shared.world) {
                (self.asked, self.ready) = (None, false);
            }
        }
        let next = if self.asked.is_some() || shared.finishing { u64::MAX } else { self.next_at };
        next.min(self.link.wake())
    }

    fn is_done(&self) -> bool {
        self.asked.is_none()
    }

    fn state(&self) -> String {
        format!("{}: up {}, ready {}, asked {:?}", self.group, self.link.is_up(), self.ready, self.asked)
    }
}
