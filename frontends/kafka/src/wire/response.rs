//! Encoding answers: kafka-protocol's structs to a frame with size prefix, correlation id and header.
//!
//! 1. Room for the size is left in front, the header is written (a tagged section behind the correlation id where the version asks for it).
//! 2. The body is kafka-protocol's, at the version in which it knows it: [`body_version`] names the versions it lacks whose body is
//!    that of the version before (ListOffsets 11, ApiVersions 5). DescribeLogDirs 5 has one field more: [`encode_describe_log_dirs`].
//! 3. The size is written last.
//!
//! kafka-protocol refuses a field that is set and does not exist at the version (topic names beside topic ids, leader hints too early):
//! that is [`EncodeError::Body`], a fault of the handler, never of the client.
//!
//! Knows nothing of what the answers mean. Records are [`super::fetch_response`]'s.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::DescribeLogDirsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::protocol::Encodable;
use millrace_base::fault::Fault;

use super::header::response_header_version;
use super::table::{APIS, Api};

/// Why an answer could not be encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EncodeError {
    /// The frame would pass 2 GiB: answer less.
    TooLarge { bytes: usize },
    /// The struct holds what this version cannot carry, in kafka-protocol's words.
    Body { api: Api, version: i16, why: String },
}

impl EncodeError {
    pub fn fault(&self) -> Fault {
        match self {
            EncodeError::TooLarge { .. } => Fault::Refuse,
            EncodeError::Body { .. } => Fault::Broken,
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::TooLarge { bytes } => {
                write!(f, "an answer of {bytes} bytes does not fit a frame")
            }
            EncodeError::Body { api, version, why } => write!(f, "{} version {version} cannot carry this answer: {why}", api.name()),
        }
    }
}

impl std::error::Error for EncodeError {}

/// What an ApiVersions answer lists: every row of the table.
pub fn advertised() -> Vec<ApiVersion> {
    let entry = |row: &super::table::Row| {
        ApiVersion::default().with_api_key(row.key).with_min_version(row.advertised_min).with_max_version(row.max)
    };
    APIS.iter().map(entry).collect()
}

/// The version at which kafka-protocol encodes the body of an answer.
pub fn body_version(api: Api, version: i16) -> i16 {
    match (api, version) {
        (Api::ListOffsets, 11) => 10,
        (Api::ApiVersions, 5) => 4,
        _ => version,
    }
}

/// A whole frame, size prefix included. `body` must be the response struct of `api`.
pub fn encode<M: Encodable>(api: Api, version: i16, correlation_id: i32, body: &M) -> Result<Bytes, EncodeError> {
    let mut out = begin(api, version, correlation_id);
    body.encode(&mut out, body_version(api, version)).map_err(|why| EncodeError::Body { api, version, why: why.to_string() })?;
    finish(out)
}

/// DescribeLogDirs at every version. From 5 each data directory says whether it is cordoned, which none of ours is.
pub fn encode_describe_log_dirs(version: i16, correlation_id: i32, body: &DescribeLogDirsResponse) -> Result<Bytes, EncodeError> {
    if version < 5 {
        return encode(Api::DescribeLogDirs, version, correlation_id, body);
    }
    let mut out = begin(Api::DescribeLogDirs, version, correlation_id);
    out.put_i32(body.throttle_time_ms);
    out.put_i16(body.error_code);
    put_count(&mut out, body.results.len());
    for result in &body.results {
        out.put_i16(result.error_code);
        put_string(&mut out, &result.log_dir);
        put_count(&mut out, result.topics.len());
        for topic in &result.topics {
            put_string(&mut out, &topic.name);
            put_count(&mut out, topic.partitions.len());
            for partition in &topic.partitions {
                out.put_i32(partition.partition_index);
                out.put_i64(partition.partition_size);
                out.put_i64(partition.offset_lag);
                out.put_u8(u8::from(partition.is_future_key));
                out.put_u8(0);
            }
            out.put_u8(0);
        }
        out.put_i64(result.total_bytes);
        out.put_i64(result.usable_bytes);
        out.put_u8(0); // not cordoned
        out.put_u8(0);
    }
    out.put_u8(0);
    finish(out)
}

/// Room for the size prefix, then the header.
pub(super) fn begin(api: Api, version: i16, correlation_id: i32) -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.put_i32(0);
    out.put_i32(correlation_id);
    if response_header_version(api, version) == 1 {
        out.put_u8(0);
    }
    out
}

fn finish(mut out: BytesMut) -> Result<Bytes, EncodeError> {
    let bytes = out.len();
    put_size(&mut out, bytes)?;
    Ok(out.freeze())
}

/// Writes into the room that `begin` left; `bytes` is the whole frame, prefix included.
pub(super) fn put_size(out: &mut BytesMut, bytes: usize) -> Result<(), EncodeError> {
    let size = i32::try_from(bytes - 4).map_err(|_| EncodeError::TooLarge { bytes })?;
    let prefix = out.first_chunk_mut::<4>().expect("begin() left room for the size");
    *prefix = size.to_be_bytes();
    Ok(())
}

/// Base-128, least significant group first. Values of 2^32 and more cannot be meant for a frame: `put_size` will refuse it.
pub(super) fn put_varint(out: &mut BytesMut, value: usize) {
    let mut rest = u32::try_from(value).unwrap_or(u32::MAX);
    while let [low, ..] = rest.to_le_bytes()
        && rest >= 0x80
    {
        out.put_u8(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    out.put_u8(low);
}

/// A compact count: one more than the number.
pub(super) fn put_count(out: &mut BytesMut, count: usize) {
    put_varint(out, count.saturating_add(1));
}

/// A compact string.
pub(super) fn put_string(out: &mut BytesMut, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}
