//! One blocking connection to a server: frames out, frames in, in order.
//!
//! Several requests may be on their way; their answers come back in request order, and [`Connection::receive`] checks that. Answers are
//! read into one buffer that is used again, so that a measured loop touches no fresh memory.
//!
//! Knows nothing of topics or measurement.

use crate::failure::{Failure, Outcome};
use crate::wire::{CLIENT_ID, ProduceRequest};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use millrace_base::limits::FRAME_BYTES_MAX;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::time::{Duration, Instant};

/// A server that says nothing for so long has failed.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Read at once, so that small answers which come together cost one call.
const READ_BYTES: usize = 64 << 10;

pub struct Connection {
    stream: TcpStream,
    /// Answers not yet taken stand in `unread`.
    buffer: Vec<u8>,
    unread: Range<usize>,
    sent: i32,
    answered: i32,
    /// Ask again and again instead of sleeping until bytes come.
    spins: bool,
}

/// The first address that `bootstrap` (HOST:PORT) stands for.
pub fn resolve(bootstrap: &str) -> Outcome<SocketAddr> {
    let found = bootstrap.to_socket_addrs().map_err(|error| Failure::Usage(format!("{bootstrap}: {error}; give HOST:PORT")))?;
    found.into_iter().next().ok_or_else(|| Failure::Usage(format!("{bootstrap} has no address")))
}

impl Connection {
    pub fn open(address: SocketAddr) -> Outcome<Connection> {
        let doing = || Failure::system(format!("connecting to {address}"));
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX).map_err(doing())?;
        stream.set_nodelay(true).map_err(doing())?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(doing())?;
        stream.set_write_timeout(Some(ANSWER_MAX)).map_err(doing())?;
        Ok(Connection { stream, buffer: vec![0; READ_BYTES], unread: 0..0, sent: 0, answered: 0, spins: false })
    }

    /// From now on waits for answers without sleeping: the reader's wake-up is then not part of what is measured.
    pub fn spin(&mut self) -> Outcome<()> {
        self.spins = true;
        self.stream.set_nonblocking(true).map_err(Failure::system("making a socket non-blocking"))
    }

    /// The same connection for a second thread: one sends, the other receives.
    pub fn split(self) -> Outcome<(Connection, Connection)> {
        let stream = self.stream.try_clone().map_err(Failure::system("sharing a socket"))?;
        let sender = Connection { stream, buffer: Vec::new(), unread: 0..0, sent: self.sent, answered: self.answered, spins: self.spins };
        Ok((sender, self))
    }

    pub fn send_produce(&mut self, request: &mut ProduceRequest, batches: &[&[u8]]) -> Outcome<()> {
        assert_eq!(request.heads.len(), batches.len());
        self.sent = self.sent.wrapping_add(1);
        request.set_correlation(self.sent);
        let mut pieces = Vec::with_capacity(2 * batches.len() + 1);
        for (head, batch) in request.heads.iter().zip(batches) {
            pieces.extend([IoSlice::new(head), IoSlice::new(batch)]);
        }
        pieces.push(IoSlice::new(request.tail));
        self.write(&mut pieces)
    }

    /// Sends any request that kafka-protocol can write.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Outcome<()> {
        self.sent = self.sent.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        let mut frame = BytesMut::zeroed(4);
        let written = header.encode(&mut frame, R::header_version(version)).and_then(|()| request.encode(&mut frame, version));
        written.map_err(|error| Failure::wrong("writing a request", error))?;
        let size = i32::try_from(frame.len() - 4).map_err(|_| Failure::wrong("writing a request", "it is longer than 2 GiB"))?;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.write(&mut [IoSlice::new(&frame)])
    }

    /// Sends a request and waits for its answer; none other may be on its way.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> Outcome<R::Response> {
        self.send(request, version)?;
        let mut bytes = Bytes::copy_from_slice(self.receive()?);
        let wrong = |error| Failure::wrong("reading an answer", error);
        if R::Response::header_version(version) > 0 {
            // The correlation id has been taken off; the header's reader wants it.
            let mut whole = BytesMut::zeroed(4);
            whole.extend_from_slice(&bytes);
            let mut whole = whole.freeze();
            ResponseHeader::decode(&mut whole, R::Response::header_version(version)).map_err(wrong)?;
            bytes = whole;
        }
        R::Response::decode(&mut bytes, version).map_err(wrong)
    }

    /// The next answer, behind its correlation id. Its bytes stay until the next call.
    pub fn receive(&mut self) -> Outcome<&[u8]> {
        let doing = "reading an answer";
        self.fill(4)?;
        let at = self.unread.start;
        let size = i32::from_be_bytes(self.buffer[at..at + 4].try_into().expect("four bytes"));
        let size = usize::try_from(size).ok().filter(|size| (4..=FRAME_BYTES_MAX).contains(size));
        let size = size.ok_or_else(|| Failure::wrong(doing, "its size is impossible"))?;
        self.fill(4 + size)?;
        let at = self.unread.start;
        self.unread.start += 4 + size;
        self.answered = self.answered.wrapping_add(1);
        let found = i32::from_be_bytes(self.buffer[at + 4..at + 8].try_into().expect("four bytes"));
        if found != self.answered {
            return Err(Failure::wrong(doing, format!("it is for request {found} where {} is next", self.answered)));
        }
        Ok(&self.buffer[at + 8..at + 4 + size])
    }

    /// Reads until `len` bytes are unread, or fails.
    fn fill(&mut self, len: usize) -> Outcome<()> {
        if self.unread.start + len > self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            if self.buffer.len() < len + READ_BYTES {
                self.buffer.resize(len + READ_BYTES, 0);
            }
        }
        if self.unread.is_empty() && self.unread.start > 0 && self.buffer.len() >= len {
            self.unread = 0..0;
        }
        let began = Instant::now();
        while self.unread.len() < len {
            let read = self.stream.read(&mut self.buffer[self.unread.end..]);
            match read {
                Ok(0) => return Err(Failure::wrong("waiting for an answer", "the server closed the connection")),
                Ok(read) => self.unread.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.spins && began.elapsed() < ANSWER_MAX => std::hint::spin_loop(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Failure::Late { doing: "waiting for an answer", waited_s: ANSWER_MAX.as_secs() });
                }
                Err(error) => return Err(Failure::System { doing: "waiting for an answer".to_owned(), error }),
            }
        }
        Ok(())
    }

    fn write(&mut self, mut pieces: &mut [IoSlice<'_>]) -> Outcome<()> {
        IoSlice::advance_slices(&mut pieces, 0);
        let began = Instant::now();
        while !pieces.is_empty() {
            match self.stream.write_vectored(pieces) {
                Ok(0) => return Err(Failure::wrong("sending a request", "the server takes no more bytes")),
                Ok(written) => IoSlice::advance_slices(&mut pieces, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.spins && began.elapsed() < ANSWER_MAX => std::hint::spin_loop(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Failure::Late { doing: "sending a request", waited_s: ANSWER_MAX.as_secs() });
                }
                Err(error) => return Err(Failure::System { doing: "sending a request".to_owned(), error }),
            }
        }
        Ok(())
    }
}
