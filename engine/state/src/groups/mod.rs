//! Consumer groups (classic) of one partition of `__consumer_offsets`, as Kafka's coordinator keeps them.

mod group;
mod machine;
mod membership;
mod offsets;
pub mod records;
mod request;

pub use machine::Groups;
pub use request::*;

#[cfg(test)]
mod tests;
