//! A leader's view of the other voters, and how it brings their logs to its own.
//!
//! 1. To each it sends what follows the position `next`, at most one epoch at a time and one append of offsets under way. That is
//!    everything the log has by then, so the sync of one append gathers the next.
//! 2. Told that a replica diverged, it looks for the last position that both hold: its own last epoch not above the hint's, and of the
//!    two ends the smaller. Empty appends ask until one is held.
//! 3. Every heartbeat asks each voter something; without answers from a majority within an election time it steps down.
//! 4. What lies before the log start can no longer be sent: such a replica gets heartbeats only.
//!
//! Invariants: matched <= next or probing; matched never goes back within a term.
//! Knows nothing of votes.

use crate::configuration::Member;
use crate::core::{Core, Role};
use crate::message::{Append, Body, Refusal};
use crate::state::Marks;
use millrace_base::clock::Nanos;
use millrace_base::offset::Position;

/// Heartbeats after which offsets that were not confirmed are sent again.
const RESEND_HEARTBEATS: u32 = 3;

impl Core {
    /// Sends what is new to each voter that waits for nothing.
    pub(crate) fn replicate(&mut self) {
        for at in 0..self.peers.len() {
            if !self.peers[at].probing && self.peers[at].waiting == 0 {
                self.send_next(at);
            }
        }
    }

    /// The leader's deadline: is it still heard, and is everybody still there?
    pub(crate) fn heartbeat(&mut self, now: Nanos) {
        self.deadline = now.plus_ms(u64::from(self.timing.heartbeat_ms));
        let election_ms = u64::from(self.timing.election_ms);
        let answers = |member: &Member| *member == self.me || self.peer(member).is_some_and(|peer| now < peer.heard.plus_ms(election_ms));
        if !self.configuration().majority(answers) {
            self.stand_back(now);
            return;
        }
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            if peer.waiting > 0 {
                peer.waiting += 1;
            }
            if peer.waiting > RESEND_HEARTBEATS {
                peer.waiting = 0;
            }
            let idle = peer.waiting == 0 && !peer.probing;
            if !idle || !self.send_next(at) {
                self.send_empty(at);
            }
        }
    }

    pub(crate) fn held(&mut self, from: Member, checked: Position, synced: Position, marks: Marks, now: Nanos) -> Result<(), Refusal> {
        if self.role != Role::Leader {
            return Ok(());
        }
        if synced > checked || checked > self.state.history.last_position() {
            return Err(Refusal::Malformed);
        }
        let Some(at) = self.peers.iter().position(|peer| peer.member == from) else {
            return Ok(());
        };
        let peer = &mut self.peers[at];
        peer.heard = now;
        peer.marks = peer.marks.max(marks);
        peer.matched = peer.matched.max(synced);
        if peer.probing || checked > peer.next {
            peer.probing = false;
            peer.waiting = 0;
            peer.next = checked;
        }
        let idle = peer.waiting == 0;
        self.advance();
        if idle {
            self.send_next(at);
        }
        Ok(())
    }

    pub(crate) fn diverged(&mut self, from: Member, hint: Position, now: Nanos) -> Result<(), Refusal> {
        if self.role != Role::Leader {
            return Ok(());
        }
        let history = &self.state.history;
        let guess = match history.end_of(hint.epoch) {
            Some(end) if end.epoch == hint.epoch => end.min(hint),
            Some(end) => end,
            None => history.first_position(),
        };
        let Some(at) = self.peers.iter().position(|peer| peer.member == from) else {
            return Ok(());
        };
        let peer = &mut self.peers[at];
        peer.heard = now;
        let asked = peer.probing && peer.next == guess;
        if asked || guess < peer.matched {
            return Ok(()); // said before, or said before it held what it is known to hold
        }
        peer.probing = true;
        peer.waiting = 0;
        peer.next = guess;
        self.send_empty(at);
        Ok(())
    }

    /// Sends what follows `next`; false when there is nothing, or it can no longer be sent.
    fn send_next(&mut self, at: usize) -> bool {
        let before = self.peers[at].next;
        let history = &self.state.history;
        if !history.holds(before) || before == history.last_position() {
            return false;
        }
        let start = history.start_after(before);
        let epoch = start.as_ref().map_or(before.epoch, |start| start.epoch);
        let end = history.end_of(epoch).expect("the epoch of a position held").offset;
        if end > before.offset && before.offset < self.state.marks.log_start {
            return false;
        }
        self.peers[at].waiting = 1;
        let append = Append { before, start, end, commit: self.commit };
        self.send(self.peers[at].member, Body::Append(append));
        true
    }

    /// A heartbeat, or the question whether `next` is held.
    fn send_empty(&mut self, at: usize) {
        let before = self.peers[at].next;
        let append = Append { before, start: None, end: before.offset, commit: self.commit };
        self.send(self.peers[at].member, Body::Append(append));
    }
}
