//! A journal that producers fill faster than checkpoints empty it: what frees its files has to fit into its reserve, however many partitions
//! stand in the oldest file and however large their states are. Each entry takes a block at least, so statements gather; batches are not
//! carried into the reserve, and states go to files.

use millrace_io::sim::{ClientEnd, Rates, World};
use millrace_log::journal::Options;
use millrace_sim::node::{Node, PRODUCE, config, framed, produce};

const CONNECTIONS: i32 = 8;
const REQUESTS: u32 = 1000;

struct Sender {
    end: ClientEnd,
    unsent: Vec<u8>,
    came: Vec<u8>,
    answered: u32,
}

impl Sender {
    fn go_on(&mut self) {
        let sent = self.end.send(&self.unsent).expect("the connection stays");
        self.unsent.drain(..sent);
        self.came.extend(self.end.receive().expect("the connection stays").unwrap_or_default());
        while let Some(length) = self.came.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)
            && self.came.len() >= length + 4
        {
            self.came.drain(..length + 4);
            self.answered += 1;
        }
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
        Sender { end: node.connect(), unsent: (0..REQUESTS).flat_map(request).collect(), came: Vec::new(), answered: 0 }
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
