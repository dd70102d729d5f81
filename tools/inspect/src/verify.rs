//! `verify`: every byte that a checksum covers, and whether the parts fit together.
//!
//! 1. `millrace.meta`; each journal's verdict; each record's fold into its partition.
//! 2. Each partition's state file, index files and segments (`segment_check`), several segments at a time.
//! 3. Batches that only the journal has, by their CRCs.
//! 4. Of each damaged partition how far it is intact, at last the verdict.
//!
//! Beside a running broker only what lies below each partition's last checkpoint is judged: nothing there changes, it can only go as a whole.
//! The rest is named live.
//!
//! Invariants: problems are told in the order of partitions and segments, whatever the number of threads; of one segment
//! [`segment_check::PROBLEMS_MAX`] are kept at most.
//! Knows nothing of how a partition is repaired.

use crate::Outcome;
use crate::directory::{Directory, damage, entry_file, torn};
use crate::error::InspectError;
use crate::kafka;
use crate::output::Output;
use crate::partition::Partition;
use crate::problem::{AtStart, Problem};
use crate::read_only::ReadOnly;
use crate::segment_check::{Checked, check};
use crate::source::Source;
use crate::work::{Progress, run_all};
use millrace_base::batch;
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use millrace_base::value::field;
use millrace_log::image::PendingBytes;
use millrace_log::journal::{Touched, layout};
use millrace_log::walk;
use std::collections::BTreeMap;
use std::path::Path;

/// How it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct How {
    pub threads: usize,
    /// Tell how far it is while it takes long.
    pub progress: bool,
}

pub fn verify(path: &Path, how: How, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let mut directory = match Source::open(&mut disk, path)? {
        Source::Ours(directory) => *directory,
        Source::Kafka(directory) => return kafka::check::verify(&directory, how, output),
    };
    let mut totals = Totals::default();
    for note in &directory.notes {
        output.note(note)?;
    }
    if directory.is_in_use {
        let path = path.display();
        output
            .note(format_args!("a broker runs on {path}: what lies below each partition's last checkpoint is judged, the rest is live"))?;
    }
    if let Err(problem) = &directory.meta {
        totals.problem(problem, None, output)?;
    }
    let places = journals(&directory, &mut totals, output)?;
    let partitions = directory.take_all(&mut disk)?;
    let units: Vec<(usize, usize)> =
        partitions.iter().enumerate().flat_map(|(at, partition)| (0..partition.segments.len()).map(move |segment| (at, segment))).collect();
    let bytes = partitions.iter().flat_map(|partition| partition.segments.iter().map(|at| partition.file_bytes(*at))).sum();
    let progress = Progress::new(how.progress, bytes);
    let mut telling = Telling { directory: &directory, partitions: &partitions, places: &places, totals, next: 0, parts: None };
    let check_one = |disk: &mut ReadOnly, (partition, segment): (usize, usize), progress: &Progress| {
        check(disk, &partitions[partition], segment, directory.is_in_use, progress)
    };
    run_all(&units, how.threads, &progress, check_one, output, &mut |(partition, _), checked, output| {
        telling.segment(partition, checked, output)
    })?;
    telling.up_to(partitions.len(), output)?;
    let totals = telling.totals;
    totals.verdict(path, &directory, partitions.len(), output)?;
    Ok(totals.outcome)
}

/// Where each live entry of each journal lies: (shard, sequence, file, place).
type EntryPlaces = BTreeMap<(u16, u64), (String, u64)>;

struct Totals {
    outcome: Outcome,
    problems: u64,
    torn: u64,
    batches: u64,
    bytes: u64,
    segments: u64,
    entries: u64,
    live: u64,
}

impl Default for Totals {
    fn default() -> Totals {
        Totals { outcome: Outcome::Clean, problems: 0, torn: 0, batches: 0, bytes: 0, segments: 0, entries: 0, live: 0 }
    }
}

impl Totals {
    fn problem(&mut self, problem: &Problem, partition: Option<&str>, output: &mut Output<'_>) -> Result<(), InspectError> {
        self.problems += 1;
        self.outcome = Outcome::Damaged;
        Ok(problem.tell(output, partition)?)
    }

    fn torn(&mut self) {
        self.torn += 1;
        self.outcome = self.outcome.max(Outcome::Torn);
    }

    fn verdict(&self, path: &Path, directory: &Directory, partitions: usize, output: &mut Output<'_>) -> Result<(), InspectError> {
        let found = match (self.problems, self.torn) {
            (0, 0) => "clean".to_owned(),
            (0, 1) => "torn, 1 end that a start cuts off".to_owned(),
            (0, torn) => format!("torn, {torn} ends that a start cuts off"),
            (1, _) => "DAMAGED, 1 problem".to_owned(),
            (problems, _) => format!("DAMAGED, {problems} problems"),
        };
        let Totals { entries, segments, batches, bytes, live, .. } = self;
        let journals = directory.journals.len();
        let live_text = if directory.is_in_use { format!("; {live} bytes are live and not judged") } else { String::new() };
        let fields = || {
            let verdict = match self.outcome {
                Outcome::Clean => "clean",
                Outcome::Torn => "torn",
                Outcome::Damaged => "damaged",
            };
            vec![
                field("path", path.display().to_string()),
                field("verdict", verdict),
                field("problems", self.problems),
                field("torn_ends", self.torn),
                field("journals", journals),
                field("live_entries", *entries),
                field("partitions", partitions),
                field("segments", *segments),
                field("batches", *batches),
                field("bytes", *bytes),
                field("live_bytes", *live),
            ]
        };
        let line = format_args!(
            "{}: {found}; {journals} journals with {entries} live entries, {partitions} partitions, {segments} segments, {batches} batches of {bytes} bytes{live_text}",
            path.display(),
        );
        Ok(output.tell("verdict", fields, line)?)
    }
}

fn journals(directory: &Directory, totals: &mut Totals, output: &mut Output<'_>) -> Result<EntryPlaces, InspectError> {
    let mut places = EntryPlaces::new();
    if directory.journals.is_empty() {
        let found =
            Corrupt { file: directory.path.display().to_string(), place: 0, expected: "a journal".to_owned(), found: "none".to_owned() };
        totals.problem(&Problem::new(found, AtStart::DirectoryOffline), None, output)?;
    }
    for (shard, journal) in &directory.journals {
        let found = match &journal.found {
            Ok(found) => found,
            Err(_) if directory.is_in_use => {
                output.note(format_args!("journal {shard} changes while it is read; it is live"))?;
                continue;
            }
            Err(problem) => {
                totals.problem(problem, None, output)?;
                continue;
            }
        };
        totals.entries += found.entries.len() as u64;
        for entry in &found.entries {
            places.insert((*shard, entry.sequence), (entry_file(&journal.folder, entry), entry.place));
        }
        if directory.is_in_use {
            continue; // what is behind the last checkpoints is live
        }
        for damage in damage(&found.verdict) {
            let mut corrupt = damage.corrupt.clone();
            corrupt.found.push_str(&match &damage.touched {
                Touched::All => "; every partition of this journal may be touched".to_owned(),
                Touched::Partitions(ids) => {
                    let ids: Vec<String> = ids.iter().map(|id| directory.names.both(*id)).collect();
                    format!("; it held records of {}", if ids.is_empty() { "no partition".to_owned() } else { ids.join(", ") })
                }
            });
            totals.problem(&Problem::new(corrupt, AtStart::Partial), None, output)?;
        }
        if let Some(torn) = torn(&found.verdict) {
            let file = journal.folder.join(layout::file_name(torn.slot)).display().to_string();
            let fields = || {
                vec![
                    field("file", file.as_str()),
                    field("place", torn.place),
                    field("entry", torn.sequence),
                    field("why", format!("{:?}", torn.reason)),
                ]
            };
            let line = format_args!(
                "{file} at byte {}: entry {} is torn ({:?}); it was never acknowledged and is cut at a start",
                torn.place, torn.sequence, torn.reason
            );
            output.tell("torn", fields, line)?;
            totals.torn();
        }
    }
    Ok(places)
}

/// What has been told so far: segments come in order.
struct Telling<'a> {
    directory: &'a Directory,
    partitions: &'a [Partition],
    places: &'a EntryPlaces,
    totals: Totals,
    /// The partition that is told next, or is being told.
    next: usize,
    parts: Option<Part>,
}

/// A partition of which some segments have been told.
#[derive(Default)]
struct Part {
    /// Where the last segment ended, if that is known.
    end: Option<Offset>,
    is_damaged: bool,
    damaged_from: Option<Offset>,
}

impl Part {
    fn damaged_from(&mut self, offset: Offset) {
        self.damaged_from = Some(self.damaged_from.map_or(offset, |before| before.min(offset)));
    }
}

impl Telling<'_> {
    fn name(&self) -> String {
        self.directory.names.both(self.partitions[self.next].id)
    }

    fn problem(&mut self, problem: &Problem, output: &mut Output<'_>) -> Result<(), InspectError> {
        if let Some(part) = &mut self.parts {
            part.is_damaged = true;
        }
        let name = self.name();
        self.totals.problem(problem, Some(&name), output)
    }

    /// Begins with a partition, unless it has been begun.
    fn begin(&mut self, output: &mut Output<'_>) -> Result<(), InspectError> {
        if self.parts.is_some() {
            return Ok(());
        }
        self.parts = Some(Part::default());
        let partition = &self.partitions[self.next];
        for note in &partition.notes {
            output.note(note)?;
        }
        for problem in &partition.problems {
            self.problem(problem, output)?;
        }
        if partition.is_torn {
            self.totals.torn();
        }
        if let (true, Some(part), Some(image)) = (partition.is_damaged, &mut self.parts, &partition.image) {
            part.damaged_from(image.log_end);
        }
        Ok(())
    }

    /// Ends with all partitions before `to`.
    fn up_to(&mut self, to: usize, output: &mut Output<'_>) -> Result<(), InspectError> {
        while self.next < to {
            self.begin(output)?;
            self.log_start(output)?;
            self.pending(output)?;
            self.extent(output)?;
            self.parts = None;
            self.next += 1;
        }
        Ok(())
    }

    fn segment(&mut self, partition: usize, checked: Checked, output: &mut Output<'_>) -> Result<(), InspectError> {
        self.up_to(partition, output)?;
        self.begin(output)?;
        let end = self.parts.as_ref().and_then(|part| part.end);
        if let Some(end) = end.filter(|end| *end != checked.base && !checked.is_gone) {
            let file = self.partitions[partition].segment_path(checked.base).display().to_string();
            let (expected, found) = (format!("a segment that begins at offset {end}"), format!("offset {}", checked.base));
            self.problem(&Problem::new(Corrupt { file, place: 0, expected, found }, AtStart::Partial), output)?;
            if let Some(part) = &mut self.parts {
                part.damaged_from(end.min(checked.base));
            }
        }
        for problem in &checked.problems {
            self.problem(problem, output)?;
        }
        if checked.more > 0 {
            self.totals.problems += checked.more;
            let path = self.partitions[partition].segment_path(checked.base);
            output.note(format_args!("{}: {} more problems", path.display(), checked.more))?;
        }
        for note in &checked.notes {
            output.note(note)?;
        }
        if let Some(part) = &mut self.parts {
            part.end = checked.end;
            if let Some(offset) = checked.damaged_from {
                part.damaged_from(offset);
            }
        }
        self.totals.segments += u64::from(checked.is_read);
        self.totals.batches += checked.batches;
        self.totals.bytes += checked.bytes;
        Ok(())
    }

    fn log_start(&mut self, output: &mut Output<'_>) -> Result<(), InspectError> {
        let partition = &self.partitions[self.next];
        let (Some(image), Some(first)) = (&partition.image, partition.segments.first()) else { return Ok(()) };
        if first.base <= image.log_start || self.directory.is_in_use {
            return Ok(());
        }
        let file = partition.folder.display().to_string();
        let (expected, found) = (format!("a segment with offset {}, the log start", image.log_start), format!("{} first", first.base));
        if let Some(part) = &mut self.parts {
            part.damaged_from(image.log_start);
        }
        self.problem(&Problem::new(Corrupt { file, place: 0, expected, found }, AtStart::Offline), output)
    }

    /// Batches that only the journal has.
    fn pending(&mut self, output: &mut Output<'_>) -> Result<(), InspectError> {
        let partition = &self.partitions[self.next];
        let (Some(image), Some(shard)) = (&partition.image, partition.shard) else { return Ok(()) };
        if self.directory.is_in_use {
            return self.live(partition, output);
        }
        for pending in &image.pending {
            let PendingBytes::Journal(bytes) = &pending.bytes else { continue };
            let (file, place) = self.places.get(&(shard, pending.sequence)).cloned().unwrap_or_default();
            let corrupt =
                |expected: String, found: String| Problem::new(Corrupt { file: file.clone(), place, expected, found }, AtStart::NotNoticed);
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
                    self.problem(&corrupt(wanted, format!("at offset {expected}: {error}")), output)?;
                    if let Some(part) = &mut self.parts {
                        part.damaged_from(expected);
                    }
                }
                if let Ok(found) = found {
                    expected = found.header.next_offset();
                    self.totals.batches += 1;
                    self.totals.bytes += found.header.size as u64;
                }
            }
            if expected != pending.end {
                let wanted = format!("in entry {}, batches of {} that end at offset {}", pending.sequence, partition.id, pending.end);
                self.problem(&corrupt(wanted, format!("offset {expected}")), output)?;
            }
        }
        Ok(())
    }

    fn live(&mut self, partition: &Partition, output: &mut Output<'_>) -> Result<(), InspectError> {
        let (Some(image), bytes) = (&partition.image, partition.pending_bytes()) else { return Ok(()) };
        if bytes == 0 {
            return Ok(());
        }
        self.totals.live += bytes;
        let (from, to, name) = (image.durable_end, image.log_end, self.name());
        let fields = || vec![field("partition", name.as_str()), field("from", from), field("to", to), field("bytes", bytes)];
        Ok(output.tell("live", fields, format_args!("{name}: offsets {from} to {to} are live, {bytes} bytes"))?)
    }

    /// How far a damaged partition is intact.
    fn extent(&mut self, output: &mut Output<'_>) -> Result<(), InspectError> {
        let partition = &self.partitions[self.next];
        let Some(part) = self.parts.as_ref().filter(|part| part.is_damaged) else { return Ok(()) };
        let start = partition.image.as_ref().map(|image| image.log_start).or(partition.segments.first().map(|first| first.base));
        let reached = partition.image.as_ref().map(|image| image.log_end.max(image.lost.end)).max(part.end);
        let (Some(start), Some(reached)) = (start, reached) else { return Ok(()) };
        let to = part.damaged_from.unwrap_or(reached).max(start);
        let name = self.name();
        let fields = || vec![field("partition", name.as_str()), field("from", start), field("to", to), field("reached", reached)];
        Ok(output.tell("intact", fields, format_args!("{name}: intact from offset {start} up to {to}, of {reached}"))?)
    }
}
