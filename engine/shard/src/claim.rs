//! The data directories of a node at start: which are ours, which are new, which cannot be used, and which are not here.
//!
//! 1. Each path of `log.dirs` is looked at, nothing is made: there or not, locked, whose it is. What is wrong with the first is a refusal,
//!    since replica set 0 begins there; any other is failed, and the node goes on without it.
//! 2. When replica set 0 has been read, those that are new get an identity: what is empty, and what is not there and was not known to be.
//!    A path that replica set 0 knows is not made anew where it is missing: its disk is not mounted.
//! 3. Replica set 0 also knows data directories that no path leads to any more: removed from `log.dirs`, or with an empty one in their place.
//!    They are failed too, and stay registered as long as partitions live there.
//!
//! Invariants: the identity of a data directory, not its path, says what is in it; a data directory in use by another broker, of another
//! node or cluster, or of a newer format is always a refusal.
//! Knows nothing of journals.

use crate::boot::{BootError, Plan, read_file, write_file};
use millrace_base::ids::{NodeId, PartitionId, Uuid};
use millrace_io::{Disk, IoError};
use millrace_log::journal::JournalError;
use millrace_log::paths;
use millrace_state::meta::{Directory, Meta};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Name of the file that a running broker holds.
const LOCK_NAME: &str = "millrace.lock";

/// Partitions of a failed data directory that are named in the log.
const NAMED_MAX: usize = 20;

/// How a data directory stands.
enum State {
    /// Locked; it has an identity.
    Ours(Uuid),
    /// Locked and empty.
    Empty,
    /// There is nothing at its path.
    Absent,
    /// The identity, if it is known.
    Failed { id: Option<Uuid>, reason: String },
}

/// One data directory.
pub struct Claim {
    pub path: PathBuf,
    is_first: bool,
    state: State,
}

impl Claim {
    /// Zero when it is not known.
    pub fn id(&self) -> Uuid {
        match &self.state {
            State::Ours(id) | State::Failed { id: Some(id), .. } => *id,
            State::Empty | State::Absent | State::Failed { id: None, .. } => Uuid::ZERO,
        }
    }

    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed { reason, .. } => Some(reason),
            State::Ours(_) | State::Empty | State::Absent => None,
        }
    }

    fn fail(&mut self, reason: String) {
        let id = Some(self.id()).filter(|id| !id.is_zero());
        self.state = State::Failed { id, reason };
    }

    /// Does `work` with a data directory that is ours. An error of it fails this data directory; that of the first is given.
    ///
    /// # Errors
    /// As said; and what is never passed over.
    pub fn attempt<T>(&mut self, work: impl FnOnce(&Path) -> Result<T, BootError>) -> Result<Option<T>, BootError> {
        if !matches!(self.state, State::Ours(_)) {
            return Ok(None);
        }
        match work(&self.path) {
            Ok(done) => Ok(Some(done)),
            Err(error) if self.is_first || is_refusal(&error) => Err(error),
            Err(error) => {
                self.fail(error.to_string());
                Ok(None)
            }
        }
    }
}

/// Whether a node must not start whichever data directory it is.
fn is_refusal(error: &BootError) -> bool {
    match error {
        BootError::InUse { .. } | BootError::NotOurs { .. } | BootError::Meta { .. } | BootError::Journal(JournalError::Newer { .. }) => {
            true
        }
        BootError::Io { .. } | BootError::Damaged { .. } | BootError::Journal(_) => false,
    }
}

/// All data directories of the node.
pub struct Claims {
    pub cluster: Uuid,
    /// Those of `log.dirs` in their order, then those that only replica set 0 knows.
    pub list: Vec<Claim>,
    node: NodeId,
    /// The first is empty, and others are not: replica set 0 may have been in what is missing there.
    is_first_missing: bool,
}

impl Claims {
    /// Locks every data directory that is there and reads its identity.
    ///
    /// # Errors
    /// What is wrong with the first, and what no node starts with.
    pub fn new(disk: &mut dyn Disk, plan: &Plan, entropy: &mut dyn FnMut() -> u64) -> Result<Claims, BootError> {
        let node = plan.settings.node_id;
        let mut list = Vec::new();
        let mut known: Vec<(PathBuf, paths::Meta)> = Vec::new();
        for (index, path) in plan.directories.iter().enumerate() {
            let (is_first, path) = (index == 0, path.clone());
            if is_first {
                disk.make_directories(&path).map_err(BootError::io("make data directory", &path))?;
            }
            let state = match look(disk, &path, node) {
                Ok(Looked::Ours(meta)) => {
                    if let Some((other, _)) = known.iter().find(|(_, other)| other.directory == meta.directory) {
                        let reason = format!("it has the identity of {}: one of them is a copy", other.display());
                        return Err(BootError::NotOurs { path, reason });
                    }
                    known.push((path.clone(), meta));
                    State::Ours(meta.directory)
                }
                Ok(Looked::Empty) => State::Empty,
                Ok(Looked::Absent) => State::Absent,
                Err(error) if is_first || is_refusal(&error) => return Err(error),
                Err(error) => State::Failed { id: None, reason: error.to_string() },
            };
            list.push(Claim { path, is_first, state });
        }
        let cluster = cluster(&known, plan, entropy)?;
        let is_first_missing = !known.is_empty() && matches!(list[0].state, State::Empty);
        Ok(Claims { cluster, list, node, is_first_missing })
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether replica set 0 was found, in a data directory that is served from. It need not be on a node that never had one.
    ///
    /// # Errors
    /// It should have been: a node without it would begin anew.
    pub fn check_meta(&self, found_in: Option<usize>, is_new: bool) -> Result<(), BootError> {
        let failed: Vec<String> = self
            .list
            .iter()
            .filter_map(|claim| claim.failure().map(|reason| format!("data directory {} is not usable: {reason}", claim.path.display())))
            .collect();
        if found_in.is_some() || (is_new && failed.is_empty() && !self.is_first_missing) {
            return Ok(());
        }
        let first = self.list[0].path.display();
        let reason = match failed.is_empty() {
            true if self.is_first_missing => format!("it is in none of the data directories, and {first} is empty: is its disk mounted?"),
            true => "it is in none of the data directories; name the one that it was made in, the first of log.dirs then".to_owned(),
            false => {
                format!("it is in none of the data directories that can be used, and a new node needs them all. {}", failed.join(". "))
            }
        };
        Err(BootError::Meta { reason })
    }

    /// With what replica set 0 knows: makes what is new, fails what is missing, adds what no path leads to. `without_journals`: whether the
    /// data directory with this index is ours and has none, though partitions are born in journals.
    ///
    /// # Errors
    /// What is wrong with the first.
    pub fn settle(
        &mut self,
        disk: &mut dyn Disk,
        meta: &Meta,
        entropy: &mut dyn FnMut() -> u64,
        without_journals: impl Fn(usize) -> bool,
    ) -> Result<(), BootError> {
        let registered: Vec<Directory> = meta.node(self.node).map(|node| node.directories.clone()).unwrap_or_default();
        let at = |path: &Path| registered.iter().filter(|known| Path::new(&known.path) == path).map(|known| known.id).collect::<Vec<_>>();
        let present: BTreeSet<Uuid> = self.list.iter().map(Claim::id).collect();
        for claim in &mut self.list {
            let known = at(&claim.path).into_iter().find(|id| !present.contains(id));
            match (&mut claim.state, known) {
                (State::Absent, Some(id)) => {
                    let reason = "it is not there, and replica set 0 knows it: is its disk mounted?".to_owned();
                    claim.state = State::Failed { id: Some(id), reason };
                }
                (State::Failed { id, .. }, Some(known)) => *id = id.or(Some(known)),
                (State::Absent | State::Empty, _) => {
                    if let Err(error) = make(disk, claim, self.cluster, self.node, entropy) {
                        if claim.is_first {
                            return Err(error);
                        }
                        claim.fail(error.to_string());
                    }
                }
                (State::Ours(_) | State::Failed { .. }, _) => {}
            }
        }
        let mut homes: BTreeSet<Uuid> = meta.topics().flat_map(|topic| topic.directories.iter().copied()).collect();
        for (index, claim) in self.list.iter_mut().enumerate().filter(|(_, claim)| homes.contains(&claim.id())) {
            let reason = "its journals are missing".to_owned();
            match without_journals(index) {
                true if claim.is_first => return Err(BootError::Damaged { path: claim.path.clone(), reason }),
                true => claim.fail(reason),
                false => {}
            }
        }
        homes.retain(|id| meta.node_of_directory(*id).is_none_or(|node| node.id == self.node));
        for claim in &self.list {
            homes.remove(&claim.id());
        }
        for id in homes {
            let path = registered.iter().find(|known| known.id == id).map(|known| PathBuf::from(&known.path));
            let reason = match &path {
                Some(path) if self.list.iter().any(|claim| claim.path == *path && claim.failure().is_none()) => {
                    "another data directory is in its place: is the right disk mounted?"
                }
                Some(path) if self.list.iter().any(|claim| claim.path == *path) => "it is not there",
                _ => "it is not in log.dirs any more",
            };
            let path = path.unwrap_or_else(|| PathBuf::from(format!("data directory {id}")));
            self.list.push(Claim { path, is_first: false, state: State::Failed { id: Some(id), reason: reason.to_owned() } });
        }
        Ok(())
    }

    /// The partitions that are offline, each with the index of its data directory and why. Says so in the log.
    pub fn offline(&self, meta: &Meta) -> Vec<(PartitionId, usize, String)> {
        let failed: BTreeMap<Uuid, usize> =
            self.list.iter().enumerate().filter(|(_, claim)| claim.failure().is_some()).map(|(index, claim)| (claim.id(), index)).collect();
        let mut names: BTreeMap<usize, Vec<String>> = failed.values().map(|index| (*index, Vec::new())).collect();
        let mut offline = Vec::new();
        for topic in meta.topics() {
            for (partition, home) in (0..).zip(&topic.directories) {
                let Some(index) = failed.get(home) else { continue };
                names.entry(*index).or_default().push(format!("{}-{partition}", topic.name));
                let reason = self.list[*index].failure().unwrap_or_default();
                let reason = format!("data directory {}: {reason}", self.list[*index].path.display());
                offline.push((PartitionId { topic: topic.id, index: partition }, *index, reason));
            }
        }
        for (index, names) in names {
            let (path, reason) = (self.list[index].path.display(), self.list[index].failure().unwrap_or_default());
            match names.len() {
                0 => log::error!("data directory {path} is not used: {reason}"),
                count => {
                    let more = if count > NAMED_MAX { format!(" and {} more", count - NAMED_MAX) } else { String::new() };
                    let named = names[..count.min(NAMED_MAX)].join(", ");
                    log::error!("data directory {path} is not used: {reason}. Offline: {named}{more}");
                }
            }
        }
        offline
    }

    /// As replica set 0 is to know them: what is not here stays known, or nobody would know what is missing.
    pub fn registered(&self) -> Vec<Directory> {
        let directory = |claim: &Claim| Directory { id: claim.id(), path: claim.path.display().to_string() };
        self.list.iter().filter(|claim| !claim.id().is_zero()).map(directory).collect()
    }
}

enum Looked {
    Ours(paths::Meta),
    Empty,
    Absent,
}

/// Locks what is there and reads whose it is. Makes nothing but the lock's file.
fn look(disk: &mut dyn Disk, path: &Path, node: NodeId) -> Result<Looked, BootError> {
    let entries = match disk.list(path) {
        Ok(entries) => entries,
        Err(IoError::NOT_FOUND) => return Ok(Looked::Absent),
        Err(error) => return Err(BootError::io("list data directory", path)(error)),
    };
    lock(disk, path)?;
    let file = paths::meta(path);
    let bytes = match read_file(disk, &file) {
        Ok(bytes) => bytes,
        Err(IoError::NOT_FOUND) => {
            if let Some(entry) = entries.iter().find(|entry| entry.name == "journal" || paths::topic_named(&entry.name).is_some()) {
                let reason = format!("it holds {:?}, but {} is missing: it is not a fresh data directory", entry.name, paths::META_NAME);
                return Err(BootError::Damaged { path: path.to_owned(), reason });
            }
            return Ok(Looked::Empty);
        }
        Err(error) => return Err(BootError::io("read", &file)(error)),
    };
    let meta = paths::Meta::decode(&bytes).map_err(|error| match error {
        paths::MetaError::Newer { .. } => BootError::NotOurs { path: path.to_owned(), reason: error.to_string() },
        paths::MetaError::Corrupt { .. } => BootError::Damaged { path: path.to_owned(), reason: error.to_string() },
    })?;
    if meta.node != node {
        let reason = format!("it belongs to node {}, but node.id is {node}", meta.node);
        return Err(BootError::NotOurs { path: path.to_owned(), reason });
    }
    Ok(Looked::Ours(meta))
}

/// Holds every data directory that is there against other processes, for as long as `disk` lives; a start does it too, and says what else is
/// wrong with them. Who does more before a start calls this first.
///
/// # Errors
/// One is in use.
pub fn lock_all(disk: &mut dyn Disk, directories: &[PathBuf]) -> Result<(), BootError> {
    directories.iter().try_for_each(|path| match lock(disk, path) {
        Err(error @ BootError::InUse { .. }) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    })
}

fn lock(disk: &mut dyn Disk, path: &Path) -> Result<(), BootError> {
    match disk.lock(&path.join(LOCK_NAME)).map_err(BootError::io("lock data directory", path))? {
        true => Ok(()),
        false => Err(BootError::InUse { path: path.to_owned() }),
    }
}

fn cluster(known: &[(PathBuf, paths::Meta)], plan: &Plan, entropy: &mut dyn FnMut() -> u64) -> Result<Uuid, BootError> {
    let first = known.first();
    if let Some((path, meta)) = known.iter().find(|(_, meta)| first.is_some_and(|(_, first)| first.cluster != meta.cluster)) {
        let others = first.map_or(Uuid::ZERO, |(_, first)| first.cluster);
        let reason = format!("it belongs to cluster {}, the others to {others}", meta.cluster);
        return Err(BootError::NotOurs { path: path.clone(), reason });
    }
    match (first, &plan.settings.cluster_id) {
        (Some((path, meta)), Some(wanted)) if meta.cluster.to_string() != *wanted => {
            let reason = format!("it belongs to cluster {}, but cluster.id is {wanted}", meta.cluster);
            Err(BootError::NotOurs { path: path.clone(), reason })
        }
        (Some((_, meta)), _) => Ok(meta.cluster),
        (None, Some(wanted)) => wanted.parse().map_err(|()| BootError::NotOurs {
            path: plan.directories[0].clone(),
            reason: format!("cluster.id {wanted:?} is not an identity of 22 characters (URL-safe base64); leave it out to have one made"),
        }),
        (None, None) => Ok(Uuid::from_entropy(entropy(), entropy())),
    }
}

/// Gives an empty data directory an identity.
fn make(disk: &mut dyn Disk, claim: &mut Claim, cluster: Uuid, node: NodeId, entropy: &mut dyn FnMut() -> u64) -> Result<(), BootError> {
    let path = &claim.path;
    disk.make_directories(path).map_err(BootError::io("make data directory", path))?;
    if matches!(claim.state, State::Absent) {
        lock(disk, path)?;
    }
    let meta = paths::Meta { cluster, node, directory: Uuid::from_entropy(entropy(), entropy()) };
    write_identity(disk, path, &meta).map_err(BootError::io("write to data directory", path))?;
    claim.state = State::Ours(meta.directory);
    Ok(())
}

fn write_identity(disk: &mut dyn Disk, path: &Path, meta: &paths::Meta) -> Result<(), IoError> {
    let (file, unfinished) = (paths::meta(path), path.join("millrace.meta.new"));
    write_file(disk, &unfinished, meta.encode().as_bytes())?;
    disk.rename(&unfinished, &file)?;
    disk.sync_directory(path)?;
    // Any of the folders above may have been made just now, and be lost with all that is in it.
    for (above, folder) in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).enumerate() {
        match disk.sync_directory(folder) {
            Ok(()) => {}
            Err(error) if above == 0 => return Err(error),
            Err(error) => log::debug!("{} cannot be synced: {error}", folder.display()), // not ours, then it was there before
        }
    }
    Ok(())
}
