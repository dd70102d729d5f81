//! The epochs of one partition's log and the offset at which each began.
//!
//! A position is (epoch, offset), compared in that order. A log holds (e, o) if e is in its history and start(e) <= o <= end(e),
//! where end(e) is the start of the next epoch, or the log end for the last.
//! 1. A new log has one epoch, 0, at offset 0: the origin, which every log of the partition holds until it is trimmed. It carries
//!    the configuration that the replica set was made with. The first leader's epoch is 1.
//! 2. Each winner of an election adds a start at (its term, log end). It has no width, and carries a configuration: the log's
//!    configuration is that of its last start.
//! 3. Truncating to (e, o) drops every later position: offsets behind o, and starts of later epochs, those at o included. Their
//!    configurations go with them.
//! 4. Epochs that ended before the log start say nothing any more and are trimmed; the oldest beyond [`EPOCHS_MAX`] too (a replica
//!    that ends in a trimmed epoch finds no common position here). One that ended at the log start stays: a log that ends there can
//!    go on from it.
//! 5. An only voter folds epochs in which nothing was appended, one a restart: nobody else ever held them.
//!
//! Invariants: epochs strictly increase; starts never decrease; the last start <= log end; there is always one epoch.
//! Knows nothing of files, peers or time.

use crate::configuration::{Configuration, Member};
use millrace_base::offset::{Epoch, Offset, Position};

/// Epochs that a history keeps; 16 bytes each.
pub const EPOCHS_MAX: usize = 4096;

/// The zero-width beginning of an epoch: Raft's no-op, at (epoch, offset).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    pub epoch: Epoch,
    pub offset: Offset,
    /// Who votes from here on.
    pub configuration: Configuration,
}

impl Start {
    pub fn position(&self) -> Position {
        Position::new(self.epoch, self.offset)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    epoch: Epoch,
    /// Into `configurations`: most starts repeat the one before.
    configuration: u32,
    offset: Offset,
}

/// The epochs of one log, and its end.
#[derive(Clone, Debug)]
pub struct History {
    starts: Vec<Mark>,
    /// In the order in which the starts name them, each run once.
    configurations: Vec<Configuration>,
    end: Offset,
}

impl History {
    /// An empty log of a replica set made with `configuration`.
    pub fn new(configuration: Configuration) -> History {
        let origin = Mark { epoch: 0, configuration: 0, offset: 0 };
        History { starts: vec![origin], configurations: vec![configuration], end: 0 }
    }

    /// A log that ends where its only epoch starts.
    pub fn from_first(start: Start) -> History {
        assert!(start.epoch >= 0 && start.offset >= 0, "{start:?}");
        let mark = Mark { epoch: start.epoch, configuration: 0, offset: start.offset };
        History { starts: vec![mark], configurations: vec![start.configuration], end: start.offset }
    }

    /// The log end: the offset of the next record.
    pub fn end(&self) -> Offset {
        self.end
    }

    pub fn last_epoch(&self) -> Epoch {
        self.last().epoch
    }

    pub fn last_start(&self) -> Position {
        Position::new(self.last().epoch, self.last().offset)
    }

    /// What votes compare: the last epoch of the history, not of the last batch, and the log end.
    pub fn last_position(&self) -> Position {
        Position::new(self.last().epoch, self.end)
    }

    /// The earliest position held: the start of the oldest epoch kept.
    pub fn first_position(&self) -> Position {
        Position::new(self.starts[0].epoch, self.starts[0].offset)
    }

    /// That of the last start.
    pub fn configuration(&self) -> &Configuration {
        &self.configurations[self.last().configuration as usize]
    }

    /// Oldest first.
    pub fn starts(&self) -> impl ExactSizeIterator<Item = Position> + DoubleEndedIterator {
        self.starts.iter().map(|mark| Position::new(mark.epoch, mark.offset))
    }

    pub fn holds(&self, position: Position) -> bool {
        self.index(position.epoch).is_ok_and(|at| self.starts[at].offset <= position.offset && position.offset <= self.end_at(at))
    }

    /// None when the epoch is not in the history.
    pub fn start_of(&self, epoch: Epoch) -> Option<Offset> {
        self.index(epoch).ok().map(|at| self.starts[at].offset)
    }

    /// The largest epoch not above `epoch`, and where it ended; None when every epoch kept is later. Kafka's OffsetForLeaderEpoch
    /// answers with it, except that an epoch above [`History::last_epoch`] is unknown there (-1, -1), and one before all that is
    /// kept is answered with itself and the first start (KIP-279).
    pub fn end_of(&self, epoch: Epoch) -> Option<Position> {
        let at = match self.index(epoch) {
            Ok(at) => at,
            Err(0) => return None,
            Err(above) => above - 1,
        };
        Some(Position::new(self.starts[at].epoch, self.end_at(at)))
    }

    /// The start that follows `position` in the log, if `position` is where its epoch ended.
    pub fn start_after(&self, position: Position) -> Option<Start> {
        let at = self.index(position.epoch).ok()?;
        let next = self.starts.get(at + 1)?;
        (next.offset == position.offset).then(|| Start {
            epoch: next.epoch,
            offset: next.offset,
            configuration: self.configurations[next.configuration as usize].clone(),
        })
    }

    /// The log grew to `end` within its last epoch.
    pub fn extend(&mut self, end: Offset) {
        assert!(end >= self.end, "a log grows to {end} from {}", self.end);
        self.end = end;
    }

    /// Adds a start at the log end.
    pub fn begin(&mut self, start: Start) {
        assert!(start.epoch > self.last_epoch() && start.offset == self.end, "{start:?} follows {:?}", self.last_position());
        self.push(start);
        if self.starts.len() > EPOCHS_MAX {
            self.drop_oldest(self.starts.len() - EPOCHS_MAX);
        }
    }

    /// Drops every position later than `to`, which the log must hold.
    pub fn truncate(&mut self, to: Position) {
        assert!(self.holds(to), "truncated to {to:?}, which it does not hold");
        let keep = self.starts.partition_point(|mark| mark.epoch <= to.epoch);
        self.starts.truncate(keep);
        self.configurations.truncate(self.last().configuration as usize + 1);
        self.end = to.offset;
    }

    /// Drops the epochs that ended before `log_start`, never the last.
    pub fn trim(&mut self, log_start: Offset) {
        let ended = (0..self.starts.len() - 1).take_while(|at| self.end_at(*at) < log_start).count();
        self.drop_oldest(ended);
    }

    /// Drops the epochs that ended where they began, but neither the first nor the last. For an only voter whose log is committed:
    /// elsewhere another replica may end in one of them.
    pub(crate) fn fold(&mut self) {
        let empty = |at: usize| at > 0 && at + 1 < self.starts.len() && self.end_at(at) == self.starts[at].offset;
        if !(0..self.starts.len()).any(empty) {
            self.starts.shrink_to_fit();
            return;
        }
        let kept: Vec<Start> = (0..self.starts.len())
            .filter(|at| !empty(*at))
            .map(|at| {
                let (position, configuration) = self.start_at(at);
                Start { epoch: position.epoch, offset: position.offset, configuration: configuration.clone() }
            })
            .collect();
        let mut kept = kept.into_iter();
        let mut folded = History::from_first(kept.next().expect("the first is kept"));
        for start in kept {
            folded.extend(start.offset);
            folded.begin(start);
        }
        folded.extend(self.end);
        folded.starts.shrink_to_fit();
        *self = folded;
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let members: usize = self.configurations.iter().map(|each| each.voters().len() + each.outgoing().len()).sum();
        self.starts.capacity() * size_of::<Mark>()
            + self.configurations.capacity() * size_of::<Configuration>()
            + members * size_of::<Member>()
    }

    /// One start, for encoders.
    pub(crate) fn start_at(&self, at: usize) -> (Position, &Configuration) {
        let mark = &self.starts[at];
        (Position::new(mark.epoch, mark.offset), &self.configurations[mark.configuration as usize])
    }

    fn last(&self) -> &Mark {
        self.starts.last().expect("a history always has one epoch")
    }

    fn index(&self, epoch: Epoch) -> Result<usize, usize> {
        if epoch == self.last().epoch {
            return Ok(self.starts.len() - 1);
        }
        self.starts.binary_search_by_key(&epoch, |mark| mark.epoch)
    }

    fn end_at(&self, at: usize) -> Offset {
        self.starts.get(at + 1).map_or(self.end, |next| next.offset)
    }

    fn push(&mut self, start: Start) {
        if self.configuration() != &start.configuration {
            self.configurations.push(start.configuration);
        }
        let configuration = self.configurations.len() as u32 - 1;
        self.starts.push(Mark { epoch: start.epoch, configuration, offset: start.offset });
    }

    fn drop_oldest(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.starts.drain(..count);
        let unused = self.starts[0].configuration;
        self.configurations.drain(..unused as usize);
        for mark in &mut self.starts {
            mark.configuration -= unused;
        }
        self.starts.shrink_to_fit();
    }
}

impl PartialEq for History {
    fn eq(&self, other: &History) -> bool {
        self.end == other.end
            && self.starts.len() == other.starts.len()
            && (0..self.starts.len()).all(|at| self.start_at(at) == other.start_at(at))
    }
}

impl Eq for History {}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::ids::Uuid;

    fn configuration(voters: &[i32]) -> Configuration {
        let voters: Vec<Member> = voters.iter().map(|node| Member { node: *node, disk: Uuid([1; 16]) }).collect();
        Configuration::new(&voters, &[]).unwrap()
    }

    fn start(epoch: Epoch, offset: Offset, voters: &[i32]) -> Start {
        Start { epoch, offset, configuration: configuration(voters) }
    }

    /// 1@0, 2@5 without width, 4@5 with another configuration, 6@9, end 12.
    fn history() -> History {
        let mut history = History::new(configuration(&[1]));
        for (epoch, offset, voters) in [(1, 0, &[1][..]), (2, 5, &[1]), (4, 5, &[1, 2]), (6, 9, &[1, 2])] {
            history.extend(offset);
            history.begin(start(epoch, offset, voters));
        }
        history.extend(12);
        history
    }

    fn starts(history: &History) -> Vec<(Epoch, Offset)> {
        history.starts().map(|at| (at.epoch, at.offset)).collect()
    }

    #[test]
    fn a_log_holds_the_offsets_between_an_epochs_start_and_its_end() {
        let history = history();
        let held = [(0, 0), (1, 0), (1, 5), (2, 5), (4, 5), (4, 9), (6, 9), (6, 12)];
        let not_held = [(0, 1), (1, 6), (2, 4), (2, 6), (3, 5), (4, 4), (4, 10), (6, 8), (6, 13), (7, 12), (-1, 0)];
        for (epoch, offset) in held {
            assert!(history.holds(Position::new(epoch, offset)), "{epoch}/{offset}");
        }
        for (epoch, offset) in not_held {
            assert!(!history.holds(Position::new(epoch, offset)), "{epoch}/{offset}");
        }
    }

    #[test]
    fn the_end_of_an_unknown_epoch_is_that_of_the_largest_below_it() {
        let ends: Vec<_> = (0..8).map(|epoch| history().end_of(epoch).map(|at| (at.epoch, at.offset))).collect();
        let expected = [(0, 0), (1, 5), (2, 5), (2, 5), (4, 9), (4, 9), (6, 12), (6, 12)];
        assert_eq!(ends, expected.map(Some));
        let mut trimmed = history();
        trimmed.trim(6);
        assert_eq!(trimmed.end_of(3), None);
    }

    #[test]
    fn truncation_drops_every_later_position_and_takes_the_configuration_back() {
        let check = |to: (Epoch, Offset), kept: &[(Epoch, Offset)], voters: &[i32]| {
            let mut history = history();
            history.truncate(Position::new(to.0, to.1));
            assert_eq!(starts(&history), kept, "{to:?}");
            assert_eq!(history.last_position(), Position::new(to.0, to.1));
            assert_eq!(*history.configuration(), configuration(voters), "{to:?}");
        };
        check((6, 10), &[(0, 0), (1, 0), (2, 5), (4, 5), (6, 9)], &[1, 2]);
        check((4, 9), &[(0, 0), (1, 0), (2, 5), (4, 5)], &[1, 2]);
        check((4, 5), &[(0, 0), (1, 0), (2, 5), (4, 5)], &[1, 2]);
        check((2, 5), &[(0, 0), (1, 0), (2, 5)], &[1]); // the start 4@5 goes, though no offset does
        check((1, 5), &[(0, 0), (1, 0)], &[1]);
        check((1, 3), &[(0, 0), (1, 0)], &[1]);
        check((0, 0), &[(0, 0)], &[1]);
    }

    #[test]
    fn trimming_keeps_the_epoch_that_ended_at_the_log_start_and_always_the_last() {
        let check = |log_start: Offset, kept: &[(Epoch, Offset)]| {
            let mut history = history();
            let configuration = history.configuration().clone();
            history.trim(log_start);
            assert_eq!(starts(&history), kept, "{log_start}");
            assert_eq!((history.end(), history.configuration()), (12, &configuration));
        };
        check(0, &[(0, 0), (1, 0), (2, 5), (4, 5), (6, 9)]);
        check(5, &[(1, 0), (2, 5), (4, 5), (6, 9)]);
        check(6, &[(4, 5), (6, 9)]);
        check(9, &[(4, 5), (6, 9)]);
        check(100, &[(6, 9)]);
    }

    #[test]
    fn folding_drops_the_empty_epochs_between_the_first_and_the_last() {
        let mut folded = history();
        folded.begin(start(8, 12, &[1, 2]));
        folded.begin(start(9, 12, &[1, 2]));
        folded.fold();
        assert_eq!(starts(&folded), [(0, 0), (1, 0), (4, 5), (6, 9), (9, 12)]);
        assert_eq!(*folded.configuration(), configuration(&[1, 2]));
    }

    #[test]
    fn what_follows_a_position_is_a_start_only_where_its_epoch_ended() {
        let history = history();
        assert_eq!(history.start_after(Position::new(1, 5)), Some(start(2, 5, &[1])));
        assert_eq!(history.start_after(Position::new(2, 5)), Some(start(4, 5, &[1, 2])));
        assert_eq!(history.start_after(Position::new(4, 8)), None);
        assert_eq!(history.start_after(Position::new(6, 12)), None);
    }

    #[test]
    fn a_history_forgets_its_oldest_epochs_beyond_the_limit() {
        let mut history = History::new(configuration(&[1]));
        for epoch in 1..=EPOCHS_MAX as Epoch + 9 {
            history.begin(start(epoch, history.end(), &[1]));
            history.extend(history.end() + 1);
        }
        assert_eq!(history.starts().len(), EPOCHS_MAX);
        assert_eq!(history.first_position(), Position::new(10, 9));
    }
}
