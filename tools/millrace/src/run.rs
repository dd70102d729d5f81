//! What the commands do: joins shards, fronts and inspector.

use std::io::{BufWriter, IsTerminal};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_base::clock::Nanos;
use millrace_base::settings::Settings;
use millrace_edge::listener::{self, Listener};
use millrace_inspect::{InspectError, Inspection, Outcome};
use millrace_io::blocking::BlockingDisk;
use millrace_io::{Doorbell, process, system};
use millrace_kafka::front::KafkaFront;
use millrace_kafka::listener::Advertised;
use millrace_shard::boot::{self, Boot, Plan, ShardBoot};
use millrace_shard::claim;
use millrace_shard::observe::{Observed, Observer, observation};
use millrace_shard::recover::Accept;
use millrace_shard::shard::{FrontSetup, Shard, Status};
use millrace_shard::{Routes, lanes};
use millrace_state::meta;

use crate::admin;
use crate::driver::{self, Kind};
use crate::recover::{self, Format};
use millrace::failure::Failure;

/// Part of the machine's memory that a broker takes when it is not told.
const MEMORY_SHARE: u64 = 4;

/// Fewer descriptors than this are warned of.
const FILES_FEW: u64 = 4_096;

/// How long the sockets of a broker that was just killed are waited for.
const PORT_WAIT: Duration = Duration::from_secs(3);

/// What a shard's thread tells while it starts and runs.
enum News {
    /// Its ring is there and its listeners are bound: the doorbell, and the addresses.
    Bound(u16, Doorbell, Vec<SocketAddr>),
    /// It accepts connections.
    Open,
    Failed(String),
    Stopped,
}

/// Where a shard runs, and on what.
#[derive(Clone, Copy)]
struct Place {
    here: u16,
    core: Option<usize>,
    kind: Kind,
}

/// What a shard's thread is given once all doorbells are known.
struct Joined {
    boot: ShardBoot,
    observed: Observed,
    routes: Routes,
    advertised: Vec<Advertised>,
    files_max: u64,
}

/// Runs a node until it is told to stop.
pub fn start(settings: Settings) -> Result<(), Failure> {
    let began = system::now();
    abort_on_panic();
    process::hold_stop_signals();
    let files_max = process::raise_files_limit();
    log::info!(files = files_max; "limit of open files");
    if files_max < FILES_FEW {
        log::warn!("only {files_max} files and connections may be open at once; raise the hard limit (ulimit -Hn, LimitNOFILE)");
    }
    let mut disk = BlockingDisk::new();
    let directories = settings.log_dirs.iter().map(|path| absolute(path)).collect::<Result<Vec<PathBuf>, Failure>>()?;
    let listeners = listener::listeners(&settings)?;
    // Before the ports: a second start on the same directories most often has the same ports too, and the directories say why.
    claim::lock_all(&mut disk, &directories).map_err(|error| Failure::Run(error.to_string()))?;
    warn_of_open_listeners(&listeners);
    let admin_socket = admin::bind(&settings)?;
    let kind = driver::choose(&settings.io_driver)?;
    let (cores, shards) = (process::cores(), shards(&settings));
    let stop = Arc::new(AtomicBool::new(false));
    let (news, told) = channel();
    let mut threads = Vec::new();
    let mut joins = Vec::new();
    let mut bound: Vec<SocketAddr> = Vec::new();
    let mut doorbells: Vec<Option<Doorbell>> = (0..shards).map(|_| None).collect();
    for here in 0..shards {
        let core = settings.shard_pin_enable.then(|| cores[usize::from(here) % cores.len()]);
        let wanted = if here == 0 { free_addresses(&listeners)? } else { bound.clone() };
        let (join, joined) = channel();
        joins.push(join);
        let place = Place { here, core, kind };
        threads.push(spawn(place, wanted, news.clone(), joined, Arc::clone(&stop), settings.clone())?);
        match told.recv() {
            Ok(News::Bound(shard, doorbell, addresses)) => {
                doorbells[usize::from(shard)] = Some(doorbell);
                bound = addresses;
            }
            Ok(News::Failed(why)) => return Err(Failure::Run(why)),
            Ok(News::Open | News::Stopped) | Err(_) => return Err(Failure::Run("a shard ended before it began".to_owned())),
        }
    }
    let doorbells: Vec<Doorbell> = doorbells.into_iter().flatten().collect();
    let advertised: Vec<Advertised> = listeners
        .iter()
        .zip(&bound)
        .map(|(listener, address)| {
            let endpoint = listener.advertised_at(address.port());
            Advertised { name: listener.name.clone(), host: endpoint.host, port: endpoint.port }
        })
        .collect();
    let (observers, observed): (Vec<Observer>, Vec<Observed>) =
        doorbells.iter().zip(0..).map(|(doorbell, shard)| observation(shard, doorbell.clone())).unzip();
    let has_begun = Arc::new(AtomicBool::new(false));
    let admin = admin::serve(admin_socket, observers, &settings, directories.clone(), began, Arc::clone(&has_begun))?;
    let booted = boot_node(&mut disk, &settings, directories, shards, &advertised)?;
    for note in &booted.notes {
        log::info!("{note}");
    }
    for (((boot, observed), lanes), join) in booted.shards.into_iter().zip(observed).zip(lanes(shards)).zip(&joins) {
        let routes = Routes::new(boot.here, lanes, doorbells.clone());
        if join.send(Joined { boot, observed, routes, advertised: advertised.clone(), files_max }).is_err() {
            return Err(Failure::Run("a shard ended before it began".to_owned()));
        }
    }
    has_begun.store(true, Ordering::Relaxed);
    let stopper = watch_for_stop(Arc::clone(&stop), doorbells)?;
    // If a shard cannot start the others would run on as half a node and never end: the process does, which loses nothing.
    serve(&told, shards, kind, &advertised, began)?;
    for thread in threads {
        drop(thread.join());
    }
    if let Some(admin) = admin {
        admin.stop();
    }
    drop(stopper);
    drop(disk);
    Ok(())
}

/// A shard that has met the impossible takes the node down: half a node would answer as if it were whole.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::abort();
    }));
}

/// Says when the node is ready, and waits until every shard has stopped.
fn serve(told: &Receiver<News>, shards: u16, kind: Kind, advertised: &[Advertised], began: Nanos) -> Result<(), Failure> {
    let (mut open, mut stopped) = (0, 0);
    while stopped < shards {
        match told.recv() {
            Ok(News::Open) => {
                open += 1;
                if open == shards {
                    let addresses: Vec<String> =
                        advertised.iter().map(|a| format!("{}://{}", a.name, authority(&a.host, a.port))).collect();
                    let ms = system::now().since(began).as_millis().to_string();
                    let (addresses, shards) = (addresses.join(","), shards.to_string());
                    crate::log::always("ready", &[("addresses", &addresses), ("shards", &shards), ("driver", kind.name()), ("ms", &ms)]);
                }
            }
            Ok(News::Stopped) => stopped += 1,
            Ok(News::Failed(why)) => return Err(Failure::Run(why)),
            Ok(News::Bound(..)) => {}
            Err(_) => break,
        }
    }
    log::info!("stopped");
    Ok(())
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn warn_of_open_listeners(listeners: &[Listener]) {
    for listener in listeners.iter().filter(|listener| !listener.is_loopback()) {
        log::warn!("listener {} takes connections from other hosts, and there is no authentication yet", listener.name);
    }
}

/// The addresses to bind, in the order of the listeners.
fn resolve(listeners: &[Listener]) -> Result<Vec<SocketAddr>, Failure> {
    let one = |listener: &Listener| {
        let host = if listener.bind.host.is_empty() { "0.0.0.0" } else { listener.bind.host.as_str() };
        let found = (host, listener.bind.port).to_socket_addrs();
        let address = found.ok().and_then(|mut addresses| addresses.next());
        address.ok_or_else(|| {
            Failure::Run(format!("listener {}: {host} is no address of this machine; see the setting listeners", listener.name))
        })
    };
    listeners.iter().map(one).collect()
}

/// The addresses to bind, none of which anyone else listens on. Shards share their ports, so that the system would let another broker of
/// this user share them too.
fn free_addresses(listeners: &[Listener]) -> Result<Vec<SocketAddr>, Failure> {
    let addresses = resolve(listeners)?;
    for address in &addresses {
        let began = system::now();
        while let Err(error) = std::net::TcpListener::bind(address) {
            // The kernel takes the ring of a broker that was killed apart after its end, and its sockets with it.
            let wait = error.kind() == std::io::ErrorKind::AddrInUse && system::now().since(began) < PORT_WAIT;
            if !wait {
                let hint = "choose another port with --kafka-addr or the setting listeners";
                return Err(Failure::Run(format!("cannot listen on {address}: {error}; {hint}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(addresses)
}

fn boot_node(
    disk: &mut BlockingDisk,
    settings: &Settings,
    directories: Vec<PathBuf>,
    shards: u16,
    advertised: &[Advertised],
) -> Result<Boot, Failure> {
    let listeners = advertised.iter().map(|a| meta::Listener { name: a.name.clone(), host: a.host.clone(), port: a.port }).collect();
    boot::boot(disk, plan(settings, directories, shards, listeners), &mut system::entropy).map_err(|error| Failure::Run(error.to_string()))
}

fn plan(settings: &Settings, directories: Vec<PathBuf>, shards: u16, listeners: Vec<meta::Listener>) -> Plan {
    let told = settings.memory_max_bytes;
    let memory = if told == 0 { process::memory_bytes() / MEMORY_SHARE } else { told };
    let memory_bytes = usize::try_from(memory).unwrap_or(usize::MAX);
    Plan { settings: settings.clone(), directories, shards, listeners, memory_bytes, journal: None }
}

fn shards(settings: &Settings) -> u16 {
    let count = if settings.shards == 0 { process::cores().len() } else { settings.shards as usize };
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Looks for damaged partitions of a node that does not run, and gives up what `accept` says. Gives what is to be printed.
pub fn recover(settings: Settings, accept: &Accept, format: Format) -> Result<(String, Option<Failure>), Failure> {
    let directories = settings.log_dirs.iter().map(|path| absolute(path)).collect::<Result<Vec<PathBuf>, Failure>>()?;
    recover::run(&plan(&settings, directories, shards(&settings), Vec::new()), accept, format)
}

fn absolute(path: &str) -> Result<PathBuf, Failure> {
    std::path::absolute(Path::new(path)).map_err(|error| Failure::Run(format!("data directory {path:?}: {error}")))
}

/// A thread that stops the node when a signal asks for it.
fn watch_for_stop(stop: Arc<AtomicBool>, doorbells: Vec<Doorbell>) -> Result<JoinHandle<()>, Failure> {
    let watch = move || {
        process::wait_for_stop();
        log::info!("stopping");
        stop.store(true, Ordering::SeqCst);
        doorbells.iter().for_each(Doorbell::ring);
        crate::stop::await_second(); // it does not wait for anything
        std::process::exit(1);
    };
    std::thread::Builder::new().name("stop".to_owned()).spawn(watch).map_err(|error| Failure::Run(format!("cannot make a thread: {error}")))
}

fn spawn(
    place: Place,
    listen: Vec<SocketAddr>,
    news: Sender<News>,
    joined: Receiver<Joined>,
    stop: Arc<AtomicBool>,
    settings: Settings,
) -> Result<JoinHandle<()>, Failure> {
    let Place { here, core, kind } = place;
    let body = move || {
        if core.is_some_and(|core| !process::pin(core)) {
            log::warn!("shard {here} cannot be bound to its core");
        }
        let ended = match shard(here, kind, &listen, &news, &joined, &stop, &settings) {
            Ok(()) => News::Stopped,
            Err(why) => News::Failed(why),
        };
        let _ = news.send(ended); // nobody listens once the node has failed elsewhere
    };
    let name = format!("shard-{here}");
    std::thread::Builder::new().name(name).spawn(body).map_err(|error| Failure::Run(format!("cannot make a thread: {error}")))
}

fn shard(
    here: u16,
    kind: Kind,
    listen: &[SocketAddr],
    news: &Sender<News>,
    joined: &Receiver<Joined>,
    stop: &AtomicBool,
    settings: &Settings,
) -> Result<(), String> {
    let mut driver = kind.driver()?;
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for address in listen {
        let (listener, bound) = driver.listen(*address, true).map_err(|error| {
            format!("cannot listen on {address}: {error}; another process may have the port, choose one with --kafka-addr or the setting listeners")
        })?;
        listeners.push(listener);
        addresses.push(bound);
    }
    let _ = news.send(News::Bound(here, driver.doorbell(), addresses));
    let Ok(Joined { boot, observed, routes, advertised, files_max }) = joined.recv() else { return Ok(()) };
    let front = KafkaFront::new(advertised, settings, boot.facts.shards);
    let fronts = vec![FrontSetup { front: Box::new(front), listeners }];
    let mut shard = Shard::new(driver, boot, routes, fronts).map_err(|error| format!("shard {here} cannot start: {error}"))?;
    shard.bound_files(files_max);
    shard.be_observed(observed);
    loop {
        if stop.load(Ordering::Relaxed) {
            shard.stop();
        }
        if shard.turn() == Status::Stopped {
            return Ok(());
        }
        if shard.has_just_opened() {
            let _ = news.send(News::Open);
        }
    }
}

/// Prints what is in data directory `dir`.
pub fn inspect(inspection: Inspection) -> Result<(), Failure> {
    let (mut out, mut talk) = (BufWriter::new(std::io::stdout().lock()), std::io::stderr().lock());
    let inspection = Inspection { progress: std::io::stderr().is_terminal(), ..inspection };
    let path = inspection.path.display();
    match millrace_inspect::run(&inspection, &mut out, &mut talk) {
        Ok(Outcome::Clean) => Ok(()),
        Ok(outcome @ Outcome::Torn) => Err(Failure::Found(outcome.exit_code(), format!("{path} has a torn end, which a start cuts off"))),
        Ok(outcome @ Outcome::Damaged) => {
            Err(Failure::Found(outcome.exit_code(), format!("{path} is damaged; what and where is said above")))
        }
        Err(InspectError::Usage(text)) => Err(Failure::Usage(text)),
        Err(error) => Err(Failure::Run(error.to_string())),
    }
}
