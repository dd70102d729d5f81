//! Produce.
//!
//! v3 is the lowest with batches of magic 2 (0 to 2 are advertised, not served); v5 log start offset; v7 zstd allowed; v8 record errors and
//! a message; v10 leader hints (KIP-951); v12 transactions add partitions implicitly; v13 topic ids.
//!
//! 1. `acks` is -1, 0 or 1; there is no transactional id.
//! 2. Each partition exists, is no internal topic's, and holds exactly one batch of magic 2 whose CRC and counts are right; codec zstd only
//!    from v7; no control and no transactional batch. The records of an uncompressed one are walked: they are as many, as long and numbered as
//!    it says.
//! 3. The batches go, uncopied, to the shards that own the partitions, one request each; all leave at once, so that requests of a connection
//!    reach each partition in their order.
//! 4. Partitions are answered in the request's order. With acks=0 nothing is answered, and an error closes the connection.
//!
//! Transactions are not served yet, and a client must not try again: TRANSACTIONAL_ID_AUTHORIZATION_FAILED is what librdkafka, Java and kafkajs
//! all take as fatal at every step of a transactional producer (librdkafka retries most other codes for ever).
//!
//! A single replica is synced in about a millisecond, which Kafka counts as no wait at all: a timeout below [`TIMEOUT_MS_MIN`] is read as that.

use std::collections::BTreeMap;

use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::{LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse};
use millrace_base::batch::{self, Header};
use millrace_base::clock::WallMs;
use millrace_base::ids::{NodeId, PartitionId, ShardId};
use millrace_base::limits::BATCH_BYTES_MAX;
use millrace_base::offset::Epoch;
use millrace_base::record_walk::{self, Walked};
use millrace_io::Slice;
use millrace_shard::api::{Acks, Produce, ProduceError, ProducePart, Produced, Reply, Request};
use millrace_shard::state::meta::{Meta, is_internal};

use crate::authorize::{Operation, Resource, is_allowed};
use crate::call::{Answer, Asked, Call, Outcome, Pending};
use crate::errors::{self, Refusal, plain};
use crate::fetch_session::TopicKey;
use crate::names::{self, TopicRef, broker, partition_of, text, topic_name, uuid};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::{PartitionProduceData, ProduceRequest};

/// The least that a client waits for a commit.
const TIMEOUT_MS_MIN: u64 = 1_000;

/// What clients are told about transactions.
pub const NO_TRANSACTIONS: &str = "transactions are not served by this broker yet: use a producer without transactional.id";

const ZSTD: u8 = 4;

/// One partition of the answer.
#[derive(Clone, Debug)]
struct PartResult {
    result: Result<Produced, Refusal>,
    leader: Option<(NodeId, Epoch)>,
}

impl From<Refusal> for PartResult {
    fn from(refusal: Refusal) -> PartResult {
        PartResult { result: Err(refusal), leader: None }
    }
}

impl From<Result<Produced, ProduceError>> for PartResult {
    fn from(result: Result<Produced, ProduceError>) -> PartResult {
        let leader = match &result {
            Err(ProduceError::NotLeader { leader, epoch }) => Some((leader.unwrap_or(-1), *epoch)),
            _ => None,
        };
        PartResult { result: result.map_err(|error| errors::of_produce(&error)), leader }
    }
}

/// A topic of the answer; its partitions are consecutive slots.
struct TopicSlots {
    key: TopicKey,
    indexes: Vec<i32>,
}

struct Producing {
    asked: Asked,
    acks: i16,
    topics: Vec<TopicSlots>,
    slots: Vec<Option<PartResult>>,
    /// By part: the slots that a shard answers.
    asked_of: Vec<Vec<usize>>,
    missing: usize,
}

pub fn handle(call: &mut Call<'_, '_>, request: ProduceRequest<'_>, frame: &Slice) -> Outcome {
    let whole = check_request(&request);
    let uses_ids = call.version() >= 13;
    let mut producing = Producing {
        asked: call.asked,
        acks: request.acks,
        topics: Vec::with_capacity(request.topic_data.len()),
        slots: Vec::new(),
        asked_of: Vec::new(),
        missing: 0,
    };
    let mut by_shard: BTreeMap<ShardId, (Vec<usize>, Vec<ProducePart>)> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for topic in &request.topic_data {
        let named = if uses_ids { TopicRef::Id(topic.topic_id) } else { TopicRef::Name(topic.name) };
        let key = if uses_ids { TopicKey::Id(topic.topic_id) } else { TopicKey::Name(topic.name.into()) };
        let indexes = topic.partition_data.iter().map(|partition| partition.index).collect();
        for data in &topic.partition_data {
            let checked = match &whole {
                Some(refusal) => Err(refusal.clone()),
                None => check_partition(call.meta(), named, data, frame, call.version()),
            };
            let slot = producing.slots.len();
            match checked {
                Ok((partition, batch, checked)) if seen.insert(partition) => {
                    let (slots, parts) = by_shard.entry(call.owner_of(partition)).or_default();
                    slots.push(slot);
                    let Checked { header, min_timestamp, has_null_key } = checked;
                    parts.push(ProducePart { partition, batch, header, min_timestamp, has_null_key });
                    producing.slots.push(None);
                }
                Ok(_) => {
                    let twice: Refusal = (ErrorCode::InvalidRequest, "the partition is named twice in one request".into());
                    producing.slots.push(Some(twice.into()));
                }
                Err(refusal) => producing.slots.push(Some(refusal.into())),
            }
        }
        producing.topics.push(TopicSlots { key, indexes });
    }
    submit(call, &request, &mut producing, by_shard);
    if producing.missing == 0 { Outcome::Done(producing.answer(call)) } else { Outcome::Wait(Box::new(producing)) }
}

fn submit(
    call: &mut Call<'_, '_>,
    request: &ProduceRequest<'_>,
    producing: &mut Producing,
    by_shard: BTreeMap<ShardId, (Vec<usize>, Vec<ProducePart>)>,
) {
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        _ => Acks::All,
    };
    let wait_ms = u64::try_from(request.timeout_ms).unwrap_or(0).max(TIMEOUT_MS_MIN);
    let deadline = call.now().plus_ms(wait_ms);
    producing.missing = by_shard.len();
    call.owner = by_shard.first_key_value().map(|(shard, _)| *shard).filter(|_| by_shard.len() == 1);
    for (part, (shard, (slots, parts))) in (0..).zip(by_shard) {
        producing.asked_of.push(slots);
        call.submit(shard, part, Request::Produce(Produce { parts, acks, deadline }));
    }
}

/// What refuses the request as a whole; it is stated for each partition.
fn check_request(request: &ProduceRequest<'_>) -> Option<Refusal> {
    if request.transactional_id.is_some() {
        return Some((ErrorCode::TransactionalIdAuthorizationFailed, NO_TRANSACTIONS.into()));
    }
    if !(-1..=1).contains(&request.acks) {
        return Some((ErrorCode::InvalidRequiredAcks, format!("acks={} is neither 0, 1 nor -1 (all)", request.acks).into()));
    }
    None
}

/// The partition and its one batch, if it may be appended.
fn check_partition(
    meta: &Meta,
    named: TopicRef<'_>,
    data: &PartitionProduceData,
    frame: &Slice,
    version: i16,
) -> Result<(PartitionId, Slice, Checked), Refusal> {
    let topic = named.find(meta).map_err(plain)?;
    if !is_allowed(Operation::Write, Resource::Topic(&topic.name)) {
        return Err(plain(ErrorCode::TopicAuthorizationFailed));
    }
    let partition = partition_of(topic, data.index).map_err(plain)?;
    let range = data.records.unwrap_or_default();
    let batch = frame.sub(range.offset..range.end());
    let checked = check_batch(&batch, version)?;
    if is_internal(&topic.name) {
        return Err((
            ErrorCode::InvalidTopicException,
            format!("topic '{}' is the broker's own; clients cannot write to it", topic.name).into(),
        ));
    }
    Ok((partition, batch, checked))
}

/// A batch that may be appended.
struct Checked {
    header: Header,
    min_timestamp: WallMs,
    has_null_key: bool,
}

fn check_batch(batch: &[u8], version: i16) -> Result<Checked, Refusal> {
    if batch.is_empty() {
        return Err((ErrorCode::InvalidRecord, "a partition without a record batch".into()));
    }
    if batch.len() > BATCH_BYTES_MAX {
        // Before it is hashed and walked: no topic takes it.
        let told = format!("a batch of {} bytes, of which no topic may take more than {BATCH_BYTES_MAX}", batch.len());
        return Err((ErrorCode::MessageTooLarge, told.into()));
    }
    let header = batch::check(batch).map_err(|error| errors::of_batch(&error))?;
    if header.is_control() {
        return Err((ErrorCode::InvalidRecord, "clients cannot write control batches".into()));
    }
    if header.is_transactional() {
        return Err((ErrorCode::TransactionalIdAuthorizationFailed, NO_TRANSACTIONS.into()));
    }
    match header.codec() {
        ZSTD if version < 7 => {
            Err((ErrorCode::UnsupportedCompressionType, format!("zstd needs Produce 7, this is version {version}").into()))
        }
        0 => {
            let walked = record_walk::check(batch, &header).map_err(|error| errors::of_batch(&error))?;
            let Walked { max_timestamp, min_timestamp, has_null_key } = walked;
            Ok(Checked { header: Header { max_timestamp, ..header }, min_timestamp, has_null_key })
        }
        1..=ZSTD => Ok(Checked { header, min_timestamp: header.base_timestamp, has_null_key: false }),
        codec => Err((ErrorCode::UnsupportedCompressionType, format!("there is no compression codec {codec}").into())),
    }
}

impl Pending for Producing {
    fn replied(&mut self, call: &mut Call<'_, '_>, part: u32, reply: Reply) -> Option<Answer> {
        let slots = std::mem::take(self.asked_of.get_mut(part as usize)?);
        if let Reply::Produced(results) = reply {
            for (slot, result) in slots.into_iter().zip(results) {
                self.slots[slot] = Some(result.into());
            }
        }
        self.missing -= 1;
        (self.missing == 0).then(|| self.answer(call))
    }
}

impl Producing {
    fn answer(&mut self, call: &mut Call<'_, '_>) -> Answer {
        let lost = || PartResult::from(plain(ErrorCode::UnknownServerError));
        let results: Vec<PartResult> = std::mem::take(&mut self.slots).into_iter().map(|slot| slot.unwrap_or_else(lost)).collect();
        for (code, _) in results.iter().filter_map(|result| result.result.as_ref().err()) {
            call.shared.answered.error(self.asked.api, code.code());
        }
        if self.acks == 0 {
            return answer_none(&results);
        }
        let leaders: Vec<NodeId> = results.iter().filter_map(|result| result.leader).map(|(node, _)| node).collect();
        let response = response(&self.topics, results, self.asked.version);
        self.asked.answer(&response.with_node_endpoints(endpoints(call, &leaders)))
    }
}

/// With acks=0 the client hears of an error only by losing its connection.
fn answer_none(results: &[PartResult]) -> Answer {
    match results.iter().find_map(|result| result.result.as_ref().err()) {
        Some((code, message)) => Answer::Close(format!("a produce with acks=0 failed: {} ({message})", code.name())),
        None => Answer::Nothing,
    }
}

fn response(topics: &[TopicSlots], results: Vec<PartResult>, version: i16) -> ProduceResponse {
    let mut results = results.into_iter();
    let topic = |slots: &TopicSlots| {
        let partitions = slots.indexes.iter().zip(results.by_ref()).map(|(index, result)| partition(*index, result, version)).collect();
        let response = TopicProduceResponse::default().with_partition_responses(partitions);
        match &slots.key {
            TopicKey::Name(name) => response.with_name(topic_name(name)),
            TopicKey::Id(id) => response.with_topic_id(uuid(*id)),
        }
    };
    ProduceResponse::default().with_responses(topics.iter().map(topic).collect())
}

fn partition(index: i32, result: PartResult, version: i16) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    let response = match result.result {
        Ok(produced) => {
            let log_start = if version >= 5 { produced.log_start } else { -1 };
            response.with_base_offset(produced.base).with_log_append_time_ms(produced.append_time).with_log_start_offset(log_start)
        }
        Err((code, message)) => response
            .with_error_code(code.code())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1)
            .with_error_message((version >= 8).then(|| names::message(&message))),
    };
    match result.leader {
        Some((node, epoch)) if version >= 10 => {
            response.with_current_leader(LeaderIdAndEpoch::default().with_leader_id(broker(node)).with_leader_epoch(epoch))
        }
        _ => response,
    }
}

/// The addresses of nodes that leader hints name; from v10.
fn endpoints(call: &Call<'_, '_>, leaders: &[NodeId]) -> Vec<NodeEndpoint> {
    if call.version() < 10 || leaders.is_empty() {
        return Vec::new();
    }
    let nodes = call.shared.listeners.nodes(call.meta(), call.facts().node, call.listener);
    let endpoint = |node: &crate::listener::NodeAddress<'_>| {
        NodeEndpoint::default().with_node_id(broker(node.node)).with_host(text(node.host)).with_port(i32::from(node.port))
    };
    nodes.iter().filter(|node| leaders.contains(&node.node)).map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::batch::{Builder, place};
    use millrace_base::crc::crc32c;

    fn batch(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut builder = Builder::new(1000);
        builder.push(1000, Some(b"k"), Some(b"v"));
        let mut bytes = builder.finish();
        change(&mut bytes);
        let crc = crc32c(&bytes[place::ATTRIBUTES..]);
        bytes[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn refused(bytes: &[u8], version: i16) -> ErrorCode {
        check_batch(bytes, version).err().expect("a batch that must be refused").0
    }

    #[test]
    fn batches_are_judged_as_kafka_judges_them() {
        let good = batch(|_| ());
        assert!(check_batch(&good, 3).is_ok());
        assert_eq!(refused(&[], 9), ErrorCode::InvalidRecord);
        assert_eq!(refused(&good[..good.len() - 1], 9), ErrorCode::InvalidRecord);
        assert_eq!(refused(&[good.clone(), good.clone()].concat(), 9), ErrorCode::InvalidRecord);
        assert_eq!(refused(&batch(|b| b[place::MAGIC] = 1), 9), ErrorCode::InvalidRecord);
        let mut torn = good.clone();
        torn[place::RECORDS] ^= 1;
        assert_eq!(refused(&torn, 9), ErrorCode::CorruptMessage);
        assert_eq!(refused(&batch(|b| b[place::COUNT + 3] = 2), 9), ErrorCode::InvalidRecord);
        let lies = batch(|b| (b[place::COUNT + 3], b[place::LAST_OFFSET_DELTA + 3]) = (100, 99));
        assert_eq!(refused(&lies, 9), ErrorCode::InvalidRecord);
        assert_eq!(refused(&batch(|b| b[place::ATTRIBUTES + 1] = 1 << 3), 9), ErrorCode::InvalidTimestamp);
        assert_eq!(refused(&batch(|b| b[place::ATTRIBUTES + 1] = 1 << 5), 9), ErrorCode::InvalidRecord);
        assert_eq!(refused(&batch(|b| b[place::ATTRIBUTES + 1] = 1 << 4), 9), ErrorCode::TransactionalIdAuthorizationFailed);
        assert_eq!(refused(&batch(|b| b[place::ATTRIBUTES + 1] = 4), 6), ErrorCode::UnsupportedCompressionType);
        assert!(check_batch(&batch(|b| b[place::ATTRIBUTES + 1] = 4), 7).is_ok());
        assert_eq!(refused(&batch(|b| b[place::ATTRIBUTES + 1] = 5), 9), ErrorCode::UnsupportedCompressionType);
    }

    #[test]
    fn records_are_walked_for_the_true_max_timestamp_and_null_keys_unless_compressed() {
        let lies = |codec: u8| {
            batch(|b| {
                b[place::MAX_TIMESTAMP + 7] = 0xff;
                b[place::ATTRIBUTES + 1] = codec;
            })
        };
        let checked = check_batch(&lies(0), 9).ok().unwrap();
        assert_eq!((checked.header.max_timestamp, checked.has_null_key), (1000, false));
        assert_ne!(check_batch(&lies(1), 9).ok().unwrap().header.max_timestamp, 1000);
        let mut builder = Builder::new(1000);
        builder.push(1000, None, Some(b"v"));
        assert!(check_batch(&builder.finish(), 9).ok().unwrap().has_null_key);
    }

    #[test]
    fn transactional_ids_and_odd_acks_refuse_the_whole_request_with_a_code_that_is_not_retried() {
        let code = |request: ProduceRequest<'_>| check_request(&request).map(|refusal| refusal.0);
        assert_eq!(code(ProduceRequest { acks: -1, ..Default::default() }), None);
        let odd = code(ProduceRequest { acks: 2, ..Default::default() });
        assert_eq!(odd, Some(ErrorCode::InvalidRequiredAcks));
        let transactional = code(ProduceRequest { transactional_id: Some("t"), acks: 2, ..Default::default() });
        assert_eq!(transactional, Some(ErrorCode::TransactionalIdAuthorizationFailed));
        assert!(!ErrorCode::TransactionalIdAuthorizationFailed.retriable());
    }

    #[test]
    fn without_acks_an_error_closes_and_success_is_silent() {
        let fine = PartResult { result: Ok(Produced { base: 0, append_time: -1, log_start: 0 }), leader: None };
        assert!(matches!(answer_none(std::slice::from_ref(&fine)), Answer::Nothing));
        let failed = PartResult::from(plain(ErrorCode::UnknownTopicOrPartition));
        assert!(matches!(answer_none(&[fine, failed]), Answer::Close(reason) if reason.contains("UNKNOWN_TOPIC")));
    }
}
