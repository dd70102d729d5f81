//! A state file, read as the journal names it, and file names. The head is made right in one of two inputs, so that the body is reached.

use crate::input::Input;
use crate::meter;
use millrace_base::crc::crc32c;
use millrace_log::paths;
use millrace_log::state_file::{self, Name, Reference};

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let is_sealed = choices.u8() % 2 == 1;
    let name = Name { end: choices.i64(), again: choices.u32() };
    let bytes = choices.rest();
    names(bytes);
    if let Some(end) = Some(name.end).filter(|end| *end >= 0) {
        let (written, reference) = state_file::encode(Name { end, ..name }, bytes);
        let read = state_file::decode(&written, &reference);
        assert!(read.is_err() || read == Ok(bytes));
    }
    let own = if is_sealed { sealed(bytes) } else { bytes.to_vec() };
    let crc = own.get(state_file::HEAD_BYTES..).map_or(0, crc32c);
    let reference = Reference { name, bytes: own.len() as u32, crc };
    if let Ok(body) = meter::bounded(4096, || state_file::decode(&own, &reference)) {
        assert_eq!((crc32c(body), body.len()), (reference.crc, own.len() - state_file::HEAD_BYTES));
        assert_eq!(state_file::encode(name, body), (own.clone(), reference), "read, then written, is the same");
    }
}

/// The CRCs of body and head made right.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= state_file::HEAD_BYTES {
        let body = crc32c(&bytes[state_file::HEAD_BYTES..]);
        bytes[20..24].copy_from_slice(&body.to_le_bytes());
        let head = crc32c(&bytes[..24]);
        bytes[24..28].copy_from_slice(&head.to_le_bytes());
    }
    bytes
}

/// A name that is taken for one of ours is spelled as we spell it.
fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match paths::named(text) {
        Some(paths::Named::Segment(base)) => assert_eq!(paths::segment_name(base), text),
        Some(paths::Named::Index(base)) => assert_eq!(paths::index_name(base), text),
        Some(paths::Named::State(name)) => assert_eq!(name.to_string(), text),
        None => {}
    }
    if let Some(topic) = paths::topic_named(text) {
        assert_eq!(topic.to_string(), text);
    }
    if let Some(number) = paths::partition_named(text) {
        assert_eq!(number.to_string(), text);
    }
    if let Some(number) = paths::shard_named(text) {
        assert_eq!(number.to_string(), text);
    }
}
