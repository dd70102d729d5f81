//! What kafka-protocol's client side encodes, our decoder reads field by field as kafka-protocol's own decoder does.
//!
//! Both structs carry the field names of Kafka's schemas, so their `Debug` texts are parsed into trees and compared: no field can be forgotten.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod frames;

use std::collections::BTreeMap;

use bytes::Bytes;
use frames::{CORRELATION_ID, Frame};
use millrace_base::ids::Uuid;
use millrace_kafka::wire::header::{Prelude, RequestHeader};
use millrace_kafka::wire::reader::{ByteRange, DecodeError, budget_for};
use millrace_kafka::wire::requests::Request;
use millrace_kafka::wire::table::{APIS, Api};

#[derive(PartialEq, Eq, Debug)]
enum Tree {
    Leaf(String),
    List(Vec<Tree>),
    Struct(BTreeMap<String, Tree>),
}

/// A parser of `Debug` texts: newtypes and `Some` vanish, byte ranges become the bytes, UUIDs hexadecimal digits.
struct Parser<'a> {
    text: &'a str,
    frame: &'a [u8],
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        match self.text.strip_prefix(token) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn run(&mut self, accept: impl Fn(char) -> bool) -> String {
        let end = self.text.find(|c| !accept(c)).unwrap_or(self.text.len());
        let (run, rest) = self.text.split_at(end);
        self.text = rest;
        run.to_string()
    }

    fn quoted(&mut self) -> String {
        let mut escaped = false;
        let end = self.text.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let (inside, rest) = self.text.split_at(end.unwrap());
        self.text = &rest[1..];
        inside.to_string()
    }

    fn tree(&mut self) -> Tree {
        if self.eat("b\"") {
            return Tree::Leaf(format!("bytes {}", self.quoted()));
        }
        if self.eat("\"") {
            return Tree::Leaf(format!("text {}", self.quoted()));
        }
        if self.eat("[") {
            let mut list = Vec::new();
            while !self.eat("]") {
                list.push(self.tree());
                self.eat(", ");
            }
            return Tree::List(list);
        }
        let word = self.run(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if self.eat("(") {
            let inside = self.tree();
            assert!(self.eat(")"));
            return inside;
        }
        if self.eat(" { ") {
            return self.fields(&word);
        }
        match word.parse::<Uuid>() {
            Ok(id) => Tree::Leaf(id.0.map(|byte| format!("{byte:02x}")).concat()),
            Err(()) if word.len() == 36 => Tree::Leaf(word.replace('-', "")),
            Err(()) => Tree::Leaf(word),
        }
    }

    fn fields(&mut self, name: &str) -> Tree {
        let mut fields = BTreeMap::new();
        while !self.eat(" }") {
            let field = self.run(|c| c.is_ascii_alphanumeric() || c == '_');
            assert!(self.eat(": "), "{}", self.text);
            if field == "unknown_tagged_fields" {
                self.map();
            } else {
                fields.insert(field, self.tree());
            }
            self.eat(", ");
        }
        if name == "ByteRange" {
            let number = |field: &str| match &fields[field] {
                Tree::Leaf(number) => number.parse().unwrap(),
                other => panic!("{other:?}"),
            };
            let range = ByteRange { offset: number("offset"), len: number("len") };
            let bytes = format!("{:?}", Bytes::copy_from_slice(range.of(self.frame)));
            return Tree::Leaf(format!("bytes {}", &bytes[2..bytes.len() - 1]));
        }
        Tree::Struct(fields)
    }

    /// The map of unknown tagged fields, which ours does not keep.
    fn map(&mut self) {
        assert!(self.eat("{"));
        while !self.eat("}") {
            self.run(|c| c.is_ascii_digit());
            assert!(self.eat(": "));
            self.tree();
            self.eat(", ");
        }
    }
}

/// Drops the fields that only one side has at versions which both know.
fn tree(text: &str, frame: &[u8], ignored: &[&str]) -> Tree {
    let mut parser = Parser { text, frame };
    let tree = parser.tree();
    assert_eq!(parser.text, "");
    match tree {
        Tree::Struct(mut fields) => {
            fields.retain(|field, _| !ignored.contains(&field.as_str()));
            Tree::Struct(fields)
        }
        other => other,
    }
}

fn decode(frame: &Frame) -> Request<'_> {
    let header = RequestHeader::decode(&frame.bytes).unwrap();
    assert_eq!((header.api, header.version, header.correlation_id), (frame.api, frame.version, CORRELATION_ID));
    assert_eq!(header.client_id, Some("client"));
    let request = Request::decode(&header, &frame.bytes, budget_for(frame.bytes.len()));
    let request = request.unwrap_or_else(|why| panic!("{:?} version {}: {why}", frame.api, frame.version));
    assert_eq!(request.api(), frame.api);
    request
}

#[test]
fn every_api_at_every_version_reads_what_kafka_protocol_wrote() {
    let mut compared = 0;
    for frame in frames::all() {
        let ours = format!("{:?}", decode(&frame));
        if let Some(theirs) = &frame.theirs {
            let ours = tree(&ours, &frame.bytes, &["cluster_id", "node_id"].map(|f| if frame.api == Api::ApiVersions { f } else { "" }));
            assert_eq!(ours, tree(theirs, &frame.bytes, &["enable_2_pc", "keep_prepared_txn"]), "{:?} {}", frame.api, frame.version);
            compared += 1;
        }
    }
    // Two frames a version, but for the three versions that kafka-protocol's client side lacks and that are not the version before.
    let versions: usize = APIS.iter().map(|row| (row.min..=row.max).count()).sum();
    assert_eq!(compared, 2 * (versions - 3));
}

#[test]
fn versions_that_kafka_protocol_lacks_are_read_by_the_schema() {
    let id = Uuid(*frames::data::TOPIC_ID.as_bytes());
    let frame = frames::groups::offset_commit_by_id();
    let Request::OffsetCommit(commit) = decode(&frame) else { panic!() };
    assert_eq!((commit.group_id, commit.generation_id_or_member_epoch, commit.member_id), ("group", 7, "member"));
    assert_eq!((commit.group_instance_id, commit.retention_time_ms), (Some("instance"), -1));
    assert_eq!((commit.topics[0].name, commit.topics[0].topic_id), ("", id));
    let partition = &commit.topics[0].partitions[1];
    assert_eq!((partition.partition_index, partition.committed_offset, partition.committed_leader_epoch), (1, 99, 5));
    assert_eq!(partition.committed_metadata, Some("note"));

    let frame = frames::groups::offset_fetch_by_id();
    let Request::OffsetFetch(fetch) = decode(&frame) else { panic!() };
    assert!(fetch.require_stable);
    let group = &fetch.groups[0];
    assert_eq!((group.group_id, group.member_id, group.member_epoch), ("group", Some("member"), 3));
    let topics = group.topics.as_ref().unwrap();
    assert_eq!((topics[0].name, topics[0].topic_id, topics[0].partition_indexes.as_slice()), ("", id, [0, 1].as_slice()));

    let frame = frames::admin::api_versions_with_cluster();
    let Request::ApiVersions(versions) = decode(&frame) else { panic!() };
    assert_eq!((versions.client_software_name, versions.client_software_version), ("a-client", "1.2.3"));
    assert_eq!((versions.cluster_id, versions.node_id), (Some("cluster"), 3));
}

#[test]
fn records_are_ranges_of_the_frame() {
    let frame = frames::all().into_iter().find(|frame| frame.api == Api::Produce && frame.version == 13).unwrap();
    let Request::Produce(produce) = decode(&frame) else { panic!() };
    assert_eq!(produce.topic_data[0].partition_data[1].records.unwrap().of(&frame.bytes), b"batch one");
    assert_eq!(produce.topic_data[1].partition_data[0].records, None);
    assert!(produce.topic_data[2].partition_data[0].records.unwrap().is_empty());
}

#[test]
fn null_is_refused_in_versions_that_lack_it() {
    // Metadata version 0 and OffsetFetch version 1 know no null array.
    let frame = frames::by_hand(Api::Metadata, 0, |out| out.extend_from_slice(&[0xff; 4]));
    let header = RequestHeader::decode(&frame.bytes).unwrap();
    assert_eq!(Request::decode(&header, &frame.bytes, 100), Err(DecodeError::Null { at: header.body_at }));
    let frame = frames::by_hand(Api::OffsetFetch, 1, |out| out.extend_from_slice(b"\0\x01g\xff\xff\xff\xff"));
    let header = RequestHeader::decode(&frame.bytes).unwrap();
    assert_eq!(Request::decode(&header, &frame.bytes, 100), Err(DecodeError::Null { at: header.body_at + 3 }));
    let frame = frames::by_hand(Api::Metadata, 1, |out| out.extend_from_slice(&[0xff; 4]));
    let header = RequestHeader::decode(&frame.bytes).unwrap();
    assert!(matches!(Request::decode(&header, &frame.bytes, 100), Ok(Request::Metadata(metadata)) if metadata.topics.is_none()));
}

#[test]
fn unknown_keys_and_versions_are_told_apart_with_the_correlation_id_at_hand() {
    let mut frame = frames::header(Api::Produce, 3);
    frame[3] = 2;
    assert_eq!(RequestHeader::decode(&frame), Err(DecodeError::UnsupportedVersion { key: 0, version: 2 }));
    assert_eq!(Prelude::decode(&frame), Ok(Prelude { key: 0, version: 2, correlation_id: CORRELATION_ID }));
    frame[1] = 99;
    assert_eq!(RequestHeader::decode(&frame), Err(DecodeError::UnknownKey { key: 99 }));
    assert_eq!(Prelude::decode(&frame[..7]), Err(DecodeError::Truncated { at: 4, needed: 4, left: 3 }));
}

/// Bodies that the Java client's own classes (kafka-clients 4.4.0) wrote: golden bytes from outside for the versions that kafka-protocol lacks.
#[test]
fn bodies_made_by_hand_are_the_java_clients_bytes() {
    let hex = |frame: &Frame| {
        let header = RequestHeader::decode(&frame.bytes).unwrap();
        frame.bytes[header.body_at..].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(
        hex(&frames::groups::offset_commit_by_id()),
        "0667726f757000000007076d656d62657209696e7374616e636502070605040302010009080706050403020300000000000000000000006300000005056e6f74650000000001000000000000006300000005056e6f7465000000"
    );
    assert_eq!(
        hex(&frames::groups::offset_fetch_by_id()),
        "020667726f7570076d656d62657200000003020706050403020100090807060504030203000000000000000100000100"
    );
    assert_eq!(hex(&frames::admin::api_versions_with_cluster()), "09612d636c69656e7406312e322e3308636c75737465720000000300");
}

#[test]
fn list_offsets_11_of_the_java_client_is_read() {
    let hex = "ffffffff0102076f726465727302000000030000000bfffffffffffffffa0000000004d200";
    let body: Vec<u8> = hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect();
    let frame = frames::by_hand(Api::ListOffsets, 11, |out| out.extend_from_slice(&body));
    let Request::ListOffsets(list) = decode(&frame) else { panic!() };
    assert_eq!((list.replica_id, list.isolation_level, list.timeout_ms, list.topics[0].name), (-1, 1, 1234, "orders"));
    let partition = &list.topics[0].partitions[0];
    assert_eq!((partition.partition_index, partition.current_leader_epoch, partition.timestamp), (3, 11, -6));
}

/// librdkafka 2.16 asks for all topics, as captured: a null array that takes one byte, and the three that were kept for its length at the end.
#[test]
fn all_topics_as_librdkafka_asks_for_them() {
    let frame = b"\x00\x03\x00\x0d\x00\x00\x00\x03\x00\x07rdkafka\x00\x00\x00\x00\x00\x01\x00\x00";
    let header = RequestHeader::decode(frame).unwrap();
    let Request::Metadata(metadata) = Request::decode(&header, frame, 1024).unwrap() else { panic!("not Metadata") };
    assert_eq!(metadata.topics, None);
}
