"""A great many records, sent and read back, compared byte for byte and in order. Usage: million.py produce|consume TOPIC COUNT

Record number i has key i as 8 bytes, a value made of md5(i), goes to partition i mod 4 and must lie at offset i div 4, with timestamp
BASE + i. clients/java/Million.java derives the same, so either may read what the other sent. Idempotent, lz4, acks=all.
"""

import hashlib
import struct
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import matrix

PARTITIONS = 4
BASE = 1_790_000_000_000


def key(index):
    return struct.pack(">q", index)


def value(index):
    digest = hashlib.md5(key(index)).digest()
    return (digest * 13)[: 20 + index * 7919 % 180]


def produce(bootstrap, topic, count):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    config = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 20}
    producer = Producer(config | {"queue.buffering.max.messages": 200_000})
    failures = []
    acknowledged = [0] * PARTITIONS

    def delivered(error, message):
        if error or message.offset() != acknowledged[message.partition()]:
            failures.append(error or f"partition {message.partition()}: acknowledged {message.offset()}, {acknowledged[message.partition()]} was next")
        acknowledged[message.partition()] += 1

    for index in range(count):
        while True:
            try:
                producer.produce(topic, value(index), key(index), index % PARTITIONS, on_delivery=delivered, timestamp=BASE + index)
                break
            except BufferError:
                producer.poll(0.1)
        if index % 1000 == 0:
            producer.poll(0)
            matrix.expect(not failures, f"produce: {failures[:1]}")
    matrix.expect(producer.flush(120) == 0, "not every record was acknowledged in 120 s")
    matrix.expect(not failures, f"produce: {failures[:1]}")
    matrix.expect(sum(acknowledged) == count, f"{count} sent, {sum(acknowledged)} acknowledged")


def consume(bootstrap, topic, count):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": matrix.fresh("none"), "enable.auto.commit": False, "check.crcs": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    following, got, last = [0] * PARTITIONS, 0, time.monotonic()
    while got < count:
        messages = consumer.consume(10_000, 0.5)
        if messages:
            last = time.monotonic()
        matrix.expect(time.monotonic() - last < 60, f"{got} of {count} records came, then nothing for 60 s")
        for message in messages:
            matrix.expect(message.error() is None, f"consume: {message.error()}")
            partition, offset = message.partition(), message.offset()
            matrix.expect(offset == following[partition], f"partition {partition}: offset {offset} where {following[partition]} is next")
            following[partition] += 1
            index = offset * PARTITIONS + partition
            same = message.key() == key(index) and message.value() == value(index) and message.timestamp()[1] == BASE + index
            matrix.expect(same, f"partition {partition} offset {offset}: key, value or timestamp is not what was sent")
        got += len(messages)
    for partition in range(PARTITIONS):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        want = (count - partition + PARTITIONS - 1) // PARTITIONS
        matrix.expect((low, high) == (0, want), f"partition {partition} spans {low}..{high}, must be 0..{want}")
    consumer.close()


def main():
    mode, topic, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    began = time.monotonic()
    try:
        {"produce": produce, "consume": consume}[mode](matrix.bootstrap(), topic, count)
    except matrix.Difference as problem:
        print(f"FAIL million: confluent-kafka {mode}: {problem}")
        return 1
    print(f"ok   million: confluent-kafka {mode} of {count} records ({time.monotonic() - began:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
