//! One file: its two images, as it is now and as a power cut leaves it, and what the device cannot read of it.
//!
//! 1. The images differ only in the *loose* bytes, written since the last sync, in those that a failed sync *lost*, and in length. A sync copies
//!    the loose bytes over.
//! 2. *Bad* sectors of 512 bytes give an error to whoever reads them, until what they hold is written again.
//!
//! Invariants: now and durable are equal outside of loose and lost ranges, up to the shorter length; nothing is bad behind the length.
//! Knows nothing of names, or of which operation fails.

use crate::store::Refusal;
use millrace_base::prng::Prng;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a device reads and writes in one piece.
const SECTOR: u64 = 512;

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
        if begin >= end {
            return;
        }
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

    fn touch(&self, begin: u64, end: u64) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, e)| *e > begin)
    }
}

pub struct Inode {
    now: File,
    durable: File,
    pub len: u64,
    durable_len: u64,
    /// The shortest it has been since the last sync: what stands behind in the durable image is gone.
    floor: u64,
    loose: Ranges,
    /// Given up by a sync that failed.
    lost: Ranges,
    /// What the device cannot read.
    bad: Ranges,
}

impl Inode {
    pub fn open(folder: &Path, number: u64, is_new: bool) -> io::Result<Inode> {
        let open = |image: &str| {
            let path = folder.join(format!("{number}.{image}"));
            OpenOptions::new().read(true).write(true).create(is_new).truncate(is_new).open(path)
        };
        let (now, durable) = (open("now")?, open("durable")?);
        let len = durable.metadata()?.len();
        Ok(Inode {
            now,
            durable,
            len,
            durable_len: len,
            floor: len,
            loose: Ranges::default(),
            lost: Ranges::default(),
            bad: Ranges::default(),
        })
    }

    pub fn keep(&mut self) -> io::Result<()> {
        self.durable.set_len(self.floor.min(self.durable_len))?;
        for (begin, end) in std::mem::take(&mut self.loose).0 {
            copy(&self.now, &self.durable, begin, end.min(self.len))?;
        }
        self.durable.set_len(self.len)?;
        (self.durable_len, self.floor) = (self.len, self.len);
        Ok(())
    }

    pub fn give_up(&mut self) {
        for (begin, end) in std::mem::take(&mut self.loose).0 {
            self.lost.add(begin, end);
        }
    }

    /// A part is kept. Gives the bytes kept and those dropped.
    pub fn cut(&mut self, prng: &mut Prng, keeps_nothing: bool) -> io::Result<(u64, u64)> {
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

    /// So many bytes from a place on, fewer at the end of the file.
    pub fn read(&self, place: u64, len: usize) -> Result<Vec<u8>, Refusal> {
        let len = len.min(usize::try_from(self.len.saturating_sub(place)).unwrap_or(usize::MAX));
        if self.bad.touch(place, place + len as u64) {
            return Err(Refusal::Device);
        }
        let mut bytes = vec![0; len];
        read_at(&self.now, place, &mut bytes)?;
        Ok(bytes)
    }

    /// A sector is good again once all of it that is in the file is written.
    pub fn write(&mut self, place: u64, bytes: &[u8]) -> io::Result<()> {
        self.now.write_all_at(bytes, place)?;
        let end = place + bytes.len() as u64;
        self.loose.add(place, end);
        self.lost.remove(place, end);
        self.len = self.len.max(end);
        let healed = if end == self.len { end.next_multiple_of(SECTOR) } else { end / SECTOR * SECTOR };
        self.bad.remove(place.next_multiple_of(SECTOR), healed);
        Ok(())
    }

    pub fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.now.set_len(len)?;
        self.len = len;
        self.floor = self.floor.min(len);
        self.loose.remove(len, u64::MAX);
        self.lost.remove(len, u64::MAX);
        self.bad.remove(len.next_multiple_of(SECTOR), u64::MAX);
        Ok(())
    }

    /// It is so long at least, with zeros.
    pub fn grow(&mut self, len: u64) -> io::Result<()> {
        if len > self.len {
            self.now.set_len(len)?;
            self.len = len;
        }
        Ok(())
    }

    /// The sectors that hold these bytes cannot be read from now on. Gives the bytes of them.
    pub fn spoil(&mut self, begin: u64, end: u64) -> (u64, u64) {
        let (begin, end) = (begin / SECTOR * SECTOR, end.next_multiple_of(SECTOR).min(self.len.next_multiple_of(SECTOR)));
        self.bad.add(begin, end);
        (begin, end)
    }

    /// The bytes that a failed sync gave up are what the disk holds.
    pub fn forget_lost(&mut self) -> io::Result<()> {
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
