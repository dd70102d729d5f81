"""The checks of matrix.py through kafka-python, both the 3.x line and 2.0.2."""

import logging
import sys
import threading
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

import matrix
from records import ALL_KINDS, Seen

MODERN = int(kafka.__version__.split(".")[0]) >= 3
logging.getLogger("kafka").setLevel(logging.CRITICAL)


def seen(message):
    return Seen(message.partition, message.offset, message.key, message.value, list(message.headers), message.timestamp)


class Member:
    """One group member on its own thread; kafka-python commits by itself on rebalance and close."""

    def __init__(self, bootstrap, topic, group):
        self.consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", auto_commit_interval_ms=200)
        self.lock, self.got, self.held, self.failure = threading.Lock(), [], set(), None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.poll, daemon=True)
        self.thread.start()

    def poll(self):
        try:
            while not self.stopping.is_set():
                batches = self.consumer.poll(timeout_ms=50)
                with self.lock:
                    self.held = {one.partition for one in self.consumer.assignment()}
                    self.got += [seen(message) for messages in batches.values() for message in messages]
            self.consumer.close()
        except Exception as problem:
            self.failure = problem

    def assigned(self):
        if self.failure:
            raise self.failure
        with self.lock:
            return set(self.held)

    def drain(self):
        if self.failure:
            raise self.failure
        with self.lock:
            got, self.got = self.got, []
            return got

    def leave(self):
        self.stopping.set()
        self.thread.join(matrix.WAIT_SECONDS)
        matrix.expect(not self.thread.is_alive(), "a member did not close in time")


class Live:
    def __init__(self, bootstrap, codec, idempotent):
        config = {"bootstrap_servers": bootstrap, "compression_type": None if codec == "none" else codec, "linger_ms": 20, "acks": "all"}
        if MODERN:
            config["enable_idempotence"] = idempotent
        else:
            config |= {"retries": 5, "max_in_flight_requests_per_connection": 1}
        self.producer = KafkaProducer(**config)

    def send(self, topic, records):
        futures = []
        for one in records:
            headers = list(one.headers)
            futures.append(
                self.producer.send(topic, value=one.value, key=one.key, headers=headers, partition=one.partition, timestamp_ms=one.timestamp)
            )
        self.producer.flush(60)
        return [(done.partition, done.offset) for done in (future.get(60) for future in futures)]

    def close(self):
        self.producer.close()


class Driver:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    idempotent = MODERN
    kinds = ALL_KINDS
    none_is_end = False

    def __init__(self):
        self.name = "kafka-python" if MODERN else "kafka-python-2"
        self.version = kafka.__version__
        self.bootstrap = matrix.bootstrap()

    def create(self, topic, partitions):
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.create_topics([NewTopic(topic, partitions, 1)])
        finally:
            admin.close()

    def partitions(self, topic):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        try:
            return len(consumer.partitions_for_topic(topic) or [])
        finally:
            consumer.close()

    def live(self, codec, idempotent):
        return Live(self.bootstrap, codec, idempotent)

    def produce(self, topic, records, codec, idempotent):
        live = self.live(codec, idempotent)
        try:
            return live.send(topic, records)
        finally:
            live.close()

    def consume(self, topic, starts, count):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False, check_crcs=True)
        try:
            consumer.assign([TopicPartition(topic, partition) for partition in starts])
            for partition, offset in starts.items():
                consumer.seek(TopicPartition(topic, partition), offset)
            return self.collect(consumer, count)
        finally:
            consumer.close()

    def collect(self, consumer, count):
        got, deadline = [], time.monotonic() + matrix.WAIT_SECONDS
        while len(got) < count:
            matrix.expect(time.monotonic() < deadline, f"{len(got)} of {count} records came in {matrix.WAIT_SECONDS} s")
            batches = consumer.poll(timeout_ms=500, max_records=count - len(got))
            got += [seen(message) for messages in batches.values() for message in messages]
        return got

    def times(self, topic, partitions, timestamp):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        try:
            found = consumer.offsets_for_times({TopicPartition(topic, partition): timestamp for partition in range(partitions)})
            return {place.partition: answer.offset if answer else None for place, answer in found.items()}
        finally:
            consumer.close()

    def take(self, topic, group, count):
        consumer = KafkaConsumer(topic, bootstrap_servers=self.bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
        try:
            got = self.collect(consumer, count)
            consumer.commit()
            for partition in {one.partition for one in got}:
                want = max(one.offset for one in got if one.partition == partition) + 1
                stored = consumer.committed(TopicPartition(topic, partition))
                matrix.expect(stored == want, f"partition {partition}: committed {want}, the group holds {stored}")
            return got
        finally:
            consumer.close()

    def member(self, topic, group):
        return Member(self.bootstrap, topic, group)

    def close(self):
        pass


if __name__ == "__main__":
    sys.exit(matrix.run(Driver()))
