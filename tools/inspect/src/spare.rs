//! What journals hold beyond what recovery takes from them: every whole entry in every journal file of a data directory, live or not, and in
//! the copies of damaged journals that the broker keeps. It fills holes and nothing else.
//!
//! 1. When it is first asked, all journal files are read once; of each whole entry (header and body by their CRCs) it remembers which offsets of
//!    which partition lie where.
//! 2. A hole is filled from the newest entry that has its offsets. A truncation takes back what came before it in the same journal.
//!
//! Invariants: only batches whose CRC is right are given; memory: a note for each record of batches, and one entry's bytes.
//! Knows nothing of verdicts: where a journal cannot be recovered its whole entries are found all the same.

use crate::error::InspectError;
use crate::read_only::ReadOnly;
use millrace_base::batch::{self, Header};
use millrace_base::crc::crc32c;
use millrace_base::ids::PartitionId;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_io::Disk;
use millrace_log::journal::layout::{self, HEADER_BYTES};
use millrace_log::journal::{PayloadRange, Record, contents};
use millrace_log::{paths, walk};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Offsets of a partition and the bytes that hold them, in two parts for what was written straight to a segment.
#[derive(Clone, Copy, Debug)]
struct Note {
    base: Offset,
    end: Offset,
    /// Larger is newer.
    age: u64,
    file: usize,
    place: u64,
    bytes: u32,
    /// Segment, place and bytes in front of them.
    front: Option<(Offset, u64, u32)>,
}

#[derive(Default)]
pub struct Spare {
    data: Option<PathBuf>,
    is_read: bool,
    files: Vec<PathBuf>,
    notes: BTreeMap<PartitionId, Vec<Note>>,
}

type Each<'a> = dyn FnMut(&str, u64, &Header, &[u8]) -> Result<(), InspectError> + 'a;

impl Spare {
    /// Of the data directory `data`.
    pub fn new(data: &Path) -> Spare {
        Spare { data: Some(data.to_owned()), ..Spare::default() }
    }

    /// Gives the batches that lie within `range`, in order, as far as there are any.
    ///
    /// # Errors
    /// What `each` gives.
    pub fn fill(&mut self, disk: &mut ReadOnly, id: PartitionId, range: Range<Offset>, each: &mut Each<'_>) -> Result<(), InspectError> {
        self.read(disk);
        let Some(data) = &self.data else { return Ok(()) };
        let notes = self.notes.get(&id).map_or(&[][..], Vec::as_slice);
        let mut fitting: Vec<&Note> = notes.iter().filter(|note| note.base < range.end && range.start < note.end).collect();
        fitting.sort_by_key(|note| (note.base, std::cmp::Reverse(note.age)));
        let mut next = range.start;
        for note in fitting {
            if note.end <= next {
                continue;
            }
            let path = &self.files[note.file];
            let Some(bytes) = read_note(disk, data, id, note, path) else { continue };
            let name = path.display().to_string();
            let mut at = first_batch(&bytes, note.base).unwrap_or(bytes.len());
            while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
                let Ok(header) = walk::header_at(rest) else { break };
                let Some(whole) = rest.get(..header.size) else { break };
                let is_fitting = header.base_offset >= next && header.next_offset() <= range.end;
                if is_fitting && batch::check_stored(whole).is_ok() {
                    each(&name, note.place, &header, whole)?;
                    next = header.next_offset();
                }
                at += header.size;
            }
        }
        Ok(())
    }

    fn read(&mut self, disk: &mut ReadOnly) {
        if std::mem::replace(&mut self.is_read, true) {
            return;
        }
        let Some(data) = self.data.clone() else { return };
        // Older ones first: the copies that a start made of damaged journals.
        for name in ["damaged", "journal.old", "journal.next", "journal"] {
            let mut folders: Vec<String> = match disk.list(&data.join(name)) {
                Ok(entries) => entries.into_iter().filter(|entry| entry.is_directory).map(|entry| entry.name).collect(),
                Err(_) => continue,
            };
            folders.sort();
            for folder in folders {
                self.read_journal(disk, &data.join(name).join(folder));
            }
        }
    }

    fn read_journal(&mut self, disk: &mut ReadOnly, folder: &Path) {
        let Ok(entries) = disk.list(folder) else { return };
        // Records with the entry they are of: those of another journal that come later are newer whatever their numbers.
        let mut found: Vec<(u64, usize, u64, Record)> = Vec::new();
        for entry in entries.iter().filter(|entry| layout::slot_of(&entry.name).is_some()) {
            let path = folder.join(&entry.name);
            let Ok(Ok(bytes)) = disk.read_file(&path, layout::FILE_BYTES_MAX as usize) else { continue };
            let file = self.files.len();
            self.files.push(path);
            whole_entries(&bytes, &mut |place, sequence, record| found.push((sequence, file, place, record)));
        }
        found.sort_by_key(|(sequence, ..)| *sequence);
        let first_age = self.files.len() as u64; // grows with every journal
        let mut age = first_age << 40;
        for (_, file, payload_place, record) in found {
            age += 1;
            self.note(record, file, payload_place, age, first_age << 40);
        }
    }

    fn note(&mut self, record: Record, file: usize, payload_place: u64, age: u64, first_age: u64) {
        let notes = self.notes.entry(record.partition()).or_default();
        let at = |range: PayloadRange| (payload_place + u64::from(range.start), range.len);
        match record {
            Record::Batches { base, end, payload, .. } => {
                let (place, bytes) = at(payload);
                notes.push(Note { base, end, age, file, place, bytes, front: None });
            }
            Record::Extent { base, end, segment, place: from, bytes: blocks, tail, .. } => {
                let (place, bytes) = at(tail);
                let Ok(blocks) = u32::try_from(blocks) else { return };
                notes.push(Note { base, end, age, file, place, bytes, front: Some((segment, from, blocks)) });
            }
            Record::Raft { truncate: Some(to), .. } => notes.retain(|note| note.age < first_age || note.base < to.offset),
            Record::Deleted { .. } => notes.retain(|note| note.age < first_age),
            Record::Raft { .. } | Record::Roll { .. } | Record::Checkpoint { .. } | Record::State { .. } | Record::Damaged { .. } => {}
        }
    }
}

/// The records of each whole entry in a journal file, with its number and the place of its payload.
pub fn whole_entries(bytes: &[u8], each: &mut dyn FnMut(u64, u64, Record)) {
    let mut place = 0;
    while let Some(rest) = bytes.get(place..).filter(|rest| !rest.is_empty()) {
        let mut step = BLOCK;
        if let Ok(header) = layout::Header::decode(rest)
            && let Some(entry) = rest.get(..header.entry_bytes as usize)
            && entry.get(HEADER_BYTES..).map(crc32c) == Some(header.body_crc)
        {
            step = (header.entry_bytes as usize).max(BLOCK);
            let ends = [header.contents_a() + header.contents_bytes as usize, entry.len()];
            let records = ends.into_iter().find_map(|end| {
                let (trailer, records) = layout::Trailer::decode(entry.get(..end)?)?;
                contents::decode(records, trailer.count, header.payload_bytes)
            });
            for record in records.into_iter().flatten() {
                each((place + HEADER_BYTES) as u64, header.sequence, record);
            }
        }
        place += step;
    }
}

fn read_note(disk: &mut ReadOnly, data: &Path, id: PartitionId, note: &Note, path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some((segment, place, len)) = note.front {
        bytes = read_at(disk, &paths::segment(&paths::partition(data, id), segment), place, len)?;
    }
    bytes.extend(read_at(disk, path, note.place, note.bytes)?);
    Some(bytes)
}

fn read_at(disk: &mut ReadOnly, path: &Path, place: u64, len: u32) -> Option<Vec<u8>> {
    let file = disk.open(path, millrace_io::OpenHow::default()).ok()?;
    // No more than there is, whatever is said.
    let there = disk.len(file).unwrap_or(0).saturating_sub(place).min(u64::from(len)) as usize;
    let mut bytes = vec![0; there];
    let read = disk.read(file, place, &mut bytes);
    disk.close(file);
    bytes.truncate(read.ok()?);
    Some(bytes)
}

/// Where the batch that begins at offset `base` stands: blocks begin with bytes that came before.
fn first_batch(bytes: &[u8], base: Offset) -> Option<usize> {
    let wanted = base.to_be_bytes();
    let is_batch = |at: &usize| {
        let rest = &bytes[*at..];
        rest.starts_with(&wanted)
            && walk::header_at(rest).is_ok_and(|header| rest.get(..header.size).is_some_and(|whole| batch::check_stored(whole).is_ok()))
    };
    (0..bytes.len()).find(is_batch)
}
