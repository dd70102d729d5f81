//! Many like pieces of work on several threads, and the results in order.
//!
//! Invariants: each piece is done once; results are told in the order of the pieces; at most [`AHEAD_MAX`] pieces are begun before the one that
//! is told next.

use crate::error::InspectError;
use crate::output::Output;
use crate::read_only::ReadOnly;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Pieces begun before the one that is told next.
const AHEAD_MAX: usize = 4096;

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Bytes done, of how many.
pub struct Progress {
    done: AtomicU64,
    all: u64,
    is_told: bool,
    begin: Instant,
}

impl Progress {
    pub fn new(is_told: bool, all: u64) -> Progress {
        Progress { done: AtomicU64::new(0), all, is_told, begin: Instant::now() }
    }

    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn tell(&self, output: &mut Output<'_>) {
        let done = self.done.load(Ordering::Relaxed);
        let seconds = self.begin.elapsed().as_secs_f64().max(0.001);
        let rate = done as f64 / seconds / 1e6;
        let percent = done.min(self.all) * 100 / self.all.max(1);
        let left = (self.all.saturating_sub(done)) as f64 / 1e6 / rate.max(0.001);
        // Who watches has a terminal; that it cannot be written to is no failure of the work.
        let _ = write!(output.talk, "\r{percent:>3} % of {} MB, {rate:.0} MB/s, {left:.0} s left \x1b[K", self.all / 1_000_000);
        let _ = output.talk.flush();
    }

    fn clear(&self, output: &mut Output<'_>) {
        if self.is_told {
            let _ = write!(output.talk, "\r\x1b[K");
            let _ = output.talk.flush();
        }
    }
}

/// Does `work` for each of `units` on `threads` threads and gives each result to `told`, in order.
///
/// # Errors
/// The first that `told` or a piece of work gives.
pub fn run_all<U: Copy + Send + Sync, R: Send>(
    units: &[U],
    threads: usize,
    progress: &Progress,
    work: impl Fn(&mut ReadOnly, U, &Progress) -> Result<R, InspectError> + Sync,
    output: &mut Output<'_>,
    told: &mut dyn FnMut(U, R, &mut Output<'_>) -> Result<(), InspectError>,
) -> Result<(), InspectError> {
    let (next, next_told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (sender, receiver) = sync_channel(threads.max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, units.len().max(1)) {
            let (sender, next, next_told, work, stop) = (sender.clone(), &next, &next_told, &work, &stop);
            scope.spawn(move || {
                let mut disk = ReadOnly::default();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(unit) = units.get(at) else { return };
                    while at > next_told.load(Ordering::Relaxed) + AHEAD_MAX && !stop.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    if stop.load(Ordering::Relaxed) || sender.send((at, work(&mut disk, *unit, progress))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut result = Ok(());
        loop {
            match receiver.recv_timeout(PROGRESS_EVERY) {
                Ok((at, done)) => drop(waiting.insert(at, done)),
                Err(RecvTimeoutError::Timeout) if progress.is_told => progress.tell(output),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Some(done) = waiting.remove(&next_told.load(Ordering::Relaxed)) {
                let at = next_told.fetch_add(1, Ordering::Relaxed);
                if result.is_ok() {
                    progress.clear(output);
                    result = done.and_then(|done| told(units[at], done, output));
                    if result.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        progress.clear(output);
        result
    })
}
