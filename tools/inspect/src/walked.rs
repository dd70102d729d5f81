//! One segment on the way through it, held against its index.
//!
//! Invariants: offsets follow without a gap; what an index entry says of a batch is so; facts are what was counted.
//! Knows nothing of files: pieces are brought to it.

use crate::partition::Kind;
use crate::problem::{AtStart, Problem};
use crate::segment::Piece;
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use millrace_log::index::{Entry, Index, Summary};
use millrace_log::paths;
use std::path::Path;

/// A segment on the way through it, held against its index.
pub struct Walked<'a> {
    file: &'a str,
    index: Option<&'a Index>,
    kind: Kind,
    /// Entries whose batch has not been met.
    pub entries: &'a [Entry],
    pub summary: Summary,
    pub batches: u64,
    /// The walk was interrupted: what it counts is less than what is there.
    pub is_partial: bool,
    zeros_at: Option<u64>,
    pub found: Vec<Problem>,
    pub note: Option<String>,
    /// All batches below are intact.
    pub damaged_from: Option<Offset>,
}

impl<'a> Walked<'a> {
    pub fn new(file: &'a str, base: Offset, index: Option<&'a Index>, kind: Kind) -> Walked<'a> {
        Walked {
            file,
            index,
            kind,
            entries: index.map_or(&[], Index::entries),
            summary: Summary::empty(base),
            batches: 0,
            is_partial: false,
            zeros_at: None,
            found: Vec::new(),
            note: None,
            damaged_from: None,
        }
    }

    fn corrupt(&mut self, place: u64, expected: String, found: String, at_start: AtStart) {
        self.push(Corrupt { file: self.file.to_owned(), place, expected, found }, at_start);
    }

    fn push(&mut self, corrupt: Corrupt, at_start: AtStart) {
        if at_start == AtStart::BatchRefused {
            self.damaged_from = self.damaged_from.or(Some(self.summary.end));
        }
        self.found.push(Problem::new(corrupt, at_start));
    }

    pub fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Batch { place, header, bytes, check } => {
                if header.base_offset != self.summary.end {
                    let found = format!("base offset {}", header.base_offset);
                    self.corrupt(place, format!("base offset {}", self.summary.end), found, AtStart::BatchRefused);
                }
                if let Err(error) = check {
                    self.corrupt(
                        place,
                        format!("batch {}..{} as it was appended", header.base_offset, header.next_offset()),
                        error.to_string(),
                        AtStart::BatchRefused,
                    );
                }
                self.entries_upto(place, Some(bytes));
                self.batches += 1;
                self.summary.end = header.next_offset();
                self.summary.bytes += header.size as u64;
                self.summary.max_timestamp = self.summary.max_timestamp.max(header.max_timestamp);
            }
            Piece::Zeros { place } if self.index.is_none() => self.zeros_at = Some(place),
            Piece::Zeros { place } => {
                self.corrupt(place, "a record batch".to_owned(), "zeros".to_owned(), AtStart::BatchRefused);
            }
            Piece::Corrupt(corrupt) => self.push(corrupt, AtStart::BatchRefused),
        }
    }

    /// Compares the entry of the batch at `place`, and names those before it that no batch begins at.
    fn entries_upto(&mut self, place: u64, bytes: Option<&[u8]>) {
        while let Some((entry, rest)) = self.entries.split_first().filter(|(entry, _)| u64::from(entry.place) <= place) {
            self.entries = rest;
            let at = u64::from(entry.place);
            match bytes.filter(|_| at == place) {
                None if self.is_partial => {}
                None => self.corrupt(at, "a batch that the index knows".to_owned(), "none begins here".to_owned(), AtStart::BatchRefused),
                Some(bytes) => {
                    if let Some(Err(corrupt)) = self.index.map(|index| index.check(entry, bytes, self.file)) {
                        self.push(corrupt, AtStart::BatchRefused);
                    }
                    if entry.timestamp_before != self.summary.max_timestamp && !self.is_partial {
                        let found = format!("{} in the index", entry.timestamp_before);
                        let expected = format!("largest timestamp before of {}", self.summary.max_timestamp);
                        self.corrupt(at, expected, found, AtStart::NotNoticed);
                    }
                }
            }
        }
    }

    /// The walk goes on at `place`, a batch that the index knows, or ends there.
    pub fn resume(&mut self, place: u64) {
        if place <= self.summary.bytes {
            return;
        }
        self.is_partial = true;
        self.entries_upto(place - 1, None);
        self.summary.bytes = place;
        if let (Some(index), Some(entry)) = (self.index, self.entries.first()) {
            self.summary.end = index.summary().base + i64::from(entry.relative);
        }
    }

    /// The segment is read up to `end`; the next one begins at `next`.
    pub fn end(&mut self, end: u64, next: Option<Offset>) {
        self.entries_upto(u64::MAX, None);
        if let Some(place) = self.zeros_at {
            let is_whole = next.is_none_or(|next| next == self.summary.end);
            if is_whole && self.batches > 0 || self.kind == Kind::Unknown {
                self.note = Some(format!("{} at byte {place}: zeros behind the last batch were not cut off", self.file));
            } else {
                self.corrupt(place, "a record batch".to_owned(), "zeros".to_owned(), AtStart::Partial);
            }
        }
        let Some(index) = self.index.filter(|_| !self.is_partial) else { return };
        let facts = *index.summary();
        if facts != self.summary {
            let told = |facts: &Summary| {
                format!("{} bytes that end at offset {}, largest timestamp {}", facts.bytes, facts.end, facts.max_timestamp)
            };
            let file = if self.kind == Kind::Active { self.file.to_owned() } else { index_file(self.file, facts.base) };
            let corrupt = Corrupt { file, place: end.min(facts.bytes), expected: told(&facts), found: told(&self.summary) };
            self.push(corrupt, AtStart::NotNoticed);
        }
    }
}

fn index_file(segment: &str, base: Offset) -> String {
    Path::new(segment).with_file_name(paths::index_name(base)).display().to_string()
}
