"""The soak: load, samples, verdict. Started by scripts/soak. Usage: soak.py WORK BOOTSTRAP PID MINUTES BUSY

How it works:
1. Four producer processes write to topics that keep RETENTION bytes a partition in segments of SEGMENT; two groups tail them and commit.
   A governor reads how busy the machine is (/proc/stat) once a second and moves the producers' common rate until BUSY percent are reached.
2. Every 5 s: the broker's memory (RSS), descriptors and threads, the bytes of each partition's segments, the lag of the groups.
3. Verdict, once the first fifth has warmed everything up: what is sampled does not grow from the second fifth to the last; no partition ever
   holds more than RETENTION + SEGMENT + one second's writes; no client saw an error; what was written is many times what is kept.
Knows nothing of the records: the crash loop proves those.
"""

import ctypes
import json
import multiprocessing
import os
import random
import re
import signal
import statistics
import sys
import time

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

RETENTION, SEGMENT = 64 << 20, 16 << 20
TOPICS = {"soak-a": 1, "soak-b": 4, "soak-c": 16}
# Per producer: codec, bytes of a value, idempotent, whether by key, share of the rate in bytes.
STYLES = [("none", 16_384, True, False, 0.4), ("lz4", 1_024, True, True, 0.3), ("none", 60_000, False, False, 0.2), ("zstd", 4_096, True, True, 0.1)]
GROUPS = ["soak-1", "soak-2"]
SAMPLE_SECONDS = 5
GROWTH_BYTES, GROWTH_SHARE = 32 << 20, 0.10


def produce(bootstrap, number, rate, counts, stop):
    """Writes its share of `rate` bytes a second until `stop`. counts: [bytes acknowledged, errors]."""
    codec, size, idempotent, by_key, share = STYLES[number]
    body, errors = random.Random(number).randbytes(1 << 20), []
    producer = Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": idempotent, "compression.type": codec, "linger.ms": 10,
        "queue.buffering.max.kbytes": 65_536, "message.timeout.ms": 60_000, "error_cb": lambda error: errors.append(str(error)),
    })  # fmt: skip

    def delivered(error, _message):
        if error:
            errors.append(str(error))
        else:
            counts[0] += size

    names, sent, owed, last = list(TOPICS), 0, 0.0, time.monotonic()
    while not stop.is_set():
        now = time.monotonic()
        owed, last = min(owed + (now - last) * rate.value * share, rate.value), now
        if owed < size:
            producer.poll(0.005)
            continue
        topic, at = names[sent % len(names)], sent * 997 % ((1 << 20) - size)
        where = {} if by_key else {"partition": sent // len(names) % TOPICS[topic]}
        try:
            producer.produce(topic, body[at : at + size], str(sent % 1009) if by_key else None, on_delivery=delivered, **where)
        except BufferError:
            producer.poll(0.05)
            continue
        owed, sent = owed - size, sent + 1
        producer.poll(0)
    if producer.flush(60):
        errors.append("not everything was delivered within 60 s of the end")
    counts[1] = len(errors)
    for error in errors[:3]:
        print(f"producer {number}: {error}", flush=True)


def consume(bootstrap, number, counts, stop):
    """A member of a group. counts: [bytes read, errors]."""
    errors = []
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": GROUPS[number], "auto.offset.reset": "earliest", "auto.commit.interval.ms": 1000, "check.crcs": True,
        "error_cb": lambda error: errors.append(str(error)),
    })  # fmt: skip
    consumer.subscribe(list(TOPICS))
    while not stop.is_set():
        for message in consumer.consume(500, 0.2):
            if message.error():
                errors.append(str(message.error()))
            else:
                counts[0] += len(message.value())
    consumer.close()
    counts[1] = len(errors)
    for error in errors[:3]:
        print(f"consumer {number}: {error}", flush=True)


def busy_ticks():
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Broker:
    def __init__(self, pid, data):
        self.pid, self.data = pid, data

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

    def partitions(self):
        """Bytes of the segments of each partition: what they hold, without what is reserved ahead of it."""
        held = {}
        for folder, _, names in os.walk(self.data):
            if "journal" in folder.split(os.sep):
                continue
            for name in names:
                if name.endswith(".log"):
                    try:
                        held[folder] = held.get(folder, 0) + os.stat(os.path.join(folder, name)).st_size
                    except FileNotFoundError:
                        pass  # retention was quicker
        return held


def fifths(samples, key):
    """Medians of the second and of the last fifth."""
    size = len(samples) // 5
    return tuple(statistics.median(one[key] for one in part) for part in (samples[size : 2 * size], samples[-size:]))


def main():
    work, bootstrap, pid, minutes, busy = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
    settings = {"retention.bytes": str(RETENTION), "segment.bytes": str(SEGMENT), "retention.ms": "-1"}
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, count, 1, config=settings) for name, count in TOPICS.items()]).values():
        future.result(30)
    rate, stop = multiprocessing.Value(ctypes.c_double, 2e6), multiprocessing.Event()
    produced = [multiprocessing.Array(ctypes.c_longlong, 2) for _ in STYLES]
    consumed = [multiprocessing.Array(ctypes.c_longlong, 2) for _ in GROUPS]
    children = [multiprocessing.Process(target=produce, args=(bootstrap, at, rate, produced[at], stop)) for at in range(len(STYLES))]
    children += [multiprocessing.Process(target=consume, args=(bootstrap, at, consumed[at], stop)) for at in range(len(GROUPS))]
    for child in children:
        child.start()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    broker, samples, faults, most = Broker(pid, f"{work}/data"), [], [], {}
    began, sampled, ticks, load = time.monotonic(), 0.0, busy_ticks(), []
    written_before, second = 0, 0
    while time.monotonic() - began < minutes * 60 and not stop.is_set():
        time.sleep(1)
        now = busy_ticks()
        share = 100 * (now[0] - ticks[0]) / max(1, now[1] - ticks[1])
        ticks = now
        load.append(share)
        rate.value = min(max(rate.value * (1 + max(-0.2, min(0.1, (busy - share) / 200))), 2e6), 2e9)
        written = sum(one[0] for one in produced)
        second, written_before = max(second, written - written_before), written
        for folder, held in broker.partitions().items():
            most[folder] = max(most.get(folder, 0), held)
        if time.monotonic() - sampled >= SAMPLE_SECONDS:
            sampled = time.monotonic()
            one = broker.sample() | {"at": sampled - began, "written": written, "read": [each[0] for each in consumed], "busy": share, "rate": rate.value}
            samples.append(one)
            with open(f"{work}/samples.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
        if any(not child.is_alive() for child in children):
            faults.append("a client process ended by itself")
            break
    stop.set()
    for child in children:
        child.join(120)
        if child.exitcode != 0:
            faults.append(f"a client process ended with {child.exitcode}")
            child.kill()
    seconds = time.monotonic() - began
    written, read = sum(one[0] for one in produced), [one[0] for one in consumed]
    errors = sum(one[1] for one in produced + consumed)
    if errors:
        faults.append(f"clients saw {errors} errors")
    if len(samples) < 10:
        faults.append(f"only {len(samples)} samples: a longer run is needed")
    else:
        for key in ("rss", "descriptors", "threads", "workers"):
            early, late = fifths(samples, key)
            slack = max(GROWTH_BYTES, early * GROWTH_SHARE) if key == "rss" else {"descriptors": 8, "threads": 0, "workers": 16}[key]
            print(f"{key}: second fifth {early:,.0f}, last fifth {late:,.0f}, largest {max(one[key] for one in samples):,}")
            if late > early + slack:
                faults.append(f"{key} grew from {early:,.0f} to {late:,.0f}")
    partitions = sum(TOPICS.values())
    kept = partitions * RETENTION
    # Retention looks twice a second; a partition gets at most what all get.
    bound = RETENTION + SEGMENT + second
    largest = max(most.values(), default=0)
    print(f"segments of a partition: at most {largest:,} bytes; {RETENTION:,} are configured, a segment has {SEGMENT:,}, the quickest second wrote {second:,}")
    if largest > bound:
        faults.append(f"a partition held {largest:,} bytes, at most {bound:,} were to be")
    if written < 3 * RETENTION:
        faults.append(f"only {written:,} bytes were written: retention had little to do")
    print(f"written {written / 1e9:.1f} GB in {seconds:.0f} s ({written / seconds / 1e6:.0f} MB/s, {written / kept:.1f} times what is kept), read "
          f"{', '.join(f'{one / 1e9:.1f}' for one in read)} GB, machine busy median {statistics.median(load):.0f} % (quarters {quarters(load)})")  # fmt: skip
    if min(read) < written * 0.9:
        faults.append(f"a group read {min(read):,} of {written:,} bytes: retention overtook it")
    for fault in faults:
        print(f"FAIL {fault}")
    print(f"soak: {'failed' if faults else 'passed'} after {seconds / 60:.1f} minutes")
    return 1 if faults else 0


def quarters(values):
    return ", ".join(f"{one:.0f}" for one in statistics.quantiles(values, n=4)) if len(values) > 1 else "-"


if __name__ == "__main__":
    sys.exit(main())
