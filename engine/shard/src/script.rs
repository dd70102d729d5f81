//! File work that takes several operations, one after the other, outside the journal: checkpoints, rolls, deletions, cold reads.
//!
//! A script is a list of steps and what to tell when they are done. The first step that fails ends it, but for removals: what cannot be
//! removed is in the outcome, and the others go on. Files that a script opens are numbered in order of opening and are left open for
//! whoever is told, unless a step closes them.
//!
//! A script that fails closes what it has opened.
//!
//! Reads that clients wait for are bounded a data directory, and others wait for their turn: the device's queue is the journal's too. While
//! the journal is being written to they are fewer, and read in pieces ([`crate::beside`]).
//!
//! What only removes files waits for its turn too: the files of a topic with thousands of partitions would take the core for seconds.
//!
//! Invariants: one operation of a script in flight at a time; a finished or failed script is told exactly once; no reading script of a data
//! directory begins while as many have as may, and one of them runs while others wait.
//! Knows nothing of partitions or of why the work is done.

use crate::beside::{Beside, READ_BESIDE_BYTES};
use crate::token::{self, Purpose};
use millrace_base::clock::Nanos;
use millrace_base::ids::DirectoryIndex;
use millrace_base::limits::BLOCK;
use millrace_base::planted::{Bug, is_planted};
use millrace_io::{Completion, Driver, File, IoError, Memory, Op, OpenHow, Slice, Space};
use std::collections::VecDeque;
use std::path::PathBuf;

/// The least that a device transfers: a direct read that ends inside one has met the end of the file.
const SECTOR: usize = 512;

/// Scripts at once that only remove files: each takes a worker's time, which comes before the shard's, and on some file systems the device's
/// (`discard`).
const REMOVALS_MAX: usize = 1;

/// A file that is open already, or the n-th that this script opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handle {
    Open(File),
    Nth(usize),
}

#[derive(Debug)]
pub enum Step {
    Open {
        path: PathBuf,
        how: OpenHow,
    },
    /// Reads `len` bytes or to the end of the file; the space and the count are in the outcome. `into` is Some at first.
    Read {
        file: Handle,
        place: u64,
        into: Option<Space>,
        len: u32,
    },
    Write {
        file: Handle,
        place: u64,
        from: Slice,
    },
    Sync(Handle),
    SyncDirectory(PathBuf),
    Truncate {
        file: Handle,
        len: u64,
    },
    Allocate {
        file: Handle,
        len: u64,
    },
    Close(Handle),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    /// Absent is as good.
    Unlink(PathBuf),
    /// Present is as good.
    MakeDirectory(PathBuf),
    /// The same, and its parent too if that is absent.
    MakeDirectories(PathBuf),
    /// Absent or not empty is as good.
    RemoveDirectory(PathBuf),
}

/// Opens a file, reads once from it, closes it. `direct`: `place` and `len` are whole blocks.
pub fn read_once(path: PathBuf, direct: bool, place: u64, into: Space, len: usize) -> Vec<Step> {
    vec![
        Step::Open { path, how: OpenHow { direct, ..OpenHow::default() } },
        Step::Read { file: Handle::Nth(0), place, into: Some(into), len: len as u32 },
        Step::Close(Handle::Nth(0)),
    ]
}

/// What a script gave.
#[derive(Debug, Default)]
pub struct Outcome {
    pub opened: Vec<File>,
    pub read: Vec<(Space, usize)>,
    /// Files and folders that are still there, and why.
    pub unremoved: Vec<(PathBuf, IoError)>,
}

impl Outcome {
    /// The bytes that a script with one read brought.
    pub fn bytes(mut self) -> Slice {
        let (mut space, len) = self.read.pop().expect("the script reads once");
        space.freeze(len)
    }
}

struct Running<F> {
    steps: VecDeque<Step>,
    outcome: Outcome,
    /// Of the opened files: whether they bypass the page cache, and whether they are open still.
    direct: Vec<bool>,
    open: Vec<bool>,
    /// Bytes of the step at the front that are done; of a direct read, whole blocks.
    progress: usize,
    /// Where the step's last read ended; a direct one that ends there again has met the end of the file.
    read_end: usize,
    among: Among,
    finish: F,
}

/// What a script is counted among.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Among {
    All,
    /// The reads of a data directory.
    Reads(DirectoryIndex),
    Removals,
}

/// Scripts that wait until fewer of their kind run.
struct Line<F> {
    begun: usize,
    waiting: VecDeque<(Vec<Step>, F)>,
}

impl<F> Default for Line<F> {
    fn default() -> Line<F> {
        Line { begun: 0, waiting: VecDeque::new() }
    }
}

impl<F> Line<F> {
    /// The one that begins now, if fewer than `most` have.
    fn next(&mut self, most: usize) -> Option<(Vec<Step>, F)> {
        let next = if self.begun < most { self.waiting.pop_front() } else { None };
        self.begun += usize::from(next.is_some());
        next
    }
}

/// The reading scripts of a data directory.
struct Reads<F> {
    line: Line<F>,
    beside: Beside,
}

/// All scripts of one shard; `F` says what a script was for.
pub struct Scripts<F> {
    slots: Vec<Option<Running<F>>>,
    free: Vec<u32>,
    /// Those that wait to begin too.
    running: usize,
    /// By data directory.
    reads: Vec<Reads<F>>,
    removals: Line<F>,
}

impl<F> Default for Scripts<F> {
    fn default() -> Scripts<F> {
        Scripts { slots: Vec::new(), free: Vec::new(), running: 0, reads: Vec::new(), removals: Line::default() }
    }
}

impl<F> Scripts<F> {
    pub fn running(&self) -> usize {
        self.running
    }

    /// Starts a script of at least one step.
    pub fn start(&mut self, driver: &mut dyn Driver, steps: Vec<Step>, finish: F) {
        self.running += 1;
        self.begin(driver, steps, Among::All, finish);
    }

    /// Starts a script that only removes files, now or after others.
    pub fn start_removal(&mut self, driver: &mut dyn Driver, steps: Vec<Step>, finish: F) {
        self.running += 1;
        self.removals.waiting.push_back((steps, finish));
        self.begin_removals(driver);
    }

    fn begin_removals(&mut self, driver: &mut dyn Driver) {
        while let Some((steps, finish)) = self.removals.next(REMOVALS_MAX) {
            self.begin(driver, steps, Among::Removals, finish);
        }
    }

    /// Starts a script that reads from a data directory, now or after others.
    pub fn start_read(&mut self, driver: &mut dyn Driver, directory: DirectoryIndex, steps: Vec<Step>, finish: F) {
        self.running += 1;
        self.reads_of(directory).line.waiting.push_back((steps, finish));
        self.begin_reads(driver, directory);
    }

    /// Whether a script that reads from a data directory waits for others to end.
    pub fn reads_wait(&self, directory: DirectoryIndex) -> bool {
        self.reads.get(directory as usize).is_some_and(|reads| !reads.line.waiting.is_empty())
    }

    /// An entry of a data directory's journal is being written.
    pub fn entry_began(&mut self, directory: DirectoryIndex, generation: u32, has_batches: bool, now: Nanos) {
        let reads = self.reads_of(directory);
        reads.beside.entry_began(generation, has_batches, reads.line.begun, now);
    }

    /// It is durable.
    pub fn entry_ended(&mut self, directory: DirectoryIndex, generation: u32, now: Nanos) {
        self.reads_of(directory).beside.entry_ended(generation, now);
    }

    fn reads_of(&mut self, directory: DirectoryIndex) -> &mut Reads<F> {
        while self.reads.len() <= directory as usize {
            self.reads.push(Reads { line: Line::default(), beside: Beside::default() });
        }
        &mut self.reads[directory as usize]
    }

    fn begin_reads(&mut self, driver: &mut dyn Driver, directory: DirectoryIndex) {
        let most = self.reads_of(directory).beside.reads_max(driver.now());
        while let Some((steps, finish)) = self.reads_of(directory).line.next(most) {
            self.begin(driver, steps, Among::Reads(directory), finish);
        }
    }

    fn begin(&mut self, driver: &mut dyn Driver, steps: Vec<Step>, among: Among, finish: F) {
        assert!(!steps.is_empty());
        let is_left_out = |step: &Step| matches!(step, Step::SyncDirectory(_)) && is_planted(Bug::SkipDirectorySync);
        let steps: VecDeque<Step> = steps.into_iter().filter(|step| !is_left_out(step)).collect();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        let (outcome, direct, open) = (Outcome::default(), Vec::new(), Vec::new());
        let mut running = Running { steps, outcome, direct, open, progress: 0, read_end: 0, among, finish };
        running.submit(driver, slot, &self.reads);
        self.slots[slot as usize] = Some(running);
    }

    /// Takes one completion; gives the script's end if this was it.
    pub fn completed(&mut self, driver: &mut dyn Driver, completion: Completion) -> Option<(F, Result<Outcome, IoError>)> {
        let (_, slot, _) = token::unpack(completion.token);
        let running = self.slots.get_mut(slot as usize)?.as_mut()?;
        match running.advance(completion) {
            Ok(true) => {
                running.submit(driver, slot, &self.reads);
                None
            }
            Ok(false) => self.end(driver, slot, Ok(())),
            Err(error) => {
                for (file, _) in running.outcome.opened.iter().zip(&running.open).filter(|(_, is_open)| **is_open) {
                    driver.submit(Op::Close { file: *file }, token::pack(Purpose::Nobody, 0, 0));
                }
                self.end(driver, slot, Err(error))
            }
        }
    }

    fn end(&mut self, driver: &mut dyn Driver, slot: u32, result: Result<(), IoError>) -> Option<(F, Result<Outcome, IoError>)> {
        let running = self.slots[slot as usize].take()?;
        self.free.push(slot);
        self.running -= 1;
        match running.among {
            Among::All => {}
            Among::Reads(directory) => {
                self.reads[directory as usize].line.begun -= 1;
                self.begin_reads(driver, directory);
            }
            Among::Removals => {
                self.removals.begun -= 1;
                self.begin_removals(driver);
            }
        }
        Some((running.finish, result.map(|()| running.outcome)))
    }
}

impl<F> Running<F> {
    fn file(&self, handle: Handle) -> File {
        match handle {
            Handle::Open(file) => file,
            Handle::Nth(n) => self.outcome.opened[n],
        }
    }

    /// Submits the operation that is next.
    fn submit(&mut self, driver: &mut dyn Driver, slot: u32, reads: &[Reads<F>]) {
        let is_beside = matches!(self.among, Among::Reads(directory) if reads[directory as usize].beside.is_beside(driver.now()));
        let read_bytes_max = if is_beside { READ_BESIDE_BYTES } else { u32::MAX };
        let done = self.progress;
        let op = match self.steps.front_mut().expect("a running script has a step") {
            Step::Open { path, how } => Op::Open { path: path.clone(), how: *how },
            Step::Read { file, place, into, len } => {
                let (file, place, len) = (*file, *place + done as u64, (*len - done as u32).min(read_bytes_max));
                let into = into.take().expect("at the start, and between two operations, the script holds the space");
                Op::Read { file: self.file(file), place, into, at: done as u32, len }
            }
            Step::Write { file, place, from } => {
                let (file, place, from) = (*file, *place + done as u64, from.sub(done..from.len()));
                Op::Write { file: self.file(file), place, from, synced: false }
            }
            Step::Sync(file) => {
                let file = *file;
                Op::Sync { file: self.file(file) }
            }
            Step::SyncDirectory(path) => Op::SyncDirectory { path: path.clone() },
            Step::Truncate { file, len } => {
                let (file, len) = (*file, *len);
                Op::Truncate { file: self.file(file), len }
            }
            Step::Allocate { file, len } => {
                let (file, len) = (*file, *len);
                Op::Allocate { file: self.file(file), len }
            }
            Step::Close(file) => {
                let file = *file;
                Op::Close { file: self.file(file) }
            }
            Step::Rename { from, to } => Op::Rename { from: from.clone(), to: to.clone() },
            Step::Unlink(path) => Op::Unlink { path: path.clone() },
            Step::MakeDirectory(path) | Step::MakeDirectories(path) => Op::MakeDirectory { path: path.clone() },
            Step::RemoveDirectory(path) => Op::RemoveDirectory { path: path.clone() },
        };
        driver.submit(op, token::pack(Purpose::Task, slot, 0));
    }

    /// Whether another operation is to be submitted.
    fn advance(&mut self, completion: Completion) -> Result<bool, IoError> {
        let is_direct = matches!(self.steps.front(), Some(Step::Read { file: Handle::Nth(n), .. }) if self.direct[*n]);
        let step = self.steps.front_mut().expect("a running script has a step");
        if let (Step::Read { into, .. }, Memory::Space(space)) = (&mut *step, completion.memory) {
            *into = Some(space);
        }
        match (step, completion.result) {
            (Step::Read { into, len, .. }, Ok(bytes)) => {
                let end = self.progress + bytes as usize;
                let is_file_end = bytes == 0 || (is_direct && (end == self.read_end || !end.is_multiple_of(SECTOR)));
                if !is_file_end && end < *len as usize {
                    (self.read_end, self.progress) = (end, if is_direct { end / BLOCK * BLOCK } else { end });
                    return Ok(true);
                }
                let space = into.take().expect("came back with the completion");
                self.outcome.read.push((space, end));
            }
            (Step::Open { how, .. }, Ok(number)) => {
                self.direct.push(how.direct);
                self.open.push(true);
                self.outcome.opened.push(File(number));
            }
            (Step::Write { .. }, Ok(0)) => return Err(IoError::DEVICE),
            (Step::Write { from, .. }, Ok(bytes)) => {
                self.progress += bytes as usize;
                if self.progress < from.len() {
                    return Ok(true);
                }
            }
            (Step::Close(Handle::Nth(n)), Ok(_)) => self.open[*n] = false,
            (_, Ok(_)) => {}
            (Step::Unlink(_) | Step::RemoveDirectory(_), Err(IoError::NOT_FOUND)) => {}
            (Step::RemoveDirectory(_), Err(error)) if error == IoError::NOT_EMPTY => {}
            (Step::Unlink(path) | Step::RemoveDirectory(path), Err(error)) => self.outcome.unremoved.push((path.clone(), error)),
            (Step::MakeDirectory(_) | Step::MakeDirectories(_), Err(IoError::EXISTS)) => {}
            (Step::MakeDirectories(path), Err(error @ IoError::NOT_FOUND)) => {
                let parent = path.parent().ok_or(error)?.to_owned();
                self.steps.push_front(Step::MakeDirectory(parent));
                return Ok(true);
            }
            (Step::Sync(_) | Step::SyncDirectory(_), Err(_)) if is_planted(Bug::IgnoreSyncError) => {}
            (_, Err(error)) => return Err(error),
        }
        self.steps.pop_front();
        (self.progress, self.read_end) = (0, 0);
        Ok(!self.steps.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beside::{BESIDE_MS, READS_MAX};
    use millrace_io::sim::{Rates, World};
    use millrace_io::{Disk, Pool, Wait};

    /// A world with one file of a block.
    fn world() -> World {
        let world = World::new(3, Rates::CALM);
        let mut disk = world.disk(0);
        let file = disk.open(&PathBuf::from("a"), OpenHow { write: true, create: true, ..OpenHow::default() }).unwrap();
        disk.write(file, 0, &[7; BLOCK]).unwrap();
        world
    }

    /// Runs all scripts to their ends.
    fn run(
        world: &World,
        driver: &mut dyn Driver,
        scripts: &mut Scripts<usize>,
        mut look: impl FnMut(&Scripts<usize>),
    ) -> Vec<(usize, Result<Outcome, IoError>)> {
        let (mut ended, mut completions) = (Vec::new(), Vec::new());
        while scripts.running() > 0 {
            look(scripts);
            driver.poll(Wait::No, &mut completions);
            if completions.is_empty() {
                assert!(world.step(), "nothing is under way");
            }
            for completion in completions.drain(..) {
                ended.extend(scripts.completed(driver, completion));
            }
        }
        ended
    }

    #[test]
    fn beside_a_journal_that_is_written_to_reads_are_fewer_and_in_pieces() {
        let piece = READ_BESIDE_BYTES as usize;
        let (world, pool) = (World::new(3, Rates::CALM), Pool::new(64 << 20));
        let bytes: Vec<u8> = (0..2 * piece + 3 * BLOCK + 700).map(|at| (at / 64) as u8).collect();
        let mut disk = world.disk(0);
        let file = disk.open(&PathBuf::from("a"), OpenHow { write: true, create: true, ..OpenHow::default() }).unwrap();
        disk.write(file, 0, &bytes).unwrap();
        let mut driver = world.driver(0);
        let mut scripts: Scripts<usize> = Scripts::default();
        for is_beside in [true, false] {
            if is_beside {
                scripts.entry_began(0, 0, true, driver.now());
            }
            // Up to the end of the file and past it, and of whole pieces.
            let lens = [4 * piece, 2 * piece, piece + BLOCK, BLOCK];
            for number in 0..3 * READS_MAX {
                let len = lens[number % lens.len()];
                scripts.start_read(&mut driver, 0, read_once(PathBuf::from("a"), true, 0, pool.take(len), len), number);
            }
            let (mut most, mut progress) = (0, 0);
            let ended = run(&world, &mut driver, &mut scripts, |scripts| {
                let begun = || scripts.slots.iter().flatten();
                most = most.max(begun().count());
                progress = progress.max(begun().map(|running| running.progress).max().unwrap_or(0));
            });
            assert_eq!(ended.len(), 3 * READS_MAX);
            for (number, outcome) in ended {
                let expected = &bytes[..lens[number % lens.len()].min(bytes.len())];
                assert!(*outcome.unwrap().bytes() == *expected, "{number}");
            }
            assert_eq!(most, if is_beside { 1 } else { READS_MAX });
            assert_eq!(progress > 0, is_beside, "in pieces");
            let later = driver.now().plus_ms(BESIDE_MS);
            while driver.now() < later {
                driver.poll(Wait::Until(later), &mut Vec::new());
                assert!(world.step());
            }
        }
    }

    #[test]
    fn removals_are_bounded_and_all_are_done() {
        let world = world();
        let mut disk = world.disk(0);
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let paths: Vec<PathBuf> = (0..50).map(|number| PathBuf::from(format!("/{number}"))).collect();
        for path in &paths {
            disk.open(path, how).unwrap();
        }
        let mut driver = world.driver(0);
        let mut scripts: Scripts<usize> = Scripts::default();
        for (number, path) in paths.iter().enumerate() {
            scripts.start_removal(&mut driver, vec![Step::Unlink(path.clone()), Step::Unlink(path.clone())], number);
        }
        let begun = |scripts: &Scripts<usize>| scripts.slots.iter().flatten().count();
        let mut ended = run(&world, &mut driver, &mut scripts, |scripts| assert_eq!(begun(scripts), REMOVALS_MAX.min(scripts.running())));
        ended.sort_unstable_by_key(|(number, _)| *number);
        assert!(ended.into_iter().map(|(number, _)| number).eq(0..50), "each once");
        assert!(paths.iter().all(|path| disk.open(path, OpenHow::default()).is_err()));
    }

    #[test]
    fn reads_of_a_data_directory_are_bounded_and_the_others_begin_as_they_end() {
        let world = world();
        let (mut driver, pool) = (world.driver(0), Pool::new(1 << 20));
        let read = |name: &str| read_once(PathBuf::from(name), true, 0, pool.take(BLOCK), BLOCK);
        let mut scripts: Scripts<usize> = Scripts::default();
        let all = READS_MAX * 3;
        for number in 0..all {
            // Every other one fails, and one directory does not stand in another's way.
            let name = if number % 2 == 0 { "a" } else { "absent" };
            scripts.start_read(&mut driver, 0, read(name), number);
        }
        scripts.start_read(&mut driver, 1, read("a"), all);
        assert_eq!(scripts.running(), all + 1);
        let begun = |scripts: &Scripts<usize>| scripts.slots.iter().flatten().filter(|running| running.among == Among::Reads(0)).count();
        let other = |scripts: &Scripts<usize>| scripts.slots.iter().flatten().any(|running| running.among == Among::Reads(1));
        let look = |scripts: &Scripts<usize>| {
            assert_eq!(begun(scripts), READS_MAX.min(scripts.running() - usize::from(other(scripts))));
        };
        let mut ended = run(&world, &mut driver, &mut scripts, look);
        assert!(ended.iter().all(|(number, result)| result.is_ok() == (*number == all || number % 2 == 0)));
        ended.sort_unstable_by_key(|(number, _)| *number);
        assert!(ended.into_iter().map(|(number, _)| number).eq(0..=all));
    }
}
