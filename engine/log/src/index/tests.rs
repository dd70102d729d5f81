//! What the index promises: places for offsets and times, and that no changed byte goes unnoticed.

use super::*;
use crate::walk::tests::batch;
use millrace_base::batch::check_stored;
use millrace_base::crc::crc32c;
use millrace_base::prng::Prng;

const FILE: &str = "00000000000000000100.log";

/// A segment at base 100 of `count` batches of two records, timestamps wandering, and its index.
fn sample(count: usize, interval: u32) -> (Vec<u8>, Index) {
    let (mut segment, mut index, mut prng) = (Vec::new(), Index::new(100, interval), Prng::new(1));
    for n in 0..count {
        let timestamp = 1000 + n as i64 * 10 - prng.below(50) as i64;
        let bytes = batch(100 + 2 * n as i64, 2, prng.below(300) as usize, timestamp);
        index.add(&walk::header_at(&bytes).unwrap(), &bytes);
        segment.extend(bytes);
    }
    (segment, index)
}

fn rebuilt(segment: &[u8], interval: u32, piece: usize) -> Result<Index, Corrupt> {
    let mut rebuild = Rebuild::new(100, interval);
    let mut place = 0;
    for piece in segment.chunks(piece) {
        rebuild.push(place, piece, FILE)?;
        place += piece.len() as u64;
    }
    rebuild.finish(segment.len() as u64, FILE)
}

#[test]
fn a_lookup_by_offset_gives_the_greatest_entry_not_above_it() {
    let (segment, index) = sample(200, 1000);
    assert!(index.entries().len() > 10 && index.entries().len() < 100);
    for offset in 100..500 {
        let entry = index.for_offset(offset).unwrap();
        assert!(100 + i64::from(entry.relative) <= offset);
        let walked = walk::batches(&segment[entry.place as usize..]).map(Result::unwrap);
        let found = walked.map(|b| b.header).find(|header| header.last_offset() >= offset).unwrap();
        assert!(found.base_offset <= offset);
    }
    assert_eq!(Index::new(3, 10).for_offset(3), None);
}

#[test]
fn a_lookup_by_place_gives_the_greatest_entry_not_above_it() {
    let (segment, index) = sample(200, 1000);
    for place in (0..segment.len() as u64).step_by(97) {
        let entry = index.for_place(place).unwrap();
        let next = index.entries().iter().find(|next| next.place > entry.place);
        assert!(u64::from(entry.place) <= place && next.is_none_or(|next| u64::from(next.place) > place), "at {place}");
    }
    assert_eq!(Index::new(3, 10).for_place(0), None);
}

#[test]
fn a_lookup_by_time_starts_at_or_before_the_first_batch_that_is_late_enough() {
    let (segment, index) = sample(200, 1000);
    for timestamp in (900..3100).step_by(7) {
        let first = walk::batches(&segment).map(Result::unwrap).find(|b| b.header.max_timestamp >= timestamp);
        let entry = index.for_time(timestamp);
        assert_eq!(first.is_some(), entry.is_some(), "at {timestamp}");
        if let (Some(first), Some(entry)) = (first, entry) {
            assert!(entry.place as usize <= first.place);
            let between = index.entries().iter().filter(|e| e.place > entry.place && (e.place as usize) <= first.place).count();
            assert_eq!(between, 0, "no later entry would do at {timestamp}");
        }
    }
}

#[test]
fn an_index_survives_its_file_and_matches_its_segment() {
    let (segment, index) = sample(2000, 64);
    assert!(index.entries().len() > 2 * ENTRIES_PER_BLOCK);
    let file = index.encode();
    assert_eq!(file.len() % BLOCK, 0);
    assert_eq!(Index::decode(&file, 100, "i").unwrap(), index);
    assert_eq!(decode_summary(&file[..BLOCK], 100, "i").unwrap(), *index.summary());
    verify(&index, &segment, FILE).unwrap();
}

#[test]
fn a_rebuilt_index_is_the_one_that_grew() {
    let (segment, index) = sample(300, 500);
    for piece in [1, 7, 60, 61, 62, 4096, segment.len()] {
        assert_eq!(rebuilt(&segment, 500, piece).unwrap(), index);
    }
}

#[test]
fn a_reader_may_skip_the_records() {
    let (segment, index) = sample(50, 500);
    let mut rebuild = Rebuild::new(100, 500);
    while rebuild.wanted() < segment.len() as u64 {
        let at = rebuild.wanted() as usize;
        rebuild.push(at as u64, &segment[at..(at + 64).min(segment.len())], FILE).unwrap();
    }
    assert_eq!(rebuild.finish(segment.len() as u64, FILE).unwrap(), index);
}

#[test]
fn a_cut_or_foreign_segment_cannot_be_indexed() {
    let (segment, _) = sample(20, 500);
    assert!(rebuilt(&segment[..segment.len() - 1], 500, 4096).is_err());
    let gap = [&segment[..], &batch(7, 1, 1, 1)].concat();
    let error = rebuilt(&gap, 500, 4096).unwrap_err();
    assert_eq!((error.place, error.expected.as_str()), (segment.len() as u64, "base offset 140"));
    assert!(rebuilt(&[&segment[..], &[0; 100]].concat(), 500, 4096).is_err(), "zeros are no batch");
}

#[test]
fn a_flipped_bit_in_the_outer_header_is_noticed() {
    let (mut segment, index) = sample(20, 1);
    let entry = index.entries()[5];
    segment[entry.place as usize + place::EPOCH + 3] ^= 4;
    assert!(walk::header_at(&segment[entry.place as usize..]).is_ok(), "the batch CRC does not cover it");
    let error = index.check(&entry, &segment[entry.place as usize..], FILE).unwrap_err();
    assert_eq!((error.file.as_str(), error.place), (FILE, u64::from(entry.place)));
    assert!(verify(&index, &segment, FILE).is_err());
}

#[test]
fn another_batch_of_the_same_offsets_and_size_is_noticed() {
    let (mut segment, index) = sample(20, 1);
    let entry = index.entries()[5];
    let bytes = &mut segment[entry.place as usize..];
    let size = walk::header_at(bytes).unwrap().size;
    bytes[size - 1] ^= 1;
    let crc = crc32c(&bytes[place::ATTRIBUTES..size]);
    bytes[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    assert!(check_stored(bytes).is_ok(), "it is a whole batch");
    let error = index.check(&entry, bytes, FILE).unwrap_err();
    assert_eq!((error.file.as_str(), error.place), (FILE, u64::from(entry.place)));
}

#[test]
fn entries_are_bounded_however_many_batches_come() {
    let mut index = Index::new(0, 1);
    let bytes = batch(0, 1, 0, 5);
    let mut header = walk::header_at(&bytes).unwrap();
    for n in 0..ENTRIES_MAX as i64 + 10 {
        header.base_offset = n;
        index.add(&header, &bytes);
    }
    assert!(index.entries().len() <= ENTRIES_MAX / 2 + 10);
    assert!(index.entries().is_sorted_by(Entry::is_before));
    assert_eq!(index.for_offset(ENTRIES_MAX as i64).unwrap().relative as usize, ENTRIES_MAX);
}

#[test]
fn an_index_cut_back_and_added_to_again_is_the_one_of_the_shorter_segment() {
    let (segment, index) = sample(60, 700);
    for cut in 0..=60i64 {
        let end = 100 + 2 * cut;
        let bytes = walk::place_of(&segment, end).unwrap_or(0);
        let mut cut_index = index.clone();
        cut_index.cut_back(end);
        let from = cut_index.summary().bytes as usize;
        for found in walk::batches(&segment[from.min(bytes)..bytes]).map(Result::unwrap) {
            cut_index.add(&found.header, found.bytes);
        }
        assert_eq!(cut_index, rebuilt(&segment[..bytes], 700, 4096).unwrap());
    }
}

#[test]
fn every_flipped_byte_of_the_file_is_noticed() {
    let (_, index) = sample(300, 300);
    let file = index.encode();
    let mut prng = Prng::new(2);
    for _ in 0..3000 {
        let mut bad = file.clone();
        let at = prng.below(bad.len() as u64) as usize;
        bad[at] ^= 1 << prng.below(8);
        assert!(Index::decode(&bad, 100, "i").is_err(), "byte {at}");
    }
    assert!(Index::decode(&file, 101, "i").is_err(), "another segment's");
    assert!(Index::decode(&file[..file.len() - BLOCK], 100, "i").is_err());
    assert!(Index::decode(&[], 100, "i").is_err());
}

#[test]
fn sealed_nonsense_never_panics() {
    let (_, index) = sample(30, 300);
    let file = index.encode();
    let mut prng = Prng::new(9);
    for _ in 0..5000 {
        let mut bad = file.clone();
        let at = prng.below(64) as usize + if prng.one_in(2) { BLOCK } else { 0 };
        bad[at] = prng.next_u64() as u8;
        for number in 0..bad.len() / BLOCK {
            let crc = block_crc(&bad[number * BLOCK..(number + 1) * BLOCK], number, 100);
            bad[number * BLOCK + CRC_AT..(number + 1) * BLOCK].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(index) = Index::decode(&bad, 100, "i") {
            let _ = (index.for_offset(i64::MAX / 2), index.for_time(i64::MAX), index.for_offset(0));
        }
    }
}
