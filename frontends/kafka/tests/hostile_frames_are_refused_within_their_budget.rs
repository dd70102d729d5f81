//! Whatever the bytes: no panic, and no more memory than the budget that goes with the frame's length.
//!
//! The only test of this binary, so that the counting allocator counts nothing else. Frames come from every served API at every version:
//! 1. cut at every byte: always refused; with a byte too many: read;
//! 2. with lengths that lie (largest, negative, varints without end) written over every byte, so at every array, string and tag;
//! 3. with seeded random damage;
//! 4. 64 KiB of one byte behind every header, and the smallest elements by the hundred thousand.

#![expect(clippy::disallowed_methods, reason = "a test reads files, its environment and the clock where the crate may not")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod frames;

use std::alloc::System;
use std::time::Instant;

use frames::Frame;
use millrace_base::prng::Prng;
use millrace_kafka::wire::header::RequestHeader;
use millrace_kafka::wire::reader::DecodeError;
use millrace_kafka::wire::requests::Request;
use millrace_kafka::wire::table::{APIS, Api};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What lies about lengths: classic 32 and 16 bits, then compact.
const LIES: [&[u8]; 10] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x00, 0x0f, 0x42, 0x40],
    &[0x80, 0x00, 0x00, 0x00],
    &[0xff, 0xff, 0xff, 0xfe],
    &[0xff, 0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0xc1, 0x84, 0x3d],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
];

#[derive(Default)]
struct Tally {
    decoded: u64,
    refused: u64,
    /// Most memory taken by one frame, in percent of its budget.
    fullest: usize,
}

impl Tally {
    /// Decodes, and holds the allocator's count against the budget.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        // Less than `budget_for` grants, so that small frames come near it.
        let budget = bytes.len() * 8 + 1024;
        let region = Region::new(ALLOCATOR);
        let result = RequestHeader::decode(bytes).and_then(|header| Request::decode(&header, bytes, budget).map(drop));
        let change = region.change();
        let taken = change.bytes_allocated;
        assert!(taken <= budget, "{taken} bytes allocated for a frame of {}: {bytes:02x?}", bytes.len());
        assert_eq!(change.reallocations, 0, "arrays are allocated once");
        self.fullest = self.fullest.max(taken * 100 / budget);
        match result {
            Ok(()) => self.decoded += 1,
            Err(error) => {
                assert!(error.at() <= bytes.len());
                self.refused += 1;
            }
        }
        result
    }
}

#[test]
fn hostile_frames_are_refused_within_their_budget() {
    let began = Instant::now();
    let region = Region::new(ALLOCATOR);
    drop(std::hint::black_box(vec![1u8; 5000]));
    assert!(region.change().bytes_allocated >= 5000, "the allocator counts");

    let mut tally = Tally::default();
    the_twelve_bytes_that_abort_a_trusting_decoder(&mut tally);
    let frames = frames::all();
    for frame in &frames {
        assert_eq!(tally.feed(&frame.bytes), Ok(()), "{:?} {}", frame.api, frame.version);
        cut_and_prolonged(&mut tally, frame);
        lies_over_every_byte(&mut tally, frame);
    }
    floods(&mut tally);
    let lies = tally.refused;
    random_damage(&mut tally, &frames, 200_000);
    println!(
        "{} refused ({lies} before random damage), {} decoded, fullest {} % of its budget, {:?}",
        tally.refused,
        tally.decoded,
        tally.fullest,
        began.elapsed()
    );
    assert!(lies > 200_000 && tally.decoded > 1000);
}

/// Transactional id null, acks 1, timeout 1, and an array of 2^31 - 1 topics; then the like at every API and version.
fn the_twelve_bytes_that_abort_a_trusting_decoder(tally: &mut Tally) {
    let mut frame = frames::header(Api::Produce, 3);
    frame.extend_from_slice(&[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff]);
    let at = frame.len() - 4;
    assert_eq!(tally.feed(&frame), Err(DecodeError::Elements { at, count: 0x7fff_ffff, most: 0 }));
    for row in APIS {
        for version in row.min..=row.max {
            let header = frames::header(row.api, version);
            for prefix in 0..40 {
                for lie in LIES {
                    for fill in [0x00, 0x01] {
                        let mut frame = header.clone();
                        frame.resize(header.len() + prefix, fill);
                        frame.extend_from_slice(lie);
                        let _ = tally.feed(&frame);
                    }
                }
            }
        }
    }
}

fn cut_and_prolonged(tally: &mut Tally, frame: &Frame) {
    for end in 0..frame.bytes.len() {
        let result = tally.feed(&frame.bytes[..end]);
        assert!(result.is_err(), "{:?} {} cut to {end} bytes is taken for whole", frame.api, frame.version);
    }
    let mut longer = frame.bytes.clone();
    longer.push(0);
    assert_eq!(tally.feed(&longer), Ok(()), "bytes after the body are passed over, as Kafka does");
}

fn lies_over_every_byte(tally: &mut Tally, frame: &Frame) {
    for at in 4..frame.bytes.len() {
        for lie in LIES {
            let mut bytes = frame.bytes.clone();
            let end = bytes.len().min(at + lie.len());
            bytes[at..end].copy_from_slice(&lie[..end - at]);
            let _ = tally.feed(&bytes);
        }
    }
}

/// 64 KiB of one byte behind every header, and an array of elements as small as may be.
fn floods(tally: &mut Tally) {
    for row in APIS {
        for version in row.min..=row.max {
            let header = frames::header(row.api, version);
            for fill in [0x00, 0x01, 0x02, 0x7f, 0x80, 0xff] {
                let mut frame = header.clone();
                frame.resize(64 << 10, fill);
                let _ = tally.feed(&frame);
            }
        }
    }
    let mut metadata = frames::header(Api::Metadata, 1);
    metadata.extend_from_slice(&500_000i32.to_be_bytes());
    metadata.resize(metadata.len() + 1_000_000, 0); // 500,000 empty names: 2 bytes on the wire, 32 in memory
    assert!(tally.feed(&metadata).is_err());
}

fn random_damage(tally: &mut Tally, frames: &[Frame], rounds: u64) {
    let mut prng = Prng::new(0x00c0_ffee);
    for _ in 0..rounds {
        let mut bytes = frames[pick(&mut prng, frames.len())].bytes.clone();
        for _ in 0..=prng.below(4) {
            let at = 4 + pick(&mut prng, bytes.len() - 4);
            match prng.below(5) {
                0 => bytes[at] ^= 1 << prng.below(8),
                1 => bytes[at] = prng.next_u64().to_le_bytes()[0],
                2 => bytes.insert(at, prng.next_u64().to_le_bytes()[0]),
                3 if bytes.len() > 20 => drop(bytes.remove(at)),
                _ => {
                    let other = &frames[pick(&mut prng, frames.len())].bytes;
                    let from = pick(&mut prng, other.len());
                    bytes.truncate(at.max(16));
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        let _ = tally.feed(&bytes);
    }
}

fn pick(prng: &mut Prng, bound: usize) -> usize {
    usize::try_from(prng.below(bound as u64)).unwrap()
}
