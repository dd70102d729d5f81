//! One client's connection: requests out, responses in, and all of it again after a loss.

use crate::cluster::Cluster;
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use millrace_io::sim::{ClientEnd, World};
use std::collections::VecDeque;

use super::{MS, text};

/// How long a client waits for an answer before it gives its connection up.
const ANSWER_MS: u64 = 30_000;

/// What a look at the connection gave.
pub enum Came {
    /// Responses with their correlation ids.
    Answers(Vec<(i32, Bytes)>),
    /// The connection is gone, and with it the answers to all that was under way.
    Lost,
}

struct Asked {
    correlation: i32,
    deadline: u64,
}

pub struct Link {
    end: Option<ClientEnd>,
    inbox: BytesMut,
    outbox: BytesMut,
    correlation: i32,
    asked: VecDeque<Asked>,
    /// Not connected again before.
    retry_at: u64,
    /// Why the connection was lost last.
    pub out_of_order: Option<(i32, i32)>,
}

impl Link {
    pub fn new() -> Link {
        Link {
            end: None,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            correlation: 0,
            asked: VecDeque::new(),
            retry_at: 0,
            out_of_order: None,
        }
    }

    pub fn in_flight(&self) -> usize {
        self.asked.len()
    }

    pub fn is_up(&self) -> bool {
        self.end.is_some()
    }

    /// When it wants to be looked at though nothing comes.
    pub fn wake(&self) -> u64 {
        match &self.end {
            Some(_) => self.asked.front().map_or(u64::MAX, |asked| asked.deadline),
            None => self.retry_at,
        }
    }

    /// Connects if it is time.
    pub fn connect(&mut self, world: &World) -> bool {
        if self.end.is_none() && world.now().0 >= self.retry_at {
            self.end = Some(world.connect(Cluster::address()));
        }
        self.end.is_some()
    }

    /// Queues a request; its correlation id.
    pub fn ask<R: Request>(&mut self, now: u64, version: i16, request: &R) -> i32 {
        self.tell(version, request);
        self.asked.push_back(Asked { correlation: self.correlation, deadline: now + ANSWER_MS * MS });
        self.correlation
    }

    /// Queues a request that has no answer.
    pub fn tell<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation += 1;
        self.outbox.extend_from_slice(&framed(version, self.correlation, request));
    }

    /// Sends and receives what can be.
    pub fn look(&mut self, world: &World) -> Came {
        let now = world.now().0;
        let late = self.asked.front().is_some_and(|asked| asked.deadline <= now);
        match self.exchange() {
            Ok(answers) if !late => Came::Answers(answers),
            Ok(_) | Err(()) => {
                self.lose(now);
                Came::Lost
            }
        }
    }

    fn exchange(&mut self) -> Result<Vec<(i32, Bytes)>, ()> {
        let Some(end) = &mut self.end else { return Ok(Vec::new()) };
        while !self.outbox.is_empty() {
            let taken = end.send(&self.outbox).map_err(|_| ())?;
            if taken == 0 {
                break;
            }
            self.outbox.advance(taken);
        }
        while let Some(bytes) = end.receive().map_err(|_| ())? {
            if bytes.is_empty() {
                return Err(());
            }
            self.inbox.extend_from_slice(&bytes);
        }
        let mut answers = Vec::new();
        while self.inbox.len() >= 4 {
            let len = i32::from_be_bytes([self.inbox[0], self.inbox[1], self.inbox[2], self.inbox[3]]) as usize;
            if self.inbox.len() < 4 + len {
                break;
            }
            self.inbox.advance(4);
            let frame = self.inbox.split_to(len).freeze();
            let correlation = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
            let asked = self.asked.pop_front().ok_or(())?;
            if asked.correlation != correlation {
                self.out_of_order = Some((asked.correlation, correlation));
                return Err(());
            }
            answers.push((correlation, frame));
        }
        Ok(answers)
    }

    /// Sends what is queued, and goes without waiting for an answer; connects again at once.
    pub fn break_off(&mut self, world: &World) {
        let now = world.now().0;
        let _ = self.exchange(); // what it brings is not looked at any more
        drop(self.end.take());
        self.lose(now);
        self.retry_at = now;
    }

    /// Gives the connection up without a word.
    pub fn lose(&mut self, now: u64) {
        if let Some(end) = self.end.take() {
            end.reset();
        }
        self.inbox.clear();
        self.outbox.clear();
        self.asked.clear();
        self.retry_at = now + 50 * MS;
    }
}

/// A request with its header, behind its length.
pub fn framed<R: Request>(version: i16, correlation: i32, request: &R) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text("sim")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, R::header_version(version)).expect("the harness knows the header");
    request.encode(&mut frame, version).expect("the harness asks what the version has");
    [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
}

/// The body of a response.
pub fn decode<R: Request>(frame: &Bytes, version: i16) -> R::Response {
    let mut frame = frame.clone();
    ResponseHeader::decode(&mut frame, R::Response::header_version(version)).expect("the broker answers with the version's header");
    let response = R::Response::decode(&mut frame, version).expect("the broker answers with the version's body");
    assert!(frame.is_empty(), "nothing follows the body of a response");
    response
}
