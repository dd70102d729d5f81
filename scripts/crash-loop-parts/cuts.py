"""The crash loop on a directory that loses power: faultfs (tools/faultfs) instead of kill -9. Started by scripts/power-cuts.

Usage: cuts.py WORK PORT CYCLES SECONDS SEED MODE FAULTFS -- COMMAND... (the broker, its data directory below WORK/mount)

Each cycle does one thing to the directory under load, kills what is left of the broker, mounts what is durable, and starts the broker on it
(but for `full` and half of `slow`, which the broker lives through):
  cut        power fails: of what was not synced a random part is kept, every operation gets EIO until the broker is killed
  fail-sync  one sync fails, and later ones succeed without what that one lost; or every sync fails
  fail-io    every read, write and sync gets EIO
  full       the directory runs out of room: produce is refused, reads and commits go on; then there is room, and produce goes on by itself
  slow       each operation takes 5 to 50 ms for some seconds: acknowledgements go on and nothing fails; every other time power is cut then
  mixed      four cuts to one of each other kind
  short      a cut, a cut of a slow directory, a fail-sync, a fail-io and a full directory, in this order
  lie        syncs keep nothing, then power fails: one cycle, after which the checker must convict; the run passes only if it does
The promises are those of loop.py: nothing acknowledged is lost, doubled, altered or moved, whatever the disk did. A broker may end by itself
once its directory fails.
"""

import os
import select
import shutil
import signal
import subprocess
import struct
import sys
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

import batches
import checker
import loop
import payload

ANSWER_SECONDS = 120
KINDS = {
    "cut": ["cut"], "fail-sync": ["once", "always"], "fail-io": ["io"], "full": ["full"], "slow": ["slow", "slow-cut"],
    "mixed": ["cut", "cut", "cut", "cut", "once", "always", "io", "full", "slow", "slow-cut"],
}  # fmt: skip
SHORT = [KINDS["cut"], ["slow-cut"], KINDS["fail-sync"], KINDS["fail-io"], KINDS["full"]]
COMMANDS = {"cut": "cut", "slow-cut": "cut", "once": "fail-sync once", "always": "fail-sync always", "io": "fail-io"}
SLOW = "slow 5 50"
STORAGE_ERROR = 56
REFUSED_SECONDS = 60
RESUMED_SECONDS = 10


class FaultDisk:
    """The directory: WORK/mount shows what WORK/disk holds."""

    def __init__(self, work, program, seed):
        self.folder, self.mountpoint, self.program, self.seed = f"{work}/disk", f"{work}/mount", program, seed
        os.makedirs(self.mountpoint, exist_ok=True)
        self.process, self.mounts = None, 0

    def mount(self):
        self.mounts += 1
        command = [self.program, self.folder, self.mountpoint, str(self.seed * 1_000_000 + self.mounts)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        answer = self.answer()
        if answer != "ready":
            raise loop.Failed(f"faultfs says {answer!r} instead of ready")

    def ask(self, command):
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        if not select.select([self.process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise loop.Failed(f"faultfs does not answer within {ANSWER_SECONDS} s")
        return self.process.stdout.readline().decode().strip()

    def unmount(self):
        """Nobody may have a file open there. What is durable stays."""
        if self.process is None:
            return
        try:
            self.process.stdin.write(b"quit\n")
            self.process.stdin.close()
            code = self.process.wait(ANSWER_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        self.process = None
        if os.path.ismount(self.mountpoint):
            subprocess.run(["umount", "-l", self.mountpoint], check=False)
        if code != 0:
            raise loop.Failed(f"faultfs ended with {code}")


class CutLoop(loop.Loop):
    def __init__(self, work, port, seed, command, mode, program):
        super().__init__(work, port, seed, command)
        self.mode, self.disk = mode, FaultDisk(work, program, seed)
        self.counts, self.ended, self.commits = {}, 0, 0

    def open(self):
        self.disk.mount()
        # The directory itself is given to the broker, so its name must be durable.
        os.mkdir(f"{self.disk.mountpoint}/data")
        root = os.open(self.disk.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(root)
        os.close(root)
        super().open()

    def cycle(self, number):
        kind = self.rng.choice(SHORT[number - 1] if self.mode == "short" else KINDS[self.mode])
        self.counts[kind] = self.counts.get(kind, 0) + 1
        wait = self.rng.uniform(0.2, 3.0)
        began = time.monotonic()
        if wait > 0.6:
            for one in self.keep(self.read_watermarks(patient=False)):
                self.violations.add(one.kind, f"before the fault of cycle {number}: {one.line}")
        time.sleep(max(0.0, began + wait - time.monotonic()))
        if kind == "full":
            answer = self.run_full(number)
        elif kind == "slow":
            answer = self.run_slow(number)
            self.disk.ask("slow 0 0")
        else:
            answer = self.fail(number, kind)
        self.check_marks(f"cycle {number} ({kind})")
        self.check_children()
        print(f"cycle {number}: {answer}, {len(self.acks)} acknowledged so far", flush=True)

    def fail(self, number, kind):
        """A fault that the broker does not live through, and its restart."""
        if kind == "slow-cut":
            self.run_slow(number)
        answer = self.disk.ask(COMMANDS[kind])
        # Time for an answer that must not be given.
        time.sleep(self.rng.uniform(0.0, 0.4) if kind.endswith("cut") else self.rng.uniform(0.2, 1.5))
        killed = time.monotonic()
        self.restart()
        self.restarts.append(time.monotonic() - killed)
        return f"{answer}; back in {self.restarts[-1]:.2f} s"

    def run_slow(self, number):
        """Every operation takes its time: acknowledgements go on, and the broker finds nothing wrong."""
        said = os.path.getsize(self.broker.log_path)
        self.read_notes()
        before, began = len(self.acks), time.monotonic()
        self.disk.ask(SLOW)
        time.sleep(self.rng.uniform(2.0, 4.0))
        self.read_notes()
        answer = f"{SLOW}: {len(self.acks) - before} acknowledged in {time.monotonic() - began:.1f} s"
        if len(self.acks) == before:
            self.violations.add("stuck", f"cycle {number}: {answer}")
        self.check_log(f"cycle {number} (slow)", said, None)
        return answer

    def run_full(self, number):
        """The directory has no more room until produce was refused for a while and all else was seen to go on."""
        when, said = f"cycle {number} (full)", os.path.getsize(self.broker.log_path)
        self.disk.ask(f"room {self.rng.randrange(64 << 10, 4 << 20)}")
        refused = self.until(lambda code, message: code != 0, REFUSED_SECONDS)
        if refused is None:
            raise loop.Failed(f"{when}: produce was not refused within {REFUSED_SECONDS} s")
        code, message, after = refused
        if code != STORAGE_ERROR or "is full" not in message:
            self.violations.add("refusal", f"{when}: produce was refused with {code} and {message!r}")
        for _ in range(3):
            self.check_others(when)
            time.sleep(0.5)
        free = self.disk.ask("room all")
        resumed = self.until(lambda code, message: code == 0, RESUMED_SECONDS)
        if resumed is None:
            self.violations.add("stuck", f"{when}: produce did not go on within {RESUMED_SECONDS} s of room being there")
        self.check_log(when, said, "is full: produce is refused until there is room")
        back = "never" if resumed is None else f"after {resumed[2]:.2f} s"
        return f"full: refused after {after:.2f} s, went on {back} ({free})"

    def until(self, is_wanted, seconds):
        """Error code and message of the first produce that is answered so, and how long that took; None: none was."""
        connection, began = batches.Connection(self.broker.address), time.monotonic()
        try:
            _, _, records = batches.fetch(connection, "crash-probe", 0, 0, 1)
            batch = records[: batches.parse(records)[0].bytes]
            while True:
                code, message = produce(connection, "crash-probe", batch)
                if is_wanted(code, message):
                    return code, message, time.monotonic() - began
                if time.monotonic() - began > seconds:
                    return None
                time.sleep(0.02)
        finally:
            connection.close()

    def check_others(self, when):
        """Reads, commits and metadata of a directory without room. What does not go on is a violation."""
        try:
            AdminClient(self.client()).list_topics(timeout=10)
            low, high = self.read_watermarks(patient=True)[("crash-a", 0)]
            consumer = Consumer(self.client(**{"group.id": "crash-full", "enable.auto.commit": False}))
            try:
                place = TopicPartition("crash-a", 0, low)
                consumer.assign([place])
                if high > low and not consumer.consume(100, 10):
                    self.violations.add("stuck", f"{when}: nothing of crash-a was served within 10 s")
                self.commits += 1
                place.offset = self.commits
                consumer.commit(offsets=[place], asynchronous=False)
                found = consumer.committed([TopicPartition("crash-a", 0)], timeout=10)[0].offset
            finally:
                consumer.close()
            if found != self.commits:
                self.violations.add("lost", f"{when}: {self.commits} was committed, {found} is there")
        except KafkaException as problem:
            self.violations.add("stuck", f"{when}: {problem}")

    def check_log(self, when, begin, expected):
        """The broker logs no error but the one expected, and that one; it is still there."""
        if self.broker.process.poll() is not None:
            self.violations.add("ended", f"{when}: the broker ended by itself with {self.broker.process.returncode}")
        with open(self.broker.log_path, encoding="utf-8", errors="replace") as file:
            file.seek(begin)
            errors = [line.strip() for line in file if line.startswith("ERROR")]
        for line in errors:
            if expected is None or expected not in line:
                self.violations.add("error", f"{when}: the broker says {line}")
        if expected is not None and not any(expected in line for line in errors):
            self.violations.add("error", f"{when}: the broker does not say {expected!r}")

    def restart(self):
        """The broker is killed if it still runs, and started on what is durable."""
        if self.broker.process.poll() is None:
            self.broker.process.send_signal(signal.SIGKILL)
        else:
            self.ended += 1
        self.broker.process.wait()
        self.disk.unmount()
        self.disk.mount()
        self.broker.start()
        self.broker.wait_answers()
        self.probe()

    def has_refused(self):
        return "full" in self.counts

    def verdict(self):
        bad = super().verdict()
        print(f"faults {self.counts}, the broker ended by itself {self.ended} times")
        return bad

    def close(self):
        super().close()
        self.disk.unmount()


def produce(connection, topic, batch):
    """Error code and message of one Produce, version 8, to partition 0."""
    name = topic.encode()
    body = struct.pack(">hhiih", -1, -1, 10_000, 1, len(name)) + name + struct.pack(">iii", 1, 0, len(batch)) + batch
    reply = connection.call(0, 8, body)
    code, at = struct.unpack_from(">h", reply, 10 + len(name) + 4)[0], 10 + len(name) + 4 + 2 + 24
    for _ in range(struct.unpack_from(">i", reply, at)[0]):
        at += 6 + max(0, struct.unpack_from(">h", reply, at + 8)[0])
    at += 4
    length = struct.unpack_from(">h", reply, at)[0]
    return code, reply[at + 2 : at + 2 + max(length, 0)].decode()


class LieLoop(CutLoop):
    """One cut after syncs that kept nothing. What the checker says is the result."""

    def convict(self):
        self.open()
        time.sleep(3.0)
        self.read_notes()
        honest = len(self.acks)
        self.disk.ask("lie")
        time.sleep(3.0)
        answer = self.disk.ask("cut")
        self.read_notes()
        lied = len(self.acks) - honest
        if honest == 0 or lied == 0:
            raise loop.Failed(f"{honest} records were acknowledged before the lie and {lied} during it: the load never ran")
        # Clients would write again what was lost before it is missed.
        for _kind, child in self.children:
            child.kill()
            child.wait()
        self.children = []
        self.read_notes()
        self.read_served()
        self.restart()
        marks = self.read_watermarks(patient=True)
        convicted = self.keep(marks)
        logs = self.read_logs(marks)
        idempotent = {number for number, style in enumerate(payload.STYLES) if style.idempotent}
        starts = {place: low for place, (low, _high) in marks.items() if place[0] in (payload.SHORT, payload.TRIMMED)}
        judged = checker.judge(logs, self.acks, self.served, idempotent, starts)
        lost = judged.counts.get("lost", 0)
        print(f"{answer}; {lied} records were acknowledged on syncs that kept nothing; the checker misses {lost} records and "
              f"{len(convicted)} marks went back")  # fmt: skip
        return lost > 0 and len(convicted) > 0


def convicts(work, port, seed, command, program):
    one, good = LieLoop(work, port, seed, command, "lie", program), False
    try:
        good = one.convict()
    except loop.Failed as problem:
        print(f"FAIL power-cuts --mode lie: {problem}")
    finally:
        one.close()
    if good and not os.environ.get("KEEP"):
        shutil.rmtree(work, ignore_errors=True)
    print(f"{int(good)} passed, {int(not good)} failed")
    return 0 if good else 1


def main():
    signal.signal(signal.SIGTERM, loop.interrupted)
    signal.signal(signal.SIGINT, loop.Ending.ask)
    work, port, cycles, seconds, seed = sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:6])
    mode, program = sys.argv[6], sys.argv[7]
    command = sys.argv[sys.argv.index("--") + 1 :]
    if mode == "lie":
        return convicts(work, port, seed, command, program)
    return loop.drive(CutLoop(work, port, seed, command, mode, program), "power-cuts", cycles, seconds, seed)


if __name__ == "__main__":
    sys.exit(main())
