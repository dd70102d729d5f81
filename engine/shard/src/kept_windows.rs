//! Windows of segments that are in memory for a moment, or on their way there, for all who ask for what is in them.
//!
//! 1. A read of a segment brings 256 KiB at least. Who asks for bytes of a window that is on its way waits for it too, and while it is kept they
//!    are taken from it: many readers of the same records, and one that asks for little at a time, cost the device one read.
//! 2. When a reader has been given a window that begins where an earlier one ended, the next is read before it is asked for; and more than one
//!    when that window was here already and no read waits for others, so that the device has something to do while it is sent.
//! 3. Both happen while the share for reads is at most half used. A window goes when somebody waits for memory, when something in it is found
//!    damaged, or [`KEPT_MS`] after it was last asked for. Of those that a reader has left behind [`PASSED_BYTES_MAX`] at most are kept, for others
//!    that are not far behind it: the next is read into the memory of the oldest, where new memory costs a fault and zeros for each page.
//!
//! Invariants: none is kept while a read waits for memory; nobody is given what was not there when the window was read.
//! Knows nothing of what windows hold; whoever takes one proves it as any other.

use crate::waits::WaitId;
use crate::window::Window;
use millrace_base::clock::Nanos;
use millrace_base::ids::PartitionId;
use millrace_base::offset::Offset;
use millrace_io::{IoError, Slice};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// How long a window waits for the next who asks for it.
pub const KEPT_MS: u64 = 1_000;

/// Memory of windows that are there and that a reader has left behind, and of the share for reads at most an eighth: they are not to be in the
/// way of those that are read ahead.
const PASSED_BYTES_MAX: usize = 32 << 20;

/// A partition, a segment, and where in it the window begins.
pub type Key = (PartitionId, Offset, u64);

/// The part of a read that waits for bytes from a block of the segment on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowAsker {
    pub read: WaitId,
    pub part: usize,
    pub block: u64,
}

enum State {
    OnItsWay(Vec<WindowAsker>),
    There(Slice),
}

struct One {
    window: Window,
    used: Nanos,
    /// A reader that goes from window to window has had it.
    passed: bool,
    state: State,
}

impl One {
    /// The bytes from a block on; none, if the file ended before it.
    fn from(&self, bytes: &Slice, block: u64) -> Slice {
        let skip = usize::try_from(block - self.window.block()).unwrap_or(usize::MAX);
        bytes.sub(skip.min(bytes.len())..bytes.len())
    }
}

/// Of all windows of the segment that begin where `window` does or before.
fn up_to(partition: PartitionId, window: &Window) -> RangeInclusive<Key> {
    (partition, window.segment, 0)..=(partition, window.segment, window.place)
}

#[derive(Default)]
pub struct KeptWindows {
    windows: BTreeMap<Key, One>,
}

impl KeptWindows {
    /// The window that is to be cut in place of `wanted`, out of one that is there or on its way. Its bound is still the one of when that was
    /// read: what is behind it may have been written since.
    pub fn serving(&self, partition: PartitionId, wanted: &Window) -> Option<(Key, Window)> {
        let (key, one) = self.windows.range(up_to(partition, wanted)).next_back()?;
        let end = one.window.place + one.window.len as u64;
        let len = usize::try_from(end.checked_sub(wanted.place)?).ok()?;
        let is_enough = len >= wanted.len.min(wanted.max_bytes).max(wanted.least);
        let bound = one.window.bound.min(wanted.bound);
        (is_enough && bound > wanted.from).then(|| (*key, Window { len, bound, kept: true, ..wanted.clone() }))
    }

    /// Notes a window that is about to be read. None: one that begins there is on its way, or, if nobody asks, is there.
    pub fn begin(&mut self, partition: PartitionId, window: &Window, asker: Option<WindowAsker>, now: Nanos) -> Option<Key> {
        let key = (partition, window.segment, window.place);
        let is_free = self.windows.get(&key).is_none_or(|one| asker.is_some() && matches!(one.state, State::There(_)));
        let state = State::OnItsWay(asker.into_iter().collect());
        is_free.then(|| self.windows.insert(key, One { window: window.clone(), used: now, passed: false, state })).map(|_| key)
    }

    /// Takes bytes of a window that [`KeptWindows::serving`] named. None: it is on its way, and [`KeptWindows::came`] gives them.
    pub fn take(&mut self, key: Key, asker: WindowAsker, now: Nanos) -> Option<Slice> {
        let one = self.windows.get_mut(&key)?;
        one.used = now;
        if let State::OnItsWay(askers) = &mut one.state {
            askers.push(asker);
            return None;
        }
        let State::There(bytes) = &one.state else { return None };
        Some(one.from(bytes, asker.block))
    }

    /// A window's bytes came: for whom. It is kept if `is_wanted`.
    pub fn came(&mut self, key: Key, bytes: Result<Slice, IoError>, is_wanted: bool) -> Vec<(WindowAsker, Result<Slice, IoError>)> {
        let Some(mut one) = self.windows.remove(&key) else { return Vec::new() };
        let State::OnItsWay(askers) = std::mem::replace(&mut one.state, State::OnItsWay(Vec::new())) else { return Vec::new() };
        let given = |asker: WindowAsker| (asker, bytes.as_ref().map(|bytes| one.from(bytes, asker.block)).map_err(|error| *error));
        let given = askers.into_iter().map(given).collect();
        if let (Ok(bytes), true) = (bytes, is_wanted) {
            one.state = State::There(bytes);
            self.windows.insert(key, one);
        }
        given
    }

    /// A reader that goes from window to window has been given `window`, and will want `next`, if anything. `share`: bytes for all reads.
    pub fn passed(&mut self, partition: PartitionId, window: &Window, next: Option<&Window>, share: usize) {
        let wanted = next.and_then(|next| self.serving(partition, next)).map(|(key, _)| key);
        if let Some((key, one)) = self.windows.range_mut(up_to(partition, window)).next_back()
            && Some(*key) != wanted
        {
            one.passed = true;
            self.forget_passed(PASSED_BYTES_MAX.min(share / 8));
        }
    }

    /// Lets go of those that were passed, the one that nobody has asked for the longest first, until the others take `max` bytes at most.
    fn forget_passed(&mut self, max: usize) {
        let passed = |one: &One| one.passed && matches!(one.state, State::There(_));
        let mut bytes: usize = self.windows.values().filter(|one| passed(one)).map(|one| one.window.memory()).sum();
        while bytes > max
            && let Some((key, one)) = self.windows.iter().filter(|(_, one)| passed(one)).min_by_key(|(_, one)| one.used)
        {
            bytes -= one.window.memory();
            let key = *key;
            self.windows.remove(&key);
        }
    }

    /// Lets go of the windows of a segment that are there: something in one of them is not as it was written.
    pub fn forget_segment(&mut self, partition: PartitionId, segment: Offset) {
        let is_of = |key: &Key| (key.0, key.1) == (partition, segment);
        self.windows.retain(|key, one| matches!(one.state, State::OnItsWay(_)) || !is_of(key));
    }

    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Lets go of all windows that are there.
    pub fn forget(&mut self) {
        self.windows.retain(|_, one| matches!(one.state, State::OnItsWay(_)));
    }

    /// Lets go of those that nobody has asked for lately.
    pub fn forget_old(&mut self, now: Nanos) {
        let is_old = |one: &One| now.since(one.used).as_millis() >= u128::from(KEPT_MS);
        self.windows.retain(|_, one| matches!(one.state, State::OnItsWay(_)) || !is_old(one));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::ids::Uuid;
    use millrace_base::limits::BLOCK;
    use millrace_io::Pool;
    use std::path::PathBuf;

    const PARTITION: PartitionId = PartitionId { topic: Uuid::ZERO, index: 0 };
    const BLOCKS: usize = 4;

    /// Of offsets from `from` on, whose batch begins at `place`.
    fn window(place: u64, from: Offset, max_bytes: usize, bound: Offset) -> Window {
        let (path, len) = (PathBuf::from("0.log"), BLOCKS * BLOCK - (place as usize % BLOCK));
        Window {
            path,
            segment: 0,
            place,
            len,
            least: 61,
            end: 1 << 20,
            base: from,
            from,
            bound,
            max_bytes,
            first_whole: true,
            kept: false,
            is_half: false,
        }
    }

    fn asker(part: usize, block: u64) -> WindowAsker {
        WindowAsker { read: WaitId { slot: 1, generation: 1 }, part, block }
    }

    /// Four blocks, each of its number.
    fn bytes(pool: &Pool) -> Slice {
        let bytes: Vec<u8> = (0..BLOCKS as u8).flat_map(|number| vec![number; BLOCK]).collect();
        pool.take(bytes.len()).push(&bytes)
    }

    #[test]
    fn a_window_serves_all_who_ask_for_what_is_in_it() {
        let (pool, mut kept) = (Pool::new(1 << 20), KeptWindows::default());
        let first = window(100, 7, 1 << 20, 20);
        let key = kept.begin(PARTITION, &first, Some(asker(0, 0)), Nanos(0)).unwrap();
        assert!(kept.begin(PARTITION, &first, Some(asker(1, 0)), Nanos(0)).is_none(), "it is on its way");
        // Little of it, from its second block on: with the bound of when it was read.
        let second = window(BLOCK as u64 + 50, 9, 1_000, 30);
        let (found, cut) = kept.serving(PARTITION, &second).unwrap();
        assert_eq!((found, cut.place, cut.len, cut.bound, cut.from, cut.kept), (key, second.place, 3 * BLOCK - 50, 20, 9, true));
        assert!(kept.take(key, asker(2, BLOCK as u64), Nanos(0)).is_none());
        let given = kept.came(key, Ok(bytes(&pool)), true);
        let given: Vec<(usize, usize, u8)> =
            given.into_iter().map(|(asker, bytes)| (asker.part, bytes.as_ref().unwrap().len(), bytes.unwrap()[0])).collect();
        assert_eq!(given, [(0, BLOCKS * BLOCK, 0), (2, 3 * BLOCK, 1)]);
        let (key, _) = kept.serving(PARTITION, &second).unwrap();
        assert_eq!(kept.take(key, asker(3, 3 * BLOCK as u64), Nanos(0)).unwrap().to_vec(), vec![3; BLOCK]);
        // The file ended before that block.
        assert!(kept.take(key, asker(3, 9 * BLOCK as u64), Nanos(0)).unwrap().is_empty());
    }

    #[test]
    fn a_window_does_not_serve_who_wants_more_than_it_has() {
        let (pool, mut kept) = (Pool::new(1 << 20), KeptWindows::default());
        let key = kept.begin(PARTITION, &window(100, 7, 1 << 20, 20), None, Nanos(0)).unwrap();
        assert!(kept.came(key, Ok(bytes(&pool)), true).is_empty());
        let serves = |wanted: &Window| kept.serving(PARTITION, wanted).is_some();
        assert!(serves(&window(BLOCK as u64, 9, 100, 30)));
        assert!(!serves(&window(BLOCK as u64, 9, 1 << 20, 30)), "as many bytes as a window has");
        assert!(!serves(&Window { least: 3 * BLOCK + 1, ..window(BLOCK as u64, 9, 100, 30) }), "a batch of so many bytes");
        assert!(!serves(&window(BLOCK as u64, 20, 100, 30)), "what was not there");
        assert!(!serves(&window(99, 6, 100, 30)), "what lies before it");
        assert!(!serves(&window((BLOCKS * BLOCK) as u64, 15, 100, 30)), "what lies behind it");
        assert!(!serves(&Window { segment: 5, ..window(BLOCK as u64, 9, 100, 30) }), "another segment");
        // Nobody waits for it: it is not read again; somebody who wants more does.
        assert!(kept.begin(PARTITION, &window(100, 7, 1 << 20, 20), None, Nanos(0)).is_none());
        assert!(kept.begin(PARTITION, &window(100, 7, 1 << 20, 20), Some(asker(0, 0)), Nanos(0)).is_some());
    }

    #[test]
    fn what_nobody_asks_for_goes() {
        let (pool, wanted) = (Pool::new(1 << 20), window(100, 7, 100, 20));
        let mut kept = KeptWindows::default();
        let read = |kept: &mut KeptWindows, bytes, is_wanted| {
            let key = kept.begin(PARTITION, &wanted, None, Nanos(0)).unwrap();
            assert!(kept.came(key, bytes, is_wanted).is_empty());
            kept.serving(PARTITION, &wanted).map(|(key, _)| key)
        };
        assert!(read(&mut kept, Ok(bytes(&pool)), false).is_none());
        assert!(read(&mut kept, Err(IoError::DEVICE), true).is_none());
        let key = read(&mut kept, Ok(bytes(&pool)), true).unwrap();
        let later = Nanos(KEPT_MS * 1_000_000);
        kept.forget_old(Nanos(later.0 - 1));
        assert!(kept.take(key, asker(0, 0), later).is_some());
        kept.forget_old(Nanos(2 * later.0 - 1));
        assert!(kept.serving(PARTITION, &wanted).is_some());
        kept.forget_old(Nanos(2 * later.0));
        assert!(kept.serving(PARTITION, &wanted).is_none());
        read(&mut kept, Ok(bytes(&pool)), true).unwrap();
        kept.forget();
        assert!(kept.serving(PARTITION, &wanted).is_none());
        read(&mut kept, Ok(bytes(&pool)), true).unwrap();
        kept.forget_segment(PARTITION, 5);
        assert!(kept.serving(PARTITION, &wanted).is_some());
        kept.forget_segment(PARTITION, 0);
        assert!(kept.serving(PARTITION, &wanted).is_none());
    }

    #[test]
    fn of_the_windows_that_readers_have_left_behind_the_oldest_go() {
        let (pool, mut kept) = (Pool::new(1 << 20), KeptWindows::default());
        let windows: Vec<_> = (0..4).map(|at| window(at * (BLOCKS * BLOCK) as u64, 10 * at as i64, 1 << 20, 90)).collect();
        for (at, window) in windows.iter().enumerate() {
            let key = kept.begin(PARTITION, window, None, Nanos(at as u64)).unwrap();
            assert!(kept.came(key, Ok(bytes(&pool)), true).is_empty());
        }
        kept.passed(PARTITION, &windows[2], None, 1 << 20);
        kept.passed(PARTITION, &windows[0], Some(&windows[1]), 1 << 20);
        // What its reader wants next is still in it.
        kept.passed(
            PARTITION,
            &windows[1],
            Some(&Window { place: windows[1].place + 50, from: 11, max_bytes: 100, ..windows[1].clone() }),
            1 << 20,
        );
        let there = |kept: &KeptWindows| windows.iter().map(|window| kept.serving(PARTITION, window).is_some()).collect::<Vec<_>>();
        kept.forget_passed(2 * windows[0].memory());
        assert_eq!(there(&kept), [true, true, true, true]);
        kept.forget_passed(windows[0].memory());
        assert_eq!(there(&kept), [false, true, true, true]);
        kept.forget_passed(0);
        assert_eq!(there(&kept), [false, true, false, true]);
    }

    #[test]
    fn an_error_is_told_to_all_who_wait() {
        let (mut kept, wanted) = (KeptWindows::default(), window(100, 7, 100, 20));
        let key = kept.begin(PARTITION, &wanted, Some(asker(0, 0)), Nanos(0)).unwrap();
        assert!(kept.take(key, asker(1, 0), Nanos(0)).is_none());
        let given = kept.came(key, Err(IoError::DEVICE), true);
        assert_eq!(given.iter().map(|(asker, bytes)| (asker.part, bytes.is_err())).collect::<Vec<_>>(), [(0, true), (1, true)]);
        assert!(kept.serving(PARTITION, &wanted).is_none());
    }
}
