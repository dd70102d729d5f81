"""The checks of matrix.py through aiokafka: one event loop, driven from outside through run_until_complete."""

import asyncio
import logging
import sys

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import matrix
from records import ALL_KINDS, Seen

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def seen(message):
    return Seen(message.partition, message.offset, message.key, message.value, list(message.headers), message.timestamp)


class Member:
    """One group member as a task of the loop; the loop runs while anyone asks the member something."""

    def __init__(self, loop, bootstrap, topic, group):
        self.loop, self.got, self.left = loop, [], False
        self.topic, self.config = topic, {"bootstrap_servers": bootstrap, "group_id": group, "heartbeat_interval_ms": 500}
        self.consumer = loop.run_until_complete(self.open())
        self.task = loop.create_task(self.poll())

    async def open(self):
        return AIOKafkaConsumer(self.topic, auto_offset_reset="earliest", auto_commit_interval_ms=200, **self.config)

    async def poll(self):
        await self.consumer.start()
        while True:
            for messages in (await self.consumer.getmany(timeout_ms=50)).values():
                self.got += [seen(message) for message in messages]

    def turn(self):
        self.loop.run_until_complete(asyncio.sleep(0.05))
        if self.task.done() and not self.left:
            self.task.result()

    def assigned(self):
        self.turn()
        return {one.partition for one in self.consumer.assignment()}

    def drain(self):
        if not self.left:
            self.turn()
        got, self.got = self.got, []
        return got

    def leave(self):
        async def stop():
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            await self.consumer.stop()

        self.left = True
        self.loop.run_until_complete(asyncio.wait_for(stop(), matrix.WAIT_SECONDS))


class Live:
    """A producer that stays open; its tasks run while anyone asks something."""

    def __init__(self, driver, codec, idempotent):
        self.driver, self.kind, self.idempotent = driver, None if codec == "none" else codec, idempotent
        self.producer = driver.run(self.open())

    async def open(self):
        producer = AIOKafkaProducer(
            bootstrap_servers=self.driver.bootstrap, compression_type=self.kind, linger_ms=20, acks="all", enable_idempotence=self.idempotent
        )
        await producer.start()
        return producer

    def send(self, topic, records):
        async def work():
            futures = []
            for one in records:
                sent = await self.producer.send(
                    topic, value=one.value, key=one.key, headers=list(one.headers), partition=one.partition, timestamp_ms=one.timestamp
                )
                futures.append(sent)
            return [(one.partition, one.offset) for one in await asyncio.gather(*futures)]

        return self.driver.run(work())

    def close(self):
        self.driver.run(self.producer.stop())


class Driver:
    name = "aiokafka"
    version = aiokafka.__version__
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    idempotent = True
    kinds = ALL_KINDS
    none_is_end = False

    def __init__(self):
        self.bootstrap = matrix.bootstrap()
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def run(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, matrix.WAIT_SECONDS))

    def create(self, topic, partitions):
        async def work():
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                answer = await admin.create_topics([NewTopic(topic, partitions, 1)])
                for name, code, *message in answer.topic_errors:
                    matrix.expect(code == 0, f"creating {name} answers error {code} {message}")
            finally:
                await admin.close()

        self.run(work())

    async def with_consumer(self, work, **config):
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, **config)
        await consumer.start()
        try:
            return await work(consumer)
        finally:
            await consumer.stop()

    def partitions(self, topic):
        async def work(consumer):
            await consumer._client.force_metadata_update()
            return len(consumer.partitions_for_topic(topic) or [])

        async def subscribed(consumer):
            consumer.subscribe([topic])
            return await work(consumer)

        return self.run(self.with_consumer(subscribed))

    def live(self, codec, idempotent):
        return Live(self, codec, idempotent)

    def produce(self, topic, records, codec, idempotent):
        live = self.live(codec, idempotent)
        try:
            return live.send(topic, records)
        finally:
            live.close()

    async def collect(self, consumer, count):
        got = []
        while len(got) < count:
            for messages in (await consumer.getmany(timeout_ms=500, max_records=count - len(got))).values():
                got += [seen(message) for message in messages]
        return got

    def consume(self, topic, starts, count):
        async def work(consumer):
            consumer.assign([TopicPartition(topic, partition) for partition in starts])
            for partition, offset in starts.items():
                consumer.seek(TopicPartition(topic, partition), offset)
            return await self.collect(consumer, count)

        return self.run(self.with_consumer(work, enable_auto_commit=False, check_crcs=True))

    def times(self, topic, partitions, timestamp):
        async def work(consumer):
            found = await consumer.offsets_for_times({TopicPartition(topic, partition): timestamp for partition in range(partitions)})
            return {place.partition: answer.offset if answer else None for place, answer in found.items()}

        return self.run(self.with_consumer(work))

    def take(self, topic, group, count):
        async def work(consumer):
            consumer.subscribe([topic])
            got = await self.collect(consumer, count)
            await consumer.commit()
            for partition in {one.partition for one in got}:
                want = max(one.offset for one in got if one.partition == partition) + 1
                stored = await consumer.committed(TopicPartition(topic, partition))
                matrix.expect(stored == want, f"partition {partition}: committed {want}, the group holds {stored}")
            return got

        return self.run(self.with_consumer(work, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False))

    def member(self, topic, group):
        return Member(self.loop, self.bootstrap, topic, group)

    def close(self):
        self.loop.run_until_complete(asyncio.sleep(0.1))
        self.loop.close()


if __name__ == "__main__":
    sys.exit(matrix.run(Driver()))
