"""How each row is measured: one function a kind, from a server and the row's arguments to figures by name.

Every function takes a `Bench` (one run: its server, its bound, the tools) and the arguments of its row. A tool that fails, or a bound that is
passed, is a `Hole` with the reason; nothing else of the run suffers.

Knows nothing of pairs, medians or tables.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

from rows import open_seconds
from servers import FLUSH as FLUSH_CONFIGS
from servers import Hole, Server, pinned

MB = 1_000_000
KAFKA_DELETES_S = 0.5  # behind log.segment.delete.delay.ms
UNFLUSHED = {"flush.messages": str((1 << 63) - 1)}  # Kafka's default
DELETES_PER_S = 2_000  # partitions whose files any server has removed, behind the answer, before the next run begins
REST_S = 2.0  # until a process that has just started is idle


class Bench:
    """What one run has at hand."""

    def __init__(self, name, server, sizes, client_cores, bound_s, work, kept=None, number=0):
        """`kept`: what a row keeps from pass to pass, by key; each has a `remove`. `number`: of the pass, from 0 on."""
        self.name, self.server, self.sizes, self.work = name, server, sizes, work
        self.client_cores, self.bound_s, self.kept, self.number = client_cores, bound_s, kept, number
        self.deadline = time.monotonic() + bound_s
        self.topics = 0

    def left_s(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Hole(f"not done within its bound of {self.bound_s:.0f} s")
        return left

    def spawn(self, *command):
        return subprocess.Popen(pinned(self.client_cores, command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait(self, process, what):
        """The output of a client that was started, which must succeed within the bound."""
        try:
            out, err = process.communicate(timeout=self.left_s())
        except subprocess.TimeoutExpired as late:
            process.kill()
            process.communicate()
            raise Hole(f"{what}: not done within the run's bound of {self.bound_s:.0f} s") from late
        if process.returncode != 0:
            raise Hole(f"{what}: {(err.strip() or out.strip() or 'it was ended').splitlines()[-1][-200:]}")
        return out

    def start_raw(self, command, *words, nice=0, server=None):
        to = server or self.server
        front = ["nice", "-n", str(nice)] if nice else []
        address = to.reads if command == "fetch" else to.address
        return self.spawn(*front, os.environ["BENCH_BIN"], command, "--bootstrap", address, *words)

    def raw(self, command, *words, server=None):
        """The figures of a raw-wire measurement."""
        return json.loads(self.wait(self.start_raw(command, "--json", *words, server=server), command))

    def rd(self, command, **words):
        """The figures of a librdkafka measurement."""
        out = self.wait(self.spawn(os.environ["LOAD"], self.server.address, command, *(f"{key}={value}" for key, value in words.items())), f"librdkafka {command}")
        return {key: float(value) for key, value in (word.split("=") for word in out.split())}

    def perf(self, tool, *words):
        """The output of one of Kafka's own tools."""
        log4j = f"-Dlog4j2.configurationFile={os.environ['LIB_DIR']}/peer/log4j2.properties"
        command = ["java", "-Xmx512M", "-cp", f"{os.environ['TOOL_LIBS']}/*", log4j, f"org.apache.kafka.tools.{tool}", "--bootstrap-server", self.server.address]
        return self.wait(self.spawn(*command, *words), tool)

    @contextlib.contextmanager
    def topic(self, partitions=1, server=None, **configs):
        """A topic of its own, by name; it is deleted in the end. The bare server has but one."""
        if self.name == "bare":
            yield "bench"
            return
        self.topics += 1
        name = f"bench-{os.getpid()}-{time.monotonic_ns()}-{self.topics}"
        configs = {**FLUSH_CONFIGS.get(self.name, {}), **configs}
        words = [word for key, value in configs.items() for word in ("--config", f"{key.replace('_', '.')}={value}")]
        to = server or self.server
        self.wait(self.start_raw("create-topic", "--topic", name, "--partitions", str(partitions), *words, server=to), "create-topic")
        try:
            yield name
        finally:
            # Deleted even when the bound is over: the next run is not to pay for it.
            self.deadline = max(self.deadline, time.monotonic() + 60)
            with contextlib.suppress(Hole):
                self.wait(self.start_raw("delete-topic", "--topic", name, server=to), "delete-topic")
            time.sleep(max(KAFKA_DELETES_S if to.kind == "kafka" else 0, partitions / DELETES_PER_S))

    def cpu_of(self):
        return ["--server-pid", str(self.server.pid)]

    def window(self, seconds=None):
        return ["--seconds", str(seconds or self.sizes.seconds), "--warm-up", str(self.sizes.warm_s)]

    def settle(self):
        """What was filled goes to where it belongs, as in the warm-up of rows that have one."""
        os.sync()
        time.sleep(self.sizes.warm_s)

    def fill(self, topic, total_bytes, partitions=1, batch=256 << 10, server=None):
        words = ["--topic", topic, "--partitions", str(partitions), "--total-bytes", str(total_bytes), "--warm-up", "0", "--seconds", str(max(1, int(self.left_s())))]
        self.raw("produce", *words, "--batch-bytes", str(batch), server=server)


class KeptTopic:
    """A topic that is made and filled in a server's first pass of a row, and kept for the rest of them."""

    def __init__(self, bench, partitions, total_bytes, batch=256 << 10):
        self.server, self.open = bench.server, contextlib.ExitStack()
        self.name = self.open.enter_context(bench.topic(partitions))
        try:
            bench.fill(self.name, total_bytes, partitions, batch)
        except BaseException:
            self.open.close()
            raise
        bench.settle()

    def remove(self):
        self.server.go_on()  # it stands still when it was not the last in turn
        with contextlib.suppress(Hole):
            self.open.close()
        self.server.still()


@contextlib.contextmanager
def topic_of(bench, partitions, batch_bytes):
    """A topic of its own; or of so many partitions that making them takes longer than what is measured a kept one, each partition with its files
    and a batch in them. Kafka's two columns share it, with the flush of the one in turn."""
    if partitions < bench.sizes.many or bench.name == "bare":
        with bench.topic(partitions) as name:
            yield name
        return
    key = ("steady", bench.server.pid)
    if key not in bench.kept:
        bench.kept[key] = KeptTopic(bench, partitions, partitions * batch_bytes * 5 // 4, batch_bytes)
    name = bench.kept[key].name
    if bench.server.kind == "kafka":
        words = [word for key, value in {**UNFLUSHED, **FLUSH_CONFIGS.get(bench.name, {})}.items() for word in ("--config", f"{key}={value}")]
        bench.wait(bench.start_raw("configure-topic", "--topic", name, *words), "configure-topic")
    yield name


def produce(bench, args, home="any"):
    partitions = bench.sizes.partitions(args["partitions"])
    words = ["--partitions", str(partitions), "--connections", str(args["connections"]), "--batch-bytes", str(args["batch"])]
    words += ["--record-bytes", str(args.get("record", 1024)), "--home", home, "--in-flight", str(args.get("in_flight", 4)), *bench.cpu_of(), *bench.window()]
    words += ["--linger-batches", "8"] if args.get("keyed") else []
    words += ["--idempotent"] if args.get("idempotent") else []
    words += ["--lz4"] if args.get("lz4") else []
    # As librdkafka's load does. Of 10,000 partitions Kafka's page cache does not keep the indexes from one run to the next.
    words += ["--touch"] if partitions > 1 else []
    with topic_of(bench, partitions, args["batch"]) as topic:
        return bench.raw("produce", "--topic", topic, *words)


def rd_produce(bench, args):
    partitions = bench.sizes.partitions(args["partitions"])
    flags = {flag: 1 for flag in ("keyed", "idempotent", "lz4") if args.get(flag)}
    flags.update({"in_flight": args["in_flight"]} if "in_flight" in args else {})
    linger = 1 if args.get("keyed") else 5
    # The batch header and what frames a record come on top of a value.
    value = args["record"] - 24 if args["record"] > 200 else args["record"] - 10
    with topic_of(bench, partitions, args["batch"]) as topic:
        return bench.rd(
            "produce", topic=topic, partitions=partitions, clients=args["connections"], batch=args["batch"], value=value, linger=linger,
            seconds=bench.sizes.seconds, warm=bench.sizes.warm_s, pid=bench.server.pid, **flags,
        )  # fmt: skip


SENT = re.compile(r"(\d+) records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\).* ([\d.]+) ms 50th, ([\d.]+) ms 95th, ([\d.]+) ms 99th, ([\d.]+) ms 99.9th")


def sent(text):
    """What ProducerPerformance says last; its MB are 2^20 bytes."""
    found = SENT.findall(text)
    if not found:
        raise Hole("ProducerPerformance said nothing of its result")
    _, records, mib, p50, _, p99, p999 = map(float, found[-1])
    return {"mb_per_s": mib * 1.048576, "records_per_s": records, "p50_ms": p50, "p99_ms": p99, "p999_ms": p999}


def consumed(text):
    """What ConsumerPerformance says last, without the time that joining a group took."""
    names, values = [], []
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        if words[0] == "start.time":
            names = words
        elif names and len(words) == len(names):
            values = words
    found = dict(zip(names, values))
    if "fetch.MB.sec" not in found:
        raise Hole("ConsumerPerformance said nothing of its result")
    return {"mb_per_s": float(found["fetch.MB.sec"]) * 1.048576}


def perf_produce(bench, args):
    with bench.topic(1) as topic:
        count = bench.sizes.perf_mb * MB // args["record"]
        words = ["--topic", topic, "--num-records", str(count), "--record-size", str(args["record"]), "--throughput", "-1"]
        return sent(bench.perf("ProducerPerformance", *words, "--command-property", "acks=all", f"batch.size={args['batch']}", "linger.ms=5"))


def latency(bench, args, home="any"):
    sends = bench.sizes.sends
    with bench.topic(args["partitions"]) as topic:
        words = ["--partitions", str(args["partitions"]), "--sends", str(sends), "--warm-up-sends", str(sends // 4), "--home", home, *bench.cpu_of()]
        return bench.raw("latency", "--topic", topic, *words)


def at_rate(bench, args, topic, command="open-loop"):
    words = ["--topic", topic, "--partitions", str(args["partitions"]), "--rate", str(args["rate"]), "--value-bytes", str(args.get("value", 100))]
    seconds = args["seconds"] if "seconds" in args and not bench.sizes.quick else open_seconds(args["rate"], bench.sizes)
    return bench.raw(command, *words, *bench.window(seconds), *bench.cpu_of())


def open_loop(bench, args):
    with bench.topic(args["partitions"]) as topic:
        return at_rate(bench, args, topic)


def end_to_end(bench, args):
    with bench.topic(args["partitions"]) as topic:
        return at_rate(bench, args, topic, "end-to-end")


def rd_latency(bench, _args):
    with bench.topic(1) as topic:
        return bench.rd("latency", topic=topic, sends=bench.sizes.sends, value=1000)


def rd_open(bench, args):
    seconds = open_seconds(args["rate"], bench.sizes)
    with bench.topic(args["partitions"]) as topic:
        return bench.rd("open", topic=topic, partitions=args["partitions"], rate=args["rate"], seconds=seconds, warm=bench.sizes.warm_s, value=100)


def fetch_hot(bench, _args, home="any"):
    with bench.topic(1) as topic:
        if bench.name != "bare":  # which serves what it wrote before its start
            bench.fill(topic, bench.sizes.hot_mb * MB)
        return bench.raw("fetch", "--topic", topic, "--home", home, "--seconds", str(bench.sizes.seconds), *bench.cpu_of())


def fetch_warm(bench, _args):
    with bench.topic(1) as topic:
        bench.fill(topic, bench.sizes.warm_mb * MB)
        os.sync()
        words = ["--pass-bytes", str(bench.sizes.warm_mb * MB // 2), "--seconds", str(bench.sizes.seconds)]
        return bench.raw("fetch", "--topic", topic, *words, *bench.cpu_of())


def fetch_cold(bench, args):
    consumers = args["connections"]
    with bench.topic(consumers) as topic:
        # A third is the youngest part, which may be in memory, and is not read.
        bench.fill(topic, bench.sizes.cold_mb * MB, consumers)
        bench.server.forget_page_cache()
        words = ["--partitions", str(consumers), "--connections", str(consumers), "--pass-bytes", str(bench.sizes.cold_mb * MB * 2 // 3 // consumers)]
        return bench.raw("fetch", "--topic", topic, *words, *bench.cpu_of())


def rd_fetch(bench, args):
    total = getattr(bench.sizes, args["mb"]) * MB
    with bench.topic(1) as topic:
        bench.fill(topic, total, batch=64 << 10)
        bench.settle()
        # Values are a little less than the batches' bytes.
        return bench.rd("consume", topic=topic, partitions=1, bytes=total * 9 // 10, passes=args["passes"], pid=bench.server.pid)


def perf_fetch(bench, _args):
    total = bench.sizes.perf_mb * MB
    with bench.topic(1) as topic:
        bench.fill(topic, total, batch=64 << 10)
        bench.settle()
        return consumed(bench.perf("ConsumerPerformance", "--topic", topic, "--num-records", str(total * 9 // 10 // 1024), "--timeout", "60000"))


@contextlib.contextmanager
def readers(bench, topic, partitions, seconds, *words):
    """Consumers of old data beside what is measured, at a low priority so that their client takes no time from the load's. Gives a
    function that waits for their end and tells what they read."""
    words = ["--topic", topic, "--partitions", str(partitions), "--connections", str(partitions), "--cold", "--seconds", str(seconds), "--json", *words]
    process = bench.start_raw("fetch", *words, nice=10)
    try:
        yield lambda: json.loads(bench.wait(process, "the readers"))
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def catch_up(bench, args):
    """Produce p99 alone and beside readers; which comes first changes from pass to pass with the order of the servers."""
    load = {"rate": args["rate"], "value": 1024, "partitions": 4}
    seconds = open_seconds(args["rate"], bench.sizes)
    with bench.topic(args["readers"]) as old, bench.topic(4) as live:
        bench.fill(old, bench.sizes.warm_mb * MB, args["readers"])
        os.sync()
        oldest = str(bench.sizes.warm_mb * MB // 2 // args["readers"])
        alone = at_rate(bench, load, live) if bench.number % 2 == 0 else None
        with readers(bench, old, args["readers"], seconds + bench.sizes.warm_s + 1, "--pass-bytes", oldest) as ended:
            time.sleep(0.5)
            beside = at_rate(bench, load, live)
            read = ended()
        alone = alone or at_rate(bench, load, live)
    times = beside["p99_ms"] / alone["p99_ms"]
    return {**beside, "alone_p99_ms": alone["p99_ms"], "p99_times": times, "read_mb_per_s": read["mb_per_s"]}


# -- processes of their own ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def fresh(bench):
    """Another server of the kind on an empty directory, not yet started; removed in the end."""
    server = Server(bench.server.kind, f"{bench.work}/fresh-{time.monotonic_ns()}", bench.server.cores)
    try:
        yield server
    finally:
        server.remove()


def first_after(bench, server, start, *words):
    """Seconds from just before `start()` to the first acknowledged record."""
    knocking = bench.start_raw("first-produce", "--json", "--wait", str(max(1, int(bench.left_s()))), *words, server=server)
    start()
    return json.loads(bench.wait(knocking, "first-produce"))["acknowledged_s"]


def rested_mib(server):
    """Memory of a server that has nothing to do."""
    time.sleep(REST_S)
    return server.rss_mib()


def at_rest(bench, server):
    """Memory and CPU of a server that has nothing to do."""
    time.sleep(REST_S)
    before = server.cpu_s()
    time.sleep(bench.sizes.idle_s)
    return {"rss_mib": server.rss_mib(), "cpu_percent": (server.cpu_s() - before) / bench.sizes.idle_s * 100}


def start_empty(bench, _args):
    with fresh(bench) as server:
        seconds = first_after(bench, server, server.launch, "--topic", "first", "--create")
        return {"acknowledged_s": seconds, **at_rest(bench, server)}


def memory_partitions(bench, _args):
    count = bench.sizes.most
    with fresh(bench) as server:
        server.start()
        empty = rested_mib(server)
        began = time.monotonic()
        bench.wait(bench.start_raw("create-topic", "--topic", "many", "--partitions", str(count), server=server), "create-topic")
        created = time.monotonic() - began
        words = ["--topic", "many", "--partitions", str(count), "--touch", "--total-bytes", "128", "--batch-bytes", "128", "--warm-up", "0"]
        bench.raw("produce", *words, server=server)
        found = at_rest(bench, server)
        return {"created_s": created, **found, "kib_each": (found["rss_mib"] - empty) * 1024 / count}


def memory_load(bench, _args):
    """The most memory of the server that all rows share, under load."""
    most, over = [bench.server.rss_mib()], threading.Event()

    def look():
        while not over.wait(0.1):
            most[0] = max(most[0], bench.server.rss_mib())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        found = produce(bench, {"partitions": 1, "connections": 4, "batch": 64 << 10})
    finally:
        over.set()
        looking.join()
    return {**found, "rss_max_mib": most[0]}


API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, 0)  # version 0, correlation 1, an empty client id


def greeted(address):
    """A connection that has asked for ApiVersions and got an answer."""
    host, port = address.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)), timeout=30)
    sock.sendall(API_VERSIONS)
    if not sock.recv(1 << 16):
        raise Hole("the server closed a connection")
    return sock


def idle_connections(bench, _args):
    count = bench.sizes.connections
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 100:
        raise Hole(f"the limit of open files is {hard}; {count + 100} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with fresh(bench) as server, contextlib.ExitStack() as open_ones:
        server.start()
        before = rested_mib(server)
        for _ in range(count):
            bench.left_s()
            open_ones.enter_context(greeted(server.address))
        after = rested_mib(server)
        return {"rss_mib": after, "kib_each": (after - before) * 1024 / count}


class Filled:
    """A server that is killed and started again in every pass, with what it held before."""

    def __init__(self, bench):
        need = bench.sizes.restart_mb * MB * 1.15 + (2 << 30)
        free = shutil.disk_usage(bench.work).free
        if free < need:
            raise Hole(f"{free >> 20} MiB of disk are free, {int(need) >> 20} are needed")
        self.server = Server(bench.server.kind, f"{bench.work}/filled-{time.monotonic_ns()}", bench.server.cores)
        try:
            self.server.start()
            words = ["--topic", "many", "--partitions", str(bench.sizes.most)]
            bench.wait(bench.start_raw("create-topic", *words, server=self.server), "create-topic")
            bench.raw("produce", *words, "--touch", "--total-bytes", "128", "--batch-bytes", "128", "--warm-up", "0", server=self.server)
            bench.wait(bench.start_raw("create-topic", "--topic", "full", "--partitions", "16", server=self.server), "create-topic")
            bench.fill("full", bench.sizes.restart_mb * MB, 16, server=self.server)
        except BaseException:
            self.server.remove()
            raise

    def remove(self):
        self.server.remove()


def restart(bench, _args):
    """Killed under load and started again, with all that it held."""
    key = ("restart", bench.name)
    if key not in bench.kept:
        bench.kept[key] = Filled(bench)
    server = bench.kept[key].server
    # It stood still since the last pass: it serves again before it is loaded.
    first_after(bench, server, server.go_on, "--topic", "full")
    load = bench.start_raw("produce", "--topic", "full", "--partitions", "16", "--seconds", "60", "--warm-up", "0", server=server)
    time.sleep(bench.sizes.seconds)
    server.end(signal.SIGKILL)
    load.communicate()
    seconds = first_after(bench, server, server.launch, "--topic", "full")
    server.still()
    return {"acknowledged_s": seconds}


def topics(bench, _args):
    return bench.raw("make-topics", "--topic", f"made-{time.monotonic_ns()}", "--count", str(bench.sizes.topics), *bench.cpu_of())


def warm_up(bench, server):
    """What a server gets before anything counts: a JVM its compiler's profile, Millrace its memory touched."""
    if server.kind == "bare":
        return
    seconds = bench.sizes.jvm_warm_s if server.kind == "kafka" else bench.sizes.grow_s // 2 + 1
    if server.kind == "millrace":
        # Small batches of many partitions all go through the journal, which grows by what comes faster than it is emptied.
        with bench.topic(64, server=server) as topic:
            words = ["--topic", topic, "--partitions", "64", "--batch-bytes", "16384", "--linger-batches", "8", "--in-flight", "16"]
            bench.raw("produce", *words, "--warm-up", "0", "--seconds", str(seconds), server=server)
    with bench.topic(8, server=server) as topic:
        words = ["--topic", topic, "--partitions", "8", "--warm-up", "0", "--seconds", str(seconds)]
        bench.raw("produce", *words, server=server)
        bench.raw("fetch", "--topic", topic, "--partitions", "8", "--cold", "--seconds", str(max(1, seconds // 3)), server=server)
