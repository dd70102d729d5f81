//! What a partition promises its idempotent producers, over truncations and restarts.

use super::*;
use millrace_base::prng::Prng;

/// A header as it is after offsets were assigned.
fn header(id: i64, epoch: i16, sequence: i32, base: Offset, count: i32) -> Header {
    Header {
        base_offset: base,
        size: 100,
        epoch: 1,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 5,
        max_timestamp: 5 + base,
        producer_id: id,
        producer_epoch: epoch,
        base_sequence: sequence,
        count,
    }
}

fn duplicate(base_offset: Offset, count: i64, committed: bool) -> Verdict {
    Verdict::Duplicate { base_offset, end: base_offset + count, timestamp: 5 + base_offset, committed }
}

/// Appends `batches` batches of two records at sequence `2 * n` and offset `2 * n`.
fn filled(batches: i32) -> Producers {
    let mut producers = Producers::default();
    for n in 0..batches {
        let header = header(7, 0, 2 * n, i64::from(2 * n), 2);
        assert_eq!(producers.check(&header), Verdict::Append);
        producers.append(&header, 1000 + i64::from(n));
    }
    producers
}

#[test]
fn the_last_five_batches_are_duplicates_and_an_older_one_is_out_of_order() {
    let mut producers = filled(6);
    producers.commit(12);
    assert_eq!(producers.check(&header(7, 0, 0, 0, 2)), Verdict::OutOfOrder { expected: 12 });
    for n in 1..6 {
        assert_eq!(producers.check(&header(7, 0, 2 * n, 0, 2)), duplicate(i64::from(2 * n), 2, true));
    }
    assert_eq!(producers.check(&header(7, 0, 10, 0, 3)), Verdict::OutOfOrder { expected: 12 }, "same first, other last sequence");
    assert_eq!(producers.check(&header(7, 0, 12, 0, 2)), Verdict::Append);
    assert_eq!(producers.check(&header(7, 0, 13, 0, 2)), Verdict::OutOfOrder { expected: 12 });
}

#[test]
fn a_duplicate_of_an_uncommitted_batch_says_so() {
    let mut producers = filled(3);
    producers.commit(4);
    assert_eq!(producers.check(&header(7, 0, 2, 0, 2)), duplicate(2, 2, true));
    assert_eq!(producers.check(&header(7, 0, 4, 0, 2)), duplicate(4, 2, false));
    producers.commit(6);
    assert_eq!(producers.check(&header(7, 0, 4, 0, 2)), duplicate(4, 2, true));
}

#[test]
fn sequences_wrap_after_the_largest() {
    let mut producers = Producers::default();
    let last = header(1, 0, i32::MAX - 1, 0, 2);
    assert_eq!(producers.check(&last), Verdict::Append, "an unknown producer begins anywhere");
    producers.append(&last, 1);
    assert_eq!(producers.check(&header(1, 0, 0, 2, 3)), Verdict::Append);
    producers.append(&header(1, 0, 0, 2, 3), 1);
    assert_eq!(producers.check(&header(1, 0, 3, 5, 1)), Verdict::Append);
    // A batch that itself runs over the end.
    let mut producers = Producers::default();
    producers.append(&header(1, 0, i32::MAX, 0, 3), 1);
    assert_eq!(producers.check(&header(1, 0, 2, 3, 1)), Verdict::Append);
    assert_eq!(producers.check(&header(1, 0, i32::MAX, 0, 3)), duplicate(0, 3, false));
}

#[test]
fn a_new_epoch_begins_at_zero_and_an_old_one_is_fenced() {
    let mut producers = filled(2);
    assert_eq!(producers.check(&header(7, 1, 4, 4, 1)), Verdict::OutOfOrder { expected: 0 });
    let fresh = header(7, 1, 0, 4, 1);
    assert_eq!(producers.check(&fresh), Verdict::Append);
    producers.append(&fresh, 1);
    assert_eq!(producers.check(&header(7, 0, 2, 0, 2)), Verdict::Fenced { current_epoch: 1 });
    assert_eq!(producers.check(&header(7, 1, 0, 0, 1)), duplicate(4, 1, false));
}

#[test]
fn truncation_takes_back_an_epoch_and_the_batches_that_it_pushed_out() {
    let mut producers = filled(5);
    producers.commit(10);
    let before = producers.clone();
    producers.append(&header(7, 0, 10, 10, 2), 1);
    producers.append(&header(7, 3, 0, 12, 2), 1);
    producers.append(&header(8, 0, 0, 14, 1), 1);
    assert_eq!(producers.check(&header(7, 0, 0, 0, 2)), Verdict::Fenced { current_epoch: 3 });
    producers.truncate(10);
    assert_eq!(producers, before);
    assert_eq!(producers.check(&header(7, 0, 0, 0, 2)), duplicate(0, 2, true));
}

#[test]
fn truncation_keeps_what_lies_below_it() {
    let mut producers = filled(3);
    producers.truncate(4);
    assert_eq!(producers.check(&header(7, 0, 2, 0, 2)), duplicate(2, 2, false));
    assert_eq!(producers.check(&header(7, 0, 4, 0, 2)), Verdict::Append);
}

#[test]
fn giving_up_committed_data_forgets_its_batches() {
    let mut producers = filled(3);
    producers.commit(6);
    producers.truncate(2);
    assert_eq!(producers.check(&header(7, 0, 2, 2, 2)), Verdict::Append);
    producers.truncate(0);
    assert!(producers.is_empty());
}

#[test]
fn batches_without_a_producer_leave_no_trace_but_count() {
    let mut producers = Producers::default();
    producers.append(&header(-1, -1, -1, 0, 5), 1);
    assert!(producers.is_empty());
    assert_eq!(producers.through(), 5);
}

#[test]
fn an_unused_producer_expires_and_one_with_pending_batches_does_not() {
    let mut producers = filled(2);
    producers.commit(2);
    assert_eq!(producers.expire(1_000_000, 10), 0);
    producers.commit(4);
    assert_eq!(producers.expire(1_010, 10), 0);
    assert_eq!(producers.expire(1_011, 10), 1);
    assert!(producers.is_empty());
}

#[test]
fn a_clock_set_back_delays_expiry_by_one_period_at_most() {
    let mut producers = filled(1);
    producers.commit(2);
    assert_eq!(producers.expire(10, 5), 0);
    assert_eq!(producers.expire(15, 5), 1);
    // Likewise when its batches were not committed yet as the clock was found set back.
    let mut producers = filled(1);
    assert_eq!(producers.expire(10, 5), 0);
    producers.commit(2);
    assert_eq!(producers.expire(15, 5), 1);
}

#[test]
fn the_number_of_producers_is_bounded_and_the_oldest_goes_first() {
    let mut producers = Producers::default();
    let count = PRODUCERS_MAX as i64 + 1;
    for id in 0..count {
        producers.append(&header(id, 0, 0, id, 1), 1000 + id);
    }
    producers.commit(count);
    assert!(producers.len() <= PRODUCERS_MAX);
    assert!(producers.committed().all(|(id, _)| id > 0));
    assert_eq!(producers.committed().last().unwrap().0, count - 1);
}

fn round_trip(producers: &Producers) -> Producers {
    let mut bytes = Vec::new();
    producers.encode(&mut bytes);
    let mut reader = Reader::new(&bytes);
    let back = Producers::decode(&mut reader).unwrap();
    reader.end("all is read").unwrap();
    back
}

#[test]
fn all_five_batches_and_the_uncommitted_rest_survive_encoding() {
    let mut producers = filled(9);
    producers.commit(12);
    producers.forget_changes();
    assert_eq!(round_trip(&producers), producers);
}

#[test]
fn deltas_on_a_full_state_give_the_state() {
    let mut prng = Prng::new(11);
    let mut live = Producers::default();
    let mut copy = round_trip(&live);
    let (mut end, mut commit) = (0, 0);
    for round in 0..400 {
        for _ in 0..prng.below(6) {
            let (id, epoch) = (prng.below(5) as i64, (round / 100) as i16);
            live.append(&header(id, epoch, prng.below(100) as i32, end, 2), round);
            end += 2;
        }
        commit += 2 * prng.below((end - commit) as u64 / 2 + 1) as i64;
        live.commit(commit);
        if prng.one_in(4) {
            end = commit + 2 * prng.below((end - commit) as u64 / 2 + 1) as i64;
            live.truncate(end);
        }
        if prng.one_in(10) {
            live.expire(round, 30);
        }
        let mut delta = Vec::new();
        live.encode_delta(&mut delta);
        copy.apply_delta(&mut Reader::new(&delta)).unwrap();
        copy.forget_changes();
        assert_eq!(copy, live, "round {round}");
    }
}

#[test]
fn batches_replayed_after_a_state_that_holds_them_change_nothing() {
    let mut producers = filled(6);
    producers.commit(4);
    let before = producers.clone();
    for n in 2..6 {
        producers.append(&header(7, 0, 2 * n, i64::from(2 * n), 2), 99);
    }
    assert_eq!(producers, before);
}

#[test]
fn arbitrary_bytes_never_panic_and_never_take_much_memory() {
    let mut producers = filled(9);
    producers.commit(12);
    let (mut full, mut delta) = (Vec::new(), Vec::new());
    producers.encode(&mut full);
    producers.encode_delta(&mut delta);
    let mut prng = Prng::new(5);
    for _ in 0..20_000 {
        let mut bad = if prng.one_in(2) { full.clone() } else { delta.clone() };
        for _ in 0..=prng.below(3) {
            let at = prng.below(bad.len() as u64) as usize;
            bad[at] = if prng.one_in(2) { 0xff } else { prng.next_u64() as u8 };
        }
        bad.truncate(prng.below(bad.len() as u64 + 1) as usize);
        let _ = Producers::decode(&mut Reader::new(&bad));
        let _ = Producers::default().apply_delta(&mut Reader::new(&bad));
    }
}

#[test]
fn a_delta_is_no_longer_than_the_producers_before_and_after_however_many_came_and_went() {
    let (mut live, mut copy) = (Producers::default(), Producers::default());
    let mut id = 0;
    for round in 0..3 {
        for _ in 0..5 * PRODUCERS_MAX as i64 {
            live.append(&header(id, 0, 0, id, 1), id);
            id += 1;
            live.commit(id);
        }
        assert!(live.changed.len() <= 2 * PRODUCERS_MAX, "round {round}: {}", live.changed.len());
        let mut delta = Vec::new();
        live.encode_delta(&mut delta);
        copy.apply_delta(&mut Reader::new(&delta)).unwrap();
        assert_eq!(copy, live, "round {round}");
    }
}
