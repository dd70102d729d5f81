//! The driver without io_uring: epoll for sockets, a few threads for files. For hosts that refuse the ring.
//!
//! 1. [`Driver::submit`] tries what is asked of a socket at once ([`sockets`]), and gives what is asked of files to a thread ([`threads`]).
//! 2. [`Driver::poll`] takes what threads have done, and looks which sockets have news ([`watch`]).
//! 3. A shard that waits is woken by a socket, a thread, its deadline, or its doorbell.
//! 4. Jobs run on a thread of the driver's own ([`crate::job`]).
//!
//! What is durable is so by the same calls as with the ring: a synced write is a write, then an fdatasync. It costs more time, since each
//! operation on a file goes to another thread and back, and each on a socket is a system call.
//!
//! Invariants: no call on the shard's thread waits but [`Driver::poll`]'s; memory of an operation is owned by it, on whatever thread.
//! Knows nothing of what the bytes mean.

#![deny(unsafe_code)]

mod files;
mod sockets;
mod threads;
mod watch;

use crate::blocking::{BlockingDisk, assert_blocks};
use crate::doorbell::Bell;
use crate::driver::{
    Completion, Detached, Disk, Doorbell, Driver, File, IoError, Listener, Memory, Op, SEND_SLICES_MAX, Socket, Token, Wait,
};
use crate::job::{Job, Worker};
use crate::memory::{Slice, Space};
use crate::table::Table;
use crate::{socket, system};
use files::{Deed, Done, Task};
use millrace_base::clock::{Nanos, WallMs};
use sockets::{ACCEPTS_MAX, Accepted, Connection, Listening, Receive};
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use threads::Threads;
use watch::{News, Watch};

/// Whose news the doorbell's are.
const BELL: u64 = u64::MAX;

/// A busy shard whose [`threads`] are not prompt steps aside for a moment when a synced write takes longer than this, and then as often.
const SYNC_PATIENCE: Duration = Duration::from_micros(250);

/// A socket or a listener, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Socket(u32),
    Listener(u32),
}

impl End {
    fn whose(self) -> u64 {
        match self {
            End::Socket(number) => u64::from(number) << 1,
            End::Listener(number) => u64::from(number) << 1 | 1,
        }
    }

    fn of(whose: u64) -> End {
        let number = (whose >> 1) as u32;
        if whose & 1 == 0 { End::Socket(number) } else { End::Listener(number) }
    }
}

/// One shard's epoll and threads.
pub struct PortableDriver {
    watch: Watch,
    threads: Threads,
    disk: BlockingDisk,
    sockets: Table<Connection>,
    listeners: Table<Listening>,
    /// What the next poll gives.
    ready: Vec<Completion>,
    /// Ends whose close is among `ready`: their numbers are free when it has been given.
    leaving: Vec<End>,
    /// Listeners on which more may wait than was accepted.
    unfinished: Vec<u32>,
    news: Vec<News>,
    /// Synced writes under way, and since when there are some, or since the shard last stepped aside for them.
    unsettled: u32,
    unsettled_since: Nanos,
    bell: Arc<Bell>,
    /// Made for the first job.
    worker: Option<Worker>,
}

impl PortableDriver {
    /// # Errors
    /// No descriptors are left, or no memory.
    pub fn new() -> Result<PortableDriver, IoError> {
        let (watch, bell) = (Watch::new()?, Arc::new(Bell::new()?));
        watch.add(bell.event(), BELL)?;
        let ringer = Arc::clone(&bell);
        Ok(PortableDriver {
            watch,
            threads: Threads::new(move || ringer.ring()),
            disk: BlockingDisk::new(),
            sockets: Table::new(),
            listeners: Table::new(),
            ready: Vec::new(),
            leaving: Vec::new(),
            unfinished: Vec::new(),
            news: Vec::new(),
            unsettled: 0,
            unsettled_since: Nanos(0),
            bell,
            worker: None,
        })
    }

    fn at_once(&mut self, token: Token, result: Result<u32, IoError>, memory: Memory) {
        self.ready.push(Completion { token, result, memory, more: false });
    }

    fn refuse(&mut self, token: Token, memory: Memory) {
        self.at_once(token, Err(IoError::BAD_FILE), memory);
    }

    fn start_on_file(&mut self, file: File, token: Token, deed: impl FnOnce(Arc<fs::File>) -> Deed) {
        match self.disk.files.get(file.0) {
            Some(open) => self.threads.submit(Task { token, deed: deed(Arc::clone(&open.fd)) }),
            None => self.refuse(token, Memory::None),
        }
    }

    fn start_close(&mut self, file: File, token: Token) {
        match self.disk.files.take(file.0) {
            Some(file) => self.threads.submit(Task { token, deed: Deed::Close { file } }),
            None => self.refuse(token, Memory::None),
        }
    }

    fn start_read(&mut self, file: File, place: u64, mut into: Space, range: Range<u32>, token: Token) {
        let Some(open) = self.disk.files.get(file.0) else { return self.refuse(token, Memory::Space(into)) };
        let target = into.target(range.clone());
        if open.direct {
            assert_blocks(place, target);
        }
        let file = Arc::clone(&open.fd);
        self.threads.submit(Task { token, deed: Deed::Read { file, place, into, range } });
    }

    fn start_write(&mut self, file: File, place: u64, from: Slice, synced: bool, token: Token) {
        let Some(open) = self.disk.files.get(file.0) else { return self.refuse(token, Memory::Slice(from)) };
        if open.direct {
            assert_blocks(place, &from);
        }
        let file = Arc::clone(&open.fd);
        if synced && self.unsettled == 0 {
            self.unsettled_since = system::now();
        }
        self.unsettled += u32::from(synced);
        self.threads.submit(Task { token, deed: Deed::Write { file, place, from, synced } });
    }

    fn start_receive(&mut self, socket: Socket, receive: Receive) {
        match self.sockets.get_mut(socket.0).filter(|connection| !connection.closing) {
            Some(connection) => connection.receive(receive, &mut self.ready),
            None => self.refuse(receive.token, Memory::Space(receive.into)),
        }
    }

    fn start_readable(&mut self, socket: Socket, token: Token) {
        match self.sockets.get_mut(socket.0).filter(|connection| !connection.closing) {
            Some(connection) => connection.watch(token, &mut self.ready),
            None => self.refuse(token, Memory::None),
        }
    }

    fn start_send(&mut self, socket: Socket, from: Vec<Slice>, token: Token) {
        assert!(!from.is_empty() && from.len() <= SEND_SLICES_MAX, "a send carries 1 to {SEND_SLICES_MAX} slices, not {}", from.len());
        match self.sockets.get_mut(socket.0).filter(|connection| !connection.closing) {
            Some(connection) => connection.send(token, from, &mut self.ready),
            None => self.refuse(token, Memory::Slices(from)),
        }
    }

    fn start_accept(&mut self, listener: Listener, token: Token) {
        match self.listeners.get_mut(listener.0).filter(|listening| !listening.closing) {
            Some(listening) => {
                listening.accepts.push_back(token);
                self.accept(listener.0);
            }
            None => self.refuse(token, Memory::None),
        }
    }

    /// Takes connections that wait, a bounded number of them.
    fn accept(&mut self, number: u32) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listening) = self.listeners.get_mut(number) else { return };
            match listening.accept() {
                Accepted::Connection(token, fd) => {
                    let Socket(socket) = self.attach(socket::detached(fd));
                    self.ready.push(Completion { token, result: Ok(socket), memory: Memory::None, more: true });
                }
                Accepted::Lost => {}
                Accepted::Failed(token, error) => return self.at_once(token, Err(error), Memory::None),
                Accepted::Nothing => return,
            }
        }
        self.unfinished.push(number);
    }

    fn start_close_socket(&mut self, socket: Socket, token: Token) {
        let Some(connection) = self.sockets.get_mut(socket.0).filter(|connection| !connection.closing) else {
            return self.refuse(token, Memory::None);
        };
        connection.closing = true;
        connection.cancel(&mut self.ready);
        if let Some(fd) = connection.fd.take() {
            self.watch.remove(fd);
        }
        self.leaving.push(End::Socket(socket.0));
        self.at_once(token, Ok(0), Memory::None);
    }

    fn start_close_listener(&mut self, listener: Listener, token: Token) {
        let Some(listening) = self.listeners.get_mut(listener.0).filter(|listening| !listening.closing) else {
            return self.refuse(token, Memory::None);
        };
        listening.closing = true;
        listening.cancel(&mut self.ready);
        if let Some(fd) = listening.fd.take() {
            self.watch.remove(fd);
        }
        self.leaving.push(End::Listener(listener.0));
        self.at_once(token, Ok(0), Memory::None);
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

    /// What threads have done becomes ready. Whether a synced write is among it.
    fn collect(&mut self) -> bool {
        let unsettled = self.unsettled;
        for Done { token, result, memory, opened, synced } in self.threads.take() {
            self.unsettled -= u32::from(synced);
            let result = match opened {
                Some(file) => result.map(|_| self.disk.files.insert(file)),
                None => result,
            };
            self.at_once(token, result, memory);
        }
        self.unsettled < unsettled
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        self.collect();
        completions.append(&mut self.ready);
        for end in self.leaving.drain(..) {
            match end {
                End::Socket(number) => drop(self.sockets.take(number)),
                End::Listener(number) => drop(self.listeners.take(number)),
            }
        }
        while let Some(token) = self.worker.as_ref().and_then(Worker::take) {
            completions.push(Completion { token, result: Ok(0), memory: Memory::None, more: false });
        }
    }

    /// Looks which sockets have news, and goes on with them.
    fn look(&mut self, timeout: Option<Duration>) {
        for listener in std::mem::take(&mut self.unfinished) {
            self.accept(listener);
        }
        let mut news = std::mem::take(&mut self.news);
        self.watch.look(timeout, &mut news);
        for heard in news.drain(..).filter(|heard| heard.whose != BELL) {
            match End::of(heard.whose) {
                End::Socket(number) => {
                    if let Some(connection) = self.sockets.get_mut(number) {
                        connection.hear(heard, &mut self.ready);
                    }
                }
                End::Listener(number) => {
                    if let Some(listening) = self.listeners.get_mut(number) {
                        listening.may_accept = true;
                        self.accept(number);
                    }
                }
            }
        }
        self.news = news;
    }

    /// Gives the core to a thread that waits for it.
    fn step_aside(&mut self) {
        if self.unsettled == 0 || self.threads.are_prompt() {
            return;
        }
        let now = system::now();
        if now.since(self.unsettled_since) > SYNC_PATIENCE {
            std::thread::sleep(Duration::from_nanos(1));
            self.unsettled_since = now;
        }
    }

    /// Waits once, at most until `deadline`. True: the doorbell was rung, by whoever or by a thread that is done.
    fn sleep(&mut self, deadline: Nanos) -> bool {
        if !self.unfinished.is_empty() {
            self.look(Some(Duration::ZERO));
            return false;
        }
        if !self.bell.fall_asleep() {
            return true;
        }
        let timeout = (deadline != Nanos::NEVER).then(|| deadline.since(system::now()));
        self.look(timeout);
        self.bell.wake()
    }
}

impl Driver for PortableDriver {
    fn submit(&mut self, op: Op, token: Token) {
        let deed = match op {
            Op::Open { path, how } => Deed::Open { path, how },
            Op::SyncDirectory { path } => Deed::SyncDirectory { path },
            Op::Rename { from, to } => Deed::Rename { from, to },
            Op::Unlink { path } => Deed::Unlink { path },
            Op::MakeDirectory { path } => Deed::MakeDirectory { path },
            Op::RemoveDirectory { path } => Deed::RemoveDirectory { path },
            Op::Close { file } => return self.start_close(file, token),
            Op::Read { file, place, into, at, len } => return self.start_read(file, place, into, at..at + len, token),
            Op::Write { file, place, from, synced } => return self.start_write(file, place, from, synced, token),
            Op::Sync { file } => return self.start_on_file(file, token, |file| Deed::Sync { file }),
            Op::Truncate { file, len } => return self.start_on_file(file, token, |file| Deed::Truncate { file, len }),
            Op::Allocate { file, len } => return self.start_on_file(file, token, |file| Deed::Allocate { file, len }),
            Op::Accept { listener } => return self.start_accept(listener, token),
            Op::Receive { socket, into, at, len, whole } => {
                return self.start_receive(socket, Receive { token, into, range: at..at + len, whole, count: 0 });
            }
            Op::Readable { socket } => return self.start_readable(socket, token),
            Op::Send { socket, from } => return self.start_send(socket, from, token),
            Op::CloseSocket { socket } => return self.start_close_socket(socket, token),
            Op::CloseListener { listener } => return self.start_close_listener(listener, token),
            Op::Run { job } => return self.run(job, token),
        };
        self.threads.submit(Task { token, deed });
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.reap(completions);
        let Wait::Until(deadline) = wait else {
            self.step_aside();
            self.look(Some(Duration::ZERO));
            return self.reap(completions);
        };
        let (mut rung, mut looked) = (false, false);
        while completions.len() == before && !rung && system::now() < deadline {
            rung = self.sleep(deadline);
            looked = true;
            self.reap(completions);
        }
        if !looked {
            self.look(Some(Duration::ZERO));
            self.reap(completions);
        }
    }

    fn settle(&mut self) -> bool {
        self.unsettled > 0 && self.collect()
    }

    fn run_aside(&mut self, job: Job, token: Token) {
        self.run(job, token);
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
        rustix::io::ioctl_fionbio(&fd, true)?;
        let number = self.listeners.insert(Listening::new(fd));
        let listening = self.listeners.get_mut(number).expect("just inserted");
        let fd = listening.fd.as_ref().expect("just made");
        if let Err(error) = self.watch.add(fd, End::Listener(number).whose()) {
            self.listeners.take(number);
            return Err(error);
        }
        Ok((Listener(number), bound))
    }

    fn peer(&self, socket: Socket) -> Option<SocketAddr> {
        socket::peer(self.sockets.get(socket.0)?.fd.as_ref()?.as_fd())
    }

    fn detach(&mut self, socket: Socket) -> Detached {
        let mut connection = self.sockets.take(socket.0).expect("only an open connection is detached");
        assert!(connection.is_at_rest(), "a connection leaves with nothing in flight");
        let fd = connection.fd.take().expect("kept until closed");
        self.watch.remove(&fd);
        socket::detached(fd)
    }

    fn attach(&mut self, connection: Detached) -> Socket {
        let number = self.sockets.insert(Connection::new(socket::attached(connection)));
        let connection = self.sockets.get_mut(number).expect("just inserted");
        if let Some(fd) = &connection.fd
            && let Err(error) = self.watch.add(fd, End::Socket(number).whose())
        {
            log::warn!("a connection cannot be watched and is ended: {error}");
            socket::shutdown(fd.as_fd());
            connection.be_ended();
        }
        Socket(number)
    }

    fn disk(&mut self) -> &mut dyn Disk {
        &mut self.disk
    }
}
