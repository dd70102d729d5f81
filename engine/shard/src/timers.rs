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

/// A call that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerKey(Nanos, u64);

impl<T> Timers<T> {
    pub fn add(&mut self, at: Nanos, what: T) -> TimerKey {
        self.asked += 1;
        self.due.insert((at, self.asked), what);
        TimerKey(at, self.asked)
    }

    /// Takes back what has not fired yet; else does nothing.
    pub fn remove(&mut self, key: TimerKey) {
        self.due.remove(&(key.0, key.1));
    }

    /// How many have been asked for and have neither fired nor been taken back.
    pub fn count(&self) -> usize {
        self.due.len()
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

/// Who is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerFor {
    Front {
        front: usize,
        token: u64,
    },
    /// A read that waits for bytes; the wait's slot and generation.
    Read {
        slot: u32,
        generation: u32,
    },
    /// The coordinator of a partition.
    Coordinator {
        partition: millrace_base::ids::PartitionId,
    },
    /// A listener whose last accept failed.
    Accept {
        listener: usize,
    },
    /// Time-outs of produces, idle connections; and, more rarely, retention and expiry.
    Housekeeping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_back_never_fires_and_the_rest_fires_in_order() {
        let mut timers = Timers::default();
        timers.add(Nanos(5), "b");
        let taken = timers.add(Nanos(3), "x");
        timers.add(Nanos(5), "c");
        timers.add(Nanos(4), "a");
        timers.remove(taken);
        timers.remove(taken);
        assert_eq!(timers.next(), Nanos(4));
        assert_eq!(timers.pop(Nanos(3)), None);
        assert_eq!(std::iter::from_fn(|| timers.pop(Nanos(5))).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
