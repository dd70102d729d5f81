//! Producer ids of this shard: taken one by one from blocks that replica set 0 hands out.
//!
//! Calls that find none wait together for one block.
//! Invariants: an id is given once; at most one block is being fetched.
//! Knows nothing of requests.

use std::collections::VecDeque;

use crate::call::CallId;

/// Ids in a block.
pub const BLOCK_IDS: u32 = 1000;

/// The block in hand, and who waits for the next.
#[derive(Debug, Default)]
pub struct ProducerIds {
    next: i64,
    left: u32,
    /// The call that fetches a block.
    fetching: Option<CallId>,
    waiting: VecDeque<CallId>,
}

/// What a call that wants an id is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    Id(i64),
    /// Fetch a block of [`BLOCK_IDS`], then say [`ProducerIds::fetched`].
    Fetch,
    /// It will be woken.
    Wait,
}

impl ProducerIds {
    pub fn take(&mut self, call: CallId) -> Take {
        if self.left > 0 {
            self.left -= 1;
            self.next += 1;
            return Take::Id(self.next - 1);
        }
        if self.fetching.is_none() {
            self.fetching = Some(call);
            return Take::Fetch;
        }
        self.waiting.push_back(call);
        Take::Wait
    }

    /// A block has come, or (None) none could be had. Those who waited are to be woken.
    pub fn fetched(&mut self, call: CallId, block: Option<(i64, u32)>) -> Vec<CallId> {
        if self.fetching == Some(call) {
            self.fetching = None;
        }
        if let Some((first, count)) = block {
            (self.next, self.left) = (first, count);
        }
        self.waiting.drain(..).collect()
    }

    /// The call is gone; those who waited for its block are to be woken.
    pub fn cancelled(&mut self, call: CallId) -> Vec<CallId> {
        self.waiting.retain(|waiting| *waiting != call);
        if self.fetching == Some(call) { self.fetched(call, None) } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_is_fetched_for_all_who_wait() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.take(1), Take::Fetch);
        assert_eq!(ids.take(2), Take::Wait);
        assert_eq!(ids.fetched(1, Some((5000, 2))), [2]);
        assert_eq!(ids.take(1), Take::Id(5000));
        assert_eq!(ids.take(2), Take::Id(5001));
        assert_eq!(ids.take(3), Take::Fetch);
    }

    #[test]
    fn when_the_fetching_call_is_gone_another_fetches() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.take(1), Take::Fetch);
        assert_eq!((ids.take(2), ids.take(3)), (Take::Wait, Take::Wait));
        assert_eq!(ids.cancelled(3), []);
        assert_eq!(ids.cancelled(1), [2]);
        assert_eq!(ids.take(2), Take::Fetch);
    }
}
