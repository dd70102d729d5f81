//! The seam between a shard and a protocol: [`Front`] is called by the loop, [`Cx`] is what it may ask.
//!
//! A front lives on every shard, keeps its connections' state there, and never blocks. What it wants of partitions it submits as
//! [`api::Request`]s under a token of its own; replies come back through [`Front::replied`]. A handler that waits for several replies is a
//! struct that names what is missing.
//!
//! Knows nothing of files or of how partitions work.

use crate::api::{self, DataDirectory, Leadership, NodeFacts};
use crate::directory::Directory;
use crate::net::{ConnectionId, Net};
use crate::observe::RequestCounters;
use crate::routes::Routes;
use crate::timers::{TimerFor, TimerKey, Timers};
use crate::visits::Visits;
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::settings::Settings;
use millrace_io::{Driver, Pool, Slice, Space};
use millrace_state::meta::Meta;
use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How long the frame at the front of some bytes is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Too few bytes to say.
    More,
    /// This many, its own length field included.
    Bytes(usize),
    /// These bytes cannot be a frame; the connection is closed with this reason in the log.
    Bad(String),
}

/// One protocol on one shard.
pub trait Front {
    /// Reads a frame's length. Called often; must be cheap.
    fn frame(&self, bytes: &[u8]) -> Frame;

    /// A connection was accepted. `listener` is its index in the front's list.
    fn accepted(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, listener: usize, peer: Option<SocketAddr>);

    /// A whole frame came.
    fn received(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, frame: Slice);

    /// The answer to a request that this front submitted under `token`.
    fn replied(&mut self, cx: &mut Cx<'_>, token: u64, reply: api::Reply);

    /// A time that this front asked for has come.
    fn timer(&mut self, cx: &mut Cx<'_>, token: u64);

    /// Queued bytes of the connection have left; [`Cx::unsent`] says how many are left.
    fn sent(&mut self, cx: &mut Cx<'_>, connection: ConnectionId);

    /// It is the connection's turn: begins one request that came before and waits, if it may begin. Whether one did.
    fn begin(&mut self, cx: &mut Cx<'_>, connection: ConnectionId) -> bool;

    /// The connection is gone; replies for it may still come.
    fn closed(&mut self, cx: &mut Cx<'_>, connection: ConnectionId);

    /// Gives up a quiet connection that is to move to another shard, with all its state; None: not now.
    fn depart(&mut self, connection: ConnectionId) -> Option<Box<dyn Any + Send>>;

    /// What it has answered since the start, a row for each kind of request.
    fn requests(&self) -> Vec<RequestCounters> {
        Vec::new()
    }

    /// Takes a connection in that departed elsewhere.
    fn arrived(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, listener: usize, state: Box<dyn Any + Send>);
}

/// What a front may know and ask during one call.
pub struct Cx<'a> {
    pub now: Nanos,
    pub wall: WallMs,
    pub shard: ShardId,
    pub facts: &'a NodeFacts,
    pub settings: &'a Settings,
    /// Replica set 0 as this shard has applied it.
    pub meta: &'a Meta,
    pub(crate) leaders: &'a BTreeMap<PartitionId, Leadership>,
    pub(crate) directories: &'a [Directory],
    pub(crate) front: usize,
    pub(crate) driver: &'a mut dyn Driver,
    pub(crate) net: &'a mut Net,
    pub(crate) routes: &'a mut Routes,
    pub(crate) timers: &'a mut Timers<TimerFor>,
    pub(crate) answers: &'a Pool,
    pub(crate) visits: &'a mut Visits,
    pub(crate) moves: &'a mut BTreeMap<ConnectionId, ShardId>,
}

impl Cx<'_> {
    /// The shard that owns a partition.
    pub fn owner(&self, partition: PartitionId) -> ShardId {
        partition.shard(self.facts.shards)
    }

    /// Who leads a partition, as far as is known here.
    pub fn leader(&self, partition: PartitionId) -> Option<Leadership> {
        self.leaders.get(&partition).copied()
    }

    /// The data directories of this node. Asks the file systems for their space, which for one that is served from is a matter of
    /// microseconds; one that has failed might hang.
    pub fn directories(&mut self) -> Vec<DataDirectory> {
        let disk = self.driver.disk();
        let mut told = |directory: &Directory| {
            let is_failed = directory.is_failed();
            let space = if is_failed { None } else { disk.space(&directory.path).ok() };
            DataDirectory { path: directory.path.display().to_string(), is_failed, space }
        };
        self.directories.iter().map(&mut told).collect()
    }

    /// Sends a request to a shard. Its reply comes to [`Front::replied`] with this token.
    pub fn submit(&mut self, to: ShardId, token: u64, request: api::Request) {
        let request = match request {
            // The other side knows requests by their tickets.
            api::Request::StopWaiting { token } => api::Request::StopWaiting { token: self.routes.ticket_of(self.front, token) },
            other => other,
        };
        self.routes.submit(to, self.front, token, request);
    }

    /// Whether requests to this shard have to wait for credits; a connection that adds to them should be paused.
    pub fn is_congested(&self, to: ShardId) -> bool {
        self.routes.is_congested(to)
    }

    /// Memory of what connections receive, for what has to be kept of it.
    pub fn room_to_keep(&self, bytes: usize) -> Space {
        self.net.pool.take(bytes)
    }

    /// Queues bytes to a connection.
    pub fn send(&mut self, connection: ConnectionId, slices: impl IntoIterator<Item = Slice>) {
        self.net.send(connection, slices);
    }

    /// Whether there is memory for the answer to a request that is expected to take so many bytes. If not, the request is not to begin, and
    /// [`Front::begin`] is called when it may.
    pub fn may_begin(&mut self, connection: ConnectionId, answer_bytes: usize) -> bool {
        self.net.may_answer(connection, answer_bytes)
    }

    /// Copies small bytes into memory that can be sent.
    pub fn copied(&self, bytes: &[u8]) -> Slice {
        self.answers.take(bytes.len().max(1)).push(bytes)
    }

    /// Bytes queued to a connection that the kernel has not taken.
    pub fn unsent(&mut self, connection: ConnectionId) -> usize {
        self.net.unsent(connection)
    }

    /// Closes after what is queued has been sent.
    pub fn finish(&mut self, connection: ConnectionId) {
        self.net.finish(self.driver, connection);
    }

    /// Closes at once, and says why in the log.
    pub fn close(&mut self, connection: ConnectionId, reason: &str) {
        let peer = self.net.peer(connection).map_or_else(|| "a connection".to_owned(), |peer| peer.to_string());
        log::info!("closing {peer}: {reason}");
        self.net.close(self.driver, connection);
    }

    /// Stops reading from a connection until [`Cx::resume`].
    pub fn pause(&mut self, connection: ConnectionId) {
        self.net.pause(connection);
    }

    /// Reads on; frames that are already here come after this call has returned.
    pub fn resume(&mut self, connection: ConnectionId) {
        self.net.resume(connection);
        self.visits.ask(connection);
    }

    /// Has [`Front::begin`] called when it is the connection's turn.
    pub fn visit(&mut self, connection: ConnectionId) {
        self.visits.ask_for_more(connection);
    }

    /// Calls [`Front::timer`] with `token` at `at`, once, unless it is taken back.
    pub fn timer(&mut self, at: Nanos, token: u64) -> TimerKey {
        self.timers.add(at, TimerFor::Front { front: self.front, token })
    }

    /// Takes back what has not fired yet.
    pub fn forget_timer(&mut self, key: TimerKey) {
        self.timers.remove(key);
    }

    /// 64 fresh random bits.
    pub fn entropy(&mut self) -> u64 {
        self.driver.entropy()
    }

    /// Asks for the connection to move to the shard that it mostly talks to, when next a request comes and nothing is under way.
    pub fn move_to(&mut self, connection: ConnectionId, to: ShardId) {
        self.moves.insert(connection, to);
    }
}
