//! Groups' coordinators: which partition of `__consumer_offsets` a group belongs to, and requests to it.
//!
//! 1. The group's id gives the partition ([`partition_for`]); this node must lead it.
//! 2. Requests go to the shard that owns it, one group each, and come back through a [`Gather`].
//!
//! Knows nothing of what is asked.

use millrace_base::ids::PartitionId;
use millrace_shard::api::{Reply, Request};
use millrace_shard::state::groups;
use millrace_shard::state::groups::records::partition_for;

use crate::auto_create::OFFSETS_TOPIC;
use crate::call::{Answer, Call, Outcome};
use crate::errors;
use crate::gather::{self, Gather};
use crate::wire::errors::ErrorCode;

/// A group's answer, or why there is none.
pub type GroupResult = Result<groups::Answer, ErrorCode>;

/// Requests to coordinators, and slots that need none.
pub type Groups = Gather<(PartitionId, groups::Request), GroupResult>;

/// The partition that coordinates a group, if this node does.
pub fn of_group(call: &Call<'_, '_>, group: &str) -> Result<PartitionId, ErrorCode> {
    let topic = call.meta().topic_named(OFFSETS_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let partition = PartitionId { topic: topic.id, index: partition_for(group, topic.partitions()) };
    is_led_here(call, partition)
}

fn is_led_here(call: &Call<'_, '_>, partition: PartitionId) -> Result<PartitionId, ErrorCode> {
    match call.leader(partition).and_then(|leadership| leadership.leader) {
        None => Err(ErrorCode::CoordinatorNotAvailable),
        Some(node) if node == call.facts().node => Ok(partition),
        Some(_) => Err(ErrorCode::NotCoordinator),
    }
}

/// Every partition that coordinates groups on this node.
pub fn all_led_here(call: &Call<'_, '_>) -> Vec<PartitionId> {
    let Some(topic) = call.meta().topic_named(OFFSETS_TOPIC) else { return Vec::new() };
    let all = (0..topic.partitions()).map(|index| PartitionId { topic: topic.id, index });
    all.filter(|partition| is_led_here(call, *partition).is_ok()).collect()
}

/// No requests yet.
pub fn none() -> Groups {
    Gather::with_chunk(1)
}

/// The next slot: a request about `group`, or the error that it has no coordinator here.
pub fn ask(call: &Call<'_, '_>, gathering: &mut Groups, group: &str, request: groups::Request) {
    match of_group(call, group) {
        Ok(partition) => gathering.ask(call.owner_of(partition), (partition, request)),
        Err(code) => gathering.fill(Err(code)),
    }
}

/// Sends what is to be asked and builds the answer from all slots.
pub fn answer(
    call: &mut Call<'_, '_>,
    gathering: Groups,
    build: impl FnOnce(&mut Call<'_, '_>, Vec<GroupResult>) -> Answer + Send + 'static,
) -> Outcome {
    gather::gather(call, gathering, None, make, unpack, move |call, slots| {
        let lost = || Err(ErrorCode::UnknownServerError);
        build(call, slots.into_iter().map(|slot| slot.unwrap_or_else(lost)).collect())
    })
}

/// One request about one group.
pub fn one(
    call: &mut Call<'_, '_>,
    group: &str,
    request: groups::Request,
    build: impl FnOnce(&mut Call<'_, '_>, GroupResult) -> Answer + Send + 'static,
) -> Outcome {
    let mut gathering = none();
    ask(call, &mut gathering, group, request);
    answer(call, gathering, move |call, results| {
        let result = results.into_iter().next().unwrap_or(Err(ErrorCode::UnknownServerError));
        build(call, result)
    })
}

fn make(mut questions: Vec<(PartitionId, groups::Request)>) -> Request {
    let (coordinator, request) = questions.pop().expect("a chunk holds a question");
    Request::Group { coordinator, request }
}

fn unpack(reply: Reply) -> Vec<GroupResult> {
    match reply {
        Reply::Group(result) => vec![result.map_err(errors::of_unavailable)],
        _ => Vec::new(),
    }
}

/// The error code of a result that says no more than whether it was done.
pub fn code(result: Result<(), groups::GroupError>) -> ErrorCode {
    match result {
        Ok(()) => ErrorCode::None,
        Err(error) => errors::of_group(error),
    }
}
