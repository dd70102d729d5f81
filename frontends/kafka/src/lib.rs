//! The Kafka front.

pub mod affinity;
pub mod answered;
pub mod apis;
pub mod authorize;
pub mod auto_create;
pub mod call;
pub mod configs;
pub mod conn;
pub mod controller;
pub mod coordinator;
pub mod dispatch;
pub mod engine;
pub mod errors;
pub mod fetch_session;
pub mod front;
pub mod gather;
pub mod listener;
pub mod names;
pub mod producer_ids;
pub mod wire;
