//! `millrace.meta`, as it is and with the CRC line made right.

use crate::meter;
use millrace_base::crc::crc32c;
use millrace_log::paths::Meta;

pub fn run(input: &[u8]) {
    check(input);
    let sealed = [input, format!("crc={:08x}\n", crc32c(input)).as_bytes()].concat();
    check(&sealed);
}

fn check(bytes: &[u8]) {
    let Ok(meta) = meter::bounded(4 * bytes.len() + 4096, || Meta::decode(bytes)) else { return };
    assert_eq!(Meta::decode(meta.encode().as_bytes()), Ok(meta));
    assert!(meta.node >= 0);
}
