//! Changes of replica set 0 that a client asks for: sent to the controller's shard in chunks, answered together.
//!
//! Knows nothing of what is changed.

use millrace_base::ids::META_PARTITION;
use millrace_shard::api::{MetaChange, MetaDone, Reply, Request};

use crate::call::{Answer, Call, Outcome};
use crate::errors::{self, Refusal, plain};
use crate::gather::{self, Gather};
use crate::wire::errors::ErrorCode;

/// Changes in one request to the controller.
const CHUNK: usize = 64;

/// The least that a client waits: a change takes a sync or two.
const TIMEOUT_MS_MIN: u64 = 1_000;

/// What became of one change.
pub type Changed = Result<MetaDone, Refusal>;

/// Changes and, between them, those that were refused before the controller was asked; in the request's order.
pub struct Changes(Gather<MetaChange, Changed>);

impl Changes {
    pub fn new() -> Changes {
        Changes(Gather::with_chunk(CHUNK))
    }

    pub fn refuse(&mut self, refusal: Refusal) {
        self.0.fill(Err(refusal));
    }

    pub fn ask(&mut self, call: &Call<'_, '_>, change: MetaChange) {
        self.0.ask(call.owner_of(META_PARTITION), change);
    }

    /// Asks for them all and builds the answer. What is not done in time is REQUEST_TIMED_OUT and goes on by itself.
    pub fn answer(
        self,
        call: &mut Call<'_, '_>,
        timeout_ms: i32,
        build: impl FnOnce(&mut Call<'_, '_>, Vec<Changed>) -> Answer + Send + 'static,
    ) -> Outcome {
        let deadline = call.now().plus_ms(u64::try_from(timeout_ms).unwrap_or(0).max(TIMEOUT_MS_MIN));
        gather::gather(call, self.0, Some(deadline), Request::Meta, unpack, move |call, slots| {
            let late = || Err(plain(ErrorCode::RequestTimedOut));
            build(call, slots.into_iter().map(|slot| slot.unwrap_or_else(late)).collect())
        })
    }
}

impl Default for Changes {
    fn default() -> Self {
        Changes::new()
    }
}

fn unpack(reply: Reply) -> Vec<Changed> {
    match reply {
        Reply::Meta(results) => results.into_iter().map(|result| result.map_err(|refusal| errors::of_meta(&refusal))).collect(),
        _ => Vec::new(),
    }
}
