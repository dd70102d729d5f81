//! The end of the active segment: what is written where, in whole blocks, past the page cache.
//!
//! 1. [`SegmentWriter::plan`] copies waiting bytes behind the last ones into one write of whole blocks, padded with zeros. What fills
//!    no block is remembered, and the next write begins with it: a part-filled block is rewritten only with the same bytes in front.
//! 2. While a write that ends in a part-filled block is in flight no other is planned: one write in flight per block. Writes that end
//!    with a block do not hold up the next.
//! 3. A busy segment is grown ahead by zero-written steps ([`SegmentWriter::grow`]): a durable write into written blocks takes half the
//!    time of one that extends the file. Data is not planned into a step in flight.
//! 4. [`Rule::split`] says how many of the waiting batches still belong into this segment; [`closing`] what must be done to close it.
//!
//! Invariants: places and lengths are whole blocks; bytes <= allocated after every write; tail = bytes mod block, < block.
//! Knows nothing of files or of the journal; `now` is an argument.

use crate::index::{Index, Summary};
use crate::paths;
use crate::walk::{self, WalkError};
use millrace_base::batch::Header;
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::ids::PartitionId;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_base::prng::Prng;
use millrace_io::memory::{Pool, Slice};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of one write.
pub const WRITE_BYTES_MAX: usize = 1 << 20;

/// Bytes of one zero-written step.
pub const GROW_BYTES: u64 = 8 << 20;

/// A segment is busy from so many bytes on, written within [`BUSY_WINDOW_MS`].
pub const BUSY_BYTES: u64 = 1 << 20;
pub const BUSY_WINDOW_MS: u64 = 1000;

/// One write of whole blocks.
#[derive(Clone, Debug)]
pub struct SegmentWrite {
    pub place: u64,
    /// Whole blocks; zeros behind the last byte.
    pub image: Slice,
    /// Bytes of the segment once this is written (and all planned before it).
    pub bytes: u64,
}

/// The end of one active segment.
#[derive(Clone, Debug)]
pub struct SegmentWriter {
    base: Offset,
    bytes: u64,
    /// The bytes of the part-filled last block.
    tail: Vec<u8>,
    /// Where the file ends, as far as writes planned and completed steps say.
    allocated: u64,
    /// A write that ends in the part-filled block is in flight.
    tail_in_flight: bool,
    in_flight: usize,
    growing: Option<Range<u64>>,
    busy_since: Nanos,
    busy_bytes: u64,
}

impl SegmentWriter {
    /// `tail`: the `bytes % 4096` last bytes. The file was cut to `bytes`, so that nothing but zeros can lie behind.
    ///
    /// # Panics
    /// When `tail` is of another length.
    pub fn resume(base: Offset, bytes: u64, tail: &[u8]) -> SegmentWriter {
        assert!(tail.len() as u64 == bytes % BLOCK as u64);
        SegmentWriter {
            base,
            bytes,
            tail: tail.to_vec(),
            allocated: bytes,
            tail_in_flight: false,
            in_flight: 0,
            growing: None,
            busy_since: Nanos::default(),
            busy_bytes: 0,
        }
    }

    pub fn base(&self) -> Offset {
        self.base
    }

    /// Bytes planned so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Nothing of this segment is in flight: it may be cut or closed.
    pub fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.growing.is_none()
    }

    /// The next write of the waiting bytes, which it takes from the front of `waiting`. None: nothing waits, or a block that it needs is
    /// in flight. Bytes that fill no block are written too, unless more wait than one write takes.
    pub fn plan(&mut self, waiting: &mut VecDeque<Slice>, pool: &Pool, now: Nanos) -> Option<SegmentWrite> {
        let place = self.bytes - self.tail.len() as u64;
        let limit = self.growing.as_ref().map_or(u64::MAX, |step| step.start.saturating_sub(place)).min(WRITE_BYTES_MAX as u64) as usize;
        let wanted: usize = waiting.iter().map(|slice| slice.len()).sum();
        let room = limit.saturating_sub(self.tail.len());
        if wanted == 0 || self.tail_in_flight || room == 0 {
            return None;
        }
        let taken = wanted.min(room);
        let filled = self.tail.len() + taken;
        let mut space = pool.take(filled.next_multiple_of(BLOCK));
        let image = &mut space.unfrozen()[..filled.next_multiple_of(BLOCK)];
        image[..self.tail.len()].copy_from_slice(&self.tail);
        take_front(waiting, &mut image[self.tail.len()..filled]);
        image[filled..].fill(0);
        self.tail.clear();
        self.tail.extend_from_slice(&image[filled / BLOCK * BLOCK..filled]);
        let image = space.freeze(filled.next_multiple_of(BLOCK));
        self.bytes += taken as u64;
        self.allocated = self.allocated.max(place + image.len() as u64);
        self.tail_in_flight = !self.tail.is_empty();
        self.in_flight += 1;
        self.note_busy(taken as u64, now);
        Some(SegmentWrite { place, image, bytes: self.bytes })
    }

    /// A planned write has completed.
    pub fn completed(&mut self, write: &SegmentWrite) {
        assert!(self.in_flight > 0, "a completion belongs to a plan");
        self.in_flight -= 1;
        if write.bytes == self.bytes {
            self.tail_in_flight = false;
        }
    }

    fn note_busy(&mut self, bytes: u64, now: Nanos) {
        if now.since(self.busy_since).as_millis() as u64 > BUSY_WINDOW_MS {
            (self.busy_since, self.busy_bytes) = (now, 0);
        }
        self.busy_bytes += bytes;
    }

    /// The next step to be written with zeros, if this segment is busy and its written room is half used up. One at a time; the caller
    /// bounds them per data directory. `segment_bytes`: where the segment will be rolled.
    pub fn grow(&mut self, now: Nanos, segment_bytes: u64) -> Option<Range<u64>> {
        let busy = self.busy_bytes >= BUSY_BYTES && now.since(self.busy_since).as_millis() as u64 <= BUSY_WINDOW_MS;
        let start = self.allocated.max(self.bytes).next_multiple_of(BLOCK as u64);
        let end = (start + GROW_BYTES).min(segment_bytes.next_multiple_of(BLOCK as u64));
        let ahead = start - self.bytes;
        if !busy || self.growing.is_some() || ahead > GROW_BYTES / 2 || start >= end {
            return None;
        }
        self.growing = Some(start..end);
        self.growing.clone()
    }

    /// The step is written; or it was given up (`grown` false: a full disk), and the segment extends with its writes.
    pub fn step_ended(&mut self, grown: bool) {
        let step = self.growing.take().expect("a step that ended was begun");
        if grown {
            self.allocated = self.allocated.max(step.end);
        }
    }

    /// The segment was cut to `bytes`, whose last `bytes % 4096` are `tail`.
    ///
    /// # Panics
    /// When something is in flight: truncation waits for it.
    pub fn cut(&mut self, bytes: u64, tail: &[u8]) {
        assert!(self.is_quiet());
        *self = SegmentWriter::resume(self.base, bytes, tail);
    }
}

/// Moves bytes from the front of `waiting` until `into` is full.
fn take_front(waiting: &mut VecDeque<Slice>, mut into: &mut [u8]) {
    while let Some(first) = waiting.pop_front() {
        let len = first.len().min(into.len());
        let (now, rest) = into.split_at_mut(len);
        now.copy_from_slice(&first[..len]);
        into = rest;
        if len < first.len() {
            waiting.push_front(first.sub(len..first.len()));
        }
        if into.is_empty() {
            return;
        }
    }
}

/// When a segment is full, by the topic's settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`, less this segment's jitter.
    pub segment_ms: i64,
}

/// Since when a segment has been filled: Kafka counts from its first batch's largest timestamp, and without one from its creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Age {
    pub first_timestamp: Option<i64>,
    pub created: WallMs,
}

/// Which of the waiting batches belong into this segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split {
    /// The first bytes: whole batches.
    pub bytes: usize,
    /// The offset at which the next segment begins, if not all do.
    pub roll_at: Option<Offset>,
}

impl Rule {
    /// `segment.jitter.ms` shortens each segment's time at random, the same at every look: by partition and base offset.
    pub fn new(segment_bytes: u64, segment_ms: i64, jitter_ms: i64, partition: PartitionId, base: Offset) -> Rule {
        let low = partition.to_bytes().iter().fold(base as u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let most = jitter_ms.clamp(0, segment_ms.max(1));
        let jitter = if most > 0 { Prng::new(low).below(most as u64) as i64 } else { 0 };
        Rule { segment_bytes, segment_ms: segment_ms.saturating_sub(jitter) }
    }

    /// Whether the batch begins a new segment. Never the first of a segment.
    pub fn is_full(&self, segment: &Summary, age: &Age, header: &Header, now: WallMs) -> bool {
        if segment.bytes == 0 {
            return false;
        }
        let waited = match age.first_timestamp {
            Some(first) if header.max_timestamp >= 0 => header.max_timestamp.saturating_sub(first),
            Some(_) | None => now.saturating_sub(age.created),
        };
        segment.bytes + header.size as u64 > self.segment_bytes
            || waited > self.segment_ms
            || !Summary::reaches(segment.base, header.next_offset())
    }

    /// How many of `batches` (whole, back to back) still belong into `segment`, of which they are the continuation.
    ///
    /// # Errors
    /// Bytes that are not batches.
    pub fn split(&self, segment: &Summary, age: &mut Age, batches: &[u8], now: WallMs) -> Result<Split, WalkError> {
        let mut grown = *segment;
        for found in walk::batches(batches) {
            let found = found?;
            if self.is_full(&grown, age, &found.header, now) {
                return Ok(Split { bytes: found.place, roll_at: Some(found.header.base_offset) });
            }
            if grown.bytes == 0 {
                age.first_timestamp = (found.header.max_timestamp >= 0).then_some(found.header.max_timestamp);
            }
            grown.bytes += found.header.size as u64;
            grown.end = found.header.next_offset();
        }
        Ok(Split { bytes: batches.len(), roll_at: None })
    }
}

/// One thing to be done to close a segment, each after the one before. The batches are written; the roll is stated when all is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closing {
    /// Cut the segment's file to its batches: Kafka's reader throws on zeros.
    Cut {
        len: u64,
    },
    SyncSegment,
    /// Write this file, new, in the partition's directory. Found in part after a crash, it is made again.
    WriteIndex {
        name: String,
        bytes: Vec<u8>,
    },
    SyncIndex,
    SyncDirectory,
}

/// The steps that close the segment of `index`.
pub fn closing(index: &Index) -> [Closing; 5] {
    [
        Closing::Cut { len: index.summary().bytes },
        Closing::SyncSegment,
        Closing::WriteIndex { name: paths::index_name(index.summary().base), bytes: index.encode() },
        Closing::SyncIndex,
        Closing::SyncDirectory,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::tests::batch;
    use millrace_base::ids::META_PARTITION;

    struct Disk {
        file: Vec<u8>,
    }

    impl Disk {
        fn write(&mut self, write: &SegmentWrite) {
            assert!(write.place.is_multiple_of(BLOCK as u64) && write.image.len().is_multiple_of(BLOCK));
            let (from, to) = (write.place as usize, write.place as usize + write.image.len());
            self.file.resize(self.file.len().max(to), 0);
            self.file[from..to].copy_from_slice(&write.image);
        }
    }

    fn slice(pool: &Pool, bytes: &[u8]) -> Slice {
        pool.take(bytes.len()).push(bytes)
    }

    #[test]
    fn any_sequence_of_writes_leaves_the_bytes_and_zeros_behind_them() {
        let (pool, mut prng) = (Pool::new(0), Prng::new(1));
        let (mut disk, mut all) = (Disk { file: Vec::new() }, Vec::new());
        let mut writer = SegmentWriter::resume(0, 0, &[]);
        let mut waiting = VecDeque::new();
        let mut flying: Vec<SegmentWrite> = Vec::new();
        for round in 0..300 {
            for _ in 0..prng.below(4) {
                let most = if prng.one_in(20) { 3 << 20 } else { 9000 };
                let len = 1 + prng.below(most) as usize;
                let bytes = vec![prng.next_u64() as u8 | 1; len];
                waiting.push_back(slice(&pool, &bytes));
                all.extend(bytes);
            }
            while let Some(write) = writer.plan(&mut waiting, &pool, Nanos(round)) {
                let blocks = |w: &SegmentWrite| w.place..w.place + w.image.len() as u64;
                let clear = |other: &SegmentWrite| blocks(other).end <= write.place || blocks(&write).end <= other.place;
                assert!(flying.iter().all(clear), "one write in flight per block");
                assert!(write.image.len() <= WRITE_BYTES_MAX);
                flying.push(write);
            }
            while !flying.is_empty() && (prng.one_in(2) || round == 299) {
                let write = flying.swap_remove(prng.below(flying.len() as u64) as usize);
                disk.write(&write);
                writer.completed(&write);
            }
        }
        while let Some(write) = writer.plan(&mut waiting, &pool, Nanos(0)) {
            disk.write(&write);
            writer.completed(&write);
        }
        assert!(writer.is_quiet());
        assert_eq!(writer.bytes(), all.len() as u64);
        assert!(disk.file[..all.len()] == all[..] && disk.file[all.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_part_filled_block_is_rewritten_with_the_same_bytes_in_front() {
        let pool = Pool::new(0);
        let mut writer = SegmentWriter::resume(0, 4099, b"abc");
        let mut waiting = VecDeque::from([slice(&pool, b"def")]);
        let write = writer.plan(&mut waiting, &pool, Nanos(1)).unwrap();
        assert_eq!((write.place, &write.image[..8], write.image.len(), write.bytes), (4096, &b"abcdef\0\0"[..], BLOCK, 4102));
        waiting.push_back(slice(&pool, b"g"));
        assert!(writer.plan(&mut waiting, &pool, Nanos(1)).is_none(), "its block is in flight");
        writer.completed(&write);
        let write = writer.plan(&mut waiting, &pool, Nanos(1)).unwrap();
        assert_eq!(&write.image[..8], b"abcdefg\0");
        writer.completed(&write);
        writer.cut(4097, b"a");
        assert_eq!(writer.bytes(), 4097);
    }

    #[test]
    fn only_a_busy_segment_grows_ahead_and_data_waits_for_a_step_in_flight() {
        let pool = Pool::new(0);
        let mut writer = SegmentWriter::resume(0, 0, &[]);
        let mut waiting = VecDeque::from([slice(&pool, &[1; 100])]);
        let write = writer.plan(&mut waiting, &pool, Nanos(1)).unwrap();
        writer.completed(&write);
        assert_eq!(writer.grow(Nanos(2), 1 << 30), None, "not busy");
        waiting.push_back(slice(&pool, &vec![1; 2 << 20]));
        while let Some(write) = writer.plan(&mut waiting, &pool, Nanos(3)) {
            writer.completed(&write);
        }
        let step = writer.grow(Nanos(4), 1 << 30).unwrap();
        assert_eq!((step.start, step.end - step.start), ((2 << 20) + 4096, GROW_BYTES));
        assert_eq!(writer.grow(Nanos(4), 1 << 30), None, "one at a time");
        waiting.push_back(slice(&pool, &[1; 5000]));
        let write = writer.plan(&mut waiting, &pool, Nanos(5)).unwrap();
        assert_eq!(write.place + write.image.len() as u64, step.start);
        writer.completed(&write);
        assert!(writer.plan(&mut waiting, &pool, Nanos(5)).is_none());
        writer.step_ended(true);
        assert!(writer.plan(&mut waiting, &pool, Nanos(5)).is_some());
        assert_eq!(writer.grow(Nanos(6), 1 << 30), None, "half a step is still ahead");
        let mut small = writer.clone();
        small.allocated = small.bytes;
        assert_eq!(small.grow(Nanos(6), 1 << 20), None, "not past the roll");
        assert!(small.grow(Nanos(6), 1 << 30).is_some());
        assert!(!small.is_quiet());
    }

    fn header(base: Offset, timestamp: i64) -> Header {
        walk::header_at(&batch(base, 1, 50, timestamp)).unwrap()
    }

    #[test]
    fn a_segment_is_full_by_bytes_time_or_offsets_but_never_when_empty() {
        let size = header(0, 0).size as u64;
        let rule = Rule { segment_bytes: 2 * size, segment_ms: 100 };
        let age = Age { first_timestamp: Some(1000), created: 5000 };
        let with = |bytes| Summary { base: 0, end: 1, bytes, max_timestamp: 0 };
        assert!(!rule.is_full(&with(0), &age, &header(1, 9999), 9999));
        assert!(!rule.is_full(&with(size), &age, &header(1, 1100), 9999));
        assert!(rule.is_full(&with(size + 1), &age, &header(1, 1100), 9999));
        assert!(rule.is_full(&with(size), &age, &header(1, 1101), 9999));
        let ageless = Age { first_timestamp: None, ..age };
        assert!(!rule.is_full(&with(size), &ageless, &header(1, 9999), 5100));
        assert!(rule.is_full(&with(size), &ageless, &header(1, 9999), 5101));
        assert!(rule.is_full(&with(size), &age, &header(i64::from(i32::MAX), 1000), 0));
    }

    #[test]
    fn a_split_ends_at_the_batch_that_begins_the_next_segment() {
        let batches: Vec<u8> = (0..5).flat_map(|base| batch(base, 1, 50, 1000)).collect();
        let size = batches.len() / 5;
        let rule = Rule { segment_bytes: 3 * size as u64, segment_ms: i64::MAX };
        let mut age = Age { first_timestamp: None, created: 0 };
        let split = rule.split(&Summary::empty(0), &mut age, &batches, 0).unwrap();
        assert_eq!(split, Split { bytes: 3 * size, roll_at: Some(3) });
        assert_eq!(age.first_timestamp, Some(1000));
        let rest = rule.split(&Summary::empty(3), &mut age, &batches[split.bytes..], 0).unwrap();
        assert_eq!(rest, Split { bytes: 2 * size, roll_at: None });
        assert!(rule.split(&Summary::empty(0), &mut age, &batches[1..], 0).is_err());
    }

    #[test]
    fn jitter_shortens_the_time_within_its_bound_and_stays_the_same() {
        let times: Vec<i64> = (0..100).map(|base| Rule::new(1, 1000, 300, META_PARTITION, base).segment_ms).collect();
        assert!(times.iter().all(|ms| (701..=1000).contains(ms)) && times.iter().any(|ms| *ms != times[0]));
        assert_eq!(times[7], Rule::new(1, 1000, 300, META_PARTITION, 7).segment_ms);
        assert_eq!(Rule::new(1, 1000, 0, META_PARTITION, 7).segment_ms, 1000);
    }

    #[test]
    fn closing_cuts_and_syncs_before_the_index_and_the_directory_last() {
        let mut index = Index::new(40, 100);
        index.add(&header(40, 1), &batch(40, 1, 50, 1));
        let steps = closing(&index);
        assert_eq!(steps[0], Closing::Cut { len: index.summary().bytes });
        assert_eq!((&steps[1], &steps[4]), (&Closing::SyncSegment, &Closing::SyncDirectory));
        assert!(matches!(&steps[2], Closing::WriteIndex { name, .. } if name == "00000000000000000040.index"));
    }
}
