//! How long one durable acknowledgement takes: one small batch at a time, each sent when the last was answered.
//!
//! The first sends are not counted. With `spin` the client never sleeps for an answer, so that its own wake-up (12-43 us between sleeping
//! cores) is not part of the figure; without, it is, as for any ordinary client.

use crate::batches::batch;
use crate::connection::Connection;
use crate::failure::Outcome;
use crate::histogram::Histogram;
use crate::produce::{check_answer, wall_ms};
use crate::report::Report;
use crate::window::Watch;
use crate::wire::produce_request;
use std::net::SocketAddr;
use std::time::Instant;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OneInFlight {
    pub topic: String,
    pub batch_bytes: usize,
    pub acks: i16,
    pub warm_up_sends: u32,
    pub sends: u32,
    pub spin: bool,
    pub server: Option<u32>,
}

pub fn run(asked: &OneInFlight, address: SocketAddr) -> Outcome<Report> {
    let mut connection = Connection::open(address)?;
    if asked.spin {
        connection.spin()?;
    }
    let bytes = batch(asked.batch_bytes, asked.batch_bytes, wall_ms());
    let mut request = produce_request(&asked.topic, asked.acks, &[0], bytes.len());
    let mut latencies = Histogram::new();
    for _ in 0..asked.warm_up_sends {
        connection.send_produce(&mut request, &[&bytes])?;
        check_answer(connection.receive()?, 1)?;
    }
    let watch = Watch::start(asked.server)?;
    for _ in 0..asked.sends {
        let sent = Instant::now();
        connection.send_produce(&mut request, &[&bytes])?;
        check_answer(connection.receive()?, 1)?;
        latencies.record(sent.elapsed());
    }
    let span = watch.stop()?;
    let report = Report::new("latency").count("batch_bytes", asked.batch_bytes as u64);
    Ok(span.report(report, u64::from(asked.sends) * bytes.len() as u64, asked.sends.into()).latencies(&latencies))
}
