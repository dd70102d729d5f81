//! Storage that cannot be changed: what recovery reads through here.
//!
//! Everything that writes is refused with the system's "read-only file system". Only plain files are opened: opening a pipe that
//! someone put into a data directory would wait for its writer for ever.
//!
//! Knows nothing of what the files hold.

use millrace_base::fault::Corrupt;
use millrace_io::{BlockingDisk, Disk, Entry, File, IoError, OpenHow};
use std::path::Path;

/// EROFS.
const READ_ONLY: IoError = IoError(30);
/// EINVAL.
const NOT_A_FILE: IoError = IoError(22);

#[derive(Default)]
pub struct ReadOnly(BlockingDisk);

impl ReadOnly {
    /// A small file whole. `max`: more than any of its kind has; what is longer is no such file and is not read.
    ///
    /// # Errors
    /// The system's.
    pub fn read_file(&mut self, path: &Path, max: usize) -> Result<Result<Vec<u8>, Corrupt>, IoError> {
        let file = self.open(path, OpenHow::default())?;
        let read = self.len(file).and_then(|len| match usize::try_from(len) {
            Ok(len) if len <= max => {
                let mut bytes = vec![0; len];
                let read = self.read(file, 0, &mut bytes)?;
                bytes.truncate(read);
                Ok(Ok(bytes))
            }
            Ok(_) | Err(_) => {
                let (expected, found) = (format!("at most {max} bytes"), format!("{len} bytes"));
                Ok(Err(Corrupt { file: path.display().to_string(), place: 0, expected, found }))
            }
        });
        self.close(file);
        read
    }
}

/// That `path` is a plain file, or a link to one.
pub fn check_plain(path: &Path) -> Result<(), IoError> {
    if std::fs::metadata(path)?.is_file() { Ok(()) } else { Err(NOT_A_FILE) }
}

impl Disk for ReadOnly {
    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, IoError> {
        self.0.list(path)
    }

    fn open(&mut self, path: &Path, how: OpenHow) -> Result<File, IoError> {
        if how.write || how.create {
            return Err(READ_ONLY);
        }
        check_plain(path)?;
        self.0.open(path, how)
    }

    fn close(&mut self, file: File) {
        self.0.close(file);
    }

    fn len(&mut self, file: File) -> Result<u64, IoError> {
        self.0.len(file)
    }

    fn read(&mut self, file: File, place: u64, into: &mut [u8]) -> Result<usize, IoError> {
        self.0.read(file, place, into)
    }

    fn write(&mut self, _: File, _: u64, _: &[u8]) -> Result<(), IoError> {
        Err(READ_ONLY)
    }

    fn sync(&mut self, _: File) -> Result<(), IoError> {
        Err(READ_ONLY)
    }

    fn sync_directory(&mut self, _: &Path) -> Result<(), IoError> {
        Err(READ_ONLY)
    }

    fn truncate(&mut self, _: File, _: u64) -> Result<(), IoError> {
        Err(READ_ONLY)
    }

    fn rename(&mut self, _: &Path, _: &Path) -> Result<(), IoError> {
        Err(READ_ONLY)
    }

    fn unlink(&mut self, _: &Path) -> Result<(), IoError> {
        Err(READ_ONLY)
    }

    fn make_directories(&mut self, _: &Path) -> Result<(), IoError> {
        Err(READ_ONLY)
    }

    fn remove_directory(&mut self, _: &Path) -> Result<(), IoError> {
        Err(READ_ONLY)
    }

    fn lock(&mut self, _: &Path) -> Result<bool, IoError> {
        Err(READ_ONLY)
    }

    fn space(&mut self, path: &Path) -> Result<(u64, u64), IoError> {
        self.0.space(path)
    }
}
