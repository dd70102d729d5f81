//! Giving up what damaged partitions have lost, before a start: which they are, what that would be, and doing it.
//!
//! 1. The data directories are locked and recovered as by a start, with the number of shards that they have; nothing is copied or made.
//! 2. What is intact of each damaged partition is what a start would serve. Where the journal cannot even say that, it is the intact front of
//!    its segments ([`longest`]), and where there is none, a log without records that goes on at the last offset known. Of replica set 0,
//!    which is served whole or not at all, what the segments hold is proved too when it cannot be replayed.
//! 3. To give up the rest, its journal is copied to `damaged/`, what is intact is settled in its segments, and one entry says that the
//!    partition as it was is gone and what it is now. Then the bytes behind its end are cut off and the files behind them removed.
//!
//! The offsets given up come again, under an epoch that no lost record can have: a reader that has seen one of them learns from the epochs
//! where its log ends, as after any truncation.
//!
//! Invariants: nothing of a partition changes before its damaged journal stands elsewhere, and nothing but its segments' pending bytes before
//! the journal states what it is now; replica set 0 is given up only by its name or with all.
//! Knows nothing of how it is asked and told.

use crate::boot::{self, BootError, Found, NotServed, PartitionBoot, PartitionFound, Plan};
use crate::claim::Claims;
use crate::intact::{self, longest};
use crate::rehome::{self, Settled, Stand};
use crate::{evidence, inventory, replay, settle};
use millrace_base::fault::Fault;
use millrace_base::ids::{META_PARTITION, PartitionId, ShardId, Uuid};
use millrace_base::limits::BLOCK;
use millrace_base::offset::{Epoch, Offset};
use millrace_io::{Disk, IoError, OpenHow, Pool};
use millrace_log::image::{Lost, Recovered as RecoveredImage};
use millrace_log::index::{Index, REBUILT_INTERVAL_BYTES, Summary};
use millrace_log::journal;
use millrace_log::partition_state::{Large, Note};
use millrace_log::paths::{self, Named};
use millrace_log::producers::Producers;
use millrace_log::segments::Segments;
use millrace_raftlog::{Configuration, History, Marks, Member, Start, State};
use millrace_state::meta::Meta;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// How replica set 0 is named.
pub const META_NAME: &str = "replica-set-0";

/// Where nothing tells the epochs of a lost log: more than it can have begun.
const EPOCH_JUMP: Epoch = 1 << 20;

/// What is given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Accept {
    Nothing,
    All,
    /// Of these partitions, `<topic>-<number>` or [`META_NAME`].
    Named(Vec<String>),
}

/// What a damaged partition has lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// `<topic>-<number>`, `<topic id>/<number>` when the topic's name is not known, or [`META_NAME`].
    pub name: String,
    pub directory: PathBuf,
    pub log_start: Offset,
    /// Records from this offset on are given up.
    pub from: Offset,
    /// The offset of the next record: the same, but where nothing is left it is the last that is known.
    pub next: Offset,
    /// The offset behind the last that is known to be lost; None: nothing tells how many there were.
    pub reached: Option<Offset>,
    /// Segments that are cut at a byte, and those that are removed.
    pub cut: Vec<(PathBuf, u64)>,
    pub removed: Vec<PathBuf>,
    /// What is known of idempotent producers is given up too: a batch that one of them sends again is appended again.
    pub producers: bool,
    pub reason: String,
    /// It was given up now.
    pub accepted: bool,
}

impl Loss {
    /// How many records are known to be lost.
    pub fn records(&self) -> Option<u64> {
        self.reached.map(|reached| reached.saturating_sub(self.from).unsigned_abs())
    }
}

/// All that was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// By name.
    pub losses: Vec<Loss>,
    /// Data directories that cannot be looked at, and why.
    pub unusable: Vec<(PathBuf, String)>,
}

/// Why nothing, or not all, was done.
#[derive(Debug)]
pub enum RecoverError {
    /// There is no such data directory, and it is the first.
    Absent {
        path: PathBuf,
    },
    /// A name that is not that of a damaged partition.
    NotDamaged {
        name: String,
        damaged: Vec<String>,
    },
    Boot(BootError),
    /// What was being done, and where.
    Io {
        what: &'static str,
        path: PathBuf,
        error: IoError,
    },
}

impl RecoverError {
    pub fn fault(&self) -> Fault {
        match self {
            RecoverError::Absent { .. } | RecoverError::NotDamaged { .. } => Fault::Refuse,
            RecoverError::Boot(error) => error.fault(),
            RecoverError::Io { .. } => Fault::Broken,
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(IoError) -> RecoverError + use<> {
        let path = path.to_owned();
        move |error| RecoverError::Io { what, path, error }
    }
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::Absent { path } => write!(f, "there is no data directory {}", path.display()),
            RecoverError::NotDamaged { name, damaged } if damaged.is_empty() => {
                write!(f, "{name} is not a damaged partition; none is")
            }
            RecoverError::NotDamaged { name, damaged } => {
                write!(f, "{name} is not a damaged partition; those are {}", damaged.join(", "))
            }
            RecoverError::Boot(error) => write!(f, "{error}"),
            RecoverError::Io { what, path, error } if error.is_full() => {
                write!(f, "cannot {what} {}: {error}; make room on its file system and recover again", path.display())
            }
            RecoverError::Io { what, path, error } => write!(f, "cannot {what} {}: {error}; recover again", path.display()),
        }
    }
}

impl std::error::Error for RecoverError {}

impl From<BootError> for RecoverError {
    fn from(error: BootError) -> RecoverError {
        RecoverError::Boot(error)
    }
}

/// A partition to be given up in part.
struct Damaged {
    id: PartitionId,
    directory: usize,
    found: PartitionFound,
}

/// Finds the damaged partitions of a node that does not run, and gives up what `accept` says.
///
/// # Errors
/// [`RecoverError`]. Of several partitions some may have been done: those are not found again.
pub fn recover(disk: &mut dyn Disk, plan: &Plan, accept: &Accept, entropy: &mut dyn FnMut() -> u64) -> Result<Report, RecoverError> {
    let mut report = Report::default();
    for (index, path) in plan.directories.iter().enumerate() {
        match disk.list(path) {
            Err(IoError::NOT_FOUND) if index == 0 => return Err(RecoverError::Absent { path: path.clone() }),
            Err(IoError::NOT_FOUND) => report.unusable.push((path.clone(), "it is not there".to_owned())),
            Ok(_) | Err(_) => {} // claiming it says more
        }
    }
    let mut claims = Claims::new(disk, plan, entropy)?;
    let mut found = Vec::new();
    for claim in &mut claims.list {
        found.push(claim.attempt(|path| look(disk, path))?);
    }
    let mut partitions: BTreeMap<PartitionId, PartitionBoot> = BTreeMap::new();
    for (index, (claim, found)) in claims.list.iter().zip(&mut found).enumerate() {
        let Some(found) = found else { continue };
        let pools = pools(found);
        for boot in boot::partitions_of(disk, &claim.path, found, index, &pools) {
            partitions.insert(boot.id, boot);
        }
    }
    claims.check_meta(partitions.get(&META_PARTITION).map(|partition| partition.directory), false)?;
    let replayed = match replay::replay_meta(disk, partitions.get(&META_PARTITION), &claims.list, true) {
        Err(error @ (BootError::Meta { .. } | BootError::Io { .. })) => {
            let Some(meta) = partitions.get_mut(&META_PARTITION) else { return Err(error.into()) };
            prove(disk, &claims.list[meta.directory].path, meta);
            replay::replay_meta(disk, partitions.get(&META_PARTITION), &claims.list, true)?
        }
        replayed => replayed?,
    };
    for (index, found) in found.iter().enumerate() {
        let Some(found) = found else { continue };
        let unnamed: Vec<BTreeMap<ShardId, String>> =
            (0..claims.list.len()).map(|at| if at == index { found.unnamed.clone() } else { BTreeMap::new() }).collect();
        for (id, directory, reason) in boot::may_have_been(&replayed.meta, &claims.list, &unnamed, shards(found)) {
            let lost = || PartitionBoot { id, directory, found: Err(NotServed::Lost(Note { end: 0, reason })) };
            partitions.entry(id).or_insert_with(lost);
        }
    }
    for (id, directory, reason) in boot::without_birth(disk, &replayed.meta, &claims.list, &partitions) {
        partitions.entry(id).or_insert_with(|| PartitionBoot { id, directory, found: Err(NotServed::Lost(Note { end: 0, reason })) });
    }
    let mut damaged = Vec::new();
    for partition in partitions.into_values().filter(|partition| !replayed.deleted.contains(&partition.id.topic)) {
        let claim = &claims.list[partition.directory];
        let folder = paths::partition(&claim.path, partition.id);
        let (found, is_told) = match partition.found {
            Ok(found) if found.damage.is_some() => (found, true),
            Ok(_) | Err(NotServed::Directory(_)) => continue,
            Err(NotServed::Damage(note) | NotServed::Lost(note)) => (salvage(disk, &folder, claim.id(), claims.node(), note)?, false),
        };
        report.losses.push(loss(disk, &replayed.meta, &claim.path, partition.id, &found, is_told)?);
        damaged.push(Damaged { id: partition.id, directory: partition.directory, found });
    }
    for claim in &claims.list {
        report.unusable.extend(claim.failure().map(|reason| (claim.path.clone(), reason.to_owned())));
    }
    let is_wanted = |name: &str| match accept {
        Accept::Nothing => false,
        Accept::All => true,
        Accept::Named(names) => names.iter().any(|wanted| wanted == name),
    };
    if let Accept::Named(names) = accept
        && let Some(name) = names.iter().find(|name| report.losses.iter().all(|loss| loss.name != **name))
    {
        let damaged = report.losses.iter().map(|loss| loss.name.clone()).collect();
        return Err(RecoverError::NotDamaged { name: name.clone(), damaged });
    }
    let mut wanted: BTreeMap<usize, Vec<(Damaged, &Loss)>> = BTreeMap::new();
    for (damaged, loss) in damaged.into_iter().zip(&report.losses).filter(|(_, loss)| is_wanted(&loss.name)) {
        wanted.entry(damaged.directory).or_default().push((damaged, loss));
    }
    for (directory, all) in wanted {
        let Some(found) = found[directory].as_mut() else { continue };
        give_up(disk, plan, &claims.list[directory].path, found, all, entropy)?;
    }
    for loss in &mut report.losses {
        loss.accepted = is_wanted(&loss.name);
    }
    report.losses.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(report)
}

fn look(disk: &mut dyn Disk, path: &Path) -> Result<Found, BootError> {
    rehome::finish(disk, path).map_err(BootError::io("finish moving the journals of", path))?;
    let found = boot::recover_directory(disk, path, &[Pool::new(0)], &mut Vec::new(), false)?;
    for (shard, recovered) in &found.journals {
        journal::confirm(disk, &paths::journal(path, *shard), recovered)?; // what comes next may cut and remove files by it
    }
    Ok(found)
}

/// A partition whose batches are not what they were, which no statement of the journal tells: what is intact of it. One whose batches are
/// intact stays as it is.
fn prove(disk: &mut dyn Disk, data: &Path, partition: &mut PartitionBoot) {
    let Ok(whole) = &partition.found else { return };
    let folder = paths::partition(data, partition.id);
    let Some(bad) = intact::first_bad(disk, &folder, &whole.segments) else { return };
    let damage = format!("{} holds a batch that is not intact", paths::segment(&folder, bad.base).display());
    let end = whole.image.log_end;
    let lost = |reason: String| Err(NotServed::Damage(Note { end, reason }));
    if let Ok(whole) = std::mem::replace(&mut partition.found, lost(damage.clone())) {
        partition.found = intact::prove(disk, &folder, whole, damage).or_else(lost);
    }
}

fn shards(found: &Found) -> u16 {
    found.journals.keys().next_back().map_or(1, |last| last + 1)
}

fn pools(found: &Found) -> Vec<Pool> {
    (0..shards(found)).map(|_| Pool::new(0)).collect()
}

/// What a start cannot serve: the intact batches at the front of its segments.
fn salvage(disk: &mut dyn Disk, folder: &Path, directory: Uuid, node: i32, note: Note) -> Result<PartitionFound, RecoverError> {
    let files = inventory::list_files(disk, folder).map_err(|reason| RecoverError::Boot(BootError::Meta { reason }))?;
    let bases: BTreeSet<Offset> =
        files.keys().filter_map(|name| if let Some(Named::Segment(base)) = paths::named(name) { Some(base) } else { None }).collect();
    let (mut closed, mut active): (Vec<Summary>, Option<Index>) = (Vec::new(), None);
    let mut producers = Producers::default();
    let mut starts: Vec<(Epoch, Offset)> = Vec::new();
    for base in bases {
        if active.as_ref().is_some_and(|before| before.summary().end != base) {
            break;
        }
        let index = longest(disk, &paths::segment(folder, base), base, Offset::MAX, |header, _| {
            producers.append(header, header.max_timestamp);
            if starts.last().is_none_or(|(epoch, _)| *epoch < header.epoch) {
                starts.push((header.epoch.max(0), header.base_offset));
            }
        });
        if index.summary().bytes == 0 {
            break;
        }
        closed.extend(active.replace(index).map(|before| *before.summary()));
    }
    let index = active.unwrap_or_else(|| Index::new(note.end, REBUILT_INTERVAL_BYTES));
    let facts = *index.summary();
    let begin = closed.first().map_or(facts.base, |first| first.base);
    producers.commit(facts.end);
    let configuration = || Configuration::sole(Member { node, disk: directory });
    let mut history =
        History::from_first(Start { epoch: starts.first().map_or(0, |(epoch, _)| *epoch), offset: begin, configuration: configuration() });
    for (epoch, offset) in starts.iter().skip(1) {
        history.extend(*offset);
        history.begin(Start { epoch: *epoch, offset: *offset, configuration: configuration() });
    }
    history.extend(facts.end);
    let term = history.last_epoch().saturating_add(EPOCH_JUMP);
    let consensus = State { term, vote: None, marks: Marks { log_start: begin, ..Marks::default() }, history };
    let part = inventory::active_part(disk, &paths::segment(folder, facts.base), facts.bytes)
        .map_err(|reason| RecoverError::Boot(BootError::Meta { reason }))?;
    let image = RecoveredImage {
        log_start: begin,
        durable_end: facts.end,
        log_end: facts.end,
        segment: facts.base,
        segment_bytes: facts.bytes,
        rolls: Vec::new(),
        consensus: Vec::new(),
        steps: Vec::new(),
        large: Large { index: index.clone(), producers },
        pending: Vec::new(),
        cut: None,
        state_file: None,
        extents_end: None,
        lost: Lost::default(),
        is_large_lost: false,
    };
    let segments = Segments::restore(closed, index).map_err(|error| RecoverError::Boot(BootError::Meta { reason: error.to_string() }))?;
    assert!(part.len() as u64 == facts.bytes % BLOCK as u64);
    Ok(PartitionFound { image, consensus, segments, part, oldest_sequence: 0, truncation: None, damage: Some(note), may_return: false })
}

/// What is given up with all that is not in `found`. `is_told`: the journal tells of it.
fn loss(
    disk: &mut dyn Disk,
    meta: &Meta,
    data: &Path,
    id: PartitionId,
    found: &PartitionFound,
    is_told: bool,
) -> Result<Loss, RecoverError> {
    let folder = paths::partition(data, id);
    let name = match meta.topic(id.topic) {
        _ if id == META_PARTITION => META_NAME.to_owned(),
        Some(topic) => format!("{}-{}", topic.name, id.index),
        None => id.to_string(),
    };
    let note = found.damage.clone().unwrap_or(Note { end: 0, reason: String::new() });
    let image = &found.image;
    let is_empty = image.log_end == image.log_start;
    let from = if !is_told && is_empty { 0 } else { image.log_end };
    let (cut, removed) = behind(disk, &folder, image)?;
    // Pending batches are to be in the segment before it is cut.
    let pending: u64 = image.pending.iter().map(|pending| pending.bytes.in_memory() as u64).sum();
    Ok(Loss {
        name,
        directory: data.to_owned(),
        log_start: image.log_start,
        from,
        next: image.log_end,
        reached: Some(note.end).filter(|end| *end > 0 && *end >= from),
        cut: cut.into_iter().map(|(path, bytes, _)| (path, bytes + pending)).collect(),
        removed,
        producers: !is_told || image.is_large_lost,
        reason: note.reason,
        accepted: false,
    })
}

/// Segments that are longer than what counts of them (what counts, and how long they are), and files that do not count.
#[expect(clippy::type_complexity, reason = "two lists")]
fn behind(disk: &mut dyn Disk, folder: &Path, image: &RecoveredImage) -> Result<(Vec<(PathBuf, u64, u64)>, Vec<PathBuf>), RecoverError> {
    let files = inventory::list_files(disk, folder).map_err(|reason| RecoverError::Boot(BootError::Meta { reason }))?;
    let (mut cut, mut removed) = (Vec::new(), Vec::new());
    for (name, len) in files {
        let path = folder.join(&name);
        match paths::named(&name) {
            Some(Named::Segment(base)) if base == image.segment && len > image.segment_bytes => cut.push((path, image.segment_bytes, len)),
            Some(Named::Segment(base)) if base > image.segment => removed.push(path),
            Some(Named::Index(base)) if base >= image.segment => removed.push(path),
            _ => {}
        }
    }
    Ok((cut, removed))
}

/// Gives up what is behind the intact end of partitions of one data directory.
fn give_up(
    disk: &mut dyn Disk,
    plan: &Plan,
    data: &Path,
    found: &mut Found,
    all: Vec<(Damaged, &Loss)>,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<(), RecoverError> {
    let count = shards(found);
    let mut by_shard: BTreeMap<ShardId, Vec<Damaged>> = BTreeMap::new();
    for (damaged, _) in all {
        by_shard.entry(damaged.id.shard(count)).or_default().push(damaged);
    }
    for (shard, all) in by_shard {
        if let Some(Some(first)) = found.unkept.get(&shard) {
            evidence::keep(disk, data, shard, *first).map_err(RecoverError::io("copy the damaged journal of", data))?;
        }
        let folder = paths::journal(data, shard);
        let pool = Pool::new(0);
        let recovered = match found.journals.remove(&shard) {
            Some(recovered) => recovered,
            None => journal::recover(disk, &folder, &pool, 0).map_err(BootError::from)?,
        };
        let mut journal =
            journal::prepare(disk, &folder, &recovered, entropy(), plan.journal.unwrap_or_else(|| boot::journal_options(plan)), &pool)
                .map_err(BootError::from)?;
        for mut damaged in all {
            let id = damaged.id;
            settle::settle(disk, data, id, &mut damaged.found).map_err(RecoverError::io("settle what is intact in", data))?;
            let settled = Settled { id, state: settle::state(&damaged.found), state_file: damaged.found.image.state_file };
            rehome::write_states(disk, data, &folder, &mut journal, &[settled], Stand::InPlace)
                .map_err(RecoverError::io("write to the journal in", &folder))?;
            cut(disk, &paths::partition(data, id), &damaged.found.image)?;
        }
    }
    Ok(())
}

/// The deed: what does not count goes. A start would pass it over, too.
fn cut(disk: &mut dyn Disk, folder: &Path, image: &RecoveredImage) -> Result<(), RecoverError> {
    let (cut, removed) = behind(disk, folder, image)?;
    for (path, bytes, _) in &cut {
        let file = disk.open(path, OpenHow { write: true, ..OpenHow::default() }).map_err(RecoverError::io("open", path))?;
        let done = disk.truncate(file, *bytes).and_then(|()| disk.sync(file));
        disk.close(file);
        done.map_err(RecoverError::io("cut", path))?;
    }
    for path in &removed {
        disk.unlink(path).map_err(RecoverError::io("remove", path))?;
    }
    if cut.is_empty() && removed.is_empty() {
        return Ok(());
    }
    disk.sync_directory(folder).map_err(RecoverError::io("sync", folder))
}
