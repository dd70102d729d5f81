//! `millrace recover` on damaged partitions: it says what is lost, and gives it up only when that is asked for.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::fetch_request::FetchRequest;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use millrace_base::batch::Header;
use millrace_io::sim::{Fault, On, Wrong};
use millrace_io::{Disk, OpenHow, Pool};
use millrace_log::journal::{self, Record};
use millrace_shard::recover::{Accept, Loss, RecoverError};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{FETCH, Node, config, fetch, produce};
use millrace_sim::value::{self, Sequence, ValueId};
use std::path::PathBuf;

const PARTITIONS: i32 = 4;
const BATCHES: u32 = 6;
const RECORDS: i64 = 7;
const STORAGE: i16 = 56;
const UNKNOWN_TOPIC: i16 = 3;

fn names(disk: &mut dyn Disk, folder: &std::path::Path) -> Vec<String> {
    disk.list(folder).unwrap_or_default().into_iter().map(|entry| entry.name).collect()
}

struct Scene {
    node: Node,
    /// Records acknowledged of topic `t`, by partition.
    ends: [i64; PARTITIONS as usize],
    /// The epoch of the last batch of each.
    epochs: [i32; PARTITIONS as usize],
}

impl Scene {
    /// A node whose partitions got some batches, each under an epoch of its own, and that was killed.
    fn new(shards: u16) -> Scene {
        let mut node = Node::new(config(shards, 1, 128 << 20));
        node.start().unwrap();
        node.create("t", PARTITIONS);
        let mut scene = Scene { node, ends: [0; PARTITIONS as usize], epochs: [0; PARTITIONS as usize] };
        for _ in 0..BATCHES {
            for partition in 0..PARTITIONS {
                scene.append(partition);
            }
            scene.node.run(20, |_| false);
            for partition in 0..PARTITIONS {
                scene.epochs[partition as usize] = scene.read_through(partition).1;
            }
            scene.node.cluster.kill();
            scene.node.start().unwrap();
        }
        scene.node.run(20, |_| false);
        scene.node.cluster.kill();
        scene
    }

    fn append(&mut self, partition: i32) {
        let mut end = self.node.connect();
        let first = self.ends[partition as usize] as u32 + 1_000 * partition as u32;
        let (code, base) = self.node.produce(&mut end, &produce("t", partition, first, RECORDS as u32, 500));
        assert_eq!((code, base), (0, self.ends[partition as usize]), "partition {partition}");
        self.ends[partition as usize] += RECORDS;
    }

    /// It is served and written again, also after another start; then it is down.
    fn goes_on(&mut self, partition: i32) {
        for _ in 0..2 {
            self.node.start().unwrap();
            self.append(partition);
            assert_eq!(self.read_through(partition).0, self.ends[partition as usize]);
            self.node.cluster.kill();
        }
    }

    /// The error of a produce.
    fn refusal(&mut self, partition: i32) -> i16 {
        let mut end = self.node.connect();
        self.node.produce(&mut end, &produce("t", partition, 500_000, 1, 100)).0
    }

    /// Reads all of a partition; gives where that ended, and the epoch of the last batch.
    fn read_through(&mut self, partition: i32) -> (i64, i32) {
        let mut end = self.node.connect();
        let (mut offset, mut epoch) = (0, -1);
        loop {
            let request = fetch("t", [(partition, offset)].into_iter(), 1 << 20);
            let answer = self.node.ask::<FetchRequest>(&mut end, FETCH, &request, 5_000).unwrap();
            let part = answer.responses[0].partitions[0].clone();
            assert_eq!(part.error_code, 0, "partition {partition} at {offset}");
            let Some(records) = part.records.filter(|records| !records.is_empty()) else { return (offset, epoch) };
            let mut at = 0;
            while let Some(header) = records.get(at..).and_then(|rest| Header::parse(rest).ok()) {
                assert_eq!(header.base_offset, offset);
                (offset, epoch, at) = (header.next_offset(), header.epoch, at + header.size);
            }
        }
    }

    /// Overwrites the journal entry with the batch of a partition that begins at `base`. `whole`: nothing of the entry is left.
    fn wreck(&mut self, shard: u16, whole: bool, wanted: impl Fn(&Record) -> bool) {
        let folder = Cluster::directory(0).join(format!("journal/{shard}"));
        let mut disk = self.node.world.disk(NODE);
        let recovered = journal::recover(&mut disk, &folder, &Pool::new(0), 0).unwrap();
        let entries: Vec<_> = recovered.entries.iter().filter(|entry| entry.records.iter().any(&wanted)).collect();
        assert!(!entries.is_empty());
        for entry in entries {
            let path = folder.join(journal::layout::file_name(entry.slot));
            let file = disk.open(&path, OpenHow { write: true, ..OpenHow::default() }).unwrap();
            match whole {
                true => disk.write(file, entry.place, &vec![0xa5; entry.header.entry_bytes as usize]).unwrap(),
                false => disk.write(file, entry.place + 100, &[0xa5; 7]).unwrap(),
            }
            disk.sync(file).unwrap();
            disk.close(file);
        }
    }

    fn losses(&mut self, accept: &Accept) -> Vec<Loss> {
        let report = self.node.cluster.recover(accept).unwrap();
        assert!(report.unusable.is_empty());
        report.losses
    }

    /// Fills the journals of all shards with what other partitions get, until their files are used again.
    fn churn(&mut self, name: &str) {
        self.node.create(name, PARTITIONS);
        let mut end = self.node.connect();
        for batch in 0..100 {
            for partition in 0..PARTITIONS {
                let (code, _) = self.node.produce(&mut end, &produce(name, partition, 600_000 + batch * 10, 10, 10_000));
                assert_eq!(code, 0);
            }
        }
    }

    /// The folder of a partition of topic `t`, the only one that the journal of one shard knows besides replica set 0.
    fn folder(&self, partition: i32) -> PathBuf {
        let recovered =
            journal::recover(&mut self.node.world.disk(NODE), &Cluster::directory(0).join("journal/0"), &Pool::new(0), 0).unwrap();
        let ids = recovered.entries.iter().flat_map(|entry| &entry.records).map(Record::partition);
        let id = ids.filter(|id| *id != millrace_base::ids::META_PARTITION).find(|id| id.index == partition as u32).unwrap();
        millrace_log::paths::partition(&Cluster::directory(0), id)
    }

    fn shard_of(&self, partition: i32, shards: u16) -> u16 {
        (0..shards)
            .find(|shard| {
                let folder = Cluster::directory(0).join(format!("journal/{shard}"));
                let recovered = journal::recover(&mut self.node.world.disk(NODE), &folder, &Pool::new(0), 0).unwrap();
                recovered.entries.iter().flat_map(|entry| &entry.records).any(|record| batch_of(record, partition).is_some())
            })
            .unwrap()
    }
}

/// The base of the batches that a record of a partition of the topic brings.
fn batch_of(record: &Record, wanted: i32) -> Option<i64> {
    match record {
        Record::Batches { partition, base, .. } if partition.index == wanted as u32 && *partition != millrace_base::ids::META_PARTITION => {
            Some(*base)
        }
        _ => None,
    }
}

#[test]
fn what_is_lost_is_told_and_given_up_only_when_that_is_accepted() {
    for churns in [false, true] {
        let mut scene = Scene::new(1);
        let intact = 3 * RECORDS;
        scene.wreck(0, false, |record| batch_of(record, 2) == Some(intact));
        if churns {
            scene.node.start().unwrap();
            scene.churn("others");
            scene.node.cluster.kill();
        }
        let losses = scene.losses(&Accept::Nothing);
        assert_eq!(losses.len(), 1);
        let loss = &losses[0];
        assert_eq!((&*loss.name, loss.log_start, loss.from), ("t-2", 0, intact));
        assert_eq!((loss.reached, loss.records(), loss.accepted), (Some(scene.ends[2]), Some(21), false));
        assert!(loss.reason.contains("/data/0/journal/0/") && loss.reason.contains("at byte"), "{}", loss.reason);
        scene.node.start().unwrap();
        assert_eq!(scene.refusal(2), STORAGE, "telling changes nothing");
        assert_eq!(scene.read_through(2).0, intact);
        scene.node.stop();

        let error = scene.node.cluster.recover(&Accept::Named(vec!["t-1".to_owned()])).unwrap_err();
        assert!(matches!(&error, RecoverError::NotDamaged { name, .. } if name == "t-1") && error.to_string().contains("t-2"), "{error}");
        let accepted = scene.losses(&Accept::Named(vec!["t-2".to_owned()]));
        assert!(accepted[0].accepted);
        assert!(scene.losses(&Accept::Nothing).is_empty(), "it is whole now");
        assert!(!names(&mut scene.node.world.disk(NODE), &Cluster::directory(0).join("damaged")).is_empty(), "as it was found it stays");
        scene.ends[2] = intact;
        for _ in 0..3 {
            scene.node.start().unwrap();
            for partition in 0..PARTITIONS {
                scene.append(partition);
                let (end, epoch) = scene.read_through(partition);
                assert_eq!(end, scene.ends[partition as usize], "partition {partition}");
                assert!(epoch > scene.epochs[partition as usize], "the offsets that come again do so under a new epoch");
            }
            scene.node.cluster.kill();
        }
    }
}

#[test]
fn a_reader_of_what_was_given_up_learns_where_the_log_parts() {
    let mut scene = Scene::new(1);
    let intact = 3 * RECORDS;
    scene.wreck(0, false, |record| batch_of(record, 2) == Some(intact));
    scene.losses(&Accept::All);
    let (seen, last) = (scene.ends[2], scene.epochs[2]);
    scene.ends[2] = intact;
    scene.node.start().unwrap();
    for _ in 0..5 {
        scene.append(2);
    }
    let mut end = scene.node.connect();
    let mut request = fetch("t", [(2, seen)].into_iter(), 1 << 20);
    request.topics[0].partitions[0].last_fetched_epoch = last;
    let answer = scene.node.ask::<FetchRequest>(&mut end, FETCH, &request, 5_000).unwrap();
    let part = &answer.responses[0].partitions[0];
    assert_eq!((part.error_code, part.diverging_epoch.end_offset), (0, intact));
    assert!(part.records.as_ref().is_none_or(bytes::Bytes::is_empty));
}

#[test]
fn nothing_is_given_up_while_the_journal_cannot_be_copied() {
    let mut scene = Scene::new(1);
    scene.wreck(0, false, |record| batch_of(record, 2) == Some(RECORDS));
    let fault = Fault { path: "/damaged/".to_owned(), on: On::Write, after: 0, times: u32::MAX, wrong: Wrong::Error(28) };
    scene.node.world.add_fault(NODE, fault);
    let error = scene.node.cluster.recover(&Accept::All).unwrap_err().to_string();
    assert!(error.contains("cannot copy the damaged journal of /data/0") && error.contains("make room"), "{error}");
    scene.node.world.heal(NODE);
    assert_eq!(scene.losses(&Accept::Nothing).len(), 1);
    // Nor is anything half done where the end comes in the middle.
    for after in 0..12 {
        let fault = Fault { path: "/data/0/journal".to_owned(), on: On::Sync, after, times: u32::MAX, wrong: Wrong::Error(5) };
        scene.node.world.add_fault(NODE, fault);
        let is_done = scene.node.cluster.recover(&Accept::All).is_ok();
        scene.node.world.heal(NODE);
        scene.node.world.cut_power(NODE, millrace_io::sim::Loss::All);
        assert_eq!(scene.losses(&Accept::Nothing).len(), usize::from(!is_done));
        if is_done {
            assert!(after > 2);
            break;
        }
    }
    scene.losses(&Accept::All);
    scene.node.world.cut_power(NODE, millrace_io::sim::Loss::All);
    assert!(scene.losses(&Accept::Nothing).is_empty(), "what is done is durable");
    scene.node.start().unwrap();
    scene.ends[2] = RECORDS;
    scene.append(2);
}

#[test]
fn an_entry_of_which_nothing_is_left_takes_the_partitions_of_its_journal_and_no_others() {
    let mut scene = Scene::new(2);
    let intact = 3 * RECORDS;
    let of: Vec<u16> = (0..PARTITIONS).map(|partition| scene.shard_of(partition, 2)).collect();
    let victim = of.iter().position(|shard| *shard == 1).unwrap() as i32;
    scene.wreck(1, true, |record| batch_of(record, victim) == Some(intact));
    for round in 0..3 {
        scene.node.start().unwrap();
        for partition in 0..PARTITIONS {
            if of[partition as usize] == 1 {
                assert_eq!(scene.refusal(partition), STORAGE);
                let (end, _) = scene.read_through(partition);
                assert!((intact..=intact + RECORDS).contains(&end), "partition {partition} is read up to {end}");
            } else {
                scene.append(partition);
                assert_eq!(scene.read_through(partition).0, scene.ends[partition as usize]);
            }
        }
        if round == 1 {
            scene.churn("others");
        }
        scene.node.cluster.kill();
    }
    let losses = scene.losses(&Accept::All);
    assert_eq!(losses.len(), of.iter().filter(|shard| **shard == 1).count());
    assert!(losses.iter().all(|loss| loss.reached.is_some_and(|reached| reached >= 5 * RECORDS)), "{losses:?}");
    scene.node.start().unwrap();
    for partition in 0..PARTITIONS {
        scene.ends[partition as usize] = scene.read_through(partition).0;
        scene.append(partition);
    }
}

#[test]
fn a_partition_whose_birth_is_lost_is_not_taken_for_one_that_was_never_born() {
    let mut scene = Scene::new(2);
    scene.node.start().unwrap();
    scene.node.run(500, |_| false);
    scene.node.create("young", PARTITIONS);
    let mut end = scene.node.connect();
    for partition in 0..PARTITIONS {
        assert_eq!(scene.node.produce(&mut end, &produce("young", partition, 1, 7, 100)).0, 0);
    }
    scene.node.run(20, |_| false);
    scene.node.cluster.kill();
    let folder = Cluster::directory(0).join("journal/1");
    let recovered = journal::recover(&mut scene.node.world.disk(NODE), &folder, &Pool::new(0), 0).unwrap();
    let last = recovered.entries.iter().flat_map(|entry| &entry.records).rev().find_map(|record| match record {
        Record::State { partition, .. } => Some(*partition),
        _ => None,
    });
    let born = last.unwrap();
    scene.wreck(1, true, |record| record.partition() == born);
    scene.node.start().unwrap();
    let mut end = scene.node.connect();
    assert_eq!(scene.node.produce(&mut end, &produce("young", born.index as i32, 9, 1, 100)).0, STORAGE);
    scene.node.stop();
    let name = format!("young-{}", born.index);
    let losses = scene.losses(&Accept::Named(vec![name.clone()]));
    let loss = losses.iter().find(|loss| loss.name == name).unwrap();
    assert_eq!((loss.from, loss.reached, loss.producers), (0, None, true));
    scene.node.start().unwrap();
    let mut end = scene.node.connect();
    assert_eq!(scene.node.produce(&mut end, &produce("young", born.index as i32, 9, 1, 100)), (0, 0), "it begins anew");
}

#[test]
fn a_segment_that_is_cut_or_missing_ends_what_is_served() {
    for missing in [false, true] {
        let mut scene = Scene::new(1);
        let folder = scene.folder(2);
        scene.node.start().unwrap();
        let mut end = scene.node.connect();
        for batch in 0..120 {
            let (code, base) = scene.node.produce(&mut end, &produce("t", 2, 700_000 + batch * 10, 10, 10_000));
            assert_eq!((code, base), (0, scene.ends[2]));
            scene.ends[2] += 10;
        }
        scene.churn("others");
        scene.node.stop();
        let segments: Vec<String> =
            names(&mut scene.node.world.disk(NODE), &folder).into_iter().filter(|name| name.ends_with(".log")).collect();
        assert!(segments.len() >= 3, "{segments:?}");
        let path = folder.join(&segments[1]);
        let mut disk = scene.node.world.disk(NODE);
        if missing {
            disk.unlink(&path).unwrap();
        } else {
            let file = disk.open(&path, OpenHow { write: true, ..OpenHow::default() }).unwrap();
            disk.truncate(file, 300_000).unwrap();
            disk.close(file);
        }
        drop(disk);
        let begin: i64 = segments[1].trim_end_matches(".log").parse().unwrap();
        scene.node.start().unwrap();
        assert_eq!(scene.refusal(2), STORAGE);
        let (intact, _) = scene.read_through(2);
        match missing {
            true => assert_eq!(intact, begin),
            false => assert!(intact > begin && intact < begin + 50, "{intact}"),
        }
        scene.node.stop();
        let losses = scene.losses(&Accept::All);
        assert_eq!((losses.len(), losses[0].from, losses[0].reached), (1, intact, Some(scene.ends[2])));
        assert!(!losses[0].removed.is_empty());
        scene.ends[2] = intact;
        scene.goes_on(2);
    }
}

#[test]
fn a_state_file_that_is_lost_takes_only_the_memory_of_producers() {
    let mut scene = Scene::new(1);
    let folder = scene.folder(2);
    let mut changed = scene.node.cluster.config().clone();
    changed.settings.push("log.index.interval.bytes=100".to_owned());
    scene.node.configure(changed);
    scene.node.start().unwrap();
    let mut end = scene.node.connect();
    for batch in 0..3_000 {
        let (code, base) = scene.node.produce(&mut end, &produce("t", 2, 700_000 + batch * 2, 2, 500));
        assert_eq!((code, base), (0, scene.ends[2]));
        scene.ends[2] += 2;
    }
    scene.churn("others");
    scene.node.run(1_000, |_| false);
    scene.node.stop();
    let file = names(&mut scene.node.world.disk(NODE), &folder).into_iter().find(|name| name.ends_with(".state")).unwrap();
    assert!(scene.node.world.flip(NODE, &folder.join(&file), 100, 3));
    scene.node.start().unwrap();
    assert_eq!(scene.refusal(2), STORAGE);
    assert_eq!(scene.read_through(2).0, scene.ends[2], "all of it is read");
    scene.node.stop();
    let losses = scene.losses(&Accept::All);
    assert_eq!((losses.len(), losses[0].from, losses[0].records(), losses[0].producers), (1, scene.ends[2], Some(0), true));
    assert!(losses[0].reason.contains(&file) && losses[0].reason.contains("CRC"), "{}", losses[0].reason);
    scene.goes_on(2);
}

#[test]
fn replica_set_0_starts_again_without_what_it_has_lost() {
    let mut scene = Scene::new(1);
    scene.node.start().unwrap();
    scene.node.create("late", 1);
    scene.node.run(20, |_| false);
    scene.node.cluster.kill();
    let meta = |record: &Record| matches!(record, Record::Batches { partition, .. } if *partition == millrace_base::ids::META_PARTITION);
    let folder = Cluster::directory(0).join("journal/0");
    let recovered = journal::recover(&mut scene.node.world.disk(NODE), &folder, &Pool::new(0), 0).unwrap();
    let last = recovered.entries.iter().flat_map(|entry| &entry.records).rev().find(|record| meta(record)).cloned().unwrap();
    scene.wreck(0, false, |record| *record == last);
    let error = scene.node.start().unwrap_err();
    assert!(error.contains("replica set 0") && error.contains("millrace recover"), "{error}");
    let losses = scene.losses(&Accept::Named(vec!["replica-set-0".to_owned()]));
    assert!(losses.iter().any(|loss| loss.name == "replica-set-0" && loss.accepted));
    scene.node.start().unwrap();
    for partition in 0..PARTITIONS {
        scene.append(partition);
    }
    let mut end = scene.node.connect();
    assert_eq!(scene.node.produce(&mut end, &produce("late", 0, 1, 1, 100)).0, UNKNOWN_TOPIC);
    scene.node.create("late", 1);
    assert_eq!(scene.node.produce(&mut end, &produce("late", 0, 1, 1, 100)), (0, 0));
}

/// No statement of the journal tells of it: each start proves all commands, and what is left of them is asked for.
#[test]
fn replica_set_0_starts_again_without_what_has_rotted_in_its_segment() {
    let mut scene = Scene::new(1);
    scene.node.start().unwrap();
    for number in 0..90 {
        scene.node.create(&format!("{}-{number}", "n".repeat(230)), 1); // more than is carried from journal file to journal file
    }
    scene.churn("others");
    scene.node.run(500, |_| false);
    scene.node.stop();
    let folder = millrace_log::paths::partition(&Cluster::directory(0), millrace_base::ids::META_PARTITION);
    let path = folder.join(names(&mut scene.node.world.disk(NODE), &folder).into_iter().find(|name| name.ends_with(".log")).unwrap());
    let bytes = scene.node.bytes_of(&path);
    let (mut place, mut last) = (0, 0);
    while let Some(header) = bytes.get(place..).and_then(|rest| Header::parse(rest).ok()) {
        (last, place) = (place, place + header.size);
    }
    assert!(last > 0, "its segment has several batches");
    assert!(scene.node.world.flip(NODE, &path, last as u64 + 70, 3));
    let error = scene.node.start().unwrap_err();
    assert!(error.contains("replica set 0") && error.contains(&path.display().to_string()), "{error}");
    let losses = scene.losses(&Accept::Named(vec!["replica-set-0".to_owned()]));
    assert!(losses.iter().any(|loss| loss.name == "replica-set-0" && loss.accepted), "{losses:?}");
    scene.node.start().unwrap();
    for partition in 0..PARTITIONS {
        scene.append(partition);
    }
    scene.node.create("new", 1);
}

/// An id and then three records of it in partition 0 of topic `t`; gives the id.
fn write_idempotently(scene: &mut Scene) -> i64 {
    let mut end = scene.node.connect();
    let init = InitProducerIdRequest::default().with_transactional_id(None).with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    let answer = scene.node.ask(&mut end, 4, &init, 20_000).unwrap();
    assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
    let sequence = Sequence { producer_id: answer.producer_id.0, epoch: 0, first: 0 };
    let bytes = value::batch(ValueId::new(2, 0), 3, 100, 1_700_000_000_000, Some(sequence), 0);
    let mut request = produce("t", 0, 0, 1, 100);
    request.topic_data[0].partition_data[0].records = Some(bytes.into());
    assert_eq!(scene.node.produce(&mut end, &request), (0, scene.ends[0]), "no duplicate of anybody's");
    scene.ends[0] += 3;
    answer.producer_id.0
}

#[test]
fn producer_ids_whose_handing_out_is_lost_are_not_handed_out_again() {
    for churns in [false, true] {
        let mut scene = Scene::new(1);
        scene.node.start().unwrap();
        let mut known = std::collections::BTreeSet::from([write_idempotently(&mut scene)]);
        scene.node.run(20, |_| false);
        scene.node.cluster.kill();
        let meta =
            |record: &Record| matches!(record, Record::Batches { partition, .. } if *partition == millrace_base::ids::META_PARTITION);
        let folder = Cluster::directory(0).join("journal/0");
        let recovered = journal::recover(&mut scene.node.world.disk(NODE), &folder, &Pool::new(0), 0).unwrap();
        let last = recovered.entries.iter().flat_map(|entry| &entry.records).rev().find(|record| meta(record)).cloned().unwrap();
        scene.wreck(0, false, |record| *record == last);
        assert!(scene.node.start().is_err());
        scene.losses(&Accept::All);
        for round in 0..3 {
            scene.node.start().unwrap();
            if churns {
                scene.churn(&format!("others-{round}")); // what the partition knows of producers stands in its checkpoint then
            }
            for _ in 0..2 {
                assert!(known.insert(write_idempotently(&mut scene)), "an id twice, among {known:?}");
            }
            scene.node.cluster.kill();
        }
        scene.node.start().unwrap();
        assert_eq!(scene.read_through(0).0, scene.ends[0]);
    }
}
