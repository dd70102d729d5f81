//! The face towards the kernel: every request is one call of the store, under one lock, after what a slow device waits for without it.
//!
//! Nothing of a file is cached by the kernel but what it reads ahead, and no name is: each look-up asks again.

use crate::names::{Kind, ROOT};
use crate::store::{BLOCK, Refusal, Store};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const AT_ONCE: Duration = Duration::ZERO;
const KEEP_SIZE: i32 = 1;
/// Operations that a slow device has in hand at once.
const THREADS: usize = 8;

pub fn mount(store: Arc<Mutex<Store>>, mountpoint: &Path) -> std::io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("millrace-faultfs".to_owned()), MountOption::RW];
    config.n_threads = Some(THREADS);
    fuser::spawn_mount(Face(store), mountpoint, &config)
}

/// A panic under the lock is a bug that ends the test; what follows sees the store as it was left.
pub fn locked(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Face(Arc<Mutex<Store>>);

impl Face {
    fn store(&self) -> MutexGuard<'_, Store> {
        locked(&self.0)
    }

    /// The store, for an operation that reaches the device: a slow one takes its time first.
    fn device(&self) -> MutexGuard<'_, Store> {
        let delay = self.store().delay();
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        self.store()
    }

    fn attributes(&self, inode: u64) -> Result<FileAttr, Refusal> {
        let (kind, size) = self.store().facts(inode)?;
        let perm = if kind == Kind::Directory { 0o755 } else { 0o644 };
        Ok(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: file_type(kind),
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        })
    }

    fn make(&self, parent: INodeNo, name: &OsStr, kind: Kind) -> Result<FileAttr, Refusal> {
        let inode = self.device().make(parent.0, name, kind)?;
        self.attributes(inode)
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
    }
}

fn number(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::NotFound => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NoRoom => Errno::ENOSPC,
        Refusal::Device => Errno::EIO,
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), Refusal>) {
    match result {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(number(refusal)),
    }
}

fn entry(reply: ReplyEntry, result: Result<FileAttr, Refusal>) {
    match result {
        Ok(attributes) => reply.entry(&AT_ONCE, &attributes, Generation(0)),
        Err(refusal) => reply.error(number(refusal)),
    }
}

impl Filesystem for Face {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.store().find(parent.0, name);
        entry(reply, found.and_then(|(inode, _)| self.attributes(inode)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Ok(attributes) => reply.attr(&AT_ONCE, &attributes),
            Err(refusal) => reply.error(number(refusal)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |size| self.device().set_len(ino.0, size));
        match resized.and_then(|()| self.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&AT_ONCE, &attributes),
            Err(refusal) => reply.error(number(refusal)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.make(parent, name, Kind::Directory));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.device().remove(parent.0, name);
        empty(reply, removed);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.device().remove(parent.0, name);
        empty(reply, removed);
    }

    fn rename(&self, _: &Request, parent: INodeNo, name: &OsStr, newparent: INodeNo, newname: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        let renamed = self.device().rename((parent.0, name), (newparent.0, newname));
        empty(reply, renamed);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.store().opened(ino.0);
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.make(parent, name, Kind::File) {
            Ok(attributes) => {
                self.store().opened(attributes.ino.0);
                reply.created(&AT_ONCE, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(refusal) => reply.error(number(refusal)),
        }
    }

    fn release(&self, _: &Request, ino: INodeNo, _: FileHandle, _: OpenFlags, _: Option<LockOwner>, _: bool, reply: ReplyEmpty) {
        self.store().closed(ino.0);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, size: u32, _: OpenFlags, _: Option<LockOwner>, reply: ReplyData) {
        let read = self.device().read(ino.0, offset, size as usize);
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(refusal) => reply.error(number(refusal)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.device().write(ino.0, offset, data);
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(refusal) => reply.error(number(refusal)),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.device().sync(ino.0);
        empty(reply, synced);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.device().sync_directory(ino.0);
        empty(reply, synced);
    }

    fn fallocate(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        match mode {
            0 => {
                let allocated = self.device().allocate(ino.0, offset.saturating_add(length));
                empty(reply, allocated);
            }
            KEEP_SIZE => reply.ok(),
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = match self.store().list(ino.0) {
            Ok(listed) => listed,
            Err(refusal) => return reply.error(number(refusal)),
        };
        let dots = [(".".into(), ino.0, Kind::Directory), ("..".into(), ROOT, Kind::Directory)];
        let all = dots.into_iter().chain(listed).enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX));
        for (at, (name, inode, kind)) in all {
            if reply.add(INodeNo(inode), at as u64 + 1, file_type(kind), &name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (free, all) = self.store().space();
        let free = free / BLOCK;
        reply.statfs(all / BLOCK, free, free, 1 << 20, 1 << 20, BLOCK as u32, 255, BLOCK as u32);
    }
}
