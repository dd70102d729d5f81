//! Sequences that must come next of producers of which nothing is known, since they were refused for now.
//!
//! Of a producer that is not known any sequence is taken, as in Kafka: what was known of it may have gone with its time. But clients send several
//! batches one behind the other. Where the first is refused because a disk or a journal is full, and there is room when the next one comes, that
//! one would be taken in front of it, and the first never more. So what was refused is kept in mind until it comes again.
//!
//! Invariants: at most [`AWAITED_MAX`] producers; of each the lowest sequence of its newest epoch. Only in memory: what was sent behind a
//! refused batch ends with the connection, and that with the process.

use millrace_base::batch::Header;
use millrace_base::clock::Nanos;
use std::collections::BTreeMap;

/// Producers of one partition. Of more any sequence is taken.
const AWAITED_MAX: usize = 64;

#[derive(Default)]
pub struct Awaited(BTreeMap<i64, Next>);

struct Next {
    epoch: i16,
    sequence: i32,
    since: Nanos,
}

impl Awaited {
    /// A batch of a client was refused, and may come again. Its producer is not known.
    pub fn refused(&mut self, header: &Header, now: Nanos) {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        let is_needed = match self.0.get(&id) {
            Some(next) => epoch > next.epoch || (epoch == next.epoch && is_behind(next.sequence, sequence)),
            None => id >= 0 && self.0.len() < AWAITED_MAX,
        };
        if is_needed {
            self.0.insert(id, Next { epoch, sequence, since: now });
        }
    }

    /// The sequence that must come before this batch.
    pub fn before(&self, header: &Header) -> Option<i32> {
        let next = self.0.get(&header.producer_id)?;
        (header.producer_epoch == next.epoch && is_behind(header.base_sequence, next.sequence)).then_some(next.sequence)
    }

    /// A batch of this producer was appended: it is known.
    pub fn came(&mut self, producer_id: i64) {
        self.0.remove(&producer_id);
    }

    /// What has not come in `ms` will not.
    pub fn forget(&mut self, now: Nanos, ms: u64) {
        self.0.retain(|_, next| next.since.plus_ms(ms) > now);
    }
}

/// Whether `sequence` was sent after `before`: they begin again at 0 behind the highest.
fn is_behind(sequence: i32, before: i32) -> bool {
    (1..1 << 30).contains(&(sequence.wrapping_sub(before) & i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::batch::{Builder, check_stored};

    fn header(id: i64, epoch: i16, sequence: i32) -> Header {
        let mut builder = Builder::new(0);
        builder.push(0, None, Some(b"value"));
        let mut header = check_stored(&builder.finish()).unwrap();
        (header.producer_id, header.producer_epoch, header.base_sequence) = (id, epoch, sequence);
        header
    }

    #[test]
    fn what_was_refused_must_come_before_what_was_sent_behind_it() {
        let mut awaited = Awaited::default();
        assert_eq!(awaited.before(&header(7, 0, 12)), None, "any sequence of one that is not known");
        awaited.refused(&header(7, 0, 5), Nanos(1));
        awaited.refused(&header(7, 0, 12), Nanos(2));
        assert_eq!(awaited.before(&header(7, 0, 12)), Some(5));
        assert_eq!(awaited.before(&header(7, 0, 5)), None);
        assert_eq!(awaited.before(&header(8, 0, 12)), None, "another one");
        assert_eq!(awaited.before(&header(7, 1, 12)), None, "it has begun anew");
        awaited.refused(&header(7, 0, 0), Nanos(3));
        assert_eq!(awaited.before(&header(7, 0, 5)), Some(0));
        awaited.refused(&header(7, 1, 9), Nanos(4));
        awaited.refused(&header(7, 0, 0), Nanos(5));
        assert_eq!((awaited.before(&header(7, 1, 10)), awaited.before(&header(7, 0, 10))), (Some(9), None));
        awaited.came(7);
        assert_eq!(awaited.before(&header(7, 1, 10)), None);
        awaited.refused(&header(7, 1, i32::MAX - 3), Nanos(6));
        assert_eq!(awaited.before(&header(7, 1, 0)), Some(i32::MAX - 3), "sequences begin again at 0");
    }

    #[test]
    fn they_are_few_and_go_in_their_time() {
        let mut awaited = Awaited::default();
        (0..1_000).for_each(|id| awaited.refused(&header(id, 0, 0), Nanos(0).plus_ms(id as u64)));
        awaited.refused(&header(-1, -1, -1), Nanos(0));
        assert_eq!(awaited.0.len(), AWAITED_MAX);
        awaited.forget(Nanos(0).plus_ms(159), 100);
        assert_eq!(awaited.0.keys().copied().collect::<Vec<_>>(), [60, 61, 62, 63]);
    }
}
