//! Receiving whole frames into a share of memory that may be full.
//!
//! 1. A connection that is drained waits with [`Op::Readable`], which holds no memory; the few bytes of a frame that may have come already
//!    are kept in a chunk of their size. Then it receives into a larger chunk.
//! 2. A front says how long the frame at the front of the bytes is; whole frames are handed out as slices of the chunk, uncopied.
//! 3. A frame that does not fit its chunk moves to a larger one, which grows with what has really come, not with what was announced. One
//!    that is longer than any recycled chunk moves once, to a chunk that is opened step by step.
//! 4. Memory is taken when the share has room for it. Else the connection joins a queue and is not read: one queue for chunks of up to
//!    [`RECEIVE_BYTES`], one for larger ones, which leave an eighth of the share to the small.
//! 5. So that large frames do not stop each other half way, one connection is the *finisher*: what its frame lacks is set aside for it
//!    before any other large one grows. When its frame is whole, the next takes its place.
//! 6. A paused connection is read no further than [`SMALL_BYTES`], so that its end is noticed.
//!
//! Invariants: a connection in a queue has no receive in flight; received bytes <= the share, but for chunks of their own size that a
//! connection brings from another shard; the finisher's frame fits the share.
//! Knows nothing of who is to blame when nothing moves: see [`crate::shortage`].

use crate::front::Frame;
use crate::net::{Connection, ConnectionId, Event, Net, Next};
use crate::token::{self, Purpose};
use millrace_base::clock::Nanos;
use millrace_io::memory::RECYCLED_BYTES_MAX;
use millrace_io::{Completion, Driver, Memory, Op, Pool, Space};
use std::collections::VecDeque;

/// Bytes asked of a socket at once when no frame length is known yet.
pub(crate) const RECEIVE_BYTES: usize = 64 << 10;

/// What a drained connection may keep in a chunk of its own size without a second thought, and a paused one may read.
pub(crate) const SMALL_BYTES: usize = 4 << 10;

/// Frames up to this are given their whole memory at once when the ones before were as long.
const FRAME_AT_ONCE: usize = 1 << 20;

/// Who brings so much of a frame in half a second moves, and is not to blame when others wait for memory.
pub(crate) const MOVED_BYTES: usize = 16 << 10;

/// Who brings less of a frame in half a minute is closed: 1 KiB/s.
pub(crate) const DRIBBLE_BYTES_MIN: usize = 30 << 10;

/// Bytes by which a chunk is opened.
const STEP_BYTES: usize = 1 << 20;

/// Which queue a connection waits in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    Small,
    Large,
}

/// Who waits for memory to receive into.
#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) small: Queue,
    pub(crate) large: Queue,
    /// Whose frame has the rest of its memory set aside.
    finisher: Option<ConnectionId>,
    /// What was used when the first of the large ones was refused last.
    refused_at: usize,
}

#[derive(Default)]
pub(crate) struct Queue {
    ids: VecDeque<ConnectionId>,
    /// When the queue moved last, or began.
    moved: Nanos,
}

impl Queue {
    /// How long nobody has come to his turn; zero when nobody waits.
    pub(crate) fn stuck_for(&self, now: Nanos) -> std::time::Duration {
        if self.ids.is_empty() { std::time::Duration::ZERO } else { now.since(self.moved) }
    }
}

impl Waiting {
    /// Its frame is whole, or will never be: another may be the finisher, whatever is used.
    pub(crate) fn forget_finisher(&mut self, id: ConnectionId) {
        if self.finisher.take_if(|finisher| *finisher == id).is_some() {
            self.refused_at = usize::MAX;
        }
    }
}

/// What stands at the front of a connection's bytes.
#[derive(PartialEq, Eq)]
enum AtFront {
    Whole(usize),
    Part,
    Bad(String),
    /// It is not to be looked at: a receive is under way or waits, or the connection is on its way out.
    Busy,
}

/// Where the next bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Into {
    /// Into the chunk that is there.
    Here,
    /// Into the chunk that is there, once it is open up to this byte.
    Open(usize),
    /// Into another chunk.
    Chunk(usize),
    /// Into another chunk of so many bytes, of which so many are open.
    Steps(usize, usize),
}

impl Connection {
    /// Bytes of the share that its chunk counts, whoever else holds slices of it.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.space.as_ref().map_or(0, Space::capacity)
    }

    /// Bytes of the share that go home when it is closed; the ring may have the chunk.
    pub(crate) fn held(&self) -> usize {
        if self.filled == 0 { 0 } else { self.chunk_bytes().max(self.filled) }
    }

    fn next_into(&self) -> Into {
        let room = self.space.as_ref().map_or(0, Space::room);
        if self.in_steps && self.length.is_some() {
            return if room > self.filled { Into::Here } else { Into::Open(self.filled + STEP_BYTES) };
        }
        let wanted = match self.length {
            _ if self.paused => SMALL_BYTES,
            None => RECEIVE_BYTES.max(self.frame_hint),
            Some(length) => length.min(RECEIVE_BYTES.max(self.frame_hint).max(8 * self.filled)),
        };
        let is_enough = room >= wanted || (self.length.is_none() && room >= wanted / 2);
        match self.length {
            _ if is_enough && room > self.filled => Into::Here,
            Some(length) if length > RECYCLED_BYTES_MAX && self.filled >= RECEIVE_BYTES / 2 => {
                Into::Steps(length, length.min(self.filled + STEP_BYTES))
            }
            _ => Into::Chunk(wanted.max(self.filled + 1)),
        }
    }

    /// What has to come out of the share until its frame is whole.
    fn rest(&self, into: Into) -> usize {
        let length = self.length.unwrap_or(0);
        match into {
            Into::Here | Into::Open(_) => length.saturating_sub(self.chunk_bytes()),
            Into::Chunk(len) => Pool::size_of(len.max(length)),
            Into::Steps(len, _) => len,
        }
    }

    /// Moves what has come into another chunk.
    fn move_to(&mut self, mut space: Space) {
        if let Some(mut old) = self.space.take() {
            space.unfrozen()[..self.filled].copy_from_slice(&old.unfrozen()[..self.filled]);
        }
        self.space = Some(space);
    }

    /// Keeps what has come in a chunk of its size, or nothing when nothing has.
    pub(crate) fn shrink(&mut self, pool: &Pool) {
        if self.filled == 0 {
            self.space = None;
        } else if self.space.is_some() && Pool::size_of(self.filled) < self.chunk_bytes() {
            self.move_to(pool.take(self.filled));
        }
        self.in_steps = false;
    }
}

impl Net {
    pub(crate) fn received(&mut self, driver: &mut dyn Driver, id: ConnectionId, completion: Completion, events: &mut Vec<Event>) {
        let (purpose, ..) = token::unpack(completion.token);
        let now = self.now;
        self.traffic.received_bytes += if purpose == Purpose::Receive { u64::from(completion.result.unwrap_or(0)) } else { 0 };
        let Some(connection) = self.get(id) else { return };
        connection.operations -= 1;
        connection.receiving = false;
        if connection.closing {
            drop(completion);
            return self.reap(id, events);
        }
        if let Memory::Space(space) = completion.memory {
            connection.space = Some(space);
        }
        match (purpose, completion.result) {
            (Purpose::Readable, Ok(_)) => {
                connection.eager = true;
                self.is_ready = true;
                self.receive(driver, id);
            }
            (_, Ok(0)) | (_, Err(_)) => self.close(driver, id),
            (_, Ok(bytes)) => {
                (connection.last_active, connection.came) = (now, now);
                connection.dribbled += bytes as usize;
                if connection.filled == 0 || connection.dribbled >= DRIBBLE_BYTES_MIN {
                    (connection.dribbles_since, connection.dribbled) = (now, 0);
                }
                if connection.filled == 0 {
                    (connection.moved, connection.came_since) = (now, 0);
                }
                connection.filled += bytes as usize;
                connection.came_since += bytes as usize;
                if connection.came_since >= MOVED_BYTES {
                    (connection.moved, connection.came_since) = (now, 0);
                }
                // A short receive has drained the socket.
                let unasked = connection.space.as_ref().map_or(0, |space| space.room() - connection.filled);
                connection.eager = unasked == 0;
                events.push(Event::Bytes { connection: id });
            }
        }
    }

    /// Whether [`Net::next_frame`] would give a frame or say what is wrong with one. When neither, it goes on as that does.
    pub fn has_frame(&mut self, driver: &mut dyn Driver, id: ConnectionId, frame: impl Fn(&[u8]) -> Frame) -> bool {
        let at_front = self.at_front(id, frame);
        if at_front == AtFront::Part {
            self.receive(driver, id);
        }
        matches!(at_front, AtFront::Whole(_) | AtFront::Bad(_))
    }

    /// The next whole frame, if it is there. When none is, and the connection may read on, the next receive is under way, or the connection
    /// waits for memory.
    pub fn next_frame(&mut self, driver: &mut dyn Driver, id: ConnectionId, frame: impl Fn(&[u8]) -> Frame) -> Next {
        match self.at_front(id, frame) {
            AtFront::Whole(length) => self.take_frame(id, length),
            AtFront::Bad(reason) => Next::Bad(reason),
            AtFront::Busy => Next::Nothing,
            AtFront::Part => {
                self.receive(driver, id);
                Next::Nothing
            }
        }
    }

    /// Looks at the bytes that came; notes the length of a frame that is not all there.
    fn at_front(&mut self, id: ConnectionId, frame: impl Fn(&[u8]) -> Frame) -> AtFront {
        let longest = self.longest();
        let Some(connection) = self.get(id) else { return AtFront::Busy };
        if connection.closing || connection.finishing || connection.receiving || connection.waits.is_some() {
            return AtFront::Busy;
        }
        let Some(space) = connection.space.as_mut().filter(|_| !connection.paused) else { return AtFront::Part };
        connection.length = match frame(&space.unfrozen()[..connection.filled]) {
            Frame::More => None,
            Frame::Bad(reason) => return AtFront::Bad(reason),
            Frame::Bytes(length) => Some(length),
        };
        match connection.length {
            Some(length) if connection.filled >= length => {
                connection.length = None;
                AtFront::Whole(length)
            }
            Some(length) if length > longest => AtFront::Bad(format!(
                "a frame of {length} bytes, and no more than {longest} can be received at once: that follows from memory.max.bytes and shards"
            )),
            _ => AtFront::Part,
        }
    }

    fn take_frame(&mut self, id: ConnectionId, length: usize) -> Next {
        let now = self.now;
        let Some(connection) = self.get(id) else { return Next::Nothing };
        let Some(space) = connection.space.as_mut() else { return Next::Nothing };
        let frame = space.freeze(length);
        connection.frame_hint = length.max(connection.frame_hint / 8 * 7).min(FRAME_AT_ONCE);
        connection.filled -= length;
        connection.in_steps = false;
        (connection.moved, connection.came_since) = (now, 0);
        (connection.dribbles_since, connection.dribbled) = (now, 0);
        self.waiting.forget_finisher(id);
        Next::Frame(frame)
    }

    /// The longest frame that can be received.
    fn longest(&self) -> usize {
        self.pool.budget() / 8 * 7
    }

    /// Has the next bytes received, in any of the ways that the module's head names.
    pub(crate) fn receive(&mut self, driver: &mut dyn Driver, id: ConnectionId) {
        self.receive_or_wait(driver, id, false);
    }

    /// `passes`: it may be served before others that wait. False: it waits.
    fn receive_or_wait(&mut self, driver: &mut dyn Driver, id: ConnectionId, passes: bool) -> bool {
        let pool = self.pool.clone();
        let Some(connection) = self.get(id) else { return true };
        let is_busy = connection.receiving || connection.closing || connection.finishing || connection.waits.is_some();
        if is_busy || (connection.paused && connection.filled > 0) {
            return true;
        }
        if !connection.eager {
            let is_idle = connection.filled == 0;
            if connection.filled <= SMALL_BYTES {
                connection.shrink(&pool);
            }
            connection.receiving = true;
            connection.operations += 1;
            driver.submit(Op::Readable { socket: connection.socket }, token::pack(Purpose::Readable, id.slot(), id.generation()));
            if is_idle {
                self.waiting.forget_finisher(id);
            }
            return true;
        }
        let mut into = connection.next_into();
        if connection.length.is_none() && matches!(into, Into::Chunk(len) if len > RECEIVE_BYTES) && !self.admits(id, into, passes) {
            into = Into::Chunk(RECEIVE_BYTES); // the frames before were longer; this one may be short
        }
        if !self.admits(id, into, passes) {
            self.wait_for_memory(id, into);
            return false;
        }
        let Some(connection) = self.get(id) else { return true };
        match into {
            Into::Here => {}
            Into::Open(to) => {
                if let Some(space) = connection.space.as_mut() {
                    space.open(space.frozen() + to);
                }
            }
            Into::Chunk(len) => {
                connection.move_to(pool.take(len));
                connection.in_steps = false;
            }
            Into::Steps(len, open) => {
                connection.move_to(pool.take_in_steps(len, open));
                connection.in_steps = true;
            }
        }
        let Some(mut space) = connection.space.take() else { return true };
        connection.receiving = true;
        connection.operations += 1;
        let filled = connection.filled;
        let len = (space.unfrozen().len() - filled) as u32;
        let op = Op::Receive { socket: connection.socket, into: space, at: filled as u32, len, whole: false };
        driver.submit(op, token::pack(Purpose::Receive, id.slot(), id.generation()));
        true
    }

    /// Whether the share has room for what the connection wants next; a large frame may become the finisher's by that.
    fn admits(&mut self, id: ConnectionId, into: Into, passes: bool) -> bool {
        let (used, budget, longest) = (self.pool.used(), self.pool.budget(), self.longest());
        let Some(connection) = self.get(id) else { return true };
        let cost = match into {
            Into::Here => return true,
            Into::Open(to) => to.saturating_sub(connection.space.as_ref().map_or(0, Space::room)),
            Into::Chunk(len) => Pool::size_of(len),
            Into::Steps(_, open) => open,
        };
        let (rest, is_known) = (connection.rest(into), connection.length.is_some());
        if size(into) == Size::Small {
            return (passes || self.waiting.small.ids.is_empty()) && used + cost <= budget;
        }
        match self.waiting.finisher {
            Some(finisher) if finisher == id => used + cost <= budget,
            _ if !passes && !self.waiting.large.ids.is_empty() => false,
            Some(finisher) => {
                let set_aside = self.get(finisher).map_or(0, |finisher| finisher.rest(finisher.next_into()));
                used + set_aside + cost <= longest
            }
            None if is_known && used + rest <= longest => {
                self.waiting.finisher = Some(id);
                true
            }
            None => !is_known && used + cost <= longest,
        }
    }

    fn wait_for_memory(&mut self, id: ConnectionId, into: Into) {
        let (size, now) = (size(into), self.now);
        let Some(connection) = self.get(id) else { return };
        (connection.waits, connection.waits_since) = (Some(size), now);
        let is_finisher = self.waiting.finisher == Some(id);
        if size == Size::Large && self.waiting.large.ids.is_empty() {
            self.waiting.refused_at = self.pool.used();
        }
        let queue = self.queue(size);
        if queue.ids.is_empty() {
            queue.moved = now;
        }
        if is_finisher {
            queue.ids.push_front(id);
        } else {
            queue.ids.push_back(id);
        }
    }

    /// Whether a connection waits for memory to receive into.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.small.ids.is_empty() || !self.waiting.large.ids.is_empty()
    }

    /// Lets those go on that memory has come home for, in order. Called in every turn.
    pub fn resume_waiting(&mut self, driver: &mut dyn Driver, now: Nanos) {
        self.now = now;
        let used = self.pool.used();
        while !self.waiting.small.ids.is_empty() && self.pool.has_room(RECEIVE_BYTES) {
            self.resume_next(driver, Size::Small);
        }
        if used < self.waiting.refused_at {
            while !self.waiting.large.ids.is_empty() && self.resume_next(driver, Size::Large) {}
            self.waiting.refused_at = self.pool.used();
        }
    }

    /// Lets the first of a queue go on; false: it goes on waiting, first again.
    fn resume_next(&mut self, driver: &mut dyn Driver, size: Size) -> bool {
        let now = self.now;
        let queue = self.queue(size);
        let before = queue.moved;
        let Some(id) = queue.ids.pop_front() else { return true };
        let Some(connection) = self.get(id) else { return true };
        connection.waits_no_more(now);
        (connection.dribbles_since, connection.dribbled) = (connection.dribbles_since.max(before), 0);
        let went_on = self.receive_or_wait(driver, id, true);
        let queue = self.queue(size);
        queue.moved = if went_on { now } else { before };
        if !went_on && queue.ids.back() == Some(&id) {
            queue.ids.rotate_right(1);
        }
        went_on
    }

    fn queue(&mut self, size: Size) -> &mut Queue {
        match size {
            Size::Small => &mut self.waiting.small,
            Size::Large => &mut self.waiting.large,
        }
    }

    /// Lets any of the large ones go on that can, in order: the first cannot, and nothing has moved for long.
    pub(crate) fn resume_any(&mut self, driver: &mut dyn Driver) {
        let (mut moved, now) = (self.waiting.large.moved, self.now);
        for _ in 0..self.waiting.large.ids.len() {
            let Some(id) = self.waiting.large.ids.pop_front() else { return };
            let Some(connection) = self.get(id) else { continue };
            connection.waits_no_more(now);
            if self.receive_or_wait(driver, id, true) {
                moved = now;
            }
        }
        self.waiting.large.moved = moved;
    }

    /// The finisher, when it has not moved since `since`, is one of many again. Gives whether there is one that moves.
    pub(crate) fn demote_finisher(&mut self, since: Nanos) -> bool {
        let Some(id) = self.waiting.finisher else { return false };
        let moves = self.get(id).is_some_and(|connection| connection.waits.is_none() && connection.moved >= since);
        if !moves {
            self.waiting.forget_finisher(id);
        }
        moves
    }
}

fn size(into: Into) -> Size {
    match into {
        Into::Chunk(len) if len <= RECEIVE_BYTES => Size::Small,
        Into::Here | Into::Open(_) | Into::Chunk(_) | Into::Steps(..) => Size::Large,
    }
}

#[cfg(test)]
mod tests;
