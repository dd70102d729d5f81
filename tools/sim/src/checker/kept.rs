//! What a partition keeps: nothing goes before its time, and nothing stays for ever.
//!
//! 1. A record below a log start that was told must have been named by a DeleteRecords that went out before, or be over its topic's time by
//!    the node's clock, or its topic's bytes must have been there above it: what lies between it and the log start may have been over its
//!    time, once it had become the oldest.
//! 2. Of several settings that may have been in force the loosest counts; a timestamp ahead of the clock at its making counts as that.
//!    The time that has passed may count instead where that of any record that goes was more than an hour ahead, if only since the clock was
//!    set back: the newest timestamp of a segment counts for all of it.
//! 3. A record that nobody has seen is passed over, and so is a surplus of bytes behind which one lies.
//! 4. At the end, when all is healed and nobody writes, the oldest closed segment must not be there any more if those behind it have the
//!    topic's bytes and [`CLOSED_AT_ONCE`] without the active one, or if all of its records are known and have been over the topic's time for
//!    [`GRACE_MS`], by the clock and by the time that has passed since they were sent; and all other records of the partition too: a segment may
//!    have been closed only now, and one with newer records before it, gone by now, kept it.
//!
//! Knows nothing of segments before the end: a record may be kept longer than its topic asks.

use super::{Log, Rule};
use crate::history::{Event, History};
use std::collections::BTreeMap;

/// Kafka's `log.retention.hours`.
const RETENTION_MS: i64 = 168 * 3_600_000;

/// How far ahead of the clock a timestamp is believed.
const FUTURE_MS: i64 = 3_600_000;

const MS: u64 = 1_000_000;

/// How long retention may take: two of the longest intervals at which it is looked after, nearly.
const GRACE_MS: i64 = 2_000;

/// What may have been closed only now: all that a journal holds, laid out at once.
const CLOSED_AT_ONCE: u64 = 8 << 20;

/// The file of a closed segment, at the end.
pub(super) struct Segment {
    pub(super) at: u64,
    pub(super) base: i64,
    pub(super) next: i64,
    pub(super) bytes: u64,
}

struct Policy {
    at: u64,
    retention_ms: i64,
    retention_bytes: Option<i64>,
}

/// What is known of clock and topics.
#[derive(Default)]
pub(super) struct Terms {
    /// Since when the clock is how far ahead.
    clock: Vec<(u64, i64)>,
    policies: BTreeMap<String, Vec<Policy>>,
    /// Time and bytes at the end.
    keeps: BTreeMap<String, (Option<i64>, Option<i64>)>,
}

impl Terms {
    pub(super) fn of(history: &History) -> Terms {
        let mut terms = Terms::default();
        for event in &history.events {
            match event {
                Event::Clock { at, ahead_ms } => terms.clock.push((*at, *ahead_ms)),
                Event::Policy { at, topic, retention_ms, retention_bytes } => {
                    let policy = Policy { at: *at, retention_ms: retention_ms.unwrap_or(RETENTION_MS), retention_bytes: *retention_bytes };
                    terms.policies.entry(topic.clone()).or_default().push(policy);
                }
                Event::Keeps { topic, retention_ms, retention_bytes } => {
                    terms.keeps.insert(topic.clone(), (*retention_ms, *retention_bytes));
                }
                _ => {}
            }
        }
        terms
    }

    /// By how much the clock was set back in all.
    pub(super) fn set_back_ms(&self) -> i64 {
        self.clock.windows(2).map(|pair| (pair[0].1 - pair[1].1).max(0)).sum()
    }

    fn wall(&self, at: u64) -> i64 {
        let ahead = self.clock.iter().rev().find(|(since, _)| *since <= at).map_or(0, |(_, ahead)| *ahead);
        (at / MS) as i64 + ahead
    }

    /// The latest that the clock has shown by `at`.
    fn latest_wall(&self, at: u64) -> i64 {
        let before = self.clock.windows(2).filter(|pair| pair[1].0 <= at).map(|pair| (pair[1].0 / MS) as i64 + pair[0].1);
        before.max().unwrap_or(i64::MIN).max(self.wall(at))
    }

    /// The earliest that it has shown from `from` to `to`.
    fn earliest_wall(&self, from: u64, to: u64) -> i64 {
        let set = self.clock.iter().map(|(since, _)| *since).filter(|since| (from..=to).contains(since));
        set.map(|since| self.wall(since)).min().unwrap_or(i64::MAX).min(self.wall(from))
    }

    /// The shortest time and the fewest bytes that a topic may have been asked to keep by `at`.
    fn loosest(&self, topic: &str, at: u64) -> (i64, Option<i64>) {
        let policies = || self.policies.get(topic).into_iter().flatten().filter(|policy| policy.at <= at);
        let ms = policies().map(|policy| policy.retention_ms).min().unwrap_or(RETENTION_MS);
        (ms, policies().filter_map(|policy| policy.retention_bytes).min())
    }
}

/// What holds for all that a log start passes over.
struct Whole {
    start: i64,
    at: u64,
    /// The shortest time and the fewest bytes to be kept.
    terms: (i64, Option<i64>),
    /// See [`Log::has_one_ahead`] and [`Log::surplus`].
    ahead: Option<bool>,
    surplus: Option<i64>,
}

impl Log {
    pub(super) fn judge_kept(&self, topic: &str, terms: &Terms, wrong: &mut impl FnMut(Rule, String)) {
        if terms.clock.is_empty() {
            return; // a history in which nobody has looked at it
        }
        let mut told: Vec<(u64, i64)> = self.log_starts().map(|(span, start)| (span.completed, start)).collect();
        told.sort_unstable();
        let mut reached = 0;
        for (at, start) in told {
            let mut whole = Whole { start, at, terms: terms.loosest(topic, at), ahead: None, surplus: None };
            let early = (reached..start).find(|offset| !self.may_be_gone(*offset, terms, &mut whole));
            if let Some(offset) = early {
                let what = format!("offset {offset} is gone at {at}, below log start {start}");
                let what = format!("{what}; its timestamp is {:?}, the clock shows {}", self.times.timestamp(offset), terms.wall(at));
                return wrong(Rule::Early, format!("{what}, {:?} is to be kept", terms.loosest(topic, at)));
            }
            reached = reached.max(start);
        }
    }

    pub(super) fn judge_late(&self, topic: &str, terms: &Terms, wrong: &mut impl FnMut(Rule, String)) {
        let Some((ms, bytes)) = terms.keeps.get(topic).copied() else { return };
        let Some(oldest) = self.segments.iter().min_by_key(|segment| segment.base) else { return };
        let behind = self.segments.iter().map(|segment| segment.bytes).sum::<u64>() - oldest.bytes;
        let (at, range) = (oldest.at, format!("the closed segment {}..{}", oldest.base, oldest.next));
        if let Some(bytes) = bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| behind >= bytes + CLOSED_AT_ONCE) {
            wrong(Rule::Late, format!("{range} is there at {at}, {behind} bytes of closed ones lie behind it, {bytes} are to be kept"));
        }
        if let Some(ms) = ms.filter(|ms| self.is_over(oldest, *ms, terms)) {
            let newest = (oldest.base..oldest.next).filter_map(|offset| self.times.timestamp(offset)).max();
            let what = format!("{range} is there at {at}; its newest timestamp is {newest:?}, the clock shows {}", terms.wall(at));
            wrong(Rule::Late, format!("{what}, {ms} ms are to be kept"));
        }
    }

    /// Whether all of a segment has been over its time for long, and all that may have kept it until now.
    fn is_over(&self, segment: &Segment, ms: i64, terms: &Terms) -> bool {
        let since = segment.at.saturating_sub(GRACE_MS as u64 * MS);
        let wall = terms.earliest_wall(since, segment.at);
        let known = self.values.keys().copied();
        (segment.base..segment.next).chain(known).all(|offset| {
            let sent = self.values.get(&offset).and_then(|id| self.sent.get(id));
            let (Some(sent), Some(timestamp)) = (sent, self.times.timestamp(offset)) else { return false };
            timestamp.saturating_add(ms) < wall && ((since - sent.first_at.min(since)) / MS) as i64 > ms
        })
    }

    /// Whether a record may be gone with all that goes.
    fn may_be_gone(&self, offset: i64, terms: &Terms, whole: &mut Whole) -> bool {
        let sent = self.values.get(&offset).and_then(|id| self.sent.get(id));
        let (Some(sent), Some(timestamp)) = (sent, self.times.timestamp(offset)) else { return true };
        let Whole { start, at, terms: (ms, bytes), .. } = *whole;
        if self.deletions.iter().any(|(sent, to)| *sent <= at && *to > offset) {
            return true;
        }
        // One millisecond is lost to rounding.
        if timestamp.min(terms.wall(sent.first_at)).saturating_add(ms) <= terms.latest_wall(at) + 1 {
            return true;
        }
        let passed = ((at - sent.first_at.min(at)) / MS) as i64;
        if ms <= passed + 1 && *whole.ahead.get_or_insert_with(|| self.has_one_ahead(start, terms, at)) {
            return true;
        }
        bytes.is_some_and(|bytes| offset <= *whole.surplus.get_or_insert_with(|| self.surplus(bytes)))
    }

    /// Whether a record below `start` has a timestamp that is not believed.
    fn has_one_ahead(&self, start: i64, terms: &Terms, at: u64) -> bool {
        self.values.range(..start).any(|(offset, id)| {
            let (Some(sent), Some(timestamp)) = (self.sent.get(id), self.times.timestamp(*offset)) else { return false };
            timestamp > terms.earliest_wall(sent.first_at, at).saturating_add(FUTURE_MS)
        })
    }

    /// The highest offset above which so many bytes may lie.
    fn surplus(&self, bytes: i64) -> i64 {
        let (mut held, mut above) = (0, None);
        for (offset, id) in self.values.iter().rev() {
            if held >= bytes || above.is_some_and(|above| *offset + 1 != above) {
                return *offset;
            }
            held += self.sent.get(id).map_or(0, |sent| sent.bytes as i64);
            above = Some(*offset);
        }
        -1
    }
}
