"""The checks of matrix.py through the program kcat.

kcat has no admin API: topics are made with confluent-kafka here, except in the check of its own, where the broker creates one on
first use. It sends no explicit timestamps, one set of headers per run, and -Z turns every empty field into null; so the records
it gets have printable payloads, no headers but in the check made for them, and no empty fields.
"""

import json
import re
import signal
import subprocess
import sys
import threading

from confluent_kafka.admin import AdminClient, NewTopic

import matrix
from matrix import expect
from records import Kinds, Seen


def seen(line):
    one = json.loads(line)
    names = one.get("headers", [])
    headers = [(names[at], names[at + 1].encode()) for at in range(0, len(names), 2)]
    text = lambda field: None if one[field] is None else one[field].encode()
    return Seen(one["partition"], one["offset"], text("key"), text("payload"), headers, one["ts"])


class Member:
    """One `kcat -G` process. SIGTERM makes it commit and leave."""

    REBALANCE = re.compile(r"rebalanced \(memberid [^)]*\): (assigned|revoked): ?(.*)$")

    def __init__(self, bootstrap, topic, group):
        command = ["kcat", "-E", "-b", bootstrap, "-G", group, "-J", "-u", "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=200", topic]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lock, self.got, self.held, self.talk = threading.Lock(), [], set(), []
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.read_records, self.read_talk)]
        for thread in self.threads:
            thread.start()

    def read_records(self):
        for line in self.process.stdout:
            with self.lock:
                self.got.append(seen(line))

    def read_talk(self):
        for line in self.process.stderr:
            with self.lock:
                self.talk.append(line.strip())
                found = self.REBALANCE.search(line.strip())
                if found:
                    parts = {int(number) for number in re.findall(r"\[(\d+)\]", found[2])}
                    self.held = parts if found[1] == "assigned" else set()

    def assigned(self):
        expect(self.process.poll() is None, f"kcat -G ended: {self.talk[-3:]}")
        with self.lock:
            return set(self.held)

    def drain(self):
        with self.lock:
            got, self.got = self.got, []
            return got

    def leave(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(matrix.WAIT_SECONDS)
        for thread in self.threads:
            thread.join(5)


class Live:
    """A `kcat -P` for each partition and each send, since kcat reads lines in blocks and only its end says that all was acknowledged. It waits for
    a broker that is away. kcat says nothing of offsets; per partition it sends in the order given."""

    def __init__(self, bootstrap, codec, idempotent):
        self.command = ["kcat", "-b", bootstrap, "-P", "-E", "-Z", "-K", "\t", "-X", "acks=all", "-X", "linger.ms=20"]
        self.command += ["-X", "topic.partitioner=murmur2_random"]
        self.command += ["-X", "enable.idempotence=true"] if idempotent else []
        self.command += [] if codec == "none" else ["-z", codec]

    def send(self, topic, records):
        groups = {}
        for one in records:
            groups.setdefault(one.partition, []).append(one)
        field = lambda value: "" if value is None else value.decode()
        for partition, some in groups.items():
            where = ["-t", topic] + ([] if partition is None else ["-p", str(partition)])
            text = "".join(f"{field(one.key)}\t{field(one.value)}\n" for one in some)
            done = subprocess.run([*self.command, *where], input=text, capture_output=True, text=True, timeout=matrix.WAIT_SECONDS)
            expect(done.returncode == 0, f"kcat -P exits {done.returncode}: {done.stderr.strip()[-300:]}")
        return [(one.partition, None if one.partition is not None else index) for index, one in enumerate(records)]

    def close(self):
        pass


class Driver:
    name = "kcat"
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    idempotent = True
    kinds = Kinds(timestamps=False, headers=False, empties=False, binary=False)
    none_is_end = True

    def __init__(self):
        self.bootstrap = matrix.bootstrap()
        shown = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"Version (\S+) .*librdkafka (\S+)", shown)
        self.version = f"{version[1]} (librdkafka {version[2]})"
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self.extra = [("headers and tombstones", self.check_headers), ("a topic made on first use", self.check_auto_create)]

    def run(self, *arguments, text="", seconds=matrix.WAIT_SECONDS):
        done = subprocess.run(["kcat", "-b", self.bootstrap, *arguments], input=text, capture_output=True, text=True, timeout=seconds)
        expect(done.returncode == 0, f"kcat {' '.join(arguments)} exits {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def create(self, topic, partitions):
        self.admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(30)

    def partitions(self, topic):
        found = [one for one in json.loads(self.run("-L", "-J"))["topics"] if one["topic"] == topic]
        return len(found[0]["partitions"]) if found else 0

    def live(self, codec, idempotent):
        return Live(self.bootstrap, codec, idempotent)

    def produce(self, topic, records, codec, idempotent):
        return self.live(codec, idempotent).send(topic, records)

    def consume(self, topic, starts, count):
        got = []
        for partition, offset in starts.items():
            output = self.run("-C", "-t", topic, "-p", str(partition), "-o", str(offset), "-e", "-q", "-J", "-X", "check.crcs=true")
            got += [seen(line) for line in output.splitlines()]
        expect(len(got) == count, f"{count} records are there, kcat read {len(got)}")
        return got

    def times(self, topic, partitions, timestamp):
        asked = [part for p in range(partitions) for part in ("-t", f"{topic}:{p}:{timestamp}")]
        found = {int(p): int(offset) for p, offset in re.findall(r"\[(\d+)\] offset (-?\d+)", self.run("-Q", *asked))}
        for partition, offset in found.items():
            if offset == -1:  # the end; ask for it by its name
                end = self.run("-Q", "-t", f"{topic}:{partition}:-1")
                found[partition] = int(re.search(r"offset (-?\d+)", end)[1])
        return found

    def take(self, topic, group, count):
        output = self.run("-G", group, "-c", str(count), "-q", "-J", "-X", "auto.offset.reset=earliest", topic)
        return [seen(line) for line in output.splitlines()]

    def member(self, topic, group):
        return Member(self.bootstrap, topic, group)

    def check_headers(self):
        topic = matrix.fresh("headers")
        self.create(topic, 1)
        self.run("-P", "-t", topic, "-p", "0", "-K", "\t", "-Z", "-H", "a=1", "-H", "same=first", "-H", "same=second", text="k\tv\ngone\t\n")
        got = self.consume(topic, {0: 0}, 2)
        want = [("a", b"1"), ("same", b"first"), ("same", b"second")]
        expect([one.headers for one in got] == [want, want], f"headers {want} sent, {[one.headers for one in got]} read")
        expect([(one.key, one.value) for one in got] == [(b"k", b"v"), (b"gone", None)], f"a record and a tombstone sent, {got} read")

    def check_auto_create(self):
        topic = matrix.fresh("first-use")
        self.run("-P", "-t", topic, text="one\n")
        got = self.run("-C", "-t", topic, "-o", "beginning", "-e", "-q")
        expect(got == "one\n", f"'one' sent to a topic made on first use, {got!r} read")

    def close(self):
        pass


if __name__ == "__main__":
    sys.exit(matrix.run(Driver()))
