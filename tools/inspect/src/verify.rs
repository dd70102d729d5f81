//! `verify`: every byte that a checksum covers, and whether the parts fit together.
//!
//! 1. `millrace.meta`; each journal's verdict; each record's fold into its partition.
//! 2. Each partition's state file, index files and segments: every batch's CRC, offsets without a gap, and against the index: header bytes
//!    that no batch CRC covers, places, largest timestamps, facts.
//! 3. Batches that only the journal has, by their CRCs.
//!
//! A batch that is no batch ends a walk; it goes on at the next one that the index knows.
//!
//! Invariants: each problem is printed as it is found, so that memory does not grow with them.
//! Knows nothing of how a partition is repaired.

use crate::directory::{Directory, damage};
use crate::error::InspectError;
use crate::ls;
use crate::partition::{Kind, Partition, SegmentFile};
use crate::read_only::ReadOnly;
use crate::segment::{Piece, SEGMENT_BYTES_MAX, Segment};
use crate::{Outcome, Output};
use millrace_base::batch;
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use millrace_log::image::PendingBytes;
use millrace_log::index::{Entry, Index, Summary};
use millrace_log::journal::{Touched, Verdict, layout};
use millrace_log::{paths, walk};
use std::path::Path;

pub fn verify(path: &Path, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let mut directory = Directory::open(&mut disk, path)?;
    if directory.is_in_use {
        return Err(InspectError::InUse { path: path.to_owned() });
    }
    let mut check = Check { disk, output, problems: 0, batches: 0, bytes: 0, segments: 0, entries: 0 };
    for note in &directory.notes {
        check.output.note(note)?;
    }
    if let Err(corrupt) = &directory.meta {
        check.problem(corrupt)?;
    }
    let places = check.journals(&directory)?;
    let partitions = ls::load(&mut check.disk, &mut directory)?;
    let count = partitions.len();
    for partition in partitions {
        check.partition(partition, &places)?;
    }
    let found = match check.problems {
        0 => "clean".to_owned(),
        1 => "DAMAGED, 1 problem".to_owned(),
        problems => format!("DAMAGED, {problems} problems"),
    };
    let Check { output, batches, bytes, segments, entries, problems, .. } = check;
    output.line(format_args!(
        "{}: {found}; {} journals with {entries} live entries, {count} partitions, {segments} segments, {batches} batches of {bytes} bytes",
        path.display(),
        directory.journals.len(),
    ))?;
    Ok(Outcome::of(problems > 0))
}

/// Where each live entry of each journal lies: (shard, sequence, file, place).
type EntryPlaces = std::collections::BTreeMap<(u16, u64), (String, u64)>;

struct Check<'a, 'b> {
    disk: ReadOnly,
    output: &'a mut Output<'b>,
    problems: u64,
    batches: u64,
    bytes: u64,
    segments: u64,
    entries: u64,
}

impl Check<'_, '_> {
    fn problem(&mut self, corrupt: &Corrupt) -> Result<(), InspectError> {
        self.problems += 1;
        Ok(self.output.line(corrupt)?)
    }

    fn journals(&mut self, directory: &Directory) -> Result<EntryPlaces, InspectError> {
        let mut places = EntryPlaces::new();
        if directory.journals.is_empty() {
            self.output.note(format_args!("{} has no journal", directory.path.display()))?;
        }
        for (shard, journal) in &directory.journals {
            let found = match &journal.found {
                Ok(found) => found,
                Err(corrupt) => {
                    self.problem(corrupt)?;
                    continue;
                }
            };
            for damage in damage(&found.verdict) {
                let mut corrupt = damage.corrupt.clone();
                corrupt.found.push_str(&match &damage.touched {
                    Touched::All => "; every partition of this journal may be touched".to_owned(),
                    Touched::Partitions(ids) => {
                        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                        format!("; it held records of {}", if ids.is_empty() { "no partition".to_owned() } else { ids.join(", ") })
                    }
                });
                self.problem(&corrupt)?;
            }
            let torn = match &found.verdict {
                Verdict::Torn(torn) | Verdict::Damaged { torn: Some(torn), .. } => Some(torn),
                Verdict::Clean | Verdict::Damaged { torn: None, .. } => None,
            };
            if let Some(torn) = torn {
                let file = journal.folder.join(layout::file_name(torn.slot));
                self.output.note(format_args!(
                    "{} at byte {}: entry {} is torn ({:?}); it was never acknowledged and is cut at a start",
                    file.display(),
                    torn.place,
                    torn.sequence,
                    torn.reason
                ))?;
            }
            self.entries += found.entries.len() as u64;
            for entry in &found.entries {
                places.insert((*shard, entry.sequence), (crate::directory::entry_file(&journal.folder, entry), entry.place));
            }
        }
        Ok(places)
    }

    fn partition(&mut self, mut partition: Partition, places: &EntryPlaces) -> Result<(), InspectError> {
        self.told(&mut partition)?;
        let mut expected: Option<Offset> = None;
        for at in 0..partition.segments.len() {
            let segment = partition.segments[at];
            let next = partition.segments.get(at + 1).map(|next| next.base);
            if let Some(end) = expected.filter(|end| *end != segment.base) {
                let file = partition.segment_path(segment.base).display().to_string();
                let (wanted, found) = (format!("a segment that begins at offset {end}"), format!("offset {}", segment.base));
                self.problem(&Corrupt { file, place: 0, expected: wanted, found })?;
            }
            expected = self.segment(&mut partition, segment, next)?;
            self.told(&mut partition)?;
        }
        self.log_start(&partition)?;
        self.pending(&partition, places)
    }

    /// Prints what was found out about a partition so far.
    fn told(&mut self, partition: &mut Partition) -> Result<(), InspectError> {
        for note in partition.notes.drain(..) {
            self.output.note(note)?;
        }
        for problem in std::mem::take(&mut partition.problems) {
            self.problem(&problem)?;
        }
        Ok(())
    }

    fn log_start(&mut self, partition: &Partition) -> Result<(), InspectError> {
        let (Some(image), Some(first)) = (&partition.image, partition.segments.first()) else { return Ok(()) };
        if first.base <= image.log_start {
            return Ok(());
        }
        let file = partition.folder.display().to_string();
        let (expected, found) = (format!("a segment with offset {}, the log start", image.log_start), format!("{} first", first.base));
        self.problem(&Corrupt { file, place: 0, expected, found })
    }

    /// Gives the offset at which the segment ends, if it can be known. `next`: the base of the segment behind it.
    fn segment(&mut self, partition: &mut Partition, at: SegmentFile, next: Option<Offset>) -> Result<Option<Offset>, InspectError> {
        let path = partition.segment_path(at.base);
        let index = partition.index(&mut self.disk, at);
        let facts = index.as_ref().map(|index| *index.summary());
        if at.kind == Kind::Active && facts.is_some_and(|facts| facts.bytes == 0) {
            return Ok(Some(at.base)); // its file need not be there yet
        }
        self.segments += 1;
        let file = path.display().to_string();
        let mut segment = match Segment::open(&mut self.disk, &path, at.kind == Kind::Closed) {
            Ok(segment) => segment,
            Err(error) => {
                self.problem(&Corrupt { file, place: 0, expected: "a segment".to_owned(), found: error.to_string() })?;
                return Ok(facts.map(|facts| facts.end));
            }
        };
        if segment.len() > SEGMENT_BYTES_MAX {
            let (expected, found) = (format!("at most {SEGMENT_BYTES_MAX} bytes"), format!("{} bytes", segment.len()));
            self.problem(&Corrupt { file, place: 0, expected, found })?;
            return Ok(facts.map(|facts| facts.end));
        }
        if let Some(facts) = facts.filter(|facts| segment.len() < facts.bytes) {
            let (expected, found) = (format!("{} bytes of batches", facts.bytes), format!("{} bytes", segment.len()));
            self.problem(&Corrupt { file: file.clone(), place: segment.len(), expected, found })?;
        }
        let end = facts.map_or(segment.len(), |facts| facts.bytes).min(segment.len());
        let mut walked = Walked::new(&file, at.base, index.as_ref(), at.kind);
        walked.is_partial = facts.is_some_and(|facts| segment.len() < facts.bytes);
        let mut place = 0;
        while place < end {
            let stopped = segment.walk(&mut self.disk, place..end, &mut |piece| {
                walked.take(piece);
                for corrupt in walked.found.drain(..) {
                    self.problems += 1;
                    self.output.line(corrupt)?;
                }
                Ok(())
            })?;
            // Behind what is no batch, go on at the next one that the index knows.
            let known = walked.entries.iter().map(|entry| u64::from(entry.place)).find(|known| *known > stopped);
            place = if stopped < end { known.unwrap_or(end) } else { end };
            walked.resume(place);
        }
        walked.end(end, next);
        self.batches += walked.batches;
        self.bytes += walked.summary.bytes;
        let end_offset = facts.map_or(walked.summary.end, |facts| facts.end);
        for corrupt in std::mem::take(&mut walked.found) {
            self.problem(&corrupt)?;
        }
        if let Some(note) = walked.note.take() {
            self.output.note(note)?;
        }
        if at.kind == Kind::Closed && facts.is_some() && segment.len() > end {
            self.behind(&mut segment, &file, end)?;
        }
        Ok(Some(end_offset))
    }

    /// Bytes behind the last batch of a closed segment.
    fn behind(&mut self, segment: &mut Segment, file: &str, end: u64) -> Result<(), InspectError> {
        let is_zero = segment.is_zero_from(&mut self.disk, end);
        if is_zero.map_err(InspectError::io("read", Path::new(file)))? {
            return Ok(self.output.note(format_args!("{file} at byte {end}: zeros behind the last batch were not cut off"))?);
        }
        let (expected, found) = ("the end of a closed segment".to_owned(), format!("{} more bytes", segment.len() - end));
        self.problem(&Corrupt { file: file.to_owned(), place: end, expected, found })
    }

    /// Batches that only the journal has.
    fn pending(&mut self, partition: &Partition, places: &EntryPlaces) -> Result<(), InspectError> {
        let (Some(image), Some(shard)) = (&partition.image, partition.shard) else { return Ok(()) };
        for pending in &image.pending {
            let PendingBytes::Journal(bytes) = &pending.bytes else { continue };
            let (file, place) = places.get(&(shard, pending.sequence)).cloned().unwrap_or_default();
            let corrupt = |expected: String, found: String| Corrupt { file: file.clone(), place, expected, found };
            let mut expected = pending.base;
            for found in walk::batches(bytes) {
                let fault = match &found {
                    Ok(found) if found.header.base_offset != expected => {
                        Some(walk::WalkError::Gap { expected, found: found.header.base_offset })
                    }
                    Ok(found) => batch::check_stored(found.bytes).err().map(walk::WalkError::Batch),
                    Err(error) => Some(*error),
                };
                if let Some(error) = fault {
                    let wanted = format!("in entry {}, batches {}..{} of {}", pending.sequence, pending.base, pending.end, partition.id);
                    self.problem(&corrupt(wanted, format!("at offset {expected}: {error}")))?;
                }
                if let Ok(found) = found {
                    expected = found.header.next_offset();
                    self.batches += 1;
                    self.bytes += found.header.size as u64;
                }
            }
            if expected != pending.end {
                let wanted = format!("in entry {}, batches of {} that end at offset {}", pending.sequence, partition.id, pending.end);
                self.problem(&corrupt(wanted, format!("offset {expected}")))?;
            }
        }
        Ok(())
    }
}

/// A segment on the way through it, held against its index.
struct Walked<'a> {
    file: &'a str,
    index: Option<&'a Index>,
    kind: Kind,
    /// Entries whose batch has not been met.
    entries: &'a [Entry],
    summary: Summary,
    batches: u64,
    /// The walk was interrupted: what it counts is less than what is there.
    is_partial: bool,
    zeros_at: Option<u64>,
    found: Vec<Corrupt>,
    note: Option<String>,
}

impl<'a> Walked<'a> {
    fn new(file: &'a str, base: Offset, index: Option<&'a Index>, kind: Kind) -> Walked<'a> {
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
        }
    }

    fn corrupt(&mut self, place: u64, expected: String, found: String) {
        self.found.push(Corrupt { file: self.file.to_owned(), place, expected, found });
    }

    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Batch { place, header, bytes, check } => {
                if header.base_offset != self.summary.end {
                    self.corrupt(place, format!("base offset {}", self.summary.end), format!("base offset {}", header.base_offset));
                }
                if let Err(error) = check {
                    self.corrupt(
                        place,
                        format!("batch {}..{} as it was appended", header.base_offset, header.next_offset()),
                        error.to_string(),
                    );
                }
                self.entries_upto(place, Some(bytes));
                self.batches += 1;
                self.summary.end = header.next_offset();
                self.summary.bytes += header.size as u64;
                self.summary.max_timestamp = self.summary.max_timestamp.max(header.max_timestamp);
            }
            Piece::Zeros { place } if self.index.is_none() => self.zeros_at = Some(place),
            Piece::Zeros { place } => self.corrupt(place, "a record batch".to_owned(), "zeros".to_owned()),
            Piece::Corrupt(corrupt) => self.found.push(corrupt),
        }
    }

    /// Compares the entry of the batch at `place`, and names those before it that no batch begins at.
    fn entries_upto(&mut self, place: u64, bytes: Option<&[u8]>) {
        while let Some((entry, rest)) = self.entries.split_first().filter(|(entry, _)| u64::from(entry.place) <= place) {
            self.entries = rest;
            let at = u64::from(entry.place);
            match bytes.filter(|_| at == place) {
                None if self.is_partial => {}
                None => self.corrupt(at, "a batch that the index knows".to_owned(), "none begins here".to_owned()),
                Some(bytes) => {
                    if let Some(Err(corrupt)) = self.index.map(|index| index.check(entry, bytes, self.file)) {
                        self.found.push(corrupt);
                    }
                    if entry.timestamp_before != self.summary.max_timestamp && !self.is_partial {
                        let found = format!("{} in the index", entry.timestamp_before);
                        self.corrupt(at, format!("largest timestamp before of {}", self.summary.max_timestamp), found);
                    }
                }
            }
        }
    }

    /// The walk goes on at `place`, a batch that the index knows, or ends there.
    fn resume(&mut self, place: u64) {
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
    fn end(&mut self, end: u64, next: Option<Offset>) {
        self.entries_upto(u64::MAX, None);
        if let Some(place) = self.zeros_at {
            let is_whole = next.is_none_or(|next| next == self.summary.end);
            if is_whole && self.batches > 0 || self.kind == Kind::Unknown {
                self.note = Some(format!("{} at byte {place}: zeros behind the last batch were not cut off", self.file));
            } else {
                self.corrupt(place, "a record batch".to_owned(), "zeros".to_owned());
            }
        }
        let Some(index) = self.index.filter(|_| !self.is_partial) else { return };
        let facts = *index.summary();
        if facts != self.summary {
            let told = |facts: &Summary| {
                format!("{} bytes that end at offset {}, largest timestamp {}", facts.bytes, facts.end, facts.max_timestamp)
            };
            let file = if self.kind == Kind::Active { self.file.to_owned() } else { index_file(self.file, facts.base) };
            self.found.push(Corrupt { file, place: end.min(facts.bytes), expected: told(&facts), found: told(&self.summary) });
        }
    }
}

fn index_file(segment: &str, base: Offset) -> String {
    Path::new(segment).with_file_name(paths::index_name(base)).display().to_string()
}
