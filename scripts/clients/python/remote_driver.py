"""The driver of matrix.py for clients that are not Python: a child process answers one JSON line per JSON line.

Usage: remote_driver.py COMMAND... (the child). A request is {"op": ..., arguments}; an answer is {"ok": result} or {"error": text}.
The first op is `hello`, answered with {name, version, codecs, none_is_end} and, where the client creates topics without counts too,
counts_optional. Bytes travel as base64. A record sent is
[partition, key, value, [[name, value]], timestamp]; a record seen is [partition, offset, key, value, [[name, value]], timestamp].
What the child says on stderr is kept for the failure line.
"""

import base64
import collections
import json
import os
import subprocess
import sys
import threading

import matrix
from records import ALL_KINDS, Seen


class RemoteError(Exception):
    """The child's client failed; the message is the client's."""


def encode(value):
    return None if value is None else base64.b64encode(value).decode()


def decode(value):
    return None if value is None else base64.b64decode(value)


def seen(row):
    partition, offset, key, value, headers, timestamp = row
    return Seen(partition, offset, decode(key), decode(value), [(name, decode(held)) for name, held in headers], timestamp)


class Member:
    def __init__(self, driver, number):
        self.driver, self.number, self.left = driver, number, False

    def assigned(self):
        return set(self.driver.call("member_assigned", member=self.number))

    def drain(self):
        return [seen(row) for row in self.driver.call("member_drain", member=self.number)]

    def leave(self):
        if not self.left:
            self.left = True
            self.driver.call("member_leave", member=self.number)


class Live:
    def __init__(self, driver, number):
        self.driver, self.number = driver, number

    def send(self, topic, records):
        rows = [[r.partition, encode(r.key), encode(r.value), [[name, encode(value)] for name, value in r.headers], r.timestamp] for r in records]
        return [tuple(place) for place in self.driver.call("live_send", live=self.number, topic=topic, records=rows)]

    def close(self):
        self.driver.call("live_close", live=self.number)


class Driver:
    idempotent = True
    kinds = ALL_KINDS

    def __init__(self, command):
        environment = dict(os.environ, BOOTSTRAP=matrix.bootstrap())
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        self.talk = collections.deque(maxlen=20)
        threading.Thread(target=self.listen, daemon=True).start()
        self.members, self.lives = 0, 0
        hello = self.call("hello")
        self.name, self.version = hello["name"], hello["version"]
        self.codecs, self.none_is_end = hello["codecs"], hello["none_is_end"]
        self.extra = [("create without counts", self.check_create_without_counts)] if hello.get("counts_optional") else []

    def listen(self):
        for line in self.child.stderr:
            self.talk.append(line.decode(errors="replace").rstrip())

    def call(self, op, **arguments):
        watch = threading.Timer(2 * matrix.WAIT_SECONDS, self.child.kill)
        watch.start()
        try:
            self.child.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            raise RemoteError(f"{op}: the client's process ended or hung; its last words: {list(self.talk)[-3:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RemoteError(f"{op}: {answer['error']}")
        return answer["ok"]

    def create(self, topic, partitions):
        self.call("create", topic=topic, partitions=partitions)

    def check_create_without_counts(self):
        topic = matrix.fresh("defaults")
        self.create(topic, None)
        matrix.expect(self.partitions(topic) >= 1, f"{topic} was created with the broker's defaults, metadata shows no partition")

    def partitions(self, topic):
        return self.call("partitions", topic=topic)

    def live(self, codec, idempotent):
        self.lives += 1
        self.call("live_open", live=self.lives, codec=codec, idempotent=idempotent)
        return Live(self, self.lives)

    def produce(self, topic, records, codec, idempotent):
        live = self.live(codec, idempotent)
        try:
            return live.send(topic, records)
        finally:
            live.close()

    def consume(self, topic, starts, count):
        rows = self.call("consume", topic=topic, starts=[[p, o] for p, o in starts.items()], count=count)
        return [seen(row) for row in rows]

    def times(self, topic, partitions, timestamp):
        return {p: offset for p, offset in self.call("times", topic=topic, partitions=partitions, timestamp=timestamp)}

    def take(self, topic, group, count):
        return [seen(row) for row in self.call("take", topic=topic, group=group, count=count)]

    def member(self, topic, group):
        self.members += 1
        self.call("member_open", member=self.members, topic=topic, group=group)
        return Member(self, self.members)

    def close(self):
        self.child.stdin.close()
        try:
            code = self.child.wait(30)
        finally:
            self.child.kill()
        matrix.expect(code == 0, f"the client's process exits {code}: {list(self.talk)[-3:]}")


if __name__ == "__main__":
    sys.exit(matrix.run(Driver(sys.argv[1:])))
