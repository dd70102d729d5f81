//! The Kafka front of one shard: connections, their requests, and the handlers that wait.
//!
//! 1. A frame joins its connection's queue ([`Connection`]); one request begins with it, through [`dispatch`]. What has to wait begins, one
//!    request a visit, when it is the connection's turn.
//! 2. A handler that waits is kept under its call's id; replies and timers find it there.
//! 3. Answers are put into memory that can be sent and leave in order.
//!
//! Invariants: every pending call belongs to a connection that is open here; a connection departs only when it has none; a call's timer goes
//! with it.
//! Knows nothing of what the APIs mean.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use millrace_base::clock::Nanos;
use millrace_base::settings::Settings;
use millrace_io::Slice;
use millrace_shard::api::Reply;
use millrace_shard::front::{Cx, Frame, Front};
use millrace_shard::net::ConnectionId;
use millrace_shard::observe::RequestCounters;
use millrace_shard::timers::TimerKey;

use crate::answered::Answered;
use crate::apis::api_01_fetch::WaitingPartitions;
use crate::call::{Answer, Asked, Call, CallId, Outcome, Pending, Shared, split_token};
use crate::conn::{Connection, UNSENT_BYTES_MAX};
use crate::dispatch::{self, Found};
use crate::engine::Engine;
use crate::fetch_session::{Session, Sessions};
use crate::listener::{Advertised, Listeners};
use crate::producer_ids::ProducerIds;
use crate::wire::errors::ErrorCode;
use crate::wire::fetch_response::Part;
use crate::wire::table::Api;

/// A frame cannot be shorter: key, version, correlation id.
const FRAME_BYTES_MIN: usize = 8;

struct Waiting {
    connection: ConnectionId,
    asked: Asked,
    pending: Box<dyn Pending>,
    timer: Option<TimerKey>,
}

/// What moves with a connection.
struct Departed {
    connection: Connection,
    session: Option<Session>,
}

/// The front of one shard.
pub struct KafkaFront {
    shared: Shared,
    connections: BTreeMap<ConnectionId, Connection>,
    waiting: BTreeMap<CallId, Waiting>,
    next_call: CallId,
    frame_bytes_max: usize,
}

impl KafkaFront {
    /// `listeners` are in the order of their index; `shards` is how many fronts share the node's bounds.
    pub fn new(listeners: Vec<Advertised>, settings: &Settings, shards: u16) -> KafkaFront {
        let slots = (settings.max_incremental_fetch_session_cache_slots as usize).div_ceil(usize::from(shards.max(1)));
        KafkaFront {
            shared: Shared {
                listeners: Listeners(listeners),
                sessions: Sessions::new(slots),
                producer_ids: ProducerIds::default(),
                waiting_partitions: WaitingPartitions::default(),
                warn_of_groups_at: Nanos(0),
                wake: Vec::new(),
                answered: Answered::default(),
            },
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_call: 0,
            frame_bytes_max: settings.socket_request_max_bytes as usize,
        }
    }

    /// Sends what may leave; has the connection visited when another request may begin by that.
    fn pump(&mut self, cx: &mut Cx<'_>, id: ConnectionId) {
        self.send_answers(cx, id);
        if self.connections.get(&id).is_some_and(|connection| connection.next().is_some()) {
            cx.visit(id);
        }
        self.set_reading(cx, id);
    }

    fn send_answers(&mut self, cx: &mut Cx<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        while !connection.is_closing
            && let Some(answer) = connection.leave()
        {
            match answer {
                Answer::Frame(frame) => {
                    let slice = cx.copied(&frame);
                    cx.send(id, [slice]);
                }
                Answer::Parts(parts) => {
                    let slices = slices_of(parts, |bytes| cx.copied(bytes));
                    cx.send(id, slices);
                }
                Answer::Nothing => {}
                Answer::Close(reason) => {
                    connection.is_closing = true;
                    end_connection(cx, id, &connection.host, &reason);
                }
            }
        }
    }

    /// Begins one request; whether there was one.
    fn begin_next(&mut self, cx: &mut Cx<'_>, id: ConnectionId) -> bool {
        if cx.unsent(id) > UNSENT_BYTES_MAX {
            return false;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        // One request at a time is always let through, so that a crowded lane slows a connection down and never stops it.
        let is_crowded = connection.begun() > 0 && (0..cx.facts.shards).any(|shard| cx.is_congested(shard));
        if connection.is_closing || is_crowded {
            return false;
        }
        let Some(frame) = connection.next() else { return false };
        if !cx.may_begin(id, answer_bytes(frame, cx.meta.partitions())) {
            return false;
        }
        let Some((call, frame)) = connection.begin() else { return false };
        let body = frame.sub(4..frame.len());
        let asked = match dispatch::find(&body) {
            Found::Served(asked) => asked,
            Found::Unserved(asked) => {
                self.shared.answered.error(asked.api, ErrorCode::UnsupportedVersion.code());
                let ended = connection.end(call, dispatch::unserved(asked, &body));
                self.shared.answered.count(asked.api, ended, cx.now);
                return true;
            }
            Found::Bad(reason) => {
                connection.end(call, Answer::Close(reason));
                return true;
            }
        };
        let here = cx.shard;
        let mut turn = Call::new(call, asked, connection.listener, &connection.host, &mut self.shared, &mut *cx);
        let outcome = dispatch::begin(&mut turn, &body);
        let owner = turn.owner;
        connection.session = turn.session.unwrap_or(connection.session);
        let timer = turn.timer;
        if matches!(asked.api, Api::Produce | Api::Fetch)
            && let Some(target) = connection.affinity.note(owner, here)
        {
            cx.move_to(id, target);
        }
        match outcome {
            Outcome::Done(answer) => {
                let ended = connection.end(call, answer);
                self.shared.answered.count(asked.api, ended, cx.now);
            }
            Outcome::Wait(pending) => {
                let timer = timer.map(|at| cx.timer(at, call));
                self.waiting.insert(call, Waiting { connection: id, asked, pending, timer });
            }
        }
        self.wake(cx);
        true
    }

    fn set_reading(&mut self, cx: &mut Cx<'_>, id: ConnectionId) {
        let requests_max = cx.settings.queued_max_requests as usize;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let is_full = connection.is_full(requests_max);
        if is_full && !connection.is_paused {
            connection.is_paused = true;
            cx.pause(id);
        } else if !is_full && connection.is_paused {
            connection.is_paused = false;
            cx.resume(id);
        }
    }

    /// Lets a pending call take one step; its connection goes on if that was the last.
    fn step(&mut self, cx: &mut Cx<'_>, call: CallId, step: impl FnOnce(&mut dyn Pending, &mut Call<'_, '_>) -> Option<Answer>) {
        let Some(mut waiting) = self.waiting.remove(&call) else { return };
        let id = waiting.connection;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut turn = Call::new(call, waiting.asked, connection.listener, &connection.host, &mut self.shared, &mut *cx);
        let answer = step(waiting.pending.as_mut(), &mut turn);
        connection.session = turn.session.unwrap_or(connection.session);
        let timer = turn.timer;
        if (answer.is_some() || timer.is_some())
            && let Some(key) = waiting.timer.take()
        {
            cx.forget_timer(key);
        }
        match answer {
            None => {
                waiting.timer = timer.map(|at| cx.timer(at, call)).or(waiting.timer);
                self.waiting.insert(call, waiting);
            }
            Some(answer) => {
                let ended = connection.end(call, answer);
                self.shared.answered.count(waiting.asked.api, ended, cx.now);
                self.pump(cx, id);
            }
        }
    }

    /// Tells calls for which another has brought what they wait for.
    fn wake(&mut self, cx: &mut Cx<'_>) {
        for call in std::mem::take(&mut self.shared.wake) {
            self.step(cx, call, |pending, turn| pending.woken(turn));
        }
    }
}

impl Front for KafkaFront {
    fn frame(&self, bytes: &[u8]) -> Frame {
        frame_length(bytes, self.frame_bytes_max)
    }

    fn accepted(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, listener: usize, peer: Option<SocketAddr>) {
        let most = (cx.settings.max_connections as usize).div_ceil(usize::from(cx.facts.shards.max(1)));
        if self.connections.len() >= most {
            cx.close(connection, &format!("this shard has {most} connections, its share of max.connections"));
            return;
        }
        let host = peer.map_or_else(String::new, |peer| format!("/{}", peer.ip().to_canonical()));
        self.connections.insert(connection, Connection::new(listener, host));
    }

    fn received(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, frame: Slice) {
        let call = self.next_call;
        self.next_call += 1;
        let Some(state) = self.connections.get_mut(&connection) else { return };
        let is_produce = frame.get(4..6) == Some(&Api::Produce.key().to_be_bytes()[..]);
        state.push(frame, is_produce, call, cx.now);
        if !self.begin(cx, connection) {
            self.set_reading(cx, connection);
        }
        if let Some(state) = self.connections.get_mut(&connection) {
            state.keep_last(|bytes| cx.room_to_keep(bytes));
        }
    }

    fn replied(&mut self, cx: &mut Cx<'_>, token: u64, reply: Reply) {
        // The answer to StopWaiting, which nobody waits for.
        if matches!(reply, Reply::Done) {
            return;
        }
        let (call, part) = split_token(token);
        self.step(cx, call, |pending, turn| pending.replied(turn, part, reply));
        self.wake(cx);
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        self.step(cx, token, |pending, turn| pending.timer(turn));
        self.wake(cx);
    }

    fn sent(&mut self, cx: &mut Cx<'_>, connection: ConnectionId) {
        if cx.unsent(connection) <= UNSENT_BYTES_MAX {
            self.pump(cx, connection);
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>, connection: ConnectionId) -> bool {
        let has_begun = self.begin_next(cx, connection);
        if has_begun {
            self.pump(cx, connection);
        }
        has_begun
    }

    fn closed(&mut self, cx: &mut Cx<'_>, connection: ConnectionId) {
        let Some(state) = self.connections.remove(&connection) else { return };
        for call in state.running() {
            let Some(mut waiting) = self.waiting.remove(&call) else { continue };
            let mut turn = Call::new(call, waiting.asked, state.listener, &state.host, &mut self.shared, &mut *cx);
            waiting.pending.cancelled(&mut turn);
            if let Some(key) = waiting.timer {
                cx.forget_timer(key);
            }
        }
        self.wake(cx);
    }

    fn requests(&self) -> Vec<RequestCounters> {
        self.shared.answered.rows()
    }

    fn depart(&mut self, connection: ConnectionId) -> Option<Box<dyn Any + Send>> {
        if !self.connections.get(&connection)?.is_quiet() {
            return None;
        }
        let state = self.connections.remove(&connection)?;
        let session = self.shared.sessions.remove(state.session);
        Some(Box::new(Departed { connection: state, session }))
    }

    fn arrived(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, listener: usize, state: Box<dyn Any + Send>) {
        let Ok(departed) = state.downcast::<Departed>() else {
            cx.close(connection, "it came from another shard without the state of a Kafka connection");
            return;
        };
        let Departed { connection: mut moved, session } = *departed;
        moved.listener = listener;
        moved.is_paused = false;
        if let Some(session) = session {
            self.shared.sessions.adopt(session, Engine::now(cx));
        }
        self.connections.insert(connection, moved);
    }
}

/// What one partition takes in the answers that list all of them, as a guess.
const PARTITION_BYTES: usize = 128;

/// What the answer to a request is expected to take, records apart: they have a memory of their own.
fn answer_bytes(frame: &[u8], partitions: usize) -> usize {
    let key = frame.get(4..6).map_or(-1, |key| i16::from_be_bytes([key[0], key[1]]));
    match Api::from_key(key) {
        Some(Api::Produce | Api::Fetch | Api::OffsetCommit | Api::Heartbeat | Api::JoinGroup | Api::SyncGroup | Api::LeaveGroup) => 4096,
        Some(Api::Metadata | Api::DescribeLogDirs | Api::DescribeTopicPartitions | Api::OffsetFetch | Api::DescribeConfigs) => {
            4096 + PARTITION_BYTES * partitions
        }
        _ => 4096 + 4 * frame.len(),
    }
}

/// Closes, after what the client has been answered so far has left.
fn end_connection(cx: &mut Cx<'_>, id: ConnectionId, host: &str, reason: &str) {
    if cx.unsent(id) == 0 {
        cx.close(id, reason);
    } else {
        log::info!("closing {host} after its answers: {reason}");
        cx.finish(id);
    }
}

/// The frame at the front of a connection's bytes: its length prefix, and `FRAME_BYTES_MIN` to `max` bytes behind it.
pub fn frame_length(bytes: &[u8], max: usize) -> Frame {
    let Some(prefix) = bytes.first_chunk::<4>() else { return Frame::More };
    let length = i32::from_be_bytes(*prefix);
    match usize::try_from(length) {
        Ok(length) if (FRAME_BYTES_MIN..=max).contains(&length) => Frame::Bytes(length + 4),
        _ => {
            let what = match prefix {
                [0x16, 3, ..] => "; these are the first bytes of a TLS handshake, and this listener speaks plaintext",
                b"GET " | b"POST" | b"HEAD" | b"PUT " => "; this is an HTTP request, and this listener speaks the Kafka protocol",
                _ => "",
            };
            Frame::Bad(format!("a frame of {length} bytes; {FRAME_BYTES_MIN} to {max} (socket.request.max.bytes) are allowed{what}"))
        }
    }
}

/// A frame's parts as slices: what is not records is copied once, all together.
fn slices_of(parts: Vec<Part<Slice>>, copied: impl FnOnce(&[u8]) -> Slice) -> Vec<Slice> {
    let heads: Vec<&Bytes> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Bytes(bytes) => Some(bytes),
            Part::Records(_) => None,
        })
        .collect();
    let all: Vec<u8> = heads.iter().flat_map(|head| head.iter().copied()).collect();
    let copy = copied(&all);
    let mut from = 0;
    parts
        .into_iter()
        .map(|part| match part {
            Part::Records(slice) => slice,
            Part::Bytes(bytes) => {
                from += bytes.len();
                copy.sub(from - bytes.len()..from)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_io::Pool;

    #[test]
    fn frames_are_bounded_and_strangers_are_named() {
        assert_eq!(frame_length(&[0, 0, 0], 100), Frame::More);
        assert_eq!(frame_length(&8i32.to_be_bytes(), 100), Frame::Bytes(12));
        assert_eq!(frame_length(&100i32.to_be_bytes(), 100), Frame::Bytes(104));
        for bad in [-1, i32::MIN, 0, 7, 101, i32::MAX] {
            assert!(matches!(frame_length(&bad.to_be_bytes(), 100), Frame::Bad(_)), "{bad}");
        }
        assert!(matches!(frame_length(&[0x16, 3, 1, 2], 100), Frame::Bad(reason) if reason.contains("TLS")));
        assert!(matches!(frame_length(b"GET / HTTP", 100), Frame::Bad(reason) if reason.contains("HTTP")));
    }

    #[test]
    fn records_leave_uncopied_between_what_is_copied_once() {
        let pool = Pool::new(0);
        let records = pool.take(10).push(b"RECORDS");
        let parts = vec![Part::Bytes(Bytes::from_static(b"ab")), Part::Records(records.clone()), Part::Bytes(Bytes::from_static(b"cde"))];
        let slices = slices_of(parts, |bytes| pool.take(bytes.len()).push(bytes));
        assert_eq!(slices.iter().map(|slice| slice.to_vec()).collect::<Vec<_>>(), [b"ab".to_vec(), b"RECORDS".to_vec(), b"cde".to_vec()]);
        assert_eq!(slices[1].as_ptr(), records.as_ptr());
    }
}
