//! How an invocation fails: one line for a person, one exit code for a script.

use std::fmt;
use std::process::ExitCode;

use millrace_base::settings;

/// The text is one line: what happened, where, and what to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// What was asked for cannot be meant: arguments, settings.
    Usage(String),
    /// What was asked for did not succeed.
    Run(String),
    /// What happened, or was found, has an exit code of its own.
    Found(u8, String),
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Run(_) => ExitCode::from(1),
            Failure::Found(code, _) => ExitCode::from(*code),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Run(text) | Failure::Found(_, text) => f.write_str(text),
        }
    }
}

impl From<millrace_ops::failure::Failure> for Failure {
    fn from(failure: millrace_ops::failure::Failure) -> Failure {
        Failure::Found(failure.kind as u8, failure.to_string())
    }
}

impl From<settings::Error> for Failure {
    fn from(error: settings::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}
