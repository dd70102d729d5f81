//! Commands of replica set 0 and its snapshot. The first byte says which of both; commands stand behind their lengths.

use crate::input::Input;
use crate::meter;
use millrace_state::meta::{Command, Meta};

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    if choices.u8() % 2 == 1 {
        return snapshot(choices.rest());
    }
    let mut meta = Meta::new();
    while !choices.is_empty() {
        let bytes = choices.sized();
        let Ok(command) = meter::bounded(granted(bytes), || Command::decode(bytes)) else { continue };
        assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(&command), "what was written is read");
        meta.apply(command);
    }
    round_trip(&meta);
}

/// A field of two bytes may be an empty message, which takes a hundred in memory and as many again in what it becomes. The protobuf reader
/// takes up to 10 MB for a field that says that it is so long, before it sees that it is not.
fn granted(bytes: &[u8]) -> usize {
    256 * bytes.len() + 4096 + 10_000_000
}

fn snapshot(bytes: &[u8]) {
    if let Ok(meta) = meter::bounded(granted(bytes), || Meta::restore(bytes)) {
        round_trip(&meta);
    }
}

fn round_trip(meta: &Meta) {
    let bytes = meta.snapshot();
    let restored = Meta::restore(&bytes).expect("a snapshot is read");
    assert_eq!(&restored, meta);
    assert_eq!(restored.snapshot(), bytes, "equal states give equal bytes");
}
