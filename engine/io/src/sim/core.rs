//! The state of a world, and what happens at each event.
//!
//! An operation on files, or a job, is one event at its end; operations on sockets wait in their socket until its state lets them go on.
//!
//! Invariants: a flight is in exactly one shard; an event of a flight that is gone (its node died) does nothing.

use super::disk::Storage;
use super::network::{Arrival, End, Network};
use super::trace::{Happening, Trace};
use super::{Loss, Rates};
use crate::driver::{Completion, File, IoError, Memory, Op, Token};
use crate::table::Table;
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::limits::BLOCK;
use millrace_base::prng::Prng;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Node {
    pub(super) storage: Storage,
    pub(super) locks: BTreeMap<PathBuf, u32>,
    /// Added to virtual time to give the clock that people set.
    pub(super) wall: WallMs,
}

/// The settable clock's start: any date will do.
const WALL_START: WallMs = 1_767_225_600_000;

pub(super) struct OpenFile {
    pub(super) file: u64,
    pub(super) write: bool,
    pub(super) direct: bool,
}

pub(super) struct Connected {
    pub(super) end: End,
    /// Flights on it, in the order of submission.
    pub(super) flights: Vec<u64>,
}

pub(super) struct Bound {
    pub(super) address: SocketAddr,
    /// Connections that no one has accepted yet.
    pub(super) backlog: VecDeque<u64>,
    pub(super) accept: Option<Token>,
}

pub(super) struct Flight {
    pub(super) token: Token,
    pub(super) op: Op,
    /// For a sync: the last step of the disk that it covers. For a whole receive: bytes that are in.
    pub(super) mark: u64,
    /// When it was submitted.
    began: u64,
}

pub(super) struct Shard {
    pub(super) node: u32,
    pub(super) alive: bool,
    pub(super) queue: Vec<(Op, Token)>,
    pub(super) completions: Vec<Completion>,
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) files: Table<OpenFile>,
    pub(super) sockets: Table<Connected>,
    pub(super) listeners: Table<Bound>,
    /// When it is to run again without a cause. None: it was told never.
    pub(super) wake: Option<u64>,
    /// Until when it is busy with its last turn.
    pub(super) busy: u64,
    pub(super) bell: Arc<AtomicBool>,
}

impl Shard {
    /// When it runs next, as things are. None: not before something happens.
    pub(super) fn next_run(&self) -> Option<u64> {
        let has_cause = !self.completions.is_empty() || !self.queue.is_empty() || self.bell.load(Ordering::SeqCst);
        let wake = if has_cause { Some(self.busy) } else { self.wake };
        wake.filter(|_| self.alive).map(|wake| wake.max(self.busy))
    }
}

pub(super) enum Event {
    Finish { shard: u32, flight: u64 },
    Arrive { end: End, arrival: Arrival },
    Connect { connection: u64, to: SocketAddr },
}

pub(super) struct Core {
    pub(super) now: u64,
    pub(super) prng: Prng,
    pub(super) rates: Rates,
    events: BTreeMap<(u64, u64), Event>,
    /// Numbers events and flights.
    last: u64,
    pub(super) nodes: BTreeMap<u32, Node>,
    pub(super) shards: BTreeMap<u32, Shard>,
    last_shard: u32,
    pub(super) network: Network,
    /// Which shard's socket an end is.
    pub(super) owners: BTreeMap<End, (u32, u32)>,
    pub(super) trace: Trace,
    /// How often something changed for an end that is no shard's.
    pub(super) outside: u64,
}

impl Core {
    pub(super) fn new(seed: u64, rates: Rates) -> Core {
        Core {
            now: 1_000_000_000,
            prng: Prng::new(seed),
            rates,
            events: BTreeMap::new(),
            last: 0,
            nodes: BTreeMap::new(),
            shards: BTreeMap::new(),
            last_shard: 0,
            network: Network::default(),
            owners: BTreeMap::new(),
            trace: Trace::new(),
            outside: 0,
        }
    }

    pub(super) fn node(&mut self, node: u32) -> &mut Node {
        let prng = &mut self.prng;
        self.nodes.entry(node).or_insert_with(|| Node { storage: Storage::new(prng.fork()), locks: BTreeMap::new(), wall: WALL_START })
    }

    pub(super) fn add_shard(&mut self, node: u32) -> u32 {
        self.node(node);
        self.last_shard += 1;
        let shard = Shard {
            node,
            alive: true,
            queue: Vec::new(),
            completions: Vec::new(),
            flights: BTreeMap::new(),
            files: Table::new(),
            sockets: Table::new(),
            listeners: Table::new(),
            wake: Some(self.now),
            busy: 0,
            bell: Arc::new(AtomicBool::new(false)),
        };
        self.shards.insert(self.last_shard, shard);
        self.last_shard
    }

    pub(super) fn shard(&mut self, shard: u32) -> &mut Shard {
        self.shards.get_mut(&shard).expect("a shard stays as long as its driver")
    }

    pub(super) fn storage_of(&mut self, shard: u32) -> &mut Storage {
        let (node, now) = (self.shard(shard).node, self.now);
        let storage = &mut self.node(node).storage;
        storage.now = now;
        storage
    }

    pub(super) fn odd(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.prng.one_in(one_in)
    }

    /// A seeded time between `low` and `high`, or much longer.
    pub(super) fn delay(&mut self, low: u64, high: u64) -> u64 {
        let delay = low + self.prng.below(high - low);
        if self.odd(self.rates.slow_one_in) { delay * 50 } else { delay }
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.last += 1;
        self.events.insert((time, self.last), event);
    }

    /// Fewer than `count` sometimes, never none; whole units of `unit`.
    pub(super) fn perhaps_short(&mut self, count: usize, unit: usize) -> usize {
        if count > unit && self.odd(self.rates.short_one_in) {
            let units = count.div_ceil(unit) as u64 - 1;
            (1 + self.prng.below(units) as usize) * unit
        } else {
            count
        }
    }

    pub(super) fn next_event(&self) -> Option<u64> {
        self.events.keys().next().map(|(time, _)| *time)
    }

    /// Moves time to the next event and lets it happen.
    pub(super) fn happen(&mut self) {
        let Some(((time, _), event)) = self.events.pop_first() else { return };
        self.now = self.now.max(time);
        match event {
            Event::Finish { shard, flight } => self.finish(shard, flight),
            Event::Arrive { end, arrival } => self.arrive(end, arrival),
            Event::Connect { connection, to } => self.connected(connection, to),
        }
    }

    pub(super) fn note(&mut self, node: u32, what: &'static str, place: u64, len: u64, result: i64) {
        self.trace.note(Happening { time: Nanos(self.now), node, what, place, len, result });
    }

    pub(super) fn complete(&mut self, shard: u32, what: &'static str, completion: Completion) {
        let result = completion.result.map_or_else(|error| -i64::from(error.0), i64::from);
        let len = match &completion.memory {
            Memory::None => 0,
            Memory::Space(space) => space.capacity() as u64,
            Memory::Slice(slice) => slice.len() as u64,
            Memory::Slices(slices) => slices.len() as u64,
        };
        let node = self.shard(shard).node;
        self.note(node, what, completion.token, len, result);
        self.shard(shard).completions.push(completion);
    }

    pub(super) fn fly(&mut self, shard: u32, op: Op, token: Token, mark: u64) -> u64 {
        self.last += 1;
        let (flight, began) = (self.last, self.now);
        self.shard(shard).flights.insert(flight, Flight { token, op, mark, began });
        flight
    }

    /// Starts an operation that its shard has queued.
    pub(super) fn start(&mut self, shard: u32, op: Op, token: Token) {
        let (low, high) = match &op {
            Op::Accept { .. }
            | Op::Receive { .. }
            | Op::Readable { .. }
            | Op::Send { .. }
            | Op::CloseSocket { .. }
            | Op::CloseListener { .. } => {
                return self.start_on_network(shard, op, token);
            }
            Op::Open { .. } | Op::Rename { .. } | Op::Unlink { .. } | Op::MakeDirectory { .. } | Op::RemoveDirectory { .. } => {
                (10_000, 300_000)
            }
            Op::Close { .. } | Op::Truncate { .. } | Op::Allocate { .. } => (5_000, 200_000),
            Op::Read { file, place, into, at, len } => {
                self.check_blocks(shard, *file, *place, *len as usize, into.frozen() + *at as usize);
                assert!(*len > 0 && (*at + *len) as usize <= into.room(), "bytes {at}..{at}+{len} lie in the unfrozen part");
                (20_000, 200_000)
            }
            Op::Write { file, place, from, synced } => {
                self.check_blocks(shard, *file, *place, from.len(), from.as_ptr().addr());
                if *synced { (60_000, 1_000_000) } else { (20_000, 300_000) }
            }
            Op::Sync { .. } | Op::SyncDirectory { .. } => (50_000, 2_000_000),
            Op::Run { .. } => (50_000, 5_000_000),
        };
        let time = self.now + self.delay(low, high);
        let mark = self.storage_of(shard).last_step();
        let flight = self.fly(shard, op, token, mark);
        self.at(time, Event::Finish { shard, flight });
    }

    fn check_blocks(&mut self, shard: u32, file: File, place: u64, len: usize, memory: usize) {
        if self.shard(shard).files.get(file.0).is_some_and(|open| open.direct) {
            let whole = place.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK) && memory.is_multiple_of(BLOCK);
            assert!(whole, "direct: {len} bytes at {place} are not whole blocks");
        }
    }

    /// An operation on files has come to its end: its effect, then its completion.
    fn finish(&mut self, shard: u32, flight: u64) {
        let Some(Flight { token, op, mark, began }) = self.shards.get_mut(&shard).and_then(|shard| shard.flights.remove(&flight)) else {
            return;
        };
        let what = kind(&op);
        self.storage_of(shard).began = Some(began);
        let (result, memory) = self.effect(shard, op, mark);
        self.storage_of(shard).began = None;
        self.complete(shard, what, Completion { token, result, memory, more: false });
    }

    /// The file behind a number of this shard.
    fn opened(&mut self, shard: u32, file: File) -> Result<(u64, bool, bool), IoError> {
        self.shard(shard).files.get(file.0).map(|open| (open.file, open.write, open.direct)).ok_or(IoError::BAD_FILE)
    }

    fn effect(&mut self, shard: u32, op: Op, mark: u64) -> (Result<u32, IoError>, Memory) {
        let done = |result: Result<(), IoError>| (result.map(|()| 0), Memory::None);
        match op {
            Op::Open { path, how } => {
                let opened = self.storage_of(shard).open(&path, how);
                let open = |file| OpenFile { file, write: how.write, direct: how.direct };
                (opened.map(|file| self.shard(shard).files.insert(open(file))), Memory::None)
            }
            Op::Close { file } => match self.shard(shard).files.take(file.0) {
                Some(open) => {
                    self.storage_of(shard).close(open.file);
                    done(Ok(()))
                }
                None => done(Err(IoError::BAD_FILE)),
            },
            Op::Read { file, place, mut into, at, len } => {
                let opened = self.opened(shard, file);
                let result = opened.and_then(|(file, _, direct)| {
                    let len = self.perhaps_short(len as usize, if direct { BLOCK } else { 1 });
                    let target = &mut into.unfrozen()[at as usize..at as usize + len];
                    self.storage_of(shard).read(file, place, target)
                });
                (result.map(|count| count as u32), Memory::Space(into))
            }
            Op::Write { file, place, from, synced } => {
                let opened = self.opened(shard, file);
                let result = opened.and_then(|(file, write, direct)| {
                    let count = self.perhaps_short(from.len(), if direct { BLOCK } else { 1 });
                    let storage = self.storage_of(shard);
                    if write { storage.write(file, place, &from[..count], synced).map(|()| count as u32) } else { Err(IoError::BAD_FILE) }
                });
                (result, Memory::Slice(from))
            }
            Op::Sync { file } => {
                let opened = self.opened(shard, file);
                done(opened.and_then(|(file, ..)| self.storage_of(shard).sync(file, mark)))
            }
            Op::Truncate { file, len } => {
                let opened = self.opened(shard, file);
                done(opened.and_then(
                    |(file, write, _)| {
                        if write { self.storage_of(shard).truncate(file, len) } else { Err(IoError(libc::EINVAL)) }
                    },
                ))
            }
            Op::Allocate { file, len } => {
                let opened = self.opened(shard, file);
                done(opened.and_then(
                    |(file, write, _)| {
                        if write { self.storage_of(shard).allocate(file, len) } else { Err(IoError(libc::EINVAL)) }
                    },
                ))
            }
            Op::SyncDirectory { path } => done(self.storage_of(shard).sync_directory(&path, mark)),
            Op::Rename { from, to } => done(self.storage_of(shard).rename(&from, &to)),
            Op::Unlink { path } => done(self.storage_of(shard).unlink(&path)),
            Op::MakeDirectory { path } => done(self.storage_of(shard).make_directory(&path)),
            Op::RemoveDirectory { path } => done(self.storage_of(shard).remove_directory(&path)),
            Op::Run { job } => {
                job.run();
                done(Ok(()))
            }
            Op::Accept { .. }
            | Op::Receive { .. }
            | Op::Readable { .. }
            | Op::Send { .. }
            | Op::CloseSocket { .. }
            | Op::CloseListener { .. } => {
                unreachable!("operations on sockets are not events")
            }
        }
    }

    /// The process is gone: what was in flight happens, in part, or not; what it held is let go.
    pub(super) fn kill_shard(&mut self, shard: u32) {
        if !std::mem::replace(&mut self.shard(shard).alive, false) {
            return;
        }
        for Flight { op, mark, .. } in std::mem::take(&mut self.shard(shard).flights).into_values() {
            if on_network(&op) || self.prng.one_in(3) {
                continue;
            }
            match op {
                Op::Write { file, place, from, .. } if self.prng.one_in(3) => {
                    if let Ok((file, true, _)) = self.opened(shard, file) {
                        self.storage_of(shard).write_in_part(file, place, &from);
                    }
                }
                // All of it may have come to the device, and not yet farther than its cache.
                Op::Write { file, place, from, synced } => {
                    if let Ok((file, true, _)) = self.opened(shard, file) {
                        let synced = synced && self.prng.one_in(2);
                        let _ = self.storage_of(shard).write(file, place, &from, synced); // nobody is told
                    }
                }
                op => drop(self.effect(shard, op, mark)),
            }
        }
        let dying = self.shard(shard);
        let node = dying.node;
        dying.queue.clear();
        dying.completions.clear();
        let files: Vec<_> = dying.files.drain().collect();
        let sockets: Vec<_> = dying.sockets.drain().collect();
        let backlogs: Vec<_> = dying.listeners.drain().flat_map(|bound| bound.backlog).collect();
        for open in files {
            self.storage_of(shard).close(open.file);
        }
        for end in sockets.into_iter().map(|connected| connected.end).chain(backlogs.into_iter().map(accepted_end)) {
            self.owners.remove(&end);
            self.close_end(end, true);
        }
        self.network.listeners.retain(|listening| listening.shard != shard);
        self.node(node).locks.retain(|_, holder| *holder != shard);
        self.note(node, "kill", 0, 0, 0);
    }

    pub(super) fn kill(&mut self, node: u32) {
        let shards: Vec<u32> = self.shards.iter().filter(|(_, shard)| shard.node == node).map(|(id, _)| *id).collect();
        for shard in shards {
            self.kill_shard(shard);
        }
    }

    pub(super) fn cut_power(&mut self, node: u32, loss: Loss) {
        self.kill(node);
        self.node(node).storage.cut_power(loss);
        self.note(node, "power", 0, 0, 0);
    }
}

/// The end that accepts, of a connection.
pub(super) fn accepted_end(connection: u64) -> End {
    End { connection, side: 0 }
}

fn on_network(op: &Op) -> bool {
    matches!(
        op,
        Op::Accept { .. } | Op::Receive { .. } | Op::Readable { .. } | Op::Send { .. } | Op::CloseSocket { .. } | Op::CloseListener { .. }
    )
}

pub(super) fn kind(op: &Op) -> &'static str {
    match op {
        Op::Open { .. } => "open",
        Op::Close { .. } => "close",
        Op::Read { .. } => "read",
        Op::Write { .. } => "write",
        Op::Sync { .. } => "sync",
        Op::SyncDirectory { .. } => "sync directory",
        Op::Truncate { .. } => "truncate",
        Op::Allocate { .. } => "allocate",
        Op::Rename { .. } => "rename",
        Op::Unlink { .. } => "unlink",
        Op::MakeDirectory { .. } => "make directory",
        Op::RemoveDirectory { .. } => "remove directory",
        Op::Accept { .. } => "accept",
        Op::Receive { .. } => "receive",
        Op::Readable { .. } => "readable",
        Op::Send { .. } => "send",
        Op::CloseSocket { .. } => "close socket",
        Op::CloseListener { .. } => "close listener",
        Op::Run { .. } => "run",
    }
}
