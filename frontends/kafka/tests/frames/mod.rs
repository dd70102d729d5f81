//! Frames of every served API at every version, made by kafka-protocol's client side; and by hand where it lacks the version.
//!
//! Each API gives two frames a version: one with every field set that the version has, one with nulls and empty arrays where they may stand.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod admin;
pub mod data;
pub mod groups;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use millrace_kafka::wire::header::request_header_version;
use millrace_kafka::wire::table::Api;

/// One request frame without its size prefix.
pub struct Frame {
    pub api: Api,
    pub version: i16,
    pub bytes: Vec<u8>,
    /// What kafka-protocol reads in it, as its `Debug` text; none where it lacks the version.
    pub theirs: Option<String>,
}

pub const CORRELATION_ID: i32 = 0x0102_0304;

pub fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

pub fn header(api: Api, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(api.key())
        .with_request_api_version(version)
        .with_correlation_id(CORRELATION_ID)
        .with_client_id(Some(text("client")))
        .encode(&mut out, request_header_version(api, version))
        .unwrap();
    out.to_vec()
}

/// The request at every version of the table up to `max`, as `build` makes it; at versions above, the body of `max` (`build` is asked for that).
pub fn frames<M: Encodable + Decodable + std::fmt::Debug>(api: Api, max: i16, build: impl Fn(i16, bool) -> M) -> Vec<Frame> {
    let mut frames = Vec::new();
    for version in api.row().min..=api.row().max {
        for full in [true, false] {
            let body_version = version.min(max);
            let mut bytes = BytesMut::from(header(api, version).as_slice());
            let begin = bytes.len();
            build(body_version, full).encode(&mut bytes, body_version).unwrap_or_else(|why| panic!("{api:?} {version}: {why}"));
            let mut body = Bytes::copy_from_slice(&bytes[begin..]);
            let theirs = M::decode(&mut body, body_version).unwrap();
            assert!(body.is_empty());
            frames.push(Frame { api, version, bytes: bytes.to_vec(), theirs: Some(format!("{theirs:?}")) });
        }
    }
    frames
}

/// A frame whose body is given.
pub fn by_hand(api: Api, version: i16, body: impl FnOnce(&mut BytesMut)) -> Frame {
    let mut bytes = BytesMut::from(header(api, version).as_slice());
    body(&mut bytes);
    Frame { api, version, bytes: bytes.to_vec(), theirs: None }
}

pub fn put_compact(out: &mut BytesMut, text: &str) {
    out.put_u8(u8::try_from(text.len() + 1).unwrap());
    out.put_slice(text.as_bytes());
}

/// Every served API at every version.
pub fn all() -> Vec<Frame> {
    let mut all = data::all();
    all.extend(groups::all());
    all.extend(admin::all());
    all
}
