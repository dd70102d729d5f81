//! Load, measurement and the bare ring server. Every figure of the speed table comes from here or from librdkafka.
//!
//! Knows nothing of the engine, but for the bare server's ring and map.

mod bare;
mod batches;
mod cli;
mod connection;
mod cpu;
mod failure;
mod fetch;
mod first_produce;
mod latency;
mod open_loop;
mod placement;
mod produce;
mod report;
mod topics;
mod window;
mod wire;

use cli::Invocation;
use connection::{Connection, resolve};
use failure::Outcome;
use report::Report;
use std::process::ExitCode;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(failure) => {
            eprintln!("error: {failure}");
            return failure.exit_code();
        }
    };
    match run(invocation) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn run(invocation: Invocation) -> Outcome<String> {
    cpu::sharpen_timers();
    let shown = |json: bool, report: Report| if json { report.json() } else { report.text() };
    match invocation {
        Invocation::Print(text) => Ok(text),
        Invocation::Bare(config) => bare::serve(&config).map(|()| String::new()),
        Invocation::Produce { to, load } => produce::run(&load, resolve(&to.bootstrap)?).map(|report| shown(to.json, report)),
        Invocation::Fetch { to, reading } => fetch::run(&reading, resolve(&to.bootstrap)?).map(|report| shown(to.json, report)),
        Invocation::Latency { to, asked } => latency::run(&asked, resolve(&to.bootstrap)?).map(|report| shown(to.json, report)),
        Invocation::OpenLoop { to, schedule } => open_loop::run(&schedule, resolve(&to.bootstrap)?).map(|report| shown(to.json, report)),
        Invocation::FirstProduce { to, first } => first_produce::run(&first, resolve(&to.bootstrap)?).map(|report| shown(to.json, report)),
        Invocation::MakeTopics { to, prefix, count, partitions, server } => {
            let mut connection = Connection::open(resolve(&to.bootstrap)?)?;
            topics::make_many(&mut connection, &prefix, count, partitions, server).map(|report| shown(to.json, report))
        }
        Invocation::CreateTopic { to, topic, partitions, configs } => {
            let mut connection = Connection::open(resolve(&to.bootstrap)?)?;
            topics::create(&mut connection, &topic, partitions, &configs).map(|()| String::new())
        }
        Invocation::ConfigureTopic { to, topic, configs } => {
            let mut connection = Connection::open(resolve(&to.bootstrap)?)?;
            topics::configure(&mut connection, &topic, &configs).map(|()| String::new())
        }
        Invocation::DeleteTopic { to, topic } => {
            let mut connection = Connection::open(resolve(&to.bootstrap)?)?;
            topics::delete(&mut connection, &topic).map(|()| String::new())
        }
    }
}
