//! The journal's bytes: entries, the copies of their contents, and the file of openings.
//!
//! An entry is whole blocks: header, payload, contents (copy A), zeros, contents (copy B) up to its last byte. Both copies are the same
//! bytes and end in a trailer with a CRC of its own, so that copy B is found from the end of a block when the header is unreadable, and
//! copy A through the header when the end is. Integers are little-endian.
//!
//! 1. [`Header::encode`] and [`Header::decode`] know the front of an entry, [`Trailer`] the end of each copy.
//! 2. An entry's chain is the header CRC of the entry before, so it stands for everything written before it.
//! 3. [`Openings`] lists which incarnation wrote which sequences. Two slots hold it, written one after the other.
//!
//! Invariants: header + payload = place of A; A + contents <= B; B + contents = entry; entry is a multiple of the block;
//! first sequences of openings strictly increase.
//! Knows nothing of files, of which entries are live, or of what records mean.

use millrace_base::crc::crc32c_of;
use millrace_base::limits::BLOCK;

/// The size to which every journal file is written with zeros before its first use.
pub const FILE_BYTES: u64 = 16 << 20;
/// The largest entry: 8 MiB of payload and what surrounds it.
pub const ENTRY_BYTES_MAX: usize = (8 << 20) + (256 << 10);
/// A journal file longer than this is not one of ours.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// The format written and the newest one read.
pub const FORMAT: u32 = 1;

/// Sequences are below this: at a million entries a second, 146,000 years.
pub const SEQUENCE_END: u64 = 1 << 62;

/// The name of the file of openings in a journal's folder.
pub const OPENINGS_NAME: &str = "openings";

/// Name of a journal file.
pub fn file_name(slot: u32) -> String {
    format!("{slot}.journal")
}

/// Name of a journal file that is still being filled with zeros; renamed when that is durable.
pub fn unfinished_name(slot: u32) -> String {
    format!("{slot}.unfinished")
}

/// The slot in a name that [`file_name`] made.
pub fn slot_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".journal")?;
    let slot = digits.parse().ok()?;
    (file_name(slot) == name).then_some(slot)
}

const MAGIC: [u8; 8] = *b"mrJOURN\x01";
const TRAILER_MAGIC: [u8; 4] = *b"mrCT";
const OPENINGS_MAGIC: [u8; 8] = *b"mrOPENS\x01";

/// Places in an entry's header.
pub mod place {
    pub const MAGIC: usize = 0;
    pub const FORMAT: usize = MAGIC + 8;
    pub const CHAIN: usize = FORMAT + 4;
    pub const INCARNATION: usize = CHAIN + 4;
    pub const SEQUENCE: usize = INCARNATION + 8;
    pub const OLDEST_LIVE: usize = SEQUENCE + 8;
    pub const SYNCED: usize = OLDEST_LIVE + 8;
    pub const EXTENTS_BEFORE: usize = SYNCED + 8;
    pub const EXTENTS_DURABLE: usize = EXTENTS_BEFORE + 8;
    pub const ENTRY_BYTES: usize = EXTENTS_DURABLE + 8;
    pub const PAYLOAD_BYTES: usize = ENTRY_BYTES + 4;
    pub const CONTENTS_BYTES: usize = PAYLOAD_BYTES + 4;
    pub const CONTENTS_A: usize = CONTENTS_BYTES + 4;
    pub const CONTENTS_B: usize = CONTENTS_A + 4;
    pub const BODY_CRC: usize = CONTENTS_B + 4;
    pub const ZERO: usize = BODY_CRC + 4;
    /// Stays here in every format, so that a newer header is told from a damaged one.
    pub const HEADER_CRC: usize = ZERO + 4;
    pub const PAYLOAD: usize = HEADER_CRC + 4;
}

/// Size of an entry's header.
pub const HEADER_BYTES: usize = place::PAYLOAD;

/// Places in the trailer that ends each copy of the contents.
pub mod trailer_place {
    pub const MAGIC: usize = 0;
    pub const COUNT: usize = MAGIC + 4;
    pub const RECORDS_BYTES: usize = COUNT + 4;
    pub const ENTRY_BYTES: usize = RECORDS_BYTES + 4;
    pub const INCARNATION: usize = ENTRY_BYTES + 4;
    pub const SEQUENCE: usize = INCARNATION + 8;
    pub const PAYLOAD_BYTES: usize = SEQUENCE + 8;
    /// Over the encoded records and the trailer in front of it, rotated right by 15 bits.
    pub const CRC: usize = PAYLOAD_BYTES + 4;
    pub const END: usize = CRC + 4;
}

/// Size of a contents copy beyond its encoded records.
pub const TRAILER_BYTES: usize = trailer_place::END;

/// Places in a slot of the file of openings; a slot is one block.
pub mod openings_place {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = MAGIC + 8;
    pub const COUNT: usize = VERSION + 8;
    /// Over the whole slot but itself.
    pub const CRC: usize = COUNT + 4;
    pub const LIST: usize = CRC + 4;
    pub const OPENING_BYTES: usize = 16;
}

/// Openings that fit into a slot.
pub const OPENINGS_MAX: usize = (BLOCK - openings_place::LIST) / openings_place::OPENING_BYTES;

/// Bytes of an entry with this much payload and encoded records.
pub fn entry_bytes(payload: usize, records: usize) -> usize {
    (HEADER_BYTES + payload + 2 * (records + TRAILER_BYTES)).next_multiple_of(BLOCK)
}

/// Little-endian integers out of foreign bytes, without a panic.
pub(super) fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    let field = bytes.get(place..place.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], place: usize) -> Option<u64> {
    let field = bytes.get(place..place.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

fn put(out: &mut [u8], place: usize, field: &[u8]) {
    out[place..place + field.len()].copy_from_slice(field);
}

/// The front of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The header CRC of the entry before; 0 when there is none.
    pub chain: u32,
    pub incarnation: u64,
    /// Counted from 1 over all incarnations.
    pub sequence: u64,
    /// No entry below is needed any more.
    pub oldest_live: u64,
    /// All entries up to this one were durable when this one was built; 0 for none.
    pub synced: u64,
    /// Extent records in all entries before this one.
    pub extents_before: u64,
    /// The first so many extents are durable in their segments.
    pub extents_durable: u64,
    pub entry_bytes: u32,
    pub payload_bytes: u32,
    /// Of each copy, its trailer included.
    pub contents_bytes: u32,
    /// Over everything behind the header.
    pub body_crc: u32,
    /// Over the header in front of it. The next entry's chain.
    pub header_crc: u32,
}

/// Why bytes are no header of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoHeader {
    /// Other bytes stand here.
    Magic,
    /// The bytes changed: expected and found CRC.
    Crc(u32, u32),
    /// A format newer than [`FORMAT`].
    Newer(u32),
    /// The CRC is right and the lengths contradict each other.
    Lengths,
}

impl Header {
    pub fn contents_a(&self) -> usize {
        HEADER_BYTES + self.payload_bytes as usize
    }

    pub fn contents_b(&self) -> usize {
        (self.entry_bytes - self.contents_bytes) as usize
    }

    /// Writes the header; computes and sets `header_crc`.
    ///
    /// # Panics
    /// When `out` is shorter than a header.
    pub fn encode(&mut self, out: &mut [u8]) {
        put(out, place::MAGIC, &MAGIC);
        put(out, place::FORMAT, &FORMAT.to_le_bytes());
        put(out, place::CHAIN, &self.chain.to_le_bytes());
        put(out, place::INCARNATION, &self.incarnation.to_le_bytes());
        put(out, place::SEQUENCE, &self.sequence.to_le_bytes());
        put(out, place::OLDEST_LIVE, &self.oldest_live.to_le_bytes());
        put(out, place::SYNCED, &self.synced.to_le_bytes());
        put(out, place::EXTENTS_BEFORE, &self.extents_before.to_le_bytes());
        put(out, place::EXTENTS_DURABLE, &self.extents_durable.to_le_bytes());
        put(out, place::ENTRY_BYTES, &self.entry_bytes.to_le_bytes());
        put(out, place::PAYLOAD_BYTES, &self.payload_bytes.to_le_bytes());
        put(out, place::CONTENTS_BYTES, &self.contents_bytes.to_le_bytes());
        put(out, place::CONTENTS_A, &(self.contents_a() as u32).to_le_bytes());
        put(out, place::CONTENTS_B, &(self.contents_b() as u32).to_le_bytes());
        put(out, place::BODY_CRC, &self.body_crc.to_le_bytes());
        put(out, place::ZERO, &[0; 4]);
        self.header_crc = crc32c_of(&[&out[..place::HEADER_CRC]]);
        put(out, place::HEADER_CRC, &self.header_crc.to_le_bytes());
    }

    /// Reads the header at the front of `bytes`.
    ///
    /// # Errors
    /// Says in which way the bytes are no header.
    pub fn decode(bytes: &[u8]) -> Result<Header, NoHeader> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(NoHeader::Magic)?;
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(NoHeader::Magic);
        }
        let u32_of = |place| u32_at(bytes, place).ok_or(NoHeader::Lengths);
        let u64_of = |place| u64_at(bytes, place).ok_or(NoHeader::Lengths);
        let stated = u32_of(place::HEADER_CRC)?;
        let crc = crc32c_of(&[bytes.get(..place::HEADER_CRC).ok_or(NoHeader::Lengths)?]);
        if stated != crc {
            return Err(NoHeader::Crc(stated, crc));
        }
        let format = u32_of(place::FORMAT)?;
        if format > FORMAT {
            return Err(NoHeader::Newer(format));
        }
        let header = Header {
            chain: u32_of(place::CHAIN)?,
            incarnation: u64_of(place::INCARNATION)?,
            sequence: u64_of(place::SEQUENCE)?,
            oldest_live: u64_of(place::OLDEST_LIVE)?,
            synced: u64_of(place::SYNCED)?,
            extents_before: u64_of(place::EXTENTS_BEFORE)?,
            extents_durable: u64_of(place::EXTENTS_DURABLE)?,
            entry_bytes: u32_of(place::ENTRY_BYTES)?,
            payload_bytes: u32_of(place::PAYLOAD_BYTES)?,
            contents_bytes: u32_of(place::CONTENTS_BYTES)?,
            body_crc: u32_of(place::BODY_CRC)?,
            header_crc: stated,
        };
        let (entry, contents) = (u64::from(header.entry_bytes), u64::from(header.contents_bytes));
        let a = HEADER_BYTES as u64 + u64::from(header.payload_bytes);
        let fits = entry.is_multiple_of(BLOCK as u64) && contents >= TRAILER_BYTES as u64 && a + 2 * contents <= entry;
        let places = u64::from(u32_of(place::CONTENTS_A)?) == a && u64::from(u32_of(place::CONTENTS_B)?) + contents == entry;
        let sequences = header.sequence > 0
            && header.sequence < SEQUENCE_END
            && header.oldest_live <= header.sequence
            && header.synced < header.sequence;
        if format == FORMAT && fits && places && sequences { Ok(header) } else { Err(NoHeader::Lengths) }
    }
}

/// The end of each copy of an entry's contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Records in the copy.
    pub count: u32,
    pub records_bytes: u32,
    pub entry_bytes: u32,
    pub incarnation: u64,
    pub sequence: u64,
    pub payload_bytes: u32,
}

impl Trailer {
    /// Writes `records` and the trailer behind them to the front of `out`.
    ///
    /// # Panics
    /// When `out` is shorter than both.
    pub fn encode(&self, records: &[u8], out: &mut [u8]) {
        assert_eq!(records.len(), self.records_bytes as usize);
        let (front, end) = out.split_at_mut(records.len());
        front.copy_from_slice(records);
        put(end, trailer_place::MAGIC, &TRAILER_MAGIC);
        put(end, trailer_place::COUNT, &self.count.to_le_bytes());
        put(end, trailer_place::RECORDS_BYTES, &self.records_bytes.to_le_bytes());
        put(end, trailer_place::ENTRY_BYTES, &self.entry_bytes.to_le_bytes());
        put(end, trailer_place::INCARNATION, &self.incarnation.to_le_bytes());
        put(end, trailer_place::SEQUENCE, &self.sequence.to_le_bytes());
        put(end, trailer_place::PAYLOAD_BYTES, &self.payload_bytes.to_le_bytes());
        let crc = inner_crc(front, &end[..trailer_place::CRC]);
        put(end, trailer_place::CRC, &crc.to_le_bytes());
    }

    /// What the end of `bytes` says, were it a trailer; its CRC is not looked at.
    pub fn peek(bytes: &[u8]) -> Option<Trailer> {
        let end = bytes.get(bytes.len().checked_sub(TRAILER_BYTES)?..)?;
        if end.get(..TRAILER_MAGIC.len()) != Some(&TRAILER_MAGIC) {
            return None;
        }
        Some(Trailer {
            count: u32_at(end, trailer_place::COUNT)?,
            records_bytes: u32_at(end, trailer_place::RECORDS_BYTES)?,
            entry_bytes: u32_at(end, trailer_place::ENTRY_BYTES)?,
            incarnation: u64_at(end, trailer_place::INCARNATION)?,
            sequence: u64_at(end, trailer_place::SEQUENCE)?,
            payload_bytes: u32_at(end, trailer_place::PAYLOAD_BYTES)?,
        })
    }

    /// The copy that ends at the end of `bytes`: its trailer and encoded records. None unless its CRC is right.
    pub fn decode(bytes: &[u8]) -> Option<(Trailer, &[u8])> {
        let trailer = Trailer::peek(bytes)?;
        let begin = bytes.len().checked_sub(TRAILER_BYTES)?;
        let end = bytes.get(begin..)?;
        let records = bytes.get(begin.checked_sub(trailer.records_bytes as usize)?..begin)?;
        let crc = inner_crc(records, end.get(..trailer_place::CRC)?);
        (u32_at(end, trailer_place::CRC)? == crc).then_some((trailer, records))
    }
}

/// The CRC of a contents copy, rotated. Bytes followed by their own plain CRC add the same to an outer CRC whatever they are, so the
/// body's CRC would not see one copy replaced by an older entry's, which is what a torn write over recycled blocks leaves.
fn inner_crc(records: &[u8], trailer: &[u8]) -> u32 {
    crc32c_of(&[records, trailer]).rotate_right(15)
}

/// One opening of a journal: `incarnation` wrote the entries from `first` up to the next opening's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    pub incarnation: u64,
    pub first: u64,
}

/// The openings of a journal whose entries are still needed, oldest first.
///
/// An opening is recorded after every entry before it was synced: it states them durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Openings {
    /// Grows with every write of a slot.
    pub version: u64,
    pub list: Vec<Opening>,
}

impl Openings {
    /// The incarnation that entry `sequence` must bear to count.
    pub fn incarnation_of(&self, sequence: u64) -> Option<u64> {
        let later = self.list.partition_point(|opening| opening.first <= sequence);
        later.checked_sub(1).and_then(|index| self.list.get(index)).map(|opening| opening.incarnation)
    }

    /// The entries that the newest opening states durable: all up to this sequence.
    pub fn stated(&self) -> u64 {
        self.list.last().map_or(0, |opening| opening.first.saturating_sub(1))
    }

    /// Entries below this are assigned to no incarnation: they are not needed, or count through the chain of those above alone.
    pub fn assigned_from(&self) -> u64 {
        self.list.first().map_or(0, |opening| opening.first)
    }

    /// The list with a new opening, without those whose entries are all below `oldest_live`, and without those that wrote nothing live.
    /// When that is more than fits, the oldest go: a journal must open however often it was opened before.
    pub fn with(&self, opening: Opening, oldest_live: u64) -> Openings {
        let mut list: Vec<Opening> = self.list.iter().copied().filter(|old| old.first < opening.first).collect();
        list.push(opening);
        let needed = list.partition_point(|other| other.first <= oldest_live).saturating_sub(1);
        let needed = needed.max(list.len().saturating_sub(OPENINGS_MAX));
        Openings { version: self.version + 1, list: list.split_off(needed) }
    }

    /// One slot's bytes.
    ///
    /// # Panics
    /// When there are more than [`OPENINGS_MAX`].
    pub fn encode(&self) -> [u8; BLOCK] {
        assert!(self.list.len() <= OPENINGS_MAX);
        let mut out = [0; BLOCK];
        put(&mut out, openings_place::MAGIC, &OPENINGS_MAGIC);
        put(&mut out, openings_place::VERSION, &self.version.to_le_bytes());
        put(&mut out, openings_place::COUNT, &(self.list.len() as u32).to_le_bytes());
        for (index, opening) in self.list.iter().enumerate() {
            let place = openings_place::LIST + index * openings_place::OPENING_BYTES;
            put(&mut out, place, &opening.incarnation.to_le_bytes());
            put(&mut out, place + 8, &opening.first.to_le_bytes());
        }
        let crc = crc32c_of(&[&out[..openings_place::CRC], &out[openings_place::LIST..]]);
        put(&mut out, openings_place::CRC, &crc.to_le_bytes());
        out
    }

    /// Reads one slot. None when it is torn, damaged or was never written.
    pub fn decode(slot: &[u8]) -> Option<Openings> {
        let slot = slot.get(..BLOCK)?;
        let crc = crc32c_of(&[slot.get(..openings_place::CRC)?, slot.get(openings_place::LIST..)?]);
        if slot.get(..OPENINGS_MAGIC.len()) != Some(&OPENINGS_MAGIC) || u32_at(slot, openings_place::CRC)? != crc {
            return None;
        }
        let count = u32_at(slot, openings_place::COUNT)? as usize;
        if count > OPENINGS_MAX {
            return None;
        }
        let at = |index: usize| {
            let place = openings_place::LIST + index * openings_place::OPENING_BYTES;
            Some(Opening { incarnation: u64_at(slot, place)?, first: u64_at(slot, place + 8)? })
        };
        let list = (0..count).map(at).collect::<Option<Vec<Opening>>>()?;
        let bounded = list.iter().all(|opening| (1..SEQUENCE_END).contains(&opening.first));
        let rising = bounded && list.windows(2).all(|pair| matches!(pair, [a, b] if a.first < b.first));
        rising.then_some(Openings { version: u64_at(slot, openings_place::VERSION)?, list })
    }
}
