//! One blocking connection to one broker: which versions it serves, requests out, answers in, in order.
//!
//! 1. [`Connection::open`] connects and asks for ApiVersions, as every client does; from then on [`Connection::version`] gives the newest
//!    version of a request that both sides know.
//! 2. [`Connection::send`] and [`Connection::receive`] may be apart: several requests may be on their way, and their answers come back in
//!    request order. [`Connection::call`] does both.
//!
//! Invariants: no call waits longer than its timeouts; no length that a server states allocates memory before bytes have come; an answer
//! belongs to the request that waits longest.
//!
//! Knows nothing of clusters: [`crate::client`] does.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::failure::{Failure, Kind, Outcome};
use crate::settings::ClientSettings;

/// A longer answer is none: what was asked for is bounded by far less.
pub const ANSWER_BYTES_MAX: u32 = 512 << 20;

/// Read at once.
const PIECE_BYTES: usize = 256 << 10;

const UNSUPPORTED_VERSION: i16 = 35;

pub struct Connection {
    stream: TcpStream,
    /// HOST:PORT, for errors.
    name: String,
    client_id: StrBytes,
    request_timeout: Duration,
    versions: BTreeMap<i16, (i16, i16)>,
    /// What the broker said of itself, at version 3 or what it knows.
    pub said: ApiVersionsResponse,
    sent: i32,
    received: i32,
}

impl Connection {
    /// # Errors
    /// Nobody listens there, or it is no broker.
    pub fn open(host: &str, port: u16, settings: &ClientSettings) -> Outcome<Connection> {
        let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let stream = connect(host, port, &name, settings.connect_timeout)?;
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(settings.request_timeout)))
            .and_then(|()| stream.set_write_timeout(Some(settings.request_timeout)));
        prepared.map_err(|error| Failure::unreachable(format!("{name}: {error}")))?;
        let mut connection = Connection {
            stream,
            name,
            client_id: StrBytes::from_string(settings.client_id.clone()),
            request_timeout: settings.request_timeout,
            versions: BTreeMap::new(),
            said: ApiVersionsResponse::default(),
            sent: 0,
            received: 0,
        };
        connection.said = connection.negotiate()?;
        connection.versions = connection.said.api_keys.iter().map(|key| (key.api_key, (key.min_version, key.max_version))).collect();
        Ok(connection)
    }

    /// The same connection for a second thread: the first of the two sends, the other receives.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn split(self) -> Outcome<(Connection, Connection)> {
        let stream = self.stream.try_clone().map_err(|error| self.lost(&error))?;
        let sender = Connection {
            stream,
            name: self.name.clone(),
            client_id: self.client_id.clone(),
            request_timeout: self.request_timeout,
            versions: self.versions.clone(),
            said: self.said.clone(),
            sent: self.sent,
            received: self.received,
        };
        Ok((sender, self))
    }

    /// HOST:PORT.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn negotiate(&mut self) -> Outcome<ApiVersionsResponse> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("millrace"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut version = 3;
        self.send(&request, version)?;
        let mut bytes = self.receive_body().map_err(|failure| {
            if failure.kind != Kind::Unreachable {
                return failure;
            }
            failure.with_hint("is it a Kafka listener, and one without TLS?")
        })?;
        // A broker that does not know the version answers at version 0, whatever was asked.
        if bytes.get(..2) == Some(&UNSUPPORTED_VERSION.to_be_bytes()) {
            version = 0;
            self.send(&ApiVersionsRequest::default(), version)?;
            bytes = self.receive_body()?;
        }
        let answer = ApiVersionsResponse::decode(&mut bytes, version).map_err(|error| self.unreadable(&error))?;
        Failure::check(&self.name, answer.error_code, None)?;
        Ok(answer)
    }

    /// The newest version of `R` up to `newest` that the broker serves too.
    ///
    /// # Errors
    /// There is none.
    pub fn version<R: Request>(&self, newest: i16) -> Outcome<i16> {
        let ours = R::VERSIONS.min..=R::VERSIONS.max.min(newest);
        let request = ApiKey::try_from(R::KEY).map_or_else(|()| R::KEY.to_string(), |key| format!("{key:?}"));
        let Some(&(min, max)) = self.versions.get(&R::KEY) else {
            return Err(Failure::new(Kind::Failed, format!("{} does not serve {request}", self.name))
                .with_hint("`millrace cluster api-versions` shows what it serves"));
        };
        let version = max.min(*ours.end());
        if version < min.max(*ours.start()) {
            return Err(Failure::new(
                Kind::Failed,
                format!(
                    "{} serves {request} at versions {min} to {max}, and {} to {} are spoken here",
                    self.name,
                    ours.start(),
                    ours.end()
                ),
            ));
        }
        Ok(version)
    }

    /// Sends a request and waits for its answer, within `request.timeout.ms`. None other may be on its way.
    ///
    /// # Errors
    /// As for [`Connection::send`] and [`Connection::receive`].
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> Outcome<R::Response> {
        self.send(request, version)?;
        self.receive::<R>(version)
    }

    /// Sends a request without waiting for its answer.
    ///
    /// # Errors
    /// The request cannot be written at this version, or the connection is lost.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Outcome<()> {
        self.sent = self.sent.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::zeroed(4);
        let written = header.encode(&mut frame, R::header_version(version)).and_then(|()| request.encode(&mut frame, version));
        written.map_err(|error| Failure::new(Kind::Failed, format!("a request cannot be written: {error}")))?;
        let size = u32::try_from(frame.len() - 4).ok().filter(|size| *size <= i32::MAX as u32);
        let size = size.ok_or_else(|| Failure::new(Kind::Failed, "a request is longer than 2 GiB"))?;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.stream.write_all(&frame).map_err(|error| self.lost(&error))
    }

    /// Whether anything has come, or comes within this time; a connection that was closed counts, and [`Connection::receive`] says so.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn has_answer(&self, within: Duration) -> Outcome<bool> {
        let looked = self.stream.set_read_timeout(Some(within)).and_then(|()| self.stream.peek(&mut [0]));
        self.stream.set_read_timeout(Some(self.request_timeout)).map_err(|error| self.lost(&error))?;
        match looked {
            Ok(_) => Ok(true),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&error.kind()) => Ok(false),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// A request with acks=0 gets no answer.
    pub fn expect_no_answer(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// The answer to the request that waits longest.
    ///
    /// # Errors
    /// The connection is lost, the answer does not come in time, or it cannot be read.
    pub fn receive<R: Request>(&mut self, version: i16) -> Outcome<R::Response> {
        let mut bytes = self.receive_frame()?;
        let header = ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).map_err(|error| self.unreadable(&error))?;
        self.in_order(header.correlation_id)?;
        R::Response::decode(&mut bytes, version).map_err(|error| self.unreadable(&error))
    }

    /// The body of an answer whose header is a correlation id alone.
    fn receive_body(&mut self) -> Outcome<Bytes> {
        let mut bytes = self.receive_frame()?;
        let header = ResponseHeader::decode(&mut bytes, 0).map_err(|error| self.unreadable(&error))?;
        self.in_order(header.correlation_id)?;
        Ok(bytes)
    }

    fn in_order(&mut self, correlation: i32) -> Outcome<()> {
        self.received = self.received.wrapping_add(1);
        if correlation == self.received {
            return Ok(());
        }
        Err(Failure::unreachable(format!("{} answers request {correlation} where {} was waited for", self.name, self.received)))
    }

    fn receive_frame(&mut self) -> Outcome<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(|error| self.lost(&error))?;
        let length = u32::from_be_bytes(length);
        if !(4..=ANSWER_BYTES_MAX).contains(&length) {
            return Err(Failure::unreachable(format!("{} does not speak the Kafka protocol", self.name))
                .for_good()
                .with_hint("is it a Kafka listener, and one without TLS?"));
        }
        let began = Instant::now();
        let mut frame = Vec::new();
        // The read timeout is for one read; an answer that trickles must not last for ever either.
        let longest = self.request_timeout * 6;
        let mut filled = 0;
        while filled < length as usize {
            frame.resize((length as usize).min(filled + PIECE_BYTES), 0);
            match self.stream.read(&mut frame[filled..]) {
                Ok(0) => return Err(self.lost(&ErrorKind::UnexpectedEof.into())),
                Ok(_) if began.elapsed() > longest => return Err(self.lost(&ErrorKind::TimedOut.into())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
        Ok(Bytes::from(frame))
    }

    fn lost(&self, error: &std::io::Error) -> Failure {
        Failure::unreachable(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("{} did not answer within {} ms", self.name, self.request_timeout.as_millis())
            }
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => format!("{} closed the connection", self.name),
            _ => format!("the connection to {} is lost: {error}", self.name),
        })
    }

    fn unreadable(&self, error: &impl std::fmt::Display) -> Failure {
        Failure::new(Kind::Failed, format!("an answer of {} cannot be read: {error:#}", self.name))
    }
}

fn connect(host: &str, port: u16, name: &str, timeout: Duration) -> Outcome<TcpStream> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| Failure::unreachable(format!("the address of {host} cannot be found: {error}")).with_hint("is the name right?"))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(Failure::unreachable(match last {
        Some(error) if error.kind() == ErrorKind::ConnectionRefused => format!("nobody listens on {name}"),
        Some(error) if error.kind() == ErrorKind::TimedOut => format!("{name} did not take a connection within {} ms", timeout.as_millis()),
        Some(error) => format!("cannot connect to {name}: {error}"),
        None => format!("{host} has no address"),
    }))
}
