//! A person who has seen enough: SIGINT and SIGTERM, noted for commands that end in good order.
//!
//! The binary notes them; a command asks [`Stop::is_asked`] between two steps. A command that never takes a [`Stop`] is ended by the signal as any
//! program is.
//!
//! Knows nothing of signals themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Begins to note signals, which from then on do not end the process, and gives where they are noted.
pub type NoteStops<'a> = &'a dyn Fn() -> Arc<AtomicBool>;

#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn new(noted: Arc<AtomicBool>) -> Stop {
        Stop(noted)
    }

    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
