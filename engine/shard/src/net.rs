//! The connections of one shard: accepting, sending queued bytes, closing.
//!
//! 1. What comes is received as [`crate::receive`] says; who holds memory and does not move is found by [`crate::shortage`].
//! 2. Bytes to send are queued as slices; one send is in flight per connection, gathering up to [`SEND_SLICES_MAX`].
//! 3. A paused connection is not asked for frames and hardly read: back-pressure reaches the peer through TCP.
//! 4. A request begins when there is memory for its answer ([`Net::may_answer`]); else its connection waits in order.
//!
//! Invariants: at most one receive or readable, and one send in flight per connection; a slot is reused only when all its operations
//! have completed.
//! Knows nothing of protocols, partitions or shards.

use crate::memory::Shares;
use crate::observe::Traffic;
use crate::receive::{RECEIVE_BYTES, Size, Waiting};
use crate::shortage::is_loose;
use crate::token::{self, GENERATION_MASK, Purpose};
use millrace_base::clock::Nanos;
use millrace_io::{Completion, Detached, Driver, IoError, Listener, Op, Pool, SEND_SLICES_MAX, Slice, Socket, Space};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Bytes of one send. The kernel copies them within our turn, as long as the client's buffers have room: no client is to take so much of a
/// turn that the others notice.
const SENT_BYTES_MAX: usize = 128 << 10;

/// Bytes of all larger sends of one turn, some 0.1 ms of copying; and while an entry is being written, which is some four turns for a record that
/// waits for it.
const FLUSHED_BYTES_MAX: usize = 256 << 10;
const FLUSHED_BESIDE_BYTES_MAX: usize = 64 << 10;

/// Bytes of a turn's only send, where no other connection has any. In smaller pieces it is one that the client has taken before the next comes:
/// it goes to sleep, and to wake it costs as much as the copying.
const ALONE_BYTES_MAX: usize = 512 << 10;

/// Who has no more queued is sent to before the others; and no more than that is left for a send of its own.
const SMALL_BYTES_MAX: usize = 8 << 10;

/// One connection of this shard; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    pub(crate) fn new(slot: u32, generation: u32) -> ConnectionId {
        ConnectionId { slot, generation }
    }

    pub(crate) fn slot(self) -> u32 {
        self.slot
    }

    pub(crate) fn generation(self) -> u32 {
        self.generation
    }
}

pub(crate) struct Connection {
    pub(crate) socket: Socket,
    listener: usize,
    peer: Option<SocketAddr>,
    /// None while the ring holds it, or while nothing is buffered.
    pub(crate) space: Option<Space>,
    /// The chunk is opened in steps, and holds nothing but the frame that is coming.
    pub(crate) in_steps: bool,
    /// Bytes received behind the frozen ones.
    pub(crate) filled: usize,
    /// Of the frame at their front, once it is known and not all there.
    pub(crate) length: Option<usize>,
    pub(crate) receiving: bool,
    /// The last receive took all that was asked for: more is likely there.
    pub(crate) eager: bool,
    /// The longest of the last frames: memory is taken so that the next one fits.
    pub(crate) frame_hint: usize,
    /// It stands in the queue of those that wait for memory to receive into.
    pub(crate) waits: Option<Size>,
    pub(crate) waits_since: Nanos,
    /// Its next request waits for memory to be answered from.
    waits_to_answer: bool,
    pub(crate) paused: bool,
    pub(crate) out: VecDeque<Slice>,
    out_bytes: usize,
    pub(crate) sending: bool,
    /// Close once what is queued has been sent.
    pub(crate) finishing: bool,
    pub(crate) closing: bool,
    pub(crate) operations: u32,
    pub(crate) last_active: Nanos,
    /// When bytes came last; and when it last had brought [`crate::receive::MOVED_BYTES`] more, or a whole frame.
    pub(crate) came: Nanos,
    pub(crate) moved: Nanos,
    pub(crate) came_since: usize,
    /// Since when so few bytes of the frame that is coming have come: see [`Net::dribbling`].
    pub(crate) dribbles_since: Nanos,
    pub(crate) dribbled: usize,
    pub(crate) send_progress: Nanos,
}

impl Connection {
    /// What it had to wait is not time in which it sent nothing.
    pub(crate) fn waits_no_more(&mut self, now: Nanos) {
        if self.waits.take().is_some() {
            self.moved = self.moved + now.since(self.waits_since);
        }
    }

    fn is_quiet(&self) -> bool {
        let is_still = self.operations == 0 && self.out.is_empty() && !self.closing && !self.finishing;
        is_still && self.waits.is_none() && !self.waits_to_answer && self.filled <= RECEIVE_BYTES
    }
}

pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) connection: Option<Connection>,
}

/// A connection on its way to another shard.
#[derive(Debug)]
pub struct DetachedConnection {
    pub socket: Detached,
    pub listener: usize,
    /// Bytes that came and were not handed out.
    pub buffered: Option<Slice>,
}

/// What [`Net::completed`] asks its caller to tell the front.
#[derive(Debug)]
pub enum Event {
    Accepted {
        connection: ConnectionId,
        listener: usize,
        peer: Option<SocketAddr>,
    },
    /// Bytes came; ask [`Net::next_frame`].
    Bytes {
        connection: ConnectionId,
    },
    /// Queued bytes have left.
    Sent {
        connection: ConnectionId,
    },
    /// The connection is gone.
    Closed {
        connection: ConnectionId,
        listener: usize,
    },
    /// A listener stopped accepting and must be asked again; with an error, not at once.
    AcceptEnded {
        listener: usize,
        error: Option<IoError>,
    },
}

/// What [`Net::next_frame`] found.
#[derive(Debug)]
pub enum Next {
    Frame(Slice),
    /// Nothing whole yet, or the connection is paused or gone.
    Nothing,
    /// The bytes cannot be a frame.
    Bad(String),
}

/// All connections of one shard.
pub struct Net {
    /// What connections receive into.
    pub(crate) pool: Pool,
    pub(crate) answers: Pool,
    pub(crate) slots: Vec<Slot>,
    free: Vec<u32>,
    listeners: Vec<Listener>,
    open: usize,
    /// Connections with bytes queued and no send in flight; those that had few.
    to_flush: VecDeque<ConnectionId>,
    few_to_flush: VecDeque<ConnectionId>,
    pub(crate) waiting: Waiting,
    /// Connections whose next request waits, and the bytes of answer that it is expected to bring.
    to_answer: VecDeque<(ConnectionId, usize)>,
    /// Since when the first of them has waited.
    to_answer_since: Nanos,
    /// See [`Net::takes_what_is_ready`].
    pub(crate) is_ready: bool,
    pub(crate) now: Nanos,
    pub(crate) traffic: Traffic,
}

impl Net {
    pub fn new(shares: &Shares) -> Net {
        Net {
            pool: shares.receive.clone(),
            answers: shares.answer.clone(),
            slots: Vec::new(),
            free: Vec::new(),
            listeners: Vec::new(),
            open: 0,
            to_flush: VecDeque::new(),
            few_to_flush: VecDeque::new(),
            waiting: Waiting::default(),
            to_answer: VecDeque::new(),
            to_answer_since: Nanos(0),
            is_ready: false,
            now: Nanos(0),
            traffic: Traffic::default(),
        }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Starts to accept on `listener`; events carry its index.
    pub fn listen(&mut self, driver: &mut dyn Driver, listener: Listener) -> usize {
        self.listeners.push(listener);
        let index = self.listeners.len() - 1;
        self.accept(driver, index);
        index
    }

    /// Asks the ring for connections of this listener (again).
    pub fn accept(&mut self, driver: &mut dyn Driver, listener: usize) {
        driver.submit(Op::Accept { listener: self.listeners[listener] }, token::pack(Purpose::Accept, listener as u32, 0));
    }

    pub fn stop_listening(&mut self, driver: &mut dyn Driver) {
        for listener in &self.listeners {
            driver.submit(Op::CloseListener { listener: *listener }, token::pack(Purpose::Nobody, 0, 0));
        }
    }

    fn insert(&mut self, driver: &mut dyn Driver, socket: Socket, listener: usize, now: Nanos) -> ConnectionId {
        let id = self.place(driver, socket, listener, now);
        self.receive(driver, id);
        id
    }

    fn place(&mut self, driver: &mut dyn Driver, socket: Socket, listener: usize, now: Nanos) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        entry.connection = Some(Connection {
            socket,
            listener,
            peer: driver.peer(socket),
            space: None,
            in_steps: false,
            filled: 0,
            length: None,
            receiving: false,
            eager: false,
            frame_hint: 0,
            waits: None,
            waits_since: now,
            waits_to_answer: false,
            paused: false,
            out: VecDeque::new(),
            out_bytes: 0,
            sending: false,
            finishing: false,
            closing: false,
            operations: 0,
            last_active: now,
            came: now,
            moved: now,
            came_since: 0,
            dribbles_since: now,
            dribbled: 0,
            send_progress: now,
        });
        self.open += 1;
        ConnectionId { slot, generation: self.slots[slot as usize].generation }
    }

    pub(crate) fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.connection.as_mut() } else { None }
    }

    /// The connection's other end.
    pub fn peer(&self, id: ConnectionId) -> Option<SocketAddr> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.connection.as_ref()?.peer
    }

    /// The listener that the connection came in on.
    pub fn listener_of(&self, id: ConnectionId) -> Option<usize> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.connection.as_ref().map(|connection| connection.listener)
    }

    /// What came and went since the start.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether [`Net::detach`] would succeed.
    pub fn is_quiet(&self, id: ConnectionId) -> bool {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        slot.and_then(|slot| slot.connection.as_ref()).is_some_and(Connection::is_quiet)
    }

    /// Takes one completion of a network operation.
    pub fn completed(&mut self, driver: &mut dyn Driver, completion: Completion, now: Nanos, events: &mut Vec<Event>) {
        let (purpose, slot, generation) = token::unpack(completion.token);
        let id = ConnectionId { slot, generation };
        self.now = now;
        match purpose {
            Purpose::Accept => self.accepted(driver, completion, slot as usize, now, events),
            Purpose::Receive | Purpose::Readable => self.received(driver, id, completion, events),
            Purpose::Send => self.sent(driver, id, completion, now, events),
            Purpose::CloseSocket => {
                if let Some(connection) = self.get(id) {
                    connection.operations -= 1;
                }
                self.reap(id, events);
            }
            Purpose::Task | Purpose::Entry | Purpose::Extent | Purpose::Job | Purpose::Nobody => {}
        }
    }

    fn accepted(&mut self, driver: &mut dyn Driver, completion: Completion, listener: usize, now: Nanos, events: &mut Vec<Event>) {
        if let Ok(number) = completion.result {
            self.traffic.connections_accepted += 1;
            let connection = self.insert(driver, Socket(number), listener, now);
            let peer = self.peer(connection);
            events.push(Event::Accepted { connection, listener, peer });
        }
        if !completion.more {
            events.push(Event::AcceptEnded { listener, error: completion.result.err() });
        }
    }

    /// Queues bytes behind what is queued; they leave at the next [`Net::flush`].
    pub fn send(&mut self, id: ConnectionId, slices: impl IntoIterator<Item = Slice>) {
        let Some(connection) = self.get(id) else { return };
        if connection.closing {
            return;
        }
        let was_idle = connection.out.is_empty() && !connection.sending;
        for slice in slices {
            connection.out_bytes += slice.len();
            match connection.out.back() {
                Some(last) if last.is_followed_by(&slice) => {
                    let joined = last.joined(&slice);
                    connection.out.pop_back();
                    connection.out.push_back(joined);
                }
                _ if slice.is_empty() => {}
                _ => connection.out.push_back(slice),
            }
        }
        if was_idle && !connection.out.is_empty() {
            let is_small = connection.out_bytes <= SMALL_BYTES_MAX;
            let queue = if is_small { &mut self.few_to_flush } else { &mut self.to_flush };
            queue.push_back(id);
        }
    }

    /// Bytes queued and not yet taken by the kernel.
    pub fn unsent(&mut self, id: ConnectionId) -> usize {
        self.get(id).map_or(0, |connection| connection.out_bytes)
    }

    /// Whether a request may begin whose answer is expected to take so many bytes. If not, the connection waits for
    /// [`Net::next_to_answer`]. Who has nothing unsent may use all there is; who does not take its answers, half of it. More than half is never
    /// waited for: on a shard that always has answers under way it would not come, and everybody would wait behind it.
    pub fn may_answer(&mut self, id: ConnectionId, expected: usize) -> bool {
        let (used, budget) = (self.answers.used(), self.answers.budget());
        let expected = expected.min(budget / 2);
        let now = self.now;
        let Some(connection) = self.get(id) else { return false };
        let most = if connection.out.is_empty() { budget } else { budget / 2 };
        if used == 0 || used + expected <= most {
            return true;
        }
        if !std::mem::replace(&mut connection.waits_to_answer, true) {
            if self.to_answer.is_empty() {
                self.to_answer_since = now;
            }
            self.to_answer.push_back((id, expected));
        }
        false
    }

    /// A connection whose request may begin now that there is memory for its answer.
    pub fn next_to_answer(&mut self) -> Option<ConnectionId> {
        let (used, budget) = (self.answers.used(), self.answers.budget());
        loop {
            let (id, expected) = *self.to_answer.front()?;
            let is_there = self.get(id).is_some_and(|connection| !connection.closing);
            if is_there && used > 0 && used + expected > budget {
                return None;
            }
            self.to_answer.pop_front();
            self.to_answer_since = self.now;
            if let Some(connection) = self.get(id).filter(|_| is_there) {
                connection.waits_to_answer = false;
                return Some(id);
            }
        }
    }

    /// Requests that wait for memory to be answered from.
    pub fn waiting_to_answer(&self) -> usize {
        self.to_answer.len()
    }

    /// Since when nobody of them has come to its turn.
    pub(crate) fn unanswered_since(&self) -> Option<Nanos> {
        (!self.to_answer.is_empty()).then_some(self.to_answer_since)
    }

    /// Submits a send for the connections that have bytes and none in flight: those that had few when they were queued, then the others in
    /// order, for as many bytes as a turn has time for. `is_awaited`: what is being written is to be answered soon.
    pub fn flush(&mut self, driver: &mut dyn Driver, now: Nanos, is_awaited: bool) {
        self.flush_few(driver, now);
        let (in_all, alone) =
            if is_awaited { (FLUSHED_BESIDE_BYTES_MAX, FLUSHED_BESIDE_BYTES_MAX) } else { (FLUSHED_BYTES_MAX, ALONE_BYTES_MAX) };
        let mut sent = 0;
        while sent < in_all
            && let Some(id) = self.to_flush.pop_front()
        {
            let is_alone = sent == 0 && self.to_flush.is_empty();
            sent += self.send_on(driver, id, now, if is_alone { alone } else { in_all.min(SENT_BYTES_MAX) });
        }
    }

    /// Submits a send for those that had few bytes.
    pub fn flush_few(&mut self, driver: &mut dyn Driver, now: Nanos) {
        while let Some(id) = self.few_to_flush.pop_front() {
            self.send_on(driver, id, now, SENT_BYTES_MAX);
        }
    }

    /// Whether a receive was submitted, since this was asked last, that finds its bytes there.
    pub fn takes_what_is_ready(&mut self) -> bool {
        std::mem::take(&mut self.is_ready)
    }

    /// Whether some connections are to be flushed in the next turn.
    pub fn has_to_flush(&self) -> bool {
        !self.to_flush.is_empty()
    }

    /// Bytes of the send that is under way with this: `most`, or a little more if that is all.
    fn send_on(&mut self, driver: &mut dyn Driver, id: ConnectionId, now: Nanos, most: usize) -> usize {
        let Some(connection) = self.get(id) else { return 0 };
        if connection.sending || connection.closing || connection.out.is_empty() {
            return 0;
        }
        let most = if connection.out_bytes <= most + SMALL_BYTES_MAX { connection.out_bytes } else { most };
        let (mut from, mut bytes) = (Vec::new(), 0);
        for slice in connection.out.iter().take(SEND_SLICES_MAX) {
            let len = slice.len().min(most - bytes);
            if len == 0 {
                break;
            }
            bytes += len;
            from.push(slice.sub(0..len));
        }
        connection.sending = true;
        connection.operations += 1;
        connection.send_progress = now;
        driver.submit(Op::Send { socket: connection.socket, from }, token::pack(Purpose::Send, id.slot, id.generation));
        bytes
    }

    fn sent(&mut self, driver: &mut dyn Driver, id: ConnectionId, completion: Completion, now: Nanos, events: &mut Vec<Event>) {
        self.traffic.sent_bytes += u64::from(completion.result.unwrap_or(0));
        let Some(connection) = self.get(id) else { return };
        connection.operations -= 1;
        connection.sending = false;
        if connection.closing {
            return self.reap(id, events);
        }
        let Ok(bytes) = completion.result else { return self.close(driver, id) };
        let mut left = bytes as usize;
        connection.out_bytes -= left;
        connection.last_active = now;
        while left > 0 {
            let first = connection.out.pop_front().expect("the kernel takes no more than was offered");
            if first.len() > left {
                connection.out.push_front(first.sub(left..first.len()));
                left = 0;
            } else {
                left -= first.len();
            }
        }
        if connection.out.is_empty() && connection.finishing {
            return self.close(driver, id);
        }
        if !connection.out.is_empty() {
            self.to_flush.push_back(id);
        }
        events.push(Event::Sent { connection: id });
    }

    /// Stops reading from the connection.
    pub fn pause(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.paused = true;
        }
    }

    /// Reads on. The caller then asks [`Net::next_frame`], since whole frames may be buffered.
    pub fn resume(&mut self, id: ConnectionId) {
        let now = self.now;
        if let Some(connection) = self.get(id) {
            connection.paused = false;
            (connection.dribbles_since, connection.dribbled) = (now, 0);
            (connection.moved, connection.came_since) = (now, 0);
        }
    }

    /// Closes once everything queued has been sent.
    pub fn finish(&mut self, driver: &mut dyn Driver, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        connection.finishing = true;
        if connection.out.is_empty() && !connection.sending {
            self.close(driver, id);
        }
    }

    /// Closes now; what is queued is dropped.
    pub fn close(&mut self, driver: &mut dyn Driver, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        if connection.closing {
            return;
        }
        connection.closing = true;
        connection.operations += 1;
        // Nobody needs any more what was received and is not whole, and what was not sent.
        (connection.space, connection.filled) = (None, 0);
        connection.out.clear();
        connection.out_bytes = 0;
        driver.submit(Op::CloseSocket { socket: connection.socket }, token::pack(Purpose::CloseSocket, id.slot, id.generation));
        self.waiting.forget_finisher(id);
    }

    pub(crate) fn reap(&mut self, id: ConnectionId, events: &mut Vec<Event>) {
        let Some(connection) = self.get(id) else { return };
        if connection.closing && connection.operations == 0 {
            let listener = connection.listener;
            self.slots[id.slot as usize].connection = None;
            self.free.push(id.slot);
            self.open -= 1;
            events.push(Event::Closed { connection: id, listener });
        }
    }

    /// Open connections that nothing has come from or gone to since `before`, and those whose send has stood still since `stalled`.
    pub fn idle(&self, before: Nanos, stalled: Nanos) -> Vec<ConnectionId> {
        let is_idle =
            |c: &Connection| !c.closing && ((c.last_active < before && c.out.is_empty()) || (c.sending && c.send_progress < stalled));
        let idle = |(slot, entry): (usize, &Slot)| {
            let connection = entry.connection.as_ref()?;
            is_idle(connection).then_some(ConnectionId { slot: slot as u32, generation: entry.generation })
        };
        self.slots.iter().enumerate().filter_map(idle).collect()
    }

    /// Connections with a part of a frame that has not become whole, nor brought [`DRIBBLE_BYTES_MIN`] more, since `before`. Those that are
    /// not read, because they are paused or wait for memory, are not to blame.
    pub fn dribbling(&self, before: Nanos) -> Vec<ConnectionId> {
        let dribbles = |c: &Connection| !c.closing && !c.paused && c.waits.is_none() && c.filled > 0 && c.dribbles_since < before;
        let dribbling = |(slot, entry): (usize, &Slot)| {
            let id = ConnectionId { slot: slot as u32, generation: entry.generation };
            entry.connection.as_ref().filter(|connection| dribbles(connection)).map(|_| id)
        };
        self.slots.iter().enumerate().filter_map(dribbling).collect()
    }

    /// When a connection may have been idle for `idle_ms`; None: one has to be looked at before, see [`Net::idle`], [`Net::dribbling`] and
    /// [`Net::relieve`].
    pub fn rests_until(&self, idle_ms: u64) -> Option<Nanos> {
        if self.is_waiting() || self.waiting_to_answer() > 0 {
            return None;
        }
        let mut until = Nanos::NEVER;
        for connection in self.slots.iter().filter_map(|slot| slot.connection.as_ref()) {
            let is_at_rest = connection.out.is_empty() && !connection.sending && connection.filled == 0 && !is_loose(connection);
            if !is_at_rest {
                return None;
            }
            until = until.min(connection.last_active.plus_ms(idle_ms.saturating_add(1)));
        }
        Some(until)
    }

    /// Takes a connection with nothing in flight and nothing queued out of this shard, with the bytes that are buffered.
    pub fn detach(&mut self, driver: &mut dyn Driver, id: ConnectionId) -> Option<DetachedConnection> {
        self.waiting.forget_finisher(id);
        let connection = self.get(id).filter(|connection| connection.is_quiet())?;
        let filled = connection.filled;
        let buffered = connection.space.as_mut().filter(|_| filled > 0).map(|space| space.freeze(filled));
        let (socket, listener) = (connection.socket, connection.listener);
        self.slots[id.slot as usize].connection = None;
        self.free.push(id.slot);
        self.open -= 1;
        Some(DetachedConnection { socket: driver.detach(socket), listener, buffered })
    }

    /// Takes a connection in that another shard detached. The caller then asks [`Net::next_frame`].
    pub fn attach(&mut self, driver: &mut dyn Driver, detached: DetachedConnection, now: Nanos) -> ConnectionId {
        let socket = driver.attach(detached.socket);
        let id = self.place(driver, socket, detached.listener, now);
        let pool = self.pool.clone();
        if let (Some(buffered), Some(connection)) = (detached.buffered, self.get(id)) {
            let mut space = pool.take(buffered.len());
            space.unfrozen()[..buffered.len()].copy_from_slice(&buffered);
            connection.filled = buffered.len();
            connection.space = Some(space);
        }
        id
    }
}
