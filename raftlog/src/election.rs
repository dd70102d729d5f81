//! Elections: who asks, who votes, who wins.
//!
//! 1. A voter whose deadline passed asks whether it would win (pre-vote); nothing changes by asking.
//! 2. With a majority it takes the next term, votes for itself, and asks for votes when that is saved.
//! 3. A vote goes to one candidate a term, whose (last epoch in the history, log end) is not behind the voter's; the answer leaves when
//!    the vote is saved. A voter that hears its leader votes for nobody.
//! 4. The winner writes its start at once; an only voter writes it together with its vote.
//!
//! Invariants: one vote a term; a leader's vote is its own.
//! Knows nothing of how logs are brought together.

use crate::configuration::Member;
use crate::core::{Core, Effect, Role};
use crate::message::Body;
use millrace_base::clock::Nanos;
use millrace_base::offset::{Epoch, Position};

impl Core {
    /// Term, vote and start in one record: it wins when that is durable, because nobody else votes.
    pub(crate) fn campaign_alone(&mut self) {
        self.deadline = Nanos::NEVER;
        self.peers = Vec::new();
        let Some(term) = self.state.term.checked_add(1) else {
            return; // out of terms, after two thousand million elections: it stays readable up to its commit
        };
        self.enter(term, Some(self.me));
        self.role = Role::Candidate;
        let start = self.own_start();
        self.vote_sequence = self.persist(None, Some(start));
    }

    /// Asks whether a majority would vote for this replica in the next term.
    pub(crate) fn ask(&mut self, now: Nanos) {
        if self.configuration().is_sole(&self.me) {
            return self.campaign_alone();
        }
        self.wait_for_leader(now);
        let Some(term) = self.state.term.checked_add(1) else {
            return;
        };
        if !self.configuration().is_voter(&self.me) {
            return;
        }
        self.leader = None;
        self.role = Role::PreCandidate;
        self.meet_peers(now);
        self.request_votes(true, term);
    }

    /// A deadline drawn from one to two election times away.
    pub(crate) fn wait_for_leader(&mut self, now: Nanos) {
        let election_ms = u64::from(self.timing.election_ms);
        self.deadline = now.plus_ms(election_ms + self.prng.below(election_ms));
    }

    /// True while a leader's heartbeats arrive, or while it leads itself: it steps down when a majority no longer answers.
    pub(crate) fn hears_leader(&self, now: Nanos) -> bool {
        let recent = now < self.heard.plus_ms(u64::from(self.timing.election_ms));
        self.is_leader() || (self.leader.is_some() && recent)
    }

    pub(crate) fn answer_pre_vote(&mut self, from: Member, term: Epoch, last: Position, now: Nanos) {
        let granted = term > self.state.term && last >= self.state.history.last_position() && !self.hears_leader(now);
        let answer_term = if granted { term } else { self.state.term };
        self.send_in(answer_term, from, Body::VoteResponse { pre: true, granted });
    }

    pub(crate) fn pre_vote_granted(&mut self, from: Member, term: Epoch, now: Nanos) {
        if self.role != Role::PreCandidate || self.state.term.checked_add(1) != Some(term) || !self.count_vote(from) {
            return;
        }
        self.enter(term, Some(self.me));
        self.role = Role::Candidate;
        self.meet_peers(now);
        self.wait_for_leader(now);
        self.vote_sequence = self.persist(None, None);
    }

    /// The candidate's own vote is durable.
    pub(crate) fn vote_saved(&mut self) {
        if self.saved < self.vote_sequence {
            return;
        }
        if self.configuration().is_sole(&self.me) {
            self.role = Role::Leader;
            self.announce();
        } else {
            self.request_votes(false, self.state.term);
        }
    }

    pub(crate) fn vote_granted(&mut self, from: Member, now: Nanos) {
        if self.role != Role::Candidate || self.saved < self.vote_sequence || !self.count_vote(from) {
            return;
        }
        self.meet_peers(now); // each begins at the position before the new start
        self.role = Role::Leader;
        let start = self.own_start();
        self.persist(None, Some(start));
        self.deadline = now.plus_ms(u64::from(self.timing.heartbeat_ms));
        self.announce();
        self.replicate();
    }

    pub(crate) fn answer_vote_request(&mut self, from: Member, last: Position, now: Nanos) {
        let free = self.state.vote.is_none_or(|vote| vote == from);
        if !free || self.leader.is_some() || last < self.state.history.last_position() {
            self.send(from, Body::VoteResponse { pre: false, granted: false });
            return;
        }
        self.role = Role::Follower;
        self.wait_for_leader(now);
        if self.state.vote.is_none() {
            self.state.vote = Some(from);
            self.vote_sequence = self.persist(None, None);
        }
        self.vote_owed = true;
        self.answer_vote();
    }

    /// Sends the vote that is owed, once its record is durable.
    pub(crate) fn answer_vote(&mut self) {
        if !self.vote_owed || self.saved < self.vote_sequence {
            return;
        }
        self.vote_owed = false;
        let to = self.state.vote.expect("a vote is owed only after it was given in this term");
        self.send(to, Body::VoteResponse { pre: false, granted: true });
    }

    /// The sender is in an earlier term: our term tells it so, where anything waits for an answer.
    pub(crate) fn answer_stale(&mut self, from: Member, body: &Body) {
        match body {
            Body::VoteRequest { pre, .. } => self.send(from, Body::VoteResponse { pre: *pre, granted: false }),
            Body::Append(_) => self.send(from, Body::Diverged { hint: self.state.history.last_position() }),
            Body::VoteResponse { .. } | Body::Held { .. } | Body::Diverged { .. } => {}
        }
    }

    /// Counts a voter; true when it completed a majority.
    fn count_vote(&mut self, from: Member) -> bool {
        match self.peer_mut(&from) {
            None => return false,
            Some(peer) => peer.granted = true,
        }
        self.configuration().majority(|member| *member == self.me || self.peer(member).is_some_and(|peer| peer.granted))
    }

    fn request_votes(&mut self, pre: bool, term: Epoch) {
        let last = self.state.history.last_position();
        for at in 0..self.peers.len() {
            self.send_in(term, self.peers[at].member, Body::VoteRequest { pre, last });
        }
    }

    fn announce(&mut self) {
        self.leader = Some(self.me);
        let start = self.state.history.last_start();
        assert_eq!(start.epoch, self.state.term);
        self.push(Effect::BecameLeader { epoch: start.epoch, start: start.offset });
        self.advance();
        self.trim();
        if self.configuration().is_sole(&self.me) {
            self.state.history.fold();
        }
    }
}
