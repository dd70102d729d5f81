//! The consumer groups of one partition of `__consumer_offsets`.

mod records;
mod request;

pub use records::*;
pub use request::*;
