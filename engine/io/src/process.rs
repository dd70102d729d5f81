//! What a program asks of the system for its process: signals, cores, memory, descriptors.
//!
//! Knows nothing of rings or files.

use crate::driver::IoError;
use crate::socket::last_error;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Signals that ask for a clean stop.
const STOP_SIGNALS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

fn stop_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is ours and outlives the call, which initializes it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in STOP_SIGNALS {
        // SAFETY: `set` is ours and was initialized above; the signals exist.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: initialized above.
    unsafe { set.assume_init() }
}

/// Keeps stop signals for [`wait_for_stop`]. Call before any thread is made: threads inherit it.
pub fn hold_stop_signals() {
    let set = stop_set();
    // SAFETY: `set` is ours and outlives the call; no old mask is asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    assert_eq!(result, 0, "the arguments are right");
}

/// Waits for a signal that asks for a clean stop.
pub fn wait_for_stop() {
    let set = stop_set();
    let mut signal = 0;
    // SAFETY: both are ours and outlive the call.
    let result = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    assert_eq!(result, 0, "the set holds valid signals");
}

/// Cores that this process may run on, by number.
pub fn cores() -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: `set` is ours, of the size given, and outlives the call.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
    // SAFETY: all zeros is a valid set, and the call only writes valid ones.
    let set = unsafe { set.assume_init() };
    let is_in = |core: &usize| {
        // SAFETY: the core's number is below CPU_SETSIZE.
        unsafe { libc::CPU_ISSET(*core, &set) }
    };
    let cores: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(is_in).collect();
    if result == 0 && !cores.is_empty() { cores } else { vec![0] }
}

/// Binds the calling thread to a core of [`cores`]. False: the system refused.
pub fn pin(core: usize) -> bool {
    if core >= libc::CPU_SETSIZE as usize {
        return false;
    }
    // SAFETY: all zeros is the empty set.
    let mut set = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
    // SAFETY: the core's number is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is ours, of the size given, and outlives the call.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    result == 0
}

/// Cores that the process's first thread may run on, as the system's set; None where it does not say.
pub(crate) fn process_cores() -> Option<libc::cpu_set_t> {
    // SAFETY: all-zero bytes are the empty set.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: takes no memory.
    let process = unsafe { libc::getpid() };
    // SAFETY: `cores` is ours, of the length given, and outlives the call.
    let asked = unsafe { libc::sched_getaffinity(process, std::mem::size_of_val(&cores), &raw mut cores) };
    (asked == 0).then_some(cores)
}

/// Lets the calling thread, which a pinned one may have made, run on every core of the process, behind the others by `niceness`. Where the
/// system refuses, it runs as it did.
pub(crate) fn be_background(niceness: i32) {
    be_on_all_cores();
    // SAFETY: takes no memory; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
}

/// Lets the calling thread, which a pinned one may have made, run on every core of the process. Where the system refuses, it runs as it did.
pub(crate) fn be_on_all_cores() {
    if let Some(cores) = process_cores() {
        // SAFETY: `cores` is ours, of the length given, and outlives the call; 0 is the calling thread.
        unsafe { libc::sched_setaffinity(0, std::mem::size_of_val(&cores), &raw const cores) };
    }
}

/// The lowest real-time priority: above all ordinary threads.
const PROMPT_PRIORITY: libc::c_int = 1;

/// Gives `thread` of this process (0: the calling one) the core as soon as it is woken. One that has ended meanwhile is no error.
///
/// # Errors
/// EPERM: neither root, nor `CAP_SYS_NICE`, nor `RLIMIT_RTPRIO` of 1.
pub(crate) fn be_prompt(thread: libc::pid_t) -> Result<(), IoError> {
    // SAFETY: all zeros are a value of this plain struct.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = PROMPT_PRIORITY;
    // SAFETY: the call reads the struct and keeps nothing.
    let result = unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameters) };
    match result {
        0 => Ok(()),
        _ => match last_error() {
            IoError(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// What is told once when [`be_prompt`] is refused.
pub(crate) fn tell_not_prompt(error: IoError) {
    log::info!(
        "threads that sync files keep their ordinary priority ({error}): syncs may wait for a busy core; CAP_SYS_NICE or RLIMIT_RTPRIO=1 mends it"
    );
}

/// Descriptors that this process may have open, raised to as many as its hard limit allows: logins and containers often start with 1,024.
pub fn raise_files_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours and outlives the call, which fills it.
    let found = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(found, 0, "the arguments are right");
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is ours and outlives the call.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if raised == 0 { limit.rlim_cur } else { before }
}

/// Bytes of memory that this process may have: the machine's, or less where a control group, a container's say, is held to less.
pub fn memory_bytes() -> u64 {
    // SAFETY: no memory is passed.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    // SAFETY: no memory is passed.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let machine = u64::try_from(pages).unwrap_or(0) * u64::try_from(page).unwrap_or(0);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = |path: PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok(); // "max" is none
    memory_limit_files(&groups).into_iter().filter_map(limit).fold(machine, u64::min)
}

/// Where limits of the memory of these control groups may stand (`/proc/self/cgroup`, cgroups(7)), of versions 1 and 2: in each group's folder and
/// those above it. In a container its own is the topmost, whatever the path says.
fn memory_limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, name) = match controllers {
            "" => (Path::new("/sys/fs/cgroup"), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        files.extend(Path::new(path.trim_start_matches('/')).ancestors().map(|folder| root.join(folder).join(name)));
    }
    files
}

/// What the process has used and uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Processor time of all threads since the start.
    pub cpu: Duration,
    /// Memory that it occupies.
    pub resident_bytes: u64,
    /// Descriptors that are open.
    pub open_files: u64,
}

/// What this process uses now; 0 where the system does not say.
pub fn usage() -> Usage {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours and outlives the call, which fills it.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    let cpu = if told == 0 { Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos) } else { Duration::ZERO };
    // SAFETY: no memory is passed.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    // One of them is the listing's own.
    let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1)) as u64;
    Usage { cpu, resident_bytes: pages * page, open_files }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_uses_is_told() {
        let usage = usage();
        assert!(usage.resident_bytes > 1 << 20 && usage.open_files >= 3 && usage.cpu > Duration::ZERO, "{usage:?}");
    }

    #[test]
    fn the_limit_of_descriptors_is_raised_once_and_stays() {
        let limit = raise_files_limit();
        assert!(limit >= 64);
        assert_eq!(raise_files_limit(), limit);
    }

    #[test]
    fn a_thread_can_be_pinned_to_a_core_that_the_process_has() {
        let all = cores();
        let core = *all.last().unwrap();
        std::thread::spawn(move || {
            assert!(pin(core));
            assert_eq!(cores(), [core]);
        })
        .join()
        .unwrap();
        assert_eq!(cores(), all);
        assert!(memory_bytes() > 1 << 20);
    }

    #[test]
    fn limits_of_memory_are_looked_for_in_all_groups_above() {
        let files = |groups: &str| memory_limit_files(groups).iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        let v2 = ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(files("0::/a/b\n"), v2);
        assert_eq!(files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        let v1 = ["/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(files("9:name=systemd:/x\n8:hugetlb,memory:/docker\n7:cpu:/y\n"), v1);
        assert_eq!(files("damaged\n:\n"), [""; 0]);
    }
}
