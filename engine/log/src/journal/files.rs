//! Which journal file holds which entries, which are free, and where the next entry goes.
//!
//! 1. Entries fill the last used file; one that does not fit goes to the front of the file that has been free for longest.
//! 2. A used file other than the last is free again when all its entries are below what a durable entry states as oldest live.
//!
//! Invariants: last sequences rise over the used files; a file is used or free, never both; the last used file is never freed.
//! Knows nothing of bytes in entries or of what is durable.

use super::writer::{Options, Urgency};
use millrace_base::limits::BLOCK;
use std::collections::VecDeque;

/// Kept from all records, for two empty entries: the one that states a release must always find room.
const RELIEF_RESERVE: u64 = 2 * BLOCK as u64;

/// A journal file and its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRoom {
    pub slot: u32,
    pub bytes: u64,
}

/// A file with entries in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Used {
    pub file: FileRoom,
    /// Where the next entry would go.
    pub end: u64,
    pub first: u64,
    pub last: u64,
}

/// How full a journal is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pressure {
    /// Bytes of files that hold entries which may be needed.
    pub live_bytes: u64,
    /// Bytes of all files there are.
    pub bytes: u64,
    /// live_bytes of bytes, 0 to 1.
    pub live: f64,
    /// First and last sequence in the oldest file: releasing the last frees it, unless it is the one being written.
    pub oldest_file: Option<(u64, u64)>,
    /// Files that hold entries, and free ones.
    pub files: (usize, usize),
    /// Openings whose entries are needed. Beyond [`super::layout::OPENINGS_MAX`] the oldest entries count by their chain alone, so that
    /// damage loses more of them: relieve before.
    pub openings: usize,
}

#[derive(Default, Debug)]
pub(super) struct Files {
    used: VecDeque<Used>,
    free: VecDeque<FileRoom>,
    making: Option<u32>,
    slot_next: u32,
}

impl Files {
    /// `used`: in the order of their last sequences. Only of a damaged journal may their ranges overlap.
    pub fn new(used: VecDeque<Used>, free: VecDeque<FileRoom>) -> Files {
        let slots = used.iter().map(|used| used.file.slot).chain(free.iter().map(|file| file.slot));
        let slot_next = slots.max().map_or(0, |slot| slot + 1);
        for file in &used {
            assert!(file.first <= file.last && file.end <= file.file.bytes);
        }
        Files { used, free, making: None, slot_next }
    }

    /// Bytes of all entries together that could be placed now, were there no ends of files that are too short for one.
    pub fn room_in_all(&self, options: &Options, urgency: Urgency) -> usize {
        let here = self.used.back().map_or(0, |used| used.file.bytes - used.end);
        let free: u64 = self.free.iter().map(|file| file.bytes).sum();
        usize::try_from((here + free).saturating_sub(reserve(options, urgency))).unwrap_or(usize::MAX)
    }

    /// The largest entry that can be placed now and leaves the reserve of those more urgent.
    pub fn entry_limit(&self, options: &Options, urgency: Urgency) -> usize {
        self.limit(options, reserve(options, urgency))
    }

    /// Whether an empty entry may be written: the last block is kept for one that frees a file.
    pub fn has_room_to_state(&self, options: &Options, frees: bool) -> bool {
        self.limit(options, if frees { 0 } else { BLOCK as u64 }) >= BLOCK
    }

    fn limit(&self, options: &Options, reserve: u64) -> usize {
        let here = self.used.back().map_or(0, |used| used.file.bytes - used.end);
        let free: u64 = self.free.iter().map(|file| file.bytes).sum();
        let fits_here = here.min((here + free).saturating_sub(reserve));
        let fits_next = self.free.front().map_or(0, |file| file.bytes.min(free.saturating_sub(reserve)));
        let limit = usize::try_from(fits_here.max(fits_next)).unwrap_or(usize::MAX).min(options.entry_bytes_max);
        limit / BLOCK * BLOCK
    }

    /// Takes the place of the next entry.
    ///
    /// # Panics
    /// When it fits nowhere: the caller asked [`Files::entry_limit`].
    pub fn place(&mut self, sequence: u64, bytes: u64) -> (u32, u64) {
        let here = self.used.back().map_or(0, |used| used.file.bytes - used.end);
        if here < bytes {
            let file = self.free.pop_front().expect("appends are bounded by the entry limit");
            self.used.push_back(Used { file, end: 0, first: sequence, last: sequence });
        }
        let used = self.used.back_mut().expect("pushed above if there was none");
        let place = used.end;
        assert!(place + bytes <= used.file.bytes && used.last <= sequence);
        used.end += bytes;
        used.last = sequence;
        (used.file.slot, place)
    }

    /// Frees the files whose entries are all below `oldest`.
    pub fn free_below(&mut self, oldest: u64) {
        while self.used.len() > 1 && self.used.front().is_some_and(|used| used.last < oldest) {
            self.free.extend(self.used.pop_front().map(|used| used.file));
        }
    }

    /// Whether stating `oldest` would free a file that stating `stated` does not.
    pub fn would_free(&self, oldest: u64, stated: u64) -> bool {
        self.used.len() > 1 && self.used.front().is_some_and(|used| used.last < oldest && used.last >= stated)
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn pressure(&self, openings: usize) -> Pressure {
        let live_bytes = self.used.iter().map(|used| used.end).sum();
        let full: u64 = self.used.iter().map(|used| used.file.bytes).sum();
        let bytes = full + self.free.iter().map(|file| file.bytes).sum::<u64>();
        let live = if bytes == 0 { 0.0 } else { live_bytes as f64 / bytes as f64 };
        let oldest_file = self.used.front().map(|used| (used.first, used.last));
        Pressure { live_bytes, bytes, live, oldest_file, files: (self.used.len(), self.free.len()), openings }
    }

    pub fn wants_file(&mut self, options: &Options) -> Option<u32> {
        let files = self.used.len() + self.free.len();
        if self.making.is_some() || !self.free.is_empty() || files >= options.files_max as usize {
            return None;
        }
        self.making = Some(self.slot_next);
        self.slot_next += 1;
        self.making
    }

    pub fn added(&mut self, slot: u32, bytes: u64) {
        assert_eq!(self.making.take(), Some(slot), "the file that was wanted");
        self.free.push_back(FileRoom { slot, bytes });
    }

    pub fn failed(&mut self, slot: u32) {
        assert_eq!(self.making.take(), Some(slot), "the file that was wanted");
        self.slot_next = self.slot_next.min(slot);
    }
}

/// What is kept for those more urgent.
fn reserve(options: &Options, urgency: Urgency) -> u64 {
    match urgency {
        Urgency::Data => options.reserve_bytes,
        Urgency::Reserved => options.reserve_bytes / 2,
        Urgency::Relief => RELIEF_RESERVE,
    }
}
