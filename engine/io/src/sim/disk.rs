//! The disk of one simulated node: names, files, and what goes wrong with them.
//!
//! Everything here happens at once; when it happens, and what is still in flight, is the world's part.
//!
//! Invariants: steps are numbered in the order they happen; a file stays while a name, a waiting step or an open file leads to it.
//! Knows nothing of time.

use super::image::Image;
use super::names::{Named, Names};
use super::recording::{Change, Recording};
use super::{Fault, Loss, On, Wrong};
use crate::driver::{Entry, IoError, OpenHow};
use millrace_base::planted::{Bug, is_planted};
use millrace_base::prng::Prng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

#[derive(Clone)]
struct Stored {
    image: Image,
    open: u32,
    /// As it was opened first: faults are found by it.
    path: PathBuf,
}

/// Something that is not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Item {
    /// Of its step.
    pub(super) number: u64,
    /// None: a name.
    file: Option<u64>,
    /// None: a length.
    sector: Option<u64>,
}

#[derive(Clone)]
pub(super) struct Storage {
    names: Names,
    files: BTreeMap<u64, Stored>,
    last_file: u64,
    /// Number of the last step.
    step: u64,
    /// By folder: bytes that the files below it may hold together.
    capacities: BTreeMap<PathBuf, u64>,
    faults: Vec<Fault>,
    prng: Prng,
    /// The present time, and when the present operation was submitted, if that was earlier: for the recording alone.
    pub(super) now: u64,
    pub(super) began: Option<u64>,
    recording: Option<Rc<RefCell<Recording>>>,
}

/// What became of the sync of a synced write.
enum Settled {
    Yes,
    /// There was none.
    No,
    Failed(IoError),
}

/// The bytes of a file system without a limit of its own.
const CAPACITY: u64 = 1 << 40;

impl Storage {
    pub(super) fn new(prng: Prng) -> Storage {
        let (names, files) = (Names::default(), BTreeMap::new());
        let (faults, recording) = (Vec::new(), None);
        let capacities = BTreeMap::new();
        Storage { names, files, last_file: 0, step: 0, capacities, faults, prng, now: 0, began: None, recording }
    }

    /// Keeps all changes from now on; gives what it has kept so far.
    pub(super) fn record(&mut self) -> Option<Recording> {
        let before = self.recording.take();
        self.recording = Some(Rc::new(RefCell::new(Recording::new(self.clone()))));
        before.and_then(Rc::into_inner).map(RefCell::into_inner)
    }

    fn note(&self, change: impl FnOnce() -> Change) {
        if let Some(recording) = &self.recording {
            recording.borrow_mut().note(self.now, self.began.unwrap_or(self.now), change());
        }
    }

    /// Does a change again that was recorded.
    pub(super) fn apply(&mut self, change: &Change) {
        let done = match change {
            Change::Make { number, path, named } => {
                self.step = *number;
                if let Named::File(file) = named {
                    self.last_file = *file;
                    self.files.insert(*file, Stored { image: Image::default(), open: 0, path: path.clone() });
                }
                self.names.make(*number, path, *named)
            }
            Change::Rename { number, from, to } => {
                self.step = *number;
                self.names.rename(*number, from, to)
            }
            Change::Unlink { number, path } => {
                self.step = *number;
                self.names.unlink(*number, path)
            }
            Change::RemoveDirectory { number, path } => {
                self.step = *number;
                self.names.remove_directory(*number, path)
            }
            Change::SyncDirectory { number, path } => {
                self.names.sync(*number, path);
                Ok(())
            }
            Change::Write { number, file, place, bytes, synced } => {
                self.step = self.step.max(*number);
                if let Some(stored) = self.files.get_mut(file) {
                    stored.image.write(*number, *place, bytes);
                    if *synced {
                        stored.image.sync(*number, Some((*place, bytes.len() as u64)));
                    }
                }
                Ok(())
            }
            Change::Truncate { number, file, len } => {
                self.step = *number;
                if let Some(stored) = self.files.get_mut(file) {
                    stored.image.truncate(*number, *len);
                }
                Ok(())
            }
            Change::Sync { number, file } => {
                if let Some(stored) = self.files.get_mut(file) {
                    stored.image.sync(*number, None);
                }
                Ok(())
            }
        };
        done.expect("what was done once can be done again");
    }

    /// All that a power cut may take now.
    pub(super) fn undurable(&self) -> Vec<Item> {
        let names = self.names.undurable().map(|number| Item { number, file: None, sector: None });
        let of = |(file, stored): (&u64, &Stored)| {
            let file = *file;
            stored.image.undurable().map(|(number, sector)| Item { number, file: Some(file), sector }).collect::<Vec<_>>()
        };
        names.chain(self.files.iter().flat_map(of)).collect()
    }

    /// Of all names and bytes.
    pub(super) fn fingerprint(&self) -> u64 {
        self.names.present().fold(0, |hash, (path, named)| {
            let hash = mix(hash, path.as_os_str().as_encoded_bytes());
            match named {
                Named::File(file) => mix(hash, self.files.get(&file).map_or(&[], |stored| stored.image.bytes())),
                Named::Directory => hash,
            }
        })
    }

    /// The power goes, and takes all that is not durable and not kept.
    pub(super) fn cut_to(&mut self, kept: &mut dyn FnMut(Item) -> bool) {
        self.names.cut_to(&mut |number| kept(Item { number, file: None, sector: None }));
        let named = self.names.files();
        self.files.retain(|file, _| named.contains(file));
        for (file, stored) in &mut self.files {
            stored.open = 0;
            stored.image.cut_to(true, &mut |number, sector| kept(Item { number, file: Some(*file), sector }));
        }
    }

    /// The number of the last step: what a sync submitted now covers.
    pub(super) fn last_step(&self) -> u64 {
        self.step
    }

    fn next(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    /// None: the folder has no limit of its own.
    pub(super) fn set_capacity(&mut self, folder: &Path, capacity: Option<u64>) {
        match capacity {
            Some(capacity) => self.capacities.insert(folder.to_path_buf(), capacity),
            None => self.capacities.remove(folder),
        };
    }

    pub(super) fn clear_capacities(&mut self) {
        self.capacities.clear();
    }

    /// Free bytes and all bytes of what limits a path most.
    pub(super) fn space(&self, path: &Path) -> (u64, u64) {
        let used = |folder: &Path| -> u64 {
            self.files.values().filter(|stored| stored.path.starts_with(folder)).map(|stored| stored.image.len()).sum()
        };
        let limits = self.capacities.iter().filter(|(folder, _)| path.starts_with(folder));
        let least = limits.map(|(folder, capacity)| (capacity.saturating_sub(used(folder)), *capacity)).min();
        least.unwrap_or((CAPACITY, CAPACITY))
    }

    pub(super) fn add_fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Operations that are still to go wrong.
    pub(super) fn faults_left(&self) -> u64 {
        self.faults.iter().map(|fault| u64::from(fault.times)).sum()
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// What is to go wrong with this operation, if anything.
    fn fault(&mut self, on: On, path: &Path) -> Option<Wrong> {
        let path = path.to_string_lossy();
        for fault in &mut self.faults {
            let is_met = fault.on == on || matches!((fault.on, on), (On::Sync, On::Directory) | (On::Name, On::Unlink));
            if is_met && fault.times > 0 && path.contains(&fault.path) {
                if fault.after > 0 {
                    fault.after -= 1;
                    continue;
                }
                fault.times -= 1;
                return Some(fault.wrong);
            }
        }
        None
    }

    /// The error that is to come of this operation, if any; other wrongs have no meaning there.
    fn refusal(&mut self, on: On, path: &Path) -> Result<(), IoError> {
        match self.fault(on, path) {
            Some(Wrong::Error(error)) => Err(IoError(error)),
            Some(Wrong::Lost | Wrong::Misdirected(_) | Wrong::Flipped) | None => Ok(()),
        }
    }

    pub(super) fn open(&mut self, path: &Path, how: OpenHow) -> Result<u64, IoError> {
        check(path)?;
        self.refusal(On::Name, path)?;
        let file = match self.names.get(path) {
            Some(Named::Directory) => return Err(IoError(libc::EISDIR)),
            Some(Named::File(_)) if how.create && how.exclusive => return Err(IoError::EXISTS),
            Some(Named::File(file)) => file,
            None if how.create => {
                let (number, file) = (self.next(), self.last_file + 1);
                self.names.make(number, path, Named::File(file))?;
                self.note(|| Change::Make { number, path: path.to_path_buf(), named: Named::File(file) });
                self.last_file = file;
                self.files.insert(file, Stored { image: Image::default(), open: 0, path: path.to_path_buf() });
                file
            }
            None => {
                self.names.check_parent(path)?;
                return Err(IoError::NOT_FOUND);
            }
        };
        let stored = self.stored(file);
        stored.open += 1;
        stored.path = path.to_path_buf();
        Ok(file)
    }

    pub(super) fn close(&mut self, file: u64) {
        self.stored(file).open -= 1;
        self.forget_nameless();
    }

    fn forget_nameless(&mut self) {
        if self.files.values().any(|stored| stored.open == 0) {
            let named = self.names.files();
            self.files.retain(|file, stored| stored.open > 0 || named.contains(file));
        }
    }

    fn stored(&mut self, file: u64) -> &mut Stored {
        self.files.get_mut(&file).expect("an open file stays")
    }

    pub(super) fn len(&mut self, file: u64) -> u64 {
        self.stored(file).image.len()
    }

    pub(super) fn read(&mut self, file: u64, place: u64, into: &mut [u8]) -> Result<usize, IoError> {
        let path = self.stored(file).path.clone();
        let wrong = self.fault(On::Read, &path);
        let mut at = place;
        match wrong {
            Some(Wrong::Error(error)) => return Err(IoError(error)),
            Some(Wrong::Misdirected(by)) => at = place.saturating_add_signed(by),
            Some(Wrong::Lost | Wrong::Flipped) | None => {}
        }
        let image = &self.stored(file).image;
        if image.is_spoiled(at, into.len() as u64) {
            return Err(IoError::DEVICE);
        }
        let count = image.read(at, into);
        if wrong == Some(Wrong::Flipped) && count > 0 {
            self.flip(&mut into[..count]);
        }
        Ok(count)
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let at = self.prng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.prng.below(8);
    }

    fn grow_to(&mut self, file: u64, len: u64) -> Result<(), IoError> {
        let more = len.saturating_sub(self.stored(file).image.len());
        if len > i64::MAX as u64 {
            return Err(IoError(libc::EFBIG));
        }
        let free = self.space(&self.files[&file].path).0;
        if more > free { Err(IoError(libc::ENOSPC)) } else { Ok(()) }
    }

    pub(super) fn write(&mut self, file: u64, place: u64, from: &[u8], synced: bool) -> Result<(), IoError> {
        let path = self.stored(file).path.clone();
        let mut bytes = from.to_vec();
        let mut at = place;
        match self.fault(On::Write, &path) {
            Some(Wrong::Error(error)) => {
                if error == libc::EIO {
                    self.write_in_part(file, place, from);
                }
                return Err(IoError(error));
            }
            Some(Wrong::Lost) => return Ok(()),
            Some(Wrong::Misdirected(by)) => at = place.saturating_add_signed(by),
            Some(Wrong::Flipped) if !bytes.is_empty() => self.flip(&mut bytes),
            Some(Wrong::Flipped) | None => {}
        }
        self.grow_to(file, at.saturating_add(bytes.len() as u64))?;
        let settled = if synced { self.settle(&path) } else { Settled::No };
        let number = self.next();
        let is_synced = matches!(settled, Settled::Yes);
        self.note(|| Change::Write { number, file, place: at, bytes: bytes.as_slice().into(), synced: is_synced });
        let image = &mut self.stored(file).image;
        image.write(number, at, &bytes);
        match settled {
            Settled::Yes => image.sync(number, Some((at, bytes.len() as u64))),
            Settled::No => {}
            Settled::Failed(error) => {
                image.sync_failed();
                return Err(error);
            }
        }
        Ok(())
    }

    /// The second step of a synced write, which syncs the whole file.
    fn settle(&mut self, path: &Path) -> Settled {
        match self.fault(On::Sync, path) {
            Some(Wrong::Error(error)) if !is_planted(Bug::IgnoreSettleError) => Settled::Failed(IoError(error)),
            Some(Wrong::Error(_) | Wrong::Lost) => Settled::No,
            Some(Wrong::Misdirected(_) | Wrong::Flipped) | None => Settled::Yes,
        }
    }

    /// A write that did not end: a seeded choice of its sectors is on its way.
    pub(super) fn write_in_part(&mut self, file: u64, place: u64, from: &[u8]) {
        if self.grow_to(file, place.saturating_add(from.len() as u64)).is_err() {
            return;
        }
        let number = self.next();
        let mut at = 0;
        while at < from.len() {
            let len = (super::SECTOR - (place as usize + at) % super::SECTOR).min(from.len() - at);
            if self.prng.one_in(2) {
                let (place, bytes) = (place + at as u64, &from[at..at + len]);
                self.note(|| Change::Write { number, file, place, bytes: bytes.into(), synced: false });
                self.stored(file).image.write(number, place, bytes);
            }
            at += len;
        }
    }

    /// Covers the steps up to `number`.
    pub(super) fn sync(&mut self, file: u64, number: u64) -> Result<(), IoError> {
        let path = self.stored(file).path.clone();
        match self.fault(On::Sync, &path) {
            Some(Wrong::Error(error)) => {
                self.stored(file).image.sync_failed();
                Err(IoError(error))
            }
            // A device that says it has flushed, and has not.
            Some(Wrong::Lost) => Ok(()),
            Some(Wrong::Misdirected(_) | Wrong::Flipped) | None => {
                self.note(|| Change::Sync { number, file });
                self.stored(file).image.sync(number, None);
                Ok(())
            }
        }
    }

    pub(super) fn truncate(&mut self, file: u64, len: u64) -> Result<(), IoError> {
        let path = self.stored(file).path.clone();
        self.refusal(On::Write, &path)?;
        self.grow_to(file, len)?;
        let number = self.next();
        self.note(|| Change::Truncate { number, file, len });
        self.stored(file).image.truncate(number, len);
        Ok(())
    }

    pub(super) fn allocate(&mut self, file: u64, len: u64) -> Result<(), IoError> {
        if self.stored(file).image.len() < len { self.truncate(file, len) } else { Ok(()) }
    }

    pub(super) fn sync_directory(&mut self, path: &Path, number: u64) -> Result<(), IoError> {
        check(path)?;
        self.refusal(On::Directory, path)?;
        match self.names.get(path) {
            Some(Named::Directory) => {
                self.note(|| Change::SyncDirectory { number, path: path.to_path_buf() });
                self.names.sync(number, path);
            }
            Some(Named::File(_)) => return Err(IoError(libc::ENOTDIR)),
            None => return Err(IoError::NOT_FOUND),
        }
        self.forget_nameless();
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), IoError> {
        check(from)?;
        check(to)?;
        self.refusal(On::Name, from)?;
        let number = self.next();
        self.names.rename(number, from, to)?;
        self.note(|| Change::Rename { number, from: from.to_path_buf(), to: to.to_path_buf() });
        self.forget_nameless();
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> Result<(), IoError> {
        check(path)?;
        self.refusal(On::Unlink, path)?;
        let number = self.next();
        self.names.unlink(number, path)?;
        self.note(|| Change::Unlink { number, path: path.to_path_buf() });
        self.forget_nameless();
        Ok(())
    }

    pub(super) fn make_directory(&mut self, path: &Path) -> Result<(), IoError> {
        check(path)?;
        self.refusal(On::Name, path)?;
        let number = self.next();
        self.names.make(number, path, Named::Directory)?;
        self.note(|| Change::Make { number, path: path.to_path_buf(), named: Named::Directory });
        Ok(())
    }

    pub(super) fn make_directories(&mut self, path: &Path) -> Result<(), IoError> {
        let mut above: Vec<&Path> = path.ancestors().filter(|path| path.parent().is_some()).collect();
        above.reverse();
        for path in above {
            match self.names.get(path) {
                Some(Named::Directory) => {}
                Some(Named::File(_)) => return Err(IoError(libc::ENOTDIR)),
                None => self.make_directory(path)?,
            }
        }
        Ok(())
    }

    pub(super) fn remove_directory(&mut self, path: &Path) -> Result<(), IoError> {
        check(path)?;
        self.refusal(On::Name, path)?;
        let number = self.next();
        self.names.remove_directory(number, path)?;
        self.note(|| Change::RemoveDirectory { number, path: path.to_path_buf() });
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<Entry>, IoError> {
        match self.names.get(path) {
            Some(Named::Directory) => {}
            Some(Named::File(_)) => return Err(IoError(libc::ENOTDIR)),
            None => return Err(IoError::NOT_FOUND),
        }
        let entry = |(child, named): (&Path, Named)| {
            let name = child.file_name()?.to_str()?.to_string();
            Some(match named {
                Named::File(file) => Entry { name, len: self.files.get(&file)?.image.len(), is_directory: false },
                Named::Directory => Entry { name, len: 0, is_directory: true },
            })
        };
        let mut entries: Vec<Entry> = self.names.children(path).filter_map(entry).collect();
        entries.sort();
        Ok(entries)
    }

    /// The image behind a path, for harm from outside.
    pub(super) fn image(&mut self, path: &Path) -> Option<&mut Image> {
        match self.names.get(path) {
            Some(Named::File(file)) => Some(&mut self.stored(file).image),
            Some(Named::Directory) | None => None,
        }
    }

    /// The power went, with nothing in flight or open any more.
    pub(super) fn cut_power(&mut self, loss: Loss) {
        let last = self.step;
        let keep_to = self.prng.below(last + 1);
        self.names.cut_power(loss, keep_to, &mut self.prng);
        let named = self.names.files();
        self.files.retain(|file, _| named.contains(file));
        for stored in self.files.values_mut() {
            stored.open = 0;
            stored.image.cut_power(loss, last, keep_to, &mut self.prng);
        }
        if let Some(recording) = self.recording.take() {
            recording.borrow_mut().cut(self.clone());
            self.recording = Some(recording);
        }
    }
}

/// Takes bytes and their count into a hash.
fn mix(hash: u64, bytes: &[u8]) -> u64 {
    let one = |hash: u64, word: [u8; 8]| (hash.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(one(hash, (bytes.len() as u64 + 1).to_le_bytes()), |hash, word| one(hash, *word));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    one(hash, last)
}

/// What the system refuses in any path.
fn check(path: &Path) -> Result<(), IoError> {
    if path.as_os_str().as_encoded_bytes().contains(&0) { Err(IoError(libc::EINVAL)) } else { Ok(()) }
}
