//! One partition: what its journal says and what its folder holds, held against each other as a start would.
//!
//! Invariants: segments are in the order of their bases; the active one is the last, if the journal can say which it is.
//! Knows nothing of the batches in segments.

use crate::Outcome;
use crate::directory::Found;
use crate::problem::{AtStart, Problem};
use crate::read_only::ReadOnly;
use millrace_base::fault::Corrupt;
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_io::{Disk, IoError, Pool};
use millrace_log::image::{ImageError, PendingBytes, Recovered};
use millrace_log::index::Index;
use millrace_log::paths::Named;
use millrace_log::{extent, paths, segments, state_file};
use std::path::{Path, PathBuf};

/// More than an index file has: 65,536 entries of 20 bytes in checksummed blocks.
pub const INDEX_BYTES_MAX: usize = 2 << 20;

pub struct Partition {
    pub id: PartitionId,
    /// None: no journal knows it.
    pub shard: Option<ShardId>,
    pub folder: PathBuf,
    /// Its state says that it is to be removed.
    pub is_deleted: bool,
    /// As it would go on; if it is damaged, as far as it is intact. None: it would not be served, and `problems` says why.
    pub image: Option<Recovered>,
    /// Nothing is appended behind the image, nor is anything tidied up.
    pub is_damaged: bool,
    /// A write that was not finished is cut off at a start.
    pub is_torn: bool,
    pub segments: Vec<SegmentFile>,
    pub problems: Vec<Problem>,
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Closed,
    /// Its index is in the journal.
    Active,
    /// The journal cannot say.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub struct SegmentFile {
    pub base: Offset,
    pub kind: Kind,
}

/// What there is of an index. Neither index nor problem: there is none to go by.
#[derive(Default)]
pub struct IndexFound {
    pub index: Option<Index>,
    pub problem: Option<Problem>,
    pub note: Option<String>,
}

impl Partition {
    /// `found`: what the journals say, if they say anything. `journals_told`: all journals could be read. `is_live`: a broker runs on it, and
    /// what the journals say may have changed while it was read.
    pub fn load(disk: &mut ReadOnly, data: &Path, id: PartitionId, found: Option<Found>, journals_told: bool, is_live: bool) -> Partition {
        let folder = paths::partition(data, id);
        let mut partition = Partition {
            id,
            shard: found.as_ref().map(|found| found.shard),
            folder,
            is_deleted: found.as_ref().is_some_and(|found| found.image.is_deleted()),
            image: None,
            is_damaged: false,
            is_torn: false,
            segments: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        match found {
            Some(_) if partition.is_deleted => {
                partition.notes.push(format!("partition {id} is deleted; what is left of it goes at a start"))
            }
            Some(found) => partition.finish(disk, found, is_live),
            None if journals_told => {
                let corrupt = partition.corrupt("records of this partition in a journal", "none".to_owned());
                partition.problem(corrupt, AtStart::Offline);
            }
            None => partition.notes.push(format!("no readable journal speaks of partition {id}")),
        }
        if is_live {
            partition.forget_live();
        }
        partition.list(disk);
        if is_live {
            partition.notes.clear(); // what would be left over is in use
        }
        partition
    }

    /// What looks wrong in a journal that is written meanwhile is not judged.
    fn forget_live(&mut self) {
        if !self.problems.is_empty() {
            self.problems.clear();
            self.image = None; // which segment is the active one is not known then
        }
        (self.is_damaged, self.is_torn) = (false, false);
    }

    fn corrupt(&self, expected: &str, found: String) -> Corrupt {
        Corrupt { file: self.folder.display().to_string(), place: 0, expected: expected.to_owned(), found }
    }

    fn problem(&mut self, corrupt: Corrupt, at_start: AtStart) {
        self.is_damaged |= at_start == AtStart::Partial;
        self.problems.push(Problem::new(corrupt, at_start));
    }

    fn finish(&mut self, disk: &mut ReadOnly, found: Found, is_live: bool) {
        if let Some(corrupt) = found.corrupt {
            self.problem(corrupt, AtStart::Partial);
        }
        let state = found.image.state_file().map(|reference| paths::state(&self.folder, reference.name));
        let bytes = state.as_ref().and_then(|path| {
            let error = match disk.read_file(path, state_file::HEAD_BYTES + state_file::BODY_BYTES_MAX) {
                Ok(Ok(bytes)) => return Some(bytes),
                Ok(Err(corrupt)) => corrupt,
                Err(error) => {
                    let (file, expected) = (path.display().to_string(), "the state file that the journal names".to_owned());
                    Corrupt { file, place: 0, expected, found: error.to_string() }
                }
            };
            self.problem(error, AtStart::Partial);
            None
        });
        let told = !self.problems.is_empty();
        let error = match found.image.finish_intact(bytes.as_deref()) {
            Ok((image, damage)) if is_live => {
                self.image = Some(image); // writes straight to segments may be under way
                damage
            }
            Ok((image, damage)) => {
                self.take_extents(disk, image);
                damage
            }
            Err(error) => Some(error),
        };
        let at_start = if self.image.is_some() { AtStart::Partial } else { AtStart::Offline };
        match error {
            None => {}
            Some(ImageError::StateFile(_)) if bytes.is_none() => {}
            Some(ImageError::StateFile(corrupt)) => {
                let file = state.map_or(corrupt.file.clone(), |path| path.display().to_string());
                self.problem(Corrupt { file, ..corrupt }, at_start);
            }
            Some(_) if told && self.image.is_some() => {}
            Some(error) => {
                let corrupt = self.corrupt("a journal that tells the whole partition", error.to_string());
                self.problem(corrupt, at_start);
            }
        }
        let Some(image) = &self.image else { return };
        if let Some(cut) = image.cut {
            self.notes.push(format!("partition {}: its segments are still to be cut at offset {cut}", self.id));
        }
    }

    /// As at a start: what was written straight to segments is read, what was not finished is cut off.
    fn take_extents(&mut self, disk: &mut ReadOnly, mut image: Recovered) {
        let pool = Pool::new(0);
        let folder = &self.folder;
        let taken = image.take_extents(|direct, begin| extent::find(disk, &paths::segment(folder, direct.segment), direct, begin, &pool));
        match taken {
            Ok(None) => {}
            Ok(Some(torn)) => {
                self.is_torn = true;
                self.notes.push(format!(
                    "partition {}: the direct append at offset {} was not finished; a start cuts it off ({})",
                    self.id, torn.base, torn.found
                ));
            }
            Err(corrupt) => self.problem(corrupt, AtStart::Partial),
        }
        self.image = Some(image);
    }

    fn list(&mut self, disk: &mut ReadOnly) {
        let names: Vec<String> = match disk.list(&self.folder) {
            Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
            Err(IoError::NOT_FOUND) => Vec::new(),
            Err(error) => {
                let corrupt = self.corrupt("a folder that can be read", error.to_string());
                return self.problem(corrupt, AtStart::Offline);
            }
        };
        let active = self.image.as_ref().map(|image| image.segment);
        let state = self.image.as_ref().and_then(|image| image.state_file).map(|file| file.name());
        let log_start = self.image.as_ref().map_or(0, |image| image.log_start);
        let inventory = segments::inventory(names.iter().map(String::as_str), log_start, active.unwrap_or(Offset::MAX), state);
        let kind = if active.is_some() { Kind::Closed } else { Kind::Unknown };
        self.segments = inventory.closed.iter().map(|base| SegmentFile { base: *base, kind }).collect();
        let Some(active) = active else { return };
        self.segments.push(SegmentFile { base: active, kind: Kind::Active });
        if self.is_damaged {
            // What lies behind the damage stays; a start does not touch it.
            let behind = names.iter().filter_map(|name| paths::named(name)).filter_map(|named| match named {
                Named::Segment(base) if base > active => Some(SegmentFile { base, kind: Kind::Unknown }),
                Named::Segment(_) | Named::Index(_) | Named::State(_) => None,
            });
            self.segments.extend(behind);
            return self.segments.sort_by_key(|segment| segment.base);
        }
        for name in &inventory.leftovers {
            self.notes.push(format!("{} is a leftover; it goes at a start", self.folder.join(name).display()));
        }
        for base in &inventory.without_index {
            self.notes.push(format!("{} is not there; it is made again at a start", paths::index(&self.folder, *base).display()));
        }
    }

    /// The byte at which the batches of a segment end, where the journal says it.
    pub fn batches_end(&self, segment: SegmentFile) -> Option<u64> {
        let image = self.image.as_ref().filter(|image| segment.kind == Kind::Active && image.cut.is_none())?;
        Some(image.segment_bytes)
    }

    pub fn segment_path(&self, base: Offset) -> PathBuf {
        paths::segment(&self.folder, base)
    }

    /// The index of a segment: the active one's from the journal, a closed one's from its file.
    pub fn index(&self, disk: &mut ReadOnly, segment: SegmentFile) -> IndexFound {
        let mut found = IndexFound::default();
        if segment.kind == Kind::Active {
            let image = self.image.as_ref().filter(|image| image.cut.is_none() && !image.is_large_lost);
            found.index = image.map(|image| image.large.index.clone());
            return found;
        }
        let path = paths::index(&self.folder, segment.base);
        let file = path.display().to_string();
        let corrupt = match disk.read_file(&path, INDEX_BYTES_MAX) {
            Ok(Ok(bytes)) => match Index::decode(&bytes, segment.base, &file) {
                Ok(index) => {
                    found.index = Some(index);
                    return found;
                }
                Err(_) if self.is_newest_closed(segment) && is_unfinished(&bytes) => {
                    found.note = Some(format!("{file} was not finished; it is made again at a start"));
                    return found;
                }
                Err(corrupt) => corrupt,
            },
            Ok(Err(corrupt)) => corrupt,
            Err(IoError::NOT_FOUND) => return found,
            Err(error) => Corrupt { file, place: 0, expected: "an index that can be read".to_owned(), found: error.to_string() },
        };
        found.problem = Some(Problem::new(corrupt, AtStart::MadeAgain));
        found
    }

    /// As long as the file of a segment is; 0 if it cannot be asked.
    pub fn file_bytes(&self, segment: SegmentFile) -> u64 {
        std::fs::metadata(self.segment_path(segment.base)).map_or(0, |about| about.len())
    }

    fn is_newest_closed(&self, segment: SegmentFile) -> bool {
        self.segments.iter().rfind(|other| other.kind != Kind::Active).is_some_and(|newest| newest.base == segment.base)
    }

    pub fn outcome(&self) -> Outcome {
        match (self.problems.is_empty(), self.is_torn) {
            (false, _) => Outcome::Damaged,
            (true, true) => Outcome::Torn,
            (true, false) => Outcome::Clean,
        }
    }

    /// Bytes of batches that only the journal holds.
    pub fn pending_bytes(&self) -> u64 {
        let bytes = |bytes: &PendingBytes| match bytes {
            PendingBytes::Journal(slice) => slice.len() as u64,
            PendingBytes::Direct(direct) => direct.bytes + direct.tail.len() as u64,
        };
        self.image.iter().flat_map(|image| &image.pending).map(|pending| bytes(&pending.bytes)).sum()
    }
}

/// What a crash leaves of an index that was being written: fewer blocks, or blocks that never came.
fn is_unfinished(bytes: &[u8]) -> bool {
    bytes.is_empty() || bytes.chunks(BLOCK).any(|block| block.len() < BLOCK || block.iter().all(|byte| *byte == 0))
}
