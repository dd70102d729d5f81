//! What a path is: a data directory of ours, one of Kafka's, a folder of segments, or a file.

use crate::directory::Directory;
use crate::error::InspectError;
use crate::kafka::directory::{KafkaDirectory, base_of, is_folder};
use crate::log::Log;
use crate::read_only::ReadOnly;
use crate::spare::Spare;
use millrace_io::Disk;
use std::path::Path;

pub enum Source {
    Ours(Box<Directory>),
    Kafka(KafkaDirectory),
}

impl Source {
    /// # Errors
    /// It is none of these, or cannot be read.
    pub fn open(disk: &mut ReadOnly, path: &Path) -> Result<Source, InspectError> {
        if path.is_file() {
            let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
            let Some(base) = base_of(&name, "log") else {
                let text = format!("{} is no segment: name a data directory, a folder of segments or a BASE.log", path.display());
                return Err(InspectError::Usage(text));
            };
            return Ok(Source::Kafka(KafkaDirectory::of_file(path, base)));
        }
        disk.list(path).map_err(InspectError::io("list", path))?;
        if Directory::is_one(disk, path) {
            return Ok(Source::Ours(Box::new(Directory::open(disk, path)?)));
        }
        if is_folder(disk, path) {
            return Ok(Source::Kafka(KafkaDirectory::of_folder(disk, path)?));
        }
        if KafkaDirectory::is_one(disk, path) {
            return Ok(Source::Kafka(KafkaDirectory::open(disk, path)?));
        }
        // The words of what was most probably meant.
        Directory::open(disk, path).map(|directory| Source::Ours(Box::new(directory)))
    }

    /// The logs that `wanted` names: `TOPIC`, `TOPIC/PARTITION`, `TOPIC-PARTITION`, topics by name or id. None: all but internal ones.
    ///
    /// # Errors
    /// One that is not there.
    pub fn logs(&mut self, disk: &mut ReadOnly, wanted: &[String]) -> Result<Vec<Log>, InspectError> {
        let mut logs: Vec<Log> = match self {
            Source::Ours(directory) => {
                let partitions = directory.take_all(disk)?;
                partitions.into_iter().map(|partition| Log::of(directory, &partition)).collect()
            }
            Source::Kafka(directory) => directory.partitions.iter().map(|partition| partition.log()).collect(),
        };
        if wanted.is_empty() {
            logs.retain(|log| !log.is_internal());
            return Ok(logs);
        }
        for one in wanted {
            if !logs.iter().any(|log| is_named(log, one)) {
                return Err(InspectError::Usage(format!("there is no topic or partition {one}; `ls` lists those that are there")));
            }
        }
        logs.retain(|log| wanted.iter().any(|one| is_named(log, one)));
        Ok(logs)
    }

    /// What else may hold records.
    pub fn spare(&self) -> Spare {
        match self {
            Source::Ours(directory) => Spare::new(&directory.path),
            Source::Kafka(_) => Spare::default(),
        }
    }
}

fn is_named(log: &Log, wanted: &str) -> bool {
    let id = log.topic_id.map(|id| id.to_string());
    let topics = [Some(log.topic.as_str()), id.as_deref()];
    let index = log.partition;
    topics.into_iter().flatten().any(|topic| {
        let rest = wanted.strip_prefix(topic);
        rest.is_some_and(|rest| rest.is_empty() || rest == format!("/{index}") || rest == format!("-{index}"))
    })
}
