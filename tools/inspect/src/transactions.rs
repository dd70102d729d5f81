//! What became of transactions: committed, aborted, still open.
//!
//! 1. A marker decides for all batches of its producer between the one before it and itself. When the first batch of a transaction is asked
//!    about, the rest of its partition is read once for its markers, whatever part of it is wanted.
//! 2. Kafka's `.txnindex` names aborted transactions too: it is believed where it is there, also for markers that are lost.
//! 3. Where offsets are lost in front of the marker that would decide, or where only a part of a log is there, nothing is claimed.
//!
//! Invariants: memory <= 24 bytes a transaction of one partition; a partition without transactions is read once.

use crate::error::InspectError;
use crate::kafka::check::read_whole;
use crate::kafka::directory::INDEX_BYTES_MAX;
use crate::kafka::formats;
use crate::log::{Log, Seen};
use crate::read_only::ReadOnly;
use crate::records::{Opener, Records, control_name};
use crate::spare::Spare;
use millrace_base::batch::Header;
use millrace_base::offset::Offset;
use std::ops::Range;

/// What became of the transaction that a batch is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Committed,
    Aborted,
    /// No marker has ended it.
    Open,
    /// Its marker may be among what is lost, or in a file that was not given.
    Unknown,
}

impl Fate {
    pub fn name(self) -> &'static str {
        match self {
            Fate::Committed => "committed",
            Fate::Aborted => "aborted",
            Fate::Open => "open",
            Fate::Unknown => "unknown",
        }
    }
}

/// The fates of one partition's batches, read when they are first asked for.
pub struct Fates<'a> {
    log: &'a Log,
    spare: Spare,
    ends: Option<Ends>,
}

impl<'a> Fates<'a> {
    pub fn new(log: &'a Log, spare: Spare) -> Fates<'a> {
        Fates { log, spare, ends: None }
    }

    /// None: the batch is of no transaction, or is a marker itself.
    ///
    /// # Errors
    /// The system's.
    pub fn of(&mut self, header: &Header) -> Result<Option<Fate>, InspectError> {
        if !header.is_transactional() || header.is_control() {
            return Ok(None);
        }
        // What is asked for comes in the order of offsets, so that no end in front of it is needed later.
        let ends = match &mut self.ends {
            Some(ends) if ends.from <= header.base_offset => ends,
            ends => ends.insert(Ends::read(self.log, &mut self.spare, header.base_offset)?),
        };
        Ok(Some(ends.fate(header.producer_id, header.base_offset)))
    }
}

/// Where transactions end.
#[derive(Default)]
struct Ends {
    from: Offset,
    /// Producer, offset, and whether it commits; in that order.
    markers: Vec<(i64, Offset, bool)>,
    /// Producer, last offset and first offset of what an index names; in that order.
    aborted: Vec<(i64, Offset, Offset)>,
    lost: Vec<Range<Offset>>,
    is_part: bool,
}

impl Ends {
    fn read(log: &Log, spare: &mut Spare, from: Offset) -> Result<Ends, InspectError> {
        let mut ends = Ends { from, is_part: log.is_part, ..Ends::default() };
        let mut disk = ReadOnly::default();
        for file in &log.files {
            let path = file.path.with_extension("txnindex");
            if !log.is_part && path.is_file() {
                let (found, _) =
                    read_whole(&mut disk, &path, INDEX_BYTES_MAX).map_or((Vec::new(), None), |bytes| formats::transaction_index(&bytes));
                ends.aborted.extend(found.iter().map(|one| (one.producer_id, one.last, one.first)));
            }
        }
        let mut opener = Opener::default();
        log.scan(&mut disk, spare, from..Offset::MAX, &mut |seen| {
            match seen {
                Seen::Lost(lost) => ends.lost.push(lost.from..lost.to.unwrap_or(Offset::MAX)),
                Seen::Batch { header, bytes, .. } if header.is_control() => {
                    let Ok(opened) = opener.open(&header, bytes) else { return Ok(()) };
                    let Some(Ok(record)) = Records::new(&header, opened).next() else { return Ok(()) };
                    match control_name(record.key) {
                        "commit" => ends.markers.push((header.producer_id, record.offset, true)),
                        "abort" => ends.markers.push((header.producer_id, record.offset, false)),
                        _ => {}
                    }
                }
                Seen::Batch { .. } => {}
            }
            Ok(())
        })?;
        ends.markers.sort_unstable();
        ends.aborted.sort_unstable();
        Ok(ends)
    }

    fn fate(&self, producer: i64, offset: Offset) -> Fate {
        let at = self.aborted.partition_point(|(other, last, _)| (*other, *last) < (producer, offset));
        if self.aborted.get(at).is_some_and(|(other, _, first)| *other == producer && *first <= offset) {
            return Fate::Aborted;
        }
        let at = self.markers.partition_point(|(other, marker, _)| (*other, *marker) < (producer, offset));
        let marker = self.markers.get(at).filter(|(other, _, _)| *other == producer);
        let until = marker.map_or(Offset::MAX, |(_, marker, _)| *marker);
        if self.lost.iter().any(|lost| lost.start < until && lost.end > offset) {
            return Fate::Unknown;
        }
        match marker {
            Some((_, _, true)) => Fate::Committed,
            Some((_, _, false)) => Fate::Aborted,
            None if self.is_part => Fate::Unknown,
            None => Fate::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_decides_unless_it_may_be_another_ones() {
        let markers = vec![(7, 10, true), (7, 20, false), (9, 15, false)];
        let mut ends = Ends { markers, aborted: vec![(8, 40, 35)], ..Ends::default() };
        for (producer, offset, fate) in [
            (7, 5, Fate::Committed),
            (7, 11, Fate::Aborted),
            (7, 21, Fate::Open),
            (9, 5, Fate::Aborted),
            (8, 36, Fate::Aborted),
            (8, 30, Fate::Open),
            (8, 41, Fate::Open),
        ] {
            assert_eq!(ends.fate(producer, offset), fate, "producer {producer} at {offset}");
        }
        ends.lost.push(12..14);
        assert_eq!((ends.fate(7, 5), ends.fate(7, 11), ends.fate(9, 5)), (Fate::Committed, Fate::Unknown, Fate::Unknown));
        assert_eq!((ends.fate(7, 16), ends.fate(8, 36), ends.fate(7, 21)), (Fate::Aborted, Fate::Aborted, Fate::Open));
        ends.is_part = true;
        assert_eq!(ends.fate(7, 21), Fate::Unknown);
    }
}
