//! The two images of every file: as it is now, and as a power cut leaves it.
//!
//! 1. Both are files of a folder, `<inode>.now` and `<inode>.durable`. They differ only in the *loose* bytes, written since the last sync,
//!    and in length. A sync copies the loose bytes over.
//! 2. A cut decides for each loose unit, of 512 bytes or 4 KiB, whether it is kept, and for each changed length likewise; then both images are
//!    the same again, and nothing answers any more.
//! 3. A sync that fails gives its loose bytes up: no later sync keeps them unless they are written again.
//! 4. Names are in [`crate::names`], and in the file `names` when the store is closed or cut.
//!
//! Invariants: now and durable are equal outside of loose and lost ranges, up to the shorter length.
//! Knows nothing of the kernel. The folder's own durability is not its concern: the machine stays up.

use crate::names::{Kind, Names, ROOT};
use millrace_base::prng::Prng;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const NAMES: &str = "names";

/// What an operation answers when it does not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NotFound,
    Exists,
    NotEmpty,
    /// A fault that was asked for, or the folder's own.
    Device,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Refusal {
        Refusal::Device
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailSync {
    Never,
    Once,
    Always,
}

/// Byte ranges that do not touch: begin to end.
#[derive(Clone, Default, Debug)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn add(&mut self, begin: u64, end: u64) {
        let (mut begin, mut end) = (begin, end);
        let touching: Vec<(u64, u64)> = self.0.range(..=end).filter(|(_, e)| **e >= begin).map(|(b, e)| (*b, *e)).collect();
        for (b, e) in touching {
            self.0.remove(&b);
            (begin, end) = (begin.min(b), end.max(e));
        }
        if begin < end {
            self.0.insert(begin, end);
        }
    }

    fn remove(&mut self, begin: u64, end: u64) {
        let touching: Vec<(u64, u64)> = self.0.range(..end).filter(|(_, e)| **e > begin).map(|(b, e)| (*b, *e)).collect();
        for (b, e) in touching {
            self.0.remove(&b);
            if b < begin {
                self.0.insert(b, begin);
            }
            if e > end {
                self.0.insert(end, e);
            }
        }
    }
}

struct Inode {
    now: File,
    durable: File,
    len: u64,
    durable_len: u64,
    /// The shortest it has been since the last sync: what stands behind in the durable image is gone.
    floor: u64,
    loose: Ranges,
    /// Given up by a sync that failed.
    lost: Ranges,
}

impl Inode {
    fn open(folder: &Path, number: u64, is_new: bool) -> io::Result<Inode> {
        let open = |image: &str| {
            let path = folder.join(format!("{number}.{image}"));
            OpenOptions::new().read(true).write(true).create(is_new).truncate(is_new).open(path)
        };
        let (now, durable) = (open("now")?, open("durable")?);
        let len = durable.metadata()?.len();
        Ok(Inode { now, durable, len, durable_len: len, floor: len, loose: Ranges::default(), lost: Ranges::default() })
    }

    fn keep(&mut self) -> io::Result<()> {
        self.durable.set_len(self.floor.min(self.durable_len))?;
        for (begin, end) in std::mem::take(&mut self.loose).0 {
            copy(&self.now, &self.durable, begin, end.min(self.len))?;
        }
        self.durable.set_len(self.len)?;
        (self.durable_len, self.floor) = (self.len, self.len);
        Ok(())
    }

    fn give_up(&mut self) {
        for (begin, end) in std::mem::take(&mut self.loose).0 {
            self.lost.add(begin, end);
        }
    }

    /// A part is kept. Gives the bytes kept and those dropped.
    fn cut(&mut self, prng: &mut Prng, keeps_nothing: bool) -> io::Result<(u64, u64)> {
        if self.loose.0.is_empty() && self.lost.0.is_empty() && self.len == self.durable_len && self.floor == self.len {
            return Ok((0, 0));
        }
        let unit = if prng.one_in(2) { 512 } else { 4096 };
        // Of each sixteen units so many are kept.
        let of_sixteen = if keeps_nothing { 0 } else { [0, 1, 8, 15, 16][prng.below(5) as usize] };
        let keeps_len = !keeps_nothing && prng.one_in(2);
        let mut differ = self.lost.clone();
        if self.floor < self.durable_len {
            differ.add(self.floor, self.durable_len);
        }
        let limit = if keeps_len {
            self.durable.set_len(self.floor.min(self.durable_len))?;
            self.len
        } else {
            self.durable_len
        };
        let (mut kept, mut dropped) = (0, 0);
        for (begin, end) in std::mem::take(&mut self.loose).0 {
            differ.add(begin, end);
            let mut at = begin;
            while at < end {
                let to = ((at / unit + 1) * unit).min(end);
                if prng.below(16) < of_sixteen && to <= limit {
                    copy(&self.now, &self.durable, at, to)?;
                    kept += to - at;
                } else {
                    dropped += to - at;
                }
                at = to;
            }
        }
        self.durable.set_len(limit)?;
        (self.durable_len, self.len, self.floor) = (limit, limit, limit);
        self.lost = Ranges::default();
        self.now.set_len(limit)?;
        for (begin, end) in differ.0 {
            copy(&self.durable, &self.now, begin, end.min(limit))?;
        }
        Ok((kept, dropped))
    }

    /// The bytes that a failed sync gave up are what the disk holds.
    fn forget_lost(&mut self) -> io::Result<()> {
        for (begin, end) in std::mem::take(&mut self.lost).0 {
            copy(&self.durable, &self.now, begin, end.min(self.len))?;
        }
        Ok(())
    }
}

/// What `from` does not hold is zeros.
fn copy(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = begin;
    while at < end {
        let len = (end - at).min(buffer.len() as u64) as usize;
        let read = read_at(from, at, &mut buffer[..len])?;
        buffer[read..len].fill(0);
        to.write_all_at(&buffer[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// Bytes until the end of the file.
fn read_at(file: &File, place: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], place + done as u64) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

pub struct Store {
    folder: PathBuf,
    names: Names,
    inodes: BTreeMap<u64, Inode>,
    /// Handles by inode: what is open stays, whatever its name.
    open: BTreeMap<u64, u32>,
    next: u64,
    prng: Prng,
    is_dead: bool,
    lies: bool,
    fail_sync: FailSync,
    fail_io: bool,
    syncs_failed: u64,
}

impl Store {
    /// What is durable in `folder`; an empty one is an empty file system.
    pub fn open(folder: &Path, seed: u64) -> io::Result<Store> {
        fs::create_dir_all(folder)?;
        let names = match fs::read_to_string(folder.join(NAMES)) {
            Ok(text) => Names::decode(&text).ok_or(io::ErrorKind::InvalidData)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Names::default(),
            Err(error) => return Err(error),
        };
        let mut inodes = BTreeMap::new();
        for (inode, kind) in names.now.reachable() {
            if kind == Kind::File {
                inodes.insert(inode, Inode::open(folder, inode, false)?);
            }
        }
        let next = names.now.reachable().into_keys().max().unwrap_or(ROOT) + 1;
        Ok(Store {
            folder: folder.to_owned(),
            names,
            inodes,
            open: BTreeMap::new(),
            next,
            prng: Prng::new(seed),
            is_dead: false,
            lies: false,
            fail_sync: FailSync::Never,
            fail_io: false,
            syncs_failed: 0,
        })
    }

    fn alive(&self) -> Result<(), Refusal> {
        if self.is_dead { Err(Refusal::Device) } else { Ok(()) }
    }

    fn inode(&mut self, inode: u64) -> Result<&mut Inode, Refusal> {
        self.alive()?;
        if self.fail_io {
            return Err(Refusal::Device);
        }
        self.inodes.get_mut(&inode).ok_or(Refusal::NotFound)
    }

    /// The inode behind a name.
    pub fn find(&self, directory: u64, name: &OsStr) -> Result<(u64, Kind), Refusal> {
        self.alive()?;
        self.names.now.find(directory, name).ok_or(Refusal::NotFound)
    }

    /// Kind and length.
    pub fn facts(&self, inode: u64) -> Result<(Kind, u64), Refusal> {
        self.alive()?;
        match self.inodes.get(&inode) {
            Some(file) => Ok((Kind::File, file.len)),
            None => Ok((Kind::Directory, 0)),
        }
    }

    /// Names, inodes and kinds.
    pub fn list(&self, directory: u64) -> Result<Vec<(std::ffi::OsString, u64, Kind)>, Refusal> {
        self.alive()?;
        Ok(self.names.now.list(directory).map(|(name, inode, kind)| (name.clone(), inode, kind)).collect())
    }

    pub fn make(&mut self, directory: u64, name: &OsStr, kind: Kind) -> Result<u64, Refusal> {
        self.alive()?;
        if self.names.now.find(directory, name).is_some() {
            return Err(Refusal::Exists);
        }
        let inode = self.next;
        self.next += 1;
        if kind == Kind::File {
            self.inodes.insert(inode, Inode::open(&self.folder, inode, true)?);
        }
        self.names.make(directory, name, inode, kind);
        Ok(inode)
    }

    pub fn remove(&mut self, directory: u64, name: &OsStr) -> Result<(), Refusal> {
        let (inode, kind) = self.find(directory, name)?;
        if kind == Kind::Directory && self.names.now.list(inode).next().is_some() {
            return Err(Refusal::NotEmpty);
        }
        self.names.remove(directory, name);
        Ok(())
    }

    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Refusal> {
        self.find(from.0, from.1)?;
        self.names.rename(from, to);
        Ok(())
    }

    pub fn opened(&mut self, inode: u64) {
        *self.open.entry(inode).or_default() += 1;
    }

    pub fn closed(&mut self, inode: u64) {
        if let Some(count) = self.open.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&inode);
            }
        }
    }

    pub fn read(&mut self, inode: u64, place: u64, len: usize) -> Result<Vec<u8>, Refusal> {
        let file = self.inode(inode)?;
        let len = len.min(usize::try_from(file.len.saturating_sub(place)).unwrap_or(usize::MAX));
        let mut bytes = vec![0; len];
        read_at(&file.now, place, &mut bytes)?;
        Ok(bytes)
    }

    pub fn write(&mut self, inode: u64, place: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let file = self.inode(inode)?;
        file.now.write_all_at(bytes, place)?;
        let end = place + bytes.len() as u64;
        file.loose.add(place, end);
        file.lost.remove(place, end);
        file.len = file.len.max(end);
        Ok(())
    }

    pub fn set_len(&mut self, inode: u64, len: u64) -> Result<(), Refusal> {
        let file = self.inode(inode)?;
        file.now.set_len(len)?;
        file.len = len;
        file.floor = file.floor.min(len);
        file.loose.remove(len, u64::MAX);
        file.lost.remove(len, u64::MAX);
        Ok(())
    }

    /// Room for `end` bytes; longer than the file, it is that long then, with zeros.
    pub fn allocate(&mut self, inode: u64, end: u64) -> Result<(), Refusal> {
        let file = self.inode(inode)?;
        if end > file.len {
            file.now.set_len(end)?;
            file.len = end;
        }
        Ok(())
    }

    pub fn sync(&mut self, inode: u64) -> Result<(), Refusal> {
        let lies = self.lies;
        let fails = self.fails();
        let file = self.inode(inode)?;
        match (fails, lies) {
            (true, _) => {
                file.give_up();
                Err(Refusal::Device)
            }
            (false, true) => Ok(()),
            (false, false) => Ok(file.keep()?),
        }
    }

    pub fn sync_directory(&mut self, directory: u64) -> Result<(), Refusal> {
        self.alive()?;
        if self.fail_io || self.fails() {
            return Err(Refusal::Device);
        }
        if !self.lies {
            self.names.sync(directory);
            self.forget_unneeded();
        }
        Ok(())
    }

    /// Whether this sync is one that fails.
    fn fails(&mut self) -> bool {
        let fails = self.fail_sync != FailSync::Never && !self.is_dead;
        if self.fail_sync == FailSync::Once {
            self.fail_sync = FailSync::Never;
        }
        self.syncs_failed += u64::from(fails);
        fails
    }

    /// Files that no image reaches and nobody holds open.
    fn forget_unneeded(&mut self) {
        let needed = self.names.needed();
        let (folder, open) = (&self.folder, &self.open);
        self.inodes.retain(|inode, _| {
            let is_needed = needed.contains(inode) || open.contains_key(inode);
            if !is_needed {
                for image in ["now", "durable"] {
                    let _ = fs::remove_file(folder.join(format!("{inode}.{image}"))); // what is left behind costs room alone
                }
            }
            is_needed
        });
    }

    /// Power fails. Gives a line for the person.
    pub fn cut(&mut self) -> io::Result<String> {
        self.is_dead = true;
        let (mut kept, mut dropped, mut files) = (0, 0, 0);
        for inode in self.inodes.values_mut() {
            let (more, less) = inode.cut(&mut self.prng, self.lies)?;
            files += u64::from(more + less > 0);
            (kept, dropped) = (kept + more, dropped + less);
        }
        let names = self.names.cut(&mut self.prng);
        self.save()?;
        Ok(format!("cut: {files} files with loose bytes, {kept} bytes kept, {dropped} dropped, {names} changes of names dropped"))
    }

    pub fn lie(&mut self) -> String {
        self.lies = true;
        "lies: syncs keep nothing from now on".to_owned()
    }

    pub fn fail_syncs(&mut self, how: FailSync) -> String {
        self.fail_sync = how;
        format!("syncs fail: {how:?}; {} failed so far", self.syncs_failed)
    }

    pub fn fail_io(&mut self) -> String {
        self.fail_io = true;
        "reads, writes and syncs fail".to_owned()
    }

    /// After the unmount. What was written is durable then, but for what a failed sync gave up.
    pub fn close(&mut self) -> io::Result<()> {
        if !self.is_dead {
            for inode in self.inodes.values_mut() {
                inode.forget_lost()?;
                inode.keep()?;
            }
            self.names.sync_all();
        }
        self.save()
    }

    fn save(&mut self) -> io::Result<()> {
        fs::write(self.folder.join(NAMES), self.names.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("millrace-faultfs-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn made(store: &mut Store, name: &str) -> u64 {
        let inode = store.make(ROOT, OsStr::new(name), Kind::File).unwrap();
        store.sync_directory(ROOT).unwrap();
        inode
    }

    fn whole(folder: &Path, inode: u64) -> Vec<u8> {
        let mut store = Store::open(folder, 0).unwrap();
        let len = store.facts(inode).unwrap().1 as usize;
        store.read(inode, 0, len).unwrap()
    }

    #[test]
    fn a_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
        let scratch = Scratch::new("cut");
        let (mut torn, mut all, mut none) = (0, 0, 0);
        for seed in 0..40 {
            let _ = fs::remove_dir_all(&scratch.0);
            let mut store = Store::open(&scratch.0, seed).unwrap();
            let inode = made(&mut store, "f");
            store.write(inode, 0, &[1; 64 << 10]).unwrap();
            store.sync(inode).unwrap();
            store.write(inode, 16 << 10, &[2; 16 << 10]).unwrap();
            assert_eq!(store.read(inode, 16 << 10, 1).unwrap(), [2]);
            store.cut().unwrap();
            assert_eq!(store.read(inode, 0, 1), Err(Refusal::Device), "dead until it is opened again");
            let bytes = whole(&scratch.0, inode);
            assert_eq!(bytes.len(), 64 << 10);
            assert!(bytes[..16 << 10].iter().chain(&bytes[32 << 10..]).all(|byte| *byte == 1));
            let loose = &bytes[16 << 10..32 << 10];
            assert!(loose.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "a sector is old or new");
            match loose.iter().filter(|byte| **byte == 2).count() {
                0 => none += 1,
                count if count == loose.len() => all += 1,
                _ => torn += 1,
            }
        }
        assert!(torn > 5 && all > 0 && none > 0, "{torn} torn, {all} whole, {none} without");
    }

    #[test]
    fn a_length_that_was_not_synced_may_be_lost_and_shortened_bytes_never_come_back_as_others() {
        let scratch = Scratch::new("length");
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let _ = fs::remove_dir_all(&scratch.0);
            let mut store = Store::open(&scratch.0, seed).unwrap();
            let inode = made(&mut store, "f");
            store.write(inode, 0, &[1; 8192]).unwrap();
            store.sync(inode).unwrap();
            store.set_len(inode, 4096).unwrap();
            store.write(inode, 8192, &[3; 4096]).unwrap();
            assert_eq!(store.read(inode, 4096, 4096).unwrap(), [0; 4096]);
            store.cut().unwrap();
            let bytes = whole(&scratch.0, inode);
            lengths.insert(bytes.len());
            assert!(bytes[..4096].iter().all(|byte| *byte == 1));
            if bytes.len() > 8192 {
                assert!(bytes[4096..8192].iter().all(|byte| *byte == 0));
            }
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [8192, 12288]);
    }

    #[test]
    fn what_a_failed_sync_gave_up_no_later_sync_brings_back() {
        let scratch = Scratch::new("failed");
        let mut store = Store::open(&scratch.0, 1).unwrap();
        let inode = made(&mut store, "f");
        store.write(inode, 0, &[1; 8192]).unwrap();
        store.sync(inode).unwrap();
        store.write(inode, 0, &[2; 4096]).unwrap();
        store.fail_syncs(FailSync::Once);
        assert_eq!(store.sync(inode), Err(Refusal::Device));
        store.write(inode, 4096, &[2; 4096]).unwrap();
        assert_eq!(store.sync(inode), Ok(()));
        assert_eq!(store.read(inode, 0, 1).unwrap(), [2], "the cache has it still");
        store.close().unwrap();
        let bytes = whole(&scratch.0, inode);
        assert_eq!((bytes[0], bytes[4096]), (1, 2));
    }

    #[test]
    fn a_lie_is_found_out_by_the_next_cut() {
        let scratch = Scratch::new("lie");
        let mut store = Store::open(&scratch.0, 1).unwrap();
        let inode = made(&mut store, "f");
        store.write(inode, 0, &[1; 512]).unwrap();
        store.sync(inode).unwrap();
        store.lie();
        store.write(inode, 0, &[2; 512]).unwrap();
        store.sync(inode).unwrap();
        store.cut().unwrap();
        assert_eq!(whole(&scratch.0, inode), [1; 512]);
    }

    #[test]
    fn a_close_without_a_cut_keeps_all_and_drops_what_was_removed() {
        let scratch = Scratch::new("close");
        let mut store = Store::open(&scratch.0, 1).unwrap();
        let (kept, gone) = (made(&mut store, "kept"), made(&mut store, "gone"));
        store.write(kept, 0, b"bytes").unwrap();
        store.opened(gone);
        store.remove(ROOT, OsStr::new("gone")).unwrap();
        store.sync_directory(ROOT).unwrap();
        assert!(store.write(gone, 0, b"x").is_ok(), "an open file outlives its name");
        store.closed(gone);
        store.close().unwrap();
        assert_eq!(whole(&scratch.0, kept), b"bytes");
        assert_eq!(Store::open(&scratch.0, 0).unwrap().find(ROOT, OsStr::new("gone")), Err(Refusal::NotFound));
    }
}
