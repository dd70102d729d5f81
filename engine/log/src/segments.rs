//! The segments of one partition, in order: which one holds an offset, which one a time.
//!
//! Closed segments are known by their facts ([`Summary`]); their indexes are read when a lookup needs one, and kept by the shard in a
//! bounded cache. The active segment's index is always here.
//!
//! Invariants: each segment begins where the one before ends; the active one is the last.
//! Knows nothing of files or of what is still in the journal.

use crate::index::{Entry, Index, Summary};
use crate::paths::{self, Named};
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use std::collections::{BTreeMap, BTreeSet};

/// All segments of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segments {
    closed: BTreeMap<Offset, Summary>,
    active: Index,
}

/// Where to begin to read for an offset or a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// From this place of the segment on. `entry`: what the header there must be.
    Place { segment: Offset, place: u64, entry: Option<Entry> },
    /// The closed segment's index is needed first; then ask [`place_in`].
    NeedsIndex { segment: Offset },
    /// Not in any segment: above the durable end, or later than every batch in segments.
    Above,
    /// Below the first segment.
    Below,
}

impl Segments {
    /// A partition whose only segment is the active one.
    pub fn new(active: Index) -> Segments {
        Segments { closed: BTreeMap::new(), active }
    }

    /// With the closed segments before it, oldest first.
    ///
    /// # Errors
    /// A segment does not begin where the one before ends.
    pub fn restore(closed: Vec<Summary>, active: Index) -> Result<Segments, Corrupt> {
        let mut before: Option<&Summary> = None;
        for summary in closed.iter().chain([active.summary()]) {
            if let Some(before) = before
                && before.end != summary.base
            {
                let (expected, found) = (format!("a segment that ends at offset {}", summary.base), format!("offset {}", before.end));
                return Err(Corrupt { file: paths::segment_name(before.base), place: before.bytes, expected, found });
            }
            before = Some(summary);
        }
        Ok(Segments { closed: closed.into_iter().map(|summary| (summary.base, summary)).collect(), active })
    }

    pub fn active(&self) -> &Index {
        &self.active
    }

    pub fn active_mut(&mut self) -> &mut Index {
        &mut self.active
    }

    /// Oldest first.
    pub fn closed(&self) -> impl DoubleEndedIterator<Item = &Summary> {
        self.closed.values()
    }

    /// Oldest first, the active one last.
    pub fn all(&self) -> impl Iterator<Item = &Summary> {
        self.closed.values().chain([self.active.summary()])
    }

    /// First offset of the first segment.
    pub fn begin(&self) -> Offset {
        self.closed.first_key_value().map_or(self.active.summary().base, |(base, _)| *base)
    }

    /// Bytes of batches in all segments.
    pub fn bytes(&self) -> u64 {
        self.all().map(|summary| summary.bytes).sum()
    }

    /// The largest timestamp in all segments.
    pub fn max_timestamp(&self) -> i64 {
        self.all().map(|summary| summary.max_timestamp).max().unwrap_or(crate::index::NO_TIMESTAMP)
    }

    /// Closes the active segment and begins the next, empty, where it ends. Gives the closed one's index, to be written.
    pub fn roll(&mut self, interval: u32) -> Index {
        let next = Index::new(self.active.summary().end, interval);
        let closed = std::mem::replace(&mut self.active, next);
        self.closed.insert(closed.summary().base, *closed.summary());
        closed
    }

    /// The first segment is gone. Only closed ones go.
    pub fn remove(&mut self, base: Offset) {
        assert!(self.closed.first_key_value().is_none_or(|(first, _)| *first == base), "segments go from the front");
        self.closed.remove(&base);
    }

    /// The log ends at `to`, below the active segment's base: the segments from `to` on are given, newest first, to be removed, and
    /// the one that holds `to` becomes the active one with this index (see [`Index::cut_back`]).
    pub fn reopen(&mut self, index: Index) -> Vec<Offset> {
        let base = index.summary().base;
        let mut gone: Vec<Offset> = self.closed.split_off(&base).into_keys().filter(|gone| *gone != base).rev().collect();
        if self.active.summary().base != base {
            gone.insert(0, self.active.summary().base);
        }
        self.active = index;
        gone
    }

    /// The segment that holds `offset`, if its bytes are in a segment.
    pub fn holding(&self, offset: Offset) -> Option<&Summary> {
        let active = self.active.summary();
        if offset >= active.base {
            return (offset < active.end).then_some(active);
        }
        self.closed.range(..=offset).next_back().map(|(_, summary)| summary).filter(|summary| offset < summary.end)
    }

    /// Where to begin to walk for `offset`. `cached`: the index of a closed segment, if the shard has it.
    pub fn for_offset<'a>(&self, offset: Offset, cached: impl FnOnce(Offset) -> Option<&'a Index>) -> Lookup {
        match self.holding(offset) {
            None if offset < self.begin() => Lookup::Below,
            None => Lookup::Above,
            Some(summary) if summary.base == self.active.summary().base => place_in(&self.active, offset),
            Some(summary) => cached(summary.base).map_or(Lookup::NeedsIndex { segment: summary.base }, |index| place_in(index, offset)),
        }
    }

    /// Where to begin to walk for the first batch at or after `from` whose max timestamp is at least `timestamp`. The walk skips batches
    /// below `from`; should it reach the segment's end, ask again with that end as `from`.
    pub fn for_time<'a>(&self, timestamp: i64, from: Offset, cached: impl FnOnce(Offset) -> Option<&'a Index>) -> Lookup {
        let late = |summary: &&Summary| summary.end > from && summary.bytes > 0 && summary.max_timestamp >= timestamp;
        let Some(summary) = self.all().find(late) else { return Lookup::Above };
        let in_index = |index: &Index| {
            let starts = [index.for_time(timestamp), index.for_offset(from)];
            let entry = starts.into_iter().flatten().max_by_key(|entry| entry.place).copied();
            Lookup::Place { segment: summary.base, place: entry.map_or(0, |entry| u64::from(entry.place)), entry }
        };
        if summary.base == self.active.summary().base {
            return in_index(&self.active);
        }
        cached(summary.base).map_or(Lookup::NeedsIndex { segment: summary.base }, in_index)
    }
}

/// Where to begin to walk for `offset` in the segment of this index.
pub fn place_in(index: &Index, offset: Offset) -> Lookup {
    let entry = index.for_offset(offset).copied();
    Lookup::Place { segment: index.summary().base, place: entry.map_or(0, |entry| u64::from(entry.place)), entry }
}

/// The files of a partition's directory, sorted out against what the journal says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// Bases of closed segments from the one with the log start on, oldest first; the active one is not among them.
    pub closed: Vec<Offset>,
    /// Closed segments without an index file: it is to be made again.
    pub without_index: Vec<Offset>,
    /// Segments that begin at or above the end or lie wholly below the log start, and indexes without a segment or of the active one: leftovers
    /// of a deed done in part, and not always in order.
    pub leftovers: Vec<String>,
}

/// `names`: of the partition's directory. `log_start`, `active`: the base of the active segment, and `state`: the state file in use are the
/// journal's.
pub fn inventory<'a>(
    names: impl IntoIterator<Item = &'a str>,
    log_start: Offset,
    active: Offset,
    state: Option<crate::state_file::Name>,
) -> Inventory {
    let mut inventory = Inventory::default();
    let (mut closed, mut indexes) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        match paths::named(name) {
            Some(Named::Segment(base)) if base < active => drop(closed.insert(base)),
            Some(Named::Segment(base)) if base > active => inventory.leftovers.push(name.to_owned()),
            Some(Named::Index(base)) if base < active => drop(indexes.insert(base)),
            Some(Named::Index(_)) => inventory.leftovers.push(name.to_owned()),
            Some(Named::State(name_of)) if Some(name_of) != state => inventory.leftovers.push(name.to_owned()),
            Some(Named::Segment(_) | Named::State(_)) | None => {}
        }
    }
    // A segment behind which another one begins at or below the log start has nothing above it.
    let first = closed.iter().copied().chain([active]).filter(|base| *base <= log_start).max().unwrap_or(0);
    let kept = closed.split_off(&first);
    inventory.leftovers.extend(closed.iter().map(|base| paths::segment_name(*base)));
    inventory.leftovers.extend(indexes.difference(&kept).map(|base| paths::index_name(*base)));
    inventory.without_index = kept.difference(&indexes).copied().collect();
    inventory.closed = kept.into_iter().collect();
    inventory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::{self, tests::batch};

    /// Three closed segments of ten batches of two records and an active one; timestamp = base offset, but the second segment is late.
    fn sample() -> (Segments, BTreeMap<Offset, Index>, BTreeMap<Offset, Vec<u8>>) {
        let mut segments = Segments::new(Index::new(0, 200));
        let (mut indexes, mut bytes): (BTreeMap<Offset, Index>, BTreeMap<Offset, Vec<u8>>) = (BTreeMap::new(), BTreeMap::new());
        for base in (0..80).step_by(2) {
            if base > 0 && base % 20 == 0 {
                let closed = segments.roll(200);
                indexes.insert(closed.summary().base, closed);
            }
            let timestamp = if (20..40).contains(&base) { base + 100 } else { base };
            let one = batch(base, 2, 20, timestamp);
            segments.active_mut().add(&walk::header_at(&one).unwrap(), &one);
            bytes.entry(segments.active().summary().base).or_default().extend(one);
        }
        (segments, indexes, bytes)
    }

    #[test]
    fn every_offset_is_found_in_its_segment() {
        let (segments, indexes, bytes) = sample();
        for offset in 0..80 {
            let Lookup::Place { segment, place, .. } = segments.for_offset(offset, |base| indexes.get(&base)) else { panic!("{offset}") };
            assert_eq!(segment, offset / 20 * 20);
            let header = walk::header_at(&bytes[&segment][place as usize..]).unwrap();
            assert!(header.base_offset <= offset);
        }
        assert_eq!(segments.for_offset(80, |_| None), Lookup::Above);
        assert_eq!(segments.for_offset(-1, |_| None), Lookup::Below);
        assert_eq!(segments.for_offset(5, |_| None), Lookup::NeedsIndex { segment: 0 });
    }

    #[test]
    fn a_time_is_found_in_the_first_segment_that_is_late_enough() {
        let (segments, indexes, _) = sample();
        let segment = |timestamp, from| match segments.for_time(timestamp, from, |base| indexes.get(&base)) {
            Lookup::Place { segment, .. } => segment,
            _ => -1,
        };
        assert_eq!([segment(0, 0), segment(19, 0), segment(20, 0), segment(130, 0), segment(200, 0)], [0, 0, 20, 20, -1]);
        assert_eq!(segment(50, 40), 40, "batches below `from` do not count");
        assert_eq!(segment(79, 40), 60);
        let Lookup::Place { place, entry: Some(entry), .. } = segments.for_time(0, 75, |_| None) else { panic!("active") };
        assert_eq!((place, i64::from(entry.relative) <= 15), (u64::from(entry.place), true));
        assert!(entry.relative > 0);
    }

    #[test]
    fn segments_that_do_not_meet_are_corrupt() {
        let (segments, _, _) = sample();
        let closed: Vec<_> = segments.closed().copied().collect();
        assert_eq!(Segments::restore(closed.clone(), segments.active().clone()).unwrap(), segments);
        let error = Segments::restore(vec![closed[0], closed[2]], segments.active().clone()).unwrap_err();
        assert_eq!(error.file, "00000000000000000000.log");
    }

    #[test]
    fn a_truncation_reopens_an_earlier_segment_and_lists_what_goes() {
        let (mut segments, indexes, _) = sample();
        let mut index = indexes[&20].clone();
        index.cut_back(30);
        assert_eq!(segments.reopen(index), [60, 40]);
        assert_eq!(segments.all().map(|s| s.base).collect::<Vec<_>>(), [0, 20]);
        let same = segments.active().clone();
        assert!(segments.reopen(same).is_empty());
    }

    #[test]
    fn leftovers_of_a_deed_done_in_part_are_named() {
        let state = crate::state_file::Name { end: 9, again: 0 };
        let names = [
            "00000000000000000000.log",
            "00000000000000000000.index",
            "00000000000000000010.log",
            "00000000000000000020.log",
            "00000000000000000020.index",
            "00000000000000000030.log",
            "00000000000000000005.index",
            "00000000000000000009.state",
            "00000000000000000008.state",
            "notes.txt",
        ];
        let inventory = |log_start| inventory(names, log_start, 20, Some(state));
        for log_start in [0, 9] {
            let Inventory { closed, without_index, leftovers } = inventory(log_start);
            assert_eq!((closed, without_index), (vec![0, 10], vec![10]));
            assert_eq!(leftovers, [names[4], names[5], names[8], names[6]]);
        }
        for (log_start, kept) in [(10, vec![10]), (19, vec![10]), (20, vec![])] {
            let Inventory { closed, leftovers, .. } = inventory(log_start);
            assert_eq!(closed, kept, "log start {log_start}");
            assert!(leftovers.contains(&names[0].to_owned()) && leftovers.contains(&names[1].to_owned()));
            assert_eq!(leftovers.contains(&names[2].to_owned()), log_start == 20);
        }
    }
}
