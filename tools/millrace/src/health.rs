//! `millrace health`: whether a node is ready, as its admin listener tells. A container that holds nothing but this binary has no other program
//! to ask with.
//!
//! Knows nothing of what makes a node ready.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use millrace::failure::Failure;

/// Until the whole answer is there. A node whose shards are silent says so after a second.
const WAIT: Duration = Duration::from_secs(5);

/// More is no answer of ours.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Asks the admin listener at `address`; gives the line that says that the node is ready.
///
/// # Errors
/// Nobody answers in time, or not as an admin listener does, or the node is not ready: why.
pub fn ask(address: SocketAddr) -> Result<String, Failure> {
    let answer = answer(address).map_err(|error| {
        Failure::Run(match error.kind() {
            ErrorKind::ConnectionRefused => {
                format!("nobody listens on {address}; a node that runs has its admin listener where the setting admin.listener says")
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer from {address} within {} s", WAIT.as_secs()),
            _ => format!("cannot ask {address}: {error}"),
        })
    })?;
    match status_and_body(&answer) {
        Some((200, _)) => Ok(format!("ready: {address}\n")),
        Some((503, body)) => Err(Failure::Run(format!("{address} is not ready: {}", message(body)))),
        Some((status, _)) => Err(Failure::Run(format!("{address} answered with status {status}; is it an admin listener of Millrace?"))),
        None => Err(Failure::Run(format!("{address} does not speak HTTP; is it an admin listener?"))),
    }
}

/// All that it says until it closes.
fn answer(address: SocketAddr) -> std::io::Result<String> {
    let until = Instant::now() + WAIT;
    // A timeout of zero is refused, so that one that is over has to be told before.
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut),
        left => Ok(Some(left)),
    };
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_write_timeout(left()?)?;
    stream.write_all(format!("GET /v1/status/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while answer.len() < ANSWER_BYTES_MAX {
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend(part.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status_and_body(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    Some((words.next()?.parse().ok()?, body))
}

/// The `message` of a problem, or all of a body that has none; on one line.
fn message(body: &str) -> String {
    let begun = body.split_once("\"message\": \"").and_then(|(_, begun)| begun.rsplit_once("\", \"code\""));
    begun.map_or(body, |(message, _)| message).trim().replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What is said of one who answers so and closes.
    fn asked(answer: &'static [u8]) -> Result<String, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it asks");
            let mut asked = [0; 1024];
            let count = stream.read(&mut asked).expect("a request");
            assert!(asked[..count].starts_with(b"GET /v1/status/ready HTTP/1.1\r\n"));
            stream.write_all(answer).expect("it reads");
        });
        let said = ask(address);
        answering.join().expect("it answered");
        said
    }

    fn refused(answer: &'static [u8]) -> String {
        asked(answer).expect_err("it is not ready").to_string()
    }

    #[test]
    fn only_a_node_that_is_ready_passes() {
        assert!(asked(b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ready\"}").expect("it is ready").starts_with("ready: 127.0.0.1:"));
        let starting = refused(b"HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{\"message\": \"the node is starting\", \"code\": 503}");
        assert!(starting.ends_with(" is not ready: the node is starting"), "{starting}");
        assert!(refused(b"HTTP/1.1 503 No\r\n\r\none\r\ntwo\n").ends_with(" is not ready: one  two"));
        assert!(refused(b"HTTP/1.1 404 Not Found\r\n\r\n").contains("status 404"));
        assert!(refused(b"SSH-2.0-x\r\n\r\n").contains("does not speak HTTP"));
        assert!(refused(b"").contains("does not speak HTTP"));
    }

    #[test]
    fn nobody_is_told_from_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let said = ask(address).expect_err("nobody is there").to_string();
        assert!(said.starts_with(&format!("nobody listens on {address}")), "{said}");
    }
}
