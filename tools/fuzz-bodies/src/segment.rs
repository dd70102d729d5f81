//! A segment: the walk from batch to batch, the index made again from it in pieces of any size, and the proof of each batch that a fetch reads.

use crate::input::Input;
use crate::meter;
use millrace_base::batch::{HEADER_BYTES, outer_crc};
use millrace_log::index::{self, Index, Rebuild};
use millrace_log::walk;

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let base = choices.i64();
    let (interval, piece) = (u32::from(choices.u16()), usize::from(choices.u16()) + 1);
    let end = choices.u8();
    let bytes = choices.rest();
    let base = if base % 2 == 0 { walk::header_at(bytes).map_or(0, |header| header.base_offset) } else { base };
    let walked = walk_all(bytes);
    let granted = 64 * bytes.len() + (16 << 10);
    let whole = meter::bounded(granted, || rebuild(Rebuild::new(base, interval), bytes, bytes.len()));
    let pieces = rebuild(Rebuild::new(base, interval), bytes, piece);
    assert_eq!(whole, pieces, "the size of the pieces does not matter");
    if let Some(index) = &whole {
        assert!(walked, "a segment of which an index is made is a row of batches");
        assert_eq!(index.summary().bytes, bytes.len() as u64);
        assert_eq!(index::verify(index, bytes, "segment"), Ok(()));
        let end = index.summary().base + (index.summary().end - index.summary().base) * i64::from(end) / 255;
        let cut = rebuild(Rebuild::up_to(base, interval, end), bytes, piece).expect("a part of a whole segment");
        assert!(cut.summary().end >= end && cut.summary().bytes <= index.summary().bytes);
    }
    proved(bytes, base);
}

fn rebuild(mut rebuild: Rebuild, bytes: &[u8], piece: usize) -> Option<Index> {
    let mut place = 0;
    while place < bytes.len() && !rebuild.is_whole() {
        let len = piece.min(bytes.len() - place);
        rebuild.push(place as u64, &bytes[place..place + len], "segment").ok()?;
        place = usize::try_from(rebuild.wanted()).expect("a place in memory").max(place + len);
    }
    rebuild.finish(bytes.len() as u64, "segment").ok()
}

/// Whether all bytes are whole batches.
fn walk_all(bytes: &[u8]) -> bool {
    let mut end = 0;
    let mut walk = walk::batches(bytes);
    for found in walk.by_ref() {
        let Ok(found) = found else { return false };
        assert_eq!((found.place, found.bytes.len()), (end, found.header.size));
        assert!(found.header.base_offset < found.header.next_offset());
        assert!(walk::place_of(bytes, found.header.base_offset).is_none_or(|place| place <= found.place));
        end = found.place + found.header.size;
    }
    assert_eq!(end, bytes.len());
    true
}

/// The row of batches that a fetch gets out of the bytes that it read: each is the one expected there.
fn proved(bytes: &[u8], base: i64) {
    let (mut at, mut expected, mut outer) = (0, base, None);
    while let Ok(header) = walk::header_of(&bytes[at..], expected, outer) {
        assert_eq!(header.base_offset, expected);
        assert!(header.next_offset() > expected && header.size >= HEADER_BYTES);
        let Some(rest) = bytes.get(at + header.size..) else { return };
        (at, expected) = (at + header.size, header.next_offset());
        outer = (rest.len() >= HEADER_BYTES).then(|| outer_crc(rest));
    }
}
