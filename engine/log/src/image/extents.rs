//! The extents among an image's pending batches: their bytes are taken in, and a torn one ends the log.

use super::{DirectBytes, PendingBytes, Recovered};
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use millrace_io::memory::Slice;

/// What a segment holds of an extent.
pub enum ExtentFound {
    /// The extent's own batches: from the segment, then the fragment from the journal.
    Whole(Slice),
    /// Other bytes than the journal says, or none.
    Differs(Corrupt),
    /// The file cannot be read there.
    Unreadable(Corrupt),
}

/// An extent that is not there and that nobody states durable, so that nothing of it was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornExtent {
    /// The log ends here now.
    pub base: Offset,
    pub found: Corrupt,
}

impl Recovered {
    /// Reads the extents among the pending batches: afterwards all bytes are here. `read` is given an extent and the place in its segment
    /// where its batches begin. The first that is torn is cut off with all that is behind it; gives that, to be stated in the journal as
    /// a truncation before anything else of this partition is.
    ///
    /// # Errors
    /// An extent that is stated durable is not there, or one cannot be read: damage. The log ends before it then, for who serves up to there.
    pub fn take_extents(&mut self, mut read: impl FnMut(&DirectBytes, u64) -> ExtentFound) -> Result<Option<TornExtent>, Corrupt> {
        let mut place = self.segment_bytes;
        for index in 0..self.pending.len() {
            let pending = &mut self.pending[index];
            if self.rolls.contains(&pending.base) {
                place = 0;
            }
            let direct = match &pending.bytes {
                PendingBytes::Journal(bytes) => {
                    place += bytes.len() as u64;
                    continue;
                }
                PendingBytes::Direct(direct) => direct,
            };
            let found = read(direct, place);
            place = direct.place.saturating_add(direct.bytes).saturating_add(direct.tail.len() as u64);
            let found = match found {
                ExtentFound::Whole(bytes) => direct.batches(bytes, pending.base, pending.end),
                other => other,
            };
            match found {
                ExtentFound::Whole(bytes) => {
                    pending.bytes = PendingBytes::Journal(bytes);
                    self.extents_end = Some(pending.end);
                }
                ExtentFound::Differs(found) if !direct.is_stated => {
                    return Ok(Some(TornExtent { base: self.end_before(index), found }));
                }
                ExtentFound::Differs(found) | ExtentFound::Unreadable(found) => {
                    self.lost.reached(self.log_end);
                    self.end_before(index);
                    return Err(found);
                }
            }
        }
        Ok(None)
    }

    /// Drops a pending range and all that is behind it; gives where the log ends then.
    fn end_before(&mut self, index: usize) -> Offset {
        let base = self.pending[index].base;
        self.pending.truncate(index);
        self.rolls.retain(|roll| *roll <= base);
        self.log_end = base;
        // A state knows producers' batches that are not durable yet.
        self.large.producers.truncate(base);
        base
    }
}
