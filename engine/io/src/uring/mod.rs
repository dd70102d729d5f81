//! The driver on io_uring: one ring per shard, made and used on the shard's thread.
//!
//! 1. [`Driver::submit`] turns an operation into an entry ([`start`]); its memory moves into a slot ([`flight`]) until it completes.
//! 2. [`Driver::poll`] hands entries over and takes completions, in no more system calls than there is something to do for.
//! 3. A completion finds its slot, which gives the memory back ([`finish`]).
//! 4. Jobs run on a thread of the driver's own ([`crate::job`]), which rings when one is done.
//! 5. A shard that waits is woken by a completion, its deadline, or its doorbell, which costs a system call only while it sleeps.
//!
//! The kernel runs deferred work only when the shard enters it, so completions never interrupt a turn.
//!
//! Invariants: memory that the kernel may touch is owned by a slot; dropping the driver cancels and waits, then leaks what never came back.
//! Knows nothing of what the bytes mean.

mod finish;
mod flight;
mod ring;
mod setup;
mod start;
mod workers;

pub use setup::{Config, Probed, SetupError, check, probe};

use crate::blocking::BlockingDisk;
use crate::doorbell::Bell;
use crate::driver::{Completion, Detached, Disk, Doorbell, Driver, IoError, Listener, Memory, Op, Socket, Token, Wait};
use crate::job::{Job, Worker};
use crate::table::Table;
use crate::{socket, system};
use flight::{Flights, Gather};
use millrace_base::clock::{Nanos, WallMs};
use ring::{Entered, Ring};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use workers::Workers;

/// How long dropping a driver waits for cancelled operations.
const DROP_WAIT: Duration = Duration::from_secs(5);

/// System calls of one pass: a completion may have a second step, which is to start now, and the kernel completes some 20 operations a call.
const PASSES_MAX: usize = 16;

/// The pause before asking a kernel again that had no memory for requests.
const BREATH: Duration = Duration::from_millis(1);

/// A busy shard whose [`workers`] are not prompt steps aside for a moment when a sync takes longer than this, and then as often.
const SYNC_PATIENCE: Duration = Duration::from_micros(250);

/// A socket or listener of this driver.
struct Endpoint {
    /// None once the kernel closes it.
    fd: Option<OwnedFd>,
    operations: u32,
    /// The token of the operation that closes it.
    closing: Option<Token>,
}

impl Endpoint {
    fn new(fd: OwnedFd) -> Endpoint {
        Endpoint { fd: Some(fd), operations: 0, closing: None }
    }

    fn raw(&self) -> RawFd {
        self.fd.as_ref().expect("kept until closed").as_raw_fd()
    }
}

/// One shard's ring. Stays on the thread that made it.
pub struct UringDriver {
    ring: Ring,
    flights: Flights,
    disk: BlockingDisk,
    sockets: Table<Endpoint>,
    listeners: Table<Endpoint>,
    /// Message headers at rest.
    #[expect(clippy::vec_box, reason = "a header stays at its address while it moves between this list and an operation")]
    gathers: Vec<Box<Gather>>,
    /// Completions that never went to the kernel.
    ready: Vec<Completion>,
    /// Synced writes in flight.
    unsettled: u32,
    /// Second steps of them, and since when the kernel has had the core for them last.
    settling: u32,
    settling_since: Nanos,
    workers: Workers,
    bell: Arc<Bell>,
    /// Made for the first job.
    worker: Option<Worker>,
    _stays_on_its_thread: PhantomData<*const ()>,
}

impl UringDriver {
    /// Makes the ring of the calling thread.
    ///
    /// # Errors
    /// What is missing or forbidden, with the remedy in its text.
    pub fn new(config: Config) -> Result<UringDriver, SetupError> {
        let (ring, abilities) = setup::ring(config)?;
        let bell = Bell::new().map_err(|error| match error.0 {
            libc::EMFILE | libc::ENFILE => SetupError::NoDescriptors,
            _ => SetupError::System { doing: "making the doorbell's eventfd", error },
        })?;
        let mut driver = UringDriver {
            ring: Ring::new(ring, abilities),
            flights: Flights::new(),
            disk: BlockingDisk::new(),
            sockets: Table::new(),
            listeners: Table::new(),
            gathers: Vec::new(),
            ready: Vec::new(),
            unsettled: 0,
            settling: 0,
            settling_since: Nanos(0),
            workers: Workers::of_this_thread(),
            bell: Arc::new(bell),
            worker: None,
            _stays_on_its_thread: PhantomData,
        };
        driver.watch_bell();
        Ok(driver)
    }

    fn at_once(&mut self, token: Token, result: Result<u32, IoError>, memory: Memory) {
        self.ready.push(Completion { token, result, memory, more: false });
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.ready);
        while let Some(token) = self.worker.as_ref().and_then(Worker::take) {
            completions.push(Completion { token, result: Ok(0), memory: Memory::None, more: false });
        }
        while let Some(entry) = self.ring.take() {
            self.finish(&entry, completions);
        }
    }

    /// Gives a job to the worker, which rings the doorbell when it is done.
    fn run(&mut self, job: Job, token: Token) {
        if self.worker.is_none() {
            let bell = Arc::clone(&self.bell);
            match Worker::start(move || bell.ring()) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => return self.at_once(token, Err(error), Memory::None),
            }
        }
        if let Some(worker) = &self.worker {
            worker.submit(job, token);
        }
    }

    /// Hands over and takes, without waiting.
    fn pass(&mut self, completions: &mut Vec<Completion>) {
        for _ in 0..PASSES_MAX {
            if !self.ring.has_business() {
                return;
            }
            self.ring.submit();
            self.reap(completions);
        }
    }

    /// Gives the core to a worker that waits for it.
    fn step_aside(&mut self) {
        if self.settling == 0 || self.workers.are_prompt() {
            return;
        }
        let now = system::now();
        if now.since(self.settling_since) > SYNC_PATIENCE {
            std::thread::sleep(Duration::from_nanos(1));
            self.settling_since = now;
        }
    }

    /// Waits once, at most until `deadline`. True: the doorbell was rung.
    fn sleep(&mut self, deadline: Nanos) -> bool {
        if !self.bell.fall_asleep() {
            return true;
        }
        let timeout = (deadline != Nanos::NEVER).then(|| deadline.since(system::now()));
        if self.ring.submit_and_wait(timeout) == Entered::Later {
            std::thread::sleep(BREATH);
        }
        self.bell.wake()
    }
}

impl Driver for UringDriver {
    fn submit(&mut self, op: Op, token: Token) {
        self.start(op, token);
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.reap(completions);
        let Wait::Until(deadline) = wait else {
            self.step_aside();
            return self.pass(completions);
        };
        let mut rung = false;
        while completions.len() == before && !rung && system::now() < deadline {
            rung = self.sleep(deadline);
            self.reap(completions);
        }
        self.pass(completions);
    }

    fn run_aside(&mut self, job: Job, token: Token) {
        self.run(job, token);
    }

    fn settle(&mut self) -> bool {
        if self.unsettled == 0 || !self.ring.has_completed() {
            return false;
        }
        let (before, unsettled) = (self.settling, self.unsettled);
        let mut completions = std::mem::take(&mut self.ready);
        self.ring.submit();
        self.reap(&mut completions);
        if self.settling > before {
            self.ring.submit();
        }
        self.ready = completions;
        self.unsettled < unsettled
    }

    fn now(&self) -> Nanos {
        system::now()
    }

    fn wall(&self) -> WallMs {
        system::wall()
    }

    fn entropy(&mut self) -> u64 {
        system::entropy()
    }

    fn doorbell(&self) -> Doorbell {
        let bell = Arc::clone(&self.bell);
        Doorbell(Arc::new(move || bell.ring()))
    }

    fn listen(&mut self, address: SocketAddr, shared: bool) -> Result<(Listener, SocketAddr), IoError> {
        let (fd, bound) = socket::listen(address, shared)?;
        Ok((Listener(self.listeners.insert(Endpoint::new(fd))), bound))
    }

    fn peer(&self, socket: Socket) -> Option<SocketAddr> {
        socket::peer(self.sockets.get(socket.0)?.fd.as_ref()?.as_fd())
    }

    fn detach(&mut self, socket: Socket) -> Detached {
        let mut endpoint = self.sockets.take(socket.0).expect("only an open connection is detached");
        assert!(endpoint.operations == 0 && endpoint.closing.is_none(), "a connection leaves with nothing in flight");
        socket::detached(endpoint.fd.take().expect("kept until closed"))
    }

    fn attach(&mut self, connection: Detached) -> Socket {
        Socket(self.sockets.insert(Endpoint::new(socket::attached(connection))))
    }

    fn disk(&mut self) -> &mut dyn Disk {
        &mut self.disk
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        self.cancel_all();
        let deadline = system::now() + DROP_WAIT;
        let mut unwanted = Vec::new();
        while self.flights.len() > 0 && system::now() < deadline {
            self.ring.submit_and_wait(Some(deadline.since(system::now()).min(BREATH * 10)));
            self.reap(&mut unwanted);
            unwanted.clear();
        }
        self.flights.leak();
    }
}
