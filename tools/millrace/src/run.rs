//! What the commands do: joins shards, fronts and inspector.

use millrace_base::settings::Settings;

use crate::cli::Verb;
use crate::failure::Failure;

/// Runs a node until it is told to stop.
pub fn start(settings: Settings) -> Result<(), Failure> {
    let listeners = millrace_edge::listener::listeners(&settings)?;
    Err(Failure::Run(format!("node {} with {} listeners is not wired yet", settings.node_id, listeners.len())))
}

/// Prints what is in data directory `dir`.
pub fn inspect(verb: Verb, dir: &str) -> Result<(), Failure> {
    Err(Failure::Run(format!("inspect {verb:?} {dir} is not wired yet")))
}
