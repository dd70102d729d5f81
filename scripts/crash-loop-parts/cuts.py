"""The crash loop on a directory that loses power: faultfs (tools/faultfs) instead of kill -9. Started by scripts/power-cuts.

Usage: cuts.py WORK PORT CYCLES SECONDS SEED MODE FAULTFS -- COMMAND... (the broker, its data directory below WORK/mount)

Each cycle does one thing to the directory under load, kills what is left of the broker, mounts what is durable, and starts the broker on it:
  cut        power fails: of what was not synced a random part is kept, every operation gets EIO until the broker is killed
  fail-sync  one sync fails, and later ones succeed without what that one lost; or every sync fails
  fail-io    every read, write and sync gets EIO
  mixed      four cuts to one of each other kind
  short      three cuts, a fail-sync and a fail-io, in this order
  lie        syncs keep nothing, then power fails: one cycle, after which the checker must convict; the run passes only if it does
The promises are those of loop.py: nothing acknowledged is lost, doubled, altered or moved, whatever the disk did. A broker may end by itself
once its directory fails.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time

import checker
import loop
import payload

ANSWER_SECONDS = 120
KINDS = {"cut": ["cut"], "fail-sync": ["once", "always"], "fail-io": ["io"], "mixed": ["cut", "cut", "cut", "cut", "once", "always", "io"]}
SHORT = [KINDS["cut"], KINDS["cut"], KINDS["cut"], KINDS["fail-sync"], KINDS["fail-io"]]
COMMANDS = {"cut": "cut", "once": "fail-sync once", "always": "fail-sync always", "io": "fail-io", "lie": "lie"}


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
        self.counts, self.ended = {}, 0

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
        wait = self.rng.uniform(0.2, 3.0)
        began = time.monotonic()
        if wait > 0.6:
            for one in self.keep(self.read_watermarks(patient=False)):
                self.violations.add(one.kind, f"before the fault of cycle {number}: {one.line}")
        time.sleep(max(0.0, began + wait - time.monotonic()))
        answer = self.disk.ask(COMMANDS[kind])
        self.counts[kind] = self.counts.get(kind, 0) + 1
        # Time for an answer that must not be given.
        time.sleep(self.rng.uniform(0.0, 0.4) if kind == "cut" else self.rng.uniform(0.2, 1.5))
        killed = time.monotonic()
        self.restart()
        self.restarts.append(time.monotonic() - killed)
        self.check_marks(f"cycle {number} ({kind})")
        self.check_children()
        print(f"cycle {number}: {answer}; back in {self.restarts[-1]:.2f} s, {len(self.acks)} acknowledged so far", flush=True)

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

    def verdict(self):
        bad = super().verdict()
        print(f"faults {self.counts}, the broker ended by itself {self.ended} times")
        return bad

    def close(self):
        super().close()
        self.disk.unmount()


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
