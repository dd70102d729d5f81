//! One loop per core: joins log, raftlog, state and io. [`api`] is the face of the engine, [`front`] the seam to protocols.

pub mod api;
mod append;
mod awaited;
mod beside;
pub mod boot;
mod cached;
mod carry;
mod checkpoint;
pub mod claim;
mod controller;
mod coordinator;
mod direct;
mod directory;
mod engine;
mod evidence;
pub mod front;
mod intact;
mod inventory;
mod kept_windows;
mod lifecycle;
pub mod memory;
mod needed;
pub mod net;
pub mod observe;
mod open_files;
mod partition;
mod produce;
mod queries;
mod read;
mod receive;
pub mod recover;
mod rehome;
mod replay;
mod room;
mod routes;
mod script;
mod settle;
pub mod shard;
mod shortage;
mod stop;
mod store;
mod tail;
mod time_search;
pub mod timers;
mod token;
mod visits;
mod waits;
mod window;
mod work;

pub use routes::{Routes, lanes};

/// The plain data of replicated state that [`api`] speaks in; fronts take it from here.
pub use millrace_state as state;
