//! The bare server's loop, on one ring and one thread.
//!
//! 1. Bytes come into a connection's chunk. Each whole Produce frame is walked at once: the CRC of its batches is checked, and they are
//!    copied back to back into the turn that is filling. The frame's place in the chunk is then free.
//! 2. When no write is under way, the filling turn is padded to whole blocks and written with one synced direct write, and the other
//!    turn fills. So a sync serves all that arrived during the one before, from all connections.
//! 3. When the write is durable, the turn's answers go out, in request order.
//! 4. A turn that is full stops the connections that have more for it until the write under way is done.
//!
//! The file has been written in full before, and is overwritten from the front again and again: no write extends it.
//!
//! Invariants: one write in flight; an answer leaves after the write that holds its batches; parsed <= filled <= the chunk's capacity.
//! Knows nothing of partitions: offsets count the records of all of them together.

use super::answers::{self, Fate};
use super::frames::{self, Head, Part};
use super::reads;
use crate::connection::resolve;
use crate::failure::{Failure, Outcome};
use kafka_protocol::messages::ApiKey;
use millrace_base::batch::check;
use millrace_base::clock::Nanos;
use millrace_base::limits::BLOCK;
use millrace_io::{Completion, Driver, File, IoError, Listener, Memory, Op, OpenHow, Pool, Slice, Socket, Space, Token, UringDriver, Wait};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub listen: String,
    pub file: PathBuf,
    /// Whole blocks, at least [`FILE_BYTES_MIN`].
    pub file_bytes: u64,
    pub synced: bool,
    pub spin: Duration,
    /// Partitions that clients are told of.
    pub partitions: i32,
    /// None: nothing can be read.
    pub reads: Option<reads::Config>,
}

/// What one turn holds, and so the longest frame taken.
const TURN_BYTES: usize = 16 << 20;
pub const FILE_BYTES_MIN: u64 = 4 * TURN_BYTES as u64;
/// A connection's first chunk; a longer frame gets a longer one.
const CHUNK_BYTES: usize = 256 << 10;
const CONNECTIONS_MAX: usize = 4096;
const ZERO_BYTES: usize = 4 << 20;

/// Kafka's CORRUPT_MESSAGE.
const CORRUPT_MESSAGE: i16 = 2;

/// Tokens: the kind above, the connection's slot below.
const KIND_SHIFT: u32 = 32;
const ACCEPT: u64 = 1;
const WRITE: u64 = 2;
const RECEIVE: u64 = 3;
const SEND: u64 = 4;
const CLOSE: u64 = 5;

fn token(kind: u64, slot: usize) -> Token {
    (kind << KIND_SHIFT) | slot as u64
}

struct Connection {
    socket: Socket,
    /// None while the ring receives into it.
    chunk: Option<Space>,
    parsed: usize,
    filled: usize,
    /// Answers that wait for the send under way.
    out: Vec<u8>,
    sending: bool,
    /// Answers that wait for their write.
    owed: u32,
    closing: bool,
    closed: bool,
}

struct Turn {
    space: Space,
    used: usize,
    answers: Vec<u8>,
    /// Whose answers these are, in request order.
    owners: Vec<(usize, Range<usize>)>,
}

impl Turn {
    fn new(pool: &Pool) -> Turn {
        let mut space = pool.take(TURN_BYTES + BLOCK);
        space.unfrozen().fill(0); // fresh memory is slow on its first touch: not in the measured part
        Turn { space, used: 0, answers: Vec::new(), owners: Vec::new() }
    }

    fn clear(&mut self) {
        let alone = self.space.try_thaw();
        assert!(alone, "the write has given its slice back");
        self.used = 0;
        self.answers.clear();
        self.owners.clear();
    }
}

/// Why parsing of a connection's bytes stopped.
enum Stop {
    /// The next frame needs so many bytes in all.
    Bytes(usize),
    /// The write under way has to end first.
    Write,
    /// The bytes are not what is served.
    Bad(&'static str),
}

struct Server {
    driver: UringDriver,
    pool: Pool,
    listener: Listener,
    advertised: SocketAddr,
    partitions: i32,
    connections: Vec<Option<Connection>>,
    stopped: Vec<usize>,
    filling: Turn,
    /// The other turn; `writing` says whether it is under way.
    flying: Turn,
    writing: bool,
    file: File,
    file_bytes: u64,
    place: u64,
    synced: bool,
    next_offset: i64,
    parts: Vec<Part>,
    fates: Vec<Fate>,
}

pub(super) fn refused(doing: impl Into<String>) -> impl FnOnce(IoError) -> Failure {
    let doing = doing.into();
    move |error| Failure::System { doing, error: io::Error::from_raw_os_error(error.0) }
}

/// Serves until the process is ended. Prints one line "ready HOST:PORT", or "ready HOST:PORT, reads HOST:PORT", once it does. What is read
/// stands in the file's path with ".reads" behind it.
pub fn serve(config: &Config) -> Outcome<()> {
    assert!(config.file_bytes >= FILE_BYTES_MIN && config.file_bytes.is_multiple_of(BLOCK as u64));
    let address = resolve(&config.listen)?;
    let mut driver = UringDriver::new(millrace_io::Config::default()).map_err(|error| Failure::wrong("starting the ring", error))?;
    let file = prepare(&mut driver, config)?;
    let mut reads_file = config.file.clone().into_os_string();
    reads_file.push(".reads");
    let reads = config.reads.as_ref().map(|reads| reads::start(reads, reads_file.into())).transpose()?;
    let (listener, bound) = driver.listen(address, false).map_err(refused(format!("listening at {address}")))?;
    let pool = Pool::new(usize::MAX / 2);
    let mut server = Server {
        filling: Turn::new(&pool),
        flying: Turn::new(&pool),
        driver,
        pool,
        listener,
        advertised: bound,
        partitions: config.partitions,
        connections: Vec::new(),
        stopped: Vec::new(),
        writing: false,
        file,
        file_bytes: config.file_bytes,
        place: 0,
        synced: config.synced,
        next_offset: 0,
        parts: Vec::new(),
        fates: Vec::new(),
    };
    server.driver.submit(Op::Accept { listener }, token(ACCEPT, 0));
    println!("ready {bound}{}", reads.map_or(String::new(), |reads| format!(", reads {reads}")));
    server.run(config.spin)
}

/// Writes the whole file with zeros, so that no measured write allocates.
fn prepare(driver: &mut UringDriver, config: &Config) -> Outcome<File> {
    let doing = || refused(format!("writing {}", config.file.display()));
    let disk = driver.disk();
    let file = disk.open(&config.file, OpenHow { write: true, create: true, exclusive: false, direct: true }).map_err(doing())?;
    disk.truncate(file, config.file_bytes).map_err(doing())?;
    let zeros = vec![0; ZERO_BYTES];
    let mut place = 0;
    while place < config.file_bytes {
        let len = (config.file_bytes - place).min(ZERO_BYTES as u64);
        disk.write(file, place, &zeros[..len as usize]).map_err(doing())?;
        place += len;
    }
    disk.sync(file).map_err(doing())?;
    Ok(file)
}

impl Server {
    fn run(&mut self, spin: Duration) -> Outcome<()> {
        let mut completions = Vec::new();
        let mut idle_since = self.driver.now();
        loop {
            let spins = !spin.is_zero() && self.driver.now() - idle_since < spin;
            self.driver.poll(if spins { Wait::No } else { Wait::Until(Nanos::NEVER) }, &mut completions);
            if completions.is_empty() {
                continue;
            }
            for completion in completions.drain(..) {
                self.completed(completion)?;
            }
            self.write_turn();
            if !spin.is_zero() {
                idle_since = self.driver.now();
            }
        }
    }

    fn completed(&mut self, completion: Completion) -> Outcome<()> {
        let slot = completion.token as u32 as usize;
        match completion.token >> KIND_SHIFT {
            ACCEPT => self.accepted(completion),
            WRITE => return self.written(completion),
            RECEIVE => return self.received(slot, completion),
            SEND => self.sent(slot, completion),
            CLOSE => {
                self.connection(slot).closed = true;
                self.release(slot);
            }
            other => unreachable!("no operation has kind {other}"),
        }
        Ok(())
    }

    fn connection(&mut self, slot: usize) -> &mut Connection {
        self.connections[slot].as_mut().expect("a slot stays until its operations are done")
    }

    fn accepted(&mut self, completion: Completion) {
        if let Ok(number) = completion.result {
            let slot = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
            if slot == self.connections.len() {
                self.connections.push(None);
            }
            self.connections[slot] = Some(Connection {
                socket: Socket(number),
                chunk: Some(self.pool.take(CHUNK_BYTES)),
                parsed: 0,
                filled: 0,
                out: Vec::new(),
                sending: false,
                owed: 0,
                closing: false,
                closed: false,
            });
            if slot >= CONNECTIONS_MAX { self.close(slot, "too many connections") } else { self.receive(slot, 4) }
        }
        if !completion.more {
            self.driver.submit(Op::Accept { listener: self.listener }, token(ACCEPT, 0));
        }
    }

    /// Makes room for a frame of `needed` bytes in all, and asks for what is missing of it, or more.
    fn receive(&mut self, slot: usize, needed: usize) {
        let pool = self.pool.clone();
        let connection = self.connection(slot);
        let mut chunk = connection.chunk.take().expect("not receiving");
        let unparsed = connection.parsed..connection.filled;
        if needed > chunk.capacity() {
            let mut longer = pool.take(needed + CHUNK_BYTES);
            longer.unfrozen()[..unparsed.len()].copy_from_slice(&chunk.unfrozen()[unparsed.clone()]);
            chunk = longer;
            (connection.parsed, connection.filled) = (0, unparsed.len());
        } else if unparsed.is_empty() || connection.parsed + needed > chunk.capacity() {
            chunk.unfrozen().copy_within(unparsed.clone(), 0);
            (connection.parsed, connection.filled) = (0, unparsed.len());
        }
        let (socket, at, len) = (connection.socket, connection.filled as u32, (chunk.capacity() - connection.filled) as u32);
        self.driver.submit(Op::Receive { socket, into: chunk, at, len, whole: false }, token(RECEIVE, slot));
    }

    fn received(&mut self, slot: usize, completion: Completion) -> Outcome<()> {
        let Memory::Space(chunk) = completion.memory else { unreachable!("a receive gives its space back") };
        let connection = self.connection(slot);
        connection.chunk = Some(chunk);
        match completion.result {
            Ok(received) if received > 0 && !connection.closing => {
                connection.filled += received as usize;
                self.parse(slot)
            }
            Ok(_) | Err(_) => {
                self.close(slot, "");
                Ok(())
            }
        }
    }

    /// Takes in all whole frames of a connection, then asks for more bytes.
    fn parse(&mut self, slot: usize) -> Outcome<()> {
        let stop = loop {
            if let Some(stop) = self.frame(slot)? {
                break stop;
            }
        };
        self.flush(slot);
        match stop {
            Stop::Bytes(needed) => self.receive(slot, needed),
            Stop::Write => self.stopped.push(slot),
            Stop::Bad(why) => self.close(slot, why),
        }
        Ok(())
    }

    /// Takes in one frame; None: it did.
    fn frame(&mut self, slot: usize) -> Outcome<Option<Stop>> {
        let Server { connections, filling, parts, fates, next_offset, .. } = self;
        let connection = connections[slot].as_mut().expect("a slot stays until its operations are done");
        let bytes = &connection.chunk.as_mut().expect("not receiving").unfrozen()[connection.parsed..connection.filled];
        let Some(size) = bytes.first_chunk::<4>() else { return Ok(Some(Stop::Bytes(4))) };
        let size = match usize::try_from(i32::from_be_bytes(*size)) {
            Ok(size) if (8..=TURN_BYTES).contains(&size) => size,
            Ok(_) | Err(_) => return Ok(Some(Stop::Bad("a frame of impossible length"))),
        };
        let Some(frame) = bytes.get(4..4 + size) else { return Ok(Some(Stop::Bytes(4 + size))) };
        let head = frames::head(frame).expect("a frame has at least eight bytes");
        if head.key == ApiKey::Produce as i16 {
            let Some(acks) = frames::produce(frame, parts) else { return Ok(Some(Stop::Bad("a Produce request that is none"))) };
            let len: usize = parts.iter().map(|part| part.batch.len()).sum();
            if filling.used + len > TURN_BYTES {
                assert!(filling.used > 0, "a turn that is empty has room for any frame");
                return Ok(Some(Stop::Write));
            }
            fates.clear();
            fates.extend(parts.iter().map(|part| append(filling, &frame[part.batch.clone()], next_offset)));
            if acks != 0 {
                let start = filling.answers.len();
                answers::produce(&mut filling.answers, head, frame, parts, fates);
                filling.owners.push((slot, start..filling.answers.len()));
                connection.owed += 1;
            }
        } else if connection.owed > 0 {
            return Ok(Some(Stop::Write));
        } else if let Some(why) = answer(&mut connection.out, head, self.advertised, self.partitions)? {
            return Ok(Some(Stop::Bad(why)));
        }
        connection.parsed += 4 + size;
        Ok(None)
    }

    fn write_turn(&mut self) {
        if self.writing || self.filling.owners.is_empty() && self.filling.used == 0 {
            return;
        }
        std::mem::swap(&mut self.filling, &mut self.flying);
        self.writing = true;
        let turn = &mut self.flying;
        // A turn of refused batches alone writes one block: its answers take the same way.
        let len = turn.used.next_multiple_of(BLOCK).max(BLOCK);
        turn.space.unfrozen()[turn.used..len].fill(0);
        if self.place + len as u64 > self.file_bytes {
            self.place = 0;
        }
        let from = turn.space.freeze(len);
        self.submit_write(from);
    }

    fn submit_write(&mut self, from: Slice) {
        let (file, place, synced) = (self.file, self.place, self.synced);
        self.place += from.len() as u64;
        self.driver.submit(Op::Write { file, place, from, synced }, token(WRITE, 0));
    }

    fn written(&mut self, completion: Completion) -> Outcome<()> {
        let Memory::Slice(from) = completion.memory else { unreachable!("a write gives its slice back") };
        let written = completion.result.map_err(refused("writing a turn"))? as usize;
        let whole = written / BLOCK * BLOCK;
        if whole == 0 {
            return Err(Failure::wrong("writing a turn", "the system wrote no whole block"));
        }
        if whole < from.len() {
            self.place -= (from.len() - whole) as u64;
            self.submit_write(from.sub(whole..from.len()));
            return Ok(());
        }
        drop(from);
        self.writing = false;
        let owners = std::mem::take(&mut self.flying.owners);
        for (slot, range) in &owners {
            let Server { connections, flying, .. } = self;
            let connection = connections[*slot].as_mut().expect("a slot stays while answers are owed");
            connection.owed -= 1;
            connection.out.extend_from_slice(&flying.answers[range.clone()]);
        }
        for (slot, _) in &owners {
            self.flush(*slot);
            self.release(*slot);
        }
        self.flying.owners = owners;
        self.flying.clear();
        // The next write starts before more is parsed: the disk waits for nobody.
        self.write_turn();
        for slot in std::mem::take(&mut self.stopped) {
            if self.connections[slot].as_ref().is_some_and(|connection| !connection.closing) {
                self.parse(slot)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, slot: usize) {
        let Server { connections, pool, driver, .. } = self;
        let Some(connection) = connections[slot].as_mut() else { return };
        if connection.sending || connection.closing || connection.out.is_empty() {
            return;
        }
        let slice = pool.take(connection.out.len()).push(&connection.out);
        connection.out.clear();
        connection.sending = true;
        driver.submit(Op::Send { socket: connection.socket, from: vec![slice] }, token(SEND, slot));
    }

    fn sent(&mut self, slot: usize, completion: Completion) {
        let Memory::Slices(slices) = completion.memory else { unreachable!("a send gives its slices back") };
        let connection = self.connection(slot);
        match completion.result {
            Ok(sent) if (sent as usize) < slices[0].len() && !connection.closing => {
                let (socket, from) = (connection.socket, vec![slices[0].sub(sent as usize..slices[0].len())]);
                self.driver.submit(Op::Send { socket, from }, token(SEND, slot));
            }
            Ok(_) => {
                connection.sending = false;
                self.flush(slot);
            }
            Err(_) => {
                connection.sending = false;
                self.close(slot, "");
            }
        }
    }

    /// Closes, once; says why where the client is at fault.
    fn close(&mut self, slot: usize, why: &str) {
        if !why.is_empty() {
            eprintln!("closing a connection: {why}");
        }
        self.stopped.retain(|stopped| *stopped != slot);
        let connection = self.connection(slot);
        if !connection.closing {
            connection.closing = true;
            let socket = connection.socket;
            self.driver.submit(Op::CloseSocket { socket }, token(CLOSE, slot));
        }
    }

    /// Frees a slot that nothing refers to any more.
    fn release(&mut self, slot: usize) {
        if self.connections[slot].as_ref().is_some_and(|connection| connection.closed && connection.owed == 0) {
            self.connections[slot] = None;
        }
    }
}

/// Checks a batch and copies it into the turn.
fn append(turn: &mut Turn, batch: &[u8], next_offset: &mut i64) -> Fate {
    let Ok(header) = check(batch) else { return Fate { error: CORRUPT_MESSAGE, base_offset: -1 } };
    turn.space.unfrozen()[turn.used..turn.used + batch.len()].copy_from_slice(batch);
    turn.used += batch.len();
    let base_offset = *next_offset;
    *next_offset += i64::from(header.count);
    Fate { error: 0, base_offset }
}

/// Answers what is not Produce; gives the reason when it is not served.
fn answer(out: &mut Vec<u8>, head: Head, advertised: SocketAddr, partitions: i32) -> Outcome<Option<&'static str>> {
    if head.key == ApiKey::ApiVersions as i16 {
        answers::api_versions(out, head, answers::RING)?;
    } else if head.key == ApiKey::Metadata as i16 && (0..=answers::METADATA_MAX).contains(&head.version) {
        answers::metadata(out, head, advertised, partitions)?;
    } else {
        return Ok(Some("a request that the bare server does not serve"));
    }
    Ok(None)
}
