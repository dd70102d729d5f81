//! A connection's stream, split at any bytes: the frames that a shard hands out are the stream's, and what cannot be a frame ends it.
//!
//! The first byte chooses the longest frame; then come how many pieces there are and how long each is; the rest is the stream.

use crate::input::Input;
use millrace_io::sim::{ClientEnd, Rates, SimDriver, World};
use millrace_io::{Driver, Wait};
use millrace_kafka::front::frame_length;
use millrace_log::journal::Options;
use millrace_shard::front::Frame;
use millrace_shard::memory::Shares;
use millrace_shard::net::{Event, Net, Next};
use std::net::SocketAddr;

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let longest = 1024 << (choices.u8() % 5);
    let count = usize::from(choices.u8() % 16);
    let cuts: Vec<usize> = (0..count).map(|_| usize::from(choices.u16()) + 1).collect();
    let stream = choices.rest();
    let (expected, is_bad) = split(stream, longest);
    let mut scene = Scene::new(longest);
    let mut rest = stream;
    for cut in cuts.into_iter().chain([usize::MAX]) {
        let (piece, behind) = rest.split_at(cut.min(rest.len()));
        scene.send(piece);
        rest = behind;
    }
    assert_eq!(scene.bad, is_bad);
    let expected: Vec<Vec<u8>> = expected.iter().map(|frame| frame.to_vec()).collect();
    assert!(scene.frames == expected, "{} frames came out of {}", scene.frames.len(), expected.len());
    assert!(scene.shares.receive.used() <= scene.shares.receive.budget());
}

/// The frames of a stream that is all here, and whether something that is none comes behind them.
fn split(mut stream: &[u8], longest: usize) -> (Vec<&[u8]>, bool) {
    let mut frames = Vec::new();
    loop {
        match frame_length(stream, longest) {
            Frame::Bytes(length) if length <= stream.len() => {
                frames.push(&stream[..length]);
                stream = &stream[length..];
            }
            Frame::Bytes(_) | Frame::More => return (frames, false),
            Frame::Bad(_) => return (frames, true),
        }
    }
}

struct Scene {
    world: World,
    driver: SimDriver,
    net: Net,
    shares: Shares,
    end: ClientEnd,
    longest: usize,
    frames: Vec<Vec<u8>>,
    bad: bool,
}

impl Scene {
    fn new(longest: usize) -> Scene {
        let journal = Options { file_bytes: 64 << 10, entry_bytes_max: 32 << 10, files_first: 2, files_max: 2, reserve_bytes: 16 << 10 };
        let shares = Shares::new(Shares::least(&journal, 1), &journal);
        let world = World::new(7, Rates::CALM);
        let mut driver = world.driver(1);
        let address = SocketAddr::from(([10, 0, 0, 1], 9092));
        let (listener, address) = driver.listen(address, false).expect("the simulated network");
        let mut net = Net::new(&shares);
        net.listen(&mut driver, listener);
        let end = world.connect(address);
        Scene { world, driver, net, shares, end, longest, frames: Vec::new(), bad: false }
    }

    fn send(&mut self, mut piece: &[u8]) {
        let mut quiet = 0;
        while quiet < 8 && !self.bad {
            match self.end.send(piece) {
                Ok(taken) => piece = &piece[taken..],
                Err(_) => return,
            }
            let is_still = !self.turn() && piece.is_empty();
            quiet = if is_still { quiet + 1 } else { 0 };
        }
    }

    /// Whether anything happened.
    fn turn(&mut self) -> bool {
        if self.world.runnable().is_empty() {
            self.world.step();
        }
        let mut completions = Vec::new();
        let until = self.driver.now().plus_ms(1);
        self.driver.poll(Wait::Until(until), &mut completions);
        let now = self.driver.now();
        let mut events = Vec::new();
        let happened = !completions.is_empty();
        for completion in completions {
            self.net.completed(&mut self.driver, completion, now, &mut events);
        }
        for event in events {
            match event {
                Event::Bytes { connection } => loop {
                    let longest = self.longest;
                    match self.net.next_frame(&mut self.driver, connection, |bytes| frame_length(bytes, longest)) {
                        Next::Frame(frame) => self.frames.push(frame.to_vec()),
                        Next::Nothing => break,
                        Next::Bad(_) => {
                            self.bad = true;
                            self.net.close(&mut self.driver, connection);
                            break;
                        }
                    }
                },
                Event::AcceptEnded { listener, .. } => self.net.accept(&mut self.driver, listener),
                Event::Accepted { .. } | Event::Sent { .. } | Event::Closed { .. } => {}
            }
        }
        self.net.flush(&mut self.driver, now, now.0.is_multiple_of(2));
        happened
    }
}
