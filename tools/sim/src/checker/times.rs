//! The timestamps of one partition's records, and what lookups by time said of them.
//!
//! 1. An offset has one timestamp for ever, in acknowledgements and in reads.
//! 2. Where the broker gave it, it does not fall as offsets rise by more than the clock was set back.
//! 3. A lookup gives the first record that is not older than asked. Records below a log start that may have been in force by its end do
//!    not count, nor do records that may have come after it began.
//!
//! Knows nothing of who asked.

use super::{Rule, Violation};
use crate::history::{Partition, Span};
use std::collections::BTreeMap;

struct Looked {
    span: Span,
    time: Option<i64>,
    offset: i64,
    timestamp: i64,
}

#[derive(Default)]
pub(super) struct Times {
    /// By offset: the timestamp, and whether the broker gave it.
    of: BTreeMap<i64, (i64, bool)>,
    looked: Vec<Looked>,
}

impl Times {
    pub(super) fn note(&mut self, partition: &Partition, offset: i64, timestamp: i64, by_broker: bool, found: &mut Vec<Violation>) {
        let held = *self.of.entry(offset).or_insert((timestamp, by_broker));
        if held != (timestamp, by_broker) {
            let what = format!("{partition:?}: offset {offset} had timestamp {held:?}, and later {:?}", (timestamp, by_broker));
            found.push(Violation { rule: Rule::Time, what });
        }
    }

    pub(super) fn looked(&mut self, span: Span, time: Option<i64>, offset: i64, timestamp: i64) {
        self.looked.push(Looked { span, time, offset, timestamp });
    }

    pub(super) fn timestamp(&self, offset: i64) -> Option<i64> {
        self.of.get(&offset).map(|(timestamp, _)| *timestamp)
    }

    pub(super) fn judge_order(&self, set_back_ms: i64, wrong: &mut impl FnMut(Rule, String)) {
        let mut last = (0, i64::MIN);
        for (offset, (timestamp, by_broker)) in &self.of {
            if *by_broker {
                if *timestamp < last.1.saturating_sub(set_back_ms) {
                    wrong(Rule::Time, format!("offset {offset} was appended at {timestamp}, and {} before it at {}", last.0, last.1));
                }
                last = (*offset, *timestamp);
            }
        }
    }

    /// `starts`: log starts as told. `acknowledged`: when, and which offset.
    pub(super) fn judge_lookups(&self, starts: &[(Span, i64)], acknowledged: &[(u64, i64)], wrong: &mut impl FnMut(Rule, String)) {
        for looked in &self.looked {
            // Not above any log start that was told by a request which began later: it was not higher when the lookup was answered.
            let later = starts.iter().filter(|(span, _)| span.invoked >= looked.span.completed).map(|(_, start)| *start).min();
            let Some(from) = later else { continue };
            let end = acknowledged.iter().filter(|(at, _)| *at < looked.span.invoked).map(|(_, offset)| offset + 1).max().unwrap_or(0);
            if let Some(what) = self.misled(looked, from, end) {
                wrong(Rule::Lookup, format!("at {}: {what}; log start {from}", looked.span.completed));
            }
        }
    }

    /// What is wrong with an answer, if offsets from `from` to `end` were there all the time.
    fn misled(&self, looked: &Looked, from: i64, end: i64) -> Option<String> {
        let Looked { time, offset, timestamp, .. } = *looked;
        let asked = time.map_or("the newest record".to_owned(), |time| format!("the first record from {time} on"));
        let said = format!("{asked} was said to be {offset}, of {timestamp}");
        let known = self.of.get(&offset).map(|(timestamp, _)| *timestamp);
        if offset >= 0 && known.is_some_and(|known| known != timestamp) {
            return Some(format!("{said}, and its timestamp is {}", known.unwrap_or(-1)));
        }
        if offset >= 0 && time.is_some_and(|time| timestamp < time) {
            return Some(said);
        }
        let better = |(_, (other, _)): &(&i64, &(i64, bool))| time.map_or(*other > timestamp, |time| *other >= time);
        // Whatever lies before the answer, and nothing behind what was acknowledged when it was asked for; the newest may lie anywhere.
        let end = if time.is_some() && offset >= 0 { offset } else { end };
        let (other, (other_timestamp, _)) = self.of.range(from..end.max(from)).find(better)?;
        Some(format!("{said}, and {other} is of {other_timestamp}"))
    }
}
