//! What a process has used, as /proc tells it.
//!
//! utime + stime of /proc/PID/stat cover all threads, ended ones included, and the kernel's workers for the process's own ring. Their
//! unit is 1/100 s on every Linux that this runs on. Work that the kernel does for others (writeback, the other end's half of a
//! loopback packet) is in no process's figure, or in the wrong one: compare within one run, on one machine.

use crate::failure::{Failure, Outcome};

const TICKS_PER_SECOND: f64 = 100.0;

/// Counted from behind the command's name, which may hold spaces and parentheses.
const UTIME_FIELD: usize = 11;

/// CPU seconds, user and system, that process `pid` (None: this one) has used since it began.
pub fn seconds(pid: Option<u32>) -> Outcome<f64> {
    let path = match pid {
        Some(pid) => format!("/proc/{pid}/stat"),
        None => "/proc/self/stat".to_owned(),
    };
    let text = std::fs::read_to_string(&path).map_err(Failure::system(format!("reading {path}")))?;
    ticks(&text).map(|ticks| ticks as f64 / TICKS_PER_SECOND).ok_or_else(|| Failure::wrong("reading a process's CPU time", text))
}

fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(UTIME_FIELD);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// Lets this process's timers fire when they are due rather than up to 50 us later. Threads made from now on inherit it.
pub fn sharpen_timers() {
    // Where the file is not there, the schedule is 50 us coarser, which the latency then shows: it counts from the time that was due.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 100 0 0 0 123 45 0 0 20 0 1 0 99 1000 10 18446744073709551615";
        assert_eq!(ticks(stat), Some(168));
        assert_eq!(ticks("7 (cut"), None);
        assert_eq!(ticks("7 (cut) R 1"), None);
    }

    #[test]
    fn work_shows_up_and_a_process_that_is_not_there_is_an_error() {
        let before = seconds(None).unwrap();
        let mut x = 1u64;
        while seconds(None).unwrap() < before + 0.02 {
            x = x.wrapping_mul(3);
        }
        assert!(x != 0);
        assert!(seconds(Some(u32::MAX)).is_err());
    }
}
