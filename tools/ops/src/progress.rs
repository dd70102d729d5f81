//! A line on the terminal that is written over and over while long work goes on, and wiped at its end.
//!
//! Invariant: nothing is written where standard error is no terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(200);
const WIDTH: usize = 78;

pub struct Progress {
    is_shown: bool,
    next: Instant,
}

impl Progress {
    /// `wanted` says whether anything is to be shown at all.
    pub fn new(wanted: bool) -> Progress {
        Progress { is_shown: wanted && std::io::stderr().is_terminal(), next: Instant::now() + PAUSE }
    }

    /// Shows what `text` gives, unless it was shown a moment ago.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.is_shown && now >= self.next {
            self.next = now + PAUSE;
            let line: String = text().chars().take(WIDTH).collect();
            let _ = std::io::stderr().write_all(format!("\r{line:<WIDTH$}").as_bytes()); // nobody misses it
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = std::io::stderr().write_all(format!("\r{:WIDTH$}\r", "").as_bytes());
        }
    }
}
