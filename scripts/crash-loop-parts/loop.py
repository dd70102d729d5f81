"""The crash loop: start, load, kill -9, restart, N times; then the verdict. Started by scripts/crash-loop.

Usage: loop.py WORK PORT CYCLES SECONDS SEED -- COMMAND... (the broker; the same command on the same directory every time). SECONDS 0: no limit.

How it works:
1. Producers and group members (load.py) run from the first start to after the last restart.
2. Each cycle waits 0.2 to 3 s under load, reading high watermarks meanwhile, kills the broker with SIGKILL and starts it again at once.
   The restart time is from the kill to the first acknowledged record of a probe producer.
3. After each restart: high watermarks and committed offsets have not gone back; every acknowledged offset is below its partition's
   high watermark. At the end checker.judge reads everything.
Only processes started here are ended, by pid. WORK is removed after a run without violations, unless KEEP is set; a failed run keeps it.
"""

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import answers
import checker
import payload

START_SECONDS = 180
CATCH_UP_SECONDS = 120
GROUPS = [0, 1, 1]  # the group of each consumer process
HERE = os.path.dirname(os.path.abspath(__file__))


class Failed(Exception):
    """The run cannot go on; the message is the line for the user."""


class Broker:
    def __init__(self, work, port, command):
        self.address, self.command = f"127.0.0.1:{port}", command
        self.log = open(f"{work}/broker.log", "ab")
        self.log_path = f"{work}/broker.log"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, start_new_session=True)

    def wait_answers(self):
        deadline = time.monotonic() + START_SECONDS
        while not answers.answers(self.address, 0.5):
            if self.process.poll() is not None:
                raise Failed(f"the broker ended by itself with {self.process.returncode}; see {self.log_path}")
            if time.monotonic() > deadline:
                raise Failed(f"the broker did not answer within {START_SECONDS} s; see {self.log_path}")
            time.sleep(0.01)

    def kill(self):
        if self.process.poll() is not None:
            raise Failed(f"the broker ended by itself with {self.process.returncode}; see {self.log_path}")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Loop:
    def __init__(self, work, port, seed, command):
        self.work, self.port, self.rng = work, port, random.Random(seed)
        self.broker = Broker(work, port, command)
        self.children, self.restarts = [], []
        self.places = [(topic, partition) for topic, count in payload.TOPICS.items() for partition in range(count)]
        self.watermarks, self.committed = {}, {}
        self.acknowledged = {}
        producers = range(len(payload.STYLES))
        self.ack_files = [payload.Reader(f"{work}/acks-{n}", payload.PLACE, payload.Ack) for n in producers]
        self.commit_files = [payload.Reader(f"{work}/commits-{100 + n}", payload.COMMIT, payload.Commit) for n in range(len(GROUPS))]
        self.seen_files = [payload.Reader(f"{work}/seen-{100 + n}", payload.PLACE, payload.Seen) for n in range(len(GROUPS))]
        self.acks, self.served, self.positions, self.violations = [], [], {}, checker.Convictions()

    def client(self, **more):
        quick = {"bootstrap.servers": self.broker.address, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 50, "log_level": 0}
        return quick | more

    def open(self):
        self.broker.start()
        self.broker.wait_answers()
        admin = AdminClient(self.client())
        topics = [NewTopic(name, count, 1) for name, count in payload.TOPICS.items()] + [NewTopic("crash-probe", 1, 1)]
        for future in admin.create_topics(topics, operation_timeout=30).values():
            future.result(60)
        self.probe()
        for number in range(len(payload.STYLES)):
            self.spawn("produce", number)
        for index, group in enumerate(GROUPS):
            self.spawn("consume", 100 + index, group)

    def spawn(self, kind, number, *more):
        command = [sys.executable, f"{HERE}/load.py", kind, self.work, str(self.port), str(number), *map(str, more)]
        # Its own session: the terminal's interrupt reaches only the loop, which ends the children itself.
        self.children.append((kind, subprocess.Popen(command, start_new_session=True)))

    def probe(self):
        """Returns once one record of a fresh producer is acknowledged."""
        done = []
        config = self.client(**{"acks": "all", "linger.ms": 0, "retry.backoff.ms": 10, "retry.backoff.max.ms": 50, "message.timeout.ms": START_SECONDS * 1000})
        producer = Producer(config)
        producer.produce("crash-probe", b"probe", on_delivery=lambda error, _message: done.append(error))
        producer.flush(START_SECONDS)
        if done != [None]:
            raise Failed(f"no record was acknowledged within {START_SECONDS} s of the start: {done}")

    def read_watermarks(self, patient):
        """High watermark of every partition; a partition that does not answer is left out unless `patient`."""
        consumer, marks = Consumer(self.client(**{"group.id": "crash-watch"})), {}
        try:
            for topic, partition in self.places:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        marks[(topic, partition)] = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5, cached=False)[1]
                        break
                    except KafkaException as problem:
                        if not patient:
                            break
                        if time.monotonic() > deadline:
                            raise Failed(f"{topic}-{partition} does not answer ListOffsets 60 s after the start: {problem}") from problem
                        time.sleep(0.05)
        finally:
            consumer.close()
        return marks

    def read_committed(self, group):
        consumer, deadline = Consumer(self.client(**{"group.id": f"crash-{group}"})), time.monotonic() + 60
        try:
            while True:
                try:
                    found = consumer.committed([TopicPartition(topic, partition) for topic, partition in self.places], timeout=10)
                    return {(group, one.topic, one.partition): one.offset for one in found}
                except KafkaException as problem:
                    if time.monotonic() > deadline:
                        raise Failed(f"committed offsets of group {group} do not come: {problem}") from problem
                    time.sleep(0.05)
        finally:
            consumer.close()

    def read_notes(self):
        for file in self.ack_files:
            for ack in file.rows():
                ack = ack._replace(topic=payload.NAMES[ack.topic])
                self.acks.append(ack)
                place = (ack.topic, ack.partition)
                self.acknowledged[place] = max(self.acknowledged.get(place, 0), ack.offset + 1)
        for file in self.commit_files:
            for one in file.rows():
                place = (one.group, payload.NAMES[one.topic], one.partition)
                self.committed[place] = max(self.committed.get(place, 0), one.offset)

    def read_served(self):
        for group, file in zip(GROUPS, self.seen_files):
            for one in file.rows():
                one = one._replace(topic=payload.NAMES[one.topic])
                self.served.append(one)
                place = (group, one.topic, one.partition)
                self.positions[place] = max(self.positions.get(place, 0), one.offset + 1)

    def check_marks(self, when):
        """What must hold at any moment the broker answers. Notes are read before the broker is asked."""
        self.read_notes()
        convicted = []
        known = dict(self.committed)
        marks = self.read_watermarks(patient=True)
        convicted += checker.went_back("high watermark", self.watermarks, marks)
        convicted += checker.went_back("high watermark against the last acknowledged offset + 1", self.acknowledged, marks)
        for group in sorted(set(GROUPS)):
            of_group = {place: mark for place, mark in known.items() if place[0] == group}
            convicted += checker.went_back("committed offset", of_group, self.read_committed(group))
        self.keep(marks)
        for one in convicted:
            self.violations.add(one.kind, f"{when}: {one.line}")

    def keep(self, marks):
        for place, mark in marks.items():
            self.watermarks[place] = max(mark, self.watermarks.get(place, 0))

    def cycle(self, number):
        wait = self.rng.uniform(0.2, 3.0)
        kill_at = time.monotonic() + wait
        if wait > 0.6:
            self.keep(self.read_watermarks(patient=False))
        time.sleep(max(0.0, kill_at - time.monotonic()))
        killed = time.monotonic()
        self.broker.kill()
        self.broker.start()
        self.broker.wait_answers()
        self.probe()
        self.restarts.append(time.monotonic() - killed)
        self.check_marks(f"cycle {number}")
        self.check_children()
        print(f"cycle {number}: killed after {wait:.1f} s, back in {self.restarts[-1]:.2f} s, {len(self.acks)} acknowledged so far", flush=True)

    def check_children(self):
        """A client that ended by itself (a fatal error, as sequences lost by the broker) is a violation; the others go on, so that the
        verdict at the end says what happened to the records."""
        for one in [one for one in self.children if one[1].poll() is not None]:
            self.children.remove(one)
            self.violations.add("client", f"a {one[0]} process ended by itself with {one[1].returncode}")

    def fatal_notes(self):
        texts = []
        for name in sorted(os.listdir(self.work)):
            if name.startswith("fatal-"):
                with open(f"{self.work}/{name}", encoding="utf-8") as file:
                    texts += file.read().splitlines()
        return texts

    def settle(self):
        """Lets the producers finish what is under way, then every group read to the end, and ends them."""
        self.end_children("produce", 150)
        ends, deadline = self.read_watermarks(patient=True), time.monotonic() + CATCH_UP_SECONDS
        wanted = {(group, *place): mark for group in set(GROUPS) for place, mark in ends.items()}
        while True:
            self.read_served()
            behind = {place: mark for place, mark in wanted.items() if self.positions.get(place, 0) < mark}
            if not behind:
                break
            if time.monotonic() > deadline:
                line = f"{len(behind)} partitions were not read to the end by their group within {CATCH_UP_SECONDS} s, as {min(behind)}"
                self.violations.add("stuck", line)
                break
            time.sleep(0.2)
        time.sleep(0.5)  # a commit comes at most every 0.1 s
        self.end_children("consume", 30)

    def end_children(self, wanted, seconds):
        some = [child for kind, child in self.children if kind == wanted]
        for child in some:
            child.terminate()
        for child in some:
            try:
                code = child.wait(seconds)
            except subprocess.TimeoutExpired as problem:
                raise Failed(f"a {wanted} process did not end within {seconds} s") from problem
            if code != 0:
                self.violations.add("client", f"a {wanted} process ended with {code}")

    def read_logs(self):
        logs = {}
        consumer = Consumer(self.client(**{"group.id": "crash-check", "enable.auto.commit": False, "check.crcs": True}))
        ends = self.read_watermarks(patient=True)
        consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in self.places])
        following = dict.fromkeys(self.places, 0)
        idle = time.monotonic()
        while any(following[place] < ends[place] for place in self.places):
            messages = consumer.consume(10_000, 0.5)
            idle = time.monotonic() if messages else idle
            if time.monotonic() - idle > 60:
                raise Failed(f"reading everything stopped: at {following}, the high watermarks are {ends}")
            for message in messages:
                if message.error():
                    raise Failed(f"reading everything: {message.error()}")
                place = (message.topic(), message.partition())
                logs.setdefault(place, []).append((message.offset(), message.key(), message.value()))
                following[place] = message.offset() + 1
        consumer.close()
        return logs

    def verdict(self):
        self.check_marks("at the end")
        self.read_served()
        served = self.served
        logs = self.read_logs()
        idempotent = {number for number, style in enumerate(payload.STYLES) if style.idempotent}
        judged = checker.judge(logs, self.acks, served, idempotent)
        for text in self.fatal_notes():
            self.violations.add("client", text)
        for one in list(self.violations) + list(judged):
            print(f"VIOLATION {one.kind}: {one.line}")
        records = sum(map(len, logs.values()))
        where_unknown = sum(ack.offset < 0 for ack in self.acks)
        print(f"records in the log {records}, acknowledged {len(self.acks)} ({where_unknown} without an offset), served to groups {len(served)}, "
              f"committed offsets {len(self.committed)}")  # fmt: skip
        if not self.acks or not served or not self.committed:
            raise Failed("nothing was acknowledged, served or committed: the load never ran")
        return sum(self.violations.counts.values()) + sum(judged.counts.values())

    def close(self):
        for _kind, child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        self.broker.end()


def interrupted(_signal, _frame):
    raise Failed("ended by a signal")


def main():
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    work, port, cycles, seconds, seed = sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:6])
    command = sys.argv[sys.argv.index("--") + 1 :]
    loop, began, done, bad = Loop(work, port, seed, command), time.monotonic(), 0, 0
    try:
        loop.open()
        while done < cycles and not (seconds and time.monotonic() - began > seconds):
            loop.cycle(done + 1)
            done += 1
        loop.settle()
        bad = loop.verdict()
    except Failed as problem:
        bad += 1
        print(f"FAIL crash-loop (seed {seed}): {problem}")
        for text in loop.violations:
            print(f"VIOLATION {text.kind}: {text.line}")
    finally:
        loop.close()
    if loop.restarts:
        print(f"restart (kill to first acknowledged record): median {statistics.median(loop.restarts):.2f} s, max {max(loop.restarts):.2f} s")
    print(f"crash-loop: {done} of {cycles} cycles, seed {seed}, {bad} violations, {time.monotonic() - began:.0f} s")
    # Stopping early because of --seconds is not a failure; a run without a single cycle proves nothing.
    good = bad == 0 and done > 0
    if good and not os.environ.get("KEEP"):
        shutil.rmtree(work, ignore_errors=True)
    elif not good:
        print(f"everything is kept in {work}")
    print(f"{done if good else max(done - 1, 0)} passed, {0 if good else 1} failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
