"""One process of the crash loop's load. Usage: load.py produce|manage WORK PORT NUMBER | load.py consume|join WORK PORT NUMBER GROUP

A producer sends until SIGTERM, then waits for what is under way; every acknowledgement is noted at once in WORK/acks-NUMBER. A consumer is a
member of GROUP on all topics: it notes what it was served in WORK/seen-NUMBER and, after each acknowledged synchronous commit, the commit in
WORK/commits-NUMBER; what becomes of its membership is a line in WORK/member-NUMBER. A joiner is one that leaves after some seconds and joins again.
A manager deletes records up to offsets that exist and makes, fills and deletes topics, each asked for until it is done; what it asks and what is
acknowledged goes to WORK/trims and WORK/churn. All live through the broker's deaths. A fatal client error (as an idempotent producer's lost state)
goes to WORK/fatal-NUMBER, which fails the run.
"""

import random
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import payload

FLUSH_SECONDS = 120
stopping = False


def stop(_signal, _frame):
    global stopping
    stopping = True


def fatal(work, number, text):
    with open(f"{work}/fatal-{number}", "a", encoding="utf-8") as file:
        file.write(text + "\n")


def produce(work, port, number):
    style = payload.STYLES[number % len(payload.STYLES)]
    notes = payload.Notes(f"{work}/acks-{number}")
    failed = []

    def on_error(error):
        if error.fatal():
            fatal(work, number, f"producer {number}: {error}")

    producer = Producer({
        "bootstrap.servers": f"127.0.0.1:{port}", "acks": "all", "enable.idempotence": style.idempotent, "compression.type": style.codec,
        "batch.size": style.batch_bytes, "linger.ms": style.linger_ms, "message.timeout.ms": 600_000, "request.timeout.ms": 5_000,
        "max.in.flight.requests.per.connection": 5 if style.idempotent else 1, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20, "retry.backoff.max.ms": 200, "queue.buffering.max.messages": 5_000, "error_cb": on_error, "log_level": 0,
    })  # fmt: skip

    def delivered(sequence, error, message):
        if error:
            failed.append(str(error))
            return
        offset = message.offset() if message.offset() is not None else -1
        notes.write(payload.PLACE.pack(payload.NAMES.index(message.topic()), message.partition(), offset, number, sequence))

    sequence, began = 0, time.monotonic()
    while not stopping:
        ahead = sequence - (time.monotonic() - began) * style.per_second
        if ahead > 0:
            producer.poll(min(0.05, ahead / style.per_second))
            continue
        topic = payload.NAMES[sequence % len(payload.NAMES)]
        where = {} if style.by_key else {"partition": sequence // len(payload.NAMES) % payload.TOPICS[topic]}
        try:
            on_delivery = lambda error, message, sequence=sequence: delivered(sequence, error, message)
            producer.produce(topic, payload.value(number, sequence), payload.key(number, sequence), on_delivery=on_delivery, **where)
        except BufferError:
            # The broker is away: what was not sent meanwhile is not made up for, or every restart would begin under a flood.
            producer.poll(0.1)
            began = time.monotonic() - sequence / style.per_second
            continue
        except KafkaException as problem:
            fatal(work, number, f"producer {number}: {problem}")
            return 1
        sequence += 1
        producer.poll(0)
    left = producer.flush(FLUSH_SECONDS)
    if left or failed:
        fatal(work, number, f"producer {number}: {left} not delivered in {FLUSH_SECONDS} s, {len(failed)} failed, first {failed[:1]}")
    with open(f"{work}/sent-{number}", "w", encoding="utf-8") as file:
        file.write(str(sequence))
    return 0


def join(work, port, number, group):
    """A member that stays for some seconds, and is away for some."""
    rng, notes = random.Random(number), notes_of(work, number)
    while not stopping:
        consume(work, port, number, group, notes, rng.uniform(1.0, 8.0))
        end = time.monotonic() + rng.uniform(0.0, 4.0)
        while time.monotonic() < end and not stopping:
            time.sleep(0.1)
    return 0


def notes_of(work, number):
    return payload.Notes(f"{work}/seen-{number}"), payload.Notes(f"{work}/commits-{number}")


def consume(work, port, number, group, notes, seconds=float("inf")):
    """Until the end, or for `seconds`."""
    (seen, commits), until = notes, time.monotonic() + seconds

    def note(what):
        with open(f"{work}/member-{number}", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {what}\n")

    note("starts")
    consumer = Consumer({
        "bootstrap.servers": f"127.0.0.1:{port}", "group.id": f"crash-{group}", "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "session.timeout.ms": 10_000, "heartbeat.interval.ms": 500, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "check.crcs": True,
        "error_cb": lambda error: note(f"hears {error}"), "log_level": 0,
    })  # fmt: skip
    positions, revoked = {}, [0]

    def commit():
        asked = [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
        positions.clear()
        try:
            done = consumer.commit(offsets=asked, asynchronous=False)
        except KafkaException:
            return  # not acknowledged: nothing was promised
        for one in done:
            if one.error is None:
                commits.write(payload.COMMIT.pack(group, payload.NAMES.index(one.topic), one.partition, one.offset))

    def on_assign(_consumer, partitions):
        note(f"has {len(partitions)} partitions")

    def on_revoke(_consumer, partitions):
        note(f"gives {len(partitions)} partitions back")
        # Now or never: a commit after the next member's would take its back.
        if positions:
            commit()
        revoked[0] += 1

    def on_lost(_consumer, partitions):
        note(f"has lost {len(partitions)} partitions")
        positions.clear()
        revoked[0] += 1

    consumer.subscribe(payload.NAMES, on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
    last = time.monotonic()
    while not stopping and time.monotonic() < until:
        rows, before = bytearray(), revoked[0]
        messages = consumer.consume(500, 0.05)
        # What came in the same call as a revocation may be of a partition that is another's now.
        is_held = revoked[0] == before
        for message in messages:
            if message.error():
                note(f"is served {message.error()}")
                continue
            who = payload.identity(message.value())
            if who is None:
                fatal(work, number, f"consumer {number} was served a damaged record at {message.topic()}-{message.partition()} offset {message.offset()}")
                continue
            rows += payload.PLACE.pack(payload.NAMES.index(message.topic()), message.partition(), message.offset(), *who)
            if is_held:
                positions[(message.topic(), message.partition())] = message.offset() + 1
        if rows:
            seen.write(bytes(rows))
        if positions and time.monotonic() - last > 0.1:
            commit()
            last = time.monotonic()
    consumer.close()
    return 0


class Manager:
    def __init__(self, work, port, number):
        self.client = {
            "bootstrap.servers": f"127.0.0.1:{port}", "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "log_level": 0,
        }  # fmt: skip
        self.admin, self.rng = AdminClient(self.client), random.Random(number)
        self.watcher = Consumer(self.client | {"group.id": "crash-manager"})
        self.trims, self.churn = payload.Notes(f"{work}/trims"), payload.Notes(f"{work}/churn")
        self.alive, self.generation = [], 0

    def run(self):
        while not stopping:
            self.trim()
            if len(self.alive) < payload.CHURN_NAMES // 2:
                self.make()
            elif self.rng.random() < 0.7:
                self.delete()
            time.sleep(0.3)
        self.watcher.close()
        return 0

    def trim(self):
        partition = self.rng.randrange(payload.TOPICS[payload.TRIMMED])
        place = TopicPartition(payload.TRIMMED, partition)
        try:
            low, high = self.watcher.get_watermark_offsets(place, timeout=2, cached=False)
            asked = self.rng.randint(low, high)
            self.trims.write(payload.TRIM.pack(partition, asked, -1))
            place.offset = asked
            done = self.admin.delete_records([place], request_timeout=5)
            for future in done.values():
                self.trims.write(payload.TRIM.pack(partition, asked, future.result().low_watermark))
        except KafkaException:
            return  # not acknowledged: it may have happened or not

    def note(self, generation, state):
        self.churn.write(payload.CHURN.pack(generation, state))

    def until_done(self, ask, already):
        """Asks until it is acknowledged, or an earlier attempt turns out to have been. False: the end came first."""
        while not stopping:
            try:
                for future in ask().values():
                    future.result()
                return True
            except KafkaException as problem:
                if problem.args[0].code() == already:
                    return True
                time.sleep(0.1)
        return False

    def make(self):
        generation, self.generation = self.generation, self.generation + 1
        name, records = payload.churned(generation)
        if any(other % payload.CHURN_NAMES == generation % payload.CHURN_NAMES for other in self.alive):
            return
        self.note(generation, payload.CREATING)
        if not self.until_done(lambda: self.admin.create_topics([NewTopic(name, 1, 1)], request_timeout=5), KafkaError.TOPIC_ALREADY_EXISTS):
            return
        self.note(generation, payload.MADE)
        self.alive.append(generation)
        # A fresh one each time: a producer that knows the former topic of that name by its sequences would be a different test.
        failed = []
        producer = Producer(self.client | {
            "enable.idempotence": True, "linger.ms": 0, "message.timeout.ms": 60_000, "request.timeout.ms": 5_000, "retry.backoff.ms": 20,
        })  # fmt: skip
        for key, value in records:
            producer.produce(name, value, key, on_delivery=lambda error, _message: failed.append(error) if error else None)
        if producer.flush(60) == 0 and not failed:
            self.note(generation, payload.FILLED)

    def delete(self):
        generation = self.alive.pop(self.rng.randrange(len(self.alive)))
        name, _ = payload.churned(generation)
        self.note(generation, payload.DELETING)
        if self.until_done(lambda: self.admin.delete_topics([name], request_timeout=5), KafkaError.UNKNOWN_TOPIC_OR_PART):
            self.note(generation, payload.DELETED)
            return
        self.alive.append(generation)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kind, work, port, number = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    try:
        if kind == "produce":
            code = produce(work, port, number)
        elif kind == "consume":
            code = consume(work, port, number, int(sys.argv[5]), notes_of(work, number))
        elif kind == "join":
            code = join(work, port, number, int(sys.argv[5]))
        else:
            code = Manager(work, port, number).run()
    except KafkaException as problem:  # librdkafka raises out of poll once it is in a fatal state
        fatal(work, number, f"{kind} {number}: {problem}")
        code = 1
    sys.exit(code)
