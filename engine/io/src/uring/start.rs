//! From an operation to an entry of the ring.
//!
//! What is wrong with an operation before the kernel sees it (an unknown file, a path with a zero byte) completes with the next poll.
//! Knows nothing of completions.

use super::flight::{BELL, Deed, End, Gather, NOBODY};
use super::{Endpoint, UringDriver};
use crate::blocking::{DIRECTORY_MODE, FILE_MODE, assert_blocks, open_directory, open_flags};
use crate::driver::{Completion, File, IoError, Memory, Op, OpenHow, SEND_SLICES_MAX, Token};
use crate::memory::{Slice, Space};
use io_uring::types::{CancelBuilder, Fd, FsyncFlags};
use io_uring::{opcode, squeue};
use std::ffi::CString;
use std::ops::Range;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const CWD: Fd = Fd(libc::AT_FDCWD);

/// The path as the system wants it; the system would refuse a zero byte the same way.
fn system_path(path: &Path) -> Result<CString, IoError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| IoError(libc::EINVAL))
}

pub(super) fn open_entry(path: &CString, how: OpenHow) -> squeue::Entry {
    opcode::OpenAt::new(CWD, path.as_ptr()).flags(open_flags(how)).mode(FILE_MODE).build()
}

impl UringDriver {
    pub(super) fn start(&mut self, op: Op, token: Token) {
        let started = match op {
            Op::Open { path, how } => self.start_open(&path, how, token),
            Op::Close { file } => self.start_close(file, token),
            Op::Read { file, place, into, at, len } => return self.start_read(file, place, into, at..at + len, token),
            Op::Write { file, place, from, synced } => return self.start_write(file, place, from, synced, token),
            Op::Sync { file } => self.start_sync(file, token),
            Op::SyncDirectory { path } => self.start_sync_directory(&path, token),
            Op::Truncate { file, len } => self.start_truncate(file, len, token),
            Op::Allocate { file, len } => self.start_allocate(file, len, token),
            Op::Rename { from, to } => {
                self.start_names(&from, &to, token, |from, to| opcode::RenameAt::new(CWD, from.as_ptr(), CWD, to.as_ptr()).build())
            }
            Op::Unlink { path } => self.start_name(&path, token, |path| opcode::UnlinkAt::new(CWD, path.as_ptr()).build()),
            Op::MakeDirectory { path } => {
                self.start_name(&path, token, |path| opcode::MkDirAt::new(CWD, path.as_ptr()).mode(DIRECTORY_MODE).build())
            }
            Op::RemoveDirectory { path } => {
                self.start_name(&path, token, |path| opcode::UnlinkAt::new(CWD, path.as_ptr()).flags(libc::AT_REMOVEDIR).build())
            }
            Op::Accept { listener } => self.start_accept(listener.0, token),
            Op::Receive { socket, into, at, len, whole } => return self.start_receive(socket.0, into, at..at + len, whole, token),
            Op::Readable { socket } => self.start_readable(socket.0, token),
            Op::Send { socket, from } => return self.start_send(socket.0, from, token),
            Op::CloseSocket { socket } => self.start_ending(End::Socket(socket.0), token),
            Op::CloseListener { listener } => self.start_ending(End::Listener(listener.0), token),
            Op::Run { job } => return self.run(job, token),
        };
        if let Err(error) = started {
            self.at_once(token, Err(error), Memory::None);
        }
    }

    fn fly(&mut self, token: Token, deed: Deed, entry: squeue::Entry) {
        let entry = self.flights.insert(token, deed, entry);
        self.ring.push(entry);
    }

    fn start_open(&mut self, path: &Path, how: OpenHow, token: Token) -> Result<(), IoError> {
        let path = system_path(path)?;
        let entry = open_entry(&path, how);
        self.fly(token, Deed::Open { path, how }, entry);
        Ok(())
    }

    fn start_close(&mut self, file: File, token: Token) -> Result<(), IoError> {
        let open = self.disk.files.take(file.0).ok_or(IoError::BAD_FILE)?;
        // From here the kernel owns the descriptor: it is closed by the entry, whatever that answers.
        let entry = opcode::Close::new(Fd(open.into_fd().into_raw_fd())).build();
        self.fly(token, Deed::CloseFile, entry);
        Ok(())
    }

    fn start_read(&mut self, file: File, place: u64, mut into: Space, range: Range<u32>, token: Token) {
        let Some(open) = self.disk.files.get(file.0) else {
            return self.at_once(token, Err(IoError::BAD_FILE), Memory::Space(into));
        };
        let target = into.target(range);
        if open.direct {
            assert_blocks(place, target);
        }
        let entry = opcode::Read::new(Fd(open.fd.as_raw_fd()), target.as_mut_ptr(), target.len() as u32).offset(place).build();
        self.fly(token, Deed::Read { into }, entry);
    }

    /// A synced write is a write, then an fdatasync by the ring (see `settle`).
    fn start_write(&mut self, file: File, place: u64, from: Slice, synced: bool, token: Token) {
        let Some(open) = self.disk.files.get(file.0) else {
            return self.at_once(token, Err(IoError::BAD_FILE), Memory::Slice(from));
        };
        if open.direct {
            assert_blocks(place, &from);
        }
        let len = u32::try_from(from.len()).expect("a slice's length is 32 bits");
        let entry = opcode::Write::new(Fd(open.fd.as_raw_fd()), from.as_ptr(), len).offset(place).build();
        self.unsettled += u32::from(synced);
        self.fly(token, Deed::Write { file, from, synced }, entry);
    }

    /// The second step of a synced write: `count` bytes are written, and are to be durable. Not RWF_DSYNC: the kernel ends that on a worker
    /// bound to this core, behind a shard that spins. Not a linked sync: a short count would break the link.
    pub(super) fn settle(&mut self, file: File, from: Slice, count: u32, token: Token, completions: &mut Vec<Completion>) {
        match self.disk.files.get(file.0) {
            Some(open) => {
                let entry = opcode::Fsync::new(Fd(open.fd.as_raw_fd())).flags(FsyncFlags::DATASYNC).build();
                if self.settling == 0 {
                    self.settling_since = crate::system::now();
                }
                self.settling += 1;
                self.fly(token, Deed::Settle { from, count }, entry);
            }
            None => {
                self.unsettled -= 1;
                completions.push(Completion { token, result: Err(IoError::BAD_FILE), memory: Memory::Slice(from), more: false });
            }
        }
    }

    fn start_sync(&mut self, file: File, token: Token) -> Result<(), IoError> {
        let open = self.disk.files.get(file.0).ok_or(IoError::BAD_FILE)?;
        let entry = opcode::Fsync::new(Fd(open.fd.as_raw_fd())).flags(FsyncFlags::DATASYNC).build();
        self.fly(token, Deed::Sync, entry);
        Ok(())
    }

    fn start_sync_directory(&mut self, path: &Path, token: Token) -> Result<(), IoError> {
        let directory = open_directory(path)?;
        let entry = opcode::Fsync::new(Fd(directory.as_raw_fd())).build();
        self.fly(token, Deed::SyncDirectory { _directory: directory }, entry);
        Ok(())
    }

    fn start_truncate(&mut self, file: File, len: u64, token: Token) -> Result<(), IoError> {
        let open = self.disk.files.get(file.0).ok_or(IoError::BAD_FILE)?;
        if !self.ring.abilities().truncate {
            let done = crate::blocking::truncate(&open.fd, len);
            self.at_once(token, done.map(|()| 0), Memory::None);
            return Ok(());
        }
        let entry = opcode::Ftruncate::new(Fd(open.fd.as_raw_fd()), len).build();
        self.fly(token, Deed::Truncate, entry);
        Ok(())
    }

    fn start_allocate(&mut self, file: File, len: u64, token: Token) -> Result<(), IoError> {
        let open = self.disk.files.get(file.0).ok_or(IoError::BAD_FILE)?;
        let entry = opcode::Fallocate::new(Fd(open.fd.as_raw_fd()), len).build();
        self.fly(token, Deed::Allocate, entry);
        Ok(())
    }

    fn start_name(&mut self, path: &Path, token: Token, entry: impl FnOnce(&CString) -> squeue::Entry) -> Result<(), IoError> {
        self.start_names(path, Path::new(""), token, |path, _| entry(path))
    }

    fn start_names(
        &mut self,
        from: &Path,
        to: &Path,
        token: Token,
        entry: impl FnOnce(&CString, &CString) -> squeue::Entry,
    ) -> Result<(), IoError> {
        let (from, to) = (system_path(from)?, system_path(to)?);
        let entry = entry(&from, &to);
        self.fly(token, Deed::Names { _paths: [from, to] }, entry);
        Ok(())
    }

    fn start_accept(&mut self, listener: u32, token: Token) -> Result<(), IoError> {
        let fd = self.occupy(End::Listener(listener)).ok_or(IoError::BAD_FILE)?;
        let entry = opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build();
        self.fly(token, Deed::Accept { listener }, entry);
        Ok(())
    }

    pub(super) fn endpoint(&mut self, end: End) -> Option<&mut Endpoint> {
        match end {
            End::Socket(number) => self.sockets.get_mut(number),
            End::Listener(number) => self.listeners.get_mut(number),
        }
    }

    /// Counts an operation on what is open and not closing; gives its descriptor.
    fn occupy(&mut self, end: End) -> Option<RawFd> {
        let endpoint = self.endpoint(end).filter(|endpoint| endpoint.closing.is_none())?;
        endpoint.operations += 1;
        Some(endpoint.raw())
    }

    fn start_receive(&mut self, socket: u32, mut into: Space, range: Range<u32>, whole: bool, token: Token) {
        let Some(fd) = self.occupy(End::Socket(socket)) else {
            return self.at_once(token, Err(IoError::BAD_FILE), Memory::Space(into));
        };
        let flags = if whole { libc::MSG_WAITALL } else { 0 };
        let target = into.target(range);
        let entry = opcode::Recv::new(Fd(fd), target.as_mut_ptr(), target.len() as u32).flags(flags).build();
        self.fly(token, Deed::Receive { socket, into }, entry);
    }

    fn start_readable(&mut self, socket: u32, token: Token) -> Result<(), IoError> {
        let fd = self.occupy(End::Socket(socket)).ok_or(IoError::BAD_FILE)?;
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(Fd(fd), events).build();
        self.fly(token, Deed::Readable { socket }, entry);
        Ok(())
    }

    fn start_send(&mut self, socket: u32, from: Vec<Slice>, token: Token) {
        assert!(!from.is_empty() && from.len() <= SEND_SLICES_MAX, "a send carries 1 to {SEND_SLICES_MAX} slices, not {}", from.len());
        let Some(fd) = self.occupy(End::Socket(socket)) else {
            return self.at_once(token, Err(IoError::BAD_FILE), Memory::Slices(from));
        };
        let mut gather = self.gathers.pop().unwrap_or_else(Gather::new);
        let entry = opcode::SendMsg::new(Fd(fd), gather.fill(&from)).flags(libc::MSG_NOSIGNAL as u32).build();
        self.fly(token, Deed::Send { socket, from, gather }, entry);
    }

    /// Operations in flight are cancelled in the ring, in order: what was queued before gets its chance first.
    fn start_ending(&mut self, end: End, token: Token) -> Result<(), IoError> {
        let endpoint = self.endpoint(end).filter(|endpoint| endpoint.closing.is_none()).ok_or(IoError::BAD_FILE)?;
        endpoint.closing = Some(token);
        if endpoint.operations == 0 {
            self.close(end);
        } else {
            endpoint.operations += 1;
            let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(endpoint.raw())).all()).build();
            self.fly(token, Deed::Cancel { end }, entry);
        }
        Ok(())
    }

    /// The last step of ending, with nothing in flight: from here the kernel owns the descriptor.
    pub(super) fn close(&mut self, end: End) {
        let endpoint = self.endpoint(end).expect("an endpoint stays until it is closed");
        assert_eq!(endpoint.operations, 0);
        let token = endpoint.closing.expect("closing was asked for");
        let fd = endpoint.fd.take().expect("closed once").into_raw_fd();
        self.fly(token, Deed::CloseEnd { end }, opcode::Close::new(Fd(fd)).build());
    }

    /// Gives an operation that has come back to the ring once more.
    pub(super) fn again(&mut self, token: Token, deed: Deed, repeats: u8, entry: squeue::Entry) {
        let entry = self.flights.insert(token, deed, entry);
        self.flights.get_mut(entry.get_user_data()).repeats = repeats;
        self.ring.push(entry);
    }

    /// Watches the doorbell from now on.
    pub(super) fn watch_bell(&mut self) {
        let entry = opcode::PollAdd::new(Fd(self.bell.event().as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.ring.push(entry.user_data(BELL));
    }

    pub(super) fn cancel_all(&mut self) {
        self.ring.push(opcode::AsyncCancel2::new(CancelBuilder::any().all()).build().user_data(NOBODY));
    }
}
