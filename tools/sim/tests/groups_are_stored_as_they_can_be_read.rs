//! What a group coordinator writes can be read again: a group's record larger than any batch that is stored is refused. And offsets of a
//! topic that is gone go too, whatever kept them when it was deleted.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use bytes::Bytes;
use kafka_protocol::messages::GroupId;
use kafka_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use kafka_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequest;
use kafka_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use kafka_protocol::protocol::StrBytes;
use millrace_io::sim::{ClientEnd, Loss};
use millrace_log::journal::Options;
use millrace_sim::node::{Frames, Node, config, decode, framed, topic};

const JOIN: i16 = 3;
const SYNC: i16 = 2;
const COMMITTED: i16 = 7;
const DELETE: i16 = 5;
const UNKNOWN_SERVER_ERROR: i16 = -1;

/// The offset of the group for the one partition that it may have one for.
fn committed(node: &mut Node, end: &mut ClientEnd) -> Option<i64> {
    let request = OffsetFetchRequest::default().with_group_id(GroupId(StrBytes::from_static_str("g"))).with_topics(None);
    let answer = node.ask(end, COMMITTED, &request, 5_000).unwrap();
    assert_eq!(answer.error_code, 0);
    answer.topics.first().map(|topic| topic.partitions[0].committed_offset)
}

/// The answers to requests that wait for each other, in their order.
fn all(node: &mut Node, ends: &mut [ClientEnd], requests: Vec<Vec<u8>>) -> Vec<Bytes> {
    let mut frames: Vec<Frames> = requests.iter().map(|_| Frames::default()).collect();
    frames.iter_mut().zip(&requests).for_each(|(frames, request)| frames.queue(request));
    let mut answers: Vec<Option<Bytes>> = requests.iter().map(|_| None).collect();
    assert!(node.run(60_000, |_| {
        for ((frames, end), answer) in frames.iter_mut().zip(&mut *ends).zip(&mut answers) {
            if let Some(came) = frames.exchange(end).pop() {
                *answer = Some(came);
            }
        }
        answers.iter().all(Option::is_some)
    }));
    answers.into_iter().map(Option::unwrap).collect()
}

#[test]
fn a_group_whose_record_would_be_too_large_is_refused() {
    const MEMBERS: usize = 8;
    let journal = Options::new(8);
    let mut node = Node::new(millrace_sim::cluster::Config { journal, ..config(1, 1, 768 << 20) });
    node.start().unwrap();
    node.create("t", 1);
    let mut ends: Vec<ClientEnd> = (0..MEMBERS).map(|_| node.connect()).collect();
    node.await_coordinator(&mut ends[0], "g", |_, _| true);
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(Bytes::from(vec![7; (1 << 20) - 100]));
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let joins = all(&mut node, &mut ends, vec![framed(JOIN, &request); MEMBERS]);
    let joins: Vec<_> = joins.iter().map(|answer| decode::<JoinGroupRequest>(answer, JOIN)).collect();
    assert!(joins.iter().all(|join| join.error_code == 0), "{:?}", joins.iter().map(|join| join.error_code).collect::<Vec<_>>());
    let plan = |member: &StrBytes| {
        SyncGroupRequestAssignment::default().with_member_id(member.clone()).with_assignment(Bytes::from(vec![8; 20_000]))
    };
    let sync = |join: &kafka_protocol::messages::JoinGroupResponse| {
        let is_leader = join.leader == join.member_id;
        let plans = if is_leader { joins.iter().map(|join| plan(&join.member_id)).collect() } else { Vec::new() };
        let request =
            SyncGroupRequest::default().with_group_id(GroupId(StrBytes::from_static_str("g"))).with_generation_id(join.generation_id);
        framed(SYNC, &request.with_member_id(join.member_id.clone()).with_assignments(plans))
    };
    let syncs = all(&mut node, &mut ends, joins.iter().map(sync).collect());
    let codes: Vec<i16> = syncs.iter().map(|answer| decode::<SyncGroupRequest>(answer, SYNC).error_code).collect();
    assert!(codes.contains(&UNKNOWN_SERVER_ERROR) && !codes.contains(&0), "{codes:?}");
    node.cluster.cut_power(Loss::All);
    node.start().unwrap();
    let mut end = node.connect();
    node.await_coordinator(&mut end, "g", |_, _| true);
    assert_eq!(node.commit(&mut end, "g", 5), 0);
    assert_eq!(committed(&mut node, &mut end), Some(5));
}

/// Deletes topics of the one name, each with an offset, until the power goes between an answer and what is written about its offset.
#[test]
fn offsets_that_a_crash_kept_from_going_with_their_topic_go_later() {
    let mut config = config(1, 1, 64 << 20);
    config.settings.push("log.retention.check.interval.ms=1000".to_owned());
    let mut node = Node::new(config);
    node.start().unwrap();
    let mut kept = false;
    for _ in 0..40 {
        node.create("t", 1);
        let mut end = node.connect();
        node.await_coordinator(&mut end, "g", |_, _| true);
        assert_eq!(node.commit(&mut end, "g", 5), 0);
        let request = DeleteTopicsRequest::default().with_topic_names(vec![topic("t")]).with_timeout_ms(5_000);
        let mut frames = Frames::default();
        frames.queue(&framed(DELETE, &request));
        assert!(node.run(5_000, |_| match frames.exchange(&mut end).pop() {
            Some(answer) => decode::<DeleteTopicsRequest>(&answer, DELETE).responses[0].error_code == 0,
            None => false,
        }));
        node.cluster.cut_power(Loss::All);
        node.start().unwrap();
        let mut end = node.connect();
        node.await_coordinator(&mut end, "g", |_, _| true);
        kept |= committed(&mut node, &mut end) == Some(5);
        node.run(2_500, |_| false);
        assert_eq!(committed(&mut node, &mut end), None);
    }
    assert!(kept, "some deletion was answered before that of its offset was durable");
}
