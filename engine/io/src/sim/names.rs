//! The names of a simulated disk: which are there, and which a power cut leaves.
//!
//! 1. Making, removing and renaming change the present names at once, and wait in order for a sync of their directory.
//! 2. A sync of a directory makes durable what was done in it before, and what that hangs on in other directories (a rename is one step).
//! 3. A power cut keeps of each directory's waiting steps a prefix; a step in two directories is kept in both or in neither. What lies below
//!    a lost directory is lost. Syncing a file does not make its name durable: the strictest reading of the standard.
//!
//! Invariants: the parent of every present name is a present directory.
//! Knows nothing of contents.

use super::Loss;
use crate::driver::IoError;
use millrace_base::prng::Prng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    File(u64),
    Directory,
}

#[derive(Clone)]
enum Step {
    Make(PathBuf, Named),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Clone)]
struct Waiting {
    number: u64,
    step: Step,
}

impl Waiting {
    fn directories(&self) -> Vec<PathBuf> {
        match &self.step {
            Step::Make(path, _) | Step::Remove(path) => vec![parent(path)],
            Step::Rename(from, to) => vec![parent(from), parent(to)],
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Names {
    present: BTreeMap<PathBuf, Named>,
    durable: BTreeMap<PathBuf, Named>,
    waiting: Vec<Waiting>,
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_path_buf()
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}

fn apply(names: &mut BTreeMap<PathBuf, Named>, step: &Step) {
    match step {
        Step::Make(path, named) => {
            names.insert(path.clone(), *named);
        }
        Step::Remove(path) => {
            names.remove(path);
        }
        Step::Rename(from, to) => {
            let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for old in moved {
                let named = names.remove(&old).expect("just listed");
                let below = old.strip_prefix(from).expect("listed by this prefix");
                let new = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                names.insert(new, named);
            }
        }
    }
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Named> {
        if is_root(path) { Some(Named::Directory) } else { self.present.get(path).copied() }
    }

    /// The parent is a directory that is there.
    pub(super) fn check_parent(&self, path: &Path) -> Result<(), IoError> {
        for above in path.ancestors().skip(1) {
            match self.get(above) {
                Some(Named::Directory) => return Ok(()),
                Some(Named::File(_)) => return Err(IoError(libc::ENOTDIR)),
                None if self.get(&parent(above)) == Some(Named::Directory) => return Err(IoError::NOT_FOUND),
                None => {}
            }
        }
        Err(IoError::NOT_FOUND)
    }

    fn does(&mut self, number: u64, step: Step) {
        apply(&mut self.present, &step);
        self.waiting.push(Waiting { number, step });
    }

    pub(super) fn present(&self) -> impl Iterator<Item = (&Path, Named)> {
        self.present.iter().map(|(path, named)| (path.as_path(), *named))
    }

    pub(super) fn children(&self, path: &Path) -> impl Iterator<Item = (&Path, Named)> {
        let at = path.to_path_buf();
        self.present.iter().filter(move |(child, _)| child.parent() == Some(&at)).map(|(child, named)| (child.as_path(), *named))
    }

    pub(super) fn make(&mut self, number: u64, path: &Path, named: Named) -> Result<(), IoError> {
        if self.get(path).is_some() {
            return Err(IoError::EXISTS);
        }
        self.check_parent(path)?;
        self.does(number, Step::Make(path.to_path_buf(), named));
        Ok(())
    }

    pub(super) fn unlink(&mut self, number: u64, path: &Path) -> Result<(), IoError> {
        self.check_parent(path)?;
        match self.get(path) {
            None => Err(IoError::NOT_FOUND),
            Some(Named::Directory) => Err(IoError(libc::EISDIR)),
            Some(Named::File(_)) => {
                self.does(number, Step::Remove(path.to_path_buf()));
                Ok(())
            }
        }
    }

    pub(super) fn remove_directory(&mut self, number: u64, path: &Path) -> Result<(), IoError> {
        self.check_parent(path)?;
        match self.get(path) {
            None => Err(IoError::NOT_FOUND),
            Some(Named::File(_)) => Err(IoError(libc::ENOTDIR)),
            Some(Named::Directory) if self.children(path).next().is_some() => Err(IoError(libc::ENOTEMPTY)),
            Some(Named::Directory) => {
                self.does(number, Step::Remove(path.to_path_buf()));
                Ok(())
            }
        }
    }

    pub(super) fn rename(&mut self, number: u64, from: &Path, to: &Path) -> Result<(), IoError> {
        self.check_parent(from)?;
        self.check_parent(to)?;
        let source = self.get(from).ok_or(IoError::NOT_FOUND)?;
        match (source, self.get(to)) {
            _ if from == to => return Ok(()),
            (Named::Directory, _) if to.starts_with(from) => return Err(IoError(libc::EINVAL)),
            (Named::Directory, Some(Named::File(_))) => return Err(IoError(libc::ENOTDIR)),
            (Named::File(_), Some(Named::Directory)) => return Err(IoError(libc::EISDIR)),
            (Named::Directory, Some(Named::Directory)) if self.children(to).next().is_some() => {
                return Err(IoError(libc::ENOTEMPTY));
            }
            (Named::File(_), Some(Named::File(_)) | None) | (Named::Directory, Some(Named::Directory) | None) => {}
        }
        self.does(number, Step::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    /// Makes durable what was done in `path` up to `number`.
    pub(super) fn sync(&mut self, number: u64, path: &Path) {
        let mut synced = BTreeSet::from([path.to_path_buf()]);
        let mut covered = vec![false; self.waiting.len()];
        // Backwards: a step in two directories draws in what came before it in the other.
        for (at, waiting) in self.waiting.iter().enumerate().rev() {
            let directories = waiting.directories();
            if waiting.number <= number && directories.iter().any(|directory| synced.contains(directory)) {
                covered[at] = true;
                synced.extend(directories);
            }
        }
        let mut covered = covered.into_iter();
        let durable = &mut self.durable;
        self.waiting.retain(|waiting| {
            let now = covered.next().expect("one for each");
            if now {
                apply(durable, &waiting.step);
            }
            !now
        });
    }

    pub(super) fn cut_power(&mut self, loss: Loss, keep_to: u64, prng: &mut Prng) {
        self.cut_to(&mut |number| match loss {
            Loss::Seeded => !prng.one_in(3),
            Loss::All => false,
            Loss::Nothing | Loss::TornLast => true,
            Loss::Suffix => number <= keep_to,
        });
    }

    /// The numbers of the steps that wait.
    pub(super) fn undurable(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|waiting| waiting.number)
    }

    /// Of the steps that wait those are done that are `kept`, as far as the module's head allows.
    pub(super) fn cut_to(&mut self, kept: &mut dyn FnMut(u64) -> bool) {
        let mut stopped = BTreeSet::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let directories = waiting.directories();
            if kept(waiting.number) && !directories.iter().any(|directory| stopped.contains(directory)) {
                apply(&mut self.durable, &waiting.step);
            } else {
                stopped.extend(directories);
            }
        }
        let mut present: BTreeMap<PathBuf, Named> = BTreeMap::new();
        for (path, named) in &self.durable {
            // Parents sort before what is below them.
            let above = parent(path);
            if is_root(&above) || present.get(&above) == Some(&Named::Directory) {
                present.insert(path.clone(), *named);
            }
        }
        self.durable.clone_from(&present);
        self.present = present;
    }

    /// Files that any name, present or durable, or any waiting step leads to.
    pub(super) fn files(&self) -> BTreeSet<u64> {
        let made = self.waiting.iter().filter_map(|waiting| match waiting.step {
            Step::Make(_, Named::File(file)) => Some(file),
            Step::Make(_, Named::Directory) | Step::Remove(_) | Step::Rename(..) => None,
        });
        let named = self.present.values().chain(self.durable.values()).filter_map(|named| match named {
            Named::File(file) => Some(*file),
            Named::Directory => None,
        });
        named.chain(made).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.make(1, Path::new("/d"), Named::Directory).unwrap();
        names.make(2, Path::new("/e"), Named::Directory).unwrap();
        names.sync(2, Path::new("/"));
        names
    }

    fn left(mut names: Names, loss: Loss) -> Vec<String> {
        names.cut_power(loss, 0, &mut Prng::new(1));
        names.present.keys().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_name_is_durable_when_its_directory_was_synced() {
        let mut names = names();
        names.make(3, Path::new("/d/kept"), Named::File(1)).unwrap();
        names.sync(3, Path::new("/d"));
        names.make(4, Path::new("/d/lost"), Named::File(2)).unwrap();
        names.unlink(5, Path::new("/d/kept")).unwrap();
        assert_eq!(left(names, Loss::All), ["/d", "/d/kept", "/e"]);
    }

    #[test]
    fn a_rename_is_durable_in_both_directories_or_in_neither() {
        let mut names = names();
        names.make(3, Path::new("/d/a"), Named::File(1)).unwrap();
        names.rename(4, Path::new("/d/a"), Path::new("/e/b")).unwrap();
        names.sync(4, Path::new("/e"));
        assert_eq!(left(names, Loss::All), ["/d", "/e", "/e/b"]);
    }

    #[test]
    fn what_lies_below_a_lost_directory_is_lost() {
        let mut names = names();
        names.make(3, Path::new("/d/f"), Named::Directory).unwrap();
        names.make(4, Path::new("/d/f/x"), Named::File(1)).unwrap();
        names.sync(4, Path::new("/d/f"));
        assert_eq!(left(names, Loss::All), ["/d", "/e"]);
    }
}
