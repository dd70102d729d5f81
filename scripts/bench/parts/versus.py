"""How one variant of Millrace is measured in a row that compares two: a load at a fixed rate, with or without what goes on behind it.

Each result bears a proof besides its latency: a figure that shows that on was on and off was off.
"""

import contextlib
import socket
import struct
import time

import measure
from measure import MB
from servers import Hole

READ_MB_PER_S = 100
READERS = 4
OLD_MB = 640
EARLIEST = -2
INDEX_BYTES_MIN = 8192  # an index file of one entry: two blocks


def first_offsets(address, topic, partitions):
    """The first offset that each partition still has, by ListOffsets version 1."""
    name = topic.encode()
    body = struct.pack(">hhih", 2, 1, 7, -1) + struct.pack(">iih", -1, 1, len(name)) + name
    body += struct.pack(">i", partitions) + b"".join(struct.pack(">iq", partition, EARLIEST) for partition in range(partitions))
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(struct.pack(">i", len(body)) + body)
        answer = sock.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        found = answer.read(size)
    at = 4 + 4 + 2 + len(name) + 4
    offsets = []
    for _ in range(partitions):
        _, error, _, offset = struct.unpack_from(">ihqq", found, at)
        if error:
            raise Hole(f"ListOffsets answers error {error}")
        offsets.append(offset)
        at += struct.calcsize(">ihqq")
    return offsets


def scheduled(bench, args, variant):
    """Open-loop produce beside what the variant's settings or readers cause."""
    server, partitions = bench.server, args["partitions"]
    old = None
    if args.get("old"):
        if "old" not in bench.kept:
            # Older than what a server has in memory.
            bench.kept["old"] = measure.KeptTopic(bench, READERS, OLD_MB * MB)
        old = bench.kept["old"].name
    with bench.topic(partitions, **variant.topic) as topic:
        before = sum(server.files(".log"))
        found = {"read_mb_per_s": 0.0}
        if variant.beside == "readers":
            seconds = bench.sizes.warm_s + (bench.sizes.seconds if bench.sizes.quick else args["seconds"]) + 1
            words = ["--mb-per-s", str(READ_MB_PER_S), "--pass-bytes", str(OLD_MB * MB // 2 // READERS)]
            with measure.readers(bench, old, READERS, seconds, *words) as ended:
                time.sleep(0.5)
                found |= measure.at_rate(bench, args, topic)
                found["read_mb_per_s"] = ended()["mb_per_s"]
        else:
            found |= measure.at_rate(bench, args, topic)
        found["moved_mib"] = (sum(server.files(".log")) - before) / (1 << 20)
        found["index_kib"] = sum(max(0, size - INDEX_BYTES_MIN) for size in server.files(".index")) / 1024
        found["removed_records"] = sum(first_offsets(server.address, topic, partitions))
        return found


def run(bench, row, variant):
    """The figures of one run of a `Versus` row."""
    args = {**row.args, **variant.args}
    if row.measure == "scheduled":
        return scheduled(bench, args, variant)
    return getattr(measure, row.measure)(bench, args, variant.home)
