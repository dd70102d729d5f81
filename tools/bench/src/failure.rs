//! How a run fails: one line for a person, one exit code for a script.
//!
//! A run that met any error of the server has measured nothing, so there is no figure beside a failure.

use kafka_protocol::error::ResponseError;
use std::fmt;
use std::io;
use std::process::ExitCode;

#[derive(Debug)]
pub enum Failure {
    /// What was asked for cannot be meant.
    Usage(String),
    /// The system refused something: a connection, a file, a ring.
    System { doing: String, error: io::Error },
    /// The server answered with an error code.
    Refused { doing: &'static str, code: i16 },
    /// The server's bytes are not what the protocol says, or not what was sent.
    Wrong { doing: &'static str, found: String },
    /// Something did not happen in time.
    Late { doing: &'static str, waited_s: u64 },
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        let doing = doing.into();
        move |error| Failure::System { doing, error }
    }

    pub fn wrong(doing: &'static str, found: impl fmt::Display) -> Failure {
        Failure::Wrong { doing, found: found.to_string() }
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::System { .. } | Failure::Refused { .. } | Failure::Wrong { .. } | Failure::Late { .. } => ExitCode::from(1),
        }
    }
}

/// Fails unless `code` is 0.
pub fn accepted(doing: &'static str, code: i16) -> Outcome<()> {
    if code == 0 { Ok(()) } else { Err(Failure::Refused { doing, code }) }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => f.write_str(text),
            Failure::System { doing, error } => write!(f, "{doing}: {error}"),
            Failure::Refused { doing, code } => match ResponseError::try_from_code(*code) {
                Some(error) => write!(f, "{doing}: the server answers {error:?} ({code})"),
                None => write!(f, "{doing}: the server answers error code {code}"),
            },
            Failure::Wrong { doing, found } => write!(f, "{doing}: {found}"),
            Failure::Late { doing, waited_s } => write!(f, "{doing}: nothing after {waited_s} s"),
        }
    }
}
