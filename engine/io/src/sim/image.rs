//! One file of a simulated disk: what reads give now, and what a power cut may leave of it.
//!
//! 1. A write gives every 512-byte sector it touches a further version; a cut and a growth give the length one. Versions are numbered in
//!    the order of completion.
//! 2. A sync drops all versions but the newest that had completed when the sync was submitted; a synced write does so for its own sectors.
//! 3. A power cut picks a version of the length, then one of each sector. Cutting is all or nothing, as with a journaling file system: where
//!    the cut is lost, what was written behind it later is lost too; where it is kept, older bytes do not return.
//! 4. A failed sync leaves its sectors undurable for good, though later syncs succeed: only a new write makes them syncable.
//!
//! Invariants: a sector without versions is durable as it reads; the last version is what reads give.
//! Knows nothing of names or time.

use super::{Loss, SECTOR};
use millrace_base::prng::Prng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// The bytes of one sector, shared with the others of the same write.
#[derive(Clone)]
struct Sector {
    of: Rc<[u8]>,
    at: usize,
}

impl Sector {
    /// The sectors of `of`, whole ones.
    fn all(of: Vec<u8>) -> impl Iterator<Item = Sector> {
        let of: Rc<[u8]> = of.into();
        (0..of.len()).step_by(SECTOR).map(move |at| Sector { of: Rc::clone(&of), at })
    }

    fn bytes(&self) -> &[u8] {
        &self.of[self.at..self.at + SECTOR]
    }
}

#[derive(Clone)]
struct Version {
    number: u64,
    bytes: Sector,
    /// Made by cutting the file, not by a write.
    cut: bool,
}

#[derive(Clone, Default)]
struct History {
    versions: Vec<Version>,
    /// A sync of it has failed since it was written.
    poisoned: bool,
}

#[derive(Clone, Default)]
pub(super) struct Image {
    bytes: Vec<u8>,
    sectors: BTreeMap<u64, History>,
    /// Lengths not yet durable: (number, length), the first one durable.
    lengths: Vec<(u64, u64)>,
    /// Sectors that cannot be read until they are written.
    spoiled: BTreeSet<u64>,
}

fn sectors(place: u64, len: u64) -> Range<u64> {
    place / SECTOR as u64..(place + len).div_ceil(SECTOR as u64)
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn read(&self, place: u64, into: &mut [u8]) -> usize {
        let from = self.bytes.get(usize::try_from(place).unwrap_or(usize::MAX)..).unwrap_or(&[]);
        let count = into.len().min(from.len());
        into[..count].copy_from_slice(&from[..count]);
        count
    }

    pub(super) fn is_spoiled(&self, place: u64, len: u64) -> bool {
        self.spoiled.range(sectors(place, len)).next().is_some()
    }

    pub(super) fn spoil(&mut self, place: u64, len: u64) {
        self.spoiled.extend(sectors(place, len));
    }

    /// Changes one bit wherever it is stored.
    pub(super) fn flip(&mut self, place: u64, bit: u8) {
        let Some(byte) = self.bytes.get_mut(place as usize) else { return };
        *byte ^= 1 << bit;
        if let Some(history) = self.sectors.get_mut(&(place / SECTOR as u64)) {
            for version in &mut history.versions {
                let mut bytes = version.bytes.bytes().to_vec();
                bytes[place as usize % SECTOR] ^= 1 << bit;
                version.bytes = Sector { of: bytes.into(), at: 0 };
            }
        }
    }

    /// What `sectors` hold now; zeros behind the end.
    fn content(&self, sectors: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (sectors.end - sectors.start) as usize * SECTOR];
        self.read(sectors.start * SECTOR as u64, &mut bytes);
        bytes
    }

    /// Sectors are about to change: begins the history of those that have none with what they are now.
    fn begin(&mut self, touched: Range<u64>) {
        if self.sectors.range(touched.clone()).count() as u64 == touched.end - touched.start {
            return;
        }
        for (sector, bytes) in touched.clone().zip(Sector::all(self.content(touched))) {
            let history = self.sectors.entry(sector).or_default();
            if history.versions.is_empty() {
                history.versions.push(Version { number: 0, bytes, cut: false });
            }
        }
    }

    fn set_len(&mut self, number: u64, len: u64) {
        if self.lengths.is_empty() {
            self.lengths.push((0, self.len()));
        }
        self.lengths.push((number, len));
        self.bytes.resize(len as usize, 0);
    }

    pub(super) fn write(&mut self, number: u64, place: u64, bytes: &[u8]) {
        let end = place + bytes.len() as u64;
        let touched = sectors(place, bytes.len() as u64);
        self.begin(touched.clone());
        if end > self.len() {
            self.set_len(number, end);
        }
        self.bytes[place as usize..end as usize].copy_from_slice(bytes);
        let after = Sector::all(self.content(touched.clone()));
        for ((_, history), bytes) in self.sectors.range_mut(touched.clone()).zip(after) {
            history.versions.push(Version { number, bytes, cut: false });
            history.poisoned = false;
        }
        if !self.spoiled.is_empty() {
            self.spoiled.retain(|sector| !touched.contains(sector));
        }
    }

    pub(super) fn truncate(&mut self, number: u64, len: u64) {
        let old = self.len();
        let gone = if len < old { sectors(len, old - len) } else { 0..0 };
        self.begin(gone.clone());
        self.set_len(number, len);
        if gone.is_empty() {
            return;
        }
        // The first may be cut in part, the others are zeros alike.
        let first = Sector { of: self.content(gone.start..gone.start + 1).into(), at: 0 };
        let zeros = Sector { of: vec![0; SECTOR].into(), at: 0 };
        for (sector, history) in self.sectors.range_mut(gone.clone()) {
            let bytes = if *sector == gone.start { first.clone() } else { zeros.clone() };
            history.versions.push(Version { number, bytes, cut: true });
        }
    }

    /// Makes durable what was numbered up to `number`, in `range` of bytes or everywhere.
    pub(super) fn sync(&mut self, number: u64, range: Option<(u64, u64)>) {
        let touched = range.map_or(0..u64::MAX, |(place, len)| sectors(place, len));
        let mut settled = Vec::new();
        for (sector, history) in self.sectors.range_mut(touched).filter(|(_, history)| !history.poisoned) {
            let keep = history.versions.iter().rposition(|version| version.number <= number).unwrap_or(0);
            history.versions.drain(..keep);
            settled.extend((history.versions.len() == 1).then_some(*sector));
        }
        if settled.len() == self.sectors.len() {
            self.sectors.clear();
        } else {
            settled.iter().for_each(|sector| drop(self.sectors.remove(sector)));
        }
        let keep = self.lengths.iter().rposition(|(at, _)| *at <= number).unwrap_or(0);
        self.lengths.drain(..keep);
        if self.lengths.len() == 1 {
            self.lengths.clear();
        }
    }

    pub(super) fn sync_failed(&mut self) {
        for history in self.sectors.values_mut() {
            history.poisoned = true;
        }
    }

    /// The power went. `last` is the number of the last write on the whole disk.
    pub(super) fn cut_power(&mut self, loss: Loss, last: u64, keep_to: u64, prng: &mut Prng) {
        self.cut_to(loss != Loss::Nothing, &mut |number, _| match loss {
            Loss::Seeded => !prng.one_in(2),
            Loss::All => false,
            Loss::Nothing => true,
            Loss::Suffix => number <= keep_to,
            Loss::TornLast => number < last || !prng.one_in(2),
        });
    }

    /// What is not durable: the number of each version of a sector, and of each length (None). Not those that hold what was there before:
    /// whether they are kept makes no difference.
    pub(super) fn undurable(&self) -> impl Iterator<Item = (u64, Option<u64>)> {
        let lengths = self.lengths.iter().skip(1).map(|(number, _)| (*number, None));
        let of = |(sector, history): (&u64, &History)| {
            let sector = *sector;
            let changes = history.versions.windows(2).filter(|pair| !pair[1].cut && pair[1].bytes.bytes() != pair[0].bytes.bytes());
            let numbers: Vec<u64> = changes.map(|pair| pair[1].number).collect();
            numbers.into_iter().map(move |number| (number, Some(sector)))
        };
        lengths.chain(self.sectors.iter().flat_map(of))
    }

    /// What is left becomes all there is: of the undurable what is `kept`, by number and sector, None for a length. `takes_poisoned`: what a
    /// failed sync was to cover is lost whatever is kept.
    pub(super) fn cut_to(&mut self, takes_poisoned: bool, kept: &mut dyn FnMut(u64, Option<u64>) -> bool) {
        let mut chosen = (u64::MAX, self.len());
        if let Some(first) = self.lengths.first() {
            // Lengths are journaled: what is kept is a prefix of their changes.
            chosen = self.lengths[1..].iter().take_while(|(number, _)| kept(*number, None)).last().copied().unwrap_or(*first);
        }
        let longest = self.lengths.iter().map(|(_, len)| *len).max().unwrap_or(0).max(chosen.1).max(self.len());
        self.bytes.resize(longest.next_multiple_of(SECTOR as u64) as usize, 0);
        for (sector, history) in std::mem::take(&mut self.sectors) {
            let versions = &history.versions;
            let from = versions.iter().rposition(|version| version.cut && version.number <= chosen.0).unwrap_or(0);
            let to = versions.iter().position(|version| version.cut && version.number > chosen.0).unwrap_or(versions.len());
            let Some(candidates) = versions.get(from..to).filter(|candidates| !candidates.is_empty()) else { continue };
            let mut pick = candidates.iter().rposition(|version| version.number == 0 || kept(version.number, Some(sector))).unwrap_or(0);
            if history.poisoned && takes_poisoned {
                pick = 0;
            }
            let start = sector as usize * SECTOR;
            if let Some(into) = self.bytes.get_mut(start..start + SECTOR) {
                into.copy_from_slice(candidates[pick].bytes.bytes());
            }
        }
        self.lengths.clear();
        self.bytes.truncate(chosen.1 as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(image: &Image) -> Vec<u8> {
        image.bytes.clone()
    }

    #[test]
    fn a_sync_covers_what_had_completed_when_it_was_submitted() {
        let mut image = Image::default();
        image.write(1, 0, &[1; 1024]);
        image.sync(1, None);
        image.write(2, 0, &[2; 1024]);
        // Submitted after write 2, completed after write 3.
        image.write(3, 0, &[3; 512]);
        image.sync(2, None);
        let mut prng = Prng::new(1);
        image.cut_power(Loss::All, 3, 0, &mut prng);
        assert_eq!(content(&image), [2; 1024]);
    }

    #[test]
    fn unsynced_sectors_are_kept_or_lost_each_for_itself() {
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let mut image = Image::default();
            image.write(1, 0, &[1; 1024]);
            image.sync(1, None);
            image.write(2, 0, &[2; 1024]);
            image.cut_power(Loss::Seeded, 2, 0, &mut Prng::new(seed));
            seen.insert((image.bytes[0], image.bytes[512]));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(1, 1), (1, 2), (2, 1), (2, 2)]);
    }

    #[test]
    fn a_sector_that_is_written_as_it_was_is_nothing_to_lose() {
        let mut image = Image::default();
        image.write(1, 0, &[1; 1024]);
        image.sync(1, None);
        image.write(2, 0, &[[1; 512], [2; 512]].concat());
        image.write(3, 512, &[2; 512]);
        assert_eq!(image.undurable().collect::<Vec<_>>(), [(2, Some(1))]);
    }

    #[test]
    fn a_cut_is_lost_or_kept_as_a_whole() {
        for (loss, expected) in [(Loss::All, vec![1; 2048]), (Loss::Nothing, [vec![1; 100], vec![0; 924], vec![9; 512]].concat())] {
            let mut image = Image::default();
            image.write(1, 0, &[1; 2048]);
            image.sync(1, None);
            image.truncate(2, 100);
            image.write(3, 1024, &[9; 512]);
            image.cut_power(loss, 3, 0, &mut Prng::new(1));
            assert_eq!(content(&image), expected);
        }
    }

    #[test]
    fn after_a_failed_sync_a_good_one_covers_only_what_is_written_again() {
        let mut image = Image::default();
        image.write(1, 0, &[0; 1024]);
        image.sync(1, None);
        image.write(2, 0, &[2; 1024]);
        image.sync_failed();
        image.write(3, 512, &[3; 512]);
        image.sync(3, None);
        image.cut_power(Loss::Seeded, 3, 0, &mut Prng::new(1));
        assert_eq!((image.bytes[0], image.bytes[512]), (0, 3));
    }
}
