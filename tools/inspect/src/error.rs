//! Why an inspection could not be done. Damage that it finds is its result, not one of these.

use millrace_base::fault::Fault;
use millrace_io::IoError;
use std::fmt;
use std::io;
use std::path::PathBuf;

#[derive(Debug)]
pub enum InspectError {
    /// What was asked for cannot be meant: ask for something else.
    Usage(String),
    /// The system refused.
    Io { doing: &'static str, path: PathBuf, error: IoError },
    /// Whoever reads the output has gone (`BrokenPipe`) or cannot take it.
    Output(io::Error),
}

impl InspectError {
    pub(crate) fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(IoError) -> InspectError {
        let path = path.to_owned();
        move |error| InspectError::Io { doing, path, error }
    }

    pub fn fault(&self) -> Fault {
        match self {
            InspectError::Usage(_) => Fault::Refuse,
            InspectError::Io { .. } | InspectError::Output(_) => Fault::Broken,
        }
    }
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InspectError::Usage(text) => f.write_str(text),
            InspectError::Io { doing, path, error } => write!(f, "cannot {doing} {}: {error}", path.display()),
            InspectError::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl std::error::Error for InspectError {}

impl From<io::Error> for InspectError {
    fn from(error: io::Error) -> InspectError {
        InspectError::Output(error)
    }
}
