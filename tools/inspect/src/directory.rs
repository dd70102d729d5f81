//! A data directory as the broker would recover it at its next start, without changing it.
//!
//! 1. Whose it is (`millrace.meta`), and whether a broker runs on it.
//! 2. Each shard's journal through [`journal::recover`]; its records folded into partition images, oldest first.
//! 3. Replica set 0, if it is here, is read for the names of topics.
//! 4. What cannot be is kept as [`Problem`], with file and place.
//!
//! Invariants: images are what a start would make: the same records in the same order, damaged where an entry of theirs is.
//! Knows nothing of segments.

use crate::error::InspectError;
use crate::names::Names;
use crate::partition::Partition;
use crate::problem::{AtStart, Problem};
use crate::read_only::{ReadOnly, check_plain};
use millrace_base::fault::Corrupt;
use millrace_base::ids::{META_PARTITION, PartitionId, ShardId};
use millrace_io::{Disk, IoError, Pool};
use millrace_log::image::PartitionImage;
use millrace_log::journal::{self, Damage, JournalError, Record, RecoveredEntry, Torn, Touched, Verdict, layout};
use millrace_log::paths::{self, Meta, MetaError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The file that a running broker holds locked.
const LOCK_NAME: &str = "millrace.lock";
/// Journals for another number of shards, made and not yet in their place; and those that they replace.
const JOURNALS_NEXT: &str = "journal.next";
const JOURNALS_OLD: &str = "journal.old";

/// How often the journal of a running broker is read until it does not look damaged.
const LIVE_READINGS: usize = 5;

pub struct Directory {
    pub path: PathBuf,
    pub meta: Result<Meta, Problem>,
    pub is_in_use: bool,
    pub journals: BTreeMap<ShardId, Journal>,
    /// What journals say of partitions that were not taken yet.
    partitions: BTreeMap<PartitionId, Found>,
    /// Replica set 0, until it is taken.
    set: Option<Partition>,
    pub names: Names,
    /// Of interest, and no damage.
    pub notes: Vec<String>,
}

pub struct Journal {
    pub folder: PathBuf,
    pub found: Result<journal::Recovered, Problem>,
}

/// What the journals say of one partition.
pub struct Found {
    pub shard: ShardId,
    pub image: PartitionImage,
    /// The first record that cannot be.
    pub corrupt: Option<Corrupt>,
}

impl Directory {
    /// Whether `path` has anything that only a data directory of ours has.
    pub fn is_one(disk: &mut ReadOnly, path: &Path) -> bool {
        // Kafka's folder of a topic `journal` is `journal-0`.
        let is_journal = |name: &str| matches!(name, "journal" | "journal.next" | "journal.old");
        let is_ours = |name: &str| name == paths::META_NAME || is_journal(name) || paths::topic_named(name).is_some();
        disk.list(path).is_ok_and(|names| names.iter().any(|entry| is_ours(&entry.name)))
    }

    /// # Errors
    /// `path` is no data directory, or cannot be read.
    pub fn open(disk: &mut ReadOnly, path: &Path) -> Result<Directory, InspectError> {
        let names = disk.list(path).map_err(InspectError::io("list", path))?;
        if !Directory::is_one(disk, path) {
            let text = format!(
                "{} is no data directory: it has neither {} nor {} or a segment of Kafka's; name one of log.dirs, or a folder of segments",
                path.display(),
                paths::META_NAME,
                crate::kafka::directory::PROPERTIES_NAME
            );
            return Err(InspectError::Usage(text));
        }
        let meta = read_meta(disk, path)?;
        let mut directory = Directory {
            path: path.to_owned(),
            meta,
            is_in_use: is_in_use(path),
            journals: BTreeMap::new(),
            partitions: BTreeMap::new(),
            set: None,
            names: Names::default(),
            notes: Vec::new(),
        };
        let has = |name: &str| names.iter().any(|entry| entry.name == name);
        let mut folder = paths::journals(path);
        if !has("journal") && has(JOURNALS_NEXT) && has(JOURNALS_OLD) {
            directory.notes.push(format!("{}: a start has still to put {JOURNALS_NEXT} in its place; it is what is read", path.display()));
            folder = path.join(JOURNALS_NEXT);
        }
        directory.recover(disk, &folder)?;
        directory.read_names(disk);
        Ok(directory)
    }

    fn read_names(&mut self, disk: &mut ReadOnly) {
        if self.partitions.contains_key(&META_PARTITION) || paths::partition(&self.path, META_PARTITION).is_dir() {
            let set = self.load(disk, META_PARTITION);
            self.names = Names::read(disk, &set);
            self.notes.extend(self.names.note.take());
            self.set = Some(set);
        }
    }

    fn load(&mut self, disk: &mut ReadOnly, id: PartitionId) -> Partition {
        let told = self.is_told_in_full();
        let found = self.partitions.remove(&id);
        Partition::load(disk, &self.path, id, found, told, self.is_in_use)
    }

    /// A partition, once.
    pub fn take(&mut self, disk: &mut ReadOnly, id: PartitionId) -> Partition {
        match self.set.take_if(|_| id == META_PARTITION) {
            Some(set) => set,
            None => self.load(disk, id),
        }
    }

    /// Every partition that a journal or a folder speaks of.
    ///
    /// # Errors
    /// The system's.
    pub fn ids(&self, disk: &mut ReadOnly) -> Result<BTreeSet<PartitionId>, InspectError> {
        let mut ids: BTreeSet<PartitionId> = self.folders(disk)?.into_iter().collect();
        ids.extend(self.partitions.keys());
        ids.extend(self.set.as_ref().map(|set| set.id));
        Ok(ids)
    }

    /// All of them.
    ///
    /// # Errors
    /// The system's.
    pub fn take_all(&mut self, disk: &mut ReadOnly) -> Result<Vec<Partition>, InspectError> {
        Ok(self.ids(disk)?.into_iter().map(|id| self.take(disk, id)).collect())
    }

    fn recover(&mut self, disk: &mut ReadOnly, folder: &Path) -> Result<(), InspectError> {
        let entries = match disk.list(folder) {
            Ok(entries) => entries,
            Err(IoError::NOT_FOUND) => Vec::new(),
            Err(error) => return Err(InspectError::io("list", folder)(error)),
        };
        let pool = Pool::new(0);
        for shard in entries.iter().filter(|entry| entry.is_directory).filter_map(|entry| paths::shard_named(&entry.name)) {
            let folder = folder.join(shard.to_string());
            self.note_openings(disk, &folder);
            let found = self.recover_one(disk, &folder, &pool);
            if let Ok(recovered) = &found {
                self.fold(shard, &folder, recovered);
            }
            self.journals.insert(shard, Journal { folder, found });
        }
        Ok(())
    }

    /// A running broker uses files again while they are read, which looks like damage: it is read again then.
    fn recover_one(&self, disk: &mut ReadOnly, folder: &Path, pool: &Pool) -> Result<journal::Recovered, Problem> {
        let mut readings = if self.is_in_use { LIVE_READINGS } else { 1 };
        loop {
            let found = journal::recover(disk, folder, pool, 0);
            readings -= 1;
            match found {
                Ok(found) if readings > 0 && !damage(&found.verdict).is_empty() => {}
                Err(_) if readings > 0 => {}
                found => return found.map_err(|error| in_file(error, folder)),
            }
        }
    }

    /// One slot of two is enough, so that recovery says nothing of the other.
    fn note_openings(&mut self, disk: &mut ReadOnly, folder: &Path) {
        let path = folder.join(layout::OPENINGS_NAME);
        let Ok(Ok(bytes)) = disk.read_file(&path, OPENINGS_FILE_BYTES) else { return };
        for (slot, bytes) in bytes.chunks(millrace_base::limits::BLOCK).enumerate() {
            if layout::Openings::decode(bytes).is_none() {
                let place = slot * millrace_base::limits::BLOCK;
                self.notes.push(format!(
                    "{} at byte {place}: expected a slot of openings, found none that is readable; the other one counts (a start that is cut off leaves this too)",
                    path.display()
                ));
            }
        }
    }

    fn fold(&mut self, shard: ShardId, folder: &Path, recovered: &journal::Recovered) {
        let mut damaged = damage(&recovered.verdict).iter().peekable();
        for entry in &recovered.entries {
            while let Some(damage) = damaged.next_if(|damage| damage.first < entry.sequence) {
                self.mark_damaged(shard, damage);
            }
            let mut stated = entry.extents_stated(recovered.extents_durable);
            for record in &entry.records {
                let found = self.found(shard, record.partition());
                if let Err(error) = found.image.apply(record, &entry.payload, entry.sequence) {
                    found.corrupt = Some(Corrupt {
                        file: entry_file(folder, entry),
                        place: entry.place,
                        expected: format!("in entry {}, a record that follows on what came before", entry.sequence),
                        found: format!("of partition {}: {error}", record.partition()),
                    });
                }
                if matches!(record, Record::Extent { .. }) && stated > 0 {
                    found.image.extent_is_stated();
                    stated -= 1;
                }
            }
        }
        damaged.for_each(|damage| self.mark_damaged(shard, damage));
    }

    fn mark_damaged(&mut self, shard: ShardId, damage: &Damage) {
        let touched: Vec<PartitionId> = match &damage.touched {
            Touched::Partitions(partitions) => partitions.iter().copied().collect(),
            Touched::All => self.partitions.iter().filter(|(_, found)| found.shard == shard).map(|(id, _)| *id).collect(),
        };
        for id in touched {
            self.found(shard, id).image.damaged_at(damage, id);
        }
    }

    fn found(&mut self, shard: ShardId, id: PartitionId) -> &mut Found {
        self.partitions.entry(id).or_insert_with(|| Found { shard, image: PartitionImage::new(), corrupt: None })
    }

    /// The partitions that have a folder.
    ///
    /// # Errors
    /// The system's.
    fn folders(&self, disk: &mut ReadOnly) -> Result<Vec<PartitionId>, InspectError> {
        let mut ids = Vec::new();
        for entry in disk.list(&self.path).map_err(InspectError::io("list", &self.path))? {
            let Some(topic) = paths::topic_named(&entry.name).filter(|_| entry.is_directory) else { continue };
            let folder = paths::topic(&self.path, topic);
            for entry in disk.list(&folder).map_err(InspectError::io("list", &folder))? {
                let index = paths::partition_named(&entry.name).filter(|_| entry.is_directory);
                ids.extend(index.map(|index| PartitionId { topic, index }));
            }
        }
        Ok(ids)
    }

    /// Whether every journal could be read as a whole, so that what they do not say is not there.
    pub fn is_told_in_full(&self) -> bool {
        let whole = |journal: &Journal| {
            journal.found.as_ref().is_ok_and(|found| !damage(&found.verdict).iter().any(|damage| damage.touched == Touched::All))
        };
        self.journals.values().all(whole)
    }
}

const OPENINGS_FILE_BYTES: usize = 2 * millrace_base::limits::BLOCK;

/// The damage in a verdict.
pub fn damage(verdict: &Verdict) -> &[Damage] {
    match verdict {
        Verdict::Clean | Verdict::Torn(_) => &[],
        Verdict::Damaged { each, .. } => each,
    }
}

/// The torn end in a verdict.
pub fn torn(verdict: &Verdict) -> Option<&Torn> {
    match verdict {
        Verdict::Torn(torn) | Verdict::Damaged { torn: Some(torn), .. } => Some(torn),
        Verdict::Clean | Verdict::Damaged { torn: None, .. } => None,
    }
}

/// The path of the file that holds `entry`.
pub fn entry_file(folder: &Path, entry: &RecoveredEntry) -> String {
    folder.join(layout::file_name(entry.slot)).display().to_string()
}

fn in_file(error: JournalError, folder: &Path) -> Problem {
    let text = error.to_string();
    let at_start = if matches!(error, JournalError::Newer { .. }) { AtStart::Refused } else { AtStart::DirectoryOffline };
    let corrupt = match error {
        JournalError::Openings(corrupt) | JournalError::File(corrupt) | JournalError::Misread(corrupt) => corrupt,
        JournalError::Newer { file, place, format } => Corrupt {
            file: folder.join(file).display().to_string(),
            place,
            expected: format!("format {} or older", layout::FORMAT),
            found: format!("format {format}: inspect it with the version that wrote it"),
        },
        JournalError::Io { path, .. } => {
            Corrupt { file: path.display().to_string(), place: 0, expected: "a file that can be read".to_owned(), found: text }
        }
    };
    Problem::new(corrupt, at_start)
}

fn read_meta(disk: &mut ReadOnly, data: &Path) -> Result<Result<Meta, Problem>, InspectError> {
    let path = paths::meta(data);
    let file = path.display().to_string();
    let found = match disk.read_file(&path, paths::META_BYTES_MAX) {
        Ok(Ok(bytes)) => Meta::decode(&bytes).map_err(|error| {
            let at_start = if matches!(error, MetaError::Newer { .. }) { AtStart::Refused } else { AtStart::DirectoryOffline };
            Problem::new(meta_corrupt(&error, &bytes, file), at_start)
        }),
        Ok(Err(corrupt)) => Err(Problem::new(corrupt, AtStart::DirectoryOffline)),
        Err(error) => {
            let corrupt = Corrupt { file, place: 0, expected: "the file that says whose this is".to_owned(), found: error.to_string() };
            Err(Problem::new(corrupt, AtStart::DirectoryOffline))
        }
    };
    Ok(found)
}

/// A fault in `millrace.meta` with the byte at which its line begins.
pub fn meta_corrupt(error: &MetaError, bytes: &[u8], file: String) -> Corrupt {
    match error {
        MetaError::Newer { format } => {
            let (expected, found) = (format!("format {} or older", paths::FORMAT), format!("format {format}"));
            Corrupt { file, place: 0, expected, found }
        }
        MetaError::Corrupt { line, expected, found } => {
            let before = bytes.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1));
            let place = before.map(|line| line.len() as u64).sum();
            Corrupt { file, place, expected: (*expected).to_owned(), found: format!("{found:?}") }
        }
    }
}

/// Whether a broker holds the lock. It is looked at, shared and for an instant, and never made.
fn is_in_use(data: &Path) -> bool {
    let path = data.join(LOCK_NAME);
    if check_plain(&path).is_err() {
        return false;
    }
    let Ok(file) = fs::File::open(&path) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}
