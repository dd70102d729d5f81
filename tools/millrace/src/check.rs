//! `millrace check`: what this host lacks to run a node well.
//!
//! 1. Each [`Line`] is one thing looked at: ok, warn (slower, or at risk) or fail (a node would not run), its value, the value wanted, and what
//!    mends it.
//! 2. The host's things are read from /proc and /sys; the ring is really made, as a shard makes it; in each data directory a file is
//!    written, synced and removed again.
//!
//! Invariants: nothing is changed but for that file, which bears the process's number and goes in any case; what cannot be read is told as
//! such and is no failure.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millrace_base::value::Value;
use millrace_io::{process, uring};
use millrace_ops::output::Table;

/// What the ring driver needs (see `engine/io`).
const KERNEL_WANTED: (u32, u32) = (6, 1);
const LOCKED_BYTES_WANTED: u64 = 8 << 20;
const FILES_WANTED: u64 = 65_536;
const FILES_NEEDED: u64 = 1024;
const MEMORY_BYTES_WANTED: u64 = 1 << 30;
/// CAP_SYS_NICE's bit in a set of capabilities.
const CAP_SYS_NICE: u32 = 23;

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Written once before syncs are timed, so that none of them has to extend the file.
const PROBE_BLOCKS: u64 = 64;
const SYNCS: usize = 100;
/// A slow device is not measured for longer.
const SYNCS_TIME_MAX: Duration = Duration::from_secs(3);
const SYNC_WANTED: Duration = Duration::from_millis(2);
/// No device makes 4 KiB durable faster, unless its cache is safe from power cuts or it does not do it at all.
const SYNC_SUSPECT: Duration = Duration::from_micros(10);

#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const O_DIRECT: i32 = 0o200_000;
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const O_DIRECT: i32 = 0o40_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Ok,
    Warn,
    Fail,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    pub what: String,
    pub status: Status,
    pub value: String,
    pub wanted: String,
    /// What to do; empty when there is nothing.
    pub remedy: String,
}

impl Line {
    fn new(what: &str, status: Status, value: impl Into<String>, wanted: &str, remedy: &str) -> Line {
        let remedy = if status == Status::Ok { "" } else { remedy };
        Line { what: what.to_owned(), status, value: value.into(), wanted: wanted.to_owned(), remedy: remedy.to_owned() }
    }

    fn unknown(what: &str, wanted: &str) -> Line {
        Line::new(what, Status::Warn, "cannot be read", wanted, "look at it by hand")
    }
}

/// Everything that is looked at, the host first.
pub fn run(data_directories: &[String]) -> Vec<Line> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let limits = read("/proc/self/limits").unwrap_or_default();
    let mut lines = vec![
        kernel(&read("/proc/sys/kernel/osrelease").unwrap_or_default()),
        ring(),
        locked_memory(&limits),
        files(&limits),
        priority(&limits, &read("/proc/self/status").unwrap_or_default()),
        memory(process::memory_bytes()),
        swap(&read("/proc/swaps").unwrap_or_default()),
        clock(&read("/sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_default()),
    ];
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    for directory in data_directories {
        lines.extend(data_directory(Path::new(directory), &mounts));
    }
    lines
}

pub fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(&["check", "status", "value", "wanted", "remedy"]);
    for line in lines {
        let status = match line.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        let remedy = Some(line.remedy.clone()).filter(|remedy| !remedy.is_empty());
        let cells: [Value; 5] = [
            line.what.as_str().into(),
            status.to_ascii_lowercase().into(),
            line.value.as_str().into(),
            line.wanted.as_str().into(),
            remedy.into(),
        ];
        table.row(cells.to_vec());
    }
    table
}

fn kernel(release: &str) -> Line {
    let wanted = "6.1 or later";
    let mut numbers = release.trim().split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => {
            let status = if (major, minor) >= KERNEL_WANTED { Status::Ok } else { Status::Fail };
            Line::new("kernel", status, release.trim(), wanted, "use a distribution with a newer kernel")
        }
        _ => Line::unknown("kernel", wanted),
    }
}

/// A ring with all operations that a shard needs.
fn ring() -> Line {
    let wanted = "allowed, with all operations";
    match uring::check() {
        Ok(()) => Line::new("io_uring", Status::Ok, "allowed, with all operations", wanted, ""),
        Err(error) => {
            let text = error.to_string();
            let (value, remedy) = text.split_once(": ").unwrap_or((&text, "see the release notes"));
            // Where the ring is refused the portable driver serves, slower.
            let status = if error.is_refusal() { Status::Warn } else { Status::Fail };
            Line::new("io_uring", status, value, wanted, remedy)
        }
    }
}

/// Soft and hard limit of a row of /proc/self/limits; `u64::MAX` is none.
fn limit(limits: &str, name: &str) -> Option<(u64, u64)> {
    let row = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let number = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let mut words = row.split_whitespace();
    Some((number(words.next()?)?, number(words.next()?)?))
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

fn locked_memory(limits: &str) -> Line {
    let wanted = "8 MiB or more";
    match limit(limits, "Max locked memory") {
        Some((soft, _)) => {
            let status = if soft >= LOCKED_BYTES_WANTED { Status::Ok } else { Status::Warn };
            Line::new(
                "memory lock",
                status,
                format!("{} bytes", shown(soft)),
                wanted,
                "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
            )
        }
        None => Line::unknown("memory lock", wanted),
    }
}

fn files(limits: &str) -> Line {
    let wanted = "65536 or more";
    match limit(limits, "Max open files") {
        // A start raises the soft limit by itself.
        Some((_, hard)) => {
            let status = match hard {
                FILES_WANTED.. => Status::Ok,
                FILES_NEEDED.. => Status::Warn,
                _ => Status::Fail,
            };
            Line::new("open files", status, shown(hard), wanted, "ulimit -Hn 1048576, or LimitNOFILE=1048576 in the unit")
        }
        None => Line::unknown("open files", wanted),
    }
}

fn priority(limits: &str, status: &str) -> Line {
    let wanted = "allowed for the ring's workers";
    let capabilities =
        status.lines().find_map(|line| line.strip_prefix("CapEff:")).and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let by_capability = capabilities.is_some_and(|set| set >> CAP_SYS_NICE & 1 == 1);
    let by_limit = limit(limits, "Max realtime priority").is_some_and(|(soft, _)| soft >= 1);
    match by_capability || by_limit {
        true => Line::new("real-time priority", Status::Ok, "allowed", wanted, ""),
        false => Line::new(
            "real-time priority",
            Status::Warn,
            "not allowed: syncs wait for the scheduler on busy cores",
            wanted,
            "ulimit -r 1, or LimitRTPRIO=1 in the unit",
        ),
    }
}

fn memory(bytes: u64) -> Line {
    let status = if bytes >= MEMORY_BYTES_WANTED { Status::Ok } else { Status::Warn };
    Line::new(
        "memory",
        status,
        format!("{} MiB", bytes >> 20),
        "1 GiB or more",
        "give the machine or container more, or run fewer shards (--shards)",
    )
}

fn swap(swaps: &str) -> Line {
    let used: Vec<&str> = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    match used.is_empty() {
        true => Line::new("swap", Status::Ok, "none", "none", ""),
        false => Line::new("swap", Status::Warn, used.join(", "), "none", "swapoff -a, or sysctl vm.swappiness=1"),
    }
}

fn clock(source: &str) -> Line {
    let wanted = "one that is read without a system call";
    match source.trim() {
        "" => Line::unknown("clock", wanted),
        name @ ("tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page") => {
            Line::new("clock", Status::Ok, name, wanted, "")
        }
        name => {
            Line::new("clock", Status::Warn, name, wanted, "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource")
        }
    }
}

/// The file that is written in a data directory; it goes with this.
struct Probe {
    path: PathBuf,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // it may not have come about
    }
}

fn data_directory(directory: &Path, mounts: &str) -> Vec<Line> {
    let named = |what: &str| format!("{what} {}", directory.display());
    // A data directory that is to be made lies in the nearest folder that is there.
    let there = directory.ancestors().find_map(|folder| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        folder.canonicalize().ok()
    });
    let Some(there) = there else {
        return vec![Line::new(
            &named("data directory"),
            Status::Fail,
            "no folder above it can be used",
            "writable",
            "make it, and give it to the node's user",
        )];
    };
    let mounted = mounted(&there, mounts);
    let mut lines = vec![file_system(&named("file system"), mounted.as_ref()), discard(&named("discard"), mounted.as_ref())];
    let probe = Probe { path: there.join(format!(".millrace-check-{}", std::process::id())) };
    match direct(&probe.path) {
        Err(error) => {
            let value = format!("not writable: {error}");
            lines.push(Line::new(
                &named("data directory"),
                Status::Fail,
                value,
                "writable",
                "chown it to the node's user, or mount it writable",
            ));
        }
        Ok((file, step)) => {
            lines.push(Line::new(&named("data directory"), Status::Ok, "writable", "writable", ""));
            lines.push(match step {
                Some(step) => {
                    Line::new(&named("direct I/O"), Status::Ok, format!("in steps of {step} bytes"), "in steps of 4096 bytes or less", "")
                }
                None => Line::new(&named("direct I/O"), Status::Warn, "refused", "in steps of 4096 bytes or less", "put it on ext4 or XFS"),
            });
            lines.push(sync_latency(&named("sync latency"), file));
        }
    }
    lines
}

/// A file made anew at `path`, open for direct I/O in steps of so many bytes, or without it.
fn direct(path: &Path) -> std::io::Result<(File, Option<usize>)> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options.open(path)?;
    let Ok(mut file) = options.clone().custom_flags(O_DIRECT).open(path) else { return Ok((options.open(path)?, None)) };
    let mut memory = Vec::new();
    for step in [SECTOR, BLOCK] {
        file.seek(SeekFrom::Start(0))?;
        if file.write_all(&aligned(&mut memory)[..step]).is_ok() {
            return Ok((file, Some(step)));
        }
    }
    Ok((options.open(path)?, None))
}

/// A block of memory as direct I/O wants it.
fn aligned(memory: &mut Vec<u8>) -> &[u8] {
    memory.resize(2 * BLOCK, 0x5a);
    let skip = memory.as_ptr().align_offset(BLOCK);
    &memory[skip..skip + BLOCK]
}

fn sync_latency(what: &str, mut file: File) -> Line {
    let wanted = "p50 of 2 ms or less";
    let mut memory = Vec::new();
    let block = aligned(&mut memory);
    let mut measure = || -> std::io::Result<Vec<Duration>> {
        file.seek(SeekFrom::Start(0))?;
        (0..PROBE_BLOCKS).try_for_each(|_| file.write_all(block))?;
        file.sync_all()?;
        let mut found = Vec::with_capacity(SYNCS);
        let began = Instant::now();
        for sync in 0..SYNCS as u64 {
            file.seek(SeekFrom::Start(sync % PROBE_BLOCKS * BLOCK as u64))?;
            let before = Instant::now();
            file.write_all(block)?;
            file.sync_data()?;
            found.push(before.elapsed());
            if began.elapsed() > SYNCS_TIME_MAX {
                break;
            }
        }
        found.sort_unstable();
        Ok(found)
    };
    match measure() {
        Ok(found) => {
            let at = |share: usize| found[(found.len() * share / 100).min(found.len() - 1)];
            let (p50, p99) = (at(50), at(99));
            let value =
                format!("p50 {:.2} ms, p99 {:.2} ms over {} syncs of 4 KiB", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3, found.len());
            let (status, remedy) = match p50 {
                p50 if p50 > SYNC_WANTED => (Status::Warn, "use a faster device, such as an SSD with power-loss protection"),
                p50 if p50 < SYNC_SUSPECT => (Status::Warn, "see that this device survives a power cut: it answers faster than most can"),
                _ => (Status::Ok, ""),
            };
            Line::new(what, status, value, wanted, remedy)
        }
        Err(error) => Line::new(
            what,
            Status::Fail,
            format!("cannot be measured: {error}"),
            wanted,
            "free some room, or see what the kernel's log says of the device",
        ),
    }
}

fn file_system(what: &str, mounted: Option<&Mount>) -> Line {
    let wanted = "ext4 or xfs";
    match mounted {
        None => Line::unknown(what, wanted),
        Some(Mount { kind, .. }) => match kind.as_str() {
            "ext4" | "xfs" => Line::new(what, Status::Ok, kind.as_str(), wanted, ""),
            "tmpfs" | "ramfs" => Line::new(
                what,
                Status::Warn,
                format!("{kind}: all is lost when the machine stops"),
                wanted,
                "put the data directory on a disk",
            ),
            "overlay" => Line::new(what, Status::Warn, "overlay: a container's own layer", wanted, "mount a volume there"),
            "nfs" | "nfs4" | "cifs" | "fuse" => Line::new(
                what,
                Status::Warn,
                format!("{kind}: syncs over a network or another program"),
                wanted,
                "put the data directory on a local disk",
            ),
            _ => Line::new(what, Status::Warn, format!("{kind}: not tried"), wanted, "put the data directory on ext4 or XFS"),
        },
    }
}

/// With it each file that is removed, as retention does with segments, costs the device a request of its own at once; `fstrim` tells it of all
/// that is free when there is little else to do.
fn discard(what: &str, mounted: Option<&Mount>) -> Line {
    let wanted = "mounted without it";
    match mounted {
        None => Line::unknown(what, wanted),
        Some(Mount { discards: false, .. }) => Line::new(what, Status::Ok, "mounted without it", wanted, ""),
        Some(Mount { discards: true, .. }) => Line::new(
            what,
            Status::Warn,
            "mounted with it: each segment that is removed costs the device a request",
            wanted,
            "mount it without discard, and let fstrim run weekly (systemctl enable --now fstrim.timer)",
        ),
    }
}

/// A file system as it is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    kind: String,
    /// The option `discard` alone: what btrfs calls `discard=async` is put off and made few by itself.
    discards: bool,
}

/// What the mount point that is the longest above `folder` shows; of equal ones the last, which hides the others.
fn mounted(folder: &Path, mounts: &str) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mounts.lines() {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?.replace("\\040", " ");
        let length = point.len();
        if folder.starts_with(&point) && best.as_ref().is_none_or(|(longest, _)| length >= *longest) {
            let mut words = right.split(' ');
            let kind = words.next()?.to_owned();
            // Behind the kind stands the device, then the options of the file system itself.
            let discards = words.nth(1).is_some_and(|options| options.split(',').any(|option| option == "discard"));
            best = Some((length, Mount { kind, discards }));
        }
    }
    best.map(|(_, mount)| mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max open files            1024                 2048                 files     \n\
                          Max locked memory         65536                unlimited            bytes     \n\
                          Max realtime priority     0                    0                              \n";

    #[test]
    fn what_is_short_of_the_wish_is_told_with_its_remedy() {
        let check = |line: Line, status: Status, value: &str| {
            assert_eq!((line.status, line.value.as_str(), line.remedy.is_empty()), (status, value, status == Status::Ok), "{line:?}");
        };
        check(kernel("5.15.0-91-generic\n"), Status::Fail, "5.15.0-91-generic");
        check(kernel("6.1.0\n"), Status::Ok, "6.1.0");
        check(kernel("10.0-rc1"), Status::Ok, "10.0-rc1");
        check(kernel(""), Status::Warn, "cannot be read");
        check(files(LIMITS), Status::Warn, "2048");
        check(files(&LIMITS.replace("2048", "unlimited")), Status::Ok, "unlimited");
        check(files(&LIMITS.replace("2048", "512 ")), Status::Fail, "512");
        check(locked_memory(LIMITS), Status::Warn, "65536 bytes");
        check(priority(LIMITS, "CapEff:\t0000000000800000\n"), Status::Ok, "allowed");
        assert_eq!(priority(LIMITS, "CapEff:\t0000000000000000\n").status, Status::Warn);
        check(memory(4_142_641_152), Status::Ok, "3950 MiB");
        check(memory(512 << 20), Status::Warn, "512 MiB");
        check(swap("Filename\tType\n/dev/vdb partition 1 0 -2\n"), Status::Warn, "/dev/vdb");
        check(swap("Filename\tType\n"), Status::Ok, "none");
        check(clock("tsc\n"), Status::Ok, "tsc");
        check(clock("hpet"), Status::Warn, "hpet");
    }

    #[test]
    fn the_longest_mount_point_above_a_folder_is_its_file_system() {
        let mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n22 21 0:5 / /data rw shared:1 - tmpfs t rw\n23 21 0:6 / /data/a\\040b rw - xfs /dev/vdb rw\n";
        for (folder, kind) in [("/", "ext4"), ("/database", "ext4"), ("/data/x", "tmpfs"), ("/data/a b/c", "xfs")] {
            assert_eq!(mounted(Path::new(folder), mounts).map(|mount| mount.kind).as_deref(), Some(kind), "{folder}");
        }
        assert_eq!(mounted(Path::new("/"), ""), None);
    }

    #[test]
    fn a_file_system_that_discards_at_each_removal_is_warned_of() {
        let mounts = "21 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw,discard,errors=remount-ro\n\
                      22 21 254:16 / /plain rw - xfs /dev/vdb rw,nodiscard\n\
                      23 21 0:40 / /late rw - btrfs /dev/vdc rw,discard=async\n\
                      24 21 254:48 / /discard rw - xfs discard rw\n";
        for (folder, status) in [("/data", Status::Warn), ("/plain/x", Status::Ok), ("/late", Status::Ok), ("/discard", Status::Ok)] {
            let line = discard("discard", mounted(Path::new(folder), mounts).as_ref());
            assert_eq!((line.status, line.remedy.contains("fstrim")), (status, status == Status::Warn), "{folder}: {line:?}");
        }
        assert_eq!(discard("discard", None).value, "cannot be read");
    }

    #[test]
    fn a_data_directory_is_tried_and_left_as_it_was() {
        let folder = std::env::temp_dir().join(format!("millrace-check-test-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let lines = data_directory(&folder.join("not/yet/there"), "21 1 254:0 / / rw - ext4 /dev/vda rw\n");
        let names: Vec<&str> = lines.iter().filter_map(|line| line.what.strip_suffix("/not/yet/there")).collect();
        assert_eq!(names.len(), 5, "{lines:?}");
        assert!(lines.iter().all(|line| line.status != Status::Fail), "{lines:?}");
        assert!(lines[4].value.contains("syncs of 4 KiB"), "{lines:?}");
        assert_eq!(std::fs::read_dir(&folder).expect("it is there").count(), 0);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
