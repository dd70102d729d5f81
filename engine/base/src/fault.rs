//! The class of an error: what whoever meets it can do.

/// Every error enum of the engine answers `fault()` with one of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The same request may succeed later: full disk, no leader yet, no memory.
    Retry,
    /// The request is wrong and will stay wrong.
    Refuse,
    /// Bytes on a disk are not what was written; the range is not served.
    Corrupt,
    /// A device or an invariant failed; what depends on it stops.
    Broken,
}

/// Where bytes were not what was written, in terms that the inspector prints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Corrupt {
    pub file: String,
    /// Byte in the file.
    pub place: u64,
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}: expected {}, found {}", self.file, self.place, self.expected, self.found)
    }
}

impl std::error::Error for Corrupt {}
