//! Storage by blocking calls: for boot, recovery, tools, and beside a ring of the same files.
//!
//! 1. A file asked for as direct is opened past the page cache; a file system that refuses that gives a cached file.
//! 2. Callers here need not align: reads and writes of direct files go through an aligned chunk, whole blocks at a time. A block that is
//!    written in part is read first, and a file that ended within its last block is cut back to where it ends.
//! 3. So everything that a ring writes directly is seen here, and the other way round: neither goes through the page cache.
//!
//! Invariants: one descriptor per open file, closed once; locks are held until the storage is dropped.
//! Knows nothing of rings.

use crate::driver::{Disk, Entry, File, IoError, OpenHow};
use crate::memory::{Pool, Space};
use crate::socket::last_error;
use crate::table::Table;
use millrace_base::limits::BLOCK;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files are for the broker's user to write and its group to read.
pub(crate) const FILE_MODE: libc::mode_t = 0o640;
pub(crate) const DIRECTORY_MODE: libc::mode_t = 0o750;

/// Bytes that go through the aligned chunk at once.
const BOUNCE_BYTES: usize = 1 << 20;

/// An open file of a driver or of a storage alone.
pub(crate) struct OpenFile {
    /// Shared only with operations of the portable driver that are under way.
    pub(crate) fd: Arc<fs::File>,
    /// Opened past the page cache.
    pub(crate) direct: bool,
}

impl OpenFile {
    pub(crate) fn new(fd: fs::File, direct: bool) -> OpenFile {
        OpenFile { fd: Arc::new(fd), direct }
    }

    /// The descriptor, of which a ring keeps no other handle.
    pub(crate) fn into_fd(self) -> fs::File {
        Arc::into_inner(self.fd).expect("a ring knows files by number")
    }
}

/// What a direct read or write at `place` must be.
pub(crate) fn assert_blocks(place: u64, memory: &[u8]) {
    let len = memory.len();
    assert!(place.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK), "direct: {len} bytes at {place} are not whole blocks");
    assert!(memory.as_ptr().addr().is_multiple_of(BLOCK), "direct: memory does not begin at a block");
}

pub(crate) fn open_flags(how: OpenHow) -> libc::c_int {
    let mut flags = libc::O_CLOEXEC | if how.write { libc::O_RDWR } else { libc::O_RDONLY };
    for (asked, flag) in [(how.create, libc::O_CREAT), (how.create && how.exclusive, libc::O_EXCL), (how.direct, libc::O_DIRECT)] {
        if asked {
            flags |= flag;
        }
    }
    flags
}

/// # Errors
/// The system's, among them that `path` is no directory.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, IoError> {
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
    Ok(directory.into())
}

pub(crate) fn truncate(file: &fs::File, len: u64) -> Result<(), IoError> {
    if i64::try_from(len).is_err() {
        return Err(IoError(libc::EFBIG));
    }
    Ok(file.set_len(len)?)
}

/// Storage by blocking calls.
pub struct BlockingDisk {
    pub(crate) files: Table<OpenFile>,
    locks: BTreeMap<PathBuf, fs::File>,
    /// Reads and writes of direct files go through here; made when first needed.
    bounce: Option<Space>,
}

impl Default for BlockingDisk {
    fn default() -> BlockingDisk {
        BlockingDisk::new()
    }
}

impl BlockingDisk {
    pub fn new() -> BlockingDisk {
        BlockingDisk { files: Table::new(), locks: BTreeMap::new(), bounce: None }
    }
}

fn bounce(space: &mut Option<Space>) -> &mut [u8] {
    let space = space.get_or_insert_with(|| Pool::new(BOUNCE_BYTES).take(BOUNCE_BYTES));
    &mut space.unfrozen()[..BOUNCE_BYTES]
}

pub(crate) fn open(path: &Path, how: OpenHow) -> Result<OpenFile, IoError> {
    let mut options = OpenOptions::new();
    options.read(true).write(how.write).mode(FILE_MODE).custom_flags(open_flags(how) & !libc::O_ACCMODE);
    match options.open(path).map_err(IoError::from) {
        Ok(fd) => Ok(OpenFile::new(fd, how.direct)),
        // The system makes the file before it finds that it cannot open it directly, so it may be there by now.
        Err(IoError(libc::EINVAL)) if how.direct => open(path, OpenHow { direct: false, exclusive: false, ..how }),
        Err(error) => Err(error),
    }
}

/// Drops what the page cache has of a file and counts as clean: after a failed sync it may not be what is on the disk, which is what who asks
/// for direct reads wants to see.
fn forget_cached(fd: &fs::File) {
    // SAFETY: the descriptor is open for the call, which touches no memory of the caller.
    let _ = unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Reads until `into` is full or the file ends.
fn read_cached(fd: &fs::File, place: u64, into: &mut [u8]) -> Result<usize, IoError> {
    let mut done = 0;
    while done < into.len() {
        match fd.read_at(&mut into[done..], place + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Whole blocks around `len` bytes at `place`, as many as the chunk holds: their place and length.
fn blocks_around(place: u64, len: usize) -> (u64, usize) {
    let start = place - place % BLOCK as u64;
    let end = (place + len as u64).next_multiple_of(BLOCK as u64);
    (start, usize::try_from(end - start).map_or(BOUNCE_BYTES, |len| len.min(BOUNCE_BYTES)))
}

fn read_direct(fd: &fs::File, place: u64, into: &mut [u8], chunk: &mut [u8]) -> Result<usize, IoError> {
    let mut done = 0;
    while done < into.len() {
        let at = place + done as u64;
        let (start, len) = blocks_around(at, into.len() - done);
        let got = read_cached(fd, start, &mut chunk[..len])?;
        let skip = (at - start) as usize;
        let count = got.saturating_sub(skip).min(into.len() - done);
        into[done..done + count].copy_from_slice(&chunk[skip..skip + count]);
        done += count;
        if got < len {
            break;
        }
    }
    Ok(done)
}

fn write_direct(fd: &fs::File, place: u64, from: &[u8], chunk: &mut [u8]) -> Result<(), IoError> {
    let size = fd.metadata()?.len();
    let mut done = 0;
    while done < from.len() {
        let at = place + done as u64;
        let (start, len) = blocks_around(at, from.len() - done);
        let skip = (at - start) as usize;
        let count = (len - skip).min(from.len() - done);
        if skip > 0 || skip + count < len {
            let got = read_cached(fd, start, &mut chunk[..len])?;
            chunk[got..len].fill(0);
        }
        chunk[skip..skip + count].copy_from_slice(&from[done..done + count]);
        fd.write_all_at(&chunk[..len], start)?;
        done += count;
    }
    let end = size.max(place + from.len() as u64);
    if fd.metadata()?.len() > end { truncate(fd, end) } else { Ok(()) }
}

impl Disk for BlockingDisk {
    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, IoError> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // What was unlinked between the two calls is not there.
            match entry.metadata() {
                Ok(about) => entries.push(Entry { name, len: about.len(), is_directory: about.is_dir() }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn open(&mut self, path: &Path, how: OpenHow) -> Result<File, IoError> {
        let opened = open(path, how)?;
        if how.direct && !opened.direct {
            forget_cached(&opened.fd);
        }
        Ok(File(self.files.insert(opened)))
    }

    fn close(&mut self, file: File) {
        drop(self.files.take(file.0));
    }

    fn len(&mut self, file: File) -> Result<u64, IoError> {
        Ok(self.files.get(file.0).ok_or(IoError::BAD_FILE)?.fd.metadata()?.len())
    }

    fn read(&mut self, file: File, place: u64, into: &mut [u8]) -> Result<usize, IoError> {
        let open = self.files.get(file.0).ok_or(IoError::BAD_FILE)?;
        if open.direct { read_direct(&open.fd, place, into, bounce(&mut self.bounce)) } else { read_cached(&open.fd, place, into) }
    }

    fn write(&mut self, file: File, place: u64, from: &[u8]) -> Result<(), IoError> {
        let open = self.files.get(file.0).ok_or(IoError::BAD_FILE)?;
        if open.direct { write_direct(&open.fd, place, from, bounce(&mut self.bounce)) } else { Ok(open.fd.write_all_at(from, place)?) }
    }

    fn sync(&mut self, file: File) -> Result<(), IoError> {
        Ok(self.files.get(file.0).ok_or(IoError::BAD_FILE)?.fd.sync_data()?)
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), IoError> {
        Ok(fs::File::from(open_directory(path)?).sync_all()?)
    }

    fn truncate(&mut self, file: File, len: u64) -> Result<(), IoError> {
        truncate(&self.files.get(file.0).ok_or(IoError::BAD_FILE)?.fd, len)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), IoError> {
        Ok(fs::rename(from, to)?)
    }

    fn unlink(&mut self, path: &Path) -> Result<(), IoError> {
        Ok(fs::remove_file(path)?)
    }

    fn make_directories(&mut self, path: &Path) -> Result<(), IoError> {
        Ok(DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?)
    }

    fn remove_directory(&mut self, path: &Path) -> Result<(), IoError> {
        Ok(fs::remove_dir(path)?)
    }

    fn lock(&mut self, path: &Path) -> Result<bool, IoError> {
        if self.locks.contains_key(path) {
            return Ok(true);
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                self.locks.insert(path.to_path_buf(), file);
                Ok(true)
            }
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error.into()),
        }
    }

    fn space(&mut self, path: &Path) -> Result<(u64, u64), IoError> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| IoError(libc::EINVAL))?;
        let mut about = MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: `path` and `about` are ours and outlive the call.
        if unsafe { libc::statvfs(path.as_ptr(), about.as_mut_ptr()) } < 0 {
            return Err(last_error());
        }
        // SAFETY: all-zero bytes are a valid statvfs, and the call that succeeded has filled it in.
        let about = unsafe { about.assume_init() };
        Ok((about.f_bavail * about.f_frsize, about.f_blocks * about.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("millrace-io-{name}-{}", std::process::id()));
            BlockingDisk::new().make_directories(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    const WRITE: OpenHow = OpenHow { write: true, create: true, exclusive: false, direct: false };

    #[test]
    fn unaligned_writes_of_a_direct_file_read_like_those_of_a_cached_one() {
        let scratch = Scratch::new("unaligned");
        let mut disk = BlockingDisk::new();
        let cached = disk.open(&scratch.0.join("cached"), WRITE).unwrap();
        let direct = disk.open(&scratch.0.join("direct"), OpenHow { direct: true, ..WRITE }).unwrap();
        let mut prng = millrace_base::prng::Prng::new(7);
        for step in 0..60u32 {
            let bytes: Vec<u8> = (0..prng.below(20_000) + 1).map(|i| (i as u8).wrapping_add(step as u8)).collect();
            let place = prng.below(50_000);
            for file in [cached, direct] {
                disk.write(file, place, &bytes).unwrap();
            }
            let from = prng.below(60_000);
            let mut read = [vec![0u8; 30_000], vec![0u8; 30_000]];
            let counts = [cached, direct].map(|file| disk.len(file).unwrap());
            assert_eq!(counts[0], counts[1]);
            let got = [disk.read(cached, from, &mut read[0]).unwrap(), disk.read(direct, from, &mut read[1]).unwrap()];
            assert_eq!(got[0], got[1]);
            assert!(read[0][..got[0]] == read[1][..got[1]]);
        }
        let big = vec![9u8; 3 * BOUNCE_BYTES + 77];
        disk.write(direct, 5, &big).unwrap();
        let mut back = vec![0u8; big.len() + 9];
        assert_eq!(disk.read(direct, 5, &mut back).unwrap(), big.len());
        assert!(back[..big.len()] == big[..]);
    }

    #[test]
    fn a_lock_is_held_against_others_until_its_storage_is_dropped() {
        let scratch = Scratch::new("lock");
        let path = scratch.0.join("lock");
        let (mut first, mut second) = (BlockingDisk::new(), BlockingDisk::new());
        assert_eq!((first.lock(&path), first.lock(&path), second.lock(&path)), (Ok(true), Ok(true), Ok(false)));
        drop(first);
        assert_eq!(second.lock(&path), Ok(true));
    }

    #[test]
    fn room_is_what_the_file_system_says() {
        let (free, all) = BlockingDisk::new().space(&std::env::temp_dir()).unwrap();
        assert!(free > 0 && free <= all);
        assert_eq!(BlockingDisk::new().space(Path::new("/no/such/place")), Err(IoError::NOT_FOUND));
    }
}
