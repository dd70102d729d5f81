//! A lane: a bounded pair of queues between two shards, one writer and one reader each, first in first out.
//!
//! 1. [`pair`] makes both ends. Each end can send requests to, and receive requests from, the other.
//! 2. A request takes a credit, which is the right to one slot for its reply; the reply gives it back. So replies never wait for room,
//!    and two full lanes cannot wait for each other.
//! 3. A request that has to wait long is parked: its credit goes back at once, so that however many wait, others pass. Its reply has no slot
//!    of its own then: it is late, and goes when the queue is less than a third full; until then it is kept here.
//!
//! The queue is this file's choice: everything else sees [`End`] only.
//!
//! Invariants: credits out + credits left = capacity; requests queued <= capacity; replies and notices of parking queued <= capacity; late
//! replies queued <= capacity.
//! Knows nothing of what is carried, of doorbells or of threads.

use crossbeam_queue::ArrayQueue;
use std::collections::VecDeque;
use std::sync::Arc;

/// What travels one way.
#[derive(Debug)]
pub enum Message<Q, R> {
    Request(u64, Q),
    Reply(u64, R),
}

/// What stands in a queue.
enum Queued<Q, R> {
    Request(u64, Q),
    Reply(u64, R),
    /// A credit goes back; its request's reply comes late.
    Parked,
    Late(u64, R),
}

/// One shard's end of a lane.
pub struct End<Q, R> {
    out: Arc<ArrayQueue<Queued<Q, R>>>,
    inward: Arc<ArrayQueue<Queued<Q, R>>>,
    credits: usize,
    capacity: usize,
    late: VecDeque<(u64, R)>,
}

/// Both ends of a lane on which each side may have `capacity` requests unanswered.
pub fn pair<Q, R>(capacity: usize) -> (End<Q, R>, End<Q, R>) {
    assert!(capacity > 0);
    // Each direction carries one side's requests, the other's replies, and those of its replies that are late.
    let there = Arc::new(ArrayQueue::new(3 * capacity));
    let back = Arc::new(ArrayQueue::new(3 * capacity));
    let end = |out: &Arc<_>, inward: &Arc<_>| End {
        out: Arc::clone(out),
        inward: Arc::clone(inward),
        credits: capacity,
        capacity,
        late: VecDeque::new(),
    };
    (end(&there, &back), end(&back, &there))
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
        self.push(Queued::Request(token, request));
        Ok(())
    }

    /// Answers a request that came in on this lane and was not parked. Each is answered exactly once.
    pub fn reply(&mut self, token: u64, reply: R) {
        self.push(Queued::Reply(token, reply));
    }

    /// Gives back the credit of a request that came in on this lane, once; it is answered with [`End::reply_late`].
    pub fn park(&mut self) {
        self.push(Queued::Parked);
    }

    /// Answers a request that was parked, now or as soon as there is room.
    pub fn reply_late(&mut self, token: u64, reply: R) {
        self.late.push_back((token, reply));
        self.send_late();
    }

    /// Sends late replies for which there is room; whether any went.
    pub fn send_late(&mut self) -> bool {
        let mut sent = false;
        while self.out.len() < self.capacity
            && let Some((token, reply)) = self.late.pop_front()
        {
            self.push(Queued::Late(token, reply));
            sent = true;
        }
        sent
    }

    /// Whether late replies wait for room.
    pub fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    fn push(&mut self, message: Queued<Q, R>) {
        let pushed = self.out.push(message);
        assert!(pushed.is_ok(), "a credit reserves room for each message");
    }

    /// The next message from the other side.
    pub fn receive(&mut self) -> Option<Message<Q, R>> {
        loop {
            return match self.inward.pop()? {
                Queued::Request(token, request) => Some(Message::Request(token, request)),
                Queued::Late(token, reply) => Some(Message::Reply(token, reply)),
                Queued::Reply(token, reply) => {
                    self.credits += 1;
                    Some(Message::Reply(token, reply))
                }
                Queued::Parked => {
                    self.credits += 1;
                    continue;
                }
            };
        }
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

    #[test]
    fn requests_that_are_parked_leave_the_lane_to_others_and_are_answered_when_there_is_room() {
        let (mut a, mut b) = pair::<u32, u32>(4);
        let mut parked = Vec::new();
        for token in 0..100 {
            a.request(token, 0).unwrap();
            let Some(Message::Request(token, _)) = b.receive() else { panic!("it was sent") };
            b.park();
            parked.push(token);
            assert!(a.receive().is_none());
            assert_eq!(a.credits(), 4);
        }
        // Both sides fill their lane, and all that waited is answered at once.
        for i in 0..4 {
            a.request(1000 + i, 0).unwrap();
            b.request(i, 0).unwrap();
        }
        parked.iter().for_each(|token| b.reply_late(*token, 7));
        assert!(b.has_late());
        let (mut asked, mut answered) = (0, Vec::new());
        while answered.len() < 100 {
            while let Some(message) = a.receive() {
                match message {
                    Message::Request(token, _) => a.reply(token, 0),
                    Message::Reply(token, _) if token < 1000 => answered.push(token),
                    Message::Reply(..) => {}
                }
            }
            while let Some(message) = b.receive() {
                if let Message::Request(token, _) = message {
                    b.reply(token, 0);
                    asked += 1;
                }
            }
            b.send_late();
        }
        assert_eq!((asked, &answered), (4, &parked));
        while a.receive().is_some() {}
        assert_eq!((a.credits(), b.credits()), (4, 4));
    }
}
