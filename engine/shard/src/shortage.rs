//! Who holds memory and does not move while others wait for it.
//!
//! 1. A connection that has been still for a moment keeps what it has received of a frame in a chunk of that size.
//! 2. When a queue for memory to receive into has not moved for [`STUCK_MS`], any of the large frames that can be whole goes first. If
//!    none can, connections with a part of a frame are closed that send nothing, or next to nothing. If there is none of those, and no
//!    frame is about to become whole, one goes of those that wait for memory themselves.
//! 3. When reads, produce or answers have waited so long, connections that do not take what they were sent are closed. What they hold may
//!    be lent by another shard, which tells by [`millrace_io::Slice::is_wanted_back`] that it waits. Those that take nothing are closed
//!    before anybody waits, when readers hold much of what produce needs ([`millrace_io::Slice::is_asked_back`]).
//! 4. The worst goes first: the bytes that it holds times the time since it moved. So many go at once that others are served soon.
//!
//! Invariants: nobody that moves is closed while those who wait come to their turn; who is served by the engine is not to blame.
//! Knows nothing of protocols.

use crate::net::{Connection, ConnectionId, Net};
use millrace_base::clock::Nanos;
use millrace_io::{Driver, Pool, Slice};
use std::time::Duration;

/// How long those who wait for memory may not come to their turn before someone is closed for it.
pub const STUCK_MS: u64 = 500;

/// How long a connection with a part of a frame is left in the chunk that it receives into.
const STILL_MS: u64 = 250;

/// One who holds memory, and how badly.
struct Holder {
    id: ConnectionId,
    bytes: usize,
    still: Duration,
}

impl Holder {
    fn badness(&self) -> u128 {
        self.bytes as u128 * self.still.as_micros().max(1)
    }
}

/// Whether it holds at least twice the memory that it needs.
pub fn is_loose(connection: &Connection) -> bool {
    connection.chunk_bytes() >= 2 * Pool::size_of(connection.filled.max(1))
}

fn before(now: Nanos, ms: u64) -> Nanos {
    Nanos(now.0.saturating_sub(ms * 1_000_000))
}

impl Net {
    /// Called a few times a second. Gives the connections to close, and why.
    pub fn relieve(&mut self, driver: &mut dyn Driver, now: Nanos) -> Vec<(ConnectionId, String)> {
        self.now = now;
        self.shrink_still(now);
        let stuck = Duration::from_millis(STUCK_MS);
        let finishes = self.is_waiting() && self.demote_finisher(before(now, STUCK_MS));
        if self.waiting.large.stuck_for(now) >= stuck {
            self.resume_any(driver);
        }
        let mut closed = Vec::new();
        if self.waiting.large.stuck_for(now) >= stuck || self.waiting.small.stuck_for(now) >= stuck {
            let enough = self.pool.budget() / 16;
            closed.extend(self.worst_senders(now, enough, finishes).into_iter().map(|holder| {
                let (bytes, ms) = (holder.bytes, holder.still.as_millis());
                (
                    holder.id,
                    format!(
                        "it held {bytes} bytes of an unfinished request and hardly sent anything for {ms} ms while others waited for memory"
                    ),
                )
            }));
        }
        let answers_wait = self.unanswered_since().is_some_and(|since| now.since(since) >= stuck);
        self.answers.want_back(answers_wait);
        closed.extend(self.worst_takers(now).into_iter().map(|holder| {
            let (bytes, ms) = (holder.bytes, holder.still.as_millis());
            (holder.id, format!("it took nothing of its answers for {ms} ms, {bytes} bytes of memory, while others waited for memory"))
        }));
        closed
    }

    fn shrink_still(&mut self, now: Nanos) {
        let pool = self.pool.clone();
        let since = before(now, STILL_MS);
        for connection in self.slots.iter_mut().filter_map(|slot| slot.connection.as_mut()) {
            if is_loose(connection) && connection.came < since && connection.waits.is_none() {
                connection.shrink(&pool);
            }
        }
    }

    fn holders(&self, bytes: impl Fn(&Connection) -> usize, still: impl Fn(&Connection) -> Duration) -> Vec<Holder> {
        let holder = |(slot, entry): (usize, &crate::net::Slot)| {
            let connection = entry.connection.as_ref().filter(|connection| !connection.closing)?;
            let id = ConnectionId::new(slot as u32, entry.generation);
            Some(Holder { id, bytes: bytes(connection), still: still(connection) })
        };
        self.slots.iter().enumerate().filter_map(holder).filter(|holder| holder.bytes > 0).collect()
    }

    /// Those with a part of a frame.
    fn worst_senders(&self, now: Nanos, enough: usize, finishes: bool) -> Vec<Holder> {
        // A connection that is paused waits for the engine, not the engine for it.
        let held = |waits: bool| {
            move |connection: &Connection| {
                let is_one = connection.waits.is_some() == waits && !connection.paused;
                if is_one { connection.held() } else { 0 }
            }
        };
        let still = |connection: &Connection| now.since(connection.moved);
        let mut silent = self.holders(held(false), still);
        silent.retain(|holder| holder.still >= Duration::from_millis(STUCK_MS));
        match silent.is_empty() {
            true if finishes => Vec::new(),
            true => worst(self.holders(held(true), still), 1),
            false => worst(silent, enough),
        }
    }

    /// Those with answers that they do not take, in memory that somebody waits for.
    fn worst_takers(&self, now: Nanos) -> Vec<Holder> {
        let of = |is_meant: fn(&Slice) -> bool| {
            move |connection: &Connection| {
                let mut bytes = 0;
                for (index, slice) in connection.out.iter().enumerate() {
                    let is_counted = index > 0 && connection.out[index - 1].is_of_chunk(slice);
                    bytes += if is_meant(slice) && !is_counted { slice.chunk_bytes() } else { 0 };
                }
                bytes
            }
        };
        // What has not been given to the kernel waits for this shard, not for its reader.
        let since = |connection: &Connection| if connection.sending { now.since(connection.send_progress) } else { Duration::ZERO };
        let mut still = self.holders(of(|slice| slice.is_wanted_back() || slice.is_asked_back()), since);
        let enough = still.iter().map(|holder| holder.bytes).sum::<usize>() / 8;
        still.retain(|holder| holder.still >= Duration::from_millis(STUCK_MS));
        // Who takes what it is sent is closed only for those that wait.
        if still.is_empty() { worst(self.holders(of(Slice::is_wanted_back), since), 1) } else { worst(still, enough) }
    }
}

/// The worst of them, until they hold `enough` together.
fn worst(mut holders: Vec<Holder>, enough: usize) -> Vec<Holder> {
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.badness()));
    let mut together = 0;
    holders.retain(|holder| {
        let is_next = together < enough.max(1);
        together += holder.bytes;
        is_next
    });
    holders
}
