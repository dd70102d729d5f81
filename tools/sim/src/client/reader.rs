//! A reader: tails a few partitions in one fetch, commits offsets in a group of its own, and now and then begins elsewhere.
//!
//! 1. On a new connection it asks for the coordinator and for the committed offsets.
//! 2. It fetches its partitions, sometimes not all of them; what comes is recorded batch by batch.
//! 3. Out of range: it asks for the log start and goes on there.
//! 4. Now and then it asks for the high watermark, or for the offset of a time.

use super::fetcher::{FetchStyle, Fetched, Fetcher};
use super::link::{Came, Link, decode};
use super::{Client, MS, Shared, is_retriable, take, text, topic_name};
use crate::history::{Bound, Event, Partition, Span};
use bytes::Bytes;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, GroupId};
use millrace_base::prng::Prng;
use std::collections::BTreeMap;

const LIST: i16 = 7;
const FIND: i16 = 3;
const COMMIT: i16 = 8;
const COMMITTED: i16 = 7;

const OUT_OF_RANGE: i16 = 1;

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const NEWEST: i64 = -3;

struct Place {
    partition: Partition,
    /// Recorded as a reader of its own.
    reader: u32,
    offset: i64,
    /// The log start is wanted first.
    lost: bool,
    /// Not fetched for a while.
    rests: bool,
    /// When the last answered fetch was asked.
    fetched_at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Coordinator,
    Committed,
    Fetch,
    Start,
    /// Of one partition, the offset for a time.
    Look(usize, i64),
    Commit(usize, i64),
}

pub struct Reader {
    group: String,
    prng: Prng,
    link: Link,
    places: Vec<Place>,
    fetcher: Fetcher,
    asked: Option<(i32, Asked, u64)>,
    /// The coordinator is known and the committed offsets were seen, on this connection.
    ready: bool,
    next_at: u64,
    records: u64,
    done: bool,
}

impl Reader {
    pub fn new(number: u32, style: FetchStyle, partitions: Vec<Partition>, prng: Prng) -> Reader {
        let place = |(index, partition)| {
            let reader = number * 1000 + index;
            Place { partition, reader, offset: 0, lost: true, rests: false, fetched_at: 0 }
        };
        let places = (0..).zip(partitions).map(place).collect();
        let (group, fetcher) = (format!("group-{number}"), Fetcher::new(style));
        Reader { group, prng, link: Link::new(), places, fetcher, asked: None, ready: false, next_at: 0, records: 0, done: false }
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    /// Records read.
    pub fn records(&self) -> u64 {
        self.records
    }

    fn ask(&mut self, shared: &Shared) {
        let now = shared.now();
        let (what, correlation) = if !self.ready {
            if self.prng.one_in(2) {
                let request = FindCoordinatorRequest::default().with_key(text(&self.group)).with_key_type(0);
                (Asked::Coordinator, self.link.ask(now, FIND, &request))
            } else {
                (Asked::Committed, self.ask_committed(now))
            }
        } else if self.places.iter().any(|place| place.lost) {
            (Asked::Start, self.ask_start(now))
        } else if self.prng.one_in(8) && !shared.finishing {
            let at = self.prng.below(self.places.len() as u64) as usize;
            (Asked::Commit(at, self.places[at].offset), self.ask_commit(now, at))
        } else if self.prng.one_in(10) {
            let at = self.prng.below(self.places.len() as u64) as usize;
            let wall = shared.world.wall(crate::cluster::NODE);
            let time = [LATEST, NEWEST, wall - self.prng.below(3_000) as i64, wall - self.prng.below(600) as i64];
            let time = time[self.prng.below(4) as usize];
            (Asked::Look(at, time), self.ask_list(now, &[at], time))
        } else {
            let wanted = self.wanted(shared);
            if !self.fetcher.can_name(shared, &wanted) {
                self.next_at = now + 20 * MS;
                return;
            }
            let wait_ms = if shared.finishing { 20 } else { [0, 20, 500][self.prng.below(3) as usize] };
            (Asked::Fetch, self.fetcher.ask(shared, &mut self.link, &mut self.prng, &wanted, wait_ms))
        };
        self.asked = Some((correlation, what, now));
    }

    /// What is to be fetched: all, but for some that rest.
    fn wanted(&mut self, shared: &Shared) -> BTreeMap<Partition, i64> {
        for place in &mut self.places {
            let turns = self.prng.one_in(if place.rests { 4 } else { 20 });
            place.rests = !shared.finishing && place.rests != turns;
        }
        if self.places.iter().all(|place| place.rests) {
            self.places[0].rests = false;
        }
        self.places.iter().filter(|place| !place.rests).map(|place| (place.partition.clone(), place.offset)).collect()
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
        let lost: Vec<usize> = (0..self.places.len()).filter(|at| self.places[*at].lost).collect();
        self.ask_list(now, &lost, EARLIEST)
    }

    fn ask_list(&mut self, now: u64, places: &[usize], time: i64) -> i32 {
        let mut topics: BTreeMap<&String, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for place in places.iter().map(|at| &self.places[*at]) {
            let asked =
                ListOffsetsPartition::default().with_partition_index(place.partition.1).with_current_leader_epoch(-1).with_timestamp(time);
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

    fn answered(&mut self, shared: &mut Shared, frame: &Bytes) {
        let Some((_, what, invoked)) = self.asked.take() else { return };
        let span = Span { invoked, completed: shared.now() };
        match what {
            Asked::Coordinator => {
                let code = decode::<FindCoordinatorRequest>(frame, FIND).error_code;
                self.check_code(shared, "FindCoordinator", code);
            }
            Asked::Committed => self.committed(shared, frame, span),
            Asked::Start => self.started(shared, frame, span),
            Asked::Look(at, time) => self.looked(shared, frame, at, time, span),
            Asked::Commit(at, offset) => {
                let answer = decode::<OffsetCommitRequest>(frame, COMMIT);
                let code = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).next().unwrap_or(-1);
                if code == 0 {
                    let (group, partition) = (self.group.clone(), self.places[at].partition.clone());
                    shared.history.push(Event::Committed { span, group, partition, offset });
                }
                self.check_code(shared, "OffsetCommit", code);
            }
            Asked::Fetch => match self.fetcher.answered(shared, frame) {
                Fetched::Again => {}
                Fetched::Refused(code) => self.check_code(shared, "Fetch", code),
                Fetched::Parts(parts) => self.fetched(shared, parts, span),
            },
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

    fn committed(&mut self, shared: &mut Shared, frame: &Bytes, span: Span) {
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
            shared.history.push(Event::CommittedFetched { span, group: self.group.clone(), partition, offset: part.committed_offset });
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
                    let (partition, offset) = (place.partition.clone(), place.offset);
                    shared.history.push(Event::Listed { span, partition, bound: Bound::LogStart, offset });
                }
            }
        }
    }

    fn looked(&mut self, shared: &mut Shared, frame: &Bytes, at: usize, time: i64, span: Span) {
        let answer = decode::<ListOffsetsRequest>(frame, LIST);
        let part = answer.topics.first().and_then(|topic| topic.partitions.first()).cloned().unwrap_or_default();
        if part.error_code != 0 {
            return self.check_code(shared, "ListOffsets", part.error_code);
        }
        let (partition, offset, timestamp) = (self.places[at].partition.clone(), part.offset, part.timestamp);
        if time == LATEST {
            return shared.history.push(Event::Listed { span, partition, bound: Bound::HighWatermark, offset });
        }
        shared.saw(if offset < 0 { "a time without a record" } else { "a time with a record" });
        let time = (time != NEWEST).then_some(time);
        shared.history.push(Event::Looked { span, partition, time, offset, timestamp });
    }

    fn fetched(&mut self, shared: &mut Shared, parts: Vec<(Partition, PartitionData)>, span: Span) {
        // In a session, a partition that is not in the answer has nothing new.
        self.places.iter_mut().filter(|place| !place.rests).for_each(|place| place.fetched_at = span.invoked);
        for (partition, part) in parts {
            let Some(place) = self.places.iter_mut().find(|place| place.partition == partition) else { continue };
            match part.error_code {
                0 => {}
                OUT_OF_RANGE => {
                    place.lost = true;
                    shared.history.push(Event::OutOfRange { span, partition, offset: place.offset });
                    continue;
                }
                code => {
                    shared.refused(&partition, code, "a fetch");
                    self.check_code(shared, "Fetch of a partition", code);
                    continue;
                }
            }
            let (next, count) = take::part(shared, &partition, place.reader, place.offset, &part, span);
            place.offset = next;
            self.records += count;
            if self.prng.one_in(200) && !shared.finishing {
                place.lost = true;
            }
        }
    }

    fn has_all(&self, shared: &Shared) -> bool {
        self.places.iter().all(|place| !place.lost && shared.is_all(&place.partition, place.offset, place.fetched_at))
    }

    fn lost(&mut self) {
        (self.asked, self.ready) = (None, false);
        self.fetcher.forget();
    }
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
                self.lost();
                return self.link.wake();
            }
            Came::Answers(answers) => answers.iter().for_each(|(_, frame)| self.answered(shared, frame)),
        }
        let now = shared.now();
        self.done = shared.finishing && self.asked.is_none() && self.has_all(shared);
        if self.asked.is_none() && now >= self.next_at && !self.done {
            self.ask(shared);
            if let Some((_, Asked::Commit(at, offset), _)) = self.asked {
                let (group, partition) = (self.group.clone(), self.places[at].partition.clone());
                shared.history.push(Event::CommitSent { at: now, group, partition, offset });
            }
            if let Came::Lost = self.link.look(&shared.world) {
                self.lost();
            }
        }
        let next = if self.asked.is_some() || self.done { u64::MAX } else { self.next_at };
        next.min(self.link.wake())
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn state(&self) -> String {
        let places: Vec<String> = self.places.iter().map(|place| format!("{:?} at {}", place.partition, place.offset)).collect();
        format!("{}: up {}, ready {}, asked {:?}; {}", self.group, self.link.is_up(), self.ready, self.asked, places.join(", "))
    }
}
