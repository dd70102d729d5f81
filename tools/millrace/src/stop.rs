//! Signals that ask a command to end, noted so that it ends in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_io::process;

/// What a shell shows of a program that SIGINT has ended.
const INTERRUPTED: i32 = 130;

/// Whoever sends a signal to a process and then to its group, as `timeout` does, means one.
const ONE: Duration = Duration::from_secs(1);

/// From now on SIGINT and SIGTERM are noted and do not end the process; a second one, later, does not wait for anything. Call before any thread
/// is made.
pub fn note() -> Arc<AtomicBool> {
    process::hold_stop_signals();
    let noted = Arc::new(AtomicBool::new(false));
    let own = Arc::clone(&noted);
    std::thread::spawn(move || {
        process::wait_for_stop();
        own.store(true, Ordering::Relaxed);
        await_second();
        std::process::exit(INTERRUPTED);
    });
    noted
}

/// Waits for another signal to stop than the one that has just come.
pub fn await_second() {
    let first = Instant::now();
    loop {
        process::wait_for_stop();
        if first.elapsed() > ONE {
            return;
        }
    }
}
