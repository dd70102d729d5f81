//! The two queues shared with the kernel: pushing entries, entering, taking completions.
//!
//! Entries that find the submission queue full are handed over at once; if the kernel takes none, they wait in order.
//!
//! Invariants: entries reach the kernel in the order they were pushed.
//! Knows nothing of what entries mean or which memory they name.

use super::setup::Abilities;
use crate::driver::IoError;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};
use std::collections::VecDeque;
use std::time::Duration;

pub(super) struct Ring {
    ring: IoUring,
    waiting: VecDeque<squeue::Entry>,
    abilities: Abilities,
}

/// What entering the kernel came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entered {
    Done,
    /// Completions must be taken first, or the kernel is out of memory for requests.
    Later,
}

impl Ring {
    pub(super) fn new(ring: IoUring, abilities: Abilities) -> Ring {
        Ring { ring, waiting: VecDeque::new(), abilities }
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// Queues an entry. Memory that it names must stay valid and untouched until its completion was taken.
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        if self.waiting.is_empty() && self.try_push(&entry) {
            return;
        }
        self.waiting.push_back(entry);
        self.enter(0, None);
        self.refill();
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        let mut queue = self.ring.submission();
        // SAFETY: every entry comes from `Flight`, whose slot owns the memory it names until the completion was taken; what never
        // completes is leaked when the driver is dropped.
        unsafe { queue.push(entry) }.is_ok()
    }

    fn refill(&mut self) {
        while let Some(entry) = self.waiting.pop_front() {
            if !self.try_push(&entry) {
                self.waiting.push_front(entry);
                return;
            }
        }
    }

    /// Whether entering would do anything: entries to hand over, or completions to fetch.
    pub(super) fn has_business(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow() || !self.waiting.is_empty()
    }

    /// Whether the kernel has completions to hand out.
    pub(super) fn has_completed(&mut self) -> bool {
        self.ring.submission().taskrun() || !self.ring.completion().is_empty()
    }

    /// Hands over what is queued, without waiting.
    pub(super) fn submit(&mut self) -> Entered {
        loop {
            let entered = self.enter(0, None);
            if self.waiting.is_empty() || entered == Entered::Later {
                return entered;
            }
            self.refill();
        }
    }

    /// Hands over what is queued and waits for one completion, at most for `timeout`.
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> Entered {
        if !self.waiting.is_empty() {
            return self.submit();
        }
        self.enter(1, timeout)
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> Entered {
        let queued = self.ring.submission().len() as u32;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if want > 0 && self.abilities.no_iowait {
            flags |= EnterFlags::NO_IOWAIT;
        }
        let time = timeout.map(Timespec::from);
        let mut args = SubmitArgs::new();
        if let Some(time) = &time {
            args = args.timespec(time);
        }
        // SAFETY: `args` and `time` are ours, of the type that EXT_ARG announces, and outlive the call.
        let result = unsafe { self.ring.submitter().enter(queued, want, flags.bits(), Some(&args)) };
        match result.map_err(IoError::from) {
            Ok(_) => Entered::Done,
            // Interrupted, or the time has come: the caller takes what is there and looks again.
            Err(IoError(libc::EINTR | libc::ETIME)) => Entered::Done,
            Err(IoError(libc::EAGAIN | libc::ENOMEM | libc::EBUSY)) => Entered::Later,
            Err(error) => panic!("the ring is used by the one thread that made it, with known arguments: {error}"),
        }
    }

    /// One completion that is there.
    pub(super) fn take(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }
}
