//! Where things lie in a data directory, and the file that says whose it is.
//!
//! ```text
//! <data dir>/millrace.meta                                      cluster, node, directory id, format version
//! <data dir>/journal/<shard>/                                   the journal of one shard
//! <data dir>/<topic id>/<partition>/<20-digit base>.log         a segment, named as Kafka names it
//! <data dir>/<topic id>/<partition>/<20-digit base>.index       its index
//! <data dir>/<topic id>/<partition>/<20-digit end>.state        a large state
//! ```
//!
//! `millrace.meta` is text: `key=value` lines, the last of which is `crc=` with eight hex digits, the CRC-32C of all lines before it.
//! A newer `format` is refused, unknown keys of this format too: whoever wrote them meant something by them.
//!
//! Knows nothing of what the files hold, `millrace.meta` excepted.

use crate::state_file;
use millrace_base::crc::crc32c;
use millrace_base::fault::Fault;
use millrace_base::ids::{NodeId, PartitionId, ShardId, Uuid};
use millrace_base::offset::Offset;
use std::fmt;
use std::path::{Path, PathBuf};

/// The format of data directories that this version reads and writes.
pub const FORMAT: u32 = 1;

/// Name of the file that says whose a data directory is.
pub const META_NAME: &str = "millrace.meta";

/// More than the file can have.
pub const META_BYTES_MAX: usize = 4096;

pub fn meta(data: &Path) -> PathBuf {
    data.join(META_NAME)
}

/// The directory of all journals.
pub fn journals(data: &Path) -> PathBuf {
    data.join("journal")
}

pub fn journal(data: &Path, shard: ShardId) -> PathBuf {
    journals(data).join(shard.to_string())
}

pub fn topic(data: &Path, topic: Uuid) -> PathBuf {
    data.join(topic.to_string())
}

pub fn partition(data: &Path, id: PartitionId) -> PathBuf {
    topic(data, id.topic).join(id.index.to_string())
}

pub fn segment(partition: &Path, base: Offset) -> PathBuf {
    partition.join(segment_name(base))
}

pub fn index(partition: &Path, base: Offset) -> PathBuf {
    partition.join(index_name(base))
}

pub fn state(partition: &Path, name: state_file::Name) -> PathBuf {
    partition.join(name.to_string())
}

pub fn segment_name(base: Offset) -> String {
    format!("{base:020}.log")
}

pub fn index_name(base: Offset) -> String {
    format!("{base:020}.index")
}

/// What a name in a partition's directory says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    Segment(Offset),
    Index(Offset),
    State(state_file::Name),
}

/// None: not a name of ours; it is left alone.
pub fn named(name: &str) -> Option<Named> {
    if let Ok(state) = name.parse() {
        return Some(Named::State(state));
    }
    let (digits, kind) = name.split_once('.')?;
    let base: Offset = (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())??;
    match kind {
        "log" => Some(Named::Segment(base)),
        "index" => Some(Named::Index(base)),
        _ => None,
    }
}

/// The topic id that a directory's name says.
pub fn topic_named(name: &str) -> Option<Uuid> {
    name.parse().ok()
}

/// The partition's index that a directory's name says.
pub fn partition_named(name: &str) -> Option<u32> {
    let index: u32 = name.parse().ok()?;
    (index.to_string() == name).then_some(index)
}

/// The shard that a journal directory's name says.
pub fn shard_named(name: &str) -> Option<ShardId> {
    let shard: ShardId = name.parse().ok()?;
    (shard.to_string() == name).then_some(shard)
}

/// Whose a data directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    pub cluster: Uuid,
    pub node: NodeId,
    pub directory: Uuid,
}

/// Why `millrace.meta` does not say whose the directory is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetaError {
    /// Written by a version that is newer than this one.
    Newer { format: u32 },
    /// Not what was written.
    Corrupt { line: usize, expected: &'static str, found: String },
}

impl MetaError {
    pub fn fault(&self) -> Fault {
        match self {
            MetaError::Newer { .. } => Fault::Refuse,
            MetaError::Corrupt { .. } => Fault::Corrupt,
        }
    }
}

impl fmt::Display for MetaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaError::Newer { format } => {
                write!(f, "{META_NAME} has format {format}; this version reads up to {FORMAT}: start the version that wrote it")
            }
            MetaError::Corrupt { line, expected, found } => {
                write!(f, "{META_NAME}, line {line}: expected {expected}, found {found:?}; if another directory was meant, name that one")
            }
        }
    }
}

impl std::error::Error for MetaError {}

impl Meta {
    /// The file's text.
    pub fn encode(&self) -> String {
        let mut text = format!("format={FORMAT}\ncluster.id={}\nnode.id={}\ndirectory.id={}\n", self.cluster, self.node, self.directory);
        let crc = crc32c(text.as_bytes());
        text.push_str(&format!("crc={crc:08x}\n"));
        text
    }

    /// # Errors
    /// A newer format, or damage.
    pub fn decode(bytes: &[u8]) -> Result<Meta, MetaError> {
        let wrong = |line: usize, expected: &'static str, found: &str| MetaError::Corrupt {
            line,
            expected,
            found: found.chars().take(80).collect(),
        };
        let text = std::str::from_utf8(bytes).map_err(|_| wrong(1, "text", "other bytes"))?;
        if text.len() > META_BYTES_MAX {
            return Err(wrong(1, "at most 4096 bytes", ""));
        }
        let body = text.rfind("crc=").map_or(text, |at| &text[..at]);
        let lines = body.lines().count() + 1;
        let crc = format!("crc={:08x}\n", crc32c(body.as_bytes()));
        if text[body.len()..] != crc {
            return Err(wrong(lines, "the CRC line of the lines above", &text[body.len()..]));
        }
        let mut lines = body.lines().enumerate();
        let mut value = |key: &'static str| {
            let (number, line) = lines.next().ok_or(wrong(0, key, "the end"))?;
            let value = line.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
            value.map(|value| (number + 1, value)).ok_or(wrong(number + 1, key, line))
        };
        let (line, format) = value("format")?;
        match format.parse::<u32>() {
            Ok(FORMAT) => {}
            Ok(format) if format > FORMAT => return Err(MetaError::Newer { format }),
            Ok(_) | Err(_) => return Err(wrong(line, "a format", format)),
        }
        let uuid = |(line, text): (usize, &str)| text.parse::<Uuid>().map_err(|()| wrong(line, "an identity of 22 characters", text));
        let cluster = uuid(value("cluster.id")?)?;
        let (line, node) = value("node.id")?;
        let node = node.parse().ok().filter(|node| *node >= 0).ok_or(wrong(line, "a node id", node))?;
        let directory = uuid(value("directory.id")?)?;
        match lines.next() {
            None => Ok(Meta { cluster, node, directory }),
            Some((number, line)) => Err(wrong(number + 1, "the CRC line", line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::ids::META_PARTITION;
    use millrace_base::prng::Prng;

    fn sample() -> Meta {
        Meta { cluster: Uuid::from_entropy(1, 2), node: 3, directory: Uuid::from_entropy(4, 5) }
    }

    #[test]
    fn names_are_kafkas_and_read_back() {
        let partition = partition(Path::new("/d"), META_PARTITION);
        assert_eq!(segment(&partition, 42), partition.join("00000000000000000042.log"));
        assert_eq!(index(&partition, 42), partition.join("00000000000000000042.index"));
        assert_eq!(partition, Path::new("/d").join(META_PARTITION.topic.to_string()).join("0"));
        assert_eq!(journal(Path::new("/d"), 7), Path::new("/d/journal/7"));
        assert_eq!(named("00000000000000000042.log"), Some(Named::Segment(42)));
        assert_eq!(named("00000000000000000042.index"), Some(Named::Index(42)));
        assert_eq!(named("00000000000000000042.state"), Some(Named::State(state_file::Name { end: 42, again: 0 })));
        for other in [
            "42.log",
            "99999999999999999999.log",
            "0000000000000000004x.log",
            "+0000000000000000042.log",
            "00000000000000000042.log.deleted",
            "",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
        assert_eq!((partition_named("12"), partition_named("012"), shard_named("+1")), (Some(12), None, None));
    }

    #[test]
    fn a_meta_file_reads_back_and_every_changed_byte_is_noticed() {
        let text = sample().encode();
        assert_eq!(Meta::decode(text.as_bytes()), Ok(sample()));
        let mut prng = Prng::new(6);
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1 << prng.below(8);
            assert!(Meta::decode(&bad).is_err(), "byte {at}");
            assert!(Meta::decode(&text.as_bytes()[..at]).is_err());
        }
    }

    #[test]
    fn a_newer_format_and_unknown_keys_are_refused() {
        let sealed = |body: String| format!("{body}crc={:08x}\n", crc32c(body.as_bytes())).into_bytes();
        let body = sample().encode().split("crc=").next().unwrap().to_owned();
        assert_eq!(Meta::decode(&sealed(body.replace("format=1", "format=2"))), Err(MetaError::Newer { format: 2 }));
        assert!(matches!(Meta::decode(&sealed(body + "key=value\n")), Err(MetaError::Corrupt { line: 5, .. })));
    }
}
