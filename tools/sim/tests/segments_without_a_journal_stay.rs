//! The journal of one shard is gone, and with it all that says what its partitions hold. Replica set 0 still knows them: they are not born again
//! over their segments, and these stay for who gets the journal back or gives up the rest.

use millrace_io::Disk;
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{Node, config, produce};

const STORAGE: i16 = 56;
const PARTITIONS: i32 = 4;
const BATCHES: u32 = 60;

/// The error code of a produce to each partition.
fn codes(node: &mut Node, number: u32) -> Vec<i16> {
    let mut end = node.connect();
    (0..PARTITIONS).map(|index| node.produce(&mut end, &produce("t", index, number * 10, 10, 8_000)).0).collect()
}

/// Names of segments below the data directory.
fn segments(node: &Node) -> Vec<String> {
    let data = Cluster::directory(0);
    let mut found = Vec::new();
    for topic in node.names(&data).into_iter().map(|name| data.join(name)) {
        for partition in node.names(&topic).into_iter().map(|name| topic.join(name)) {
            let logs = node.names(&partition).into_iter().filter(|name| name.ends_with(".log"));
            found.extend(logs.map(|name| partition.join(name).display().to_string()));
        }
    }
    found.sort();
    found
}

#[test]
fn partitions_are_not_born_again_over_them() {
    for is_there in [true, false] {
        let mut node = Node::new(config(2, 1, 64 << 20));
        node.start().unwrap();
        node.create("t", PARTITIONS);
        for number in 0..BATCHES {
            assert_eq!(codes(&mut node, number), [0; PARTITIONS as usize]);
        }
        node.stop();
        let journal = Cluster::directory(0).join("journal").join("1");
        let mut disk = node.world.disk(NODE);
        for name in node.names(&journal) {
            disk.unlink(&journal.join(name)).unwrap();
        }
        if !is_there {
            disk.remove_directory(&journal).unwrap();
        }
        let before = segments(&node);
        for start in 0..3 {
            node.start().unwrap();
            let mut found = codes(&mut node, BATCHES + start);
            found.sort();
            assert_eq!(found, [0, 0, STORAGE, STORAGE], "folder there: {is_there}, start {start}");
            node.cluster.kill();
            let after = segments(&node);
            assert!(before.iter().all(|name| after.contains(name)), "{before:?} {after:?}");
        }
    }
}
