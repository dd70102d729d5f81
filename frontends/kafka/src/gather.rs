//! Questions about many partitions, asked of the shards that own them in chunks, and the answers put back in the request's order.
//!
//! 1. A handler has one slot per thing asked for; a slot is filled at once (an error) or asked of a shard.
//! 2. Questions go out in chunks of [`CHUNK`], at most [`FLYING_MAX`] at a time, so that no request occupies a shard or a lane for long.
//! 3. When all chunks are back, or the deadline has come, the answer is built from the slots; an empty one has had no answer.
//!
//! Invariants: a slot is filled at most once; chunks in flight <= FLYING_MAX.
//! Knows nothing of what is asked.

use std::collections::{BTreeMap, VecDeque};

use millrace_base::clock::Nanos;
use millrace_base::ids::ShardId;
use millrace_shard::api::{Reply, Request};

use crate::call::{Answer, Call, Outcome, PARTS_MAX, Pending};

/// Questions in one request to a shard.
pub const CHUNK: usize = 512;

/// Requests of one call that shards have not answered.
pub const FLYING_MAX: usize = 8;

/// The slots and what is still to be asked.
pub struct Gather<Q, R> {
    open: BTreeMap<ShardId, Chunk<Q>>,
    full: VecDeque<(ShardId, Chunk<Q>)>,
    flying: BTreeMap<u32, Vec<usize>>,
    part: u32,
    chunk: usize,
    slots: Vec<Option<R>>,
    bound: Option<Bound<R>>,
}

/// What all answers of one call may weigh together.
struct Bound<R> {
    left: usize,
    weigh: fn(&R) -> usize,
    beyond: fn() -> R,
}

struct Chunk<Q> {
    slots: Vec<usize>,
    questions: Vec<Q>,
}

impl<Q, R> Gather<Q, R> {
    pub fn new() -> Gather<Q, R> {
        Gather::with_chunk(CHUNK)
    }

    /// With so many questions in one request to a shard.
    pub fn with_chunk(chunk: usize) -> Gather<Q, R> {
        assert!(chunk > 0);
        Gather { open: BTreeMap::new(), full: VecDeque::new(), flying: BTreeMap::new(), part: 0, chunk, slots: Vec::new(), bound: None }
    }

    /// With answers that weigh no more than `most` together: instead of one that there is no room for the slot has `beyond`.
    pub fn bounded(self, most: usize, weigh: fn(&R) -> usize, beyond: fn() -> R) -> Gather<Q, R> {
        Gather { bound: Some(Bound { left: most, weigh, beyond }), ..self }
    }

    /// The next slot, filled.
    pub fn fill(&mut self, result: R) {
        self.slots.push(Some(result));
    }

    /// The next slot, to be asked of a shard.
    pub fn ask(&mut self, shard: ShardId, question: Q) {
        let open = self.open.entry(shard).or_insert_with(|| Chunk { slots: Vec::new(), questions: Vec::new() });
        open.slots.push(self.slots.len());
        open.questions.push(question);
        self.slots.push(None);
        if open.questions.len() >= self.chunk
            && let Some(chunk) = self.open.remove(&shard)
        {
            self.full.push_back((shard, chunk));
        }
    }

    /// The next chunk to send, with its part number.
    fn next(&mut self) -> Option<(ShardId, u32, Vec<Q>)> {
        if self.flying.len() >= FLYING_MAX {
            return None;
        }
        let (shard, chunk) = self.full.pop_front().or_else(|| self.open.pop_first())?;
        let part = self.part;
        self.part = (self.part + 1) % PARTS_MAX;
        self.flying.insert(part, chunk.slots);
        Some((shard, part, chunk.questions))
    }

    /// Fills the slots of a chunk that came back.
    fn back(&mut self, part: u32, results: Vec<R>) {
        for (slot, result) in self.flying.remove(&part).into_iter().flatten().zip(results) {
            self.slots[slot] = Some(match &mut self.bound {
                Some(bound) => bound.take(result),
                None => result,
            });
        }
    }

    fn is_done(&self) -> bool {
        self.flying.is_empty() && self.full.is_empty() && self.open.is_empty()
    }
}

impl<R> Bound<R> {
    fn take(&mut self, result: R) -> R {
        match self.left.checked_sub((self.weigh)(&result)) {
            Some(left) => {
                self.left = left;
                result
            }
            None => (self.beyond)(),
        }
    }
}

impl<Q, R> Default for Gather<Q, R> {
    fn default() -> Self {
        Gather::new()
    }
}

type Build<R> = Box<dyn FnOnce(&mut Call<'_, '_>, Vec<Option<R>>) -> Answer + Send>;

struct Gathering<Q, R> {
    gather: Gather<Q, R>,
    make: fn(Vec<Q>) -> Request,
    unpack: fn(Reply) -> Vec<R>,
    build: Option<Build<R>>,
}

impl<Q: Send, R: Send> Gathering<Q, R> {
    fn go_on(&mut self, call: &mut Call<'_, '_>) -> Option<Answer> {
        while let Some((shard, part, questions)) = self.gather.next() {
            call.submit(shard, part, (self.make)(questions));
        }
        if self.gather.is_done() { self.end(call) } else { None }
    }

    fn end(&mut self, call: &mut Call<'_, '_>) -> Option<Answer> {
        let build = self.build.take()?;
        Some(build(call, std::mem::take(&mut self.gather.slots)))
    }
}

impl<Q: Send, R: Send> Pending for Gathering<Q, R> {
    fn replied(&mut self, call: &mut Call<'_, '_>, part: u32, reply: Reply) -> Option<Answer> {
        self.gather.back(part, (self.unpack)(reply));
        self.go_on(call)
    }

    fn timer(&mut self, call: &mut Call<'_, '_>) -> Option<Answer> {
        self.end(call)
    }
}

/// Asks what there is to ask and builds the answer from the slots when all is there, or at `deadline`.
/// `unpack` takes a reply of the kind that `make` asks for; of any other kind it gives nothing.
pub fn gather<Q: Send + 'static, R: Send + 'static>(
    call: &mut Call<'_, '_>,
    gather: Gather<Q, R>,
    deadline: Option<Nanos>,
    make: fn(Vec<Q>) -> Request,
    unpack: fn(Reply) -> Vec<R>,
    build: impl FnOnce(&mut Call<'_, '_>, Vec<Option<R>>) -> Answer + Send + 'static,
) -> Outcome {
    let mut gathering = Gathering { gather, make, unpack, build: Some(Box::new(build)) };
    match gathering.go_on(call) {
        Some(answer) => Outcome::Done(answer),
        None => {
            call.timer = deadline;
            Outcome::Wait(Box::new(gathering))
        }
    }
}

/// The partitions that a request names, by topic; a slot belongs to each, in this order.
pub type Named = Vec<(String, Vec<i32>)>;

/// Results in slot order as rows under their topics.
pub fn by_topic<R, T>(named: Named, results: Vec<R>, mut row: impl FnMut(i32, R) -> T) -> Vec<(String, Vec<T>)> {
    let mut results = results.into_iter();
    let topic = |(name, indexes): (String, Vec<i32>)| {
        let rows = indexes.into_iter().zip(results.by_ref()).map(|(index, result)| row(index, result)).collect();
        (name, rows)
    };
    named.into_iter().map(topic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_questions_leave_in_chunks_and_come_back_in_order() {
        let mut gather: Gather<u32, u32> = Gather::with_chunk(10);
        for n in 0..205 {
            if n % 5 == 0 { gather.fill(n) } else { gather.ask((n % 2) as ShardId, n) }
        }
        let (mut sent, mut chunks) = (VecDeque::new(), 0);
        loop {
            while let Some((_, part, questions)) = gather.next() {
                assert!(questions.len() <= 10);
                chunks += 1;
                sent.push_back((part, questions));
            }
            assert!(sent.len() <= FLYING_MAX);
            let Some((part, questions)) = sent.pop_back() else { break };
            gather.back(part, questions);
        }
        assert!(gather.is_done());
        assert_eq!(chunks, 18);
        assert_eq!(gather.slots, (0..205).map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn what_there_is_no_room_for_is_let_go() {
        let mut gather: Gather<u32, Vec<u8>> = Gather::with_chunk(2).bounded(5, Vec::len, Vec::new);
        (0..3).for_each(|n| gather.ask(0, n));
        let (_, first, _) = gather.next().unwrap();
        let (_, second, _) = gather.next().unwrap();
        gather.back(second, vec![vec![1; 3]]);
        gather.back(first, vec![vec![2; 3], vec![3; 2]]);
        assert_eq!(gather.slots, [Some(vec![]), Some(vec![3; 2]), Some(vec![1; 3])]);
    }

    #[test]
    fn an_answer_too_short_leaves_slots_empty() {
        let mut gather: Gather<u32, u32> = Gather::new();
        gather.ask(0, 1);
        gather.ask(0, 2);
        let (_, part, _) = gather.next().unwrap();
        gather.back(part, vec![7]);
        assert!(gather.is_done());
        assert_eq!(gather.slots, [Some(7), None]);
    }
}
