//! Coordinators: state machines that live on the shard which leads an internal partition.

mod groups;

pub use groups::Coordinator;
