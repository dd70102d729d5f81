//! A disk in memory that loses what was not synced: sectors of 512 bytes, each old or new, in any combination.
//!
//! Reads see everything written, as through a cache. A [`Write`] submitted apart becomes durable by itself when it completes (a synced
//! write); others become durable with a sync of their file. Names become durable with a sync of their directory; of those that are not,
//! a power cut keeps the first few.

use millrace_base::prng::Prng;
use millrace_io::{Disk, Entry, File, IoError, OpenHow};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<(u64, usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Made(PathBuf, usize),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

#[derive(Clone, Default)]
pub struct SimDisk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    open: BTreeMap<u32, usize>,
    next: u64,
    /// Mutations left before everything fails, for cuts in the midst of an opening.
    pub fuse: Option<u64>,
    /// Mutations so far.
    pub mutations: u64,
}

/// A sector that is written and not durable.
#[derive(Clone)]
pub struct Loose {
    pub inode: usize,
    pub place: usize,
    pub bytes: Vec<u8>,
}

fn overlay(file: &mut Vec<u8>, place: usize, bytes: &[u8]) {
    if file.len() < place + bytes.len() {
        file.resize(place + bytes.len(), 0);
    }
    file[place..place + bytes.len()].copy_from_slice(bytes);
}

impl SimDisk {
    fn mutate(&mut self) -> Result<(), IoError> {
        self.mutations += 1;
        match &mut self.fuse {
            Some(0) => Err(IoError::DEVICE),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Starts a synced write; it is durable when [`SimDisk::complete`] is called with what this gives.
    pub fn submit(&mut self, path: &Path, place: u64, bytes: &[u8]) -> (PathBuf, u64) {
        self.next += 1;
        let inode = self.names[path];
        assert!(place as usize + bytes.len() <= self.inodes[inode].durable.len(), "journal files are written in full before use");
        self.inodes[inode].pending.push((self.next, place as usize, bytes.to_vec()));
        (path.to_path_buf(), self.next)
    }

    pub fn complete(&mut self, write: &(PathBuf, u64)) {
        let inode = &mut self.inodes[self.names[&write.0]];
        let index = inode.pending.iter().position(|(id, ..)| *id == write.1).unwrap();
        let (_, place, bytes) = inode.pending.remove(index);
        overlay(&mut inode.durable, place, &bytes);
    }

    /// Every sector that a power cut may keep or lose.
    pub fn loose(&self) -> Vec<Loose> {
        let mut loose = Vec::new();
        for (inode, data) in self.inodes.iter().enumerate() {
            for (_, place, bytes) in &data.pending {
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    loose.push(Loose { inode, place: place + index * SECTOR, bytes: sector.to_vec() });
                }
            }
        }
        loose
    }

    /// What is durable, with the first `names` of the name changes that are not.
    pub fn durable(&self, names: usize) -> SimDisk {
        let mut kept = self.durable_names.clone();
        for change in self.name_changes.iter().take(names) {
            apply(&mut kept, change);
        }
        let inodes = self.inodes.iter().map(|inode| Inode { durable: inode.durable.clone(), pending: Vec::new() }).collect();
        SimDisk {
            inodes,
            names: kept.clone(),
            durable_names: kept,
            directories: self.directories.clone(),
            next: self.next,
            ..SimDisk::default()
        }
    }

    pub fn name_changes(&self) -> usize {
        self.name_changes.len()
    }

    /// Writes a sector as if it had been durable, and gives what was there.
    pub fn swap(&mut self, sector: &Loose) -> Loose {
        let file = &mut self.inodes[sector.inode].durable;
        let end = (sector.place + sector.bytes.len()).min(file.len());
        let before = file.get(sector.place..end).unwrap_or_default().to_vec();
        overlay(file, sector.place, &sector.bytes);
        Loose { inode: sector.inode, place: sector.place, bytes: before }
    }

    /// Takes back a [`SimDisk::swap`] that did not make the file longer.
    pub fn len_of(&self, inode: usize) -> usize {
        self.inodes[inode].durable.len()
    }

    pub fn shorten(&mut self, inode: usize, len: usize) {
        self.inodes[inode].durable.truncate(len);
    }

    /// The bytes of a file, to damage them.
    pub fn bytes(&mut self, path: &Path) -> &mut Vec<u8> {
        let inode = self.names[path];
        &mut self.inodes[inode].durable
    }

    pub fn has(&self, path: &Path) -> bool {
        self.names.contains_key(path)
    }

    /// One image after a power cut now.
    pub fn cut(&self, rng: &mut Prng) -> SimDisk {
        let mut image = self.durable(rng.below(self.name_changes.len() as u64 + 1) as usize);
        for sector in choose(&self.loose(), rng) {
            image.swap(&sector);
        }
        image
    }
}

/// A seeded choice among loose sectors: none, all, whole runs, or each by itself.
pub fn choose(loose: &[Loose], rng: &mut Prng) -> Vec<Loose> {
    let pick = rng.below(6);
    let mut run = false;
    let mut chosen = Vec::new();
    for (index, sector) in loose.iter().enumerate() {
        if index.is_multiple_of(8) {
            run = rng.one_in(2);
        }
        let keep = match pick {
            0 => false,
            1 => true,
            2 | 3 => run,
            4 => !rng.one_in(8),
            _ => rng.one_in(2),
        };
        if keep {
            chosen.push(sector.clone());
        }
    }
    chosen
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Made(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Renamed(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Removed(path) => {
            names.remove(path);
        }
    }
}

impl Disk for SimDisk {
    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, IoError> {
        if !self.directories.contains(path) {
            return Err(IoError::NOT_FOUND);
        }
        let inside = self.names.iter().filter(|(name, _)| name.parent() == Some(path));
        Ok(inside
            .map(|(name, inode)| Entry {
                name: name.file_name().unwrap().to_str().unwrap().to_string(),
                len: self.inodes[*inode].durable.len() as u64,
                is_directory: false,
            })
            .collect())
    }

    fn open(&mut self, path: &Path, how: OpenHow) -> Result<File, IoError> {
        let inode = match self.names.get(path) {
            Some(inode) => *inode,
            None if how.create => {
                self.mutate()?;
                self.inodes.push(Inode::default());
                let change = NameChange::Made(path.to_path_buf(), self.inodes.len() - 1);
                apply(&mut self.names, &change);
                self.name_changes.push(change);
                self.inodes.len() - 1
            }
            None => return Err(IoError::NOT_FOUND),
        };
        self.next += 1;
        self.open.insert(self.next as u32, inode);
        Ok(File(self.next as u32))
    }

    fn close(&mut self, file: File) {
        self.open.remove(&file.0).unwrap();
    }

    fn len(&mut self, file: File) -> Result<u64, IoError> {
        let inode = &self.inodes[self.open[&file.0]];
        let ends = inode.pending.iter().map(|(_, place, bytes)| place + bytes.len());
        Ok(ends.chain([inode.durable.len()]).max().unwrap() as u64)
    }

    fn read(&mut self, file: File, place: u64, into: &mut [u8]) -> Result<usize, IoError> {
        let inode = &self.inodes[self.open[&file.0]];
        let view = if inode.pending.is_empty() {
            std::borrow::Cow::Borrowed(&inode.durable)
        } else {
            let mut view = inode.durable.clone();
            inode.pending.iter().for_each(|(_, place, bytes)| overlay(&mut view, *place, bytes));
            std::borrow::Cow::Owned(view)
        };
        let begin = (place as usize).min(view.len());
        let len = into.len().min(view.len() - begin);
        into[..len].copy_from_slice(&view[begin..begin + len]);
        Ok(len)
    }

    fn write(&mut self, file: File, place: u64, from: &[u8]) -> Result<(), IoError> {
        self.next += 1;
        let write = (self.next, place as usize, from.to_vec());
        let fused = self.fuse == Some(0);
        let inode = self.open[&file.0];
        self.inodes[inode].pending.push(write); // a write that fails may have happened
        if fused { Err(IoError::DEVICE) } else { self.mutate() }
    }

    fn sync(&mut self, file: File) -> Result<(), IoError> {
        self.mutate()?;
        let inode = &mut self.inodes[self.open[&file.0]];
        for (_, place, bytes) in std::mem::take(&mut inode.pending) {
            overlay(&mut inode.durable, place, &bytes);
        }
        Ok(())
    }

    fn sync_directory(&mut self, _: &Path) -> Result<(), IoError> {
        self.mutate()?;
        self.name_changes.clear();
        self.durable_names = self.names.clone();
        Ok(())
    }

    fn truncate(&mut self, _: File, _: u64) -> Result<(), IoError> {
        unreachable!("a journal cuts no file")
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.mutate()?;
        let change = NameChange::Renamed(from.to_path_buf(), to.to_path_buf());
        apply(&mut self.names, &change);
        self.name_changes.push(change);
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> Result<(), IoError> {
        self.mutate()?;
        let change = NameChange::Removed(path.to_path_buf());
        apply(&mut self.names, &change);
        self.name_changes.push(change);
        Ok(())
    }

    fn make_directories(&mut self, path: &Path) -> Result<(), IoError> {
        self.mutate()?;
        self.directories.insert(path.to_path_buf());
        Ok(())
    }

    fn remove_directory(&mut self, _: &Path) -> Result<(), IoError> {
        unreachable!("a journal removes no directory")
    }

    fn lock(&mut self, _: &Path) -> Result<bool, IoError> {
        Ok(true)
    }

    fn space(&mut self, _: &Path) -> Result<(u64, u64), IoError> {
        Ok((u64::MAX, u64::MAX))
    }
}
