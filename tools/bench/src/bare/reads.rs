//! Reads from memory, as no broker can beat them: a map of a file, and send.
//!
//! 1. Before the start a file is filled with batches of one size, whose offsets follow each other, and synced.
//! 2. A thread accepts. Each connection has a thread of its own that blocks, and a map of the file while it lasts: without readers the
//!    process holds no page of it.
//! 3. Fetch is answered by one vectored send of a head, a run of the map and a tail. The offset divided by a batch's records gives the
//!    place. Nothing waits for more to come: at the tail the answer is empty.
//!
//! Invariants: a run is whole batches, of max_bytes together or a single one; it is empty only at the tail.
//! Knows nothing of the ring, nor of what is produced there.

use super::answers::{self, FETCH_TAIL};
use super::frames;
use super::server::refused;
use crate::batches::{Content, batch};
use crate::connection::resolve;
use crate::failure::{Failure, Outcome};
use crate::produce::wall_ms;
use crate::topics::End;
use kafka_protocol::messages::ApiKey;
use millrace_base::batch::{Header, patch};
use millrace_base::limits::FRAME_BYTES_MAX;
use millrace_io::Map;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub listen: String,
    /// Bytes of batches, at least 1; the last batch is whole.
    pub bytes: u64,
}

/// As `scripts/bench` fills the topics of brokers, so that the same is read from all.
const BATCH_BYTES: usize = 256 << 10;
const RECORD_BYTES: usize = 1024;

/// No reader's request is longer.
const REQUEST_BYTES_MAX: usize = 64 << 10;
const RUN_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
const CONNECTIONS_MAX: usize = 1024;
/// After the system refused a connection or its thread.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// Kafka's OFFSET_OUT_OF_RANGE and UNKNOWN_TOPIC_OR_PARTITION.
const OUT_OF_RANGE: i16 = 1;
const UNKNOWN_PARTITION: i16 = 3;

/// Fills `file` and serves it until the process ends, on threads of its own. Gives the address.
///
/// # Errors
/// `Usage` for an address that is none; `System` when the file cannot be written or the address not be had.
pub fn start(config: &Config, file: PathBuf) -> Outcome<SocketAddr> {
    let address = resolve(&config.listen)?;
    let written = File::create(&file).and_then(|mut out| fill(&mut out, config.bytes).and_then(|()| out.sync_all()));
    written.map_err(Failure::system(format!("writing {}", file.display())))?;
    let doing = || Failure::system(format!("listening at {address}"));
    let listener = TcpListener::bind(address).map_err(doing())?;
    let bound = listener.local_addr().map_err(doing())?;
    let thread = std::thread::Builder::new().name("reads".to_owned());
    thread.spawn(move || accept(&listener, bound, &Arc::new(file))).map_err(Failure::system("starting a thread"))?;
    Ok(bound)
}

/// Writes so many bytes of batches, the last one whole.
fn fill(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    let mut batch = batch(BATCH_BYTES, RECORD_BYTES, wall_ms(), Content::Noise);
    let records = i64::from(Header::parse(&batch).expect("a batch that was just made has a header").count);
    for number in 0..bytes.div_ceil(BATCH_BYTES as u64) {
        patch(&mut batch, number as i64 * records, 0);
        out.write_all(&batch)?;
    }
    Ok(())
}

/// Each connection's thread holds `file` once more.
fn accept(listener: &TcpListener, bound: SocketAddr, file: &Arc<PathBuf>) {
    loop {
        let begun = listener.accept().and_then(|(stream, _)| {
            if Arc::strong_count(file) > CONNECTIONS_MAX {
                return Err(io::Error::other("too many connections"));
            }
            let file = Arc::clone(file);
            std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
                if let Err(failure) = converse(&stream, &file, bound) {
                    eprintln!("closing a connection: {failure}");
                }
            })
        });
        if let Err(error) = begun {
            eprintln!("closing a connection: {error}");
            std::thread::sleep(ACCEPT_AGAIN);
        }
    }
}

fn bad(why: &'static str) -> Failure {
    Failure::wrong("reads", why)
}

/// Answers one reader until it goes away.
fn converse(stream: &TcpStream, file: &Path, bound: SocketAddr) -> Outcome<()> {
    stream.set_nodelay(true).map_err(Failure::system("setting up a connection"))?;
    let map = Map::open(file).map_err(refused(format!("mapping {}", file.display())))?;
    let log = Log::new(&map)?;
    let (mut reader, mut frame, mut out) = (BufReader::new(stream), Vec::new(), Vec::new());
    while receive(&mut reader, &mut frame)? {
        out.clear();
        let run = answer(&mut out, &frame, &log, bound)?;
        let (run, tail) = run.map_or((&[][..], &[][..]), |run| (run, FETCH_TAIL));
        if send(stream, &mut [IoSlice::new(&out), IoSlice::new(run), IoSlice::new(tail)]).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads the next request behind its size; false: the reader has gone away.
fn receive(reader: &mut impl Read, frame: &mut Vec<u8>) -> Outcome<bool> {
    let mut size = [0; 4];
    if reader.read_exact(&mut size).is_err() {
        return Ok(false);
    }
    let size = usize::try_from(i32::from_be_bytes(size)).ok().filter(|size| (8..=REQUEST_BYTES_MAX).contains(size));
    frame.resize(size.ok_or_else(|| bad("a frame of impossible length"))?, 0);
    Ok(reader.read_exact(frame).is_ok())
}

fn send(mut stream: &TcpStream, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        match stream.write_vectored(pieces) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut pieces, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Appends an answer. Of Fetch it is what stands before the run given, and [`FETCH_TAIL`] belongs behind that.
fn answer<'a>(out: &mut Vec<u8>, frame: &[u8], log: &Log<'a>, bound: SocketAddr) -> Outcome<Option<&'a [u8]>> {
    let head = frames::head(frame).expect("a frame has at least eight bytes");
    let known = |partition: i32| if partition == 0 { 0 } else { UNKNOWN_PARTITION };
    if head.key == ApiKey::Fetch as i16 {
        let (target, offset, max_bytes) =
            frames::fetch(frame).ok_or_else(|| bad("a Fetch request of another version than 12, or not for one partition"))?;
        let (error, run) = match (known(target.partition), log.run(offset, max_bytes)) {
            (0, Some(run)) => (0, run),
            (0, None) => (OUT_OF_RANGE, &[][..]),
            (unknown, _) => (unknown, &[][..]),
        };
        answers::fetch(out, head, frame, &target, error, log.tail(), run.len());
        return Ok(Some(run));
    }
    if head.key == ApiKey::ListOffsets as i16 {
        let (target, end) =
            frames::list_offsets(frame).ok_or_else(|| bad("a ListOffsets request of another version than 5, or not for one partition"))?;
        let offset = match end {
            end if end == End::Start as i64 => 0,
            end if end == End::Tail as i64 => log.tail(),
            _ => return Err(bad("a ListOffsets request for a time")),
        };
        answers::list_offsets(out, head, frame, &target, known(target.partition), offset)?;
    } else if head.key == ApiKey::ApiVersions as i16 {
        answers::api_versions(out, head, answers::READS)?;
    } else if head.key == ApiKey::Metadata as i16 && (0..=answers::METADATA_MAX).contains(&head.version) {
        answers::metadata(out, head, bound, 1)?;
    } else {
        return Err(bad("a request that is not served here"));
    }
    Ok(None)
}

/// What [`fill`] has written.
struct Log<'a> {
    bytes: &'a [u8],
    /// Of each batch.
    records: i64,
}

impl<'a> Log<'a> {
    fn new(bytes: &'a [u8]) -> Outcome<Log<'a>> {
        let header = Header::parse(bytes).map_err(|error| Failure::wrong("reads", error))?;
        Ok(Log { bytes, records: i64::from(header.count) })
    }

    fn tail(&self) -> i64 {
        (self.bytes.len() / BATCH_BYTES) as i64 * self.records
    }

    /// Whole batches from the one that holds `offset` on: as many as `max_bytes` holds, but one at least. None: no such offset.
    fn run(&self, offset: i64, max_bytes: i32) -> Option<&'a [u8]> {
        if !(0..=self.tail()).contains(&offset) {
            return None;
        }
        let start = (offset / self.records) as usize * BATCH_BYTES;
        let most = usize::try_from(max_bytes).unwrap_or(0).min(RUN_BYTES_MAX);
        let len = (most / BATCH_BYTES).max(1) * BATCH_BYTES;
        Some(&self.bytes[start..self.bytes.len().min(start + len)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::{fetch_request, step_over};
    use crate::topics::{LIST_OFFSETS_VERSION, list_offsets_request};
    use crate::wire::FETCH_VERSION;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::fetch_response::PartitionData;
    use kafka_protocol::messages::{RequestHeader, ResponseHeader};
    use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};

    const BATCHES: usize = 5;

    fn filled() -> Vec<u8> {
        let mut bytes = Vec::new();
        fill(&mut bytes, (BATCHES * BATCH_BYTES - 1) as u64).expect("memory takes all");
        assert_eq!(bytes.len(), BATCHES * BATCH_BYTES);
        bytes
    }

    fn asked<R: Request>(log: &Log, request: &R, version: i16) -> R::Response {
        let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version).with_correlation_id(42);
        let mut frame = BytesMut::new();
        let written = header.encode(&mut frame, R::header_version(version)).and_then(|()| request.encode(&mut frame, version));
        written.expect("a request");
        let mut out = Vec::new();
        if let Some(run) = answer(&mut out, &frame, log, SocketAddr::from(([127, 0, 0, 1], 9092))).expect("an answer") {
            out.extend_from_slice(run);
            out.extend_from_slice(FETCH_TAIL);
        }
        assert_eq!(out[..4], (out.len() as u32 - 4).to_be_bytes());
        let mut bytes = Bytes::from(out).split_off(4);
        let header = ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).expect("a header");
        assert_eq!(header.correlation_id, 42);
        let response = R::Response::decode(&mut bytes, version).expect("a response");
        assert!(bytes.is_empty());
        response
    }

    fn fetched(log: &Log, partition: i32, offset: i64, max_bytes: i32) -> PartitionData {
        let mut response = asked(log, &fetch_request("topic", [(partition, offset)].into_iter(), max_bytes, 1000), FETCH_VERSION);
        assert_eq!((response.error_code, response.responses[0].topic.as_str()), (0, "topic"));
        response.responses.remove(0).partitions.remove(0)
    }

    #[test]
    fn what_is_fetched_are_the_batches_from_the_offset_on() {
        let bytes = filled();
        let log = Log::new(&bytes).expect("a log");
        let (count, tail) = (log.records, BATCHES as i64 * log.records);
        for (offset, max_bytes, first, batches) in [
            (0, i32::MAX, 0, BATCHES),
            (2 * count, 1 << 20, 2, 3),
            (2 * count + 1, 600_000, 2, 2),
            (3 * count - 1, BATCH_BYTES as i32 - 1, 2, 1),
            (0, -1, 0, 1),
            (tail - 1, 1 << 20, BATCHES - 1, 1),
        ] {
            let part = fetched(&log, 0, offset, max_bytes);
            assert_eq!((part.error_code, part.partition_index, part.high_watermark), (0, 0, tail));
            let records = part.records.expect("batches");
            assert!(records == bytes[first * BATCH_BYTES..(first + batches) * BATCH_BYTES], "{offset}, at most {max_bytes}");
            let next = (first + batches) as i64 * count;
            assert_eq!(step_over(&records, offset, true).expect("valid batches"), (next, records.len()));
        }
    }

    #[test]
    fn at_the_tail_there_is_nothing_and_outside_an_error() {
        let bytes = filled();
        let log = Log::new(&bytes).expect("a log");
        for (partition, offset, error) in [
            (0, log.tail(), 0),
            (0, log.tail() + 1, OUT_OF_RANGE),
            (0, -1, OUT_OF_RANGE),
            (0, i64::MAX, OUT_OF_RANGE),
            (1, 0, UNKNOWN_PARTITION),
        ] {
            let part = fetched(&log, partition, offset, 1 << 20);
            assert_eq!((part.error_code, part.partition_index, part.records), (error, partition, Some(Bytes::new())));
        }
    }

    #[test]
    fn the_ends_of_the_log_are_told() {
        let bytes = filled();
        let log = Log::new(&bytes).expect("a log");
        for (partition, end, error, offset) in [(0, End::Start, 0, 0), (0, End::Tail, 0, log.tail()), (4, End::Start, UNKNOWN_PARTITION, 0)]
        {
            let response = asked(&log, &list_offsets_request("topic", partition..partition + 1, end), LIST_OFFSETS_VERSION);
            let part = &response.topics[0].partitions[0];
            assert_eq!((response.topics[0].name.as_str(), part.partition_index), ("topic", partition));
            assert_eq!((part.error_code, part.offset), (error, offset));
        }
    }

    #[test]
    fn other_requests_and_frames_of_impossible_length_are_refused() {
        let bytes = filled();
        let log = Log::new(&bytes).expect("a log");
        let mut out = Vec::new();
        for key in [ApiKey::Produce, ApiKey::Fetch, ApiKey::ListOffsets] {
            let frame = [0, key as u8, 0, 5, 0, 0, 0, 1];
            assert!(answer(&mut out, &frame, &log, SocketAddr::from(([127, 0, 0, 1], 9092))).is_err(), "{key:?}");
        }
        for (size, taken) in
            [(7_u32, false), (8, true), (REQUEST_BYTES_MAX as u32, true), (REQUEST_BYTES_MAX as u32 + 1, false), (u32::MAX, false)]
        {
            let mut sent = size.to_be_bytes().to_vec();
            sent.resize(4 + REQUEST_BYTES_MAX, 0);
            let found = receive(&mut &sent[..], &mut Vec::new());
            assert!(matches!(found, Ok(true)) == taken, "{size}: {found:?}");
        }
        assert!(matches!(receive(&mut &[0, 0, 0, 9, 1][..], &mut Vec::new()), Ok(false)), "the reader has gone away");
    }
}
