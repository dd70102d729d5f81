"""The checks of matrix.py through confluent-kafka (librdkafka 2.x)."""

import sys
import threading

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import matrix
from records import ALL_KINDS, Seen


def seen(message):
    if message.error():
        raise confluent_kafka.KafkaException(message.error())
    headers = [(name, value) for name, value in (message.headers() or [])]
    return Seen(message.partition(), message.offset(), message.key(), message.value(), headers, message.timestamp()[1])


# librdkafka prints each refused connection while the broker is away.
QUIET = {"log_level": 0}


class Member:
    """One group member on its own thread; it commits what it drained when it leaves or loses partitions."""

    def __init__(self, bootstrap, topic, group, protocol):
        config = QUIET | {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "auto.commit.interval.ms": 200}
        if protocol == "consumer":
            config["group.protocol"] = "consumer"
        self.consumer = Consumer(config)
        self.consumer.subscribe([topic])
        self.lock, self.got, self.held, self.failure = threading.Lock(), [], set(), None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.poll, daemon=True)
        self.thread.start()

    def poll(self):
        try:
            while not self.stopping.is_set():
                message = self.consumer.poll(0.05)
                with self.lock:
                    self.held = {one.partition for one in self.consumer.assignment()}
                    if message is not None:
                        self.got.append(seen(message))
        except Exception as problem:
            self.failure = problem
        finally:
            self.consumer.close()

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
        config = QUIET | {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 20, "acks": "all"}
        self.producer = Producer(config | {"enable.idempotence": idempotent, "sticky.partitioning.linger.ms": 0})

    def send(self, topic, records):
        places = [None] * len(records)

        def delivered(index, error, message):
            places[index] = error or (message.partition(), message.offset())

        for index, record in enumerate(records):
            options = {} if record.partition is None else {"partition": record.partition}
            if record.timestamp is not None:
                options["timestamp"] = record.timestamp
            on_delivery = lambda error, message, index=index: delivered(index, error, message)
            self.producer.produce(topic, value=record.value, key=record.key, headers=record.headers, on_delivery=on_delivery, **options)
            self.producer.poll(0)
        left = self.producer.flush(60)
        matrix.expect(left == 0, f"{left} records were not acknowledged in 60 s")
        for place in places:
            if isinstance(place, KafkaError):
                raise confluent_kafka.KafkaException(place)
        return places

    def close(self):
        pass


class Driver:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    idempotent = True
    kinds = ALL_KINDS
    none_is_end = True  # librdkafka answers -1, which it names OFFSET_END

    def __init__(self, protocol="classic"):
        self.name = "confluent-kafka" if protocol == "classic" else "confluent-kafka-848"
        self.version = f"{confluent_kafka.version()} (librdkafka {confluent_kafka.libversion()[0]})"
        self.protocol = protocol
        self.bootstrap = matrix.bootstrap()
        self.admin = AdminClient(QUIET | {"bootstrap.servers": self.bootstrap})

    def create(self, topic, partitions):
        self.admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(30)

    def partitions(self, topic):
        # Of all topics: librdkafka asks for them in a form of its own, with bytes after the request's end.
        found = self.admin.list_topics(timeout=30).topics.get(topic)
        return len(found.partitions) if found else 0

    def live(self, codec, idempotent):
        return Live(self.bootstrap, codec, idempotent)

    def produce(self, topic, records, codec, idempotent):
        return self.live(codec, idempotent).send(topic, records)

    def consume(self, topic, starts, count):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": matrix.fresh("none"), "enable.auto.commit": False, "check.crcs": True})
        consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
        try:
            return self.collect(consumer, count)
        finally:
            consumer.close()

    def collect(self, consumer, count):
        got, idle = [], 0
        while len(got) < count:
            messages = consumer.consume(count - len(got), 1.0)
            idle = 0 if messages else idle + 1
            matrix.expect(idle < matrix.WAIT_SECONDS, f"{len(got)} of {count} records came, then nothing for {matrix.WAIT_SECONDS} s")
            got += [seen(message) for message in messages]
        return got

    def times(self, topic, partitions, timestamp):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": matrix.fresh("none")})
        asked = [TopicPartition(topic, partition, timestamp) for partition in range(partitions)]
        found = {one.partition: one.offset for one in consumer.offsets_for_times(asked, timeout=30)}
        for partition, offset in found.items():
            if offset == -1:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
                found[partition] = high
        consumer.close()
        return found

    def take(self, topic, group, count):
        config = {"bootstrap.servers": self.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        if self.protocol == "consumer":
            config["group.protocol"] = "consumer"
        consumer = Consumer(config)
        consumer.subscribe([topic])
        try:
            got = self.collect(consumer, count)
            positions = {}
            for one in got:
                positions[one.partition] = one.offset + 1
            committed = consumer.commit(offsets=[TopicPartition(topic, p, o) for p, o in positions.items()], asynchronous=False)
            for one in committed:
                matrix.expect(one.error is None, f"commit of partition {one.partition}: {one.error}")
            asked = [TopicPartition(topic, partition) for partition in positions]
            stored = {one.partition: one.offset for one in consumer.committed(asked, timeout=30)}
            matrix.expect(stored == positions, f"committed {positions}, the group holds {stored}")
            return got
        finally:
            consumer.close()

    def member(self, topic, group):
        return Member(self.bootstrap, topic, group, self.protocol)

    def close(self):
        pass


if __name__ == "__main__":
    sys.exit(matrix.run(Driver(*sys.argv[1:])))
