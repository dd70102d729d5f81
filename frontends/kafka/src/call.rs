//! One request on its way: what its handler is given, what it gives back, and how it waits.
//!
//! 1. A handler gets a [`Call`] and returns an [`Outcome`]: the answer, or a [`Pending`] that names what is missing.
//! 2. A call's requests to shards carry tokens made of the call's id and a part number of the handler's choice; a reply finds the pending
//!    handler by the first and its place in it by the second.
//! 3. When the last part is there (or the time is up) the pending handler gives the answer.
//!
//! Invariants: a call is answered once; part < [`PARTS_MAX`]; ids are never reused, so a late reply finds nobody.
//! Knows nothing of sockets and of what the APIs mean.

use bytes::Bytes;
use kafka_protocol::protocol::Encodable;
use millrace_base::clock::Nanos;
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::settings::Settings;
use millrace_io::Slice;
use millrace_shard::api::{DataDirectory, Leadership, NodeFacts, Reply, Request};
use millrace_shard::state::meta::Meta;

use crate::answered::Answered;
use crate::apis::api_01_fetch::WaitingPartitions;
use crate::engine::Engine;
use crate::fetch_session::Sessions;
use crate::listener::Listeners;
use crate::producer_ids::ProducerIds;
use crate::wire::fetch_response::Part;
use crate::wire::response::{self, EncodeError};
use crate::wire::table::Api;

/// Names one request of one connection among all of this shard, for ever.
pub type CallId = u64;

const PART_BITS: u32 = 20;

/// Parts of one call are numbered below this.
pub const PARTS_MAX: u32 = 1 << PART_BITS;

/// The call and the part that a token was made of.
pub fn split_token(token: u64) -> (CallId, u32) {
    (token >> PART_BITS, (token & u64::from(PARTS_MAX - 1)) as u32)
}

/// The token of one part of a call.
pub fn token(call: CallId, part: u32) -> u64 {
    assert!(part < PARTS_MAX);
    (call << PART_BITS) | u64::from(part)
}

/// What a client asked, as far as its answer's form depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    pub api: Api,
    pub version: i16,
    pub correlation_id: i32,
}

impl Asked {
    /// The answer with this body, which must be the response struct of the API.
    pub fn answer<M: Encodable>(&self, body: &M) -> Answer {
        Answer::from_frame(response::encode(self.api, self.version, self.correlation_id, body))
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    /// A whole frame.
    Frame(Bytes),
    /// A frame in parts.
    Parts(Vec<Part<Slice>>),
    /// The client expects none (acks=0).
    Nothing,
    /// The connection is closed, with this reason in the log.
    Close(String),
}

impl Answer {
    pub fn bytes(&self) -> usize {
        match self {
            Answer::Frame(frame) => frame.len(),
            Answer::Parts(parts) => parts.iter().map(Part::len).sum(),
            Answer::Nothing | Answer::Close(_) => 0,
        }
    }

    /// An answer that cannot be encoded is a fault of ours; the client can only be cut off.
    pub fn from_frame(frame: Result<Bytes, EncodeError>) -> Answer {
        match frame {
            Ok(frame) => Answer::Frame(frame),
            Err(error) => Answer::Close(error.to_string()),
        }
    }
}

/// What a handler gives back.
pub enum Outcome {
    Done(Answer),
    Wait(Box<dyn Pending>),
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Outcome {
        Outcome::Done(answer)
    }
}

/// A handler that waits for replies.
pub trait Pending: Send {
    /// A part has been answered. The call's answer, if that was all.
    fn replied(&mut self, call: &mut Call<'_, '_>, part: u32, reply: Reply) -> Option<Answer>;

    /// A time that the handler asked for has come.
    fn timer(&mut self, call: &mut Call<'_, '_>) -> Option<Answer> {
        let _ = call;
        None
    }

    /// Another call of this shard has brought what this one waits for.
    fn woken(&mut self, call: &mut Call<'_, '_>) -> Option<Answer> {
        let _ = call;
        None
    }

    /// The connection is gone: whatever waits elsewhere for this call should stop.
    fn cancelled(&mut self, call: &mut Call<'_, '_>) {
        let _ = call;
    }
}

/// What the calls of one shard share.
pub struct Shared {
    pub listeners: Listeners,
    pub sessions: Sessions,
    pub producer_ids: ProducerIds,
    pub waiting_partitions: WaitingPartitions,
    /// It is not said before that groups cannot be served.
    pub warn_of_groups_at: Nanos,
    /// Calls to be told [`Pending::woken`].
    pub wake: Vec<CallId>,
    pub answered: Answered,
}

/// One request and what its handler may use.
pub struct Call<'c, 'a> {
    pub id: CallId,
    pub asked: Asked,
    /// Index of the listener on which the connection came in.
    pub listener: usize,
    /// The client's address as Kafka shows it: `/127.0.0.1`.
    pub host: &'c str,
    pub shared: &'c mut Shared,
    /// The shard that owns all partitions of a produce or fetch, for [`crate::affinity`].
    pub owner: Option<ShardId>,
    /// The fetch session that was used, so that it can move with the connection.
    pub session: Option<i32>,
    /// When [`Pending::timer`] is to be called; forgotten when the call ends first.
    pub timer: Option<Nanos>,
    pub(crate) engine: &'c mut (dyn Engine<'a> + 'c),
}

impl<'c, 'a> Call<'c, 'a> {
    pub fn new(
        id: CallId,
        asked: Asked,
        listener: usize,
        host: &'c str,
        shared: &'c mut Shared,
        engine: &'c mut (dyn Engine<'a> + 'c),
    ) -> Call<'c, 'a> {
        Call { id, asked, listener, host, shared, owner: None, session: None, timer: None, engine }
    }

    pub fn version(&self) -> i16 {
        self.asked.version
    }

    pub fn now(&self) -> Nanos {
        self.engine.now()
    }

    pub fn shard(&self) -> ShardId {
        self.engine.shard()
    }

    pub fn facts(&self) -> &'a NodeFacts {
        self.engine.facts()
    }

    pub fn settings(&self) -> &'a Settings {
        self.engine.settings()
    }

    pub fn meta(&self) -> &'a Meta {
        self.engine.meta()
    }

    pub fn owner_of(&self, partition: PartitionId) -> ShardId {
        partition.shard(self.facts().shards)
    }

    pub fn leader(&self, partition: PartitionId) -> Option<Leadership> {
        self.engine.leader(partition)
    }

    /// The data directories of this node.
    pub fn directories(&mut self) -> Vec<DataDirectory> {
        self.engine.directories()
    }

    /// Asks a shard; the reply comes with `part`.
    pub fn submit(&mut self, to: ShardId, part: u32, request: Request) {
        self.engine.submit(to, token(self.id, part), request);
    }

    pub fn entropy(&mut self) -> u64 {
        self.engine.entropy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_call_and_part() {
        for (call, part) in [(0, 0), (1, PARTS_MAX - 1), (1 << 40, 7)] {
            assert_eq!(split_token(token(call, part)), (call, part));
        }
    }
}
