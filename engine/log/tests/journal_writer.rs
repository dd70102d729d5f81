//! What the writing side promises the shard: order, room, reserves, growth, and memory that batches can be served from.

#![allow(clippy::unwrap_used, reason = "a test")]

use millrace_base::clock::Nanos;
use millrace_base::limits::BLOCK;
use millrace_io::{Pool, Slice};
use millrace_log::journal::record::{PayloadRange, Record};
use millrace_log::journal::{Journal, NoRoom, Options, Sealed, Urgency, prepare, recover};

mod journal_support;
use journal_support::disk::SimDisk;
use journal_support::world::{folder, partition, small};

fn fresh(options: Options) -> Journal {
    let (mut disk, pool) = (SimDisk::default(), Pool::new(1 << 30));
    let recovered = recover(&mut disk, folder(), &pool, 0).unwrap();
    prepare(&mut disk, folder(), &recovered, 9, options, &pool).unwrap()
}

fn entry(journal: &mut Journal, bytes: usize) -> Sealed {
    journal.append_batches(Urgency::Data, partition(0), 0, 1, &[&vec![1; bytes]]).unwrap();
    journal.seal(Nanos(0)).unwrap()
}

#[test]
fn durable_is_the_prefix_of_what_completed() {
    let mut journal = fresh(small());
    let sequences: Vec<u64> = (0..4).map(|_| entry(&mut journal, 10).sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    assert_eq!((journal.completed(2, Nanos(0)), journal.completed(4, Nanos(0))), (0, 0));
    assert_eq!((journal.completed(1, Nanos(0)), journal.in_flight()), (2, 2));
    assert_eq!((journal.completed(3, Nanos(0)), journal.in_flight()), (4, 0));
}

#[test]
fn batches_are_copied_once_patched_in_place_and_lent() {
    let mut journal = fresh(Options::new(8));
    let first = journal.append_batches(Urgency::Data, partition(1), 5, 9, &[b"ab", b"cd"]).unwrap();
    journal.payload_mut(first)[0] = b'X';
    // The entry outgrows its first chunk and keeps what is in it.
    let large = vec![7; 3 << 20];
    let second = journal.append_batches(Urgency::Data, partition(2), 0, 4, &[&large]).unwrap();
    journal.payload_mut(second)[1] = 8;
    let sealed = journal.seal(Nanos(0)).unwrap();
    assert!(journal.seal(Nanos(0)).is_none());
    let [one, two] = &sealed.batches[..] else { panic!("two appends") };
    assert_eq!((one.partition, one.base, one.end, &one.bytes[..]), (partition(1), 5, 9, &b"Xbcd"[..]));
    assert_eq!((two.bytes.len(), &two.bytes[..3]), (3 << 20, &[7, 8, 7][..]));
    assert!(sealed.slice.len().is_multiple_of(BLOCK) && (sealed.slice.as_ptr() as usize).is_multiple_of(BLOCK));
}

#[test]
fn a_chunk_holds_many_small_entries() {
    let mut journal = fresh(Options::new(8));
    let slices: Vec<Slice> = (0..100).map(|_| entry(&mut journal, 500).slice).collect();
    assert!(slices.windows(2).all(|pair| pair[0].is_followed_by(&pair[1])));
}

#[test]
fn an_append_says_which_room_is_missing_and_changes_nothing() {
    let mut journal = fresh(small());
    let max = small().entry_bytes_max;
    let append = |journal: &mut Journal, bytes: usize| journal.append_batches(Urgency::Data, partition(0), 0, 1, &[&vec![0; bytes]]);
    assert_eq!(append(&mut journal, max), Err(NoRoom::TooLarge));
    assert!(!journal.is_building());
    append(&mut journal, max / 2).unwrap();
    let bytes = journal.building_bytes();
    assert_eq!(append(&mut journal, max / 2), Err(NoRoom::Entry));
    assert_eq!(journal.building_bytes(), bytes);
    let room = journal.room();
    append(&mut journal, room).unwrap();
    assert!(journal.seal(Nanos(0)).unwrap().slice.len() <= max);
}

/// Appends one-block entries until refused; gives how many were taken.
fn fill(journal: &mut Journal, urgency: Urgency) -> u32 {
    for taken in 0.. {
        let record = Record::State { partition: partition(0), state: PayloadRange { start: 0, len: 0 } };
        match journal.append(urgency, record, &[0; 3_000]) {
            Ok(_) => {
                let sealed = journal.seal(Nanos(0)).unwrap();
                journal.completed(sealed.sequence, Nanos(0));
            }
            Err(refused) => {
                assert_eq!(refused, NoRoom::Journal);
                return taken;
            }
        }
    }
    unreachable!("a journal is bounded")
}

#[test]
fn relief_gathers_once_only_the_reserve_is_left() {
    let state = Record::State { partition: partition(0), state: PayloadRange { start: 0, len: 0 } };
    let mut journal = fresh(Options { files_max: 2, reserve_bytes: 8 * BLOCK as u64, ..small() });
    journal.append(Urgency::Relief, state.clone(), b"state").unwrap();
    assert!(!journal.should_gather(), "there is room for data");
    journal.seal(Nanos(0)).unwrap();
    fill(&mut journal, Urgency::Data);
    assert!(!journal.should_gather(), "nothing is being built");
    journal.append(Urgency::Relief, state.clone(), b"state").unwrap();
    assert!(journal.should_gather());
    journal.append(Urgency::Reserved, state, b"state").unwrap();
    assert!(!journal.should_gather(), "somebody waits for it");
}

#[test]
fn a_full_journal_keeps_room_for_the_more_urgent_and_for_its_own_relief() {
    let mut journal = fresh(Options { files_max: 2, ..small() });
    assert_eq!(journal.wants_file(), None, "the limit of files is reached");
    assert_eq!(fill(&mut journal, Urgency::Data), 12, "sixteen blocks less the reserve of four");
    assert_eq!(fill(&mut journal, Urgency::Reserved), 2);
    assert_eq!(fill(&mut journal, Urgency::Relief), 0, "the last two are for statements");
    assert_eq!(journal.files_free(), 0);
    // What is synced is stated; then one block is left, and that one states the release.
    let sealed = journal.seal_statement(Nanos(0)).unwrap();
    journal.completed(sealed.sequence, Nanos(0));
    assert_eq!(journal.seal_statement(Nanos(0)).unwrap_err(), NoRoom::Journal);
    journal.release(journal.durable() + 1);
    assert_eq!(journal.files_free(), 0, "not before a durable entry states it");
    assert!(journal.statement_due(Nanos(0).plus_ms(1)));
    let sealed = journal.seal_statement(Nanos(0)).unwrap();
    assert_eq!(journal.files_free(), 0);
    journal.completed(sealed.sequence, Nanos(0));
    assert_eq!(journal.files_free(), 1);
    assert!(journal.room() > 0);
}

#[test]
fn a_statement_is_due_after_a_quiet_millisecond_and_once() {
    let mut journal = fresh(small());
    let quiet = |ms: u64| Nanos(0).plus_ms(ms);
    assert!(!journal.statement_due(quiet(100)), "nothing was written");
    let sealed = entry(&mut journal, 10);
    assert!(!journal.statement_due(quiet(100)), "it is in flight");
    journal.completed(sealed.sequence, quiet(5));
    assert_eq!((journal.statement_due(quiet(5)), journal.statement_at()), (false, Some(quiet(6))));
    let statement = journal.seal_statement(quiet(6)).unwrap();
    assert_eq!(statement.slice.len(), BLOCK);
    journal.completed(statement.sequence, quiet(6));
    assert_eq!(journal.statement_at(), None);
}

#[test]
fn an_extent_that_is_durable_after_its_entry_is_stated_after_a_quiet_millisecond_too() {
    let mut journal = fresh(small());
    let quiet = |ms: u64| Nanos(0).plus_ms(ms);
    let tail = PayloadRange { start: 0, len: 0 };
    let extent = Record::Extent { partition: partition(0), base: 0, end: 1, segment: 0, place: 0, bytes: 4_096, crc: 7, tail };
    journal.append(Urgency::Data, extent, &[]).unwrap();
    let sealed = journal.seal(Nanos(0)).unwrap();
    journal.completed(sealed.sequence, quiet(1));
    let statement = journal.seal_statement(quiet(2)).unwrap();
    journal.completed(statement.sequence, quiet(2));
    assert_eq!(journal.statement_at(), None, "the extent is on its way");
    journal.extents_durable(1, quiet(9));
    assert_eq!((journal.statement_due(quiet(9)), journal.statement_at()), (false, Some(quiet(10))));
    let statement = journal.seal_statement(quiet(10)).unwrap();
    journal.completed(statement.sequence, quiet(10));
    assert_eq!(journal.statement_at(), None);
}

#[test]
fn a_file_is_wanted_once_when_none_is_free_and_used_when_added() {
    let mut journal = fresh(Options { files_max: 3, ..small() });
    assert_eq!(journal.wants_file(), None);
    while journal.files_free() > 0 {
        entry(&mut journal, 3_000);
    }
    assert_eq!((journal.wants_file(), journal.wants_file()), (Some(2), None));
    journal.file_failed(2);
    assert_eq!(journal.wants_file(), Some(2));
    journal.file_added(2);
    assert_eq!((journal.files_free(), journal.wants_file()), (1, None));
    let pressure = journal.pressure();
    assert_eq!((pressure.files, pressure.bytes), ((2, 1), 3 * small().file_bytes));
    assert!(pressure.oldest_file.is_some_and(|(first, last)| first == 1 && last > 1));
}

#[test]
#[should_panic(expected = "an entry that is not durable cannot be done with")]
fn what_is_not_durable_cannot_be_released() {
    let mut journal = fresh(small());
    entry(&mut journal, 10);
    journal.release(2);
}
