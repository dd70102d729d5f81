//! Disk faults of batches that are large enough to be written straight to their segment: the journal holds their last fragment and an extent, and
//! counts the extents that are durable. A batch is served as it was sent or not at all, and what is counted is never taken for torn.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_base::batch::{self, Header};
use millrace_io::sim::{ClientEnd, On, Wrong};
use millrace_sim::cluster::{Cluster, NODE};
use millrace_sim::node::{Node, config, produce};
use millrace_sim::said;
use millrace_sim::value::{self, ValueId};
use std::path::PathBuf;

const EIO: i32 = 5;
const STORAGE: i16 = 56;
const RECORDS: u32 = 10;
/// Starts that misread a bit of a journal.
const ROUNDS: u32 = 1_000;
/// Of a record: batches of 200 kB, and of 1 kB.
const LARGE: usize = 20_000;
const SMALL: usize = 100;

struct Scene {
    node: Node,
    end: ClientEnd,
    /// What a record of each batch weighs, in order.
    batches: Vec<usize>,
}

impl Scene {
    fn new() -> Scene {
        let mut node = Node::new(config(1, 1, 128 << 20));
        node.start().unwrap();
        node.create("t", 1);
        let end = node.connect();
        let mut scene = Scene { node, end, batches: Vec::new() };
        scene.append(LARGE, 55); // two segments and more: at the begin of one they go through the journal until there is room
        scene
    }

    fn append(&mut self, record_bytes: usize, batches: usize) {
        for _ in 0..batches {
            let request = produce("t", 0, self.next() as u32, RECORDS, record_bytes);
            assert_eq!(self.node.produce(&mut self.end, &request), (0, self.next()));
            self.batches.push(record_bytes);
        }
    }

    fn next(&self) -> i64 {
        self.batches.len() as i64 * i64::from(RECORDS)
    }

    fn start(&mut self) {
        self.node.world.heal(NODE);
        self.node.start().unwrap();
        self.end = self.node.connect();
    }

    /// The segments, by base.
    fn segments(&self) -> Vec<(i64, PathBuf)> {
        let data = Cluster::directory(0);
        let folders = self.node.names(&data).into_iter().map(|name| data.join(name).join("0"));
        let of = |folder: PathBuf| {
            let base = |name: &String| name.strip_suffix(".log")?.parse().ok();
            let names = self.node.names(&folder);
            names.iter().filter_map(|name| Some((base(name)?, folder.join(name)))).collect::<Vec<(i64, PathBuf)>>()
        };
        folders.map(of).max_by_key(Vec::len).unwrap()
    }

    /// One fetch: its error, and its batches, each of which is proved to be what was sent.
    fn fetch(&mut self, offset: i64) -> (i16, Vec<Header>) {
        let (code, batches) = self.node.fetch_batches("t", 0, offset, 300_000);
        let check = |found: &bytes::Bytes| {
            let header = Header::parse(found).unwrap();
            let record_bytes = self.batches[(header.base_offset / i64::from(RECORDS)) as usize];
            let sent = value::batch(ValueId::new(1, header.base_offset as u32), RECORDS, record_bytes, 1_700_000_000_000, None, 0);
            assert!(batch::check_stored(found).is_ok() && found[batch::HEADER_BYTES..] == sent[batch::HEADER_BYTES..], "at {offset}");
            header
        };
        (code, batches.iter().map(check).collect())
    }

    /// Reads all of it; gives the base offsets of the batches that are refused, and proves that each refusal is told with file and place.
    fn refused(&mut self) -> Vec<i64> {
        let (mut offset, mut refused) = (0, Vec::new());
        while offset < self.next() {
            said::listen();
            let (code, headers) = self.fetch(offset);
            match headers.last() {
                Some(header) => offset = header.next_offset(),
                None => {
                    assert_eq!(code, STORAGE, "nothing at {offset} of {}", self.next());
                    let segment = self.segments().into_iter().rev().find(|(base, _)| *base <= offset).unwrap().1;
                    let told = format!("{} at byte ", segment.display());
                    let lines = said::listen();
                    let tells = |line: &String| line.contains("is damaged: ") && line.contains(&told) && line.contains("expected");
                    assert!(lines.iter().any(tells), "{told}: {lines:?}");
                    refused.push(offset);
                    offset += i64::from(RECORDS);
                }
            }
        }
        refused
    }
}

#[test]
fn a_bit_flipped_anywhere_in_a_large_batch_is_never_served() {
    let mut scene = Scene::new();
    scene.node.stop();
    let (base, path) = scene.segments().swap_remove(1);
    let bytes = scene.node.bytes_of(&path);
    let place = Header::parse(&bytes).unwrap().size;
    let header = Header::parse(&bytes[place..]).unwrap();
    assert!(header.size > 128 << 10, "it was written directly");
    scene.start();
    for at in (0..batch::HEADER_BYTES).chain((batch::HEADER_BYTES..header.size).step_by(9_973)).chain([header.size - 1]) {
        assert!(scene.node.world.flip(NODE, &path, (place + at) as u64, 5));
        said::listen();
        assert_eq!(scene.fetch(header.base_offset), (STORAGE, Vec::new()), "byte {at}");
        let told = format!("{} at byte {place}: expected ", path.display());
        let lines = said::listen();
        assert!(lines.iter().any(|line| line.contains(&told)), "byte {at}: {lines:?}");
        assert_eq!(scene.fetch(base).1.last().map(Header::next_offset), Some(header.base_offset), "what lies before it is served");
        assert_eq!(scene.fetch(header.next_offset()).0, 0, "what lies behind it is served");
        assert!(scene.node.world.flip(NODE, &path, (place + at) as u64, 5));
    }
    assert!(scene.refused().is_empty());
}

/// Once a later entry counts the extent, recovery takes it for durable: its loss is damage, which the next read from disk meets.
#[test]
fn a_large_batch_whose_write_was_lost_or_went_astray_is_refused_when_it_is_read() {
    for wrong in [Wrong::Lost, Wrong::Misdirected(1 << 20), Wrong::Misdirected(-65_536), Wrong::Flipped] {
        for is_killed in [true, false] {
            let mut scene = Scene::new();
            // More than room is reserved for: cuts and reservations count, and lose nothing.
            scene.node.fault(".log", On::Write, 2, 3, wrong);
            let first = scene.next();
            scene.append(LARGE, 10);
            scene.append(SMALL, 1);
            let last = scene.next();
            scene.append(LARGE, 3);
            scene.node.run(500, |_| false);
            match is_killed {
                true => scene.node.cluster.kill(),
                false => scene.node.stop(),
            }
            scene.start();
            let refused = scene.refused();
            // A lost write takes what it brought along: the last bytes of the batch before. One that goes back writes over what lies there.
            let range = first - 2 * i64::from(RECORDS)..last;
            assert!(!refused.is_empty() && refused.iter().all(|offset| range.contains(offset)), "{wrong:?}: {refused:?} of {range:?}");
            scene.append(LARGE, 2);
            scene.append(SMALL, 2);
            assert_eq!(scene.refused(), refused, "{wrong:?}: it goes on behind them");
        }
    }
}

/// What nothing counts yet cannot be told from torn: the extent's CRC is wrong, and the partition is cut there.
#[test]
fn the_loss_of_the_last_large_batch_is_beyond_one_disk() {
    for wrong in [Wrong::Lost, Wrong::Misdirected(1 << 20), Wrong::Flipped] {
        let mut scene = Scene::new();
        scene.node.run(500, |_| false);
        scene.node.fault(".log", On::Write, 0, u32::MAX, wrong);
        scene.append(LARGE, 1);
        scene.node.cluster.kill();
        scene.batches.pop();
        scene.start();
        assert!(scene.refused().is_empty(), "{wrong:?}");
        assert_eq!(scene.fetch(scene.next()), (0, Vec::new()), "{wrong:?}: it is as if it had never been");
        scene.append(LARGE, 2);
        scene.append(SMALL, 2);
        assert!(scene.refused().is_empty(), "{wrong:?}");
    }
}

/// Found whole by a start and stated by it: from then on its loss is damage, and what was acknowledged behind it does not go silently.
#[test]
fn a_large_batch_that_a_start_has_found_is_damage_when_it_rots() {
    let mut scene = Scene::new();
    scene.node.run(500, |_| false);
    let found = scene.next();
    scene.append(LARGE, 1);
    scene.node.cluster.kill();
    scene.start();
    scene.append(SMALL, 3);
    scene.node.run(100, |_| false);
    scene.node.cluster.kill();
    let (_, path) = scene.segments().pop().unwrap();
    let bytes = scene.node.bytes_of(&path);
    let mut place = 0;
    loop {
        let header = Header::parse(&bytes[place..]).unwrap();
        if header.base_offset == found {
            break;
        }
        place += header.size;
    }
    assert!(scene.node.world.flip(NODE, &path, place as u64 + 50_000, 5));
    scene.start();
    let request = produce("t", 0, scene.next() as u32, RECORDS, SMALL);
    assert_eq!(scene.node.produce(&mut scene.end, &request).0, STORAGE, "it is not cut as if it had never been");
}

/// Neither does a start that misreads the journal's end change anything: the extents that it does not see are in their segments at the next. A bit
/// is flipped anywhere in what is read, so most of these starts misread something else.
#[test]
fn a_misread_of_the_journal_cuts_no_large_batch() {
    let mut scene = Scene::new();
    for round in 0..ROUNDS {
        scene.append(LARGE, 5);
        scene.node.cluster.kill();
        scene.node.fault(".journal", On::Read, round % 3, 1, Wrong::Flipped);
        let started = scene.node.start().is_ok();
        scene.node.cluster.kill();
        scene.start();
        assert_eq!(
            scene.fetch(scene.next() - 10).1.last().map(Header::next_offset),
            Some(scene.next()),
            "round {round}, started {started}"
        );
        assert_eq!(scene.fetch(scene.next()), (0, Vec::new()));
    }
}

#[test]
fn a_read_of_a_large_batch_that_fails_gives_nothing_and_the_next_is_whole() {
    let mut scene = Scene::new();
    scene.node.stop();
    let (base, path) = scene.segments().swap_remove(1);
    scene.start();
    scene.fetch(base); // its index is in memory
    scene.node.fault(&path.display().to_string(), On::Read, 0, u32::MAX, Wrong::Error(EIO));
    said::listen();
    assert_eq!(scene.fetch(base + 20), (STORAGE, Vec::new()));
    let lines = said::listen();
    scene.node.world.heal(NODE);
    assert!(lines.iter().any(|line| line.contains("cannot be read: ") && line.contains(&path.display().to_string())), "{lines:?}");
    assert!(scene.refused().is_empty());
}
