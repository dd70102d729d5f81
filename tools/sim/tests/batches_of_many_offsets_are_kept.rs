//! A compressed batch may say that it holds 2^31 - 1 records: nobody opens it. Each such batch needs a segment of its own, since the offsets of
//! a segment are told in 31 bits. More come than segments may wait to be begun: the rest is refused, and all that was acknowledged is there after a
//! start, with another number of shards too.

use kafka_protocol::messages::ProduceRequest;
use millrace_base::batch::{self, Header};
use millrace_base::crc::crc32c;
use millrace_io::sim::Loss;
use millrace_sim::node::{Frames, Node, PRODUCE, config, decode, framed, produce_batch};
use millrace_sim::value::{self, ValueId};

const GZIP: u8 = 1;
/// More than recovery takes of segments that wait.
const BATCHES: u32 = 4_500;
const KAFKA_STORAGE_ERROR: i16 = 56;
const OFFSETS: i64 = i32::MAX as i64;

fn batch_of_many_offsets(number: u32) -> Vec<u8> {
    let mut bytes = value::batch(ValueId::new(1, number), 1, 100, 1_700_000_000_000, None, GZIP);
    bytes[batch::place::LAST_OFFSET_DELTA..][..4].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    bytes[batch::place::COUNT..][..4].copy_from_slice(&i32::MAX.to_be_bytes());
    let crc = crc32c(&bytes[batch::place::ATTRIBUTES..]);
    bytes[batch::place::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Sends them all at once; how many were acknowledged, each behind the one before.
fn append(node: &mut Node) -> i64 {
    let mut end = node.connect();
    let mut frames = Frames::default();
    (0..BATCHES).for_each(|number| frames.queue(&framed(PRODUCE, &produce_batch("t", 0, batch_of_many_offsets(number)))));
    let mut answers = Vec::new();
    assert!(node.run(60_000, |_| {
        answers.extend(frames.exchange(&mut end));
        answers.len() == BATCHES as usize
    }));
    let mut acknowledged = 0;
    for answer in answers {
        let answer = decode::<ProduceRequest>(&answer, PRODUCE);
        let part = &answer.responses[0].partition_responses[0];
        if part.error_code == 0 {
            assert_eq!(part.base_offset, acknowledged * OFFSETS);
            acknowledged += 1;
        } else {
            assert_eq!(part.error_code, KAFKA_STORAGE_ERROR);
        }
    }
    acknowledged
}

#[test]
fn after_a_power_cut_and_with_another_number_of_shards() {
    let mut node = Node::new(config(1, 1, 64 << 20));
    node.start().unwrap();
    node.create("t", 1);
    let acknowledged = append(&mut node);
    assert!(acknowledged > 1_000 && acknowledged < i64::from(BATCHES), "{acknowledged}");
    for shards in [1, 2, 3] {
        node.cluster.cut_power(Loss::All);
        node.configure(config(shards, 1, 64 << 20));
        node.start().unwrap();
        for number in 0..acknowledged {
            let (code, batches) = node.fetch_batches("t", 0, number * OFFSETS, 1);
            assert_eq!((code, batches.len()), (0, 1), "{shards} shards, batch {number}");
            let header = Header::parse(&batches[0]).unwrap();
            assert_eq!((header.base_offset, header.count), (number * OFFSETS, i32::MAX));
        }
    }
}
