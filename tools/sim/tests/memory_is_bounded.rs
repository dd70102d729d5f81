//! Clients that hold memory and give nothing for it: the node keeps within its budget, and good clients beside them are served.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use millrace_io::sim::ClientEnd;
use millrace_sim::node::{CREATE, FETCH, Node, config, fetch, framed, produce, topic};
use std::cell::Cell;
use std::rc::Rc;

const PARTITIONS: i32 = 4;

/// Memory of each shard.
const MEMORY: usize = 64 << 20;

/// A connection that only sends, as far as it is let.
struct Sender {
    end: ClientEnd,
    unsent: Vec<u8>,
    is_gone: bool,
}

impl Sender {
    fn go_on(&mut self) {
        while !self.unsent.is_empty() && !self.is_gone {
            match self.end.send(&self.unsent) {
                Ok(0) => return,
                Ok(taken) => drop(self.unsent.drain(..taken)),
                Err(_) => self.is_gone = true,
            }
        }
    }
}

struct Scene {
    node: Node,
    senders: Vec<Sender>,
    used_most: Rc<Cell<usize>>,
}

impl Scene {
    fn new(shards: u16) -> Scene {
        let mut node = Node::new(config(shards, 1, MEMORY * usize::from(shards)));
        let used_most = Rc::new(Cell::new(0));
        let most = Rc::clone(&used_most);
        node.look = Some(Box::new(move |cluster| {
            for shares in cluster.memory() {
                most.set(most.get().max(shares.whole.used()));
                // Answers of requests that have begun, and what a journal needs to become shorter, are taken without asking.
                assert!(shares.whole.there() <= MEMORY + (2 << 20), "{} of {MEMORY}", shares.whole.there());
            }
        }));
        node.start().unwrap();
        node.create("t", PARTITIONS);
        Scene { node, senders: Vec::new(), used_most }
    }

    fn add(&mut self, unsent: Vec<u8>) {
        let end = self.node.connect();
        self.senders.push(Sender { end, unsent, is_gone: false });
    }

    fn run(&mut self, ms: u64) {
        let senders = &mut self.senders;
        self.node.run(ms, |_| {
            senders.iter_mut().for_each(Sender::go_on);
            false
        });
    }

    /// Fills every partition with so many batches of 100 kB; gives the end offset of each.
    fn fill(&mut self, batches: u32) -> i64 {
        let mut good = self.node.connect();
        for batch in 0..batches {
            for partition in 0..PARTITIONS {
                assert_eq!(self.node.produce(&mut good, &produce("t", partition, batch * 10, 10, 10_000)).0, 0);
            }
        }
        i64::from(batches) * 10
    }

    /// A client that produces and reads, old data and new: each request is to be answered in time.
    fn serve_good_ones(&mut self, rounds: u32, end: i64, part_bytes: i32) {
        let mut good = self.node.connect();
        for round in 0..rounds {
            let began = self.node.world.now();
            assert_eq!(self.node.produce(&mut good, &produce("t", 0, 1_000_000 + round * 10, 5, 2_000)).0, 0, "round {round}");
            assert!(self.node.world.now().since(began).as_secs() < 3, "produce is answered in time");
            let offset = i64::from(round) * 10 % (end - 10);
            let old = fetch("t", [(1, offset)].into_iter(), part_bytes);
            // While there is no memory to read with, a fetch is answered with nothing at its deadline, and asked again.
            let mut found = None;
            for _ in 0..20 {
                let answer = self.node.ask(&mut good, FETCH, &old, 3_000).expect("a fetch is answered");
                let part = &answer.responses[0].partitions[0];
                assert_eq!(part.error_code, 0);
                found = part.records.clone().filter(|records| !records.is_empty());
                if found.is_some() {
                    break;
                }
            }
            assert!(found.is_some(), "round {round}: old records are read");
            self.run(100);
        }
    }

    /// Senders whose connection was closed: behind all that has come stands its end.
    fn gone(&mut self) -> usize {
        let ended = |sender: &mut Sender| {
            while let Ok(Some(bytes)) = sender.end.receive() {
                if bytes.is_empty() {
                    return true;
                }
            }
            sender.is_gone
        };
        self.senders.iter_mut().map(ended).filter(|ended| *ended).count()
    }
}

/// A deadline is the client's to choose: up to 24 days, on requests that are answered at once.
#[test]
fn deadlines_go_with_the_requests_that_named_them() {
    let mut scene = Scene::new(2);
    let before = scene.node.cluster.timers();
    let topic = CreatableTopic::default().with_name(topic("new")).with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(i32::MAX).with_validate_only(true);
    let mut end = scene.node.connect();
    for _ in 0..200 {
        assert_eq!(scene.node.ask(&mut end, CREATE, &request, 5_000).unwrap().topics[0].error_code, 0);
    }
    let after = scene.node.cluster.timers();
    assert!(after <= before + 8, "{before} {after}");
}

#[test]
fn connections_that_dribble_hold_a_block_each() {
    let mut scene = Scene::new(1);
    let end = scene.fill(3);
    let before = scene.node.cluster.memory()[0].receive.used();
    for _ in 0..1_000 {
        scene.add(vec![0, 0, 200]);
    }
    scene.run(10);
    scene.serve_good_ones(3, end, 64 << 10);
    let used = scene.node.cluster.memory()[0].receive.used() - before;
    assert!((900 * 4096..=1_001 * 4096).contains(&used), "{used}");
    assert_eq!(scene.gone(), 0);
}

#[test]
fn large_requests_that_never_become_whole_do_not_stop_others() {
    let mut scene = Scene::new(2);
    let end = scene.fill(3);
    for _ in 0..12 {
        let mut part = vec![0; 8 << 20];
        part[..4].copy_from_slice(&(14u32 << 20).to_be_bytes());
        scene.add(part);
    }
    scene.serve_good_ones(20, end, 64 << 10);
    assert!(scene.used_most.get() > 8 << 20);
}

#[test]
fn answers_of_old_data_that_nobody_takes_are_bounded() {
    let mut scene = Scene::new(1);
    let end = scene.fill(100);
    for client in 0..40 {
        let parts = (0..PARTITIONS).map(|index| (index, i64::from(client) * 10 % end));
        let one = framed(FETCH, &fetch("t", parts, 1 << 20));
        scene.add([&one[..], &one, &one, &one].concat());
    }
    // What is left is less than these need.
    scene.serve_good_ones(20, end, 1 << 20);
    assert!(scene.gone() > 0, "who takes nothing is closed for those who wait");
}

#[test]
fn one_fetch_of_many_old_partitions_takes_memory_for_what_it_may_answer() {
    let mut scene = Scene::new(1);
    let end = scene.fill(100);
    let mut good = scene.node.connect();
    let before = scene.node.cluster.memory()[0].read.used();
    // The same partitions many times over, a byte of each.
    let request = fetch("t", (0..4_000).map(|n| (n % PARTITIONS, i64::from(n) % end)), 1);
    assert!(scene.node.ask(&mut good, FETCH, &request, 5_000).is_some());
    scene.run(10);
    assert_eq!(scene.node.cluster.memory()[0].read.used(), before);
    scene.serve_good_ones(3, end, 64 << 10);
}
