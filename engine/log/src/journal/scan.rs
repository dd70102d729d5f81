//! What lies in a journal's files: every header, and every contents copy outside of whole entries. Finds; does not judge.
//!
//! 1. Both slots of the openings are read; the newest readable one counts.
//! 2. Each file is walked from its first block. A whole entry is stepped over, so that no payload in it is taken for an entry; behind
//!    anything else the walk goes on block by block.
//! 3. Only what bears the incarnation that the openings assign to its sequence is noted, and what is below all of them. The rest is
//!    done with.
//!
//! Invariants: memory is one file, and what is noted: at most one header and one copy a block.
//! Knows nothing of which entries are live.

use super::contents;
use super::error::JournalError;
use super::files::FileRoom;
use super::layout::{self, HEADER_BYTES, Header, NoHeader, Openings, Trailer};
use super::record::Record;
use millrace_base::crc::crc32c;
use millrace_base::fault::Corrupt;
use millrace_base::limits::BLOCK;
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{Disk, IoError, OpenHow};
use std::path::Path;

/// An entry whose header is readable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub header: Header,
    pub slot: u32,
    pub place: u64,
    pub body: Body,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Body {
    Whole,
    /// The CRC found, and the records of a contents copy that is readable nevertheless.
    Broken(u32, Option<Vec<Record>>),
}

impl Found {
    pub fn end(&self) -> u64 {
        self.place + u64::from(self.header.entry_bytes)
    }

    pub fn is_whole(&self) -> bool {
        self.body == Body::Whole
    }
}

/// A contents copy found from the end of its entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Foot {
    pub sequence: u64,
    pub slot: u32,
    /// Of the entry.
    pub place: u64,
    pub records: Vec<Record>,
}

/// What both slots of the openings say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum OpeningsFound {
    Newest(Openings),
    /// Never written, or the first write was cut off.
    None,
    /// Both slots were written and neither is readable.
    Lost,
}

#[derive(Debug)]
pub(super) struct Scan {
    pub openings: Openings,
    /// A slot of them that was written and is not readable.
    pub lost_slot: Option<Corrupt>,
    pub files: Vec<FileRoom>,
    pub found: Vec<Found>,
    pub feet: Vec<Foot>,
}

/// Reads everything.
pub(super) fn scan(disk: &mut dyn Disk, folder: &Path) -> Result<Scan, JournalError> {
    let names = match disk.list(folder) {
        Ok(names) => names,
        Err(IoError::NOT_FOUND) => Vec::new(),
        Err(error) => return Err(JournalError::io("list", folder)(error)),
    };
    let has_openings = names.iter().any(|entry| entry.name == layout::OPENINGS_NAME);
    let (openings, lost_slot) = if has_openings { read_openings(disk, folder)? } else { (OpeningsFound::None, None) };
    let list = match &openings {
        OpeningsFound::Newest(openings) => openings.clone(),
        OpeningsFound::None | OpeningsFound::Lost => Openings::default(),
    };
    let mut scan = Scan { openings: list, lost_slot, files: Vec::new(), found: Vec::new(), feet: Vec::new() };
    let mut slots: Vec<u32> = names.iter().filter_map(|entry| layout::slot_of(&entry.name)).collect();
    slots.sort_unstable();
    let mut buffer = Vec::new();
    let mut orphan = None;
    for slot in slots {
        read_file(disk, folder, slot, &mut buffer)?;
        scan.files.push(FileRoom { slot, bytes: buffer.len() as u64 });
        let other = scan.walk(slot, &buffer)?;
        orphan = orphan.or(other.map(|place| (slot, place)));
    }
    let lost = match openings {
        OpeningsFound::Newest(_) => None,
        OpeningsFound::None => orphan,
        OpeningsFound::Lost => Some(orphan.unwrap_or((0, 0))),
    };
    if let Some((slot, place)) = lost {
        return Err(JournalError::Openings(Corrupt {
            file: folder.join(layout::OPENINGS_NAME).display().to_string(),
            place: 0,
            expected: format!("the openings of the entries in {} (the first at byte {place})", layout::file_name(slot)),
            found: "no readable slot".to_string(),
        }));
    }
    Ok(scan)
}

/// What both slots say, and what is wrong with one of them.
fn read_openings(disk: &mut dyn Disk, folder: &Path) -> Result<(OpeningsFound, Option<Corrupt>), JournalError> {
    let path = folder.join(layout::OPENINGS_NAME);
    let file = disk.open(&path, OpenHow { direct: true, ..OpenHow::default() }).map_err(JournalError::io("open", &path))?;
    let mut bytes = vec![0; 2 * BLOCK];
    let read = disk.read(file, 0, &mut bytes);
    disk.close(file);
    read.map_err(JournalError::io("read", &path))?;
    let (first, second) = bytes.split_at(BLOCK);
    let newest = [first, second].into_iter().filter_map(Openings::decode).max_by_key(|openings| openings.version);
    let is_written = |slot: &[u8]| slot.iter().any(|byte| *byte != 0);
    let Some(openings) = newest else {
        let lost = is_written(first) && is_written(second);
        return Ok((if lost { OpeningsFound::Lost } else { OpeningsFound::None }, None));
    };
    // Only the first write of all leaves the other slot empty.
    let is_lost = |slot: &[u8]| Openings::decode(slot).is_none() && (is_written(slot) || openings.version > 1);
    let slot = [first, second].into_iter().position(is_lost);
    let lost_slot = slot.map(|slot| Corrupt {
        file: path.display().to_string(),
        place: (slot * BLOCK) as u64,
        expected: "a slot of the openings".to_string(),
        found: "other bytes; the other slot is readable".to_string(),
    });
    Ok((OpeningsFound::Newest(openings), lost_slot))
}

fn read_file(disk: &mut dyn Disk, folder: &Path, slot: u32, buffer: &mut Vec<u8>) -> Result<(), JournalError> {
    let path = folder.join(layout::file_name(slot));
    let file = disk.open(&path, OpenHow { direct: true, ..OpenHow::default() }).map_err(JournalError::io("open", &path))?;
    let len = disk.len(file).map_err(JournalError::io("measure", &path))?;
    if len > layout::FILE_BYTES_MAX {
        disk.close(file);
        return Err(JournalError::File(Corrupt {
            file: path.display().to_string(),
            place: 0,
            expected: format!("at most {} bytes", layout::FILE_BYTES_MAX),
            found: format!("{len} bytes"),
        }));
    }
    buffer.clear();
    buffer.resize(len as usize / BLOCK * BLOCK, 0);
    let read = disk.read(file, 0, buffer);
    disk.close(file);
    let read = read.map_err(JournalError::io("read", &path))?;
    if read < buffer.len() {
        let (expected, found) = (format!("{} bytes, as the file is long", buffer.len()), format!("{read} bytes"));
        return Err(JournalError::Misread(Corrupt { file: path.display().to_string(), place: 0, expected, found }));
    }
    Ok(())
}

impl Scan {
    /// Notes what is in one file. Gives the place of the first header that is readable and assigned to no incarnation.
    fn walk(&mut self, slot: u32, bytes: &[u8]) -> Result<Option<u64>, JournalError> {
        let mut orphan = None;
        let mut place = 0;
        while let Some(rest) = bytes.get(place..).filter(|rest| !rest.is_empty()) {
            let mut step = BLOCK;
            match Header::decode(rest) {
                Ok(header) if self.may_count(&header) => {
                    if let Some(entry) = rest.get(..header.entry_bytes as usize) {
                        let found = Found { header, slot, place: place as u64, body: body(&header, entry) };
                        if found.is_whole() {
                            step = entry.len();
                        }
                        self.found.push(found);
                    }
                }
                Ok(_) => orphan = orphan.or(Some(place as u64)),
                Err(NoHeader::Newer(format)) => {
                    return Err(JournalError::Newer { file: layout::file_name(slot), place: place as u64, format });
                }
                Err(NoHeader::Magic | NoHeader::Crc(..) | NoHeader::Lengths) => {}
            }
            if step == BLOCK {
                self.feet.extend(self.foot(slot, bytes, place + BLOCK));
            }
            place += step;
        }
        Ok(orphan)
    }

    /// Whether the openings assign the entry to its incarnation, or to none because they are too many.
    fn may_count(&self, header: &Header) -> bool {
        let own = self.openings.incarnation_of(header.sequence);
        !self.openings.list.is_empty() && own.is_none_or(|own| own == header.incarnation)
    }

    /// The contents copy that ends at `end`.
    fn foot(&self, slot: u32, bytes: &[u8], end: usize) -> Option<Foot> {
        let upto = bytes.get(..end)?;
        let told = Trailer::peek(upto)?;
        if self.openings.incarnation_of(told.sequence) != Some(told.incarnation) {
            return None;
        }
        let (trailer, records) = Trailer::decode(upto)?;
        let place = (end as u64).checked_sub(u64::from(trailer.entry_bytes))?;
        let records = contents::decode(records, trailer.count, trailer.payload_bytes)?;
        Some(Foot { sequence: trailer.sequence, slot, place, records })
    }
}

fn body(header: &Header, entry: &[u8]) -> Body {
    let crc = entry.get(HEADER_BYTES..).map_or(0, crc32c);
    let records = records_of(header, entry);
    let is_whole = (crc == header.body_crc && records.is_some()) || is_planted(Bug::IgnoreCrc);
    if is_whole { Body::Whole } else { Body::Broken(crc, records) }
}

/// The records of an entry, from whichever copy of its contents is readable.
pub(super) fn records_of(header: &Header, entry: &[u8]) -> Option<Vec<Record>> {
    let ends = [header.contents_a() + header.contents_bytes as usize, header.entry_bytes as usize];
    ends.into_iter().find_map(|end| {
        let (trailer, records) = Trailer::decode(entry.get(..end)?)?;
        let own = trailer.sequence == header.sequence && trailer.incarnation == header.incarnation;
        if own { contents::decode(records, trailer.count, header.payload_bytes) } else { None }
    })
}
