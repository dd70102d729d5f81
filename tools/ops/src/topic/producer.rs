//! Batches on their way to the leaders of a topic's partitions, one for each partition at a time.
//!
//! 1. With acks=all the producer asks for a producer id and numbers the records of each partition: a broker that has a batch already says so,
//!    or just acknowledges it, when it is sent again after an answer was lost.
//! 2. What failed with what may pass is sent again, the same bytes.
//!
//! Invariants: a partition's next batch is made after the one before it is acknowledged, so no number is left out.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use millrace_base::batch::sequence_after;

use crate::client::{Client, NEWEST, To, topic_name};
use crate::failure::{Failure, Kind, Outcome};
use crate::offsets::Place;
use crate::records::{Codec, Numbering, Packer};

/// Version 13 knows topics by their id alone.
const PRODUCE: i16 = 12;
/// Transactions alone have a timeout; the field has to be there.
const NO_TRANSACTION_MS: i32 = 60_000;

/// Who has a record before it counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    None,
    Leader,
    All,
}

pub struct Producer {
    client: Client,
    topic: String,
    codec: Codec,
    acks: Acks,
    /// Id and epoch.
    numbered: Option<(i64, i16)>,
    /// The number of each partition's next record.
    next: BTreeMap<i32, i32>,
}

impl Producer {
    /// With `is_idempotent` batches are numbered, if acks=all.
    ///
    /// # Errors
    /// The cluster gives no producer id.
    pub fn new(mut client: Client, topic: String, codec: Codec, acks: Acks, is_idempotent: bool) -> Outcome<Producer> {
        let numbered = if acks == Acks::All && is_idempotent { Some(client.retrying(init)?) } else { None };
        Ok(Producer { client, topic, codec, acks, numbered, next: BTreeMap::new() })
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Sends the records of each partition, and waits until they are acknowledged.
    ///
    /// # Errors
    /// A partition has refused them, or nobody leads it for too long.
    pub fn send(&mut self, packers: BTreeMap<i32, Packer>) -> Outcome<()> {
        let mut things: Vec<(Place, Vec<u8>)> = Vec::new();
        for (partition, packer) in packers.into_iter().filter(|(_, packer)| !packer.is_empty()) {
            let next = self.next.entry(partition).or_insert(0);
            let numbering = self.numbered.map(|(id, epoch)| Numbering { id, epoch, first: *next });
            *next = sequence_after(*next, packer.count());
            things.push(((self.topic.clone(), partition), packer.finish(self.codec, numbering)?));
        }
        if things.is_empty() {
            return Ok(());
        }
        let acks = self.acks;
        let results = self.client.each(&things, |client, things| produce(client, things, acks))?;
        results.into_iter().collect()
    }
}

fn init(client: &mut Client) -> Outcome<(i64, i16)> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(NO_TRANSACTION_MS)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let answer = client.call(To::Any, NEWEST, |_| request).map_err(|failure| match failure.is_retriable() {
        true => failure,
        false => failure.with_hint("--no-idempotence does without producer ids"),
    })?;
    Failure::check("a producer id", answer.error_code, None)?;
    Ok((answer.producer_id.0, answer.producer_epoch))
}

fn produce(client: &mut Client, things: &[(Place, Vec<u8>)], acks: Acks) -> Outcome<Vec<Outcome<()>>> {
    let timeout = i32::try_from(client.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
    let led = client.by_leader(things, |((topic, partition), _)| (topic, *partition))?;
    let mut results: Vec<Outcome<()>> = things.iter().map(|_| Err(Failure::new(Kind::Failed, "no answer"))).collect();
    led.without.into_iter().for_each(|(at, failure)| results[at] = Err(failure));
    for (node, things) in led.nodes {
        let name = topic_name(&things[0].1.0.0);
        let places: Vec<(usize, Place)> = things.iter().map(|(at, (place, _))| (*at, place.clone())).collect();
        let part = |(_, ((_, partition), batch)): (usize, (Place, Vec<u8>))| {
            PartitionProduceData::default().with_index(partition).with_records(Some(batch.into()))
        };
        let topic = TopicProduceData::default().with_name(name).with_partition_data(things.into_iter().map(part).collect());
        let number = match acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let request = ProduceRequest::default().with_acks(number).with_timeout_ms(timeout).with_topic_data(vec![topic]);
        if acks == Acks::None {
            let told = client.tell(To::Node(node), PRODUCE, &request);
            places.iter().for_each(|(at, _)| results[*at] = told.clone());
            continue;
        }
        let answer = client.call(To::Node(node), PRODUCE, |_| request);
        for (at, (topic, partition)) in places {
            let subject = format!("{topic}-{partition}");
            let found = answer.as_ref().map_err(Clone::clone).map(|answer| {
                let mut parts = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
                parts.find(|found| found.index == partition)
            });
            results[at] = match found {
                // It was acknowledged once, and that answer was lost.
                Ok(Some(found)) if found.error_code == ResponseError::DuplicateSequenceNumber.code() => Ok(()),
                Ok(Some(found)) => Failure::check(&subject, found.error_code, found.error_message.as_ref().map(|text| text.as_str())),
                Ok(None) => Err(Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out"))),
                Err(failure) => Err(failure),
            };
        }
    }
    Ok(results)
}
