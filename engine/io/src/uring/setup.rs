//! Making a ring, and saying what is missing and what to do about it where that fails.
//!
//! Knows nothing of operations.

use crate::driver::IoError;
use crate::process;
use io_uring::{IoUring, Probe, opcode};
use std::fmt;

/// Sizes of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Operations queued between two polls before the driver hands them over by itself. A power of two.
    pub submissions: u32,
    /// Completions that the ring holds before the kernel keeps them aside (which is slower, and loses none). A power of two.
    pub completions: u32,
}

/// Enough to try one operation.
const SMALLEST: Config = Config { submissions: 1, completions: 2 };

impl Default for Config {
    fn default() -> Config {
        Config { submissions: 512, completions: 4096 }
    }
}

/// Why there is no ring, with the remedy in its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetupError {
    /// The kernel has no io_uring, or hides it.
    Absent,
    /// `kernel.io_uring_disabled` forbids it.
    Disabled {
        setting: u32,
    },
    /// Refused although the setting allows it: a seccomp filter.
    Refused,
    /// The kernel is older than 6.1 or lacks something that came by then.
    Missing {
        what: &'static str,
    },
    /// The memory or descriptors for the ring were refused.
    NoMemory,
    NoDescriptors,
    /// Anything else that the system said.
    System {
        doing: &'static str,
        error: IoError,
    },
}

impl SetupError {
    /// Whether this host, as it is set up, gives no ring to anyone like us, so that the portable driver is what runs here. Otherwise something
    /// is short that any driver needs.
    pub fn is_refusal(&self) -> bool {
        match self {
            SetupError::Absent | SetupError::Disabled { .. } | SetupError::Refused | SetupError::Missing { .. } => true,
            SetupError::NoMemory | SetupError::NoDescriptors | SetupError::System { .. } => false,
        }
    }
}

/// Whether the calling thread would get a ring here: one is made as a shard's is, used once, and taken apart.
///
/// # Errors
/// What is missing or forbidden, with the remedy in its text.
pub fn check() -> Result<(), SetupError> {
    ring(SMALLEST).map(|_| ())
}

/// What this host's ring offers of what the driver uses, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probed {
    /// Needed and not there, operations and features: with any of these [`check`] fails.
    pub missing: Vec<&'static str>,
    /// Used where it is there, and not there: the driver does without, at a cost.
    pub absent: Vec<&'static str>,
}

/// Asks the kernel for all that the driver uses of a ring. For people who are to know what their host lacks; whether it serves says [`check`].
///
/// # Errors
/// No ring can be made or entered, so that nothing can be asked.
pub fn probe() -> Result<Probed, SetupError> {
    let Offer { missing, abilities } = offer(&mut build(SMALLEST)?)?;
    let wanted = [
        (abilities.truncate, "cutting files in the ring (Linux 6.9)"),
        (abilities.no_iowait, "waiting that is not counted as waiting for a disk (Linux 6.15)"),
    ];
    Ok(Probed { missing, absent: wanted.into_iter().filter(|(has, _)| !has).map(|(_, what)| what).collect() })
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Absent => {
                write!(
                    f,
                    "this kernel offers no io_uring: use Linux 6.1 or later; in a container, allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile"
                )
            }
            SetupError::Disabled { setting } => {
                write!(
                    f,
                    "io_uring is switched off (kernel.io_uring_disabled={setting}): set it to 0 with `sysctl kernel.io_uring_disabled=0`"
                )?;
                if *setting == 1 {
                    write!(f, ", or add the user's group to kernel.io_uring_group")?;
                }
                Ok(())
            }
            SetupError::Refused => {
                write!(
                    f,
                    "io_uring is refused to this process, most likely by the container's seccomp profile: allow io_uring_setup, io_uring_enter and io_uring_register in it"
                )
            }
            SetupError::Missing { what } => write!(f, "this kernel's io_uring lacks {what}: use Linux 6.1 or later"),
            SetupError::NoMemory => {
                write!(
                    f,
                    "no memory may be locked for the ring: raise `ulimit -l` (LimitMEMLOCK= in a systemd unit), or make the rings smaller"
                )
            }
            SetupError::NoDescriptors => {
                write!(f, "no file descriptor is left for the ring: raise `ulimit -n` (LimitNOFILE= in a systemd unit)")
            }
            SetupError::System { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for SetupError {}

/// Operations the driver cannot do without.
const NEEDED: &[(u8, &str)] = &[
    (opcode::OpenAt::CODE, "the open operation"),
    (opcode::Close::CODE, "the close operation"),
    (opcode::Read::CODE, "the read operation"),
    (opcode::Write::CODE, "the write operation"),
    (opcode::Fsync::CODE, "the fsync operation"),
    (opcode::Fallocate::CODE, "the fallocate operation"),
    (opcode::RenameAt::CODE, "the rename operation"),
    (opcode::UnlinkAt::CODE, "the unlink operation"),
    (opcode::MkDirAt::CODE, "the mkdir operation"),
    (opcode::Accept::CODE, "the accept operation"),
    (opcode::Recv::CODE, "the receive operation"),
    (opcode::SendMsg::CODE, "the sendmsg operation"),
    (opcode::PollAdd::CODE, "the poll operation"),
    (opcode::AsyncCancel::CODE, "the cancel operation"),
];

/// What a ring can do beyond what is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Abilities {
    /// Cutting files in the ring (6.9).
    pub(super) truncate: bool,
    /// Waiting that does not look like waiting for a disk in the host's statistics (6.15).
    pub(super) no_iowait: bool,
}

/// What the kernel says of a ring.
struct Offer {
    /// What the driver needs and it lacks.
    missing: Vec<&'static str>,
    abilities: Abilities,
}

fn build(config: Config) -> Result<IoUring, SetupError> {
    assert!(config.submissions.is_power_of_two() && config.completions.is_power_of_two() && config.completions > config.submissions);
    IoUring::builder()
        .dontfork()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(config.completions)
        .build(config.submissions)
        .map_err(|error| named(IoError::from(error), setting()))
}

fn offer(ring: &mut IoUring) -> Result<Offer, SetupError> {
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    probed.map_err(|error| refused_or(IoError::from(error), "asking the ring for its operations"))?;
    enter(ring)?;
    let params = ring.params();
    let features = [
        (params.is_feature_nodrop(), "completions that are never dropped"),
        (params.is_feature_ext_arg(), "waiting with a deadline"),
        (params.is_feature_fast_poll(), "sockets that wait without a thread"),
        (params.is_feature_submit_stable(), "stable submissions"),
        (params.is_feature_linked_file(), "late file assignment"),
    ];
    let operations = NEEDED.iter().map(|(code, what)| (probe.is_supported(*code), *what));
    let missing = features.into_iter().chain(operations).filter(|(has, _)| !has).map(|(_, what)| what).collect();
    let abilities = Abilities { truncate: probe.is_supported(opcode::Ftruncate::CODE), no_iowait: params.is_feature_no_iowait() };
    Ok(Offer { missing, abilities })
}

pub(super) fn ring(config: Config) -> Result<(IoUring, Abilities), SetupError> {
    let mut ring = build(config)?;
    let Offer { missing, abilities } = offer(&mut ring)?;
    if let Some(what) = missing.first() {
        return Err(SetupError::Missing { what });
    }
    spread_workers(&ring);
    Ok((ring, abilities))
}

/// Does nothing, through the ring: a filter that lets a ring be made may still refuse its use.
fn enter(ring: &mut IoUring) -> Result<(), SetupError> {
    const DOING: &str = "entering the ring";
    let nothing = opcode::Nop::new().build();
    // SAFETY: the entry names no memory.
    let pushed = unsafe { ring.submission().push(&nothing) };
    pushed.expect("a new ring has room");
    loop {
        match ring.submit_and_wait(1).map_err(IoError::from) {
            Ok(_) => break,
            Err(IoError(libc::EINTR)) => {}
            Err(error) => return Err(refused_or(error, DOING)),
        }
    }
    match ring.completion().next() {
        Some(_) => Ok(()),
        None => Err(SetupError::System { doing: DOING, error: IoError(libc::EIO) }),
    }
}

fn refused_or(error: IoError, doing: &'static str) -> SetupError {
    match error.0 {
        libc::EPERM | libc::EACCES | libc::ENOSYS => named(error, setting()),
        _ => SetupError::System { doing, error },
    }
}

/// Lets the kernel's workers (they do the syncs) run on every core of the process, not only where the ring's thread is pinned: there they
/// would wait for a shard that spins. Without that, syncs are slower, not wrong.
fn spread_workers(ring: &IoUring) {
    if let Some(cores) = process::process_cores() {
        drop(ring.submitter().register_iowq_aff(&cores));
    }
}

fn setting() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn named(error: IoError, setting: Option<u32>) -> SetupError {
    match (error.0, setting) {
        (libc::EPERM, Some(setting @ 1..)) => SetupError::Disabled { setting },
        (libc::EPERM | libc::EACCES, _) => SetupError::Refused,
        (libc::ENOSYS, _) => SetupError::Absent,
        (libc::EINVAL, _) => SetupError::Missing { what: "one of single issuer, deferred task work, cooperative task work" },
        (libc::ENOMEM, _) => SetupError::NoMemory,
        (libc::EMFILE | libc::ENFILE, _) => SetupError::NoDescriptors,
        _ => SetupError::System { doing: "setting up io_uring", error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_ring_says_what_to_do() {
        let check = |error: i32, setting: Option<u32>, expected: &str| {
            let text = named(IoError(error), setting).to_string();
            assert!(text.contains(expected), "{text}");
        };
        check(libc::EPERM, Some(2), "sysctl kernel.io_uring_disabled=0");
        check(libc::EPERM, Some(1), "kernel.io_uring_group");
        check(libc::EPERM, Some(0), "seccomp");
        check(libc::EPERM, None, "seccomp");
        check(libc::ENOSYS, None, "Linux 6.1");
        check(libc::EINVAL, Some(0), "Linux 6.1");
        check(libc::ENOMEM, Some(0), "ulimit -l");
        check(libc::EMFILE, Some(0), "ulimit -n");
        check(libc::EIO, Some(0), "setting up io_uring");
    }
}
