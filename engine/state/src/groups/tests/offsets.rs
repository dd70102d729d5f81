//! Commits, fetches, deletions, expiry.

use super::*;

const DAY: u64 = 86_400_000;

fn commit(member_id: &str, generation: i32, offsets: &[(&str, i32, i64)]) -> Commit {
    let offset = |(topic, partition, offset): &(&str, i32, i64)| CommitOffset {
        topic: topic.to_string(),
        partition: *partition,
        offset: *offset,
        leader_epoch: -1,
        metadata: String::new(),
    };
    Commit {
        group: "g".into(),
        member_id: member_id.into(),
        instance_id: None,
        generation,
        retention_ms: None,
        offsets: offsets.iter().map(offset).collect(),
    }
}

impl World {
    fn commit(&mut self, member_id: &str, generation: i32, offsets: &[(&str, i32, i64)]) -> Vec<Result<(), GroupError>> {
        let Answer::Committed(answers) = self.ask(Request::Commit(commit(member_id, generation, offsets))) else { panic!() };
        answers.into_iter().map(|answer| answer.result).collect()
    }

    fn all_offsets(&mut self) -> Vec<(String, i32, i64)> {
        let Answer::Offsets(found) = self.ask(Request::FetchOffsets { group: "g".into(), partitions: None }) else { panic!() };
        found.unwrap().into_iter().map(|(topic, partition, offset)| (topic, partition, offset.unwrap().offset)).collect()
    }

    fn delete_offsets(&mut self, topic: &str, partitions: &[i32]) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let request = Request::DeleteOffsets { group: "g".into(), partitions: vec![(topic.into(), partitions.to_vec())] };
        let Answer::OffsetsDeleted(result) = self.ask(request) else { panic!() };
        result.map(|answers| answers.into_iter().map(|answer| answer.result).collect())
    }

    fn delete_group(&mut self) -> Result<(), GroupError> {
        let Answer::GroupDeleted(result) = self.ask(Request::DeleteGroup { group: "g".into() }) else { panic!() };
        result
    }
}

#[test]
fn a_commit_is_answered_and_seen_only_when_durable() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.prompt = false;
    let token = world.send(Request::Commit(commit(&member.member_id, 1, &[("t", 0, 5)])));
    assert!(!world.answers.contains_key(&token));
    assert_eq!(world.all_offsets(), []);
    world.commit_write(Ok(()));
    assert!(world.answers.contains_key(&token));
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5)]);
}

#[test]
fn an_offset_with_a_retention_of_its_own_expires_then_and_no_sooner() {
    let mut world = World::new();
    let kept = Commit { retention_ms: Some(30 * DAY as i64), ..commit("", -1, &[("t", 0, 5)]) };
    let short = Commit { retention_ms: Some(2_000_000), ..commit("", -1, &[("t", 1, 6)]) };
    for commit in [kept, short, commit("", -1, &[("t", 2, 7)])] {
        world.ask(Request::Commit(commit));
    }
    world.pass(4_000_000);
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5), ("t".into(), 2, 7)]);
    world.pass(10 * DAY);
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5)]);
}

#[test]
fn a_commit_larger_than_the_log_takes_is_refused_before_it_is_made() {
    let mut world = World::new();
    let offsets: Vec<(&str, i32, i64)> = (0..10_000).map(|index| ("t", index, 1)).collect();
    let group = "g".repeat(TEXT_BYTES_MAX);
    let answer = world.ask(Request::Commit(Commit { group, ..commit("", -1, &offsets) }));
    let Answer::Committed(answers) = answer else { panic!() };
    assert!(answers.iter().all(|answer| answer.result == Err(GroupError::GroupTooLarge)));
    assert!(world.log.is_empty());
}

#[test]
fn a_commit_that_cannot_be_written_says_so_and_changes_nothing() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.prompt = false;
    let token = world.send(Request::Commit(commit(&member.member_id, 1, &[("t", 0, 5)])));
    world.commit_write(Err(WriteError::NotLeader));
    let Answer::Committed(answers) = world.answer(token) else { panic!() };
    assert_eq!(answers[0].result, Err(GroupError::NotCoordinator));
    assert_eq!(world.all_offsets(), []);
}

#[test]
fn commits_are_fenced_by_member_generation_and_state() {
    let mut world = World::new();
    let member = world.stable_of_one();
    let id = member.member_id.as_str();
    assert_eq!(world.commit(id, 0, &[("t", 0, 5)]), [Err(GroupError::IllegalGeneration)]);
    assert_eq!(world.commit("stranger", 1, &[("t", 0, 5)]), [Err(GroupError::UnknownMemberId)]);
    assert_eq!(world.commit("", -1, &[("t", 0, 5)]), [Err(GroupError::UnknownMemberId)]);
    assert_eq!(world.commit("", 1, &[("t", 0, 5)]), [Err(GroupError::UnknownMemberId)]);
    world.enter("b");
    assert_eq!(world.commit(id, 1, &[("t", 0, 5)]), [Ok(())], "while members join, the last generation may still commit");
    let token = world.send(Request::Join(Join { member_id: id.into(), ..join("a") }));
    let next = world.joined(token);
    assert_eq!(world.commit(id, next.generation, &[("t", 0, 6)]), [Err(GroupError::RebalanceInProgress)]);
}

#[test]
fn simple_consumers_commit_while_the_group_is_empty() {
    let mut world = World::new();
    assert_eq!(world.commit("", -1, &[("t", 0, 5), ("t", 1, 6)]), [Ok(()), Ok(())]);
    let Answer::Listed(groups) = world.ask(Request::List) else { panic!() };
    assert_eq!((groups[0].state, groups[0].protocol_type.as_str()), (GroupState::Empty, ""));
    assert_eq!(world.commit("m", 3, &[("t", 0, 5)]), [Err(GroupError::UnknownMemberId)]);
    world.restart();
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5), ("t".into(), 1, 6)]);
}

#[test]
fn a_commit_of_a_generation_to_an_unknown_group_makes_none() {
    let mut world = World::new();
    assert_eq!(world.commit("m", 1, &[("t", 0, 5)]), [Err(GroupError::GroupIdNotFound)]);
    assert!(world.groups.all().is_empty());
}

#[test]
fn too_much_metadata_refuses_that_partition_alone() {
    let mut world = World::new();
    let mut request = commit("", -1, &[("t", 0, 5), ("t", 1, 6)]);
    request.offsets[0].metadata = "x".repeat(4_097);
    let Answer::Committed(answers) = world.ask(Request::Commit(request)) else { panic!() };
    assert_eq!(answers[0].result, Err(GroupError::OffsetMetadataTooLarge));
    assert_eq!(answers[1].result, Ok(()));
    assert_eq!(world.all_offsets(), [("t".into(), 1, 6)]);
}

#[test]
fn metadata_never_outgrows_its_record_whatever_the_setting_says() {
    let mut world = World::with(Settings { offset_metadata_bytes_max: usize::MAX, ..Settings::default() });
    let mut request = commit("", -1, &[("t", 0, 5)]);
    request.offsets[0].metadata = "x".repeat(32_768);
    let Answer::Committed(answers) = world.ask(Request::Commit(request)) else { panic!() };
    assert_eq!(answers[0].result, Err(GroupError::OffsetMetadataTooLarge));
    assert!(world.groups.all().is_empty());
}

#[test]
fn a_commit_counts_as_a_sign_of_life() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.pass(9_000);
    world.commit(&member.member_id, 1, &[("t", 0, 5)]);
    world.pass(9_000);
    assert_eq!(world.heartbeat(&member), Ok(()));
}

#[test]
fn named_partitions_without_an_offset_are_answered_with_none() {
    let mut world = World::new();
    world.commit("", -1, &[("t", 0, 5)]);
    let request = Request::FetchOffsets { group: "g".into(), partitions: Some(vec![("t".into(), vec![1, 0]), ("u".into(), vec![0])]) };
    let Answer::Offsets(Ok(found)) = world.ask(request) else { panic!() };
    let offsets: Vec<Option<i64>> = found.into_iter().map(|(_, _, offset)| offset.map(|offset| offset.offset)).collect();
    assert_eq!(offsets, [None, Some(5), None]);
    let unknown = Request::FetchOffsets { group: "nope".into(), partitions: Some(vec![("t".into(), vec![0])]) };
    assert_eq!(world.ask(unknown), Answer::Offsets(Ok(vec![("t".into(), 0, None)])));
}

#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.commit(&member.member_id, 1, &[("t", 0, 5), ("u", 0, 6)]);
    assert_eq!(world.delete_offsets("t", &[0]), Ok(vec![Err(GroupError::GroupSubscribedToTopic)]));
    assert_eq!(world.delete_offsets("u", &[0, 1]), Ok(vec![Ok(()), Ok(())]));
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5)]);
    world.leave(&[(&member.member_id, None)]);
    assert_eq!(world.delete_offsets("t", &[0]), Ok(vec![Ok(())]));
    assert_eq!(world.all_offsets(), []);
}

#[test]
fn offsets_of_a_group_that_is_no_consumer_group_stay_while_it_has_members() {
    let mut world = World::new();
    let token = world.send(Request::Join(Join { protocol_type: "connect".into(), ..join("w") }));
    world.pass(0);
    world.joined(token);
    assert_eq!(world.delete_offsets("t", &[0]), Err(GroupError::NonEmptyGroup));
}

#[test]
fn only_empty_groups_are_deleted_and_wholly() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.commit(&member.member_id, 1, &[("t", 0, 5)]);
    assert_eq!(world.delete_group(), Err(GroupError::NonEmptyGroup));
    world.leave(&[(&member.member_id, None)]);
    assert_eq!(world.delete_group(), Ok(()));
    assert_eq!(world.delete_group(), Err(GroupError::GroupIdNotFound));
    assert_eq!(world.groups.live_records().count(), 0);
    world.restart();
    assert!(world.groups.all().is_empty());
}

#[test]
fn a_commit_in_flight_does_not_outlive_the_deletion_after_it() {
    let mut world = World::new();
    world.prompt = false;
    let committing = world.send(Request::Commit(commit("", -1, &[("t", 0, 5)])));
    let deleting = world.send(Request::DeleteGroup { group: "g".into() });
    let late = world.send(Request::Commit(commit("", -1, &[("t", 1, 6)])));
    let Answer::Committed(answers) = world.answer(late) else { panic!() };
    assert_eq!(answers[0].result, Err(GroupError::CoordinatorNotAvailable));
    let asked = world.ask(Request::FetchOffsets { group: "g".into(), partitions: None });
    assert_eq!(asked, Answer::Offsets(Err(GroupError::CoordinatorNotAvailable)), "it may stay, if that cannot be written");
    world.commit_write(Ok(()));
    world.commit_write(Ok(()));
    assert!(world.answers.contains_key(&committing));
    assert_eq!(world.answer(deleting), Answer::GroupDeleted(Ok(())));
    assert!(world.groups.all().is_empty());
    world.restart();
    assert!(world.groups.all().is_empty());
}

#[test]
fn a_deletion_that_cannot_be_written_leaves_the_group() {
    let mut world = World::new();
    world.commit("", -1, &[("t", 0, 5)]);
    world.prompt = false;
    let token = world.send(Request::DeleteGroup { group: "g".into() });
    world.commit_write(Err(WriteError::Unavailable));
    assert_eq!(world.answer(token), Answer::GroupDeleted(Err(GroupError::CoordinatorNotAvailable)));
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5)]);
    world.prompt = true;
    assert_eq!(world.commit("", -1, &[("t", 0, 6)]), [Ok(())]);
}

#[test]
fn offsets_of_deleted_topics_go() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.commit(&member.member_id, 1, &[("t", 0, 5), ("u", 0, 6)]);
    let effects = world.groups.topics_deleted(&["t".into()], world.time());
    world.take(effects);
    assert_eq!(world.all_offsets(), [("u".into(), 0, 6)]);
    world.restart();
    assert_eq!(world.all_offsets(), [("u".into(), 0, 6)]);
}

#[test]
fn offsets_of_simple_consumers_expire_by_their_own_age() {
    let mut world = World::new();
    world.commit("", -1, &[("t", 0, 5)]);
    world.pass(4 * DAY);
    world.commit("", -1, &[("t", 1, 6)]);
    world.pass(3 * DAY + 600_000);
    assert_eq!(world.all_offsets(), [("t".into(), 1, 6)]);
    world.pass(5 * DAY);
    assert!(world.groups.all().is_empty());
    assert_eq!(world.groups.live_records().count(), 0);
}

#[test]
fn offsets_of_a_group_expire_when_it_has_been_empty_for_the_retention() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.commit(&member.member_id, 1, &[("t", 0, 5)]);
    for _ in 0..(10 * DAY / 9_000) {
        world.pass(9_000);
        world.heartbeat(&member).unwrap();
    }
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5)], "its members are there and subscribe");
    world.leave(&[(&member.member_id, None)]);
    world.pass(7 * DAY - 1);
    world.restart();
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5)]);
    world.pass(600_001);
    assert!(world.groups.all().is_empty());
    world.restart();
    assert!(world.groups.all().is_empty());
}

#[test]
fn offsets_of_topics_nobody_subscribes_to_expire_in_a_stable_group() {
    let mut world = World::new();
    let member = world.stable_of_one();
    world.commit(&member.member_id, 1, &[("t", 0, 5), ("u", 0, 6)]);
    for _ in 0..(8 * DAY / 9_000) {
        world.pass(9_000);
        world.heartbeat(&member).unwrap();
    }
    assert_eq!(world.all_offsets(), [("t".into(), 0, 5)]);
}

#[test]
fn offsets_take_no_more_memory_than_they_may_and_those_that_are_there_go_on() {
    let mut world = World::with(Settings { state_bytes_max: 100_000, ..Settings::default() });
    let commit = |world: &mut World, partition: i32, offset: i64| {
        let offset = CommitOffset { topic: "t".into(), partition, offset, leader_epoch: -1, metadata: "m".repeat(1_000) };
        let token = world.send(Request::Commit(Commit {
            group: "g".into(),
            member_id: String::new(),
            instance_id: None,
            generation: -1,
            retention_ms: None,
            offsets: vec![offset],
        }));
        let Answer::Committed(answers) = world.answer(token) else { panic!() };
        answers[0].result
    };
    let refused = (0..200).find_map(|partition| commit(&mut world, partition, 1).err().map(|error| (partition, error)));
    let (held, error) = refused.expect("200 offsets are more than there may be");
    assert_eq!(error, GroupError::CoordinatorNotAvailable);
    assert!(held > 50 && world.groups.bytes() <= 100_000, "{held} offsets, {} bytes", world.groups.bytes());
    assert_eq!(commit(&mut world, 0, 2), Ok(()));
    assert!(commit(&mut world, held, 1).is_err());
}
