//! The file beside a partition's segments that holds a state too large for the journal.
//!
//! 1. A state of more than [`INLINE_BYTES_MAX`] goes to `<20-digit end>.state`, is synced with its directory, and then named in the
//!    journal together with its length and CRC. The file that the journal names is the current one; others are leftovers.
//! 2. A file is written once and never again: the current file's end coming once more takes `<20-digit end>-1.state`, then `-2`.
//!
//! File, little-endian: "MLST" | version 2 | 0 2 | end 8 | body length 4 | body crc 4 | crc of these 24 bytes 4 | body.
//!
//! Invariants: what the journal names was durable before; nothing that the journal names is written or removed.
//! Knows nothing of what a state says.

use crate::bytes::{Malformed, OFFSET_MAX, Put, Reader};
use millrace_base::crc::crc32c;
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use std::fmt;
use std::str::FromStr;

/// The largest state that is carried in the journal.
pub const INLINE_BYTES_MAX: usize = 8 << 10;

/// The largest body: the bounds of its parts together.
pub const BODY_BYTES_MAX: usize = 64 << 20;

const MAGIC: &[u8; 4] = b"MLST";
const VERSION: u16 = 1;
/// Bytes in front of the body.
pub const HEAD_BYTES: usize = 28;

/// A state file's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    /// The durable end of the state inside.
    pub end: Offset,
    /// Which file of this end; 0 in most.
    pub again: u32,
}

/// The current file as the journal names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    pub name: Name,
    /// Of the whole file.
    pub bytes: u32,
    /// Of the body.
    pub crc: u32,
}

impl Name {
    /// The name for a new file while `current` must stay as it is.
    pub fn next(end: Offset, current: Option<Name>) -> Name {
        let again = current.filter(|current| current.end == end).map_or(0, |current| current.again.wrapping_add(1));
        Name { end, again }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.again {
            0 => write!(f, "{:020}.state", self.end),
            again => write!(f, "{:020}-{again}.state", self.end),
        }
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Name, ()> {
        let stem = text.strip_suffix(".state").ok_or(())?;
        let (digits, again) = stem.split_once('-').unwrap_or((stem, "0"));
        let name = Name { end: digits.parse().map_err(drop)?, again: again.parse().map_err(drop)? };
        // One spelling per name: what is written again is what was read.
        if name.to_string() == text { Ok(name) } else { Err(()) }
    }
}

/// Of the state files in a partition's directory, those that may go: all but the one that the journal names.
pub fn leftovers<'a>(names: impl IntoIterator<Item = &'a str>, current: Option<Name>) -> Vec<Name> {
    names.into_iter().filter_map(|text| text.parse().ok()).filter(|name| Some(*name) != current).collect()
}

/// The whole file, and how the journal is to name it.
pub fn encode(name: Name, body: &[u8]) -> (Vec<u8>, Reference) {
    assert!(body.len() <= BODY_BYTES_MAX);
    let crc = crc32c(body);
    let mut out = Vec::with_capacity(HEAD_BYTES + body.len());
    out.extend_from_slice(MAGIC);
    out.put_u16(VERSION);
    out.put_u16(0);
    out.put_i64(name.end);
    out.put_u32(body.len() as u32);
    out.put_u32(crc);
    let head = crc32c(&out);
    out.put_u32(head);
    out.extend_from_slice(body);
    let reference = Reference { name, bytes: out.len() as u32, crc };
    (out, reference)
}

/// The body of the file that the journal names.
///
/// # Errors
/// Another version, another file, or damage.
pub fn decode<'a>(bytes: &'a [u8], reference: &Reference) -> Result<&'a [u8], Corrupt> {
    let file = reference.name.to_string();
    let corrupt = |expected: String, found: String| Corrupt { file: file.clone(), place: 0, expected, found };
    if bytes.len() != reference.bytes as usize {
        return Err(corrupt(format!("{} bytes", reference.bytes), format!("{} bytes", bytes.len())));
    }
    let body = read(bytes).map_err(|error| error.in_file(&file, 0))?;
    let found = crc32c(body.bytes);
    if body.end != reference.name.end || body.crc != reference.crc || found != reference.crc {
        return Err(corrupt(
            format!("a state of end {} with CRC {:#010x}", reference.name.end, reference.crc),
            format!("one of end {} with CRC {found:#010x}", body.end),
        ));
    }
    Ok(body.bytes)
}

struct Body<'a> {
    end: Offset,
    crc: u32,
    bytes: &'a [u8],
}

fn read(bytes: &[u8]) -> Result<Body<'_>, Malformed> {
    let mut reader = Reader::new(bytes);
    let magic = reader.take(4, "\"MLST\"")?;
    let (version, zeros) = (reader.u16("version 1")?, reader.u16("zeros")?);
    let (end, len, crc) = (reader.offset("end of the state")?, reader.u32("length of the body")?, reader.u32("CRC of the body")?);
    let head = reader.u32("CRC of the head")?;
    if magic != MAGIC || (version, zeros) != (VERSION, 0) || crc32c(&bytes[..HEAD_BYTES - 4]) != head || len as usize != reader.left() {
        return Err(Malformed { what: "\"MLST\" version 1 and its facts", place: 0 });
    }
    Ok(Body { end, crc, bytes: reader.take(len as usize, "body")? })
}

impl Reference {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_i64(self.name.end);
        out.put_u32(self.name.again);
        out.put_u32(self.bytes);
        out.put_u32(self.crc);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Reference, Malformed> {
        let name = Name { end: reader.offset("end of the state file")?, again: reader.u32("number of the state file")? };
        let (bytes, crc) = (reader.u32("bytes of the state file")?, reader.u32("CRC of the state file")?);
        let sound = (HEAD_BYTES..=HEAD_BYTES + BODY_BYTES_MAX).contains(&(bytes as usize)) && name.end <= OFFSET_MAX;
        if sound { Ok(Reference { name, bytes, crc }) } else { Err(reader.malformed("a state file's name")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::prng::Prng;

    #[test]
    fn a_name_has_one_spelling() {
        assert_eq!(Name { end: 42, again: 0 }.to_string(), "00000000000000000042.state");
        assert_eq!("00000000000000000042-3.state".parse(), Ok(Name { end: 42, again: 3 }));
        for bad in [
            "42.state",
            "00000000000000000042-0.state",
            "00000000000000000042.log",
            "-0000000000000000001.state",
            ".state",
            "00000000000000000042-+1.state",
        ] {
            assert_eq!(bad.parse::<Name>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn the_current_file_is_never_written_again_and_never_a_leftover() {
        let first = Name::next(42, None);
        let second = Name::next(42, Some(first));
        assert_ne!(first, second);
        assert_eq!(Name::next(43, Some(second)), Name { end: 43, again: 0 });
        let names = ["00000000000000000042.state", "00000000000000000042-1.state", "00000000000000000000.log"];
        assert_eq!(leftovers(names, Some(second)), [first]);
    }

    #[test]
    fn a_state_reads_back_only_by_its_own_reference() {
        let (file, reference) = encode(Name { end: 9, again: 0 }, b"the state");
        assert_eq!(decode(&file, &reference).unwrap(), b"the state");
        let (other, _) = encode(Name { end: 9, again: 0 }, b"the stale");
        assert!(decode(&other, &reference).is_err());
        let mut prng = Prng::new(4);
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1 << prng.below(8);
            assert!(decode(&bad, &reference).is_err(), "byte {at}");
            assert!(decode(&file[..at], &reference).is_err());
        }
        let mut newer = file.clone();
        newer[6] = 1;
        let head = crc32c(&newer[..24]);
        newer[24..28].copy_from_slice(&head.to_le_bytes());
        assert!(decode(&newer, &reference).is_err(), "what stands in the place of zeros means something");
    }
}
