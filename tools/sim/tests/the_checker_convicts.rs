//! Every rule of the checker convicts a history in which it is broken, and none convicts a sound one.

use millrace_sim::checker::{Rule, check};
use millrace_sim::history::{Event, History, Partition, Span};
use millrace_sim::value::ValueId;

fn partition() -> Partition {
    ("t".to_owned(), 0)
}

fn span(invoked: u64, completed: u64) -> Span {
    Span { invoked, completed }
}

fn sent(at: u64, first: u64, attempt: u32) -> Event {
    Event::Sent { at, partition: partition(), first: ValueId(first), count: 1, attempt, idempotent: true }
}

fn acknowledged(at: u64, first: u64, base: i64) -> Event {
    Event::Acknowledged { span: span(at - 1, at), partition: partition(), first: ValueId(first), count: 1, base }
}

fn read(at: u64, base: i64, values: &[u64]) -> Event {
    let values = values.iter().map(|value| Some(ValueId(*value))).collect();
    Event::Read { span: span(at - 1, at), partition: partition(), reader: 1, asked: base, base, values }
}

fn bounds(invoked: u64, log_start: i64, high_watermark: i64) -> Event {
    Event::Bounds { span: span(invoked, invoked + 1), partition: partition(), high_watermark, stable: high_watermark, log_start }
}

fn scanned(from: i64, to: i64) -> Event {
    Event::Scanned { partition: partition(), reader: 9, from, to }
}

fn committed(offset: i64) -> [Event; 2] {
    let (group, partition) = ("g".to_owned(), partition());
    [Event::CommitSent { group: group.clone(), partition: partition.clone(), offset }, Event::Committed { group, partition, offset }]
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
    events.extend(committed(1));
    events.push(Event::CommittedFetched { group: "g".to_owned(), partition: partition(), offset: 1 });
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
    let altered = Event::Read { span: span(70, 71), partition: partition(), reader: 2, asked: 0, base: 0, values: vec![None] };
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
    let fetched = |offset| Event::CommittedFetched { group: "g".to_owned(), partition: partition(), offset };
    convicts(Rule::CommittedOffset, [sound(), committed(2).to_vec(), vec![fetched(-1)]].concat());
    convicts(Rule::CommittedOffset, [sound(), committed(1).to_vec(), committed(2).to_vec(), vec![fetched(1)]].concat());
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
