//! From data directories to what each shard begins with: claim, recover, replay replica set 0.
//!
//! 1. Each data directory is locked and its `millrace.meta` read ([`crate::claim`]); a new one gets an identity.
//! 2. Every journal is recovered by [`millrace_log::journal::recover`] and its records folded into partition images.
//! 3. If the number of shards has changed, everything moves to journals of the new number first (`rehome`).
//! 4. What was read is synced and the new opening recorded, before anything is served from it.
//! 5. Replica set 0's log is replayed, so that every shard begins with the whole of `state/meta`.
//! 6. A data directory that cannot be used, or that replica set 0 knows and that is not here, has its partitions offline; the first one and
//!    that of replica set 0 are needed.
//!
//! Invariants: nothing is deleted here but what a durable statement says is gone; a data directory that is absent or damaged is never
//! taken for an empty one, nor an empty one for another that stood in its place; without replica set 0 no node starts that had one.
//! Knows nothing of rings: it reads through [`Disk`], before shards exist.

use crate::api::NodeFacts;
use crate::claim::{Claim, Claims};
use crate::intact;
use crate::inventory::read_segments;
use crate::memory::Shares;
use crate::replay::replay_meta;
use crate::settle;
use millrace_base::fault::{Corrupt, Fault};
use millrace_base::ids::{META_PARTITION, PartitionId, ShardId, TopicId, Uuid};
use millrace_base::offset::{Offset, Position};
use millrace_base::planted::{Bug, is_planted};
use millrace_base::settings::Settings;
use millrace_io::{Disk, IoError, OpenHow, Pool};
use millrace_log::extent;
use millrace_log::image::{ExtentFound, ImageError, PartitionImage, PendingBytes, Recovered as RecoveredImage, Step};
use millrace_log::journal::{self, Journal, JournalError, Options, Record, Touched, Verdict};
use millrace_log::partition_state::Note;
use millrace_log::paths::{self, Named};
use millrace_log::segments::Segments;
use millrace_log::walk;
use millrace_raftlog::{Record as ConsensusRecord, State};
use millrace_state::meta::{Listener, Meta, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a node is told to be.
pub struct Plan {
    pub settings: Settings,
    pub directories: Vec<PathBuf>,
    pub shards: u16,
    pub listeners: Vec<Listener>,
    /// Memory of all shards together.
    pub memory_bytes: usize,
    /// Bounds of every journal; None: they follow from the settings and the memory.
    pub journal: Option<Options>,
}

/// What shards begin with.
pub struct Boot {
    pub shards: Vec<ShardBoot>,
    /// Of interest to the log: batches and entries recovered.
    pub notes: Vec<String>,
}

pub struct ShardBoot {
    pub here: ShardId,
    pub facts: NodeFacts,
    pub settings: Settings,
    pub meta: Meta,
    /// Set 0 is applied up to here.
    pub meta_applied: Offset,
    pub memory: Shares,
    pub directories: Vec<DirectoryBoot>,
    pub partitions: Vec<PartitionBoot>,
    /// Topics that set 0 says were deleted.
    pub deleted_topics: BTreeSet<TopicId>,
    /// How this node is to be known, if set 0 knows it otherwise.
    pub register: Node,
    /// The largest producer id that any partition of the node has seen; -1: none. Replica set 0 can have lost what it had handed out.
    pub producer_id_seen: i64,
}

pub struct DirectoryBoot {
    pub id: Uuid,
    pub path: PathBuf,
    /// Or why it is not served from.
    pub state: Result<JournalBoot, String>,
}

pub struct JournalBoot {
    pub journal: Journal,
    pub folder: PathBuf,
    pub slots: Vec<u32>,
    /// The first damaged entry of a journal that could not be copied elsewhere: its files cannot be used again before it is.
    pub unkept: Option<u64>,
}

pub struct PartitionBoot {
    pub id: PartitionId,
    pub directory: usize,
    pub found: Result<PartitionFound, NotServed>,
}

/// Why a partition cannot be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotServed {
    /// What its journal and folder say is damaged.
    Damage(Note),
    /// Likewise, and the journal does not even say what it was.
    Lost(Note),
    /// Its data directory is not there or has failed.
    Directory(String),
}

impl fmt::Display for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotServed::Damage(Note { reason, .. }) | NotServed::Lost(Note { reason, .. }) | NotServed::Directory(reason) => {
                f.write_str(reason)
            }
        }
    }
}

/// A partition as its journal and folder tell it.
pub struct PartitionFound {
    pub image: RecoveredImage,
    pub consensus: State,
    pub segments: Segments,
    /// The active segment's bytes behind its last whole block.
    pub part: Vec<u8>,
    pub oldest_sequence: u64,
    /// An extent was torn: this must be stated before anything else of the partition is.
    pub truncation: Option<ConsensusRecord>,
    /// Why there is no more of it than this, although more was acknowledged.
    pub damage: Option<Note>,
    /// The journal tells all of it: what else it lacks may be there at another start.
    pub may_return: bool,
}

/// Why a node does not start. Each names what was tried and what to do.
#[derive(Debug)]
pub enum BootError {
    InUse {
        path: PathBuf,
    },
    Io {
        what: String,
        path: PathBuf,
        error: IoError,
    },
    NotOurs {
        path: PathBuf,
        reason: String,
    },
    /// It does not say whose it is, and is not empty.
    Damaged {
        path: PathBuf,
        reason: String,
    },
    Journal(JournalError),
    /// Replica set 0 is damaged, or not where it can be read.
    Meta {
        reason: String,
    },
}

impl BootError {
    pub fn fault(&self) -> Fault {
        match self {
            BootError::InUse { .. } | BootError::NotOurs { .. } => Fault::Refuse,
            BootError::Io { .. } => Fault::Broken,
            BootError::Damaged { .. } | BootError::Journal(_) | BootError::Meta { .. } => Fault::Corrupt,
        }
    }

    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(IoError) -> BootError + use<> {
        let (what, path) = (what.to_owned(), path.to_owned());
        move |error| BootError::Io { what, path, error }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::InUse { path } => {
                write!(f, "data directory {} is in use by another broker: stop that one, or name another with --data-dir", path.display())
            }
            BootError::Io { what, path, error } if error.is_full() => {
                write!(f, "cannot {what} {}: {error}; make room on its file system", path.display())
            }
            BootError::Io { what, path, error } => {
                write!(f, "cannot {what} {}: {error}; the data directory must be writable by this user", path.display())
            }
            BootError::NotOurs { path, reason } | BootError::Damaged { path, reason } => {
                write!(f, "data directory {}: {reason}", path.display())
            }
            BootError::Journal(error) => write!(f, "{error}"),
            BootError::Meta { reason } => write!(f, "replica set 0, which holds topics and settings, cannot be read: {reason}"),
        }
    }
}

impl std::error::Error for BootError {}

impl From<JournalError> for BootError {
    fn from(error: JournalError) -> BootError {
        BootError::Journal(error)
    }
}

/// Bytes of a damaged partition that may wait in the journal.
const BURDEN_BYTES_MAX: usize = 16 << 10;

/// Everything recovered from one data directory's journals.
#[derive(Default)]
pub(crate) struct Found {
    /// What is damaged is copied aside, and nothing that a look does not need is changed without it.
    keeps: bool,
    /// By shard.
    pub(crate) journals: BTreeMap<ShardId, journal::Recovered>,
    /// Shards whose journal holds something damaged: the first entry of it, unless the journal was copied.
    pub(crate) unkept: BTreeMap<ShardId, Option<u64>>,
    /// Shards whose journal has lost an entry of which not even the partitions are known, and what is wrong with it. What no journal knows may
    /// have been in there.
    pub(crate) unnamed: BTreeMap<ShardId, String>,
    images: BTreeMap<PartitionId, PartitionImage>,
    damage: BTreeMap<PartitionId, String>,
}

impl Found {
    /// Sees to it that a shard's journal stands elsewhere too, as it was found.
    fn keep(&mut self, disk: &mut dyn Disk, data: &Path, shard: ShardId, first: u64) {
        if !self.keeps {
            self.unkept.entry(shard).or_insert(Some(first));
            return;
        }
        self.unkept.entry(shard).or_insert_with(|| {
            let error = crate::evidence::keep(disk, data, shard, first).err()?;
            let journal = paths::journal(data, shard);
            log::error!("the damaged journal in {} cannot be copied, so its files are not used again: {error}", journal.display());
            Some(first)
        });
    }
}

/// Recovers the node. `entropy` gives fresh random bits.
///
/// # Errors
/// [`BootError`]: nothing was served, what was made may stay.
pub fn boot(disk: &mut dyn Disk, plan: Plan, entropy: &mut dyn FnMut() -> u64) -> Result<Boot, BootError> {
    assert!(!plan.directories.is_empty() && plan.shards > 0);
    let mut claims = Claims::new(disk, &plan, entropy)?;
    let options = plan.journal.unwrap_or_else(|| journal_options(&plan));
    let mut notes = Vec::new();
    let memory = shares(&plan, &options, &mut notes);
    let pools: Vec<Pool> = memory.iter().map(|shares| shares.journal.clone()).collect();
    let mut recovery = Recovery { disk, plan: &plan, options, pools: &pools, entropy, notes: &mut notes };
    let mut found: Vec<Option<Found>> = Vec::new();
    for claim in &mut claims.list {
        found.push(claim.attempt(|path| recovery.recover(path))?);
    }
    let mut partitions: BTreeMap<PartitionId, PartitionBoot> = BTreeMap::new();
    for (index, (claim, found)) in claims.list.iter_mut().zip(&mut found).enumerate() {
        let Some(found) = found else { continue };
        for boot in partitions_of(recovery.disk, &claim.path, found, index, &pools) {
            partitions.insert(boot.id, boot);
        }
    }
    let unnamed: Vec<BTreeMap<ShardId, String>> =
        found.iter_mut().map(|found| found.as_mut().map(|found| std::mem::take(&mut found.unnamed)).unwrap_or_default()).collect();
    let meta = partitions.get(&META_PARTITION);
    if let (None, Some(reason)) = (meta, unnamed.iter().find_map(|of| of.get(&META_PARTITION.shard(plan.shards)))) {
        return Err(BootError::Meta { reason: reason.clone() });
    }
    let is_new = partitions.is_empty() && unnamed.iter().all(BTreeMap::is_empty);
    claims.check_meta(meta.map(|partition| partition.directory), is_new)?;
    let replayed = replay_meta(recovery.disk, meta, &claims.list, false)?;
    for (id, directory, reason) in may_have_been(&replayed.meta, &claims.list, &unnamed, plan.shards) {
        let lost = || PartitionBoot { id, directory, found: Err(NotServed::Lost(Note { end: 0, reason })) };
        partitions.entry(id).or_insert_with(lost);
    }
    let without_journals = |index: usize| found[index].as_ref().is_some_and(|found| found.journals.is_empty());
    claims.settle(recovery.disk, &replayed.meta, recovery.entropy, without_journals)?;
    for (id, directory, reason) in without_birth(recovery.disk, &replayed.meta, &claims.list, &partitions) {
        partitions.entry(id).or_insert_with(|| PartitionBoot { id, directory, found: Err(NotServed::Lost(Note { end: 0, reason })) });
    }
    let mut journals: Vec<Vec<Result<JournalBoot, String>>> = Vec::new();
    for (index, claim) in claims.list.iter_mut().enumerate() {
        let found = found.get_mut(index).and_then(Option::take);
        let (recovered, unkept) = found.map(|found| (found.journals, found.unkept)).unwrap_or_default();
        let prepared = claim.attempt(|path| recovery.prepare(path, recovered, &unkept))?;
        journals.push(match (prepared, claim.failure()) {
            (Some(prepared), _) => prepared.into_iter().map(Ok).collect(),
            (None, failure) => (0..plan.shards).map(|_| Err(failure.unwrap_or_default().to_owned())).collect(),
        });
    }
    // Whatever was found in a directory that failed after all is not served.
    partitions.retain(|_, partition| claims.list[partition.directory].failure().is_none());
    claims.check_meta(partitions.get(&META_PARTITION).map(|partition| partition.directory), replayed.applied == 0)?;
    for claim in claims.list.iter().filter(|claim| claim.failure().is_none()) {
        remove_leftovers(recovery.disk, &claim.path, &replayed.deleted, &partitions);
    }
    for (id, directory, reason) in claims.offline(&replayed.meta) {
        partitions.entry(id).or_insert_with(|| PartitionBoot { id, directory, found: Err(NotServed::Directory(reason)) });
    }
    let facts = NodeFacts { node: plan.settings.node_id, cluster: claims.cluster, shards: plan.shards };
    let register = Node { id: facts.node, listeners: plan.listeners.clone(), directories: claims.registered() };
    let found = partitions.values().filter_map(|partition| partition.found.as_ref().ok());
    let producer_id_seen = found.map(|found| producer_id_seen(&found.image)).max().unwrap_or(-1);
    let mut shards: Vec<ShardBoot> = memory
        .into_iter()
        .zip(0..)
        .map(|(memory, here)| ShardBoot {
            here,
            facts: facts.clone(),
            settings: plan.settings.clone(),
            meta: replayed.meta.clone(),
            meta_applied: replayed.applied,
            memory,
            directories: Vec::new(),
            partitions: Vec::new(),
            deleted_topics: replayed.deleted.clone(),
            register: register.clone(),
            producer_id_seen,
        })
        .collect();
    for (claim, journals) in claims.list.iter().zip(journals) {
        for (shard, state) in shards.iter_mut().zip(journals) {
            shard.directories.push(DirectoryBoot { id: claim.id(), path: claim.path.clone(), state });
        }
    }
    for (id, partition) in partitions {
        shards[usize::from(id.shard(plan.shards))].partitions.push(partition);
    }
    Ok(Boot { shards, notes })
}

/// Every partition of every topic, and the data directory that it belongs to.
fn homes(meta: &Meta) -> impl Iterator<Item = (PartitionId, Uuid)> {
    meta.topics().flat_map(|topic| {
        let of = |(index, home): (u32, &Uuid)| (PartitionId { topic: topic.id, index }, *home);
        (0..).zip(&topic.directories).map(of).collect::<Vec<_>>()
    })
}

/// Partitions that no journal knows and that have segments: a journal that knew them is gone. They must not be born again over these.
pub(crate) fn without_birth(
    disk: &mut dyn Disk,
    meta: &Meta,
    claims: &[Claim],
    known: &BTreeMap<PartitionId, PartitionBoot>,
) -> Vec<(PartitionId, usize, String)> {
    let mut found = Vec::new();
    for (id, home) in homes(meta).filter(|(id, _)| !known.contains_key(id)) {
        let Some(directory) = claims.iter().position(|claim| claim.id() == home && claim.failure().is_none()) else { continue };
        let folder = paths::partition(&claims[directory].path, id);
        let is_segment = |entry: &millrace_io::Entry| matches!(paths::named(&entry.name), Some(Named::Segment(_)));
        let holds = match disk.list(&folder) {
            Ok(names) if names.iter().any(is_segment) => format!("there are segments in {}", folder.display()),
            Ok(_) | Err(IoError::NOT_FOUND) => continue,
            Err(error) => format!("{} cannot be read: {error}", folder.display()),
        };
        found.push((id, directory, format!("no journal knows the partition, and {holds}")));
    }
    found
}

/// Partitions that replica set 0 knows and no journal, though a journal that would know them has lost something unknown.
pub(crate) fn may_have_been(
    meta: &Meta,
    claims: &[Claim],
    unnamed: &[BTreeMap<ShardId, String>],
    shards: u16,
) -> Vec<(PartitionId, usize, String)> {
    let lost = |(id, home): (PartitionId, Uuid)| {
        let directory = claims.iter().position(|claim| claim.id() == home && claim.failure().is_none())?;
        let reason = unnamed.get(directory)?.get(&id.shard(shards))?;
        Some((id, directory, format!("no journal knows the partition, and {reason}")))
    };
    homes(meta).filter_map(lost).collect()
}

/// The largest producer id of a partition's producers and of the batches behind them; -1: none.
fn producer_id_seen(image: &RecoveredImage) -> i64 {
    let pending = image.pending.iter().filter_map(|pending| match &pending.bytes {
        PendingBytes::Journal(bytes) => Some(bytes),
        PendingBytes::Direct(_) => None, // none is left where extents were read
    });
    let batches = pending.flat_map(|bytes| walk::batches(bytes).flatten()).map(|batch| batch.header.producer_id);
    image.large.producers.committed().map(|(id, _)| id).chain(batches).max().unwrap_or(-1)
}

/// What recovering a data directory takes.
struct Recovery<'a> {
    disk: &'a mut dyn Disk,
    plan: &'a Plan,
    options: Options,
    pools: &'a [Pool],
    entropy: &'a mut dyn FnMut() -> u64,
    notes: &'a mut Vec<String>,
}

impl Recovery<'_> {
    /// Reads a data directory's journals; they are moved first if they are of another number of shards. What they say is confirmed and durable
    /// then: files are cut and removed by it before a journal is written to.
    fn recover(&mut self, path: &Path) -> Result<Found, BootError> {
        crate::rehome::finish(self.disk, path).map_err(BootError::io("finish moving the journals of", path))?;
        let mut found = self.recover_confirmed(path)?;
        let shards: Vec<ShardId> = found.journals.keys().copied().collect();
        let wanted: Vec<ShardId> = (0..self.plan.shards).collect();
        if !shards.is_empty() && shards != wanted {
            if let Some(reason) = found.unnamed.values().next() {
                let reason = format!("a journal is damaged ({reason}); start with the number of shards it had");
                return Err(BootError::NotOurs { path: path.to_owned(), reason });
            }
            self.notes.push(format!("{}: the journals of {} shards move to {}", path.display(), shards.len(), self.plan.shards));
            let states = partitions_of(self.disk, path, &mut found, 0, self.pools);
            crate::rehome::rehome(self.disk, path, states, self.plan.shards, self.options, self.pools, self.entropy)?;
            found = self.recover_confirmed(path)?;
        }
        Ok(found)
    }

    fn recover_confirmed(&mut self, path: &Path) -> Result<Found, BootError> {
        let found = recover_directory(self.disk, path, self.pools, self.notes, true)?;
        for (shard, recovered) in &found.journals {
            journal::confirm(self.disk, &paths::journal(path, *shard), recovered)?;
        }
        Ok(found)
    }

    /// Syncs what was read and opens the journals for writing, one for each shard.
    fn prepare(
        &mut self,
        path: &Path,
        mut recovered: BTreeMap<ShardId, journal::Recovered>,
        unkept: &BTreeMap<ShardId, Option<u64>>,
    ) -> Result<Vec<JournalBoot>, BootError> {
        let mut journals = Vec::new();
        for (shard, pool) in (0..self.plan.shards).zip(self.pools) {
            let folder = paths::journal(path, shard);
            let recovered = match recovered.remove(&shard) {
                Some(recovered) => recovered,
                None => journal::recover(self.disk, &folder, pool, 0)?,
            };
            let journal = journal::prepare(self.disk, &folder, &recovered, (self.entropy)(), self.options, pool)?;
            let slots = journal_slots(self.disk, &folder)?;
            journals.push(JournalBoot { journal, folder, slots, unkept: unkept.get(&shard).copied().flatten() });
        }
        Ok(journals)
    }
}

/// The memory of each shard.
fn shares(plan: &Plan, options: &Options, notes: &mut Vec<String>) -> Vec<Shares> {
    let (told, least) = (plan.memory_bytes / usize::from(plan.shards), Shares::least(options, plan.directories.len()));
    if told < least {
        notes.push(format!(
            "memory.max.bytes gives each of {} shards {told} bytes; each takes {least}, without which it could not serve every request",
            plan.shards
        ));
    }
    (0..plan.shards).map(|_| Shares::new(told.max(least), options)).collect()
}

pub(crate) fn journal_options(plan: &Plan) -> Options {
    let journals = usize::from(plan.shards) * plan.directories.len();
    let bytes = usize::try_from(plan.settings.journal_max_bytes).unwrap_or(usize::MAX).min(plan.memory_bytes / 4) / journals;
    let files = (bytes as u64 / journal::layout::FILE_BYTES).clamp(3, 64) as u32;
    Options::new(files)
}

/// Makes a file of these bytes, or writes it anew, and syncs it; its name is not yet durable.
pub(crate) fn write_file(disk: &mut dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), IoError> {
    let file = disk.open(path, OpenHow { write: true, create: true, ..OpenHow::default() })?;
    let written = disk.truncate(file, 0).and_then(|()| disk.write(file, 0, bytes)).and_then(|()| disk.sync(file));
    disk.close(file);
    written
}

pub(crate) fn read_file(disk: &mut dyn Disk, path: &Path) -> Result<Vec<u8>, IoError> {
    let file = disk.open(path, OpenHow::default())?;
    let read = disk.len(file).and_then(|len| {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = disk.read(file, 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    });
    disk.close(file);
    read
}

/// Slots of the journal files in a folder.
fn journal_slots(disk: &mut dyn Disk, folder: &Path) -> Result<Vec<u32>, BootError> {
    let entries = disk.list(folder).map_err(BootError::io("list", folder))?;
    let slot = |name: &str| name.strip_suffix(".journal")?.parse().ok();
    Ok(entries.iter().filter_map(|entry| slot(&entry.name)).collect())
}

/// Reads the journals of a data directory. `keeps`: what is damaged is copied aside first.
pub(crate) fn recover_directory(
    disk: &mut dyn Disk,
    path: &Path,
    pools: &[Pool],
    notes: &mut Vec<String>,
    keeps: bool,
) -> Result<Found, BootError> {
    let folder = paths::journals(path);
    let entries = match disk.list(&folder) {
        Ok(entries) => entries,
        Err(IoError::NOT_FOUND) => Vec::new(),
        Err(error) => return Err(BootError::io("list", &folder)(error)),
    };
    let mut found = Found { keeps, ..Found::default() };
    for shard in entries.iter().filter(|entry| entry.is_directory).filter_map(|entry| paths::shard_named(&entry.name)) {
        let pool = &pools[usize::from(shard) % pools.len()];
        let recovered = journal::recover(disk, &paths::journal(path, shard), pool, 0)?;
        notes.extend(recovered.lost_slot.as_ref().map(|corrupt| format!("cut off or damaged, and written again: {corrupt}")));
        fold(&mut found, &recovered, notes, &paths::journal(path, shard));
        if let Verdict::Damaged { each, .. } = &recovered.verdict {
            each.iter().for_each(|damage| log::error!("journal entry {} is damaged: {}", damage.first, damage.corrupt));
            found.keep(disk, path, shard, each.first().map_or(0, |damage| damage.first));
            let unnamed = each.iter().find(|damage| damage.touched == Touched::All);
            found.unnamed.extend(unnamed.map(|damage| (shard, damage.corrupt.to_string())));
        }
        found.journals.insert(shard, recovered);
    }
    Ok(found)
}

/// Takes a journal's records into the images of their partitions.
fn fold(found: &mut Found, recovered: &journal::Recovered, notes: &mut Vec<String>, folder: &Path) {
    let damaged = match &recovered.verdict {
        Verdict::Clean => &[][..],
        Verdict::Torn(torn) => {
            notes.push(format!("{}: entry {} was not finished and is cut ({:?})", folder.display(), torn.sequence, torn.reason));
            &[][..]
        }
        Verdict::Damaged { each, .. } => each,
    };
    let mut damaged = damaged.iter().peekable();
    // Those that this journal has spoken of so far.
    let mut known = BTreeSet::new();
    for entry in &recovered.entries {
        while let Some(damage) = damaged.next_if(|damage| damage.first < entry.sequence) {
            mark_damaged(found, &mut known, damage);
        }
        let mut stated = entry.extents_stated(recovered.extents_durable);
        for record in &entry.records {
            known.insert(record.partition());
            let image = found.images.entry(record.partition()).or_default();
            if let Err(error) = image.apply(record, &entry.payload, entry.sequence) {
                found.damage.insert(record.partition(), error.to_string());
            }
            if matches!(record, Record::Extent { .. }) && stated > 0 {
                image.extent_is_stated();
                stated -= 1;
            }
        }
    }
    damaged.for_each(|damage| mark_damaged(found, &mut known, damage));
}

fn mark_damaged(found: &mut Found, known: &mut BTreeSet<PartitionId>, damage: &journal::Damage) {
    if let Touched::Partitions(partitions) = &damage.touched {
        known.extend(partitions);
    }
    let touched = match &damage.touched {
        Touched::Partitions(partitions) => partitions,
        Touched::All => &*known,
    };
    for id in touched {
        found.images.entry(*id).or_default().damaged_at(damage, *id);
        found.damage.entry(*id).or_insert_with(|| damage.corrupt.to_string());
    }
}

/// The partitions of a data directory, with their segments.
pub(crate) fn partitions_of(disk: &mut dyn Disk, data: &Path, found: &mut Found, directory: usize, pools: &[Pool]) -> Vec<PartitionBoot> {
    let mut partitions = Vec::new();
    for (id, image) in std::mem::take(&mut found.images) {
        if image.is_deleted() {
            remove_folder(disk, &paths::partition(data, id));
            continue;
        }
        let (has_state, pool) = (image.has_state(), &pools[usize::from(id.shard(pools.len() as u16))]);
        let (is_known, first, end) = (image.damage().is_some(), image.oldest_needed().unwrap_or(0), image.reached());
        let reason = found.damage.remove(&id).filter(|_| is_known || !has_state);
        let mut read = read_partition(disk, data, id, image, pool).map_err(|reason| match has_state {
            true => NotServed::Damage(Note { end, reason }),
            false => NotServed::Lost(Note { end, reason }),
        });
        let damage = match &mut read {
            Ok(read) => {
                read.may_return = !is_known;
                read.damage.as_mut()
            }
            Err(NotServed::Damage(damage) | NotServed::Lost(damage)) => Some(damage),
            Err(NotServed::Directory(_)) => None,
        };
        if let Some(damage) = damage {
            // What the journal itself says of its damage was kept with it, or says so already.
            if !is_known {
                found.keep(disk, data, id.shard(pools.len() as u16), first);
            }
            damage.reason = reason.unwrap_or_else(|| damage.reason.clone());
        }
        if let Ok(read) = &mut read
            && read.damage.is_some()
            && found.keeps
        {
            unburden(disk, data, id, read);
        }
        partitions.push(PartitionBoot { id, directory, found: read });
    }
    partitions
}

/// What is damaged is stated again at the journal's head when others need its place: much that waits there goes to its segment first, the
/// same bytes that a checkpoint would write.
fn unburden(disk: &mut dyn Disk, data: &Path, id: PartitionId, found: &mut PartitionFound) {
    let waits: usize = found.image.pending.iter().map(|pending| pending.bytes.in_memory()).sum();
    if waits > BURDEN_BYTES_MAX
        && let Err(error) = settle::settle(disk, data, id, found)
    {
        log::warn!("batches of partition {id}, which is damaged, stay in the journal: {error}");
    }
}

/// The deed of a deletion that is stated, repeated.
fn remove_folder(disk: &mut dyn Disk, folder: &Path) {
    for entry in disk.list(folder).unwrap_or_default() {
        if let Err(error) = disk.unlink(&folder.join(&entry.name)) {
            log::warn!("{} of a deleted partition cannot be removed: {error}", folder.join(&entry.name).display());
        }
    }
    let removed = disk.remove_directory(folder);
    if matches!(removed, Ok(()) | Err(IoError::NOT_FOUND))
        && let Some(topic) = folder.parent()
    {
        let _ = disk.remove_directory(topic); // other partitions of the topic may be there
    }
}

/// The deed of a deletion that replica set 0 states, repeated: a journal may have given its own statement up before the removal was durable.
/// Partitions that a journal still knows are stated deleted there first.
fn remove_leftovers(disk: &mut dyn Disk, data: &Path, deleted: &BTreeSet<TopicId>, known: &BTreeMap<PartitionId, PartitionBoot>) {
    let topics: Vec<TopicId> = disk.list(data).unwrap_or_default().iter().filter_map(|entry| entry.name.parse().ok()).collect();
    for topic in topics.into_iter().filter(|topic| deleted.contains(topic)) {
        for entry in disk.list(&paths::topic(data, topic)).unwrap_or_default() {
            let partition = entry.name.parse().map(|index| PartitionId { topic, index });
            if let Ok(id) = partition
                && !known.contains_key(&id)
            {
                remove_folder(disk, &paths::partition(data, id));
            }
        }
        let _ = disk.remove_directory(&paths::topic(data, topic)); // partitions that are still known may be there
    }
}

fn read_partition(disk: &mut dyn Disk, data: &Path, id: PartitionId, image: PartitionImage, pool: &Pool) -> Result<PartitionFound, String> {
    let folder = paths::partition(data, id);
    let oldest_sequence = image.oldest_needed().unwrap_or(0);
    let state_file = image.state_file().map(|reference| paths::state(&folder, reference.name));
    let file = match &state_file {
        Some(path) => match read_file(disk, path) {
            Ok(bytes) => bytes,
            Err(IoError::NOT_FOUND) => Vec::new(),
            Err(error) => return Err(format!("state file {}: {error}", path.display())),
        },
        None => Vec::new(),
    };
    let (mut image, damage) = image.finish_intact(Some(&file)).map_err(|error| error.to_string())?;
    if image.cut.is_some() {
        return Err("its segments hold batches that were taken back".to_owned());
    }
    if let Some(damage) = damage {
        let damage = match (damage, state_file) {
            (ImageError::StateFile(corrupt), Some(path)) => Corrupt { file: path.display().to_string(), ..corrupt }.to_string(),
            (damage, _) => damage.to_string(),
        };
        return intact::read(disk, &folder, image, damage, oldest_sequence, pool);
    }
    let mut consensus = replay_consensus(&image)?;
    let truncation = match take_extents(disk, &folder, id, &mut image, &mut consensus, pool)? {
        Ok(truncation) => truncation,
        Err(damage) => return intact::read(disk, &folder, image, damage, oldest_sequence, pool),
    };
    match read_segments(disk, &folder, &image) {
        Ok((segments, part)) => {
            Ok(PartitionFound { image, consensus, segments, part, oldest_sequence, truncation, damage: None, may_return: false })
        }
        Err(damage) => intact::read(disk, &folder, image, damage, oldest_sequence, pool),
    }
}

/// Brings what was written straight to segments into memory; what was not durable yet is cut off. Gives the step that states so, or why
/// something that was durable is not there: the image ends before it then.
fn take_extents(
    disk: &mut dyn Disk,
    folder: &Path,
    id: PartitionId,
    image: &mut RecoveredImage,
    consensus: &mut State,
    pool: &Pool,
) -> Result<Result<Option<ConsensusRecord>, String>, String> {
    let mut read: BTreeMap<Offset, u64> = BTreeMap::new();
    let torn = image.take_extents(|direct, begin| {
        let found = extent::find(disk, &paths::segment(folder, direct.segment), direct, begin, pool);
        if let ExtentFound::Whole(_) = found {
            read.insert(direct.segment, direct.place + direct.bytes);
        }
        found
    });
    let torn = match torn {
        Ok(torn) => torn,
        Err(corrupt) => return Ok(Err(corrupt.to_string())),
    };
    if torn.is_some() {
        read.entry(image.segment).or_insert(image.segment_bytes);
    }
    for (segment, end) in read {
        let path = paths::segment(folder, segment);
        match cut_behind(disk, &path, end) {
            Ok(()) | Err(IoError::NOT_FOUND) => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    let Some(torn) = torn else { return Ok(Ok(None)) };
    log::info!("partition {id}: an extent at offset {} was not finished and is cut: {}", torn.base, torn.found);
    let epoch = consensus.history.starts().rev().find(|start| start.offset <= torn.base).map_or(0, |start| start.epoch);
    let to = Position::new(epoch, torn.base);
    let (term, vote, marks) = (consensus.term, consensus.vote, consensus.marks);
    let record = ConsensusRecord { term, vote, marks, truncate: Some(to), start: None };
    consensus.apply(&record).map_err(|error| error.to_string())?;
    Ok(Ok(Some(record).filter(|_| !is_planted(Bug::ForgetTruncation))))
}

/// Takes away what stands behind byte `end` of a segment, which the journal does not know, and makes the rest durable.
fn cut_behind(disk: &mut dyn Disk, segment: &Path, end: u64) -> Result<(), IoError> {
    let file = disk.open(segment, OpenHow { write: true, ..OpenHow::default() })?;
    let cut = match disk.len(file) {
        Ok(len) if len > end => disk.truncate(file, end),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    let done = cut.and_then(|()| disk.sync(file));
    disk.close(file);
    done
}

fn replay_consensus(image: &RecoveredImage) -> Result<State, String> {
    let state = replay_steps(image)?;
    if state.history.end() != image.log_end {
        return Err(format!("its consensus state ends at offset {}, its batches at {}", state.history.end(), image.log_end));
    }
    Ok(state)
}

/// The consensus state that all steps lead to.
pub(crate) fn replay_steps(image: &RecoveredImage) -> Result<State, String> {
    let mut state = State::decode(&image.consensus).map_err(|error| error.to_string())?;
    for step in &image.steps {
        match step {
            Step::Consensus(bytes) => {
                let record = ConsensusRecord::decode(bytes).map_err(|error| error.to_string())?;
                state.apply(&record).map_err(|error| error.to_string())?;
            }
            Step::End(end) if *end > state.history.end() => state.history.extend(*end),
            Step::End(_) => {}
        }
    }
    Ok(state)
}
