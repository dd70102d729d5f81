//! Blocking storage in a world: everything happens at once, in no time.

use super::core::{Core, OpenFile};
use crate::driver::{Disk, Entry, File, IoError, OpenHow};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

/// The disk of a node, beside a driver or alone (for boot); dropping it closes its files and gives up its locks.
pub struct SimDisk {
    core: Rc<RefCell<Core>>,
    shard: u32,
}

impl SimDisk {
    pub(super) fn beside(core: &Rc<RefCell<Core>>, shard: u32) -> SimDisk {
        SimDisk { core: Rc::clone(core), shard }
    }

    pub(super) fn alone(core: &Rc<RefCell<Core>>, node: u32) -> SimDisk {
        let shard = core.borrow_mut().add_shard(node);
        core.borrow_mut().shard(shard).wake = None;
        SimDisk { core: Rc::clone(core), shard }
    }

    /// Does `act` on the node's storage; a dead node's gives an error.
    fn act<T>(&mut self, what: &'static str, act: impl FnOnce(&mut Core, u32) -> Result<T, IoError>) -> Result<T, IoError> {
        let mut core = self.core.borrow_mut();
        let shard = core.shard(self.shard);
        let (alive, node) = (shard.alive, shard.node);
        let result = if alive { act(&mut core, self.shard) } else { Err(IoError::DEVICE) };
        let code = result.as_ref().err().map_or(0, |error| -i64::from(error.0));
        core.note(node, what, 0, 0, code);
        result
    }

    fn on_file<T>(
        &mut self,
        what: &'static str,
        file: File,
        writes: bool,
        act: impl FnOnce(&mut super::disk::Storage, u64) -> Result<T, IoError>,
    ) -> Result<T, IoError> {
        self.act(what, |core, shard| {
            let open = core.shard(shard).files.get(file.0).ok_or(IoError::BAD_FILE)?;
            if writes && !open.write {
                return Err(IoError::BAD_FILE);
            }
            let file = open.file;
            act(core.storage_of(shard), file)
        })
    }
}

impl Disk for SimDisk {
    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, IoError> {
        self.act("list", |core, shard| core.storage_of(shard).list(path))
    }

    fn open(&mut self, path: &Path, how: OpenHow) -> Result<File, IoError> {
        self.act("open", |core, shard| {
            let file = core.storage_of(shard).open(path, how)?;
            Ok(File(core.shard(shard).files.insert(OpenFile { file, write: how.write, direct: how.direct })))
        })
    }

    fn close(&mut self, file: File) {
        let mut core = self.core.borrow_mut();
        if let Some(open) = core.shard(self.shard).files.take(file.0) {
            core.storage_of(self.shard).close(open.file);
        }
    }

    fn len(&mut self, file: File) -> Result<u64, IoError> {
        self.on_file("len", file, false, |storage, file| Ok(storage.len(file)))
    }

    fn read(&mut self, file: File, place: u64, into: &mut [u8]) -> Result<usize, IoError> {
        self.on_file("read", file, false, |storage, file| storage.read(file, place, into))
    }

    fn write(&mut self, file: File, place: u64, from: &[u8]) -> Result<(), IoError> {
        self.on_file("write", file, true, |storage, file| storage.write(file, place, from, false))
    }

    fn sync(&mut self, file: File) -> Result<(), IoError> {
        self.on_file("sync", file, false, |storage, file| {
            let number = storage.last_step();
            storage.sync(file, number)
        })
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), IoError> {
        self.act("sync directory", |core, shard| {
            let storage = core.storage_of(shard);
            let number = storage.last_step();
            storage.sync_directory(path, number)
        })
    }

    fn truncate(&mut self, file: File, len: u64) -> Result<(), IoError> {
        self.on_file("truncate", file, true, |storage, file| storage.truncate(file, len))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.act("rename", |core, shard| core.storage_of(shard).rename(from, to))
    }

    fn unlink(&mut self, path: &Path) -> Result<(), IoError> {
        self.act("unlink", |core, shard| core.storage_of(shard).unlink(path))
    }

    fn make_directories(&mut self, path: &Path) -> Result<(), IoError> {
        self.act("make directories", |core, shard| core.storage_of(shard).make_directories(path))
    }

    fn remove_directory(&mut self, path: &Path) -> Result<(), IoError> {
        self.act("remove directory", |core, shard| core.storage_of(shard).remove_directory(path))
    }

    fn lock(&mut self, path: &Path) -> Result<bool, IoError> {
        self.act("lock", |core, shard| {
            let how = OpenHow { write: true, create: true, ..OpenHow::default() };
            let file = core.storage_of(shard).open(path, how)?;
            core.storage_of(shard).close(file);
            let node = core.shard(shard).node;
            let holder = core.node(node).locks.entry(path.to_path_buf()).or_insert(shard);
            Ok(*holder == shard)
        })
    }

    fn space(&mut self, path: &Path) -> Result<(u64, u64), IoError> {
        self.act("space", |core, shard| Ok(core.storage_of(shard).space(path)))
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        // Dropped by its driver or alone: either way its shard's process is over.
        let mut core = self.core.borrow_mut();
        core.kill_shard(self.shard);
        core.shards.remove(&self.shard);
    }
}
