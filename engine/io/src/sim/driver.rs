//! One shard's driver in a world.
//!
//! Knows nothing of how operations happen: it hands them to the world and takes completions from it.

use super::core::Core;
use super::storage::SimDisk;
use super::world::ShardId;
use crate::driver::{Completion, Detached, Disk, Doorbell, Driver, IoError, Listener, Op, Socket, Token, Wait};
use millrace_base::clock::{Nanos, WallMs};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Virtual time that a turn takes at least, so that a shard that spins lets time pass.
const TURN: u64 = 1_000;

/// One shard's driver; dropping it kills the shard, as the end of its process would.
pub struct SimDriver {
    core: Rc<RefCell<Core>>,
    shard: u32,
    bell: Arc<AtomicBool>,
    disk: SimDisk,
}

impl SimDriver {
    pub(super) fn new(core: &Rc<RefCell<Core>>, node: u32) -> SimDriver {
        let shard = core.borrow_mut().add_shard(node);
        let bell = Arc::clone(&core.borrow_mut().shard(shard).bell);
        SimDriver { core: Rc::clone(core), shard, bell, disk: SimDisk::beside(core, shard) }
    }

    /// By which the world names this shard.
    pub fn shard(&self) -> ShardId {
        ShardId(self.shard)
    }
}

impl Driver for SimDriver {
    fn submit(&mut self, op: Op, token: Token) {
        let mut core = self.core.borrow_mut();
        let shard = core.shard(self.shard);
        if shard.alive {
            shard.queue.push((op, token));
        }
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        let mut core = self.core.borrow_mut();
        let queue = std::mem::take(&mut core.shard(self.shard).queue);
        for (op, token) in queue {
            core.start(self.shard, op, token);
        }
        let now = core.now;
        let rung = matches!(wait, Wait::Until(_)) && self.bell.swap(false, Ordering::SeqCst);
        let shard = core.shard(self.shard);
        let nothing = shard.completions.is_empty() && !rung;
        completions.append(&mut shard.completions);
        shard.busy = now + TURN;
        shard.wake = match wait {
            Wait::Until(Nanos::NEVER) if nothing => None,
            Wait::Until(deadline) if nothing => Some(deadline.0),
            Wait::Until(_) | Wait::No => Some(now),
        };
    }

    fn now(&self) -> Nanos {
        Nanos(self.core.borrow().now)
    }

    fn wall(&self) -> WallMs {
        let mut core = self.core.borrow_mut();
        let node = core.shard(self.shard).node;
        core.node(node).wall + (core.now / 1_000_000) as WallMs
    }

    fn entropy(&mut self) -> u64 {
        self.core.borrow_mut().prng.next_u64()
    }

    fn doorbell(&self) -> Doorbell {
        let bell = Arc::clone(&self.bell);
        Doorbell(Arc::new(move || bell.store(true, Ordering::SeqCst)))
    }

    fn listen(&mut self, address: SocketAddr, shared: bool) -> Result<(Listener, SocketAddr), IoError> {
        let (listener, bound) = self.core.borrow_mut().listen(self.shard, address, shared)?;
        Ok((Listener(listener), bound))
    }

    fn peer(&self, socket: Socket) -> Option<SocketAddr> {
        self.core.borrow().peer(self.shard, socket.0)
    }

    fn detach(&mut self, socket: Socket) -> Detached {
        self.core.borrow_mut().detach(self.shard, socket.0)
    }

    fn attach(&mut self, connection: Detached) -> Socket {
        self.core.borrow_mut().attach(self.shard, connection)
    }

    fn disk(&mut self) -> &mut dyn Disk {
        &mut self.disk
    }
}
