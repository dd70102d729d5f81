//! What the fold of a partition's records promises, and what it refuses.

use super::*;
use crate::index::Index;
use crate::producers::Producers;
use crate::walk::tests::batch;
use millrace_base::ids::META_PARTITION as P;
use millrace_base::offset::Position;
use millrace_io::memory::Pool;

fn slice(bytes: &[u8]) -> Slice {
    Pool::new(0).take(bytes.len().max(1)).push(bytes)
}

fn whole(bytes: &[u8]) -> PayloadRange {
    PayloadRange { start: 0, len: bytes.len() as u32 }
}

/// A journal in small: every record in an entry of its own.
struct Journal {
    entries: Vec<(Record, Slice, Sequence)>,
}

impl Journal {
    fn new() -> Journal {
        Journal { entries: Vec::new() }
    }

    fn put(&mut self, payload: &[u8], record: impl FnOnce(PayloadRange) -> Record) -> &mut Journal {
        let sequence = self.entries.len() as u64 + 1;
        self.entries.push((record(whole(payload)), slice(payload), sequence));
        self
    }

    /// Batches of two records each over `base..end`.
    fn batches(&mut self, base: Offset, end: Offset) -> &mut Journal {
        let bytes: Vec<u8> = (base..end).step_by(2).flat_map(|base| batch(base, 2, 9, base)).collect();
        self.put(&bytes, |payload| Record::Batches { partition: P, base, end, payload })
    }

    fn truncate(&mut self, to: Offset) -> &mut Journal {
        self.put(b"step", |step| Record::Raft { partition: P, truncate: Some(Position::new(1, to)), log_start: None, step })
    }

    fn state(&mut self, state: &PartitionState) -> &mut Journal {
        self.put(&state.encode(), |state| Record::State { partition: P, state })
    }

    /// Checkpoints an index of the same batches.
    fn checkpoint(&mut self, index: &mut Index, end: Offset) -> &mut Journal {
        let before = (index.summary().base, index.summary().bytes);
        grow(index, end);
        let delta = Checkpoint::of(index, 1, &mut Producers::default(), before).encode();
        let (segment, segment_bytes) = (index.summary().base, index.summary().bytes);
        self.put(&delta, |delta| Record::Checkpoint { partition: P, end, segment, segment_bytes, delta })
    }

    fn image_from(&self, sequence: Sequence) -> PartitionImage {
        let mut image = PartitionImage::new();
        for (record, payload, sequence) in self.entries.iter().filter(|entry| entry.2 >= sequence) {
            let _ = image.apply(record, payload, *sequence);
        }
        image
    }

    fn image(&self) -> PartitionImage {
        self.image_from(0)
    }
}

fn grow(index: &mut Index, end: Offset) {
    while index.summary().end < end {
        let bytes = batch(index.summary().end, 2, 9, index.summary().end);
        index.add(&walk::header_at(&bytes).unwrap(), &bytes);
    }
}

fn birth() -> PartitionState {
    PartitionState::birth(0, 1, b"consensus".to_vec())
}

fn ranges(image: &PartitionImage) -> Vec<(Offset, Offset, Sequence)> {
    image.pending().iter().map(|pending| (pending.base, pending.end, pending.sequence)).collect()
}

#[test]
fn batches_wait_above_the_durable_end_and_a_checkpoint_releases_them() {
    let (mut journal, mut index) = (Journal::new(), Index::new(0, 1));
    journal.state(&birth()).batches(0, 4).batches(4, 10).checkpoint(&mut index, 6);
    let image = journal.image();
    assert_eq!(ranges(&image), [(6, 10, 3)], "a checkpoint may end inside a record");
    let recovered = image.finish(None).unwrap();
    assert_eq!((recovered.durable_end, recovered.log_end, recovered.segment_bytes), (6, 10, index.summary().bytes));
    assert_eq!(recovered.large.index, index);
    let PendingBytes::Journal(bytes) = &recovered.pending[0].bytes else { panic!("in the journal") };
    assert_eq!(walk::header_at(bytes).unwrap().base_offset, 6);
}

#[test]
fn a_truncation_drops_pending_batches_and_says_what_segments_must_lose() {
    let (mut journal, mut index) = (Journal::new(), Index::new(0, 1));
    journal.state(&birth()).batches(0, 10).checkpoint(&mut index, 6).truncate(8).batches(8, 12);
    let recovered = journal.image().finish(None).unwrap();
    assert_eq!((recovered.durable_end, recovered.log_end, recovered.cut), (6, 12, None));
    journal.truncate(4).batches(4, 6);
    let recovered = journal.image().finish(None).unwrap();
    assert_eq!((recovered.durable_end, recovered.log_end, recovered.cut), (4, 6, Some(4)));
    assert_eq!(recovered.large.index.summary().end, 2, "stands before the cut, to be added to from the segment");
    // The deed is done and a checkpoint says so.
    let mut cut = index.clone();
    cut.cut_back(4);
    grow(&mut cut, 4);
    journal.checkpoint(&mut cut, 6);
    let recovered = journal.image().finish(None).unwrap();
    assert_eq!((recovered.durable_end, recovered.cut), (6, None));
    assert_eq!(recovered.large.index, cut);
}

#[test]
fn a_truncation_inside_a_batch_or_behind_the_end_is_corrupt() {
    for to in [3, 11] {
        let mut journal = Journal::new();
        journal.state(&birth()).batches(0, 10).truncate(to);
        assert!(journal.image().finish(None).is_err(), "to {to}");
    }
}

#[test]
fn a_gap_between_batches_is_corrupt() {
    let mut journal = Journal::new();
    journal.state(&birth()).batches(0, 4).batches(6, 8);
    assert_eq!(journal.image().finish(None).unwrap_err(), ImageError::Gap { expected: 4, found: 6 });
}

#[test]
fn carried_batches_take_the_place_of_the_first_copy() {
    let mut journal = Journal::new();
    journal.state(&birth()).batches(0, 4).batches(4, 6).batches(6, 8).batches(0, 6);
    let image = journal.image();
    assert_eq!(ranges(&image), [(0, 6, 5), (6, 8, 4)]);
    assert_eq!(image.oldest_needed(), Some(1));
    assert_eq!(image.needed(), BTreeSet::from([1, 4, 5]));
    let mut wrong = Journal::new();
    wrong.state(&birth()).batches(0, 4).batches(4, 8).batches(2, 6);
    assert_eq!(wrong.image().finish(None).unwrap_err(), ImageError::Overlap { base: 2, end: 6 });
}

#[test]
fn a_carried_state_lets_older_entries_go() {
    let (mut journal, mut index) = (Journal::new(), Index::new(0, 1));
    journal.state(&birth()).batches(0, 4).checkpoint(&mut index, 4).batches(4, 8);
    let large = Large { index: index.clone(), producers: Producers::default() };
    let state = PartitionState { durable_end: 4, log_end: 8, segment_bytes: index.summary().bytes, large: LargeAt::Here(large), ..birth() };
    journal.state(&state).batches(8, 10);
    let image = journal.image();
    assert_eq!(image.oldest_needed(), Some(4));
    for from in 0..=4 {
        let recovered = journal.image_from(from).finish(None).unwrap();
        assert_eq!((recovered.durable_end, recovered.log_end, recovered.large.index.clone()), (4, 10, index.clone()), "from {from}");
    }
    assert_eq!(journal.image_from(5).finish(None).unwrap_err(), ImageError::Missing { from: 4, to: 8 });
    journal.batches(4, 8);
    assert_eq!(journal.image_from(5).oldest_needed(), Some(5));
    assert!(journal.image_from(5).finish(None).is_ok(), "the copy behind the state will do");
    assert_eq!(journal.image_from(6).finish(None).unwrap_err(), ImageError::NoState);
}

#[test]
fn rolled_segments_become_active_when_checkpoints_reach_them() {
    let (mut journal, mut index) = (Journal::new(), Index::new(0, 1));
    journal.state(&birth()).batches(0, 10).put(&[], |_| Record::Roll { partition: P, base: 6 }).checkpoint(&mut index, 4);
    let recovered = journal.image().finish(None).unwrap();
    assert_eq!((recovered.segment, recovered.rolls), (0, vec![6]));
    journal.checkpoint(&mut index, 6);
    let recovered = journal.image().finish(None).unwrap();
    assert_eq!((recovered.segment, recovered.segment_bytes, recovered.rolls), (6, 0, vec![]));
    assert_eq!(recovered.large.index.summary().base, 6);
    let mut next = Index::new(6, 1);
    journal.checkpoint(&mut next, 10);
    let recovered = journal.image().finish(None).unwrap();
    assert_eq!((recovered.segment, recovered.durable_end), (6, 10));
    assert_eq!(recovered.large.index, next);
}

#[test]
fn log_start_only_grows() {
    let mut journal = Journal::new();
    journal.state(&birth()).batches(0, 10);
    for log_start in [Some(4), Some(2), None] {
        journal.put(b"step", |step| Record::Raft { partition: P, truncate: None, log_start, step });
    }
    let recovered = journal.image().finish(None).unwrap();
    assert_eq!(recovered.log_start, 4);
    let told: Vec<_> = recovered.steps.iter().map(|step| matches!(step, Step::End(10))).collect();
    assert_eq!(told, [true, false, false, false]);
}

#[test]
fn damage_ends_the_fold_until_a_state_that_misses_nothing() {
    let mut journal = Journal::new();
    journal.state(&birth()).batches(0, 4);
    let mut image = journal.image();
    image.damaged_at(&damage(3), P);
    let late = batch(6, 2, 9, 0);
    image.apply(&Record::Batches { partition: P, base: 6, end: 8, payload: whole(&late) }, &slice(&late), 4).unwrap();
    assert_eq!(image.damage(), Some(&ImageError::Damaged { sequence: 3 }));
    let state = PartitionState { log_end: 6, ..birth() };
    let bytes = state.encode();
    image.apply(&Record::State { partition: P, state: whole(&bytes) }, &slice(&bytes), 5).unwrap();
    assert_eq!(image.finish(None).unwrap_err(), ImageError::Missing { from: 4, to: 6 });
}

#[test]
fn a_deleted_partition_needs_only_the_statement() {
    let mut journal = Journal::new();
    journal.state(&birth()).batches(0, 4).put(&[], |_| Record::Deleted { partition: P });
    let image = journal.image();
    assert!(image.is_deleted());
    assert_eq!(image.needed(), BTreeSet::from([3]));
    journal.state(&birth()).batches(0, 2);
    assert!(!journal.image().is_deleted());
    assert_eq!(journal.image().finish(None).unwrap().log_end, 2);
}

#[test]
fn a_state_in_a_file_is_asked_for_and_folded_upon() {
    let (mut journal, mut index) = (Journal::new(), Index::new(0, 1));
    grow(&mut index, 2000);
    let large = Large { index: index.clone(), producers: Producers::default() };
    let state =
        PartitionState { durable_end: 2000, log_end: 2000, segment_bytes: index.summary().bytes, large: LargeAt::Here(large), ..birth() };
    let (bytes, file) = state.split(None, crate::state_file::INLINE_BYTES_MAX);
    let (reference, file) = file.unwrap();
    journal.put(&bytes, |state| Record::State { partition: P, state }).batches(2000, 2010).checkpoint(&mut index, 2010);
    assert_eq!(journal.image().state_file().unwrap(), &reference);
    let recovered = journal.image().finish(Some(&file)).unwrap();
    assert_eq!((recovered.large.index, recovered.state_file.unwrap().reference), (index, reference));
    assert!(matches!(journal.image().finish(None).unwrap_err(), ImageError::StateFile(_)));
    assert!(matches!(journal.image().finish(Some(&file[1..])).unwrap_err(), ImageError::StateFile(_)));
}

#[test]
fn a_state_beside_its_file_is_folded_upon() {
    let (mut journal, mut index) = (Journal::new(), Index::new(0, 1));
    grow(&mut index, 2000);
    let state = |index: &Index, large| PartitionState {
        durable_end: index.summary().end,
        log_end: index.summary().end,
        segment_bytes: index.summary().bytes,
        large,
        ..birth()
    };
    let here = LargeAt::Here(Large { index: index.clone(), producers: Producers::default() });
    let (_, file) = state(&index, here).split(None, crate::state_file::INLINE_BYTES_MAX);
    let (reference, bytes) = file.unwrap();
    let (file, mut producers) = (StateFile::of(reference, &index), Producers::default());
    producers.filed(reference.name);
    grow(&mut index, 2100);
    let changes = file.changes(&index, &producers, crate::state_file::INLINE_BYTES_MAX).unwrap();
    journal.state(&state(&index, LargeAt::Changed(reference, changes))).batches(2100, 2110).checkpoint(&mut index, 2110);
    let image = journal.image();
    assert_eq!(image.state_file(), Some(&reference));
    let recovered = image.finish(Some(&bytes)).unwrap();
    assert_eq!((recovered.large.index, recovered.durable_end), (index.clone(), 2110));
    // It goes on with the file as before.
    assert_eq!(recovered.state_file, Some(file));
    let again = file.changes(&index, &recovered.large.producers, crate::state_file::INLINE_BYTES_MAX).unwrap();
    assert_eq!(again.entries.len(), 55);
    assert!(matches!(journal.image().finish(Some(&bytes[1..])).unwrap_err(), ImageError::StateFile(_)));
}

#[test]
fn an_extent_stands_among_the_pending_batches() {
    let mut journal = Journal::new();
    journal.state(&birth()).batches(0, 4);
    journal.put(b"tail", |tail| Record::Extent { partition: P, base: 4, end: 8, segment: 0, place: 4096, bytes: 8192, crc: 1, tail });
    journal.batches(8, 10);
    let recovered = journal.truncate(6).image().finish(None).unwrap();
    let last = recovered.pending.last().unwrap();
    assert_eq!((last.base, last.end), (4, 6));
    let PendingBytes::Direct(direct) = &last.bytes else { panic!("direct") };
    assert_eq!((direct.written_end, &*direct.tail), (8, &b"tail"[..]));
}

#[test]
fn a_payload_range_outside_of_the_payload_is_corrupt() {
    let mut image = PartitionImage::new();
    let record = Record::State { partition: P, state: PayloadRange { start: u32::MAX, len: 9 } };
    assert!(matches!(image.apply(&record, &slice(b"x"), 1), Err(ImageError::Payload { .. })));
}

/// An entry of which nothing is known.
fn damage(sequence: Sequence) -> Damage {
    let corrupt = Corrupt { file: "0.journal".to_owned(), place: 0, expected: "a CRC".to_owned(), found: "another".to_owned() };
    Damage { first: sequence, last: sequence, touched: crate::journal::Touched::All, records: Vec::new(), corrupt }
}

/// The intact part and the damage of a journal in which one entry is damaged.
fn intact(journal: &Journal, damaged: Sequence) -> (Recovered, Option<ImageError>) {
    let mut image = PartitionImage::new();
    for (record, payload, sequence) in &journal.entries {
        match *sequence == damaged {
            true => image.damaged_at(&damage(damaged), P),
            false => drop(image.apply(record, payload, *sequence)),
        }
    }
    image.finish_intact(None).unwrap()
}

#[test]
fn what_was_stated_before_a_damage_is_intact_and_nothing_behind_it() {
    let (mut journal, mut index) = (Journal::new(), Index::new(0, 1));
    journal.state(&birth()).batches(0, 4).checkpoint(&mut index, 2).batches(4, 8).batches(8, 12).batches(12, 14);
    journal.checkpoint(&mut index, 14);
    journal.put(b"step", |step| Record::Raft { partition: P, truncate: None, log_start: Some(2), step });
    let expected = Some(ImageError::Damaged { sequence: 5 });
    let (recovered, damage) = intact(&journal, 5);
    assert_eq!((recovered.durable_end, recovered.log_end, damage), (2, 8, expected));
    assert_eq!(recovered.pending.iter().map(|pending| (pending.base, pending.end)).collect::<Vec<_>>(), [(2, 4), (4, 8)]);
    assert_eq!(recovered.log_start, 2, "what is gone rightly is not missed");
    let (recovered, damage) = intact(&journal, 99);
    assert_eq!((recovered.durable_end, recovered.log_end, damage), (14, 14, None));
}

#[test]
fn a_state_behind_a_damage_stands_for_all_but_batches_that_no_segment_has() {
    let mut journal = Journal::new();
    journal.state(&birth()).batches(0, 4).batches(4, 8).batches(8, 10);
    let mut index = Index::new(0, 1);
    grow(&mut index, 4);
    let large = LargeAt::Here(Large { index: index.clone(), producers: Producers::default() });
    let state = PartitionState { durable_end: 4, log_end: 10, segment_bytes: index.summary().bytes, large, ..birth() };
    journal.state(&state);
    let (recovered, damage) = intact(&journal, 2);
    assert_eq!((recovered.log_end, damage), (10, None), "the damaged entry held what a segment has");
    let (recovered, damage) = intact(&journal, 3);
    assert_eq!((recovered.log_end, damage), (4, Some(ImageError::Missing { from: 4, to: 8 })));
}

#[test]
fn batches_behind_a_damage_do_not_count_with_a_state_that_does_not_fit_them() {
    let (mut journal, mut index) = (Journal::new(), Index::new(0, 1));
    grow(&mut index, 4);
    let large = LargeAt::Here(Large { index: index.clone(), producers: Producers::default() });
    let state = PartitionState { durable_end: 4, log_end: 4, segment_bytes: index.summary().bytes, large, ..birth() };
    journal.state(&birth()).batches(0, 2).batches(1, 7).state(&state);
    let (recovered, damage) = intact(&journal, 2);
    assert_eq!((recovered.durable_end, recovered.log_end, recovered.pending.len()), (0, 0, 0));
    assert_eq!(damage, Some(ImageError::Inside { offset: 4 }));
}

#[test]
fn a_note_stays_with_its_state_and_goes_with_the_next() {
    let mut journal = Journal::new();
    let note = Note { end: 9, reason: "a bit was flipped".to_owned() };
    let state = PartitionState { log_end: 4, ..birth() };
    journal.state(&birth()).batches(0, 4).batches(4, 8).state(&state);
    journal.put(&note.encode(), |reason| Record::Damaged { partition: P, reason });
    let noted = ImageError::Noted { reason: "a bit was flipped".to_owned() };
    assert_eq!(journal.image().damage(), Some(&noted));
    assert_eq!(journal.image().finish(None).unwrap_err(), noted);
    let (recovered, damage) = journal.image().finish_intact(None).unwrap();
    assert_eq!((recovered.log_end, recovered.lost.end, damage), (4, 9, Some(noted)), "what lies behind the noted end does not come back");
    journal.state(&birth());
    assert!(journal.image().damage().is_none());
    let mut lost = Journal::new();
    lost.put(&note.encode(), |reason| Record::Damaged { partition: P, reason });
    assert!(matches!(lost.image().finish_intact(None), Err(ImageError::Noted { .. })));
}

#[test]
fn bytes_that_are_not_the_batches_of_their_range_are_damage() {
    let cut = &batch(2, 2, 9, 0)[..20];
    for bytes in [batch(2, 1, 9, 0), batch(3, 2, 9, 0), [batch(2, 2, 9, 0), batch(5, 1, 9, 0)].concat(), cut.to_vec(), Vec::new()] {
        let mut journal = Journal::new();
        journal.state(&birth()).batches(0, 2);
        journal.put(&bytes, |payload| Record::Batches { partition: P, base: 2, end: 4, payload }).batches(4, 6);
        let (recovered, damage) = journal.image().finish_intact(None).unwrap();
        assert_eq!((recovered.log_end, damage), (2, Some(ImageError::Batches { base: 2, end: 4 })));
    }
}

#[test]
fn an_extent_of_other_batches_is_torn_or_damage_as_if_it_were_not_there() {
    let mut journal = Journal::new();
    journal.state(&birth()).batches(0, 4);
    journal.put(b"", |tail| Record::Extent { partition: P, base: 4, end: 8, segment: 0, place: 4096, bytes: u64::MAX, crc: 1, tail });
    for is_stated in [false, true] {
        let mut image = journal.image();
        if is_stated {
            image.extent_is_stated();
        }
        let mut recovered = image.finish(None).unwrap();
        let found = recovered.take_extents(|_, _| ExtentFound::Whole(slice(&batch(4, 2, 9, 0))));
        assert_eq!((found.is_err(), recovered.log_end), (is_stated, 4));
    }
}
