//! The consensus core: Raft over one partition's log of batches, as a pure machine.
//!
//! 1. Whoever owns the log restores a [`Core`] from its [`State`], hands it what happened (`appended`, `persisted`, `saved`,
//!    `handle_message`, `handle_timeout`) and drains [`Core::poll_effect`] after every call.
//! 2. The core never sees payload bytes: it knows epochs, offsets and who holds what; bytes travel beside its messages.
//! 3. Time and the seed are arguments, so the same calls give the same effects.
//!
//! Knows nothing of files, sockets, threads, clocks, batches, topics or shards.

mod configuration;
mod history;
mod state;

mod message;

mod core;
mod election;
mod follower;
mod leader;

pub use crate::core::{Core, Effect, RaiseError, Role, Timing};
pub use configuration::{Configuration, Member, VOTERS_MAX};
pub use history::{EPOCHS_MAX, History, Start};
pub use message::{Append, Body, Message, Refusal};
pub use state::{DecodeError, Marks, Record, RestoreError, State};
