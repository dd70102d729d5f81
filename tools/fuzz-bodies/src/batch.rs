//! A record batch as a client sends it: header, CRC, record by record.

use crate::meter;
use millrace_base::batch::{self, BatchError, HEADER_BYTES, Header, LENGTH_OVERHEAD, place};
use millrace_base::crc::crc32c;
use millrace_base::record_walk;

pub fn run(input: &[u8]) {
    check(input);
    if input.len() > HEADER_BYTES {
        check(&sealed(input));
    }
}

/// The same bytes as one whole batch with the right magic and CRC.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut batch = bytes.to_vec();
    let length = (batch.len() - LENGTH_OVERHEAD) as i32;
    batch[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    batch[place::MAGIC] = 2;
    let crc = crc32c(&batch[place::ATTRIBUTES..]);
    batch[place::CRC..place::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn check(bytes: &[u8]) {
    let (stored, sent) = meter::bounded(0, || (batch::check_stored(bytes), batch::check(bytes)));
    if let Ok(header) = Header::parse(bytes) {
        // What a log takes in is bounded before; here only the arithmetic of any header must hold.
        let _ = (header.codec(), header.is_control(), header.last_sequence());
        if stored.is_ok() {
            assert!(header.size <= bytes.len());
            assert_eq!(crc32c(&bytes[place::ATTRIBUTES..header.size]), header.crc, "a wrong CRC is not noticed");
        }
    }
    let walked = records(bytes);
    let Ok(header) = sent else { return };
    assert_eq!((stored, header.size), (Ok(header), bytes.len()));
    assert_eq!(header.count, header.last_offset_delta + 1);
    if header.codec() == 0
        && let Ok(known) = meter::bounded(0, || record_walk::check(bytes, &header))
    {
        let (count, max_timestamp) = walked.expect("records that one walk takes, the other takes");
        assert_eq!((count, max_timestamp), (i64::from(header.count), Some(known.max_timestamp)));
    }
    patched(bytes, &header);
}

/// How many records there are, and the greatest timestamp. None: they are no records.
fn records(bytes: &[u8]) -> Option<(i64, Option<i64>)> {
    meter::bounded(0, || {
        let mut seen = (0, None);
        for record in batch::records(bytes) {
            let record = record?;
            seen = (seen.0 + 1, seen.1.max(Some(record.timestamp)));
        }
        Some(seen)
    })
}

fn patched(bytes: &[u8], header: &Header) {
    let mut own = bytes.to_vec();
    batch::patch(&mut own, 1 << 40, 7);
    let patched = batch::check(&own).expect("base offset and epoch are not under the CRC");
    assert_eq!(patched, Header { base_offset: 1 << 40, epoch: 7, ..*header });
    batch::set_max_timestamp(&mut own, 5);
    assert_eq!((batch::max_timestamp(&own), batch::check(&own).map(|header| header.max_timestamp)), (5, Ok(5)));
    batch::stamp_append_time(&mut own, 9);
    let stamped = batch::check_stored(&own).expect("the CRC was computed anew");
    assert!(stamped.is_append_time() && stamped.max_timestamp == 9);
    assert!(matches!(batch::check(&own), Err(BatchError::Attributes { .. })));
}
