//! What lies in a directory of Kafka's, or in one folder of segments.
//!
//! Invariants: segments are in the order of their bases; nothing is opened but plain files.

use super::formats::{self, Wrong};
use crate::commands::Meaning;
use crate::error::InspectError;
use crate::log::{Log, LogFile};
use crate::read_only::ReadOnly;
use crate::segment::KAFKA_BATCH_BYTES_MAX;
use millrace_base::fault::Corrupt;
use millrace_base::ids::Uuid;
use millrace_base::offset::Offset;
use millrace_io::Disk;
use std::path::{Path, PathBuf};

/// More than a small text file of Kafka's has.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
/// More than an index of one segment has: `segment.index.bytes` is a number of 31 bits, but a segment of 2 GiB fills no more than this.
pub const INDEX_BYTES_MAX: usize = 64 << 20;

pub const PROPERTIES_NAME: &str = "meta.properties";
pub const EPOCHS_NAME: &str = "leader-epoch-checkpoint";
pub const PARTITION_NAME: &str = "partition.metadata";
/// Beside the partitions; each line a partition's offset.
pub const OFFSETS_NAMES: [&str; 4] =
    ["recovery-point-offset-checkpoint", "replication-offset-checkpoint", "log-start-offset-checkpoint", "cleaner-offset-checkpoint"];
/// A clean stop leaves it.
const CLEAN_NAME: &str = ".kafka_cleanshutdown";

/// A directory of `log.dirs`, or one folder as if it were one.
pub struct KafkaDirectory {
    pub path: PathBuf,
    /// Lines of `meta.properties`.
    pub properties: Vec<(String, String)>,
    /// Whether it was stopped cleanly. None: it is one folder, nothing says it.
    pub is_clean: Option<bool>,
    pub is_in_use: bool,
    pub partitions: Vec<KafkaPartition>,
    pub problems: Vec<Corrupt>,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct KafkaPartition {
    pub folder: PathBuf,
    pub topic: String,
    pub index: u32,
    pub topic_id: Option<Uuid>,
    /// Bases of `.log` files, in order.
    pub segments: Vec<Offset>,
    /// All plain files, by name.
    pub files: Vec<String>,
    pub log_start: Offset,
    /// One segment alone.
    pub is_part: bool,
}

impl KafkaPartition {
    pub fn name(&self) -> String {
        format!("{}-{}", self.topic, self.index)
    }

    pub fn path(&self, base: Offset, kind: &str) -> PathBuf {
        self.folder.join(format!("{base:020}.{kind}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }

    /// As a log to be read from begin to end.
    pub fn log(&self) -> Log {
        let ends = self.segments.iter().skip(1).copied().chain([Offset::MAX]);
        let file = |(base, below): (&Offset, Offset)| LogFile {
            path: self.path(*base, "log"),
            base: *base,
            below,
            end: None,
            is_closed: false,
            batch_bytes_max: KAFKA_BATCH_BYTES_MAX,
        };
        Log {
            topic: self.topic.clone(),
            topic_id: self.topic_id,
            partition: self.index,
            meaning: Meaning::of(None, Some(&self.topic)),
            log_start: self.log_start,
            files: self.segments.iter().zip(ends).map(file).collect(),
            pending: Vec::new(),
            is_damaged: false,
            may_have_gaps: true,
            reached: None,
            is_part: self.is_part,
            id: None,
        }
    }
}

/// Topic and partition in a folder's name; None: it is none of a partition, or of one that is going away.
pub fn partition_named(name: &str) -> Option<(&str, u32)> {
    let (topic, index) = name.rsplit_once('-')?;
    let index: u32 = millrace_log::paths::partition_named(index)?;
    (!topic.is_empty()).then_some((topic, index))
}

/// The base offset in a file's name, if it has one of `kind`.
pub fn base_of(name: &str, kind: &str) -> Option<Offset> {
    let digits = name.strip_suffix(kind)?.strip_suffix('.')?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub fn in_file(wrong: Wrong, path: &Path) -> Corrupt {
    Corrupt { file: path.display().to_string(), place: wrong.place, expected: wrong.expected, found: wrong.found }
}

impl KafkaDirectory {
    /// Whether `path` looks like a directory of Kafka's: it names whose it is, or has a folder of a partition with a segment.
    pub fn is_one(disk: &mut ReadOnly, path: &Path) -> bool {
        let Ok(entries) = disk.list(path) else { return false };
        entries.iter().any(|entry| entry.name == PROPERTIES_NAME || OFFSETS_NAMES.contains(&entry.name.as_str()))
            || entries
                .iter()
                .filter(|entry| entry.is_directory && partition_named(&entry.name).is_some())
                .any(|entry| is_folder(disk, &path.join(&entry.name)))
    }

    /// # Errors
    /// It cannot be listed.
    pub fn open(disk: &mut ReadOnly, path: &Path) -> Result<KafkaDirectory, InspectError> {
        let entries = disk.list(path).map_err(InspectError::io("list", path))?;
        let has = |name: &str| entries.iter().any(|entry| entry.name == name && !entry.is_directory);
        let mut directory = KafkaDirectory {
            path: path.to_owned(),
            properties: Vec::new(),
            is_clean: Some(has(CLEAN_NAME)),
            is_in_use: is_locked(&path.join(".lock")),
            partitions: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        if has(PROPERTIES_NAME) {
            directory.read_properties(disk);
        } else {
            directory.notes.push(format!("{} has no {PROPERTIES_NAME}: whose it is is not known", path.display()));
        }
        let starts = directory.read_checkpoints(disk, &has);
        for entry in entries.iter().filter(|entry| entry.is_directory) {
            match partition_named(&entry.name) {
                Some((topic, index)) => {
                    let start = starts.iter().find(|(name, number, _)| name == topic && *number == index).map_or(0, |(_, _, start)| *start);
                    directory.partition(disk, &path.join(&entry.name), topic, index, start);
                }
                None if entry.name.ends_with("-delete") || entry.name.ends_with("-future") || entry.name.ends_with("-stray") => {
                    directory
                        .notes
                        .push(format!("{} is going away or still being made; it is passed over", path.join(&entry.name).display()));
                }
                None => {}
            }
        }
        directory.partitions.sort_by(|one, other| (&one.topic, one.index).cmp(&(&other.topic, other.index)));
        Ok(directory)
    }

    /// One folder of segments.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn of_folder(disk: &mut ReadOnly, folder: &Path) -> Result<KafkaDirectory, InspectError> {
        disk.list(folder).map_err(InspectError::io("list", folder))?;
        let mut directory = KafkaDirectory::empty(folder);
        let name = folder.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        // `topic-3`, or in a data directory of ours `ID/3`.
        let above = folder.parent().and_then(Path::file_name).map_or(String::new(), |name| name.to_string_lossy().into_owned());
        let index = millrace_log::paths::partition_named(&name);
        let (topic, index) = match (partition_named(&name), index) {
            (Some((topic, index)), _) => (topic.to_owned(), index),
            (None, Some(index)) if !above.is_empty() => (above, index),
            _ => (if name.is_empty() { "folder".to_owned() } else { name }, 0),
        };
        directory.partition(disk, folder, &topic, index, 0);
        Ok(directory)
    }

    /// One segment file, as if it were alone in its folder.
    pub fn of_file(path: &Path, base: Offset) -> KafkaDirectory {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut directory = KafkaDirectory::empty(path);
        let file = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        directory.partitions.push(KafkaPartition {
            folder,
            topic: "file".to_owned(),
            index: 0,
            topic_id: None,
            segments: vec![base],
            files: vec![file],
            log_start: 0,
            is_part: true,
        });
        directory
    }

    fn empty(path: &Path) -> KafkaDirectory {
        KafkaDirectory {
            path: path.to_owned(),
            properties: Vec::new(),
            is_clean: None,
            is_in_use: false,
            partitions: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A small file, or why there is none.
    fn small(&mut self, disk: &mut ReadOnly, path: &Path) -> Option<Vec<u8>> {
        match disk.read_file(path, TEXT_BYTES_MAX) {
            Ok(Ok(bytes)) => Some(bytes),
            Ok(Err(corrupt)) => {
                self.problems.push(corrupt);
                None
            }
            Err(error) => {
                let (file, expected) = (path.display().to_string(), "a file that can be read".to_owned());
                self.problems.push(Corrupt { file, place: 0, expected, found: error.to_string() });
                None
            }
        }
    }

    fn read_properties(&mut self, disk: &mut ReadOnly) {
        let path = self.path.join(PROPERTIES_NAME);
        let Some(bytes) = self.small(disk, &path) else { return };
        let text = String::from_utf8_lossy(&bytes);
        let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        self.properties = pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect();
        for key in ["cluster.id", "node.id"] {
            let is_there = self.properties.iter().any(|(other, _)| other == key || (key == "node.id" && other == "broker.id"));
            if !is_there {
                let (file, expected) = (path.display().to_string(), format!("a line with {key}"));
                self.problems.push(Corrupt { file, place: 0, expected, found: "none".to_owned() });
            }
        }
    }

    /// Gives what the checkpoint of log starts says.
    fn read_checkpoints(&mut self, disk: &mut ReadOnly, has: &dyn Fn(&str) -> bool) -> Vec<(String, u32, Offset)> {
        let mut starts = Vec::new();
        for name in OFFSETS_NAMES.iter().filter(|name| has(name)) {
            let path = self.path.join(name);
            let Some(bytes) = self.small(disk, &path) else { continue };
            match formats::offsets(&bytes) {
                Ok(list) if *name == "log-start-offset-checkpoint" => starts = list,
                Ok(_) => {}
                Err(wrong) => self.problems.push(in_file(wrong, &path)),
            }
        }
        starts
    }

    fn partition(&mut self, disk: &mut ReadOnly, folder: &Path, topic: &str, index: u32, log_start: Offset) {
        let files: Vec<String> = match disk.list(folder) {
            Ok(entries) => entries.into_iter().filter(|entry| !entry.is_directory).map(|entry| entry.name).collect(),
            Err(error) => {
                let expected = "a folder that can be read".to_owned();
                return self.problems.push(Corrupt { file: folder.display().to_string(), place: 0, expected, found: error.to_string() });
            }
        };
        let mut topic_id = None;
        if files.iter().any(|file| file == PARTITION_NAME) {
            let path = folder.join(PARTITION_NAME);
            match self.small(disk, &path).map(|bytes| formats::partition_metadata(&bytes)) {
                Some(Ok(id)) => topic_id = Some(id),
                Some(Err(wrong)) => self.problems.push(in_file(wrong, &path)),
                None => {}
            }
        }
        for file in files.iter().filter(|file| [".deleted", ".cleaned", ".swap"].iter().any(|end| file.ends_with(end))) {
            self.notes.push(format!("{} is of a deed under way; it is passed over", folder.join(file).display()));
        }
        let mut segments: Vec<Offset> = files.iter().filter_map(|file| base_of(file, "log")).collect();
        segments.sort_unstable();
        self.partitions.push(KafkaPartition {
            folder: folder.to_owned(),
            topic: topic.to_owned(),
            index,
            topic_id,
            segments,
            files,
            log_start,
            is_part: false,
        });
    }
}

/// Whether a folder holds segments.
pub fn is_folder(disk: &mut ReadOnly, path: &Path) -> bool {
    disk.list(path).is_ok_and(|entries| entries.iter().any(|entry| base_of(&entry.name, "log").is_some()))
}

/// Whether a process holds a POSIX lock on the file, as a running Kafka does: the system lists them by inode.
fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(about), Ok(locks)) = (std::fs::metadata(path), std::fs::read_to_string("/proc/locks")) else { return false };
    let inode = format!(":{} ", about.ino());
    locks.lines().any(|line| line.contains("POSIX") && line.contains(&inode))
}
