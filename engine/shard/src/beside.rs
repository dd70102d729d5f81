//! How many reads of a data directory may be on the device beside the entries of its journal.
//!
//! 1. While nobody produces they are [`READS_MAX`]. Beside a journal that batches went to within the last quarter of a second it is
//!    one at first: a device that does one thing after the other makes an entry wait for all that was asked of it before.
//! 2. What the device is like is told by the entries. If those that began beside as many reads as there may be took about as long as those beside
//!    none, one more is tried; if much longer, one fewer.
//!
//! Knows nothing of what is read or written.

use millrace_base::clock::Nanos;
use std::collections::VecDeque;

/// Reading scripts of one data directory at once.
pub const READS_MAX: usize = 8;

/// What each reads at a time beside a journal. A device that brings 1.3 GB/s takes 0.09 ms for it.
pub const READ_BESIDE_BYTES: u32 = 64 << 10;

/// For how long after an entry with batches another is expected.
pub const BESIDE_MS: u64 = 250;

/// Entries beside as many reads as there may be, after which that is looked at again.
const ENTRIES: usize = 128;

/// What half of some times were below, in nanoseconds: it goes up or down by 1/32 with each.
#[derive(Clone, Copy, Default)]
struct Median(Option<u64>);

impl Median {
    fn follow(&mut self, ns: u64) {
        self.0 = Some(match self.0 {
            None => ns,
            Some(median) if ns > median => median + median / 32,
            Some(median) => median - median / 32,
        });
    }
}

struct Entry {
    generation: u32,
    began: Nanos,
    reads: usize,
}

/// See the module's head; of one data directory.
pub struct Beside {
    /// Until then batches count as going to its journal.
    until: Nanos,
    most: usize,
    on_their_way: VecDeque<Entry>,
    alone: Median,
    among_most: Median,
    entries: usize,
}

impl Default for Beside {
    fn default() -> Beside {
        let (alone, among_most) = (Median::default(), Median::default());
        Beside { until: Nanos(0), most: 1, on_their_way: VecDeque::new(), alone, among_most, entries: 0 }
    }
}

impl Beside {
    /// Whether batches are going to its journal.
    pub fn is_beside(&self, now: Nanos) -> bool {
        self.until > now
    }

    /// How many reads there may be.
    pub fn reads_max(&self, now: Nanos) -> usize {
        if self.is_beside(now) { self.most } else { READS_MAX }
    }

    /// An entry is handed to the device, where there are so many reads. Only batches have others follow: what else an entry holds says what is done.
    pub fn entry_began(&mut self, generation: u32, has_batches: bool, reads: usize, now: Nanos) {
        if has_batches {
            self.until = now.plus_ms(BESIDE_MS);
        }
        self.on_their_way.push_back(Entry { generation, began: now, reads });
    }

    /// That entry is durable.
    pub fn entry_ended(&mut self, generation: u32, now: Nanos) {
        let Some(at) = self.on_their_way.iter().position(|entry| entry.generation == generation) else { return };
        let Some(entry) = self.on_their_way.remove(at) else { return };
        let took = now.since(entry.began).as_nanos() as u64;
        if entry.reads == 0 {
            self.alone.follow(took);
        } else if entry.reads >= self.most {
            self.among_most.follow(took);
            self.entries += 1;
            if self.entries >= ENTRIES {
                self.judge();
            }
        }
    }

    fn judge(&mut self) {
        self.entries = 0;
        let (Some(alone), Some(beside)) = (self.alone.0, self.among_most.0) else { return };
        let most = if beside > alone + alone / 4 {
            (self.most - 1).max(1)
        } else if beside < alone + alone / 10 {
            (self.most + 1).min(READS_MAX)
        } else {
            self.most
        };
        if most != self.most {
            (self.most, self.among_most) = (most, Median::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries beside as many reads as there may be or none, in turn, on a device of which `took_us` tells how long an entry takes beside
    /// so many; how many reads there may be in the end.
    fn after(beside: &mut Beside, entries: u32, took_us: impl Fn(usize) -> u64) -> usize {
        for generation in 0..entries {
            let began = Nanos(u64::from(generation) * 1_000_000);
            let reads = if generation % 2 == 0 { 0 } else { beside.reads_max(began) };
            beside.entry_began(generation, true, reads, began);
            // Not all take the same.
            let took = took_us(reads) * 1_000 * (90 + u64::from(generation * 7 % 20)) / 100;
            beside.entry_ended(generation, Nanos(began.0 + took));
        }
        beside.most
    }

    #[test]
    fn a_device_that_does_one_thing_after_the_other_is_given_one_read_and_one_that_does_not_as_many_as_help() {
        let mut beside = Beside::default();
        let serial = |reads: usize| 150 + 50 * reads as u64;
        assert_eq!(after(&mut beside, 20_000, serial), 1);
        assert_eq!(after(&mut beside, 20_000, |_| 900), READS_MAX);
        assert_eq!(after(&mut beside, 40_000, serial), 1);
        // From four on reads are in its way.
        assert_eq!(after(&mut beside, 40_000, |reads| if reads < 4 { 100 } else { 118 }), 4);
    }

    #[test]
    fn without_entries_beside_none_nothing_is_known_and_without_any_all_may_read() {
        let mut beside = Beside::default();
        assert_eq!(beside.reads_max(Nanos(0)), READS_MAX);
        beside.entry_began(0, false, 1, Nanos(0));
        beside.entry_ended(0, Nanos(1_000));
        assert_eq!(beside.reads_max(Nanos(0)), READS_MAX);
        for generation in 0..4 * ENTRIES as u32 {
            beside.entry_began(generation, true, 1, Nanos(0));
            beside.entry_ended(generation, Nanos(1_000));
        }
        assert_eq!(beside.reads_max(Nanos(0).plus_ms(BESIDE_MS - 1)), 1);
        assert_eq!(beside.reads_max(Nanos(0).plus_ms(BESIDE_MS)), READS_MAX);
        assert!(beside.on_their_way.is_empty());
    }
}
