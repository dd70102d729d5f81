//! The kernel's workers of a ring, given the core as soon as they are woken.
//!
//! A worker of the ring runs each sync, in two short steps around the device's own work. Woken on a core that others keep busy, the shard itself
//! among them, it waits for the scheduler's next tick at each step (4 ms at 250 Hz), whatever the niceness of those others: a step of some
//! microseconds leaves it ahead of its share. Real-time priority ends that. It needs root, `CAP_SYS_NICE` or `RLIMIT_RTPRIO` of 1; without,
//! workers stay as they are.
//!
//! Workers come and go as the kernel likes, and it tells nobody, so they are looked for in `/proc`.
//! Knows nothing of what they work on.

use crate::{process, system};
use millrace_base::clock::Nanos;
use std::collections::BTreeSet;

/// How often workers are looked for while there are syncs.
const LOOK_MS: u64 = 500;

pub(super) struct Workers {
    /// Name of the workers of this thread's ring.
    name: String,
    /// Threads of the process that need no look.
    known: BTreeSet<libc::pid_t>,
    next: Nanos,
    is_refused: bool,
}

impl Workers {
    pub(super) fn of_this_thread() -> Workers {
        // SAFETY: it takes nothing and cannot fail.
        let thread = unsafe { libc::gettid() };
        Workers { name: format!("iou-wrk-{thread}"), known: BTreeSet::new(), next: Nanos(0), is_refused: false }
    }

    /// Whether they may have real-time priority, as far as was tried.
    pub(super) fn are_prompt(&self) -> bool {
        !self.is_refused
    }

    /// Raises workers that are new since the last look. Called when a sync has ended, so that there is one.
    pub(super) fn raise(&mut self) {
        let now = system::now();
        if self.is_refused || now < self.next {
            return;
        }
        self.next = now.plus_ms(LOOK_MS);
        let threads = threads();
        self.known.retain(|thread| threads.contains(thread));
        for thread in threads {
            if !self.known.insert(thread) || comm(thread).as_deref() != Some(self.name.as_str()) {
                continue;
            }
            if let Err(error) = process::be_prompt(thread) {
                self.is_refused = true;
                process::tell_not_prompt(error);
                return;
            }
        }
    }
}

/// The threads of this process.
fn threads() -> BTreeSet<libc::pid_t> {
    let Ok(entries) = std::fs::read_dir("/proc/self/task") else { return BTreeSet::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A thread's name; None when it has just ended.
fn comm(thread: libc::pid_t) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_found_by_its_name_and_priority_is_given_or_refused() {
        let (told, tell) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("iou-wrk-like".to_owned())
            .spawn(move || {
                // SAFETY: as above.
                told.send(unsafe { libc::gettid() }).expect("the test waits");
                ends.recv().expect_err("the test ends it");
            })
            .expect("a thread");
        let id = tell.recv().expect("it says its id");
        assert!(threads().contains(&id));
        assert_eq!(comm(id).as_deref(), Some("iou-wrk-like"));
        let mut workers = Workers { name: "iou-wrk-like".to_owned(), ..Workers::of_this_thread() };
        workers.raise();
        // SAFETY: it takes a number.
        let policy = unsafe { libc::sched_getscheduler(id) };
        assert_eq!(policy, if workers.are_prompt() { libc::SCHED_FIFO } else { libc::SCHED_OTHER });
        drop(end);
        thread.join().expect("it ends");
        assert_eq!(comm(id), None);
    }
}
