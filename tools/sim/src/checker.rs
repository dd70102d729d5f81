//! Judges a history: what a durable log on one node promises, and nothing it could know only from inside.
//!
//! 1. An offset holds one value for ever, over all acknowledgements and reads, before and after every crash.
//! 2. What is acknowledged, and not below the log start at the end, is in the scan at the end; the high watermark covers it.
//! 3. No value stands at two offsets, unless its producer was not idempotent and sent it twice.
//! 4. Nothing is read that was not sent to that partition, or that was refused for good; nothing is altered.
//! 5. An idempotent producer's values stand in the order made; what was acknowledged before another was sent stands before it.
//! 6. A reader sees every offset: the next batch begins where the last ended.
//! 7. High watermark, stable offset and log start never go back, over answers ordered in real time; log start <= stable <= high watermark;
//!    an acknowledged batch is below the high watermark of every later answer; deleted records stay deleted.
//!    nothing is read from below a log start that was told before.
//! 8. A committed offset is that of a commit which no other one, acknowledged, has followed ([`groups`]). Members of a generation share all
//!    partitions out among them; what is acknowledged is read by somebody of the group before the group commits beyond it.
//! 9. Topics that were made are there at the end, those deleted are not, nor are their folders, nor segments below a log start.
//! 10. A record's timestamp is its producer's or the time of appending, which goes back only with the clock; lookups by time agree with
//!     them ([`times`]).
//! 11. While one data directory fails, partitions of another go on.
//! 12. Nothing goes before it was to be deleted, was over its topic's time by the clock, or more was kept than its topic's bytes; and at the
//!     end no closed segment is left that has been due for long ([`kept`]).
//! 13. Nothing in a run damages what is on the disk: once all is healed, no partition is refused for its storage. (A start that is refused for
//!     damage is found by the harness.)
//!
//! Invariants: O(n log n) in the events; every violation names what it saw.
//! Knows nothing of the broker or of how the history came to be.

mod groups;
mod kept;
mod times;

use crate::history::{Bound, Event, History, Partition, Span};
use crate::value::ValueId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    Agreement,
    Lost,
    Doubled,
    Phantom,
    Altered,
    Reordered,
    Gap,
    WentBack,
    Bounds,
    CommittedOffset,
    Assignment,
    Unconsumed,
    Time,
    Early,
    Late,
    Lookup,
    Topics,
    Leftover,
    Directory,
    Damage,
    Client,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Everything wrong with a history, by rule.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut logs: BTreeMap<&Partition, Log> = BTreeMap::new();
    for event in &history.events {
        if let Some(partition) = partition_of(event) {
            logs.entry(partition).or_default().take(event, &mut found);
        }
    }
    let terms = kept::Terms::of(history);
    for (partition, log) in logs {
        log.judge(partition, &terms, &mut found);
    }
    check_readers(history, &mut found);
    groups::check_commits(history, &mut found);
    groups::check_assignments(history, &mut found);
    groups::check_consumed(history, &mut found);
    check_topics(history, &mut found);
    check_files(history, &mut found);
    found
}

fn partition_of(event: &Event) -> Option<&Partition> {
    match event {
        Event::Sent { partition, .. }
        | Event::Acknowledged { partition, .. }
        | Event::Refused { partition, .. }
        | Event::SequenceBroken { partition, .. }
        | Event::Bounds { partition, .. }
        | Event::Read { partition, .. }
        | Event::DeletionSent { partition, .. }
        | Event::Deleted { partition, .. }
        | Event::OutOfRange { partition, .. }
        | Event::Listed { partition, .. }
        | Event::Looked { partition, .. }
        | Event::Segment { partition, .. }
        | Event::Scanned { partition, .. } => Some(partition),
        Event::Sought { .. }
        | Event::Down { .. }
        | Event::Planned { .. }
        | Event::Assigned { .. }
        | Event::Joined { .. }
        | Event::ReadsFor { .. }
        | Event::Consumed { .. }
        | Event::Folders { .. }
        | Event::Keeps { .. }
        | Event::Unserved { .. }
        | Event::Beside { .. }
        | Event::CommitSent { .. }
        | Event::Committed { .. }
        | Event::CommittedFetched { .. }
        | Event::Policy { .. }
        | Event::Clock { .. }
        | Event::TopicMade { .. }
        | Event::TopicGone { .. }
        | Event::Topics { .. }
        | Event::Wrong { .. } => None,
    }
}

struct Sent {
    first_at: u64,
    attempts: u32,
    idempotent: bool,
    /// Of the batch, in the first of its values.
    bytes: usize,
}

/// What is known of one partition.
#[derive(Default)]
struct Log {
    /// By offset, from acknowledgements and reads.
    values: BTreeMap<i64, ValueId>,
    sent: BTreeMap<ValueId, Sent>,
    refused: BTreeSet<ValueId>,
    acknowledged: BTreeMap<ValueId, (i64, Span)>,
    /// What reads have shown.
    read: BTreeMap<ValueId, BTreeSet<i64>>,
    bounds: Vec<(Span, i64, i64, i64)>,
    /// When it went out, and up to where.
    deletions: Vec<(u64, i64)>,
    deleted: Vec<(Span, i64)>,
    listed: Vec<(Span, Bound, i64)>,
    out_of_range: Vec<(Span, i64)>,
    /// From where something was read.
    asked: Vec<(Span, i64)>,
    scanned: Option<(i64, i64)>,
    segments: Vec<kept::Segment>,
    times: times::Times,
}

impl Log {
    fn take(&mut self, event: &Event, found: &mut Vec<Violation>) {
        match event {
            Event::Sent { at, first, count, attempt, idempotent, bytes, .. } => {
                for id in ids(*first, *count) {
                    let bytes = if id == *first { *bytes } else { 0 };
                    let sent = self.sent.entry(id).or_insert(Sent { first_at: *at, attempts: 0, idempotent: *idempotent, bytes });
                    sent.attempts = sent.attempts.max(*attempt);
                }
            }
            Event::Acknowledged { span, partition, first, count, base, append_time } => {
                for (id, offset) in ids(*first, *count).zip(*base..) {
                    self.place(partition, offset, id, found);
                    self.acknowledged.insert(id, (offset, *span));
                    if *append_time >= 0 {
                        self.times.note(partition, offset, *append_time, true, found);
                    }
                }
            }
            Event::Refused { first, count, .. } => self.refused.extend(ids(*first, *count)),
            Event::SequenceBroken { at, partition, first } => {
                let what = format!("{partition:?}: at {at} the producer's next sequence, for {first:?}, was refused as out of order");
                found.push(Violation { rule: Rule::Lost, what });
            }
            Event::Bounds { span, high_watermark, stable, log_start, .. } => {
                self.bounds.push((*span, *high_watermark, *stable, *log_start));
            }
            Event::Read { partition, asked, base, append_time, values, span, .. } => {
                self.asked.push((*span, *asked));
                for (value, offset) in values.iter().zip(*base..) {
                    match value {
                        Some((id, timestamp)) => {
                            self.place(partition, offset, *id, found);
                            self.read.entry(*id).or_default().insert(offset);
                            self.times.note(partition, offset, *timestamp, *append_time, found);
                        }
                        None => {
                            let what =
                                format!("{partition:?}: the record at offset {offset}, read at {}, is not as it was made", span.completed);
                            found.push(Violation { rule: Rule::Altered, what });
                        }
                    }
                }
            }
            Event::DeletionSent { at, to, .. } => self.deletions.push((*at, *to)),
            Event::Deleted { span, log_start, .. } => self.deleted.push((*span, *log_start)),
            Event::OutOfRange { span, offset, .. } => self.out_of_range.push((*span, *offset)),
            Event::Listed { span, bound, offset, .. } => self.listed.push((*span, *bound, *offset)),
            Event::Looked { span, time, offset, timestamp, .. } => self.times.looked(*span, *time, *offset, *timestamp),
            Event::Scanned { from, to, .. } => self.scanned = Some((*from, *to)),
            Event::Segment { at, base, next, bytes, log_start, .. } if next > log_start => {
                self.segments.push(kept::Segment { at: *at, base: *base, next: *next, bytes: *bytes });
            }
            _ => {}
        }
    }

    fn place(&mut self, partition: &Partition, offset: i64, id: ValueId, found: &mut Vec<Violation>) {
        let held = *self.values.entry(offset).or_insert(id);
        if held != id {
            let what = format!("{partition:?}: offset {offset} held {held:?}, and later {id:?}");
            found.push(Violation { rule: Rule::Agreement, what });
        }
    }

    fn judge(mut self, partition: &Partition, terms: &kept::Terms, found: &mut Vec<Violation>) {
        let mut wrong = |rule, what: String| found.push(Violation { rule, what: format!("{partition:?}: {what}") });
        self.judge_scan(&mut wrong);
        self.judge_values(&mut wrong);
        self.judge_order(&mut wrong);
        self.judge_bounds(&mut wrong);
        self.judge_kept(&partition.0, terms, &mut wrong);
        self.judge_late(&partition.0, terms, &mut wrong);
        self.times.judge_order(terms.set_back_ms(), &mut wrong);
        let starts: Vec<(Span, i64)> = self.log_starts().collect();
        let acknowledged: Vec<(u64, i64)> = self.acknowledged.values().map(|(offset, span)| (span.completed, *offset)).collect();
        self.times.judge_lookups(&starts, &acknowledged, &mut wrong);
    }

    fn of_bound(&self, wanted: Bound) -> impl Iterator<Item = (Span, i64)> {
        self.listed.iter().filter(move |(_, bound, _)| *bound == wanted).map(|(span, _, offset)| (*span, *offset))
    }

    /// As answers told it.
    fn log_starts(&self) -> impl Iterator<Item = (Span, i64)> {
        self.bounds.iter().map(|(span, _, _, start)| (*span, *start)).chain(self.of_bound(Bound::LogStart))
    }

    fn judge_scan(&self, wrong: &mut impl FnMut(Rule, String)) {
        let Some((from, to)) = self.scanned else { return };
        for (id, (offset, span)) in &self.acknowledged {
            if *offset >= to {
                wrong(Rule::Lost, format!("{id:?}, acknowledged at {} with offset {offset}: the log ends at {to}", span.completed));
            } else if *offset >= from && !self.read.get(id).is_some_and(|offsets| offsets.contains(offset)) {
                wrong(Rule::Lost, format!("{id:?}, acknowledged at {} with offset {offset}, is not there", span.completed));
            }
        }
        if let Some(offset) = self.values.keys().next_back().filter(|offset| **offset >= to) {
            wrong(Rule::Lost, format!("offset {offset} was seen, and the log ends at {to}"));
        }
        if let Some(offset) = (from..to).find(|offset| !self.values.contains_key(offset)) {
            wrong(Rule::Gap, format!("offset {offset} of {from}..{to} holds nothing"));
        }
    }

    fn judge_values(&self, wrong: &mut impl FnMut(Rule, String)) {
        for (id, offsets) in &self.read {
            let Some(sent) = self.sent.get(id) else {
                wrong(Rule::Phantom, format!("{id:?} at {offsets:?} was never sent here"));
                continue;
            };
            if self.refused.contains(id) {
                wrong(Rule::Phantom, format!("{id:?} at {offsets:?} was refused"));
            }
            if offsets.len() > 1 && (sent.idempotent || offsets.len() > sent.attempts as usize) {
                wrong(Rule::Doubled, format!("{id:?} was sent {} times and stands at {offsets:?}", sent.attempts));
            }
        }
    }

    fn judge_order(&self, wrong: &mut impl FnMut(Rule, String)) {
        // Values in the order of their offsets: an idempotent producer's numbers only rise.
        let mut last: BTreeMap<u32, ValueId> = BTreeMap::new();
        for (offset, id) in &self.values {
            if !self.sent.get(id).is_some_and(|sent| sent.idempotent) {
                continue;
            }
            if let Some(before) = last.insert(id.producer(), *id)
                && before.number() >= id.number()
            {
                wrong(Rule::Reordered, format!("{id:?} at offset {offset} stands behind {before:?}"));
            }
        }
        // Real time: the highest offset acknowledged before something was first sent is below where that stands.
        let mut acknowledged: Vec<(u64, i64)> = self.acknowledged.values().map(|(offset, span)| (span.completed, *offset)).collect();
        acknowledged.sort_unstable();
        let mut sent: Vec<(u64, i64, ValueId)> = Vec::new();
        for (offset, id) in &self.values {
            sent.extend(self.sent.get(id).map(|sent| (sent.first_at, *offset, *id)));
        }
        sent.sort_unstable();
        let (mut next, mut highest) = (0, -1);
        for (at, offset, id) in sent {
            while next < acknowledged.len() && acknowledged[next].0 < at {
                highest = highest.max(acknowledged[next].1);
                next += 1;
            }
            if offset <= highest {
                wrong(Rule::Reordered, format!("{id:?}, first sent at {at}, got offset {offset} though {highest} was acknowledged before"));
            }
        }
    }

    fn judge_bounds(&mut self, wrong: &mut impl FnMut(Rule, String)) {
        for (span, high, stable, start) in &self.bounds {
            if !(0 <= *start && start <= stable && stable <= high) {
                wrong(Rule::Bounds, format!("at {}: log start {start}, stable {stable}, high watermark {high}", span.completed));
            }
        }
        let acknowledged = self.acknowledged.values().map(|(offset, span)| (*span, offset + 1));
        let highs = self.bounds.iter().map(|(span, high, _, _)| (*span, *high)).chain(self.of_bound(Bound::HighWatermark));
        let highs: Vec<(Span, i64)> = highs.collect();
        let stables: Vec<(Span, i64)> = self.bounds.iter().map(|(span, _, stable, _)| (*span, *stable)).collect();
        let starts: Vec<(Span, i64)> = self.log_starts().collect();
        rises("the high watermark", acknowledged.chain(highs.iter().copied()).collect(), highs.clone(), wrong);
        rises("the stable offset", stables.clone(), stables, wrong);
        let deleted: Vec<(Span, i64)> = self.deleted.iter().copied().chain(starts.iter().copied()).collect();
        rises("the log start", deleted.clone(), starts, wrong);
        rises("the log start, and with it what is read,", deleted, self.asked.clone(), wrong);
        // What lies between the bounds of every answer is in range.
        for (span, offset) in &self.out_of_range {
            let before = |bound: &Span| bound.completed < span.invoked;
            let high = self.bounds.iter().filter(|(b, ..)| before(b)).map(|(_, high, ..)| *high).max().unwrap_or(-1);
            let start = self.bounds.iter().filter(|(b, ..)| b.invoked > span.completed).map(|(.., start)| *start).min();
            if *offset <= high && start.is_some_and(|start| *offset >= start) {
                let (at, start) = (span.completed, start.unwrap_or(0));
                wrong(
                    Rule::WentBack,
                    format!("offset {offset} was out of range at {at}, between log start {start} and high watermark {high}"),
                );
            }
        }
    }
}

/// What completed before something was invoked is not above it.
fn rises(name: &str, mut floors: Vec<(Span, i64)>, mut seen: Vec<(Span, i64)>, wrong: &mut impl FnMut(Rule, String)) {
    floors.sort_unstable_by_key(|(span, _)| span.completed);
    seen.sort_unstable_by_key(|(span, _)| span.invoked);
    let (mut next, mut floor) = (0, (0, 0));
    for (span, value) in seen {
        while next < floors.len() && floors[next].0.completed < span.invoked {
            if floors[next].1 > floor.0 {
                floor = (floors[next].1, floors[next].0.completed);
            }
            next += 1;
        }
        if value < floor.0 {
            wrong(
                Rule::WentBack,
                format!("{name} was at least {} at {}, and {value} in an answer asked for at {}", floor.0, floor.1, span.invoked),
            );
            floor.0 = value;
        }
    }
}

fn ids(first: ValueId, count: u32) -> impl Iterator<Item = ValueId> {
    (0..u64::from(count)).map(move |number| ValueId(first.0 + number))
}

fn check_readers(history: &History, found: &mut Vec<Violation>) {
    let mut next: BTreeMap<u32, i64> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::Sought { reader, offset } => {
                next.insert(*reader, *offset);
            }
            Event::Read { reader, base, values, partition, asked, .. } => {
                let end = base + values.len() as i64;
                let expected = next.get(reader).copied().unwrap_or(*asked);
                // The batch that holds the offset asked for comes whole.
                if *base > expected || end <= expected {
                    let what = format!("{partition:?}: reader {reader} was at {expected} and was given {base}..{end}");
                    found.push(Violation { rule: Rule::Gap, what });
                }
                next.insert(*reader, end);
            }
            Event::Scanned { reader, to, partition, .. } if next.get(reader).is_some_and(|at| at != to) => {
                let what = format!("{partition:?}: the scan ended at {:?}, the high watermark is {to}", next.get(reader));
                found.push(Violation { rule: Rule::Gap, what });
            }
            Event::Wrong { what } => found.push(Violation { rule: Rule::Client, what: what.clone() }),
            _ => {}
        }
    }
}

fn check_topics(history: &History, found: &mut Vec<Violation>) {
    let mut expected: BTreeMap<&String, bool> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::TopicMade { name } => {
                expected.insert(name, true);
            }
            Event::TopicGone { name } => {
                expected.insert(name, false);
            }
            Event::Topics { names } => {
                for (name, is_there) in &expected {
                    if names.contains(name) != *is_there {
                        let what = format!("{name} was {} and is {}", made(*is_there), made(!is_there));
                        found.push(Violation { rule: Rule::Topics, what });
                    }
                }
            }
            _ => {}
        }
    }
}

fn made(is_there: bool) -> &'static str {
    if is_there { "made" } else { "gone" }
}

fn check_files(history: &History, found: &mut Vec<Violation>) {
    for event in &history.events {
        match event {
            Event::Folders { found: folders, topics } => {
                for folder in folders.iter().filter(|folder| !topics.contains(folder)) {
                    let what = format!("the folder {folder} belongs to no topic that there is");
                    found.push(Violation { rule: Rule::Leftover, what });
                }
            }
            Event::Segment { partition, base, next, log_start, .. } if next <= log_start => {
                let what = format!("{partition:?}: the segment {base}..{next} is still there, and the log starts at {log_start}");
                found.push(Violation { rule: Rule::Leftover, what });
            }
            Event::Unserved { at, partition, message } => {
                let what = format!("{partition:?} is refused at {at}, though its disk is sound: {message}");
                found.push(Violation { rule: Rule::Damage, what });
            }
            Event::Beside { partition, what, is_done: false } => {
                let what = format!("{partition:?}: {what} is not done, though only another data directory fails");
                found.push(Violation { rule: Rule::Directory, what });
            }
            _ => {}
        }
    }
}
