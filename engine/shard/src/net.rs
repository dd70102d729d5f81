//! The connections of one shard: receiving whole frames, sending queued bytes.
//!
//! 1. A connection that is drained waits with [`Op::Readable`], which holds no memory; then it receives into a chunk from the pool.
//! 2. A front says how long the frame at the front of the bytes is; whole frames are handed out as slices of the chunk, uncopied.
//! 3. A frame that does not fit its chunk moves to a larger one, which grows with what has really come, not with what was announced.
//! 4. Bytes to send are queued as slices; one send is in flight per connection, gathering up to [`SEND_SLICES_MAX`].
//! 5. A paused connection is neither read nor asked for frames: back-pressure reaches the peer through TCP.
//!
//! Invariants: at most one receive or readable, and one send in flight per connection; a slot is reused only when all its operations
//! have completed.
//! Knows nothing of protocols, partitions or shards.

use crate::front::Frame;
use crate::token::{self, GENERATION_MASK, Purpose};
use millrace_base::clock::Nanos;
use millrace_io::{Completion, Detached, Driver, Listener, Memory, Op, Pool, SEND_SLICES_MAX, Slice, Socket, Space};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// One connection of this shard; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

/// Bytes asked of a socket at once when no frame length is known yet.
const RECEIVE_BYTES: usize = 64 << 10;

/// Frames up to this are given their whole memory at once; longer ones as their bytes come.
const FRAME_AT_ONCE: usize = 1 << 20;

struct Connection {
    socket: Socket,
    listener: usize,
    peer: Option<SocketAddr>,
    /// None while the ring holds it, or while nothing is buffered.
    space: Option<Space>,
    /// Bytes received behind the frozen ones.
    filled: usize,
    receiving: bool,
    /// The last receive took all that was asked for: more is likely there.
    eager: bool,
    /// The longest of the last frames: memory is taken so that the next one fits.
    frame_hint: usize,
    paused: bool,
    out: VecDeque<Slice>,
    out_bytes: usize,
    sending: bool,
    /// Close once what is queued has been sent.
    finishing: bool,
    closing: bool,
    operations: u32,
    last_active: Nanos,
    send_progress: Nanos,
}

impl Connection {
    fn is_quiet(&self) -> bool {
        self.operations == 0 && self.out.is_empty() && !self.closing && !self.finishing
    }
}

struct Slot {
    generation: u32,
    connection: Option<Connection>,
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
    /// A listener stopped accepting and must be asked again.
    AcceptEnded {
        listener: usize,
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
    pool: Pool,
    slots: Vec<Slot>,
    free: Vec<u32>,
    listeners: Vec<Listener>,
    open: usize,
    /// Connections with bytes queued and no send in flight.
    to_flush: Vec<ConnectionId>,
}

impl Net {
    pub fn new(pool: Pool) -> Net {
        Net { pool, slots: Vec::new(), free: Vec::new(), listeners: Vec::new(), open: 0, to_flush: Vec::new() }
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
            filled: 0,
            receiving: false,
            eager: false,
            frame_hint: 0,
            paused: false,
            out: VecDeque::new(),
            out_bytes: 0,
            sending: false,
            finishing: false,
            closing: false,
            operations: 0,
            last_active: now,
            send_progress: now,
        });
        self.open += 1;
        ConnectionId { slot, generation: self.slots[slot as usize].generation }
    }

    fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
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

    /// Whether [`Net::detach`] would succeed.
    pub fn is_quiet(&self, id: ConnectionId) -> bool {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        slot.and_then(|slot| slot.connection.as_ref()).is_some_and(Connection::is_quiet)
    }

    /// Takes one completion of a network operation.
    pub fn completed(&mut self, driver: &mut dyn Driver, completion: Completion, now: Nanos, events: &mut Vec<Event>) {
        let (purpose, slot, generation) = token::unpack(completion.token);
        let id = ConnectionId { slot, generation };
        match purpose {
            Purpose::Accept => self.accepted(driver, completion, slot as usize, now, events),
            Purpose::Receive | Purpose::Readable => self.received(driver, id, completion, now, events),
            Purpose::Send => self.sent(driver, id, completion, now, events),
            Purpose::CloseSocket => {
                if let Some(connection) = self.get(id) {
                    connection.operations -= 1;
                }
                self.reap(id, events);
            }
            Purpose::Task | Purpose::Entry | Purpose::Extent | Purpose::Nobody => {}
        }
    }

    fn accepted(&mut self, driver: &mut dyn Driver, completion: Completion, listener: usize, now: Nanos, events: &mut Vec<Event>) {
        if let Ok(number) = completion.result {
            let connection = self.insert(driver, Socket(number), listener, now);
            let peer = self.peer(connection);
            events.push(Event::Accepted { connection, listener, peer });
        }
        if !completion.more {
            events.push(Event::AcceptEnded { listener });
        }
    }

    fn received(&mut self, driver: &mut dyn Driver, id: ConnectionId, completion: Completion, now: Nanos, events: &mut Vec<Event>) {
        let (purpose, ..) = token::unpack(completion.token);
        let Some(connection) = self.get(id) else { return };
        connection.operations -= 1;
        connection.receiving = false;
        if let Memory::Space(space) = completion.memory {
            connection.space = Some(space);
        }
        if connection.closing {
            return self.reap(id, events);
        }
        match (purpose, completion.result) {
            (Purpose::Readable, Ok(_)) => {
                connection.eager = true;
                self.receive(driver, id);
            }
            (_, Ok(0)) | (_, Err(_)) => self.close(driver, id),
            (_, Ok(bytes)) => {
                connection.last_active = now;
                connection.filled += bytes as usize;
                // A short receive has drained the socket.
                let unasked = connection.space.as_ref().map_or(0, |space| space.room() - connection.filled);
                connection.eager = unasked == 0;
                events.push(Event::Bytes { connection: id });
            }
        }
    }

    /// The next whole frame, if it is there. When none is, and the connection may read on, the next receive is under way.
    pub fn next_frame(&mut self, driver: &mut dyn Driver, id: ConnectionId, frame: impl Fn(&[u8]) -> Frame) -> Next {
        let pool = self.pool.clone();
        let Some(connection) = self.get(id) else { return Next::Nothing };
        if connection.paused || connection.closing || connection.finishing || connection.receiving {
            return Next::Nothing;
        }
        let length = match connection.space.as_mut() {
            None => None,
            Some(space) => match frame(&space.unfrozen()[..connection.filled]) {
                Frame::More => None,
                Frame::Bad(reason) => return Next::Bad(reason),
                Frame::Bytes(length) => Some(length),
            },
        };
        if let (Some(length), Some(space)) = (length, connection.space.as_mut()) {
            if connection.filled >= length {
                connection.frame_hint = length.max(connection.frame_hint / 8 * 7).min(FRAME_AT_ONCE);
                connection.filled -= length;
                return Next::Frame(space.freeze(length));
            }
            if space.room() < length {
                move_to_larger(&pool, connection, length);
            }
        }
        self.receive(driver, id);
        Next::Nothing
    }

    fn receive(&mut self, driver: &mut dyn Driver, id: ConnectionId) {
        let pool = self.pool.clone();
        let Some(connection) = self.get(id) else { return };
        if connection.receiving || connection.paused || connection.closing || connection.finishing {
            return;
        }
        let wanted = RECEIVE_BYTES.max(connection.frame_hint);
        connection.receiving = true;
        connection.operations += 1;
        if connection.filled == 0 && !connection.eager {
            connection.space = None;
            driver.submit(Op::Readable { socket: connection.socket }, token::pack(Purpose::Readable, id.slot, id.generation));
            return;
        }
        let mut space = match connection.space.take() {
            Some(space) if space.room() > connection.filled && (connection.filled > 0 || space.room() >= wanted / 2) => space,
            Some(mut old) => {
                let mut space = pool.take(wanted.max(2 * connection.filled));
                space.unfrozen()[..connection.filled].copy_from_slice(&old.unfrozen()[..connection.filled]);
                space
            }
            None => pool.take(wanted),
        };
        let filled = connection.filled;
        let len = (space.unfrozen().len() - filled) as u32;
        let op = Op::Receive { socket: connection.socket, into: space, at: filled as u32, len, whole: false };
        driver.submit(op, token::pack(Purpose::Receive, id.slot, id.generation));
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
            self.to_flush.push(id);
        }
    }

    /// Bytes queued and not yet taken by the kernel.
    pub fn unsent(&mut self, id: ConnectionId) -> usize {
        self.get(id).map_or(0, |connection| connection.out_bytes)
    }

    /// Submits a send for every connection that has bytes and none in flight.
    pub fn flush(&mut self, driver: &mut dyn Driver, now: Nanos) {
        for id in std::mem::take(&mut self.to_flush) {
            self.send_on(driver, id, now);
        }
    }

    fn send_on(&mut self, driver: &mut dyn Driver, id: ConnectionId, now: Nanos) {
        let Some(connection) = self.get(id) else { return };
        if connection.sending || connection.closing || connection.out.is_empty() {
            return;
        }
        let from: Vec<Slice> = connection.out.iter().take(SEND_SLICES_MAX).cloned().collect();
        connection.sending = true;
        connection.operations += 1;
        connection.send_progress = now;
        driver.submit(Op::Send { socket: connection.socket, from }, token::pack(Purpose::Send, id.slot, id.generation));
    }

    fn sent(&mut self, driver: &mut dyn Driver, id: ConnectionId, completion: Completion, now: Nanos, events: &mut Vec<Event>) {
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
        self.send_on(driver, id, now);
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
        if let Some(connection) = self.get(id) {
            connection.paused = false;
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
        driver.submit(Op::CloseSocket { socket: connection.socket }, token::pack(Purpose::CloseSocket, id.slot, id.generation));
    }

    fn reap(&mut self, id: ConnectionId, events: &mut Vec<Event>) {
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

    /// Takes a connection with nothing in flight and nothing queued out of this shard, with the bytes that are buffered.
    pub fn detach(&mut self, driver: &mut dyn Driver, id: ConnectionId) -> Option<DetachedConnection> {
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
            let mut space = pool.take(RECEIVE_BYTES.max(buffered.len()));
            space.unfrozen()[..buffered.len()].copy_from_slice(&buffered);
            connection.filled = buffered.len();
            connection.space = Some(space);
        }
        id
    }
}

/// Gives the frame that is coming in a chunk that holds all of it, or, for a very long one, twice what has come.
fn move_to_larger(pool: &Pool, connection: &mut Connection, length: usize) {
    let wanted = if length <= FRAME_AT_ONCE { length } else { length.min(FRAME_AT_ONCE.max(2 * connection.filled)) };
    if let Some(mut old) = connection.space.take() {
        if wanted <= old.room() {
            connection.space = Some(old);
            return;
        }
        let mut space = pool.take(wanted);
        space.unfrozen()[..connection.filled].copy_from_slice(&old.unfrozen()[..connection.filled]);
        connection.space = Some(space);
    }
    connection.eager = true;
}
