//! The admin listener of the real binary: readiness, and metrics that say what has been done.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId};
use kafka_protocol::protocol::StrBytes;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Broker, PATIENCE, TOPIC, ask, create, fetch, folder, produce, start_command, topic};

/// Where it listens, by what it said.
fn admin_address(broker: &Broker) -> SocketAddr {
    let line = broker.log.iter().find(|line| line.contains("readiness and metrics")).unwrap();
    line.rsplit_once("http://").unwrap().1.trim().parse().unwrap()
}

/// The status and the body.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if path.ends_with("metrics") {
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    }
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a metric whose line begins so.
fn value(page: &str, begin: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin} in\n{page}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn commit(stream: &mut TcpStream, offset: i64) {
    let group = GroupId(StrBytes::from_static_str("g"));
    let began = Instant::now();
    // The group's partition of the offsets topic is made when it is asked for first.
    loop {
        let request = FindCoordinatorRequest::default().with_key(group.0.clone());
        let found = ask(stream, 1, &request).error_code;
        let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
        let topics = vec![OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition])];
        let request =
            OffsetCommitRequest::default().with_group_id(group.clone()).with_generation_id_or_member_epoch(-1).with_topics(topics);
        if found == 0 && ask(stream, 5, &request).topics[0].partitions[0].error_code == 0 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "no offset can be committed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_was_done_stands_in_the_metrics() {
    let data = folder("metrics");
    let broker = Broker::start(&[&data], &["admin.listener=127.0.0.1:0", "shards=2", "memory.max.bytes=512MiB"]).unwrap();
    let admin = admin_address(&broker);
    assert_eq!(get(admin, "/v1/status/ready"), (200, "{\"status\":\"ready\"}".to_owned()));
    assert_eq!(get(admin, "/healthz/ready").0, 200);
    assert_eq!(get(admin, "/healthz/live"), (200, "{\"status\":\"live\"}".to_owned()));
    let (status, body) = get(admin, "/v1/nothing");
    assert_eq!((status, body.as_str()), (404, "{\"message\": \"there is nothing at /v1/nothing\", \"code\": 404}"));
    let mut stream = broker.connect();
    create(&mut stream, 1);
    for _ in 0..5 {
        assert_eq!(produce(&mut stream, 0, 100), 0);
    }
    assert_ne!(produce(&mut stream, 7, 100), 0, "there is no such partition");
    let (_, _, fetched) = fetch(&mut stream, 0, 0);
    commit(&mut stream, 2);
    let (status, page) = get(admin, "/metrics");
    assert_eq!(status, 200);
    let of_partition = format!("{{topic=\"{TOPIC}\",partition=\"0\"}}");
    assert!((value(&page, &format!("millrace_partition_high_watermark{of_partition}")) - 5.0).abs() < 0.1);
    assert!((value(&page, &format!("millrace_partition_produced_records_total{of_partition}")) - 5.0).abs() < 0.1);
    assert!((value(&page, &format!("millrace_partition_fetched_bytes_total{of_partition}")) - fetched as f64).abs() < 0.1);
    assert!((value(&page, &format!("millrace_group_lag{{group=\"g\",topic=\"{TOPIC}\",partition=\"0\"}}")) - 3.0).abs() < 0.1);
    assert!((value(&page, "millrace_ready") - 1.0).abs() < 0.1);
    assert!(page.contains("request=\"Produce\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 1"), "{page}");
    assert!(value(&page, "process_resident_memory_bytes") > 1e6);
    assert!(value(&page, "millrace_disk_free_bytes") > 1e6);
    assert!(value(&page, "millrace_disk_free_bytes") < value(&page, "millrace_disk_total_bytes"));
    let (status, public) = get(admin, "/public_metrics");
    assert_eq!(status, 200);
    let of_topic = format!("redpanda_namespace=\"kafka\",redpanda_topic=\"{TOPIC}\"");
    assert!((value(&public, &format!("redpanda_kafka_max_offset{{{of_topic},redpanda_partition=\"0\"}}")) - 5.0).abs() < 0.1);
    assert!((value(&public, "redpanda_kafka_consumer_group_lag_sum{redpanda_group=\"g\"}") - 3.0).abs() < 0.1);
    assert!((value(&public, "redpanda_kafka_request_latency_seconds_count{redpanda_request=\"produce\"}") - 6.0).abs() < 0.1);
    assert!((value(&public, "redpanda_cluster_unavailable_partitions") - 0.0).abs() < 0.1);
    for page in [&page, &public] {
        lint(page);
    }
    broker.stop();
    assert!(TcpStream::connect(admin).is_err());
}

/// Asks Prometheus' own linter, where it is installed: `scripts/test` sees to it that it is.
fn lint(page: &str) {
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else { return println!("promtool is not installed: the pages are not linted") };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.trim().is_empty(), "{text}\n{page}");
}

/// What `millrace health` says with these arguments and settings, and its exit code.
fn health(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.env_clear().arg("health").args(arguments).envs(variables.iter().copied());
    let said = command.output().unwrap();
    (said.status.code(), String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr))
}

#[test]
fn a_health_check_needs_no_other_program() {
    let data = folder("health");
    let broker = Broker::start(&[&data], &["admin.listener=127.0.0.1:0"]).unwrap();
    let admin = admin_address(&broker).to_string();
    assert_eq!(health(&["--admin-addr", &admin], &[]), (Some(0), format!("ready: {admin}\n")));
    let file = data.join("settings.yaml");
    std::fs::write(&file, format!("admin.listener: {admin}\n")).unwrap();
    assert_eq!(health(&["--config", &file.to_string_lossy()], &[]).0, Some(0));
    // As in a container: bound to every address, asked at its own.
    let everywhere = admin.replace("127.0.0.1", "0.0.0.0");
    assert_eq!(health(&[], &[("MILLRACE_ADMIN_LISTENER", &everywhere)]), (Some(0), format!("ready: {everywhere}\n")));
    let kafka = broker.address.to_string();
    let (status, said) = health(&["--admin-addr", &kafka], &[]);
    assert!(status == Some(1) && said.contains(&kafka) && said.trim().lines().count() == 1, "{said}");
    broker.stop();
    let (status, said) = health(&["--admin-addr", &admin], &[]);
    assert!(status == Some(1) && said.starts_with(&format!("millrace: nobody listens on {admin}")), "{said}");
    assert_eq!(health(&["--admin-addr", "nowhere"], &[]).0, Some(2));
    assert_eq!(health(&[], &[("MILLRACE_ADMIN_LISTENER", "none")]).0, Some(2));
}

#[test]
fn a_port_that_was_asked_for_and_is_taken_ends_the_start_and_the_default_does_not() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = folder("metrics-port-taken");
    let said = start_command("127.0.0.1:0", &[&data], &[&format!("admin.listener={address}")]).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(1));
    assert!(text.contains(&format!("cannot listen on {address}")) && text.contains("the setting admin.listener"), "{text}");
    let said = start_command("127.0.0.1:0", &[&data], &["admin.listener=nowhere"]).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    let default = TcpListener::bind("127.0.0.1:9644"); // another broker of this machine may have it as well
    let broker = Broker::start(&[&data], &[]).unwrap();
    assert!(broker.log.iter().any(|line| line.contains("127.0.0.1:9644 cannot be bound")), "{:?}", broker.log);
    drop(default);
    broker.stop();
    let broker = Broker::start(&[&data], &["admin.listener=none"]).unwrap();
    assert!(!broker.log.iter().any(|line| line.contains("metrics")), "{:?}", broker.log);
    broker.stop();
}
