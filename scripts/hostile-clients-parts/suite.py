"""Hostile connections against one broker, and a client beside them. Started by scripts/hostile-clients.

Usage: suite.py short|long KIND|"" WORK PORT -- BINARY...

How it works:
1. The broker runs on the first core with one shard and little memory; the good client and all attackers share the last core, the attackers
   niced, the good client with real-time priority (take_precedence). The good client produces one record and fetches it, again and again.
2. Each kind of attack (attack.py) is measured in pairs: the good client alone on a machine whose cores are all busy (Busy), then beside the
   attack on the same machine. The p99 of all its requests beside the attack, over that without, is a pair's ratio; the median of the pairs must
   not be above RATIO_MAX. The short form lets a p99 below SERVED_MS pass, whatever the ratio: three pairs of 1.5 s say little.
3. Between its requests, four times a second, the good client opens a new connection, which must be served within NEW_SECONDS; that is not
   among the times of which the p99 is taken. An attacker that ends by itself fails the run, as does churn below CHURN_SHARE of its rate.
4. Memory is sampled all the time: never above memory.max.bytes and BESIDE. After each attack the broker has as many sockets as before it, and in
   the end as many descriptors, but for its own files.
Only processes started here are ended, by pid. WORK is removed after a run that passes, unless KEEP is set.
"""

import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

import wire

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
MEMORY = 512 * MIB
# The program and its stacks, 10,000 connections of some 2 KiB, sessions, topics, and what a handler holds for the time of one request.
BESIDE = 96 * MIB
RATIO_MAX = 3.0
SERVED_MS = 100
# A new connection's record and its fetch, from the connect on; how often one is opened.
NEW_SECONDS, NEW_EVERY = 2.0, 0.25
CHURN_SHARE = 0.8
BIG_MIB = 96
SETTLE_SECONDS = 20
# Files that the good client's own records may bring: segments that stay open, a journal that grows.
SEGMENTS = 12

# Kind: connections of each process, in the short and in the long form.
KINDS = {
    "idle": ([1500, 1500], [5000, 5000]),
    "dribble": ([1000], [1000]),
    "unread": ([100, 100], [100, 100]),
    "answers": ([40, 40], [40, 40]),
    "frames": ([4], [4]),
    "flood": ([10, 10], [10, 10]),
    "sessions": ([10], [10]),
    "forever": ([1000], [1000]),
    "churn": ([500, 500], [500, 500]),
}
# Pairs; seconds of each half; of the churn's (in the long form a minute in all).
FORMS = {"short": (3, 1.5, 4.0), "long": (9, 5.0, 7.0)}


class Failed(Exception):
    """The run cannot go on; the message is the line for the user."""


class Broker:
    def __init__(self, work, port, command, core):
        self.log_path = f"{work}/broker.log"
        settings = ["shards=1", f"memory.max.bytes={MEMORY}", "shard.pin.enable=false", "log.segment.bytes=16777216"]
        start = [*command, "start", "--data-dir", f"{work}/data", "--kafka-addr", f"127.0.0.1:{port}"]
        start += [part for setting in settings for part in ("--set", setting)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                start, stdout=log, stderr=log, start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
            )
        self.most, self.over = 0, threading.Event()
        self.watched = True
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while self.watched:
            self.most = max(self.most, self.resident())
            time.sleep(0.05)

    def resident(self):
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                return next((int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:")), 0)
        except OSError:
            return 0

    def descriptors(self):
        """Sockets and all."""
        folder, targets = f"/proc/{self.process.pid}/fd", []
        for name in os.listdir(folder):
            try:
                targets.append(os.readlink(f"{folder}/{name}"))
            except OSError:
                pass  # closed meanwhile
        return sum(target.startswith("socket:") for target in targets), len(targets)

    def stop(self):
        self.watched = False
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "not within 30 s"


class Good:
    """The client that is to be served."""

    def __init__(self, port):
        self.port = port
        self.connection = wire.Connection(port)
        self.records = wire.batch(b"good" * 25)
        self.slowest_new, self.new_at = 0.0, 0.0

    def measure(self, seconds):
        """Seconds that each of its requests took."""
        times = []
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            if began >= self.new_at:
                self.newcomer()
                self.new_at = began + NEW_EVERY
                continue
            middle = self.round(self.connection)
            times += [middle - began, time.monotonic() - middle]
        return times

    def round(self, connection):
        """Produces and fetches; the time at which the record was acknowledged."""
        offset = connection.produce("good", 0, self.records)
        middle = time.monotonic()
        found = connection.fetch("good", 0, offset)
        if found[21:] != self.records[21:]:
            raise Failed(f"the good client reads {len(found)} bytes at offset {offset}, not what it wrote")
        return middle

    def newcomer(self):
        """A connection of its own, served once."""
        began = time.monotonic()
        try:
            connection = wire.Connection(self.port, timeout=NEW_SECONDS)
            try:
                self.round(connection)
            finally:
                connection.socket.close()
        except (OSError, wire.Closed) as error:
            raise Failed(f"a new connection is not served: {error or type(error).__name__} after {time.monotonic() - began:.2f} s") from error
        took = time.monotonic() - began
        if took > NEW_SECONDS:
            raise Failed(f"a new connection was served after {took:.2f} s; {NEW_SECONDS} s are allowed")
        self.slowest_new = max(self.slowest_new, took)


def p99(times):
    return sorted(times)[len(times) * 99 // 100]


class Attack:
    """The processes of one attack. What each says on stderr is kept in a file of its own."""

    def __init__(self, kind, port, counts, core, work):
        self.kind, self.processes, self.logs = kind, [], []

        def prepare():
            os.sched_setaffinity(0, {core})
            os.nice(19)

        for number, count in enumerate(counts):
            self.logs.append(f"{work}/attack-{kind}-{number}.log")
            command = [sys.executable, f"{HERE}/attack.py", kind, str(port), str(number), str(count)]
            with open(self.logs[-1], "wb") as log:
                self.processes.append(
                    subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True, preexec_fn=prepare, text=True)
                )
        try:
            for number, process in enumerate(self.processes):
                if process.stdout.readline().strip() != "ready":
                    raise Failed(f"attack {kind} does not begin; its last words: {self.words(number)}")
        except Failed:
            self.end()
            raise

    def words(self, number):
        with open(self.logs[number], encoding="utf-8", errors="replace") as log:
            return log.readlines()[-5:]

    def check(self):
        """All still attack."""
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                raise Failed(f"a process of attack {self.kind} ended by itself with {process.returncode}; its last words: {self.words(number)}")

    def end(self):
        """The last line of each process's output, or an empty one."""
        lines = []
        for process in self.processes:
            process.kill()
            process.wait()
            lines.append((process.stdout.read().splitlines() or [""])[-1])
            process.stdout.close()
        return lines


class Busy:
    """Every core is kept busy by whoever comes after all others, so that the machine is as busy without the attack as beside it: one that is
    itself a guest takes its cores away for milliseconds when they all have work, and writing at the same time."""

    def __init__(self, cores):
        self.processes = []
        for core in cores:

            def prepare(core=core):
                os.sched_setaffinity(0, {core})
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

            self.processes.append(subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True, preexec_fn=prepare))

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


def settle(broker, start):
    """Waits until there are as many sockets as there were; gives how many there are."""
    end = time.monotonic() + SETTLE_SECONDS
    while (sockets := broker.descriptors()[0]) > start and time.monotonic() < end:
        time.sleep(0.05)
    return sockets


def take_precedence():
    """Puts this thread before the attackers on its core, so that what is measured is the broker: niceness alone lets whoever is woken wait for the
    scheduler's next tick, 4 ms at 250 Hz. Without the right to it, figures contain that wait."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        print("hostile-clients: no right to real-time priority: figures contain what the good client waits for its core", file=sys.stderr)


def prepare(port):
    """Topics, and records to fetch."""
    end = time.monotonic() + 60
    while True:
        try:
            connection = wire.Connection(port)
            break
        except OSError:
            if time.monotonic() > end:
                raise Failed("the broker does not answer") from None
            time.sleep(0.1)
    for name, partitions in [("good", 1), ("flood", 1), ("still", 1), ("big", 8), ("wide", 500)]:
        connection.create_topic(name, partitions)
    for name in ["flood", "still"]:
        connection.produce(name, 0, wire.batch(b"x"))
    records = wire.batch(bytes(900_000))
    for number in range(BIG_MIB * MIB // 900_000):
        connection.produce("big", number % 8, records)


def run_kind(kind, form, broker, good, port, cores, work):
    """Faults found, and the line of the table."""
    pairs, seconds, churn_seconds = FORMS[form]
    seconds = churn_seconds if kind == "churn" else seconds
    counts = KINDS[kind][form == "long"]
    start = broker.descriptors()[0]
    broker.most, good.slowest_new = 0, 0.0
    quiet, beside, ratios, rates, faults = [], [], [], [], []
    idle = p99(good.measure(seconds))
    for pair in range(pairs):
        busy = Busy(cores)
        try:
            quiet.append(p99(good.measure(seconds)))
            attack = Attack(kind, port, counts, cores[-1], work)
            try:
                times = good.measure(seconds)
                attack.check()
            finally:
                said = attack.end()
        finally:
            busy.end()
        if kind == "churn":
            rates.append(sum(int(rate or 0) for rate in said))
        beside.append(p99(times))
        ratios.append(beside[-1] / quiet[-1])
        left = settle(broker, start)
        if left > start:
            faults.append(f"{kind}: {left} sockets {SETTLE_SECONDS} s after the attack, {start} before")
    ratio = statistics.median(ratios)
    ms = [1000 * value for value in (idle, statistics.median(quiet), statistics.median(beside))]
    if ratio > RATIO_MAX and (form == "long" or ms[2] > SERVED_MS):
        faults.append(f"{kind}: p99 is {ratio:.2f} times that without the attack (median of {pairs}); at most {RATIO_MAX} is allowed")
    if broker.most > MEMORY + BESIDE:
        faults.append(f"{kind}: {broker.most // MIB} MiB resident; memory.max.bytes and {BESIDE // MIB} MiB beside it are {(MEMORY + BESIDE) // MIB}")
    if rates and min(rates) < CHURN_SHARE * sum(counts):
        faults.append(f"churn: {min(rates)} connections a second were made in one half, {sum(counts)} were meant")
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    line = f"| {kind} | {'+'.join(map(str, counts))} | {ms[0]:.2f} | {ms[1]:.2f} | {ms[2]:.2f} | {ratio:.2f} ({spread}) | {broker.most // MIB} | {left} of {broker.descriptors()[1]} | {1000 * good.slowest_new:.0f} |"
    if rates:
        line += f"\n\nchurn made {min(rates)} to {max(rates)} connections a second"
    return faults, line


def run(form, only, work, port, command):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    cores = sorted(os.sched_getaffinity(0))
    broker = Broker(work, port, command, cores[0])
    faults = []
    try:
        prepare(port)
        os.sched_setaffinity(0, {cores[-1]})
        take_precedence()
        good = Good(port)
        good.measure(2)
        before = broker.descriptors()
        print("| attack | connections | p99 on an idle machine, ms | on a busy one, ms | beside the attack, ms | ratio (min-max of the pairs) | most memory, MiB | sockets of descriptors after | slowest new connection, ms |")
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for kind in [only] if only else KINDS:
            found, line = run_kind(kind, form, broker, good, port, cores, work)
            print(line, flush=True)
            faults += found
            if broker.process.poll() is not None:
                raise Failed(f"the broker ended with {broker.process.returncode}; see {broker.log_path}")
        after = broker.descriptors()
        if after[0] > before[0] or after[1] > before[1] + SEGMENTS:
            faults.append(f"{after} sockets and descriptors in the end, {before} at the start")
    finally:
        code = broker.stop()
    if code != 0:
        faults.append(f"the broker ended with {code}")
    return faults


def main():
    form, only, work, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    began = time.monotonic()
    try:
        faults = run(form, only, work, port, sys.argv[6:])
    except (Failed, wire.Closed, AssertionError, OSError) as error:
        faults = [f"the run ended early: {error or type(error).__name__}"]
    for fault in faults:
        print(f"hostile-clients: {fault}", file=sys.stderr)
    if faults:
        print(f"hostile-clients: FAILED; logs are in {work}", file=sys.stderr)
        return 1
    print(f"hostile-clients: passed in {time.monotonic() - began:.0f} s")
    if not os.environ.get("KEEP"):
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
