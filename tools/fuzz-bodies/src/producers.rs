//! What a partition knows of its producers: read from a state, changed by a delta, then used.

use crate::input::Input;
use crate::meter;
use millrace_base::batch::Header;
use millrace_log::bytes::{OFFSET_MAX, Reader};
use millrace_log::producers::{Producers, Verdict};

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let (state, delta) = (choices.sized(), choices.sized());
    let granted = 64 * (state.len() + delta.len()) + (16 << 10);
    let producers = meter::bounded(granted, || {
        let mut producers = Producers::decode(&mut Reader::new(state)).ok()?;
        let mut changed = producers.clone();
        if changed.apply_delta(&mut Reader::new(delta)).is_ok() {
            producers = changed;
        }
        Some(producers)
    });
    let mut producers = producers.unwrap_or_default();
    written_as_read(&producers);
    while !choices.is_empty() {
        step(&mut producers, &mut choices);
    }
    written_as_read(&producers);
    delta_leads_there(&producers);
}

fn written_as_read(producers: &Producers) {
    let mut bytes = Vec::new();
    producers.encode(&mut bytes);
    let mut reader = Reader::new(&bytes);
    let mut read = Producers::decode(&mut reader).expect("what was written is read");
    assert_eq!(reader.left(), 0);
    let mut again = Vec::new();
    read.encode(&mut again);
    assert_eq!(bytes, again);
    let mut same = producers.clone();
    same.forget_changes();
    read.forget_changes();
    assert_eq!(read, same);
}

/// Nothing, then a delta of everything: the same producers.
fn delta_leads_there(producers: &Producers) {
    let (mut changed, mut before) = (producers.clone(), producers.clone());
    before.forget_changes();
    let mut delta = Vec::new();
    changed.encode_delta(&mut delta);
    before.apply_delta(&mut Reader::new(&delta)).expect("a delta that was written is read");
    before.forget_changes();
    assert_eq!(before, changed);
}

fn step(producers: &mut Producers, choices: &mut Input<'_>) {
    let kind = choices.u8() % 5;
    let through = producers.through();
    let now = i64::from(choices.u32());
    match kind {
        0 | 1 => {
            let header = header(choices, through);
            if header.next_offset() > OFFSET_MAX {
                return;
            }
            let verdict = producers.check(&header);
            producers.append(&header, now);
            if verdict == Verdict::Append && header.producer_id >= 0 && header.base_sequence >= 0 {
                let again = producers.check(&header);
                let end = header.next_offset();
                assert!(matches!(again, Verdict::Duplicate { end: known, committed: false, .. } if known == end), "{again:?}");
            }
        }
        2 => producers.commit(through - i64::from(choices.u8())),
        3 => producers.truncate((through - i64::from(choices.u8())).max(0)),
        _ => drop(producers.expire(now, i64::from(choices.u16()))),
    }
    assert!(producers.through() >= 0);
}

/// A checked batch of a client, appended at the end.
fn header(choices: &mut Input<'_>, base_offset: i64) -> Header {
    let count = i32::from(choices.u8()) + 1;
    Header {
        base_offset,
        size: 100,
        epoch: 1,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: i64::from(choices.u8() % 4) - 1,
        producer_epoch: i16::from(choices.u8() % 3),
        base_sequence: [0, i32::from(choices.u8()), i32::MAX - 3][usize::from(choices.u8() % 3)],
        count,
    }
}
