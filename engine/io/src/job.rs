//! Computations that take too long for a turn, and the thread on which a real driver runs them.
//!
//! 1. [`job`] makes a [`Job`] of a closure, and the [`Product`] by which its submitter gets what it gave.
//! 2. [`crate::Op::Run`] takes the job like any operation; the driver runs it off the shard's thread, one after the other, and completes it.
//! 3. The simulated driver runs it on its one thread when its virtual time has come.
//!
//! Invariants: a job has let go of everything it held when its completion comes; jobs of one driver never run at the same time.
//! Knows nothing of what is computed. How many jobs wait is the submitter's to bound.

use crate::driver::{IoError, Token};
use crate::process;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// Something to compute. It must end by itself, hold memory within bounds, and do no I/O.
pub struct Job(Box<dyn FnOnce() + Send>);

/// Where the submitter finds what its job has given.
#[derive(Debug)]
pub struct Product<T>(Receiver<T>);

/// A job that computes `compute`, and its product.
pub fn job<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> (Job, Product<T>) {
    let (give, take): (SyncSender<T>, Receiver<T>) = sync_channel(1);
    let run = move || {
        let _ = give.try_send(compute()); // nobody waits for it any more: it is dropped
    };
    (Job(Box::new(run)), Product(take))
}

impl Job {
    pub(crate) fn run(self) {
        (self.0)();
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job")
    }
}

impl<T> Product<T> {
    /// After the job's completion. None: it was not run.
    pub fn take(self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// How much the worker yields to the shards, which have a core each: the lowest share that still makes progress beside one that spins.
const NICENESS: i32 = 10;

/// The thread that runs the jobs of one driver.
pub(crate) struct Worker {
    /// None while it ends.
    jobs: Option<Sender<(Job, Token)>>,
    done: Receiver<Token>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// `told`: called on the worker's thread when a job is done.
    ///
    /// # Errors
    /// The system makes no thread.
    pub(crate) fn start(told: impl Fn() + Send + 'static) -> Result<Worker, IoError> {
        let (jobs, queue) = channel::<(Job, Token)>();
        let (finished, done) = channel();
        let run = move || {
            process::be_background(NICENESS);
            while let Ok((job, token)) = queue.recv() {
                job.run();
                if finished.send(token).is_err() {
                    return;
                }
                told();
            }
        };
        let thread = std::thread::Builder::new().name("jobs".to_owned()).spawn(run)?;
        Ok(Worker { jobs: Some(jobs), done, thread: Some(thread) })
    }

    pub(crate) fn submit(&self, job: Job, token: Token) {
        let jobs = self.jobs.as_ref().expect("open until it is dropped");
        jobs.send((job, token)).expect("the thread lives as long as the queue is open");
    }

    /// The token of a job that is done and was not taken.
    pub(crate) fn take(&self) -> Option<Token> {
        self.done.try_recv().ok()
    }
}

impl Drop for Worker {
    /// Ends after the job that runs; those that wait are dropped.
    fn drop(&mut self) {
        self.jobs = None;
        let (_, nobody) = channel();
        self.done = nobody;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
