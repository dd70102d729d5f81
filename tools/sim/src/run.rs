//! One seed: a node, its clients, what happens to them, and the verdict.
//!
//! 1. The seed draws the world's oddness, the node's sizes, the clients, and which kinds of harm there are at all (swarm).
//! 2. Safety: rounds of load, each ending in a kill, a power cut, a clean stop, a failing or a full disk, or minutes without a client; the
//!    node starts again, with another number of shards sometimes.
//! 3. Liveness: everything is healed, the node is up; every client must bring what it has begun to its end in bounded virtual time, and
//!    every reader must come to the end of what was written.
//! 4. A scan reads all that is left, the data directories are looked at, and the checker judges the whole history.
//!
//! Invariants: the same seed gives the same trace and the same history.

pub mod cuts;

use crate::checker::{self, Rule};
use crate::client::{Admin, Client, FetchStyle, Named, Probe, Producer, Reader, Scanner, Shared, Style, Team, Times};
use crate::cluster::{Cluster, Config, NODE, Refused};
use crate::history::{Event, History, Partition};
use millrace_base::clock::Nanos;
use millrace_base::ids::{META_PARTITION, Uuid};
use millrace_base::prng::Prng;
use millrace_io::sim::{Fault, Loss, On, Rates, SimDriver, World, Wrong};
use millrace_io::{Disk, Driver, Wait};
use millrace_log::journal::Options;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

const MS: u64 = 1_000_000;

/// The world's number of the node that no broker runs on.
const CLOCK: u32 = 99;

/// How long all clients may take to end what they have begun, once everything is healed.
const HEALED_MS: u64 = 30_000;

/// How long partitions of a healthy data directory may take for a write each while another one fails.
const BESIDE_MS: u64 = 10_000;

/// How long files of what is gone may stay, and retention may take to say that they are.
const LEFTOVER_MS: u64 = 2_000;

/// Longer than a fetch session must be idle to be evicted.
const PAUSE_MS: u64 = 125_000;

/// How far the clock is set off at most, either way: less than half the day after which a producer that says nothing is forgotten.
const CLOCK_OFF_MS: i64 = 10 * 3_600_000;

/// How long a start may take until connections are accepted.
const OPEN_MS: u64 = 30_000;

/// What may happen to a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Harm {
    Kill,
    PowerCut,
    Stop,
    /// A write or sync in a data directory fails; the node is killed or loses its power then.
    Broken,
    /// The disk is full for a while, or one data directory of two.
    Full,
    /// Nobody says anything for minutes.
    Pause,
    /// Somebody sets the node's clock.
    Clock,
}

/// Bounds of a run.
#[derive(Clone, Debug)]
pub struct Scale {
    pub rounds: u64,
    pub round_ms: u64,
    pub harms: Vec<Harm>,
    /// Few clients, small records, one data directory, and topics that stay as they were made.
    pub is_small: bool,
}

impl Scale {
    pub const ALL: [Harm; 7] = [Harm::Kill, Harm::PowerCut, Harm::Stop, Harm::Broken, Harm::Full, Harm::Pause, Harm::Clock];

    /// For a run among hundreds.
    pub fn short() -> Scale {
        Scale { rounds: 4, round_ms: 450, harms: Scale::ALL.to_vec(), is_small: false }
    }

    /// For a run of which every moment is looked at.
    pub fn small() -> Scale {
        Scale { rounds: 2, round_ms: 60, harms: vec![Harm::Kill, Harm::PowerCut, Harm::Stop], is_small: true }
    }

    pub fn with(harms: &[Harm]) -> Scale {
        Scale { harms: harms.to_vec(), ..Scale::short() }
    }
}

/// What a run was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub trace: u64,
    pub history: usize,
    pub acknowledged: u64,
    pub read: u64,
    pub harms: BTreeMap<Harm, u64>,
    pub virtual_ms: u64,
    /// What clients met, and how often.
    pub seen: BTreeMap<&'static str, u64>,
}

/// The check that a run did not pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    /// The checker's.
    Rule(Rule),
    /// The node starts, opens and stops in bounded time.
    Start,
    /// When all is healed, everybody comes to an end in bounded time.
    Progress,
    /// The assertions in the broker and the harness.
    Assertion,
}

/// One thing that a check found.
#[derive(Clone, Debug)]
pub struct Found {
    pub check: Check,
    pub what: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.check {
            Check::Rule(rule) => write!(f, "{rule:?}: {}", self.what),
            check => write!(f, "{check:?}: {}", self.what),
        }
    }
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub found: Vec<Found>,
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} failed; alone: MILLRACE_SEED={} cargo test -p millrace-sim --test one_seed -- --nocapture",
            self.seed, self.seed
        )?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        self.found.iter().take(12).try_for_each(|found| writeln!(f, "  ! {found}"))?;
        if self.found.len() > 12 { writeln!(f, "  ! and {} more", self.found.len() - 12) } else { Ok(()) }
    }
}

/// Runs one seed.
///
/// # Errors
/// What the checker found, or that something did not come to its end.
pub fn run(seed: u64, scale: &Scale) -> Result<Report, Box<Failure>> {
    let mut run = Run::new(seed, scale);
    let result = catch_unwind(AssertUnwindSafe(|| run.all(scale)));
    let result = result.unwrap_or_else(|panic| Err(vec![Found { check: Check::Assertion, what: message(&*panic) }]));
    // Whatever ended the run, its history is judged.
    let violations = checker::check(&run.shared.history).into_iter();
    let violations = violations.map(|violation| Found { check: Check::Rule(violation.rule), what: violation.what });
    let found: Vec<Found> = result.err().into_iter().flatten().chain(violations).collect();
    if found.is_empty() { Ok(run.report()) } else { Err(Box::new(Failure { seed, found, story: run.story })) }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without words").to_owned()
}

struct Run {
    prng: Prng,
    shared: Shared,
    cluster: Cluster,
    /// A driver of no node, which lets time stop where a client wants it.
    clock: SimDriver,
    producers: Vec<Producer>,
    readers: Vec<Reader>,
    teams: Vec<Team>,
    admin: Admin,
    probe: Option<Probe>,
    probed: u32,
    scanner: Option<Scanner>,
    /// Clients say nothing.
    paused: bool,
    story: Vec<String>,
    harms: BTreeMap<Harm, u64>,
    /// How far the clock is off what it began with.
    clock_off_ms: i64,
    /// Times, and how many events there were by then; None: nobody wants to know.
    marks: Option<Vec<(u64, usize)>>,
}

impl Run {
    fn new(seed: u64, scale: &Scale) -> Run {
        let mut prng = Prng::new(seed ^ 0x5eed_0f5e_ed00_0000);
        let rates = if prng.one_in(5) { Rates::CALM } else { Rates::default() };
        let world = World::new(seed, rates);
        let mut config = draw_config(&mut prng);
        if scale.is_small {
            config.directories = 1;
            config.journal = journal_of(256 << 10, 3);
        }
        let mut topics = Vec::new();
        for number in 0..1 + prng.below(2) {
            topics.push((format!("topic-{number}"), 1 + prng.below(4) as i32, draw_topic(&mut prng)));
        }
        let by_broker = |(_, _, configs): &&(String, i32, Vec<(String, String)>)| configs.iter().any(|(_, value)| value == "LogAppendTime");
        let append_time = topics.iter().filter(by_broker).map(|(name, ..)| name.clone()).collect();
        let names: Vec<String> = topics.iter().map(|(name, ..)| name.clone()).collect();
        let partitions: Vec<Partition> =
            topics.iter().flat_map(|(name, count, _)| (0..*count).map(|index| (name.clone(), index))).collect();
        let some = |prng: &mut Prng| -> Vec<Partition> {
            // One partition alone: its connection moves to the shard that owns it.
            let alone = prng.one_in(4);
            let some: Vec<Partition> = partitions.iter().filter(|_| prng.one_in(2)).cloned().collect();
            if alone || some.is_empty() { vec![partitions[prng.below(partitions.len() as u64) as usize].clone()] } else { some }
        };
        let big = prng.one_in(3) && !scale.is_small;
        let producers = (1..=if scale.is_small { 2 } else { 2 + prng.below(4) as u32 })
            .map(|number| {
                let idempotent = !prng.one_in(3);
                let without_answer = !idempotent && prng.one_in(5);
                let style = Style {
                    idempotent,
                    in_flight_max: 1 + prng.below(5) as usize,
                    records_max: 1 + prng.below(20),
                    record_bytes_max: if big { 12_000 } else { 1_500 },
                    pause_ms: 1 + prng.below(20),
                    acks: if without_answer { 0 } else { [-1, 1][usize::from(prng.one_in(6))] },
                    version: [9, 11, 13][prng.below(3) as usize],
                    compresses: prng.one_in(3),
                    times: [Times::Present, Times::Past, Times::Future][if prng.one_in(4) { 1 + prng.below(2) as usize } else { 0 }],
                    breaks_one_in: if prng.one_in(3) { 5 + prng.below(200) } else { 0 },
                };
                let partitions = some(&mut prng);
                Producer::new(number, style, partitions, prng.fork())
            })
            .collect();
        let (readers, teams) = (1 + prng.below(3) as u32, prng.below(3) as u32 / 2 + prng.below(2) as u32);
        let reader = |number| {
            let (style, partitions) = (FetchStyle::draw(&mut prng), some(&mut prng));
            Reader::new(number, style, partitions, prng.fork())
        };
        let readers = (1..=readers).map(reader).collect();
        let team = |number| {
            let members = 1 + prng.below(3) as u32;
            let session_ms = 300 + prng.below(1_500);
            Team::new(number, names.clone(), members, session_ms, &mut prng)
        };
        let teams = (1..=teams).map(team).collect();
        let pause_ms = if scale.is_small { 10 } else { 50 + prng.below(400) };
        let admin = Admin::new(1000, topics, pause_ms, scale.is_small, prng.fork());
        let mut run = Run::bare(world, config, admin);
        run.story.insert(0, format!("{rates:?}"));
        run.shared.append_time = append_time;
        Run { prng, producers, readers, teams, ..run }
    }

    /// Without clients, but for one.
    fn bare(world: World, config: Config, admin: Admin) -> Run {
        let shared = Shared {
            world: world.clone(),
            history: History::default(),
            high: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            producer_ids: Default::default(),
            topics: BTreeMap::new(),
            partitions: BTreeMap::new(),
            append_time: Default::default(),
            seen: BTreeMap::new(),
            finishing: false,
            written_at: None,
        };
        Run {
            prng: world.prng(),
            shared,
            story: vec![format!("{config:?}")],
            cluster: Cluster::new(&world, config),
            clock: world.driver(CLOCK),
            producers: Vec::new(),
            readers: Vec::new(),
            teams: Vec::new(),
            admin,
            probe: None,
            probed: 0,
            scanner: None,
            paused: false,
            harms: BTreeMap::new(),
            clock_off_ms: 0,
            marks: None,
        }
    }

    fn tell(&mut self, what: String) {
        let ms = self.shared.now() / MS;
        log::info!("{ms} ms: {what}");
        self.story.push(format!("{ms} ms: {what}"));
    }

    /// Runs until `limit` or until `done`; whether it is done.
    fn until(&mut self, limit: u64, mut done: impl FnMut(&Run) -> bool) -> bool {
        let (mut wake, mut outside) = (0, None);
        loop {
            if done(self) {
                return true;
            }
            let now = self.shared.now();
            if now >= limit {
                return false;
            }
            // Clients are looked at when something has come for one of them, and when one of them wants to act.
            if now >= wake || outside != Some(self.shared.world.outside()) {
                wake = self.step_clients().clamp(now + 1_000, limit.max(now + 1_000));
                outside = Some(self.shared.world.outside());
                if let Some(marks) = &mut self.marks {
                    marks.push((now, self.shared.history.events.len()));
                }
            }
            self.clock.poll(Wait::Until(Nanos(wake)), &mut Vec::new());
            let runnable = self.shared.world.runnable();
            if runnable.is_empty() {
                self.shared.world.step();
            }
            for shard in runnable {
                self.cluster.turn(shard);
            }
        }
    }

    fn step_clients(&mut self) -> u64 {
        let shared = &mut self.shared;
        if self.paused {
            return u64::MAX;
        }
        let mut wake = self.admin.step(shared);
        for producer in &mut self.producers {
            wake = wake.min(producer.step(shared));
        }
        if shared.finishing && shared.written_at.is_none() && self.admin.is_done() && self.producers.iter().all(Client::is_done) {
            shared.written_at = Some(shared.now());
        }
        for reader in &mut self.readers {
            wake = wake.min(reader.step(shared));
        }
        for team in &mut self.teams {
            wake = wake.min(team.step(shared));
        }
        if let Some(probe) = &mut self.probe {
            wake = wake.min(probe.step(shared));
        }
        if let Some(scanner) = &mut self.scanner {
            wake = wake.min(scanner.step(shared));
        }
        wake
    }

    fn start(&mut self) -> Result<(), Vec<Found>> {
        let shards = 1 + self.prng.below(3) as u16;
        let shards = if self.prng.one_in(3) { shards } else { self.cluster.config().shards };
        self.tell(format!("start with {shards} shards"));
        self.cluster.start(shards).map_err(|Refused { what, is_damage }| {
            // Nothing in a run damages what is on the disk.
            let check = if is_damage { Check::Rule(Rule::Damage) } else { Check::Start };
            vec![Found { check, what }]
        })?;
        let limit = self.shared.now() + OPEN_MS * MS;
        if self.until(limit, |run| run.cluster.is_open()) { Ok(()) } else { Err(late("the node does not open")) }
    }

    fn all(&mut self, scale: &Scale) -> Result<(), Vec<Found>> {
        self.begin(scale)?;
        self.finish()
    }

    /// Everything but the end.
    fn begin(&mut self, scale: &Scale) -> Result<(), Vec<Found>> {
        let (at, ahead_ms) = (self.shared.now(), self.shared.ahead_ms());
        self.shared.history.push(Event::Clock { at, ahead_ms });
        self.start()?;
        // A swarm: not every seed knows every kind of harm.
        let known: Vec<Harm> = scale.harms.iter().copied().filter(|_| !self.prng.one_in(3)).collect();
        let known = if known.is_empty() { scale.harms.clone() } else { known };
        for _ in 0..scale.rounds {
            let limit = self.shared.now() + (20 + self.prng.below(2 * scale.round_ms)) * MS;
            self.until(limit, |_| false);
            let harm = known[self.prng.below(known.len() as u64) as usize];
            *self.harms.entry(harm).or_default() += 1;
            self.harm(harm)?;
            self.shared.world.heal(NODE);
            if !self.cluster.is_up() {
                self.start()?;
            }
        }
        Ok(())
    }

    fn harm(&mut self, harm: Harm) -> Result<(), Vec<Found>> {
        self.tell(format!("{harm:?}"));
        match harm {
            Harm::Kill => {
                self.kill();
                if self.prng.one_in(3) {
                    // What the process left in the device's cache alone was served since.
                    self.start()?;
                    let limit = self.shared.now() + self.prng.below(60) * MS;
                    self.until(limit, |_| false);
                    self.cut_power();
                }
            }
            Harm::PowerCut => self.cut_power(),
            Harm::Stop => {
                self.cluster.stop();
                let limit = self.shared.now() + OPEN_MS * MS;
                if !self.until(limit, |run| !run.cluster.is_up()) {
                    return Err(late("the node does not stop"));
                }
                self.is_down();
            }
            Harm::Pause => {
                self.paused = true;
                let limit = self.shared.now() + PAUSE_MS * MS;
                self.until(limit, |_| false);
                self.paused = false;
            }
            Harm::Clock => {
                let most = [100, 5_000, 60_000, CLOCK_OFF_MS][self.prng.below(4) as usize];
                let wanted = self.prng.below(2 * most as u64) as i64 - most;
                self.set_clock(wanted);
                let limit = self.shared.now() + self.prng.below(1_500) * MS;
                self.until(limit, |_| false);
            }
            Harm::Broken => {
                let directory = self.prng.below(self.cluster.config().directories as u64) as usize;
                let path = format!("{}/", Cluster::directory(directory).display());
                let path = if self.prng.one_in(2) { format!("{path}journal") } else { path };
                let on = if self.prng.one_in(2) { On::Sync } else { On::Write };
                let after = self.prng.below(40) as u32;
                let times = if self.prng.one_in(2) { 1 } else { u32::MAX };
                // The first data directory has replica set 0: its loss is the node's.
                let is_beside = directory > 0 && self.begin_probe(directory);
                self.tell(format!("{on:?} fails in {path} after {after}, {times} times"));
                self.shared.world.add_fault(NODE, Fault { path, on, after, times, wrong: Wrong::Error(5) });
                let limit = self.shared.now() + self.prng.below(800) * MS;
                self.until(limit, |_| false);
                if is_beside {
                    self.end_probe();
                }
                self.shared.world.heal(NODE);
                // A sync that failed has lost what it was to cover: only the power cut shows it.
                self.cut_power();
            }
            Harm::Full => {
                let room = self.prng.below(200_000);
                // Of two data directories one may stand alone; which one hangs on the room, so that other seeds stay as they were.
                let alone = if self.cluster.config().directories > 1 { [None, None, Some(0), Some(1)][room as usize % 4] } else { None };
                let folder = alone.map_or_else(|| PathBuf::from("/"), Cluster::directory);
                let is_beside = alone.is_some_and(|directory| self.begin_probe(directory));
                self.tell(format!("{} has room for {room} bytes", folder.display()));
                let used = used(&mut self.shared.world.disk(NODE), &folder);
                self.shared.world.set_capacity(NODE, &folder, Some(used + room));
                let limit = self.shared.now() + self.prng.below(1_500) * MS;
                self.until(limit, |_| false);
                if is_beside {
                    self.end_probe();
                }
                if self.prng.one_in(3) {
                    self.tell("kill".to_owned());
                    self.kill();
                }
            }
        }
        Ok(())
    }

    /// Sets the clock so many milliseconds off what it began with.
    fn set_clock(&mut self, off_ms: i64) {
        self.tell(format!("the clock is {off_ms} ms off"));
        let ahead = self.shared.ahead_ms();
        self.shared.world.step_wall(NODE, off_ms - self.clock_off_ms);
        let ahead_ms = ahead + off_ms - self.clock_off_ms;
        self.clock_off_ms = off_ms;
        self.shared.history.push(Event::Clock { at: self.shared.now(), ahead_ms });
    }

    fn kill(&mut self) {
        self.cluster.kill();
        self.is_down();
    }

    fn is_down(&mut self) {
        let at = self.shared.now();
        self.shared.history.push(Event::Down { at });
    }

    /// All partitions of the main topics.
    fn partitions(&self) -> Vec<Partition> {
        let of = |(name, count): (&String, &i32)| (0..*count).map(|index| (name.clone(), index)).collect::<Vec<_>>();
        self.shared.partitions.iter().flat_map(of).collect()
    }

    /// All that commit offsets.
    fn groups(&self) -> Vec<String> {
        self.readers.iter().map(Reader::group).chain(self.teams.iter().map(Team::group)).map(ToOwned::to_owned).collect()
    }

    /// A probe that knows which partitions lie beside a data directory.
    fn begin_probe(&mut self, directory: usize) -> bool {
        let path = Cluster::directory(directory).display().to_string();
        self.probe = Some(Probe::new(900, path, self.partitions(), self.probed));
        let limit = self.shared.now() + BESIDE_MS * MS;
        let knows = self.until(limit, |run| run.probe.as_ref().is_some_and(Probe::knows));
        if let Some(probe) = self.probe.as_mut().filter(|_| knows) {
            probe.go();
        }
        knows
    }

    fn end_probe(&mut self) {
        let limit = self.shared.now() + BESIDE_MS * MS;
        self.until(limit, |run| run.probe.as_ref().is_none_or(Client::is_done));
        if let Some(probe) = self.probe.take() {
            if !probe.is_done() {
                self.tell(probe.state());
            }
            self.probed = probe.end(&mut self.shared);
        }
    }

    fn cut_power(&mut self) {
        let loss = [Loss::Seeded, Loss::Seeded, Loss::All, Loss::Nothing, Loss::Suffix, Loss::TornLast][self.prng.below(6) as usize];
        self.tell(format!("power cut, {loss:?}"));
        self.cluster.cut_power(loss);
        self.is_down();
    }

    fn finish(&mut self) -> Result<(), Vec<Found>> {
        self.tell("healed".to_owned());
        self.shared.world.set_rates(Rates::CALM);
        let limit = self.shared.now() + 300 * MS;
        self.until(limit, |_| false);
        self.shared.finishing = true;
        let limit = self.shared.now() + HEALED_MS * MS;
        let quiet = |run: &Run| run.clients().all(Client::is_done);
        if !self.until(limit, quiet) {
            return Err(self.stuck());
        }
        let own = |(topic, count): &(Named, i32)| {
            let of = |index| ((topic.name.clone(), index), (topic.known_as.clone(), index));
            (0..*count).map(of).collect::<Vec<_>>()
        };
        let main = self.partitions().into_iter().map(|partition| (partition.clone(), partition));
        let scanned = main.chain(self.admin.own().flat_map(own)).collect();
        self.scanner = Some(Scanner::new(scanned, self.groups(), self.partitions()));
        let limit = self.shared.now() + HEALED_MS * MS;
        if !self.until(limit, |run| run.scanner.as_ref().is_some_and(Client::is_done)) {
            return Err(self.stuck());
        }
        let limit = self.shared.now() + LEFTOVER_MS * MS;
        self.until(limit, |_| false);
        self.look_at_files();
        Ok(())
    }

    /// What lies in the data directories.
    fn look_at_files(&mut self) {
        let Some(Scanner { topics, starts, .. }) = &self.scanner else { return };
        let at = self.shared.now();
        self.shared.history.events.extend(self.admin.kept());
        let mut disk = self.shared.world.disk(NODE);
        let mut found = Vec::new();
        for directory in (0..self.cluster.config().directories).map(Cluster::directory) {
            for topic in disk.list(&directory).unwrap_or_default() {
                // Not the journal, whose the directory is, and what no client is told of: replica set 0.
                if topic.name.parse::<Uuid>().is_ok_and(|id| id != META_PARTITION.topic) {
                    found.push(topic.name.clone());
                }
                let Some(name) = topics.get(&topic.name) else { continue };
                for folder in disk.list(&directory.join(&topic.name)).unwrap_or_default() {
                    let partition = (name.clone(), folder.name.parse().unwrap_or(-1));
                    let Some(log_start) = starts.get(&partition).copied() else { continue };
                    let files = disk.list(&directory.join(&topic.name).join(&folder.name)).unwrap_or_default();
                    let base = |name: &str| name.strip_suffix(".log").and_then(|base| base.parse::<i64>().ok());
                    let mut bases: Vec<(i64, u64)> = files.iter().filter_map(|file| Some((base(&file.name)?, file.len))).collect();
                    bases.sort_unstable();
                    for ((base, bytes), (next, _)) in bases.iter().copied().zip(bases.iter().copied().skip(1)) {
                        self.shared.history.push(Event::Segment { at, partition: partition.clone(), base, next, bytes, log_start });
                    }
                }
            }
        }
        let topics = topics.keys().cloned().collect();
        self.shared.history.push(Event::Folders { found, topics });
    }

    fn clients(&self) -> impl Iterator<Item = &dyn Client> {
        let producers = self.producers.iter().map(|client| client as &dyn Client);
        let readers = self.readers.iter().map(|client| client as &dyn Client);
        let teams = self.teams.iter().map(|client| client as &dyn Client);
        producers.chain(readers).chain(teams).chain([&self.admin as &dyn Client])
    }

    fn stuck(&self) -> Vec<Found> {
        let clients = self.clients().chain(self.scanner.iter().map(|client| client as &dyn Client));
        let stuck = clients.filter(|client| !client.is_done());
        stuck.map(|client| Found { check: Check::Progress, what: client.state() }).collect()
    }

    fn report(&self) -> Report {
        Report {
            trace: self.shared.world.trace(),
            history: self.shared.history.events.len(),
            acknowledged: self.producers.iter().map(Producer::acknowledged).sum(),
            read: self.readers.iter().map(Reader::records).sum::<u64>() + self.teams.iter().map(Team::records).sum::<u64>(),
            harms: self.harms.clone(),
            virtual_ms: self.shared.now() / MS,
            seen: self.shared.seen.clone(),
        }
    }
}

/// Bytes of the files below a folder.
fn used(disk: &mut dyn Disk, folder: &Path) -> u64 {
    let entries = disk.list(folder).unwrap_or_default();
    entries.iter().map(|entry| if entry.is_directory { used(disk, &folder.join(&entry.name)) } else { entry.len }).sum()
}

fn late(what: &str) -> Vec<Found> {
    vec![Found { check: Check::Start, what: what.to_owned() }]
}

fn journal_of(file_bytes: u64, files_max: u32) -> Options {
    let (entry_bytes_max, reserve_bytes) = ((file_bytes / 2) as usize, file_bytes / 4);
    Options { file_bytes, entry_bytes_max, files_first: 2, files_max, reserve_bytes }
}

fn draw_config(prng: &mut Prng) -> Config {
    let file_bytes = [256 << 10, 512 << 10, 1 << 20][prng.below(3) as usize];
    let journal = journal_of(file_bytes, 3 + prng.below(4) as u32);
    let mut settings = vec![
        "offsets.topic.num.partitions=3".to_owned(),
        "auto.create.topics.enable=false".to_owned(),
        format!("shard.spin.us={}", if prng.one_in(4) { 20 } else { 0 }),
        format!("log.retention.check.interval.ms={}", 50 + prng.below(1_000)),
        format!("max.incremental.fetch.session.cache.slots={}", [1, 2, 1000][prng.below(3) as usize]),
        format!("group.initial.rebalance.delay.ms={}", [0, 50, 300][prng.below(3) as usize]),
        "group.min.session.timeout.ms=100".to_owned(),
        "offset.metadata.max.bytes=32767".to_owned(),
        format!("log.message.timestamp.after.max.ms={}", i64::MAX),
    ];
    if prng.one_in(2) {
        settings.push(format!("queued.max.requests={}", 1 + prng.below(4)));
    }
    let direct = [4 << 10, 4 << 10, 32 << 10, 128 << 10][prng.below(4) as usize];
    settings.push(format!("journal.direct.append.min.bytes={direct}"));
    Config {
        shards: 1 + prng.below(3) as u16,
        directories: 1 + prng.below(2) as usize,
        journal,
        memory_bytes: [4 << 20, 16 << 20, 64 << 20][prng.below(3) as usize],
        files_max: None,
        settings,
    }
}

fn draw_topic(prng: &mut Prng) -> Vec<(String, String)> {
    let mut configs = vec![("segment.bytes".to_owned(), "1048576".to_owned())];
    if prng.one_in(2) {
        configs.push(("segment.ms".to_owned(), (50 + prng.below(2_000)).to_string()));
    }
    if prng.one_in(3) {
        configs.push(("retention.bytes".to_owned(), (200_000 + prng.below(2_000_000)).to_string()));
    }
    if prng.one_in(4) {
        configs.push(("retention.ms".to_owned(), (200 + prng.below(3_000)).to_string()));
    }
    if prng.one_in(3) {
        configs.push(("message.timestamp.type".to_owned(), "LogAppendTime".to_owned()));
    }
    if prng.one_in(2) {
        configs.push(("index.interval.bytes".to_owned(), (100 + prng.below(4_000)).to_string()));
    }
    configs
}
