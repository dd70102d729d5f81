//! Who waits for a completion, packed into the ring's token.
//!
//! A slot may be used again before the last completion of its former user has come; the generation tells them apart.

use millrace_io::Token;

/// What an operation was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Purpose {
    Accept = 1,
    Receive = 2,
    Readable = 3,
    Send = 4,
    CloseSocket = 5,
    /// A file operation of a task; the slot names the task.
    Task = 6,
    /// A journal entry's write; the slot names the data directory, the generation the low bits of the sequence.
    Entry = 7,
    /// Nobody waits: the completion only gives memory back.
    Nobody = 8,
    /// A direct append's write; the slot is its key.
    Extent = 9,
    /// A job off the turn; the slot is its key.
    Job = 10,
}

const PURPOSES: [Purpose; 10] = [
    Purpose::Accept,
    Purpose::Receive,
    Purpose::Readable,
    Purpose::Send,
    Purpose::CloseSocket,
    Purpose::Task,
    Purpose::Entry,
    Purpose::Nobody,
    Purpose::Extent,
    Purpose::Job,
];

/// Bits of a generation that a token carries.
pub const GENERATION_MASK: u32 = (1 << 28) - 1;

/// By which an entry of a journal is told from the others that are on their way.
pub fn generation_of(sequence: u64) -> u32 {
    sequence as u32 & GENERATION_MASK
}

pub fn pack(purpose: Purpose, slot: u32, generation: u32) -> Token {
    (u64::from(purpose as u8) << 60) | (u64::from(generation & GENERATION_MASK) << 32) | u64::from(slot)
}

pub fn unpack(token: Token) -> (Purpose, u32, u32) {
    let purpose = PURPOSES[((token >> 60) as usize).saturating_sub(1).min(PURPOSES.len() - 1)];
    (purpose, token as u32, (token >> 32) as u32 & GENERATION_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for purpose in PURPOSES {
            assert_eq!(unpack(pack(purpose, 77, GENERATION_MASK)), (purpose, 77, GENERATION_MASK));
        }
    }
}
