//! Which connection is served next: who asks for little goes before who asks for much.
//!
//! Fair queueing of one request a visit. In virtual time, which is the start of the last visit, a visit starts now, or where the connection's own
//! last one ended if that is later, and ends so much later as it takes, which before it is known is what the last one took; the earliest end is
//! next. (As in Goyal, Vin and Cheng's start-time fair queueing, 1996, but by ends, so that what is short goes before what is long.) So
//! a connection that asks for little waits for what is under way and not for a flood behind it, and those that always want more share the time
//! evenly, as far as it is counted. Who sends the next request only when the last one is answered is counted a part of its time: such a client
//! waits for each, and a queue does not. Now and then a visit goes to who has waited longest, so that new connections without end keep nobody
//! waiting for ever.
//!
//! Invariants: a connection stands in the queue once or not at all; virtual time does not go back.
//! Knows nothing of clocks: what a visit took is told.

use crate::net::ConnectionId;
use std::collections::{BTreeMap, VecDeque};

/// What a visit counts at least, since clocks may stand still, and at most, since the machine may have done something else meanwhile.
const VISIT_NS_MIN: u64 = 1_000;
const VISIT_NS_MAX: u64 = 1_000_000;

/// Of the time of a visit behind which the connection has nothing more, one part in so many counts.
const SERIAL_PART: u64 = 8;

/// One visit of so many goes to who has waited longest.
const LONGEST_WAIT_EVERY: u64 = 16;

/// By when a visit is expected to end, whether it starts late for what the connection had before, and when it was asked for.
type Place = (u64, bool, u64);

/// What is known of the connection that has a slot.
#[derive(Clone, Copy)]
struct Standing {
    id: ConnectionId,
    /// In virtual time: when its last visit ended, and how long that was.
    ended: u64,
    took: u64,
    /// Another request of it is there, besides the one that it is visited for.
    has_more: bool,
    queued: Option<Place>,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Visits {
    /// And when each starts.
    queue: BTreeMap<Place, (ConnectionId, u64)>,
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
        let mut standing = standing.unwrap_or(Standing { id, ended: now, took: VISIT_NS_MIN, has_more: false, queued: None });
        if standing.queued.is_none() {
            standing.queued = Some(self.place(id, standing.ended, standing.took));
        }
        self.standings[slot] = Some(standing);
    }

    /// Likewise, when another request is known to be there.
    pub fn ask_for_more(&mut self, id: ConnectionId) {
        self.ask(id);
        if let Some(standing) = self.standing(id) {
            standing.has_more = true;
        }
    }

    fn place(&mut self, id: ConnectionId, ended: u64, took: u64) -> Place {
        let start = ended.max(self.now);
        let place = (start + took, ended > self.now, self.asked);
        self.asked += 1;
        self.queue.insert(place, (id, start));
        self.waiting.push_back(place);
        place
    }

    /// Whose turn it is. [`Visits::end`] is to follow if it asked for something.
    pub fn next(&mut self) -> Option<ConnectionId> {
        while self.waiting.pop_front_if(|place| !self.queue.contains_key(place)).is_some() {}
        self.visits += 1;
        let longest = self.waiting.front().copied().filter(|_| self.visits.is_multiple_of(LONGEST_WAIT_EVERY));
        let (id, start) = match longest {
            Some(place) => self.queue.remove(&place)?,
            None => self.queue.pop_first()?.1,
        };
        if longest.is_none() {
            self.now = self.now.max(start);
        }
        if let Some(standing) = self.standing(id) {
            (standing.queued, standing.has_more) = (None, false);
            standing.ended = start;
        }
        Some(id)
    }

    /// The visit of this connection took so long. It may have been asked for again meanwhile.
    pub fn end(&mut self, id: ConnectionId, took_ns: u64) {
        let Some(standing) = self.standing(id) else { return };
        let counted = took_ns.min(VISIT_NS_MAX) / if standing.has_more { 1 } else { SERIAL_PART };
        standing.took = counted.max(VISIT_NS_MIN);
        standing.ended += standing.took;
        let (ended, took) = (standing.ended, standing.took);
        if let Some(place) = standing.queued.take() {
            self.queue.remove(&place);
            let place = self.place(id, ended, took);
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
                visits.ask_for_more(id);
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
    fn who_waits_for_each_answer_waits_for_few_of_the_others() {
        let [serial, floods @ ..] = connections::<21>();
        let mut visits = Visits::default();
        floods.into_iter().for_each(|id| visits.ask(id));
        let (mut between, mut most, mut served) = (0, 0, 0);
        for visit in 0..10_000 {
            let id = visits.next().expect("floods always want more");
            // Its next request comes when the answer has reached it; a flood's is there.
            if id != serial {
                visits.ask_for_more(id);
            }
            visits.end(id, 30_000);
            match id == serial {
                true => (served, between) = (served + 1, 0),
                false => between += 1,
            }
            if visit > 100 {
                most = most.max(between);
            }
            if between == 4 || served == 0 {
                visits.ask(serial);
            }
        }
        assert!(served > 1_800 && most <= 6, "{served} of 10,000 visits, and at most {most} between two of them");
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
            visits.ask_for_more(id);
            visits.end(id, ns);
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
