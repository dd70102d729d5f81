//! The records of one partition, wherever they lie: segment files, then what only the journal has, and around damage what else there is.
//!
//! 1. Segments are read in order, batch by batch; every batch's CRC is proved before it is given.
//! 2. Behind what is no batch the next whole one of a fitting offset is searched for, byte by byte.
//! 3. Offsets that are missing are looked for in what else the journals hold ([`Spare`]); what is not found is told as lost.
//!
//! Invariants: batches are given once, in the order of their offsets; memory <= one window or batch of a segment and the live journal.
//! Knows nothing of what is done with them.

use crate::commands::Meaning;
use crate::directory::Directory;
use crate::error::InspectError;
use crate::partition::{Kind, Partition};
use crate::read_only::ReadOnly;
use crate::segment::{At, Segment};
use crate::spare::Spare;
use millrace_base::batch::{self, Header};
use millrace_base::ids::{META_TOPIC, PartitionId, TopicId};
use millrace_base::offset::Offset;
use millrace_io::Slice;
use millrace_log::image::PendingBytes;
use millrace_log::walk::{self, STORED_BYTES_MAX};
use std::ops::Range;
use std::path::PathBuf;

pub struct Log {
    /// Its name, or its id where that is not known.
    pub topic: String,
    pub topic_id: Option<TopicId>,
    pub partition: u32,
    pub meaning: Meaning,
    pub log_start: Offset,
    /// In the order of their bases.
    pub files: Vec<LogFile>,
    /// Whole batches behind those in files, in order, and where they stand.
    pub pending: Vec<(Slice, String)>,
    /// More may be there than the journal can say.
    pub is_damaged: bool,
    /// Offsets may be missing without anything being lost: compaction leaves gaps.
    pub may_have_gaps: bool,
    /// The log was at least so long, if that is known.
    pub reached: Option<Offset>,
    /// More of it may lie in files that were not given.
    pub is_part: bool,
    /// For what else journals hold of it.
    pub id: Option<PartitionId>,
}

pub struct LogFile {
    pub path: PathBuf,
    pub base: Offset,
    /// No batch of it has a base at or above.
    pub below: Offset,
    /// The byte at which its batches end, if that is known.
    pub end: Option<u64>,
    /// No one changes it while this runs.
    pub is_closed: bool,
    pub batch_bytes_max: usize,
}

/// What a scan meets.
pub enum Seen<'a> {
    /// A whole intact batch.
    Batch {
        file: &'a str,
        place: u64,
        header: Header,
        bytes: &'a [u8],
    },
    Lost(Lost),
}

/// Offsets that were there and are not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    pub from: Offset,
    /// Up to, not with. None: how many is not known.
    pub to: Option<Offset>,
    /// Where and why, if that is known.
    pub why: Option<String>,
}

type Each<'a> = dyn FnMut(Seen<'_>) -> Result<(), InspectError> + 'a;

impl Log {
    /// Of a partition of ours.
    pub fn of(directory: &Directory, partition: &Partition) -> Log {
        let id = partition.id;
        let name = directory.names.of(id.topic);
        let ends = partition.segments.iter().skip(1).map(|segment| segment.base).chain([Offset::MAX]);
        let file = |(at, below): (&crate::partition::SegmentFile, Offset)| LogFile {
            path: partition.segment_path(at.base),
            base: at.base,
            below,
            end: if partition.is_damaged { None } else { partition.batches_end(*at) },
            is_closed: at.kind == Kind::Closed && !directory.is_in_use,
            batch_bytes_max: STORED_BYTES_MAX,
        };
        let files = partition.segments.iter().zip(ends).map(file).collect();
        // Entries of which nothing is left may have told of more.
        let reached = |image: &millrace_log::image::Recovered| {
            (image.lost.entries == 0 || image.lost.end > image.log_end).then(|| image.log_end.max(image.lost.end))
        };
        let (log_start, reached) = partition.image.as_ref().map_or((0, None), |image| (image.log_start, reached(image)));
        let shard = partition.shard.unwrap_or_default();
        let is_damaged = partition.is_damaged || partition.image.is_none() && !partition.is_deleted;
        let pending = partition.image.iter().flat_map(|image| &image.pending).filter_map(|pending| match &pending.bytes {
            PendingBytes::Journal(bytes) => Some((bytes.clone(), format!("journal {shard}, entry {}", pending.sequence))),
            PendingBytes::Direct(_) => None,
        });
        Log {
            topic: name.map_or_else(|| id.topic.to_string(), str::to_owned),
            topic_id: Some(id.topic),
            partition: id.index,
            meaning: Meaning::of(Some(id.topic), name.filter(|_| id.topic != META_TOPIC)),
            log_start,
            files,
            pending: pending.collect(),
            is_damaged,
            may_have_gaps: false,
            reached,
            is_part: false,
            id: Some(id),
        }
    }

    pub fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    /// Made for the broker itself, not by a user.
    pub fn is_internal(&self) -> bool {
        self.topic_id == Some(META_TOPIC) || self.topic.starts_with("__")
    }

    /// As long as the files are.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.end.unwrap_or_else(|| std::fs::metadata(&file.path).map_or(0, |about| about.len()))).sum()
    }

    /// Gives every batch that has an offset in `offsets`, and what is lost of them.
    ///
    /// # Errors
    /// What `each` gives, or the system's where nothing can be read.
    pub fn scan(&self, disk: &mut ReadOnly, spare: &mut Spare, offsets: Range<Offset>, each: &mut Each<'_>) -> Result<(), InspectError> {
        let start = offsets.start.max(self.log_start);
        let is_behind = self.files.iter().any(|file| file.below <= start);
        let next = (!is_behind && !self.may_have_gaps).then_some(self.log_start);
        let mut scan = Scan { log: self, spare, offsets: start..offsets.end, next, given: Offset::MIN, why: None, each };
        for file in &self.files {
            if file.below > start && file.base < offsets.end && file.end != Some(0) {
                scan.file(disk, file)?;
            }
        }
        for (bytes, place) in &self.pending {
            scan.pending(bytes, place)?;
        }
        scan.end(disk)
    }
}

struct Scan<'a, 'e> {
    log: &'a Log,
    spare: &'a mut Spare,
    offsets: Range<Offset>,
    /// The next offset to come. None: nothing has come yet.
    next: Option<Offset>,
    /// Where the last batch ended. The first one may begin below the log start.
    given: Offset,
    /// What was in the way since then.
    why: Option<String>,
    each: &'a mut Each<'e>,
}

impl Scan<'_, '_> {
    fn file(&mut self, disk: &mut ReadOnly, file: &LogFile) -> Result<(), InspectError> {
        let name = file.path.display().to_string();
        let mut segment = match Segment::open(disk, &file.path, file.is_closed) {
            Ok(segment) => segment.with_batches_up_to(file.batch_bytes_max),
            Err(error) => {
                self.expect(file.base);
                self.in_the_way(&name, 0, &error);
                return Ok(());
            }
        };
        self.expect(file.base);
        let end = file.end.unwrap_or(segment.len()).min(segment.len());
        let mut place = 0;
        while place < end {
            let trouble = match segment.batch_at(disk, place, end) {
                Ok(At::Batch { header, bytes, check: Ok(()) }) if self.is_next(&header, file) => {
                    self.batch(disk, &name, place, &header, bytes)?;
                    place += header.size as u64;
                    if header.base_offset >= self.offsets.end {
                        return Ok(());
                    }
                    continue;
                }
                Ok(At::Batch { header, bytes, check: Ok(()) }) => {
                    // Its records are intact. The offset is not under the CRC: the batch behind it says whether it is right.
                    let (mut whole, behind) = (bytes.to_vec(), place + header.size as u64);
                    let next = match segment.batch_at(disk, behind, end) {
                        Ok(At::Batch { header, check: Ok(()), .. }) => Some(header.base_offset),
                        Ok(_) | Err(_) => None,
                    };
                    match self.base_of(&header, file, next) {
                        Some(base) => {
                            batch::patch(&mut whole, base, header.epoch);
                            self.batch(disk, &name, place, &Header { base_offset: base, ..header }, &whole)?;
                        }
                        None => {
                            self.in_the_way(&name, place, &format!("a batch of offset {} that does not belong here", header.base_offset))
                        }
                    }
                    place = behind;
                    continue;
                }
                Ok(At::Batch { header, check: Err(error), .. }) => {
                    self.in_the_way(&name, place, &error);
                    // If the batch behind it follows on, its length is right.
                    let behind = place + header.size as u64;
                    let follows = matches!(segment.batch_at(disk, behind, end), Ok(At::Batch { header: next, check: Ok(()), .. }) if next.base_offset >= header.next_offset() && self.fits(&next, file));
                    if follows {
                        place = behind;
                        continue;
                    }
                    String::new()
                }
                Ok(At::Zeros) => return Ok(()),
                Ok(At::Nothing(corrupt)) => format!("expected {}, found {}", corrupt.expected, corrupt.found),
                Err(error) => error.to_string(),
            };
            if !trouble.is_empty() {
                self.in_the_way(&name, place, &trouble);
            }
            let fitting = self.next.unwrap_or(file.base)..file.below;
            match segment.find_batch(disk, place + 1..end, fitting) {
                Some(found) => place = found,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Where nothing has come yet, what comes begins here.
    fn expect(&mut self, base: Offset) {
        self.next = self.next.or(Some(base));
    }

    fn fits(&self, header: &Header, file: &LogFile) -> bool {
        let is_short = self.log.is_damaged || self.log.reached.is_none_or(|reached| header.next_offset() <= reached);
        header.base_offset >= file.base && header.base_offset < file.below && is_short
    }

    /// Whether its offset is the one that is expected here.
    fn is_next(&self, header: &Header, file: &LogFile) -> bool {
        self.fits(header, file) && (self.next == Some(header.base_offset) || header.next_offset() <= self.log.log_start)
    }

    /// The base offset of a batch that is not the expected one. `behind`: that of the batch behind it, if there is one.
    fn base_of(&self, header: &Header, file: &LogFile, behind: Option<Offset>) -> Option<Offset> {
        let next = self.next.unwrap_or(file.base);
        let records = i64::from(header.last_offset_delta) + 1;
        if self.why.is_none() && behind == Some(next + records) && behind != Some(header.next_offset()) {
            return Some(next);
        }
        let is_before_the_next = behind.is_none_or(|behind| header.next_offset() <= behind);
        (self.fits(header, file) && is_before_the_next).then_some(header.base_offset)
    }

    fn in_the_way(&mut self, file: &str, place: u64, why: &dyn std::fmt::Display) {
        if self.why.is_none() {
            self.why = Some(format!("{file} at byte {place}: {why}"));
        }
    }

    fn pending(&mut self, bytes: &Slice, place: &str) -> Result<(), InspectError> {
        for found in walk::batches(bytes) {
            match found {
                Ok(found) if batch::check_stored(found.bytes).is_ok() => {
                    self.expect(found.header.base_offset);
                    self.batch(&mut ReadOnly::default(), place, found.place as u64, &found.header, found.bytes)?;
                }
                Ok(found) => self.in_the_way(place, found.place as u64, &"a batch whose CRC is wrong"),
                Err(error) => self.in_the_way(place, 0, &error),
            }
        }
        Ok(())
    }

    /// The next one in a file, which may have been given or be behind a gap.
    fn batch(&mut self, disk: &mut ReadOnly, file: &str, place: u64, header: &Header, bytes: &[u8]) -> Result<(), InspectError> {
        let next = self.next.unwrap_or(header.base_offset);
        if header.next_offset() <= next {
            return Ok(());
        }
        if header.base_offset < self.given {
            let what = format!("batch {}..{} begins within the one before it", header.base_offset, header.next_offset());
            self.in_the_way(file, place, &what);
            return Ok(());
        }
        if header.base_offset > next {
            self.gap(disk, next, Some(header.base_offset))?;
        }
        self.why = None;
        self.next = Some(header.next_offset());
        self.given = header.next_offset();
        if header.next_offset() <= self.offsets.start || header.base_offset >= self.offsets.end {
            return Ok(());
        }
        (self.each)(Seen::Batch { file, place, header: *header, bytes })
    }

    /// Offsets from `from` on are not there, up to `to` if that is known.
    fn gap(&mut self, disk: &mut ReadOnly, from: Offset, to: Option<Offset>) -> Result<(), InspectError> {
        if self.log.may_have_gaps && self.why.is_none() {
            return Ok(());
        }
        let (mut from, until) = (from, to.unwrap_or(Offset::MAX));
        if let Some(id) = self.log.id {
            let (each, offsets, why) = (&mut *self.each, &self.offsets, &self.why);
            let lost = |from: Offset, to: Option<Offset>| Lost { from, to, why: why.clone() };
            self.spare.fill(disk, id, from..until, &mut |file, place, header, bytes| {
                let is_wanted = header.next_offset() > offsets.start && header.base_offset < offsets.end;
                if header.base_offset > from && overlaps(from..header.base_offset, offsets) {
                    each(Seen::Lost(lost(from, Some(header.base_offset))))?;
                }
                from = header.next_offset();
                if is_wanted { each(Seen::Batch { file, place, header: *header, bytes }) } else { Ok(()) }
            })?;
        }
        self.next = Some(from);
        let is_short = to.is_some_and(|to| from < to && overlaps(from..to, &self.offsets));
        if is_short {
            (self.each)(Seen::Lost(Lost { from, to, why: self.why.clone() }))?;
        }
        Ok(())
    }

    /// Nothing comes any more from files.
    fn end(&mut self, disk: &mut ReadOnly) -> Result<(), InspectError> {
        let next = self.next.unwrap_or(self.log.log_start);
        if next >= self.offsets.end {
            return Ok(());
        }
        if self.log.is_damaged {
            self.gap(disk, next, None)?;
        }
        let next = self.next.unwrap_or(next);
        match self.log.reached.filter(|reached| *reached > next) {
            Some(reached) => self.gap(disk, next, Some(reached)),
            None if self.log.reached.is_none() && (self.why.is_some() || self.log.is_damaged) => {
                let why = self.why.take();
                (self.each)(Seen::Lost(Lost { from: next, to: None, why }))
            }
            None => Ok(()),
        }
    }
}

fn overlaps(one: Range<Offset>, other: &Range<Offset>) -> bool {
    one.start < other.end && other.start < one.end
}
