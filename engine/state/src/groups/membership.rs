//! Joining, synchronizing, staying in and leaving a group: the classic rebalance.
//!
//! 1. Empty -> PreparingRebalance: the first member waits `group.initial.rebalance.delay.ms` for others, longer while they come.
//! 2. PreparingRebalance: members of the last generation are given their rebalance timeout to join again; who does not is removed, static
//!    members excepted. When all have joined, everyone is answered, the leader with the list of members: CompletingRebalance.
//! 3. The leader's SyncGroup brings the assignment; it is written, and when that is durable all waiting syncs are answered: Stable.
//! 4. A join that changes something, a leave, or a session that ends starts again at 2; the last member's leaving makes the group Empty,
//!    which is written too.
//!
//! A static member that comes back under its instance id takes its predecessor's place in a Stable group without a rebalance.
//!
//! Invariants: a member waits with at most one join and one sync; in Stable every member has the assignment that was written.
//! Knows nothing of offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use millrace_base::ids::Uuid;

use super::group::{Group, JoinTimer, Member};
use super::machine::{Core, Then};
use super::records::Change;
use super::request::{
    Answer, GroupError, GroupState, Join, JoinRefused, Joined, Leaving, MEMBERS_MAX, PROTOCOLS_BYTES_MAX, PROTOCOLS_MAX, RequestToken,
    Sync, Synced, TEXT_BYTES_MAX, WriteError, WriteToken,
};

/// How long a new member, which cannot send heartbeats yet, may wait for its first join to be answered: as in Kafka.
const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 300_000;

/// A static member's return that is being written, with what to go back to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StaticRejoin {
    old_id: String,
    new_id: String,
    protocols_before: Vec<(String, Vec<u8>)>,
    rebalance_timeout_before_ms: i32,
    session_timeout_before_ms: i32,
    leader_before: Option<String>,
    can_skip_assignment: bool,
}

/// Bounds on what a member may list; a name may come once.
pub(super) fn protocols_fit(protocols: &[(String, Vec<u8>)]) -> bool {
    let mut names = BTreeSet::new();
    protocols.len() <= PROTOCOLS_MAX
        && protocols.iter().all(|(name, _)| name.len() <= TEXT_BYTES_MAX && names.insert(name))
        && protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum::<usize>() <= PROTOCOLS_BYTES_MAX
}

fn refuse_join(core: &mut Core, request: RequestToken, error: GroupError, member_id: &str) {
    core.reply(request, Answer::Joined(Err(JoinRefused { error, member_id: member_id.to_owned() })));
}

pub(super) fn join(core: &mut Core, name: &str, group: &mut Group, request: RequestToken, join: Join, fresh: Uuid) {
    let session = core.settings.session_timeout_min_ms..=core.settings.session_timeout_max_ms;
    if !session.contains(&join.session_timeout_ms) {
        return refuse_join(core, request, GroupError::InvalidSessionTimeout, &join.member_id);
    }
    let predecessor = join.instance_id.as_ref().and_then(|instance| group.static_members.get(instance)).cloned();
    let present = if join.member_id.is_empty() { predecessor.as_deref().unwrap_or_default() } else { &join.member_id };
    if !has_room(core, group, present) {
        remove_member(core, group, &join.member_id);
        maybe_complete_join(core, name, group);
        return refuse_join(core, request, GroupError::GroupMaxSizeReached, "");
    }
    if !group.accepts_protocols(&join.protocol_type, &join.protocols) {
        return refuse_join(core, request, GroupError::InconsistentGroupProtocol, &join.member_id);
    }
    if !join.member_id.is_empty() {
        return join_known(core, name, group, request, join);
    }
    let new_id = member_id(join.instance_id.as_deref().unwrap_or(&join.client_id), fresh);
    if let Some(old_id) = predecessor {
        rejoin_static(core, name, group, request, join, old_id, new_id);
    } else if join.instance_id.is_none() && join.member_id_required {
        if group.pending.len() >= MEMBERS_MAX {
            return refuse_join(core, request, GroupError::GroupMaxSizeReached, "");
        }
        let until = core.after(millis(join.session_timeout_ms));
        group.pending.insert(new_id.clone(), until);
        core.arm(name, group, until);
        refuse_join(core, request, GroupError::MemberIdRequired, &new_id);
    } else {
        add_member(core, name, group, request, join, new_id);
    }
}

/// Bytes behind the prefix of a member's id.
pub(super) const ID_BYTES: usize = 37;

/// `prefix-uuid`, as Kafka's ids look.
fn member_id(prefix: &str, fresh: Uuid) -> String {
    let mut id = format!("{prefix}-");
    for (index, byte) in fresh.0.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        write!(id, "{byte:02x}").expect("writing to a String does not fail");
    }
    id
}

fn millis(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}

/// `group.max.size`: while members join again those that already wait count, so that a bound made smaller takes effect.
fn has_room(core: &Core, group: &Group, member_id: &str) -> bool {
    let max = core.settings.group_size_max.min(MEMBERS_MAX);
    let member = group.members.get(member_id);
    match group.state {
        GroupState::Empty | GroupState::Dead => true,
        GroupState::PreparingRebalance => member.is_some_and(|member| member.awaiting_join.is_some()) || group.awaiting < max,
        GroupState::CompletingRebalance | GroupState::Stable => member.is_some() || group.members.len() < max,
    }
}

fn add_member(core: &mut Core, name: &str, group: &mut Group, request: RequestToken, join: Join, id: String) {
    if group.state == GroupState::PreparingRebalance && group.previous_state == GroupState::Empty {
        group.new_member_added = true;
    }
    if group.members.is_empty() {
        group.protocol_type = Some(join.protocol_type);
    }
    let deadline = core.after(NEW_MEMBER_JOIN_TIMEOUT_MS);
    let member = Member {
        instance_id: join.instance_id,
        client_id: join.client_id,
        client_host: join.client_host,
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        session_timeout_ms: join.session_timeout_ms,
        protocols: join.protocols,
        is_new: true,
        awaiting_join: Some(request),
        deadline: Some(deadline),
        ..Member::default()
    };
    group.add(id, member);
    core.arm(name, group, deadline);
    rebalance_or_complete(core, name, group);
}

fn join_known(core: &mut Core, name: &str, group: &mut Group, request: RequestToken, join: Join) {
    let id = join.member_id.clone();
    if group.pending.contains_key(&id) {
        if join.instance_id.is_some() {
            return refuse_join(core, request, GroupError::InvalidRequest, &id); // an id that was given to a dynamic member
        }
        return add_member(core, name, group, request, join, id);
    }
    if let Err(error) = group.check_member(&id, join.instance_id.as_deref()) {
        return refuse_join(core, request, error, &id);
    }
    let same = group.members[&id].protocols == join.protocols;
    let unchanged = match group.state {
        GroupState::CompletingRebalance => same,
        GroupState::Stable => same && !group.is_leader(&id), // a leader joins again to have partitions assigned again
        GroupState::Empty | GroupState::PreparingRebalance | GroupState::Dead => false,
    };
    if unchanged {
        let members = if group.is_leader(&id) { group.joined_members() } else { Vec::new() };
        return core.reply(request, Answer::Joined(Ok(joined(group, &id, members))));
    }
    group.update(&id, join.protocols, join.rebalance_timeout_ms, join.session_timeout_ms);
    await_join(core, group, &id, request);
    rebalance_or_complete(core, name, group);
}

fn await_join(core: &mut Core, group: &mut Group, id: &str, request: RequestToken) {
    if let Some(before) = group.await_join(id, request) {
        refuse_join(core, before, GroupError::RebalanceInProgress, id); // the client has given that request up
    }
}

fn joined(group: &Group, id: &str, members: Vec<super::JoinedMember>) -> Joined {
    Joined {
        member_id: id.to_owned(),
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        leader: group.leader.clone().unwrap_or_default(),
        members,
        skip_assignment: false,
    }
}

fn rejoin_static(core: &mut Core, name: &str, group: &mut Group, request: RequestToken, join: Join, old_id: String, new_id: String) {
    let leader_before = group.leader.clone();
    let (waiting_join, waiting_sync) = group.replace_static(&old_id, &new_id);
    if let Some(waiting) = waiting_join {
        refuse_join(core, waiting, GroupError::FencedInstanceId, &old_id);
    }
    if let Some(waiting) = waiting_sync {
        core.reply(waiting, Answer::Synced(Err(GroupError::FencedInstanceId)));
    }
    let before = group.members.get(&new_id).map_or((0, 0), |member| (member.rebalance_timeout_ms, member.session_timeout_ms));
    let protocols_before = group.update(&new_id, join.protocols, join.rebalance_timeout_ms, join.session_timeout_ms);
    await_join(core, group, &new_id, request);
    restart_session(core, name, group, &new_id);
    match group.state {
        GroupState::Stable if group.protocol == group.select_protocol() => {
            let record = group.record(|_, member| member.assignment.clone());
            let rejoin = StaticRejoin {
                old_id,
                new_id,
                protocols_before,
                rebalance_timeout_before_ms: before.0,
                session_timeout_before_ms: before.1,
                leader_before,
                can_skip_assignment: join.can_skip_assignment,
            };
            let change = Change::Group { group: name.to_owned(), value: Some(record) };
            core.write(name, group, vec![change], Then::StaticMember(Box::new(rejoin)));
        }
        // The leader may be assigning to the old id right now.
        GroupState::CompletingRebalance => drop(prepare_rebalance(core, name, group)),
        GroupState::Stable | GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {
            rebalance_or_complete(core, name, group);
        }
    }
}

/// The record that names a static member's new id is durable, or is not.
pub(super) fn static_rejoined(core: &mut Core, name: &str, group: &mut Group, rejoin: StaticRejoin, result: Result<(), WriteError>) {
    // Answered already if a rebalance came first, or if the next successor has fenced it.
    let Some(request) = group.take_join(&rejoin.new_id) else { return };
    if let Err(error) = result {
        group.update(&rejoin.new_id, rejoin.protocols_before, rejoin.rebalance_timeout_before_ms, rejoin.session_timeout_before_ms);
        group.replace_static(&rejoin.new_id, &rejoin.old_id);
        restart_session(core, name, group, &rejoin.old_id);
        return refuse_join(core, request, GroupError::from(error), "");
    }
    restart_session(core, name, group, &rejoin.new_id);
    let leads = rejoin.can_skip_assignment && group.is_leader(&rejoin.new_id);
    let mut answer = joined(group, &rejoin.new_id, if leads { group.joined_members() } else { Vec::new() });
    if rejoin.can_skip_assignment {
        answer.skip_assignment = leads;
    } else {
        // Told the old leader's id, a client of an older version does not take itself for the leader and assign anew.
        answer.leader = rejoin.leader_before.unwrap_or_default();
    }
    core.reply(request, Answer::Joined(Ok(answer)));
}

fn rebalance_or_complete(core: &mut Core, name: &str, group: &mut Group) -> Option<WriteToken> {
    match group.state {
        GroupState::Stable | GroupState::CompletingRebalance | GroupState::Empty => prepare_rebalance(core, name, group),
        GroupState::PreparingRebalance => maybe_complete_join(core, name, group),
        GroupState::Dead => None,
    }
}

fn prepare_rebalance(core: &mut Core, name: &str, group: &mut Group) -> Option<WriteToken> {
    if group.state == GroupState::CompletingRebalance {
        refuse_syncs(core, name, group, GroupError::RebalanceInProgress);
    }
    group.pending_sync.clear();
    group.sync_deadline = None;
    group.assigning = None;
    let initial = group.state == GroupState::Empty;
    group.transition(GroupState::PreparingRebalance, core.now.wall_ms);
    if initial {
        let delay_ms = core.settings.initial_rebalance_delay_ms;
        let remaining_ms = group.rebalance_timeout_ms().saturating_sub(delay_ms);
        group.new_member_added = false;
        start_join_timer(core, name, group, JoinTimer::Initial { at: core.after(delay_ms), delay_ms, remaining_ms });
        return None;
    }
    if group.all_joined() {
        return complete_join(core, name, group);
    }
    let at = core.after(group.rebalance_timeout_ms());
    start_join_timer(core, name, group, JoinTimer::Rebalance { at });
    None
}

fn start_join_timer(core: &mut Core, name: &str, group: &mut Group, timer: JoinTimer) {
    group.join_timer = Some(timer);
    core.arm(name, group, timer.at());
}

/// Assignments of an unfinished generation are void; whoever waits for one is told.
fn refuse_syncs(core: &mut Core, name: &str, group: &mut Group, error: GroupError) {
    let ids: Vec<String> = group.members.keys().cloned().collect();
    for id in ids {
        group.assign(&id, &[]);
        let Some(member) = group.members.get_mut(&id) else { continue };
        if let Some(request) = member.awaiting_sync.take() {
            core.reply(request, Answer::Synced(Err(error)));
            restart_session(core, name, group, &id);
        }
    }
}

/// Ends the phase of joining if nobody is missing; a new group's first phase ends by time alone.
fn maybe_complete_join(core: &mut Core, name: &str, group: &mut Group) -> Option<WriteToken> {
    let waits = group.state == GroupState::PreparingRebalance && group.previous_state != GroupState::Empty;
    if waits && group.all_joined() { complete_join(core, name, group) } else { None }
}

/// The next generation begins with whoever has joined.
fn complete_join(core: &mut Core, name: &str, group: &mut Group) -> Option<WriteToken> {
    group.join_timer = None;
    let missing = group.members.iter().filter(|(_, member)| member.awaiting_join.is_none() && member.instance_id.is_none());
    let missing: Vec<String> = missing.map(|(id, _)| id.clone()).collect();
    for id in missing {
        remove_member(core, group, &id);
    }
    if !group.elect_joined_leader() && !group.members.is_empty() {
        // Only static members, and none came: wait on, until they do or their sessions end.
        let at = core.after(group.rebalance_timeout_ms().max(1));
        start_join_timer(core, name, group, JoinTimer::Rebalance { at });
        return None;
    }
    group.generation = group.generation.checked_add(1).unwrap_or(1);
    if group.members.is_empty() {
        group.protocol = None;
        group.transition(GroupState::Empty, core.now.wall_ms);
        group.subscribed = group.subscriptions();
        let record = group.record(|_, _| Vec::new());
        let change = Change::Group { group: name.to_owned(), value: Some(record) };
        return Some(core.write(name, group, vec![change], Then::Nothing));
    }
    group.protocol = group.select_protocol();
    group.transition(GroupState::CompletingRebalance, core.now.wall_ms);
    group.subscribed = group.subscriptions();
    let ids: Vec<String> = group.members.keys().cloned().collect();
    for id in ids {
        let members = if group.is_leader(&id) { group.joined_members() } else { Vec::new() };
        if let Some(request) = group.take_join(&id) {
            core.reply(request, Answer::Joined(Ok(joined(group, &id, members))));
        }
        if let Some(member) = group.members.get_mut(&id) {
            member.is_new = false;
        }
        restart_session(core, name, group, &id);
        group.pending_sync.insert(id);
    }
    let at = core.after(group.rebalance_timeout_ms());
    group.sync_deadline = Some(at);
    core.arm(name, group, at);
    None
}

pub(super) fn sync(core: &mut Core, name: &str, group: &mut Group, request: RequestToken, sync: Sync) {
    if let Err(error) = check_sync(group, &sync) {
        return core.reply(request, Answer::Synced(Err(error)));
    }
    let id = &sync.member_id;
    group.pending_sync.remove(id);
    if group.pending_sync.is_empty() {
        group.sync_deadline = None;
    }
    if group.state == GroupState::Stable {
        let answer = synced(group, id);
        return core.reply(request, Answer::Synced(Ok(answer)));
    }
    let before = group.members.get_mut(id).and_then(|member| member.awaiting_sync.replace(request));
    if let Some(before) = before {
        core.reply(before, Answer::Synced(Err(GroupError::RebalanceInProgress))); // the client has given that request up
    }
    if group.is_leader(id) && group.assigning.is_none() {
        let given: BTreeMap<String, Vec<u8>> = sync.assignments.into_iter().collect();
        let record = group.record(|id, _| given.get(id).cloned().unwrap_or_default());
        let change = Change::Group { group: name.to_owned(), value: Some(record) };
        let then = Then::Assign { generation: group.generation };
        group.assigning = Some(core.write(name, group, vec![change], then));
    }
}

fn check_sync(group: &Group, sync: &Sync) -> Result<(), GroupError> {
    group.check_member(&sync.member_id, sync.instance_id.as_deref())?;
    if sync.generation != group.generation {
        return Err(GroupError::IllegalGeneration);
    }
    let differs = |stated: &Option<String>, own: &Option<String>| stated.is_some() && stated != own;
    if differs(&sync.protocol_type, &group.protocol_type) || differs(&sync.protocol, &group.protocol) {
        return Err(GroupError::InconsistentGroupProtocol);
    }
    match group.state {
        GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
        GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
    }
}

fn synced(group: &Group, id: &str) -> Synced {
    let assignment = group.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default();
    Synced { protocol_type: group.protocol_type.clone(), protocol: group.protocol.clone(), assignment }
}

/// The assignment of a generation is durable, or is not. Too late if another rebalance has begun.
pub(super) fn assigned(
    core: &mut Core,
    name: &str,
    group: &mut Group,
    generation: i32,
    changes: &[Change],
    result: Result<(), WriteError>,
) {
    if group.state != GroupState::CompletingRebalance || group.generation != generation {
        return;
    }
    if let Err(error) = result {
        refuse_syncs(core, name, group, GroupError::from(error));
        rebalance_or_complete(core, name, group);
        return;
    }
    let [Change::Group { value: Some(record), .. }] = changes else { unreachable!("an assignment is one group record") };
    for written in &record.members {
        group.assign(&written.member_id, &written.assignment);
    }
    group.transition(GroupState::Stable, core.now.wall_ms);
    let ids: Vec<String> = group.members.keys().cloned().collect();
    for id in ids {
        let waiting = group.members.get_mut(&id).and_then(|member| member.awaiting_sync.take());
        if let Some(request) = waiting {
            let answer = synced(group, &id);
            core.reply(request, Answer::Synced(Ok(answer)));
            restart_session(core, name, group, &id);
        }
    }
}

pub(super) fn heartbeat(
    core: &mut Core,
    name: &str,
    group: &mut Group,
    member_id: &str,
    instance_id: Option<&str>,
    generation: i32,
) -> Result<(), GroupError> {
    group.check_member(member_id, instance_id)?;
    if generation != group.generation {
        return Err(GroupError::IllegalGeneration);
    }
    restart_session(core, name, group, member_id);
    match group.state {
        GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
        GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
    }
}

pub(super) fn restart_session(core: &mut Core, name: &str, group: &mut Group, member_id: &str) {
    let Some(member) = group.members.get_mut(member_id) else { return };
    let at = core.now.steady_ms.saturating_add(millis(member.session_timeout_ms));
    member.deadline = Some(at);
    core.arm(name, group, at);
}

pub(super) fn leave(core: &mut Core, name: &str, group: &mut Group, request: RequestToken, leaving: Vec<Leaving>) {
    let mut answers = Vec::with_capacity(leaving.len());
    let mut removed = false;
    for identity in leaving {
        let result = if group.pending.remove(&identity.member_id).is_some() {
            Ok(())
        } else {
            let id = leaving_member(group, &identity);
            removed |= id.is_ok();
            id.map(|id| remove_member(core, group, &id))
        };
        answers.push((identity, result));
    }
    let write = if removed { rebalance_or_complete(core, name, group) } else { maybe_complete_join(core, name, group) };
    match write.and_then(|token| core.writes.get_mut(&token)) {
        Some(write) => write.then = Then::Left { request, answers },
        None => core.reply(request, Answer::Left(Ok(answers))),
    }
}

fn leaving_member(group: &Group, leaving: &Leaving) -> Result<String, GroupError> {
    if leaving.member_id.is_empty() {
        let holder = leaving.instance_id.as_ref().and_then(|instance| group.static_members.get(instance));
        return holder.cloned().ok_or(GroupError::UnknownMemberId);
    }
    group.check_member(&leaving.member_id, leaving.instance_id.as_deref())?;
    Ok(leaving.member_id.clone())
}

/// Takes a member out and answers what it waits for: it may join again.
fn remove_member(core: &mut Core, group: &mut Group, id: &str) {
    let Some(member) = group.remove(id) else { return };
    if let Some(request) = member.awaiting_join {
        refuse_join(core, request, GroupError::UnknownMemberId, "");
    }
    if let Some(request) = member.awaiting_sync {
        core.reply(request, Answer::Synced(Err(GroupError::UnknownMemberId)));
    }
}

/// Whatever of the group's deadlines has passed.
pub(super) fn expire(core: &mut Core, name: &str, group: &mut Group) {
    let now = core.now.steady_ms;
    let pending_before = group.pending.len();
    group.pending.retain(|_, until| *until > now);
    let mut gone = expire_sessions(core, group, now);
    if group.sync_deadline.is_some_and(|at| at <= now) {
        group.sync_deadline = None;
        for id in std::mem::take(&mut group.pending_sync) {
            remove_member(core, group, &id);
            gone = true;
        }
    }
    if gone {
        rebalance_or_complete(core, name, group);
    } else if group.pending.len() != pending_before {
        maybe_complete_join(core, name, group);
    }
    match group.join_timer {
        Some(JoinTimer::Initial { at, delay_ms, remaining_ms }) if at <= now => {
            if group.new_member_added && remaining_ms != 0 {
                group.new_member_added = false;
                let next_ms = core.settings.initial_rebalance_delay_ms.min(remaining_ms);
                let remaining_ms = remaining_ms.saturating_sub(delay_ms);
                start_join_timer(core, name, group, JoinTimer::Initial { at: core.after(next_ms), delay_ms: next_ms, remaining_ms });
            } else {
                complete_join(core, name, group);
            }
        }
        Some(JoinTimer::Rebalance { at }) if at <= now => drop(complete_join(core, name, group)),
        Some(JoinTimer::Initial { .. } | JoinTimer::Rebalance { .. }) | None => {}
    }
}

/// Removes members whose session has ended; who waits for an answer of ours is not expected to send anything.
fn expire_sessions(core: &mut Core, group: &mut Group, now: u64) -> bool {
    let due = group.members.iter().filter(|(_, member)| member.deadline.is_some_and(|at| at <= now));
    let due: Vec<String> = due.map(|(id, _)| id.clone()).collect();
    let mut gone = false;
    for id in due {
        let Some(member) = group.members.get_mut(&id) else { continue };
        if !member.is_new && (member.awaiting_join.is_some() || member.awaiting_sync.is_some()) {
            member.deadline = None;
        } else {
            remove_member(core, group, &id);
            gone = true;
        }
    }
    gone
}
