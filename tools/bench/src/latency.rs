//! How long one durable acknowledgement takes: one small batch at a time, each sent when the last was answered.
//!
//! The partitions of the topic take turns. The first sends are not counted. With `spin` the client never sleeps for an answer, so that its
//! own wake-up (12-43 us between sleeping cores) is not part of the figure; without, it is, as for any ordinary client.

use crate::batches::{Content, batch};
use crate::connection::Connection;
use crate::failure::Outcome;
use crate::placement::{Placement, Shards};
use crate::produce::{check_answer, wall_ms};
use crate::report::Report;
use crate::window::Watch;
use crate::wire::produce_request;
use millrace_ops::histogram::Histogram;
use std::net::SocketAddr;
use std::time::Instant;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OneInFlight {
    pub topic: String,
    pub partitions: u32,
    pub batch_bytes: usize,
    pub acks: i16,
    pub warm_up_sends: u32,
    pub sends: u32,
    pub spin: bool,
    pub placement: Placement,
}

pub fn run(asked: &OneInFlight, address: SocketAddr) -> Outcome<Report> {
    let mut shards = Shards::default();
    let mut connection = asked.placement.open(address, &asked.topic, 0, &mut shards)?;
    if asked.spin {
        connection.spin()?;
    }
    let bytes = batch(asked.batch_bytes, asked.batch_bytes, wall_ms(), Content::Noise);
    let request = |partition| produce_request(&asked.topic, asked.acks, &[(partition, bytes.len())]);
    let mut requests: Vec<_> = (0..asked.partitions).map(|partition| request(partition as i32)).collect();
    let mut latencies = Histogram::new();
    let mut turns = (0..requests.len()).cycle();
    let mut send = |connection: &mut Connection| {
        let turn = turns.next().expect("there is a partition");
        let sent = Instant::now();
        connection.send_produce(&mut requests[turn], &[&bytes])?;
        check_answer(connection.receive()?, 1)?;
        Ok(sent.elapsed())
    };
    for _ in 0..asked.warm_up_sends {
        send(&mut connection)?;
    }
    let watch = Watch::start(asked.placement.server)?;
    for _ in 0..asked.sends {
        latencies.record(send(&mut connection)?);
    }
    let span = watch.stop()?;
    let report = Report::new("latency").count("partitions", asked.partitions.into()).count("batch_bytes", asked.batch_bytes as u64);
    let report = shards.tell(report);
    Ok(span.report(report, u64::from(asked.sends) * bytes.len() as u64, asked.sends.into()).latencies(&latencies))
}
