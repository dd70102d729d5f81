//! Which connection is served next: who asks for little goes before who asks for much.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) of one request a visit. In virtual time, which is the start of the last visit, a visit
//! starts now, or where the connection's own last one ended if that is later, and ends so much later as it took; the earliest start is next. So
//! a connection that asks for little waits for what is under way and not for a flood behind it, and those that always want more share the time
//! evenly, as far as it is counted. Now and then a visit goes to who has waited longest, so that new connections without end keep nobody waiting for ever.
//!
//! Invariants: a connection stands in the queue once or not at all; virtual time does not go back.
//! Knows nothing of clocks: what a visit took is told.

use crate::net::ConnectionId;
use std::collections::{BTreeMap, VecDeque};

/// What a visit counts at least, since clocks may stand still, and at most, since the machine may have done something else meanwhile.
const VISIT_NS_MIN: u64 = 1_000;
const VISIT_NS_MAX: u64 = 100_000;

/// One visit of so many goes to who has waited longest.
const LONGEST_WAIT_EVERY: u64 = 16;

/// By when a visit starts, whether that is for what the connection had before, and when it was asked for.
type Place = (u64, bool, u64);

/// What is known of the connection that has a slot.
#[derive(Clone, Copy)]
struct Standing {
    id: ConnectionId,
    /// In virtual time: when its last visit ended.
    ended: u64,
    queued: Option<Place>,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Visits {
    queue: BTreeMap<Place, ConnectionId>,
    /// The same in the order in which they were asked for, and some that are not queued any more.
    waiting: VecDeque<Place>,
    /// By the connections' slots.
    standings: Vec<Option<Standing>>,
    now: u64,
    asked: u64,
    visits: u64,
}

impl Visits {
    /// Has the connection visited: bytes came, or what kept it from going on is over, or the last visit did not end with the last request.
    pub fn ask(&mut self, id: ConnectionId) {
        let (now, slot) = (self.now, id.slot() as usize);
        if self.standings.len() <= slot {
            self.standings.resize(slot + 1, None);
        }
        let standing = self.standings[slot].filter(|standing| standing.id == id);
        let mut standing = standing.unwrap_or(Standing { id, ended: now, queued: None });
        if standing.queued.is_none() {
            standing.queued = Some(self.place(id, standing.ended));
        }
        self.standings[slot] = Some(standing);
    }

    fn place(&mut self, id: ConnectionId, ended: u64) -> Place {
        let place = (ended.max(self.now), ended > self.now, self.asked);
        self.asked += 1;
        self.queue.insert(place, id);
        self.waiting.push_back(place);
        place
    }

    /// Whose turn it is. [`Visits::end`] is to follow if it asked for something.
    pub fn next(&mut self) -> Option<ConnectionId> {
        while self.waiting.pop_front_if(|place| !self.queue.contains_key(place)).is_some() {}
        self.visits += 1;
        let longest = self.waiting.front().copied().filter(|_| self.visits.is_multiple_of(LONGEST_WAIT_EVERY));
        let (start, id) = match longest {
            Some(place) => (place.0, self.queue.remove(&place)?),
            None => self.queue.pop_first().map(|((start, ..), id)| (start, id))?,
        };
        if longest.is_none() {
            self.now = self.now.max(start);
        }
        if let Some(standing) = self.standing(id) {
            standing.queued = None;
            standing.ended = start;
        }
        Some(id)
    }

    /// The visit of this connection took so long. It may have been asked for again meanwhile.
    pub fn end(&mut self, id: ConnectionId, took_ns: u64) {
        let Some(standing) = self.standing(id) else { return };
        standing.ended += took_ns.clamp(VISIT_NS_MIN, VISIT_NS_MAX);
        let ended = standing.ended;
        if let Some(place) = standing.queued.take() {
            self.queue.remove(&place);
            let place = self.place(id, ended);
            if let Some(standing) = self.standing(id) {
                standing.queued = Some(place);
            }
        }
    }

    fn standing(&mut self, id: ConnectionId) -> Option<&mut Standing> {
        self.standings[id.slot() as usize].as_mut().filter(|standing| standing.id == id)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections<const N: usize>() -> [ConnectionId; N] {
        std::array::from_fn(|slot| ConnectionId::new(slot as u32, 1))
    }

    #[test]
    fn a_connection_is_visited_once_for_all_that_came_and_in_order() {
        let [a, b, c] = connections();
        let mut visits = Visits::default();
        [a, b, a, c, b].into_iter().for_each(|id| visits.ask(id));
        assert_eq!([visits.next(), visits.next(), visits.next(), visits.next()], [Some(a), Some(b), Some(c), None]);
        visits.ask(a);
        assert!(!visits.is_empty());
    }

    #[test]
    fn who_asks_seldom_goes_before_those_that_always_want_more() {
        let [seldom, floods @ ..] = connections::<21>();
        let mut visits = Visits::default();
        floods.into_iter().for_each(|id| visits.ask(id));
        let (mut behind, mut served, mut seen) = (0, 0, 0);
        for visit in 0..10_000 {
            let id = visits.next().expect("floods always want more");
            let is_flood = id != seldom;
            // Asked for while it is under way, as by a front that has more.
            if is_flood {
                visits.ask(id);
            }
            visits.end(id, if is_flood { 50_000 } else { 20_000 });
            behind = if is_flood { behind + 1 } else { 0 };
            if visit > 100 {
                seen = seen.max(behind);
            }
            served += u32::from(!is_flood);
            // It comes again some time after it was served.
            if behind == 15 {
                visits.ask(seldom);
            }
        }
        assert!(served > 500 && seen <= 17, "{served} visits, at most {seen} of others between them");
    }

    #[test]
    fn new_ones_without_end_keep_nobody_waiting() {
        let [waits, ..] = connections::<1>();
        let mut visits = Visits::default();
        visits.ask(waits);
        assert_eq!(visits.next(), Some(waits));
        visits.end(waits, 100_000);
        visits.ask(waits);
        for slot in 1..1000 {
            visits.ask(ConnectionId::new(slot, 1));
            visits.ask(ConnectionId::new(slot, 2));
            let next = visits.next().expect("some are queued");
            visits.end(next, 100_000);
            if next == waits {
                return;
            }
        }
        panic!("it was never visited");
    }

    #[test]
    fn those_that_always_want_more_share_the_time_whatever_each_request_takes() {
        let [small, large] = connections();
        let mut visits = Visits::default();
        let mut took = [0, 0];
        [small, large].into_iter().for_each(|id| visits.ask(id));
        for _ in 0..10_000 {
            let id = visits.next().expect("both want more");
            let ns = if id == small { 10_000 } else { 100_000 };
            took[id.slot() as usize] += ns;
            visits.end(id, ns);
            visits.ask(id);
        }
        assert!(took[0].abs_diff(took[1]) <= 1_000_000, "{took:?}");
    }

    #[test]
    fn the_next_connection_of_a_slot_does_not_answer_for_the_last() {
        let (old, new) = (ConnectionId::new(5, 1), ConnectionId::new(5, 2));
        let [other, ..] = connections::<1>();
        let mut visits = Visits::default();
        visits.ask(old);
        assert_eq!(visits.next(), Some(old));
        visits.end(old, 1_000_000);
        [old, new, other].into_iter().for_each(|id| visits.ask(id));
        assert_eq!([visits.next(), visits.next(), visits.next(), visits.next()], [Some(new), Some(other), Some(old), None]);
    }
}
