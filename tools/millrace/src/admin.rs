//! The admin listener: its socket, and what it is told of the process and the machine.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use millrace::failure::Failure;
use millrace_admin::{Admin, Facts, Machine};
use millrace_base::clock::Nanos;
use millrace_base::settings::Settings;
use millrace_edge::listener::Endpoint;
use millrace_http::Server;
use millrace_io::blocking::BlockingDisk;
use millrace_io::{Disk, process, system};
use millrace_shard::observe::Observer;

/// Where it listens when nobody says.
const DEFAULT: &str = "127.0.0.1:9644";

/// What turns it off.
const NONE: &str = "none";

/// Binds it; None: there is to be none, or another process has the port that nobody asked for.
pub fn bind(settings: &Settings) -> Result<Option<TcpListener>, Failure> {
    let told = settings.admin_listener.as_deref();
    if told == Some(NONE) {
        return Ok(None);
    }
    let text = told.unwrap_or(DEFAULT);
    let refused =
        |why: String| Failure::Run(format!("cannot listen on {text}: {why}; choose another address with the setting admin.listener"));
    let host = endpoint(text, "setting admin.listener", ", or none")?;
    let address = resolved(&host).ok_or_else(|| refused(format!("{} is no address of this machine", host.host)))?;
    match TcpListener::bind(address) {
        Ok(listener) => {
            if !address.ip().to_canonical().is_loopback() {
                log::warn!("the admin listener takes connections from other hosts, and there is no authentication yet");
            }
            if let Ok(bound) = listener.local_addr() {
                log::info!("readiness and metrics: http://{bound}");
            }
            Ok(Some(listener))
        }
        Err(error) if told.is_none() => {
            log::warn!("no readiness and no metrics: {DEFAULT} cannot be bound: {error}; say where with the setting admin.listener");
            Ok(None)
        }
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Where a client of this host finds it: at `given`, as --admin-addr names it, or where the settings say.
///
/// # Errors
/// That is no address, or there is to be none.
pub fn address(given: Option<&str>, settings: &Settings) -> Result<SocketAddr, Failure> {
    let text = given.or(settings.admin_listener.as_deref()).unwrap_or(DEFAULT);
    if given.is_none() && text == NONE {
        return Err(Failure::Usage("there is no admin listener (setting admin.listener is none); --admin-addr names another".to_owned()));
    }
    let (name, allowed) = if given.is_some() { ("--admin-addr", "") } else { ("setting admin.listener", ", or none") };
    let host = endpoint(text, name, allowed)?;
    resolved(&host).ok_or_else(|| Failure::Run(format!("{} has no address", host.host)))
}

/// Without a host, that of every address.
fn endpoint(text: &str, name: &str, allowed: &str) -> Result<Endpoint, Failure> {
    let mut endpoint =
        Endpoint::parse(text).ok_or_else(|| Failure::Usage(format!("{name} cannot be {text:?}; allowed: host:port{allowed}")))?;
    if endpoint.host.is_empty() {
        "0.0.0.0".clone_into(&mut endpoint.host);
    }
    Ok(endpoint)
}

fn resolved(endpoint: &Endpoint) -> Option<SocketAddr> {
    (endpoint.host.as_str(), endpoint.port).to_socket_addrs().ok()?.next()
}

/// Serves it from now on.
pub fn serve(
    listener: Option<TcpListener>,
    observers: Vec<Observer>,
    settings: &Settings,
    directories: Vec<PathBuf>,
    began: Nanos,
    has_begun: Arc<AtomicBool>,
) -> Result<Option<Server>, Failure> {
    let Some(listener) = listener else { return Ok(None) };
    let facts = Facts { node: settings.node_id, version: env!("CARGO_PKG_VERSION").to_owned() };
    let open_files_max = process::raise_files_limit();
    let machine = Box::new(move || machine(&directories, began, open_files_max));
    let admin = Admin { observers, facts, machine, has_begun };
    let served = millrace_admin::start(admin, listener);
    served.map(Some).map_err(|error| Failure::Run(format!("the admin listener cannot start: {error}")))
}

fn machine(directories: &[PathBuf], began: Nanos, open_files_max: u64) -> Machine {
    let usage = process::usage();
    let mut disk = BlockingDisk::new();
    let space = |path: &PathBuf| disk.space(path).ok().map(|(free, total)| (path.display().to_string(), total, free));
    Machine {
        uptime: system::now().since(began),
        cpu: usage.cpu,
        resident_bytes: usage.resident_bytes,
        open_files: usage.open_files,
        open_files_max,
        disks: directories.iter().filter_map(space).collect(),
    }
}
