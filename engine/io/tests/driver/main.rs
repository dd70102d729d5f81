//! What every driver promises, checked through the trait against each of them.
//!
//! A [`Rig`] makes drivers of one kind and clients that reach them; a promise is a function over a rig; `promises!` makes one test of
//! each promise for each rig. Loops are bounded, so that a broken promise fails instead of hanging.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod files;
mod jobs;
mod real;
mod simulated;
mod sockets;

use millrace_base::clock::Nanos;
use millrace_io::{Completion, Driver, File, IoError, Memory, Op, OpenHow, Pool, Slice, Space, Token, Wait};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Passes that anything awaited may take.
const PASSES: usize = 20_000;

/// One end of a connection outside of all drivers. Nothing here waits.
trait Client {
    /// Bytes taken; 0 when there is no room now.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, IoError>;
    /// None: nothing now. Empty: the peer has finished.
    fn receive(&mut self) -> Result<Option<Vec<u8>>, IoError>;
    /// Sends no more.
    fn finish(&mut self);
    /// Ends both ways, telling the peer that something was lost.
    fn reset(self: Box<Self>);
}

trait Rig {
    fn new(name: &str) -> Self
    where
        Self: Sized;
    /// A driver of the rig's one storage and network.
    fn driver(&mut self) -> Box<dyn Driver>;
    /// Lets time pass, where that is not done by itself.
    fn pass(&mut self);
    /// An empty directory.
    fn root(&self) -> PathBuf;
    fn connect(&mut self, address: SocketAddr) -> Box<dyn Client>;
}

/// A rig with one driver, and what tests do with it.
struct Bench<R: Rig> {
    rig: R,
    driver: Box<dyn Driver>,
    root: PathBuf,
    pool: Pool,
    token: Token,
    done: Vec<Completion>,
}

impl<R: Rig> Bench<R> {
    fn new(name: &str) -> Bench<R> {
        let mut rig = R::new(name);
        let driver = rig.driver();
        let root = rig.root();
        Bench { rig, driver, root, pool: Pool::new(64 << 20), token: 0, done: Vec::new() }
    }

    fn submit(&mut self, op: Op) -> Token {
        self.token += 1;
        self.driver.submit(op, self.token);
        self.token
    }

    fn pass(&mut self) {
        let deadline = Nanos(self.driver.now().0 + 1_000_000);
        self.driver.poll(Wait::Until(deadline), &mut self.done);
        self.rig.pass();
    }

    /// The next completion of `token`.
    fn await_token(&mut self, token: Token) -> Completion {
        for _ in 0..PASSES {
            if let Some(at) = self.done.iter().position(|c| c.token == token) {
                return self.done.remove(at);
            }
            self.pass();
        }
        panic!("operation {token} never completed");
    }

    fn run(&mut self, op: Op) -> (Result<u32, IoError>, Memory) {
        let token = self.submit(op);
        let completion = self.await_token(token);
        assert!(!completion.more);
        (completion.result, completion.memory)
    }

    /// Runs an operation without memory.
    fn ask(&mut self, op: Op) -> Result<u32, IoError> {
        let (result, memory) = self.run(op);
        assert!(matches!(memory, Memory::None));
        result
    }

    fn open(&mut self, name: &str, how: OpenHow) -> Result<File, IoError> {
        let path = self.root.join(name);
        self.ask(Op::Open { path, how }).map(File)
    }

    /// Writes all of `bytes`, however short the counts.
    fn write(&mut self, file: File, place: u64, bytes: &[u8], synced: bool) {
        let mut space = self.pool.take(bytes.len());
        let mut left = space.push(bytes);
        let mut place = place;
        while !left.is_empty() {
            let (result, memory) = self.run(Op::Write { file, place, from: left, synced });
            let Memory::Slice(back) = memory else { panic!("a write gives its slice back") };
            let count = result.expect("a sound disk") as usize;
            assert!(count > 0 && count <= back.len());
            left = back.sub(count..back.len());
            place += count as u64;
        }
    }

    /// Reads until `len` bytes are there or the file ends. Counts that end within a block are read again from the block's start.
    fn read(&mut self, file: File, place: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut space = self.pool.take(len);
        for _ in 0..PASSES {
            let done = bytes.len() / 4096 * 4096;
            bytes.truncate(done);
            let op = Op::Read { file, place: place + done as u64, into: space, at: 0, len: (len - done) as u32 };
            let (result, memory) = self.run(op);
            let Memory::Space(mut back) = memory else { panic!("a read gives its space back") };
            let count = result.expect("a sound disk") as usize;
            bytes.extend_from_slice(&back.unfrozen()[..count]);
            space = back;
            let ended = count < 4096 && count == self.last_count(file, place + done as u64, len - done);
            if bytes.len() == len || count == 0 || ended {
                return bytes;
            }
        }
        panic!("reading makes no progress");
    }

    /// Bytes that a read there can give at most.
    fn last_count(&mut self, file: File, place: u64, len: usize) -> usize {
        let size = self.driver.disk().len(file).expect("an open file has a length");
        (size.saturating_sub(place) as usize).min(len)
    }

    fn slice(&self, bytes: &[u8]) -> Slice {
        self.pool.take(bytes.len()).push(bytes)
    }

    fn space(&self, len: usize) -> Space {
        self.pool.take(len)
    }
}

const WRITE: OpenHow = OpenHow { write: true, create: true, exclusive: false, direct: false };
const DIRECT: OpenHow = OpenHow { direct: true, ..WRITE };

/// Bytes in which every block differs.
fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 512) as u8 ^ (i as u8).wrapping_mul(31) ^ salt).collect()
}

macro_rules! promises {
    ($module:ident, $rig:ty) => {
        mod $module {
            use super::*;

            macro_rules! promise {
                ($from:ident: $name:ident) => {
                    #[test]
                    fn $name() {
                        $from::$name(Bench::<$rig>::new(stringify!($name)));
                    }
                };
            }

            promise!(files: what_was_written_is_read);
            promise!(files: names_come_and_go);
            promise!(files: a_wrong_name_is_told);
            promise!(files: a_file_is_cut_and_grows);
            promise!(files: many_operations_complete_once_each);
            promise!(files: blocking_and_ring_see_the_same_bytes);
            promise!(files: an_unknown_file_gives_the_memory_back);
            promise!(jobs: each_job_runs_once_and_gives_its_product);
            promise!(sockets: an_echo_serves_several_clients);
            promise!(sockets: a_client_that_finishes_is_seen_and_still_answered);
            promise!(sockets: a_whole_receive_waits_for_all);
            promise!(sockets: an_idle_connection_becomes_readable);
            promise!(sockets: closing_completes_what_is_in_flight);
            promise!(sockets: a_reset_is_told);
            promise!(sockets: a_connection_moves_between_drivers);
            promise!(sockets: an_address_in_use_is_refused);
            promise!(sockets: a_closed_listener_ends_its_accept);
            promise!(sockets: an_unknown_socket_gives_the_memory_back);
            promise!(sockets: a_deadline_is_met_and_not_early);
            promise!(sockets: a_ring_before_the_sleep_is_not_lost);
        }
    };
}

promises!(uring, real::Uring);
promises!(portable, real::Portable);
promises!(calm, simulated::Calm);
promises!(odd, simulated::Odd);
