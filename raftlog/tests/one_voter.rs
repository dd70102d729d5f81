//! A replica set of one voter, as every partition of a single node is.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use millrace_base::clock::Nanos;
use millrace_base::ids::Uuid;
use millrace_base::offset::Position;
use millrace_raftlog::*;

const TIMING: Timing = Timing { heartbeat_ms: 100, election_ms: 1000 };

fn me() -> Member {
    Member { node: 1, disk: Uuid([7; 16]) }
}

fn fresh() -> State {
    State::new(Configuration::sole(me()))
}

fn restored(state: State) -> Core {
    Core::restore(me(), state, TIMING, 1, Nanos(0)).unwrap()
}

fn effects(core: &mut Core) -> Vec<Effect> {
    std::iter::from_fn(|| core.poll_effect()).collect()
}

/// Restores, and saves the one record.
fn leading(mut disk: State) -> (Core, State) {
    let mut core = restored(disk.clone());
    let [Effect::Persist { sequence, record }] = &effects(&mut core)[..] else { panic!("one record") };
    disk.apply(record).unwrap();
    core.saved(*sequence);
    (core, disk)
}

#[test]
fn it_leads_once_term_vote_and_start_are_durable_in_one_record() {
    let mut disk = fresh();
    let mut core = restored(disk.clone());
    assert!(!core.is_leader());
    let first = effects(&mut core);
    let [Effect::Persist { sequence: 1, record }] = &first[..] else { panic!("{first:?}") };
    assert_eq!((record.term, record.vote), (1, Some(me())));
    assert_eq!(record.start.as_ref().map(Start::position), Some(Position::new(1, 0)));
    assert!(!core.is_leader(), "not before the record is durable");
    disk.apply(record).unwrap();
    core.saved(1);
    assert_eq!(effects(&mut core), [Effect::BecameLeader { epoch: 1, start: 0 }]);
    assert!(core.is_leader() && core.is_settled());
    assert_eq!(core.leader(), Some(me()));
    assert_eq!(core.deadline(), Nanos::NEVER, "nothing needs to wake it");

    core.appended(10);
    assert_eq!((core.log_end(), core.commit()), (10, 0));
    assert_eq!(effects(&mut core), [], "an append alone commits nothing");
    core.appended(12);
    core.persisted(Position::new(1, 10));
    assert_eq!(effects(&mut core), [Effect::Committed { commit: 10 }]);
    core.persisted(Position::new(1, 12));
    assert_eq!(core.commit(), 12);
}

#[test]
fn each_restart_begins_a_new_epoch_at_the_log_end_and_commits_what_was_found() {
    let (mut core, mut disk) = leading(fresh());
    core.appended(10);
    disk.history.extend(10); // journaled, never said to be persisted: the crash came first
    let (mut core, disk) = leading(disk);
    assert_eq!(effects(&mut core), [Effect::BecameLeader { epoch: 2, start: 10 }, Effect::Committed { commit: 10 }]);
    assert_eq!(disk.history.starts().collect::<Vec<_>>(), [Position::new(0, 0), Position::new(1, 0), Position::new(2, 10)]);
    // Epochs 0 and 1: where each ended, as OffsetForLeaderEpoch answers.
    assert_eq!(core.history().end_of(0), Some(Position::new(0, 0)));
    assert_eq!(core.history().end_of(1), Some(Position::new(1, 10)));
    assert_eq!(core.history().end_of(2), Some(Position::new(2, 10)));
}

#[test]
fn restarts_without_appends_leave_no_epochs_behind() {
    let mut disk = fresh();
    disk.term = 1;
    disk.history.begin(Start { epoch: 1, offset: 0, configuration: Configuration::sole(me()) });
    disk.history.extend(5);
    for _ in 0..100 {
        let (core, _) = leading(disk);
        disk = core.state().clone();
    }
    assert_eq!(disk.history.starts().collect::<Vec<_>>(), [Position::new(0, 0), Position::new(1, 0), Position::new(101, 5)]);
}

#[test]
fn marks_grow_and_are_settled_when_saved() {
    let (mut core, _) = leading(fresh());
    core.appended(10);
    core.persisted(Position::new(1, 10));
    effects(&mut core);
    let marks = Marks { log_start: 11, ..Marks::default() };
    assert_eq!(core.raise_marks(marks), Err(RaiseError::BeyondCommit { commit: 10 }));
    let marks = Marks { log_start: 7, ..Marks::default() };
    core.raise_marks(marks).unwrap();
    let [Effect::Persist { sequence, record }] = &effects(&mut core)[..] else { panic!("one record") };
    assert_eq!(record.marks, marks);
    core.saved(*sequence);
    assert_eq!(effects(&mut core), [Effect::Settled { marks }]);
    core.raise_marks(Marks { log_start: 3, ..Marks::default() }).unwrap();
    assert_eq!((core.log_start(), effects(&mut core)), (7, vec![]), "a mark never goes back");
}

#[test]
fn an_idle_replica_is_small_and_appends_do_not_make_it_grow() {
    let (mut core, _) = leading(fresh());
    effects(&mut core);
    let idle = core.memory_bytes();
    assert!(idle < 512, "{idle} bytes");
    for end in 1..=1000 {
        core.appended(end);
        core.persisted(Position::new(1, end));
        assert_eq!(core.poll_effect(), Some(Effect::Committed { commit: end }));
        assert_eq!(core.poll_effect(), None);
        assert_eq!(core.memory_bytes(), idle, "no queue was made");
    }
    println!("{idle} bytes");
}

#[test]
fn an_only_voter_that_is_told_of_a_later_term_leads_again_above_it() {
    let (mut core, _) = leading(fresh());
    effects(&mut core);
    let stranger = Member { node: 9, disk: Uuid([9; 16]) };
    let body = Body::VoteResponse { pre: false, granted: false };
    core.handle_message(stranger, Message { term: 7, marks: Marks::default(), body }, Nanos(0)).unwrap();
    let said = effects(&mut core);
    let [Effect::Persist { .. }, Effect::SteppedDown { term: 7 }, Effect::Persist { sequence, .. }] = &said[..] else { panic!("{said:?}") };
    assert!(!core.is_leader());
    core.saved(*sequence);
    assert!(core.is_leader() && core.epoch() == 8);
}

#[test]
fn the_last_term_is_not_passed() {
    let mut disk = fresh();
    disk.term = i32::MAX;
    let mut core = restored(disk);
    assert_eq!(effects(&mut core), []);
    assert!(!core.is_leader());
}
