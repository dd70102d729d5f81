//! `millrace bench`: load on a broker at a given rate, and how long each record took to be acknowledged.
//!
//! 1. Record i is due at start + i / rate, whatever the broker does, for partition i mod partitions. Its latency counts from then: a stall is
//!    seen by every record that it held up, and not by one (open loop, no coordinated omission).
//! 2. For each node that leads a partition there are two threads and one connection: [`sender`] puts all records that are due into one
//!    request, a batch for each partition, and waits when `--in-flight` requests are on their way; the other takes the acknowledgements.
//! 3. Without `--topic` a topic is made for the run, and deleted afterwards in any case.
//! 4. SIGINT and SIGTERM end the sending; the figures are then of what was sent until that.
//!
//! Invariants: what was due in the warm-up does not count; a record that was refused ends the run with its error, and there is no figure beside
//! a failure.

mod sender;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use clap::{ArgMatches, Command, value_parser};

use crate::arguments::{Context, flag, now_ms, shared, switch, verb};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::moment;
use crate::offsets::{self, Place};
use crate::output::{Document, Table};
use crate::stop::Stop;
use crate::topic::{create, delete, existing};
use sender::{Node, Schedule};

const RATE_MAX: u64 = 10_000_000;
const VALUE_BYTES_MAX: u64 = 64 << 20;
const DURATION_MS_MAX: i64 = 86_400_000;

pub fn command() -> Command {
    verb("bench", "Send records to a broker at a rate, and tell how long they took to be acknowledged")
        .args(shared())
        .arg(flag("topic", "TOPIC", "Into this topic, which stays as it is; else one is made for the run and deleted afterwards"))
        .arg(
            flag("partitions", "N", "Partitions of the topic that is made")
                .short('p')
                .default_value("1")
                .value_parser(value_parser!(i32).range(1..)),
        )
        .arg(flag("replicas", "N", "Its replicas; the broker's default if left out").short('r').value_parser(value_parser!(i16).range(1..)))
        .arg(flag("rate", "N", "Records a second").default_value("1000").value_parser(value_parser!(u64).range(1..=RATE_MAX)))
        .arg(
            flag("size", "BYTES", "Bytes of a record's value")
                .default_value("1024")
                .value_parser(value_parser!(u64).range(1..=VALUE_BYTES_MAX)),
        )
        .arg(flag("duration", "TIME", "How long it is measured, as in 30s or 5m").default_value("10s"))
        .arg(flag("warm-up", "TIME", "How long records are sent before that").default_value("1s"))
        .arg(flag("acks", "ACKS", "Who must have a record before it is acknowledged").value_parser(["all", "1"]).default_value("all"))
        .arg(
            flag("in-flight", "N", "Requests on their way to one node").default_value("5").value_parser(value_parser!(u64).range(1..=1000)),
        )
        .arg(switch("quiet", "No progress on a terminal").short('q'))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or(1);
    let asked = Schedule {
        topic: matches.get_one::<String>("topic").cloned().unwrap_or_else(|| format!("millrace-bench-{}", now_ms())),
        partitions: 0,
        rate: number("rate"),
        value_bytes: usize::try_from(number("size")).unwrap_or(usize::MAX),
        in_flight: usize::try_from(number("in-flight")).unwrap_or(1),
        acks: if crate::arguments::one(matches, "acks") == Some("1") { 1 } else { -1 },
        warm_up: time(matches, "warm-up")?,
        measured: time(matches, "duration")?,
    };
    if asked.measured.is_zero() {
        return Err(Failure::usage("--duration is 0").with_hint("write how long, as in 30s or 5m"));
    }
    let stop = context.stop();
    let is_made = !matches.contains_id("topic");
    if is_made {
        let partitions = matches.get_one::<i32>("partitions").copied();
        create::one(&mut context.client, &asked.topic, partitions, matches.get_one::<i16>("replicas").copied())?;
    }
    let result = load(&mut context.client, asked.clone(), !matches.get_flag("quiet"), &stop);
    if is_made {
        // The load's failure comes before that of cleaning up.
        let deleted = delete::one(&mut context.client, &asked.topic);
        result.as_ref().map_err(Clone::clone)?;
        deleted?;
    }
    context.output.document(&result?)?;
    if stop.is_asked() {
        eprintln!("millrace: stopped; the figures are of what was sent until then");
    }
    Ok(())
}

fn time(matches: &ArgMatches, name: &str) -> Outcome<Duration> {
    let text = crate::arguments::one(matches, name).unwrap_or_default();
    let ms = moment::duration(text).filter(|ms| *ms <= DURATION_MS_MAX).and_then(|ms| u64::try_from(ms).ok());
    let ms = ms.ok_or_else(|| {
        Failure::usage(format!("--{name} cannot be {text:?}")).with_hint("write a length of time up to a day, as in 30s or 5m")
    })?;
    Ok(Duration::from_millis(ms))
}

fn load(client: &mut Client, mut asked: Schedule, with_progress: bool, stop: &Stop) -> Outcome<Document> {
    let found = existing(client, std::slice::from_ref(&asked.topic))?.remove(0);
    let mut nodes: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in &found.partitions {
        let node = crate::client::leader(std::slice::from_ref(&found), &asked.topic, partition.partition_index)?;
        nodes.entry(node).or_default().push(partition.partition_index);
    }
    // A leader may be named before it knows that it is one.
    let places: Vec<Place> = found.partitions.iter().map(|partition| (asked.topic.clone(), partition.partition_index)).collect();
    offsets::ends(client, &places)?.into_iter().collect::<Outcome<Vec<_>>>()?;
    asked.partitions = u64::try_from(found.partitions.len()).unwrap_or(1);
    let mut links = Vec::new();
    for (node, mut partitions) in nodes {
        partitions.sort_unstable();
        links.push(Node { connection: client.dial(node)?, partitions });
    }
    let node_count = links.len();
    let progress =
        Progress { acknowledged: AtomicU64::new(0), failed: AtomicBool::new(false), done: AtomicBool::new(false), stop: stop.clone() };
    let clock = sender::Clock { start: Instant::now() + Duration::from_millis(100), rate: asked.rate };
    let results: Vec<Outcome<sender::Sent>> = std::thread::scope(|scope| {
        let ticker = (with_progress && std::io::stderr().is_terminal()).then(|| scope.spawn(|| tick(&asked, &progress, clock)));
        let workers: Vec<_> = links.into_iter().map(|node| scope.spawn(|| sender::run(node, &asked, clock, &progress))).collect();
        let results = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect();
        progress.done.store(true, Ordering::Relaxed);
        if let Some(ticker) = ticker {
            ticker.join().expect("the ticker does not panic");
        }
        results
    });
    let mut latencies = Histogram::new();
    let (mut records, mut requests, mut last, mut late) = (0, 0, Duration::ZERO, Duration::ZERO);
    for result in results {
        let sent = result?;
        latencies.add(&sent.latencies);
        records += sent.records;
        requests += sent.requests;
        last = last.max(sent.last);
        late = late.max(sent.late);
    }
    Ok(document(&asked, node_count, &latencies, &Totals { records, requests, last, late }))
}

/// What all nodes' threads share.
pub struct Progress {
    pub acknowledged: AtomicU64,
    pub failed: AtomicBool,
    done: AtomicBool,
    pub stop: Stop,
}

/// A line on the terminal that is written over and over, and wiped at the end.
fn tick(asked: &Schedule, progress: &Progress, clock: sender::Clock) {
    let whole = asked.warm_up + asked.measured;
    while !progress.done.load(Ordering::Relaxed) {
        let passed = clock.start.elapsed().min(whole);
        let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
        let line = format!("\r{} of {} s, {acknowledged} records acknowledged ", passed.as_secs(), whole.as_secs());
        let _ = std::io::stderr().write_all(line.as_bytes()); // nobody misses it
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = std::io::stderr().write_all(format!("\r{:60}\r", "").as_bytes());
}

struct Totals {
    records: u64,
    requests: u64,
    /// From the end of the warm-up to the last acknowledgement.
    last: Duration,
    late: Duration,
}

fn document(asked: &Schedule, nodes: usize, latencies: &Histogram, totals: &Totals) -> Document {
    let seconds = totals.last.as_secs_f64().max(f64::MIN_POSITIVE);
    let int = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let bytes = totals.records as f64 * asked.value_bytes as f64;
    let fields = vec![
        ("topic", asked.topic.as_str().into()),
        ("partitions", int(asked.partitions).into()),
        ("nodes", nodes.into()),
        ("acks", if asked.acks == -1 { "all" } else { "1" }.into()),
        ("value_bytes", asked.value_bytes.into()),
        ("rate_wanted", int(asked.rate).into()),
        ("rate", (totals.records as f64 / seconds).into()),
        ("megabytes_per_s", (bytes / 1e6 / seconds).into()),
        ("records", int(totals.records).into()),
        ("requests", int(totals.requests).into()),
        ("sender_late_max_ms", (totals.late.as_secs_f64() * 1e3).into()),
    ];
    Document::new().fields(fields).table("latency", latency_table(latencies))
}

fn latency_table(latencies: &Histogram) -> Table {
    let mut table = Table::new(&["share", "latency_ms"]);
    let mut row = |name: &str, latency: Duration| table.row(vec![name.into(), (latency.as_secs_f64() * 1e3).into()]);
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        row(name, latencies.quantile(share));
    }
    row("max", latencies.max());
    table
}
