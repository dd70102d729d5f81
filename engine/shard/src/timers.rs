//! Times at which somebody of this shard wants to be called.

use millrace_base::clock::Nanos;
use std::collections::BTreeMap;

/// Fires in order of time, then of being asked.
pub struct Timers<T> {
    due: BTreeMap<(Nanos, u64), T>,
    asked: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Timers<T> {
        Timers { due: BTreeMap::new(), asked: 0 }
    }
}

impl<T> Timers<T> {
    pub fn add(&mut self, at: Nanos, what: T) {
        self.asked += 1;
        self.due.insert((at, self.asked), what);
    }

    /// The earliest time asked for.
    pub fn next(&self) -> Nanos {
        self.due.keys().next().map_or(Nanos::NEVER, |(at, _)| *at)
    }

    /// Takes one that is due.
    pub fn pop(&mut self, now: Nanos) -> Option<T> {
        let first = self.due.first_entry()?;
        if first.key().0 <= now { Some(first.remove()) } else { None }
    }
}
