//! Waking a shard that sleeps in its driver, and only then.
//!
//! 1. Whoever has left work publishes it, then rings: the state becomes RUNG; if it was ASLEEP, an eventfd is written, which the driver watches.
//! 2. The shard goes to sleep by moving AWAKE to ASLEEP; finding RUNG instead, it does not sleep, and looks for work.
//!
//! Why nothing is lost: all steps are on one atomic, hence in one order. A ring before the step to ASLEEP is found by it; a ring after it
//! writes the eventfd. A ringer that reads RUNG and does nothing more comes before the sleeper's step away from RUNG, after which the
//! sleeper looks; the two fences make the work visible then. The eventfd is never read: its watch is edge-triggered, and 2^64 is far.
//!
//! Invariants: only the driver's thread leaves RUNG or ASLEEP for AWAKE; ASLEEP only while it is about to wait or waits.

use crate::driver::IoError;
use crate::socket::last_error;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const RUNG: u32 = 2;

pub(crate) struct Bell {
    state: AtomicU32,
    event: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> Result<Bell, IoError> {
        // SAFETY: takes no memory.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if raw < 0 {
            return Err(last_error());
        }
        // SAFETY: just made, and owned by no one else.
        let event = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Bell { state: AtomicU32::new(AWAKE), event })
    }

    /// What becomes readable when a sleeper is rung.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// From any thread, after the work is published.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::SeqCst) == RUNG {
            return;
        }
        if self.state.swap(RUNG, Ordering::SeqCst) == ASLEEP {
            let one = 1u64.to_ne_bytes();
            // SAFETY: `one` is ours, of the length given, and outlives the call; the eventfd is open as long as `self`.
            let wrote = unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            assert_eq!(wrote, 8, "an eventfd takes 2^64 rings");
        }
    }

    /// On the driver's thread, before it waits. False: it was rung, and must look for work instead.
    pub(crate) fn fall_asleep(&self) -> bool {
        let asleep = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !asleep {
            self.wake();
        }
        asleep
    }

    /// On the driver's thread, after it waited. True: it was rung.
    pub(crate) fn wake(&self) -> bool {
        let rung = self.state.swap(AWAKE, Ordering::SeqCst) == RUNG;
        fence(Ordering::SeqCst);
        rung
    }
}
