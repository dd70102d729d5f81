//! Whatever peers and disks say, a replica neither panics nor breaks its own rules.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use millrace_base::clock::Nanos;
use millrace_base::ids::Uuid;
use millrace_base::offset::{Offset, Position};
use millrace_base::prng::Prng;
use millrace_raftlog::*;

const TIMING: Timing = Timing { heartbeat_ms: 20, election_ms: 100 };

fn member(node: u64) -> Member {
    Member { node: node as i32, disk: Uuid([node as u8; 16]) }
}

fn small(prng: &mut Prng) -> i64 {
    match prng.below(40) {
        0 => -1,
        1 => i64::MAX,
        2 => i64::MIN,
        _ => prng.below(12) as i64,
    }
}

fn epoch(prng: &mut Prng) -> i32 {
    match prng.below(200) {
        0 => -1,
        1 => i32::MIN,
        2 => i32::MAX - 1,
        _ => prng.below(8) as i32,
    }
}

fn position(prng: &mut Prng) -> Position {
    Position::new(epoch(prng), small(prng))
}

fn message(prng: &mut Prng, voters: &Configuration) -> Message {
    let body = match prng.below(9) {
        0 => Body::VoteRequest { pre: prng.one_in(2), last: position(prng) },
        1 | 2 => Body::VoteResponse { pre: prng.one_in(2), granted: !prng.one_in(4) },
        3 => Body::Held { checked: position(prng), synced: position(prng) },
        4 => Body::Diverged { hint: position(prng) },
        _ => {
            let before = position(prng);
            let configuration = if prng.one_in(30) { Configuration::sole(member(1)) } else { voters.clone() };
            let offset = if prng.one_in(20) { small(prng) } else { before.offset };
            let start = prng.one_in(2).then(|| Start { epoch: epoch(prng), offset, configuration });
            let end = if prng.one_in(10) { small(prng) } else { before.offset.saturating_add(prng.below(5) as i64) };
            Body::Append(Append { before, start, end, commit: position(prng) })
        }
    };
    let marks = Marks { archived_through: small(prng).min(50), log_start: if prng.one_in(50) { 5 } else { 0 }, ..Marks::default() };
    Message { term: epoch(prng), marks, body }
}

#[test]
fn no_order_of_messages_breaks_a_replica() {
    let mut taken = 0;
    for seed in 1..=3000 {
        let mut prng = Prng::new(seed);
        let voters = Configuration::new(&[member(1), member(2), member(3)], &[]).unwrap();
        let mut disk = State::new(voters.clone());
        let mut core = Core::restore(member(1), disk.clone(), TIMING, seed, Nanos(0)).unwrap();
        let mut now = Nanos(0);
        let (mut term, mut commit) = (0, Position::default());
        let mut vote = None;
        for _ in 0..200 {
            match prng.below(12) {
                0 => {
                    now = now.plus_ms(prng.below(200));
                    core.handle_timeout(now);
                }
                1 if core.is_leader() => {
                    let end = core.log_end();
                    core.appended(end + 1);
                    disk.history.extend(end + 1);
                }
                2 => core.persisted(position(&mut prng).min(core.history().last_position())),
                _ => {
                    let from = member(1 + prng.below(4));
                    taken += usize::from(core.handle_message(from, message(&mut prng, &voters), now).is_ok());
                }
            }
            drain(&mut core, &mut disk, &mut prng);
            assert!(core.epoch() >= term && core.commit_position() >= commit);
            if core.epoch() == term && vote.is_some() {
                assert_eq!(core.state().vote, vote, "a second vote in term {term}");
            }
            (term, commit, vote) = (core.epoch(), core.commit_position(), core.state().vote);
            assert!(commit <= core.history().last_position());
            assert!(core.durable() <= core.history().last_position());
            assert_eq!(core.history().end(), disk.history.end(), "what was journaled is what is held");
        }
    }
    assert!(taken > 100_000, "{taken} messages made sense");
}

fn drain(core: &mut Core, disk: &mut State, prng: &mut Prng) {
    let mut saved = 0;
    while let Some(effect) = core.poll_effect() {
        match effect {
            Effect::Persist { sequence, record } => {
                disk.apply(&record).unwrap();
                saved = sequence;
            }
            Effect::Append { epoch, from, end } => {
                assert_eq!((disk.history.last_epoch(), disk.history.end()), (epoch, from));
                disk.history.extend(end);
            }
            Effect::Truncate { .. }
            | Effect::Send { .. }
            | Effect::BecameLeader { .. }
            | Effect::SteppedDown { .. }
            | Effect::Committed { .. }
            | Effect::Settled { .. } => {}
        }
    }
    if saved > 0 && !prng.one_in(3) {
        core.saved(saved);
        drain(core, disk, prng);
    }
}

fn some_state(prng: &mut Prng) -> State {
    let mut state = State::new(Configuration::new(&[member(1), member(2)], &[]).unwrap());
    for _ in 0..prng.below(6) {
        let epoch = state.history.last_epoch() + 1 + prng.below(3) as i32;
        let voters: Vec<Member> = (1..=1 + prng.below(3)).map(member).collect();
        let configuration = Configuration::new(&voters, &[]).unwrap();
        state.history.begin(Start { epoch, offset: state.history.end(), configuration });
        state.history.extend(state.history.end() + prng.below(4) as Offset);
    }
    state.term = state.history.last_epoch() + prng.below(2) as i32;
    state.vote = prng.one_in(2).then(|| member(2));
    state.marks.log_start = prng.below(9) as Offset;
    state
}

#[test]
fn a_state_reads_back_as_written_and_damage_is_an_error_or_a_valid_state() {
    for seed in 1..=2000 {
        let mut prng = Prng::new(seed);
        let state = some_state(&mut prng);
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        assert_eq!(State::decode(&bytes).as_ref(), Ok(&state));
        for cut in 0..bytes.len() {
            assert!(State::decode(&bytes[..cut]).is_err());
        }
        let at = prng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << prng.below(8);
        if let Ok(other) = State::decode(&bytes) {
            assert!(other.validate().is_ok());
            Core::restore(member(1), other, TIMING, 1, Nanos(0)).unwrap();
        }
        bytes.push(0);
        assert!(State::decode(&bytes).is_err());
    }
}

#[test]
fn a_count_that_lies_allocates_nothing() {
    let mut bytes = Vec::new();
    State::new(Configuration::sole(member(1))).encode(&mut bytes);
    let count = bytes.len() - (4 + 8 + 1 + 2 + 20) - 4;
    assert_eq!(bytes[count..count + 4], 1u32.to_le_bytes());
    bytes[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(State::decode(&bytes).unwrap_err().place, count);
    bytes[count..count + 4].copy_from_slice(&4096u32.to_le_bytes());
    assert_eq!(State::decode(&bytes).unwrap_err().expected, "more bytes");
}

#[test]
fn random_bytes_are_no_record_or_a_valid_one() {
    let mut prng = Prng::new(1);
    for _ in 0..100_000 {
        let bytes: Vec<u8> = (0..prng.below(90)).map(|at| if at == 0 { 1 } else { prng.below(4) as u8 }).collect();
        if let Ok(record) = Record::decode(&bytes) {
            let mut again = Vec::new();
            record.encode(&mut again);
            assert_eq!(again, bytes);
        }
    }
}

#[test]
fn the_bytes_of_a_record_stay_as_they_are() {
    let record = Record {
        term: 3,
        vote: Some(member(1)),
        marks: Marks { log_start: 5, ..Marks::default() },
        truncate: Some(Position::new(1, 5)),
        start: Some(Start { epoch: 3, offset: 5, configuration: Configuration::sole(member(1)) }),
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let one = format!("01000000{}", "01".repeat(16));
    let marks = format!("05{}", "00".repeat(23));
    let expected = format!("0103 03000000 01{one} {marks} 010000000500000000000000 03000000 0500000000000000 01 01 00 {one}");
    assert_eq!(text, expected.replace(' ', ""));
    assert_eq!(Record::decode(&bytes), Ok(record));
}
