//! What is wrong, where, and what the next start of the broker does with it.

use crate::output::Output;
use millrace_base::fault::Corrupt;
use millrace_base::value::{Fields, field};
use std::io;

/// What a start makes of a problem. What else becomes of the partition or directory is not repeated: the first problem decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtStart {
    /// The data directory is not used.
    DirectoryOffline,
    /// The start ends, for the whole node.
    Refused,
    /// The partitions are read as far as they are intact.
    Partial,
    /// The partition is offline.
    Offline,
    /// The batch is not given to readers.
    BatchRefused,
    /// What is derived is made again.
    MadeAgain,
    /// A start does not look there, nor does a reader.
    NotNoticed,
}

impl AtStart {
    pub fn text(self) -> &'static str {
        match self {
            AtStart::DirectoryOffline => {
                "a start does not use the data directory: its partitions are offline; without replica set 0 no node starts"
            }
            AtStart::Refused => "a start ends here: the release that wrote it reads it",
            AtStart::Partial => {
                "a start serves the partition up to there and takes no writes, until `millrace recover --accept-loss` gives up the rest"
            }
            AtStart::Offline => "a start leaves the partition offline",
            AtStart::BatchRefused => "a start does not notice; reading it is answered with KAFKA_STORAGE_ERROR",
            AtStart::MadeAgain => "a start makes it again",
            AtStart::NotNoticed => "a start does not notice",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub corrupt: Corrupt,
    /// None: nothing of ours will start on it.
    pub at_start: Option<AtStart>,
}

impl Problem {
    pub fn new(corrupt: Corrupt, at_start: AtStart) -> Problem {
        Problem { corrupt, at_start: Some(at_start) }
    }

    /// Tells it. `partition`: whose it is, if it is one's.
    pub fn tell(&self, output: &mut Output<'_>, partition: Option<&str>) -> io::Result<()> {
        if !output.is_text() {
            return output.item("problem", self.fields(partition));
        }
        match self.at_start {
            Some(at_start) => output.line(format_args!("{}; {}", self.corrupt, at_start.text())),
            None => output.line(&self.corrupt),
        }
    }

    fn fields(&self, partition: Option<&str>) -> Fields {
        let Corrupt { file, place, expected, found } = &self.corrupt;
        let mut fields = vec![
            field("file", file.as_str()),
            field("place", *place),
            field("expected", expected.as_str()),
            field("found", found.as_str()),
        ];
        fields.extend(partition.map(|partition| field("partition", partition)));
        fields.extend(self.at_start.map(|at_start| field("at_start", at_start.text())));
        fields
    }
}
