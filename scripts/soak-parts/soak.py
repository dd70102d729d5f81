"""The soak: load, samples, verdict. Started by scripts/soak. Usage: soak.py WORK BOOTSTRAP PID MINUTES BUSY MEMORY

How it works:
1. Four producer processes write to topics that keep some bytes a partition (Topic); two groups tail them and commit. Beside them a manager
   makes, fills and deletes small topics, deletes records of a topic, and fills one that is kept by time; of a third group one member joins
   and leaves (clients.py). A governor reads how busy the machine is (/proc/stat) once a second and moves the producers' common rate until BUSY
   percent are reached.
2. Once a second: the bytes of each partition's segments, and by how much its files grew. Sixty times a minute, but at most every 5 s: the
   broker's memory (RSS), descriptors and threads.
3. Verdict, once the first fifth has warmed everything up: what is sampled does not grow from the second fifth to the last (memory, which fills at
   first, in a run of LONG_MINUTES), and memory is never above MEMORY (memory.max.bytes) and BESIDE; no partition ever holds more than its bound
   (Topic.bound); in every partition much more was written than is kept, and the log start moved; no client saw an error; nothing is left of a
   deleted topic; in a run of LONG_MINUTES the machine was as busy as asked.
Knows nothing of the records: the crash loop proves those.
"""

import ctypes
import json
import multiprocessing
import os
import re
import signal
import statistics
import sys
import time
from collections import namedtuple

from confluent_kafka import Consumer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import clients

MIB = 1 << 20
SEGMENT_MIN = MIB
GROWTH_BYTES, GROWTH_SHARE = 32 * MIB, 0.10
# The program and its stacks, connections, partitions, and what a handler holds for the time of one request.
BESIDE = 96 * MIB
# Retention looks twice a second (scripts/soak sets it); what it decides is journaled, then files are unlinked: all within the LOOK_SECONDS
# after which the files are looked at.
LOOK_SECONDS = 1
TIMED_SECONDS = 5
LONG_MINUTES, BUSY_TOLERANCE = 10, 10
TIMES_KEPT = 2
FOLDERS_SECONDS = 10
# The folder of the metadata (META_TOPIC in engine/base/src/ids.rs).
REPLICA_SET_0 = "AAAAAAAAQACAAAAAAAAAAQ"


class Topic(namedtuple("Topic", "partitions retention segment looks")):
    """`retention`: bytes that a partition keeps. `looks`: what is written between so many looks at its files stays besides."""

    def bound(self, grown):
        """Bytes that a partition may hold whose files grow by `grown` at most from one look to the next. A segment goes when the others have
        `retention` bytes without it, so that one more than that stays, and all that comes until retention has looked and the file is gone."""
        return self.retention + self.segment + grown * self.looks

    def config(self):
        if self.retention:
            return {"retention.bytes": str(self.retention), "segment.bytes": str(self.segment), "retention.ms": "-1"}
        return {"segment.bytes": str(self.segment), "retention.ms": "-1"}


def topics_for(minutes):
    """As much as a run of that length writes many times over, even where the machine is slow: 2 MiB a minute and partition in the widest topic, the
    same in all of a narrower one."""
    step = int(2 * MIB * min(max(minutes, 1), 16))
    counts = {"soak-a": 1, "soak-b": 4, "soak-c": 16}
    kept = {name: step * max(counts.values()) // count for name, count in counts.items()}
    return {name: Topic(count, kept[name], max(kept[name] // 4, SEGMENT_MIN), 1) for name, count in counts.items()}


# Records of a pass are deleted at its end, a second or so after those of the one before.
TRIMMED = {"soak-trim": Topic(2, 0, SEGMENT_MIN, 3)}
TIMED = {"soak-time": Topic(1, 0, SEGMENT_MIN, TIMED_SECONDS // LOOK_SECONDS + 1)}


def busy_ticks():
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Broker:
    def __init__(self, pid):
        self.pid = pid

    def sample(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            status = file.read()
        number = lambda key: int(re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE).group(1))
        return {"rss": number("VmRSS") << 10, "descriptors": len(os.listdir(f"/proc/{self.pid}/fd")), **self.threads()}

    def threads(self):
        """The broker's own, and those that the kernel runs for its rings, which come and go with blocking work."""
        names = []
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{thread}/comm", encoding="ascii") as file:
                    names.append(file.read())
            except FileNotFoundError:
                pass  # it has just ended
        workers = sum(name.startswith("iou-") for name in names)
        return {"threads": len(names) - workers, "workers": workers}


class Held:
    """One partition's segments: the most that they held, all that was ever written to them, the most from one look to the next."""

    def __init__(self):
        self.sizes, self.most, self.written, self.grown = {}, 0, 0, 0

    def look(self, sizes):
        grown = sum(max(0, size - self.sizes.get(name, 0)) for name, size in sizes.items())
        self.sizes, self.most = sizes, max(self.most, sum(sizes.values()))
        self.written, self.grown = self.written + grown, max(self.grown, grown)


class Disk:
    """The segments below a data directory, without what is reserved ahead of them."""

    def __init__(self, data, names):
        """names: {folder of a topic: its name}; the folders of others are not looked into."""
        self.data, self.names, self.held = data, names, {}

    def folders(self):
        return {name for name in os.listdir(self.data) if os.path.isdir(f"{self.data}/{name}") and name != "journal"}

    def look(self):
        # A topic's folder comes with its first segment.
        for folder, topic in self.names.items():
            for partition in os.listdir(f"{self.data}/{folder}") if os.path.isdir(f"{self.data}/{folder}") else []:
                self.held.setdefault((topic, int(partition)), Held()).look(sizes(f"{self.data}/{folder}/{partition}"))


def folder_of(topic):
    """A topic id as Kafka writes it; the client's own text has the other base64."""
    return str(topic.topic_id).rstrip("=").replace("+", "-").replace("/", "_")


def sizes(folder):
    found = {}
    for name in os.listdir(folder):
        if name.endswith(".log"):
            try:
                found[name] = os.stat(f"{folder}/{name}").st_size
            except FileNotFoundError:
                pass  # retention was quicker
    return found


def fifths(samples, key):
    """Medians of the second and of the last fifth."""
    size = len(samples) // 5
    return tuple(statistics.median(one[key] for one in part) for part in (samples[size : 2 * size], samples[-size:]))


class Soak:
    def __init__(self, work, bootstrap, pid, minutes, busy, memory):
        self.work, self.bootstrap, self.minutes, self.busy, self.memory = work, bootstrap, minutes, busy, memory
        self.main = topics_for(minutes)
        self.topics = self.main | TRIMMED | TIMED
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.broker, self.faults, self.samples, self.load = Broker(pid), [], [], []
        self.rate, self.stop = multiprocessing.Value(ctypes.c_double, 8e6), multiprocessing.Event()
        self.produced, self.consumed = [self.counts() for _ in clients.STYLES], [self.counts() for _ in range(2)]
        self.others = {"manager": self.counts(), "member": self.counts(), "joiner": self.counts()}

    @staticmethod
    def counts():
        return multiprocessing.Array(ctypes.c_longlong, 2)

    def create(self):
        timed = {"retention.ms": str(1000 * TIMED_SECONDS)}
        configs = {name: topic.config() | (timed if name in TIMED else {}) for name, topic in self.topics.items()}
        for future in self.admin.create_topics([NewTopic(name, self.topics[name].partitions, 1, config=config) for name, config in configs.items()]).values():
            future.result(30)
        found = self.admin.describe_topics(TopicCollection(list(self.topics)))
        self.disk = Disk(f"{self.work}/data", {folder_of(future.result(30)): name for name, future in found.items()})

    def start_clients(self):
        count = lambda topics: {name: topic.partitions for name, topic in topics.items()}
        main, bootstrap, stop = count(self.main), self.bootstrap, self.stop
        work = [(clients.produce, (bootstrap, at, main, self.rate, counts, stop)) for at, counts in enumerate(self.produced)]
        work += [(clients.consume, (bootstrap, f"soak-{at}", main, counts, stop)) for at, counts in enumerate(self.consumed)]
        work += [
            (clients.manage, (bootstrap, count(TRIMMED), count(TIMED), self.others["manager"], stop)),
            (clients.consume, (bootstrap, "soak-joined", ["soak-b"], self.others["member"], stop)),
            (clients.join, (bootstrap, "soak-joined", ["soak-b"], self.others["joiner"], stop)),
        ]
        self.children = [multiprocessing.Process(target=target, args=arguments) for target, arguments in work]
        for child in self.children:
            child.start()

    def run(self):
        # A short run must write enough on a slow machine too; a long one must be able to leave the machine idle.
        slowest = 8e6 if self.minutes < LONG_MINUTES else 2e6
        period = min(5.0, self.minutes)
        began, sampled, ticks = time.monotonic(), 0.0, busy_ticks()
        while time.monotonic() - began < self.minutes * 60 and not self.stop.is_set():
            time.sleep(LOOK_SECONDS)
            now = busy_ticks()
            share, ticks = 100 * (now[0] - ticks[0]) / max(1, now[1] - ticks[1]), now
            self.load.append(share)
            self.rate.value = min(max(self.rate.value * (1 + max(-0.2, min(0.2, (self.busy - share) / 150))), slowest), 2e9)
            self.disk.look()
            if time.monotonic() - sampled >= period:
                sampled = time.monotonic()
                self.sample(sampled - began)
            if any(not child.is_alive() for child in self.children):
                self.faults.append("a client process ended by itself")
                break
        self.seconds = time.monotonic() - began

    def end(self):
        self.stop.set()
        for child in self.children:
            child.join(120)
            if child.exitcode != 0:
                self.faults.append(f"a client process ended with {child.exitcode}")
                child.kill()

    def sample(self, at):
        written, read = sum(one[0] for one in self.produced), [one[0] for one in self.consumed]
        one = self.broker.sample() | {"at": at, "written": written, "read": read, "busy": self.load[-1], "rate": self.rate.value}
        self.samples.append(one)
        with open(f"{self.work}/samples.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")

    def judge_growth(self):
        if len(self.samples) < 10:
            self.faults.append(f"only {len(self.samples)} samples: a longer run is needed")
            return
        for key in ("rss", "descriptors", "threads", "workers"):
            early, late = fifths(self.samples, key)
            slack = max(GROWTH_BYTES, early * GROWTH_SHARE) if key == "rss" else {"descriptors": 8, "threads": 0, "workers": 16}[key]
            print(f"{key}: second fifth {early:,.0f}, last fifth {late:,.0f}, largest {max(one[key] for one in self.samples):,}")
            if late > early + slack and (key != "rss" or self.minutes >= LONG_MINUTES):
                self.faults.append(f"{key} grew from {early:,.0f} to {late:,.0f}")

        if (most := max(one["rss"] for one in self.samples)) > self.memory + BESIDE:
            self.faults.append(f"{most:,} bytes are resident; memory.max.bytes and what may stand beside it are {self.memory + BESIDE:,}")

    def judge_disk(self):
        starts = self.log_starts()
        for name, topic in self.topics.items():
            of_topic = {place: held for place, held in self.disk.held.items() if place[0] == name}
            for (_, partition), held in sorted(of_topic.items()):
                bound = topic.bound(held.grown)
                if held.most > bound:
                    self.faults.append(f"{name}-{partition} held {held.most:,} bytes, at most {bound:,} were to be")
                if held.written < TIMES_KEPT * (topic.retention + topic.segment):
                    self.faults.append(f"{name}-{partition}: only {held.written:,} bytes were written: retention had little to do")
                if starts[(name, partition)] == 0:
                    self.faults.append(f"{name}-{partition}: {held.written:,} bytes were written and the log start is still 0")
            if len(of_topic) != topic.partitions:
                self.faults.append(f"{name}: segments of {len(of_topic)} of {topic.partitions} partitions were seen")
                continue
            fullest = max(of_topic.values(), key=lambda held: held.most / topic.bound(held.grown))
            least = min(held.written for held in of_topic.values())
            print(f"{name}: {topic.retention:,} bytes a partition are kept in segments of {topic.segment:,}; the fullest held {fullest.most:,} "
                  f"(bound {topic.bound(fullest.grown):,}, it grew by {fullest.grown:,} at most from one look to the next), least written {least:,}")  # fmt: skip

    def log_starts(self):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "soak-watch"})
        places = [(name, partition) for name, topic in self.topics.items() for partition in range(topic.partitions)]
        starts = {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=30, cached=False)[0] for place in places}
        consumer.close()
        return starts

    def judge_folders(self, before):
        """Nothing is left of a deleted topic: no folders but those of before, of the soak's topics, of the groups' commits, and of replica set 0,
        whose records come to a segment after some minutes."""
        names = self.admin.describe_topics(TopicCollection(list(self.admin.list_topics(timeout=30).topics)))
        known, end = before | {REPLICA_SET_0} | {folder_of(future.result(30)) for future in names.values()}, time.monotonic() + FOLDERS_SECONDS
        while (left := self.disk.folders() - known) and time.monotonic() < end:
            time.sleep(0.2)
        if left:
            self.faults.append(f"{len(left)} folders of topics that were deleted are left, as {min(left)}")

    def judge_load(self):
        written, read = sum(one[0] for one in self.produced), [one[0] for one in self.consumed]
        errors = sum(one[1] for one in [*self.produced, *self.consumed, *self.others.values()])
        if errors:
            self.faults.append(f"clients saw {errors} errors")
        warm = self.load[len(self.load) // 5 :]
        busy = statistics.median(warm)
        print(f"written {written / 1e9:.2f} GB in {self.seconds:.0f} s ({written / self.seconds / 1e6:.0f} MB/s), "
              f"read {', '.join(f'{one / 1e9:.2f}' for one in read)} GB, passes of the manager {self.others['manager'][0]}, "
              f"joins {self.others['joiner'][0]}, machine busy median {busy:.0f} % (quarters {quarters(warm)})")  # fmt: skip
        if min(read) < written * 0.9:
            self.faults.append(f"a group read {min(read):,} of {written:,} bytes: retention overtook it")
        if self.minutes >= LONG_MINUTES and abs(busy - self.busy) > BUSY_TOLERANCE:
            self.faults.append(f"the machine was busy for {busy:.0f} % (median), {self.busy} +- {BUSY_TOLERANCE} were asked for")
        for who, (done, _) in self.others.items():
            if done == 0:
                self.faults.append(f"the {who} did nothing")


def quarters(values):
    return ", ".join(f"{one:.0f}" for one in statistics.quantiles(values, n=4)) if len(values) > 1 else "-"


def main():
    soak = Soak(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
    signal.signal(signal.SIGTERM, lambda *_: soak.stop.set())
    soak.create()
    before = soak.disk.folders()
    soak.start_clients()
    try:
        soak.run()
    finally:
        soak.end()
    soak.judge_growth()
    soak.judge_disk()
    soak.judge_folders(before)
    soak.judge_load()
    for fault in soak.faults:
        print(f"FAIL {fault}")
    print(f"soak: {'failed' if soak.faults else 'passed'} after {soak.seconds / 60:.1f} minutes")
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
