//! The segments of one partition: the closed ones, the active one, and the rolls that are stated but not yet carried out.
//!
//! 1. Appended batches are counted against the active segment at once, so that a roll is decided before the batch that would pass its
//!    bounds; the roll is stated in the journal before that batch.
//! 2. A checkpoint writes batches into the active segment in whole blocks; the block that is only part-filled is kept here, since it is
//!    written again with the same bytes in front. A direct append does the same with its own batch, but leaves the last part-filled block out.
//! 3. Batches that are durable in the segment are indexed when they are to be stated: the index ends where the last checkpoint does.
//! 4. When a checkpoint reaches a roll's base the segment is closed: cut to its bytes, its index written beside it.
//!
//! Invariants: segments are in order without gaps; indexed bytes <= durable bytes <= planned bytes <= counted bytes; the kept block's
//! bytes = planned bytes mod a block; no block has two writes in flight.
//! Knows nothing of the ring: it plans, the engine executes.

use millrace_base::batch::Header;
use millrace_base::clock::{Nanos, WallMs};
use millrace_base::ids::PartitionId;
use millrace_base::limits::BLOCK;
use millrace_base::offset::Offset;
use millrace_base::prng::Prng;
use millrace_io::{File, Pool, Slice};
use millrace_log::extent::Layout;
use millrace_log::index::{Entry, Index, NO_TIMESTAMP, Summary};
use millrace_log::partition_state::{ROLLS_MAX, StateFile};
use millrace_log::segments::{Lookup, Segments};
use millrace_log::{paths, retention, walk};
use millrace_state::meta::topic_configs::TopicConfig;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use crate::tail::Tail;

/// The largest write into a segment at once.
pub const WRITE_BYTES_MAX: usize = 4 << 20;

/// Bytes to be written into the active segment.
pub struct Write {
    pub place: u64,
    /// Whole blocks.
    pub bytes: Slice,
    /// Batches below this offset are durable with it.
    pub end: Offset,
}

/// Bytes that wait in the journal and may go in front of a direct append: what comes while a segment is closed and the next one gets room.
/// More are checkpoints' work.
pub const FRONT_BYTES_MAX: usize = 256 << 20;

/// Room that is reserved at a time for direct appends.
const ALLOCATE_BYTES: std::ops::RangeInclusive<u64> = (4 << 20)..=(32 << 20);

/// An index of fewer bytes closes no segment: with the usual interval, a segment of 1 MiB.
const INDEX_BYTES_MIN: usize = 5_120;

/// See the module's head.
pub struct Store {
    folder: PathBuf,
    pub segments: Segments,
    /// Indexes of closed segments that were needed, by base.
    indexes: BTreeMap<Offset, Arc<Index>>,
    /// The active segment's file, when open.
    pub file: Option<File>,
    /// Bases of segments that are stated and not begun.
    pub rolls: VecDeque<Offset>,
    /// Bytes planned to be in the active segment, and the offset at which they end.
    planned: u64,
    planned_end: Offset,
    /// Of them, from the front, those that are durable in it.
    durable: u64,
    /// Bytes behind the last whole block of what is planned.
    part: Vec<u8>,
    /// They stand in the journal only.
    is_part_unwritten: bool,
    /// A checkpoint's write is under way, or waits for room.
    pub is_writing: bool,
    /// A state file is being written that ends where the index does now.
    pub is_writing_state: bool,
    /// Bytes of the active segment's file for which there is room.
    allocated: u64,
    /// Whether the folder is known to be there.
    pub has_folder: bool,
    /// Whether the active segment's file and its name are known to be durable.
    pub has_file: bool,
    /// Counted for the newest segment, written or not.
    newest: Summary,
    newest_since: Nanos,
    /// How old it was at the start already: the time between its first and its latest records, by their own timestamps, as Kafka counts.
    newest_age_ms: i64,
    first_timestamp: WallMs,
    newest_written: Nanos,
    /// Entries that its index has or will have, and where the last one stands.
    newest_entries: usize,
    newest_entry_at: u64,
    /// When segments in front of the newest were last appended to, by base; those that were there at the start count from then.
    written: BTreeMap<Offset, Nanos>,
    started: Nanos,
    /// As of the last checkpoint stated: the active segment and its bytes.
    pub stated: (Offset, u64),
    /// The state file that the journal names.
    pub state_file: Option<StateFile>,
    /// A planned write that a full disk refused.
    pub unwritten: Option<Write>,
}

impl Store {
    pub fn new(folder: PathBuf, base: Offset, interval: u32) -> Store {
        Store {
            folder,
            segments: Segments::new(Index::new(base, interval)),
            indexes: BTreeMap::new(),
            file: None,
            rolls: VecDeque::new(),
            planned: 0,
            planned_end: base,
            durable: 0,
            part: Vec::new(),
            is_part_unwritten: false,
            is_writing: false,
            is_writing_state: false,
            allocated: 0,
            has_folder: false,
            has_file: false,
            newest: Summary::empty(base),
            newest_since: Nanos(0),
            newest_age_ms: 0,
            first_timestamp: NO_TIMESTAMP,
            newest_written: Nanos(0),
            newest_entries: 0,
            newest_entry_at: 0,
            written: BTreeMap::new(),
            started: Nanos(0),
            stated: (base, 0),
            state_file: None,
            unwritten: None,
        }
    }

    /// As recovery found it. `part`: the active segment's bytes behind its last whole block.
    pub fn recovered(folder: PathBuf, segments: Segments, rolls: Vec<Offset>, part: Vec<u8>, now: Nanos) -> Store {
        let active = *segments.active().summary();
        assert_eq!(part.len() as u64, active.bytes % BLOCK as u64);
        let newest = rolls.last().map_or(active, |base| Summary::empty(*base));
        let is_active = rolls.is_empty();
        let entries = if is_active { segments.active().entries() } else { &[] };
        let (newest_entries, newest_entry_at) = (entries.len(), entries.last().map_or(0, |entry| u64::from(entry.place)));
        let first_timestamp = if is_active { segments.active().first_timestamp() } else { NO_TIMESTAMP };
        Store {
            folder,
            segments,
            indexes: BTreeMap::new(),
            file: None,
            rolls: rolls.into(),
            planned: active.bytes,
            planned_end: active.end,
            durable: active.bytes,
            part,
            is_part_unwritten: false,
            is_writing: false,
            is_writing_state: false,
            allocated: 0,
            // Making it again costs little, and a partition that was never checkpointed has none.
            has_folder: false,
            has_file: false,
            newest,
            newest_since: now,
            newest_age_ms: span_ms(first_timestamp, newest.max_timestamp),
            first_timestamp,
            newest_written: now,
            newest_entries,
            newest_entry_at,
            written: BTreeMap::new(),
            started: now,
            stated: (active.base, active.bytes),
            state_file: None,
            unwritten: None,
        }
    }

    /// Base of the segment that is being written to.
    pub fn active(&self) -> Offset {
        self.segments.active().summary().base
    }

    /// Bytes in segments.
    pub fn bytes(&self) -> u64 {
        self.segments.bytes()
    }

    /// Counts a batch that was appended.
    pub fn appended(&mut self, header: &Header, now: Nanos) {
        if self.newest.bytes == 0 {
            (self.newest_since, self.newest_age_ms) = (now, 0);
        }
        if self.is_entry_due() {
            (self.newest_entries, self.newest_entry_at) = (self.newest_entries + 1, self.newest.bytes);
        }
        self.newest_written = now;
        self.newest.bytes += header.size as u64;
        self.newest.end = header.next_offset();
        self.newest.max_timestamp = self.newest.max_timestamp.max(header.max_timestamp);
    }

    /// Counts a batch that a start found in the journal.
    pub fn found(&mut self, header: &Header, now: Nanos) {
        if self.newest.bytes == 0 {
            self.first_timestamp = header.max_timestamp;
        }
        self.appended(header, now);
        self.newest_age_ms = span_ms(self.first_timestamp, self.newest.max_timestamp);
    }

    /// Whether the index will have an entry of the batch that is appended next.
    fn is_entry_due(&self) -> bool {
        let interval = u64::from(self.segments.active().interval().max(1));
        self.newest_entries == 0 || self.newest.bytes - self.newest_entry_at >= interval
    }

    /// Whether the newest segment should be closed before a batch of `size` bytes whose offsets end at `end` is appended.
    pub fn is_roll_due(&self, id: PartitionId, config: &TopicConfig, size: usize, end: Offset, now: Nanos) -> bool {
        let newest = &self.newest;
        let index_bytes_max = usize::try_from(config.segment_index_bytes).unwrap_or(0).max(INDEX_BYTES_MIN);
        let is_index_full = self.is_entry_due() && (self.newest_entries + 1) * Entry::BYTES > index_bytes_max;
        let full = newest.bytes + size as u64 > config.segment_bytes as u64 || !Summary::reaches(newest.base, end) || is_index_full;
        newest.bytes > 0 && (full || self.is_old(id, config, now))
    }

    /// Whether the newest segment holds something and is older than `segment.ms`, however the clock was set since the start.
    pub fn is_old(&self, id: PartitionId, config: &TopicConfig, now: Nanos) -> bool {
        let due = config.segment_ms - jitter_ms(id, self.newest.base, config);
        self.newest.bytes > 0 && age_ms(now, self.newest_since).saturating_add(self.newest_age_ms) >= due
    }

    /// Whether so many segments wait to be begun that none more may be stated: recovery refuses more than [`ROLLS_MAX`].
    pub fn has_rolls_max(&self) -> bool {
        self.rolls.len() >= ROLLS_MAX / 2
    }

    pub fn newest_holds_something(&self) -> bool {
        self.newest.bytes > 0
    }

    /// A new segment is stated to begin at `base`, the end of all that was appended.
    pub fn rolled(&mut self, base: Offset) {
        self.rolls.push_back(base);
        self.written.insert(self.newest.base, self.newest_written);
        self.newest = Summary::empty(base);
        (self.newest_entries, self.newest_entry_at) = (0, 0);
    }

    /// Where the next checkpoint must stop: at the base of a segment that is not begun.
    pub fn boundary(&self) -> Offset {
        self.rolls.front().copied().unwrap_or(Offset::MAX)
    }

    /// Where what is planned ends.
    pub fn planned_end(&self) -> Offset {
        self.planned_end
    }

    /// Whether a checkpoint has something to write although no batch waits.
    pub fn is_part_unwritten(&self) -> bool {
        self.is_part_unwritten
    }

    /// Lays the next bytes out in whole blocks: what stands in the part-filled block, then `slices`, whole batches in order up to `end`. The last
    /// block is filled up with `behind`, the batches that follow in this segment: after a restart they may stand there already, and nowhere
    /// else.
    pub fn plan(&mut self, slices: &[Slice], end: Offset, behind: &[Slice], pool: &Pool) -> Write {
        assert!(!self.is_writing);
        let place = self.planned - self.part.len() as u64;
        let total = self.part.len() + slices.iter().map(|slice| slice.len()).sum::<usize>();
        let padded = total.next_multiple_of(BLOCK);
        let mut space = pool.take(padded);
        let memory = &mut space.unfrozen()[..padded];
        memory[..self.part.len()].copy_from_slice(&self.part);
        let mut at = self.part.len();
        for slice in slices {
            memory[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        for slice in behind {
            let len = slice.len().min(padded - at);
            memory[at..at + len].copy_from_slice(&slice[..len]);
            at += len;
        }
        memory[at..].fill(0);
        self.part = memory[total / BLOCK * BLOCK..total].to_vec();
        (self.planned, self.planned_end) = (place + total as u64, end);
        (self.is_part_unwritten, self.is_writing) = (false, true);
        self.allocated = self.allocated.max(place + padded as u64);
        Write { place, bytes: space.freeze(padded), end }
    }

    /// A planned write is durable.
    pub fn written(&mut self) {
        self.is_writing = false;
        self.durable = self.planned;
    }

    /// Lays batches that begin at `base` out to be written straight to the active segment behind what is planned and the batches that wait in
    /// the journal (`tail`). None: they have to go through the journal. Nothing is planned yet.
    pub fn lay_out(&self, tail: &Tail, batches: &[&[u8]], base: Offset, pool: &Pool, change: impl FnOnce(&mut [u8])) -> Option<Layout> {
        if self.file.is_none() || self.is_writing || !self.rolls.is_empty() || tail.end().max(self.planned_end) != base {
            return None;
        }
        let waiting: Vec<&[u8]> = tail.from(self.planned_end).map(|piece| &*piece.bytes).collect();
        let front: usize = waiting.iter().map(|bytes| bytes.len()).sum();
        if front > FRONT_BYTES_MAX
            || self.planned + (front + batches.iter().map(|batch| batch.len()).sum::<usize>()) as u64 > self.allocated
        {
            return None;
        }
        let parts: Vec<&[u8]> = [&self.part[..]].into_iter().chain(waiting).collect();
        Layout::new(self.planned - self.part.len() as u64, &parts, batches, pool, change)
    }

    /// A batch laid out is on its way; it ends at offset `end`.
    pub fn plan_direct(&mut self, layout: &Layout, end: Offset) {
        (self.planned, self.planned_end) = (layout.end(), end);
        self.part = layout.fragment.to_vec();
        self.is_part_unwritten = !self.part.is_empty();
    }

    /// Direct appends are durable up to byte `bytes` of the active segment.
    pub fn direct_durable(&mut self, bytes: u64) {
        self.durable = self.durable.max(bytes);
    }

    /// To what size the active segment's file should be given room next, if a direct append of `size` bytes, those in front of it
    /// included, and those that follow need more.
    pub fn wants_room(&self, size: usize, segment_bytes: u64) -> Option<u64> {
        let most = segment_bytes.next_multiple_of(BLOCK as u64);
        let step = (self.planned / 2).max(4 * size as u64).clamp(*ALLOCATE_BYTES.start(), *ALLOCATE_BYTES.end());
        let needed = self.planned + size as u64;
        let room = (needed + step).next_multiple_of(BLOCK as u64).min(most);
        // A file that was closed for others is opened again so.
        let is_short = self.file.is_none() || (self.allocated < needed + step / 2 && self.allocated < room);
        (is_short && self.rolls.is_empty()).then_some(room)
    }

    pub fn allocated(&mut self, bytes: u64) {
        self.allocated = self.allocated.max(bytes);
    }

    /// The offset up to which batches of the tail are durable in the active segment and can be stated, not above `commit`.
    pub fn statable(&self, tail: &Tail, commit: Offset) -> Offset {
        let indexed = self.segments.active().summary();
        let (mut bytes, mut end) = (indexed.bytes, indexed.end);
        for piece in tail.from(indexed.end) {
            bytes += piece.bytes.len() as u64;
            if bytes > self.durable || piece.end > commit || piece.end > self.planned_end {
                break;
            }
            end = piece.end;
        }
        end
    }

    /// Takes the batches up to `end`, which are durable in the active segment, into its index: they are about to be stated.
    pub fn index_up_to(&mut self, end: Offset, tail: &Tail) {
        let index = self.segments.active_mut();
        for piece in tail.from(index.summary().end).take_while(|piece| piece.end <= end) {
            for found in walk::batches(&piece.bytes) {
                let found = found.expect("what was appended was checked");
                index.add(&found.header, found.bytes);
            }
        }
    }

    /// Whether everything before the next stated segment is written, so that the active one can be closed.
    pub fn is_at_roll(&self) -> bool {
        self.rolls.front().is_some_and(|base| *base == self.segments.active().summary().end)
    }

    /// The active segment is closed and the next stated one begins. Gives the closed one's index.
    pub fn begin_next(&mut self, interval: u32) -> Arc<Index> {
        self.rolls.pop_front().expect("the caller saw a roll");
        let index = Arc::new(self.segments.roll(interval));
        self.indexes.insert(index.summary().base, Arc::clone(&index));
        self.part = Vec::new();
        (self.planned, self.planned_end, self.durable, self.allocated) = (0, index.summary().end, 0, 0);
        (self.is_part_unwritten, self.has_file) = (false, false);
        index
    }

    pub fn for_offset(&self, offset: Offset) -> Lookup {
        self.segments.for_offset(offset, |base| self.indexes.get(&base).map(|index| &**index))
    }

    pub fn for_time(&self, time: WallMs, from: Offset) -> Lookup {
        self.segments.for_time(time, from, |base| self.indexes.get(&base).map(|index| &**index))
    }

    /// The index of a segment, if it is in memory.
    pub fn index_of(&self, segment: Offset) -> Option<&Index> {
        if segment == self.active() { Some(self.segments.active()) } else { self.indexes.get(&segment).map(|index| &**index) }
    }

    pub fn keep_index(&mut self, index: Index) {
        self.indexes.insert(index.summary().base, Arc::new(index));
    }

    pub fn forget_index(&mut self, base: Offset) {
        self.indexes.remove(&base);
    }

    /// What is known of a segment.
    pub fn summary(&self, segment: Offset) -> Option<&Summary> {
        self.segments.all().find(|summary| summary.base == segment)
    }

    pub fn segment_path(&self, base: Offset) -> PathBuf {
        paths::segment(&self.folder, base)
    }

    pub fn index_path(&self, base: Offset) -> PathBuf {
        paths::index(&self.folder, base)
    }

    /// What retention asks for. `now` counts for records without a sound timestamp, `wall` for those with one.
    pub fn retention(&self, config: &TopicConfig, log_start: Offset, committed: Offset, now: Nanos, wall: WallMs) -> retention::Outcome {
        let bound = |value: Option<u64>| value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX));
        let policy = retention::Policy {
            delete: config.cleanup_delete,
            retention_ms: bound(config.retention_ms),
            retention_bytes: bound(config.retention_bytes),
        };
        // As the clock would have shown it then, had it always run as it does now.
        let written = |summary: &Summary| {
            let at = if summary.base == self.newest.base { Some(&self.newest_written) } else { self.written.get(&summary.base) };
            wall.saturating_sub(age_ms(now, *at.unwrap_or(&self.started)))
        };
        retention::due(&self.segments, &self.newest, &policy, log_start, committed, wall, written)
    }

    /// Whether a segment is stated closed and is not yet: records of it may stand in the journal only.
    pub fn is_behind_rolls(&self) -> bool {
        !self.rolls.is_empty()
    }

    /// Whether a checkpoint must come first: retention does not look into the journal for closed segments.
    pub fn retention_waits(&self, config: &TopicConfig) -> bool {
        let is_bounded = config.retention_ms.is_some() || config.retention_bytes.is_some();
        config.cleanup_delete && is_bounded && self.is_behind_rolls()
    }

    /// Takes the closed segments that are wholly below `start`; gives the files to unlink.
    pub fn cut_below(&mut self, start: Offset) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for base in retention::removable(&self.segments, start) {
            self.segments.remove(base);
            self.indexes.remove(&base);
            self.written.remove(&base);
            files.extend([self.index_path(base), self.segment_path(base)]);
        }
        files
    }

    /// Every file that the partition may have.
    pub fn all_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            self.segments.all().flat_map(|summary| [self.segment_path(summary.base), self.index_path(summary.base)]).collect();
        files.extend(self.state_file.map(|file| paths::state(&self.folder, file.name())));
        files
    }
}

/// What is taken off `segment.ms` for the segment at `base`, so that partitions made together do not roll together: less than
/// `segment.jitter.ms` and than `segment.ms`. A function of the segment, so that it stays what it was over a restart.
fn jitter_ms(id: PartitionId, base: Offset, config: &TopicConfig) -> i64 {
    let bound = config.segment_jitter_ms.min(config.segment_ms).cast_unsigned();
    let topic = u128::from_be_bytes(id.topic.0);
    let partition = Prng::new((topic >> 64) as u64 ^ topic as u64 ^ u64::from(id.index)).next_u64();
    let jitter = if bound == 0 { 0 } else { Prng::new(partition ^ base.cast_unsigned()).below(bound) };
    jitter.cast_signed()
}

/// Milliseconds that have passed.
fn age_ms(now: Nanos, since: Nanos) -> i64 {
    i64::try_from(now.since(since).as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds between two timestamps of records, which may be absent or anything.
fn span_ms(first: WallMs, last: WallMs) -> i64 {
    if first == NO_TIMESTAMP { 0 } else { last.saturating_sub(first).max(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::batch::Builder;
    use millrace_base::ids::Uuid;

    const HOUR_MS: i64 = 3_600_000;

    fn config(changes: &[(&str, &str)]) -> TopicConfig {
        let changes = changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TopicConfig::effective(&changes, &Default::default())
    }

    fn at_ms(ms: u64) -> Nanos {
        Nanos(0).plus_ms(ms)
    }

    /// A store with a segment of one record for each timestamp, appended a second after the one before; all but the last are closed.
    fn store(timestamps: &[WallMs]) -> Store {
        let mut store = Store::new(PathBuf::new(), 0, 4096);
        for (offset, timestamp) in (0..).zip(timestamps) {
            if offset > 0 {
                store.rolled(offset);
                store.begin_next(4096);
            }
            let mut builder = Builder::new(*timestamp);
            builder.push(*timestamp, None, Some(b"value"));
            let mut bytes = builder.finish();
            millrace_base::batch::patch(&mut bytes, offset, 0);
            let header = walk::header_at(&bytes).unwrap();
            store.appended(&header, at_ms(1_000 * offset as u64));
            store.segments.active_mut().add(&header, &bytes);
        }
        store
    }

    #[test]
    fn a_segment_is_old_when_its_time_has_passed_whatever_the_clock_shows() {
        let config = config(&[("segment.ms", "5000")]);
        let store = store(&[0]);
        assert!(!store.is_old(partition(0), &config, at_ms(4_999)));
        assert!(store.is_old(partition(0), &config, at_ms(5_000)));
        assert!(store.is_roll_due(partition(0), &config, 1, 2, at_ms(5_000)));
    }

    /// Of one topic.
    fn partition(index: u32) -> PartitionId {
        PartitionId { topic: Uuid::from_entropy(1, 2), index }
    }

    #[test]
    fn partitions_made_together_roll_apart_and_within_the_jitter() {
        let config = config(&[("segment.ms", "1000000"), ("segment.jitter.ms", "400000")]);
        let store = store(&[0]);
        let due = |id: PartitionId| (0..).find(|s| store.is_old(id, &config, at_ms(1_000 * s))).unwrap();
        let all: Vec<u64> = (0..100).map(|index| due(partition(index))).collect();
        assert!(all.iter().all(|s| (600..=1_000).contains(s)), "{all:?}");
        let distinct = |seconds: &[u64]| seconds.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(distinct(&all) > 75, "100 of 400 seconds: {all:?}");
        assert_eq!(all, (0..100).map(|index| due(partition(index))).collect::<Vec<_>>(), "the same each time");
        let other = PartitionId { topic: Uuid::from_entropy(1, 3), index: 0 };
        assert_ne!(due(other), all[0], "another topic");
        assert_ne!(jitter_ms(partition(0), 5, &config), jitter_ms(partition(0), 6, &config), "another segment");
    }

    #[test]
    fn a_jitter_of_any_size_takes_off_less_than_all() {
        let most = i64::MAX.to_string();
        for (segment, jitter) in [(most.as_str(), most.as_str()), ("1", &most), (&most, "1"), (&most, "0")] {
            let config = config(&[("segment.ms", segment), ("segment.jitter.ms", jitter)]);
            for base in [0, 1, i64::MAX] {
                let found = jitter_ms(partition(u32::MAX), base, &config);
                assert!(found >= 0 && found < config.segment_ms && found <= config.segment_jitter_ms, "{segment} {jitter} {base}: {found}");
            }
        }
    }

    #[test]
    fn a_segment_is_as_old_after_a_start_as_the_time_between_its_records() {
        let config = config(&[("segment.ms", "5000")]);
        let batch = |offset: Offset, timestamp: WallMs| {
            let mut builder = Builder::new(timestamp);
            builder.push(timestamp, None, Some(&[0; 5_000]));
            let mut bytes = builder.finish();
            millrace_base::batch::patch(&mut bytes, offset, 0);
            (walk::header_at(&bytes).unwrap(), bytes)
        };
        let is_old = |store: &Store, ms: u64| store.is_old(partition(0), &config, at_ms(ms));
        let after_a_start = |timestamps: &[WallMs]| {
            let mut segments = store(&[timestamps[0]]).segments;
            for (offset, timestamp) in (1..).zip(&timestamps[1..]) {
                let (header, bytes) = batch(offset, *timestamp);
                segments.active_mut().add(&header, &bytes);
            }
            let part = vec![0; segments.active().summary().bytes as usize % BLOCK];
            Store::recovered(PathBuf::new(), segments, Vec::new(), part, at_ms(100))
        };
        let found = after_a_start(&[1_000, 1_000, 5_000]);
        assert!(!is_old(&found, 1_099) && is_old(&found, 1_100));
        // However long ago they say that they are; and timestamps that fall count nothing.
        let mut found = after_a_start(&[1_000, 500]);
        assert!(!is_old(&found, 5_099) && is_old(&found, 5_100));
        // One that was only in the journal; then the next segment, which is new.
        found.rolled(2);
        found.found(&batch(2, 1_000).0, at_ms(100));
        found.found(&batch(3, 5_000).0, at_ms(100));
        assert!(!is_old(&found, 1_099) && is_old(&found, 1_100));
        found.rolled(4);
        found.appended(&batch(4, 9_000).0, at_ms(200));
        assert!(!is_old(&found, 5_199) && is_old(&found, 5_200));
    }

    #[test]
    fn a_segment_whose_index_is_full_is_closed() {
        let mut builder = Builder::new(0);
        builder.push(0, None, Some(&[0; 5_000]));
        let mut bytes = builder.finish();
        // Each batch is longer than an interval and has an entry.
        for (index_bytes, entries) in [("10000", 500), ("4", 256)] {
            let config = config(&[("segment.index.bytes", index_bytes)]);
            let mut store = Store::new(PathBuf::new(), 0, 4096);
            let mut due = Vec::new();
            for offset in 0..1_000 {
                if store.is_roll_due(partition(0), &config, bytes.len(), offset + 1, at_ms(0)) {
                    store.rolled(offset);
                    due.push(offset);
                }
                millrace_base::batch::patch(&mut bytes, offset, 0);
                store.appended(&walk::header_at(&bytes).unwrap(), at_ms(0));
            }
            assert_eq!(due, (1..).map(|n| n * entries).take_while(|at| *at < 1_000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn records_of_a_false_future_go_when_their_time_has_passed_since_they_were_written() {
        let config = config(&[("retention.ms", "10000")]);
        // The clock was an hour and more ahead when the first two were made, and was set back to 1,000,000,000 at the third.
        let ahead = 1_000_000_000 + 2 * HOUR_MS;
        let store = store(&[ahead, ahead + 1_000, 1_000_002_000]);
        let start = |ms: u64| store.retention(&config, 0, 3, at_ms(ms), 1_000_000_000 + ms as i64).log_start;
        assert_eq!(start(10_000), None);
        assert_eq!(start(10_001), Some(1), "though others were written since");
        assert_eq!(start(11_001), Some(2));
    }

    #[test]
    fn compaction_alone_keeps_everything_and_beside_delete_retention_goes_on() {
        let store = store(&[1_000, 2_000]);
        let start = |policy: &str| {
            let config = config(&[("cleanup.policy", policy), ("retention.ms", "10000")]);
            store.retention(&config, 0, 2, at_ms(60_000), 1_000_000).log_start
        };
        assert_eq!(start("compact"), None);
        assert_eq!(start("compact,delete"), Some(1));
        assert_eq!(start("delete"), Some(1));
    }

    #[test]
    fn a_clock_that_is_set_back_takes_nothing_early_and_one_set_forward_what_is_due_by_it() {
        let config = config(&[("retention.ms", "10000")]);
        let store = store(&[1_000_000_000, 1_000_001_000]);
        let start = |wall: i64| store.retention(&config, 0, 2, at_ms(60_000), wall).log_start;
        assert_eq!(start(1_000_000_000 - 600_000), None, "ten minutes back: the timestamps are believed");
        assert_eq!(start(1_000_010_000), None);
        assert_eq!(start(1_000_010_001), Some(1));
    }
}
