//! The real binary, and a client that asks it one thing after the other.

#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{BrokerId, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use millrace_base::batch::Builder;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub const TOPIC: &str = "t";

pub const PATIENCE: Duration = Duration::from_secs(20);

/// An empty folder of this test.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder); // of an earlier run
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A broker that runs; it is killed when this goes.
pub struct Broker {
    child: Child,
    lines: Receiver<String>,
    pub log: Vec<String>,
    pub address: SocketAddr,
}

/// A start that listens on `address`.
pub fn start_command(address: &str, directories: &[&Path], settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.env_clear(); // no setting comes from who runs the tests
    command.args(["start", "--kafka-addr", address]);
    directories.iter().for_each(|path| {
        command.arg("--data-dir").arg(path);
    });
    settings.iter().for_each(|setting| {
        command.args(["--set", setting]);
    });
    command
}

impl Broker {
    /// Starts one on a free port and waits until it is ready.
    ///
    /// # Errors
    /// It ended before: what it said.
    pub fn start(directories: &[&Path], settings: &[&str]) -> Result<Broker, String> {
        Broker::run(start_command("127.0.0.1:0", directories, settings))
    }

    /// Runs a start and waits until it is ready.
    ///
    /// # Errors
    /// It ended before: what it said.
    pub fn run(mut command: Command) -> Result<Broker, String> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let mut log = Vec::new();
        loop {
            let Ok(line) = lines.recv_timeout(PATIENCE) else {
                let _ = child.kill(); // it may have ended by itself
                child.wait().unwrap();
                return Err(log.join("\n"));
            };
            let address = line.split_once("PLAINTEXT://").filter(|_| line.contains("ready")).map(|(_, rest)| rest);
            log.push(line.clone());
            if let Some(rest) = address {
                let first = rest.split([',', ' ']).next().unwrap();
                return Ok(Broker { child, lines, log, address: first.parse().unwrap() });
            }
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What it has said since it was ready.
    pub fn said(&mut self) -> &[String] {
        self.log.extend(self.lines.try_iter());
        &self.log
    }

    /// Stops it as an operator would, and waits for its end.
    pub fn stop(self) {
        assert_eq!(self.terminate().0, Some(0));
    }

    /// Sends SIGTERM and waits for its end: the exit code, and all that it has said.
    pub fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(stopped.success());
        let code = self.child.wait().unwrap().code();
        let mut said = std::mem::take(&mut self.log);
        said.extend(self.lines.iter());
        (code, said)
    }

    /// Bytes of memory that it holds.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

pub fn framed<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version).with_correlation_id(1);
    let mut body = BytesMut::new();
    header.encode(&mut body, R::header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

pub fn ask<R: Request>(stream: &mut TcpStream, version: i16, request: &R) -> R::Response {
    stream.write_all(&framed(version, request)).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    let mut frame = Bytes::from(frame);
    ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
    R::Response::decode(&mut frame, version).unwrap()
}

pub fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

pub fn create(stream: &mut TcpStream, partitions: i32) {
    let topic = CreatableTopic::default().with_name(topic()).with_num_partitions(partitions).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    assert_eq!(ask(stream, 5, &request).topics[0].error_code, 0);
}

/// A batch of one record; the error code.
pub fn produce(stream: &mut TcpStream, partition: i32, bytes: usize) -> i16 {
    let mut builder = Builder::new(1_700_000_000_000);
    builder.push(1_700_000_000_000, None, Some(&vec![b'x'; bytes]));
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(builder.finish().into()));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data]);
    ask(stream, 9, &request).responses[0].partition_responses[0].error_code
}

pub fn fetch_request(partitions: impl Iterator<Item = (i32, i64)>, max_bytes: i32) -> FetchRequest {
    let part = |(index, offset)| {
        FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(max_bytes)
    };
    let topic = FetchTopic::default().with_topic(topic()).with_partitions(partitions.map(part).collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Error code, high watermark, bytes of records from `offset` on.
pub fn fetch(stream: &mut TcpStream, partition: i32, offset: i64) -> (i16, i64, usize) {
    let answer = ask(stream, 12, &fetch_request([(partition, offset)].into_iter(), 1 << 20));
    let part = &answer.responses[0].partitions[0];
    (part.error_code, part.high_watermark, part.records.as_ref().map_or(0, Bytes::len))
}
