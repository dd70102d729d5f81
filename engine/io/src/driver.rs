//! What a shard may ask of files and sockets, at the level of a ring.
//!
//! 1. [`Driver::submit`] queues an operation under a token; nothing has happened yet.
//! 2. [`Driver::poll`] hands everything queued to the ring, waits as told, and gives back completions.
//! 3. Memory goes into an operation by value and returns with its completion: until then it belongs to the ring.
//! 4. [`Disk`] is the same storage, blocking: for opening, recovery and the offline inspector, never inside a turn.
//!
//! What a driver really does, and a shard must bear: completions in any order; short counts; a write and a sync in flight together are not
//! ordered; an accept that ends by itself (`more` is false); cancelled operations still complete.
//!
//! Knows nothing of what the bytes mean.

use crate::job::Job;
use crate::memory::{Slice, Space};
use millrace_base::clock::{Nanos, WallMs};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Chosen by the submitter; comes back with the completion. The driver reads nothing into it.
pub type Token = u64;

/// An open file of one driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct File(pub u32);

/// A connection of one driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Socket(pub u32);

/// A listening socket of one driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Listener(pub u32);

/// How a file is opened. All files are opened for reading; `write` adds writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenHow {
    pub write: bool,
    /// Make it when absent.
    pub create: bool,
    /// With `create`: fail with `AlreadyExists` when present.
    pub exclusive: bool,
    /// Bypass the page cache: places, lengths and memory of every read and write are whole blocks.
    /// A file system that refuses it gets a cached file instead.
    pub direct: bool,
}

/// One operation. All places and lengths are in bytes.
#[derive(Debug)]
pub enum Op {
    /// Result: the [`File`]'s number.
    Open {
        path: PathBuf,
        how: OpenHow,
    },
    Close {
        file: File,
    },
    /// Reads up to `len` bytes into `into.unfrozen()[at..at + len]`. Result: bytes read; 0 at the end of the file.
    Read {
        file: File,
        place: u64,
        into: Space,
        at: u32,
        len: u32,
    },
    /// Result: bytes written, which may be fewer. With `synced`, completion also means that these bytes are durable.
    Write {
        file: File,
        place: u64,
        from: Slice,
        synced: bool,
    },
    /// Makes durable what writes had completed before this was submitted (data and the size it needs).
    Sync {
        file: File,
    },
    /// Makes names in a directory durable: files created in it, renamed, unlinked.
    SyncDirectory {
        path: PathBuf,
    },
    Truncate {
        file: File,
        len: u64,
    },
    /// Reserves room for the first `len` bytes: writes there do not run out of it. The file grows to `len` and reads as zeros where
    /// nothing was written. A file system that cannot fails with EOPNOTSUPP.
    Allocate {
        file: File,
        len: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
    },
    RemoveDirectory {
        path: PathBuf,
    },
    /// Keeps accepting: one completion per connection (result: the [`Socket`]'s number), until one with `more` false.
    Accept {
        listener: Listener,
    },
    /// Receives 1 to `len` bytes into `into.unfrozen()[at..at + len]`. Result: bytes; 0 when the peer has finished.
    /// With `whole`, waits for all `len` unless the connection ends first.
    Receive {
        socket: Socket,
        into: Space,
        at: u32,
        len: u32,
        whole: bool,
    },
    /// Completes when the socket has something to receive (or has ended); holds no memory meanwhile. For idle connections.
    Readable {
        socket: Socket,
    },
    /// Sends the slices back to back. Result: bytes taken, which may be fewer. At most [`SEND_SLICES_MAX`] slices.
    Send {
        socket: Socket,
        from: Vec<Slice>,
    },
    /// Ends both directions and closes; operations in flight on it complete with an error first.
    CloseSocket {
        socket: Socket,
    },
    /// Stops an [`Op::Accept`]; closes the listener.
    CloseListener {
        listener: Listener,
    },
    /// Computes something off the shard's thread, after the jobs that were submitted before. Fails with EAGAIN, not run, where the system
    /// makes no thread for it.
    Run {
        job: Job,
    },
}

/// Slices that one [`Op::Send`] may carry.
pub const SEND_SLICES_MAX: usize = 64;

/// What an operation gave back.
#[derive(Debug)]
pub struct Completion {
    pub token: Token,
    /// As said at the operation; 0 where nothing is said.
    pub result: Result<u32, IoError>,
    /// The memory that went in.
    pub memory: Memory,
    /// Another completion with this token follows (accept only).
    pub more: bool,
}

#[derive(Debug)]
pub enum Memory {
    None,
    Space(Space),
    Slice(Slice),
    Slices(Vec<Slice>),
}

/// An error of the operating system: its number, which decides what is done about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IoError(pub i32);

impl IoError {
    pub const NOT_FOUND: IoError = IoError(libc::ENOENT);
    pub const NOT_SUPPORTED: IoError = IoError(libc::EOPNOTSUPP);
    pub const EXISTS: IoError = IoError(libc::EEXIST);
    pub const DEVICE: IoError = IoError(libc::EIO);
    pub const NOT_EMPTY: IoError = IoError(libc::ENOTEMPTY);
    pub const CANCELLED: IoError = IoError(libc::ECANCELED);
    pub const RESET: IoError = IoError(libc::ECONNRESET);
    pub const BAD_FILE: IoError = IoError(libc::EBADF);

    /// No room on the disk, or a quota: room may return.
    pub fn is_full(self) -> bool {
        matches!(self.0, libc::ENOSPC | libc::EDQUOT)
    }

    /// No descriptor left, in this process or in the system: nothing was opened, and one may come free.
    pub fn is_out_of_files(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE)
    }
}

impl fmt::Debug for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for IoError {}

impl From<rustix::io::Errno> for IoError {
    fn from(e: rustix::io::Errno) -> IoError {
        IoError(e.raw_os_error())
    }
}

impl From<std::io::Error> for IoError {
    fn from(e: std::io::Error) -> IoError {
        IoError(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// How long [`Driver::poll`] may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Take what is there.
    No,
    /// Until something completes, the doorbell rings, or this time has come.
    Until(Nanos),
}

/// A connection on its way from one shard's driver to another's.
#[derive(Debug)]
pub struct Detached(pub u64);

/// Wakes the shard that sleeps in [`Driver::poll`]; any thread may ring it. Rings before a sleep are not lost.
#[derive(Clone)]
pub struct Doorbell(pub Arc<dyn Fn() + Send + Sync>);

impl Doorbell {
    pub fn ring(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Doorbell")
    }
}

/// One shard's ring.
pub trait Driver {
    /// Queues `op`. It starts at the next [`Driver::poll`] at the latest.
    fn submit(&mut self, op: Op, token: Token);

    /// Starts what is queued, waits as `wait` says, and appends what has completed: nothing where a doorbell ended the wait, which may be one
    /// that rang for what an earlier poll told.
    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>);

    /// Lets synced writes go on whose first step is done, between two polls. Whether one has ended, which the next poll tells. Cheap when there
    /// is none.
    fn settle(&mut self) -> bool {
        false
    }

    /// Takes a job that makes later work faster and nothing else different; it may go undone. Its completion has this token.
    fn run_aside(&mut self, job: Job, token: Token) {
        drop((job, token));
    }

    /// The growing clock. Cheap.
    fn now(&self) -> Nanos;

    /// The clock that people set.
    fn wall(&self) -> WallMs;

    /// 64 fresh random bits (seeded in the simulator), for identities.
    fn entropy(&mut self) -> u64;

    /// Rings this driver.
    fn doorbell(&self) -> Doorbell;

    /// Binds and listens. `shared`: other shards bind the same address too. Gives the address bound (port 0 chooses one).
    ///
    /// # Errors
    /// The system's: address in use, not available, not permitted.
    fn listen(&mut self, address: SocketAddr, shared: bool) -> Result<(Listener, SocketAddr), IoError>;

    /// The other end of a connection.
    fn peer(&self, socket: Socket) -> Option<SocketAddr>;

    /// Takes a connection with no operation in flight out of this driver.
    fn detach(&mut self, socket: Socket) -> Detached;

    /// Takes a connection in.
    fn attach(&mut self, connection: Detached) -> Socket;

    /// The same storage, blocking.
    fn disk(&mut self) -> &mut dyn Disk;
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    pub name: String,
    pub len: u64,
    pub is_directory: bool,
}

/// Storage, blocking. Files opened here and by [`Op::Open`] of the same driver are the same kind.
///
/// # Errors
/// All methods give the system's error as it is.
pub trait Disk {
    /// Names in `path`, sorted; names that are not UTF-8 are left out.
    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, IoError>;
    fn open(&mut self, path: &Path, how: OpenHow) -> Result<File, IoError>;
    fn close(&mut self, file: File);
    fn len(&mut self, file: File) -> Result<u64, IoError>;
    /// Fills `into` unless the file ends before; gives the bytes read. No alignment is asked of the caller.
    fn read(&mut self, file: File, place: u64, into: &mut [u8]) -> Result<usize, IoError>;
    /// Writes all of `from`. No alignment is asked of the caller.
    fn write(&mut self, file: File, place: u64, from: &[u8]) -> Result<(), IoError>;
    fn sync(&mut self, file: File) -> Result<(), IoError>;
    fn sync_directory(&mut self, path: &Path) -> Result<(), IoError>;
    fn truncate(&mut self, file: File, len: u64) -> Result<(), IoError>;
    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), IoError>;
    fn unlink(&mut self, path: &Path) -> Result<(), IoError>;
    /// Makes `path` and what is missing above it.
    fn make_directories(&mut self, path: &Path) -> Result<(), IoError>;
    fn remove_directory(&mut self, path: &Path) -> Result<(), IoError>;
    /// Holds the file `path` (made when absent) against every other process until this storage is dropped. False: someone else holds it.
    fn lock(&mut self, path: &Path) -> Result<bool, IoError>;
    /// Bytes free to us, and bytes in all, on the file system of `path`.
    fn space(&mut self, path: &Path) -> Result<(u64, u64), IoError>;
}
