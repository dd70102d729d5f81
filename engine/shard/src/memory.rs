//! How one shard's memory is shared out, so that no kind of client can take what another kind of work needs to come to its end.
//!
//! | share | of what is left | who takes from it | what happens without room |
//! |---|---|---|---|
//! | work | first, fixed | checkpoints, indexes and state files to be written, journal files to be made, the one batch that is opened for a search | bounded by how many run at once |
//! | journal | 3/8 | entries being built or in flight, batches that no segment has, the newest batches as a cache | the cache goes; then produce stalls |
//! | receive | 3/8 | what connections receive, and frames until they are done with | connections wait in order ([`crate::receive`]) |
//! | read | 1/8 | windows of segments, until the client has taken them | reads wait in order ([`crate::room`]) |
//! | answer | 1/8 | all other answers, until the client has taken them | requests are not begun |
//! | indexes | 1/32 of all | indexes of closed segments that were needed | the oldest goes; not a pool, they are no chunks |
//! | groups | 1/32 of all | members, offsets and records on their way of consumer groups | more members and offsets are refused; not a pool |
//!
//! Clients that hold memory and do not move while others wait for it are closed ([`crate::shortage`]).
//!
//! Invariants: the shares together are the shard's memory; what is needed to begin any one thing fits its share: an entry, the largest
//! batch. Memory of a share is taken when there is room for it, but for what must not wait: consensus, relief of the journal, answers of
//! requests that have begun.
//! Knows nothing of connections or partitions.

use crate::store::WRITE_BYTES_MAX;
use crate::window::WINDOW_BYTES_MAX;
use millrace_base::limits::BLOCK;
use millrace_io::Pool;
use millrace_log::journal::Options;
use millrace_log::time_lookup::OPENED_BYTES_MAX;
use millrace_log::walk::STORED_BYTES_MAX;

/// Checkpoints under way at once in one shard, so that they do not crowd the journal's writes out.
pub const CHECKPOINTS_MAX: usize = 2;

/// When a journal fills faster than it is relieved: bytes of small checkpoints under way at once, beside as many large ones. A device's flush is
/// of all that was written before it, so that many that are synced at once cost little more than one.
pub const SMALL_CHECKPOINTS_BYTES: usize = 1 << 20;

/// Memory that a journal takes at a time, at least.
pub const JOURNAL_CHUNK_BYTES: usize = 2 << 20;

/// For indexes, state files and zeros that are being written.
const FILES_BYTES: usize = 6 << 20;

/// See the module's head. Cheap to clone.
#[derive(Clone)]
pub struct Shares {
    pub whole: Pool,
    pub work: Pool,
    pub journal: Pool,
    pub receive: Pool,
    pub read: Pool,
    pub answer: Pool,
    pub index_bytes: usize,
    pub group_bytes: usize,
    /// Of the share "work", what one batch is decompressed into for a search by time.
    pub opened_bytes: usize,
}

/// Of a shard's memory, what indexes of closed segments take, and what consumer groups take: one part in so many each.
const INDEX_PART: usize = 32;
const GROUP_PART: usize = 32;

/// The largest batches and writes of a shard's large checkpoints. Small ones take what these leave.
fn work_bytes(options: &Options) -> usize {
    CHECKPOINTS_MAX * Pool::size_of(WRITE_BYTES_MAX + options.entry_bytes_max) + FILES_BYTES
}

/// Of a shard's memory, what the batch that is opened takes: one part in so many, within bounds.
const OPENED_PART: usize = 64;
const OPENED_BYTES_MIN: usize = 2 << 20;

impl Shares {
    /// The least memory that a shard with this journal in each of `directories` data directories comes to its ends with.
    pub fn least(options: &Options, directories: usize) -> usize {
        let work = work_bytes(options);
        // A chunk that each journal writes into, and two entries that outgrow theirs; produce stalls for memory before the journal is full.
        let journal = directories * JOURNAL_CHUNK_BYTES + 2 * JOURNAL_CHUNK_BYTES.max(2 * options.entry_bytes_max);
        let read = Pool::size_of(STORED_BYTES_MAX.min(options.entry_bytes_max) + 2 * BLOCK) + WINDOW_BYTES_MAX;
        // A start holds in memory what the journals hold.
        let recovered = directories * options.files_max as usize * options.file_bytes as usize;
        let pools = work + (journal * 8).div_ceil(3).max(read * 8).max(recovered) + 8;
        let least = (pools * INDEX_PART).div_ceil(INDEX_PART - 2);
        least + (least / (OPENED_PART - 1) + 1).max(OPENED_BYTES_MIN)
    }

    /// `bytes`: not less than [`Shares::least`].
    pub fn new(bytes: usize, options: &Options) -> Shares {
        let index_bytes = bytes / INDEX_PART;
        let group_bytes = bytes / GROUP_PART;
        let whole = Pool::new(bytes - index_bytes - group_bytes);
        let opened_bytes = (bytes / OPENED_PART).clamp(OPENED_BYTES_MIN, OPENED_BYTES_MAX);
        let work = work_bytes(options) + opened_bytes;
        let eighth = whole.budget().saturating_sub(work) / 8;
        Shares {
            work: whole.share(work),
            journal: whole.share(3 * eighth),
            receive: whole.share(3 * eighth),
            read: whole.share(eighth),
            answer: whole.share(eighth),
            index_bytes,
            group_bytes,
            opened_bytes,
            whole,
        }
    }

    /// The most of the journal's memory that one read is lent.
    pub fn lent_bytes_max(&self) -> usize {
        (self.journal.budget() / 16).max(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::limits::FRAME_BYTES_MAX;

    #[test]
    fn shares_together_are_the_memory_and_hold_what_they_must() {
        let small = Options { file_bytes: 256 << 10, entry_bytes_max: 128 << 10, files_first: 2, files_max: 6, reserve_bytes: 64 << 10 };
        for (options, directories) in [(Options::new(3), 1), (Options::new(64), 1), (Options::new(3), 4), (small, 2)] {
            let least = Shares::least(&options, directories);
            for bytes in [least, 2 * least, 8 * least] {
                let shares = Shares::new(bytes, &options);
                let parts = [&shares.work, &shares.journal, &shares.receive, &shares.read, &shares.answer];
                let sum: usize = parts.iter().map(|part| part.budget()).sum::<usize>() + shares.index_bytes + shares.group_bytes;
                assert!(sum <= bytes && bytes - sum < 64, "{sum} of {bytes}");
                assert!(shares.journal.has_room(4 * options.entry_bytes_max));
                assert!(shares.read.has_room(WINDOW_BYTES_MAX + STORED_BYTES_MAX.min(options.entry_bytes_max)));
                assert!(shares.work.has_room(CHECKPOINTS_MAX * (WRITE_BYTES_MAX + options.entry_bytes_max)));
            }
        }
    }

    #[test]
    fn a_shard_needs_an_eighth_of_a_gibibyte_and_takes_the_largest_request_from_three_eighths_on() {
        let least = Shares::least(&Options::new(3), 1);
        assert!((112 << 20..136 << 20).contains(&least), "{least}");
        let frame_max = |bytes: usize| Shares::new(bytes, &Options::new(3)).receive.budget() / 8 * 7;
        assert!(frame_max(1 << 30) > 2 * FRAME_BYTES_MAX && frame_max(384 << 20) > FRAME_BYTES_MAX, "{}", frame_max(1 << 28));
    }
}
