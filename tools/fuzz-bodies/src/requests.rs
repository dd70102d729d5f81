//! Request frames: header, then the body of any served API at any version, through the bounded decoder.
//!
//! What it accepts, kafka-protocol must accept as well, whole; what that writes of it must be accepted again and mean the same.

use crate::meter;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use millrace_kafka::wire::header::RequestHeader;
use millrace_kafka::wire::reader::DecodeError;
use millrace_kafka::wire::requests::Request;
use millrace_kafka::wire::table::{APIS, Api};

/// What we serve and kafka-protocol cannot read.
const LACKING: &[(Api, i16)] =
    &[(Api::OffsetCommit, 10), (Api::OffsetFetch, 10), (Api::ApiVersions, 5), (Api::ListOffsets, 11), (Api::DescribeLogDirs, 5)];

pub fn run(input: &[u8]) {
    check(input);
    // Most keys and versions are not served: such a frame is also tried as one that is.
    let refused = RequestHeader::decode(input);
    if let Err(DecodeError::UnknownKey { .. } | DecodeError::UnsupportedVersion { .. }) = refused
        && let Some(rest) = input.get(4..)
    {
        let row = &APIS[usize::from(input[1]) % APIS.len()];
        let version = row.min + i16::from(input[3]) % (row.max - row.min + 1);
        let mut frame = [row.api.key().to_be_bytes(), version.to_be_bytes()].concat();
        frame.extend_from_slice(rest);
        check(&frame);
    }
}

fn check(frame: &[u8]) {
    let budget = frame.len() * 8 + 1024;
    let decoded = meter::bounded(budget, || {
        let header = RequestHeader::decode(frame)?;
        Request::decode(&header, frame, budget).map(|request| (header, request))
    });
    match decoded {
        Ok((header, request)) => compare(&header, &request, frame),
        Err(error) => assert!(error.at() <= frame.len(), "{error} in {} bytes", frame.len()),
    }
}

fn compare(header: &RequestHeader<'_>, request: &Request<'_>, frame: &[u8]) {
    assert!(header.body_at <= frame.len());
    let Ok(key) = ApiKey::try_from(header.api.key()) else { return };
    if LACKING.contains(&(header.api, header.version)) {
        return;
    }
    let mut body = Bytes::copy_from_slice(&frame[header.body_at..]);
    let theirs = match RequestKind::decode(key, &mut body, header.version) {
        Ok(theirs) => theirs,
        // A tagged field of a later version: passed over here, refused by what knows it.
        Err(error) if format!("{error:#}").contains("is not valid for version") => return,
        Err(error) => panic!("{request:?} is refused by kafka-protocol: {error:#}"),
    };
    // Bytes behind the body are passed over; where it ends both must agree.
    let frame = &frame[..frame.len() - body.len()];
    let read = |frame: &[u8]| Request::decode(header, frame, frame.len() * 8 + 1024).map(|same| format!("{same:?}"));
    assert_eq!(read(frame), Ok(format!("{request:?}")), "ends early for kafka-protocol");
    assert!(frame.len() == header.body_at || read(&frame[..frame.len() - 1]).is_err(), "{request:?} ends late for kafka-protocol");
    let mut again = BytesMut::from(&frame[..header.body_at]);
    if theirs.encode(&mut again, header.version).is_err() {
        return;
    }
    let same = match Request::decode(header, &again, again.len() * 8 + 1024) {
        Ok(same) => same,
        // It counts an unknown field whose tag is above 2^31 - 1, does not write it, and cannot read that either.
        Err(error) => {
            let mut written = Bytes::copy_from_slice(&again[header.body_at..]);
            let is_read = RequestKind::decode(key, &mut written, header.version).is_ok();
            assert!(!is_read, "{request:?} written by kafka-protocol is refused: {error}");
            return;
        }
    };
    // Ranges count from the frame's first byte, so they are the same only where no unknown tagged field was left out.
    if again.len() == frame.len() {
        assert_eq!(&same, request);
    }
}
