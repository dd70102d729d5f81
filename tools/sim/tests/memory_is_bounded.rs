//! Clients that hold memory and give nothing for it: the node keeps within its budget, and good clients beside them are served.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{BrokerId, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use millrace_base::clock::Nanos;
use millrace_io::sim::{ClientEnd, Rates, SimDriver, World};
use millrace_io::{Driver, Wait};
use millrace_log::journal::Options;
use millrace_sim::cluster::{Cluster, Config};
use millrace_sim::value::{self, ValueId};

const MS: u64 = 1_000_000;
const PARTITIONS: i32 = 4;

/// Memory of each shard.
const MEMORY: usize = 64 << 20;

const PRODUCE: i16 = 9;
const FETCH: i16 = 12;

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn framed<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version).with_correlation_id(1);
    let mut body = BytesMut::new();
    header.encode(&mut body, R::header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

fn fetch(partitions: impl Iterator<Item = (i32, i64)>, max_bytes: i32) -> Vec<u8> {
    let part = |(index, offset)| {
        FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(max_bytes)
    };
    let topic = FetchTopic::default().with_topic(topic()).with_partitions(partitions.map(part).collect());
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    framed(FETCH, &request)
}

fn produce(partition: i32, first: u32, count: u32, record_bytes: usize) -> Vec<u8> {
    let batch: Bytes = value::batch(ValueId::new(1, first), count, record_bytes, 1_700_000_000_000, None, 0).into();
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    framed(PRODUCE, &ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]))
}

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
    world: World,
    cluster: Cluster,
    clock: SimDriver,
    senders: Vec<Sender>,
    used_most: usize,
}

impl Scene {
    fn new(shards: u16) -> Scene {
        let world = World::new(11, Rates::CALM);
        let journal = Options { file_bytes: 1 << 20, entry_bytes_max: 512 << 10, files_first: 2, files_max: 3, reserve_bytes: 256 << 10 };
        let settings = ["offsets.topic.num.partitions=1", "shard.spin.us=0", "log.segment.bytes=4194304"];
        let settings = settings.map(str::to_owned).to_vec();
        let config = Config { shards, directories: 1, journal, memory_bytes: MEMORY * usize::from(shards), settings };
        let mut cluster = Cluster::new(&world, config);
        cluster.start(shards).unwrap();
        let clock = world.driver(99);
        let mut scene = Scene { world, cluster, clock, senders: Vec::new(), used_most: 0 };
        assert!(scene.run(30_000, |scene| scene.cluster.is_open()));
        let create = CreatableTopic::default().with_name(topic()).with_num_partitions(PARTITIONS).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![create]).with_timeout_ms(5_000);
        let mut good = scene.connect();
        scene.ask::<CreateTopicsRequest>(&mut good, 5, &framed(5, &request), 5_000).unwrap();
        scene
    }

    fn connect(&mut self) -> ClientEnd {
        self.world.connect(Cluster::address())
    }

    fn add(&mut self, unsent: Vec<u8>) {
        let end = self.connect();
        self.senders.push(Sender { end, unsent, is_gone: false });
    }

    fn run(&mut self, ms: u64, mut done: impl FnMut(&Scene) -> bool) -> bool {
        let limit = self.world.now().0 + ms * MS;
        while self.world.now().0 < limit {
            if done(self) {
                return true;
            }
            self.senders.iter_mut().for_each(Sender::go_on);
            self.clock.poll(Wait::Until(Nanos((self.world.now().0 + MS).min(limit))), &mut Vec::new());
            let runnable = self.world.runnable();
            if runnable.is_empty() {
                self.world.step();
            }
            for shard in runnable {
                self.cluster.turn(shard);
            }
            for shares in self.cluster.memory() {
                self.used_most = self.used_most.max(shares.whole.used()).max(shares.whole.there());
                // Answers of requests that have begun, and what a journal needs to become shorter, are taken without asking.
                assert!(shares.whole.there() <= MEMORY + (2 << 20), "{} of {MEMORY}", shares.whole.there());
            }
        }
        done(self)
    }

    /// The answer to one request; None: it took longer.
    fn ask<R: Request>(&mut self, end: &mut ClientEnd, version: i16, request: &[u8], ms: u64) -> Option<R::Response> {
        let mut sent = 0;
        let mut came = Vec::new();
        let limit = self.world.now().0 + ms * MS;
        loop {
            sent += end.send(&request[sent..]).unwrap();
            came.extend(end.receive().unwrap().unwrap_or_default());
            let length = came.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
            if length.is_some_and(|length| came.len() >= length + 4) {
                let mut frame = Bytes::from(came).slice(4..);
                ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
                return Some(R::Response::decode(&mut frame, version).unwrap());
            }
            if self.world.now().0 >= limit {
                return None;
            }
            self.run(1, |_| false);
        }
    }

    /// Fills every partition with so many batches of 100 kB; gives the end offset of each.
    fn fill(&mut self, batches: u32) -> i64 {
        let mut good = self.connect();
        for batch in 0..batches {
            for partition in 0..PARTITIONS {
                let answer = self.ask::<ProduceRequest>(&mut good, PRODUCE, &produce(partition, batch * 10, 10, 10_000), 10_000).unwrap();
                assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
            }
        }
        i64::from(batches) * 10
    }

    /// A client that produces and reads, old data and new: each request is to be answered in time.
    fn serve_good_ones(&mut self, rounds: u32, end: i64) {
        let mut good = self.connect();
        for round in 0..rounds {
            let answer = self.ask::<ProduceRequest>(&mut good, PRODUCE, &produce(0, 1_000_000 + round * 10, 5, 2_000), 3_000);
            assert_eq!(answer.expect("produce is answered").responses[0].partition_responses[0].error_code, 0, "round {round}");
            let offset = i64::from(round) * 10 % (end - 10);
            let old = fetch([(1, offset)].into_iter(), 64 << 10);
            // While there is no memory to read with, a fetch is answered with nothing at its deadline, and asked again.
            let mut found = None;
            for _ in 0..20 {
                let answer = self.ask::<FetchRequest>(&mut good, FETCH, &old, 3_000).expect("a fetch is answered");
                let part = &answer.responses[0].partitions[0];
                assert_eq!(part.error_code, 0);
                found = part.records.clone().filter(|records| !records.is_empty());
                if found.is_some() {
                    break;
                }
            }
            assert!(found.is_some(), "round {round}: old records are read");
            self.run(100, |_| false);
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

#[test]
fn connections_that_dribble_hold_a_block_each() {
    let mut scene = Scene::new(1);
    let end = scene.fill(3);
    let before = scene.cluster.memory()[0].receive.used();
    for _ in 0..1_000 {
        scene.add(vec![0, 0, 200]);
    }
    scene.serve_good_ones(3, end);
    assert!(scene.cluster.memory()[0].receive.used() <= before + 1_000 * 4096);
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
    scene.serve_good_ones(20, end);
    assert!(scene.used_most > 8 << 20);
}

#[test]
fn answers_of_old_data_that_nobody_takes_are_bounded() {
    let mut scene = Scene::new(1);
    let end = scene.fill(100);
    for client in 0..40 {
        let parts = (0..PARTITIONS).map(|index| (index, i64::from(client) * 10 % end));
        let one = fetch(parts, 1 << 20);
        scene.add([&one[..], &one, &one, &one].concat());
    }
    scene.serve_good_ones(20, end);
    assert!(scene.gone() > 0, "who takes nothing is closed for those who wait");
}

#[test]
fn one_fetch_of_many_old_partitions_takes_memory_for_what_it_may_answer() {
    let mut scene = Scene::new(1);
    let end = scene.fill(100);
    let mut good = scene.connect();
    let before = scene.cluster.memory()[0].read.used();
    // The same partitions many times over, a byte of each.
    let request = fetch((0..4_000).map(|n| (n % PARTITIONS, i64::from(n) % end)), 1);
    assert!(scene.ask::<FetchRequest>(&mut good, FETCH, &request, 5_000).is_some());
    scene.run(10, |_| false);
    assert_eq!(scene.cluster.memory()[0].read.used(), before);
    scene.serve_good_ones(3, end);
}
