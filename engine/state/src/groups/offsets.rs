//! Committed offsets of a group: commit, fetch, deletion, expiry.
//!
//! A commit is checked against the generation now and becomes visible when its record is committed. Deletions also name what is still
//! in flight, since that comes before them in the log.
//!
//! Invariants: nothing here changes an offset directly: every change is a record first.
//! Knows nothing of which topics exist.

use std::collections::BTreeSet;

use super::group::Group;
use super::machine::{Core, Then};
use super::membership;
use super::records::{Change, CommittedOffset};
use super::request::{Answer, Commit, GroupError, GroupState, PartitionAnswer, RequestToken};

/// Metadata is written with a 16-bit length, whatever the setting says.
const METADATA_BYTES_MAX: usize = i16::MAX as usize;

/// Bytes of records that one commit may write.
const COMMIT_BYTES_MAX: usize = 8 << 20;

/// Of one record, besides its texts.
const RECORD_BYTES: usize = 64;

pub(super) fn commit(core: &mut Core, name: &str, group: &mut Group, request: RequestToken, commit: Commit) {
    if let Err(error) = check_commit(group, &commit) {
        return core.reply(request, Answer::Committed(refused(&commit, error)));
    }
    // The group's name stands in every record.
    let bytes = commit.offsets.iter().map(|offset| name.len() + offset.topic.len() + offset.metadata.len() + RECORD_BYTES);
    if bytes.sum::<usize>() > COMMIT_BYTES_MAX {
        return core.reply(request, Answer::Committed(refused(&commit, GroupError::GroupTooLarge)));
    }
    if group.members.contains_key(&commit.member_id) {
        membership::restart_session(core, name, group, &commit.member_id);
    }
    let bytes_max = core.settings.offset_metadata_bytes_max.min(METADATA_BYTES_MAX);
    let (mut answers, mut changes) = (Vec::with_capacity(commit.offsets.len()), Vec::new());
    for offset in commit.offsets {
        let fits = offset.metadata.len() <= bytes_max;
        let result = if fits { Ok(()) } else { Err(GroupError::OffsetMetadataTooLarge) };
        answers.push(PartitionAnswer { topic: offset.topic.clone(), partition: offset.partition, result });
        if fits {
            let value = CommittedOffset {
                offset: offset.offset,
                leader_epoch: offset.leader_epoch,
                metadata: offset.metadata,
                commit_timestamp: core.now.wall_ms,
                expire_timestamp: commit.retention_ms.map(|retention| core.now.wall_ms.saturating_add(retention)),
            };
            changes.push(Change::Offset { group: name.to_owned(), topic: offset.topic, partition: offset.partition, value: Some(value) });
        }
    }
    if changes.is_empty() {
        return core.reply(request, Answer::Committed(answers));
    }
    core.write(name, group, changes, Then::Commit { request, answers });
}

fn check_commit(group: &Group, commit: &Commit) -> Result<(), GroupError> {
    if commit.generation < 0 && group.state == GroupState::Empty {
        return Ok(());
    }
    if commit.generation < 0 && commit.member_id.is_empty() && commit.instance_id.is_none() {
        return Err(GroupError::UnknownMemberId);
    }
    group.check_member(&commit.member_id, commit.instance_id.as_deref())?;
    if commit.generation != group.generation {
        return Err(GroupError::IllegalGeneration);
    }
    if group.state == GroupState::CompletingRebalance {
        return Err(GroupError::RebalanceInProgress);
    }
    Ok(())
}

/// The same error for every partition.
pub(super) fn refused(commit: &Commit, error: GroupError) -> Vec<PartitionAnswer> {
    let answer =
        |offset: &super::CommitOffset| PartitionAnswer { topic: offset.topic.clone(), partition: offset.partition, result: Err(error) };
    commit.offsets.iter().map(answer).collect()
}

pub(super) fn fetch(group: Option<&Group>, partitions: Option<Vec<(String, Vec<i32>)>>) -> Vec<(String, i32, Option<CommittedOffset>)> {
    let mut found = Vec::new();
    match partitions {
        None => {
            for (topic, partitions) in group.into_iter().flat_map(|group| group.offsets()) {
                found.extend(partitions.iter().map(|(partition, offset)| (topic.clone(), *partition, Some(offset.clone()))));
            }
        }
        Some(asked) => {
            for (topic, partitions) in asked {
                let held = group.and_then(|group| group.offsets().get(&topic));
                found.extend(partitions.into_iter().map(|partition| {
                    let offset = held.and_then(|held| held.get(&partition)).cloned();
                    (topic.clone(), partition, offset)
                }));
            }
        }
    }
    found
}

/// Every partition of these topics that has an offset now or will have one by a write in flight.
fn partitions_held(core: &Core, name: &str, group: &Group, is_meant: impl Fn(&str) -> bool) -> BTreeSet<(String, i32)> {
    let mut held = BTreeSet::new();
    for (topic, partitions) in group.offsets().iter().filter(|(topic, _)| is_meant(topic)) {
        held.extend(partitions.keys().map(|partition| (topic.clone(), *partition)));
    }
    if group.writes_in_flight > 0 {
        for write in core.writes.values().filter(|write| write.group == name) {
            for change in &write.changes {
                if let Change::Offset { topic, partition, value: Some(_), .. } = change
                    && is_meant(topic)
                {
                    held.insert((topic.clone(), *partition));
                }
            }
        }
    }
    held
}

fn tombstone(name: &str, topic: String, partition: i32) -> Change {
    Change::Offset { group: name.to_owned(), topic, partition, value: None }
}

pub(super) fn delete(core: &mut Core, name: &str, group: &mut Group, request: RequestToken, partitions: Vec<(String, Vec<i32>)>) {
    if group.state != GroupState::Empty && !group.is_consumer_group() {
        return core.reply(request, Answer::OffsetsDeleted(Err(GroupError::NonEmptyGroup)));
    }
    let asked: BTreeSet<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    let held = partitions_held(core, name, group, |topic| asked.contains(topic));
    let (mut answers, mut changes) = (Vec::new(), Vec::new());
    for (topic, partitions) in partitions {
        let subscribed = group.state != GroupState::Empty && group.is_subscribed_to(&topic);
        let result = if subscribed { Err(GroupError::GroupSubscribedToTopic) } else { Ok(()) };
        for partition in partitions {
            answers.push(PartitionAnswer { topic: topic.clone(), partition, result });
            if !subscribed && held.contains(&(topic.clone(), partition)) {
                changes.push(tombstone(name, topic.clone(), partition));
            }
        }
    }
    if changes.is_empty() {
        return core.reply(request, Answer::OffsetsDeleted(Ok(answers)));
    }
    core.write(name, group, changes, Then::OffsetsDeleted { request, answers });
}

pub(super) fn delete_group(core: &mut Core, name: &str, group: &mut Group, request: RequestToken) {
    if group.state != GroupState::Empty {
        return core.reply(request, Answer::GroupDeleted(Err(GroupError::NonEmptyGroup)));
    }
    bury(core, name, group, Some(request));
}

/// Tombstones for all of an empty group; it is Dead until they are committed.
fn bury(core: &mut Core, name: &str, group: &mut Group, request: Option<RequestToken>) {
    let held = partitions_held(core, name, group, |_| true);
    let mut changes: Vec<Change> = held.into_iter().map(|(topic, partition)| tombstone(name, topic, partition)).collect();
    if group.durable().is_some() || group.writes_in_flight > 0 {
        changes.push(Change::Group { group: name.to_owned(), value: None });
    }
    // Ids that were given out for joining are forgotten: they are unknown when they come.
    group.pending.clear();
    let since = group.state_timestamp;
    group.transition(GroupState::Dead, core.now.wall_ms);
    group.state_timestamp = since;
    if changes.is_empty() {
        if let Some(request) = request {
            core.reply(request, Answer::GroupDeleted(Ok(())));
        }
        return;
    }
    core.write(name, group, changes, Then::GroupDeleted { request });
}

/// Offsets past retention: since the group became empty, or since the commit where that is not known, and in a consumer group with members
/// for topics to which none subscribes. A group that is empty and keeps no offset goes too.
pub(super) fn expire(core: &mut Core, name: &str, group: &mut Group) {
    if group.writes_in_flight > 0 || !group.pending.is_empty() {
        return; // the next round sees the outcome
    }
    let empty = group.state == GroupState::Empty;
    let since_empty = match (&group.protocol_type, empty) {
        (Some(_), true) => group.state_timestamp,
        (None, _) => None,
        (Some(_), false) if group.state == GroupState::Stable && group.is_consumer_group() && group.subscribed.is_some() => None,
        (Some(_), false) => return,
    };
    let retention = core.settings.offsets_retention_ms;
    let now = core.now.wall_ms;
    let is_expired = |offset: &CommittedOffset| match offset.expire_timestamp {
        Some(expire) => now >= expire,
        None => now.saturating_sub(since_empty.unwrap_or(offset.commit_timestamp)) >= retention,
    };
    let mut expired = Vec::new();
    let mut kept = false;
    for (topic, partitions) in group.offsets() {
        let subscribed = !empty && group.is_subscribed_to(topic);
        for (partition, offset) in partitions {
            if !subscribed && is_expired(offset) {
                expired.push(tombstone(name, topic.clone(), *partition));
            } else {
                kept = true;
            }
        }
    }
    if empty && !kept {
        bury(core, name, group, None);
    } else if !expired.is_empty() {
        core.write(name, group, expired, Then::Nothing);
    }
}

/// `topics`: in order.
pub(super) fn delete_topics(core: &mut Core, name: &str, group: &mut Group, topics: &[String]) {
    if group.state == GroupState::Dead {
        return; // all of its offsets are going already
    }
    let held = partitions_held(core, name, group, |topic| topics.binary_search_by(|gone| gone.as_str().cmp(topic)).is_ok());
    let changes: Vec<Change> = held.into_iter().map(|(topic, partition)| tombstone(name, topic, partition)).collect();
    if !changes.is_empty() {
        core.write(name, group, changes, Then::Nothing);
    }
}
