//! Request and response headers.
//!
//! 1. The first eight bytes of a frame are the same in every header version: that is the [`Prelude`], enough to answer an unknown version.
//! 2. What follows (client id; in flexible versions a tagged section) is read once key and version are known to be served.
//! 3. The client id has a 16-bit length even in flexible versions. An answer to ApiVersions always has response header 0, because its
//!    reader does not yet know what the broker speaks (KIP-511).
//!
//! Header version 0 of requests existed for ControlledShutdown alone, which no version of Kafka serves any more.
//! Knows nothing of bodies.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap)]

use super::message::Shape;
use super::reader::{DecodeError, Reader};
use super::table::Api;

/// Bytes of a [`Prelude`].
pub const PRELUDE_BYTES: usize = 8;

/// The part of a header that does not depend on its version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prelude {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
}

impl Prelude {
    /// `frame` begins after the size prefix.
    pub fn decode(frame: &[u8]) -> Result<Prelude, DecodeError> {
        let mut reader = Reader::new(frame, 0, Shape { version: 0, flexible: false }, 0);
        Ok(Prelude { key: reader.i16()?, version: reader.i16()?, correlation_id: reader.i32()? })
    }
}

/// A request's header, with the place at which its body begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader<'a> {
    pub api: Api,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<&'a str>,
    /// First byte of the body in the frame.
    pub body_at: usize,
}

impl<'a> RequestHeader<'a> {
    /// `frame` begins after the size prefix.
    /// [`DecodeError::UnknownKey`] and [`DecodeError::UnsupportedVersion`] are told apart from a header that cannot be read.
    pub fn decode(frame: &'a [u8]) -> Result<RequestHeader<'a>, DecodeError> {
        let Prelude { key, version, correlation_id } = Prelude::decode(frame)?;
        let api = Api::from_key(key).ok_or(DecodeError::UnknownKey { key })?;
        if !api.serves(version) {
            return Err(DecodeError::UnsupportedVersion { key, version });
        }
        let mut reader = Reader::new(frame, PRELUDE_BYTES, Shape { version, flexible: api.flexible(version) }, 0);
        let client_id = reader.classic_string()?;
        if api.flexible(version) {
            reader.tagged(|_, _| Ok(false))?;
        }
        Ok(RequestHeader { api, version, correlation_id, client_id, body_at: reader.at() })
    }

    pub fn shape(&self) -> Shape {
        Shape { version: self.version, flexible: self.api.flexible(self.version) }
    }
}

/// 2 in flexible versions, else 1.
pub fn request_header_version(api: Api, version: i16) -> i16 {
    if api.flexible(version) { 2 } else { 1 }
}

/// 1 (a tagged section behind the correlation id) in flexible versions, else 0; ApiVersions always 0.
pub fn response_header_version(api: Api, version: i16) -> i16 {
    if api.flexible(version) && api != Api::ApiVersions { 1 } else { 0 }
}
