//! TCP sockets of the system: binding, addresses, ending.
//!
//! What is set on a listener, its connections inherit (TCP_NODELAY), so that accepting costs no further call.
//! Knows nothing of rings.

use crate::driver::{Detached, IoError};
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 1024;

/// The system's last error on this thread.
pub(crate) fn last_error() -> IoError {
    IoError::from(std::io::Error::last_os_error())
}

/// What the kernel keeps of answers that a client has not taken (it allows for twice as much). By itself it would grow to several MiB for each
/// client that takes little, and a shard would spend its time on filling them. A bound on what is beyond the client's window alone
/// (TCP_NOTSENT_LOWAT) is no bound: the window is the client's to choose.
const SEND_BUFFER_BYTES: libc::c_int = 256 << 10;

/// Binds and listens; `shared` lets other sockets bind the same address. Whether `[::]` takes IPv4 too is the system's default, as in std.
pub(crate) fn listen(address: SocketAddr, shared: bool) -> Result<(OwnedFd, SocketAddr), IoError> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: takes no memory.
    let raw = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(last_error());
    }
    // SAFETY: just made, and owned by no one else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if shared {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    // Connections take it over from their listener.
    set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER_BYTES)?;
    bind(&socket, address)?;
    // SAFETY: takes no memory; `socket` is open.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } < 0 {
        return Err(last_error());
    }
    let bound = local(&socket).ok_or(IoError(libc::EINVAL))?;
    Ok((socket, bound))
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<(), IoError> {
    let len = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is ours, of the length given, and outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> Result<(), IoError> {
    let fd = socket.as_raw_fd();
    let result = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: `raw` is ours, of the length given, and outlives the call.
            unsafe { libc::bind(fd, (&raw const raw).cast(), mem::size_of_val(&raw) as libc::socklen_t) }
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: `raw` is ours, of the length given, and outlives the call.
            unsafe { libc::bind(fd, (&raw const raw).cast(), mem::size_of_val(&raw) as libc::socklen_t) }
        }
    };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

type Name = unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn local(socket: &OwnedFd) -> Option<SocketAddr> {
    name(socket.as_raw_fd(), libc::getsockname)
}

/// The other end, while there is one.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    name(socket.as_raw_fd(), libc::getpeername)
}

fn name(fd: libc::c_int, ask: Name) -> Option<SocketAddr> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` and `len` are ours, `len` is the size of `storage`, and both outlive the call.
    if unsafe { ask(fd, storage.as_mut_ptr().cast(), &raw mut len) } < 0 {
        return None;
    }
    // SAFETY: all-zero bytes are a valid sockaddr_storage, and the system wrote at most its size.
    let storage = unsafe { storage.assume_init() };
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the bytes, of which storage has enough and aligned, are a sockaddr_in.
            let raw = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the bytes, of which storage has enough and aligned, are a sockaddr_in6.
            let raw = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), raw.sin6_flowinfo, raw.sin6_scope_id)))
        }
        _ => None,
    }
}

/// The connection's descriptor leaves its driver; whoever attaches it owns it.
pub(crate) fn detached(fd: OwnedFd) -> Detached {
    Detached(fd.into_raw_fd() as u64)
}

pub(crate) fn attached(connection: Detached) -> OwnedFd {
    // SAFETY: `detached` gave the descriptor's ownership to this value, which is used up here.
    unsafe { OwnedFd::from_raw_fd(connection.0 as RawFd) }
}

/// Ends both directions, so that whatever waits on the socket comes back.
pub(crate) fn shutdown(socket: BorrowedFd<'_>) {
    // SAFETY: takes no memory; a failure means that the connection has ended already.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_accepted_connection_sends_without_delay() {
        let (listener, bound) = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let listener = TcpListener::from(listener);
        let client = TcpStream::connect(bound).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert_eq!(from, client.local_addr().unwrap());
    }

    #[test]
    fn ipv6_addresses_go_both_ways_where_the_host_has_them() {
        match listen("[::1]:0".parse().unwrap(), false) {
            Ok((_, bound)) => assert!(bound.is_ipv6() && bound.port() != 0),
            Err(e) => assert!(matches!(e.0, libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT), "{e}"),
        }
    }
}
