//! More partitions than segments may stay open: each write opens its segment again. What is known to be there is not made again, and its name
//! not synced again.

use millrace_base::batch::Header;
use millrace_io::sim::{ClientEnd, Loss, On, Wrong};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{Node, config, produce};

/// Of these an eighth is for segments that stay open.
const FILES_MAX: u64 = 160;
const PARTITIONS: i32 = 40;
const RECORDS: u32 = 20;
const COUNTED: u32 = 1_000_000;

/// A batch for each partition, too large to be carried in the journal.
fn append(node: &mut Node, end: &mut ClientEnd, round: u32) {
    for partition in 0..PARTITIONS {
        let first = round * RECORDS;
        assert_eq!(node.produce(end, &produce("t", partition, first, RECORDS, 1_000)), (0, i64::from(first)));
    }
}

#[test]
fn a_segment_that_is_there_is_not_made_again() {
    let mut node = Node::new({
        let mut config = config(1, 1, 64 << 20);
        config.files_max = Some(FILES_MAX);
        config
    });
    node.start().unwrap();
    node.create("t", PARTITIONS);
    let mut end = node.connect();
    (0..4).for_each(|round| append(&mut node, &mut end, round));
    node.run(1_000, |_| false);
    let data = Cluster::directory(0);
    let last = (PARTITIONS - 1).to_string();
    let topic = node.names(&data).into_iter().find(|name| !node.names(&data.join(name).join(&last)).is_empty());
    node.fault(&topic.expect("each partition has a segment"), On::Directory, 0, COUNTED, Wrong::Lost);
    (4..8).for_each(|round| append(&mut node, &mut end, round));
    node.run(1_000, |_| false);
    let syncs = u64::from(COUNTED) - node.world.faults_left(NODE);
    assert_eq!(syncs, 0, "no name is new");
    node.cluster.cut_power(Loss::All);
    node.start().unwrap();
    for partition in 0..PARTITIONS {
        let mut offset = 0;
        while offset < i64::from(8 * RECORDS) {
            let (code, batches) = node.fetch_batches("t", partition, offset, 1 << 20);
            assert_eq!(code, 0);
            offset = Header::parse(batches.last().expect("what was acknowledged is there")).unwrap().next_offset();
        }
    }
}
