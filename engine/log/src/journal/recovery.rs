//! What a journal's files say after a crash: the live entries, and the verdict on what is not there. A pure function of their bytes.
//!
//! 1. [`super::scan`] finds every readable header that bears its assigned incarnation.
//! 2. *Stated*: the largest sequence known durable, by what any of those headers states, by the newest opening (everything before it
//!    was synced when it was recorded), or by a checkpoint elsewhere. All entries up to it were durable.
//! 3. Behind it the chain is followed while entries are whole and follow on each other: its end is the journal's end. The first one
//!    missing behind the end was stated by no one: *torn*, cut; it was never acknowledged, or only since the last statement.
//! 4. The last header of the chain says which entry is the oldest live one. From there to the end every entry must be whole and in the
//!    chain: what is not is *damage*, with the partitions that either copy of its contents names, or all when neither is readable.
//! 5. Every live entry is read once more, whole or not: only what two readings agree on is judged. Else a misread would be taken for what is
//!    on the disk. Behind the last one [`super::opening`] looks again before anything is written there.
//!
//! Why the begin is found from the end: the files of released entries are reused once a durable entry states the release, so a walk from
//! the oldest bytes on disk would meet entries that are half overwritten and are not missed.
//!
//! Invariants: stated <= end; oldest live <= end + 1; every entry in oldest live..=end is recovered or in the verdict, never both.
//! Knows nothing of what the records mean.

use super::error::JournalError;
use super::files::FileRoom;
use super::layout::{self, HEADER_BYTES, Header, Openings};
use super::record::Record;
use super::scan::{Body, Foot, Found, Scan, records_of, scan};
use millrace_base::crc::crc32c;
use millrace_base::fault::Corrupt;
use millrace_base::ids::PartitionId;
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{Disk, OpenHow, Pool, Slice};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A live entry.
#[derive(Clone, Debug)]
pub struct RecoveredEntry {
    pub sequence: u64,
    pub slot: u32,
    pub place: u64,
    pub header: Header,
    pub records: Vec<Record>,
    /// What the records' ranges count in.
    pub payload: Slice,
}

impl RecoveredEntry {
    /// How many of this entry's extents, from the first on, are durable when the first `durable` of the journal are.
    pub fn extents_stated(&self, durable: u64) -> u64 {
        durable.saturating_sub(self.header.extents_before)
    }
}

/// Whose records were in a damaged entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Touched {
    /// What a readable copy of the contents says.
    Partitions(BTreeSet<PartitionId>),
    /// Both copies are unreadable: every partition of the journal may be touched.
    All,
}

/// Entries that were durable and are not readable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    pub first: u64,
    /// More than `first` when several are missing in a row.
    pub last: u64,
    pub touched: Touched,
    /// The records of a readable copy, in order; their payload is not to be trusted. Empty when `touched` is all.
    pub records: Vec<Record>,
    pub corrupt: Corrupt,
}

/// The first entry that is not there, which no one states durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torn {
    pub sequence: u64,
    pub slot: u32,
    pub place: u64,
    pub reason: TornReason,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TornReason {
    /// CRC of the bytes behind its header: expected, found.
    Body(u32, u32),
    /// It does not follow on the last live entry: what it follows on, what stands there.
    Chain(u32, u32),
    /// Later entries are there, it is not.
    Missing,
}

/// What recovery found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing is behind the last live entry.
    Clean,
    /// Cut: nothing acknowledged is lost.
    Torn(Torn),
    /// Acknowledged entries are lost. The partitions touched must not be served, nor vote, as if their log were short.
    Damaged { each: Vec<Damage>, torn: Option<Torn> },
}

/// A journal after recovery.
#[derive(Debug)]
pub struct Recovered {
    /// Live and whole, in order.
    pub entries: Vec<RecoveredEntry>,
    pub verdict: Verdict,
    pub oldest_live: u64,
    /// Sequence of the next entry.
    pub next: u64,
    /// Where the last entry ends; None when there is none, its length is unknown, or it lies in front of others of its file, where no writer
    /// puts it: the next one goes into another file.
    pub end: Option<(u32, u64)>,
    /// What the next entry follows on; 0 when the last header is unreadable.
    pub chain: u32,
    pub openings: Openings,
    /// A slot of them that cannot be read: the other one is enough, and opening writes both again. A power cut in an opening leaves it too.
    pub lost_slot: Option<Corrupt>,
    /// All journal files, by slot.
    pub files: Vec<FileRoom>,
    /// First and last sequence, by slot, of what is in each file and still needed.
    pub needed: BTreeMap<u32, (u64, u64)>,
    /// Extent records in all entries; how many of the first of them are stated durable.
    pub extents_before: u64,
    pub extents_durable: u64,
}

/// Reads the journal in `folder`. An absent or empty folder is a fresh journal. Each live entry gets memory of its own from `pool`.
///
/// `stated_elsewhere`: the largest entry of this journal that something outside it (a checkpoint's file) states durable, or 0.
///
/// # Errors
/// [`JournalError`] when nothing can be said about the journal as a whole.
pub fn recover(disk: &mut dyn Disk, folder: &Path, pool: &Pool, stated_elsewhere: u64) -> Result<Recovered, JournalError> {
    let scan = scan(disk, folder)?;
    let chain = Chain::of(&scan, stated_elsewhere);
    let missing = |first: u64, last: u64| missing(&scan, folder, first, last);
    let files = scan.files.iter().map(|file| (file.slot, file.bytes)).collect();
    let mut reader = Reader { disk, folder, pool, files, entries: Vec::new(), damage: Vec::new(), window: None };
    let mut needed: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut need = |slot: u32, sequence: u64| {
        let range = needed.entry(slot).or_insert((sequence, sequence));
        *range = (range.0.min(sequence), range.1.max(sequence));
    };
    let mut expected = chain.oldest_live;
    for found in chain.live() {
        let sequence = found.header.sequence;
        if expected < sequence {
            reader.damage.extend(missing(expected, sequence - 1));
        }
        reader.take(found)?;
        need(found.slot, sequence);
        expected = sequence + 1;
    }
    if expected <= chain.end {
        reader.damage.extend(missing(expected, chain.end));
    }
    for foot in &scan.feet {
        if (chain.oldest_live..=chain.end).contains(&foot.sequence) {
            need(foot.slot, foot.sequence);
        }
    }
    let torn = chain.torn(&scan);
    let verdict = match (reader.damage.is_empty(), torn) {
        (true, None) => Verdict::Clean,
        (true, Some(torn)) => Verdict::Torn(torn),
        (false, torn) => Verdict::Damaged { each: reader.damage, torn },
    };
    let last = chain.last();
    let in_last = reader.entries.last().filter(|entry| Some(entry.sequence) == chain.newest()).map(|entry| &entry.records);
    let in_last = in_last.map_or(0, |records| records.iter().filter(|record| matches!(record, Record::Extent { .. })).count());
    Ok(Recovered {
        entries: reader.entries,
        verdict,
        oldest_live: chain.oldest_live,
        next: chain.end + 1,
        end: last.filter(|last| chain.is_behind_all(last, &scan)).map(|found| (found.slot, found.end())),
        chain: last.map_or(0, |found| found.header.header_crc),
        needed,
        extents_before: chain.extents_before + in_last as u64,
        extents_durable: chain.picked.values().map(|found| found.header.extents_durable).max().unwrap_or(0),
        openings: scan.openings,
        lost_slot: scan.lost_slot,
        files: scan.files,
    })
}

/// The entries that count, by sequence, whole or not.
struct Chain<'a> {
    picked: BTreeMap<u64, &'a Found>,
    oldest_live: u64,
    end: u64,
    extents_before: u64,
}

impl<'a> Chain<'a> {
    fn of(scan: &'a Scan, stated_elsewhere: u64) -> Chain<'a> {
        let stated = scan.found.iter().map(|found| found.header.synced).max().unwrap_or(0);
        let stated = stated.max(scan.openings.stated()).max(stated_elsewhere.min(layout::SEQUENCE_END));
        let mut by_sequence: BTreeMap<u64, Vec<&Found>> = BTreeMap::new();
        for found in &scan.found {
            by_sequence.entry(found.header.sequence).or_default().push(found);
        }
        let mut picked: BTreeMap<u64, &Found> = BTreeMap::new();
        let mut end = stated;
        let assigned_from = scan.openings.assigned_from();
        for (sequence, candidates) in by_sequence.range(assigned_from..) {
            let before = sequence.checked_sub(1).and_then(|before| picked.get(&before).copied());
            let fits = |found: &Found| follows(*sequence, before, found);
            let best = candidates.iter().copied().max_by_key(|found| (fits(found), found.is_whole(), found.place == 0));
            let Some(best) = best else { continue };
            if *sequence <= stated {
                picked.insert(*sequence, best);
            } else if *sequence == end + 1 && fits(best) && best.is_whole() {
                picked.insert(*sequence, best);
                end = *sequence;
            }
        }
        let newest = picked.values().next_back().map(|found| found.header);
        let oldest_live = match newest {
            Some(header) => header.oldest_live,
            None => scan.openings.assigned_from(),
        };
        // Below the openings that fit into their slot, the chain of the entry above is what an entry counts by.
        for sequence in (oldest_live..assigned_from).rev() {
            let above = picked.get(&(sequence + 1)).map(|found| found.header.chain);
            let candidates = by_sequence.get(&sequence).into_iter().flatten().copied();
            let Some(found) = candidates.filter(|found| Some(found.header.header_crc) == above).max_by_key(|found| found.is_whole()) else {
                break;
            };
            picked.insert(sequence, found);
        }
        let extents_before = newest.map_or(0, |header| header.extents_before);
        Chain { picked, oldest_live: oldest_live.clamp(1, end + 1), end, extents_before }
    }

    fn live(&self) -> impl Iterator<Item = &'a Found> + use<'a, '_> {
        self.picked.range(self.oldest_live..).map(|(_, found)| *found)
    }

    /// The last entry, if its header is readable.
    fn last(&self) -> Option<&'a Found> {
        self.picked.get(&self.end).copied()
    }

    /// Whether the last entry lies behind every other one that is still needed in its file: what is written behind it then hits none.
    fn is_behind_all(&self, last: &Found, scan: &Scan) -> bool {
        let is_other = |slot: u32, sequence: u64| slot == last.slot && sequence != last.header.sequence;
        let is_behind = |found: &Found| !is_other(found.slot, found.header.sequence) || found.end() <= last.place;
        let needed = self.oldest_live..=self.end;
        let mut feet = scan.feet.iter().filter(|foot| needed.contains(&foot.sequence) && is_other(foot.slot, foot.sequence));
        self.live().all(is_behind) && feet.all(|foot| foot.place < last.place)
    }

    /// The last sequence with a readable header.
    fn newest(&self) -> Option<u64> {
        self.picked.keys().next_back().copied()
    }

    fn torn(&self, scan: &Scan) -> Option<Torn> {
        let sequence = self.end + 1;
        let last = self.last();
        if let Some(found) = scan.found.iter().find(|found| found.header.sequence == sequence) {
            let reason = match (&found.body, last) {
                (Body::Broken(crc, _), _) => TornReason::Body(found.header.body_crc, *crc),
                (Body::Whole, last) => TornReason::Chain(last.map_or(0, |last| last.header.header_crc), found.header.chain),
            };
            return Some(Torn { sequence, slot: found.slot, place: found.place, reason });
        }
        let later = scan.found.iter().find(|found| found.header.sequence > sequence)?;
        let (slot, place) = last.map_or((later.slot, 0), |last| (last.slot, last.end()));
        Some(Torn { sequence, slot, place, reason: TornReason::Missing })
    }
}

/// Whether `found` may be the entry behind `before`: in the chain, and at one of the two places where a writer puts it.
fn follows(sequence: u64, before: Option<&Found>, found: &Found) -> bool {
    let chained = match before {
        Some(before) => found.header.chain == before.header.header_crc,
        None => sequence > 1 || found.header.chain == 0,
    };
    let placed = match before {
        Some(before) if found.slot == before.slot => found.place == before.end(),
        Some(_) => found.place == 0,
        None => true,
    };
    placed && (chained || is_planted(Bug::IgnoreChain))
}

/// Entries without a readable header. Where they were is told by their contents copies, if those are readable.
fn missing(scan: &Scan, folder: &Path, first: u64, last: u64) -> Vec<Damage> {
    let feet: BTreeMap<u64, &Foot> =
        scan.feet.iter().filter(|foot| (first..=last).contains(&foot.sequence)).map(|foot| (foot.sequence, foot)).collect();
    let mut all = Vec::new();
    let mut next = first;
    for (sequence, foot) in feet {
        if next < sequence {
            all.push(unknown(folder, next, sequence - 1));
        }
        all.push(Damage {
            first: sequence,
            last: sequence,
            touched: Touched::Partitions(foot.records.iter().map(Record::partition).collect()),
            records: foot.records.clone(),
            corrupt: Corrupt {
                file: folder.join(layout::file_name(foot.slot)).display().to_string(),
                place: foot.place,
                expected: format!("the header of entry {sequence}"),
                found: "no readable header; the copy of the contents at the entry's end is readable".to_string(),
            },
        });
        next = sequence + 1;
    }
    if next <= last {
        all.push(unknown(folder, next, last));
    }
    all
}

fn unknown(folder: &Path, first: u64, last: u64) -> Damage {
    let corrupt = Corrupt {
        file: folder.display().to_string(),
        place: 0,
        expected: if first == last { format!("entry {first}") } else { format!("entries {first} to {last}") },
        found: "no readable header and no readable copy of the contents in any file".to_string(),
    };
    Damage { first, last, touched: Touched::All, records: Vec::new(), corrupt }
}

struct Reader<'a> {
    disk: &'a mut dyn Disk,
    folder: &'a Path,
    pool: &'a Pool,
    /// Bytes of each journal file, by slot.
    files: BTreeMap<u32, u64>,
    entries: Vec<RecoveredEntry>,
    damage: Vec<Damage>,
    /// Slot, place and bytes of what was read last: entries that lie in it are not read again.
    window: Option<(u32, u64, Slice)>,
}

/// Bytes read at a time; many small entries share them.
const WINDOW_BYTES: usize = 1 << 20;

impl Reader<'_> {
    /// The bytes of an entry, fewer at the end of the file, which is `file_bytes` long.
    fn entry(&mut self, slot: u32, place: u64, bytes: usize, file_bytes: u64, path: &Path) -> Result<Slice, JournalError> {
        if let Some((window_slot, window_place, window)) = &self.window
            && *window_slot == slot
            && let Some(from) = place.checked_sub(*window_place).and_then(|from| usize::try_from(from).ok())
            && from + bytes <= window.len()
        {
            return Ok(window.sub(from..from + bytes));
        }
        let behind = usize::try_from(file_bytes.saturating_sub(place)).unwrap_or(usize::MAX);
        let len = bytes.max(WINDOW_BYTES.min(behind));
        let mut space = self.pool.take(len);
        let file = self.disk.open(path, OpenHow { direct: true, ..OpenHow::default() }).map_err(JournalError::io("open", path))?;
        let read = self.disk.read(file, place, &mut space.unfrozen()[..len]);
        self.disk.close(file);
        let window = space.freeze(read.map_err(JournalError::io("read", path))?);
        let entry = window.sub(0..bytes.min(window.len()));
        self.window = Some((slot, place, window));
        Ok(entry)
    }

    /// Reads a live entry into memory of its own, or notes its damage.
    fn take(&mut self, found: &Found) -> Result<(), JournalError> {
        let header = found.header;
        let path = self.folder.join(layout::file_name(found.slot));
        let entry = self.again(found)?;
        let damage = |place: u64, expected: String, read: String, records: Option<Vec<Record>>| Damage {
            first: header.sequence,
            last: header.sequence,
            touched: records.as_ref().map_or(Touched::All, |records| Touched::Partitions(records.iter().map(Record::partition).collect())),
            records: records.unwrap_or_default(),
            corrupt: Corrupt { file: path.display().to_string(), place, expected, found: read },
        };
        let body_place = found.place + HEADER_BYTES as u64;
        let expected = format!("CRC {:08x} of entry {}", header.body_crc, header.sequence);
        if let Body::Broken(crc, records) = &found.body {
            self.damage.push(damage(body_place, expected, format!("{crc:08x}"), records.clone()));
            return Ok(());
        }
        let chain = self.entries.last().filter(|before| before.sequence + 1 == header.sequence).map(|before| before.header.header_crc);
        if let Some(chain) = chain.filter(|chain| *chain != header.chain && !is_planted(Bug::IgnoreChain)) {
            let expected = format!("entry {} to follow on {chain:08x}", header.sequence);
            self.damage.push(damage(found.place, expected, format!("{:08x}", header.chain), None));
            return Ok(());
        }
        match records_of(&header, &entry) {
            Some(records) => {
                let payload = entry.sub(HEADER_BYTES..header.contents_a());
                self.entries.push(RecoveredEntry {
                    sequence: header.sequence,
                    slot: found.slot,
                    place: found.place,
                    header,
                    records,
                    payload,
                });
            }
            None => self.damage.push(damage(body_place, "readable contents".to_string(), "neither copy is".to_string(), None)),
        }
        Ok(())
    }

    /// The bytes of an entry, which must be those that the scan has met.
    fn again(&mut self, found: &Found) -> Result<Slice, JournalError> {
        let (path, bytes) = (self.folder.join(layout::file_name(found.slot)), found.header.entry_bytes as usize);
        let file_bytes = self.files.get(&found.slot).copied().unwrap_or(0);
        let entry = self.entry(found.slot, found.place, bytes, file_bytes, &path)?;
        let before = match &found.body {
            Body::Whole => found.header.body_crc,
            Body::Broken(crc, _) => *crc,
        };
        let crc = crc32c(entry.get(HEADER_BYTES..).unwrap_or_default());
        let is_alike = entry.len() == bytes && crc == before && Header::decode(&entry) == Ok(found.header);
        if is_alike || is_planted(Bug::IgnoreCrc) {
            return Ok(entry);
        }
        let expected = format!("entry {} with CRC {before:08x}, as it was read before", found.header.sequence);
        let found_now = format!("{} bytes with CRC {crc:08x}", entry.len());
        Err(JournalError::Misread(Corrupt { file: path.display().to_string(), place: found.place, expected, found: found_now }))
    }
}
