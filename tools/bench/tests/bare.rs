//! The bare server as clients see it: the load of this package runs against it, and bad bytes cost their sender only.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_millrace-bench");

struct Bare {
    process: Child,
    address: String,
    reads: String,
    file: PathBuf,
}

impl Bare {
    fn start(name: &str, sync: &str) -> Bare {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.dat"));
        let mut process = Command::new(PROGRAM)
            .args(["bare", "--listen", "127.0.0.1:0", "--bytes", "67108864", "--sync", sync, "--spin-us", "5", "--file"])
            .arg(&file)
            .args(["--reads", "127.0.0.1:0", "--reads-bytes", "2000000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (address, reads) = line.trim().strip_prefix("ready ").unwrap().split_once(", reads ").unwrap();
        Bare { process, address: address.to_owned(), reads: reads.to_owned(), file }
    }

    fn reads_file(&self) -> PathBuf {
        let mut path = self.file.clone().into_os_string();
        path.push(".reads");
        path.into()
    }

    fn succeeds(&self, arguments: &str) -> String {
        succeeds(&self.address, arguments)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_file(&self.file).unwrap();
        std::fs::remove_file(self.reads_file()).unwrap();
    }
}

fn bench(address: &str, arguments: &str) -> Output {
    Command::new(PROGRAM).args(arguments.split(' ')).args(["--bootstrap", address]).output().unwrap()
}

fn succeeds(address: &str, arguments: &str) -> String {
    let output = bench(address, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fails_in_one_line(address: &str, arguments: &str) {
    let output = bench(address, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1, "{said}");
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

#[test]
fn every_load_is_acknowledged_and_lands_in_the_file() {
    let bare = Bare::start("load", "yes");
    let json = bare.succeeds("produce --seconds 1 --warm-up 0 --connections 3 --batch-bytes 100000 --json");
    assert!(json.starts_with("{\"command\":\"produce\"") && json.contains("\"p99_ms\":"), "{json}");
    bare.succeeds("produce --seconds 1 --warm-up 0 --partitions 10 --linger-batches 4 --in-flight 8 --batch-bytes 2000000 --acks 1");
    let server = bare.process.id();
    let text = bare.succeeds(&format!("latency --sends 50 --warm-up-sends 1 --spin --server-pid {server}"));
    assert!(text.contains("server_cpu_s_per_gb"), "{text}");
    bare.succeeds("first-produce --wait 5");
    let json = bare.succeeds("produce --seconds 20 --warm-up 0 --lz4 --touch --partitions 3 --total-bytes 300000 --json");
    assert!(json.contains("\"uncompressed_mb_per_s\":"), "{json}");
    bare.succeeds("latency --sends 50 --warm-up-sends 1 --partitions 16");
    let json = bare.succeeds("open-loop --seconds 1 --warm-up 0 --rate 500 --partitions 16 --json");
    assert!(json.contains("\"samples\":500,"), "a latency for each record: {json}");
    let mut front = [0; 17];
    std::fs::File::open(&bare.file).unwrap().read_exact(&mut front).unwrap();
    assert_eq!(front[16], 2, "the file begins with a batch of version 2");
}

#[test]
fn what_was_written_before_the_start_is_read_from_the_other_address() {
    let bare = Bare::start("reads", "no");
    let bytes = std::fs::metadata(bare.reads_file()).unwrap().len();
    assert_eq!(bytes, 8 * (256 << 10), "2,000,000 bytes, the last batch whole");
    for arguments in
        ["fetch --verify --json", "fetch --verify --json --max-bytes 1024", "fetch --verify --json --connections 1 --max-bytes 600000"]
    {
        let json = succeeds(&bare.reads, arguments);
        assert!(json.contains(&format!("\"bytes\":{bytes},")), "{arguments}: {json}");
    }
    let json = succeeds(&bare.reads, &format!("fetch --seconds 1 --connections 3 --json --server-pid {}", bare.process.id()));
    assert!(json.contains("\"server_cpu_s_per_gb\":"), "{json}");
    for arguments in ["fetch --partitions 2", "produce --seconds 1 --warm-up 0", "end-to-end --seconds 1 --warm-up 0", "create-topic"] {
        fails_in_one_line(&bare.reads, arguments);
    }
    bare.succeeds("latency --sends 20 --warm-up-sends 1");
}

#[test]
fn bad_bytes_close_their_connection_and_no_other() {
    let bare = Bare::start("bad", "no");
    let frames: [&[u8]; 5] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 1, 0],
        &[0, 0, 0, 12, 0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 8, 0, 1, 0, 4, 0, 0, 0, 1],
    ];
    for (address, arguments) in [(&bare.address, "latency --sends 20 --warm-up-sends 1"), (&bare.reads, "fetch --verify")] {
        for frame in frames {
            let mut stream = connect(address);
            stream.write_all(frame).unwrap();
            // Closed with bytes unread, the connection may end as a reset.
            let answered = stream.read(&mut [0; 16]);
            let closed = answered.as_ref().map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |read| *read == 0);
            assert!(closed, "{frame:?}: {answered:?}");
        }
        let half_open = connect(address);
        let mut cut = connect(address);
        cut.write_all(&[0, 0, 1]).unwrap();
        drop(cut);
        succeeds(address, arguments);
        drop(half_open);
    }
}

#[test]
fn a_batch_with_a_wrong_crc_is_refused_with_its_error() {
    let bare = Bare::start("crc", "yes");
    let mut stream = connect(&bare.address);
    // Produce 3, one topic "t", one partition 0, 61 bytes that are no batch.
    let mut frame = vec![0, 0, 0, 3, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't'];
    frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 61]);
    frame.extend_from_slice(&[0x5a; 61]);
    stream.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
    stream.write_all(&frame).unwrap();
    let mut answer = [0; 45];
    stream.read_exact(&mut answer).unwrap();
    let error = &answer[4 + 4 + 4 + 3 + 4 + 4..][..2];
    assert_eq!((&answer[..8], error), (&[0, 0, 0, 41, 0, 0, 0, 9][..], &[0, 2][..]), "{answer:?}");
}

#[test]
fn what_does_not_answer_or_refuses_fails_the_run_in_one_line() {
    let bare = Bare::start("fail", "no");
    for arguments in [
        "fetch",
        "end-to-end --seconds 1 --warm-up 0",
        "create-topic",
        "delete-topic",
        "make-topics --count 1",
        "produce --idempotent --seconds 1",
    ] {
        fails_in_one_line(&bare.address, arguments);
    }
}
