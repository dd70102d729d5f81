//! One loop per core: joins log, raftlog, state and io. [`api`] is the face of the engine, [`front`] the seam to protocols.

pub mod api;
pub mod front;
pub mod net;
mod routes;
mod script;
pub mod timers;
mod token;
