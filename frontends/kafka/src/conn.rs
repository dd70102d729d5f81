//! One connection's requests: begun in order, answered in order.
//!
//! 1. A frame joins the queue. The first request begins; one behind it begins early only if it and all before it are produces, whose order
//!    the partitions keep. Everything else sees what the requests before it have done, as on a Kafka broker.
//! 2. A request ends in any order; its answer leaves when all before it have left. So a long poll holds those behind it.
//! 3. While anything but produce is under way, or too many requests or bytes are held, the connection is not read: what it would bring
//!    could not begin. When too many bytes wait to be sent, or there is no memory for an answer, nothing begins.
//!
//! Invariants: answers leave in the order in which frames came; begun requests are a prefix of the queue.
//! Knows nothing of frames' content beyond their key, and of sockets.

use std::collections::VecDeque;

use millrace_base::clock::Nanos;
use millrace_io::{Slice, Space};

use crate::affinity::Affinity;
use crate::call::{Answer, CallId};

/// Bytes of frames that one connection may hold before it is not read any more.
pub const HELD_BYTES_MAX: usize = 16 << 20;

/// A frame that waits for its turn and is no longer than this is copied out of the memory that it was received into.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Bytes of memory that such frames of one connection are copied into together.
const KEPT_TOGETHER_BYTES: usize = 64 << 10;

/// While more answer bytes than this wait for the client, no further request begins.
pub const UNSENT_BYTES_MAX: usize = 1 << 20;

enum State {
    /// Not begun.
    Waiting(Slice),
    Begun,
    Ended(Answer),
}

struct Queued {
    state: State,
    bytes: usize,
    is_produce: bool,
    call: CallId,
    came: Nanos,
}

/// A request that has its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// When it had come whole.
    pub came: Nanos,
    pub request_bytes: usize,
    pub response_bytes: usize,
}

/// A connection's state; it may move to another shard when it is quiet.
pub struct Connection {
    pub listener: usize,
    /// As Kafka shows it: `/127.0.0.1`.
    pub host: String,
    pub affinity: Affinity,
    /// Not read because of what it holds.
    pub is_paused: bool,
    /// To be closed; nothing more begins or leaves.
    pub is_closing: bool,
    /// The fetch session that it used last.
    pub session: i32,
    queue: VecDeque<Queued>,
    begun: usize,
    held_bytes: usize,
    /// Where small frames that wait are copied to; None when nothing waits.
    kept: Option<Space>,
}

impl Connection {
    pub fn new(listener: usize, host: String) -> Connection {
        Connection {
            listener,
            host,
            affinity: Affinity::default(),
            is_paused: false,
            is_closing: false,
            session: 0,
            queue: VecDeque::new(),
            begun: 0,
            held_bytes: 0,
            kept: None,
        }
    }

    /// A request came; `call` is its name from now on.
    pub fn push(&mut self, frame: Slice, is_produce: bool, call: CallId, came: Nanos) {
        self.held_bytes += frame.len();
        self.queue.push_back(Queued { bytes: frame.len(), state: State::Waiting(frame), is_produce, call, came });
    }

    /// Copies the frame that came last, if it waits and is small, to the others of its kind: each would keep the whole chunk that it was
    /// received into, and a hundred requests of a few bytes those of megabytes.
    pub fn keep_last(&mut self, room: impl FnOnce(usize) -> Space) {
        let Some(Queued { state: State::Waiting(frame), .. }) = self.queue.back_mut() else { return };
        if frame.len() > KEPT_BYTES_MAX {
            return;
        }
        let kept = self.kept.take().filter(|kept| kept.room() >= frame.len());
        let mut kept = kept.unwrap_or_else(|| room(KEPT_TOGETHER_BYTES));
        *frame = kept.push(frame);
        self.kept = Some(kept);
    }

    /// The next request that may begin.
    pub fn next(&self) -> Option<&Slice> {
        let at = self.begun;
        let may = at == 0 || self.queue.iter().take(at + 1).all(|queued| queued.is_produce);
        match &self.queue.get(at).filter(|_| may)?.state {
            State::Waiting(frame) => Some(frame),
            State::Begun | State::Ended(_) => None,
        }
    }

    /// The next request that may begin, which it has with that.
    pub fn begin(&mut self) -> Option<(CallId, Slice)> {
        self.next()?;
        let queued = self.queue.get_mut(self.begun)?;
        let State::Waiting(frame) = std::mem::replace(&mut queued.state, State::Begun) else { return None };
        self.begun += 1;
        Some((queued.call, frame))
    }

    /// A begun request has its answer.
    pub fn end(&mut self, call: CallId, answer: Answer) -> Option<Ended> {
        let queued = self.queue.iter_mut().take(self.begun).find(|queued| queued.call == call)?;
        let ended = Ended { came: queued.came, request_bytes: queued.bytes, response_bytes: answer.bytes() };
        queued.state = State::Ended(answer);
        Some(ended)
    }

    /// The next answer to leave.
    pub fn leave(&mut self) -> Option<Answer> {
        if !matches!(self.queue.front()?.state, State::Ended(_)) {
            return None;
        }
        let queued = self.queue.pop_front()?;
        self.begun -= 1;
        self.held_bytes -= queued.bytes;
        if self.queue.is_empty() {
            self.kept = None;
        }
        match queued.state {
            State::Ended(answer) => Some(answer),
            State::Waiting(_) | State::Begun => None,
        }
    }

    /// Requests that have begun and not left.
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// Names of requests that have begun and not ended.
    pub fn running(&self) -> Vec<CallId> {
        let running = self.queue.iter().take(self.begun).filter(|queued| matches!(queued.state, State::Begun));
        running.map(|queued| queued.call).collect()
    }

    /// Whether it holds as much as it may. Behind a request that waits for more than the engine, as a long poll does, nothing is read, so
    /// that a client cannot have memory held for as long as it likes.
    pub fn is_full(&self, requests_max: usize) -> bool {
        let waits = self.queue.iter().take(self.begun).any(|queued| !queued.is_produce);
        waits || self.queue.len() >= requests_max || self.held_bytes >= HELD_BYTES_MAX
    }

    /// Whether it holds nothing.
    pub fn is_quiet(&self) -> bool {
        self.queue.is_empty() && !self.is_closing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_io::Pool;

    fn frame(bytes: usize) -> Slice {
        Pool::new(0).take(bytes).push(&vec![0; bytes])
    }

    fn connection(kinds: &str) -> Connection {
        let mut connection = Connection::new(0, String::new());
        for (call, kind) in kinds.chars().enumerate() {
            connection.push(frame(10), kind == 'p', call as CallId, Nanos(0));
        }
        connection
    }

    fn begin_all(connection: &mut Connection) -> Vec<CallId> {
        std::iter::from_fn(|| connection.begin()).map(|(call, _)| call).collect()
    }

    fn leave_all(connection: &mut Connection) -> Vec<String> {
        std::iter::from_fn(|| connection.leave())
            .map(|answer| match answer {
                Answer::Close(reason) => reason,
                other => format!("{other:?}"),
            })
            .collect()
    }

    fn named(name: &str) -> Answer {
        Answer::Close(name.to_owned())
    }

    #[test]
    fn answers_leave_in_request_order_although_they_come_in_any() {
        let mut connection = connection("ppp");
        assert_eq!(begin_all(&mut connection), [0, 1, 2]);
        connection.end(2, named("c"));
        connection.end(1, named("b"));
        assert_eq!(leave_all(&mut connection), Vec::<String>::new());
        connection.end(0, named("a"));
        assert_eq!(leave_all(&mut connection), ["a", "b", "c"]);
        assert!(connection.is_quiet());
    }

    #[test]
    fn a_request_waits_for_those_before_it_unless_all_are_produces() {
        let mut connection = connection("ppfppm");
        assert_eq!(begin_all(&mut connection), [0, 1]);
        connection.end(1, named("b"));
        assert_eq!(begin_all(&mut connection), Vec::<CallId>::new());
        connection.end(0, named("a"));
        leave_all(&mut connection);
        assert_eq!(begin_all(&mut connection), [2]);
        assert_eq!(connection.running(), [2]);
        connection.end(2, named("c"));
        leave_all(&mut connection);
        assert_eq!(begin_all(&mut connection), [3, 4]);
        for call in [3, 4] {
            connection.end(call, named("x"));
        }
        leave_all(&mut connection);
        assert_eq!(begin_all(&mut connection), [5]);
    }

    #[test]
    fn small_frames_that_wait_share_their_memory() {
        let pool = Pool::new(0);
        let mut connection = Connection::new(0, String::new());
        for call in 0..100u8 {
            connection.push(pool.take(64 << 10).push(&[call; 300]), false, u64::from(call), Nanos(0));
            connection.keep_last(|bytes| pool.take(bytes));
        }
        assert_eq!(pool.used(), 64 << 10);
        for call in 0..100u8 {
            let (_, frame) = connection.begin().expect("it waits");
            assert_eq!(&*frame, [call; 300]);
            connection.end(u64::from(call), named("x"));
            leave_all(&mut connection);
        }
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_connection_is_full_by_requests_or_by_bytes() {
        let mut small = connection("pp");
        assert!(!small.is_full(3) && small.is_full(2));
        begin_all(&mut small);
        small.end(0, named("a"));
        leave_all(&mut small);
        assert!(!small.is_full(2));
        let mut large = connection("");
        large.push(frame(HELD_BYTES_MAX), true, 0, Nanos(0));
        assert!(large.is_full(100));
    }

    #[test]
    fn nothing_is_read_behind_a_request_that_waits_unless_it_is_produce() {
        let mut connection = connection("pf");
        begin_all(&mut connection);
        assert!(!connection.is_full(100), "a produce waits for the engine only");
        connection.end(0, named("a"));
        leave_all(&mut connection);
        begin_all(&mut connection);
        assert!(connection.is_full(100));
        connection.end(1, named("b"));
        leave_all(&mut connection);
        assert!(!connection.is_full(100));
    }

    #[test]
    fn an_answer_for_a_request_that_has_not_begun_changes_nothing() {
        let mut connection = connection("ff");
        begin_all(&mut connection);
        connection.end(1, named("b"));
        connection.end(9, named("z"));
        assert_eq!(leave_all(&mut connection), Vec::<String>::new());
    }
}
