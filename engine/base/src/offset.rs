//! Offsets, epochs, and positions: pairs of both.

/// A record's number in its partition. Not negative.
pub type Offset = i64;

/// A leadership period: the Raft term, and Kafka's leader epoch. Not negative.
pub type Epoch = i32;

/// Compared by epoch first: of two logs that both end at offset 7, the one with the later epoch is ahead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: Offset,
}

impl Position {
    pub fn new(epoch: Epoch, offset: Offset) -> Position {
        Position { epoch, offset }
    }
}
