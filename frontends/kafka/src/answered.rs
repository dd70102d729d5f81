//! Requests that one shard's front has answered, counted by their API.
//!
//! Errors are counted where most of the traffic is: partitions of Produce and Fetch, and versions that are not served.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_base::clock::Nanos;
use millrace_shard::observe::{Histogram, RequestCounters};

use crate::conn::Ended;
use crate::wire::errors::ErrorCode;
use crate::wire::table::Api;

#[derive(Default)]
struct Row {
    request_bytes: u64,
    response_bytes: u64,
    latency: Histogram,
    errors: BTreeMap<i16, u64>,
}

#[derive(Default)]
pub struct Answered {
    /// By API key.
    rows: BTreeMap<i16, Row>,
}

impl Answered {
    /// A request that its connection still knew has its answer.
    pub fn count(&mut self, api: Api, ended: Option<Ended>, now: Nanos) {
        if let Some(Ended { came, request_bytes, response_bytes }) = ended {
            self.add(api, request_bytes, response_bytes, now.since(came));
        }
    }

    fn add(&mut self, api: Api, request_bytes: usize, response_bytes: usize, took: Duration) {
        let row = self.rows.entry(api.key()).or_default();
        row.request_bytes += request_bytes as u64;
        row.response_bytes += response_bytes as u64;
        row.latency.add(took);
    }

    /// A partition, or a whole request, was answered with this code; 0 is none.
    pub fn error(&mut self, api: Api, code: i16) {
        if code != 0 {
            *self.rows.entry(api.key()).or_default().errors.entry(code).or_default() += 1;
        }
    }

    pub fn rows(&self) -> Vec<RequestCounters> {
        let name = |code: i16| ErrorCode::from_code(code).map_or("UNKNOWN_SERVER_ERROR", ErrorCode::name);
        let row = |(key, row): (&i16, &Row)| {
            Some(RequestCounters {
                name: Api::from_key(*key)?.name(),
                request_bytes: row.request_bytes,
                response_bytes: row.response_bytes,
                latency: row.latency.clone(),
                errors: row.errors.iter().map(|(code, count)| (name(*code), *count)).collect(),
            })
        };
        self.rows.iter().filter_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_errors_are_counted_by_api() {
        let mut answered = Answered::default();
        answered.add(Api::Produce, 100, 50, Duration::from_millis(2));
        answered.add(Api::Produce, 10, 5, Duration::from_millis(3));
        answered.error(Api::Produce, ErrorCode::NotLeaderOrFollower.code());
        answered.error(Api::Fetch, 0);
        let rows = answered.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].name, rows[0].request_bytes, rows[0].response_bytes, rows[0].latency.count()), ("Produce", 110, 55, 2));
        assert_eq!(rows[0].errors, [("NOT_LEADER_OR_FOLLOWER", 1)]);
    }
}
