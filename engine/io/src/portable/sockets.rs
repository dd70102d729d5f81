//! What is asked of one connection, and of one listener, and what the system allows of it now.
//!
//! 1. What may be done is remembered: an edge of the watch allows, a call that would wait forbids.
//! 2. An operation is tried when it comes, if that is allowed, and again when it becomes so.
//! 3. Receives are served in order, sends in order; who waits for something to receive is told before receives take it.
//!
//! Invariants: no call waits; what is forbidden will be allowed by an edge that comes later.
//! Knows nothing of files.

use super::watch::{News, is_readable};
use crate::driver::{Completion, IoError, Memory, SEND_SLICES_MAX, Token};
use crate::memory::{Slice, Space};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// Connections taken from one listener before others have their turn.
pub(super) const ACCEPTS_MAX: usize = 64;

pub(super) struct Receive {
    pub(super) token: Token,
    pub(super) into: Space,
    pub(super) range: Range<u32>,
    pub(super) whole: bool,
    /// Bytes that are there already, of a whole one.
    pub(super) count: u32,
}

pub(super) struct Connection {
    /// None once it is closed.
    pub(super) fd: Option<OwnedFd>,
    may_receive: bool,
    may_send: bool,
    /// The other end sends no more: a short receive does not mean that the next would wait.
    ended: bool,
    pub(super) closing: bool,
    receives: VecDeque<Receive>,
    watchers: Vec<Token>,
    sends: VecDeque<(Token, Vec<Slice>)>,
}

fn completion(token: Token, result: Result<u32, IoError>, memory: Memory) -> Completion {
    Completion { token, result, memory, more: false }
}

impl Connection {
    /// The first look at the watch says whether there is something to receive.
    pub(super) fn new(fd: OwnedFd) -> Connection {
        Connection {
            fd: Some(fd),
            may_receive: false,
            may_send: true,
            ended: false,
            closing: false,
            receives: VecDeque::new(),
            watchers: Vec::new(),
            sends: VecDeque::new(),
        }
    }

    /// No news will come of it: what is asked of it ends at once.
    pub(super) fn be_ended(&mut self) {
        (self.may_receive, self.may_send, self.ended) = (true, true, true);
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.receives.is_empty() && self.watchers.is_empty() && self.sends.is_empty() && !self.closing
    }

    pub(super) fn receive(&mut self, receive: Receive, ready: &mut Vec<Completion>) {
        self.receives.push_back(receive);
        self.go_on_receiving(ready);
    }

    pub(super) fn watch(&mut self, token: Token, ready: &mut Vec<Completion>) {
        self.watchers.push(token);
        self.tell_watchers(ready);
    }

    pub(super) fn send(&mut self, token: Token, from: Vec<Slice>, ready: &mut Vec<Completion>) {
        self.sends.push_back((token, from));
        self.go_on_sending(ready);
    }

    pub(super) fn hear(&mut self, news: News, ready: &mut Vec<Completion>) {
        self.may_receive |= news.readable;
        self.may_send |= news.writable;
        self.ended |= news.ended;
        self.tell_watchers(ready);
        self.go_on_receiving(ready);
        self.go_on_sending(ready);
    }

    fn tell_watchers(&mut self, ready: &mut Vec<Completion>) {
        let Some(fd) = self.fd.as_ref().filter(|_| self.may_receive && !self.watchers.is_empty()) else { return };
        if self.ended || is_readable(fd) {
            ready.extend(self.watchers.drain(..).map(|token| completion(token, Ok(0), Memory::None)));
        } else {
            self.may_receive = false;
        }
    }

    fn go_on_receiving(&mut self, ready: &mut Vec<Completion>) {
        while self.may_receive
            && let (Some(fd), Some(receive)) = (&self.fd, self.receives.front_mut())
        {
            let wanted = receive.range.start + receive.count..receive.range.end;
            let room = wanted.len();
            let result = match rustix::net::recv(fd, receive.into.target(wanted), RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.may_receive = false;
                    return;
                }
                Ok((count, _)) => {
                    self.may_receive = count == room || self.ended;
                    receive.count += count as u32;
                    if receive.whole && 0 < count && count < room {
                        continue;
                    }
                    Ok(receive.count)
                }
                // What came before the failure is there.
                Err(_) if receive.count > 0 => Ok(receive.count),
                Err(error) => Err(error.into()),
            };
            if let Some(receive) = self.receives.pop_front() {
                ready.push(completion(receive.token, result, Memory::Space(receive.into)));
            }
        }
    }

    fn go_on_sending(&mut self, ready: &mut Vec<Completion>) {
        while self.may_send
            && let (Some(fd), Some((_, from))) = (&self.fd, self.sends.front())
        {
            let mut ranges = [IoSlice::new(&[]); SEND_SLICES_MAX];
            for (range, slice) in ranges.iter_mut().zip(from) {
                *range = IoSlice::new(slice);
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let result = match rustix::net::sendmsg(fd, &ranges[..from.len()], &mut SendAncillaryBuffer::default(), flags) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.may_send = false;
                    return;
                }
                result => result.map(|count| count as u32).map_err(IoError::from),
            };
            if let Some((token, from)) = self.sends.pop_front() {
                ready.push(completion(token, result, Memory::Slices(from)));
            }
        }
    }

    /// Gives back what is in flight.
    pub(super) fn cancel(&mut self, ready: &mut Vec<Completion>) {
        let cancelled = Err(IoError::CANCELLED);
        ready.extend(self.receives.drain(..).map(|receive| completion(receive.token, cancelled, Memory::Space(receive.into))));
        ready.extend(self.watchers.drain(..).map(|token| completion(token, cancelled, Memory::None)));
        ready.extend(self.sends.drain(..).map(|(token, from)| completion(token, cancelled, Memory::Slices(from))));
    }
}

pub(super) struct Listening {
    /// None once it is closed.
    pub(super) fd: Option<OwnedFd>,
    /// Connections may wait.
    pub(super) may_accept: bool,
    pub(super) closing: bool,
    pub(super) accepts: VecDeque<Token>,
}

/// What one try to accept gave.
pub(super) enum Accepted {
    Connection(Token, OwnedFd),
    /// The client had left.
    Lost,
    /// The accept has ended.
    Failed(Token, IoError),
    /// Nothing more now.
    Nothing,
}

impl Listening {
    pub(super) fn new(fd: OwnedFd) -> Listening {
        Listening { fd: Some(fd), may_accept: false, closing: false, accepts: VecDeque::new() }
    }

    pub(super) fn accept(&mut self) -> Accepted {
        let (true, Some(fd), Some(token)) = (self.may_accept, &self.fd, self.accepts.front().copied()) else { return Accepted::Nothing };
        match rustix::net::accept_with(fd, SocketFlags::CLOEXEC) {
            Ok(connection) => Accepted::Connection(token, connection),
            Err(Errno::INTR | Errno::CONNABORTED) => Accepted::Lost,
            Err(Errno::AGAIN) => {
                self.may_accept = false;
                Accepted::Nothing
            }
            Err(error) => {
                self.accepts.pop_front();
                Accepted::Failed(token, error.into())
            }
        }
    }

    /// Ends the accepts in flight.
    pub(super) fn cancel(&mut self, ready: &mut Vec<Completion>) {
        ready.extend(self.accepts.drain(..).map(|token| completion(token, Err(IoError::CANCELLED), Memory::None)));
    }
}
