//! The state of a partition, its large parts, and what a checkpoint adds. The first byte says which of them the rest is.

use crate::meter;
use millrace_log::partition_state::{Checkpoint, Large, LargeAt, PartitionState};

pub fn run(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let granted = 64 * bytes.len() + (16 << 10);
    match kind % 4 {
        0 => {
            let Ok(state) = meter::bounded(granted, || PartitionState::decode(bytes)) else { return };
            assert!(state.segment <= state.durable_end && state.durable_end <= state.log_end);
            let written = state.encode();
            assert_eq!(PartitionState::decode(&written).as_ref(), Ok(&state), "what was written is read");
            if let LargeAt::Here(_) = &state.large {
                let (inline, file) = state.split(None, millrace_log::state_file::INLINE_BYTES_MAX);
                assert_eq!(PartitionState::decode(&inline).is_ok(), inline.len() <= written.len() || file.is_some());
            }
        }
        1 => {
            let Ok(large) = meter::bounded(granted, || Large::decode(bytes)) else { return };
            let facts = *large.index.summary();
            assert!(large.fits(facts.base, facts.end, facts.bytes));
        }
        2 => {
            let Ok(checkpoint) = meter::bounded(granted, || Checkpoint::decode(bytes)) else { return };
            assert_eq!(Checkpoint::decode(&checkpoint.encode()).as_ref(), Ok(&checkpoint));
        }
        _ => {
            let at = bytes.first().map_or(0, |at| usize::from(*at) * 4).min(bytes.len());
            let (large, checkpoint) = (bytes.get(1..at).unwrap_or_default(), &bytes[at..]);
            let (Ok(mut large), Ok(checkpoint)) = (Large::decode(large), Checkpoint::decode(checkpoint)) else { return };
            let _ = meter::bounded(granted, || large.apply(&checkpoint));
        }
    }
}
