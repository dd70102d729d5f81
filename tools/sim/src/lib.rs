//! The whole broker in virtual time, and its checkers, in reading order.

pub mod run;

pub mod cluster;
pub mod node;
pub mod said;

pub mod client;
pub mod packing;
pub mod value;

pub mod checker;
pub mod history;
