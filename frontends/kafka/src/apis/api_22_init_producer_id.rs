//! InitProducerId.
//!
//! v3 the id and epoch that a producer has, to have its epoch raised; v4 and 5 differ in error codes only.
//!
//! 1. A transactional id is TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal for every client, until transactions land ([`NO_TRANSACTIONS`]).
//! 2. Id and epoch are both given or both -1. Without a transactional id they mean nothing else: as in Kafka, the answer is always a fresh id
//!    with epoch 0, since nobody can tell whether the one that is named was handed out, and to whom.
//! 3. A fresh id comes from this shard's block ([`ProducerIds`]), with epoch 0.
//! 4. What may pass is COORDINATOR_LOAD_IN_PROGRESS: the one code on which every client sends the same request again. On other retriable ones
//!    Java looks for a transaction coordinator, which an idempotent producer has not, or gives up.
//!
//! [`NO_TRANSACTIONS`]: super::api_00_produce::NO_TRANSACTIONS
//! [`ProducerIds`]: crate::producer_ids::ProducerIds

use kafka_protocol::messages::{InitProducerIdResponse, ProducerId};
use millrace_base::ids::META_PARTITION;
use millrace_shard::api::{MetaChange, MetaDone, Reply, Request};
use millrace_shard::state::meta;

use crate::call::{Answer, Asked, Call, Outcome, Pending};
use crate::errors;
use crate::producer_ids::{BLOCK_IDS, Take};
use crate::wire::errors::ErrorCode;
use crate::wire::requests::InitProducerIdRequest;

/// How long a call waits for a block.
const WAIT_MS: u64 = 10_000;

const TRY_AGAIN: ErrorCode = ErrorCode::CoordinatorLoadInProgress;

pub fn handle(call: &mut Call<'_, '_>, request: InitProducerIdRequest<'_>) -> Outcome {
    if let Err(code) = check(&request) {
        return Outcome::Done(refuse(call.asked, code));
    }
    let mut waiting = WaitingForId { asked: call.asked };
    match waiting.take(call) {
        Some(answer) => Outcome::Done(answer),
        None => {
            call.timer = Some(call.now().plus_ms(WAIT_MS));
            Outcome::Wait(Box::new(waiting))
        }
    }
}

fn check(request: &InitProducerIdRequest<'_>) -> Result<(), ErrorCode> {
    match request.transactional_id {
        Some("") => return Err(ErrorCode::InvalidRequest),
        Some(_) => return Err(ErrorCode::TransactionalIdAuthorizationFailed),
        None => {}
    }
    match (request.producer_id, request.producer_epoch) {
        (-1, -1) => Ok(()),
        (id, epoch) if id < 0 || epoch < 0 => Err(ErrorCode::InvalidRequest),
        _ => Ok(()),
    }
}

fn as_retried(code: ErrorCode) -> ErrorCode {
    if code.retriable() { TRY_AGAIN } else { code }
}

fn refuse(asked: Asked, code: ErrorCode) -> Answer {
    let response = InitProducerIdResponse::default().with_error_code(code.code());
    asked.answer(&response.with_producer_id(ProducerId(-1)).with_producer_epoch(-1))
}

fn give(asked: Asked, id: i64) -> Answer {
    asked.answer(&InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0))
}

struct WaitingForId {
    asked: Asked,
}

impl WaitingForId {
    fn take(&mut self, call: &mut Call<'_, '_>) -> Option<Answer> {
        match call.shared.producer_ids.take(call.id) {
            Take::Id(id) => return Some(give(self.asked, id)),
            Take::Wait => {}
            Take::Fetch => {
                let request = meta::Request::AllocateProducerIds { count: BLOCK_IDS, seen: -1 };
                let to = call.owner_of(META_PARTITION);
                call.submit(to, 0, Request::Meta(vec![MetaChange { request, validate_only: false }]));
            }
        }
        None
    }

    fn give_up(&mut self, call: &mut Call<'_, '_>, code: ErrorCode) -> Answer {
        self.cancelled(call);
        refuse(self.asked, code)
    }
}

impl Pending for WaitingForId {
    fn replied(&mut self, call: &mut Call<'_, '_>, _part: u32, reply: Reply) -> Option<Answer> {
        let Reply::Meta(results) = reply else { return Some(self.give_up(call, ErrorCode::UnknownServerError)) };
        match results.into_iter().next() {
            Some(Ok(MetaDone::ProducerIds { first, count })) => {
                let woken = call.shared.producer_ids.fetched(call.id, Some((first, count)));
                let answer = self.take(call);
                call.shared.wake.extend(woken);
                answer
            }
            Some(Err(refusal)) => Some(self.give_up(call, as_retried(errors::of_meta(&refusal).0))),
            Some(Ok(MetaDone::TopicCreated { .. } | MetaDone::Changed)) | None => Some(self.give_up(call, ErrorCode::UnknownServerError)),
        }
    }

    fn timer(&mut self, call: &mut Call<'_, '_>) -> Option<Answer> {
        Some(self.give_up(call, TRY_AGAIN))
    }

    fn woken(&mut self, call: &mut Call<'_, '_>) -> Option<Answer> {
        self.take(call)
    }

    fn cancelled(&mut self, call: &mut Call<'_, '_>) {
        let woken = call.shared.producer_ids.cancelled(call.id);
        call.shared.wake.extend(woken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(transactional_id: Option<&str>, producer_id: i64, producer_epoch: i16) -> Result<(), ErrorCode> {
        check(&InitProducerIdRequest { transactional_id, transaction_timeout_ms: 0, producer_id, producer_epoch })
    }

    #[test]
    fn an_id_and_an_epoch_go_together() {
        assert_eq!(checked(None, -1, -1), Ok(()));
        assert_eq!(checked(None, 7, 0), Ok(()));
        assert_eq!(checked(None, 7, -1), Err(ErrorCode::InvalidRequest));
        assert_eq!(checked(None, -1, 3), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn what_may_pass_has_the_code_that_idempotent_producers_retry() {
        for code in [ErrorCode::NotController, ErrorCode::KafkaStorageError, ErrorCode::CoordinatorNotAvailable] {
            assert_eq!(as_retried(code), ErrorCode::CoordinatorLoadInProgress);
        }
        assert_eq!(as_retried(ErrorCode::UnknownServerError), ErrorCode::UnknownServerError);
    }

    #[test]
    fn a_transactional_id_is_fatal() {
        assert_eq!(checked(Some("t"), -1, -1), Err(ErrorCode::TransactionalIdAuthorizationFailed));
        assert_eq!(checked(Some(""), -1, -1), Err(ErrorCode::InvalidRequest));
    }
}
