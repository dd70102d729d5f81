//! What happened in a world, as one number: the same seed must give the same.

use millrace_base::clock::Nanos;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    pub time: Nanos,
    pub node: u32,
    pub what: &'static str,
    pub place: u64,
    pub len: u64,
    /// What was given back: a count, or an error's number below zero.
    pub result: i64,
}

/// A running hash of all happenings, and on demand the happenings.
pub(super) struct Trace {
    hash: u64,
    kept: Option<Vec<Happening>>,
}

impl Trace {
    pub(super) fn new() -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, kept: None }
    }

    pub(super) fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn take(&mut self) -> Vec<Happening> {
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn note(&mut self, happening: Happening) {
        let Happening { time, node, what, place, len, result } = &happening;
        for value in [time.0, u64::from(*node), *place, *len, *result as u64] {
            self.mix(&value.to_le_bytes());
        }
        self.mix(what.as_bytes());
        if let Some(kept) = &mut self.kept {
            kept.push(happening);
        }
    }

    /// FNV-1a.
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
