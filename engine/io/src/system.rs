//! The system's clocks and entropy. Only drivers and programs ask here; everyone else is told.
//!
//! Knows nothing of rings or files.

use millrace_base::clock::{Nanos, WallMs};

fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours and outlives the call.
    let result = unsafe { libc::clock_gettime(id, &raw mut time) };
    assert_eq!(result, 0, "the two clocks asked for exist on every Linux");
    time
}

/// The clock that only grows (`CLOCK_MONOTONIC`).
pub fn now() -> Nanos {
    let time = clock(libc::CLOCK_MONOTONIC);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The clock that people set (`CLOCK_REALTIME`).
pub fn wall() -> WallMs {
    let time = clock(libc::CLOCK_REALTIME);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// 64 fresh random bits.
pub fn entropy() -> u64 {
    let mut bytes = [0u8; 8];
    loop {
        // SAFETY: `bytes` is ours, of the length given, and outlives the call.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if got == bytes.len() as isize {
            return u64::from_ne_bytes(bytes);
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EINTR), "up to 256 bytes of entropy come whole unless a signal interrupts");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_growing_clock_grows_and_entropy_differs() {
        let before = now();
        assert!(now() >= before);
        assert!(wall() > 1_600_000_000_000);
        assert_ne!(entropy(), entropy());
    }
}
