//! One segment of a partition, checked: its file, its index, every batch.
//!
//! A batch that is no batch ends a walk; it goes on at the next one that the index knows.

use crate::error::InspectError;
use crate::partition::{Kind, Partition, SegmentFile};
use crate::problem::{AtStart, Problem};
use crate::read_only::ReadOnly;
use crate::segment::{Piece, SEGMENT_BYTES_MAX, Segment};
use crate::walked::Walked;
use crate::work::Progress;
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use millrace_io::IoError;
use std::path::Path;

/// Problems of one segment that are told; more are counted.
pub const PROBLEMS_MAX: usize = 1000;

#[derive(Default)]
pub struct Checked {
    pub base: Offset,
    /// Where it ends, if that can be known.
    pub end: Option<Offset>,
    pub problems: Vec<Problem>,
    /// Problems beyond those.
    pub more: u64,
    pub notes: Vec<String>,
    pub batches: u64,
    pub bytes: u64,
    pub is_read: bool,
    /// A running broker has removed it meanwhile.
    pub is_gone: bool,
    /// The first offset that is not intact.
    pub damaged_from: Option<Offset>,
}

impl Checked {
    pub fn problem(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX { self.problems.push(problem) } else { self.more += 1 }
    }

    fn corrupt(&mut self, corrupt: Corrupt, at_start: AtStart) {
        self.problem(Problem::new(corrupt, at_start));
    }
}

/// `number`: which segment of the partition. `is_live`: a broker runs on it.
///
/// # Errors
/// The system's, where nothing can be told.
pub fn check(
    disk: &mut ReadOnly,
    partition: &Partition,
    number: usize,
    is_live: bool,
    progress: &Progress,
) -> Result<Checked, InspectError> {
    let at = partition.segments[number];
    let next = partition.segments.get(number + 1).map(|next| next.base);
    let checked = check_file(disk, partition, at, next, is_live, progress)?;
    let is_gone = is_live && !checked.problems.is_empty() && !partition.segment_path(at.base).is_file();
    Ok(if is_gone { Checked { base: at.base, is_gone, ..Checked::default() } } else { checked })
}

fn check_file(
    disk: &mut ReadOnly,
    partition: &Partition,
    at: SegmentFile,
    next: Option<Offset>,
    is_live: bool,
    progress: &Progress,
) -> Result<Checked, InspectError> {
    let mut checked = Checked { base: at.base, ..Checked::default() };
    let path = partition.segment_path(at.base);
    let found = partition.index(disk, at);
    found.problem.into_iter().for_each(|problem| checked.problem(problem));
    checked.notes.extend(found.note);
    let index = found.index;
    let facts = index.as_ref().map(|index| *index.summary());
    let known_bytes = facts.map(|facts| facts.bytes).or(partition.batches_end(at));
    if at.kind == Kind::Active && known_bytes == Some(0) {
        checked.end = Some(at.base);
        return Ok(checked); // its file need not be there yet
    }
    if is_live && known_bytes.is_none() {
        checked.notes.push(format!("{}: where its batches end is not known; it is live", path.display()));
        return Ok(checked);
    }
    checked.is_read = true;
    let file = path.display().to_string();
    let mut segment = match Segment::open(disk, &path, at.kind == Kind::Closed && !is_live) {
        Ok(segment) => segment,
        Err(error) => {
            let at_start = if error == IoError::NOT_FOUND { AtStart::Partial } else { AtStart::Offline };
            checked.corrupt(Corrupt { file, place: 0, expected: "a segment".to_owned(), found: error.to_string() }, at_start);
            checked.damaged_from = Some(at.base);
            checked.end = facts.map(|facts| facts.end);
            return Ok(checked);
        }
    };
    if segment.len() > SEGMENT_BYTES_MAX {
        let (expected, found) = (format!("at most {SEGMENT_BYTES_MAX} bytes"), format!("{} bytes", segment.len()));
        checked.corrupt(Corrupt { file, place: 0, expected, found }, AtStart::NotNoticed);
        checked.end = facts.map(|facts| facts.end);
        return Ok(checked);
    }
    let is_cut = known_bytes.is_some_and(|bytes| segment.len() < bytes);
    if let Some(bytes) = known_bytes.filter(|_| is_cut) {
        let (expected, found) = (format!("{bytes} bytes of batches"), format!("{} bytes", segment.len()));
        checked.corrupt(Corrupt { file: file.clone(), place: segment.len(), expected, found }, AtStart::Partial);
    }
    let end = known_bytes.unwrap_or(segment.len()).min(segment.len());
    let mut walked = Walked::new(&file, at.base, index.as_ref(), at.kind);
    walked.is_partial = is_cut;
    let mut place = 0;
    while place < end {
        let stopped = segment.walk(disk, place..end, &mut |piece| {
            if let Piece::Batch { header, .. } = &piece {
                progress.add(header.size as u64);
            }
            walked.take(piece);
            walked.found.drain(..).for_each(|problem| checked.problem(problem));
            Ok(())
        });
        let stopped = match stopped {
            Ok(stopped) => stopped,
            Err(InspectError::Io { error, .. }) => {
                let expected = "bytes that can be read".to_owned();
                checked.corrupt(
                    Corrupt { file: file.clone(), place: walked.summary.bytes, expected, found: error.to_string() },
                    AtStart::BatchRefused,
                );
                walked.damaged_from = walked.damaged_from.or(Some(walked.summary.end));
                walked.is_partial = true;
                // Past the place that cannot be read.
                walked.summary.bytes.max(place)
            }
            Err(error) => return Err(error),
        };
        // Behind what is no batch, go on at the next one that the index knows.
        let known = walked.entries.iter().map(|entry| u64::from(entry.place)).find(|known| *known > stopped);
        place = if stopped < end { known.unwrap_or(end) } else { end };
        walked.resume(place);
    }
    walked.end(end, next);
    checked.batches = walked.batches;
    checked.bytes = walked.summary.bytes;
    checked.end = Some(facts.map_or(walked.summary.end, |facts| facts.end));
    checked.damaged_from = walked.damaged_from.or(is_cut.then_some(walked.summary.end));
    walked.found.drain(..).for_each(|problem| checked.problem(problem));
    checked.notes.extend(walked.note.take());
    if at.kind == Kind::Closed && facts.is_some() && segment.len() > end {
        behind(disk, &mut segment, &file, end, &mut checked)?;
    }
    Ok(checked)
}

/// Bytes behind the last batch of a closed segment.
fn behind(disk: &mut ReadOnly, segment: &mut Segment, file: &str, end: u64, checked: &mut Checked) -> Result<(), InspectError> {
    let is_zero = segment.is_zero_from(disk, end);
    if is_zero.map_err(InspectError::io("read", Path::new(file)))? {
        checked.notes.push(format!("{file} at byte {end}: zeros behind the last batch were not cut off"));
        return Ok(());
    }
    let (expected, found) = ("the end of a closed segment".to_owned(), format!("{} more bytes", segment.len() - end));
    checked.corrupt(Corrupt { file: file.to_owned(), place: end, expected, found }, AtStart::NotNoticed);
    Ok(())
}
