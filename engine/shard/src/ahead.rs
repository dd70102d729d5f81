//! Windows of segments that are read before they are asked for, by those who read on where a window ended.
//!
//! 1. When a reader has been given a window that begins where an earlier one ended, the next is read into the share for reads, if nobody waits
//!    for that and it is at most half used.
//! 2. Who then asks for just that offset takes it, or waits for it if it is on its way.
//! 3. What nobody has taken goes when somebody waits for memory, or after [`KEPT_MS`].
//!
//! Invariants: a window is given once; none is kept while a read waits for memory.
//! Knows nothing of what windows hold; whoever takes one proves it as any other.

use crate::waits::WaitId;
use crate::window::Window;
use millrace_base::clock::Nanos;
use millrace_base::ids::PartitionId;
use millrace_base::offset::Offset;
use millrace_io::{IoError, Slice};
use std::collections::BTreeMap;

/// How long a window waits for its reader.
const KEPT_MS: u64 = 1_000;

/// Where a window is wanted from.
pub type Key = (PartitionId, Offset);

/// The part of a read that waits for a window.
pub type Asker = (WaitId, usize);

enum State {
    OnItsWay(Option<Asker>),
    There(Slice),
}

struct One {
    window: Window,
    begun: Nanos,
    state: State,
}

#[derive(Default)]
pub struct Ahead {
    windows: BTreeMap<Key, One>,
}

impl Ahead {
    /// Notes a window that is about to be read. False: it is there, or on its way.
    pub fn begin(&mut self, key: Key, window: &Window, now: Nanos) -> bool {
        if self.windows.contains_key(&key) {
            return false;
        }
        self.windows.insert(key, One { window: window.clone(), begun: now, state: State::OnItsWay(None) });
        true
    }

    /// The window that was read ahead in place of `wanted`, for as many bytes as that, if nobody else waits for it. Its bound is still the one of
    /// when it was read: what is behind that may have been written since.
    pub fn window_for(&self, key: Key, wanted: &Window) -> Option<Window> {
        let one = self.windows.get(&key).filter(|one| one.window.segment == wanted.segment)?;
        let is_taken = matches!(one.state, State::OnItsWay(Some(_)));
        (!is_taken).then(|| Window { max_bytes: wanted.max_bytes, first_whole: wanted.first_whole, ..one.window.clone() })
    }

    /// Takes a window that [`Ahead::window_for`] gave. None: it is on its way, and [`Ahead::came`] gives it to `asker`.
    pub fn claim(&mut self, key: Key, asker: Asker) -> Option<Slice> {
        let one = self.windows.get_mut(&key)?;
        match &mut one.state {
            State::OnItsWay(waits) => {
                *waits = Some(asker);
                None
            }
            State::There(bytes) => {
                let bytes = bytes.clone();
                self.windows.remove(&key);
                Some(bytes)
            }
        }
    }

    /// A window's bytes came: for whom. If nobody waits for it, it is kept if `is_wanted`.
    pub fn came(&mut self, key: Key, bytes: Result<Slice, IoError>, is_wanted: bool) -> Option<(Asker, Result<Slice, IoError>)> {
        let mut one = self.windows.remove(&key)?;
        match (one.state, bytes) {
            (State::OnItsWay(Some(asker)), bytes) => return Some((asker, bytes)),
            (State::OnItsWay(None), Ok(bytes)) if is_wanted => {
                one.state = State::There(bytes);
                self.windows.insert(key, one);
            }
            _ => {}
        }
        None
    }

    /// Lets go of all windows that are there.
    pub fn forget(&mut self) {
        self.windows.retain(|_, one| matches!(one.state, State::OnItsWay(_)));
    }

    /// Lets go of those that nobody came for.
    pub fn forget_old(&mut self, now: Nanos) {
        let is_old = |one: &One| now.since(one.begun).as_millis() >= u128::from(KEPT_MS);
        self.windows.retain(|_, one| matches!(one.state, State::OnItsWay(_)) || !is_old(one));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::ids::Uuid;
    use millrace_io::Pool;
    use std::path::PathBuf;

    fn window(max_bytes: usize, bound: Offset) -> Window {
        let path = PathBuf::from("0.log");
        Window { path, segment: 0, place: 4096, len: 8192, least: 61, end: 65536, base: 7, from: 7, bound, max_bytes, first_whole: true }
    }

    #[test]
    fn a_window_goes_to_who_asks_for_its_offset_and_once() {
        let (key, pool) = ((PartitionId { topic: Uuid::ZERO, index: 0 }, 7), Pool::new(1 << 20));
        let asker = (WaitId { slot: 1, generation: 1 }, 2);
        let bytes = || pool.take(4).push(b"data");
        let mut ahead = Ahead::default();
        assert!(ahead.begin(key, &window(1 << 20, 20), Nanos(0)) && !ahead.begin(key, &window(1 << 20, 20), Nanos(0)));
        // On its way: it is waited for by one, which is given so many bytes, and nothing that was not there when it was read.
        let found = ahead.window_for(key, &window(100, 30)).unwrap();
        assert_eq!((found.place, found.len, found.max_bytes, found.bound), (4096, 8192, 100, 20));
        assert!(ahead.claim(key, asker).is_none() && ahead.window_for(key, &window(100, 30)).is_none());
        let (whose, what) = ahead.came(key, Ok(bytes()), true).unwrap();
        assert_eq!((whose, &*what.unwrap()), (asker, &b"data"[..]));
        assert!(ahead.window_for(key, &window(100, 30)).is_none());
        // There before it is asked for.
        ahead.begin(key, &window(100, 30), Nanos(0));
        assert!(ahead.came(key, Ok(bytes()), true).is_none());
        assert_eq!(ahead.claim(key, asker).as_deref(), Some(&b"data"[..]));
        assert!(ahead.claim(key, asker).is_none());
    }

    #[test]
    fn what_nobody_takes_goes() {
        let (key, pool) = ((PartitionId { topic: Uuid::ZERO, index: 0 }, 7), Pool::new(1 << 20));
        let mut ahead = Ahead::default();
        let read = |ahead: &mut Ahead, is_wanted| {
            ahead.begin(key, &window(100, 30), Nanos(0));
            assert!(ahead.came(key, Ok(pool.take(4).push(b"data")), is_wanted).is_none());
            ahead.window_for(key, &window(100, 30)).is_some()
        };
        assert!(!read(&mut ahead, false));
        assert!(read(&mut ahead, true));
        ahead.forget_old(Nanos(KEPT_MS * 1_000_000 - 1));
        assert!(ahead.window_for(key, &window(100, 30)).is_some());
        ahead.forget_old(Nanos(KEPT_MS * 1_000_000));
        assert!(ahead.window_for(key, &window(100, 30)).is_none());
        assert!(read(&mut ahead, true));
        ahead.forget();
        assert!(ahead.window_for(key, &window(100, 30)).is_none());
        // One that failed is read by who wants it.
        ahead.begin(key, &window(100, 30), Nanos(0));
        assert!(ahead.came(key, Err(IoError::DEVICE), true).is_none());
        assert!(ahead.window_for(key, &window(100, 30)).is_none());
    }
}
