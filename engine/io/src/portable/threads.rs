//! The threads of one driver that wait for the disk.
//!
//! 1. A task goes to a queue: what is to be durable to the one that is served first, all else to the other.
//! 2. A thread is made when a task comes, none is idle, and there are fewer than [`THREADS_MAX`].
//! 3. Tasks of the second queue have at most [`OTHERS_MAX`] threads at once: a durable write never waits for reads alone.
//! 4. What is done waits for the shard, and the doorbell is rung.
//!
//! Threads run on every core of the process, with real-time priority where the system gives it: woken on a core that a shard keeps busy,
//! they would wait for the scheduler's tick (as the workers of a ring would).
//!
//! Invariants: a task is run once or, when the driver goes, dropped; a waiting task has a thread that will look for it.
//! Knows nothing of what tasks do.

use super::files::{Done, Task};
use crate::process;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const THREADS_MAX: usize = 12;
const OTHERS_MAX: usize = 8;

/// The threads make system calls and move bytes between their arguments: little is on their stacks.
const STACK_BYTES: usize = 256 << 10;

/// How long a driver that goes waits for tasks that run. A disk may never answer; what they own stays theirs.
const END_WAIT: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    durable: VecDeque<Task>,
    others: VecDeque<Task>,
    others_running: usize,
    threads: usize,
    /// Threads without a task.
    idle: usize,
    /// Idle ones that are to look.
    called: usize,
    done: Vec<Done>,
    is_ending: bool,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// A thread has ended.
    gone: Condvar,
    /// Of `done`, to be seen without the lock.
    done: AtomicUsize,
    /// No thread may have real-time priority.
    is_refused: AtomicBool,
}

pub(super) struct Threads {
    shared: Arc<Shared>,
    told: Arc<dyn Fn() + Send + Sync>,
    handles: Vec<JoinHandle<()>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next task, and whether it is of the second queue.
    fn next(&mut self) -> Option<(Task, bool)> {
        if let Some(task) = self.durable.pop_front() {
            return Some((task, false));
        }
        let task = if self.others_running < OTHERS_MAX { self.others.pop_front() } else { None };
        self.others_running += usize::from(task.is_some());
        task.map(|task| (task, true))
    }
}

impl Threads {
    /// `told`: called on any thread when something is done.
    pub(super) fn new(told: impl Fn() + Send + Sync + 'static) -> Threads {
        let shared = Shared {
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            gone: Condvar::new(),
            done: AtomicUsize::new(0),
            is_refused: AtomicBool::new(false),
        };
        Threads { shared: Arc::new(shared), told: Arc::new(told), handles: Vec::new() }
    }

    /// Where the system makes no thread at all, the task is run at once, on the caller's.
    pub(super) fn submit(&mut self, task: Task) {
        let mut state = self.shared.lock();
        let is_durable = task.is_durable();
        if is_durable {
            state.durable.push_back(task)
        } else {
            state.others.push_back(task)
        }
        if !is_durable && state.others_running >= OTHERS_MAX {
            return; // the thread that ends one of them takes it
        }
        if state.idle > state.called {
            state.called += 1;
            self.shared.work.notify_one();
            return;
        }
        if state.threads == THREADS_MAX {
            return;
        }
        state.threads += 1;
        drop(state);
        if self.spawn() {
            return;
        }
        let mut state = self.shared.lock();
        state.threads -= 1;
        if state.threads == 0
            && let Some((task, is_other)) = state.next()
        {
            drop(state);
            self.shared.finish(task.run(), is_other);
            (self.told)();
        }
    }

    fn spawn(&mut self) -> bool {
        let (shared, told) = (Arc::clone(&self.shared), Arc::clone(&self.told));
        let run = move || {
            process::be_on_all_cores();
            if let Err(error) = process::be_prompt(0)
                && !shared.is_refused.swap(true, Ordering::Relaxed)
            {
                process::tell_not_prompt(error);
            }
            shared.serve(&*told);
            shared.lock().threads -= 1;
            shared.gone.notify_all();
        };
        let made = std::thread::Builder::new().name("disk".to_owned()).stack_size(STACK_BYTES).spawn(run);
        let is_made = made.is_ok();
        self.handles.extend(made.ok());
        is_made
    }

    /// Whether the threads may have real-time priority, as far as was tried.
    pub(super) fn are_prompt(&self) -> bool {
        !self.shared.is_refused.load(Ordering::Relaxed)
    }

    pub(super) fn has_done(&self) -> bool {
        self.shared.done.load(Ordering::Acquire) > 0
    }

    /// What is done and was not taken, in the order in which it was done.
    pub(super) fn take(&self) -> Vec<Done> {
        if !self.has_done() {
            return Vec::new();
        }
        let mut state = self.shared.lock();
        self.shared.done.store(0, Ordering::Release);
        std::mem::take(&mut state.done)
    }
}

impl Shared {
    /// Runs tasks until the driver goes.
    fn serve(&self, told: &dyn Fn()) {
        let mut state = self.lock();
        while !state.is_ending {
            let Some((task, is_other)) = state.next() else {
                state = self.rest(state);
                continue;
            };
            drop(state);
            self.finish(task.run(), is_other);
            told();
            state = self.lock();
        }
    }

    fn rest<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.idle += 1;
        while state.called == 0 && !state.is_ending {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.called = state.called.saturating_sub(1);
        state.idle -= 1;
        state
    }

    fn finish(&self, done: Done, is_other: bool) {
        let mut state = self.lock();
        state.others_running -= usize::from(is_other);
        state.done.push(done);
        self.done.store(state.done.len(), Ordering::Release);
    }
}

impl Drop for Threads {
    /// Tasks that wait are dropped; those that run are waited for, within bounds.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_ending = true;
        let waiting = (std::mem::take(&mut state.durable), std::mem::take(&mut state.others));
        self.shared.work.notify_all();
        let ended = self.shared.gone.wait_timeout_while(state, END_WAIT, |state| state.threads > 0);
        let (mut state, timeout) = ended.unwrap_or_else(PoisonError::into_inner);
        state.done.clear();
        drop(state);
        drop(waiting);
        if !timeout.timed_out() {
            for handle in self.handles.drain(..) {
                drop(handle.join());
            }
        }
    }
}
