//! The index file of a closed segment, as it is or with its blocks' CRCs made right; then searches in it.

use crate::input::Input;
use crate::meter;
use millrace_base::crc::crc32c_of;
use millrace_base::limits::BLOCK;
use millrace_log::index::{self, Index};

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let is_sealed = choices.u8() % 2 == 1;
    let (offset, timestamp) = (choices.i64(), choices.i64());
    let bytes = choices.rest();
    let base = bytes.get(8..16).and_then(|field| field.first_chunk::<8>()).map_or(0, |field| i64::from_le_bytes(*field));
    let own = if is_sealed { sealed(bytes, base) } else { bytes.to_vec() };
    let granted = 2 * own.len() + 4096;
    let Ok(index) = meter::bounded(granted, || Index::decode(&own, base, "index")) else { return };
    assert_eq!(index.summary().base, base);
    assert_eq!(index::decode_summary(&own, base, "index").as_ref(), Ok(index.summary()));
    let written = index.encode();
    assert_eq!(Index::decode(&written, base, "index").as_ref(), Ok(&index), "what was written is read");
    assert!(Index::decode(&own, base.wrapping_add(1), "index").is_err(), "another segment's index is refused");
    search(&index, offset, timestamp);
}

fn search(index: &Index, offset: i64, timestamp: i64) {
    let facts = index.summary();
    for offset in [offset, facts.base, facts.end] {
        let offset = offset.clamp(facts.base, facts.end);
        match index.for_offset(offset) {
            Some(entry) => assert!(facts.base + i64::from(entry.relative) <= offset && u64::from(entry.place) < facts.bytes),
            None => assert_eq!(facts.bytes, 0),
        }
    }
    for timestamp in [timestamp, facts.max_timestamp] {
        match index.for_time(timestamp) {
            Some(entry) => assert!(entry.timestamp_before < timestamp || entry.place == 0),
            None => assert!(facts.bytes == 0 || timestamp > facts.max_timestamp),
        }
    }
    for entry in index.entries() {
        assert_eq!(index.at_place(u64::from(entry.place)), Some(entry));
    }
    let mut cut = index.clone();
    cut.cut_back(offset);
    assert!(cut.summary().end <= facts.end && cut.summary().bytes <= facts.bytes);
}

pub fn sealed(bytes: &[u8], base: i64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    for (number, block) in bytes.chunks_mut(BLOCK).enumerate() {
        let (body, crc) = block.split_at_mut(BLOCK - 4);
        crc.copy_from_slice(&crc32c_of(&[&base.to_le_bytes(), &(number as u64).to_le_bytes(), body]).to_le_bytes());
    }
    bytes
}
