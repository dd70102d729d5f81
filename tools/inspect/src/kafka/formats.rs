//! The files that Kafka keeps beside its segments, decoded.
//!
//! All integers are big-endian. Offsets of `.index` and `.timeindex` are counted from the segment's base.
//!
//! | file | an entry |
//! |---|---|
//! | `BASE.index` | relative offset 4, place 4: the batch at `place` begins at or below the offset, a later one may |
//! | `BASE.timeindex` | timestamp 8, relative offset 4: the largest timestamp so far, and whose it is |
//! | `BASE.txnindex` | version 2 (0), producer id 8, first offset 8, last offset 8 (the abort marker's), last stable offset 8 |
//! | `OFFSET.snapshot` | of a file: version 2 (1), CRC-32C of the rest 4, count 4; then producer id 8, epoch 2, last sequence 4, last offset 8, offset delta 4, timestamp 8, coordinator epoch 4, first offset of its open transaction 8 |
//! | checkpoints | text: version (0), count, then a line an entry; `leader-epoch-checkpoint`: epoch and start offset; others: topic, partition, offset |
//! | `partition.metadata` | text: `version: 0`, `topic_id: ID` |
//!
//! Invariants: memory <= a constant times the input; whatever the bytes, no panic.
//! Knows nothing of which file is beside which. Source: Apache Kafka's documentation and files that 4.4.0 wrote.

use millrace_base::crc::crc32c;
use millrace_base::ids::Uuid;
use millrace_base::offset::{Epoch, Offset};

/// What is wrong in a file, and at which byte of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    pub place: u64,
    pub expected: String,
    pub found: String,
}

impl Wrong {
    fn new(place: usize, expected: impl Into<String>, found: impl Into<String>) -> Wrong {
        Wrong { place: place as u64, expected: expected.into(), found: found.into() }
    }
}

/// One after the other out of bytes that were measured before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }
}

/// Entries of `bytes` bytes each, without the zeros that a file still open has behind them; what is no whole entry is wrong.
fn entries(bytes: &[u8], size: usize) -> (Vec<&[u8]>, Option<Wrong>) {
    let rest = bytes.len() % size;
    let wrong =
        (rest != 0).then(|| Wrong::new(bytes.len() - rest, format!("entries of {size} bytes each"), format!("{rest} bytes at the end")));
    let mut entries: Vec<&[u8]> = bytes.chunks_exact(size).collect();
    let is_zero = |entry: &&[u8]| entry.iter().all(|byte| *byte == 0);
    let used = entries.iter().rposition(|entry| !is_zero(entry)).map_or(0, |last| last + 1);
    entries.truncate(used);
    (entries, wrong)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    pub offset: Offset,
    pub place: u32,
}

pub const INDEX_ENTRY_BYTES: usize = 8;

/// The entries that follow on each other, and the first thing that is wrong.
pub fn index(bytes: &[u8], base: Offset) -> (Vec<IndexEntry>, Option<Wrong>) {
    let (raw, mut wrong) = entries(bytes, INDEX_ENTRY_BYTES);
    let mut found: Vec<IndexEntry> = Vec::new();
    for (number, entry) in raw.into_iter().enumerate() {
        let mut fields = Fields(entry);
        let (Some(relative), Some(place)) = (fields.i32(), fields.i32()) else { break };
        let place_of_entry = number * INDEX_ENTRY_BYTES;
        let (Ok(relative), Ok(place)) = (u32::try_from(relative), u32::try_from(place)) else {
            wrong = Some(Wrong::new(place_of_entry, "an offset and a place that are not negative", format!("{relative} and {place}")));
            break;
        };
        let entry = IndexEntry { offset: base.saturating_add(i64::from(relative)), place };
        if let Some(before) = found.last().filter(|before| before.offset >= entry.offset || before.place >= entry.place) {
            let expected = format!("an entry behind offset {} and place {}", before.offset, before.place);
            wrong = Some(Wrong::new(place_of_entry, expected, format!("offset {} and place {place}", entry.offset)));
            break;
        }
        found.push(entry);
    }
    (found, wrong)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeEntry {
    pub timestamp: i64,
    pub offset: Offset,
}

pub const TIME_ENTRY_BYTES: usize = 12;

/// Likewise.
pub fn time_index(bytes: &[u8], base: Offset) -> (Vec<TimeEntry>, Option<Wrong>) {
    let (raw, mut wrong) = entries(bytes, TIME_ENTRY_BYTES);
    let mut found: Vec<TimeEntry> = Vec::new();
    for (number, entry) in raw.into_iter().enumerate() {
        let mut fields = Fields(entry);
        let (Some(timestamp), Some(relative)) = (fields.i64(), fields.i32()) else { break };
        let place = number * TIME_ENTRY_BYTES;
        let Ok(relative) = u32::try_from(relative) else {
            wrong = Some(Wrong::new(place, "an offset that is not negative", relative.to_string()));
            break;
        };
        let entry = TimeEntry { timestamp, offset: base.saturating_add(i64::from(relative)) };
        if let Some(before) = found.last().filter(|before| before.timestamp > timestamp || before.offset > entry.offset) {
            let expected = format!("an entry not before {} ms and offset {}", before.timestamp, before.offset);
            wrong = Some(Wrong::new(place, expected, format!("{timestamp} ms and offset {}", entry.offset)));
            break;
        }
        found.push(entry);
    }
    (found, wrong)
}

/// A transaction that was aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aborted {
    pub producer_id: i64,
    pub first: Offset,
    /// Its marker's.
    pub last: Offset,
    pub last_stable: Offset,
}

pub const ABORTED_BYTES: usize = 34;

pub fn transaction_index(bytes: &[u8]) -> (Vec<Aborted>, Option<Wrong>) {
    let rest = bytes.len() % ABORTED_BYTES;
    let mut wrong = (rest != 0)
        .then(|| Wrong::new(bytes.len() - rest, format!("entries of {ABORTED_BYTES} bytes each"), format!("{rest} bytes at the end")));
    let mut found: Vec<Aborted> = Vec::new();
    for (number, entry) in bytes.chunks_exact(ABORTED_BYTES).enumerate() {
        let (place, mut fields) = (number * ABORTED_BYTES, Fields(entry));
        let read = (fields.i16(), fields.i64(), fields.i64(), fields.i64(), fields.i64());
        let (Some(version), Some(producer_id), Some(first), Some(last), Some(last_stable)) = read else { break };
        if version != 0 {
            wrong = Some(Wrong::new(place, "version 0", format!("version {version}")));
            break;
        }
        let is_sound = 0 <= first && first <= last && producer_id >= 0 && found.last().is_none_or(|before| before.last < last);
        if !is_sound {
            let expected = "a producer, its first and last offset, behind the entry before";
            wrong = Some(Wrong::new(place, expected, format!("producer {producer_id}, offsets {first} and {last}")));
            break;
        }
        found.push(Aborted { producer_id, first, last, last_stable });
    }
    (found, wrong)
}

/// What a producer had appended as of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_offset: Offset,
    pub offset_delta: i32,
    pub timestamp: i64,
    pub coordinator_epoch: i32,
    /// -1: none.
    pub open_transaction: Offset,
}

pub const PRODUCER_BYTES: usize = 46;
pub const SNAPSHOT_HEAD_BYTES: usize = 10;
const SNAPSHOT_CRC_FROM: usize = 6;

/// # Errors
/// What is wrong.
pub fn snapshot(bytes: &[u8]) -> Result<Vec<Producer>, Wrong> {
    let mut fields = Fields(bytes);
    let (Some(version), Some(crc), Some(count)) = (fields.i16(), fields.i32(), fields.i32()) else {
        return Err(Wrong::new(0, format!("a head of {SNAPSHOT_HEAD_BYTES} bytes"), format!("{} bytes", bytes.len())));
    };
    if version != 1 {
        return Err(Wrong::new(0, "version 1", format!("version {version}")));
    }
    let (expected, found) = (crc.cast_unsigned(), crc32c(bytes.get(SNAPSHOT_CRC_FROM..).unwrap_or_default()));
    if expected != found {
        return Err(Wrong::new(2, format!("CRC {expected:08x}"), format!("{found:08x}")));
    }
    let left = fields.0;
    if usize::try_from(count).ok().and_then(|count| count.checked_mul(PRODUCER_BYTES)) != Some(left.len()) {
        let expected = format!("{count} producers of {PRODUCER_BYTES} bytes each");
        return Err(Wrong::new(SNAPSHOT_CRC_FROM, expected, format!("{} bytes", left.len())));
    }
    Ok(left.chunks_exact(PRODUCER_BYTES).filter_map(producer).collect())
}

fn producer(bytes: &[u8]) -> Option<Producer> {
    let mut fields = Fields(bytes);
    Some(Producer {
        id: fields.i64()?,
        epoch: fields.i16()?,
        last_sequence: fields.i32()?,
        last_offset: fields.i64()?,
        offset_delta: fields.i32()?,
        timestamp: fields.i64()?,
        coordinator_epoch: fields.i32()?,
        open_transaction: fields.i64()?,
    })
}

/// The lines behind version and count, with the byte at which each begins.
fn checkpoint_lines(bytes: &[u8]) -> Result<Vec<(usize, &str)>, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|error| Wrong::new(error.valid_up_to(), "text", "other bytes"))?;
    let mut lines = Vec::new();
    let mut place = 0;
    for line in text.split_inclusive('\n') {
        lines.push((place, line.trim()));
        place += line.len();
    }
    let mut lines = lines.into_iter();
    match lines.next() {
        Some((_, "0")) => {}
        Some((_, other)) => return Err(Wrong::new(0, "version 0", format!("{other:.40?}"))),
        None => return Err(Wrong::new(0, "version 0", "nothing")),
    }
    let (place, count) = lines.next().unwrap_or((text.len(), ""));
    let wanted: usize = count.parse().map_err(|_| Wrong::new(place, "a count of entries", format!("{count:.40?}")))?;
    let rest: Vec<(usize, &str)> = lines.filter(|(_, line)| !line.is_empty()).collect();
    if rest.len() == wanted { Ok(rest) } else { Err(Wrong::new(place, format!("{wanted} entries"), format!("{} lines", rest.len()))) }
}

/// Epochs and where each begins.
///
/// # Errors
/// What is wrong.
pub fn epochs(bytes: &[u8]) -> Result<Vec<(Epoch, Offset)>, Wrong> {
    let mut found: Vec<(Epoch, Offset)> = Vec::new();
    for (place, line) in checkpoint_lines(bytes)? {
        let pair = line.split_once(' ').and_then(|(epoch, offset)| Some((epoch.parse().ok()?, offset.trim().parse().ok()?)));
        let (epoch, offset) = pair.ok_or_else(|| Wrong::new(place, "an epoch and an offset", format!("{line:.60?}")))?;
        if found.last().is_some_and(|before| before.0 >= epoch || before.1 > offset) {
            return Err(Wrong::new(place, "epochs and offsets that grow", format!("{line:.60?}")));
        }
        found.push((epoch, offset));
    }
    Ok(found)
}

/// Topic, partition and offset of each line of a checkpoint of the whole directory.
///
/// # Errors
/// What is wrong.
pub fn offsets(bytes: &[u8]) -> Result<Vec<(String, u32, Offset)>, Wrong> {
    let parse = |line: &str| {
        let mut parts = line.rsplitn(3, ' ');
        let (offset, partition, topic) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        Some((topic.to_owned(), partition, offset))
    };
    let line =
        |(place, line): (usize, &str)| parse(line).ok_or_else(|| Wrong::new(place, "topic, partition and offset", format!("{line:.60?}")));
    checkpoint_lines(bytes)?.into_iter().map(line).collect()
}

/// `partition.metadata`: the topic's id.
///
/// # Errors
/// What is wrong.
pub fn partition_metadata(bytes: &[u8]) -> Result<Uuid, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|error| Wrong::new(error.valid_up_to(), "text", "other bytes"))?;
    let mut lines = text.lines().map(|line| line.split_once(':').map_or((line, ""), |(key, value)| (key.trim(), value.trim())));
    if lines.next() != Some(("version", "0")) {
        return Err(Wrong::new(0, "version: 0", format!("{:.40?}", text.lines().next().unwrap_or_default())));
    }
    let id = lines.find(|(key, _)| *key == "topic_id").and_then(|(_, id)| id.parse().ok());
    id.ok_or_else(|| Wrong::new(text.find('\n').map_or(0, |end| end + 1), "topic_id: a topic's id", "none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::prng::Prng;

    fn index_bytes(entries: &[(i32, i32)]) -> Vec<u8> {
        entries.iter().flat_map(|(offset, place)| [offset.to_be_bytes(), place.to_be_bytes()].concat()).collect()
    }

    pub fn snapshot_bytes(ids: &[i64]) -> Vec<u8> {
        let mut body = (ids.len() as i32).to_be_bytes().to_vec();
        for id in ids {
            body.extend(id.to_be_bytes());
            body.extend([0; PRODUCER_BYTES - 8]);
        }
        let crc = crc32c(&body);
        [&1i16.to_be_bytes()[..], &crc.to_be_bytes(), &body].concat()
    }

    #[test]
    fn indexes_end_at_their_zeros_and_grow() {
        let mut bytes = index_bytes(&[(0, 0), (5, 100)]);
        assert_eq!(
            index(&bytes, 10).0,
            [IndexEntry { offset: 10, place: 0 }, IndexEntry { offset: 15, place: 100 }].map(|entry| entry)[..]
        );
        bytes.extend([0; 800]);
        assert_eq!((index(&bytes, 10).0.len(), index(&bytes, 10).1), (2, None));
        assert_eq!(index(&index_bytes(&[(5, 100), (4, 200)]), 0).1.map(|wrong| wrong.place), Some(8));
        assert_eq!(index(&index_bytes(&[(5, -1)]), 0).1.map(|wrong| wrong.place), Some(0));
        assert_eq!(index(&[1; 11], 0).1.map(|wrong| wrong.place), Some(8));
    }

    #[test]
    fn texts_are_read_and_what_is_wrong_has_a_place() {
        assert_eq!(epochs(b"0\n2\n0 0\n3 17\n"), Ok(vec![(0, 0), (3, 17)]));
        assert_eq!(epochs(b"0\n2\n3 0\n3 17\n").unwrap_err().place, 8);
        assert_eq!(epochs(b"0\n3\n0 0\n3 17\n").unwrap_err().place, 2);
        assert_eq!(epochs(b"1\n0\n").unwrap_err().place, 0);
        assert_eq!(offsets(b"0\n1\nmy topic 3 17\n"), Ok(vec![("my topic".to_owned(), 3, 17)]));
        let id = "lb4FT2bSTeKNHx0xYbFRlw";
        assert_eq!(partition_metadata(format!("version: 0\ntopic_id: {id}").as_bytes()).unwrap().to_string(), id);
        assert!(partition_metadata(b"version: 0\ntopic_id: x").is_err());
    }

    #[test]
    fn a_snapshot_is_proved() {
        let bytes = snapshot_bytes(&[7, 9]);
        assert_eq!(snapshot(&bytes).unwrap().iter().map(|producer| producer.id).collect::<Vec<_>>(), [7, 9]);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(snapshot(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut prng = Prng::new(31);
        let seeds =
            [index_bytes(&[(0, 0), (5, 100)]), snapshot_bytes(&[1]), b"0\n2\n0 0\n3 17\n".to_vec(), b"version: 0\ntopic_id: x".to_vec()];
        for _ in 0..4000 {
            let mut bytes = seeds[prng.below(4) as usize].clone();
            for _ in 0..=prng.below(4) {
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] = prng.next_u64() as u8;
            }
            bytes.truncate(prng.below(bytes.len() as u64 + 1) as usize);
            let _ = (index(&bytes, i64::MAX), time_index(&bytes, 3), transaction_index(&bytes), snapshot(&bytes));
            let _ = (epochs(&bytes), offsets(&bytes), partition_metadata(&bytes));
        }
    }
}
