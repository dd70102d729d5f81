"""What a device can no longer read, and what it did not write where it said, on a broker's closed segments. Started by scripts/power-cuts.

Usage: media.py WORK PORT SEED FAULTFS -- COMMAND... (the broker, its data directory below WORK/mount)

1. Records go to a topic of small segments; the broker is stopped and started again, so that they are read from their files.
2. Sectors of a closed segment become unreadable. A reader gets an error for the batches of those blocks alone, and every other batch byte for
   byte; the broker logs the segment's file and each batch's place.
3. One write of a segment is lost, another goes astray, under more records. After the next start a reader gets every batch that was acknowledged,
   byte for byte, or an error for it; the broker logs file and place; produce goes on.
"""

import os
import random
import shutil
import signal
import sys
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

import batches
import cuts
import loop
import payload

TOPIC, BLOCK = "crash-media", 4096
RECORDS, SETTINGS = 30_000, {"segment.bytes": str(1 << 20), "retention.ms": "-1"}
SEGMENTS = 4
# Windows of segments that were read stay in memory for a second after they were last asked for.
FORGET_SECONDS = 2
# Batches go straight to their segment: in the journal they would all stay.
DIRECT = ["--set", "journal.direct.append.min.bytes=8192"]


class Media:
    def __init__(self, work, port, seed, command, program):
        self.work, self.rng = work, random.Random(seed)
        self.broker, self.disk = loop.Broker(work, port, command + DIRECT), cuts.FaultDisk(work, program, seed)
        self.client = {"bootstrap.servers": self.broker.address, "log_level": 0}
        self.sent, self.violations = 0, []

    def start(self):
        self.said = os.path.getsize(self.broker.log_path)
        self.broker.start()
        self.broker.wait_answers()

    def lines(self):
        """What the broker has logged since its start."""
        with open(self.broker.log_path, encoding="utf-8", errors="replace") as file:
            file.seek(self.said)
            return file.read()

    def send(self):
        """RECORDS more, each acknowledged at the offset that is its number."""
        wrong = []
        producer = Producer(self.client | {"enable.idempotence": True, "batch.size": 32_768, "linger.ms": 5, "message.timeout.ms": 60_000})
        for number in range(self.sent, self.sent + RECORDS):
            def done(error, message, number=number):
                if error or message.offset() != number:
                    wrong.append(f"record {number}: {error or message.offset()}")
            while True:
                try:
                    producer.produce(TOPIC, payload.value(0, number), on_delivery=done, partition=0)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        if producer.flush(60) or wrong:
            raise loop.Failed(f"{len(wrong)} records were not acknowledged where they belong, first {wrong[:1]}")
        self.sent += RECORDS

    def segments(self):
        """Paths of the topic's closed segments, below the mountpoint."""
        found = []
        for folder, _, names in os.walk(f"{self.disk.mountpoint}/data"):
            logs = sorted(name for name in names if name.endswith(".log"))
            if len(logs) > SEGMENTS and f"{logs[0][:-4]}.index" in names:
                found = [os.path.relpath(f"{folder}/{name}", self.disk.mountpoint) for name in logs[:-1]]
        if len(found) < SEGMENTS:
            raise loop.Failed(f"{TOPIC} has only {len(found)} closed segments")
        return found

    def read(self):
        """(base offset, bytes) of each batch that is served, and [offset] where a reader got an error. From such an offset it goes on with the
        next."""
        connection, served, refused, offset = batches.Connection(self.broker.address), [], [], 0
        while offset < self.sent:
            error, high, records = batches.fetch(connection, TOPIC, 0, offset)
            if error == 0 and high != self.sent:
                raise loop.Failed(f"the high watermark is {high}, {self.sent} records were acknowledged")
            if error not in (0, cuts.STORAGE_ERROR):
                raise loop.Failed(f"fetch at {offset} answers error {error}")
            if error:
                refused.append(offset)
                offset += 1
                continue
            found, at = batches.parse(records), 0
            for batch in found:
                served.append((batch.base_offset, batch.last_offset, records[at : at + batch.bytes]))
                at += batch.bytes
            if not found or found[-1].last_offset < offset:
                raise loop.Failed(f"nothing is served at {offset}, and no error")
            offset = found[-1].last_offset + 1
        connection.close()
        return served, refused

    def judge(self, what, before, served, refused, gone):
        """before: all batches as they were; gone: offsets that must be refused, or None where that is not known."""
        whole = {base: held for base, _, held in before}
        wrong = [base for base, _, held in served if whole.get(base) != held]
        lacking = set(range(self.sent)) - {offset for base, last, _ in served for offset in range(base, last + 1)}
        if wrong:
            self.violations.append(f"{what}: other bytes than before at {wrong[:5]}")
        if lacking != set(refused):
            self.violations.append(f"{what}: offsets without an error and without a record, or both: {sorted(lacking ^ set(refused))[:5]}")
        if gone is not None and set(refused) != gone:
            self.violations.append(f"{what}: refused {sorted(set(refused) - gone)[:5]}, which are readable; served {sorted(gone - set(refused))[:5]}")
        if not refused:
            self.violations.append(f"{what}: nothing was refused, so nothing was tried")

    def run(self):
        self.disk.mount()
        os.mkdir(f"{self.disk.mountpoint}/data")
        self.start()
        admin = AdminClient(self.client)  # which the answer needs until it has come
        admin.create_topics([NewTopic(TOPIC, 1, 1, config=SETTINGS)])[TOPIC].result(30)
        self.send()
        self.restart()
        before, refused = self.read()
        if refused:
            raise loop.Failed(f"offsets {refused[:5]} cannot be read before anything is wrong")
        self.spoil(before)
        self.lead_astray()
        return self.violations

    def restart(self):
        self.broker.end()
        self.start()

    def spoil(self, before):
        path = self.rng.choice(self.segments()[1:])
        base = int(os.path.basename(path)[:-4])
        with open(f"{self.disk.mountpoint}/{path}", "rb") as file:
            found, places = batches.parse(file.read()), [0]
        for batch in found:
            places.append(places[-1] + batch.bytes)
        bad = sorted(self.rng.sample(range(places[-1]), 3))
        for place in bad:
            self.disk.ask(f"bad {path} {place} {place + 1}")
        time.sleep(FORGET_SECONDS)
        gone, told = set(), []
        for batch, begin, end in zip(found, places, places[1:]):
            if any(begin // BLOCK <= place // BLOCK <= (end - 1) // BLOCK for place in bad):
                gone |= set(range(batch.base_offset, batch.last_offset + 1))
                told.append(f"{path} at byte {begin}: ")
        served, refused = self.read()
        self.judge(f"sectors at {bad} of {path}", before, served, refused, gone)
        lines = self.lines()
        silent = [one for one in told if one not in lines]
        if silent:
            self.violations.append(f"the broker does not log {silent[0]!r}")
        print(f"3 sectors of the segment from offset {base} cannot be read: {len(refused)} of {self.sent} records refused, {len(told)} batches")

    def lead_astray(self):
        self.disk.ask("lose-write .log")
        self.send()
        self.disk.ask(f"misdirect-write .log {-64 << 10}")
        self.send()
        # From memory, where nothing is wrong yet.
        before, known = self.read()
        self.restart()
        served, refused = self.read()
        what = "a lost and a misdirected write of a segment"
        self.judge(what, before, served, refused, None)
        found = len(set(refused) - set(known))
        errors = [line for line in self.lines().splitlines() if line.startswith("ERROR") and ".log at byte " in line and "expected" in line]
        if not found or not errors:
            self.violations.append(f"{what}: {found} records are refused, the broker names {len(errors)} places")
        self.send()
        print(f"one write of a segment was lost, one went astray: {found} of {self.sent} records refused, and produce goes on")

    def close(self):
        self.broker.end()
        self.disk.unmount()


def main():
    signal.signal(signal.SIGTERM, loop.interrupted)
    work, port, seed, program = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    one, violations = Media(work, port, seed, sys.argv[sys.argv.index("--") + 1 :], program), []
    try:
        violations = one.run()
    except loop.Failed as problem:
        violations = [str(problem)]
    finally:
        one.close()
    for line in violations:
        print(f"FAIL power-cuts --mode media (seed {seed}): {line}")
    if not violations and not os.environ.get("KEEP"):
        shutil.rmtree(work, ignore_errors=True)
    print(f"{int(not violations)} passed, {int(bool(violations))} failed")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
