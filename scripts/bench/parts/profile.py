"""What a busy and an idle broker spend: system calls, ring operations, allocations and copies a request, and where the CPU goes, as text.
Started by scripts/bench/profile. Usage: profile.py BENCH HOT_PATH BOOTSTRAP PID SECONDS

How it works:
1. For each load (LOADS) the client of tools/bench runs; in its middle `perf` counts the broker's events for SECONDS, then samples its stacks
   for as long. Requests in that time are the client's rate times SECONDS.
2. Events are the kernel's trace points (system calls by name, operations given to rings) and probes on the C library's allocator, which only
   the counting run bears.
3. Copies are counted where they can be counted to the byte: tools/sim's hot-path under callgrind, in which a long copy (`rep movsb`) is one
   instruction a byte; what the C library's copying functions execute a batch, in bytes of the batch. The simulated driver copies too, into
   its sockets and disks: the figure is for comparing builds.
4. The flame graph is a tree: frames with at least SHARE of all samples, with their share, children below their caller.
"""

import collections
import json
import re
import subprocess
import sys
import tempfile
import time

SHARE = 0.015
DEPTH = 40
SYSCALLS = ["io_uring_enter", "read", "write", "futex", "sched_yield", "madvise", "mmap", "munmap", "openat", "close", "clock_nanosleep"]
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"
ALLOCATOR = ["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign"]

FETCHED_BYTES = 64 << 20
# Name: the client's arguments; of an idle broker, the partitions that got a record before.
LOADS = {
    "produce 64 KiB batches, 4 in flight": ["produce", "--batch-bytes", "65536", "--in-flight", "4"],
    "produce 1 KiB, one in flight": ["latency", "--batch-bytes", "1024"],
    "produce 4 KiB batches, 32 connections": ["produce", "--batch-bytes", "4096", "--connections", "32", "--in-flight", "4"],
    "fetch from memory, 1 MiB at a time": ["fetch", "--pass-bytes", str(FETCHED_BYTES)],
    "idle": 0,
    "idle, 10,000 partitions": 10_000,
}
# What a broker still does of its own before it rests: checkpoints, files that go.
REST_SECONDS = 20
COPIES = {"produce-64k": (64 << 10, 256), "fetch-64k": (64 << 10, 512)}


def perf(*arguments, **options):
    return subprocess.run(["perf", *arguments], check=True, capture_output=True, text=True, **options)


def probe():
    """Events of the allocator, added to the C library; `perf probe` names them."""
    for name in ALLOCATOR:
        subprocess.run(["perf", "probe", "-q", "-d", f"probe_libc:{name}*"], capture_output=True, check=False)
        perf("probe", "-q", "-x", LIBC, name)
    listed = perf("probe", "-l").stdout
    return re.findall(r"(probe_libc:\w+)", listed)


def unprobe():
    subprocess.run(["perf", "probe", "-q", "-d", "probe_libc:*"], capture_output=True, check=False)


def count(pid, seconds, events):
    """{event: times} of all threads of the broker."""
    out = perf("stat", "-x", ",", "-p", str(pid), "-e", ",".join(events), "sleep", str(seconds)).stderr
    counted = {}
    for line in out.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[0] not in ("<not counted>", "<not supported>"):
            counted[fields[2]] = float(fields[0])
    return counted


def sample(pid, seconds, folder):
    """Stacks from the outermost frame on, and how often each was seen."""
    data = f"{folder}/perf.data"
    perf("record", "-q", "-e", "cpu-clock", "-F", "499", "--call-graph", "dwarf,8192", "-p", str(pid), "-o", data, "sleep", str(seconds))
    text = perf("script", "-i", data, "--no-inline", "-F", "comm,ip,sym").stdout
    stacks = collections.Counter()
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if len(lines) < 2:
            continue
        frames = [short(line.split(None, 1)[1] if " " in line.strip() else "?") for line in lines[1:]]
        stacks[(lines[0].strip(), *reversed(frames))] += 1
    return stacks


def short(symbol):
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol.strip())
    symbol = re.sub(r"<([^<>]+) as [^<>]+>", r"\1", symbol)
    return re.sub(r"\+0x[0-9a-f]+$", "", symbol)


def tree(stacks):
    """The flame graph's lines."""
    whole = sum(stacks.values())
    if not whole:
        return ["no sample"]
    lines = [f"{whole} samples"]

    def below(prefix, indent):
        shares = collections.Counter()
        for stack, times in stacks.items():
            if len(stack) > len(prefix) and stack[: len(prefix)] == prefix:
                shares[stack[len(prefix)]] += times
        for frame, times in shares.most_common():
            if times / whole >= SHARE and indent < DEPTH:
                lines.append(f"{times / whole:6.1%} {'  ' * indent}{frame}")
                below((*prefix, frame), indent + 1)

    below((), 0)
    return fold(lines)


def fold(lines):
    """A frame with one child that has its whole share is written before that child, on one line."""
    folded = lines[:1]
    for line in lines[1:]:
        share, rest = line[:6], line[7:]
        indent = len(rest) - len(rest.lstrip())
        if folded and folded[-1][:6] == share and " > " not in rest:
            last = folded[-1][7:]
            if indent > len(last) - len(last.lstrip()) and len(folded[-1]) < 150:
                folded[-1] += f" > {rest.strip()}"
                continue
        folded.append(line)
    return folded


def copies(binary, folder):
    """{workload: bytes that are copied a byte of a batch}"""
    found = {}
    for workload, (size, batches) in COPIES.items():
        counted = []
        for times in (1, 2):
            out = f"{folder}/{workload}-{times}"
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--toggle-collect=millrace_shard::shard::Shard::turn"]
            subprocess.run([*command, binary, workload, str(batches * times)], check=True, capture_output=True)
            text = subprocess.run(["callgrind_annotate", "--threshold=100", out], check=True, capture_output=True, text=True, cwd=folder).stdout
            lines = [re.match(r"^ *([\d,]+) .*:(?:\S*mem(?:cpy|move)\S*)", line) for line in text.splitlines()]
            counted.append(sum(int(line.group(1).replace(",", "")) for line in lines if line))
        found[workload] = (counted[1] - counted[0]) / batches / size
    return found


def measure(name, bench, bootstrap, pid, seconds, events, folder):
    arguments, client = LOADS[name], None
    topic = ["--bootstrap", bootstrap, "--topic", "profile"]
    if isinstance(arguments, int):
        if arguments:
            partitions = ["--partitions", str(arguments)]
            subprocess.run([bench, "create-topic", *topic, *partitions], check=True, capture_output=True)
            subprocess.run([bench, "produce", "--touch", "--seconds", "1", *topic, *partitions], check=True, capture_output=True)
        time.sleep(REST_SECONDS)
    else:
        subprocess.run([bench, "create-topic", *topic], check=True, capture_output=True)
        if arguments[0] == "fetch":
            # No more than is read: what does not fit into the broker's memory would be read from the device.
            fill = ["produce", "--total-bytes", str(FETCHED_BYTES), "--seconds", "60", "--warm-up", "0"]
            subprocess.run([bench, *fill, *topic], check=True, capture_output=True)
        length = ["--sends", str(seconds * 6000)] if arguments[0] == "latency" else ["--seconds", str(2 * seconds + 4)]
        command = [bench, *arguments, *length, *topic, "--json", "--server-pid", str(pid)]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(3)
    began = time.monotonic()
    counted = count(pid, seconds, events)
    took = time.monotonic() - began
    stacks = sample(pid, seconds, folder)
    requests = None
    if client:
        said, _ = client.communicate(timeout=600)
        if client.returncode:
            sys.exit(f"profile: the client of '{name}' failed")
        requests = json.loads(said)["requests_per_s"] * took
        subprocess.run([bench, "delete-topic", *topic], check=True, capture_output=True)
    return counted, requests, took, stacks


def main():
    bench, hot_path, bootstrap, pid, seconds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    calls = [f"syscalls:sys_enter_{name}" for name in SYSCALLS]
    base = ["raw_syscalls:sys_enter", "io_uring:io_uring_submit_req", "io_uring:io_uring_complete", "context-switches", "page-faults", "task-clock"]
    try:
        events = base + calls + probe()
        with tempfile.TemporaryDirectory() as folder:
            for name in LOADS:
                counted, requests, took, stacks = measure(name, bench, bootstrap, pid, seconds, events, folder)
                print(f"## {name}\n")
                allocations = sum(times for event, times in counted.items() if event.startswith("probe_libc:"))
                rows = {
                    "system calls": counted.get("raw_syscalls:sys_enter", 0),
                    **{f"- {name}": counted.get(f"syscalls:sys_enter_{name}", 0) for name in SYSCALLS},
                    "operations given to a ring": counted.get("io_uring:io_uring_submit_req", 0),
                    "completions": counted.get("io_uring:io_uring_complete", 0),
                    "allocations": allocations,
                    "context switches": counted.get("context-switches", 0),
                    "page faults": counted.get("page-faults", 0),
                }
                print(f"| | a second |{' a request |' if requests else ''}\n|---|--:|{'--:|' if requests else ''}")
                if requests:
                    print(f"| requests | {requests / took:,.0f} | 1 |")
                for what, times in rows.items():
                    if times:
                        print(f"| {what} | {times / took:,.1f} |" + (f" {times / requests:.2f} |" if requests else ""))
                print(f"| CPU, ms | {counted.get('task-clock', 0) / took:,.2f} |" + (f" {counted['task-clock'] / requests:.4f} |" if requests else ""))
                print("\n```\n" + "\n".join(tree(stacks)) + "\n```\n", flush=True)
            print("## Copies\n\nInstructions of the C library's copying functions inside a turn, a byte of a batch (a long copy is one a byte; the simulated driver's own copies count):\n")
            for workload, times in copies(hot_path, folder).items():
                print(f"- {workload}: {times:.2f}")
    finally:
        unprobe()


if __name__ == "__main__":
    main()
