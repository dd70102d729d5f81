"""The records that the client checks send, and what they must look like when they come back.

Everything is derived from a seed and an index, so a difference found can be repeated. Payloads can be limited to what a client is able
to send or print (see `Kinds`).

Knows nothing of clients and brokers.
"""

import random
import time
from collections import namedtuple

# partition None: the client's partitioner decides by the key.
Record = namedtuple("Record", "partition key value headers timestamp")
# A record as consumed, with its offset.
Seen = namedtuple("Seen", "partition offset key value headers timestamp")
# What the client is able to carry: explicit timestamps, varied headers, empty (not null) fields, arbitrary bytes.
Kinds = namedtuple("Kinds", "timestamps headers empties binary")

ALL_KINDS = Kinds(True, True, True, True)
HEADERS = [
    [],
    [("trace", b"\x00\x01\xfe\xff")],
    [("a", b"1"), ("b", b"22")],
    [("same", b"first"), ("same", b"second")],
    [("empty", b"")],
    [("snow\u2603man", "\u00e9".encode())],
]


def make(seed, count, partitions, kinds=ALL_KINDS, base_time=None):
    """`count` records dealt to the partitions in turn, with tombstones, empty and large values among them."""
    rng = random.Random(seed)
    base_time = base_time or int(time.time() * 1000) - 3_600_000
    made = []
    for index in range(count):
        key = f"key-{index % 37}".encode()
        value = _value(rng, index, kinds)
        headers = HEADERS[index % len(HEADERS)] if kinds.headers else []
        if index % 29 == 7:
            value = None
        if index % 31 == 5 and value is not None:
            key = None
        if index % 41 == 3 and kinds.empties:
            key = b""
        stamp = base_time + index * 10 if kinds.timestamps else None
        made.append(Record(index % partitions, key, value, headers, stamp))
    return made


def _value(rng, index, kinds):
    if index % 43 == 11 and kinds.empties:
        return b""
    if index == 100:
        return b"compressible " * 8_000
    size = 60_000 if index == 101 else rng.randrange(1, 400)
    if kinds.binary:
        return index.to_bytes(4, "big") + rng.randbytes(size)
    return f"{index}:{rng.randbytes(size // 2).hex()}".encode()


def keyed(seed, count, keys=50):
    """Records with no partition given; the value holds the index, so that order per key can be judged."""
    rng = random.Random(seed)
    return [Record(None, f"k{rng.randrange(keys)}".encode(), f"{seed}:{index}".encode(), [], None) for index in range(count)]


def difference(sent, seen):
    """None, or a line that says how the consumed record differs from the one sent."""
    for field in ("key", "value", "timestamp"):
        want, got = getattr(sent, field), getattr(seen, field)
        if field == "timestamp" and want is None:
            continue
        if want != got:
            return f"{field} at partition {seen.partition} offset {seen.offset}: sent {_short(want)}, got {_short(got)}"
    want = [(name, value) for name, value in sent.headers]
    got = [(name, value) for name, value in seen.headers]
    if want != got:
        return f"headers at partition {seen.partition} offset {seen.offset}: sent {want}, got {got}"
    return None


def _short(value):
    if isinstance(value, bytes) and len(value) > 40:
        return f"{value[:40]!r}... ({len(value)} bytes)"
    return repr(value)
