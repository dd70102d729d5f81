"""The processes of the soak's load. Each runs until `stop`, counts what it did and what went wrong, and prints its first errors.

counts: a shared [done, errors]; done is bytes for producers and consumers, passes for the manager, joins for the joiner.
Knows nothing of what the broker's process and files look like: soak.py judges those.
"""

import random
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

# Per producer: codec, bytes of a value, idempotent, whether by key, share of the rate in bytes.
STYLES = [("none", 16_384, True, False, 0.4), ("lz4", 1_024, True, True, 0.3), ("none", 60_000, False, False, 0.2), ("zstd", 4_096, True, True, 0.1)]
PASS_SECONDS = 1.0
# What the manager writes to each partition of the topics of its own in a pass, and to a small topic.
PASS_RECORDS, SMALL_RECORDS, RECORD_BYTES = 64, 20, 4_096
SMALL_ALIVE = 4


class Errors(list):
    """Of one process."""

    def __init__(self, who):
        super().__init__()
        self.who = who

    def add(self, error):
        self.append(str(error))

    def close(self, counts):
        counts[1] = len(self)
        for error in self[:3]:
            print(f"{self.who}: {error}", flush=True)


def produce(bootstrap, number, topics, rate, counts, stop):
    """Writes its share of `rate` bytes a second to `topics` ({name: partitions})."""
    codec, size, idempotent, by_key, share = STYLES[number]
    body, errors = random.Random(number).randbytes(1 << 20), Errors(f"producer {number}")
    producer = Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": idempotent, "compression.type": codec, "linger.ms": 10,
        "queue.buffering.max.kbytes": 65_536, "message.timeout.ms": 60_000, "error_cb": errors.add,
    })  # fmt: skip

    def delivered(error, _message):
        if error:
            errors.add(error)
        else:
            counts[0] += size

    names, sent, owed, last = list(topics), 0, 0.0, time.monotonic()
    while not stop.is_set():
        now = time.monotonic()
        owed, last = min(owed + (now - last) * rate.value * share, rate.value), now
        if owed < size:
            producer.poll(0.005)
            continue
        topic, at = names[sent % len(names)], sent * 997 % ((1 << 20) - size)
        where = {} if by_key else {"partition": sent // len(names) % topics[topic]}
        try:
            producer.produce(topic, body[at : at + size], str(sent % 1009) if by_key else None, on_delivery=delivered, **where)
        except BufferError:
            producer.poll(0.05)
            continue
        owed, sent = owed - size, sent + 1
        producer.poll(0)
    if producer.flush(60):
        errors.add("not everything was delivered within 60 s of the end")
    errors.close(counts)


def member(bootstrap, group, errors):
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "auto.commit.interval.ms": 1000, "check.crcs": True,
        "error_cb": errors.add,
    })  # fmt: skip


def read(consumer, errors):
    """Bytes of what comes within 0.2 s."""
    total = 0
    for message in consumer.consume(500, 0.2):
        if message.error():
            errors.add(message.error())
        else:
            total += len(message.value())
    return total


def consume(bootstrap, group, topics, counts, stop):
    """A member of a group that stays."""
    errors = Errors(f"member of {group}")
    consumer = member(bootstrap, group, errors)
    consumer.subscribe(list(topics))
    while not stop.is_set():
        counts[0] += read(consumer, errors)
    consumer.close()
    errors.close(counts)


def join(bootstrap, group, topics, counts, stop):
    """A member that joins a group, reads for some seconds, and leaves, again and again."""
    errors, rng = Errors(f"joiner of {group}"), random.Random(7)
    while not stop.is_set():
        consumer, end, has_read = member(bootstrap, group, errors), time.monotonic() + rng.uniform(5, 10), False
        consumer.subscribe(list(topics))
        while time.monotonic() < end and not stop.is_set():
            has_read |= read(consumer, errors) > 0
        consumer.close()
        counts[0] += has_read
        stop.wait(rng.uniform(0, 5))
    errors.close(counts)


def manage(bootstrap, trimmed, timed, counts, stop):
    """Writes a little to `trimmed` ({name: partitions}), whose records it deletes up to the end, and to `timed`, which retention empties by
    time; makes, fills and deletes small topics."""
    errors, body = Errors("manager"), random.Random(99).randbytes(RECORD_BYTES)
    config = {"bootstrap.servers": bootstrap, "error_cb": errors.add}
    admin, producer = AdminClient(config), Producer(config | {"acks": "all", "enable.idempotence": True})
    alive, made = [], 0

    def delivered(error, _message):
        if error:
            errors.add(error)

    def fill(topic, partition, records):
        for _ in range(records):
            producer.produce(topic, body, partition=partition, on_delivery=delivered)

    def done(futures):
        return [future.result(30) for future in futures.values()]

    while not stop.is_set():
        began = time.monotonic()
        for topic, count in (trimmed | timed).items():
            for partition in range(count):
                fill(topic, partition, PASS_RECORDS)
        try:
            name, made = f"soak-small-{made}", made + 1
            done(admin.create_topics([NewTopic(name, 1, 1)], request_timeout=30))
            fill(name, 0, SMALL_RECORDS)
            alive.append(name)
            if producer.flush(30):
                errors.add("not everything was delivered within 30 s")
            # -1 asks for all up to the high watermark.
            ends = [TopicPartition(topic, partition, -1) for topic, count in trimmed.items() for partition in range(count)]
            done(admin.delete_records(ends, request_timeout=30))
            if len(alive) > SMALL_ALIVE:
                done(admin.delete_topics([alive.pop(0)], request_timeout=30))
        except KafkaException as error:
            errors.add(error)
        counts[0] += 1
        stop.wait(max(0.0, PASS_SECONDS - (time.monotonic() - began)))
    try:
        done(admin.delete_topics(alive, request_timeout=30))
    except KafkaException as error:
        errors.add(error)
    errors.close(counts)
