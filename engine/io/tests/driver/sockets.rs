//! Promises about sockets, sleeping and waking.

use super::{Bench, Client, PASSES, Rig, pattern};
use millrace_base::clock::Nanos;
use millrace_io::{Completion, IoError, Listener, Memory, Op, Slice, Socket, Token, Wait};
use std::collections::BTreeMap;
use std::net::SocketAddr;

const ANY: &str = "127.0.0.1:0";

impl<R: Rig> Bench<R> {
    fn listen(&mut self) -> (Listener, SocketAddr, Token) {
        let (listener, bound) = self.driver.listen(ANY.parse().unwrap(), false).unwrap();
        assert_ne!(bound.port(), 0);
        let token = self.submit(Op::Accept { listener });
        (listener, bound, token)
    }

    /// The next connection; the accept is asked again when it has ended by itself.
    fn accepted(&mut self, listener: Listener, accept: &mut Token) -> Socket {
        for _ in 0..PASSES {
            let Completion { result, more, .. } = self.await_token(*accept);
            if !more {
                *accept = self.submit(Op::Accept { listener });
            }
            if let Ok(socket) = result {
                return Socket(socket);
            }
        }
        panic!("no connection is accepted");
    }

    fn pair(&mut self) -> (Socket, Box<dyn Client>, SocketAddr) {
        let (listener, bound, mut accept) = self.listen();
        let client = self.rig.connect(bound);
        (self.accepted(listener, &mut accept), client, bound)
    }

    fn receive(&mut self, socket: Socket, len: u32, whole: bool) -> Result<Vec<u8>, IoError> {
        let into = self.space(len as usize + 16);
        let (result, memory) = self.run(Op::Receive { socket, into, at: 16, len, whole });
        let Memory::Space(mut space) = memory else { panic!("a receive gives its space back") };
        result.map(|count| space.unfrozen()[16..16 + count as usize].to_vec())
    }

    fn send(&mut self, socket: Socket, bytes: &[u8]) {
        let mut left = vec![self.slice(bytes)];
        while !left.is_empty() {
            let (result, memory) = self.run(Op::Send { socket, from: left });
            let Memory::Slices(back) = memory else { panic!("a send gives its slices back") };
            left = behind(back, result.unwrap() as usize);
        }
    }

    fn client_sends(&mut self, client: &mut dyn Client, bytes: &[u8]) {
        let mut sent = 0;
        for _ in 0..PASSES {
            sent += client.send(&bytes[sent..]).unwrap();
            if sent == bytes.len() {
                return;
            }
            self.pass();
        }
        panic!("the client cannot send");
    }

    /// What the client receives until `len` bytes are there or the peer finishes.
    fn client_receives(&mut self, client: &mut dyn Client, len: usize) -> Result<Vec<u8>, IoError> {
        let mut bytes = Vec::new();
        for _ in 0..PASSES {
            match client.receive()? {
                Some(more) if more.is_empty() => return Ok(bytes),
                Some(more) => bytes.extend(more),
                None => self.pass(),
            }
            if bytes.len() >= len {
                return Ok(bytes);
            }
        }
        panic!("the client receives nothing");
    }
}

/// What is left of `slices` after `count` bytes.
fn behind(slices: Vec<Slice>, mut count: usize) -> Vec<Slice> {
    let mut left = Vec::new();
    for slice in slices {
        let gone = count.min(slice.len());
        count -= gone;
        if gone < slice.len() {
            left.push(slice.sub(gone..slice.len()));
        }
    }
    assert_eq!(count, 0, "no more is taken than was given");
    left
}

pub fn an_echo_serves_several_clients<R: Rig>(mut bench: Bench<R>) {
    const CLIENTS: usize = 5;
    const BYTES: usize = 400 << 10;
    let (listener, bound, mut accept) = bench.listen();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| bench.rig.connect(bound)).collect();
    let (mut sent, mut echoed) = (vec![0; CLIENTS], vec![Vec::new(); CLIENTS]);
    let sources: Vec<_> = (0..CLIENTS).map(|i| pattern(BYTES, i as u8)).collect();
    let mut sockets: BTreeMap<Token, Socket> = BTreeMap::new();
    for _ in 0..PASSES {
        for i in 0..CLIENTS {
            let end = BYTES.min(sent[i] + 50_000);
            sent[i] += clients[i].send(&sources[i][sent[i]..end]).unwrap();
            while let Some(bytes) = clients[i].receive().unwrap() {
                assert!(!bytes.is_empty(), "the echo does not end first");
                echoed[i].extend(bytes);
            }
        }
        if echoed.iter().all(|bytes| bytes.len() == BYTES) {
            break;
        }
        bench.pass();
        for Completion { token, result, memory, more } in std::mem::take(&mut bench.done) {
            if token == accept {
                let into = bench.space(64 << 10);
                if let Ok(socket) = result {
                    assert!(bench.driver.peer(Socket(socket)).is_some());
                    let token = bench.submit(Op::Receive { socket: Socket(socket), into, at: 0, len: 64 << 10, whole: false });
                    sockets.insert(token, Socket(socket));
                }
                if !more {
                    accept = bench.submit(Op::Accept { listener });
                }
                continue;
            }
            let socket = sockets.remove(&token).expect("an operation of ours");
            let count = result.unwrap() as usize;
            let next = match memory {
                Memory::Space(mut space) => {
                    assert!(count > 0, "the clients do not end");
                    let slice = space.freeze(count);
                    let middle = count / 3;
                    Op::Send { socket, from: vec![slice.sub(0..middle), slice.sub(middle..count)] }
                }
                Memory::Slices(slices) => match behind(slices, count) {
                    left if left.is_empty() => Op::Receive { socket, into: bench.space(64 << 10), at: 0, len: 64 << 10, whole: false },
                    left => Op::Send { socket, from: left },
                },
                Memory::None | Memory::Slice(_) => panic!("not the memory that went in"),
            };
            let token = bench.submit(next);
            sockets.insert(token, socket);
        }
    }
    assert!(echoed == sources, "every byte came back, in order");
}

pub fn a_client_that_finishes_is_seen_and_still_answered<R: Rig>(mut bench: Bench<R>) {
    let (socket, mut client, _) = bench.pair();
    bench.client_sends(&mut *client, b"question");
    client.finish();
    let mut bytes = Vec::new();
    loop {
        let more = bench.receive(socket, 64, false).unwrap();
        if more.is_empty() {
            break;
        }
        bytes.extend(more);
    }
    assert_eq!(bytes, b"question");
    bench.send(socket, b"answer");
    assert_eq!(bench.ask(Op::CloseSocket { socket }), Ok(0));
    assert_eq!(bench.client_receives(&mut *client, 100), Ok(b"answer".to_vec()));
}

pub fn a_whole_receive_waits_for_all<R: Rig>(mut bench: Bench<R>) {
    let (socket, mut client, _) = bench.pair();
    let source = pattern(200_000, 9);
    let into = bench.space(200_000);
    let token = bench.submit(Op::Receive { socket, into, at: 0, len: 200_000, whole: true });
    for part in source.chunks(30_000) {
        bench.client_sends(&mut *client, part);
        bench.pass();
    }
    let Completion { result, memory, .. } = bench.await_token(token);
    let Memory::Space(mut space) = memory else { panic!("a receive gives its space back") };
    assert!(result == Ok(200_000) && space.unfrozen()[..200_000] == source);
    bench.client_sends(&mut *client, b"less");
    client.finish();
    assert_eq!(bench.receive(socket, 100, true), Ok(b"less".to_vec()), "unless the connection ends first");
    assert_eq!(bench.receive(socket, 100, true), Ok(vec![]));
}

pub fn an_idle_connection_becomes_readable<R: Rig>(mut bench: Bench<R>) {
    let (socket, mut client, _) = bench.pair();
    let token = bench.submit(Op::Readable { socket });
    for _ in 0..20 {
        bench.pass();
    }
    assert!(bench.done.is_empty(), "nothing has come yet");
    bench.client_sends(&mut *client, b"now");
    let completion = bench.await_token(token);
    assert!(completion.result == Ok(0) && matches!(completion.memory, Memory::None));
    assert_eq!(bench.ask(Op::Readable { socket }), Ok(0), "still unread");
    assert_eq!(bench.receive(socket, 3, true), Ok(b"now".to_vec()));
    client.finish();
    assert_eq!(bench.ask(Op::Readable { socket }), Ok(0), "the end counts too");
    assert_eq!(bench.receive(socket, 3, false), Ok(vec![]));
}

pub fn closing_completes_what_is_in_flight<R: Rig>(mut bench: Bench<R>) {
    let (socket, mut client, _) = bench.pair();
    let into = bench.space(4096);
    let receive = bench.submit(Op::Receive { socket, into, at: 0, len: 4096, whole: true });
    let readable = bench.submit(Op::Readable { socket });
    // Far more than both ends buffer, so that it must wait for the client, which takes nothing.
    let slice = bench.slice(&vec![1; 4 << 20]);
    let send = bench.submit(Op::Send { socket, from: vec![slice.clone(), slice.clone(), slice.clone(), slice] });
    let mut first = bench.await_token(send);
    while first.result.is_ok() {
        let Memory::Slices(slices) = first.memory else { panic!("a send gives its slices back") };
        let from = behind(slices, first.result.unwrap() as usize);
        let token = bench.submit(Op::Send { socket, from });
        for _ in 0..200 {
            bench.pass();
        }
        match bench.done.iter().position(|c| c.token == token) {
            Some(at) => first = bench.done.remove(at),
            None => {
                let close = bench.submit(Op::CloseSocket { socket });
                let late = bench.submit(Op::Readable { socket });
                assert_eq!(bench.await_token(late).result, Err(IoError::BAD_FILE), "closing takes nothing new");
                let mut order = Vec::new();
                while order.last() != Some(&close) {
                    if bench.done.is_empty() {
                        bench.pass();
                    }
                    for Completion { token, result, memory, .. } in std::mem::take(&mut bench.done) {
                        let memory_is_back = match memory {
                            Memory::Space(_) => token == receive,
                            Memory::Slices(_) => token != receive && token != readable && token != close,
                            Memory::None => token == readable || token == close,
                            Memory::Slice(_) => false,
                        };
                        assert!(memory_is_back && (result.is_err() || token == close), "{token}: {result:?}");
                        order.push(token);
                    }
                }
                assert_eq!(order.len(), 4, "each once, the close last");
                while client.receive().is_ok_and(|bytes| bytes.is_none_or(|bytes| !bytes.is_empty())) {
                    bench.pass();
                }
                return;
            }
        }
    }
    panic!("the send failed: {:?}", first.result);
}

pub fn a_reset_is_told<R: Rig>(mut bench: Bench<R>) {
    let (socket, client, _) = bench.pair();
    bench.send(socket, b"never read");
    for _ in 0..20 {
        bench.pass();
    }
    let into = bench.space(64);
    let token = bench.submit(Op::Receive { socket, into, at: 0, len: 64, whole: false });
    client.reset();
    assert_eq!(bench.await_token(token).result, Err(IoError::RESET));
    let from = vec![bench.slice(b"x")];
    let (result, memory) = bench.run(Op::Send { socket, from });
    assert!(result == Err(IoError(libc::EPIPE)) && matches!(memory, Memory::Slices(_)), "{result:?}");
    assert_eq!(bench.ask(Op::CloseSocket { socket }), Ok(0));
}

pub fn a_connection_moves_between_drivers<R: Rig>(mut bench: Bench<R>) {
    let (socket, mut client, _) = bench.pair();
    bench.client_sends(&mut *client, b"one");
    assert_eq!(bench.receive(socket, 3, true), Ok(b"one".to_vec()));
    bench.client_sends(&mut *client, b"two");
    let peer = bench.driver.peer(socket);
    let detached = bench.driver.detach(socket);
    assert_eq!(bench.driver.peer(socket), None);
    let other = bench.rig.driver();
    let first = std::mem::replace(&mut bench.driver, other);
    let socket = bench.driver.attach(detached);
    assert_eq!(bench.driver.peer(socket), peer);
    drop(first);
    assert_eq!(bench.receive(socket, 3, true), Ok(b"two".to_vec()));
    bench.send(socket, b"three");
    assert_eq!(bench.client_receives(&mut *client, 5), Ok(b"three".to_vec()));
}

pub fn an_address_in_use_is_refused<R: Rig>(mut bench: Bench<R>) {
    let (_, bound) = bench.driver.listen(ANY.parse().unwrap(), false).unwrap();
    assert_eq!(bench.driver.listen(bound, false), Err(IoError(libc::EADDRINUSE)));
    assert_eq!(bench.driver.listen(bound, true), Err(IoError(libc::EADDRINUSE)));
    let (_, shared) = bench.driver.listen(ANY.parse().unwrap(), true).unwrap();
    let mut other = bench.rig.driver();
    assert!(other.listen(shared, true).is_ok());
    assert_eq!(bench.driver.listen("203.0.113.1:9092".parse().unwrap(), false), Err(IoError(libc::EADDRNOTAVAIL)));
}

pub fn a_closed_listener_ends_its_accept<R: Rig>(mut bench: Bench<R>) {
    let (listener, bound, accept) = bench.listen();
    let close = bench.submit(Op::CloseListener { listener });
    let ended = bench.await_token(accept);
    assert!(ended.result == Err(IoError::CANCELLED) && !ended.more);
    assert_eq!(bench.await_token(close).result, Ok(0));
    assert_eq!(bench.ask(Op::Accept { listener }), Err(IoError::BAD_FILE));
    let (again, _) = bench.driver.listen(bound, false).unwrap();
    assert_eq!(bench.ask(Op::CloseListener { listener: again }), Ok(0));
}

pub fn an_unknown_socket_gives_the_memory_back<R: Rig>(mut bench: Bench<R>) {
    let socket = Socket(77);
    let (into, from) = (bench.space(4096), vec![bench.slice(b"x")]);
    let (result, memory) = bench.run(Op::Receive { socket, into, at: 0, len: 4096, whole: false });
    assert!(result == Err(IoError::BAD_FILE) && matches!(memory, Memory::Space(_)));
    let (result, memory) = bench.run(Op::Send { socket, from });
    assert!(result == Err(IoError::BAD_FILE) && matches!(memory, Memory::Slices(_)));
    for op in [Op::Readable { socket }, Op::CloseSocket { socket }, Op::Accept { listener: Listener(77) }] {
        assert_eq!(bench.ask(op), Err(IoError::BAD_FILE));
    }
    assert_eq!(bench.driver.peer(socket), None);
}

pub fn a_deadline_is_met_and_not_early<R: Rig>(mut bench: Bench<R>) {
    for ms in [0, 1, 5, 20] {
        let start = bench.driver.now();
        let deadline = start.plus_ms(ms);
        for _ in 0..PASSES {
            if bench.driver.now() >= deadline {
                break;
            }
            bench.driver.poll(Wait::Until(deadline), &mut bench.done);
            bench.rig.pass();
        }
        let late = bench.driver.now().since(deadline);
        assert!(bench.driver.now() >= deadline && late.as_millis() < 500, "{ms} ms: {late:?} late");
    }
    assert!(bench.done.is_empty());
}

pub fn a_ring_before_the_sleep_is_not_lost<R: Rig>(mut bench: Bench<R>) {
    let doorbell = bench.driver.doorbell();
    let far = Nanos(bench.driver.now().0 + 3_600_000_000_000);
    for _ in 0..3 {
        doorbell.ring();
        doorbell.clone().ring();
        bench.driver.poll(Wait::Until(far), &mut bench.done);
        assert!(bench.driver.now() < far, "it returned at once");
    }
}
