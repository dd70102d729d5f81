//! One partition: what its journal says and what its folder holds, held against each other as a start would.
//!
//! Invariants: segments are in the order of their bases; the active one is the last, if the journal can say which it is.
//! Knows nothing of the batches in segments.

use crate::directory::Found;
use crate::read_only::ReadOnly;
use millrace_base::fault::Corrupt;
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_io::{Disk, IoError, Pool};
use millrace_log::image::{PendingBytes, Recovered};
use millrace_log::index::Index;
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
    /// As it would go on. None: it would not be served, and `problems` says why.
    pub image: Option<Recovered>,
    pub segments: Vec<SegmentFile>,
    pub problems: Vec<Corrupt>,
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

impl Partition {
    /// `found`: what the journals say, if they say anything. `journals_told`: all journals could be read.
    pub fn load(disk: &mut ReadOnly, data: &Path, id: PartitionId, found: Option<Found>, journals_told: bool) -> Partition {
        let folder = paths::partition(data, id);
        let mut partition = Partition {
            id,
            shard: found.as_ref().map(|found| found.shard),
            folder,
            is_deleted: found.as_ref().is_some_and(|found| found.image.is_deleted()),
            image: None,
            segments: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        match found {
            Some(_) if partition.is_deleted => {
                partition.notes.push(format!("partition {id} is deleted; what is left of it goes at a start"))
            }
            Some(found) => partition.finish(disk, found),
            None if journals_told => {
                let corrupt = partition.corrupt("records of this partition in a journal", "none".to_owned());
                partition.problems.push(corrupt);
            }
            None => partition.notes.push(format!("no readable journal speaks of partition {id}")),
        }
        partition.list(disk);
        partition
    }

    fn corrupt(&self, expected: &str, found: String) -> Corrupt {
        Corrupt { file: self.folder.display().to_string(), place: 0, expected: expected.to_owned(), found }
    }

    fn finish(&mut self, disk: &mut ReadOnly, found: Found) {
        self.problems.extend(found.corrupt);
        let state = found.image.state_file().map(|reference| paths::state(&self.folder, reference.name));
        let bytes = match &state {
            None => None,
            Some(path) => match disk.read_file(path, state_file::HEAD_BYTES + state_file::BODY_BYTES_MAX) {
                Ok(Ok(bytes)) => Some(bytes),
                Ok(Err(corrupt)) => return self.problems.push(corrupt),
                Err(error) => {
                    let expected = "the state file that the journal names".to_owned();
                    let file = path.display().to_string();
                    return self.problems.push(Corrupt { file, place: 0, expected, found: error.to_string() });
                }
            },
        };
        match found.image.finish(bytes.as_deref()) {
            Ok(image) => self.take_extents(disk, image),
            Err(millrace_log::image::ImageError::StateFile(corrupt)) => {
                let file = state.map_or(corrupt.file.clone(), |path| path.display().to_string());
                self.problems.push(Corrupt { file, ..corrupt });
            }
            Err(error) => {
                let corrupt = self.corrupt("a journal that tells the whole partition", error.to_string());
                self.problems.push(corrupt);
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
            Ok(Some(torn)) => self.notes.push(format!(
                "partition {}: the direct append at offset {} was not finished; a start cuts it off ({})",
                self.id, torn.base, torn.found
            )),
            Err(corrupt) => self.problems.push(corrupt),
        }
        self.image = Some(image);
    }

    fn list(&mut self, disk: &mut ReadOnly) {
        let names: Vec<String> = match disk.list(&self.folder) {
            Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
            Err(IoError::NOT_FOUND) => Vec::new(),
            Err(error) => {
                let corrupt = self.corrupt("a folder that can be read", error.to_string());
                return self.problems.push(corrupt);
            }
        };
        let active = self.image.as_ref().map(|image| image.segment);
        let state = self.image.as_ref().and_then(|image| image.state_file);
        let log_start = self.image.as_ref().map_or(0, |image| image.log_start);
        let inventory = segments::inventory(names.iter().map(String::as_str), log_start, active.unwrap_or(Offset::MAX), state);
        let kind = if active.is_some() { Kind::Closed } else { Kind::Unknown };
        self.segments = inventory.closed.iter().map(|base| SegmentFile { base: *base, kind }).collect();
        let Some(active) = active else { return };
        self.segments.push(SegmentFile { base: active, kind: Kind::Active });
        for name in &inventory.leftovers {
            self.notes.push(format!("{} is a leftover; it goes at a start", self.folder.join(name).display()));
        }
        for base in &inventory.without_index {
            self.notes.push(format!("{} is not there; it is made again at a start", paths::index(&self.folder, *base).display()));
        }
    }

    pub fn segment_path(&self, base: Offset) -> PathBuf {
        paths::segment(&self.folder, base)
    }

    /// The index of a segment: the active one's from the journal, a closed one's from its file. None when there is none to go by; damage
    /// is added to `problems`.
    pub fn index(&mut self, disk: &mut ReadOnly, segment: SegmentFile) -> Option<Index> {
        if segment.kind == Kind::Active {
            let image = self.image.as_ref().filter(|image| image.cut.is_none());
            return image.map(|image| image.large.index.clone());
        }
        let path = paths::index(&self.folder, segment.base);
        let file = path.display().to_string();
        match disk.read_file(&path, INDEX_BYTES_MAX) {
            Ok(Ok(bytes)) => match Index::decode(&bytes, segment.base, &file) {
                Ok(index) => return Some(index),
                Err(_) if self.is_newest_closed(segment) && is_unfinished(&bytes) => {
                    self.notes.push(format!("{file} was not finished; it is made again at a start"));
                }
                Err(corrupt) => self.problems.push(corrupt),
            },
            Ok(Err(corrupt)) => self.problems.push(corrupt),
            Err(IoError::NOT_FOUND) => {}
            Err(error) => {
                self.problems.push(Corrupt { file, place: 0, expected: "an index that can be read".to_owned(), found: error.to_string() });
            }
        }
        None
    }

    fn is_newest_closed(&self, segment: SegmentFile) -> bool {
        self.segments.iter().rfind(|other| other.kind != Kind::Active).is_some_and(|newest| newest.base == segment.base)
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
