//! One operation on files or names, as blocking calls on a thread of the driver's.
//!
//! 1. A [`Task`] owns what its operation needs: memory, and a handle of the file, which keeps it open though it is closed meanwhile.
//! 2. [`Task::run`] does what the system is asked for, once: short counts are told, interruptions that did nothing are tried again.
//!
//! Invariants: a sync is never repeated; a synced write that is told as done was written, then synced.
//! Knows nothing of threads or of who waits.

use crate::blocking::{self, DIRECTORY_MODE, OpenFile, open_directory};
use crate::driver::{IoError, Memory, OpenHow, Token};
use crate::memory::{Slice, Space};
use rustix::fs::FallocateFlags;
use std::fs::{self, DirBuilder};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Times that one call is made again after an interruption.
const REPEATS_MAX: u8 = 64;

pub(super) enum Deed {
    Open { path: PathBuf, how: OpenHow },
    Close { file: OpenFile },
    Read { file: Arc<fs::File>, place: u64, into: Space, range: Range<u32> },
    Write { file: Arc<fs::File>, place: u64, from: Slice, synced: bool },
    Sync { file: Arc<fs::File> },
    SyncDirectory { path: PathBuf },
    Truncate { file: Arc<fs::File>, len: u64 },
    Allocate { file: Arc<fs::File>, len: u64 },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    MakeDirectory { path: PathBuf },
    RemoveDirectory { path: PathBuf },
}

pub(super) struct Task {
    pub(super) token: Token,
    pub(super) deed: Deed,
}

/// What became of a task.
pub(super) struct Done {
    pub(super) token: Token,
    pub(super) result: Result<u32, IoError>,
    pub(super) memory: Memory,
    /// What was opened; its number is the result.
    pub(super) opened: Option<OpenFile>,
    /// It was a synced write.
    pub(super) synced: bool,
}

impl Task {
    /// Somebody waits for what is to be durable: it goes before what only moves bytes.
    pub(super) fn is_durable(&self) -> bool {
        matches!(self.deed, Deed::Write { synced: true, .. } | Deed::Sync { .. } | Deed::SyncDirectory { .. })
    }

    pub(super) fn run(self) -> Done {
        let token = self.token;
        let (mut opened, mut synced) = (None, false);
        let nothing = |result: Result<(), IoError>| (result.map(|()| 0), Memory::None);
        let (result, memory) = match self.deed {
            Deed::Open { path, how } => nothing(named(&path).and_then(|path| blocking::open(path, how)).map(|file| opened = Some(file))),
            Deed::Close { file } => {
                drop(file);
                nothing(Ok(()))
            }
            Deed::Read { file, place, mut into, range } => {
                let target = into.target(range);
                let result = repeated(|| file.read_at(target, place));
                (result.map(|count| count as u32), Memory::Space(into))
            }
            Deed::Write { file, place, from, synced: to_be_synced } => {
                synced = to_be_synced;
                (write(&file, place, &from, synced), Memory::Slice(from))
            }
            Deed::Sync { file } => nothing(file.sync_data().map_err(IoError::from)),
            Deed::SyncDirectory { path } => nothing(sync_directory(&path)),
            Deed::Truncate { file, len } => nothing(blocking::truncate(&file, len)),
            Deed::Allocate { file, len } => {
                nothing(repeated(|| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len).map_err(std::io::Error::from)))
            }
            Deed::Rename { from, to } => nothing(both_named(&from, &to).and_then(|()| Ok(fs::rename(&from, &to)?))),
            Deed::Unlink { path } => nothing(named(&path).and_then(|path| Ok(fs::remove_file(path)?))),
            Deed::MakeDirectory { path } => nothing(named(&path).and_then(|path| Ok(DirBuilder::new().mode(DIRECTORY_MODE).create(path)?))),
            Deed::RemoveDirectory { path } => nothing(named(&path).and_then(|path| Ok(fs::remove_dir(path)?))),
        };
        Done { token, result, memory, opened, synced }
    }
}

/// A path without a zero byte; the system would refuse one the same way.
fn named(path: &Path) -> Result<&Path, IoError> {
    if path.as_os_str().as_bytes().contains(&0) { Err(IoError(libc::EINVAL)) } else { Ok(path) }
}

fn both_named(from: &Path, to: &Path) -> Result<(), IoError> {
    named(from).and_then(|_| named(to)).map(|_| ())
}

fn repeated<T>(mut call: impl FnMut() -> std::io::Result<T>) -> Result<T, IoError> {
    let mut repeats = 0;
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted && repeats < REPEATS_MAX => repeats += 1,
            result => return Ok(result?),
        }
    }
}

/// A write, then an fdatasync of what it has written, as the ring does it.
fn write(file: &fs::File, place: u64, from: &Slice, synced: bool) -> Result<u32, IoError> {
    let count = repeated(|| file.write_at(from, place))?;
    if synced {
        file.sync_data()?;
    }
    Ok(count as u32)
}

fn sync_directory(path: &Path) -> Result<(), IoError> {
    let directory = fs::File::from(open_directory(named(path)?)?);
    Ok(directory.sync_all()?)
}
