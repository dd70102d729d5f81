//! Operations in flight: each slot owns what the kernel may touch until the operation has completed.
//!
//! 1. An operation's memory (space, slice, paths, message header) moves into its slot; the entry given to the ring points into it.
//! 2. All of it is on the heap, so that it stays where it is while slots move.
//! 3. The slot is emptied by the last completion, or leaked with the driver if the kernel never gave it back.
//!
//! Invariants: a slot's generation is in its entry's user data, so that no completion is taken for another's.

use crate::driver::{File, OpenHow, SEND_SLICES_MAX, Token};
use crate::memory::{Slice, Space};
use crate::table::Table;
use io_uring::squeue;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::ptr;

/// User data of the doorbell's poll.
pub(super) const BELL: u64 = u64::MAX;

/// User data of entries whose completion says nothing.
pub(super) const NOBODY: u64 = u64::MAX - 1;

/// What an operation is, and the memory it owns meanwhile.
pub(super) enum Deed {
    Open {
        path: CString,
        how: OpenHow,
    },
    CloseFile,
    Read {
        into: Space,
    },
    Write {
        file: File,
        from: Slice,
        synced: bool,
    },
    /// The sync of a write that has written `count` bytes.
    Settle {
        from: Slice,
        count: u32,
    },
    Sync,
    SyncDirectory {
        _directory: OwnedFd,
    },
    Truncate,
    Allocate,
    /// Rename, unlink, make or remove a directory.
    Names {
        _paths: [CString; 2],
    },
    Accept {
        listener: u32,
    },
    Receive {
        socket: u32,
        into: Space,
    },
    Readable {
        socket: u32,
    },
    Send {
        socket: u32,
        from: Vec<Slice>,
        gather: Box<Gather>,
    },
    /// Cancels what is in flight on an endpoint that is to be closed.
    Cancel {
        end: End,
    },
    CloseEnd {
        end: End,
    },
}

/// A socket or a listener, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Socket(u32),
    Listener(u32),
}

pub(super) struct Flight {
    pub(super) token: Token,
    pub(super) deed: Deed,
    /// As given to the ring, to be given again after an interruption.
    pub(super) entry: squeue::Entry,
    pub(super) repeats: u8,
    generation: u32,
}

/// The message header of a send and the ranges it names.
pub(super) struct Gather {
    ranges: [libc::iovec; SEND_SLICES_MAX],
    header: libc::msghdr,
}

impl Gather {
    pub(super) fn new() -> Box<Gather> {
        let range = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let header = libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Box::new(Gather { ranges: [range; SEND_SLICES_MAX], header })
    }

    /// A header naming `from`, valid while both this box and the slices live and this is not filled again.
    pub(super) fn fill(&mut self, from: &[Slice]) -> *const libc::msghdr {
        for (range, slice) in self.ranges.iter_mut().zip(from) {
            *range = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
        }
        self.header.msg_iov = self.ranges.as_mut_ptr();
        self.header.msg_iovlen = from.len() as _;
        &raw const self.header
    }
}

/// All operations in flight.
pub(super) struct Flights {
    table: Table<Flight>,
    generation: u32,
}

impl Flights {
    pub(super) fn new() -> Flights {
        Flights { table: Table::new(), generation: 0 }
    }

    /// Keeps the operation; gives its entry with the user data that finds it again.
    pub(super) fn insert(&mut self, token: Token, deed: Deed, entry: squeue::Entry) -> squeue::Entry {
        self.generation = (self.generation + 1) & 0x7fff_ffff; // never the reserved user data
        let slot = self.table.insert(Flight { token, deed, entry, repeats: 0, generation: self.generation });
        let flight = self.table.get_mut(slot).expect("just inserted");
        flight.entry.set_user_data(u64::from(flight.generation) << 32 | u64::from(slot));
        flight.entry.clone()
    }

    pub(super) fn get_mut(&mut self, user_data: u64) -> &mut Flight {
        let flight = self.table.get_mut(user_data as u32).expect("the kernel completes what was submitted, once");
        assert_eq!(u64::from(flight.generation), user_data >> 32, "a completion belongs to the slot's present operation");
        flight
    }

    pub(super) fn take(&mut self, user_data: u64) -> Flight {
        self.get_mut(user_data);
        self.table.take(user_data as u32).expect("found just now")
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Gives up on operations that never came back: their memory stays allocated for good, since the kernel may still write it.
    pub(super) fn leak(&mut self) {
        self.table.drain().for_each(std::mem::forget);
    }
}
