//! The world as a harness holds it.

use super::client::ClientEnd;
use super::core::{Core, Event};
use super::driver::SimDriver;
use super::recording::{CutDisk, Recording};
use super::storage::SimDisk;
use super::trace::Happening;
use super::{Fault, Loss, Rates};
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::prng::Prng;
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

/// A shard of some node, by its driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u32);

/// Nodes' disks, a network, and virtual time. Cheap to clone; all clones are the same world.
#[derive(Clone)]
pub struct World {
    core: Rc<RefCell<Core>>,
}

impl World {
    pub fn new(seed: u64, rates: Rates) -> World {
        World { core: Rc::new(RefCell::new(Core::new(seed, rates))) }
    }

    /// A world in which it is `now`, and `node` has what a power cut has left of a disk; `wall` is what its clock shows.
    pub fn after(seed: u64, now: Nanos, node: u32, disk: CutDisk, wall: WallMs) -> World {
        let world = World::new(seed, Rates::CALM);
        let mut core = world.core.borrow_mut();
        core.now = now.0;
        core.node(node).storage = disk.0;
        core.node(node).wall = wall - (now.0 / 1_000_000) as WallMs;
        drop(core);
        world
    }

    /// Keeps every change of a node's disk from now on; gives what was kept before.
    pub fn record(&self, node: u32) -> Option<Recording> {
        self.core.borrow_mut().node(node).storage.record()
    }

    /// A new shard of `node` (made when it is new). Its disk is the node's.
    pub fn driver(&self, node: u32) -> SimDriver {
        SimDriver::new(&self.core, node)
    }

    /// The disk of `node` without a shard: for boot, and to look at what is left.
    pub fn disk(&self, node: u32) -> SimDisk {
        SimDisk::alone(&self.core, node)
    }

    /// A client outside connects. If no one listens when it gets there, it is reset.
    pub fn connect(&self, address: SocketAddr) -> ClientEnd {
        let mut core = self.core.borrow_mut();
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, core.network.port()));
        let connection = core.network.connect(from, address);
        let accepting = super::core::accepted_end(connection);
        let time = core.now + core.delay(5_000, 100_000);
        if let Some(side) = core.network.side(accepting) {
            side.comes_after(time);
        }
        core.at(time, Event::Connect { connection, to: address });
        ClientEnd::new(&self.core, connection)
    }

    pub fn now(&self) -> Nanos {
        Nanos(self.core.borrow().now)
    }

    /// A generator for the harness's own choices, from the world's seed.
    pub fn prng(&self) -> Prng {
        self.core.borrow_mut().prng.fork()
    }

    /// How odd the world is from now on.
    pub fn set_rates(&self, rates: Rates) {
        self.core.borrow_mut().rates = rates;
    }

    /// Steps the clock that people set, of one node.
    pub fn step_wall(&self, node: u32, by_ms: i64) {
        self.core.borrow_mut().node(node).wall += by_ms;
    }

    pub fn wall(&self, node: u32) -> WallMs {
        let mut core = self.core.borrow_mut();
        let passed = (core.now / 1_000_000) as WallMs;
        core.node(node).wall + passed
    }

    /// Shards that have something to do now, in seeded order.
    pub fn runnable(&self) -> Vec<ShardId> {
        let mut core = self.core.borrow_mut();
        let now = core.now;
        let ready = |shard: &super::core::Shard| shard.next_run().is_some_and(|time| time <= now);
        let mut runnable: Vec<ShardId> = core.shards.iter().filter(|(_, shard)| ready(shard)).map(|(id, _)| ShardId(*id)).collect();
        for i in (1..runnable.len()).rev() {
            let other = core.prng.below(i as u64 + 1) as usize;
            runnable.swap(i, other);
        }
        runnable
    }

    /// Moves time to the next event, which happens, or to the next time at which a shard wakes. False: nothing will ever happen.
    pub fn step(&self) -> bool {
        let mut core = self.core.borrow_mut();
        let wake = core.shards.values().filter_map(|shard| shard.next_run()).min();
        match (core.next_event(), wake) {
            (Some(event), Some(wake)) if wake < event => core.now = core.now.max(wake),
            (Some(_), _) => core.happen(),
            (None, Some(wake)) => core.now = core.now.max(wake),
            (None, None) => return false,
        }
        true
    }

    /// Lets shards run and time pass until `done`. `turn` runs one turn of a shard: it polls once and does what follows. False: `limit`
    /// came first, or nothing will ever happen.
    pub fn run_until(&self, limit: Nanos, mut turn: impl FnMut(ShardId), mut done: impl FnMut() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            let runnable = self.runnable();
            if runnable.is_empty() && (self.now() >= limit || !self.step()) {
                return false;
            }
            for shard in runnable {
                turn(shard);
            }
            if self.now() >= limit {
                return done();
            }
        }
    }

    /// How often something changed for clients outside: while it stays the same, none of them has anything to receive or more room to send.
    pub fn outside(&self) -> u64 {
        self.core.borrow().outside
    }

    /// Whether the shard's process still is.
    pub fn is_alive(&self, shard: ShardId) -> bool {
        self.core.borrow().shards.get(&shard.0).is_some_and(|shard| shard.alive)
    }

    /// Kills the node's process: what had completed stays; what was in flight happens, or in part, or not. Drop its drivers then.
    pub fn kill(&self, node: u32) {
        self.core.borrow_mut().kill(node);
    }

    /// Cuts the node's power: kills it, and takes of what was not synced as `loss` says.
    pub fn cut_power(&self, node: u32, loss: Loss) {
        self.core.borrow_mut().cut_power(node, loss);
    }

    pub fn add_fault(&self, node: u32, fault: Fault) {
        self.core.borrow_mut().node(node).storage.add_fault(fault);
    }

    /// How many operations of the node are still to go wrong.
    pub fn faults_left(&self, node: u32) -> u64 {
        self.core.borrow_mut().node(node).storage.faults_left()
    }

    /// Takes back all faults of the node, and its capacity limits. Damage that was done stays.
    pub fn heal(&self, node: u32) {
        let mut core = self.core.borrow_mut();
        core.node(node).storage.clear_faults();
        core.node(node).storage.clear_capacities();
    }

    /// Bytes that the files of the node below a folder may hold together, as on a file system of its own; None: no limit.
    pub fn set_capacity(&self, node: u32, folder: &Path, capacity: Option<u64>) {
        self.core.borrow_mut().node(node).storage.set_capacity(folder, capacity);
    }

    /// Flips a bit at rest. False: no such byte.
    pub fn flip(&self, node: u32, path: &Path, place: u64, bit: u8) -> bool {
        let mut core = self.core.borrow_mut();
        let Some(image) = core.node(node).storage.image(path).filter(|image| place < image.len()) else { return false };
        image.flip(place, bit);
        true
    }

    /// Makes sectors unreadable until they are written again. False: no such file.
    pub fn spoil(&self, node: u32, path: &Path, place: u64, len: u64) -> bool {
        let mut core = self.core.borrow_mut();
        let Some(image) = core.node(node).storage.image(path) else { return false };
        image.spoil(place, len);
        true
    }

    /// The hash of everything that has happened.
    pub fn trace(&self) -> u64 {
        self.core.borrow().trace.hash()
    }

    /// Keeps happenings from now on, for [`World::happenings`].
    pub fn keep_happenings(&self) {
        self.core.borrow_mut().trace.keep();
    }

    /// What has happened since the last time this was asked.
    pub fn happenings(&self) -> Vec<Happening> {
        self.core.borrow_mut().trace.take()
    }
}
