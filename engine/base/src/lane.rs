//! A lane: a bounded pair of queues between two shards, one writer and one reader each, first in first out.
//!
//! 1. [`pair`] makes both ends. Each end can send requests to, and receive requests from, the other.
//! 2. A request takes a credit, which is the right to one slot for its reply; the reply gives it back. So replies never wait for room,
//!    and two full lanes cannot wait for each other.
//!
//! The queue is this file's choice: everything else sees [`End`] only.
//!
//! Invariants: credits out + credits left = capacity; requests queued <= capacity; replies queued <= capacity.
//! Knows nothing of what is carried, of doorbells or of threads.

use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// What travels one way.
#[derive(Debug)]
pub enum Message<Q, R> {
    Request(u64, Q),
    Reply(u64, R),
}

/// One shard's end of a lane.
pub struct End<Q, R> {
    out: Arc<ArrayQueue<Message<Q, R>>>,
    inward: Arc<ArrayQueue<Message<Q, R>>>,
    credits: usize,
}

/// Both ends of a lane on which each side may have `capacity` requests unanswered.
pub fn pair<Q, R>(capacity: usize) -> (End<Q, R>, End<Q, R>) {
    assert!(capacity > 0);
    // Each direction carries one side's requests and the other's replies.
    let there = Arc::new(ArrayQueue::new(2 * capacity));
    let back = Arc::new(ArrayQueue::new(2 * capacity));
    (
        End { out: Arc::clone(&there), inward: Arc::clone(&back), credits: capacity },
        End { out: back, inward: there, credits: capacity },
    )
}

impl<Q, R> End<Q, R> {
    /// Requests that may still be sent before a reply comes back.
    pub fn credits(&self) -> usize {
        self.credits
    }

    /// Sends a request, or gives it back when there is no credit.
    ///
    /// # Errors
    /// The request itself: nothing was sent.
    pub fn request(&mut self, token: u64, request: Q) -> Result<(), Q> {
        if self.credits == 0 {
            return Err(request);
        }
        self.credits -= 1;
        self.push(Message::Request(token, request));
        Ok(())
    }

    /// Answers a request that came in on this lane. Each is answered exactly once.
    pub fn reply(&mut self, token: u64, reply: R) {
        self.push(Message::Reply(token, reply));
    }

    fn push(&mut self, message: Message<Q, R>) {
        let pushed = self.out.push(message);
        assert!(pushed.is_ok(), "a credit reserves room for each message");
    }

    /// The next message from the other side.
    pub fn receive(&mut self) -> Option<Message<Q, R>> {
        let message = self.inward.pop();
        if let Some(Message::Reply(..)) = message {
            self.credits += 1;
        }
        message
    }

    /// Whether a message waits.
    pub fn has_message(&self) -> bool {
        !self.inward.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_that_both_fill_their_lane_can_still_answer() {
        let (mut a, mut b) = pair::<u32, u32>(4);
        for i in 0..4 {
            a.request(u64::from(i), i).unwrap();
            b.request(u64::from(i), i).unwrap();
        }
        assert_eq!(a.request(9, 9), Err(9));
        for side in [&mut a, &mut b] {
            for _ in 0..4 {
                match side.receive() {
                    Some(Message::Request(token, q)) => side.reply(token, q * 10),
                    other => panic!("{other:?}"),
                }
            }
        }
        for expected in 0..4 {
            assert!(matches!(a.receive(), Some(Message::Reply(t, r)) if t == expected && r as u64 == expected * 10));
        }
        assert_eq!((a.credits(), b.credits()), (4, 0));
        assert!(b.has_message() && !a.has_message());
    }
}
