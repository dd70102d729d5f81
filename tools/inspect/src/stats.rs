//! `stats`: how large batches and records are, by which codecs and producers, and when they came.
//!
//! 1. Each partition is counted on its own, several at a time; the sum of all is told at the end.
//! 2. As text, distributions are plotted.
//!
//! Invariants: memory a partition: [`PRODUCERS_MAX`] producers, [`TIMES_MAX`] spans of time, [`GAPS_MAX`] gaps, one opened batch.

use crate::Outcome;
use crate::batches::codec_name;
use crate::error::InspectError;
use crate::log::{Log, Seen};
use crate::output::Output;
use crate::read_only::ReadOnly;
use crate::records::{Opener, Records};
use crate::source::Source;
use crate::table::Table;
use crate::time::{self, Window};
use crate::work::{Progress, run_all};
use millrace_base::batch::Header;
use millrace_base::offset::Offset;
use millrace_base::value::{Fields, Value, field};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Producers that are counted by their ids; the batches of others are counted together.
pub const PRODUCERS_MAX: usize = 10_000;
/// Spans of time that are counted; they grow when there are more.
pub const TIMES_MAX: usize = 256;
/// The longest gaps that are kept.
pub const GAPS_MAX: usize = 10;
/// Producers that are printed.
const PRODUCERS_TOLD: usize = 10;
/// Spans that a plot over time has.
const SPANS_TOLD: usize = 24;
const BAR_WIDTH: u64 = 40;

/// What is counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    pub what: Vec<String>,
    pub offsets: Range<Offset>,
    pub times: Window,
    /// Batch headers alone: nothing is opened.
    pub headers_only: bool,
    /// 0: as many as there are cores.
    pub threads: usize,
}

pub fn stats(path: &Path, stats: &Stats, threads: usize, progress: bool, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let mut source = Source::open(&mut disk, path)?;
    let logs = source.logs(&mut disk, &stats.what)?;
    let progress = Progress::new(progress, logs.iter().map(Log::file_bytes).sum());
    let units: Vec<usize> = (0..logs.len()).collect();
    let mut all = Counts::default();
    let mut table = Table::new(
        "partition",
        &["partition", "records", "batches", "bytes", "opened bytes", "first ms", "last ms", "producers", "lost ranges"],
    );
    let count = |disk: &mut ReadOnly, at: usize, progress: &Progress| count(disk, &logs[at], &source, stats, progress);
    run_all(&units, threads, &progress, count, output, &mut |at, counts, _| {
        let times = counts.times.range();
        table.row(vec![
            logs[at].name().into(),
            counts.records.into(),
            counts.batches.into(),
            counts.bytes.into(),
            counts.opened.into(),
            times.map(|(first, _)| first).into(),
            times.map(|(_, last)| last).into(),
            counts.producers.len().into(),
            counts.lost.into(),
        ]);
        all.add(counts);
        Ok(())
    })?;
    table.print(output)?;
    all.tell(stats, output)?;
    Ok(Outcome::of(all.lost + all.closed > 0))
}

#[derive(Default)]
struct Counts {
    records: u64,
    batches: u64,
    bytes: u64,
    opened: u64,
    control: u64,
    transactional: u64,
    without_key: u64,
    tombstones: u64,
    key_bytes: u64,
    value_bytes: u64,
    headers: u64,
    closed: u64,
    lost: u64,
    batch_bytes: Sizes,
    batch_records: Sizes,
    codecs: [Codec; 8],
    producers: BTreeMap<i64, Producer>,
    other_producers: u64,
    times: Times,
    gaps: Vec<Gap>,
    last_timestamp: Option<i64>,
}

#[derive(Clone, Copy, Default)]
struct Codec {
    batches: u64,
    bytes: u64,
    opened: u64,
}

#[derive(Clone, Copy, Default)]
struct Producer {
    batches: u64,
    records: u64,
}

/// Nothing came in between.
#[derive(Clone, Copy)]
struct Gap {
    from: i64,
    to: i64,
    offset: Offset,
}

/// How many of each size, by powers of two.
#[derive(Clone, Copy)]
struct Sizes([u64; 65]);

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes([0; 65])
    }
}

impl Sizes {
    fn add(&mut self, size: u64) {
        self.0[(64 - size.leading_zeros()) as usize] += 1;
    }

    /// Least size, largest size, count, of those in use and between.
    fn rows(&self) -> Vec<(u64, u64, u64)> {
        let used = |count: &u64| *count > 0;
        let (Some(first), Some(last)) = (self.0.iter().position(used), self.0.iter().rposition(used)) else { return Vec::new() };
        let row = |bits: usize| {
            let least = if bits == 0 { 0 } else { 1u64 << (bits - 1) };
            (least, least.saturating_mul(2).saturating_sub(1).max(least), self.0[bits])
        };
        (first..=last).map(row).collect()
    }
}

/// Records by time, in spans of equal width that double while there are too many.
struct Times {
    width: i64,
    spans: BTreeMap<i64, u64>,
    first: i64,
    last: i64,
}

impl Default for Times {
    fn default() -> Times {
        Times { width: 1, spans: BTreeMap::new(), first: i64::MAX, last: i64::MIN }
    }
}

impl Times {
    fn add(&mut self, timestamp: i64, records: u64) {
        if timestamp < 0 {
            return; // none
        }
        (self.first, self.last) = (self.first.min(timestamp), self.last.max(timestamp));
        *self.spans.entry(timestamp / self.width).or_default() += records;
        while self.spans.len() > TIMES_MAX {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.width = self.width.saturating_mul(2);
        for (span, records) in std::mem::take(&mut self.spans) {
            *self.spans.entry(span / 2).or_default() += records;
        }
    }

    fn merge(&mut self, mut other: Times) {
        if other.spans.is_empty() {
            return;
        }
        while other.width < self.width {
            other.widen();
        }
        while self.width < other.width {
            self.widen();
        }
        (self.first, self.last) = (self.first.min(other.first), self.last.max(other.last));
        for (span, records) in other.spans {
            *self.spans.entry(span).or_default() += records;
        }
        while self.spans.len() > TIMES_MAX {
            self.widen();
        }
    }

    fn range(&self) -> Option<(i64, i64)> {
        (!self.spans.is_empty()).then_some((self.first, self.last))
    }

    /// Begin and count of at most [`SPANS_TOLD`] spans, empty ones too.
    fn rows(&self) -> Vec<(i64, u64)> {
        let Some((first, last)) = self.range() else { return Vec::new() };
        let width = (last - first) / SPANS_TOLD as i64 + 1;
        let count = ((last - first) / width + 1) as usize;
        let mut rows: Vec<(i64, u64)> = (0..count).map(|at| (first + at as i64 * width, 0)).collect();
        for (span, records) in &self.spans {
            let at = ((span * self.width).clamp(first, last) - first) / width;
            rows[at as usize].1 += records;
        }
        rows
    }
}

fn count(disk: &mut ReadOnly, log: &Log, source: &Source, stats: &Stats, progress: &Progress) -> Result<Counts, InspectError> {
    let (mut counts, mut opener, mut spare) = (Counts::default(), Opener::default(), source.spare());
    log.scan(disk, &mut spare, stats.offsets.clone(), &mut |seen| {
        match seen {
            Seen::Batch { header, bytes, .. } => {
                progress.add(bytes.len() as u64);
                let is_in = stats.times.may_have(&header) && stats.times.to.is_none_or(|to| header.max_timestamp < to);
                if is_in {
                    counts.batch(&header, bytes, (!stats.headers_only).then_some(&mut opener));
                }
            }
            Seen::Lost(_) => counts.lost += 1,
        }
        Ok(())
    })?;
    Ok(counts)
}

impl Counts {
    fn batch(&mut self, header: &Header, bytes: &[u8], opener: Option<&mut Opener>) {
        let records = u64::from(header.count.max(0).cast_unsigned());
        self.batches += 1;
        self.bytes += bytes.len() as u64;
        self.batch_bytes.add(bytes.len() as u64);
        if header.is_control() {
            self.control += 1;
            return;
        }
        self.records += records;
        self.transactional += u64::from(header.is_transactional());
        self.batch_records.add(records);
        self.times.add(header.max_timestamp, records);
        self.gap(header);
        if header.producer_id >= 0 {
            if self.producers.len() < PRODUCERS_MAX || self.producers.contains_key(&header.producer_id) {
                let producer = self.producers.entry(header.producer_id).or_default();
                producer.batches += 1;
                producer.records += records;
            } else {
                self.other_producers += 1;
            }
        }
        let codec = &mut self.codecs[usize::from(header.codec())];
        codec.batches += 1;
        codec.bytes += bytes.len() as u64;
        let Some(opener) = opener else { return };
        let Ok(opened) = opener.open(header, bytes) else {
            self.closed += 1;
            return;
        };
        let whole = (opened.len() + millrace_base::batch::HEADER_BYTES) as u64;
        codec.opened += whole;
        self.opened += whole;
        let mut is_whole = true;
        for record in Records::new(header, opened) {
            let Ok(record) = record else {
                is_whole = false;
                continue;
            };
            self.without_key += u64::from(record.key.is_none());
            self.tombstones += u64::from(record.value.is_none());
            self.key_bytes += record.key.map_or(0, <[u8]>::len) as u64;
            self.value_bytes += record.value.map_or(0, <[u8]>::len) as u64;
            self.headers += record.header_count as u64;
        }
        self.closed += u64::from(!is_whole);
    }

    fn gap(&mut self, header: &Header) {
        if let Some(from) = self.last_timestamp.filter(|from| *from >= 0 && header.base_timestamp > *from) {
            self.keep_gap(Gap { from, to: header.base_timestamp, offset: header.base_offset });
        }
        self.last_timestamp = self.last_timestamp.max(Some(header.max_timestamp));
    }

    fn keep_gap(&mut self, gap: Gap) {
        let length = |gap: &Gap| gap.to.saturating_sub(gap.from);
        let at = self.gaps.partition_point(|other| length(other) >= length(&gap));
        if at < GAPS_MAX {
            self.gaps.insert(at, gap);
            self.gaps.truncate(GAPS_MAX);
        }
    }

    fn add(&mut self, other: Counts) {
        let sums = [
            (&mut self.records, other.records),
            (&mut self.batches, other.batches),
            (&mut self.bytes, other.bytes),
            (&mut self.opened, other.opened),
            (&mut self.control, other.control),
            (&mut self.transactional, other.transactional),
            (&mut self.without_key, other.without_key),
            (&mut self.tombstones, other.tombstones),
            (&mut self.key_bytes, other.key_bytes),
            (&mut self.value_bytes, other.value_bytes),
            (&mut self.headers, other.headers),
            (&mut self.closed, other.closed),
            (&mut self.lost, other.lost),
            (&mut self.other_producers, other.other_producers),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum += more);
        for (mine, theirs) in [(&mut self.batch_bytes, other.batch_bytes), (&mut self.batch_records, other.batch_records)] {
            mine.0.iter_mut().zip(theirs.0).for_each(|(sum, more)| *sum += more);
        }
        for (mine, theirs) in self.codecs.iter_mut().zip(other.codecs) {
            mine.batches += theirs.batches;
            mine.bytes += theirs.bytes;
            mine.opened += theirs.opened;
        }
        for (id, theirs) in other.producers {
            if self.producers.len() < PRODUCERS_MAX || self.producers.contains_key(&id) {
                let mine = self.producers.entry(id).or_default();
                mine.batches += theirs.batches;
                mine.records += theirs.records;
            } else {
                self.other_producers += theirs.batches;
            }
        }
        self.times.merge(other.times);
        other.gaps.into_iter().for_each(|gap| self.keep_gap(gap));
    }

    /// Producers with the most records first.
    fn busiest(&self) -> Vec<(i64, Producer)> {
        let mut all: Vec<(i64, Producer)> = self.producers.iter().map(|(id, producer)| (*id, *producer)).collect();
        all.sort_by_key(|(id, producer)| (std::cmp::Reverse(producer.records), *id));
        all.truncate(PRODUCERS_TOLD);
        all
    }

    fn used_codecs(&self) -> impl Iterator<Item = (&'static str, Codec, Option<f64>)> {
        let ratio = |codec: &Codec| (codec.opened > 0).then(|| codec.opened as f64 / codec.bytes.max(1) as f64);
        let used = self.codecs.iter().enumerate().filter(|(_, codec)| codec.batches > 0);
        used.map(move |(number, codec)| (codec_name(number as u8), *codec, ratio(codec)))
    }

    fn tell(&self, stats: &Stats, output: &mut Output<'_>) -> io::Result<()> {
        if !output.is_text() {
            return output.item("stats", self.fields());
        }
        let Counts { records, batches, bytes, control, transactional, .. } = self;
        output.line("")?;
        output.line(format_args!(
            "{records} records in {batches} batches of {bytes} bytes; {transactional} transactional and {control} control batches"
        ))?;
        if !stats.headers_only {
            output.line(format_args!(
                "keys {} bytes, values {} bytes, {} headers; {} without a key, {} tombstones",
                self.key_bytes, self.value_bytes, self.headers, self.without_key, self.tombstones
            ))?;
        }
        if self.closed + self.lost > 0 {
            output.line(format_args!("{} batches stay closed, {} ranges are lost: `export` says which", self.closed, self.lost))?;
        }
        self.codec_table(output)?;
        plot_sizes("batch bytes", &self.batch_bytes, output)?;
        plot_sizes("records in a batch", &self.batch_records, output)?;
        let times: Vec<(String, u64)> = self.times.rows().into_iter().map(|(begin, records)| (time::text(begin), records)).collect();
        plot("records by time, from", &times, output)?;
        if !self.gaps.is_empty() {
            let mut table = Table::new("gap", &["longest gaps from", "to", "seconds", "before offset"]);
            for gap in &self.gaps {
                let seconds = (gap.to - gap.from) as f64 / 1000.0;
                table.row(vec![time::text(gap.from).into(), time::text(gap.to).into(), seconds.into(), gap.offset.into()]);
            }
            output.line("")?;
            table.print(output)?;
        }
        self.producer_table(output)
    }

    fn codec_table(&self, output: &mut Output<'_>) -> io::Result<()> {
        let mut table = Table::new("codec", &["codec", "batches", "bytes", "opened bytes", "ratio"]);
        for (name, codec, ratio) in self.used_codecs() {
            table.row(vec![name.into(), codec.batches.into(), codec.bytes.into(), codec.opened.into(), ratio.into()]);
        }
        output.line("")?;
        table.print(output)
    }

    fn producer_table(&self, output: &mut Output<'_>) -> io::Result<()> {
        if self.producers.is_empty() {
            return Ok(());
        }
        let mut table = Table::new("producer", &["busiest producers", "records", "batches"]);
        for (id, producer) in self.busiest() {
            table.row(vec![id.into(), producer.records.into(), producer.batches.into()]);
        }
        output.line("")?;
        table.print(output)?;
        if self.producers.len() > PRODUCERS_TOLD || self.other_producers > 0 {
            output.line(format_args!("of {} producers; {} batches are of others", self.producers.len(), self.other_producers))?;
        }
        Ok(())
    }

    fn fields(&self) -> Fields {
        let sizes = |sizes: &Sizes| {
            let row =
                |(least, most, count): (u64, u64, u64)| Value::Map(vec![field("from", least), field("to", most), field("count", count)]);
            sizes.rows().into_iter().map(row).collect::<Vec<Value>>()
        };
        let codec = |(name, codec, ratio): (&'static str, Codec, Option<f64>)| {
            Value::Map(vec![
                field("codec", name),
                field("batches", codec.batches),
                field("bytes", codec.bytes),
                field("opened_bytes", codec.opened),
                field("ratio", ratio),
            ])
        };
        let producer = |(id, producer): (i64, Producer)| {
            Value::Map(vec![field("producer_id", id), field("records", producer.records), field("batches", producer.batches)])
        };
        let gap = |gap: &Gap| Value::Map(vec![field("from", gap.from), field("to", gap.to), field("before_offset", gap.offset)]);
        let span = |(begin, records): (i64, u64)| Value::Map(vec![field("from", begin), field("records", records)]);
        vec![
            field("records", self.records),
            field("batches", self.batches),
            field("bytes", self.bytes),
            field("opened_bytes", self.opened),
            field("control_batches", self.control),
            field("transactional_batches", self.transactional),
            field("records_without_key", self.without_key),
            field("tombstones", self.tombstones),
            field("key_bytes", self.key_bytes),
            field("value_bytes", self.value_bytes),
            field("headers", self.headers),
            field("closed_batches", self.closed),
            field("lost_ranges", self.lost),
            field("codecs", self.used_codecs().map(codec).collect::<Vec<_>>()),
            field("batch_bytes", sizes(&self.batch_bytes)),
            field("batch_records", sizes(&self.batch_records)),
            field("times", self.times.rows().into_iter().map(span).collect::<Vec<_>>()),
            field("gaps", self.gaps.iter().map(gap).collect::<Vec<_>>()),
            field("producers", self.producers.len()),
            field("busiest_producers", self.busiest().into_iter().map(producer).collect::<Vec<_>>()),
        ]
    }
}

fn plot_sizes(title: &str, sizes: &Sizes, output: &mut Output<'_>) -> io::Result<()> {
    let rows: Vec<(String, u64)> = sizes.rows().into_iter().map(|(least, most, count)| (format!("{least} to {most}"), count)).collect();
    plot(title, &rows, output)
}

/// A line a row with a bar.
fn plot(title: &str, rows: &[(String, u64)], output: &mut Output<'_>) -> io::Result<()> {
    let Some(most) = rows.iter().map(|(_, count)| *count).max().filter(|most| *most > 0) else { return Ok(()) };
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let digits = most.to_string().len();
    output.line("")?;
    output.line(title)?;
    for (name, count) in rows {
        // At least a mark for what is there at all.
        let width = (u128::from(*count) * u128::from(BAR_WIDTH)).div_ceil(u128::from(most)) as usize;
        output.line(format_args!("  {name:<names$}  {count:>digits$}  {}", "#".repeat(width)).to_string().trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stand_between_powers_of_two() {
        let mut sizes = Sizes::default();
        [0, 1, 2, 3, 4, 1000].into_iter().for_each(|size| sizes.add(size));
        let rows = sizes.rows();
        assert_eq!(rows[..4], [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 1)]);
        assert_eq!((rows.len(), rows[10]), (11, (512, 1023, 1)));
    }

    #[test]
    fn spans_of_time_are_bounded_and_lose_nothing() {
        let (mut one, mut other) = (Times::default(), Times::default());
        for n in 0..5000 {
            one.add(1_700_000_000_000 + n * 977, 2);
            other.add(1_600_000_000_000 + n * 86_400_000, 1);
        }
        assert!(one.spans.len() <= TIMES_MAX && other.spans.len() <= TIMES_MAX);
        one.merge(other);
        let rows = one.rows();
        assert!(rows.len() <= SPANS_TOLD + 1 && one.spans.len() <= TIMES_MAX);
        assert_eq!(rows.iter().map(|(_, records)| records).sum::<u64>(), 15_000);
        one.add(-1, 5);
        assert_eq!(one.range().unwrap().0, 1_600_000_000_000);
    }

    #[test]
    fn the_longest_gaps_are_kept() {
        let mut counts = Counts::default();
        for n in 0..100 {
            counts.keep_gap(Gap { from: 0, to: n, offset: n });
        }
        assert_eq!(counts.gaps.iter().map(|gap| gap.to).collect::<Vec<_>>(), (90..100).rev().collect::<Vec<_>>());
    }
}
