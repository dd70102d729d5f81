//! One node in a world: the production broker, Kafka front included, on simulated drivers.
//!
//! 1. A start does what the binary does: drivers with their listeners, boot on the node's disk, lanes, a shard per driver.
//! 2. The harness runs the shards that the world names; [`Cluster::turn`] is one turn of one of them.
//! 3. A kill or a power cut drops everything but the disk; a start may then have another number of shards.
//!
//! Invariants: a node that is down has no shard and no lock; the address stays the same.

use millrace_base::fault::Fault;
use millrace_base::prng::Prng;
use millrace_base::settings::{Given, Settings};
use millrace_io::sim::{Loss, ShardId, SimDisk, World};
use millrace_io::{Doorbell, Driver};
use millrace_kafka::front::KafkaFront;
use millrace_kafka::listener::Advertised;
use millrace_log::journal::Options;
use millrace_shard::boot::{self, BootError, Plan};
use millrace_shard::memory::Shares;
use millrace_shard::recover::{Accept, RecoverError, Report, recover};
use millrace_shard::shard::{FrontSetup, Shard, Status};
use millrace_shard::{Routes, lanes};
use millrace_state::meta::Listener;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The world's number of the node.
pub const NODE: u32 = 1;

const NAME: &str = "PLAINTEXT";

/// How a node is made.
#[derive(Clone, Debug)]
pub struct Config {
    pub shards: u16,
    pub directories: usize,
    pub journal: Options,
    pub memory_bytes: usize,
    /// Descriptors of all shards; None: no bound.
    pub files_max: Option<u64>,
    /// `key=value`
    pub settings: Vec<String>,
}

/// Why a node does not start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub what: String,
    /// What is on the disk is not what should be there.
    pub is_damage: bool,
}

impl From<&BootError> for Refused {
    fn from(error: &BootError) -> Refused {
        Refused { what: error.to_string(), is_damage: error.fault() == Fault::Corrupt }
    }
}

pub struct Cluster {
    world: World,
    config: Config,
    prng: Prng,
    shards: BTreeMap<ShardId, Shard>,
    /// Holds the locks of the data directories.
    disk: Option<SimDisk>,
}

impl Cluster {
    pub fn new(world: &World, config: Config) -> Cluster {
        Cluster { world: world.clone(), config, prng: world.prng(), shards: BTreeMap::new(), disk: None }
    }

    pub fn address() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 9092))
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn directory(index: usize) -> PathBuf {
        PathBuf::from(format!("/data/{index}"))
    }

    pub fn is_up(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Whether every shard accepts connections.
    pub fn is_open(&self) -> bool {
        self.is_up() && self.shards.values().all(Shard::is_open)
    }

    /// Starts the node with so many shards.
    ///
    /// # Errors
    /// What boot says; the node is down.
    pub fn start(&mut self, shards: u16) -> Result<(), Refused> {
        assert!(!self.is_up());
        self.config.shards = shards;
        let mut drivers = Vec::new();
        for _ in 0..shards {
            let mut driver = self.world.driver(NODE);
            let (listener, _) =
                driver.listen(Cluster::address(), true).map_err(|error| Refused { what: error.to_string(), is_damage: false })?;
            drivers.push((driver, listener));
        }
        let doorbells: Vec<Doorbell> = drivers.iter().map(|(driver, _)| driver.doorbell()).collect();
        let mut disk = self.world.disk(NODE);
        let settings = self.settings();
        let (host, port) = (Cluster::address().ip().to_string(), Cluster::address().port());
        let plan = self.plan();
        let prng = &mut self.prng;
        let booted = boot::boot(&mut disk, plan, &mut || prng.next_u64()).map_err(|error: BootError| Refused::from(&error))?;
        booted.notes.iter().for_each(|note| log::info!("{note}"));
        let mut made = BTreeMap::new();
        for ((boot, lanes), (driver, listener)) in booted.shards.into_iter().zip(lanes(shards)).zip(drivers) {
            let (id, here) = (driver.shard(), boot.here);
            let routes = Routes::new(here, lanes, doorbells.clone());
            let advertised = vec![Advertised { name: NAME.to_owned(), host: host.clone(), port }];
            let front = KafkaFront::new(advertised, &settings, shards);
            let fronts = vec![FrontSetup { front: Box::new(front), listeners: vec![listener] }];
            let mut shard = Shard::new(Box::new(driver), boot, routes, fronts)
                .map_err(|error| Refused { what: format!("shard {here}: {error}"), is_damage: false })?;
            self.config.files_max.into_iter().for_each(|files_max| shard.bound_files(files_max));
            made.insert(id, shard);
        }
        self.shards = made;
        self.disk = Some(disk);
        Ok(())
    }

    fn plan(&self) -> Plan {
        let (host, port) = (Cluster::address().ip().to_string(), Cluster::address().port());
        Plan {
            settings: self.settings(),
            directories: (0..self.config.directories).map(Cluster::directory).collect(),
            shards: self.config.shards,
            listeners: vec![Listener { name: NAME.to_owned(), host, port }],
            memory_bytes: self.config.memory_bytes,
            journal: Some(self.config.journal),
        }
    }

    /// What `millrace recover` does, on a node that is down.
    ///
    /// # Errors
    /// What it ends with.
    pub fn recover(&mut self, accept: &Accept) -> Result<Report, RecoverError> {
        assert!(!self.is_up());
        let (mut disk, plan, prng) = (self.world.disk(NODE), self.plan(), &mut self.prng);
        recover(&mut disk, &plan, accept, &mut || prng.next_u64())
    }

    fn settings(&self) -> Settings {
        let given = self.config.settings.iter().map(|pair| Given::from_pair(pair, "the seed").expect("the harness writes key=value"));
        Settings::new(given).expect("the harness knows the settings")
    }

    /// One turn of a shard; a shard that has stopped is gone.
    pub fn turn(&mut self, shard: ShardId) {
        if let Some(found) = self.shards.get_mut(&shard)
            && found.turn() == Status::Stopped
        {
            self.shards.remove(&shard);
            if self.shards.is_empty() {
                self.disk = None;
            }
        }
    }

    /// The memory of each shard.
    pub fn memory(&self) -> Vec<Shares> {
        self.shards.values().map(|shard| shard.memory().clone()).collect()
    }

    /// How many times all shards wait for.
    pub fn timers(&self) -> usize {
        self.shards.values().map(Shard::timers).sum()
    }

    /// Asks for a clean stop; it is over when the node is not up any more.
    pub fn stop(&mut self) {
        self.shards.values_mut().for_each(Shard::stop);
    }

    pub fn kill(&mut self) {
        self.world.kill(NODE);
        self.drop_all();
    }

    pub fn cut_power(&mut self, loss: Loss) {
        self.world.cut_power(NODE, loss);
        self.drop_all();
    }

    fn drop_all(&mut self) {
        self.shards.clear();
        self.disk = None;
    }
}
