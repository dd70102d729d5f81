//! The network of a world: listeners, connections, bytes on their way.
//!
//! 1. What an end sends is taken up to the room that the other has, cut into seeded pieces, and each arrives after a seeded delay, in order.
//! 2. An end that finishes sends that behind its bytes; a reset overtakes nothing that has arrived, and ends both ways.
//! 3. Side 0 of a connection accepted, side 1 connected; either may belong to a driver or to a client outside.
//!
//! Invariants: arrived + on their way <= room of the receiver; nothing arrives before what was sent before it.
//! Knows nothing of shards or operations.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Bytes that one direction holds before its sender must wait.
pub(super) const ROOM: usize = 256 << 10;

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct End {
    pub(super) connection: u64,
    /// 0 accepted, 1 connected.
    pub(super) side: usize,
}

impl End {
    pub(super) fn other(self) -> End {
        End { side: 1 - self.side, ..self }
    }
}

/// What arrives at an end.
pub(super) enum Arrival {
    Bytes(Vec<u8>),
    Finish,
    Reset,
}

#[derive(Default)]
pub(super) struct Side {
    pub(super) arrived: VecDeque<u8>,
    /// Bytes sent to this side that have not arrived.
    coming: usize,
    /// When the last thing sent to this side arrives.
    last_arrival: u64,
    /// The peer sends no more.
    pub(super) ended: bool,
    /// This side sends no more.
    pub(super) finished: bool,
    pub(super) reset: bool,
    /// Whoever owned this side has closed it.
    closed: bool,
    /// The reset was told once; then sending gives EPIPE and receiving the end.
    pub(super) told: bool,
}

impl Side {
    /// Nothing sent to this side arrives before `time`.
    pub(super) fn comes_after(&mut self, time: u64) {
        self.last_arrival = self.last_arrival.max(time);
    }
}

pub(super) struct Connection {
    pub(super) sides: [Side; 2],
    pub(super) addresses: [SocketAddr; 2],
}

/// A listener somewhere.
pub(super) struct Listening {
    pub(super) shard: u32,
    pub(super) listener: u32,
    pub(super) address: SocketAddr,
    pub(super) shared: bool,
}

#[derive(Default)]
pub(super) struct Network {
    connections: BTreeMap<u64, Connection>,
    last: u64,
    pub(super) listeners: Vec<Listening>,
    last_port: u16,
}

const FIRST_PORT: u16 = 20_000;

impl Network {
    /// A port that no one has had lately.
    pub(super) fn port(&mut self) -> u16 {
        self.last_port = if self.last_port < FIRST_PORT || self.last_port == u16::MAX { FIRST_PORT } else { self.last_port + 1 };
        self.last_port
    }

    pub(super) fn connect(&mut self, from: SocketAddr, to: SocketAddr) -> u64 {
        self.last += 1;
        let sides = [Side::default(), Side::default()];
        self.connections.insert(self.last, Connection { sides, addresses: [to, from] });
        self.last
    }

    pub(super) fn side(&mut self, end: End) -> Option<&mut Side> {
        Some(&mut self.connections.get_mut(&end.connection)?.sides[end.side])
    }

    /// The address of the other end, while the connection is whole.
    pub(super) fn peer(&self, end: End) -> Option<SocketAddr> {
        let connection = self.connections.get(&end.connection)?;
        (!connection.sides[end.side].reset).then(|| connection.addresses[1 - end.side])
    }

    /// Bytes that `end` may send now.
    pub(super) fn room(&self, end: End) -> usize {
        let Some(connection) = self.connections.get(&end.connection) else { return 0 };
        let to = &connection.sides[end.other().side];
        ROOM.saturating_sub(to.arrived.len() + to.coming)
    }

    /// Puts `arrival` on its way to `end`; gives when it arrives: not before what was sent earlier.
    pub(super) fn send_to(&mut self, end: End, arrival: &Arrival, time: u64) -> u64 {
        let Some(side) = self.side(end) else { return time };
        if let Arrival::Bytes(bytes) = arrival {
            side.coming += bytes.len();
        }
        side.last_arrival = side.last_arrival.max(time) + 1;
        side.last_arrival
    }

    /// False: there was no one any more to whom bytes came, so that the sender is to be told.
    pub(super) fn arrive(&mut self, end: End, arrival: Arrival) -> bool {
        let Some(side) = self.side(end) else { return true };
        match arrival {
            Arrival::Bytes(bytes) => {
                side.coming -= bytes.len();
                if side.closed {
                    return false;
                }
                if !side.reset {
                    side.arrived.extend(bytes);
                }
            }
            Arrival::Finish => side.ended = true,
            Arrival::Reset => {
                side.reset = true;
                side.arrived.clear();
            }
        }
        true
    }

    /// `end` is closed by its owner. True: bytes were left unread, so that the peer is reset rather than told the end.
    pub(super) fn close(&mut self, end: End) -> bool {
        let Some(side) = self.side(end) else { return false };
        let unread = !side.arrived.is_empty();
        side.closed = true;
        side.arrived.clear();
        if self.connections.get(&end.connection).is_some_and(|connection| connection.sides.iter().all(|side| side.closed)) {
            self.connections.remove(&end.connection);
        }
        unread
    }

    /// The listeners that take a connection to `address`.
    pub(super) fn listening(&self, address: SocketAddr) -> Vec<(u32, u32)> {
        let takes = |listening: &&Listening| {
            listening.address.port() == address.port()
                && (listening.address.ip().is_unspecified() || listening.address.ip() == address.ip())
        };
        self.listeners.iter().filter(takes).map(|listening| (listening.shard, listening.listener)).collect()
    }

    /// Whether binding `address` collides with a listener that is there.
    pub(super) fn is_in_use(&self, address: SocketAddr, shared: bool) -> bool {
        self.listeners.iter().any(|there| {
            let same_host = there.address.ip() == address.ip() || there.address.ip().is_unspecified() || address.ip().is_unspecified();
            there.address.port() == address.port() && same_host && !(shared && there.shared)
        })
    }
}
