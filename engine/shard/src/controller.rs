//! Replica set 0 on the shard that leads it: requests become commands, commands are committed, then every shard applies them.
//!
//! 1. Changes wait in a queue; one is in progress at a time, so that each is checked against the state that all before it made.
//! 2. A change is checked, becomes a command, and is appended to set 0's log as a batch of one record.
//! 3. When it is committed, the command goes to every shard, this one included; each applies it to its own copy.
//! 4. When all have, and new partitions have leaders, the change is answered and the next begins.
//!
//! Invariants: commands are applied on every shard in the order committed; a change is answered after every shard has applied it.
//! Knows nothing of protocols; the append and the broadcast are the engine's.

use crate::api::{MetaChange, MetaDone, MetaRefusal, Reply};
use millrace_base::ids::{PartitionId, ShardId, TopicId};
use millrace_state::meta::{Command, Effect, Live, Meta, Request};
use std::collections::{BTreeSet, VecDeque};

/// A request and how far it is.
struct Job {
    from: ShardId,
    ticket: u64,
    waiting: VecDeque<MetaChange>,
    results: Vec<Result<MetaDone, MetaRefusal>>,
}

/// The change in progress.
enum Progress {
    Nothing,
    /// Checked; being appended.
    Proposed,
    /// In the log; it is applied when it is committed.
    Appended,
    /// So many shards have not applied it, and these partitions have no leader yet.
    Applying {
        shards: usize,
        partitions: BTreeSet<PartitionId>,
        done: MetaDone,
    },
}

/// What is to be done for the queue.
pub enum Next {
    Nothing,
    /// Append this command to set 0; then call [`Controller::appended`] or [`Controller::refused`].
    Append(Command),
    Reply {
        to: ShardId,
        ticket: u64,
        reply: Reply,
    },
}

/// What the controller adds to requests.
pub struct Defaults {
    pub partitions: u32,
    pub replication_factor: u16,
    /// Data directories that take new partitions.
    pub live: Live,
    /// The largest producer id that any partition had seen at the start; -1: none.
    pub producer_id_seen: i64,
}

/// The queue of changes, on the shard that leads set 0.
pub struct Controller {
    jobs: VecDeque<Job>,
    progress: Progress,
    shards: usize,
}

impl Controller {
    pub fn new(shards: u16) -> Controller {
        Controller { jobs: VecDeque::new(), progress: Progress::Nothing, shards: usize::from(shards) }
    }

    pub fn request(&mut self, from: ShardId, ticket: u64, changes: Vec<MetaChange>) {
        self.jobs.push_back(Job { from, ticket, waiting: changes.into(), results: Vec::new() });
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Goes on with the queue; to be called until it gives [`Next::Nothing`]. `fresh` gives ids that no topic has.
    pub fn next(&mut self, meta: &Meta, defaults: &Defaults, fresh: &mut dyn FnMut() -> TopicId) -> Next {
        if !matches!(self.progress, Progress::Nothing) {
            return Next::Nothing;
        }
        let Some(job) = self.jobs.front_mut() else { return Next::Nothing };
        while let Some(mut change) = job.waiting.pop_front() {
            fill_in(&mut change.request, defaults, fresh);
            match meta.check(&change.request) {
                Ok(command) if !change.validate_only => {
                    self.progress = Progress::Proposed;
                    return Next::Append(command);
                }
                Ok(command) => job.results.push(Ok(would_be(&command))),
                Err(error) => job.results.push(Err(MetaRefusal::Refused(error))),
            }
        }
        match self.jobs.pop_front() {
            Some(job) => Next::Reply { to: job.from, ticket: job.ticket, reply: Reply::Meta(job.results) },
            None => Next::Nothing,
        }
    }

    /// The command that [`Controller::next`] gave is in the log.
    pub fn appended(&mut self) {
        assert!(matches!(self.progress, Progress::Proposed));
        self.progress = Progress::Appended;
    }

    /// The command could not be appended.
    pub fn refused(&mut self, reason: String) {
        assert!(matches!(self.progress, Progress::Proposed));
        self.end_change(Err(MetaRefusal::Unavailable { reason }));
    }

    /// The committed command was applied here with these effects, and sent to all other shards.
    pub fn applying(&mut self, command: &Command, effects: &[Effect], nodes_partitions: impl Fn(&PartitionId) -> bool) {
        let mut partitions = BTreeSet::new();
        let mut done = would_be(command);
        let mut refused = None;
        for effect in effects {
            match effect {
                Effect::PartitionCreated { partition, .. } if nodes_partitions(partition) => {
                    partitions.insert(*partition);
                }
                Effect::ProducerIdBlock { start, len } => done = MetaDone::ProducerIds { first: *start, count: *len },
                Effect::Refused { error } => refused = Some(error.clone()),
                _ => {}
            }
        }
        match refused {
            Some(error) => self.end_change(Err(MetaRefusal::Refused(error))),
            None => self.progress = Progress::Applying { shards: self.shards - 1, partitions, done },
        }
        self.try_end();
    }

    /// Another shard has applied the command.
    pub fn applied(&mut self) {
        if let Progress::Applying { shards, .. } = &mut self.progress {
            *shards -= 1;
        }
        self.try_end();
    }

    /// A partition has a leader, or will have none (its directory is gone).
    pub fn led(&mut self, partition: PartitionId) {
        if let Progress::Applying { partitions, .. } = &mut self.progress {
            partitions.remove(&partition);
        }
        self.try_end();
    }

    fn try_end(&mut self) {
        if let Progress::Applying { shards: 0, partitions, done } = &self.progress
            && partitions.is_empty()
        {
            let done = done.clone();
            self.end_change(Ok(done));
        }
    }

    fn end_change(&mut self, result: Result<MetaDone, MetaRefusal>) {
        self.progress = Progress::Nothing;
        if let Some(job) = self.jobs.front_mut() {
            job.results.push(result);
        }
    }
}

fn would_be(command: &Command) -> MetaDone {
    match command {
        Command::CreateTopic { topic, directories, .. } => MetaDone::TopicCreated { topic: *topic, partitions: directories.len() as u32 },
        _ => MetaDone::Changed,
    }
}

/// What is the controller's to say.
fn fill_in(request: &mut Request, defaults: &Defaults, fresh: &mut dyn FnMut() -> TopicId) {
    match request {
        Request::CreateTopic { topic, default_partitions, default_replication_factor, live, internal, .. } => {
            *topic = fresh();
            *default_partitions = defaults.partitions;
            *default_replication_factor = defaults.replication_factor;
            live.clone_from(&defaults.live);
            if *internal {
                // Groups shall not fail because clients have made too many partitions.
                live.partitions_max = usize::MAX;
            }
        }
        Request::CreatePartitions { live, .. } => live.clone_from(&defaults.live),
        Request::AllocateProducerIds { seen, .. } => *seen = defaults.producer_id_seen,
        Request::RegisterNode(_)
        | Request::DeleteTopic { .. }
        | Request::AlterTopicConfigs { .. }
        | Request::AlterNodeConfigs { .. }
        | Request::SetFeatureLevel { .. }
        | Request::SetClusterId { .. } => {}
    }
}
