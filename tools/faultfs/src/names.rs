//! Directories: the names as they are, and those that a power cut leaves.
//!
//! 1. A change of a name is seen at once and remembered. A sync of its directory makes all remembered changes of that directory durable.
//! 2. A cut keeps, of each directory's changes that are not durable, the first few: a journaling file system does not reorder them.
//! 3. A rename from one directory to another is one change, of both: durable with whichever is synced first.
//!
//! Invariants: an inode is listed in one directory at most; the root is inode 1.
//! Knows nothing of what files hold.

use millrace_base::prng::Prng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

pub const ROOT: u64 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Directory,
}

/// Names by directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree(BTreeMap<u64, BTreeMap<OsString, (u64, Kind)>>);

#[derive(Clone, Debug)]
enum Change {
    Made { directory: u64, name: OsString, inode: u64, kind: Kind },
    Removed { directory: u64, name: OsString },
    Renamed { from: (u64, OsString), to: (u64, OsString) },
}

impl Change {
    fn is_of(&self, inode: u64) -> bool {
        match self {
            Change::Made { directory, .. } | Change::Removed { directory, .. } => *directory == inode,
            Change::Renamed { from, to } => from.0 == inode || to.0 == inode,
        }
    }

    /// The directory whose order it keeps.
    fn directory(&self) -> u64 {
        match self {
            Change::Made { directory, .. } | Change::Removed { directory, .. } => *directory,
            Change::Renamed { to, .. } => to.0,
        }
    }
}

impl Tree {
    pub fn list(&self, directory: u64) -> impl Iterator<Item = (&OsString, u64, Kind)> {
        self.0.get(&directory).into_iter().flatten().map(|(name, (inode, kind))| (name, *inode, *kind))
    }

    pub fn find(&self, directory: u64, name: &OsStr) -> Option<(u64, Kind)> {
        self.0.get(&directory)?.get(name).copied()
    }

    pub fn name_of(&self, inode: u64) -> Option<&OsStr> {
        let mut all = self.0.values().flatten();
        all.find(|(_, (listed, _))| *listed == inode).map(|(name, _)| name.as_os_str())
    }

    /// The inodes that can be reached from the root.
    pub fn reachable(&self) -> BTreeMap<u64, Kind> {
        let mut found = BTreeMap::from([(ROOT, Kind::Directory)]);
        let mut open = vec![ROOT];
        while let Some(directory) = open.pop() {
            for (_, inode, kind) in self.list(directory) {
                if found.insert(inode, kind).is_none() && kind == Kind::Directory {
                    open.push(inode);
                }
            }
        }
        found
    }

    /// Forgets directories that no name leads to: their numbers are given again.
    fn prune(&mut self) {
        let reachable = self.reachable();
        self.0.retain(|directory, _| reachable.contains_key(directory));
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Made { directory, name, inode, kind } => {
                self.0.entry(*directory).or_default().insert(name.clone(), (*inode, *kind));
            }
            Change::Removed { directory, name } => {
                self.0.entry(*directory).or_default().remove(name);
            }
            Change::Renamed { from, to } => {
                if let Some(moved) = self.0.entry(from.0).or_default().remove(&from.1) {
                    self.0.entry(to.0).or_default().insert(to.1.clone(), moved);
                }
            }
        }
    }

    /// As text: directory, inode, kind, name in hexadecimal digits.
    fn encode(&self) -> String {
        let mut text = String::new();
        for (directory, names) in &self.0 {
            for (name, (inode, kind)) in names {
                let kind = if *kind == Kind::Directory { 'd' } else { 'f' };
                let name: String = name.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                text.push_str(&format!("{directory} {inode} {kind} {name}\n"));
            }
        }
        text
    }

    fn decode(text: &str) -> Option<Tree> {
        let mut tree = Tree::default();
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (directory, inode) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let kind = if fields.next()? == "d" { Kind::Directory } else { Kind::File };
            let digits = fields.next()?;
            let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
            let name = (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>()?;
            tree.0.entry(directory).or_default().insert(OsString::from_vec(name), (inode, kind));
        }
        Some(tree)
    }
}

/// Both images.
#[derive(Default)]
pub struct Names {
    pub now: Tree,
    durable: Tree,
    changes: Vec<Change>,
}

impl Names {
    /// From what [`Names::encode`] gave. None: it is something else.
    pub fn decode(text: &str) -> Option<Names> {
        let mut tree = Tree::decode(text)?;
        tree.prune();
        Some(Names { now: tree.clone(), durable: tree, changes: Vec::new() })
    }

    /// The durable image.
    pub fn encode(&self) -> String {
        self.durable.encode()
    }

    pub fn make(&mut self, directory: u64, name: &OsStr, inode: u64, kind: Kind) {
        self.change(Change::Made { directory, name: name.to_owned(), inode, kind });
    }

    pub fn remove(&mut self, directory: u64, name: &OsStr) {
        self.change(Change::Removed { directory, name: name.to_owned() });
    }

    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) {
        self.change(Change::Renamed { from: (from.0, from.1.to_owned()), to: (to.0, to.1.to_owned()) });
    }

    fn change(&mut self, change: Change) {
        self.now.apply(&change);
        self.changes.push(change);
    }

    pub fn sync(&mut self, directory: u64) {
        for change in self.changes.extract_if(.., |change| change.is_of(directory)) {
            self.durable.apply(&change);
        }
    }

    pub fn sync_all(&mut self) {
        self.changes.clear();
        self.durable = self.now.clone();
    }

    /// What is left after a power cut. Gives how many changes were lost.
    pub fn cut(&mut self, prng: &mut Prng) -> usize {
        let changes = std::mem::take(&mut self.changes);
        let mut kept: BTreeMap<u64, u64> = BTreeMap::new();
        let directories: BTreeSet<u64> = changes.iter().map(Change::directory).collect();
        for directory in directories {
            let count = changes.iter().filter(|change| change.directory() == directory).count();
            kept.insert(directory, prng.below(count as u64 + 1));
        }
        let mut lost = 0;
        for change in &changes {
            match kept.get_mut(&change.directory()) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    self.durable.apply(change);
                }
                _ => lost += 1,
            }
        }
        self.durable.prune();
        self.now = self.durable.clone();
        lost
    }

    /// Inodes that some image still reaches.
    pub fn needed(&self) -> BTreeSet<u64> {
        let mut needed: BTreeSet<u64> = self.now.reachable().into_keys().collect();
        needed.extend(self.durable.reachable().into_keys());
        needed.extend(self.changes.iter().filter_map(|change| match change {
            Change::Made { inode, .. } => Some(*inode),
            _ => None,
        }));
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn a_name_is_durable_with_the_sync_of_its_directory_alone() {
        let mut lost = 0;
        for seed in 0..64 {
            let mut names = Names::default();
            names.make(ROOT, name("d"), 2, Kind::Directory);
            names.sync(ROOT);
            names.make(2, name("kept"), 3, Kind::File);
            names.sync(2);
            names.make(2, name("loose"), 4, Kind::File);
            names.sync(ROOT);
            names.cut(&mut Prng::new(seed));
            assert_eq!(names.now.find(2, name("kept")), Some((3, Kind::File)));
            lost += usize::from(names.now.find(2, name("loose")).is_none());
        }
        assert!((10..54).contains(&lost), "{lost} of 64");
    }

    #[test]
    fn changes_of_a_directory_are_lost_from_the_last_on() {
        for seed in 0..64 {
            let mut names = Names::default();
            names.make(ROOT, name("a.unfinished"), 2, Kind::File);
            names.rename((ROOT, name("a.unfinished")), (ROOT, name("a")));
            names.make(ROOT, name("b"), 3, Kind::File);
            names.cut(&mut Prng::new(seed));
            let there: Vec<bool> = ["a.unfinished", "a", "b"].iter().map(|text| names.now.find(ROOT, name(text)).is_some()).collect();
            assert!(
                [[false, false, false], [true, false, false], [false, true, false], [false, true, true]]
                    .contains(&[there[0], there[1], there[2]])
            );
        }
    }

    #[test]
    fn what_a_lost_directory_held_is_not_found_in_the_next_one_of_its_number() {
        let mut names = Names::default();
        names.make(ROOT, name("lost"), 2, Kind::Directory);
        names.make(2, name("f"), 3, Kind::File);
        names.sync(2);
        let seed = (0..64).find(|seed| Prng::new(*seed).below(2) == 0).expect("half of them");
        assert_eq!(names.cut(&mut Prng::new(seed)), 1);
        assert_eq!(names.now.find(2, name("f")), None);
        assert_eq!(Names::decode("2 3 f 66\n").map(|read| read.now), Some(Tree::default()));
    }

    #[test]
    fn names_read_back() {
        let mut names = Names::default();
        names.make(ROOT, name("d x"), 2, Kind::Directory);
        names.make(2, name("f"), 3, Kind::File);
        names.sync_all();
        assert_eq!(Names::decode(&names.encode()).map(|read| read.now), Some(names.now));
    }
}
