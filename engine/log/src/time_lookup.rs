//! The first record of one batch that is not before a time: what ListOffsets by time names.
//!
//! The batch was found by its header's max timestamp. If its records have all one time (LogAppendTime), that is the answer; else the
//! batch is opened into the caller's memory. Records that are more than that, or that cannot be opened because
//! their producer sent nonsense, are not searched: the answer is then the batch's first offset, which is never behind the record asked for,
//! so that a consumer that starts there misses nothing.
//!
//! Opening takes milliseconds for a large or compressed batch, which is no work for a turn; [`is_quick`] says which may be looked into there.
//!
//! Knows nothing of segments.

use crate::codec::Codec;
use crate::walk;
use millrace_base::batch::{self, HEADER_BYTES, Header, Records};
use millrace_base::offset::Offset;

/// Decompressed bytes of one batch that a caller with much memory searches.
pub const OPENED_BYTES_MAX: usize = 16 << 20;

/// Uncompressed bytes of a batch that are quick to search: some 2,300 records, if they are as small as can be.
pub const QUICK_BYTES_MAX: usize = 16 << 10;

/// Whether [`first_from`] takes no longer than other work of a turn, and no scratch.
pub fn is_quick(header: &Header) -> bool {
    header.is_append_time() || (header.codec() == 0 && header.size <= QUICK_BYTES_MAX)
}

/// The record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub offset: Offset,
    pub timestamp: i64,
    /// False: the batch could not be searched, this is the first offset that counts and the batch's max timestamp.
    pub exact: bool,
}

/// `batch`: one whole batch, of which records below `from` do not count. None: no record is late enough (nor, then, is what its header says
/// true of those that count), or these are not a batch's bytes; go on with the next batch. `scratch`: what its records are
/// decompressed into, at most [`OPENED_BYTES_MAX`]; empty if it is quick.
pub fn first_from(batch: &[u8], timestamp: i64, from: Offset, scratch: &mut [u8]) -> Option<Found> {
    let header = walk::header_at(batch).ok().filter(|header| header.size <= batch.len())?;
    if header.max_timestamp < timestamp || header.next_offset() <= from {
        return None;
    }
    let base = Found { offset: header.base_offset.max(from), timestamp: header.max_timestamp, exact: header.is_append_time() };
    if header.is_append_time() {
        return Some(base);
    }
    let Some(records) = open(&header, &batch[..header.size], scratch) else { return Some(base) };
    for record in records {
        match record {
            Some(record) if record.timestamp >= timestamp && (base.offset..header.next_offset()).contains(&record.offset) => {
                return Some(Found { offset: record.offset, timestamp: record.timestamp, exact: true });
            }
            Some(_) => {}
            None => return Some(base),
        }
    }
    None
}

/// Its records, decompressed if need be.
fn open<'a>(header: &Header, batch: &'a [u8], scratch: &'a mut [u8]) -> Option<Records<'a>> {
    let codec = Codec::from_number(header.codec()).ok()?;
    if codec == Codec::None {
        return Some(batch::records(batch));
    }
    let len = codec.decompress_into(&batch[HEADER_BYTES..], scratch).ok()?;
    Some(batch::opened_records(header, &scratch[..len]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::{ALL, compress};
    use millrace_base::batch::{Builder, patch, stamp_append_time};
    use millrace_base::batch::{LENGTH_OVERHEAD, place};
    use millrace_base::prng::Prng;

    fn first_from(batch: &[u8], timestamp: i64, from: Offset) -> Option<Found> {
        super::first_from(batch, timestamp, from, &mut vec![0; OPENED_BYTES_MAX])
    }

    /// Offsets 40.., times 100, 300, 200, 400.
    fn sample() -> Vec<u8> {
        let mut builder = Builder::new(100);
        for timestamp in [100, 300, 200, 400] {
            builder.push(timestamp, None, Some(&[b'v'; 200]));
        }
        let mut bytes = builder.finish();
        patch(&mut bytes, 40, 1);
        bytes
    }

    fn packed(codec: Codec, number: u8) -> Vec<u8> {
        let plain = sample();
        let mut bytes = [&plain[..HEADER_BYTES], &compress(codec, &plain[HEADER_BYTES..])].concat();
        bytes[place::ATTRIBUTES + 1] |= number;
        let length = (bytes.len() - LENGTH_OVERHEAD) as i32;
        bytes[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn exact(offset: Offset, timestamp: i64) -> Option<Found> {
        Some(Found { offset, timestamp, exact: true })
    }

    #[test]
    fn the_first_record_that_is_late_enough_is_named_whatever_the_codec() {
        let mut batches = vec![sample()];
        batches.extend(ALL.iter().zip(1..).map(|(codec, number)| packed(*codec, number)));
        for batch in batches {
            let at = |timestamp| first_from(&batch, timestamp, 0);
            assert_eq!(
                [at(0), at(100), at(101), at(301), at(400)],
                [exact(40, 100), exact(40, 100), exact(41, 300), exact(43, 400), exact(43, 400)]
            );
            assert_eq!(at(401), None);
        }
    }

    #[test]
    fn records_below_the_first_offset_asked_for_do_not_count() {
        let batch = sample();
        let at = |timestamp, from| first_from(&batch, timestamp, from);
        assert_eq!([at(0, 41), at(201, 42), at(0, 43)], [exact(41, 300), exact(43, 400), exact(43, 400)]);
        assert_eq!(at(0, 44), None);
        let mut stamped = sample();
        stamp_append_time(&mut stamped, 999);
        assert_eq!(first_from(&stamped, 500, 42), exact(42, 999));
    }

    #[test]
    fn append_time_answers_with_the_batchs_begin() {
        let mut batch = sample();
        stamp_append_time(&mut batch, 999);
        assert_eq!(first_from(&batch, 500, 0), exact(40, 999));
        assert_eq!(first_from(&batch, 1000, 0), None);
    }

    #[test]
    fn a_batch_that_cannot_be_searched_answers_with_its_base_offset() {
        let base = Some(Found { offset: 40, timestamp: 400, exact: false });
        for number in 1..8 {
            let mut nonsense = sample();
            nonsense[place::ATTRIBUTES + 1] |= number;
            assert_eq!(first_from(&nonsense, 301, 0), base, "codec {number}");
        }
        let mut builder = Builder::new(1);
        builder.push(400, None, Some(&vec![0; OPENED_BYTES_MAX]));
        let plain = builder.finish();
        let mut bomb = [&plain[..HEADER_BYTES], &compress(Codec::Gzip, &plain[HEADER_BYTES..])].concat();
        let length = (bomb.len() - LENGTH_OVERHEAD) as i32;
        bomb[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        bomb[place::ATTRIBUTES + 1] |= 1;
        patch(&mut bomb, 40, 1);
        assert_eq!(first_from(&bomb, 301, 0), base);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_answers_stay_in_the_batch() {
        let mut prng = Prng::new(2);
        let mut scratch = vec![0; OPENED_BYTES_MAX];
        for (number, codec) in ALL.iter().enumerate() {
            let good = packed(*codec, number as u8 + 1);
            for _ in 0..1000 {
                let mut bad = good.clone();
                for _ in 0..=prng.below(3) {
                    let at = prng.below(bad.len() as u64) as usize;
                    bad[at] = prng.next_u64() as u8;
                }
                if let (Some(found), Ok(header)) = (super::first_from(&bad, 150, 0, &mut scratch), walk::header_at(&bad)) {
                    assert!((header.base_offset..header.next_offset()).contains(&found.offset));
                }
            }
        }
    }
}
