//! Joining, rebalancing, leaving; static members; restarts.

use super::*;

#[test]
fn a_new_dynamic_member_is_told_its_id_first() {
    let mut world = World::new();
    let (id, token) = world.enter("client");
    assert!(id.starts_with("client-") && id.len() == "client-".len() + 36);
    world.pass(0);
    let joined = world.joined(token);
    assert_eq!((joined.generation, joined.leader.as_str(), joined.protocol.as_deref()), (1, id.as_str(), Some("range")));
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn older_clients_join_at_once() {
    let mut world = World::new();
    let token = world.send(Request::Join(join("a")));
    world.pass(0);
    assert_eq!(world.joined(token).generation, 1);
}

#[test]
fn two_consumers_join_and_get_what_the_leader_assigns() {
    let mut world = World::new();
    let (leader, follower) = world.stable_of_two();
    assert_eq!(leader.members.len(), 2);
    assert!(follower.members.is_empty());
    assert_eq!(world.state(), GroupState::Stable);
    assert_eq!(world.heartbeat(&leader), Ok(()));
    let described = world.described();
    assert_eq!(described.protocol, "range");
    assert!(described.members.iter().all(|member| !member.assignment.is_empty() && !member.metadata.is_empty()));
}

#[test]
fn sync_is_answered_only_when_the_assignment_is_durable() {
    let mut world = World::new();
    let (_, token) = world.enter("a");
    world.pass(0);
    let joined = world.joined(token);
    world.prompt = false;
    let token = world.sync(&joined, &[(&joined.member_id.clone(), &[1])]);
    assert!(!world.answers.contains_key(&token));
    assert_eq!(world.state(), GroupState::CompletingRebalance);
    world.commit_write(Ok(()));
    assert_eq!(world.synced(token), Ok(vec![1]));
    assert_eq!(world.state(), GroupState::Stable);
}

#[test]
fn a_failed_write_of_the_assignment_refuses_syncs_and_rebalances() {
    let mut world = World::new();
    let (_, token) = world.enter("a");
    world.pass(0);
    let joined = world.joined(token);
    world.prompt = false;
    let token = world.sync(&joined, &[]);
    world.commit_write(Err(WriteError::Unavailable));
    assert_eq!(world.synced(token), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    assert_eq!(world.heartbeat(&joined), Err(GroupError::RebalanceInProgress));
}

#[test]
fn one_leaves_and_the_other_takes_over() {
    let mut world = World::new();
    let (leader, follower) = world.stable_of_two();
    assert_eq!(world.leave(&[(&leader.member_id, None)]), [Ok(())]);
    assert_eq!(world.heartbeat(&follower), Err(GroupError::RebalanceInProgress));
    let again = Join { member_id: follower.member_id.clone(), ..join("b") };
    let token = world.send(Request::Join(again));
    let joined = world.joined(token);
    assert_eq!((joined.generation, &joined.leader), (2, &follower.member_id));
    let token = world.sync(&joined, &[(&joined.member_id.clone(), &[9])]);
    assert_eq!(world.synced(token), Ok(vec![9]));
}

#[test]
fn the_last_one_leaving_makes_the_group_empty_durably() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.prompt = false;
    let leaving = Leaving { member_id: member.member_id.clone(), instance_id: None };
    let token = world.send(Request::Leave { group: "g".into(), members: vec![leaving] });
    assert!(!world.answers.contains_key(&token), "the leave waits for its record");
    world.commit_write(Ok(()));
    assert_eq!(world.answer(token), Answer::Left(Ok(vec![(Leaving { member_id: member.member_id, instance_id: None }, Ok(()))])));
    assert_eq!(world.state(), GroupState::Empty);
    world.prompt = true;
    world.restart();
    assert_eq!(world.state(), GroupState::Empty);
    assert_eq!(world.groups.all()["g"].generation, 2);
}

#[test]
fn a_batch_of_leavers_is_answered_one_by_one() {
    let mut world = World::new();
    let (a, b) = world.stable_of_two();
    let results = world.leave(&[(&a.member_id, None), ("nobody", None), ("", Some("no-instance")), (&b.member_id, None)]);
    assert_eq!(results, [Ok(()), Err(GroupError::UnknownMemberId), Err(GroupError::UnknownMemberId), Ok(())]);
    assert_eq!(world.state(), GroupState::Empty);
}

#[test]
fn a_static_member_can_be_removed_by_its_instance_id() {
    let mut world = World::new();
    let token = world.send(Request::Join(static_join("i1")));
    world.pass(0);
    let joined = world.joined(token);
    world.sync(&joined, &[]);
    assert_eq!(world.leave(&[("wrong", Some("i1"))]), [Err(GroupError::FencedInstanceId)]);
    assert_eq!(world.leave(&[("", Some("i1"))]), [Ok(())]);
    assert_eq!(world.state(), GroupState::Empty);
}

#[test]
fn a_session_that_ends_removes_the_member() {
    let mut world = World::new();
    let (leader, follower) = world.stable_of_two();
    world.pass(9_000);
    assert_eq!(world.heartbeat(&leader), Ok(()));
    world.pass(2_000);
    assert_eq!(world.heartbeat(&leader), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.heartbeat(&follower), Err(GroupError::UnknownMemberId));
    let again = Join { member_id: leader.member_id.clone(), ..join("a") };
    let token = world.send(Request::Join(again));
    assert_eq!(world.joined(token).generation, 2);
}

#[test]
fn who_does_not_rejoin_in_time_is_removed() {
    let mut world = World::new();
    let (leader, follower) = world.stable_of_two();
    let token = world.send(Request::Join(Join { member_id: leader.member_id.clone(), ..join("a") }));
    for _ in 0..12 {
        world.pass(5_000);
        let _ = world.heartbeat(&follower); // alive, but never joins
    }
    let joined = world.joined(token);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(world.heartbeat(&follower), Err(GroupError::UnknownMemberId));
}

#[test]
fn who_does_not_sync_in_time_is_removed() {
    let mut world = World::new();
    let (_, a) = world.enter("a");
    let (_, b) = world.enter("b");
    world.pass(0);
    let (a, b) = (world.joined(a), world.joined(b));
    let (leader, lazy) = if a.leader == a.member_id { (a, b) } else { (b, a) };
    let token = world.sync(&leader, &[]);
    assert_eq!(world.synced(token), Ok(vec![]));
    for _ in 0..13 {
        world.pass(5_000);
        let _ = world.heartbeat(&leader);
        let _ = world.heartbeat(&lazy);
    }
    assert_eq!(world.heartbeat(&lazy), Err(GroupError::UnknownMemberId));
}

#[test]
fn an_id_that_is_never_used_is_forgotten() {
    let mut world = World::new();
    let token = world.send(Request::Join(Join { member_id_required: true, ..join("a") }));
    let Answer::Joined(Err(refused)) = world.answer(token) else { panic!() };
    assert_eq!(world.groups.all().len(), 1);
    world.pass(10_001);
    assert!(world.groups.all().is_empty(), "a group nobody joined is not kept");
    let token = world.send(Request::Join(Join { member_id: refused.member_id, ..join("a") }));
    assert_eq!(world.join_error(token), GroupError::UnknownMemberId);
}

/// A client learns its id at once and leaves before it joins; another's session ends much later.
#[test]
fn a_deadline_that_moves_away_is_announced_and_again_after_a_tick_that_came_early() {
    let mut world = World::new();
    let first = world.now + 10_000;
    let token = world.send(Request::Join(Join { group: "b".into(), member_id_required: true, ..join("b") }));
    let Answer::Joined(Err(refused)) = world.answer(token) else { panic!() };
    assert_eq!(world.timer, Some(first));
    let slow = Join { group: "a".into(), session_timeout_ms: 60_000, ..join("a") };
    let token = world.send(Request::Join(slow));
    world.pass(0);
    world.joined(token);
    let leaving = Leaving { member_id: refused.member_id, instance_id: None };
    world.send(Request::Leave { group: "b".into(), members: vec![leaving] });
    let later = world.timer.take().unwrap();
    assert!(later > first);
    world.now = first;
    let effects = world.groups.tick(world.time());
    assert_eq!(effects, [Effect::Timer { at_ms: later }]);
}

#[test]
fn the_first_rebalance_waits_and_waits_longer_while_members_come() {
    let mut world = World::with(Settings { initial_rebalance_delay_ms: 3_000, ..Settings::default() });
    let (_, a) = world.enter("a");
    world.pass(2_000);
    let (_, b) = world.enter("b");
    world.pass(2_000);
    assert!(world.answers.is_empty(), "b came within the delay, so it began again");
    world.pass(2_001);
    assert_eq!(world.joined(a).generation, 1);
    assert_eq!(world.joined(b).generation, 1);
}

#[test]
fn a_group_alone_does_not_wait_longer_than_the_delay() {
    let mut world = World::with(Settings { initial_rebalance_delay_ms: 3_000, ..Settings::default() });
    let (_, a) = world.enter("a");
    world.pass(2_999);
    assert!(world.answers.is_empty());
    world.pass(1);
    assert_eq!(world.joined(a).generation, 1);
}

#[test]
fn protocols_must_be_shared() {
    let mut world = World::new();
    world.stable_of_one();
    let other = Join { protocols: vec![("sticky".into(), vec![])], ..join("b") };
    let token = world.send(Request::Join(other));
    assert_eq!(world.join_error(token), GroupError::InconsistentGroupProtocol);
    let kind = Join { protocol_type: "connect".into(), ..join("b") };
    let token = world.send(Request::Join(kind));
    assert_eq!(world.join_error(token), GroupError::InconsistentGroupProtocol);
    let none = Join { group: "h".into(), protocols: vec![], ..join("b") };
    let token = world.send(Request::Join(none));
    assert_eq!(world.join_error(token), GroupError::InconsistentGroupProtocol);
    assert!(!world.groups.all().contains_key("h"));
}

#[test]
fn the_protocol_with_most_votes_among_the_shared_wins() {
    let mut world = World::new();
    let lists: [&[&str]; 3] = [&["x", "y", "z"], &["y", "x"], &["y", "x"]];
    let tokens: Vec<_> = lists
        .iter()
        .map(|list| {
            let protocols = list.iter().map(|name| (name.to_string(), vec![7])).collect();
            world.send(Request::Join(Join { protocols, ..join("a") }))
        })
        .collect();
    world.pass(0);
    for token in tokens {
        assert_eq!(world.joined(token).protocol.as_deref(), Some("y"));
    }
}

#[test]
fn timeouts_texts_and_protocols_are_bounded() {
    let mut world = World::new();
    for session_timeout_ms in [5_999, 1_800_001, -1] {
        let token = world.send(Request::Join(Join { session_timeout_ms, ..join("a") }));
        assert_eq!(world.join_error(token), GroupError::InvalidSessionTimeout);
    }
    let token = world.send(Request::Join(Join { group: String::new(), ..join("a") }));
    assert_eq!(world.join_error(token), GroupError::InvalidGroupId);
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let token = world.send(Request::Join(Join { client_id: long, ..join("a") }));
    assert_eq!(world.join_error(token), GroupError::InvalidRequest);
    let big = vec![("p".into(), vec![0; PROTOCOLS_BYTES_MAX])];
    let token = world.send(Request::Join(Join { protocols: big, ..join("a") }));
    assert_eq!(world.join_error(token), GroupError::InvalidRequest);
    let twice = vec![("p".into(), vec![]), ("p".into(), vec![])];
    let token = world.send(Request::Join(Join { protocols: twice, ..join("a") }));
    assert_eq!(world.join_error(token), GroupError::InvalidRequest);
    assert!(world.groups.all().is_empty());
}

#[test]
fn a_full_group_takes_nobody_in_but_its_own() {
    let mut world = World::with(Settings { initial_rebalance_delay_ms: 0, group_size_max: 1, ..Settings::default() });
    let member = world.stable_of_one();
    let token = world.send(Request::Join(join("b")));
    assert_eq!(world.join_error(token), GroupError::GroupMaxSizeReached);
    let token = world.send(Request::Join(Join { member_id: member.member_id, ..join("a") }));
    assert_eq!(world.joined(token).generation, 2);
}

#[test]
fn stale_generations_and_strangers_are_fenced() {
    let mut world = World::new();
    let member = world.stable_of_one();
    let stale = Joined { generation: member.generation - 1, ..member.clone() };
    assert_eq!(world.heartbeat(&stale), Err(GroupError::IllegalGeneration));
    let token = world.sync(&stale, &[]);
    assert_eq!(world.synced(token), Err(GroupError::IllegalGeneration));
    let stranger = Joined { member_id: "stranger".into(), ..member.clone() };
    assert_eq!(world.heartbeat(&stranger), Err(GroupError::UnknownMemberId));
    let wrong = Sync { protocol: Some("sticky".into()), ..sync(&member, &[]) };
    let token = world.send(Request::Sync(wrong));
    assert_eq!(world.synced(token), Err(GroupError::InconsistentGroupProtocol));
}

#[test]
fn a_follower_that_joins_again_unchanged_causes_no_rebalance_and_a_leader_does() {
    let mut world = World::new();
    let (leader, follower) = world.stable_of_two();
    let token = world.send(Request::Join(Join { member_id: follower.member_id, ..join("b") }));
    assert_eq!(world.joined(token).generation, 1);
    assert_eq!(world.state(), GroupState::Stable);
    world.send(Request::Join(Join { member_id: leader.member_id, ..join("a") }));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
}

#[test]
fn changed_subscriptions_cause_a_rebalance() {
    let mut world = World::new();
    let (_, follower) = world.stable_of_two();
    let protocols = vec![("range".into(), subscription(&["t", "u"]))];
    world.send(Request::Join(Join { member_id: follower.member_id, protocols, ..join("b") }));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
}

#[test]
fn syncs_that_wait_are_told_of_the_next_rebalance() {
    let mut world = World::new();
    let (_, a) = world.enter("a");
    let (_, b) = world.enter("b");
    world.pass(0);
    let (a, b) = (world.joined(a), world.joined(b));
    let follower = if a.leader == a.member_id { b } else { a };
    let token = world.sync(&follower, &[]);
    world.enter("c");
    assert_eq!(world.synced(token), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_static_member_that_restarts_keeps_its_assignment_without_a_rebalance() {
    let mut world = World::new();
    let token = world.send(Request::Join(static_join("i1")));
    world.pass(0);
    let first = world.joined(token);
    let token = world.sync(&first, &[(&first.member_id.clone(), &[5])]);
    assert_eq!(world.synced(token), Ok(vec![5]));

    world.prompt = false;
    let token = world.send(Request::Join(Join { can_skip_assignment: true, ..static_join("i1") }));
    assert!(!world.answers.contains_key(&token), "the new id is durable first");
    world.commit_write(Ok(()));
    let second = world.joined(token);
    assert_ne!(second.member_id, first.member_id);
    assert_eq!((second.generation, second.skip_assignment, second.members.len()), (1, true, 1));
    let token = world.sync(&second, &[]);
    assert_eq!(world.synced(token), Ok(vec![5]));
    // The one before is fenced, by whichever request.
    let old = Sync { instance_id: Some("i1".into()), ..sync(&first, &[]) };
    let token = world.send(Request::Sync(old));
    assert_eq!(world.synced(token), Err(GroupError::FencedInstanceId));
    assert_eq!(world.heartbeat(&first), Err(GroupError::UnknownMemberId));
}

#[test]
fn an_older_static_leader_that_restarts_is_told_the_old_leader() {
    let mut world = World::new();
    let token = world.send(Request::Join(static_join("i1")));
    world.pass(0);
    let first = world.joined(token);
    world.sync(&first, &[]);
    let token = world.send(Request::Join(static_join("i1")));
    let second = world.joined(token);
    assert_eq!(second.leader, first.member_id);
    assert!(second.members.is_empty() && !second.skip_assignment);
}

#[test]
fn a_static_restart_that_cannot_be_written_leaves_the_old_id() {
    let mut world = World::new();
    let token = world.send(Request::Join(static_join("i1")));
    world.pass(0);
    let first = world.joined(token);
    world.sync(&first, &[(&first.member_id.clone(), &[5])]);
    world.prompt = false;
    let token = world.send(Request::Join(static_join("i1")));
    world.commit_write(Err(WriteError::NotLeader));
    assert_eq!(world.join_error(token), GroupError::NotCoordinator);
    let token = world.sync(&first, &[]);
    assert_eq!(world.synced(token), Ok(vec![5]));
}

#[test]
fn a_twin_fences_the_static_member_that_still_waits() {
    let mut world = World::with(Settings { initial_rebalance_delay_ms: 3_000, ..Settings::default() });
    let first = world.send(Request::Join(static_join("i1")));
    let second = world.send(Request::Join(static_join("i1")));
    assert_eq!(world.join_error(first), GroupError::FencedInstanceId);
    world.pass(6_000);
    assert_eq!(world.joined(second).generation, 1);
}

#[test]
fn after_a_restart_members_go_on_with_their_ids_and_generation() {
    let mut world = World::new();
    let (leader, follower) = world.stable_of_two();
    world.restart();
    assert_eq!(world.state(), GroupState::Stable);
    assert_eq!(world.heartbeat(&leader), Ok(()));
    assert_eq!(world.heartbeat(&follower), Ok(()));
    let token = world.sync(&follower, &[]);
    assert_eq!(world.synced(token), Ok(vec![2]));
    // Sessions began anew: nobody is lost before a whole one has passed.
    world.restart();
    world.pass(9_999);
    assert_eq!(world.heartbeat(&leader), Ok(()));
    world.pass(10_001);
    assert_eq!(world.heartbeat(&follower), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_retried_join_frees_the_request_before() {
    let mut world = World::new();
    let (leader, _) = world.stable_of_two();
    let again = || Request::Join(Join { member_id: leader.member_id.clone(), ..join("a") });
    let first = world.send(again());
    world.send(again());
    assert_eq!(world.join_error(first), GroupError::RebalanceInProgress);
}

#[test]
fn requests_about_unknown_groups_are_refused_and_make_none() {
    let mut world = World::new();
    let stranger = Joined {
        member_id: "m".into(),
        generation: 1,
        protocol_type: None,
        protocol: None,
        leader: String::new(),
        members: vec![],
        skip_assignment: false,
    };
    assert_eq!(world.heartbeat(&stranger), Err(GroupError::UnknownMemberId));
    assert_eq!(world.leave(&[("m", None)]), [Err(GroupError::UnknownMemberId)]);
    assert_eq!(world.ask(Request::DeleteGroup { group: "g".into() }), Answer::GroupDeleted(Err(GroupError::GroupIdNotFound)));
    assert_eq!(world.ask(Request::Describe { group: "g".into() }), Answer::Described(Err(GroupError::GroupIdNotFound)));
    assert_eq!(world.ask(Request::List), Answer::Listed(vec![]));
    assert!(world.groups.all().is_empty());
}

#[test]
fn groups_take_no_more_memory_than_they_may_and_those_that_are_there_live_on() {
    let most = 256 << 10;
    let mut world = World::with(Settings { initial_rebalance_delay_ms: 0, state_bytes_max: most, ..Settings::default() });
    let large = |n: usize| Join { group: format!("g{n}"), protocols: vec![("range".into(), vec![7; 20_000])], ..join("a") };
    let mut joined = Vec::new();
    let refused = loop {
        let token = world.send(Request::Join(large(joined.len())));
        world.pass(0);
        match world.answer(token) {
            Answer::Joined(Ok(one)) => joined.push(one),
            Answer::Joined(Err(refused)) => break refused.error,
            other => panic!("{other:?}"),
        }
        assert!(joined.len() < 20);
    };
    assert_eq!(refused, GroupError::CoordinatorNotAvailable);
    assert!(joined.len() > 8 && world.groups.bytes() <= most, "{} groups, {} bytes", joined.len(), world.groups.bytes());
    // Who is there may join again, and leave; then there is room.
    let again = world.send(Request::Join(Join { member_id: joined[0].member_id.clone(), ..large(0) }));
    world.pass(0);
    world.joined(again);
    let members = vec![Leaving { member_id: joined[1].member_id.clone(), instance_id: None }];
    world.send(Request::Leave { group: "g1".into(), members });
    let token = world.send(Request::Join(large(99)));
    world.pass(0);
    world.joined(token);
}
