//! From this shard to every shard: lanes to the others, a queue to itself, and who waits for which reply.
//!
//! 1. A request gets a ticket that remembers the submitter (a front, or the shard's own work) and its token.
//! 2. It goes out at once if the lane has a credit, else it waits here in order; fronts pause connections that add to a congested route.
//! 3. A reply returns the credit and finds its submitter by the ticket. A request that waits long (a fetch for bytes, a member for its group)
//!    is parked and returns it before: consumers that wait hold nothing up, however many they are and however long they want to wait.
//! 4. Doorbells of shards that got something are rung once, at the end of the turn.
//!
//! Invariants: requests to one shard leave in the order submitted; each ticket is answered once.

use crate::api::{Reply, Request};
use millrace_base::ids::ShardId;
use millrace_base::lane::{End, Message};
use millrace_io::Doorbell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Requests that one shard may have at all others together, as long as each gets no fewer than the least: a lane has memory for three times as
/// many messages in each direction, and there are as many lanes as pairs of shards.
const CREDITS: usize = 8192;
const LANE_CREDITS_MIN: usize = 64;
const LANE_CREDITS_MAX: usize = 2048;

/// Requests that one of so many shards may have at another, parked ones aside.
fn lane_credits(shards: usize) -> usize {
    (CREDITS / shards).clamp(LANE_CREDITS_MIN, LANE_CREDITS_MAX)
}

/// Who submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Submitter {
    Front {
        front: usize,
        token: u64,
    },
    /// The shard itself wants no reply.
    Nobody,
    /// The controller's count of shards that have applied a command.
    Applied,
}

/// What has come over the lanes.
#[derive(Debug)]
pub enum Inward {
    /// To be answered with [`Routes::reply`].
    Request {
        from: ShardId,
        ticket: u64,
        request: Request,
    },
    Reply {
        to: Submitter,
        reply: Reply,
    },
}

struct Route {
    /// None: this shard itself.
    lane: Option<End<Request, Reply>>,
    doorbell: Doorbell,
    /// Submitted without a credit.
    waiting: VecDeque<(u64, Request)>,
    /// Tickets of the other side's requests that wait here without a credit.
    parked: BTreeSet<u64>,
    /// Credits returned since the doorbell was rung last.
    quiet: usize,
    ring: bool,
}

/// One shard's routes to all shards.
pub struct Routes {
    here: ShardId,
    routes: Vec<Route>,
    own_requests: VecDeque<(u64, Request)>,
    own_replies: VecDeque<(u64, Reply)>,
    tickets: Vec<Option<Submitter>>,
    free: Vec<u32>,
    /// Tickets of fronts' reads, by front and token.
    reads: BTreeMap<(usize, u64), u64>,
    /// Whose lane is looked at first.
    next_from: usize,
}

impl Routes {
    /// `lanes[i]` leads to shard i; None at `here`.
    pub fn new(here: ShardId, lanes: Vec<Option<End<Request, Reply>>>, doorbells: Vec<Doorbell>) -> Routes {
        assert_eq!(lanes.len(), doorbells.len());
        let route = |(lane, doorbell)| Route { lane, doorbell, waiting: VecDeque::new(), parked: BTreeSet::new(), quiet: 0, ring: false };
        Routes {
            here,
            routes: lanes.into_iter().zip(doorbells).map(route).collect(),
            own_requests: VecDeque::new(),
            own_replies: VecDeque::new(),
            tickets: Vec::new(),
            free: Vec::new(),
            reads: BTreeMap::new(),
            next_from: 0,
        }
    }

    pub fn shards(&self) -> ShardId {
        self.routes.len() as ShardId
    }

    /// Submits for a front.
    pub fn submit(&mut self, to: ShardId, front: usize, token: u64, request: Request) {
        self.submit_for(to, Submitter::Front { front, token }, request);
    }

    pub fn submit_for(&mut self, to: ShardId, submitter: Submitter, request: Request) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.tickets.push(None);
            self.tickets.len() as u32 - 1
        });
        self.tickets[slot as usize] = Some(submitter);
        let ticket = u64::from(slot);
        if let (Submitter::Front { front, token }, Request::Read(_)) = (submitter, &request) {
            self.reads.insert((front, token), ticket);
        }
        if to == self.here {
            self.own_requests.push_back((ticket, request));
            return;
        }
        let route = &mut self.routes[to as usize];
        route.waiting.push_back((ticket, request));
        route.send_waiting();
    }

    /// The ticket of a front's unanswered read; one that nobody has when it is answered already.
    pub fn ticket_of(&self, front: usize, token: u64) -> u64 {
        self.reads.get(&(front, token)).copied().unwrap_or(u64::MAX)
    }

    pub fn is_congested(&self, to: ShardId) -> bool {
        !self.routes[to as usize].waiting.is_empty()
    }

    /// Answers a request that came in.
    pub fn reply(&mut self, to: ShardId, ticket: u64, reply: Reply) {
        if to == self.here {
            self.own_replies.push_back((ticket, reply));
            return;
        }
        let route = &mut self.routes[to as usize];
        if let Some(lane) = &mut route.lane {
            if route.parked.remove(&ticket) {
                lane.reply_late(ticket, reply);
            } else {
                lane.reply(ticket, reply);
            }
            route.ring = true;
        }
    }

    /// A request that came in waits for something that may be long in coming. May be said again.
    pub fn park(&mut self, from: ShardId, ticket: u64) {
        let quiet_max = lane_credits(self.routes.len()) / 4;
        let Some(route) = self.routes.get_mut(from as usize) else { return };
        if let Some(lane) = &mut route.lane
            && route.parked.insert(ticket)
        {
            lane.park();
            route.quiet += 1;
            // The other side lacks none that it needs while most are returned.
            route.ring |= route.quiet >= quiet_max;
        }
    }

    /// The next thing that this shard has for itself: replies first.
    pub fn receive_own(&mut self) -> Option<Inward> {
        if let Some((ticket, reply)) = self.own_replies.pop_front() {
            return Some(self.answered(ticket, reply));
        }
        let (ticket, request) = self.own_requests.pop_front()?;
        Some(Inward::Request { from: self.here, ticket, request })
    }

    /// The next thing that has come from other shards, in turn.
    pub fn receive(&mut self) -> Option<Inward> {
        let shards = self.routes.len();
        for from in (self.next_from..shards).chain(0..self.next_from) {
            let route = &mut self.routes[from];
            let Some(lane) = &mut route.lane else { continue };
            let message = lane.receive();
            if message.is_some() {
                self.next_from = (from + 1) % shards;
            }
            match message {
                Some(Message::Request(ticket, request)) => {
                    return Some(Inward::Request { from: from as ShardId, ticket, request });
                }
                Some(Message::Reply(ticket, reply)) => {
                    route.send_waiting();
                    return Some(self.answered(ticket, reply));
                }
                // Parking may have returned credits.
                None => route.send_waiting(),
            }
        }
        None
    }

    fn answered(&mut self, ticket: u64, reply: Reply) -> Inward {
        let submitter = self.tickets[ticket as usize].take().expect("each ticket is answered once");
        self.free.push(ticket as u32);
        if let (Submitter::Front { front, token }, Reply::Read(_)) = (submitter, &reply) {
            self.reads.remove(&(front, token));
        }
        Inward::Reply { to: submitter, reply }
    }

    /// Whether replies wait for room in a lane.
    pub fn has_late(&self) -> bool {
        self.routes.iter().any(|route| route.lane.as_ref().is_some_and(End::has_late))
    }

    /// Whether [`Routes::receive`] would give something.
    pub fn has_inward(&self) -> bool {
        !self.own_requests.is_empty()
            || !self.own_replies.is_empty()
            || self.routes.iter().any(|route| route.lane.as_ref().is_some_and(End::has_message))
    }

    /// Rings the shards that got something since the last call, late replies included.
    pub fn ring(&mut self) {
        for route in &mut self.routes {
            route.ring |= route.lane.as_mut().is_some_and(End::send_late);
            if std::mem::take(&mut route.ring) {
                route.quiet = 0;
                route.doorbell.ring();
            }
        }
    }
}

impl Route {
    fn send_waiting(&mut self) {
        let Some(lane) = &mut self.lane else { return };
        while let Some((ticket, request)) = self.waiting.pop_front() {
            match lane.request(ticket, request) {
                Ok(()) => self.ring = true,
                Err(request) => {
                    self.waiting.push_front((ticket, request));
                    return;
                }
            }
        }
    }
}

/// The lanes between `shards` shards: for each, its ends by the other's number; None at its own.
pub fn lanes(shards: u16) -> Vec<Vec<Option<End<Request, Reply>>>> {
    let mut all: Vec<Vec<Option<End<Request, Reply>>>> = Vec::new();
    for here in 0..usize::from(shards) {
        let mut ends = Vec::new();
        for others in &mut all {
            let (own, other) = millrace_base::lane::pair(lane_credits(usize::from(shards)));
            others.push(Some(other));
            ends.push(Some(own));
        }
        assert_eq!(ends.len(), here);
        ends.push(None);
        all.push(ends);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::lane;
    use std::sync::Arc;

    fn doorbell() -> Doorbell {
        Doorbell(Arc::new(|| ()))
    }

    #[test]
    fn requests_beyond_the_credits_wait_and_keep_their_order() {
        let (a, b) = lane::pair(2);
        let mut here = Routes::new(0, vec![None, Some(a)], vec![doorbell(), doorbell()]);
        let mut there = Routes::new(1, vec![Some(b), None], vec![doorbell(), doorbell()]);
        for token in 0..5 {
            here.submit(1, 0, token, Request::StopWaiting { token });
        }
        assert!(here.is_congested(1));
        let mut seen = Vec::new();
        while let Some(Inward::Request { from, ticket, request: Request::StopWaiting { token } }) = there.receive() {
            seen.push(token);
            there.reply(from, ticket, Reply::Done);
            while let Some(Inward::Reply { to, .. }) = here.receive() {
                assert_eq!(to, Submitter::Front { front: 0, token });
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert!(!here.is_congested(1));
    }

    #[test]
    fn lanes_are_served_in_turn() {
        let (mut lanes, mut ends) = (vec![None], Vec::new());
        for _ in 0..2 {
            let (here, there) = lane::pair(16);
            lanes.push(Some(here));
            ends.push(there);
        }
        let mut here = Routes::new(0, lanes, vec![doorbell(), doorbell(), doorbell()]);
        let mut others: Vec<Routes> = Vec::new();
        for (shard, end) in (1..).zip(ends) {
            others.push(Routes::new(shard, vec![Some(end), None, None], vec![doorbell(), doorbell(), doorbell()]));
        }
        for other in &mut others {
            (0..4).for_each(|token| other.submit(0, 0, token, Request::StopWaiting { token }));
        }
        let mut order = Vec::new();
        while let Some(Inward::Request { from, .. }) = here.receive() {
            order.push(from);
        }
        assert_eq!(order, [1, 2, 1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn polls_that_wait_hold_nothing_up() {
        let (a, b) = lane::pair(2);
        let mut here = Routes::new(0, vec![None, Some(a)], vec![doorbell(), doorbell()]);
        let mut there = Routes::new(1, vec![Some(b), None], vec![doorbell(), doorbell()]);
        let mut polls = Vec::new();
        for token in 0..10 {
            here.submit(1, 0, token, Request::StopWaiting { token });
            while let Some(Inward::Request { from, ticket, .. }) = there.receive() {
                there.park(from, ticket);
                there.park(from, ticket);
                polls.push((from, ticket));
            }
            assert!(here.receive().is_none());
        }
        assert_eq!(polls.len(), 10);
        assert!(!here.is_congested(1));
        polls.into_iter().for_each(|(from, ticket)| there.reply(from, ticket, Reply::Done));
        let mut answered = 0;
        while answered < 10 {
            there.ring();
            while let Some(Inward::Reply { .. }) = here.receive() {
                answered += 1;
            }
        }
        assert!(!there.has_late());
    }
}
