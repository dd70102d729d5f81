//! The consensus core: Raft over one partition's log of batches, as a pure machine.
//!
//! 1. Whoever owns the log restores a [`Core`] from its [`State`], hands it what happened (`appended`, `persisted`, `saved`,
//!    `handle_message`, `handle_timeout`) and drains [`Core::poll_effect`] after every call.
//! 2. The core never sees payload bytes: it knows epochs, offsets and who holds what; bytes travel beside its messages.
//! 3. Time and the seed are arguments, so the same calls give the same effects.
//!
//! A replica that is its set's only voter:
//!
//! ```
//! use millrace_base::{clock::Nanos, ids::Uuid, offset::Position};
//! use millrace_raftlog::{Configuration, Core, Effect, Member, State, Timing};
//!
//! let me = Member { node: 1, disk: Uuid([7; 16]) };
//! let timing = Timing { heartbeat_ms: 100, election_ms: 1000 };
//! let found = State::new(Configuration::sole(me)); // or what recovery read: State::decode, then apply(&record) and history.extend(end)
//! let mut core = Core::restore(me, found, timing, 42, Nanos(0)).expect("a state that recovery accepted");
//! let Some(Effect::Persist { sequence, record }) = core.poll_effect() else { panic!("term, vote and start in one record") };
//! let mut journaled = Vec::new();
//! record.encode(&mut journaled); // into the turn's entry; when that is synced:
//! core.saved(sequence);
//! assert_eq!(core.poll_effect(), Some(Effect::BecameLeader { epoch: 1, start: 0 }));
//! assert!(core.is_leader());
//! let (base, epoch) = (core.log_end(), core.epoch()); // patched into the batch of ten records that goes into the journal
//! core.appended(base + 10);
//! assert_eq!((core.log_end(), core.commit()), (10, 0));
//! core.persisted(Position::new(epoch, base + 10)); // its entry is synced
//! assert_eq!(core.poll_effect(), Some(Effect::Committed { commit: 10 }));
//! assert_eq!(core.poll_effect(), None);
//! ```
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
