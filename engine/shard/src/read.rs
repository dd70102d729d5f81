//! Reads on the owning shard: from memory, from segments by the ring, and waiting for bytes to come.
//!
//! 1. A read looks at its parts in order: who leads, which epoch, which bounds; what is in memory is lent at once.
//! 2. What is not in memory is read from its segment, one window at a time, off the turn; then the read goes on. The windows of a read are
//!    bounded together, and by the memory there is; a read that has none at all waits for it ([`crate::room`]), until its deadline.
//! 3. Of a window each batch that is given is proved ([`crate::window`]). What does not fit is an error, never the end of the log. What the
//!    device cannot read as a whole is read in part.
//! 4. A window serves all who ask for what is in it, and who reads on where one ended finds the next on its way ([`crate::kept_windows`]).
//! 5. With too few bytes and no error the read waits: its partitions wake it when their commit moves, its deadline ends it. Not when a part
//!    has more than it may give at once: waiting would bring no more. It remembers how many bytes there were, and looks anew in the end.
//!
//! Invariants: nothing at or above the commit is given; only whole batches; the first batch comes whatever its size; a read is
//! answered once, by a look that nothing was waited for after; who waits holds nothing of what it would be given.
//! Knows nothing of fetch sessions or protocols.

use crate::api::{EpochEnd, Read, ReadData, ReadError, ReadPart, Reply};
use crate::engine::{Engine, Turn};
use crate::kept_windows::{Key, WindowAsker};
use crate::lifecycle::{Finish, Then};
use crate::partition::{Partition, Standing};
use crate::queries::INDEX_BYTES_MAX;
use crate::room::Asker;
use crate::script::{Outcome, Step};
use crate::timers::{TimerFor, TimerKey};
use crate::waits::WaitId;
use crate::window::{Cut, WINDOW_BYTES, WINDOW_BYTES_MAX, Walk, Window};
use millrace_base::batch::HEADER_BYTES;
use millrace_base::ids::{PartitionId, ShardId};
use millrace_base::limits::BLOCK;
use millrace_base::offset::{Epoch, Offset};
use millrace_io::{IoError, Pool, Slice};
use millrace_log::segments::Lookup;

/// Windows that are read before they are asked for, for who takes one after the other: the device has something to do while one is sent. Where it
/// has enough to do it is one.
const WINDOWS_AHEAD: usize = 3;

/// For how long windows that have come are looked at in one turn, and while an entry is being written; and how much of one before the clock is
/// looked at: to prove a batch takes as long as its bytes.
const WINDOWS_NS: u128 = 100_000;
const WINDOWS_BESIDE_NS: u128 = 30_000;
const PROVED_AT_ONCE_BYTES: usize = 64 << 10;

/// A read that is not yet answered.
pub struct ReadWait {
    from: ShardId,
    ticket: u64,
    read: Read,
    results: Vec<Option<Result<ReadData, ReadError>>>,
    windows: Vec<Option<Window>>,
    /// Windows under way.
    loading: usize,
    /// Of its deadline, while it waits.
    timer: Option<TimerKey>,
    /// Something that it lacked has come: it must look again.
    stale: bool,
    /// Memory that a window would have taken for which there was no room; 0: nothing was left out.
    lacks: usize,
    /// Another window than the first is needed for a part, and there was no room for it: the part, and what is to be read.
    further: Option<(usize, Window)>,
    /// A part has more than it is given now.
    has_more: bool,
    /// Something was loaded since it looked, and its partitions could not wake it meanwhile.
    has_loaded: bool,
    /// What it would have been given when it began to wait.
    bytes: usize,
}

/// The bytes of a window, for a part of a read.
pub struct WindowRead {
    read: WaitId,
    part: usize,
    bytes: Result<Slice, IoError>,
    /// None: they have not been looked at.
    walk: Option<Walk>,
}

impl WindowRead {
    fn new(read: WaitId, part: usize, bytes: Result<Slice, IoError>) -> WindowRead {
        WindowRead { read, part, bytes, walk: None }
    }
}

/// What a part can be given at once.
enum Look {
    /// What memory has, and whether there is more behind it.
    Done(ReadData, bool),
    Load(Box<Window>, ReadData),
    /// The index of this closed segment is needed first.
    Index(Offset),
}

impl Engine {
    pub fn read(&mut self, t: &mut Turn<'_>, from: ShardId, ticket: u64, mut read: Read) {
        let lent_max = self.memory.lent_bytes_max();
        (read.max_bytes, read.min_bytes) = (read.max_bytes.min(lent_max), read.min_bytes.min(lent_max));
        let results = read.parts.iter().map(|_| None).collect();
        let windows = read.parts.iter().map(|_| None).collect();
        let id = self.reads.insert(ReadWait {
            from,
            ticket,
            read,
            results,
            windows,
            loading: 0,
            timer: None,
            stale: false,
            lacks: 0,
            further: None,
            has_more: false,
            has_loaded: false,
            bytes: 0,
        });
        self.look(t, id);
    }

    /// It has waited for room, and there is some.
    pub fn read_again(&mut self, t: &mut Turn<'_>, id: WaitId) {
        if self.reads.get_mut(id).is_some_and(|wait| wait.loading == 0) {
            self.look(t, id);
        }
    }

    /// Looks at all parts anew.
    fn look(&mut self, t: &mut Turn<'_>, id: WaitId) {
        let Some(mut wait) = self.reads.remove(id) else { return };
        self.read_tickets.remove(&(wait.from, wait.ticket));
        if let Some(timer) = wait.timer.take() {
            t.timers.remove(timer);
        }
        let mut left = wait.read.max_bytes;
        let mut any = false;
        // Windows are longer than what is asked of each: together they may be as long as the answer, or one.
        let windows_max = wait.read.max_bytes.min(self.memory.read.budget() / 4);
        let mut windows = 0;
        let further = wait.further.take();
        (wait.lacks, wait.has_more) = (0, false);
        let (mut scripts, mut indexes, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..wait.read.parts.len() {
            let part = wait.read.parts[index];
            let looked = match self.partitions.get(&part.partition) {
                Some(partition) => look_at(partition, &part, left, !any),
                None => Err(ReadError::UnknownPartition),
            };
            wait.windows[index] = None;
            wait.results[index] = Some(match looked {
                Ok(Look::Done(data, has_more)) => {
                    wait.has_more |= has_more;
                    any |= data.bytes() > 0;
                    left = left.saturating_sub(data.bytes());
                    Ok(data)
                }
                Ok(Look::Load(window, data)) => {
                    let window = match &further {
                        Some((part, further)) if *part == index && further.from == window.from => further.clone(),
                        _ => *window,
                    };
                    let memory = window.memory();
                    if let Some((key, window)) = self.kept_windows.serving(part.partition, &window) {
                        any = true;
                        windows += memory;
                        left = left.saturating_sub(window.max_bytes.min(window.len));
                        kept.push((index, key, window.block()));
                        wait.windows[index] = Some(window);
                    } else if windows > 0 && windows + memory > windows_max {
                        // The client asks again for what is left out.
                        wait.has_more = true;
                    } else if self.has_room_to_read(memory) {
                        // Until it is read, it is counted with what it may bring.
                        any = true;
                        windows += memory;
                        left = left.saturating_sub(window.max_bytes.min(window.len));
                        scripts.push((index, part.partition, window.steps(&self.memory.read), window.clone()));
                        wait.windows[index] = Some(window);
                    } else if wait.lacks == 0 {
                        wait.lacks = memory;
                        wait.further = further.clone().filter(|(part, _)| *part == index);
                    }
                    Ok(data)
                }
                Ok(Look::Index(segment)) => {
                    if windows > 0 && windows + INDEX_BYTES_MAX > windows_max {
                        wait.has_more = true;
                    } else if self.has_room_to_read(INDEX_BYTES_MAX) {
                        any = true;
                        windows += INDEX_BYTES_MAX;
                        indexes.push((part.partition, segment, self.memory.read.take(INDEX_BYTES_MAX)));
                    } else if wait.lacks == 0 {
                        wait.lacks = INDEX_BYTES_MAX;
                    }
                    Ok(self.partitions.get(&part.partition).map(|partition| facts(partition)).unwrap_or_default())
                }
                Err(error) => Err(error),
            });
        }
        wait.loading = scripts.len() + indexes.len() + kept.len();
        wait.has_loaded = wait.loading > 0;
        let id = self.reads.insert(wait);
        for (part, key, block) in kept {
            if let Some(bytes) = self.kept_windows.take(key, WindowAsker { read: id, part, block }, t.now) {
                self.windows_read.push_back(WindowRead::new(id, part, Ok(bytes)));
            }
        }
        for (partition, segment, into) in indexes {
            self.read_index(t, partition, segment, into, Then::Read(id));
        }
        for (part, partition, steps, window) in scripts {
            let asker = WindowAsker { read: id, part, block: window.block() };
            let finish = match self.kept_windows.begin(partition, &window, Some(asker), t.now) {
                Some(key) => Finish::Window { key },
                None => Finish::ColdRead { read: id, part },
            };
            self.start_read(t, partition, steps, finish);
        }
        self.answer_or_wait(t, id);
    }

    fn answer_or_wait(&mut self, t: &mut Turn<'_>, id: WaitId) {
        let Some(wait) = self.reads.get_mut(id) else { return };
        self.read_tickets.insert((wait.from, wait.ticket), id);
        if wait.loading > 0 {
            return;
        }
        if std::mem::take(&mut wait.stale) {
            return self.look(t, id);
        }
        let mut bytes = 0;
        let mut enough = wait.read.deadline <= t.now || wait.read.min_bytes == 0 || wait.read.parts.is_empty() || wait.has_more;
        for result in wait.results.iter().flatten() {
            match result {
                Ok(data) => {
                    bytes += data.bytes();
                    enough |= data.diverging.is_some();
                }
                Err(_) => enough = true,
            }
        }
        let deadline = wait.read.deadline;
        // With something to give it does not wait for room: what it holds is perhaps what others wait for.
        if enough || bytes >= wait.read.min_bytes || (wait.lacks > 0 && bytes > 0) {
            return self.answer_read(t, id);
        }
        wait.bytes = bytes;
        wait.results.iter_mut().flatten().flatten().for_each(|data| data.batches = Vec::new());
        if wait.has_loaded && !self.is_far_from_enough(t, id) {
            return self.look(t, id);
        }
        let wait = self.reads.get_mut(id).expect("it was there above");
        wait.timer = Some(t.timers.add(deadline, TimerFor::Read { slot: id.slot, generation: id.generation }));
        self.routes.park(wait.from, wait.ticket);
        if wait.lacks > 0 {
            let lacks = wait.lacks;
            self.wait_for_room(Asker::Read(id), lacks, t.now);
        }
        // What it leaves behind when it is answered is found dead: to be taken out of each list would cost as much as there are readers.
        let reads = &self.reads;
        for part in reads.get(id).into_iter().flat_map(|wait| &wait.read.parts) {
            if let Some(partition) = self.partitions.get_mut(&part.partition) {
                partition.add_reader(id, |reader| reads.get(reader).is_some());
            }
        }
    }

    fn answer_read(&mut self, t: &mut Turn<'_>, id: WaitId) {
        let Some(wait) = self.reads.remove(id) else { return };
        self.read_tickets.remove(&(wait.from, wait.ticket));
        if let Some(timer) = wait.timer {
            t.timers.remove(timer);
        }
        let results: Vec<_> = wait.results.into_iter().map(|result| result.unwrap_or(Err(ReadError::NotAvailable))).collect();
        for (part, result) in wait.read.parts.iter().zip(&results) {
            let bytes = result.as_ref().map_or(0, |data| data.bytes());
            if let Some(partition) = self.partitions.get_mut(&part.partition).filter(|_| bytes > 0) {
                partition.traffic.fetched_bytes += bytes as u64;
            }
        }
        self.routes.reply(wait.from, wait.ticket, Reply::Read(results));
    }

    /// Reads whose partitions have something new.
    pub fn look_again(&mut self, t: &mut Turn<'_>) {
        let mut woken = std::mem::take(&mut self.woken);
        woken.sort_unstable();
        woken.dedup();
        for same in woken.chunk_by(|a, b| a.0 == b.0) {
            let id = same[0].0;
            if self.reads.get(id).is_none_or(|wait| wait.loading > 0) {
                continue;
            }
            if !self.is_far_from_enough(t, id) {
                self.look(t, id);
                continue;
            }
            let reads = &self.reads;
            for (_, partition) in same {
                if let Some(partition) = self.partitions.get_mut(partition) {
                    partition.add_reader(id, |reader| reads.get(reader).is_some());
                }
            }
        }
    }

    /// Whether a read that waits has nothing to be told yet, found without collecting what there is: with many that wait for much, that
    /// would be done for each of them at each commit. What there was then is remembered, and only what has come since is counted.
    fn is_far_from_enough(&self, t: &Turn<'_>, id: WaitId) -> bool {
        let Some(wait) = self.reads.get(id).filter(|wait| !wait.stale && wait.read.deadline > t.now) else { return false };
        let came_at_most = |(part, looked): (&ReadPart, &Option<Result<ReadData, ReadError>>)| {
            let Some(Ok(data)) = looked else { return None };
            let partition = self.partitions.get(&part.partition)?;
            check_readable(partition).and_then(|()| check_epoch(partition, part.current_epoch)).ok()?;
            let is_in_range = part.offset >= partition.log_start() && part.offset <= partition.read_bound();
            if !is_in_range || diverging(partition, part).is_some() {
                return None;
            }
            // More of what it has no room for changes nothing.
            let is_left_out = wait.lacks > 0 && part.offset < data.commit;
            if is_left_out { Some(0) } else { partition.tail.bytes_at_most(data.commit, partition.read_bound()) }
        };
        let came: Option<u64> = wait.read.parts.iter().zip(&wait.results).map(came_at_most).sum();
        // With something to give it does not wait for room.
        let enough = if wait.lacks > 0 { 1 } else { wait.read.min_bytes };
        came.is_some_and(|came| wait.bytes as u64 + came < enough as u64)
    }

    pub fn read_deadline(&mut self, t: &mut Turn<'_>, id: WaitId) {
        if self.reads.get_mut(id).is_some_and(|wait| wait.loading == 0 && wait.read.deadline <= t.now) {
            self.look(t, id);
        }
    }

    /// The submitter has enough from elsewhere.
    pub fn stop_waiting(&mut self, t: &mut Turn<'_>, from: ShardId, ticket: u64) {
        let Some(id) = self.read_tickets.get(&(from, ticket)).copied() else { return };
        let Some(wait) = self.reads.get_mut(id) else { return };
        wait.read.min_bytes = 0;
        if wait.loading == 0 {
            self.look(t, id);
        }
    }

    /// Starts a script that reads for clients from the data directory of a partition.
    pub fn start_read(&mut self, t: &mut Turn<'_>, partition: PartitionId, steps: Vec<Step>, finish: Finish) {
        let directory = self.partitions.get(&partition).map_or(0, |partition| partition.directory);
        self.scripts.start_read(t.driver, directory, steps, finish);
    }

    /// A window came from a segment: it is looked at when the turn has time for it.
    pub fn window_read(&mut self, read: WaitId, part: usize, result: Result<Outcome, IoError>) {
        self.windows_read.push_back(WindowRead::new(read, part, result.map(Outcome::bytes)));
    }

    /// Looks at the windows that have come, for as long as a turn has time.
    pub fn take_windows(&mut self, t: &mut Turn<'_>) {
        let (began, most) = (t.driver.now(), if self.is_writing() { WINDOWS_BESIDE_NS } else { WINDOWS_NS });
        while let Some(mut come) = self.windows_read.pop_front() {
            match self.go_over(&mut come) {
                Some(cut) => {
                    let (read, part) = (come.read, come.part);
                    drop(come); // its memory may be what another window takes
                    self.take_window(t, read, part, cut);
                }
                None => self.windows_read.push_front(come),
            }
            if t.driver.now().since(began).as_nanos() > most {
                return;
            }
        }
    }

    /// Goes on with a window that has come. None: there is more of it.
    fn go_over(&self, come: &mut WindowRead) -> Option<Result<Cut, IoError>> {
        let Some(wait) = self.reads.get(come.read) else { return Some(Ok(Cut::Nothing)) };
        let bytes = match &come.bytes {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(*error)),
        };
        let window = wait.windows[come.part].as_ref().expect("a window under way is remembered");
        let index = self.partitions.get(&wait.read.parts[come.part].partition).and_then(|found| found.store.index_of(window.segment));
        let walk = come.walk.get_or_insert_with(|| window.walk());
        window.cut_on(walk, PROVED_AT_ONCE_BYTES, bytes, index).map(Ok)
    }

    fn take_window(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, cut: Result<Cut, IoError>) {
        let Some(wait) = self.reads.get_mut(id) else { return };
        wait.loading -= 1;
        let window = wait.windows[part].take().expect("a window under way is remembered");
        let partition = wait.read.parts[part].partition;
        match cut {
            Ok(Cut::Batches(batches, end)) => {
                if let Some(Ok(data)) = &mut wait.results[part] {
                    wait.has_more |= end < data.commit;
                    data.batches = vec![batches];
                }
                self.read_ahead(t, partition, &window, end);
            }
            Ok(Cut::Nothing) => {}
            Ok(Cut::Further { at, size, base }) => return self.read_instead(t, id, part, window.behind(at, size, base)),
            Ok(Cut::Bad(_)) if window.kept => {
                // It is an error when it is read so again.
                self.kept_windows.forget_segment(partition, window.segment);
                return self.read_instead(t, id, part, Window { kept: false, ..window });
            }
            Ok(Cut::Bad(corrupt)) => {
                self.kept_windows.forget_segment(partition, window.segment);
                log::error!("partition {partition} is damaged: {corrupt}");
                wait.results[part] = Some(Err(ReadError::Storage { reason: corrupt.to_string() }));
            }
            // The segment went while it was being read: the log start has moved. If it has not, records are missing.
            Err(IoError::NOT_FOUND) => {
                wait.results[part] = Some(Err(match self.partitions.get(&partition) {
                    Some(partition) if window.from < partition.log_start() => out_of_range(partition),
                    Some(_) => {
                        let reason = format!("{} is missing", window.path.display());
                        log::error!("partition {partition} cannot be read: {reason}");
                        ReadError::Storage { reason }
                    }
                    None => ReadError::UnknownPartition,
                }));
            }
            Err(error) => {
                if let Some(half) = window.half().filter(|_| error == IoError::DEVICE) {
                    let (file, place) = (window.path.display(), window.place);
                    if !window.is_half {
                        let bytes = window.len;
                        log::warn!("partition {partition}: {bytes} bytes from byte {place} of {file} cannot be read at once: {error}");
                    }
                    return self.read_instead(t, id, part, half);
                }
                let reason = format!("{} at byte {}: {error}", window.path.display(), window.place);
                log::error!("partition {partition} cannot be read: {reason}");
                wait.results[part] = Some(Err(ReadError::Storage { reason }));
            }
        }
        self.answer_or_wait(t, id);
    }

    /// Reads another window for a part than the one that came, or waits for room to.
    fn read_instead(&mut self, t: &mut Turn<'_>, id: WaitId, part: usize, window: Window) {
        let has_room = self.has_room_to_read(window.memory());
        let Some(wait) = self.reads.get_mut(id) else { return };
        if has_room {
            let (partition, steps) = (wait.read.parts[part].partition, window.steps(&self.memory.read));
            wait.windows[part] = Some(window);
            wait.loading += 1;
            return self.start_read(t, partition, steps, Finish::ColdRead { read: id, part });
        }
        wait.lacks = window.memory();
        wait.further = Some((part, window));
        self.answer_or_wait(t, id);
    }

    /// Begins to read what lies behind offset `end`, if the reader that was given what `given` has up to there has gone from window to window:
    /// the next window, and more of them for who found this one here and takes whole ones.
    fn read_ahead(&mut self, t: &mut Turn<'_>, id: PartitionId, given: &Window, end: Offset) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if !partition.reads_on(given.from, end) || check_readable(partition).is_err() {
            return;
        }
        let partition = &*partition;
        let (bound, max_bytes, directory) = (partition.read_bound(), given.max_bytes, partition.directory);
        let mut next_windows = Vec::with_capacity(WINDOWS_AHEAD);
        let mut offset = end;
        while offset < bound {
            let part = ReadPart { partition: id, offset, max_bytes, current_epoch: -1, last_read_epoch: -1 };
            let Look::Load(window, _) = fetch(partition, &part, bound, max_bytes, true) else { break };
            let behind = offset_behind(partition, &window).filter(|behind| *behind > offset && max_bytes >= window.len);
            next_windows.push(*window);
            match behind {
                Some(behind) if given.kept && next_windows.len() < WINDOWS_AHEAD => offset = behind,
                _ => break,
            }
        }
        self.kept_windows.passed(id, given, next_windows.first(), self.memory.read.budget());
        for (nth, window) in next_windows.into_iter().enumerate() {
            if self.kept_windows.serving(id, &window).is_some() {
                continue;
            }
            if !self.has_room_to_keep(window.memory()) || (nth > 0 && self.scripts.reads_wait(directory)) {
                return;
            }
            if let Some(key) = self.kept_windows.begin(id, &window, None, t.now) {
                let steps = window.steps(&self.memory.read);
                self.start_read(t, id, steps, Finish::Window { key });
            }
        }
    }

    /// Whether windows may be in memory for whoever asks for them later, and so many bytes more.
    fn has_room_to_keep(&self, more: usize) -> bool {
        let share = &self.memory.read;
        self.room.is_empty() && share.used() + more <= share.budget() / 2
    }

    /// A window is there for those who wait for it. What is wrong with it is met by each of them.
    pub fn window_came(&mut self, key: Key, result: Result<Outcome, IoError>) {
        let is_wanted = self.has_room_to_keep(0);
        for (WindowAsker { read, part, .. }, bytes) in self.kept_windows.came(key, result.map(Outcome::bytes), is_wanted) {
            self.windows_read.push_back(WindowRead::new(read, part, bytes));
        }
    }

    /// An index that a read needed is there: it looks again when nothing else is under way.
    pub fn index_ready_for_read(&mut self, t: &mut Turn<'_>, id: WaitId) {
        let Some(wait) = self.reads.get_mut(id) else { return };
        wait.loading -= 1;
        wait.stale = true;
        self.answer_or_wait(t, id);
    }

    /// A coordinator that loads its log asks for its next bytes.
    pub fn read_for_coordinator(&mut self, t: &mut Turn<'_>, id: PartitionId, from: Offset, to: Offset) {
        let Some(partition) = self.partitions.get(&id) else { return };
        let part = ReadPart { partition: id, offset: from, max_bytes: WINDOW_BYTES_MAX, current_epoch: -1, last_read_epoch: -1 };
        match fetch(partition, &part, to, WINDOW_BYTES_MAX, true) {
            Look::Done(data, _) => {
                let bytes: Vec<&[u8]> = data.batches.iter().map(|slice| &**slice).collect();
                self.coordinator_read(t, id, &bytes);
            }
            Look::Load(window, _) => {
                self.read_window_for_coordinator(t, id, *window);
            }
            Look::Index(segment) if self.has_room_to_read(INDEX_BYTES_MAX) => {
                let into = self.memory.read.take(INDEX_BYTES_MAX);
                self.read_index(t, id, segment, into, Then::Coordinator);
            }
            Look::Index(_) => self.wait_for_room(Asker::Coordinator(id), INDEX_BYTES_MAX, t.now),
        }
    }

    fn read_window_for_coordinator(&mut self, t: &mut Turn<'_>, id: PartitionId, window: Window) {
        if self.has_room_to_read(window.memory()) {
            let steps = window.steps(&self.memory.read);
            self.start_read(t, id, steps, Finish::CoordinatorRead { partition: id, window });
        } else {
            self.wait_for_room(Asker::Coordinator(id), window.memory(), t.now);
        }
    }

    pub fn coordinator_window(&mut self, t: &mut Turn<'_>, id: PartitionId, window: &Window, read: Result<Slice, IoError>) {
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if self.is_out_of_files(t.now, error) => return self.load_coordinator_later(t, id),
            // Once more, and less of it each time: what cannot be read may lie behind what is asked for, or be read the next time.
            Err(error) => match window.half() {
                Some(half) => return self.read_window_for_coordinator(t, id, half),
                None => return self.coordinator_unreadable(id, format!("{} at byte {}: {error}", window.path.display(), window.place)),
            },
        };
        let index = self.partitions.get(&id).and_then(|partition| partition.store.index_of(window.segment));
        match window.cut(&bytes, index) {
            Cut::Batches(batches, _) => self.coordinator_read(t, id, &[&batches]),
            Cut::Further { at, size, base } => {
                let window = window.clone().behind(at, size, base);
                // The coordinator's own records are bounded by the batches that it writes: this window is hardly ever needed, and always had.
                let steps = window.steps(&self.memory.read);
                self.start_read(t, id, steps, Finish::CoordinatorRead { partition: id, window });
            }
            Cut::Bad(corrupt) => self.coordinator_unreadable(id, corrupt.to_string()),
            Cut::Nothing => self.coordinator_read(t, id, &[]),
        }
    }
}

fn out_of_range(partition: &Partition) -> ReadError {
    ReadError::OutOfRange { log_start: partition.log_start(), commit: partition.read_bound() }
}

/// Whether the reader's idea of the leader's epoch is right.
pub fn check_epoch(partition: &Partition, epoch: Epoch) -> Result<(), ReadError> {
    let current = partition.core.epoch();
    match epoch {
        -1 => Ok(()),
        // What was lost may have been of later epochs; there are none of other leaders to be told apart.
        _ if partition.is_damaged() => Ok(()),
        epoch if epoch < current => Err(ReadError::EpochFenced { current }),
        epoch if epoch > current => Err(ReadError::EpochUnknown { current }),
        _ => Ok(()),
    }
}

/// Whether the partition can be read here.
pub fn check_readable(partition: &Partition) -> Result<(), ReadError> {
    match &partition.standing {
        Standing::Serving => {}
        Standing::Damaged { .. } => return Ok(()),
        Standing::Offline { reason } => return Err(ReadError::Storage { reason: reason.clone() }),
        Standing::Deleting => return Err(ReadError::UnknownPartition),
    }
    if !partition.core.is_leader() {
        return Err(ReadError::NotLeader { leader: None, epoch: partition.core.epoch() });
    }
    Ok(())
}

fn look_at(partition: &Partition, part: &ReadPart, left: usize, is_first: bool) -> Result<Look, ReadError> {
    check_readable(partition)?;
    check_epoch(partition, part.current_epoch)?;
    let mut data = facts(partition);
    if let Some(end) = diverging(partition, part) {
        data.diverging = Some(end);
        return Ok(Look::Done(data, false));
    }
    let bound = partition.read_bound();
    if let Standing::Damaged { reason } = &partition.standing
        && part.offset > bound
    {
        // Not out of range, by which readers would go elsewhere: what they want was there.
        return Err(ReadError::Storage { reason: reason.clone() });
    }
    if part.offset < partition.log_start() || part.offset > partition.core.log_end() {
        return Err(out_of_range(partition));
    }
    if part.offset > bound && !partition.core.is_settled() {
        return Err(ReadError::NotAvailable);
    }
    let max_bytes = part.max_bytes.min(left);
    if part.offset >= bound || (max_bytes == 0 && !is_first) {
        return Ok(Look::Done(data, part.offset < bound));
    }
    Ok(fetch(partition, part, bound, max_bytes, is_first))
}

fn facts(partition: &Partition) -> ReadData {
    let commit = partition.read_bound();
    ReadData { commit, stable: commit, log_start: partition.log_start(), ..ReadData::default() }
}

/// The reader's last record is of an epoch that ended here before the offset it asks for.
fn diverging(partition: &Partition, part: &ReadPart) -> Option<EpochEnd> {
    if part.last_read_epoch < 0 || partition.is_damaged() {
        return None;
    }
    let end = partition.core.history().end_of(part.last_read_epoch)?;
    (end.epoch < part.last_read_epoch || end.offset < part.offset).then_some(EpochEnd { epoch: end.epoch, end: end.offset })
}

/// From memory, or the window of a segment to read.
fn fetch(partition: &Partition, part: &ReadPart, bound: Offset, max_bytes: usize, first_whole: bool) -> Look {
    let mut data = facts(partition);
    if let Some((batches, behind)) = partition.tail.read(part.offset, bound, max_bytes, first_whole) {
        data.batches = batches;
        return Look::Done(data, behind < bound);
    }
    let (segment, place, entry) = match partition.store.for_offset(part.offset) {
        Lookup::Place { segment, place, entry } => (segment, place, entry),
        Lookup::NeedsIndex { segment } => return Look::Index(segment),
        // What is above the segments is in memory, and below them nothing is kept.
        Lookup::Above | Lookup::Below => return Look::Done(data, false),
    };
    let Some(summary) = partition.store.summary(segment) else { return Look::Done(data, false) };
    // Together with what lies before it in its block it fills a chunk.
    let skip = (place % BLOCK as u64) as usize;
    let chunk = Pool::size_of((max_bytes.min(WINDOW_BYTES_MAX) + skip).clamp(WINDOW_BYTES, WINDOW_BYTES_MAX));
    let len = (chunk - skip).min((summary.bytes - place) as usize);
    let window = Window {
        path: partition.store.segment_path(segment),
        segment,
        place,
        len: len.max(HEADER_BYTES),
        least: HEADER_BYTES,
        end: summary.bytes,
        base: entry.map_or(segment, |entry| segment + i64::from(entry.relative)),
        from: part.offset,
        // Behind what is checkpointed a write may be under way.
        bound: bound.min(summary.end).min(partition.tail.checkpointed()),
        max_bytes,
        first_whole,
        kept: false,
        is_half: false,
    };
    Look::Load(Box::new(window), data)
}

/// The offset from which on a reader asks that was given all of a window, if the index of its segment has it: of the batch that the window
/// does not have as a whole, or one before it.
fn offset_behind(partition: &Partition, window: &Window) -> Option<Offset> {
    let end = window.place + window.len as u64;
    let index = partition.store.index_of(window.segment)?;
    if end >= window.end {
        return Some(index.summary().end);
    }
    index.for_place(end).map(|entry| window.segment + i64::from(entry.relative))
}
