//! The real binary from its first line to its last: what it says when it is ready, what it says when it cannot start, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use std::fs::{Permissions, set_permissions};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Broker, PATIENCE, ask, create, fetch, folder, produce, start_command, topic};

const SETTINGS: &[&str] = &["shards=2", "shard.pin.enable=false"];

/// What was asked for cannot be meant.
const USAGE: i32 = 2;

/// What was asked for did not succeed.
const FAILED: i32 = 1;

/// Runs a start that has to end by itself: the exit code and the last line.
fn refused(mut command: Command) -> (i32, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let code = status.and_then(|status| status.code()).unwrap_or_else(|| panic!("it did not end by itself: {said}"));
    (code, said.lines().last().unwrap_or_default().to_owned())
}

/// It ends with this code, and its last line says each of `parts`.
fn check_refused(command: Command, code: i32, parts: &[&str]) {
    let (found, line) = refused(command);
    assert_eq!(found, code, "{line}");
    assert!(line.starts_with("millrace: "), "{line}");
    for part in parts {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
}

/// As it is: `key=value` behind the text.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let found = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in {line:?}"))
}

#[test]
fn the_ready_line_has_addresses_shards_and_the_time_it_took_and_sigterm_ends_in_code_0() {
    let folder = folder("ready-line");
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace")); // without --kafka-addr, which wins over listeners
    command.env_clear().args(["start", "--data-dir"]).arg(&folder);
    let two = "listeners=PLAINTEXT://127.0.0.1:0,INSIDE://127.0.0.1:0";
    let advertised = "advertised.listeners=INSIDE://broker.example:19092";
    let map = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT";
    command.args(["--set", two, "--set", advertised, "--set", map, "--set", "logging.level=error", "--set", "shards=2"]);
    let broker = Broker::run(command).unwrap();
    let took_ms = began.elapsed().as_millis();
    let [line] = broker.log.iter().filter(|line| line.contains(" ready ")).collect::<Vec<_>>()[..] else { panic!("{:?}", broker.log) };
    let bound = format!("PLAINTEXT://{},INSIDE://broker.example:19092", broker.address);
    assert_eq!(field(line, "addresses"), bound);
    assert_eq!(field(line, "shards"), "2");
    assert!(field(line, "ms").parse::<u128>().unwrap() <= took_ms, "{line}, {took_ms} ms by the caller's clock");
    let mut client = broker.connect();
    create(&mut client, 1);
    assert_eq!(produce(&mut client, 0, 100), 0);
    let (code, said) = broker.terminate();
    assert_eq!(code, Some(0), "{said:?}");

    let broker = Broker::start(&[&folder], SETTINGS).unwrap();
    assert_eq!(fetch(&mut broker.connect(), 0, 0).1, 1);
    let (code, said) = broker.terminate();
    assert_eq!(code, Some(0));
    assert!(said.iter().any(|line| line.ends_with(" stopping")) && said.iter().any(|line| line.ends_with(" stopped")), "{said:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_busy_port_is_named_with_what_to_do() {
    let folder = folder("busy-port");
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    check_refused(
        start_command(&address, &[&folder], SETTINGS),
        FAILED,
        &[&format!("cannot listen on {address}"), "in use", "--kafka-addr", "listeners"],
    );
    let broker = Broker::start(&[&folder.join("first")], SETTINGS).unwrap();
    let address = broker.address.to_string();
    check_refused(
        start_command(&address, &[&folder.join("second")], SETTINGS),
        FAILED,
        &[&format!("cannot listen on {address}"), "in use"],
    );
    drop(busy);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The start as someone whom permissions bind: root may write wherever it likes until that is taken from it.
fn bound_by_permissions(start: &Command) -> Command {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        let mut command = Command::new(start.get_program());
        command.env_clear().args(start.get_args());
        return command;
    }
    let mut command = Command::new("/usr/bin/setpriv"); // of util-linux
    command.env_clear().args(["--bounding-set=-dac_override", "--inh-caps=-dac_override"]);
    command.arg(start.get_program()).args(start.get_args());
    command
}

#[test]
fn a_data_directory_that_cannot_be_written_to_is_named_with_the_reason() {
    let folder = folder("read-only");
    let path = |name: &str| folder.join(name);
    let named = |path: &Path| path.to_str().unwrap().to_owned();
    let start = |path: &Path| start_command("127.0.0.1:0", &[path], SETTINGS);

    let empty = path("empty");
    std::fs::create_dir(&empty).unwrap();
    set_permissions(&empty, Permissions::from_mode(0o555)).unwrap();
    check_refused(bound_by_permissions(&start(&empty)), FAILED, &[&named(&empty), "denied"]);
    check_refused(bound_by_permissions(&start(&empty.join("below"))), FAILED, &[&named(&empty.join("below")), "denied"]);
    set_permissions(&empty, Permissions::from_mode(0o755)).unwrap();

    std::fs::write(path("file"), b"no directory").unwrap();
    check_refused(start(&path("file")), FAILED, &[&named(&path("file"))]);
    check_refused(start(&path("file").join("below")), FAILED, &[&named(&path("file").join("below")), "Not a directory"]);

    let used = path("used");
    Broker::start(&[&used], SETTINGS).unwrap().stop();
    set_permissions(&used, Permissions::from_mode(0o555)).unwrap();
    set_permissions(used.join("millrace.lock"), Permissions::from_mode(0o444)).unwrap();
    check_refused(bound_by_permissions(&start(&used)), FAILED, &[&named(&used), "denied"]);
    set_permissions(&used, Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_second_start_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let folder = folder("second-start");
    let broker = Broker::start(&[&folder], SETTINGS).unwrap();
    create(&mut broker.connect(), 1);
    let path = folder.to_str().unwrap();
    check_refused(start_command("127.0.0.1:0", &[&folder], SETTINGS), FAILED, &[path, "in use by another broker"]);
    let address = broker.address.to_string();
    check_refused(start_command(&address, &[&folder], SETTINGS), FAILED, &[path, "in use by another broker"]);
    assert_eq!(produce(&mut broker.connect(), 0, 100), 0);
    broker.stop();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_bad_setting_is_named_with_its_value_its_origin_and_what_is_allowed() {
    let folder = folder("bad-setting");
    let with = |setting: &str| start_command("127.0.0.1:0", &[&folder], &[setting]);
    check_refused(with("num.partitions=0"), USAGE, &["num.partitions", "\"0\"", "--set", "allowed", "from 1 to"]);
    check_refused(with("retention.ms=soon"), USAGE, &["retention.ms", "log.retention.ms"]);
    check_refused(with("log.retention.ms=soon"), USAGE, &["log.retention.ms", "\"soon\"", "allowed", "a whole number from -1 to"]);
    check_refused(with("log.cleanup.policy=shrink"), USAGE, &["log.cleanup.policy", "\"shrink\"", "compact, delete"]);
    check_refused(with("auto.create.topics.enable=maybe"), USAGE, &["auto.create.topics.enable", "\"maybe\"", "true"]);
    check_refused(with("num.partitons=3"), USAGE, &["num.partitons", "num.partitions"]);
    check_refused(start_command("0.0.0.0:9092", &[&folder], SETTINGS), USAGE, &["listeners", "0.0.0.0:9092", "--advertised-addr"]);

    let mut command = with("num.partitions=1");
    command.env("MILLRACE_NUM_IO_THREADS", "8").env("MILLRACE_LOG_SEGMENT_BYTES", "10");
    check_refused(command, USAGE, &["MILLRACE_NUM_IO_THREADS"]);
    let mut command = with("num.partitions=1");
    command.env("MILLRACE_LOG_SEGMENT_BYTES", "10");
    check_refused(command, USAGE, &["log.segment.bytes", "\"10\"", "MILLRACE_LOG_SEGMENT_BYTES", "1048576"]);

    let file = folder.join("settings.yaml");
    std::fs::write(&file, "num.partitions: 3\nlog.roll.ms: 0\n").unwrap();
    let mut command = with("num.partitions=1");
    command.arg("--config").arg(&file);
    check_refused(command, USAGE, &["log.roll.ms", "\"0\"", file.to_str().unwrap(), "from 1 to"]);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Of the topic, on any connection.
fn metadata(stream: &mut TcpStream) -> MetadataResponse {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic()));
    ask(stream, 9, &MetadataRequest::default().with_topics(Some(vec![wanted])))
}

#[test]
fn a_listener_on_ipv6_serves_whom_metadata_sends_there() {
    if TcpListener::bind("[::1]:0").is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable) {
        eprintln!("this machine has no IPv6: nothing is tried");
        return;
    }
    let folder = folder("ipv6");
    let broker = Broker::run(start_command("[::1]:0", &[&folder], SETTINGS)).unwrap();
    assert!(broker.address.is_ipv6());
    assert!(broker.log.iter().any(|line| line.contains(&format!("addresses=PLAINTEXT://{} ", broker.address))), "{:?}", broker.log);
    let mut client = broker.connect();
    create(&mut client, 1);
    let answer = metadata(&mut client);
    let [node] = &answer.brokers[..] else { panic!("{answer:?}") };
    assert_eq!((&*node.host, node.port), ("::1", i32::from(broker.address.port())));
    assert_eq!(answer.topics[0].partitions[0].leader_id, node.node_id);
    let told = SocketAddr::new(node.host.parse().unwrap(), u16::try_from(node.port).unwrap());
    let mut client = TcpStream::connect(told).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(produce(&mut client, 0, 5_000), 0);
    let (code, high_watermark, bytes) = fetch(&mut client, 0, 0);
    assert!(code == 0 && high_watermark == 1 && bytes > 5_000, "{code} {high_watermark} {bytes}");
    broker.stop();
    std::fs::remove_dir_all(&folder).unwrap();
}
