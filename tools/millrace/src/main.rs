//! The one binary: wiring only.
//!
//! `cli` says what was asked for, `settings_file` and the environment add to it, `run` does it. Data goes to standard output, talk to
//! standard error. What fails ends in one line `millrace: ...`; the exit code is 2 for what was asked wrongly, 1 for what went wrong.

mod cli;
mod log;
mod run;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use cli::Invocation;
use millrace::failure::Failure;
use millrace::settings_file;
use millrace_base::settings::{Given, Settings, help, sample};

fn main() -> ExitCode {
    match invoke() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("millrace: {failure}");
            failure.exit_code()
        }
    }
}

fn invoke() -> Result<(), Failure> {
    match cli::parse(std::env::args_os())? {
        Invocation::Start { config, given } => {
            let settings = settings(config.as_deref(), given)?;
            log::install(&settings.logging_level);
            run::start(settings)
        }
        Invocation::Inspect { verb, dir } => run::inspect(&verb, &dir),
        Invocation::Settings { sample: true } => print(&sample()),
        Invocation::Settings { sample: false } => print(&help()),
        Invocation::Print(text) => print(&text),
    }
}

fn settings(config: Option<&str>, command_line: Vec<Given>) -> Result<Settings, Failure> {
    let mut given = match config {
        Some(path) => settings_file::read(path)?,
        None => Vec::new(),
    };
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    given.extend(Given::from_environment(variables)?);
    given.extend(command_line);
    Ok(Settings::new(given)?)
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Run(format!("cannot write to standard output: {error}"))),
        Ok(()) | Err(_) => Ok(()),
    }
}
