//! Produce requests on the owning shard: check, append, wait for the commit, answer.
//!
//! 1. Each part is checked against its partition in protocol order: there, led here, size, timestamps, producer sequence.
//! 2. What passes is appended ([`crate::append`]): it has its offsets, and its bytes are copied once, when the turn's entry is sealed.
//! 3. The request is answered when all its parts are committed or refused; a duplicate waits for the commit of the first copy.
//! 4. When a journal is full, the request and all behind it wait in order until files are free again, or until nobody waits for them any more.
//!
//! Invariants: parts of one partition are appended in the order in which requests came; a part is answered once.
//! Knows nothing of protocols or of how entries are written.

use crate::api::{Acks, Produce, ProduceError, ProducePart, Produced, Reply};
use crate::directory::Health;
use crate::engine::{Engine, Turn};
use crate::partition::{CommitWaiter, Standing, Waiting};
use crate::waits::WaitId;
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::limits::BATCH_BYTES_MAX;
use millrace_base::offset::Offset;
use millrace_base::planted::{Bug, is_planted};
use millrace_log::journal::{NoRoom, Urgency};
use millrace_log::producers::Verdict;
use millrace_state::meta::topic_configs::{TimestampType, TopicConfig};

/// A produce request that waits for commits.
pub struct ProduceWait {
    from: ShardId,
    ticket: u64,
    deadline: Nanos,
    results: Vec<Option<Result<Produced, ProduceError>>>,
    /// Parts that are neither refused nor committed; while parts are still being appended, one more.
    open: usize,
}

/// A produce request that a full journal holds back from its part `next` on.
pub struct Stalled {
    wait: WaitId,
    produce: Produce,
    next: usize,
}

/// What became of a part.
enum Outcome {
    /// In the log; committed when the commit is at `end`.
    Waits {
        end: Offset,
        produced: Produced,
    },
    /// Answered now.
    Done(Produced),
    Refused(ProduceError),
    /// The journal is full: later.
    Stall,
}

impl Engine {
    pub fn produce(&mut self, t: &mut Turn<'_>, from: ShardId, ticket: u64, produce: Produce) {
        let results = produce.parts.iter().map(|_| None).collect();
        let wait = self.produces.insert(ProduceWait { from, ticket, deadline: produce.deadline, results, open: 1 });
        if self.stalled.is_empty() {
            self.append_parts(t, wait, produce, 0);
        } else {
            self.stalled.push_back(Stalled { wait, produce, next: 0 });
        }
    }

    /// Goes on with what a full journal held back.
    pub fn resume_stalled(&mut self, t: &mut Turn<'_>) {
        while let Some(Stalled { wait, produce, next }) = self.stalled.pop_front() {
            let before = self.stalled.len();
            self.append_parts(t, wait, produce, next);
            if self.stalled.len() > before {
                // Held back again; it stands in front of those that came later.
                if let Some(again) = self.stalled.pop_back() {
                    self.stalled.push_front(again);
                }
                return;
            }
        }
    }

    fn append_parts(&mut self, t: &mut Turn<'_>, wait: WaitId, produce: Produce, first: usize) {
        for index in first..produce.parts.len() {
            let part = &produce.parts[index];
            let id = part.partition;
            match self.append_part(t, part, produce.acks) {
                Outcome::Waits { end, produced } => {
                    let early = produce.acks == Acks::None || self.answers_early(id, t.now) || is_planted(Bug::AnswerEarly);
                    self.set_result(wait, index, Ok(produced));
                    if !early && let Some(partition) = self.partitions.get_mut(&id) {
                        partition.wait(CommitWaiter { end, what: Waiting::Produce { wait, part: index } });
                        self.hold(wait);
                    }
                }
                Outcome::Done(produced) => self.set_result(wait, index, Ok(produced)),
                Outcome::Refused(error) => self.set_result(wait, index, Err(error)),
                Outcome::Stall => {
                    self.stalled.push_back(Stalled { wait, produce, next: index });
                    return;
                }
            }
        }
        self.let_go(wait);
    }

    /// Whether what was just appended is answered before it is durable: with `write.caching`, while fewer records than `flush.messages` are
    /// not, and none for as long as `flush.ms`. Everything is synced as soon as the journal's writes allow.
    fn answers_early(&self, id: PartitionId, now: Nanos) -> bool {
        let Some(partition) = self.partitions.get(&id).filter(|partition| partition.config.write_caching) else { return false };
        let records = partition.core.log_end() - partition.core.commit();
        let unsynced = self.directories[usize::from(partition.directory)].unsynced_for(now);
        records < partition.config.flush_messages && unsynced.as_millis() < partition.config.flush_ms as u128
    }

    fn append_part(&mut self, t: &mut Turn<'_>, part: &ProducePart, acks: Acks) -> Outcome {
        let Some(partition) = self.partitions.get(&part.partition) else {
            return Outcome::Refused(ProduceError::UnknownPartition);
        };
        match &partition.standing {
            Standing::Serving => {}
            Standing::Deleting => return Outcome::Refused(ProduceError::UnknownPartition),
            Standing::Damaged { reason } | Standing::Offline { reason } => {
                return Outcome::Refused(ProduceError::Storage { reason: reason.clone() });
            }
        }
        if !partition.core.is_leader() {
            let epoch = partition.core.epoch();
            self.refused_for_now(part, t.now);
            return Outcome::Refused(ProduceError::NotLeader { leader: None, epoch });
        }
        let config = &partition.config;
        if let Err(error) = check_batch(config, part, t.wall, acks) {
            return Outcome::Refused(error);
        }
        let directory = &self.directories[usize::from(partition.directory)];
        if let Health::Failed { reason } = &directory.health {
            return Outcome::Refused(ProduceError::Storage { reason: reason.clone() });
        }
        if directory.full {
            let directory = directory.path.display().to_string();
            self.refused_for_now(part, t.now);
            return Outcome::Refused(ProduceError::DiskFull { directory });
        }
        if partition.store.has_rolls_max() {
            let waiting = partition.store.rolls.len();
            self.refused_for_now(part, t.now);
            let reason =
                format!("{waiting} segments wait to be closed: they hold too few records each, or too many offsets; it may succeed later");
            return Outcome::Refused(ProduceError::Storage { reason });
        }
        let log_start = partition.log_start();
        match partition.producers.check(&part.header) {
            Verdict::Append => {
                if let Some(expected) = partition.awaited.before(&part.header) {
                    return Outcome::Refused(ProduceError::OutOfOrderSequence { expected, found: part.header.base_sequence });
                }
            }
            Verdict::Duplicate { base_offset, end, timestamp, committed } => {
                let append_time = if config.message_timestamp_type == TimestampType::LogAppendTime { timestamp } else { -1 };
                let produced = Produced { base: base_offset, append_time, log_start };
                let committed = committed || is_planted(Bug::AnswerDuplicateEarly);
                return if committed { Outcome::Done(produced) } else { Outcome::Waits { end, produced } };
            }
            Verdict::OutOfOrder { expected } => {
                return Outcome::Refused(ProduceError::OutOfOrderSequence { expected, found: part.header.base_sequence });
            }
            Verdict::Fenced { current_epoch } => {
                return Outcome::Refused(ProduceError::ProducerFenced { current: current_epoch, found: part.header.producer_epoch });
            }
        }
        let stamp = (config.message_timestamp_type == TimestampType::LogAppendTime).then_some(t.wall);
        match self.append_batch(t, part.partition, part.batch.clone(), part.header, stamp, Urgency::Data) {
            Ok((base, end)) => Outcome::Waits { end, produced: Produced { base, append_time: stamp.unwrap_or(-1), log_start } },
            Err(NoRoom::TooLarge) => Outcome::Refused(ProduceError::BatchTooLarge {
                size: part.batch.len(),
                max: BATCH_BYTES_MAX.min(self.directories[0].journal().options().entry_bytes_max),
            }),
            Err(NoRoom::Journal | NoRoom::Entry) => Outcome::Stall,
        }
    }

    /// A part will be sent again, behind others of its producer that are on their way.
    fn refused_for_now(&mut self, part: &ProducePart, now: Nanos) {
        if let Some(partition) = self.partitions.get_mut(&part.partition)
            && !partition.producers.knows(part.header.producer_id)
        {
            partition.awaited.refused(&part.header, now);
        }
    }

    fn set_result(&mut self, wait: WaitId, part: usize, result: Result<Produced, ProduceError>) {
        if let Some(wait) = self.produces.get_mut(wait) {
            wait.results[part] = Some(result);
        }
    }

    fn hold(&mut self, wait: WaitId) {
        if let Some(wait) = self.produces.get_mut(wait) {
            wait.open += 1;
        }
    }

    /// One part less to wait for; with the last the request is answered.
    fn let_go(&mut self, id: WaitId) {
        let Some(wait) = self.produces.get_mut(id) else { return };
        wait.open -= 1;
        if wait.open == 0 {
            self.answer_produce(id);
        }
    }

    fn answer_produce(&mut self, id: WaitId) {
        if let Some(wait) = self.produces.remove(id) {
            let results = wait.results.into_iter().map(|result| result.unwrap_or(Err(ProduceError::TimedOut))).collect();
            self.routes.reply(wait.from, wait.ticket, Reply::Produced(results));
        }
    }

    pub fn produce_committed(&mut self, wait: WaitId) {
        self.let_go(wait);
    }

    /// The batch was in the log of a directory that failed: nobody can say whether it is kept.
    pub fn produce_lost(&mut self, wait: WaitId, part: usize) {
        self.set_result(wait, part, Err(ProduceError::UnknownOutcome));
        self.let_go(wait);
    }

    /// Submitters that do not wait any longer: parts that are not committed are answered as timed out.
    pub fn time_out_produces(&mut self, now: Nanos) {
        for id in self.produces.find(|wait| wait.deadline <= now) {
            self.time_out_produce(id, now);
        }
    }

    fn time_out_produce(&mut self, id: WaitId, now: Nanos) {
        if let Some(at) = self.stalled.iter().position(|stalled| stalled.wait == id) {
            if self.stalled[at].produce.acks == Acks::None {
                return; // nobody would send it again
            }
            // The parts that are in no log yet never will be.
            let stalled = self.stalled.remove(at);
            stalled.iter().flat_map(|stalled| &stalled.produce.parts[stalled.next..]).for_each(|part| self.refused_for_now(part, now));
        }
        let mut waiting = Vec::new();
        for partition in self.partitions.values_mut() {
            partition.waiters.retain(|waiter| match waiter.what {
                Waiting::Produce { wait, part } if wait == id => {
                    waiting.push(part);
                    false
                }
                Waiting::Produce { .. } | Waiting::Coordinator { .. } => true,
            });
        }
        for part in waiting {
            self.set_result(id, part, Err(ProduceError::TimedOut));
        }
        self.answer_produce(id);
    }
}

/// What the topic's settings say of a batch.
fn check_batch(config: &TopicConfig, part: &ProducePart, wall: WallMs, acks: Acks) -> Result<(), ProduceError> {
    let header = &part.header;
    let max = usize::try_from(config.max_message_bytes).unwrap_or(0);
    if header.size > max {
        return Err(ProduceError::BatchTooLarge { size: header.size, max });
    }
    if part.has_null_key && config.cleanup_compact {
        return Err(ProduceError::NullKey);
    }
    if acks == Acks::All && config.min_insync_replicas > 1 {
        return Err(ProduceError::TooFewReplicas { live: 1, needed: config.min_insync_replicas as u32 });
    }
    if config.message_timestamp_type == TimestampType::CreateTime {
        let oldest = wall.saturating_sub(config.message_timestamp_before_max_ms);
        let newest = wall.saturating_add(config.message_timestamp_after_max_ms);
        for found in [part.min_timestamp, header.max_timestamp] {
            if found != -1 && !(oldest..=newest).contains(&found) {
                return Err(ProduceError::Timestamp { found, oldest, newest });
            }
        }
    }
    Ok(())
}
