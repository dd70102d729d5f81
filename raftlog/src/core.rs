//! One replica's part in consensus: what it knows, what it is told, what it wants done.
//!
//! Four kinds of method. Getters. Commands of the log's owner: [`Core::appended`], [`Core::raise_marks`]. What happened:
//! [`Core::saved`], [`Core::persisted`], [`Core::handle_message`], [`Core::handle_timeout`]. And [`Core::poll_effect`], drained after
//! each of the others, before the next.
//! 1. A replica that is its set's only voter campaigns when it is restored, in one record of term, vote and start; it leads once that
//!    record is durable. It has no deadline: nothing needs to wake it.
//! 2. Several voters: a deadline passes, a majority would vote (pre-vote), a majority does, the winner writes its start.
//! 3. The leader's owner appends batches at the log end under the leader's epoch, then says `appended`. The core sends them on.
//! 4. Each replica says what it has synced, as positions; commit is the largest position that a majority has synced, if it lies at or
//!    after the leader's own start.
//!
//! The owner journals [`Effect::Persist`] and the batches in the order of effects and commands, and says `saved` and `persisted` in
//! that same order, each only when everything journaled before it is durable too. Statements become durable before their deeds: a
//! truncation is cut from files after its record is saved.
//!
//! Invariants: commit <= log end; commit never goes back; durable <= log end; term >= last epoch; one vote a term; a leader's last
//! epoch is its term; no reply that rests on a term or vote leaves before it is saved.
//! Knows nothing of bytes, files, clocks or sockets.

use crate::configuration::{Configuration, Member};
use crate::history::{History, Start};
use crate::message::{Body, Message, Refusal};
use crate::state::{Marks, Record, RestoreError, State};
use millrace_base::clock::Nanos;
use millrace_base::fault::Fault;
use millrace_base::offset::{Epoch, Offset, Position};
use millrace_base::prng::Prng;
use std::collections::VecDeque;
use std::fmt;

/// How long replicas wait for each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    pub heartbeat_ms: u32,
    /// The least time without a leader before an election; each wait is drawn from this to twice this.
    pub election_ms: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Follower,
    /// Asks whether it would win; its term is as before.
    PreCandidate,
    Candidate,
    Leader,
}

/// What the core wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The log ends at `to` now: reads and derived state go back at once. The record that makes it durable follows directly.
    Truncate { to: Position },
    /// Journal the record; say `saved(sequence)` when it is durable.
    Persist { sequence: u64, record: Record },
    /// Append the bytes of the append just handled, from `from` (a batch begins there) to `end`; all are of `epoch`. Say
    /// `persisted` when they are durable.
    Append { epoch: Epoch, from: Offset, end: Offset },
    /// An append with offsets takes along the batches from `before.offset` to `end`; whoever attaches them may lower `end` to the end
    /// of an earlier batch.
    Send { to: Member, message: Message },
    /// This replica leads: batches are appended from `start`, under `epoch`.
    BecameLeader { epoch: Epoch, start: Offset },
    /// It led, and does so no longer: its term is `term` now.
    SteppedDown { term: Epoch },
    /// Everything before `commit` is committed.
    Committed { commit: Offset },
    /// A majority has persisted these marks: what waits for them can be answered.
    Settled { marks: Marks },
}

/// Why marks were not raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RaiseError {
    NotLeader,
    /// Marks never pass what is committed.
    BeyondCommit {
        commit: Offset,
    },
}

impl RaiseError {
    pub fn fault(&self) -> Fault {
        match self {
            RaiseError::NotLeader => Fault::Retry,
            RaiseError::BeyondCommit { .. } => Fault::Refuse,
        }
    }
}

impl fmt::Display for RaiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RaiseError::NotLeader => write!(f, "marks are raised by the leader"),
            RaiseError::BeyondCommit { commit } => {
                write!(f, "a mark cannot lie beyond the commit {commit}")
            }
        }
    }
}

impl std::error::Error for RaiseError {}

/// Another voter, as this replica sees it in this term.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) member: Member,
    /// Its vote, or what it would vote.
    pub(crate) granted: bool,
    /// Looking for the last position that both hold; else `next` is one.
    pub(crate) probing: bool,
    /// Heartbeats since offsets were sent that it has not confirmed; 0 when none are under way.
    pub(crate) waiting: u32,
    /// Where the next append to it begins.
    pub(crate) next: Position,
    /// Held like this replica's, and synced there.
    pub(crate) matched: Position,
    pub(crate) heard: Nanos,
    pub(crate) marks: Marks,
}

/// The consensus core of one replica.
#[derive(Debug)]
pub struct Core {
    pub(crate) me: Member,
    pub(crate) state: State,
    pub(crate) role: Role,
    pub(crate) leader: Option<Member>,
    /// Every position up to it is synced here.
    pub(crate) durable: Position,
    pub(crate) commit: Position,
    commit_told: Offset,
    /// Sequence of the last record; `saved` <= it.
    issued: u64,
    pub(crate) saved: u64,
    /// The records that carry the present term and vote, the last truncation, the last start and the marks.
    pub(crate) vote_sequence: u64,
    truncate_sequence: u64,
    start_sequence: u64,
    marks_sequence: u64,
    marks_saved: Marks,
    marks_settled: Marks,
    /// A vote given that waits for its record.
    pub(crate) vote_owed: bool,
    /// Held as the leader of this term holds it.
    pub(crate) checked: Option<Position>,
    /// An acknowledgement waits for the record of this term.
    pub(crate) held_owed: bool,
    /// The last `synced` told to the leader of this term.
    pub(crate) synced_told: Position,
    pub(crate) peers: Vec<Peer>,
    pub(crate) heard: Nanos,
    pub(crate) deadline: Nanos,
    pub(crate) timing: Timing,
    pub(crate) prng: Prng,
    effects: VecDeque<Effect>,
}

impl Core {
    /// A replica as recovery found it: everything in `state`, and every batch up to its log end, is synced. `seed` differs between
    /// replicas, so that their elections do not collide for ever.
    pub fn restore(me: Member, state: State, timing: Timing, seed: u64, now: Nanos) -> Result<Core, RestoreError> {
        let mut core = Core::restore_still(me, state, timing, seed, now)?;
        if core.configuration().is_sole(&me) {
            core.campaign_alone();
        } else {
            core.wait_for_leader(now);
        }
        Ok(core)
    }

    /// A replica whose log has lost what it acknowledged: it says what it holds, and neither votes, leads nor follows. Its owner gives it
    /// no message and no time.
    pub fn restore_still(me: Member, state: State, timing: Timing, seed: u64, now: Nanos) -> Result<Core, RestoreError> {
        assert!(timing.heartbeat_ms > 0 && timing.heartbeat_ms < timing.election_ms, "{timing:?}");
        state.validate()?;
        let commit = state.history.first_position(); // marks came from others: they say nothing of what this log holds
        let durable = state.history.last_position();
        let marks = state.marks;
        Ok(Core {
            me,
            state,
            role: Role::Follower,
            leader: None,
            durable,
            commit,
            commit_told: commit.offset,
            issued: 0,
            saved: 0,
            vote_sequence: 0,
            truncate_sequence: 0,
            start_sequence: 0,
            marks_sequence: 0,
            marks_saved: marks,
            marks_settled: Marks::default(),
            vote_owed: false,
            checked: None,
            held_owed: false,
            synced_told: Position::default(),
            peers: Vec::new(),
            heard: now,
            deadline: Nanos::NEVER,
            timing,
            prng: Prng::new(seed),
            effects: VecDeque::new(),
        })
    }

    pub fn me(&self) -> Member {
        self.me
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Of the present term, as far as known here.
    pub fn leader(&self) -> Option<Member> {
        self.leader
    }

    /// The term: the epoch under which a leader appends.
    pub fn epoch(&self) -> Epoch {
        self.state.term
    }

    /// The offset of the next record.
    pub fn log_end(&self) -> Offset {
        self.state.history.end()
    }

    /// The first offset kept.
    pub fn log_start(&self) -> Offset {
        self.state.marks.log_start
    }

    /// Everything before it is committed; never goes back. It is not persisted: until this replica leads or hears a leader it may lie
    /// before the log start.
    pub fn commit(&self) -> Offset {
        self.commit.offset
    }

    pub fn commit_position(&self) -> Position {
        self.commit
    }

    /// Every position up to it is synced here.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The leader's own start is committed, so it knows every committed offset. Until then it accepts appends, but an offset at or
    /// beyond [`Core::commit`] may be committed without its knowing.
    pub fn is_settled(&self) -> bool {
        self.is_leader() && self.commit.epoch == self.state.term
    }

    pub fn marks(&self) -> Marks {
        self.state.marks
    }

    /// What a majority has persisted, as far as this leader knows.
    pub fn marks_settled(&self) -> Marks {
        self.marks_settled
    }

    pub fn history(&self) -> &History {
        &self.state.history
    }

    pub fn configuration(&self) -> &Configuration {
        self.state.history.configuration()
    }

    /// Everything that effects and appends have told so far, saved or not: what a checkpoint carries. It stands for all that the journal
    /// has before it, so recovery puts it in place of what it had and applies only what was journaled behind it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When [`Core::handle_timeout`] wants to be called; NEVER for an only voter.
    pub fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// What this replica occupies, for whoever accounts for it: itself and what it holds on the heap.
    pub fn memory_bytes(&self) -> usize {
        let peers = self.peers.capacity() * size_of::<Peer>();
        let effects = self.effects.capacity() * size_of::<Effect>();
        size_of::<Core>() + self.state.history.heap_bytes() + peers + effects
    }

    /// The owner appended batches under [`Core::epoch`] at the log end, which is `end` now. Only while it leads. Does not allocate
    /// unless there are other voters.
    pub fn appended(&mut self, end: Offset) {
        assert!(self.is_leader(), "only a leader's owner appends");
        assert!(end > self.log_end(), "appended to {end}, but the log ends at {}", self.log_end());
        self.state.history.extend(end);
        self.replicate();
    }

    /// Raises each mark to the larger of two values. Answer whoever asked when [`Effect::Settled`] says that a majority has them.
    pub fn raise_marks(&mut self, marks: Marks) -> Result<(), RaiseError> {
        if !self.is_leader() {
            return Err(RaiseError::NotLeader);
        }
        let commit = self.commit();
        if marks.log_start.max(marks.archived_through).max(marks.compacted_through) > commit {
            return Err(RaiseError::BeyondCommit { commit });
        }
        self.merge_marks(marks);
        Ok(())
    }

    /// Every record up to `sequence` is durable, and every batch journaled before it.
    pub fn saved(&mut self, sequence: u64) {
        assert!(sequence <= self.issued, "record {sequence} was never issued");
        if sequence <= self.saved {
            return;
        }
        self.saved = sequence;
        if sequence >= self.marks_sequence && self.marks_saved != self.state.marks {
            self.marks_saved = self.state.marks;
            self.trim();
        }
        if sequence >= self.start_sequence {
            self.durable = self.durable.max(self.state.history.last_start());
        }
        match self.role {
            Role::Leader => self.advance(),
            Role::Candidate => self.vote_saved(),
            Role::Follower | Role::PreCandidate => {
                self.answer_vote();
                self.acknowledge();
            }
        }
    }

    /// Every batch up to `position` is durable, and every record journaled before it.
    pub fn persisted(&mut self, position: Position) {
        // Of writes before a truncation that is not durable itself, the positions may be held again by now without being durable again.
        let truncating = self.truncate_sequence > self.saved;
        if truncating || position <= self.durable || !self.state.history.holds(position) {
            return;
        }
        self.durable = position;
        match self.role {
            Role::Leader => self.advance(),
            Role::Follower | Role::PreCandidate | Role::Candidate => self.acknowledge(),
        }
    }

    /// A message from another replica. The owner has checked that the bytes beside an append fill its range and that there is room to
    /// journal them. On a refusal the log is as before.
    pub fn handle_message(&mut self, from: Member, message: Message, now: Nanos) -> Result<(), Refusal> {
        if from == self.me || message.term < 0 || !message.marks.are_valid() {
            return Err(Refusal::Malformed);
        }
        if let Body::Append(append) = &message.body
            && !append.is_valid(message.term)
        {
            return Err(Refusal::Malformed);
        }
        self.merge_marks(message.marks);
        let Message { term, marks, body } = message;
        match body {
            Body::VoteRequest { pre: true, last } => {
                self.answer_pre_vote(from, term, last, now);
                return Ok(());
            }
            Body::VoteResponse { pre: true, granted: true } => {
                self.pre_vote_granted(from, term, now);
                return Ok(());
            }
            // A replica that hears its leader is not made to follow another.
            Body::VoteRequest { pre: false, .. } if term > self.state.term && self.hears_leader(now) => {
                return Ok(());
            }
            _ => {}
        }
        if term < self.state.term {
            self.answer_stale(from, &body);
            return Ok(());
        }
        if term > self.state.term {
            self.adopt(term, now);
        }
        match body {
            Body::VoteRequest { last, .. } => self.answer_vote_request(from, last, now),
            Body::VoteResponse { pre, granted } => {
                if granted && !pre {
                    self.vote_granted(from, now);
                }
            }
            Body::Append(append) => return self.follow(from, append, now),
            Body::Held { checked, synced } => return self.held(from, checked, synced, marks, now),
            Body::Diverged { hint } => return self.diverged(from, hint, now),
        }
        Ok(())
    }

    /// Nothing happens before [`Core::deadline`].
    pub fn handle_timeout(&mut self, now: Nanos) {
        if now < self.deadline {
            return;
        }
        match self.role {
            Role::Leader => self.heartbeat(now),
            Role::Follower | Role::PreCandidate | Role::Candidate => self.ask(now),
        }
    }

    /// The next thing to do; None when there is nothing more.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        if self.peers.is_empty() && self.effects.capacity() > 0 {
            self.effects = VecDeque::new(); // an idle only voter keeps no queue
        }
        if self.commit_told == self.commit.offset {
            return None;
        }
        self.commit_told = self.commit.offset;
        Some(Effect::Committed { commit: self.commit.offset })
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn send(&mut self, to: Member, body: Body) {
        self.send_in(self.state.term, to, body);
    }

    pub(crate) fn send_in(&mut self, term: Epoch, to: Member, body: Body) {
        let message = Message { term, marks: self.marks_saved, body };
        self.push(Effect::Send { to, message });
    }

    /// Issues a record of the present term, vote and marks; returns its sequence.
    pub(crate) fn persist(&mut self, truncate: Option<Position>, start: Option<Start>) -> u64 {
        self.issued += 1;
        let sequence = self.issued;
        if truncate.is_some() {
            self.truncate_sequence = sequence;
        }
        if start.is_some() {
            self.start_sequence = sequence;
        }
        let State { term, vote, marks, .. } = self.state;
        self.push(Effect::Persist { sequence, record: Record { term, vote, marks, truncate, start } });
        sequence
    }

    /// A start of this replica's own at the log end, under the present term and configuration.
    pub(crate) fn own_start(&mut self) -> Start {
        let configuration = self.configuration().clone();
        let start = Start { epoch: self.state.term, offset: self.log_end(), configuration };
        self.state.history.begin(start.clone());
        start
    }

    /// Goes to a later term, in which it has not voted and knows no leader.
    pub(crate) fn adopt(&mut self, term: Epoch, now: Nanos) {
        assert!(term > self.state.term);
        self.enter(term, None);
        self.vote_sequence = self.persist(None, None);
        self.stand_back(now);
    }

    pub(crate) fn enter(&mut self, term: Epoch, vote: Option<Member>) {
        self.state.term = term;
        self.state.vote = vote;
        self.leader = None;
        self.checked = None;
        self.vote_owed = false;
        self.held_owed = false;
        self.synced_told = Position::default();
    }

    /// Becomes a follower of its term; an only voter campaigns again.
    pub(crate) fn stand_back(&mut self, now: Nanos) {
        let led = self.is_leader();
        self.role = Role::Follower;
        if led {
            self.leader = None;
            self.push(Effect::SteppedDown { term: self.state.term });
        }
        if self.configuration().is_sole(&self.me) {
            self.campaign_alone();
        } else {
            self.wait_for_leader(now);
        }
    }

    /// The leader's commit: the largest position that a majority has synced, if it is the leader's own.
    pub(crate) fn advance(&mut self) {
        let reached = self.configuration().reached(|member| self.synced_by(member));
        if reached.epoch == self.state.term && reached > self.commit {
            self.commit = reached;
        }
        assert!(self.commit <= self.state.history.last_position());
        self.settle_marks();
    }

    /// Epochs before the log start are of no use to anyone, once this log is known to be the committed one there.
    pub(crate) fn trim(&mut self) {
        self.state.history.trim(self.marks_saved.log_start.min(self.commit.offset));
    }

    fn synced_by(&self, member: &Member) -> Position {
        if *member == self.me {
            return self.durable;
        }
        self.peer(member).map_or(Position::default(), |peer| peer.matched)
    }

    fn settle_marks(&mut self) {
        let of = |core: &Core, mark: fn(&Marks) -> Offset| {
            core.configuration().reached(|member| {
                if *member == core.me { mark(&core.marks_saved) } else { core.peer(member).map_or(0, |peer| mark(&peer.marks)) }
            })
        };
        let settled = Marks {
            log_start: of(self, |marks| marks.log_start),
            archived_through: of(self, |marks| marks.archived_through),
            compacted_through: of(self, |marks| marks.compacted_through),
        };
        let marks = settled.max(self.marks_settled);
        if marks != self.marks_settled {
            self.marks_settled = marks;
            self.push(Effect::Settled { marks });
        }
    }

    fn merge_marks(&mut self, marks: Marks) {
        let merged = self.state.marks.max(marks);
        if merged != self.state.marks {
            self.state.marks = merged;
            self.marks_sequence = self.persist(None, None);
        }
    }

    pub(crate) fn peer(&self, member: &Member) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.member == *member)
    }

    pub(crate) fn peer_mut(&mut self, member: &Member) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.member == *member)
    }

    /// Forgets what it knew of the other voters.
    pub(crate) fn meet_peers(&mut self, now: Nanos) {
        let next = self.state.history.last_position();
        let others = self.state.history.configuration().members().filter(|member| **member != self.me);
        self.peers = others
            .map(|member| Peer {
                member: *member,
                granted: false,
                probing: false,
                waiting: 0,
                next,
                matched: Position::default(),
                heard: now,
                marks: Marks::default(),
            })
            .collect();
    }

    pub(crate) fn truncate(&mut self, to: Position) {
        assert!(to >= self.commit, "{to:?} is behind the committed {:?}", self.commit);
        self.state.history.truncate(to);
        self.durable = self.durable.min(to);
        self.push(Effect::Truncate { to });
    }
}
