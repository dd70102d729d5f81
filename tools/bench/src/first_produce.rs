//! How long until a server that is being started acknowledges a record.
//!
//! Started just before the server. It knocks every millisecond; once it gets in, it sends one small batch, and again every few
//! milliseconds while the server answers that it is not ready. With `create`, the topic is made first (and may already be there).
//! A refusal that time does not cure is told when the time is over.

use crate::batches::{BATCH_BYTES_MIN, Content, batch};
use crate::connection::Connection;
use crate::failure::{Failure, Outcome};
use crate::produce::{check_answer, wall_ms};
use crate::report::Report;
use crate::topics;
use crate::wire::produce_request;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const KNOCK: Duration = Duration::from_millis(1);
const ASK_AGAIN: Duration = Duration::from_millis(3);
/// Kafka's TOPIC_ALREADY_EXISTS.
const EXISTS: i16 = 36;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct First {
    pub topic: String,
    pub create: bool,
    pub wait: Duration,
}

pub fn run(asked: &First, address: SocketAddr) -> Outcome<Report> {
    let began = Instant::now();
    let mut connected = None;
    loop {
        let attempt = Connection::open(address).and_then(|mut connection| {
            connected.get_or_insert_with(|| began.elapsed());
            send_one(&mut connection, asked, began)
        });
        match attempt {
            Ok(()) => break,
            Err(failure) if began.elapsed() > asked.wait => return Err(failure),
            Err(_) => std::thread::sleep(KNOCK),
        }
    }
    let connected = connected.unwrap_or_default();
    Ok(Report::new("first-produce").figure("connected_s", connected.as_secs_f64()).figure("acknowledged_s", began.elapsed().as_secs_f64()))
}

fn send_one(connection: &mut Connection, asked: &First, began: Instant) -> Outcome<()> {
    if asked.create {
        match topics::create(connection, &asked.topic, 1, &[]) {
            Err(Failure::Refused { code: EXISTS, .. }) | Ok(()) => {}
            Err(other) => return Err(other),
        }
    }
    let bytes = batch(BATCH_BYTES_MIN, BATCH_BYTES_MIN, wall_ms(), Content::Noise);
    let mut request = produce_request(&asked.topic, -1, &[(0, bytes.len())]);
    loop {
        connection.send_produce(&mut request, &[&bytes])?;
        match check_answer(connection.receive()?, 1) {
            Err(Failure::Refused { .. }) if began.elapsed() < asked.wait => std::thread::sleep(ASK_AGAIN),
            answered => return answered,
        }
    }
}
