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
//! - `quit`, or the end of the input: unmounts. Without a cut, what was written and not lost to a failed sync is durable then.
//!
//! `store` is the two images of every file, `names` those of the directories, `mount` the face towards the kernel.

mod mount;
mod names;
mod store;

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use store::{FailSync, Store};

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
    match command {
        "cut" => store.cut().map_err(|error| format!("a cut: {error}")),
        "lie" => Ok(store.lie()),
        "fail-sync once" => Ok(store.fail_syncs(FailSync::Once)),
        "fail-sync always" => Ok(store.fail_syncs(FailSync::Always)),
        "fail-io" => Ok(store.fail_io()),
        other => Err(format!("{other:?} is no command")),
    }
}
