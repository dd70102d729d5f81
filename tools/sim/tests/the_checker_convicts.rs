//! Every rule of the checker convicts a history in which it is broken, and none convicts a sound one.

use millrace_sim::checker::{Rule, check};
use millrace_sim::history::{Bound, Event, History, Partition, Span};
use millrace_sim::value::ValueId;

fn partition() -> Partition {
    ("t".to_owned(), 0)
}

fn span(invoked: u64, completed: u64) -> Span {
    Span { invoked, completed }
}

fn sent(at: u64, first: u64, attempt: u32) -> Event {
    Event::Sent { at, partition: partition(), first: ValueId(first), count: 1, attempt, idempotent: true, bytes: 100 }
}

fn acknowledged(at: u64, first: u64, base: i64) -> Event {
    Event::Acknowledged { span: span(at - 1, at), partition: partition(), first: ValueId(first), count: 1, base, append_time: -1 }
}

fn read(at: u64, base: i64, values: &[u64]) -> Event {
    let timed: Vec<(u64, i64)> = values.iter().map(|value| (*value, 1000 + *value as i64)).collect();
    timed_read(at, base, false, &timed)
}

/// Values and their timestamps.
fn timed_read(at: u64, base: i64, append_time: bool, values: &[(u64, i64)]) -> Event {
    let values = values.iter().map(|(value, timestamp)| Some((ValueId(*value), *timestamp))).collect();
    Event::Read { span: span(at - 1, at), partition: partition(), reader: 1, asked: base, base, append_time, values }
}

fn bounds(invoked: u64, log_start: i64, high_watermark: i64) -> Event {
    Event::Bounds { span: span(invoked, invoked + 1), partition: partition(), high_watermark, stable: high_watermark, log_start }
}

fn scanned(from: i64, to: i64) -> Event {
    Event::Scanned { partition: partition(), reader: 9, from, to }
}

/// Sent at `at`, answered at the next moment.
fn committed(at: u64, offset: i64) -> [Event; 2] {
    let (group, partition) = ("g".to_owned(), partition());
    let sent = Event::CommitSent { at, group: group.clone(), partition: partition.clone(), offset };
    [sent, Event::Committed { span: span(at, at + 1), group, partition, offset }]
}

fn fetched(at: u64, offset: i64) -> Event {
    Event::CommittedFetched { span: span(at, at + 1), group: "g".to_owned(), partition: partition(), offset }
}

fn planned(generation: i32, members: &[(&str, &[i32])], all: i32) -> Event {
    let of = |indexes: &[i32]| indexes.iter().map(|index| ("t".to_owned(), *index)).collect();
    let plan = members.iter().map(|(member, indexes)| ((*member).to_owned(), of(indexes))).collect();
    let all = (0..all).map(|index| ("t".to_owned(), index)).collect();
    Event::Planned { group: "g".to_owned(), generation, plan, all }
}

fn assigned(at: u64, generation: i32, member: &str, indexes: &[i32]) -> Event {
    let partitions = indexes.iter().map(|index| ("t".to_owned(), *index)).collect();
    Event::Assigned { span: span(at, at + 1), group: "g".to_owned(), generation, member: member.to_owned(), partitions }
}

/// Two values, sent, acknowledged, read and scanned.
fn sound() -> Vec<Event> {
    vec![
        sent(10, 1, 1),
        acknowledged(20, 1, 0),
        sent(30, 2, 1),
        acknowledged(40, 2, 1),
        bounds(50, 0, 2),
        read(60, 0, &[1, 2]),
        scanned(0, 2),
    ]
}

#[track_caller]
fn convicts(rule: Rule, events: Vec<Event>) {
    let found = check(&History { events });
    assert!(found.iter().any(|violation| violation.rule == rule), "{rule:?} is not among {found:?}");
}

#[test]
fn a_sound_history_is_not_convicted() {
    let mut events = sound();
    events.extend(committed(70, 1));
    events.push(fetched(80, 1));
    events.extend([planned(1, &[("a", &[0, 2]), ("b", &[1])], 3), assigned(81, 1, "a", &[0, 2]), assigned(81, 1, "b", &[1])]);
    events.insert(0, Event::ReadsFor { reader: 1, group: "g".to_owned() });
    events.push(Event::Consumed { group: "g".to_owned(), partition: partition(), to: 2 });
    events.push(looked(90, Some(1002), 1, 1002));
    events.push(looked(91, None, 1, 1002));
    events.push(looked(92, Some(1003), -1, -1));
    events.push(bounds(95, 0, 2));
    events.push(Event::Folders { found: vec!["i".to_owned()], topics: vec!["i".to_owned()] });
    events.extend([Event::TopicMade { name: "t".to_owned() }, Event::Topics { names: vec!["t".to_owned()] }]);
    assert_eq!(check(&History { events }), []);
}

#[test]
fn an_acknowledged_record_that_is_gone_is_lost() {
    convicts(Rule::Lost, sound().into_iter().filter(|event| !matches!(event, Event::Read { .. })).collect());
    let mut cut = sound();
    cut.truncate(6);
    cut.push(scanned(0, 1));
    convicts(Rule::Lost, cut);
}

#[test]
fn a_broken_sequence_is_a_loss() {
    convicts(Rule::Lost, [sound(), vec![Event::SequenceBroken { at: 1, partition: partition(), first: ValueId(1) }]].concat());
}

#[test]
fn an_idempotent_record_at_two_offsets_is_doubled() {
    convicts(Rule::Doubled, [sound(), vec![sent(70, 1, 2), read(80, 2, &[1])]].concat());
}

#[test]
fn an_offset_that_changes_its_value_is_convicted() {
    convicts(Rule::Agreement, [sound(), vec![sent(61, 3, 1), read(80, 1, &[3])]].concat());
}

#[test]
fn what_was_never_sent_or_was_refused_is_a_phantom() {
    convicts(Rule::Phantom, [sound(), vec![read(80, 2, &[77])]].concat());
    let refused = Event::Refused { at: 5, partition: partition(), first: ValueId(2), count: 1 };
    convicts(Rule::Phantom, [vec![refused], sound()].concat());
}

#[test]
fn altered_bytes_are_convicted() {
    let altered =
        Event::Read { span: span(70, 71), partition: partition(), reader: 2, asked: 0, base: 0, append_time: false, values: vec![None] };
    convicts(Rule::Altered, [sound(), vec![altered]].concat());
}

#[test]
fn a_producers_order_and_real_time_are_kept() {
    convicts(Rule::Reordered, vec![sent(10, 1, 1), sent(11, 2, 1), read(60, 0, &[2, 1])]);
    // The second was sent after the first was acknowledged, by another producer.
    let other = 1 << 32;
    convicts(Rule::Reordered, vec![sent(10, 1, 1), acknowledged(20, 1, 1), sent(30, other, 1), acknowledged(40, other, 0)]);
}

#[test]
fn an_offset_that_is_passed_over_is_a_gap() {
    convicts(Rule::Gap, [sound(), vec![sent(61, 4, 1), read(80, 3, &[4])]].concat());
    convicts(Rule::Gap, vec![sent(10, 1, 1), sent(11, 2, 1), read(60, 0, &[1]), read(70, 2, &[2]), scanned(0, 3)]);
}

#[test]
fn bounds_that_go_back_are_convicted() {
    convicts(Rule::WentBack, [sound(), vec![bounds(70, 0, 1)]].concat());
    convicts(Rule::WentBack, [sound(), vec![bounds(70, 2, 2), bounds(80, 1, 2)]].concat());
    let deleted = Event::Deleted { span: span(70, 71), partition: partition(), log_start: 2 };
    convicts(Rule::WentBack, [sound(), vec![deleted, bounds(80, 1, 2)]].concat());
    // Acknowledged, and not covered by a later answer.
    convicts(Rule::WentBack, vec![sent(10, 1, 1), acknowledged(20, 1, 0), bounds(30, 0, 0)]);
    let gone = Event::OutOfRange { span: span(60, 61), partition: partition(), offset: 1 };
    convicts(Rule::WentBack, [sound(), vec![gone, bounds(70, 0, 2)]].concat());
}

#[test]
fn bounds_out_of_order_are_convicted() {
    convicts(Rule::Bounds, [sound(), vec![bounds(70, 3, 2)]].concat());
}

#[test]
fn a_committed_offset_that_is_forgotten_is_convicted() {
    convicts(Rule::CommittedOffset, [committed(70, 2).to_vec(), vec![fetched(80, -1)]].concat());
    convicts(Rule::CommittedOffset, [committed(70, 1).to_vec(), committed(80, 2).to_vec(), vec![fetched(90, 1)]].concat());
}

#[test]
fn a_commit_without_an_answer_may_stand_until_the_node_is_down_and_another_one_follows() {
    let unknown = || committed(70, 1)[0].clone();
    let rule = |events: Vec<Event>| check(&History { events }).iter().any(|found| found.rule == Rule::CommittedOffset);
    assert!(!rule([vec![unknown()], committed(80, 2).to_vec(), vec![fetched(90, 1)]].concat()), "it may come late");
    let down = Event::Down { at: 75 };
    assert!(!rule(vec![unknown(), down.clone(), fetched(90, 1)]));
    assert!(rule([vec![unknown(), down], committed(80, 2).to_vec(), vec![fetched(90, 1)]].concat()));
}

#[test]
fn assignments_that_overlap_or_leave_out_or_follow_no_plan_are_convicted() {
    let plan = || planned(1, &[("a", &[0]), ("b", &[1])], 2);
    convicts(Rule::Assignment, vec![plan(), assigned(10, 1, "a", &[0]), assigned(10, 1, "b", &[0])]);
    convicts(Rule::Assignment, vec![plan(), assigned(10, 1, "a", &[1])]);
    convicts(Rule::Assignment, vec![planned(1, &[("a", &[0])], 2), assigned(10, 1, "a", &[0])]);
    let joined = Event::Joined { span: span(20, 21), group: "g".to_owned(), generation: 1 };
    convicts(Rule::Assignment, vec![planned(2, &[("a", &[0])], 1), assigned(10, 2, "a", &[0]), joined]);
}

#[test]
fn a_record_that_no_member_has_read_is_convicted() {
    let consumed = |to| Event::Consumed { group: "g".to_owned(), partition: partition(), to };
    convicts(Rule::Unconsumed, [sound(), vec![consumed(2)]].concat());
    let reads = Event::ReadsFor { reader: 1, group: "g".to_owned() };
    convicts(Rule::Unconsumed, [vec![reads], sound(), vec![consumed(1)]].concat());
}

#[test]
fn timestamps_that_change_or_fall_are_convicted() {
    convicts(Rule::Time, [sound(), vec![timed_read(80, 0, false, &[(1, 7)])]].concat());
    convicts(Rule::Time, vec![sent(10, 1, 1), sent(11, 2, 1), timed_read(60, 0, true, &[(1, 20), (2, 19)])]);
    let Event::Acknowledged { span, partition, first, count, base, .. } = acknowledged(20, 1, 0) else { unreachable!() };
    let acknowledged = Event::Acknowledged { span, partition, first, count, base, append_time: 9 };
    convicts(Rule::Time, vec![sent(10, 1, 1), acknowledged, timed_read(60, 0, true, &[(1, 10)])]);
}

/// The clock shows what has passed; records are kept for 10 ms.
fn kept(events: Vec<Event>) -> Vec<Event> {
    let policy = Event::Policy { at: 0, topic: "t".to_owned(), retention_ms: Some(10), retention_bytes: Some(150) };
    [vec![Event::Clock { at: 0, ahead_ms: 0 }, policy], events].concat()
}

#[test]
fn what_goes_before_its_time_is_convicted() {
    let ms = 1_000_000;
    let log = || kept(vec![sent(10 * ms, 1, 1), acknowledged(20 * ms, 1, 0), timed_read(21 * ms, 0, false, &[(1, 10)])]);
    let early = |more: Vec<Event>| check(&History { events: [log(), more].concat() }).iter().any(|found| found.rule == Rule::Early);
    assert!(early(vec![bounds(18 * ms, 1, 1)]));
    assert!(!early(vec![bounds(20 * ms, 1, 1)]), "its time is over");
    assert!(!early(vec![Event::DeletionSent { at: 15 * ms, partition: partition(), to: 1 }, bounds(16 * ms, 1, 1)]));
    let set = |at, ahead_ms| Event::Clock { at, ahead_ms };
    assert!(!early(vec![set(11 * ms, 9), bounds(12 * ms, 1, 1)]), "over by the clock");
    assert!(early(vec![set(11 * ms, -9), bounds(27 * ms, 1, 1)]), "not over by the clock");
    // With two more records of 100 bytes the topic's 150 are there without the first.
    let more = |count: u64| {
        (2..2 + count).flat_map(|value| [sent(11 * ms, value, 1), timed_read(12 * ms, value as i64 - 1, false, &[(value, 10)])])
    };
    assert!(early(more(1).chain([bounds(13 * ms, 1, 2)]).collect()));
    assert!(!early(more(2).chain([bounds(13 * ms, 1, 3)]).collect()));
}

fn looked(at: u64, time: Option<i64>, offset: i64, timestamp: i64) -> Event {
    Event::Looked { span: span(at, at), partition: partition(), time, offset, timestamp }
}

#[test]
fn a_lookup_by_time_that_passes_a_record_over_is_convicted() {
    let wrong = |event| convicts(Rule::Lookup, [sound(), vec![event, bounds(95, 0, 2)]].concat());
    wrong(looked(90, Some(1001), 1, 1002));
    wrong(looked(90, Some(1001), -1, -1));
    wrong(looked(90, Some(1002), 0, 1001));
    wrong(looked(90, Some(1000), 0, 1000));
    wrong(looked(90, None, 0, 1001));
}

#[test]
fn what_is_read_from_below_a_log_start_is_convicted() {
    convicts(Rule::WentBack, [sound(), vec![bounds(70, 1, 2), read(90, 0, &[1])]].concat());
    let listed = |at, bound, offset| Event::Listed { span: span(at, at + 1), partition: partition(), bound, offset };
    convicts(Rule::WentBack, [sound(), vec![listed(70, Bound::LogStart, 2), bounds(80, 1, 2)]].concat());
    convicts(Rule::WentBack, [sound(), vec![listed(70, Bound::HighWatermark, 1)]].concat());
}

/// More than may be closed at once.
const SEGMENT_BYTES: u64 = 10 << 20;

/// A closed segment.
fn segment(at: u64, base: i64, next: i64, log_start: i64) -> Event {
    Event::Segment { at, partition: partition(), base, next, bytes: SEGMENT_BYTES, log_start }
}

#[test]
fn retention_that_stops_is_convicted() {
    let ms = 1_000_000;
    let log =
        |at: u64| vec![sent(10 * ms, 1, 1), acknowledged(20 * ms, 1, 0), timed_read(21 * ms, 0, false, &[(1, 10)]), segment(at, 0, 1, 0)];
    let late = |retention_ms, retention_bytes, more: Vec<Event>, at: u64| {
        let keeps = Event::Keeps { topic: "t".to_owned(), retention_ms, retention_bytes };
        let first = vec![Event::Clock { at: 0, ahead_ms: 0 }, keeps];
        check(&History { events: [first, log(at), more].concat() }).iter().any(|found| found.rule == Rule::Late)
    };
    // Written at 10 ms and kept for 10, it is due for longer than it may take.
    assert!(late(Some(10), None, vec![], 2_022 * ms));
    assert!(!late(Some(10), None, vec![], 2_019 * ms), "it may be on its way");
    assert!(!late(None, None, vec![], 90_000 * ms), "nothing says that it is to go");
    let set = |at, ahead_ms| Event::Clock { at, ahead_ms };
    assert!(!late(Some(10), None, vec![set(1_500 * ms, -2_500)], 2_022 * ms), "not over by the clock");
    assert!(!late(Some(3_000), None, vec![set(21 * ms, 90_000)], 2_030 * ms), "over by the clock alone");
    assert!(!late(Some(10), None, vec![segment(2_022 * ms, -1, 0, -1)], 2_022 * ms), "nobody knows what the oldest one holds");
    // A record before the segment, in one that is gone by now, may have kept it.
    let behind = |before: i64| {
        let keeps = Event::Keeps { topic: "t".to_owned(), retention_ms: Some(10), retention_bytes: None };
        let two = [(1, before), (2, 10)].map(|(value, timestamp)| {
            let offset = value as i64 - 1;
            [sent(10 * ms, value, 1), acknowledged(20 * ms, value, offset), timed_read(21 * ms, offset, false, &[(value, timestamp)])]
        });
        let first = vec![Event::Clock { at: 0, ahead_ms: 0 }, keeps];
        let events = [first, two.concat(), vec![segment(2_022 * ms, 1, 2, 1)]].concat();
        check(&History { events }).iter().any(|found| found.rule == Rule::Late)
    };
    assert!(behind(9));
    assert!(!behind(1_000));
    // Without the oldest of 10 MiB there are still 20, of which 8 may have been closed only now.
    let more = || vec![segment(30 * ms, 1, 2, 0), segment(30 * ms, 2, 3, 0)];
    assert!(late(None, Some(12 << 20), more(), 30 * ms));
    assert!(!late(None, Some((12 << 20) + 1), more(), 30 * ms));
}

#[test]
fn files_of_what_is_gone_are_convicted() {
    convicts(Rule::Leftover, vec![Event::Folders { found: vec!["i".to_owned()], topics: Vec::new() }]);
    convicts(Rule::Leftover, vec![segment(10, 0, 5, 5)]);
    assert_eq!(check(&History { events: vec![segment(10, 0, 6, 5)] }), []);
}

#[test]
fn a_data_directory_that_stops_because_of_another_is_convicted() {
    let beside = |is_done| Event::Beside { partition: partition(), what: "a write".to_owned(), is_done };
    convicts(Rule::Directory, vec![beside(false)]);
    assert_eq!(check(&History { events: vec![beside(true)] }), []);
}

#[test]
fn a_partition_that_is_refused_for_a_sound_disk_is_convicted() {
    convicts(Rule::Damage, vec![Event::Unserved { at: 1, partition: partition(), message: "damaged".to_owned() }]);
}

#[test]
fn topics_that_vanish_or_come_back_are_convicted() {
    let (made, gone) = (Event::TopicMade { name: "a".to_owned() }, Event::TopicGone { name: "a".to_owned() });
    convicts(Rule::Topics, vec![made.clone(), Event::Topics { names: Vec::new() }]);
    convicts(Rule::Topics, vec![made, gone, Event::Topics { names: vec!["a".to_owned()] }]);
}

#[test]
fn what_a_client_finds_wrong_is_passed_on() {
    convicts(Rule::Client, vec![Event::Wrong { what: "an answer that was not asked for".to_owned() }]);
}
