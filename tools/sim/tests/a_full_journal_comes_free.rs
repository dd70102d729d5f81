//! A journal that producers fill faster than checkpoints empty it: what frees its files has to fit into its reserve, however many partitions
//! stand in the oldest file and however large their states are. Each entry takes a block at least, so statements gather; batches are not
//! carried into the reserve, and states go to files.

use kafka_protocol::messages::ProduceRequest;
use millrace_base::batch::Header;
use millrace_io::sim::{ClientEnd, Rates, World};
use millrace_log::journal::Options;
use millrace_sim::node::{Frames, Node, PRODUCE, config, decode, framed, produce};
use millrace_sim::value;
use std::collections::BTreeSet;

const CONNECTIONS: i32 = 8;
const REQUESTS: u32 = 1000;

struct Sender {
    end: ClientEnd,
    frames: Frames,
    answered: u32,
}

impl Sender {
    fn go_on(&mut self) {
        self.answered += self.frames.exchange(&mut self.end).len() as u32;
    }
}

/// Every connection sends its requests without waiting, of one record of up to `bytes` each.
fn all_are_answered(seed: u64, partitions: i32, bytes: usize) {
    let mut config = config(1, 1, 64 << 20);
    // The reserve is sixteen blocks.
    config.journal = Options { file_bytes: 256 << 10, entry_bytes_max: 128 << 10, files_first: 2, files_max: 3, reserve_bytes: 64 << 10 };
    let mut node = Node::in_world(World::new(seed, Rates { slow_one_in: 100, ..Rates::CALM }), config);
    node.start().expect("the node starts");
    node.create("t", partitions);
    let sender = |number: i32| {
        let request = |index: u32| {
            let partition = (number + index as i32 * CONNECTIONS) % partitions;
            framed(PRODUCE, &produce("t", partition, index * 10, 1, 100 + (index as usize * 997) % bytes))
        };
        let mut frames = Frames::default();
        (0..REQUESTS).for_each(|index| frames.queue(&request(index)));
        Sender { end: node.connect(), frames, answered: 0 }
    };
    let mut senders: Vec<Sender> = (0..CONNECTIONS).map(sender).collect();
    let done = node.run(20_000, |_| {
        senders.iter_mut().for_each(Sender::go_on);
        senders.iter().all(|sender| sender.answered == REQUESTS)
    });
    let answered: Vec<u32> = senders.iter().map(|sender| sender.answered).collect();
    assert!(done, "seed {seed}, {partitions} partitions: of {REQUESTS} requests a connection these were answered: {answered:?}");
}

#[test]
fn small_batches_of_many_partitions() {
    (0..2).for_each(|seed| all_are_answered(seed, 64, 1_000));
}

#[test]
fn large_states_of_few_partitions() {
    (0..4).for_each(|seed| all_are_answered(seed, 16, 9_000));
}

#[test]
fn large_states_of_many_partitions() {
    all_are_answered(0, 64, 9_000);
}

/// Sends one request after the other.
struct Waiter {
    end: ClientEnd,
    partition: i32,
    next: u32,
    frames: Frames,
    /// Of the request that is under way.
    sent_at: Option<u64>,
    /// Number of the record, error code, virtual milliseconds.
    answers: Vec<(u32, i16, u64)>,
}

const TIMEOUT_MS: i32 = 1_000;
const TIMED_OUT: i16 = 7;
/// Numbers of the records behind those.
const LATER: u32 = 900_000;

impl Waiter {
    fn go_on(&mut self, now_ms: u64, is_over: bool) {
        if self.sent_at.is_none() && !is_over {
            let request = produce("t", self.partition, self.partition as u32 * 1_000 + self.next, 1, 60_000);
            self.frames.queue(&framed(PRODUCE, &request.with_timeout_ms(TIMEOUT_MS)));
            self.sent_at = Some(now_ms);
        }
        let Some(answer) = self.frames.exchange(&mut self.end).pop() else { return };
        let answer = decode::<ProduceRequest>(&answer, PRODUCE);
        let code = answer.responses[0].partition_responses[0].error_code;
        let sent_at = self.sent_at.take().expect("one is under way");
        self.answers.push((self.partition as u32 * 1_000 + self.next, code, now_ms - sent_at));
        self.next += 1;
    }
}

#[test]
fn who_is_held_back_for_longer_than_it_waits_is_told_so_and_nothing_of_it_is_kept() {
    const WAITERS: i32 = 60;
    let mut config = config(1, 1, 64 << 20);
    config.journal = Options { file_bytes: 256 << 10, entry_bytes_max: 128 << 10, files_first: 2, files_max: 3, reserve_bytes: 64 << 10 };
    let mut node = Node::in_world(World::new(5, Rates::CALM), config);
    node.start().expect("the node starts");
    node.create("t", WAITERS);
    // A device so slow that checkpoints take far longer than requests wait.
    node.world.set_rates(Rates { slow_one_in: 1, ..Rates::CALM });
    let waiter =
        |partition| Waiter { end: node.connect(), partition, next: 0, frames: Frames::default(), sent_at: None, answers: Vec::new() };
    let mut waiters: Vec<Waiter> = (0..WAITERS).map(waiter).collect();
    let over = node.world.now().0 / 1_000_000 + 8_000;
    let done = node.run(20_000, |node| {
        let now = node.world.now().0 / 1_000_000;
        waiters.iter_mut().for_each(|waiter| waiter.go_on(now, now >= over));
        now >= over && waiters.iter().all(|waiter| waiter.sent_at.is_none())
    });
    assert!(done, "a request is not answered");
    let answers: Vec<(u32, i16, u64)> = waiters.into_iter().flat_map(|waiter| waiter.answers).collect();
    let slowest = answers.iter().map(|(_, _, took)| *took).max().expect("answers");
    // The wait, a look at who waits a few times a second, and what the slow device adds on both ways.
    assert!(slowest <= TIMEOUT_MS as u64 + 500, "one was answered after {slowest} ms");
    let with = |wanted: i16| answers.iter().filter(|(_, code, _)| *code == wanted).map(|(number, _, _)| *number).collect::<BTreeSet<u32>>();
    let (taken, timed_out) = (with(0), with(TIMED_OUT));
    assert_eq!(taken.len() + timed_out.len(), answers.len(), "{answers:?}");
    assert!(taken.len() > 20 && timed_out.len() > 20, "{} taken, {} timed out", taken.len(), timed_out.len());
    node.world.set_rates(Rates::CALM);
    let mut end = node.connect();
    let mut kept = Vec::new();
    for partition in 0..WAITERS {
        let (code, next) = node.produce(&mut end, &produce("t", partition, LATER + partition as u32, 1, 100));
        assert_eq!(code, 0, "partition {partition} takes records again");
        let mut offset = 0;
        while offset < next {
            let (code, batches) = node.fetch_batches("t", partition, offset, 1 << 20);
            assert_eq!(code, 0);
            for batch in batches {
                let header = Header::parse(&batch).expect("a batch");
                kept.extend(value::records(&batch, &header).into_iter().flatten().map(|(id, _)| id.number()));
                offset = header.next_offset();
            }
        }
    }
    let once: BTreeSet<u32> = kept.iter().copied().collect();
    assert_eq!(once.len(), kept.len(), "a record is there twice");
    assert!(taken.is_subset(&once), "lost: {:?}", taken.difference(&once).collect::<Vec<_>>());
    // Those that were in the journal already when their time was up may be kept, those that were held back are not.
    assert!(
        timed_out.intersection(&once).count() < timed_out.len() / 2,
        "{} of {}",
        timed_out.intersection(&once).count(),
        timed_out.len()
    );
}
