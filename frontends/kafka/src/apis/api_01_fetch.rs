//! Fetch.
//!
//! v4 isolation level; v5 log start; v7 sessions (KIP-227); v9 leader epochs; v11 rack; v12 last fetched epoch and diverging
//! epoch; v13 topic ids; v15 replica state as a tag; v16 leader hints; v17 directory ids; v18 high watermark. Consumers only: nothing
//! here is replicated by Fetch, and whoever says that it is a replica is answered like a consumer.
//!
//! 1. The session says which partitions are meant, and in which order ([`crate::fetch_session`]).
//! 2. Partitions that do not exist have their error at once; the others are read by the shards that own them.
//! 3. All on one shard: one read that waits there for `min_bytes` or the deadline.
//!    On several: first what is there at once; if that is too little, each waits for its share of what is missing. One that has its share
//!    while the sum is too little waits for its share of the rest; else it stops the others.
//! 4. The answer keeps the request's order and the limits; its first batch comes whole. Records are lent, never copied.
//!
//! Until transactions land a read of committed records has an empty list of aborted ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_base::batch::{LENGTH_OVERHEAD, place};
use millrace_base::clock::Nanos;
use millrace_base::ids::{NodeId, ShardId, Uuid};
use millrace_base::limits::TOPIC_NAME_BYTES_MAX;
use millrace_io::Slice;
use millrace_shard::api::{Read, ReadData, ReadError, ReadPart, Reply, Request};

use crate::call::{Answer, Asked, Call, Outcome, PARTS_MAX, Pending, token};
use crate::errors;
use crate::fetch_session::{Ask, Kind, PartKey, Shown, TopicKey, Wanted};
use crate::listener::NodeAddress;
use crate::wire::errors::ErrorCode;
use crate::wire::fetch_response::{self, CurrentLeader, EpochEnd, FetchResponse, FetchedPartition, FetchedTopic, NodeEndpoint};
use crate::wire::requests::FetchRequest;

/// The part number of StopWaiting, whose answer nobody reads.
const STOP_PART: u32 = PARTS_MAX - 1;

/// No fetch waits longer, whatever it asks for: it is answered empty and comes again, and what it holds here is not held for days.
const WAIT_MS_MAX: u64 = 5 * 60 * 1000;

/// One partition of the fetch.
struct Entry {
    key: PartKey,
    wanted: Wanted,
    result: EntryResult,
}

enum EntryResult {
    Refused(ErrorCode),
    /// Asked of a shard.
    Missing,
    Read(Result<ReadData, ReadError>),
}

/// The partitions that one shard owns.
struct ShardRead {
    shard: ShardId,
    entries: Vec<usize>,
    parts: Vec<ReadPart>,
    /// Bytes that it had when it was asked last, and that it is asked to wait for.
    bytes: usize,
    min_bytes: usize,
    is_asked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Several shards say what they have.
    Look,
    /// Reads wait, until the sum is enough.
    Wait,
    /// Those that still wait have been stopped.
    Stop,
}

/// Partitions of all fetches of one shard that wait: each takes some 400 bytes here and where it is led, for as long as the client likes.
const WAITING_PARTITIONS_MAX: usize = 100_000;

/// Who fetches no more than these may wait in any case.
const FEW_PARTITIONS: usize = 8;

/// Partitions of fetches that wait, of one shard.
#[derive(Clone, Default)]
pub struct WaitingPartitions(Arc<AtomicUsize>);

/// Some of them, until it is dropped.
struct Counted {
    of: WaitingPartitions,
    partitions: usize,
}

impl WaitingPartitions {
    /// None: there are too many, and the fetch is to be answered with what there is; its client asks again.
    fn count(&self, partitions: usize) -> Option<Counted> {
        let counted = self.0.load(Ordering::Relaxed) + partitions;
        if counted > WAITING_PARTITIONS_MAX && partitions > FEW_PARTITIONS {
            return None;
        }
        self.0.fetch_add(partitions, Ordering::Relaxed);
        Some(Counted { of: self.clone(), partitions })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.partitions, Ordering::Relaxed);
    }
}

struct Fetching {
    asked: Asked,
    /// None: it does not wait.
    _counted: Option<Counted>,
    kind: Kind,
    entries: Vec<Entry>,
    shards: Vec<ShardRead>,
    phase: Phase,
    max_bytes: usize,
    min_bytes: usize,
    deadline: Nanos,
    committed_only: bool,
}

pub fn handle(call: &mut Call<'_, '_>, request: FetchRequest<'_>) -> Outcome {
    let now = call.now();
    if request.topics.iter().any(|topic| topic.topic.len() > TOPIC_NAME_BYTES_MAX) {
        // No topic has such a name; a session, or a fetch that waits, would keep it.
        return Outcome::Done(refuse(call.asked, ErrorCode::InvalidTopicException));
    }
    let begun = match call.shared.sessions.begin(ask(&request, call.version()), now) {
        Ok(begun) => begun,
        Err(code) => return Outcome::Done(refuse(call.asked, code)),
    };
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(call.settings().fetch_max_bytes as usize);
    let mut entries = Vec::with_capacity(begun.parts.len());
    let mut by_shard: BTreeMap<ShardId, (Vec<usize>, Vec<ReadPart>)> = BTreeMap::new();
    for (key, wanted) in begun.parts {
        let result = match key.topic.as_ref().partition(call.meta(), key.index) {
            Err(code) => EntryResult::Refused(code),
            Ok(_) if wanted.offset < 0 => EntryResult::Refused(ErrorCode::OffsetOutOfRange),
            Ok(partition) => {
                let (indexes, parts) = by_shard.entry(call.owner_of(partition)).or_default();
                indexes.push(entries.len());
                parts.push(ReadPart {
                    partition,
                    offset: wanted.offset,
                    max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0),
                    current_epoch: wanted.current_epoch,
                    last_read_epoch: wanted.last_read_epoch,
                });
                EntryResult::Missing
            }
        };
        entries.push(Entry { key, wanted, result });
    }
    let shard_read = |(shard, (entries, parts)): (ShardId, (Vec<usize>, Vec<ReadPart>))| ShardRead {
        shard,
        entries,
        parts,
        bytes: 0,
        min_bytes: 0,
        is_asked: false,
    };
    let counted = call.shared.waiting_partitions.count(entries.len());
    let (min_bytes, wait_ms) = if counted.is_some() { (request.min_bytes, request.max_wait_ms) } else { (0, 0) };
    let fetching = Fetching {
        asked: call.asked,
        _counted: counted,
        kind: begun.kind,
        entries,
        shards: by_shard.into_iter().map(shard_read).collect(),
        phase: Phase::Look,
        max_bytes,
        min_bytes: usize::try_from(min_bytes).unwrap_or(0).min(max_bytes),
        deadline: now.plus_ms(u64::try_from(wait_ms).unwrap_or(0).min(WAIT_MS_MAX)),
        committed_only: request.isolation_level == 1,
    };
    fetching.start(call)
}

fn ask(request: &FetchRequest<'_>, version: i16) -> Ask {
    let uses_ids = version >= 13;
    let key = |name: &str, id: Uuid| if uses_ids { TopicKey::Id(id) } else { TopicKey::Name(name.into()) };
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let topic_key = key(topic.topic, topic.topic_id);
        for partition in &topic.partitions {
            let want = Wanted {
                offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_epoch: partition.current_leader_epoch,
                last_read_epoch: partition.last_fetched_epoch,
            };
            wanted.push((PartKey { topic: topic_key.clone(), index: partition.partition }, want));
        }
    }
    without_repeats(&mut wanted);
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let topic_key = key(topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|index| PartKey { topic: topic_key.clone(), index: *index }));
    }
    Ask { id: request.session_id, epoch: request.session_epoch, uses_ids, wanted, forgotten }
}

/// A partition that is named more than once counts once, where it came first and as it was asked for last (as in Kafka, whose broker reads it
/// into a LinkedHashMap): each time that it stood here would cost memory here and on its shard for as long as the fetch waits.
fn without_repeats(wanted: &mut Vec<(PartKey, Wanted)>) {
    if wanted.is_sorted_by(|a, b| a.0 < b.0) {
        return;
    }
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].0.cmp(&wanted[*b].0));
    let mut is_kept = vec![true; wanted.len()];
    let mut as_last = Vec::new();
    for same in order.chunk_by(|a, b| wanted[*a].0 == wanted[*b].0).filter(|same| same.len() > 1) {
        as_last.push((same[0], wanted[same[same.len() - 1]].1));
        same[1..].iter().for_each(|repeat| is_kept[*repeat] = false);
    }
    as_last.into_iter().for_each(|(first, last)| wanted[first].1 = last);
    let mut kept = is_kept.into_iter();
    wanted.retain(|_| kept.next().unwrap_or(true));
}

fn refuse(asked: Asked, code: ErrorCode) -> Answer {
    let (topics, node_endpoints) = (Vec::new(), Vec::new());
    encode(asked, FetchResponse { throttle_time_ms: 0, error_code: code.code(), session_id: 0, topics, node_endpoints })
}

fn encode(asked: Asked, response: FetchResponse<'_, Slice>) -> Answer {
    match fetch_response::encode(asked.version, asked.correlation_id, response) {
        Ok(parts) => Answer::Parts(parts),
        Err(error) => Answer::Close(error.to_string()),
    }
}

impl Fetching {
    fn start(mut self, call: &mut Call<'_, '_>) -> Outcome {
        match self.shards.len() {
            0 => return Outcome::Done(self.answer(call)),
            1 => {
                call.owner = self.shards.first().map(|only| only.shard);
                self.phase = Phase::Wait;
                self.submit(call, 0, self.min_bytes, self.deadline);
            }
            _ => (0..self.shards.len()).for_each(|at| self.submit(call, at, 0, call.now())),
        }
        Outcome::Wait(Box::new(self))
    }

    /// Part numbers of looking and waiting differ, so that a late reply of the first is never taken for one of the second.
    fn part(&self, at: usize) -> u32 {
        (2 * at) as u32 + u32::from(self.phase != Phase::Look)
    }

    fn submit(&mut self, call: &mut Call<'_, '_>, at: usize, min_bytes: usize, deadline: Nanos) {
        let (part, is_only) = (self.part(at), self.shards.len() == 1);
        let read = &mut self.shards[at];
        (read.is_asked, read.min_bytes) = (true, min_bytes);
        // Several may be asked again.
        let parts = if is_only { std::mem::take(&mut read.parts) } else { read.parts.clone() };
        let (max_bytes, committed_only) = (self.max_bytes, self.committed_only);
        call.submit(read.shard, part, Request::Read(Read { parts, max_bytes, min_bytes, deadline, committed_only }));
    }

    fn store(&mut self, at: usize, results: Vec<Result<ReadData, ReadError>>) {
        let read = &mut self.shards[at];
        read.is_asked = false;
        read.bytes = results.iter().flatten().map(ReadData::bytes).sum();
        for (entry, result) in read.entries.iter().zip(results) {
            self.entries[*entry].result = EntryResult::Read(result);
        }
    }

    /// Asks a shard again, to wait for its share of what the sum lacks: while none has that, the sum is too little. What it has given is let go.
    fn wait(&mut self, call: &mut Call<'_, '_>, at: usize) {
        let share = self.min_bytes.saturating_sub(self.bytes()).div_ceil(self.shards.len());
        let read = &self.shards[at];
        for entry in &read.entries {
            self.entries[*entry].result = EntryResult::Missing;
        }
        self.submit(call, at, read.bytes + share, self.deadline);
    }

    fn bytes(&self) -> usize {
        self.shards.iter().map(|read| read.bytes).sum()
    }

    fn stop_others(&mut self, call: &mut Call<'_, '_>) {
        self.phase = Phase::Stop;
        for at in 0..self.shards.len() {
            if self.shards[at].is_asked {
                let token = token(call.id, self.part(at));
                call.submit(self.shards[at].shard, STOP_PART, Request::StopWaiting { token });
            }
        }
    }

    fn is_enough(&self, now: Nanos) -> bool {
        let is_news = |entry: &Entry| match &entry.result {
            EntryResult::Read(Ok(data)) => data.diverging.is_some(),
            EntryResult::Read(Err(_)) => true,
            EntryResult::Refused(_) | EntryResult::Missing => false,
        };
        self.bytes() >= self.min_bytes || now >= self.deadline || self.entries.iter().any(is_news)
    }

    fn answer(&mut self, call: &mut Call<'_, '_>) -> Answer {
        let mut entries = std::mem::take(&mut self.entries);
        if self.shards.len() > 1 {
            limit(&mut entries, self.max_bytes);
        }
        let here = call.facts().node;
        let mut rows = Vec::with_capacity(entries.len());
        let mut shown = Vec::with_capacity(entries.len());
        for entry in entries {
            let partition = fetched(entry.key.index, entry.result, self.committed_only, here);
            shown.push((entry.key.clone(), entry.wanted, shows(&partition)));
            rows.push((entry.key.topic, partition));
        }
        for (_, partition) in &rows {
            call.shared.answered.error(self.asked.api, partition.error_code);
        }
        let now = call.now();
        let Call { shared, engine, .. } = &mut *call;
        let (session_id, included) = shared.sessions.end(self.kind, &shown, now, || engine.entropy());
        call.session = (session_id != 0).then_some(session_id);
        let rows: Vec<_> = rows.into_iter().zip(included).filter_map(|(row, is_included)| is_included.then_some(row)).collect();
        let leaders: Vec<i32> = rows.iter().filter_map(|(_, partition)| partition.current_leader).map(|leader| leader.leader_id).collect();
        let nodes = call.shared.listeners.nodes(call.meta(), here, call.listener);
        let named: Vec<NodeAddress<'_>> = nodes.into_iter().filter(|node| leaders.contains(&node.node)).collect();
        respond(self.asked, session_id, rows, &named)
    }
}

impl Pending for Fetching {
    fn replied(&mut self, call: &mut Call<'_, '_>, part: u32, reply: Reply) -> Option<Answer> {
        let at = (part / 2) as usize;
        if at >= self.shards.len() || part != self.part(at) || !self.shards[at].is_asked {
            return None;
        }
        let Reply::Read(results) = reply else { return Some(refuse(self.asked, ErrorCode::UnknownServerError)) };
        self.store(at, results);
        let is_complete = self.shards.iter().all(|read| !read.is_asked);
        match self.phase {
            Phase::Look if !is_complete => return None,
            Phase::Look if !self.is_enough(call.now()) => {
                self.phase = Phase::Wait;
                (0..self.shards.len()).for_each(|at| self.wait(call, at));
                return None;
            }
            // Who comes with less than it was to wait for has another reason.
            Phase::Wait if self.shards[at].bytes >= self.shards[at].min_bytes && !self.is_enough(call.now()) => {
                self.wait(call, at);
                return None;
            }
            Phase::Wait if !is_complete => {
                self.stop_others(call);
                return None;
            }
            Phase::Stop if !is_complete => return None,
            _ => {}
        }
        Some(self.answer(call))
    }

    fn cancelled(&mut self, call: &mut Call<'_, '_>) {
        if self.phase == Phase::Wait {
            self.stop_others(call);
        }
    }
}

/// Cuts what several shards gave, each within the limit, to the limit of them all. The first batch of all stays whole.
fn limit(entries: &mut [Entry], max_bytes: usize) {
    let mut left = max_bytes;
    let mut is_first = true;
    for entry in entries {
        let EntryResult::Read(Ok(data)) = &mut entry.result else { continue };
        if data.bytes() > left {
            data.batches = whole_batches(std::mem::take(&mut data.batches), left, is_first);
        }
        left = left.saturating_sub(data.bytes());
        is_first &= data.batches.is_empty();
    }
}

/// The longest run of whole batches from the front that fits into `max` bytes; with `one_at_least` never less than one.
fn whole_batches(batches: Vec<Slice>, max: usize, one_at_least: bool) -> Vec<Slice> {
    let total: usize = batches.iter().map(|slice| slice.len()).sum();
    let mut end = 0;
    while let Some(size) = batch_size(&batches, end) {
        let next = end + size;
        let is_allowed = next <= max || (one_at_least && end == 0);
        if next > total || !is_allowed {
            break;
        }
        end = next;
    }
    let mut left = end;
    let mut kept = Vec::new();
    for slice in batches {
        let len = slice.len().min(left);
        if len == 0 {
            break;
        }
        left -= len;
        kept.push(slice.sub(0..len));
    }
    kept
}

/// The size of the batch that begins at byte `at` of all slices together.
fn batch_size(slices: &[Slice], at: usize) -> Option<usize> {
    let bytes = bytes_at::<4>(slices, at + place::LENGTH)?;
    usize::try_from(i32::from_be_bytes(bytes)).ok().map(|length| length + LENGTH_OVERHEAD)
}

fn bytes_at<const N: usize>(slices: &[Slice], at: usize) -> Option<[u8; N]> {
    let mut found = [0; N];
    let (mut skip, mut filled) = (at, 0);
    for slice in slices {
        let from = slice.get(skip.min(slice.len())..).unwrap_or_default();
        skip = skip.saturating_sub(slice.len());
        let take = from.len().min(N - filled);
        found[filled..filled + take].copy_from_slice(&from[..take]);
        filled += take;
    }
    (filled == N).then_some(found)
}

fn fetched(index: i32, result: EntryResult, committed_only: bool, here: NodeId) -> FetchedPartition<Slice> {
    let empty = FetchedPartition { index, aborted_transactions: committed_only.then(Vec::new), ..FetchedPartition::default() };
    let data = match result {
        EntryResult::Refused(code) => return FetchedPartition { error_code: code.code(), ..empty },
        EntryResult::Missing => return FetchedPartition { error_code: ErrorCode::UnknownServerError.code(), ..empty },
        EntryResult::Read(Err(error)) => return refused(&error, empty, here),
        EntryResult::Read(Ok(data)) => data,
    };
    let known =
        FetchedPartition { high_watermark: data.commit, last_stable_offset: data.stable, log_start_offset: data.log_start, ..empty };
    if let Some(diverging) = data.diverging {
        let end = EpochEnd { epoch: diverging.epoch, end_offset: diverging.end };
        return FetchedPartition { diverging_epoch: Some(end), ..known };
    }
    FetchedPartition { records: data.batches, ..known }
}

fn refused(error: &ReadError, empty: FetchedPartition<Slice>, here: NodeId) -> FetchedPartition<Slice> {
    let error_code = errors::of_read(error).0.code();
    let leader = |leader_id, leader_epoch| Some(CurrentLeader { leader_id, leader_epoch });
    match error {
        ReadError::OutOfRange { log_start, commit } => {
            FetchedPartition { error_code, high_watermark: *commit, last_stable_offset: *commit, log_start_offset: *log_start, ..empty }
        }
        ReadError::NotLeader { leader: node, epoch } => {
            FetchedPartition { error_code, current_leader: leader(node.unwrap_or(-1), *epoch), ..empty }
        }
        ReadError::EpochFenced { current } => FetchedPartition { error_code, current_leader: leader(here, *current), ..empty },
        ReadError::UnknownPartition
        | ReadError::EpochUnknown { .. }
        | ReadError::NotAvailable
        | ReadError::CompactedOnly
        | ReadError::Storage { .. } => FetchedPartition { error_code, ..empty },
    }
}

fn shows(partition: &FetchedPartition<Slice>) -> Shown {
    Shown {
        is_error: partition.error_code != 0,
        has_records: !partition.records.is_empty(),
        is_diverging: partition.diverging_epoch.is_some(),
        high_watermark: partition.high_watermark,
        log_start: partition.log_start_offset,
    }
}

/// Consecutive partitions of a topic stand under one topic; a topic may come twice, since the order is the request's.
fn respond(asked: Asked, session_id: i32, rows: Vec<(TopicKey, FetchedPartition<Slice>)>, nodes: &[NodeAddress<'_>]) -> Answer {
    let mut groups: Vec<(TopicKey, Vec<FetchedPartition<Slice>>)> = Vec::new();
    for (key, partition) in rows {
        match groups.last_mut() {
            Some((last, partitions)) if *last == key => partitions.push(partition),
            _ => groups.push((key, vec![partition])),
        }
    }
    let (keys, partitions): (Vec<TopicKey>, Vec<Vec<FetchedPartition<Slice>>>) = groups.into_iter().unzip();
    let topics = keys.iter().zip(partitions).map(|(key, partitions)| named_topic(key, partitions)).collect();
    let node_endpoints = nodes.iter().map(endpoint).collect();
    encode(asked, FetchResponse { throttle_time_ms: 0, error_code: 0, session_id, topics, node_endpoints })
}

fn named_topic(key: &TopicKey, partitions: Vec<FetchedPartition<Slice>>) -> FetchedTopic<'_, Slice> {
    match key {
        TopicKey::Name(name) => FetchedTopic { name, topic_id: Uuid::ZERO, partitions },
        TopicKey::Id(id) => FetchedTopic { name: "", topic_id: *id, partitions },
    }
}

fn endpoint<'n>(node: &NodeAddress<'n>) -> NodeEndpoint<'n> {
    NodeEndpoint { node_id: node.node, host: node.host, port: i32::from(node.port), rack: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::batch::Builder;
    use millrace_io::Pool;

    fn batch(codec: u8, value: usize) -> Vec<u8> {
        let mut builder = Builder::new(1);
        builder.push(1, None, Some(&vec![7; value]));
        let mut bytes = builder.finish();
        bytes[place::ATTRIBUTES + 1] = codec;
        bytes
    }

    /// The bytes in slices of so many.
    fn slices(bytes: &[u8], sizes: usize) -> Vec<Slice> {
        let mut space = Pool::new(0).take(bytes.len());
        bytes.chunks(sizes).map(|chunk| space.push(chunk)).collect()
    }

    fn length(slices: &[Slice]) -> usize {
        slices.iter().map(|slice| slice.len()).sum()
    }

    #[test]
    fn only_whole_batches_fit_wherever_slices_are_cut() {
        let one = batch(0, 100).len();
        let bytes = [batch(0, 100), batch(0, 100), batch(0, 100)].concat();
        for sizes in [1, 7, one, one + 3, bytes.len()] {
            let cut = |max, first| length(&whole_batches(slices(&bytes, sizes), max, first));
            assert_eq!(cut(bytes.len(), false), bytes.len());
            assert_eq!(cut(bytes.len() - 1, false), 2 * one);
            assert_eq!(cut(one, false), one);
            assert_eq!(cut(one - 1, false), 0);
            assert_eq!(cut(0, true), one);
        }
    }

    #[test]
    fn the_limit_of_all_holds_in_request_order_and_the_first_batch_is_whole() {
        let one = batch(0, 100);
        let entry = |n: usize| {
            let data = ReadData { batches: slices(&one.repeat(n), one.len()), ..ReadData::default() };
            let wanted = Wanted { offset: 0, max_bytes: 0, current_epoch: -1, last_read_epoch: -1 };
            let key = PartKey { topic: TopicKey::Name("t".into()), index: 0 };
            Entry { key, wanted, result: EntryResult::Read(Ok(data)) }
        };
        let after = |counts: &[usize], max: usize| -> Vec<usize> {
            let mut entries: Vec<Entry> = counts.iter().map(|n| entry(*n)).collect();
            limit(&mut entries, max);
            let bytes = |entry: &Entry| match &entry.result {
                EntryResult::Read(Ok(data)) => data.bytes() / one.len(),
                _ => 99,
            };
            entries.iter().map(bytes).collect()
        };
        assert_eq!(after(&[2, 3, 1], 4 * one.len()), [2, 2, 0]);
        assert_eq!(after(&[2, 3, 1], 0), [1, 0, 0]);
        assert_eq!(after(&[0, 3, 1], 10), [0, 1, 0]);
        assert_eq!(after(&[1, 1], 100 * one.len()), [1, 1]);
    }

    #[test]
    fn a_partition_named_again_counts_once_where_it_came_first_and_as_it_came_last() {
        let named = |parts: &[(&str, i32, i64)]| -> Vec<(PartKey, Wanted)> {
            let one = |(name, index, offset): &(&str, i32, i64)| {
                let wanted = Wanted { offset: *offset, max_bytes: 0, current_epoch: -1, last_read_epoch: -1 };
                (PartKey { topic: TopicKey::Name((*name).into()), index: *index }, wanted)
            };
            parts.iter().map(one).collect()
        };
        let check = |parts: &[(&str, i32, i64)], expected: &[(&str, i32, i64)]| {
            let mut wanted = named(parts);
            without_repeats(&mut wanted);
            assert_eq!(wanted, named(expected));
        };
        check(&[], &[]);
        check(&[("a", 0, 1), ("a", 1, 2), ("b", 0, 3)], &[("a", 0, 1), ("a", 1, 2), ("b", 0, 3)]);
        check(&[("b", 1, 1), ("a", 0, 2), ("b", 1, 3), ("b", 0, 4), ("b", 1, 5)], &[("b", 1, 5), ("a", 0, 2), ("b", 0, 4)]);
    }

    #[test]
    fn errors_carry_what_helps_the_client() {
        let out = fetched(3, EntryResult::Read(Err(ReadError::OutOfRange { log_start: 5, commit: 9 })), true, 1);
        assert_eq!((out.index, out.error_code, out.log_start_offset, out.high_watermark), (3, 1, 5, 9));
        assert_eq!(out.aborted_transactions, Some(vec![]));
        let out = fetched(0, EntryResult::Read(Err(ReadError::EpochFenced { current: 4 })), false, 7);
        assert_eq!(out.current_leader, Some(CurrentLeader { leader_id: 7, leader_epoch: 4 }));
        assert_eq!(out.aborted_transactions, None);
    }

    #[test]
    fn fetches_that_wait_are_bounded_and_small_ones_wait_in_any_case() {
        let waiting = WaitingPartitions::default();
        let most = waiting.count(WAITING_PARTITIONS_MAX).expect("there are none yet");
        assert!(waiting.count(FEW_PARTITIONS + 1).is_none());
        let few = waiting.count(FEW_PARTITIONS);
        assert!(few.is_some());
        drop((most, few));
        assert!(waiting.count(WAITING_PARTITIONS_MAX).is_some());
    }
}
