"""Measures brokers one after the other in rounds (A B C A B C ...) and prints the medians. Started by scripts/bench/librdkafka.

How it works: in every round each system gets a fresh data directory and a fresh process, is warmed with 64 MB, and goes through all
measurements of `measure`. CPU seconds are user + system time of the broker's process from /proc/PID/stat. Rounds end early when the time
budget would not allow another one.

Invariants: only one broker runs at a time; the client and its settings are the same for all.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from table import table

TICK = os.sysconf("SC_CLK_TCK")


class Broken(Exception):
    """A measurement could not be made; the message says which and why."""


def free_port():
    for _ in range(200):
        port = random.randrange(10240, 32768)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Broken("no free port below 32768")


class System:
    """One broker: how to prepare a data directory and which command runs it."""

    def __init__(self, kind, binary):
        self.kind, self.binary = kind, binary
        self.process = self.command = None

    def prepare(self, work):
        port = free_port()
        self.address, self.log = f"127.0.0.1:{port}", open(f"{work}/broker.log", "ab")
        if self.kind == "millrace":
            os.makedirs(f"{work}/data")
            self.command = [self.binary, "start", "--data-dir", f"{work}/data", "--kafka-addr", self.address]
            return
        extra = ["log.flush.interval.messages=1"] if self.kind == "kafka-flush" else []
        subprocess.run([os.environ["RUN"], "format-kafka", f"{work}/broker", str(port), *extra], check=True, stdout=sys.stderr)
        self.command = ["java", "-Xms1G", "-Xmx1G", "-cp", f"{os.environ['LIBS']}/*", f"-Dlog4j2.configurationFile={os.environ['LIB_DIR']}/peer/log4j2.properties"]
        self.command += ["kafka.Kafka", f"{work}/broker/server.properties"]

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, start_new_session=True)

    def stop(self, how):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def load(self, *words):
        done = subprocess.run([os.environ["LOAD"], self.address, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            raise Broken(f"{self.kind}: load {words[0]} exits {done.returncode}: {done.stderr.strip()}")
        return dict(word.split("=") for word in done.stdout.split())

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return int(next(line for line in file if line.startswith("VmRSS")).split()[1]) / 1024

    def with_cpu(self, *words):
        """The client's answer, and the broker's CPU seconds per GB meanwhile."""
        before = self.cpu()
        answer = self.load(*words)
        return answer, (self.cpu() - before) / (int(answer["bytes"]) / 1e9)


def measure(system, sizes):
    """All rows of one system on a fresh data directory: (row, figure) to value, as table.py names them."""
    figures = {}
    began = time.monotonic()
    system.start()
    system.load("topic", "first", 1)
    system.load("first", "first")
    figures["rd-start", "acknowledged_s"] = time.monotonic() - began
    time.sleep(2)
    figures["rd-idle", "rss_mib"] = system.rss()
    system.load("topic", "warm", 1)
    system.load("produce", "warm", 1, 64, sizes.seconds)
    system.load("topic", "one", 1)
    answer, figures["rd-one", "server_cpu_s_per_gb"] = system.with_cpu("produce", "one", 1, sizes.one, sizes.seconds)
    figures["rd-one", "mb_per_s"] = float(answer["mb_s"])
    answer, figures["rd-fetch", "server_cpu_s_per_gb"] = system.with_cpu("consume", "one", 1, int(answer["bytes"]) // 1_000_000)
    figures["rd-fetch", "mb_per_s"] = float(answer["mb_s"])
    system.load("topic", "slow", 1)
    answer = system.load("latency", "slow", sizes.sends, 100)
    for name in ("p50", "p99"):
        figures["rd-latency", f"{name}_ms"] = float(answer[f"{name}_us"]) / 1000
    system.load("topic", "many", sizes.partitions)
    system.load("produce", "many", sizes.partitions, sizes.partitions * 66 // 1000 + 1, 60)  # a record in each partition first, else making the files is what is measured
    answer, figures["rd-many", "server_cpu_s_per_gb"] = system.with_cpu("produce", "many", sizes.partitions, sizes.many, sizes.seconds)
    figures["rd-many", "mb_per_s"] = float(answer["mb_s"])
    killed = time.monotonic()
    system.stop(signal.SIGKILL)
    system.start()
    system.load("first", "first")
    figures["rd-restart", "acknowledged_s"] = time.monotonic() - killed
    return figures


def one_round(system, sizes):
    work = tempfile.mkdtemp(prefix="bench-")
    try:
        system.prepare(work)
        return measure(system, sizes)
    except Broken:
        with open(f"{work}/broker.log", encoding="utf-8", errors="replace") as file:
            print("".join(file.readlines()[-5:]), file=sys.stderr)
        raise
    finally:
        system.stop(signal.SIGTERM)
        shutil.rmtree(work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one round, small amounts, 100 partitions for the many, below three minutes on a quiet machine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default="millrace,kafka,kafka-flush")
    parser.add_argument("--keep", help="a file to which every single result is appended, one JSON line each")
    parser.add_argument("--binary", required=True)
    options = parser.parse_args()
    kinds = options.systems.split(",")
    if unknown := set(kinds) - {"millrace", "kafka", "kafka-flush"}:
        parser.error(f"unknown system {sorted(unknown)}: take of millrace, kafka, kafka-flush")
    if "millrace" in kinds and not os.access(options.binary, os.X_OK):
        parser.error(f"{options.binary} is not there: build it with 'cargo build --release', name another in MILLRACE_BIN, or choose --systems")
    full = argparse.Namespace(one=1100, partitions=1000, many=400, sends=5000, seconds=20)
    quick = argparse.Namespace(one=200, partitions=100, many=50, sends=500, seconds=4)
    sizes, rounds, budget = (quick, 1, 170) if options.quick else (full, options.rounds, 870)
    began, results, slowest = time.monotonic(), [], 0.0
    try:
        for number in range(rounds):
            if time.monotonic() - began + slowest > budget:
                print(f"{number} rounds instead of {rounds}: another would pass the budget of {budget} s", file=sys.stderr)
                break
            start = time.monotonic()
            for kind in kinds:
                print(f"round {number + 1}: {kind}", file=sys.stderr, flush=True)
                figures = one_round(System(kind, options.binary), sizes)
                results += [{"server": kind, "row": row, "round": number + 1, "result": {figure: value}} for (row, figure), value in figures.items()]
            slowest = max(slowest, time.monotonic() - start)
    except Broken as problem:
        print(f"FAIL bench: {problem}", file=sys.stderr)
        return 1
    if options.keep:
        with open(options.keep, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(result) + "\n" for result in results)
    print(table(results))
    load = os.getloadavg()[0]
    print(f"\n{results[-1]['round']} rounds, {time.monotonic() - began:.0f} s, {os.cpu_count()} cores, load average at the end {load:.1f}, "
          f"{sizes.one} MB on 1 partition, {sizes.many} MB on {sizes.partitions} (the many), {sizes.sends} sends")  # fmt: skip
    return 0


if __name__ == "__main__":
    # A run that is ended cleans up after itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
