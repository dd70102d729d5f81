"""The crash loop: start, load, kill -9, restart, N times; then the verdict. Started by scripts/crash-loop.

Usage: loop.py WORK PORT CYCLES SECONDS SEED BAR -- COMMAND... (the broker; the same command on the same directory every time). SECONDS 0: no limit.
BAR: seconds that the median restart may take; a run of fewer than LONG_CYCLES may take SHORT_TIMES as long. 0: it is not judged.

How it works:
1. Producers, group members and a manager of topics (load.py) run from the first start to after the last restart.
2. Each cycle waits 0.2 to 3 s under load, reading high watermarks meanwhile, kills the broker with SIGKILL and starts it again at once.
   One cycle in four stops it first for up to 1.5 s (SIGSTOP), and kills it half of those times as it stands; in a long run one such pause in
   fifty is longer than a member's session. One cycle in five kills it once more while it recovers.
   The restart time is from the last kill to the first acknowledged record of a probe producer.
3. After each restart: high watermarks, log starts and committed offsets have not gone back; every acknowledged offset is below its
   partition's high watermark; topics exist as acknowledged. At the end checker.judge reads everything.
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
GROUPS = [0, 1, 1, 1]  # the group of each consumer process; the last one joins and leaves
LONG_CYCLES, SHORT_TIMES = 100, 3
SESSION_SECONDS = 10.0  # of a member, as load.py asks for
LONG_PAUSE_EVERY = 50
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
        self.watermarks, self.starts, self.committed = {}, {}, {}
        self.acknowledged = {}
        self.trim_file = payload.Reader(f"{work}/trims", payload.TRIM, payload.Trim)
        self.churn_file = payload.Reader(f"{work}/churn", payload.CHURN, payload.Churn)
        self.trims, self.churn, self.pauses, self.long_pauses, self.kills_in_recovery = [], {}, 0, 0, 0
        self.is_long, self.bar = False, 0
        producers = range(len(payload.STYLES))
        self.ack_files = [payload.Reader(f"{work}/acks-{n}", payload.PLACE, payload.Ack) for n in producers]
        self.commit_files = [payload.Reader(f"{work}/commits-{100 + n}", payload.COMMIT, payload.Commit) for n in range(len(GROUPS))]
        self.seen_files = [payload.Reader(f"{work}/seen-{100 + n}", payload.PLACE, payload.Seen) for n in range(len(GROUPS))]
        self.acks, self.served, self.positions, self.violations = [], [], {}, checker.Convictions()
        self.records, self.stored = {}, {}  # by place: records read at the end, and what they take at most

    def client(self, **more):
        quick = {"bootstrap.servers": self.broker.address, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 50, "log_level": 0}
        return quick | more

    def open(self):
        self.broker.start()
        self.broker.wait_answers()
        admin = AdminClient(self.client())
        topics = [NewTopic(name, count, 1, config=payload.SETTINGS.get(name, {})) for name, count in payload.TOPICS.items()]
        topics.append(NewTopic("crash-probe", 1, 1))
        for future in admin.create_topics(topics, operation_timeout=30).values():
            future.result(60)
        self.probe()
        for number in range(len(payload.STYLES)):
            self.spawn("produce", number)
        for index, group in enumerate(GROUPS):
            self.spawn("join" if index == len(GROUPS) - 1 else "consume", 100 + index, group)
        self.spawn("manage", 200)

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
        """(log start, high watermark) of every partition; a partition that does not answer is left out unless `patient`."""
        consumer, marks = Consumer(self.client(**{"group.id": "crash-watch"})), {}
        try:
            for topic, partition in self.places:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        marks[(topic, partition)] = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5, cached=False)
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
        self.trims += self.trim_file.rows()
        for one in self.churn_file.rows():
            self.churn[one.generation] = one.state

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
        ends = self.keep(self.read_watermarks(patient=True))
        convicted += ends
        for group in sorted(set(GROUPS)):
            of_group = {place: mark for place, mark in known.items() if place[0] == group}
            convicted += checker.went_back("committed offset", of_group, self.read_committed(group))
        convicted += self.check_topics()
        for one in convicted:
            self.violations.add(one.kind, f"{when}: {one.line}")
            print(f"VIOLATION {one.kind}: {when}: {one.line}", flush=True)

    def keep(self, marks):
        """Takes over marks of all partitions that answered. What went back, against what was known when they were asked for."""
        starts = {place: mark[0] for place, mark in marks.items()}
        ends = {place: mark[1] for place, mark in marks.items()}
        convicted = []
        for what, known, now in (
            ("log start", self.starts, starts),
            ("high watermark", self.watermarks, ends),
            ("high watermark against the last acknowledged offset + 1", self.acknowledged, ends),
        ):
            convicted += checker.went_back(what, {place: mark for place, mark in known.items() if place in marks}, now)
        for known, now in ((self.starts, starts), (self.watermarks, ends)):
            known.update({place: max(mark, known.get(place, 0)) for place, mark in now.items()})
        return convicted

    def check_topics(self):
        before, deadline = dict(self.churn), time.monotonic() + 60
        while True:
            try:
                listed = set(AdminClient(self.client()).list_topics(timeout=5).topics)
                break
            except KafkaException as problem:
                if time.monotonic() > deadline:
                    raise Failed(f"the list of topics does not come: {problem}") from problem
        self.read_notes()
        return checker.judge_topics(before, listed, self.churn)

    def cycle(self, number):
        wait = self.rng.uniform(0.2, 3.0)
        kill_at = time.monotonic() + wait
        if wait > 0.6:
            for one in self.keep(self.read_watermarks(patient=False)):
                self.violations.add(one.kind, f"before the kill of cycle {number}: {one.line}")
        time.sleep(max(0.0, kill_at - time.monotonic()))
        if self.rng.random() < 0.25:
            self.pause()
        killed = time.monotonic()
        self.broker.kill()
        self.broker.start()
        if self.rng.random() < 0.2:
            killed = self.kill_again()
        self.broker.wait_answers()
        self.probe()
        self.restarts.append(time.monotonic() - killed)
        self.check_marks(f"cycle {number}")
        self.check_children()
        print(f"cycle {number}: killed after {wait:.1f} s, back in {self.restarts[-1]:.2f} s, {len(self.acks)} acknowledged so far", flush=True)

    def kill_again(self):
        """Kills the broker soon after its start and starts it once more; when it was killed."""
        time.sleep(self.rng.uniform(0.01, 0.4))
        self.kills_in_recovery += not answers.answers(self.broker.address, 0.02)
        killed = time.monotonic()
        self.broker.kill()
        self.broker.start()
        return killed

    def pause(self):
        """Stops the process as a whole; it is killed like that, or goes on first."""
        self.pauses += 1
        self.broker.process.send_signal(signal.SIGSTOP)
        if self.is_long and self.pauses % LONG_PAUSE_EVERY == LONG_PAUSE_EVERY // 2:
            # Every session ends; what the broker makes of that is seen before it is killed.
            self.long_pauses += 1
            time.sleep(SESSION_SECONDS + 2)
            self.broker.process.send_signal(signal.SIGCONT)
            time.sleep(self.rng.uniform(0.0, 3.0))
            return
        time.sleep(self.rng.uniform(0.05, 1.5))
        if self.rng.random() < 0.5:
            self.broker.process.send_signal(signal.SIGCONT)
            time.sleep(self.rng.uniform(0.0, 0.3))

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
        self.end_children("manage", 150)
        self.end_children("join", 150)
        self.end_children("produce", 150)
        marks, deadline, least = self.read_watermarks(patient=True), time.monotonic() + CATCH_UP_SECONDS, None
        wanted = {(group, *place): high for group in set(GROUPS) for place, (low, high) in marks.items() if high > low}
        while True:
            self.read_served()
            behind = {place: mark for place, mark in wanted.items() if self.positions.get(place, 0) < mark}
            if not behind:
                break
            # Who still reads is not stuck: partitions behind, and the records that they lack.
            lacking = (len(behind), sum(mark - self.positions.get(place, 0) for place, mark in behind.items()))
            if least is None or lacking < least:
                least, deadline = lacking, time.monotonic() + CATCH_UP_SECONDS
            if time.monotonic() > deadline:
                line = f"{len(behind)} partitions were not read to the end by their group, and no further for {CATCH_UP_SECONDS} s, as {min(behind)}"
                self.violations.add("stuck", line)
                print("\n".join(self.say_of_groups({place[0] for place in behind})), flush=True)
                break
            time.sleep(0.2)
        time.sleep(0.5)  # a commit comes at most every 0.1 s
        self.end_children("consume", 30)

    def say_of_groups(self, groups):
        """What the broker and the members last said of these groups."""
        lines, admin = [], AdminClient(self.client())
        for name, future in admin.describe_consumer_groups([f"crash-{group}" for group in sorted(groups)], request_timeout=10).items():
            try:
                found = future.result()
                held = [f"{one.client_id} of {one.host} with {len(one.assignment.topic_partitions)} partitions" for one in found.members]
                lines.append(f"{name} is {found.state.name}, its members: {', '.join(held) or 'none'}")
            except KafkaException as problem:
                lines.append(f"{name}: {problem}")
        for index, group in enumerate(GROUPS):
            if group in groups and os.path.exists(f"{self.work}/member-{100 + index}"):
                with open(f"{self.work}/member-{100 + index}", encoding="utf-8") as file:
                    lines += [f"member {100 + index} of crash-{group}: {line.rstrip()}" for line in file.readlines()[-10:]]
        return lines

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

    def resting_marks(self):
        """Marks of a log that nobody writes to, once retention has done its work."""
        marks = self.read_watermarks(patient=True)
        for _ in range(60):
            time.sleep(2.5)
            now = self.read_watermarks(patient=True)
            if now == marks:
                return marks
            marks = now
        raise Failed(f"log starts do not come to rest: {marks}")

    def read_log(self, place, low, high):
        """(offset, key, value) of each record of a partition from its log start to its high watermark, which are the marks."""
        consumer = Consumer(self.client(**{"group.id": "crash-check", "enable.auto.commit": False, "check.crcs": True}))
        consumer.assign([TopicPartition(*place, low)])
        following, idle = low, time.monotonic()
        while following < high:
            messages = consumer.consume(10_000, 0.5)
            idle = time.monotonic() if messages else idle
            if time.monotonic() - idle > 60:
                raise Failed(f"reading everything stopped: at {following} of {place}, the marks are {low} and {high}")
            for message in messages:
                if message.error():
                    raise Failed(f"reading everything: {message.error()}")
                self.records[place] = self.records.get(place, 0) + 1
                self.stored[place] = self.stored.get(place, 0) + checker.stored(message.key(), message.value())
                yield message.offset(), message.key(), message.value()
                following = message.offset() + 1
        consumer.close()

    def read_logs(self, marks):
        """By place, a reading of its whole log that is made when it is asked for."""
        return {place: self.read_log(place, low, high) for place, (low, high) in marks.items() if low < high}

    def has_refused(self):
        """Whether a running broker refused batches for a while."""
        return False

    def verdict(self):
        self.check_marks("at the end")
        self.read_served()
        served = self.served
        marks = self.resting_marks()
        for one in self.keep(marks):
            self.violations.add(one.kind, f"at rest: {one.line}")
        logs = self.read_logs(marks)
        idempotent = {number for number, style in enumerate(payload.STYLES) if style.idempotent}
        starts = {place: low for place, (low, _high) in marks.items() if place[0] in (payload.SHORT, payload.TRIMMED)}
        judged = checker.judge(logs, self.acks, served, idempotent, starts, self.has_refused())
        more = checker.judge_trims(self.trims, {partition: low for (topic, partition), low in starts.items() if topic == payload.TRIMMED})
        for (topic, partition), low in starts.items():
            if topic == payload.SHORT:
                more += checker.judge_retention(self.stored.get((topic, partition), 0), low, payload.RETAINED)
        more += self.judge_churned()
        if self.bar:
            more += checker.judge_restarts(self.restarts, self.bar * (1 if self.is_long else SHORT_TIMES))
        for one in more:
            self.violations.add(one.kind, one.line)
        for text in self.fatal_notes():
            self.violations.add("client", text)
        for one in list(self.violations) + list(judged):
            print(f"VIOLATION {one.kind}: {one.line}")
        records = sum(self.records[place] for place in logs)
        where_unknown = sum(ack.offset < 0 for ack in self.acks)
        print(f"records in the log {records}, acknowledged {len(self.acks)} ({where_unknown} without an offset), served to groups {len(served)}, "
              f"committed offsets {len(self.committed)}")  # fmt: skip
        deleted = sum(starts.values())
        gone = sum(state == payload.DELETED for state in self.churn.values())
        print(f"records deleted by DeleteRecords and retention {deleted}, topics made {len(self.churn)}, deleted {gone}")
        print(f"pauses {self.pauses}, {self.long_pauses} of them longer than a session; kills during recovery {self.kills_in_recovery}")
        if not self.acks or not served or not self.committed:
            raise Failed("nothing was acknowledged, served or committed: the load never ran")
        return sum(self.violations.counts.values()) + sum(judged.counts.values())

    def judge_churned(self):
        """Every topic that was filled and not deleted holds its records."""
        filled = [generation for generation, state in self.churn.items() if state == payload.FILLED]
        places = {(payload.churned(generation)[0], 0): generation for generation in filled}
        consumer = Consumer(self.client(**{"group.id": "crash-watch"}))
        marks = {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=10, cached=False) for place in places}
        consumer.close()
        logs, convicted = self.read_logs(marks), []
        for place, generation in places.items():
            convicted += checker.judge_churned(generation, list(logs.get(place, [])))
        return convicted

    def close(self):
        for _kind, child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        self.broker.end()


def interrupted(_signal, _frame):
    raise Failed("ended by a signal")


class Ending:
    """SIGINT ends a run after the cycle that is under way, with its verdict."""

    asked = False

    @staticmethod
    def ask(_signal, _frame):
        Ending.asked = True


def main():
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, Ending.ask)
    work, port, cycles, seconds, seed, bar = sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:7])
    command = sys.argv[sys.argv.index("--") + 1 :]
    loop = Loop(work, port, seed, command)
    loop.is_long, loop.bar = cycles >= LONG_CYCLES, bar
    return drive(loop, "crash-loop", cycles, seconds, seed)


def drive(loop, name, cycles, seconds, seed):
    """Runs a loop to its verdict, prints that, and gives the exit code."""
    work, began, done, bad = loop.work, time.monotonic(), 0, 0
    try:
        loop.open()
        while done < cycles and not Ending.asked and not (seconds and time.monotonic() - began > seconds):
            loop.cycle(done + 1)
            done += 1
        loop.settle()
        bad = loop.verdict()
    except Failed as problem:
        bad += 1
        print(f"FAIL {name} (seed {seed}): {problem}")
        for text in loop.violations:
            print(f"VIOLATION {text.kind}: {text.line}")
    finally:
        loop.close()
    if loop.restarts:
        print(f"restart (kill to first acknowledged record): median {statistics.median(loop.restarts):.2f} s, max {max(loop.restarts):.2f} s")
        if loop.bar:
            print(f"restarts above the bar of {loop.bar} s: {sum(one > loop.bar for one in loop.restarts)} of {len(loop.restarts)}")
    print(f"{name}: {done} of {cycles} cycles, seed {seed}, {bad} violations, {time.monotonic() - began:.0f} s")
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
