//! The newest batches of one partition, in memory: slices of the journal entries in which they were written.
//!
//! 1. Every sealed entry brings a piece: whole batches back to back.
//! 2. Pieces at or above the checkpointed offset are the only copy outside the journal and stay; those below are a cache and may go.
//! 3. Pieces that are carried stand in a later entry than before, and maybe in a later one than those behind them.
//! 4. A read that begins at or above the first piece is served from here without a copy.
//!
//! Invariants: pieces are in order without gaps; first <= checkpointed <= end; entries of the pieces from `carried_to` on do not go back.
//! Knows nothing of commit or of who reads.

use millrace_base::offset::Offset;
use millrace_io::Slice;
use millrace_log::walk;
use std::collections::VecDeque;

/// Batches of one journal entry.
#[derive(Clone, Debug)]
pub struct Piece {
    pub base: Offset,
    pub end: Offset,
    pub bytes: Slice,
    /// The journal entry that holds them.
    pub sequence: u64,
    pub max_timestamp: i64,
    /// Bytes of all pieces that the tail took before it.
    at: u64,
}

impl Piece {
    pub fn new(base: Offset, end: Offset, bytes: Slice, sequence: u64) -> Piece {
        let max_timestamp = walk::batches(&bytes).flatten().map(|found| found.header.max_timestamp).max().unwrap_or(-1);
        Piece { base, end, bytes, sequence, max_timestamp, at: 0 }
    }
}

#[derive(Debug)]
pub struct Tail {
    pieces: VecDeque<Piece>,
    checkpointed: Offset,
    end: Offset,
    /// Where the pieces end that were carried last: all pending ones that were known.
    carried_to: Offset,
    pending_bytes: usize,
    /// Bytes of all pieces that it took.
    taken: u64,
}

impl Tail {
    /// An empty tail of a log that is checkpointed up to its end.
    pub fn new(end: Offset) -> Tail {
        Tail { pieces: VecDeque::new(), checkpointed: end, end, carried_to: 0, pending_bytes: 0, taken: 0 }
    }

    /// The first offset that can be read from memory.
    pub fn first(&self) -> Offset {
        self.pieces.front().map_or(self.end, |piece| piece.base)
    }

    pub fn end(&self) -> Offset {
        self.end
    }

    /// Everything below is in segments.
    pub fn checkpointed(&self) -> Offset {
        self.checkpointed
    }

    /// Bytes that are in the journal only.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// The first journal entry that still holds bytes which no segment has.
    pub fn oldest_sequence(&self) -> Option<u64> {
        let first = self.pending().next()?;
        let behind = self.from(self.carried_to.max(first.base)).next();
        Some(behind.map_or(first.sequence, |piece| piece.sequence.min(first.sequence)))
    }

    pub fn push(&mut self, mut piece: Piece) {
        piece.at = self.taken;
        self.taken += piece.bytes.len() as u64;
        assert_eq!(piece.base, self.end);
        assert!(piece.base < piece.end);
        if self.pieces.back().is_some_and(|last| last.sequence > piece.sequence) {
            self.carried_to = piece.base;
        }
        self.pending_bytes += piece.bytes.len();
        self.end = piece.end;
        self.pieces.push_back(piece);
    }

    /// Pieces that are in the journal only, in order.
    pub fn pending(&self) -> impl Iterator<Item = &Piece> {
        let from = self.pieces.partition_point(|piece| piece.end <= self.checkpointed);
        self.pieces.range(from..)
    }

    /// Pieces at or above offset `from`, at which one begins, in order.
    pub fn from(&self, from: Offset) -> impl Iterator<Item = &Piece> {
        let first = self.pieces.partition_point(|piece| piece.base < from);
        self.pieces.range(first..)
    }

    /// Batches below `end` are durable in segments. `end` is where a piece ends.
    pub fn checkpoint(&mut self, end: Offset) {
        self.checkpointed = self.checkpointed.max(end);
        self.pending_bytes = self.pending().map(|piece| piece.bytes.len()).sum();
    }

    /// Pieces were written again into a later journal entry: the same offsets, other memory.
    pub fn carry(&mut self, piece: Piece) {
        if let Some(index) = self.pieces.iter().position(|old| old.base == piece.base && old.end == piece.end) {
            self.carried_to = self.carried_to.max(piece.end);
            self.pieces[index] = Piece { at: self.pieces[index].at, ..piece };
        }
    }

    /// The journal entry that brought its oldest piece, if that is a cache.
    pub fn cached_from(&self) -> Option<u64> {
        self.pieces.front().filter(|piece| piece.end <= self.checkpointed).map(|piece| piece.sequence)
    }

    /// Drops cached pieces from the front that journal entries below `sequence` brought.
    pub fn evict_below(&mut self, sequence: u64) {
        while self.pieces.front().is_some_and(|piece| piece.end <= self.checkpointed && piece.sequence < sequence) {
            self.pieces.pop_front();
        }
    }

    /// No fewer bytes than a read from `from` to `bound` would give, found without a walk. None: `from` is not in memory.
    pub fn bytes_at_most(&self, from: Offset, bound: Offset) -> Option<u64> {
        let first = self.pieces.partition_point(|piece| piece.end <= from);
        let end = self.pieces.partition_point(|piece| piece.base < bound);
        if from < self.first() || end <= first {
            return (from >= self.first()).then_some(0);
        }
        let last = &self.pieces[end - 1];
        Some(last.at + last.bytes.len() as u64 - self.pieces[first].at)
    }

    /// Whole batches from the one that holds `from` on, while they end at or before `bound` and fit `max_bytes`; the first comes whatever
    /// its size if `first_whole`; and where they end. None: `from` is not in memory.
    pub fn read(&self, from: Offset, bound: Offset, max_bytes: usize, first_whole: bool) -> Option<(Vec<Slice>, Offset)> {
        if from < self.first() {
            return None;
        }
        let (mut taken, mut behind) = (Vec::new(), from);
        let mut left = max_bytes;
        let start = self.pieces.partition_point(|piece| piece.end <= from);
        for piece in self.pieces.range(start..) {
            if piece.base >= bound {
                break;
            }
            let is_first = taken.is_empty() && first_whole;
            if piece.base >= from && piece.end <= bound && piece.bytes.len() <= left {
                left -= piece.bytes.len();
                taken.push(piece.bytes.clone());
                behind = piece.end;
                continue;
            }
            let (range, end) = cut(&piece.bytes, from, bound, left, is_first);
            behind = behind.max(end);
            let is_to_its_end = !range.is_empty() && range.end == piece.bytes.len();
            if !range.is_empty() {
                left = left.saturating_sub(range.len());
                taken.push(piece.bytes.sub(range));
            }
            if !is_to_its_end {
                break; // what is behind would leave a gap
            }
        }
        Some((taken, behind))
    }
}

/// The range of whole batches in `bytes` that hold offsets >= `from`, end at or before `bound`, and fit `max_bytes`; and the offset behind.
fn cut(bytes: &[u8], from: Offset, bound: Offset, max_bytes: usize, first_whole: bool) -> (std::ops::Range<usize>, Offset) {
    let (mut start, mut end, mut behind) = (None, 0, from);
    for found in walk::batches(bytes) {
        let found = found.expect("what was appended was checked");
        let next = found.header.next_offset();
        if next <= from {
            continue;
        }
        let begin = *start.get_or_insert(found.place);
        let is_first = begin == found.place && first_whole;
        let fits = found.place + found.header.size - begin <= max_bytes;
        if next > bound || !(fits || is_first) {
            break;
        }
        (end, behind) = (found.place + found.header.size, next);
    }
    let start = start.unwrap_or(0);
    if end <= start { (0..0, from) } else { (start..end, behind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::batch::{Builder, patch};
    use millrace_io::Pool;

    fn piece(pool: &Pool, base: Offset, batches: usize, records: usize) -> Piece {
        let mut bytes = Vec::new();
        for batch in 0..batches {
            let mut builder = Builder::new(0);
            (0..records).for_each(|_| builder.push(0, None, Some(b"value")));
            let mut one = builder.finish();
            patch(&mut one, base + (batch * records) as i64, 1);
            bytes.extend(one);
        }
        let slice = pool.take(bytes.len()).push(&bytes);
        Piece::new(base, base + (batches * records) as i64, slice, base as u64)
    }

    fn offsets(slices: &[Slice]) -> Vec<Offset> {
        let all: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
        walk::batches(&all).map(|b| b.unwrap().header.base_offset).collect()
    }

    #[test]
    fn reads_give_whole_batches_within_bounds() {
        let pool = Pool::new(1 << 20);
        let mut tail = Tail::new(10);
        for base in [10, 20, 30] {
            tail.push(piece(&pool, base, 2, 5));
        }
        let size = tail.pieces[0].bytes.len() / 2;
        let read = |from, bound, max, whole| tail.read(from, bound, max, whole).map(|(s, _)| offsets(&s));
        let behind = |from, bound, max| tail.read(from, bound, max, true).map(|(_, behind)| behind);
        assert_eq!([behind(17, 40, 2 * size), behind(17, 25, 1 << 20), behind(10, 40, 1 << 20)], [Some(25), Some(25), Some(40)]);
        assert_eq!([behind(10, 40, 1), behind(40, 40, 1), behind(10, 12, 1 << 20)], [Some(15), Some(40), Some(10)]);
        assert_eq!(read(9, 40, 1 << 20, true), None);
        assert_eq!(read(10, 40, 1 << 20, true), Some(vec![10, 15, 20, 25, 30, 35]));
        assert_eq!(read(17, 40, 1 << 20, true), Some(vec![15, 20, 25, 30, 35]));
        assert_eq!(read(17, 25, 1 << 20, true), Some(vec![15, 20]));
        assert_eq!(read(17, 40, 2 * size, true), Some(vec![15, 20]));
        assert_eq!(read(12, 40, 3 * size, true), Some(vec![10, 15, 20]));
        assert_eq!(read(10, 40, 1, true), Some(vec![10]));
        assert_eq!(read(10, 40, 1, false), Some(vec![]));
        assert_eq!(read(40, 40, 1 << 20, true), Some(vec![]));
        assert_eq!(read(10, 12, 1 << 20, true), Some(vec![]));
        let at_most = |from, bound| tail.bytes_at_most(from, bound).map(|bytes| bytes as usize / size);
        assert_eq!(
            [at_most(9, 40), at_most(10, 40), at_most(17, 25), at_most(30, 40), at_most(40, 40)],
            [None, Some(6), Some(4), Some(2), Some(0)]
        );
        // A piece that is cut at both ends is the last, though a smaller one behind it would fit.
        let mut tail = Tail::new(10);
        tail.push(piece(&pool, 10, 3, 5));
        tail.push(piece(&pool, 25, 1, 1));
        let offsets_of = |max| tail.read(17, 26, max, true).map(|(s, _)| offsets(&s));
        assert_eq!(offsets_of(2 * size - 1), Some(vec![15]));
        assert_eq!(offsets_of(1 << 20), Some(vec![15, 20, 25]));
    }

    #[test]
    fn a_piece_behind_those_that_are_carried_keeps_its_older_entry_needed() {
        let pool = Pool::new(1 << 20);
        let at = |base, sequence| Piece { sequence, ..piece(&pool, base, 1, 5) };
        let mut tail = Tail::new(0);
        [at(0, 1), at(5, 2), at(10, 3)].into_iter().for_each(|piece| tail.push(piece));
        [at(0, 4), at(5, 4)].into_iter().for_each(|piece| tail.carry(piece));
        assert_eq!(tail.oldest_sequence(), Some(3));
        tail.push(at(15, 5));
        assert_eq!(tail.oldest_sequence(), Some(3));
        tail.checkpoint(5);
        assert_eq!(tail.oldest_sequence(), Some(3));
        tail.checkpoint(15);
        assert_eq!(tail.oldest_sequence(), Some(5));
        // As they are read again after a start.
        let mut tail = Tail::new(0);
        [at(0, 4), at(5, 4), at(10, 3), at(15, 5)].into_iter().for_each(|piece| tail.push(piece));
        assert_eq!(tail.oldest_sequence(), Some(3));
    }

    #[test]
    fn only_what_is_checkpointed_is_evicted() {
        let pool = Pool::new(1 << 20);
        let mut tail = Tail::new(0);
        for base in [0, 5, 10] {
            tail.push(piece(&pool, base, 1, 5));
        }
        tail.evict_below(100);
        assert_eq!(tail.first(), 0);
        tail.checkpoint(10);
        assert_eq!(tail.oldest_sequence(), Some(10));
        tail.evict_below(5);
        assert_eq!(tail.first(), 5);
        tail.evict_below(100);
        assert_eq!((tail.first(), tail.end(), tail.checkpointed()), (10, 15, 10));
        assert_eq!(tail.read(5, 15, 100, true).map(|(s, _)| s.len()), None);
    }
}
