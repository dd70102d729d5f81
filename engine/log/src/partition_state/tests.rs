//! What a partition's state promises: it reads back, in the journal or from its file, and checkpoints add up to it.

use super::*;
use crate::walk::{self, tests::batch};
use millrace_base::batch::{Header, place};
use millrace_base::crc::crc32c;
use millrace_base::prng::Prng;

/// A batch of producer 7 with the next sequence, at `base`.
pub(crate) fn produced(base: Offset) -> (Header, Vec<u8>) {
    let mut bytes = batch(base, 1, 50, base + 1000);
    bytes[place::PRODUCER_ID..place::PRODUCER_ID + 8].copy_from_slice(&7i64.to_be_bytes());
    bytes[place::PRODUCER_EPOCH..place::PRODUCER_EPOCH + 2].copy_from_slice(&0i16.to_be_bytes());
    bytes[place::BASE_SEQUENCE..place::BASE_SEQUENCE + 4].copy_from_slice(&(base as i32).to_be_bytes());
    let crc = crc32c(&bytes[place::ATTRIBUTES..]);
    bytes[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    (walk::header_at(&bytes).unwrap(), bytes)
}

fn grow(large: &mut Large, count: i64) {
    for _ in 0..count {
        let (header, bytes) = produced(large.index.summary().end);
        large.index.add(&header, &bytes);
        large.producers.append(&header, 77);
    }
    large.producers.commit(large.index.summary().end - 2);
}

fn state_of(large: Large) -> PartitionState {
    let facts = *large.index.summary();
    PartitionState {
        log_start: 3,
        durable_end: facts.end,
        log_end: facts.end + 5,
        segment: facts.base,
        segment_bytes: facts.bytes,
        rolls: vec![facts.end + 10, facts.end + 20],
        consensus: vec![1, 2, 3],
        large: LargeAt::Here(large),
    }
}

fn sample(count: i64, interval: u32) -> PartitionState {
    let LargeAt::Here(mut large) = PartitionState::birth(0, interval, Vec::new()).large else { unreachable!() };
    grow(&mut large, count);
    large.producers.forget_changes();
    state_of(large)
}

#[test]
fn a_small_state_is_carried_whole() {
    let state = sample(20, 500);
    let (journal, file) = state.clone().split(None, state_file::INLINE_BYTES_MAX);
    assert_eq!(file, None);
    assert_eq!(PartitionState::decode(&journal).unwrap(), state);
}

#[test]
fn a_birth_is_a_sound_state() {
    let state = PartitionState::birth(12, 4096, b"raft".to_vec());
    assert_eq!(PartitionState::decode(&state.encode()).unwrap(), state);
    assert!(state.encode().len() < 200);
}

#[test]
fn a_large_state_goes_to_a_file_that_the_journal_names() {
    let state = sample(600, 1);
    let (journal, file) = state.clone().split(None, state_file::INLINE_BYTES_MAX);
    let (named, bytes) = file.expect("more than the journal takes");
    assert!(journal.len() < 200);
    let read = PartitionState::decode(&journal).unwrap();
    let LargeAt::File(reference) = &read.large else { panic!("named") };
    assert_eq!(reference, &named);
    let large = Large::decode(state_file::decode(&bytes, reference).unwrap()).unwrap();
    assert_eq!(LargeAt::Here(large), state.large);
}

/// A state that went to a file, as a partition goes on with it.
fn filed(count: i64, interval: u32) -> (Large, StateFile, Large) {
    let LargeAt::Here(mut live) = sample(count, interval).large else { unreachable!() };
    let in_file = live.clone();
    let (_, file) = state_of(live.clone()).split(None, 0);
    let (reference, bytes) = file.unwrap();
    assert_eq!(Large::decode(state_file::decode(&bytes, &reference).unwrap()).unwrap(), in_file);
    live.producers.filed(reference.name);
    (live.clone(), StateFile::of(reference, &live.index), in_file)
}

#[test]
fn what_has_changed_since_a_state_file_stands_beside_its_name() {
    let (mut live, file, mut folded) = filed(600, 1);
    let unchanged = file.changes(&live.index, &live.producers, 300).expect("nothing has changed");
    assert!(unchanged.entries.is_empty());
    for _ in 0..3 {
        grow(&mut live, 20);
        // A checkpoint in between takes what changed since the one before, and leaves what differs from the file.
        live.producers.encode_delta(&mut Vec::new());
    }
    let changes = file.changes(&live.index, &live.producers, state_file::INLINE_BYTES_MAX).expect("little has changed");
    assert_eq!(changes.entries.len(), 60);
    let mut state = state_of(live.clone());
    state.large = LargeAt::Changed(file.reference, changes);
    let read = PartitionState::decode(&state.encode()).unwrap();
    assert_eq!(read, state);
    let LargeAt::Changed(_, changes) = read.large else { unreachable!() };
    folded.apply(&changes).unwrap();
    let encoded = |large: &Large| PartitionState::encode(&state_of(large.clone()));
    assert_eq!(encoded(&folded), encoded(&live));
    state.segment_bytes += 1;
    assert!(PartitionState::decode(&state.encode()).is_err(), "changes that do not end where the state does");
}

#[test]
fn a_state_file_that_little_is_left_of_is_not_built_upon() {
    let all = state_file::INLINE_BYTES_MAX;
    let (mut live, file, _) = filed(600, 1);
    let is_of_use = |live: &Large, max| file.changes(&live.index, &live.producers, max).is_some();
    grow(&mut live, 30);
    assert!(is_of_use(&live, all));
    assert!(!is_of_use(&live, 600), "more than may stand in the journal");

    let mut cut = live.clone();
    cut.index.cut_back(599);
    assert!(!is_of_use(&cut, all), "ends before the file does");
    let (mut other, end) = (cut.clone(), cut.index.summary().end);
    let bytes = crate::walk::tests::batch(end, 1, 90, end + 2000);
    other.index.add(&walk::header_at(&bytes).unwrap(), &bytes);
    grow(&mut other, 30);
    assert!(!is_of_use(&other, all), "went on otherwise");

    let rolled = Large { index: Index::new(630, 1), producers: live.producers.clone() };
    assert!(!is_of_use(&rolled, all), "another segment");
    let wider = Large { index: sample_index(630, 2000), producers: live.producers.clone() };
    assert!(!is_of_use(&wider, all), "entries farther apart");

    let mut elsewhere = live.clone();
    elsewhere.producers.filed(state_file::Name { end: 630, again: 0 });
    assert!(!is_of_use(&elsewhere, all), "the producers went to another file since");
    for id in 0..2_000 {
        let (header, _) = produced(live.producers.through());
        live.producers.append(&Header { producer_id: 100 + id, base_sequence: 0, ..header }, 78);
    }
    live.producers.commit(live.producers.through());
    live.producers.expire(i64::MAX, 1);
    assert!(!is_of_use(&live, 1 << 20), "more producers than are followed");
}

fn sample_index(count: i64, interval: u32) -> Index {
    let LargeAt::Here(large) = sample(count, interval).large else { unreachable!() };
    large.index
}

#[test]
fn checkpoints_folded_over_a_state_give_the_state() {
    let LargeAt::Here(mut live) = sample(5, 200).large else { unreachable!() };
    let mut folded = live.clone();
    for round in 0..50 {
        let before = (live.index.summary().base, live.index.summary().bytes);
        if round == 25 {
            live.index = Index::new(live.index.summary().end, 100);
        }
        grow(&mut live, round % 7);
        let checkpoint = Checkpoint::of(&live.index, if round >= 25 { 100 } else { 200 }, &mut live.producers, before);
        let read = Checkpoint::decode(&checkpoint.encode()).unwrap();
        assert_eq!(read, checkpoint);
        folded.apply(&read).unwrap();
        folded.producers.forget_changes();
        assert_eq!(folded, live, "round {round}");
    }
}

#[test]
fn a_checkpoint_of_an_earlier_state_is_refused() {
    let LargeAt::Here(mut live) = sample(5, 1).large else { unreachable!() };
    let late = live.clone();
    let before = (0, 0);
    let repeated = Checkpoint::of(&live.index, 1, &mut live.producers, before);
    assert!(late.clone().apply(&repeated).is_err());
}

#[test]
fn arbitrary_bytes_never_panic_and_never_take_much_memory() {
    let state = sample(40, 100);
    let LargeAt::Here(mut large) = state.large.clone() else { unreachable!() };
    let checkpoint = Checkpoint::of(&large.index, 1, &mut large.producers, (0, 0)).encode();
    let (full, mut prng) = (state.encode(), Prng::new(8));
    for _ in 0..20_000 {
        let mut bad = if prng.one_in(2) { full.clone() } else { checkpoint.clone() };
        for _ in 0..=prng.below(3) {
            let at = prng.below(bad.len() as u64) as usize;
            bad[at] = if prng.one_in(2) { 0xff } else { prng.next_u64() as u8 };
        }
        bad.truncate(prng.below(bad.len() as u64 + 1) as usize);
        let _ = PartitionState::decode(&bad);
        let _ = Large::decode(&bad);
        if let Ok(checkpoint) = Checkpoint::decode(&bad) {
            let _ = large.clone().apply(&checkpoint);
        }
    }
}
