//! The records of one partition folded into its image: records as they are read from contents, apt ones at the offsets where the log
//! stands, and the two mixed. Then what boot does with the image: extents are read, producers are taught, the index goes on.

use crate::input::Input;
use millrace_base::batch::{Builder, Header, patch};
use millrace_base::fault::Corrupt;
use millrace_base::ids::{META_PARTITION, PartitionId};
use millrace_base::offset::{Offset, Position};
use millrace_io::{Pool, Slice};
use millrace_log::image::{ExtentFound, PartitionImage, PendingBytes, Recovered};
use millrace_log::index::Index;
use millrace_log::journal::record::{PayloadRange, Record};
use millrace_log::journal::{Damage, Touched, contents};
use millrace_log::partition_state::{Checkpoint, Large, LargeAt, PartitionState, StateFile};
use millrace_log::producers::Producers;
use millrace_log::state_file;
use millrace_log::walk;

const PARTITION: PartitionId = META_PARTITION;
const INTERVAL: u32 = 100;

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let pool = Pool::new(64 << 20);
    let mut writer = Writer::default();
    let mut image = PartitionImage::new();
    let mut sequence = 1;
    while !choices.is_empty() {
        let kind = choices.u8();
        sequence += u64::from(kind >= 128);
        match kind % 16 {
            0 => {
                let corrupt = Corrupt { file: "journal".to_owned(), place: 0, expected: "an entry".to_owned(), found: "none".to_owned() };
                let damage = Damage { first: sequence, last: sequence, touched: Touched::All, records: Vec::new(), corrupt };
                image.damaged_at(&damage, PARTITION);
            }
            1 => image.extent_is_stated(),
            2 | 3 => {
                let (record, payload) = (choices.sized(), choices.sized());
                for record in contents::decode(record, 1, payload.len() as u32).unwrap_or_default() {
                    let _ = image.apply(&record, &slice(&pool, payload), sequence);
                }
            }
            kind => {
                let (record, payload) = writer.record(kind, &mut choices);
                let _ = image.apply(&record, &slice(&pool, &payload), sequence);
            }
        }
        let needed = image.needed();
        assert!(needed.iter().all(|needed| *needed <= sequence));
        assert!(image.oldest_needed().is_none_or(|oldest| oldest <= sequence));
    }
    finish(image, writer.file.as_deref(), &pool);
}

fn slice(pool: &Pool, bytes: &[u8]) -> Slice {
    pool.take(bytes.len().max(1)).push(bytes)
}

/// All that may follow a fold, on whatever was read.
pub fn finish(image: PartitionImage, file: Option<&[u8]>, pool: &Pool) {
    if image.is_deleted() {
        return;
    }
    let has_damage = image.damage().is_some();
    let Ok((mut recovered, damage)) = image.finish_intact(file) else { return };
    assert!(damage.is_some() || !has_damage, "a damage is told");
    check(&recovered);
    if damage.is_some() || recovered.cut.is_some() {
        return;
    }
    let mut turn = 0;
    let _ = recovered.take_extents(|direct, _| {
        turn += 1;
        let corrupt = Corrupt { file: String::new(), place: direct.place, expected: String::new(), found: String::new() };
        match (direct.crc.wrapping_add(turn)) % 4 {
            0 => ExtentFound::Differs(corrupt),
            1 => ExtentFound::Unreadable(corrupt),
            2 => ExtentFound::Whole(direct.tail.clone()),
            _ => ExtentFound::Whole(slice(pool, &batches(direct.written_end - 2, 2))),
        }
    });
    check(&recovered);
    go_on(recovered);
}

/// The promises of a recovered image.
fn check(recovered: &Recovered) {
    let mut end = recovered.durable_end;
    for pending in &recovered.pending {
        assert!(pending.base == end && pending.base < pending.end, "pending ranges are gapless");
        end = pending.end;
        if let PendingBytes::Journal(bytes) = &pending.bytes {
            let mut at = pending.base;
            for found in walk::batches(bytes) {
                let header = found.expect("pending bytes are whole batches").header;
                assert_eq!(header.base_offset, at, "pending batches are gapless");
                at = header.next_offset();
            }
            assert_eq!(at, pending.end, "pending batches are those of their range");
        }
    }
    assert_eq!(end, recovered.log_end);
    assert!(recovered.rolls.is_sorted_by(|a, b| a < b));
}

/// Boot and the first checkpoint: producers and index take in what is pending.
fn go_on(mut recovered: Recovered) {
    for pending in &recovered.pending {
        let PendingBytes::Journal(bytes) = &pending.bytes else { continue };
        recovered.large.producers.append_all(bytes, 0).expect("checked above");
        for found in walk::batches(bytes) {
            let found = found.expect("checked above");
            let facts = recovered.large.index.summary();
            let has_room = facts.bytes + found.header.size as u64 <= u64::from(u32::MAX)
                && millrace_log::index::Summary::reaches(facts.base, found.header.next_offset());
            if has_room {
                recovered.large.index.add(&found.header, found.bytes);
            }
        }
    }
    recovered.large.producers.commit(recovered.log_end);
}

/// Whole batches of one record each from `base` on.
pub fn batches(base: Offset, count: u16) -> Vec<u8> {
    let mut all = Vec::new();
    for n in 0..i64::from(count) {
        let mut builder = Builder::new(1000 + n);
        builder.push(1000 + n, Some(b"k"), Some(b"v"));
        let mut bytes = builder.finish();
        patch(&mut bytes, base.saturating_add(n).max(0), 1);
        all.extend(bytes);
    }
    all
}

/// What a partition would journal, more or less.
#[derive(Default)]
struct Writer {
    end: Offset,
    durable: Offset,
    log: Vec<(Header, Vec<u8>)>,
    large: Option<(Index, Producers)>,
    file: Option<Vec<u8>>,
    kept: Option<StateFile>,
}

impl Writer {
    /// An offset near those that matter.
    fn offset(&self, choices: &mut Input<'_>) -> Offset {
        let by = i64::from(choices.u8() % 8) - 2;
        match choices.u8() % 8 {
            0 => self.durable.saturating_add(by),
            1 => choices.i64(),
            _ => self.end.saturating_add(by),
        }
    }

    fn record(&mut self, kind: u8, choices: &mut Input<'_>) -> (Record, Vec<u8>) {
        let is_apt = !choices.u8().is_multiple_of(4);
        let range = |payload: &[u8]| PayloadRange { start: 0, len: payload.len() as u32 };
        let partition = PARTITION;
        match kind {
            4..=7 => {
                let count = u16::from(choices.u8() % 4) + 1;
                let base = if is_apt { self.end } else { self.offset(choices) };
                let end = if is_apt { base.saturating_add(i64::from(count)) } else { self.offset(choices) };
                let payload = batches(base, count);
                if is_apt {
                    self.take_in(&payload);
                }
                (Record::Batches { partition, base, end, payload: range(&payload) }, payload)
            }
            8 => self.extent(is_apt, choices),
            9 => {
                let truncate = (!is_apt).then(|| Position::new(1, self.offset(choices)));
                let log_start = choices.u8().is_multiple_of(2).then(|| self.offset(choices));
                if let Some(to) = truncate {
                    self.cut(to.offset);
                }
                let step = choices.sized().to_vec();
                (Record::Raft { partition, truncate, log_start, step: range(&step) }, step)
            }
            10 => (Record::Roll { partition, base: if is_apt { self.end } else { self.offset(choices) } }, Vec::new()),
            11 | 12 => self.checkpoint(is_apt, choices),
            13 | 14 => {
                let state = if is_apt { self.state(choices) } else { choices.sized().to_vec() };
                (Record::State { partition, state: range(&state) }, state)
            }
            _ if is_apt => {
                let reason = choices.sized().to_vec();
                (Record::Damaged { partition, reason: range(&reason) }, reason)
            }
            _ => (Record::Deleted { partition }, Vec::new()),
        }
    }

    fn take_in(&mut self, batches: &[u8]) {
        for found in walk::batches(batches).filter_map(Result::ok) {
            self.end = found.header.next_offset();
            self.log.push((found.header, found.bytes.to_vec()));
        }
    }

    fn cut(&mut self, to: Offset) {
        self.log.retain(|(header, _)| header.next_offset() <= to);
        self.end = self.log.last().map_or(self.end.min(to.max(0)), |(header, _)| header.next_offset());
    }

    fn extent(&mut self, is_apt: bool, choices: &mut Input<'_>) -> (Record, Vec<u8>) {
        let base = if is_apt { self.end } else { self.offset(choices) };
        let end = if is_apt { base.saturating_add(2) } else { self.offset(choices) };
        let payload = if is_apt { batches(base, 2) } else { choices.sized().to_vec() };
        if is_apt {
            self.take_in(&payload);
        }
        let (place, bytes) = if is_apt { (0, 4096) } else { (choices.u64(), choices.u64()) };
        let tail = PayloadRange { start: 0, len: payload.len() as u32 };
        (Record::Extent { partition: PARTITION, base, end, segment: self.durable, place, bytes, crc: choices.u32(), tail }, payload)
    }

    fn large(&mut self) -> &mut (Index, Producers) {
        let base = self.durable;
        self.large.get_or_insert_with(|| (Index::new(base, INTERVAL), Producers::default()))
    }

    /// A checkpoint of all that is there, or at an offset that may not fit.
    fn checkpoint(&mut self, is_apt: bool, choices: &mut Input<'_>) -> (Record, Vec<u8>) {
        let log = std::mem::take(&mut self.log);
        let (index, producers) = self.large();
        let before = (index.summary().base, index.summary().bytes);
        for (header, bytes) in &log {
            if header.base_offset == index.summary().end {
                index.add(header, bytes);
                producers.append(header, 0);
            }
        }
        producers.commit(index.summary().end);
        let delta = Checkpoint::of(index, INTERVAL, producers, before).encode();
        let (segment, segment_bytes, end) = (index.summary().base, index.summary().bytes, index.summary().end);
        self.durable = end;
        let (end, segment) = if is_apt { (end, segment) } else { (self.offset(choices), self.offset(choices)) };
        let range = PayloadRange { start: 0, len: delta.len() as u32 };
        (Record::Checkpoint { partition: PARTITION, end, segment, segment_bytes, delta: range }, delta)
    }

    fn state(&mut self, choices: &mut Input<'_>) -> Vec<u8> {
        if self.large.is_none() {
            let start = Offset::from(choices.u16());
            (self.end, self.durable) = (start, start);
            self.large();
            return PartitionState::birth(start, INTERVAL, choices.sized().to_vec()).encode();
        }
        let (end, kept, is_beside) = (self.end, self.kept, choices.u8().is_multiple_of(2));
        let (index, producers) = self.large();
        let facts = *index.summary();
        let changes = kept.filter(|_| is_beside).and_then(|kept| kept.changes(index, producers, state_file::INLINE_BYTES_MAX));
        let large = match kept.zip(changes) {
            Some((kept, changes)) => LargeAt::Changed(kept.reference, changes),
            None => LargeAt::Here(Large { index: index.clone(), producers: producers.clone() }),
        };
        let state = PartitionState {
            log_start: 0,
            durable_end: facts.end,
            log_end: end.max(facts.end),
            segment: facts.base,
            segment_bytes: facts.bytes,
            rolls: Vec::new(),
            consensus: vec![7; if choices.u8().is_multiple_of(2) { state_file::INLINE_BYTES_MAX } else { 10 }],
            large,
        };
        if matches!(state.large, LargeAt::Changed(..)) {
            return state.encode();
        }
        let (bytes, file) = state.split(None, state_file::INLINE_BYTES_MAX);
        let (index, producers) = self.large();
        let kept = file.as_ref().map(|(reference, _)| StateFile::of(*reference, index));
        kept.iter().for_each(|kept| producers.filed(kept.name()));
        (self.kept, self.file) = (kept, file.map(|(_, bytes)| bytes));
        bytes
    }
}
