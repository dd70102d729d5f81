//! The journal: the write-ahead file of a shard and data directory, in reading order.

pub mod record;

pub mod contents;
pub mod layout;

mod files;
pub mod writer;

pub mod error;
pub mod opening;
pub mod recovery;
mod scan;

pub use error::JournalError;
pub use opening::{confirm, prepare};
pub use record::{PayloadRange, Record};
pub use recovery::{Damage, Recovered, RecoveredEntry, Torn, TornReason, Touched, Verdict, recover};
pub use writer::{Journal, NoRoom, Options, Pressure, Sealed, SealedBatches, Urgency};
