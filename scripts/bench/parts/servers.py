"""The servers that are measured: how each is started, pinned, kept still while another is measured, and ended.

How it works:
1. A server is a process on the cores given, with a data directory of its own. Ready is when it answers ApiVersions.
2. A `Fleet` keeps those that several rows share. Only the one in turn runs; the others are stopped by SIGSTOP, so that neither their
   timers nor what they still write disturb it. What they owe they pay in their own next turn, before its warm-up ends.
3. Kafka's two columns are one process: `kafka-flush` makes its topics with flush.messages=1, which log.flush.interval.messages is the
   default of. So both come from one warm JVM.

Invariants: only processes that were started here get signals; every data directory goes away with its server.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from answers import answers

TICKS = os.sysconf("SC_CLK_TCK")
READY_S = {"bare": 180, "millrace": 60, "kafka": 180}
# Kafka's own start script says G1; without a word the JVM takes the serial collector on one core.
JVM = ["-Xms1G", "-Xmx1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
# Deleted topics leave the disk between runs, not a minute later.
KAFKA_LINES = ["log.segment.delete.delay.ms=200"]
# A broker that stood still is not taken for dead. Not for one that is killed: its successor would wait for that session's end.
STANDS_STILL = ["broker.session.timeout.ms=86400000"]
FLUSH = {"kafka-flush": {"flush.messages": "1"}}


class Hole(Exception):
    """A result that could not be had; the message says why."""


def free_port():
    for _ in range(200):
        port = random.randrange(10240, 32768)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Hole("no free port below 32768")


def pinned(cores, command):
    """`command`, bound to `cores`; the process is the command's own."""
    return ["taskset", "-c", ",".join(map(str, sorted(cores))), *map(str, command)]


@dataclass(frozen=True)
class Kind:
    """Which server a row starts by itself, and on which cores."""

    kind: str
    cores: list


class Server:
    """One process of a kind (bare, millrace, kafka) with its data below `folder`.

    `settings` are lines of Kafka's server.properties, or Millrace's --set; `shards` is Millrace's; `bare_bytes` the bare server writes into,
    and `reads_bytes` it has to be read. `reads` is where that is: the bare server has a second address for it, brokers have one for all."""

    def __init__(self, kind, folder, cores, settings=(), shards=1, bare_bytes=2 << 30, reads_bytes=64_000_000):
        self.kind, self.folder, self.cores = kind, folder, set(cores)
        self.settings, self.shards, self.bare_bytes, self.reads_bytes = list(settings), shards, bare_bytes, reads_bytes
        self.process = None
        self.address = f"127.0.0.1:{free_port()}"
        self.reads = f"127.0.0.1:{free_port()}" if kind == "bare" else self.address
        os.makedirs(folder, exist_ok=True)
        self.command = getattr(self, f"_{kind}")()

    @property
    def pid(self):
        return self.process.pid

    @property
    def data(self):
        return f"{self.folder}/data"

    def _bare(self):
        command = [os.environ["BENCH_BIN"], "bare", "--listen", self.address, "--file", f"{self.folder}/bare.dat", "--bytes", str(self.bare_bytes)]
        return [*command, "--reads", self.reads, "--reads-bytes", str(self.reads_bytes)]

    def _millrace(self):
        os.makedirs(self.data, exist_ok=True)
        command = [os.environ["MILLRACE"], "start", "--data-dir", self.data, "--kafka-addr", self.address, "--shards", str(self.shards)]
        return command + [word for setting in self.settings for word in ("--set", setting)]

    def _kafka(self):
        port = self.address.rpartition(":")[2]
        done = subprocess.run([os.environ["RUN"], "format-kafka", self.folder, port, *KAFKA_LINES, *self.settings], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Hole(f"formatting Kafka's storage failed: {done.stderr.strip()[-300:]}")
        log4j = f"-Dlog4j2.configurationFile={os.environ['LIB_DIR']}/peer/log4j2.properties"
        return ["java", *JVM, "-cp", f"{os.environ['BROKER_LIBS']}/*", "-Dpeer.log.level=warn", log4j, "kafka.Kafka", f"{self.folder}/server.properties"]

    def launch(self):
        """Starts the process and returns at once."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE")}
        with open(f"{self.folder}/server.log", "ab") as log:
            self.process = subprocess.Popen(pinned(self.cores, self.command), stdout=log, stderr=log, env=env)

    def start(self):
        self.launch()
        deadline = time.monotonic() + READY_S[self.kind]
        while not answers(self.address):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Hole(f"{self.kind} did not start: {self.last_words()}")
            time.sleep(0.05)
        return self

    def last_words(self):
        with open(f"{self.folder}/server.log", encoding="utf-8", errors="replace") as log:
            return " | ".join(line.strip() for line in log.readlines()[-3:])[-400:]

    def lives(self):
        return self.process is not None and self.process.poll() is None

    def still(self):
        if self.lives():
            self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        if self.lives():
            self.process.send_signal(signal.SIGCONT)

    def end(self, how=signal.SIGTERM):
        """Ends the process; its data stay."""
        if not self.lives():
            return
        self.process.send_signal(how)
        self.go_on()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def remove(self):
        self.end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def cpu_s(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mib(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024

    def files(self, suffix):
        """Sizes of the files below its data whose names end with `suffix`; one that goes away meanwhile is left out."""
        for folder, _, names in os.walk(self.data):
            for name in names:
                if name.endswith(suffix):
                    try:
                        yield os.stat(os.path.join(folder, name)).st_size
                    except FileNotFoundError:
                        continue

    def forget_page_cache(self):
        """Writes its files out and has the page cache drop them."""
        for folder, _, names in os.walk(self.data):
            for name in names:
                try:
                    file = os.open(os.path.join(folder, name), os.O_RDONLY)
                except FileNotFoundError:
                    continue
                try:
                    os.fdatasync(file)
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(file)


class Fleet:
    """Servers by name, started when they are first asked for; one runs at a time."""

    def __init__(self, work, warm):
        self.work, self.warm = work, warm
        self.servers, self.current, self.starts = {}, None, 0

    def get(self, name, **how):
        """The server `name`, running, with all others still. One that has ended is started again on an empty data directory."""
        server = self.servers.get(name)
        if self.current is not None and self.current is not server:
            self.current.still()
        if server is None or not server.lives():
            if server is not None:
                print(f"{name} has ended and is started again: {server.last_words()}", file=sys.stderr)
                server.remove()
            self.starts += 1
            server = Server(folder=f"{self.work}/{name}-{self.starts}", **how)
            self.servers[name] = self.current = server
            try:
                server.start()
                self.warm(server)
            except BaseException:
                # One that is half warm would be measured as if it were warm.
                server.remove()
                raise
        server.go_on()
        self.current = server
        return server

    def rest(self):
        """All stand still."""
        for server in self.servers.values():
            server.still()
        self.current = None

    def remove(self):
        for server in self.servers.values():
            server.remove()
        self.servers.clear()
        self.current = None
