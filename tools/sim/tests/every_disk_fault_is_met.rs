//! The disk faults that one node can meet: each is detected and named, nothing else than what was acknowledged is served, and nothing is taken
//! for the end of the log.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ProduceRequest};
use millrace_base::batch::{self, Header};
use millrace_base::limits::BLOCK;
use millrace_io::sim::{ClientEnd, On, Rates, Wrong};
use millrace_io::{Disk, OpenHow};
use millrace_log::index::Index;
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{Node, PRODUCE, config, produce, topic};
use millrace_sim::said;
use millrace_sim::value::{self, ValueId};
use std::path::{Path, PathBuf};

const EIO: i32 = 5;
const STORAGE: i16 = 56;
/// Records in a batch of about 10 kB.
const RECORDS: u32 = 10;

/// A partition whose first segments are closed and not in memory, and that was stopped.
struct Scene {
    node: Node,
    batches: u32,
    /// Files of the partition's folder.
    folder: PathBuf,
}

impl Scene {
    fn new(settings: &[&str]) -> Scene {
        let mut configured = config(1, 1, 128 << 20);
        configured.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        configured.settings.retain(|setting| !setting.starts_with("log.segment.bytes"));
        configured.settings.push("log.segment.bytes=1048576".to_owned());
        let mut node = Node::new(configured);
        node.start().unwrap();
        node.create("t", 1);
        let mut scene = Scene { node, batches: 0, folder: PathBuf::new() };
        let mut end = scene.node.connect();
        // Several times what the journal holds, so that segments are closed.
        for _ in 0..900 {
            scene.append(&mut end);
        }
        scene.node.run(500, |_| false);
        scene.node.stop();
        let data = Cluster::directory(0);
        let folders: Vec<PathBuf> = scene.node.names(&data).iter().map(|name| data.join(name).join("0")).collect();
        let closed = |folder: &PathBuf| scene.node.names(folder).iter().filter(|name| name.ends_with(".index")).count();
        scene.folder = folders.into_iter().max_by_key(closed).unwrap();
        scene
    }

    fn append(&mut self, end: &mut ClientEnd) {
        let (code, base) = self.node.produce(end, &produce("t", 0, self.batches * RECORDS, RECORDS, 1_000));
        assert_eq!((code, base), (0, i64::from(self.batches * RECORDS)));
        self.batches += 1;
    }

    fn segment(&self, nth: usize) -> (PathBuf, i64) {
        let names: Vec<String> = self.node.names(&self.folder).into_iter().filter(|name| name.ends_with(".log")).collect();
        (self.folder.join(&names[nth]), names[nth].trim_end_matches(".log").parse().unwrap())
    }

    /// One fetch: its error, and its batches, each of which is proved to be what was sent.
    fn fetch(&mut self, offset: i64) -> (i16, Vec<Header>) {
        let (code, batches) = self.node.fetch_batches("t", 0, offset, 100_000);
        let check = |found: &bytes::Bytes| {
            let header = Header::parse(found).unwrap();
            let sent = value::batch(ValueId::new(1, header.base_offset as u32), RECORDS, 1_000, 1_700_000_000_000, None, 0);
            assert!(batch::check_stored(found).is_ok() && found[batch::HEADER_BYTES..] == sent[batch::HEADER_BYTES..], "at {offset}");
            header
        };
        (code, batches.iter().map(check).collect())
    }

    /// Waits until no window of a segment is in memory any more.
    fn forget_windows(&mut self) {
        self.node.run(2_000, |_| false);
    }

    /// The offset of the first record at or after a time.
    fn lookup(&mut self, time: i64) -> (i16, i64) {
        let mut end = self.node.connect();
        let part = ListOffsetsPartition::default().with_partition_index(0).with_current_leader_epoch(-1).with_timestamp(time);
        let asked = ListOffsetsTopic::default().with_name(topic("t")).with_partitions(vec![part]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        let found = self.node.ask(&mut end, 7, &request, 5_000).unwrap().topics[0].partitions[0].clone();
        (found.error_code, found.offset)
    }

    fn fault(&self, path: &str, on: On, after: u32, times: u32, wrong: Wrong) {
        self.node.fault(path, on, after, times, wrong);
    }

    /// Every record is there.
    fn check_whole(&mut self) {
        let (mut offset, end) = (0, i64::from(self.batches * RECORDS));
        while offset < end {
            let (code, headers) = self.fetch(offset);
            assert_eq!(code, 0, "at {offset}");
            offset = headers.last().unwrap().next_offset();
        }
    }
}

/// Places of a batch: every byte of its header, some of its records.
fn places(size: usize) -> impl Iterator<Item = usize> {
    (0..batch::HEADER_BYTES).chain((batch::HEADER_BYTES..size).step_by(997)).chain([size - 1])
}

#[test]
fn a_bit_flipped_anywhere_in_a_segment_is_never_served_nor_taken_for_its_end() {
    let mut scene = Scene::new(&[]);
    let (path, base) = scene.segment(1);
    let bytes = scene.node.bytes_of(&path);
    // A batch without an index entry would do as well: entries are 4 KiB apart, batches are larger.
    let first = Header::parse(&bytes).unwrap();
    let place = first.size;
    let header = Header::parse(&bytes[place..]).unwrap();
    scene.node.start().unwrap();
    for at in places(header.size) {
        for bit in [0, 7] {
            assert!(scene.node.world.flip(NODE, &path, (place + at) as u64, bit));
            said::listen();
            let (code, headers) = scene.fetch(header.base_offset);
            assert_eq!((code, headers.len()), (STORAGE, 0), "byte {at} of the batch");
            let (told, lines) = (format!("{} at byte {place}: expected ", path.display()), said::listen());
            assert!(lines.iter().any(|line| line.contains(&told)), "byte {at}: {lines:?}");
            let (code, headers) = scene.fetch(base);
            assert_eq!(code, 0, "what lies before it is served");
            assert_eq!(headers.last().unwrap().next_offset(), header.base_offset, "byte {at}");
            assert_eq!(scene.fetch(header.next_offset()).0, 0, "what lies behind it is served");
            assert!(scene.node.world.flip(NODE, &path, (place + at) as u64, bit));
        }
    }
    scene.check_whole();
}

#[test]
fn a_segment_without_its_index_is_proved_batch_by_batch() {
    let mut scene = Scene::new(&["log.index.interval.bytes=1000000"]);
    let (path, base) = scene.segment(1);
    let header = Header::parse(&scene.node.bytes_of(&path)).unwrap();
    scene.node.start().unwrap();
    // Where no index entry tells of a batch, a changed base offset or length is seen as a gap; the epoch alone is in no checksum.
    let epoch = batch::place::EPOCH..batch::place::EPOCH + 4;
    let place = header.size;
    for at in places(header.size).filter(|at| !epoch.contains(at)) {
        assert!(scene.node.world.flip(NODE, &path, (place + at) as u64, 0));
        assert_eq!(scene.fetch(header.next_offset()).0, STORAGE, "byte {at}");
        assert_eq!(scene.fetch(base).0, 0);
        assert!(scene.node.world.flip(NODE, &path, (place + at) as u64, 0));
    }
    assert!(scene.node.world.flip(NODE, &path, (place + epoch.start) as u64, 0));
    let (code, headers) = scene.fetch(header.next_offset());
    assert!(code == 0 && headers[0].epoch != header.epoch, "as said");
}

/// Every batch has an index entry, or none has but the first.
#[test]
fn a_batch_of_another_partition_in_its_place_is_noticed_by_its_index_entry_alone() {
    for (interval, is_noticed) in [(100, true), (1_000_000, false)] {
        let mut scene = Scene::new(&[&format!("log.index.interval.bytes={interval}")]);
        let (path, _) = scene.segment(1);
        let bytes = scene.node.bytes_of(&path);
        let place = Header::parse(&bytes).unwrap().size;
        let header = Header::parse(&bytes[place..]).unwrap();
        let mine = &bytes[place..place + header.size];
        // The same offsets, size and epoch, and other records.
        let mut others = (500_000..).map(|first| value::batch(ValueId::new(1, first), RECORDS, 1_000, 1_700_000_000_000, None, 0));
        let mut foreign = others.find(|foreign| foreign.len() == mine.len()).unwrap();
        batch::patch(&mut foreign, header.base_offset, header.epoch);
        assert!(foreign != mine && batch::check_stored(&foreign).is_ok());
        let mut disk = scene.node.world.disk(NODE);
        let file = disk.open(&path, OpenHow { write: true, ..OpenHow::default() }).unwrap();
        disk.write(file, place as u64, &foreign).unwrap();
        disk.close(file);
        drop(disk);
        scene.node.start().unwrap();
        let (code, batches) = scene.node.fetch_batches("t", 0, header.base_offset, 100_000);
        match is_noticed {
            true => assert_eq!((code, batches.len()), (STORAGE, 0)),
            false => assert!(code == 0 && batches[0][..] == foreign[..], "as said"),
        }
    }
}

#[test]
fn a_lookup_by_time_does_not_pass_over_a_damaged_batch() {
    let mut scene = Scene::new(&["log.index.interval.bytes=1000000"]);
    let (path, _) = scene.segment(0);
    let header = Header::parse(&scene.node.bytes_of(&path)).unwrap();
    scene.node.start().unwrap();
    let (code, found) = scene.lookup(header.base_timestamp);
    assert_eq!((code, found), (0, 0));
    for at in [0, 8, 12, 16, 17, 23, 27, 60, 500] {
        assert!(scene.node.world.flip(NODE, &path, at, 6));
        assert_eq!(scene.lookup(header.base_timestamp).0, STORAGE, "byte {at}");
        assert!(scene.node.world.flip(NODE, &path, at, 6));
    }
}

#[test]
fn an_index_damaged_anywhere_is_made_again_from_its_segment() {
    let mut scene = Scene::new(&["log.index.interval.bytes=100"]);
    let (segment, base) = scene.segment(1);
    let path = segment.with_extension("index");
    let bytes = scene.node.bytes_of(&path);
    for at in (0..48).chain([100, 4_092, 4_096, 4_100, 4_108, 4_115, 8_000, 8_191]) {
        assert!(scene.node.world.flip(NODE, &path, at, 2), "byte {at}");
        assert!(Index::decode(&scene.node.bytes_of(&path), base, "").is_err(), "byte {at}");
        scene.node.start().unwrap();
        let (code, headers) = scene.fetch(base + 200);
        assert_eq!((code, headers[0].base_offset), (0, base + 200));
        scene.node.run(100, |_| false);
        scene.node.stop();
        scene.node.start().unwrap();
        scene.node.stop();
        let again = Index::decode(&scene.node.bytes_of(&path), base, "").unwrap();
        assert_eq!(again.summary(), Index::decode(&bytes, base, "").unwrap().summary(), "byte {at}");
    }
    scene.node.start().unwrap();
    scene.check_whole();
}

#[test]
fn an_index_that_cannot_be_read_is_made_again_from_its_segment() {
    let mut scene = Scene::new(&["log.index.interval.bytes=100"]);
    let (segment, base) = scene.segment(1);
    let path = segment.with_extension("index");
    let bytes = scene.node.bytes_of(&path);
    scene.node.start().unwrap();
    assert!(scene.node.world.spoil(NODE, &path, 4_500, 1));
    said::listen();
    let (code, headers) = scene.fetch(base + 200);
    assert_eq!((code, headers[0].base_offset), (0, base + 200));
    let lines = said::listen();
    assert!(lines.iter().any(|line| line.contains(&path.display().to_string()) && line.contains("made again")), "{lines:?}");
    scene.node.run(100, |_| false);
    scene.node.stop();
    scene.node.start().unwrap();
    said::listen();
    assert_eq!(scene.fetch(base + 200).0, 0);
    assert_eq!(said::listen(), Vec::<String>::new(), "it is read again");
    scene.node.stop();
    assert_eq!(scene.node.bytes_of(&path).len(), bytes.len());
    assert!(Index::decode(&scene.node.bytes_of(&path), base, "").is_ok());
}

#[test]
fn the_identity_of_a_data_directory_is_never_guessed() {
    let mut scene = Scene::new(&[]);
    let path = Cluster::directory(0).join("millrace.meta");
    for at in 0..scene.node.bytes_of(&path).len() as u64 {
        assert!(scene.node.world.flip(NODE, &path, at, 1));
        let error = scene.node.start().unwrap_err();
        assert!(error.contains("/data/0"), "byte {at}: {error}");
        assert!(scene.node.world.flip(NODE, &path, at, 1));
    }
    scene.node.start().unwrap();
    scene.check_whole();
}

#[test]
fn replica_set_0_in_a_segment_is_proved_before_the_node_starts() {
    let mut scene = Scene::new(&[]);
    scene.node.start().unwrap();
    for number in 0..90 {
        scene.node.create(&format!("{}-{number}", "n".repeat(230)), 1);
    }
    let mut end = scene.node.connect();
    for _ in 0..300 {
        scene.append(&mut end);
    }
    scene.node.run(500, |_| false);
    scene.node.stop();
    let folder = millrace_log::paths::partition(&Cluster::directory(0), millrace_base::ids::META_PARTITION);
    let name = scene.node.names(&folder).into_iter().find(|name| name.ends_with(".log")).unwrap();
    let path = folder.join(name);
    let header = Header::parse(&scene.node.bytes_of(&path)).unwrap();
    for at in places(header.size).filter(|at| !(batch::place::EPOCH..batch::place::EPOCH + 4).contains(at)) {
        assert!(scene.node.world.flip(NODE, &path, at as u64, 4));
        let error = scene.node.start().unwrap_err();
        assert!(error.contains("replica set 0") && error.contains(".log at byte 0"), "byte {at}: {error}");
        assert!(scene.node.world.flip(NODE, &path, at as u64, 4));
    }
    scene.node.start().unwrap();
}

#[test]
fn a_read_that_fails_or_goes_astray_gives_nothing_and_the_next_is_whole() {
    let mut scene = Scene::new(&[]);
    let (path, base) = scene.segment(1);
    scene.node.start().unwrap();
    let segment = path.display().to_string();
    for wrong in [Wrong::Error(EIO), Wrong::Misdirected(4_096), Wrong::Misdirected(-4_096), Wrong::Flipped] {
        scene.fetch(base + 100); // its index is in memory
        scene.forget_windows();
        // What the device refuses is tried again in part.
        let times = if wrong == Wrong::Error(EIO) { u32::MAX } else { 1 };
        scene.fault(&segment, On::Read, 0, times, wrong);
        let (code, headers) = scene.fetch(base + 100);
        match wrong {
            // The bit may be in what is not asked for.
            Wrong::Flipped if code == 0 => {}
            _ => assert_eq!((code, headers.len()), (STORAGE, 0), "{wrong:?}"),
        }
        scene.node.world.heal(NODE);
        assert_eq!(scene.fetch(base + 100).0, 0);
    }
    scene.check_whole();
}

#[test]
fn a_sector_that_cannot_be_read_takes_only_the_batches_of_its_block() {
    let mut scene = Scene::new(&[]);
    let (path, base) = scene.segment(1);
    let next = scene.segment(2).1;
    let bytes = scene.node.bytes_of(&path);
    let mut batches: Vec<(usize, Header)> = Vec::new();
    while batches.last().is_none_or(|(_, header)| header.next_offset() < next) {
        let place = batches.last().map_or(0, |(place, header)| place + header.size);
        batches.push((place, Header::parse(&bytes[place..]).unwrap()));
    }
    scene.node.start().unwrap();
    let mut bad: Vec<usize> = Vec::new();
    for (nth, at) in [(0, 0), (40, 20), (41, 5_000), (80, 9_999)] {
        let place = batches[nth].0 + at;
        assert!(scene.node.world.spoil(NODE, &path, place as u64, 1));
        bad.push(place / BLOCK);
        scene.forget_windows();
        said::listen();
        let (mut offset, mut refused) = (base, Vec::new());
        while offset < next {
            let (code, headers) = scene.fetch(offset);
            match headers.last() {
                Some(header) => offset = header.next_offset(),
                None => {
                    assert_eq!(code, STORAGE, "nothing at {offset}");
                    refused.push(offset);
                    offset += i64::from(RECORDS);
                }
            }
        }
        let lines = said::listen();
        let gone = batches
            .iter()
            .filter(|(place, header)| bad.iter().any(|bad| (place / BLOCK..=(place + header.size - 1) / BLOCK).contains(bad)));
        let gone: Vec<_> = gone.collect();
        assert_eq!(refused, gone.iter().map(|(_, header)| header.base_offset).collect::<Vec<_>>());
        for (place, _) in gone {
            let told = format!("cannot be read: {} at byte {place}: ", path.display());
            assert!(lines.iter().any(|line| line.contains(&told)), "byte {place}: {lines:?}");
        }
    }
    let mut end = scene.node.connect();
    scene.append(&mut end);
}

#[test]
fn a_segment_write_that_is_lost_or_goes_astray_is_met_when_it_is_read() {
    for wrong in [Wrong::Lost, Wrong::Misdirected(65_536), Wrong::Flipped] {
        let mut scene = Scene::new(&[]);
        scene.node.start().unwrap();
        scene.fault(".log", On::Write, 1, 3, wrong); // cuts and reservations count, and lose nothing
        let mut end = scene.node.connect();
        for _ in 0..200 {
            scene.append(&mut end);
        }
        scene.node.run(500, |_| false);
        scene.node.stop();
        scene.node.world.heal(NODE);
        scene.node.start().unwrap();
        // From the first batch on, every record is the one sent, up to one that is refused by its place.
        let (mut offset, last) = (0, i64::from(scene.batches * RECORDS));
        let mut refused = 0;
        while offset < last {
            let (code, headers) = scene.fetch(offset);
            match headers.last() {
                Some(header) => offset = header.next_offset(),
                None => {
                    assert_eq!(code, STORAGE, "{wrong:?}: nothing at {offset} of {last}");
                    (refused, offset) = (refused + 1, offset + i64::from(RECORDS));
                }
            }
        }
        assert!(refused > 0, "{wrong:?} is met");
    }
}

#[test]
fn a_journal_write_that_is_lost_or_goes_astray_is_damage_once_something_was_written_behind_it() {
    for wrong in [Wrong::Lost, Wrong::Misdirected(8_192), Wrong::Flipped] {
        let mut scene = Scene::new(&[]);
        scene.node.start().unwrap();
        scene.node.run(100, |_| false);
        let mut end = scene.node.connect();
        scene.append(&mut end);
        scene.node.run(20, |_| false);
        let intact = i64::from(scene.batches * RECORDS);
        scene.fault(".journal", On::Write, 0, 1, wrong);
        for _ in 0..3 {
            scene.append(&mut end);
        }
        scene.node.run(20, |_| false);
        scene.node.cluster.kill();
        scene.node.world.heal(NODE);
        // It may have held what belongs to replica set 0 too: then there is no start.
        match scene.node.start() {
            Err(error) => assert!(error.contains("replica set 0") && error.contains("at byte"), "{wrong:?}: {error}"),
            Ok(()) => {
                let mut end = scene.node.connect();
                let request = produce("t", 0, 0, 1, 10);
                let answer = scene.node.ask::<ProduceRequest>(&mut end, PRODUCE, &request, 5_000).unwrap();
                let part = &answer.responses[0].partition_responses[0];
                assert_eq!(part.error_code, STORAGE, "{wrong:?}");
                let message = part.error_message.as_ref().unwrap().to_string();
                assert!(message.contains("/data/0/journal/0") && message.contains("expected"), "{message}");
                assert_eq!(scene.fetch(intact).0, 0);
                assert_eq!(scene.fetch(intact + 1).0, STORAGE, "{wrong:?}");
            }
        }
    }
}

#[test]
fn writes_and_reads_that_come_short_are_gone_on_with() {
    let mut scene = Scene::new(&[]);
    scene.node.start().unwrap();
    scene.node.world.set_rates(Rates { short_one_in: 2, ..Rates::CALM });
    let mut end = scene.node.connect();
    for _ in 0..200 {
        scene.append(&mut end);
    }
    scene.node.run(200, |_| false);
    scene.node.cluster.kill();
    scene.node.start().unwrap();
    scene.check_whole();
}

/// What one disk cannot tell: the very last synced group is gone, with all that stated it.
#[test]
fn the_loss_of_the_last_synced_group_is_beyond_one_disk() {
    let mut scene = Scene::new(&[]);
    scene.node.start().unwrap();
    scene.node.run(100, |_| false);
    let mut end = scene.node.connect();
    let before = scene.batches;
    scene.fault(".journal", On::Write, 0, u32::MAX, Wrong::Lost);
    scene.append(&mut end);
    scene.node.cluster.kill();
    scene.node.world.heal(NODE);
    scene.node.start().unwrap();
    scene.batches = before;
    scene.check_whole();
    let (code, headers) = scene.fetch(i64::from(before * RECORDS));
    assert_eq!((code, headers.len()), (0, 0), "it is as if it had never been");
}

/// Nor that all of it is older than it should be.
#[test]
fn a_data_directory_that_goes_back_in_time_is_whole_as_of_then() {
    fn copy(node: &Node, from: &Path, to: &Path) {
        for entry in node.world.disk(NODE).list(from).unwrap() {
            let (from, to) = (from.join(&entry.name), to.join(&entry.name));
            if entry.is_directory {
                node.world.disk(NODE).make_directories(&to).unwrap();
                copy(node, &from, &to);
            } else {
                let bytes = node.bytes_of(&from);
                let mut disk = node.world.disk(NODE);
                let file = disk.open(&to, OpenHow { write: true, create: true, ..OpenHow::default() }).unwrap();
                disk.write(file, 0, &bytes).unwrap();
                disk.close(file);
            }
        }
    }
    let mut scene = Scene::new(&[]);
    let (data, old) = (Cluster::directory(0), Path::new("/old"));
    scene.node.world.disk(NODE).make_directories(old).unwrap();
    copy(&scene.node, &data, old);
    let before = scene.batches;
    scene.node.start().unwrap();
    let mut end = scene.node.connect();
    for _ in 0..20 {
        scene.append(&mut end);
    }
    scene.node.stop();
    let mut disk = scene.node.world.disk(NODE);
    disk.rename(&data, Path::new("/new")).unwrap();
    disk.rename(old, &data).unwrap();
    drop(disk);
    scene.node.start().unwrap();
    scene.batches = before;
    scene.check_whole();
    let mut end = scene.node.connect();
    scene.append(&mut end);
}
