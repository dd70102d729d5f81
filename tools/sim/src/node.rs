//! One broker in a world and a client that asks it one thing after the other, for tests that are not drawn from seeds.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use crate::client::{MS, link, text};
use crate::cluster::{Cluster, Config, NODE};
use crate::value::{self, ValueId};
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, GroupId};
use kafka_protocol::protocol::Request;
use millrace_base::batch::Header;
use millrace_base::clock::Nanos;
use millrace_io::sim::{ClientEnd, Fault, On, Rates, SimDriver, World, Wrong};
use millrace_io::{Disk, Driver, OpenHow, Wait};
use millrace_log::journal::Options;
use std::path::Path;

pub const CREATE: i16 = 5;
pub const PRODUCE: i16 = 9;
pub const FETCH: i16 = 12;
const LIST_OFFSETS: i16 = 7;
const FIND: i16 = 4;
const COMMIT: i16 = 8;

pub use crate::client::topic_name as topic;

pub fn framed<R: Request>(version: i16, request: &R) -> Vec<u8> {
    link::framed(version, 1, request)
}

/// The body of an answer.
pub fn decode<R: Request>(answer: &Bytes, version: i16) -> R::Response {
    link::decode::<R>(answer, version)
}

/// Fetches of partitions of a topic from these offsets, of `max_bytes` each.
pub fn fetch(name: &str, partitions: impl Iterator<Item = (i32, i64)>, max_bytes: i32) -> FetchRequest {
    let part = |(index, offset)| {
        FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(max_bytes)
    };
    let topic = FetchTopic::default().with_topic(topic(name)).with_partitions(partitions.map(part).collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// A produce of one batch of `count` records, numbered from `first`.
pub fn produce(name: &str, partition: i32, first: u32, count: u32, record_bytes: usize) -> ProduceRequest {
    produce_batch(name, partition, value::batch(ValueId::new(1, first), count, record_bytes, 1_700_000_000_000, None, 0))
}

pub fn produce_batch(name: &str, partition: i32, batch: Vec<u8>) -> ProduceRequest {
    let batch = Bytes::from(batch);
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic])
}

/// Small journals, so that little fills them; and what is appended directly is smaller than it is by default.
pub fn config(shards: u16, directories: usize, memory_bytes: usize) -> Config {
    let journal = Options { file_bytes: 1 << 20, entry_bytes_max: 512 << 10, files_first: 2, files_max: 3, reserve_bytes: 256 << 10 };
    let direct = "journal.direct.append.min.bytes=65536";
    let settings = ["offsets.topic.num.partitions=8", "shard.spin.us=0", "log.segment.bytes=4194304", direct];
    Config { shards, directories, journal, memory_bytes, files_max: None, settings: settings.map(str::to_owned).to_vec() }
}

/// Requests on their way out of a connection, as far as it takes them, and what has come of the next answer.
#[derive(Default)]
pub struct Frames {
    unsent: Vec<u8>,
    came: Vec<u8>,
}

impl Frames {
    /// Queues a request that is [`framed`].
    pub fn queue(&mut self, request: &[u8]) {
        self.unsent.extend_from_slice(request);
    }

    pub fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends and receives what can be: answers that have come whole, without their lengths.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn exchange(&mut self, end: &mut ClientEnd) -> Vec<Bytes> {
        let sent = end.send(&self.unsent).expect("the connection stays");
        self.unsent.drain(..sent);
        self.came.extend(end.receive().expect("the connection stays").unwrap_or_default());
        let mut answers = Vec::new();
        while let Some(length) = self.came.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)
            && self.came.len() >= length + 4
        {
            let behind = self.came.split_off(length + 4);
            answers.push(Bytes::from(std::mem::replace(&mut self.came, behind)).slice(4..));
        }
        answers
    }
}

type Look = Box<dyn FnMut(&Cluster)>;

pub struct Node {
    pub world: World,
    pub cluster: Cluster,
    clock: SimDriver,
    /// Called after every round of turns.
    pub look: Option<Look>,
}

impl Node {
    pub fn new(config: Config) -> Node {
        Node::in_world(World::new(11, Rates::CALM), config)
    }

    pub fn in_world(world: World, config: Config) -> Node {
        let (cluster, clock) = (Cluster::new(&world, config), world.driver(99));
        Node { world, cluster, clock, look: None }
    }

    /// Starts and waits until connections are accepted.
    pub fn start(&mut self) -> Result<(), String> {
        self.cluster.start(self.cluster.config().shards).map_err(|refused| refused.what)?;
        assert!(self.run(30_000, |node| node.cluster.is_open()), "the node opens");
        Ok(())
    }

    pub fn stop(&mut self) {
        self.cluster.stop();
        assert!(self.run(30_000, |node| !node.cluster.is_up()), "the node stops");
    }

    /// The same disks under other settings.
    pub fn configure(&mut self, config: Config) {
        assert!(!self.cluster.is_up());
        self.cluster = Cluster::new(&self.world, config);
    }

    pub fn run(&mut self, ms: u64, mut done: impl FnMut(&mut Node) -> bool) -> bool {
        let limit = self.world.now().0 + ms * MS;
        while self.world.now().0 < limit {
            if done(self) {
                return true;
            }
            self.clock.poll(Wait::Until(Nanos((self.world.now().0 + MS).min(limit))), &mut Vec::new());
            let runnable = self.world.runnable();
            if runnable.is_empty() {
                self.world.step();
            }
            for shard in runnable {
                self.cluster.turn(shard);
            }
            if let Some(look) = &mut self.look {
                look(&self.cluster);
            }
        }
        done(self)
    }

    pub fn connect(&self) -> ClientEnd {
        self.world.connect(Cluster::address())
    }

    /// The answer to one request; None: it took longer.
    pub fn ask<R: Request>(&mut self, end: &mut ClientEnd, version: i16, request: &R, ms: u64) -> Option<R::Response> {
        let mut frames = Frames::default();
        frames.queue(&framed(version, request));
        let limit = self.world.now().0 + ms * MS;
        loop {
            if let Some(answer) = frames.exchange(end).first() {
                return Some(decode::<R>(answer, version));
            }
            if self.world.now().0 >= limit {
                return None;
            }
            self.run(1, |_| false);
        }
    }

    /// Waits until a group's coordinator is found and `is_loaded` says that it serves.
    pub fn await_coordinator(&mut self, end: &mut ClientEnd, group: &str, mut is_loaded: impl FnMut(&mut Node, &mut ClientEnd) -> bool) {
        let find = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text(group)]);
        for _ in 0..100 {
            if self.ask(end, FIND, &find, 5_000).unwrap().coordinators[0].error_code == 0 && is_loaded(self, end) {
                return;
            }
            self.run(100, |_| false);
        }
        panic!("the coordinator of {group} does not load");
    }

    /// The error of a group's commit for partition 0 of topic `t`, by nobody of its members.
    pub fn commit(&mut self, end: &mut ClientEnd, group: &str, offset: i64) -> i16 {
        let part = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
        let part = OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![part]);
        let request = OffsetCommitRequest::default().with_group_id(GroupId(text(group))).with_generation_id_or_member_epoch(-1);
        self.ask(end, COMMIT, &request.with_topics(vec![part]), 10_000).unwrap().topics[0].partitions[0].error_code
    }

    pub fn create(&mut self, name: &str, partitions: i32) {
        let mut end = self.connect();
        let topic = CreatableTopic::default().with_name(topic(name)).with_num_partitions(partitions).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        let answer = self.ask(&mut end, CREATE, &request, 5_000).unwrap();
        assert_eq!(answer.topics[0].error_code, 0);
    }

    /// Error code and base offset.
    pub fn produce(&mut self, end: &mut ClientEnd, request: &ProduceRequest) -> (i16, i64) {
        let answer = self.ask(end, PRODUCE, request, 10_000).expect("produce is answered");
        let part = &answer.responses[0].partition_responses[0];
        (part.error_code, part.base_offset)
    }

    /// Appends a batch of records to partition 0 that are of now, as the clock shows it. `first` is the partition's end.
    pub fn append(&mut self, name: &str, first: u32, count: u32, record_bytes: usize) {
        let batch = value::batch(ValueId::new(1, first), count, record_bytes, self.world.wall(NODE), None, 0);
        let mut end = self.connect();
        assert_eq!(self.produce(&mut end, &produce_batch(name, 0, batch)), (0, i64::from(first)));
    }

    /// The first offset of partition 0.
    pub fn log_start(&mut self, name: &str) -> i64 {
        let part = ListOffsetsPartition::default().with_partition_index(0).with_current_leader_epoch(-1).with_timestamp(-2);
        let asked = ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![part]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        let mut end = self.connect();
        let found = self.ask(&mut end, LIST_OFFSETS, &request, 5_000).unwrap().topics[0].partitions[0].clone();
        assert_eq!(found.error_code, 0);
        found.offset
    }

    /// Code and message of the answer to one batch. None: there was no answer in time.
    pub fn try_produce(&mut self, end: &mut ClientEnd, request: &ProduceRequest) -> Option<(i16, String)> {
        let answer = self.ask(end, PRODUCE, request, 10_000)?;
        let part = &answer.responses[0].partition_responses[0];
        Some((part.error_code, part.error_message.as_ref().map(ToString::to_string).unwrap_or_default()))
    }

    /// One fetch of a partition: its error, and its whole batches.
    pub fn fetch_batches(&mut self, name: &str, partition: i32, offset: i64, max_bytes: i32) -> (i16, Vec<Bytes>) {
        let mut end = self.connect();
        let request = fetch(name, [(partition, offset)].into_iter(), max_bytes);
        let answer = self.ask::<FetchRequest>(&mut end, FETCH, &request, 5_000).expect("a fetch is answered");
        let part = &answer.responses[0].partitions[0];
        let (mut bytes, mut batches) = (part.records.clone().unwrap_or_default(), Vec::new());
        while let Ok(header) = Header::parse(&bytes)
            && header.size <= bytes.len()
        {
            batches.push(bytes.split_to(header.size));
        }
        (part.error_code, batches)
    }

    /// Something goes wrong with files whose path contains `path`.
    pub fn fault(&self, path: &str, on: On, after: u32, times: u32, wrong: Wrong) {
        self.world.add_fault(NODE, Fault { path: path.to_owned(), on, after, times, wrong });
    }

    /// What a folder of the node's disk holds; nothing if it is not there.
    pub fn names(&self, folder: &Path) -> Vec<String> {
        self.world.disk(NODE).list(folder).unwrap_or_default().into_iter().map(|entry| entry.name).collect()
    }

    /// A file of the node's disk.
    pub fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let mut disk = self.world.disk(NODE);
        let file = disk.open(path, OpenHow::default()).unwrap();
        let mut bytes = vec![0; disk.len(file).unwrap() as usize];
        disk.read(file, 0, &mut bytes).unwrap();
        disk.close(file);
        bytes
    }
}
