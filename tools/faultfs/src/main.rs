//! A directory that loses power, for tests of the real binary on the real ring. Never shipped.
//!
//! `millrace-faultfs FOLDER MOUNTPOINT SEED` mounts what is durable in FOLDER and says `ready`. Each line on standard input is then obeyed
//! and answered with one line:
//!
//! - `cut`: power fails. Of what was not synced a part is kept; every operation gets EIO from then on.
//! - `lie`: syncs succeed and keep nothing; a cut then loses all that was written since.
//! - `fail-sync once` or `fail-sync always`: the next sync, or each, gets EIO, and what it should have kept is lost even if a later one
//!   succeeds, as with a page cache that marks failed pages clean.
//! - `fail-io`: every read, write and sync gets EIO.
//! - `bad FILE BEGIN END`: a read of the sectors that hold bytes BEGIN to END of FILE, a path below the mountpoint, gets EIO until they are
//!   written again.
//! - `lose-write ENDING`, `misdirect-write ENDING BYTES`: the next write of a file whose name ends so says that it is done, and is not, or went
//!   so many bytes further in that file, or back.
//! - `slow FROM TO`: each read, write, sync and change of a name or length takes FROM to TO milliseconds, eight of them at once; `slow 0 0`
//!   ends it.
//! - `room BYTES`: what needs more than so many bytes beyond those in use gets ENOSPC; `room all` ends it.
//! - `quit`, or the end of the input: unmounts. Without a cut, what was written and not lost to a failed sync is durable then.
//!
//! A command that makes no sense ends the program.
//!
//! `file` is the two images of a file, `names` those of the directories, `store` both together, `mount` the face towards the kernel.

mod file;
mod mount;
mod names;
mod store;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use store::{Astray, FailSync, Store};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("faultfs: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, mountpoint, seed] = arguments.as_slice() else { return Err("usage: millrace-faultfs FOLDER MOUNTPOINT SEED".to_owned()) };
    let seed = seed.parse::<u64>().map_err(|_| format!("{seed} is not a seed"))?;
    let store = Store::open(&PathBuf::from(folder), seed).map_err(|error| format!("{folder}: {error}"))?;
    let store = Arc::new(Mutex::new(store));
    let session =
        mount::mount(Arc::clone(&store), &PathBuf::from(mountpoint)).map_err(|error| format!("cannot mount {mountpoint}: {error}"))?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        if line == "quit" {
            break;
        }
        println!("{}", obey(&mut mount::locked(&store), &line)?);
    }
    session.umount_and_join().map_err(|error| format!("cannot unmount {mountpoint}: {error}"))?;
    mount::locked(&store).close().map_err(|error| format!("{folder}: {error}"))
}

/// The answer to one command.
fn obey(store: &mut Store, command: &str) -> Result<String, String> {
    let words: Vec<&str> = command.split(' ').collect();
    match words.as_slice() {
        ["cut"] => store.cut().map_err(|error| format!("a cut: {error}")),
        ["lie"] => Ok(store.lie()),
        ["fail-sync", "once"] => Ok(store.fail_syncs(FailSync::Once)),
        ["fail-sync", "always"] => Ok(store.fail_syncs(FailSync::Always)),
        ["fail-io"] => Ok(store.fail_io()),
        ["bad", file, begin, end] => {
            let spoiled = store.spoil(Path::new(file), number(begin)?, number(end)?);
            spoiled.map_err(|refusal| format!("{file}: {refusal:?}"))
        }
        ["lose-write", ending] => Ok(store.lead_astray(ending, Astray::Lost)),
        ["misdirect-write", ending, bytes] => Ok(store.lead_astray(ending, Astray::By(number(bytes)?))),
        ["slow", from, to] => match (number(from)?, number(to)?) {
            (from, to) if from <= to => Ok(store.slow(from..=to)),
            (from, to) => Err(format!("no delay is {from} ms at least and {to} ms at most")),
        },
        ["room", "all"] => Ok(store.leave_room(None)),
        ["room", bytes] => Ok(store.leave_room(Some(number(bytes)?))),
        _ => Err(format!("{command:?} is no command")),
    }
}

fn number<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is no number that fits here"))
}
