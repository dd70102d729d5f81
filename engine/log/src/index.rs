//! The sparse index of one segment: places for offsets and for times, and proof of the header bytes that no batch CRC covers and of
//! which batch it is.
//!
//! 1. [`Index::add`] is told of every batch that is appended; it makes an entry of the first and of each that lies `interval` bytes
//!    behind the last entry. At [`ENTRIES_MAX`] every second entry goes and the interval doubles, so memory is bounded whatever is set.
//! 2. [`Index::for_offset`] and [`Index::for_time`] give the place from which to walk.
//! 3. A closed segment's index is a file beside it ([`Index::encode`]): a block of facts, then blocks of entries.
//! 4. It can be made again from the segment ([`Rebuild`]) and compared with it ([`verify`]).
//!
//! File, little-endian, in blocks of 4 KiB, each ending in a CRC-32C over base offset, block number and the bytes before it:
//!
//! block 0:  "MLIX" | version 2 | 0 2 | base 8 | end 8 | bytes 8 | max timestamp 8 | interval 4 | entries 4 | zeros | crc 4
//! others:   entry (204 of them, or zeros) | zeros | crc 4
//! entry:    relative offset 4 | place 4 | timestamp before 8 | outer crc 4
//!
//! Invariants: the first entry is (0, 0); offsets and places strictly grow, timestamps never fall; places < bytes.
//! Knows nothing of which segments there are.

use crate::bytes::{Malformed, Put, Reader};
use crate::walk::{self, WALK_BYTES, WalkError};
use millrace_base::batch::{Header, outer_crc, place};
use millrace_base::crc::crc32c_of;
use millrace_base::fault::Corrupt;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;

/// Entries of one segment: 1.5 MiB of memory.
pub const ENTRIES_MAX: usize = 65_536;

/// Bytes between the entries of an index that is made again from its segment, whose topic's setting may not be known.
pub const REBUILT_INTERVAL_BYTES: u32 = 4096;

/// "No timestamp", Kafka's -1: below every timestamp that a batch can carry and mean.
pub const NO_TIMESTAMP: i64 = -1;

const MAGIC: &[u8; 4] = b"MLIX";
const VERSION: u16 = 1;
const ENTRY_BYTES: usize = 20;
const CRC_AT: usize = BLOCK - 4;
const ENTRIES_PER_BLOCK: usize = CRC_AT / ENTRY_BYTES;

/// One batch of the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Base offset of the batch, counted from the segment's.
    pub relative: u32,
    /// Byte in the segment at which the batch begins.
    pub place: u32,
    /// The largest timestamp of all batches before this one; [`NO_TIMESTAMP`] when there are none.
    pub timestamp_before: i64,
    /// CRC of the header bytes that the batch's own CRC leaves out, and of that CRC.
    pub outer_crc: u32,
}

/// What is known of a segment without its entries: all that retention and lookups over segments need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    pub base: Offset,
    /// The offset after the last.
    pub end: Offset,
    /// Bytes of batches.
    pub bytes: u64,
    /// The largest timestamp of all batches; [`NO_TIMESTAMP`] when there is none. Which batch has it, a lookup by this time finds.
    pub max_timestamp: i64,
}

/// The index of one segment, open or closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Index {
    summary: Summary,
    interval: u32,
    entries: Vec<Entry>,
}

impl Summary {
    pub fn empty(base: Offset) -> Summary {
        Summary { base, end: base, bytes: 0, max_timestamp: NO_TIMESTAMP }
    }

    /// Whether a batch that ends at `end` can stand in a segment that begins at `base`: relative offsets are 31 bits, as in Kafka.
    pub fn reaches(base: Offset, end: Offset) -> bool {
        end - base <= i64::from(i32::MAX)
    }

    fn take_in(&mut self, header: &Header) {
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.end = header.next_offset();
        self.bytes += header.size as u64;
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_i64(self.base);
        out.put_i64(self.end);
        out.put_u64(self.bytes);
        out.put_i64(self.max_timestamp);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Summary, Malformed> {
        let (base, end) = (reader.offset("base offset of a segment")?, reader.offset("end of a segment")?);
        let bytes = reader.u64("bytes of a segment")?;
        let max_timestamp = reader.i64("largest timestamp")?;
        let sound = base <= end && bytes <= u64::from(u32::MAX) && (bytes == 0) == (base == end) && max_timestamp >= NO_TIMESTAMP;
        if sound { Ok(Summary { base, end, bytes, max_timestamp }) } else { Err(reader.malformed("facts of a segment")) }
    }
}

impl Entry {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.relative);
        out.put_u32(self.place);
        out.put_i64(self.timestamp_before);
        out.put_u32(self.outer_crc);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Entry, Malformed> {
        Ok(Entry {
            relative: reader.u32("relative offset")?,
            place: reader.u32("place of a batch")?,
            timestamp_before: reader.i64("timestamp before a batch")?,
            outer_crc: reader.u32("CRC of a batch's outer header")?,
        })
    }

    /// Size of one entry in files.
    pub const BYTES: usize = ENTRY_BYTES;

    /// Whether `next` may follow this entry.
    fn is_before(&self, next: &Entry) -> bool {
        self.relative < next.relative && self.place < next.place && self.timestamp_before <= next.timestamp_before
    }
}

impl Index {
    /// The index of a new segment. `interval`: bytes between entries, `index.interval.bytes`.
    pub fn new(base: Offset, interval: u32) -> Index {
        Index { summary: Summary::empty(base), interval, entries: Vec::new() }
    }

    /// An index that only knows the segment's facts: every search begins at its front.
    pub fn without_entries(summary: Summary) -> Index {
        Index { summary, interval: u32::MAX, entries: Vec::new() }
    }

    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Bytes between entries: what was asked for, doubled at each thinning.
    pub fn interval(&self) -> u32 {
        self.interval
    }

    /// The largest timestamp of the batches up to the second entry: about when the segment began. [`NO_TIMESTAMP`] when there is none.
    pub fn first_timestamp(&self) -> i64 {
        self.entries.get(1).map_or(self.summary.max_timestamp, |entry| entry.timestamp_before)
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of memory that the entries take.
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Takes in the batch that follows. `batch`: its bytes, or at least its fixed header.
    ///
    /// # Panics
    /// When the batch does not begin at the segment's end, or the segment would grow past what places and offsets can say; the roll
    /// comes before that.
    pub fn add(&mut self, header: &Header, batch: &[u8]) {
        assert!(header.base_offset == self.summary.end && Summary::reaches(self.summary.base, header.next_offset()));
        let at = u32::try_from(self.summary.bytes).expect("a segment is rolled before 4 GiB");
        let due = self.entries.last().is_none_or(|last| at - last.place >= self.interval.max(1));
        if due {
            if self.entries.len() == ENTRIES_MAX {
                self.thin();
            }
            self.entries.push(Entry {
                relative: (header.base_offset - self.summary.base) as u32,
                place: at,
                timestamp_before: self.summary.max_timestamp,
                outer_crc: outer_crc(batch),
            });
        }
        self.summary.take_in(header);
    }

    fn thin(&mut self) {
        let mut even = false;
        self.entries.retain(|_| {
            even = !even;
            even
        });
        self.interval = self.interval.saturating_mul(2);
    }

    /// The greatest entry at or before `offset`. None: the segment has no batch.
    pub fn for_offset(&self, offset: Offset) -> Option<&Entry> {
        let relative = offset - self.summary.base;
        let after = self.entries.partition_point(|entry| i64::from(entry.relative) <= relative);
        self.entries.get(after.saturating_sub(1))
    }

    /// The entry from which to walk for the first batch whose max timestamp is at least `timestamp`. None: this segment has no such batch.
    pub fn for_time(&self, timestamp: i64) -> Option<&Entry> {
        if self.summary.bytes == 0 || self.summary.max_timestamp < timestamp {
            return None;
        }
        let after = self.entries.partition_point(|entry| entry.timestamp_before < timestamp);
        self.entries.get(after.saturating_sub(1))
    }

    /// The entry of the batch at exactly `place`, if it has one: what the header read there is to be compared with.
    pub fn at_place(&self, place: u64) -> Option<&Entry> {
        self.for_place(place).filter(|entry| u64::from(entry.place) == place)
    }

    /// The greatest entry at or before byte `place`. None: there is none.
    pub fn for_place(&self, place: u64) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| u64::from(entry.place) <= place);
        self.entries.get(after.checked_sub(1)?)
    }

    /// Compares the bytes found at `entry.place` with what the entry says.
    ///
    /// # Errors
    /// No batch, another offset, or header bytes that differ: corrupt, in terms of `file`.
    pub fn check(&self, entry: &Entry, found: &[u8], file: &str) -> Result<Header, Corrupt> {
        let header = walk::header_at(found).map_err(|error| error.in_file(file, u64::from(entry.place)))?;
        let corrupt =
            |expected: String, found: String| Err(Corrupt { file: file.to_owned(), place: u64::from(entry.place), expected, found });
        let base = self.summary.base + i64::from(entry.relative);
        if header.base_offset != base {
            return corrupt(format!("base offset {base}"), format!("base offset {}", header.base_offset));
        }
        let crc = outer_crc(&found[..place::RECORDS]);
        if crc != entry.outer_crc {
            return corrupt(format!("header bytes with CRC {:#010x}", entry.outer_crc), format!("CRC {crc:#010x}"));
        }
        Ok(header)
    }

    /// The segment is to end at `end`: goes back to the batch of the last entry before it. The caller then adds the batches from byte
    /// `summary().bytes` up to `end` again, so that bytes, largest timestamp and entries are right without having been guessed.
    pub fn cut_back(&mut self, end: Offset) {
        if end >= self.summary.end {
            return;
        }
        self.forget_behind(end);
        self.back_to_last_entry();
    }

    /// Takes the last entry out: the facts are exact again, and end before its batch.
    pub(crate) fn back_to_last_entry(&mut self) {
        let back = self.entries.pop();
        let base = self.summary.base;
        self.summary = back.map_or(Summary::empty(base), |entry| Summary {
            base,
            end: base + i64::from(entry.relative),
            bytes: u64::from(entry.place),
            max_timestamp: entry.timestamp_before,
        });
    }

    /// Forgets entries at or behind `end`; what the facts say is then a lower bound, until a checkpoint states them.
    pub(crate) fn forget_behind(&mut self, end: Offset) {
        if end >= self.summary.end {
            return;
        }
        let kept = self.entries.partition_point(|entry| self.summary.base + i64::from(entry.relative) < end);
        self.entries.truncate(kept);
        let base = self.summary.base;
        self.summary = self.entries.last().map_or(Summary::empty(base), |last| Summary {
            base,
            end,
            bytes: u64::from(last.place) + 1,
            max_timestamp: last.timestamp_before,
        });
    }

    /// Entries at or behind byte `place`: what a checkpoint adds to the one before that ended there.
    pub fn entries_from(&self, place: u64) -> &[Entry] {
        let first = self.entries.partition_point(|entry| u64::from(entry.place) < place);
        &self.entries[first..]
    }

    /// Takes in what a checkpoint states: the segment's facts and the entries that came with them.
    ///
    /// # Errors
    /// Entries that do not follow those here, or facts of another segment.
    pub(crate) fn extend(&mut self, summary: Summary, entries: &[Entry]) -> Result<(), Malformed> {
        let wrong = Err(Malformed { what: "index entries that follow those before", place: 0 });
        if summary.base != self.summary.base || summary.bytes < self.summary.bytes {
            return wrong;
        }
        for entry in entries {
            let follows = self.entries.last().map_or(entry.relative == 0 && entry.place == 0, |last| last.is_before(entry));
            if !follows || u64::from(entry.place) >= summary.bytes {
                return wrong;
            }
            if self.entries.len() == ENTRIES_MAX {
                self.thin();
            }
            self.entries.push(*entry);
        }
        self.summary = summary;
        Ok(())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.summary.put(out);
        out.put_u32(self.interval);
        out.put_u32(self.entries.len() as u32);
        self.entries.iter().for_each(|entry| entry.put(out));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Index, Malformed> {
        let summary = Summary::read(reader)?;
        let interval = reader.u32("index interval")?;
        let count = reader.count(ENTRIES_MAX, ENTRY_BYTES, "number of index entries")?;
        let entries = (0..count).map(|_| Entry::read(reader)).collect::<Result<Vec<_>, _>>()?;
        Index::from_parts(summary, interval, entries).ok_or_else(|| reader.malformed("index entries in order"))
    }

    fn from_parts(summary: Summary, interval: u32, entries: Vec<Entry>) -> Option<Index> {
        let first = entries.first().is_none_or(|first| first.relative == 0 && first.place == 0);
        let inside = entries
            .last()
            .is_none_or(|last| u64::from(last.place) < summary.bytes && i64::from(last.relative) < summary.end - summary.base);
        let ordered = entries.is_sorted_by(|a, b| a.is_before(b));
        let sound = first && inside && ordered && entries.is_empty() == (summary.bytes == 0);
        sound.then_some(Index { summary, interval, entries })
    }
}

/// The file.
impl Index {
    /// Bytes of the file: whole blocks.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK * (1 + self.entries.len().div_ceil(ENTRIES_PER_BLOCK)));
        out.extend_from_slice(MAGIC);
        out.put_u16(VERSION);
        out.put_u16(0);
        self.summary.put(&mut out);
        out.put_u32(self.interval);
        out.put_u32(self.entries.len() as u32);
        seal(&mut out, self.summary.base);
        for block in self.entries.chunks(ENTRIES_PER_BLOCK) {
            block.iter().for_each(|entry| entry.put(&mut out));
            seal(&mut out, self.summary.base);
        }
        out
    }

    /// Reads a whole file. `base`: the segment that it lies beside; `file`: its name, for the error.
    ///
    /// # Errors
    /// Another version, another segment's index, or damage: the index is to be made again from the segment.
    pub fn decode(bytes: &[u8], base: Offset, file: &str) -> Result<Index, Corrupt> {
        let (summary, interval, count) = facts(bytes, base, file)?;
        let blocks = 1 + count.div_ceil(ENTRIES_PER_BLOCK);
        if bytes.len() != blocks * BLOCK {
            let (expected, found) = (format!("{blocks} blocks"), format!("{} bytes", bytes.len()));
            return Err(Corrupt { file: file.to_owned(), place: 0, expected, found });
        }
        let mut entries = Vec::with_capacity(count);
        for number in 1..blocks {
            let block = open(bytes, number, base, file)?;
            let mut reader = Reader::new(block);
            for _ in 0..(count - entries.len()).min(ENTRIES_PER_BLOCK) {
                let entry = Entry::read(&mut reader).map_err(|error| error.in_file(file, (number * BLOCK) as u64))?;
                entries.push(entry);
            }
        }
        Index::from_parts(summary, interval, entries).ok_or_else(|| Corrupt {
            file: file.to_owned(),
            place: BLOCK as u64,
            expected: "entries that grow".to_owned(),
            found: "entries out of order".to_owned(),
        })
    }
}

/// The facts alone, from the first block of the file: what retention needs of a closed segment.
///
/// # Errors
/// As [`Index::decode`].
pub fn decode_summary(first_block: &[u8], base: Offset, file: &str) -> Result<Summary, Corrupt> {
    facts(first_block, base, file).map(|(summary, _, _)| summary)
}

fn facts(bytes: &[u8], base: Offset, file: &str) -> Result<(Summary, u32, usize), Corrupt> {
    let block = open(bytes, 0, base, file)?;
    let mut reader = Reader::new(block);
    let mut read = || {
        let (magic, version, _) = (reader.take(4, "magic \"MLIX\"")?, reader.u16("version 1")?, reader.u16("zeros")?);
        if magic != MAGIC || version != VERSION {
            return Err(Malformed { what: "\"MLIX\" version 1", place: 0 });
        }
        let summary = Summary::read(&mut reader)?;
        let interval = reader.u32("index interval")?;
        let count = reader.u32("number of index entries")? as usize;
        let sound = summary.base == base && count <= ENTRIES_MAX;
        if sound { Ok((summary, interval, count)) } else { Err(reader.malformed("facts of this segment")) }
    };
    read().map_err(|error| error.in_file(file, 0))
}

/// Fills the last block with zeros and its CRC.
fn seal(out: &mut Vec<u8>, base: Offset) {
    let number = out.len() / BLOCK;
    out.resize(number * BLOCK + CRC_AT, 0);
    let crc = block_crc(&out[number * BLOCK..], number, base);
    out.put_u32(crc);
}

fn block_crc(block: &[u8], number: usize, base: Offset) -> u32 {
    crc32c_of(&[&base.to_le_bytes(), &(number as u64).to_le_bytes(), &block[..CRC_AT]])
}

/// The bytes of block `number` before its CRC.
fn open<'a>(bytes: &'a [u8], number: usize, base: Offset, file: &str) -> Result<&'a [u8], Corrupt> {
    let place = number * BLOCK;
    let corrupt = |expected: String, found: String| Corrupt { file: file.to_owned(), place: place as u64, expected, found };
    let Some(block) = bytes.get(place..place + BLOCK) else {
        return Err(corrupt("a whole block".to_owned(), format!("{} bytes", bytes.len().saturating_sub(place))));
    };
    let (body, crc) = block.split_at(CRC_AT);
    let (expected, found) = (u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]), block_crc(block, number, base));
    if expected == found { Ok(body) } else { Err(corrupt(format!("CRC {expected:#010x}"), format!("CRC {found:#010x}"))) }
}

/// Makes an index again from a segment's bytes, which arrive in pieces of any size.
///
/// It jumps from header to header: [`Rebuild::wanted`] says where the next piece may begin, so that a reader may skip records.
pub struct Rebuild {
    index: Index,
    /// A header that lies across two pieces.
    carry: Vec<u8>,
    /// Byte at which the next piece to be looked at begins.
    at: u64,
    /// The offset at which the segment is known to end.
    end: Option<Offset>,
}

impl Rebuild {
    pub fn new(base: Offset, interval: u32) -> Rebuild {
        Rebuild { index: Index::new(base, interval), carry: Vec::with_capacity(WALK_BYTES), at: 0, end: None }
    }

    /// Of a segment that ends at offset `end`, whatever stands behind: it was not yet cut to size when it was left.
    pub fn up_to(base: Offset, interval: u32, end: Offset) -> Rebuild {
        Rebuild { end: Some(end), ..Rebuild::new(base, interval) }
    }

    /// Whether the end that is known is reached, so that nothing more is wanted.
    pub fn is_whole(&self) -> bool {
        self.end.is_some_and(|end| self.index.summary.end >= end)
    }

    /// The byte from which on bytes are needed; those before may be left out.
    pub fn wanted(&self) -> u64 {
        self.index.summary.bytes + self.carry.len() as u64
    }

    /// Takes the bytes of the segment from `place` on, which is at most [`Rebuild::wanted`].
    ///
    /// # Errors
    /// Bytes that are not the next batch of this segment, with `file` and the place.
    pub fn push(&mut self, place: u64, piece: &[u8], file: &str) -> Result<(), Corrupt> {
        assert!(place <= self.wanted());
        let piece_end = place + piece.len() as u64;
        self.at = self.at.max(piece_end);
        while self.wanted() < piece_end && !self.is_whole() {
            let rest = &piece[(self.wanted() - place) as usize..];
            let missing = WALK_BYTES - self.carry.len();
            if rest.len() < missing {
                self.carry.extend_from_slice(rest);
                return Ok(());
            }
            self.carry.extend_from_slice(&rest[..missing]);
            let at = self.index.summary.bytes;
            let header = walk::header_at(&self.carry).and_then(|header| fits(&self.index.summary, header));
            let header = header.map_err(|error| error.in_file(file, at))?;
            self.index.add(&header, &self.carry);
            self.carry.clear();
        }
        Ok(())
    }

    /// The segment has `bytes` bytes and no more.
    ///
    /// # Errors
    /// The last batch is cut.
    pub fn finish(self, bytes: u64, file: &str) -> Result<Index, Corrupt> {
        let found = self.index.summary.bytes;
        if self.is_whole() || (self.end.is_none() && found == bytes && self.carry.is_empty()) {
            return Ok(self.index);
        }
        let (expected, found) = (format!("batches that end at byte {bytes}"), format!("batches that end at byte {found}"));
        Err(Corrupt { file: file.to_owned(), place: bytes, expected, found })
    }
}

fn fits(summary: &Summary, header: Header) -> Result<Header, WalkError> {
    if header.base_offset != summary.end {
        return Err(WalkError::Gap { expected: summary.end, found: header.base_offset });
    }
    let room = summary.bytes + header.size as u64 <= u64::from(u32::MAX) && Summary::reaches(summary.base, header.next_offset());
    if room { Ok(header) } else { Err(WalkError::Size { found: header.size }) }
}

/// Compares an index with its whole segment: facts, every entry, and that it is dense enough to be what [`Rebuild`] makes.
///
/// # Errors
/// The first difference.
pub fn verify(index: &Index, segment: &[u8], file: &str) -> Result<(), Corrupt> {
    let mut rebuild = Rebuild::new(index.summary.base, index.interval);
    rebuild.push(0, segment, file)?;
    let rebuilt = rebuild.finish(segment.len() as u64, file)?;
    for entry in &index.entries {
        let found = segment.get(entry.place as usize..).unwrap_or_default();
        let header = index.check(entry, found, file)?;
        let before = rebuilt.timestamp_before(segment, entry.place);
        if before != entry.timestamp_before {
            let (expected, found) = (format!("largest timestamp before {before}"), format!("{}", entry.timestamp_before));
            return Err(Corrupt { file: file.to_owned(), place: u64::from(entry.place), expected, found });
        }
        debug_assert!(header.base_offset >= index.summary.base);
    }
    if index.summary != rebuilt.summary {
        let (expected, found) = (format!("{:?}", rebuilt.summary), format!("{:?}", index.summary));
        return Err(Corrupt { file: file.to_owned(), place: 0, expected, found });
    }
    Ok(())
}

impl Index {
    /// The largest timestamp of all batches before byte `place`, by a walk from the entry at or before it.
    fn timestamp_before(&self, segment: &[u8], place: u32) -> i64 {
        let after = self.entries.partition_point(|entry| entry.place <= place);
        let Some(from) = after.checked_sub(1).and_then(|last| self.entries.get(last)) else { return NO_TIMESTAMP };
        let between = segment.get(from.place as usize..place as usize).unwrap_or_default();
        let walked = walk::batches(between).filter_map(Result::ok).map(|found| found.header.max_timestamp);
        walked.fold(from.timestamp_before, i64::max)
    }
}

#[cfg(test)]
mod tests;
