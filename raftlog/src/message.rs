//! What replicas of one set tell each other. Plain data: the node link gives it a wire format.
//!
//! 1. Every message carries the sender's term and its persisted marks; the larger term and the larger marks hold.
//! 2. An append covers offsets of one epoch, behind a position that the receiver must hold; empty, it is a heartbeat. Its bytes
//!    travel beside it.
//! 3. Messages may be lost, doubled, delayed and reordered.
//!
//! Knows nothing of sockets or encodings.

use crate::history::Start;
use crate::state::Marks;
use millrace_base::fault::Fault;
use millrace_base::offset::{Epoch, Offset, Position};
use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Of the sender; of the election asked for in a vote request.
    pub term: Epoch,
    pub marks: Marks,
    pub body: Body,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// `last` is the last epoch in the candidate's history and its log end. `pre`: would you vote for me?
    VoteRequest {
        pre: bool,
        last: Position,
    },
    VoteResponse {
        pre: bool,
        granted: bool,
    },
    Append(Append),
    /// The receiver holds everything up to `checked` as the leader does, and has synced it up to `synced` <= `checked`. Neither is
    /// the receiver's own end, of which the leader may know nothing.
    Held {
        checked: Position,
        synced: Position,
    },
    /// The receiver does not hold the position before; this is its largest epoch not above that one's, and where it ended.
    Diverged {
        hint: Position,
    },
}

/// `before`, then a start if there is one, then offsets up to `end`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    pub before: Position,
    /// At `before.offset`, in a later epoch.
    pub start: Option<Start>,
    /// Whoever attaches the bytes may lower it to the end of an earlier batch.
    pub end: Offset,
    /// What the leader knows to be committed; it may lie behind `end`.
    pub commit: Position,
}

impl Append {
    /// Where a log ends that takes all of it.
    pub fn after(&self) -> Position {
        Position::new(self.start.as_ref().map_or(self.before.epoch, |start| start.epoch), self.end)
    }

    pub(crate) fn is_valid(&self, term: Epoch) -> bool {
        let start_fits = self.start.as_ref().is_none_or(|start| start.epoch > self.before.epoch && start.offset == self.before.offset);
        start_fits
            && self.before.epoch >= 0
            && self.before.offset >= 0
            && self.end >= self.before.offset
            && self.after().epoch <= term
            && self.commit.epoch <= term
    }
}

/// Why a message was not taken. Nothing changed; whoever reads the log should hear of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Negative, or out of order within itself.
    Malformed,
    /// Another leader of the term that this replica leads, or knows the leader of.
    TwoLeaders { term: Epoch },
    /// It would drop a committed position.
    DropsCommitted { to: Position, commit: Position },
}

impl Refusal {
    pub fn fault(&self) -> Fault {
        match self {
            Refusal::Malformed => Fault::Refuse,
            Refusal::TwoLeaders { .. } | Refusal::DropsCommitted { .. } => Fault::Broken,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed => write!(f, "a raft message contradicts itself"),
            Refusal::TwoLeaders { term } => write!(f, "two replicas lead in term {term}"),
            Refusal::DropsCommitted { to, commit } => write!(
                f,
                "told to go back to epoch {} offset {}, behind the committed epoch {} offset {}",
                to.epoch, to.offset, commit.epoch, commit.offset
            ),
        }
    }
}

impl std::error::Error for Refusal {}
