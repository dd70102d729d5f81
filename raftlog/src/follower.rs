//! A follower's log: made to agree with the leader's, one append at a time.
//!
//! 1. An append names the position before it. A follower that does not hold it answers with its largest epoch not above that one's,
//!    and that epoch's end.
//! 2. If it has the append's epoch, offsets up to that epoch's end are there already (an epoch has one leader, so one content). Only
//!    what lies behind is taken, and only what contradicts it is dropped.
//! 3. If it has not, everything behind the position before is dropped, and the start is written.
//! 4. It acknowledges the position it checked, and of that what it has synced: never its own end, which the leader may not hold.
//! 5. It commits what the leader says is committed, as far as it has checked.
//!
//! Invariants: synced <= checked <= log end; nothing committed is dropped.
//! Knows nothing of elections.

use crate::configuration::Member;
use crate::core::{Core, Effect, Role};
use crate::message::{Append, Body, Refusal};
use millrace_base::clock::Nanos;
use millrace_base::offset::Position;

impl Core {
    /// An append of the leader of the present term.
    pub(crate) fn follow(&mut self, from: Member, append: Append, now: Nanos) -> Result<(), Refusal> {
        if self.is_leader() || self.leader.is_some_and(|leader| leader != from) {
            return Err(Refusal::TwoLeaders { term: self.state.term });
        }
        self.role = Role::Follower;
        self.leader = Some(from);
        self.heard = now;
        self.wait_for_leader(now);
        if !self.state.history.holds(append.before) {
            let hint = self.state.history.end_of(append.before.epoch).unwrap_or(self.state.history.first_position());
            self.send(from, Body::Diverged { hint });
            return Ok(());
        }
        let checked = append.after();
        let commit = append.commit;
        self.take(append)?;
        let checked = self.checked.map_or(checked, |before| before.max(checked));
        self.checked = Some(checked);
        assert!(self.state.history.holds(checked));
        let commit = commit.min(checked);
        if commit > self.commit && self.state.history.holds(commit) {
            self.commit = commit;
        }
        self.held_owed = true;
        self.acknowledge();
        Ok(())
    }

    /// Tells the leader what is checked and synced: when an append was taken, and when more of it became durable.
    pub(crate) fn acknowledge(&mut self) {
        let (Some(to), Some(checked)) = (self.leader, self.checked) else {
            return;
        };
        let synced = checked.min(self.durable);
        if self.saved < self.vote_sequence || !(self.held_owed || synced > self.synced_told) {
            return;
        }
        self.held_owed = false;
        self.synced_told = synced;
        self.send(to, Body::Held { checked, synced });
    }

    /// Brings the log to hold all of an append whose position before it holds.
    fn take(&mut self, append: Append) -> Result<(), Refusal> {
        let after = append.after();
        let history = &self.state.history;
        let (keep, begins) = if let Some(began) = history.start_of(after.epoch) {
            if append.start.is_some_and(|start| start.offset != began) {
                return Err(Refusal::Malformed);
            }
            let end = history.end_of(after.epoch).expect("the history has this epoch");
            if after.offset <= end.offset {
                return Ok(());
            }
            (end, None)
        } else {
            (append.before, append.start)
        };
        let truncate = self.go_back(keep)?;
        if let Some(start) = &begins {
            self.state.history.begin(start.clone());
        }
        if truncate.is_some() || begins.is_some() {
            self.persist(truncate, begins);
        }
        let from = keep.offset;
        if after.offset > from {
            self.state.history.extend(after.offset);
            self.push(Effect::Append { epoch: after.epoch, from, end: after.offset });
        }
        Ok(())
    }

    /// Drops what lies behind `keep`, if anything does.
    fn go_back(&mut self, keep: Position) -> Result<Option<Position>, Refusal> {
        if self.state.history.last_position() == keep {
            return Ok(None);
        }
        if self.checked.is_some_and(|checked| keep < checked) {
            return Err(Refusal::Malformed); // this very leader said that it holds it
        }
        if keep < self.commit {
            return Err(Refusal::DropsCommitted { to: keep, commit: self.commit });
        }
        self.truncate(keep);
        Ok(Some(keep))
    }
}
