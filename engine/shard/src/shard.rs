//! The loop of one shard.
//!
//! A turn: take completions, drain lanes, receive what lies ready, tell fronts what came, visit connections ([`crate::visits`]) and drain lanes of what each asked,
//! fire timers, look again at reads that were woken, let the controller go on, seal and submit one journal entry per data directory, flush
//! sockets, ring sleepers. Then wait for the ring, no longer than the next deadline.
//!
//! [`Completion`]s, lane messages and [`TimerFor`] are all that can wake a shard.
//!
//! Invariants: what a front submits is seen no later than the next turn; a journal entry holds the appends of one turn, or of those that
//! passed while the ring was busy.
//! Knows nothing of protocols; all clocks are the driver's.

use crate::api::{Reply, Request};
use crate::boot::ShardBoot;
use crate::engine::{Engine, Turn};
use crate::front::{Cx, Front};
use crate::memory::Shares;
use crate::net::{ConnectionId, Event, Net, Next};
use crate::observe::{self, Observed};
use crate::routes::{Inward, Routes, Submitter};
use crate::timers::{TimerFor, TimerKey, Timers};
use crate::token::{self, Purpose};
use crate::visits::Visits;
use crate::waits::WaitId;
use millrace_base::clock::Nanos;
use millrace_base::ids::ShardId;
use millrace_io::{Completion, Driver, IoError, Listener, Memory, Wait};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Messages of other shards handled at once, and for how long: no client is to ask for so much that others wait for it.
const MESSAGES_AT_ONCE: usize = 1024;
const MESSAGES_NS: u128 = 150_000;

/// Visits of connections in one turn, and for how long, what this shard does for them included. A durable record takes some four turns.
const VISITS_PER_TURN: usize = 1024;
const VISITS_NS: u128 = 50_000;

/// Spinning goes on while at least so many of the last waits were short; more are not remembered.
const SPIN_HITS_MIN: u8 = 3;
const SPIN_HITS_MAX: u8 = 6;

/// How often time-outs of produces and idle connections are looked for, unless all are at rest.
const HOUSEKEEPING_MS: u64 = 250;

/// How often a shard without other work looks whether memory has come home for those who wait for it.
const MEMORY_PAUSE_MS: u64 = 1;

/// Connections looked at in one turn whose next request waits for memory to be answered from, and for how long.
const ANSWERS_RESUMED: usize = 64;
const ANSWERS_NS: u128 = 100_000;

/// How long a frame may take that brings less than 1 KiB/s.
const DRIBBLE_MS: u64 = 30_000;

/// How long a listener rests after an accept that failed: what it lacked may be there again.
const ACCEPT_PAUSE_MS: u64 = 100;

/// How a shard stands after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Running,
    /// Everything is closed and durable; the shard can be dropped.
    Stopped,
}

/// One front, and the sockets that the shard listens on for it.
pub struct FrontSetup {
    pub front: Box<dyn Front>,
    /// In the order of the front's own list.
    pub listeners: Vec<Listener>,
}

/// See the module's head.
pub struct Shard {
    driver: Box<dyn Driver>,
    engine: Engine,
    net: Net,
    timers: Timers<TimerFor>,
    /// When the house is kept next.
    house: (TimerKey, Nanos),
    fronts: Vec<Box<dyn Front>>,
    /// For each listener of `net`: its front, and its index in the front's list.
    listeners: Vec<(usize, usize)>,
    waiting_listeners: Vec<(usize, usize, Listener)>,
    completions: Vec<Completion>,
    events: Vec<Event>,
    visits: Visits,
    moves: BTreeMap<ConnectionId, ShardId>,
    spin_ns: u64,
    /// How often, of late, work came within the time of a spin: spinning for what comes later only burns the core.
    spin_hits: u8,
    last_work: Nanos,
    opened_told: bool,
    observed: Option<Observed>,
}

impl Shard {
    /// Joins what boot found for this shard with its driver and routes.
    pub fn new(mut driver: Box<dyn Driver>, boot: ShardBoot, routes: Routes, fronts: Vec<FrontSetup>) -> Result<Shard, IoError> {
        let spin_ns = u64::from(boot.settings.shard_spin_us) * 1000;
        let net = Net::new(&boot.memory);
        let mut timers = Timers::default();
        let (now, wall) = (driver.now(), driver.wall());
        let mut turn = Turn { driver: &mut *driver, timers: &mut timers, now, wall };
        let engine = Engine::start(&mut turn, boot, routes)?;
        let house_at = now.plus_ms(HOUSEKEEPING_MS);
        let house = (timers.add(house_at, TimerFor::Housekeeping), house_at);
        let mut waiting_listeners = Vec::new();
        let mut boxes = Vec::new();
        for (front, setup) in fronts.into_iter().enumerate() {
            waiting_listeners.extend(setup.listeners.into_iter().enumerate().map(|(index, listener)| (front, index, listener)));
            boxes.push(setup.front);
        }
        Ok(Shard {
            driver,
            engine,
            net,
            timers,
            house,
            fronts: boxes,
            listeners: Vec::new(),
            waiting_listeners,
            completions: Vec::new(),
            events: Vec::new(),
            visits: Visits::default(),
            moves: BTreeMap::new(),
            spin_ns,
            spin_hits: 0,
            last_work: now,
            opened_told: false,
            observed: None,
        })
    }

    /// How many descriptors the process may have; all shards share them.
    pub fn bound_files(&mut self, files_max: u64) {
        let shards = self.engine.facts.shards;
        self.engine.open_files.bound(files_max, shards);
    }

    /// From now on it tells of itself through this.
    pub fn be_observed(&mut self, observed: Observed) {
        self.observed = Some(observed);
    }

    /// Whether connections are accepted.
    pub fn is_open(&self) -> bool {
        self.engine.is_open
    }

    /// How many times it waits for, for a front or for itself.
    pub fn timers(&self) -> usize {
        self.timers.count()
    }

    /// Begins a clean stop: no new connections; what is acknowledged is durable already.
    pub fn stop(&mut self) {
        if !self.engine.stopping {
            self.engine.stopping = true;
            self.net.stop_listening(&mut *self.driver);
        }
    }

    /// One pass of the loop.
    pub fn turn(&mut self) -> Status {
        let wait = self.wait();
        let mut worked = self.take_completions(wait);
        let now = self.driver.now();
        // What another shard told this one before it answered a client is so here when that client asks.
        if self.engine.routes.has_inward() {
            worked |= self.drain_lanes(now);
        }
        // What lies ready is received, and what is answered leaves, before others are served.
        if self.net.takes_what_is_ready() || !self.events.is_empty() || !self.visits.is_empty() {
            self.net.flush_few(&mut *self.driver, now);
            worked |= self.take_completions(Wait::No);
        }
        self.tell_fronts(now);
        self.visit(now);
        worked |= self.drain_lanes(now);
        worked |= self.fire_timers(now);
        self.work(now);
        self.net.resume_waiting(&mut *self.driver, now);
        self.resume_answers(now);
        self.net.flush(&mut *self.driver, now, self.engine.is_writing());
        if worked {
            let is_hit = now.since(self.last_work).as_nanos() <= u128::from(self.spin_ns);
            self.spin_hits = if is_hit { (self.spin_hits + 1).min(SPIN_HITS_MAX) } else { self.spin_hits.saturating_sub(1) };
            self.last_work = now;
            self.keep_house_by(now.plus_ms(HOUSEKEEPING_MS));
        }
        self.tell_observers();
        if self.engine.stopping && self.engine.is_quiet() && self.cut_for_stop(now) { Status::Stopped } else { Status::Running }
    }

    /// Hands the driver what was submitted, and takes what has completed; whether anything has.
    fn take_completions(&mut self, wait: Wait) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.driver.poll(wait, &mut completions);
        let now = self.driver.now();
        let has_any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.completed(completion, now);
        }
        self.completions = completions;
        has_any
    }

    fn tell_observers(&self) {
        let Some(observed) = &self.observed else { return };
        let askers = observed.askers();
        if askers.is_empty() {
            return;
        }
        let snapshot = Arc::new(observe::snapshot(&self.engine, &self.net, &self.fronts));
        for asker in askers {
            let _ = asker.send(Arc::clone(&snapshot)); // it may have given up
        }
    }

    fn cut_for_stop(&mut self, now: Nanos) -> bool {
        let wall = self.driver.wall();
        let mut turn = Turn { driver: &mut *self.driver, timers: &mut self.timers, now, wall };
        self.engine.cut_for_stop(&mut turn)
    }

    fn wait(&mut self) -> Wait {
        if self.engine.has_work() || !self.visits.is_empty() || !self.events.is_empty() || self.net.has_to_flush() {
            return Wait::No;
        }
        if self.spin_hits >= SPIN_HITS_MIN && self.driver.now().since(self.last_work).as_nanos() < u128::from(self.spin_ns) {
            return Wait::No;
        }
        let next = self.timers.next().min(self.engine.journals_want());
        // Another shard's thread gives memory back without a word.
        let waits_for_memory = self.net.is_waiting() || self.net.waiting_to_answer() > 0 || self.engine.waits_for_memory();
        Wait::Until(if waits_for_memory { next.min(self.driver.now().plus_ms(MEMORY_PAUSE_MS)) } else { next })
    }

    fn completed(&mut self, completion: Completion, now: Nanos) {
        let (purpose, slot, generation) = token::unpack(completion.token);
        let wall = self.driver.wall();
        let mut turn = Turn { driver: &mut *self.driver, timers: &mut self.timers, now, wall };
        match purpose {
            Purpose::Accept | Purpose::Receive | Purpose::Readable | Purpose::Send | Purpose::CloseSocket => {
                self.net.completed(&mut *self.driver, completion, now, &mut self.events);
            }
            Purpose::Task => {
                if let Some((finish, result)) = self.engine.scripts.completed(turn.driver, completion) {
                    self.engine.finished(&mut turn, finish, result);
                }
            }
            Purpose::Entry => {
                if let Memory::Slice(slice) = completion.memory {
                    self.engine.entry_completed(&mut turn, slot as usize, generation, completion.result, slice);
                }
            }
            Purpose::Extent => {
                if let Memory::Slice(slice) = completion.memory {
                    self.engine.extent_completed(&mut turn, slot, completion.result, slice);
                }
            }
            Purpose::Job => self.engine.batch_searched(&mut turn, slot, completion.result),
            Purpose::Nobody => {}
        }
    }

    fn tell_fronts(&mut self, now: Nanos) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Accepted { connection, listener, peer } => {
                    if self.engine.stopping {
                        self.net.close(&mut *self.driver, connection);
                        continue;
                    }
                    let (front, index) = self.listeners[listener];
                    let most = self.engine.connections_max();
                    if self.net.open() > most {
                        let why = format!("this shard has {most} connections, its share of max.connections and of the limit of open files");
                        self.with_front(front, now, |_, cx| cx.close(connection, &why));
                        continue;
                    }
                    self.with_front(front, now, |front, cx| front.accepted(cx, connection, index, peer));
                }
                Event::Bytes { connection } => self.visits.ask(connection),
                Event::Sent { connection } => {
                    if let Some((front, _)) = self.front_of(connection) {
                        self.with_front(front, now, |front, cx| front.sent(cx, connection));
                    }
                }
                Event::Closed { connection, listener } => {
                    let (front, _) = self.listeners[listener];
                    self.moves.remove(&connection);
                    self.with_front(front, now, |front, cx| front.closed(cx, connection));
                }
                Event::AcceptEnded { .. } if self.engine.stopping => {}
                Event::AcceptEnded { listener, error: None } => self.net.accept(&mut *self.driver, listener),
                Event::AcceptEnded { listener, error: Some(error) } => {
                    if !self.engine.is_out_of_files(now, error) {
                        log::warn!("a connection cannot be accepted: {error}");
                    }
                    self.timers.add(now.plus_ms(ACCEPT_PAUSE_MS), TimerFor::Accept { listener });
                }
            }
        }
        // What the fronts' calls brought is for the next turn; keep both.
        events.append(&mut self.events);
        self.events = events;
    }

    /// Visits connections for as long as a turn has time for.
    fn visit(&mut self, now: Nanos) {
        let began = self.driver.now();
        let mut last = began;
        for _ in 0..VISITS_PER_TURN {
            let Some(connection) = self.visits.next() else { return };
            let has_asked = self.visit_one(connection, now);
            self.drain_own(now);
            let ended = self.driver.now();
            if has_asked {
                if self.has_frame(connection) {
                    self.visits.ask_for_more(connection);
                }
                self.visits.end(connection, ended.since(last).as_nanos() as u64);
            }
            if ended.since(began).as_nanos() > VISITS_NS || self.driver.settle() {
                return;
            }
            last = self.driver.now();
        }
    }

    fn front_of(&self, connection: ConnectionId) -> Option<(usize, usize)> {
        self.net.listener_of(connection).map(|listener| self.listeners[listener])
    }

    /// Lets a connection's front begin a request that waits, or hands it the next whole frame; whether there was one of them.
    fn visit_one(&mut self, connection: ConnectionId, now: Nanos) -> bool {
        let Some((index, _)) = self.front_of(connection) else { return false };
        if self.engine.stopping {
            return false; // what has begun comes to its end, and nothing new begins
        }
        if self.try_move(connection, index) {
            return false;
        }
        if self.with_front(index, now, |front, cx| front.begin(cx, connection)) {
            return true;
        }
        let front = &self.fronts[index];
        match self.net.next_frame(&mut *self.driver, connection, |bytes| front.frame(bytes)) {
            Next::Frame(frame) => {
                self.with_front(index, now, |front, cx| front.received(cx, connection, frame));
                true
            }
            Next::Nothing => false,
            Next::Bad(reason) => {
                self.with_front(index, now, |_, cx| cx.close(connection, &reason));
                false
            }
        }
    }

    /// Whether another whole frame of the connection is there; if not, more of it is received.
    fn has_frame(&mut self, connection: ConnectionId) -> bool {
        let Some((index, _)) = self.front_of(connection) else { return false };
        let front = &self.fronts[index];
        self.net.has_frame(&mut *self.driver, connection, |bytes| front.frame(bytes))
    }

    fn with_front<T>(&mut self, index: usize, now: Nanos, call: impl FnOnce(&mut dyn Front, &mut Cx<'_>) -> T) -> T {
        let wall = self.driver.wall();
        let engine = &mut self.engine;
        let mut cx = Cx {
            now,
            wall,
            shard: engine.here,
            facts: &engine.facts,
            settings: &engine.settings,
            meta: &engine.meta,
            leaders: &engine.leaders,
            directories: &engine.directories,
            front: index,
            driver: &mut *self.driver,
            net: &mut self.net,
            routes: &mut engine.routes,
            timers: &mut self.timers,
            answers: &engine.memory.answer,
            visits: &mut self.visits,
            moves: &mut self.moves,
        };
        call(&mut *self.fronts[index], &mut cx)
    }

    /// What this shard has for itself, and what has come from the others.
    fn drain_lanes(&mut self, now: Nanos) -> bool {
        let mut worked = self.drain_own(now);
        let began = self.driver.now();
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(inward) = self.engine.routes.receive() else { break };
            self.handle(inward, now);
            self.drain_own(now);
            worked = true;
            if self.driver.now().since(began).as_nanos() > MESSAGES_NS {
                break;
            }
        }
        worked
    }

    fn drain_own(&mut self, now: Nanos) -> bool {
        let mut worked = false;
        while let Some(inward) = self.engine.routes.receive_own() {
            self.handle(inward, now);
            worked = true;
        }
        worked
    }

    fn handle(&mut self, inward: Inward, now: Nanos) {
        match inward {
            Inward::Request { from, ticket, request: Request::Connection(moved) } => {
                self.engine.routes.reply(from, ticket, Reply::Done);
                let crate::api::Moved { detached, state } = *moved;
                let (front, index) = self.listeners[detached.listener];
                let connection = self.net.attach(&mut *self.driver, detached, now);
                self.with_front(front, now, |front, cx| front.arrived(cx, connection, index, state));
                self.visits.ask(connection);
            }
            Inward::Request { from, ticket, request: Request::Open } => {
                self.open();
                self.engine.routes.reply(from, ticket, Reply::Done);
            }
            Inward::Request { from, ticket, request } => {
                let wall = self.driver.wall();
                let mut turn = Turn { driver: &mut *self.driver, timers: &mut self.timers, now, wall };
                self.engine.request(&mut turn, from, ticket, request);
            }
            Inward::Reply { to: Submitter::Front { front, token }, reply } => {
                self.with_front(front, now, |front, cx| front.replied(cx, token, reply));
            }
            Inward::Reply { to: Submitter::Applied, .. } => self.engine.applied_elsewhere(),
            Inward::Reply { to: Submitter::Nobody, .. } => {}
        }
    }

    fn open(&mut self) {
        self.engine.is_open = true;
        for (front, index, listener) in std::mem::take(&mut self.waiting_listeners) {
            self.listeners.push((front, index));
            let added = self.net.listen(&mut *self.driver, listener);
            assert_eq!(added + 1, self.listeners.len());
        }
    }

    fn fire_timers(&mut self, now: Nanos) -> bool {
        let mut worked = false;
        while let Some(timer) = self.timers.pop(now) {
            worked |= timer != TimerFor::Housekeeping;
            let wall = self.driver.wall();
            let mut turn = Turn { driver: &mut *self.driver, timers: &mut self.timers, now, wall };
            match timer {
                TimerFor::Front { front, token } => self.with_front(front, now, |front, cx| front.timer(cx, token)),
                TimerFor::Read { slot, generation } => self.engine.read_deadline(&mut turn, WaitId { slot, generation }),
                TimerFor::Coordinator { partition } => self.engine.coordinator_timer(&mut turn, partition),
                TimerFor::Accept { listener } => {
                    if !self.engine.stopping {
                        self.net.accept(&mut *self.driver, listener);
                    }
                }
                TimerFor::Housekeeping => {
                    self.engine.keep_house(&mut turn);
                    self.close_idle(now);
                    self.close_dribbling(now);
                    self.relieve_memory(now);
                    self.tell_memory();
                    let at = self.rests_until(now);
                    self.house = (self.timers.add(at, TimerFor::Housekeeping), at);
                }
            }
        }
        worked
    }

    /// When the house is to be kept next if nothing happens before.
    fn rests_until(&self, now: Nanos) -> Nanos {
        let soon = now.plus_ms(HOUSEKEEPING_MS);
        let (idle_ms, _) = self.engine.connection_limits_ms();
        let rest = if self.engine.is_at_rest(now) { self.net.rests_until(idle_ms) } else { None };
        rest.map_or(soon, |until| until.min(self.engine.retention_at).max(soon))
    }

    /// Something has happened: what it brought is looked after by then.
    fn keep_house_by(&mut self, at: Nanos) {
        if self.house.1 > at {
            self.timers.remove(self.house.0);
            self.house = (self.timers.add(at, TimerFor::Housekeeping), at);
        }
    }

    fn close_idle(&mut self, now: Nanos) {
        let (idle_ms, stalled_ms) = self.engine.connection_limits_ms();
        let before = Nanos(now.0.saturating_sub(idle_ms.saturating_mul(1_000_000)));
        let stalled = Nanos(now.0.saturating_sub(stalled_ms.saturating_mul(1_000_000)));
        for connection in self.net.idle(before, stalled) {
            if let Some((front, _)) = self.front_of(connection) {
                self.with_front(front, now, |_, cx| cx.close(connection, "nothing came from it or went to it for too long"));
            }
        }
    }

    /// Closes the connections whose request comes too slowly to be one.
    fn close_dribbling(&mut self, now: Nanos) {
        let before = Nanos(now.0.saturating_sub(DRIBBLE_MS * 1_000_000));
        for connection in self.net.dribbling(before) {
            if let Some((front, _)) = self.front_of(connection) {
                let why = "its request did not come whole within 30 s, nor 1 KiB/s of it";
                self.with_front(front, now, |_, cx| cx.close(connection, why));
            }
        }
    }

    /// Closes the connections that hold memory for nothing while others wait for it.
    fn relieve_memory(&mut self, now: Nanos) {
        for (connection, reason) in self.net.relieve(&mut *self.driver, now) {
            if let Some((front, _)) = self.front_of(connection) {
                self.with_front(front, now, |_, cx| cx.close(connection, &reason));
            }
        }
    }

    /// Lets requests begin that have waited for memory to be answered from.
    fn resume_answers(&mut self, now: Nanos) {
        let began = self.driver.now();
        for _ in 0..self.net.waiting_to_answer().min(ANSWERS_RESUMED) {
            if self.driver.now().since(began).as_nanos() > ANSWERS_NS {
                return;
            }
            let Some(connection) = self.net.next_to_answer() else { return };
            if let Some((front, _)) = self.front_of(connection) {
                if self.with_front(front, now, |front, cx| front.begin(cx, connection)) {
                    self.visits.ask(connection);
                }
                self.drain_own(now);
            }
        }
    }

    /// Who waits for memory, at level debug.
    fn tell_memory(&self) {
        let waits = (self.net.is_waiting(), self.net.waiting_to_answer(), self.engine.waits_for_memory());
        if waits != (false, 0, false) {
            let shares = &self.engine.memory;
            let parts = [("journal", &shares.journal), ("receive", &shares.receive), ("read", &shares.read), ("answer", &shares.answer)];
            let parts = parts.map(|(name, share)| format!("{name} {} of {} KiB", share.used() >> 10, share.budget() >> 10));
            log::debug!("shard {}: waiting for memory {waits:?}; {}", self.engine.here, parts.join(", "));
        }
    }

    /// This shard's memory, and who has how much of it.
    pub fn memory(&self) -> &Shares {
        &self.engine.memory
    }

    fn work(&mut self, now: Nanos) {
        let wall = self.driver.wall();
        let mut turn = Turn { driver: &mut *self.driver, timers: &mut self.timers, now, wall };
        self.engine.work(&mut turn);
        self.engine.routes.ring();
    }

    /// Hands a connection that wants to move to its new shard, together with the bytes that have just come. False: not now.
    fn try_move(&mut self, connection: ConnectionId, front: usize) -> bool {
        let Some(to) = self.moves.get(&connection).copied() else { return false };
        if to == self.engine.here || !self.net.is_quiet(connection) {
            return false;
        }
        let Some(state) = self.fronts[front].depart(connection) else { return false };
        self.moves.remove(&connection);
        let detached = self.net.detach(&mut *self.driver, connection).expect("it was quiet a moment ago");
        self.engine.routes.submit_for(to, Submitter::Nobody, Request::Connection(Box::new(crate::api::Moved { detached, state })));
        true
    }

    /// True once, when the node has begun to accept connections.
    pub fn has_just_opened(&mut self) -> bool {
        let just = self.engine.is_open && !self.opened_told;
        self.opened_told |= just;
        just
    }
}
