//! Consumer groups as brokers tell of them: who is in one, what it has committed, and how far that lies behind.
//!
//! 1. A group of the consumer protocol (KIP-848) is described by ConsumerGroupDescribe where brokers serve it; any other by DescribeGroups.
//! 2. What a classic member was assigned is bytes that another member wrote ([`crate::assignment`]): passed over when they are not what
//!    consumers write.
//!
//! Knows nothing of how any of it is shown.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};

use crate::assignment::read_assignment;
use crate::client::{Client, To, text, topic_name};
use crate::failure::{Failure, Kind, Outcome};
use crate::offsets::{self, Place};

/// From the next version on a group that is not there has an error code instead of the state `Dead`; both are understood.
const DESCRIBE_NEWEST: i16 = 6;
/// From this version on one request asks for several groups.
const FETCH_SEVERAL: i16 = 8;
/// Later versions name topics by id.
const BY_NAME_NEWEST: i16 = 9;

/// A group as ListGroups shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    pub group: String,
    pub coordinator: i32,
    /// `None` where the broker is too old to tell.
    pub state: Option<String>,
    pub kind: Option<String>,
    pub protocol: String,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Described {
    pub state: String,
    /// `classic` or `consumer`.
    pub kind: &'static str,
    pub assignor: String,
    pub members: Vec<Member>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Member {
    pub id: String,
    pub instance: Option<String>,
    pub client: String,
    pub host: String,
    pub assigned: Vec<Place>,
}

pub fn subject(group: &str) -> String {
    format!("group {group:?}")
}

fn missing(group: &str) -> Failure {
    Failure::refused(&subject(group), ResponseError::GroupIdNotFound, None).with_hint("`millrace group list` shows what there is")
}

/// All groups of the cluster, by name.
///
/// # Errors
/// A broker does not answer: what is listed without it would not be all.
pub fn list(client: &mut Client) -> Outcome<Vec<Listed>> {
    client.retrying(|client| {
        let nodes: Vec<i32> = client.cluster()?.brokers.keys().copied().collect();
        let mut groups = Vec::new();
        for node in nodes {
            let answer = client.call(To::Node(node), 5, |_| ListGroupsRequest::default())?;
            Failure::check(&format!("groups of node {node}"), answer.error_code, None)?;
            let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            groups.extend(answer.groups.iter().map(|found| Listed {
                group: found.group_id.0.to_string(),
                coordinator: node,
                state: known(&found.group_state),
                kind: known(&found.group_type).map(|kind| kind.to_ascii_lowercase()),
                protocol: found.protocol_type.to_string(),
            }));
        }
        groups.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(groups)
    })
}

/// A group and its members.
///
/// # Errors
/// There is no such group, or its coordinator does not answer.
pub fn describe(client: &mut Client, group: &str) -> Outcome<(i32, Described)> {
    client.retrying(|client| {
        let to = client.coordinator(group)?;
        let To::Node(node) = to else { unreachable!("a coordinator is a node") };
        let newer = client.connection(to)?.version::<ConsumerGroupDescribeRequest>(1).is_ok();
        if newer && let Some(described) = describe_consumer(client, to, group)? {
            return Ok((node, described));
        }
        Ok((node, describe_classic(client, to, group)?))
    })
}

/// `None` when the group is not one of the consumer protocol.
fn describe_consumer(client: &mut Client, to: To, group: &str) -> Outcome<Option<Described>> {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(group))]);
    let answer = client.call(to, 1, |_| request)?;
    let Some(found) = answer.groups.first() else { return Ok(None) };
    let not_one = [ResponseError::GroupIdNotFound, ResponseError::UnsupportedVersion, ResponseError::UnsupportedForMessageFormat];
    if ResponseError::try_from_code(found.error_code).is_some_and(|code| not_one.contains(&code)) {
        return Ok(None);
    }
    Failure::check(&subject(group), found.error_code, found.error_message.as_deref())?;
    let member = |member: &kafka_protocol::messages::consumer_group_describe_response::Member| Member {
        id: member.member_id.to_string(),
        instance: member.instance_id.as_ref().map(ToString::to_string),
        client: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assigned: member
            .assignment
            .topic_partitions
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_name.to_string(), *partition)))
            .collect(),
    };
    Ok(Some(Described {
        state: found.group_state.to_string(),
        kind: "consumer",
        assignor: found.assignor_name.to_string(),
        members: found.members.iter().map(member).collect(),
    }))
}

fn describe_classic(client: &mut Client, to: To, group: &str) -> Outcome<Described> {
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
    let answer = client.call(to, DESCRIBE_NEWEST, |_| request)?;
    let found = answer.groups.first().ok_or_else(|| missing(group))?;
    if found.group_state.as_str() == "Dead" || found.error_code == ResponseError::GroupIdNotFound.code() {
        return Err(missing(group));
    }
    Failure::check(&subject(group), found.error_code, found.error_message.as_deref())?;
    let member = |member: &kafka_protocol::messages::describe_groups_response::DescribedGroupMember| Member {
        id: member.member_id.to_string(),
        instance: member.group_instance_id.as_ref().map(ToString::to_string),
        client: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assigned: if found.protocol_type.as_str() == "consumer" {
            read_assignment(&member.member_assignment).unwrap_or_default()
        } else {
            Vec::new()
        },
    };
    Ok(Described {
        state: found.group_state.to_string(),
        kind: "classic",
        assignor: found.protocol_data.to_string(),
        members: found.members.iter().map(member).collect(),
    })
}

/// What a group has committed; nothing for a group that is not there.
///
/// # Errors
/// Its coordinator does not answer or refuses.
pub fn committed(client: &mut Client, group: &str) -> Outcome<BTreeMap<Place, i64>> {
    client.retrying(|client| {
        let to = client.coordinator(group)?;
        let answer = client.call(to, BY_NAME_NEWEST, |version| {
            let id = GroupId(text(group));
            match version {
                FETCH_SEVERAL.. => {
                    OffsetFetchRequest::default().with_groups(vec![OffsetFetchRequestGroup::default().with_group_id(id).with_topics(None)])
                }
                _ => OffsetFetchRequest::default().with_group_id(id).with_topics(None),
            }
        })?;
        let mut found = BTreeMap::new();
        let mut add = |topic: &str, partition: i32, offset: i64, code: i16| {
            Failure::check(&format!("{} at {topic}-{partition}", subject(group)), code, None)?;
            if offset >= 0 {
                found.insert((topic.to_owned(), partition), offset);
            }
            Ok(())
        };
        let not_there = ResponseError::GroupIdNotFound.code();
        let codes = answer.groups.iter().map(|group| group.error_code).chain([answer.error_code]);
        codes.filter(|code| *code != not_there).try_for_each(|code| Failure::check(&subject(group), code, None))?;
        for topic in answer.groups.iter().flat_map(|group| &group.topics) {
            topic.partitions.iter().try_for_each(|p| add(&topic.name, p.partition_index, p.committed_offset, p.error_code))?;
        }
        for topic in &answer.topics {
            topic.partitions.iter().try_for_each(|p| add(&topic.name, p.partition_index, p.committed_offset, p.error_code))?;
        }
        Ok(found)
    })
}

/// Who commits: a member of a generation of the group, or nobody in particular.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committer<'a> {
    pub member: &'a str,
    pub generation: i32,
}

/// For a group without members.
pub const NO_MEMBER: Committer<'_> = Committer { member: "", generation: -1 };

/// Commits offsets for a group; one result for each, in their order.
///
/// # Errors
/// Its coordinator does not answer.
pub fn commit_as(client: &mut Client, group: &str, by: &Committer<'_>, wanted: &[(Place, i64)]) -> Outcome<Vec<Outcome<()>>> {
    client.each(wanted, |client, wanted| {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for ((topic, partition), offset) in wanted {
            let one = OffsetCommitRequestPartition::default().with_partition_index(*partition).with_committed_offset(*offset);
            match topics.iter_mut().find(|known| known.name.as_str() == topic) {
                Some(known) => known.partitions.push(one),
                None => topics.push(OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![one])),
            }
        }
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(by.generation)
            .with_member_id(text(by.member))
            .with_topics(topics);
        let to = client.coordinator(group)?;
        let answer = client.call(to, BY_NAME_NEWEST, |_| request)?;
        let result = |((topic, partition), _): &(Place, i64)| {
            let found = answer.topics.iter().find(|found| found.name.as_str() == topic);
            let found = found.and_then(|found| found.partitions.iter().find(|found| found.partition_index == *partition));
            let subject = format!("{} at {topic}-{partition}", subject(group));
            match found {
                Some(found) => Failure::check(&subject, found.error_code, None),
                None => Err(Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out"))),
            }
        };
        Ok(wanted.iter().map(result).collect())
    })
}

/// How far a group is in one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    pub place: Place,
    /// `None` before the first commit.
    pub committed: Option<i64>,
    /// `None` when the partition is gone or has no leader.
    pub log_end: Option<i64>,
    pub lag: Option<i64>,
    /// Which of the members has it.
    pub member: Option<usize>,
}

/// How far a group is in all partitions that it has committed for or that its members were assigned.
///
/// # Errors
/// No broker answers.
pub fn progress(client: &mut Client, group: &str, members: &[Member]) -> Outcome<Vec<Progress>> {
    let committed = committed(client, group)?;
    let mut places: BTreeMap<Place, Option<usize>> = committed.keys().map(|place| (place.clone(), None)).collect();
    for (at, member) in members.iter().enumerate() {
        places.extend(member.assigned.iter().map(|place| (place.clone(), Some(at))));
    }
    let keys: Vec<Place> = places.keys().cloned().collect();
    let ends = offsets::ends(client, &keys)?;
    let mut found = Vec::with_capacity(places.len());
    for ((place, member), end) in places.into_iter().zip(ends) {
        let committed = committed.get(&place).copied();
        let end = end.ok();
        // Before the first commit all that is kept is still to come.
        let lag = end.map(|(start, end)| (end - committed.unwrap_or(start).max(start)).max(0));
        found.push(Progress { place, committed, log_end: end.map(|(_, end)| end), lag, member });
    }
    Ok(found)
}
