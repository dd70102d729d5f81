//! The one binary: wiring only.
//!
//! `cli` says what was asked for, `settings_file` and the environment add to it, `run` does it. Data goes to standard output, talk to
//! standard error. What fails ends in one line `millrace: ...`; the exit code is 2 for what was asked wrongly, 1 for what went wrong;
//! `inspect` has codes of its own for what it finds, and operator commands tell more apart.

mod admin;
mod check;
mod cli;
mod driver;
mod generated;
mod health;
mod log;
mod recover;
mod run;
mod stop;

use std::ffi::OsString;
use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use cli::Invocation;
use millrace::failure::Failure;
use millrace::settings_file;
use millrace_base::settings::{Given, Settings, Source, help, sample};
use millrace_ops::output::{Format, Output};

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
        Invocation::Recover { config, given, accept, format } => {
            let settings = settings(config.as_deref(), given)?;
            log::install(&settings.logging_level);
            let (text, failure) = run::recover(settings, &accept, format)?;
            print(&text)?;
            failure.map_or(Ok(()), Err)
        }
        Invocation::Inspect(inspection) => run::inspect(inspection),
        Invocation::Settings { sample: true } => print(&sample()),
        Invocation::Settings { sample: false } => print(&help()),
        Invocation::Operator { name, matches } => {
            let variable = |name: &str| std::env::var(name).ok();
            Ok(millrace_ops::run(&name, &matches, &variable, &stop::note, &mut BufWriter::new(std::io::stdout().lock()))?)
        }
        Invocation::Check { config, given, format, headings } => {
            let lines = check::run(&settings(config.as_deref(), given)?.log_dirs);
            let format = Format::from_name(&format).unwrap_or(Format::Text);
            let mut text = Vec::new();
            Output { format, headings, to: &mut text }.table(&check::table(&lines))?;
            write(&text)?;
            match lines.iter().filter(|line| line.status == check::Status::Fail).count() {
                0 => Ok(()),
                count => Err(Failure::Run(format!("{count} of {} checks failed; a node would not run here", lines.len()))),
            }
        }
        Invocation::Health { config, address } => {
            let settings = settings(config.as_deref(), Vec::new())?;
            print(&health::ask(admin::address(address.as_deref(), &settings)?)?)
        }
        Invocation::Completions { shell } => write(&generated::completions(cli::command(), shell)),
        Invocation::Manual { directory } => {
            let written = generated::manual(cli::command(), &directory)?;
            print(&format!("{written} manual pages are in {directory}\n"))
        }
        Invocation::Print(text) => print(&text),
    }
}

fn settings(config: Option<&str>, command_line: Vec<Given>) -> Result<Settings, Failure> {
    let mut given = match config {
        Some(path) => settings_file::read(path)?,
        None => Vec::new(),
    };
    let variables: Vec<(String, OsString)> =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    let texts = variables.iter().map(|(name, value)| (name.clone(), value.to_string_lossy().into_owned()));
    let from_environment = Given::from_environment(texts)?;
    for (name, value) in &variables {
        let is_setting = from_environment.iter().any(|given| given.source == Source::Environment(name.clone()));
        if is_setting && value.to_str().is_none() {
            return Err(Failure::Usage(format!("environment variable {name} is not UTF-8: {value:?}")));
        }
    }
    given.extend(from_environment);
    given.extend(command_line);
    Ok(Settings::new(given)?)
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Run(format!("cannot write to standard output: {error}"))),
        Ok(()) | Err(_) => Ok(()),
    }
}
