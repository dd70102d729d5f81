//! The controller's state machine: what replica set 0 decides.
//!
//! A request is checked by the leader (`Meta::check`) and becomes a command; the command is committed in set 0's log; every node then
//! applies it (`Meta::apply`) and acts on the effects.

mod check;
mod command;
mod error;
mod generated;
mod machine;
mod snapshot;
pub mod topic_configs;
mod topic_name;

pub use check::{ConfigChange, ConfigChanges, Layout, Live, Request};
pub use command::{COMMAND_VERSION, Command, DecodeError, Directory, Listener, Node, NodeScope};
pub use error::MetaError;
pub use machine::{Effect, Meta, Topic};
pub use snapshot::SNAPSHOT_VERSION;
pub use topic_name::{fault as topic_name_fault, is_internal};
