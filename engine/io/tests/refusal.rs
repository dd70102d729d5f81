//! A host that refuses io_uring, by a seccomp filter on one thread of this process: what is said, and what still works.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_base::clock::Nanos;
use millrace_io::uring::{Config, SetupError, UringDriver, check, probe};
use millrace_io::{Driver, File, Op, OpenHow, Pool, PortableDriver, Wait};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use std::collections::BTreeMap;

/// `io_uring_setup`, `io_uring_enter`, `io_uring_register`.
const RING_CALLS: [i64; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// What `body` gives on a thread whose `calls` fail with `error`.
fn refused<T: Send + 'static>(calls: &[i64], error: i32, body: impl FnOnce() -> T + Send + 'static) -> T {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let refuse = SeccompAction::Errno(u32::try_from(error).unwrap());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into().unwrap()).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    let under_filter = move || {
        apply_filter(&program).unwrap();
        body()
    };
    std::thread::spawn(under_filter).join().unwrap()
}

#[test]
fn a_filter_on_any_call_of_the_ring_is_a_refusal_that_names_the_remedy() {
    assert_eq!(check(), Ok(()), "without a filter there is a ring here");
    assert_eq!(probe().unwrap().missing, Vec::<&str>::new(), "and it lacks nothing");
    for call in RING_CALLS {
        let found = refused(&[call], libc::EPERM, check).unwrap_err();
        assert!(found.is_refusal(), "{call}: {found}");
        assert!(found.to_string().contains("io_uring_enter"), "{call}: {found}");
        assert_eq!(refused(&[call], libc::EPERM, probe), Err(found.clone()), "{call}");
        let made = refused(&[call], libc::EPERM, || UringDriver::new(Config::default()).err());
        assert_eq!(made, Some(found), "{call}: what a check foretells is what a driver finds");
    }
    assert_eq!(refused(&RING_CALLS, libc::ENOSYS, check), Err(SetupError::Absent));
}

#[test]
fn the_portable_driver_does_without_what_a_ring_needs() {
    let path = std::env::temp_dir().join(format!("millrace-refusal-{}", std::process::id()));
    let name = path.clone();
    refused(&RING_CALLS, libc::EPERM, move || {
        let mut driver = PortableDriver::new().unwrap();
        let mut run = |op: Op| {
            driver.submit(op, 1);
            let mut completions = Vec::new();
            while completions.is_empty() {
                driver.poll(Wait::Until(Nanos::NEVER), &mut completions);
            }
            completions.remove(0).result
        };
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let file = File(run(Op::Open { path: name, how }).unwrap());
        let from = Pool::new(1 << 20).take(4096).push(b"kept");
        assert_eq!(run(Op::Write { file, place: 0, from, synced: true }), Ok(4));
        assert_eq!(run(Op::Close { file }), Ok(0));
    });
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    std::fs::remove_file(&path).unwrap();
}
