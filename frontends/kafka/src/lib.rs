//! The Kafka front.

pub mod wire;
