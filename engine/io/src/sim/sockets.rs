//! What operations on sockets do in a world: they wait in their socket until what arrives, leaves or closes lets them complete.
//!
//! Invariants: of the receives on a socket only the first takes bytes, and so of the sends.

use super::core::{Bound, Connected, Core, Event, Flight, accepted_end, kind};
use super::network::{Arrival, End, Listening};
use crate::driver::{Completion, Detached, IoError, Listener, Memory, Op, SEND_SLICES_MAX, Socket, Token};
use std::collections::VecDeque;
use std::net::SocketAddr;

fn memory(op: Op) -> Memory {
    match op {
        Op::Receive { into, .. } | Op::Read { into, .. } => Memory::Space(into),
        Op::Write { from, .. } => Memory::Slice(from),
        Op::Send { from, .. } => Memory::Slices(from),
        Op::Open { .. }
        | Op::Close { .. }
        | Op::Sync { .. }
        | Op::SyncDirectory { .. }
        | Op::Truncate { .. }
        | Op::Allocate { .. }
        | Op::Rename { .. } => Memory::None,
        Op::Unlink { .. } | Op::MakeDirectory { .. } | Op::RemoveDirectory { .. } => Memory::None,
        Op::Accept { .. } | Op::Readable { .. } | Op::CloseSocket { .. } | Op::CloseListener { .. } | Op::Run { .. } => Memory::None,
    }
}

impl Core {
    fn answer(&mut self, shard: u32, token: Token, op: Op, result: Result<u32, IoError>) {
        let what = kind(&op);
        self.complete(shard, what, Completion { token, result, memory: memory(op), more: false });
    }

    pub(super) fn start_on_network(&mut self, shard: u32, op: Op, token: Token) {
        match &op {
            Op::Accept { listener } => {
                let listener = listener.0;
                match self.shard(shard).listeners.get_mut(listener) {
                    Some(bound) => {
                        assert!(bound.accept.is_none(), "one accept at a time");
                        bound.accept = Some(token);
                        self.accept(shard, listener);
                    }
                    None => self.answer(shard, token, op, Err(IoError::BAD_FILE)),
                }
            }
            Op::CloseListener { listener } => {
                let listener = listener.0;
                self.close_listener(shard, listener, op, token);
            }
            Op::CloseSocket { socket } => {
                let socket = socket.0;
                self.close_socket(shard, socket, op, token);
            }
            Op::Receive { socket, into, at, len, .. } => {
                assert!(*len > 0 && (*at + *len) as usize <= into.room(), "bytes {at}..{at}+{len} lie in the unfrozen part");
                let socket = socket.0;
                self.occupy(shard, socket, op, token);
            }
            Op::Send { socket, from } => {
                assert!(!from.is_empty() && from.len() <= SEND_SLICES_MAX, "a send carries 1 to {SEND_SLICES_MAX} slices");
                let socket = socket.0;
                self.occupy(shard, socket, op, token);
            }
            Op::Readable { socket } => {
                let socket = socket.0;
                self.occupy(shard, socket, op, token);
            }
            _ => unreachable!("operations on files are events"),
        }
    }

    fn occupy(&mut self, shard: u32, socket: u32, op: Op, token: Token) {
        if self.shard(shard).sockets.get(socket).is_none() {
            return self.answer(shard, token, op, Err(IoError::BAD_FILE));
        }
        let flight = self.fly(shard, op, token, 0);
        self.shard(shard).sockets.get_mut(socket).expect("found above").flights.push(flight);
        self.progress(shard, socket);
    }

    /// Completes what can be completed on a socket.
    fn progress(&mut self, shard: u32, socket: u32) {
        let Some(connected) = self.shard(shard).sockets.get(socket) else { return };
        let end = connected.end;
        let (mut receive_waits, mut send_waits) = (false, false);
        for id in connected.flights.clone() {
            let mut flight = self.shard(shard).flights.remove(&id).expect("listed in its socket");
            let is_send = matches!(flight.op, Op::Send { .. });
            let result = match &mut flight.op {
                Op::Send { .. } if send_waits => None,
                Op::Receive { .. } if receive_waits => None,
                Op::Send { from, .. } => self.try_send(end, &from.iter().map(|slice| &**slice).collect::<Vec<_>>()),
                Op::Receive { into, at, len, whole, .. } => {
                    let target = &mut into.unfrozen()[*at as usize..(*at + *len) as usize];
                    self.try_receive(end, target, *whole, &mut flight.mark)
                }
                _ => self.network.side(end).filter(|side| !side.arrived.is_empty() || side.ended || side.reset).map(|_| Ok(0)),
            };
            let shard_state = self.shard(shard);
            match result {
                Some(result) => {
                    let connected = shard_state.sockets.get_mut(socket).expect("closing takes its flights with it");
                    connected.flights.retain(|listed| *listed != id);
                    self.answer(shard, flight.token, flight.op, result);
                }
                None => {
                    send_waits |= is_send;
                    receive_waits |= matches!(flight.op, Op::Receive { .. });
                    shard_state.flights.insert(id, flight);
                }
            }
        }
    }

    /// None: it must wait.
    fn try_receive(&mut self, end: End, target: &mut [u8], whole: bool, filled: &mut u64) -> Option<Result<u32, IoError>> {
        let side = self.network.side(end).expect("a connection stays while an end is open");
        let before = *filled as usize;
        if side.reset && before == 0 {
            let first = !std::mem::replace(&mut side.told, true);
            return Some(if first { Err(IoError::RESET) } else { Ok(0) });
        }
        let over = side.ended || side.reset;
        let there = side.arrived.len().min(target.len() - before);
        if there == 0 && !over {
            return None;
        }
        let count = if whole { there } else { self.perhaps_short(there, 1) };
        let side = self.network.side(end).expect("found above");
        let (front, behind) = side.arrived.as_slices();
        let split = front.len().min(count);
        target[before..before + split].copy_from_slice(&front[..split]);
        target[before + split..before + count].copy_from_slice(&behind[..count - split]);
        side.arrived.drain(..count);
        *filled += count as u64;
        let complete = !whole || *filled as usize == target.len() || (over && side.arrived.is_empty());
        self.tell_owner(end.other());
        complete.then_some(Ok(*filled as u32))
    }

    /// Sends `parts`, one behind the other. None: it must wait for room.
    pub(super) fn try_send(&mut self, end: End, parts: &[&[u8]]) -> Option<Result<u32, IoError>> {
        let side = self.network.side(end).expect("a connection stays while an end is open");
        if side.reset || side.finished {
            let first = side.reset && !std::mem::replace(&mut side.told, true);
            return Some(Err(if first { IoError::RESET } else { IoError(libc::EPIPE) }));
        }
        let len = parts.iter().map(|part| part.len()).sum();
        let room = self.network.room(end).min(len);
        if room == 0 && len > 0 {
            return None;
        }
        let count = self.perhaps_short(room, 1);
        let mut bytes = Vec::with_capacity(count);
        for part in parts {
            bytes.extend_from_slice(&part[..part.len().min(count - bytes.len())]);
        }
        while !bytes.is_empty() {
            let rest = bytes.split_off(self.perhaps_short(bytes.len(), 1));
            self.send_to(end.other(), Arrival::Bytes(std::mem::replace(&mut bytes, rest)));
        }
        Some(Ok(count as u32))
    }

    pub(super) fn send_to(&mut self, end: End, arrival: Arrival) {
        let time = self.now + self.delay(5_000, 100_000);
        let time = self.network.send_to(end, &arrival, time);
        self.at(time, Event::Arrive { end, arrival });
    }

    pub(super) fn arrive(&mut self, end: End, arrival: Arrival) {
        let (what, len) = match &arrival {
            Arrival::Bytes(bytes) => ("arrival", bytes.len()),
            Arrival::Finish => ("finish", 0),
            Arrival::Reset => ("reset", 0),
        };
        self.note(0, what, end.connection, len as u64, end.side as i64);
        if !self.network.arrive(end, arrival) {
            self.send_to(end.other(), Arrival::Reset);
        }
        self.tell_owner(end);
    }

    /// Something changed for this end: its shard's operations, or a client outside, may go on.
    pub(super) fn tell_owner(&mut self, end: End) {
        match self.owners.get(&end).copied() {
            Some((shard, socket)) => self.progress(shard, socket),
            None => self.outside += 1,
        }
    }

    /// The owner of this end lets go of it.
    pub(super) fn close_end(&mut self, end: End, abruptly: bool) {
        let unread = self.network.close(end);
        self.send_to(end.other(), if unread || abruptly { Arrival::Reset } else { Arrival::Finish });
    }

    fn close_socket(&mut self, shard: u32, socket: u32, op: Op, token: Token) {
        let Some(connected) = self.shard(shard).sockets.take(socket) else {
            return self.answer(shard, token, op, Err(IoError::BAD_FILE));
        };
        self.owners.remove(&connected.end);
        for id in connected.flights {
            let Flight { token, op, .. } = self.shard(shard).flights.remove(&id).expect("listed in its socket");
            self.answer(shard, token, op, Err(IoError::CANCELLED));
        }
        self.close_end(connected.end, false);
        self.answer(shard, token, op, Ok(0));
    }

    fn close_listener(&mut self, shard: u32, listener: u32, op: Op, token: Token) {
        let Some(bound) = self.shard(shard).listeners.take(listener) else {
            return self.answer(shard, token, op, Err(IoError::BAD_FILE));
        };
        self.network.listeners.retain(|listening| (listening.shard, listening.listener) != (shard, listener));
        if let Some(accept) = bound.accept {
            self.answer(shard, accept, Op::Accept { listener: Listener(listener) }, Err(IoError::CANCELLED));
        }
        for connection in bound.backlog {
            self.close_end(accepted_end(connection), true);
        }
        self.answer(shard, token, op, Ok(0));
    }

    pub(super) fn listen(&mut self, shard: u32, address: SocketAddr, shared: bool) -> Result<(u32, SocketAddr), IoError> {
        let ours = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_private(),
            std::net::IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local(),
        };
        if !ours {
            return Err(IoError(libc::EADDRNOTAVAIL));
        }
        let mut address = address;
        if address.port() == 0 {
            while address.port() == 0 || self.network.is_in_use(address, false) {
                address.set_port(self.network.port());
            }
        } else if self.network.is_in_use(address, shared) {
            return Err(IoError(libc::EADDRINUSE));
        }
        let listener = self.shard(shard).listeners.insert(Bound { address, backlog: VecDeque::new(), accept: None });
        self.network.listeners.push(Listening { shard, listener, address, shared });
        Ok((listener, address))
    }

    /// A connection has come to where it was to go.
    pub(super) fn connected(&mut self, connection: u64, to: SocketAddr) {
        let listening = self.network.listening(to);
        if listening.is_empty() {
            return self.close_end(accepted_end(connection), true);
        }
        let (shard, listener) = listening[self.prng.below(listening.len() as u64) as usize];
        let bound = self.shard(shard).listeners.get_mut(listener).expect("the network forgets a listener with its shard");
        debug_assert_eq!(bound.address.port(), to.port());
        bound.backlog.push_back(connection);
        self.accept(shard, listener);
    }

    fn accept(&mut self, shard: u32, listener: u32) {
        loop {
            let bound = self.shard(shard).listeners.get_mut(listener).expect("accepting on what is there");
            let Some(token) = bound.accept else { return };
            let Some(connection) = bound.backlog.pop_front() else { return };
            let more = !self.odd(self.rates.accept_ends_one_in);
            if !more {
                self.shard(shard).listeners.get_mut(listener).expect("found above").accept = None;
            }
            let socket = self.adopt(shard, accepted_end(connection));
            let completion = Completion { token, result: Ok(socket), memory: Memory::None, more };
            self.complete(shard, "accept", completion);
        }
    }

    fn adopt(&mut self, shard: u32, end: End) -> u32 {
        let socket = self.shard(shard).sockets.insert(Connected { end, flights: Vec::new() });
        self.owners.insert(end, (shard, socket));
        socket
    }

    pub(super) fn peer(&self, shard: u32, socket: u32) -> Option<SocketAddr> {
        self.network.peer(self.shards.get(&shard)?.sockets.get(socket)?.end)
    }

    pub(super) fn detach(&mut self, shard: u32, socket: u32) -> Detached {
        let connected = self.shard(shard).sockets.take(socket).expect("only an open connection is detached");
        assert!(connected.flights.is_empty(), "a connection leaves with nothing in flight");
        self.owners.remove(&connected.end);
        Detached(connected.end.connection << 1 | connected.end.side as u64)
    }

    pub(super) fn attach(&mut self, shard: u32, connection: Detached) -> Socket {
        Socket(self.adopt(shard, End { connection: connection.0 >> 1, side: (connection.0 & 1) as usize }))
    }
}
