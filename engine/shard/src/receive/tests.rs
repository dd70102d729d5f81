//! Connections in a simulated world whose memory is short: how much is held, who is served, who is closed.

use super::*;
use crate::memory::Shares;
use millrace_io::sim::{ClientEnd, Rates, SimDriver, World};
use millrace_io::{Slice, Wait};
use millrace_log::journal::Options;
use std::net::SocketAddr;

const MS: u64 = 1_000_000;

/// A share to receive into of 15 MiB, in which frames of up to 13 MiB fit.
fn shares() -> Shares {
    let small = Options { file_bytes: 256 << 10, entry_bytes_max: 128 << 10, files_first: 2, files_max: 3, reserve_bytes: 64 << 10 };
    let shares = Shares::new(64 << 20, &small);
    assert!((14 << 20..20 << 20).contains(&shares.receive.budget()), "{}", shares.receive.budget());
    shares
}

/// A frame is its length, then this; the first four bytes of it say whose it is.
fn frame(bytes: &[u8]) -> Frame {
    match bytes.first_chunk::<4>() {
        Some(length) => Frame::Bytes(u32::from_be_bytes(*length) as usize + 4),
        None => Frame::More,
    }
}

struct Client {
    end: ClientEnd,
    unsent: VecDeque<u8>,
    received: usize,
    frames: usize,
    reads: bool,
    is_closed: bool,
}

/// One shard's connections and those at their other ends.
struct Scene {
    world: World,
    driver: SimDriver,
    net: Net,
    shares: Shares,
    address: SocketAddr,
    clients: Vec<Client>,
    /// Bytes with which every frame is answered.
    answer: usize,
    relief_at: u64,
    closed: Vec<String>,
    used_most: usize,
}

impl Scene {
    fn new(shares: Shares) -> Scene {
        let world = World::new(7, Rates::CALM);
        let mut driver = world.driver(1);
        let address = SocketAddr::from(([10, 0, 0, 1], 9092));
        let (listener, address) = driver.listen(address, false).unwrap();
        let mut net = Net::new(&shares);
        net.listen(&mut driver, listener);
        let (clients, closed) = (Vec::new(), Vec::new());
        Scene { world, driver, net, shares, address, clients, answer: 0, relief_at: 0, closed, used_most: 0 }
    }

    fn connect(&mut self) -> usize {
        let end = self.world.connect(self.address);
        self.clients.push(Client { end, unsent: VecDeque::new(), received: 0, frames: 0, reads: true, is_closed: false });
        self.clients.len() - 1
    }

    /// A frame of `length` bytes behind its length, of which the first `sent` are sent.
    fn send(&mut self, client: usize, length: usize, sent: usize) {
        let mut bytes = (length as u32).to_be_bytes().to_vec();
        bytes.extend((client as u32).to_be_bytes());
        bytes.resize(length + 4, 7);
        self.clients[client].unsent.extend(&bytes[..sent]);
    }

    fn whole(&mut self, client: usize, length: usize) {
        self.send(client, length, length + 4);
    }

    fn turn(&mut self) {
        let mut completions = Vec::new();
        let now = self.driver.now();
        self.driver.poll(Wait::Until(now.plus_ms(1)), &mut completions);
        let now = self.driver.now();
        let mut events = Vec::new();
        for completion in completions {
            self.net.completed(&mut self.driver, completion, now, &mut events);
        }
        for event in events {
            match event {
                Event::Bytes { connection } => self.frames(connection),
                Event::AcceptEnded { listener, .. } => self.net.accept(&mut self.driver, listener),
                Event::Accepted { .. } | Event::Sent { .. } | Event::Closed { .. } => {}
            }
        }
        if now.0 >= self.relief_at {
            self.relief_at = now.0 + 250 * MS;
            for (id, reason) in self.net.relieve(&mut self.driver, now) {
                self.net.close(&mut self.driver, id);
                self.closed.push(reason);
            }
        }
        self.net.resume_waiting(&mut self.driver, now);
        for _ in 0..self.net.waiting_to_answer() {
            if let Some(id) = self.net.next_to_answer() {
                self.frames(id);
            }
        }
        self.net.flush(&mut self.driver, now, false);
        self.used_most = self.used_most.max(self.shares.receive.used());
    }

    fn frames(&mut self, id: ConnectionId) {
        loop {
            if self.answer > 0 && !self.net.may_answer(id, self.answer) {
                return;
            }
            match self.net.next_frame(&mut self.driver, id, frame) {
                Next::Frame(bytes) => {
                    let client = u32::from_be_bytes(*bytes[4..].first_chunk::<4>().unwrap()) as usize;
                    self.clients[client].frames += 1;
                    if self.answer > 0 {
                        let slice: Slice = self.shares.answer.take(self.answer).freeze(self.answer);
                        self.net.send(id, [slice]);
                    }
                }
                Next::Nothing => return,
                Next::Bad(reason) => {
                    self.closed.push(reason);
                    return self.net.close(&mut self.driver, id);
                }
            }
        }
    }

    /// Lets so much virtual time pass, or less if `done`.
    fn run(&mut self, ms: u64, done: impl Fn(&Scene) -> bool) -> bool {
        let limit = self.world.now().0 + ms * MS;
        while self.world.now().0 < limit {
            if done(self) {
                return true;
            }
            for client in self.clients.iter_mut().filter(|client| !client.is_closed) {
                while !client.unsent.is_empty() {
                    match client.end.send(client.unsent.make_contiguous()) {
                        Ok(0) => break,
                        Ok(taken) => drop(client.unsent.drain(..taken)),
                        Err(_) => {
                            client.is_closed = true;
                            break;
                        }
                    }
                }
                match client.reads.then(|| client.end.receive()) {
                    Some(Ok(Some(bytes))) if bytes.is_empty() => client.is_closed = true,
                    Some(Ok(Some(bytes))) => client.received += bytes.len(),
                    Some(Err(_)) => client.is_closed = true,
                    Some(Ok(None)) | None => {}
                }
            }
            if self.world.runnable().is_empty() {
                self.world.step();
            }
            if !self.world.runnable().is_empty() {
                self.turn();
            }
        }
        done(self)
    }
}

#[test]
fn thousands_that_send_a_byte_at_a_time_hold_a_block_each() {
    let mut scene = Scene::new(shares());
    let count = 2_000;
    for client in 0..count {
        scene.connect();
        scene.send(client, 50_000, 1);
    }
    let good = scene.connect();
    for round in 0..5 {
        for client in &mut scene.clients[..count] {
            client.unsent.extend([0, 0, 195, 80, 0, 0][round..=round].iter());
        }
        scene.whole(good, 30_000);
        assert!(scene.run(2_000, |scene| scene.clients[good].frames == round + 1), "round {round}: {:?}", scene.closed);
        assert!(scene.run(200, |scene| scene.clients.iter().all(|client| client.unsent.is_empty())));
    }
    assert_eq!(scene.shares.receive.used(), count * SMALL_BYTES, "a block for each that has a part of a frame, nothing for who has none");
    assert!(scene.used_most <= scene.shares.receive.budget());
    assert!(scene.closed.is_empty(), "{:?}", scene.closed);
}

#[test]
fn large_frames_that_do_not_all_fit_become_whole_one_after_the_other() {
    let mut scene = Scene::new(shares());
    for client in 0..12 {
        scene.connect();
        scene.whole(client, (4 << 20) + client * 700_000);
    }
    assert!(scene.run(20_000, |scene| scene.clients.iter().all(|client| client.frames == 1)), "{:?}", scene.closed);
    assert!(scene.closed.is_empty(), "{:?}", scene.closed);
    assert!(scene.used_most <= scene.shares.receive.budget());
    assert_eq!(scene.shares.receive.used(), 0);
}

#[test]
fn who_sends_a_part_and_no_more_is_closed_when_others_wait_for_the_memory() {
    let mut scene = Scene::new(shares());
    for client in 0..8 {
        scene.connect();
        scene.send(client, 12 << 20, 6 << 20);
    }
    scene.run(400, |_| false);
    assert!(scene.net.is_waiting(), "all memory for large frames is held, or set aside, for parts of some");
    let (small, large) = (scene.connect(), scene.connect());
    scene.whole(large, 8 << 20);
    for round in 1..=5 {
        scene.whole(small, 20_000);
        assert!(scene.run(50, |scene| scene.clients[small].frames == round), "small requests are served all the while");
    }
    assert!(scene.run(20_000, |scene| scene.clients[large].frames == 1), "{:?}", scene.closed);
    assert!(!scene.closed.is_empty() && scene.closed.iter().all(|reason| reason.contains("unfinished request")), "{:?}", scene.closed);
    assert!(!scene.clients[small].is_closed && !scene.clients[large].is_closed);
    assert!(scene.used_most <= scene.shares.receive.budget());
}

#[test]
fn who_still_sends_is_not_closed_for_those_who_do_not() {
    let mut scene = Scene::new(shares());
    for client in 0..3 {
        scene.connect();
        scene.send(client, 6 << 20, 3 << 20);
    }
    let slow = scene.connect();
    scene.send(slow, 6 << 20, 1 << 20);
    scene.run(300, |_| false);
    let waiting = scene.connect();
    scene.whole(waiting, 12 << 20);
    let mut left = (5 << 20) + 4;
    while left > 0 {
        let some = left.min(50_000);
        left -= some;
        scene.clients[slow].unsent.extend(std::iter::repeat_n(7, some));
        scene.run(50, |_| false);
    }
    scene.run(1_000, |_| false);
    assert_eq!((scene.clients[slow].frames, scene.clients[waiting].frames), (1, 1), "{:?}", scene.closed);
    assert!(!scene.closed.is_empty());
}

#[test]
fn a_frame_that_can_never_be_received_is_refused_at_once() {
    let mut scene = Scene::new(shares());
    let client = scene.connect();
    scene.send(client, 16 << 20, 100);
    assert!(scene.run(100, |scene| scene.closed.iter().any(|reason| reason.contains("memory.max.bytes"))), "{:?}", scene.closed);
    assert!(scene.used_most <= RECEIVE_BYTES);
}

#[test]
fn a_part_of_a_frame_that_stands_still_is_kept_in_its_own_size() {
    let mut scene = Scene::new(shares());
    for client in 0..20 {
        scene.connect();
        scene.send(client, 3 << 20, 70_000);
    }
    scene.run(1_500, |_| false);
    assert_eq!(scene.shares.receive.used(), 20 * (128 << 10));
    for client in 0..20 {
        scene.clients[client].unsent.extend(std::iter::repeat_n(7, (3 << 20) + 4 - 70_000));
    }
    assert!(scene.run(5_000, |scene| scene.clients.iter().all(|client| client.frames == 1)));
}

#[test]
fn the_end_of_a_paused_connection_is_noticed() {
    let mut scene = Scene::new(shares());
    let client = scene.connect();
    scene.run(10, |scene| scene.net.open() == 1);
    let id = ConnectionId::new(0, 1);
    scene.net.pause(id);
    scene.whole(client, 1_000);
    scene.run(10, |_| false);
    assert_eq!((scene.net.open(), scene.clients[client].frames), (1, 0));
    scene.net.resume(id);
    scene.frames(id);
    assert_eq!(scene.clients[client].frames, 1, "what has come in the meantime is not lost");
    scene.net.pause(id);
    scene.frames(id);
    scene.clients[client].end.finish();
    assert!(scene.run(50, |scene| scene.net.open() == 0));
}

#[test]
fn answers_that_nobody_takes_are_bounded_and_their_connections_closed_when_others_wait() {
    let mut scene = Scene::new(shares());
    scene.answer = 256 << 10;
    let count = 100;
    for client in 0..count {
        scene.connect();
        scene.clients[client].reads = false;
        for _ in 0..8 {
            scene.whole(client, 100);
        }
    }
    scene.run(450, |_| false);
    let (used, budget) = (scene.shares.answer.used(), scene.shares.answer.budget());
    assert!(used > budget / 2 && used <= budget, "{used} of {budget}");
    assert!(scene.net.waiting_to_answer() > 0 && scene.closed.is_empty());
    let good = scene.connect();
    let mut asked = 0;
    while scene.clients[good].received < 8 * scene.answer && scene.world.now().0 < 60_000 * MS {
        if scene.clients[good].frames == asked {
            scene.whole(good, 100);
            asked += 1;
        }
        scene.run(20, |_| false);
        assert!(scene.shares.answer.used() <= budget);
    }
    assert!(scene.clients[good].received >= 8 * scene.answer, "{} bytes of answers", scene.clients[good].received);
    assert!(scene.closed.iter().any(|reason| reason.contains("took nothing of its answers")), "{:?}", scene.closed);
    assert!(!scene.clients[good].is_closed);
}

#[test]
fn a_frame_that_comes_a_byte_at_a_time_is_told_from_one_that_comes_slowly() {
    let mut scene = Scene::new(shares());
    let (dribbles, slow, idle) = (scene.connect(), scene.connect(), scene.connect());
    scene.run(40_000, |_| false);
    scene.send(dribbles, 1_000, 5);
    scene.send(slow, 400_000, 5);
    let stood = |scene: &Scene| scene.net.dribbling(Nanos(scene.world.now().0 - 30_000 * MS));
    for second in 0..35 {
        scene.clients[dribbles].unsent.push_back(7);
        scene.clients[slow].unsent.extend(std::iter::repeat_n(7, 1_100));
        scene.run(1_000, |_| false);
        match second {
            0..28 => assert_eq!(stood(&scene), [], "after {second} s"),
            31.. => assert_eq!(stood(&scene), [ConnectionId::new(dribbles as u32, 1)], "after {second} s"),
            _ => {}
        }
    }
    assert!(!scene.clients[idle].is_closed);
}
