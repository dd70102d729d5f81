//! Which shard of a server holds a connection, and which one owns a partition, found out from outside.
//!
//! The kernel deals connections out to the listening sockets of the shards, and no answer says which took one. But a shard is a thread, and
//! an idle one uses no CPU time:
//!
//! 1. A burst of ApiVersions requests is answered by the shard that holds the connection alone: its thread's time grows.
//! 2. A burst of ListOffsets requests for a partition is also worked on by the shard that owns it.
//! 3. [`Home::Same`] and [`Home::Other`] open connections until one lies where it is wanted; the others are closed.
//!
//! Needs a server with nothing else to do meanwhile. Times are those of /proc/PID/task/TID/schedstat, in nanoseconds.

use crate::connection::Connection;
use crate::failure::{Failure, Outcome};
use crate::report::Report;
use crate::topics::{End, offset};
use kafka_protocol::messages::ApiVersionsRequest;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What the names of the server's threads begin with; their numbers follow.
const THREAD: &str = "shard-";
const BURST: usize = 300;
/// Connections opened in search of one on the right shard. Dealt out by chance over two shards, the search fails once in 2^48.
const TRIES_MAX: usize = 48;
const API_VERSIONS_VERSION: i16 = 2;

/// Where a connection must be held, seen from the shard that owns its first partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    Any,
    Same,
    Other,
}

/// How connections are opened, and whose CPU time is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    pub home: Home,
    pub server: Option<u32>,
}

/// Where connections and their first partitions turned out to be; empty when nobody asked.
#[derive(Default)]
pub struct Shards {
    connections: Vec<u32>,
    partitions: Vec<u32>,
}

impl Shards {
    /// `connection_shards` and `partition_shards`, a number each, in the order of the connections.
    pub fn tell(&self, report: Report) -> Report {
        if self.connections.is_empty() {
            return report;
        }
        let listed = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        report.word("connection_shards", listed(&self.connections)).word("partition_shards", listed(&self.partitions))
    }
}

impl Placement {
    /// A connection where it is wanted; `shards` takes down where that is.
    ///
    /// # Errors
    /// `Usage` without a server to look at, or one without several shards; `Wrong` when no connection lay there or its shard is unclear.
    pub fn open(&self, address: SocketAddr, topic: &str, partition: i32, shards: &mut Shards) -> Outcome<Connection> {
        if self.home == Home::Any {
            return Connection::open(address);
        }
        let Some(pid) = self.server else { return Err(Failure::Usage("--home needs --server-pid".to_owned())) };
        let mut passed_over = Vec::new();
        for _ in 0..TRIES_MAX {
            let mut connection = Connection::open(address)?;
            let holds = holder(&mut connection, pid)?;
            let owns = owner(&mut connection, pid, holds, topic, partition)?;
            if (holds == owns) == (self.home == Home::Same) {
                shards.connections.push(holds);
                shards.partitions.push(owns);
                return Ok(connection);
            }
            passed_over.push(connection);
        }
        Err(Failure::wrong("placing a connection", format!("none of {TRIES_MAX} lay on the shard that was wanted")))
    }
}

/// The shard whose thread did by far the most while only this connection had requests.
fn holder(connection: &mut Connection, pid: u32) -> Outcome<u32> {
    let grown = burst(pid, || connection.call(&ApiVersionsRequest::default(), API_VERSIONS_VERSION).map(|_| ()))?;
    busiest(&grown).ok_or_else(|| Failure::wrong("finding a connection's shard", format!("the shards' CPU times grew by {grown:?} ns")))
}

/// The shard that owns a partition, seen through a connection held by shard `holds`.
fn owner(connection: &mut Connection, pid: u32, holds: u32, topic: &str, partition: i32) -> Outcome<u32> {
    let grown = burst(pid, || offset(connection, topic, partition, End::Tail).map(|_| ()))?;
    Ok(helper(&grown, holds).unwrap_or(holds))
}

/// By how many nanoseconds each shard's CPU time grew during a burst of calls.
fn burst(pid: u32, mut call: impl FnMut() -> Outcome<()>) -> Outcome<BTreeMap<u32, u64>> {
    let before = times(pid)?;
    if before.len() < 2 {
        return Err(Failure::Usage(format!("process {pid} has {} threads named {THREAD}N; --home needs two", before.len())));
    }
    for _ in 0..BURST {
        call()?;
    }
    Ok(times(pid)?.into_iter().map(|(shard, now)| (shard, now.saturating_sub(*before.get(&shard).unwrap_or(&0)))).collect())
}

/// The one that did at least four times as much as any other.
fn busiest(grown: &BTreeMap<u32, u64>) -> Option<u32> {
    let (most, time) = grown.iter().max_by_key(|(_, time)| **time)?;
    grown.iter().all(|(shard, other)| shard == most || other.saturating_mul(4) <= *time).then_some(*most)
}

/// The other shard that worked along: at least a quarter of what the holder did.
fn helper(grown: &BTreeMap<u32, u64>, holds: u32) -> Option<u32> {
    let held = *grown.get(&holds)?;
    let (most, time) = grown.iter().filter(|(shard, _)| **shard != holds).max_by_key(|(_, time)| **time)?;
    (time.saturating_mul(4) >= held).then_some(*most)
}

/// CPU time of each shard's thread.
fn times(pid: u32) -> Outcome<BTreeMap<u32, u64>> {
    let tasks = format!("/proc/{pid}/task");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&tasks).map_err(Failure::system(format!("listing {tasks}")))? {
        let path = entry.map_err(Failure::system(format!("listing {tasks}")))?.path();
        // A thread that ends meanwhile is none of the shards.
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let shard = read("comm").trim().strip_prefix(THREAD).and_then(|number| number.parse().ok());
        let time = read("schedstat").split_ascii_whitespace().next().and_then(|time| time.parse().ok());
        if let (Some(shard), Some(time)) = (shard, time) {
            found.insert(shard, time);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_told_only_where_it_stands_out() {
        let grown = |times: &[u64]| (0u32..).zip(times.iter().copied()).collect::<BTreeMap<_, _>>();
        assert_eq!(busiest(&grown(&[10, 400, 100])), Some(1));
        assert_eq!(busiest(&grown(&[10, 400, 101])), None);
        assert_eq!(busiest(&grown(&[])), None);
    }

    #[test]
    fn the_owner_is_who_works_along_with_the_holder() {
        let grown = |times: &[u64]| (0u32..).zip(times.iter().copied()).collect::<BTreeMap<_, _>>();
        assert_eq!(helper(&grown(&[400, 100, 3]), 0), Some(1));
        assert_eq!(helper(&grown(&[400, 99, 3]), 0), None);
        assert_eq!(helper(&grown(&[400, 99, 500]), 0), Some(2));
    }

    #[test]
    fn a_process_without_shards_is_refused() {
        let own = std::process::id();
        assert!(matches!(burst(own, || Ok(())), Err(Failure::Usage(_))));
    }
}
