//! The first record of a batch that is not before a time, of a batch that is stored as it was sent: records may be anything.

use crate::batch::sealed;
use crate::input::Input;
use crate::meter;
use millrace_base::batch::{HEADER_BYTES, Header};
use millrace_log::codec::ZSTD_WINDOW_MAX;
use millrace_log::time_lookup::{OPENED_BYTES_MAX, first_from};
use millrace_log::walk;

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let (timestamp, from) = (choices.i64(), choices.i64());
    let bytes = choices.rest();
    check(bytes, timestamp, from);
    if bytes.len() > HEADER_BYTES {
        check(&sealed(bytes), timestamp, from);
    }
}

fn check(bytes: &[u8], timestamp: i64, from: i64) {
    let mut scratch = vec![0; OPENED_BYTES_MAX];
    let granted = 4 * OPENED_BYTES_MAX + 2 * ZSTD_WINDOW_MAX as usize + 4 * bytes.len();
    let Some(found) = meter::bounded(granted, || first_from(bytes, timestamp, from, &mut scratch)) else { return };
    let header: Header = walk::header_at(bytes).expect("only a batch is answered for");
    assert!((header.base_offset..header.next_offset()).contains(&found.offset) && found.offset >= from);
    assert!(found.timestamp >= timestamp);
}
