//! Plans and trims against an oracle that walks the whole log.

use super::*;
use crate::walk::tests::batch;
use millrace_base::prng::Prng;
use millrace_io::memory::Pool;
use std::collections::BTreeMap;

/// Offsets 0..200 in batches of two records of wandering size: 0..160 in four segments, 120..200 in memory in pieces.
struct Log {
    segments: Segments,
    indexes: BTreeMap<Offset, Index>,
    files: BTreeMap<Offset, Vec<u8>>,
    cached: Vec<Cached>,
    all: Vec<u8>,
}

fn sample(largest: u64) -> Log {
    let (mut prng, pool) = (Prng::new(3), Pool::new(0));
    let mut log = Log {
        segments: Segments::new(Index::new(0, 700)),
        indexes: BTreeMap::new(),
        files: BTreeMap::new(),
        cached: Vec::new(),
        all: Vec::new(),
    };
    for base in (0..200).step_by(2) {
        let one = batch(base, 2, prng.below(largest) as usize, base);
        if base < 160 {
            if base > 0 && base % 40 == 0 {
                let closed = log.segments.roll(700);
                log.indexes.insert(closed.summary().base, closed);
            }
            log.segments.active_mut().add(&walk::header_at(&one).unwrap(), &one);
            log.files.entry(log.segments.active().summary().base).or_default().extend(&one);
        }
        if base >= 120 {
            log.cached.push(Cached { base, end: base + 2, bytes: pool.take(one.len()).push(&one) });
        }
        log.all.extend(one);
    }
    // Pieces of several batches, as journal entries are.
    let merged = log.cached.chunks(3).map(|three| {
        let bytes: Vec<u8> = three.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
        Cached { base: three[0].base, end: three[three.len() - 1].end, bytes: pool.take(bytes.len()).push(&bytes) }
    });
    log.cached = merged.collect();
    log
}

impl Log {
    /// One step of a fetch, as a shard does it.
    fn step(&self, ask: &Ask) -> Option<(Vec<u8>, Offset)> {
        match plan(&self.segments, &self.cached, ask, |base| self.indexes.get(&base)) {
            Plan::Memory { pieces, bytes, next } => {
                let sent: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
                assert_eq!(sent.len(), bytes);
                Some((sent, next))
            }
            Plan::File(read) => self.read(read, ask),
            Plan::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    fn read(&self, mut read: FileRead, ask: &Ask) -> Option<(Vec<u8>, Offset)> {
        let file = &self.files[&read.segment];
        for _ in 0..100 {
            let bytes = &file[read.place as usize..(read.place + read.len) as usize];
            match trim(bytes, &read, file.len() as u64, ask).unwrap() {
                Trimmed::Send { range, next } => return Some((bytes[range].to_vec(), next)),
                Trimmed::Again(again) => read = again,
                Trimmed::Nothing => return None,
            }
        }
        panic!("does not end");
    }

    /// The whole batches of `from..bound`, by the simplest means.
    fn oracle(&self, from: Offset, bound: Offset) -> Vec<u8> {
        let found = walk::batches(&self.all).map(Result::unwrap);
        let wanted = found.filter(|b| b.header.next_offset() > from && b.header.next_offset() <= bound);
        wanted.flat_map(|b| b.bytes.to_vec()).collect()
    }

    fn fetch_all(&self, mut ask: Ask) -> Vec<u8> {
        let mut sent = Vec::new();
        while let Some((bytes, next)) = self.step(&ask) {
            assert!(next > ask.from && !bytes.is_empty());
            sent.extend(bytes);
            ask.from = next;
        }
        sent
    }
}

#[test]
fn repeated_fetches_give_every_batch_below_the_bound_once() {
    for largest in [40, 3000, 200_000] {
        let log = sample(largest);
        for (from, bound) in [(0, 200), (1, 199), (39, 41), (77, 158), (119, 160), (121, 200), (198, 200), (0, 1)] {
            for max_bytes in [1, 1000, 1 << 20] {
                let ask = Ask { from, bound, max_bytes, whole_first: true };
                assert!(log.fetch_all(ask) == log.oracle(from, bound), "{from}..{bound} by {max_bytes}, up to {largest}");
            }
        }
    }
}

#[test]
fn bytes_asked_for_are_kept_to_except_for_the_first_batch() {
    let log = sample(3000);
    for from in 0..200 {
        for max_bytes in [0, 500, 5000, 50_000] {
            let ask = Ask { from, bound: 200, max_bytes, whole_first: true };
            let (sent, _) = log.step(&ask).unwrap();
            let first = walk::header_at(&sent).unwrap().size;
            assert!(sent.len() <= max_bytes.max(first));
            assert_eq!(walk::batches(&sent).filter(|b| b.is_err()).count(), 0);
            let partial = log.step(&Ask { whole_first: false, ..ask });
            assert_eq!(partial.is_none(), first > max_bytes);
        }
    }
}

#[test]
fn memory_is_preferred_and_gaps_in_it_are_read_from_files() {
    let mut log = sample(100);
    let ask = Ask { from: 121, bound: 200, max_bytes: 1 << 20, whole_first: true };
    assert!(matches!(plan(&log.segments, &log.cached, &ask, |_| None), Plan::Memory { next: 200, .. }));
    log.cached.remove(2);
    assert!(matches!(plan(&log.segments, &log.cached, &ask, |_| None), Plan::Memory { next: 132, .. }));
    assert!(log.fetch_all(ask) == log.oracle(121, 200));
    let lost = Ask { from: 160, ..ask };
    assert!(matches!(plan(&log.segments, &[], &lost, |_| None), Plan::Nowhere));
    assert!(matches!(plan(&log.segments, &[], &Ask { from: 3, ..ask }, |_| None), Plan::NeedsIndex { segment: 0 }));
    assert!(matches!(plan(&log.segments, &[], &Ask { from: -1, ..ask }, |_| None), Plan::Below));
}

#[test]
fn what_the_index_remembers_convicts_a_changed_header() {
    let log = sample(100);
    let ask = Ask { from: 10, bound: 200, max_bytes: 1 << 20, whole_first: true };
    let Plan::File(read) = plan(&log.segments, &[], &ask, |base| log.indexes.get(&base)) else { panic!("a file") };
    let mut file = log.files[&0].clone();
    let at = read.place as usize;
    let check = |file: &[u8]| trim(&file[at..at + read.len as usize], &read, file.len() as u64, &ask);
    assert!(check(&file).is_ok());
    file[at + 15] ^= 1;
    let error = check(&file).unwrap_err();
    assert_eq!((error.file.as_str(), error.place), ("00000000000000000000.log", read.place));
    let foreign = FileRead { expected: Expected { base: 8, outer_crc: None }, ..read };
    assert!(
        trim(&log.files[&0][at..at + read.len as usize], &foreign, log.files[&0].len() as u64, &ask).is_err() || read.expected.base == 8
    );
    assert!(trim(&[], &read, 10, &ask).is_err(), "a short read");
}

#[test]
fn zeros_and_arbitrary_bytes_are_corrupt_or_end_and_never_panic() {
    let log = sample(300);
    let ask = Ask { from: 20, bound: 200, max_bytes: 1 << 20, whole_first: true };
    let file = &log.files[&0];
    let read = FileRead { segment: 0, place: 0, len: file.len() as u64, expected: Expected { base: 0, outer_crc: None } };
    assert!(trim(&vec![0; file.len()], &read, file.len() as u64, &ask).is_err());
    let mut prng = Prng::new(12);
    for _ in 0..5000 {
        let mut bad = file.clone();
        for _ in 0..=prng.below(3) {
            let at = prng.below(bad.len() as u64) as usize;
            bad[at] = prng.next_u64() as u8;
        }
        if let Ok(Trimmed::Again(again)) = trim(&bad, &read, file.len() as u64, &ask) {
            assert!(again.place + again.len <= file.len() as u64 && again.place > 0);
        }
    }
}
