//! From a completion of the ring to a completion of the driver.
//!
//! 1. What was interrupted before it did anything is given to the ring again, a bounded number of times.
//! 2. An open that the file system refuses to do directly is tried cached.
//! 3. Ending a socket or listener goes in stages: cancel what is in flight; wait for it (shutting down if cancelling did not reach it);
//!    close.
//!
//! Invariants: a flight is taken out by its last completion only; a sync is never repeated.

use super::flight::{BELL, Deed, End, Flight, NOBODY};
use super::start::open_entry;
use super::{Endpoint, UringDriver};
use crate::blocking::OpenFile;
use crate::driver::{Completion, IoError, Memory, OpenHow, Token};
use crate::socket::shutdown;
use io_uring::cqueue;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

/// Times that one operation is given to the ring again after an interruption.
const REPEATS_MAX: u8 = 64;

type Outcome = Result<u32, IoError>;

impl UringDriver {
    pub(super) fn finish(&mut self, entry: &cqueue::Entry, completions: &mut Vec<Completion>) {
        let more = cqueue::more(entry.flags());
        let user_data = entry.user_data();
        if user_data == BELL {
            if !more {
                self.watch_bell();
            }
            return;
        }
        if user_data == NOBODY {
            return;
        }
        let result = u32::try_from(entry.result()).map_err(|_| IoError(-entry.result()));
        let flight = self.flights.get_mut(user_data);
        let token = flight.token;
        if let Deed::Accept { listener } = flight.deed {
            self.finish_accept(user_data, listener, token, result, more, completions);
            return;
        }
        assert!(!more, "accept alone completes more than once");
        let flight = self.flights.take(user_data);
        if self.should_repeat(&flight, result) {
            self.again(token, flight.deed, flight.repeats + 1, flight.entry);
            return;
        }
        let repeats = flight.repeats;
        let deed = match (flight.deed, result) {
            (Deed::Write { file, from, synced: true }, Ok(count)) => return self.settle(file, from, count, token, completions),
            (deed, _) => deed,
        };
        if let Some((result, memory)) = self.outcome(token, repeats, deed, result) {
            completions.push(Completion { token, result, memory, more: false });
        }
    }

    /// What to tell the submitter; nothing yet if the operation goes on.
    fn outcome(&mut self, token: Token, repeats: u8, deed: Deed, result: Outcome) -> Option<(Outcome, Memory)> {
        Some(match deed {
            Deed::Open { path, how } if result == Err(IoError(libc::EINVAL)) && how.direct => {
                // The system makes the file before it finds that it cannot open it directly, so it may be there by now.
                let cached = OpenHow { direct: false, exclusive: false, ..how };
                let entry = open_entry(&path, cached);
                self.again(token, Deed::Open { path, how: cached }, repeats + 1, entry);
                return None;
            }
            Deed::Open { how, .. } => (result.map(|fd| self.opened(fd, how)), Memory::None),
            // The descriptor is gone whatever close said, and nothing durable hangs on it.
            Deed::CloseFile => (Ok(0), Memory::None),
            Deed::Sync | Deed::SyncDirectory { .. } | Deed::Truncate | Deed::Allocate | Deed::Names { .. } => {
                (result.map(|_| 0), Memory::None)
            }
            Deed::Read { into } => (result, Memory::Space(into)),
            Deed::Write { from, synced, .. } => {
                self.unsettled -= u32::from(synced);
                (result, Memory::Slice(from))
            }
            Deed::Settle { from, count } => {
                self.unsettled -= 1;
                self.settling -= 1;
                self.workers.raise();
                (result.map(|_| count), Memory::Slice(from))
            }
            Deed::Receive { socket, into } => {
                let ended_by_us = self.vacate(End::Socket(socket)) && result == Ok(0);
                (if ended_by_us { Err(IoError::CANCELLED) } else { result }, Memory::Space(into))
            }
            Deed::Readable { socket } => {
                let ended_by_us = self.vacate(End::Socket(socket));
                (if ended_by_us { Err(IoError::CANCELLED) } else { result.map(|_| 0) }, Memory::None)
            }
            Deed::Send { socket, from, gather } => {
                self.gathers.push(gather);
                self.vacate(End::Socket(socket));
                (result, Memory::Slices(from))
            }
            Deed::Cancel { end } => {
                self.finish_cancel(end);
                return None;
            }
            Deed::CloseEnd { end } => {
                match end {
                    End::Socket(number) => self.sockets.take(number),
                    End::Listener(number) => self.listeners.take(number),
                };
                (Ok(0), Memory::None)
            }
            Deed::Accept { .. } => unreachable!("accepts are finished one connection at a time"),
        })
    }

    fn should_repeat(&mut self, flight: &Flight, result: Outcome) -> bool {
        let Err(IoError(libc::EINTR | libc::EAGAIN)) = result else { return false };
        let may = match &flight.deed {
            Deed::Open { .. } | Deed::Read { .. } | Deed::Write { .. } | Deed::Names { .. } | Deed::Truncate | Deed::Allocate => true,
            Deed::Receive { socket, .. } | Deed::Readable { socket } | Deed::Send { socket, .. } => {
                self.endpoint(End::Socket(*socket)).is_some_and(|endpoint| endpoint.closing.is_none())
            }
            Deed::Sync | Deed::SyncDirectory { .. } | Deed::CloseFile | Deed::Accept { .. } | Deed::Cancel { .. } => false,
            // An interrupted sync may have failed in part, and a second one would not say so.
            Deed::CloseEnd { .. } | Deed::Settle { .. } => false,
        };
        may && flight.repeats < REPEATS_MAX
    }

    fn finish_accept(
        &mut self,
        user_data: u64,
        listener: u32,
        token: Token,
        result: Outcome,
        more: bool,
        completions: &mut Vec<Completion>,
    ) {
        let result = result.map(|fd| self.sockets.insert(Endpoint::new(taken(fd))));
        if !more {
            self.flights.take(user_data);
            self.vacate(End::Listener(listener));
        }
        completions.push(Completion { token, result, memory: Memory::None, more });
    }

    fn opened(&mut self, fd: u32, how: OpenHow) -> u32 {
        self.disk.files.insert(OpenFile::new(taken(fd).into(), how.direct))
    }

    /// An operation on an endpoint has completed. True: the endpoint is being closed.
    fn vacate(&mut self, end: End) -> bool {
        let endpoint = self.endpoint(end).expect("an endpoint stays while operations are in flight on it");
        endpoint.operations -= 1;
        let closing = endpoint.closing.is_some();
        if closing && endpoint.operations == 0 {
            self.close(end);
        }
        closing
    }

    /// Cancelling has reached what it could; what is left (if it runs on a kernel thread) comes back by shutting down.
    fn finish_cancel(&mut self, end: End) {
        self.vacate(end);
        let endpoint = self.endpoint(end).expect("an endpoint stays until it is closed");
        if endpoint.operations > 0 {
            shutdown(endpoint.fd.as_ref().expect("kept until closed").as_fd());
        }
    }
}

/// Owns a descriptor that the ring has just made.
fn taken(fd: u32) -> OwnedFd {
    // SAFETY: the completion handed over a descriptor that no one else owns.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}
