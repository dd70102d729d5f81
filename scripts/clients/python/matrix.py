"""The checks every client must pass, written once against a small driver.

A driver wraps one client library (or one program) and offers:
    extra (optional)                          [(name, function)]: checks of this client alone
    name, version, codecs, idempotent, kinds (records.Kinds), none_is_end (offsets for a time after the last record: end, not none)
    create(topic, partitions)                 with the client's admin API where it has one
    partitions(topic)                         how many the client's own metadata shows
    live(codec, idempotent)                   -> object with send(topic, records), close(): a producer that stays open. send gives
                                              [(partition, offset)] in the order of `records`, all acknowledged; an offset may be None where
                                              the client does not tell it
    produce(topic, records, codec, idempotent) the same with a producer of its own
    consume(topic, starts, count)             -> [Seen], `count` records from {partition: offset}
    times(topic, partitions, timestamp)       -> {partition: offset or None}
    take(topic, group, count)                 -> [Seen]: exactly `count` records as a member of the group, committed, consumer closed
    member(topic, group)                      -> object with assigned() -> set, drain() -> [Seen], leave(); it polls by itself
    close()

Where RESTARTS names the pipes of scripts/compat/all (`Restarts`), the broker is also ended and started again between the client's calls.
Each check raises Difference at the first difference. `run` prints a line per check and a last line that scripts/compat/all reads.

Invariants: a check that saw fewer records than were acknowledged never passes; every wait has a deadline.
Knows nothing of which broker it talks to.
"""

import os
import select
import sys
import threading
import time
import uuid

import batches
import records
from records import Record

PARTITIONS = 3
CODEC_RECORDS = 300
WAIT_SECONDS = 60
RESTART_SECONDS = 180


class Difference(Exception):
    """What was seen is not what must be seen; the message is the line for the user."""


def bootstrap():
    address = os.environ.get("BOOTSTRAP", "")
    if ":" not in address:
        sys.exit("error: BOOTSTRAP must name the broker as HOST:PORT")
    return address


def fresh(word):
    return f"{word}-{uuid.uuid4().hex[:10]}"


def expect(condition, message):
    if not condition:
        raise Difference(message)


def compare(sent_by_place, seen):
    """Every seen record equals the one acknowledged at its place; none is missing, none comes twice; order per partition."""
    last = {}
    places = set()
    for one in seen:
        place = (one.partition, one.offset)
        expect(place not in places, f"partition {one.partition} offset {one.offset} was delivered twice")
        expect(one.offset > last.get(one.partition, -1), f"partition {one.partition}: offset {one.offset} after {last.get(one.partition)}")
        expect(place in sent_by_place, f"nothing was acknowledged at partition {one.partition} offset {one.offset}")
        problem = records.difference(sent_by_place[place], one)
        expect(problem is None, problem)
        last[one.partition] = one.offset
        places.add(place)
    missing = sorted(set(sent_by_place) - places)
    expect(not missing, f"{len(missing)} records are missing, the first at partition, offset {missing[:1]}")


class Restarts:
    """The broker's end and its new beginning, done by scripts/compat/all, whose child it is: what is asked comes back as a line when it is done."""

    def __init__(self, base):
        # Open for both directions, so that opening waits for nobody.
        self.asks, self.answers = (os.open(f"{base}.{end}", os.O_RDWR) for end in ("ask", "answer"))

    def ask(self, what):
        """what: KILL or TERM, the signal that ends it; or start."""
        os.write(self.asks, f"{what}\n".encode())
        ready, _, _ = select.select([self.answers], [], [], RESTART_SECONDS)
        answer = os.read(self.answers, 100).decode().strip() if ready else "nothing"
        expect(answer == what, f"the broker was to be asked to {what}; the answer is {answer}")


class Matrix:
    def __init__(self, driver):
        self.driver = driver
        self.bootstrap = bootstrap()
        self.restarts = Restarts(os.environ["RESTARTS"]) if os.environ.get("RESTARTS") else None

    def acknowledged(self, topic, sent, codec="none", idempotent=False, first=None, live=None):
        """Produces and returns {(partition, offset): record}; `first` is where each partition's next record must land."""
        places = live.send(topic, sent) if live else self.driver.produce(topic, sent, codec, idempotent)
        expect(len(places) == len(sent), f"{len(sent)} records sent, {len(places)} acknowledged")
        following = dict(first or {})
        by_place = {}
        for record, (partition, offset) in zip(sent, places):
            expect(record.partition in (None, partition), f"sent to partition {record.partition}, acknowledged in {partition}")
            following.setdefault(partition, 0)
            if first is not None and record.partition is not None:
                want = following[partition]
                expect(offset in (None, want), f"partition {partition}: acknowledged at offset {offset}, {want} was next")
                offset = want
            following[partition] += 1
            expect((partition, offset) not in by_place, f"two acknowledgements at partition {partition} offset {offset}")
            by_place[(partition, offset)] = record
        return by_place

    def check_create(self):
        topic = fresh("create")
        self.driver.create(topic, PARTITIONS)
        deadline = time.monotonic() + WAIT_SECONDS
        while (count := self.driver.partitions(topic)) != PARTITIONS and time.monotonic() < deadline:
            time.sleep(0.1)
        expect(count == PARTITIONS, f"{topic} was created with {PARTITIONS} partitions, metadata shows {count}")

    def check_codec(self, codec):
        topic = fresh(f"codec-{codec}")
        self.driver.create(topic, PARTITIONS)
        sent = records.make(codec, CODEC_RECORDS, PARTITIONS, self.driver.kinds)
        places = self.acknowledged(topic, sent, codec, first={})
        compare(places, self.driver.consume(topic, {p: 0 for p in range(PARTITIONS)}, len(sent)))
        on_wire = batches.read(self.bootstrap, topic, PARTITIONS)
        used = {batch.codec for found in on_wire.values() for batch in found}
        # A batch that does not shrink may be sent plain; a large compressible one may not.
        allowed = {codec} if codec == "none" else {codec, "none"}
        expect(codec in used and used <= allowed, f"{topic}: sent with {codec}, the broker serves {sorted(used)}")

    def check_keyed(self):
        topic = fresh("keyed")
        self.driver.create(topic, PARTITIONS)
        sent = records.keyed("keyed", 1000)
        self.driver.produce(topic, sent, "none", self.driver.idempotent)
        seen = self.driver.consume(topic, {p: 0 for p in range(PARTITIONS)}, len(sent))
        values = [one.value for one in seen]
        expect(sorted(values) == sorted(r.value for r in sent), "the values consumed are not the values sent")
        homes, orders = {}, {}
        for one in seen:
            home = homes.setdefault(one.key, one.partition)
            expect(home == one.partition, f"key {one.key} is in partitions {home} and {one.partition}")
            index = int(one.value.split(b":")[1])
            expect(index > orders.get(one.key, -1), f"key {one.key}: record {index} after {orders.get(one.key)}")
            orders[one.key] = index
        expect(len(set(homes.values())) == PARTITIONS, f"50 keys fell into partitions {sorted(set(homes.values()))} only")
        if self.driver.idempotent:
            self.expect_sequences(topic)

    def expect_sequences(self, topic):
        for partition, found in batches.read(self.bootstrap, topic, PARTITIONS).items():
            following = {}
            for batch in found:
                expect(batch.producer_id >= 0, f"partition {partition} offset {batch.base_offset}: idempotent, but no producer id")
                want = following.get((batch.producer_id, batch.epoch), 0)
                expect(batch.sequence == want, f"partition {partition} offset {batch.base_offset}: sequence {batch.sequence}, {want} was next")
                following[(batch.producer_id, batch.epoch)] = batch.sequence + batch.count

    def check_time(self):
        topic = fresh("time")
        self.driver.create(topic, PARTITIONS)
        sent = records.make("time", 120, PARTITIONS, self.driver.kinds)
        if self.driver.kinds.timestamps:
            places = self.acknowledged(topic, sent, first={})
            moment = sent[60].timestamp - 3  # between two records: the next one must be named
            suffix = {place: record for place, record in places.items() if record.timestamp >= moment}
            future = sent[-1].timestamp + 1
        else:
            early = self.acknowledged(topic, sent[:60], first={})
            time.sleep(0.1)
            moment = int(time.time() * 1000)
            time.sleep(0.1)
            suffix = self.acknowledged(topic, sent[60:], first={p: 20 for p in range(PARTITIONS)})
            places = early | suffix
            future = int(time.time() * 1000) + 60_000
        want = {p: min(offset for partition, offset in suffix if partition == p) for p in range(PARTITIONS)}
        got = self.driver.times(topic, PARTITIONS, moment)
        expect(got == want, f"offsets for a time in the middle: {got}, must be {want}")
        compare(suffix, self.driver.consume(topic, got, len(suffix)))
        got = self.driver.times(topic, PARTITIONS, 1_000)
        expect(got == {p: 0 for p in range(PARTITIONS)}, f"offsets for a time before all records: {got}")
        got = self.driver.times(topic, PARTITIONS, future)
        want = {p: 40 if self.driver.none_is_end else None for p in range(PARTITIONS)}
        expect(got == want, f"offsets for a time after all records: {got}, must be {want}")

    def check_stored_offset(self):
        topic, group = fresh("stored"), fresh("group")
        self.driver.create(topic, PARTITIONS)
        places = self.acknowledged(topic, records.make("stored", 300, PARTITIONS, self.driver.kinds), first={})
        first = self.driver.take(topic, group, 130)
        expect(len(first) == 130, f"130 records asked, {len(first)} taken")
        second = self.driver.take(topic, group, 170)
        compare(places, first + second)
        later = self.acknowledged(topic, records.make("later", 30, PARTITIONS, self.driver.kinds), first={p: 100 for p in range(PARTITIONS)})
        compare(later, self.driver.take(topic, group, 30))

    def check_group_of_three(self):
        topic, group, partitions = fresh("three"), fresh("group"), 6
        self.driver.create(topic, partitions)
        members = [self.driver.member(topic, group) for _ in range(3)]
        seen = []
        try:
            self.settle(members, partitions)
            places = self.acknowledged(topic, records.make("three", 600, partitions, self.driver.kinds), first={})
            self.gather(members, seen, places)
            leaving = members.pop()
            leaving.leave()
            seen += leaving.drain()
            self.settle(members, partitions)
            places |= self.acknowledged(
                topic, records.make("two", 600, partitions, self.driver.kinds), first={p: 100 for p in range(partitions)}
            )
            self.gather(members, seen, places)
        finally:
            for member in members:
                member.leave()
        for member in members:
            seen += member.drain()
        again = len(seen) - len({(one.partition, one.offset) for one in seen})
        # The one that left committed first, so nothing is delivered twice; every record must be there.
        expect(again == 0, f"{again} records were delivered twice although every member left cleanly")
        compare(places, sorted(seen, key=lambda one: (one.partition, one.offset)))

    def check_resume(self, how):
        """The broker ends, and is started again. A group whose members are gone goes on where it had committed; a consumer and a producer that
        stay open go on too, the producer while there is no broker."""
        topic, group = fresh("resume"), fresh("group")
        self.driver.create(topic, PARTITIONS)
        member, live, seen = self.driver.member(topic, fresh("staying")), self.driver.live("none", self.driver.idempotent), []
        records_of = lambda seed, count: records.make(seed, count, PARTITIONS, self.driver.kinds)
        each = lambda offset: {p: offset for p in range(PARTITIONS)}
        try:
            places = self.acknowledged(topic, records_of("before", 150), first={}, live=live)
            self.gather([member], seen, places)
            taken = self.driver.take(topic, group, 70)
            time.sleep(1)  # the member commits meanwhile
            self.restarts.ask(how)
            starting = threading.Timer(0.5, self.restarts.ask, ["start"])
            starting.start()
            try:
                places |= self.acknowledged(topic, records_of("across", 30), first=each(50), live=live)
            finally:
                starting.join()
            places |= self.acknowledged(topic, records_of("after", 30), first=each(60), live=live)
            compare(places, taken + self.driver.take(topic, group, 140))
            self.gather([member], seen, places)
        finally:
            member.leave()
            live.close()
        seen += member.drain()
        compare(places, sorted(seen, key=lambda one: (one.partition, one.offset)))

    def settle(self, members, partitions):
        """Waits until the members' assignments are disjoint, together complete, and none is empty; twice in a row."""
        deadline, calm = time.monotonic() + WAIT_SECONDS, 0
        while True:
            held = [member.assigned() for member in members]
            good = all(held) and sum(map(len, held)) == partitions and set().union(*held) == set(range(partitions))
            calm = calm + 1 if good else 0
            if calm == 3:
                return
            expect(time.monotonic() < deadline, f"{len(members)} members hold {[sorted(h) for h in held]} of {partitions} partitions after {WAIT_SECONDS} s")
            time.sleep(0.1)

    def gather(self, members, seen, places):
        deadline = time.monotonic() + WAIT_SECONDS
        while len({(one.partition, one.offset) for one in seen}) < len(places):
            for member in members:
                got = member.drain()
                order = {}
                for one in got:
                    expect(one.offset > order.get(one.partition, -1), f"a member saw partition {one.partition} offset {one.offset} after {order.get(one.partition)}")
                    order[one.partition] = one.offset
                seen += got
            expect(time.monotonic() < deadline, f"the group saw {len(seen)} of {len(places)} records in {WAIT_SECONDS} s")
            time.sleep(0.02)


def run(driver):
    """Runs every check; returns the exit code. The last line is `RESULT|client|version|passed|failed|seconds`."""
    matrix = Matrix(driver)
    checks = [("create", matrix.check_create)]
    checks += [(f"codec {codec}", lambda codec=codec: matrix.check_codec(codec)) for codec in driver.codecs]
    checks += [
        ("keyed, idempotent" if driver.idempotent else "keyed", matrix.check_keyed),
        ("from a time", matrix.check_time),
        ("from a stored offset", matrix.check_stored_offset),
        ("group of three, one leaves", matrix.check_group_of_three),
    ]
    if matrix.restarts:
        checks += [(f"resumes after {how}", lambda how=how: matrix.check_resume(how)) for how in ("KILL", "TERM")]
    checks += getattr(driver, "extra", [])
    wanted = os.environ.get("CHECKS", "")
    checks = [(name, check) for name, check in checks if wanted in name]
    if not checks:
        sys.exit(f"error: no check has {wanted!r} in its name")
    began, passed, failed = time.monotonic(), 0, 0
    for name, check in checks:
        start = time.monotonic()
        try:
            check()
        except (Difference, batches.WireError) as problem:
            failed = 1
            print(f"FAIL {driver.name}: {name}: {problem}", flush=True)
            break
        except Exception as problem:  # a client's own error is a difference too; its kind is part of the line
            failed = 1
            print(f"FAIL {driver.name}: {name}: {type(problem).__name__}: {problem}", flush=True)
            if os.environ.get("TRACE"):
                raise
            break
        passed += 1
        print(f"ok   {driver.name}: {name} ({time.monotonic() - start:.1f} s)", flush=True)
    try:
        driver.close()
    except Exception as problem:
        failed = 1
        print(f"FAIL {driver.name}: close: {type(problem).__name__}: {problem}", flush=True)
    print(f"RESULT|{driver.name}|{driver.version}|{passed}|{failed}|{time.monotonic() - began:.1f}", flush=True)
    return 1 if failed else 0


__all__ = ["Record", "Difference", "expect", "bootstrap", "run", "fresh", "compare", "WAIT_SECONDS"]
