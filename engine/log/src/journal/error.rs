//! Why a journal cannot be read or opened.

use millrace_base::fault::{Corrupt, Fault};
use millrace_io::IoError;
use std::fmt;
use std::path::{Path, PathBuf};

/// What stops recovery or opening as a whole. Damaged entries do not: they are in the verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalError {
    /// The system refused.
    Io { doing: &'static str, path: PathBuf, error: IoError },
    /// A newer version wrote this: use that version.
    Newer { file: String, place: u64, format: u32 },
    /// No slot of the file of openings is readable and there are entries: which of them count cannot be told. Restore that file, or
    /// let the replicas on this data directory rejoin as new members.
    Openings(Corrupt),
    /// A journal file is not what a journal file can be.
    File(Corrupt),
    /// Two readings of the same bytes differ: what is on the disk cannot be told, and nothing may be written beside it.
    Misread(Corrupt),
}

impl JournalError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(IoError) -> JournalError {
        let path = path.to_path_buf();
        move |error| JournalError::Io { doing, path, error }
    }

    pub fn fault(&self) -> Fault {
        match self {
            JournalError::Io { error, .. } if error.is_full() => Fault::Retry,
            JournalError::Io { .. } | JournalError::Misread(_) => Fault::Broken,
            JournalError::Newer { .. } => Fault::Refuse,
            JournalError::Openings(_) | JournalError::File(_) => Fault::Corrupt,
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io { doing, path, error } => write!(f, "{doing} {}: {error}", path.display()),
            JournalError::Newer { file, place, format } => {
                write!(
                    f,
                    "{file} at byte {place}: journal format {format} is newer than this version reads; start the version that wrote it"
                )
            }
            JournalError::Openings(corrupt) => write!(f, "the journal's openings are lost, so its entries cannot be told apart: {corrupt}"),
            JournalError::File(corrupt) => write!(f, "not a file of a journal: {corrupt}"),
            JournalError::Misread(corrupt) => {
                write!(f, "two readings of a journal file differ, try again and look after its disk: {corrupt}")
            }
        }
    }
}

impl std::error::Error for JournalError {}
