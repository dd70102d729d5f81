//! Record batches of an exact size, made once and sent again and again.
//!
//! A batch's CRC covers neither base offset nor leader epoch, so one batch is valid at every offset of every partition. It does cover the
//! producer's fields: a batch of an idempotent producer is stamped anew for each sending.

use crate::failure::{Failure, Outcome};
use millrace_base::batch::{Builder, HEADER_BYTES, LENGTH_OVERHEAD, place};
use millrace_base::crc::crc32c;
use millrace_base::prng::Prng;
use std::io::Write;

/// The smallest batch that holds one record of a few bytes.
pub const BATCH_BYTES_MIN: usize = 128;

/// What values are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing on the way can gain by compressing it.
    Noise,
    /// Words, three of four out of a small vocabulary: lz4 makes less than half of them.
    Words,
}

impl Content {
    fn bytes(self, len: usize) -> Vec<u8> {
        let mut prng = Prng::new(len as u64);
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            match self {
                Content::Noise => out.extend_from_slice(&prng.next_u64().to_le_bytes()),
                Content::Words => {
                    let (is_new, number) = (prng.below(4) == 0, prng.below(256));
                    let word = if is_new { prng.next_u64() } else { Prng::new(number).next_u64() };
                    out.extend_from_slice(format!("{word:x} ").as_bytes());
                }
            }
        }
        out.truncate(len);
        out
    }
}

/// One batch of exactly `batch_bytes`, header included, in records of about `record_bytes` each (the last takes what is left).
///
/// # Panics
/// When `batch_bytes` is below [`BATCH_BYTES_MIN`] or `record_bytes` is 0.
pub fn batch(batch_bytes: usize, record_bytes: usize, timestamp: i64, content: Content) -> Vec<u8> {
    assert!(batch_bytes >= BATCH_BYTES_MIN && record_bytes > 0);
    let noise = content.bytes(batch_bytes.max(record_bytes));
    // A value that must shrink by a byte for the total can cross a varint's edge, which takes two: then a key's byte makes up for it.
    let lens = |last: usize, count: usize| std::iter::repeat_n(value_len(record_bytes), count - 1).chain([last]);
    let build = |last: usize, count: usize, key: Option<&[u8]>| {
        let mut builder = Builder::new(timestamp);
        let mut at = 0;
        for (i, len) in lens(last, count).enumerate() {
            // Behind the value before, so that no two share bytes that a codec would find.
            at = (at + len) % (noise.len() - len + 1);
            builder.push(timestamp, key.filter(|_| i == 0), Some(&noise[at..at + len]));
        }
        builder
    };
    let whole = build(0, 2, None).size() - build(0, 1, None).size();
    let mut count = (batch_bytes / whole).max(1);
    while count > 1 && build(0, count, None).size() > batch_bytes {
        count -= 1;
    }
    let least = build(0, count, None).size();
    let room = batch_bytes - least.min(batch_bytes);
    for key in [None, Some(&b"k"[..]), Some(&b"ke"[..]), Some(&b"key"[..])] {
        for last in (room.saturating_sub(24)..=room).rev() {
            if build(last, count, key).size() == batch_bytes {
                return build(last, count, key).finish();
            }
        }
    }
    unreachable!("a key of up to 3 bytes steps over any varint's edge")
}

/// The batch with its records as one lz4 frame, as Kafka's clients compress them.
pub fn compressed(batch: &[u8]) -> Outcome<Vec<u8>> {
    const LZ4: u8 = 3;
    let (header, records) = batch.split_at(HEADER_BYTES);
    let mut encoder = lz4_flex::frame::FrameEncoder::new(header.to_vec());
    let written = encoder.write_all(records).map_err(|error| error.to_string());
    let finished = written.and_then(|()| encoder.finish().map_err(|error| error.to_string()));
    let mut out = finished.map_err(|error| Failure::wrong("compressing a batch", error))?;
    let length = (out.len() - LENGTH_OVERHEAD) as i32;
    out[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    out[place::ATTRIBUTES + 1] |= LZ4;
    set_crc(&mut out);
    Ok(out)
}

/// Who sends a batch, and the number of its first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub sequence: i32,
}

/// Writes the producer's fields into a whole batch and computes its CRC anew.
pub fn stamp(batch: &mut [u8], stamp: Stamp) {
    batch[place::PRODUCER_ID..place::PRODUCER_ID + 8].copy_from_slice(&stamp.producer_id.to_be_bytes());
    batch[place::PRODUCER_EPOCH..place::PRODUCER_EPOCH + 2].copy_from_slice(&stamp.producer_epoch.to_be_bytes());
    batch[place::BASE_SEQUENCE..place::BASE_SEQUENCE + 4].copy_from_slice(&stamp.sequence.to_be_bytes());
    set_crc(batch);
}

fn set_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[place::ATTRIBUTES..]);
    batch[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Bytes of value in a record of `record_bytes`: the rest are attributes, deltas and lengths.
fn value_len(record_bytes: usize) -> usize {
    record_bytes.saturating_sub(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::batch::{check, records};

    #[test]
    fn batches_have_the_size_asked_for_and_are_valid() {
        let sizes = (BATCH_BYTES_MIN..400).chain([1000, 4096, 16 << 10, 64 << 10, 128 << 10, 1_000_000, 1 << 20]).chain(8240..8300);
        for size in sizes {
            let batch = batch(size, 1024, 1_700_000_000_000, Content::Noise);
            assert_eq!(batch.len(), size);
            let header = check(&batch).unwrap();
            assert_eq!(records(&batch).flatten().count(), header.count as usize);
            assert!(header.count as usize >= size / 1100, "{size} bytes hold {} records", header.count);
        }
    }

    #[test]
    fn small_records_fill_a_batch_too() {
        let batch = batch(16 << 10, 100, 0, Content::Noise);
        let header = check(&batch).unwrap();
        assert!((140..=164).contains(&header.count), "{} records", header.count);
    }

    #[test]
    fn a_compressed_batch_holds_the_same_records_in_fewer_bytes() {
        let plain = batch(64 << 10, 1024, 5, Content::Words);
        let packed = compressed(&plain).unwrap();
        assert!((packed.len() * 2..packed.len() * 5).contains(&plain.len()), "{} of {} bytes", packed.len(), plain.len());
        let noise = batch(64 << 10, 1024, 5, Content::Noise);
        assert!(compressed(&noise).unwrap().len() * 20 > noise.len() * 19, "noise does not compress");
        let header = check(&packed).unwrap();
        assert_eq!((header.codec(), header.count), (3, check(&plain).unwrap().count));
        let mut opened = Vec::new();
        std::io::Read::read_to_end(&mut lz4_flex::frame::FrameDecoder::new(&packed[HEADER_BYTES..]), &mut opened).unwrap();
        assert_eq!(opened, plain[HEADER_BYTES..]);
    }

    #[test]
    fn a_stamped_batch_is_valid_and_names_its_producer() {
        let mut batch = batch(4096, 1024, 0, Content::Noise);
        for sequence in [0, 4, i32::MAX] {
            stamp(&mut batch, Stamp { producer_id: 77, producer_epoch: 2, sequence });
            let header = check(&batch).unwrap();
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (77, 2, sequence));
        }
    }
}
