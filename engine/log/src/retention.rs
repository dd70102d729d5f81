//! Which data may go, and when the active segment must be closed so that it can.
//!
//! Kafka's rules: a segment goes when its largest timestamp is more than `retention.ms` ago; or when the log without it still has
//! `retention.bytes`; or when it lies wholly below the log start. Segments go from the front only: a young one keeps all behind it.
//! `cleanup.policy=compact` alone removes nothing, but what lies below the log start.
//!
//! Two guards. A timestamp in the future would keep its segment for as long as it is ahead; beyond [`FUTURE_MS`] (the default of
//! `message.timestamp.after.max.ms`) the time at which the segment was last written counts instead. Records without a timestamp count
//! by that time too, as in Kafka.
//!
//! The outcome is a log start: it is made durable as a statement before any segment that lies below it is removed.
//!
//! Knows nothing of files; `now` is an argument.

use crate::index::{NO_TIMESTAMP, Summary};
use crate::segments::Segments;
use millrace_base::clock::WallMs;
use millrace_base::offset::Offset;
use millrace_base::planted::{Bug, is_planted};

/// How far ahead of the clock a timestamp is believed.
pub const FUTURE_MS: i64 = 3_600_000;

/// What a topic's settings say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// `cleanup.policy` has `delete`.
    pub delete: bool,
    /// `retention.ms`; negative: forever.
    pub retention_ms: i64,
    /// `retention.bytes`; negative: no bound.
    pub retention_bytes: i64,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The log start is to be raised to this offset.
    pub log_start: Option<Offset>,
    /// The active segment is over its time as a whole: roll it first; it goes the next time.
    pub roll: bool,
}

/// `newest`: the segment that is being written to, with what stands in the journal only. `committed`: nothing at or above it goes.
/// `written`: when a segment was last written to, for records without a sound timestamp.
pub fn due(
    segments: &Segments,
    newest: &Summary,
    policy: &Policy,
    log_start: Offset,
    committed: Offset,
    now: WallMs,
    written: impl Fn(&Summary) -> WallMs,
) -> Outcome {
    let mut outcome = Outcome { log_start: None, roll: false };
    if !policy.delete || is_planted(Bug::SkipRetention) {
        return outcome;
    }
    let over_time = |summary: &Summary| {
        let time = time_of(summary, now, written(summary));
        policy.retention_ms >= 0 && now.saturating_sub(time) > policy.retention_ms
    };
    let mut surplus = match u64::try_from(policy.retention_bytes) {
        Ok(kept) => segments.bytes().saturating_sub(kept),
        Err(_) => 0,
    };
    let mut all_go = true;
    for summary in segments.closed() {
        let over_bytes = (surplus >= summary.bytes || is_planted(Bug::RetainTooLittle)) && surplus > 0;
        if summary.end > committed || !(over_bytes || over_time(summary)) {
            all_go = false;
            break;
        }
        surplus = surplus.saturating_sub(summary.bytes);
        if summary.end > log_start {
            outcome.log_start = Some(summary.end);
        }
    }
    // Others that are closed may lie between the two, in the journal only.
    let is_next = newest.base == segments.active().summary().base;
    outcome.roll = all_go && is_next && newest.bytes > 0 && newest.end <= committed && over_time(newest);
    outcome
}

/// The time that counts for a segment.
fn time_of(summary: &Summary, now: WallMs, written: WallMs) -> WallMs {
    let sound = summary.max_timestamp > NO_TIMESTAMP && summary.max_timestamp <= now.saturating_add(FUTURE_MS);
    if sound { summary.max_timestamp } else { written }
}

/// Closed segments wholly below the log start, oldest first: they may be removed once the log start is durable.
pub fn removable(segments: &Segments, log_start: Offset) -> Vec<Offset> {
    segments.closed().take_while(|summary| summary.end <= log_start).map(|summary| summary.base).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use crate::walk::{self, tests::batch};

    const KEEP: Policy = Policy { delete: true, retention_ms: -1, retention_bytes: -1 };

    /// One batch a segment; the last one is active.
    fn sample(timestamps: &[i64]) -> Segments {
        let mut segments = Segments::new(Index::new(0, 1));
        for (n, timestamp) in timestamps.iter().enumerate() {
            if n > 0 {
                segments.roll(1);
            }
            let one = batch(n as i64, 1, 100, *timestamp);
            segments.active_mut().add(&walk::header_at(&one).unwrap(), &one);
        }
        segments
    }

    fn newest(segments: &Segments) -> &Summary {
        segments.active().summary()
    }

    fn check(timestamps: &[i64], policy: Policy, expected: (Option<Offset>, bool)) {
        let segments = sample(timestamps);
        let outcome = due(&segments, newest(&segments), &policy, 0, 1000, 1_000_000, |_| 999_990);
        assert_eq!((outcome.log_start, outcome.roll), expected, "{timestamps:?} {policy:?}");
    }

    #[test]
    fn segments_older_than_the_retention_time_go_from_the_front_only() {
        let policy = Policy { retention_ms: 100, ..KEEP };
        check(&[999_000, 999_100, 999_950, 999_000, 999_990], policy, (Some(2), false));
        check(&[999_900, 999_990], policy, (None, false));
        check(&[999_899, 999_990], policy, (Some(1), false));
        check(&[999_000, 999_990], KEEP, (None, false));
    }

    #[test]
    fn an_active_segment_over_its_time_is_rolled_when_all_before_it_go() {
        let policy = Policy { retention_ms: 100, ..KEEP };
        check(&[999_000, 999_100], policy, (Some(1), true));
        check(&[999_100], policy, (None, true));
        check(&[999_950, 999_100], policy, (None, false));
    }

    #[test]
    fn segments_go_while_the_rest_still_has_the_retention_bytes() {
        let one = sample(&[1]).bytes() as i64;
        let bytes = |retention_bytes| Policy { retention_bytes, ..KEEP };
        check(&[1, 2, 3, 4], bytes(2 * one), (Some(2), false));
        check(&[1, 2, 3, 4], bytes(2 * one + 1), (Some(1), false));
        check(&[1, 2, 3, 4], bytes(0), (Some(3), false));
        check(&[1, 2, 3, 4], bytes(9 * one), (None, false));
    }

    #[test]
    fn a_timestamp_far_in_the_future_does_not_keep_a_segment_for_ever() {
        let policy = Policy { retention_ms: 5, ..KEEP };
        check(&[i64::MAX / 2, 999_999], policy, (Some(1), false));
        check(&[1_000_000 + FUTURE_MS, 999_999], policy, (None, false));
        check(&[-1, 999_999], policy, (Some(1), false));
    }

    #[test]
    fn nothing_uncommitted_and_nothing_of_a_compacted_topic_goes() {
        let policy = Policy { retention_ms: 100, ..KEEP };
        let segments = sample(&[1, 2, 3]);
        assert_eq!(due(&segments, newest(&segments), &policy, 0, 1, 1_000_000, |_| 0).log_start, Some(1));
        assert!(!due(&segments, newest(&segments), &policy, 0, 2, 1_000_000, |_| 0).roll);
        check(&[1, 2, 3], Policy { delete: false, ..policy }, (None, false));
    }

    #[test]
    fn what_stands_in_the_journal_only_counts_for_the_newest_segment() {
        let policy = Policy { retention_ms: 100, ..KEEP };
        let roll = |timestamps: &[i64], newest: Summary| due(&sample(timestamps), &newest, &policy, 0, 1000, 1_000_000, |_| 999_990).roll;
        let with = |base: Offset, max_timestamp: i64| Summary { bytes: 100, end: base + 5, max_timestamp, ..Summary::empty(base) };
        assert!(roll(&[999_000], with(0, 999_899)));
        assert!(!roll(&[999_000], with(0, 999_900)));
        assert!(!roll(&[999_000], with(5, 999_000)), "another one lies before it");
    }

    #[test]
    fn segments_wholly_below_the_log_start_are_removable() {
        let segments = sample(&[1, 2, 3]);
        assert_eq!(removable(&segments, 0), []);
        assert_eq!(removable(&segments, 2), [0, 1]);
        assert_eq!(removable(&segments, 3), [0, 1], "the active one stays");
        assert_eq!(due(&segments, newest(&segments), &Policy { retention_ms: 0, ..KEEP }, 2, 9, 1_000_000, |_| 0).log_start, None);
    }
}
