//! Record batches of an exact size, made once and sent again and again.
//!
//! A batch's CRC covers neither base offset nor leader epoch, so one batch is valid at every offset of every partition.

use millrace_base::batch::Builder;
use millrace_base::prng::Prng;

/// The smallest batch that holds one record of a few bytes.
pub const BATCH_BYTES_MIN: usize = 128;

/// One batch of exactly `batch_bytes`, header included, in records of about `record_bytes` each (the last takes what is left).
/// Values are noise: nothing on the way can gain by compressing them.
///
/// # Panics
/// When `batch_bytes` is below [`BATCH_BYTES_MIN`] or `record_bytes` is 0.
pub fn batch(batch_bytes: usize, record_bytes: usize, timestamp: i64) -> Vec<u8> {
    assert!(batch_bytes >= BATCH_BYTES_MIN && record_bytes > 0);
    let mut noise = vec![0; batch_bytes.max(record_bytes)];
    let mut prng = Prng::new(batch_bytes as u64);
    for chunk in noise.chunks_mut(8) {
        chunk.copy_from_slice(&prng.next_u64().to_le_bytes()[..chunk.len()]);
    }
    // A value that must shrink by a byte for the total can cross a varint's edge, which takes two: then a key's byte makes up for it.
    let lens = |last: usize, count: usize| std::iter::repeat_n(value_len(record_bytes), count - 1).chain([last]);
    let build = |last: usize, count: usize, key: Option<&[u8]>| {
        let mut builder = Builder::new(timestamp);
        let mut at = 0;
        for (i, len) in lens(last, count).enumerate() {
            at = (at + 13) % (noise.len() - len + 1);
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
            let batch = batch(size, 1024, 1_700_000_000_000);
            assert_eq!(batch.len(), size);
            let header = check(&batch).unwrap();
            assert_eq!(records(&batch).flatten().count(), header.count as usize);
            assert!(header.count as usize >= size / 1100, "{size} bytes hold {} records", header.count);
        }
    }

    #[test]
    fn small_records_fill_a_batch_too() {
        let batch = batch(16 << 10, 100, 0);
        let header = check(&batch).unwrap();
        assert!((140..=164).contains(&header.count), "{} records", header.count);
    }
}
