//! Power cuts at every moment of a recorded run, and what a node makes of each disk that is left.
//!
//! 1. A small run is recorded: every change of the node's disk with its time, and how much of the history there was when.
//! 2. Just before each change the power goes. All that clients had seen by then stands in the history; of what was not durable every
//!    combination is kept once if there are few, and seeded ones if there are many.
//! 3. A node starts on each disk, a scan reads all logs and commits, and the checker judges the history.
//!
//! Invariants: a verdict hangs on the seed, the moment and the choice alone.

use super::{Check, Failure, Found, HEALED_MS, MS, Run, Scale, message};
use crate::checker;
use crate::client::{Admin, Client, Scanner};
use crate::cluster::{Config, NODE};
use crate::history::{Event, History, Partition};
use millrace_base::clock::WallMs;
use millrace_base::prng::Prng;
use millrace_io::sim::{CutDisk, Moment, Recording, World};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many of the disks that a moment may leave are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Breadth {
    /// Items, and writes, of which every combination is kept once, if there are no more.
    pub all_of: usize,
    /// Seeded choices beyond that.
    pub seeds: u64,
}

impl Breadth {
    /// For a run among others.
    pub const SHORT: Breadth = Breadth { all_of: 3, seeds: 3 };
    /// Every combination of up to twelve.
    pub const WHOLE: Breadth = Breadth { all_of: 12, seeds: 3 };
    /// The same, and many beyond.
    pub const LONG: Breadth = Breadth { all_of: 12, seeds: 64 };
}

/// Changes that are looked at together: neighbours leave the same disks.
const TOGETHER: usize = 64;

/// What was looked at.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cuts {
    pub moments: u64,
    pub images: u64,
    /// Disks that were left out, for the same one was looked at with the same history.
    pub again: u64,
    /// Moments of which every combination of items was looked at.
    pub whole: u64,
}

/// A run whose power can be cut at every moment.
pub struct Recorded {
    seed: u64,
    config: Config,
    recording: Recording,
    events: Vec<Event>,
    /// Times, and how many events there were by then.
    marks: Vec<(u64, usize)>,
    partitions: BTreeMap<String, i32>,
    append_time: BTreeSet<String>,
    groups: Vec<String>,
    /// Added to virtual milliseconds: the node's clock.
    wall: WallMs,
}

impl Recorded {
    /// Runs a seed, in a small form.
    ///
    /// # Errors
    /// The run itself failed.
    pub fn new(seed: u64) -> Result<Recorded, Box<Failure>> {
        let scale = Scale::small();
        let mut run = Run::new(seed, &scale);
        run.shared.world.record(NODE);
        run.marks = Some(Vec::new());
        let result = catch_unwind(AssertUnwindSafe(|| run.begin(&scale)));
        match result.unwrap_or_else(|panic| Err(vec![Found { check: Check::Assertion, what: message(&*panic) }])) {
            Ok(()) => {}
            Err(found) => return Err(Box::new(Failure { seed, found, story: run.story })),
        }
        let recording = run.shared.world.record(NODE).expect("it was asked for");
        let now = run.shared.now();
        Ok(Recorded {
            seed,
            config: run.cluster.config().clone(),
            recording,
            marks: run.marks.take().unwrap_or_default(),
            partitions: run.shared.partitions.clone(),
            append_time: run.shared.append_time.clone(),
            groups: run.groups(),
            wall: run.shared.world.wall(NODE) - (now / MS) as WallMs,
            events: std::mem::take(&mut run.shared.history.events),
        })
    }

    /// Changes of the disk.
    pub fn changes(&self) -> usize {
        self.recording.len()
    }

    /// Cuts the power before every change of some that follow on each other, the `first` such run of [`TOGETHER`] and each `stride` behind it.
    ///
    /// # Errors
    /// What the first disk is convicted of, of all that the moment leaves.
    pub fn cut(&self, breadth: Breadth, first: usize, stride: usize) -> Result<Cuts, Box<Failure>> {
        let (mut cuts, mut history) = (Cuts::default(), History::default());
        let mut looked = BTreeSet::new();
        for (at, moment) in self.recording.replay().enumerate().filter(|(at, _)| at / TOGETHER % stride == first) {
            let past = self.marks.partition_point(|(time, _)| *time < moment.time.0);
            let past = past.checked_sub(1).map_or(0, |mark| self.marks[mark].1);
            history.events.truncate(0);
            history.events.extend_from_slice(&self.events[..past]);
            history.push(Event::Down { at: moment.time.0 });
            let events = history.events.len();
            cuts.moments += 1;
            cuts.whole += u64::from(moment.items() <= breadth.all_of);
            for (what, disk) in choices(&moment, breadth) {
                if !looked.insert((past, disk.fingerprint())) {
                    cuts.again += 1;
                    continue;
                }
                cuts.images += 1;
                history = self.judge(&moment, disk, history).map_err(|(found, story)| {
                    let before = format!("seed {}, small: power cut before change {at} of {}: {what}", self.seed, self.recording.len());
                    Box::new(Failure { seed: self.seed, found, story: [vec![before], story].concat() })
                })?;
                history.events.truncate(events);
            }
        }
        Ok(cuts)
    }

    /// Gives the history back.
    fn judge(&self, moment: &Moment, disk: CutDisk, history: History) -> Result<History, (Vec<Found>, Vec<String>)> {
        let wall = self.wall + (moment.time.0 / MS) as WallMs;
        let world = World::after(self.seed, moment.time, NODE, disk, wall);
        let made = history.events.iter().filter_map(|event| if let Event::TopicMade { name } = event { Some(name.clone()) } else { None });
        let partitions: BTreeMap<String, i32> = made.filter_map(|name| Some((name.clone(), *self.partitions.get(&name)?))).collect();
        let mut run = Run::looking(world, self.config.clone(), history, partitions, self.append_time.clone());
        let result = catch_unwind(AssertUnwindSafe(|| run.look(self.groups.clone())));
        let result = result.unwrap_or_else(|panic| Err(vec![Found { check: Check::Assertion, what: message(&*panic) }]));
        let violations = checker::check(&run.shared.history).into_iter();
        let violations = violations.map(|violation| Found { check: Check::Rule(violation.rule), what: violation.what });
        let found: Vec<Found> = result.err().into_iter().flatten().chain(violations).collect();
        if found.is_empty() { Ok(std::mem::take(&mut run.shared.history)) } else { Err((found, std::mem::take(&mut run.story))) }
    }
}

/// The disks that are looked at, each with the choice that leaves it.
fn choices(moment: &Moment, breadth: Breadth) -> Box<dyn Iterator<Item = (String, CutDisk)> + '_> {
    let (items, writes) = (moment.items(), moment.writes());
    if items <= breadth.all_of {
        return Box::new((0..1 << items).map(move |kept| (format!("items {kept:b} of {items}"), moment.by_items(kept))));
    }
    let kept: Vec<u64> = if writes <= breadth.all_of { (0..1 << writes).collect() } else { vec![0, u64::MAX] };
    let by_writes = kept.into_iter().map(move |kept| (format!("writes {kept:b} of {writes}"), moment.by_writes(kept)));
    let mut prng = Prng::new(moment.time.0);
    let by_seed = (0..breadth.seeds).map(move |_| {
        let seed = prng.next_u64();
        (format!("{items} items by seed {seed}"), moment.by_seed(seed))
    });
    Box::new(by_writes.chain(by_seed))
}

impl Run {
    /// A run without load on a world that is there.
    fn looking(world: World, config: Config, history: History, partitions: BTreeMap<String, i32>, append_time: BTreeSet<String>) -> Run {
        let mut run = Run::bare(world, config, Admin::new(0, Vec::new(), 0, true, Prng::new(0)));
        (run.shared.history, run.shared.partitions, run.shared.append_time) = (history, partitions, append_time);
        run.shared.finishing = true;
        run
    }

    /// Starts the node and scans it.
    fn look(&mut self, groups: Vec<String>) -> Result<(), Vec<Found>> {
        self.start()?;
        let partitions: Vec<Partition> = self.partitions();
        let scanned = partitions.iter().map(|partition| (partition.clone(), partition.clone())).collect();
        self.scanner = Some(Scanner::new(scanned, groups, partitions));
        let limit = self.shared.now() + HEALED_MS * MS;
        let done = self.until(limit, |run| run.scanner.as_ref().is_some_and(Client::is_done));
        if done { Ok(()) } else { Err(self.stuck()) }
    }
}
