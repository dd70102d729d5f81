//! Records of `__consumer_offsets`: one alone, and a log of them into the groups that it makes.

use crate::input::Input;
use crate::meter;
use millrace_state::groups::records::{Change, partition_for};
use millrace_state::groups::{Groups, Now, Settings};

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let mut groups = Groups::new(Settings::default());
    while !choices.is_empty() {
        let (key, value) = (choices.sized(), choices.sized());
        let value = Some(value).filter(|value| *value != b"\0");
        let granted = 64 * (key.len() + value.map_or(0, <[u8]>::len)) + 4096;
        let change = meter::bounded(granted, || Change::decode(key, value));
        let replayed = groups.replay(key, value);
        assert_eq!(replayed.err(), change.clone().err(), "what is read is taken in");
        if let Ok(change) = change {
            let written = change.encode();
            assert_eq!(Change::decode(&written.key, written.value.as_deref()), Ok(change.clone()), "what was written is read");
            let (Change::Offset { group, .. } | Change::Group { group, .. }) = &change;
            assert!(partition_for(group, 50) < 50);
        }
    }
    let effects = groups.loaded(Now { steady_ms: 1_000, wall_ms: 1_700_000_000_000 });
    drop(effects);
    let live: Vec<_> = groups.live_records().collect();
    assert_eq!(live.len(), groups.live_count());
    let mut again = Groups::new(Settings::default());
    for record in &live {
        again.replay(&record.key, record.value.as_deref()).expect("a record of ours");
    }
    let repeated: Vec<_> = again.live_records().collect();
    assert_eq!(live, repeated, "a log of what is live makes the same groups");
    drop(groups.tick(Now { steady_ms: 10_000_000, wall_ms: i64::MAX }));
}
