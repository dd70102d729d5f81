//! Whatever a request names, its handler takes no more than [`BYTES_MAX`] of memory: the decoder refuses what would need more.
//!
//! The only test of this binary, so that the counting allocator counts nothing else. Each frame has as many of the smallest elements as its API
//! may have, all different where that costs more, and one more, which is refused. Counted is all that is taken between the frame
//! and its answer, the answer's bytes included, whether it was given back meanwhile or not.

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
        out.put_i32(1);
        out.put_i16(1);
        out.put_slice(b"t");
        put_index(out, count - 1);
        for index in 0..count - 1 {
            put_index(out, index);
            out.put_i64(0);
            out.put_i32(1);
        }
    };
    frames::by_hand(Api::Fetch, 4, body).bytes
}

fn list_offsets(count: usize) -> Vec<u8> {
    let body = |out: &mut BytesMut| {
        out.put_i32(-1);
        out.put_i32(1);
        out.put_i16(1);
        out.put_slice(b"t");
        put_index(out, count - 1);
        for index in 0..count - 1 {
            put_index(out, index);
            out.put_i64(-1);
        }
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

/// Makes the body of a request with so many elements.
type Maker<'a> = &'a dyn Fn(usize) -> Vec<u8>;

#[test]
fn handlers_hold_no_more_than_a_bound() {
    let makers: [(Api, Maker<'_>); 10] = [
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
    ];
    for (api, make) in makers {
        let most = api.elements_max();
        for topics in [&[][..], &[("t", Uuid([1; 16]), 10), ("__consumer_offsets", Uuid([2; 16]), 50)]] {
            let frame = make(most);
            let mut world = World::new(topics);
            let region = Region::new(ALLOCATOR);
            let answer = world.answer(&frame, Mood::Good);
            let taken = region.change().bytes_allocated;
            println!("{:24} {:8} bytes, {} topics: {} KiB", api.name(), frame.len(), topics.len(), taken >> 10);
            assert!(matches!(answer, Answer::Frame(_) | Answer::Parts(_)), "{}: {answer:?}", api.name());
            assert!(taken <= BYTES_MAX, "{}: {taken} bytes for a frame of {}", api.name(), frame.len());
        }
        let refused = World::new(&[]).answer(&make(most + 1), Mood::Good);
        assert!(matches!(&refused, Answer::Close(reason) if reason.contains("elements")), "{}: {refused:?}", api.name());
    }
}
