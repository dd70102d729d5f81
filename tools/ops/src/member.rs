//! Reading as a member of a consumer group (the classic protocol): which partitions are this member's, and how far it is.
//!
//! 1. [`Member::turn`] is called again and again, between fetches. It joins the group when it must, and then gives the partitions that were
//!    assigned; else it sends a heartbeat and commits, when either is due.
//! 2. Whoever is made leader by the coordinator shares the partitions out ([`crate::assignment::range`]).
//! 3. When the coordinator says that the group is being assigned anew, what was read is committed and the group is joined again.
//! 4. [`Member::leave`] commits and leaves, so that others need not wait for the session to end.
//!
//! Invariants: no offset is committed that was not printed; whoever is thrown out joins again, and reads on from what was committed: a record
//! may then be read twice, and none is left out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::assignment::{RANGE, range, read_assignment, read_subscription, write_assignment, write_subscription};
use crate::client::{Client, NEWEST, To, text};
use crate::connection::Connection;
use crate::failure::{Failure, Kind, Outcome};
use crate::groups::{Committer, commit_as, subject};
use crate::offsets::Place;
use crate::stop::Stop;

/// As Kafka's consumers have them.
const SESSION: Duration = Duration::from_secs(45);
const HEARTBEAT: Duration = Duration::from_secs(3);
const COMMIT: Duration = Duration::from_secs(5);
/// How long the others wait for this member when the group is assigned anew; it is never longer between two turns.
const REBALANCE: Duration = Duration::from_secs(60);
/// Another member may let the group wait this long (Java's `max.poll.interval.ms`).
const ANSWER_MAX: Duration = Duration::from_secs(330);
/// How often the leader looks whether a topic has more partitions.
const COUNT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);
/// A group that is assigned anew more often than this without coming to an end is given up.
const JOINS_MAX: usize = 100;
/// From this version on several members may leave at once, and the field is another one.
const LEAVE_SEVERAL: i16 = 3;

const CONSUMER: &str = "consumer";

pub struct Member {
    group: String,
    topics: Vec<String>,
    /// Empty before the coordinator has given one.
    id: String,
    /// `None` when the group must be joined.
    generation: Option<i32>,
    /// As leader: how many partitions each topic had.
    counted: Option<BTreeMap<String, i32>>,
    committed: BTreeMap<Place, i64>,
    heartbeat_at: Instant,
    commit_at: Instant,
    count_at: Instant,
}

/// What the coordinator made of a request.
enum Standing {
    Good,
    /// The group is being assigned anew.
    Rejoin,
    /// The group knows this member no more.
    Lost,
}

impl Member {
    /// Nothing is sent yet.
    pub fn new(group: &str, topics: &[String]) -> Member {
        let now = Instant::now();
        Member {
            group: group.to_owned(),
            topics: topics.to_vec(),
            id: String::new(),
            generation: None,
            counted: None,
            committed: BTreeMap::new(),
            heartbeat_at: now,
            commit_at: now,
            count_at: now,
        }
    }

    /// Does what is due. `at` is how far each partition has been printed. `Some` is a new assignment, which replaces the one before; when `stop`
    /// comes while the group is joined, there is none.
    ///
    /// # Errors
    /// The group cannot be joined, or its coordinator does not answer.
    pub fn turn(&mut self, client: &mut Client, at: &BTreeMap<Place, i64>, stop: &Stop) -> Outcome<Option<Vec<Place>>> {
        let now = Instant::now();
        if self.generation.is_some() && now >= self.commit_at {
            self.commit_at = now + COMMIT;
            let standing = self.commit(client, at)?;
            self.stand(standing);
        }
        if self.generation.is_some() && now >= self.heartbeat_at {
            self.heartbeat_at = now + HEARTBEAT;
            let standing = client.retrying(|client| self.heartbeat(client))?;
            let grown = now >= self.count_at && self.has_grown(client)?;
            let standing = if grown { Standing::Rejoin } else { standing };
            if matches!(standing, Standing::Rejoin) {
                let _ = self.commit(client, at)?; // whatever comes of it, the group is joined again
            }
            self.stand(standing);
        }
        if self.generation.is_some() {
            return Ok(None);
        }
        let joined = client.retrying(|client| self.join(client, stop))?;
        let now = Instant::now();
        (self.heartbeat_at, self.commit_at, self.count_at) = (now + HEARTBEAT, now + COMMIT, now + COUNT);
        self.committed.clear();
        Ok(joined)
    }

    /// Commits how far it is, and leaves.
    ///
    /// # Errors
    /// It could not be committed.
    pub fn leave(mut self, client: &mut Client, at: &BTreeMap<Place, i64>) -> Outcome<()> {
        let committed = if self.generation.is_some() { self.commit(client, at).map(|_| ()) } else { Ok(()) };
        if self.id.is_empty() {
            return committed;
        }
        let (group, id) = (GroupId(text(&self.group)), text(&self.id));
        let left = client.coordinator(&self.group).and_then(|to| {
            client.call(to, NEWEST, |version| {
                let request = LeaveGroupRequest::default().with_group_id(group);
                match version {
                    LEAVE_SEVERAL.. => request.with_members(vec![MemberIdentity::default().with_member_id(id)]),
                    _ => request.with_member_id(id),
                }
            })
        });
        // Whoever cannot leave is thrown out later.
        drop(left);
        committed
    }

    fn stand(&mut self, standing: Standing) {
        match standing {
            Standing::Good => {}
            Standing::Rejoin => self.generation = None,
            Standing::Lost => {
                self.generation = None;
                self.id.clear();
            }
        }
    }

    /// What an error code says of this member.
    fn standing(&self, code: i16) -> Outcome<Standing> {
        use ResponseError as E;
        match ResponseError::try_from_code(code) {
            None => Ok(Standing::Good),
            Some(E::RebalanceInProgress | E::IllegalGeneration) => Ok(Standing::Rejoin),
            Some(E::UnknownMemberId) => Ok(Standing::Lost),
            Some(code) => Err(Failure::refused(&subject(&self.group), code, None)),
        }
    }

    fn heartbeat(&self, client: &mut Client) -> Outcome<Standing> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation.unwrap_or(-1))
            .with_member_id(text(&self.id));
        let to = client.coordinator(&self.group)?;
        let answer = client.call(to, NEWEST, |_| request)?;
        self.standing(answer.error_code)
    }

    /// Commits what has moved since the last time.
    fn commit(&mut self, client: &mut Client, at: &BTreeMap<Place, i64>) -> Outcome<Standing> {
        let moved = |(place, offset): &(&Place, &i64)| self.committed.get(*place) != Some(*offset);
        let wanted: Vec<(Place, i64)> = at.iter().filter(moved).map(|(place, offset)| (place.clone(), *offset)).collect();
        if wanted.is_empty() {
            return Ok(Standing::Good);
        }
        let by = Committer { member: &self.id, generation: self.generation.unwrap_or(-1) };
        let mut standing = Standing::Good;
        for ((place, offset), result) in wanted.iter().zip(commit_as(client, &self.group, &by, &wanted)?) {
            match result {
                Ok(()) => drop(self.committed.insert(place.clone(), *offset)),
                Err(failure) => match failure.code {
                    Some(code) => standing = self.standing(code.code()).map_err(|_| failure)?,
                    None => return Err(failure),
                },
            }
        }
        Ok(standing)
    }

    /// Whether a topic has another number of partitions than were shared out.
    fn has_grown(&mut self, client: &mut Client) -> Outcome<bool> {
        self.count_at = Instant::now() + COUNT;
        let Some(counted) = &self.counted else { return Ok(false) };
        let topics: Vec<String> = counted.keys().cloned().collect();
        Ok(client.retrying(|client| count(client, &topics))? != *counted)
    }

    /// `None` when it was stopped.
    fn join(&mut self, client: &mut Client, stop: &Stop) -> Outcome<Option<Vec<Place>>> {
        let To::Node(node) = client.coordinator(&self.group)? else { unreachable!("a coordinator is a node") };
        let mut connection = client.dial(node)?;
        for _ in 0..JOINS_MAX {
            let Some(joined) = self.ask_to_join(&mut connection, stop)? else { return Ok(None) };
            match ResponseError::try_from_code(joined.error_code) {
                Some(ResponseError::MemberIdRequired) => {
                    self.id = joined.member_id.to_string();
                    continue;
                }
                Some(ResponseError::UnknownMemberId) => {
                    self.id.clear();
                    continue;
                }
                Some(ResponseError::InconsistentGroupProtocol) => {
                    let failure = Failure::refused(&subject(&self.group), ResponseError::InconsistentGroupProtocol, None);
                    return Err(failure.with_hint("its members share partitions out in another way than range"));
                }
                _ => Failure::check(&subject(&self.group), joined.error_code, None)?,
            }
            self.id = joined.member_id.to_string();
            let shares = if joined.leader == joined.member_id { self.share(client, &joined)? } else { Vec::new() };
            let Some(synced) = self.ask_for_share(&mut connection, &joined, shares, stop)? else { return Ok(None) };
            match self.standing(synced.error_code)? {
                Standing::Good => {}
                Standing::Rejoin => continue,
                Standing::Lost => {
                    self.id.clear();
                    continue;
                }
            }
            // A member without partitions may be sent nothing at all.
            let places = if synced.assignment.is_empty() { Some(Vec::new()) } else { read_assignment(&synced.assignment) };
            let unreadable = || Failure::new(Kind::Failed, format!("{}: the leader's assignment cannot be read", subject(&self.group)));
            let places = places.ok_or_else(unreadable)?;
            self.generation = Some(joined.generation_id);
            return Ok(Some(places));
        }
        Err(Failure::new(Kind::Failed, format!("{}: assigned anew {JOINS_MAX} times, and never to the end", subject(&self.group))))
    }

    fn ask_to_join(&self, connection: &mut Connection, stop: &Stop) -> Outcome<Option<JoinGroupResponse>> {
        let millis = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(RANGE))
            .with_metadata(Bytes::from(write_subscription(&self.topics)));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(millis(SESSION))
            .with_rebalance_timeout_ms(millis(REBALANCE))
            .with_member_id(text(&self.id))
            .with_protocol_type(StrBytes::from_static_str(CONSUMER))
            .with_protocols(vec![protocol]);
        let version = connection.version::<JoinGroupRequest>(NEWEST)?;
        connection.send(&request, version)?;
        if !answers(connection, stop)? {
            return Ok(None);
        }
        connection.receive::<JoinGroupRequest>(version).map(Some)
    }

    fn ask_for_share(
        &self,
        connection: &mut Connection,
        joined: &JoinGroupResponse,
        shares: Vec<SyncGroupRequestAssignment>,
        stop: &Stop,
    ) -> Outcome<Option<SyncGroupResponse>> {
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(joined.generation_id)
            .with_member_id(text(&self.id))
            .with_protocol_type(Some(StrBytes::from_static_str(CONSUMER)))
            .with_protocol_name(Some(StrBytes::from_static_str(RANGE)))
            .with_assignments(shares);
        let version = connection.version::<SyncGroupRequest>(NEWEST)?;
        connection.send(&request, version)?;
        if !answers(connection, stop)? {
            return Ok(None);
        }
        connection.receive::<SyncGroupRequest>(version).map(Some)
    }

    /// As leader: each member's share.
    fn share(&mut self, client: &mut Client, joined: &JoinGroupResponse) -> Outcome<Vec<SyncGroupRequestAssignment>> {
        let members: BTreeMap<String, Vec<String>> = joined
            .members
            .iter()
            .map(|member| (member.member_id.to_string(), read_subscription(&member.metadata).unwrap_or_default()))
            .collect();
        let mut topics: Vec<String> = members.values().flatten().cloned().collect();
        topics.sort_unstable();
        topics.dedup();
        let counted = count(client, &topics)?;
        let shares = range(&members, &counted);
        self.counted = Some(counted);
        let one = |(member, places): (&String, &Vec<Place>)| {
            SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(Bytes::from(write_assignment(places)))
        };
        Ok(shares.iter().map(one).collect())
    }
}

/// How many partitions each topic has; one that is not there is left out.
fn count(client: &mut Client, topics: &[String]) -> Outcome<BTreeMap<String, i32>> {
    let found = client.metadata(Some(topics))?;
    let one = |topic: &kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
        let name = topic.name.as_ref().filter(|_| topic.error_code == 0)?;
        Some((name.to_string(), i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)))
    };
    Ok(found.iter().filter_map(one).collect())
}

/// Waits for the answer to a request that other members may hold up; `false` when it was stopped first.
fn answers(connection: &Connection, stop: &Stop) -> Outcome<bool> {
    let began = Instant::now();
    while !connection.has_answer(LOOK)? {
        if stop.is_asked() {
            return Ok(false);
        }
        if began.elapsed() > ANSWER_MAX {
            return Err(Failure::unreachable(format!("{} did not answer within {} s", connection.name(), ANSWER_MAX.as_secs())));
        }
    }
    Ok(true)
}
