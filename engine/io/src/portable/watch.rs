//! Waiting until descriptors have news: epoll, edge-triggered, with a deadline finer than its milliseconds.
//!
//! Knows nothing of what a descriptor is or who cares.

use crate::driver::IoError;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// News that are taken at once.
const NEWS_MAX: usize = 256;

/// From this on a wait is cut to whole milliseconds, which costs one call instead of two; the caller waits again for the rest.
const COARSE_FROM: Duration = Duration::from_millis(20);

/// What a descriptor may do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct News {
    /// As given when it was added.
    pub(super) whose: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The other end sends no more, or the connection has failed: it stays readable.
    pub(super) ended: bool,
}

pub(super) struct Watch {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Watch {
    pub(super) fn new() -> Result<Watch, IoError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Watch { epoll, events: Vec::with_capacity(NEWS_MAX) })
    }

    /// Tells each change of `fd` from now on, the present state first, until it is removed or closed.
    pub(super) fn add(&self, fd: impl AsFd, whose: u64) -> Result<(), IoError> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(whose), flags)?)
    }

    pub(super) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd); // what could not be added is not there
    }

    /// Appends the news, waiting for them until `timeout` has passed (None: for ever), or a little less.
    pub(super) fn look(&mut self, timeout: Option<Duration>, news: &mut Vec<News>) {
        let timeout = match timeout {
            Some(left) if !left.is_zero() && left < COARSE_FROM => {
                self.wait_exactly(left);
                Some(Duration::ZERO)
            }
            Some(left) => Some(Duration::from_millis(left.as_millis() as u64)),
            None => None,
        };
        self.events.clear();
        let events = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, events, timeout.map(time).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("waiting with known arguments: {error}"),
        }
        news.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            let (readable, writable) = (flags.contains(EventFlags::IN), flags.contains(EventFlags::OUT));
            let failed = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            News { whose: event.data.u64(), readable: readable || ended, writable: writable || failed, ended }
        }));
    }

    fn wait_exactly(&self, left: Duration) {
        match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&time(left))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("waiting with known arguments: {error}"),
        }
    }
}

fn time(left: Duration) -> Timespec {
    // A deadline is at most as far as the growing clock's 64 bits of nanoseconds.
    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
}

/// Whether something can be received now, or the other end has finished.
pub(super) fn is_readable(fd: impl AsFd) -> bool {
    let zero = time(Duration::ZERO);
    poll(&mut [PollFd::new(&fd, PollFlags::IN | PollFlags::RDHUP)], Some(&zero)).is_ok_and(|found| found > 0)
}
