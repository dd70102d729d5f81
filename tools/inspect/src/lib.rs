//! The offline inspector: what a data directory holds, and whether it holds what was written.
//!
//! 1. [`run`] reads the journals with the broker's own recovery and folds them into the same partition images (`directory`).
//! 2. `ls` lists, `show` prints entries, batches, records and single files, `verify` checks every byte that a checksum covers, `export` gives
//!    every intact record, `find` some of them, `stats` counts them.
//! 3. Directories that Apache Kafka wrote, and folders of segments alone, are read as they are (`kafka`).
//! 4. What was asked for goes to `out`, remarks to `talk`. What is damaged is data: it goes to `out`.
//!
//! Invariants: nothing is written, made, locked for longer than a look, or opened that is not a plain file (`read_only`); memory is
//! bounded by the live journal, one window of a segment and one opened batch, whatever the files say.
//! Knows nothing of what consensus steps mean: those are shown as bytes.

pub mod command;
pub mod error;

mod batches;
mod columns;
mod commands;
mod directory;
mod export;
mod files;
mod find;
mod journal;
mod kafka;
mod log;
mod ls;
mod names;
mod output;
mod partition;
mod problem;
mod read_only;
mod records;
mod segment;
mod segment_check;
mod show;
mod source;
mod spare;
mod stats;
mod table;
mod time;
mod transactions;
mod verify;
mod walked;
mod work;

pub use error::InspectError;
pub use export::{As, Export, Isolation};
pub use find::Find;
pub use kafka::formats as kafka_formats;
pub use output::Format;
pub use stats::Stats;
pub use time::Window;

use millrace_base::offset::Offset;
use output::Output;
use std::io::{self, Write};
use std::path::PathBuf;

/// What is to be done with what, and how it is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspection {
    /// A data directory, or for [`Verb::Show`] one file of it.
    pub path: PathBuf,
    pub verb: Verb,
    pub format: Format,
    /// Whether someone watches: what takes long tells how far it is.
    pub progress: bool,
}

/// What is to be done with a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verb {
    Ls,
    Show(Show),
    /// On so many threads; 0: as many as there are cores.
    Verify {
        threads: usize,
    },
    Export(Export),
    Find(Find),
    Stats(Stats),
}

/// What of it is shown, and how much.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Show {
    /// `journal/SHARD`, `TOPIC/PARTITION` or `TOPIC-PARTITION`, or the path of a file in the data directory. None: all journals and
    /// partitions; or the path that is inspected is a file itself.
    pub what: Option<String>,
    /// Of a journal: this entry only.
    pub entry: Option<u64>,
    /// Of a partition or segment: batches that end above this offset only.
    pub from: Option<Offset>,
    /// The records in the batches too, and whole payloads.
    pub records: bool,
}

/// The worst of what was looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    Clean,
    /// An end was written in part when the node was cut off: it was never acknowledged, and a start cuts it off.
    Torn,
    /// Something that was acknowledged is not what was written.
    Damaged,
}

impl Outcome {
    fn of(damaged: bool) -> Outcome {
        if damaged { Outcome::Damaged } else { Outcome::Clean }
    }

    /// The exit code that tells it; 1 and 2 are for what could not be done and for what was asked wrongly.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Clean => 0,
            Outcome::Damaged => 3,
            Outcome::Torn => 4,
        }
    }
}

impl Verb {
    /// Who reads a part of it has what it came for.
    fn is_list(&self) -> bool {
        match self {
            Verb::Ls | Verb::Show(_) | Verb::Export(_) | Verb::Find(_) | Verb::Stats(_) => true,
            Verb::Verify { .. } => false,
        }
    }
}

fn threads_of(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// Does it.
///
/// # Errors
/// What was asked for cannot be done; damage is no error, nor is a reader of `ls` or `show` who has seen enough.
pub fn run(inspection: &Inspection, out: &mut dyn Write, talk: &mut dyn Write) -> Result<Outcome, InspectError> {
    let mut output = Output::new(out, talk, inspection.format);
    let path = &inspection.path;
    let outcome = match &inspection.verb {
        Verb::Ls => ls::ls(path, &mut output),
        Verb::Show(show) => show::show(path, show, &mut output),
        Verb::Export(export) => export::export(path, export, &mut output),
        Verb::Find(find) => find::find(path, find, &mut output),
        Verb::Stats(stats) => {
            let progress = inspection.progress && output.is_text();
            stats::stats(path, stats, threads_of(stats.threads), progress, &mut output)
        }
        Verb::Verify { threads } => {
            let how = verify::How { threads: threads_of(*threads), progress: inspection.progress && output.is_text() };
            verify::verify(path, how, &mut output)
        }
    };
    match outcome.and_then(|outcome| output.out.flush().map(|()| outcome).map_err(InspectError::from)) {
        // Who looks at a part of a list has seen enough; a verdict that nobody reads to its end is none.
        Err(InspectError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe && inspection.verb.is_list() => Ok(Outcome::Clean),
        told => told,
    }
}
