//! Who waits on the owning shard for memory to read segments into.
//!
//! 1. What reads a segment for a client asks for room in the share first; without it, it joins the queue here and holds nothing of the share.
//! 2. When memory comes home the first goes on, and looks anew at what it wants.
//! 3. When the queue has not moved for a while, the share is wanted back: see [`crate::shortage`]. So is the journal's when produce has
//!    waited; and when readers have more than half of it, from those who do not take what they read, before produce has to wait.
//!
//! Invariants: whoever waits here holds no memory of the share, so that those who wait can never stop each other; when nothing of the share
//! is out, the first goes on whatever it asks for.
//! Knows nothing of what is read.

use crate::engine::{Engine, Turn};
use crate::memory::JOURNAL_CHUNK_BYTES;
use crate::shortage::STUCK_MS;
use crate::waits::WaitId;
use millrace_base::clock::Nanos;
use millrace_base::ids::PartitionId;
use std::collections::VecDeque;
use std::time::Duration;

/// Length of the queue below which nobody is looked for who waits no longer.
const QUEUE_MIN: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    Read(WaitId),
    /// A part of a question about offsets.
    Query {
        query: WaitId,
        part: usize,
    },
    /// A coordinator that loads its log.
    Coordinator(PartitionId),
}

#[derive(Default)]
pub struct Room {
    queue: VecDeque<(Asker, usize)>,
    /// When somebody came to his turn last, or the queue began.
    moved: Nanos,
    /// Length from which on those are looked for that wait no longer.
    queue_max: usize,
    /// The first of the queue is at its turn.
    serving: bool,
    /// Since when produce has been held back for memory of the journal.
    journal_short_since: Option<Nanos>,
    /// The journal's memory is asked back from readers.
    asks_back: bool,
}

impl Room {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether nobody waits, and nothing is asked back.
    pub fn is_at_rest(&self) -> bool {
        self.queue.is_empty() && self.journal_short_since.is_none() && !self.asks_back
    }
}

impl Engine {
    /// Whether so many bytes can be read now.
    pub fn has_room_to_read(&self, bytes: usize) -> bool {
        let share = &self.memory.read;
        (self.room.serving || self.room.queue.is_empty()) && (share.has_room(bytes) || share.used() == 0)
    }

    pub fn wait_for_room(&mut self, asker: Asker, bytes: usize, now: Nanos) {
        self.kept_windows.forget();
        if self.room.queue.is_empty() {
            self.room.moved = now;
        }
        if self.room.queue.len() >= self.room.queue_max {
            let mut queue = std::mem::take(&mut self.room.queue);
            queue.retain(|(asker, _)| self.is_waiting(*asker));
            self.room.queue_max = QUEUE_MIN + 2 * queue.len();
            self.room.queue = queue;
        }
        self.room.queue.push_back((asker, bytes));
    }

    /// Whether it still wants what it waits for: a read has a deadline.
    fn is_waiting(&self, asker: Asker) -> bool {
        match asker {
            Asker::Read(id) => self.reads.get(id).is_some(),
            Asker::Query { query, .. } => self.queries.get(query).is_some(),
            Asker::Coordinator(id) => self.partitions.contains_key(&id),
        }
    }

    /// Lets those go on that there is room for now, in order.
    pub fn resume_readers(&mut self, t: &mut Turn<'_>) {
        // Each at most once: who lacks more than it knew waits again.
        for _ in 0..self.room.queue.len() {
            let Some((asker, bytes)) = self.room.queue.front().copied() else { return };
            // The last stays although it waits no longer: that it has not come to its turn is not forgotten.
            if self.room.queue.len() > 1 && !self.is_waiting(asker) {
                self.room.queue.pop_front();
                continue;
            }
            let share = &self.memory.read;
            if !share.has_room(bytes) && share.used() > 0 {
                return;
            }
            self.room.queue.pop_front();
            self.room.moved = t.now;
            self.room.serving = true;
            match asker {
                Asker::Read(id) => self.read_again(t, id),
                Asker::Query { query, part } => self.query_again(t, query, part),
                Asker::Coordinator(id) => self.load_coordinator(t, id),
            }
            self.room.serving = false;
        }
    }

    /// Whether somebody waits for memory that another shard's thread may give back without a word.
    pub fn waits_for_memory(&self) -> bool {
        !self.room.queue.is_empty() || self.is_journal_short()
    }

    /// Whether produce is held back for memory.
    pub fn is_journal_short(&self) -> bool {
        !self.stalled.is_empty() && !self.memory.journal.has_room(JOURNAL_CHUNK_BYTES)
    }

    /// About how much of the journal's memory only those hold who read it.
    fn lent_bytes(&self) -> usize {
        let cached: usize = self.directories.iter().map(|directory| directory.cached_bytes() + 2 * JOURNAL_CHUNK_BYTES).sum();
        let pending: usize = self.partitions.values().map(|partition| partition.tail.pending_bytes()).sum();
        self.memory.journal.used().saturating_sub(cached + pending)
    }

    /// Says which shares are wanted back. Called a few times a second.
    pub fn want_back(&mut self, now: Nanos) {
        let stuck = Duration::from_millis(STUCK_MS);
        self.memory.read.want_back(!self.room.queue.is_empty() && now.since(self.room.moved) >= stuck);
        let since = if self.is_journal_short() { Some(self.room.journal_short_since.unwrap_or(now)) } else { None };
        self.room.journal_short_since = since;
        let is_stuck = since.is_some_and(|since| now.since(since) >= stuck);
        self.memory.journal.want_back(is_stuck);
        let half = self.memory.journal.budget() / 2;
        self.room.asks_back = is_stuck || (self.memory.journal.used() > half && self.lent_bytes() > half);
        self.memory.journal.ask_back(self.room.asks_back);
    }
}
