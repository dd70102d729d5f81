//! `verify` of what Kafka wrote: every batch by its CRC, offsets that grow, and everything beside the segments held against them.
//!
//! | file | held against |
//! |---|---|
//! | `.log` | each batch's CRC; offsets that grow, from the base in the name on and below the next segment's |
//! | `.index` | an entry's place is where a batch begins, at or below its offset; a batch ends with its offset |
//! | `.timeindex` | the batch with the entry's offset has its timestamp, none before a larger one |
//! | `.txnindex` | an abort marker of that producer at the last offset |
//! | `.snapshot` | its CRC and lengths; no offset at or above its name |
//! | `leader-epoch-checkpoint` | a batch's epoch has begun by its offset |
//!
//! Compaction leaves gaps, so that offsets need not follow on each other. A batch that is cut at the end of the last segment is torn unless
//! Kafka was stopped cleanly: it cuts it off when it starts.

use super::directory::{EPOCHS_NAME, INDEX_BYTES_MAX, KafkaDirectory, KafkaPartition, TEXT_BYTES_MAX, base_of, in_file};
use super::formats::{self, Aborted, IndexEntry, TimeEntry, Wrong};
use crate::Outcome;
use crate::error::InspectError;
use crate::output::Output;
use crate::problem::Problem;
use crate::read_only::ReadOnly;
use crate::records::{Records, control_name};
use crate::segment::{At, KAFKA_BATCH_BYTES_MAX, Segment};
use crate::segment_check::Checked;
use crate::verify::How;
use crate::work::{Progress, run_all};
use millrace_base::batch::{HEADER_BYTES, Header};
use millrace_base::fault::Corrupt;
use millrace_base::offset::{Epoch, Offset};
use millrace_base::value::field;
use millrace_io::IoError;
use std::path::{Path, PathBuf};

/// What a check of a segment needs to know of its partition.
struct Unit<'a> {
    partition: &'a KafkaPartition,
    epochs: &'a [(Epoch, Offset)],
    number: usize,
    /// A cut end of the last segment is torn, not damage.
    may_be_torn: bool,
    is_live: bool,
}

pub fn verify(directory: &KafkaDirectory, how: How, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let mut totals = Totals::default();
    for note in &directory.notes {
        output.note(note)?;
    }
    if directory.is_in_use {
        output.note(format_args!("{}: Kafka runs on it; the end of each partition is live", directory.path.display()))?;
    }
    for corrupt in &directory.problems {
        totals.problem(&Problem { corrupt: corrupt.clone(), at_start: None }, None, output)?;
    }
    let mut epochs = Vec::new();
    for partition in &directory.partitions {
        epochs.push(read_beside(&mut disk, partition, directory.is_in_use, &mut totals, output)?);
    }
    let units: Vec<(usize, usize)> = (directory.partitions.iter().enumerate())
        .flat_map(|(at, partition)| (0..partition.segments.len()).map(move |number| (at, number)))
        .collect();
    let bytes = directory.partitions.iter().map(|partition| partition.log().file_bytes()).sum();
    let progress = Progress::new(how.progress, bytes);
    let check_one = |disk: &mut ReadOnly, (at, number): (usize, usize), progress: &Progress| {
        let (partition, epochs) = (&directory.partitions[at], &epochs[at][..]);
        let may_be_torn = directory.is_clean != Some(true);
        let unit = Unit { partition, epochs, number, may_be_torn, is_live: directory.is_in_use };
        Ok::<_, InspectError>(check(disk, &unit, progress))
    };
    let mut before: Option<(usize, Checked)> = None;
    run_all(&units, how.threads, &progress, check_one, output, &mut |(at, _), (checked, torn), output| {
        if let Some((_, last)) = before.take().filter(|(other, _)| *other == at)
            && let Some(end) = last.end.filter(|end| *end > checked.base)
        {
            let file = directory.partitions[at].path(checked.base, "log").display().to_string();
            let (expected, found) = (format!("a segment that begins at or behind offset {end}"), format!("offset {}", checked.base));
            let corrupt = Corrupt { file, place: 0, expected, found };
            totals.problem(&Problem { corrupt, at_start: None }, Some(&directory.partitions[at].name()), output)?;
        }
        totals.take(&checked, torn, &directory.partitions[at].name(), output)?;
        before = Some((at, checked));
        Ok(())
    })?;
    totals.verdict(directory, output)?;
    Ok(totals.outcome)
}

struct Totals {
    outcome: Outcome,
    problems: u64,
    torn: u64,
    segments: u64,
    batches: u64,
    bytes: u64,
}

impl Default for Totals {
    fn default() -> Totals {
        Totals { outcome: Outcome::Clean, problems: 0, torn: 0, segments: 0, batches: 0, bytes: 0 }
    }
}

impl Totals {
    fn problem(&mut self, problem: &Problem, partition: Option<&str>, output: &mut Output<'_>) -> Result<(), InspectError> {
        self.problems += 1;
        self.outcome = Outcome::Damaged;
        Ok(problem.tell(output, partition)?)
    }

    fn take(&mut self, checked: &Checked, torn: Option<Corrupt>, name: &str, output: &mut Output<'_>) -> Result<(), InspectError> {
        for problem in &checked.problems {
            self.problem(problem, Some(name), output)?;
        }
        self.problems += checked.more;
        for note in &checked.notes {
            output.note(note)?;
        }
        if let Some(torn) = torn {
            self.torn += 1;
            self.outcome = self.outcome.max(Outcome::Torn);
            let fields = || {
                vec![
                    field("file", torn.file.as_str()),
                    field("place", torn.place),
                    field("partition", name),
                    field("found", torn.found.as_str()),
                ]
            };
            let line =
                format_args!("{} at byte {}: the end is torn ({}); Kafka cuts it off when it starts", torn.file, torn.place, torn.found);
            output.tell("torn", fields, line)?;
        }
        if let Some(from) = checked.damaged_from {
            let fields = || vec![field("partition", name), field("segment", checked.base), field("to", from)];
            let line = format_args!("{name}: segment {} is intact up to offset {from}", checked.base);
            output.tell("intact", fields, line)?;
        }
        self.segments += u64::from(checked.is_read);
        self.batches += checked.batches;
        self.bytes += checked.bytes;
        Ok(())
    }

    fn verdict(&self, directory: &KafkaDirectory, output: &mut Output<'_>) -> Result<(), InspectError> {
        let (found, verdict) = match (self.problems, self.torn) {
            (0, 0) => ("clean".to_owned(), "clean"),
            (0, 1) => ("torn, 1 end that Kafka cuts off when it starts".to_owned(), "torn"),
            (0, torn) => (format!("torn, {torn} ends that Kafka cuts off when it starts"), "torn"),
            (1, _) => ("DAMAGED, 1 problem".to_owned(), "damaged"),
            (problems, _) => (format!("DAMAGED, {problems} problems"), "damaged"),
        };
        let Totals { segments, batches, bytes, .. } = self;
        let (path, partitions) = (directory.path.display(), directory.partitions.len());
        let fields = || {
            vec![
                field("path", path.to_string()),
                field("verdict", verdict),
                field("problems", self.problems),
                field("torn_ends", self.torn),
                field("partitions", partitions),
                field("segments", *segments),
                field("batches", *batches),
                field("bytes", *bytes),
            ]
        };
        let line = format_args!("{path}: {found}; {partitions} partitions, {segments} segments, {batches} batches of {bytes} bytes");
        Ok(output.tell("verdict", fields, line)?)
    }
}

/// Epochs and producers' snapshots of a partition.
fn read_beside(
    disk: &mut ReadOnly,
    partition: &KafkaPartition,
    is_live: bool,
    totals: &mut Totals,
    output: &mut Output<'_>,
) -> Result<Vec<(Epoch, Offset)>, InspectError> {
    let name = partition.name();
    let mut epochs = Vec::new();
    if partition.has(EPOCHS_NAME) {
        let path = partition.folder.join(EPOCHS_NAME);
        match read_whole(disk, &path, TEXT_BYTES_MAX).and_then(|bytes| formats::epochs(&bytes).map_err(|wrong| in_file(wrong, &path))) {
            Ok(found) => epochs = found,
            Err(_) if is_live => {}
            Err(corrupt) => totals.problem(&Problem { corrupt, at_start: None }, Some(&name), output)?,
        }
    }
    for file in partition.files.iter() {
        let Some(end) = base_of(file, "snapshot") else { continue };
        let path = partition.folder.join(file);
        let read = read_whole(disk, &path, INDEX_BYTES_MAX);
        let checked = read.and_then(|bytes| check_snapshot(&bytes, end).map_err(|wrong| in_file(wrong, &path)));
        if let (Err(corrupt), false) = (checked, is_live) {
            totals.problem(&Problem { corrupt, at_start: None }, Some(&name), output)?;
        }
    }
    if partition.segments.is_empty() {
        output.note(format_args!("{name} has no segment"))?;
    }
    Ok(epochs)
}

fn check_snapshot(bytes: &[u8], end: Offset) -> Result<(), Wrong> {
    for (number, producer) in formats::snapshot(bytes)?.iter().enumerate() {
        if producer.last_offset >= end || producer.open_transaction >= end {
            let place = (formats::SNAPSHOT_HEAD_BYTES + number * formats::PRODUCER_BYTES) as u64;
            let (expected, found) = (format!("offsets below {end}"), format!("{} of producer {}", producer.last_offset, producer.id));
            return Err(Wrong { place, expected, found });
        }
    }
    Ok(())
}

pub fn read_whole(disk: &mut ReadOnly, path: &Path, max: usize) -> Result<Vec<u8>, Corrupt> {
    match disk.read_file(path, max) {
        Ok(read) => read,
        Err(error) => {
            let (file, expected) = (path.display().to_string(), "a file that can be read".to_owned());
            Err(Corrupt { file, place: 0, expected, found: error.to_string() })
        }
    }
}

/// A segment on the way through it, and what stands beside it.
struct Walked<'a> {
    file: String,
    checked: Checked,
    index: Beside<IndexEntry>,
    /// How many index entries have a batch that ends with their offset.
    ended: usize,
    time: Beside<TimeEntry>,
    aborted: Beside<Aborted>,
    epochs: &'a [(Epoch, Offset)],
    next: Offset,
    max_timestamp: i64,
}

/// A file beside a segment: entries, and how many have been met.
struct Beside<T> {
    path: PathBuf,
    entries: Vec<T>,
    met: usize,
}

impl<T> Beside<T> {
    fn rest(&self) -> &[T] {
        &self.entries[self.met..]
    }
}

/// Reads a file beside a segment, if it is there.
fn beside<T>(
    disk: &mut ReadOnly,
    unit: &Unit<'_>,
    base: Offset,
    kind: &str,
    checked: &mut Checked,
    decode: impl FnOnce(&[u8]) -> (Vec<T>, Option<Wrong>),
) -> Beside<T> {
    let path = unit.partition.path(base, kind);
    let mut entries = Vec::new();
    let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    if unit.partition.has(&name) {
        let wrong = match read_whole(disk, &path, INDEX_BYTES_MAX) {
            Ok(bytes) if kind == "index" && bytes.starts_with(b"MLIX") => ours(&bytes, base, &path),
            Ok(bytes) => {
                let (found, wrong) = decode(&bytes);
                entries = found;
                wrong.map(|wrong| in_file(wrong, &path))
            }
            Err(corrupt) => Some(corrupt),
        };
        if let Some(corrupt) = wrong.filter(|_| !unit.is_live) {
            checked.problem(Problem { corrupt, at_start: None });
        }
    }
    Beside { path, entries, met: 0 }
}

/// An index of ours in a folder that was copied alone.
fn ours(bytes: &[u8], base: Offset, path: &Path) -> Option<Corrupt> {
    millrace_log::index::Index::decode(bytes, base, &path.display().to_string()).err()
}

/// Gives the torn end too, if there is one.
fn check(disk: &mut ReadOnly, unit: &Unit<'_>, progress: &Progress) -> (Checked, Option<Corrupt>) {
    let (partition, base) = (unit.partition, unit.partition.segments[unit.number]);
    let below = partition.segments.get(unit.number + 1).copied();
    let path = partition.path(base, "log");
    let mut checked = Checked { base, is_read: true, ..Checked::default() };
    let index = beside(disk, unit, base, "index", &mut checked, |bytes| formats::index(bytes, base));
    let time = beside(disk, unit, base, "timeindex", &mut checked, |bytes| formats::time_index(bytes, base));
    let aborted = beside(disk, unit, base, "txnindex", &mut checked, formats::transaction_index);
    let file = path.display().to_string();
    let mut walked = Walked { file, checked, index, ended: 0, time, aborted, epochs: unit.epochs, next: base, max_timestamp: i64::MIN };
    let mut segment = match Segment::open(disk, &path, false) {
        Ok(segment) => segment.with_batches_up_to(KAFKA_BATCH_BYTES_MAX),
        Err(error) => {
            walked.checked.is_read = false;
            if !(unit.is_live && error == IoError::NOT_FOUND) {
                walked.corrupt(0, "a segment".to_owned(), error.to_string());
            }
            return (walked.checked, None);
        }
    };
    let (end, is_last) = (segment.len(), below.is_none());
    let (mut place, mut torn, mut passed) = (0, None, false);
    while place < end {
        let stopped = match segment.batch_at(disk, place, end) {
            Ok(At::Batch { header, bytes, check: Ok(()) }) => {
                walked.batch(place, &header, bytes, below);
                progress.add(header.size as u64);
                place += header.size as u64;
                continue;
            }
            Ok(At::Batch { header, check: Err(error), .. }) => {
                walked.damaged();
                walked.corrupt(
                    place,
                    format!("batch {}..{} as it was appended", header.base_offset, header.next_offset()),
                    error.to_string(),
                );
                let behind = place + header.size as u64;
                let follows = behind == end
                    || matches!(segment.batch_at(disk, behind, end), Ok(At::Batch { header: next, check: Ok(()), .. }) if next.base_offset >= header.next_offset());
                if follows {
                    walked.next = header.next_offset().max(walked.next);
                    place = behind;
                    passed = true;
                    continue;
                }
                None
            }
            Ok(At::Zeros) => {
                let name = walked.file.clone();
                walked
                    .checked
                    .notes
                    .push(format!("{name} at byte {place}: zeros behind the last batch, as Kafka leaves them when it preallocates"));
                break;
            }
            Ok(At::Nothing(corrupt)) => Some(corrupt),
            Err(error) => {
                Some(Corrupt { file: walked.file.clone(), place, expected: "bytes that can be read".to_owned(), found: error.to_string() })
            }
        };
        let found = segment.find_batch(disk, place + 1..end, walked.next..below.unwrap_or(Offset::MAX));
        match (stopped, found) {
            (Some(_), None) if is_last && unit.is_live => break,
            (Some(corrupt), None) if is_last && unit.may_be_torn => {
                torn = Some(corrupt);
                break;
            }
            (Some(corrupt), _) => {
                walked.damaged();
                walked.checked.problem(Problem { corrupt, at_start: None });
            }
            (None, _) => {}
        }
        passed = true;
        place = found.unwrap_or(end);
    }
    walked.end(passed || torn.is_some() || unit.is_live);
    (walked.checked, torn)
}

impl Walked<'_> {
    fn corrupt(&mut self, place: u64, expected: String, found: String) {
        let file = self.file.clone();
        self.checked.problem(Problem { corrupt: Corrupt { file, place, expected, found }, at_start: None });
    }

    fn beside(&mut self, path: &Path, entry: usize, entry_bytes: usize, expected: String, found: String) {
        let (file, place) = (path.display().to_string(), (entry * entry_bytes) as u64);
        self.checked.problem(Problem { corrupt: Corrupt { file, place, expected, found }, at_start: None });
    }

    fn damaged(&mut self) {
        self.checked.damaged_from = self.checked.damaged_from.or(Some(self.next));
    }

    fn batch(&mut self, place: u64, header: &Header, bytes: &[u8], below: Option<Offset>) {
        if header.base_offset < self.next {
            self.damaged();
            self.corrupt(place, format!("a base offset from {} on", self.next), format!("base offset {}", header.base_offset));
        } else if let Some(below) = below.filter(|below| header.last_offset() >= *below) {
            self.damaged();
            self.corrupt(place, format!("offsets below {below}, the next segment's"), format!("up to {}", header.last_offset()));
        }
        self.epoch(place, header);
        self.index(place, header);
        self.time(header);
        if header.is_control() && header.codec() == 0 {
            self.marker(header, bytes);
        }
        self.next = header.next_offset().max(self.next);
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.checked.batches += 1;
        self.checked.bytes += header.size as u64;
    }

    fn epoch(&mut self, place: u64, header: &Header) {
        if header.epoch < 0 || self.epochs.is_empty() {
            return;
        }
        let begun = self.epochs.iter().rfind(|(epoch, _)| *epoch <= header.epoch);
        // Older epochs may have been forgotten with the front of the log.
        if let Some((epoch, start)) = begun.filter(|(epoch, start)| *epoch == header.epoch && *start > header.base_offset) {
            let (expected, found) = (
                format!("an epoch below {epoch}, which began at offset {start}"),
                format!("epoch {} at offset {}", header.epoch, header.base_offset),
            );
            self.corrupt(place, expected, found);
        } else if self.epochs.last().is_some_and(|(newest, _)| header.epoch > *newest) {
            let newest = self.epochs.last().map_or(-1, |(epoch, _)| *epoch);
            self.corrupt(place, format!("an epoch up to {newest}, the newest in {EPOCHS_NAME}"), format!("epoch {}", header.epoch));
        }
    }

    fn index(&mut self, place: u64, header: &Header) {
        while let Some(entry) = self.index.rest().first().copied().filter(|entry| u64::from(entry.place) <= place) {
            let (path, number) = (self.index.path.clone(), self.index.met);
            self.index.met += 1;
            if u64::from(entry.place) < place {
                let found = format!("none begins at byte {} of the segment", entry.place);
                self.beside(
                    &path,
                    number,
                    formats::INDEX_ENTRY_BYTES,
                    format!("the place of a batch up to offset {}", entry.offset),
                    found,
                );
            } else if header.base_offset > entry.offset {
                let found = format!("offset {} begins there", header.base_offset);
                self.beside(&path, number, formats::INDEX_ENTRY_BYTES, format!("a batch at or below offset {}", entry.offset), found);
            }
        }
        while let Some(entry) = self.index.entries.get(self.ended).copied().filter(|entry| entry.offset <= header.last_offset()) {
            let (path, number) = (self.index.path.clone(), self.ended);
            self.ended += 1;
            if entry.offset != header.last_offset() {
                let found = format!("batch {}..{} goes beyond", header.base_offset, header.next_offset());
                self.beside(&path, number, formats::INDEX_ENTRY_BYTES, format!("a batch that ends with offset {}", entry.offset), found);
            }
        }
    }

    fn time(&mut self, header: &Header) {
        while let Some(entry) = self.time.rest().first().copied().filter(|entry| entry.offset <= header.last_offset()) {
            let (path, number) = (self.time.path.clone(), self.time.met);
            self.time.met += 1;
            let is_there = entry.offset >= header.base_offset && entry.timestamp == header.max_timestamp;
            if !is_there || self.max_timestamp > entry.timestamp {
                let expected = format!("timestamp {} at offset {} and none larger before", entry.timestamp, entry.offset);
                let found = format!("batch {}..{} with {}", header.base_offset, header.next_offset(), header.max_timestamp);
                self.beside(&path, number, formats::TIME_ENTRY_BYTES, expected, found);
            }
        }
    }

    /// A transaction's marker.
    fn marker(&mut self, header: &Header, bytes: &[u8]) {
        let Some(Ok(record)) = Records::new(header, bytes.get(HEADER_BYTES..).unwrap_or_default()).next() else { return };
        while let Some(entry) = self.aborted.rest().first().copied().filter(|entry| entry.last <= record.offset) {
            let (path, number) = (self.aborted.path.clone(), self.aborted.met);
            self.aborted.met += 1;
            let is_it = entry.last == record.offset && entry.producer_id == header.producer_id && control_name(record.key) == "abort";
            if !is_it {
                let expected = format!("an abort marker of producer {} at offset {}", entry.producer_id, entry.last);
                let found = format!("a {} marker of producer {} at offset {}", control_name(record.key), header.producer_id, record.offset);
                self.beside(&path, number, formats::ABORTED_BYTES, expected, found);
            }
        }
    }

    /// `is_partial`: not all batches were met, so that what was not met may be among the others.
    fn end(&mut self, is_partial: bool) {
        self.checked.end = Some(self.next);
        if is_partial {
            return;
        }
        if let Some(entry) = self.index.rest().first().copied() {
            let (path, number) = (self.index.path.clone(), self.index.met);
            let found = format!("byte {}, behind the last batch", entry.place);
            self.beside(&path, number, formats::INDEX_ENTRY_BYTES, format!("the place of a batch up to offset {}", entry.offset), found);
        }
        if let Some(entry) = self.time.rest().first().copied() {
            let (path, number) = (self.time.path.clone(), self.time.met);
            let found = format!("{}, the end of the segment", self.next);
            self.beside(&path, number, formats::TIME_ENTRY_BYTES, format!("offset {} in the segment", entry.offset), found);
        }
        if let Some(entry) = self.aborted.rest().first().copied() {
            let (path, number) = (self.aborted.path.clone(), self.aborted.met);
            self.beside(&path, number, formats::ABORTED_BYTES, format!("an abort marker at offset {}", entry.last), "none".to_owned());
        }
    }
}
