//! A segment: the walk from batch to batch, the index made again from it in pieces of any size, and the trimming of what a fetch read.

use crate::input::Input;
use crate::meter;
use millrace_log::index::{self, Index, Rebuild};
use millrace_log::read_plan::{Ask, Expected, FileRead, Trimmed, trim};
use millrace_log::walk;

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let base = choices.i64();
    let (interval, piece) = (u32::from(choices.u16()), usize::from(choices.u16()) + 1);
    let (from, bound, max_bytes) = (i64::from(choices.u16()), i64::from(choices.u16()), usize::from(choices.u16()));
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
    window(bytes, base, Ask { from: base.saturating_add(from), bound: base.saturating_add(bound), max_bytes, whole_first: end % 2 == 0 });
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

/// What a fetch gets out of the bytes that it read.
fn window(bytes: &[u8], base: i64, ask: Ask) {
    let read = FileRead { segment: base.max(0), place: 0, len: bytes.len() as u64, expected: Expected { base, outer_crc: None } };
    if let Ok(Trimmed::Send { range, next }) = meter::bounded(4096, || trim(bytes, &read, bytes.len() as u64, &ask)) {
        let sent = &bytes[range];
        assert!(next > ask.from && next <= ask.bound);
        assert!(sent.len() <= ask.max_bytes || ask.whole_first);
        let mut end = None;
        for found in walk::batches(sent) {
            let header = found.expect("only whole batches are sent").header;
            assert!(end.is_none_or(|end| end == header.base_offset));
            assert!(header.next_offset() <= ask.bound);
            end = Some(header.next_offset());
        }
        assert_eq!(end, Some(next));
    }
}
