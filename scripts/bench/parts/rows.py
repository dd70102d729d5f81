"""The rows of the speed table, as data: what is measured, how, on which servers, and for about how long.

A `Row` compares servers. A `Versus` compares two variants of Millrace, one on against one off; some are judged. How a row is measured is
the function of measure.py or versus.py that its `measure` names; `args` are that function's own.

Knows nothing of how servers are started or results are shown.
"""

from dataclasses import dataclass, field, replace

BARE, MILLRACE, KAFKA, FLUSH = "bare", "millrace", "kafka", "kafka-flush"
ALL = (BARE, MILLRACE, KAFKA, FLUSH)
BROKERS = (MILLRACE, KAFKA, FLUSH)
# Where a flush per message makes no difference, or is no other state on the disk.
PLAIN = (MILLRACE, KAFKA)

RAW, RD, PERF, OWN = "raw wire", "librdkafka", "Kafka's perf tools", "processes"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    quick: bool
    pairs: int
    judged_pairs: int  # passes of rows that are judged
    seconds: int  # of a throughput window
    warm_s: int
    jvm_warm_s: int
    sends: int  # one in flight
    open_samples: int  # at least, at low rates
    idle_s: int
    many: int  # partitions of the rows that say 1,000
    most: int  # of those that say 10,000
    connections: int
    topics: int
    hot_mb: int
    warm_mb: int
    cold_mb: int
    restart_mb: int
    perf_mb: int
    touch_mb: int
    grow_s: int  # of load by which a Millrace of a versus row comes to size

    def partitions(self, wanted):
        return {"many": self.many, "most": self.most}.get(wanted, wanted)


FULL = Sizes(False, 5, 9, 3, 2, 15, 4000, 1000, 10, 1000, 10_000, 5000, 300, 64, 1024, 1536, 10_240, 512, 4096, 8)
QUICK = Sizes(True, 1, 1, 1, 1, 4, 500, 100, 1, 100, 200, 500, 20, 64, 640, 768, 256, 64, 512, 3)


@dataclass(frozen=True)
class Figure:
    name: str
    label: str
    unit: str
    digits: int
    less_is_better: bool = False


MB = Figure("mb_per_s", "", "MB/s", 0)
CPU = Figure("server_cpu_s_per_gb", "server CPU", "s/GB", 2, True)
P50 = Figure("p50_ms", "p50", "ms", 3, True)
P99 = Figure("p99_ms", "p99", "ms", 3, True)
P999 = Figure("p999_ms", "p999", "ms", 3, True)


@dataclass(frozen=True)
class Row:
    name: str
    group: str
    what: str
    client: str
    measure: str
    figures: tuple
    servers: tuple = ALL
    args: dict = field(default_factory=dict)
    cost_s: float = 2.0  # of one run, beside its windows
    peer_cost_s: float = 0.0  # what Kafka takes longer
    bound_s: float = 120.0  # of one run; what takes longer is a hole
    starts_its_own: bool = False  # the row's processes are its own, not those that rows share
    plot: str = ""  # "bars", or "curve:NAME" with args["rate"]

    def windows(self, sizes):
        """Seconds that are measured in one run, warm-up included."""
        if "rate" in self.args:
            return sizes.warm_s + open_seconds(self.args["rate"], sizes)
        return sizes.warm_s + sizes.seconds

    def run_s(self, server, sizes):
        """About how long one run takes."""
        peer = self.peer_cost_s if server in (KAFKA, FLUSH) else 0
        whole = self.cost_s + peer
        return self.windows(sizes) + (whole / 4 if sizes.quick else whole)


@dataclass(frozen=True)
class Variant:
    """One of the two that a `Versus` compares: Millrace's settings, its topic's, the load's own arguments, and what runs beside it."""

    name: str
    shards: int = 1
    settings: tuple = ()
    topic: dict = field(default_factory=dict)
    args: dict = field(default_factory=dict)
    beside: str = ""
    home: str = "any"


@dataclass(frozen=True)
class Versus:
    name: str
    group: str
    what: str
    measure: str
    off: Variant
    on: Variant
    figure: Figure
    args: dict = field(default_factory=dict)
    judged: bool = False
    # A figure by which one sees that on was on and off was off: on must exceed twice off.
    proof: Figure | None = None
    cost_s: float = 2.0
    bound_s: float = 120.0
    client: str = RAW

    def run_s(self, sizes):
        return sizes.warm_s + max(sizes.seconds, self.args.get("seconds", 0) if not sizes.quick else 0) + self.cost_s

    def passes(self, sizes):
        return sizes.judged_pairs if self.judged else sizes.pairs


def open_seconds(rate, sizes):
    """Long enough that a p999 stands on some samples at low rates too."""
    return max(sizes.seconds, -(-sizes.open_samples // rate))


KIB = 1024
BATCHES = {"4 KiB": 4 * KIB, "16 KiB": 16 * KIB, "64 KiB": 64 * KIB, "1 MiB": KIB * KIB}
RECORDS = {"1 KiB": KIB, "100 B": 100}
RATES = (100, 1_000, 10_000, 50_000)


def produce_rows():
    """One thing at a time differs from 1 KiB records, 64 KiB batches, one connection, one partition; both clients get the same rows."""
    base = {"connections": 1, "partitions": 1, "batch": 64 * KIB, "record": KIB}
    kinds = []
    for record, record_bytes in RECORDS.items():
        for batch, batch_bytes in BATCHES.items():
            kinds.append((f"{record}-in-{batch}", f"{record} records, {batch} batches", {"record": record_bytes, "batch": batch_bytes}, {}))
    for connections in (4, 32):
        kinds.append((f"connections-{connections}", f"{connections} connections, 64 KiB batches", {"connections": connections}, {}))
    kinds.append(("connections-4-128kib", "4 connections, 128 KiB batches", {"connections": 4, "batch": 128 * KIB}, {}))
    for partitions, label in ((64, "64"), ("many", "1,000"), ("most", "10,000")):
        slow = {64: (2, 4, 90), "many": (3, 8, 180), "most": (6, 30, 420)}[partitions]
        costs = {"cost_s": slow[0], "peer_cost_s": slow[1], "bound_s": slow[2]}
        kinds.append((f"partitions-{label.replace(',', '')}", f"{label} partitions, 64 KiB batches", {"partitions": partitions}, costs))
    keyed = {"partitions": 64, "batch": 16 * KIB, "keyed": True}
    kinds.append(("keyed-64", "keyed, 16 KiB batches over 64 partitions", keyed, {"cost_s": 3, "peer_cost_s": 4}))
    kinds.append(("idempotent", "idempotent, 64 KiB batches", {"idempotent": True}, {}))
    kinds.append(("lz4", "lz4, 64 KiB batches before compression", {"lz4": True}, {}))
    for name, what, differs, costs in kinds:
        slug = name.replace(" ", "").lower()
        raw_what = "16 KiB batches over 64 partitions, 8 a request" if name == "keyed-64" else what
        servers = BROKERS if name == "idempotent" else ALL
        raw = Row(f"raw-{slug}", "produce-raw", raw_what, RAW, "produce", (MB, CPU), servers, {**base, **differs}, plot="bars", **costs)
        rd = Row(f"rd-{slug}", "produce-librdkafka", what, RD, "rd_produce", (MB, CPU), BROKERS, {**base, **differs}, plot="bars", **costs)
        if name == "lz4":
            # Bytes on the wire say little of records.
            raw = replace(raw, figures=(replace(MB, name="uncompressed_mb_per_s", label="of records"), replace(MB, label="on the wire"), CPU))
        yield raw
        if name == "keyed-64":
            # What librdkafka makes of keyed records, and what its row can come to at most.
            alone = {"partitions": 64, "batch": 16 * KIB, "in_flight": 5}
            yield replace(raw, name="raw-keyed-64-alone", what="16 KiB batches over 64 partitions, one a request, 5 in flight", args={**base, **alone})
        yield rd
        if name == "keyed-64":
            # The other librdkafka rows have 5 requests in flight, as the Java client; librdkafka itself bounds them at a million.
            yield replace(rd, name="rd-keyed-64-unbounded", what=f"{what}, requests in flight unbounded", args={**rd.args, "in_flight": 0})
    what = "1 KiB records, 64 KiB batches, linger 5 ms"
    yield Row("perf-produce", "produce-perf-tools", what, PERF, "perf_produce", (MB, P99), BROKERS, base, 12, 20, 300, plot="bars")


def latency_rows():
    for partitions in (1, 16, 64):
        shown = "1 partition" if partitions == 1 else f"{partitions} partitions"
        args = {"partitions": partitions}
        yield Row(f"one-in-flight-{partitions}", "latency", f"one in flight, 1 KiB, {shown}", RAW, "latency", (P50, P99, P999), ALL, args, 3, 2)
        for rate in RATES:
            args = {"partitions": partitions, "rate": rate}
            what = f"{rate:,} records/s, 100 B, {shown}"
            yield Row(f"open-{rate}-{partitions}", "latency", what, RAW, "open_loop", (P50, P99, P999), ALL, args, plot=f"curve:durable-{partitions}")
    yield Row("rd-one-in-flight", "latency-librdkafka", "one in flight, 1 KiB", RD, "rd_latency", (P50, P99, P999), BROKERS, {}, 3, 4)
    for rate in RATES:
        args = {"partitions": 1, "rate": rate}
        what = f"{rate:,} records/s, 100 B, 1 partition"
        yield Row(f"rd-open-{rate}", "latency-librdkafka", what, RD, "rd_open", (P50, P99, P999), BROKERS, args, plot="curve:durable-librdkafka")
    for rate in RATES:
        args = {"partitions": 1, "rate": rate}
        what = f"{rate:,} records/s, 100 B, 1 partition"
        yield Row(f"end-to-end-{rate}", "end-to-end", what, RAW, "end_to_end", (P50, P99, P999), BROKERS, args, plot="curve:end-to-end")


def fetch_rows():
    hot = "hot: 64 MB that were just produced, again and again"
    yield Row("fetch-hot", "fetch", hot, RAW, "fetch_hot", (MB, CPU), (BARE, *PLAIN), plot="bars")
    warm = "warm: the older half of 1 GiB (--quick 640 MiB), not in Millrace's memory; from its file, in Kafka from the page cache"
    yield Row("fetch-warm", "fetch", warm, RAW, "fetch_warm", (MB, CPU), PLAIN, {}, 8, 4, plot="bars")
    cold = "cold: 16 consumers, each the older part of its partition, page cache dropped"
    yield Row("fetch-cold-16", "fetch", cold, RAW, "fetch_cold", (MB, CPU), PLAIN, {"connections": 16}, 12, 6, plot="bars")
    yield Row("rd-fetch", "fetch", hot, RD, "rd_fetch", (MB, CPU), PLAIN, {"mb": "hot_mb", "passes": 30}, 6, 2, plot="bars")
    beyond = "512 MB (--quick 64) that were just produced, of which Millrace has 256 MiB in memory, once"
    yield Row("rd-fetch-beyond", "fetch", beyond, RD, "rd_fetch", (MB, CPU), PLAIN, {"mb": "perf_mb", "passes": 1}, 6, 2, plot="bars")
    yield Row("perf-fetch", "fetch", beyond, PERF, "perf_fetch", (MB,), PLAIN, {}, 14, 2, 180, plot="bars")
    alone = Figure("alone_p99_ms", "produce p99 alone", "ms", 3, True)
    beside = Figure("p99_ms", "produce p99 beside the readers", "ms", 3, True)
    times = Figure("p99_times", "beside / alone", "times", 2, True)
    read = Figure("read_mb_per_s", "the readers", "MB/s", 0)
    what = "10,000 records/s, 1 KiB, 4 partitions, beside 4 consumers that catch up as fast as they can"
    yield Row("catch-up", "catch-up", what, RAW, "catch_up", (alone, beside, times, read), BROKERS, {"rate": 10_000, "readers": 4}, 20, 8, 180)


def process_rows():
    start = Figure("acknowledged_s", "", "s", 3, True)
    rss = Figure("rss_mib", "idle memory then", "MiB", 1, True)
    idle = Figure("cpu_percent", "idle CPU of one core then", "%", 2, True)
    yield Row("start-empty", "start", "start on an empty directory to the first acknowledgement", OWN, "start_empty", (start, rss, idle), PLAIN, {}, 8, 12, 240, True)
    what = "start after kill -9 under load, with 10 GiB and 10,000 partitions (--quick 256 MiB, 200), to the first acknowledgement"
    yield Row("restart", "restart", what, OWN, "restart", (start,), PLAIN, {}, 25, 130, 900, True)
    made = Figure("created_s", "making them", "s", 2, True)
    rss = Figure("rss_mib", "memory, idle", "MiB", 1, True)
    each = Figure("kib_each", "beyond an empty server, a partition", "KiB", 2, True)
    idle = Figure("cpu_percent", "CPU of one core, idle", "%", 2, True)
    what = "10,000 partitions (--quick 200), a record in each"
    yield Row("memory-partitions", "memory", what, OWN, "memory_partitions", (made, rss, each, idle), PLAIN, {}, 20, 90, 600, True)
    rss = Figure("rss_max_mib", "", "MiB", 1, True)
    yield Row("memory-load", "memory", "most memory under load: 4 connections, 64 KiB batches", OWN, "memory_load", (rss,), ALL)
    rss = Figure("rss_mib", "memory with them", "MiB", 1, True)
    each = Figure("kib_each", "a connection", "KiB", 2, True)
    yield Row("connections", "memory", "5,000 idle connections (--quick 500)", OWN, "idle_connections", (rss, each), PLAIN, {}, 3, 6, 240, True)
    per_s = Figure("topics_per_s", "", "topics/s", 0)
    yield Row("topics", "topics", "topics of one partition, made one after the other", RAW, "topics", (per_s, P99), PLAIN, {}, 3, 3, 180)


def partition_rows():
    """What many partitions cost, the same load over one in turn: rows of their own are minutes apart, and the device is not the same then."""
    load = {"connections": 1, "batch": 64 * KIB}
    for partitions, label, bound_s in (("many", "1,000", 180), ("most", "10,000", 420)):
        one, many = Variant("1 partition", args={"partitions": 1}), Variant("many partitions", args={"partitions": partitions})
        name, what = f"partitions-{label.replace(',', '')}", f"produce, 64 KiB batches, over {label} partitions against 1"
        yield Versus(name, "partitions", what, "produce", one, many, MB, load, cost_s=5, bound_s=bound_s)


def shard_rows():
    """Two shards share both cores with the client; one shard has core 0 and leaves the client core 1."""
    one = Variant("1 shard")
    same = Variant("2 shards", shards=2, home="same")
    other = Variant("2 shards", shards=2, home="other")
    for home, variant, told in (("same", same, "on the partition's shard"), ("other", other, "not on the partition's shard")):
        one_each = {"connections": 1, "partitions": 1, "batch": 64 * KIB}
        yield Versus(f"shards-produce-{home}", "shards", f"produce, 64 KiB batches, the connection {told}", "produce", one, variant, MB, one_each)
        yield Versus(f"shards-latency-{home}", "shards", f"one in flight, 1 KiB, the connection {told}", "latency", one, variant, P50, {"partitions": 1})
        yield Versus(f"shards-fetch-{home}", "shards", f"fetch from memory, the connection {told}", "fetch_hot", one, variant, MB)
        four = {"connections": 4, "partitions": 4, "batch": 128 * KIB}
        yield Versus(f"shards-produce-4-{home}", "shards", f"produce, 4 connections of 128 KiB over 4 partitions, each {told}", "produce", one, variant, MB, four)


def driver_rows():
    """The portable driver against io_uring, one shard each."""
    ring, portable = Variant("io_uring", settings=("io.driver=uring",)), Variant("portable", settings=("io.driver=portable",))
    for told, args in (
        ("64 KiB batches", {"connections": 1, "partitions": 1, "batch": 64 * KIB}),
        ("4 connections of 128 KiB", {"connections": 4, "partitions": 1, "batch": 128 * KIB}),
    ):
        yield Versus(f"driver-produce-{args['connections']}", "driver", f"produce, {told}", "produce", ring, portable, MB, args)
    for figure in (P50, P99):
        yield Versus(f"driver-latency-{figure.label}", "driver", "one in flight, 1 KiB", "latency", ring, portable, figure, {"partitions": 1})
    yield Versus("driver-fetch", "driver", "fetch from memory", "fetch_hot", ring, portable, MB)


def scheduling_rows():
    """What goes on behind acknowledgements must not move their p99: the same load with it and without."""
    load = {"rate": 5_000, "value": KIB, "partitions": 64, "seconds": 4}
    # A journal that small is emptied into segments all the time; and one partition closes segments the soonest.
    one, busy = {**load, "partitions": 1}, "journal.max.bytes=32MiB"
    off, on = Variant("off"), Variant("on")
    moved = Figure("moved_mib", "moved to segments", "MiB", 1)
    yield Versus(
        "checkpoints", "scheduling", "flushing to segments and checkpoints: a journal of two files against one of which a window fills a part", "scheduled",
        replace(off, settings=("journal.max.bytes=512MiB",)), replace(on, settings=(busy,)), P99, load, True, moved,
    )  # fmt: skip
    small = {"segment.bytes": 1 << 20}
    removed = Figure("removed_records", "records removed", "", 0)
    yield Versus(
        "retention", "scheduling", "retention: retention.bytes=1 MiB against none, looked at twice a second; segments of 1 MiB", "scheduled",
        replace(off, settings=(busy, "log.retention.check.interval.ms=500"), topic={**small, "retention.bytes": -1}),
        replace(on, settings=(busy, "log.retention.check.interval.ms=500"), topic={**small, "retention.bytes": 1 << 20}),
        P99, one, True, removed,
    )  # fmt: skip
    index = Figure("index_kib", "of indexes beyond one entry each", "KiB", 1)
    yield Versus(
        "index", "scheduling", "index building: an entry for every batch against one a segment; segments of 2 MiB", "scheduled",
        replace(off, settings=(busy,), topic={"segment.bytes": 2 << 20, "index.interval.bytes": 2_147_483_647}),
        replace(on, settings=(busy,), topic={"segment.bytes": 2 << 20, "index.interval.bytes": 0}),
        P99, one, True, index,
    )  # fmt: skip
    read = Figure("read_mb_per_s", "read", "MB/s", 0)
    yield Versus(
        "cold-reads", "scheduling", "cold reads: 4 consumers that read old segments at 100 MB/s, against none", "scheduled",
        off, replace(on, beside="readers"), P99, {**load, "old": True}, True, read, 6,
    )  # fmt: skip


def registry():
    """All rows, in the order in which they are measured and shown."""
    rows = [*produce_rows(), *latency_rows(), *fetch_rows(), *process_rows(), *partition_rows(), *shard_rows(), *driver_rows(), *scheduling_rows()]
    groups = list(dict.fromkeys(row.group for row in rows))
    return sorted(rows, key=lambda row: groups.index(row.group))


def chosen(rows, only):
    """The rows that `only`, names of groups or rows, asks for; all when it is empty. A name that is none of both is an error."""
    known = {row.name for row in rows} | {row.group for row in rows}
    if unknown := sorted(set(only) - known):
        raise ValueError(f"no row or group {', '.join(unknown)}; --list shows all")
    return [row for row in rows if not only or row.name in only or row.group in only]


def estimate_s(rows, servers, sizes):
    """About how long all this takes, with what servers take to start and to warm up."""
    kafka = KAFKA in servers or FLUSH in servers
    whole = 15.0 + (15 + 2 * sizes.jvm_warm_s if kafka else 0)
    for row in rows:
        if isinstance(row, Versus):
            whole += (2 * row.passes(sizes) * row.run_s(sizes) + 2 * sizes.grow_s) if MILLRACE in servers else 0
        else:
            whole += sizes.pairs * sum(row.run_s(server, sizes) for server in row.servers if server in servers)
    return whole
