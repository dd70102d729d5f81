//! Whatever a request names, its handler takes memory in proportion to it, and no more than [`BYTES_MAX`]: the decoder refuses what would
//! need more.
//!
//! The only test of this binary, so that the counting allocator counts nothing else. Each frame has a hundredth of the elements that its API
//! may have, then all, the smallest there are, all different where that costs more; one more is refused. Counted is all that is taken between
//! the frame and its answer, the answer's bytes included, whether it was given back meanwhile or not.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod frames;
mod standin;

use std::alloc::System;

use bytes::{BufMut, BytesMut};
use millrace_base::ids::Uuid;
use millrace_kafka::call::Answer;
use millrace_kafka::wire::table::Api;
use standin::{Mood, World};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What one request may cost.
const BYTES_MAX: usize = 100 << 20;

/// What one element may cost, and what a request costs that has next to none.
const ELEMENT_BYTES: usize = 4 << 10;
const REQUEST_BYTES: usize = 256 << 10;

/// Writes the count of a compact array.
fn put_count(out: &mut BytesMut, count: usize) {
    let mut left = count + 1;
    while left >= 0x80 {
        out.put_u8(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    out.put_u8(u8::try_from(left).unwrap());
}

fn put_index(out: &mut BytesMut, index: usize) {
    out.put_i32(i32::try_from(index).unwrap());
}

/// One topic with so many partitions, each with what `rest` puts behind its index; lengths and counts as before the compact ones.
fn put_partitions(out: &mut BytesMut, count: usize, rest: impl Fn(&mut BytesMut)) {
    out.put_i32(1);
    out.put_i16(1);
    out.put_slice(b"t");
    put_index(out, count);
    for index in 0..count {
        put_index(out, index);
        rest(out);
    }
}

fn produce(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        out.put_u8(0); // no transactional id
        out.put_i16(-1);
        out.put_i32(1000);
        put_count(out, 1);
        frames::put_compact(out, "t");
        put_count(out, count - 1);
        for index in 0..count - 1 {
            put_index(out, index);
            out.put_slice(&[0, 0]); // null, no tags
        }
        out.put_slice(&[0, 0]);
    };
    frames::by_hand(Api::Produce, 9, body).bytes
}

fn fetch(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        out.put_i32(-1);
        out.put_i32(0);
        out.put_i32(1);
        out.put_i32(i32::MAX);
        out.put_u8(0);
        put_partitions(out, count - 1, |out| {
            out.put_i64(0);
            out.put_i32(1);
        });
    };
    frames::by_hand(Api::Fetch, 4, body).bytes
}

fn list_offsets(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        out.put_i32(-1);
        put_partitions(out, count - 1, |out| out.put_i64(-1));
    };
    frames::by_hand(Api::ListOffsets, 1, body).bytes
}

/// An array of `count` different short names, with 16-bit lengths.
fn put_names(out: &mut BytesMut, count: usize) {
    put_index(out, count);
    for n in 0..count {
        let name = format!("name-{n:x}");
        out.put_i16(i16::try_from(name.len()).unwrap());
        out.put_slice(name.as_bytes());
    }
}

fn metadata(count: usize) -> Vec<u8> {
    frames::by_hand(Api::Metadata, 1, |out| put_names(out, count)).bytes
}

fn groups(api: Api) -> impl Fn(usize) -> Vec<u8> {
    move |count| frames::by_hand(api, 0, |out| put_names(out, count)).bytes
}

fn delete_topics(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_names(out, count);
        out.put_i32(1000);
    };
    frames::by_hand(Api::DeleteTopics, 1, body).bytes
}

fn find_coordinator(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        out.put_u8(0);
        put_count(out, count);
        (0..count).for_each(|_| frames::put_compact(out, "key"));
        out.put_u8(0);
    };
    frames::by_hand(Api::FindCoordinator, 4, body).bytes
}

fn offset_fetch(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_count(out, count);
        for n in 0..count {
            frames::put_compact(out, &format!("group-{n:x}"));
            out.put_slice(&[0, 0]); // all topics, no tags
        }
        out.put_slice(&[0, 0]);
    };
    frames::by_hand(Api::OffsetFetch, 8, body).bytes
}

fn alter_configs(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_count(out, count);
        for n in 0..count {
            out.put_i8(4);
            frames::put_compact(out, &format!("{:0>1$}", 1, n % 100 + 1));
            out.put_slice(&[1, 0]); // nothing to change, no tags
        }
        out.put_slice(&[0, 0]);
    };
    frames::by_hand(Api::IncrementalAlterConfigs, 1, body).bytes
}

/// `count` in all: a topic, and so many partitions with `fields` behind their index.
fn one_topic(out: &mut BytesMut, count: usize, fields: &[u8]) {
    out.put_i32(1);
    out.put_i16(1);
    out.put_slice(b"t");
    put_index(out, count - 1);
    for index in 0..count - 1 {
        put_index(out, index);
        out.put_slice(fields);
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).unwrap());
    out.put_slice(text.as_bytes());
}

/// An array of `count` different names, each with `fields` behind it.
fn put_named(out: &mut BytesMut, count: usize, fields: &[u8]) {
    put_index(out, count);
    for n in 0..count {
        put_text(out, &format!("name-{n:x}"));
        out.put_slice(fields);
    }
}

fn offset_commit(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_text(out, "g");
        out.put_i32(-1);
        put_text(out, "");
        out.put_i64(-1);
        one_topic(out, count, &[0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
    };
    frames::by_hand(Api::OffsetCommit, 2, body).bytes
}

fn create_topics(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_named(out, count, &[0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.put_i32(1000);
        out.put_u8(0);
    };
    frames::by_hand(Api::CreateTopics, 2, body).bytes
}

fn create_partitions(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_named(out, count, &[0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff]);
        out.put_i32(1000);
        out.put_u8(0);
    };
    frames::by_hand(Api::CreatePartitions, 0, body).bytes
}

fn delete_records(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        one_topic(out, count, &[0; 8]);
        out.put_i32(1000);
    };
    frames::by_hand(Api::DeleteRecords, 0, body).bytes
}

fn epoch_ends(count: usize) -> Vec<u8> {
    frames::by_hand(Api::OffsetForLeaderEpoch, 2, |out| one_topic(out, count, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1])).bytes
}

fn log_dirs(count: usize) -> Vec<u8> {
    frames::by_hand(Api::DescribeLogDirs, 1, |out| one_topic(out, count, &[])).bytes
}

fn offset_delete(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_text(out, "g");
        one_topic(out, count, &[]);
    };
    frames::by_hand(Api::OffsetDelete, 0, body).bytes
}

fn leave_group(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_text(out, "g");
        put_named(out, count, &[0xff, 0xff]);
    };
    frames::by_hand(Api::LeaveGroup, 3, body).bytes
}

fn sync_group(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_text(out, "g");
        out.put_i32(1);
        put_text(out, "m");
        put_named(out, count, &[0, 0, 0, 1, 7]);
    };
    frames::by_hand(Api::SyncGroup, 0, body).bytes
}

fn join_group(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_text(out, "g");
        out.put_i32(10_000);
        put_text(out, "");
        put_text(out, "consumer");
        put_named(out, count, &[0, 0, 0, 1, 7]);
    };
    frames::by_hand(Api::JoinGroup, 0, body).bytes
}

fn describe_configs(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        put_index(out, count);
        for n in 0..count {
            out.put_i8(2);
            put_text(out, &format!("name-{n:x}"));
            out.put_i32(-1);
        }
        out.put_u8(1);
    };
    frames::by_hand(Api::DescribeConfigs, 1, body).bytes
}

/// Makes the body of a request with so many elements.
type Maker<'a> = &'a dyn Fn(usize) -> Vec<u8>;

#[test]
fn handlers_hold_no_more_than_a_bound() {
    let makers: [(Api, Maker<'_>); 21] = [
        (Api::Produce, &produce),
        (Api::Fetch, &fetch),
        (Api::ListOffsets, &list_offsets),
        (Api::Metadata, &metadata),
        (Api::FindCoordinator, &find_coordinator),
        (Api::OffsetFetch, &offset_fetch),
        (Api::DescribeGroups, &groups(Api::DescribeGroups)),
        (Api::DeleteGroups, &groups(Api::DeleteGroups)),
        (Api::DeleteTopics, &delete_topics),
        (Api::IncrementalAlterConfigs, &alter_configs),
        (Api::OffsetCommit, &offset_commit),
        (Api::CreateTopics, &create_topics),
        (Api::CreatePartitions, &create_partitions),
        (Api::DeleteRecords, &delete_records),
        (Api::OffsetForLeaderEpoch, &epoch_ends),
        (Api::DescribeLogDirs, &log_dirs),
        (Api::OffsetDelete, &offset_delete),
        (Api::LeaveGroup, &leave_group),
        (Api::SyncGroup, &sync_group),
        (Api::JoinGroup, &join_group),
        (Api::DescribeConfigs, &describe_configs),
    ];
    for (api, make) in makers {
        let most = api.elements_max();
        for topics in [&[][..], &[("t", Uuid([1; 16]), 10), ("__consumer_offsets", Uuid([2; 16]), 50)]] {
            for count in [most / 100, most] {
                let frame = make(count);
                let mut world = World::new(topics);
                let region = Region::new(ALLOCATOR);
                let answer = world.answer(&frame, Mood::Good);
                let taken = region.change().bytes_allocated;
                println!("{:24} {count:6} elements, {:8} bytes, {} topics: {} KiB", api.name(), frame.len(), topics.len(), taken >> 10);
                assert!(matches!(answer, Answer::Frame(_) | Answer::Parts(_)), "{}: {answer:?}", api.name());
                let allowed = BYTES_MAX.min(REQUEST_BYTES + count * ELEMENT_BYTES);
                assert!(taken <= allowed, "{}: {taken} bytes for {count} elements in {} bytes", api.name(), frame.len());
            }
        }
        let refused = World::new(&[]).answer(&make(most + 1), Mood::Good);
        assert!(matches!(&refused, Answer::Close(reason) if reason.contains("elements")), "{}: {refused:?}", api.name());
    }
}
