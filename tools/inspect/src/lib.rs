//! The offline inspector: what a data directory holds, and whether it holds what was written.
//!
//! 1. [`run`] reads the journals with the broker's own recovery and folds them into the same partition images (`directory`).
//! 2. `ls` lists, `show` prints entries, batches, records and single files, `verify` checks every byte that a checksum covers.
//! 3. What was asked for goes to `out`, remarks to `talk`. What is damaged is data: it goes to `out`.
//!
//! Invariants: nothing is written, made, locked for longer than a look, or opened that is not a plain file (`read_only`); memory is
//! bounded by the live journal, one window of a segment and one opened batch, whatever the files say.
//! Knows nothing of what commands and consensus steps mean: those are shown as bytes.

pub mod error;

mod batches;
mod directory;
mod files;
mod ls;
mod partition;
mod read_only;
mod records;
mod segment;
mod show;
mod table;
mod verify;

pub use error::InspectError;

use millrace_base::offset::Offset;
use std::io::{self, Write};
use std::path::Path;

/// What is to be done with a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verb {
    Ls,
    Show(Show),
    Verify,
}

/// What of it is shown, and how much.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Show {
    /// `journal/SHARD`, `TOPIC/PARTITION`, or the path of a file in the data directory. None: all journals and partitions; or the path
    /// that is inspected is a file itself.
    pub what: Option<String>,
    /// Of a journal: this entry only.
    pub entry: Option<u64>,
    /// Of a partition or segment: batches that end above this offset only.
    pub from: Option<Offset>,
    /// The records in the batches too, and whole payloads.
    pub records: bool,
}

/// Whether anything that was looked at is damaged. A torn end of a journal is not: it was never acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Clean,
    Damaged,
}

impl Outcome {
    fn of(damaged: bool) -> Outcome {
        if damaged { Outcome::Damaged } else { Outcome::Clean }
    }
}

/// Where what is found goes.
struct Output<'a> {
    out: &'a mut dyn Write,
    talk: &'a mut dyn Write,
}

impl Output<'_> {
    fn line(&mut self, line: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    fn note(&mut self, note: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.talk, "note: {note}")
    }
}

/// Does it. `path`: a data directory, or for [`Verb::Show`] one file of it. A program exits with 0 when it is clean, with 1 when it is
/// damaged.
///
/// # Errors
/// What was asked for cannot be done; damage is no error, nor is a reader of `ls` or `show` who has seen enough.
pub fn run(verb: &Verb, path: &Path, out: &mut dyn Write, talk: &mut dyn Write) -> Result<Outcome, InspectError> {
    let mut output = Output { out, talk };
    let outcome = match verb {
        Verb::Ls => ls::ls(path, &mut output),
        Verb::Show(show) => show::show(path, show, &mut output),
        Verb::Verify => verify::verify(path, &mut output),
    };
    match outcome.and_then(|outcome| output.out.flush().map(|()| outcome).map_err(InspectError::from)) {
        // Who looks at a part of a list has seen enough; a verdict that nobody reads to its end is none.
        Err(InspectError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe && *verb != Verb::Verify => Ok(Outcome::Clean),
        told => told,
    }
}
