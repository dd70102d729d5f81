//! What was done to one node's disk, so that its power can be cut afterwards at every moment, and in every way.
//!
//! 1. A [`Recording`] begins with the disk as it was and holds every change since, in order, with its time; and after each power cut the
//!    disk that it left.
//! 2. A [`Replay`] goes through the moments just before each change. What is undurable then is a list of items: a sector of a write, a
//!    length, a name; of writes that were under way too.
//! 3. A [`Moment`] gives the disk that a choice among them leaves.
//!
//! Invariants: a moment's disk without a choice holds what the node's disk held then.
//! Knows nothing of what the bytes mean.

use super::disk::{Item, Storage};
use super::names::Named;
use millrace_base::clock::Nanos;
use millrace_base::prng::Prng;
use std::path::PathBuf;
use std::rc::Rc;

/// One change of a disk; `number` is its step.
#[derive(Clone)]
pub(super) enum Change {
    Make { number: u64, path: PathBuf, named: Named },
    Rename { number: u64, from: PathBuf, to: PathBuf },
    Unlink { number: u64, path: PathBuf },
    RemoveDirectory { number: u64, path: PathBuf },
    SyncDirectory { number: u64, path: PathBuf },
    Write { number: u64, file: u64, place: u64, bytes: Rc<[u8]>, synced: bool },
    Truncate { number: u64, file: u64, len: u64 },
    Sync { number: u64, file: u64 },
}

struct Recorded {
    time: u64,
    /// When it was submitted.
    began: u64,
    change: Change,
}

/// The changes between two power cuts.
struct Stretch {
    base: Storage,
    changes: Vec<Recorded>,
}

/// See the module's head.
pub struct Recording {
    stretches: Vec<Stretch>,
}

impl Recording {
    pub(super) fn new(disk: Storage) -> Recording {
        Recording { stretches: vec![Stretch { base: disk, changes: Vec::new() }] }
    }

    pub(super) fn note(&mut self, time: u64, began: u64, change: Change) {
        let stretch = self.stretches.last_mut().expect("it begins with one");
        stretch.changes.push(Recorded { time, began, change });
    }

    /// The power went and left this.
    pub(super) fn cut(&mut self, disk: Storage) {
        self.stretches.push(Stretch { base: disk, changes: Vec::new() });
    }

    /// Changes in all.
    pub fn len(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.changes.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn replay(&self) -> Replay<'_> {
        Replay { recording: self, stretch: 0, next: 0, storage: self.stretches[0].base.clone() }
    }
}

/// Goes through a recording, moment by moment.
pub struct Replay<'a> {
    recording: &'a Recording,
    stretch: usize,
    next: usize,
    storage: Storage,
}

impl Iterator for Replay<'_> {
    type Item = Moment;

    fn next(&mut self) -> Option<Moment> {
        let recording = self.recording;
        while self.next == recording.stretches[self.stretch].changes.len() {
            self.stretch += 1;
            self.storage = recording.stretches.get(self.stretch)?.base.clone();
            self.next = 0;
        }
        let changes = &recording.stretches[self.stretch].changes;
        let mut disk = self.storage.clone();
        let recorded = &changes[self.next];
        // A write that completes later, and was submitted before this moment, may be there in part.
        let under_way = |other: &&Recorded| other.began < recorded.time && matches!(other.change, Change::Write { .. });
        for other in changes[self.next..].iter().filter(under_way) {
            let mut change = other.change.clone();
            if let Change::Write { synced, .. } = &mut change {
                *synced = false;
            }
            disk.apply(&change);
        }
        self.storage.apply(&recorded.change);
        self.next += 1;
        Some(Moment { time: Nanos(recorded.time), items: disk.undurable(), disk })
    }
}

/// The disk just before a change, with all that a power cut may take.
pub struct Moment {
    /// Of the change that was next.
    pub time: Nanos,
    disk: Storage,
    items: Vec<Item>,
}

impl Moment {
    /// How many things a power cut keeps or takes, each for itself.
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// How many writes and changes of names they are of.
    pub fn writes(&self) -> usize {
        self.numbers().len()
    }

    fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.items.iter().map(|item| item.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The disk when of the first 64 items those are kept whose bit is set.
    pub fn by_items(&self, kept: u64) -> CutDisk {
        self.left(|item| self.items.iter().position(|other| other == item).is_some_and(|at| at >= 64 || kept & 1 << at != 0))
    }

    /// The disk when of the first 64 writes and changes of names those are kept, whole, whose bit is set.
    pub fn by_writes(&self, kept: u64) -> CutDisk {
        let numbers = self.numbers();
        self.left(|item| numbers.iter().position(|other| *other == item.number).is_some_and(|at| at >= 64 || kept & 1 << at != 0))
    }

    /// The disk that a seed leaves.
    pub fn by_seed(&self, seed: u64) -> CutDisk {
        let mut prng = Prng::new(seed);
        let kept: Vec<bool> = self.items.iter().map(|_| prng.one_in(2)).collect();
        self.left(|item| self.items.iter().position(|other| other == item).is_some_and(|at| kept[at]))
    }

    fn left(&self, kept: impl Fn(&Item) -> bool) -> CutDisk {
        let mut disk = self.disk.clone();
        disk.cut_to(&mut |item| kept(&item));
        CutDisk(disk)
    }
}

/// What a power cut has left of a disk.
pub struct CutDisk(pub(super) Storage);

impl CutDisk {
    /// What disks of the same names and bytes share, and others hardly ever.
    pub fn fingerprint(&self) -> u64 {
        self.0.fingerprint()
    }
}
