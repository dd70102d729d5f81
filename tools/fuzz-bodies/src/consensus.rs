//! The state of a replica and the records that change it, which stand opaque in the journal: a state, then records behind their lengths.

use crate::input::Input;
use crate::meter;
use millrace_base::ids::Uuid;
use millrace_raftlog::{Configuration, Member, Record, State};

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let bytes = choices.sized();
    let decoded = meter::bounded(granted(bytes), || State::decode(bytes));
    let sole = Configuration::sole(Member { node: 1, disk: Uuid([1; 16]) });
    let mut state = decoded.unwrap_or_else(|_| State::new(sole));
    round_trip(&state);
    while !choices.is_empty() {
        let bytes = choices.sized();
        let Ok(record) = meter::bounded(granted(bytes), || Record::decode(bytes)) else { continue };
        let mut written = Vec::new();
        record.encode(&mut written);
        assert_eq!(Record::decode(&written).as_ref(), Ok(&record), "what was written is read");
        let before = state.clone();
        match state.apply(&record) {
            Ok(()) => assert_eq!(state.validate(), Ok(()), "{record:?}"),
            Err(_) => assert_eq!(state, before, "an error leaves the state as it was"),
        }
    }
    round_trip(&state);
}

/// The history takes memory for its starts, each with the members of its configuration.
fn granted(bytes: &[u8]) -> usize {
    64 * bytes.len() + 4096
}

fn round_trip(state: &State) {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    assert_eq!(State::decode(&bytes).as_ref(), Ok(state), "what was written is read");
}
