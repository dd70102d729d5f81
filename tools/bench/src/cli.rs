//! The command line, parsed into what is to be run.
//!
//! Knows nothing of what the commands do.

use crate::bare;
use crate::batches::BATCH_BYTES_MIN;
use crate::failure::{Failure, Outcome};
use crate::fetch::Reading;
use crate::first_produce::First;
use crate::latency::OneInFlight;
use crate::open_loop::{Schedule, VALUE_BYTES_MIN};
use crate::placement::{Home, Placement};
use crate::produce::Load;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use millrace_base::limits::{BATCH_BYTES_MAX, BLOCK, FRAME_BYTES_MAX, PRODUCER_BATCHES, TOPIC_PARTITIONS_MAX};
use std::ffi::OsString;
use std::time::Duration;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invocation {
    Bare(bare::Config),
    Produce { to: To, load: Load },
    Fetch { to: To, reading: Reading },
    Latency { to: To, asked: OneInFlight },
    OpenLoop { to: To, schedule: Schedule },
    FirstProduce { to: To, first: First },
    MakeTopics { to: To, prefix: String, count: u32, partitions: i32, server: Option<u32> },
    CreateTopic { to: To, topic: String, partitions: i32, configs: Vec<(String, String)> },
    ConfigureTopic { to: To, topic: String, configs: Vec<(String, String)> },
    DeleteTopic { to: To, topic: String },
    Print(String),
}

/// Which server, and how the result is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct To {
    pub bootstrap: String,
    pub json: bool,
}

const CONNECTIONS_MAX: u64 = 1024;
const IN_FLIGHT_MAX: u64 = 1024;
const SECONDS_MAX: u64 = 86_400;

/// What the arguments, the program's name first, ask for.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Outcome<Invocation> {
    match command().try_get_matches_from(arguments) {
        Ok(matches) => invocation(&matches),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Invocation::Print(error.to_string())),
            _ => Err(Failure::Usage(error.to_string().trim_start_matches("error: ").trim_end().to_owned())),
        },
    }
}

fn number(name: &'static str, default: &'static str, range: std::ops::RangeInclusive<u64>, about: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("N").default_value(default).value_parser(value_parser!(u64).range(range)).help(about)
}

fn text(name: &'static str, value: &'static str, about: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(about)
}

fn client(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .arg(text("bootstrap", "HOST:PORT", "The server; it must lead all partitions").required(true))
        .arg(text("topic", "NAME", "The topic").default_value(bare::TOPIC))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one line of JSON"))
}

fn measured(name: &'static str, about: &'static str) -> Command {
    client(name, about).arg(
        Arg::new("server-pid")
            .long("server-pid")
            .value_name("PID")
            .value_parser(value_parser!(u32))
            .help("Report this process's CPU time as well"),
    )
}

/// A command whose connections can be placed.
fn placed(name: &'static str, about: &'static str) -> Command {
    measured(name, about).arg(
        text("home", "any|same|other", "Hold each connection on the shard of its first partition, or on another; needs --server-pid")
            .default_value("any")
            .value_parser(["any", "same", "other"]),
    )
}

fn flag(name: &'static str, about: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(about)
}

fn optional(name: &'static str, about: &'static str, range: std::ops::RangeInclusive<u64>) -> Arg {
    Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u64).range(range)).help(about)
}

fn acks() -> Arg {
    let values = ["-1", "1"];
    Arg::new("acks").long("acks").value_name("ACKS").allow_hyphen_values(true).default_value("-1").value_parser(values).help("-1 is all")
}

fn command() -> Command {
    let seconds = || number("seconds", "5", 1..=SECONDS_MAX, "Measured time");
    let warm_up = || number("warm-up", "2", 0..=SECONDS_MAX, "Seconds before that, which do not count");
    let partitions = || number("partitions", "1", 1..=u64::from(TOPIC_PARTITIONS_MAX), "Partitions of the topic");
    let connections = || number("connections", "1", 1..=CONNECTIONS_MAX, "Connections, a thread each");
    let in_flight = |default| number("in-flight", default, 1..=IN_FLIGHT_MAX, "Requests on their way per connection");
    let batch = |default| {
        number("batch-bytes", default, BATCH_BYTES_MIN as u64..=BATCH_BYTES_MAX as u64, "Bytes of a batch, header included, exactly")
    };
    let rate = || number("rate", "1000", 1..=10_000_000, "Records per second");
    let value = || number("value-bytes", "100", VALUE_BYTES_MIN as u64..=1 << 20, "Bytes of a value");
    let paced = || [partitions(), in_flight("5"), seconds(), warm_up(), acks(), rate(), value()];
    Command::new("millrace-bench")
        .about("Load and measurement for servers that speak Kafka's protocol, and the bare ring server as their limit")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(bare_command().arg(partitions()))
        .subcommand(
            placed("produce", "Produce as fast as the server acknowledges")
                .args([partitions(), connections(), batch("65536"), in_flight("4"), seconds(), warm_up(), acks()])
                .arg(number("record-bytes", "1024", 16..=BATCH_BYTES_MAX as u64, "Bytes of a record, about"))
                .arg(number("linger-batches", "1", 1..=1024, "Batches per request, each for another partition"))
                .arg(flag("idempotent", "With a producer id and sequences; at most 5 requests in flight"))
                .arg(flag("lz4", "Values that compress, and batches compressed by lz4"))
                .arg(flag("touch", "Send a small batch to each partition first, which does not count"))
                .arg(optional("total-bytes", "End when so much has been sent, to fill a topic", 1..=1 << 50)),
        )
        .subcommand(
            placed("fetch", "Read a topic from its first offset to its last")
                .args([partitions(), connections()])
                .arg(number("max-bytes", "1048576", 1024..=FRAME_BYTES_MAX as u64 / 2, "Bytes asked for at a time"))
                .arg(optional("pass-bytes", "Read about so much of a partition at most, then begin again; else all", 1..=u64::MAX))
                .arg(flag("verify", "Compute every batch's CRC"))
                .arg(flag("cold", "Count from the first byte: no pass before"))
                .arg(optional("mb-per-s", "Read no faster than this, all connections together", 1..=1_000_000))
                .arg(optional(
                    "seconds",
                    "Read again and again for this time, after one pass that does not count; else once",
                    1..=SECONDS_MAX,
                )),
        )
        .subcommand(
            placed("latency", "Durable acknowledgements, one in flight")
                .args([partitions(), batch("1024"), acks()])
                .arg(number("sends", "5000", 1..=100_000_000, "Sends that count"))
                .arg(number("warm-up-sends", "500", 0..=100_000_000, "Sends before that"))
                .arg(flag("spin", "Never sleep while waiting for an answer")),
        )
        .subcommand(measured("open-loop", "Latency from the time a record was due to its acknowledgement, at a fixed rate").args(paced()))
        .subcommand(measured("end-to-end", "Latency from the time a record was due to its consumer, at a fixed rate").args(paced()))
        .subcommand(
            client("first-produce", "Knock until a server that starts acknowledges a record; tell how long it took")
                .arg(flag("create", "Make the topic first, unless it is there"))
                .arg(number("wait", "180", 1..=SECONDS_MAX, "Seconds after which to give up")),
        )
        .subcommand(
            measured("make-topics", "Make topics one after the other, tell how many a second, and delete them; --topic begins their names")
                .arg(number("count", "100", 1..=100_000, "Topics"))
                .arg(partitions()),
        )
        .subcommand(client("create-topic", "Make a topic and wait for its leaders").arg(partitions()).arg(config()))
        .subcommand(client("configure-topic", "Set some of a topic's configuration").arg(config().required(true)))
        .subcommand(client("delete-topic", "Delete a topic"))
}

fn config() -> Arg {
    text("config", "KEY=VALUE", "A setting of the topic; may be repeated").action(ArgAction::Append).value_parser(pair)
}

fn bare_command() -> Command {
    Command::new("bare")
        .about("Receive, check the CRC, write durably, answer, and nothing else: the limit that servers are measured against")
        .arg(text("listen", "HOST:PORT", "Where to listen").required(true))
        .arg(text("file", "PATH", "The file to write to; it is overwritten").required(true).value_parser(value_parser!(std::path::PathBuf)))
        .arg(number("bytes", "1073741824", bare::FILE_BYTES_MIN..=1 << 40, "Size of the file, written in full before the start"))
        .arg(text("sync", "yes|no", "Whether a write is durable before it is answered").default_value("yes").value_parser(["yes", "no"]))
        .arg(number("spin-us", "0", 0..=1_000_000, "Look for work this long before sleeping"))
        .arg(text("reads", "HOST:PORT", "Where to serve reads as well, of a file beside the one to write to: PATH.reads"))
        .arg(number("reads-bytes", "64000000", 1..=1 << 40, "Size of that file, written in full before the start").requires("reads"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("give KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn invocation(matches: &ArgMatches) -> Outcome<Invocation> {
    let (name, found) = matches.subcommand().expect("a subcommand is required");
    if name == "bare" {
        return Ok(Invocation::Bare(bare_config(found)));
    }
    let to = To { bootstrap: string(found, "bootstrap"), json: found.get_flag("json") };
    let topic = string(found, "topic");
    match name {
        "produce" => Ok(Invocation::Produce { to, load: load(found, topic)? }),
        "fetch" => Ok(Invocation::Fetch { to, reading: reading(found, topic) }),
        "latency" => Ok(Invocation::Latency { to, asked: one_in_flight(found, topic) }),
        "open-loop" => Ok(Invocation::OpenLoop { to, schedule: schedule(found, topic, false) }),
        "end-to-end" => Ok(Invocation::OpenLoop { to, schedule: schedule(found, topic, true) }),
        "make-topics" => {
            let (count, partitions) = (get(found, "count") as u32, get(found, "partitions") as i32);
            Ok(Invocation::MakeTopics { to, prefix: topic, count, partitions, server: server(found) })
        }
        "first-produce" => {
            Ok(Invocation::FirstProduce { to, first: First { topic, create: found.get_flag("create"), wait: seconds(found, "wait") } })
        }
        "create-topic" => Ok(Invocation::CreateTopic { to, topic, partitions: get(found, "partitions") as i32, configs: configs(found) }),
        "configure-topic" => Ok(Invocation::ConfigureTopic { to, topic, configs: configs(found) }),
        "delete-topic" => Ok(Invocation::DeleteTopic { to, topic }),
        other => unreachable!("there is no subcommand {other}"),
    }
}

fn configs(matches: &ArgMatches) -> Vec<(String, String)> {
    matches.get_many("config").into_iter().flatten().cloned().collect()
}

fn get(matches: &ArgMatches, name: &str) -> u64 {
    *matches.get_one::<u64>(name).expect("it has a default")
}

fn string(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).expect("it is required or has a default").clone()
}

fn seconds(matches: &ArgMatches, name: &str) -> Duration {
    Duration::from_secs(get(matches, name))
}

fn acks_of(matches: &ArgMatches) -> i16 {
    if string(matches, "acks") == "1" { 1 } else { -1 }
}

fn server(matches: &ArgMatches) -> Option<u32> {
    matches.get_one("server-pid").copied()
}

fn placement(matches: &ArgMatches) -> Placement {
    let home = match string(matches, "home").as_str() {
        "same" => Home::Same,
        "other" => Home::Other,
        _ => Home::Any,
    };
    Placement { home, server: server(matches) }
}

fn bare_config(matches: &ArgMatches) -> bare::Config {
    bare::Config {
        listen: string(matches, "listen"),
        file: matches.get_one::<std::path::PathBuf>("file").expect("it is required").clone(),
        file_bytes: get(matches, "bytes").next_multiple_of(BLOCK as u64),
        synced: string(matches, "sync") == "yes",
        spin: Duration::from_micros(get(matches, "spin-us")),
        partitions: get(matches, "partitions") as i32,
        reads: matches.get_one::<String>("reads").map(|listen| bare::Reads { listen: listen.clone(), bytes: get(matches, "reads-bytes") }),
    }
}

fn load(matches: &ArgMatches, topic: String) -> Outcome<Load> {
    let load = Load {
        topic,
        partitions: get(matches, "partitions") as u32,
        connections: get(matches, "connections") as u32,
        batch_bytes: get(matches, "batch-bytes") as usize,
        record_bytes: get(matches, "record-bytes") as usize,
        batches_per_request: get(matches, "linger-batches") as u32,
        in_flight: get(matches, "in-flight") as usize,
        acks: acks_of(matches),
        idempotent: matches.get_flag("idempotent"),
        lz4: matches.get_flag("lz4"),
        touch: matches.get_flag("touch"),
        warm_up: seconds(matches, "warm-up"),
        measured: seconds(matches, "seconds"),
        total_bytes: matches.get_one("total-bytes").copied(),
        placement: placement(matches),
    };
    if load.idempotent && load.in_flight > PRODUCER_BATCHES {
        return Err(Failure::Usage(format!("--idempotent allows --in-flight {PRODUCER_BATCHES} at most, as servers remember no more")));
    }
    if load.total_bytes.is_some() && !load.warm_up.is_zero() {
        return Err(Failure::Usage("--total-bytes fills a topic: give --warm-up 0".to_owned()));
    }
    let request_bytes = load.batch_bytes * load.batches_per_request as usize;
    if request_bytes > FRAME_BYTES_MAX / 2 {
        return Err(Failure::Usage(format!("--batch-bytes times --linger-batches is {request_bytes}; at most {}", FRAME_BYTES_MAX / 2)));
    }
    Ok(load)
}

fn reading(matches: &ArgMatches, topic: String) -> Reading {
    Reading {
        topic,
        partitions: get(matches, "partitions") as u32,
        connections: get(matches, "connections") as u32,
        max_bytes: get(matches, "max-bytes") as i32,
        verify: matches.get_flag("verify"),
        pass_bytes: matches.get_one("pass-bytes").copied().unwrap_or(u64::MAX),
        measured: matches.get_one("seconds").copied().map(Duration::from_secs),
        cold: matches.get_flag("cold"),
        bytes_per_s: matches.get_one::<u64>("mb-per-s").map(|mb| mb * 1_000_000),
        placement: placement(matches),
    }
}

fn one_in_flight(matches: &ArgMatches, topic: String) -> OneInFlight {
    OneInFlight {
        topic,
        partitions: get(matches, "partitions") as u32,
        batch_bytes: get(matches, "batch-bytes") as usize,
        acks: acks_of(matches),
        warm_up_sends: get(matches, "warm-up-sends") as u32,
        sends: get(matches, "sends") as u32,
        spin: matches.get_flag("spin"),
        placement: placement(matches),
    }
}

fn schedule(matches: &ArgMatches, topic: String, consume: bool) -> Schedule {
    Schedule {
        topic,
        partitions: get(matches, "partitions") as u32,
        consume,
        rate: get(matches, "rate"),
        value_bytes: get(matches, "value-bytes") as usize,
        in_flight: get(matches, "in-flight") as usize,
        acks: acks_of(matches),
        warm_up: seconds(matches, "warm-up"),
        measured: seconds(matches, "seconds"),
        server: server(matches),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Outcome<Invocation> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn every_command_is_understood() {
        command().debug_assert();
        let load = "millrace-bench produce --bootstrap h:1 --topic t --partitions 64 --connections 4 --batch-bytes 16384 --in-flight 2 --seconds 3 --acks -1 --linger-batches 8 --server-pid 7 --json";
        let Ok(Invocation::Produce { to, load }) = parsed(load) else { panic!("{load} is a load") };
        assert_eq!(to, To { bootstrap: "h:1".to_owned(), json: true });
        assert_eq!((load.partitions, load.connections, load.batch_bytes, load.in_flight), (64, 4, 16384, 2));
        assert_eq!((load.acks, load.batches_per_request, load.placement), (-1, 8, Placement { home: Home::Any, server: Some(7) }));
        for line in [
            "produce --idempotent --in-flight 5 --home same --server-pid 7",
            "produce --lz4 --touch --total-bytes 99 --warm-up 0",
            "fetch --verify --seconds 2 --pass-bytes 9 --cold --mb-per-s 10 --home other",
            "latency --spin --acks 1 --partitions 16",
            "open-loop --rate 50000 --partitions 64",
            "end-to-end --rate 50000",
            "make-topics --count 5 --topic t",
            "first-produce --create",
            "configure-topic --config a=b",
            "delete-topic",
        ] {
            parsed(&format!("millrace-bench {line} --bootstrap h:1")).unwrap();
        }
        let create = parsed("millrace-bench create-topic --bootstrap h:1 --topic t --config a=b=c");
        let Ok(Invocation::CreateTopic { configs, .. }) = create else { panic!("{create:?} creates") };
        assert_eq!(configs, [("a".to_owned(), "b=c".to_owned())]);
        let bare = parsed("millrace-bench bare --listen h:1 --file f --bytes 99999999 --sync no");
        let Ok(Invocation::Bare(bare)) = bare else { panic!("{bare:?} is the bare server") };
        assert!(!bare.synced && bare.file_bytes.is_multiple_of(BLOCK as u64) && bare.file_bytes >= 99_999_999);
        assert_eq!(bare.reads, None);
        let bare = parsed("millrace-bench bare --listen h:1 --file f --reads h:2");
        let Ok(Invocation::Bare(bare)) = bare else { panic!("{bare:?} is the bare server") };
        assert_eq!(bare.reads, Some(bare::Reads { listen: "h:2".to_owned(), bytes: 64_000_000 }));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = |line: &str| assert!(matches!(parsed(&format!("millrace-bench {line}")), Err(Failure::Usage(_))), "{line}");
        refused("produce");
        refused("produce --bootstrap h:1 --batch-bytes 1");
        refused("produce --bootstrap h:1 --batch-bytes 33554432 --linger-batches 1024");
        refused("produce --bootstrap h:1 --connections 0");
        refused("end-to-end --bootstrap h:1 --value-bytes 8");
        refused("produce --bootstrap h:1 --idempotent --in-flight 6");
        refused("produce --bootstrap h:1 --total-bytes 9");
        refused("produce --bootstrap h:1 --home here");
        refused("create-topic --bootstrap h:1 --config a");
        refused("configure-topic --bootstrap h:1");
        refused("bare --listen h:1 --file f --bytes 1");
        refused("bare --listen h:1 --file f --reads-bytes 1");
        refused("bare --listen h:1 --file f --reads h:2 --reads-bytes 0");
    }
}
