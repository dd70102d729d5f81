//! The file system: every file in its two images, as it is now and as a power cut leaves it, and what goes wrong with them.
//!
//! 1. Both images are files of a folder, `<inode>.now` and `<inode>.durable` ([`crate::file`]).
//! 2. A cut decides for each loose unit, of 512 bytes or 4 KiB, whether it is kept, and for each changed length likewise; then both images are
//!    the same again, and nothing answers any more.
//! 3. A sync that fails gives its loose bytes up: no later sync keeps them unless they are written again.
//! 4. A write may be lost or go astray while it says that it is done; room may be bounded; an operation may take its time.
//! 5. Names are in [`crate::names`], and in the file `names` when the store is closed or cut.
//!
//! Invariants: what files have room for <= the capacity from when that is set, unless it was set below.
//! Knows nothing of the kernel. The folder's own durability is not its concern: the machine stays up. Only images outlive a mount: what the
//! device cannot read, the capacity and the delay do not.

use crate::file::Inode;
use crate::names::{Kind, Names, ROOT};
use millrace_base::prng::Prng;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

const NAMES: &str = "names";

/// Room is taken in these.
pub const BLOCK: u64 = 4096;

/// Bytes of the file system while nothing else is said.
const CAPACITY: u64 = 64 << 30;

/// What an operation answers when it does not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NotFound,
    Exists,
    NotEmpty,
    /// The capacity is reached.
    NoRoom,
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

/// What becomes of a write that says it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Astray {
    Lost,
    /// It goes so many bytes further, or back. What would be outside of the file hits nothing.
    By(i64),
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
    /// For the next write of a file whose name ends so.
    astray: Option<(String, Astray)>,
    /// None: without a bound of ours.
    capacity: Option<u64>,
    delay_ms: RangeInclusive<u64>,
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
            astray: None,
            capacity: None,
            delay_ms: 0..=0,
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
        self.inode(inode)?.read(place, len)
    }

    pub fn write(&mut self, inode: u64, place: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let end = place + bytes.len() as u64;
        self.take_room(inode, end)?;
        let astray = self.astray_of(inode);
        let file = self.inode(inode)?;
        let Some(astray) = astray else { return Ok(file.write(place, bytes)?) };
        // The length is the file system's own, and nothing that a device loses.
        file.grow(end)?;
        if let Astray::By(by) = astray {
            let place = place.saturating_add_signed(by);
            let fits = (bytes.len() as u64).min(file.len.saturating_sub(place));
            file.write(place, &bytes[..fits as usize])?;
        }
        Ok(())
    }

    /// The wrong that was asked for, if it is this file's.
    fn astray_of(&mut self, inode: u64) -> Option<Astray> {
        let (ending, _) = self.astray.as_ref()?;
        let is_met = self.names.now.name_of(inode).is_some_and(|name| name.to_string_lossy().ends_with(ending.as_str()));
        if is_met { self.astray.take().map(|(_, astray)| astray) } else { None }
    }

    pub fn set_len(&mut self, inode: u64, len: u64) -> Result<(), Refusal> {
        self.take_room(inode, len)?;
        Ok(self.inode(inode)?.set_len(len)?)
    }

    /// Room for `end` bytes; longer than the file, it is that long then, with zeros.
    pub fn allocate(&mut self, inode: u64, end: u64) -> Result<(), Refusal> {
        self.take_room(inode, end)?;
        Ok(self.inode(inode)?.grow(end)?)
    }

    /// Whether there is room for a file of `end` bytes, be it with zeros.
    fn take_room(&mut self, inode: u64, end: u64) -> Result<(), Refusal> {
        let had = self.inode(inode)?.len.next_multiple_of(BLOCK);
        match self.capacity {
            Some(capacity) if end > had && self.used() - had + end.next_multiple_of(BLOCK) > capacity => Err(Refusal::NoRoom),
            _ => Ok(()),
        }
    }

    /// Bytes of the blocks of all files that have a name or are open.
    fn used(&self) -> u64 {
        let named = self.names.now.reachable();
        let is_there = |inode: &u64| named.contains_key(inode) || self.open.contains_key(inode);
        self.inodes.iter().filter(|(inode, _)| is_there(inode)).map(|(_, file)| file.len.next_multiple_of(BLOCK)).sum()
    }

    /// Bytes that are free, and of all.
    pub fn space(&self) -> (u64, u64) {
        let capacity = self.capacity.unwrap_or(CAPACITY);
        (capacity.saturating_sub(self.used()), capacity)
    }

    /// What an operation waits for before it happens.
    pub fn delay(&mut self) -> Duration {
        let (least, most) = (*self.delay_ms.start(), *self.delay_ms.end());
        Duration::from_millis(if most == 0 { 0 } else { least + self.prng.below(most - least + 1) })
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

    /// The sectors that hold bytes `begin` to `end` of the file cannot be read until they are written again.
    pub fn spoil(&mut self, path: &Path, begin: u64, end: u64) -> Result<String, Refusal> {
        let mut inode = ROOT;
        for part in path.components().filter(|part| *part != Component::RootDir) {
            (inode, _) = self.find(inode, part.as_os_str())?;
        }
        let (begin, end) = self.inode(inode)?.spoil(begin, end);
        Ok(format!("bytes {begin} to {end} of {} cannot be read", path.display()))
    }

    /// The next write of a file whose name ends so says that it is done.
    pub fn lead_astray(&mut self, ending: &str, how: Astray) -> String {
        self.astray = Some((ending.to_owned(), how));
        format!("the next write of *{ending}: {how:?}")
    }

    /// From now on each operation takes so many milliseconds.
    pub fn slow(&mut self, delay_ms: RangeInclusive<u64>) -> String {
        let line = format!("each operation takes {} to {} ms", delay_ms.start(), delay_ms.end());
        self.delay_ms = delay_ms;
        line
    }

    /// So many bytes can be taken beyond those that are. None: there is no bound.
    pub fn leave_room(&mut self, bytes: Option<u64>) -> String {
        self.capacity = bytes.map(|bytes| self.used() + bytes);
        let (free, capacity) = self.space();
        format!("{free} bytes of {capacity} are free")
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
    fn bytes_that_cannot_be_read_are_read_again_once_they_are_written() {
        let scratch = Scratch::new("bad");
        let mut store = Store::open(&scratch.0, 1).unwrap();
        let directory = store.make(ROOT, OsStr::new("d"), Kind::Directory).unwrap();
        let inode = store.make(directory, OsStr::new("f"), Kind::File).unwrap();
        store.write(inode, 0, &[1; 5000]).unwrap();
        assert_eq!(store.spoil(Path::new("d/g"), 0, 1), Err(Refusal::NotFound));
        assert_eq!(store.spoil(Path::new("/d/f"), 1000, 1537).as_deref(), Ok("bytes 512 to 2048 of /d/f cannot be read"));
        store.spoil(Path::new("d/f"), 4999, 9000).unwrap();
        let is_read = |store: &mut Store, begin: u64, end: u64| match store.read(inode, begin, (end - begin) as usize) {
            Ok(bytes) => bytes.len() as u64 == end - begin,
            Err(refusal) => refusal != Refusal::Device,
        };
        assert!(is_read(&mut store, 0, 512) && is_read(&mut store, 2048, 4608));
        assert!(!is_read(&mut store, 0, 513) && !is_read(&mut store, 2047, 2048) && !is_read(&mut store, 4999, 5000));
        // Half a sector does not make it whole.
        store.write(inode, 512, &[2; 700]).unwrap();
        store.write(inode, 1600, &[2; 100]).unwrap();
        assert!(is_read(&mut store, 512, 1024) && !is_read(&mut store, 1024, 1025) && !is_read(&mut store, 1536, 1537));
        store.write(inode, 1024, &[3; 1024]).unwrap();
        assert!(is_read(&mut store, 0, 4608));
        // The last one ends with the file.
        store.write(inode, 4608, &[3; 392]).unwrap();
        assert!(is_read(&mut store, 0, 5000));
        store.spoil(Path::new("d/f"), 4096, 5000).unwrap();
        store.set_len(inode, 4096).unwrap();
        store.allocate(inode, 8192).unwrap();
        assert!(is_read(&mut store, 0, 8192), "what was cut off is no more");
    }

    #[test]
    fn a_write_that_is_lost_or_goes_astray_says_that_it_is_done() {
        let scratch = Scratch::new("astray");
        let mut store = Store::open(&scratch.0, 1).unwrap();
        let (log, other) = (made(&mut store, "1.log"), made(&mut store, "1.index"));
        store.write(log, 0, &[1; 4096]).unwrap();
        store.lead_astray(".log", Astray::Lost);
        store.write(other, 0, &[2; 10]).unwrap();
        assert_eq!(store.read(other, 0, 10).unwrap(), [2; 10], "it is another file");
        store.write(log, 4096, &[2; 4096]).unwrap();
        store.write(log, 0, &[3; 512]).unwrap();
        assert_eq!(store.read(log, 0, 512).unwrap(), [3; 512], "it is one write");
        assert_eq!(store.read(log, 4096, 9000).unwrap(), [0; 4096], "the file has its length");
        store.lead_astray(".log", Astray::By(-1024));
        store.write(log, 2048, &[4; 512]).unwrap();
        assert_eq!((store.read(log, 1024, 512).unwrap()[0], store.read(log, 2048, 512).unwrap()[0]), (4, 1));
        store.lead_astray(".log", Astray::By(8000));
        store.write(log, 0, &[5; 512]).unwrap();
        assert_eq!(store.facts(log), Ok((Kind::File, 8192)));
        store.sync(log).unwrap();
        store.cut().unwrap();
        let bytes = whole(&scratch.0, log);
        assert_eq!(
            (bytes[0], bytes[1024], bytes[7999], bytes[8000], bytes[8191]),
            (3, 4, 0, 5, 5),
            "a sync makes durable what was written"
        );
    }

    #[test]
    fn a_bound_of_room_is_reached_and_lifted() {
        let scratch = Scratch::new("room");
        let mut store = Store::open(&scratch.0, 1).unwrap();
        let (one, two) = (made(&mut store, "one"), made(&mut store, "two"));
        store.write(one, 0, &[1; 4097]).unwrap();
        assert_eq!(store.leave_room(Some(8192)), "8192 bytes of 16384 are free");
        store.write(one, 4097, &[1; 4095]).unwrap();
        assert_eq!(store.space(), (8192, 16384), "that was in the file's last block");
        assert_eq!(store.allocate(two, 8193), Err(Refusal::NoRoom));
        assert_eq!(store.facts(two), Ok((Kind::File, 0)));
        store.allocate(two, 8192).unwrap();
        assert_eq!(store.write(one, 8192, &[1]), Err(Refusal::NoRoom));
        assert_eq!(store.set_len(one, 8193), Err(Refusal::NoRoom));
        assert_eq!(store.write(one, 0, &[2; 8192]), Ok(()), "what has room is written over");
        store.sync(one).unwrap();
        store.opened(two);
        store.remove(ROOT, OsStr::new("two")).unwrap();
        assert_eq!(store.write(one, 8192, &[1]), Err(Refusal::NoRoom), "it is open still");
        store.closed(two);
        assert_eq!(store.write(one, 8192, &[1]), Ok(()));
        store.leave_room(Some(0));
        assert_eq!(store.allocate(one, 1 << 20), Err(Refusal::NoRoom));
        assert_eq!(store.leave_room(None), format!("{} bytes of {CAPACITY} are free", CAPACITY - 12288));
        assert_eq!(store.allocate(one, 1 << 20), Ok(()));
    }

    #[test]
    fn a_delay_is_anything_between_its_bounds() {
        let scratch = Scratch::new("slow");
        let mut store = Store::open(&scratch.0, 1).unwrap();
        assert_eq!(store.delay(), Duration::ZERO);
        store.slow(5..=8);
        let delays: std::collections::BTreeSet<u128> = (0..200).map(|_| store.delay().as_millis()).collect();
        assert_eq!(delays.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8]);
        store.slow(0..=0);
        assert_eq!(store.delay(), Duration::ZERO);
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
